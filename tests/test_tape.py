"""Tapes: one order whatever the source, the same bytes streamed and held, and a hash that misses nothing."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import refused
from quantbench.core.clock import SimClock
from quantbench.data.schema import conform, schema
from quantbench.data.store import Lake
from quantbench.engine import events as ev
from quantbench.engine.events import KIND_BAR, PHASE, blank, made, merged
from quantbench.engine.sessions import assets_of, spec
from quantbench.engine.tape import Tape

START = datetime(2021, 3, 1, tzinfo=UTC)
LATER = datetime(2022, 1, 1, tzinfo=UTC)
EVENT = st.tuples(st.integers(0, 5), st.integers(1, 16), st.integers(0, 2), st.integers(0, 3))


def events_of(rows: list[tuple[int, int, int, int]]) -> np.ndarray:
    events = blank(len(rows))
    for i, (known, kind, asset, _) in enumerate(rows):
        events[i]["known"], events[i]["kind"], events[i]["asset"], events[i]["close"] = known, kind, asset, i
    return events


@given(st.lists(EVENT, min_size=1, max_size=40))
def test_the_order_is_the_written_one_with_ties_as_given(rows):
    expected = sorted(range(len(rows)), key=lambda i: (rows[i][0], PHASE[rows[i][1]], rows[i][2], i))
    found = merged([events_of(rows)])
    assert found["close"].tolist() == expected
    assert found.ctypes.data % 64 == 0


@given(st.lists(EVENT, min_size=1, max_size=40), st.integers(1, 4))
def test_sources_merge_as_if_they_had_been_one(rows, parts):
    events = events_of(rows)
    sources = [events[[i for i, row in enumerate(rows) if row[3] % parts == part]] for part in range(parts)]
    once = merged([np.concatenate(sources)])
    assert merged(sources).tobytes() == once.tobytes()
    assert merged([merged(sources[:1]), *sources[1:]]).tobytes() == once.tobytes()


def bar_rows(assets: list[str], minutes: list[int], *, interval: str = "1m", lag: int = 1) -> pa.Table:
    """Bars of some minutes, the same for all assets, known `lag` seconds after their end."""
    step = {"1m": timedelta(minutes=1), "1d": timedelta(days=1)}[interval]
    first = START if interval == "1m" else START + timedelta(hours=21)  # New York's close
    ends = [first + step * minute for minute in minutes]
    rows = [
        {
            "asset": asset, "interval": interval, "price_type": "trade", "adjustment": "raw",
            "open": 10.0 + i % 7, "high": 20.0, "low": 5.0, "close": 11.0 + i % 5, "volume": float(i),
            "event_time": end, "known_time": end + timedelta(seconds=lag), "source": "test",
        }
        for asset in assets
        for i, end in enumerate(ends)
    ]  # fmt: skip
    fields = [field for field in schema("bars").arrow if field.name != "revision"]
    return conform(pa.Table.from_pylist(rows, schema=pa.schema(fields)), schema("bars"), where="test")


def lake_of(place: Path, **tables: pa.Table) -> Lake:
    lake = Lake.create(place, clock=SimClock(LATER))
    for name, rows in tables.items():
        lake.append(name, rows, source="test")
    return lake


@settings(max_examples=8, deadline=None)
@given(
    minutes=st.lists(st.integers(1, 6000), min_size=2, max_size=120, unique=True).map(sorted),
    lag=st.sampled_from([0, 1, 90, 7200]),
    size=st.integers(20, 200),
)
def test_streamed_equals_held_byte_for_byte(tmp_path_factory, minutes, lag, size):
    """Sessions that lie across windows, bars known after later windows began, gaps."""
    rows = bar_rows(["A", "B", "C"], minutes, lag=lag)
    lake = lake_of(tmp_path_factory.mktemp("lake") / "lake", bars=rows)
    specs = {"A": spec("A", "crypto"), "B": spec("B", "fx"), "C": spec("C")}
    streamed = Tape.from_lake(lake, as_of=LATER, interval="1m", specs=specs, rows=size)
    held = Tape.from_snapshot(rows, specs=specs)
    chunks = list(streamed.chunks())
    assert np.concatenate(chunks).tobytes() == held.events.tobytes()
    assert all(a["known"][-1] < b["known"][0] for a, b in pairwise(chunks))
    assert streamed.hash == held.hash and streamed.load().hash == held.hash
    assert len(streamed) == len(held) == 3 * len(minutes)


def test_a_streamed_tape_is_played_in_bounded_memory(tmp_path):
    """Half a million quotes, 32 MB as events: chunks of 10,000 must not hold a quarter of that at any time."""
    count = 500_000
    times = pa.array(
        np.arange(count) * 100_000 + int(START.timestamp()) * 1_000_000, pa.timestamp("us", "UTC")
    )
    price = np.full(count, 10.0)
    columns = {"asset": pa.repeat("A", count), "sequence": np.arange(count), "bid": price, "ask": price + 1}
    columns |= {"bid_size": price, "ask_size": price, "venue": pa.nulls(count, pa.string())}
    columns |= {"event_time": times, "known_time": times, "source": pa.repeat("test", count)}
    lake = lake_of(tmp_path / "lake", quotes=conform(pa.table(columns), schema("quotes"), where="test"))
    tape = Tape.from_lake(lake, "quotes", as_of=LATER, specs="crypto", rows=10_000)
    tracemalloc.start()
    longest = max(map(len, tape.chunks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest < 25_000 and peak < 64 * count // 4
    assert len(tape) == count


BARS = made(
    KIND_BAR, known=[10, 20, 30], since=[5, 15, 25], asset=[0, 1, 0],
    open=10.0, high=12.0, low=9.0, close=11.0, volume=1.0,
)  # fmt: skip
TWO = assets_of(["A", "B"], "equity", None)


@pytest.mark.parametrize(
    "field", ["known", "since", "asset", "flags", "open", "high", "low", "close", "volume"]
)
def test_the_hash_sees_every_field(field):
    changed = BARS.copy()
    changed[field][2] += 1 if field not in ("low", "asset") else -1 if field == "low" else 1
    assert Tape.from_events(changed, TWO).hash != Tape.from_events(BARS, TWO).hash


def test_the_hash_sees_specifications_and_nothing_else():
    tape = Tape.from_events(BARS, TWO)
    other = assets_of(["A", "B"], "crypto", None)
    assert Tape.from_events(BARS, other).hash != tape.hash
    assert Tape.from_events(BARS, TWO, adjustment="split").hash != tape.hash
    assert Tape.from_events(BARS, TWO, interval="1m").hash != tape.hash
    assert Tape.from_events(BARS[:2], TWO).hash != tape.hash
    assert Tape.from_events(BARS.copy(), TWO).hash == tape.hash == tape.between(0, 31).hash


@given(
    st.integers(0, 2),
    st.sampled_from(["open", "high", "low", "close"]),
    st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.0]),
)
def test_no_bad_price_becomes_a_tape(row, field, value):
    broken = BARS.copy()
    broken[field][row] = value
    with refused("QB-ENG-102", show=False):
        Tape.from_events(broken, TWO)


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        ("QB-ENG-100", BARS[::-1].copy()),
        ("QB-ENG-101", BARS[[0, 0]].copy()),
        ("QB-ENG-106", BARS[:0].copy()),
        ("QB-ENG-119", BARS["close"].copy()),
        ("QB-ENG-119", BARS.tolist()),
    ],
)
def test_what_is_no_tape_is_refused(code, broken):
    with refused(code, show=False):
        Tape.from_events(broken, TWO)


def test_a_tape_does_not_follow_the_array_it_was_made_from():
    events = BARS.copy()
    tape = Tape.from_events(events, TWO)
    events["close"] = 9.5
    assert tape.events["close"].tolist() == [11.0] * 3
    with pytest.raises(ValueError, match="read-only"):
        tape.events["close"][0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        next(iter(tape.chunks()))["close"][0] = 1.0


@given(st.integers(0, 40), st.integers(0, 2**32))
def test_poison_keeps_the_past_and_the_contract(after, seed):
    tape = Tape.from_events(BARS, TWO)
    poisoned = tape.poison(after, seed)
    past = BARS["known"] <= after
    assert poisoned.events[past].tobytes() == BARS[past].tobytes()
    assert not np.isin(poisoned.events["close"][~past], BARS["close"]).any()
    assert ev.check(poisoned.events, [False, False], where="test") is poisoned.events
    assert all(
        (poisoned.events[name] == BARS[name]).all() for name in ("known", "since", "asset", "kind", "flags")
    )


def test_a_split_stands_before_the_first_price_that_knows_it():
    """Daily bars: at the open. Shorter ones: at the start of the day, for trading before the open knows it too."""
    day = datetime(2021, 3, 3, 5, tzinfo=UTC)  # midnight in New York
    columns = {"asset": ["A"], "kind": ["split"], "ratio": [2.0], "event_time": [day]}
    actions = pa.table(columns | {"event_time": pa.array([day], pa.timestamp("us", "UTC"))})
    for interval, numbers in (("1d", range(5)), ("1m", range(15, 4000, 10))):
        tape = Tape.from_snapshot(bar_rows(["A"], list(numbers), interval=interval), actions=actions)
        place = int(np.flatnonzero(tape.events["kind"] == ev.KIND_SPLIT)[0])
        before, split, after = tape.events[place - 1 : place + 2]
        assert before["known"] <= split["known"] <= after["since"]
        assert split["known"] >= ev.nanoseconds(day)


def test_a_close_ends_each_session_of_ticks_and_none_follows_the_last():
    times = pa.array([START + timedelta(hours=h) for h in (1, 20, 25, 30, 80)], pa.timestamp("us", "UTC"))
    trades = pa.table({"asset": ["A"] * 5, "price": [1.0] * 5, "size": [1.0] * 5, "event_time": times})
    tape = Tape.from_trades(trades, specs="crypto")
    kinds, trade, close = tape.events["kind"].tolist(), ev.KIND_TRADE, ev.KIND_CLOSE
    assert kinds == [trade, trade, close, trade, trade, close, trade]  # none of the day without a trade


def test_merging_held_and_streamed_is_the_same(tmp_path):
    bars = bar_rows(["A", "B"], list(range(1, 200)))
    lake = lake_of(tmp_path / "lake", bars=bars)
    crypto = {"as_of": LATER, "interval": "1m", "specs": "crypto", "rows": 60}
    first, second = (Tape.from_lake(lake, assets=name, **crypto) for name in "AB")
    whole = Tape.from_lake(lake, **crypto)
    for merge in (
        Tape.merge(first, second),
        Tape.merge(second, first.load()),
        Tape.merge(second.load(), first.load()),
    ):
        assert merge.hash == whole.hash
