"""A venue in the test's own process, behind a socket: what other processes send there is counted by nobody but the test."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import Clock
from quantbench.core.types import OrderState, Side
from quantbench.execution.broker import (
    Adapter,
    Answer,
    BrokerAccount,
    BrokerOrder,
    BrokerPosition,
    Can,
    Outcome,
    Report,
    Seal,
    Told,
)


class Venue:
    """Open orders by client id; every call with its time. It can be told to hang or to refuse to answer."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls, self.open = path, [], {}
        self.seen: dict[str, int] = {}  # how often an order of this name came
        self.ended: list[dict] = []  # cancelled, and not yet told
        self.answering = threading.Event()
        self.answering.set()
        self._mutex = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rwb") as stream:
            for line in stream:
                self.answering.wait()
                stream.write(json.dumps(self._one(json.loads(line))).encode() + b"\n")
                stream.flush()

    def _one(self, asked: dict) -> object:
        with self._mutex:
            call, name = asked["call"], asked.get("id")
            self.calls.append((time.monotonic(), call, name))
            if call == "submit":
                self.seen[name] = self.seen.get(name, 0) + 1
                self.open[name] = asked
            elif call in ("cancel", "cancel_all"):
                names = [name] if call == "cancel" else list(self.open)
                self.ended += [self.open.pop(one) for one in names if one in self.open]
            elif call == "reports":
                told, self.ended = self.ended, []
                return told
            elif call == "find":
                return [self.open[name]] if name in self.open else []
            return list(self.open.values())

    def sends(self) -> list[float]:
        return [when for when, call, _ in self.calls if call == "submit"]

    def close(self) -> None:
        self._socket.close()


class Plain(Adapter):
    """The adapter to it, for any process."""

    name, can = "plain", Can.CANCEL_ALL

    def __init__(self, seal: Seal, clock: Clock, path: str) -> None:
        super().__init__(seal, clock)
        self._path, self._stream = path, None

    def _ask(self, call: str, **more: object) -> list:
        try:
            if self._stream is None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(5.0)
                connection.connect(self._path)
                self._stream = connection.makefile("rwb")
            self._stream.write(json.dumps({"call": call, **more}).encode() + b"\n")
            self._stream.flush()
            return json.loads(self._stream.readline())
        except (OSError, ValueError) as error:
            self._stream = None
            raise self._silence(type(error).__name__) from None

    def _answer(self, call: str, client_id: str, **more: object) -> Answer:
        outcome = Outcome.ACCEPTED
        try:
            self._ask(call, id=client_id, **more)
        except QuantbenchError:
            outcome = Outcome.UNKNOWN
        return Answer(outcome=outcome, client_id=client_id, time=self._clock.now())

    def _submit(self, intent):
        order = intent.order
        terms = {"symbol": order.asset.id, "side": order.side.value, "quantity": str(order.quantity)}
        return self._answer("submit", intent.client_id, **terms)

    def cancel_order(self, client_id):
        return self._answer("cancel", client_id)

    def cancel_all(self):
        return self._answer("cancel_all", "all")

    def _shown(self, one: dict) -> BrokerOrder:
        return BrokerOrder(
            client_id=one["id"],
            broker_id=f"b-{one['id']}",
            symbol=one["symbol"],
            side=Side(one["side"]),
            quantity=Decimal(one["quantity"]),
            filled=Decimal(0),
            state=OrderState.SUBMITTED,
            word="open",
        )

    def find_order(self, client_id):
        found = self._ask("find", id=client_id)
        return self._shown(found[0]) if found else None

    def open_orders(self):
        return tuple(self._shown(one) for one in self._ask("open"))

    def positions(self) -> tuple[BrokerPosition, ...]:
        return ()

    def get_account(self) -> BrokerAccount:
        raise self._silence("not asked for")

    def fills_since(self, _time: datetime) -> tuple[Report, ...]:
        return ()

    def reports(self) -> tuple[Report, ...]:
        now = self._clock.now()
        return tuple(
            Report(
                told=Told.CANCELLED,
                client_id=one["id"],
                time=now,
                heard=now,
                symbol=one["symbol"],
                filled=Decimal(0),
            )
            for one in self._ask("reports")
        )

    def time(self) -> datetime:
        return self._clock.now()

    def silent_seconds(self) -> float:
        return 0.0


class Lenient:
    """A Guardian with one control: the kill switch."""

    def __init__(self, kill, seal: Seal) -> None:
        self.kill, self.seal = kill, seal

    def judge(self, intent):
        why = self.kill.may(intent.order, reducing=intent.reduce_only)
        checks = (("K1", "fail" if why else "pass", why or "active"),)
        return SimpleNamespace(
            accepted=why is None, code="QB-RISK-141", hash=intent.hash, checks=checks, intent=intent
        )

    def accept(self, ruling):
        if why := self.kill.may(ruling.intent.order, reducing=False):
            raise QuantbenchError("QB-BRK-008", where="Lenient", value=why)
        return self.seal.make(ruling.intent, ruling.hash)

    def _told(self, *_: object, **__: object) -> None:
        pass

    opened = booked = closed = note_unresolved = _told


__all__ = ["Lenient", "Plain", "Venue"]
