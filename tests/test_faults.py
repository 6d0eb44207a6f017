"""The table of faults in `docs/faults.md` names a test for each; and those that had none."""

from __future__ import annotations

import ast
import re
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from orderdesk import NOON, Desk, Quick, fill

from quantbench.core.check import QuantbenchError
from quantbench.core.journal import read
from quantbench.core.types import OrderState

HERE = Path(__file__).parent
TABLE = HERE.parent / "docs" / "faults.md"
ROWS = {
    *map(str, range(1, 18)),
    *map(str, range(27, 62)),
    *(f"B{n}" for n in range(1, 8)),
    *(f"C{n}" for n in range(1, 10)),
}
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def rows() -> dict[str, str]:
    """Row: what injects it."""
    lines = [
        line.split("|") for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    return {cells[1].strip(): cells[3].strip() for cells in lines if cells[1].strip() != "row"}


def named_in(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_has_every_row_once() -> None:
    lines = re.findall(r"^\| (\w+) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for name in lines if name != "row") == sorted(ROWS)


@pytest.mark.parametrize("row", sorted(ROWS))
def test_a_row_names_a_test_that_is_there_or_says_why_not(row: str) -> None:
    said = rows()[row]
    named = NAMED.findall(said)
    assert named or said.startswith("not done: ")
    for file, name in named:
        assert name in named_in(file), f"{file}::{name}"
    rest = re.sub(r"[,; ]", "", NAMED.sub("", said.partition("not done: ")[0]))
    assert not rest, f"not the name of a test: {rest}"


def test_the_promises_of_the_order_path_are_tried_where_it_is_said() -> None:
    text = (HERE.parent / "nbs" / "learn" / "order_path.ipynb").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:benchmarks/)?\w+\.py)`", text))
    assert len(named) >= 10
    assert all((HERE.parent / n if "/" in n else HERE / n).is_file() for n in named), named


# ---- row 5


class Gone(BaseException):
    """The process."""


@pytest.mark.parametrize("question", [1, 2, 3])
def test_killed_at_each_question_of_a_start(tmp_path: Path, question: int) -> None:
    """What is open, what became of an order, which fills since: three times in a row; then the start comes to what it would have come to at once."""
    desk = Desk(tmp_path)
    first, whole = desk.buy(10).client_id, desk.buy(5).client_id
    desk.broker.script.append("ack_lost")
    lost = desk.buy(20).client_id
    desk.truth.fill(first, Decimal(4), Decimal("180.00"))
    desk.truth.fill(whole, Decimal(5), Decimal("180.00"))
    desk.truth.told.clear()  # nobody heard of them
    asked, ask, deaths = [0], desk.broker._query, [0]

    def dies() -> None:
        asked[0] += 1
        if asked[0] == question and deaths[0] < 3:
            deaths[0] += 1
            raise Gone
        ask()

    desk.broker._query = dies  # type: ignore[method-assign]
    for _ in range(3):
        asked[0] = 0
        with pytest.raises(Gone):
            desk.restart()
    asked[0] = 0
    desk.restart()
    assert asked[0] == 3 and desk.oms.ready
    desk.agree()
    assert desk.oms.orders[first].filled == 4 and desk.oms.orders[lost].state is OrderState.SUBMITTED
    booked = [
        record.payload["execution"] for record in read(desk.journal.path) if record.kind == "order.fill"
    ]
    assert sorted(booked) == sorted(desk.truth.executions) and len(desk.submits()) == 3


# ---- row 14


class Slow(Quick):
    """A disk that takes its time, as long as the test wants."""

    def __init__(self) -> None:
        self.slow, self.waits, self.go = False, threading.Event(), threading.Event()

    def sync(self, file: int) -> None:
        super().sync(file)
        if self.slow:
            self.waits.set()
            assert self.go.wait(60)


def test_a_kill_does_not_wait_for_a_slow_disk(tmp_path: Path) -> None:
    """An order whose record is on its way to the disk when somebody kills does not leave."""
    disk = Slow()
    desk = Desk(tmp_path, disk=disk)
    disk.slow, placed, killed = True, list[Any](), list[Any]()
    sender = threading.Thread(target=lambda: placed.append(desk.buy(10)))
    sender.start()
    assert disk.waits.wait(60)
    killer = threading.Thread(target=lambda: killed.append(desk.oms.kill("a bad day")))
    killer.start()
    while desk.oms._stopping is None:  # said before it waits for the order book
        killer.join(0.01)
    disk.slow = False
    disk.go.set()
    sender.join(60)
    killer.join(60)
    assert placed[0].code == "QB-OMS-007" and not desk.submits() and killed[0].quiet


# ---- rows B3, B6, B7


@pytest.mark.parametrize("price", ["0", "-1", "17.99", "1800.01", "180.01"])
def test_a_price_that_cannot_be_is_booked_and_stops_new_orders(tmp_path: Path, price: str) -> None:
    """The last one is worse than the limit."""
    desk = Desk(tmp_path)
    name = desk.buy(10, limit="180.00").client_id
    desk.oms.take(fill(name, 10, price, "e1", 10))
    assert desk.oms.positions == {"AAPL": 10} and desk.oms.halted.startswith("QB-OMS-015")
    assert desk.buy(1).code == "QB-OMS-006"


@pytest.mark.parametrize(
    "off", [timedelta(minutes=6), timedelta(days=-2)], ids=["of the future", "of last week"]
)
def test_a_fill_out_of_its_time_or_without_a_name_is_looked_at(tmp_path: Path, off: timedelta) -> None:
    desk = Desk(tmp_path)
    name = desk.buy(10).client_id
    told = fill(name, 4, "180.00", "e1")
    changes = desk.oms.take(
        type(told)(**{n: getattr(told, n) for n in told.__dataclass_fields__} | {"time": NOON + off})
    )
    assert changes[-1].code == "QB-OMS-017" and desk.oms.positions == {"AAPL": 4}
    nameless = fill(name, 4, "180.00", None)  # type: ignore[arg-type]
    desk.oms.take(nameless)
    assert desk.oms.positions == {"AAPL": 4} and desk.oms.halted.startswith("QB-OMS-017")


@pytest.mark.parametrize("quantity", ["0.5", "1.000000000000000001"])
def test_a_quantity_beside_the_grid_is_not_booked(tmp_path: Path, quantity: str) -> None:
    desk = Desk(tmp_path)
    told = fill(desk.buy(10).client_id, 1, "180.00", "e1")
    fields = {n: getattr(told, n) for n in told.__dataclass_fields__}
    desk.oms.take(type(told)(**fields | {"quantity": Decimal(quantity)}))
    assert not desk.oms.positions and desk.oms.halted.startswith("QB-OMS-018")


def test_a_price_of_many_places_is_exact(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    name = desk.buy(3).client_id
    price = "179.123456789012345678"
    change = desk.oms.take(fill(name, 3, price, "e1", 3))[-1]
    assert change.fill.price == Decimal(price) and desk.oms.cash["USD"] == Decimal("-537.37")
    for more in (f"{price}90", "1E-30"):  # no report can have them
        with pytest.raises(QuantbenchError, match="QB-TYPE-001"):
            fill(name, 3, more, "e2", 3)
