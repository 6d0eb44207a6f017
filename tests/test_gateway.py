"""The gateway as processes: real sockets, real signals, a venue that counts what reaches it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from desks import SPY

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.journal import read
from quantbench.core.types import Order, Side
from quantbench.execution.broker import GuardedOrder, Intent, Seal
from quantbench.ops.gateway import Client
from quantbench.ops.heart import Life, Pulse
from quantbench.ops.wire import Home, Line, proof, write_message
from venues.plain import Plain, Venue

DESKS = Path(__file__).with_name("desks.py")
SOAK = os.environ.get("QUANTBENCH_SOAK") == "1"


def until(true: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for something that happens in another process; so long only so that a test that fails ends."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


class Desk:
    """A venue here, a gateway and a sidecar elsewhere."""

    def __init__(self, folder: Path, silence: float = 60.0) -> None:
        self.home, self.silence = Home.make(folder / "g"), silence
        self.venue = Venue(folder / "venue.sock")
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, what: str, *more: str) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            str(DESKS),
            what,
            str(self.home.folder),
            str(self.venue.path),
            str(self.silence),
            *more,
        ]
        process = subprocess.Popen(words, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def up(self) -> subprocess.Popen[bytes]:
        process = self.start("gateway", "no")
        until(lambda: self.answers(process), "no gateway came up")
        return process

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        with suppress(QuantbenchError), Client(self.home, seconds=2.0) as client:
            return client.status()["process"] == process.pid
        return False

    def beside(self) -> subprocess.Popen[bytes]:
        process = self.start("sidecar")
        pulse = Pulse(self.home.folder / "sidecar.beat", WallClock(), 60.0)
        until(lambda: pulse.look() is Life.ALIVE and pulse.process == process.pid, "no sidecar came up")
        return process

    def client(self) -> Client:
        return Client(self.home, seconds=10.0)

    def place(self, count: int = 1) -> list[str]:
        with self.client() as client:
            return [client.place("Ann Lee", "SPY", "buy", "10")["client_id"] for _ in range(count)]

    def journal(self, name: str = "gateway") -> list[tuple[str, dict]]:
        return [(record.kind, dict(record.payload)) for record in read(self.home.folder / f"{name}.journal")]

    def status_says(self, state: str) -> bool:
        with suppress(QuantbenchError), self.client() as client:
            return client.status()["state"] == state
        return False

    def flag(self, name: str, on: bool = True) -> None:
        (self.home.folder / name).touch() if on else (self.home.folder / name).unlink()

    def close(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            process.stderr.close()
        self.venue.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Desk]:
    """One whose sidecar and watchdog lose patience after a second."""
    made = Desk(tmp_path, silence=1.0)
    yield made
    made.close()


# ---- starting, dying, ending


def test_a_second_gateway_is_refused_by_the_number_of_the_first(desk):
    first = desk.up()
    second = desk.start("gateway", "no")
    second.wait(30)
    said = second.stderr.read()
    assert second.returncode == 1 and b"QB-GTW-007" in said and f"process {first.pid}".encode() in said
    assert desk.answers(first), "the first must not notice"


def test_after_a_kill_9_a_restart_has_every_order_once(desk):
    first = desk.up()
    before = desk.place(5)
    first.kill()
    first.wait()
    desk.up()
    with desk.client() as client:
        orders = client.orders().data
        after = client.place("Ann Lee", "SPY", "sell", "1")["client_id"]
    assert [(o["id"], o["state"]) for o in orders] == [(name, "submitted") for name in before]
    assert after not in before and desk.venue.seen == dict.fromkeys([*before, after], 1)


def test_a_killed_account_stays_killed_through_crashes(desk):
    first = desk.up()
    with desk.client() as client:
        assert client.kill("Ann Lee", "a loop")["first"] and not client.kill("Ann Lee", "a loop")["first"]
    first.kill()
    first.wait()
    (desk.home.folder / "KILL").unlink()
    desk.up()
    with desk.client() as client:
        assert client.status()["state"] == "killed"
        assert client.place("Ann Lee", "SPY", "buy", "1")["state"] == "rejected"
        with pytest.raises(QuantbenchError, match="QB-RISK-002"):
            client.resume("the machine", "again")
    assert desk.venue.sends() == []
    assert [kind for kind, _ in desk.journal() if kind == "kill"] == ["kill"]


def test_sigterm_ends_the_session_and_the_process(desk):
    process = desk.up()
    desk.place(3)
    process.terminate()
    assert process.wait(30) == 0 and not desk.venue.open
    assert ("session.stop", {"run": "busy"}) in desk.journal()
    assert Pulse(desk.home.folder / "gateway.beat", WallClock(), 5.0).look() is Life.CLOSED
    assert not desk.home.socket("gateway").exists() and not desk.home.socket("halt").exists()


# ---- the kill, five ways, with what it needs of the gateway broken


def by_socket(desk: Desk) -> None:
    with desk.client() as client:
        client.kill("Ann Lee", "by socket")


def by_gateway_signal(desk: Desk) -> None:
    os.kill(desk.processes[0].pid, signal.SIGUSR1)


def by_sidecar_signal(desk: Desk) -> None:
    os.kill(desk.processes[1].pid, signal.SIGUSR1)


def by_touch(desk: Desk) -> None:
    (desk.home.folder / "KILL").touch()


def by_command(desk: Desk) -> None:
    from quantbench.ops.sidecar import kill_command

    kill_command("by command", "Ann Lee", desk.home.folder)


def stopped(desk: Desk) -> None:
    os.kill(desk.processes[0].pid, signal.SIGSTOP)


def blocked(desk: Desk) -> None:
    desk.flag("BLOCK")


def full(desk: Desk) -> None:
    desk.flag("FULL")


WAYS = (by_socket, by_gateway_signal, by_sidecar_signal, by_touch, by_command)


@pytest.mark.parametrize(
    ("way", "broken"),
    [(way, broken) for broken in (blocked, full) for way in WAYS]
    + [(way, stopped) for way in (by_sidecar_signal, by_touch, by_command)],
    ids=lambda f: f.__name__,
)
def test_every_way_to_kill_cancels_everything_whatever_is_broken(desk, way, broken):
    desk.up()
    desk.beside()
    desk.place(20)
    assert len(desk.venue.open) == 20
    broken(desk)
    way(desk)
    until(lambda: not desk.venue.open, f"{way.__name__} left orders open")
    until(lambda: (desk.home.folder / "KILL").exists(), "the kill is not durable")
    sent = len(desk.venue.sends())
    if broken is stopped:
        os.kill(desk.processes[0].pid, signal.SIGCONT)
    if broken is blocked:
        desk.flag("BLOCK", False)
    desk.flag("BURST")
    until(lambda: desk.status_says("killed"), "the gateway does not know")
    if broken is not full:  # then it cannot even write down that it refuses
        with desk.client() as client:
            assert client.place("Ann Lee", "SPY", "buy", "1")["state"] == "rejected"
    assert len(desk.venue.sends()) == sent, "something left after the kill"


def dead(desk: Desk) -> None:
    desk.processes[0].kill()


@pytest.mark.parametrize("broken", [stopped, blocked, dead], ids=lambda f: f.__name__)
def test_without_a_heartbeat_everything_is_cancelled(watched, broken):
    watched.up()
    watched.beside()
    watched.place(5)
    broken(watched)
    until(lambda: not watched.venue.open, "the dead man's switch did not work")
    assert [p["state"] for kind, p in watched.journal("sidecar") if kind == "stop"] == ["halted"]


def test_a_gateway_that_comes_back_from_a_stop_sends_nothing(watched):
    """Row 27: it was asleep; the market and its own orders have moved on without it."""
    process = watched.up()
    watched.beside()
    watched.place(2)
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: not watched.venue.open, "the sidecar slept, too")
    watched.flag("BURST")
    sent = len(watched.venue.sends())
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: watched.status_says("halted"), "it trades on")
    assert len(watched.venue.sends()) == sent


def test_a_blocked_loop_is_halted_by_the_watchdog(watched):
    """Row 28, without a sidecar."""
    watched.up()
    watched.flag("BLOCK")
    until(lambda: any(k == "kill" and p["state"] == "halted" for k, p in watched.journal()), "nobody noticed")
    watched.flag("BURST")
    watched.flag("BLOCK", False)
    until(lambda: watched.status_says("halted"), "it trades on")
    assert watched.venue.sends() == []


def test_the_gateway_starts_its_sidecar_again(desk):
    process = desk.start("gateway", "yes")
    until(lambda: desk.answers(process), "no gateway")
    pulse = Pulse(desk.home.folder / "sidecar.beat", WallClock(), 60.0)
    until(lambda: pulse.look() is Life.ALIVE, "no sidecar")
    first = pulse.process
    os.kill(first, signal.SIGTERM)
    until(lambda: pulse.look() is Life.ALIVE and pulse.process != first, "it was not replaced")
    os.kill(pulse.process, signal.SIGTERM)
    process.terminate()
    process.wait(30)
    with suppress(ProcessLookupError):
        os.kill(pulse.process, signal.SIGKILL)


def test_nothing_leaves_after_the_record_of_a_kill(tmp_path):
    """Row 69: the kill comes while orders leave as fast as they can."""
    for round_ in range(40 if SOAK else 4):
        folder = tmp_path / str(round_)
        folder.mkdir()
        desk = Desk(folder)
        try:
            desk.up()
            desk.flag("BURST")
            until(lambda desk=desk: len(desk.venue.seen) > 20, "no burst")
            with desk.client() as client:
                killed = client.kill("Ann Lee", "a loop")
            sent = set(desk.venue.seen)
            assert killed["quiet"] and not desk.venue.open
            records = desk.journal("account")
            place = next(n for n, (kind, _) in enumerate(records) if kind == "kill")
            before = {p["id"] for kind, p in records[:place] if kind == "order.ruling" and p["accepted"]}
            after = [p["id"] for kind, p in records[place:] if kind == "order.ruling" and p["accepted"]]
            assert not after and sent <= before
            until(lambda desk=desk: desk.status_says("killed"), "it does not say so")
            assert set(desk.venue.seen) == sent and set(desk.venue.seen.values()) == {1}
        finally:
            desk.close()


# ---- nobody gets in, and nobody gets in the way


@contextmanager
def raw(home: Home, name: str = "gateway") -> Iterator[tuple[socket.socket, str]]:
    """A bare connection and the server's number."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(home.socket(name)))
        yield connection, json.loads(connection.makefile("rb").readline())["nonce"]


