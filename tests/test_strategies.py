"""The shipped strategies: the numbers they gave, in both lanes, in every process, and none from the future."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from quantbench.core.clock import WallClock
from quantbench.core.types import AssetClass
from quantbench.data.ingest import ingest
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake
from quantbench.engine.backtest import backtest
from quantbench.engine.events import KIND_BAR
from quantbench.engine.memory import REJECTED, SUBMITTED
from quantbench.engine.tape import Tape
from quantbench.strategies.crossover import MovingAverageCross

GOLDEN = Path(__file__).resolve().parent.parent / "fixtures" / "golden" / "crossover.json"
SOAK = os.environ.get("QUANTBENCH_SOAK") == "1"


@cache
def spy() -> Tape:
    """SPY as traded, with its dividends, from the bundled sample."""
    lake = Lake.create(Path(mkdtemp()) / "lake", clock=WallClock())
    ingest(lake, SampleSource(), only=["raw-bars", "corporate-actions"], quarantine=0.001, tell=None)
    as_of = dt.datetime(2021, 4, 1, tzinfo=dt.UTC)
    return Tape.from_lake(
        lake, as_of=as_of, assets="SPY", actions=True, specs=AssetClass.ETF, calendar="XNYS"
    ).load()


@cache
def run(lane: str = "auto"):
    return backtest(MovingAverageCross(), spy(), lane=lane)


def decisions(tape: Tape, moment: int) -> list[tuple[int, ...]]:
    """What was asked for by then. A fill at an open says what the bar was that began there, and that was not known yet."""
    made = backtest(MovingAverageCross(), tape).logs.transitions
    made = made[(made["time"] <= moment) & np.isin(made["state"], (SUBMITTED, REJECTED))]
    return made[["time", "order", "asset", "lots", "side", "kind", "state", "reason"]].tolist()


def test_golden_numbers():
    """Exactly: a change here is a change of what the engine does, and must be meant."""
    found, kept = run().golden(), json.loads(GOLDEN.read_text())
    assert len(kept) >= 30 and "orders_hash" in kept
    assert json.loads(json.dumps(found)) == kept


def test_both_lanes_give_the_same_bytes():
    assert run("auto").provenance.lanes["on_bar"] == "compiled"
    assert run("interpreted").provenance.lanes["on_bar"].startswith("interpreted")
    assert run("interpreted").hash == run("auto").hash


def test_three_runs_are_one():
    assert {backtest(MovingAverageCross(), spy()).hash for _ in range(3)} == {run().hash}


@pytest.mark.parametrize("seed", ["0", "1"])
def test_no_order_of_a_set_gets_in(seed):
    code = "import sys; sys.path.insert(0, 'tests'); from test_strategies import run; print(run().hash)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd=GOLDEN.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == run().hash


def test_the_future_is_not_seen():
    tape = spy()
    known = tape.events["known"][tape.events["kind"] == KIND_BAR]
    orders = [int(t) for t in run().logs.transitions["time"]]
    chosen = known[1:] if SOAK else np.unique([*known[200::800], *orders[:4], *orders[-4:]])
    assert len(decisions(tape, orders[-1])) > 10 and len(chosen) > 8
    for moment in map(int, chosen):
        before = decisions(tape, moment)
        assert decisions(tape.truncate(moment), moment) == before
        assert decisions(tape.poison(moment, 7), moment) == before
