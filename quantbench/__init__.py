"""A Jupyter-first workbench for systematic trading research, with a promotion path to paper and live

Modules:

- `quantbench.core.chain`: A file of records in which nothing can be changed, removed or reordered without it showing.
- `quantbench.core.check`: Refusals a person can act on, and a comparison of numbers that does not look away.
- `quantbench.core.clock`: What time it is, when a market is open, and when the next step is due: the only reader of wall time.
- `quantbench.core.journal`: What happened, in order, on the disk before anyone acts on it.
- `quantbench.core.staging`: Files that are not there until they are whole.
- `quantbench.core.types`: The nouns of the whole workbench, and the rules that keep a measurement from posing as money.
- `quantbench.core.value`: Exact numbers, times with a zone, and frozen values that check their own fields.
- `quantbench.data.layout`: How rows lie in files, so that a read opens few of them and believes none without proof.
- `quantbench.data.schema`: The contract of every table: columns, units, keys, and the two times each fact carries.
- `quantbench.data.snapshot`: Rows as they were known at a time: immutable, named by a hash of their content, open to pandas, Polars and SQL.
- `quantbench.data.store`: The lake: tables of facts that only grow, whose every byte is checked before it is believed."""

__version__ = "0.1.0"
