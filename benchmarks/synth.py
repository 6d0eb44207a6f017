"""A million made bars against the same number of bare random walks, drawn and raised to prices by NumPy alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from quantbench.data.feeds import book, order_flow
from quantbench.data.synth import grid, pairs, regimes, trends

DAYS, MINUTES = grid(2520), grid(257, interval="1m")
NAMES = [f"A{i:03}" for i in range(500)]


def bare(rows: int) -> Callable[[], object]:
    """One normal and one exponential function a bar: the least any market can cost."""
    return lambda: np.exp(np.cumsum(np.random.default_rng(1).standard_normal(rows) * 0.01))


CASES = {
    "trends, 500 assets, 2,520 days": (lambda: trends(NAMES, DAYS, seed=1), 500 * len(DAYS)),
    "trends, 10 assets, minutes": (lambda: trends(NAMES[:10], MINUTES, seed=1), 10 * len(MINUTES)),
    "regimes, 10 assets, minutes": (lambda: regimes(NAMES[:10], MINUTES, seed=1), 10 * len(MINUTES)),
    "pairs, 5 pairs, minutes": (
        lambda: pairs([(a, f"{a}.x") for a in NAMES[:5]], MINUTES, seed=1),
        10 * len(MINUTES),
    ),
    "order flow, trades and quotes": (lambda: order_flow("A", seed=1, sessions=50, trades=10_000), 1_000_050),
    "book, rows": (lambda: book("A", seed=1, events=770_000), 1_001_000),
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    table = Table(
        "market", "rows", "seconds", "times the bare walk", title="made markets, median of 5, interleaved"
    )
    for name, (make, rows) in CASES.items():
        runs = [(seconds(make), seconds(bare(rows))) for _ in range(5)]
        made, least = (median(column) for column in zip(*runs, strict=True))
        table.add_row(name, f"{rows:,}", f"{made:.2f}", f"{made / least:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
