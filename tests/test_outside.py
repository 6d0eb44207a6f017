"""Strategies nobody wrote, on markets where everything happens at once: what the paper broker does to a session is what the backtest does, in both lanes.

The order book in between keeps nothing and judges nothing, so that splits and thousands of orders fit; `test_live` has the real one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal, read
from quantbench.core.types import Fill, OrderState
from quantbench.core.value import Money
from quantbench.engine import events as ev
from quantbench.engine.backtest import Latency, Session
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, every
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.execution.book import Change
from quantbench.execution.broker import Intent, Outcome, Seal, Told
from quantbench.execution.live import Live
from quantbench.execution.oms import Oms
from quantbench.execution.paper import PaperBroker, moment
from quantbench.portfolio.costs import Costs

MINUTE = 60_000_000_000
START = 1_600_000_020_000_000_000
DEAR = Costs(
    spread_bps=2, slippage_bps=1, impact_root=0.3, taker_bps=1, maker_bps=0.2, minimum=1.0, duty_sell_bps=2
)
DELAYS = (
    Latency(),
    Latency(order_seconds=30, cancel_seconds=20, fill_seconds=70),
    Latency(order_seconds=30, cancel_seconds=20, fill_seconds=70, spread=0.4),
    Latency(order_seconds=0.5, cancel_seconds=0.1, fill_seconds=3, spread=0.2),
)


class Wild(Strategy):
    """Everything that an order of `core.types` can say, by lot; in both lanes the same."""

    seed: int = 1
    pace: int = 6
    k: int = state(0)
    newest: int = state(0)
    older: int = state(0)
    changed: int = state(0)
    timer = every("7m")

    def draw(self, n: int) -> int:
        self.k = (self.k * 1103515245 + 12345 + self.seed) % 2147483648
        return (self.k // 65536) % n

    def deal(self, asset: int, price: float, market: Any) -> None:
        what = self.draw(13)
        size = 10.0 * (1 + self.draw(9))
        if self.draw(2) == 0:
            size = -size
        toward = 0.01 * self.draw(30) if size > 0.0 else -0.01 * self.draw(30)
        made = 0
        if what == 0:
            made = market.submit(asset, size)
        elif what == 1:
            made = market.submit(asset, size, "limit", limit=price - toward, tif="gtc")
        elif what == 2:
            made = market.submit(asset, size, "stop", stop=price + toward, tif="gtc")
        elif what == 3:
            made = market.submit(asset, size, "stop_limit", stop=price + toward, limit=price + 2.0 * toward)
        elif what == 4:
            made = market.submit(asset, size, "trailing", trail=0.01 + abs(toward), tif="gtc")
        elif what == 5:
            made = market.submit(asset, size, "limit", limit=price, tif="ioc")
        elif what == 6:
            made = market.submit(asset, size, "limit", limit=price + toward, tif="fok")
        elif what == 7:
            later = market.now + 300_000_000_000
            made = market.submit(asset, size, "limit", limit=price - toward, tif="gtd", expires=later)
        elif what == 8 and self.changed != self.newest:
            self.changed = self.newest  # once: the order book of record takes one change at a time
            market.amend(self.newest, quantity=100.0 + abs(size), limit=price - toward, stop=price + toward)
        elif what == 9:
            market.cancel(self.older)
        elif what == 10:
            market.cancel_all(asset)
        elif what == 11:
            made = market.submit(asset, size, "limit", limit=price - toward, reduce_only=True)
        else:
            made = market.target(asset, size)
        if made > 0:
            self.older = self.newest
            self.newest = made

    def on_bar(self, bar: Any, market: Any) -> None:
        if self.draw(self.pace) == 0:
            self.deal(bar.asset, bar.close, market)
        if self.draw(40) == 0:
            market.submit(bar.asset, 10.0, "on_open")
            market.submit(bar.asset, -10.0, "limit_on_close", limit=bar.close)

    def on_tick(self, tick: Any, market: Any) -> None:
        if self.draw(self.pace) == 0:
            self.deal(tick.asset, tick.price, market)

    def on_fill(self, fill: Any, market: Any) -> None:
        if self.draw(3) == 0:
            self.deal(fill.asset, fill.price, market)

    def on_timer(self, market: Any) -> None:
        if self.draw(3) == 0:
            self.deal(0, market.price(0), market)


# ---- markets -----------------------------------------------------------------------------------------------------


def bars(rng: Any, count: int, asset: int) -> Any:
    n = np.arange(count)
    known = START + MINUTE * (n + 1 + (n // 390) * 1050)
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 1e-3, count))), 2)
    opens = np.round(np.r_[50.0, close[:-1]] + rng.choice([0, 0, 0.01, -0.02, 0.05], count), 2)
    high = np.maximum(opens, close) + np.round(rng.exponential(0.03, count), 2)
    low = np.minimum(opens, close) - np.round(rng.exponential(0.03, count), 2)
    flags = (n % 390 == 0) * ev.FIRST_OF_SESSION + (n % 390 == 389) * ev.LAST_OF_SESSION
    body = {"open": opens, "high": high, "low": low, "close": close}
    volume = rng.integers(0, 2000, count).astype(float)
    return ev.made(
        ev.KIND_BAR, known=known, since=known - MINUTE, asset=asset, flags=flags, volume=volume, **body
    )


def ticks(rng: Any, count: int, asset: int) -> Any:
    at = START + np.cumsum(rng.integers(0, 3, count) * rng.integers(1, 20, count) * 500_000_000)
    middle = np.round(50 * np.exp(np.cumsum(rng.normal(0, 2e-4, count))), 2)
    size, quoted, out = rng.integers(1, 500, count).astype(float), rng.random(count) < 0.6, ev.blank(count)
    head = {"known": at, "since": at}
    for chosen, kind in ((quoted, ev.KIND_QUOTE), (~quoted, ev.KIND_TRADE)):
        body = {"price": middle[chosen], "size": size[chosen]}
        if kind == ev.KIND_QUOTE:
            body |= {"bid": middle[chosen] - 0.01, "ask": middle[chosen] + 0.01, "bid_size": size[chosen]}
        here = {name: times[chosen] for name, times in head.items()}
        out[chosen] = ev.made(kind, asset=asset, **here, **body)
    ends = at[np.arange(800, count, 800)]
    return ev.merged([out, ev.made(ev.KIND_CLOSE, known=ends + 1, since=ends, asset=asset)])


def actions(rng: Any, events: Any, asset: int, *, delists: bool) -> Iterator[Any]:
    own = events[events["asset"] == asset]["known"]
    split, paid, halt = own[np.sort(rng.choice(len(own) - 20, 3, replace=False)) + 1]
    at = {"asset": asset}
    yield ev.made(ev.KIND_SPLIT, known=[split], since=[split], ratio=[2.0 if asset % 2 == 0 else 0.5], **at)
    yield ev.made(ev.KIND_DIVIDEND, known=[paid], since=[paid], amount=[0.1], **at)
    if delists:
        yield ev.made(ev.KIND_DELIST, known=[halt], since=[halt], price=[40.0], **at)
    else:
        on = own[np.searchsorted(own, halt) + 10]
        yield ev.made(ev.KIND_HALT, known=[halt], since=[halt], **at)
        yield ev.made(ev.KIND_RESUME, known=[on], since=[on], **at)


def market(seed: int, count: int, kind: str, assets: int = 2, *, acts: bool = True) -> Tape:
    rng = np.random.default_rng(seed)
    make = {"bars": [bars], "ticks": [ticks], "mixed": [bars, ticks]}[kind]
    base = ev.merged([make[a % len(make)](rng, count, a) for a in range(assets)])
    more = (
        [one for a in range(assets) for one in actions(rng, base, a, delists=a == 1 and seed % 3 == 0)]
        if acts
        else []
    )
    names = [f"A{n}" for n in range(assets)]
    return Tape.from_events(
        ev.merged([base, *more]),
        assets_of(names, "equity", "24/7"),
        interval="1m" if kind == "bars" else None,
    )


# ---- two ways ----------------------------------------------------------------------------------------------------


class Straight:
    """An order book that keeps nothing and judges nothing: what it is told it passes on."""

    halted: str | None = None

    def __init__(self, seal: Seal, broker: PaperBroker) -> None:
        self.seal, self.broker, self.intents, self.orders = seal, broker, {}, {}

    def place(
        self, order: Any, *, arrival: Any = None, reduce_only: bool = False, leaving: Any = None
    ) -> Any:
        name = f"s-{len(self.intents) + 1}"
        intent = Intent(order=replace(order, id=name), arrival=arrival, reduce_only=reduce_only)
        if leaving is not None:
            leaving()
        answer = self.broker.submit_order(self.seal.make(intent, "0"))
        self.intents[name] = intent
        state = OrderState.SUBMITTED if answer.outcome is Outcome.ACCEPTED else OrderState.REJECTED
        self.orders[name] = SimpleNamespace(intent=intent, state=state, filled=Decimal(0))
        return SimpleNamespace(client_id=name, state=state, code=None)

    def amend(self, name: str, *, quantity: Any, limit: Any, stop: Any) -> Any:
        order = replace(self.intents[name].order, quantity=quantity, limit_price=limit, stop_price=stop)
        intent = replace(self.intents[name], order=order)
        answer = self.broker.amend_order(self.seal.make(intent, "0", amends=True))
        return SimpleNamespace(code=None if answer.outcome is Outcome.ACCEPTED else "QB-BRK-009")

    def cancel(self, name: str, why: str = "") -> None:  # noqa: ARG002
        self.broker.cancel_order(name)

    def pump(self, *, later: bool = False) -> tuple[Change, ...]:  # noqa: ARG002
        return tuple(self._change(report) for report in self.broker.reports())

    def _change(self, r: Any) -> Change:
        asset, fill = self.intents[r.client_id].order.asset, None
        if r.told is Told.FILL:
            fill = Fill(
                id=r.execution, order_id=r.client_id, asset=asset, side=r.side, quantity=r.quantity, price=r.price,
                fee=Money(Decimal(0), asset.currency), time=r.time,
            )  # fmt: skip
        return Change(client_id=r.client_id, state=None, why=r.told.value, time=r.heard, fill=fill)


class Trusting:
    """A Guardian that lets everything through, sealed."""

    def __init__(self, seal: Seal) -> None:
        self.seal = seal

    def judge(self, intent: Intent) -> Any:
        return SimpleNamespace(
            intent=intent, accepted=True, code=None, hash="0" * 64, checks=(), amends=False
        )

    def judge_amend(self, _: str, resulting: Intent) -> Any:
        return SimpleNamespace(**vars(self.judge(resulting)) | {"amends": True})

    def accept(self, ruling: Any) -> Any:
        return self.seal.make(ruling.intent, ruling.hash, amends=ruling.amends)

    opened = closed = booked = note_unresolved = lambda *_, **__: None


def backtested(strategy: Any, tape: Tape, **choices: Any) -> Session:
    session = Session(strategy, tape, **choices)
    for chunk in tape.chunks():
        session.feed(chunk)
    session.finish()
    return session


def lived(
    strategy: Any, tape: Tape, pieces: int, *, folder: Path | None = None, **choices: Any
) -> tuple[Live, PaperBroker]:
    """By the paper broker; with a folder through the real order book and its journal."""
    session, seal = Session(strategy, tape, venue="external", **choices), Seal()
    clock = SimClock(moment(tape._facts.first))
    paper = PaperBroker(seal, clock, tape, setup=session.setup)
    oms: Any = Straight(seal, paper)
    journal = None
    if folder is not None:
        journal = Journal.open(folder / "orders.journal", clock=clock)
        oms = Oms(journal, Trusting(seal), paper, clock, run="lived")
    live = Live(session, oms, clock, paper=paper, journal=journal)
    for chunk in tape.chunks():
        for piece in np.array_split(chunk, pieces):
            clock.set(max(clock.now(), moment(int(piece["known"][-1]))))
            live.feed(piece)
    live.finish()
    if journal is not None:
        journal.close()
    return live, paper


def same(one: Session, other: Session) -> None:
    for name in ("fills", "transitions", "flows", "curve"):
        ours, theirs = one.memory.used(name), other.memory.used(name)
        assert len(ours) == len(theirs), name
        apart = np.flatnonzero([a.tobytes() != b.tobytes() for a, b in zip(ours, theirs, strict=True)])
        assert len(apart) == 0, (name, apart[0], ours[apart[0]], theirs[apart[0]])
    assert one.memory.cash.tobytes() == other.memory.cash.tobytes()


@pytest.fixture
def unsynced(monkeypatch):
    """What is written is not forced to the disk: durability is proved elsewhere, and takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)


