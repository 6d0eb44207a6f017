"""Edit a notebook as text, run it, keep it byte-stable.

    python tools/notebook.py text nbs/core/00_check.ipynb    # write nbs/core/00_check.py (percent script, git-ignored)
    python tools/notebook.py save nbs/core/00_check.ipynb    # text, if newer, back into the notebook; export, run, store outputs
    python tools/notebook.py save                            # every notebook, two at a time

Cell ids survive both ways: the exported package names them, so `git blame` and `nbdev-update` keep working.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}


def to_text(notebook: Path) -> Path:
    script = notebook.with_suffix(".py")
    subprocess.run([BIN / "jupytext", "--quiet", "--to", "py:percent", "-o", script, notebook], check=True)
    return script


def from_text(notebook: Path) -> None:
    """Take the cells' text from the script; outputs and ids stay with the cells that are still there."""
    script = notebook.with_suffix(".py")
    if notebook.exists():
        command = [BIN / "jupytext", "--quiet", "--to", "ipynb", "--update", "-o", notebook, script]
        subprocess.run(command, check=True)
    else:
        fresh = jupytext.read(script, fmt="py:percent")
        fresh.metadata = {"kernelspec": KERNEL}
        jupytext.write(fresh, notebook, fmt="ipynb")


def newer_text(notebook: Path) -> bool:
    """Is there text, written after the notebook? Older text must not undo what Jupyter or git wrote since."""
    script = notebook.with_suffix(".py")
    if not script.exists():
        return False
    if notebook.exists() and script.stat().st_mtime_ns < notebook.stat().st_mtime_ns:
        print(
            f"{script.name} is older than the notebook: left alone (to edit as text, write it again with `text`)"
        )
        return False
    return True


def save(notebooks: list[Path]) -> int:
    for notebook in notebooks:
        if newer_text(notebook):
            from_text(notebook)
    paths = notebooks or [ROOT / "nbs"]
    for path in paths:
        clean = [BIN / "nbdev-clean", "--fname", path]
        subprocess.run([BIN / "ruff", "format", "--quiet", path], check=True)
        subprocess.run([BIN / "nbdev-export", "--path", path], check=True)
        ran = subprocess.run([BIN / "nbdev-test", "--save", "--n-workers", "2", path], cwd=ROOT)
        subprocess.run(clean, check=True)
        if ran.returncode:
            return ran.returncode
    return 0


def main(words: list[str]) -> int:
    match words:
        case ["text", *names] if names:
            for name in names:
                print(to_text(Path(name).resolve()).relative_to(ROOT))
            return 0
        case ["save", *names]:
            return save([Path(name).resolve() for name in names])
    print(__doc__)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
