"""The simulated market as a whole against closed forms: money between days, news on its way, sessions, currencies, gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.value import Currency
from quantbench.engine import events as ev
from quantbench.engine.backtest import Latency, Session, backtest
from quantbench.engine.guardian import Limits
from quantbench.engine.sessions import spec
from quantbench.engine.strategy import Strategy, every
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.portfolio.costs import Costs

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
FRIDAY = ev.nanoseconds(datetime(2024, 3, 1, 15, tzinfo=UTC))
FREE = Costs.free()
PLAN: dict[int, Callable[[Any], Any]] = {}


class Played(Strategy):
    "Does what the plan says at the n-th event."

    seen: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:  # noqa: ARG002
        self.seen += 1
        PLAN.get(self.seen - 1, lambda _: None)(market)

    def on_tick(self, tick: Any, market: Any) -> None:  # noqa: ARG002
        self.seen += 1
        PLAN.get(self.seen - 1, lambda _: None)(market)


def play(tape: Tape, plan: Mapping[int, Callable[[Any], Any]], **choices: Any) -> Any:
    PLAN.clear()
    PLAN.update(plan)
    return backtest(Played(), tape, **({"costs": FREE, "lane": "interpreted"} | choices))


def bars(rows: list[tuple[int, float]], asset: int = 0) -> Any:
    "Bars of an hour at one price, by when they ended."
    at, price = (np.array(column) for column in zip(*rows, strict=True))
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return ev.made(ev.KIND_BAR, known=at, since=at - HOUR, asset=asset, volume=1e6, **prices)


def trades(rows: list[tuple[int, float]]) -> Any:
    at, price = (np.array(column) for column in zip(*rows, strict=True))
    return ev.made(ev.KIND_TRADE, known=at, since=at, asset=0, price=price, size=1e6)


SHARE = (spec("A"),)


def tape(*sources: Any, assets: Any = SHARE, **how: Any) -> Tape:
    return Tape.from_events(ev.merged(sources), assets, **how)


# ---- money between days -------------------------------------------------------------------------------------------

WEEKEND = [(FRIDAY, 100.0), (FRIDAY + HOUR, 100.0), (FRIDAY + 3 * DAY, 100.0)]


def test_debt_is_financed_over_a_weekend():
    """Bought for 150 of 100: 50 borrowed for three nights at 365 bps a year."""
    costs = Costs(financing_bps=365.0)
    done = play(
        tape(bars(WEEKEND)),
        {0: lambda market: market.buy(0, 1500)},
        costs=costs,
        margin=0.5,
        limits=Limits.research(1e5, leverage=2.0),
    )
    assert len(done.logs.fills) == 1
    assert done.logs.curve["equity"][-1] == pytest.approx(100_000 - 50_000 * 0.0365 * 3 / 365, abs=1e-9)


def test_a_short_pays_to_borrow_over_a_weekend():
    costs = Costs(borrow_bps=365.0)
    done = play(tape(bars(WEEKEND)), {0: lambda market: market.sell(0, 500)}, costs=costs)
    assert done.logs.curve["equity"][-1] == pytest.approx(100_000 - 50_000 * 0.0365 * 3 / 365, abs=1e-9)


def test_a_future_moves_no_notional_and_settles_in_its_own_currency():
    """One contract of 50: no cash at the purchase, the gain of the day after; a debt that does not exist costs nothing."""
    future = spec("F", "future", multiplier=Decimal(50))
    rows = [(FRIDAY, 100.0), (FRIDAY + HOUR, 100.0), (FRIDAY + 3 * DAY, 104.0), (FRIDAY + 4 * DAY, 104.0)]
    seen: list[float] = []
    plan = {0: lambda market: market.buy(0, 10), 1: lambda market: seen.append(market.cash), 3: lambda market: seen.append(market.cash)}  # fmt: skip
    done = play(
        tape(bars(rows), assets=(future,)),
        plan,
        cash=20_000.0,
        margin=0.1,
        costs=Costs(financing_bps=365.0),
        limits=Limits.research(2e4, leverage=5.0),
    )
    assert seen == [20_000.0, 20_000.0 + 10 * 50 * 4.0]
    assert done.check()
    assert done.logs.curve["equity"][-1] == 22_000.0


# ---- currencies ---------------------------------------------------------------------------------------------------


def test_a_rate_that_comes_late_does_not_halt_the_run():
    """Until the rate is known nothing can be valued in that currency; then all is as if it had always been."""
    euro = spec("E", currency=Currency("EUR"))
    rows = [(FRIDAY + n * HOUR, 100.0) for n in range(5)]
    rate = ev.made(ev.KIND_RATE, known=[FRIDAY + HOUR], since=[FRIDAY + HOUR], asset=0, price=1.25)
    done = play(tape(bars(rows), rate, assets=(euro,)), {2: lambda market: market.buy(0, 100)}, cash={"USD": 100_000.0})  # fmt: skip
    assert len(done.logs.fills) == 1
    assert done.logs.curve["equity"][-1] == pytest.approx(100_000.0, abs=1e-9)


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_a_rate_that_is_none_is_refused(rate):
    euro = spec("E", currency=Currency("EUR"))
    told = ev.made(ev.KIND_RATE, known=[FRIDAY], since=[FRIDAY], asset=0, price=rate)
    with pytest.raises(QuantbenchError, match="QB-ENG-115"):
        tape(bars([(FRIDAY, 100.0)]), told, assets=(euro,))


# ---- news on its way ----------------------------------------------------------------------------------------------


HELD: dict[int, float] = {}


class Asks(Strategy):
    "What the position is, on every hour."

    timer = every("2h")

    def on_bar(self, bar: Any, market: Any) -> None:
        if market.position(1) == 0 and bar.asset == 1:
            market.buy(1, 10)

    def on_timer(self, market: Any) -> None:
        HELD[market.now] = market.position(1)


def test_news_that_has_arrived_is_known_at_the_next_timer_and_bar_of_another_asset():
    first, other = bars([(FRIDAY + n * HOUR, 50.0) for n in range(12)]), bars([(FRIDAY, 100.0), (FRIDAY + HOUR + 1, 100.0)], 1)  # fmt: skip
    other["since"] = other["known"] - 1
    HELD.clear()
    done = backtest(
        Asks(), tape(first, other, assets=(spec("A"), spec("B"))), costs=FREE, lane="interpreted", latency=Latency(fill_seconds=60)
    )  # fmt: skip
    fill = done.logs.fills[0]
    assert fill["heard"] == fill["time"] + 60_000_000_000
    assert min(time for time in HELD if HELD[time] == 10.0) < fill["heard"] + 2 * HOUR
    first_point = done.logs.curve[np.searchsorted(done.logs.curve["time"], fill["heard"])]
    assert first_point["gross"] == 1000.0


def test_a_dividend_is_paid_on_what_was_bought_before_it_even_if_the_news_is_late():
    rows = [(FRIDAY, 100.0), (FRIDAY + HOUR, 100.0), (FRIDAY + 3 * DAY, 98.0)]
    ex = ev.made(ev.KIND_DIVIDEND, known=[FRIDAY + 2 * HOUR], since=[FRIDAY + 2 * HOUR], asset=0, amount=2.0)
    for seconds in (0.0, 1.0, 7200.0):
        for side in (1, -1):
            done = play(
                tape(bars(rows), ex), {0: lambda market, side=side: market.submit(0, 100 * side)}, latency=Latency(fill_seconds=seconds)
            )  # fmt: skip
            assert done.logs.flows["amount"].tolist() == [200.0 * side]
            assert done.logs.curve["equity"][-1] == 100_000.0


def test_an_order_of_a_delisted_asset_is_heard_to_end():
    rows = [(FRIDAY, 100.0), (FRIDAY + HOUR, 100.0)]
    end = ev.made(ev.KIND_DELIST, known=[FRIDAY + 2 * HOUR], since=[FRIDAY + 2 * HOUR], asset=0, amount=90.0, price=90.0)  # fmt: skip
    other = bars([(FRIDAY + n * HOUR, 50.0) for n in range(6)], 1)
    plan = {1: lambda market: market.buy(0, 10), 2: lambda market: market.buy(0, 1, limit=50, tif="gtc")}
    done = play(tape(bars(rows), end, other, assets=(spec("A"), spec("B"))), plan, latency=Latency(fill_seconds=1.0))  # fmt: skip
    last = done.logs.transitions[done.logs.transitions["order"] == 2][-1]
    assert last["state"] == 4 and last["time"] == FRIDAY + 2 * HOUR + 1_000_000_000
    assert done.logs.curve["equity"][-1] == 100_000.0 - 10 * 10


# ---- sessions of ticks --------------------------------------------------------------------------------------------


def ticks_of_two_days() -> Tape:
    import pandas as pd

    index = pd.DatetimeIndex(
        [f"2024-03-0{day} {hour}:{minute}:00" for day in (4, 5) for hour, minute in (("09", "45"), ("12", "00"), ("15", "59"))],
        tz="America/New_York",
    )  # fmt: skip
    return Tape.from_trades(
        pd.DataFrame({"price": [100.0, 101, 102, 110, 111, 112], "size": 100.0}, index=index)
    )


@pytest.mark.parametrize(
    ("kind", "decided", "price"),
    [
        ("on_open", 0, 110.0),
        ("on_open", 2, 110.0),
        ("on_close", 0, 102.0),
        ("on_close", 1, 102.0),
        ("on_close", 2, None),
    ],
)
def test_an_auction_of_a_tape_of_trades_fills(kind, decided, price):
    done = play(ticks_of_two_days(), {decided: lambda market: market.submit(0, 10, kind)})
    assert done.logs.fills["price"].tolist() == (
        [price] if price else []
    )  # never at the price it was decided on


# ---- prices -------------------------------------------------------------------------------------------------------


def test_a_limit_and_a_market_order_pay_one_spread_on_a_trade():
    rows = [(FRIDAY + n * HOUR, 100.0) for n in range(3)]
    for asked in ({}, {"limit": 110.0}):
        done = play(tape(trades(rows)), {0: lambda market, asked=asked: market.buy(0, 1, **asked)}, costs=Costs(spread_bps=100.0))  # fmt: skip
        assert done.logs.fills[["price", "reference", "spread"]].tolist() == [(100.5, 100.0, 0.5)]


def test_impact_without_a_volume_is_refused():
    quotes = ev.made(
        ev.KIND_QUOTE, known=[FRIDAY, FRIDAY + 1], since=[FRIDAY, FRIDAY + 1], asset=0, bid=99.0, ask=101.0, price=100.0, bid_size=1.0, size=1.0
    )  # fmt: skip
    with pytest.raises(QuantbenchError, match="QB-ENG-242"):
        play(tape(quotes), {}, costs=Costs(impact_root=0.5))


# ---- rates from pairs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "pair", "quoted", "price"), [("EUR", "EURUSD", "USD", 1.25), ("JPY", "USD/JPY", "JPY", 0.8)]
)
def test_a_pair_on_the_tape_gives_the_rate(code, pair, quoted, price):
    """100 shares at 100 of a foreign currency, worth 125 each; the stock and then the rate move."""
    stock = spec("S", currency=Currency(code), tick_size=Decimal("0.01"))
    fx = spec(pair, "fx", currency=Currency(quoted))
    assets = (fx, stock) if fx.id < stock.id else (stock, fx)
    where = {asset.id: n for n, asset in enumerate(assets)}
    at = [FRIDAY + n * HOUR for n in range(5)]
    foreign = bars(list(zip(at, [100.0, 100, 100, 104, 104], strict=True)), where["S"])
    rates = bars(list(zip(at, [price] * 4 + [1.2 if price > 1 else 1 / 1.2], strict=True)), where[pair])
    done = play(
        tape(foreign, rates, assets=assets),
        {3: lambda market: market.buy(where["S"], 100)},
        cash={"USD": 100_000.0},
        margin=0.5,
        limits=Limits.research(1e5, leverage=2.0),
    )
    equity = done.logs.curve["equity"]
    assert equity[3] == pytest.approx(100_000 + 400 * 1.25) and equity[4] == pytest.approx(
        100_000 + 400 * 1.2
    )
    assert done.check("loop")


def test_foreign_cash_is_part_of_the_capital():
    """It is worth what the first rate says, and what it gains is a gain."""
    euro = spec("E", currency=Currency("EUR"))
    told = [ev.made(ev.KIND_RATE, known=[FRIDAY + n * HOUR], since=[FRIDAY + n * HOUR], asset=0, price=1.25 + 0.05 * n) for n in range(2)]  # fmt: skip
    flat = bars([(FRIDAY + n * HOUR, 100.0) for n in range(3)])
    done = play(tape(flat, *told, assets=(euro,)), {}, cash={"USD": 1000.0, "EUR": 1000.0})
    assert done.logs.curve["equity"].tolist() == [2250.0, 2300.0, 2300.0]
    with pytest.raises(QuantbenchError, match="QB-ENG-241"):
        play(tape(flat, assets=(euro,)), {}, cash={"USD": 1000.0, "EUR": 1000.0})


# ---- delays that were measured ------------------------------------------------------------------------------------


def test_a_measured_delay_holds_from_its_time_on():
    start = datetime(2024, 3, 1, 15, tzinfo=UTC)
    found = {
        "measured_at": (start + timedelta(hours=2), start + timedelta(hours=5)),
        "measured_seconds": (1.0, 4000.0),
    }
    rows = [(FRIDAY + n * HOUR, 100.0) for n in range(12)]
    plan = {n: lambda market: market.buy(0, 1, tif="gtc") for n in (0, 2, 4, 5, 6)}
    done = play(tape(trades(rows)), plan, latency=Latency(**found))
    hours = ((done.logs.fills["time"] - FRIDAY) // HOUR).tolist()
    assert hours == [1, 3, 5, 7, 8]


NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "choices",
    [
        {"measured_at": (NOON,), "measured_seconds": (-1.0,)},
        {"measured_at": (NOON,), "measured_seconds": (1.0,), "order_seconds": 1.0},
        {"measured_at": (NOON, NOON), "measured_seconds": (1.0, 1.0)},
        {"measured_at": (NOON,), "measured_seconds": ()},
    ],
)
def test_delays_that_cannot_be_are_refused(choices):
    with pytest.raises(QuantbenchError, match="QB-ENG-241"):
        Latency(**choices)


# ---- a book of single orders --------------------------------------------------------------------------------------


def test_a_cancel_that_leaves_something_of_an_order_leaves_it():
    """The size of a row is what is left of the order, whatever was done to it."""
    import pandas as pd

    index = pd.DatetimeIndex(["2024-03-04 15:00", "2024-03-04 15:01", "2024-03-04 15:02"], tz="UTC")
    rows = {
        "side": "bid",
        "price": 99.0,
        "size": [10.0, 4.0, 0.0],
        "order_id": "7",
        "action": ["add", "cancel", "cancel"],
    }
    book = Tape.from_book(pd.DataFrame(rows, index=index)).events
    assert book["kind"].tolist() == [ev.KIND_ADD, ev.KIND_CHANGE, ev.KIND_REMOVE]


# ---- what raises when news arrives --------------------------------------------------------------------------------


class Trips(Strategy):
    "Raises at the second fill that it hears of."

    heard: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        if market.position(0) == 0.0:
            market.buy(bar.asset, 10.0)

    def on_fill(self, fill: Any, market: Any) -> None:  # noqa: ARG002
        self.heard += 1
        market.sell(0, 10.0)
        if self.heard == 2:
            self.heard = 1 // (self.heard - 2)


@pytest.mark.parametrize("lane", ["compiled", "interpreted"])
def test_a_hook_that_raises_at_news_between_two_events_is_named(lane):
    rows = [(FRIDAY + n * HOUR, 100.0) for n in range(8)]
    with pytest.raises(QuantbenchError) as told:
        backtest(Trips(), tape(bars(rows)), costs=FREE, lane=lane, latency=Latency(fill_seconds=60.0))
    line = next(
        n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "heard - 2)" in text
    )
    assert told.value.code == "QB-ENG-014" and f"Trips.on_fill, line {line}" in str(told.value)
    assert "ZeroDivisionError" in str(told.value) and "Fill(" in str(told.value)


class Reacts(Strategy):
    "Buys once, and answers the fill at once with the order that undoes it."

    asked: bool = state(False)

    def on_tick(self, tick: Any, market: Any) -> None:
        if not self.asked:
            market.buy(tick.asset, 10.0)
        self.asked = True

    def on_fill(self, fill: Any, market: Any) -> None:
        if fill.side > 0:
            market.sell(0, 10.0)


def test_an_answer_to_a_fill_leaves_when_the_news_arrives_in_both_lanes_and_in_pieces():
    """Filled at one o'clock and heard a minute later; half an hour on the way, the answer is there for the trade at two, not the one at three."""
    events = tape(trades([(FRIDAY + n * HOUR, 100.0) for n in range(6)]))
    delays = Latency(fill_seconds=60.0, order_seconds=1800.0)
    runs = [
        backtest(Reacts(), events, costs=FREE, lane=lane, latency=delays)
        for lane in ("compiled", "interpreted")
    ]
    session = Session(Reacts(), events, costs=FREE, latency=delays)
    for n in range(len(events)):
        session.feed(events.events[n : n + 1])
        session.pass_time(int(events.events["known"][n]) + 1000)
    session.finish()
    runs.append(session.result())
    assert ((runs[0].logs.fills["time"] - FRIDAY) // HOUR).tolist() == [1, 2]
    assert len({run.logs.fills.tobytes() for run in runs}) == 1
    assert len({run.logs.transitions.tobytes() for run in runs}) == 1


# ---- closed forms -------------------------------------------------------------------------------------------------


def test_the_root_of_size_over_volume_in_numbers():
    """k = 0.5, a daily volatility of sqrt(mean of squared returns), a tenth of the average volume, stress of two."""
    closes = [100.0, 102.0, 100.0, 102.0, 100.0]
    rows = [(FRIDAY + n * DAY, price) for n, price in enumerate(closes)]
    made = bars(rows)
    made["volume"] = 50_000.0
    costs = Costs(impact_root=0.5).stressed(2.0)
    done = play(tape(made), {3: lambda market: market.buy(0, 5_000)}, cash=1e7, costs=costs)
    returns = np.array([2 / 100, -2 / 102, 2 / 100])
    volatility = np.sqrt((returns**2).mean())
    fill = done.logs.fills[0]
    assert fill["price"] == pytest.approx(100.0 * (1 + 2.0 * 0.5 * volatility * np.sqrt(0.1)), rel=1e-12)
    assert fill["impact"] == pytest.approx((fill["price"] - 100.0) * 5_000, rel=1e-12)


def test_the_least_fee_is_paid_once_for_an_order_in_parts():
    """Three parts at 0.01 a share and at least 0.50: 0.50 for the first 40, nothing until 50 are filled, then the rest."""
    made = bars([(FRIDAY + n * HOUR, 100.0) for n in range(5)])
    made["volume"] = 40.0
    costs = Costs(fee_unit=0.01, minimum=0.5)
    done = play(tape(made), {0: lambda market: market.buy(0, 100, tif="gtc")}, costs=costs, participation=1.0)
    assert done.logs.fills["lots"].tolist() == [40, 40, 20]
    assert done.logs.fills["fee"] == pytest.approx([0.5, 0.3, 0.2])


def test_a_split_reaches_open_orders_and_their_exits():
    """Two for one: 10 at a limit of 90 with exits become 20 at 45, and the exits are those of the new shares."""
    rows = [(FRIDAY, 100.0), (FRIDAY + DAY, 50.0), (FRIDAY + 2 * DAY, 44.0), (FRIDAY + 3 * DAY, 56.0)]
    cut = ev.made(ev.KIND_SPLIT, known=[FRIDAY + HOUR], since=[FRIDAY + HOUR], asset=0, ratio=2.0)
    done = play(tape(bars(rows), cut), {0: lambda market: market.buy(0, 10, limit=90.0, take=110.0, loss=80.0, tif="gtc")})  # fmt: skip
    assert done.logs.fills[["side", "lots", "price"]].tolist() == [(1, 20, 44.0), (-1, 20, 56.0)]
    assert done.logs.curve["equity"][-1] == 100_000.0 + 20 * 12.0


def test_a_short_of_a_delisted_share_is_bought_back_at_the_payout():
    rows = [(FRIDAY, 100.0), (FRIDAY + HOUR, 100.0)]
    end = ev.made(
        ev.KIND_DELIST, known=[FRIDAY + DAY], since=[FRIDAY + DAY], asset=0, amount=30.0, price=30.0
    )
    done = play(tape(bars(rows), end), {0: lambda market: market.sell(0, 10)})
    assert done.logs.curve["equity"][-1] == 100_000.0 + 10 * 70.0


def test_an_order_good_till_the_close_is_there_for_the_closing_bar_only():
    """Daily bars: it ends with the session it names, and fills in none after it."""
    rows = [(FRIDAY, 100.0), (FRIDAY + DAY, 100.0), (FRIDAY + 2 * DAY, 90.0)]
    for close, filled in ((FRIDAY + DAY, 0), (FRIDAY + 2 * DAY, 1)):
        asked = {"kind": "limit", "limit": 95.0, "tif": "gtd", "expires": close}
        done = play(tape(bars(rows)), {0: lambda market, asked=asked: market.submit(0, 10, **asked)})
        assert len(done.logs.fills) == filled


def over_a_split(strategy: Strategy, ratio: float, **choices: Any) -> Session:
    """Two bars and a split between them; the run as it is after it."""
    rows = [(FRIDAY, 100.0), (FRIDAY + 2 * HOUR, 100.0)]
    cut = ev.made(ev.KIND_SPLIT, known=[FRIDAY + 3 * HOUR], since=[FRIDAY + 3 * HOUR], asset=0, ratio=ratio)
    made = tape(bars(rows), cut, bars([(FRIDAY + DAY, 100.0 / ratio)]))
    session = Session(strategy, made, costs=FREE, lane="interpreted", **choices)
    session.feed(made.events[:3])
    return session


class Amends(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        if market.open_orders(bar.asset) == 0:
            market.amend(market.buy(0, 10, limit=80.0, tif="gtc"), limit=90.01)
            market.amend(market.submit(0, -10, "stop", stop=70.0, tif="gtc"), stop=71.01)


def test_an_amendment_on_its_way_over_a_split_asks_for_prices_on_the_grid():
    """A limit of 90.01 is one of 22.50 after four for one, a stop of 71.01 to sell one of 17.75; what has no limit gets none."""
    orders = over_a_split(Amends(), 4.0, latency=Latency(cancel_seconds=36_000.0)).memory.orders[:2]
    asked = [orders[name].round(9).tolist() for name in ("limit", "amend_limit", "stop", "amend_stop")]
    assert str(asked) == str([[20.0, math.nan], [22.5, math.nan], [math.nan, 17.5], [math.nan, 17.75]])


class Round(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        if market.position(bar.asset) == 0.0 and market.open_orders(0) == 0:
            market.buy(0, 4)
            market.sell(0, 4)


def test_news_of_a_purchase_and_a_sale_of_as_many_is_heard_before_a_split():
    """Lots on their way that cancel out are lots on their way: booked after the split they would be in the old units."""
    session = over_a_split(Round(), 2.0, latency=Latency(fill_seconds=36_000.0))
    fills = session.memory.used("fills")
    assert len(fills) == 2 and (fills["heard"] == FRIDAY + 3 * HOUR).all()
    assert session.memory.run[0]["settled"] == 2 and session.memory.assets["lots"][0] == 0
