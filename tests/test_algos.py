"""Plans, workers, routes and cost reports: each property with the bug that breaks it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import Calendar, Schedule, SimClock
from quantbench.core.types import (
    Asset,
    AssetClass,
    Fill,
    Order,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
    Venue,
)
from quantbench.core.value import Currency
from quantbench.data.schema import conform, schema
from quantbench.execution.algos import (
    Child,
    Impact,
    Participation,
    Plan,
    Slice,
    VolumeCurve,
    Worker,
    almgren_chriss,
    drive,
    remaining,
    twap,
    vwap,
)
from quantbench.execution.router import VenueQuote, all_in, post, route, usable
from quantbench.execution.shortfall import Decision, calibrate, compare, cost_report, shortfall
from quantbench.portfolio.costs import Costs

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("steady")

NYSE = Calendar("XNYS")
OPEN, CLOSE = NYSE.open_close(datetime(2026, 3, 2).date())
SECOND = timedelta(seconds=1)
APPLE = Asset(
    id="AAPL",
    asset_class=AssetClass.EQUITY,
    venue=Venue("XNAS", "XNYS"),
    currency=Currency("USD"),
    tick_size=Decimal("0.01"),
    lot_size=Decimal(1),
)


def code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(QuantbenchError) as caught:
        call(*args, **kwargs)
    return caught.value.code


# ---- plans ----------------------------------------------------------------------------------------------

seconds = st.integers(0, 23_399)
schedules = st.builds(
    lambda interval, clamp, offset, seed: Schedule(
        interval=timedelta(seconds=interval),
        clamp=timedelta(seconds=interval * clamp),
        offset=timedelta(seconds=offset % interval),
        seed=seed,
    ),
    st.integers(20, 1_800),
    st.floats(0, 0.49),
    st.integers(0, 1_800),
    st.integers(0, 2**32),
)
curves = st.lists(st.integers(0, 1_000), min_size=2, max_size=40).filter(sum).map(
    lambda volumes: VolumeCurve(
        asset="AAPL",
        known=OPEN,
        sessions=5,
        parts=tuple((i + 1) / len(volumes) for i in range(len(volumes))),
        done=tuple((np.cumsum(volumes) / sum(volumes)).tolist()),
    )
)  # fmt: skip


@given(st.integers(1, 10**9), seconds, st.integers(1, 23_400), schedules, curves, st.floats(0, 1e3))
def test_every_plan_sums_to_its_parent_and_stays_in_its_span(lots, first, length, schedule, curve, aversion):
    """Fails if slices are rounded one by one, or if jitter carries a tick out of the span or a lot out of the plan."""
    start = OPEN + first * SECOND
    end = min(start + length * SECOND, CLOSE)
    impact = Impact(volatility=1.0, temporary=1e-3)
    makers = (
        lambda by: twap(lots, start, end, by),
        lambda by: vwap(lots, start, end, by, curve, NYSE),
        lambda by: almgren_chriss(lots, start, end, by, impact, aversion=aversion),
    )
    for make in makers:
        try:
            plan = make(schedule)
        except QuantbenchError as error:
            assert error.code == "QB-ALG-002"
            continue
        assert sum(s.lots for s in plan.slices) == lots and min(s.lots for s in plan.slices) >= 0
        assert all(start <= s.time < end for s in plan.slices)
        assert plan.due(start - SECOND) == 0 and plan.due(end) == lots
        other = make(
            Schedule(interval=schedule.interval, clamp=schedule.clamp, offset=schedule.offset, seed=9)
        )
        assert [s.lots for s in other.slices] == [s.lots for s in plan.slices]


@given(st.integers(1, 10**9), st.integers(1, 390))
def test_twap_is_never_more_than_half_a_lot_from_uniform(lots, count):
    """Fails if the remainder is put into one slice, first or last."""
    start, end = OPEN, OPEN + count * 60 * SECOND
    plan = twap(
        lots, start, end, Schedule(interval=timedelta(minutes=1), clamp=10 * SECOND, offset=30 * SECOND)
    )
    assert len(plan.slices) == count
    for i, done in enumerate(accumulate(s.lots for s in plan.slices)):
        assert abs(done - Fraction(lots * (i + 1), count)) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(st.floats(0, 1e6), st.floats(1e-6, 1e3))
def test_what_remains_falls_from_all_to_nothing(urgency, horizon):
    """Fails if sinh overflows for the impatient or is 0/0 for the patient."""
    left = [remaining(urgency, horizon, horizon * i / 20) for i in range(21)]
    assert left[0] == 1.0 and abs(left[-1]) < 1e-12
    assert all(b <= a + 1e-15 for a, b in pairwise(left))
    assert all(x <= 1 - i / 20 + 1e-12 for i, x in enumerate(left))  # never slower than TWAP


@given(st.floats(1e-6, 1.0), st.integers(2, 30), st.floats(0, 1.0), st.integers(0, 2**32))
def test_no_other_trades_beat_almgren_chriss(aversion, steps, permanent, seed):
    """Fails if kappa is that of continuous trading, or permanent impact is left out of it."""
    impact = Impact(volatility=1.0, temporary=1.0, permanent=permanent, half_spread=0.1)
    days = 1.0
    kappa = impact.urgency(aversion, days)
    left = np.array([100 * remaining(kappa, steps * days, k * days) for k in range(steps + 1)])
    best = -np.diff(left)
    nudge = np.random.default_rng(seed).normal(0, 0.3, steps)

    def value(trades: Any) -> float:
        cost, variance = impact.moments(trades, np.full(steps, days))
        return cost + aversion * variance

    nearby = best + (nudge - nudge.mean()) * np.min(best)
    assert value(best) <= value(nearby) * (1 + 1e-12)
    small = best + (nudge - nudge.mean()) * np.min(best) * 1e-4  # stationary: only the square of it is lost
    assert value(small) - value(best) <= (value(nearby) - value(best)) * 1e-6 + value(best) * 1e-12


# ---- the volume curve -------------------------------------------------------------------------------------


def session_bars(volumes: Any, days: Any, late: int = 0) -> pa.Table:
    ends = np.concatenate([NYSE.minutes(day, 30).astype("datetime64[us]") for day in days])
    count = len(ends)
    constant = {"interval": "30m", "price_type": "trade", "adjustment": "raw", "source": "test"}
    moment = pa.timestamp("us", tz="UTC")
    rows = pa.table(
        {"asset": ["AAPL"] * count}
        | {name: [value] * count for name, value in constant.items()}
        | {name: [1.0] * count for name in ("open", "high", "low", "close")}
        | {
            "volume": np.resize(np.asarray(volumes, float), count),
            "event_time": pa.array(ends).cast(moment),
            "known_time": pa.array(ends + np.timedelta64(late, "s")).cast(moment),
        }
    )
    return conform(rows, schema("bars"), where="test")


@given(
    st.lists(st.integers(1, 1_000), min_size=13, max_size=52), st.integers(0, 7_200), st.integers(0, 10**6)
)
def test_a_curve_does_not_see_what_was_not_known(volumes, late, poison):
    """Fails if bars are cut by event time instead of known time, or if a session that is not over counts."""
    days = NYSE.sessions(datetime(2026, 2, 2).date(), datetime(2026, 2, 20).date()).tolist()
    bars = session_bars(volumes, days, late)
    as_of = NYSE.open_close(days[9])[0] + timedelta(hours=3)
    curve = VolumeCurve.learn(bars, "AAPL", NYSE, as_of=as_of, interval="30m")
    known = bars["known_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    unknown = known > int(as_of.timestamp() * 1e6)
    place = bars.schema.get_field_index("volume")
    changed = np.where(unknown, poison, bars["volume"].to_numpy())
    poisoned = bars.set_column(place, bars.schema.field("volume"), pa.array(changed))
    assert VolumeCurve.learn(poisoned, "AAPL", NYSE, as_of=as_of, interval="30m") == curve
    assert VolumeCurve.learn(bars.filter(~unknown), "AAPL", NYSE, as_of=as_of, interval="30m") == curve
    past = bars["volume"].to_numpy()[: 13 * 9].reshape(9, 13)  # naive twin
    twin = np.cumsum(np.mean(past / past.sum(axis=1, keepdims=True), axis=0))
    assert np.allclose(curve.done, twin) and curve.sessions == 9 and curve.done[-1] == curve.parts[-1] == 1.0


def test_a_session_whose_last_bars_are_not_known_yet_is_left_out():
    """Fails if late bars look like a quiet close."""
    days = NYSE.sessions(datetime(2026, 2, 2).date(), datetime(2026, 2, 10).date()).tolist()
    bars = session_bars([5.0] * 13, days, late=3_600)
    after = NYSE.open_close(days[-1])[1] + 60 * SECOND
    curve = VolumeCurve.learn(bars, "AAPL", NYSE, as_of=after, interval="30m")
    assert curve.sessions == len(days) - 1
    assert np.allclose(curve.done, np.arange(1, 14) / 13)


def test_short_sessions_do_not_bend_the_curve_and_a_plan_fits_into_one():
    """Fails if an early close is learned as an empty afternoon, or the plan goes on after it."""
    days = NYSE.sessions(datetime(2025, 11, 17).date(), datetime(2025, 12, 1).date()).tolist()
    black = datetime(2025, 11, 28).date()
    assert black in NYSE.half_days(days[0], days[-1]).tolist()
    after = NYSE.open_close(days[-1])[1]
    curve = VolumeCurve.learn(session_bars([5.0], days), "AAPL", NYSE, as_of=after, interval="30m")
    assert curve.sessions == len(days) - 1 and np.allclose(curve.done, np.arange(1, 14) / 13)
    friday = VolumeCurve.learn(
        session_bars([5.0], days), "AAPL", NYSE, as_of=NYSE.open_close(black)[1], interval="30m"
    )
    assert friday.sessions == len(days) - 2 and len(friday.parts) == 13  # the short one is the newest
    opens, closes = NYSE.open_close(datetime(2026, 11, 27).date())
    assert closes - opens == timedelta(hours=3, minutes=30)
    schedule = Schedule(interval=timedelta(minutes=5))
    squeezed = vwap(420, opens, closes, schedule, curve, NYSE)
    assert {s.lots for s in squeezed.slices} == {10}
    assert code(vwap, 10, opens, closes + SECOND, schedule, curve, NYSE) == "QB-ALG-002"
    assert code(vwap, 10, after - 60 * SECOND, after, schedule, curve, NYSE) == "QB-ALG-004"


# ---- parent and children ------------------------------------------------------------------------------------


def parent(lots: int, side: Side = Side.BUY, **fields: Any) -> Order:
    return Order(
        id="p", asset=APPLE, side=side, quantity=Decimal(lots), time=OPEN, type=OrderType.TWAP, **fields
    )


class Faulty:
    """A broker that loses acknowledgements, rejects, fills in parts, fills late, and cancels when it likes."""

    def __init__(self, rng: Any, settle: timedelta) -> None:
        self.rng, self.settle = rng, settle
        self.left: dict[str, int] = {}  # what can still trade, in truth
        self.filled: dict[str, int] = {}
        self.wire: list[tuple[datetime, str, OrderState]] = []  # reports on their way
        self.ended: dict[str, datetime] = {}
        self.now = OPEN

    def place(self, order: Order) -> str | None:
        name = f"c-{order.id}" if self.rng.random() < 0.3 else order.id
        fate = self.rng.random()
        self.filled[name] = 0
        self.left[name] = 0 if fate < 0.15 else int(order.quantity)
        if fate < 0.1:
            self._end(name, OrderState.REJECTED)
        if fate > 0.9 and name == order.id:
            raise TimeoutError  # it has arrived, nobody knows
        return None if name == order.id else name

    def cancel(self, name: str) -> None:
        if name in self.left and self.rng.random() < 0.5:  # half of the cancels are lost
            self._end(name, OrderState.CANCELLED)

    def _end(self, name: str, state: OrderState) -> None:
        if name not in self.ended:
            self.ended[name] = self.now
            self.wire.append((self.now, name, state))

    def trade(self) -> None:
        for name, left in self.left.items():
            ended = self.ended.get(name)
            if left and (
                ended is None or self.now < ended + self.settle
            ):  # also after the cancel was confirmed
                lots = int(self.rng.integers(0, left + 1))
                self.left[name] -= lots
                self.filled[name] += lots
            elif ended is not None:
                self.left[name] = 0
            if ended is None and not self.left[name] and self.filled[name]:
                self._end(name, OrderState.FILLED)

    def tell(self, worker: Worker) -> None:
        known = {child.id for child in worker.children}
        for name, filled in self.filled.items():
            if name in known and (name in self.ended or self.rng.random() < 0.5):  # late, but within settle
                state = OrderState.PARTIAL if filled else OrderState.SUBMITTED
                worker.take(name, state, filled, self.now)
        for report in list(self.wire):
            _, name, state = report
            if name in known and self.rng.random() < 0.5:
                worker.take(name, state, self.filled[name], self.now)
                self.wire.remove(report)


@given(
    st.integers(0, 2**32),
    st.integers(1, 500),
    st.sampled_from([None, Decimal("0.1"), Decimal(1)]),
    st.sampled_from([None, timedelta(seconds=3)]),
    st.booleans(),
)
def test_never_more_children_than_the_parent(seed, lots, cap, patience, participates):
    """Fails if a lost answer counts as a rejection, if what a cancel gives back is sent at once, or if fills are added to leaves twice."""
    rng = np.random.default_rng(seed)
    settle = timedelta(seconds=4)
    end = OPEN + 40 * SECOND
    pace: Any = twap(lots, OPEN, end, Schedule(interval=2 * SECOND))
    if participates:
        pace, cap = Participation(lots=lots, start=OPEN, end=end, rate=Decimal("0.3")), cap or Decimal("0.5")
    broker = Faulty(rng, settle)
    worker = Worker(
        parent(lots), pace, broker.place, broker.cancel, cap=cap, settle=settle, patience=patience,
        time_in_force=TimeInForce.DAY,
    )  # fmt: skip
    volume, sent_before_end = 0, None
    stop = OPEN + int(rng.integers(1, 80)) * SECOND
    for n in range(80):
        broker.now = now = OPEN + n * SECOND
        volume += int(rng.integers(0, 200))
        broker.trade()
        broker.tell(worker)
        if now == stop:
            worker.stop("enough")
        count = len(worker.children)
        with contextlib.suppress(TimeoutError):
            worker.step(now, volume)
        truth = sum(broker.filled.values()) + sum(broker.left.values())
        assert truth <= lots and worker.committed(now) <= lots
        assert truth <= worker.committed(now)  # the worker knows of every lot that could still fill
        if now >= min(stop, end):
            sent_before_end = len(worker.children) if sent_before_end is None else sent_before_end
            assert len(worker.children) == count == sent_before_end or now == min(stop, end)
    assert sum(broker.filled.values()) <= lots


def test_a_worker_finishes_when_its_venue_does_and_waits_when_it_does_not():
    """Fails if rejected slices are lost, or if a stopped parent is called done with children open."""
    pace = twap(90, OPEN, OPEN + 60 * SECOND, Schedule(interval=10 * SECOND))
    sent: list[Order] = []
    worker = Worker(parent(90), pace, sent.append, lambda _: None, settle=timedelta(0))
    for n in range(60):
        now = OPEN + n * SECOND
        child = worker.step(now)
        if child is not None:
            refused = len(sent) in (1, 2, 4)
            state = OrderState.REJECTED if refused else OrderState.FILLED
            worker.take(child.id, state, 0 if refused else int(child.quantity), now)
    progress = worker.progress(now)
    assert progress.filled == 90 and progress.done and progress.stopped is None
    worker = Worker(parent(90), pace, sent.append, lambda _: None, time_in_force=TimeInForce.DAY)
    worker.step(OPEN + 30 * SECOND)
    worker.stop("enough")
    assert not worker.progress(now).done and worker.progress(now).open == 60


@given(st.lists(st.integers(0, 50), max_size=60), st.sampled_from(["0.01", "0.07", "0.1", "0.333", "1"]))
def test_catch_up_is_bounded_by_the_cap_and_no_fraction_of_a_lot_is_lost(volumes, cap):
    """Fails if the cap is rounded down at each step, or if what was not used may be used at once later."""
    pace = Plan(name="x", lots=10**6, start=OPEN, end=CLOSE, slices=(Slice(OPEN, 10**6),))
    sent: list[Order] = []
    worker = Worker(parent(10**6), pace, sent.append, lambda _: None, cap=Decimal(cap))
    total = 0
    for n, volume in enumerate(volumes):
        total += volume
        worker.step(OPEN + n * SECOND, total)
        assert sum(int(order.quantity) for order in sent) == int(Fraction(cap) * total)


def test_a_quiet_hour_is_not_caught_up_in_one_child():
    """Fails if the cap is of all volume since the start."""
    pace = Participation(lots=10_000, start=OPEN, end=CLOSE, rate=Decimal("0.1"))
    sent: list[Order] = []
    worker = Worker(
        parent(10_000), pace, sent.append, lambda _: None, cap=Decimal("0.2"), settle=timedelta(0)
    )
    for n in range(60):  # every child is rejected for an hour
        child = worker.step(OPEN + n * 60 * SECOND, 1_000 * (n + 1))
        worker.take(child.id, OrderState.REJECTED, 0, OPEN + n * 60 * SECOND)
    assert pace.due(OPEN + 3_600 * SECOND, 61_000) == 6_100
    assert int(worker.step(OPEN + 3_600 * SECOND, 61_000).quantity) == 200


@given(st.sampled_from(list(Side)), st.integers(1, 10**5), st.integers(1, 10**5))
def test_no_child_is_priced_beyond_the_parents_limit(side, limit, touch):
    """Fails if the touch is taken as it is, or if short and cover are mixed up."""
    limit, touch = Decimal(limit) / 100, Decimal(touch) / 100
    pace = Plan(name="x", lots=5, start=OPEN, end=CLOSE, slices=(Slice(OPEN, 5),))
    price = (
        Worker(parent(5, side, limit_price=limit), pace, lambda _: None, lambda _: None)
        .step(OPEN, 0, touch)
        .limit_price
    )
    assert (limit - price) * side.sign >= 0 and price in (limit, touch)
    free = Worker(parent(5, side), pace, lambda _: None, lambda _: None).step(OPEN, 0)
    assert free.type == OrderType.MARKET and free.side == side


def test_impatience_carries_a_resting_child_forward_and_a_restart_knows_its_children():
    """Fails if the rested child's lots are lost, or if a restart mints an id that was used."""
    pace = Plan(name="x", lots=50, start=OPEN, end=CLOSE, slices=(Slice(OPEN, 50),))
    cancels: list[str] = []
    worker = Worker(
        parent(50), pace, lambda _: None, cancels.append, patience=10 * SECOND, settle=timedelta(0),
        time_in_force=TimeInForce.DAY,
    )  # fmt: skip
    worker.step(OPEN)
    worker.step(OPEN + 9 * SECOND)
    assert not cancels
    worker.step(OPEN + 10 * SECOND)
    assert cancels == ["p-1"]
    worker.take("p-1", OrderState.CANCELLED, 20, OPEN + 11 * SECOND)
    again = Worker(
        parent(50), pace, lambda _: None, cancels.append, children=worker.children, settle=timedelta(0)
    )
    child = again.step(OPEN + 11 * SECOND)
    assert (child.id, int(child.quantity)) == ("p-2", 30)
    assert Child.from_record(again.children[0].as_record()) == again.children[0]


