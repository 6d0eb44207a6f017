"""Every check at its boundary, every input made unusable, and the whole decision against a second telling of it."""

from __future__ import annotations

import ast
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.settings import Guardian
from quantbench.engine import guardian
from quantbench.engine.backtest import backtest
from quantbench.engine.events import BAR, KIND_BAR
from quantbench.engine.guardian import (
    ALL_CHECKS,
    DAILY_LOSS,
    DRAWDOWN,
    RING,
    SAME_SIDE,
    Limits,
    decide,
    stops,
)
from quantbench.engine.kernel import entry
from quantbench.engine.memory import (
    CHECKS,
    FILL,
    GTC,
    LIMIT,
    MARKET,
    NEVER,
    ON_CLOSE,
    PENDING,
    REDUCE_ONLY,
    REJECTED,
    STOP,
    STOP_LIMIT,
    SUBMITTED,
    TRAILING,
    Memory,
    asset_record,
)  # fmt: skip
from quantbench.engine.sessions import assets_of
from quantbench.engine.strategy import Strategy
from quantbench.engine.tape import Tape
from quantbench.portfolio.costs import Costs

SECOND = 10**9
HOUR, DAY = 3600 * SECOND, 24 * 3600 * SECOND
NOW = 10**18
WIDE = Limits.research(100_000.0)
BAD = (math.nan, math.inf, -math.inf)


def account(limits: Limits = WIDE, **fields: object) -> Memory:
    """100,000 in cash, three assets at 100; `fields` change the run or all assets."""
    memory = Memory(3)
    limits.onto(memory.run)
    memory.run["now"] = NOW
    memory.cash[0] = 100_000.0
    for name in ("equity", "peak", "day_equity"):
        memory.run[name] = 100_000.0
    memory.assets["last"], memory.assets["last_time"], memory.assets["adv"] = 100.0, NOW, 10_000.0
    memory.assets["variance"], memory.assets["days"] = 0.01**2, 300
    memory.run["required"] = ALL_CHECKS
    for name, value in fields.items():
        (memory.assets if name in memory.assets.dtype.names else memory.run)[name] = value
    return memory


def hold(memory: Memory, asset: int, lots: int) -> Memory:
    memory.assets[asset]["lots"], memory.assets[asset]["held"] = lots, memory.run["n_held"][0]
    memory.held[memory.run["n_held"][0]] = asset
    memory.run["n_held"] += 1
    return memory


def rest(
    memory: Memory, asset: int, signed: int, kind: int = LIMIT, limit: float = 90.0, **fields: int
) -> Memory:
    """An open order of the asset, as the books keep it."""
    slot = int(memory.run["free"][0])
    order, of = memory.orders[slot], memory.assets[asset]
    memory.run["free"] = order["next"]
    order["id"], order["asset"], order["side"], order["lots"] = (
        1000 + slot,
        asset,
        np.sign(signed),
        abs(signed),
    )
    order["kind"], order["limit"], order["stop"], order["state"] = kind, limit, math.nan, SUBMITTED
    order["decided"], order["next"], order["prev"] = NOW - 3600 * SECOND, -1, of["final"]
    for name, value in fields.items():
        order[name] = value
    if of["final"] >= 0:
        memory.orders[of["final"]]["next"] = slot
    else:
        of["first"] = slot
    of["final"], of["n_open"] = slot, of["n_open"] + 1
    memory.run["n_open"] += 1
    of["open_buy" if signed > 0 else "open_sell"] += abs(signed)
    return memory


def failed(memory: Memory, signed: float = 10.0, asset: int = 0, **terms: object) -> tuple[str, ...]:
    return decide(memory, asset, signed, **terms).failed


def only(check: str, memory: Memory, signed: float = 10.0, **terms: object) -> bool:
    """The check failed, and the order was refused for it or an earlier one."""
    decision = decide(memory, 0, signed, **terms)
    assert decision.accepted == (decision.failed == ())
    assert decision.check == (CHECKS.index(decision.failed[0]) if decision.failed else -1)
    return check in decision.failed


def test_the_wide_account_accepts():
    assert failed(account()) == ()
    assert failed(account(), -10.0) == ()


# ---- one table for what is a plain number against its limit: (check, field of run or asset, passes, one step beyond)

