"""A desk for the tests of the order path: a venue with exact books, a broker that can be scripted, a journal, an order book."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from quantbench.core.clock import SimClock
from quantbench.core.journal import Disk, Journal
from quantbench.core.types import Asset, AssetClass, Order, OrderType, Side, Venue
from quantbench.core.value import Currency
from quantbench.execution.broker import Arrival, Intent, Report, Seal, Told
from quantbench.execution.faulty import FaultyBroker, Truth
from quantbench.execution.oms import Oms, Placed

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
USD = Currency("USD", 2)
SHARE = Asset(
    id="AAPL", asset_class=AssetClass.EQUITY, venue=Venue("XNAS", "24/7"), currency=USD, tick_size=Decimal("0.01"), lot_size=Decimal(1)
)  # fmt: skip


class Quick(Disk):
    """No sync: what is tested is not the disk."""

    def sync(self, file: int) -> None: ...

    def sync_directory(self, directory: Path) -> None: ...


@dataclass
class Ruling:
    intent: Intent
    accepted: bool = True
    amends: bool = False
    code: str | None = None
    hash: str = "0" * 64
    checks: tuple[tuple[str, str, str], ...] = ()


class Lenient:
    """A Guardian that refuses what it is told to, and remembers what it is told."""

    def __init__(self, seal: Seal) -> None:
        self.seal, self.open, self.fills, self.doubts, self.refuses = seal, set[str](), [], 0, False
        self.actions: list[Any] = []

    def judge(self, intent: Intent) -> Ruling:
        return Ruling(intent, not self.refuses, code="G01" if self.refuses else None)

    def judge_amend(self, _: str, resulting: Intent) -> Ruling:
        return Ruling(resulting, not self.refuses, True, "G35" if self.refuses else None)

    def accept(self, ruling: Ruling) -> Any:
        return self.seal.make(ruling.intent, ruling.hash, amends=ruling.amends)

    def opened(self, intent: Intent, **_: Any) -> None:
        self.open.add(intent.client_id)

    def closed(self, client_id: str) -> None:
        self.open.discard(client_id)

    def acted(self, action: Any) -> None:
        self.actions.append(action)

    def booked(self, fill: Any) -> None:
        self.fills.append(fill)

    def note_unresolved(self, count: int, _: Any) -> None:
        self.doubts = count


class Desk:
    """One account; `restart` is what a crash leads to."""

    def __init__(self, folder: Path, disk: Disk | None = None, **broker: Any) -> None:
        self.folder, self.disk = folder, disk or Quick()
        self.clock, self.seal = SimClock(NOON), Seal()
        self.truth = Truth(self.clock)
        self.broker = FaultyBroker(self.seal, self.clock, self.truth, **broker)
        self.start()

    def start(self) -> None:
        self.journal = Journal.open(self.folder / "orders.journal", clock=self.clock, disk=self.disk)
        self.guardian = Lenient(self.seal)
        self.oms = Oms(self.journal, self.guardian, self.broker, self.clock, run="desk", assets=[SHARE])

    def restart(self) -> None:
        self.journal.close()
        self.start()

    def buy(self, quantity: int, side: Side = Side.BUY, limit: str | None = "180.00", **more: Any) -> Placed:
        kind = OrderType.MARKET if limit is None else OrderType.LIMIT
        order = Order(
            id="any", asset=SHARE, side=side, quantity=Decimal(quantity), time=self.clock.now(), type=kind,
            limit_price=None if limit is None else Decimal(limit),
        )  # fmt: skip
        return self.oms.place(order, arrival=Arrival(time=self.clock.now(), last=180.0), **more)

    def wait(self, seconds: float = 60.0, steps: int = 8) -> None:
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.oms.pump()

    def submits(self) -> list[str]:
        return [name for call, name in self.broker.calls if call == "submit"]

    def agree(self) -> None:
        """Order book and venue say the same, to the cent."""
        assert dict(self.oms.positions) == self.truth.positions
        assert self.oms.cash.get("USD", Decimal(0)) == self.truth.cash
        for name, held in self.truth.orders.items():
            assert held.times == 1, f"{name} is at the venue {held.times} times"
            assert self.oms.orders[name].filled == held.filled


def fill(
    name: str, quantity: int, price: str, execution: str, filled: int | None = None, **more: Any
) -> Report:
    """A report by hand."""
    return Report(
        told=Told.FILL, client_id=name, time=NOON, heard=NOON, symbol="AAPL", execution=execution, quantity=Decimal(quantity),
        price=Decimal(price), fee=Decimal(0), filled=None if filled is None else Decimal(filled), **more,
    )  # fmt: skip
