"""Reference data: what a holder of the share saw, what was known when, and Lean's own factors as a referee."""

from __future__ import annotations

import csv
import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError, close, refused
from quantbench.data.reference import (
    MODES,
    adjust,
    asset_of,
    attribute_of,
    calendar_of,
    dead_share,
    members,
    suspected_splits,
    ticker_of,
)
from quantbench.data.schema import conform, schema
from quantbench.data.synth import delistings, grid, trends

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def day(number: float) -> dt.datetime:
    return START + dt.timedelta(days=number)


def facts(kind: str, rows: list[dict]) -> pa.Table:
    empty = {c.name: None for c in schema(kind).columns} | {"revision": 0, "source": "test"}
    full = [empty | row for row in rows]
    full = [row | {"known_time": row["known_time"] or row["event_time"]} for row in full]
    return conform(pa.Table.from_pylist(full, schema=schema(kind).arrow), schema(kind), where=kind)


def bar(asset: str, number: float, price: float, **more) -> dict:
    style = {"interval": "1d", "price_type": "trade", "adjustment": "raw", "volume": 1000.0}
    return style | {"asset": asset, "event_time": day(number + 0.9), "open": price, "close": price} | more


def action(asset: str, number: float, kind: str, figure: float | None, **more) -> dict:
    name = "ratio" if kind == "split" else "amount"
    return {"asset": asset, "event_time": day(number), "kind": kind, name: figure} | more


def market(prices: list[float], asset: str = "A") -> pa.Table:
    return facts("bars", [bar(asset, i, p) for i, p in enumerate(prices)])


moments = st.integers(-1, 8).map(
    lambda n: n / 2 + 1
)  # two a day, some before the first bar or after the last
happening = st.one_of(
    st.tuples(moments, st.just("split"), st.floats(0.4, 3.0)),
    st.tuples(moments, st.sampled_from(["dividend", "spinoff"]), st.floats(0.1, 0.5)),
)
events = st.lists(happening, max_size=4, unique_by=lambda event: event[:2])


def walk(prices: list[float], happened: list[tuple[float, str, float]], mode: str) -> list[float]:
    """A holder of one share, forward through raw bars: the wealth at each close."""
    pending = sorted(happened, key=lambda e: (e[0], e[1] != "split", e[1]))
    shares, wealth, price = 1.0, [], None
    for i, last in enumerate(prices):
        cash = 0.0
        while pending and day(pending[0][0]) < day(i + 0.9):
            _, kind, figure = pending.pop(0)
            if price is None:
                continue
            if kind == "split":
                shares, price = shares * figure, price / figure
            elif mode == "total":
                cash += shares * figure
            elif mode == "dividend":
                shares += shares * figure / (price - figure)  # bought at the price without the payment
                price -= figure
        shares += cash / last
        wealth.append(shares * last)
        price = last
    return wealth


@pytest.mark.parametrize("mode", MODES)
@settings(derandomize=True, max_examples=150, deadline=None)
@given(prices=st.lists(st.floats(200.0, 900.0), min_size=1, max_size=5), happened=events)
def test_adjusted_returns_are_the_holders_returns(mode, prices, happened):
    rows = facts("corporate_actions", [action("A", *e) for e in happened])
    adjusted = adjust(market(prices), rows, mode=mode, as_of=END)
    wealth = np.array(walk(prices, happened, mode))
    assert close(
        adjusted["close"].to_numpy()[1:] * wealth[:-1],
        adjusted["close"].to_numpy()[:-1] * wealth[1:],
        rel=1e-12,
    )
    assert conform(adjusted, schema("bars"), where="adjusted").equals(adjusted)
    after_all = not any(day(len(prices) - 0.1) <= day(e[0]) for e in happened)
    assert adjusted["close"][-1].as_py() == prices[-1] or not after_all


@pytest.mark.parametrize("mode", MODES)
@settings(derandomize=True, max_examples=80, deadline=None)
@given(
    prices=st.lists(st.floats(200.0, 900.0), min_size=2, max_size=5),
    happened=events,
    lags=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    late=st.lists(st.integers(0, 8), min_size=5, max_size=5),
    now=st.floats(0.0, 10.0),
)
def test_what_is_known_later_changes_nothing_and_rows_say_when_they_were_known(
    mode, prices, happened, lags, late, now
):
    rows = facts(
        "corporate_actions",
        [action("A", *e, known_time=day(e[0] + lag)) for e, lag in zip(happened, lags, strict=False)],
    )
    bars = facts(
        "bars",
        [
            bar("A", i, p, known_time=day(i + 0.9 + lag))
            for i, (p, lag) in enumerate(zip(prices, late, strict=False))
        ],
    )
    as_of = day(now)
    answer = adjust(bars, rows, mode=mode, as_of=as_of)
    known = [
        t.filter(pc.less_equal(t["known_time"], pa.scalar(as_of, t["known_time"].type))) for t in (bars, rows)
    ]
    assert answer.equals(adjust(*known, mode=mode, as_of=END))
    if answer.num_rows:
        assert pc.max(answer["known_time"]).as_py() <= as_of
    for row in answer.to_pylist():
        then = adjust(bars, rows, mode=mode, as_of=row["known_time"])
        assert row in then.to_pylist()


