"""What the contract of a strategy promises to whoever writes one: it works, or it is refused by a code and a line; never another number."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import importlib
import linecache
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import test_lanes as lanes
from test_backtest import bars
from test_lanes import EVENTS, driven, same

from quantbench.core.check import QuantbenchError
from quantbench.engine.backtest import Latency, Session, backtest
from quantbench.engine.compiler import compile_lanes
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.memory import SUBMITTED
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy, every, param
from quantbench.engine.tape import Tape
from quantbench.engine.window import state


class Side(enum.IntEnum):
    BUY = 1


class Other(int, enum.Enum):
    BUY = 1


def scaled(scale: float) -> Any:
    def inner(x: float) -> float:
        return x * scale

    return inner


def checked(hook: Any) -> Any:
    @functools.wraps(hook)
    def wrapper(self: Any, bar: Any, market: Any) -> None:
        hook(self, bar, market)

    return wrapper


HERE = {
    "np": np, "Side": Side, "Other": Other, "every": every, "param": param, "collections": collections, "dataclass": dataclasses.dataclass,
    "triple": scaled(3.0), "fivefold": scaled(5.0), "checked": checked,
}  # fmt: skip


def made(text: str, **more: Any) -> Any:
    """The class S of a text, with names around it."""
    name = f"<contract {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {**lanes.WORDS, **HERE, **more}
    exec(compile(text, name, "exec"), space)  # noqa: S102
    return space["S"]


def on_bar(body: str, head: str = "", **more: Any) -> Any:
    lines = "\n".join(f"        {line}" for line in body.split("\n"))
    return made(f"class S(Strategy):\n{head}\n    def on_bar(self, bar, market):\n{lines}\n", **more)


def ended(cls: Any, lane: str, *, every: int = 0) -> dict[str, Any]:
    return driven(cls(), EVENTS[:40], lane, every=every)[1].state()


def refusal(code: str, call: Any, *words: str) -> None:
    with pytest.raises(QuantbenchError) as told:
        call()
    assert told.value.code == code, told.value
    for word in words:
        assert word in str(told.value), word


# ---- one meaning: what once gave other numbers in the compiled lane ------------------------------------------------

CONSTANT = "class S(Strategy):\n    level = 1.5\n    x: float = state(0.0)\n    def on_bar(self, bar, market):\n        self.x = self.level\n"
BASE = CONSTANT.replace("class S", "class B") + "    def helped(self, a):\n        return a\n"
AS_IN_PYTHON = {
    "a constant that a property replaces": BASE + "class S(B):\n    @property\n    def level(self):\n        return 2.5\n",
    "a method that a static one replaces": BASE.replace("= self.level", "= self.helped(2.0)") + "class S(B):\n    @staticmethod\n    def helped(a):\n        return 2.0 * a\n",
    "a constant set in on_start": CONSTANT + "    def on_start(self, market):\n        self.level = 3.0\n",
    "a constant set in a timer in Python": CONSTANT + "    def on_timer(self, market):\n        self.level = float(sum([self.x, 2.0]))\n",
    "a whole number of an enumeration": "class S(Strategy):\n    k: int = state(0)\n    def on_bar(self, bar, market):\n        self.k += Other.BUY + Side.BUY\n",
    "a number of NumPy": CONSTANT.replace("= 1.5", "= np.float64(0.0)").replace("= self.level", "= float(1.0 / self.level)"),
    "text that is no number": CONSTANT.replace("= self.level", "= float('nan') if bar.close > 0.0 else float('abc')"),
    "a choice of two calls without a value": CONSTANT.replace("self.x = self.level", "self.w.push(1.0) if bar.close > 0.0 else self.w.push(2.0)").replace("level = 1.5", "w = window(3)"),
    "a step of a range from a helper": CONSTANT.replace("self.x = self.level", "for i in range(0, 4, self.step()):\n            self.x += 1.0\n    def step(self):\n        return 2"),
    "a word that is no word": CONSTANT.replace("self.x = self.level", "market.buy(0, 1, tif=99)"),
    "a kind that is no kind": CONSTANT.replace("self.x = self.level", "market.submit(0, 1, kind=77)"),
    "a word handed to a helper": CONSTANT.replace("self.x = self.level", "self.asked('limit')") + "    def asked(self, kind):\n        self.x = 1.0 if kind == 1 else 2.0\n",
    "two closures of one name": CONSTANT.replace("= self.level", "= triple(bar.close) + fivefold(1.0)"),
    "a long docstring": CONSTANT.replace("self.x =", '"""One\n\n        two\n        """\n        self.x ='),
    "a whole number set in on_start where a float is declared": CONSTANT.replace("self.x = self.level", "market.buy(0, self.x)") + "    def on_start(self, market):\n        self.x = 2\n",
    "a hook that is an object": "class C:\n    def __call__(self, bar, market):\n        market.buy(0, 1)\nclass S(Strategy):\n    on_bar = C()\n",
}  # fmt: skip


@pytest.mark.parametrize("name", AS_IN_PYTHON)
def test_whatever_lane_is_chosen_python_is_what_happens(name):
    runs = [
        driven(made(AS_IN_PYTHON[name])(), EVENTS[:40], lane, every=5 * ("timer" in name))
        for lane in ("auto", "interpreted")
    ]
    assert lanes.outcome(*runs[0]) == lanes.outcome(*runs[1])
    assert len({int(memory.run[0]["line"]) for memory, _ in runs}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "LEVEL = 1.0\nclass S(Strategy):\n    x: float = state(0.0)\n    def on_start(self, market):\n        global LEVEL\n        LEVEL += 1.0\n    def on_bar(self, bar, market):\n        self.x = LEVEL\n",
        CONSTANT + "    def on_timer(self, market):\n        S.level = 9.0\n        print(end='')\n",
        CONSTANT + "    def on_timer(self, market):\n        setattr(self, 'level', 9.0)\n",
    ],
    ids=["of the notebook", "of the class", "of the run"],
)
def test_a_constant_of_compiled_code_that_changes_is_refused(text):
    refusal(
        "QB-ENG-018",
        lambda: driven(made(text)(), EVENTS[:40], "auto", every=5),
        "LEVEL" if "LEVEL" in text else "level",
    )
    driven(made(text)(), EVENTS[:40], "interpreted", every=5)


@pytest.mark.parametrize("lane", ["auto", "interpreted"])
@pytest.mark.parametrize(
    ("state", "given", "word"),
    [("state(0)", "market.cash / 1000", "given float"), ("state(0)", "2 ** 70", "given int"), ("window(3)", "[]", "not replaced"), ("array(3)", "[]", "not replaced")],
)  # fmt: skip
def test_state_keeps_its_kind_from_on_start_on(state, given, word, lane):
    text = f"class S(Strategy):\n    kind = {state}\n    def on_bar(self, bar, market):\n        pass\n    def on_start(self, market):\n        self.kind = {given}\n"
    refusal("QB-ENG-014", lambda: backtest(made(text), bars(5), lane=lane), word, "S.on_start")


def test_a_window_is_not_replaced_under_a_compiled_hook():
    text = "class S(Strategy):\n    w = window(3)\n    def on_bar(self, bar, market):\n        self.w.push(bar.close)\n    timer = every('3m')\n    def on_timer(self, market):\n        self.w = []\n"
    for lane in ("auto", "interpreted"):
        refusal(
            "QB-ENG-014", lambda lane=lane: backtest(made(text), bars(9), lane=lane), "not replaced", "line 7"
        )


@pytest.mark.parametrize("body", ["tweak(self)", "me = self\nme.n = 7"])
def test_a_parameter_is_not_changed_by_another_name(body):
    def tweak(strategy: Any) -> None:
        strategy.n = 7

    cls = on_bar(body, "    n: int = 3\n", tweak=tweak)
    refusal("QB-ENG-011", lambda: driven(cls(), EVENTS[:4], "auto"), "S.n")


def test_a_setting_is_read_anew_in_each_run_and_is_part_of_the_code():
    settings = SimpleNamespace(level=1.0)
    cls = on_bar("self.x = settings.level", "    x: float = state(0.0)\n", settings=settings)
    before = cls().code_hash
    assert ended(cls, "compiled") == {"x": 1.0} == ended(cls, "interpreted")
    settings.level = 2.0
    assert ended(cls, "compiled") == {"x": 2.0} == ended(cls, "interpreted")
    assert cls().code_hash != before


def test_a_file_edited_after_it_was_imported_is_not_compiled(tmp_path, monkeypatch):
    """Same names, same numbers, another sign: what was imported is what runs."""
    text = "from quantbench.engine.strategy import Strategy\nfrom quantbench.engine.window import state\n\nclass S(Strategy):\n    x: float = state(0.0)\n    def on_bar(self, bar, market):\n        self.x = bar.close {} bar.open\n"
    file = tmp_path / "edited_later.py"
    file.write_text(text.format("-"))
    monkeypatch.syspath_prepend(str(tmp_path))
    cls = importlib.import_module("edited_later").S
    file.write_text(text.format("+") + "\n")
    assert ended(cls, "auto") == ended(cls, "interpreted")
    hook = compile_lanes(cls()).hooks["on_bar"]
    assert hook.lane == "interpreted" and "changed" in hook.reason and hook.line == 6
    del sys.modules["edited_later"]


def test_the_parts_of_the_clock_are_those_of_datetime():
    """Over four centuries, every five days and some: leap years, months, hours, the time before 1970."""
    parts = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    head = "    seen: object = array(8)\n    w: object = window(3)\n"
    body = "\n".join(f"self.seen[{i}] = float(market.time.{part})" for i, part in enumerate(parts))
    cls = on_bar(
        f"{body}\nnow = market.time\nself.seen[7] += now.weekday() * self.seen[2] + self.seen[1] * self.seen[0]\nself.w.push(self.seen[3] + self.seen[6])",
        head,
    )
    count = 17_000
    events = lanes.tape(count, 1)
    events["known"] = -9_000 * 10**15 + np.arange(count) * (10**15 + 123_456_789_000)
    events["since"] = events["known"] - 1
    same(cls(), events)


# ---- what is natural to write --------------------------------------------------------------------------------------

BAD = {
    "no self": ("class S(Strategy):\n    def on_bar(bar, market): ...\n", "QB-ENG-017", "def on_bar(self, bar, market)"),
    "no market": ("class S(Strategy):\n    def on_timer(self): ...\n", "QB-ENG-017", "def on_timer(self, market)"),
    "a generator": ("class S(Strategy):\n    def on_bar(self, bar, market):\n        yield\n", "QB-ENG-017", "generator"),
    "a coroutine": ("class S(Strategy):\n    async def on_bar(self, bar, market): ...\n", "QB-ENG-017", "coroutine"),
    "an own __init__": ("class S(Strategy):\n    def __init__(self, **more): ...\n", "QB-ENG-019", "on_start"),
    "a name of its own": ("class S(Strategy):\n    values: int = 5\n", "QB-ENG-016", "values"),
    "a hash of its own": ("class S(Strategy):\n    def hash(self): ...\n", "QB-ENG-016", "hash"),
    "a window named timer": ("class S(Strategy):\n    timer: object = window(5)\n", "QB-ENG-016", "timer"),
}  # fmt: skip
UNFIT = {
    "a dataclass": ("@dataclass\nclass S(Strategy):\n    n: int = param(10, 1, 20)\n    def on_bar(self, bar, market): ...\n", "QB-ENG-019", "@dataclass"),
    "no hooks": ("class S(Strategy):\n    n: int = 10\n", "QB-ENG-020", "no hooks"),
    "a hook for another tape": ("class S(Strategy):\n    def on_tick(self, tick, market): ...\n", "QB-ENG-020", "on_bar"),
    "on_timer without a timer": ("class S(Strategy):\n    def on_timer(self, market): ...\n", "QB-ENG-007", "S.timer"),
    "a timer in words": ("class S(Strategy):\n    timer = '5m'\n    def on_timer(self, market): ...\n", "QB-ENG-007", "5m"),
    "a history as a list": ("class S(Strategy):\n    history = ['close']\n    def on_bar(self, bar, market): ...\n", "QB-ENG-006", "{'close': 20}"),
    "no strategy": ("class S:\n    pass\n", "QB-ENG-241", "strategy"),
    "a float in a whole number's state": ("class S(Strategy):\n    entry = state(0)\n    def on_bar(self, bar, market):\n        self.entry = bar.close\n", "QB-ENG-014", "entry is declared as int, by state(0); it is given float"),
    "self.buy": ("class S(Strategy):\n    def on_bar(self, bar, market):\n        self.buy()\n", "QB-ENG-014", "it is market.buy"),
    "an item of a bar": ("class S(Strategy):\n    def on_bar(self, bar, market):\n        bar['close']\n", "QB-ENG-014", "read as bar.close"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_class_that_could_not_work_is_refused_where_it_is_written(name):
    text, code, word = BAD[name]
    refusal(code, lambda: made(text), word)


@pytest.mark.parametrize("name", UNFIT)
def test_a_run_that_could_not_work_is_refused(name):
    text, code, word = UNFIT[name]
    refusal(code, lambda: backtest(made(text), bars(5)), word)


SHARED = {
    "a list": ("held = []", "self.held.append(bar.close)\nn = len(self.held)"),
    "a dictionary": ("held: dict = {}", "self.held[bar.asset] = self.held.get(bar.asset, 0) + 1\nn = self.held[bar.asset]"),
    "lists in a list": ("held = [[], []]", "self.held[0].append(1)\nn = len(self.held[0])"),
    "a deque": ("held = collections.deque(maxlen=90)", "self.held.append(1)\nn = len(self.held)"),
    "an array": ("held = np.zeros(3)", "self.held[0] += 1\nn = self.held[0]"),
    "a number": ("held = 0", "self.held += 1\nn = self.held"),
}  # fmt: skip


@pytest.mark.parametrize("lane", ["auto", "interpreted"])
@pytest.mark.parametrize("name", SHARED)
def test_no_run_begins_with_what_another_left(name, lane):
    head, body = SHARED[name]
    cls = on_bar(f"{body}\nif n == 60:\n    market.buy(bar.asset, 1)", f"    {head}\n")
    runs = [backtest(cls, bars(50), lane=lane) for _ in range(2)]
    assert [len(run.logs.fills) for run in runs] == [0, 0] and runs[0].hash == runs[1].hash
    assert len(backtest(cls, bars(70), lane=lane).logs.fills) == 1


@pytest.mark.parametrize("lane", ["auto", "interpreted"])
def test_what_was_set_on_an_instance_is_there_in_its_runs(lane):
    cls = on_bar(
        "if self.model is not None and self.model(bar.close):\n    market.buy(bar.asset, 1)",
        "    model = None\n",
    )
    strategy = cls()
    strategy.model = lambda price: price > 0.0
    assert len(backtest(strategy, bars(5), lane=lane).logs.fills) == 4
    assert len(backtest(cls, bars(5), lane=lane).logs.fills) == 0


def test_a_constant_of_the_class_is_not_set_on_an_instance_in_vain():
    strategy = made(CONSTANT)()
    strategy.level = 2.5
    refusal("QB-ENG-018", lambda: backtest(strategy, bars(5)), "level")
    assert driven(strategy, EVENTS[:4], "interpreted")[1].state() == {"x": 2.5}


def test_an_interrupt_is_no_error_of_the_strategy():
    cls = on_bar("print(end='')\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        backtest(cls, bars(5))


@pytest.mark.parametrize(
    ("text", "lane"),
    [
        ("class M:\n    def size(self):\n        return 1.0\nclass S(Strategy, M):\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, self.size())\n", "compiled"),
        ("class A(Strategy):\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, 1)\nclass S(A):\n    def on_bar(self, bar, market):\n        super().on_bar(bar, market)\n", "`super` is not translated (line 6)"),
        ("class S(Strategy):\n    @property\n    def size(self):\n        return 1.0\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, self.size)\n", "`self.size` is not declared: a strategy has no such fields (line 6)"),
        ("class S(Strategy):\n    @classmethod\n    def size(cls):\n        return 1.0\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, self.size())\n", "`self.size` is not translated (line 6)"),
        ("class S(Strategy):\n    @checked\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, 1)\n", "decorators and variable arguments are not translated (line 2)"),
        ("class S(Strategy):\n    n: object = np.float64(1.0)\n    m: object = param(Side.BUY)\n    k: object = state(np.float64(1.0))\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, self.n * self.k)\n", "compiled"),
        ("class S(Strategy):\n    end: int = 1\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, self.end)\n", "compiled"),
        ("class S(Strategy):\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, np.sign(bar.close))\n", "`np.sign` is not translated (line 3)"),
        ("class S(Strategy):\n    def on_bar(self, bar, market):\n        if not market.position:\n            pass\n        market.buy(bar.asset, 1)\n", "`market.position` is a method: `market.position(…)` (line 3)"),
    ],
    ids=["mixin", "super", "property", "class method", "decorator", "numbers of NumPy", "a parameter named end", "NumPy", "a method not called"],
)  # fmt: skip
def test_what_python_offers_works_and_the_result_says_in_which_lane(text, lane):
    result = backtest(made(text), bars(5))
    assert (
        len(result.logs.fills) == 4
        and result.provenance.lanes["on_bar"].removeprefix("interpreted: ") == lane
    )


def test_a_helper_of_another_file_is_named_where_it_is_called():
    space: dict[str, Any] = {}
    text = "\n\n\ndef far(x):\n    return [x][0]\n"
    linecache.cache["<far>"] = (len(text), None, text.splitlines(keepends=True), "<far>")
    exec(compile(text, "<far>", "exec"), space)  # noqa: S102
    hook = compile_lanes(
        on_bar("a = 1.0\nself.x = far(a)", "    x: float = state(0.0)\n", far=space["far"])()
    ).hooks["on_bar"]
    assert (hook.line, hook.reason) == (6, "far, its line 5: `[x]` is not translated")


# ---- what the code is ----------------------------------------------------------------------------------------------


def test_two_codes_have_two_hashes():
    """Without source, by a decorator, by a default, by a closure: each says something else."""

    def hashed(text: str, **more: Any) -> str:
        space = {**lanes.WORDS, **HERE, **more}
        exec(text, space)  # noqa: S102
        return str(space["S"]().code_hash)

    buy = "class S(Strategy):\n    def on_bar(self, bar, market):\n        market.buy(bar.asset, 1)\n"
    assert hashed(buy) == hashed(buy) != hashed(buy.replace("buy", "sell"))
    listed = buy.replace("1)", "sum([a for a in (1, bar.asset)]))")
    assert hashed(listed) == hashed(listed) != hashed(listed.replace("(1,", "(2,"))
    factory = "def factory(lot):\n    class S(Strategy):\n        def on_bar(self, bar, market, held=lot):\n            market.buy(bar.asset, held)\n    return S\nS = factory(LOT)\n"
    assert (
        made(factory, LOT=1)().code_hash
        == made(factory, LOT=1)().code_hash
        != made(factory, LOT=2)().code_hash
    )
    wrapped = [
        made(buy.replace("    def", "    @checked\n    def").replace("1)", f"{n})"))().code_hash
        for n in (1, 1, 2)
    ]
    assert wrapped[0] == wrapped[1] != wrapped[2]
    scales = [
        on_bar("self.x = h(g(1.0))", "    x: float = state(0.0)\n", g=scaled(2.0), h=scaled(s))().code_hash
        for s in (3.0, 4.0)
    ]
    assert scales[0] != scales[1]


# ---- no order is older than its fill -------------------------------------------------------------------------------


def staggered() -> Tape:
    """Three assets whose bars end at other moments: minutes, minutes from the half on, five minutes."""
    rng, parts = np.random.default_rng(4), []
    for asset, (length, shift) in enumerate([(60, 0), (60, 30), (300, 0)]):
        count = 100 * 60 // length
        part = np.zeros(count, BAR)
        part["since"] = 1_600_000_020_000_000_000 + (np.arange(count) * length + shift) * 10**9
        part["known"], part["kind"], part["asset"] = part["since"] + length * 10**9, KIND_BAR, asset
        part["close"] = np.round(100 * np.exp(np.cumsum(rng.normal(0, 2e-3, count))), 2)
        part["open"] = np.round(np.r_[100.0, part["close"][:-1]] * (1 + rng.normal(0, 1e-3, count)), 2)
        part["high"] = np.maximum(part["open"], part["close"]) + 0.05
        part["low"] = np.minimum(part["open"], part["close"]) - 0.05
        part["volume"] = 1e6
        parts.append(part)
    events = np.concatenate(parts)
    events = events[np.lexsort((events["asset"], events["known"]))]
    return Tape.from_events(events, assets_of(["A", "B", "C"], "equity", "24/7"), interval="1m")


class Eager(Strategy):
    """Every kind of order, from every hook, priced so that the bar just seen would fill it."""

    timer = every("30s")
    n: int = state(1)
    last: int = state(0)

    def dice(self, sides: int) -> int:
        self.n = (self.n * 1103515245 + 12345) % 2147483648
        return self.n // 65536 % sides

    def ask(self, market: Any, asset: int) -> None:
        price = market.price(asset)
        if price != price:
            return
        way = self.dice(9)
        if way == 0:
            self.last = market.buy(asset, 10)
        elif way == 1:
            self.last = market.sell(asset, 10)
        elif way == 2:
            self.last = market.buy(asset, 10, limit=price + 0.5, tif="gtc")
        elif way == 3:
            self.last = market.sell(asset, 10, limit=price - 0.5, tif="ioc")
        elif way == 4:
            self.last = market.buy(asset, 10, stop=price - 0.1, tif="fok")
        elif way == 5:
            market.amend(self.last, limit=price + 1.0)
        elif way == 6:
            self.last = market.submit(asset, 10, "on_close")
        elif way == 7:
            self.last = market.submit(asset, -10, "limit_on_open", limit=price)
        else:
            self.last = market.buy(asset, 10, limit=price - 1.0, take=price, loss=price - 2.0, tif="gtc")

    def on_bar(self, bar: Any, market: Any) -> None:  # noqa: ARG002
        for asset in range(3):
            self.ask(market, asset)

    def on_fill(self, fill: Any, market: Any) -> None:
        self.ask(market, fill.asset)
        self.ask(market, (fill.asset + 1) % 3)

    def on_timer(self, market: Any) -> None:
        for asset in range(3):
            self.ask(market, asset)


@pytest.mark.parametrize("lane", ["compiled", "interpreted"])
@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_no_bar_fills_what_was_decided_after_it_began(lane, seconds):
    """Event by event, so that the bar of each fill is known."""
    tape = staggered()
    session = Session(Eager(), tape, cash=1e9, lane=lane, latency=Latency(order_seconds=seconds))
    told = 0
    for i in range(len(tape.events)):
        session.feed(tape.events[i : i + 1].copy())
        bar, fills, moves = tape.events[i], session.memory.used("fills"), session.memory.used("transitions")
        for fill in fills[told:]:
            sent = moves["time"][(moves["order"] == fill["order"]) & (moves["state"] == SUBMITTED)]
            assert fill["asset"] == bar["asset"] and fill["time"] in (bar["since"], bar["known"])
            assert sent[0] <= bar["since"] <= fill["time"]
        told = len(fills)
    assert told > 800
