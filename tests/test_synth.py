"""Synthetic markets: the same bytes whoever asks, streams that do not touch each other, and truths that are true."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError, close, refused
from quantbench.data.feeds import book, fundamentals, order_flow
from quantbench.data.schema import schema
from quantbench.data.synth import Synthetic, delistings, distinct, grid, jumps, pairs, regimes, stream, trends

MAKERS = {
    "trends": lambda names, seed: trends(names, grid(60), seed=seed),
    "regimes": lambda names, seed: regimes(names, grid(60), seed=seed, stay=(0.9, 0.8)),
    "jumps": lambda names, seed: jumps(names, grid(60), seed=seed, rate=50),
    "delistings": lambda names, seed: delistings(names, grid(60), seed=seed, hazard=4.0),
    "pairs": lambda names, seed: pairs([(n, f"{n}.x") for n in names], grid(60), seed=seed),
    "fundamentals": lambda names, seed: fundamentals(names, seed=seed, quarters=12, restatements=2),
    "order_flow": lambda names, seed: order_flow(names[0], seed=seed, sessions=3, trades=40),
    "book": lambda names, seed: book(names[0], seed=seed, events=300),
}


def digest(market: Synthetic) -> str:
    found = hashlib.sha256()

    def add(value):
        if hasattr(value, "items"):
            for name in value:
                found.update(str(name).encode())
                add(value[name])
        elif isinstance(value, np.ndarray):
            found.update(value.tobytes())
        elif isinstance(value, pa.Table):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, value.schema) as writer:
                writer.write_table(value.combine_chunks())
            found.update(sink.getvalue())
        else:
            found.update(repr(value).encode())

    add(market.tables)
    add(market.truth)
    return found.hexdigest()


def all_digests() -> str:
    return " ".join(digest(make(["AA", "B", "C"], 5)) for make in MAKERS.values())


def test_the_same_bytes_in_another_process_with_another_hash_seed_and_more_threads():
    program = "import sys; sys.path[:0] = sys.argv[1:]; from tests.test_synth import all_digests; print(all_digests())"
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    for salt, threads in (("0", "1"), ("4242", "4")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": salt,
            "OMP_NUM_THREADS": threads,
            "ARROW_NUM_THREADS": threads,
        }
        run = subprocess.run(
            [sys.executable, "-c", program, here], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == all_digests()


@pytest.mark.parametrize("maker", MAKERS)
def test_another_seed_is_another_market(maker):
    assert digest(MAKERS[maker](["A"], 1)) == digest(MAKERS[maker](["A"], 1))
    assert digest(MAKERS[maker](["A"], 1)) != digest(MAKERS[maker](["A"], 2))


def only(rows: pa.Table, asset: str) -> pa.Table:
    return rows.filter(pc.equal(rows["asset"], asset)).combine_chunks()


@pytest.mark.parametrize("maker", ["trends", "regimes", "jumps", "delistings", "pairs", "fundamentals"])
@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    others=st.lists(st.sampled_from([f"N{i}" for i in range(9)]), unique=True), seed=st.integers(0, 2**63 - 1)
)
def test_other_assets_change_nothing(maker, others, seed):
    alone, company = MAKERS[maker](["ME"], seed), MAKERS[maker]([*others, "ME"], seed)
    reversed_company = MAKERS[maker](["ME", *others[::-1]], seed)
    for name, rows in alone.tables.items():
        assert only(rows, "ME").equals(only(company.tables[name], "ME"))
        assert company.tables[name].equals(reversed_company.tables[name])


@pytest.mark.parametrize("interval", ["1d", "30m"])
def test_a_longer_grid_begins_like_a_shorter_one(interval):
    short, long = grid(30, interval=interval), grid(47, interval=interval)
    for make in (trends, regimes, jumps):
        a, b = make(["A"], short, seed=3).bars, make(["A"], long, seed=3).bars
        assert a.equals(b.slice(0, a.num_rows))
    a, b = pairs([("Y", "X")], short, seed=3), pairs([("Y", "X")], long, seed=3)
    assert only(a.bars, "Y").equals(only(b.bars, "Y").slice(0, len(short)))
    c, d = (fundamentals(["A"], seed=3, quarters=q, restatements=2).fundamentals for q in (10, 30))
    assert c.equals(d.slice(0, c.num_rows))


def test_every_table_is_in_schema_form_and_frozen():
    for make in MAKERS.values():
        market = make(["A", "B"], 1)
        for name, rows in market.tables.items():
            assert rows.schema.equals(schema(name).arrow, check_metadata=True)
        with pytest.raises(TypeError):
            market.truth["seed"] = 1
        with pytest.raises(AttributeError):
            market.seed = 2
    with pytest.raises(ValueError, match="read-only"):
        regimes(["A"], grid(5), seed=1).truth["states"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        grid(5).ends[0] = 1


def test_a_broken_table_does_not_become_a_market():
    rows = trends(["A"], grid(3), seed=1).bars
    nan = rows.set_column(rows.column_names.index("close"), "close", pa.array([1.0, float("nan"), 1.0]))
    with refused("QB-DATA-014", show=False):
        Synthetic("own", 1, {"bars": nan}, {})


def test_minutes_and_days_of_a_year_have_the_same_variance():
    days, minutes = grid(100), grid(100, interval="5m")
    assert close(days.years, minutes.years) and len(minutes) == 100 * 78
    assert np.array_equal(minutes.ends[77::78], days.ends)
    assert close(minutes.share.reshape(100, 78).sum(axis=1), np.ones(100))


def test_the_grid_of_given_hours():
    opens = np.array(["2024-11-27T14:30", "2024-11-29T14:30"], "datetime64[us]")
    closes = np.array(["2024-11-27T21:00", "2024-11-29T18:00"], "datetime64[us]")
    made = grid((opens, closes), interval="1h")
    assert made.ends.astype("datetime64[us]").astype(str).tolist()[5:8] == [
        "2024-11-27T20:30:00.000000",
        "2024-11-27T21:00:00.000000",  # cut short by the close
        "2024-11-29T15:30:00.000000",
    ]
    assert made.first.tolist() == [True] + [False] * 6 + [True, False, False, False]
    assert close(made.years, 2 / 252)


@pytest.mark.parametrize(
    "make",
    [
        lambda: grid(0),
        lambda: grid(5, interval="2m"),
        lambda: grid(5, overnight=1.5),
        lambda: grid(5, sessions_per_year=float("nan")),
        lambda: trends(["A"], grid(5), seed=-1),
        lambda: trends(["A"], grid(5), seed=1, volatility=0.0),
        lambda: trends(["A"], grid(5), seed=1, drift={"A": float("inf")}),
        lambda: pairs([("A", "B")], grid(5), seed=1, half_life=0.0),
        lambda: regimes(["A"], grid(5), seed=1, stay=(0.9, 1.1)),
        lambda: regimes(["A"], grid(5), seed=1, stay=(0.9,)),
        lambda: jumps(["A"], grid(5), seed=1, size=float("nan")),
        lambda: delistings(["A"], grid(5), seed=1, hazard=-1.0),
        lambda: fundamentals(["A"], seed=1, error=0.5),
        lambda: order_flow("A", seed=1, informed=1.0),
        lambda: book("A", seed=1, levels=1),
        lambda: book("A", seed=1, price=0.05),
    ],
)
def test_numbers_outside_their_domain_are_refused(make):
    with refused("QB-TYPE-001", show=False):
        make()


def test_assets_must_be_a_list_of_different_names():
    for assets in ("SPY", [], ["A", "A"]):
        with refused("QB-SYNTH-001", show=False):
            distinct(assets, "here")
    with refused("QB-SYNTH-001", show=False):
        pairs([("A", "B"), ("C", "B")], grid(5), seed=1)
    with refused("QB-SYNTH-001", show=False):
        trends(["A"], grid(5), seed=1, drift={"B": 0.1})
    with pytest.raises(QuantbenchError, match="blank"):
        trends([" "], grid(5), seed=1)


def test_streams_differ_by_every_part_of_the_name():
    firsts = [stream(1, *name).random() for name in (("a", "b"), ("ab",), ("a", "", "b"), ("b", "a"), ())]
    assert len(set(firsts)) == len(firsts)


def test_drift_is_the_expected_simple_return(soak):
    """Mean growth over a year of many assets: exp(drift), not exp(drift - variance / 2)."""
    count = 4000 * soak
    market = trends(
        [f"A{i:06}" for i in range(count)], grid(252, interval="1d"), seed=1, drift=0.1, volatility=0.5
    )
    growth = market.bars["close"].to_numpy().reshape(count, -1)[:, -1] / 100
    error = growth.std() / np.sqrt(count)
    assert abs(growth.mean() - np.exp(0.1)) < 3 * error
    assert abs(np.log(growth).std() - 0.5) < 3 * 0.5 / np.sqrt(2 * count)


def test_highs_have_the_law_of_a_brownian_maximum():
    """Without drift the maximum of a bar above its open is distributed like |N(0, s)|: mean s * sqrt(2 / pi)."""
    market = trends([f"A{i:03}" for i in range(200)], grid(500), seed=2, drift=0.02, volatility=0.2).bars
    opened = np.log(market["open"].to_numpy())
    deviation = 0.2 * np.sqrt(0.8 / 252)
    for reach in (np.log(market["high"].to_numpy()) - opened, opened - np.log(market["low"].to_numpy())):
        error = reach.std() / np.sqrt(len(reach))
        assert abs(reach.mean() - deviation * np.sqrt(2 / np.pi)) < 4 * error


def test_the_spread_starts_and_stays_in_its_long_run_law():
    market = pairs(
        [(f"Y{i:04}", f"X{i:04}") for i in range(1000)], grid(30), seed=3, half_life=50, deviation=0.04
    )
    spreads = np.stack(list(market.truth["spread"].values()))
    for bar in (0, 29):
        assert abs(spreads[:, bar].std() - 0.04) < 3 * 0.04 / np.sqrt(2000)
    together = np.corrcoef(spreads[:, 0], spreads[:, 29])[0, 1]
    phi = 2 ** (-29 / 50)
    assert abs(together - phi) < 3 * (1 - phi**2) / np.sqrt(1000)


def test_states_last_as_long_as_stated():
    market = regimes(
        ["A"],
        grid(160, interval="1m"),
        seed=4,
        volatility=(0.1, 0.2, 0.3),
        drift=(0, 0, 0),
        stay=(0.9, 0.5, 0.95),
    )
    states = market.truth["states"].astype(int)
    moves = np.zeros((3, 3))
    np.add.at(moves, (states[:-1], states[1:]), 1)
    chances = moves / moves.sum(axis=1, keepdims=True)
    expected = np.array([[0.9, 0.05, 0.05], [0.25, 0.5, 0.25], [0.025, 0.025, 0.95]])
    error = np.sqrt(expected * (1 - expected) / moves.sum(axis=1, keepdims=True))
    assert np.all(np.abs(chances - expected) < 4 * error)


def test_one_state_that_may_not_be_kept_is_kept():
    assert set(
        regimes(["A"], grid(9), seed=1, volatility=(0.1,), drift=(0,), stay=(0.0,)).truth["states"]
    ) == {0}


def test_a_jump_is_what_a_market_with_it_has_more_than_one_without():
    with_jumps, without = (jumps(["A"], grid(500), seed=7, rate=rate).closes("A") for rate in (20.0, 0.0))
    truth = jumps(["A"], grid(500), seed=7, rate=20.0).truth
    total = np.zeros(500)
    total[truth["bars"]["A"]] = truth["sizes"]["A"]
    assert close(np.log(with_jumps / without), np.cumsum(total), floor=1e-12)


def test_the_dead_leave_consistent_tables():
    market = delistings(
        [f"D{i:03}" for i in range(100)], grid(40, interval="1h"), seed=8, hazard=10.0, loss=0.3
    )
    actions = {r["asset"]: r for r in market.table("corporate_actions").to_pylist()}
    exits = {r["asset"]: r for r in market.table("membership").to_pylist() if not r["member"]}
    assert set(actions) == set(exits) == set(market.truth["dead"]) and 50 < len(actions) < 100
    for asset, lived in market.truth["bars"].items():
        bars = only(market.bars, asset)
        assert bars.num_rows == lived and lived % 7 == 0  # whole sessions
        if asset in actions:
            last = bars["event_time"][-1].as_py()
            assert last < actions[asset]["event_time"] == exits[asset]["event_time"]
            assert close(actions[asset]["amount"], 0.7 * bars["close"][-1].as_py())


def test_figures_are_late_and_end_in_the_truth():
    market = fundamentals(["A", "B"], seed=9, restatements=3, lag=30, start=date(2020, 1, 1))
    rows = market.fundamentals.to_pylist()
    assert min((r["known_time"] - r["event_time"]).days for r in rows) >= 30
    assert rows[0]["event_time"].date() == date(2020, 3, 31)
    for asset in ("A", "B"):
        last = {r["event_time"]: r["value"] for r in rows if r["asset"] == asset}  # versions come in order
        assert close([last[k] for k in sorted(last)], market.truth["values"][asset])
        counts = np.unique([str(r["event_time"]) for r in rows if r["asset"] == asset], return_counts=True)[1]
        assert np.array_equal(counts, market.truth["versions"][asset])


def test_quotes_are_expected_values():
    """Against Bayes' rule written out, trade by trade."""
    informed, news, move = 0.3, 0.4, 0.05
    market = order_flow("A", seed=1, sessions=4, trades=60, informed=informed, news=news, move=move)
    sides = [1 if s == "buy" else -1 for s in market.trades["aggressor"].to_pylist()]
    quotes = market.quotes.to_pylist()
    opening = 100.0
    for session in range(4):
        belief = {1: news / 2, 0: 1 - news, -1: news / 2}
        for k in range(61):
            quote = quotes[session * 61 + k]
            for name, side in (("bid", -1), ("ask", 1)):
                weight = {d: p * (1 + informed * side * d) for d, p in belief.items()}
                expected = sum(w * (1 + move * d) for d, w in weight.items()) / sum(weight.values())
                assert close(quote[name], opening * expected, rel=1e-12)
            if k < 60:
                side = sides[session * 60 + k]
                belief = {d: p * (1 + informed * side * d) for d, p in belief.items()}
        opening = market.truth["value"][session]


