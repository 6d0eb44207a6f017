"""A point of a sweep is the backtest of that point, bit for bit, in any thread and after any other point."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.journal import Journal, read
from quantbench.engine import sweep as sweep_module
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


class Slow(Strategy):
    """Runs in Python; where a gate is stated the sixth point waits at it, and there the test kills it."""

    size: float = 1.0

    def on_bar(self, bar: Any, market: Any) -> None:
        if self.size == 6.0 and "QUANTBENCH_TEST_GATE" in os.environ:
            Path(os.environ["QUANTBENCH_TEST_GATE"]).read_bytes()
        market.target(bar.asset, self.size if bar.close > bar.open else 0.0)


SIZES = {"size": [float(size) for size in range(1, 12)]}


def test_a_killed_sweep_has_kept_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by thousands of points only: each of these could have taken an hour."""
    monkeypatch.setattr(sweep_module, "_KEPT_EVERY", 0.0)
    whole = sweep(Slow, TAPE, SIZES, shown=False, per_year=365.0, **CHOICES)
    program = f"""if 1:
        import sys; sys.path.insert(0, "tests")
        import test_sweep as t
        from quantbench.core.clock import WallClock
        from quantbench.core.journal import Journal
        t.sweep_module._KEPT_EVERY = 0.0
        with Journal.open({str(tmp_path / "journal")!r}, clock=WallClock()) as journal:
            t.sweep(t.Slow, t.TAPE, t.SIZES, shown=False, per_year=365.0, journal=journal, resume={str(tmp_path / "points")!r}, **t.CHOICES)
    """
    os.mkfifo(tmp_path / "gate")
    gated = os.environ | {"QUANTBENCH_TEST_GATE": str(tmp_path / "gate")}
    child = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[1], env=gated)
    points, begun = tmp_path / "points", WallClock().monotonic()
    try:
        while not (points.exists() and points.read_bytes().count(b"\n") == 6):
            assert child.poll() is None and WallClock().monotonic() < begun + 120
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    with Journal.open(tmp_path / "journal", clock=WallClock()) as journal:
        again = sweep(
            Slow, TAPE, SIZES, shown=False, per_year=365.0, journal=journal, resume=points, **CHOICES
        )
    assert again.outcomes.tobytes() == whole.outcomes.tobytes() and again.df.equals(whole.df)
    trials = [dict(r.payload)["parameters"]["size"] for r in read(tmp_path / "journal") if r.kind == "trial"]
    assert trials == SIZES["size"]


class Fragile(Strategy):
    most: float = 1e9
    bad: float = 0.0

    def on_bar(self, bar: Any, market: Any) -> None:
        if bar.close > self.most or self.most == self.bad:
            raise ValueError("above the most")
        market.target(bar.asset, 1.0)


def test_a_point_that_raises_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    run = partial(
        sweep, Fragile, TAPE, shown=False, workers=1, per_year=365.0, resume=tmp_path / "points", **CHOICES
    )
    with pytest.raises(QuantbenchError) as caught:
        run({"most": [1e6 + k for k in range(39)], "bad": [1e6 + 30]})
    assert caught.value.code == "QB-ENG-227" and "1000030" in str(caught.value)
    assert "above the most" in str(caught.value)
    assert (tmp_path / "points").read_bytes().count(b"\n") > 25
    found = run({"most": [1e6 + k for k in range(39) if k != 30], "bad": [1e6 + 30]})
    assert len(found) == 38 and np.isfinite(found.figure("sharpe")).all()


def test_a_design_is_bounded_before_it_is_laid_out() -> None:
    with pytest.raises(QuantbenchError) as caught:
        swept_grid = {"slow": range(2, 9_000), "crowd": range(9_000), "size": np.linspace(1.0, 2.0, 9_000)}
        sweep(Mixed, TAPE, swept_grid, shown=False, **CHOICES)
    assert caught.value.code == "QB-ENG-222" and "728,838,000,000 points" in str(caught.value)


def test_many_points_take_the_memory_that_was_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    """The design, what became of it, and nothing of Python's for each point."""
    short = TAPE.truncate(dt.datetime(2019, 4, 16, tzinfo=dt.UTC))
    run = partial(sweep, Fragile, short, {"most": (1e6, 2e6)}, design="random", per_year=365.0, workers=1)
    run(n=10)
    tracemalloc.start()
    run(n=20_000)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    said = float(re.findall(r"([\d.]+) MB", capsys.readouterr().out)[-1])
    assert peak < 1.5 * said + 1.0


def test_equal_gains_have_no_sharpe_ratio() -> None:
    """A difference of two sums is never exactly zero."""
    outcome = np.zeros(1, OUTCOME)
    outcome["n_steps"], outcome["sum_return"] = 2520, sum([0.001] * 2520)
    outcome["sum_square"] = sum([0.001**2] * 2520)
    found = sweep_module.FIGURES["sharpe"](outcome, 1.0, 252.0, 10.0)
    assert np.isnan(found).all()


def test_points_are_entered_in_the_order_of_the_design() -> None:
    """Whichever thread is done first: a journal of trials is the same bytes each time."""
    passed = threading.Event()

    class Turns:
        again = True

        def play(self, strategy: Any) -> tuple[Any, ...]:
            assert strategy.most != 1.0 or passed.wait(60)
            if strategy.most == 4.0:
                passed.set()
            return (0.0,) * len(OUTCOME.names or ())

    rows = [{"most": float(k)} for k in range(1, 5)]
    machines: Any = [Turns(), Turns()]
    spans = list(sweep_module.drive(machines, Fragile, rows, np.zeros(4, OUTCOME)))
    assert [span.start for span in spans] == [0, 1, 2, 3]
