"""Sessions through the whole order path, and the tapes and strategies that the tests of it share."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from orderdesk import Lenient, Quick

from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal
from quantbench.engine.backtest import Session, Setup
from quantbench.engine.events import (
    KIND_BAR,
    KIND_CLOSE,
    KIND_DELIST,
    KIND_DIVIDEND,
    KIND_HALT,
    KIND_QUOTE,
    KIND_RESUME,
    KIND_SPLIT,
    KIND_TRADE,
    made,
    merged,
)
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, Timer
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.execution.broker import Seal
from quantbench.execution.live import Live
from quantbench.execution.oms import Oms
from quantbench.execution.paper import PaperBroker, moment

SECOND, MINUTE, DAY = 1_000_000_000, 60_000_000_000, 86_400_000_000_000
START = 1_704_205_800_000_000_000  # a Tuesday, 14:30 UTC
LOGS = ("fills", "transitions", "curve")


# ---- markets -----------------------------------------------------------------------------------------------------


def _walk(count: int, seed: int, scale: float) -> Any:
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, scale, count)))


def minutes(count: int = 600, assets: int = 1, *, seed: int = 1, more: Any = ()) -> Tape:
    """Minute bars of a walk, and other events among them."""
    parts = list(more)
    for k in range(assets):
        close = np.round(_walk(count, 100 * seed + k, 1e-3), 2)
        opening = np.round(
            np.r_[100.0, close[:-1]] + np.random.default_rng(k).integers(-1, 2, count) * 0.01, 2
        )
        known = START + MINUTE * np.arange(1, count + 1)
        parts.append(
            made(
                KIND_BAR, known=known, since=known - MINUTE, asset=k, open=opening, close=close, high=np.maximum(opening, close) + 0.02,
                low=np.minimum(opening, close) - 0.02, volume=np.full(count, 3000.0),
            )
        )  # fmt: skip
    return Tape.from_events(
        merged(parts), assets_of([f"A{k}" for k in range(assets)], "equity", "24/7"), interval="1m"
    )


def happening(kind: int, minute: int, asset: int = 0, **body: float) -> Any:
    time = [START + minute * MINUTE + SECOND]
    return made(kind, known=time, since=time, asset=asset, **body)


def actions(count: int = 600) -> Tape:
    """Three assets that split, pay, halt, and one that is delisted."""
    more = [
        happening(KIND_SPLIT, 100, 0, ratio=2.0), happening(KIND_SPLIT, 300, 1, ratio=0.5), happening(KIND_DIVIDEND, 150, 0, amount=0.5),
        happening(KIND_DIVIDEND, 151, 1, amount=0.2), happening(KIND_HALT, 200, 2), happening(KIND_RESUME, 230, 2),
    ]  # fmt: skip
    tape = minutes(count, 3, seed=5, more=more)
    events = tape.events[~((tape.events["asset"] == 2) & (tape.events["known"] > START + 400 * MINUTE))]
    ended = merged([events, happening(KIND_DELIST, 410, 2, amount=90.0, price=90.0)])
    return Tape.from_events(ended, tape.assets, interval="1m")


RATIOS = (4.0, 0.1, 1.5, 0.05, 2.0, 1 / 3)


def companies(count: int = 400, seed: int = 0, *, raw: bool = False) -> Tape:
    """Three assets that split once or twice at times of their own, prices with them; they pay dividends, and one is delisted."""
    rng, more = np.random.default_rng(seed), []
    tape = minutes(count, 3, seed=seed + 11)
    events = tape.events.copy()
    for asset in range(3):
        for minute in rng.choice(np.arange(20, count - 30), rng.integers(1, 3), replace=False):
            ratio = RATIOS[rng.integers(len(RATIOS))]
            more.append(happening(KIND_SPLIT, int(minute), asset, ratio=ratio))
            later = (events["asset"] == asset) & (events["known"] > START + minute * MINUTE + SECOND)
            for field in () if raw else ("open", "high", "low", "close"):
                events[field][later] = np.maximum(np.round(events[field][later] / ratio, 2), 0.01)
        more.append(happening(KIND_DIVIDEND, int(rng.integers(10, count)), asset, amount=0.25))
    ends = int(rng.integers(count // 2, count))
    keep = (events["asset"] != 2) | (events["known"] <= START + ends * MINUTE)
    split = [one for one in more if one["asset"][0] != 2 or one["known"][0] < START + ends * MINUTE]
    ended = happening(KIND_DELIST, ends + 1, 2, amount=70.0, price=70.0)
    return Tape.from_events(merged([events[keep], *split, ended]), tape.assets, interval="1m")


def days(count: int = 60, assets: int = 2) -> Tape:
    """Daily bars of the exchange's sessions, split and dividend included: what opens and closes is known here."""
    parts = []
    for k in range(assets):
        known = START + DAY * np.arange(1, count + 1)
        close = np.round(_walk(count, 7 + k, 1e-2), 2)
        opening = np.round(np.r_[100.0, close[:-1]] * 1.001, 2)
        parts.append(
            made(
                KIND_BAR, known=known, since=known - 6 * 60 * MINUTE, asset=k, open=opening, close=close, volume=np.full(count, 9e5),
                high=np.maximum(opening, close) + 0.5, low=np.minimum(opening, close) - 0.5,
            )
        )  # fmt: skip
    names = [f"A{k}" for k in range(assets)]
    return Tape.from_events(merged(parts), assets_of(names, "equity", "24/7"), interval="1d")


