"""Exact numbers, times, records: each property with the bug that breaks it."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_UP, Context, Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError, refused
from quantbench.core.value import Currency, Interval, Money, Value, at_step, exact, round_to, steps, utc

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("steady")


class Mood(StrEnum):
    CALM = "calm"
    WILD = "wild"


@dataclass(frozen=True, slots=True)
class Note(Value):
    price: float
    quantity: Decimal
    made: datetime
    mood: Mood = Mood.CALM
    urgent: bool = False
    counts: tuple[int, ...] = ()
    limit: Decimal | None = None
    earlier: Note | None = None


decimals = st.decimals(-(10**17), 10**17, allow_nan=False, places=18) | st.integers(-(10**17), 10**17).map(
    Decimal
)
times = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.timezones())
notes = st.builds(
    Note,
    price=st.floats(allow_nan=False, allow_infinity=False),
    quantity=decimals,
    made=times,
    mood=st.sampled_from(Mood),
    urgent=st.booleans(),
    counts=st.lists(st.integers()).map(tuple),
    limit=st.none() | decimals,
)
ticks = st.integers(1, 10**6).flatmap(
    lambda n: st.integers(0, 9).map(lambda places: Decimal(n).scaleb(-places))
)


def code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(QuantbenchError) as caught:
        call(*args, **kwargs)
    return caught.value.code


@given(times)
def test_utc_is_the_same_moment_whatever_the_zone(moment):
    """Fails if the zone is replaced instead of converted, or the fold is lost."""
    result = utc(moment, where="test")
    assert result.timestamp() == moment.timestamp()
    assert result.tzinfo is UTC and type(result) is datetime and result.fold == 0


def test_utc_refuses_what_it_cannot_hold():
    """Fails if a naive time is taken for UTC, or nanoseconds are cut (known too soon)."""
    assert code(utc, datetime(2024, 1, 1), where="") == "QB-TIME-001"
    assert code(utc, "2024-01-01T00:00:00Z", where="") == "QB-TIME-001"
    assert code(utc, np.datetime64("2024-01-01"), where="") == "QB-TIME-001"
    assert code(utc, pd.Timestamp("2024-01-01"), where="") == "QB-TIME-001"
    assert code(utc, pd.Timestamp(1, unit="ns", tz="UTC"), where="") == "QB-TIME-002"
    assert code(utc, pd.NaT, where="") == "QB-TIME-002"
    assert code(utc, datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), where="") == "QB-TIME-002"
    assert type(utc(pd.Timestamp("2024-01-01", tz="UTC"), where="")) is datetime


@given(st.integers(-(10**9), 10**9), ticks)
def test_the_grid_and_its_count_are_one(count, step):
    """Fails if either way goes through a float, or through the caller's decimal context."""
    with localcontext(prec=2, rounding=ROUND_UP):
        price = at_step(count, step, "test")
        assert steps(price, step, "test") == count
    assert Fraction(price) == count * Fraction(step)


@given(decimals, ticks, st.sampled_from(["floor", "ceiling", "nearest", "zero"]))
def test_rounding_goes_where_it_says(value, step, toward):
    """Fails if the direction turns round below zero, or the nearest is decided by a truncated quotient."""
    whole = {"floor": math.floor, "ceiling": math.ceil, "nearest": round, "zero": math.trunc}[toward]
    wanted = whole(Fraction(value) / Fraction(step)) * Fraction(step)
    if abs(wanted) < 10**18:
        with localcontext(prec=2, rounding=ROUND_UP):
            result = round_to(value, step, toward, "test")
        assert Fraction(result) == wanted and round_to(result, step, toward, "test") == result


@given(st.integers(-(10**7), 10**7), st.integers(0, 6))
def test_a_float_is_read_as_it_prints(count, places):
    """Fails if floats are read by their binary value: 0.29 floored to the cent would be 0.28."""
    written = Decimal(count).scaleb(-places)
    step = Decimal(1).scaleb(-places)
    assert {round_to(float(written), step, to, "test") for to in ("floor", "ceiling", "zero")} == {written}


@pytest.mark.parametrize("value", [1.0, 1, True, "1", None, np.float64(1), np.int64(1), Fraction(1)])
def test_only_decimals_are_exact(value):
    assert code(exact, value, "test") == "QB-TYPE-002"


@pytest.mark.parametrize(
    "text", ["NaN", "sNaN", "Infinity", "-Infinity", "1E+18", "1E+1000000", "1E-19", "1E-1000000"]
)
def test_decimals_without_bounds_are_refused(text):
    """Fails if the check compares (NaN), or quantizes before it looks at the size (memory)."""
    assert code(exact, Decimal(text), "test") == "QB-TYPE-001"


def test_the_bounds_themselves_are_kept():
    for text in (
        "999999999999999999.999999999999999999",
        "-0.000000000000000001",
        "0E-30",
        "1.000000000000000000000",
    ):
        exact(Decimal(text), "test")


@given(notes, notes)
def test_records_are_exact_and_complete(note, other):
    """Fails if a digit, a zone, a null or a nested value is lost on the way through JSON text."""
    nested = Note(note.price, note.quantity, note.made, earlier=other)
    for value in (note, nested):
        text = json.dumps(value.as_record(), allow_nan=False)
        back = Note.from_record(json.loads(text))
        assert back == value and json.dumps(back.as_record()) == text


