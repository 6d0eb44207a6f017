"""A venue on localhost that speaks Alpaca's trading protocol, matches exactly, and misbehaves as it is told.

Written after the public reference of the Trading API (REST under /v2, the stream under /stream, binary frames) and of the
market data stream (/v2/iex, text frames). Money and
quantities are `Decimal`s and travel as text, as they do there. `fail` arms a fault; `chaos` draws faults from a seed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY, SECRET = "PKLOCALTESTVENUE0001", "bG9jYWwgdGVzdCB2ZW51ZSBzZWNyZXQgMDAwMQ9x"
OPEN = {"new", "accepted", "partially_filled", "pending_cancel", "pending_replace", "held"}
ZERO = Decimal(0)


def text(number: Decimal) -> str:
    return format(number, "f")


def later(stamp: str, after: str | None) -> bool:
    return after is None or datetime.fromisoformat(stamp) > datetime.fromisoformat(after)


@dataclass
class Fault:
    """Something that goes wrong `times` times, at the requests of one kind."""

    kind: str
    times: int
    at: str = "submit"
    detail: dict[str, Any] = field(default_factory=dict)


# What can go wrong with an answer, and how: the request was carried out (True) or was not (False).
ANSWERS = {
    "lost": True,  # carried out, then the connection is cut
    "late": True,  # carried out, answered after the client has given up
    "error": True,  # carried out, then 500, 502 or 504
    "garbage": True,  # carried out, answered with what is not JSON
    "cut": True,  # carried out, answered with half a body
    "early": False,  # 500 before anything was done
    "busy": False,  # 429 with Retry-After
    "refuse": False,  # 403 or 422 in the broker's own words
    "proxy": False,  # 403 of something in between, in HTML
}


@dataclass
class Reply:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class LocalAlpaca:
    """Orders, positions, cash and fills, exact; REST and the stream are two views of it."""

    def __init__(self, clock: Any, *, cash: Decimal = Decimal(100_000)) -> None:
        self.clock, self.lock = clock, threading.RLock()
        self.cash, self.positions = cash, {}  # type: ignore[var-annotated]
        self.orders: dict[str, dict[str, Any]] = {}  # by the broker's id, in order of arrival
        self.activities: list[dict[str, Any]] = []
        self.prices: dict[str, Decimal] = {}
        self.skew = timedelta(0)
        self.count = 0
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []  # every request that arrived: method and path
        self.vanished: set[str] = set()
        self.expired = False  # keys are no good any more
        self.renaming = False  # activities have other ids than the stream
        self.stuck_cancels = False
        self.duplicate_status = 422
        self.chance: Callable[[], str | None] = lambda: None
        self.lines: list[Line] = []
        self.ears: list[Line] = []  # connections of the market data stream
        self.deaf = False  # these say nothing, and stay open
        self.frames: deque[dict[str, Any]] = deque()
        self.holding = False  # frames are kept back until `release`
        self.repeats, self.losses, self.rng = 1, 0.0, random.Random(0)
        self.retell = False  # each fill is told again under another id
        self.mangle: Callable[[dict[str, Any]], bytes | str] | None = None
        self.mute = False
        self.refusals = 0  # connections of the stream to turn away
        self.dials = 0

    # ---- faults ---------------------------------------------------------------------------------------------

    def fail(self, kind: str, *, times: int = 1, at: str = "submit", **detail: Any) -> None:
        assert kind in ANSWERS, kind
        self.faults.append(Fault(kind, times, at, detail))

    def chaos(self, seed: int, rates: dict[str, float]) -> None:
        """Each request draws its fault; the same seed and the same requests give the same faults."""
        rng = random.Random(seed)

        def draw() -> str | None:
            at, total = rng.random(), 0.0
            for kind, rate in rates.items():
                total += rate
                if at < total:
                    return kind
            return None

        self.chance = draw

    def calm(self) -> None:
        self.faults.clear()
        self.chance, self.mangle, self.repeats, self.losses = (lambda: None), None, 1, 0.0
        self.mute = self.expired = self.stuck_cancels = self.deaf = False
        self.retell, self.skew, self.refusals = False, timedelta(0), 0
        self.duplicate_status = 422

    def fault_of(self, operation: str) -> Fault | None:
        for fault in self.faults:
            if fault.at == operation and fault.times:
                fault.times -= 1
                return fault
        kind = self.chance() if operation in ("submit", "cancel", "amend") else None
        return Fault(kind, 0) if kind else None

    # ---- time, ids, words -----------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.clock.now() + self.skew

    def stamp(self) -> str:
        """Nanoseconds, as Alpaca writes them."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%f") + f"{self.count % 1000:03d}Z"

    def new_id(self) -> str:
        self.count += 1
        return f"{self.count:08x}-0000-4000-8000-{self.count:012x}"

    def find(self, client_id: str) -> dict[str, Any] | None:
        return next((o for o in self.orders.values() if o["client_order_id"] == client_id), None)

    def latest(self, client_id: str) -> dict[str, Any]:
        order = self.find(client_id)
        assert order is not None, client_id
        while order["replaced_by"]:
            order = self.orders[order["replaced_by"]]
        return order

    def alive(self, client_id: str) -> int:
        """How many orders the venue has under this client id, its replacements included."""
        base = [o for o in self.orders.values() if o["client_order_id"].partition(".")[0] == client_id]
        return len([o for o in base if o["status"] in OPEN])

    # ---- the matching ---------------------------------------------------------------------------------------

    def submit(self, body: dict[str, Any], replaces: dict[str, Any] | None = None) -> dict[str, Any]:
        now = self.stamp()
        order = {
            "id": self.new_id(),
            "client_order_id": body.get("client_order_id") or self.new_id(),
            "created_at": now,
            "updated_at": now,
            "submitted_at": now,
            "filled_at": None,
            "expired_at": None,
            "canceled_at": None,
            "failed_at": None,
            "replaced_at": None,
            "replaced_by": None,
            "replaces": replaces["id"] if replaces else None,
            "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
            "symbol": body["symbol"],
            "asset_class": "us_equity",
            "notional": None,
            "qty": Decimal(body["qty"]),
            "filled_qty": ZERO,
            "filled_avg_price": None,
            "order_class": "",
            "order_type": body["type"],
            "type": body["type"],
            "side": body["side"],
            "time_in_force": body["time_in_force"],
            "limit_price": body.get("limit_price"),
            "stop_price": body.get("stop_price"),
            "trail_price": body.get("trail_price"),
            "status": "new",
            "extended_hours": False,
            "legs": None,
        }
        self.orders[order["id"]] = order
        self.say("new", order)
        self.cross(order)
        return order

    def cross(self, order: dict[str, Any]) -> None:
        price = self.prices.get(order["symbol"])
        if price is None:
            return
        limit = order["limit_price"] and Decimal(order["limit_price"])
        buys = order["side"] == "buy"
        if order["type"] == "market" or (limit and (limit >= price if buys else limit <= price)):
            self.execute(order, order["qty"] - order["filled_qty"], price)

    def price(self, symbol: str, price: Decimal) -> None:
        self.prices[symbol] = price
        for order in [*self.orders.values()]:
            if order["symbol"] == symbol and order["status"] in OPEN:
                self.cross(order)

    def trade(self, client_id: str, quantity: Decimal, price: Decimal) -> str:
        with self.lock:
            return self.execute(self.latest(client_id), quantity, price)

    def execute(self, order: dict[str, Any], quantity: Decimal, price: Decimal) -> str:
        """One fill, whatever the state of the order: late fills are the venue's right."""
        execution = self.new_id()
        order["filled_qty"] += quantity
        done = order["filled_qty"] >= order["qty"]
        if order["status"] in OPEN:
            order["status"] = "filled" if done else "partially_filled"
        order["filled_at"], order["filled_avg_price"] = self.stamp(), text(price)
        self.move(order, quantity, price)
        self.record(order, execution, quantity, price)
        facts = {
            "qty": text(quantity),
            "price": text(price),
            "position_qty": text(self.positions.get(order["symbol"], ZERO)),
        }
        for name in (execution, self.new_id())[: 1 + self.retell]:
            self.say("fill" if done else "partial_fill", order, execution_id=name, **facts)
        return execution

    def move(self, order: dict[str, Any], quantity: Decimal, price: Decimal) -> None:
        sign = 1 if order["side"] == "buy" else -1
        held = self.positions.get(order["symbol"], ZERO) + sign * quantity
        self.positions[order["symbol"]] = held
        self.cash -= sign * quantity * price

    def record(
        self, order: dict[str, Any], execution: str, quantity: Decimal, price: Decimal, **more: Any
    ) -> None:
        name = self.new_id() if self.renaming else execution
        self.activities.append(
            {
                "activity_type": "FILL",
                "id": f"{self.now():%Y%m%d%H%M%S}{self.now().microsecond // 1000:03d}::{name}",
                "cum_qty": text(order["filled_qty"]),
                "leaves_qty": text(max(order["qty"] - order["filled_qty"], ZERO)),
                "price": text(price),
                "qty": text(quantity),
                "side": order["side"],
                "symbol": order["symbol"],
                "transaction_time": self.stamp(),
                "order_id": order["id"],
                "order_status": order["status"],
                "type": "fill" if order["filled_qty"] >= order["qty"] else "partial_fill",
            }
            | more
        )

    def amended(self, client_id: str, kind: str, execution: str, quantity: Decimal, price: Decimal) -> None:
        """A bust (`trade_bust`) or a correction (`trade_correct`) of an execution, told as Alpaca tells it."""
        with self.lock:
            order = self.latest(client_id)
            past = next(a for a in self.activities if a["id"].endswith(execution))
            self.move(order, -Decimal(past["qty"]), Decimal(past["price"]))
            order["filled_qty"] -= Decimal(past["qty"])
            if kind == "trade_correct":
                order["filled_qty"] += quantity
                self.move(order, quantity, price)
            new = self.new_id()
            self.record(order, new, quantity, price, type=kind, previous_execution_id=execution)
            self.say(
                kind,
                order,
                execution_id=new,
                previous_execution_id=execution,
                qty=text(quantity),
                price=text(price),
            )

    def close(self, client_id: str, word: str) -> None:
        """The order ends: canceled, expired or rejected."""
        with self.lock:
            self.end(self.latest(client_id), word)

    def end(self, order: dict[str, Any], word: str) -> None:
        order["status"] = word
        stamp = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at"}[word]
        order[stamp] = self.stamp()
        self.say(word, order)

    def external(self, symbol: str, quantity: Decimal, limit: Decimal) -> str:
        """An order that somebody made by hand."""
        body = {"symbol": symbol, "qty": quantity, "side": "buy", "type": "limit", "time_in_force": "day"}
        with self.lock:
            return self.submit(body | {"limit_price": text(limit)})["client_order_id"]

    def split(self, symbol: str, ratio: Decimal) -> None:
        with self.lock:
            self.positions[symbol] *= ratio

    # ---- the stream -----------------------------------------------------------------------------------------

    def say(self, event: str, order: dict[str, Any], **more: Any) -> None:
        data = {"event": event, "timestamp": self.stamp(), "order": self.shown(order)} | more
        self.frames.append({"stream": "trade_updates", "data": data})
        if not self.holding:
            self.release()

    def release(self, order: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list) -> None:
        """Send what was kept back, in the order that `order` gives it."""
        with self.lock:
            self.holding, frames = False, order([*self.frames])
            self.frames.clear()
            for frame in frames:
                if self.rng.random() < self.losses:
                    continue
                data = self.mangle(frame) if self.mangle else json.dumps(frame).encode()
                for line in [*self.lines]:
                    for _ in range(self.repeats):
                        line.send(data)

    def drop_lines(self) -> None:
        """Every connection of the stream breaks, without a word."""
        with self.lock:
            for line in [*self.lines]:
                line.cut()

    # ---- market data ----------------------------------------------------------------------------------------

    def tell(self, *messages: dict[str, Any]) -> None:
        """One frame of the market data stream, to whoever has subscribed to it."""
        channels = {"b": "bars", "t": "trades", "q": "quotes"}
        with self.lock:
            for ear in [*self.ears]:
                mine = [m for m in messages if m["S"] in ear.subscribed.get(channels.get(m["T"], ""), ())]
                if mine and not self.deaf:
                    ear.frame(0x1, json.dumps(mine).encode())

    def bar(self, symbol: str, close: Decimal, begins: datetime, volume: int = 1000) -> None:
        """A minute bar, told as Alpaca does."""
        price = float(close)
        facts = {
            "o": price,
            "h": price + 0.01,
            "l": price - 0.01,
            "c": price,
            "v": volume,
            "n": 10,
            "vw": price,
        }
        self.tell({"T": "b", "S": symbol, **facts, "t": begins.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})

    def drop_ears(self) -> None:
        with self.lock:
            for ear in [*self.ears]:
                ear.cut()

    # ---- REST -----------------------------------------------------------------------------------------------

    def shown(self, order: dict[str, Any]) -> dict[str, Any]:
        return {k: text(v) if isinstance(v, Decimal) else v for k, v in order.items()}

    def handle(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        with self.lock:
            if path == "/v2/orders" and method == "POST":
                return self.post(body)
            if path == "/v2/orders" and method == "GET":
                return Reply(200, self.listed(query))
            if path == "/v2/orders" and method == "DELETE":
                return self.cancel_all()
            if path == "/v2/orders:by_client_order_id":
                found = self.find(query["client_order_id"])
                known = found and found["client_order_id"] not in self.vanished
                return Reply(200, self.shown(found)) if known and found else self.missing()
            if path.startswith("/v2/orders/"):
                return self.one(method, path.rsplit("/", 1)[1], body)
            if path == "/v2/positions":
                return Reply(200, [self.position(s, q) for s, q in self.positions.items() if q])
            if path == "/v2/account":
                return Reply(200, self.account())
            if path == "/v2/clock":
                return Reply(200, {"timestamp": self.stamp(), "is_open": True})
            if path == "/v2/account/activities/FILL":
                return Reply(200, self.pages(query))
        return Reply(404, {"code": 40410000, "message": "endpoint not found"})

    def missing(self) -> Reply:
        return Reply(404, {"code": 40410000, "message": "order not found"})

    def post(self, body: dict[str, Any]) -> Reply:
        if self.find(body.get("client_order_id") or ""):
            return Reply(
                self.duplicate_status, {"code": 40010001, "message": "client_order_id must be unique"}
            )
        for name in ("qty", "limit_price", "stop_price"):
            if body.get(name) is not None and not isinstance(body[name], str):
                return Reply(422, {"code": 40010001, "message": f"{name} is not text: not exact"})
        if Decimal(body["qty"]) <= 0:
            return Reply(422, {"code": 40010001, "message": "qty must be > 0"})
        return Reply(200, self.shown(self.submit(body)))

    def listed(self, query: dict[str, str]) -> list[dict[str, Any]]:
        status = query.get("status", "open")
        kept = [
            o
            for o in self.orders.values()
            if status == "all" or (o["status"] in OPEN) == (status == "open")
            if o["client_order_id"] not in self.vanished
            if later(o["submitted_at"], query.get("after"))
        ]
        if query.get("direction", "desc") == "desc":
            kept.reverse()
        return [self.shown(o) for o in kept[: int(query.get("limit", 50))]]

    def cancel_all(self) -> Reply:
        results = []
        for order in [o for o in self.orders.values() if o["status"] in OPEN]:
            self.cancel(order)
            results.append({"id": order["id"], "status": 200})
        return Reply(207, results)

    def cancel(self, order: dict[str, Any]) -> None:
        if self.stuck_cancels:
            order["status"] = "pending_cancel"
            self.say("pending_cancel", order)
        else:
            self.end(order, "canceled")

    def one(self, method: str, order_id: str, body: Any) -> Reply:
        order = self.orders.get(order_id)
        if order is None or order["client_order_id"] in self.vanished:
            return self.missing()
        if method == "GET":
            return Reply(200, self.shown(order))
        if order["status"] not in OPEN:
            return Reply(422, {"code": 42210000, "message": f'order is already in "{order["status"]}" state'})
        if method == "DELETE":
            self.cancel(order)
            return Reply(204)
        return self.replace(order, body)

    def replace(self, order: dict[str, Any], body: dict[str, Any]) -> Reply:
        if self.find(body.get("client_order_id") or ""):
            return Reply(422, {"code": 40010001, "message": "client_order_id must be unique"})
        names = ("qty", "limit_price", "stop_price", "time_in_force")
        new = {n: body.get(n, order[n] if n != "qty" else text(order["qty"])) for n in names}
        new |= {k: order[k] for k in ("symbol", "side", "type")}
        order["status"], order["replaced_at"] = "replaced", self.stamp()
        made = self.submit(new | {"client_order_id": body.get("client_order_id")}, replaces=order)
        order["replaced_by"] = made["id"]
        self.say("replaced", order)
        return Reply(200, self.shown(made))

    def position(self, symbol: str, quantity: Decimal) -> dict[str, Any]:
        side = "long" if quantity > 0 else "short"
        return {"symbol": symbol, "qty": text(quantity), "side": side, "exchange": "NASDAQ"}

    def account(self) -> dict[str, Any]:
        return {
            "id": "e6fe16f3-64a4-4921-8928-cadf02f92f98",
            "account_number": "PA0000000001",
            "currency": "USD",
            "cash": text(self.cash),
            "equity": text(self.cash + self.worth()),
            "buying_power": text(2 * self.cash),
            "status": "ACTIVE",
            "trading_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": False,
        }

    def worth(self) -> Decimal:
        return sum((q * self.prices.get(s, ZERO) for s, q in self.positions.items()), ZERO)

    def pages(self, query: dict[str, str]) -> list[dict[str, Any]]:
        rows = [a for a in self.activities if later(a["transaction_time"], query.get("after"))]
        if query.get("direction", "desc") == "desc":
            rows.reverse()
        if token := query.get("page_token"):
            at = next((i for i, a in enumerate(rows) if a["id"] == token), len(rows))
            rows = rows[at + 1 :]
        return rows[: int(query.get("page_size", 100))]


def unreadable(_: dict[str, Any]) -> bytes:
    return b'{"stream": "trade_updates", "data": {"event": "fi'


def changed(**how: Any) -> Callable[[dict[str, Any]], bytes]:
    """A way to mangle frames: fields of the message set to others, or computed from the old ones; None drops them."""

    def mangle(frame: dict[str, Any]) -> bytes:
        data = dict(frame["data"])
        for name, value in how.items():
            new = value(data.get(name)) if callable(value) else value
            data = {k: v for k, v in data.items() if k != name} if new is None else data | {name: new}
        return json.dumps(frame | {"data": data}).encode()

    return mangle


class Line:
    """One connection of the stream: the server's side of RFC 6455, no more than is needed."""

    def __init__(self, venue: LocalAlpaca, connection: socket.socket, rfile: Any) -> None:
        self.venue, self.connection, self.rfile = venue, connection, rfile
        self.lock, self.authorized, self.listening = threading.Lock(), False, False
        self.subscribed: dict[str, list[str]] = {}

    def among(self) -> list[Line]:
        return self.venue.lines

    def begin(self) -> None:
        """What is said first: nothing."""

    def send(self, data: bytes | str) -> None:
        """A text frame for text, a binary one for bytes; nothing at all to whom it may not concern."""
        if self.venue.mute or not self.listening:
            return
        self.frame(0x1 if isinstance(data, str) else 0x2, data.encode() if isinstance(data, str) else data)

    def frame(self, code: int, data: bytes) -> None:
        size = len(data)
        head = bytes([0x80 | code])
        head += bytes([size]) if size < 126 else struct.pack("!BH", 126, size)
        with self.lock, suppress(OSError):
            self.connection.sendall(head + data)

    def cut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def read(self) -> tuple[int, bytes]:
        first, second = self.rfile.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.rfile.read(2))
        mask = self.rfile.read(4)
        return first & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))

    def serve(self) -> None:
        with self.venue.lock:
            self.among().append(self)
        try:
            self.begin()
            while True:
                code, data = self.read()
                if code == 0x8:
                    return self.frame(0x8, data)
                if code == 0x9:
                    self.frame(0xA, data)  # pongs go on whatever else is silent
                if code in (0x1, 0x2):
                    self.hear(json.loads(data))
        except (OSError, ValueError):
            return None
        finally:
            with self.venue.lock:
                self.among().remove(self)

    def hear(self, message: dict[str, Any]) -> None:
        data, action = message.get("data") or {}, message.get("action")
        if action == "authenticate":
            keys = data.get("key_id") == KEY and data.get("secret_key") == SECRET
            self.authorized = keys and not self.venue.expired
            answer = {"status": "authorized" if self.authorized else "unauthorized", "action": action}
            reply = {"stream": "authorization", "data": answer}
        elif not self.authorized or self.venue.expired:
            reply = {"stream": "authorization", "data": {"status": "unauthorized", "action": action}}
        else:
            with self.venue.lock:
                self.listening = "trade_updates" in data.get("streams", [])
            reply = {"stream": "listening", "data": {"streams": data.get("streams", [])}}
        if not self.venue.mute:
            self.frame(0x2, json.dumps(reply).encode())


