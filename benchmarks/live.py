"""The live loop with the paper venue: events a second, and the time from an event to its order's departure to the broker.

    python benchmarks/live.py [ticks, default 1,000,000]

Few orders for the rates: one in 5,000 ticks. An order at every event for the latencies, each event fed alone; once on a disk that does not sync, once
with every intent synced before it leaves: beside it stands what the disk took for its syncs in the same run, and a shared disk takes what it likes. The day of minute bars is 390 minutes of 500 assets in batches of a minute.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from lived import Paper, minutes, ticks

from quantbench.core.journal import Disk
from quantbench.engine.strategy import Strategy
from quantbench.engine.window import state


class Timed(Disk):
    """The disk, and how long its syncs took."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def sync(self, file: int) -> None:
        start = time.perf_counter()
        super().sync(file)
        self.took.append(time.perf_counter() - start)


class Seldom(Strategy):
    every: int = 5000
    seen: int = state(0)

    def on_tick(self, tick: Any, market: Any) -> None:
        self.seen += 1
        if self.seen % self.every == 0:
            market.target(tick.asset, 100.0 - market.position(tick.asset))

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen += 1
        if self.seen % self.every == 0:
            market.target(bar.asset, 100.0 - market.position(bar.asset))


def played(tape: Any, size: int, *, disk: Any = None, every: int = 5000, **choices: Any) -> tuple[float, Any]:
    with TemporaryDirectory(dir=Path.home()) as folder:
        paper = Paper(Seldom(every=every), tape, Path(folder), disk=disk, **choices)
        start = time.perf_counter()
        paper.play(range(size, len(tape.events), size))
        took = time.perf_counter() - start
        paper.journal.close()
    return took, paper


def main(count: int) -> None:
    print(f"{'':44}{'':>14}{'orders':>9}{'to reach':>16}")
    tape = ticks(count, 1)
    for lane, reach in (("interpreted", 50_000), ("compiled", 500_000)):
        took, paper = played(tape, 10_000, lane=lane)
        print(f"{lane + ', ticks/s':44}{len(tape.events) / took:14,.0f}{len(paper.oms.orders):9,}{reach:16,}")
    short = ticks(3_000, 1)
    timed = Timed()
    for name, disk, reach in (("without sync", None, 1.0), ("journaled with sync", timed, 3.0)):
        _, paper = played(short, 1, disk=disk, every=2)
        late = paper.live.latency
        shown = " / ".join(f"{1e3 * late.below(part):.2f}" for part in (0.5, 0.99))
        print(
            f"{'tick to order, p50 / p99 ms, ' + name:44}{shown:>14}{int(late.counts.sum()):9,}{reach:13.0f} ms"
        )
    alone = " / ".join(f"{1e3 * np.quantile(timed.took, part):.2f}" for part in (0.5, 0.99))
    print(f"{'    of that one sync, p50 / p99 ms':44}{alone:>14}{len(timed.took):9,}")
    bars = minutes(390, 500)
    took, paper = played(bars, 500, every=390)
    print(f"{'a day of minute bars of 500 assets, s':44}{took:14.1f}{len(paper.oms.orders):9,}{30:14} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
