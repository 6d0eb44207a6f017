"""Clocks, calendars and the schedule: each property with the bug that breaks it."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import FIRST, LAST, Calendar, Schedule, SimClock, WallClock

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("steady")

NEW_YORK = ZoneInfo("America/New_York")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2024, 7, 3, 13, 30, tzinfo=UTC)
US = timedelta(microseconds=1)


def code(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(QuantbenchError) as caught:
        call(*args, **kwargs)
    return caught.value.code


# ---- clocks ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**12), max_size=50))
def test_simulated_time_is_exact_and_moves_forward(steps):
    """Fails if seconds are summed as floats: after a million ticks the clock would be off."""
    clock, total, last = SimClock(START), 0, START
    for step in steps:
        clock.sleep(step / 1e6)
        total += step
        assert clock.now() == START + total * US >= last and clock.monotonic() == total / 1e6
        last = clock.now()


def test_simulated_time_never_goes_back_and_never_stands():
    """Fails if a sleep too short for a microsecond is lost: a loop that waits for a moment would never end."""
    clock = SimClock(START)
    clock.sleep(1e-9)
    assert clock.now() == START + US
    clock.sleep(0)
    clock.set(START + US)
    assert clock.now() == START + US
    assert code(clock.set, START) == "QB-TIME-003"
    assert (
        code(SimClock, START.replace(tzinfo=None))
        == code(clock.set, START.replace(tzinfo=None))
        == "QB-TIME-001"
    )
    for unfit in (-1e-9, math.nan, math.inf, True, "1", None, 1e10):
        for one in (clock, WallClock()):
            assert code(one.sleep, unfit) == "QB-TIME-003"


# ---- calendars ------------------------------------------------------------------------------------------


def test_no_calendar_is_loaded_before_it_is_asked_for():
    """Fails if importing the clock drags in pandas."""
    probe = "import sys, quantbench.core.clock as c; c.Calendar('FX'); print('pandas' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


@given(st.integers(0, 2035 * 365 - 1970 * 365 - 10), st.integers(0, 86_399_999_999))
def test_the_fx_week_is_new_yorks(days, micros):
    """Fails if the week is fixed in UTC: for seven months a year it would open an hour late."""
    moment = datetime(1970, 1, 5, tzinfo=UTC) + timedelta(days=days, microseconds=micros)
    local = moment.astimezone(NEW_YORK)
    evening = local.hour >= 17
    shut = (
        local.weekday() == 5 or (local.weekday() == 4 and evening) or (local.weekday() == 6 and not evening)
    )
    assert Calendar("FX").is_open(moment) == (not shut)
    if not shut:
        assert Calendar("FX").session_of(moment) == local.date() + timedelta(days=evening)


def test_sessions_keep_their_length_when_clocks_change():
    """Fails if opens are computed by adding 24 hours to the last one."""
    fx, nyse, crypto = Calendar("FX"), Calendar("XNYS"), Calendar("24/7")
    for year in range(2007, 2036):
        march, november = date(year, 3, 1), date(year, 11, 30)
        for calendar, hours in ((fx, {24.0}), (crypto, {24.0}), (nyse, {6.5, 3.5})):
            opens, closes = calendar.hours(march, november)
            assert set(((closes - opens) / np.timedelta64(1, "h")).tolist()) <= hours
        opens, closes = fx.hours(march, november)
        gaps = ((opens[1:] - closes[:-1]) / np.timedelta64(1, "h")).tolist()
        assert gaps.count(47.0) == 1 and gaps.count(49.0) == 1 and set(gaps) == {0.0, 47.0, 48.0, 49.0}
        opens, _ = nyse.hours(march, november)
        assert {int(str(t)[11:13]) for t in opens} == {13, 14}


@pytest.mark.parametrize("name", ["XNYS", "XHKG", "FX", "24/7", "CMES"])
def test_every_answer_agrees_with_the_hours(name):
    """Fails at the edges: open included, close excluded, its own bar's end in it, the break out."""
    calendar = Calendar(name)
    sessions = calendar.sessions(date(2024, 1, 2), date(2024, 12, 30)).tolist()
    for before, day in pairwise(sessions):
        start, end = calendar.open_close(day)
        assert calendar.is_open(start) and calendar.session_of(start) == day
        assert calendar.session_of(end - US) == day == calendar.session_of(end, ending=True)
        assert calendar.session_of(start, ending=True) != day and calendar.session_of(end) != day
        assert calendar.next_session(before) == day and calendar.previous_session(day) == before
        for every in (1, 60):
            minutes = calendar.minutes(day, every)
            assert (np.diff(minutes) > np.timedelta64(0)).all()
            assert (
                minutes[-1].item().replace(tzinfo=UTC) == end
                and minutes[0].item().replace(tzinfo=UTC) > start
            )
    day = sessions[10]
    for end in calendar.minutes(day).tolist():  # the last instant of each minute bar is in trading hours
        last = end.replace(tzinfo=UTC) - US
        assert calendar.is_open(last) and calendar.session_of(last) == day


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own, of pandas
def test_hours_agree_with_the_library_it_comes_from():
    """Fails if sessions and hours are shifted against each other, or the adapter drops a special day."""
    import exchange_calendars

    pairs = [("XNYS", "2001-01-02"), ("XHKG", "2015-01-02"), ("24/7", "2020-01-01")]
    for name, start in pairs:
        other = exchange_calendars.get_calendar(name, start=start, end="2025-12-31")
        calendar = Calendar(name)
        first, last = other.first_session.date(), other.last_session.date()
        assert calendar.sessions(first, last).tolist() == list(other.sessions.date)
        opens, closes = calendar.hours(first, last)
        assert (opens.astype("datetime64[ns]").view("i8") == other.opens_nanos).all()
        assert (closes.astype("datetime64[ns]").view("i8") == other.closes_nanos).all()
        rng = np.random.default_rng(7)
        for minute in rng.integers(other.opens_nanos[0], other.closes_nanos[-1], 300) // 60_000_000_000:
            moment = EPOCH + timedelta(minutes=int(minute))
            assert calendar.is_open(moment) == other.is_open_on_minute(moment)


