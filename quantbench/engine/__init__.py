"""One engine: the same step for research, paper and live."""
