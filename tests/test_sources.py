"""Rows D1 to D30 of the bad-input catalogue, at both doors: the reader and the import."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.data.files import read
from quantbench.data.filespec import FileSpec, Limits, Times

BARS = FileSpec(
    table="bars",
    source="test",
    columns={n: n for n in ("asset", "open", "high", "low", "close", "volume")} | {"time": "event_time"},
    times={"event_time": Times(zone="America/New_York")},
    constants={"interval": "1m", "price_type": "trade", "adjustment": "raw"},
    assume_lag=timedelta(seconds=5),
)
KNOWN = replace(
    BARS,
    columns=BARS.columns | {"known": "known_time"},
    times={"event_time": Times(), "known_time": Times()},
    assume_lag=None,
)
HEADER = "asset,time,open,high,low,close,volume\n"
GOOD = "ACME,2024-03-0{d} 10:0{m}:00,10.0,10.5,9.5,10.2,100\n"


def rows(*changed: str, header: str = HEADER) -> bytes:
    """A header, two good rows, then the rows given."""
    good = [GOOD.format(d=4, m=0), GOOD.format(d=4, m=1)]
    return (header + "".join(good) + "".join(f"{line}\n" for line in changed)).encode()


def bar(time: str = "2024-03-04 10:02:00", asset: str = "ACME", **prices: str) -> str:
    p = {"open": "10.0", "high": "10.5", "low": "9.5", "close": "10.2", "volume": "100"} | prices
    return ",".join([asset, time, *p.values()])


@dataclass(frozen=True)
class Bad:
    """A file that must be refused, and what the refusal must say."""

    name: str
    code: str
    content: bytes | Callable[[Path], None]
    says: tuple[str, ...]
    spec: FileSpec = BARS
    file: str = "bars.csv"


def parquet(table: pa.Table, **options: object) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path, **options)


def cut_parquet(path: Path) -> None:
    pq.write_table(pa.table({"asset": ["A"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-20])


def flipped_parquet(path: Path) -> None:
    prices = pa.array([float(i % 977) + 1 for i in range(5000)])
    pq.write_table(
        typed_bars(5000, close=prices, high=prices, open=prices, low=prices),
        path,
        write_page_checksum=True,
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def typed_bars(count: int = 3, **columns: pa.Array) -> pa.Table:
    start = datetime(2024, 3, 4, 15, tzinfo=UTC)
    base = {
        "asset": pa.array(["ACME"] * count),
        "time": pa.array([start + timedelta(minutes=i) for i in range(count)], pa.timestamp("us", "UTC")),
        **{n: pa.array([10.0] * count) for n in ("open", "high", "low", "close")},
        "volume": pa.array([100] * count),
    }
    return pa.table(base | columns)


TYPED = replace(BARS, times={"event_time": Times()})


def backfilled(path: Path) -> None:
    stamp = datetime(2024, 6, 1, 12, tzinfo=UTC)
    lines = [f"ACME,2024-03-{d:02}T15:00:00Z,10,10,10,10,1,{stamp.isoformat()}\n" for d in range(1, 20)]
    path.write_text(HEADER.strip() + ",known\n" + "".join(lines))
    os.utime(path, (stamp.timestamp() + 60,) * 2)


def many_rows_then(cell: str) -> bytes:
    lines = [
        f"ACME,2024-03-{4 + i // 1440:02} {i // 60 % 24:02}:{i % 60:02}:00,10,10,10,10,1\n"
        for i in range(30_000)
    ]
    assert len(lines) == 30_000
    lines[29_998] = lines[29_998].replace(",1\n", f",{cell}\n")
    return (HEADER + "".join(lines)).encode()


def known(*lines: str) -> bytes:
    return (HEADER.strip() + ",known\n" + "".join(f"{line}\n" for line in lines)).encode()


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(HEADER.encode() + GOOD.format(d=4, m=0).encode() * 2**18))


def outside(path: Path) -> None:
    secret = path.parent.parent / "secret.csv"
    secret.write_bytes(rows())
    path.symlink_to(secret)


IN_UTC = replace(BARS, times={"event_time": Times(zone="UTC")})
EACH_ITS_OWN = replace(BARS, times={"event_time": Times()})
EPOCH = replace(BARS, times={"event_time": Times(format="ms")})
FIRST = "ACME,2024-03-01T15:00:00Z,10,10,10,10,1,"

BAD = [
    Bad("D1 empty", "QB-DATA-001", b"", ("bars.csv", "empty")),
    Bad("D1 header only", "QB-DATA-001", HEADER.encode(), ("bars.csv", "no rows")),
    Bad("D1 empty gzip", "QB-DATA-001", gzip.compress(b""), ("bars.csv.gz",), file="bars.csv.gz"),
    Bad("D1 empty Parquet", "QB-DATA-001", parquet(typed_bars(0)), ("bars.parquet",), TYPED, "bars.parquet"),
    Bad("D2 cut", "QB-DATA-002", cut_parquet, ("bars.parquet", "Parquet"), TYPED, "bars.parquet"),
    Bad("D2 not Parquet", "QB-DATA-002", rows(), ("bars.parquet",), TYPED, "bars.parquet"),
    Bad("D2 flipped", "QB-DATA-002", flipped_parquet, ("bars.parquet",), TYPED, "bars.parquet"),
    Bad(
        "D4 too few",
        "QB-DATA-004",
        rows("ACME,2024-03-04 10:02:00,10,10"),
        ("line 4", "4 fields", "7 fields"),
    ),
    Bad("D4 too many", "QB-DATA-004", rows(bar() + ",1"), ("line 4", "8 fields", "7 fields")),
    Bad("D4 blank line", "QB-DATA-004", rows("", bar()), ("line 4",)),
    Bad("D4 open quote", "QB-DATA-004", rows(bar(asset='"ACME'), bar(asset='B"')), ("line 4",)),
    Bad("D5 row 30,000", "QB-DATA-005", many_rows_then("n/a"), ("line 30000", "volume", "n/a"), IN_UTC),
    Bad("D5 text for a price", "QB-DATA-005", rows(bar(close="ten")), ("line 4", "close", "ten")),
    Bad("D5 empty price", "QB-DATA-005", rows(bar(close="")), ("line 4", "close")),
    Bad("D5 no such day", "QB-DATA-005", rows(bar("2024-02-30 10:00:00")), ("line 4", "time", "2024-02-30")),
    Bad("D6 ambiguous date", "QB-DATA-006", rows(bar("03/04/2024")), ("line 4", "time", "03/04/2024")),
    Bad("D7 decimal comma", "QB-DATA-007", rows(bar(close='"1.234,56"')), ("line 4", "close", "1.234,56")),
    Bad("D7 short", "QB-DATA-007", rows(bar(close='"10,2"')), ("line 4", "close", "10,2")),
    Bad("D8 blank", "QB-DATA-008", rows(bar(asset="")), ("line 4", "asset")),
    Bad("D8 spaces", "QB-DATA-008", rows(bar(asset="  ")), ("line 4", "asset")),
    Bad(
        "D9 typed ticker",
        "QB-DATA-009",
        parquet(typed_bars(asset=pa.array([True] * 3))),
        ("asset", "bool"),
        TYPED,
        "bars.parquet",
    ),
    Bad(
        "D10 numeric ticker",
        "QB-DATA-009",
        parquet(typed_bars(asset=pa.array([700] * 3))),
        ("asset", "int64"),
        TYPED,
        "bars.parquet",
    ),
    Bad("D11 header twice", "QB-DATA-011", rows(header=HEADER.replace("high", "open")), ("line 1", "open")),
    Bad("D12 NUL", "QB-DATA-012", rows(bar(asset="AC\0ME")), ("line 4", "AC\\x00ME")),
    Bad("D13 UTF-16", "QB-DATA-013", rows().decode().encode("utf-16"), ("line 1",)),
    Bad("D13 UTF-16 without a mark", "QB-DATA-013", rows().decode().encode("utf-16-le"), ("line 1",)),
    Bad(
        "D13 Latin-1",
        "QB-DATA-013",
        rows(bar(asset="Société").replace("é", "\xe9")).decode().encode("latin-1"),
        ("line 4", "xe9"),
    ),
    Bad("D13 mark", "QB-DATA-013", b"\xef\xbb\xbf" + rows(), ("line 1", "byte order mark")),
    Bad("D14 infinite", "QB-DATA-014", rows(bar(high="inf")), ("line 4", "high", "inf")),
    Bad("D14 overflow", "QB-DATA-014", rows(bar(volume="1e999")), ("line 4", "volume", "inf")),
    Bad("D14 NaN", "QB-DATA-014", rows(bar(close="nan")), ("line 4", "close", "nan")),
    Bad("D14 zero", "QB-DATA-014", rows(bar(low="0")), ("line 4", "low", "0.0")),
    Bad("D14 negative volume", "QB-DATA-014", rows(bar(volume="-1")), ("line 4", "volume", "-1.0")),
    Bad("D15 high below low", "QB-DATA-015", rows(bar(high="9.0")), ("line 4",)),
    Bad("D16 same fact twice", "QB-DATA-016", rows(bar(), bar()), ("line 5",)),
    Bad("D17 backward", "QB-DATA-017", rows(bar("2024-03-04 09:59:00")), ("line 4", "time", "09:59:00")),
    Bad("D18 zone in one", "QB-DATA-018", rows(bar("2024-03-04T10:02:00Z")), ("line 4", "time", "10:02:00Z")),
    Bad("D18 zone in none", "QB-DATA-018", rows(bar()), ("line 2", "time"), EACH_ITS_OWN),
    Bad(
        "D18 naive Parquet",
        "QB-DATA-018",
        parquet(typed_bars(time=pa.array([0, 1, 2], pa.timestamp("us")))),
        ("time", "timestamp[us]"),
        TYPED,
        "bars.parquet",
    ),
    Bad("D19 fold", "QB-DATA-019", rows(bar("2024-11-03 01:30:00")), ("line 4", "time", "01:30:00")),
    Bad("D19 gap", "QB-DATA-019", rows(bar("2024-03-10 02:30:00")), ("line 4", "time", "02:30:00")),
    Bad(
        "D20 known_time empty",
        "QB-DATA-020",
        known(FIRST + "2024-03-02T00:00:00Z", FIRST.replace("-01T", "-02T")),
        ("line 3",),
        KNOWN,
    ),
    Bad(
        "D21 known before",
        "QB-DATA-021",
        known(FIRST + "2024-02-29T00:00:00Z"),
        ("line 2", "known_time"),
        KNOWN,
    ),
    Bad("D22 file's time", "QB-DATA-022", backfilled, ("bars.csv", "2024-06-01"), KNOWN),
    Bad(
        "D23 s among ms",
        "QB-DATA-023",
        rows(header=HEADER)
        .replace(b"2024-03-04 10:00:00", b"1709564400000")
        .replace(b"2024-03-04 10:01:00", b"1709564460"),
        ("line 3", "time", "1709564460"),
        EPOCH,
    ),
    Bad(
        "D23 us among ms",
        "QB-DATA-023",
        rows(header=HEADER)
        .replace(b"2024-03-04 10:00:00", b"1709564400000")
        .replace(b"2024-03-04 10:01:00", b"1709564460000000"),
        ("line 3", "time"),
        EPOCH,
    ),
    Bad("D27 link out", "QB-DATA-027", outside, ("bars.csv",)),
    Bad("D28 bomb", "QB-DATA-028", bomb, ("bars.csv.gz", "bytes out of"), file="bars.csv.gz"),
    Bad(
        "D28 size",
        "QB-DATA-028",
        rows(),
        ("bars.csv", "over 64 bytes"),
        replace(BARS, limits=Limits(size=64)),
    ),
    Bad("D28 cell", "QB-DATA-028", rows(bar(asset="A" * 2**20)), ("line 4", "bytes")),
    Bad(
        "D28 rows",
        "QB-DATA-028",
        parquet(typed_bars(1000)),
        ("1,000 rows",),
        replace(TYPED, limits=Limits(rows=999)),
        "bars.parquet",
    ),
    Bad(
        "D29 renamed",
        "QB-DATA-029",
        rows(header=HEADER.replace("close", "closing")),
        ("-close", "+closing", "line 1"),
    ),
    Bad("D29 added", "QB-DATA-029", rows(header=HEADER.replace("volume", "volume,vwap")), ("+vwap",)),
    Bad(
        "D29 Parquet",
        "QB-DATA-029",
        parquet(typed_bars().drop_columns(["low"])),
        ("-low",),
        TYPED,
        "bars.parquet",
    ),
    Bad("D30 tie", "QB-DATA-030", rows(bar(), bar(close="10.3")), ("line 5",)),
    Bad("gzip cut", "QB-DATA-063", gzip.compress(rows())[:-9], ("bars.csv.gz",), file="bars.csv.gz"),
]


def make(bad: Bad, root: Path) -> Path:
    root.mkdir()
    path = root / bad.file
    path.write_bytes(bad.content) if isinstance(bad.content, bytes) else bad.content(path)
    return path


@pytest.mark.parametrize("bad", BAD, ids=lambda b: b.name)
def test_the_reader_refuses(bad: Bad, tmp_path: Path) -> None:
    path = make(bad, tmp_path / "root")
    taken = []
    with pytest.raises(QuantbenchError) as caught:
        taken.extend(read(path, bad.spec))
    assert caught.value.code == bad.code, caught.value
    assert all(word in str(caught.value) for word in bad.says), caught.value
    assert not taken
