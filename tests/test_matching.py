"""Orders over bars against a naive twin that was written from the rules alone; every rule once by itself; ticks."""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import refused
from quantbench.core.types import MOVES, OrderState
from quantbench.engine import memory as m
from quantbench.engine import orders as o
from quantbench.engine.events import BAR, FIRST_OF_SESSION, KIND_BAR, KIND_QUOTE, KIND_TRADE, LAST_OF_SESSION
from quantbench.engine.guardian import Limits
from quantbench.engine.kernel import address_of, entry
from quantbench.engine.matching import match_bar, match_close, match_tick, settle
from quantbench.engine.requests import handle

STATES = tuple(OrderState)
REQUEST_SIZE = m.REQUEST.itemsize
NAN = math.nan
PENDING, SUBMITTED, PARTIAL, FILLED, CANCELLED, REJECTED, EXPIRED = range(7)


# ---- the kernels, driven -------------------------------------------------------------------------------------


@entry
def play(runs: Any, events: Any, requests: Any, places: Any, first: int) -> int:
    "Every event from the first on: fills, then the requests made on it; the event at which memory ran out, or -1."
    run = runs[0]
    for i in range(first, len(events)):
        event = events[i]
        asset = m.asset_record(run.assets, event.asset)
        run.now = event.known
        if asset.first >= 0:
            if event.kind == KIND_BAR:
                match_bar(run, asset, event)
            else:
                match_tick(run, asset, event)
        asset.last, asset.last_time = event.close, event.known
        run.requests = address_of(requests) + places[i] * REQUEST_SIZE
        run.n_requests = places[i + 1] - places[i]
        for k in range(run.n_requests):
            request = m.request_record(run.requests, k)
            if request.what <= m.SUBMIT:
                request.id = run.next_id + k
        if handle(run) != m.ENDED:
            return i
        if run.same_close != 0 and asset.first >= 0:
            match_close(run, asset, event)
    return -1


@entry
def ask_again(runs: Any) -> int:
    return handle(runs[0])


@entry
def force(runs: Any, slot: int, state: int) -> None:
    o.move(runs[0], m.order_record(runs[0].orders, slot), state, 0, 0, 0.0)


@entry
def listen(runs: Any) -> None:
    settle(runs[0])


def request(what: int, quantity: float = NAN, **more: Any) -> dict[str, Any]:
    blank = dict.fromkeys(("limit", "stop", "trail", "take", "loss"), NAN)
    whole = dict.fromkeys(("kind", "tif", "flags", "id", "group", "expires", "asset", "display"), 0)
    return blank | whole | {"what": what, "quantity": quantity} | more


def buy(lots: float, **more: Any) -> dict[str, Any]:
    return request(m.SUBMIT, lots, **more)


def sell(lots: float, **more: Any) -> dict[str, Any]:
    return request(m.SUBMIT, -lots, **more)


def bar(
    i: int, first: float, high: float, low: float, close: float, volume: float = 1e6, flags: int = 0
) -> Any:
    made = np.zeros(1, BAR)
    made[0] = (10 * i + 10, 10 * i, 0, KIND_BAR, 0, flags, first, high, low, close, volume)
    return made


def bars(*rows: tuple[Any, ...]) -> Any:
    return np.concatenate([bar(i, *row) for i, row in enumerate(rows)])


class Kernels:
    "The engine's part for orders, for an account so rich that Guardian has few objections: it has tests of its own."

    def __init__(
        self, events: Any, script: list[list[dict[str, Any]]], *, size: int = 64, **setup: Any
    ) -> None:
        self.memory = memory = m.Memory(1, orders=size, requests=64)
        Limits.research(1e12).tightened(credit_fraction=0.0).onto(memory.run)
        memory.cash[0] = 1e12
        memory.run["equity"] = memory.run["day_equity"] = memory.run["peak"] = 1e12
        for name, value in setup.items():
            (memory.assets if name in m.ASSET.names else memory.run)[name] = value
        flat = [item for items in script for item in items]
        self.requests = np.zeros(len(flat) + 1, m.REQUEST)
        for place, item in enumerate(flat):
            for name, value in item.items():
                self.requests[place][name] = value
        self.places = np.cumsum([0, *map(len, script)])
        self.events = events

    def run(self) -> Kernels:
        assert play(self.memory.run, self.events, self.requests, self.places, 0) == -1
        o.check_fault(self.memory)
        return self

    @property
    def fills(self) -> list[tuple[Any, ...]]:
        names = ["order", "side", "lots", "reference", "time", "maker"]
        return [tuple(row) for row in self.memory.used("fills")[names].tolist()]

    @property
    def log(self) -> list[tuple[Any, ...]]:
        names = ["order", "state", "time", "reason", "lots"]
        return [tuple(row) for row in self.memory.used("transitions")[names].tolist()]

    def states(self, order: int) -> list[int]:
        return [row[1] for row in self.log if row[0] == order]

    def reason(self, order: int) -> str:
        return o.REASONS[[row[3] for row in self.log if row[0] == order][-1]]


# ---- the twin: lists and dictionaries ------------------------------------------------------------------------

REASON = {name: number for number, name in enumerate(o.REASONS)}
FOREVER = 2**63 - 1


def splitmix(state: int) -> tuple[int, float]:
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return state, (((z ^ (z >> 31)) >> 11) + 0.5) / 2**53


