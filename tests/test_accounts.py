"""Runs with shorts, flips, partial fills, splits, dividends, a delisting, multipliers and two currencies: every table tells what the curve tells."""

from __future__ import annotations

import gc
import os
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import close, refused
from quantbench.core.types import Currency
from quantbench.engine import result as results
from quantbench.engine.backtest import Latency, backtest
from quantbench.engine.events import (
    KIND_BAR,
    KIND_DELIST,
    KIND_DIVIDEND,
    KIND_RATE,
    KIND_SPLIT,
    made,
    merged,
)
from quantbench.engine.explore import explore
from quantbench.engine.ledger import tax_lots
from quantbench.engine.memory import FLOW_BORROW, NEVER
from quantbench.engine.metrics import odds
from quantbench.engine.result import Result
from quantbench.engine.sessions import spec
from quantbench.engine.strategy import Strategy
from quantbench.engine.sweep import sweep
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.portfolio.costs import Costs

DAY = 86_400_000_000_000
HOUR = DAY // 24
FIRST = 18_262  # 2020-01-01
COSTS = Costs(taker_bps=2.0, spread_bps=5.0, minimum=1.5, borrow_bps=50.0, impact_root=0.5, duty_buy_bps=3.0)  # fmt: skip


class Restless(Strategy):
    """Targets, limit orders and market orders of both sides, drawn from the day and the asset."""

    size: float = 900.0

    def on_bar(self, bar: Any, market: Any) -> None:
        rng = np.random.default_rng((int(bar.known) // DAY, int(bar.asset)))
        chance, quantity = rng.random(), float(int(rng.integers(-self.size, self.size)))
        if chance < 0.25:
            market.target(bar.asset, quantity)
        elif chance < 0.5 and quantity > 0:
            market.buy(bar.asset, quantity, limit=round(bar.close * (1 + rng.normal(0, 0.01)), 2), tif="gtc")
        elif chance < 0.5 and quantity < 0:
            market.sell(bar.asset, -quantity)


def bars(asset: int, days: int, price: float, splits: dict[int, float]) -> Any:
    rng = np.random.default_rng(asset)
    units = np.cumprod([splits.get(day, 1.0) for day in range(days)])
    whole = price * np.exp(np.cumsum(rng.normal(0, 0.02, days)))
    closes = np.round(whole / units, 2)
    opens = np.round(np.r_[price, whole[:-1]] * np.exp(rng.normal(0, 0.01, days)) / units, 2)
    known = (np.arange(days) + FIRST) * DAY + 21 * HOUR
    body = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes)}
    volume = np.full(days, 5000.0)
    return made(KIND_BAR, known=known, since=known - 6 * HOUR, asset=asset, **body, close=closes, volume=volume)  # fmt: skip


def action(kind: int, asset: int, day: int, **body: float) -> Any:
    time = [(FIRST + day) * DAY + (21 if kind == KIND_RATE else 10) * HOUR]
    return made(kind, known=time, since=time, asset=asset, **body)


@cache
def tape(*marks: str, days: int = 250) -> Tape:
    splits = ({60: 3.0}, {90: 0.1}, {}) if "splits" in marks else ({}, {}, {})
    parts = [
        bars(asset, days if asset < 2 or "delisting" not in marks else 120, price, splits[asset])
        for asset, price in enumerate((100.0, 40.0, 20.0))
    ]
    parts += [
        action(KIND_SPLIT, asset, day, ratio=ratio)
        for asset, of in enumerate(splits)
        for day, ratio in of.items()
    ]
    if "dividends" in marks:
        paid = ((0, 150, 0.4), (1, 40, 0.7), (2, 100, 0.3))
        parts += [action(KIND_DIVIDEND, asset, day, amount=amount) for asset, day, amount in paid]
    if "delisting" in marks:
        parts.append(action(KIND_DELIST, 2, 122, price=12.0))
    if "currencies" in marks:
        path = 1.1 * np.exp(np.cumsum(np.random.default_rng(9).normal(0, 0.01, days)))
        parts += [action(KIND_RATE, 1, day, price=rate) for day, rate in enumerate(path.tolist())]
    euro = Currency("EUR" if "currencies" in marks else "USD")
    assets = (
        spec("A", calendar="24/7"),
        spec("B", calendar="24/7", currency=euro),
        spec("C", calendar="24/7", multiplier=Decimal(10 if "multiplier" in marks else 1)),
    )
    return Tape.from_events(merged(parts), assets, interval="1d", adjustment="raw")


def play(*marks: str, **more: Any) -> Result:
    choices = {"cash": 1e6, "costs": COSTS, "margin": 0.2, "participation": 0.05} | more
    return backtest(Restless, tape(*marks), **choices)


RUNS = {
    "plain": (),
    "multiplier": ("multiplier",),
    "splits": ("splits", "dividends", "multiplier"),
    "delisting": ("dividends", "delisting"),
    "currencies": ("currencies", "splits", "dividends"),
}
TWO = {"USD": 1e6, "EUR": 5e5}


