"""The lake against plain Parquet files: one asset's history, one date's cross-section, appends, and what proof costs.

    python benchmarks/lake.py              # 500 assets, 12 with ten years of minute bars (12 M rows), the others with few
    python benchmarks/lake.py --full 500   # all 500 with ten years: 490 M rows, some 6 GB, about half an hour
    python benchmarks/lake.py --assets 60 --full 2

The number of files and of Delta commits is the real one in either case: 500 assets x 10 years are 5,000 files in
500 commits. Ratios are of medians of runs taken in turns; below 1 the lake is faster.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from quantbench.core.clock import WallClock
from quantbench.data import layout
from quantbench.data.snapshot import content_hash
from quantbench.data.store import Lake, scan

YEARS = range(2014, 2024)
SESSION = 390  # minutes
Line = tuple[str, float, str, float]  # what, seconds, against, seconds


def bars(asset: str, interval: str, times: np.ndarray, seed: int) -> pa.Table:
    """Bars of a random walk in cents."""
    rng, count = np.random.default_rng(seed), len(times)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, count))), 2) + 1
    first = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(first, close) + np.round(rng.exponential(0.02, count), 2)
    low = np.minimum(first, close) - np.minimum(np.round(rng.exponential(0.02, count), 2), 0.9)
    moments = pa.array(times.astype("datetime64[us]")).cast(pa.timestamp("us", tz="UTC"))
    texts = {
        "asset": asset,
        "interval": interval,
        "price_type": "trade",
        "adjustment": "raw",
        "source": "synth",
    }
    columns = {name: pa.repeat(text, count) for name, text in texts.items()}
    columns |= {
        "open": first,
        "high": high,
        "low": low,
        "close": close,
        "volume": rng.integers(1, 5000, count) * 100.0,
    }
    return pa.table({**columns, "event_time": moments, "known_time": moments})


def days(year: int, count: int = 252) -> np.ndarray:
    return np.busday_offset(f"{year}-01-01", np.arange(count), roll="forward")


def minutes(sessions: int) -> np.ndarray:
    """The ends of the minutes of so many sessions in each year."""
    days_ = np.concatenate([days(year, sessions) for year in YEARS])
    opening = days_.astype("datetime64[m]") + np.timedelta64(14 * 60 + 30, "m")
    return (opening[:, None] + np.arange(1, SESSION + 1)).ravel()


def in_turns(rounds: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each call, the calls taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def minute_lake(root: Path, assets: int, full: int) -> Lake:
    """Minute bars of many assets; those beyond `full` have few rows, but as many files as the real ones."""
    lake, long, short = Lake.create(root, clock=WallClock()), minutes(252), minutes(1)
    begin, rows, own = time.perf_counter(), 0, layout.OWN_FILE
    for n in range(assets):
        layout.OWN_FILE = own if n < full else 1
        table = bars(f"A{n:04d}", "1m", long if n < full else short, n)
        rows += lake.append("bars", table, source="synth", batch=str(n)).rows
    layout.OWN_FILE = own
    files = sum(len(commit.files) for commit in lake.commits("bars"))
    spent = time.perf_counter() - begin
    print(
        f"{rows:,} rows of {assets} assets in {files:,} files and {lake.version('bars')} commits, in {spent:.0f} s"
    )
    return lake


def history(root: Path, assets: int, full: int, rounds: int) -> Iterator[Line]:
    """One asset, ten years of minute bars."""
    lake, wanted = minute_lake(root / "minutes", assets, full), f"A{full // 2:04d}"
    rows = scan(lake, "bars", assets=wanted)
    pq.write_table(rows, root / "default.parquet")
    (root / "same.parquet").write_bytes(layout._parquet(rows))
    files = [f for c in lake.commits("bars") for f in c.files if f.assets == (wanted, wanted)]
    paths = [lake.root / "bars" / file.path for file in files]
    taken = in_turns(
        rounds,
        default=lambda: pq.read_table(root / "default.parquet"),
        same=lambda: pq.read_table(root / "same.parquet"),
        again=lambda: scan(lake, "bars", assets=wanted),
        first=lambda: (lake._verifier._seen.clear(), scan(lake, "bars", assets=wanted)),
        cold=lambda: scan(Lake.open(lake.root, clock=WallClock()), "bars", assets=wanted),
        sha=lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths],
        name=lambda: content_hash(rows),
    )
    what, one = (
        "one asset's ten years of minute bars",
        f"its own Parquet file, Parquet's defaults ({rows.num_rows:,} rows)",
    )
    yield f"{what}, again", taken["again"], one, taken["default"]
    yield f"{what}, files not yet verified", taken["first"], one, taken["default"]
    yield f"{what}, lake not yet opened", taken["cold"], one, taken["default"]
    yield f"{what}, again", taken["again"], "its own Parquet file, written as the lake writes", taken["same"]
    yield "SHA-256 of its files", taken["sha"], "reading them", taken["again"]
    yield "content hash of the rows", taken["name"], "reading them", taken["again"]


def cross_section(root: Path, assets: int, rounds: int) -> Iterator[Line]:
    """One date of all assets, from ten years of daily bars."""
    lake = Lake.create(root / "daily", clock=WallClock())
    times = np.concatenate([days(year) for year in YEARS]).astype("datetime64[h]") + np.timedelta64(21, "h")
    rows = pa.concat_tables([bars(f"A{n:04d}", "1d", times, n) for n in range(assets)])
    begin = time.perf_counter()
    lake.append("bars", rows, source="synth")
    appended = time.perf_counter() - begin
    path, again = root / "daily.parquet", root / "again.parquet"
    pq.write_table(scan(lake, "bars"), path)
    start, end = datetime(2019, 6, 12, tzinfo=UTC), datetime(2019, 6, 13, tzinfo=UTC)
    day = (pc.field("event_time") >= pa.scalar(start)) & (pc.field("event_time") < pa.scalar(end))
    found = scan(lake, "bars", start=start, end=end)
    assert pq.read_table(path, filters=day).num_rows == found.num_rows == assets
    taken = in_turns(
        rounds,
        one=lambda: pq.read_table(path, filters=day),
        lake=lambda: scan(lake, "bars", start=start, end=end),
        all=lambda: scan(lake, "bars"),
        whole=lambda: pq.read_table(path),
        write=lambda: pq.write_table(rows, again),
        asset=lambda: scan(lake, "bars", assets="A0007"),
        one_asset=lambda: pq.read_table(path, filters=pc.field("asset") == "A0007"),
    )
    same, rate = (
        f"one Parquet file of the same {rows.num_rows:,} rows, filtered",
        rows.num_rows / appended / 1e6,
    )
    yield "one date's cross-section of daily bars", taken["lake"], same, taken["one"]
    yield "one asset's ten years of daily bars", taken["asset"], same, taken["one_asset"]
    yield "everything, in canonical order", taken["all"], "the same file, whole", taken["whole"]
    yield (
        f"append: checked, hashed, durable ({rate:.1f} M rows/s)",
        appended,
        "pyarrow's write_table",
        taken["write"],
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--assets", type=int, default=500)
    options.add_argument("--full", type=int, default=12, help="how many assets have all their rows")
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    table = Table(title="lake")
    for title in ("what", "ms", "against", "ms", "ratio"):
        table.add_column(title, justify="right" if title in ("ms", "ratio") else "left")
    with tempfile.TemporaryDirectory() as folder:
        full = min(chosen.full, chosen.assets)
        lines = [*history(Path(folder), chosen.assets, full, chosen.rounds)]
        lines += cross_section(Path(folder), chosen.assets, chosen.rounds)
    for what, ours, against, theirs in lines:
        table.add_row(what, f"{ours * 1e3:,.1f}", against, f"{theirs * 1e3:,.1f}", f"{ours / theirs:.2f}")
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