class Twin:
    "One asset, lots of one unit, any kind of order, over bars."

    def __init__(self, **setup: Any) -> None:
        self.set = SimpleNamespace(
            order_latency=0,
            cancel_latency=0,
            fill_latency=0,
            latency_model=0,
            latency_spread=0.5,
            participation=0.0,
            same_close=0,
        )
        self.set.__dict__.update(setup)
        self.queue: list[Any] = []  # as they came to the venue
        self.fills: list[tuple[Any, ...]] = []
        self.log: list[tuple[Any, ...]] = []
        self.unheard: list[Any] = []  # fills
        self.ends: list[Any] = []
        self.known = self.venue = 0  # position: as we have heard, as it is
        self.next_id, self.random, self.now = 1, 0x9E3779B97F4A7C15, 0

    # -- the way to the venue
    def travel(self, latency: int) -> int:
        if not self.set.latency_model:
            return latency
        self.random, u = splitmix(self.random)
        return int(latency * min((u / (1 - u)) ** self.set.latency_spread, 1000.0))

    def write(self, order: Any, state: int, time: int, reason: int = 0) -> None:
        assert STATES[state] in MOVES[STATES[order.state]]
        order.state = state
        self.log.append((order.id, state, time, reason, order.lots - order.heard))

    def ask(self, items: list[dict[str, Any]]) -> None:
        for place, item in enumerate(items):
            if item["what"] <= m.SUBMIT:
                self.new(self.next_id + place, item)
            for order in list(self.queue):
                meant = item["what"] == m.CANCEL_ALL or (item["what"] == m.CANCEL and order.id == item["id"])
                if meant and order.alive and order.cancel == FOREVER:
                    arrival = self.now + self.travel(self.set.cancel_latency)
                    order.cancel = max(order.active, arrival, order.amend if order.amend < FOREVER else 0)
                if item["what"] == m.AMEND and order.id == item["id"] and order.alive:
                    whole, bound, edge = (
                        order.new if order.amend < FOREVER else (order.lots, order.limit, order.stop)
                    )
                    lots = whole if math.isnan(item["quantity"]) else int(item["quantity"])
                    limit = bound if math.isnan(item["limit"]) or not has_limit(order.kind) else item["limit"]
                    is_stop = order.kind in (m.STOP, m.STOP_LIMIT)
                    stop = item["stop"] if is_stop and not math.isnan(item["stop"]) else edge
                    if self.objection(order, lots, limit, stop):
                        continue
                    order.amend = max(order.active, self.now + self.travel(self.set.cancel_latency))
                    order.new, order.most = (lots, limit, stop), max(order.most, lots)
        self.next_id += len(items)

    def new(self, number: int, item: dict[str, Any]) -> None:
        signed, flags = float(int(item["quantity"])), item["flags"]
        if item["what"] == m.TARGET:
            under_way = sum(
                q.side * (q.lots - q.heard) for q in self.queue if not q.parent and q.cancel == FOREVER
            )
            signed -= self.known + under_way
            if signed == 0:
                return
            if signed * self.known < 0 and abs(signed) <= abs(self.known) - self.waiting(signed, None):
                flags |= m.REDUCE_ONLY
        order = SimpleNamespace(
            **{name: item[name] for name in ("kind", "tif", "limit", "stop", "trail", "take", "loss", "group")},
            id=number, state=PENDING, side=1 if signed > 0 else -1, lots=int(abs(signed)), filled=0, heard=0, alive=True,
            decided=self.now, active=0, cancel=FOREVER, amend=FOREVER, new=None, best=NAN, rests=False, hit=False, parent=0, touched=self.now,
            post=bool(flags & m.POST_ONLY), reduce=bool(flags & m.REDUCE_ONLY), expires=item["expires"] if item["tif"] == m.GTD else FOREVER,
        )  # fmt: skip
        if (
            (order.tif >= m.IOC and order.kind not in (m.MARKET, m.LIMIT))
            or (order.tif == m.GTD and item["expires"] <= self.now)
            or (order.post and (order.kind != m.LIMIT or order.tif >= m.IOC))
        ):
            return self.write(order, REJECTED, self.now, REASON["form"])
        order.most = order.lots
        reason = self.objection(order, order.lots, order.limit, order.stop)
        if reason:
            return self.write(order, REJECTED, self.now, REASON[reason])
        order.active = self.now + self.travel(self.set.order_latency)
        self.write(order, SUBMITTED, self.now)
        self.queue.append(order)

    def waiting(self, side: float, but: Any) -> int:
        "Lots on that side that could still be filled, beside orders that only reduce."
        return sum(
            q.most - q.heard for q in self.queue if q.side * side > 0 and not q.reduce and q is not but
        )

    def objection(self, order: Any, lots: int, limit: float, stop: float) -> str:
        "Guardian's: nothing to trade, reduce-only that does not reduce, the same order again."
        if lots <= order.heard:
            return "quantity"
        if order.reduce and lots - order.heard > -order.side * self.known - self.waiting(order.side, order):
            return "position"
        price = limit if has_limit(order.kind) else stop if order.kind == m.STOP else 0.0
        newest = max((q for q in self.queue if not q.parent), key=lambda q: q.id, default=None)
        for q in reversed(self.queue):
            if q.decided < self.now:
                break
            theirs = q.limit if has_limit(q.kind) else q.stop if q.kind == m.STOP else 0.0
            if (
                q is not order
                and (q.kind == order.kind or q is newest)
                and (q.side * q.lots, theirs) == (order.side * lots, price)
            ):
                return "duplicate"
        return ""

    # -- at the venue
    def end(self, order: Any, state: int, time: int, reason: str) -> None:
        order.alive = False
        self.ends.append((order, state, max(time, order.touched), REASON[reason]))

    def fill(self, order: Any, price: float, time: int, maker: bool) -> None:
        lots = order.lots - order.filled
        if order.reduce:
            lots = min(lots, max(0, -order.side * self.venue))
        if lots > self.room:
            lots = 0 if order.tif == m.FOK else self.room
        if not lots:
            return
        self.room -= lots
        order.filled += lots
        order.touched = time
        self.venue += order.side * lots
        self.fills.append((order.id, order.side, lots, price, time, int(maker)))
        self.unheard.append((order, lots, time))
        first_fill = order.filled == lots
        if not (math.isnan(order.take) and math.isnan(order.loss)):
            if first_fill:
                self.bracket(order, lots, price, time)
            else:
                for other in self.queue:
                    if other.parent == order.id and other.alive:
                        other.lots += lots
        for other in self.queue:
            if other is order or not other.alive:
                continue
            if order.parent and other.id == order.parent:
                self.end(other, CANCELLED, time, "group")
            elif order.parent and other.parent == order.parent:
                if other.lots - other.filled > lots:
                    other.lots -= lots
                else:
                    self.end(other, CANCELLED, time, "group")
            elif order.group and other.group == order.group:
                self.end(other, CANCELLED, time, "group")
        if order.filled == order.lots:
            order.alive = False

    def bracket(self, entry: Any, lots: int, price: float, time: int) -> None:
        for kind, at in ((m.LIMIT, entry.take), (m.STOP, entry.loss)):
            if math.isnan(at):
                continue
            made = SimpleNamespace(**entry.__dict__)
            made.__dict__.update(
                id=self.next_id, kind=kind, limit=at, stop=at, entered=price, side=-entry.side, lots=lots, filled=0, heard=0, state=PENDING, tif=m.GTC, most=0,
                reduce=True, post=False, parent=entry.id, take=NAN, loss=NAN, group=0, alive=True, rests=False, hit=False, touched=time, decided=time,
                cancel=FOREVER, amend=FOREVER, expires=FOREVER, active=entry.active if kind == m.STOP else time,
            )  # fmt: skip
            self.next_id += 1
            self.write(made, SUBMITTED, time)
            self.queue.append(made)

    def due(self, since: int) -> None:
        for order in list(self.queue):
            if order.alive and order.amend <= min(since, order.cancel) and order.amend < order.expires:
                time, (lots, limit, stop) = order.amend, order.new
                order.amend = FOREVER
                if lots <= order.filled:
                    self.end(order, CANCELLED, time, "amended")
                    continue
                if order.kind == m.TRAILING or order.hit:
                    stop = order.stop
                kept = lots <= order.lots and repr((limit, stop)) == repr((order.limit, order.stop))
                order.lots = order.most = lots
                order.limit, order.stop, order.touched = limit, stop, max(time, order.touched)
                if not kept:
                    order.rests = False
                    self.queue.remove(order)
                    self.queue.append(order)
            if order.alive and min(order.cancel, order.expires) <= since:
                if order.expires <= order.cancel:
                    self.end(order, EXPIRED, order.expires, "date")
                else:
                    self.end(order, CANCELLED, order.cancel, "asked")

    def ready(self, b: Any) -> Any:
        "The orders that were there before the bar, and those that come to life meanwhile; the queue grows."
        place = 0
        while place < len(self.queue):
            order = self.queue[place]
            place += 1
            if order.alive and order.active <= b.since:
                yield order

    def match(self, b: Any) -> None:
        cap = self.set.participation
        self.room = int(cap * b.volume) if cap else FOREVER
        self.due(b.since)
        for order in self.ready(b):
            self.opening(order, b)
            if order.alive and order.tif >= m.IOC:
                self.end(order, CANCELLED, b.since, "immediate")
        self.stops(b, self.queue[:])
        there = self.queue[:]
        for order in self.ready(b):
            if order.kind == m.TRAILING:
                order.best = min(order.best, b.low) if order.side > 0 else max(order.best, b.high)
                if reached(order, b.close):
                    order.kind, order.hit = m.MARKET, True
                    self.fill(order, order.best + order.side * order.trail, b.known, False)
            if order.kind == m.LIMIT and (b.low < order.limit if order.side > 0 else b.high > order.limit):
                self.fill(order, min(max(order.limit, b.low), b.high), b.known, True)
        self.stops(b, [order for order in self.queue if order not in there])
        if b.last:
            for order in self.ready(b):
                if order.kind in (m.ON_CLOSE, m.LIMIT_ON_CLOSE):
                    self.auction(order, b.close, b.known)
            for order in self.queue:
                in_time = (
                    order.active <= b.since if order.kind == m.MARKET else order.active < b.known or order.hit
                )
                if order.alive and order.tif == m.DAY and in_time and order.kind < m.ON_OPEN:
                    self.end(order, EXPIRED, b.known, "session")
        self.hear()

    def opening(self, order: Any, b: Any) -> None:
        buys, price = order.side > 0, b.open
        if order.reduce and self.venue * order.side >= 0:
            return self.end(order, CANCELLED, b.since, "reduce_only")
        if order.kind in (m.ON_OPEN, m.LIMIT_ON_OPEN):
            return self.auction(order, price, b.since) if b.first else None
        if order.kind == m.TRAILING:
            if math.isnan(order.best):
                order.best = price
            order.best = min(order.best, price) if buys else max(order.best, price)
        if order.kind in (m.STOP, m.STOP_LIMIT, m.TRAILING) and reached(order, price):
            order.hit = True
            order.kind = m.LIMIT if order.kind == m.STOP_LIMIT else m.MARKET
        if order.kind == m.MARKET:
            return self.fill(order, price, b.since, False)
        if order.kind == m.LIMIT:
            if price <= order.limit if buys else price >= order.limit:
                if order.post and not order.rests:
                    return self.end(order, CANCELLED if order.filled else REJECTED, b.since, "post_only")
                return self.fill(order, price, b.since, order.rests)
            order.rests = True

    def auction(self, order: Any, price: float, time: int) -> None:
        limited = order.kind in (m.LIMIT_ON_OPEN, m.LIMIT_ON_CLOSE)
        if not limited or (price <= order.limit if order.side > 0 else price >= order.limit):
            self.fill(order, price, time, False)
        if order.alive:
            self.end(order, EXPIRED, time, "auction")

    def stops(self, b: Any, orders: list[Any]) -> None:
        "The list may name orders that end or come to life while it is gone through."
        while orders:
            order = orders.pop(0)
            before = len(self.queue)
            buys = order.side > 0
            if (
                not order.alive
                or order.active > b.since
                or order.kind not in (m.STOP, m.STOP_LIMIT, m.TRAILING)
            ):
                continue
            if not reached(order, b.high if buys else b.low):
                continue
            order.hit = True
            if order.kind == m.STOP_LIMIT:
                order.kind, order.rests = m.LIMIT, True
                if b.close < order.limit if buys else b.close > order.limit:
                    self.fill(
                        order, min(order.limit, b.high) if buys else max(order.limit, b.low), b.known, False
                    )
                order.active = b.known
            else:
                stop = stop_of(order)
                order.kind = m.MARKET
                price = max(stop, b.low) if buys else min(stop, b.high)
                if order.parent and order.decided == b.known:  # no gain from a stop-loss on the wrong side
                    price = max(price, order.entered) if buys else min(price, order.entered)
                self.fill(order, price, b.known, False)
            orders += self.queue[before:]

    def closing(self, b: Any) -> None:
        "The model of a closing auction."
        for order in list(self.queue):
            if order.alive and order.decided == b.known and order.kind == m.MARKET and not order.hit:
                if order.reduce and self.venue * order.side >= 0:
                    self.end(order, CANCELLED, b.known, "reduce_only")
                    continue
                self.fill(order, b.close, b.known, False)
                if order.alive and order.tif >= m.IOC:
                    self.end(order, CANCELLED, b.known, "immediate")
        self.hear()

    # -- the way back
    def hear(self) -> None:
        delay = self.set.fill_latency
        while self.unheard and self.unheard[0][2] + delay <= self.now:
            order, lots, time = self.unheard.pop(0)
            order.heard += lots
            self.known += order.side * lots
            done = order.heard == order.lots
            self.write(order, FILLED if done else PARTIAL, time + delay)
            if done:
                self.queue.remove(order)
        while (
            self.ends
            and self.ends[0][2] + delay <= self.now
            and self.ends[0][0].heard == self.ends[0][0].filled
        ):
            order, state, time, reason = self.ends.pop(0)
            self.write(order, state, time + delay, reason)
            self.queue.remove(order)

    def run(self, events: Any, script: list[list[dict[str, Any]]]) -> Twin:
        for row, items in zip(events, script, strict=True):
            b = SimpleNamespace(**{name: row[name].item() for name in BAR.names})
            b.first, b.last = bool(b.flags & FIRST_OF_SESSION), bool(b.flags & LAST_OF_SESSION)
            self.now = b.known
            self.room = FOREVER
            if self.queue:
                self.match(b)
                self.left = self.room
            else:
                self.left = int(self.set.participation * b.volume) if self.set.participation else FOREVER
            self.ask(items)
            if self.set.same_close and self.queue:
                self.room = self.left
                self.closing(b)
        return self