LINES = [
    ("quantity", "max_quantity", 10.0, 9.0),
    ("notional", "max_order", 1000.0, 999.99),
    ("position", "max_position", 1000.0, 999.99),
    ("gross", "max_gross", 0.01, 0.009999),
    ("net", "max_net", 0.01, 0.009999),
    ("concentration", "max_symbol", 0.01, 0.009999),
    ("buying_power", "min_cash", 0.99, 0.990001),
    ("value_at_risk", "max_var", 2.3263478740408408e-4, 2.32634e-4),
    ("volume", "max_volume", 0.001, 0.000999),
    ("volume", "adv", 10.0, 9.999),
    ("value_at_risk", "min_var_days", 300, 301),
    ("open_orders", "max_open", 1, 0),
    ("rate", "rate_window", 1, 0),
    ("duplicate", "duplicate_window", 1, 0),
    ("stale", "max_age", 0, -1),
    ("trading", "state", 0, 1),
    ("drawdown", "max_fall", 1e-9, 0.0),
    ("daily_loss", "max_daily_loss", 1e-9, 0.0),
    ("same_side", "max_same_side", 1, 0),
    ("rate", "max_messages", 1, 0),
    ("rate", "max_messages", RING, RING + 1),
]


@pytest.mark.parametrize(("check", "field", "passes", "beyond"), LINES)
def test_a_limit_passes_what_equals_it_and_refuses_one_step_beyond(check, field, passes, beyond):
    limits = {"max_volume": 1.0} if field == "adv" else {}
    assert not only(check, account(**limits, **{field: passes}))
    assert only(check, account(**limits, **{field: beyond}))


@pytest.mark.parametrize("field", sorted({line[1] for line in LINES} | {"collar", "market_move"}))
def test_a_limit_that_is_no_number_admits_nothing(field):
    memory = account()
    kind = (memory.assets if field in memory.assets.dtype.names else memory.run).dtype[field].kind
    for value in BAD if kind == "f" else (-(2**63),):
        if field == "state":
            value = 7
        assert failed(account(**{field: value})), (field, value)


@pytest.mark.parametrize("quantity", [0.0, -0.0, *BAD, 1e300, 0.4])
def test_a_quantity_that_is_none(quantity):
    assert only("quantity", account(), quantity) or only("finite", account(), quantity)


@pytest.mark.parametrize("lots", [0, -1, -(2**62)])
def test_lots_that_are_none(lots):
    assert only("quantity", account(), 10.0, lots=lots)


@pytest.mark.parametrize(("signed", "lots"), [(10.0, 11), (10.0, 9), (10.9, 11), (1e6, 10)])
def test_lots_that_are_not_the_quantity_asked(signed, lots):
    assert only("grid", account(), signed, lots=lots)


@pytest.mark.parametrize("signed", [10.0, 10.9, 10.999])
def test_a_quantity_is_rounded_toward_zero(signed):
    assert failed(account(), signed) == ()


def test_a_side_that_is_neither():
    for side in (0, 2, -2):
        assert only("quantity", account(), 10.0, side=side)


# ---- every number of an order, an asset and an account, one at a time

PRICES = {LIMIT: ("limit",), STOP: ("stop",), STOP_LIMIT: ("limit", "stop"), TRAILING: ("trail",)}
GOOD = {"limit": 99.0, "stop": 101.0, "trail": 2.0}


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, needed in PRICES.items() for field in needed]
)
def test_each_price_an_order_needs_must_be_there(kind, field):
    terms = {name: GOOD[name] for name in PRICES[kind]}
    assert failed(account(), kind=kind, **terms) == ()
    for value in BAD:
        assert only("finite", account(), kind=kind, **(terms | {field: value}))


@pytest.mark.parametrize("field", ["limit", "stop", "trail", "take", "loss"])
def test_a_price_an_order_does_not_need_may_be_absent_but_not_infinite(field):
    assert failed(account(), **{field: math.nan}) == ()
    assert only("finite", account(), **{field: math.inf}) and only("finite", account(), **{field: -math.inf})


@pytest.mark.parametrize("kind", [9, 64, 255])
def test_a_kind_that_does_not_exist(kind):
    assert only("finite", account(), kind=kind)


@pytest.mark.parametrize("value", [*BAD, 0.0])
@pytest.mark.parametrize("field", ["last", "lot", "multiplier", "adv", "variance", "margin", "tick"])
def test_an_asset_with_a_number_missing(field, value):
    if (field, value) in {("adv", 0.0), ("variance", 0.0), ("margin", 0.0)}:
        return  # no volume: the assumed one; no variance, no margin: none
    memory = account()
    memory.assets[field][0] = value
    decision = decide(memory, 0, 10.0, kind=LIMIT, limit=100.0, lots=10)
    assert not decision.accepted, (field, value)


