"""The live loop on a venue that misbehaves: the engine in external mode, the order book of record with its journal, a broker that loses, repeats, delays and forgets, over the market
simulator; the process may die at every call. A day is made of one integer: `Storm(seed)` plays it again.

Never: an order twice at the venue, an order there without an accepted ruling on the disk, one after a kill. At the end, when everything has healed: what the engine holds, owes and has
open is what the order book of record has of its orders, and that is what the venue has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from lived import Anything, minutes, moment
from orderdesk import Lenient, Quick, Ruling

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.config import load
from quantbench.core.journal import Journal
from quantbench.core.types import Order, OrderState, Side
from quantbench.engine.backtest import Latency, Session, Setup
from quantbench.engine.events import KIND_TRADE, made, nanoseconds
from quantbench.engine.memory import NEVER
from quantbench.engine.strategy import Strategy
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.execution.broker import Intent, Outcome, Report, Seal, Told
from quantbench.execution.faulty import Faults, FaultyBroker, Held, Truth
from quantbench.execution.floor import Floor
from quantbench.execution.live import Live
from quantbench.execution.oms import Oms
from quantbench.execution.paper import PaperBroker
from quantbench.execution.session import Carried, starts
from quantbench.execution.simulate import Died

TAPES = tuple(minutes(120, 2, seed=seed) for seed in range(4))
CENT = Decimal("0.01")
DELAYS = (Latency(), Latency(order_seconds=1.0, cancel_seconds=2.0, fill_seconds=0.0))
_ENDS = {
    Told.CANCELLED: OrderState.CANCELLED,
    Told.EXPIRED: OrderState.EXPIRED,
    Told.REJECTED: OrderState.REJECTED,
}


class Market(Truth):
    """The venue's exact books, filled by the market simulator of the paper broker."""

    def __init__(self, clock: SimClock, tape: Tape, setup: Setup, cash: Decimal = Decimal(0)) -> None:
        super().__init__(clock, cash)
        self.seal = Seal()
        self.paper = PaperBroker(self.seal, clock, tape, setup=setup)
        self.asked: dict[str, Order] = {}

    def receive(self, intent: Intent) -> Held | None:
        held = super().receive(intent)
        if held is not None:
            answer = self.paper.submit_order(self.seal.make(intent, "0"))
            if answer.outcome is not Outcome.ACCEPTED:
                self.reject(intent.client_id, answer.reason or "refused")
        return held

    def amend(self, intent: Intent) -> bool:
        held, order = self.orders.get(intent.client_id), intent.order
        if held is None or held.state.terminal or order.quantity <= held.filled:
            return False
        self.asked[intent.client_id] = order
        guarded = self.seal.make(intent, "0", amends=True)
        return self.paper.amend_order(guarded).outcome is Outcome.ACCEPTED

    def cancel(self, client_id: str) -> bool:
        held = self.orders.get(client_id)
        if held is None or held.state.terminal:
            return False
        return self.paper.cancel_order(client_id).outcome is Outcome.ACCEPTED or super().cancel(client_id)

    def happen(self, events: Any) -> None:
        self.paper.feed(events)
        for report in self.paper.reports():
            self._came_of(report)

    def quiet(self) -> None:
        """Nothing happens but a trade of nothing at the last prices: what is under way arrives."""
        rows, now = self.paper.memory.assets, nanoseconds(self.clock.now())
        seen = np.flatnonzero(rows["last_time"] > 0)
        at = {"known": np.full(len(seen), now), "since": np.full(len(seen), now)}
        self.happen(made(KIND_TRADE, asset=seen, price=rows["last"][seen], size=np.zeros(len(seen)), **at))

    def _came_of(self, report: Report) -> None:
        name = str(report.client_id)
        held = self.orders[name]
        if held.state.terminal:
            return
        if report.told is Told.FILL:
            self.fill(name, report.quantity, report.price.quantize(CENT), Decimal("0.35"))
        elif report.told is Told.REPLACED:
            order = self.asked[name]
            held.quantity, held.limit, held.stop = order.quantity, order.limit_price, order.stop_price
            self._report(Told.REPLACED, held, quantity=held.quantity - held.filled)
        elif report.told in _ENDS:
            self._end(held, _ENDS[report.told], report.told, report.reason or report.told.value)


