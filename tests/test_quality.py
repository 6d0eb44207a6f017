"""A planted defect is found, wherever it is planted, and nothing else is; the report of it is safe to open."""

from __future__ import annotations

import datetime as dt
import io
import re
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import Calendar
from quantbench.data.defects import KINDS, Finding, Limits, find, panel
from quantbench.data.quality import QualityReport, attendance, report
from quantbench.data.schema import SCHEMAS, conform

AS_OF = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
ASSETS, DAYS = 25, 300
PRICES = ("open", "high", "low", "close")
EXAMPLES = settings(derandomize=True, max_examples=60, deadline=None)


def times(values):
    return pa.array(np.asarray(values, "datetime64[us]")).cast(pa.timestamp("us", "UTC"))


def made(name, columns, **constant):
    size = len(next(iter(columns.values())))
    return conform(
        pa.table({**columns, **{k: [v] * size for k, v in constant.items()}}), SCHEMAS[name], where="test"
    )


@cache
def market(seed=1, ends=None):
    """Clean daily bars of 25 names, two of which leave early."""
    rng = np.random.default_rng(seed)
    if ends is None:
        sessions = np.busday_offset("2021-01-04", np.arange(DAYS), roll="forward")
        ends = tuple(sessions.astype("datetime64[us]") + np.timedelta64(21, "h"))
    days = len(ends)
    closes = 40 * np.exp(np.cumsum(rng.normal(0, 0.012, (ASSETS, days)), axis=1))
    opens = closes * np.exp(rng.normal(0, 0.004, closes.shape))
    kept = np.concatenate(
        [np.arange(a * days, (a + 1) * days - {3: 80, 9: 70}.get(a, 0)) for a in range(ASSETS)]
    )
    stamps = times(np.tile(np.array(ends), ASSETS)[kept])
    columns = {
        "asset": np.repeat([f"S{a:02}" for a in range(ASSETS)], days)[kept],
        "open": opens.ravel()[kept],
        "high": np.maximum(opens, closes).ravel()[kept] * 1.002,
        "low": np.minimum(opens, closes).ravel()[kept] * 0.998,
        "close": closes.ravel()[kept],
        "volume": rng.integers(1_000, 9_000, len(kept)).astype(float),
        "event_time": stamps,
        "known_time": stamps,
    }
    return made("bars", columns, interval="1d", price_type="trade", adjustment="raw", source="test")


def put(rows, names, spot, change):
    for name in names:
        values = rows[name].to_numpy().copy()
        values[spot] = change(values[spot])
        column = pa.array(values, from_pandas=True).cast(rows.schema.field(name).type)
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
    return rows


def rows_of(bars, asset):
    return np.flatnonzero(np.array(bars["asset"].to_pylist(), object) == asset)


def plant(kind, bars, asset, at):
    """The bars with one defect in a name, `at` rows after its first."""
    own = rows_of(bars, asset)
    here, rest = own[at], slice(own[at], own[-1] + 1)
    match kind:
        case "split":
            return put(bars, PRICES, rest, lambda x: x / 3)
        case "outlier":
            return put(bars, PRICES, rest, lambda x: x * 1.35)
        case "spike":
            return put(bars, PRICES, slice(here, here + 1), lambda x: x * 1.5)
        case "gap":
            return bars.filter(pa.array(np.arange(bars.num_rows) != here))
        case "extra":
            friday = bars.slice(here, 1)
            while friday["event_time"][0].as_py().weekday() != 4:
                here += 1
                friday = bars.slice(here, 1)
            shift = put(
                friday, ("event_time", "known_time"), slice(None), lambda t: t + np.timedelta64(1, "D")
            )
            return pa.concat_tables([bars, shift])
        case "stale":
            return put(bars, (*PRICES, "volume"), slice(here, here + 5), lambda x: x[0])
        case "reuse":
            return put(bars, ("event_time", "known_time"), rest, lambda t: t + np.timedelta64(57 * 7, "D"))
        case "empty":
            return put(bars, ("volume",), slice(here, here + 1), lambda _: np.nan)
    raise AssertionError(kind)


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_clean_market_has_no_findings(seed):
    assert report({"bars": market(seed)}, as_of=AS_OF).found == ()