@pytest.mark.parametrize("rate", [*BAD, 0.0, -1.0])
def test_a_rate_that_is_missing(rate):
    memory = account()
    memory.rates[0] = rate
    assert {"notional", "position", "gross"} <= set(failed(memory))


@pytest.mark.parametrize("cash", [*BAD, 0.0, -1.0])
def test_an_account_that_is_worth_nothing(cash):
    memory = account()
    memory.cash[0] = cash
    assert {"gross", "net", "concentration", "buying_power", "value_at_risk"} <= set(failed(memory))


@pytest.mark.parametrize("field", ["day_equity"])
@pytest.mark.parametrize("value", [*BAD, 0.0, -1.0])
def test_a_day_without_a_start(field, value):
    assert only("daily_loss", account(**{field: value}))


@pytest.mark.parametrize("price", [*BAD, 0.0, -100.0, 1e9])
def test_a_worst_price_that_is_none(price):
    assert only("collar", account(), price=price)


# ---- the checks that are more than one number


@pytest.mark.parametrize(("limit", "passes"), [(105.0, True), (105.01, False), (95.0, True), (94.99, False), (0.0, False), (-100.0, False)])  # fmt: skip
@pytest.mark.parametrize("signed", [10.0, -10.0])
def test_the_collar_holds_on_both_sides(limit, passes, signed):
    assert only("collar", account(collar=0.05), signed, kind=LIMIT, limit=limit) != passes
    assert only("collar", account(collar=0.05), signed, kind=STOP, stop=limit) != passes


@given(last=st.integers(1, 10**7), bps=st.integers(1, 2000))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_collar_is_exact_on_decimal_prices(last, bps):
    """In cents: what decimal arithmetic admits is admitted, one tick beyond is not."""
    memory = account(collar=bps / 1e4, last=last / 100, max_order=1e15, max_position=1e15)
    top = math.floor(Fraction(last) * (10_000 + bps) / 10_000)
    low = math.ceil(Fraction(last) * (10_000 - bps) / 10_000)
    for cents, passes in ((top, True), (top + 1, False), (low, True), (low - 1, False)):
        assert only("collar", memory, 1.0, kind=LIMIT, limit=cents / 100) != passes


def test_a_price_that_was_never_seen_or_is_old():
    assert {"collar", "stale", "notional"} <= set(failed(account(last_time=0)))
    age = SECOND
    assert not only("stale", account(max_age=age, last_time=NOW - age))
    assert only("stale", account(max_age=age, last_time=NOW - age - 1))
    assert only("stale", account(last_time=NOW + 1))


def test_a_negative_price_needs_an_asset_that_may_have_one():
    assert only("collar", account(last=-37.63))
    assert failed(account(last=-37.63, negative_prices=1), kind=LIMIT, limit=-37.63) == ()
    assert failed(account(last=-37.63, negative_prices=1, collar=0.05), kind=LIMIT, limit=-39.52)


@pytest.mark.parametrize(("tick", "price", "passes"), [(0.05, 50000.05, True), (0.05, 50000.03, False), (0.01, 100.005, False), (1e-8, 64000.12345678, True), (0.25, 4000.25, True), (-0.01, 100.0, False)])  # fmt: skip
def test_the_tick_grid(tick, price, passes):
    memory = account(Limits.research(1e9), tick=tick, last=price)
    assert only("grid", memory, 1.0, kind=LIMIT, limit=price) != passes
    assert only("grid", memory, 1.0, kind=STOP, stop=price) != passes
    assert only("grid", memory, 1.0, take=price) != passes
    assert only("grid", memory, 1.0, loss=price) != passes


def test_a_market_order_is_valued_at_the_price_it_is_taken_to_get():
    assert not only("notional", account(market_move=0.05, max_order=1050.0))
    assert only("notional", account(market_move=0.05, max_order=1049.99))
    assert not only(
        "notional", account(market_move=0.05, max_order=1000.0), -10.0
    )  # a sale at the last price
    assert only("notional", account(max_order=999.99), -10.0, kind=LIMIT, limit=95.0)


@pytest.mark.parametrize("side", [1, -1])
def test_the_position_counts_open_orders_and_no_relief_from_the_other_side(side):
    memory = rest(rest(hold(account(max_position=10_000.0, max_gross=4, margin=0.0, max_net=4), 0, side * 60), 0, side * 30), 0, -side * 50)  # fmt: skip
    assert not only("position", memory, side * 10.0)
    assert only("position", memory, side * 11.0)


def test_gross_adds_the_worst_case_of_every_asset():
    memory = rest(hold(account(), 1, 400), 2, -300)  # 40,000 held, 30,000 that may be sold short
    memory.cash[0] = 60_000.0
    assert failed(memory, 300.0) == () and only("gross", memory, 301.0)


