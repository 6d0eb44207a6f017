"""`qb gate` as a build server meets it: the number it ends with, the files it writes, and evidence nobody can edit."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from books import write
from test_batch import cluster

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from judge import crashed

from quantbench.core.chain import Head, verify
from quantbench.core.check import QuantbenchError
from quantbench.gates.verdict import Check, Verdict
from quantbench.ops.evidence import anchor, canonical, evidence, junit, read_evidence, summary

PROGRAM = [sys.executable, "-c", "import sys; from quantbench.ops.cli import main; sys.exit(main())"]
DECLARED = (
    'strategy: str = "KnownDrift"  # a name of the registry\nlake: str = "lake"  # folder of the lake\n'
    'as_of: str = "2026-11-01"  # UTC\nseed: int = 0  # 0 to 2**63 - 1\nlimit: float = 0.5  # -100.0 to 100.0'
)
STUDY = """from quantbench.core.config import load
from quantbench.engine.study import Study
from quantbench.gates.fit import rests_on
from quantbench.gates.verdict import Check, Verdict
study = Study.of(strategy, lake, as_of)"""
VERDICT = "Verdict('NAME', (Check('limit', limit, 'below', {}),), 'That it is.', 'All else.', rests_on(study, load().gates, seed))"


def runbook(folder: Path, name: str, *before: str, below: float = 1.0) -> None:
    folder.mkdir(exist_ok=True)
    write(folder / f"{name}.ipynb", DECLARED, STUDY, *before, VERDICT.format(below).replace("NAME", name))


def qb(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, where `folder/books` holds the gates."""
    command = [*PROGRAM, "gate", *words, "--runbooks", "books"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environ})


