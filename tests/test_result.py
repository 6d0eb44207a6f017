"""Tables against naive twins over random logs, referees that notice a cent, hashes that name content."""

from __future__ import annotations

import builtins
import math
import pickle
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import close, refused
from quantbench.engine.memory import (
    CANCELLED,
    CHECKS,
    EXPIRED,
    FILL,
    FILLED,
    FLOW_BORROW,
    FLOW_DELISTING,
    FLOW_DIVIDEND,
    FLOW_FINANCING,
    FLOW_SPLIT,
    PARTIAL,
    POINT,
    REJECTED,
    SUBMITTED,
    TRANSITION,
    Memory,
)  # fmt: skip
from quantbench.engine.result import (
    Logs,
    Provenance,
    Result,
    cost_share,
    cost_sums,
    digest,
    plot,
    replay,
    traded,
    warnings_of,
)

DAY = 86_400_000_000_000
START = 18_262 * DAY  # 2020-01-01
SYMBOLS = ("AAA", "BBB", "CCC")


def ledger(seed: int, steps: int = 90, flows: bool = False) -> tuple[Result, dict[int, float]]:
    """Random fills booked by hand, one price a day for each asset; cash, holdings and equity by the simplest code there is."""
    rng = np.random.default_rng(seed)
    memory = Memory(3)
    memory.assets["lot"], memory.assets["multiplier"] = (1.0, 0.1, 1.0), (1.0, 1.0, 50.0)
    unit = (memory.assets["lot"] * memory.assets["multiplier"]).tolist()
    price, held, cash = np.array([100.0, 20.0, 4.0]), [0, 0, 0], 1e6
    fills, moves, points, extra, marks = [], [], [], [], []
    order = 0
    for day in range(steps):
        now = START + day * DAY + 21 * DAY // 24
        for a in rng.permutation(3)[: rng.integers(0, 4)].tolist():
            for _ in range(rng.integers(1, 4)):
                order += 1
                side, lots = int(rng.choice([-1, 1])), int(rng.integers(1, 400))
                fate = rng.choice([FILLED, REJECTED, CANCELLED, EXPIRED], p=[0.7, 0.1, 0.1, 0.1])
                decided = now - DAY // 3
                if fate == REJECTED:
                    moves.append(
                        (
                            decided,
                            order,
                            a,
                            REJECTED,
                            int(rng.integers(len(CHECKS))),
                            lots,
                            1.0,
                            side,
                            0,
                            decided,
                        )
                    )
                    continue
                moves.append((decided, order, a, SUBMITTED, 0, lots, 1.0, side, 1, decided + 5))
                pieces = [lots] if fate == FILLED and rng.random() < 0.6 else [lots // 2] if lots > 1 else []
                pieces += [lots - sum(pieces)] if fate == FILLED and pieces[-1:] != [lots] else []
                left = lots
                for piece in pieces:
                    paid = price[a] * (1 + side * 0.001)
                    fee, tax = round(0.5 + 0.0001 * piece * unit[a] * paid, 6), 0.25 if side > 0 else 0.0
                    left -= piece
                    state = FILLED if left == 0 else PARTIAL
                    fills.append(
                        (
                            now - DAY // 8,
                            now - DAY // 9,
                            order,
                            0,
                            a,
                            side,
                            piece,
                            0,
                            paid,
                            price[a],
                            fee,
                            tax,
                            1.0,
                            2.0,
                            3.0,
                        )
                    )
                    moves.append((now - DAY // 9, order, a, state, 0, left, paid, side, 1, decided + 5))
                    cash -= side * piece * unit[a] * paid + fee + tax
                    held[a] += side * piece
                if left:
                    moves.append((now - DAY // 10, order, a, fate, 0, left, 1.0, side, 1, decided + 5))
        if flows and day % 7 == 3:
            amount = -float(rng.integers(1, 90))
            extra.append((now - 1, 0, FLOW_BORROW, amount, 0.0, held[0], len(fills)))
            extra.append((now - 1, -1, FLOW_FINANCING, amount / 3, math.nan, 0, len(fills)))
            cash += amount + amount / 3
        price = np.round(price * np.exp(rng.normal(0, 0.02, 3)), 4)
        marks += [(now, a, price[a]) for a in range(3)]
        worth = [held[a] * unit[a] * price[a] for a in range(3)]
        points.append((now, cash + sum(worth), sum(map(abs, worth)), sum(worth), len(fills), len(extra)))
    return _result(memory, fills, moves, points, extra, marks, held, price), dict(enumerate(held))


_COLUMNS = {
    "fills": [
        "time",
        "heard",
        "order",
        "slot",
        "asset",
        "side",
        "lots",
        "maker",
        "price",
        "reference",
        "fee",
        "tax",
        "spread",
        "slippage",
        "impact",
    ],
    "transitions": ["time", "order", "asset", "state", "reason", "lots", "price", "side", "kind", "active"],
    "curve": ["time", "equity", "gross", "net", "fills", "flows"],
    "flows": ["time", "asset", "kind", "amount", "price", "lots", "after"],
}


def _log(rows: list[tuple[float, ...]], kind: np.dtype, names: list[str]) -> np.ndarray:
    log = np.zeros(len(rows), kind)
    for name, column in zip(names, zip(*rows, strict=True), strict=False):
        log[name] = column
    return log


def _result(memory, fills, moves, points, flows, marks, held, price) -> Result:
    logs = {
        "fills": (fills, FILL),
        "transitions": (moves, TRANSITION),
        "curve": (points, POINT),
        "flows": (flows, memory.flows.dtype),
    }
    for name, (rows, kind) in logs.items():
        setattr(memory, name, _log(rows, kind, _COLUMNS[name]))
        memory.run[f"n_{name}"] = len(rows)
    memory.assets["lots"], memory.assets["last"] = held, price
    memory.run["settled"], memory.run["start_equity"] = len(fills), 1e6
    columns = tuple(np.array(column) for column in zip(*marks, strict=True))
    made = Provenance(strategy="random", costs="as drawn", seed=3)
    return Result.of(memory, symbols=SYMBOLS, start=START, cash=1e6, provenance=made, marks=lambda: columns)


SEEDS = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS, st.booleans())
def test_the_loop_agrees_with_any_fills(seed, flows):
    result, _ = ledger(seed, flows=flows)
    assert result.check("loop")["loop"] < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_vectorbt_agrees(seed):
    """Orders of an exact size, several in a day, short and long, fees and duties, borrow beside them."""
    result, _ = ledger(seed, flows=seed % 2 == 1)
    apart = result.check("vectorbt", "loop")
    assert 0 <= apart["vectorbt"] < 1e-9 and apart["loop"] < 1e-12


@pytest.mark.parametrize("referee", ["loop", "vectorbt"])
@pytest.mark.parametrize("field", ["price", "fee", "lots", "side"])
def test_a_fill_that_was_changed_is_found(referee, field):
    result, _ = ledger(1, steps=40)
    fills = result.logs.fills.copy()
    k = len(fills) // 2
    fills[field][k] = {
        "price": fills["price"][k] * 1.0001,
        "fee": fills["fee"][k] + 0.01,
        "lots": fills["lots"][k] + 1,
        "side": -fills["side"][k],
    }[field]
    with refused("QB-ENG-202", show=False):
        replace(result, logs=replace(result.logs, fills=fills)).check(referee)


def test_a_price_that_was_changed_is_found():
    result, held = ledger(2, steps=40)
    times, assets, prices = result.marks()
    worst = max(held, key=lambda a: abs(held[a]))
    moved = prices.copy()
    moved[np.flatnonzero(assets == worst)[-1]] *= 1.001
    with refused("QB-ENG-202", show=False):
        replace(result, marks=lambda: (times, assets, moved)).check("loop")


def test_splits_dividends_and_a_delisting_are_replayed():
    memory = Memory(3)
    t = [START + k * DAY for k in range(1, 6)]
    fills = [(t[0] - 9, t[0] - 9, 1, 0, 0, 1, 100, 0, 50.0, 50.0, 1.0, *[0.0] * 4)]
    flows = [
        (t[1] - 5, 0, FLOW_DIVIDEND, 200.0, 2.0, 100, 1),
        (t[2] - 5, 0, FLOW_SPLIT, 0.0, 3.0, 300, 1),
        (t[4] - 5, 0, FLOW_DELISTING, 300 * 15.0, 15.0, 0, 1),
    ]
    marks = [
        (t[0], 0, 52.0),
        (t[2], 0, 17.0),
        (t[3], 0, 16.0),
    ]  # no price on the second day: the one before, without the dividend
    worth = [
        1e6 - 5001 + 5200,
        1e6 - 5001 + 200 + 5000,
        1e6 - 4801 + 5100,
        1e6 - 4801 + 4800,
        1e6 - 4801 + 4500,
    ]
    points = [
        (time, value, 0.0, 0.0, 1, count)
        for time, value, count in zip(t, worth, (0, 1, 2, 2, 3), strict=True)
    ]
    result = _result(
        memory,
        fills,
        [(t[0] - 9, 1, 0, FILLED, 0, 0, 50.0, 1, 0, t[0] - 9)],
        points,
        flows,
        marks,
        [0, 0, 0],
        [15.0, 1.0, 1.0],
    )
    assert close(replay(result.logs, result.marks()), worth, rel=1e-12)
    assert set(result.check()) == {"loop"}  # vectorbt knows neither, and is left out unless it is named
    with refused("QB-ENG-204", show=False):
        result.check("vectorbt")
    assert close(result.trades["profit"].sum(), worth[-1] - 1e6) and result.trades["flows"].sum() == 200.0
    assert result.positions["quantity"].tolist() == [100.0, 300.0, 0.0]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_tables_have_naive_twins(seed):
    result, held = ledger(seed, steps=40)
    logs = result.logs
    orders, fills = result.orders.df, result.fills.df
    assert orders["order"].tolist() == sorted({*logs.transitions["order"].tolist()})
    final = {int(move["order"]): int(move["state"]) for move in logs.transitions}
    words = {FILLED: "filled", CANCELLED: "cancelled", EXPIRED: "expired", REJECTED: "rejected"}
    assert orders["state"].tolist() == [words[final[number]] for number in orders["order"]]
    by_order = fills.groupby("order")["quantity"].sum()
    assert close(orders["filled"], [by_order.get(number, 0.0) for number in orders["order"]])
    assert (orders["filled"] <= orders["quantity"] + 1e-9).all() and (
        orders["decided"] <= orders["done"]
    ).all()
    assert (
        orders.query("state == 'filled'")["filled"] == orders.query("state == 'filled'")["quantity"]
    ).all()
    assert list(result.rejections["reason"]) == [
        CHECKS[m["reason"]] for m in logs.transitions if m["state"] == REJECTED
    ]
    last = result.positions.df.groupby("symbol", observed=True)["quantity"].last()
    lots = logs.assets["lot"]
    assert all(close(last.get(name, 0.0), held[a] * lots[a], floor=1e-9) for a, name in enumerate(SYMBOLS))


def fifo(logs: Logs) -> float:
    """Closed profit less all fees, first in, first out."""
    profit, queues = 0.0, [deque(), deque(), deque()]
    for fill in logs.fills:
        a, side, left = int(fill["asset"]), int(fill["side"]), int(fill["lots"])
        unit = logs.assets["lot"][a] * logs.assets["multiplier"][a]
        while left and queues[a] and queues[a][0][0] != side:
            entry = queues[a][0]
            piece = min(left, entry[1])
            profit += entry[0] * piece * unit * (fill["price"] - entry[2])
            left, entry[1] = left - piece, entry[1] - piece
            if not entry[1]:
                queues[a].popleft()
        if left:
            queues[a].append([side, left, fill["price"]])
    return profit


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_trades_add_up_to_the_closed_profit(seed):
    result, _ = ledger(seed, steps=40)
    trades = result.trades.df
    paid = float((result.logs.fills["fee"] + result.logs.fills["tax"]).sum())
    still = float(trades["costs"].sum()) - paid
    assert abs(still) < 1e-6 * max(1.0, paid)
    closed = trades["closed"].notna()
    opened = trades[~closed]
    # profit is net of the fees of what is closed; fees of what is open are in `costs` alone
    assert trades["profit"].sum() <= fifo(result.logs) + 1e-6
    assert trades["profit"].sum() >= fifo(result.logs) - paid - 1e-6
    assert len(opened) <= 3 and trades["quantity"].gt(0).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_costs_and_assets_add_up(seed):
    result, _ = ledger(seed, steps=40, flows=True)
    logs, sums = result.logs, cost_sums(result.logs)
    fills = logs.fills
    assert close(sums["fee"], fills["fee"].sum()) and close(sums["impact"], 3.0 * len(fills))
    assert close(sums["borrow"], -logs.flows["amount"][logs.flows["kind"] == FLOW_BORROW].sum(), floor=1e-12)
    final = float(logs.curve["equity"][-1])
    interest = float(logs.flows["amount"][logs.flows["asset"] < 0].sum())
    assert close(float(result.assets["profit"].sum()) + interest, final - 1e6, rel=1e-8, floor=1e-5)
    gross = final - 1e6 + sum(sums.values())
    assert close(cost_share(logs), sum(sums.values()) / gross) if gross > 0 else math.isnan(cost_share(logs))
    assert close(result.turnover["traded"].sum(), traded(logs).sum()) and close(
        result.assets["traded"].sum(), traded(logs).sum()
    )


def test_frames_are_the_same_three_ways():
    result, _ = ledger(5)
    for name in (
        "equity",
        "returns",
        "orders",
        "fills",
        "rejections",
        "positions",
        "trades",
        "costs",
        "assets",
        "exposure",
        "turnover",
    ):
        frame = getattr(result, name)
        assert list(frame.df.columns) == frame.arrow.column_names == frame.pl.columns, name
        assert len(frame) == len(frame.df) == len(frame.pl) and frame is getattr(result, name)
        for column in ("time", "decided", "opened", "month"):
            if column in frame.arrow.column_names:
                assert str(frame.df[column].dtype) == "datetime64[ns, UTC]"


def test_a_copy_of_the_logs_does_not_change_with_the_run():
    memory = Memory(1)
    memory.run["n_curve"] = 2
    memory.curve["time"][:2], memory.curve["equity"][:2] = (START, START + DAY), 100.0
    logs = Logs.of(memory, ("AAA",), START - DAY, 100.0)
    before = digest(logs)
    memory.curve["equity"][:] = 1.0
    memory.run["n_curve"] = 1
    assert digest(logs) == before
    with pytest.raises(ValueError, match="read-only"):
        logs.curve["equity"][0] = 2.0


def test_hash_names_content_alone():
    result, _ = ledger(6)
    logs = result.logs
    seen = {result.hash}
    slots = logs.fills.copy()
    slots["slot"] += 7  # where an order lay in memory is no history
    assert digest(replace(logs, fills=slots)) == result.hash
    assert replace(result, provenance=Provenance(seed=99)).hash == result.hash
    for name in ("fills", "transitions", "curve"):
        for column in getattr(logs, name).dtype.names:
            changed = getattr(logs, name).copy()
            changed[column][3] += 1
            if (name, column) != ("fills", "slot"):
                seen.add(digest(replace(logs, **{name: changed})))
        seen.add(digest(replace(logs, **{name: getattr(logs, name)[:-1]})))
    seen |= {
        digest(replace(logs, cash=(1e6 + 1e-9,))),
        digest(replace(logs, start=START - 1)),
        digest(replace(logs, symbols=("A", "B", "C"))),
    }
    columns = sum(len(getattr(logs, name).dtype.names) for name in ("fills", "transitions", "curve")) - 1
    assert len(seen) == 1 + columns + 3 + 3


@pytest.mark.parametrize(
    ("name", "column"), [("fills", "price"), ("transitions", "reason"), ("curve", "equity")]
)
def test_the_first_difference_is_named(name, column):
    result, _ = ledger(7)
    changed = getattr(result.logs, name).copy()
    changed[column][[10, 20]] += 1
    found = result.compare(replace(result, logs=replace(result.logs, **{name: changed})))
    assert (found.log, found.row, found.column) == (name, 10, column) and found.ours + 1 == found.theirs
    shorter = result.compare(replace(result, logs=replace(result.logs, **{name: changed[:5]})))
    assert (shorter.log, shorter.row, shorter.column) == (name, 5, "rows")
    assert result.compare(pickle.loads(pickle.dumps(result))) is None  # noqa: S301


def test_a_pickled_result_is_the_same_without_its_tape():
    result, _ = ledger(8)
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert again.hash == result.hash and again.golden() == result.golden() and repr(again) == repr(result)
    with refused("QB-ENG-203", show=False):
        again.check()


def test_a_referee_that_is_not_installed_is_named(monkeypatch):
    result, _ = ledger(9, steps=5)
    real = builtins.__import__

    def missing(name, *rest):
        if name == "vectorbt":
            raise ImportError("No module named 'vectorbt'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with refused("QB-ENG-200", show=False):
        result.check("vectorbt")
    with refused("QB-ENG-204", show=False):
        result.check("zipline")


def test_marks_stand_on_the_card():
    result, _ = ledger(10)
    assert warnings_of(result) == []
    made = replace(
        result.provenance,
        optimistic=True,
        same_close=True,
        execution="closing auction",
        research_limits=True,
        limits="gross 1",
    )
    marked = replace(result, provenance=made)
    assert len(warnings_of(marked)) == 3 and all(note[:20] in repr(marked) for note in warnings_of(marked))
    steep = result.logs.curve.copy()
    steep["equity"] = 1e6 * np.exp(0.01 * np.arange(len(steep)) + 0.001 * np.sin(np.arange(len(steep))))
    assert "above 3" in repr(replace(result, logs=replace(result.logs, curve=steep)))
    steep["equity"][-3:] = -5.0
    assert "at or below zero" in repr(replace(result, logs=replace(result.logs, curve=steep)))


def test_a_run_without_trades_has_a_card():
    memory = Memory(3)
    points = [(START + k * DAY, 1e6, 0.0, 0.0) for k in range(1, 90)]
    result = _result(memory, [], [], points, [], [(START, 0, 1.0)], [0, 0, 0], [1.0, 1.0, 1.0])
    assert result.check("loop")["loop"] == 0.0 and len(result.trades) == len(result.orders) == 0
    assert (
        "0 trades" in repr(result) and math.isnan(result.metrics["Sharpe"]) and result.golden()["fills"] == 0
    )


def test_a_run_of_ticks_states_that_it_has_no_frequency():
    memory = Memory(3)
    rng = np.random.default_rng(0)
    times = START + np.cumsum(rng.exponential(1e9, 500)).astype(int)
    points = list(
        zip(
            times.tolist(),
            (1e6 + np.cumsum(rng.normal(0, 10, 500))).tolist(),
            [0.0] * 500,
            [0.0] * 500,
            strict=True,
        )
    )
    result = _result(memory, [], [], points, [], [(START, 0, 1.0)], [0, 0, 0], [1.0, 1.0, 1.0])
    assert math.isnan(result.metrics["Sharpe"]) and result.metrics["max drawdown"] < 0
    assert "unclear" in repr(result)


@pytest.mark.parametrize("what", ["equity", "underwater", "months", "returns", "trades"])
def test_plots_are_drawn(what):
    result, _ = ledger(11)
    assert plot(result, what).png()[:4] == b"\x89PNG"
