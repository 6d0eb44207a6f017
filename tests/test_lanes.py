"""The same strategy compiled and in Python: the same bytes, or the same refusal at the same event."""

from __future__ import annotations

import linecache
import math
import struct
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.engine.compiler import Binding, bind, compile_lanes, explain
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.guardian import Limits
from quantbench.engine.loop import advance, pass_time
from quantbench.engine.memory import FAULT, GROW, Memory
from quantbench.engine.strategy import Strategy
from quantbench.engine.window import array, ewma, per_asset, state, window

WORDS = {
    "Strategy": Strategy,
    "window": window,
    "ewma": ewma,
    "state": state,
    "array": array,
    "per_asset": per_asset,
    "math": math,
    "EDGE": 1.5,
}
MINUTE = 60_000_000_000


def made(text: str, name_of: str = "S") -> Any:
    """The class S, or another name, of a text, as a notebook would define it."""
    name = f"<strategy {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = dict(WORDS)
    exec(compile(text, name, "exec"), space)  # noqa: S102
    return space[name_of]


def hooked(body: str, *, head: str = "") -> Any:
    """A strategy of one on_bar."""
    lines = "\n".join(f"        {line}" for line in body.strip().split("\n"))
    return made(f"class S(Strategy):\n{head}\n    def on_bar(self, bar, market):\n{lines}\n")


def tape(times: int, assets: int = 2, seed: int = 3) -> np.ndarray:
    """Bars of a few assets, among them ticks."""
    rng = np.random.default_rng(seed)
    events = np.zeros(times * assets, BAR)
    events["known"] = np.repeat(np.arange(1, times + 1), assets) * MINUTE
    events["since"] = events["known"] - MINUTE
    events["asset"] = np.tile(np.arange(assets), times)
    events["kind"] = KIND_BAR
    close = np.round(100 * np.exp(rng.normal(0, 0.01, (times, assets)).cumsum(0)), 2)
    opens = np.vstack([close[:1], close[:-1]])
    events["open"], events["close"] = opens.ravel(), close.ravel()
    events["high"], events["low"] = (
        np.maximum(opens, close).ravel() + 0.05,
        np.minimum(opens, close).ravel() - 0.05,
    )
    events["volume"] = rng.integers(0, 1000, len(events))
    return events


def prepared(assets: int, every: int = 0) -> Memory:
    memory = Memory(assets)
    memory.cash[0] = 1e6
    run = memory.run[0]
    Limits.research(1e6, timedelta(minutes=1)).onto(memory.run)
    for name in ("equity", "peak", "trough", "day_equity", "start_equity"):
        run[name] = 1e6
    memory.timers = np.arange(1, 40) * every * MINUTE if every else memory.timers
    memory.bind()
    run["wake"] = memory.timers[0] + 1 if every else run["wake"]
    return memory


def driven(strategy: Any, events: np.ndarray, lane: Any, *, every: int = 0) -> tuple[Memory, Binding]:
    """A run, up to the end or to the event at which a hook raised."""
    memory = prepared(2, every)
    binding = bind(strategy, memory, lane, ("A", "B"))
    binding.start()
    binding.feed(events)
    while (status := advance(events.ctypes.data, len(events), memory.address())) == GROW:
        memory.grow()
    if status != FAULT:
        while (status := pass_time(memory.address(), int(events["known"][-1]))) == GROW:
            memory.grow()
    if status != FAULT:
        binding.finish()
    return memory, binding


def bits(value: Any) -> Any:
    """To compare by bits; of NaN it only matters that it is one."""
    if isinstance(value, tuple):
        return tuple(bits(item) for item in value)
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    return value


def outcome(memory: Memory, binding: Binding) -> dict[str, Any]:
    run = memory.run[0]
    logs = {name: memory.used(name).tobytes() for name in ("fills", "transitions", "curve")}
    return logs | {
        "state": bits(tuple(binding.state().values())),
        "at": int(run["cursor"]),
        "status": int(run["status"]),
    }


def same(strategy: Any, events: np.ndarray, **more: Any) -> tuple[Memory, Binding]:
    """Run in both lanes; they agree. The compiled run."""
    compiled, interpreted = (driven(strategy, events, lane, **more) for lane in ("compiled", "interpreted"))
    assert compiled[1].lanes.lane == "compiled" and interpreted[1].lanes.lane == "interpreted"
    if int(compiled[0].run[0]["line"]) < 0:  # 64 bits were too few, and that is what it said
        return compiled
    assert int(compiled[0].run[0]["line"]) == int(interpreted[0].run[0]["line"])
    ours, theirs = outcome(*compiled), outcome(*interpreted)
    for name in ours:
        assert ours[name] == theirs[name], name
    return compiled