def test_net_is_judged_in_the_direction_of_the_order():
    memory = hold(account(max_gross=4, max_net=0.5, margin=0.0), 1, -700)
    memory.cash[0] = 170_000.0
    assert not only("net", memory, 500.0) and only("net", memory, -10.0)
    assert not only("net", memory, 1200.0) and only("net", memory, 1201.0)


def test_buying_power_is_exact():
    memory = hold(account(), 1, 400)
    memory.cash[0] = 1000.0
    memory.run["max_gross"] = memory.run["max_net"] = 4.0
    assert not only("buying_power", memory, 10.0)
    memory.cash[0] = 999.99
    assert only("buying_power", memory, 10.0)
    assert only("buying_power", account(max_gross=4, max_net=4, max_symbol=4), 1001.0)
    assert not only("buying_power", account(max_gross=4, max_net=4, max_symbol=4, margin=0.5), 2000.0)
    assert only(
        "buying_power", account(market_move=0.01), 1000.0
    )  # what the worst price costs beyond the last


def test_value_at_risk_needs_every_asset_known():
    memory = hold(account(min_var_days=250), 1, 100)
    assert failed(memory) == ()
    memory.assets["days"][1] = 249
    assert only("value_at_risk", memory)


def test_a_volume_that_is_not_known():
    assert failed(account(adv=0.0)) == ()  # research assumes one
    assert only("volume", account(adv=0.0, assumed_volume=0.0))
    assert only("volume", account(adv=-1.0))


def test_open_orders():
    memory = rest(account(max_open=2), 1, 10)
    assert failed(memory) == ()
    assert only("open_orders", rest(memory, 1, 20))
    assert not only("open_orders", memory, state=SUBMITTED)  # an amend is not one more
    assert PENDING != SUBMITTED


def test_messages_fill_a_window_and_leave_room_for_cancels():
    memory = account(max_messages=20, rate_window=SECOND, duplicate_window=1)
    for n in range(18):
        memory.run["now"] = memory.assets["last_time"] = NOW + n
        assert decide(memory, 0, 1.0 + n, enter=True).accepted
    for later, passes in ((18, False), (SECOND - 1, False), (SECOND, True)):
        memory.run["now"] = memory.assets["last_time"] = NOW + later
        assert only("rate", memory, 50.0) != passes
    assert memory.run["rate_place"] == 18


def test_the_ring_goes_round():
    memory = account(max_messages=RING, rate_window=SECOND)
    assert len(memory.rate_times) == RING
    memory.rate_times[:] = NOW - SECOND
    memory.run["rate_place"] = 10 * RING + 7
    assert not only("rate", memory)
    memory.rate_times[:] = NOW
    assert only("rate", memory)


@pytest.mark.parametrize(("change", "passes"), [({}, False), ({"signed": 11.0}, True), ({"signed": -10.0}, True), ({"limit": 99.01}, True), ({"asset": 1}, True), ({"id": 77}, True)])  # fmt: skip
def test_the_same_order_again(change, passes):
    memory = account(duplicate_window=SECOND)
    order = {"signed": 10.0, "kind": LIMIT, "limit": 99.0, "id": 77}
    assert decide(memory, 0, enter=True, **order).accepted
    again = {"asset": 0} | order | {"id": 78} | change
    assert ("duplicate" not in decide(memory, **again).failed) == passes


@pytest.mark.parametrize(
    ("after", "passes"), [(0, False), (SECOND - 1, False), (SECOND, True), (SECOND + 1, True)]
)
def test_the_window_of_a_duplicate(after, passes):
    memory = account(duplicate_window=SECOND)
    assert decide(memory, 0, 10.0, enter=True, id=1).accepted
    memory.run["now"] = NOW + after
    assert only("duplicate", memory, 10.0, id=2) != passes


def test_a_duplicate_of_an_order_that_is_still_open():
    """A, B, A: the newest is B, the first A rests."""
    memory = rest(account(duplicate_window=SECOND), 0, 10, limit=99.0, decided=NOW)
    assert decide(memory, 0, 5.0, enter=True, id=2).accepted
    assert only("duplicate", memory, 10.0, kind=LIMIT, limit=99.0, id=3)
    assert not only("duplicate", memory, 10.0, kind=LIMIT, limit=99.0, id=int(memory.orders["id"][0]))