def has_limit(kind: int) -> bool:
    return kind in (m.LIMIT, m.STOP_LIMIT, m.LIMIT_ON_OPEN, m.LIMIT_ON_CLOSE)


def stop_of(order: Any) -> float:
    return order.best + order.side * order.trail if order.kind == m.TRAILING else order.stop


def reached(order: Any, price: float) -> bool:
    return price >= stop_of(order) if order.side > 0 else price <= stop_of(order)


# ---- what is tried ------------------------------------------------------------------------------------------


def some_bars(rng: Random) -> Any:
    rows = []
    for i in range(rng.randint(4, 16)):
        path = [float(rng.randint(95, 105)) for _ in range(4)]
        flags = (FIRST_OF_SESSION if i % 4 == 0 else 0) | (LAST_OF_SESSION if i % 4 == 3 else 0)
        rows.append((path[0], max(path), min(path), path[1], float(rng.randint(0, 60)), flags))
    return bars(*rows)


def some_request(rng: Random, now: int) -> dict[str, Any]:
    price = lambda: float(rng.randint(95, 105))  # noqa: E731
    what = rng.choice(
        [m.SUBMIT] * 7 + [m.TARGET, m.TARGET, m.AMEND, m.CANCEL] + [m.CANCEL_ALL] * (rng.random() < 0.3)
    )
    if what == m.TARGET:
        return request(what, float(rng.randint(-12, 12)))
    if what >= m.AMEND:
        lots = rng.choice([NAN, 0.0, 1.0, 5.0, 15.0])
        return request(
            what,
            lots,
            id=rng.randint(1, 25),
            limit=rng.choice([NAN, price()]),
            stop=rng.choice([NAN, price()]),
        )
    kind = rng.choice([m.MARKET, *range(9)])
    tif = rng.choice([m.DAY, m.GTC, m.GTC, m.GTD])
    if kind in (m.MARKET, m.LIMIT):
        tif = rng.choice([tif, tif, m.IOC, m.FOK])
    flags = (
        m.REDUCE_ONLY if rng.random() < 0.15 else m.POST_ONLY if kind == m.LIMIT and rng.random() < 0.3 else 0
    )
    more: dict[str, Any] = {"kind": kind, "tif": tif, "flags": flags}
    if has_limit(kind):
        more["limit"] = price()
    if kind in (m.STOP, m.STOP_LIMIT):
        more["stop"] = price()
    if kind == m.TRAILING:
        more["trail"] = float(rng.randint(1, 4))
    if tif == m.GTD:
        more["expires"] = now + rng.randint(0, 60)
    if rng.random() < 0.3:
        more["take"], more["loss"] = rng.choice([NAN, price()]), rng.choice([NAN, price()])
    if rng.random() < 0.25:
        more["group"] = rng.randint(1, 2)
    return request(what, float(rng.choice([-10, -4, 4, 10, 7, 0]) + rng.random() * 0.9), **more)