# ---- proofs ------------------------------------------------------------------------------------------------------


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["bars", "ticks", "mixed"]),
    latency=st.sampled_from(DELAYS),
    lane=st.sampled_from(["compiled", "interpreted"]),
    pieces=st.sampled_from([1, 7, 200]),
    participation=st.sampled_from([0.0, 0.05]),
    pace=st.integers(2, 10),
)
def test_strategies_nobody_wrote(seed, kind, latency, lane, pieces, participation, pace):
    """Limits, stops, trailing stops, auctions, changes and cancels, timers, splits, dividends, halts, delistings, delays, partial fills."""
    tape = market(seed, 800, kind)
    costs = DEAR if kind == "bars" else Costs.us_equity()
    choices = {
        "latency": latency,
        "participation": participation,
        "costs": costs,
        "seed": seed,
        "lane": lane,
    }
    strategy = Wild(seed=seed, pace=pace)
    wanted = backtested(strategy, tape, **choices)
    live, paper = lived(strategy, tape, pieces, **choices)
    same(wanted, live.session)
    held = wanted.memory.assets["lots"] + wanted.memory.assets["pending"]
    assert (paper.memory.assets["lots"] == held).all()


@pytest.mark.usefixtures("unsynced")
def test_the_hash_of_the_decisions_is_the_same_however_the_events_were_cut(tmp_path):
    tape, seen = market(3, 1500, "bars", acts=False), []
    for pieces in (1, 9, 200):
        folder = tmp_path / str(pieces)
        folder.mkdir()
        live, _ = lived(Wild(seed=2, pace=20), tape, pieces, folder=folder, latency=DELAYS[1])
        assert len(live.session.memory.used("fills")) > 20
        seen.append(live.decisions)
        assert [r.payload["hash"] for r in read(folder / "orders.journal") if r.kind == "decision"][
            -1
        ] == live.decisions
    assert len(set(seen)) == 1
