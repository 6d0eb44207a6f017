"""The workbench's main job: the bundled real data into a lake, a report on its quality, tutorials and strategies, executed, two strategies
before the gates, and the one that passes them promoted and played on paper, through the gateway.

No key, no server, no network. Everything lands in `lake/` and `reports/`, which git ignores; a second run adds nothing to the lake.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from judge import judge

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import Calendar, WallClock
from quantbench.core.config import load
from quantbench.data.asof import history
from quantbench.data.ingest import ingest
from quantbench.data.quality import QualityReport, examine
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake
from quantbench.engine.loop import prepare
from quantbench.engine.registry import find, found
from quantbench.engine.study import Study
from quantbench.ops.certificate import KEY_VARIABLE, key_path, make_key
from quantbench.ops.evidence import read_evidence
from quantbench.reports.site import Link
from quantbench.reports.site import write as write_site
from quantbench.reports.tearsheet import write as tearsheet
from steps import BIN, ENVIRONMENT, ROOT, StepError, command, run_steps

SETTINGS = load(ROOT / "settings.ini", os.environ)
REPORTS = SETTINGS.paths.reports
BAD_ROWS = 0.01  # some rows of the original files contradict themselves; they are set aside and listed
MARKETS = {"crypto-days": "24/7", "crypto-minutes": "24/7", "eurusd-hours": "FX"}
TUTORIALS = [
    ROOT / "nbs" / "learn" / f"{name}.ipynb" for name in ("first_strategy", "read_a_verdict", "point_in_time")
]
PROMOTED = "KnownDrift"
JUDGED = ("KnownDrift", "MovingAverageCross")
STRATEGIES = sorted((ROOT / "nbs" / "strategies").glob("*.ipynb"))  # whatever is there is run
TODAY = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)  # after everything in the sample became known

made: dict[str, QualityReport] = {}
played: list[Link] = []


def lake() -> Lake:
    place = SETTINGS.paths.lake
    return Lake.open(place, clock=WallClock()) if place.exists() else Lake.create(place, clock=WallClock())


def build() -> str:
    done = ingest(lake(), SampleSource(), quarantine=BAD_ROWS, tell=None)
    rows = {"added": 0, "set aside": 0, "unchanged": 0}
    for tally in done.tallies:
        rows["added"] += tally.added + tally.restated
        rows["set aside"] += tally.set_aside
        rows["unchanged"] += tally.unchanged
    said = ", ".join(f"{count:,} {name}" for name, count in rows.items() if count)
    return f"{len(done.tallies)} datasets: {said or 'nothing new'}"


def verify() -> str:
    report = lake().check()
    if report.problems:
        raise SystemExit("\n".join(report.problems))
    return f"{report.files} files, {report.size / 1e6:.0f} MB, every byte is the journal's"


def calendars() -> dict[str, Calendar]:
    """When each asset of the sample trades; the sources do not say."""
    bars = history(lake(), "bars", as_of=TODAY, columns=["source"]).rows
    pairs = bars.group_by(["asset", "source"]).aggregate([]).to_pylist()
    return {pair["asset"]: Calendar(MARKETS.get(pair["source"], "XNYS")) for pair in pairs}


def quality() -> str:
    made["quality"] = examine(lake(), as_of=TODAY, calendar=calendars())
    (REPORTS / "quality.html").write_text(made["quality"].html(), encoding="utf-8")
    return made["quality"].verdict


def engine() -> str:
    prepare()
    return "the loop is compiled, or was on disk"


def execute(notebook: Path) -> Path:
    """The notebook, run from the first cell to the last, among the reports."""
    target = REPORTS / notebook.name
    command(BIN / "papermill", "--no-progress-bar", notebook, target)
    return target


def notebooks() -> str:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(execute, [*STRATEGIES, *TUTORIALS]))
    command(BIN / "jupyter", "nbconvert", "--log-level=ERROR", "--to", "html", *made)
    return f"{len(made)} executed from the first cell to the last"


def heading(notebook: Path) -> tuple[str, str]:
    """Its title and the line below it, which says what it is."""
    first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    title, _, line = first.partition("\n")
    return title.removeprefix("# "), line.strip().removeprefix("> ").replace("*", "")


def gates() -> str:
    """Two strategies judged: one whose edge is known, one that everybody knows. A failed gate is a result, a gate without a verdict an error."""
    return ", ".join(f"{name} {judge(name)}" for name in JUDGED)


def sheet(name: str) -> bool:
    """The tearsheet of one strategy, with its evidence if the gates have run on these data."""
    study, folder = Study.of(name, lake(), TODAY), REPORTS / name
    near = folder / "evidence.json"
    evidence = read_evidence(near) if near.exists() else None
    if evidence and any(evidence["study"].get(key) != value for key, value in study.inputs.items()):
        evidence = None  # of other data or code: the page says that nothing was judged
    tearsheet(
        study.run(),
        evidence,
        folder / "tearsheet.html",
        benchmark=study.benchmark or None,
        factors=study.factors,
    )
    return evidence is not None


def tearsheets() -> str:
    """Of every strategy that says what it is judged on; one that these data do not suit is named with its refusal."""
    judged, refused = [], []
    for name in (row.name for row in found().rows if not row.error and hasattr(find(row.name), "study")):
        try:
            judged.append(sheet(name))
        except QuantbenchError as error:
            refused.append(f"{name} refused ({error.code}: {error.where})")
    return ", ".join([f"{len(judged)} written, {sum(judged)} with evidence", *refused])


def asked(*words: str) -> dict[str, Any]:
    """What a command of `qb` says, for programs."""
    done = subprocess.run(
        [BIN / "qb", *words, "--json"], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT
    )
    if done.returncode:
        raise StepError(f"qb {' '.join(words)}: {done.stdout}{done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def signing_key() -> str:
    """The user's own key; without one a key for this demonstration, outside of the project."""
    mine = key_path()
    if not mine.exists():
        mine = Path(tempfile.gettempdir()) / f"quantbench-demo-{os.getuid()}" / "signing.key"
        mine.parent.mkdir(mode=0o700, exist_ok=True)
        if not mine.exists():
            make_key(mine)
    return str(mine)


