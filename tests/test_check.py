"""Refusals of what can hardly be shown, and bounds that nothing slips past."""

from decimal import Decimal

import pytest

from quantbench.core.check import QuantbenchError, display_value, refused, within


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("value", [Mute(), 10**5000, [10**5000]], ids=["mute", "long", "nested"])
def test_a_refusal_does_not_fail_on_what_it_refuses(value):
    """Python refuses to write out integers of more than 4300 digits."""
    assert "cannot be shown" in str(QuantbenchError("QB-TYPE-001", where="here", value=value))
    assert len(display_value(value)) < 60


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 10**5000, float("nan"), float("inf"), Decimal(1), "1", None, 1 + 0j],
    ids=lambda v: type(v).__name__,
)
def test_what_is_not_a_finite_number_is_within_nothing(value):
    with refused("QB-TYPE-001", show=False):
        within(value, -1, 1, code="QB-TYPE-001", where="here")
