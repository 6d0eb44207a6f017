"""The import under kills, repetition and rivals: in the lake or not, once, and never in between."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kills import in_child, killed_at
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.data import ingest as module
from quantbench.data.files import FileSource
from quantbench.data.filespec import FileSpec, Limits, Times
from quantbench.data.ingest import Ingested, ingest, quarantined
from quantbench.data.schema import schema
from quantbench.data.snapshot import content_hash
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake, scan

CLOCK = SimClock(datetime(2024, 8, 1, tzinfo=UTC))
SPEC = FileSpec(
    table="bars",
    source="test",
    columns={"asset": "asset", "time": "event_time", "known": "known_time", "close": "close"},
    times={"event_time": Times(), "known_time": Times()},
    constants={"interval": "1m", "price_type": "trade", "adjustment": "raw"},
    limits=Limits(block=1024, line=256),
)
HEADER = "asset,time,known,close\n"
START = datetime(2024, 3, 4, 15, tzinfo=UTC)


def line(i: int, asset: str = "ACME", close: object = 10.0, late: int = 1) -> str:
    time = START + timedelta(minutes=i)
    return f"{asset},{time.isoformat()},{(time + timedelta(minutes=late)).isoformat()},{close}\n"


def inbox(folder: Path, **files: list[str]) -> FileSource:
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.csv").write_text(HEADER + "".join(lines))
    return FileSource(folder, {"*.csv": SPEC})


def fresh(root: Path) -> Lake:
    return Lake.open(root, clock=CLOCK)


def state(lake: Lake) -> dict[str, str]:
    return {name: content_hash(scan(lake, name)) for name in lake.tables()}


def taken(lake: Lake, source: FileSource, **options: object) -> Ingested:
    return ingest(lake, source, tell=None, **options)


# ---- once --------------------------------------------------------------------------------------------------------


def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    source = inbox(tmp_path / "in", a=[line(i) for i in range(60)], b=[line(i, "OTHER") for i in range(5)])
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    first = taken(lake, source)
    before, version = state(lake), lake.version("bars")
    assert first.total("added") == 65 and len(first.tallies[0].chunks) > 2 and version > 3
    again = taken(fresh(tmp_path / "lake"), source)
    assert again.total("read") == 0 and state(lake) == before and lake.version("bars") == version
    assert again.hash != first.hash and taken(lake, source).hash == again.hash


def test_the_same_facts_in_other_files_are_stored_once(tmp_path: Path) -> None:
    """Another file, other chunks, another order: what is said is the same."""
    lines = [line(i) for i in range(60)]
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    taken(lake, inbox(tmp_path / "one", a=lines))
    before = state(lake)
    other = taken(lake, inbox(tmp_path / "two", x=lines[20:], y=lines[:30]))
    assert other.total("unchanged") > 50 and other.total("added") == 0 and state(lake) == before


def test_a_grown_file_adds_its_tail_alone(tmp_path: Path) -> None:
    lines = [line(i) for i in range(80)]
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    taken(lake, inbox(tmp_path / "in", a=lines[:60]))
    grown = taken(lake, inbox(tmp_path / "in", a=lines))
    assert (
        grown.total("added") == 20 and grown.total("read") < 60
    )  # whole chunks before the tail are not read
    assert scan(lake, "bars").num_rows == 80


def test_a_source_without_refresh_is_not_stored_twice(tmp_path: Path) -> None:
    class Plain(FileSource):
        def __init__(self, root: Path) -> None:
            super().__init__(root, {"*.csv": SPEC})
            self.can = frozenset()

    inbox(tmp_path / "in", a=[line(i) for i in range(60)])
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    assert taken(lake, Plain(tmp_path / "in")).total("added") == 60
    assert taken(lake, Plain(tmp_path / "in")).total("read") == 0


# ---- versions ----------------------------------------------------------------------------------------------------


def test_a_restatement_is_a_version_and_a_repetition_is_not(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    taken(lake, inbox(tmp_path / "in", a=[line(0), line(1)]))
    later = inbox(tmp_path / "in", b=[line(0, late=500), line(1, close=11.0, late=500)])
    report = taken(lake, later)
    assert (report.total("restated"), report.total("unchanged"), report.total("added")) == (1, 1, 0)
    assert scan(lake, "bars")["close"].to_pylist() == [10.0, 10.0, 11.0]


def test_a_contradiction_is_refused_with_both_values(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    taken(lake, inbox(tmp_path / "in", a=[line(0), line(1)]))
    before = state(lake)
    with pytest.raises(QuantbenchError) as caught:
        taken(lake, inbox(tmp_path / "in", b=[line(1, close=11.0), line(2)]))
    text = str(caught.value)
    assert (
        caught.value.code == "QB-DATA-030"
        and "b.csv" in text
        and "10.0, now 11.0" in text
        and "asset ACME" in text
    )
    assert state(lake) == before


def test_a_version_that_arrives_late_takes_its_place(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    taken(lake, inbox(tmp_path / "in", a=[line(0, late=100)]))
    report = taken(lake, inbox(tmp_path / "in", b=[line(0, close=9.0, late=1)]))
    assert report.total("added") + report.total("restated") == 1
    assert scan(lake, "bars")["close"].to_pylist() == [9.0, 10.0]


FACTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 4), st.integers(1, 3)), max_size=12
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(FACTS, FACTS)
def test_what_is_new_equals_a_dictionary(before: list[tuple[int, ...]], after: list[tuple[int, ...]]) -> None:
    """asset, minute, known, value; the first value said for a version stands, as the tables are made without ties."""
    there, new = table_of(dict_of(before)), table_of(dict_of(after))
    old, told = dict_of(before), dict_of(after)
    contradictions = {k for k in told if k in old and old[k] != told[k]}
    if contradictions:
        with pytest.raises(QuantbenchError, match="QB-DATA-030"):
            module._delta(new, there, schema("bars"), "test")
        return
    expected = {}
    for key, value in told.items():
        fact = {k: v for k, v in (old | told).items() if k[:2] == key[:2] and k[2] < key[2]}
        if key not in old and (not fact or fact[max(fact)] != value):
            expected[key] = value
    delta = module._delta(new, there, schema("bars"), "test")
    assert {*rows_of(delta.rows)} == {*expected.items()}
    assert delta.added + delta.restated == len(expected) and delta.unchanged == len(told) - len(expected)


def dict_of(facts: list[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for *key, value in facts:
        found.setdefault(tuple(key), value)
    return found


def table_of(facts: dict[tuple[int, ...], int]) -> pa.Table:
    contract, count = schema("bars"), len(facts)
    columns = {
        "asset": [f"A{a}" for a, _, _ in facts],
        "interval": ["1m"] * count,
        "price_type": ["trade"] * count,
        "adjustment": ["raw"] * count,
        "close": [float(v) for v in facts.values()],
        "event_time": [START + timedelta(minutes=m) for _, m, _ in facts],
        "known_time": [START + timedelta(hours=k) for _, _, k in facts],
        "revision": [0] * count,
        "source": ["test"] * count,
    }
    arrays = [pa.array(columns.get(f.name, [None] * count), f.type) for f in contract.arrow]
    return pa.table(arrays, contract.arrow)


def rows_of(rows: pa.Table) -> list[tuple[tuple[int, ...], int]]:
    return [
        (
            (
                int(r["asset"][1:]),
                (r["event_time"] - START) // timedelta(minutes=1),
                (r["known_time"] - START) // timedelta(hours=1),
            ),
            int(r["close"]),
        )
        for r in rows.to_pylist()
    ]


# ---- whole -------------------------------------------------------------------------------------------------------


def test_a_fault_in_the_last_chunk_leaves_nothing(tmp_path: Path) -> None:
    source = inbox(tmp_path / "in", a=[*(line(i) for i in range(100)), line(100, close="x")])
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    with pytest.raises(QuantbenchError, match=r"QB-DATA-005[\s\S]*line 102"):
        taken(lake, source)
    assert lake.tables() == ()


def test_the_quarantine_is_the_same_twice_and_bounded(tmp_path: Path) -> None:
    lines = [line(i, close="bad" if i in (3, 77) else 10.0) for i in range(100)]
    source = inbox(tmp_path / "in", a=lines)
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    with pytest.raises(QuantbenchError, match=r"QB-DATA-064[\s\S]*2 of|QB-DATA-064[\s\S]*1 of"):
        taken(lake, source, quarantine=0.001)
    assert lake.tables() == () and quarantined(lake).num_rows == 0
    report = taken(lake, source, quarantine=0.1)
    assert report.total("added") == 98 and report.total("set_aside") == 2
    aside = quarantined(lake)
    assert aside["line"].to_pylist() == [5, 79] and aside["raw"].to_pylist() == [
        lines[i].strip() for i in (3, 77)
    ]
    assert taken(lake, source, quarantine=0.1).total("read") == 0 and quarantined(lake).equals(aside)
    assert report.tallies[0].faults == {"QB-DATA-005": 2} and "QB-DATA-005" in repr(report)


def test_a_terminal_gets_bars_and_others_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = inbox(tmp_path / "in", a=[line(i) for i in range(60)])
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    ingest(lake, source)
    assert capsys.readouterr().out == "a.csv -> bars: 60 added\n"
    capsys.readouterr()
    code = "import sys; sys.stdout.isatty = lambda: True\n" + IMPORT
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "a.csv -> bars" in done.stdout and "100%" in done.stdout


IMPORT = """
from pathlib import Path
sys.path.insert(0, 'tests')
from test_ingest import fresh, inbox
from quantbench.data.ingest import ingest
ingest(fresh(Path(sys.argv[1]) / 'lake'), inbox(Path(sys.argv[1]) / 'in'))
"""


def test_the_whole_sample_comes_in_and_only_its_contradictions_stay_out(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    report = ingest(lake, SampleSource(), tell=None, quarantine=0.01)
    assert report.total("set_aside") == 42 + 47 + 1
    assert {code for t in report.tallies for code in t.faults} == {"QB-DATA-014", "QB-DATA-015"}
    assert scan(lake, "observations", assets="WTI", columns=["value"])["value"].to_numpy().min() == -36.98
    assert report.total("added") + report.total("restated") == sum(
        scan(lake, n, columns=["asset"]).num_rows for n in lake.tables()
    )
    assert ingest(lake, SampleSource(), tell=None, quarantine=0.01).total("added") == 0


# ---- rivals ------------------------------------------------------------------------------------------------------


def test_four_imports_at_once_store_each_fact_once(tmp_path: Path, root: Path) -> None:
    """Overlapping files in different chunks, so that no batch id helps."""
    lines = [line(i) for i in range(200)]
    Lake.create(tmp_path / "lake", clock=CLOCK)
    code = (
        "import os, sys\n"
        + IMPORT.replace("/ 'in'", "/ sys.argv[2]")
        + "os._exit(0)  # no threads of libraries to wait for\n"
    )
    runs = []
    for k in range(4):
        inbox(tmp_path / f"in{k}", **{f"f{k}": lines[k * 3 :]})
        command = [sys.executable, "-c", code, str(tmp_path), f"in{k}"]
        runs.append(
            subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    for run in runs:
        assert run.communicate()[1] == "" and run.returncode == 0
    lake = fresh(tmp_path / "lake")
    assert scan(lake, "bars").num_rows == 200 and not lake.check().problems


KILLED = [line(i, close="bad" if i % 20 == 7 else 10.0 + i % 9) for i in range(36)]  # three chunks
MIDDLE = 17


def whole_chunks(folder: Path, root: Path, expected: str) -> None:
    """After a kill: every chunk is in or not, and a run over it ends where an undisturbed one does; tells of a part."""
    lake, source = fresh(root), FileSource(folder / "in", {"*.csv": SPEC})
    chunks = {c.id: c.load().rows.num_rows for c in source.backfill("a.csv")}
    there = {b: sum(f.rows for f in c.files) for c in lake.commits("bars") for b in [c.batch]}
    assert all(chunks[batch] == rows for batch, rows in there.items()), (chunks, there)
    assert scan(lake, "bars").num_rows == sum(there.values())
    ingest(lake, source, tell=None, quarantine=0.1)
    assert content_hash(scan(lake, "bars")) == expected and quarantined(lake).num_rows == 2
    assert lake.batches("bars") == set(chunks)
    os._exit(MIDDLE if 0 < len(there) < len(chunks) else 0)


def random_kills(folder: Path, trials: int) -> None:
    import deltalake  # noqa: F401  what takes long to import: once here, not in each child
    import pandas  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401

    inbox(folder / "in", a=KILLED)
    source = FileSource(folder / "in", {"*.csv": SPEC})
    reader, writer = os.pipe()

    def work(root: Path) -> None:
        ingest(fresh(root), source, tell=None, quarantine=0.1)

    def tell() -> None:
        os.write(writer, content_hash(scan(fresh(folder / "calm0"), "bars")).encode())

    spans = []
    for n in range(5):
        Lake.create(folder / f"calm{n}", clock=CLOCK)
        begin = time.monotonic()
        assert not killed_at(60.0, lambda n=n: work(folder / f"calm{n}"))
        spans.append(time.monotonic() - begin)
    assert in_child(tell) == 0
    expected = os.read(reader, 100).decode()
    draw, span, hits, partial = random.Random(20240607), 1.1 * max(spans), 0, 0
    for trial in range(trials):
        root = folder / f"lake{trial}"
        Lake.create(root, clock=CLOCK)
        hit = killed_at(draw.uniform(0.0, span), lambda r=root: work(r))
        status = os.waitstatus_to_exitcode(in_child(lambda r=root: whole_chunks(folder, r, expected)))
        assert status in (0, MIDDLE), f"trial {trial}"
        hits, partial = hits + hit, partial + (status == MIDDLE)
        span *= (
            0.93 if not hit else 1.0 if status == MIDDLE else 1.04
        )  # an import takes as long as the machine lets it
        shutil.rmtree(root)
        shutil.rmtree(folder / f"lake{trial}-quarantine", ignore_errors=True)
    print(hits, partial)


def test_200_kills_leave_whole_chunks_and_end_where_an_undisturbed_run_does(
    tmp_path: Path, root: Path, soak: int
) -> None:
    """In memory where there is a file system of it: a kill takes nothing that a running system holds."""
    code = f"import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_ingest import random_kills; random_kills(Path(sys.argv[1]), {200 * soak})"
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        done = subprocess.run([sys.executable, "-c", code, folder], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hits, partial = map(int, done.stdout.split())
    assert hits > 50 * soak and partial > 10 * soak, (hits, partial)
