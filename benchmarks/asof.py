"""What was known at a moment, on a long table: ours against Polars, DuckDB and pandas, in one interleaved run.

    python benchmarks/asof.py [rows, default 10,000,000]

The table has 10,000 series (500 assets x 20 metrics); one row in ten restates the event before it, late. Every
engine answers the same question, the value of the newest event known at a moment in its newest version, and all
answers must be equal. Each engine is a process of its own; the processes take turns, and the medians are compared.

- one date, in memory: each engine holds the table in the form that suits it (Polars and pandas sorted beforehand)
- first, from Parquet (without pandas, which needs seconds to sort): one file, a fresh process for each reading, libraries imported, nothing read yet; ours takes the
  file row group by row group, and loads its compiled loop from the disk
- first, from a lake: the same rows in a lake of ours, the bytes of every file verified; the others read the one file
- 250 dates: ours with the index; the others ask again each day (Polars, DuckDB and pandas over 25 days, times ten)
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

ASSETS, METRICS, DAY, FIRST = 500, 20, 86_400_000_000, 1_262_304_000_000_000
DATES = [dt.datetime(2015, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=n) for n in range(250)]
SORTED = ["asset", "metric", "event_time", "known_time", "revision"]
SQL = "SELECT asset, metric, arg_max(value, (event_time, known_time, revision)) AS value FROM {} WHERE known_time <= ? GROUP BY ALL"
ENGINES = ("ours", "polars", "duckdb", "pandas")
Ask = Callable[[dt.datetime], Any]


def generate(rows: int, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, each, span = np.random.default_rng(20240607), rows // (ASSETS * METRICS), 3650 * DAY
    series = np.repeat(np.arange(ASSETS * METRICS, dtype=np.int32), each)
    number = np.tile(np.arange(each), ASSETS * METRICS)
    event = FIRST + (number // 10 * 10 + np.minimum(number % 10, 8)) * (span // each) // DAY * DAY
    known = event + rng.integers(DAY, 60 * DAY, len(event)) + np.where(number % 10 == 9, 45 * DAY, 0)
    time_type = pa.timestamp("us", tz="UTC")

    def text(codes: Any, letter: str) -> Any:
        names = pa.array([f"{letter}{n}" for n in range(codes.max() + 1)])
        return pa.DictionaryArray.from_arrays(pa.array(codes), names).cast(pa.string())

    columns = {
        "asset": text(series // METRICS, "T"),
        "metric": text(series % METRICS, "m"),
        "value": rng.normal(size=len(event)),
        "event_time": pa.array(event).cast(time_type),
        "known_time": pa.array(known).cast(time_type),
        "revision": np.zeros(len(event), np.int32),
    }
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)


def values(assets: Any, metrics: Any, found: Any) -> float:
    """One number for an answer, the same for equal answers: the sum in the order of the series."""
    order = np.lexsort((np.asarray(metrics, dtype=str), np.asarray(assets, dtype=str)))
    return float(np.asarray(found, dtype=float)[order].sum())


# ---- the engines: from a path, a first answer; then a way to ask in memory, and one for many dates -------------


def ours(path: Path, *, plain: bool = False) -> tuple[Ask, Callable[[], tuple[Ask, Ask]]]:
    import numba  # noqa: F401
    import pyarrow.parquet as pq

    from quantbench.data.asof import AsOfIndex, latest_rows
    from quantbench.data.schema import schema

    contract = schema("fundamentals")

    def read() -> Any:
        return pq.read_table(path, read_dictionary=[] if plain else ["asset", "metric"])

    def memory() -> tuple[Ask, Ask]:
        rows = read()
        index = cache(lambda: AsOfIndex(rows, contract))  # built at the first of the many dates, once
        return (lambda day: latest_rows(rows, contract, as_of=day)), (lambda day: index().latest(as_of=day))

    def parts() -> Any:
        file = pq.ParquetFile(path, read_dictionary=["asset", "metric"])
        return (file.read_row_group(number) for number in range(file.num_row_groups))

    return (lambda day: latest_rows(parts(), contract, as_of=day)), memory


def lake(path: Path) -> tuple[Ask, Callable[[], tuple[Ask, Ask]]]:
    import numba  # noqa: F401

    from quantbench.core.clock import SimClock
    from quantbench.data.asof import latest
    from quantbench.data.store import Lake

    clock = SimClock(DATES[0])

    def first(day: dt.datetime) -> Any:
        return latest(
            Lake.open(path.parent / "lake", clock=clock), "fundamentals", as_of=day, columns=["value"]
        ).rows

    def memory() -> tuple[Ask, Ask]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pq.read_table(path)
        for name, text in (("unit", "USD"), ("source", "benchmark")):
            rows = rows.append_column(name, pa.array([text]).take(pa.array(np.zeros(rows.num_rows, np.int8))))
        Lake.create(path.parent / "lake", clock=clock).append("fundamentals", rows, source="benchmark")
        return first, first

    return first, memory


def polars(path: Path) -> tuple[Ask, Callable[[], tuple[Ask, Ask]]]:
    import polars as pl

    newest = pl.col("value").sort_by("event_time", "known_time", "revision").last()

    def known(frame: Any, day: dt.datetime) -> Any:
        return frame.filter(pl.col("known_time") <= day).group_by("asset", "metric")

    def memory() -> tuple[Ask, Ask]:
        frame = pl.read_parquet(path).sort(SORTED).lazy()
        ask = lambda day: known(frame, day).agg(pl.col("value").last()).collect()  # noqa: E731
        return ask, ask

    return (lambda day: known(pl.scan_parquet(path), day).agg(newest).collect()), memory


def duckdb(path: Path) -> tuple[Ask, Callable[[], tuple[Ask, Ask]]]:
    import duckdb

    base = duckdb.connect()

    def memory() -> tuple[Ask, Ask]:
        base.execute(f"CREATE TABLE facts AS FROM '{path}'")
        ask = lambda day: base.execute(SQL.format("facts"), [day]).fetchnumpy()  # noqa: E731
        return ask, ask

    return (lambda day: base.execute(SQL.format(f"'{path}'"), [day]).fetchnumpy()), memory


def pandas(path: Path) -> tuple[Ask, Callable[[], tuple[Ask, Ask]]]:
    import pandas as pd
    import pyarrow.parquet as pq

    def read() -> Any:
        return pq.read_table(path, read_dictionary=["asset", "metric"]).to_pandas().sort_values(SORTED)

    def newest(frame: Any, day: dt.datetime) -> Any:
        known = frame[frame["known_time"] <= pd.Timestamp(day)]
        return known.groupby(["asset", "metric"], observed=True, sort=False)["value"].last().reset_index()

    def memory() -> tuple[Ask, Ask]:
        frame = read()
        ask = lambda day: newest(frame, day)  # noqa: E731
        return ask, ask

    return (lambda day: newest(read(), day)), memory


MAKE = {"ours": ours, "polars": polars, "duckdb": duckdb, "pandas": pandas}
MAKE["ours, lake"] = lake
MAKE["ours, plain text"] = lambda path: ours(path, plain=True)


# ---- a process for each engine, that answers when told ---------------------------------------------------------


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def worker(engine: str, path: Path) -> None:
    first, memory = MAKE[engine](path)
    asks: dict[str, Ask] = {"first": first}

    def load() -> None:
        asks["one"], asks["many"] = memory()

    def over(days: list[dt.datetime]) -> Any:
        return [asks["many"](day) for day in days][-1]

    for line in sys.stdin:
        what, found = line.strip(), None
        if what == "load":
            seconds, _ = timed(load)
        elif what == "many":
            days = DATES if engine == "ours" else DATES[:-1:10] + DATES[-1:]
            seconds, found = timed(partial(over, days))
            seconds *= len(DATES) / len(days)
        else:
            seconds, found = timed(partial(asks[what], DATES[0]))
        answer = 0.0 if found is None else values(found["asset"], found["metric"], found["value"])
        print(seconds, answer, flush=True)


class Engine:
    def __init__(self, name: str, path: Path) -> None:
        command = [sys.executable, __file__, "--engine", name, "--path", str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> tuple[float, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        seconds, answer = self.process.stdout.readline().split()
        return float(seconds), float(answer)

    def close(self) -> None:
        self.process.communicate()


def first_reading(name: str, path: Path) -> tuple[float, float]:
    engine = Engine(name, path)
    answer = engine.ask("first")
    engine.close()
    return answer


def rounds(engines: dict[str, Callable[[], tuple[float, float]]], count: int) -> dict[str, float]:
    """The median seconds of each engine, asked in turn; all must give the same answer."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    answers = set()
    for _ in range(count):
        for name, ask in engines.items():
            took, answer = ask()
            seconds[name].append(took)
            answers.add(answer)
    if len(answers) != 1:
        raise SystemExit(f"the engines disagree: {sorted(answers)}")
    return {name: statistics.median(took) for name, took in seconds.items()}


