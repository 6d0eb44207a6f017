"""The suite passes an adapter that is right, and fails it for each of its cases when that one thing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.types import OrderState, Side
from quantbench.execution.alpaca import AlpacaBroker
from quantbench.execution.broker import BrokerOrder, Can, Outcome, Told
from quantbench.execution.conformance import CASES, asset, conform
from venues.alpaca import SECRET
from venues.stages import AlpacaStage, alpaca

A, R, U = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN


def broken(**methods: Any) -> type[AlpacaBroker]:
    return type("Broken", (AlpacaBroker,), methods)


def answers(name: str, was: Outcome, becomes: Outcome) -> type[AlpacaBroker]:
    """One outcome of one method taken for another."""

    def method(self, *given):
        answer = getattr(AlpacaBroker, name)(self, *given)
        return replace(answer, outcome=becomes) if answer.outcome is was else answer

    return broken(**{name: method})


def tells(change: Callable[[Any], Any]) -> type[AlpacaBroker]:
    """Each report changed, or left out when the change is None."""

    def reports(self):
        return tuple(r for r in map(change, AlpacaBroker.reports(self)) if r is not None)

    return broken(reports=reports)


def deaf(told: Told) -> type[AlpacaBroker]:
    return tells(lambda r: None if r.told is told else r)


def fill(**how: Any) -> type[AlpacaBroker]:
    """Fields of a fill changed by functions of it."""
    return tells(lambda r: replace(r, **{k: f(r) for k, f in how.items()}) if r.told is Told.FILL else r)


def built(after: Callable[[Any], None]) -> type[AlpacaBroker]:
    def init(self, *given, **named):
        AlpacaBroker.__init__(self, *given, **named)
        after(self)

    return broken(__init__=init)


def done(name: str) -> type[AlpacaBroker]:
    """Says that it is done, and does nothing."""
    return broken(**{name: lambda self, *given: self._answer(A, given[0] if given else "all", "", "x")})


def rounded(self, intent):
    order = replace(intent.order, quantity=round(intent.order.quantity, 1))
    return AlpacaBroker._submit(self, replace(intent, order=order))


def impatient(self, *given, **named):
    self._until = 0.0
    return AlpacaBroker._call(self, *given, **named)


def offended(self, *given, **named):
    reply = AlpacaBroker._call(self, *given, **named)
    self._until = 1e9 if self._until else 0.0
    return reply


def no_second_thought(self, _, client_id):
    return self._answer(A, client_id, "", "x")


def over(self, client_id):
    found = AlpacaBroker.find_order(self, client_id)
    return replace(found, state=OrderState.CANCELLED) if found and found.word == "pending_cancel" else found


def invented(_, client_id):
    facts = {"client_id": client_id, "broker_id": "x", "symbol": "X", "word": "new", "state": None}
    return BrokerOrder(side=Side.BUY, quantity=Decimal(1), filled=Decimal(0), **facts)


def nothing_held(self):
    try:
        return AlpacaBroker.positions(self)
    except QuantbenchError:
        return ()


def remembered(self):
    self.memory = getattr(self, "memory", None) or AlpacaBroker.get_account(self)
    return self.memory


def for_ever(self):
    self.memory = getattr(self, "memory", ()) + AlpacaBroker.reports(self)
    return self.memory


def chatty(self, intent):
    return replace(AlpacaBroker._submit(self, intent), reason=f"refused for {SECRET}")


def closes_all(self):
    self.cancel_all()
    AlpacaBroker.close(self)


def positions(change: Callable[[Decimal], Decimal]) -> type[AlpacaBroker]:
    def changed(self):
        return tuple(replace(p, quantity=change(p.quantity)) for p in AlpacaBroker.positions(self))

    return broken(positions=changed)


def swept(broker: Any) -> None:
    broker._line._sweep = 1e9


def blind(broker: Any) -> None:
    swept(broker)
    heard = broker._talk.hear
    broker._talk.hear = lambda frame: heard(frame) or True


READY = broken(ready=property(lambda _: True))
DEFECTS: dict[int, type[AlpacaBroker]] = {
    1: broken(submit_order=lambda self, order: self._submit(order.intent)),
    2: broken(_submit=lambda self, intent: replace(AlpacaBroker._submit(self, intent), broker_id=None)),
    3: broken(_submit=rounded),
    4: answers("_submit", R, U),
    **{n: answers("_submit", U, R) for n in range(5, 14)},
    14: answers("_earlier", A, R),
    15: broken(_earlier=no_second_thought),
    16: broken(_call=impatient),
    17: broken(_call=offended),
    18: deaf(Told.ACCEPTED),
    19: fill(price=lambda r: round(r.price, 1)),
    20: fill(execution=lambda r: f"{r.execution}-{id(r)}", quantity=lambda r: 2 * r.quantity),
    21: fill(filled=lambda _: None),
    22: broken(reports=lambda self: AlpacaBroker.reports(self)[:1]),
    23: fill(quantity=lambda r: r.quantity + 1),
    24: deaf(Told.FILL),
    25: deaf(Told.BUST),
    26: deaf(Told.CORRECTED),
    27: deaf(Told.REJECTED),
    28: deaf(Told.EXPIRED),
    29: broken(find_order=over),
    30: tells(lambda r: replace(r, told=Told.REJECTED) if r.told is Told.STRANGE else r),
    31: built(lambda b: setattr(b._talk, "fills", lambda _: iter(()))),
    32: READY,
    33: built(lambda b: setattr(b._line, "_pulse", 1e6)),
    34: READY,
    35: built(swept),
    36: built(lambda b: setattr(b._line._redial, "delay", lambda _: 0.0)),
    37: broken(_submit=chatty),
    38: broken(reports=for_ever),
    39: deaf(Told.STRANGE),
    40: deaf(Told.FILL),
    41: built(blind),
    42: fill(quantity=lambda r: round(r.quantity, 2)),
    43: tells(lambda r: replace(r, told=Told.FILL, quantity=Decimal("1.1")) if r.told is Told.STRANGE else r),
    44: fill(symbol=lambda _: asset.id),
    45: fill(execution=lambda r: r.execution or "made-up"),
    46: fill(time=lambda r: r.time - timedelta(hours=5)),
    47: broken(find_order=invented),
    48: broken(open_orders=lambda self: AlpacaBroker.open_orders(self)[:500]),
    49: broken(open_orders=lambda self: tuple(o for o in AlpacaBroker.open_orders(self) if o.client_id)),
    50: positions(abs),
    51: broken(get_account=remembered),
    52: broken(fills_since=lambda self, t: AlpacaBroker.fills_since(self, t)[:100]),
    53: broken(fills_since=lambda self, t: tuple(r for r in AlpacaBroker.fills_since(self, t) if r.time > t)),
    54: broken(positions=nothing_held),
    55: broken(time=lambda self: self._clock.now()),
    56: positions(partial(min, Decimal(10))),
    57: done("cancel_order"),
    58: answers("cancel_order", U, A),
    59: answers("cancel_order", R, A),
    60: answers("cancel_order", U, A),
    61: done("cancel_all"),
    62: answers("cancel_all", U, A),
    63: deaf(Told.REPLACED),
    64: done("cancel_order"),
    65: answers("_amend", U, R),
    66: broken(can=AlpacaBroker.can & ~Can.AMEND, _need=lambda *_: None),
    67: broken(__repr__=lambda self: f"Broken({self._keys.secret})"),
    68: broken(close=closes_all),
}


def test_alpaca_conforms():
    result = conform(alpaca)
    assert not result.failed, result
    assert {one.result for one in result.results} == {"passed"} and len(result.results) == 68
    result.require()


def test_every_case_has_its_defect():
    assert sorted(DEFECTS) == [case.number for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.number))
def test_the_suite_fails_an_adapter_with_this_defect(case, monkeypatch):
    monkeypatch.setattr(AlpacaStage, "patience", 700)
    result = conform(partial(alpaca, DEFECTS[case.number]), [case])
    (row,) = result.results
    assert row.result == "failed", row
    slips = ("AttributeError", "NameError", "AssertionError", "ImportError")
    assert not row.evidence.startswith(slips), f"the defect is not the one meant: {row.evidence}"
    with pytest.raises(QuantbenchError, match="QB-BRK-015"):
        result.require()


def test_what_an_adapter_cannot_do_is_not_applicable_and_never_passed():
    less = broken(can=Can(0))
    case = next(c for c in CASES if c.number == 19)
    (row,) = conform(partial(alpaca, less), [case]).results
    assert (row.result, row.evidence) == ("not applicable", "STREAM")
