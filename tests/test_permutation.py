"""The gate asks chance the right question: the same search, the same engine, on markets in which nothing can be known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.sweep import OUTCOME
from quantbench.engine.tape import Tape
from quantbench.engine.window import array, ewma, per_asset, state, window
from quantbench.gates.permutation import Desk, batches, odds, permutation, real_score
from quantbench.gates.shuffles import Shuffle
from quantbench.gates.verdict import Verdict
from quantbench.portfolio.costs import Costs
from quantbench.strategies.crossover import MovingAverageCross

FEW = Gates(permutations_count=100)
SUMS = ("equity", "sum_return", "sum_square", "n_steps")


class Late(Strategy):
    """Long or short by the mean of the last closes of each asset; state, targets, several assets."""

    size: int = param(5, low=1, high=500)
    seen: Any = per_asset(window("size"))

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen[bar.asset].push(bar.close)
        if self.seen[bar.asset].full:
            market.target(bar.asset, 40.0 if bar.close > self.seen[bar.asset].mean() else -40.0)


class Begins(Late):
    """The same, but a new session for each run: it has an on_start."""

    def on_start(self, _market: Any) -> None:
        self.begun = True


class Fragile(Strategy):
    """Raises when the price passes a number."""

    top: float = param(1e9, low=0.0, high=1e12)

    def on_bar(self, bar: Any, market: Any) -> None:
        if bar.close > self.top:
            raise ValueError("too high")
        market.target(bar.asset, 10.0)


def made(moves: Any, **how: Any) -> Tape:
    count, assets = moves.shape
    close = np.round(200 * np.exp(np.cumsum(moves, axis=0)), 2)
    opened = np.vstack([np.full(assets, 200.0), close[:-1]])
    index = pd.date_range("2020-01-01", periods=count, tz="UTC")
    frames = {}
    for k in range(assets):
        bars = {"open": opened[:, k], "close": close[:, k], "volume": 1e6}
        frame = pd.DataFrame(bars, index)
        frames[f"S{k}"] = frame.assign(
            high=frame[["open", "close"]].max(axis=1), low=frame[["open", "close"]].min(axis=1)
        )
    return Tape.from_bars(frames, calendar="24/7", **how)


def noise(seed: int, count: int = 300, assets: int = 1) -> Tape:
    return made(np.random.default_rng(seed).normal(0, 0.01, (count, assets)))


def trending(seed: int, count: int = 300) -> Tape:
    """Each ten days go one way."""
    rng = np.random.default_rng(seed)
    ways = np.repeat(rng.choice([-0.008, 0.008], count // 10), 10)
    return made((ways + rng.normal(0, 0.006, count))[:, None])


def study(tape: Tape, strategy: Strategy | None = None, **search: Any) -> Study:
    return Study(
        strategy or MovingAverageCross(fast=1, slow=5), tape, {"costs": Costs(spread_bps=1.0)}, search
    )


@pytest.mark.parametrize("kind", [Late, Begins])
@pytest.mark.parametrize("lane", ["auto", "interpreted"])
def test_a_desk_is_a_backtest_of_the_shuffled_market(kind: Any, lane: str) -> None:
    """Whatever was traded at the desk before, and in which lane."""
    two = replace(
        study(noise(1, assets=2), kind(), size=(3, 8)), choices={"lane": lane, "costs": Costs(taker_bps=2.0)}
    )
    shuffle = Shuffle(two.tape, "bars", seed=3)
    desk, outcomes = Desk(two, shuffle), np.zeros(2, OUTCOME)
    for number in (5, 2, 0):
        assert desk.trade(number, outcomes)
        tape = shuffle.tape(number) if number else two.tape
        runs = [two.on(tape).with_parameters(**point).run() for point in two.candidates()]
        assert [run.logs.curve["equity"][-1] for run in runs] == outcomes["equity"].tolist()
        if number:
            many, ran = desk.trade_all([4, number, 6])
            assert ran.all() and all((many[1][name] == outcomes[name]).all() for name in SUMS)
    assert desk.compiled == (lane == "auto" and kind is Late)


class Crowd(Strategy):
    """Every kind of state, and at one time more open orders than there is room for at first."""

    size: int = param(4, low=1, high=50)
    crowd: int = param(0, low=0, high=500)
    risky: bool = False
    seen: Any = per_asset(window("size"))
    smooth: Any = ewma("size")
    sums: Any = array(3)
    steps: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.steps += 1
        self.smooth.push(bar.close)
        self.sums[self.steps % 3] += bar.close
        self.seen[bar.asset].push(bar.close)
        if self.steps == 50:
            for k in range(self.crowd):
                market.buy(bar.asset, 1.0, limit=bar.close - 1.0 - 0.01 * k, tif="gtc")
        if self.seen[bar.asset].full:
            market.target(
                bar.asset, 9.0 if self.seen[bar.asset].mean() < self.smooth.value else self.sums[0] % 7
            )


def test_whatever_a_strategy_keeps_begins_anew() -> None:
    """Windows, averages, arrays, numbers, orders that need more room: each market as if it were the first."""
    crowd = study(noise(1, assets=2), Crowd(), size=(3, 8), crowd=(0, 200))
    desk, alone = (Desk(crowd, Shuffle(crowd.tape, "bars", seed=3)) for _ in range(2))
    assert desk.compiled
    outcomes, ran = desk.trade_all([5, 6, 7, 5])
    for place, number in enumerate((5, 6, 7, 5)):
        one = np.zeros(4, OUTCOME)
        assert alone.trade(number, one) and ran[place]
        assert all((outcomes[place][name] == one[name]).all() for name in SUMS)
    assert len(np.unique(outcomes["equity"][:3])) == 12


def test_threads_change_nothing() -> None:
    found = [permutation(study(noise(2), fast=(1, 2), slow=(5, 9)), FEW, workers=n) for n in (1, 2, 3)]
    assert found[0] == found[1] == found[2] and found[0].figures["decided_early"]
    assert found[0].hash == found[2].hash and Verdict.of(found[0].record) == found[0]


def test_an_edge_passes_and_noise_does_not() -> None:
    edge = permutation(study(trending(3), fast=(1, 2), slow=(5, 9)), FEW)
    assert edge.passed and edge.checks[0].value == 1 / 101 and not edge.notes
    assert not permutation(study(noise(3), fast=(1, 2), slow=(5, 9)), FEW).passed


def test_the_fit_is_repeated_on_each_market() -> None:
    """More to choose from, better by chance: the shuffled markets must have the same choice."""
    few, many = (study(noise(4), fast=(1,), slow=slow) for slow in ((5,), (5, 7, 9, 12, 15, 20, 30, 40)))
    means = [permutation(one, Gates(), seed=1).figures["shuffled"]["mean"] for one in (few, many)]
    assert means[1] > means[0] + 0.5


def test_stopping_early_never_changes_the_answer() -> None:
    """The scores of 60 noise markets: decided by the rule, and with every draw."""
    rng = np.random.default_rng(5)
    for limit in (0.05, 0.1):
        answers = []
        for _ in range(60):
            scores, real = rng.normal(size=200), rng.normal(1.5, 0.5)
            stopped = odds(real, iter(np.split(scores, 8)), 200, limit)
            whole = odds(real, iter([scores]), 200, 1.0)
            assert whole.drawn == 200 and (stopped.p <= limit) == (whole.p <= limit)
            assert stopped.decided == (stopped.drawn < 200)
            answers.append(whole.p <= limit)
        assert 0 < sum(answers) < 60


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    from scipy.stats import binomtest

    for good, drawn in ((0, 100), (7, 100), (100, 100)):
        found = odds(0.0, iter([np.r_[np.ones(good), -np.ones(drawn - good)]]), drawn, 1.1)
        exact = binomtest(good, drawn).proportion_ci(0.95, "exact")
        assert np.allclose(found.bounds, (exact.low, exact.high))


def test_markets_depend_on_the_seed() -> None:
    one = study(noise(6), fast=(1, 2), slow=(5, 9))
    first, again, other = (permutation(one, FEW, seed=seed) for seed in (0, 0, 1))
    assert first == again and first.figures["shuffled"] != other.figures["shuffled"]
    assert first.inputs["seed"] == "0" and first.inputs["data"] == one.tape.hash[:16]


@pytest.mark.parametrize(
    "strategy",
    [Fragile(top=1.0), MovingAverageCross(fast=1, slow=5000), MovingAverageCross(fast=1, slow=5, weight=0.0)],
    ids=["raises", "never warm", "never trades"],
)
@pytest.mark.parametrize("search", [{}, {"fast": (1, 2)}])
def test_nothing_to_compare_fails(strategy: Any, search: Any) -> None:
    search = search if isinstance(strategy, MovingAverageCross) else {"top": (1.0, 2.0)} if search else {}
    found = permutation(study(noise(7), strategy, **search), FEW)
    assert not found.passed and np.isnan(found.checks[0].value) and found.notes


def test_constant_prices_fail() -> None:
    assert not permutation(study(made(np.zeros((60, 1))), Late()), FEW).passed


def test_ticks_fail_with_the_reason() -> None:
    index = pd.date_range("2024-01-02 15:00", periods=50, freq="s", tz="UTC")
    quotes = pd.DataFrame({"bid": 1.0, "ask": 1.1, "bid_size": 5.0, "ask_size": 5.0}, index)
    found = permutation(study(Tape.from_quotes(quotes, symbol="AAA"), Late()), FEW)
    assert not found.passed and "QB-GATE-105" in found.notes[0]


def test_raising_on_shuffled_markets_is_no_merit() -> None:
    """A strategy that stands only the real market cannot be compared with chance."""
    tape = trending(8)
    found = permutation(
        study(tape, Fragile(top=float(tape.events["close"].max()))), FEW, method="blocks", block=5.0
    )
    assert not found.passed and any("raised" in note for note in found.notes)


@pytest.mark.parametrize("volume", [1e6, 123_457.0])
def test_a_market_that_cannot_move_fails(volume: float) -> None:
    """One asset cannot exchange its bars with itself: every shuffle is the real market, but for the rounding of volumes, and costs follow volumes."""
    tape = trending(9)
    events = tape.events.copy()
    events["volume"] = volume + np.arange(len(events)) % 7
    held = Tape.from_events(events, tape.assets, interval="1d")
    one = replace(
        study(held, fast=(1, 2), slow=(5, 9)), choices={"costs": Costs(spread_bps=1.0, impact_root=0.65)}
    )
    found = permutation(one, FEW, method="dates")
    assert not any(check.passed for check in found.checks) and found.figures["movable"] == 0.0
    assert found.figures["as_good"] == found.figures["drawn"]


def test_dates_find_selection_and_not_the_market() -> None:
    """Of twelve assets, those whose moves go on are chosen: an edge across, which no order in time is needed for."""
    rng = np.random.default_rng(10)
    common = rng.normal(0, 0.01, (400, 1))
    tilt = np.repeat(rng.normal(0, 0.006, (20, 12)), 20, axis=0)
    tape = made(common + tilt + rng.normal(0, 0.004, (400, 12)))
    assert permutation(study(tape, Late(size=5)), FEW, method="dates").passed
    alone = made(common + rng.normal(0, 0.004, (400, 12)))
    assert not permutation(study(alone, Late(size=5)), FEW, method="dates").passed


def test_p_is_uniform_on_noise_and_small_on_an_edge() -> None:
    """The canary: a gate that is kinder or stricter than it says is found here."""
    from scipy.stats import kstest

    def p(tape: Tape, seed: int) -> float:
        one = study(tape, fast=(1, 2), slow=(5, 9))
        desk = Desk(one, Shuffle(one.tape, "bars", seed=seed))
        return odds(real_score(desk, 1.0), batches([desk], 99, 1.0), 99, 1.1).p

    without = np.array([p(noise(100 + seed, 150), seed) for seed in range(200)])
    assert kstest(without, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(without <= 0.05) <= 0.1
    assert np.mean([p(trending(100 + seed, 250), seed) <= 0.05 for seed in range(20)]) > 0.8


def test_machine_code_on_disk_follows_what_is_compiled_into_it() -> None:
    """The loop over markets contains the kernels that shuffle: a change of theirs must make it anew."""
    from quantbench.engine.kernel import _imported

    known = _imported("quantbench.gates.permutation")
    assert {"quantbench.gates.shuffles", "quantbench.engine.loop", "quantbench.engine.ledger"} <= known


def test_equal_but_for_rounding_is_as_good() -> None:
    assert odds(1.0, iter([np.full(10, 1.0 - 1e-13)]), 10, 1.1).as_good == 10
    assert odds(1.0, iter([np.full(10, 1.0 - 1e-6)]), 10, 1.1).as_good == 0