def test_the_window_of_a_duplicate_that_is_open():
    for ago, found in ((SECOND - 1, True), (SECOND, False)):
        memory = rest(account(duplicate_window=SECOND), 0, 10, limit=99.0, decided=NOW - ago)
        assert only("duplicate", memory, 10.0, kind=LIMIT, limit=99.0, id=3) == found


@pytest.mark.parametrize(("equity", "passes"), [(95_010.0, True), (95_000.01, True), (95_000.0, False), (90_000.0, False), (200_000.0, True)])  # fmt: skip
def test_a_loss_that_reaches_its_limit(equity, passes):
    for check, limit in (("daily_loss", "max_daily_loss"), ("drawdown", "max_fall")):
        memory = account(**{limit: 0.05})
        memory.cash[0] = equity
        assert only(check, memory) != passes


# ---- the way out


@pytest.mark.parametrize("side", [1, -1])
def test_a_reducing_order_passes_whatever_the_market_did(side):
    memory = hold(account(Limits.of(Guardian(), 1e5)), 0, side * 10_000)
    memory.cash[0] = -side * 1e6 - 5e5  # ruined
    memory.run["halted"], memory.assets["same_side"] = DRAWDOWN + 1, -side * 100
    memory.run["max_volume"] = 1.0
    assert failed(memory, -side * 90.0) == ()
    assert failed(memory, -side * 90.0, flags=REDUCE_ONLY) == ()
    assert {"gross", "daily_loss", "drawdown"} <= set(failed(memory, side * 1.0))


def test_exactly_flat_passes_and_one_more_does_not():
    memory = hold(account(halted=DRAWDOWN + 1), 0, 100)
    assert failed(memory, -100.0, flags=REDUCE_ONLY) == ()
    assert only("position", memory, -101.0, flags=REDUCE_ONLY) and only("drawdown", memory, -101.0)
    assert only("position", memory, 10.0, flags=REDUCE_ONLY)


def test_of_two_closes_at_once_the_second_is_refused():
    memory = rest(hold(account(halted=DRAWDOWN + 1), 0, 100), 0, -60)
    assert failed(memory, -40.0) == ()
    assert {"drawdown", "position"} <= set(failed(memory, -41.0, flags=REDUCE_ONLY))


@pytest.mark.parametrize("halt", [DAILY_LOSS + 1, DRAWDOWN + 1, SAME_SIDE + 1, 99, -1])
def test_a_halt_refuses_what_does_not_reduce(halt):
    refused = set(failed(account(halted=halt)))
    assert refused & {"daily_loss", "drawdown", "same_side"}
    assert halt in (99, -1) or CHECKS[halt - 1] in refused


def test_a_reducing_order_is_still_an_order():
    memory = hold(account(collar=0.05, max_order=1000.0), 0, 100)
    assert only("collar", memory, -10.0, kind=LIMIT, limit=1.0)
    assert only("notional", memory, -11.0)
    assert only("trading", hold(account(state=2), 0, 100), -10.0)


def test_a_rotation_has_credit_for_what_is_sold_at_any_price():
    for credit, kind, passes in (
        (1.0, MARKET, True),
        (1.0, ON_CLOSE, True),
        (0.0, MARKET, False),
        (1.0, LIMIT, False),
    ):
        memory = rest(hold(account(credit=credit), 1, 1000), 1, -1000, kind=kind, limit=110.0)
        memory.cash[0] = 0.0
        assert (failed(memory, 1000.0) == ()) == passes, (credit, kind)


def test_the_sums_that_move_along_equal_those_made_anew():
    memory = hold(account(Limits.research(1e5, leverage=4.0)), 1, 300)
    for asset, signed in ((0, 100.0), (1, -50.0), (2, -200.0), (1, 20.0), (0, -30.0)):
        moved = chain(memory, asset, signed)
        assert moved == pytest.approx(anew(memory), rel=1e-12)


SUMS = ("summed_gross", "summed_up", "summed_down", "summed_margin", "summed_var")


def chain(memory: Memory, asset: int, signed: float) -> list[float]:
    assert decide(memory, asset, signed, enter=True, id=int(memory.run["rate_place"][0]) + 1).accepted
    moved = [float(memory.run[name][0]) for name in SUMS]
    rest(memory, asset, int(signed), kind=MARKET, limit=math.nan)
    return moved


def anew(memory: Memory) -> list[float]:
    decide(memory, 0, 1.0)
    return [float(memory.run[name][0]) for name in SUMS]


# ---- the whole decision, told a second time in exact fractions


