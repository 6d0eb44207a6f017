"""Batches: killed in the middle, run on a real cluster, run twice: the same bytes of evidence."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import pytest
from books import write

from quantbench.core.check import QuantbenchError
from quantbench.ops.batch import Outcome, Task, batch, kept
from quantbench.ops.evidence import environment
from quantbench.ops.runner import Limits, Run, prepare

DECLARED = "n: int = 1  # 1 to 99"
VERDICT = "Verdict('small', (Check('n', n, 'below', 4),), 'That n is small.', 'Everything else.', {'data': 'd1'}, {'curve': list(range(n))})"
IMPORT = "from quantbench.gates.verdict import Check, Verdict"
COUNT = 6


def tasks(folder: Path, *cells: str, count: int = COUNT, inputs: str = "d1") -> list[Task]:
    """A runbook with `count` values of its parameter."""
    source = write(folder / "small.ipynb", DECLARED, *(cells or (IMPORT, VERDICT)))
    jobs = [prepare(source, folder / "out" / f"small-{n}.ipynb", {"n": n}) for n in range(1, count + 1)]
    return [Task(job, {"data": inputs}) for job in jobs]


def evidence(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "out").glob("*.json"))}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The evidence of a batch that nothing disturbed."""
    folder = tmp_path_factory.mktemp("right")
    found = batch(tasks(folder), folder / "out")
    assert [one.verdict.passed for one in found if one.verdict] == [n < 4 for n in range(1, COUNT + 1)]
    return evidence(folder)


def test_order_and_number_of_workers_change_nothing(tmp_path: Path, right: dict[str, bytes]) -> None:
    found = batch(tasks(tmp_path)[::-1], tmp_path / "out", workers=3)
    assert [one.name for one in found] == [f"small-{n}" for n in range(COUNT, 0, -1)] and evidence(
        tmp_path
    ) == right


CLIENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_batch import tasks
from quantbench.ops.batch import batch
folder = Path(sys.argv[2])
batch(tasks(folder), folder / "out", workers=1, tell=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("place", range(1, 8))
def test_a_batch_killed_anywhere_goes_on_where_it_stopped(
    place: int, tmp_path: Path, right: dict[str, bytes]
) -> None:
    """Killed after so many runs; in the first case before any, in the last after all."""
    words = [sys.executable, "-c", CLIENT, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        ended = 0
        while ended < place - 1:
            ended += ": done, " in client.stdout.readline()
        client.send_signal(signal.SIGKILL)
    there = set(evidence(tmp_path))
    assert all(right[name] == content for name, content in evidence(tmp_path).items())
    found = batch(tasks(tmp_path), tmp_path / "out")
    assert evidence(tmp_path) == right and not list((tmp_path / "out").glob(".*.new"))
    assert {f"{one.name}.json" for one in found if one.kept} == there
    assert len(there) >= place - 2  # the last one that was told may not be written yet


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    batch(tasks(tmp_path, count=2), folder)
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("small*")}
    assert all(one.kept for one in batch(tasks(tmp_path, count=2), folder))
    assert stamps == {p: p.stat().st_mtime_ns for p in folder.glob("small*")}
    assert not any(one.kept for one in batch(tasks(tmp_path, count=2), folder, again=True))


def ran(found: list[Outcome]) -> list[bool]:
    return [not one.kept for one in found]


def test_another_input_runbook_value_or_package_is_another_task(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    batch(tasks(tmp_path, count=2), folder)
    assert kept(tasks(tmp_path, count=1)[0], environment())
    assert not kept(tasks(tmp_path, count=1, inputs="d2")[0], environment())
    assert not kept(tasks(tmp_path, IMPORT, VERDICT + "  # changed", count=1)[0], environment())
    assert not kept(tasks(tmp_path, count=1)[0], {**environment(), "numpy": "1.0"})
    other = prepare(tmp_path / "small.ipynb", folder / "small-1.ipynb", {"n": 3})
    assert not kept(Task(other, {"data": "d1"}), environment())
    assert ran(batch(tasks(tmp_path, count=2), folder)) == [False, False]
    assert ran(batch(tasks(tmp_path, IMPORT, VERDICT + "  # changed", count=2), folder)) == [True, True]


def test_a_run_that_ends_badly_is_no_evidence_and_is_run_again(tmp_path: Path) -> None:
    for cells, said in (
        ((IMPORT, "1 / (n - 1)", VERDICT), "ZeroDivisionError at cell 4"),
        ((IMPORT, VERDICT, "n"), "QB-GATE-003"),
        ((IMPORT, "import os\nif n == 1: os._exit(3)", VERDICT), "killed: it ended its own process (3) at cell 4"),
        ((IMPORT, VERDICT.replace("'d1'", "'d2'")), "QB-GATE-003"),
        ((IMPORT, "from quantbench.core.check import QuantbenchError\nraise QuantbenchError('QB-DATA-033', where='n', value=n)", VERDICT), "QB-DATA-033 at cell 4"),
    ):  # fmt: skip
        for _ in range(2):
            (found,) = batch(tasks(tmp_path, *cells, count=1), tmp_path / "out")
            assert found.verdict is None and found.said.startswith(said) and not found.kept, found.said
        assert not evidence(tmp_path)


def test_memory_and_time_bound_each_run(tmp_path: Path) -> None:
    found = batch(
        tasks(tmp_path, IMPORT, "kept = [bytearray(9_000_000) for _ in range(10_000 if n == 1 else 1)]", "while n == 2: pass", VERDICT, count=3),
        tmp_path / "out", limits=Limits(400_000_000, 4.0),
    )  # fmt: skip
    assert (
        re.fullmatch(r"killed: memory 0\.\d GB at cell 4", found[0].said)
        and found[1].said == "killed: 4 s at cell 5"
    )
    assert found[2].verdict and found[2].verdict.passed


def test_cells_in_another_order_give_the_same_evidence_or_none(tmp_path: Path) -> None:
    """Every order of five cells, each in a run of its own."""
    cells = (
        DECLARED,
        IMPORT,
        "m = n",
        "check = Check('n', m, 'below', 4)",
        "Verdict('small', (check,), '', '', {'data': 'd1'})",
    )
    orders, jobs = list(permutations(range(5))), []
    for order in orders:
        tags = tuple("parameters" if place == 0 else "cell" for place in order)
        name = "".join(map(str, order))
        source = write(tmp_path / f"{name}.ipynb", *(cells[place] for place in order), tags=tags)
        jobs.append(prepare(source, tmp_path / "out" / f"{name}.ipynb"))
    found = batch([Task(job, {"data": "d1"}) for job in jobs], tmp_path / "out")
    verdicts = {one.name: one.verdict for one in found}
    whole = [name for name, verdict in verdicts.items() if verdict]
    assert len({verdict.json for verdict in verdicts.values() if verdict}) == 1
    assert all(name.index("0") < name.index("2") < name.index("3") < 4 == name.index("4") for name in whole)
    assert sorted(whole) == ["01234", "02134", "10234"]


# ---- a cluster -------------------------------------------------------------------------------------------------


@contextmanager
def started(words: list[str], until: str, folder: Path, **environ: str) -> Iterator[str]:
    """A process, from when it has said something that matches until it is ended."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, **environ}
    ) as process:
        assert process.stderr
        try:
            while not (found := re.search(until, process.stderr.readline())):
                assert process.poll() is None, f"{words} ended"
            yield found[1]
        finally:
            process.kill()


@contextmanager
def cluster(folder: Path, **environ: str) -> Iterator[str]:
    """The address of a scheduler with two workers, in three processes of their own."""
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with started(scheduler, r"Scheduler at: +(tcp://\S+)", folder) as address:
        words = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        named = [[*words, "--name", name] for name in "ab"]
        with (
            started(named[0], "(Registered to)", folder, **environ),
            started(named[1], "(Registered to)", folder),
        ):
            yield address


def test_a_cluster_gives_the_same_bytes(tmp_path: Path, right: dict[str, bytes]) -> None:
    (tmp_path / "elsewhere").mkdir()
    heard: list[str] = []
    with cluster(tmp_path / "elsewhere") as address:
        found = batch(tasks(tmp_path), tmp_path / "out", cluster=address, tell=heard.append)
        assert all(one.verdict for one in found), [one.said for one in found]
        assert evidence(tmp_path) == right
        made = Run.of(tmp_path / "out" / "small-2.ipynb").book["metadata"]["papermill"]
        assert made["output_path"] == str(tmp_path / "out" / "small-2.ipynb") and made["parameters"] == {
            "n": 2
        }
        assert "small-2: cell 1 of 4" in heard
        assert all(one.kept for one in batch(tasks(tmp_path), tmp_path / "out"))
        killed = tasks(tmp_path, IMPORT, "n\nimport os\nos.kill(os.getpid(), 9)", count=1)
        (bad,) = batch(killed, tmp_path / "out", cluster=address)
        assert bad.said == "killed: signal 9 at cell 4"


def test_workers_with_other_code_are_refused(tmp_path: Path, root: Path) -> None:
    """One of two workers has a comment more in one module."""
    shutil.copytree(
        root / "quantbench", tmp_path / "quantbench", ignore=shutil.ignore_patterns("__pycache__", "sample")
    )
    with (tmp_path / "quantbench" / "core" / "check.py").open("a") as module:
        module.write("# changed\n")
    with (
        cluster(tmp_path, PYTHONPATH=str(tmp_path)) as address,
        pytest.raises(QuantbenchError, match="QB-NB-014") as refused,
    ):
        batch(tasks(tmp_path), tmp_path / "out", cluster=address)
    assert refused.value.value == "quantbench" and not evidence(tmp_path)


def test_no_cluster_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        batch(tasks(tmp_path), tmp_path / "out", cluster="tcp://127.0.0.1:9")
