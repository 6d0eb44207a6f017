"""Defects that other systems had, with the place where their users reported them, played here: all twenty-four of the list that this project set itself.

What the report says is in the test's name and its first line; what is asserted is the same situation in this system. Two of them were reported of tools that have no counterpart in the order path: a database
that one process locks for all others (DuckDB), and a sum that depends on threads (Polars); they are played on the lake, which rests on both libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import guards
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from orderdesk import Desk, fill

import quantbench
from quantbench.core.clock import SimClock
from quantbench.core.journal import read
from quantbench.core.settings import Gates
from quantbench.core.types import OrderState, Venue
from quantbench.data.snapshot import Snapshot
from quantbench.data.store import Lake
from quantbench.engine.backtest import backtest
from quantbench.engine.events import KIND_BAR, made, merged
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.gates.leakage import leakage
from quantbench.risk.limits import REQUIRED


def filled(desk: Desk, quantity: int = 100) -> str:
    name = desk.buy(quantity).client_id
    desk.truth.fill(name, Decimal(quantity), Decimal("180.00"))
    desk.oms.pump()
    return name


def kinds(desk: Desk) -> list[str]:
    return [record.kind for record in read(desk.journal.path)]


def test_nautilus_4736_a_warm_restart_keeps_the_position(tmp_path: Path):
    desk = Desk(tmp_path)
    filled(desk)
    for _ in range(3):
        desk.restart()
        desk.wait()
    assert desk.oms.positions == {"AAPL": 100} and len(desk.submits()) == 1
    desk.agree()


def test_nautilus_3046_fills_are_not_booked_again_at_a_restart(tmp_path: Path):
    desk = Desk(tmp_path)
    name = filled(desk)
    desk.restart()
    for report in desk.broker.fills_since(desk.oms.orders[name].intent.order.time):
        desk.oms.take(report)
    assert kinds(desk).count("order.fill") == 1 and desk.oms.positions["AAPL"] == 100


def test_nautilus_3878_a_restart_makes_up_no_new_fills(tmp_path: Path):
    desk = Desk(tmp_path)
    filled(desk)
    first = [record.payload for record in read(desk.journal.path) if record.kind == "order.fill"]
    for _ in range(5):
        desk.restart()
        desk.wait()
    assert [record.payload for record in read(desk.journal.path) if record.kind == "order.fill"] == first


def test_nautilus_3176_and_hummingbot_601_a_restart_sends_nothing_again(tmp_path: Path):
    desk = Desk(tmp_path, script=["ack_lost", "request_lost", "error"])
    for _ in range(3):
        desk.buy(10)
    for _ in range(3):
        desk.restart()
        desk.wait(120, 30)
    assert len(desk.submits()) == 3 and all(held.times == 1 for held in desk.truth.orders.values())


def test_hummingbot_601_the_same_request_twice_is_one_order(tmp_path: Path):
    desk = Desk(tmp_path)
    names = {desk.buy(10, reference="rebalance-7").client_id for _ in range(5)}
    desk.restart()
    names.add(desk.buy(10, reference="rebalance-7").client_id)
    assert len(names) == 1 and len(desk.submits()) == 1


def test_nautilus_4958_no_answer_is_not_a_rejection(tmp_path: Path):
    desk = Desk(tmp_path, script=["delayed"], delay=150.0)
    name = desk.buy(10).client_id
    desk.broker._later[0] = (
        desk.clock.now() + pd.Timedelta(seconds=150).to_pytimedelta(),
        *desk.broker._later[0][1:],
    )
    desk.wait(140, 35)
    assert desk.oms.orders[name].doubtful and desk.oms.orders[name].state is OrderState.PENDING
    desk.wait(60, 20)
    assert not desk.oms.orders[name].doubtful and desk.oms.orders[name].state is OrderState.SUBMITTED
    desk.agree()


def test_lean_ib_249_fills_during_an_outage_are_recovered(tmp_path: Path):
    desk = Desk(tmp_path)
    name = desk.buy(100).client_id
    desk.oms.pump()
    desk.broker.down = True
    for part in (30, 30, 40):
        desk.truth.fill(name, Decimal(part), Decimal("179.50"))
        desk.wait(30)
    assert not desk.oms.positions
    desk.broker.down = False
    desk.restart()
    desk.agree()


def test_lean_alpaca_61_a_fill_that_is_told_three_times_is_booked_once(tmp_path: Path):
    desk = Desk(tmp_path)
    name = desk.buy(100).client_id
    for _ in range(3):
        desk.oms.take(fill(name, 60, "180.00", "e1", 60))
    desk.oms.take(fill(name, 40, "180.00", "e2", 100))
    desk.oms.take(fill(name, 60, "180.00", "e1", 60))
    assert desk.oms.positions["AAPL"] == 100 and desk.oms.orders[name].state is OrderState.FILLED


@pytest.mark.parametrize("seen", [1, 4])
def test_lean_tradestation_95_frames_that_are_dropped_are_found(tmp_path: Path, seen: int):
    desk = Desk(tmp_path)
    name = desk.buy(18).client_id
    desk.oms.pump()
    for number in range(18):
        desk.truth.fill(name, Decimal(1), Decimal("180.00"))
        if number not in range(18 - seen, 18):
            desk.truth.told.clear()  # healthy stream, lost frame
    desk.wait()
    desk.agree()
    assert desk.oms.orders[name].state is OrderState.FILLED


def test_lean_tradestation_91_and_66_a_cancel_that_stays_pending_ends_or_halts(tmp_path: Path):
    desk = Desk(tmp_path)
    name = desk.buy(10).client_id
    desk.broker.script.extend(["request_lost"] * 200)
    desk.oms.cancel(name)
    asked = len(desk.broker.calls)
    desk.wait(120, 120)
    assert desk.oms.halted.startswith("QB-OMS-022") and len(desk.broker.calls) - asked < 12
    desk.broker.script.clear()
    desk.wait(60)
    assert desk.oms.orders[name].state is OrderState.CANCELLED


def test_hummingbot_8457_an_order_is_not_lost_because_a_name_does_not_resolve(tmp_path: Path):
    desk = Desk(tmp_path)
    name = desk.buy(10).client_id
    desk.broker.down = True
    desk.wait(3600, 60)
    desk.truth.fill(name, Decimal(10), Decimal("180.00"))
    desk.truth.told.clear()
    desk.broker.down = False
    desk.restart()
    desk.wait()
    desk.agree()
    assert desk.oms.orders[name].state is OrderState.FILLED


def test_hummingbot_3374_an_order_whose_cancel_was_lost_is_not_forgotten(tmp_path: Path):
    """Six of them filled hours later, and six times too much was bought."""
    desk = Desk(tmp_path, script=["ok", "request_lost"])
    first = desk.buy(10).client_id
    desk.oms.cancel(first)
    desk.broker.down = True
    desk.wait(30, 10)
    assert first in desk.guardian.open and not desk.oms.orders[first].state.terminal  # it counts
    desk.broker.down = False
    desk.wait(120, 12)
    assert desk.truth.orders[first].state is OrderState.CANCELLED
    assert desk.oms.orders[first].state is OrderState.CANCELLED and first not in desk.guardian.open


def test_alpaca_py_740_a_stream_that_is_open_and_says_nothing_is_seen(tmp_path: Path):
    """It stays connected for hours; what it did not tell is found when the broker is asked."""
    desk = Desk(tmp_path)
    name = desk.buy(10).client_id
    desk.oms.pump()
    desk.broker.mute_until = desk.clock.now() + timedelta(hours=3)
    desk.truth.fill(name, Decimal(10), Decimal("180.00"))
    desk.wait(15, 15)
    assert desk.broker.silent_seconds() >= 15 and not desk.oms.positions
    desk.oms.look_again()
    assert desk.buy(1).code == "QB-OMS-005"  # nothing leaves before the broker has answered
    desk.wait(1, 1)
    desk.agree()
    assert desk.oms.orders[name].state is OrderState.FILLED


# ---- of Guardian


def test_nautilus_4946_no_control_is_skipped_because_the_order_is_routed_elsewhere(tmp_path: Path):
    """The account stood under the broker's name, the asset under the venue's; 153 million passed a limit of ten."""
    routed = guards.share("AAPL", venue=Venue("SMART", "XNYS"))
    desk = guards.Desk(tmp_path, assets=(routed,), limits={"max_order_ccy": 5_000.0})
    ruling = desk.ask(500_000, asset=routed, limit="100.00")
    assert not ruling.accepted and {check.control for check in ruling.checks} == REQUIRED
    assert guards.verdict(ruling, "G02") == guards.verdict(ruling, "G13") == "fail"
    assert desk.ask(10, asset=routed).accepted


def test_nautilus_4011_without_an_account_nothing_passes(tmp_path: Path):
    """A missing account was `True`."""
    desk = guards.Desk(tmp_path, told=False)
    desk.guardian.note_reconciliation(desk.clock.now(), clean=True)
    desk.guardian.note_clock(0.0)
    for asset in desk.assets:
        desk.guardian.learn(asset.id, volume=1e6, volatility=0.02, days=300)
    desk.hear()
    ruling = desk.ask(1)
    assert not ruling.accepted and guards.verdict(ruling, "G13") != "pass"
    desk.account()
    assert desk.ask(1).accepted


# ---- of the data


def test_duckdb_13079_a_reader_keeps_nobody_from_writing(tmp_path: Path):
    """A program that was started twice could not open its own file: here no database is a file."""
    clock = SimClock(datetime(2026, 3, 2, tzinfo=UTC))
    lake = Lake.create(tmp_path / "lake", clock=clock)
    rows = Snapshot("rows", pa.table({"x": [1, 2]}), clock.now(), 0, "latest")
    assert rows.sql("select sum(x) as x from rows")["x"].to_pylist() == [3]
    lake.version("observations")  # and is held open
    other = f"""
