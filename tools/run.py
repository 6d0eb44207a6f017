"""The workbench's main job, so far: the bundled real data into a lake, a report on its quality, tutorials and strategies, executed.

No key, no server, no network. Everything lands in `lake/` and `reports/`, which git ignores; a second run adds nothing to the lake.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quantbench.core.clock import Calendar, WallClock
from quantbench.core.config import load
from quantbench.data.asof import history
from quantbench.data.ingest import ingest
from quantbench.data.quality import QualityReport, examine
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake
from quantbench.engine.loop import prepare
from steps import BIN, ROOT, command, run_steps

SETTINGS = load(ROOT / "settings.ini", os.environ)
REPORTS = SETTINGS.paths.reports
BAD_ROWS = 0.01  # some rows of the original files contradict themselves; they are set aside and listed
MARKETS = {"crypto-days": "24/7", "crypto-minutes": "24/7", "eurusd-hours": "FX"}
TUTORIALS = [ROOT / "nbs" / "learn" / f"{name}.ipynb" for name in ("first_strategy", "point_in_time")]
STRATEGIES = sorted((ROOT / "nbs" / "strategies").glob("*.ipynb"))  # whatever is there is run
TODAY = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)  # after everything in the sample became known

made: dict[str, QualityReport] = {}


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


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>quantbench</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{{color-scheme:light dark}}body{{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}
li{{margin:.8rem 0}}small{{opacity:.7;display:block}}</style>
<h1>quantbench</h1><p>What the run made.</p>{parts}</html>
"""


def listed(title: str, rows: list[tuple[str, str, str]]) -> str:
    items = "\n".join(
        f'<li><a href="{place}">{html.escape(name)}</a><small>{html.escape(line)}</small></li>'
        for place, name, line in rows
    )
    return f"<h2>{title}</h2><ul>\n{items}</ul>"


def index() -> str:
    parts = [
        listed(title, [(f"{one.stem}.html", *heading(one)) for one in shown])
        for title, shown in (("Learn", TUTORIALS), ("Strategies", STRATEGIES))
    ]
    parts.append(listed("Data", [("quality.html", "Quality of the data", made["quality"].verdict)]))
    (REPORTS / "index.html").write_text(PAGE.format(parts="\n".join(parts)), encoding="utf-8")
    return "reports/index.html"


STEPS = [
    ("bundled data into the lake", build),
    ("every byte verified", verify),
    ("quality report", quality),
    ("engine", engine),
    ("tutorials and strategies", notebooks),
    ("index", index),
]

if __name__ == "__main__":
    REPORTS.mkdir(parents=True, exist_ok=True)
    held = run_steps(STEPS)
    if held:
        print("  open reports/index.html, or run make lab and open learn/first_strategy.ipynb")
    raise SystemExit(0 if held else 1)