def test_after_a_restart_open_children_still_count():
    """Fails if a restarted worker takes only what has filled into account: it would send what is already at the venue."""
    pace = Plan(name="x", lots=50, start=OPEN, end=CLOSE, slices=(Slice(OPEN, 50),))
    cancels: list[str] = []
    resting = Child(id="run-7", lots=30, filled=10, sent=OPEN, state=OrderState.PARTIAL)
    ended = Child(id="run-8", lots=5, filled=0, sent=OPEN, state=OrderState.CANCELLED, ended=OPEN)
    worker = Worker(parent(50), pace, lambda _: None, cancels.append, children=(resting, ended))
    assert int(worker.step(OPEN).quantity) == 15  # 30 are at the venue, 5 not certain yet
    assert int(worker.step(OPEN + SECOND).quantity) == 5
    worker.stop("enough")
    assert cancels == ["run-7", "p-3", "p-4"]


def test_a_late_fill_takes_back_the_newest_children_and_excess_is_told():
    """Fails if a fill after settle is ignored: the parent would be overfilled in silence."""
    pace = Plan(name="x", lots=30, start=OPEN, end=CLOSE, slices=(Slice(OPEN, 30),))
    cancels: list[str] = []
    worker = Worker(parent(30), pace, lambda _: None, cancels.append, time_in_force=TimeInForce.DAY)
    worker.step(OPEN)
    worker.take("p-1", OrderState.CANCELLED, 0, OPEN)
    worker.step(OPEN + 10 * SECOND)
    worker.take(
        "p-1", OrderState.SUBMITTED, 12, OPEN + 20 * SECOND
    )  # a state that is over does not come back
    assert worker.children[0].state == OrderState.CANCELLED and cancels == ["p-2"]
    worker.take("p-2", OrderState.FILLED, 30, OPEN + 21 * SECOND)
    progress = worker.progress(OPEN + 30 * SECOND)
    assert (progress.filled, progress.unfilled, progress.done) == (42, -12, True)
    assert progress.stopped == "more was filled than asked for"