def some_case(seed: int) -> tuple[Any, list[list[dict[str, Any]]], dict[str, Any]]:
    rng = Random(seed)
    events = some_bars(rng)
    script = [
        [some_request(rng, int(row["known"])) for _ in range(rng.choice([0, 1, 1, 2, 3]))] for row in events
    ]
    delays = (0, 0, 3, 10, 17)
    setup = {
        "order_latency": rng.choice(delays), "cancel_latency": rng.choice(delays), "fill_latency": rng.choice(delays),
        "latency_model": rng.randint(0, 1), "latency_spread": 0.5, "participation": rng.choice([0.0, 0.0, 0.25]), "same_close": rng.randint(0, 1),
    }  # fmt: skip
    return events, script, setup


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 2**32))
def test_twin(seed: int) -> None:
    events, script, setup = some_case(seed)
    ours, naive = Kernels(events, script, **setup).run(), Twin(**setup).run(events, script)
    assert ours.fills == naive.fills
    assert ours.log == naive.log
    check_invariants(ours, events)


def check_invariants(ours: Kernels, events: Any) -> None:
    "What must hold whatever was asked: legal moves, no lots from nowhere, prices that were there, the lists in order."
    memory = ours.memory
    state: dict[int, int] = {}
    for order, new, *_ in ours.log:
        assert STATES[new] in MOVES[STATES[state.get(order, PENDING)]]
        state[order] = new
    spans = {int(row["since"]): row for row in events} | {int(row["known"]): row for row in events}
    ranges = [(row["since"], row["known"], row["low"], row["high"]) for row in events]
    for _order, _side, lots, price, time, _maker in ours.fills:
        assert lots > 0 and time in spans
        assert any(since <= time <= known and low <= price <= high for since, known, low, high in ranges)
    asset, run = memory.assets[0], memory.run[0]
    live, place, before = [], int(asset["first"]), -1
    while place >= 0:
        order = memory.orders[place]
        assert (
            order["prev"] == before and order["id"] > 0 and order["heard"] <= order["filled"] <= order["lots"]
        )
        live.append(order)
        before, place = place, int(order["next"])
    assert asset["final"] == before and asset["n_open"] == len(live)
    for side, name in ((1, "open_buy"), (-1, "open_sell")):
        least = sum(
            q["lots"] - q["heard"] for q in live if q["side"] == side and not q["flags"] & m.REDUCE_ONLY
        )
        most = least + sum(max(0, q["amend_lots"]) for q in live)
        assert least <= asset[name] <= most
    heard = sum(f["side"] * f["lots"] for f in memory.used("fills")[: run["settled"]])
    assert asset["lots"] == heard
    assert asset["pending"] == sum(f["side"] * f["lots"] for f in memory.used("fills")[run["settled"] :])
    free, place = 0, int(run["free"])
    while place >= 0:
        free, place = free + 1, int(memory.orders[place]["next"])
    assert free + run["n_open"] == len(memory.orders)


# ---- each rule by itself -------------------------------------------------------------------------------------

FLAT = (100.0, 100.0, 100.0, 100.0)
LAST = (*FLAT, 1e6, LAST_OF_SESSION)
FIRST = (*FLAT, 1e6, FIRST_OF_SESSION)
GTC = {"tif": m.GTC}


def case(rows: list[tuple[Any, ...]], *asked: tuple[int, dict[str, Any]], **setup: Any) -> Kernels:
    "Bars, and requests each with the number of the bar on which it is made."
    script: list[list[dict[str, Any]]] = [[] for _ in rows]
    for place, item in asked:
        script[place].append(item)
    return Kernels(bars(*rows), script, **setup).run()


def limit(price: float, **more: Any) -> dict[str, Any]:
    return {"kind": m.LIMIT, "limit": price, "tif": m.GTC} | more


def stop(price: float, **more: Any) -> dict[str, Any]:
    return {"kind": m.STOP, "stop": price, "tif": m.GTC} | more


def prices(done: Kernels) -> list[tuple[int, float, int]]:
    return [(order, price, time) for order, _side, _lots, price, time, _maker in done.fills]


@pytest.mark.parametrize(
    ("asked", "row", "price"),
    [
        (buy(1), (101, 103, 99, 100), 101),  # market: the open
        (buy(1, **limit(100)), (101, 103, 99, 100), 100),  # through
        (buy(1, **limit(99)), (101, 103, 99, 100), None),  # a touch is not enough
        (buy(1, **limit(103)), (101, 103, 99, 100), 101),  # the open is better
        (buy(1, **limit(101)), (101, 103, 101, 102), 101),  # the open is the limit
        (sell(1, **limit(102)), (101, 103, 99, 100), 102),
        (sell(1, **limit(103)), (101, 103, 99, 100), None),
        (buy(1, **stop(103)), (101, 103, 99, 100), 103),  # a touch is enough
        (buy(1, **stop(100)), (101, 103, 99, 100), 101),  # the gap
        (sell(1, **stop(99)), (101, 103, 99, 100), 99),
        (sell(1, **stop(102)), (101, 103, 99, 100), 101),
        (sell(1, **stop(98)), (101, 103, 99, 100), None),
        (buy(1, kind=m.STOP_LIMIT, stop=102, limit=104, **GTC), (101, 103, 99, 100), 103),  # worst of the path
        (buy(1, kind=m.STOP_LIMIT, stop=102, limit=102, **GTC), (101, 103, 99, 103), None),  # the price ran away
        (buy(1, kind=m.STOP_LIMIT, stop=102, limit=101, **GTC), (101, 103, 99, 100), 101),  # it came back
        (buy(1, kind=m.STOP_LIMIT, stop=100, limit=100, **GTC), (101, 103, 99, 103), 100),  # triggered at the open
        (sell(1, kind=m.STOP_LIMIT, stop=100, limit=98, **GTC), (101, 103, 99, 100), 99),
        (buy(1, kind=m.LIMIT, limit=100, tif=m.IOC), (101, 103, 99, 100), None),  # immediate is the open
        (buy(1, kind=m.LIMIT, limit=101, tif=m.FOK), (101, 103, 99, 100), 101),
    ],
)  # fmt: skip
def test_path(asked: dict[str, Any], row: tuple[float, ...], price: float | None) -> None:
    assert [p for _order, p, _time in prices(case([FLAT, row], (0, asked)))] == [price] * (price is not None)