def test_a_restated_bar_and_a_corrected_ratio():
    bars = facts("bars", [bar("A", 0, 100.0), bar("A", 0, 102.0, known_time=day(5)), bar("A", 1, 51.0)])
    actions = facts(
        "corporate_actions", [action("A", 1, "split", 0.5), action("A", 1, "split", 2.0, known_time=day(6))]
    )
    closes = [adjust(bars, actions, mode="split", as_of=day(t))["close"].to_pylist() for t in (4, 5.5, 7)]
    assert closes == [[200.0, 51.0], [204.0, 51.0], [51.0, 51.0]]


def test_series_do_not_touch_each_other_and_order_is_irrelevant():
    both = pa.concat_tables([market([100.0, 50.0, 60.0], "A"), market([7.0, 8.0, 9.0], "B")])
    bids = facts("bars", [bar("A", i, p, price_type="bid") for i, p in enumerate([90.0, 45.0])])
    actions = facts("corporate_actions", [action("A", 1, "split", 2.0), action("C", 1, "split", 5.0)])
    mixed = pa.concat_tables([both, bids])
    shuffled = mixed.take(pa.array(np.random.default_rng(1).permutation(mixed.num_rows)))
    answer = adjust(shuffled, actions, mode="split", as_of=END)
    assert answer.equals(adjust(mixed, actions, mode="split", as_of=END))
    assert answer["close"].to_pylist() == [45.0, 45.0, 50.0, 50.0, 60.0, 7.0, 8.0, 9.0]
    assert answer["volume"].to_pylist() == [2000.0, 1000.0, 2000.0, 1000.0, 1000.0] + [1000.0] * 3


def test_empty_opens_stay_empty():
    bars = facts("bars", [bar("A", 0, 10.0, open=None, volume=None), bar("A", 1, 5.0)])
    answer = adjust(bars, facts("corporate_actions", [action("A", 1, "split", 2.0)]), mode="split", as_of=END)
    assert answer["open"].to_pylist() == [None, 5.0] and answer["volume"].to_pylist() == [None, 1000.0]


def test_the_end_of_a_bar_is_before_the_ex_date_that_starts_then():
    bars = facts("bars", [bar("A", 0, 10.0, event_time=day(1)), bar("A", 1, 5.0)])
    actions = facts("corporate_actions", [action("A", 1, "split", 2.0)])
    assert adjust(bars, actions, mode="split", as_of=END)["close"].to_pylist() == [5.0, 5.0]


@pytest.mark.parametrize("mode", MODES)
def test_adjusting_twice_and_mixing_are_refused(mode):
    bars, none = market([10.0, 11.0]), facts("corporate_actions", [])
    once = adjust(bars, none, mode=mode, as_of=END)
    with refused("QB-REF-001", show=False):
        adjust(once, none, mode="split", as_of=END)
    with refused("QB-REF-002", show=False):
        adjust(pa.concat_tables([once, bars]), none, mode="split", as_of=END)
    with refused("QB-REF-001", show=False):
        suspected_splits(once, none, as_of=END)


def test_actions_without_a_usable_figure_are_refused():
    bars = market([10.0, 11.0])
    for kind, mode in (("split", "split"), ("dividend", "total"), ("spinoff", "dividend")):
        with refused("QB-REF-003", show=False):
            adjust(bars, facts("corporate_actions", [action("A", 1, kind, None)]), mode=mode, as_of=END)
    for amount in (10.0, 11.0):
        with refused("QB-REF-003", show=False):
            adjust(
                bars,
                facts("corporate_actions", [action("A", 1, "dividend", amount)]),
                mode="dividend",
                as_of=END,
            )
    with refused("QB-TIME-001", show=False):
        adjust(bars, facts("corporate_actions", []), mode="split", as_of=END.replace(tzinfo=None))


