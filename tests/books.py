"""Runbooks of a few lines, made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DECLARED = "n: int = 1  # 1 to 1000"


def book(*sources: str, tags: tuple[str, ...] = ("parameters",)) -> dict[str, Any]:
    """A notebook of code cells; the first ones carry the tag."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell{n}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for n, source in enumerate(sources)
    ]
    for cell, tag in zip(cells, tags, strict=False):
        cell["metadata"] = {"tags": [tag]}
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(path: Path, *sources: str, tags: tuple[str, ...] = ("parameters",)) -> Path:
    path.write_text(json.dumps(book(*sources, tags=tags)), encoding="utf-8")
    return path


def printed(made: dict[str, Any]) -> list[str]:
    """What each code cell printed."""
    cells = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    return ["".join("".join(o.get("text", "")) for o in cell["outputs"]) for cell in cells]
