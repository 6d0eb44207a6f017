"""Stages of the conformance suite: an adapter in front of a venue of ours, and how that venue plays each fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from quantbench.core.clock import WallClock
from quantbench.core.settings import Broker
from quantbench.execution.alpaca import AlpacaBroker
from quantbench.execution.broker import Seal, Told
from quantbench.execution.conformance import Fault, Stage, asset
from venues.alpaca import KEY, SECRET, LocalAlpaca, Server, changed, unreadable

ANSWERS = {
    Fault.LOST: ("lost", {}),
    Fault.LATE: ("late", {}),
    Fault.ERROR_500: ("error", {"status": 500}),
    Fault.ERROR_502: ("error", {"status": 502}),
    Fault.ERROR_504: ("error", {"status": 504}),
    Fault.GARBAGE: ("garbage", {}),
    Fault.SHORT: ("cut", {}),
    Fault.NOT_DONE: ("early", {}),
    Fault.BUSY: ("busy", {"seconds": 1}),
    Fault.REFUSE: ("refuse", {"words": f"insufficient buying power for {KEY}"}),
    Fault.PROXY: ("proxy", {}),
    Fault.DUMB: ("lost", {}),
}


def wide(digits: str) -> Callable[[str | None], str | None]:
    """A number as text with twenty decimals."""
    return lambda text: text and format(Decimal(text), ".19f") + digits


def in_new_york(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone(ZoneInfo("America/New_York"))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f123") + moment.strftime("%z")[:3] + ":00"


FRAMES = {
    Fault.MALFORMED: unreadable,
    Fault.NEW_WORD: changed(event="vaporised"),
    Fault.NEW_FIELD: changed(mood="curious", order=lambda order: order | {"aura": {"a": [1]}}),
    Fault.WIDE: changed(qty=wide("0"), price=wide("0")),
    Fault.TOO_WIDE: changed(qty=wide("1")),
    Fault.WRONG_SYMBOL: changed(order=lambda order: order | {"symbol": "MSFT"}),
    Fault.NO_EXECUTION: changed(execution_id=None),
    Fault.OTHER_ZONE: changed(timestamp=in_new_york),
}


class AlpacaStage(Stage):
    """AlpacaBroker over real sockets, fifty times faster than in life."""

    faults = frozenset(Fault)
    secrets = (KEY, SECRET)
    patience = 2500

    def __init__(self, adapter: Any, venue: LocalAlpaca, seal: Seal, clock: WallClock) -> None:
        self.adapter, self.venue, self.seal, self.clock = adapter, venue, seal, clock

    def play(self, fault: Fault, *, at: str = "submit", times: int = 1) -> None:
        venue = self.venue
        if fault in ANSWERS:
            kind, detail = ANSWERS[fault]
            return venue.fail(kind, at=at, times=times, **detail)
        if fault in FRAMES:
            venue.mangle = FRAMES[fault]
            return None
        plays: dict[Fault, Callable[[], Any]] = {
            Fault.DUPLICATE_403: lambda: setattr(venue, "duplicate_status", 403),
            Fault.REPEAT: lambda: setattr(venue, "repeats", 3),
            Fault.RENAME: lambda: setattr(venue, "retell", True),
            Fault.HOLD: lambda: setattr(venue, "holding", True),
            Fault.DROP: lambda: setattr(venue, "losses", 1.0),
            Fault.CUT: self.cut,
            Fault.MUTE: lambda: setattr(venue, "mute", True),
            Fault.CLOSED: lambda: setattr(venue, "refusals", 10**6),
            Fault.EXPIRED: lambda: setattr(venue, "expired", True),
            Fault.VANISH: lambda: venue.vanished.update(o["client_order_id"] for o in venue.orders.values()),
            Fault.STUCK: lambda: setattr(venue, "stuck_cancels", True),
            Fault.SKEW: lambda: setattr(venue, "skew", timedelta(seconds=7)),
        }
        return plays[fault]()

    def cut(self) -> None:
        with self.venue.lock:
            self.venue.refusals += 1
            self.venue.drop_lines()

    def calm(self) -> None:
        self.venue.calm()
        self.venue.release(lambda frames: frames[::-1])

    def pass_time(self) -> None:
        self.clock.sleep(0.002)

    def trade(self, client_id: str, quantity: Decimal, price: Decimal) -> str:
        return self.venue.trade(client_id, quantity, price)

    def undo(self, client_id: str, execution: str, quantity: Decimal | None = None) -> None:
        past = next(a for a in self.venue.activities if a["id"].endswith(execution))
        kind = "trade_bust" if quantity is None else "trade_correct"
        price = Decimal(past["price"])
        self.venue.amended(client_id, kind, execution, quantity or Decimal(past["qty"]), price)

    def end(self, client_id: str, told: Told) -> None:
        words = {Told.CANCELLED: "canceled", Told.EXPIRED: "expired", Told.REJECTED: "rejected"}
        self.venue.close(client_id, words[told])

    def external(self, count: int = 1) -> None:
        for _ in range(count):
            self.venue.external("MSFT", Decimal(1), Decimal(400))

    def split(self) -> None:
        self.venue.split(asset.id, Decimal(2))

    def made(self, client_id: str) -> int:
        return sum(o["client_order_id"] == client_id for o in [*self.venue.orders.values()])

    def open(self, client_id: str) -> int:
        return self.venue.alive(client_id)

    def held(self) -> Decimal:
        return self.venue.positions.get(asset.id, Decimal(0))

    def requests(self) -> int:
        return len(self.venue.seen)

    def dials(self) -> int:
        return self.venue.dials

    def now(self) -> datetime:
        return self.clock.now()


@contextmanager
def alpaca(kind: type[AlpacaBroker] = AlpacaBroker, **how: Any) -> Iterator[AlpacaStage]:
    """A venue, and an adapter connected to it."""
    os.environ.update(APCA_API_KEY_ID=KEY, APCA_API_SECRET_KEY=SECRET)
    clock, seal = WallClock(), Seal()
    venue = LocalAlpaca(clock)
    with Server(venue) as server:
        settings = Broker(name="alpaca", endpoint=server.address, timeout_seconds=0.25)
        broker = kind(settings, seal, clock, **{"pulse": 0.1, "sweep": 0.3} | how)
        broker.connect()
        stage = AlpacaStage(broker, venue, seal, clock)
        try:
            for _ in range(stage.patience):
                if broker.ready:
                    break
                stage.pass_time()
            assert broker.ready, broker.trouble
            yield stage
        finally:
            broker.close()
