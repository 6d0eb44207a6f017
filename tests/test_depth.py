"""The books and queues of `engine.depth` against a twin made of dictionaries and lists."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.engine.backtest import Latency, Session, backtest
from quantbench.engine.depth import RISK_AVERSE, Books, check_depth, replay
from quantbench.engine.events import (
    BAR,
    KIND_ADD,
    KIND_CHANGE,
    KIND_CLEAR,
    KIND_CLOSE,
    KIND_HALT,
    KIND_LEVEL,
    KIND_QUOTE,
    KIND_REMOVE,
    KIND_RESUME,
    KIND_TRADE,
    LEVEL,
)  # fmt: skip
from quantbench.engine.kernel import entry
from quantbench.engine.memory import (
    CANCELLED,
    EXPIRED,
    FOK,
    GROW,
    GTC,
    IOC,
    LIMIT,
    MARKET,
    NEVER,
    POST_ONLY,
    REJECTED,
    SUBMITTED,
    Memory,
)  # fmt: skip
from quantbench.engine.orders import add_open
from quantbench.engine.sessions import spec
from quantbench.engine.strategy import Strategy, every
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.portfolio.costs import Costs

TICK, END = 0.01, 10_000


@entry
def opened(runs: Any, assets: Any, slot: int) -> None:
    add_open(runs[0], assets[0], slot)


@dataclass
class Ours:
    "An order of ours, as it is asked."

    side: int
    ticks: int
    lots: int
    at: int
    market: bool = False
    post: bool = False
    tif: int = GTC
    cancel: int = NEVER
    expires: int = NEVER
    # what the twin makes of it
    filled: int = 0
    queue: float = 0.0
    traded: float = 0.0
    resting: bool = False
    outcome: int = 0


def tape(rows: list[tuple[int, ...]], delay: int = 3) -> np.ndarray[Any, Any]:
    "Rows of (time, kind, side, ticks, size, order)."
    events = np.zeros(len(rows), BAR)
    view = events.view(LEVEL)
    for n, (time, kind, side, ticks, size, *order) in enumerate(rows):
        view[n]["since"], view[n]["known"], view[n]["kind"], view[n]["side"] = time, time + delay, kind, side
        view[n]["price"], view[n]["size"], view[n]["order"] = (
            round(ticks * TICK, 2),
            size,
            order[0] if order else 0,
        )
    return events


class Venue:
    "One asset, its books, and orders put into the memory as requests would."

    def __init__(self, orders: list[Ours], model: int, latency: int = 5, room: int = 8) -> None:
        self.memory = Memory(1, fills=128)
        self.memory.assets["depth"], self.memory.assets["tick"] = 1, TICK
        self.books = Books(self.memory, room)
        self.run = self.memory.run[0]
        self.run["fill_latency"], self.run["queue_model"], self.run["queue_power"] = latency, model, 2.0
        for n, order in enumerate(orders):
            self.send(order, n + 1)

    def send(self, order: Ours, number: int) -> None:
        slot = int(self.run["free"])
        record = self.memory.orders[slot]
        self.run["free"] = record["next"]
        record["id"], record["side"], record["lots"], record["state"] = (
            number,
            order.side,
            order.lots,
            SUBMITTED,
        )
        record["kind"], record["tif"] = MARKET if order.market else LIMIT, order.tif
        record["flags"], record["active"], record["cancel"] = POST_ONLY * order.post, order.at, order.cancel
        record["limit"] = math.nan if order.market else round(order.ticks * TICK, 2)
        record["amend"], record["expires"] = NEVER, order.expires
        record["due"], record["decided"] = min(order.cancel, order.expires), 0
        record["take"] = record["loss"] = record["stop"] = math.nan
        record["exits"] = record["after"] = -1
        opened(self.memory.run, self.memory.assets, slot)

    def until(self, events: np.ndarray[Any, Any], now: int) -> None:
        while replay(events.ctypes.data, len(events), self.memory.address(), now) == GROW:
            self.memory.grow()

    def fills(self) -> list[tuple[int, int, int, float, int]]:
        names = ("time", "order", "lots", "price", "maker")
        return [tuple(fill[name].item() for name in names) for fill in self.memory.used("fills")]

    def ends(self) -> dict[int, int]:
        moves = self.memory.used("transitions")
        return {
            int(m["order"]): int(m["state"]) for m in moves if m["state"] in (CANCELLED, REJECTED, EXPIRED)
        }


def shares(model: int, n: float, front: float, back: float) -> float:
    "The probability of a departure behind us, as hftbacktest's documentation states it."
    f = (lambda x: x**n) if model in (1, 3, 5) else math.log1p
    if back <= 0.0:
        return 0.0
    if model in (1, 2):
        return f(back) / (f(back) + f(front))
    return f(back) / f(back + front) if model in (3, 4) else 1.0 - f(front / (front + back))


class Twin:
    "The same market with dictionaries and lists."

    def __init__(self, orders: list[Ours], model: int) -> None:
        self.levels: dict[int, dict[int, float]] = {1: {}, -1: {}}
        self.taken = {1: 0.0, -1: 0.0}
        self.orders, self.model = orders, model
        self.fills: list[tuple[int, int, int, float, int]] = []

    def fill(self, time: int, order: Ours, lots: int, price: float, maker: int) -> None:
        self.fills.append((time, self.orders.index(order) + 1, lots, price, maker))
        order.filled += lots

    def standing(self, side: int) -> list[Ours]:
        return [o for o in self.orders if o.resting and o.side == side and o.filled < o.lots]

    def level(self, time: int, side: int, ticks: int, size: float) -> None:
        own, other = self.levels[side], self.levels[-side]
        before = own.pop(ticks, 0.0)
        if size:
            own[ticks] = size
        self.taken[side] = 0.0
        for order in self.standing(side):
            if order.ticks == ticks:
                self.moves(order, before, size)
        if not size:
            return
        fresh = max(size - before, 0.0)
        for order in self.standing(-side):
            if (ticks - order.ticks) * side > 0:
                self.fill(time, order, order.lots - order.filled, round(order.ticks * TICK, 2), 1)
            elif ticks == order.ticks and fresh:
                lots = min(order.lots - order.filled, int(fresh))
                self.fill(time, order, lots, round(order.ticks * TICK, 2), 1)
                fresh -= lots
        for at in [at for at in other if (ticks - at) * side >= 0]:
            del other[at]

    def moves(self, order: Ours, before: float, after: float) -> None:
        left = before - after - order.traded
        order.traded = 0.0
        if self.model != RISK_AVERSE and left > 0:
            front = max(order.queue, 0.0)
            back = before - front
            p = shares(self.model, 2.0, front, back)
            order.queue = max(0.0, front - (1.0 - p) * left + min(back - p * left, 0.0))
        order.queue = min(order.queue, after)

    def trade(self, time: int, side: int, ticks: int, size: float) -> None:
        for order in self.standing(-side):
            if (ticks - order.ticks) * side > 0:
                self.fill(time, order, order.lots - order.filled, round(order.ticks * TICK, 2), 1)
            elif ticks == order.ticks:
                order.traded += size
                order.queue -= size
                lots = min(order.lots - order.filled, math.floor(-order.queue + 1e-9))
                if lots > 0:
                    self.fill(time, order, lots, round(order.ticks * TICK, 2), 1)
                    order.queue = 0.0
                    size -= lots

    def arrive(self, time: int, order: Ours) -> None:
        other = self.levels[-order.side]
        reach = sorted(
            (t for t in other if order.market or (order.ticks - t) * order.side >= 0),
            key=lambda t: t * order.side,
        )
        if reach and order.post:
            order.outcome = REJECTED
            return
        skip, wanted, paid, sides = self.taken[-order.side], order.lots, 0.0, 0
        for ticks in reach:
            used = min(other[ticks], skip)
            skip -= used
            lots = min(int(other[ticks] - used), wanted - sides)
            sides, paid = sides + lots, paid + lots * ticks
        if sides and (order.tif != FOK or sides == wanted):
            self.taken[-order.side] += sides
            self.fill(time, order, sides, paid / sides / 100.0, 0)
        if order.filled == order.lots:
            return
        if order.market or order.tif in (IOC, FOK):
            order.outcome = CANCELLED
        else:
            order.resting, order.queue = True, self.levels[order.side].get(order.ticks, 0.0)

    def live(self, rows: list[tuple[int, ...]], now: int) -> None:
        "All that happens up to `now`: first the market, then our orders in the order they were asked."
        happenings: list[tuple[int, int, int, Any]] = [(r[0], 0, n, r) for n, r in enumerate(rows)]
        for n, order in enumerate(self.orders):
            happenings.append((order.at, 1, n, ("arrive", order)))
            over = min(order.cancel, order.expires)
            happenings.append(
                (
                    max(over, order.at),
                    1,
                    n + 0.5,
                    (EXPIRED if order.expires <= order.cancel else CANCELLED, order),
                )
            )  # type: ignore[arg-type]
        for time, ours, _, what in sorted(happenings, key=lambda h: h[:3]):
            if time > now:
                break
            if not ours:
                _, kind, side, ticks, size, *_ = what
                if kind == KIND_LEVEL:
                    self.level(time, side, ticks, float(size))
                elif kind == KIND_TRADE:
                    self.trade(time, side, ticks, float(size))
                else:
                    self.levels, self.taken = {1: {}, -1: {}}, {1: 0.0, -1: 0.0}
            elif what[0] == "arrive":
                self.arrive(time, what[1])
            elif what[1].resting and what[1].filled < what[1].lots and not what[1].outcome:
                what[1].outcome, what[1].resting = what[0], False


SIDES = st.sampled_from((1, -1))
NEAR = st.integers(9_994, 10_006)
FAR = st.one_of(NEAR, NEAR, NEAR, st.integers(2_000, 30_000))
ROW = st.one_of(
    st.tuples(st.just(KIND_LEVEL), SIDES, FAR, st.integers(0, 6)),
    st.tuples(st.just(KIND_LEVEL), SIDES, NEAR, st.integers(0, 6)),
    st.tuples(st.just(KIND_TRADE), SIDES, NEAR, st.integers(1, 5)),
    st.tuples(st.just(KIND_LEVEL), SIDES, NEAR, st.integers(1, 6)),
)
GAPS = st.integers(0, 3)


@st.composite
def markets(draw: Any, clears: bool = True) -> list[tuple[int, ...]]:
    rows, time = [], 10
    for gap, row in draw(st.lists(st.tuples(GAPS, ROW), min_size=5, max_size=60)):
        time += gap
        rows.append((time, *row))
    if clears and draw(st.booleans()):
        at = draw(st.integers(0, len(rows) - 1))
        rows.insert(at, (rows[at][0], KIND_CLEAR, 0, 0, 0))
    return rows


@st.composite
def asked(draw: Any) -> list[Ours]:
    made = []
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(5, 70))
        made.append(
            Ours(
                draw(SIDES), draw(NEAR), draw(st.integers(1, 5)), at,
                market=draw(st.integers(0, 5)) == 0,
                post=draw(st.booleans()),
                tif=draw(st.sampled_from((GTC, GTC, GTC, IOC, FOK))),
                cancel=draw(st.one_of(st.just(NEVER), st.integers(at, 120))),
                expires=draw(st.one_of(st.just(NEVER), st.integers(at, 120))),
            )
        )  # fmt: skip
        made[-1].post = made[-1].post and not made[-1].market and made[-1].tif == GTC
    return made


def book(levels: dict[int, float], side: int) -> list[tuple[float, float]]:
    return [(round(t * TICK, 2), levels[t]) for t in sorted(levels, reverse=side > 0)]


@settings(max_examples=300, deadline=None)
@given(markets(), asked(), st.integers(0, 5), st.lists(st.integers(8, 200), max_size=4))
def test_a_naive_twin_has_the_same_book_queues_and_fills(
    rows: list[tuple[int, ...]], orders: list[Ours], model: int, stops: list[int]
) -> None:
    events = tape(rows)
    venue, twin = Venue(orders, model), Twin([Ours(**vars(order)) for order in orders], model)
    for now in [*sorted(stops), END]:
        venue.until(events, now)
    twin.live(rows, END)
    expected = [(t, o, n, pytest.approx(price, rel=1e-14), maker) for t, o, n, price, maker in twin.fills]
    assert venue.fills() == expected
    for side in (1, -1):
        assert venue.books.venue[0].levels(side, 99) == book(twin.levels[side], side)
        assert venue.books.local[0].levels(side, 99) == book(twin.levels[side], side)
    assert venue.ends() == {n + 1: o.outcome for n, o in enumerate(twin.orders) if o.outcome}
    queues = {int(o["id"]): float(o["queue"]) for o in venue.memory.orders if o["id"]}
    standing = {n + 1: o.queue for n, o in enumerate(twin.orders) if o.resting and o.filled < o.lots}
    assert queues == pytest.approx(standing, rel=1e-12, abs=1e-12)
    held = sum(n * orders[o - 1].side for _, o, n, *_ in venue.fills())
    asset = venue.memory.assets[0]
    left = {
        s: sum(o.lots - o.filled for n, o in enumerate(twin.orders) if n + 1 in standing and o.side == s)
        for s in (1, -1)
    }
    assert (asset["lots"], asset["pending"], asset["open_buy"], asset["open_sell"]) == (
        held,
        0,
        left[1],
        left[-1],
    )


@settings(max_examples=100, deadline=None)
@given(markets(), asked(), st.integers(12, 60), st.data())
def test_what_comes_later_changes_nothing(
    rows: list[tuple[int, ...]], orders: list[Ours], now: int, data: Any
) -> None:
    later = data.draw(markets())
    poisoned = [r for r in rows if r[0] <= now] + [(now + 1 + r[0], *r[1:]) for r in later]
    found = []
    for version in (rows, poisoned):
        venue = Venue(orders, 1)
        venue.until(tape(version), now)
        found.append(
            (
                venue.fills(),
                venue.ends(),
                venue.books.venue[0].levels(1),
                venue.memory.orders["queue"].tolist(),
            )
        )
    assert found[0] == found[1]


@settings(max_examples=150, deadline=None)
@given(markets(clears=False), SIDES, NEAR, st.integers(1, 5), st.integers(5, 40), st.integers(1, 5))
def test_the_risk_averse_queue_is_never_the_first_to_be_filled(
    rows: list[tuple[int, ...]], side: int, ticks: int, lots: int, at: int, model: int
) -> None:
    def filled(which: int) -> dict[int, int]:
        venue = Venue([Ours(side, ticks, lots, at, post=True)], which)
        venue.until(tape(rows), END)
        total, by = 0, {}
        for time, _, n, *_ in venue.fills():
            total += n
            by[time] = total
        return by

    careful, bold = filled(RISK_AVERSE), filled(model)
    for time, total in careful.items():
        assert max((n for t, n in bold.items() if t <= time), default=0) >= total


# ---- full depth ------------------------------------------------------------------------------------------------


class Queues:
    "A full-depth feed: one list for each price, our order among the others."

    def __init__(self, order: Ours) -> None:
        self.order, self.queues = order, {}
        self.at: dict[int, tuple[int, int]] = {}
        self.queues: dict[tuple[int, int], list[list[Any]]] = {}
        self.placed = False

    def ahead(self) -> float:
        queue = self.queues.get((self.order.side, self.order.ticks), [])
        names = [name for name, _ in queue]
        return float(sum(size for _, size in queue[: names.index("ours")]))

    def place(self) -> None:
        self.queues.setdefault((self.order.side, self.order.ticks), []).append(["ours", 0])
        self.placed = True

    def change(self, kind: int, side: int, ticks: int, size: int, name: int) -> None:
        if name in self.at:
            queue = self.queues[self.at[name]]
            entry = next(e for e in queue if e[0] == name)
            if kind != KIND_REMOVE and size and self.at[name][1] == ticks and size <= entry[1]:
                entry[1] = size
                return
            queue.remove(entry)
            side = self.at.pop(name)[0]
        elif kind != KIND_ADD:
            return
        if kind != KIND_REMOVE and size:
            self.at[name] = side, ticks
            self.queues.setdefault((side, ticks), []).append([name, size])


ORDER = st.tuples(
    st.sampled_from((KIND_ADD, KIND_ADD, KIND_CHANGE, KIND_REMOVE)),
    st.integers(9_996, 9_999),
    st.integers(0, 5),
    st.integers(1, 12),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ORDER, min_size=5, max_size=60), st.integers(1, 40))
def test_a_full_depth_feed_gives_the_exact_place(changes: list[tuple[int, int, int, int]], at: int) -> None:
    "Bids only, so that nothing crosses: our place is the quantity in front of us, and a level is the sum of its orders."
    rows = [(n + 1, kind, 1, ticks, size, name) for n, (kind, ticks, size, name) in enumerate(changes)]
    order = Ours(1, 9_998, 3, at, post=True)
    venue, twin = Venue([order], RISK_AVERSE), Queues(order)
    events = tape(rows)
    for n, (kind, ticks, size, name) in enumerate(changes):
        twin.change(kind, 1, ticks, size, name)
        if n + 1 == min(at, len(changes)):
            twin.place()
        venue.until(events, n + 1 if n + 1 < len(changes) else END)
        if twin.placed and at <= len(changes):
            assert venue.memory.orders[0]["queue"] == twin.ahead()
    sums = {
        t: float(sum(size for _, size in q))
        for (_, t), q in twin.queues.items()
        if sum(size for _, size in q)
    }
    assert venue.books.venue[0].levels(1, 99) == book(sums, 1)


def test_a_full_depth_feed_fills_after_those_in_front() -> None:
    rows = [(1, KIND_ADD, 1, 9_998, 4, 7), (3, KIND_ADD, 1, 9_998, 6, 8), (4, KIND_TRADE, -1, 9_998, 3, 0), (4, KIND_CHANGE, 1, 9_998, 1, 7),
            (5, KIND_TRADE, -1, 9_998, 1, 0), (5, KIND_TRADE, -1, 9_998, 2, 0), (5, KIND_REMOVE, 1, 9_998, 0, 7), (5, KIND_CHANGE, 1, 9_998, 4, 8),
            (6, KIND_TRADE, -1, 9_998, 4, 0)]  # fmt: skip
    venue = Venue([Ours(1, 9_998, 3, 2, post=True)], RISK_AVERSE)
    venue.until(tape(rows), END)
    assert [(time, lots) for time, _, lots, *_ in venue.fills()] == [(5, 2), (6, 1)]


# ---- arrivals --------------------------------------------------------------------------------------------------


def test_two_orders_at_once_pay_what_one_of_their_size_pays() -> None:
    rows = [(1, KIND_LEVEL, -1, 10_000, 3), (1, KIND_LEVEL, -1, 10_002, 9)]
    paid = []
    for sizes in ((8,), (3, 5), (1, 1, 6)):
        venue = Venue([Ours(1, 0, n, 2, market=True) for n in sizes], RISK_AVERSE)
        venue.until(tape(rows), END)
        fills = venue.memory.used("fills")
        paid.append(round(float((fills["lots"] * fills["price"]).sum()), 9))
    assert paid == [round(3 * 100.0 + 5 * 100.02, 9)] * 3


@pytest.mark.parametrize("late", [0, 1])
def test_an_order_is_behind_the_event_of_its_own_nanosecond(late: int) -> None:
    rows = [(5, KIND_LEVEL, 1, 9_999, 2), (10, KIND_TRADE, -1, 9_999, 2), (11, KIND_TRADE, -1, 9_999, 3)]
    venue = Venue([Ours(1, 9_999, 1, 9 + late, post=True)], RISK_AVERSE)
    venue.until(tape(rows), END)
    assert [fill[0] for fill in venue.fills()] == [11] and venue.memory.used("fills")["heard"].tolist() == [
        16
    ]


def test_an_amend_to_fewer_lots_keeps_the_place_and_any_other_loses_it() -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 2), (3, KIND_LEVEL, 1, 9_999, 7), (9, KIND_TRADE, -1, 9_999, 1)]
    for lots, ticks, queue in ((2, 9_999, 1.0), (5, 9_999, 6.0), (2, 9_998, 0.0)):
        venue = Venue([Ours(1, 9_999, 4, 2, post=True)], RISK_AVERSE)
        order = venue.memory.orders[0]
        order["amend"] = order["due"] = 5
        order["amend_lots"], order["amend_limit"] = lots, round(ticks * TICK, 2)
        venue.until(tape(rows), END)
        assert (order["queue"], order["lots"], venue.memory.assets[0]["open_buy"]) == (queue, lots, lots)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("QB-ENG-180", {"since": 0}),
        ("QB-ENG-181", {"known": 1}),
        ("QB-ENG-182", {"kind": KIND_QUOTE}),
        ("QB-ENG-183", {"size": math.nan}),
        ("QB-ENG-183", {"size": -1.0}),
        ("QB-ENG-183", {"price": math.inf}),
        ("QB-ENG-184", {"price": 100.005}),
        ("QB-ENG-185", {"side": 0}),
        ("QB-ENG-186", {"kind": KIND_ADD, "size": 0.5}),
        ("QB-ENG-187", {"kind": KIND_ADD}),
    ],
)
def test_a_tape_that_is_no_book_is_refused(code: str, change: dict[str, Any]) -> None:
    assets = Venue([], RISK_AVERSE).memory.assets
    events = tape([(5, KIND_LEVEL, 1, 9_999, 2), (6, KIND_LEVEL, -1, 10_000, 2)])
    check_depth(events, assets)
    for name, value in change.items():
        events.view(LEVEL)[1][name] = value
    with pytest.raises(QuantbenchError) as refusal:
        check_depth(events, assets)
    assert refusal.value.code == code


# ---- in a session ----------------------------------------------------------------------------------------------


class Looker(Strategy):
    "Quotes and crosses by what it sees of the book, and adds up all of it."

    timer = every("5ns")
    seen = state(0.0)
    order = state(0)
    told = state(0)

    def on_timer(self, market: Any) -> None:
        for n in range(1, 5):
            for side in range(-1, 2, 2):
                price = market.level(0, side, n)
                if price > 0.0:
                    self.seen += n * price + market.depth(0, side, n) * market.quantity_at(0, side, price)
        if market.is_open(self.order):
            market.cancel(self.order)
        best = market.level(0, 1, 1 + self.told % 2)
        if best > 0.0:
            self.order = market.submit(0, 2.0, "limit", limit=best, tif="gtc")

    def on_book(self, level: Any, market: Any) -> None:
        self.seen += market.quantity_at(0, level.side, level.price) - level.size

    def on_tick(self, tick: Any, market: Any) -> None:
        if market.depth(0, -tick.side, 1) > 3.0 and market.position(0) < 4.0:
            market.buy(0, 1.0)

    def on_fill(self, fill: Any, market: Any) -> None:
        self.told += 1 if market.position(fill.asset) > 0.0 else 3


STATED = spec("AAA", "crypto", lot_size=Decimal(1))
CHOICES = {
    "cash": 1e6,
    "costs": Costs(name="none"),
    "latency": Latency(order_seconds=2e-9, cancel_seconds=2e-9, fill_seconds=2e-9),
    "point_every": timedelta(microseconds=1),
}


def market_of(rows: list[tuple[int, ...]]) -> Tape:
    return Tape.from_events(tape(rows), [STATED])


def session(book: Tape, cuts: list[int], **choices: Any) -> tuple[Any, ...]:
    "Fills, transitions and what the strategy saw, of a tape fed in pieces."
    one = Session(Looker, book, **CHOICES | choices)
    for a, b in pairwise([0, *cuts, len(book)]):
        one.feed(book.events[a:b])
    one.finish()
    fills = one.memory.used("fills")[["time", "heard", "order", "lots", "price", "maker"]]
    moves = one.memory.used("transitions")[["time", "order", "state", "reason", "lots"]]
    return fills.tolist(), str(moves.tolist()), one.binding.state(), one.fed, one.memory.cash.tolist()


@settings(max_examples=25, deadline=None)
@given(markets(clears=False), st.lists(st.integers(0, 60), max_size=5))
def test_both_lanes_and_every_cut_of_a_tape_are_one_run(rows: list[tuple[int, ...]], cuts: list[int]) -> None:
    book = market_of(rows)
    whole = session(book, [])
    assert whole[3] == len(rows) and whole[2]["seen"] == whole[2]["seen"]
    assert session(book, sorted({c for c in cuts if c < len(rows)})) == whole
    assert session(book, list(range(1, len(rows)))) == whole
    assert session(book, [], lane="interpreted") == whole


def test_every_hook_of_the_looker_is_compiled_and_it_trades() -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 5), (1, KIND_LEVEL, -1, 10_001, 5), (1, KIND_LEVEL, 1, 2_000, 7)]
    rows += [(10 * n, KIND_TRADE, -1, 9_999, 8) for n in range(2, 9)]
    one = Session(Looker, market_of(rows), **CHOICES)
    assert {hook.lane for hook in one.binding.lanes.hooks.values()} == {"compiled"}
    fills, *_ = session(market_of(rows), [])
    assert {fill[5] for fill in fills} == {0, 1}  # it took, and it was taken


class Curious(Strategy):
    "Looks where nothing is."

    timer = every("5ns")
    found = state(0.0)
    side: int = 1
    n: int = 1
    asset: int = 0

    def on_timer(self, market: Any) -> None:
        self.found = market.level(self.asset, self.side, self.n)


@pytest.mark.parametrize("lane", ["compiled", "interpreted"])
@pytest.mark.parametrize(
    ("side", "n", "expected"),
    [(1, 1, 99.99), (1, 3, 20.0), (-1, 2, 100.03), (1, 4, math.nan), (-1, 0, math.nan)],
)
def test_a_level_near_or_far_is_found_and_none_is_nan(lane: str, side: int, n: int, expected: float) -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 5), (2, KIND_LEVEL, 1, 9_990, 1), (3, KIND_LEVEL, 1, 2_000, 7),
            (4, KIND_LEVEL, -1, 10_001, 5), (4, KIND_LEVEL, -1, 10_003, 5), (20, KIND_LEVEL, -1, 10_004, 1)]  # fmt: skip
    one = Session(Curious(side=side, n=n), market_of(rows), lane=lane, **CHOICES)
    one.feed(market_of(rows).events)
    one.finish()
    assert one.binding.state()["found"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("lane", ["compiled", "interpreted"])
def test_an_asset_that_is_not_there_stops_the_run_at_its_event(lane: str) -> None:
    rows = [(n, KIND_LEVEL, 1, 9_999, n) for n in range(1, 20)]
    with pytest.raises(QuantbenchError, match="IndexError") as refusal:
        backtest(Curious(asset=1), market_of(rows), lane=lane, **CHOICES)
    assert refusal.value.code == "QB-ENG-014"


def test_the_referee_values_positions_at_the_middle_of_the_book() -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 5), (1, KIND_LEVEL, -1, 10_001, 5)]
    rows += [(1_000 * n, KIND_TRADE, -1, 9_999, 4) for n in range(1, 9)]
    rows += [(10_000 + 1_000 * n, KIND_LEVEL, 1, 10_000, n) for n in range(1, 5)]
    result = backtest(Looker, market_of(rows), **CHOICES)
    assert len(result.logs.fills) > 0 and result.check("loop")["loop"] == 0.0
    assert "queue risk averse" in result.provenance.execution


def test_the_queue_is_chosen_and_another_word_is_refused() -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 9), (1, KIND_LEVEL, -1, 10_001, 5), (60, KIND_LEVEL, 1, 9_999, 5), (61, KIND_TRADE, -1, 9_999, 6)]  # fmt: skip
    one = Session(Looker, market_of(rows), queue="power", queue_power=3.0, **CHOICES)
    assert (one.memory.run[0]["queue_model"], one.memory.run[0]["queue_power"]) == (1, 3.0)
    for wrong in ({"queue": "lucky"}, {"queue_power": 0.0}):
        with pytest.raises(QuantbenchError) as refusal:
            Session(Looker, market_of(rows), **CHOICES, **wrong)
        assert refusal.value.code == "QB-ENG-241"


def test_levels_in_one_part_and_orders_in_the_next_are_refused() -> None:
    levels, orders = tape([(1, KIND_LEVEL, 1, 9_999, 5)]), tape([(2, KIND_ADD, 1, 9_999, 5, 1)])
    one = Session(Looker, market_of([(1, KIND_LEVEL, 1, 9_999, 5)]), **CHOICES)
    one.feed(levels)
    with pytest.raises(QuantbenchError) as refusal:
        one.feed(orders)
    assert refusal.value.code == "QB-ENG-187"


def test_a_tape_holds_back_what_follows_an_event_received_late() -> None:
    events = tape([(1, KIND_LEVEL, 1, 9_999, 5), (2, KIND_TRADE, -1, 9_999, 1), (3, KIND_LEVEL, 1, 9_999, 4)])
    events["known"] = [4, 9, 6]
    late = Tape.from_events(events[np.argsort(events["known"])], [STATED])
    assert late.events["since"].tolist() == [1, 2, 3] and late.events["known"].tolist() == [4, 9, 9]
    assert late.has_book == (True,)


def test_the_end_of_a_session_ends_day_orders_and_is_no_news_of_the_book() -> None:
    rows = [(1, KIND_LEVEL, 1, 9_999, 5), (1, KIND_LEVEL, -1, 10_001, 5), (40, KIND_CLOSE, 0, 0, 0), (41, KIND_LEVEL, 1, 9_999, 6), (60, KIND_LEVEL, 1, 9_999, 7)]  # fmt: skip
    events = tape(rows)
    events["since"][2] = events["known"][2]  # a close is known when it happens
    book = Tape.from_events(events, [STATED])
    one = Session(Day, book, **CHOICES)
    one.feed(book.events)
    one.finish()
    assert one.memory.used("transitions")["state"].tolist() == [SUBMITTED, EXPIRED]


class Day(Strategy):
    "One bid for the day."

    timer = every("5ns")
    order = state(0)

    def on_timer(self, market: Any) -> None:
        if self.order == 0 and market.bid(0) > 0.0:
            self.order = market.buy(0, 1.0, limit=market.bid(0))


def test_a_halted_book_takes_orders_and_trades_nothing() -> None:
    "A market order ends, a limit waits even if the book crosses it; after the halt the next trade through it fills."
    rows = [
        (10, KIND_LEVEL, -1, 101, 50), (10, KIND_LEVEL, 1, 99, 50), (20, KIND_HALT, 0, 0, 0), (30, KIND_LEVEL, -1, 100, 9),
        (40, KIND_TRADE, -1, 98, 9), (50, KIND_RESUME, 0, 0, 0), (60, KIND_TRADE, -1, 98, 9),
    ]  # fmt: skip
    orders = [
        Ours(1, 0, 3, 25, market=True),
        Ours(1, 101, 5, 25),
        Ours(1, 100, 4, 15),
        Ours(1, 99, 2, 35, tif=IOC),
    ]
    venue = Venue(orders, RISK_AVERSE)
    venue.until(tape(rows), 45)
    assert not venue.fills() and venue.ends() == {1: CANCELLED, 4: CANCELLED}
    venue.until(tape(rows), END)
    assert [(time, order, lots) for time, order, lots, *_ in venue.fills()] == [(60, 2, 5), (60, 3, 4)]
