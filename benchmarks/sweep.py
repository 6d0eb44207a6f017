"""W3: a thousand pairs of averages over 10,000 minute bars, Sharpe ratio and drawdown of each. Ours against the peers.

    python benchmarks/sweep.py [bars, default 10,000]      # `make peers` installs the peers first

Every point is the whole engine: Guardian, ledger, costs. The bare loops trade the same in 20 lines of numba on shared prefix sums and keep
no statistics; they are the limit of this machine, on one thread and on two. The line "every point counted" adds each point to a ledger of looks, as on the data of a lake. Ours, the bare loops and vectorbt must agree on the mean final equity.
Peak memory is that of the whole process with its imports; what the sweep itself adds is printed below the table.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _measure import CASH, FEE, MINUTE, SIZE, START, Run, local, minutes, pairs, peers, serve, table, turns
from engine import frame, setup, strategy, tape

GRID = {"fast": range(2, 27), "slow": range(30, 110, 2)}


def ours(count: int, workers: int, ledger: Path | None = None) -> Run:
    from quantbench.engine.sweep import sweep

    cross, events = strategy(), tape(count)
    events = events.counted(ledger) if ledger else events

    def run() -> tuple[int, float]:
        found = sweep(cross, events, GRID, workers=workers, shown=False, **setup())
        found.figure("sharpe"), found.figure("max_drawdown")
        return int(found.figure("requests").sum()), float(found.outcomes["equity"].mean())

    return run


def bare(count: int, parallel: bool) -> Run:
    from numba import njit, prange

    open_, _, _, close, _ = minutes(count)
    fast, slow = np.array(pairs()).T.copy()
    sums = np.r_[0.0, np.cumsum(close)]

    @njit(parallel=parallel)
    def trade(open_: Any, close: Any, sums: Any, fast: Any, slow: Any, ends: Any, fills: Any) -> None:
        for k in prange(len(fast)):
            f, s = fast[k], slow[k]
            cash, held, asked, traded = CASH, 0.0, 0.0, 0
            for i in range(s - 1, len(close)):
                if asked != 0.0:
                    cash -= asked * open_[i] + abs(asked) * open_[i] * FEE
                    held, asked, traded = held + asked, 0.0, traded + 1
                gap = (sums[i + 1] - sums[i + 1 - f]) / f - (sums[i + 1] - sums[i + 1 - s]) / s
                if gap > 1e-9 and held == 0.0:
                    asked = SIZE
                elif gap < -1e-9 and held > 0.0:
                    asked = -SIZE
            ends[k], fills[k] = cash + held * close[-1], traded

    def run() -> tuple[int, float]:
        ends, fills = np.empty(len(fast)), np.empty(len(fast), np.int64)
        trade(open_, close, sums, fast, slow, ends, fills)
        return int(fills.sum()), float(ends.mean())

    return run


def vectorbt(count: int, engine: str) -> Run:
    import pandas as pd
    import vectorbt as vbt

    bars, points = frame(count), pairs()
    columns = pd.MultiIndex.from_tuples(points, names=["fast", "slow"])

    def run() -> tuple[int, float]:
        fast, slow = (
            vbt.MA.run(bars["Close"], list(windows)).ma.to_numpy() for windows in zip(*points, strict=True)
        )
        gap = fast - slow
        above, below = np.zeros(gap.shape, bool), np.zeros(gap.shape, bool)
        above[1:], below[1:] = gap[:-1] > 1e-9, gap[:-1] < -1e-9
        entries, exits = (pd.DataFrame(signals, bars.index, columns) for signals in (above, below))
        portfolio = vbt.Portfolio.from_signals(
            bars["Close"], entries, exits, price=bars["Open"], size=SIZE, fees=FEE, init_cash=CASH, freq="1min", engine=engine,
        )  # fmt: skip
        portfolio.sharpe_ratio(), portfolio.max_drawdown()
        return int(portfolio.orders.count().sum()), float(portfolio.final_value().mean())

    return run


def raptorbt(count: int) -> Run:
    import raptorbt as rb

    bars = minutes(count)
    times = START + np.arange(count) * MINUTE
    settings = rb.BacktestConfig(initial_capital=CASH, fees=FEE, fill_timing="next_bar_open")
    asset = rb.InstrumentConfig(lot_size=1.0, alloted_capital=10_000.0)

    def run() -> tuple[int, float]:
        items = []
        for fast, slow in pairs():
            gap = rb.sma(bars[3], fast) - rb.sma(bars[3], slow)
            items.append(rb.BatchSingleItem("", gap > 1e-9, gap < -1e-9, 1, 1.0, "A", settings, None, asset))
        found = [one.metrics for _, one in rb.batch_single_backtest(times, *bars, items, settings)]
        ends = [CASH * (1 + one.total_return_pct / 100) for one in found]
        return 2 * sum(one.total_trades for one in found), float(np.mean(ends))

    return run


MAKE = {
    "vectorbt, signals (Rust)": lambda count: vectorbt(count, "rust"),
    "vectorbt, signals (numba)": lambda count: vectorbt(count, "numba"),
    "raptorbt, batch (Rust)": raptorbt,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bars", type=int, nargs="?", default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer:
        return serve(MAKE[words.peer](words.bars))
    mine = {f"ours, {n} thread{'s' * (n > 1)}": ours(words.bars, n) for n in (1, 2)}
    mine["ours, 2 threads, every point counted"] = ours(words.bars, 2, Path(tempfile.mkdtemp()) / "looks")
    for run in mine.values():
        run()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    floor = {f"bare numba loop, {n} thread{'s' * (n > 1)}": bare(words.bars, n > 1) for n in (1, 2)}
    with peers(__file__, dict.fromkeys(MAKE, "vectorbt"), words.bars) as others:
        found = turns(local(floor | mine) | others, words.rounds)
    print(f"W3, {len(pairs()):,} points x {words.bars:,} bars, medians of {words.rounds} rounds in turn\n")
    table(
        found,
        words.bars * len(pairs()),
        bare="bare numba loop, 2 threads",
        ours="ours, 2 threads",
        unit="bars",
    )
    print(f"\npeak memory of this process after our sweeps, before the others: {used:,.0f} MB")
    ends = {
        name: round(runs[-1].equity, 2) for name, runs in found.items() if not name.startswith("raptorbt")
    }
    if len(set(ends.values())) != 1:
        raise SystemExit(f"final equities differ: {ends}")


if __name__ == "__main__":
    main()