@EXAMPLES
@given(
    kind=st.sampled_from(["split", "outlier", "spike", "gap", "extra", "stale", "reuse", "empty"]),
    seed=st.integers(1, 4),
    number=st.integers(0, ASSETS - 1),
    at=st.integers(35, DAYS - 100),
)
def test_one_planted_defect_is_found_and_nothing_else(kind, seed, number, at):
    asset = f"S{number:02}"
    spoiled = plant(kind, market(seed), asset, at)
    found = report({"bars": spoiled}, as_of=AS_OF).found
    assert [(f.kind, f.asset) for f in found] == [(kind, asset)]
    assert found[0].count == (5 if kind == "stale" else 1)
    if kind in ("split", "outlier", "spike", "empty"):
        own = rows_of(spoiled, asset)
        assert found[0].when == spoiled["event_time"][int(own[at])].as_py()


@EXAMPLES
@given(gone=st.sets(st.integers(0, ASSETS * DAYS - 151), max_size=40), seed=st.integers(1, 4))
def test_missing_sessions_are_counted_as_a_naive_twin_counts_them(gone, seed):
    kept = market(seed).filter(pa.array(~np.isin(np.arange(ASSETS * DAYS - 150), list(gone))))
    found = {f.asset: f.count for f in report({"bars": kept}, as_of=AS_OF).found if f.kind == "gap"}
    have = {}
    for asset, when in zip(kept["asset"].to_pylist(), kept["event_time"].to_pylist(), strict=True):
        have.setdefault(asset, set()).add(when)
    every = set().union(*have.values())
    twin = {a: len({d for d in every if min(own) < d < max(own)} - own) for a, own in have.items()}
    assert found == {a: n for a, n in twin.items() if n}


def test_a_recorded_split_is_no_defect_and_a_recorded_one_in_adjusted_prices_is():
    bars = plant("split", market(), "S04", 150)
    day = bars["event_time"][int(rows_of(bars, "S04")[150])].as_py().replace(hour=0)
    action = made(
        "corporate_actions",
        {"asset": ["S04"], "event_time": times([day.replace(tzinfo=None)]), "known_time": times([day.replace(tzinfo=None)])},
        kind="split", ratio=3.0, amount=None, currency=None, source="test",
    )  # fmt: skip
    assert report({"bars": bars, "corporate_actions": action}, as_of=AS_OF).found == ()
    position = bars.column_names.index("adjustment")
    field = bars.schema.field("adjustment")
    adjusted = bars.set_column(position, field, pa.array(["split"] * bars.num_rows))
    found = report({"bars": adjusted, "corporate_actions": action}, as_of=AS_OF).found
    assert [f.kind for f in found] == ["split"]


def test_a_day_that_nobody_has_is_seen_by_a_calendar_alone():
    sessions = Calendar("XNYS").sessions(dt.date(2022, 6, 1), dt.date(2023, 12, 29))
    _, closes = Calendar("XNYS").hours(dt.date(2022, 6, 1), dt.date(2023, 12, 29))
    usual = tuple(
        np.where(closes - sessions < np.timedelta64(20, "h"), closes + np.timedelta64(3, "h"), closes)
    )
    bars = market(2, usual)  # half days are stamped with the usual hour
    assert report({"bars": bars}, as_of=AS_OF, calendar=Calendar("XNYS")).found == ()
    stamps = bars["event_time"].to_numpy()
    lost = bars.filter(pa.array(stamps != usual[100]))
    assert report({"bars": lost}, as_of=AS_OF).found == ()
    (one,) = report({"bars": lost}, as_of=AS_OF, calendar=Calendar("XNYS")).found
    assert (one.kind, one.asset, one.count) == ("gap", "", 1)
    assert str(sessions[100]) in one.detail


def test_bars_on_a_holiday_and_a_calendar_for_each_asset():
    sessions, ends = Calendar("XNYS").hours(dt.date(2022, 6, 1), dt.date(2023, 9, 29))
    bars = market(3, tuple(ends))
    fourth = put(
        bars.slice(20, 1),
        ("event_time", "known_time"),
        slice(None),
        lambda _: np.datetime64("2022-07-04T20:00"),
    )
    spoiled = pa.concat_tables([bars, fourth])
    (one,) = report({"bars": spoiled}, as_of=AS_OF, calendar=Calendar("XNYS")).found
    assert (one.kind, one.asset, one.when.date(), one.code) == (
        "extra",
        "S00",
        dt.date(2022, 7, 4),
        "QB-DATA-025",
    )
    for_most = {f"S{a:02}": Calendar("XNYS") for a in range(1, ASSETS)}
    assert report({"bars": spoiled}, as_of=AS_OF, calendar=for_most).found == ()
    assert len(sessions) == len(ends)