def test_a_small_late_fill_takes_back_one_child_and_the_first_reason_to_stop_is_kept():
    """Fails if every open child is cancelled for one late lot, or if the end of time hides why the parent was stopped."""
    slices = (Slice(OPEN, 10), Slice(OPEN + 10 * SECOND, 10), Slice(OPEN + 20 * SECOND, 10))
    pace = Plan(name="x", lots=30, start=OPEN, end=CLOSE, slices=slices)
    cancels: list[str] = []
    worker = Worker(parent(30), pace, lambda _: None, cancels.append, time_in_force=TimeInForce.DAY)
    worker.step(OPEN)
    worker.take("p-1", OrderState.CANCELLED, 5, OPEN)
    worker.step(OPEN + 10 * SECOND)
    worker.step(OPEN + 20 * SECOND)
    assert [child.lots for child in worker.children] == [10, 15, 10]
    worker.take("p-1", OrderState.CANCELLED, 7, OPEN + 21 * SECOND)
    assert cancels == ["p-3"]
    worker.stop("enough")
    worker.step(CLOSE)
    assert worker.progress(CLOSE).stopped == "enough" and set(cancels) == {"p-2", "p-3"}


def test_the_driver_steps_at_every_tick_and_once_at_the_end():
    """Fails if the end is left to the last tick: day orders would rest after it."""
    schedule = Schedule(interval=10 * SECOND, clamp=2 * SECOND, offset=5 * SECOND, seed=3)
    end = OPEN + 100 * SECOND
    pace = twap(10, OPEN, end, schedule)
    clock, cancels, sent = SimClock(OPEN - 30 * SECOND), [], []
    worker = Worker(parent(10), pace, sent.append, cancels.append, time_in_force=TimeInForce.DAY)
    drive(worker, schedule, clock, lambda: (0, None))
    assert [order.time for order in sent] == [s.time for s in pace.slices]
    assert clock.now() == end and len(cancels) == 20 and worker.progress(end).stopped == "the end of its time"
    assert code(worker.take, "q-1", OrderState.FILLED, 1, end) == "QB-ALG-006"
    assert code(Worker, parent(11), pace, sent.append, cancels.append) == "QB-ALG-007"
    volume = Participation(lots=10, start=OPEN, end=end, rate=Decimal("0.1"))
    assert code(Worker, parent(10), volume, sent.append, cancels.append) == "QB-ALG-007"
    assert code(Worker, parent(10), pace, sent.append, cancels.append, cap=Decimal(0)) == "QB-ALG-007"
    assert code(replace, pace, lots=11) == "QB-ALG-001"
    assert code(twap, 5, end, end, schedule) == "QB-ALG-002"


