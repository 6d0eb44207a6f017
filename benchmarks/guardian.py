"""What a ruling costs: the Guardian of an account with its 39 controls, and the compiled core that judges every order of a backtest.

    python benchmarks/guardian.py [rulings] [rounds]

Warm, one thread, times of `perf_counter` in microseconds: p50 and p99 of each round, and of these the median; "quiet" is the p99 of the quietest round, for a neighbour lengthens one ruling in a hundred long before he lengthens the median. Under `taskset -c 1` both threads share a processor (decision 0018). The same questions are asked with the thread that bounds a ruling's time and without it (nothing else may be: a control that hangs
would then hang its caller); CPU is that of the whole process, what a neighbour on the machine does not lengthen.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from guards import AAPL, Desk

from quantbench.core.types import Side
from quantbench.engine.guardian import _ask
from quantbench.engine.memory import ORDER


def rulings(desk: Desk, count: int) -> tuple[list[float], float]:
    "Seconds of each accepted ruling, and CPU seconds of all."
    found, cpu = [], 0.0
    for n in range(count):
        if n % 50 == 0:
            desk.wait(20.0)  # all rounds fit into one session
            desk.guardian.records.clear()
            desk.guardian.told.spent = 0.0
        intent = desk.intent(1, limit=f"9{n % 10}.{n % 100:02d}")
        used, begun = time.process_time(), time.perf_counter()
        ruling = desk.guardian.judge(intent)
        found.append(time.perf_counter() - begun)
        cpu += time.process_time() - used
        assert ruling.accepted, ruling.failed
        desk.guardian.closed(intent.client_id)
    return found, cpu


def core(desk: Desk, count: int) -> tuple[list[float], float]:
    "The same for the compiled judge, called from Python with an order record that is ready."
    book, order = desk.guardian.book, np.zeros(1, ORDER)
    for name in ("limit", "stop", "trail", "take", "loss"):
        order[name] = np.nan
    order["asset"], order["side"], order["lots"] = book.number(AAPL.id), Side.BUY.sign, 1
    found, begun_cpu = [], time.process_time()
    for _ in range(count):
        begun = time.perf_counter()
        _ask(book.run, order, 1.0, 0.0, False, False)
        found.append(time.perf_counter() - begun)
    return found, time.process_time() - begun_cpu


def show(
    name: str, measure: Callable[[Desk, int], tuple[list[float], float]], desk: Desk, count: int, rounds: int
) -> None:
    measure(desk, 300)
    rows: list[tuple[Any, ...]] = []
    for _ in range(rounds):
        gc.collect()
        times, cpu = measure(desk, count)
        rows.append((*(1e6 * np.percentile(times, q) for q in (50, 99)), 1e6 * cpu / count))
    middle, late, used = (statistics.median(column) for column in zip(*rows, strict=True))
    quiet = min(row[1] for row in rows)
    print(f"{name:40}p50 {middle:6.1f} µs  p99 {late:8.1f} µs  quiet {quiet:6.1f} µs  CPU {used:6.1f} µs")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(
            Path(folder),
            rules={"venue_messages_count": 10**6, "queued": True},
            stage={"strategy": "drift"},  # one that is kept, as a licence keeps it
        )
        show("Guardian, 39 controls", rulings, desk, count, rounds)
        show("compiled core, from Python", core, desk, count * 10, rounds)
        desk.guardian._hand.within = lambda _, work: work()  # type: ignore[method-assign]
        show("Guardian without its bound of time", rulings, desk, count, rounds)


if __name__ == "__main__":
    main()
