"""The ways through Guardian, limits, kill and rules that no table of `test_guard` takes. `tools/branches.py` says which there are."""

from __future__ import annotations

import gc
import math
import os
import threading
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from guards import AAPL, NOON, RULES, WIDE, Desk, verdict

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.settings import Guardian as Settings
from quantbench.core.types import OrderType, Side
from quantbench.execution.broker import Seal
from quantbench.execution.guard import FAIL, PASS, Guardian, Hand
from quantbench.risk.kill import Kill, Scope, State, causes_in, line_of
from quantbench.risk.limits import Throttle
from quantbench.risk.rules import PHASED_IN, Rules

BUY, SELL = Side.BUY, Side.SELL


def lose(desk: Desk) -> None:
    "A twentieth of the equity."
    intent = desk.intent(500)
    desk.guardian.opened(intent)
    desk.guardian.booked(desk.fill(intent.order))
    desk.hear(90.0)


def halted(desk: Desk) -> int:
    return int(desk.guardian.book.run["halted"][0])


# ---- Guardian


def test_a_hand_that_is_let_go_ends_its_thread() -> None:
    hand = Hand()
    mine = hand.within(20.0, threading.current_thread)
    assert mine.is_alive() and mine is not threading.current_thread()
    del hand
    gc.collect()
    mine.join(20)
    assert not mine.is_alive()


def test_a_hand_that_did_nothing_has_no_thread() -> None:
    before = set(threading.enumerate())
    Hand()
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_an_engine_that_raises_fails_everything_that_rests_on_it(tmp_path: Path, monkeypatch: Any) -> None:
    desk = Desk(tmp_path)
    monkeypatch.setattr(desk.guardian.book, "judge", lambda *_, **__: 1 / 0)
    ruling = desk.ask()
    assert not ruling.accepted
    wrong = {c.control for c in ruling.checks if c.verdict == "error" and "ZeroDivisionError" in c.detail}
    assert {"G01", "G04", "G09", "G10", "G11", "G18"} <= wrong


def test_an_order_that_an_algorithm_works_meets_nobody_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hold(10)
    desk.sure(10, SELL, "101.00", asset=AAPL)
    assert verdict(desk.ask(10, BUY, "102.00"), "G23") == FAIL
    assert verdict(desk.ask(10, BUY, "102.00", type=OrderType.TWAP), "G23") == PASS


def test_when_nothing_is_left_the_way_out_is_open_and_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hold(10)
    desk.guardian.book.memory.cash[0] = -1_000.0
    assert verdict(desk.ask(10, SELL, "100.00"), "G29") == PASS
    assert verdict(desk.ask(10, BUY, "100.00"), "G29") == FAIL


def test_an_amendment_that_is_not_made_leaves_the_order_as_it_was(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    intent = desk.sure(100)
    desk.guardian.opened(intent)
    desk.wait(2)
    larger = desk.intent(300, name=intent.client_id)
    ruling = desk.guardian.judge_amend(intent.client_id, larger)
    assert ruling.accepted, ruling.failed
    desk.kill.stop(State.HALTED, why="a bad day")
    with pytest.raises(QuantbenchError, match="QB-GRD-002"):
        desk.guardian.accept(ruling)
    assert int(desk.guardian.book.rows["open_buy"][0]) == 100


def test_fills_in_a_row_beyond_the_limit_halt_the_strategy(tmp_path: Path) -> None:
    """Orders that were let through together may fill more often than one after the other."""
    desk = Desk(tmp_path, limits={"max_same_side_fills_count": 2})
    intents = [desk.intent(n, limit=f"9{n}.00") for n in (1, 2, 3)]
    for intent in intents:
        desk.guardian.opened(intent)
    for count, intent in enumerate(intents):
        assert desk.kill.state(Scope("strategy", "drift")) is State.ACTIVE, count
        desk.guardian.booked(desk.fill(intent.order))
    assert desk.kill.state(Scope("strategy", "drift")) is State.HALTED


def test_a_look_counts_anew_what_the_engine_has_halted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"max_same_side_fills_count": 2})
    for n in (1, 2, 3):
        intent = desk.intent(n, limit=f"9{n}.00")
        desk.guardian.opened(intent)
        desk.guardian.booked(desk.fill(intent.order))
    desk.guardian.book.look()
    assert halted(desk) != 0
    desk.guardian.reset("another", who="Ann Lee")
    desk.guardian.reset("drift", who="Ann Lee")
    assert halted(desk) == 0
    desk.guardian.reset("drift", who="Ann Lee")  # nothing is halted any more
    assert halted(desk) == 0


