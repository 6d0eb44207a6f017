"""A stand-in for the live loop: the engine fills its orders inside, and each of them goes through the real Guardian, order book and journal, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from quantbench.core.types import Order, OrderState, OrderType, Side
from quantbench.engine.backtest import Session
from quantbench.engine.memory import SUBMITTED
from quantbench.engine.study import Study
from quantbench.execution.broker import Arrival
from quantbench.execution.faulty import FaultyBroker, Truth
from quantbench.execution.paper import moment
from quantbench.execution.session import starts


def venue(seal, clock, _study):
    return FaultyBroker(seal, clock, Truth(clock, Decimal(100_000)))


class Mirror:
    """`slip` makes the venue's prices worse than the engine's; `at` is called with the number of each event."""

    def __init__(
        self, study, account, *, slip: float = 0.0, at: Callable[[int], None] = lambda _: None
    ) -> None:
        self.session = Session(study.strategy, study.tape, **study.choices)
        self.account, self.slip, self.at = account, slip, at
        self.ids: dict[int, str] = {}
        self.heard = ()
        self.orders = self.fills = self.count = 0
        for asset in study.tape.assets:
            account.guardian.learn(asset.id, volume=1e9, volatility=0.01, days=300)

    def feed(self, events: Any) -> None:
        guardian, asset = self.account.guardian, self.account.assets[0]
        for k in range(len(events)):
            self.at(self.count)
            close = float(events["close"][k])
            self.account.clock.set(moment(int(events["known"][k])))
            now = self.account.clock.now()
            guardian.note_heartbeat(now)
            guardian.note_clock(0.0)
            guardian.mark(asset.id, close, now)
            guardian.note_reconciliation(now, clean=True)
            self.session.feed(events[k : k + 1])
            self._fill()
            self._send(close, now)
            self.count += 1

    def _send(self, last: float, now: datetime) -> None:
        asset, log = self.account.assets[0], self.session.memory.used("transitions")
        for row in log[self.orders :]:
            if row["state"] == SUBMITTED and int(row["order"]) not in self.ids:
                side, quantity = Side.BUY if row["side"] > 0 else Side.SELL, asset.quantity(int(row["lots"]))
                order = Order(
                    id="x", asset=asset, side=side, quantity=quantity, time=now, type=OrderType.MARKET
                )
                placed = self.account.oms.place(order, arrival=Arrival(time=now, last=last))
                self.ids[int(row["order"])] = placed.client_id
        self.orders = len(log)

    def _fill(self) -> None:
        asset, log, truth = (
            self.account.assets[0],
            self.session.memory.used("fills"),
            self.account.broker.truth,
        )
        for row in log[self.fills :]:
            name = self.ids[int(row["order"])]
            if self.account.oms.orders[name].state is not OrderState.REJECTED:
                worse = float(row["price"]) * (1 + self.slip * int(row["side"]))
                truth.fill(name, asset.quantity(int(row["lots"])), Decimal(repr(round(worse, 12))))
                truth.told[-1] = replace(truth.told[-1], time=moment(int(row["time"])))
        self.fills = len(log)
        self.heard += self.account.oms.pump()

    def listen(self) -> None:
        self.heard += self.account.oms.pump()

    def settle(self) -> None:
        self.account.oms.cancel_all(why="the session ends")
        self.listen()

    def changes(self):
        heard, self.heard = self.heard, ()
        return heard

    def finish(self) -> None:
        self.session.finish()
        self._fill()


def mirrored(settings, wall, *, sessions: int = 0, **how: Any):
    """A floor's `begin` for KnownDrift with a weight that Guardian lets it turn around with; so many bars."""

    def admit(name: str, lake: str, as_of: str, _certificate: str):
        study = Study.of(name, lake or None, as_of).with_parameters(weight=0.25)
        tape = study.tape
        if sessions:
            tape = type(tape)(tape.assets, tape.adjustment, tape.interval, tape.notes, tape.events[:sessions])
        return study.on(tape), "", "paper"

    patient = replace(
        settings, guardian=replace(settings.guardian, max_check_seconds=1.0)
    )  # of a busy machine
    return starts(settings=patient, wall=wall, admit=admit, venue=venue, drive=partial(Mirror, **how))
