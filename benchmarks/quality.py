"""A quality report of 600,000 daily bars of 503 names, and its costliest step against pandas doing the same.

python benchmarks/quality.py
"""

from __future__ import annotations

import datetime as dt
import statistics
import time

import numpy as np
import pandas as pd
import pyarrow as pa

from quantbench.data.defects import robust
from quantbench.data.quality import report
from quantbench.data.schema import SCHEMAS, conform

ASSETS, DAYS, ROUNDS = 503, 1_200, 5


def bars() -> pa.Table:
    rng = np.random.default_rng(1)
    ends = np.busday_offset("2018-01-02", np.arange(DAYS), roll="forward").astype("datetime64[us]")
    times = pa.array(np.tile(ends + np.timedelta64(21, "h"), ASSETS)).cast(pa.timestamp("us", "UTC"))
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.012, (ASSETS, DAYS)), axis=1)).ravel()
    words = {"interval": "1d", "price_type": "trade", "adjustment": "raw", "source": "benchmark"}
    columns = {
        "asset": np.repeat([f"S{a:03}" for a in range(ASSETS)], DAYS),
        "open": closes,
        "high": closes * 1.01,
        "low": closes * 0.99,
        "close": closes,
        "volume": rng.integers(1_000, 9_000, ASSETS * DAYS).astype(float),
        "event_time": times,
        "known_time": times,
    }
    constant = {name: [text] * len(closes) for name, text in words.items()}
    return conform(pa.table({**columns, **constant}), SCHEMAS["bars"], where="benchmark")


def timed(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    rows, series = bars(), np.repeat(np.arange(ASSETS), DAYS)
    returns = np.random.default_rng(2).standard_t(3, ASSETS * DAYS)

    def by_pandas() -> pd.Series[float]:
        values = pd.Series(returns)
        away = values - values.groupby(series).transform("median")
        return away / (1.4826 * away.abs().groupby(series).transform("median"))

    assert np.allclose(by_pandas(), robust(returns, series, ASSETS), rtol=1e-12)
    whole, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        ours.append(timed(lambda: robust(returns, series, ASSETS)))
        theirs.append(timed(by_pandas))
        whole.append(timed(lambda: report({"bars": rows}, as_of=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))))
    print(f"report of {rows.num_rows:,} bars of {ASSETS} names: {statistics.median(whole):.2f} s")
    print(f"robust deviations, pandas over ours: {statistics.median(theirs) / statistics.median(ours):.2f}")


if __name__ == "__main__":
    main()