def test_a_person_who_lowers_takes_what_the_engine_has_halted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, limits={"max_drawdown_fraction": 0.05, "max_daily_loss_fraction": 0.5})
    lose(desk)
    assert halted(desk) != 0 and desk.kill.state() is State.REDUCING
    desk.kill.stop(State.HALTED, why="one of its own", scope=Scope("strategy", "drift"))
    desk.guardian.lower(State.ACTIVE, who="Ann Lee", why="looked at it", scope=Scope("strategy", "drift"))
    assert halted(desk) != 0  # a strategy's release is not the account's
    desk.guardian.lower(State.ACTIVE, who="Ann Lee", why="looked at it")
    assert halted(desk) == 0 and desk.kill.state() is State.ACTIVE


@pytest.mark.parametrize("sent", [0, 3])
def test_a_tighter_throttle_remembers_what_was_sent(tmp_path: Path, sent: int) -> None:
    desk = Desk(tmp_path)
    for n in range(sent):
        desk.sure(10 + n)
    desk.guardian._throttle("strategy silent")  # one that has sent nothing
    desk.guardian.tighten(who="Ann Lee", max_messages_count=3)
    assert verdict(desk.ask(50), "G05") == (PASS if sent == 0 else FAIL)


def test_without_a_journal_limits_are_tightened_all_the_same(tmp_path: Path) -> None:
    clock = SimClock(NOON)
    guardian = Guardian(
        (AAPL,), WIDE, Settings(), clock=clock, rules=RULES, kill=Kill(tmp_path / "KILL", clock, account="U1"), seal=Seal(),
        journals=tmp_path,
    )  # fmt: skip
    guardian.tighten(who="Ann Lee", max_order_ccy=1.0)
    assert guardian.limits.max_order_ccy == 1.0


def test_the_end_of_an_order_that_nobody_counts_changes_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.guardian.closed("drift-77")
    assert not desk.guardian.book.orders


def test_a_volume_that_is_told_is_the_days(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for _ in range(2):
        desk.guardian.mark("AAPL", 100.0, desk.clock.now(), volume=50.0)
    assert float(desk.guardian.book.rows["day_volume"][0]) == 100.0


def test_an_account_in_another_currency_is_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, told=False)
    with pytest.raises(QuantbenchError, match="QB-GRD-003"):
        desk.account(currency="EUR")
    assert desk.guardian.told.account is None


def test_an_order_that_grows_after_it_was_full_lives_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    intent = desk.sure(100)
    desk.guardian.opened(intent)
    desk.guardian.booked(desk.fill(intent.order))
    rows = desk.guardian.book.rows
    assert int(rows["open_buy"][0]) == 0
    desk.guardian.opened(desk.intent(100, name=intent.client_id))  # nothing is left
    assert int(rows["open_buy"][0]) == 0
    desk.guardian.opened(desk.intent(150, name=intent.client_id))
    assert int(rows["open_buy"][0]) == 50


@pytest.mark.parametrize("later", [False, True], ids=["the same day", "a later day"])
@pytest.mark.parametrize("daily", [True, False], ids=["a bad day", "a bad month"])
def test_a_start_has_what_the_day_before_it_left(tmp_path: Path, later: bool, daily: bool) -> None:
    """A daily loss ends with its day; a drawdown does not."""
    limits = {
        "max_drawdown_fraction": 0.5 if daily else 0.05,
        "max_daily_loss_fraction": 0.05 if daily else 0.5,
    }
    desk = Desk(tmp_path, limits=limits)
    lose(desk)
    was, kept = halted(desk), desk.guardian.snapshot()
    assert was != 0
    folder = tmp_path / "again"
    folder.mkdir()
    again = Desk(folder, limits=limits, at=NOON + timedelta(days=1) if later else NOON)
    again.guardian.book.run["day_equity"] = 95_000.0
    again.guardian.resume(kept)
    assert halted(again) == (0 if later and daily else was)
    assert again.guardian.book.run["day_equity"][0] == (95_000.0 if later else kept["day_equity"])


