"""Build quantbench/sample/ from the files it was taken from.

    python tools/build_sample.py /folder/with/the/files

Deterministic: the same files give the same bytes. Each dataset is brought into its table's schema (times, units, one row
for each fact), then packed: columns that say the same in every row go into the manifest, prices become whole numbers
of their smallest step, and what was packed is unpacked again and compared, bit for bit. Rows that break a rule of the
schema stay in: they are what the source says, and an import sets them aside.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from quantbench.core.clock import Calendar
from quantbench.data.schema import NUMBER, TIME, schema
from quantbench.data.snapshot import canonical
from quantbench.data.sources import unpacked

OUT = Path(__file__).resolve().parent.parent / "quantbench" / "sample"
NEW_YORK = "America/New_York"
LEAN = "QuantConnect/Lean sample data, commit 24863901"
APACHE, MIT, PUBLIC = "Apache-2.0", "MIT", "public domain (PDDL)"
XNYS = Calendar("XNYS")


@dataclass
class Sample:
    """A dataset before it is packed."""

    name: str
    table: str
    frame: pd.DataFrame
    origin: str
    licence: str
    known: str
    note: str = ""
    lag: timedelta | None = None  # known_time = event_time + lag; None if the frame has it
    constants: dict[str, Any] = field(default_factory=dict)


def closes(days: pd.Series) -> pd.Series:
    """The close of each day's XNYS session; 16:00 in New York on a day without one."""
    sessions = XNYS.sessions(days.min().date(), days.max().date())
    _, ends = XNYS.hours(days.min().date(), days.max().date())
    known = pd.Series(pd.DatetimeIndex(ends).tz_localize("UTC"), index=pd.DatetimeIndex(sessions))
    found = days.map(known)
    return found.fillna(at(days, "16:00"))


def at(days: pd.Series, hour: str) -> pd.Series:
    """A local time of each day in New York, as UTC."""
    return (pd.to_datetime(days) + pd.Timedelta(f"{hour}:00")).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")