# ---- 200 strategies nobody wrote ---------------------------------------------------------------------------

HEAD = """    n: int = 3
    level: float = 0.5
    w: object = window("n")
    v: object = per_asset(window(5))
    e: object = ewma(4)
    x: float = state(0.0)
    k: int = state(0)
    on: bool = state(False)
    row: object = array(3, 0.25)
    held: object = per_asset(state(1.0))
    seen: object = per_asset(state(0))
    def helper(self, a, b):
        if a > b:
            return a - b
        return a * 0.5
"""


def floats(depth: int) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(
        ["bar.close", "bar.open", "bar.high", "bar.volume", "self.x", "self.level", "self.e.value", "EDGE", "0.0", "-0.0", "2.5", "math.pi",
         "self.w.mean()", "self.w.std()", "self.w.min()", "self.w.max()", "self.w.zscore()", "self.w.slope()", "self.w.sum()",
         "self.w.mean(2)", "self.v[bar.asset].mean()", "self.v[0].max()", "market.position(bar.asset)", "market.price(1)",
         "market.weight(0)", "market.average_price(bar.asset)", "market.cash", "market.equity", "market.drawdown", "self.held[bar.asset]",
         "market.bid(0)", "float(self.k)"]
    )  # fmt: skip
    if depth == 0:
        return leaf
    inner, whole = floats(depth - 1), ints(depth - 1)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "%"]), whole),
        st.builds("({} / {})".format, whole, whole),
        st.builds("({} ** {})".format, inner, st.sampled_from(["2", "0.5", "-1", "3", "1.5"])),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds(
            "{}({})".format,
            st.sampled_from(
                ["abs", "math.fabs", "math.exp", "math.log", "math.sqrt", "math.tanh", "math.sin"]
            ),
            inner,
        ),
        st.builds("({} if {} else {})".format, inner, bools(depth - 1), inner),
        st.builds("self.helper({}, {})".format, inner, inner),
        st.builds("self.row[{}]".format, whole),
        st.builds("self.w[{}]".format, st.sampled_from(["0", "1", "-1", "self.k"])),
        st.builds("(-{})".format, inner),
    )


def ints(depth: int) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(
        [
            "self.k",
            "self.n",
            "bar.asset",
            "self.w.count",
            "0",
            "1",
            "7",
            "-3",
            "self.seen[bar.asset]",
            "market.open_orders(0)",
            "len(self.row)",
        ]
    )
    if depth == 0:
        return leaf
    inner = ints(depth - 1)
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "//", "%", "&"]), inner),
        st.builds(
            "{}({})".format, st.sampled_from(["int", "round", "math.floor", "math.ceil"]), floats(depth - 1)
        ),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("({} if {} else {})".format, inner, bools(depth - 1), inner),
    )


def bools(depth: int) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(["self.on", "self.w.full", "True", "not self.on", "bar.asset == 1"])
    if depth == 0:
        return leaf
    compare = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, floats(depth - 1), compare, floats(depth - 1)),
        st.builds("({} {} {})".format, ints(depth - 1), compare, floats(depth - 1)),
        st.builds("({} < {} <= {})".format, floats(depth - 1), floats(depth - 1), floats(depth - 1)),
        st.builds("({} {} {})".format, bools(depth - 1), st.sampled_from(["and", "or"]), bools(depth - 1)),
        st.builds("math.isnan({})".format, floats(depth - 1)),
    )


def orders() -> st.SearchStrategy[str]:
    price = st.sampled_from(["round(bar.close) + 0.0", "bar.low", "math.nan", "None", "bar.close * 0.99"])
    return st.one_of(
        st.builds("market.{}(bar.asset, {})".format, st.sampled_from(["buy", "sell", "target"]), floats(1)),
        st.builds("market.target_weight(0, {})".format, st.sampled_from(["0.5", "-0.25", "0"])),
        st.builds(
            "market.buy(bar.asset, 3, limit={}, stop={}, tif={})".format,
            price,
            price,
            st.sampled_from(['"gtc"', '"ioc"', '"day"']),
        ),
        st.builds("market.sell(1, 2.0, take={}, loss={})".format, price, price),
        st.builds('market.submit(0, -2.0, "limit", limit={}, post_only=self.on)'.format, price),
        st.builds("market.buy({}, 1)".format, ints(1)),
    )