def test_lean_has_the_same_factors(root):
    """Price and split factors of another project, from its own records of the dividends; its file has seven digits."""
    folder = root / "fixtures" / "aapl"
    with (folder / "daily_raw.csv").open() as file:
        daily = [(dt.date.fromisoformat(r["date"]), float(r["close"])) for r in csv.DictReader(file)]
    with (folder / "actions.csv").open() as file:
        announced = [
            (dt.date.fromisoformat(r["ex_date"]), r["kind"], float(r["ratio"] or r["amount"]))
            for r in csv.DictReader(file)
        ]
    bars = facts("bars", [bar("AAPL", (d - START.date()).days, p) for d, p in daily])
    rows = facts(
        "corporate_actions", [action("AAPL", (d - START.date()).days, k, f) for d, k, f in announced]
    )
    factor = dict(
        zip(
            (d for d, _ in daily),
            adjust(bars, rows, mode="dividend", as_of=END)["close"].to_numpy() / bars["close"].to_numpy(),
            strict=True,
        )
    )
    with (folder / "lean_factors.csv").open() as file:
        theirs = [
            (dt.date.fromisoformat(r["date"]), float(r["price_factor"]), float(r["split_factor"]))
            for r in csv.DictReader(file)
        ]
    compared = [(d, p * s) for d, p, s in theirs if d in factor]
    assert len(compared) == 37
    for date, expected in compared:
        assert close(factor[date], expected, rel=2e-6), date
    assert factor[dt.date(2014, 6, 9)] / factor[dt.date(2014, 6, 6)] == pytest.approx(7, rel=1e-12)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sampled_from([2.0, 3.0, 1.5, 7.0, 20.0, 0.5, 0.1, 0.05]), st.integers(0, 1000), st.integers(5, 50))
def test_a_hidden_split_is_found_and_a_market_without_one_is_left_alone(ratio, seed, where):
    bars = trends(["A", "B"], grid(60), seed=seed, volatility=0.2).bars
    none = facts("corporate_actions", [])
    now = dt.datetime(2016, 1, 1, tzinfo=dt.UTC)
    assert suspected_splits(bars, none, as_of=now) == []
    scale = np.where(np.arange(120) % 60 >= where, 1 / ratio, 1.0) ** (np.arange(120) < 60)
    for name in ("open", "high", "low", "close"):
        bars = bars.set_column(
            bars.column_names.index(name), bars.schema.field(name), pa.array(bars[name].to_numpy() * scale)
        )
    (found,) = suspected_splits(bars, none, as_of=now)
    assert found.asset == "A" and found.event_time == bars["event_time"][where].as_py() and not found.recorded
    new, old = map(int, found.proposal.split(" for "))
    assert new / old == ratio
    split = {"asset": "A", "event_time": found.event_time - dt.timedelta(hours=9), "kind": "split"}
    assert suspected_splits(bars, facts("corporate_actions", [split | {"ratio": ratio}]), as_of=now) == []
    wrong = facts("corporate_actions", [split | {"ratio": 1 / ratio}])
    assert [s.recorded for s in suspected_splits(bars, wrong, as_of=now)] == [True]
    late = facts(
        "corporate_actions", [split | {"ratio": ratio, "known_time": dt.datetime(2017, 1, 1, tzinfo=dt.UTC)}]
    )
    assert suspected_splits(bars, late, as_of=now) == [found]


def test_a_crash_that_is_no_simple_ratio_is_not_a_split():
    assert suspected_splits(market([100.0, 45.0, 45.0]), facts("corporate_actions", []), as_of=END) == []


spells = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 9), st.booleans(), st.integers(0, 6), st.integers(0, 2)),
    max_size=14,
    unique_by=lambda s: (s[0], s[1], s[3], s[4]),
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(spells, st.integers(0, 12), st.integers(0, 12))
def test_members_against_the_definition(entries, on, later):
    entries = [("Z", -2, True, 0, 0), *entries]  # the universe is known from the start
    rows = facts(
        "membership",
        [
            {
                "asset": a,
                "universe": "U",
                "event_time": day(e),
                "member": m,
                "known_time": day(e + lag),
                "revision": r,
            }
            for a, e, m, lag, r in entries
        ],
    )
    expected = []
    for asset in "ABCZ":
        known = [
            (e, e + lag, r, m)
            for a, e, m, lag, r in entries
            if a == asset and e <= on and e + lag <= on + later
        ]
        if known and max(known)[3]:
            expected.append(asset)
    assert members(rows, "U", on=day(on), as_of=day(on + later)) == expected


def test_a_list_that_was_not_known_then_is_refused():
    def listed(known: float) -> pa.Table:
        names = [
            {"asset": a, "universe": "U", "member": True, "event_time": day(0), "known_time": day(known)}
            for a in "AB"
        ]
        return facts("membership", names)

    with refused("QB-REF-005", show=False):
        members(listed(6), "U", on=day(5), as_of=day(9))
    assert members(listed(5), "U", on=day(5), as_of=day(9)) == ["A", "B"]
    with refused("QB-REF-007", show=False):
        members(listed(0), "U", on=day(5), as_of=day(4))
    with refused("QB-REF-004", show=False):
        members(listed(0), "V", on=day(5), as_of=day(9))


