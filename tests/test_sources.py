"""Rows D1 to D30 of the bad-input catalogue, at both doors: the reader and the import."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.data.files import FileSource, read
from quantbench.data.filespec import YAHOO, FileSpec, Layout, Limits, Times, binance
from quantbench.data.ingest import ingest, quarantined
from quantbench.data.sources import Chunk, Dataset, SampleSource, conformance
from quantbench.data.store import Lake, scan

CLOCK = SimClock(datetime(2024, 8, 1, tzinfo=UTC))

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


@pytest.mark.parametrize("bad", BAD, ids=lambda b: b.name)
def test_the_import_refuses(bad: Bad, tmp_path: Path) -> None:
    path = make(bad, tmp_path / "root")
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    with pytest.raises(QuantbenchError) as caught:
        ingest(lake, FileSource(path.parent, {path.name: bad.spec}), tell=None)
    assert caught.value.code == bad.code, caught.value
    assert all(word in str(caught.value) for word in bad.says), caught.value
    assert lake.tables() == () and not (tmp_path / "lake-quarantine").exists()


ROWS = [
    b for b in BAD if "line 4" in b.says and not b.name.startswith(("D4 open", "D12", "D13", "D28", "D6 "))
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda b: b.name)
def test_the_quarantine_takes_the_row_and_no_other(bad: Bad, tmp_path: Path) -> None:
    path = make(bad, tmp_path / "root")
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    total = len(path.read_bytes().splitlines()) - 1
    report = ingest(lake, FileSource(path.parent, {path.name: bad.spec}), tell=None, quarantine=0.9)
    aside = quarantined(lake)
    assert set(aside["line"].to_pylist()) == {4} and bad.code in aside["code"].to_pylist()
    assert aside["raw"][0].as_py() == path.read_text().splitlines()[3]
    assert (
        scan(lake, "bars").num_rows == report.total("added") == total - 1 and report.total("set_aside") == 1
    )


def test_a_changed_sample_is_refused(root: Path, tmp_path: Path) -> None:
    """D3: content is what the manifest says."""
    shutil.copytree(root / "quantbench" / "sample", tmp_path / "sample")
    file = tmp_path / "sample" / "vix-bars.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    source, lake = SampleSource(tmp_path / "sample"), Lake.create(tmp_path / "lake", clock=CLOCK)
    with pytest.raises(QuantbenchError, match="QB-DATA-003"):
        list(source.backfill("vix-bars"))
    with pytest.raises(QuantbenchError, match="QB-DATA-003"):
        ingest(lake, source, only=["vix-bars"], tell=None)
    assert lake.tables() == ()


@pytest.mark.parametrize("ticker", ["NA", "NULL", "nan", "None", "TRUE", "0700", "1E5", "-", "inf"])
def test_text_stays_text(ticker: str, tmp_path: Path) -> None:
    """D8 to D10: no word and no digits are anything but a name."""
    path = tmp_path / "bars.csv"
    path.write_bytes(rows(bar(asset=ticker)))
    (found,) = read(path, BARS)
    assert found["asset"].to_pylist() == ["ACME", "ACME", ticker]


@pytest.mark.parametrize("path", ["../secret.csv", "sub/../../secret.csv"])
def test_a_path_cannot_climb_out(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.csv").write_bytes(rows())
    with pytest.raises(QuantbenchError, match="QB-DATA-027"):
        list(read(root / path, BARS, root=root))
    with pytest.raises(QuantbenchError, match="QB-DATA-027"):
        FileSource(root, {path: BARS}).discover()
    with pytest.raises(QuantbenchError, match="QB-DATA-027"):
        FileSource(root, {str(tmp_path / "secret.csv"): BARS}).discover()


def test_a_folder_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "bars.csv").write_bytes(rows())
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QuantbenchError, match="QB-DATA-027"):
        FileSource(tmp_path / "root", {"sub/*.csv": BARS}).discover()


def test_an_empty_file_may_be_right(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(HEADER)
    assert list(read(path, replace(BARS, allow_empty=True))) == []


def values(path: Path, spec: FileSpec, column: str) -> list[object]:
    return [value for part in read(path, spec) for value in part[column].to_pylist()]


def test_a_stated_decimal_comma_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(
        "asset;time;close;volume\nA;2024-03-04 10:00;1.234,5;1.000.000\nA;2024-03-04 10:01;1234,5;1000000\n"
    )
    spec = replace(
        BARS,
        columns={"asset": "asset", "time": "event_time", "close": "close", "volume": "volume"},
        layout=Layout(delimiter=";", decimal=",", thousands="."),
    )
    assert values(path, spec, "close") == [1234.5, 1234.5] and values(path, spec, "volume") == [1e6, 1e6]
    path.write_text(
        "asset;time;close;volume\nA;2024-03-04 10:00;1.5;1\n"
    )  # a decimal point, or thousands cut short?
    with pytest.raises(QuantbenchError, match="QB-DATA-005"):
        list(read(path, spec))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "cp1252"])
def test_a_stated_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(rows(bar(asset="Société")).decode().encode(encoding))
    assert values(path, replace(BARS, layout=Layout(encoding=encoding)), "asset")[-1] == "Société"


def test_blocks_change_nothing_but_the_chunks(tmp_path: Path) -> None:
    """Wherever blocks are cut, inside a character or a line, the rows and the line of a fault are the same."""
    names = ["é", "zürich", "日本", "A"]
    lines = [
        bar(f"2024-03-04 10:{i // 60:02}:{i % 60:02}", names[i % 4], close=f"{10 + i / 10000}")
        for i in range(600)
    ]
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + "\n".join(lines))
    whole = pa.concat_tables(read(path, BARS))
    assert whole.num_rows == 600
    broken = [*lines[:437], bar("2024-03-04 10:08:00", "A", close="x"), *lines[437:]]
    other = tmp_path / "broken.csv"
    other.write_text(HEADER + "\n".join(broken))
    for size in (256, 257, 300, 1001, 4096):
        small = replace(BARS, limits=Limits(block=size, line=200))
        assert pa.concat_tables(read(path, small)).equals(whole)
        with pytest.raises(QuantbenchError, match="line 439, column close"):
            list(read(other, small))


def test_order_is_held_across_chunks(tmp_path: Path) -> None:
    lines = [bar(f"2024-03-04 10:{i:02}:00") for i in range(50)]
    lines[40] = bar("2024-03-04 09:00:00")
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + "\n".join(lines))
    for size in (256, 300, 2**20):
        with pytest.raises(QuantbenchError, match="QB-DATA-017"):
            list(read(path, replace(BARS, limits=Limits(block=size, line=200))))
    unordered = replace(BARS, ordered=False)
    assert sum(part.num_rows for part in read(path, unordered)) == 50


def test_the_fold_resolves_as_stated(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + bar("2024-11-03 01:30:00") + "\n")
    for choice, hour in (("earlier", 5), ("later", 6)):
        spec = replace(BARS, times={"event_time": Times(zone="America/New_York", ambiguous=choice)})
        assert values(path, spec, "event_time") == [datetime(2024, 11, 3, hour, 30, tzinfo=UTC)]
        path_gap = tmp_path / "gap.csv"
        path_gap.write_text(HEADER + bar("2024-03-10 02:30:00") + "\n")
        with pytest.raises(QuantbenchError, match="QB-DATA-019"):
            list(read(path_gap, spec))


@pytest.mark.parametrize(
    "unit, number",
    [("s", 1709564400), ("ms", 1709564400_000), ("us", 1709564400_000_000), ("ns", 1709564400_000_000_000)],
)
def test_epochs_are_read_in_their_unit_and_refused_in_every_other(
    unit: str, number: int, tmp_path: Path
) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + bar(str(number)) + "\n")
    for stated in ("s", "ms", "us", "ns"):
        spec = replace(BARS, times={"event_time": Times(format=stated)})
        if stated == unit:
            assert values(path, spec, "event_time") == [datetime(2024, 3, 4, 15, tzinfo=UTC)]
        else:
            with pytest.raises(QuantbenchError, match="QB-DATA-023"):
                list(read(path, spec))


def test_a_recorder_that_runs_behind_is_put_right(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text("exchange,local,price,size\n1709564400000,1709564398800000000,1.5,2\n")
    spec = FileSpec(
        table="trades",
        source="recorder",
        columns={"exchange": "event_time", "local": "known_time", "price": "price", "size": "size"},
        times={"event_time": Times(format="ms"), "known_time": Times(format="ns")},
        constants={"asset": "BTCUSDT", "sequence": 0, "aggressor": "unknown"},
    )
    with pytest.raises(QuantbenchError, match="QB-DATA-021"):
        list(read(path, spec))
    behind = Times(format="ns", behind=timedelta(milliseconds=1270))
    put_right = replace(spec, times=spec.times | {"known_time": behind})
    assert values(path, put_right, "known_time") == [datetime(2024, 3, 4, 15, 0, 0, 70_000, tzinfo=UTC)]
    assert "1.27" in put_right.known and put_right.hash != spec.hash


# ---- ready-made --------------------------------------------------------------------------------------------------


def test_a_yahoo_file_is_read(tmp_path: Path) -> None:
    """The day after Thanksgiving closes at 13:00 in New York; the adjusted close is left out."""
    path = tmp_path / "BRK-B.csv"
    path.write_text(
        "Date,Open,High,Low,Close,Adj Close,Volume\n"
        "2023-11-22,360.1,362.0,358.9,361.5,361.5,2500000\n2023-11-24,361.0,363.2,360.6,362.7,362.7,1300000\n"
    )
    (found,) = read(path, YAHOO)
    assert found["asset"].to_pylist() == ["BRK-B"] * 2 and found["close"].to_pylist() == [361.5, 362.7]
    assert found["event_time"].to_pylist() == [
        datetime(2023, 11, 22, 21, tzinfo=UTC),
        datetime(2023, 11, 24, 18, tzinfo=UTC),
    ]
    path.write_text(path.read_text() + "2023-11-25,1,1,1,1,1,1\n")
    with pytest.raises(QuantbenchError, match=r"QB-DATA-025[\s\S]*line 4"):
        list(read(path, YAHOO))


@pytest.mark.parametrize("unit, factor", [("ms", 1), ("us", 1000)])
def test_a_binance_file_is_read(unit: str, factor: int, tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m-2025-01.csv"
    opened = 1735689600000 * factor
    path.write_text(
        f"{opened},93576.00,93610.93,93537.50,93610.93,8.21827,{opened + 59999 * factor},768978.1,2631,3.9,368594.5,0\n"
    )
    (found,) = read(path, binance("1m", unit))
    assert found["asset"].to_pylist() == ["BTCUSDT"] and found["close"].to_pylist() == [93610.93]
    assert found["event_time"].to_pylist() == [datetime(2025, 1, 1, 0, 1, tzinfo=UTC)]
    with pytest.raises(QuantbenchError, match="QB-DATA-023"):
        list(read(path, binance("1m", "us" if unit == "ms" else "ms")))


# ---- the suite ---------------------------------------------------------------------------------------------------


def test_both_adapters_keep_every_promise(tmp_path: Path) -> None:
    lines = [bar(f"2024-03-04 10:{i:02}:00") for i in range(60)]
    (tmp_path / "a.csv").write_text(HEADER + "\n".join(lines))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(rows()))
    pq.write_table(typed_bars(50), tmp_path / "c.parquet")
    cut = replace(BARS, limits=Limits(block=512, line=200))
    ours = FileSource(tmp_path, {"a.csv": cut, "*.csv.gz": BARS, "*.parquet": TYPED})
    assert len(list(ours.backfill("a.csv"))) > 3
    assert conformance(ours).broken == ()
    assert conformance(SampleSource()).broken == ()


class Careless(SampleSource):
    """Breaks one promise at a time."""

    fault = ""

    def _chunks(self, dataset: Dataset, start: datetime | None, end: datetime | None) -> Iterator[Chunk]:
        for n, chunk in enumerate(
            super()._chunks(dataset, *((None, None) if self.fault == "ignores ranges" else (start, end)))
        ):
            if self.fault == "new names":
                self.calls = getattr(self, "calls", 0) + 1
                chunk = replace(chunk, content=f"{chunk.content}{self.calls}")
            if self.fault == "one name":
                chunk = replace(chunk, content="same")
            if self.fault == "lies" and n == 0:
                chunk = replace(
                    chunk,
                    load=lambda c=chunk: replace(c.load(), rows=c.load().rows.drop_columns(["revision"])),
                )
            yield chunk
            if self.fault == "one name":
                yield chunk

    def refresh(self, name: str, *, have: frozenset[str]) -> Iterator[Chunk]:
        return super().refresh(name, have=frozenset() if self.fault == "refetches" else have)

    def stream(self, name: str) -> Iterator[Chunk]:
        return iter(()) if self.fault == "streams nothing" else super().stream(name)

    def discover(self) -> tuple[Dataset, ...]:
        found = super().discover()
        return tuple(replace(d, known="") for d in found) if self.fault == "unknown times" else found


@pytest.mark.parametrize(
    "fault, promise",
    [
        ("ignores ranges", "10"),
        ("new names", "7"),
        ("one name", "6"),
        ("lies", "4"),
        ("refetches", "8"),
        ("streams nothing", "12"),
        ("unknown times", "2"),
    ],
)
def test_the_suite_notices(fault: str, promise: str) -> None:
    source = Careless()
    source.fault = fault
    assert any(line.startswith(f"{promise} ") for line in conformance(source, frozenset({"vix-bars"})).broken)


def test_the_sample_keeps_its_size_and_traps(root: Path) -> None:
    folder = root / "quantbench" / "sample"
    assert sum(f.stat().st_size for f in folder.iterdir()) < 15_000_000
    source = SampleSource()
    assert all(
        d.licence in ("MIT", "Apache-2.0", "public domain (PDDL)") and d.note for d in source.discover()
    )

    def frame(name: str) -> pa.Table:
        return pa.concat_tables([c.load().rows for c in source.backfill(name)])

    oil = frame("oil-prices")
    assert -36.98 in oil["value"].to_pylist()
    units = (
        frame("sp500-fundamentals")
        .select(["metric", "unit"])
        .group_by(["metric", "unit"])
        .aggregate([])
        .to_pylist()
    )
    assert {"USD", "USD bn"} <= {u["unit"] for u in units if u["metric"] == "market_cap"}
    assert {"percent", "fraction"} <= {u["unit"] for u in units if u["metric"] == "dividend_yield"}
    splits = [
        r for r in frame("corporate-actions").to_pylist() if r["asset"] == "AAPL" and r["kind"] == "split"
    ]
    assert [r["ratio"] for r in splits] == [2.0, 2.0, 7.0, 4.0]
    assert any(
        int(c.split()[0], 16) & 0x20000000 for c in frame("ibm-trades")["conditions"].unique().to_pylist()
    )


# ---- memory ------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from quantbench.data.files import read
from tests.test_sources import BARS, IN_UTC
from dataclasses import replace
from quantbench.data.filespec import Limits
import pyarrow as pa
spec = replace(IN_UTC, limits=Limits(block=2**20))
rows = sum(part.num_rows for part in read(sys.argv[1], spec))
whole = int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
print(rows, pa.default_memory_pool().max_memory(), whole)
"""


def test_memory_is_bounded_by_a_block_and_not_by_the_file(root: Path, tmp_path: Path) -> None:
    """Ten times the file, the same peak: in Arrow's allocator and in the process as a whole."""
    peaks = []
    for times in (4, 40):
        path = tmp_path / f"{times}.csv"
        with path.open("w") as file:
            file.write(HEADER)
            for i in range(times * 20_000):
                file.write(
                    f"ACME,{1900 + i // 525_600 + 100}-01-{1 + i // 1440 % 28:02} {i // 60 % 24:02}:{i % 60:02}:{i // 40320 % 60:02},10,10,10,10,1\n"
                )
        command = [
            sys.executable,
            "-c",
            PEAK.replace("IN_UTC, limits", "IN_UTC, ordered=False, limits"),
            str(path),
        ]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        peaks.append([int(n) for n in done.stdout.split()])
    (few, arrow_small, all_small), (many, arrow_large, all_large) = peaks
    assert many == 10 * few
    assert arrow_large < 1.5 * arrow_small and all_large < 1.25 * all_small
