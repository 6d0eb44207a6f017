"""Sliders without a browser: what a move runs is the backtest, what was looked at is counted, what fails is shown and does not end it."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.data.looks import read
from quantbench.engine.backtest import backtest
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.explore import Explorer, explore, stops
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.sweep import sweep
from quantbench.engine.tape import Tape
from quantbench.engine.window import window

DAY = 86_400_000_000_000
CHOICES: dict[str, Any] = {"cash": 5e4, "seed": 3}


class Dip(Strategy):
    """A parameter of each kind; raises where a price is above `most`."""

    days: int = param(10, low=1, high=400)
    weight: float = param(0.9, low=0.0, high=1.0)
    short: bool = False
    most: float = 1e9
    recent: Any = window("days")

    def on_bar(self, bar: Any, market: Any) -> None:
        if bar.close > self.most:
            raise ValueError("above the most")
        self.recent.push(bar.close)
        low = bar.close < self.recent.mean()
        market.target_weight(bar.asset, self.weight if low else -self.weight if self.short else 0.0)


def made(count: int = 300) -> Tape:
    rng = np.random.default_rng(5)
    events = np.zeros(count, BAR)
    events["known"] = (np.arange(1, count + 1) + 18_000) * DAY
    events["since"], events["kind"], events["volume"] = events["known"] - DAY, KIND_BAR, 1e6
    close = np.round(100 * np.exp(rng.normal(0, 0.02, count).cumsum()), 2)
    opens = np.r_[close[:1], close[:-1]]
    events["open"], events["close"] = opens, close
    events["high"], events["low"] = np.maximum(opens, close), np.minimum(opens, close)
    return Tape.from_events(events, assets_of(["A"], "equity", "24/7"), interval="1d")


TAPE = made()


def fresh(**more: Any) -> Explorer:
    return explore(Dip, TAPE, **{**CHOICES, **more})


def sliders(explorer: Explorer) -> dict[str, Any]:
    return {one.description: one for one in explorer.panel.children[0].children}


@pytest.mark.parametrize("lane", ["auto", "interpreted"])
def test_a_move_is_the_backtest(lane: str) -> None:
    """To the last bit, in any order, with the numbers that the page shows."""
    explorer, seen = fresh(lane=lane), set()
    for values in ({"days": 3}, {"days": 40, "short": True}, {"weight": 0.3}, {"days": 10, "short": False}):
        result = explorer.move(**values)
        alone = backtest(Dip(**explorer.values), TAPE, lane=lane, **CHOICES)
        assert result.hash == alone.hash and result.metrics == alone.metrics
        assert result.provenance.parameters == alone.provenance.parameters == explorer.values
        assert f"{100 * alone.metrics['CAGR']:,.2f} %" in explorer.page()
        seen.add(result.hash)
    assert len(seen) == 4


def test_a_slider_moves_it() -> None:
    explorer = fresh()
    explorer.panel.children[1].value = "old"
    sliders(explorer)["days"].value = 25
    assert explorer.values["days"] == 25
    assert explorer.result.hash == backtest(Dip(days=25), TAPE, **CHOICES).hash
    sliders(explorer)["short"].value = True
    assert explorer.result.hash == backtest(Dip(days=25, short=True), TAPE, **CHOICES).hash
    assert explorer.panel.children[1].value == explorer.page() and "3 values looked at" in explorer.page()


def test_stops_are_as_declared_and_all_can_be_run() -> None:
    days, weight = stops(Dip, "days"), stops(Dip, "weight")
    assert days[0] == 1 and days[-1] == 400 and {type(v) for v in days} == {int}
    assert (weight[0], weight[-1]) == (0.0, 1.0) and all(b > a for a, b in pairwise(weight))
    assert stops(Dip, "short") == (False, True) and stops(Dip, "most")[0] == 2.5e8
    assert stops(Dip, "days", [30, 5, 30]) == (5, 30) and stops(Dip, "days", (4, 7)) == (4, 5, 6, 7)
    for name in Dip.parameters:
        for value in stops(Dip, name):
            Dip(**{name: value})
    assert 0.123 in fresh(ranges={"weight": [0.1, 0.5]}).move(weight=0.123).provenance.parameters.values()
    assert 10 in explore(Dip, TAPE, ranges={"days": [3, 4]}, **CHOICES).stops["days"]  # where it begins


@pytest.mark.parametrize(
    ("ranges", "code"),
    [({"dais": (1, 2)}, "QB-ENG-220"), ({"days": (1, 500)}, "QB-ENG-004"), ({"weight": (0.5, float("nan"))}, "QB-ENG-220"),
     ({"days": (9, 9)}, "QB-ENG-220"), ({"days": [1.5]}, "QB-ENG-220")],
)  # fmt: skip
def test_a_range_that_cannot_be_is_refused(ranges: dict[str, Any], code: str) -> None:
    with pytest.raises(QuantbenchError) as caught:
        fresh(ranges=ranges)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("values", "code"),
    [({"days": 0}, "QB-ENG-004"), ({"days": 401}, "QB-ENG-004"), ({"weight": float("nan")}, "QB-ENG-004"), ({"day": 5}, "QB-ENG-001")],
)  # fmt: skip
def test_a_value_that_is_refused_changes_nothing(values: dict[str, Any], code: str) -> None:
    explorer = fresh()
    before, page = explorer.result.hash, explorer.page()
    with pytest.raises(QuantbenchError) as caught:
        explorer.move(**values)
    assert caught.value.code == code
    assert explorer.result.hash == before and explorer.page() == page and len(explorer.trials) == 1


def test_every_point_looked_at_is_counted_as_of_a_sweep(tmp_path: Path) -> None:
    explorer = explore(Dip, TAPE.counted(tmp_path / "looked"), **CHOICES)
    for days in (20, 30, 20, 10):
        sliders(explorer)["days"].value = days
    grid = {"days": [10, 20, 30], "weight": [0.9], "short": [False], "most": [1e9]}
    swept = sweep(Dip, TAPE.counted(tmp_path / "swept"), grid, shown=False, **CHOICES)
    looked, known = (
        {
            (*(column[k] for column in (*look.parameters.values(), *look.outcomes.values())), look.account)
            for look in read(tmp_path / name).looks
            for k in range(len(look))
        }
        for name in ("looked", "swept")
    )
    assert len(known) == 3 and looked == known
    assert explorer.trials.noise == swept.noise and "3 values looked at" in explorer.luck


def test_a_strategy_that_raises_is_shown_and_does_not_end_it() -> None:
    explorer = fresh(ranges={"most": (90.0, 1e9)})
    page, slider = explorer.panel.children[1], sliders(explorer)["most"]
    slider.value = slider.options[0][1]
    assert "QB-ENG-014" in page.value and "above the most" in page.value and len(explorer.trials) == 1
    slider.value = slider.options[-1][1]
    assert "QB-ENG-014" not in page.value and "<svg" in page.value
    assert explorer.result.hash == backtest(Dip(), TAPE, **CHOICES).hash


def test_intervals_and_journal_when_it_rests(tmp_path: Path) -> None:
    """One group of records for a gesture, and the intervals of where it ended."""

    async def gesture(explorer: Explorer) -> list[bool]:
        shown = []
        explorer.shown = lambda: shown.append(" to " in explorer.page())
        for days in (20, 30, 40):
            explorer.move(days=days)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            while not (shown and shown[-1]):
                await asyncio.sleep(0.01)
        return shown

    explorer = explore(Dip, TAPE.counted(tmp_path / "looks"), settle=0.05, **CHOICES)
    shown = asyncio.run(gesture(explorer))
    assert shown == [False, False, False, True]
    assert explorer.bounds == backtest(Dip(days=40), TAPE, **CHOICES).intervals
    assert [len(look) for look in read(tmp_path / "looks").looks] == [1, 3]


def test_a_ledger_that_fails_is_seen(tmp_path: Path) -> None:
    async def rest(explorer: Explorer) -> None:
        explorer.move(days=20)
        await explorer._resting  # type: ignore[misc]

    explorer = explore(Dip, TAPE.counted(tmp_path / "looks"), settle=0.0, **CHOICES)
    (tmp_path / "looks").unlink()
    asyncio.run(rest(explorer))
    assert explorer.error is not None and explorer.error.code == "QB-LOOK-002"
    assert explorer.error.code in explorer.page()


def test_without_ipywidgets_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ipywidgets":
            raise ImportError("No module named 'ipywidgets'")
        return found(name, *rest, **more)

    explorer = fresh()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(QuantbenchError) as caught:
        _ = explorer.panel
    assert caught.value.code == "QB-ENG-231" and "quantbench[lab]" in str(caught.value)
    monkeypatch.setattr("quantbench.engine.explore.answering", lambda: True)
    shown = explorer._repr_mimebundle_()
    assert "quantbench[lab]" in shown["text/html"] and "<img" in shown["text/html"]


def test_nothing_to_move_is_refused() -> None:
    class Plain(Strategy):
        def on_bar(self, bar: Any, market: Any) -> None:
            market.target(bar.asset, 1.0)

    with pytest.raises(QuantbenchError) as caught:
        explore(Plain, TAPE, **CHOICES)
    assert caught.value.code == "QB-ENG-230"


def test_what_a_notebook_stores_is_small_still_and_the_same() -> None:
    """No widget in it, the same bytes each time; with a kernel the widget comes first and the card beside it."""
    bundles = [fresh()._repr_mimebundle_() for _ in range(2)]
    assert bundles[0] == bundles[1] and set(bundles[0]) == {"text/html", "text/plain"}
    assert sum(map(len, bundles[0].values())) < 200_000


def test_with_a_kernel_the_sliders_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantbench.engine.explore.answering", lambda: True)
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(fresh()._repr_mimebundle_())


def test_importing_it_loads_no_widgets() -> None:
    code = "import sys, quantbench.engine.explore; print('ipywidgets' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