# ---- venues -------------------------------------------------------------------------------------------------


@st.composite
def quotes(draw: Any, venues: int = 4, size: int = 6, least: int = 5) -> list[VenueQuote]:
    made = []
    for n in range(draw(st.integers(0, 1) | st.integers(2, venues))):
        ask = draw(st.integers(9_996, 10_004))
        bid = ask - draw(st.integers(0, 3)) if draw(st.integers(0, 4)) else None
        made.append(
            VenueQuote(
                venue=draw(st.sampled_from(["A", "B", "C", "D", "E"])) if n == 3 else "ABC"[n],
                time=OPEN - draw(st.sampled_from([0] * 6 + [500, 999, 1_001, -1])) * SECOND / 1_000,
                bid=None if bid is None else Decimal(bid) / 100,
                ask=Decimal(ask) / 100 if draw(st.integers(0, 6)) else None,
                bid_lots=draw(st.integers(0, size)),
                ask_lots=draw(st.integers(0, size)),
                taker_bps=Decimal(draw(st.integers(-2, 4))) / 2,
                latency=Decimal(draw(st.integers(0, 3))) / 1_000,
                chance=Decimal(draw(st.integers(1, 4))) / 4,
                least=draw(st.integers(1, least)),
            )
        )
    return made


TERMS: Any = {"drift": Decimal(2), "miss": Decimal("0.02")}


