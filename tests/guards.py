"""An account with a Guardian for which everything is as it should be, and words to make one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from quantbench.core.clock import SimClock
from quantbench.core.settings import Guardian as Settings
from quantbench.core.types import Asset, AssetClass, Fill, Order, OrderType, Side, Venue
from quantbench.core.value import Currency, Money
from quantbench.engine.guardian import Limits
from quantbench.execution.broker import Arrival, BrokerAccount, Intent, Seal
from quantbench.execution.guard import Guardian, Ruling
from quantbench.risk.kill import Kill
from quantbench.risk.limits import Stage
from quantbench.risk.rules import Mode, Permit, Rules

USD = Currency("USD")
NOON = datetime(2026, 7, 1, 16, tzinfo=UTC)  # 12:00 in New York, a Wednesday
CASH = Decimal(100_000)
STAGE = Stage(
    name="scale", strategy="drift", capital_fraction=1.0, promoted=("code", "config"), running=("code", "config"),
    expires=NOON + timedelta(days=100), holdout_reads=1, evidence=("verdict",),
)  # fmt: skip
RULES = Rules(account="U1", broker="test", permits=(Permit("*", ("*",), "U1"),))
WIDE = replace(
    Limits.research(100_000.0), credit_fraction=0.0, max_price_age_seconds=5.0, duplicate_window_seconds=1.0
)


def share(name: str, **more: Any) -> Asset:
    fields = {"asset_class": AssetClass.EQUITY, "venue": Venue("XNAS", "XNYS"), "currency": USD}
    return Asset(id=name, **(fields | {"tick_size": Decimal("0.01"), "lot_size": Decimal(1)} | more))


AAPL, MSFT, JPM = share("AAPL"), share("MSFT"), share("JPM")


class Desk:
    "Guardian of the account U1 with 100,000, three assets at 100, live rules, a promoted strategy, wide limits."

    def __init__(
        self, folder: Path, *, limits: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None, stage: Mapping[str, Any] | bool | None = None, assets: tuple[Asset, ...] = (AAPL, MSFT, JPM),
        sectors: Mapping[str, str] | None = None, at: datetime = NOON, price: float = 100.0, told: bool = True, base: str | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.clock, self.seal, self.assets = folder, SimClock(at), Seal(), assets
        self.written: list[tuple[str, Mapping[str, Any]]] = []
        self.stage: Stage | None = None if stage is False else replace(STAGE, **(stage or {}))  # type: ignore[arg-type]
        self.named = isinstance(stage, Mapping) and "strategy" in stage
        self.kill = Kill(folder / "KILL", self.clock, account="U1")
        chosen = {"max_check_seconds": 1.0} | dict(settings or {})
        self.guardian = Guardian(
            assets, replace(WIDE, **(limits or {})), Settings(**chosen), clock=self.clock, rules=replace(RULES, **(rules or {})),
            kill=self.kill, seal=self.seal, stage_of=self.stage_of, sectors=sectors, journals=folder, base=base,
            append=lambda kind, payload: self.written.append((kind, payload)),
        )  # fmt: skip
        self.count = 0
        if told:
            self.tell(price)

    def stage_of(self, intent: Intent) -> Stage | None:
        "Every strategy was promoted, unless the desk says which."
        own = self.stage is None or self.named
        return (
            self.stage
            if own or self.stage is None
            else replace(self.stage, strategy=intent.order.strategy or "")
        )

    def tell(self, price: float = 100.0) -> None:
        "Everything that must be known is."
        self.account()
        self.guardian.note_reconciliation(self.clock.now(), clean=True)
        self.guardian.note_clock(0.0)
        for asset in self.assets:
            self.guardian.learn(asset.id, volume=1e6, volatility=0.02, days=300)
        self.hear(price)

    def account(self, cash: Decimal = CASH, **more: Any) -> None:
        fields = {"id": "U1", "currency": "USD", "cash": cash, "equity": cash, "buying_power": cash * 4}
        self.guardian.note_account(BrokerAccount(**(fields | {"time": self.clock.now()} | more)))

    def hear(self, price: float = 100.0) -> None:
        self.guardian.note_heartbeat(self.clock.now())
        for asset in self.assets:
            self.guardian.mark(asset.id, price, self.clock.now(), bid=price - 0.01, ask=price + 0.01)

    def wait(self, seconds: float, price: float = 100.0) -> None:
        self.clock.advance(seconds)
        self.guardian.note_reconciliation(self.clock.now(), clean=True)
        self.guardian.note_clock(0.0)
        self.hear(price)

    def intent(
        self, quantity: Any = 10, side: Side = Side.BUY, limit: Any = "99.00", *, asset: Asset = AAPL, name: str = "", strategy: str = "drift",
        stop: Any = None, arrival: Any = True, parent: str | None = None, reduce_only: bool = False, **more: Any,
    ) -> Intent:  # fmt: skip
        self.count += 1
        kinds = {
            (False, False): OrderType.MARKET,
            (True, False): OrderType.LIMIT,
            (False, True): OrderType.STOP,
            (True, True): OrderType.STOP_LIMIT,
        }
        kind = kinds[limit is not None, stop is not None]
        fields: dict[str, Any] = {
            "id": name or f"drift-{self.count}", "asset": asset, "side": side, "quantity": Decimal(str(quantity)), "time": self.clock.now(),
            "type": kind, "limit_price": None if limit is None else Decimal(limit), "stop_price": None if stop is None else Decimal(stop),
            "strategy": strategy,
        }  # fmt: skip
        if arrival is True:
            arrival = Arrival(time=self.clock.now(), last=100.0, bid=99.99, ask=100.01)
        return Intent(order=Order(**(fields | more)), arrival=arrival, parent=parent, reduce_only=reduce_only)

    def ask(self, *words: Any, **more: Any) -> Ruling:
        return self.guardian.judge(self.intent(*words, **more))

    def sure(self, *words: Any, **more: Any) -> Intent:
        "An order that is accepted."
        intent = self.intent(*words, **more)
        ruling = self.guardian.judge(intent)
        assert ruling.accepted, ruling.failed
        return intent

    def fill(
        self,
        order: Order,
        quantity: Any = None,
        price: Any = "100",
        *,
        side: Side | None = None,
        name: str = "",
    ) -> Fill:
        self.count += 1
        return Fill(
            id=name or f"e{self.count}", order_id=order.id, asset=order.asset, side=side or order.side, price=Decimal(price),
            quantity=order.quantity if quantity is None else Decimal(quantity), fee=Money(Decimal(0), USD), time=self.clock.now(),
        )  # fmt: skip

    def hold(self, quantity: int, asset: Asset = AAPL, price: float = 100.0) -> None:
        self.guardian.adopt(asset.id, Decimal(quantity), price)


def verdict(ruling: Ruling, name: str) -> str:
    return next(check.verdict for check in ruling.checks if check.control == name)


Make = Callable[..., Desk]
SIMULATED = {"mode": Mode.SIMULATED, "queued": True}
