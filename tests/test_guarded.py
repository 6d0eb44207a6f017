"""Guardian, the order book of record and a broker that misbehaves, together; and a kill that outlives what dies."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from guards import WIDE, Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from kills import in_child
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal, read
from quantbench.core.settings import Guardian as Settings
from quantbench.core.types import Side
from quantbench.execution.broker import BrokerAccount
from quantbench.execution.faulty import FaultyBroker, Truth
from quantbench.execution.guard import Guardian
from quantbench.execution.oms import Oms
from quantbench.execution.simulate import simulate
from quantbench.risk.kill import ALL, Kill, State
from quantbench.risk.rules import Rules

BUY, SELL = Side.BUY, Side.SELL


class Floor:
    "A desk with an order book, a journal and a venue."

    def __init__(self, folder: Path, *, script: tuple[str, ...] = ()) -> None:
        self.desk = desk = Desk(folder)
        self.truth = Truth(desk.clock)
        self.broker = FaultyBroker(desk.seal, desk.clock, self.truth, script=script)
        self.journal = Journal.open(folder / "orders.journal", clock=desk.clock)
        self.oms = Oms(self.journal, desk.guardian, self.broker, desk.clock, run="day", assets=desk.assets)

    def place(self, *words: Any, parent: str | None = None, **more: Any) -> str:
        intent = self.desk.intent(*words, **more)
        return self.oms.place(intent.order, arrival=intent.arrival, parent=parent).client_id

    def counts(self) -> tuple[int, ...]:
        "What Guardian counts as open, in every place where it counts."
        book = self.desk.guardian.book
        rows, run = book.rows, book.run
        return (
            int(run["n_open"][0]),
            *map(int, rows["open_buy"]),
            *map(int, rows["open_sell"]),
            *map(int, rows["n_open"]),
            sum(map(len, book.of)),
        )


@pytest.fixture
def floor(tmp_path: Path) -> Any:
    made = Floor(tmp_path)
    yield made
    made.journal.close()


def open_buy(floor: Floor) -> int:
    return int(floor.desk.guardian.book.rows["open_buy"][0])


def test_the_journal_has_every_control_of_every_ruling(floor: Floor, tmp_path: Path) -> None:
    floor.place(10)
    floor.place(10**7)
    rulings = [
        record.payload for record in read(tmp_path / "orders.journal") if record.kind == "order.ruling"
    ]
    assert [ruling["accepted"] for ruling in rulings] == [True, False]
    assert all(len(ruling["checks"]) == 39 for ruling in rulings)
    assert rulings[1]["code"] == "QB-RISK-102" and rulings[1]["checks"]["G02"].startswith("fail: ")


def test_an_amendment_counts_until_it_is_known(floor: Floor) -> None:
    name = floor.place(100)
    floor.oms.amend(name, quantity=Decimal(400))
    assert open_buy(floor) == 400
    floor.truth.fill(name, Decimal(150), Decimal(99), Decimal(0))
    floor.oms.pump()
    assert open_buy(floor) == 250
    floor.desk.wait(1)
    floor.oms.amend(name, quantity=Decimal(200))
    floor.oms.pump()
    assert open_buy(floor) == 50


def test_a_bust_is_taken_back_and_halts_nothing(floor: Floor) -> None:
    name = floor.place(100)
    execution = floor.truth.fill(name, Decimal(60), Decimal(99), Decimal("0.50"))
    floor.oms.pump()
    guardian = floor.desk.guardian
    assert guardian.book.position("AAPL") == 60 and open_buy(floor) == 40
    floor.truth.bust(execution if isinstance(execution, str) else next(iter(floor.truth.executions)))
    floor.oms.pump()
    assert guardian.book.position("AAPL") == 0 and open_buy(floor) == 100
    assert float(guardian.book.memory.cash[0]) == 100_000.0
    assert floor.desk.kill.state() is State.ACTIVE and not guardian.told.breaks


def test_children_of_a_worked_order_pass_and_take_from_it(floor: Floor) -> None:
    whole = floor.oms.work(floor.desk.intent(100).order).client_id
    assert open_buy(floor) == 100
    child = floor.place(60, limit="99.00", parent=whole)
    assert floor.oms.orders[child].state == "submitted" and open_buy(floor) == 100
    floor.truth.fill(child, Decimal(60), Decimal(99), Decimal(0))
    floor.oms.pump()
    assert open_buy(floor) == 40
    floor.oms.cancel(whole)
    floor.oms.pump()
    assert floor.counts() == (0,) * len(floor.counts())


def test_a_start_knows_what_was_filled(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    name = floor.place(100)
    floor.truth.fill(name, Decimal(30), Decimal(99), Decimal(0))
    floor.oms.pump()
    floor.journal.close()
    desk = Desk(tmp_path)
    desk.clock = floor.desk.clock  # type: ignore[assignment]
    journal = Journal.open(tmp_path / "orders.journal", clock=floor.desk.clock)
    floor.broker._verify = desk.seal.verify
    Oms(journal, desk.guardian, floor.broker, floor.desk.clock, run="day", assets=desk.assets)
    assert desk.guardian.book.orders[name].left == 70
    journal.close()


def test_a_lost_answer_stops_its_symbol_and_no_other(tmp_path: Path) -> None:
    floor = Floor(tmp_path, script=("ack_lost",))
    first = floor.place(10)
    assert floor.oms.orders[first].doubtful
    second, third = floor.place(11), floor.place(11, asset=floor.desk.assets[1])
    assert floor.oms.orders[second].state == "rejected" and floor.oms.orders[third].state == "submitted"
    floor.journal.close()


ACTS = st.lists(
    st.tuples(st.sampled_from(["place", "amend", "fill", "cancel", "bust", "work", "child", "expire", "wait"]), st.integers(0, 5), st.integers(1, 120)),
    min_size=5, max_size=40,
)  # fmt: skip


@settings(max_examples=60, derandomize=True, deadline=None)
@given(acts=ACTS)
def test_what_is_open_returns_to_zero(acts: list[tuple[str, int, int]]) -> None:
    with TemporaryDirectory() as folder:
        floor = Floor(Path(folder))
        for what, which, quantity in acts:
            act(floor, what, which, quantity)
            agree(floor)
        floor.oms.cancel_all()
        for _ in range(3):
            floor.desk.clock.advance(40)
            floor.oms.pump()
        assert not floor.oms.open_orders
        assert floor.counts() == (0,) * len(floor.counts())
        for asset in floor.desk.assets:
            assert floor.desk.guardian.book.position(asset.id) == floor.truth.positions.get(
                asset.id, Decimal(0)
            )
        assert not floor.desk.guardian.told.breaks
        floor.journal.close()


def act(floor: Floor, what: str, which: int, quantity: int) -> None:
    "One thing that happens; what is refused is refused."
    lines = [entry for entry in floor.oms.open_orders if not entry.worked]
    line = lines[which % len(lines)] if lines else None
    parents = [entry.intent.client_id for entry in floor.oms.open_orders if entry.worked]
    limit = f"9{quantity % 10}.{which}{quantity % 10}"
    try:
        if what == "place":
            floor.place(quantity, limit=limit, asset=floor.desk.assets[which % 3])
        elif what == "work":
            floor.oms.work(floor.desk.intent(quantity, limit=limit).order)
        elif what == "child" and parents:
            floor.place(1 + quantity % 40, limit=limit, parent=parents[which % len(parents)])
        elif what == "wait":
            floor.desk.wait(float(which))
        elif line is not None and what == "amend":
            floor.oms.amend(line.intent.client_id, quantity=Decimal(quantity))
        elif line is not None and what == "cancel":
            floor.oms.cancel(line.intent.client_id)
        elif line is not None and line.intent.client_id in floor.truth.orders:
            held = floor.truth.orders[line.intent.client_id]
            if what == "fill" and not held.state.terminal:
                floor.truth.fill(
                    line.intent.client_id,
                    min(held.quantity - held.filled, Decimal(quantity)),
                    Decimal(100),
                    Decimal(0),
                )
            elif what == "expire" and not held.state.terminal:
                floor.truth.expire(line.intent.client_id)
            elif what == "bust" and (done := [n for n, e in floor.truth.executions.items() if not e.busted]):
                floor.truth.bust(done[which % len(done)])
    except QuantbenchError as error:
        assert error.code in ("QB-OMS-004", "QB-OMS-009"), error
    floor.oms.pump()


def agree(floor: Floor) -> None:
    "Guardian never counts less than may still trade."
    book = floor.desk.guardian.book
    for asset in floor.desk.assets:
        leaves = sum(
            (e.leaves for e in floor.oms.open_orders if e.intent.order.asset == asset and not e.worked),
            Decimal(0),
        )
        assert int(book.rows["open_buy"][book.number(asset.id)]) >= leaves


# ---- a whole day in which everything goes wrong


class Company:
    "Makes a Guardian for each process of a simulated day; a person lowers what a machine has halted."

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts, self.accepted, self.breaks = folder, 0, 0, list[str]()

    def __call__(self, seal: Any, clock: Any, assets: Any) -> Any:
        self.starts += 1
        company, kill = self, Kill(self.folder / f"KILL{self.starts}", clock, account="U1")

        class Told(Guardian):
            def judge(self, intent: Any) -> Any:
                self.heard()
                ruling = super().judge(intent)
                company.accepted += ruling.accepted
                return ruling

            def judge_amend(self, client_id: str, resulting: Any) -> Any:
                self.heard()
                return super().judge_amend(client_id, resulting)

            def note_break(self, what: str) -> None:
                company.breaks.append(what)
                super().note_break(what)

            def heard(self) -> None:
                if any(cause.scope == ALL for cause in kill.causes):
                    self.lower(State.ACTIVE, who="Ann Lee", why="looked at it")
                self.note_reconciliation(clock.now(), clean=True)
                self.note_clock(0.0)
                self.note_heartbeat(clock.now())
                self.mark("AAPL", 180.0, clock.now())
                self.mark("MSFT", 410.0, clock.now())

        guardian = Told(
            assets, replace(WIDE, max_gross_ratio=4.0, max_net_ratio=4.0, max_symbol_fraction=4.0), Settings(max_check_seconds=1.0), clock=clock,
            rules=Rules.simulated("U1"), kill=kill, seal=seal, journals=self.folder,
        )  # fmt: skip
        cash = Decimal(1_000_000)
        guardian.note_account(
            BrokerAccount(
                id="U1", currency="USD", cash=cash, equity=cash, buying_power=cash, time=clock.now()
            )
        )
        for asset in assets:
            guardian.learn(asset.id, volume=1e7, volatility=0.02, days=300)
        guardian.heard()
        return guardian


def test_days_in_which_everything_goes_wrong(tmp_path: Path, soak: int) -> None:
    company = Company(tmp_path)
    for seed in range(30 * soak):
        simulate(seed, judge=company)
    assert company.accepted > 300 * soak and company.starts > 60 * soak
    assert not company.breaks


# ---- a kill


def test_a_second_process_kills_and_dies(tmp_path: Path) -> None:
    "K1: the record is on the disk before the process that wrote it is gone; the first one sees it at its next order."
    desk = Desk(tmp_path)
    ruling = desk.guardian.judge(desk.intent())

    def kill_and_die() -> None:
        Kill(tmp_path / "KILL", SimClock(desk.clock.now()), account="U1").stop(
            State.KILLED, why="from outside"
        )
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_child(kill_and_die)) == signal.SIGKILL
    with pytest.raises(QuantbenchError, match="QB-GRD-002"):
        desk.guardian.accept(ruling)  # judged before, and not sent after
    assert not desk.ask().accepted and desk.kill.state() is State.KILLED


def test_crash_loops_do_not_clear_it(tmp_path: Path) -> None:
    clock = SimClock(Desk(tmp_path).clock.now())
    Kill(tmp_path / "KILL", clock, account="U1").stop(State.KILLED, why="a bad day")
    before = (tmp_path / "KILL").read_bytes()

    def start_and_die() -> None:
        kill = Kill(tmp_path / "KILL", clock, account="U1")
        kill.ready()
        kill.stop(State.KILLED, why="again")
        os.kill(os.getpid(), signal.SIGKILL if kill.state() is State.KILLED else signal.SIGTERM)

    assert {os.WTERMSIG(in_child(start_and_die)) for _ in range(20)} == {signal.SIGKILL}
    assert (tmp_path / "KILL").read_bytes() == before  # K6: a hundred kills are one
    assert not Desk(tmp_path).ask().accepted


def test_a_file_that_was_taken_away_does_not_clear_it(tmp_path: Path) -> None:
    clock, journal = SimClock(Desk(tmp_path).clock.now()), list[Any]()
    kill = Kill(tmp_path / "KILL", clock, account="U1", append=lambda _, payload: journal.append(payload))
    kill.stop(State.KILLED, why="a bad day")
    (tmp_path / "KILL").unlink()
    assert kill.state() is State.KILLED
    assert Kill(tmp_path / "KILL", clock, account="U1", past=journal).state() is State.KILLED
    assert (tmp_path / "KILL").exists()


def test_only_a_person_in_another_session_lowers_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.kill.stop(State.KILLED, why="a bad day")
    for who, why in (("machine", "looked at it"), ("Ann", "looked at it"), ("Ann Lee", "ok"), ("", "")):
        with pytest.raises(QuantbenchError, match="QB-RISK-002"):
            desk.guardian.lower(State.ACTIVE, who=who, why=why)
    with pytest.raises(QuantbenchError, match="QB-RISK-003"):
        desk.guardian.lower(State.ACTIVE, who="Ann Lee", why="looked at it")
    desk.clock.advance(timedelta(days=1).total_seconds())
    desk.guardian.lower(State.ACTIVE, who="Ann Lee", why="looked at it")
    desk.wait(1)
    assert desk.ask().accepted


def test_cancels_pass_in_every_state_and_a_late_fill_is_booked(floor: Floor) -> None:
    "K2, K3, K5"
    names = [floor.place(10 + n) for n in range(5)]
    floor.desk.kill.stop(State.KILLED, why="a bad day")
    assert all(floor.desk.guardian.may_cancel(name) for name in names)
    assert floor.oms.kill("a bad day", patience=5.0).quiet or not floor.broker.open_orders()
    late = names[0]
    floor.desk.guardian.booked(floor.desk.fill(floor.oms.orders[late].intent.order, 3, "99"))
    assert floor.desk.guardian.book.position("AAPL") == 3 and not floor.desk.guardian.told.breaks


@pytest.mark.parametrize("state", list(State))
def test_states_only_rise_by_machine(state: State, tmp_path: Path) -> None:
    kill = Desk(tmp_path).kill
    kill.stop(state, why="a bad day")
    for lower in State:
        kill.stop(lower, why="a better one")
        assert kill.state().rank >= max(state.rank, lower.rank)