class Moody(Lenient):
    """Refuses now and then."""

    def __init__(self, seal: Seal, rng: Random) -> None:
        super().__init__(seal)
        self.rng, self.refused = rng, 0.0

    def judge(self, intent: Intent) -> Ruling:
        self.refuses = self.rng.random() < self.refused
        return super().judge(intent)

    def judge_amend(self, name: str, resulting: Intent) -> Ruling:
        self.refuses = self.rng.random() < self.refused
        return super().judge_amend(name, resulting)


class Noted:
    """The journal, with a memory of the accepted rulings in it."""

    def __init__(self, journal: Journal, ruled: set[str]) -> None:
        self._journal, self._ruled = journal, ruled

    def extend(self, items: Any) -> Any:
        records = self._journal.extend(items)
        self._ruled |= {str(p["id"]) for kind, p in items if kind == "order.ruling" and p["accepted"]}
        return records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


class Door(FaultyBroker):
    """The faulty broker. Every order that reaches it is looked at, and the process may die at its door."""

    storm: Storm

    def _submit(self, intent: Intent) -> Any:
        ruled = intent.client_id in self.storm.ruled
        self.storm.saw(ruled, f"{intent.client_id} left before its ruling was written")
        self.storm.saw(not self.storm.killed, f"{intent.client_id} left after a kill")
        self.storm.may_die()
        answer = super()._submit(intent)
        self.storm.may_die()
        return answer

    def _amend(self, intent: Intent) -> Any:
        self.storm.saw(not self.storm.killed, f"{intent.client_id} was amended after a kill")
        self.storm.may_die()
        return super()._amend(intent)

    def cancel_order(self, client_id: str) -> Any:
        self.storm.may_die()
        return super().cancel_order(client_id)


@dataclass
class Choice:
    """What goes wrong on a day."""

    faults: Faults
    tells: bool = True
    deadly: float = 0.0
    weather: float = 0.0  # per event
    rare: float = 0.0
    refused: float = 0.0
    kills: float = 0.0
    latency: Latency = DELAYS[0]

    @classmethod
    def of(cls, rng: Random) -> Choice:
        names = [name for name in Faults.__dataclass_fields__ if rng.random() < rng.choice((0.0, 0.3, 0.7))]
        return cls(
            Faults(**{name: rng.choice((0.03, 0.1, 0.25)) for name in names}), rng.random() < 0.7, rng.choice((0.0, 0.0, 0.01)),
            rng.choice((0.0, 0.03)), rng.choice((0.0, 0.05, 0.15)), rng.choice((0.0, 0.1)), rng.choice((0.0, 0.0, 0.004)), rng.choice(DELAYS),
        )  # fmt: skip


