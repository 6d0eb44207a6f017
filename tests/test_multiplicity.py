"""The best of many: formulas against their referees, and verdicts that count what was tried."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.sweep import sweep
from quantbench.engine.tape import Tape
from quantbench.engine.window import window
from quantbench.gates.multiplicity import (
    Estimate,
    luck,
    multiplicity,
    overfit,
    probabilistic,
    published,
    shortest,
    superior,
)
from quantbench.gates.trials import judged, trials
from quantbench.gates.verdict import Verdict
from quantbench.strategies.drift import KnownDrift

GATES = Gates()


class Cross(Strategy):
    fast: int = param(10, low=1)
    slow: int = param(40, low=2)
    most: float = 1e9
    short = window("fast")
    long = window("slow")

    def on_bar(self, bar: Any, market: Any) -> None:
        if bar.close > self.most:
            raise ValueError("above the most")
        self.short.push(bar.close)
        self.long.push(bar.close)
        if self.long.full:
            market.target_weight(bar.asset, 0.9 if self.short.mean() > self.long.mean() else -0.9)


class Another(Strategy):
    quick: int = param(10, low=1)
    steady: int = param(40, low=2)
    a = window("quick")
    b = window("steady")

    def on_bar(self, bar: Any, market: Any) -> None:
        self.a.push(bar.close)
        self.b.push(bar.close)
        if self.b.full:
            market.target_weight(bar.asset, 0.5 if self.a.mean() > self.b.mean() else -0.5)


def walk(seed: int = 0, sessions: int = 504) -> Tape:
    return Tape.synthetic("trends", sessions=sessions, drift=0.0, seed=seed)


def checks(verdict: Verdict) -> dict[str, float]:
    return {check.name.partition(" (")[0]: check.value for check in verdict.checks}


# ---- the Sharpe ratio and its doubt ------------------------------------------------------------------------------


def test_the_published_example_comes_out() -> None:
    """Bailey and López de Prado, The Deflated Sharpe Ratio (2014), appendix: 100 trials, 1250 days, SR 2.5 a year."""
    daily, spread = 2.5 / math.sqrt(250), 0.5 / 250
    bar = published(100, spread)
    assert abs(bar - 0.1132) < 5e-4
    found = Estimate(daily, 1250, -3.0, 10.0)
    assert abs(probabilistic(found, bar) - 0.9004) < 5e-4


def test_moments_are_those_of_the_sample() -> None:
    from scipy import stats as scipy

    returns = np.random.default_rng(2).gamma(2.0, 0.01, 400) - 0.018
    found = Estimate.of(returns)
    assert math.isclose(found.sharpe, returns.mean() / returns.std(ddof=1))
    assert math.isclose(found.skew, scipy.skew(returns)) and found.count == 400
    assert math.isclose(found.kurtosis, scipy.kurtosis(returns, fisher=False))


def test_the_shortest_track_is_where_the_chance_is_reached() -> None:
    for found in (
        Estimate(0.05, 100, 0.0, 3.0),
        Estimate(0.2, 100, -1.5, 9.0),
        Estimate(0.11, 100, 2.0, 8.0),
    ):
        for above in (0.0, 0.03):
            for chance in (0.9, 0.95, 0.99):
                needed = shortest(found, above, chance)
                there = dataclasses.replace(found, count=math.ceil(needed))
                before = dataclasses.replace(found, count=math.ceil(needed) - 1)
                assert probabilistic(before, above) < chance <= probabilistic(there, above)
        assert shortest(found, found.sharpe) == math.inf == shortest(found, 1.0)


def test_what_does_not_move_has_no_chance() -> None:
    for returns in (np.zeros(100), np.full(100, 0.01), np.zeros(2)):
        found = Estimate.of(returns)
        assert math.isnan(found.sharpe) and math.isnan(probabilistic(found))
        assert shortest(found) == math.inf


# ---- luck --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 10, 100, 1000])
def test_luck_of_independent_trials_is_the_expected_maximum(count: int) -> None:
    """The integral of x times the density of the maximum, and half of the trials run again or none."""
    from scipy.integrate import quad
    from scipy.stats import norm

    exact = quad(lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -10, 10, limit=500)[0]
    again = min(count // 2 + 1, 100)
    assert abs(luck(np.eye(again), count - again, 1).item() - exact) < 0.015
    assert math.isclose(
        luck(np.eye(again), count - again, 400).item() * 20, luck(np.eye(again), count - again, 1).item()
    )


def test_one_trial_needs_no_luck_and_more_never_need_less() -> None:
    """Kills a bar that copies, or trials that move together, can lower."""
    assert luck(np.eye(1), 0, 100).item() == 0.0
    rng = np.random.default_rng(1)
    made = rng.normal(size=(500, 8))
    before = 0.0
    for extra in (0, 5, 40):
        joined = np.hstack([made, made[:, :1] + 0.2 * rng.normal(size=(500, extra))])
        now = luck(np.corrcoef(joined, rowvar=False), 0, 1).item()
        assert now > before - 0.02
        before = now
    bars = luck(np.corrcoef(made, rowvar=False), [0, 1, 10, 1000, 10**6], 1)
    assert (np.diff(bars) > 0).all() and abs(bars[-1] - published(10**6, 1.0)) < 0.05


def test_of_trials_that_are_one_bet_nothing_was_chosen() -> None:
    assert abs(luck(np.ones((50, 50)), 0, 1).item()) < 0.02


# ---- overfitting -------------------------------------------------------------------------------------------------


def _slow_overfit(returns: Any, blocks: int) -> tuple[float, float, float]:
    "Division by division, as in the paper."
    edges = [k * len(returns) // blocks for k in range(blocks + 1)]
    parts = [np.arange(a, b) for a, b in pairwise(edges)]
    below, loss, outside = [], [], []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[k] for k in half])
        rest = np.concatenate([parts[k] for k in range(blocks) if k not in half])
        here, there = (
            returns[rows].mean(axis=0) / returns[rows].std(axis=0, ddof=1) for rows in (inside, rest)
        )
        best = int(np.argmax(here))
        rank = int((there < there[best]).sum())
        below.append(1.0 if rank < (len(there) - 1) / 2 else 0.5 if rank == (len(there) - 1) / 2 else 0.0)
        loss.append(there[best] < 0)
        outside.append(there[best])
    return float(np.mean(below)), float(np.mean(loss)), float(np.mean(outside))


@pytest.mark.parametrize(("length", "count", "blocks"), [(160, 7, 8), (173, 6, 8), (101, 2, 10), (95, 5, 6)])
def test_pbo_is_that_of_the_paper(length: int, count: int, blocks: int) -> None:
    returns = np.random.default_rng(length).normal(0.02, 1.0, size=(length, count))
    found = overfit(returns, blocks)
    slow = _slow_overfit(returns, blocks)
    assert np.allclose([found.probability, found.loss, found.outside], slow, rtol=1e-12)
    assert len(found.ranks) == math.comb(blocks, blocks // 2)


def test_pbo_finds_skill_fits_and_equals() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(1600, 20))
    skilled = noise.copy()
    skilled[:, 3] += 0.3
    assert overfit(skilled).probability < 0.005
    fitted = noise - 0.2
    for k in range(16):
        fitted[100 * k : 100 * (k + 1), k] += 3.0
    assert overfit(fitted).probability > 0.9 and overfit(fitted).loss > 0.9
    assert overfit(np.repeat(noise[:, :1], 6, axis=1)).probability == 0.5  # nothing to choose


def test_pbo_without_enough_is_unknown() -> None:
    noise = np.random.default_rng(4).normal(size=(400, 5))
    for few in (noise[:39], noise[:, :1]):
        assert math.isnan(overfit(few).probability)
    assert len(overfit(noise[:50]).ranks) == 6  # four blocks of ten periods or more
    idle = np.hstack([noise, np.zeros((400, 1))])  # that never trades is no division by zero
    assert math.isfinite(overfit(idle).probability)


# ---- reality check and SPA ---------------------------------------------------------------------------------------


def test_the_reality_check_is_whites() -> None:
    """Resampled here with the same bootstrap, the maximum of the centred means counted by hand."""
    from arch.bootstrap import StationaryBootstrap

    returns = np.random.default_rng(8).normal(0.03, 1.0, size=(300, 6)) * np.array([1, 9, 2, 0.1, 4, 1])
    found = superior(returns, seed=5, draws=400)
    scaled = returns / returns.std(axis=0, ddof=1)
    means, more = scaled.mean(axis=0), 0
    for drawn, _ in StationaryBootstrap(int(found["block"]), scaled, seed=5).bootstrap(400):
        more += (drawn[0].mean(axis=0) - means).max() > means.max()
    assert math.isclose(found["reality_check"], (more + 1) / 401)
    assert 1 / 401 <= found["lower"] <= found["spa"] <= found["reality_check"]


def test_what_is_hopeless_does_not_hide_what_is_good() -> None:
    """Hansen's point: White's check is bought off with terrible trials that scatter widely."""
    rng = np.random.default_rng(3)
    good = rng.normal(0.13, 1.0, size=(400, 1))
    terrible = rng.normal(-0.4, 1.0, size=(400, 300))
    found = superior(np.hstack([good, terrible]), seed=1)
    assert found["spa"] < 0.02 and found["reality_check"] > 4 * found["spa"]


def test_beside_a_benchmark_what_it_earns_counts_for_nothing() -> None:
    rng = np.random.default_rng(6)
    held = rng.normal(0.1, 1.0, 800)
    follows = held[:, None] + 0.3 * rng.normal(size=(800, 4))
    assert superior(follows, seed=1)["spa"] < 0.02 < 0.1 < superior(follows, held, seed=1)["spa"]


def test_long_histories_are_joined_and_short_or_idle_ones_unknown() -> None:
    rng = np.random.default_rng(6)
    found = superior(rng.normal(0.02, 1.0, size=(20_000, 3)) * 0.01, seed=1, most=1000, draws=200)
    assert found["spa"] < 0.05
    for nothing in (np.zeros((200, 2)), rng.normal(size=(39, 2))):
        assert math.isnan(superior(nothing)["spa"])


# ---- verdicts ----------------------------------------------------------------------------------------------------


def test_a_known_edge_passes_and_the_verdict_is_plain_and_repeats() -> None:
    study = KnownDrift.study(None, None)
    verdict = multiplicity(study, GATES, seed=3)
    assert verdict.passed and set(checks(verdict)) == {
        "deflated Sharpe ratio",
        "overfit splits",
        "no trial is good",
    }
    assert Verdict.of(json.loads(verdict.json)) == verdict and len(verdict.json) < 50_000
    assert multiplicity(study, GATES, seed=3).json == verdict.json
    assert multiplicity(study, GATES, seed=4).inputs != verdict.inputs
    assert verdict.figures["trials"]["count"] == 25 and any("not counted" in n for n in verdict.notes)  # type: ignore[index,call-overload]


def test_the_best_of_a_search_is_judged_by_the_search(tmp_path: Path) -> None:
    """Kills a count that begins at one when only the winner is shown, or when it is shown under another name."""
    tape = walk().counted(tmp_path / "looks")
    grid = {"fast": range(2, 22), "slow": range(25, 65, 3)}
    best = sweep(Cross, tape, grid, shown=False).best().parameters
    shown = Study(Cross(**best), tape)
    alone = multiplicity(shown.on(tape.uncounted("a test")), GATES)
    counted = multiplicity(shown, GATES)
    assert alone.passed and not counted.passed
    assert counted.figures["trials"]["count"] == 280 == len(trials(shown))  # type: ignore[index,call-overload]
    renamed = Study(Another(quick=best["fast"], steady=best["slow"]), tape)
    other = multiplicity(renamed, GATES)
    assert other.figures["trials"]["count"] == 281 and not other.passed  # type: ignore[index,call-overload]
    assert checks(other)["deflated Sharpe ratio"] < 0.95
    assert any("2 versions of this idea were tried: Cross, Another" in note for note in other.notes)


def test_running_it_again_changes_nothing_that_it_says(tmp_path: Path) -> None:
    """Its own looks, and those of a second run, are no new trials."""
    study = Study(Cross(), walk().counted(tmp_path / "looks"), {}, {"fast": (5, 10, 20)})
    first = multiplicity(study, GATES, draws=100)
    assert multiplicity(study, GATES, draws=100).json == first.json
    assert len(trials(study)) == 3 and len(trials(study).known) == 3


def test_more_trials_than_are_run_again_are_counted_all_the_same(tmp_path: Path) -> None:
    tape = walk().counted(tmp_path / "looks")
    sweep(Cross, tape, {"fast": range(2, 22), "slow": (30, 40, 50)}, shown=False)
    study = Study(Cross(), tape)
    some, all_ = (multiplicity(study, GATES, most=most, draws=100) for most in (20, 100))
    figures: list[Any] = [one.figures["trials"] for one in (some, all_)]
    assert [f["count"] for f in figures] == [60, 60] and [f["run_again"] for f in figures] == [20, 60]
    assert checks(some)["deflated Sharpe ratio"] <= checks(all_)["deflated Sharpe ratio"] + 1e-9
    assert any("40 trials of this version were not run again" in note for note in some.notes)


def test_a_window_that_was_seen_too_often_is_named(tmp_path: Path) -> None:
    tape = walk().counted(tmp_path / "looks")
    study = Study(Cross(), tape, {}, {"fast": (5, 10)})
    span = int(tape.events["known"][250]), int(tape.events["known"][503])
    for fast in (5, 6, 7):
        judged(study, "walk_forward", [(*span, {"fast": fast}, 0.5)])
    verdict = multiplicity(study, GATES, draws=100)
    assert verdict.figures["trials"]["contaminated"] is True  # type: ignore[index,call-overload]
    assert any("seen 3 times: no longer out of sample" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("strategy", "search"),
    [(Cross(slow=600), {}), (Cross(slow=600), {"fast": (5, 10)}), (Cross(most=1.0), {}), (Cross(slow=600), {"slow": (40, 600)})],
)  # fmt: skip
def test_what_cannot_be_measured_fails_and_says_why(strategy: Strategy, search: Any) -> None:
    """Too short for the warm-up, a strategy that raises, its own parameters that never trade while others do."""
    verdict = multiplicity(Study(strategy, walk(), {}, search), GATES)
    assert not verdict.passed and math.isnan(verdict.checks[0].value) and verdict.notes
    assert json.loads(verdict.json)["checks"][0]["value"] is None


def test_a_candidate_that_raises_is_counted_and_left_out() -> None:
    study = Study(Cross(), walk(), {}, {"most": (1.0, 1e9), "fast": (5, 10)})
    verdict = multiplicity(study, GATES, draws=100)
    figures: Any = verdict.figures["trials"]
    assert (figures["count"], figures["run_again"]) == (4, 2)
    assert any("2 trials raised or did not move" in note for note in verdict.notes)


def test_without_a_choice_there_is_nothing_to_overfit() -> None:
    verdict = multiplicity(Study(Cross(), walk()), GATES, draws=100)
    assert set(checks(verdict)) == {"deflated Sharpe ratio", "no trial is good"}
    sharpe: Any = verdict.figures["sharpe"]
    assert sharpe["luck"] == 0.0 and sharpe["deflated"] == sharpe["probabilistic"]


def test_the_thresholds_are_those_of_the_settings() -> None:
    strict = dataclasses.replace(
        GATES, min_deflated_fraction=0.99, max_overfit_fraction=0.01, max_snooping_fraction=0.001
    )
    verdict = multiplicity(KnownDrift.study(None, None), strict, draws=100)
    assert [(check.sense, check.limit) for check in verdict.checks] == [
        ("at least", 0.99), ("at most", 0.01), ("at most", 0.001),
    ]  # fmt: skip
    assert [check.passed for check in verdict.checks] == [True, False, False]