NOW = datetime(2026, 3, 2, 17, tzinfo=UTC)
ORDER = Order(id="x-1", asset=SPY, side=Side.BUY, quantity=Decimal(1), time=NOW)
INTENT = Intent(order=ORDER)
LARGER = Intent(order=replace(ORDER, quantity=Decimal(1000)))


def spent(seal: Seal) -> GuardedOrder:
    used = seal.make(INTENT, "1" * 64)
    assert seal.verify(used)
    return used


def sealed(seal: Seal, **other: Any) -> GuardedOrder:
    """A good one, with something else in it."""
    return replace(seal.make(INTENT, "0" * 64), **other)


def tail(seal: Seal) -> str:
    return seal.make(INTENT, "0" * 64).token.partition(":")[2]


# what is handed to an adapter that has the right seal
HANDED: dict[str, Callable[[Seal], Any]] = {
    "nothing": lambda _: None,
    "an order": lambda _: ORDER,
    "an intent": lambda _: INTENT,
    "a word": lambda _: "order",
    "bytes": lambda _: b"order",
    "a mapping": lambda _: {"intent": INTENT},
    "a number": lambda _: 1,
    "an object": lambda _: object(),
    "what only looks sealed": lambda seal: SimpleNamespace(**{k: getattr(sealed(seal), k) for k in ("intent", "decision", "token", "amends")}),
    "a token that was used": spent,
    "the seal of another process": lambda _: Seal().make(INTENT, "0" * 64),
    "no token": lambda seal: sealed(seal, token=""),
    "half a token": lambda seal: sealed(seal, token="1:"),
    "a token of zeros": lambda seal: sealed(seal, token=f"1:{'0' * 64}"),
    "a token under another number": lambda seal: sealed(seal, token=f"99:{tail(seal)}"),
    "a token under a number below zero": lambda seal: sealed(seal, token=f"-1:{tail(seal)}"),
    "a token of an earlier order": lambda seal: sealed(seal, token=seal.make(LARGER, "0" * 64).token),
    "a token that is too long": lambda seal: sealed(seal, token=sealed(seal).token + "0"),
    "a token in capitals": lambda seal: sealed(seal, token=sealed(seal).token.upper() + "A"),
    "a token of other digits": lambda seal: sealed(seal, token=f"\u0661:{tail(seal)}"),
    "another ruling": lambda seal: sealed(seal, decision="2" * 64),
    "a larger order": lambda seal: sealed(seal, intent=LARGER),
    "a new order as an amendment": lambda seal: sealed(seal, amends=True),
    "an amendment as a new order": lambda seal: seal.make(INTENT, "3" * 64, amends=True),
}  # fmt: skip