class Storm:
    """The world of one seed."""

    def __init__(
        self, seed: int, folder: Path, choice: Choice | None = None, *, strategy: Any = None
    ) -> None:
        self.seed, self.rng, self.path = seed, Random(seed), folder / "orders.journal"
        self.lane = "compiled" if strategy is None else "interpreted"
        self.choice = choice or Choice.of(self.rng)
        self.tape, self.strategy = TAPES[seed % len(TAPES)], strategy or Anything(seed=seed, often=3)
        self.clock = SimClock(moment(int(self.tape.events["known"][0]) - 10**9))
        self.truth = Market(self.clock, self.tape, Setup(latency=self.choice.latency))
        self.wrong: list[str] = []
        self.ruled: set[str] = set()
        self.deadly, self.killed, self.deaths, self.foreign, self.at = 0.0, False, 0, 0, 0
        self.broker = Door(
            Seal(), self.clock, self.truth, rng=self.rng, faults=self.choice.faults, tells_filled=self.choice.tells
        )  # fmt: skip
        self.broker.storm = self
        self.journal: Journal | None = None
        self.start()
        self.deadly = self.choice.deadly

    def saw(self, kept: bool, what: str) -> None:
        if not kept:
            self.wrong.append(what)

    def may_die(self) -> None:
        if self.rng.random() < self.deadly:
            raise Died

    # ---- the process

    def start(self) -> None:
        seal = Seal()
        self.broker._verify = seal.verify
        self.journal = Journal.open(self.path, clock=self.clock, disk=Quick())
        self.guardian = Moody(seal, self.rng)
        self.guardian.refused = self.choice.refused
        noted: Any = Noted(self.journal, self.ruled)
        self.oms = Oms(noted, self.guardian, self.broker, self.clock, run="storm", assets=self.tape.assets)
        self.session = Session(self.strategy, self.tape, venue="external", lane=self.lane)
        self.live = Live(self.session, self.oms, self.clock, journal=self.journal)

    def die(self) -> None:
        """Whatever was in memory is gone; a new session begins with the next event."""
        self.deaths += 1
        if self.journal is not None:
            self.journal.close()
        self.clock.advance(self.rng.uniform(0.1, 5.0))
        while True:
            try:
                return self.start()
            except Died:
                self.journal.close()

    # ---- what happens

    def play(self) -> Storm:
        for place in range(len(self.tape.events)):
            events = np.ascontiguousarray(self.tape.events[place : place + 1])
            known = moment(int(events["known"][0])) + timedelta(seconds=self.rng.choice((0.0, 0.01, 0.4)))
            self.clock.set(max(self.clock.now(), known))
            self.truth.happen(events)
            self.attempt(lambda events=events: self.live.feed(events))
            self.otherwise()
        return self

    def attempt(self, act: Any) -> None:
        try:
            act()
        except Died:
            self.die()
        assert not self.wrong, f"seed {self.seed}: {self.wrong}"
        for name, held in self.truth.orders.items():
            assert held.times == 1, f"seed {self.seed}: {name} is at the venue {held.times} times"

    def otherwise(self) -> None:
        """Between two events."""
        rng, choice = self.rng, self.choice
        if rng.random() < choice.weather:
            self.broker.down = rng.random() < 0.4
            mute = rng.random() < 0.4
            self.broker.mute_until = self.clock.now() + timedelta(seconds=90) if mute else None
        if rng.random() < choice.rare:
            self.rare()
        if rng.random() < choice.kills and not self.killed:
            self.attempt(self.kill)
        if rng.random() < choice.deadly:
            self.die()
        if rng.random() < 0.3:
            self.clock.advance(rng.uniform(0.0, 8.0))
            self.attempt(self.live.listen)
        if rng.random() < 0.1:
            self.person()
        if rng.random() < 0.1:
            self.reconcile()

    def reconcile(self) -> None:
        """As a session does on a schedule."""
        try:
            held = {p.symbol: p.quantity for p in self.broker.positions() if p.quantity}
            there = len(self.broker.open_orders())
        except QuantbenchError as error:
            assert error.code == "QB-BRK-010"
            return
        if held != dict(self.oms.positions) or there != len(self.oms.open_orders):
            self.oms.look_again()

    def kill(self) -> None:
        self.killed = True
        self.oms.kill("a bad day")

    def rare(self) -> None:
        """Busts, corrections, a rejection after the acceptance, an expiry, somebody else's order."""
        rng, truth = self.rng, self.truth
        live = [held for held in truth.orders.values() if not held.state.terminal]
        done = [name for name, one in truth.executions.items() if not one.busted]
        what = rng.choice(("bust", "correct", "reject", "expire", "foreign"))
        if what in ("bust", "correct") and done and not self.choice.faults.renamed:
            one = truth.executions[rng.choice(done)]
            if what == "bust":
                truth.bust(one.name)
            else:
                truth.correct(
                    one.name, Decimal(rng.randint(1, int(one.quantity))), one.price + Decimal("0.01")
                )
        elif what in ("reject", "expire") and live:
            held = rng.choice(live)
            if what == "expire" or not held.filled:
                getattr(truth, what)(*([held.intent.client_id] + ["not any more"] * (what == "reject")))
        elif what == "foreign":
            self.foreign += 1
            order = Order(
                id=f"web-{self.foreign}", asset=self.tape.assets[0], side=Side.BUY, quantity=Decimal(7), time=self.clock.now()
            )  # fmt: skip
            truth.receive(Intent(order=order))

    def person(self) -> None:
        """Looks at what stopped trading, settles what never arrived, and lets it go on."""
        if self.killed and self.rng.random() < 0.5:
            self.die()
            self.oms.resume("A. Trader", "the day must go on")
            self.killed = False
        elif self.oms.halted and not self.killed:
            self.settle()
            self.oms.resume("A. Trader", "looked at")

    def settle(self) -> None:
        if self.broker.settled:
            for line in self.oms.unresolved:
                name = line.intent.client_id
                if line.doubtful and name not in self.truth.orders and not line.external:
                    self.oms.settle(name, OrderState.REJECTED, "A. Trader", "the broker never had it")

    # ---- the end

    def heal(self) -> Storm:
        self.deadly = 0.0
        self.broker.faults, self.broker.down, self.broker.mute_until = Faults(), False, None
        for _ in range(18):
            self.clock.advance(40)
            self.truth.quiet()
            self.reconcile()
            self.attempt(self.live.listen)
            self.settle()
            if self.oms.halted and not self.oms.killed:
                self.oms.resume("A. Trader", "at the end of the day")
        self.live.finish()
        self.agree()
        assert self.journal is not None
        self.journal.close()
        return self

    def agree(self) -> None:
        said = f"seed {self.seed}"
        oms, truth = self.oms, self.truth
        assert not oms.unresolved, (said, [(e.intent.client_id, e.trouble) for e in oms.unresolved])
        assert not oms.quarantine, (said, oms.quarantine)
        assert dict(oms.positions) == truth.positions, said
        assert oms.cash.get("USD", Decimal(0)) == truth.cash, said
        for name, held in truth.orders.items():
            if not name.startswith("web-"):
                entry = oms.orders[name]
                assert entry.filled == held.filled, (said, name, entry, held)
                assert entry.state.terminal == held.state.terminal, (said, name, entry, held)
        self.engine_agrees(said)

    def engine_agrees(self, said: str) -> None:
        """What the engine has is what the order book has of the orders that this session sent."""
        memory, ours = self.session.memory, self.live._numbers
        done = [
            one
            for one in self.truth.executions.values()
            if one.order.intent.client_id in ours and not one.busted
        ]
        for place, asset in enumerate(self.tape.assets):
            held = sum(
                one.order.intent.order.side.sign * int(one.quantity)
                for one in done
                if one.order.asset == asset
            )
            assert int(memory.assets["lots"][place]) == held, (said, asset.id)
        cash = float(sum((one.amount for one in done), Decimal(0)))
        assert abs(float(memory.cash[0] - self.session.cash[0]) - cash) < 1e-6, said
        entries = {number: self.oms.orders[name] for name, number in ours.items()}
        records = {int(one["id"]): one for one in memory.orders if one["id"] > 0 and one["state"] in (1, 2)}
        assert set(records) == {number for number, one in entries.items() if not one.state.terminal}, said
        for number, record in records.items():
            order = entries[number].intent.order
            assert int(record["lots"]) == int(order.quantity), (said, number)
            assert int(record["heard"]) == int(record["filled"]) == int(entries[number].filled), (
                said,
                number,
            )
            assert record["amend"] == record["cancel"] == NEVER, (said, number)
            for name, price in (("limit", order.limit_price), ("stop", order.stop_price)):
                assert price is None or float(record[name]) == float(price), (said, number, name)