from pathlib import Path
from datetime import datetime, UTC
from quantbench.core.clock import SimClock
from quantbench.data.store import Lake
print(Lake(Path({str(tmp_path / "lake")!r}), clock=SimClock(datetime(2026, 3, 2, tzinfo=UTC))).version("observations"))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    package = Path(quantbench.__file__).parent
    opened = [
        m
        for file in package.rglob("*.py")
        for m in re.findall(r"duckdb\.connect\(([^,)]*)", file.read_text())
    ]
    assert opened == ['":memory:"']


def test_polars_25163_a_sum_by_groups_is_the_same_every_time():
    rng = np.random.default_rng(25163)
    table = pa.table({"x": rng.integers(0, 50, 200_000), "y": rng.normal(0, 1e6, 200_000)})
    seen = set()
    for threads in (1, 2) * 3:
        pa.set_cpu_count(threads)
        rows = Snapshot("rows", table, datetime(2026, 3, 2, tzinfo=UTC), 0, "latest")
        sums = rows.sql("select x, sum(y) as y from rows group by x order by x")
        seen.add(np.asarray(sums["y"]).tobytes())
    assert len(seen) == 1


# ---- of the engine


class Once(Strategy):
    at: int = 1
    count: int = state(0)

    def on_bar(self, bar, market):
        self.count += 1
        if self.count == self.at:
            market.buy(bar.asset, 10.0)