def twin(memory: Memory, asset: int, signed: int, kind: int, price: float) -> set[str]:
    """What fails, from the meaning of each check; knows nothing of sums that move along, rings or bits."""
    run, assets = memory.run[0], memory.assets
    exact = {name: Fraction(float(run[name])) for name in run.dtype.names if run.dtype[name].kind == "f"}
    of, side, lots, last = (
        assets[asset],
        1 if signed > 0 else -1,
        abs(signed),
        Fraction(float(assets["last"][asset])),
    )
    paid = Fraction(price) if kind == LIMIT else last * (1 + side * exact["market_move"])
    tiny = 1 + Fraction(1, 10**12)
    value = [Fraction(float(a["last"])) for a in assets]
    most = [[int(a["lots"]) + int(a["open_buy"]), int(a["open_sell"]) - int(a["lots"])] for a in assets]
    worth = Fraction(float(memory.cash[0])) + sum(
        int(a["lots"]) * v for a, v in zip(assets, value, strict=True)
    )
    toward = -side * int(of["lots"]) - int(of["open_buy" if side > 0 else "open_sell"])
    reducing = lots <= toward
    most[asset][0 if side > 0 else 1] += lots
    worst = [max(pair) * v for pair, v in zip(most, value, strict=True)]
    net = sum(pair[0 if side > 0 else 1] * v for pair, v in zip(most, value, strict=True))
    beyond = max(side * (paid - last), Fraction(0))
    risk = (
        sum(float(w) * math.sqrt(a["variance"]) for w, a in zip(worst, assets, strict=True))
        * 2.3263478740408408
    )
    holds = {
        "notional": lots * (max(paid, last) if side < 0 else paid) <= exact["max_order"] * tiny,
        "collar": abs(paid - last) <= exact["collar"] * last * tiny,
        "position": max(most[asset][0 if side > 0 else 1], 0) * last <= exact["max_position"] * tiny,
        "gross": worth > 0 and sum(worst) <= exact["max_gross"] * worth * tiny,
        "net": worth > 0 and net <= exact["max_net"] * worth * tiny,
        "concentration": worth > 0 and worst[asset] <= exact["max_symbol"] * worth * tiny,
        "buying_power": worth > 0 and sum(worst) + lots * beyond <= (1 - exact["min_cash"]) * worth * tiny,
        "daily_loss": exact["day_equity"] - worth < exact["max_daily_loss"] * exact["day_equity"],
        "drawdown": max(exact["peak"], worth) - worth < exact["max_fall"] * max(exact["peak"], worth),
        "value_at_risk": worth > 0 and risk <= run["max_var"] * float(worth) * float(tiny),
        "volume": lots <= exact["max_volume"] * Fraction(float(of["adv"])) * tiny,
        "open_orders": run["n_open"] < run["max_open"],
    }
    way_out = {
        "position",
        "gross",
        "net",
        "concentration",
        "buying_power",
        "daily_loss",
        "drawdown",
        "value_at_risk",
    }
    return {check for check, good in holds.items() if not good and not (reducing and check in way_out)}


lots_of = st.integers(-60, 60)
amounts = st.integers(1, 40).map(lambda n: n * 500.0)
parts = st.integers(1, 12).map(lambda n: n / 8)


@given(
    held=st.tuples(lots_of, lots_of, lots_of),
    resting=st.lists(st.tuples(st.integers(0, 2), lots_of.filter(bool)), max_size=5),
    prices=st.tuples(*3 * [st.integers(5000, 20_000).map(lambda cents: cents / 100)]),
    numbers=st.fixed_dictionaries(
        dict.fromkeys(("max_order", "max_position"), amounts)
        | dict.fromkeys(("max_gross", "max_net", "max_symbol", "max_var"), parts)
        | {name: st.integers(0, 7).map(lambda n: n / 8) for name in ("min_cash", "market_move")}
        | {name: st.integers(1, 8).map(lambda n: n / 8) for name in ("max_daily_loss", "max_fall", "collar")}
        | {"max_volume": st.sampled_from((0.001, 0.004, 1.0)), "max_open": st.integers(1, 6), "peak": amounts, "day_equity": amounts}
    ),
    cash=st.integers(-20, 80).map(lambda n: n * 250.0),
    order=st.tuples(st.integers(0, 2), lots_of.filter(bool), st.sampled_from((MARKET, LIMIT)), st.integers(80, 120)),
)  # fmt: skip
@settings(max_examples=500, deadline=None, derandomize=True)
def test_the_decision_agrees_with_its_naive_twin(held, resting, prices, numbers, cash, order):
    memory = account(credit=0.0, **numbers)
    memory.cash[0], memory.assets["last"] = cash, prices
    memory.assets["variance"] = [1e-4, 4e-4, 9e-4]
    for asset, lots in enumerate(held):
        if lots:
            hold(memory, asset, lots)
    for n, (asset, signed) in enumerate(resting):
        rest(memory, asset, signed, limit=50.0 + n)
    asset, signed, kind, percent = order
    limit = round(prices[asset] * percent / 100, 2)
    terms = {"limit": limit} if kind == LIMIT else {}
    assert set(decide(memory, asset, float(signed), kind=kind, **terms).failed) == twin(
        memory, asset, signed, kind, limit
    )