@pytest.mark.parametrize("way", HANDED)
def test_what_is_not_sealed_does_not_pass_an_adapter(tmp_path, way):
    venue, seal = Venue(tmp_path / "venue.sock"), Seal()
    adapter = Plain(seal, WallClock(), str(venue.path))
    with pytest.raises(QuantbenchError, match="QB-BRK-008"):
        adapter.submit_order(HANDED[way](seal))
    assert venue.sends() == []
    assert seal.verify(sealed(seal))  # what is sealed would
    venue.close()


@dataclass(frozen=True)
class Words:
    """What somebody who stands before the socket knows."""

    home: Home
    nonce: str
    ours: str = "0" * 32

    def proof(
        self,
        *,
        key: bytes | None = None,
        who: str = "client",
        scope: str = "trade",
        nonce: str | None = None,
        ours: str | None = None,
    ) -> str:
        key = self.home.key("trade") if key is None else key
        return proof(
            key, who, scope, self.nonce if nonce is None else nonce, self.ours if ours is None else ours
        )

    def hello(self, scope: object, made: object, number: object = None) -> bytes:
        return write_message(
            {"scope": scope, "nonce": self.ours if number is None else number, "proof": made}
        )


# what is said to the socket without having proved a key for trading, before the order
SAID: dict[str, Callable[[Words], bytes]] = {
    "nothing": lambda _: b"",
    "an empty line": lambda _: b"\n",
    "an empty proof": lambda w: w.hello("trade", ""),
    "no proof": lambda w: w.hello("trade", None),
    "a list of proofs": lambda w: w.hello("trade", [w.proof()]),
    "a proof of zeros": lambda w: w.hello("trade", "0" * 64),
    "a proof that is too short": lambda w: w.hello("trade", w.proof()[:-1]),
    "a proof in capitals": lambda w: w.hello("trade", w.proof().upper()),
    "a key of zeros": lambda w: w.hello("trade", w.proof(key=bytes(32))),
    "the key for reading": lambda w: w.hello("trade", w.proof(key=w.home.key("read"))),
    "the key for halting": lambda w: w.hello("trade", w.proof(key=w.home.key("halt"))),
    "a proof for another scope": lambda w: w.hello("admin", w.proof()),
    "a scope that there is not": lambda w: w.hello("root", w.proof()),
    "no scope": lambda w: w.hello(None, w.proof()),
    "the server's own proof": lambda w: w.hello("trade", w.proof(who="server")),
    "a proof for another connection": lambda w: w.hello("trade", w.proof(nonce="0" * 32)),
    "another number than was proved": lambda w: w.hello("trade", w.proof(), "1" * 32),
    "an empty number": lambda w: w.hello("trade", w.proof(ours=""), ""),
    "two scopes": lambda w: b'{"scope": "read", "scope": "trade", "nonce": "%s", "proof": "%s"}\n' % (w.ours.encode(), w.proof().encode()),
    "brackets without end": lambda _: b"{" * 900 + b"\n",
    "zeros": lambda _: b"\x00" * 900 + b"\n",
}  # fmt: skip

