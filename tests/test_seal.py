"""The holdout: no question returns a sealed row, nothing lies in the clear, every opening is on record, every change shows."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.chain import read, verify
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal
from quantbench.data import seal
from quantbench.data.schema import conform, schema
from quantbench.data.seal import Project, boundary, create, unseal
from quantbench.data.store import Lake, scan

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
DAYS = 100


def figures(seed: int) -> pa.Table:
    """Facts of two series over 100 days, known up to 40 days late, some of them restated."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in ("ACME", "ZED"):
        for day in range(DAYS):
            event = START + dt.timedelta(days=day)
            for revision in range(1 + (rng.random() < 0.3)):
                known = event + dt.timedelta(days=float(rng.integers(0, 40)) + 50 * revision)
                rows.append((name, "eps", float(rng.normal()), "USD", event, known, revision, "test"))
    contract = schema("fundamentals")
    columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), contract.arrow.types, strict=True)]
    return conform(pa.Table.from_arrays(columns, schema=contract.arrow), contract, where="test")


@pytest.fixture(scope="module")
def clock() -> SimClock:
    return SimClock(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return figures(1)


@pytest.fixture(scope="module")
def original(tmp_path_factory, clock, rows) -> Lake:
    lake = Lake.create(tmp_path_factory.mktemp("original") / "lake", clock=clock)
    lake.append("fundamentals", rows, source="test")
    return lake


@pytest.fixture(scope="module")
def project(tmp_path_factory, clock, original) -> Project:
    return create(original, tmp_path_factory.mktemp("work") / "project", who="tester", clock=clock)


@pytest.fixture
def spoiled(tmp_path, project) -> Project:
    """A copy of the project that a test may damage."""
    shutil.copytree(project.root, tmp_path / "copy")
    return Project.open(tmp_path / "copy", clock=project.clock)


moments = st.datetimes(dt.datetime(2019, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(dt.UTC))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    as_of=moments,
    start=st.none() | moments,
    end=st.none() | moments,
    assets=st.sampled_from([None, "ACME", ["ACME", "ZED"]]),
)
def test_no_question_returns_a_sealed_row(project, as_of, start, end, assets):
    answers = [
        project.history("fundamentals", as_of=as_of, start=start, end=end, assets=assets),
        project.latest("fundamentals", as_of=as_of, assets=assets),
    ]
    for answer in answers:
        assert all(t < project.boundary for t in answer.rows["known_time"].to_pylist())
        assert all(t < project.boundary for t in answer.rows["event_time"].to_pylist())
        assert ("withheld" in answer.note) == (as_of >= project.boundary)


def test_rows_somebody_appended_to_the_open_lake_stay_unseen(spoiled, rows):
    late = rows.filter(pa.compute.greater_equal(rows["known_time"], pa.scalar(spoiled.boundary)))
    Lake.open(spoiled.root / "lake", clock=spoiled.clock).append("fundamentals", late, source="by hand")
    answer = spoiled.history("fundamentals", as_of=dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    assert all(t < spoiled.boundary for t in answer.rows["known_time"].to_pylist())


def test_the_boundary_leaves_the_final_fifth_of_days(rows):
    edge = boundary(rows["event_time"], 0.2)
    assert edge == START + dt.timedelta(days=80)


def test_open_and_sealed_rows_are_all_rows_and_no_row_is_both(spoiled, rows):
    kept = scan(Lake.open(spoiled.root / "lake", clock=spoiled.clock), "fundamentals")
    hidden = unseal(spoiled, who="t", why="t", lineage="l", config="c")["fundamentals"]
    assert min(hidden["known_time"].to_pylist()) >= spoiled.boundary > max(kept["known_time"].to_pylist())
    key = [(n, "ascending") for n in ("asset", "event_time", "known_time", "revision")]
    assert pa.concat_tables([kept, hidden]).sort_by(key).equals(rows.sort_by(key))


def test_no_sealed_value_lies_in_the_clear(project, rows):
    content = b"".join(p.read_bytes() for p in project.root.rglob("*") if p.is_file())
    late = rows.filter(pa.compute.greater_equal(rows["known_time"], pa.scalar(project.boundary)))
    assert late.num_rows > 30
    assert not [v for v in late["value"].to_pylist() if np.float64(v).tobytes() in content]


@pytest.mark.parametrize("name", ["fundamentals", "key"])
def test_any_changed_byte_of_a_sealed_file_is_found(spoiled, name):
    target = spoiled.root / "sealed" / name
    intact = target.read_bytes()
    for trial, position in enumerate(np.random.default_rng(3).integers(0, len(intact), 40)):
        changed = bytearray(intact)
        changed[position] ^= 1 << trial % 8
        target.write_bytes(changed)
        with pytest.raises(QuantbenchError) as refusal:
            unseal(spoiled, who="t", why="t", lineage=f"{name}{trial}", config="c")
        assert refusal.value.code == "QB-SEAL-003"


def test_a_sealed_file_cannot_be_taken_for_another(spoiled):
    seal_of = dict(spoiled.tables)
    (spoiled.root / "sealed" / "bars").write_bytes((spoiled.root / "sealed" / "fundamentals").read_bytes())
    swapped = Project(spoiled.root, spoiled.clock, spoiled.boundary, {"bars": seal_of["fundamentals"]})
    with pytest.raises(QuantbenchError, match="QB-SEAL-003"):
        unseal(swapped, who="t", why="t", lineage="l", config="c")


def test_every_opening_is_recorded_before_anything_is_decrypted(spoiled, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        assert [r.payload["lineage"] for r in spoiled.openings()] == ["first"]
        raise Stopped

    monkeypatch.setattr(seal, "_decrypt", stop)
    with pytest.raises(Stopped):
        unseal(spoiled, who="t", why="t", lineage="first", config="c")
    monkeypatch.undo()
    with pytest.raises(QuantbenchError, match="QB-SEAL-002"):
        unseal(spoiled, who="t", why="again", lineage="first", config="c")


def test_an_opening_cannot_be_erased(spoiled):
    before = (spoiled.root / "journal").read_bytes()
    unseal(spoiled, who="t", why="t", lineage="first", config="c")
    anchor = verify(spoiled.root / "journal").head
    (spoiled.root / "journal").write_bytes(before)  # the record cut off; the chain alone does not show it
    with pytest.raises(QuantbenchError, match="QB-SEAL-003"):
        unseal(
            spoiled, who="t", why="once more", lineage="first", config="c"
        )  # but the key was wrapped under it
    with pytest.raises(QuantbenchError, match="QB-JNL"):
        verify(spoiled.root / "journal", anchor=anchor)


def test_the_reader_holds_no_key_and_reading_leaves_no_record(project):
    assert set(project.__dataclass_fields__) == {"root", "clock", "boundary", "tables"}
    assert [r.kind for r in read(project.root / "journal")] == ["seal"]


def test_a_creation_that_dies_leaves_no_project(tmp_path, original, clock, monkeypatch):
    class Killed(BaseException):
        pass

    for boundary_name in ("_seal_table", "_store_key"):

        def die(*_: object) -> None:
            raise Killed

        monkeypatch.setattr(seal, boundary_name, die)
        target = tmp_path / f"project{boundary_name}"
        with pytest.raises(Killed):
            create(original, target, who="t", clock=clock)
        monkeypatch.undo()
        assert not target.exists()
        assert create(original, target, who="t", clock=clock).tables["fundamentals"]["sealed"] > 0


def test_the_seal_says_what_was_sealed_by_whom_and_with_which_code(project):
    record = next(read(project.root / "journal"))
    assert record.kind == "seal" and record.payload["who"] == "tester"
    for name, of in project.tables.items():
        assert hashlib.sha256((project.root / "sealed" / name).read_bytes()).hexdigest() == of["sha256"]
    assert record.payload["code"] == seal._code() and len(seal._code()) == 64


def test_projects_have_keys_of_their_own(tmp_path, original, clock):
    one, two = (
        create(original, tmp_path / n, who="t", clock=clock).root / "sealed" / "fundamentals" for n in "ab"
    )
    assert one.read_bytes() != two.read_bytes()
    assert {p.name for p in Path(tmp_path).iterdir()} == {"a", "b"}


def test_an_opening_killed_while_it_stores_the_key_does_not_lock_the_seal(spoiled):
    """What it leaves behind was once in the way of every opening after it."""
    (spoiled.root / "sealed" / "key.new").write_bytes(b"torn")
    assert unseal(spoiled, who="t", why="t", lineage="l", config="c")["fundamentals"].num_rows
    assert not (spoiled.root / "sealed" / "key.new").exists()
    assert unseal(spoiled, who="t", why="t", lineage="m", config="c")


def test_an_empty_lake_has_nothing_to_seal(tmp_path, clock):
    lake = Lake.create(tmp_path / "lake", clock=clock)
    with pytest.raises(QuantbenchError, match="QB-SEAL-005"):
        create(lake, tmp_path / "project", who="t", clock=clock)


def test_the_version_that_is_sealed_is_the_version_recorded(tmp_path, clock, rows, monkeypatch):
    """Somebody appends while the project is made."""
    lake = Lake.create(tmp_path / "lake", clock=clock)
    lake.append("fundamentals", rows.slice(0, 100), source="test")

    def scan_and_append(*args, **options):
        found = scan(*args, **options)
        lake.append("fundamentals", rows.slice(100), source="test")
        return found

    monkeypatch.setattr(seal, "scan", scan_and_append)
    terms = create(lake, tmp_path / "project", who="t", clock=clock).tables["fundamentals"]
    stated = scan(lake, "fundamentals", version=int(terms["version"]))
    assert stated.num_rows == terms["open"] + terms["sealed"]


@pytest.mark.parametrize("lineage", ["", " ", "mine ", None, 7])
def test_a_lineage_has_a_name(spoiled, lineage):
    """A space is no second chance, and nothing is recorded for a request that was refused."""
    with pytest.raises(QuantbenchError, match="QB-SEAL-006"):
        unseal(spoiled, who="t", why="t", lineage=lineage, config="c")
    assert spoiled.openings() == []


def test_without_its_journal_a_project_is_refused_and_gets_no_new_one(spoiled):
    (spoiled.root / "journal").unlink()
    with pytest.raises(QuantbenchError, match="QB-SEAL-004"):
        unseal(spoiled, who="t", why="t", lineage="l", config="c")
    assert not (spoiled.root / "journal").exists()


def test_an_opening_somebody_wrote_by_hand_does_not_jam_the_seal(spoiled):
    with Journal.open(spoiled.root / "journal", clock=spoiled.clock) as journal:
        journal.append("holdout_read", {"who": "somebody"})
    assert unseal(spoiled, who="t", why="t", lineage="l", config="c")["fundamentals"].num_rows


@pytest.mark.parametrize(
    ("days", "fraction", "sealed"), [(100, 0.07, 7), (100, 0.2, 20), (11, 0.2, 3), (2, 0.5, 1)]
)
def test_the_boundary_seals_the_fraction_and_no_day_more(days, fraction, sealed):
    times = pa.chunked_array(
        [pa.array([START + dt.timedelta(days=n) for n in range(days)], pa.timestamp("us", "UTC"))]
    )
    assert boundary(times, fraction) == START + dt.timedelta(days=days - sealed)
    with pytest.raises(QuantbenchError, match="QB-SEAL-005"):
        boundary(times.slice(0, 2), 0.99)  # nothing would be left to look at


def test_two_openings_at_once_are_one(spoiled):
    def ask(_: int) -> str:
        try:
            unseal(spoiled, who="t", why="t", lineage="same", config="c")
        except QuantbenchError as error:
            return error.code
        return "opened"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == ["QB-SEAL-002"] * 3 + ["opened"]
    assert len(spoiled.openings()) == 1
