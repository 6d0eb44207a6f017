"""Alpaca's adapter over real sockets with seeded faults, its stream on a clock that we move, and its keys in no text."""

from __future__ import annotations

import json
import logging
import pickle
import random
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.settings import Broker
from quantbench.execution.alpaca import AlpacaBroker, Keys, _Talk
from quantbench.execution.broker import Outcome, Seal, Told
from quantbench.execution.conformance import Trial, accepted
from quantbench.execution.line import ATTEMPTS, WINDOW, Line, Redial
from venues.alpaca import KEY, SECRET
from venues.stages import alpaca

NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
GOOD = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}


# ---- sending (rows 36 to 40) --------------------------------------------------------------------------------


def test_a_thousand_lost_acknowledgements_make_no_second_order(soak):
    rates = {"lost": 0.4, "error": 0.3, "garbage": 0.2, "cut": 0.1}
    with alpaca(sweep=1e9) as stage:
        trial = Trial(stage)
        for n in range(1000 * soak):
            stage.venue.chaos(n, rates)
            assert trial.send(f"n{n}").outcome is Outcome.UNKNOWN
            stage.venue.calm()
            assert trial.found(f"n{n}") is not None
            assert trial.send(f"n{n}").outcome is Outcome.ACCEPTED
        assert len(stage.venue.orders) == 1000 * soak


def test_in_a_storm_of_faults_no_answer_is_wrong(soak):
    """ACCEPTED: it is there, once. REFUSED: it is not. UNKNOWN: either, and the broker can be asked."""
    rates = {"lost": 0.1, "error": 0.1, "early": 0.1, "garbage": 0.1, "refuse": 0.1, "proxy": 0.1, "cut": 0.1}
    with alpaca(sweep=1e9) as stage:
        stage.venue.chaos(7, rates)
        trial, seen = Trial(stage), set()
        for n in range(300 * soak):
            outcome = trial.send(f"n{n}").outcome
            made = stage.made(f"n{n}")
            seen.add((outcome, made))
            assert (trial.found(f"n{n}") is not None) == bool(made)
        unknown = {(Outcome.UNKNOWN, 0), (Outcome.UNKNOWN, 1)}
        assert seen == {(Outcome.ACCEPTED, 1), (Outcome.REFUSED, 0)} | unknown


def test_a_cancel_does_not_wait_behind_an_order_that_hangs():
    with alpaca() as stage:
        trial, answers = Trial(stage), []
        accepted(trial.send("b"))
        stage.venue.fail("late", seconds=5.0)
        hanging = threading.Thread(target=lambda: answers.append(trial.send("a")))
        hanging.start()
        assert trial.until(lambda: stage.made("a"))  # it is there, and its answer is not
        accepted(stage.adapter.cancel_order("b"))
        assert stage.open("b") == 0 and answers == []
        hanging.join()
        assert answers[0].outcome is Outcome.UNKNOWN


# ---- hearing (rows 41 and 43, B1 to B7) ---------------------------------------------------------------------


def talk() -> _Talk:
    return _Talk(
        "ws://localhost:9", lambda: Keys(KEY, SECRET), lambda *_, **__: [], SimClock(NOON), NOON, 1.0
    )


def frame(n: int, **how) -> dict:
    order = {"id": "b1", "client_order_id": "a", "symbol": "AAPL", "side": "buy", "filled_qty": str(n + 1)}
    data = {"event": "partial_fill", "execution_id": f"e{n}", "qty": "1", "price": "50.00", "order": order}
    return {"stream": "trade_updates", "data": data | {"timestamp": "2026-03-02T17:00:01.024916716Z"} | how}


def test_ten_thousand_repeated_fills_are_told_once_each(soak):
    ears, rng = talk(), random.Random(1)
    frames = [json.dumps(frame(n)).encode() for n in range(1000 * soak)] * 10
    rng.shuffle(frames)
    assert all(ears.hear(one) for one in frames)
    reports = ears.told.take()
    assert len(reports) == 1000 * soak and sum(r.quantity for r in reports) == 1000 * soak


