"""The paper broker as an adapter: the conformance suite, and cancels that are confirmed when their time has come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from lived import MINUTE, minutes, moment
from orderdesk import Lenient, Quick

from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal
from quantbench.core.types import Order, OrderState, OrderType, Side, TimeInForce
from quantbench.engine.backtest import Latency, Session, Setup
from quantbench.engine.memory import CANCELLED
from quantbench.engine.strategy import Strategy
from quantbench.engine.window import state
from quantbench.execution.broker import Arrival, Outcome, Seal, Told
from quantbench.execution.conformance import CASES, conform
from quantbench.execution.live import Live
from quantbench.execution.oms import Oms
from quantbench.execution.paper import PaperBroker
from venues.paper import SENSELESS, PaperStage, paper

QUICK = Latency(order_seconds=0.1, cancel_seconds=0.5)


def test_the_paper_broker_conforms():
    """What is not applicable needs a wire, or cannot happen in a simulated market; everything else is passed."""
    found = conform(paper)
    assert not found.failed, found.failed
    stage = PaperStage()
    skipped = {one.case: one.evidence for one in found.results if one.result == "not applicable"}
    needs_a_wire = {case.number for case in CASES if case.faults - stage.faults}
    assert set(skipped) == needs_a_wire | set(SENSELESS)
    assert {number: skipped[number] for number in SENSELESS} == SENSELESS
    assert sum(one.result == "passed" for one in found.results) == 27


def broken(**methods: Any) -> type[PaperBroker]:
    return type("Broken", (PaperBroker,), methods)


def tells(change: Any) -> type[PaperBroker]:
    return broken(reports=lambda self: tuple(filter(None, map(change, PaperBroker.reports(self)))))


def deaf(told: Told) -> type[PaperBroker]:
    return tells(lambda r: None if r.told is told else r)


def refuses(self: Any, client_id: str) -> Any:
    answer = PaperBroker.cancel_order(self, client_id)
    return replace(answer, outcome=Outcome.REFUSED) if answer.outcome is Outcome.UNKNOWN else answer


DEFECTS = {
    1: broken(submit_order=lambda self, order: self._submit(order.intent)),
    18: deaf(Told.ACCEPTED),
    19: tells(lambda r: replace(r, price=round(r.price, 1)) if r.price else r),
    23: deaf(Told.CANCELLED),
    27: deaf(Told.REJECTED),
    28: deaf(Told.EXPIRED),
    48: broken(open_orders=lambda self: PaperBroker.open_orders(self)[:500]),
    51: broken(get_account=lambda self: replace(PaperBroker.get_account(self), cash=Decimal(7))),
    52: broken(fills_since=lambda self, time: PaperBroker.fills_since(self, time)[:100]),
    53: broken(fills_since=lambda self, time: PaperBroker.fills_since(self, time + timedelta.resolution)),
    56: broken(positions=lambda self: tuple(replace(p, quantity=p.quantity / 2) for p in PaperBroker.positions(self))),
    57: broken(_up_to_now=lambda _: None),
    59: broken(cancel_order=lambda self, name: self._answer(Outcome.ACCEPTED, name)),
    60: broken(cancel_order=refuses),
    61: broken(cancel_all=lambda self: self._answer(Outcome.ACCEPTED, "all")),
    63: deaf(Told.REPLACED),
    64: broken(_up_to_now=lambda _: None),
}  # fmt: skip


@pytest.mark.parametrize("number", DEFECTS)
def test_the_suite_fails_a_paper_broker_with_this_defect(number, monkeypatch):
    monkeypatch.setattr(PaperStage, "patience", 30)
    case = next(case for case in CASES if case.number == number)
    (found,) = conform(lambda: paper(DEFECTS[number]), [case]).results
    assert found.result == "failed", found


# ---- between two bars ------------------------------------------------------------------------------------------------


class Desk:
    """An order book and the paper broker on minute bars, by a clock that goes on between them."""

    def __init__(self, folder: Any, *, wall: bool, **choices: Any) -> None:
        self.tape = minutes(20)
        self.clock, seal = SimClock(moment(int(self.tape.events["known"][0]))), Seal()
        self.journal = Journal.open(folder / "orders.journal", clock=self.clock, disk=Quick())
        self.broker = PaperBroker(
            seal, self.clock, self.tape, setup=Setup(latency=QUICK, **choices), wall=wall
        )
        self.oms = Oms(self.journal, Lenient(seal), self.broker, self.clock, run="desk")

    def buy(self, limit: str, **more: Any) -> str:
        now = self.clock.now()
        order = Order(
            id="any", asset=self.tape.assets[0], side=Side.BUY, quantity=Decimal(5), time=now, type=OrderType.LIMIT,
            limit_price=Decimal(limit), **({"time_in_force": TimeInForce.GTC} | more),
        )  # fmt: skip
        return self.oms.place(order, arrival=Arrival(time=now, last=100.0)).client_id

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.oms.pump()


@pytest.mark.parametrize("wall", [True, False])
def test_by_the_wall_clock_a_cancel_is_confirmed_between_two_bars(wall, tmp_path):
    """A replay knows no time but that of its events: there an order book that asks by another clock gives up."""
    desk = Desk(tmp_path, wall=wall)
    desk.broker.feed(desk.tape.events[:1])
    name = desk.buy("50.00")
    desk.wait(1)
    desk.oms.cancel(name)
    assert desk.oms.orders[name].trouble == "cancel not confirmed"
    desk.wait(50)
    assert (desk.oms.orders[name].state is OrderState.CANCELLED) is wall
    assert (desk.oms.halted or "")[:10] == ("" if wall else "QB-OMS-022")
    desk.journal.close()


def test_by_the_wall_clock_an_amendment_and_a_date_take_effect_between_two_bars(tmp_path):
    desk = Desk(tmp_path, wall=True)
    desk.broker.feed(desk.tape.events[:1])
    until = desk.clock.now() + timedelta(seconds=20)
    dated = desk.buy("49.00", time_in_force=TimeInForce.GTD, expires=until)
    name = desk.buy("50.00")
    desk.oms.amend(name, quantity=Decimal(8), limit=Decimal("51.00"))
    desk.wait(2)
    order = desk.oms.orders[name]
    assert (order.intent.order.quantity, order.intent.order.limit_price, order.trouble) == (
        8,
        Decimal("51.00"),
        None,
    )
    assert desk.broker.find_order(name).quantity == 8
    desk.wait(10)
    assert not desk.oms.orders[dated].state.terminal
    desk.wait(10)
    assert desk.oms.orders[dated].state is OrderState.EXPIRED and desk.oms.halted is None
    desk.journal.close()


class Regrets(Strategy):
    seen: int = state(0)
    order: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen += 1
        if self.seen == 1:
            self.order = market.buy(bar.asset, 5.0, limit=bar.close * 0.5, tif="gtc")
        elif self.seen == 2:
            market.cancel(self.order)


def test_the_run_hears_of_it_too_when_it_listens(tmp_path):
    desk = Desk(tmp_path, wall=True)
    live = Live(
        Session(Regrets(), desk.tape, venue="external", latency=QUICK),
        desk.oms,
        desk.clock,
        paper=desk.broker,
    )
    for k in range(2):
        event = desk.tape.events[k : k + 1]
        desk.clock.set(moment(int(event["known"][0])))
        live.feed(event)
    assert not desk.oms.orders["desk-1"].state.terminal
    desk.clock.advance(1.0)
    live.listen()
    told = live.session.memory.used("transitions")[-1]
    assert desk.oms.orders["desk-1"].state is OrderState.CANCELLED and told["state"] == CANCELLED
    assert told["time"] < int(desk.tape.events["known"][1]) + MINUTE
    desk.journal.close()