@given(decimals, st.integers(-12, 12), times, st.sampled_from([0.0, 1.5]))
def test_equal_values_have_equal_records(quantity, hours, made, price):
    """Fails if 1.5 and 1.50, 0 and -0, or one moment in two zones are written differently: hashes would differ."""
    short = quantity.normalize(Context(prec=60))
    turned = made.astimezone(timezone(timedelta(hours=hours)))
    one, two = Note(price, quantity, made), Note(price or -0.0, short, turned)
    assert one == two and json.dumps(one.as_record()) == json.dumps(two.as_record())


def test_one_zero():
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    texts = ("0", "-0", "0.00", "-0E-18", "0E+5")
    assert {Note(1.0, Decimal(t), moment).as_record()["quantity"] for t in texts} == {"0"}


FITS = {"price": (1.5,), "urgent": (True,), "limit": (None,), "earlier": (None,)}


@pytest.mark.parametrize(
    "junk",
    [1.5, True, "x", None, {}, [None], b"", math.nan, 10**400, "1e5", "NaN", "١", "1_0", " 1", -(10**400)],
    ids=lambda j: repr(j)[:9],
)
def test_a_wrong_value_is_a_coded_refusal_and_nothing_else(junk):
    """Fails if a raw TypeError, OverflowError or AttributeError reaches the user, or junk is taken in silence."""
    record = Note(1.0, Decimal(2), datetime(2024, 1, 1, tzinfo=UTC), earlier=None).as_record()
    for name in record:
        if not any(junk is fine for fine in FITS.get(name, ())):
            assert code(Note.from_record, record | {name: junk}).startswith(("QB-TYPE", "QB-TIME")), name
    assert code(Note.from_record, junk) in ("QB-TYPE-008", "QB-TYPE-010")


def test_a_value_cannot_be_changed():
    note = Note(1.0, Decimal(2), datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(FrozenInstanceError):
        note.price = 2.0  # type: ignore[misc]
    assert not hasattr(note, "__dict__") and hash(note) == hash(Note.from_record(note.as_record()))


@given(
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20),
    st.sampled_from([0, 2, 8]),
    st.randoms(),
)
def test_money_adds_up_in_any_order(minor, digits, random):
    """Fails if a sum is rounded by the caller's context or kept in floats."""
    currency = Currency("XTS", digits)
    amounts = [currency.money(Decimal(m).scaleb(-digits)) for m in minor]
    random.shuffle(amounts)
    with localcontext(prec=3):
        total = sum(amounts, currency.money(Decimal(0)))
        assert (total - total).amount == 0
    assert total.amount == Decimal(sum(minor)).scaleb(-digits)


def test_money_is_rounded_once_half_to_even_and_never_mixed():
    dollar, yen = Currency("USD"), Currency("JPY", 0)
    rounded = [dollar.money(Decimal(t)).amount for t in ("0.005", "0.015", "0.025", "-0.005", "-0.015")]
    assert rounded == [Decimal(t) for t in ("0", "0.02", "0.02", "0", "-0.02")]
    assert code(Money, Decimal("0.001"), dollar) == "QB-TYPE-003"
    assert code(lambda: dollar.money(Decimal(1)) + yen.money(Decimal(1))) == "QB-TYPE-004"
    assert code(lambda: dollar.money(Decimal(1)) - Currency("USD", 3).money(Decimal(1))) == "QB-TYPE-004"
    for unfit in (Decimal("Infinity"), Decimal("NaN"), Decimal("1E+200")):
        assert code(dollar.money, unfit) == "QB-TYPE-001"
    assert code(Currency, "USD", 19) == "QB-TYPE-001" and code(Currency, " USD") == "QB-TYPE-009"


@given(st.integers(1, 1_000_000), st.sampled_from(["s", "m", "h", "d", "w", "mo", "y"]))
def test_an_interval_is_its_text(count, unit):
    """Fails if the canonical form changes the length, or is not stable."""
    interval = Interval.parse(f"{count}{unit}")
    assert (
        Interval.parse(str(interval))
        == interval
        == Interval(count, unit)
        == Interval.from_record(interval.as_record())
    )
    if unit not in ("mo", "y"):
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
        assert interval.length == timedelta(seconds=count * seconds)
    else:
        assert code(lambda: interval.length) == "QB-TYPE-011"


def test_a_session_is_not_a_day_of_hours():
    """Fails if 24 hours are carried into a day, or seven sessions into a week."""
    assert len({Interval.parse(text) for text in ("24h", "1d", "1w", "7d", "4w", "1mo")}) == 6


@pytest.mark.parametrize(
    "text",
    ["", "1", "m", "0m", "-1m", "1M", "1 m", "01m", "1.5h", "1min", "1m ", "٣m", "9999999d", None, 5, "1m\n"],
)
def test_what_is_not_an_interval_is_refused(text):
    assert code(Interval.parse, text) == "QB-TYPE-007"


@given(st.datetimes(datetime(1950, 1, 1), datetime(2050, 1, 1)), st.integers(-300, 300), st.integers(1, 5))
def test_months_are_counted_by_the_calendar(moment, times, count):
    """Fails if a month is 30 days, or 31 January plus a month lands in March. pandas is the reference."""
    moment = moment.replace(tzinfo=UTC)
    wanted = pd.Timestamp(moment) + pd.DateOffset(months=times * count)
    assert Interval(count, "mo").after(moment, times) == wanted.to_pydatetime()


def test_an_interval_beyond_the_calendar_is_refused():
    with refused("QB-TIME-002", show=False):
        Interval.parse("1y").after(datetime(9999, 1, 1, tzinfo=UTC))
    with refused("QB-TIME-002", show=False):
        Interval.parse("1d").after(datetime(9999, 12, 31, tzinfo=UTC))
