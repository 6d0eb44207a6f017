"""A gateway at a broker elsewhere: real processes, real sockets, a local venue that speaks Alpaca's protocols and misbehaves as it is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from test_gateway import until

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.config import Settings, as_ini, load
from quantbench.core.journal import read
from quantbench.core.settings import Broker, Guardian
from quantbench.engine.guardian import Limits
from quantbench.engine.study import Study
from quantbench.execution.floor import Floor
from quantbench.execution.remote import Remote
from quantbench.execution.session import starts
from quantbench.execution.stream import LiveFeed, _address, _Talk, feeds
from quantbench.ops import standing
from quantbench.ops.certificate import issue, make_key
from quantbench.ops.evidence import environment
from quantbench.ops.gateway import Client, admitted, launch, licensed
from quantbench.ops.heart import Pulse
from quantbench.ops.history import keep_run
from quantbench.ops.paper import Played, folder_of, paper
from quantbench.ops.sidecar import canceller
from quantbench.ops.wire import Home
from venues.alpaca import KEY, OPEN, SECRET, LocalAlpaca, Server

WALL = WallClock()
SYMBOL = "PAPR"
SMALL = '''
"""A strategy that is known to do something on every bar."""

from quantbench.data import synth
from quantbench.engine.events import KIND_TRADE, made, merged
from quantbench.engine.strategy import Strategy, state
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape


class Small(Strategy):
    """Buys ten, rests a limit below, buys five more on the third bar; then it waits."""

    bars: int = state(0)

    def on_bar(self, bar, market):
        self.bars += 1
        if self.bars == 1:
            market.buy(bar.asset, 10.0)
        elif self.bars == 2:
            market.buy(bar.asset, 7.0, limit=90.0, tif="gtc")
        elif self.bars == 3:
            market.buy(bar.asset, 5.0)

    @classmethod
    def study(cls, lake, as_of):
        walk = synth.trends(["PAPR"], synth.grid(3, interval="1m"), seed=140)
        bars = Tape.from_bars(walk.bars, symbol="PAPR", calendar="24/7", interval="1m", label="end").load()
        known = bars.events["known"][10:20] + 1000
        trades = made(KIND_TRADE, known=known, since=known, asset=0, price=bars.events["close"][10:20], size=5.0)
        return Study(cls(), Tape.from_events(merged([bars.events, trades]), bars.assets, interval="1m"), {})
'''


class Project:
    """A folder with a strategy of its own, promoted to paper, and the address of a venue in its settings."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.home = folder, Home.make(folder / "journals" / "gateway")
        (folder / "small.py").write_text(SMALL)
        (folder / "pyproject.toml").write_text('[tool.quantbench]\nstrategies = ["small"]\n')
        patient = replace(
            Guardian(), max_check_seconds=1.0, heartbeat_seconds=60.0, max_quote_age_seconds=60.0
        )  # of a busy machine
        broker = Broker(endpoint=address, timeout_seconds=5.0)  # simulated, unless somebody says otherwise
        (folder / "settings.ini").write_text(as_ini(replace(Settings(), guardian=patient, broker=broker)))
        self.key = folder.parent / "keys" / "signing.key"
        make_key(self.key)

    def promote(self) -> None:
        desk = standing.Desk.here(key=self.key)
        study = standing.study_of(desk, "Small")
        evidence = {
            "study": {"data": "0" * 16}, "environment": environment(), "hash": "1" * 64,
            "verdicts": [{"gate": "walk_forward", "hash": "0" * 64}],
        }  # fmt: skip
        now = WALL.now()
        made = issue(
            type(study.strategy), evidence, self.key, parameters=study.strategy.values(), stage="paper", capital=100_000.0, fraction=1.0,
            limits=Limits.research(100_000.0, timedelta(minutes=1)), issued=now, expires=now + timedelta(days=14), anchors={},
        )  # fmt: skip
        standing.entered(
            desk, "Small", "paper", standing.UP, who="Ann Lee", why="for the test", certificate=made
        )

    def records(self, run: str, kind: str) -> list[dict]:
        return [dict(r.payload) for r in read(folder_of(self.home) / f"{run}.journal") if r.kind == kind]


