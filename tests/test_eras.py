"""A result is taken apart without remainder, by what was known at the time, and must stand without its best part."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.events import BAR, KIND_SPLIT, merged
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.gates.eras import FIRST, STATES, by_era, eras, left, market_of, states, states_of
from quantbench.gates.verdict import Verdict
from quantbench.portfolio.costs import Costs

CHEAP = {"costs": Costs(spread_bps=0.1)}


class Holds(Strategy):
    """Buys each asset once."""

    weight: float = param(0.9, low=0.0, high=1.0)

    def on_bar(self, bar: Any, market: Any) -> None:
        if market.position(bar.asset) == 0:
            market.target_weight(bar.asset, self.weight)


class Raises(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        raise ValueError(bar.close / market.cash)


def frame(moves: Any, start: str = "2015-01-01") -> pd.DataFrame:
    close = np.round(1000 * np.exp(np.cumsum(moves)), 2)
    opened = np.r_[1000.0, close[:-1]]
    bars = {
        "open": opened,
        "high": np.maximum(opened, close),
        "low": np.minimum(opened, close),
        "close": close,
        "volume": 1e6,
    }
    return pd.DataFrame(bars, pd.date_range(start, periods=len(close), tz="UTC"))


def made(moves: Any) -> Tape:
    """A tape of as many assets as columns."""
    return Tape.from_bars({f"S{k}": frame(moves[:, k]) for k in range(moves.shape[1])}, calendar="24/7")


def steady(days: int = 1461, seed: int = 1, drift: float = 0.0008) -> Any:
    return drift + np.random.default_rng(seed).normal(0, 0.006, (days, 1))


def test_parts_add_up_to_the_whole() -> None:
    study = Study(Holds(), made(steady()), CHEAP)
    verdict, whole = eras(study, Gates()), np.log1p(study.run().metrics["total return"])
    for name in ("years", "states"):
        rows = verdict.figures[name]
        assert np.isclose(sum(row["growth"] for row in rows), whole)
        assert np.isclose(sum(row["time"] for row in rows), 1) and np.isclose(
            sum(row["part"] for row in rows), 1
        )
    assert [row["era"] for row in verdict.figures["years"]] == ["2015", "2016", "2017", "2018"]
    assert [row["periods"] for row in verdict.figures["years"]] == [365, 366, 365, 365]
    assert verdict.passed and verdict == eras(study, Gates()) and Verdict.of(verdict.record) == verdict


@pytest.mark.parametrize("best", [0, 1, 3])
def test_one_year_does_not_carry(best: int) -> None:
    """Profit in one year of four, small losses in the others."""
    moves = steady(drift=-0.0003)
    moves[365 * best + 5 : 365 * (best + 1) - 5] += 0.004
    verdict = eras(Study(Holds(), made(moves), CHEAP), Gates())
    assert not verdict.checks[0].passed and any(str(2015 + best) in note for note in verdict.notes)
    growths = [row["growth"] for row in verdict.figures["years"]]
    assert verdict.checks[0].value == pytest.approx(np.expm1(sum(growths) - max(growths)))


def test_one_kind_of_market_does_not_carry() -> None:
    """Everything is earned in rough and rising times, in each year alike."""
    rng = np.random.default_rng(3)
    season = np.arange(1461) % 365 < 100
    moves = np.where(season, 0.006 + rng.normal(0, 0.014, 1461), -0.0012 + rng.normal(0, 0.003, 1461))
    verdict = eras(Study(Holds(), made(moves[:, None]), CHEAP), Gates())
    assert verdict.checks[0].passed and not verdict.checks[1].passed
    best = max(verdict.figures["states"], key=lambda row: row["growth"])
    assert best["era"] == "rough, rising"


def test_states_do_not_know_the_future() -> None:
    """Whatever comes later, cut off or garbage: the same states up to now."""
    rng = np.random.default_rng(4)
    moves = rng.normal(0, 0.01, 700) * np.repeat(rng.uniform(0.5, 2, 7), 100)
    whole = states(moves)
    assert (whole[: FIRST - 1] == 0).all() and set(whole[FIRST - 1 :]) == {1, 2, 3, 4}
    for now in (FIRST, 150, 400, 699):
        assert (states(moves[:now]) == whole[:now]).all()
        poisoned = np.r_[moves[:now], rng.normal(0, 0.2, 700 - now)]
        assert (states(poisoned)[:now] == whole[:now]).all()


def test_states_by_a_plain_loop() -> None:
    """A naive twin: slices, medians, means."""
    moves = np.random.default_rng(5).normal(0.0003, 0.01, 300)
    price, found = np.cumprod(1 + moves), states(moves)
    for day in range(FIRST - 1, 300):
        known = [moves[k - 20 : k + 1].std() for k in range(20, day + 1)]
        rough = known[-1] > np.median(known)
        falling = price[day] < price[max(0, day - 119) : day + 1].mean()
        assert STATES[found[day]] == f"{'rough' if rough else 'calm'}, {'falling' if falling else 'rising'}"


def test_a_period_belongs_to_the_state_before_it() -> None:
    """The day of the crash is calm; what it did to the state is known the day after."""
    moves = steady(400, drift=0.001)[:, 0]
    moves[300] = -0.2
    study = Study(Holds(), made(moves[:, None]), CHEAP)
    result, (times, market) = study.run(), market_of(study)
    known = states(market)
    began = states_of(result.track, times, known)
    crash = int(np.argmin(result.track.returns))
    at = int(np.argmin(market))
    assert (
        STATES[known[at]] == "rough, falling"
        and began[crash] == known[at - 1]
        and began[crash + 1] == known[at]
    )


def test_the_market_is_what_an_owner_had() -> None:
    """A split is no crash; without a benchmark each asset counts the same, with one it alone."""
    whole = made(np.hstack([steady(100, 1), steady(100, 2)]))
    events = whole.events.copy()
    later = (events["asset"] == 0) & (events["known"] > events["known"][101])
    for name in ("open", "high", "low", "close"):
        events[name][later] /= 4
    split = np.zeros(1, BAR)
    split["known"] = split["since"] = events["known"][101] + 1
    split["kind"], split["open"] = KIND_SPLIT, 4.0
    acted = Tape.from_events(merged([split, events]), whole.assets, interval="1d")
    assert np.allclose(market_of(Study(Holds(), acted))[1], market_of(Study(Holds(), whole))[1])
    _, mean = market_of(Study(Holds(), whole))
    closes = whole.events["close"].reshape(-1, 2)
    moves = np.log(closes[1:] / closes[:-1])
    assert np.allclose(mean, np.expm1(moves.mean(axis=1)))
    _, alone = market_of(Study(Holds(), whole, benchmark="S1"))
    assert np.allclose(alone, np.expm1(moves[:, 1]))


def test_of_many_assets_one_does_not_carry() -> None:
    rng = np.random.default_rng(6)
    moves = rng.normal(-0.0002, 0.004, (800, 6))
    moves[:, 2] += 0.003
    many = Study(Holds(weight=0.15), made(moves), CHEAP)
    verdict = eras(many, Gates())
    check = verdict.checks[2]
    assert check.name == "profit without the best asset" and not check.passed
    run = many.run()
    total = sum(row["growth"] for row in verdict.figures["assets"])
    assert total == pytest.approx(run.metrics["total return"], abs=1e-9)
    few = eras(Study(Holds(weight=0.2), made(moves[:, 1:5]), CHEAP), Gates())
    assert len(few.checks) == 2 and len(few.figures["assets"]) == 4


def test_sectors_are_judged_when_they_are_known() -> None:
    rng = np.random.default_rng(7)
    moves = rng.normal(-0.0004, 0.004, (800, 6))
    moves[:, :3] += 0.0016
    study = Study(Holds(weight=0.15), made(moves), CHEAP)
    named = {f"S{k}": "tech" if k < 3 else "energy" for k in range(6)}
    verdict = eras(dataclasses.replace(study, sectors=named), Gates())
    assert verdict.checks[2].passed and not verdict.checks[3].passed
    assert {row["era"] for row in verdict.figures["sectors"]} == {"tech", "energy"}
    some = eras(dataclasses.replace(study, sectors={"S0": "tech"}), Gates())
    assert {row["era"] for row in some.figures["sectors"]} == {"tech", "other"}
    assert (
        "sectors" not in eras(study, Gates()).figures and some.inputs["sectors"] != verdict.inputs["sectors"]
    )


@pytest.mark.parametrize("strategy", [Raises(), Holds(weight=0.0)], ids=["raises", "never trades"])
def test_nothing_to_split_fails(strategy: Any) -> None:
    verdict = eras(Study(strategy, made(steady(200))), Gates())
    assert not verdict.passed and np.isnan(verdict.checks[0].value) and verdict.notes


def test_a_short_history_fails_and_says_so() -> None:
    verdict = eras(Study(Holds(), made(steady(60, drift=0.003)), CHEAP), Gates())
    assert not verdict.passed and verdict.checks[0].value == 0.0
    assert any("never known" in note for note in verdict.notes)


def test_figures_stay_small() -> None:
    """Sixty assets and ten years of daily changes of weather."""
    rng = np.random.default_rng(8)
    verdict = eras(Study(Holds(weight=0.01), made(rng.normal(0.0002, 0.01, (1500, 60))), CHEAP), Gates())
    assert len(verdict.figures["assets"]) == 50 and len(verdict.json) < 50_000
    assert len(verdict.figures["spans"]) <= 400


def test_left_takes_the_best_away() -> None:
    rows = [{"growth": growth} for growth in (0.3, -0.1, 0.2)]
    assert left(rows) == pytest.approx(np.expm1(0.1)) and np.isnan(left([]))
    track = Study(Holds(), made(steady(40)), CHEAP).run().track
    assert by_era(track, np.zeros(len(track.returns), np.int64), ["all"])[0]["periods"] == len(track.returns)
