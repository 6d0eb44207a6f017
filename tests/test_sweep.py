"""A point of a sweep is the backtest of that point, bit for bit, in any thread and after any other point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.engine.backtest import Session
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy
from quantbench.engine.sweep import OUTCOME, Sweep, sweep
from quantbench.engine.tape import Tape
from quantbench.engine.window import array, ewma, per_asset, state, window
from quantbench.portfolio.costs import Costs

DAY = 86_400_000_000_000
CHOICES: dict[str, Any] = {
    "cash": 1e5,
    "costs": Costs(taker_bps=1.0, spread_bps=3.0, borrow_bps=30.0),
    "seed": 3,
}
GRID = {"slow": [5, 9, 40], "size": [1.0, 7.0], "crowd": [0, 80]}


class Mixed(Strategy):
    """Every kind of state, targets and limit orders, and at some points more open orders than there is room for at first."""

    slow: int = 5
    size: float = 1.0
    crowd: int = 0
    seen: Any = per_asset(window("slow"))
    smooth: Any = ewma("slow")
    sums: Any = array(2)
    steps: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.steps += 1
        self.smooth.push(bar.close)
        self.sums[bar.asset] += bar.close
        self.seen[bar.asset].push(bar.close)
        if self.steps == 100:
            for k in range(self.crowd):
                market.buy(bar.asset, 1.0, limit=bar.close - 0.5 - 0.01 * k, tif="gtc")
        if self.seen[bar.asset].full:
            above = self.seen[bar.asset].mean() < bar.close and self.sums[bar.asset] > self.smooth.value
            market.target(bar.asset, self.size if above else -self.size)


def made(times: int = 200) -> Tape:
    rng = np.random.default_rng(11)
    events = np.zeros(2 * times, BAR)
    events["known"] = np.repeat(np.arange(1, times + 1), 2) * DAY + 18_000 * DAY
    events["since"] = events["known"] - DAY
    events["asset"] = np.tile([0, 1], times)
    events["kind"] = KIND_BAR
    close = np.round(100 * np.exp(rng.normal(0, 0.02, (times, 2)).cumsum(0)), 2)
    opens = np.vstack([close[:1], close[:-1]])
    events["open"], events["close"] = opens.ravel(), close.ravel()
    events["high"], events["low"] = np.maximum(opens, close).ravel(), np.minimum(opens, close).ravel()
    events["volume"] = 1e6
    return Tape.from_events(events, assets_of(["A", "B"], "equity", "24/7"), interval="1d")


TAPE = made()


def swept(**more: Any) -> Sweep:
    return sweep(Mixed, TAPE, GRID, **{**CHOICES, "shown": False, "per_year": 365.0, **more})


def alone(parameters: dict[str, Any], lane: str = "auto") -> tuple[Any, ...]:
    """The point in an ordinary session, logs kept."""
    session = Session(Mixed(**parameters), TAPE, lane=lane, **CHOICES)
    for chunk in TAPE.chunks():
        session.feed(chunk)
    session.finish()
    run, result = session.memory.run[0], session.result()
    assert result.logs.curve["equity"][-1] == run["equity"]
    equity = np.r_[1e5, result.logs.curve["equity"]]
    change = equity[1:] / equity[:-1] - 1.0
    total = square = 0.0
    for one in change.tolist():
        total, square = total + one, square + one * one
    return (
        run["equity"], total, square, run["n_steps"], run["max_drawdown"], run["turnover"], run["fees"],
        run["next_id"] - 1, run["stopped"].sum(),
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_a_point_is_its_backtest(workers: int) -> None:
    found = swept(workers=workers)
    assert found.lane == "compiled" and len(found) == 12 and len(set(found.outcomes["equity"].tolist())) > 6
    for point in range(len(found)):
        expected = np.array([alone(found.parameters(point))], OUTCOME)
        assert found.outcomes[point : point + 1].tobytes() == expected.tobytes(), found.parameters(point)


def test_interpreted_points_are_the_same() -> None:
    compiled, interpreted = (
        swept(lane=lane, workers=2).outcomes.tobytes() for lane in ("compiled", "interpreted")
    )
    assert compiled == interpreted


def test_a_file_of_another_setup_is_refused(tmp_path: Any) -> None:
    whole = swept(resume=tmp_path / "points").outcomes.tobytes()
    lines = (tmp_path / "points").read_bytes().splitlines(keepends=True)
    (tmp_path / "points").write_bytes(b"".join(lines[:5]) + lines[5][:9])
    assert swept(resume=tmp_path / "points").outcomes.tobytes() == whole
    for other in ({"cash": 2e5}, {"costs": Costs(taker_bps=2.0)}, {"seed": 4}):
        with pytest.raises(QuantbenchError) as caught:
            swept(resume=tmp_path / "points", **other)
        assert caught.value.code == "QB-ENG-223"
