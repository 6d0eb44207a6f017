"""The ledger of looks: what is run on a lake's data is counted once, by every process, and nothing can be taken out of it."""

from __future__ import annotations

import datetime as dt
import math
import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quantbench.core import chain, journal
from quantbench.core.chain import Head, compose, first_line
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.data import looks
from quantbench.data.looks import Code, Look, append, ledger_of, read
from quantbench.data.store import LOG, Lake
from quantbench.engine.backtest import backtest
from quantbench.engine.explore import explore
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.sweep import sweep
from quantbench.engine.tape import Tape

LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = 86_400_000_000_000
CODE = Code("c0de", "Some", "def on_bar(self, bar, market):\n    pass", ("a0",), {"n": 3})


class Hold(Strategy):
    """Buys at the first close; raises where a price is above `most`."""

    size: float = param(1.0, low=0.0)
    most: float = 1e9

    def on_bar(self, bar: Any, market: Any) -> None:
        if bar.close > self.most:
            raise ValueError("above the most")
        market.target(bar.asset, self.size)


def filled(folder: Path) -> Lake:
    lake = Lake.create(folder, clock=WallClock())
    closes = np.round(100 * np.exp(np.random.default_rng(3).normal(0, 0.01, 60).cumsum()), 2)
    days = np.busday_offset("2024-01-02", np.arange(60)).astype("M8[us]") + np.timedelta64(21, "h")
    columns: dict[str, Any] = {"open": closes, "high": closes, "low": closes, "close": closes}
    texts = {"asset": "A", "interval": "1d", "price_type": "trade", "adjustment": "raw", "source": "test"}
    columns |= {name: [text] * 60 for name, text in texts.items()} | {"volume": np.full(60, 1e6)}
    columns |= {name: pa.array(days, pa.timestamp("us", tz="UTC")) for name in ("event_time", "known_time")}
    lake.append("bars", pa.table(columns), source="test")
    return lake


def tape_of(lake: Lake) -> Tape:
    return Tape.from_lake(lake, as_of=LATER, calendar="24/7")


def look(sharpe: float = 0.5, count: int = 1, **more: Any) -> Look:
    given = {
        "by": "backtest",
        "code": CODE,
        "market": "m",
        "data": "d",
        "first": 0,
        "last": DAY,
        "account": "a",
    }
    columns = {"parameters": {"n": list(range(count))}, "outcomes": {"sharpe": [sharpe] * count}}
    return Look(**{**given, **columns, **more})  # type: ignore[arg-type]


def refused(code: str, path: Path) -> None:
    with pytest.raises(QuantbenchError) as caught:
        append(path, [look()])
    assert caught.value.code == code


def fresh_process() -> None:
    looks._memory.cache_clear()


# ---- what is counted ---------------------------------------------------------------------------------------------


