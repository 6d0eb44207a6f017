"""What the engine benchmarks share: the data, processes that take turns, the table.

The data are the same for everyone: a seeded random walk of minute bars, prices on a grid of 0.01 so that an engine whose prices
are whole ticks sees the same market. Peers run in environments of their own (`make peers`; QUANTBENCH_PEERS names another folder),
in a process that builds its data once and then runs when it is told. This file imports only what every peer has.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SEED, CASH, SIZE, FEE = 20240607, 1_000_000.0, 100.0, 1e-4
MINUTE, DAY = 60_000_000_000, 86_400_000_000_000
START = 1_420_070_400_000_000_000  # 2015-01-01, nanoseconds
HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("QUANTBENCH_PEERS", HERE.parent / ".venv-peers"))


# ---- data ------------------------------------------------------------------------------------------------------


def minutes(count: int, volatility: float = 5e-4) -> tuple[np.ndarray, ...]:
    """Open, high, low, close, volume: a geometric random walk whose bars open a little away from the last close."""
    rng = np.random.default_rng(SEED)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, count)))
    open_ = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, 0.2 * volatility, count))
    above = np.exp(np.abs(rng.normal(0.0, 0.5 * volatility, count)))
    below = np.exp(-np.abs(rng.normal(0.0, 0.5 * volatility, count)))
    high, low = np.maximum(open_, close) * above, np.minimum(open_, close) * below
    volume = rng.integers(100_000, 1_000_000, count).astype(np.float64)
    open_, high, low, close = (np.round(prices, 2) for prices in (open_, high, low, close))
    return (
        open_,
        np.maximum(high, np.maximum(open_, close)),
        np.minimum(low, np.minimum(open_, close)),
        close,
        volume,
    )


def days(assets: int = 500, count: int = 2520) -> tuple[np.ndarray, np.ndarray]:
    """Opens and closes (days, assets): a common factor and each asset's own noise."""
    rng = np.random.default_rng(SEED)
    market = rng.normal(0.0003, 0.008, (count, 1))
    drift = rng.normal(0.0, 0.0003, (1, assets))
    close = 100.0 * np.exp(np.cumsum(market + drift + rng.normal(0.0, 0.015, (count, assets)), axis=0))
    before = np.vstack([np.full((1, assets), 100.0), close[:-1]])
    return np.round(before * np.exp(rng.normal(0.0, 0.003, (count, assets))), 2), np.round(close, 2)


def business_days(count: int) -> np.ndarray:
    return np.busday_offset("2010-01-01", np.arange(count), roll="forward")


def month_ends(dates: np.ndarray) -> np.ndarray:
    """Places of the last day of each month that another month follows."""
    months = dates.astype("datetime64[M]")
    return np.flatnonzero(months[1:] != months[:-1])


def quotes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bids and asks a tick apart, every 100 ms."""
    middle = 100 * np.exp(np.cumsum(np.random.default_rng(SEED).normal(0, 5e-5, count)))
    bid = np.round(middle, 2)
    return bid, np.round(bid + 0.01, 2)


def pairs(count: int = 1000) -> list[tuple[int, int]]:
    """Fast and slow windows: 2 to 26 against 30 to 108."""
    return [(fast, slow) for fast in range(2, 27) for slow in range(30, 110, 2)][:count]


# ---- runs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """One run: how long it took and what it found; megabytes are the peak of the whole process."""

    seconds: float
    cpu: float  # of all threads: what a neighbour on the machine does not lengthen
    fills: int = 0
    equity: float = 0.0
    megabytes: float = 0.0


Run = Callable[
    [], tuple[int, float]
]  # fills and final equity, or two other numbers that tell a run from another


def timed(run: Run) -> Found:
    start, cpu = time.perf_counter(), time.process_time()
    fills, equity = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Found(seconds, cpu, int(fills), float(equity), megabytes)


def serve(run: Run) -> None:
    """The other end of `Peer`: run when told, answer in JSON."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes beside the answers, not among them
    for _ in sys.stdin:
        found = timed(run)
        channel.write(json.dumps(found.__dict__) + "\n")
        channel.flush()


