"""Ours against the broker's: every planted difference is found, named, told within seconds, and never traded away."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from lived import actions, minutes

from quantbench.core.clock import Schedule, SimClock
from quantbench.core.journal import Journal, read
from quantbench.core.types import Side
from quantbench.execution.broker import BrokerAccount, BrokerOrder, BrokerPosition
from quantbench.execution.conformance import Trial, accepted, asset
from quantbench.execution.reconcile import (
    Execution,
    Kind,
    Reconciler,
    Sheet,
    Split,
    Standing,
    compare,
    their_sheet,
)
from quantbench.execution.session import splits_of
from venues.stages import alpaca

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
ONE = Decimal(1)


def sheet(seed: int) -> Sheet:
    """Forty lines of each kind, from a seed."""
    rng = random.Random(seed)
    names = [f"S{n}" for n in range(40)]
    return Sheet(
        time=NOON,
        orders=tuple(
            Standing(client_id=f"o-{n}", broker_id=f"b-{n}", symbol=s, quantity=Decimal(rng.randint(1, 99)))
            for n, s in enumerate(names)
        ),
        positions=tuple(BrokerPosition(symbol=s, quantity=Decimal(rng.randint(101, 999))) for s in names),
        cash=Decimal(rng.randint(1, 10**6)) / 100,
        executions=tuple(
            Execution(id=f"e-{n}", symbol=s, quantity=Decimal(rng.randint(1, 99)), price=Decimal(50))
            for n, s in enumerate(names)
        ),
    )


def changed(one: Sheet, **how) -> Sheet:
    fields = {name: getattr(one, name) for name in ("time", "orders", "positions", "cash", "executions")}
    return Sheet(**fields | how)


def test_equal_sheets_have_no_break_whatever_their_order(soak):
    for seed in range(100 * soak):
        one = sheet(seed)
        rng = random.Random(seed)
        mixed = {n: tuple(rng.sample(getattr(one, n), 40)) for n in ("orders", "positions", "executions")}
        assert compare(one, changed(one, **mixed)) == ()


@pytest.mark.parametrize("name", ["orders", "positions", "executions"])
def test_each_missing_line_is_one_break_from_either_side(name):
    one = sheet(1)
    lines = getattr(one, name)
    names = {
        "orders": (Kind.LOST_ORDER, Kind.EXTERNAL_ORDER),
        "positions": (Kind.POSITION, Kind.POSITION),
        "executions": (Kind.INVENTED_FILL, Kind.MISSED_FILL),
    }[name]
    for n in range(len(lines)):
        less = changed(one, **{name: lines[:n] + lines[n + 1 :]})
        assert [b.kind for b in compare(one, less)] == [names[0]]
        assert [b.kind for b in compare(less, one)] == [names[1]]


def test_one_share_one_cent_one_tick_is_a_break():
    one = sheet(2)
    first, *rest = one.orders
    more = Standing.from_record(first.as_record() | {"quantity": str(first.quantity + 1)})
    filled = Standing.from_record(first.as_record() | {"filled": "1"})
    other_way = Standing.from_record(first.as_record() | {"quantity": str(-first.quantity)})
    for order in (more, filled, other_way):
        assert [b.kind for b in compare(one, changed(one, orders=(order, *rest)))] == [Kind.ORDER]
    cent = changed(one, cash=one.cash + Decimal("0.01"))
    assert [b.kind for b in compare(one, cent)] == [Kind.CASH]
    assert compare(one, cent, slack=Decimal("0.01")) == ()
    trade, *trades = one.executions
    dearer = Execution.from_record(trade.as_record() | {"price": "50.01"})
    assert [b.kind for b in compare(one, changed(one, executions=(dearer, *trades)))] == [Kind.FILL]


def test_an_order_whose_outcome_is_not_known_is_no_break():
    doubtful = Standing(client_id="o", broker_id=None, symbol="A", quantity=ONE, doubtful=True)
    nothing = Sheet(time=NOON)
    assert compare(changed(nothing, orders=(doubtful,)), nothing) == ()


def test_an_amended_order_is_the_same_order_under_another_broker_id():
    one = Standing(client_id="o", broker_id="b1", symbol="A", quantity=ONE)
    two = Standing(client_id="o", broker_id="b2", symbol="A", quantity=ONE)
    assert compare(Sheet(time=NOON, orders=(one,)), Sheet(time=NOON, orders=(two,))) == ()


def test_a_split_needs_the_ratio_and_the_word_of_the_reference_data():
    def held(quantity):
        return Sheet(time=NOON, positions=(BrokerPosition(symbol="A", quantity=Decimal(quantity)),))

    split = Split(symbol="A", ratio=Decimal(2), time=NOON)
    kinds = {
        (100, 200, (split,)): Kind.SPLIT,
        (-100, -200, (split,)): Kind.SPLIT,
        (100, 200, ()): Kind.UNEXPLAINED,
        (100, 201, (split,)): Kind.POSITION,
        (100, 300, (split,)): Kind.UNEXPLAINED,
        (100, -200, (split,)): Kind.POSITION,
        (0, 200, (split,)): Kind.POSITION,
    }
    for (ours, theirs, known), kind in kinds.items():
        assert [b.kind for b in compare(held(ours), held(theirs), splits=known)] == [kind], (ours, theirs)
    elsewhere = Split(symbol="B", ratio=Decimal(2), time=NOON)
    assert compare(held(100), held(200), splits=[elsewhere])[0].kind is Kind.UNEXPLAINED


def test_a_split_that_one_side_has_made_explains_orders_and_positions_on_either_side():
    """Our book splits when the reference data say so; a broker may be earlier or later, and pays fractions out."""

    def open_order(quantity, filled):
        order = Standing(
            client_id="o", broker_id="b", symbol="A", quantity=Decimal(quantity), filled=Decimal(filled)
        )
        return Sheet(time=NOON, orders=(order,))

    def held(quantity):
        return Sheet(time=NOON, positions=(BrokerPosition(symbol="A", quantity=Decimal(quantity)),))

    split = Split(symbol="A", ratio=Decimal("1.5"), time=NOON)
    pairs = [
        (open_order(10, 4), open_order(15, 6)),
        (open_order(-15, 6), open_order(-10, 4)),
        (held(7), held(10)),
        (held(-10), held(-7)),
    ]
    for ours, theirs in pairs:
        assert [b.kind for b in compare(ours, theirs, splits=[split])] == [Kind.SPLIT]
        assert [b.kind for b in compare(ours, theirs)] != [Kind.SPLIT]
    for ours, theirs in ((open_order(10, 4), open_order(16, 6)), (held(7), held(11)), (held(7), held(-10))):
        assert [b.kind for b in compare(ours, theirs, splits=[split])] in ([Kind.ORDER], [Kind.POSITION])


class Desk:
    """A broker that answers from its fields, and counts what it is asked to do besides."""

    def __init__(self, clock):
        self.clock, self.held, self.cash, self.orders, self.silent = clock, {}, Decimal(1000), [], False
        self.traded = 0
        self.meanwhile = lambda: None

    def open_orders(self):
        return tuple(self.orders)

    def positions(self):
        if self.silent:
            from quantbench.core.check import QuantbenchError

            raise QuantbenchError("QB-BRK-010", where="desk", value="no answer")
        self.meanwhile()
        return tuple(BrokerPosition(symbol=s, quantity=q) for s, q in self.held.items())

    def get_account(self):
        return BrokerAccount(
            id="x", currency="USD", cash=self.cash, equity=self.cash, buying_power=self.cash, time=NOON
        )

    def fills_since(self, _):
        return ()

    def __getattr__(self, name):
        self.traded += 1
        raise AssertionError(f"reconciliation reached for {name}")


class Day:
    """A reconciler on a clock that we move, with everything it tells."""

    def __init__(self, path, **how):
        self.clock = SimClock(NOON)
        self.desk, self.held, self.adopted, self.notes, self.halts = Desk(self.clock), {}, [], [], []
        self.journal = Journal.open(path, clock=self.clock)
        self.reconciler = Reconciler(
            self.desk,
            self.ours,
            self.clock,
            self.journal,
            note=lambda time, clean: self.notes.append((time, clean)),
            halt=self.halts.append,
            **{"adopt": self.adopted.append} | how,
        )

    def ours(self) -> Sheet:
        standing = [
            Standing(client_id=o.client_id, broker_id=o.broker_id, symbol=o.symbol, quantity=o.quantity)
            for o in self.adopted
        ]
        positions = tuple(BrokerPosition(symbol=s, quantity=q) for s, q in self.held.items())
        return Sheet(time=self.clock.now(), orders=tuple(standing), positions=positions, cash=Decimal(1000))


@pytest.fixture
def day(tmp_path):
    day = Day(tmp_path / "day.journal")
    yield day
    day.journal.close()


def test_a_mismatch_is_told_within_five_seconds_and_nothing_is_traded(day, soak):
    every = Schedule(interval=timedelta(seconds=4), clamp=timedelta(seconds=0.4), seed=3)
    rng = random.Random(5)
    for _ in range(200 * soak):
        day.desk.held = dict(day.held)
        day.reconciler.check()
        day.clock.advance(rng.uniform(0, 4))
        day.desk.held["A"] = day.desk.held.get("A", Decimal(7)) + ONE
        planted = day.clock.now()
        told = len(day.notes)
        day.reconciler.run(every, until=planted + timedelta(seconds=5))
        first = next(time for time, clean in day.notes[told:] if not clean)
        assert first - planted <= timedelta(seconds=5)
    assert day.desk.traded == 0
    assert [clean for _, clean in day.notes].count(False) >= 200


def test_every_check_is_in_the_journal_with_its_breaks(day):
    day.reconciler.check()
    day.desk.held["A"] = ONE
    day.reconciler.check()
    clean, broken = [r.payload for r in read(day.journal._hold.path) if r.kind == "reconciliation"]
    assert clean["clean"] is True and clean["breaks"] == []
    assert broken["clean"] is False and [b["kind"] for b in broken["breaks"]] == ["position"]


def test_a_fill_on_its_way_is_no_break(day):
    def arrives():
        day.desk.held["A"] = day.held["A"] = ONE

    day.desk.meanwhile = arrives
    found = day.reconciler.check()
    assert found.clean and day.notes == [(NOON, True)]


def test_a_fill_that_reaches_only_one_side_is_a_break(day):
    day.desk.meanwhile = lambda: day.held.update(A=ONE)  # ours moved, theirs did not
    assert day.reconciler.check().clean  # once may be chance
    assert [b.kind for b in day.reconciler.check().breaks] == [Kind.POSITION]


def test_an_order_made_by_hand_is_adopted_once_and_then_no_break(day):
    day.desk.orders.append(
        BrokerOrder(
            client_id=None, broker_id="b9", symbol="A", side=Side.BUY, quantity=ONE, filled=Decimal(0),
            state=None, word="new",
        )
    )  # fmt: skip
    assert day.reconciler.check().clean
    assert day.reconciler.check().clean and len(day.adopted) == 1
    without = Day(day.journal._hold.path.with_name("other"), adopt=None)
    without.desk.orders = day.desk.orders
    assert [b.kind for b in without.reconciler.check().breaks] == [Kind.EXTERNAL_ORDER]
    without.journal.close()


def test_a_split_overnight_halts_unless_the_reference_data_know_it(tmp_path):
    for n, splits in enumerate(([], [Split(symbol="A", ratio=Decimal(2), time=NOON)])):
        day = Day(tmp_path / str(n), splits=lambda splits=splits: splits)
        day.held, day.desk.held = {"A": Decimal(10)}, {"A": Decimal(20)}
        found = day.reconciler.check()
        assert not found.clean and day.notes == [(NOON, False)]
        assert len(day.halts) == (0 if splits else 1)
        assert [b.kind for b in found.breaks] == [Kind.SPLIT if splits else Kind.UNEXPLAINED]
        day.journal.close()


def test_a_silent_broker_is_no_reconciliation(day):
    day.desk.silent = True
    found = day.reconciler.check()
    assert not found.clean and found.breaks == () and day.notes == []  # the last one only grows older
    assert [r.payload["clean"] for r in read(day.journal._hold.path)] == [False]


def test_the_splits_of_a_tape_are_what_a_session_is_reconciled_with():
    found = splits_of(actions())()
    assert [(split.symbol, split.ratio) for split in found] == [("A0", Decimal(2)), ("A1", Decimal("0.5"))]
    assert found[0].time < found[1].time and splits_of(minutes(50))() == ()


def test_against_the_local_venue_every_line_agrees_and_one_share_does_not():
    with alpaca() as stage:
        trial = Trial(stage)
        start = stage.now() - timedelta(seconds=60)
        accepted(trial.send("a"))
        accepted(trial.send("b", side=Side.SHORT))
        done = [
            stage.trade("a", Decimal(4), Decimal("49.90")),
            stage.trade("b", Decimal(1), Decimal("50.10")),
        ]
        ours = Sheet(
            time=stage.now(),
            orders=(
                Standing(
                    client_id="a", broker_id=None, symbol=asset.id, quantity=Decimal(10), filled=Decimal(4)
                ),
                Standing(client_id="b", broker_id=None, symbol=asset.id, quantity=Decimal(-10), filled=ONE),
            ),
            positions=(BrokerPosition(symbol=asset.id, quantity=Decimal(3)),),
            cash=Decimal(100_000) - Decimal("199.60") + Decimal("50.10"),
            executions=(
                Execution(id=done[0], symbol=asset.id, quantity=Decimal(4), price=Decimal("49.90")),
                Execution(id=done[1], symbol=asset.id, quantity=-ONE, price=Decimal("50.10")),
            ),
        )
        assert compare(ours, their_sheet(stage.adapter, stage.now(), start)) == ()
        stage.venue.positions[asset.id] += 1
        again = compare(ours, their_sheet(stage.adapter, stage.now(), start))
        assert [(b.kind, b.ours, b.theirs) for b in again] == [(Kind.POSITION, "3", "4")]
        stage.undo("a", done[0])
        kinds = {b.kind for b in compare(ours, their_sheet(stage.adapter, stage.now(), start))}
        assert Kind.INVENTED_FILL in kinds and Kind.POSITION in kinds