@cache
def run(name: str) -> Result:
    return play(*RUNS[name], cash=TWO if name == "currencies" else 1e6)


@pytest.mark.parametrize("name", RUNS)
def test_the_runs_are_worth_a_judgement(name: str) -> None:
    """Shorts, flips, partial fills, makers and minimum fees are in them."""
    fills = run(name).logs.fills
    held = run(name).positions.df["quantity"].to_numpy()
    assert len(fills) > 300 and (held > 0).any() and (held < 0).any() and fills["maker"].any()
    assert np.unique(fills["order"]).size < len(fills) and (fills["fee"] == 1.5).any()


@pytest.mark.parametrize("name", RUNS)
def test_every_referee_agrees_or_says_why_it_cannot_judge(name: str) -> None:
    found = run(name).check()
    assert found["loop"] < 1e-12
    assert ("vectorbt" in found) == (name in ("plain", "multiplier"))
    assert ("vectorbt" in found.silent) == ("vectorbt" not in found)
    for word in {"splits": ("split", "dividend"), "delisting": ("delisting",), "currencies": ("currenc",)}.get(name, ()):  # fmt: skip
        assert word in repr(found)


def test_a_referee_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points times assets as a matrix: minutes of a year of five hundred assets are no reason to end the process."""
    monkeypatch.setattr(results, "_MOST_CELLS", 100)
    assert "100 cells" in run("plain").check().silent["vectorbt"]
    with refused("QB-ENG-204", show=False):
        run("plain").check("vectorbt")


@pytest.mark.parametrize("name", RUNS)
def test_positions_and_assets_are_those_of_the_ledger(name: str) -> None:
    logs = run(name).logs
    last = run(name).positions.df.groupby("symbol", observed=True)["quantity"].last()
    assert [last[symbol] for symbol in logs.symbols] == run(name).assets["quantity"].tolist()


@pytest.mark.parametrize("name", RUNS)
def test_profit_of_trades_and_of_assets_is_that_of_the_curve(name: str) -> None:
    """In each asset's currency: closed and open, fees, dividends and borrow."""
    logs = run(name).logs
    assets, trades = run(name).assets.df, run(name).trades.df
    unit = logs.assets["lot"] * logs.assets["multiplier"]
    cash = np.array(logs.cash)
    for fill in logs.fills:
        currency = logs.assets["currency"][fill["asset"]]
        cash[currency] -= (
            fill["side"] * fill["lots"] * unit[fill["asset"]] * fill["price"] + fill["fee"] + fill["tax"]
        )
    for flow in logs.flows:
        cash[logs.assets["currency"][flow["asset"]]] += flow["amount"]
    worth = np.bincount(logs.assets["currency"], logs.assets["lots"] * unit * logs.assets["last"])
    profit = np.bincount(logs.assets["currency"], assets["profit"])
    assert close(cash + worth - logs.cash, profit, rel=1e-9)
    assert close((cash + worth) @ logs.rates, logs.curve["equity"][-1], rel=1e-12)
    lots = tax_lots(logs.fills, logs.assets, logs.flows)
    still = lots[lots["closed"] == NEVER]
    away = (logs.assets["last"][still["asset"]] - still["entry"]) * still["side"] * still["quantity"]
    waiting = away * logs.assets["multiplier"][still["asset"]] - still["fees"]
    of_trades = np.bincount(
        np.searchsorted(logs.symbols, trades["symbol"].to_numpy(str)), trades["profit"], 3
    )
    of_trades += np.bincount(still["asset"], waiting, 3)
    assert close(of_trades, assets["profit"], rel=1e-9, floor=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_costs_by_kind_are_what_the_price_and_the_fee_took(name: str) -> None:
    logs = run(name).logs
    fills, unit = logs.fills, (logs.assets["lot"] * logs.assets["multiplier"])[logs.fills["asset"]]
    worse = (fills["price"] - fills["reference"]) * fills["side"] * fills["lots"] * unit
    parts = fills["spread"] + fills["slippage"] + fills["impact"]
    assert close(parts, worse, rel=1e-9, floor=1e-6) and (parts >= 0).all()
    amounts = dict(zip(run(name).costs.df["kind"], run(name).costs["amount"], strict=True))
    rate = np.array(logs.rates)[logs.assets["currency"]]
    assert close(amounts["fee"], (fills["fee"] * rate[fills["asset"]]).sum(), rel=1e-12)
    paid = logs.flows[logs.flows["kind"] == FLOW_BORROW]
    assert close(amounts["borrow"], -(paid["amount"] * rate[paid["asset"]]).sum(), rel=1e-12)


def test_an_account_of_two_currencies_begins_at_the_first_rates() -> None:
    """What the euros gained is part of the return; at the last rates it would be part of the capital."""
    first, last = (tape("currencies").events["close"][tape("currencies").events["kind"] == KIND_RATE][k] for k in (0, -1))  # fmt: skip

    class Idle(Strategy):
        def on_bar(self, bar: Any, market: Any) -> None:
            pass

    idle = backtest(Idle, tape("currencies"), cash=TWO)
    assert len(idle.fills) == 0
    assert close(idle.metrics["total return"], (1e6 + 5e5 * last) / (1e6 + 5e5 * first) - 1, rel=1e-12)
    assert close(idle.track.equity[0], 1e6 + 5e5 * first, rel=1e-15)


def test_a_sweep_and_an_explorer_of_two_currencies_are_the_backtest() -> None:
    class Steady(Strategy):
        size: float = 100.0

        def on_bar(self, bar: Any, market: Any) -> None:
            market.target(bar.asset, self.size if bar.close > bar.open else -self.size)

    on, choices = tape("currencies"), {"cash": TWO, "costs": COSTS, "margin": 0.2}
    alone = backtest(Steady(size=50.0), on, **choices).metrics
    swept = sweep(Steady, on, {"size": [50.0]}, shown=False, **choices)
    explorer = explore(Steady, on, **choices)
    explorer.move(size=50.0)
    for found in (swept, explorer.trials):
        for ours, name in (("total_return", "total return"), ("sharpe", "Sharpe"), ("max_drawdown", "max drawdown"), ("cagr", "CAGR")):  # fmt: skip
            assert close(found.figure(ours)[-1], alone[name], rel=1e-9), ours


def test_foreign_cash_without_a_rate_is_refused() -> None:
    with refused("QB-ENG-241", show=False):
        backtest(Restless, tape("splits"), cash={"USD": 1e6, "CHF": 1.0})


def test_fills_that_are_not_heard_of_are_not_yet_money() -> None:
    """The last fill is on its way when the tape ends: the ledger does not know it, and no table counts it."""
    found = play(latency=Latency(fill_seconds=86_000.0))
    logs, last = found.logs, found.positions.df.groupby("symbol", observed=True)["quantity"].last()
    assert len(found.fills) > logs.curve["fills"][-1]
    assert close(found.assets["profit"].sum(), logs.curve["equity"][-1] - 1e6, rel=1e-9)
    assert [last[symbol] for symbol in logs.symbols] == found.assets["quantity"].tolist()
    heard = logs.fills[: logs.curve["fills"][-1]]
    amounts = dict(zip(found.costs.df["kind"], found.costs["amount"], strict=True))
    assert close(amounts["fee"], heard["fee"].sum(), rel=1e-12)


def test_a_trade_is_made_of_fills_and_not_of_days() -> None:
    """Held over a day that loses and one that wins: three periods, one trade, and it won."""

    class Once(Strategy):
        day: int = 0

        def on_bar(self, bar: Any, market: Any) -> None:
            if bar.asset == 0:
                market.target(0, 100.0 if market.position(1) == 0 and 110.0 > bar.close > 104.0 else 0.0)

    found = backtest(Once, tape(), costs=Costs(), cash=1e6, point_every=timedelta(0))
    trades = found.trades.df.dropna(subset="closed")
    held = found.logs.fills[found.logs.fills["asset"] == 0]
    pairs = held["price"].reshape(-1, 2) if len(held) % 2 == 0 else held["price"][:-1].reshape(-1, 2)
    by_hand = (pairs[:, 1] - pairs[:, 0]) * 100.0
    assert len(by_hand) > 3 and close(trades["profit"].to_numpy(), by_hand, rel=1e-9)
    assert odds(trades["profit"].to_numpy()).hit_rate == (by_hand > 0).sum() / (by_hand != 0).sum()
    assert odds(trades["profit"].to_numpy()).hit_rate != found.metrics["hit rate"]


def test_the_card_counts_trades_that_are_over() -> None:
    """One is open: half sold, and with dividends. It has neither won nor lost."""

    class Half(Strategy):
        bars: int = state(0)

        def on_bar(self, bar: Any, market: Any) -> None:
            self.bars += bar.asset == 0
            later = 50.0 if self.bars <= 200 or bar.asset == 1 else 0.0
            if bar.asset < 2:
                market.target(bar.asset, 100.0 if self.bars <= 160 else later)

    found = backtest(Half, tape("dividends"), cash=1e6, costs=Costs())
    trades = found.trades.df
    assert trades["closed"].isna().tolist() == [False, True] and trades["exit"].notna().all()
    assert trades["flows"].gt(0).all() and ", 1 trades," in repr(found)
    share = 100.0 if trades["profit"][0] > 0 else 0.0
    assert f"{share:.2f} %" in next(line for line in repr(found).splitlines() if "hit rate of trades" in line)


def test_a_thousand_runs_leave_nothing_behind() -> None:
    """Runs and their tables: the process grows by less than 20 MB, whatever the tape weighs."""

    class Daily(Strategy):
        size: float = 10.0

        def on_bar(self, bar: Any, market: Any) -> None:
            market.target(bar.asset, self.size if bar.close > bar.open else -self.size)

    def once(size: float) -> None:
        found = backtest(Daily(size=size), tape("dividends"), cash=1e6)
        assert found.metrics["max drawdown"] < 0 and len(found.trades) > 50

    def resident() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    for _ in range(50):
        once(1.0)
    before = resident()
    for k in range(1000):
        once(1.0 + k)
    assert resident() - before < 20.0