def statements(depth: int) -> st.SearchStrategy[list[str]]:
    plain = st.one_of(
        st.builds("self.w.push({})".format, floats(1)),
        st.builds("self.v[bar.asset].push({})".format, floats(1)),
        st.builds("self.e.push({})".format, floats(2)),
        st.builds("self.x = {}".format, floats(2)),
        st.builds("self.x {}= {}".format, st.sampled_from("+-*/"), floats(1)),
        st.builds("self.k = {}".format, ints(2)),
        st.builds("self.k {}= {}".format, st.sampled_from("+-"), ints(1)),
        st.builds("self.on = {}".format, bools(2)),
        st.builds("self.row[{}] = {}".format, ints(1), floats(1)),
        st.builds("self.held[bar.asset] += {}".format, floats(1)),
        st.builds("self.seen[{}] = {}".format, st.sampled_from(["0", "bar.asset", "-1"]), ints(1)),
        orders(),
    ).map(lambda line: [line])
    if depth == 0:
        return plain
    inner = st.lists(statements(depth - 1), min_size=1, max_size=2).map(
        lambda parts: [f"    {line}" for part in parts for line in part]
    )
    return st.one_of(
        plain,
        st.builds(lambda test, then, other: [f"if {test}:", *then, "else:", *other], bools(1), inner, inner),
        st.builds(
            lambda body: [
                "t = 0.0",
                "for i in range(4):",
                "    t += self.x * i",
                "    if t > 50.0:",
                "        break",
                *body,
                "self.x = t",
            ],
            inner,
        ),
    )


BODIES = st.lists(statements(2), min_size=1, max_size=6).map(
    lambda parts: [line for part in parts for line in part]
)
EVENTS = tape(60)


QUICK = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, report_multiple_bugs=False,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@QUICK
@given(BODIES, BODIES)
def test_random_strategies_give_the_same_bytes_in_both_lanes(body, timed):
    on_bar = "\n".join(f"        {line}" for line in body)
    on_timer = (
        "\n".join(f"        {line}" for line in timed)
        .replace("bar.asset", "1")
        .replace("bar.close", "market.price(0)")
    )
    for name in ("open", "high", "low", "volume"):
        on_timer = on_timer.replace(f"bar.{name}", "market.price(1)")
    text = f"class S(Strategy):\n{HEAD}\n    def on_bar(self, bar, market):\n{on_bar}\n    def on_timer(self, market):\n{on_timer}\n"
    same(made(text)(), EVENTS, every=7)


# ---- traps, one by one -------------------------------------------------------------------------------------

