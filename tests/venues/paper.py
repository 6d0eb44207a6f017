"""The stage of the paper broker: virtual time, and a venue that is made to fill and end what the suite asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from quantbench.core.clock import SimClock
from quantbench.core.types import Order, OrderType, Side
from quantbench.engine.backtest import Latency, Setup
from quantbench.engine.events import KIND_SPLIT, KIND_TRADE, made, nanoseconds
from quantbench.engine.kernel import entry
from quantbench.engine.matching import TAKER, execute, settle
from quantbench.engine.memory import CANCELLED, EXPIRED, NEVER, REJECTED, asset_record, run_record
from quantbench.engine.orders import find_order, finish
from quantbench.engine.tape import Tape
from quantbench.execution.broker import Intent, Seal, Told
from quantbench.execution.conformance import Fault, Stage, asset
from quantbench.execution.paper import PaperBroker
from quantbench.portfolio.costs import Costs

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
FREE = Costs(spread_bps=0, slippage_bps=0, taker_bps=0, maker_bps=0, minimum=0)
ENDS = {Told.CANCELLED: CANCELLED, Told.EXPIRED: EXPIRED, Told.REJECTED: REJECTED}
SENSELESS = {
    24: "fills and cancels are one queue: nothing trades after its cancel",
    25: "a simulated market takes nothing back",
    26: "a simulated market corrects nothing",
}


@entry
def venue_fills(here: int, number: int, lots: int, price: float, now: int) -> None:
    run = run_record(here, 0)
    run.now = max(run.now, now)
    slot = find_order(run, number)
    execute(run, asset_record(run.assets, 0), slot, lots, price, now, TAKER)
    settle(run)


@entry
def venue_ends(here: int, number: int, state: int, now: int) -> None:
    run = run_record(here, 0)
    run.now = max(run.now, now)
    finish(run, find_order(run, number), state, now, 0)
    settle(run)


class PaperStage(Stage):
    faults = frozenset({Fault.STUCK})
    senseless = SENSELESS

    def __init__(self, kind: type[PaperBroker] = PaperBroker) -> None:
        self.clock, self.seal = SimClock(NOON), Seal()
        self.by_hand = 0
        first = self.tick(50.0)
        tape = Tape.from_events(first, (asset,))
        setup = Setup(costs=FREE, latency=Latency(order_seconds=0.05, cancel_seconds=0.05))
        self.adapter = kind(self.seal, self.clock, tape, setup=setup, wall=True)
        self.adapter.feed(first)
        self.clock.advance(1.0)

    def tick(self, price: float) -> Any:
        now = [nanoseconds(self.clock.now())]
        return made(KIND_TRADE, known=now, since=now, asset=0, price=price, size=1.0)

    @property
    def venue(self) -> Any:
        return self.adapter.memory

    def number(self, client_id: str) -> int:
        return self.adapter._known[client_id].number

    def play(self, fault: Fault, **_: Any) -> None:
        assert fault is Fault.STUCK
        self.venue.run["cancel_latency"] = 10**18

    def calm(self) -> None: ...

    def pass_time(self) -> None:
        self.clock.advance(0.01)

    def trade(self, client_id: str, quantity: Decimal, price: Decimal) -> str:
        here, now = self.venue.address(), nanoseconds(self.clock.now())
        venue_fills(here, self.number(client_id), asset.lots(quantity), float(price), now)
        _, executions = self.adapter.drain()
        return executions[-1]

    def undo(self, client_id: str, execution: str, quantity: Decimal | None = None) -> None:
        raise NotImplementedError(SENSELESS[25])

    def end(self, client_id: str, told: Told) -> None:
        here, now = self.venue.address(), nanoseconds(self.clock.now())
        venue_ends(here, self.number(client_id), ENDS[told], now)

    def external(self, count: int = 1) -> None:
        """Another order book sends into the same account."""
        for _ in range(count):
            self.by_hand += 1
            order = Order(
                id=f"hand-{self.by_hand}", asset=asset, side=Side.BUY, quantity=Decimal(1), time=self.now(), type=OrderType.LIMIT,
                limit_price=Decimal("40.00"),
            )  # fmt: skip
            self.adapter.submit_order(self.seal.make(Intent(order=order), "0" * 64))

    def split(self) -> None:
        now = [nanoseconds(self.clock.now())]
        self.adapter.feed(made(KIND_SPLIT, known=now, since=now, asset=0, ratio=2.0))

    def made(self, client_id: str) -> int:
        return int(client_id in self.adapter._known)

    def open(self, client_id: str) -> int:
        orders, known = self.venue.orders, self.adapter._known.get(client_id)
        alive = known is not None and (orders["id"] == known.number) & (orders["active"] != NEVER)
        return int(np.count_nonzero(alive))

    def held(self) -> Decimal:
        return asset.quantity(int(self.venue.assets["lots"][0]))

    def requests(self) -> int:
        return 0

    def dials(self) -> int:
        return 0

    def now(self) -> datetime:
        return self.clock.now()


@contextmanager
def paper(kind: type[PaperBroker] = PaperBroker) -> Iterator[PaperStage]:
    yield PaperStage(kind)
