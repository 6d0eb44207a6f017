"""A Jupyter-first workbench for systematic trading research, with a promotion path to paper and live

Modules:

- `quantbench.core.check`: Refusals a person can act on, and a comparison of numbers that does not look away.
- `quantbench.core.clock`: What time it is, when a market is open, and when the next step is due: the only reader of wall time.
- `quantbench.core.types`: The nouns of the whole workbench, and the rules that keep a measurement from posing as money.
- `quantbench.core.value`: Exact numbers, times with a zone, and frozen values that check their own fields.
- `quantbench.data.schema`: The contract of every table: columns, units, keys, and the two times each fact carries."""

__version__ = "0.1.0"
