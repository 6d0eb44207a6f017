"""The text form of a notebook is a way to edit it, not a second source that may overwrite the first."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import notebook as tool


@pytest.mark.parametrize(("age", "taken"), [(-5, False), (0, True), (5, True)])
def test_text_older_than_its_notebook_is_left_alone(tmp_path, age, taken):
    """Fails if an edit made in Jupyter is undone by text left over from an earlier one."""
    book = tmp_path / "00_a.ipynb"
    assert not tool.newer_text(book)
    book.write_text("{}")
    book.with_suffix(".py").write_text("")
    moment = book.stat().st_mtime
    os.utime(book, (moment, moment))
    os.utime(book.with_suffix(".py"), (moment + age, moment + age))
    assert tool.newer_text(book) is taken