@pytest.fixture
def venue() -> Iterator[tuple[LocalAlpaca, Server]]:
    made = LocalAlpaca(WALL)
    with Server(made) as server:
        yield made, server


@pytest.fixture
def project(
    tmp_path: Path, venue: tuple[LocalAlpaca, Server], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder, venue[1].address)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    for name, value in (
        ("APCA_API_KEY_ID", KEY),
        ("APCA_API_SECRET_KEY", SECRET),
        ("QB_SIGNING_KEY", str(made.key)),
    ):
        monkeypatch.setenv(name, value)
    made.promote()
    yield made
    pulse, journal = (
        Pulse(made.home.folder / "gateway.beat", WALL, 60.0),
        made.home.folder / "gateway.journal",
    )
    noted = [r.payload["process"] for r in read(journal) if r.kind == "sidecar"] if journal.exists() else []
    for process in (pulse.process, *noted):  # of a test that failed: one that went well has ended them
        with suppress(OSError):
            if str(made.home.folder) in Path(f"/proc/{process}/cmdline").read_text():
                os.kill(process, signal.SIGKILL)
    sys.modules.pop("small", None)


def orders_at(venue: LocalAlpaca, word: str = "") -> list[dict]:
    with venue.lock:
        return [
            dict(o) for o in venue.orders.values() if not word or (o["status"] in OPEN) == (word == "open")
        ]


def said(client: Client, name: str) -> list[dict]:
    return list(getattr(client, name)().data)


def bar(venue: LocalAlpaca, ago: timedelta = timedelta(0)) -> None:
    "A minute that ended just now, or some time ago."
    venue.bar(SYMBOL, Decimal(100), WALL.now() - timedelta(minutes=1) - ago)


def test_a_strategy_trades_at_a_broker_is_killed_found_again_and_stopped_from_outside(project, venue):
    """Fails if an order does not arrive or arrives twice, a fill is not booked, a restart forgets, or the sidecar cannot cancel at the venue."""
    market, _ = venue
    market.price(SYMBOL, Decimal("100.00"))
    ended: list[BaseException] = []
    played = Thread(target=_noted, args=(ended, partial(paper, "Small", broker="alpaca", home=project.home)))
    played.start()  # as `qb paper Small --broker alpaca` does: it starts the gateway, too
    until(lambda: market.ears and market.ears[0].subscribed.get("bars") == [SYMBOL], "nobody listens", 120.0)
    with Client(project.home, seconds=60.0) as client:
        until(lambda: client.status()["running"], "no session")
        first = client.status()
        run = first["run"]
        bar(market)
        until(lambda: said(client, "fills"), "the first order was not filled and booked")
        bar(market)
        until(lambda: len(orders_at(market, "open")) == 1, "no limit order at the venue")
        market.drop_ears()
        until(lambda: project.records(run, "feed.gap"), "the gap is not on record", 60.0)
        market.fail("lost")  # carried out, and nobody is told
        bar(market)
        until(
            lambda: sum(Decimal(f["quantity"]) for f in said(client, "fills")) == 15,
            "an order whose acknowledgement was lost",
        )
        status = client.status()
        assert (status["state"], status["broker"], status["feed"], status["unresolved"]) == (
            "active",
            "alpaca",
            "alpaca",
            0,
        )
    sent = orders_at(market)
    assert [o["client_order_id"] for o in sent] == [f"{run}-{n}" for n in (1, 2, 3)], "each order once"
    resting = orders_at(market, "open")[0]["client_order_id"]

    os.kill(first["process"], signal.SIGKILL)
    until(lambda: not _alive(first["process"]), "it does not die")
    played.join(60.0)
    assert isinstance(ended[0], QuantbenchError) and ended[0].code.startswith("QB-GTW"), ended
    market.trade(resting, Decimal(2), Decimal("90.00"))  # while nobody listens
    second = launch(project.home, broker="alpaca")
    with Client(project.home, seconds=60.0) as client:
        orders = {o["id"]: o["state"] for o in said(client, "orders")}
        assert orders == {f"{run}-1": "filled", f"{run}-2": "partial", f"{run}-3": "filled"}
        assert said(client, "positions") == [{"symbol": SYMBOL, "quantity": "17"}]
        assert client.status()["lost"] == [run] and client.status()["state"] == "active"
        assert [r["clean"] for r in project.records(run, "reconciliation")][-1] is True
        for code, words in (("016", {}), ("015", {"feed": "replay"}), ("015", {"broker": "simulated"})):
            with pytest.raises(
                QuantbenchError, match=f"QB-GTW-{code}"
            ):  # it holds something; and is no simulation
                client.start("Small", **{"feed": "alpaca", **words})
        until(lambda: client.status()["sidecar"], "no sidecar", 60.0)
        kept = project.folder / "reports" / "Small" / "paper.history.json"
        until(kept.exists, "nobody keeps what the lost session recorded")
        sidecar = client.status()["sidecar"]

    os.kill(second["process"], signal.SIGSTOP)
    os.kill(sidecar, signal.SIGUSR1)
    until(lambda: not orders_at(market, "open"), "the sidecar did not cancel at the venue")
    assert len(orders_at(market)) == 3
    os.kill(second["process"], signal.SIGCONT)
    with Client(project.home, seconds=60.0) as client:
        until(lambda: client.status()["state"] == "killed", "it does not know")
        client.shutdown()
    until(lambda: not _alive(second["process"]), "it does not end")