def test_facts_of_new_york():
    nyse = Calendar("NYSE")
    shut = [
        "2001-09-11",
        "2001-09-14",
        "2012-10-29",
        "2012-10-30",
        "2018-12-05",
        "2024-03-29",
        "2022-06-20",
        "2025-01-09",
    ]
    for day in map(date.fromisoformat, shut):
        assert len(nyse.sessions(day, day)) == 0 and code(nyse.open_close, day) == "QB-TIME-006"
    assert nyse.open_close(date(2024, 7, 3))[1] == datetime(2024, 7, 3, 17, tzinfo=UTC)
    assert nyse.half_days(date(2013, 1, 1), date(2013, 12, 31)).astype(str).tolist() == [
        "2013-07-03",
        "2013-11-29",
        "2013-12-24",
    ]
    assert len(nyse.sessions(date(2012, 1, 1), date(2012, 12, 31))) == 250
    assert nyse.half_days(date(2012, 10, 27), date(2012, 10, 28)).tolist() == []


def test_what_a_calendar_does_not_cover_is_refused():
    """Fails if the nearest known session is returned for a date the calendar has no data for."""
    shanghai, nyse = (
        Calendar("XSHG"),
        Calendar("XNYS"),
    )  # Shanghai's holidays are recorded for part of the range
    assert code(shanghai.sessions, date(1980, 1, 1), date(2020, 1, 1)) == "QB-TIME-005"
    assert len(shanghai.sessions(date(2020, 1, 1), date(2020, 12, 31))) == 243
    for moment in (datetime(1969, 6, 1, tzinfo=UTC), datetime(2036, 1, 2, 16, tzinfo=UTC)):
        assert code(nyse.is_open, moment) == "QB-TIME-005"
    assert code(nyse.next_session, LAST) == code(nyse.previous_session, FIRST) == "QB-TIME-005"
    assert code(nyse.next_session, date(2036, 1, 1)) == "QB-TIME-005"
    for odd in (START, "2024-07-03", None, np.datetime64("2024-07-03T12:00"), 20240703):
        assert code(nyse.open_close, odd) == "QB-TIME-006"
    assert nyse.open_close(np.datetime64("2024-07-03")) == nyse.open_close(date(2024, 7, 3))
    assert (
        code(Calendar, "XNYZ") == "QB-TIME-004" and code(nyse.minutes, date(2024, 7, 3), 0) == "QB-TIME-007"
    )


# ---- the schedule ---------------------------------------------------------------------------------------