# what is asked by somebody who may trade
BUY = {"verb": "place", "user": "x", "symbol": "SPY", "side": "buy", "quantity": "1"}
ASKED: dict[str, dict[str, Any]] = {
    "an order without words": {"verb": "place"},
    "a quantity that is no number": {**BUY, "quantity": "NaN"},
    "a quantity below zero": {**BUY, "quantity": "-1"},
    "a quantity with an exponent": {**BUY, "quantity": "1e9"},
    "a quantity of another type": {**BUY, "quantity": 1},
    "no quantity": {**BUY, "quantity": None},
    "a quantity in other digits": {**BUY, "quantity": "\u0661"},
    "a side that there is not": {**BUY, "side": "long"},
    "another symbol": {**BUY, "symbol": "SPX"},
    "a symbol with something unseen": {**BUY, "symbol": "SPY\u200b"},
    "a limit of nothing": {**BUY, "limit": "0"},
    "a kind that there is not": {**BUY, "kind": "magic"},
    "a word to skip Guardian": {**BUY, "skip_guardian": True},
    "a word to go round it": {**BUY, "bypass": True},
    "a word to insist": {**BUY, "force": True},
    "a token of its own": {**BUY, "token": "1:00"},
    "a ruling of its own": {**BUY, "decision": "0" * 64},
    "a parent": {**BUY, "parent": "desk-1"},
    "an order book of its own": {**BUY, "account": "other"},
    "the adapter's verb": {"verb": "submit_order"},
    "the adapter's own method": {**BUY, "verb": "_submit"},
    "a list of verbs": {"verb": ["place"]},
    "a class": {"verb": "__class__"},
    "a path to the broker": {**BUY, "verb": "account.broker.submit_order"},
}  # fmt: skip


