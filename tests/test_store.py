"""The lake under kills, full disks, flipped bits, many processes and forks."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kills import in_child, killed_at
from quantbench.core.check import QuantbenchError, refused
from quantbench.core.clock import SimClock
from quantbench.data import layout, store
from quantbench.data.snapshot import content_hash
from quantbench.data.staging import staging
from quantbench.data.store import Lake, scan

CLOCK = SimClock(datetime(2024, 1, 1, tzinfo=UTC))
START = datetime(2021, 12, 30, 20, tzinfo=UTC)


def batch(number: int, rows: int = 3) -> pa.Table:
    """Observations that say which batch they are of; those of one batch lie in two years."""
    times = [START + timedelta(days=n, minutes=number) for n in range(rows)]
    columns = {
        "asset": [f"A{number % 5}"] * rows,
        "field": ["close"] * rows,
        "value": [float(number)] * rows,
        "unit": ["USD"] * rows,
        "event_time": times,
        "known_time": times,
        "source": ["test"] * rows,
    }
    return pa.table(columns)


def numbers(lake: Lake) -> list[int]:
    """The batches that can be read, each checked to be whole."""
    values = scan(lake, "observations")["value"].to_pylist()
    found = sorted({int(value) for value in values})
    assert all(values.count(float(n)) == 3 for n in found), values
    return found


def put(lake: Lake, number: int) -> None:
    lake.append("observations", batch(number), source="test", batch=f"b{number}")


def fresh(root: Path) -> Lake:
    return Lake.open(root, clock=CLOCK)


def old_or_new(root: Path, number: int) -> None:
    """After a kill while `number` was appended: all or nothing of it, and the next append works."""
    before = list(range(number))
    lake = fresh(root)
    assert numbers(lake) in (before, [*before, number])
    put(lake, number)
    assert numbers(lake) == [*before, number]
    assert lake.version("observations") == number + 1
    assert not lake.check().problems


def random_kills(folder: str, trials: str) -> None:
    """Kill at moments spread over the time an append takes here; a new lake now and then."""
    draw, hits = random.Random(20240607), 0
    trial = Path(folder, "trial")
    Lake.create(trial, clock=CLOCK)
    begin = time.monotonic()
    for number in range(5):
        killed_at(60.0, lambda n=number: put(fresh(trial), n))
    span = 1.1 * (time.monotonic() - begin) / 5
    for trial in range(int(trials)):
        number = trial % 8
        root = Path(folder, f"lake{trial // 8}")
        if number == 0:
            Lake.create(root, clock=CLOCK)
        hit = killed_at(draw.uniform(0.0, span), lambda r=root, n=number: put(fresh(r), n))
        hits, span = (
            hits + hit,
            span * (1.01 if hit else 0.95),
        )  # an append takes as long as the machine lets it
        assert in_child(lambda r=root, n=number: old_or_new(r, n)) == 0, f"trial {trial}"
        if number == 7:
            assert in_child(lambda r=root: swept(r)) == 0
    print(hits)


def swept(root: Path) -> None:
    lake = fresh(root)
    lake.sweep()
    report = lake.check()
    assert not report.problems and not report.leftovers
    assert not list((root / store.STAGING).iterdir())
    listed = [path.name for path in (root / "observations/_delta_log").iterdir()]
    assert len(listed) == 9, listed  # and no file of Delta's own on its way


STEPS: list[tuple[Any, str]] = [
    (layout, "write_durably"),
    (layout, "sync"),
    (Path, "replace"),
    (store.Journal, "append"),
    (store, "sync"),
]


def boundaries(folder: str) -> None:
    """Kill before and after each step of an append, the first of a table and a later one."""
    import deltalake

    from quantbench.core.journal import Disk

    steps = [*STEPS, (Disk, "write"), (Disk, "sync"), (deltalake.DeltaTable, "create_write_transaction")]
    steps += [(store._DeltaLog, "commit"), (deltalake.DeltaTable, "create")]
    tried = 0
    for number in (0, 1):
        step = 0
        while True:
            root = Path(folder, f"lake{number}-{step}")
            Lake.create(root, clock=CLOCK)
            if number:
                assert in_child(lambda r=root: put(fresh(r), 0)) == 0
            status = in_child(lambda r=root, s=step, n=number: (arm(steps, s), put(fresh(r), n)))
            assert in_child(lambda r=root, n=number: old_or_new(r, n)) == 0, (
                f"boundary {step} of append {number}"
            )
            assert in_child(lambda r=root: fresh(r).sweep()) == 0
            shutil.rmtree(root)
            if not os.WIFSIGNALED(status):
                assert status == 0
                break
            step, tried = step + 1, tried + 1
    print(tried)


def arm(steps: list[tuple[Any, str]], fatal: int) -> None:
    """Make the process kill itself at a boundary: each call of each step has one before it and one after it."""
    passed = iter(range(10_000))

    def boundary() -> None:
        if next(passed) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in steps:
        original = getattr(owner, name)

        def stepped(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            boundary()
            result = original(*args, **kwargs)
            boundary()
            return result

        setattr(owner, name, stepped)


def half_written(folder: str) -> None:
    """Killed in the middle of a data file's bytes."""

    def half(path: Path, data: memoryview) -> None:
        path.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    root = Path(folder, "lake")
    Lake.create(root, clock=CLOCK)
    assert in_child(lambda: put(fresh(root), 0)) == 0
    assert os.WIFSIGNALED(in_child(lambda: (setattr(layout, "write_durably", half), put(fresh(root), 1))))
    assert in_child(lambda: old_or_new(root, 1)) == 0
    assert in_child(lambda: swept_count(root, 1)) == 0


