"""A whole run, by its public doors: what strategies can do wrong, what stays the same, what is kept, what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.engine import memory
from quantbench.engine.backtest import Latency, Session, backtest
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.guardian import Limits
from quantbench.engine.memory import CHECKS, REJECTED, SUBMITTED
from quantbench.engine.orders import REASONS
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.tape import Tape
from quantbench.engine.window import state, window
from quantbench.portfolio.costs import Costs

ROOT = Path(__file__).resolve().parent.parent
MINUTE = 60_000_000_000
LANES = ("compiled", "interpreted")


def bars(count: int = 300, assets: int = 1, volume: float = 1e6, seed: int = 5) -> Tape:
    """Minutes of a random walk."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count * assets, BAR)
    events["known"] = 1_600_000_020_000_000_000 + MINUTE * np.repeat(np.arange(1, count + 1), assets)
    events["since"], events["kind"] = events["known"] - MINUTE, KIND_BAR
    events["asset"] = np.tile(np.arange(assets), count)
    walk = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, (count, assets)), axis=0))
    close = np.round(walk, 2)
    events["open"] = np.r_[np.full((1, assets), 100.0), close[:-1]].ravel()
    events["close"] = close.ravel()
    events["high"] = np.maximum(events["open"], events["close"]) + 0.01
    events["low"] = np.minimum(events["open"], events["close"]) - 0.01
    events["volume"] = volume
    return Tape.from_events(
        events, assets_of([f"A{i}" for i in range(assets)], "equity", "24/7"), interval="1m"
    )


class Cross(Strategy):
    fast: int = param(5, low=1, high=100)
    slow: int = param(20, low=2, high=100)
    quick = window("fast")
    steady = window("slow")

    def on_bar(self, bar: Any, market: Any) -> None:
        self.quick.push(bar.close)
        self.steady.push(bar.close)
        if self.steady.full:
            market.target(bar.asset, 100.0 if self.quick.mean() > self.steady.mean() else 0.0)


class Raises(Strategy):
    seen: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen += 1
        if self.seen == 3:
            market.buy(bar.asset, 10.0)
        if self.seen == 200:
            self.seen = 1 // (self.seen - 200)  # line that is named


