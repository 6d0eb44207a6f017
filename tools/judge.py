"""Every gate on every shipped strategy that says what it is judged on, or on those that are named.

    python tools/judge.py [STRATEGY ...]      # needs the lake that `make run` builds

A red verdict is an honest result and ends with 0. A gate that ended without a verdict is a crash and ends with 1, as does a refusal:
nobody knows what it would have said. The holdout stays closed where another gate is red; that is no crash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

from quantbench.core.config import load
from quantbench.engine.registry import find, found
from steps import BIN, ROOT, StepError, run_steps

SETTINGS = load(ROOT / "settings.ini", os.environ)


def shipped() -> list[str]:
    """The strategies of the package that have a study."""
    rows = [row.name for row in found().rows if not row.error and hasattr(find(row.name), "study")]
    return [name for name in rows if find(name).__module__.startswith("quantbench.strategies.")]


def crashed(gates: list[dict[str, Any]]) -> list[str]:
    """What ended without a verdict and should not have."""
    lost = [gate for gate in gates if not gate["verdict"] and not gate["said"].startswith("not opened")]
    return [f"{gate['gate']}: {gate['said']}" for gate in lost]


def judge(name: str) -> str:
    """The gates' names, red ones marked; StepError if one of them crashed."""
    words = (
        "gate",
        "all",
        "-s",
        name,
        "--lake",
        SETTINGS.paths.lake,
        "--out",
        SETTINGS.paths.reports,
        "--json",
    )
    done = subprocess.run([str(BIN / "qb"), *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise StepError(done.stdout + done.stderr)
    gates = json.loads(done.stdout)["gates"]
    if lost := crashed(gates):
        raise StepError("\n".join(lost) + "\n" + done.stderr)
    red = [gate["gate"] for gate in gates if not gate["passed"]]
    return f"failed {', '.join(red)}" if red else "passed every gate"


if __name__ == "__main__":
    held = [run_steps([(name, partial(judge, name))]) for name in sys.argv[1:] or shipped()]
    raise SystemExit(0 if all(held) else 1)
