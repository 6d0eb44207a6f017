"""The quoter on five minutes of a real book: its numbers, both lanes, every process, and nothing from the future."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quantbench.data.sources import SampleSource
from quantbench.engine.backtest import Latency, Session, backtest
from quantbench.engine.explore import explore
from quantbench.engine.memory import SUBMITTED
from quantbench.engine.result import Result
from quantbench.engine.sessions import spec
from quantbench.engine.tape import Tape
from quantbench.portfolio.costs import Costs
from quantbench.strategies.quoter import InventoryQuoter

GOLDEN = Path(__file__).resolve().parent.parent / "fixtures" / "golden" / "quoter.json"
SOAK = os.environ.get("QUANTBENCH_SOAK") == "1"
ACCOUNT: dict[str, Any] = {
    "cash": 100_000.0,
    "costs": Costs(name="no maker fee", taker_bps=4.0),
    "latency": Latency(order_seconds=0.005, cancel_seconds=0.005, fill_seconds=0.005),
    "point_every": timedelta(seconds=1),
}


@cache
def book() -> Tape:
    """BTCUSDT: changes of the book and trades, from the bundled sample."""
    source = SampleSource()
    bitcoin = spec("BTCUSDT", "crypto", lot_size=Decimal("0.00001"))

    def rows(name: str) -> pa.Table:
        return pa.concat_tables([chunk.load().rows for chunk in source.backfill(name)])

    return Tape.merge(
        Tape.from_book(rows("btcusdt-book"), specs=bitcoin),
        Tape.from_trades(rows("btcusdt-trades"), specs=bitcoin),
    )


@cache
def run(lane: str = "auto") -> Result:
    return backtest(InventoryQuoter, book(), lane=lane, **ACCOUNT)


def done(found: Result, moment: int) -> tuple[list[Any], list[Any]]:
    """Orders sent and fills made by then."""
    moves, fills = found.logs.transitions, found.logs.fills
    sent = moves[(moves["time"] <= moment) & (moves["state"] == SUBMITTED)]
    return sent.tolist(), fills[fills["time"] <= moment][["time", "order", "lots", "price"]].tolist()


def test_golden_numbers() -> None:
    """Exactly, those that are no number included: a change here is a change of what the engine does, and must be meant."""
    kept = json.loads(GOLDEN.read_text())
    assert len(kept) >= 30 and "orders_hash" in kept
    assert json.dumps(run().golden(), sort_keys=True) == json.dumps(kept, sort_keys=True)


def test_both_lanes_give_the_same_bytes() -> None:
    assert run("auto").provenance.lanes["on_timer"] == "compiled"
    assert run("interpreted").provenance.lanes["on_timer"].startswith("interpreted")
    assert run("interpreted").hash == run("auto").hash


def test_a_thousand_pieces_are_the_whole() -> None:
    """Cut anywhere, also where an order has ended and a fill is still to be found before either is heard of."""
    tape = book()
    session = Session(InventoryQuoter, tape, **ACCOUNT)
    places = np.linspace(0, len(tape), 1_001).astype(int).tolist()
    for start, end in pairwise(places):
        session.feed(tape.events[start:end])
    session.finish()
    assert session.fed == len(tape) and session.result().hash == run().hash


def test_three_runs_are_one() -> None:
    assert {backtest(InventoryQuoter, book(), **ACCOUNT).hash for _ in range(3)} == {run().hash}


@pytest.mark.parametrize("seed", ["0", "1"])
def test_no_order_of_a_set_gets_in(seed: str) -> None:
    code = "import sys; sys.path.insert(0, 'tests'); from test_quoter import run; print(run().hash)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd=GOLDEN.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == run().hash


def test_the_future_is_not_seen() -> None:
    """Cut where everything is on the tape that the venue had done by a moment."""
    tape = book()
    known, since = tape.events["known"], tape.events["since"]
    first = int(known[0])
    orders = run().logs.transitions["time"][run().logs.transitions["state"] == SUBMITTED]
    chosen = [
        *(first + 10**9 * second for second in range(6, 300, 4 if SOAK else 36)),
        *orders[[40, 400]].tolist(),
    ]
    for moment in chosen:
        cut = int(known[np.searchsorted(since, moment, side="right") - 1])
        expected = done(run(), min(moment, cut))
        assert len(expected[0]) > 0
        for other in (tape.truncate(cut), tape.poison(cut, 7)):
            assert done(backtest(InventoryQuoter, other, **ACCOUNT), min(moment, cut)) == expected


def test_the_position_keeps_its_bounds_and_every_fill_made_liquidity() -> None:
    fills, quoter = run().logs.fills, InventoryQuoter()
    held = np.cumsum(fills["lots"] * fills["side"]) * 1e-5
    assert len(fills) > 200 and fills["maker"].all()
    assert np.abs(held).max() <= quoter.most + quoter.size + 1e-9


def test_the_referee_finds_the_same_equity() -> None:
    assert run().check("loop")["loop"] < 1e-9


def test_a_position_moves_the_quotes_against_it() -> None:
    """With what is held the quotes go down: the average price of new buys, seen from the middle, falls from short to long."""
    fills, born = run().logs.fills, run().logs.transitions
    born = born[(born["state"] == SUBMITTED) & (born["side"] > 0)]
    known, _, middle = run().marks()  # type: ignore[misc]
    heard = np.searchsorted(fills["heard"], born["time"], side="right")
    held = np.append(0, np.cumsum(fills["lots"] * fills["side"]))[heard]
    away = middle[np.searchsorted(known, born["time"], side="right") - 1] - born["price"]
    assert away[held > 0].mean() > away[held < 0].mean() + 0.5


def test_the_explorer_works_where_no_frequency_is_told() -> None:
    """Five minutes of a book: there is no Sharpe ratio and no return a year, and everything else."""
    explorer = explore(InventoryQuoter, book(), ranges={"half": [0.5, 1.0]}, **ACCOUNT)
    assert explorer.result.hash == run().hash and np.isnan(explorer.trials.figure("sharpe")).all()
    assert "return a year" not in explorer.page() and "return a year" not in repr(explorer)
    assert explorer.move(half=1.0).hash != run().hash and "2 values looked at" in explorer.page()
