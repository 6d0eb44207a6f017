"""W4: a thousand shuffled markets of 5,040 days, two averages traded anew on each, the Sharpe ratio of each. Ours against the peers.

    python benchmarks/permutation.py [markets, default 1,000]      # `make peers` installs the peers first

Ours is what the gate does: a market of whole bars put together on the grid of cents, then the whole engine with Guardian, ledger and costs, fills at the
next open. The others shuffle returns and multiply: a loop of 15 lines in numba, with NumPy's draws as one would write it and with ours (splitmix64), which is the limit
of this machine; a NumPy loop; vectorbt on a matrix of all markets at once. The shuffles differ, so the mean Sharpe ratios agree only as far as a thousand draws let
them; further apart, the benchmark fails.
"""

from __future__ import annotations

import argparse
import resource
from typing import Any

import numpy as np
from _measure import FEE, SEED, Run, local, median, peers, serve, table, turns

DAYS, FAST, SLOW = 5_040, 20, 50


def returns() -> np.ndarray:
    return np.random.default_rng(SEED).normal(0.0003, 0.011, DAYS)


def ours(markets: int, threads: int, method: str = "returns") -> Run:
    import pandas as pd

    from quantbench.engine.study import Study
    from quantbench.engine.tape import Tape
    from quantbench.gates.permutation import Desk, batches
    from quantbench.gates.shuffles import Shuffle
    from quantbench.portfolio.costs import Costs
    from quantbench.strategies.crossover import MovingAverageCross

    close = np.round(100 * np.cumprod(1 + returns()), 2)
    opened = np.r_[100.0, close[:-1]]
    bars = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close, "volume": 1e6}  # fmt: skip
    days = pd.date_range("2000-01-01", periods=DAYS, tz="UTC")
    tape = Tape.from_bars(pd.DataFrame(bars, days), symbol="SYN", calendar="24/7")
    study = Study(MovingAverageCross(fast=FAST, slow=SLOW), tape, {"costs": Costs(taker_bps=1e4 * FEE)})
    desks = [Desk(study, Shuffle(tape, method, seed=SEED)) for _ in range(threads)]

    def run() -> tuple[int, float]:
        scores = np.concatenate(list(batches(desks, markets, 252.0)))
        return len(scores), float(scores.mean())

    return run


def bare(markets: int, parallel: bool, drawn: str) -> Run:
    from numba import njit, prange

    moves, one = returns(), np.uint64
    step, first, second, half = one(0x9E3779B97F4A7C15), one(0xBF58476D1CE4E5B9), one(0x94D049BB133111EB), one(32)  # fmt: skip

    @njit
    def shuffle(r: Any, number: int) -> None:
        np.random.seed(number)
        for i in range(len(r) - 1, 0, -1):
            j = np.random.randint(0, i + 1)
            r[i], r[j] = r[j], r[i]

    @njit
    def cheap(r: Any, number: int) -> None:
        x = one(number) * step + one(1)
        for i in range(len(r) - 1, 0, -1):
            x += step
            z = (x ^ (x >> one(30))) * first
            z = (z ^ (z >> one(27))) * second
            j = np.int64((((z ^ (z >> one(31))) >> half) * one(i + 1)) >> half)
            r[i], r[j] = r[j], r[i]

    draw = cheap if drawn == "splitmix64" else shuffle

    @njit(parallel=parallel)
    def trade(moves: Any, out: Any) -> None:
        for k in prange(len(out)):
            r, ring = moves.copy(), np.zeros(64)
            draw(r, k)
            price, fast, slow, held, total, square = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(len(r)):
                price *= 1.0 + r[i]
                ring[i & 63] = price
                fast += price - (ring[(i - FAST) & 63] if i >= FAST else 0.0)
                slow += price - (ring[(i - SLOW) & 63] if i >= SLOW else 0.0)
                x = held * r[i]
                if i >= SLOW - 1:
                    wanted = 1.0 if fast / FAST > slow / SLOW else 0.0
                    x -= FEE * abs(wanted - held)
                    held = wanted
                total += x
                square += x * x
            mean = total / len(r)
            out[k] = mean / np.sqrt((square - len(r) * mean * mean) / (len(r) - 1)) * np.sqrt(252.0)

    def run() -> tuple[int, float]:
        out = np.empty(markets)
        trade(moves, out)
        return markets, float(out.mean())

    return run


