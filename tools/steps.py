"""One line a step, while it runs and when it is done; a step that fails shows all it said and ends the run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
}


class StepError(Exception):
    """A step that did not hold; the text says what and where."""


def command(*words: str | Path, cwd: Path = ROOT) -> str:
    """Run a command; its output, or a StepError that carries it."""
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise StepError((done.stdout + done.stderr).strip() or f"{words[0]} ended with {done.returncode}")
    return done.stdout + done.stderr


def run_steps(steps: Sequence[tuple[str, Callable[[], str]]]) -> bool:
    """Run the steps in order; each returns what it has to report. False at the first failure."""
    console = Console(highlight=False, soft_wrap=True)
    begin = time.perf_counter()
    for number, (name, action) in enumerate(steps, 1):
        start = time.perf_counter()
        label = f"[{number}/{len(steps)}] {name}"
        try:
            with console.status(label):
                said = action()
        except StepError as failure:
            console.print(f"[bold red]✗[/] {label}")
            console.print(str(failure), markup=False)
            return False
        console.print(f"[green]✓[/] {label:<34} [dim]{said}, {time.perf_counter() - start:.1f} s[/]")
    console.print(f"  all {len(steps)} steps in {time.perf_counter() - begin:.0f} s")
    return True