def stormy(seed: int, choice: Choice | None = None, **more: Any) -> Storm:
    with TemporaryDirectory() as folder:
        return Storm(seed, Path(folder), choice, **more).play().heal()


def test_days_of_everything(soak: int) -> None:
    days = [stormy(seed) for seed in (*range(40 * soak), 155)]  # the last one found what no other did
    assert sum(day.deaths for day in days) > 5 * soak
    assert sum(len(day.truth.executions) for day in days) > 300 * soak


# ---- one thing at a time ---------------------------------------------------------------------------------------------


class Scripted(Strategy):
    """Does at the n-th bar what it was told to."""

    bars: int = state(0)

    def on_bar(self, _: Any, market: Any) -> None:
        self.bars += 1
        if self.bars in PLAN:
            PLAN[self.bars](market)


PLAN: dict[int, Any] = {}
CALM = Choice(Faults())


@pytest.fixture
def calm(tmp_path: Path) -> Any:
    """A day on which nothing goes wrong by itself, with a strategy that does what `PLAN` says."""
    PLAN.clear()
    storm = Storm(0, tmp_path, CALM, strategy=Scripted())
    yield storm
    assert not storm.wrong
    storm.journal.close()


def go(storm: Storm, count: int = 1) -> None:
    """So many bars. Nothing fills by itself: the orders of these tests are far from the market."""
    for _ in range(count):
        events = np.ascontiguousarray(storm.tape.events[storm.at : storm.at + 1])
        storm.at += 1
        storm.clock.set(max(storm.clock.now(), moment(int(events["known"][0]))))
        storm.truth.happen(events)
        storm.live.feed(events)


