"""The journal against the bare disk, the bare checksums, and SQLite in WAL mode with full syncs.

    python benchmarks/journal.py [folder]      # the folder should be on the disk that will hold the journal

Everything is interleaved in one run: a round does each thing once, and each figure is the median over the rounds.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from zlib import crc32

from quantbench.core.journal import Disk, Journal, read, verify

ORDER = {"client_id": "20240607-000001", "limit": "187.50", "quantity": 100, "side": "buy", "symbol": "AAPL"}
ROUNDS, RECORDS = 1_000, 300_000


class Wall:
    def now(self) -> datetime:
        return datetime.now(UTC)


class NoSync(Disk):
    def sync(self, file: int) -> None:
        pass


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, the tasks taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = perf_counter()
            task()
            seconds[name].append(perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def appending(folder: Path) -> None:
    bare = os.open(folder / "bare", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    block, group = b"x" * 200, [("order", ORDER)] * 10
    lite = sqlite3.connect(folder / "lite.db", isolation_level=None)
    lite.execute("pragma journal_mode=wal")
    lite.execute("pragma synchronous=full")
    lite.execute("create table log (seq integer primary key, kind text, body text)")
    text = str(ORDER)

    def write_bare() -> None:
        os.write(bare, block)
        os.fdatasync(bare)

    def write_lite() -> None:
        lite.execute("insert into log (kind, body) values ('order', ?)", (text,))

    def write_lite_group() -> None:
        lite.execute("begin")
        lite.executemany("insert into log (kind, body) values ('order', ?)", [(text,)] * 10)
        lite.execute("commit")

    with (
        Journal.open(folder / "one", clock=Wall()) as one,
        Journal.open(folder / "ten", clock=Wall()) as ten,
        Journal.open(folder / "cpu", clock=Wall(), disk=NoSync()) as cpu,
    ):
        tasks = {
            "bare: write 200 bytes, fdatasync": write_bare,
            "journal: append": lambda: one.append("order", ORDER),
            "SQLite WAL FULL: insert": write_lite,
            "journal: extend by 10": lambda: ten.extend(group),
            "SQLite WAL FULL: 10 inserts": write_lite_group,
        }
        took = interleaved(tasks, ROUNDS)
        start = perf_counter()
        for _ in range(20 * ROUNDS):
            cpu.append("order", ORDER)
        own = (perf_counter() - start) / (20 * ROUNDS)
    lite.close()
    os.close(bare)
    base = took["bare: write 200 bytes, fdatasync"]
    print(f"{'':36}{'µs':>9}{'x bare':>9}{'records/s':>12}{'at 160 µs bare':>16}")
    for name, value in took.items():
        size = 10 if "10" in name else 1
        scaled = size / (160e-6 + value - base)
        print(f"{name:36}{value * 1e6:9.0f}{value / base:9.2f}{size / value:12,.0f}{scaled:16,.0f}")
    print(f"{'journal: append, sync left out':36}{own * 1e6:9.1f}\n")


def verifying(folder: Path) -> None:
    path = folder / "long"
    with Journal.open(path, clock=Wall(), disk=NoSync()) as journal:
        for _ in range(RECORDS // 1_000):
            journal.extend([("order", ORDER) for _ in range(1_000)])
        known = journal.head
    lines = path.read_bytes().splitlines(keepends=True)

    def bare() -> None:
        previous = b"0" * 64
        for line in lines:
            body = line[83:-1]
            crc32(body)
            previous = sha256(previous + body).hexdigest().encode()

    tasks = {
        "bare: hashlib and zlib in memory": bare,
        "journal: verify": lambda: verify(path),
        "journal: read": lambda: sum(1 for _ in read(path)),
    }
    took = interleaved(tasks, 5)
    base = took["bare: hashlib and zlib in memory"]
    print(f"{RECORDS:,} records, {path.stat().st_size / 1e6:.0f} MB")
    print(f"{'':36}{'s':>9}{'x bare':>9}{'records/s':>12}")
    for name, value in took.items():
        print(f"{name:36}{value:9.2f}{value / base:9.2f}{RECORDS / value:12,.0f}")

    def reopen() -> None:
        Journal.open(path, clock=Wall(), known=known).close()

    took = interleaved({"journal: open with known, close": reopen}, 200)
    for name, value in took.items():
        print(f"{name:36}{value * 1e6:9.0f} µs")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        appending(Path(folder))
        verifying(Path(folder))


if __name__ == "__main__":
    main()