def lot_cost(quote: VenueQuote, side: Side) -> Fraction:
    buys = side in (Side.BUY, Side.COVER)
    price = Fraction(quote.ask if buys else quote.bid)
    paid = (
        price * (1 + Fraction(quote.taker_bps) / 10_000)
        if buys
        else -price * (1 - Fraction(quote.taker_bps) / 10_000)
    )
    return paid + 2 * Fraction(quote.latency) + (1 - Fraction(quote.chance)) * Fraction(2, 100)


@settings(max_examples=500)
@given(quotes(), st.sampled_from(list(Side)), st.integers(1, 12), st.none() | st.integers(9_995, 10_003))
def test_no_split_trades_more_or_costs_less(made, side, lots, limit):
    """Fails if minimum sizes are met by dropping venues, if a seller's costs have the buyer's sign, or fees are left out of the order."""
    limit = None if limit is None else Decimal(limit) / 100
    legs = route(side, lots, limit, made, asset=APPLE, now=OPEN, **TERMS)
    kept, _ = usable(made, APPLE, now=OPEN)
    offers = []
    for quote in kept:
        price, size = quote.against(side)
        if price is not None and (limit is None or (price <= limit if side.sign > 0 else price >= limit)):
            offers.append((quote, lot_cost(quote, side), size))
            assert Fraction(all_in(quote, side, **TERMS)) == offers[-1][1]
    best = min(
        (-sum(way), sum(n * cost for n, (_, cost, _) in zip(way, offers, strict=True)))
        for way in product(*([0, *range(quote.least, size + 1)] for quote, _, size in offers))
        if sum(way) <= lots
    )
    by_venue = {quote.venue: (quote, cost, size) for quote, cost, size in offers}
    assert (-sum(leg.lots for leg in legs), sum(leg.lots * by_venue[leg.venue][1] for leg in legs)) == best
    for leg in legs:
        quote, cost, size = by_venue[leg.venue]
        assert quote.least <= leg.lots <= size and leg.price == quote.against(side)[0]
        assert leg.cost == float(cost)
    arrivals = {leg.wait + by_venue[leg.venue][0].latency for leg in legs}
    assert len(arrivals) <= 1 and min((leg.wait for leg in legs), default=0) == 0


