"""The README's commands, run as they are written, in a copy of the checkout that has the environment and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines() if line
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what git has or would add, with an environment that make takes for up to date."""
    place = tmp_path_factory.mktemp("readme") / "quantbench"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    for kept in (ROOT / "quantbench" / "engine" / "__pycache__").glob(
        "*.nb?"
    ):  # compiled by `make test` before
        (place / kept.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(kept, place / kept.relative_to(ROOT))
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(place / name, (0, 0))
    (place / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return place


def run(line: str, place: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QUANTBENCH_")}
    path = f"{place / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = clean | {"PATH": path, "PYTHONPATH": str(place)}
    return subprocess.run(["bash", "-c", line], cwd=place, env=environment, capture_output=True, text=True)


def test_the_commands_do_what_the_readme_says(checkout):
    """In the README's order, because later commands read the lake that `make run` builds."""
    assert sum(line.startswith("make run") for line in COMMANDS) == 1 and len(COMMANDS) >= 5
    for line in COMMANDS:
        if line.startswith("make test"):  # what is running now
            assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
            continue
        done = run(line, checkout)
        promised = re.search(r"exits (\d)", line)
        assert done.returncode == (int(promised[1]) if promised else 0), f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip() and "Traceback" not in done.stderr, line
    pages = {p.name for p in (checkout / "reports").iterdir()}
    assert {"index.html", "point_in_time.html", "quality.html"} <= pages
    assert "added" not in run("qb data refresh sample", checkout).stdout  # all of it is there


def test_pages_the_run_makes_name_no_place_and_load_nothing(checkout):
    for name in ("index.html", "quality.html"):
        page = (checkout / "reports" / name).read_text(encoding="utf-8")
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), name
        assert "<script src" not in page and ("<script" not in page or "default-src 'none'" in page), name
        assert str(checkout) not in page, name


def test_what_the_readme_links_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
