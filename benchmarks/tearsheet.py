"""W7: a tearsheet of 20 years of daily returns beside a benchmark, ours and quantstats', from the same returns, in turns.

python benchmarks/tearsheet.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from quantbench.engine.metrics import Track
from quantbench.reports.tearsheet import tearsheet

DAYS, ROUNDS = 5_040, 3
os.environ.setdefault("MPLBACKEND", "Agg")


def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days, returns of a strategy and of a market it half follows."""
    rng = np.random.default_rng(20240607)
    days = np.busday_offset("2004-01-02", np.arange(DAYS + 1), roll="forward")
    ours = rng.normal(0.0004, 0.01, DAYS)
    return days, ours, 0.5 * ours + rng.normal(0.0002, 0.008, DAYS)


def timed(call: Callable[[], int]) -> tuple[float, float, int]:
    start, cpu = time.perf_counter(), time.process_time()
    size = call()
    return time.perf_counter() - start, time.process_time() - cpu, size


def main() -> None:
    warnings.filterwarnings("ignore")
    days, returns, market = made()
    track, index = (Track.of_returns(r, days[1:], start=days[0]) for r in (returns, market))
    series, beside = (
        pd.Series(r, pd.DatetimeIndex(days[1:]), name=n)
        for r, n in ((returns, "strategy"), (market, "market"))
    )
    import quantstats

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "sheet.html"

        def ours() -> int:
            place.write_text(tearsheet(track, benchmark=index), encoding="utf-8")
            return place.stat().st_size

        def theirs() -> int:
            import matplotlib.pyplot as plt

            quantstats.reports.html(series, benchmark=beside, output=str(place), title="sheet")
            plt.close("all")
            return place.stat().st_size

        found: dict[str, list[tuple[float, float, int]]] = {"quantbench": [], "quantstats": []}
        for number in range(ROUNDS + 1):
            for name, call in (("quantbench", ours), ("quantstats", theirs)):
                one = timed(call)
                if number:  # the first loads and compiles
                    found[name].append(one)
    print(
        f"tearsheet of {DAYS:,} daily returns with a benchmark, median of {ROUNDS}\n{'':12}{'s':>8}{'CPU s':>8}{'kB':>8}"
    )
    medians = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in found.items()
    }
    for name, (seconds, cpu, size) in medians.items():
        print(f"{name:12}{seconds:8.3f}{cpu:8.3f}{size / 1e3:8.0f}")
    print(
        f"quantstats over quantbench: time {medians['quantstats'][0] / medians['quantbench'][0]:.1f}, size {medians['quantstats'][2] / medians['quantbench'][2]:.1f}"
    )


if __name__ == "__main__":
    main()