def test_minutes_missing_inside_a_session_are_a_hole_and_the_night_is_not():
    opens, closes = Calendar("XNYS").hours(dt.date(2024, 3, 4), dt.date(2024, 3, 15))
    ends = np.concatenate([np.arange(o + np.timedelta64(1, "m"), c + np.timedelta64(1, "m"), np.timedelta64(1, "m")) for o, c in zip(opens, closes, strict=True)])  # fmt: skip
    price = 50 * np.exp(np.cumsum(np.random.default_rng(4).normal(0, 1e-4, len(ends))))
    gap = np.r_[0:500, 540 : len(ends)]
    for kept, wanted in ((np.arange(len(ends)), []), (gap, [("hole", 1, "40 bars in a row")])):
        columns = {"close": price[kept], "event_time": times(ends[kept]), "known_time": times(ends[kept])}
        blank = dict.fromkeys(("open", "high", "low", "volume"))
        rows = made(
            "bars",
            columns,
            asset="S",
            interval="1m",
            price_type="trade",
            adjustment="raw",
            source="t",
            **blank,
        )
        found = report({"bars": rows}, as_of=AS_OF, calendar=Calendar("XNYS")).found
        assert [(f.kind, f.count, f.detail) for f in found] == wanted


def vintages(assets=8, quarters=16, *, factor=1.0, switch=99, only=None, restated=()):
    """Figures of quarters; from `switch` on times `factor`, in all names or in one."""
    rng = np.random.default_rng(9)
    values = np.exp(rng.normal(3, 0.03, (assets, quarters)))
    values[slice(only, only + 1) if only is not None else slice(None), switch:] *= factor
    ends = np.tile(np.datetime64("2019-03-31") + np.arange(quarters) * np.timedelta64(91, "D"), assets)
    known, revision = ends + np.timedelta64(30, "D"), np.zeros(len(ends), np.int32)
    columns = {"asset": np.repeat([f"C{a}" for a in range(assets)], quarters), "value": values.ravel(), "event_time": times(ends), "known_time": times(known), "revision": revision}  # fmt: skip
    rows = made("fundamentals", columns, metric="ebitda", unit="USD bn", source="test")
    for row, change, days in restated:
        again = put(rows.slice(row, 1), ("value",), slice(None), lambda x, by=change: x * by)
        again = put(again, ("known_time",), slice(None), lambda t, by=days: t + np.timedelta64(by, "D"))
        rows = pa.concat_tables([rows, again])
    return rows


@EXAMPLES
@given(
    factor=st.sampled_from([1e2, 1e3, 1e6, 1e9, 1e-2, 1e-3, 1e-6, 1e-9]),
    switch=st.integers(1, 14),
    only=st.sampled_from([None, 0, 3, 7]),
)
def test_a_unit_that_changes_between_vintages_is_dated(factor, switch, only):
    assert report({"fundamentals": vintages()}, as_of=AS_OF).found == ()
    (one,) = report({"fundamentals": vintages(factor=factor, switch=switch, only=only)}, as_of=AS_OF).found
    day = dt.date(2019, 4, 30) + dt.timedelta(91 * switch)
    assert (one.kind, one.when.date()) == ("units", day)
    expected = ("", "error", 8) if only is None else (f"C{only}", "warning", 1)
    assert (one.asset, one.severity, one.count) == expected


def test_a_stated_unit_may_change():
    rows = vintages(factor=1e9, switch=8)
    units = ["USD" if v > 1e6 else "USD bn" for v in rows["value"].to_pylist()]
    stated = rows.set_column(rows.column_names.index("unit"), rows.schema.field("unit"), pa.array(units))
    assert report({"fundamentals": stated}, as_of=AS_OF).found == ()


