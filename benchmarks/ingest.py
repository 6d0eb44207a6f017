"""How fast validated CSV bars come in, against readers that check nothing, and what memory it takes.

    python benchmarks/ingest.py [rows]

One core: Arrow, Polars and DuckDB are held to one thread. Times are process time, medians of interleaved runs.
"""

from __future__ import annotations

import os
import sys

os.environ["POLARS_MAX_THREADS"] = "1"

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from quantbench.core.clock import SimClock
from quantbench.data.files import FileSource, read
from quantbench.data.filespec import FileSpec, Layout, Times
from quantbench.data.ingest import ingest
from quantbench.data.store import Lake

NAMES = ("ticker", "time", "open", "high", "low", "close", "volume")
COLUMNS = ("asset", "event_time", "open", "high", "low", "close", "volume")
SPEC = FileSpec(
    table="bars",
    source="benchmark",
    columns=dict(zip(NAMES, COLUMNS, strict=True)),
    times={"event_time": Times(zone="UTC")},
    constants={"interval": "1m", "price_type": "trade", "adjustment": "raw"},
    assume_lag=timedelta(seconds=1),
    layout=Layout(names=NAMES),
)


def write_bars(path: Path, rows: int) -> None:
    """Minute bars of ten shares, one after the other."""
    rng = np.random.default_rng(20240607)
    each = rows // 10
    times = np.datetime_as_string(
        np.datetime64("2014-01-01T00:00:00") + np.arange(each) * np.timedelta64(60, "s")
    )
    with path.open("w") as file:
        for share in range(10):
            price = (100 + np.cumsum(rng.normal(0, 0.01, each))).round(2).tolist()
            volume = rng.integers(1, 10_000, each).tolist()
            for t, p, v in zip(times.tolist(), price, volume, strict=True):
                file.write(f"S{share},{t},{p:.2f},{p + 0.1:.2f},{p - 0.1:.2f},{p:.2f},{v}\n")


def bare_arrow(path: Path) -> int:
    table = csv.read_csv(path, csv.ReadOptions(use_threads=False, column_names=NAMES))
    return int(table.num_rows)


def bare_polars(path: Path) -> int:
    import polars

    return int(polars.read_csv(path, has_header=False, try_parse_dates=True).height)


def bare_pandas(path: Path) -> int:
    import pandas

    return len(pandas.read_csv(path, names=list(NAMES), parse_dates=["time"]))


def ours(path: Path) -> int:
    return sum(part.num_rows for part in read(path, SPEC))


def into_a_lake(path: Path, rehearse: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.create(Path(folder) / "lake", clock=SimClock(datetime(2026, 1, 1, tzinfo=UTC)))
        source = FileSource(path.parent, {path.name: SPEC})
        return ingest(lake, source, tell=None, rehearse=rehearse).total("added")


JOBS: dict[str, Callable[[Path], int]] = {
    "read: every cell, row and order checked": ours,
    "ingest into a lake": lambda path: into_a_lake(path, rehearse=False),
    "ingest, rehearsed first": lambda path: into_a_lake(path, rehearse=True),
    "Arrow's reader, nothing checked": bare_arrow,
    "Polars' reader, nothing checked": bare_polars,
    "pandas' reader, nothing checked": bare_pandas,
}


def main(rows: int) -> None:
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        write_bars(path, rows)
        took: dict[str, list[float]] = {name: [] for name in JOBS}
        for _ in range(5):
            for name, job in JOBS.items():
                begin = time.process_time()
                assert job(path) == rows
                took[name].append(time.process_time() - begin)
        base = statistics.median(took["Arrow's reader, nothing checked"])
        print(f"{rows:,} bars, {path.stat().st_size / 1e6:.0f} MB of CSV, one core")
        for name, times in took.items():
            middle = statistics.median(times)
            print(
                f"  {name:42} {rows / middle / 1e6:6.2f} M rows/s {middle / base:6.2f} x Arrow's bare reader"
            )
        for factor in (1, 10):
            write_bars(path, rows * factor)
            command = [sys.executable, __file__, "peak", str(path)]
            print(
                "  peak of a",
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(),
            )


def peak(path: Path) -> None:
    ours(path)
    arrow = pa.default_memory_pool().max_memory() / 1e6
    status = Path("/proc/self/status").read_text()  # getrusage would tell of the parent as well
    whole = int(status.split("VmHWM:")[1].split()[0]) / 1e3
    print(f"{path.stat().st_size / 1e6:.0f} MB file: {arrow:.0f} MB in Arrow, {whole:.0f} MB in all")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