def test_there_are_at_least_sixty_ways():
    assert len(HANDED) + len(SAID) + len(ASKED) >= 60


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One gateway against all of them."""
    made = Desk(tmp_path_factory.mktemp("besieged"))
    made.up()
    yield made
    with made.client() as client:  # it still trades for who may
        assert client.place("Ann Lee", "SPY", "buy", "10")["state"] == "submitted"
    made.close()


@pytest.mark.parametrize("way", SAID)
def test_no_word_before_the_proof_sends_anything(besieged, way):
    sent = len(besieged.venue.sends())
    with raw(besieged.home) as (connection, nonce):
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(SAID[way](Words(besieged.home, nonce)) + write_message({**BUY, "id": 1}))
        said = json.loads(connection.makefile("rb").readline())
    assert said["error"]["code"] in ("QB-GTW-001", "QB-GTW-002")
    assert len(besieged.venue.sends()) == sent


@pytest.mark.parametrize("way", ASKED)
def test_no_request_that_is_none_sends_anything(besieged, way):
    with Line(besieged.home, "gateway", "trade") as line:
        line._lines.write({"id": 7, **ASKED[way]})
        with pytest.raises(QuantbenchError, match=r"QB-GTW-0(03|12)"):
            line._read()
        assert line.ask("status")["open"] == 0
    assert besieged.venue.sends() == []


def test_a_recorded_handshake_is_worth_nothing(desk):
    desk.up()
    with raw(desk.home) as (connection, nonce):
        words = write_message(
            {
                "scope": "trade",
                "nonce": "0" * 32,
                "proof": proof(desk.home.key("trade"), "client", "trade", nonce, "0" * 32),
            }
        )
        connection.sendall(words)
        assert b"welcome" in connection.makefile("rb").readline()
    for _ in range(20):
        with raw(desk.home) as (connection, _nonce):
            connection.sendall(words + write_message({**BUY, "id": 1}))
            assert b"QB-GTW-001" in connection.makefile("rb").readline()
    assert desk.venue.sends() == []


def test_a_reader_cannot_trade_halt_or_resume_and_who_halts_cannot_trade(desk):
    desk.up()
    may = {"read": {"status", "orders"}, "halt": {"status"}, "trade": {"status", "orders", "place"}}
    asks = {
        "status": {}, "orders": {}, "place": {k: v for k, v in BUY.items() if k != "verb"}, "resume": {"who": "A B", "reason": "c d"},
        "shutdown": {}, "seen": dict.fromkeys(("run", "diff", "first", "who", "why"), "x"),
    }  # fmt: skip
    for scope, verbs in may.items():
        with Line(desk.home, "gateway", scope) as line:
            for verb, words in asks.items():
                if verb in verbs:
                    line.ask(verb, **words)
                else:
                    with pytest.raises(QuantbenchError, match="QB-GTW-004"):
                        line.ask(verb, **words)
    assert len(desk.venue.sends()) == 1


def test_who_floods_or_says_nothing_does_not_keep_anybody_from_halting(desk):
    desk.up()
    idle = []
    try:
        for _ in range(80):  # more than there is room for
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(str(desk.home.socket("gateway")))
            idle.append(connection)
        with desk.client() as client:
            assert client.halt("Ann Lee", "looks odd")["state"] == "halted"
            assert client.kill("Ann Lee", "is odd")["state"] == "killed"
    finally:
        for connection in idle:
            connection.close()
    until(lambda: desk.status_says("killed"), "it did not recover from the flood")


def test_a_subscriber_that_does_not_listen_is_dropped_and_trading_goes_on(desk):
    desk.up()
    deaf = Line(desk.home, "gateway", "read")
    deaf.ask("events")
    heard: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        with Line(desk.home, "gateway", "read") as line:
            line.ask("events")
            ready.set()
            while not heard or heard[-1] != "kill":
                if event := line._read()["event"]:
                    heard.append(event["kind"])

    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait(20)
    desk.flag("BURST")
    until(lambda: len(desk.venue.seen) > 300, "trading stopped")
    with desk.client() as client:
        client.kill("Ann Lee", "enough")
    listener.join(20)
    assert heard[-1] == "kill" and "order" in heard
    deaf.close()


def test_no_module_calls_an_adapter_around_its_seal():
    package = Path(__file__).resolve().parent.parent / "quantbench"
    for module in package.rglob("*.py"):
        text = module.read_text(encoding="utf-8")
        assert "bypass" not in text and "dry_risk" not in text and "skip_guardian" not in text, module.name
        assert not re.search(r"(?<!self)(?<!super\(\))\._(submit|amend)\(", text), module.name
