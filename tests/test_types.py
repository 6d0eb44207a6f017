"""The nouns: what each accepts, against rules written down a second time."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.types import (
    MOVES,
    Account,
    Asset,
    AssetClass,
    Bar,
    BookLevel,
    Fill,
    Order,
    OrderState,
    OrderType,
    Position,
    Quote,
    Side,
    Signal,
    TimeInForce,
    Trade,
    Venue,
)
from quantbench.core.value import Currency, Interval

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("steady")

NOON = datetime(2024, 7, 3, 12, tzinfo=UTC)
USD, EUR = Currency("USD"), Currency("EUR")
STOCK = Asset(
    id="AAPL",
    asset_class=AssetClass.EQUITY,
    venue=Venue("XNAS", "XNYS"),
    currency=USD,
    tick_size=Decimal("0.05"),
    lot_size=Decimal(10),
)
OIL = replace(STOCK, id="CL", asset_class=AssetClass.FUTURE, negative_prices=True, multiplier=Decimal(1000))
AT = {"asset": STOCK, "event_time": NOON, "known_time": NOON}
BAR = Bar(**AT, interval=Interval.parse("1m"), open=2.0, high=3.0, low=1.0, close=2.0, volume=5.0)
TRADE = Trade(**AT, price=1.0, size=1.0, aggressor=Side.BUY)
QUOTE = Quote(**AT, bid=1.0, ask=2.0, bid_size=1.0, ask_size=1.0)
LEVEL = BookLevel(**AT, side=Side.SELL, price=1.0, size=0.0)
SIGNAL = Signal(**AT, name="momentum", value=-0.5, horizon=Interval.parse("5d"))
ORDER = Order(id="1", asset=STOCK, side=Side.BUY, quantity=Decimal(100), time=NOON)
FILL = Fill(
    id="x",
    order_id="1",
    asset=STOCK,
    side=Side.BUY,
    quantity=Decimal(10),
    price=Decimal("1.025"),
    fee=EUR.money(Decimal("-0.1")),
    time=NOON,
)
HELD = Position(
    asset=STOCK,
    quantity=Decimal(-10),
    cost=USD.money(Decimal(-10)),
    realized=USD.money(Decimal(1)),
    time=NOON,
)
ACCOUNT = Account(
    id="a", base=USD, cash=(USD.money(Decimal(5)), EUR.money(Decimal(0))), positions=(HELD,), time=NOON
)
EVERYTHING = [BAR, TRADE, QUOTE, LEVEL, SIGNAL, ORDER, FILL, HELD, ACCOUNT, STOCK]


def code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(QuantbenchError) as caught:
        call(*args, **kwargs)
    return caught.value.code


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda v: type(v).__name__)
def test_every_noun_travels_and_stays_as_it_is(value):
    """Fails if a field is lost in JSON or pickle, or a value can be changed after it was checked."""
    assert type(value).from_record(json.loads(json.dumps(value.as_record(), allow_nan=False))) == value
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
    assert hash(value) == hash(replace(value)) and not hasattr(value, "__dict__")
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)


# ---- an order's life ------------------------------------------------------------------------------------

LEGAL = """
pending: submitted cancelled rejected expired
submitted: partial filled cancelled rejected expired
partial: partial filled cancelled expired
"""


def test_the_moves_are_those_of_the_paper():
    """Fails if a move is added or lost: the table is written down twice."""
    twin = {line.split(":")[0]: set(line.split(":")[1].split()) for line in LEGAL.strip().splitlines()}
    assert {str(s): {str(n) for n in MOVES[s]} for s in OrderState if MOVES[s]} == twin
    assert set(MOVES) == set(OrderState)
    with pytest.raises(TypeError):
        MOVES[OrderState.FILLED] = frozenset()  # type: ignore[index]


@given(st.lists(st.sampled_from(OrderState), max_size=12))
def test_a_walk_obeys_the_table(states):
    """Fails if a finished order moves again, a fill comes before submission, or a refused move leaves a trace."""
    order, path = ORDER, [OrderState.PENDING]
    for state in states:
        if state in MOVES[order.state]:
            order = order.moved(state)
            path.append(state)
        else:
            assert code(order.moved, state) == "QB-TYPE-005"
            assert order.state == path[-1]
    assert not any(state.terminal for state in path[:-1])
    if {OrderState.PARTIAL, OrderState.FILLED} & set(path):
        assert path[1] == OrderState.SUBMITTED
    assert replace(order, state=OrderState.PENDING) == ORDER


def test_every_open_order_can_still_end():
    for state in OrderState:
        assert state.terminal or OrderState.CANCELLED in MOVES[state]


# ---- orders -------------------------------------------------------------------------------------------

PRICES = ("limit_price", "stop_price", "trail")
WANTED = {
    "limit": {("limit_price",)},
    "limit_on_open": {("limit_price",)},
    "limit_on_close": {("limit_price",)},
    "stop": {("stop_price",)},
    "stop_limit": {("limit_price", "stop_price")},
    "trailing_stop": {("trail",)},
    **{worked: {(), ("limit_price",)} for worked in ("twap", "vwap", "pov", "is")},
}


@pytest.mark.parametrize("kind", OrderType)
def test_each_type_takes_its_prices_and_no_other(kind):
    """Fails if a limit order without a limit, or a market order with one, is accepted."""
    for given_prices in chain.from_iterable(combinations(PRICES, n) for n in range(4)):
        prices = dict.fromkeys(given_prices, Decimal("1.05"))
        if given_prices in WANTED.get(kind, {()}):
            assert replace(ORDER, type=kind, **prices).type is kind
        else:
            assert code(replace, ORDER, type=kind, **prices) == "QB-TYPE-006"


@given(st.decimals(-1000, 1000, allow_nan=False, places=4), st.sampled_from([STOCK, OIL]))
def test_orders_lie_on_both_grids(value, asset):
    """Fails if a price between ticks, a broken lot, or a price at or below zero for a stock gets through."""
    try:
        Order(id="1", asset=asset, side=Side.SELL, quantity=value, time=NOON)
        quantity_kept = True
    except QuantbenchError as error:
        quantity_kept = False
        assert error.code in ("QB-TYPE-001", "QB-TYPE-003")
    assert quantity_kept == (value > 0 and value % 10 == 0)
    try:
        replace(ORDER, asset=asset, type=OrderType.LIMIT, limit_price=value)
        price_kept = True
    except QuantbenchError as error:
        price_kept = False
        assert error.code in ("QB-DATA-014", "QB-TYPE-003")
    assert price_kept == (value * 20 % 1 == 0 and (value > 0 or asset is OIL))


def test_a_trail_is_a_distance():
    """Fails if an asset with negative prices may have a trail at or below zero."""
    for trail in (Decimal(0), Decimal("-0.05")):
        assert code(replace, ORDER, asset=OIL, type=OrderType.TRAILING_STOP, trail=trail) == "QB-TYPE-001"


def test_a_date_goes_with_good_till_date():
    assert replace(ORDER, time_in_force=TimeInForce.GTD, expires=NOON + timedelta(days=1)).expires
    assert code(replace, ORDER, time_in_force=TimeInForce.GTD) == "QB-TYPE-006"
    assert code(replace, ORDER, time_in_force=TimeInForce.GTD, expires=NOON) == "QB-TYPE-006"
    for force in set(TimeInForce) - {TimeInForce.GTD}:
        for expires in (NOON + timedelta(days=1), NOON, NOON - timedelta(days=1)):
            assert code(replace, ORDER, time_in_force=force, expires=expires) == "QB-TYPE-006"


@pytest.mark.parametrize("value", [100.0, 100, True, "100", None])
def test_commitments_are_decimals(value):
    """Fails if any of the exact fields takes a float, an int or a bool."""
    for thing, names in (
        (ORDER, ["quantity"]),
        (FILL, ["quantity", "price"]),
        (HELD, ["quantity"]),
        (STOCK, ["tick_size", "lot_size"]),
    ):
        for name in names:
            assert code(replace, thing, **{name: value}) == "QB-TYPE-002"


def test_words_are_not_members():
    for field, word in (("side", "buy"), ("type", "market"), ("state", "pending"), ("time_in_force", "day")):
        assert code(replace, ORDER, **{field: word}) == "QB-TYPE-008"
    assert code(replace, ORDER, asset="AAPL") == "QB-TYPE-008"
    assert code(replace, ORDER, id="") == "QB-TYPE-009"
    assert code(replace, ORDER, time=datetime(2024, 7, 3)) == "QB-TIME-001"


# ---- measurements -------------------------------------------------------------------------------------

seen = st.floats(allow_nan=True, allow_infinity=True, width=16) | st.sampled_from([0.0, 1.0, 2.0])


@given(seen, seen, seen, seen, seen, st.sampled_from([STOCK, OIL]))
def test_a_bar_is_accepted_exactly_if_it_can_have_happened(first, high, low, last, volume, asset):
    """Fails if NaN passes a comparison, or one of the four orderings is forgotten."""
    sound = all(map(math.isfinite, (first, high, low, last, volume)))
    sound = sound and max(first, last, low) <= high and min(first, last, high) >= low
    sound = sound and volume >= 0 and (low > 0 or asset is OIL)
    try:
        replace(BAR, asset=asset, open=first, high=high, low=low, close=last, volume=volume)
        accepted = True
    except QuantbenchError as error:
        accepted = False
        assert error.code in ("QB-TYPE-001", "QB-DATA-014", "QB-DATA-015")
    assert accepted == sound


@pytest.mark.parametrize("fact", [BAR, TRADE, QUOTE, LEVEL, SIGNAL], ids=lambda v: type(v).__name__)
def test_nothing_is_known_before_it_happened(fact):
    early = NOON - timedelta(microseconds=1)
    assert code(replace, fact, known_time=early) == "QB-DATA-021"
    assert code(replace, fact, known_time=datetime(2024, 7, 3, 12)) == "QB-TIME-001"
    assert replace(fact, event_time=early).known_time == NOON


@pytest.mark.parametrize("bad", [0.0, -36.98, math.nan, math.inf, True, "1", Decimal(1)])
def test_prices_of_stocks_are_above_zero(bad):
    """WTI was -36.98: a stock never is; and NaN, booleans and decimals are not measurements of anything."""
    for fact, names in ((TRADE, ["price"]), (QUOTE, ["bid", "ask"]), (LEVEL, ["price"])):
        for name in names:
            assert code(replace, fact, **{name: bad}) in ("QB-DATA-014", "QB-TYPE-001")
    if bad == -36.98:
        assert replace(TRADE, asset=OIL, price=bad).price == bad
        assert replace(FILL, asset=OIL, price=Decimal("-36.98")).price < 0
        assert code(replace, FILL, price=Decimal("-36.98")) == "QB-DATA-014"


def test_sides_of_the_market_and_of_the_book():
    for side in (Side.SHORT, Side.COVER):
        assert code(replace, TRADE, aggressor=side) == code(replace, LEVEL, side=side) == "QB-TYPE-006"
    assert replace(TRADE, aggressor=None).aggressor is None
    assert replace(QUOTE, bid=3.0).bid == 3.0  # crossed: seen, so kept
    assert replace(QUOTE, bid=None, bid_size=0.0).bid is None
    assert code(replace, QUOTE, bid=None) == code(replace, QUOTE, ask=None) == "QB-TYPE-006"
    for name in ("bid_size", "ask_size"):
        assert code(replace, QUOTE, **{name: -1.0}) == "QB-DATA-014"
    assert code(replace, TRADE, size=-1.0) == code(replace, LEVEL, size=-0.5) == "QB-DATA-014"


# ---- fills, positions, accounts -----------------------------------------------------------------------


def test_a_fill_keeps_the_agreed_price_and_the_lot():
    assert FILL.price == Decimal("1.025")  # a midpoint, between two ticks
    for quantity in (Decimal(0), Decimal(-10), Decimal(5)):
        assert code(replace, FILL, quantity=quantity) in ("QB-TYPE-001", "QB-TYPE-003")


def test_a_position_adds_up():
    assert HELD.unrealized(Decimal("0.95")).amount == Decimal("0.50")  # short: it fell, so it earned
    assert replace(HELD, asset=OIL).unrealized(Decimal("0.00")).amount == 10
    assert code(replace, HELD, quantity=Decimal(0)) == "QB-TYPE-006"
    assert code(replace, HELD, cost=EUR.money(Decimal(1))) == "QB-TYPE-004"
    assert code(replace, HELD, quantity=Decimal(5)) == "QB-TYPE-003"


def test_an_account_names_each_thing_once():
    assert code(replace, ACCOUNT, cash=(USD.money(Decimal(1)),) * 2) == "QB-TYPE-006"
    assert code(replace, ACCOUNT, positions=(HELD, HELD)) == "QB-TYPE-006"
    assert code(replace, ACCOUNT, positions=[HELD]) == "QB-TYPE-008"


def test_an_asset_needs_its_grid():
    for name in ("tick_size", "lot_size", "multiplier"):
        for size in (Decimal(0), Decimal("-0.01")):
            assert code(replace, STOCK, **{name: size}) == "QB-TYPE-001"
    assert code(STOCK.round_price, 1.0, "up") == "QB-TYPE-008"
    assert code(STOCK.price, True) == code(STOCK.price, 1.5) == "QB-TYPE-008"
    assert [s.sign for s in (Side.BUY, Side.COVER, Side.SELL, Side.SHORT)] == [1, 1, -1, -1]
