"""A paper session from its start to its replay, through the real Guardian, order book and journals; the live loop has a stand-in (`mirror`)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from mirror import mirrored
from test_admission import Place
from test_gateway import until

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.config import load
from quantbench.core.journal import Journal, read
from quantbench.data import synth
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import window
from quantbench.execution.floor import Floor
from quantbench.execution.record import Recorder
from quantbench.execution.session import starts
from quantbench.ops.cli import main
from quantbench.ops.gateway import Client
from quantbench.ops.paper import Played, folder_of, note_seen, paper
from quantbench.ops.replay import require_seen
from quantbench.ops.wire import Home


class Turns(Strategy):
    """Buys on falls with a limit, protects with a stop, changes its mind."""

    size: int = param(20, low=2, high=100)
    recent: object = window("size")

    def on_bar(self, bar, market):
        self.recent.push(bar.close)
        if not self.recent.full:
            return
        held = market.position(bar.asset)
        if market.open_orders(bar.asset) > 2:
            market.cancel_all(bar.asset)
        elif bar.close < self.recent.mean() and held < 300.0:
            market.buy(bar.asset, 100.0, limit=bar.close * 0.9995, tif="gtc")
        elif held > 0.0:
            market.sell(bar.asset, held, stop=bar.close * 0.999, tif="gtc")


class Swings(Turns):
    """Buys on falls with a limit when it has nothing, and sells at the market when it has waited."""

    def on_bar(self, bar, market):
        self.recent.push(bar.close)
        if not self.recent.full or market.open_orders(bar.asset) > 0:
            return
        held = market.position(bar.asset)
        if held == 0.0 and bar.close < self.recent.mean():
            market.buy(bar.asset, 100.0, limit=bar.close * 0.9998)
        elif held > 0.0 and bar.close > self.recent.mean():
            market.sell(bar.asset, held)


DESKS = Path(__file__).with_name("desks.py")
WALL = WallClock()


def floor_in(folder: Path, **how: object) -> Floor:
    begin = mirrored(load(), WALL, **{"sessions": 300, **how})
    return Floor(folder, clock=WALL, begin=begin, may_resume=lambda journal: require_seen(read(journal)))


def play(folder: Path, **how: object) -> tuple[Floor, Played]:
    floor = floor_in(folder, **how)
    floor.start(strategy="KnownDrift")
    while floor.session is not None:
        floor.step()
    return floor, Played.of(folder / "runs")


def test_a_session_has_the_result_of_its_backtest_and_nothing_to_report(tmp_path):
    floor, played = play(tmp_path)
    again = played.study.on(played.recording.tape).run()
    assert played.ended == "done" and played.result.hash == again.hash
    assert played.reconciliation["clean"] and len(played.lived.decisions) == len(played.lived.fills) > 20
    assert played.diff(stored=False).same
    shortfall = played.shortfall()
    assert (shortfall.mean_bps, shortfall.missing) == (0.0, 0)
    status = floor.status()
    assert (status["state"], status["running"], status["done"]) == ("active", False, True)
    page = played.tearsheet(tmp_path / "reports")
    assert "paper session knowndrift-1" in page.read_text()
    floor.close()


def test_worse_fills_are_the_first_divergence_and_the_shortfall_has_their_size(tmp_path):
    floor, played = play(tmp_path, slip=2e-4)
    diff = played.diff(stored=False)
    assert diff.first.kind == "fill" and [d.stage for d in diff.apart] == ["fill"]
    assert played.result.hash == played.study.on(played.recording.tape).run().hash, (
        "the engine saw its own fills"
    )
    floor.close()


def test_a_tape_that_was_corrected_since_is_named(tmp_path):
    floor, played = play(tmp_path)
    diff = played.diff()
    assert diff.same, "the lake's tape goes on after the session's last event, and agrees before"
    events = played.recording.events.copy()
    events["volume"][100] += 1
    object.__setattr__(played.recording, "events", events)
    assert played.diff().first.kind == "data" and "volume" in played.diff().first.what
    floor.close()


def test_a_session_that_fails_halts_and_nothing_starts_before_somebody_has_looked(tmp_path):
    def fail(count: int) -> None:
        if count == 150:
            raise RuntimeError("the feed sent nonsense")

    home = Home.make(tmp_path / "g")
    floor, played = play(home.folder, at=fail)
    assert floor.status()["state"] == "halted" and "nonsense" in floor.status()["failed"]
    assert played.ended == "failed" and 0 < len(played.recording.events) <= 151
    diff = played.diff()
    assert diff.same and diff.decisions > 10
    for again in (lambda: floor.start(strategy="KnownDrift"), lambda: floor.resume("Ann Lee", "all is well")):
        with pytest.raises(QuantbenchError, match="QB-RPD-003"):
            again()
    floor.close()
    assert (
        main(
            [
                "replay-diff",
                "--home",
                str(home.folder),
                "--unstored",
                "--seen",
                "Ann Lee",
                "--why",
                "the feed was broken",
            ]
        )
        == 0
    )
    floor = floor_in(home.folder)
    floor.start(strategy="KnownDrift")
    assert floor.session is not None and floor.session.name == "knowndrift-2"
    floor.close()


def test_a_disk_that_takes_no_more_events_stops_the_session_before_it_acts_on_them(tmp_path, monkeypatch):
    floor = floor_in(tmp_path)
    floor.start(strategy="KnownDrift")
    while floor.session._recorder.count < 100:
        floor.step()
    orders = len(floor.account.oms.orders)

    def full(_self: Recorder, _events: object) -> None:
        raise QuantbenchError("QB-RPD-002", where="events", value="No space left on device")

    monkeypatch.setattr(Recorder, "events", full)
    floor.step()
    assert (
        floor.session is None
        and floor.status()["state"] == "halted"
        and len(floor.account.oms.orders) == orders
    )
    floor.close()


def test_halted_a_session_waits_and_goes_on_where_it_was(tmp_path):
    floor = floor_in(tmp_path)
    floor.start(strategy="KnownDrift")
    while floor.session._recorder.count < 100:
        floor.step()
    floor.halt("Ann Lee", "lunch is served")
    at = floor.session._recorder.count
    for _ in range(20):
        floor.step()
    assert floor.session._recorder.count == at
    diff = Played.of(tmp_path / "runs")
    with pytest.raises(QuantbenchError, match="QB-RPD-003"):
        floor.resume("Ann Lee", "lunch is over")
    floor.session._recorder.mark()
    seen = Played.of(tmp_path / "runs").diff()
    assert seen.same and diff.ended == "lost", "it is not over yet"
    floor.note(
        "diff.seen",
        {"run": "knowndrift-1", "diff": seen.hash, "first": "", "who": "Ann Lee", "why": "nothing apart"},
    )
    floor.resume("Ann Lee", "lunch is over")
    while floor.session is not None:
        floor.step()
    played = Played.of(tmp_path / "runs")
    assert played.diff().same and len(played.recording.events) == 300
    floor.close()


def test_killed_a_session_ends_with_what_it_had(tmp_path):
    floor = floor_in(tmp_path)
    floor.start(strategy="KnownDrift")
    while floor.session._recorder.count < 100:
        floor.step()
    killer = threading.Thread(target=floor.kill, args=("Ann Lee", "a loop"))
    killer.start()
    while floor.session is not None:
        floor.step()
    killer.join()
    assert not floor.account.oms.open_orders and len(floor.account.oms.orders) < 20
    played = Played.of(tmp_path / "runs")
    assert played.ended == "done" and len(played.recording.events) < 300 and played.diff().same
    with pytest.raises(QuantbenchError, match="QB-RPD-003"):
        floor.start(strategy="KnownDrift")
    floor.close()


# ---- in a process


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home.make(tmp_path / "g")
    yield made
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    processes.clear()


processes: list[subprocess.Popen[bytes]] = []


def up(home: Home) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, str(DESKS), "paper", str(home.folder)])
    processes.append(process)

    def answers() -> bool:
        assert process.poll() is None
        with suppress(QuantbenchError), Client(home, seconds=5.0) as client:
            return client.status()["process"] == process.pid
        return False

    until(answers, "no gateway", 60.0)
    return process


def test_a_session_in_the_gateway_is_watched_from_outside_and_read_from_its_disk(home):
    up(home)
    with Client(home, seconds=60.0) as client:
        told: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            with Client(home, seconds=60.0) as other:
                events = other.events()
                ready.set()
                for event in events:
                    told.append(event["kind"] + event["state"])
                    if told[-1] == "sessionstopped":
                        return

        listener = threading.Thread(target=listen)
        listener.start()
        ready.wait(10)
        assert client.start("KnownDrift", speed=0.0)["run"] == "knowndrift-1"
        with pytest.raises(QuantbenchError, match="QB-GTW-011"):
            client.start("KnownDrift")
        until(lambda: not client.status()["running"], "it does not end", 120.0)
        status, orders, fills = client.status(), client.orders(last=1000), client.fills(1000)
        assert (
            status["reconciled"] and status["events"] == 2520 and len(orders) == len(fills) == status["fills"]
        )
        listener.join(20)
    assert "sessionstopped" in told or "orderfilled" in told
    played = Played.of(folder_of(home))
    assert played.diff().same and played.result.hash == status["result"]


def test_after_a_kill_9_the_session_is_lost_and_its_recording_is_not(home):
    process = up(home)
    with Client(home, seconds=60.0) as client:
        client.start("KnownDrift", speed=86_400.0 * 60)  # sixty days a second
        until(lambda: client.status()["events"] > 100, "it does not run", 60.0)
    until(
        lambda: any(r.kind == "recording" for r in read(folder_of(home) / "knowndrift-1.journal")),
        "no mark",
        60.0,
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    up(home)
    with Client(home, seconds=60.0) as client:
        assert client.status()["lost"] == ["knowndrift-1"] and not client.status()["running"]
    played = Played.of(folder_of(home))
    assert played.ended == "lost" and len(played.recording.events) > 0
    assert played.diff().same, "what is vouched for is what the backtest does"


def test_the_command_ends_with_1_where_something_came_apart_and_writes_the_look_through_the_gateway(
    home, capsys
):
    floor, _ = play(home.folder, slip=2e-4)
    floor.close()
    up(home)
    words = ["replay-diff", "--home", str(home.folder), "--unstored", "--json"]
    assert main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["apart"][0]["kind"] == "fill" and not told["same"]
    assert main([*words[:-1], "--last", "1", "--seen", "Ann Lee", "--why", "prices were worse"]) == 0
    assert "by the gateway" in capsys.readouterr().out
    assert [r.payload["who"] for r in read(home.folder / "gateway.journal") if r.kind == "diff.seen"] == [
        "Ann Lee"
    ]
    assert main([*words, "--seen", "Ann Lee"]) == 2
    assert main(["replay-diff", "nobody-1", "--home", str(home.folder)]) == 3


def test_a_look_is_a_person_with_a_reason(tmp_path):
    home = Home.make(tmp_path / "g")
    floor, played = play(home.folder)
    floor.close()
    with pytest.raises(QuantbenchError, match="QB-RPD-004"):
        note_seen(home, played.diff(last=timedelta(days=3)), "machine", "looked at it")
    held = Journal.open(home.folder / "gateway.journal", clock=WALL)
    with pytest.raises(QuantbenchError, match="QB-JNL-007"):
        note_seen(home, played.diff(), "Ann Lee", "nothing apart")
    held.close()


# ---- the real loop


def test_the_real_loop_in_a_real_gateway_with_a_certificate(tmp_path, monkeypatch):
    place, now = Place(tmp_path), WALL.now()
    made = place.certify(issued=now - timedelta(days=1), expires=now + timedelta(days=14))
    (tmp_path / "settings.ini").write_text("[paths]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QB_SIGNING_KEY", str(place.key))
    told: list[str] = []
    home = Home(tmp_path / "g")
    with pytest.raises(QuantbenchError, match="QB-GTW-015"):
        paper("PairsReversion", home=home, tell=told.append)  # nobody promoted that
    try:
        with Client(home, seconds=60.0) as client:
            assert client.status()["sidecar"] > 0 or not client.status()["running"]
            played = paper("KnownDrift", home=home, certificate=str(place.file), tell=told.append)
            assert (
                played.start["certificate"] == made
                and played.ended == "done"
                and played.reconciliation["clean"]
            )
            assert played.result.hash == played.study.run().hash and played.diff().same
            assert len(played.lived.decisions) == len(client.orders(last=1000)) == 262
            assert {"order.intent", "order.ruling", "order.fill", "decision", "recording"} <= {
                r.kind for r in played.records
            }
            text = place.file.read_text().replace('"capital_fraction":1.0', '"capital_fraction":0.9')
            place.file.write_text(text)
            with pytest.raises(QuantbenchError, match="QB-CRT-002"):
                client.start("KnownDrift", certificate=str(place.file))
    finally:
        assert main(["gateway", "stop", "--home", str(home.folder)]) == 0
    assert told[0].startswith("started a gateway")


def minutes(strategy: Strategy, days: int) -> Study:
    walk = synth.trends(["PAPR", "SOLD"], synth.grid(days, interval="1m"), seed=129)
    tape = Tape.from_bars(walk.bars, calendar="24/7", interval="1m", label="end").load()
    return Study(strategy, tape, {})


def lived(folder: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> tuple[Floor, Played]:
    begin = starts(settings=load(), wall=WALL, admit=lambda *_: (study, "", "paper"))
    floor = Floor(folder, clock=WALL, begin=begin)
    floor.start(strategy=study.name)
    while floor.session is not None:
        floor.step()
    monkeypatch.setattr(Study, "of", classmethod(lambda *_: study))
    return floor, Played.of(folder / "runs")


def test_minute_bars_of_several_assets_through_the_real_loop_are_the_backtest(tmp_path, monkeypatch):
    study = minutes(Swings(), 3)
    floor, played = lived(tmp_path, study, monkeypatch)
    assert floor.guardian()["refused"] == []
    assert floor.status()["result"] == study.run().hash and floor.status()["reconciled"]
    assert played.diff().same and len(played.lived.fills) > 20
    floor.close()


def test_where_guardian_refuses_what_the_backtest_allowed_the_replay_says_so(tmp_path, monkeypatch):
    """Its own stop would trade with its own bid (G23): a backtest of one strategy has no such control."""
    study = minutes(Turns(), 1)
    floor, played = lived(tmp_path, study, monkeypatch)
    first = played.diff().first
    assert first.kind == "guardian" and "QB-RISK-123" in first.live
    assert floor.status()["reconciled"], "the books agree all the same"
    floor.close()


def test_a_kill_in_the_middle_leaves_nothing_open_at_the_paper_broker(tmp_path):
    begin = starts(settings=load(), wall=WALL, admit=lambda *_: (minutes(Turns(), 2), "", "paper"))
    floor = Floor(tmp_path, clock=WALL, begin=begin)
    floor.start(strategy="Turns")
    while not floor.account.oms.open_orders:
        floor.step()
    killer = threading.Thread(target=floor.kill, args=("Ann Lee", "a loop"))
    killer.start()
    while floor.session is not None:
        floor.step()
    killer.join()
    assert not floor.account.oms.open_orders and not floor.account.broker.open_orders()
    assert floor.status()["state"] == "killed" and floor.status()["reconciled"]
    floor.close()