def test_restated_facts_are_counted_with_their_lateness_and_only_once_known():
    rows = vintages(restated=[(3, 1.02, 10), (40, 0.99, 20), (40, 0.98, 30)])
    seen = report({"fundamentals": rows}, as_of=AS_OF)
    (one,) = seen.found
    assert (one.kind, one.count) == ("restated", 2)
    assert sorted(seen.tables[0].late.astype("timedelta64[D]").astype(int)) == [10, 30]
    assert report({"fundamentals": rows}, as_of=dt.datetime(2019, 12, 1, tzinfo=dt.UTC)).found == ()


def test_a_negative_oil_price_is_named_with_its_day():
    values = np.full(400, 40.0)
    values[250] = -36.98
    days = np.busday_offset("2019-05-06", np.arange(400), roll="forward")
    columns = {"value": values, "event_time": times(days), "known_time": times(days)}
    rows = made("observations", columns, asset="WTI", field="spot", unit="USD", source="test")
    (one,) = report({"observations": rows}, as_of=AS_OF).found
    assert (one.kind, one.detail, one.when.date()) == ("negative", "-36.98", days[250].item())
    assert "no logs" in one.meaning
    growth = put(rows, ("value",), slice(None), lambda x: x - 40 + np.sin(np.arange(400)))
    assert report({"observations": growth}, as_of=AS_OF).found == ()  # a series of both signs is no price


def quotes(*, crossed=(), repeated=(), latency=100):
    size = 2_000
    bid = 100 + np.random.default_rng(2).normal(0, 0.01, size).cumsum()
    ask = bid + np.where(np.isin(np.arange(size), list(crossed)), -0.02, 0.02)
    at = np.datetime64("2024-05-02T14:30") + np.arange(size) * np.timedelta64(250, "ms")
    for row in repeated:
        bid[row], ask[row], at[row] = bid[row - 1], ask[row - 1], at[row - 1]
    columns = {"sequence": np.arange(size), "bid": bid, "ask": ask, "event_time": times(at), "known_time": times(at.astype("datetime64[us]") + np.timedelta64(latency, "us"))}  # fmt: skip
    return made("quotes", columns, asset="Q", bid_size=1.0, ask_size=None, venue=None, source="feed")


def test_quotes_crossed_repeated_and_slow():
    def kinds(**planted):
        found = report({"quotes": quotes(**planted)}, as_of=AS_OF).found
        return [(f.kind, f.severity, f.count) for f in found]

    assert kinds() == []
    assert kinds(crossed=[7]) == [("crossed", "warning", 1)]
    assert kinds(crossed=range(0, 2_000, 50)) == [("crossed", "error", 40)]
    assert kinds(repeated=[9, 1_500]) == [("repeated", "note", 2)]
    assert kinds(latency=1_270_000) == [("latency", "note", 2_000)]


def test_odd_lots_are_counted_where_sizes_are_whole():
    at = times(np.datetime64("2024-05-02T14:30") + np.arange(500) * np.timedelta64(1, "s"))
    for size, wanted in ((100.0, []), (40.0, [("oddlot", 25)]), (0.4, [])):
        sizes = np.full(500, 300.0)
        sizes[::20] = size
        columns = {"sequence": np.arange(500), "size": sizes, "event_time": at, "known_time": at}
        rows = made(
            "trades", columns, asset="T", price=10.0, aggressor="buy", conditions=None, venue=None, source="t"
        )
        found = report({"trades": rows}, as_of=AS_OF).found
        assert [(f.kind, f.count) for f in found] == wanted


def test_a_universe_that_nobody_leaves():
    survivors = market().filter(pa.array([a not in ("S03", "S09") for a in market()["asset"].to_pylist()]))
    (one,) = report({"bars": survivors}, as_of=AS_OF).found
    assert (one.kind, one.count, one.code) == ("survivors", 23, "QB-DATA-026")
    day = times([np.datetime64("2020-01-01")] * 3)
    for last, wanted in ((True, ["survivors"]), (False, [])):
        columns = {
            "asset": ["A", "B", "C"],
            "member": [True, True, last],
            "event_time": day,
            "known_time": day,
        }
        rows = made("membership", columns, universe="U", source="t")
        assert [f.kind for f in report({"membership": rows}, as_of=AS_OF).found] == wanted


def test_what_everybody_lacks_on_one_day_is_one_finding():
    bars, days = market(), market()["event_time"].to_numpy()
    spoiled = put(bars, ("open",), days == days[150], lambda _: np.nan)
    (one,) = report({"bars": spoiled}, as_of=AS_OF).found
    assert (one.kind, one.asset, one.count, one.detail) == ("empty", "", 25, "open")