@given(quotes(least=1), st.randoms(use_true_random=False), st.integers(1, 18))
def test_the_order_of_the_quotes_does_not_matter(made, shuffler, lots):
    """Fails if ties go to whoever comes first, or if the newest of a venue's quotes is the last in the list."""
    other = list(made)
    shuffler.shuffle(other)
    assert usable(made, APPLE, now=OPEN) == usable(other, APPLE, now=OPEN)
    assert route(Side.BUY, lots, None, made, asset=APPLE, now=OPEN) == route(
        Side.BUY, lots, None, other, asset=APPLE, now=OPEN
    )


@given(quotes())
def test_what_is_usable_is_fresh_and_not_crossed_and_every_other_has_a_reason(made):
    """Fails if a market stays crossed after one quote is dropped, or if a locked one is dropped too."""
    kept, why = usable(made, APPLE, now=OPEN)
    assert {quote.venue for quote in kept} | set(why) == {quote.venue for quote in made}
    assert len({quote.venue for quote in kept}) == len(kept) and not {quote.venue for quote in kept} & set(
        why
    )
    bids = [quote.bid for quote in kept if quote.bid is not None]
    asks = [quote.ask for quote in kept if quote.ask is not None]
    assert not bids or not asks or max(bids) <= min(asks)
    assert all(timedelta(0) <= OPEN - quote.time <= SECOND for quote in kept)


def test_of_a_crossed_pair_the_older_goes_and_only_that():
    """Fails if the newer is doubted, if one round is enough for everybody, or if a tie in age is settled by name."""

    def shown(venue: str, bid: str, ask: str, age: int = 0) -> VenueQuote:
        prices = {"bid": Decimal(bid), "ask": Decimal(ask)}
        return VenueQuote(venue=venue, time=OPEN - age * SECOND / 10, **prices, bid_lots=5, ask_lots=5)

    good = shown("G", "99.98", "100.00")
    doubted = "the older of a crossed pair"
    high, higher = shown("H", "100.03", "100.04", 2), shown("I", "100.05", "100.06", 4)
    low = shown("L", "99.90", "99.91", 9)
    assert usable((good, high, higher, low), APPLE, now=OPEN) == ((good,), dict.fromkeys("HIL", doubted))
    assert usable((good, shown("T", "100.01", "100.02")), APPLE, now=OPEN) == (
        (),
        dict.fromkeys("GT", doubted),
    )
    assert usable((good, shown("N", "100.00", "100.01", 9)), APPLE, now=OPEN)[1] == {}  # locked
    twice = (good, replace(good, ask_lots=7))  # of one age: the same whichever comes first
    assert usable(twice, APPLE, now=OPEN) == usable(twice[::-1], APPLE, now=OPEN)