class Many(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        for i in range(10_000):
            market.buy(bar.asset, 1.0 + i)


class NotANumber(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        market.buy(bar.asset, bar.close * float("nan"))
        market.target(bar.asset, bar.close * float("inf"))
        market.buy(bar.asset, -5.0)
        market.buy(bar.asset, 1e300)


class Mutates(Strategy):
    length: int = param(5, low=1, high=10)

    def on_bar(self, bar: Any, market: Any) -> None:  # noqa: ARG002
        self.__dict__["length"] = 7  # around the assignment that would be refused when it is read


class Past(Strategy):
    history = {"close": 10}  # noqa: RUF012

    def on_bar(self, bar: Any, market: Any) -> None:  # noqa: ARG002
        market.history("close", 11)


class Elsewhere(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:  # noqa: ARG002
        market.buy(7, 1.0)


# ---- bad strategies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
def test_a_strategy_that_raises_is_named_and_the_run_is_kept_up_to_there(lane):
    tape = bars()
    with pytest.raises(QuantbenchError) as told:
        backtest(Raises(), tape, lane=lane)
    line = next(
        n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "line that is" in text
    )
    text = str(told.value)
    assert told.value.code == "QB-ENG-014" and f"Raises.on_bar, line {line}" in text
    assert "ZeroDivisionError" in text and str(int(tape.events["known"][199])) in text
    assert "'seen': 199" in text or "'seen': 200" in text  # before the call, or as the line left it
    kept = told.value.result
    whole = backtest(Cross(), tape)
    assert len(kept.logs.fills) == 1 and len(kept.logs.curve) == 199 < len(whole.logs.curve)
    assert np.array_equal(kept.logs.curve["time"], whole.logs.curve["time"][:199])


@pytest.mark.parametrize("lane", LANES)
def test_ten_thousand_orders_a_bar_are_throttled(lane):
    """Each of the 50,000 was sent or is counted as stopped; the message rate lets a few thousand a minute through."""
    session = Session(Many(), bars(5), cash=1e9, lane=lane)
    for chunk in session.tape.chunks():
        session.feed(chunk)
    session.finish()
    moved = session.memory.used("transitions")
    sent, stopped = (moved["state"] == SUBMITTED).sum(), session.memory.run["stopped"][0]
    assert sent + stopped.sum() == 50_000
    assert 0 < sent < 5 * 3_000 and stopped[CHECKS.index("rate")] > 10_000


@pytest.mark.parametrize("lane", LANES)
def test_a_quantity_that_is_no_quantity_is_a_rejection(lane):
    result = backtest(NotANumber(), bars(20), lane=lane)
    moved = result.logs.transitions
    assert (moved["state"] == REJECTED).sum() == 4 * 20 and len(result.logs.fills) == 0
    assert {REASONS[r] for r in moved["reason"]} == {"finite", "quantity"}


def test_a_parameter_that_changed_is_found_at_the_end():
    with pytest.raises(QuantbenchError, match="QB-ENG-011"):
        backtest(Mutates(), bars(3))


def test_reading_further_back_than_kept_is_refused():
    with pytest.raises(QuantbenchError) as told:
        backtest(Past(), bars(3))
    assert told.value.code == "QB-ENG-014" and "10" in str(told.value)


@pytest.mark.parametrize("lane", LANES)
def test_an_asset_that_is_not_on_the_tape_is_refused(lane):
    """Compiled hooks check the index too: there is no other net below them."""
    try:
        result = backtest(Elsewhere(), bars(3), lane=lane)
    except QuantbenchError as refused:
        assert refused.code == "QB-ENG-014"
    else:
        assert len(result.logs.fills) == 0 and (result.logs.transitions["state"] == REJECTED).sum() == 3


# ---- bad set-ups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        ({"cash": float("nan")}, "QB-ENG-241"),
        ({"participation": 1.5}, "QB-ENG-241"),
        ({"margin": 0.0}, "QB-ENG-241"),
        ({"latency": {"order_seconds": -1.0}}, "QB-ENG-241"),
        ({"lane": "fast"}, "QB-ENG-012"),
    ],
)
def test_a_choice_out_of_range_is_refused(choices, code):
    with pytest.raises(QuantbenchError) as told:
        if "latency" in choices:
            choices = {"latency": Latency(**choices["latency"])}
        backtest(Cross(), bars(3), **choices)
    assert told.value.code == code


def test_a_cap_on_participation_needs_a_volume():
    with pytest.raises(QuantbenchError, match="QB-ENG-242"):
        backtest(Cross(), bars(30, volume=float("nan")), participation=0.1)
    with pytest.raises(QuantbenchError, match="QB-ENG-242"):
        backtest(Cross(), bars(30, volume=float("nan")), costs=Costs.us_equity())
    assert len(backtest(Cross(), bars(300, volume=float("nan")), costs=Costs.free()).logs.fills)


# ---- no net but Guardian -----------------------------------------------------------------------------------------------


class Wild(Strategy):
    """Sizes and places of every kind, from a generator that each lane draws alike."""

    seed: int = state(1)

    def on_bar(self, bar: Any, market: Any) -> None:
        for _ in range(30):
            self.seed = (self.seed * 1103515245 + 12345) % 2147483648
            size = float(self.seed % 7 - 3)
            if size > 0.0:
                market.buy(bar.asset, size * 0.4)
            else:
                market.sell(bar.asset, 1.0 - size, limit=float(int(bar.close) + self.seed % 11), tif="gtc")


@pytest.mark.parametrize("lane", LANES)
def test_no_order_harms_memory_even_where_limits_refuse_nothing(lane):
    """Every number of the limits at its widest: orders of no lots, hundreds open at a time, cash far below zero."""
    wide = Limits.research(1e9, leverage=1e3)
    session = Session(Wild(), bars(60, assets=3), cash=1e6, limits=wide, lane=lane, margin=0.01)
    for chunk in session.tape.chunks():
        session.feed(chunk)
    session.finish()
    memory, run = session.memory, session.memory.run[0]
    open_orders = memory.orders[memory.orders["id"] > 0]
    assert run["n_open"] > 64 and run["n_fills"] > 100
    fills = memory.used("fills")
    for a, asset in enumerate(memory.assets):
        mine = fills[fills["asset"] == a]
        assert (mine["lots"] > 0).all() and (mine["lots"] * mine["side"]).sum() == asset["lots"]
        assert asset["n_open"] == (open_orders["asset"] == a).sum() or asset["n_open"] <= run["n_open"]
    cash = 1e6 - sum(f["price"] * f["lots"] * f["side"] * memory.assets["lot"][f["asset"]] for f in fills)
    assert cash - (fills["fee"] + fills["tax"]).sum() == pytest.approx(memory.cash[0], rel=1e-12)


# ---- the same bytes ----------------------------------------------------------------------------------------------------


def test_one_thread_or_two_give_the_same_bytes():
    tapes = [bars(400, seed=s) for s in range(6)]
    alone = [backtest(Cross(), tape).hash for tape in tapes]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda tape: backtest(Cross(), tape).hash, tapes))
    assert together == alone and len(set(alone)) == 6