def reports(folder: Path) -> Path:
    return folder / "reports" / "KnownDrift"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two gates that pass."""
    for name in ("walk_forward", "eras"):
        runbook(tmp_path / "books", name)
    return tmp_path


DRIFT = ("-s", "KnownDrift")


def test_passed_ends_with_0_and_writes_everything(place: Path, tmp_path: Path) -> None:
    done = qb(place, "all", *DRIFT, GITHUB_STEP_SUMMARY=str(tmp_path / "step.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "walk_forward: cell 1 of 4" in done.stderr and re.search(r"eras +passed", done.stdout)
    files = {file.name for file in reports(place).iterdir()}
    assert files >= {
        "eras.ipynb",
        "eras.html",
        "walk_forward.ipynb",
        "walk_forward.html",
        "evidence.json",
        "junit.xml",
    }
    record = read_evidence(reports(place) / "evidence.json", place / "journals" / "evidence.journal")
    assert record["passed"] and [each["gate"] for each in record["verdicts"]] == ["walk_forward", "eras"]
    suite = ElementTree.parse(reports(place) / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    proof = {one["parameter"]: (one["value"], one["cells"]) for one in record["proofs"]["eras"]}
    assert proof["strategy"] == ("KnownDrift", [3]) and proof["limit"] == (0.5, [4])
    assert set(record["proofs"]) == {"walk_forward", "eras"}
    assert "| walk\\_forward | passed |" in (tmp_path / "step.md").read_text()
    assert str(place) not in (reports(place) / "evidence.json").read_text()
    qb(place, "all", *DRIFT, "--lake", str(tmp_path.parent / "away"))  # out of the folder one stands in
    told = (reports(place) / "evidence.json").read_text()
    assert '"value":"away"' in told and str(tmp_path.parent) not in told


def test_a_second_run_keeps_every_byte_and_another_input_does_not(place: Path) -> None:
    qb(place, "all", *DRIFT)
    before = {file.name: file.read_bytes() for file in reports(place).iterdir()}
    again = qb(place, "all", *DRIFT)
    assert again.returncode == 0 and again.stdout.count("(kept)") == 2
    assert before == {file.name: file.read_bytes() for file in reports(place).iterdir()}
    fresh = qb(place, "all", *DRIFT, "--again")
    assert (
        "(kept)" not in fresh.stdout
        and (reports(place) / "evidence.json").read_bytes() == before["evidence.json"]
    )
    for changed, environ in ((["--seed", "1"], {}), ([], {"QUANTBENCH_GATES_MIN_WINDOWS_COUNT": "4"})):
        assert "(kept)" not in qb(place, "all", *DRIFT, *changed, **environ).stdout


def test_a_red_gate_ends_with_1_and_says_so_everywhere(place: Path, tmp_path: Path) -> None:
    done = qb(place, "all", *DRIFT, "-p", "limit=7", "--json", GITHUB_STEP_SUMMARY=str(tmp_path / "step.md"))
    said = json.loads(done.stdout)
    assert done.returncode == 1 and not said["passed"] and not said["gates"][0]["passed"]
    assert not read_evidence(reports(place) / "evidence.json")["passed"]
    assert ElementTree.parse(reports(place) / "junit.xml").getroot().get("failures") == "2"
    assert "**failed**" in (tmp_path / "step.md").read_text()


@pytest.mark.parametrize(
    ("cell", "said", "code"),
    [
        ("import os\nos.kill(os.getpid(), 9)", "killed: signal 9 at cell 4", 1),
        ("1 / 0", "ZeroDivisionError at cell 4", 1),
        ("from quantbench.core.check import QuantbenchError\nraise QuantbenchError('QB-DATA-033', where='x', value=1)", "QB-DATA-033 at cell 4", 3),
    ],
)  # fmt: skip
def test_a_gate_without_a_verdict_has_not_passed(place: Path, cell: str, said: str, code: int) -> None:
    runbook(place / "books", "permutation", cell)
    done = qb(place, "all", *DRIFT)
    assert done.returncode == code and said in done.stdout
    record = read_evidence(reports(place) / "evidence.json")
    assert record["missing"] == ["permutation"] and not record["passed"] and len(record["verdicts"]) == 2
    suite = ElementTree.parse(reports(place) / "junit.xml").getroot()
    assert suite.get("errors") == "1" and said in str(suite.find(".//error").get("message"))  # type: ignore[union-attr]
    assert (reports(place) / "permutation.html").exists()


def test_the_nightly_batch_tells_a_crash_from_a_red_verdict(place: Path) -> None:
    """Fails if a gate that ended without a verdict counts as one that said no, or the other way round."""
    runbook(place / "books", "holdout")
    red = qb(place, "all", *DRIFT, "-p", "limit=7", "--json")
    assert red.returncode == 1 and crashed(json.loads(red.stdout)["gates"]) == []
    runbook(place / "books", "permutation", "1 / 0")
    lost = qb(place, "all", *DRIFT, "--json")
    assert lost.returncode == 1
    (said,) = crashed(json.loads(lost.stdout)["gates"])
    assert said.startswith("permutation: ZeroDivisionError")


@pytest.mark.parametrize(
    "words",
    [
        ("walkforward", *DRIFT), ("all",), ("all", "-s", "KnownDrif"), ("all", "-s", "../x"), ("all", *DRIFT, "-p", "limt=1"), ("all", *DRIFT, "-p", "limit"),
        ("all", *DRIFT, "-p", "limit=nan"), ("all", *DRIFT, "-p", "limit=1e9"), ("all", *DRIFT, "-p", "x\nimport os=1"), ("all", *DRIFT, "--seed", "-1"),
    ],
)  # fmt: skip
def test_a_wrong_use_ends_with_2_and_runs_nothing(place: Path, words: tuple[str, ...]) -> None:
    wrong = qb(place, *words)
    assert wrong.returncode == 2 and wrong.stderr and not wrong.stdout and "Traceback" not in wrong.stderr
    assert not (place / "reports").exists()


def test_no_lake_ends_with_3(place: Path) -> None:
    refused = qb(place, "all", "-s", "MovingAverageCross", "--lake", "nowhere")
    assert (
        refused.returncode == 3
        and refused.stderr.startswith("QB-ENG-261")
        and "Traceback" not in refused.stderr
    )


BROKEN = """from quantbench.engine.strategy import Strategy


class Broken(Strategy):
    "Its study raises."

    @classmethod
    def study(cls, lake, as_of):
        raise ZeroDivisionError("no luck")
"""


def test_a_study_that_raises_is_told(place: Path) -> None:
    (place / "mine.py").write_text(BROKEN)
    (place / "pyproject.toml").write_text('[tool.quantbench]\nstrategies = ["mine"]\n')
    told = qb(
        place, "all", "-s", "Broken", PYTHONPATH=f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    assert told.returncode == 3 and told.stderr.startswith("QB-GATE-006") and "no luck" in told.stderr


def test_the_holdout_is_opened_last_and_only_if_all_else_passed(place: Path) -> None:
    opens = "from pathlib import Path\nPath('opened').touch()"
    runbook(place / "books", "holdout", opens)
    runbook(place / "books", "cost_stress", below=0.1)
    for words in (("all", *DRIFT), ("holdout", *DRIFT)):
        done = qb(place, *words)
        assert done.returncode == 1 and "not opened: cost_stress must pass first" in done.stdout
        assert not (place / "opened").exists()
    runbook(place / "books", "cost_stress")
    done = qb(place, "all", *DRIFT)
    assert done.returncode == 0 and (place / "opened").exists(), done.stdout
    assert [each["gate"] for each in read_evidence(reports(place) / "evidence.json")["verdicts"]][
        -1
    ] == "holdout"
    (place / "opened").unlink()
    assert qb(place, "all", *DRIFT).returncode == 0 and not (place / "opened").exists()


KEPT = ("evidence.json", "walk_forward.json", "eras.json", "junit.xml")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is written when nothing disturbs."""
    folder = tmp_path_factory.mktemp("right")
    for name in ("walk_forward", "eras"):
        runbook(folder / "books", name)
    assert qb(folder, "all", *DRIFT).returncode == 0
    return {name: (reports(folder) / name).read_bytes() for name in KEPT}