def _noted(errors: list[BaseException], work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        errors.append(error)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with suppress(OSError):
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    return True


# ---- in this process: the same floor, without sockets of its own


@pytest.fixture
def floor(project: Project) -> Iterator[Floor]:
    settings = load()
    settings = replace(
        settings, broker=replace(settings.broker, name="alpaca"), guardian=replace(settings.guardian, max_reconciliation_age_seconds=2.0)
    )  # fmt: skip
    remote = Remote(settings, WALL, licensed=partial(licensed, settings, WALL), patience=20.0)

    def admit(name: str, lake: str, as_of: str, _: str) -> tuple[Study, str, str]:
        study, held = admitted(settings, name, clock=WALL, lake=lake, as_of=as_of, key=project.key)
        return study, held.hash, held.stage

    begin = starts(settings=settings, wall=WALL, admit=admit, account=remote, feeds=feeds(settings, WALL))
    made = Floor(project.home.folder, clock=WALL, begin=begin)
    yield made
    made.close()


def turned(floor: Floor, true: Callable[[], object], what: str) -> None:
    def turn() -> object:
        floor.step()
        return true()

    until(turn, what)


def begun(floor: Floor, market: LocalAlpaca) -> str:
    market.price(SYMBOL, Decimal("100.00"))
    run = floor.start(strategy="Small", feed="alpaca")["run"]
    turned(floor, lambda: market.ears and market.ears[0].subscribed.get("bars") == [SYMBOL], "nobody listens")
    return run


def test_a_session_at_a_broker_ends_reconciled_and_leaves_its_history(floor, project, venue):
    """Fails if a fill of the venue has no twin, the books do not agree at the end, or the last order stays open."""
    market, _ = venue
    run = begun(floor, market)
    for count in (2, 4, 5):
        bar(market)
        turned(floor, lambda: floor.session.status()["events"] == count - (count < 5), "no bar")  # noqa: B023
        if count < 5:
            market.tell({"T": "t", "S": SYMBOL, "p": 100.5, "s": 3, "t": WALL.now().isoformat()})
        turned(floor, lambda: floor.session.status()["events"] == count, "no trade")  # noqa: B023
    turned(floor, lambda: len(floor.fills()) == 2, "not filled")
    ended = floor.stop()
    assert ended["reconciled"] and not orders_at(market, "open"), ended
    desk = standing.Desk.here(key=project.key)
    made = keep_run(desk, floor.folder / "runs", run)
    assert standing.recall(desk, "Small", "paper") == made
    assert made.certificate == standing.status(desk, "Small").certificate.hash
    assert made.told == len(made.fills) == 1, "the last order's twin was under way when the session ended"
    assert made.fills[0].price == 100.0 and 100.5 < made.fills[0].reference < 101.0, (
        "filled by the next trade"
    )
    with pytest.raises(QuantbenchError, match="QB-GTW-016"):
        floor.start(strategy="Small", feed="alpaca")  # it still holds fifteen
    assert floor.account.name == run, "what is held is still looked after"
    with market.lock:  # a person sells them at the broker's desk
        market.positions.clear()
    assert floor.start(strategy="Small", feed="alpaca")["run"] == "small-2"
    played = Played.of(floor.folder / "runs", run)
    assert played.recording.events["close"].tolist() == [100.0, 100.5, 100.0, 100.5, 100.0]
    diff = played.diff()
    assert not [d for d in diff.apart if d.stage in ("code", "data", "feature", "order")], (
        "the same step function"
    )


def test_a_share_that_appears_at_the_broker_leaves_only_what_reduces(floor, venue):
    market, _ = venue
    run = begun(floor, market)
    bar(market)
    turned(floor, lambda: floor.fills(), "not filled")
    told: list[dict] = []
    floor.listen(lambda event: not told.append(event))
    with market.lock:
        market.positions[SYMBOL] += 1
    turned(floor, lambda: floor.status()["state"] == "reducing", "nobody noticed")
    turned(floor, lambda: [e for e in told if e["kind"] == "reconciliation"], "nobody was told")
    breaks = next(e for e in told if e["kind"] == "reconciliation")["breaks"]
    assert [(b["kind"], b["ours"], b["theirs"]) for b in breaks] == [("position", "10", "11")]
    bar(market)
    turned(floor, lambda: floor.session.status()["events"] == 2, "the bar did not arrive")
    assert [o["client_order_id"] for o in orders_at(market)] == [f"{run}-1"], "it opened more"
    assert [o["state"] for o in floor.orders()] == ["filled", "rejected"]


def test_an_order_made_by_hand_is_found_though_nobody_told_of_it(floor, venue):
    """Fails if reconciliation does not hand a stranger to the order book, which counts it from then on."""
    market, _ = venue
    begun(floor, market)
    market.holding = True  # the stream says nothing of it
    market.external(SYMBOL, Decimal(4), Decimal(50))
    turned(floor, lambda: floor.orders(), "nobody found it")
    entry = next(iter(floor.account.oms.orders.values()))
    assert entry.external and entry.leaves == 4 and floor.status()["state"] == "active"
    market.release()


def test_no_session_begins_in_an_account_that_is_not_empty_or_without_its_licence(floor, project, venue):
    market, _ = venue
    with market.lock:
        market.positions[SYMBOL] = Decimal(3)
    with pytest.raises(QuantbenchError, match="QB-GTW-016"):
        floor.start(strategy="Small", feed="alpaca")
    with market.lock:
        market.positions.clear()
    market.external(SYMBOL, Decimal(1), Decimal(50))
    with pytest.raises(QuantbenchError, match="QB-GTW-016"):
        floor.start(strategy="Small", feed="alpaca")
    market.cancel_all()
    assert not list((floor.folder / "runs").glob("*.journal")), (
        "an attempt left something that looks like a session"
    )
    begun(floor, market)
    standing.step(
        standing.Desk.here(key=project.key), "Small", "halted", who="Ann Lee", why="a revocation in time"
    )
    bar(market)
    turned(floor, lambda: floor.orders(), "it decided nothing")
    assert floor.orders()[0]["state"] == "rejected" and len(orders_at(market)) == 1, (
        "an order without a licence"
    )


def test_news_that_is_old_is_a_gap_and_no_order(floor, venue):
    market, _ = venue
    run = begun(floor, market)
    bar(market, ago=timedelta(seconds=300))
    turned(floor, lambda: records(floor, run, "feed.gap"), "nobody noticed")
    bar(market)
    turned(floor, lambda: floor.orders(), "it does not trade on fresh news")
    assert floor.session.status()["events"] == 1


def test_a_gateway_without_keys_does_not_start_and_says_why(project, monkeypatch):
    """Fails if keys are looked for when the first order waits for them, or a sidecar without them is started again and again."""
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    with pytest.raises(QuantbenchError, match="QB-GTW-006") as refusal:
        launch(project.home, broker="alpaca")
    assert refusal.value.value == "missing or malformed"
    with pytest.raises(QuantbenchError, match="QB-GTW-014"):
        canceller("ibkr", WALL)
    assert canceller("simulated", WALL) is None


def records(floor: Floor, run: str, kind: str) -> list[dict]:
    return [dict(r.payload) for r in read(floor.folder / "runs" / f"{run}.journal") if r.kind == kind]


def test_simulated_fills_on_live_data_are_those_of_the_backtest_of_what_was_heard(project, venue):
    """The same strategy object and step function: fails if a live event is anything but an event."""
    market, _ = venue
    settings = load()
    study = Study.of("Small", None, "2026-11-01")
    begin = starts(
        settings=settings, wall=WALL, admit=lambda *_: (study, "", "paper"), feeds=feeds(settings, WALL)
    )
    floor = Floor(project.home.folder, clock=WALL, begin=begin)
    try:
        with pytest.raises(QuantbenchError, match="QB-GTW-015"):
            floor.start(strategy="Small", feed="carrier pigeon")
        run = begun(floor, market)
        for count in range(1, 21):
            trade = {"T": "t", "S": SYMBOL, "p": 100.0 + count, "s": 50, "t": WALL.now().isoformat()}
            market.tell(trade) if count % 2 else bar(market)
            turned(floor, lambda: floor.session.status()["events"] == count, "it did not arrive")  # noqa: B023
        assert floor.stop()["reconciled"] and not orders_at(market)
        played = Played.of(floor.folder / "runs", run)
        again = study.on(played.recording.tape).run()
        assert len(played.result.fills) == len(again.fills) == 2
        for log in ("fills", "transitions"):
            ours, theirs = getattr(played.result.logs, log), getattr(again.logs, log)
            assert ours[: len(theirs)].tobytes() == theirs.tobytes(), log
    finally:
        floor.close()


@pytest.mark.usefixtures("project")
def test_a_mute_stream_is_given_up_and_dialled_again(venue):
    """Fails if an open socket that says nothing is believed, or what was missed is no gap."""
    market, server = venue
    settings = Broker(name="alpaca", endpoint=server.address, timeout_seconds=1.0)
    assets = Study.of("Small", None, "2026-11-01").tape.assets
    talk = _Talk(_address(settings), settings, WALL, assets, ("bars", "trades"))
    feed = LiveFeed(talk, WALL, pulse=0.1).start()
    try:
        until(lambda: feed.ready, "not connected")
        until(lambda: market.ears and market.ears[0].subscribed.get("trades") == [SYMBOL], "nobody listens")
        first = market.ears[0]
        market.deaf = True
        until(lambda: first not in market.ears, "a mute socket was kept")
        market.deaf = False
        until(
            lambda: feed.ready and (gaps := feed.gaps()) and gaps[0]["why"] == "the stream was gone", "no gap"
        )
        market.tell({"T": "t", "S": SYMBOL, "p": 100.5, "s": 3, "t": WALL.now().isoformat()})
        until(lambda: feed.due() is not None, "it does not hear again")
    finally:
        feed.close()