class Ear(Line):
    """One connection of the market data stream: connected, authenticated, subscribed; text frames with lists of messages."""

    def among(self) -> list[Line]:
        return self.venue.ears

    def begin(self) -> None:
        self.reply({"T": "success", "msg": "connected"})

    def reply(self, message: dict[str, Any]) -> None:
        if not self.venue.deaf:
            self.frame(0x1, json.dumps([message]).encode())

    def hear(self, message: dict[str, Any]) -> None:
        action = message.get("action")
        if action == "auth":
            keys = message.get("key") == KEY and message.get("secret") == SECRET
            self.authorized = keys and not self.venue.expired
            told = {"T": "success", "msg": "authenticated"}
            return self.reply(told if self.authorized else {"T": "error", "code": 402, "msg": "auth failed"})
        if not self.authorized:
            return self.reply({"T": "error", "code": 401, "msg": "not authenticated"})
        if action == "subscribe":
            with self.venue.lock:
                for channel in ("trades", "quotes", "bars"):
                    held = self.subscribed.setdefault(channel, [])
                    held += [name for name in message.get(channel, []) if name not in held]
            return self.reply({"T": "subscription", **self.subscribed})
        return self.reply({"T": "error", "code": 400, "msg": "invalid syntax"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do(self) -> None:
        venue, split = self.server.venue, urlsplit(self.path)
        if split.path in ("/stream", "/v2/iex"):
            return self.upgrade(venue, Ear if split.path == "/v2/iex" else Line)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        path = unquote(split.path)
        with venue.lock:
            venue.seen.append((self.command, path))
            fault = venue.fault_of(self.operation(path))
        keys = self.headers["APCA-API-KEY-ID"] == KEY and self.headers["APCA-API-SECRET-KEY"] == SECRET
        if not keys or venue.expired:
            return self.answer(Reply(401, {"message": f"unauthorized: {self.headers['APCA-API-KEY-ID']}"}))
        query = {k: v[0] for k, v in parse_qs(split.query).items()}
        if fault is None or ANSWERS[fault.kind]:
            reply = venue.handle(self.command, path, query, body)
        else:
            reply = Reply(500, {"message": "not carried out"})
        return self.spoil(reply, fault) if fault else self.answer(reply)

    do_GET = do_POST = do_DELETE = do_PATCH = do  # noqa: N815

    def operation(self, path: str) -> str:
        verb = {"POST": "submit", "DELETE": "cancel", "PATCH": "amend"}.get(self.command, "query")
        return "activities" if "activities" in path else verb

    def spoil(self, reply: Reply, fault: Fault) -> None:
        detail = fault.detail
        if fault.kind == "lost":
            return self.hang_up()
        if fault.kind == "late":
            self.server.released.wait(detail.get("seconds", 5.0))
            return self.hang_up()
        if fault.kind == "error":
            return self.answer(Reply(detail.get("status", 500), {"message": "internal server error"}))
        if fault.kind == "garbage":
            return self.write(200, b"<html>it works", {})
        if fault.kind == "cut":
            self.write(200, b'{"id": "', {"Content-Length": "400"})
            return self.hang_up()
        if fault.kind == "busy":
            after = {"Retry-After": str(detail.get("seconds", 1))}
            return self.answer(Reply(429, {"code": 42910000, "message": "too many requests"}, after))
        if fault.kind == "refuse":
            words = detail.get("words", "insufficient buying power")
            return self.answer(Reply(detail.get("status", 403), {"code": 40310000, "message": words}))
        if fault.kind == "proxy":
            return self.write(403, b"<html>forbidden", {})
        return self.answer(reply)

    def answer(self, reply: Reply) -> None:
        data = b"" if reply.body is None else json.dumps(reply.body).encode()
        self.write(reply.status, data, reply.headers)

    def write(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(data))} | headers
        head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        with suppress(OSError):
            self.connection.sendall(head.encode() + b"\r\n" + data)

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def upgrade(self, venue: LocalAlpaca, kind: type[Line]) -> None:
        with venue.lock:
            venue.dials += 1
            refused = venue.refusals > 0
            venue.refusals -= refused
        self.close_connection = True
        if refused:
            return self.write(503, b"", {})
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        head = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}"
        self.connection.sendall(head.encode() + b"\r\n\r\n")
        return kind(venue, self.connection, self.rfile).serve()


class Server(ThreadingHTTPServer):
    """The venue on a port of localhost; use it in a `with`."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, venue: LocalAlpaca) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.venue, self.released = venue, threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.venue.drop_lines()
        self.venue.drop_ears()
        self.shutdown()
        self.thread.join()
        self.server_close()
