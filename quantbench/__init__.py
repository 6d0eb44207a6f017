"""A Jupyter-first workbench for systematic trading research, with a promotion path to paper and live

Modules:

- `quantbench.core.chain`: A file of records in which nothing can be changed, removed or reordered without it showing.
- `quantbench.core.check`: Refusals a person can act on, and a comparison of numbers that does not look away.
- `quantbench.core.clock`: What time it is, when a market is open, and when the next step is due: the only reader of wall time.
- `quantbench.core.journal`: What happened, in order, on the disk before anyone acts on it.
- `quantbench.core.types`: The nouns of the whole workbench, and the rules that keep a measurement from posing as money.
- `quantbench.core.value`: Exact numbers, times with a zone, and frozen values that check their own fields.
- `quantbench.data.asof`: What was known at a moment: the newest figure of every series, or every figure in the version of that day.
- `quantbench.data.cells`: Text becomes numbers and times by the statement of a specification; what does not is named by line and column.
- `quantbench.data.feeds`: Seeded feeds whose truth is known: restated figures, trades by those who know and those who do not, an order book.
- `quantbench.data.files`: CSV and Parquet files as a source, in memory that does not grow with them.
- `quantbench.data.filespec`: A statement of what is in a file: columns, formats, zones, and how its facts became known.
- `quantbench.data.ingest`: From a source into the lake: once, whole, and only what is new.
- `quantbench.data.layout`: How rows lie in files, so that a read opens few of them and believes none without proof.
- `quantbench.data.reference`: What a price, a ticker or an index meant on a date, as one could have known it then.
- `quantbench.data.schema`: The contract of every table: columns, units, keys, and the two times each fact carries.
- `quantbench.data.seal`: The final fifth of history, put where research cannot reach it.
- `quantbench.data.snapshot`: Rows as they were known at a time: immutable, named by a hash of their content, open to pandas, Polars and SQL.
- `quantbench.data.sources`: The contract between the lake and whatever has data: what it offers, in which pieces, and what it cannot do.
- `quantbench.data.staging`: Files that are not there until they are whole.
- `quantbench.data.store`: The lake: tables of facts that only grow, whose every byte is checked before it is believed.
- `quantbench.data.synth`: Seeded markets whose truth is known, for lessons, for tests, and for methods that claim to find something.
- `quantbench.ops.cli`: `qb`: what the workbench does without a notebook.
- `quantbench.ops.data`: `qb data`: bring data into the lake, see what is there, ask what was known.
- `quantbench.ops.doctor`: Is this machine fit to run the workbench, and if not, what is to be done?
- `quantbench.ops.journal`: `qb journal`: does the record of what happened still say what it said?
- `quantbench.ops.specfile`: How files are to be read, written down in a file of its own.
- `quantbench.ops.terminal`: What every command has in common: how it ends, what it prints, and which moment and lake it means."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.clock import SimClock, WallClock
    from .core.config import load
    from .data.asof import history, latest, vintages
    from .data.files import FileSource
    from .data.ingest import ingest
    from .data.quality import examine
    from .data.seal import Project, create
    from .data.snapshot import Snapshot
    from .data.sources import SampleSource
    from .data.store import Lake

__version__ = "0.1.0"

# A name is imported when it is first used: `import quantbench` itself loads nothing heavy.
_HOME = {
    "FileSource": "data.files",
    "Lake": "data.store",
    "Project": "data.seal",
    "SampleSource": "data.sources",
    "SimClock": "core.clock",
    "Snapshot": "data.snapshot",
    "WallClock": "core.clock",
    "create": "data.seal",
    "examine": "data.quality",
    "history": "data.asof",
    "ingest": "data.ingest",
    "latest": "data.asof",
    "load": "core.config",
    "vintages": "data.asof",
}

__all__ = [  # noqa: F822
    "FileSource",
    "Lake",
    "Project",
    "SampleSource",
    "SimClock",
    "Snapshot",
    "WallClock",
    "create",
    "examine",
    "history",
    "ingest",
    "latest",
    "load",
    "vintages",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"quantbench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'quantbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