def test_no_frame_whatever_breaks_the_ears(soak):
    """Bytes flipped, fields swapped for other values: every frame is told, known to be strange, or not read."""
    ears, rng = talk(), random.Random(2)
    junk = [None, True, -1, 1e300, "", "NaN", "1_0", "1e999", "٣", [], {}, "x" * 5000, "\x00", "２"]
    read = 0
    for _ in range(3000 * soak):
        message = frame(rng.randrange(99))
        place = rng.choice([message, message["data"], message["data"]["order"]])
        place[rng.choice(sorted(place))] = rng.choice(junk)
        data = bytearray(json.dumps(message).encode())
        if rng.random() < 0.3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read += ears.hear(bytes(data))
        except QuantbenchError as error:
            assert error.code == "QB-BRK-014"
    for nested in (b"[" * 100_000, b'{"stream": "trade_updates", "data": ' * 50_000):
        assert not ears.hear(nested)
    told = ears.told.take()
    assert read and ears.unread and {Told.FILL, Told.STRANGE} <= {r.told for r in told}
    for report in told:
        if report.told is Told.FILL:
            assert report.quantity is not None and report.price is not None


# ---- the line (rows 50, 51, 53) -----------------------------------------------------------------------------


class Rope:
    """A stream on a clock that we move: events happen at their times, and are heard only while it holds."""

    def __init__(self, seed: int, drops: int) -> None:
        self.clock, self.rng = SimClock(NOON), random.Random(seed)
        self.now, self.done, self.known, self.dials = 0.0, [], set(), []
        self.next = 1.0
        self.breaks, at = [], 0.0
        for _ in range(drops):
            at += self.rng.uniform(1, 600)
            length = self.rng.uniform(1, 300)
            self.breaks.append((at, at + length, self.rng.random() < 0.3))
            at += length
        self.end = at + 600
        self.mute_found = []
        self.since = None

    def at(self, moment: float):
        return next((b for b in self.breaks if b[0] <= moment < b[1]), None)

    def go(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.now = self.clock.monotonic()
        while self.next <= self.now:
            self.done.append(self.next)
            self.next += self.rng.uniform(0.5, 60)

    def dial(self):
        self.dials.append(self.now)
        if self.at(self.now):
            raise ConnectionRefusedError
        self.heard = len(self.done)
        return self

    def greet(self, _) -> None:
        self.go(0.05)

    def ask(self, _) -> None:
        self.asked = self.now

    def hear(self, frame: str) -> bool:
        self.known.add(float(frame))
        return True

    def catch_up(self) -> None:
        if self.at(self.now):
            raise QuantbenchError("QB-BRK-010", where="rope", value="no answer")
        self.known |= set(self.done)

    def receive(self, seconds: float) -> str | None:
        start = self.now
        self.go(max(min(seconds, max(self.next - self.now, 0.0)), 1e-6))
        if self.now > self.end:
            self.line.stop()
            return None
        broken = self.at(self.now)
        if broken and not broken[2]:
            raise ConnectionResetError
        if broken:  # open and mute
            self.heard = len(self.done)
            return None
        if self.heard < len(self.done):
            self.heard += 1
            return repr(self.done[self.heard - 1])
        return repr(-1.0) if getattr(self, "asked", None) == start else None

    def close(self) -> None:
        if self.at(self.now) and self.at(self.now)[2]:
            self.mute_found.append(self.now - self.at(self.now)[0])


def test_five_hundred_drops_lose_no_fill_and_trading_waits_for_the_pull(soak):
    rope = Rope(3, 500 * soak)
    rope.line = line = Line(rope, rope.clock, wait=rope.go, sweep=30.0)
    pulls, pull = [], rope.catch_up
    rope.catch_up = lambda: (pull(), pulls.append(set(rope.done) <= rope.known))
    line.run()
    assert len(rope.done) > 1000 and set(rope.done) - rope.known <= set(rope.done[-3:])
    assert all(pulls) and len(rope.dials) >= 400
    for start in rope.dials:
        assert sum(start <= at < start + WINDOW for at in rope.dials) <= ATTEMPTS
    assert len(rope.mute_found) > 50 and max(rope.mute_found) <= 15.0


@pytest.mark.parametrize("seed", range(5))
def test_fifty_refusals_are_at_most_twelve_attempts_in_ten_minutes(seed):
    redial, now, made = Redial(seed), 0.0, []
    for _ in range(50):
        now += redial.delay(now)
        made.append(now)
    assert max(sum(start <= at < start + WINDOW for at in made) for start in made) <= ATTEMPTS


# ---- keys (C6, C7) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "given", "code"),
    [
        ("live", GOOD, "QB-CFG-006"),
        ("paper", GOOD | {"APCA_API_KEY_ID": "AK" + KEY[2:]}, "QB-CFG-006"),
        ("paper", GOOD | {"APCA_API_KEY_ID": "XX" + KEY[2:]}, "QB-BRK-012"),
        ("paper", GOOD | {"APCA_API_SECRET_KEY": ""}, "QB-BRK-012"),
        ("paper", {"APCA_API_KEY_ID": KEY}, "QB-BRK-012"),
        ("paper", GOOD | {"APCA_API_SECRET_KEY": SECRET + "\nX"}, "QB-BRK-012"),
    ],
)
def test_keys_of_the_other_stage_and_bad_keys_are_refused_without_being_shown(stage, given, code):
    with pytest.raises(QuantbenchError) as caught:
        Keys.read(Broker(name="alpaca", stage=stage), given)
    assert caught.value.code == code
    assert not [v for v in given.values() if v and v in str(caught.value)]