def ticks(count: int = 4000, assets: int = 2, *, seed: int = 3) -> Tape:
    """Quotes and trades of some assets, some at the same nanosecond, and the close of each day."""
    rng = np.random.default_rng(seed)
    known = START + np.sort(rng.integers(0, count // 4, count)) * SECOND
    since = known - rng.integers(0, 2, count) * 1_000_000
    asset = rng.integers(0, assets, count)
    price = np.round(_walk(count, seed, 2e-4), 2)
    quoted = rng.random(count) < 0.5
    bid, ask = np.round(price - 0.01, 2), np.round(price + 0.01, 2)
    parts = [
        made(KIND_TRADE, known=known[~quoted], since=since[~quoted], asset=asset[~quoted], price=price[~quoted], size=np.full((~quoted).sum(), 200.0)),
        made(
            KIND_QUOTE, known=known[quoted], since=since[quoted], asset=asset[quoted], price=price[quoted], size=np.full(quoted.sum(), 300.0),
            bid=bid[quoted], ask=ask[quoted], bid_size=np.full(quoted.sum(), 300.0),
        ),
    ]  # fmt: skip
    for k in range(assets):
        ends = np.unique(known[::500])
        parts.append(made(KIND_CLOSE, known=ends, since=ends, asset=k))
    return Tape.from_events(merged(parts), assets_of([f"A{k}" for k in range(assets)], "equity", "24/7"))


# ---- a strategy that asks for everything ------------------------------------------------------------------------------


class Anything(Strategy):
    """Draws its requests, of every kind that an external venue takes."""

    seed: int = 7
    often: int = 3  # one event in so many
    drawn: int = state(0)
    calls: int = state(0)
    newest: int = state(0)
    timer = Timer(every=17 * MINUTE)

    def draw(self, below: int) -> int:
        self.drawn = (self.drawn * 1103515245 + 12345 + self.seed) % 2147483648
        return (self.drawn // 65536) % below

    def ask(self, asset: int, last: float, market: Any) -> None:
        what = self.draw(20)
        size = float(1 + self.draw(40))
        near = last * (1.0 + 0.0005 * float(self.draw(9) - 4))
        side = float(1 - 2 * self.draw(2))
        if market.position(asset) * side > 200.0:
            side = -side
        if what == 0:
            self.newest = market.submit(asset, size * side)
        elif what == 1:
            market.target(asset, size * side)
        elif what == 2:
            market.target_weight(asset, 0.001 * size * side)
        elif what == 3:
            self.newest = market.submit(asset, size * side, kind="limit", limit=near, tif="gtc")
        elif what == 4:
            self.newest = market.submit(asset, size * side, kind="limit", limit=near, tif="day")
        elif what == 5:
            self.newest = market.submit(asset, size * side, kind="limit", limit=near, tif="ioc")
        elif what == 6:
            self.newest = market.submit(asset, size * side, kind="limit", limit=near, tif="fok")
        elif what == 7:
            self.newest = market.submit(
                asset, size * side, kind="limit", limit=near, tif="gtd", expires=market.now + 240000000000
            )
        elif what == 8:
            self.newest = market.submit(asset, size * side, kind="stop", stop=last + side * 0.07, tif="gtc")
        elif what == 9:
            self.newest = market.submit(
                asset,
                size * side,
                kind="stop_limit",
                stop=last + side * 0.05,
                limit=last + side * 0.2,
                tif="gtc",
            )
        elif what == 10:
            self.newest = market.submit(asset, size * side, kind="trailing", trail=0.15, tif="gtc")
        elif what == 11:
            self.newest = market.submit(asset, size * side, kind="on_open")
        elif what == 12:
            self.newest = market.submit(asset, size * side, kind="on_close")
        elif what == 13:
            self.newest = market.submit(asset, size * side, kind="limit_on_open", limit=near)
        elif what == 14:
            self.newest = market.submit(asset, size * side, kind="limit_on_close", limit=near)
        elif what == 15:
            market.submit(
                asset, -market.position(asset) if market.position(asset) != 0.0 else 1.0, reduce_only=True
            )
        elif what == 16:
            market.amend(self.newest, quantity=40.0 + size, limit=near, stop=last + side * 0.03)
        elif what == 17:
            market.amend(self.newest, limit=near)
        elif what == 18:
            market.cancel(self.newest)
        else:
            market.cancel_all(asset)

    def on_bar(self, bar: Any, market: Any) -> None:
        if self.draw(self.often) == 0:
            self.ask(bar.asset, bar.close, market)

    def on_tick(self, tick: Any, market: Any) -> None:
        if self.draw(self.often) == 0:
            self.ask(tick.asset, tick.price, market)

    def on_timer(self, market: Any) -> None:
        self.calls += 1
        if market.price(0) > 0.0:
            self.ask(0, market.price(0), market)

    def on_fill(self, fill: Any, market: Any) -> None:
        self.calls += 1
        if self.draw(5) == 0:
            market.target(fill.asset, 0.0)


class Rebalances(Strategy):
    """Nothing rests: what an action on the tape changes is a position."""

    drawn: int = state(1)
    seen: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.drawn = (self.drawn * 1103515245 + 12345) % 2147483648
        self.seen += 1
        if self.drawn // 65536 % 5 == 0 and 10 < self.seen % 150 < 140:  # nothing is under way at a split
            market.target(bar.asset, float(self.drawn // 65536 % 60 - 20))


# ---- runs ---------------------------------------------------------------------------------------------------------


def logs_of(session: Session) -> dict[str, bytes]:
    return {name: session.memory.used(name).tobytes() for name in LOGS}


def simulated(strategy: Any, tape: Tape, **choices: Any) -> Session:
    session = Session(strategy, tape, **choices)
    for chunk in tape.chunks():
        session.feed(chunk)
    session.finish()
    return session


class Paper:
    """A session on paper: journal, order book of record, simulated venue, and the loop around them."""

    def __init__(
        self, strategy: Any, tape: Tape, folder: Path, *, disk: Any = None, wall: bool = False, **choices: Any
    ) -> None:
        self.tape, self.clock, self.seal = tape, SimClock(moment(int(tape.events["known"][0]))), Seal()
        self.journal = Journal.open(folder / "orders.journal", clock=self.clock, disk=disk or Quick())
        self.guardian = Lenient(self.seal)
        self.broker = PaperBroker(self.seal, self.clock, tape, setup=Setup(**choices), wall=wall)
        self.oms = Oms(self.journal, self.guardian, self.broker, self.clock, run="lived")
        session = Session(strategy, tape, venue="external", **choices)
        self.live = Live(session, self.oms, self.clock, paper=self.broker)
        self.session = session

    def feed(self, events: Any) -> None:
        self.clock.set(max(self.clock.now(), moment(int(events["known"][-1]))))
        self.live.feed(events)

    def play(self, cuts: Any) -> Paper:
        for piece in np.split(np.asarray(self.tape.events), np.sort(np.asarray(cuts, np.int64))):
            if len(piece):
                self.feed(np.ascontiguousarray(piece))
        self.live.finish()
        return self


def lived(strategy: Any, tape: Tape, *, cuts: Any = (), **choices: Any) -> Paper:
    with TemporaryDirectory() as folder:
        paper = Paper(strategy, tape, Path(folder), **choices).play(cuts)
        paper.journal.close()
    return paper
