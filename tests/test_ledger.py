"""The ledger against a replay in exact decimals, and its identities after every fill."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from quantbench.core.check import close
from quantbench.engine.ledger import (
    DAY,
    book,
    charge,
    convert,
    delist,
    dividend,
    equity,
    exposures,
    hasten,
    roll_day,
    round_trips,
    set_costs,
    set_rate,
    split,
    tax_lots,
)  # fmt: skip
from quantbench.engine.memory import (
    ENDED,
    FAULT,
    FLOW_DELISTING,
    FLOW_SETTLEMENT,
    FLOW_SPLIT,
    GROW,
    NEVER,
    Memory,
    asset_record,
    fill_record,
    order_record,
)  # fmt: skip
from quantbench.portfolio.costs import Costs

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("steady")

FILL, SPLIT, DIVIDEND, DELIST, NIGHT, RATE, CONVERT, HASTEN = range(8)
MULTIPLIER, LOT, CURRENCY, FUTURE = (1, 1, 50, 1), ("1", "0.01", "1", "1"), (0, 1, 0, 0), (0, 0, 1, 0)
START, MARGIN, COLLAR, YEARLY, DEBT = ("250000", "-4000"), "0.25", "0.05", ("0.02", "0.03"), "0.015"
COSTS = Costs(
    spread_bps=4.0, slippage_bps=1.5, impact_root=0.5, impact_linear_bps=20.0, fee_unit=0.005, taker_bps=2.0,
    maker_bps=1.0, minimum=1.0, duty_buy_bps=5.0, duty_sell_bps=0.3, borrow_bps=365.0,
)  # fmt: skip
ADV, VOLATILITY = 250_000, "0.015"


@njit(error_model="numpy")
def act(run: Any, what: int, number: int, x: float) -> int:
    """One door to the kernels, so that they are compiled once."""
    asset = asset_record(run.assets, number)
    if what == FILL:
        fill = fill_record(run.fills, run.n_fills)
        order = order_record(run.orders, 0)
        charge(run, asset, order, fill)
        order.filled += fill.lots
        run.n_fills += 1
        run.settled += 1
        book(run, fill)
    if what == SPLIT:
        return split(run, asset, x)
    if what == DIVIDEND:
        return dividend(run, asset, x)
    if what == DELIST:
        return delist(run, asset, x)
    if what == NIGHT:
        return roll_day(run, int(x))
    if what == RATE:
        set_rate(run, number, x)
    if what == CONVERT:
        convert(run, asset)
    if what == HASTEN:
        hasten(run)
    return 0


@njit(error_model="numpy")
def figures(run: Any) -> tuple[float, float, float]:
    total, gross, net = exposures(run)
    return total if total == equity(run) else math.nan, gross, net


# ---- the twin -----------------------------------------------------------------------------------------------------


@dataclass
class Twin:
    """The same account in decimals of sixty digits; it shares no line with the ledger."""

    cash: list[Decimal] = field(default_factory=lambda: [Decimal(x) for x in START])
    rate: list[Decimal] = field(default_factory=lambda: [Decimal(1), Decimal("1.25")])
    lots: list[int] = field(default_factory=lambda: [0] * 4)
    cost: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 4)
    gain: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 4)
    last: list[Decimal] = field(default_factory=lambda: [Decimal(x) for x in (50, 20, 4000, 8)])
    adv: list[Decimal] = field(default_factory=lambda: [Decimal(ADV)] * 4)
    fees: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 2)
    income: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * 2)
    largest: Decimal = Decimal(1)
    order: tuple[int, Decimal] = (0, Decimal(0))  # lots and fees so far

    def unit(self, a: int) -> Decimal:
        return Decimal(LOT[a]) * MULTIPLIER[a]

    def impact(self, a: int, lots: int) -> Decimal:
        part = lots * Decimal(LOT[a]) / self.adv[a]
        return Decimal("0.5") * Decimal(VOLATILITY) * part.sqrt() + Decimal("0.002") * part

    def fill(self, a: int, signed: int, reference: Decimal, maker: bool, stress: int, more: bool) -> None:
        done, charged = self.order if more else (0, Decimal(0))
        size, side = abs(signed), 1 if signed > 0 else -1
        total = self.impact(a, done + size) * (done + size) - (self.impact(a, done) * done if done else 0)
        worse = Decimal(0) if maker else stress * (Decimal("0.0002") + Decimal("0.00015") + total / size)
        price = reference * (1 + side * worse)
        paid = size * self.unit(a) * price
        fee = Decimal("0.005") * size * Decimal(LOT[a]) + paid * Decimal("0.0001" if maker else "0.0002")
        due = max(charged + fee, Decimal(1)) - (max(charged, Decimal(1)) if done else 0)
        self.order = (done + size, charged + fee)
        spent = due + paid * Decimal("0.0005" if side > 0 else "0.00003")
        before = self.gain[a]
        for _ in range(2):  # close, then open what is left
            closing = signed * self.lots[a] < 0
            part = min(abs(signed), abs(self.lots[a])) * side if closing else signed
            if closing:
                basis = self.cost[a] * -part / self.lots[a]
                self.gain[a] += -part * self.unit(a) * price - basis
                self.cost[a] -= basis
            else:
                self.cost[a] += part * self.unit(a) * price
            self.lots[a] += part
            signed -= part
            if signed == 0:
                break
        c = CURRENCY[a]
        self.cash[c] -= spent + (before - self.gain[a] if FUTURE[a] else side * paid)
        self.fees[c] += spent
        self.largest = max(self.largest, paid, *map(abs, self.cash))

    def pay(self, c: int, amount: Decimal) -> None:
        self.cash[c] += amount
        self.income[c] += amount

    def dividend(self, a: int, amount: Decimal) -> None:
        self.pay(CURRENCY[a], self.lots[a] * self.unit(a) * amount)
        self.last[a] -= amount if self.last[a] > amount else 0

    def take_out(self, a: int, lots: Decimal | int) -> None:
        """So many lots (signed as held) are paid out at the last price."""
        basis = self.cost[a] * lots / self.lots[a]
        value = lots * self.unit(a) * self.last[a]
        self.gain[a] += value - basis
        self.cost[a] -= basis
        self.cash[CURRENCY[a]] += value - basis if FUTURE[a] else value

    def split(self, a: int, new: int, old: int) -> None:
        self.last[a] = self.last[a] * old / new
        self.adv[a] = self.adv[a] * new / old
        if self.lots[a]:
            whole = abs(self.lots[a]) * new // old * (1 if self.lots[a] > 0 else -1)
            rest = Decimal(self.lots[a] * new - whole * old) / old
            self.lots[a] = Decimal(self.lots[a] * new) / old
            if rest:
                self.take_out(a, rest)
            self.lots[a] = whole

    def night(self, days: int) -> None:
        for a in range(4):
            value = self.lots[a] * self.unit(a) * self.last[a]
            if FUTURE[a]:
                self.gain[a] += value - self.cost[a]
                self.cash[CURRENCY[a]] += value - self.cost[a]
                self.cost[a] = value
            elif value < 0:
                self.pay(CURRENCY[a], value * Decimal("0.0365") * days / 365)
        for c in range(2):
            yearly = Decimal(YEARLY[c]) + (Decimal(DEBT) if self.cash[c] < 0 else 0)
            self.pay(c, self.cash[c] * yearly * days / 365)

    def worth(self, a: int) -> Decimal:
        return self.lots[a] * self.unit(a) * self.last[a] - (self.cost[a] if FUTURE[a] else 0)

    def value(self, c: int) -> Decimal:
        return self.cash[c] + sum(self.worth(a) for a in range(4) if CURRENCY[a] == c)

    def equity(self) -> Decimal:
        return sum((self.value(c) * self.rate[c] for c in range(2)), Decimal(0))


def account() -> Memory:
    memory = Memory(4, 2)
    memory.cash[:], memory.rates[:], memory.interest[:] = (
        [*map(float, START)],
        (1.0, 1.25),
        [*map(float, YEARLY)],
    )
    assets = memory.assets
    assets["lot"], assets["multiplier"], assets["currency"], assets["future"] = (
        [*map(float, LOT)],
        MULTIPLIER,
        CURRENCY,
        FUTURE,
    )
    assets["last"], assets["margin"] = (50.0, 20.0, 4000.0, 8.0), float(MARGIN)
    set_costs(assets, COSTS)
    assets["adv"], assets["variance"] = ADV, float(VOLATILITY) ** 2
    memory.run["collar"], memory.run["debit_spread"] = float(COLLAR), float(DEBT)
    memory.run["day_end"], memory.run["day_length"] = DAY, DAY
    memory.orders["limit"][0] = math.nan
    return memory


def prepare(memory: Memory, a: int, signed: int, price: float, maker: bool, more: bool) -> None:
    fill, order = memory.fills[int(memory.run["n_fills"][0])], memory.orders[0]
    fill["asset"], fill["side"], fill["lots"], fill["maker"] = a, 1 if signed > 0 else -1, abs(signed), maker
    fill["reference"], fill["time"] = price, memory.run["now"][0]
    if not more:
        order["filled"] = 0


cents = st.integers(200, 20_000).map(lambda n: Decimal(n) / 100)
which = st.integers(0, 3)
size = st.integers(-300, 300).filter(bool)
fills = st.tuples(st.just("fill"), which, size, cents, st.booleans(), st.integers(1, 4), st.booleans())
marks = st.tuples(st.just("mark"), which, cents)
splits = st.tuples(
    st.just("split"), which, st.sampled_from([(2, 1), (3, 2), (1, 2), (1, 10), (7, 1), (1, 3)])
)
dividends = st.tuples(st.just("dividend"), which, st.integers(1, 150).map(lambda n: Decimal(n) / 100))
nights = st.tuples(st.just("night"), st.integers(1, 4))
delistings = st.tuples(st.just("delist"), which, cents)
rates = st.tuples(st.just("rate"), st.integers(50, 200).map(lambda n: Decimal(n) / 100))
stories = st.lists(
    fills | fills | fills | marks | splits | dividends | nights | delistings | rates, max_size=40
)


def happen(memory: Memory, twin: Twin, event: tuple[Any, ...]) -> None:
    """One event in both accounts."""
    run = memory.run[0]
    run["now"] += 1
    match event:
        case ("fill", a, signed, price, maker, stress, more):
            more = (
                more
                and int(memory.run["n_fills"][0]) > 0
                and int(memory.fills["asset"][run["n_fills"] - 1]) == a
            )
            run["cost_multiple"] = stress
            prepare(memory, a, signed, float(price), maker, more)
            act(run, FILL, a, 0.0)
            twin.fill(a, signed, price, maker, stress, more)
        case ("mark", a, price):
            memory.assets["last"][a], twin.last[a] = float(price), price
        case ("split", a, (new, old)):
            assert act(run, SPLIT, a, new / old) == ENDED
            memory.orders["filled"][0] = 0
            twin.split(a, new, old)
            twin.order = (0, Decimal(0))
        case ("dividend", a, amount):
            assert act(run, DIVIDEND, a, float(amount)) == ENDED
            twin.dividend(a, amount)
        case ("night", days):
            run["now"] = run["day_end"] + (days - 1) * DAY + 1
            assert act(run, NIGHT, 0, float(run["now"])) == ENDED
            twin.night(days)
        case ("delist", a, price):
            assert act(run, DELIST, a, float(price)) == ENDED
            twin.last[a] = price
            if twin.lots[a]:
                twin.take_out(a, twin.lots[a])
                twin.lots[a], twin.cost[a] = 0, Decimal(0)
        case ("rate", rate):
            act(run, RATE, 1, float(rate))
            twin.rate[1] = rate
    twin.largest = max(twin.largest, *map(abs, twin.cash), *(abs(twin.worth(a)) for a in range(4)))


def same(memory: Memory, twin: Twin) -> None:
    """Equal up to rounding. An event rounds a handful of numbers no larger than `largest`, each by at most 2^-53 of it; forty
    events stay below 1e-12 of it, and that is far below a cent for every account of this test."""
    tolerance = 1e-12 * float(twin.largest)
    assert tolerance < 0.005
    assets = memory.assets
    assert assets["lots"].tolist() == twin.lots
    for ours, exact in (
        (memory.cash, twin.cash), (assets["cost"], twin.cost), (assets["realized"], twin.gain),
        ([figures(memory.run[0])[0]], [twin.equity()]),
    ):  # fmt: skip
        assert all(
            abs(Decimal(float(o)) - e) <= Decimal(tolerance) for o, e in zip(ours, exact, strict=True)
        ), (ours, exact)


def invariants(memory: Memory) -> None:
    held = memory.held[: int(memory.run["n_held"][0])].tolist()
    lots = memory.assets["lots"]
    assert sorted(held) == np.flatnonzero(lots).tolist()
    assert all(memory.assets["held"][a] == place for place, a in enumerate(held))
    assert (memory.assets["cost"][lots == 0] == 0.0).all()


@given(stories)
def test_every_story_ends_as_in_exact_decimals(story: list[tuple[Any, ...]]) -> None:
    memory, twin = account(), Twin()
    with localcontext() as context:
        context.prec = 60
        for event in story:
            happen(memory, twin, event)
            same(memory, twin)
            invariants(memory)


# ---- identities ---------------------------------------------------------------------------------------------------


@given(stories)
def test_each_fill_changes_equity_by_its_distance_from_the_last_price_and_its_fees(
    story: list[tuple[Any, ...]],
) -> None:
    memory, twin = account(), Twin()
    for event in story:
        before = figures(memory.run[0])[0]
        happen(memory, twin, event)
        if event[0] == "fill":
            fill, asset = memory.used("fills")[-1], memory.assets[event[1]]
            unit = asset["lot"] * asset["multiplier"] * memory.rates[asset["currency"]]
            gained = fill["lots"] * fill["side"] * (asset["last"] - fill["price"]) * unit
            paid = (fill["fee"] + fill["tax"]) * memory.rates[asset["currency"]]
            change = figures(memory.run[0])[0] - before
            assert abs(change - (gained - paid)) <= 1e-12 * float(twin.largest)
            worse = abs(fill["price"] - fill["reference"]) * fill["lots"] * asset["lot"] * asset["multiplier"]
            assert close(fill["spread"] + fill["slippage"] + fill["impact"], worse, floor=1e-6)


@given(stories)
def test_profit_less_costs_plus_income_is_the_change_of_value_in_each_currency(
    story: list[tuple[Any, ...]],
) -> None:
    memory, twin = account(), Twin()
    for event in story:
        happen(memory, twin, event)
    flows, filled, assets = memory.used("flows"), memory.used("fills"), memory.assets
    unrealized = assets["lots"] * assets["lot"] * assets["multiplier"] * assets["last"] - assets["cost"]
    inside = np.isin(flows["kind"], (FLOW_SPLIT, FLOW_DELISTING, FLOW_SETTLEMENT))  # profit already
    whose = np.where(
        flows["asset"] < 0, -1 - flows["asset"], assets["currency"][np.maximum(flows["asset"], 0)]
    )
    for c in range(2):
        mine = assets["currency"] == c
        fees = (filled["fee"] + filled["tax"])[mine[filled["asset"]]].sum()
        income = flows["amount"][(whose == c) & ~inside].sum()
        worths = np.where(assets["future"] == 1, 0.0, assets["cost"]) + unrealized
        value = memory.cash[c] + worths[mine].sum()
        earned = assets["realized"][mine].sum() + unrealized[mine].sum() - fees + income
        assert abs(value - float(START[c]) - earned) <= 1e-12 * float(twin.largest) * (1 + len(story))


@given(stories)
def test_cash_is_the_records_in_their_order_to_the_last_bit(story: list[tuple[Any, ...]]) -> None:
    memory, twin = account(), Twin()
    for event in story:
        happen(memory, twin, event)
    cash, flows, k = [*map(float, START)], memory.used("flows"), 0
    for i, fill in enumerate([*memory.used("fills"), None]):
        while k < len(flows) and flows[k]["after"] == i:
            a = int(flows[k]["asset"])
            cash[CURRENCY[a] if a >= 0 else -1 - a] += float(flows[k]["amount"])
            k += 1
        if fill is not None:
            a, signed = int(fill["asset"]), int(fill["lots"] * fill["side"])
            amount = signed * (float(LOT[a]) * MULTIPLIER[a]) * float(fill["price"])
            moved = -float(fill["realized"]) if FUTURE[a] else amount
            cash[CURRENCY[a]] -= moved + float(fill["fee"] + fill["tax"])
    assert k == len(flows) and cash == memory.cash.tolist()


@given(st.lists(st.tuples(which, size, cents), max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_fills_of_different_assets_does_not_matter(
    trades: list[tuple[int, int, Decimal]], random: Any
) -> None:
    queues = defaultdict(list)
    for trade in trades:
        queues[trade[0]].append(trade)
    mixed = []
    while any(queues.values()):
        mixed.append(queues[random.choice(sorted(a for a in queues if queues[a]))].pop(0))
    one, other = account(), account()
    for memory, sequence in ((one, trades), (other, mixed)):
        for a, signed, price in sequence:
            prepare(memory, a, signed, float(price), False, False)
            act(memory.run[0], FILL, a, 0.0)
    for name in ("lots", "cost", "realized"):
        assert one.assets[name].tolist() == other.assets[name].tolist()
    assert close(one.cash, other.cash, rel=1e-12, floor=1e-6)


# ---- charging -----------------------------------------------------------------------------------------------------


@given(
    st.integers(2, 5000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n - 1), max_size=8))),
    cents,
)
def test_an_order_costs_the_same_in_any_number_of_fills(cut: tuple[int, set[int]], price: Decimal) -> None:
    total, edges = cut[0], [0, *sorted(cut[1]), cut[0]]
    whole, parts = account(), account()
    for memory, ends in ((whole, [0, total]), (parts, edges)):
        for i in range(len(ends) - 1):
            prepare(memory, 0, ends[i + 1] - ends[i], float(price), False, i > 0)
            act(memory.run[0], FILL, 0, 0.0)
    for name in ("spread", "slippage", "impact", "fee", "tax"):
        assert close(parts.used("fills")[name].sum(), whole.used("fills")[name].sum(), rel=1e-9), name


@given(size, cents, cents, st.floats(0.0, 400.0), st.booleans())
def test_a_price_stays_a_price_and_inside_the_limit(
    signed: int, price: Decimal, limit: Decimal, stress: float, bare: bool
) -> None:
    memory = account()
    memory.run["cost_multiple"] = stress
    memory.assets["adv"] = 1.0
    side = 1 if signed > 0 else -1
    memory.orders["limit"][0] = math.nan if bare else float(limit)
    prepare(memory, 0, signed, float(price), False, False)
    act(memory.run[0], FILL, 0, 0.0)
    fill = memory.fills[0]
    assert 0 < fill["price"] < math.inf and side * (fill["price"] - fill["reference"]) >= 0
    if not bare and side * (limit - price) >= 0:
        assert side * (float(limit) - fill["price"]) >= 0


def test_before_the_first_day_is_over_impact_is_that_of_a_whole_day() -> None:
    memory = account()
    memory.assets["adv"] = memory.assets["variance"] = memory.assets["spread"] = memory.assets["slippage"] = (
        0.0
    )
    prepare(memory, 0, 100, 50.0, False, False)
    act(memory.run[0], FILL, 0, 0.0)
    assert close(memory.fills["price"][0], 50.0 * (1 + 0.5 * 0.03 + 0.002))


def test_quoted_fills_and_resting_orders_pay_no_spread() -> None:
    memory = account()
    set_costs(memory.assets, Costs(spread_bps=100.0, slippage_bps=10.0, taker_bps=3.0, maker_bps=-1.0))
    for maker, quoted in ((0, 0), (0, 1), (1, 0)):
        prepare(memory, 0, 100, 50.0, bool(maker), False)
        memory.fills["quoted"][int(memory.run["n_fills"][0])] = quoted
        act(memory.run[0], FILL, 0, 0.0)
    assert close(memory.used("fills")["price"], [50.3, 50.05, 50.0])
    assert close(memory.used("fills")["fee"], [5030 * 3e-4, 5005 * 3e-4, -0.5])


# ---- actions, days, rates -----------------------------------------------------------------------------------------


def test_a_split_keeps_orders_on_the_grid_and_no_worse() -> None:
    memory = account()
    run, asset, order = memory.run[0], memory.assets[0], memory.orders[0]
    for name, value in {
        "lots": 101,
        "filled": 20,
        "heard": 20,
        "side": 1,
        "limit": 49.99,
        "stop": 51.01,
        "counted": 81,
        "next": -1,
        "exits": -1,
    }.items():
        order[name] = value
    for name in ("take", "loss", "trail", "extreme", "reference", "amend_limit", "amend_stop"):
        order[name] = math.nan
    asset["first"], asset["open_buy"] = 0, 81
    assert act(run, SPLIT, 0, 1.5) == ENDED
    assert (order["lots"], order["filled"], order["heard"], asset["open_buy"]) == (151, 30, 30, 121)
    assert close([order["limit"], order["stop"]], [33.32, 34.01]) and order["ticks"] == 3332
    asset["pending"] = 5
    assert act(run, SPLIT, 0, 2.0) == FAULT
    assert [act(run, SPLIT, 0, bad) for bad in (0.0, -1.0, math.inf, math.nan)] == [FAULT] * 4
    assert act(run, DIVIDEND, 0, math.nan) == FAULT


def test_news_is_hastened_and_never_delayed() -> None:
    memory = account()
    memory.run["now"], memory.run["n_fills"], memory.run["settled"] = 100, 3, 1
    memory.fills["heard"][:3] = 150, 150, 90
    act(memory.run[0], HASTEN, 0, 0.0)
    assert memory.fills["heard"][:3].tolist() == [150, 100, 90]


def test_nothing_is_half_done_when_the_log_of_flows_is_full() -> None:
    memory = account()
    prepare(memory, 0, -10, 50.0, False, False)
    act(memory.run[0], FILL, 0, 0.0)
    memory.run["max_flows"] = 0
    before = (memory.cash.tobytes(), memory.assets.tobytes(), int(memory.run["day_end"][0]))
    calls = ((SPLIT, 2.0), (DIVIDEND, 1.0), (DELIST, 1.0), (NIGHT, float(3 * DAY)))
    assert [act(memory.run[0], what, 0, x) for what, x in calls] == [GROW] * 4
    assert before == (memory.cash.tobytes(), memory.assets.tobytes(), int(memory.run["day_end"][0]))


@given(st.lists(st.none() | st.tuples(cents, st.integers(1, 10**6)), min_size=1, max_size=90))
def test_days_teach_volume_and_variance(days: list[tuple[Decimal, int] | None]) -> None:
    memory = account()
    asset = memory.assets[0]
    asset["adv"] = asset["variance"] = 0.0
    closes, volume, adv, variance = [], 0, 0.0, 0.0
    for d, day in enumerate(days):
        if day is not None:
            asset["last"], asset["last_time"], asset["day_volume"] = float(day[0]), d * DAY + 1, day[1]
            closes.append(float(day[0]))
            volume += 1
            adv += (day[1] - adv) / min(volume, 20)
            if volume > 1:
                variance += ((closes[-1] / closes[-2] - 1.0) ** 2 - variance) / min(volume - 1, 60)
        act(memory.run[0], NIGHT, 0, float((d + 1) * DAY))
    assert (
        asset["days"] == volume
        and asset["day_volume"] == 0.0
        and memory.run["day_end"][0] == (len(days) + 1) * DAY
    )
    assert asset["adv"] == pytest.approx(adv, rel=1e-12) and asset["variance"] == pytest.approx(
        variance, rel=1e-12
    )


def test_a_run_that_begins_owes_nothing_for_the_time_before() -> None:
    memory = account()
    memory.run["day_end"] = 0
    act(memory.run[0], NIGHT, 0, float(20_000 * DAY + 5))
    assert memory.run["n_flows"][0] == 0 and memory.run["day_end"][0] == 20_001 * DAY
    assert memory.run["day_equity"][0] == figures(memory.run[0])[0]


def test_rates_come_from_pairs_and_nothing_else_is_written() -> None:
    memory = account()
    memory.assets["converts"][0], memory.assets["converts"][3] = 1, -1
    memory.assets["last"][0], memory.assets["last"][3] = 1.1, 4.0
    act(memory.run[0], CONVERT, 0, 0.0)
    assert memory.rates.tolist() == [1.0, 1.1]
    act(memory.run[0], CONVERT, 3, 0.0)
    assert memory.rates.tolist() == [1.0, 0.25]
    for number, rate in ((0, 2.0), (1, math.nan), (1, 0.0), (1, -1.0), (1, math.inf)):
        act(memory.run[0], RATE, number, rate)
    assert memory.rates.tolist() == [1.0, 0.25]


# ---- tax lots -----------------------------------------------------------------------------------------------------


@given(stories)
def test_first_in_first_out_earns_what_average_cost_earns(story: list[tuple[Any, ...]]) -> None:
    memory, twin = account(), Twin()
    for event in story:
        happen(memory, twin, event)
    assets = memory.assets
    lots = tax_lots(memory.used("fills"), assets, memory.used("flows"))
    held = lots["closed"] == NEVER
    tolerance = 1e-9 * float(twin.largest)
    for a in range(4):
        mine, asset = lots["asset"] == a, assets[a]
        unit = asset["lot"] * asset["multiplier"]
        quantity = (lots["quantity"] * lots["side"])[mine & held].sum()
        assert abs(quantity - asset["lots"] * asset["lot"]) <= 1e-6
        still = ((asset["last"] - lots["entry"]) * lots["side"] * lots["quantity"] * asset["multiplier"])[
            mine & held
        ].sum()
        total = asset["realized"] + asset["lots"] * unit * asset["last"] - asset["cost"]
        assert abs(lots["profit"][mine & ~held].sum() + still - total) <= tolerance
    filled = memory.used("fills")
    assert close(lots["fees"].sum(), (filled["fee"] + filled["tax"]).sum(), rel=1e-9, floor=1e-9)
    trips = round_trips(lots)
    closed = lots[~held]
    assert abs(trips["profit"].sum() - (closed["profit"] - closed["fees"]).sum()) <= tolerance
    assert (trips["closed"] == NEVER).sum() == np.count_nonzero(assets["lots"])
    assert (np.diff(lots["closed"]) >= 0).all() and (lots["opened"] <= lots["closed"]).all()


def test_no_fills_no_lots() -> None:
    memory = account()
    assert len(tax_lots(memory.used("fills"), memory.assets)) == 0
    assert len(round_trips(tax_lots(memory.used("fills"), memory.assets))) == 0