def test_keys_come_from_the_keyring_by_stage(monkeypatch):
    import keyring

    asked = []
    monkeypatch.setattr(keyring, "get_password", lambda *names: asked.append(names) or GOOD[names[1]])
    keys = Keys.read(Broker(name="alpaca", credentials="keyring"), {})
    assert (keys.id, keys.secret) == (KEY, SECRET)
    assert {service for service, _ in asked} == {"quantbench.alpaca.paper"}
    with pytest.raises(TypeError):
        pickle.dumps(keys)


def test_keys_are_in_no_log_even_at_debug(caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("websockets", "websockets.client", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, logger=name)
    with alpaca() as stage:
        trial = Trial(stage)
        accepted(trial.send())
        stage.venue.expired = True
        trial.send("b")
    assert not [s for s in (KEY, SECRET) if s in caplog.text]


def test_an_address_in_the_clear_is_refused(monkeypatch):
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(QuantbenchError, match="QB-BRK-013"):
        AlpacaBroker(Broker(name="alpaca", endpoint="http://paper-api.example.com"), Seal(), SimClock(NOON))


def test_new_keys_are_taken_at_the_next_connection(monkeypatch):
    with alpaca() as stage:
        trial = Trial(stage)
        stage.venue.expired = True
        stage.venue.drop_lines()
        assert trial.until(lambda: stage.adapter.trouble == "QB-BRK-014") and not stage.adapter.ready
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        stage.venue.expired = False
        assert trial.until(lambda: stage.adapter.ready)
        accepted(trial.send())


# ---- lost frames (row 52) -----------------------------------------------------------------------------------


def test_thirty_percent_of_the_frames_lost_are_all_recovered(soak):
    with alpaca() as stage:
        trial, rng = Trial(stage), random.Random(4)
        stage.venue.losses = 0.3
        for n in range(20):
            accepted(trial.send(f"o{n}", quantity="1000"))
        done = {stage.trade(f"o{rng.randrange(20)}", Decimal(1), Decimal(50)) for _ in range(300 * soak)}

        def told():
            return {r.execution for r in trial.listen() if r.told is Told.FILL}

        assert trial.until(lambda: told() == done)
        assert sum(r.quantity for r in trial.told if r.told is Told.FILL) == len(done) == stage.held()
