"""The runner: what may be a parameter, what proves that it was read, and what survives a kill at any cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from books import DECLARED, book, printed, write
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.ops.page import page
from quantbench.ops.parameters import book_from, declared, injected, resolved
from quantbench.ops.runner import Limits, Run, prepare, run, run_all

KINDS = """number: int = 0  # -2**63 to 2**63 - 1
part: float = 0.0  # -1e300 to 1e300
text: str = ""
maybe: int | None = None  # 0 to 9
side: Literal["long", "short"] = "long"
on: bool = False
"""
NAMES = "[number, part, text, maybe, side, on]"


# ---- parameters ------------------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=500)
@given(
    number=st.integers(-(2**63), 2**63 - 1),
    part=st.floats(-1e300, 1e300),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60),
    on=st.booleans(),
    maybe=st.none() | st.integers(0, 9),
)
def test_a_value_arrives_as_it_was_given(**values: object) -> None:
    known = declared(book(KINDS, NAMES))
    made = injected(book(KINDS, NAMES), known, resolved(known, values))
    cell = next(c["source"] for c in made["cells"] if "injected-parameters" in c["metadata"]["tags"])
    space: dict[str, object] = {"side": "long", **{name: one.default for name, one in known.items()}}
    exec(cell, space)  # noqa: S102
    assert {name: repr(space[name]) for name in values} == {
        name: repr(value) for name, value in values.items()
    }
    assert set(space) - {"__builtins__"} == set(known)


@settings(derandomize=True, max_examples=300)
@given(name=st.text(max_size=20))
def test_no_name_is_code(name: str) -> None:
    known = declared(book(KINDS, NAMES))
    if name not in known:
        with pytest.raises(QuantbenchError, match=r"QB-NB-00[12]"):
            resolved(known, {name: 1})


INJECTIONS = (
    '"); import os; ("',
    "'''\nimport os\n'''",
    "{__import__('os')}",
    "\\",
    "\\'",
    "\n%%bash\nls",
    "\u2028",
    "!ls",
    "\u202e",
)


def test_hostile_text_is_a_text(tmp_path: Path) -> None:
    source = write(tmp_path / "b.ipynb", 'text: str = ""', "print(ascii(text))")
    jobs = [prepare(source, tmp_path / f"o{n}.ipynb", {"text": text}) for n, text in enumerate(INJECTIONS)]
    for done in run_all(jobs):
        number = int(done.output.stem[1:])
        assert done.outcome == "done" and printed(done.book)[-1] == ascii(INJECTIONS[number]) + "\n"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"x\nimport os\nos.system('touch hacked')": 1}, "QB-NB-001"),  # N1
        ({"": 1}, "QB-NB-001"),
        ({"ｎ": 1}, "QB-NB-001"),  # a letter that Python would take for n
        ({"m": 1}, "QB-NB-002"),  # N2
        ({"N": 1}, "QB-NB-002"),
        ({"n": "1"}, "QB-NB-003"),  # N3
        ({"n": float("nan")}, "QB-NB-003"),
        ({"n": object()}, "QB-NB-003"),
        ({"n": True}, "QB-NB-003"),
        ({"n": 10**5000}, "QB-NB-003"),
    ],
)  # fmt: skip
def test_what_does_not_fit_never_runs(given: dict[str, object], code: str, tmp_path: Path) -> None:
    source = write(tmp_path / "b.ipynb", DECLARED, "open('hacked', 'w')\nn")
    with pytest.raises(QuantbenchError, match=code):
        prepare(source, tmp_path / "o.ipynb", given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.ipynb"]


@pytest.mark.parametrize("tags", [(), ("parameter",), ("parameters", "parameters")])
def test_no_tag_or_two_is_no_runbook(tags: tuple[str, ...], tmp_path: Path) -> None:  # N5
    with pytest.raises(QuantbenchError, match="QB-NB-005"):
        prepare(
            write(tmp_path / "b.ipynb", DECLARED, "m: int = 1  # 1 to 9", tags=tags), tmp_path / "o.ipynb"
        )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"cells": 1}',
        json.dumps({**book("1"), "nbformat": 3}).encode(),
        b" " * (65 << 20),
    ],
)
def test_what_is_no_notebook_is_refused(text: bytes) -> None:  # N10
    with pytest.raises(QuantbenchError, match="QB-NB-010"):
        book_from(text, "b.ipynb")


def test_what_another_machine_showed_is_dropped(tmp_path: Path) -> None:  # N6
    source = book(DECLARED, "_ = n")
    source["cells"][1]["outputs"] = [
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>alert(1)</script>"}}
    ]
    source["metadata"] = {"widgets": {"x": "<script>"}}
    (tmp_path / "b.ipynb").write_text(json.dumps(source))
    assert run(tmp_path / "b.ipynb", tmp_path / "o.ipynb").outcome == "done"
    assert "<script>" not in (tmp_path / "o.ipynb").read_text()


# ---- the proof -------------------------------------------------------------------------------------------------


READ = ("n", "def f(): return n\nf()", "f'{n}'", "[n for _ in (1,)]", "(lambda: n)()", "globals()['n']", "globals().get('n')", "eval('n')", "class A:\n    x = n", "class A:\n    n: int = n", "class A:\n    def f(self, k=n): pass", "@(lambda c: (n, c)[1])\nclass A: pass", "class A:\n    f = lambda self: n\nA().f()")  # fmt: skip
UNREAD = (
    "1",
    "if False: n",
    "def f(): return n",
    "'n'",
    "dict(n=1)",
    "class A:\n    n = 1\n    m = n",
    "locals().copy()",
)
REPLACED = ("globals()['n'] = 2", "globals().update(n=2)", "globals().pop('n')", "exec('n = 2')", "def f():\n    exec('global n\\nn = 2')\nf()")  # fmt: skip


def test_every_way_to_read_is_seen_and_nothing_else(tmp_path: Path) -> None:
    cases = (
        [(source, "") for source in READ]
        + [(s, "QB-NB-012") for s in UNREAD]
        + [("n\n" + s, "QB-NB-013") for s in REPLACED]
    )
    jobs = [
        prepare(write(tmp_path / f"{n}.ipynb", DECLARED, source), tmp_path / f"{n}-o.ipynb")
        for n, (source, _) in enumerate(cases)
    ]
    for done in run_all(jobs):
        source, code = cases[int(done.output.stem.removesuffix("-o"))]
        assert (done.outcome, done.code) == (("refused", code) if code else ("done", "")), (source, done.said)
        assert code == "QB-NB-013" or [u.cells for u in done.used] == [() if code else (3,)]


def test_where_it_was_read_is_told(tmp_path: Path) -> None:
    source = write(
        tmp_path / "b.ipynb", DECLARED + "\nm: int = 2  # 1 to 9 sheep", "f = lambda: n + m", "f()", "m", "1"
    )
    done = run(source, tmp_path / "o.ipynb", {"n": 5})
    assert [(u.name, u.value, u.unit, u.cells) for u in done.used] == [
        ("n", 5, "", (4,)),
        ("m", 2, "sheep", (4, 5)),
    ]
    listed = "".join(done.book["cells"][1]["outputs"][0]["data"]["text/plain"])
    assert "4, 5" in listed and "sheep" in listed


def test_a_key_in_an_output_ends_the_run_and_is_blacked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # N7
    monkeypatch.setenv("BROKER_API_KEY", "correct-horse-battery")
    shows = (
        "print('PKABCDEFGHIJKLMNOP12')",
        "import os\nos.environ['BROKER_API_KEY']",
        "{'a': ['https://me:pass@word@host']}",
        "1 / 0 if n > 9 else print('sk-' + 'a' * 20)",
    )
    jobs = [
        prepare(write(tmp_path / f"{n}.ipynb", DECLARED, "n\n" + s), tmp_path / f"{n}-o.ipynb")
        for n, s in enumerate(shows)
    ]
    for done in run_all(jobs):
        text = done.output.read_text()
        assert done.code == "QB-NB-007" and "<redacted>" in text, done.said
        assert not any(f"{key}" in json.dumps(printed(done.book)) for key in ("PKABC", "sk-aaa", "me:pass"))
        assert "correct-horse" not in text


def test_edited_or_reordered_is_no_evidence(tmp_path: Path) -> None:  # N8, N9
    run(write(tmp_path / "b.ipynb", DECLARED, "n", "1"), tmp_path / "o.ipynb")
    whole = json.loads((tmp_path / "o.ipynb").read_text())
    for code, change in (
        ("QB-NB-008", lambda cells: cells[2].update(source="n + 1")),
        ("QB-NB-008", lambda cells: cells.reverse()),
        ("QB-NB-008", lambda cells: cells.pop()),
        ("QB-NB-009", lambda cells: cells[3].update(execution_count=None)),
        ("QB-NB-009", lambda cells: cells[3].update(execution_count=3)),
    ):
        made = json.loads(json.dumps(whole))
        change(made["cells"])
        (tmp_path / "e.ipynb").write_text(json.dumps(made))
        with pytest.raises(QuantbenchError, match=code):
            Run.of(tmp_path / "e.ipynb")


# ---- the notebook ----------------------------------------------------------------------------------------------


def test_it_is_a_notebook_with_everything_a_cell_can_show(tmp_path: Path) -> None:
    shows = "\n".join((
        "import sys, matplotlib.pyplot as plt", "from IPython.display import HTML, display", "print('out')", "print('err', file=sys.stderr)",
        "display(HTML('<b>x</b>'))", "plt.plot([n, 2])", "plt.show()", "print('\\ud800')", "!echo shell", "print('10%\\r20%')", "2",
    ))  # fmt: skip
    done = run(
        write(tmp_path / "b.ipynb", DECLARED, shows, "await __import__('asyncio').sleep(0)"),
        tmp_path / "o.ipynb",
    )
    assert done.outcome == "done", done.said
    read = nbformat.read(tmp_path / "o.ipynb", as_version=4)
    nbformat.validate(read)
    outputs = read.cells[2].outputs
    assert [o.output_type for o in outputs] == [
        "stream",
        "stream",
        "display_data",
        "display_data",
        "stream",
        "execute_result",
    ]
    assert (
        "image/png" in outputs[3].data
        and outputs[4].text == "\ud800\nshell\n20%\n"
        and outputs[5].data["text/plain"] == "2"
    )
    notes = read.metadata.papermill
    assert notes.parameters == {} and notes.default_parameters == {"n": 1} and notes.exception is False
    assert read.cells[2].metadata.papermill.status == "completed"


def test_no_output_acts_in_the_page(tmp_path: Path) -> None:  # H1
    hostile = "<img src=x onerror=alert(1)>"
    source = write(
        tmp_path / "b.ipynb",
        f'n: str = "{hostile}"',
        "from IPython.display import HTML\nprint(n)\nHTML(n + '</div><script>1</script>')",
    )
    text = page(run(source, tmp_path / "o.ipynb").book, hostile)
    assert (
        "<script" not in text
        and "<img src=x" not in text
        and "default-src 'none'" in text
        and "&lt;img src=x" in text
    )


# ---- kills -----------------------------------------------------------------------------------------------------


def waits(folder: Path, cells: int) -> list[str]:
    """Cells that each say their number, and wait at the one that `n` names until they are killed."""
    fifo = folder / "never"
    os.mkfifo(fifo)
    return [f"print({k})\nif n == {k}: open({str(fifo)!r}).read()" for k in range(3, 3 + cells)]


def child_of(nursery: psutil.Process) -> psutil.Process:
    return nursery.children()[0]


def nurseries() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "serve" in " ".join(p.cmdline())]


def test_a_kill_at_every_cell_leaves_a_verdict_and_the_notebook_so_far(tmp_path: Path) -> None:
    cells = 6
    source = write(tmp_path / "b.ipynb", DECLARED, *waits(tmp_path, cells))
    jobs = [prepare(source, tmp_path / f"o{k}.ipynb", {"n": k}) for k in range(3, 3 + cells)]

    def kill(line: str) -> None:
        name, _, said = line.partition(": ")
        if said == f"cell {name[1:]} of {2 + cells}":
            child_of(nurseries()[0]).send_signal(signal.SIGKILL)

    runs = list(run_all(jobs, workers=1, tell=kill))
    assert len(runs) == cells
    for done in runs:
        k = int(done.output.stem[1:])
        assert (done.outcome, done.said, done.cell) == ("killed", f"killed: signal 9 at cell {k}", k)
        nbformat.validate(nbformat.read(done.output, as_version=4))
        assert printed(done.book)[2:] == [f"{n}\n" if n < k else "" for n in range(3, 3 + cells)]
        assert done.book["cells"][k - 1]["outputs"][0]["evalue"] == done.said
    assert not list(tmp_path.glob(".*"))


def test_a_killed_nursery_loses_one_run_and_no_other(tmp_path: Path) -> None:
    source = write(tmp_path / "b.ipynb", DECLARED, *waits(tmp_path, 1))
    jobs = [prepare(source, tmp_path / f"o{k}.ipynb", {"n": k}) for k in (1, 3, 2)]
    orphans = []

    def kill(line: str) -> None:
        if line == "o3: cell 3 of 3":
            (nursery,) = nurseries()
            orphans.append(child_of(nursery))
            nursery.kill()

    runs = {done.output.stem: done.said for done in run_all(jobs, workers=1, tell=kill)}
    assert runs == {"o1": "3 cells", "o3": "killed: its parent died at cell 3", "o2": "3 cells"}
    assert psutil.wait_procs(orphans, timeout=20)[1] == []


CLIENT = """
import sys
from pathlib import Path
from quantbench.ops.runner import prepare, run_all
list(run_all([prepare(Path(sys.argv[1]), Path(sys.argv[2]), {"n": 3})], tell=lambda line: print(line, flush=True)))
"""


def test_whoever_asked_may_be_killed_and_nothing_runs_on(tmp_path: Path) -> None:
    source = write(tmp_path / "b.ipynb", DECLARED, *waits(tmp_path, 1))
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, source, tmp_path / "o.ipynb"], stdout=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdout
        while client.stdout.readline() != "o: cell 3 of 3\n":
            pass
        family = psutil.Process(client.pid).children(recursive=True)
        assert len(family) == 2
        client.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_what_a_cell_starts_counts_and_ends_with_it(tmp_path: Path) -> None:
    hungry = "import subprocess, sys\n_ = n\nsubprocess.run([sys.executable, '-c', 'import time; kept = bytearray(700_000_000); kept[::4096] = kept[::4096]; time.sleep(600)'])"
    leaves = "import subprocess, sys\n_ = n\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    jobs = [
        prepare(write(tmp_path / f"{k}.ipynb", DECLARED, source), tmp_path / f"{k}-o.ipynb")
        for k, source in (("a", hungry), ("b", leaves))
    ]
    done = {r.output.stem: r for r in run_all(jobs, limits=Limits(memory_bytes=600_000_000, seconds=120.0))}
    assert done["a-o"].said.startswith("killed: memory 0.") and done["a-o"].said.endswith(" at cell 3")
    left = int(printed(done["b-o"].book)[-1])
    assert not psutil.pid_exists(left) or psutil.wait_procs([psutil.Process(left)], timeout=20)[1] == []


FULL = """
import resource, sys
from pathlib import Path
from quantbench.ops.runner import run
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
print(run(Path(sys.argv[1]), Path(sys.argv[2])).said)
"""


def test_a_full_disk_is_told_and_keeps_what_was_written(tmp_path: Path) -> None:
    source = write(tmp_path / "b.ipynb", DECLARED, "print(n)", "print('x' * 30_000)", "print('after')")
    ended = subprocess.run(
        [sys.executable, "-c", FULL, source, tmp_path / "o.ipynb"], capture_output=True, text=True
    )
    assert ended.stdout == "OSError: [Errno 27] File too large\n", ended.stderr
    read = nbformat.read(tmp_path / "o.ipynb", as_version=4)
    assert read.cells[2].outputs[0].text == "1\n" and "after" not in str(read.cells[4].outputs)


def test_too_much_output_is_refused_before_it_fills_anything(tmp_path: Path) -> None:  # N10
    loud = "_ = n\nfor _ in range(300): print('x' * 1_000_000)"
    done = run(
        write(tmp_path / "b.ipynb", DECLARED, loud),
        tmp_path / "o.ipynb",
        limits=Limits(memory_bytes=1_000_000_000),
    )
    assert done.code == "QB-NB-010" and done.output.stat().st_size < 70e6


# ---- forks -----------------------------------------------------------------------------------------------------


FORKED = """from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
import duckdb, polars, pyarrow
from quantbench.core.clock import WallClock
from quantbench.data.asof import history
from quantbench.data.ingest import ingest
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake
lake = Lake.create(Path(mkdtemp()) / "lake", clock=WallClock())
ingest(lake, SampleSource(), only=["crypto-days"], quarantine=0.01, tell=None)
rows = history(lake, "bars", as_of=datetime(2026, 11, 1, tzinfo=UTC)).rows
frame = polars.from_arrow(rows)
print(n, len(rows), frame.group_by("asset").len().height, duckdb.sql("select count(*) from rows").fetchall()[0][0])"""


def test_libraries_with_threads_work_in_every_child(tmp_path: Path) -> None:
    """The nursery has imported Arrow, Delta, DuckDB and Polars; had it used them, the second child would hang."""
    source = write(tmp_path / "b.ipynb", DECLARED, FORKED)
    jobs = [prepare(source, tmp_path / f"o{n}.ipynb", {"n": n}) for n in (1, 2)]
    runs = sorted(run_all(jobs, limits=Limits(seconds=120.0)), key=lambda done: done.output)
    assert [done.outcome for done in runs] == ["done", "done"], [done.said for done in runs]
    said = [printed(done.book)[-1].split() for done in runs]
    assert said[0][0] == "1" and said[0][1:] == said[1][1:] and int(said[0][1]) > 1000


def test_children_share_nothing(tmp_path: Path) -> None:
    cells = (
        "import builtins, quantbench\nprint(hasattr(quantbench, 'mark'))\nquantbench.mark = builtins.mark = n",
    )
    source = write(tmp_path / "b.ipynb", DECLARED, *cells)
    jobs = [prepare(source, tmp_path / f"o{n}.ipynb", {"n": n}) for n in range(1, 5)]
    assert [printed(done.book)[-1] for done in run_all(jobs, workers=1)] == ["False\n"] * 4