@st.composite
def schedules(draw: Any) -> Schedule:
    interval = draw(st.integers(10, 10**9))
    clamp = draw(st.integers(0, (interval - 1) // 2))
    return Schedule(
        interval=interval * US,
        clamp=clamp * US,
        spread=clamp * US * draw(st.floats(0.0, 0.7)),
        offset=draw(st.integers(0, interval - 1)) * US,
        seed=draw(st.integers(-(2**70), 2**70)),
    )


class Erratic:
    "A clock as machines have them: it wakes late, and is now and then set forward or back."

    def __init__(self, interval: timedelta, pattern: list[tuple[float, float]]) -> None:
        self.time, self.interval, self.pattern, self.turn = START, interval, pattern, 0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        raise AssertionError("the schedule follows the wall")

    def sleep(self, seconds: float) -> None:
        late, jump = self.pattern[self.turn % len(self.pattern)]
        self.turn += 1
        self.time += timedelta(seconds=seconds) + US + late * self.interval + jump * self.interval


patterns = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.7, 40.0]), st.sampled_from([0.0, 0.0, 0.0, -0.4, -2.5, 3.3])
    ),
    min_size=1,
    max_size=8,
)
works = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0, 1.4, 7.3]), min_size=1, max_size=8)


@given(schedules(), patterns, works)
def test_ticks_stay_on_the_grid_in_order_and_apart(schedule, pattern, work):
    """Fails if jitter accumulates, missed ticks are fired in a bunch, one fires twice, or one is lost uncounted."""
    clock = Erratic(schedule.interval, [*pattern, (0.0, 0.0)])
    first, ticks = schedule.index(clock.now()), []
    for n, tick in enumerate(islice(schedule.ticks(clock), 40)):
        ticks.append(tick)
        clock.time += work[n % len(work)] * schedule.interval
    for tick in ticks:
        assert tick.grid == EPOCH + schedule.offset + tick.index * schedule.interval
        assert abs(tick.planned - tick.grid) <= schedule.clamp
        assert timedelta(0) <= tick.lateness <= schedule.grace and tick.actual == tick.planned + tick.lateness
    for a, b in pairwise(ticks):
        assert b.index > a.index and b.skipped == b.index - a.index - 1
        assert b.actual - a.actual >= schedule.grace and b.since == b.actual - a.actual
    assert ticks[0].index - first == ticks[0].skipped and ticks[0].since is None


def test_only_what_is_out_of_grace_is_skipped():
    """Fails if a tick that is a little late is dropped: under load every second one would be lost."""
    schedule, clock, seen = Schedule(interval=timedelta(seconds=1)), SimClock(START), []
    for tick, work in zip(schedule.ticks(clock), (0.1, 1.2, 2.3, 1.6, 0.0, 0.0), strict=False):
        seen.append(((tick.grid - START).total_seconds(), tick.lateness.total_seconds(), tick.skipped))
        clock.advance(work)
    assert seen == [(0, 0, 0), (1, 0, 0), (2, 0.2, 0), (4, 0.5, 1), (6, 0.1, 1), (7, 0, 0)]


@given(schedules(), st.integers(0, 10**6), st.lists(st.integers(-(10**9), 10**9), max_size=5))
def test_a_jitter_belongs_to_its_grid_point(schedule, index, others):
    """Fails if the generator has a state: a restart, or one skipped tick, would move all later ones."""
    wanted = schedule.jitter(index)
    for other in others:
        schedule.jitter(other)
    twin = Schedule(
        interval=schedule.interval,
        clamp=schedule.clamp,
        spread=schedule.spread,
        offset=schedule.offset,
        seed=schedule.seed,
    )
    assert twin.jitter(index) == wanted and twin == schedule
    assert (
        schedule.planned(index + 1) - schedule.planned(index)
        >= schedule.interval - 2 * schedule.clamp
        > timedelta(0)
    )


@given(schedules(), st.integers(-(10**6), 10**15))
def test_the_index_is_the_first_tick_not_yet_past(schedule, micros):
    """Fails if the grid point is taken for the tick: a tick moved forward would be lost, one moved back repeated."""
    moment = EPOCH + micros * US
    index = schedule.index(moment)
    assert schedule.planned(index) >= moment > schedule.planned(index - 1)
    assert schedule.index(schedule.planned(index)) == index


@given(schedules(), st.integers(1, 60))
def test_a_restart_continues_the_same_schedule(schedule, cut):
    """Fails if the schedule counts from the start of the process."""
    whole = [t.planned for t in islice(schedule.ticks(SimClock(START)), 60)]
    clock = SimClock(whole[cut - 1] + US)
    assert [t.planned for t in islice(schedule.ticks(clock), 60 - cut)] == whole[cut:]
    ended = [t.planned for t in schedule.ticks(SimClock(START), until=whole[cut - 1])]
    assert ended == whole[:cut]


