"""Defects that other systems had, with the place where their users reported them, played here. What has no meaning here is not in this list: leaks are in `test_leakage`, the mute stream of
alpaca-py #740 is in `test_alpaca`, the missing account of NautilusTrader #4011 in `test_guard`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from orderdesk import Desk, fill

from quantbench.core.journal import read
from quantbench.core.types import OrderState
from quantbench.engine.backtest import backtest
from quantbench.engine.strategy import Strategy
from quantbench.engine.tape import Tape
from quantbench.engine.window import state


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
