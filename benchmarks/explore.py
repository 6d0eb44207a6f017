"""From the move of a slider to the page that is sent: the whole backtest on twenty years of daily bars, numbers and picture.

    python benchmarks/explore.py [bars, default 5,040]

The callback of a real slider is called, as the kernel calls it for the front end; what the browser adds is not in it. The strategy runs in both
lanes, with a ledger of looks on disk. The aim is 100 ms. Beside it what the page is made of, and the picture as matplotlib would draw it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from _measure import business_days, days

from quantbench.core.plot import line
from quantbench.engine.explore import Explorer, draw, explore, numbers
from quantbench.engine.tape import Tape
from quantbench.strategies.crossover import MovingAverageCross


def tape(count: int) -> Tape:
    opens, close = (prices[:, 0] for prices in days(1, count))
    ends = {"high": np.maximum(opens, close), "low": np.minimum(opens, close)}
    index = pd.DatetimeIndex(business_days(count), tz="UTC")
    frame = pd.DataFrame({"open": opens, **ends, "close": close, "volume": 1e6}, index=index)
    return Tape.from_bars(frame, symbol="AAA", adjustment="raw", calendar="24/7")


def timed(task: Callable[[int], object], values: range) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of each, ascending."""
    wall, cpu = [], []
    for value in values:
        start, begun = time.perf_counter(), time.process_time()
        task(value)
        wall.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.process_time() - begun))
    return sorted(wall), sorted(cpu)


def row(name: str, found: tuple[list[float], list[float]]) -> None:
    wall, cpu = found
    middle, late = len(wall) // 2, int(0.95 * len(wall))
    print(f"{name:44}{cpu[middle]:9.1f}{cpu[late]:9.1f}{wall[middle]:9.1f}{wall[late]:9.1f}")


def slide(explorer: Explorer) -> Callable[[int], object]:
    slider = next(one for one in explorer.panel.children[0].children if one.description == "fast")
    return lambda value: setattr(slider, "value", value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bars", type=int, nargs="?", default=5040)
    parser.add_argument("--moves", type=int, default=90)
    words = parser.parse_args()
    found, values = tape(words.bars), range(10, 10 + words.moves)
    print(f"{words.bars:,} daily bars, {words.moves} moves, milliseconds\n")
    print(f"{'':44}{'CPU p50':>9}{'CPU p95':>9}{'p50':>9}{'p95':>9}")
    counted = found.counted(Path(tempfile.mkdtemp()) / "looks")
    for lane in ("compiled", "interpreted"):
        explorer = explore(MovingAverageCross, counted, lane=lane, ranges={"fast": (1, 200)})
        move = slide(explorer)
        timed(move, range(1, 6))
        row(f"a move, {lane}", timed(move, values))
    explorer = explore(MovingAverageCross, found)
    runs = [explorer.move(fast=value) for value in values]
    row("of it: the run, as a result", timed(lambda value: explorer.move(fast=value), values))
    row("of it: the numbers", timed(lambda k: numbers(runs[k - values[0]], explorer.hold, {}), values))
    row("of it: the picture", timed(lambda k: draw(runs[k - values[0]], explorer.hold), values))
    curves = {"strategy": runs[0].track.equity}
    row(
        "the picture by matplotlib, for comparison",
        timed(lambda _: line(curves, title="equity").png(), range(5)),
    )
    print(f"\npage: {len(explorer.page()):,} characters; trials: {len(explorer.trials):,}")


if __name__ == "__main__":
    main()