def days(opens: list[float]) -> Tape:
    index = pd.bdate_range("2026-03-02", periods=len(opens))
    prices = np.array(opens)
    frame = pd.DataFrame(
        {"open": prices, "high": prices + 2, "low": prices - 2, "close": prices + 1, "volume": 1e6}, index
    )
    return Tape.from_bars(frame, symbol="AAPL", calendar="XNYS", tz="America/New_York", adjustment="raw")


def test_nautilus_5054_an_order_at_the_end_of_a_day_does_not_fill_at_a_stale_price():
    tape = days([100.0, 150.0, 151.0])
    fills = backtest(Once(at=1), tape).fills.df
    assert fills["reference"].iloc[0] == 150.0 and fills["time"].iloc[0].date().isoformat() == "2026-03-03"


def test_nautilus_1537_a_bar_is_known_at_its_end():
    tape = days([100.0, 101.0]).load()
    assert pd.Timestamp(tape.events["known"][0], tz="UTC").tz_convert("America/New_York").hour == 16


def bars(closes: dict[int, float], asset: int) -> Any:
    """Daily bars: the day and its close."""
    known = 1_704_229_200_000_000_000 + 86_400_000_000_000 * np.array(list(closes))
    close = np.array(list(closes.values()))
    body = {
        "open": close,
        "high": close + 1,
        "low": close * 0.9,
        "close": close,
        "volume": np.full(len(close), 1e6),
    }
    return made(KIND_BAR, known=known, since=known - 23_400_000_000_000, asset=asset, **body)