def test_arrival() -> None:
    "An order fills from the first bar that begins after it has arrived, and a cancel or an amend acts likewise."
    for latency, bar_number in ((0, 1), (1, 2), (10, 2), (11, 3)):
        done = case([FLAT] * 4, (0, buy(1, **GTC)), order_latency=latency)
        assert prices(done) == [(1, 100, 10 * bar_number)]
    low = (100, 100, 98, 100)
    for latency, filled in ((0, 0), (1, 1)):
        done = case(
            [FLAT, FLAT, low], (0, buy(1, **limit(99))), (1, request(m.CANCEL, id=1)), cancel_latency=latency
        )
        assert len(done.fills) == filled
    assert case([FLAT, FLAT, low], (0, buy(1, **limit(99))), (1, request(m.CANCEL_ALL))).log[-1][1:4] == (
        CANCELLED,
        20,
        REASON["asked"],
    )
    for latency, price in ((0, 98.5), (1, 99)):
        moved = request(m.AMEND, id=1, limit=98.5)
        done = case([FLAT, FLAT, low], (0, buy(1, **limit(99))), (1, moved), cancel_latency=latency)
        assert prices(done) == [(1, price, 30)]


def test_news_takes_time() -> None:
    done = case([FLAT] * 5, (0, buy(2, **GTC)), (1, request(m.TARGET, 2.0)), fill_latency=12)
    assert done.memory.used("fills")[["time", "heard"]].tolist() == [(10, 22)]
    assert done.log[-1][:3] == (1, FILLED, 22)  # a target counts what is on order, filled or not
    assert len(done.fills) == 1


def test_stop_loss_before_take_profit() -> None:
    wide = (100, 110, 90, 108)
    done = case([FLAT, FLAT, wide], (0, buy(4, take=105, loss=95)))
    assert prices(done) == [(1, 100, 10), (3, 95, 30)]
    assert done.states(2) == [SUBMITTED, CANCELLED] and done.reason(2) == "group"
    gap = (107, 110, 90, 108)
    assert prices(case([FLAT, FLAT, gap], (0, buy(4, take=105, loss=95))))[1] == (
        2,
        107,
        20,
    )  # the open is certain


def test_exits_of_an_entry_inside_a_bar() -> None:
    "The rest of that bar can stop it out, but cannot pay it."
    asked = buy(4, take=105, loss=95, **limit(99))
    assert prices(case([FLAT, (100, 110, 94, 108)], (0, asked))) == [(1, 99, 20), (3, 95, 20)]
    assert prices(case([FLAT, (100, 110, 98, 108), FLAT], (0, asked))) == [(1, 99, 20)]
    assert prices(case([FLAT, (100, 110, 98, 108), (106, 106, 106, 106)], (0, asked)))[1] == (2, 106, 20)


def test_bracket_in_parts() -> None:
    "Exits grow with the entry; what one exit fills the other gives up; with an exit the rest of the entry ends."
    rows = [FLAT, (*FLAT, 8), (*FLAT, 8), (94, 94, 94, 94, 6), (94, 94, 94, 94, 20)]
    done = case(rows, (0, buy(10, take=105, loss=95, **GTC)), participation=0.5)
    assert done.fills == [
        (1, 1, 4, 100, 10, 0),
        (1, 1, 4, 100, 20, 0),
        (1, 1, 2, 94, 30, 0),
        (3, -1, 1, 94, 30, 0),
        (3, -1, 9, 94, 40, 0),
    ]
    assert done.states(2) == [SUBMITTED, CANCELLED]
    rows = [FLAT, (100, 100, 98, 99, 8), (106, 106, 106, 106, 40), (98, 98, 98, 98)]
    done = case(rows, (0, buy(10, take=105, **limit(99))), participation=0.5)
    assert [fill[:3] for fill in done.fills] == [(1, 1, 4), (2, -1, 4)] and done.reason(1) == "group"


def test_oco() -> None:
    "One group, one fill; the other ends at the venue, whatever the bar does next."
    pair = [(0, buy(1, **stop(105), group=1)), (0, sell(1, **stop(95), group=1))]
    done = case([FLAT, (100, 110, 90, 100)], *pair)
    assert prices(done) == [(1, 105, 20)] and done.reason(2) == "group"


def test_trailing() -> None:
    asked = sell(1, kind=m.TRAILING, trail=4, **GTC)
    rise = (100, 110, 100, 107)  # its own high does not trigger it
    assert prices(case([FLAT, rise, (107, 108, 106, 106)], (0, asked)))[0][1] == 106
    assert prices(case([FLAT, rise, (105, 105, 104, 104)], (0, asked)))[0][1] == 105  # gap below 106
    assert prices(case([FLAT, (100, 103, 97, 100)], (0, asked))) == []
    assert prices(case([FLAT, (100, 103, 96, 100)], (0, asked)))[0][1] == 96
    assert (
        prices(
            case([FLAT, (100, 100, 90, 90), (94, 95, 93, 95)], (0, buy(1, kind=m.TRAILING, trail=4, **GTC)))
        )[0][1]
        == 94
    )


def test_time_in_force() -> None:
    assert case([FLAT, LAST, FLAT], (0, buy(1, kind=m.LIMIT, limit=99))).log[-1][1:4] == (
        EXPIRED,
        20,
        REASON["session"],
    )
    assert case([FLAT, LAST, FLAT, FLAT], (1, buy(1, kind=m.LIMIT, limit=99))).states(1) == [
        SUBMITTED
    ]  # of the next session
    late = case([FLAT, LAST, FIRST], (0, buy(1)), order_latency=1)
    assert prices(late) == [(1, 100, 20)]  # no bar could fill it before
    dated = buy(1, kind=m.LIMIT, limit=99, tif=m.GTD, expires=25)
    assert case([FLAT] * 4, (0, dated)).log[-1][1:4] == (EXPIRED, 25, REASON["date"])
    thin = [FLAT, (*FLAT, 10), FLAT]
    for tif, lots, end in ((m.IOC, [5], CANCELLED), (m.FOK, [], CANCELLED), (m.GTC, [5, 3], FILLED)):
        done = case(thin, (0, buy(8, tif=tif)), participation=0.5)
        assert [fill[2] for fill in done.fills] == lots and done.states(1)[-1] == end


def test_auctions() -> None:
    rows = [
        FLAT,
        (101, 103, 99, 102),
        (101, 103, 99, 102, 1e6, LAST_OF_SESSION),
        (105, 107, 103, 106, 1e6, FIRST_OF_SESSION),
    ]
    assert prices(case(rows, (0, buy(1, kind=m.ON_OPEN)))) == [(1, 105, 30)]
    assert prices(case(rows, (0, buy(1, kind=m.ON_CLOSE)))) == [(1, 102, 30)]
    assert prices(case(rows, (0, buy(1, kind=m.LIMIT_ON_CLOSE, limit=102)))) == [(1, 102, 30)]
    assert case(rows, (0, buy(1, kind=m.LIMIT_ON_CLOSE, limit=101))).reason(1) == "auction"
    assert case(rows, (0, buy(1, kind=m.LIMIT_ON_OPEN, limit=104))).reason(1) == "auction"
    assert case(rows, (0, buy(1, kind=m.ON_CLOSE)), order_latency=11).states(1) == [
        SUBMITTED
    ]  # inside the last bar


