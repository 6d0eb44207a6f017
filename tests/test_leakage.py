"""The leakage gate on planted leaks, on clean strategies, and on those that ship."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.strategy import Strategy
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.gates.leakage import leakage

TAPE = Tape.synthetic(sessions=90, seed=11)
GATES = Gates()
Signal = Callable[[pd.Series], Any]


def following(signal: Signal, market: Tape) -> Study:
    """A study whose strategy trades a column that was computed before the run."""
    closes = pd.Series(market.events["close"])
    wanted = np.asarray(signal(closes), float).tolist()

    class Follows(Strategy):
        "Long where the column is above zero."

        seen = state(0)

        def on_bar(self, bar: Any, market: Any) -> None:
            target = wanted[self.seen] if self.seen < len(wanted) else 0.0
            self.seen += 1
            market.target_weight(bar.asset, 0.5 if target > 0 else 0.0)

    return Study(Follows(), market)


def judged(signal: Signal) -> Any:
    return leakage(
        following(signal, TAPE),
        GATES,
        remake=lambda moment: following(signal, TAPE.truncate(moment)),
        times=90,
    )


LEAKS: dict[str, Signal] = {
    "the next close": lambda c: c.shift(-1) - c,
    "three bars ahead": lambda c: c.shift(-3) - c,
    "normalised over the whole table": lambda c: (c - c.mean()) / c.std(),
    "centred average": lambda c: c - c.rolling(9, center=True).mean(),
    "against the last row": lambda c: c.iloc[-1] - c,
    "back-filled": lambda c: c.where(c.index % 4 == 0).bfill() - c,
    "quantile of everything": lambda c: c.quantile(0.5) - c,
    "rank among all": lambda c: c.rank(pct=True) - 0.5,
    "smoothed over frequencies": lambda c: (
        c - np.fft.irfft(np.r_[np.fft.rfft(c)[:6], np.zeros(len(c) // 2 - 5)], len(c))
    ),
    "highest of all": lambda c: 0.9 * c.max() - c,
    "interpolated": lambda c: c.where(c.index % 5 == 0).interpolate() - c,
    "regression on all rows": lambda c: c - np.polyval(np.polyfit(c.index, c, 1), c.index),
    "one bar only": lambda c: (c.rolling(5).mean() - c).where(c.index != 47, c.shift(-1) - c),
    "only keeps from trading": lambda c: ((c.rolling(5).mean() < c) & (c.shift(-1) > c)).astype(float),
    "from the end backwards": lambda c: c[::-1].ewm(span=5).mean()[::-1] - c,
    "the turning points": lambda c: (c == c.rolling(7, center=True).min()).astype(float),
    "how many rows there are": lambda c: (c.index > len(c) // 2).astype(float),
}
CLEAN: dict[str, Signal] = {
    "yesterday": lambda c: c - c.shift(1),
    "average": lambda c: c - c.rolling(9).mean(),
    "growing mean": lambda c: c - c.expanding().mean(),
    "growing rank": lambda c: c.expanding().rank(pct=True) - 0.5,
    "exponential": lambda c: c - c.ewm(span=7, adjust=False).mean(),
    "forward-filled": lambda c: c.where(c.index % 4 == 0).ffill() - c,
    "highest so far": lambda c: 0.9 * c.cummax() - c,
    "drawdown": lambda c: c / c.cummax() - 0.95,
    "by the calendar": lambda c: (c.index % 10 < 5).astype(float),
    "volatility": lambda c: c.pct_change().rolling(10).std() - 0.01,
    "always": lambda c: c * 0 + 1,
    "never": lambda c: c * 0,
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found(name):
    verdict = judged(LEAKS[name])
    assert not verdict.passed and "remade" in verdict.figures["first"], verdict


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_strategy_raises_no_alarm(name):
    assert judged(CLEAN[name]).passed


class Coin(Strategy):
    "Draws without a seed."

    def on_bar(self, bar: Any, market: Any) -> None:
        market.target_weight(bar.asset, 0.5 if random.random() < 0.5 else 0.0)


RUNS: list[float] = []


class Counts(Strategy):
    "Keeps outside of itself what an earlier run saw."

    def on_bar(self, bar: Any, market: Any) -> None:
        if len(RUNS) % 2 == 0:
            market.target_weight(bar.asset, 0.5)

    def on_stop(self, market: Any) -> None:
        RUNS.append(market.now)


def test_a_run_that_is_another_one_each_time_is_found():
    for strategy in (Coin(), Counts()):
        verdict = leakage(Study(strategy, TAPE), GATES)
        assert not verdict.passed and "repeated" in verdict.figures["first"]


def test_a_fill_at_the_close_that_was_decided_on_is_found_unless_it_is_stated():
    """The model of an auction, hidden from the gate, is what it looks for."""
    study = following(CLEAN["average"], TAPE)
    stated = leakage(Study(study.strategy, TAPE, {"same_close": True}), GATES)
    assert stated.passed and any("closing auction" in note for note in stated.notes)

    class Hidden(dict):
        def get(self, name: str, default: Any = None) -> Any:
            return default if name == "same_close" else super().get(name, default)

    hidden = leakage(Study(study.strategy, TAPE, Hidden(same_close=True)), GATES)
    assert not hidden.passed and "fills" in hidden.figures["first"]


def test_the_verdict_is_the_same_twice():
    first, second = (judged(CLEAN["average"]) for _ in range(2))
    assert first.json.replace(first.inputs["code"], "") == second.json.replace(second.inputs["code"], "")


@pytest.mark.parametrize("name", ["KnownDrift"])
def test_what_ships_is_clean(name):
    study = Study.of(name, None, "2026-11-01")
    assert leakage(study.on(study.tape.truncate(int(study.tape.events["known"][400]))), GATES).passed
