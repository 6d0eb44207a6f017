"""Costs that may be wrong, more capital, prices a bar late: what is left, and what is said when it cannot be known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.events import BAR, KIND_BAR, KIND_DELIST, KIND_DIVIDEND, KIND_SPLIT, check, merged
from quantbench.engine.guardian import Limits
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import per_asset, state
from quantbench.gates.costs import Stress, capacity, cost_stress, halved, late, stressed
from quantbench.gates.verdict import Verdict
from quantbench.portfolio.costs import Costs

DAY = 86_400_000_000_000


class Turns(Strategy):
    """Long after a fall, short after a rise of the day; with `lag` it sleeps over it for a bar."""

    lag: int = param(0, low=0, high=1)
    units: float = param(10.0, low=0.0, high=1e9)
    decided: Any = per_asset(state(0.0))

    def on_bar(self, bar: Any, market: Any) -> None:
        now = self.units if bar.close < bar.open else -self.units
        market.target(bar.asset, now if self.lag == 0 else self.decided[bar.asset])
        self.decided[bar.asset] = now


class Half(Strategy):
    """Half of the equity, this side or that, by yesterday."""

    def on_bar(self, bar: Any, market: Any) -> None:
        side = 0.5 if bar.close < bar.open else -0.5
        if side * market.position(bar.asset) <= 0:
            market.target_weight(bar.asset, side)


class Raises(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        raise ValueError(bar.close / market.cash)


def frame(opened: Any, close: Any) -> pd.DataFrame:
    bars = {
        "open": opened,
        "high": np.maximum(opened, close),
        "low": np.minimum(opened, close),
        "close": close,
        "volume": 1e6,
    }
    return pd.DataFrame(bars, pd.date_range("2020-01-01", periods=len(close), tz="UTC"))


def zigzag(days: int = 600) -> Tape:
    """Up a dollar, down a dollar."""
    close = np.where(np.arange(days) % 2 == 0, 100.0, 101.0)
    return Tape.from_bars(frame(np.r_[100.0, close[:-1]], close), symbol="ZIG", calendar="24/7")


def walks(seed: int, days: int = 400, assets: int = 2) -> Tape:
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, (days, assets)), axis=0)), 2)
    opened = np.round(
        np.vstack([np.full(assets, 100.0), close[:-1]]) * np.exp(rng.normal(0, 0.002, (days, assets))), 2
    )
    return Tape.from_bars({f"S{k}": frame(opened[:, k], close[:, k]) for k in range(assets)}, calendar="24/7")


def reverting(days: int = 500) -> Tape:
    """Each day takes back half of the day before."""
    rng, moves = np.random.default_rng(4), np.zeros(days)
    for day in range(1, days):
        moves[day] = -0.5 * moves[day - 1] + rng.normal(0, 0.01)
    close = np.round(100 * np.exp(np.cumsum(moves)), 2)
    return Tape.from_bars(frame(np.r_[100.0, close[:-1]], close), symbol="BACK", calendar="24/7")


def test_once_is_the_study_itself() -> None:
    study = Study(Half(), reverting(), {"costs": Costs.us_equity()})
    assert stressed(study, 1.0).run().hash == study.run().hash
    by_symbol = replace(study, choices={"costs": {"BACK": Costs.us_equity()}})
    assert (
        stressed(by_symbol, 3.0).run().logs.curve["equity"][-1]
        == stressed(study, 3.0).run().logs.curve["equity"][-1]
    )
    assert (
        stressed(Study(Half(), reverting()), 2.0).run().metrics["CAGR"]
        < Study(Half(), reverting()).run().metrics["CAGR"]
    )


def test_break_even_is_where_gain_meets_cost() -> None:
    """Each day ten units gain a dollar, and twenty are turned at half the spread."""
    study = Study(Turns(), zigzag(), {"costs": Costs(spread_bps=30.0)})
    gained, lost = 10 * 1.0, 20 * 100.5 * 0.5 * 30e-4
    stress = Stress(study)
    assert stress.break_even() == pytest.approx(gained / lost, rel=0.01)
    assert stress.rises() is None


def test_the_multiple_of_the_settings_decides() -> None:
    study = Study(Turns(), zigzag(), {"costs": Costs(spread_bps=30.0)})
    end = Stress(study).break_even()
    for limit in (1.0, 3.0, 3.2, 3.5, 7.0):
        verdict = cost_stress(study, Gates(slippage_stress_ratio=limit))
        assert verdict.passed == (limit < end) and limit in [
            row["multiple"] for row in verdict.figures["multiples"]
        ]
        assert {1.0, 2.0, 3.0, 4.0} <= {row["multiple"] for row in verdict.figures["multiples"]}
    assert cost_stress(study, Gates()) == cost_stress(study, Gates())
    assert Verdict.of(verdict.record) == verdict and len(verdict.json) < 50_000


def test_fees_are_not_multiplied() -> None:
    study = Study(Turns(), zigzag(), {"costs": Costs(spread_bps=1.0, taker_bps=5.0)})
    rows = {row["multiple"]: row["costs"] for row in cost_stress(study, Gates()).figures["multiples"]}
    assert rows[4.0]["spread"] == pytest.approx(4 * rows[1.0]["spread"], rel=1e-6)
    assert rows[4.0]["fee"] == pytest.approx(rows[1.0]["fee"], rel=1e-3)


def test_nothing_to_multiply_is_no_pass() -> None:
    for costs in (Costs.free(), Costs(taker_bps=5.0)):
        verdict = cost_stress(Study(Turns(), zigzag(), {"costs": costs}), Gates())
        assert verdict.checks[0].passed and not verdict.checks[1].passed


def test_a_path_that_rises_with_costs_is_noted() -> None:
    """A strategy that stops trading once its cash is down: more costs, fewer losses."""

    class Stops(Strategy):
        def on_bar(self, bar: Any, market: Any) -> None:
            side = 10.0 if bar.close > bar.open else -10.0
            if market.cash + market.position(bar.asset) * bar.close > 99_900.0:
                market.target(bar.asset, side)
            else:
                market.target(bar.asset, 0.0)

    verdict = cost_stress(Study(Stops(), zigzag(), {"costs": Costs(spread_bps=8.0)}), Gates())
    assert not verdict.passed and any("the path decides" in note for note in verdict.notes)


def test_capacity_is_where_the_ratio_falls_under_one() -> None:
    study = Study(Half(), reverting(), {"costs": Costs(spread_bps=1.0, impact_root=0.65)})
    room = capacity(study)
    around = [
        float(
            replace(study, choices={**study.choices, "cash": 1e5 * room["times"] * k}).run().metrics["Sharpe"]
        )
        for k in (0.9, 1.1)
    ]
    assert around[0] > 1.0 > around[1] and room["times"] > 1


@pytest.mark.parametrize(
    "strategy,costs,why",
    [
        (Half(), Costs(spread_bps=1.0), "no impact"),
        (Turns(), Costs(impact_root=0.65), "do not grow"),
        (Half(), Costs(spread_bps=150.0, impact_root=0.65), "less than the capital"),
    ],
)
def test_capacity_says_why_it_is_not_known(strategy: Any, costs: Costs, why: str) -> None:
    room = capacity(Study(strategy, reverting(), {"costs": costs}))
    assert room["times"] is None and why in room["why"]


def test_a_late_tape_is_a_strategy_that_sleeps() -> None:
    """Of several assets, fill by fill."""
    tape, free = walks(3), {"costs": Costs.free()}
    check(late(tape).events, [False, False], where="late")
    asleep, overtaken = (
        Study(Turns(lag=1), tape, free).run().logs.fills,
        Study(Turns(), late(tape), free).run().logs.fills,
    )
    count = min(len(asleep), len(overtaken))
    assert count > 300
    for name in ("asset", "price", "lots", "side"):
        assert (asleep[name][:count] == overtaken[name][:count]).all()


def test_actions_come_late_with_their_bars() -> None:
    """Each stands between the same bars as before: of its asset, and with another asset's beside it."""
    parts = []
    for asset in range(2):
        bars = np.zeros(30, BAR)
        bars["known"] = (18_000 + np.arange(1, 31)) * DAY
        bars["since"], bars["asset"], bars["kind"] = bars["known"] - DAY + 1, asset, KIND_BAR
        for name in ("open", "high", "low", "close"):
            bars[name] = 10.0
        parts.append(bars)
    for kind, day, body in (
        (KIND_SPLIT, 10, {"open": 2.0}),
        (KIND_DIVIDEND, 20, {"high": 0.1}),
        (KIND_DELIST, 31, {"high": 9.0, "close": 9.0}),
    ):
        event = np.zeros(1, BAR)
        event["known"] = event["since"] = (18_000 + day) * DAY + 2
        event["kind"], event["asset"] = kind, 1
        for name, value in body.items():
            event[name] = value
        parts.append(event)
    tape = Tape.from_events(merged(parts), assets_of(["AAA", "BBB"], "equity", "24/7"), interval="1d")
    after = late(tape)
    check(after.events, [False, False], where="late")
    for asset in range(2):
        was, now = (one.events[one.events["asset"] == asset] for one in (tape, after))
        assert (was["kind"] == now["kind"]).all() and (was["since"] == now["since"]).all()
        assert (now["known"][was["kind"] == KIND_BAR][:-1] == was["known"][was["kind"] == KIND_BAR][1:]).all()