def numpy(markets: int) -> Run:
    moves = returns()

    def sharpe(r: np.ndarray) -> float:
        sums = np.r_[0.0, np.cumsum(np.cumprod(1 + r))]
        held = np.zeros(DAYS)
        slow = (sums[SLOW:] - sums[:-SLOW]) / SLOW
        held[SLOW - 1 :] = (sums[SLOW:] - sums[SLOW - FAST : -FAST]) / FAST > slow
        x = np.r_[0.0, held[:-1] * r[1:] - FEE * np.abs(np.diff(held))]
        return float(x.mean() / x.std(ddof=1) * 252**0.5)

    def run() -> tuple[int, float]:
        rng = np.random.default_rng(1)
        return markets, float(np.mean([sharpe(rng.permutation(moves)) for _ in range(markets)]))

    return run


def vectorbt(markets: int, engine: str) -> Run:
    import pandas as pd
    import vectorbt as vbt

    moves = returns()

    def run() -> tuple[int, float]:
        drawn = np.random.default_rng(1).permuted(np.broadcast_to(moves[:, None], (DAYS, markets)), axis=0)
        prices = pd.DataFrame(np.cumprod(1 + drawn, axis=0), pd.bdate_range("2000-01-03", periods=DAYS))
        gap = vbt.MA.run(prices, FAST).ma.to_numpy() - vbt.MA.run(prices, SLOW).ma.to_numpy()
        long, flat = (pd.DataFrame(signal, prices.index, prices.columns) for signal in (gap > 0, gap <= 0))
        portfolio = vbt.Portfolio.from_signals(
            prices, long, flat, fees=FEE, init_cash=100.0, freq="1D", engine=engine
        )
        return markets, float(portfolio.sharpe_ratio(year_freq="252D").mean())

    return run


MAKE = {
    "vectorbt, all at once (Rust)": lambda markets: vectorbt(markets, "rust"),
    "vectorbt, all at once (numba)": lambda markets: vectorbt(markets, "numba"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("markets", type=int, nargs="?", default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer:
        return serve(MAKE[words.peer](words.markets))
    mine = {f"ours, {n} thread{'s' * (n > 1)}": ours(words.markets, n) for n in (1, 2)}
    mine["ours, gaps and bars apart, 2 threads"] = ours(words.markets, 2, "bars")
    for run in mine.values():
        run()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    floor = {
        "bare numba loop, 2 threads": bare(words.markets, True, "numpy"),
        "bare numba loop, 1 thread": bare(words.markets, False, "numpy"),
        "bare, splitmix64, 1 thread": bare(words.markets, False, "splitmix64"),
        "NumPy loop": numpy(words.markets),
    }
    with peers(__file__, dict.fromkeys(MAKE, "vectorbt"), words.markets) as others:
        found = turns(local(floor | mine) | others, words.rounds)
    print(f"W4, {words.markets:,} markets x {DAYS:,} days, medians of {words.rounds} rounds in turn; equity: mean Sharpe ratio\n")  # fmt: skip
    bars = words.markets * DAYS
    table(found, bars, bare="bare numba loop, 2 threads", ours="ours, 2 threads", unit="days")
    print("\nmarkets a second:", ", ".join(f"{name} {words.markets / median(runs):,.0f}" for name, runs in found.items()))  # fmt: skip
    print(f"peak memory of this process after our runs, before the others: {used:,.0f} MB")
    means = [runs[-1].equity for runs in found.values()]
    if max(means) - min(means) > 1.5 / words.markets**0.5:
        raise SystemExit(f"mean Sharpe ratios differ: {means}")


if __name__ == "__main__":
    main()