def test_trades_and_quotes_alternate_and_trades_hit_the_quote():
    market = order_flow("A", seed=3, sessions=3, trades=50)
    events = sorted(
        [("q", r) for r in market.quotes.to_pylist()] + [("t", r) for r in market.trades.to_pylist()],
        key=lambda item: item[1]["sequence"],
    )
    assert [kind for kind, _ in events] == (["q"] + ["t", "q"] * 50) * 3
    times = [row["event_time"] for _, row in events]
    assert all(a < b for a, b in pairwise(times))
    for (_, quote), (kind, row) in pairwise(events):
        if kind == "t":
            side = "ask" if row["aggressor"] == "buy" else "bid"
            assert row["price"] == quote[side] and row["size"] <= quote[f"{side}_size"]
    flagged = market.truth["informed"].reshape(3, 50)
    sides = market.trades["aggressor"].to_numpy(zero_copy_only=False).reshape(3, 50)
    for session, direction in enumerate(market.truth["news"]):
        assert set(sides[session][flagged[session]]) <= {"buy" if direction > 0 else "sell"}


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.integers(2, 6),
    moving=st.sampled_from([0.0, 0.3, 1.0]),
    tick=st.sampled_from([0.01, 0.05, 0.5, 25.0]),
)
def test_a_book_rebuilds_uncrossed_and_full(seed, levels, moving, tick):
    market = book("A", seed=seed, events=150, levels=levels, moving=moving, tick=tick, price=tick * 5000)
    rows, truth = market.book.to_pylist(), market.truth
    sides = {"bid": {}, "ask": {}}
    for number, row in enumerate(rows):
        if row["size"] > 0:
            sides[row["side"]][row["price"]] = row["size"]
        else:
            del sides[row["side"]][row["price"]]  # fails if it was not there
        if number >= 2 * levels - 1:
            assert max(sides["bid"]) < min(sides["ask"])
            if number + 1 == len(rows) or truth["event"][number + 1] != truth["event"][number]:
                event = truth["event"][number]
                assert max(sides["bid"]) == truth["best_bid"][event]
                assert min(sides["ask"]) == truth["best_ask"][event]
                assert len(sides["bid"]) == len(sides["ask"]) == levels
    assert [row["sequence"] for row in rows] == list(range(len(rows)))
    assert all(a["event_time"] <= b["event_time"] for a, b in pairwise(rows))