SAME = {
    "power of two is the library's": "self.x = (bar.close / 7.0) ** 2",
    "floor of a negative": "self.x = -bar.close // 7.0 + -bar.close % 7.0",
    "sign of zero": "self.x = math.copysign(1.0, 0.0 * -1.0 % 3.0)",
    "whole numbers floor": "self.k = -7 // 2 * 100 + -7 % 2 * 10 + 7 % -2",
    "round half to even": "self.k = round(2.5) * 100 + round(3.5) * 10 + round(-0.5)",
    "min keeps the first of NaN": "self.x = min(math.nan, 1.0)\nself.row[0] = min(1.0, math.nan)\nself.row[1] = max(1.0, math.nan, 2.0)",
    "a whole number and a float compare exactly": "k = market.now * 1000 + 1\nself.on = k > float(k)\nself.k = (k == float(k)) + 2 * (k >= float(k))",
    "NaN is true": "self.on = bool(math.nan)",
    "a bool counts": "self.k += (bar.close > bar.open) + True",
    "a number that begins whole": "t = 0\nfor i in range(5):\n    t += bar.close\nmarket.target(0, t)",
    "negative index": "self.row[-1] = bar.close\nself.x = self.row[2]",
    "tuple exchange": "a = bar.open\nb = bar.close\na, b = b, a\nself.x = a - 2.0 * b",
    "NaN price is no market order": "market.buy(0, 1, limit=math.nan)\nmarket.buy(0, 1, loss=self.w.mean())",
    "chained comparison": "self.on = 0.0 < bar.close <= bar.high < 1e9",
}
RAISES = {
    "division by zero": "self.x = 1.0 / (bar.close - bar.close)",
    "whole division by zero": "self.x = 1 / self.k",
    "modulo zero": "self.k = 5 % self.k",
    "zero to a negative power": "self.x = (bar.close - bar.close) ** -1",
    "float too large": "self.x = (bar.close * 1e200) ** 2",
    "exp too large": "self.x = math.exp(bar.close * 1e9)",
    "log of zero": "self.x = math.log(bar.close - bar.close)",
    "root of a negative": "self.x = math.sqrt(-bar.close)",
    "int of NaN": "self.k = int(math.nan * bar.close)",
    "round of infinity": "self.k = round(bar.close * math.inf)",
    "index too large": "self.x = self.row[3]",
    "index too small": "self.row[-4] = 0.0",
    "no such asset": "market.buy(2, 1)",
    "a negative asset": "self.x = market.price(-1)",
    "an empty window": "self.x = self.w.last",
    "an asset of another run": "self.v[bar.asset + 5].push(1.0)",
    "a raise of one's own": "if bar.close > 0.0:\n    raise ValueError('no')",
    "an assertion": "assert bar.close < 0.0, 'no'",
    "a helper raises": "self.x = self.helper(1.0, 1.0 / self.k)",
}
BEYOND = {
    "product": "k = market.now\nself.k = k * k",
    "sum that doubles": "self.k = max(self.k, 1)\nself.k = self.k + self.k",
    "float to a large whole number": "self.k = int(bar.close * 1e30) % 7",
    "exact quotient": "self.x = market.now * 1000000 / 3",
    "complex": "y = (-bar.close) ** 0.5\nself.on = y == y",
}
REFUSED = {
    "a float in a whole number's state": (
        "self.k = bar.close",
        "self.k is a whole number and is given a float",
    ),
    "a whole number in a float's state": ("self.x = 0", "write 0.0"),
    "a number that begins whole, in a float's state": (
        "t = 0\nfor i in range(3):\n    t += bar.close\nself.x = t",
        "write 0.0",
    ),
    "an undeclared attribute": ("self.y = 1.0", "not declared"),
    "two kinds in one name": (
        "t = self.k\nt = bar.close\nself.x = t",
        "a whole number in one place and a float in another",
    ),
    "a name without a value": ("if bar.close > 0.0:\n    t = 1.0\nself.x = t", "may have no value yet"),
    "a loop that may not run": ("for i in range(self.k):\n    t = 1.0\nself.x = t", "may have no value yet"),
    "rounding to digits": ("self.x = round(bar.close, 2)", "with 2 arguments"),
    "whole power": ("self.k = self.k ** 2", "of whole numbers"),
    "print": ("print(bar.close)", "`print` is not translated"),
    "text": ("name = 'A'", "'A' is not a number"),
    "a comprehension": ("t = [i for i in range(3)]", "not translated"),
    "try": ("try:\n    self.x = 1.0\nexcept ValueError:\n    pass", "not translated"),
    "an import": ("import os", "not translated"),
    "history": ("h = market.history('close')", "`market.history` is not translated"),
    "what the market keeps to itself": ("self.k = market.fills", "not declared"),
    "an event is not changed": ("bar.close = 1.0", "cannot be assigned"),
    "a window is not replaced": ("self.w = self.w", "cannot be replaced"),
    "a word": ("market.buy(0, 1, tif='never')", "tif is one of"),
    "an asset by name": ("market.buy('A', 1)", "'A' is not a number"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_compilers_change_is_not_changed(name):
    memory, binding = same(hooked(SAME[name], head=HEAD)(), EVENTS[:40])
    assert binding.error is None and int(memory.run[0]["line"]) == 0 and int(memory.run[0]["cursor"]) == 40


@pytest.mark.parametrize("name", RAISES)
def test_what_raises_in_python_raises_compiled_at_the_same_event_and_line(name):
    memory, _ = same(hooked(RAISES[name], head=HEAD)(), EVENTS[:40])
    assert int(memory.run[0]["status"]) == FAULT and int(memory.run[0]["line"]) > 0


@pytest.mark.parametrize("name", BEYOND)
def test_what_64_bits_cannot_hold_stops_the_compiled_run(name):
    memory, _ = driven(hooked(BEYOND[name], head=HEAD)(), tape(80), "compiled")
    assert int(memory.run[0]["status"]) == FAULT and int(memory.run[0]["line"]) < 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_differ_is_not_compiled_and_the_line_is_named(name):
    body, reason = REFUSED[name]
    hook = compile_lanes(hooked(body, head=HEAD)()).hooks["on_bar"]
    assert hook.lane == "interpreted" and reason in hook.reason
    first = 2 + HEAD.count("\n") + 2
    assert first <= hook.line < first + 1 + body.count("\n") + 1
    with pytest.raises(QuantbenchError, match="QB-ENG-013"):
        compile_lanes(hooked(body, head=HEAD)(), "compiled")


def test_a_parameter_is_not_changed():
    with pytest.raises(QuantbenchError, match="QB-ENG-011"):
        compile_lanes(hooked("self.n = 4", head=HEAD)())
    with pytest.raises(QuantbenchError, match="QB-ENG-011"):
        driven(hooked("setattr(self, 'n', 4)", head=HEAD)(), EVENTS[:4], "auto")


def test_a_mixed_strategy_is_the_strategy_in_python():
    """One hook compiled, one with NumPy, both on the same state."""
    text = f"class S(Strategy):\n{HEAD}\n    def on_bar(self, bar, market):\n        self.v[bar.asset].push(bar.close)\n"
    text += "        self.row[0] += self.x\n        market.target(bar.asset, self.held[bar.asset])\n"
    text += "    def on_timer(self, market):\n        import numpy\n        self.x = numpy.float64(self.v[0].mean())\n"
    text += "        self.k += 1\n        self.held[1] = float(numpy.sign(self.x - 100.0))\n"
    runs = [driven(made(text)(), EVENTS, lane, every=7) for lane in ("auto", "interpreted")]
    assert runs[0][1].lanes.lane == "mixed" and runs[1][1].lanes.lane == "interpreted"
    assert outcome(*runs[0]) == outcome(*runs[1]) and runs[0][1].state()["k"] > 3


def test_every_value_of_math_is_pythons():
    rng = np.random.default_rng(5)
    events = tape(4000, 1)
    events["open"] = rng.normal(0, 30, 4000)
    body = "self.x = 0.0\n" + "\n".join(
        f"self.x += math.{name}(bar.open)"
        for name in ("sin", "cos", "tan", "tanh", "atan", "expm1", "exp", "floor")
    )
    body += "\ny = abs(bar.open) + 1e-9\n" + "\n".join(
        f"self.x += math.{name}(y)" for name in ("log", "log1p", "log2", "log10", "sqrt")
    )
    body += "\nself.x += y ** 0.3 + y ** -2.5 + bar.open ** 3 + bar.open // 0.7 + bar.open % -0.3\nself.w.push(self.x)\nself.row[0] += self.x"
    same(hooked(body, head=HEAD)(), events)


def test_a_fault_is_explained():
    strategy = hooked("self.w.push(bar.close)\nself.x = 1.0 / (self.w.count - 3)", head=HEAD)()
    memory, binding = driven(strategy, EVENTS, "compiled")
    at = int(memory.run[0]["cursor"])
    _, before = driven(strategy, EVENTS[:at], "compiled")
    text = str(explain(binding, "on_bar", EVENTS[at], before.state()))
    assert "ZeroDivisionError" in text and f"line {int(memory.run[0]['line'])}" in text and "'w': (2," in text


def test_a_second_run_compiles_nothing():
    from quantbench.engine.translate import compiled

    strategy = hooked("self.x += bar.close * 1.25", head=HEAD)
    compile_lanes(strategy())
    before = compiled.cache_info().misses
    for n in range(20):
        compile_lanes(strategy(n=3 + n))
    assert compiled.cache_info().misses == before


def test_a_class_is_compiled_once_until_what_it_uses_changes():
    """The class stays the same object; a number and a helper outside of it change."""
    cls = made(
        "class S(Strategy):\n    seen: float = state(0.0)\n    def on_bar(self, bar, market):\n        self.seen = helped(EDGE)\n\n"
        "def helped(x):\n    return 2.0 * x\n"
    )
    outside = cls.on_bar.__globals__
    first = compile_lanes(cls())
    assert first.lane == "compiled" and compile_lanes(cls()) is first
    outside["EDGE"] = 3.5
    second = compile_lanes(cls())
    assert second is not first
    outside["helped"] = made("def helped(x):\n    return x\n", "helped")
    assert compile_lanes(cls()) is not second
    assert compile_lanes(cls(), "interpreted").lane == "interpreted"