def melted(frame: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    long = frame.melt(id_vars=keys, var_name=column, value_name="value").dropna(subset=["value"])
    return long.reset_index(drop=True)


def sp500_bars(root: Path) -> Sample:
    d = pd.read_parquet(root / "sp500_daily_2012_2017.parquet")
    frame = d.rename(columns={"symbol": "asset"}).assign(
        event_time=closes(d["date"]), interval="1d", price_type="trade", adjustment="split"
    )
    return Sample(
        "sp500-bars",
        "bars",
        frame,
        "CNuge/kaggle-code, commit 9941dfeb",
        MIT,
        "15 minutes after the session's close",
        "Members of August 2017 only: names that left or were delisted before are missing, so results are biased upward. "
        "Adjusted for splits, not for dividends. 384 bars have no open; some contradict themselves (open above high).",
        timedelta(minutes=15),
    )


def etfs(root: Path) -> Sample:
    d = melted(pd.read_parquet(root / "etf23_close_2008_2016.parquet"), ["date"], "asset")
    frame = d.rename(columns={"value": "close"}).assign(
        event_time=closes(d["date"]), interval="1d", price_type="trade", adjustment="split"
    )
    return Sample(
        "etf-bars",
        "bars",
        frame,
        "mlfinpy 0.1.2",
        MIT,
        "15 minutes after the session's close",
        "23 funds, closes only, without dividends.",
        timedelta(minutes=15),
    )


def vix(root: Path) -> Sample:
    d = pd.read_parquet(root / "vix_daily.parquet")
    frame = d.assign(
        asset="VIX",
        event_time=closes(d["date"]) + pd.Timedelta("15min"),
        interval="1d",
        price_type="trade",
        adjustment="raw",
    )
    return Sample(
        "vix-bars",
        "bars",
        frame,
        "datasets/finance-vix",
        PUBLIC,
        "15 minutes after the index's close",
        "Before 1992 all four prices are the close; one open (2.58) is a slip of the source.",
        timedelta(minutes=15),
    )


def oil(root: Path) -> Sample:
    d = melted(pd.read_parquet(root / "oil_wti_brent_daily.parquet"), ["date"], "asset")
    frame = d.assign(
        asset=d["asset"].str.upper(),
        event_time=at(d["date"], "16:00"),
        field="spot_price",
        unit="USD per barrel",
    )
    return Sample(
        "oil-prices",
        "observations",
        frame,
        "datasets/oil-prices (EIA)",
        PUBLIC,
        "7 days later: the EIA publishes weekly",
        "WTI was -36.98 on 2020-04-20: no logarithms. The two are cointegrated until about 2010.",
        timedelta(days=7),
    )


def tickers(root: Path) -> pd.DataFrame:
    """Which asset wore which ticker from which day to which, both included."""
    m = pd.read_csv(root / "lean_map_files.csv", parse_dates=["date"], keep_default_na=False)
    rows = []
    for asset, part in m.groupby("permtick", sort=True):
        days, names, venues = (
            part["date"].tolist(),
            part["ticker"].str.upper().tolist(),
            part["exchange"].tolist(),
        )
        start = days[0]
        for day, name, venue in zip(days[1:], names[1:], venues[1:], strict=True):
            rows.append((asset, name, venue, start, day))
            start = day + pd.Timedelta(days=1)
    return pd.DataFrame(rows, columns=["asset", "ticker", "venue", "first", "last"])


def assets(root: Path, symbol: pd.Series, day: pd.Series) -> pd.Series:
    """The asset that wore the ticker on the day; `TICKER.0` is an earlier wearer than any the maps know."""
    spells, found = tickers(root), pd.Series(pd.NA, index=symbol.index, dtype="object")
    text = symbol.astype(str)
    for s in spells.itertuples():
        found[(text == s.ticker) & day.between(s.first, s.last)] = s.asset
    first = text.map(spells.groupby("ticker")["first"].min())
    return found.fillna(text.where(~(day < first), text + ".0"))


def lean_bars(root: Path) -> Sample:
    d = pd.read_parquet(root / "lean_equity_daily_raw.parquet")
    frame = d.assign(
        asset=assets(root, d["symbol"], d["date"]),
        event_time=closes(d["date"]),
        interval="1d",
        price_type="trade",
        adjustment="raw",
    )
    return Sample(
        "raw-bars",
        "bars",
        frame,
        LEAN,
        APACHE,
        "15 minutes after the session's close",
        "Prices as traded: use corporate-actions with them. An asset ending in .0 wore the ticker before the one the map "
        "knows (FB before 2012).",
        timedelta(minutes=15),
    )


def check_references(factors: pd.DataFrame, bars: pd.DataFrame) -> None:
    """The price a factor refers to is the close of its day, but for the marker in the first row of each asset."""
    rest = factors[factors.duplicated("symbol")].merge(
        bars, left_on=["symbol", "date"], right_on=["asset", "date"]
    )
    assert len(rest) > 600 and np.allclose(rest["reference_price"], rest["close"], rtol=0.005)


def split_ratio(ratio: float) -> float:
    """The ratio of small numbers the factors mean; their digits give three or four of its own."""
    near = float(Fraction(ratio).limit_denominator(20))
    return near if math.isclose(near, ratio, rel_tol=5e-4) else round(ratio, 6)


def actions(root: Path) -> Sample:
    f = pd.read_csv(root / "lean_factor_files.csv", parse_dates=["date"], keep_default_na=False)
    f = f[f["symbol"].isin(set(lean_bars(root).frame["asset"]) | set(minute(root).frame["asset"]))]
    check_references(f, lean_bars(root).frame)
    rows = []
    for asset, part in f.groupby("symbol", sort=True):
        old = part.iloc[:-1].reset_index(drop=True)
        new = part.iloc[1:].reset_index(drop=True)
        for o, n in zip(old.itertuples(), new.itertuples(), strict=True):
            ex = XNYS.next_session(o.date.date())
            ratio, paid = (
                n.split_factor / o.split_factor,
                o.reference_price * (1 - o.price_factor / n.price_factor),
            )
            if not math.isclose(ratio, 1, rel_tol=1e-4):
                rows.append((asset, "split", split_ratio(ratio), None, None, ex))
            if paid > o.reference_price * 2e-6:
                rows.append((asset, "dividend", None, round(paid, 3), "USD", ex))
    frame = pd.DataFrame(rows, columns=["asset", "kind", "ratio", "amount", "currency", "ex"])
    return Sample(
        "corporate-actions",
        "corporate_actions",
        frame.assign(event_time=at(frame["ex"], "00:00")),
        LEAN,
        APACHE,
        "at the start of the ex-date; announcements came earlier, the source does not say when",
        "Read from factor files: amounts to about a tenth of a cent, and a spin-off shows as the dividend it was worth.",
        timedelta(0),
    )


def symbols(root: Path) -> Sample:
    rows = []
    for asset, part in tickers(root).groupby("asset", sort=True):
        last = None
        for s in part.itertuples():
            if (s.ticker, s.venue) != last and s.last >= s.first:
                rows.append((asset, s.ticker, s.venue or None, s.first))
                last = (s.ticker, s.venue)
        end = part["last"].max()
        if end.year < 2050:
            rows.append((asset, None, None, end + pd.Timedelta(days=1)))
    frame = pd.DataFrame(rows, columns=["asset", "ticker", "venue", "day"])
    return Sample(
        "symbols",
        "symbols",
        frame.assign(event_time=at(frame["day"], "00:00")),
        LEAN,
        APACHE,
        "at the start of the first day",
        "Renames and reuse: GOOG was GOOGL's ticker until 2014-04-02.",
        timedelta(0),
    )


def membership(root: Path) -> Sample:
    spells = pd.read_csv(root / "sp500_membership.csv", keep_default_na=False)
    later = pd.read_csv(root / "sp500_changes_2019_2025.csv", keep_default_na=False)
    rows = [(t, d, True) for t, d in zip(spells["ticker"], spells["start_date"], strict=True)]
    rows += [(t, d, False) for t, d in zip(spells["ticker"], spells["end_date"], strict=True) if d]
    known_until = max(d for _, d, _ in rows)
    for change in later[later["date"] > known_until].itertuples():
        rows += [(t, change.date, True) for t in change.add.split(",") if t]
        rows += [(t, change.date, False) for t in change.remove.split(",") if t]
    frame = pd.DataFrame(rows, columns=["asset", "day", "member"])
    frame = frame.assign(event_time=at(frame["day"], "00:00"), universe="S&P 500")
    return Sample(
        "sp500-membership",
        "membership",
        frame,
        "fja05680/sp500, commit 58490ec",
        MIT,
        "at the start of the day it took effect; announcements came some days earlier",
        "Assets are tickers of their day; a rename is an exit and an entry. Spells before 1996 begin in 1996.",
        timedelta(0),
    )


def attributes(root: Path) -> Sample:
    d = pd.read_csv(root / "sp500_constituents_2025-11.csv", dtype=str, keep_default_na=False)
    names = {
        "Symbol": "asset",
        "Security": "name",
        "GICS Sector": "sector",
        "GICS Sub-Industry": "industry",
        "CIK": "cik",
    }
    frame = melted(d.rename(columns=names)[list(names.values())], ["asset"], "field").rename(
        columns={"value": "text"}
    )
    frame["event_time"] = pd.Timestamp("2025-12-01", tz="UTC")
    return Sample(
        "sp500-attributes",
        "attributes",
        frame,
        "fja05680/sp500, commit 58490ec",
        MIT,
        "2025-12-01: the list is of November 2025",
        "Sectors of today, not of the past.",
        timedelta(0),
    )


UNITS = {
    "price": "USD",
    "eps": "USD",
    "book_value": "USD",
    "low_52w": "USD",
    "high_52w": "USD",
    "pe": "ratio",
    "pb": "ratio",
    "ps": "ratio",
}


def fundamentals(root: Path) -> Sample:
    d = pd.read_parquet(root / "sp500_fundamentals_vintages.parquet")
    year, metric = d["available_at"].dt.year, d["metric"].astype(str)
    large, yields = metric.isin(["market_cap", "ebitda"]), metric == "dividend_yield"
    unit = metric.map(UNITS)
    unit = unit.mask(large, np.where(year <= 2017, "USD bn", "USD")).mask(
        yields, np.where(year <= 2018, "percent", "fraction")
    )
    swapped = (year == 2018) & metric.isin(["low_52w", "high_52w"])
    metric = metric.mask(swapped, metric.map({"low_52w": "high_52w", "high_52w": "low_52w"}))
    frame = d.assign(asset=d["symbol"], metric=metric, unit=unit, event_time=d["available_at"])
    return Sample(
        "sp500-fundamentals",
        "fundamentals",
        frame,
        "datasets/s-and-p-500-companies-financials, git history",
        PUBLIC,
        "when the snapshot was published; the source does not say which period a figure is of, so event_time is the same",
        "Units change between vintages and stand in each row: USD bn until 2017, USD from 2018; percent until 2018, a fraction "
        "from 2024. The 52-week low and high, exchanged in the snapshot of 2018-02, are put right here. Some ratios are "
        "infinite. Nothing from 2018-02 to 2024-10. A figure is listed when it changes.",
        timedelta(0),
    )


def gdp(root: Path) -> Sample:
    d = pd.read_parquet(root / "gdp_vintages.parquet")
    frame = d.assign(
        asset=d["region"],
        field="gdp",
        unit="national currency",
        event_time=(d["period"] + pd.DateOffset(months=3)).dt.tz_localize("UTC"),
        known_time=(d["available_at"] + pd.DateOffset(months=3)).dt.tz_localize("UTC"),
    )
    return Sample(
        "gdp-vintages",
        "observations",
        frame,
        "p-wegmueller/reviser (OECD, FRED, SECO, Eurostat)",
        MIT,
        "at the end of the quarter the vintage is dated to: the release day is not known",
        "Revisions include changes of the base year, which move all periods at once.",
    )


def rates(root: Path) -> Sample:
    d = pd.read_csv(root / "usa_interest_rate.csv")
    frame = d.assign(
        asset="US",
        field="primary_credit_rate",
        value=d["PCREDIT8"],
        unit="percent",
        event_time=at(d["DATE"], "00:00"),
    )
    return Sample(
        "interest-rates",
        "observations",
        frame,
        f"{LEAN} (FRED)",
        APACHE,
        "one day later",
        "Changes only.",
        timedelta(days=1),
    )


def funding(root: Path) -> Sample:
    d = pd.read_csv(root / "lean_perp_funding.csv")
    frame = d.assign(
        asset=d["symbol"],
        dataset=d["venue"],
        field="funding_rate",
        value=d["funding_rate"],
        unit="fraction per 8 h",
        event_time=pd.to_datetime(d["ts"]).dt.tz_localize("UTC"),
    )
    return Sample(
        "perp-funding", "alternative", frame, LEAN, APACHE, "when it was paid", "A few days.", timedelta(0)
    )


def minute(root: Path) -> Sample:
    t = pd.read_parquet(root / "lean_equity_minute_trades.parquet").assign(price_type="trade")
    q = pd.read_parquet(root / "lean_equity_minute_quotes.parquet")
    prices = ["open", "high", "low", "close"]
    sides = [
        q.rename(columns={f"{s}_{p}": p for p in prices})[["symbol", "ts", *prices]]
        .assign(price_type=s)
        .dropna(subset=["close"])
        for s in ("bid", "ask")
    ]
    d = pd.concat([t.astype({"symbol": str}), *(s.astype({"symbol": str}) for s in sides)], ignore_index=True)
    frame = d.assign(
        asset=assets(root, d["symbol"], d["ts"].dt.tz_localize(None).dt.normalize()),
        event_time=d["ts"].dt.tz_convert("UTC") + pd.Timedelta("1min"),
        interval="1m",
        adjustment="raw",
    )
    return Sample(
        "equity-minutes",
        "bars",
        frame,
        LEAN,
        APACHE,
        "1 second after the minute",
        "Trades, bids and asks, before and after hours included; minutes without an update are absent. AAPL before and after "
        "its split of 2014-06-09.",
        timedelta(seconds=1),
    )


def ticks(root: Path) -> list[Sample]:
    day, found = "2013-10-07", []
    for name, table, rename in (
        ("ibm-trades", "trades", {"cond": "conditions", "exch": "venue"}),
        ("ibm-quotes", "quotes", {"exch": "venue"}),
    ):
        d = pd.read_parquet(root / f"lean_ibm_{table[:-1]}_ticks_2013-10.parquet").rename(columns=rename)
        d = d[d["ts"].dt.strftime("%Y-%m-%d") == day].reset_index(drop=True)
        frame = d.assign(
            asset="IBM",
            event_time=d["ts"].dt.tz_convert("UTC"),
            sequence=np.arange(len(d)),
            aggressor="unknown",
        )
        if table == "trades":
            frame["conditions"] = d["conditions"].astype(str) + d["suspicious"].map({0: "", 1: " suspicious"})
            note = "Odd lots (bit 0x20000000 of the condition) count in volume, not in open, high, low and close."
        else:
            for side in ("bid", "ask"):
                absent = d[side] == 0
                frame[side], frame[f"{side}_size"] = d[side].mask(absent), d[f"{side}_size"].mask(absent)
            note = "A quote updates one side; the other is empty."
        found.append(
            Sample(
                name, table, frame, LEAN, APACHE, "when it happened: consolidated tape", note, timedelta(0)
            )
        )
    return found


def crypto(root: Path) -> list[Sample]:
    same = {"price_type": "trade", "adjustment": "raw"}
    d = pd.read_parquet(root / "lean_btcusd_coinbase_daily.parquet")
    daily = d.assign(
        asset="BTCUSD", event_time=d["date"].dt.tz_localize("UTC") + pd.Timedelta("1D"), interval="1d", **same
    )
    m = pd.read_parquet(root / "lean_crypto_coinbase_minute.parquet")
    minutes = m.assign(asset=m["symbol"], event_time=m["ts"] + pd.Timedelta("1min"), interval="1m", **same)
    known, note = (
        "1 second after the interval",
        "Coinbase; UTC days. Thin at first, and minutes without a trade are absent.",
    )
    lag = timedelta(seconds=1)
    return [
        Sample("crypto-days", "bars", daily, LEAN, APACHE, known, note, lag),
        Sample("crypto-minutes", "bars", minutes, LEAN, APACHE, known, note, lag),
    ]


def eurusd(root: Path) -> Sample:
    d = pd.read_parquet(root / "lean_eurusd_oanda_hourly.parquet")
    prices = ["open", "high", "low", "close"]
    sides = [
        d.rename(columns={f"{s}_{p}": p for p in prices})[["ts", *prices]].assign(price_type=s)
        for s in ("bid", "ask")
    ]
    both = pd.concat(sides, ignore_index=True)
    frame = both.assign(
        asset="EURUSD", event_time=both["ts"] + pd.Timedelta("1h"), interval="1h", adjustment="raw"
    )
    return Sample(
        "eurusd-hours",
        "bars",
        frame,
        f"{LEAN} (OANDA)",
        APACHE,
        "1 second after the hour",
        "Two sides.",
        timedelta(seconds=1),
    )


def options(root: Path) -> Sample:
    d = pd.read_parquet(root / "lean_aapl_options_daily_2014.parquet")
    last = d["expiry"].map(
        {x: XNYS.previous_session((x + pd.Timedelta(days=1)).date()) for x in d["expiry"].unique()}
    )
    frame = d.assign(
        asset="AAPL",
        event_time=closes(d["date"]),
        expiry=closes(pd.to_datetime(last)),
        bid=d["bid_close"],
        ask=d["ask_close"],
    )
    for side in ("bid", "ask"):
        frame[f"{side}_size"] = d[f"{side}_size"].mask(frame[side].isna())
    return Sample(
        "aapl-options",
        "options",
        frame,
        LEAN,
        APACHE,
        "15 minutes after the session's close",
        "2014-06-06, before the split of seven for one, and 2014-06-09, after it: strikes change with it. Trading ends with "
        "the last session at or before the listed expiry, which was a Saturday then.",
        timedelta(minutes=15),
    )


BEHIND = pd.Timedelta(
    "1277ms"
)  # by how much the recorder's clock is slow; the fastest message arrived 1276.67 ms "before" it was sent


def binance(root: Path) -> list[Sample]:
    book: list[tuple[Any, ...]] = []
    quotes: list[tuple[Any, ...]] = []
    trades: list[tuple[Any, ...]] = []
    with gzip.open(root / "binance_spot_btcusdt_20240809.jsonl.gz", "rt") as lines:
        for number, line in enumerate(lines):
            local, text = line.split(" ", 1)
            seen, message = int(local) // 1000 + BEHIND.value // 1000, json.loads(text)
            kind, data = message.get("stream", ""), message.get("data", message)
            if kind.endswith("@trade"):
                side = "sell" if data["m"] else "buy"
                trades.append((data["T"] * 1000, seen, data["t"], float(data["p"]), float(data["q"]), side))
            elif kind.endswith("@bookTicker"):
                quotes.append((seen, seen, data["u"], *(float(data[k]) for k in "bBaA")))
            elif "@depth" in kind:
                sides = [("bid", x) for x in data["b"]] + [("ask", x) for x in data["a"]]
                for i, (side, (price, size)) in enumerate(sides):
                    book.append(
                        (data["E"] * 1000, seen, number * 10_000 + i, side, float(price), float(size))
                    )
    found, known = [], f"when it was received, by a clock {BEHIND.total_seconds()} s behind, put right"
    for name, table, rows, columns in (
        ("btcusdt-book", "book", book, ["sequence", "side", "price", "size"]),
        ("btcusdt-quotes", "quotes", quotes, ["sequence", "bid", "bid_size", "ask", "ask_size"]),
        ("btcusdt-trades", "trades", trades, ["sequence", "price", "size", "aggressor"]),
    ):
        frame = pd.DataFrame(rows, columns=["event_time", "known_time", *columns])
        assert (frame["known_time"] >= frame["event_time"]).all(), (
            "the clock was further behind than BEHIND says"
        )
        for time in ("event_time", "known_time"):
            frame[time] = pd.to_datetime(frame[time], unit="us", utc=True)
        note = "Quotes carry no exchange time: event_time is the time of receipt."
        if table == "book":
            frame["action"], frame["snapshot"] = "set", False
            note = "Five minutes of updates without a snapshot at the start: the book is known only where it was updated."
        frame["asset"] = "BTCUSDT"
        found.append(Sample(name, table, frame, "nkaz001/hftbacktest examples", MIT, known, note))
    return found


def rows_of(sample: Sample) -> pa.Table:
    """The frame with exactly the columns and types of its schema."""
    contract, frame = schema(sample.table), sample.frame.assign(source=sample.name)
    if sample.lag is not None:
        frame["known_time"] = frame["event_time"] + sample.lag
    columns = []
    for c in contract.columns:
        if c.name == "revision" and "revision" not in frame:
            columns.append(pa.array(np.zeros(len(frame), np.int32)))
        elif c.name not in frame:
            columns.append(pa.nulls(len(frame), c.type))
        else:
            values = frame[c.name]
            if c.type == TIME:
                values = values.dt.as_unit("us")
            elif isinstance(values.dtype, pd.CategoricalDtype):
                values = values.astype(object)
            columns.append(pa.Array.from_pandas(values).cast(c.type))
    return canonical(pa.table(columns, contract.arrow), contract)


def whole_numbers(values: np.ndarray) -> int | None:
    """The smallest power of ten that makes all values whole, if dividing by it gives them back exactly."""
    finite = values[~np.isnan(values)]
    if not np.isfinite(finite).all():
        return None
    for scale in (1, 10, 100, 1000, 10**4, 10**5, 10**6, 10**8):
        scaled = np.round(finite * scale)
        if np.abs(scaled).max(initial=0) < 2**53 and (scaled / scale == finite).all():
            return scale
    return None


def packed(sample: Sample, rows: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """What is stored, and how to read it."""
    how: dict[str, Any] = {"constants": {}, "scale": {}}
    if sample.lag is not None:
        how["lag_us"] = sample.lag // timedelta(microseconds=1)
        rows = rows.drop_columns(["known_time"])
    kept: dict[str, Any] = {}
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        if column.null_count == len(column):
            continue
        if name != "event_time" and column.null_count == 0 and len(column.unique()) == 1:
            how["constants"][name] = column[0].as_py()
        elif column.type == NUMBER:
            values = column.to_numpy(zero_copy_only=False)
            scale = whole_numbers(values)
            if scale:
                how["scale"][name] = scale
                whole = np.round(np.nan_to_num(values) * scale).astype(np.int64)
                kept[name] = pa.array(whole, mask=np.isnan(values))
            else:
                single = values.astype(np.float32).astype(np.float64)
                kept[name] = (
                    column.cast(pa.float32()) if np.array_equal(single, values, equal_nan=True) else column
                )
        else:
            kept[name] = column
    return pa.table(kept), how


def write(sample: Sample) -> dict[str, Any]:
    rows = rows_of(sample)
    table, how = packed(sample, rows)
    path = OUT / f"{sample.name}.parquet"
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=2**18,
        store_schema=False,
        use_dictionary=[n for n in table.column_names if n not in integers],
        write_statistics=False,
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        data_page_size=2**18,
    )
    again = unpacked(pq.read_table(path), sample.table, how)
    assert again.equals(rows), f"{sample.name} does not survive packing"
    times = rows["event_time"].to_pandas()
    return {
        "name": sample.name,
        "table": sample.table,
        "rows": rows.num_rows,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "span": f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
        "origin": sample.origin,
        "licence": sample.licence,
        "known": sample.known,
        "note": sample.note,
        **how,
    }


def toml(entries: list[dict[str, Any]]) -> str:
    lines = ["# Written by tools/build_sample.py."]
    for entry in entries:
        lines.append("\n[[dataset]]")
        for key, value in entry.items():
            text = (
                "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
                if isinstance(value, dict)
                else json.dumps(value)
            )
            lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


HEAD = """# The bundled sample

Real market data for examples and tests, built by `tools/build_sample.py`; read it with `quantbench.data.sources.SampleSource`.
Files are packed (`manifest.toml` says how) and checked against their SHA-256 when read. Values are the sources'; only
formats, times and units were made explicit. Rows that contradict themselves were left in and are set aside on import.

**Survivorship.** `sp500-bars` holds the members of August 2017. Companies that left the index or were delisted before are
missing; a strategy tested on it looks better than it was. `sp500-membership` says who was a member when. There is no
index level: `SPY` stands for it.

Licences: MIT and Apache-2.0 texts are those of the named projects; market prices are facts, collected by them.
"""


def readme(entries: list[dict[str, Any]]) -> str:
    lines = [HEAD, "| dataset | table | rows | span | source | licence |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {e['name']} | {e['table']} | {e['rows']:,} | {e['span']} | {e['origin']} | {e['licence']} |"
        for e in entries
    ]
    for e in entries:
        lines.append(f"\n**{e['name']}.** Known {e['known']}. {e['note']}")
    return "\n".join(lines) + "\n"


def main(root: Path) -> None:
    OUT.mkdir(exist_ok=True)
    single = [
        sp500_bars,
        membership,
        attributes,
        fundamentals,
        lean_bars,
        actions,
        symbols,
        etfs,
        vix,
        oil,
        gdp,
        rates,
        funding,
    ]
    samples = [build(root) for build in (*single, minute, eurusd, options)]
    samples += [s for build in (ticks, crypto, binance) for s in build(root)]
    entries = []
    for sample in sorted(samples, key=lambda s: s.name):
        entries.append(write(sample))
        print(
            f"{sample.name:20} {entries[-1]['rows']:>9,} rows {(OUT / f'{sample.name}.parquet').stat().st_size:>10,} bytes"
        )
    (OUT / "manifest.toml").write_text(toml(entries), encoding="utf-8")
    (OUT / "README.md").write_text(readme(entries), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
