"""Make `.venv` from `requirements.lock`, every file checked against its hash. Needs Python 3.11 or newer and nothing else.

uv installs the packages (it is several times faster than pip); pip installs uv, from the same lock file and
with the same check.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".installed"


def step(number: int, text: str) -> None:
    print(f"[{number}/4] {text}", flush=True)


def uv_requirement() -> str:
    """The lock's entry for uv: the line with its version and the lines with its hashes."""
    found = re.search(r"^uv==.*?(?=^\S)", LOCK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("requirements.lock has no entry for uv: run `make lock`")
    return found.group()


def run(*command: str | Path) -> None:
    # bytecode is compiled once, here: without it every later import is several times slower
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [str(c) for c in command],
        cwd=ROOT,
        env={**environment, "VIRTUAL_ENV": str(VENV)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SystemExit(f"set-up stopped at: {' '.join(str(c) for c in command)}")


def main() -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        here = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(
            f"quantbench needs Python 3.11 to 3.14; this is {here}. Try: make PYTHON=python3.12 …"
        )
    begin = time.perf_counter()
    STAMP.unlink(missing_ok=True)
    step(1, f"environment in .venv, Python {sys.version_info[0]}.{sys.version_info[1]}")
    venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(VENV)
    step(2, "installer, checked against its hash")
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder) / "uv.txt"
        entry.write_text(uv_requirement(), encoding="utf-8")
        run(
            BIN / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            entry,
        )
    count = len(re.findall(r"^[\w.-]+==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    step(3, f"packages from requirements.lock ({count} entries, each checked against its hash)")
    run(BIN / "uv", "pip", "sync", "--require-hashes", "--compile-bytecode", LOCK)
    step(4, "quantbench itself, editable")
    run(BIN / "uv", "pip", "install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    STAMP.touch()
    print(f"      ready after {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