def bid(market: Any, lots: float = 100.0, price: float = 97.0) -> int:
    return market.submit(0, lots, kind="limit", limit=price, tif="gtc")


def record(storm: Storm, number: int = 1) -> Any:
    found = [one for one in storm.session.memory.orders if one["id"] == number]
    return found[0] if found else None


def held(storm: Storm) -> int:
    return int(storm.session.memory.assets["lots"][0])


def test_a_bust_is_taken_back(calm: Storm) -> None:
    PLAN[1] = bid
    go(calm)
    name = next(iter(calm.truth.orders))
    first = calm.truth.fill(name, Decimal(30), Decimal(97), Decimal("0.35"))
    calm.truth.fill(name, Decimal(20), Decimal(97), Decimal("0.35"))
    go(calm)
    assert held(calm) == 50
    calm.truth.bust(first)
    go(calm)
    assert held(calm) == 20 and int(record(calm)["filled"]) == 20
    calm.truth.fill(name, Decimal(80), Decimal(97))
    go(calm)
    assert held(calm) == 100
    calm.heal()


def test_a_bust_of_an_order_that_is_over_is_taken_back(calm: Storm) -> None:
    PLAN[1] = bid
    go(calm)
    name = next(iter(calm.truth.orders))
    only = calm.truth.fill(name, Decimal(100), Decimal(97), Decimal("0.35"))
    go(calm)
    assert record(calm) is None and held(calm) == 100
    calm.truth.bust(only)
    go(calm)
    assert held(calm) == 0 and abs(float(calm.session.memory.cash[0] - calm.session.cash[0])) < 1e-9
    calm.heal()


@pytest.mark.parametrize("lots", [10, 40])
def test_a_correction_counts_once(calm: Storm, lots: int) -> None:
    PLAN[1] = bid
    go(calm)
    name = next(iter(calm.truth.orders))
    first = calm.truth.fill(name, Decimal(30), Decimal(97), Decimal("0.35"))
    go(calm)
    calm.truth.correct(first, Decimal(lots), Decimal("96.50"))
    go(calm)
    assert held(calm) == lots == int(record(calm)["filled"])
    calm.heal()


def test_an_amendment_whose_answer_is_lost_is_heard_of(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, limit=98.0)
    go(calm, 2)
    calm.broker.script.append("ack_lost")
    go(calm)
    calm.truth.happen(calm.tape.events[:0])
    calm.truth.told.clear()  # nor is it told
    calm.heal()
    assert float(record(calm)["limit"]) == 98.0


def test_an_amendment_that_the_broker_refuses_is_over(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, quantity=150.0, limit=98.0)
    PLAN[6] = lambda market: market.amend(1, limit=97.5)
    go(calm, 2)
    calm.broker.script.append("refused")
    go(calm, 2)
    assert record(calm)["amend"] == NEVER and int(record(calm)["counted"]) == 100
    go(calm, 4)
    assert float(record(calm)["limit"]) == 97.5 and int(record(calm)["lots"]) == 100
    calm.heal()


def test_an_amendment_that_never_arrived_is_over(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, limit=98.0)
    go(calm, 2)
    calm.broker.script.append("request_lost")
    go(calm)
    calm.heal()
    assert record(calm)["amend"] == NEVER and float(record(calm)["limit"]) == 97.0


def test_a_second_amendment_leaves_the_first_that_is_under_way(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, quantity=120.0, limit=98.0)
    PLAN[5] = lambda market: market.amend(1, limit=97.5)  # the order book takes one at a time
    PLAN[7] = lambda market: market.amend(1, quantity=130.0)
    go(calm, 2)
    calm.broker.script.append("delayed")
    calm.broker.delay = 600.0
    go(calm, 3)
    assert float(record(calm)["amend_limit"]) == 98.0 and record(calm)["amend"] != NEVER
    go(calm, 2)
    assert int(record(calm)["amend_lots"]) == 120
    calm.heal()
    assert float(record(calm)["limit"]) == 98.0 and int(record(calm)["lots"]) == 120