def test_the_dead_are_counted_as_known():
    made = delistings([f"D{i:02}" for i in range(50)], grid(252), seed=1, hazard=0.5)
    rows = made.membership
    assert dead_share(rows, "SYNTH", as_of=END) == len(made.truth["dead"]) / 50
    first_day = rows["event_time"][0].as_py()
    with refused("QB-DATA-026", show=False):
        dead_share(rows, "SYNTH", as_of=first_day)
    assert dead_share(rows, "SYNTH", as_of=first_day, accept_bias=True) == 0.0
    alive = members(rows, "SYNTH", on=END, as_of=END)
    assert len(alive) == 50 - len(made.truth["dead"]) and not set(alive) & set(made.truth["dead"])


def wears(asset: str, ticker: str | None, number: float, **more) -> dict:
    return {"asset": asset, "ticker": ticker, "event_time": day(number)} | more


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from(["X", "Y", None]), st.integers(0, 8)),
        max_size=10,
        unique_by=lambda s: (s[0], s[2]),
    ),
    st.integers(0, 9),
)
def test_tickers_against_the_definition(entries, on):
    rows = facts("symbols", [wears(*e) for e in entries])
    worn = {}
    for asset, ticker, _ in sorted((e for e in entries if e[2] <= on), key=lambda e: e[2]):
        worn[asset] = ticker
    for asset in "ABC":
        if worn.get(asset):
            assert ticker_of(rows, asset, on=day(on), as_of=END) == worn[asset]
        else:
            with refused("QB-REF-004", show=False):
                ticker_of(rows, asset, on=day(on), as_of=END)
    for ticker in "XY":
        wearers = [a for a, t in worn.items() if t == ticker]
        if len(wearers) == 1:
            assert asset_of(rows, ticker, on=day(on), as_of=END) == wearers[0]
        else:
            with refused("QB-REF-006" if wearers else "QB-REF-004", show=False):
                asset_of(rows, ticker, on=day(on), as_of=END)


def test_a_rename_known_later_is_not_known_now():
    rows = facts("symbols", [wears("A", "OLD", 0), wears("A", "NEW", 5, known_time=day(8))])
    assert (
        ticker_of(rows, "A", on=day(6), as_of=day(7)) == "OLD"
        and ticker_of(rows, "A", on=day(6), as_of=day(8)) == "NEW"
    )
    with pytest.raises(QuantbenchError, match="one of the 30 names"):
        asset_of(
            facts("symbols", [wears(f"A{i}", f"T{i}", 0) for i in range(30)]), "ZZZZ", on=day(1), as_of=END
        )


def test_attributes_change_and_name_the_calendar():
    rows = facts(
        "attributes",
        [
            {"asset": "A", "field": f, "text": t, "event_time": day(n)}
            for f, t, n in (("calendar", "XNYS", 0), ("calendar", "24/7", 5), ("sector", "Energy", 0))
        ],
    )
    assert calendar_of(rows, "A", on=day(1), as_of=END).name == "XNYS"
    assert calendar_of(rows, "A", on=day(6), as_of=END).name == "24/7"
    assert attribute_of(rows, "A", "sector", on=day(6), as_of=END) == "Energy"
    for asset, field in (("A", "sektor"), ("B", "sector")):
        with refused("QB-REF-004", show=False):
            attribute_of(rows, asset, field, on=day(6), as_of=END)


def test_a_payment_is_as_late_as_the_price_it_is_weighed_against():
    """Adjusted rows once claimed to be known before the close that their factor was computed from."""
    bars = facts("bars", [bar("A", 0, 100.0), bar("A", 1, 80.0, known_time=day(50)), bar("A", 2, 75.0)])
    rows = facts("corporate_actions", [action("A", 2, "dividend", 8.0)])
    adjusted = adjust(bars, rows, mode="dividend", as_of=END)
    assert close(adjusted["close"][0].as_py(), 90.0)  # by a tenth of 80, which nobody knew before day 50
    assert adjusted["known_time"].to_pylist() == [day(50), day(50), day(2.9)]


def test_what_a_mode_does_not_use_makes_nothing_later():
    bars = market([100.0, 90.0])
    rows = facts("corporate_actions", [action("A", 1, "dividend", 8.0, known_time=day(9))])
    assert adjust(bars, rows, mode="split", as_of=END)["known_time"].equals(bars["known_time"])


def test_bars_with_texts_as_dictionaries_are_the_same_bars():
    bars, rows = market([100.0, 90.0]), facts("corporate_actions", [action("A", 1, "split", 2.0)])
    coded = pa.table(
        {n: bars[n].dictionary_encode() if n in ("asset", "interval") else bars[n] for n in bars.column_names}
    )
    assert adjust(coded, rows, mode="split", as_of=END).equals(adjust(bars, rows, mode="split", as_of=END))