def swept_count(root: Path, count: int) -> None:
    assert fresh(root).sweep() == count


def full_disk(folder: str) -> None:
    """No file may grow beyond a limit: the append is refused or whole, and works once there is room."""
    refusals = set()
    whole = Path(folder, "lake")
    Lake.create(whole, clock=CLOCK)
    assert in_child(lambda: [put(fresh(whole), number) for number in range(8)]) == 0
    for limit in (0, 100, 500, 1000, 2000, 3000, 4000, 6000, 9000, 20_000):
        root = Path(folder, f"lake{limit}")
        shutil.copytree(whole, root)
        status = in_child(lambda r=root, size=limit: limited(r, size))
        assert os.WIFEXITED(status)
        refusals.add(os.WEXITSTATUS(status))
        assert in_child(lambda r=root: old_or_new(r, 8)) == 0, f"limit {limit}"
    print(sorted(refusals))


def limited(root: Path, size: int) -> None:
    lake = fresh(root)
    lake.version("observations")
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        put(lake, 8)
    except QuantbenchError as error:
        os._exit({"QB-DATA-034": 34, "QB-JNL-009": 9, "QB-DATA-032": 32}[error.code])


def forks(folder: str) -> None:
    """A child can use neither its parent's lake nor, once the parent has used Delta, one of its own."""
    root = Path(folder, "lake")
    lake = Lake.create(root, clock=CLOCK)
    put(lake, 0)

    def guarded() -> None:
        for call in (
            lambda: lake.version("observations"),
            lambda: put(lake, 1),
            lambda: numbers(fresh(root)),
        ):
            with refused("QB-DATA-035", show=False):
                call()

    assert all(in_child(guarded) == 0 for _ in range(20))
    put(lake, 1)
    assert numbers(lake) == [0, 1]


def hashes(folder: str) -> None:
    """The hash of what a fixed lake holds, at one and at two threads."""
    found = set()
    for threads in (1, 2):
        pa.set_cpu_count(threads)
        rows = scan(fresh(Path(folder)), "observations")
        found |= {
            content_hash(rows),
            content_hash(scan(fresh(Path(folder)), "observations", assets={"A1", "A3", "A0"})),
        }
    print(*sorted(found))


def alone(name: str, *arguments: object, **environment: str) -> str:
    """A function of this file in a process of its own; what it printed."""
    command = [sys.executable, "-W", "ignore", __file__, name, *map(str, arguments)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    full = {**os.environ, "RUST_BACKTRACE": "0", "PYTHONPATH": path, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=full)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def test_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path, soak):
    hits = int(alone("random_kills", tmp_path, 200 * soak))
    assert hits > 50 * soak  # else the kills came too late to test anything


def test_killed_at_each_boundary_leaves_the_old_or_the_new(tmp_path):
    assert int(alone("boundaries", tmp_path)) > 60


