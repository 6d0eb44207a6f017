"""A strategy that trades sees what it saw in its backtest: the same bytes, through journal, Guardian, order book and venue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lived import (
    LOGS,
    Anything,
    Paper,
    Rebalances,
    actions,
    days,
    lived,
    logs_of,
    minutes,
    moment,
    simulated,
    ticks,
)
from orderdesk import Quick

from quantbench.core.clock import WallClock
from quantbench.core.types import OrderState
from quantbench.engine.backtest import Latency
from quantbench.engine.memory import REJECTED
from quantbench.engine.strategy import Strategy
from quantbench.engine.window import state
from quantbench.execution.live import Live

LATE = Latency(order_seconds=0.3, cancel_seconds=1.7, fill_seconds=2.4)
LONG = Latency(order_seconds=7.0, cancel_seconds=9.0, fill_seconds=130.0)
TAPES = {"minutes": minutes, "days": days, "ticks": ticks}


def apart(first: Any, second: Any) -> str:
    """Which log differs, and where first."""
    for name in LOGS:
        a, b = first.memory.used(name), second.memory.used(name)
        n = min(len(a), len(b))
        wrong = [k for k in range(n) if a[k].tobytes() != b[k].tobytes()]
        if wrong or len(a) != len(b):
            k = wrong[0] if wrong else n
            rows = [
                dict(zip(x.dtype.names, x[k].item(), strict=True)) if k < len(x) else None for x in (a, b)
            ]
            return f"{name} {k} of {len(a)} and {len(b)}:\n{rows[0]}\n{rows[1]}"
    return ""


def same(strategy: Any, tape: Any, *, cuts: Any = (), **choices: Any) -> Any:
    inside = simulated(strategy, tape, lane="compiled", **choices)
    interpreted = simulated(strategy, tape, lane="interpreted", **choices)
    assert logs_of(inside) == logs_of(interpreted)
    paper = lived(strategy, tape, cuts=cuts, **choices)
    assert not apart(inside, paper.session)
    assert logs_of(paper.session) == logs_of(inside)
    return paper


@pytest.mark.parametrize("latency", [Latency(), LATE, LONG], ids=["at once", "late", "long"])
@pytest.mark.parametrize("tape", TAPES)
def test_everything_that_can_be_asked_is_on_paper_what_it_was_in_the_backtest(tape, latency):
    paper = same(Anything(), TAPES[tape](), cuts=range(97, 3000, 97), latency=latency)
    assert len(paper.session.memory.used("fills")) > 20


@pytest.mark.parametrize("latency", [Latency(), LATE], ids=["at once", "late"])
def test_splits_dividends_halts_and_a_delisting(latency):
    paper = same(Rebalances(), actions(), cuts=range(97, 3000, 97), latency=latency)
    assert len(paper.session.memory.used("fills")) > 100


def test_a_hundred_thousand_events_have_one_outcome():
    paper = same(Anything(often=150), ticks(100_000), cuts=range(1009, 100_000, 1009))
    assert len(paper.session.memory.used("fills")) > 100 and paper.oms.halted is None


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), cuts=st.lists(st.integers(0, 900), max_size=12))
def test_any_requests_in_any_pieces(seed, cuts):
    tape = minutes(300, 3, seed=2)
    inside = simulated(Anything(seed=seed, often=6), tape, latency=LATE)
    assert not apart(inside, lived(Anything(seed=seed, often=6), tape, cuts=cuts, latency=LATE).session)


# ---- what does not leave ---------------------------------------------------------------------------------------------


class Buys(Strategy):
    def on_bar(self, bar: Any, market: Any) -> None:
        market.buy(bar.asset, 1.0)


def states(session: Any) -> set[int]:
    return {int(state) for state in session.memory.used("transitions")["state"]}


def test_what_the_guardian_refuses_the_strategy_hears_as_rejected(tmp_path):
    paper = Paper(Buys(), minutes(20), tmp_path)
    paper.guardian.refuses = True
    paper.play(range(20))
    assert not paper.broker.open_orders() and len(paper.session.memory.used("fills")) == 0
    assert {entry.state for entry in paper.oms.orders.values()} == {OrderState.REJECTED}
    assert REJECTED in states(paper.session)
    paper.journal.close()


@pytest.mark.parametrize(("ahead", "leave"), [(4.9, True), (6.0, False), (-0.9, True), (-2.0, False)])
def test_nothing_leaves_on_news_that_is_old_or_of_the_future(tmp_path, ahead, leave):
    paper = Paper(Buys(), minutes(20), tmp_path)
    events = paper.tape.events[:10]
    paper.clock.set(moment(int(events["known"][-1]) + round(ahead * 1e9)))
    paper.live.feed(events)
    assert bool(paper.oms.orders) == leave and (REJECTED in states(paper.session)) != leave
    paper.journal.close()


def test_a_watchdog_halts_the_order_book_while_a_hook_does_not_return(tmp_path):
    wall, seen = WallClock(), []
    tape = minutes(20)
    paper = Paper(Buys(), tape, tmp_path)

    class Blocked(Strategy):
        def on_bar(self, *_: Any) -> None:
            until = wall.monotonic() + 20.0
            while paper.oms.halted is None and wall.monotonic() < until:
                wall.sleep(0.001)
            seen.append(paper.oms.halted)

    session = type(paper.session)(Blocked(), tape, venue="external", lane="interpreted")
    live = Live(session, paper.oms, paper.clock, paper=paper.broker, budget=0.05)
    live.feed(tape.events[:1])
    live.finish()
    assert "longer than 0.05 s" in seen[0]
    paper.journal.close()


ASKS = {
    "bracket": {"take": 110.0, "loss": 90.0},
    "group": {"kind": "limit", "limit": 99.0, "group": 5},
    "post-only": {"kind": "limit", "limit": 99.0, "post_only": True},
    "iceberg": {"kind": "limit", "limit": 99.0, "display": 1.0},
}


@pytest.mark.parametrize("asked", ASKS)
def test_what_no_order_can_say_is_refused_before_it_leaves(asked):
    class Asks(Strategy):
        def on_bar(self, bar: Any, market: Any) -> None:
            market.submit(bar.asset, 5.0, **ASKS[asked])

    paper = lived(Asks(), minutes(5), lane="interpreted")
    assert states(paper.session) == {REJECTED} and not paper.oms.orders


class Counted(Quick):
    """How often something was synced."""

    syncs = 0

    def sync(self, file: int) -> None:  # noqa: ARG002
        self.syncs += 1


class Turns(Strategy):
    seen: int = state(0)

    def on_tick(self, tick: Any, market: Any) -> None:
        self.seen += 1
        if self.seen % 2 == 0:
            market.target(tick.asset, 100.0 - market.position(tick.asset))


def test_an_order_leaves_after_one_sync_and_after_everything_that_was_heard(tmp_path: Path):
    """A fill heard in the same batch goes to the disk with the order: not before it, and not after it has left."""
    disk, began, waited, filled = Counted(), [0], [], []
    paper = Paper(Turns(), ticks(200, 1), tmp_path, disk=disk)
    submit = paper.broker._submit

    def leaves(intent: Any) -> Any:
        waited.append(disk.syncs - began[0])
        kinds = [record.kind for record in paper.journal.records()]
        filled.append((kinds.count("order.fill"), len(paper.guardian.fills)))
        return submit(intent)

    paper.broker._submit = leaves  # type: ignore[method-assign]
    for k in range(len(paper.tape.events)):
        began[0] = disk.syncs
        paper.feed(paper.tape.events[k : k + 1])
        kinds = [record.kind for record in paper.journal.records()]
        assert kinds.count("order.fill") == len(paper.guardian.fills)  # the batch is over
    paper.live.finish()
    assert len(waited) > 40 and set(waited) == {1}
    assert all(written == heard for written, heard in filled) and filled[-1][0] > 30