@given(quotes(least=1), st.sampled_from([Side.BUY, Side.SELL]), st.integers(9_990, 10_010))
def test_a_rest_never_takes_or_locks(made, side, limit):
    """Fails if the price is held away from the same side of the book, or moved beyond the limit."""
    limit = Decimal(limit) / 100
    leg = post(side, 3, limit, made, asset=APPLE, now=OPEN)
    kept, _ = usable(made, APPLE, now=OPEN)
    assert (leg is None) == (not kept)
    if leg is not None:
        assert (limit - leg.price) * side.sign >= 0 and leg.posted
        for quote in kept:
            price = quote.against(side)[0]
            assert price is None or (price - leg.price) * side.sign >= APPLE.tick_size


# ---- what it cost -------------------------------------------------------------------------------------------

cents = st.integers(1, 50_000).map(lambda n: Decimal(n) / 100)
fine = st.integers(1, 10**9).map(lambda n: Decimal(n) / 10**7)  # as venues match: off the tick grid


def bought(order: Order, n: int, lots: int, price: Decimal, fee: Decimal) -> Fill:
    return Fill(
        id=f"{order.id}/{n}", order_id=order.id, asset=order.asset, side=order.side, quantity=Decimal(lots),
        price=price, fee=order.asset.currency.money(fee), time=order.time,
    )  # fmt: skip


@st.composite
def decided(draw: Any, n: int = 0) -> tuple[Decision, list[Fill]]:
    side = draw(st.sampled_from(list(Side)))
    asset = replace(APPLE, multiplier=Decimal(draw(st.sampled_from([1, 50]))))
    order = replace(
        parent(draw(st.integers(1, 500)), side), id=f"p-{n}", asset=asset,
        strategy=draw(st.sampled_from([None, "x", "y"])), time=OPEN + draw(st.integers(0, 23_000)) * SECOND,
    )  # fmt: skip
    decision = Decision(
        order=order, broker=draw(st.sampled_from(["a", "b"])), price=draw(cents), arrived=order.time,
        arrival=draw(cents), last=draw(cents), vwap=draw(st.none() | cents),
    )  # fmt: skip
    rows = draw(st.lists(st.tuples(st.integers(1, 300), fine, st.integers(-100, 500)), max_size=4))
    return decision, [
        bought(order, i, lots, price, Decimal(fee) / 100) for i, (lots, price, fee) in enumerate(rows)
    ]


def profit(fills: list[Fill], mark: Decimal) -> Fraction:
    money = Fraction(0)
    for one in fills:
        gain = (
            Fraction(one.quantity) * (Fraction(mark) - Fraction(one.price)) * Fraction(one.asset.multiplier)
        )
        money += (gain if one.side in (Side.BUY, Side.COVER) else -gain) - Fraction(one.fee.amount)
    return money


@given(decided())
def test_the_parts_of_a_shortfall_are_perolds_difference(case):
    """Fails if the unfilled part is left out, a sale has the sign of a purchase, or a sum is rounded."""
    decision, fills = case
    row = shortfall(decision, fills)
    paper = [bought(decision.order, 9, int(decision.order.quantity), decision.price, Decimal(0))]
    assert Fraction(row.total) == profit(paper, decision.last) - profit(fills, decision.last)
    assert shortfall(decision, fills[::-1]) == row
    assert type(row).from_record(row.as_record()) == row