def test_post_only() -> None:
    done = case([FLAT, FLAT], (0, buy(1, **limit(100), flags=m.POST_ONLY)))
    assert (
        done.log[-1][1:4] == (REJECTED, 10, REASON["post_only"])
        and done.memory.run["stopped"][0][o.WOULD_TAKE] == 1
    )
    done = case([FLAT, FLAT, (98, 98, 98, 98)], (0, buy(1, **limit(99), flags=m.POST_ONLY)))
    assert done.fills == [(1, 1, 1, 98, 20, 1)]  # it was resting: as maker


def test_reduce_only_never_crosses_zero() -> None:
    closes = [
        sell(10, **stop(95)),
        sell(10, **limit(105)),
        sell(8, kind=m.TRAILING, trail=3, **GTC),
        sell(9, **GTC),
    ]
    for path in ((94, 110, 90, 100), (106, 110, 90, 100), (100, 110, 90, 100)):
        asked = [(1, item | {"flags": m.REDUCE_ONLY}) for item in closes]
        done = case([FLAT, FLAT, path, FLAT], (0, buy(10)), *asked)
        held = np.cumsum([side * lots for _o, side, lots, *_ in done.fills])
        assert held.min() == 0 and held[-1] == 0 and done.memory.run[0]["n_open"] == 0
    assert case([FLAT], (0, sell(1, flags=m.REDUCE_ONLY))).reason(1) == "position"


def test_target_counts_what_is_on_order_and_not_what_is_leaving() -> None:
    order = (0, buy(5, **limit(90)))
    done = case([FLAT, FLAT, FLAT], order, (1, request(m.TARGET, 8.0)))
    assert [fill[2] for fill in done.fills] == [3]
    done = case([FLAT] * 3, order, (1, request(m.CANCEL_ALL)), (1, request(m.TARGET, 0.0)), cancel_latency=3)
    assert not done.fills
    bracket = buy(5, take=120, loss=80)
    done = case([FLAT] * 4, (0, bracket), (1, request(m.TARGET, 0.0)))
    assert [fill[1] * fill[2] for fill in done.fills] == [5, -5] and done.memory.run[0]["n_open"] == 0


def test_target_weight_is_toward_zero() -> None:
    done = case([FLAT, (7, 7, 7, 7), FLAT], (1, request(m.TARGET_WEIGHT, -0.25)))
    assert [fill[1] * fill[2] for fill in done.fills] == [-int(0.25e12 / 7)]


def test_participation_is_shared_in_the_order_of_arrival() -> None:
    done = case(
        [FLAT, (*FLAT, 10)], (0, buy(3, **GTC)), (0, buy(4, **GTC)), (0, sell(5, **GTC)), participation=0.6
    )
    assert [fill[:3] for fill in done.fills] == [(1, 1, 3), (2, 1, 3)]
    assert not case([FLAT, (*FLAT, NAN)], (0, buy(3, **GTC)), participation=0.6).fills  # no volume, no fill


def test_amend_keeps_its_place_only_with_fewer_lots() -> None:
    for lots, first in ((2.0, 1), (9.0, 2), (NAN, 1)):
        asked = [(0, buy(3, **limit(99))), (0, buy(4, **limit(99))), (1, request(m.AMEND, lots, id=1))]
        done = case([FLAT, FLAT, (98, 98, 98, 98, 2)], *asked, participation=0.5)
        assert done.fills[0][0] == first
    over = case([FLAT, FLAT, FLAT], (0, buy(3, **limit(99))), (1, request(m.AMEND, 2e15, id=1)))
    assert (
        over.memory.orders[0]["lots"] == 3 and over.memory.orders[0]["amend"] == FOREVER
    )  # Guardian said no
    assert over.memory.run["stopped"][0].sum() == 1 and over.memory.assets[0]["open_buy"] == 3


def test_while_an_amend_travels_the_larger_size_counts() -> None:
    for lots, on_the_way, arrived in ((2.0, 5, 2), (9.0, 9, 9)):
        asked = [(0, buy(5, **limit(90))), (1, request(m.AMEND, lots, id=1))]
        assert case([FLAT, FLAT], *asked).memory.assets["open_buy"][0] == on_the_way
        assert case([FLAT] * 3, *asked).memory.assets["open_buy"][0] == arrived


def test_halted_assets_do_not_fill_but_let_go() -> None:
    done = Kernels(bars(FLAT, FLAT, FLAT), [[buy(1, **GTC), buy(2, **GTC)], [], []])
    play(done.memory.run, done.events[:1], done.requests, done.places, 0)
    done.memory.assets["state"] = 1
    done.places = np.array([0, 0, 0])
    done.memory.orders["cancel"][0] = done.memory.orders["due"][0] = 15
    play(done.memory.run, done.events[1:], done.requests, done.places, 0)
    assert not done.fills and done.states(1)[-1] == CANCELLED and done.states(2)[-1] == SUBMITTED


def test_same_close() -> None:
    rows = [(100, 103, 99, 102), FLAT]
    done = case(rows, (0, buy(1)), (0, buy(2, **limit(120))), same_close=1)
    assert done.fills == [(1, 1, 1, 102, 10, 0), (2, 1, 2, 100, 10, 0)]


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf, 1e300])
def test_numbers_that_are_none(bad: float) -> None:
    for what in (m.BUY, m.SELL, m.TARGET, m.SUBMIT, m.TARGET_WEIGHT):
        done = case([FLAT, FLAT], (0, request(what, bad)))
        assert done.states(1) == [REJECTED] and not done.fills
        assert done.reason(1) in ("finite", "quantity")
    for name in ("limit", "stop", "trail"):
        kind = {"limit": m.LIMIT, "stop": m.STOP, "trail": m.TRAILING}[name]
        assert case([FLAT, FLAT], (0, buy(1, kind=kind, **{name: bad}))).states(1) == [REJECTED]
    if bad == bad:
        assert case([FLAT, FLAT], (0, buy(1, take=bad))).states(1) == [REJECTED]
        assert case([FLAT, FLAT], (0, buy(1, loss=bad))).memory.run[0]["n_open"] == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": 9}, {"kind": -1}, {"tif": 5}, {"tif": -1}, {"tif": m.GTD}, {"display": NAN}, {"group": -1},
        {"kind": m.STOP, "stop": 99, "tif": m.IOC}, {"kind": m.LIMIT, "limit": 99, "tif": m.FOK, "flags": m.POST_ONLY}, {"flags": m.POST_ONLY},
    ],
)  # fmt: skip
def test_orders_that_cannot_be(bad: dict[str, Any]) -> None:
    done = case([FLAT, FLAT], (0, buy(1, **bad)))
    assert done.states(1) == [REJECTED] and done.reason(1) == "form"


def test_requests_that_point_nowhere() -> None:
    for asset in (-1, 1, 2**31 - 1, -(2**31)):
        done = case([FLAT, FLAT], (0, buy(1, asset=asset)), (0, request(m.CANCEL_ALL, asset=max(asset, 1))))
        assert done.log == [(1, REJECTED, 10, 0, 0)]
    lost = [
        (0, request(what, 1.0, id=number)) for what in (m.AMEND, m.CANCEL) for number in (-1, 0, 7, 2**62)
    ]
    assert case([FLAT], *lost, (0, request(77))).log == []
    flagged = case([FLAT, FLAT], (0, buy(1, flags=m.TRIGGERED | m.RESTING | 2**40, **limit(90))))
    assert flagged.memory.orders[0]["flags"] == m.RESTING  # set by the venue, on the bar after


