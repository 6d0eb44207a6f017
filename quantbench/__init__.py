"""A Jupyter-first workbench for systematic trading research, with a promotion path to paper and live

Modules:

- `quantbench.core.check`: Refusals a person can act on, and a comparison of numbers that does not look away.
- `quantbench.data.schema`: The contract of every table: columns, units, keys, and the two times each fact carries."""

__version__ = "0.1.0"