def test_no_order_of_hashing_gets_in():
    code = "import sys; sys.path.insert(0, 'tests'); import test_backtest as t; print(t.backtest(t.Wild(), t.bars(40, 2)).hash)"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "NUMBA_NUM_THREADS": threads},
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed, threads in (("0", "1"), ("1", "2"))
    }  # fmt: skip
    assert found == {backtest(Wild(), bars(40, 2)).hash}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("size", [1, 7, 128])
def test_event_by_event_is_the_same_run(lane, size):
    tape = bars(200, assets=2)
    choices = {"lane": lane, "latency": Latency(order_seconds=30.0), "participation": 0.1}
    session = Session(Cross(), tape, **choices)
    for i in range(0, len(tape), size):
        session.feed(tape.events[i : i + size].copy())
    session.finish()
    assert session.result().hash == backtest(Cross(), tape, **choices).hash


def test_every_decision_is_the_same_whatever_comes_after():
    """At every bar: the tape ends there, or goes on with other prices."""
    tape = bars(150)
    kept = backtest(Cross(), tape)

    def decided(result: Any, until: int) -> Any:
        moved = result.logs.transitions
        return moved[(moved["time"] <= until) & np.isin(moved["state"], (1, REJECTED))][
            ["time", "order", "lots", "side"]
        ]

    assert len(decided(kept, 2**62)) >= 6
    for moment in map(int, tape.events["known"][1:]):
        before = decided(kept, moment)
        assert np.array_equal(decided(backtest(Cross(), tape.truncate(moment)), moment), before)
        if moment < tape.events["known"][-1]:
            assert np.array_equal(decided(backtest(Cross(), tape.poison(moment, 3)), moment), before)


# ---- what a run leaves behind ---------------------------------------------------------------------------------------------


def test_a_thousand_runs_leave_nothing_behind():
    """Resident memory after 50 runs and after 1,050."""
    code = """
import gc, sys
sys.path.insert(0, "tests")
import test_backtest as t
tape = t.bars(300)
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def play(count):
    for n in range(count):
        t.backtest(t.Cross(fast=2 + n % 10), tape)
play(50)
before = resident()
play(1000)
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20.0


def test_a_latency_moves_fills_and_the_lanes_agree():
    tape = bars(300)
    late = {
        lane: backtest(Cross(), tape, lane=lane, latency=Latency(order_seconds=90.0, spread=0.5))
        for lane in LANES
    }
    assert late["compiled"].hash == late["interpreted"].hash
    soon = backtest(Cross(), tape)
    assert (late["compiled"].logs.fills["time"][:5] > soon.logs.fills["time"][:5]).all()
    assert timedelta(0) < timedelta(
        microseconds=int(late["compiled"].logs.fills["time"][0] - soon.logs.fills["time"][0]) / 1000
    )


def test_what_was_in_the_memory_of_a_log_changes_nothing(monkeypatch):
    """Logs lie in memory of earlier runs: every field that is read must have been written."""
    tape = bars(2000, assets=2)
    clean = backtest(Cross(), tape)

    def soiled(count: int, kind: np.dtype) -> Any:
        room = np.empty(count, kind)
        room.view("u1")[:] = 0xA5
        return room

    monkeypatch.setattr(memory, "lent", soiled)
    dirty = backtest(Cross(), tape)
    assert dirty.hash == clean.hash and dirty.compare(clean) is None and len(clean.fills) > 10
