"""The order path: an order until it leaves and until it is answered, a restart on a long journal, simulated days.

    python benchmarks/oms.py [folder]      # the folder should be on the disk that will hold the journal

Before an order leaves there is one sync, of its intent and ruling; when it was answered there is another. In turn with each order the same records
are written to a journal that does nothing else, so that what the order book adds is seen whatever the disk does. The broker answers at once.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from guards import Desk as Floor
from orderdesk import Decimal, Desk, Disk, Journal, Lenient, Oms, Placed, Quick, Side, Truth

from quantbench.core.journal import read
from quantbench.execution.faulty import FaultyBroker
from quantbench.execution.simulate import simulate

ORDERS, RECORDS, DAYS = 2_000, 100_000, 100


def figures(seconds: list[float]) -> str:
    ranked = sorted(seconds)
    return "".join(f"{1e6 * ranked[int(len(ranked) * share)]:9.0f} µs" for share in (0.5, 0.99))


def account(
    folder: Path, disk: Disk, *, guarded: bool
) -> tuple[Oms, Truth, Callable[[int], Callable[[], Placed]]]:
    """An order book, its venue, and what makes its n-th order ready to be placed."""
    if not guarded:
        desk = Desk(folder, disk)
        return desk.oms, desk.truth, lambda n: lambda: desk.buy(10, Side.SELL if n % 2 else Side.BUY)
    floor = Floor(folder)
    truth = Truth(floor.clock)
    journal = Journal.open(folder / "orders.journal", clock=floor.clock, disk=disk)
    broker = FaultyBroker(floor.seal, floor.clock, truth)
    oms = Oms(journal, floor.guardian, broker, floor.clock, run="desk", assets=floor.assets)

    def ready(n: int) -> Callable[[], Placed]:
        floor.wait(5.0)
        floor.account()
        intent = floor.intent(side=Side.SELL if n % 2 else Side.BUY, limit="100.00")
        return lambda: oms.place(intent.order, arrival=intent.arrival)

    return oms, truth, ready


def orders(folder: Path, name: str, disk: Disk, *, guarded: bool) -> None:
    """Each is filled before the next: buy, sell, buy."""
    folder = folder / name.replace(" ", "-")
    folder.mkdir()
    oms, truth, ready = account(folder, disk, guarded=guarded)
    bare = Journal.open(folder / "bare.journal", clock=oms._clock, disk=disk)
    submit, left = oms._broker._submit, [0.0]

    def leaving(intent):
        left[0] = perf_counter()
        return submit(intent)

    oms._broker._submit = leaving
    leaves, answered, plain, group = [], [], [], []
    for n in range(ORDERS):
        oms._clock.advance(1.0)
        place, head = ready(n), oms._journal.head
        start = perf_counter()
        placed = place()
        end = perf_counter()
        assert placed.code is None, placed
        leaves.append(left[0] - start)
        answered.append(end - start)
        group = (
            group or [(record.kind, record.payload) for record in read(oms._journal.path, after=head)][:-1]
        )
        start = perf_counter()
        bare.extend(group)
        plain.append(perf_counter() - start)
        truth.fill(placed.client_id, Decimal(10), Decimal(100 if guarded else 180))
        oms.pump()
    print(f"{name}: until it leaves{'':{24 - len(name)}}{figures(leaves)}")
    print(f"{'    the journal alone for as much':41}{figures(plain)}")
    print(f"{'    until it is answered':41}{figures(answered)}")


class Thorough(Lenient):
    """Writes as much into the journal as a Guardian with all its controls."""

    def judge(self, intent):
        return replace(super().judge(intent), checks=tuple((f"G{n:02}", "pass", "") for n in range(1, 37)))


def restart(folder: Path) -> None:
    """A journal of orders with two fills each, read again: verified by opening, folded by the order book."""
    desk = Desk(folder, Quick())
    desk.oms._guardian = Thorough(desk.seal)
    while desk.journal.head.seq < RECORDS:
        name = desk.buy(100).client_id
        for part in (60, 40):
            desk.truth.fill(name, Decimal(part), Decimal(180))
        desk.oms.pump()
    held, size = dict(desk.oms.positions), desk.journal.path.stat().st_size
    desk.truth.executions.clear()  # what is measured is not the broker
    rounds = []
    for _ in range(5):
        desk.journal.close()
        start, cpu = perf_counter(), process_time()
        desk.start()
        rounds.append((perf_counter() - start, process_time() - cpu))
        assert desk.oms.ready and dict(desk.oms.positions) == held
    wall, cpu = min(rounds)
    print(
        f"restart, {RECORDS:,} records, {size / 1e6:.0f} MB: {wall:.2f} s, {cpu:.2f} s of CPU, best of {len(rounds)}"
    )


def days() -> None:
    start = process_time()
    done = [simulate(seed) for seed in range(DAYS)]
    each = (process_time() - start) / DAYS
    sums = [sum(column) for column in zip(*((d.orders, d.fills, d.deaths) for d in done), strict=True)]
    print(
        f"{DAYS} simulated days of 200 events: {1e3 * each:.1f} ms of CPU each; {sums[0]:,} orders, {sums[1]:,} fills, {sums[2]:,} deaths"
    )


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        print(f"{'':41}{'median':>12}{'p99':>12}")
        orders(Path(folder), "bare", Disk(), guarded=False)
        orders(Path(folder), "Guardian", Disk(), guarded=True)
        orders(Path(folder), "Guardian, no sync", Quick(), guarded=True)
        restart(Path(folder))
        days()


if __name__ == "__main__":
    main()