def test_more_requests_than_room() -> None:
    "Slots and log grow in the middle of a hook's requests; what the table of requests cannot hold is counted as too fast."
    script = [[buy(1 + k, **limit(90), take=120, loss=80) for k in range(60)], []]
    done = Kernels(bars(FLAT, FLAT), script, size=16)
    before = play(done.memory.run, done.events, done.requests, done.places, 0)
    while before == 0:
        done.memory.grow()
        done.memory.run["requests"] = done.requests.ctypes.data
        before = ask_again(done.memory.run) - m.ENDED
        before = 0 if before else -1
    assert done.memory.run[0]["n_open"] == 180 and len(done.memory.orders) == 256
    assert [row[0] for row in done.log] == list(range(1, 61))
    assert [int(order["id"]) for order in done.memory.orders if order["id"]] == list(range(1, 61))
    memory = m.Memory(1, requests=64)
    memory.requests["what"], memory.run["n_requests"] = m.CANCEL, 70
    assert ask_again(memory.run) == m.ENDED
    assert memory.run["stopped"][0][m.CHECKS.index("rate")] == 6 and memory.run[0]["next_id"] == 71


@pytest.mark.parametrize("old", STATES)
def test_no_illegal_move(old: OrderState) -> None:
    for new in STATES:
        memory = m.Memory(1)
        memory.orders["state"][0] = STATES.index(old)
        force(memory.run, 0, STATES.index(new))
        if new in MOVES[old]:
            o.check_fault(memory)
            assert memory.orders["state"][0] == STATES.index(new) and memory.run["n_transitions"] == 1
        else:
            with refused("QB-ENG-120"):
                o.check_fault(memory)
            assert memory.orders["state"][0] == STATES.index(old) and memory.run["n_transitions"] == 0


def test_sampled_latency_is_that_of_the_seed() -> None:
    times = set()
    for seed in (1, 1, 2):
        done = case(
            [FLAT] * 2,
            (0, buy(1, **limit(90))),
            order_latency=1000,
            latency_model=1,
            latency_spread=0.3,
            random=seed,
        )
        active = int(done.memory.orders[0]["active"]) - 10
        assert active == int(1000 * (splitmix(seed)[1] / (1 - splitmix(seed)[1])) ** 0.3) and active > 0
        times.add(active)
    assert len(times) == 2


# ---- quotes and trades ---------------------------------------------------------------------------------------


def quote(i: int, bid: float, ask: float, bid_size: float = 1e6, ask_size: float = 1e6) -> Any:
    made = bar(i, bid, ask, bid_size, (bid + ask) / 2, ask_size)
    made["kind"], made["since"] = KIND_QUOTE, 10 * i + 9
    return made


def trade(i: int, price: float, size: float = 1e6, flags: int = 0) -> Any:
    made = bar(i, 0, 0, 0, price, size, flags)
    made["kind"], made["since"] = KIND_TRADE, 10 * i + 9
    return made


def ticks(events: list[Any], *asked: tuple[int, dict[str, Any]], **setup: Any) -> Kernels:
    script: list[list[dict[str, Any]]] = [[] for _ in events]
    for place, item in asked:
        script[place].append(item)
    return Kernels(np.concatenate(events), script, **setup).run()


Q0 = quote(0, 99, 101)


@pytest.mark.parametrize(
    ("asked", "events", "price", "maker"),
    [
        (buy(1), [quote(1, 99, 101)], 101, 0),  # the other side
        (sell(1), [quote(1, 99, 101)], 99, 0),
        (buy(1), [quote(1, 99, NAN), quote(2, 99, 102)], 102, 0),  # nobody offers
        (buy(1, **limit(102)), [quote(1, 99, 101)], 101, 0),  # marketable when it arrives
        (buy(1, **limit(100)), [quote(1, 99, 101), quote(2, 97, 99)], 100, 1),  # resting: its own price
        (buy(1, **limit(100)), [quote(1, 99, 101), quote(2, 98, 100)], 100, 1),  # a touch by a quote is a cross
        (buy(1, **limit(100)), [trade(1, 101), trade(2, 100)], None, 0),  # a trade at the price is not through it
        (buy(1, **limit(100)), [trade(1, 101), trade(2, 99.5)], 100, 1),
        (buy(1, **limit(102)), [trade(1, 101)], 101, 0),  # the spread is a cost, as for a market order
        (buy(1, **limit(101.2)), [trade(1, 101)], 101, 0),
        (sell(1, **limit(99)), [trade(1, 100)], 100, 0),
        (buy(1, **stop(103)), [quote(1, 99, 101), quote(2, 102, 104)], 104, 0),
        (sell(1, **stop(98)), [trade(1, 99), trade(2, 97)], 97, 0),
        (buy(1, kind=m.STOP_LIMIT, stop=103, limit=103, **GTC), [quote(1, 102, 104), quote(2, 101, 102.5)], 103, 1),
        (sell(1, kind=m.TRAILING, trail=3, **GTC), [quote(1, 99, 101), quote(2, 104, 105), quote(3, 101, 102)], 101, 0),
        (buy(1, kind=m.LIMIT, limit=100, tif=m.IOC), [quote(1, 99, 101), quote(2, 97, 99)], None, 0),
        (buy(1, kind=m.ON_CLOSE), [trade(1, 101), trade(2, 102, flags=LAST_OF_SESSION)], 102, 0),
        (buy(1, **limit(101), flags=m.POST_ONLY), [quote(1, 99, 101), quote(2, 97, 99)], None, 0),
    ],
)  # fmt: skip
def test_tick(asked: dict[str, Any], events: list[Any], price: float | None, maker: int) -> None:
    done = ticks([Q0, *events], (0, asked), spread=0.01)
    assert [(fill[3], fill[5]) for fill in done.fills] == [(price, maker)] * (price is not None)


def test_tick_arrives_after_the_order() -> None:
    for latency, number in ((8, 1), (9, 2)):  # active < since
        assert (
            ticks(
                [Q0, quote(1, 99, 101), quote(2, 99, 102)], (0, buy(1, **GTC)), order_latency=latency
            ).fills[0][4]
            == 10 * number + 9
        )


def test_tick_sizes() -> None:
    events = [Q0, quote(1, 99, 101, 7, 5), quote(2, 99, 102, 7, 5)]
    done = ticks(events, (0, buy(8, **GTC)), (0, sell(3, **GTC)), participation=0.5)
    assert [fill[:4] for fill in done.fills] == [(1, 1, 5, 101), (2, -1, 3, 99), (1, 1, 3, 102)]
    done = ticks(
        [Q0, trade(1, 100, 8), trade(2, 100, 8)], (0, buy(3, **GTC)), (0, sell(3, **GTC)), participation=0.5
    )
    assert [fill[:3] for fill in done.fills] == [
        (1, 1, 3),
        (2, -1, 1),
        (2, -1, 2),
    ]  # a trade has one size for both
    assert done.memory.used("fills")["quoted"].tolist() == [0, 0, 0]
    assert ticks(events, (0, buy(8, **GTC))).memory.used("fills")["quoted"].tolist() == [1]