@given(
    st.lists(st.integers(0, 0), min_size=1, max_size=6).flatmap(
        lambda n: st.tuples(*(decided(i) for i in range(len(n))))
    )
)
def test_groups_sum_to_the_whole(cases):
    """Fails if an order is in two groups or in none, or if basis points are averaged over orders of unlike size."""
    decisions, fills = [d for d, _ in cases], [one for _, made in cases for one in made]
    report = cost_report(decisions, fills, zone="America/New_York")
    whole = report.total
    for by in ("strategy", "broker", "hour"):
        groups = report.by(by)
        assert sum(Fraction(g.total) for g in groups) == Fraction(whole.total)
        assert sum(g.orders for g in groups) == len(decisions)
        weighted = sum(g.bps() * float(g.notional) for g in groups) / float(whole.notional)
        assert weighted == pytest.approx(whole.bps(), rel=1e-9, abs=1e-6)
    hours = {(9 * 60 + 30 + (d.order.time - OPEN).seconds // 60) // 60 for d in decisions}
    assert [g.name for g in report.by("hour")] == [f"{h:02d}:00" for h in sorted(hours)]
    assert f"in {len(decisions):,} orders" in repr(report)


@given(st.lists(st.tuples(decided(0), decided(0)), min_size=1, max_size=1), cents)
def test_the_gap_is_the_difference_of_two_profits(pair, mark):
    """Fails if an order that only one side filled is dropped, or fees are."""
    ((decision, backtest), (_, other)), *_ = pair
    paper = [replace(one, asset=decision.order.asset, side=decision.order.side) for one in other]
    gap = compare(backtest, paper, {"AAPL": mark}, limit_bps=30.0)
    assert sum(Fraction(row.cost) for row in gap.rows) == profit(backtest, mark) - profit(paper, mark)
    assert len(gap.rows) == bool(backtest or paper) and gap.only_one == (bool(backtest) != bool(paper))


@pytest.mark.parametrize(
    ("price", "passed"), [("99.00", True), ("100.30", True), ("100.3000001", False), ("100.301", False)]
)
def test_thirty_basis_points_pass_and_a_hair_more_does_not(price, passed):
    """Fails if the figure goes through floats, or the limit itself is refused."""
    order = parent(7)
    gap = compare(
        [bought(order, 0, 7, Decimal(100), Decimal(0))], [bought(order, 1, 7, Decimal(price), Decimal(0))], {},
        limit_bps=30.0,
    )  # fmt: skip
    assert gap.passed is passed


def test_one_large_bad_order_does_not_hide_among_small_good_ones_nor_the_other_way_round():
    """Fails if only one of the two means is judged."""
    orders = [replace(parent(1), id=f"p-{n}") for n in range(10)]
    flat = [bought(order, 0, 1, Decimal(100), Decimal(0)) for order in orders]
    large = replace(parent(1_000), id="big")
    bad = bought(large, 1, 1_000, Decimal("100.5"), Decimal(0))
    good = bought(large, 0, 1_000, Decimal(100), Decimal(0))
    hidden = compare([*flat, good], [*flat, bad], {}, limit_bps=30.0)
    assert hidden.mean_bps < 30 < hidden.weighted_bps and not hidden.passed
    dear = [replace(one, price=Decimal(101)) for one in flat]
    other = compare([*flat, good], [*dear, good], {}, limit_bps=30.0)
    assert other.weighted_bps < 30 < other.mean_bps and not other.passed
    assert not compare([], [], {}, limit_bps=30.0).passed


@given(
    st.floats(0.3, 1.0),
    st.integers(10, 60),
    st.sampled_from(list(Side)),
    st.integers(0, 2**32),
    st.floats(1.0, 3.0),
)
def test_k_is_found_again_in_fills_without_noise(k, count, side, seed, stress):
    """Fails if the spread or the linear impact is taken for square-root impact, or a seller's impact is below zero."""
    rng = np.random.default_rng(seed)
    costs = Costs(spread_bps=3.0, slippage_bps=0.5, impact_root=0.65, impact_linear_bps=10.0, stress=stress)
    rows = []
    for n in range(count):
        lots, adv, sigma = int(rng.integers(1, 50_000)), 1e6, float(rng.uniform(0.005, 0.05))
        worse = costs.stress * (2e-4 + 1e-3 * lots / adv) + k * sigma * (lots / adv) ** 0.5
        order = replace(parent(lots, side), id=f"p-{n}")
        price = Decimal(f"{100 * (1 + side.sign * worse):.15f}")
        decision = Decision(
            order=order, broker="a", price=Decimal(90), arrived=OPEN, arrival=Decimal(100), last=Decimal(80),
            volatility=sigma, adv=adv,
        )  # fmt: skip
        rows.append(shortfall(decision, [bought(order, 0, lots, price, Decimal(1))]))
    found = calibrate(rows, costs)
    assert found.k == pytest.approx(k, rel=1e-6) and found.high - found.low < 1e-6
    assert found.model == 0.65 * stress and found.agrees == (abs(k - found.model) < 1e-9)


def test_fills_that_do_not_belong_are_refused():
    """Fails if a late decision time, a foreign fill or a repeated one is counted."""
    order = parent(10)
    decision = Decision(
        order=order, broker="a", price=Decimal(1), arrived=OPEN, arrival=Decimal(1), last=Decimal(1)
    )
    good = bought(order, 0, 1, Decimal(1), Decimal(0))
    for bad in (
        replace(good, order_id="q"), replace(good, side=Side.SELL), replace(good, time=OPEN - SECOND),
        replace(good, asset=replace(APPLE, id="MSFT")),
    ):  # fmt: skip
        assert code(shortfall, decision, [bad]) == "QB-ALG-010"
    assert code(shortfall, decision, [good, good]) == "QB-ALG-010"
    assert code(cost_report, [decision, decision], []) == "QB-ALG-010"
    assert code(cost_report, [], []) == "QB-ALG-010"
    assert code(cost_report, [decision], [replace(good, order_id="q")]) == "QB-ALG-010"
    assert code(replace, decision, arrived=OPEN - SECOND) == "QB-ALG-010"
    assert code(compare, [good, good], [], {}, limit_bps=30.0) == "QB-ALG-010"
    assert code(compare, [good], [replace(good, side=Side.SELL)], {}, limit_bps=30.0) == "QB-ALG-010"
    assert code(compare, [good], [], {}, limit_bps=30.0) == "QB-ALG-010"
    assert code(compare, [good], [good], {}, limit_bps=float("nan")) == "QB-ALG-012"