# ---- after the fact


@entry
def told(runs, fills, heard):
    run = runs[0]
    if heard:
        guardian.note_fill(run, asset_record(run.assets, fills[0].asset), fills[0])
        return False
    return guardian.watch(run)


@entry
def morning(runs):
    guardian.new_day(runs[0])


def fill(memory: Memory, order: int, side: int, realized: float = 0.0) -> int:
    news = np.zeros(1, FILL)
    news["order"], news["side"], news["realized"] = order, side, realized
    told(memory.run, news, True)
    return int(memory.run["halted"][0])


def watched(memory: Memory) -> tuple[bool, int]:
    return told(memory.run, np.zeros(1, FILL), False), int(memory.run["halted"][0])


def test_fills_on_one_side_in_a_row():
    memory = account(max_same_side=3)
    for order in (1, 1, 1, 2, 3):  # the first order in three parts
        assert fill(memory, order, 1) == 0
    assert only("same_side", memory, 10.0) and not only("same_side", memory, -10.0)
    assert fill(memory, 4, 1) == SAME_SIDE + 1
    memory = account(max_same_side=3)
    for order, side in enumerate((1, 1, 1, -1, 1, 1, 1)):
        assert fill(memory, order, side) == 0


def test_losing_orders_in_a_row():
    memory = account(max_losses=3)
    for order, realized in enumerate((-1.0, -1.0, 5.0, -1.0, 0.0, -1.0)):
        assert fill(memory, order + 1, (-1) ** order, realized) == 0
    assert fill(memory, 6, 1, -1.0) == 0  # the same order
    assert fill(memory, 7, -1, -1.0) == DRAWDOWN + 1


def test_the_watch_halts_once_and_a_day_ends_only_the_loss_of_a_day():
    memory = account(max_daily_loss=0.05, max_fall=0.15, equity=95_000.01)
    assert watched(memory) == (False, 0)
    memory.run["equity"] = 95_000.0
    assert watched(memory) == (True, DAILY_LOSS + 1) and watched(memory) == (False, DAILY_LOSS + 1)
    morning(memory.run)
    assert memory.run["halted"] == 0
    memory.run["equity"] = 85_000.0
    assert watched(memory) == (True, DRAWDOWN + 1)
    morning(memory.run)
    assert memory.run["halted"] == DRAWDOWN + 1


class Eager(Strategy):
    """One lot at every bar, while Guardian lets it."""

    def on_bar(self, bar, market):
        market.buy(bar.asset, 40.0)


@given(st.integers(0, 10**6), st.floats(0.001, 0.05), st.floats(0.005, 0.2))
@settings(max_examples=25, deadline=None)
def test_the_loop_halts_where_a_watch_that_never_looks_away_would(seed, daily, fall):
    """The loop watches only below a floor; the twin asks at every point. Both refuse the same orders."""
    hours, start = 24 * 8, 1_700_000_000_000_000_000 // DAY * DAY
    rng = np.random.default_rng(seed)
    events = np.zeros(hours, BAR)
    events["known"] = start + HOUR * np.arange(1, hours + 1)
    events["since"], events["kind"] = events["known"] - HOUR, KIND_BAR
    prices = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.006, hours))), 2)
    for name in ("open", "high", "low", "close"):
        events[name] = prices
    events["volume"] = 1e9
    limits = Limits.research(1e5, leverage=9.0).tightened(
        max_daily_loss_fraction=daily, max_drawdown_fraction=fall
    )
    tape = Tape.from_events(events, assets_of(["A"], "equity", "24/7"), interval="1h")
    result = backtest(Eager(), tape, cash=1e5, costs=Costs.free(), limits=limits, margin=0.1)
    moved = result.logs.transitions
    stopped = {int(t) for t in moved["time"][moved["state"] == REJECTED]}
    curve = {int(point["time"]): float(point["equity"]) for point in result.logs.curve}
    peak = opened = last = 1e5
    halted, expected, end = "", set(), start + DAY
    for time in map(int, events["known"]):
        if time > end:
            opened, end = last, end + DAY
            halted = "" if halted == "day" else halted
        last = curve[time]
        peak = max(peak, last)
        low, lost = last <= peak * (1 - fall), last <= opened * (1 - daily)
        if halted or low or lost:
            expected.add(time)
        halted = "fall" if low else halted or ("day" if lost else "")
    assert stopped == expected