@pytest.mark.parametrize("kind", list(KINDS))
def test_check_refuses_with_the_code_of_the_worst(kind):
    for severity in ("error", "warning", "note"):
        one = Finding(kind, severity, "bars", "S", "1d", AS_OF, 3)
        seen = QualityReport(AS_OF, (one,), (), (), ())
        for strict in (False, True):
            if severity == "note" or (severity == "warning" and not strict):
                seen.check(strict=strict)
            elif KINDS[kind].code:
                with pytest.raises(QuantbenchError) as refusal:
                    seen.check(strict=strict)
                assert refusal.value.code == KINDS[kind].code and "bars, S" in refusal.value.where


def test_every_kind_that_may_refuse_has_a_code():
    assert all(bool(k.code) == (k.severity != "note") for k in KINDS.values())


HOSTILE = "</td><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>\x1b[2J[red]"


def test_the_page_is_one_safe_file_in_one_form():
    bars = plant("split", plant("gap", market(), "S08", 120), "S02", 150)
    names = [HOSTILE if a == "S02" else a for a in bars["asset"].to_pylist()]
    bars = bars.set_column(0, bars.schema.field("asset"), pa.array(names))
    first = report({"bars": bars}, as_of=AS_OF)
    order = pa.array(np.random.default_rng(3).permutation(bars.num_rows))
    page = first.html()
    assert page == report({"bars": bars.take(order)}, as_of=AS_OF).html()
    assert not re.search(r"<script|<img src=http|onerror=alert\(2\)>|\x1b|@import|url\(", page)
    assert set(re.findall(r'(?:src|srcset|href)="(\w+):', page)) == {"data"}
    assert len(page) < 500_000 and "prefers-color-scheme" in page
    screen = io.StringIO()
    Console(file=screen, width=100).print(first)
    assert first.verdict.split(";")[0] in screen.getvalue() and "\x1b" not in screen.getvalue()


def test_the_verdict_leads_with_the_gravest():
    spoiled = plant("split", plant("spike", market(), "S08", 120), "S02", 150)
    seen = report({"bars": spoiled}, as_of=AS_OF)
    assert seen.verdict.startswith(
        "1 error, 1 warning in 25 series of 1 table; worst: suspected split, bars S02"
    )
    assert seen.findings["kind"].to_pylist() == ["split", "spike"]
    assert "bars" in repr(seen) and "S02" in repr(seen) and "not checked" in repr(seen)


def test_limits_are_what_decides():
    bars = plant("outlier", market(), "S02", 150)
    assert report({"bars": bars}, as_of=AS_OF, limits=Limits(outlier=60.0)).found == ()
    assert [f.kind for f in report({"bars": bars}, as_of=AS_OF, limits=Limits(split=1.2)).found] == ["split"]


def test_series_are_told_apart_by_all_that_names_them():
    bars = market()
    position = bars.column_names.index("adjustment")
    halved = put(bars, PRICES, slice(None), lambda x: x / 2)
    adjusted = halved.set_column(
        position, bars.schema.field("adjustment"), pa.array(["split"] * bars.num_rows)
    )
    both = pa.concat_tables([bars, adjusted])
    shuffled = both.take(pa.array(np.random.default_rng(0).permutation(both.num_rows)))
    one = panel(shuffled, SCHEMAS["bars"], as_of=AS_OF)
    assert find(one) == [] and len(one.names) == 2 * ASSETS
    assert attendance(one, None, Limits()).present.shape == (2 * ASSETS, DAYS)


def test_a_jump_of_which_half_stays_is_no_spike():
    own = rows_of(market(), "S02")
    up = put(market(), PRICES, slice(own[150], own[-1] + 1), lambda x: x * 1.5)
    half = put(up, PRICES, slice(own[151], own[-1] + 1), lambda x: x / 1.25)
    assert [(f.kind, f.count) for f in report({"bars": half}, as_of=AS_OF).found] == [("outlier", 2)]


def test_a_figure_that_jumps_about_has_no_new_unit():
    rows = put(
        vintages(factor=1e3, switch=8, only=2), ("value",), slice(2 * 16 + 9, 3 * 16), lambda x: x / 30
    )
    assert report({"fundamentals": rows}, as_of=AS_OF).found == ()
