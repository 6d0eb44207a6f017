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

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal, read
from quantbench.core.types import Fill, OrderState
from quantbench.core.value import Money
from quantbench.engine import events as ev
from quantbench.engine.backtest import Latency, Session
from quantbench.engine.memory import (
    AMEND,
    CANCEL,
    CANCELLED,
    FILLED,
    NEVER,
    REPORT,
    SENT,
    SUBMIT,
    SUBMITTED,
    TOLD_AMENDED,
    TOLD_BACK,
    TOLD_END,
    TOLD_FILL,
    TOLD_KEPT,
)  # fmt: skip
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

    def act(self, action: Any) -> None: ...

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

    opened = closed = booked = acted = note_unresolved = lambda *_, **__: None


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


# ---- by hand: a session without anything around it ---------------------------------------------------------------


class Hand(Strategy):
    """Asks, changes it, takes it back."""

    k: int = state(0)
    bought: float = state(0.0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.k += 1
        if self.k == 1:
            market.submit(bar.asset, 100.0, "limit", limit=45.0, tif="gtc")
        elif self.k == 2:
            market.amend(1, quantity=150.0, limit=46.0)
        elif self.k == 3:
            market.cancel(1)

    def on_fill(self, fill: Any, market: Any) -> None:  # noqa: ARG002
        self.bought += fill.quantity * fill.side


class ByHand:
    """A session that is fed one bar at a time."""

    def __init__(self, lane: str) -> None:
        events = bars(np.random.default_rng(5), 12, 0)
        self.tape = Tape.from_events(events, assets_of(["A0"], "equity", "24/7"), interval="1m")
        self.session = Session(Hand(), self.tape, venue="external", lane=lane)
        self.at = 0

    def bar(self) -> list[tuple[int, int]]:
        """The next one; what has left, and of which order."""
        events = np.ascontiguousarray(self.tape.events[self.at : self.at + 1])
        self.at += 1
        status, left = self.session.feed(events), []
        while status == SENT:
            left += [(int(s["what"]), int(s["order"])) for s in self.session.sends()]
            status = self.session.go_on()
        return left

    def tell(self, what: int, **more: Any) -> None:
        row = np.zeros(1, REPORT)
        now = int(self.session.memory.run[0]["now"])
        fields = {
            "what": what,
            "order": 1,
            "side": 1,
            "time": now,
            "heard": now,
            "lots": 100,
            "price": 45.0,
            "reference": 45.0,
        }
        for name, value in (fields | more).items():
            row[name] = value
        self.session.report(row)

    @property
    def order(self) -> Any:
        found = [one for one in self.session.memory.orders if one["id"] == 1]
        return found[0] if found else None

    @property
    def lots(self) -> int:
        return int(self.session.memory.assets["lots"][0])


@pytest.fixture(params=["compiled", "interpreted"])
def hand(request: Any) -> ByHand:
    return ByHand(request.param)


def test_what_leaves_leaves_in_order(hand):
    assert [hand.bar() for _ in range(4)] == [[(SUBMIT, 1)], [(AMEND, 1)], [(CANCEL, 1)], []]


def test_nothing_more_happens_before_what_left_was_taken(hand):
    session, events = hand.session, np.ascontiguousarray(hand.tape.events)
    assert session.feed(events) == SENT
    for more in (lambda: session.feed(events[:0]), session.finish):
        with pytest.raises(QuantbenchError, match="QB-ENG-245"):
            more()
    session.sends()
    with pytest.raises(QuantbenchError, match="QB-ENG-245"):  # nor before the batch was gone through
        session.feed(events[:0])


def test_fills_and_an_end_that_were_told(hand):
    hand.bar()
    hand.tell(TOLD_FILL, lots=30, fee=1.5)
    hand.bar()
    assert hand.lots == 30 and hand.order["heard"] == 30
    assert float(hand.session.memory.cash[0]) == float(hand.session.cash[0]) - 30 * 45.0 - 1.5
    hand.tell(TOLD_END, state=CANCELLED)
    hand.bar()
    assert hand.order is None and hand.session.binding.state()["bought"] == 30.0
    hand.tell(TOLD_FILL, lots=5)  # after the end
    hand.bar()
    assert hand.lots == 35


@pytest.mark.parametrize("kind", [AMEND, CANCEL])
def test_of_an_amendment_and_a_cancel_one_may_be_refused(hand, kind):
    for _ in range(3):
        hand.bar()
    assert hand.order["amend"] != NEVER and hand.order["cancel"] != NEVER and hand.order["counted"] == 150
    hand.tell(TOLD_KEPT, kind=kind)
    hand.bar()
    assert (hand.order["amend"] == NEVER, hand.order["cancel"] == NEVER) == (kind == AMEND, kind == CANCEL)
    assert hand.order["counted"] == (100 if kind == AMEND else 150)
    assert hand.order["due"] == hand.order["cancel" if kind == AMEND else "amend"]


def test_an_amendment_that_was_told_takes_its_terms(hand):
    hand.bar()
    hand.bar()
    hand.tell(TOLD_AMENDED)
    hand.bar()
    assert (hand.order["lots"], hand.order["limit"], hand.order["amend"]) == (150, 46.0, NEVER)


@pytest.mark.parametrize("whole", [False, True], ids=["open", "over"])
def test_a_fill_that_is_taken_back(hand, whole):
    hand.bar()
    cash = float(hand.session.memory.cash[0])
    hand.tell(TOLD_FILL, lots=100 if whole else 30, fee=1.5)
    hand.bar()
    assert (hand.order is None) == whole
    hand.tell(TOLD_BACK, lots=100 if whole else 30, fee=-1.5, side=-1)
    hand.bar()
    assert hand.lots == 0 and float(hand.session.memory.cash[0]) == cash
    assert list(hand.session.memory.used("fills")["order"]) == [1, -1]
    assert whole or (hand.order["filled"], hand.order["heard"]) == (0, 0)


def test_a_fill_and_what_takes_it_back_in_one_breath(hand):
    """The news of the fill is still on its way."""
    hand.bar()
    later = int(hand.session.memory.run[0]["now"]) + 10 * MINUTE
    hand.tell(TOLD_FILL, lots=100, heard=later)
    hand.tell(TOLD_BACK, lots=100, side=-1)
    hand.bar()
    assert hand.lots == 0 and hand.session.memory.assets["pending"][0] == 0
    assert hand.session.memory.run[0]["settled"] == 2 and hand.order is None


FALSE = {
    "an order": {"order": 0}, "an asset": {"asset": 9}, "no asset": {"asset": -1}, "a side": {"side": 0}, "lots": {"lots": 0}, "a price": {"price": np.nan},
    "a fee": {"fee": np.inf},
}  # fmt: skip


@pytest.mark.parametrize("what", [TOLD_FILL, TOLD_BACK])
@pytest.mark.parametrize("wrong", FALSE)
def test_a_report_that_cannot_be_true_is_refused_whole(hand, wrong, what):
    hand.bar()
    with pytest.raises(QuantbenchError, match="QB-ENG-244"):
        hand.tell(what, **FALSE[wrong])
    with pytest.raises(QuantbenchError, match="QB-ENG-244"):
        hand.tell(TOLD_END, state=FILLED)
    hand.bar()
    assert hand.lots == 0 and hand.order["state"] == SUBMITTED


def test_a_session_with_a_venue_inside_hears_nobody():
    session = Session(Hand(), ByHand("compiled").tape)
    with pytest.raises(QuantbenchError, match="QB-ENG-244"):
        session.report(np.zeros(1, REPORT))


def test_what_is_heard_with_news_of_another_asset_is_booked_with_it(hand):
    """The order's own asset need not have an event."""
    tape = market(1, 20, "bars", acts=False)
    session = Session(Hand(), tape, venue="external", lane="compiled")
    own = tape.events[tape.events["asset"] == 0][:1]
    others = tape.events[tape.events["asset"] == 1][:2]
    hand.session, hand.tape = session, SimpleNamespace(events=np.concatenate([own, others]))
    hand.bar()
    hand.tell(TOLD_FILL, lots=30)
    hand.bar()
    assert hand.lots == 30