def test_a_cancel_that_is_refused_can_be_asked_for_again(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = PLAN[6] = lambda market: market.cancel(1)
    go(calm, 2)
    calm.broker.script.append("limited")
    go(calm, 2)
    assert record(calm)["cancel"] == NEVER
    go(calm, 3)
    assert record(calm) is None
    calm.heal()


def test_a_refused_cancel_leaves_the_amendment_that_is_under_way(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, limit=98.0)
    PLAN[5] = lambda market: market.cancel(1)
    go(calm, 2)
    calm.broker.script.extend(["delayed", "limited"])
    calm.broker.delay = 600.0
    go(calm, 4)
    assert record(calm)["cancel"] == NEVER and record(calm)["amend"] != NEVER
    calm.heal()
    assert float(record(calm)["limit"]) == 98.0


def test_what_somebody_else_made_of_an_order_is_known(calm: Storm) -> None:
    PLAN[1] = bid
    go(calm)
    line = next(iter(calm.truth.orders.values()))
    changed = Order(
        **{n: getattr(line.intent.order, n) for n in Order.__dataclass_fields__}
        | {"quantity": Decimal(140), "limit_price": Decimal(96)}
    )
    assert calm.truth.amend(Intent(order=changed))
    go(calm, 3)
    calm.heal()
    assert int(record(calm)["lots"]) == 140 and float(record(calm)["limit"]) == 96.0


def test_an_order_that_fills_while_it_grows_is_open_until_it_is_known(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, quantity=150.0)
    go(calm, 2)
    calm.broker.script.append("ack_lost")
    go(calm)
    calm.clock.advance(1)
    calm.truth.quiet()
    calm.truth.told.clear()  # the venue has it, and nobody knows
    name = next(iter(calm.truth.orders))
    calm.truth.fill(name, Decimal(99), Decimal(97))
    go(calm)
    calm.truth.fill(name, Decimal(1), Decimal(97))
    go(calm, 2)
    assert held(calm) == 100 and int(record(calm)["lots"]) == 150
    calm.heal()


def test_an_order_that_is_full_is_over_when_its_growth_is_refused(calm: Storm) -> None:
    PLAN[1] = bid
    PLAN[3] = lambda market: market.amend(1, quantity=150.0)
    go(calm, 2)
    calm.broker.script.append("request_lost")
    go(calm)
    calm.truth.fill(next(iter(calm.truth.orders)), Decimal(100), Decimal(97))
    go(calm)
    assert held(calm) == 100 and record(calm) is not None
    calm.heal()
    assert record(calm) is None


def test_a_fill_that_is_heard_after_the_last_event_counts(calm: Storm) -> None:
    PLAN[1] = bid
    go(calm, 3)
    calm.truth.fill(next(iter(calm.truth.orders)), Decimal(100), Decimal(97))
    calm.clock.advance(3)
    calm.live.finish()
    assert held(calm) == 100 and len(calm.session.result().fills) == 1


# ---- a whole session, with its Guardian ------------------------------------------------------------------------------


class Buys(Strategy):
    """One lot after the other."""

    bars: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.bars += 1
        if self.bars in (2, 40):
            market.buy(bar.asset, 10.0)


def test_a_session_asks_for_what_its_stream_did_not_tell(tmp_path: Path) -> None:
    """No report ever comes: the reconciliation finds that the books differ, and the order book asks."""
    study, settings, wall = Study(Buys(), TAPES[1]), load(), SimClock(moment(0))
    markets: list[Market] = []

    def venue(seal: Seal, clock: SimClock, _: Study) -> FaultyBroker:
        markets.append(Market(clock, study.tape, Setup(), Decimal(100_000)))
        return FaultyBroker(seal, clock, markets[0], faults=Faults(dropped=1.0))

    class Driven(Carried):
        def _inform(self, events: Any) -> None:
            markets[0].happen(events)
            super()._inform(events)

    begin = starts(
        settings=settings, wall=wall, admit=lambda *_: (study, "", "rehearsal"), venue=venue, drive=partial(Driven, settings=settings)
    )  # fmt: skip
    floor = Floor(tmp_path, clock=wall, begin=begin)
    floor.start(strategy="Buys")
    session = floor.session
    while floor.session is not None:
        floor.step()
    assert session.summary["reconciled"], session.summary
    assert markets[0].positions and session.summary["fills"] == len(markets[0].executions)
    floor.close()