def test_an_entry_delta_did_not_finish_is_swept(tmp_path):
    """What a writer leaves that is killed while Delta puts an entry in its place."""
    root = tmp_path / "lake"
    put(Lake.create(root, clock=CLOCK), 0)
    entry = root / "observations" / "_delta_log" / "00000000000000000001.json#1"
    entry.write_bytes(b"{")
    lake = fresh(root)
    assert lake.check().leftovers == 1 and not lake.check().problems
    assert lake.sweep() == 1 and not entry.exists() and not lake.check().leftovers
    put(lake, 1)
    assert numbers(fresh(root)) == [0, 1]


def test_a_half_written_file_is_never_seen(tmp_path):
    alone("half_written", tmp_path)


def test_a_full_disk_leaves_the_old_version(tmp_path):
    refusals = json.loads(alone("full_disk", tmp_path))
    assert {34, 9} <= set(refusals) and 0 in refusals and 1 not in refusals


def test_a_forked_child_is_refused(tmp_path):
    alone("forks", tmp_path)


def test_reads_do_not_depend_on_threads_hash_seed_or_process(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    for number in (3, 1, 4, 0, 2, 11, 6):
        put(lake, number)
    seen = {alone("hashes", tmp_path / "lake", PYTHONHASHSEED=str(seed)) for seed in (0, 1, 2)}
    assert len(seen) == 1 and len(seen.pop().split()) == 2


# ---- several processes ---------------------------------------------------------------------------------------------


def mixed(root: str, who: int, operations: int) -> str:
    """Append and read at random; the first thing that goes wrong, or nothing."""
    draw = random.Random(who)
    lake, mine, newest = Lake.open(root, clock=CLOCK), set(), 0
    try:
        for n in range(operations):
            if draw.random() < 0.5:
                shared = draw.random() < 0.2
                number = n if shared else 1000 * (who + 1) + n
                put(lake, number)
                mine.add(number)
            version = lake.version("observations")
            assert version >= newest, "a version went back"
            newest = version
            assert mine <= set(numbers(lake if draw.random() < 0.7 else Lake.open(root, clock=CLOCK)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ",".join(map(str, sorted(mine)))


def test_four_processes_lose_nothing_and_meet_no_lock_error(tmp_path, soak):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    operations = 250 if soak > 1 else 30
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        results = pool.starmap(mixed, [(str(tmp_path / "lake"), who, operations) for who in range(4)])
    written = {int(number) for result in results for number in result.split(",")}
    assert set(numbers(lake)) == written and len(lake.commits("observations")) == len(written)
    assert not lake.check().problems and lake.sweep() == 0


def test_a_lake_travels_to_another_process(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    put(lake, 7)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(numbers, (lake,)) == [7]


# ---- flipped bits ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A lake of two tables and eight commits, one table with a Delta checkpoint."""
    import deltalake

    root = tmp_path_factory.mktemp("flips") / "lake"
    lake = Lake.create(root, clock=CLOCK)
    for number in range(5):
        put(lake, number)
    deltalake.DeltaTable(root / "observations").create_checkpoint()
    for number in range(5, 7):
        put(lake, number)
    symbols = (
        batch(1)
        .drop_columns(["field", "value", "unit"])
        .append_column("ticker", pa.array(["NA", "NULL", None]))
    )
    lake.append("symbols", symbols.append_column("venue", pa.nulls(3, pa.string())), source="test")
    return root


def content(root: Path) -> tuple[object, ...]:
    lake = fresh(root)
    return tuple(
        (table, lake.version(table), content_hash(scan(lake, table))) for table in ("observations", "symbols")
    )


def flipped(path: Path, bit: int) -> Iterator[None]:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    yield
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_no_flipped_bit_is_silent(small, soak, capfd):
    """Every flip is refused by a reader or leaves what is read as it was; outside Delta's log every one is refused."""
    expected, draw = content(small), random.Random(20240607)
    kinds = {
        "parquet": sorted(small.rglob("year=*/*.parquet")),
        "delta": [path for path in sorted(small.rglob("_delta_log/*")) if path.is_file()],
        "journal": [small / store.LOG],
    }
    assert len(kinds["delta"]) > 8
    outcomes: dict[str, list[bool]] = {kind: [] for kind in kinds}
    for trial in range(10_000 if soak > 1 else 600):
        kind = list(kinds)[trial % 3]
        path = draw.choice(kinds[kind])
        bit = draw.randrange(8 * path.stat().st_size)
        for _ in flipped(path, bit):
            try:
                found = content(small)
                detected = False
            except QuantbenchError:
                found, detected = expected, True
        assert found == expected, f"silent: bit {bit} of {path.name}"
        outcomes[kind].append(detected)
    assert all(outcomes["parquet"]) and all(outcomes["journal"]) and any(outcomes["delta"])
    assert content(small) == expected
    capfd.readouterr()  # what Delta's panics print


def test_check_names_each_damage(small):
    for path in (next(small.rglob("year=*/*.parquet")), small / store.LOG):
        for _ in flipped(path, 8 * (path.stat().st_size - 40)):
            report = fresh(small).check()
            assert report.problems and "problems" in report.card().headline
    assert not fresh(small).check().problems


def test_a_missing_file_and_a_cut_journal_are_refused(small):
    path = next(small.rglob("observations/year=*/*.parquet"))
    data = path.read_bytes()
    path.unlink()
    with refused("QB-DATA-003", show=False):
        content(small)
    path.write_bytes(data)
    log, lines = small / store.LOG, (small / store.LOG).read_bytes().splitlines(keepends=True)
    anchor = fresh(small).check().head
    log.write_bytes(b"".join(lines[:-1]))  # at a record's edge: the chain alone cannot tell
    with refused("QB-DATA-032", show=False):
        content(small)
    assert any("QB-JNL-005" in problem for problem in fresh(small).check(anchor=anchor).problems)
    log.write_bytes(b"".join(lines))
    assert not fresh(small).check(anchor=anchor).problems


def test_a_rewritten_journal_is_refused(small, tmp_path):
    """The same commits under a new chain of hashes: the Delta log carries the old ones."""
    copy = shutil.copytree(small, tmp_path / "lake")
    records = list(store.read(copy / store.LOG))
    (copy / store.LOG).unlink()
    with store.Journal.open(copy / store.LOG, clock=CLOCK) as journal:
        for record in records:
            journal.append(record.kind, record.payload)
    with refused("QB-DATA-032", show=False):
        content(copy)


@pytest.mark.parametrize("field", ["path", "size", "numRecords"])
def test_a_delta_entry_that_lists_something_else_is_refused(tmp_path, field):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    put(lake, 0)
    file = lake.commits("observations")[0].files[0]
    entry = tmp_path / f"lake/observations/_delta_log/{1:020d}.json"
    said = {
        "path": (file.path, file.path[:-9] + "0.parquet"),
        "size": (f'"size":{file.size}', f'"size":{file.size + 1}'),
        "numRecords": (f'numRecords\\": {file.rows}', f'numRecords\\": {file.rows + 1}'),
    }[field]
    text = entry.read_text()
    assert text.count(said[0]) >= 1
    entry.write_text(text.replace(*said))
    with refused("QB-DATA-032", show=False):
        numbers(fresh(tmp_path / "lake"))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_delta_entry(tmp_path, lost):
    """One entry behind is a writer at work, or dead: the older version is served and the next writer repairs it."""
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    for number in range(4):
        put(lake, number)
    for version in range(4, 4 - lost, -1):
        (tmp_path / f"lake/observations/_delta_log/{version:020d}.json").unlink()
    if lost > 1:
        with refused("QB-DATA-032", show=False):
            content(tmp_path / "lake")
        return
    assert numbers(fresh(tmp_path / "lake")) == [0, 1, 2]
    assert fresh(tmp_path / "lake").check().leftovers == 1  # served or not, it does not go unsaid
    fresh(tmp_path / "lake").sweep()
    assert fresh(tmp_path / "lake").check().leftovers == 0
    assert numbers(fresh(tmp_path / "lake")) == [0, 1, 2, 3]


def test_an_empty_delta_entry_is_written_again(tmp_path):
    """What a power cut leaves of an entry that was not yet synced."""
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    for number in range(3):
        put(lake, number)
    (tmp_path / f"lake/observations/_delta_log/{3:020d}.json").write_bytes(b"")
    reader = fresh(tmp_path / "lake")
    with refused("QB-DATA-032", show=False):
        numbers(reader)
    put(fresh(tmp_path / "lake"), 2)  # the batch that was cut off
    assert numbers(reader) == numbers(fresh(tmp_path / "lake")) == [0, 1, 2]


# ---- batches, versions, orders ---------------------------------------------------------------------------------------


def test_batches_are_idempotent(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    first = lake.append("observations", batch(1), source="one", batch="x")
    assert lake.append("observations", batch(2), source="two", batch="x") == first  # the id decides
    second = lake.append("observations", batch(2), source="one")
    shuffled = batch(2).take([2, 0, 1])
    assert lake.append("observations", iter([shuffled]), source="two") == second  # the content decides
    assert lake.batches("observations") == {"x", second.batch} and lake.version("observations") == 2
    assert not lake.check().leftovers


def test_a_refused_append_leaves_nothing(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    bad = batch(2).set_column(2, "value", pa.array([1.0, float("nan"), 2.0]))
    with refused("QB-DATA-014", show=False):
        lake.append("observations", iter([batch(1), bad]), source="test")
    assert lake.version("observations") == 0 and lake.check().files == 0 and lake.check().leftovers == 0
    with refused("QB-DATA-031", show=False):
        lake.append("observation", batch(1), source="test")
    with refused("QB-DATA-033", show=False):
        Lake.create(tmp_path / "lake", clock=CLOCK)


def test_every_version_stays_readable(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    hashes = [content_hash(scan(lake, "observations"))]
    for number in range(60):  # past a Delta checkpoint
        put(lake, number)
        hashes.append(content_hash(scan(lake, "observations")))
    again = fresh(tmp_path / "lake")
    assert [content_hash(scan(again, "observations", version=v)) for v in range(61)] == hashes
    assert len(set(hashes)) == 61 and list((tmp_path / "lake").rglob("*.checkpoint.parquet"))


def test_a_window_is_the_filter_it_says(tmp_path):
    draw = random.Random(7)
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    for number in range(12):
        put(lake, number)
    everything = scan(lake, "observations").to_pylist()
    for _ in range(60):
        start, end = (START + timedelta(minutes=draw.randrange(-10, 3000)) for _ in range(2))
        assets = draw.sample(["A0", "A1", "A2", "A3", "A4", "B"], draw.randrange(4))
        seen = scan(
            lake, "observations", assets=assets, start=start, end=end, columns=["value", "event_time"]
        )
        rows = [r for r in everything if r["asset"] in assets and start <= r["event_time"] < end]
        assert seen.to_pylist() == [{"value": r["value"], "event_time": r["event_time"]} for r in rows]


if __name__ == "__main__":
    import deltalake  # noqa: F401 (once here, not once in each child; a mere import starts no threads)
    import pyarrow.dataset

    globals()[sys.argv[1]](*sys.argv[2:])


# ---- found in review -----------------------------------------------------------------------------------------


def test_an_empty_batch_id_is_no_batch_id(tmp_path):
    """It once gave every append the same id, so that the second one vanished."""
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    versions = [lake.append("observations", batch(n), source="test", batch="").version for n in (1, 2, 2)]
    assert versions == [1, 2, 2] and numbers(lake) == [1, 2]


def test_a_file_rewritten_in_place_with_its_old_times_is_refused(tmp_path):
    """Same inode, size and time of writing: only the time of change tells."""
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    put(lake, 1)
    assert numbers(lake) == [1]  # hashed, and from now on believed
    target = next(lake.root.glob("observations/year=*/*"))
    before, content = target.stat(), bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    with target.open("r+b") as file:
        file.write(content)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (target.stat().st_size, target.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with refused("QB-DATA-003", show=False):
        scan(lake, "observations")


def test_a_lake_whose_copy_lost_the_empty_directory_works(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    for use in (
        lambda: lake.check().problems,
        lake.sweep,
        lambda: lake.append("observations", batch(1), source="t"),
    ):
        shutil.rmtree(lake.root / store.STAGING, ignore_errors=True)
        use()
    assert numbers(lake) == [1]


def test_a_staging_directory_that_cannot_be_made_is_a_failed_write(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    (lake.root / store.STAGING).rmdir()
    (lake.root / store.STAGING).write_text("in the way")
    with refused("QB-DATA-034", show=False):
        put(lake, 1)


def test_sweep_leaves_a_directory_that_found_its_owner_after_the_look(tmp_path, monkeypatch):
    """Made but not yet locked, a live writer's directory looks like a dead one's; by the time of removal it is taken."""
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    with staging(lake.root / store.STAGING) as live:
        monkeypatch.setattr(store, "abandoned", lambda _: [live])
        assert lake.sweep() == 0 and live.is_dir()


def test_columns_may_be_any_iterable(tmp_path):
    lake = Lake.create(tmp_path / "lake", clock=CLOCK)
    put(lake, 1)
    assert scan(lake, "observations", columns=iter(["value", "unit"])).column_names == ["value", "unit"]
