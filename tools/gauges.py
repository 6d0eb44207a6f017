"""How the notebooks read, as a table to look at: not a gate. Targets are those of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure of a notebook, and the span in which it reads well."""

    title: str
    low: float
    high: float
    form: str = "{:.0f}"

    def show(self, value: float) -> str:
        text = self.form.format(value)
        return text if self.low <= value <= self.high else f"[yellow]{text}[/]"


GAUGES = {
    "exported": Gauge("exported lines", 80, 250),
    "cells": Gauge("cells", 30, 80),
    "names": Gauge("public names", 2, 8),
    "longest": Gauge("longest cell", 0, 25),
    "prose": Gauge("prose words / line", 2, 5, "{:.1f}"),
    "lessons": Gauge("lesson lines / line", 0.4, 1.0, "{:.2f}"),
    "hidden": Gauge("hidden %", 0, 15),
    "size": Gauge("kB", 0, 150),
    "plots": Gauge("plots", 1, 4),
}


def lines(source: str) -> int:
    return len([line for line in source.splitlines() if line.strip() and not line.startswith("#|")])


def public_names(sources: list[str]) -> int:
    tree = ast.parse("\n".join(s for s in sources if not s.lstrip().startswith("%")))
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return len({n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")})


def is_plot(output: dict[str, object]) -> bool:
    data = output.get("data", {})
    return isinstance(data, dict) and bool({"image/png", "image/svg+xml"} & data.keys())


def measure(path: Path) -> dict[str, float]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(c["source"]), c) for c in cells]
    code = [(s, c) for s, c in texts if c["cell_type"] == "code" and s.strip()]
    exported = [s for s, _ in code if "#| export" in s]
    lessons = [s for s, _ in code if "#| export" not in s and "#| default_exp" not in s]
    hidden = sum(lines(s) for s in lessons if "#| hide" in s)
    lesson_lines = sum(map(lines, lessons))
    export_lines = sum(map(lines, exported)) or 1
    words = sum(len(s.split()) for s, c in texts if c["cell_type"] == "markdown")
    return {
        "exported": sum(map(lines, exported)),
        "cells": len(cells),
        "names": public_names(exported),
        "longest": max(map(lines, exported), default=0),
        "prose": words / export_lines,
        "lessons": lesson_lines / export_lines,
        "hidden": 100 * hidden / lesson_lines if lesson_lines else 0,
        "size": path.stat().st_size / 1000,
        "plots": sum(is_plot(o) for _, c in code for o in c.get("outputs", [])),
    }


def main() -> None:
    table = Table(title="how the notebooks read")
    table.add_column("notebook", no_wrap=True)
    for gauge in GAUGES.values():
        table.add_column(gauge.title, justify="right", max_width=9)
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        found = measure(path)
        skipped = () if found["exported"] else ("exported", "names", "longest", "prose", "lessons")
        shown = ("" if k in skipped else g.show(found[k]) for k, g in GAUGES.items())
        table.add_row(str(path.relative_to(ROOT / "nbs")), *shown)
    table.add_section()
    table.add_row(
        "[dim]reads well",
        *(f"[dim]{g.form.format(g.low)} to {g.form.format(g.high)}" for g in GAUGES.values()),
    )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