@pytest.mark.parametrize(
    "line", ["walk_forward: cell 1 of 4", "walk_forward: done, 4 cells", "eras: cell 3 of 4"]
)
def test_killed_and_started_again_it_writes_the_same(place: Path, right: dict[str, bytes], line: str) -> None:
    command = [*PROGRAM, "gate", "all", *DRIFT, "--runbooks", "books", "--workers", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=place
    ) as killed:
        assert killed.stderr
        while killed.stderr.readline() != f"{line}\n":
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
    assert not (reports(place) / "evidence.json").exists()
    assert qb(place, "all", *DRIFT).returncode == 0
    assert right == {name: (reports(place) / name).read_bytes() for name in KEPT}


def test_a_cluster_writes_the_same_evidence(place: Path, right: dict[str, bytes]) -> None:
    with cluster(place) as address:
        done = qb(place, "all", *DRIFT, "--cluster", address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert right == {name: (reports(place) / name).read_bytes() for name in KEPT}


TRIED = """from pathlib import Path

from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape


class Tried(Strategy):
    "Counted where it is run."

    days: int = param(5, low=1, high=50)

    def on_bar(self, bar, market):
        market.target_weight(bar.asset, 0.9 if bar.close > self.days else 0.0)

    @classmethod
    def study(cls, lake, as_of):
        return Study(cls(), Tape.synthetic(sessions=200, seed=3).counted(Path("looks")))
"""
TRIAL = (
    "import sys; from mine import Tried; Tried.study(None, None).with_parameters(days=int(sys.argv[1])).run()"
)


def test_a_further_trial_makes_multiplicity_run_anew_and_nothing_else(place: Path) -> None:
    """Fails if evidence of multiplicity is kept although more was tried since, or is not although nothing was."""
    for name in ("multiplicity", "eras"):
        runbook(place / "books", name, "study.run().hash")
    (place / "books" / "walk_forward.ipynb").unlink()
    (place / "mine.py").write_text(TRIED)
    (place / "pyproject.toml").write_text('[tool.quantbench]\nstrategies = ["mine"]\n')
    environ = {"PYTHONPATH": f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    held = place / "reports" / "Tried" / "evidence.json"

    def ran() -> list[str]:
        done = qb(place, "all", "-s", "Tried", **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"^(multiplicity|eras)\b(?!.*\(kept\))", done.stdout, re.MULTILINE)

    def tried(days: int) -> None:
        command = [sys.executable, "-c", TRIAL, str(days)]
        subprocess.run(command, check=True, cwd=place, env={**os.environ, **environ}, capture_output=True)

    assert ran() == ["multiplicity", "eras"]
    before = held.read_bytes()
    tried(5)  # what was run already
    assert ran() == [] and held.read_bytes() == before
    tried(9)
    assert ran() == ["multiplicity"]
    record = read_evidence(held)
    assert json.loads(before)["trials"]["trials"] == 1 and record["trials"]["trials"] == 2
    assert verify(place / "looks", anchor=Head.parse(record["journal"])).anchored
    assert ran() == []


# ---- tampering -------------------------------------------------------------------------------------------------


def record(name: str = "Demo", note: str = "a note") -> dict[str, object]:
    rests = {"strategy": name, "data": "d1", "settings": "s1"}
    verdicts = [
        Verdict(gate, (Check("Sharpe", 1.25, "above", 1.0), Check("drawdown", 0.31, "below", 0.2)), "", "", rests, {"curve": [1.0, 1.5]}, (note,))
        for gate in ("walk_forward", "permutation")
    ]  # fmt: skip
    study = {"strategy": name, "data": "d1"}
    proofs = {"walk_forward": [{"parameter": "seed", "value": 7, "unit": "", "cells": [3]}]}
    return evidence(
        study,
        "s1",
        verdicts,
        proofs=proofs,
        trials={"trials": 812, "looks": 3},
        packages={"python": "3.11"},
        journal="3:1182:9f2c",
    )


def edited(text: bytes, rng: random.Random) -> bytes:
    """The text with one byte changed, gone, doubled or swapped with another, or with a piece cut out or put elsewhere."""
    one, two = sorted(rng.sample(range(len(text)), 2))
    match rng.randrange(7):
        case 0:
            return text[:one] + bytes([text[one] ^ 1 << rng.randrange(8)]) + text[one + 1 :]
        case 1:
            return text[:one] + text[one + 1 :]
        case 2:
            return text[:one] + text[one : one + 1] + text[one:]
        case 3:
            return (
                text[:one] + text[two : two + 1] + text[one + 1 : two] + text[one : one + 1] + text[two + 1 :]
            )
        case 4:
            return text[:one] + text[two:]
        case 5:
            return text[:one] + b" " + text[one:]
        case _:
            return text[:one] + str(rng.randrange(10)).encode() + text[one + 1 :]


def test_every_edit_is_found(tmp_path: Path, soak: int) -> None:
    rng, place = random.Random(20260101), tmp_path / "evidence.json"
    text = (canonical(record()) + "\n").encode()
    place.write_bytes(text)
    assert read_evidence(place)
    tried = 0
    while tried < 10_000 * soak:
        changed = edited(text, rng)
        if changed == text:
            continue
        tried += 1
        place.write_bytes(changed)
        with pytest.raises(QuantbenchError, match="QB-GATE-004"):
            read_evidence(place)


def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(deeper for key, one in items for deeper in leaves(one, (*path, key)))]


def test_every_value_that_is_changed_removed_or_added_is_found(tmp_path: Path) -> None:
    """As a program would do it: the file stays canonical JSON."""
    place = tmp_path / "evidence.json"
    for way in leaves(record())[1:]:
        for new in (None, 0, "x", [], {}, True, False, ...):
            made = json.loads(canonical(record()))
            inner = made
            for key in way[:-1]:
                inner = inner[key]
            if new is ...:
                del inner[way[-1]]
            elif repr(inner[way[-1]]) == repr(new):
                continue
            else:
                inner[way[-1]] = new
            place.write_text(canonical(made) + "\n")
            with pytest.raises(QuantbenchError, match="QB-GATE-004"):
                read_evidence(place)


def test_a_forgery_with_right_hashes_is_not_in_the_journal(tmp_path: Path) -> None:
    journal, place = tmp_path / "evidence.journal", tmp_path / "evidence.json"
    anchor(record(), journal)
    place.write_text(canonical(record(note="a kinder note")) + "\n")
    assert read_evidence(place)
    with pytest.raises(QuantbenchError, match="QB-GATE-004"):
        read_evidence(place, journal)
    place.write_text(canonical(record()) + "\n")
    assert read_evidence(place, journal)
    journal.write_bytes(journal.read_bytes().replace(b'"Demo"', b'"Dema"'))
    with pytest.raises(QuantbenchError, match="QB-JNL"):
        read_evidence(place, journal)


def test_an_edited_notebook_or_record_is_run_again(place: Path) -> None:
    qb(place, "all", *DRIFT)
    before = (reports(place) / "evidence.json").read_bytes()
    for name in ("eras.json", "eras.ipynb"):
        path = reports(place) / name
        path.write_text(
            path.read_text().replace('"passed"', '"passed" ', 1)
            if name == "eras.json"
            else path.read_text().replace("Study.of", "Study.off")
        )
        done = qb(place, "all", *DRIFT)
        assert done.stdout.count("(kept)") == 1 and (reports(place) / "evidence.json").read_bytes() == before


# ---- hostile names ---------------------------------------------------------------------------------------------


HOSTILE = (
    "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "]]>", "&amp;", '"><x y="', "a | b", "`x`", "[x](javascript:alert(1))", "\x00\x1b[31m\x08",
    "\ufffe", "\u202egnp", "=HYPERLINK(1)", "\n\n# heading", "<!-- -->", "**bold**", "|\n|---|", "\\|", "{{7*7}}",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_a_name_in_xml_and_markdown(text: str) -> None:
    hostile = {**record(name=text), "missing": [text]}
    verdicts = [
        Verdict(
            text,
            (Check(text, 2.0, "below", 1.0, text),),
            "",
            "",
            {"strategy": text, "data": "d1", "settings": "s1"},
        )
    ]
    hostile = {**hostile, "verdicts": [verdict.record for verdict in verdicts]}
    suite = ElementTree.fromstring(junit(hostile, {text: text}))
    assert [case.tag for case in suite] == ["testcase", "testcase"]
    assert all(len(case) == 1 and case[0].tag in ("failure", "error") for case in suite)
    lines = summary(hostile, {text: text}).splitlines()
    assert not re.search(r"<(?!/?$)|(?<!\\)\]\(|(?<!\\)`x|^# ", "\n".join(lines))
    tables = [line for line in lines if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 6 for line in tables), tables