def play_requests(asked: list[dict[str, Any]], lot: float = 1.0, lots: int = 0) -> m.Memory:
    "What a hook asks for of an asset at 100, of which so many lots are held; limits as in research."
    memory = m.Memory(1)
    Limits.research(1e6).onto(memory.run)
    memory.run["now"], memory.cash[0] = 10**18, 1e6
    for name in ("equity", "peak", "day_equity", "start_equity"):
        memory.run[name] = 1e6
    asset = memory.assets[0]
    asset["last"], asset["last_time"], asset["lot"], asset["lots"] = 100.0, 10**18, lot, lots
    if lots:
        memory.held[0], memory.run["n_held"], asset["held"] = 0, 1, 0
    for k, one in enumerate(asked):
        for name, value in request(**one, id=k + 1).items():
            memory.requests[k][name] = value
    memory.run["n_requests"] = len(asked)
    assert ask_again(memory.run) == m.ENDED
    return memory


@pytest.mark.parametrize("side", [1, -1])
def test_prices_beside_the_grid_go_where_they_ask_for_less(side: int) -> None:
    "A limit away from the market, a stop further off; a price on the grid keeps its bits."
    what = m.BUY if side > 0 else m.SELL
    memory = play_requests(
        [
            {
                "what": what,
                "quantity": 3.0,
                "kind": m.LIMIT,
                "limit": 100.0 - side * 0.104,
                "take": 100 + side * 1.004,
                "loss": 100 - side * 1.004,
            },
            {"what": what, "quantity": 2.0, "kind": m.STOP, "stop": 100.0 + side * 0.104},
            {"what": what, "quantity": 1.0, "kind": m.LIMIT, "limit": 98.57 if side > 0 else 101.43},
        ]
    )
    orders = {int(order["id"]): order for order in memory.orders if order["id"] > 0 and order["parent"] == 0}
    assert orders[1]["limit"] == pytest.approx(100 - side * 0.11) and orders[2]["stop"] == pytest.approx(
        100 + side * 0.11
    )
    assert orders[3]["limit"] == (98.57 if side > 0 else 101.43)
    exits = {int(order["kind"]): order for order in memory.orders if order["parent"] == 1}
    assert exits[m.LIMIT]["limit"] == pytest.approx(100 + side * 1.01)
    assert exits[m.STOP]["stop"] == pytest.approx(100 - side * 1.01)


@pytest.mark.parametrize("lot", [1e-8, 1e-9, 1e-4])
def test_a_position_of_a_billion_lots_can_be_left(lot: float) -> None:
    "The product of lots and lot misses a whole number by more than any fixed tolerance."
    memory = play_requests([{"what": m.TARGET, "quantity": 0.0}], lot=lot, lots=1_234_567_891)
    sent = memory.orders[memory.orders["id"] > 0]
    assert sent["lots"].tolist() == [1_234_567_891] and sent["side"].tolist() == [-1]


# ---- found by audit -----------------------------------------------------------------------------------------------


def test_a_stop_limit_that_was_triggered_still_ends_with_its_session() -> None:
    "Triggered on the last bar and not filled: a DAY order is not there the next day."
    asked = buy(1, kind=m.STOP_LIMIT, stop=102, limit=102)
    for row in ((101, 103, 99, 103, 1e6, LAST_OF_SESSION), (101, 103, 101, 103, 1e6, LAST_OF_SESSION)):
        done = case([FLAT, row, FIRST], (0, asked))
        assert not done.fills and done.log[-1][1:4] == (EXPIRED, 20, REASON["session"])


def test_a_trailing_stop_that_the_close_has_passed_was_hit() -> None:
    "Every path from the high to that close goes through the stop; what a later gap gives does not count."
    for side, row, price, after in (
        (-1, (100, 110, 100, 105), 106, (107, 120, 107, 120)),
        (1, (100, 100, 90, 95), 94, (93, 93, 80, 80)),
    ):
        asked = request(m.SUBMIT, float(side), kind=m.TRAILING, trail=4, **GTC)
        assert prices(case([FLAT, row, (*after[:4],)], (0, asked))) == [(1, price, 20)]


def test_a_stop_loss_beyond_its_entry_gains_nothing() -> None:
    "A stop-loss above the price of a purchase is hit at once, at that price."
    asked = buy(4, loss=103, **limit(99))
    assert prices(case([FLAT, (100, 110, 94, 108)], (0, asked))) == [(1, 99, 20), (2, 99, 20)]
    asked = sell(4, loss=97, **limit(101))
    assert prices(case([FLAT, (100, 106, 90, 92)], (0, asked))) == [(1, 101, 20), (2, 101, 20)]


def test_a_trail_keeps_the_stop_on_the_grid() -> None:
    asked = sell(1, kind=m.TRAILING, trail=3.3333, **GTC)
    assert prices(case([FLAT, FLAT, (100, 100, 90, 90)], (0, asked)))[0][1] == pytest.approx(96.66, abs=1e-9)


def test_an_amend_does_not_forget_the_one_before_it() -> None:
    "Lots, then the limit, both under way: the order has both in the end."
    asked = [
        (0, buy(5, **limit(90))),
        (1, request(m.AMEND, 2.0, id=1)),
        (1, request(m.AMEND, id=1, limit=99.0)),
    ]
    done = case([FLAT, FLAT, (98, 98, 98, 98)], *asked)
    assert done.fills == [(1, 1, 2, 98, 20, 0)]


def test_participation_is_the_part_that_was_said() -> None:
    "0.29 of 100 are 29, though the product of the floats is less."
    done = case([FLAT, (*FLAT, 100)], (0, buy(50, **GTC)), participation=0.29)
    assert done.fills[0][2] == 29


def test_a_cancel_in_the_nanosecond_of_a_tick_is_too_late() -> None:
    "As an order that arrives then is behind it."
    for latency, filled in ((8, 0), (9, 1)):
        done = ticks(
            [Q0, quote(1, 99, 101), quote(2, 97, 99)],
            (0, buy(1, **limit(100))), (1, request(m.CANCEL, id=1)), cancel_latency=latency,
        )  # fmt: skip
        assert len(done.fills) == filled


def test_an_iceberg_shows_a_lot_at_least() -> None:
    done = case([FLAT, FLAT], (0, buy(5, display=0.4, **limit(90))))
    assert done.memory.orders[0]["display"] == 1


def test_a_limit_beyond_the_bar_fills_inside_it() -> None:
    "An exit that finds two lots to sell at the open, and five more that were bought behind it, sells these at a price that the bar had."
    asked = [(0, sell(7, **stop(98))), (0, buy(9, take=95, **limit(99))), (1, buy(5, **GTC))]
    done = case([FLAT, (100, 100, 97, 98), (97, 105, 97, 105)], *asked)
    sold = [(lots, price, time) for _o, side, lots, price, time, _m in done.fills if side < 0]
    assert sold == [(7, 98, 20), (2, 97, 20), (5, 97, 30)]


def test_an_order_amended_again_while_an_amend_is_under_way_lives() -> None:
    "Between the times at which the first and the second would arrive nothing happens to it, and other news is not held up."
    asked = [
        (0, buy(5, **limit(90))),
        (1, request(m.AMEND, id=1, limit=91.0)),
        (2, request(m.AMEND, id=1, limit=92.0)),
        (2, buy(1, **limit(80))),
        (3, request(m.CANCEL, id=4)),
    ]
    done = case([FLAT] * 6 + [(91.5, 91.5, 91.5, 91.5)], *asked, cancel_latency=15)
    assert done.fills == [(1, 1, 5, 91.5, 60, 1)]
    assert done.states(1) == [SUBMITTED, FILLED] and done.states(4) == [SUBMITTED, CANCELLED]