SEEN: list[Any] = []


class Watches(Strategy):
    """Notes what the price of the second asset is when the first one trades."""

    def on_bar(self, bar, market):
        if bar.asset == 0:
            SEEN.append(market.price(1))


def test_gs_quant_362_a_day_without_a_price_has_the_last_one_not_a_later_one():
    """Series 1.0 on the first and 3.0 on the fifth: on the third it gave 3.0."""
    SEEN.clear()
    events = merged([bars({day: 100.0 + day for day in range(1, 6)}, 0), bars({1: 1.0, 5: 3.0}, 1)])
    tape = Tape.from_events(events, assets_of(["FULL", "GAPS"], "equity", "24/7"), interval="1d")
    backtest(Watches, tape)
    assert SEEN[1:4] == [1.0, 1.0, 1.0]


class Remembers(Strategy):
    """What a hook is given of the past ends with the bar that it is called for."""

    history = {"close": 5}  # noqa: RUF012

    def on_bar(self, bar, market):
        SEEN.append((bar.close, float(market.history("close", bar.asset)[-1])))


def test_freqtrade_5391_the_past_has_no_row_of_the_future():
    """A frame that was kept from one run to the next had a bar too many."""
    tape = days([100.0 + n for n in range(20)])
    for _ in range(2):
        SEEN.clear()
        backtest(Remembers, tape, lane="interpreted")
        assert len(SEEN) == 20 and all(now == last for now, last in SEEN)


# ---- of the detector of leaks


class Shares(Strategy):
    """Each asset of so many gets an equal part; who is above its average."""

    assets: int = 1
    count: int = state(0)

    def on_bar(self, bar, market):
        self.count += 1
        market.target_weight(bar.asset, 0.9 / self.assets if self.count // self.assets % 7 < 4 else 0.0)


class Waits(Strategy):
    """A limit well below, that fills bars later or never."""

    count: int = state(0)

    def on_bar(self, bar, market):
        self.count += 1
        if self.count % 9 == 1:
            market.cancel_all(bar.asset)
            market.buy(bar.asset, 10.0, limit=bar.close * 0.985, tif="gtc")
        elif market.position(bar.asset) > 30.0:
            market.sell(bar.asset, 30.0, limit=bar.close * 1.01, tif="gtc")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda tape: Study(Shares(assets=len(tape.symbols)), tape),
            id="13547: sizes by the number of assets",
        ),
        pytest.param(lambda tape: Study(Waits(), tape), id="12168: entries long after the signal"),
    ],
)
def test_freqtrade_13547_and_12168_no_alarm_where_nothing_leaks(make):
    """Both were called biased because the second run had fewer pairs, or the fill came later than the next bar."""
    tape = Tape.synthetic(assets=("A", "B", "C"), sessions=80, seed=13547)
    verdict = leakage(make(tape), Gates(), remake=lambda moment: make(tape.truncate(moment)), times=40)
    assert verdict.passed, verdict
    assert len(backtest(make(tape).strategy, tape).fills) > 5