@pytest.mark.parametrize("value", BAD)
def test_an_equity_that_is_no_number_halts(value):
    assert watched(account(equity=value))[0]


# ---- no switch


def test_one_bit_less_is_a_refusal():
    run = account().run.view(np.recarray)[0]
    verdict = guardian.refusal.py_func
    assert verdict(run, ALL_CHECKS, ALL_CHECKS) == -1
    for n in range(len(CHECKS)):
        for required in (ALL_CHECKS, 0):
            run.required = required
            assert verdict(run, ALL_CHECKS & ~(1 << n), ALL_CHECKS) == n
            assert verdict(run, ALL_CHECKS, ALL_CHECKS & ~(1 << n)) == n


def test_every_check_is_evaluated_whatever_the_order():
    for memory in (account(), Memory(1), hold(account(halted=1), 0, 5)):
        for signed in (1.0, -1.0, math.nan, math.inf, 0.0):
            assert decide(memory, 0, signed).evaluated == ALL_CHECKS


def test_a_record_without_limits_refuses_everything():
    memory = account()
    for field in guardian._ON_RUN.values():
        memory.run[field] = 0
    assert not decide(memory, 0, 1.0).accepted


WAY_ROUND = re.compile(
    r"bypass|(?<!in)(?<!in_)force|skip|dry_?risk|no_?risk|unchecked|(?<!url_)override", re.IGNORECASE
)


def test_no_symbol_on_the_way_of_an_order_promises_a_way_round(root: Path):
    for folder in ("engine", "portfolio", "strategies", "execution", "gates"):
        for module in (root / "quantbench" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
                for name in names:
                    assert not (isinstance(name, str) and WAY_ROUND.search(name)), (module, name)


# ---- limits


def test_the_limits_are_the_settings():
    chosen = Guardian()
    run = Memory(1).run
    Limits.of(chosen, 1e5).onto(run)
    assert run["max_order"] == float(chosen.max_order_ccy) and run["max_position"] == float(
        chosen.max_position_ccy
    )
    assert run["collar"] == run["market_move"] == chosen.price_collar_bps / 1e4
    assert run["max_messages"] == chosen.max_messages_per_minute_count and run["rate_window"] == 60 * SECOND
    assert (
        run["max_age"] == chosen.max_quote_age_seconds * SECOND
        and run["min_var_days"] == chosen.min_var_observations_count
    )
    assert run["max_symbol"] == chosen.max_symbol_fraction and run["required"] == ALL_CHECKS
    assert (
        run["credit"] == run["assumed_volume"] == 0 and run["max_losses"] == chosen.max_losses_in_a_row_count
    )


def test_tightened_never_loosens():
    for name in guardian._ON_RUN:
        value = getattr(WIDE, name)
        looser, tighter = (value / 2, value * 1.5) if name in guardian._AT_LEAST else (value * 1.5, value / 2)
        kind = type(value)
        if value and kind(looser) != value:
            with pytest.raises(QuantbenchError, match="QB-ENG-162"):
                WIDE.tightened(**{name: kind(looser)})
        if value:
            tight = WIDE.tightened(**{name: kind(tighter)})
            assert getattr(tight, name) == kind(tighter) and tight.hash != WIDE.hash
    with pytest.raises(QuantbenchError, match="max_order_ccy"):
        WIDE.tightened(max_order=1.0)


@pytest.mark.parametrize("value", [*BAD, 0.0, -1.0, 1e16])
def test_a_limit_must_limit(value):
    with pytest.raises(QuantbenchError):
        Limits.research(value)
    with pytest.raises(QuantbenchError):
        WIDE.tightened(max_gross_ratio=value)


def test_stops_counts_by_the_first_check_that_failed():
    memory = account()
    for signed in (math.nan, 0.0, 1e9, 1e9):
        decide(memory, 0, signed, enter=True)
    shown = {row[0]: row[1] for row in stops(memory).rows}
    assert shown == {"finite": "1", "quantity": "1", "notional": "2"} and GTC != NEVER


def test_an_asset_that_does_not_exist():
    for asset in (-1, 3):
        with pytest.raises(QuantbenchError, match="QB-ENG-163"):
            decide(account(), asset, 1.0)