def report(title: str, seconds: dict[str, float], mine: str = "ours") -> None:
    others = {name: took for name, took in seconds.items() if not name.startswith("ours")}
    fastest = min(others, key=lambda name: others[name])
    against = ", ".join(f"{name} {seconds[mine] / took:.3g}x" for name, took in others.items())
    listed = "  ".join(f"{name} {took:.4g} s" for name, took in seconds.items())
    print(f"{title}\n  {listed}\n  {mine} against {against}; the fastest other is {fastest}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.engine:
        return worker(words.engine, words.path)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.parquet"
        generate(words.rows, path)
        print(f"{words.rows:,} rows, {path.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} cores")
        first_reading("ours", path)  # compiles once, as an installation does
        report(
            "first, from Parquet", rounds({n: (lambda n=n: first_reading(n, path)) for n in ENGINES[:3]}, 5)
        )
        writer = Engine("ours, lake", path)
        print(f"lake written in {writer.ask('load')[0]:.3g} s")
        writer.close()
        names = ("ours, lake", "polars", "duckdb")
        report(
            "first, from a lake",
            rounds({n: (lambda n=n: first_reading(n, path)) for n in names}, 5),
            names[0],
        )
        running = {name: Engine(name, path) for name in (*ENGINES, "ours, plain text")}
        loads = {name: engine.ask("load")[0] for name, engine in running.items()}
        print("load\n  " + "  ".join(f"{name} {took:.3g} s" for name, took in loads.items()))
        one = rounds({n: (lambda e=e: e.ask("one")) for n, e in running.items()}, 11)
        report("one date, in memory", one)
        report("one date, in memory, text not as dictionaries", one, "ours, plain text")
        running.pop("ours, plain text").close()
        built = running["ours"].ask("many")[0]
        print(f"index and the first 250 dates\n  ours {built:.3g} s")
        report("250 dates", rounds({n: (lambda e=e: e.ask("many")) for n, e in running.items()}, 3))
        for engine in running.values():
            engine.close()


if __name__ == "__main__":
    main()