def promotion() -> str:
    """The strategy whose edge is known goes from research to paper: its checklist, a signature, a certificate."""
    ENVIRONMENT[KEY_VARIABLE] = signing_key()  # of this process and of those it starts
    if asked("promote", "status", PROMOTED)["stage"] != "research":
        command(
            BIN / "qb", "promote", PROMOTED, "--to", "research", "--who", "make run", "--why", "begins anew"
        )
    command(
        BIN / "qb", "promote", PROMOTED, "--to", "paper", "--who", "make run", "--why", "every gate passed",
    )  # fmt: skip
    return f"{PROMOTED} from research to paper, signed"


def paper() -> str:
    """Its session on paper: through gateway, Guardian, order book and journal; reconciled, and compared with its backtest."""
    running = subprocess.run([BIN / "qb", "gateway", "status"], capture_output=True, cwd=ROOT).returncode == 0
    try:
        said = asked("paper", PROMOTED)
    finally:
        if not running:
            command(BIN / "qb", "gateway", "stop")
    played.append(
        Link(
            f"{PROMOTED}/{Path(said['tearsheet']).name}",
            f"{PROMOTED} on paper",
            f"{said['fills']} fills, reconciled with the broker",
        )
    )
    return f"{said['fills']} fills, reconciled, the same decisions as its backtest"


def index() -> str:
    sections = {
        "Learn": [Link(f"{one.stem}.html", *heading(one)) for one in TUTORIALS],
        "Strategies as notebooks": [Link(f"{one.stem}.html", *heading(one)) for one in STRATEGIES],
        "Paper": played,
        "Data": [Link("quality.html", "Quality of the data", made["quality"].verdict)],
    }
    return str(write_site(REPORTS, sections).relative_to(ROOT))


STEPS = [
    ("bundled data into the lake", build),
    ("every byte verified", verify),
    ("quality report", quality),
    ("engine", engine),
    ("tutorials and strategies", notebooks),
    ("gates", gates),
    ("tearsheets", tearsheets),
    ("promotion", promotion),
    ("paper session", paper),
    ("index", index),
]

if __name__ == "__main__":
    REPORTS.mkdir(parents=True, exist_ok=True)
    held = run_steps(STEPS)
    if held:
        print("  open reports/index.html, or run make lab and open learn/first_strategy.ipynb")
    raise SystemExit(0 if held else 1)