PINNED = [26151, 76565, -33383, -41907, -6515]


def test_the_jitter_is_pinned():
    """Fails if an upgrade changes a schedule that runs: today's ticks must be tomorrow's replay."""
    schedule = Schedule(interval=timedelta(seconds=1), clamp=timedelta(seconds=0.25), seed=7)
    assert [schedule.jitter(n) // US for n in range(5)] == PINNED
    assert [
        Schedule(interval=timedelta(seconds=1), clamp=timedelta(seconds=0.25), seed=8).jitter(n) // US
        for n in range(5)
    ] != PINNED


@pytest.mark.parametrize("ratio", [0.1, 1 / 3, 0.7])
def test_the_jitter_has_the_stated_distribution(ratio, soak):
    """Fails if the tails are cut, the spread is that of the wrong variable, or neighbours are alike."""
    count, clamp = 20_000 * soak, 0.25
    schedule = Schedule(
        interval=timedelta(seconds=1),
        clamp=timedelta(seconds=clamp),
        spread=timedelta(seconds=clamp * ratio),
        seed=11,
    )
    spread = schedule.spread.total_seconds()
    jitters = np.array([schedule.jitter(n).total_seconds() for n in range(count)])
    theory = np.array(
        [0.5 * math.erfc(-clamp / spread * math.atanh(j / clamp) / math.sqrt(2)) for j in np.sort(jitters)]
    )
    steps = np.arange(count + 1) / count
    distance = max((theory - steps[:-1]).max(), (steps[1:] - theory).max())
    assert distance < 1.95 / math.sqrt(count)
    for lag in (1, 2, 60):
        assert abs(np.corrcoef(jitters[lag:], jitters[:-lag])[0, 1]) < 4 / math.sqrt(count)


def test_no_drift_over_a_long_run(soak):
    """Fails if any error per tick, however small, adds up: after 100,000 ticks a microsecond each would be 0.1 s."""
    schedule = Schedule(interval=timedelta(milliseconds=20), clamp=timedelta(milliseconds=5), seed=3)
    clock, last = SimClock(START), None
    for tick in islice(schedule.ticks(clock), 100_000 * soak):
        assert (
            abs(tick.actual - (EPOCH + tick.index * schedule.interval)) <= schedule.clamp
            and tick.skipped == 0
        )
        assert last is None or tick.actual > last
        last = tick.actual


def test_on_the_real_clock():
    """Order, distance and grid on a machine that may be busy; how late it wakes is not ours to promise."""
    schedule = Schedule(interval=timedelta(milliseconds=20), clamp=timedelta(milliseconds=5), seed=5)
    clock = WallClock()
    ticks = list(schedule.ticks(clock, until=clock.now() + timedelta(seconds=0.5)))
    for tick in ticks:
        assert (
            timedelta(0) <= tick.lateness <= schedule.grace
            and abs(tick.planned - tick.grid) <= schedule.clamp
        )
    for a, b in pairwise(ticks):
        assert b.actual - a.actual >= schedule.grace and b.skipped == b.index - a.index - 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interval", timedelta(0)),
        ("interval", timedelta(seconds=-1)),
        ("interval", 1.0),
        ("clamp", timedelta(seconds=0.5)),
        ("clamp", timedelta(seconds=-0.1)),
        ("clamp", None),
        ("spread", timedelta(seconds=0.08)),
        ("spread", timedelta(seconds=-0.01)),
        ("offset", timedelta(seconds=1)),
        ("offset", timedelta(seconds=-0.1)),
        ("seed", 1.5),
        ("seed", True),
    ],
)
def test_a_schedule_that_cannot_keep_order_is_refused(name, value):
    fine = {"interval": timedelta(seconds=1), "clamp": timedelta(seconds=0.1)}
    assert code(lambda: Schedule(**(fine | {name: value}))) == "QB-TIME-007"
    assert (
        code(next, Schedule(**fine).ticks(SimClock(START), until=START.replace(tzinfo=None))) == "QB-TIME-001"
    )


@pytest.mark.parametrize("name", [[], {}, None, 5, "xnys", ""])
def test_a_calendar_has_a_known_name(name: Any) -> None:
    with pytest.raises(QuantbenchError) as caught:
        Calendar(name)
    assert caught.value.code == "QB-TIME-004"