class Peer:
    """A process that runs one engine when told: same file, another interpreter."""

    def __init__(self, file: str, name: str, python: Path, *words: object) -> None:
        command = [str(python), file, "--peer", name, *map(str, words)]
        quiet = {
            key: value
            for key, value in os.environ.items()
            if key not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        }
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )

    def __call__(self) -> Found:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended: {self.process.wait()}")  # type: ignore[union-attr]
        return Found(**json.loads(answer))

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def peers(file: str, environments: Mapping[str, str], *words: object) -> Iterator[dict[str, Peer]]:
    """The peers whose environment is there; a line for each that is not."""
    started = {}
    for name, environment in environments.items():
        python = PEERS / environment / "bin" / "python"
        if python.exists():
            started[name] = Peer(file, name, python, *words)
        else:
            print(f"{name}: not installed in {python.parent.parent}; `make peers` installs it")
    try:
        yield started
    finally:
        for one in started.values():
            one.close()


def local(runs: Mapping[str, Run]) -> dict[str, Callable[[], Found]]:
    """Runs of this process, timed."""
    return {name: partial(timed, run) for name, run in runs.items()}


def turns(tasks: Mapping[str, Callable[[], Found]], rounds: int, warm: int = 1) -> dict[str, list[Found]]:
    """Everyone runs in turn, so that all meet the same machine; the first `warm` rounds (compiling, loading) are dropped."""
    found: dict[str, list[Found]] = {name: [] for name in tasks}
    for number in range(warm + rounds):
        for name, task in tasks.items():
            one = task()
            if number >= warm:
                found[name].append(one)
    return found


def median(found: Iterable[Found], what: str = "seconds") -> float:
    return statistics.median(getattr(one, what) for one in found)


def table(
    found: Mapping[str, list[Found]], count: int, *, bare: str, ours: str, unit: str = "events"
) -> None:
    """Median times, events a second, and the two multiples that matter: of the bare loop's time, and of ours."""
    base, mine = median(found[bare]), median(found[ours])
    print(
        f"{'':34}{'ms':>10}{'CPU ms':>10}{f'M {unit}/s':>15}{'x bare':>9}{'x ours':>9}{'fills':>10}{'equity':>16}{'peak MB':>9}"
    )
    for name, runs in found.items():
        took = median(runs)
        print(
            f"{name:34}{took * 1e3:10.2f}{median(runs, 'cpu') * 1e3:10.2f}{count / took * 1e-6:15.3f}{took / base:9.2f}"
            f"{took / mine:9.3g}{runs[-1].fills:10,}{runs[-1].equity:16,.2f}{runs[-1].megabytes:9,.0f}"
        )


# ---- what calls cost on this machine ---------------------------------------------------------------------------


def call_costs(rounds: int = 7, count: int = 300_000) -> None:
    """What no interpreted hook can be faster than: Python calling Python, and compiled code calling Python."""
    from numba import njit

    from quantbench.engine.kernel import call_hook

    def python() -> int:
        return 0

    def three(_state: int, _event: int, _run: int) -> int:
        return 0

    number = ctypes.c_int64
    bare = ctypes.CFUNCTYPE(ctypes.c_int32)(python)
    full = ctypes.CFUNCTYPE(ctypes.c_int32, number, number, number)(three)

    @njit
    def repeat(address: int, times: int) -> int:
        total = 0
        for _ in range(times):
            total += call_hook(address, 0, 0, 0)
        return total

    def loop() -> tuple[int, float]:
        for _ in range(count):
            python()
        return 0, 0.0

    def through(made: Any) -> Run:
        address = ctypes.cast(made, ctypes.c_void_p).value
        return lambda: (repeat(address, count), 0.0)

    runs = {
        "Python calls a Python function": loop,
        "compiled code calls it, no arguments": through(bare),
        "compiled code calls it, three numbers": through(full),
    }
    print("\nwhat a call costs here")
    for name, found in turns(local(runs), rounds).items():
        print(
            f"{name:40}{median(found) / count * 1e9:8.1f} ns, CPU {median(found, 'cpu') / count * 1e9:.1f} ns"
        )
