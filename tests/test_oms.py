"""The order book of record: nothing twice, nothing lost, nothing guessed, whatever breaks."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from orderdesk import NOON, SHARE, Desk, Lenient, Quick, fill

from kills import killed_at
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock, WallClock
from quantbench.core.journal import Disk, Journal, read
from quantbench.core.types import Order, OrderState, Side
from quantbench.execution.broker import BrokerOrder, Intent, Outcome, Report, Seal, Told
from quantbench.execution.faulty import CALM, Faults, FaultyBroker, Truth
from quantbench.execution.oms import Oms
from quantbench.execution.simulate import simulate
from quantbench.risk.kill import Kill, Scope, State

SOAK = os.environ.get("QUANTBENCH_SOAK") == "1"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# ---- whole days


@pytest.mark.parametrize("first", range(0, 10_000 if SOAK else 2_400, 80))
def test_whole_days_in_which_everything_goes_wrong(first: int):
    for seed in range(first, min(first + 80, 10_000)):
        simulate(seed)


def test_a_day_is_its_seed():
    assert simulate(11) == simulate(11) != simulate(12)


@pytest.mark.parametrize("salt", ["0", "1"])
def test_a_day_is_its_seed_in_every_process(salt: str):
    """Days that ask about several strangers at once: the order of a set of texts is another in every process."""
    code = "from quantbench.execution.simulate import simulate; print([simulate(seed).hash for seed in (3, 53, 85)])"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": salt},
    )
    assert ran.stdout.strip() == str([simulate(seed).hash for seed in (3, 53, 85)]), ran.stderr


# ---- fills


@pytest.mark.parametrize("tells_filled", [True, False])
@pytest.mark.parametrize("acknowledged", [True, False])
def test_fills_in_any_order_are_booked_exactly(tmp_path: Path, tells_filled: bool, acknowledged: bool):
    desk = Desk(tmp_path, script=["ok" if acknowledged else "ack_lost"] * 1000, tells_filled=tells_filled)
    parts, orders = (10, 20, 30, 5, 35), list(permutations(range(5)))
    rng, bought, paid = random.Random(5), 0, Decimal(0)
    for turn in orders * (20 if SOAK else 1):
        name, so_far, told = desk.buy(100).client_id, 0, []
        for number, part in enumerate(parts):
            so_far += part
            price = Decimal(18000 + rng.randint(-50, 0)) / 100
            paid += price * part
            told.append(fill(name, part, str(price), f"{name}:{number}", so_far if tells_filled else None))
        for place in turn:
            desk.oms.take(told[place])
            if rng.random() < 0.3:
                desk.oms.take(told[rng.choice(turn)])
        bought += 100
        assert desk.oms.orders[name].state is OrderState.FILLED and not desk.oms.orders[name].doubtful
    for report in told * 3:
        desk.oms.take(report)
    assert desk.oms.positions["AAPL"] == bought and desk.oms.cash["USD"] == -paid and desk.oms.halted is None
    desk.restart()
    assert desk.oms.positions["AAPL"] == bought and desk.oms.cash["USD"] == -paid


def test_a_claim_that_was_disowned_is_heard_again(desk: Desk):
    """After a restart it is still the same claim, and is kept once; when the broker knows the order, it is booked."""
    desk.truth.receive(
        Intent(
            order=Order(id="web-1", asset=SHARE, side=Side.BUY, quantity=Decimal(10), time=desk.clock.now())
        )
    )
    desk.truth.fill("web-1", Decimal(10), Decimal(180))
    desk.broker.faults = Faults(vanished=1.0)
    desk.oms.pump()
    assert desk.oms.halted == "QB-OMS-010: fill for an order nobody knows: web-1"
    desk.restart()
    assert len(desk.oms.quarantine) == 1 and not desk.oms.positions
    assert sum(record.kind == "halt" for record in desk.journal.records()) == 1
    desk.broker.faults = CALM
    desk.restart()
    assert not desk.oms.quarantine and dict(desk.oms.positions) == desk.truth.positions == {"AAPL": 10}


def test_a_book_that_began_with_a_wrong_clock_finds_its_fills(tmp_path: Path):
    """An hour ahead when the journal began: our own fills are asked for all the same."""
    with Journal.open(tmp_path / "orders.journal", clock=SimClock(NOON + timedelta(hours=1))) as journal:
        journal.append("session.start", {})
    desk = Desk(tmp_path, faults=Faults(dropped=1.0))
    name = desk.buy(100).client_id
    desk.truth.fill(name, Decimal(40), Decimal(180))
    desk.restart()
    desk.agree()


def test_ten_thousand_repeated_messages_move_nothing(desk: Desk):
    name = desk.buy(1000).client_id
    told = [fill(name, 1, "180.00", f"e{k}", k + 1) for k in range(1000)]
    rng = random.Random(6)
    for report in told + rng.choices(told, k=10_000):
        desk.oms.take(report)
    assert desk.oms.positions["AAPL"] == 1000 and desk.oms.halted is None


def test_the_same_shares_under_another_name_are_flagged_not_booked(desk: Desk):
    name = desk.buy(100).client_id
    desk.oms.take(fill(name, 40, "180.00", "e1", 40))
    changes = desk.oms.take(fill(name, 40, "180.00", "e1-again", 40))
    assert desk.oms.positions["AAPL"] == 40 and changes[-1].code == "QB-OMS-013"


@pytest.mark.parametrize("seed", range(2000 if SOAK else 120))
def test_a_cancel_races_a_fill(tmp_path: Path, seed: int):
    rng, desk = random.Random(seed), Desk(tmp_path)
    name = desk.buy(100).client_id
    acts = [
        lambda: desk.oms.cancel(name),
        lambda: (
            desk.truth.orders[name].state.terminal
            or desk.truth.fill(name, Decimal(rng.randint(1, 50)), Decimal(180))
        ),
        desk.oms.pump,
    ]
    for _ in range(8):
        rng.choice(acts)()
        if desk.truth.orders[name].filled > 49:
            break
    desk.oms.cancel(name)
    desk.wait()
    desk.agree()
    assert desk.oms.orders[name].state.terminal and desk.guardian.open == set()


def test_a_late_fill_is_booked_and_said(desk: Desk):
    name = desk.buy(100).client_id
    desk.oms.cancel(name)
    desk.oms.pump()
    assert desk.oms.orders[name].state is OrderState.CANCELLED
    desk.clock.advance(3600)
    changes = desk.oms.take(fill(name, 7, "179.00", "late"))
    assert desk.oms.positions["AAPL"] == 7 and changes[-1].code == "QB-OMS-019"


def test_a_bust_takes_back_every_cent(desk: Desk):
    name = desk.buy(100).client_id
    execution = desk.truth.fill(name, Decimal(33), Decimal("179.97"), Decimal("0.31"))
    desk.oms.pump()
    desk.truth.bust(execution)
    desk.wait()
    desk.agree()
    assert not desk.oms.positions and desk.oms.cash["USD"] == 0
    assert sum(f.quantity * f.side.sign for f in desk.guardian.fills) == 0


# ---- what a broker must not say


WRONG = [
    (lambda _: fill("desk-999", 1, "180", "x"), "QB-OMS-023"),
    (lambda name: fill(name, 0, "180", "x"), "QB-OMS-012"),
    (lambda name: fill(name, -5, "180", "x"), "QB-OMS-012"),
    (lambda name: fill(name, 101, "180", "x"), "QB-OMS-014"),
    (lambda name: fill(name, 10, "180", "x", 5), "QB-OMS-012"),
    (lambda name: fill(name, 10, "180", "x", side=Side.SELL), "QB-OMS-011"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_cannot_be_true_is_kept_apart_and_stops_new_orders(desk: Desk, number: int):
    make, code = WRONG[number]
    name = desk.buy(100).client_id
    desk.oms.take(make(name))
    desk.oms.pump()
    assert not desk.oms.positions and desk.oms.halted.startswith(code), desk.oms.halted
    assert desk.buy(1).code == "QB-OMS-006" and len(desk.submits()) == 1


def test_a_word_we_do_not_know_is_a_doubt_not_a_crash(desk: Desk):
    name = desk.buy(100).client_id
    report = fill(name, 1, "180", "x")
    strange = type(report)(told=Told.STRANGE, client_id=name, time=NOON, heard=NOON, reason="held_for_review")
    changes = desk.oms.take(strange)
    assert changes[-1].code == "QB-OMS-016" and desk.oms.orders[name].trouble


# ---- answers that do not come


def test_a_thousand_lost_answers_make_no_second_order(tmp_path: Path):
    fates = random.Random(8).choices(["ack_lost", "error", "delayed", "ok"], k=1000)
    desk = Desk(tmp_path, script=fates)
    for _ in range(1000):
        desk.buy(1)
    desk.broker.script.clear()
    assert OrderState.REJECTED not in {entry.state for entry in desk.oms.orders.values()}
    desk.wait(4000, 100)
    assert not desk.oms.unresolved and len(desk.submits()) == 1000
    desk.agree()


def test_not_found_is_no_proof(tmp_path: Path):
    desk = Desk(tmp_path, script=["request_lost"])
    name = desk.buy(10).client_id
    desk.wait(120, 30)
    entry = desk.oms.orders[name]
    assert entry.doubtful and entry.state is OrderState.PENDING and desk.oms.halted.startswith("QB-OMS-020")
    desk.restart()
    assert desk.oms.orders[name].doubtful and len(desk.submits()) == 1


def test_a_broker_that_shows_more_than_was_ordered_stops_new_orders(desk: Desk):
    name = desk.buy(10).client_id
    held = desk.truth.orders[name]
    held.filled, held.quantity, held.state = Decimal(12), Decimal(12), OrderState.FILLED
    desk.oms.take(fill(name, 4, "180", "e1", 12))
    desk.wait(200, 40)
    assert desk.oms.halted.startswith("QB-OMS-014") and desk.oms.positions.get("AAPL", 0) <= 10
    halts = [record for record in read(desk.journal.path) if record.kind == "halt"]
    desk.wait(3000, 100)
    again = [record for record in read(desk.journal.path) if record.kind == "halt"]
    assert len(again) - len(halts) <= 1, "a halt for every question"


def test_a_shown_overfill_clears_no_doubt_in_silence(tmp_path: Path):
    desk = Desk(tmp_path, script=["ack_lost"])
    name = desk.buy(10).client_id
    held = desk.truth.orders[name]
    desk.truth.told.clear()
    held.filled, held.quantity = Decimal(12), Decimal(12)
    desk.wait(2, 1)
    assert desk.oms.halted.startswith("QB-OMS-014") and desk.buy(1).code == "QB-OMS-006"


# ---- processes that die


@pytest.mark.parametrize("after", [False, True])
def test_a_death_between_the_send_and_the_answer_makes_no_second_order(tmp_path: Path, after: bool):
    """At the door of the broker: the order arrived, or it did not; the book asks by its name and sends nothing again."""
    desk, rng = Desk(tmp_path), random.Random(10 + after)
    for _ in range(500 if SOAK else 100):
        real = desk.broker._submit

        def dies(intent, real=real):
            if after:
                real(intent)
            raise SystemExit("killed")

        desk.broker._submit = dies
        with pytest.raises(SystemExit):
            desk.buy(rng.randint(1, 9))
        desk.broker._submit = real
        name = f"desk-{desk.oms._book.minted}"
        desk.restart()
        entry = desk.oms.orders[name]
        assert entry.doubtful != after and entry.state is (
            OrderState.SUBMITTED if after else OrderState.PENDING
        )
        if after:
            desk.truth.fill(name, entry.leaves, Decimal(180))
            desk.oms.pump()
        else:
            desk.oms.settle(name, OrderState.REJECTED, "A. Trader", "asked by telephone")
    assert len(desk.submits()) == (desk.oms._book.minted if after else 0)
    desk.agree()


def test_a_death_between_a_fill_and_its_record_books_it_once(tmp_path: Path):
    desk, rng = Desk(tmp_path), random.Random(12)
    for _ in range(500 if SOAK else 100):
        name = desk.buy(10).client_id
        for _ in range(rng.randint(1, 2)):
            desk.truth.fill(name, Decimal(rng.randint(1, 5)), Decimal(180), Decimal("0.01"))

        def dies(_):
            raise SystemExit("killed")

        desk.journal.extend = dies
        with pytest.raises(SystemExit):
            desk.oms.pump()  # the stream will not tell them again
        desk.restart()
        desk.oms.cancel(name)
        desk.oms.pump()
        assert desk.oms.orders[name].filled == desk.truth.orders[name].filled
    desk.agree()


def test_a_kill_of_the_switch_in_the_same_journal_does_not_stop_the_start(desk: Desk):
    kill = Kill(desk.folder / "KILL", desk.clock, account="desk", append=desk.journal.append)
    kill.ready()
    kill.stop(State.HALTED, why="a break", scope=Scope("symbol", "MSFT"))
    kill.stop(State.KILLED, why="a loop", who="Ann Lee")
    desk.restart()
    assert desk.oms.ready and desk.oms.killed is None, (
        "whether it may trade is asked of the switch, by Guardian"
    )


class Boundary(Quick):
    """Dies at the n-th call of the disk."""

    def __init__(self, n: int) -> None:
        self.left = n

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise SystemExit("killed")

    def write(self, file: int, data: memoryview) -> int:
        self._step()
        taken = super().write(file, data[: max(1, len(data) // 2)] if self.left == 1 else data)
        self._step()
        return taken

    def sync(self, _: int) -> None:
        self._step()


@pytest.mark.parametrize("n", range(1, 60))
def test_a_death_at_every_boundary_of_the_disk(tmp_path: Path, n: int):
    desk = Desk(tmp_path)
    desk.journal.close()
    desk.disk = Boundary(n)
    try:
        desk.start()
        for _ in range(3):
            name = desk.buy(10).client_id
            desk.truth.fill(name, Decimal(4), Decimal(180))
            desk.oms.pump()
        desk.oms.cancel(name)
        desk.oms.pump()
    except SystemExit:
        pass
    desk.journal.close()
    desk.disk = Quick()
    desk.start()
    desk.wait(200, 40)
    for entry in desk.oms.unresolved:  # accepted on the disk, and never left: a person finds out
        assert entry.intent.client_id not in desk.truth.orders
        desk.oms.settle(entry.intent.client_id, OrderState.REJECTED, "A. Trader", "asked by telephone")
    desk.agree()
    assert len(desk.submits()) == len(set(desk.submits()))


class Filed(FaultyBroker):
    """A venue that outlives the process: what it received is lines in a file."""

    def __init__(self, seal: Seal, path: Path) -> None:
        super().__init__(seal, WallClock(), Truth(WallClock()))
        self.path = path

    def _submit(self, intent):
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{intent.client_id}\n".encode())
        return self._answer(Outcome.ACCEPTED, intent.client_id, broker_id=f"b-{intent.client_id}")

    def find_order(self, client_id: str):
        if client_id not in self.path.read_text().split():
            return None
        return BrokerOrder(
            client_id=client_id, broker_id=f"b-{client_id}", symbol="AAPL", side=Side.BUY, quantity=Decimal(1), filled=Decimal(0),
            state=OrderState.SUBMITTED, word="new",
        )  # fmt: skip

    def open_orders(self):
        return tuple(self.find_order(name) for name in self.path.read_text().split())


def _work(folder: Path) -> Oms:
    """One process: recover, and place orders until somebody kills it."""
    seal = Seal()
    journal = Journal.open(folder / "orders.journal", clock=WallClock())
    return Oms(
        journal, Lenient(seal), Filed(seal, folder / "venue"), WallClock(), run="desk", patience=(0.0, 0.0)
    )


def test_sigkill_at_any_moment(tmp_path: Path):
    from orderdesk import Order, OrderType

    (tmp_path / "venue").touch()
    rng, kills = random.Random(9), 0

    def work() -> None:
        oms = _work(tmp_path)
        for _ in range(200):
            oms.place(
                Order(
                    id="any",
                    asset=SHARE,
                    side=Side.BUY,
                    quantity=Decimal(1),
                    time=NOON,
                    type=OrderType.MARKET,
                )
            )

    for _ in range(1000 if SOAK else 60):
        kills += killed_at(rng.uniform(0.0, 0.05), work)
    received = (tmp_path / "venue").read_text().split()
    assert kills > 20 and len(received) == len(set(received)), "an order is at the venue twice"
    ruled = {str(r.payload["id"]) for r in read(tmp_path / "orders.journal") if r.kind == "order.ruling"}
    assert set(received) <= ruled, "an order left before its ruling was on the disk"
    oms = _work(tmp_path)
    known = {
        name
        for name, entry in oms.orders.items()
        if not entry.doubtful and entry.state is OrderState.SUBMITTED
    }
    assert known == set(received), "an order of the venue is not in the book"


def test_a_second_process_is_refused(desk: Desk):
    code = (
        "import sys; from pathlib import Path; from quantbench.core.journal import Journal; from quantbench.core.clock import WallClock; "
        "Journal.open(Path(sys.argv[1]), clock=WallClock())"
    )
    done = subprocess.run([sys.executable, "-c", code, desk.journal.path], capture_output=True, text=True)
    assert done.returncode and "QB-JNL-007" in done.stderr and str(os.getpid()) in done.stderr


# ---- disks that fail


class Failing(Quick):
    def __init__(self) -> None:
        self.error = 0

    def write(self, file: int, data: memoryview) -> int:
        if self.error == errno.ENOSPC:
            raise OSError(errno.ENOSPC, "no space")
        return super().write(file, data)

    def sync(self, _: int) -> None:
        if self.error == errno.EIO:
            self.error = 0  # the second time it would work: nobody may ask
            raise OSError(errno.EIO, "i/o error")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_nothing_leaves_after_the_disk_failed_but_cancels(tmp_path: Path, error: int):
    disk = Failing()
    desk = Desk(tmp_path, disk)
    name = desk.buy(10).client_id
    disk.error = error
    for _ in range(5):
        with pytest.raises(QuantbenchError) as caught:
            desk.buy(1)
        assert caught.value.code == "QB-OMS-001"
    assert len(desk.submits()) == 1
    desk.oms.cancel(name)
    assert desk.truth.orders[name].state is OrderState.CANCELLED


def test_nothing_leaves_after_the_journal_was_moved_away(desk: Desk):
    desk.buy(1)
    desk.journal.path.rename(desk.folder / "elsewhere")
    with pytest.raises(QuantbenchError) as caught:
        desk.buy(1)
    assert caught.value.code == "QB-OMS-001" and len(desk.submits()) == 1


class Short(Disk):
    def write(self, file: int, data: memoryview) -> int:
        return super().write(file, data[:7])

    def sync(self, file: int) -> None: ...


def test_short_writes_are_finished(tmp_path: Path):
    desk = Desk(tmp_path, Short())
    name = desk.buy(10).client_id
    desk.restart()
    assert name in desk.oms.orders


# ---- stopping


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_leaves_after_a_kill(tmp_path: Path, broken: bool):
    disk = Failing()
    desk = Desk(tmp_path, disk)
    for _ in range(50):
        desk.buy(1)
    disk.error = errno.ENOSPC if broken else 0
    killed = desk.oms.kill("a test", patience=2)
    before = len(desk.submits())
    assert killed.quiet and not desk.broker.open_orders()
    for _ in range(3):
        desk.oms.kill("again")
        if broken:
            with pytest.raises(QuantbenchError):
                desk.buy(1)
        else:
            assert desk.buy(1).code == "QB-OMS-007"
    assert len(desk.submits()) == before == 50


def test_a_crash_does_not_clear_a_kill(desk: Desk):
    desk.buy(1)
    desk.oms.kill("a test")
    for _ in range(5):
        desk.restart()
        assert desk.oms.killed == "a test" and desk.buy(1).code == "QB-OMS-007"
    with pytest.raises(QuantbenchError):
        desk.oms.resume("", "nobody")
    desk.oms.resume("A. Trader", "looked at")
    assert desk.buy(1).state is OrderState.SUBMITTED


def test_a_guardian_that_fails_has_not_accepted(desk: Desk):
    desk.guardian.judge = lambda _: 1 / 0
    placed = desk.buy(1)
    assert placed.code == "QB-OMS-008" and not desk.submits()


def test_children_never_exceed_their_parent(tmp_path: Path):
    from orderdesk import Order, OrderType

    desk = Desk(tmp_path, script=["ack_lost", "ok", "request_lost"] * 20)
    parent = desk.oms.work(
        Order(id="any", asset=SHARE, side=Side.BUY, quantity=Decimal(100), time=NOON, type=OrderType.MARKET)
    ).client_id
    sent = Decimal(0)
    for _ in range(20):
        try:
            desk.buy(9, limit=None, parent=parent)
            sent += 9
        except QuantbenchError as error:
            assert error.code == "QB-OMS-004"
    assert sent == 99 and desk.oms.orders[parent].state is OrderState.SUBMITTED


# ---- any order of events, against a naive twin


class Twin(RuleBasedStateMachine):
    """Orders, fills, busts and what the stream makes of them, at random; the twin is a list of what was executed."""

    def __init__(self) -> None:
        super().__init__()
        self.home = TemporaryDirectory()
        self.desk = Desk(Path(self.home.name))
        self.names: list[str] = []
        self.done: dict[str, tuple[Decimal, Decimal]] = {}  # execution: signed quantity, cash
        self.kept: list[Report] = []

    def teardown(self) -> None:
        self.desk.journal.close()
        self.home.cleanup()

    @rule(
        quantity=st.integers(1, 60),
        side=st.sampled_from([Side.BUY, Side.SELL]),
        fate=st.sampled_from(["ok", "ack_lost", "error"]),
    )
    def place(self, quantity, side, fate):
        if sum(not held.state.terminal for held in self.desk.truth.orders.values()) > 1:
            return  # few orders, with many fills
        self.desk.broker.script.append(fate)
        self.names.append(self.desk.buy(quantity, side).client_id)
        self.desk.broker.script.clear()

    @rule(
        pick=st.integers(0, 99),
        share=st.integers(1, 25),
        cents=st.integers(17_500, 18_000),
        fee=st.integers(-2, 9),
    )
    def fill(self, pick, share, cents, fee):
        live = [held for held in self.desk.truth.orders.values() if not held.state.terminal]
        if live:
            held = live[pick % len(live)]
            sign = held.intent.order.side.sign
            price = Decimal(cents if sign > 0 else 36_000 - cents) / 100
            part = min(Decimal(share), held.quantity - held.filled)
            execution = self.desk.truth.fill(held.intent.client_id, part, price, Decimal(fee) / 100)
            self.done[execution] = sign * part, -sign * part * price - Decimal(fee) / 100

    @rule(pick=st.integers(0, 99))
    def bust(self, pick):
        if self.done:
            execution = sorted(self.done)[pick % len(self.done)]
            self.desk.truth.bust(execution)
            del self.done[execution]

    @rule(turn=st.randoms(use_true_random=False), lose=st.integers(0, 3))
    def tell(self, turn, lose):
        """The stream, shuffled, some of it twice, some of it never, and some of what it told long ago once more."""
        told = [*self.desk.truth.told]
        self.desk.truth.told.clear()
        self.kept += told
        heard = told + turn.sample(self.kept, min(3, len(self.kept)))
        turn.shuffle(heard)
        for report in heard[lose:]:
            self.desk.oms.take(report)

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick):
        if self.names:
            self.desk.oms.cancel(self.names[pick % len(self.names)])

    @rule()
    def restart(self):
        before = {name: entry.filled for name, entry in self.desk.oms.orders.items()}
        self.desk.restart()
        assert all(self.desk.oms.orders[name].filled >= 0 for name in before)

    @rule()
    def look(self):
        """Time passes and the broker answers: then the book is the list, summed."""
        self.desk.truth.told.clear()
        for _ in range(3):
            self.desk.restart()
            self.desk.wait(120, 12)
            if self.desk.oms.halted:
                self.desk.oms.resume("A. Trader", "looked at")
        oms = self.desk.oms
        assert oms.positions.get("AAPL", Decimal(0)) == sum(q for q, _ in self.done.values())
        assert oms.cash.get("USD", Decimal(0)) == sum(c for _, c in self.done.values())
        assert not oms.unresolved and len(self.desk.submits()) == len(self.names)


TestTwin = Twin.TestCase
TestTwin.settings = settings(
    max_examples=1000 if SOAK else 60, stateful_step_count=50, deadline=None, derandomize=True
)


def test_the_clock_of_the_tests_is_not_the_wall():
    assert SimClock(NOON).now() == NOON
