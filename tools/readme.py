"""README.md from nbs/index.ipynb: prose as it is, code in fences with its text output, pictures as files.

A small script of ours because the usual way needs a program that cannot be installed everywhere.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "nbs" / "index.ipynb"
PICTURES = ROOT / "docs" / "pictures"


def pictures(cell_id: str, outputs: list[dict[str, Any]]) -> list[str]:
    """Write a cell's pictures beside the README and return the lines that show them."""
    shown = []
    for output in outputs:
        data = output.get("data", {})
        kind = next((k for k in ("image/svg+xml", "image/png") if k in data), None)
        if kind is None:
            continue
        content = "".join(data[kind])
        target = PICTURES / f"{cell_id}.{'svg' if 'svg' in kind else 'png'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if "svg" in kind else base64.b64decode(content))
        shown.append(
            f"![{data.get('text/plain', ['picture'])[0].strip()}]({target.relative_to(ROOT).as_posix()})"
        )
    return shown


def texts(outputs: list[dict[str, Any]]) -> str:
    """What a cell printed or showed as text, where it showed no picture."""
    said = []
    for output in outputs:
        data = output.get("data", {})
        if not any(kind.startswith("image/") for kind in data):
            said.append("".join(output.get("text", data.get("text/plain", []))))
    return "\n".join(s.rstrip() for s in said if s.strip())


def render(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    directives = [line for line in source.splitlines() if line.startswith("#|")]
    body = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
    if any("hide" in d for d in directives):
        return ""
    if cell["cell_type"] == "markdown":
        return body
    outputs = cell.get("outputs", [])
    said = texts(outputs)
    parts = [f"```python\n{body}\n```"] if body else []
    parts += [f"```text\n{said}\n```"] if said else []
    return "\n\n".join(parts + pictures(cell["id"], outputs))


def main() -> None:
    cells = json.loads(INDEX.read_text(encoding="utf-8"))["cells"]
    notice = "<!-- Written by tools/readme.py from nbs/index.ipynb: edit that, then run `make readme`. -->"
    text = "\n\n".join([notice, *filter(None, map(render, cells))]) + "\n"
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