# ---- limits and rules


@pytest.mark.parametrize("limit", [0, -1])
def test_a_throttle_without_room_has_none(limit: int) -> None:
    assert not Throttle(limit, 1.0).room(0).ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"switch": date(2026, 6, 3)}, {"switch": PHASED_IN + timedelta(days=1)}, {"maintenance_fraction": 0.0}, {"maintenance_fraction": 1.01},
        {"maintenance_fraction": math.nan}, {"venue_messages_count": 0}, {"venue_window_seconds": 3601},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(QuantbenchError, match="QB-RISK-001"):
        Rules(account="U1", broker="test", **wrong)
    assert Rules(account="U1", broker="test", switch=PHASED_IN, maintenance_fraction=1)


# ---- the kill


def cut(path: Path, **more: Any) -> Kill:
    return Kill(path / "KILL", SimClock(NOON), account="U1", **more)


def test_a_scope_that_there_is_not_is_refused() -> None:
    with pytest.raises(QuantbenchError, match="QB-RISK-004"):
        Scope("planet", "Mars")


def test_of_two_kills_one_is_lowered(tmp_path: Path) -> None:
    """The other stays in the file, and in the next process."""
    written: list[Any] = []
    kill = cut(tmp_path, append=lambda kind, payload: written.append((kind, payload)))
    one, other = Scope("strategy", "one"), Scope("strategy", "other")
    for scope in (one, other):
        kill.stop(State.KILLED, why="a bad day", scope=scope)
    kill._clock.advance(86_400)
    kill.lower(State.REDUCING, who="Ann Lee", why="looked at it", scope=one)
    assert written[-1][1]["state"] == "reducing"
    assert {c.scope for c in causes_in((tmp_path / "KILL").read_bytes())} == {other}
    assert {c.scope: c.state for c in kill.causes} == {one: State.REDUCING, other: State.KILLED}
    kill.lower(State.ACTIVE, who="Ann Lee", why="looked again", scope=one)
    assert {c.scope for c in kill.causes} == {other}
    again = cut(tmp_path, past=[payload for _, payload in written])
    assert {c.scope for c in again.causes} == {other} and again.state(other) is State.KILLED


def test_what_does_not_stand_there_cannot_be_lowered(tmp_path: Path) -> None:
    kill = cut(tmp_path)
    with pytest.raises(QuantbenchError, match="QB-RISK-004"):
        kill.lower(State.ACTIVE, who="Ann Lee", why="looked at it")
    kill.stop(State.REDUCING, why="a fall")
    with pytest.raises(QuantbenchError, match="QB-RISK-004"):
        kill.lower(State.HALTED, who="Ann Lee", why="looked at it")


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda line: line[:-5],
    "too long": lambda line: line + b" " * (1 << 20) + b"\n",
    "no record": lambda _: b"{}\n",
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_kill_file_that_cannot_be_read_kills(tmp_path: Path, spoiled: str) -> None:
    kill = cut(tmp_path)
    kill.stop(State.KILLED, why="a bad day", scope=Scope("strategy", "one"))
    line = line_of(kill.causes[0])
    (tmp_path / "KILL").write_bytes(SPOILED[spoiled](line))
    with pytest.raises((ValueError, KeyError, TypeError, QuantbenchError)):
        causes_in((tmp_path / "KILL").read_bytes())
    assert cut(tmp_path).state() is State.KILLED  # everything, not the one strategy


def test_a_folder_that_takes_no_kill_file_kills(tmp_path: Path, monkeypatch: Any) -> None:
    """A disk that takes a part of the line has not taken it."""
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:3]))
    kill = cut(tmp_path)
    monkeypatch.undo()
    kill.ready()
    assert kill.state() is State.KILLED and kill.faults
