"""Which branches of Guardian do its own tests take?

    python tools/branches.py                     # of Guardian, by its tests
    python tools/branches.py -k amend            # further words go to pytest

A branch is a statement that goes one of two ways: the body of an `if`, `elif`, `while`, `for` or `case` is entered, or it is not. Both ways must have been seen. The tests run in this
process under a line tracer; what forked children do is not seen. Ends with 1 if a way was never taken.
"""

from __future__ import annotations

import ast
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("execution/guard.py", "risk/limits.py", "risk/kill.py", "risk/rules.py")
TESTS = ("tests/test_guard.py", "tests/test_guard_ways.py", "tests/test_guarded.py")


@dataclass
class Branch:
    """A statement that goes one of two ways, and which of them were seen."""

    where: str
    text: str
    test: range  # the lines of the question
    body: range  # of its first statement
    taken: set[bool] = field(default_factory=set)

    @property
    def missing(self) -> str:
        return " and ".join(
            ("always entered", "never entered")[way] for way in (True, False) if way not in self.taken
        )


def branches(path: Path) -> list[Branch]:
    """All of a file; `while True` is none."""
    source = path.read_text(encoding="utf-8")
    lines, found = source.splitlines(), []

    def add(line: int, end: int, body: ast.stmt) -> None:
        where = f"{path.relative_to(ROOT)}:{line}"
        found.append(
            Branch(
                where,
                lines[line - 1].strip(),
                range(line, end + 1),
                range(body.lineno, (body.end_lineno or body.lineno) + 1),
            )
        )

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.If, ast.While)) and not isinstance(node.test, ast.Constant):
            add(node.lineno, node.test.end_lineno or node.lineno, node.body[0])
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            add(node.lineno, node.iter.end_lineno or node.lineno, node.body[0])
        elif isinstance(node, ast.match_case) and not (
            isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        ):
            add(node.pattern.lineno, node.pattern.end_lineno or node.pattern.lineno, node.body[0])
    return found


class Watch:
    """Follows the lines of some files."""

    def __init__(self, files: dict[str, list[Branch]]) -> None:
        self._at = {
            name: {line: branch for branch in found for line in branch.test} for name, found in files.items()
        }
        self._known: dict[CodeType, dict[int, Branch] | None] = {}

    def call(self, frame: FrameType, event: str, _: Any) -> Any:  # noqa: ARG002
        code = frame.f_code
        if code not in self._known:
            self._known[code] = self._at.get(code.co_filename)
        at = self._known[code]
        return None if at is None else _Frame(at)

    def __enter__(self) -> None:
        threading.settrace(self.call)
        sys.settrace(self.call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


class _Frame:
    """One call: the question that was asked last."""

    def __init__(self, at: dict[int, Branch]) -> None:
        self._at = at
        self._asked: Branch | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "exception":
            self._asked = None
        elif event in ("line", "return"):
            asked, line = self._asked, frame.f_lineno
            if asked is not None and not (event == "line" and line in asked.test):
                asked.taken.add(event == "line" and line in asked.body)
                self._asked = None
            if event == "line":
                self._asked = self._at.get(line)
        return self


def main(words: list[str]) -> int:
    files = {str(ROOT / "quantbench" / module): branches(ROOT / "quantbench" / module) for module in MODULES}
    with Watch(files):
        code = pytest.main([*TESTS, "-q", "-p", "no:xdist", *words])
    missing = [branch for found in files.values() for branch in found if branch.missing]
    for name, found in files.items():
        ways = sum(len(branch.taken) for branch in found)
        print(f"{Path(name).relative_to(ROOT)}: {ways} of {2 * len(found)} ways")
    for branch in missing:
        print(f"{branch.where}: {branch.missing}: {branch.text}")
    return int(code) or int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