def test_every_way_to_run_is_counted_once(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake")
    tape = tape_of(lake)
    result = backtest(Hold(size=2.0), tape)
    swept = sweep(Hold, tape, {"size": [1.0, 2.0, 3.0]}, shown=False)
    explorer = explore(Hold, tape)
    explorer.move(size=0.5)
    explorer.write()
    found = read(ledger_of(lake))
    assert [(one.by, len(one)) for one in found.looks][:2] == [("backtest", 1), ("sweep", 3)]
    explored = [one for one in found.looks if one.by == "explore"]
    assert found.points == 1 + 3 + 2 and sum(map(len, explored)) == 2
    backtested, swept_look = found.looks[:2]
    assert backtested.parameters == {"size": (2.0,), "most": (1e9,)}
    assert backtested.outcomes["sharpe"] == (result.metrics["Sharpe"],)
    assert math.isclose(backtested.outcomes["total_return"][0], result.metrics["total return"])
    sharpes = dict(zip(swept_look.parameters["size"], swept_look.outcomes["sharpe"], strict=True))
    assert sharpes == dict(zip(swept.columns["size"].tolist(), swept.figure("sharpe").tolist(), strict=True))
    assert math.isclose(sharpes[2.0], backtested.outcomes["sharpe"][0], rel_tol=1e-9)
    for one in found.looks:
        assert (one.market, one.data) == (tape.market, tape.hash)
        assert (one.first, one.last) == (tape._facts.first, tape._facts.last)
        assert one.code.hash == Hold().code_hash and "def on_bar" in one.code.text
        assert one.code.defaults == {"size": 1.0, "most": 1e9}
    assert len({one.account for one in found.looks}) == 1


def test_a_part_of_a_tape_is_counted_and_a_poisoned_one_is_not(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake")
    tape = tape_of(lake).load()
    middle = int(tape.events["known"][30])
    backtest(Hold(), tape.truncate(middle))
    backtest(Hold(), tape.between(middle, middle + 20 * DAY))
    assert [(one.first, one.last) for one in read(ledger_of(lake)).looks] == [
        (int(tape.events["known"][0]), middle),
        (middle, int(tape.between(middle, middle + 20 * DAY).events["known"][-1])),
    ]
    backtest(Hold(), tape.poison(middle, seed=1))
    backtest(Hold(), tape.uncounted("a test"))
    sweep(Hold, tape.uncounted("a test"), {"size": [1.0, 2.0]}, shown=False)
    assert read(ledger_of(lake)).points == 2


def test_a_run_that_a_hook_stopped_is_counted(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake")
    tape = tape_of(lake).load()
    with pytest.raises(QuantbenchError) as caught:
        backtest(Hold(most=float(tape.events["close"][40:].max()) - 1e-9), tape)
    assert caught.value.code == "QB-ENG-014"
    assert read(ledger_of(lake)).points == 1


def test_without_a_place_in_the_ledger_there_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path / "lake")
    tape = tape_of(lake).load()
    backtest(Hold(), tape)

    class Full(journal.Disk):
        def write(self, *_: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "Disk", Full)
    for run in (lambda: backtest(Hold(), tape), lambda: sweep(Hold, tape, {"size": [1.0]}, shown=False)):
        with pytest.raises(QuantbenchError) as caught:
            run()
        assert caught.value.code == "QB-LOOK-001" and "No space left" in caught.value.value
    monkeypatch.undo()
    assert read(ledger_of(lake)).points == 1


def test_what_is_not_a_number_is_read_back_as_such(tmp_path: Path) -> None:
    append(tmp_path / "looks", [look(math.nan), look(math.inf), look(0.25, count=3)])
    sharpes = [one.outcomes["sharpe"] for one in read(tmp_path / "looks").looks]
    assert [math.isnan(column[0]) for column in sharpes] == [True, True, False] and sharpes[2] == (0.25,) * 3


# ---- many processes ----------------------------------------------------------------------------------------------


def _work(path: Path, number: int, count: int) -> None:
    for k in range(count):
        append(path, [look(float(number), data=f"{number}-{k}")])


def test_processes_wait_for_each_other_and_begin_one_ledger(tmp_path: Path) -> None:
    """All begin at once, so several find no ledger; each look is there once, and the lake's journal names one."""
    lake = Lake.create(tmp_path / "lake", clock=WallClock())
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(ledger_of(lake), n, 25)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    found = read(ledger_of(lake))
    assert sorted(one.data for one in found.looks) == sorted(f"{n}-{k}" for n in range(4) for k in range(25))
    assert sum(record.kind == looks.CREATED for record in chain.read(lake.root / LOG)) == 1
    assert set(found.codes) == {"c0de"} and found.codes["c0de"] == CODE


def test_a_ledger_whose_maker_died_before_it_was_recorded_is_recorded_by_the_next(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=WallClock())
    with journal.Journal.open(ledger_of(lake), clock=WallClock()) as made:
        identity = made.identity
    append(ledger_of(lake), [look()])
    assert looks._recorded(lake.root / LOG) == identity and read(ledger_of(lake)).points == 1


def test_one_more_look_reads_no_more_than_what_others_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the ledger is: counted are the records that a process checks."""
    checked = []
    honest = chain.groups

    def counting(*given: Any) -> Any:
        for group in honest(*given):
            checked.append(len(group))
            yield group

    lake = filled(tmp_path / "lake")
    tape = tape_of(lake).load()
    append(ledger_of(lake), [look() for _ in range(500)])
    fresh_process()
    monkeypatch.setattr(journal, "groups", counting)
    monkeypatch.setattr(chain, "groups", counting)
    backtest(Hold(), tape)
    assert sum(checked) >= 500  # the first of a process verifies everything
    checked.clear()
    for _ in range(3):
        backtest(Hold(), tape)
    assert checked == []
    child = multiprocessing.get_context("fork").Process(target=_work, args=(ledger_of(lake), 1, 2))
    child.start()
    child.join()
    backtest(Hold(), tape)
    assert checked == [2, 1] or checked == [1, 1]  # the child's two, with its code or without


# ---- tampering ---------------------------------------------------------------------------------------------------


def test_a_ledger_that_is_gone_or_another_is_refused(tmp_path: Path) -> None:
    lake, other = (Lake.create(tmp_path / name, clock=WallClock()) for name in ("lake", "other"))
    path = ledger_of(lake)
    append(path, [look()])
    append(ledger_of(other), [look(), look()])
    for content in (None, ledger_of(other).read_bytes(), b""):
        path.unlink() if content is None else path.write_bytes(content)
        refused("QB-LOOK-002", path)  # by the process that knew it
        fresh_process()
        refused("QB-LOOK-002", path)  # and by one that did not
        with pytest.raises(QuantbenchError) as caught:
            read(path)
        assert caught.value.code in ("QB-LOOK-002", "QB-JNL-001")


def test_a_lake_made_anew_in_the_same_place_begins_anew(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake", clock=WallClock())
    append(ledger_of(lake), [look()])
    lake.root.rename(tmp_path / "old")
    lake = Lake.create(tmp_path / "lake", clock=WallClock())
    append(ledger_of(lake), [look()])
    assert read(ledger_of(lake)).points == 1


def _bodies(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def _forged(records: list[chain.Record], identity: str) -> bytes:
    "A sound journal of these records: what somebody who has the program can write."
    first = first_line(identity)
    head, content = Head(0, chain.sha256(first).hexdigest(), len(first)), first
    for record in records:
        made, data = compose([(record.kind, record.payload)], head, record.time, record.behind)
        head, content = made[-1].head, content + data
    return content


def _flip(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _cut_records(rng: random.Random, content: bytes) -> bytes:
    "The tail, at the edge of a record: sound in itself."
    lines = _bodies(content)
    return b"".join(lines[: rng.randrange(1, len(lines))])


def _drop(rng: random.Random, content: bytes) -> bytes:
    lines = _bodies(content)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _swap(rng: random.Random, content: bytes) -> bytes:
    lines = _bodies(content)
    a, b = rng.sample(range(len(lines)), 2)
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _insert(rng: random.Random, content: bytes) -> bytes:
    lines = _bodies(content)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"".join(lines)


KINDS = (_flip, _cut, _cut_records, _drop, _swap, _insert)


def test_ten_thousand_cuts_edits_and_rewrites_are_found_given_the_anchor(tmp_path: Path) -> None:
    """Also the sound ones: tails cut at a record's edge, and journals written anew without a look or with a better one."""
    path = tmp_path / "looks"
    append(path, [look(0.1 * k, data=str(k)) for k in range(12)])
    content, records = path.read_bytes(), list(chain.read(path))
    anchor, identity = records[-1].head, chain.verify(path).identity
    assert chain.verify(path, anchor=anchor).anchored and _forged(records, identity) != content
    rng, missed, sound = random.Random(20240607), [], 0
    for number in range(10_000):
        if number % 8 == 0:  # rewritten from the start
            kept = list(records)
            victim = rng.randrange(len(kept))
            kept[victim : victim + 1] = [] if rng.random() < 0.5 else [_improved(kept[victim])]
            forged = _forged(kept, identity)
        else:
            forged = rng.choice(KINDS)(rng, content)
        if forged == content:
            continue
        path.write_bytes(forged)
        try:
            report = chain.verify(path, anchor=anchor)
        except QuantbenchError:
            sound += _sound(path) if number % 50 == 0 else 0
        else:
            missed.append((number, report))
    assert not missed and sound > 0  # some would pass without the anchor


def _improved(record: chain.Record) -> chain.Record:
    payload = {**record.payload, "outcomes": {"sharpe": [3.0]}}
    return chain.Record(record.seq, record.time, record.kind, payload, "", record.behind, 0)


def _sound(path: Path) -> bool:
    try:
        chain.verify(path)
    except QuantbenchError:
        return False
    return True


def test_the_file_is_no_place_for_two_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "looks"
    append(path, [look()])
    monkeypatch.setattr(looks, "WAIT", 0.0)
    with journal.Journal.open(path, clock=WallClock()):
        refused("QB-LOOK-001", path)
    append(path, [look()])
    assert read(path).points == 2