def test_a_short_edge_is_flagged_and_not_failed() -> None:
    verdict = cost_stress(Study(Turns(), zigzag(), {"costs": Costs(spread_bps=4.0)}), Gates())
    assert verdict.passed and verdict.figures["late"]["kept"] < 0.5
    assert any("one bar late" in note for note in verdict.notes)


@pytest.mark.parametrize("strategy", [Raises(), Turns(units=0.0)], ids=["raises", "never trades"])
def test_nothing_to_stress_fails(strategy: Any) -> None:
    verdict = cost_stress(Study(strategy, walks(5)), Gates())
    assert not verdict.passed and np.isnan(verdict.checks[0].value)


def test_halving_finds_the_root_on_a_scale_of_ratios() -> None:
    assert halved(lambda x: 3.7 - x, 0.1, 20.0, 14) == pytest.approx(3.7, rel=1e-3)


def test_limits_in_money_do_not_hold_the_capital_back() -> None:
    """Limits for a hundred thousand say nothing of ten million; the verdict says whose limits were used."""
    study = Study(Half(), reverting(), {"costs": Costs(spread_bps=1.0, impact_root=0.65)})
    limited = replace(study, choices={**study.choices, "limits": Limits.research(100_000.0)})
    assert capacity(limited) == capacity(study)
    assert any("research limits" in note for note in cost_stress(limited, Gates()).notes)
