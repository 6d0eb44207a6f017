"""Splits, dividends and delistings with orders open over them: the same bytes through journal, order book and venue as in the backtest, and every book in the same units."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import guards
import numpy as np
import pytest
from lived import MINUTE, SECOND, START, Anything, Paper, companies, happening, lived, minutes, simulated
from orderdesk import NOON, SHARE, Desk, fill

from quantbench.core.clock import SimClock
from quantbench.core.config import load
from quantbench.core.journal import read
from quantbench.core.types import Order, OrderState, OrderType, Side
from quantbench.core.value import Currency
from quantbench.engine.backtest import Latency, Session
from quantbench.engine.events import KIND_RATE, KIND_SPLIT, merged
from quantbench.engine.ledger import on_grid, toward_zero
from quantbench.engine.strategy import Strategy
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import state
from quantbench.execution.book import Book, _on_grid, in_units
from quantbench.execution.broker import Action, Arrival, BrokerOrder, Deed, Intent, Report, Told
from quantbench.execution.faulty import CALM, Faults, Truth
from quantbench.execution.floor import Floor
from quantbench.execution.live import Live
from quantbench.execution.paper import acts, alone, moment
from quantbench.execution.session import starts

LATE = Latency(order_seconds=0.3, cancel_seconds=1.7, fill_seconds=2.4)
LONG = Latency(order_seconds=47.0, cancel_seconds=69.0, fill_seconds=130.0)
DELAYS = {"at once": Latency(), "late": LATE, "long": LONG}


def agree(paper: Any, inside: Any) -> None:
    """Run, order book and venue: fills, positions, cash, and each open order with its terms."""
    for name in ("fills", "transitions", "flows", "curve"):
        ours, theirs = (session.memory.used(name) for session in (paper.session, inside))
        assert ours.tobytes() == theirs.tobytes(), name
    assert paper.session.memory.cash.tobytes() == inside.memory.cash.tobytes()
    oms, broker = paper.oms, paper.broker
    assert oms.halted is None and not oms.quarantine
    assert dict(oms.positions) == {p.symbol: p.quantity for p in broker.positions()}
    lots = inside.memory.assets["lots"] + inside.memory.assets["pending"]
    assert [int(oms.positions.get(asset.id, 0)) for asset in paper.tape.assets] == lots.tolist()
    moved = float(broker.memory.cash[0]) - 100_000.0
    assert float(oms.cash.get("USD", 0)) == pytest.approx(moved, abs=0.01 * (1 + len(paper.oms.orders)))
    shown = {order.client_id: order for order in broker.open_orders()}
    clear = {entry.intent.client_id: entry for entry in oms.open_orders if entry.trouble is None}
    assert set(clear) <= set(shown) <= {entry.intent.client_id for entry in oms.open_orders}
    for name, entry in clear.items():
        order, there = entry.intent.order, shown[name]
        assert (order.quantity, entry.filled) == (there.quantity, there.filled)
        assert (order.limit_price, order.stop_price) == (there.limit, there.stop)


@pytest.mark.parametrize("latency", DELAYS)
@pytest.mark.parametrize("seed", range(4))
def test_orders_open_over_a_split_are_on_paper_what_they_were_in_the_backtest(seed, latency):
    tape, strategy = companies(seed=seed), Anything(seed=seed, often=2)
    inside = simulated(strategy, tape, latency=DELAYS[latency])
    paper = lived(strategy, tape, cuts=range(97, 3000, 97), latency=DELAYS[latency])
    agree(paper, inside)
    assert len(inside.memory.used("fills")) > 50


class Chases(Strategy):
    """Buys once, and rests an order at the news of it."""

    def on_bar(self, bar: Any, market: Any) -> None:
        if market.position(bar.asset) == 0.0 and market.open_orders(bar.asset) == 0:
            market.buy(bar.asset, 40.0)

    def on_fill(self, fill: Any, market: Any) -> None:
        market.submit(fill.asset, 10.0, kind="limit", limit=market.price(fill.asset) * 0.95, tif="gtc")


def one_split(ratio: float, *, at: int = 3) -> Tape:
    tape = minutes(12, 1)
    events = tape.events.copy()
    later = events["known"] > START + at * MINUTE + SECOND
    for field in ("open", "high", "low", "close"):
        events[field][later] = np.round(events[field][later] / ratio, 2)
    return Tape.from_events(
        merged([events, happening(KIND_SPLIT, at, ratio=ratio)]), tape.assets, interval="1m"
    )


def test_what_is_ordered_at_news_that_a_split_hastens_is_in_new_units():
    """The news of the fill is under way when the shares are split: it is heard first, and what is ordered then is not split again."""
    slow = {"latency": Latency(fill_seconds=3600.0)}
    paper = lived(Chases(), one_split(4.0), **slow)
    agree(paper, simulated(Chases(), one_split(4.0), **slow))
    (resting,) = paper.oms.open_orders
    assert resting.intent.order.quantity == 10 and paper.oms.positions["A0"] == 160


class AmendsTwice(Strategy):
    seen: int = state(0)
    order: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen += 1
        if self.seen == 1:
            self.order = market.buy(bar.asset, 10.0, limit=60.0, tif="gtc")
        elif self.seen == 2:
            market.amend(self.order, quantity=20.0, limit=61.0)
        elif self.seen == 5:
            market.amend(self.order, quantity=999.0, limit=16.0)


def test_an_amendment_that_is_refused_after_a_split_leaves_the_one_under_way_in_new_units(tmp_path):
    paper = Paper(AmendsTwice(), one_split(4.0), tmp_path, latency=Latency(cancel_seconds=400.0))
    for k in range(len(paper.tape.events)):
        paper.guardian.refuses = k > 4
        paper.feed(paper.tape.events[k : k + 1])
    order, there = paper.session.memory.orders[0], paper.broker.open_orders()[0]
    assert (int(order["lots"]), round(float(order["limit"]), 9)) == (80, 15.25)
    assert (there.quantity, there.limit) == (80, Decimal("15.25"))
    paper.journal.close()


# ---- the books, when a broker is slower, rounds otherwise, or tells late --------------------------------------------


def split_of(ratio: str, hours: float = 0.0, price: str | None = "45") -> Action:
    time = NOON + timedelta(hours=hours)
    money = None if price is None else Decimal(price)
    return Action(deed=Deed.SPLIT, symbol="AAPL", amount=Decimal(ratio), time=time, price=money)


def shown(book: Book, name: str, quantity: str, filled: str, limit: str, state: OrderState) -> None:
    order = BrokerOrder(
        client_id=name, broker_id="b", symbol="AAPL", side=Side.BUY, quantity=Decimal(quantity), filled=Decimal(filled), state=state,
        word=state.value, limit=Decimal(limit),
    )  # fmt: skip
    book.shown(book.lines[name], order, NOON, settled=False)


def opened(quantity: int = 100, limit: str = "180.01", filled: int = 30) -> Book:
    """A book with an order to buy, partly filled at its limit."""
    book = Book("desk")
    order = Order(
        id=book.mint(), asset=SHARE, side=Side.BUY, quantity=Decimal(quantity), time=NOON - timedelta(hours=2), type=OrderType.LIMIT,
        limit_price=Decimal(limit),
    )  # fmt: skip
    book.enter(Intent(order=order, arrival=Arrival(time=NOON, last=180.0)), NOON)
    book.emit("order.ruling", NOON, id=order.id, accepted=True, code=None, hash="0" * 64, checks={})
    if filled:
        book.hear(told(filled, limit, "e1", filled, -1.0), NOON)
    return book


def told(quantity: int, price: str, name: str, total: int | None, hours: float) -> Report:
    time = NOON + timedelta(hours=hours)
    return replace(fill("desk-1", quantity, price, name, total), time=time, heard=max(time, NOON))


def again(book: Book) -> Book:
    """The same records, read by another book."""
    other = Book("desk")
    for kind, payload in book.items:
        other.apply(kind, payload)
    for name, line in book.lines.items():
        assert other.lines[name].view() == line.view()
    assert (other.positions, other.cash, other.halted) == (book.positions, book.cash, book.halted)
    return other


@pytest.mark.parametrize(
    ("ratio", "quantity", "filled", "limit", "position", "paid"),
    [
        ("4", "400", "120", "45.00", "120", "0"),
        ("1.5", "150", "45", "120.00", "45", "0"),
        ("0.1", "10", "3", "1800.10", "3", "0"),
        ("0.25", "24", "7", "720.04", "7", "22.50"),  # 7.5 shares: half a share is paid out at 45
        ("0.3333333333333333", "33", "10", "540.03", "10", "0"),
    ],
)
def test_a_split_restates_position_cash_and_what_is_open(ratio, quantity, filled, limit, position, paid):
    book = opened()
    before = book.cash["USD"]
    book.act(split_of(ratio), NOON)
    line = again(book).lines["desk-1"].view()
    order = line.intent.order
    assert (order.quantity, line.filled, order.limit_price) == tuple(map(Decimal, (quantity, filled, limit)))
    assert book.positions["AAPL"] == Decimal(position) and book.cash["USD"] - before == Decimal(paid)
    written = len(book.items)
    book.act(split_of(ratio), NOON)  # told again
    assert len(book.items) == written


def test_what_a_split_makes_of_lots_and_prices_is_what_the_engine_makes_of_them():
    rng = np.random.default_rng(7)
    for _ in range(3000):
        ratio = float(rng.choice([4.0, 1.5, 0.1, 0.05, 1 / 3, 2 / 3, 7.0, 0.2]))
        lots, price, up = (
            int(rng.integers(-999, 999)),
            round(float(rng.uniform(0.5, 900)), 2),
            rng.random() < 0.5,
        )
        assert in_units(SHARE, Decimal(lots), ratio) == toward_zero.py_func(lots * ratio)
        ours = Decimal(_on_grid(SHARE, str(price), ratio, up=bool(up)))
        assert ours == SHARE.round_price(max(on_grid.py_func(price / ratio, 0.01, up), 0.01), "nearest")


def test_a_fill_from_before_the_split_that_is_told_after_it_is_booked_in_new_units():
    late = told(20, "180.00", "e2", 50, -0.5)
    one, other = opened(), opened()
    one.act(split_of("4"), NOON)
    one.hear(late, NOON)
    one.hear(late, NOON)
    other.hear(late, NOON)
    other.act(split_of("4"), NOON)
    for book in (one, other):
        assert book.lines["desk-1"].filled == book.positions["AAPL"] == 200
        assert book.lines["desk-1"].trouble is None and book.halted is None
    assert again(one).cash == other.cash
    back = [change.fill for change in one.changes if change.fill is not None][-1]
    assert (back.quantity, back.price) == (80, 45)


def test_fills_that_come_to_no_whole_shares_are_kept_and_stop_the_book():
    book = opened(filled=0)
    book.act(split_of("0.1"), NOON)
    book.hear(told(7, "180.00", "e2", None, -0.5), NOON)
    assert book.halted.startswith("QB-OMS-026") and not book.positions and len(book.quarantine) == 1


def test_stretches_of_one_order_add_up_over_a_split():
    book = opened(filled=0)
    book.act(split_of("0.1"), NOON)
    for quantity, total in ((13, 13), (14, 27), (14, 41)):  # 1.3, 1.4 and 1.4 of the new ones: 4.1 in all
        book.hear(told(quantity, "180.00", f"e{total}", total, -0.5), NOON)
    assert book.positions["AAPL"] == book.lines["desk-1"].filled == 4 and book.halted is None


def test_what_a_broker_has_not_restated_yet_is_no_break():
    book = opened()
    book.act(split_of("4"), NOON)
    shown(book, "desk-1", "100", "30", "180.01", OrderState.PARTIAL)
    line = book.lines["desk-1"]
    assert (line.quantity, line.filled, line.trouble, book.halted) == (400, 120, None, None)


def test_a_broker_that_rounds_otherwise_is_believed_and_its_fills_are_no_overfill():
    book = opened(quantity=99)
    book.act(split_of("1.5"), NOON)
    assert book.lines["desk-1"].quantity == 45 + 103
    book.hear(told(104, "120.00", "e2", 149, 1.0), NOON)  # one more than we made of it
    line = book.lines["desk-1"]
    assert line.trouble and line.filled == 45 and book.halted is None
    for _ in range(2):  # it is asked until it agrees
        shown(book, "desk-1", "149", "149", "120.00", OrderState.FILLED)
    assert line.filled == book.positions["AAPL"] == 149 and line.state is OrderState.FILLED
    assert line.trouble is None and book.halted is None and not book.quarantine
    again(book)


def test_more_than_any_split_explains_stays_an_overfill():
    book = opened()
    book.act(split_of("4"), NOON)
    shown(book, "desk-1", "400", "120", "45.00", OrderState.PARTIAL)
    book.hear(told(281, "45.00", "e2", 401, 1.0), NOON)
    shown(book, "desk-1", "400", "401", "45.00", OrderState.FILLED)
    assert book.halted.startswith("QB-OMS-014") and book.positions["AAPL"] == 120


def test_an_order_that_ended_at_the_broker_before_the_split_ends_here_in_new_units():
    book = opened()
    book.act(split_of("4"), NOON)
    end = Report(
        told=Told.CANCELLED,
        client_id="desk-1",
        time=NOON - timedelta(hours=1),
        heard=NOON,
        filled=Decimal(30),
    )
    book.hear(end, NOON)
    line = book.lines["desk-1"]
    assert line.state is OrderState.CANCELLED and line.filled == 120 and line.trouble is None


def test_a_bust_after_the_split_takes_back_what_its_fill_has_become():
    book = opened()
    book.act(split_of("4"), NOON)
    book.hear(Report(told=Told.BUST, client_id="desk-1", time=NOON, heard=NOON, execution="e1"), NOON)
    assert book.positions["AAPL"] == 0 and book.cash["USD"] == 0
    assert [c.fill.quantity for c in book.changes if c.fill][-1] == 120


def test_a_late_fill_of_an_order_that_ended_before_the_split_counts_in_new_units():
    book = opened()
    book.hear(replace(told(0, "1", "x", 30, -0.9), told=Told.CANCELLED, execution=None), NOON)
    book.act(split_of("4"), NOON)
    book.hear(told(5, "180.00", "e9", 35, -0.95), NOON)
    assert book.lines["desk-1"].filled == 35 and book.positions["AAPL"] == 140
    book.hear(told(5, "180.00", "e10", 40, 1.0), NOON)  # nobody knows in which
    assert book.halted.startswith("QB-OMS-026") and book.positions["AAPL"] == 140


def test_nothing_is_left_of_an_order_until_the_broker_says_what_became_of_it():
    book = opened(quantity=5, filled=0)
    book.hear(Report(told=Told.ACCEPTED, client_id="desk-1", time=NOON, heard=NOON, broker_id="b"), NOON)
    book.act(split_of("0.1"), NOON)
    line = book.lines["desk-1"]
    assert line.leaves == 0 and line.trouble == "a split leaves nothing of it"
    book.hear(Report(told=Told.CANCELLED, client_id="desk-1", time=NOON, heard=NOON), NOON)
    assert line.state is OrderState.CANCELLED and line.trouble is None
    again(book)


def test_dividends_and_payouts_are_in_the_cash():
    book = opened()
    before = book.cash["USD"]
    paid = Action(deed=Deed.DIVIDEND, symbol="AAPL", amount=Decimal("0.255"), time=NOON)
    book.act(paid, NOON)
    assert book.cash["USD"] - before == Decimal("7.65")
    book.act(Action(deed=Deed.DELISTING, symbol="AAPL", amount=Decimal("12"), time=NOON), NOON)
    assert book.cash["USD"] - before == Decimal("367.65") and not book.positions.get("AAPL")
    again(book)


@pytest.mark.parametrize("after", [False, True])
def test_a_split_is_applied_once_whenever_the_process_dies(tmp_path, after):
    desk = Desk(tmp_path)
    placed = desk.buy(100)
    desk.truth.fill(placed.client_id, Decimal(30), Decimal("180.00"))
    desk.oms.pump()
    held = desk.oms.positions["AAPL"]

    def dies(*_: Any) -> None:
        raise SystemExit

    if after:  # the record is on the disk, and Guardian was not told
        desk.guardian.acted = dies
    else:
        desk.oms._journal = SimpleNamespace(extend=dies, path=desk.journal.path)
    with pytest.raises(SystemExit):
        desk.oms.act(split_of("4"))
    for _ in range(2):
        desk.restart()
        desk.oms.act(split_of("4"))
        desk.oms.act(split_of("4"))
        assert desk.oms.positions["AAPL"] == 4 * held and desk.oms.halted is None
        assert desk.oms.orders[placed.client_id].intent.order.quantity == 400
    assert sum(r.kind == "order.action" for r in read(desk.journal.path)) == 1
    assert desk.oms.actions == (split_of("4"),)
    assert len(desk.guardian.actions) == 0  # what it is told after a start is in new units already


# ---- the account's Guardian ----------------------------------------------------------------------------------------


def test_guardian_is_told_of_marks_positions_and_open_orders(tmp_path):
    desk = guards.Desk(tmp_path)
    desk.guardian.booked(desk.fill(desk.sure(30, limit=None).order))
    resting = desk.sure(40, limit="99.01")
    book, before = desk.guardian.book, float(desk.guardian.book.run["equity"][0])
    desk.guardian.acted(split_of("4", price=None))
    opened = book.orders[resting.client_id]
    assert (book.lots("AAPL"), opened.lots, opened.left) == (120, 160, 160)
    assert book.rows["last"][0] == 25.0 and book.rows["open_buy"][0] == 160
    assert float(book.run["equity"][0]) == before and desk.guardian.held["drift", 0] == 120
    assert desk.guardian.judge(desk.intent(10, limit="24.90")).accepted
    assert desk.guardian.judge(desk.intent(10, limit="99.00")).code is not None  # a price from before it
    assert book.lots("MSFT") == 0 and book.rows["last"][1] == 100.0


def test_guardian_pays_dividends_and_trades_nothing_that_is_delisted(tmp_path):
    desk = guards.Desk(tmp_path)
    desk.hold(30)
    book, cash = desk.guardian.book, float(desk.guardian.book.memory.cash[0])
    desk.guardian.acted(Action(deed=Deed.DIVIDEND, symbol="AAPL", amount=Decimal("0.5"), time=NOON))
    assert float(book.memory.cash[0]) == cash + 15.0 and book.rows["last"][0] == 99.5
    desk.guardian.acted(Action(deed=Deed.DELISTING, symbol="AAPL", amount=Decimal(90), time=NOON))
    assert float(book.memory.cash[0]) == cash + 15.0 + 2700.0 and book.lots("AAPL") == 0
    assert not desk.guardian.judge(desk.intent(10, limit="89.00")).accepted


# ---- a broker that is somewhere else -------------------------------------------------------------------------------


def elsewhere(
    strategy: Strategy, tape: Tape, pieces: int, folder: Path, *, first: bool = True, **choices: Any
) -> tuple[Paper, Session]:
    """The venue sees prices first, or last, and lives by the clock; the run hears of it through the order book alone."""
    paper = Paper(strategy, tape, folder, wall=True, **choices)
    live = Live(Session(strategy, tape, venue="external"), paper.oms, paper.clock)
    for piece in np.array_split(tape.events, pieces):
        for events in alone(np.ascontiguousarray(piece)):
            paper.clock.set(max(paper.clock.now(), moment(int(events["known"][-1]))))
            ways = [paper.broker.feed, live.feed]
            for feed in ways if first or acts(events) else reversed(ways):
                feed(events)
    for _ in range(3):
        paper.clock.advance(2.0)
        live.listen()
    assert paper.oms.halted is None and not paper.oms.quarantine
    there = {p.symbol: p.quantity for p in paper.broker.positions()}
    assert dict(paper.oms.positions) == there
    rows = live.session.memory.assets
    held = {a.id: int(rows["lots"][k] + rows["pending"][k]) for k, a in enumerate(tape.assets)}
    assert {symbol: lots for symbol, lots in held.items() if lots} == there
    paper.journal.close()
    return paper, live.session


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_run_order_book_and_a_broker_elsewhere_agree_after_splits(seed, first, tmp_path):
    strategy = Anything(seed=seed, often=3)
    _, session = elsewhere(strategy, companies(seed=seed), 150, tmp_path, first=first, latency=LATE)
    assert len(session.memory.used("fills")) > 20


def test_what_was_told_just_before_a_split_is_entered_in_the_old_units(tmp_path):
    """Filled on the bar before it: the report lies in the inbox when the split comes."""
    tape = one_split(4.0, at=2)
    paper, session = elsewhere(Chases(), tape, len(tape.events), tmp_path, first=False)
    assert session.memory.used("fills")["lots"][0] == 40 and paper.oms.positions["A0"] >= 160


# ---- a whole session, with the account's Guardian ------------------------------------------------------------------


class Rests(Strategy):
    """Small orders that rest on both sides, and changes of them."""

    seen: int = state(0)
    newest: int = state(0)

    def on_bar(self, bar: Any, market: Any) -> None:
        self.seen += 1
        if self.seen % 7 == 0:
            side = 1.0 if market.position(bar.asset) < 3.0 else -1.0
            near = bar.close * (1.0 - side * 0.001)
            self.newest = market.submit(bar.asset, 4.0 * side, kind="limit", limit=near, tif="gtc")
        elif self.seen % 7 == 4:
            market.amend(self.newest, quantity=6.0)
        elif self.seen % 70 == 5:
            market.cancel_all(bar.asset)


def abroad(tape: Tape) -> Tape:
    """The second asset is quoted in euros, whose rate is told before the first bar and now and then."""
    euro = replace(tape.assets[1], currency=Currency("EUR"))
    told = [happening(KIND_RATE, minute, 1, price=1.1 + 0.001 * minute) for minute in (0, 90, 250)]
    return Tape.from_events(
        merged([tape.events, *told]), (tape.assets[0], euro, tape.assets[2]), interval="1m"
    )


def begun(folder: Path, tape: Tape) -> tuple[Study, Any, Any]:
    """A session of `Rests` with its account."""
    study, wall = Study(Rests(), tape), SimClock(tape.span[0])
    begin = starts(settings=load(), wall=wall, admit=lambda *_: (study, "", "paper"))
    return study, *begin(Floor(folder, clock=wall, begin=begin), strategy="Rests")


def test_guardian_knows_the_last_price_whatever_a_batch_has_in_it(tmp_path):
    """A split in the middle of a batch divides the marks from before it, not those from after."""
    tape = companies(seed=2)
    _, account, paper = begun(tmp_path, tape)
    paper._drive.feed(tape.events)
    ours, theirs = account.guardian.book.rows["last"], paper._drive.session.memory.assets["last"]
    assert ours.tolist() == theirs.tolist()
    account.journal.close()


@pytest.mark.parametrize("foreign", [False, True])
def test_a_session_with_guardian_is_the_backtest_over_splits_dividends_and_rates(foreign, tmp_path):
    tape = companies(seed=2)
    study, account, paper = begun(tmp_path, abroad(tape) if foreign else tape)
    while not paper.done:
        paper.step()
    refused = [e.history[-1].why for e in account.oms.orders.values() if e.state is OrderState.REJECTED]
    assert not refused and account.oms.halted is None
    status, backtested = paper.status(), study.run()
    assert len(backtested.fills) > 30 and status["result"] == backtested.hash and status["reconciled"]
    book = account.guardian.book
    lots = {asset.id: book.lots(asset.id) for asset in study.tape.assets}
    assert lots == {s: int(account.oms.positions.get(s, 0)) for s in lots}
    assert account.guardian.book.memory.cash[0] == pytest.approx(paper._drive.session.memory.cash[0], abs=1.0)
    account.journal.close()


# ---- a broker that loses, repeats and delays what it tells, over a split --------------------------------------------


class Shares(Truth):
    """A venue whose shares are split: of orders that are open, and of what was executed."""

    def __init__(self, clock: SimClock) -> None:
        super().__init__(clock)
        self.units: dict[str, int] = {}

    def split(self, ratio: int) -> None:
        for name in self.executions:
            self.units[name] = self.units.get(name, 1) * ratio
        for held in self.orders.values():
            if not held.state.terminal:
                held.quantity, held.filled = held.quantity * ratio, held.filled * ratio
                held.limit = SHARE.round_price(held.limit / ratio, "floor" if held.intent.order.side is Side.BUY else "ceiling")  # fmt: skip

    @property
    def positions(self) -> dict[str, Decimal]:
        held = sum(
            (e.quantity * e.order.intent.order.side.sign * self.units.get(name, 1) for name, e in self.executions.items()), Decimal(0)
        )  # fmt: skip
        return {"AAPL": held} if held else {}


NOISE = Faults(ack_lost=0.1, error=0.05, dropped=0.15, repeated=0.15, renamed=0.1, late=0.3, silent=0.05)


@pytest.mark.parametrize("tells_filled", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_over_a_split_every_share_is_booked_once_whatever_the_broker_tells(seed, tells_filled, tmp_path):
    rng = Random(seed)
    noise = NOISE if tells_filled else replace(NOISE, renamed=0.0, dropped=0.0)  # its limits, split or not
    desk = Desk(tmp_path, rng=Random(seed + 1), faults=noise, delay=40.0, tells_filled=tells_filled)
    desk.truth = desk.broker.truth = Shares(desk.clock)
    price = Decimal(180)

    def trade(steps: int) -> None:
        for _ in range(steps):
            alive = [held for held in desk.truth.orders.values() if not held.state.terminal]
            what = rng.randrange(8)
            if what < 2:
                desk.buy(4 * rng.randint(1, 20), rng.choice([Side.BUY, Side.SELL]), str(price))
            elif what < 5 and alive:
                held = rng.choice(alive)
                left = int(held.quantity - held.filled)
                desk.truth.fill(held.intent.client_id, Decimal(rng.randint(1, left)), held.limit)
            elif what == 5 and alive:
                desk.oms.cancel(rng.choice(alive).intent.client_id)
            elif what == 6 and rng.random() < 0.3:
                desk.restart()
            desk.clock.advance(rng.uniform(0.1, 3.0))
            desk.oms.pump()

    trade(25)
    action = split_of("4", price=None)
    action = replace(action, time=desk.clock.now())
    desk.oms.act(action)
    for _ in range(rng.randrange(4)):  # the venue is slower
        desk.clock.advance(rng.uniform(0.1, 2.0))
        desk.oms.pump()
    desk.truth.split(4)
    price = Decimal(45)
    trade(25)
    desk.broker.faults = CALM
    for name in [e.intent.client_id for e in desk.oms.open_orders]:
        desk.oms.cancel(name)
    desk.wait(400.0, steps=200)
    desk.oms.act(action)
    assert dict(desk.oms.positions) == desk.truth.positions and not desk.oms.quarantine
    assert desk.oms.cash.get("USD", Decimal(0)) == desk.truth.cash
    assert not desk.oms.open_orders and not desk.oms.unresolved
    assert not (desk.oms.halted or "").startswith(("QB-OMS-014", "QB-OMS-015", "QB-OMS-026"))
    desk.restart()
    assert dict(desk.oms.positions) == desk.truth.positions
    desk.journal.close()
