"""Promotion against a researcher who wants more than the evidence gives: each way up that is not one, and each way to stay."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import test_promote as told

from quantbench.core.chain import read
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.config import load
from quantbench.core.journal import Journal
from quantbench.engine.study import Study
from quantbench.gates.costs import cost_stress
from quantbench.ops import certificate as certificates
from quantbench.ops import checklist as lists
from quantbench.ops import gateway, promote, standing
from quantbench.ops.board import Board
from quantbench.ops.monitors import Mark
from quantbench.ops.standing import Desk
from quantbench.strategies.drift import KnownDrift

keys, study, desk = told.keys, told.study, told.desk
DAY = 86_400.0


def missing(desk: Desk, to: str, **terms: Any) -> set[str]:
    return {item.id for item in lists.checklist(desk, "KnownDrift", to, **terms).missing}


def licence(desk: Desk, study: Study) -> standing.Licence:
    made = standing.status(desk, "KnownDrift").certificate
    capital = made.capital_ccy * made.capital_fraction if made else 1e5
    stage = made.stage if made else "paper"
    limits = lists.limits_of(desk, study, stage, capital)
    public = certificates.public_key(desk.key)
    return standing.Licence(desk, "KnownDrift", KnownDrift(**told.CHOSEN), limits, public)


def begins(desk: Desk, file: Path | None = None) -> str:
    """How a gateway that is asked to start it answers; empty: it starts."""
    terms = {"clock": desk.clock, "key": desk.key, "certificate": str(file or "")}
    return told.code_of(lambda: gateway.admitted(desk.settings, "KnownDrift", **terms))


def at(desk: Desk, moment: datetime) -> Desk:
    """The same desk by a clock that somebody has set."""
    return replace(desk, clock=SimClock(moment))


def elsewhere(desk: Desk, folder: Path) -> Desk:
    """Another desk with the same key."""
    paths = replace(desk.settings.paths, journals=folder / "journals", reports=folder / "reports")
    return replace(desk, settings=replace(desk.settings, paths=paths))


# ---- certificates that are not this desk's -----------------------------------------------------------------


def test_a_certificate_that_was_copied_to_another_desk_starts_nothing(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    told.in_paper(desk, study)
    file = desk.folder("KnownDrift") / "certificate.json"
    copy, other = tmp_path / "copy.json", elsewhere(desk, tmp_path / "other")
    copy.write_bytes(file.read_bytes())
    assert begins(desk) == begins(desk, copy) == ""
    assert begins(other, copy) == "QB-CRT-006"  # there it could never be revoked
    told.up(desk, "paper")  # another took its place
    assert begins(desk) == "" and begins(desk, copy) == "QB-CRT-006"
    standing.step(desk, "KnownDrift", "halted", who="Ada", why="stop")
    assert begins(desk, copy) == begins(other, copy) == "QB-CRT-006"


def test_what_was_revoked_does_not_come_back_by_another_signature(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    made = told.in_paper(desk, study).certificate
    assert made is not None
    standing.step(desk, "KnownDrift", "halted", who="Ada", why="stop")
    standing.step(desk, "KnownDrift", "research", who="Ada", why="understood")
    limits = lists.limits_of(desk, study, "paper", made.capital_ccy)
    record, _ = lists.evidence_of(desk, "KnownDrift")
    assert record is not None
    again = certificates.issue(
        KnownDrift, record, desk.key, parameters=dict(made.parameters), limits=limits, stage="paper", capital=1e5, fraction=1.0,
        issued=desk.clock.now(), expires=desk.clock.now() + timedelta(9), anchors=dict(made.anchors),
    )  # fmt: skip
    file = tmp_path / "again.json"
    certificates.write(again, file)
    assert again.hash != made.hash and begins(desk, file) == "QB-CRT-006"


def test_a_certificate_by_another_key_carries_nobody_to_real_money(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    own = tmp_path / "own" / "signing.key"
    certificates.make_key(own)
    told.judge(desk, study)
    mine = replace(desk, key=own)
    promote.promote(mine, "KnownDrift", "paper", who="Mallory", why="my own key")
    told.session(desk, "paper")
    assert missing(mine, "micro") == set() and "N4" in missing(desk, "micro")
    assert begins(desk) == "QB-CRT-003"


@pytest.mark.parametrize("part", ["code", "packages"])
def test_a_byte_of_code_or_a_version_of_a_package_starts_nothing(
    part: str, desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.in_paper(desk, study)
    asked = licence(desk, study)
    assert asked() is not None and begins(desk) == ""
    if part == "code":
        monkeypatch.setattr(certificates, "code_hash", lambda _: "0" * 16)
    else:
        other = {**certificates.environment(), "numpy": "2.4.99"}
        monkeypatch.setattr(certificates, "environment", lambda: other)
        monkeypatch.setattr(lists, "environment", lambda: other)
        told.session(desk, "paper")
        assert missing(desk, "micro") == {"evidence"}
    assert begins(desk) == "QB-CRT-004" == told.code_of(lambda: licence(desk, study))


# ---- time ----------------------------------------------------------------------------------------------------


def test_a_clock_set_back_renews_nothing(desk: Desk, study: Study) -> None:
    told.in_paper(desk, study)
    asked, inside = licence(desk, study), desk.clock.now()
    told.session(
        desk, "paper", sessions=22
    )  # the journal has heard of a later day than the last of the certificate
    back = at(desk, inside + timedelta(1))
    assert asked() is None and begins(back) == "QB-CRT-005"
    assert told.code_of(lambda: licence(back, study)) == "QB-CRT-005"
    asked._desk = back
    assert asked() is None
    assert missing(back, "micro") == {"GT-08"}  # nor is the paper session younger


def test_evidence_of_tomorrow_is_none(desk: Desk, study: Study) -> None:
    told.judge(desk, study)
    assert missing(desk, "paper") == set()
    assert missing(at(desk, told.NOW - timedelta(1)), "paper") == {"GT-18"}


def test_paper_of_last_winter_is_not_judged_in_summer(desk: Desk, study: Study) -> None:
    told.in_paper(desk, study)
    told.session(desk, "paper")
    assert missing(desk, "micro") == set()
    desk.clock.sleep(60 * DAY)
    told.judge(desk, study)
    assert missing(desk, "micro") == {"GT-08"}


def test_a_record_that_ends_before_the_losses_is_a_hole(desk: Desk, study: Study) -> None:
    told.in_micro(desk, study)
    told.session(desk, "micro", sessions=25, seed=15, mean=0.0012)
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=1.2, fills=5, root=None)
    told.judge(desk, study)
    assert missing(desk, "scale") == set()
    desk.clock.sleep(3 * DAY)  # it trades on, and nothing is recorded
    assert {"GT-15", "GT-16"} <= missing(desk, "scale")
    assert standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift")).stage == "halted"


# ---- journals ------------------------------------------------------------------------------------------------


def cut(journal: Path, kept: int) -> None:
    """The journal as it was before its last records: every line is intact, and so is the chain."""
    ends = [record.offset for record in read(journal)]
    with journal.open("r+b") as file:
        file.truncate(ends[kept - 1])


def test_a_revocation_that_was_cut_off_does_not_give_the_certificate_back(desk: Desk, study: Study) -> None:
    told.in_paper(desk, study)
    count = len(desk.records())
    told.session(desk, "paper")
    standing.step(desk, "KnownDrift", "halted", who="Ada", why="stop")
    cut(desk.journal, count)
    assert standing.status(desk, "KnownDrift").certificate is not None  # as the journal has it now
    assert begins(desk) == "QB-PRO-007" == told.code_of(lambda: licence(desk, study))
    assert "N4" in missing(desk, "micro")
    assert (
        standing.step(desk, "KnownDrift", "halted", who="Ada", why="stop").stage == "halted"
    )  # down is open


@pytest.mark.parametrize("name", ["evidence", "promotion"])
def test_a_journal_that_was_written_anew_is_not_the_one_that_was_signed(
    name: str, desk: Desk, study: Study
) -> None:
    told.in_micro(desk, study) if name == "promotion" else told.in_paper(desk, study)
    assert begins(desk) in ("", "QB-CRT-004")  # paper's gateway has no limits of real money
    place = desk.settings.paths.journals / f"{name}.journal"
    whole = [(r.kind, dict(r.payload)) for r in read(place)]
    place.unlink()
    with Journal.open(place, clock=desk.clock) as journal:
        journal.extend(whole)
    assert begins(desk) == "QB-PRO-007"


RACE = """
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.config import load
from quantbench.ops.standing import DOWN, Desk, entered
room = Path(sys.argv[1])
paths = replace(load().paths, lake=room / "lake", journals=room / "journals", reports=room / "reports")
desk = Desk(replace(load(), paths=paths), room / "lake", clock=SimClock(datetime(2027, 1, 1, tzinfo=UTC)))
print("ready", flush=True)
sys.stdin.readline()
try:
    entered(desk, "KnownDrift", "research", DOWN, who=sys.argv[2], why="race", seen=sys.argv[3])
    print("won")
except QuantbenchError as refusal:
    print(refusal.code)
"""


def test_of_two_processes_that_decide_at_once_one_is_told(desk: Desk, study: Study, tmp_path: Path) -> None:
    told.in_paper(desk, study)
    seen = standing.status(desk, "KnownDrift").head
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), who, seen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for who in ("Ada", "Bob")
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    said = [racer.communicate("go\n")[0].strip() for racer in racers]
    assert sorted(said) == ["QB-PRO-005", "won"]
    assert [step.payload["to"] for step in standing.status(desk, "KnownDrift").steps] == ["paper", "research"]


# ---- numbers ----------------------------------------------------------------------------------------------------


def with_settings(desk: Desk, folder: Path, **changed: str) -> Desk:
    """The same desk by settings in which somebody has changed a line."""
    text = (Path(__file__).parent.parent / "settings.ini").read_text()
    for name, value in changed.items():
        lines = [f"{name} = {value}" if line.startswith(f"{name} =") else line for line in text.splitlines()]
        assert text.splitlines() != lines
        text = "\n".join(lines) + "\n"
    (folder / "settings.ini").write_text(text)
    return replace(desk, settings=replace(load(folder / "settings.ini", {}), paths=desk.settings.paths))


def test_thresholds_loosened_after_the_evidence_lead_nowhere(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    told.judge(desk, study, permutation=0.08)
    assert missing(desk, "paper") == {"GT-04"}
    loose = with_settings(desk, tmp_path, max_permutation_fraction="0.1")
    assert missing(loose, "paper") == {"evidence", "GT-04"}


def test_thresholds_loosened_after_the_promotion_keep_nothing(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    told.in_micro(desk, study)
    loose = with_settings(desk, tmp_path, max_live_shortfall_bps="90", rolling_days="365")
    told.session(desk, "micro", sessions=3, cost=31.0)
    found = {each.gate: each for each in standing.look(loose, "KnownDrift")}
    assert found["G33"].limit == 30.0 and "30 days" in found["GT-15"].name
    assert standing.act(loose, "KnownDrift", tuple(found.values())).stage == "paper"


def test_thresholds_tightened_after_the_promotion_count_at_once(
    desk: Desk, study: Study, tmp_path: Path
) -> None:
    told.in_micro(desk, study)
    tight = with_settings(desk, tmp_path, max_live_shortfall_bps="5", max_daily_loss_fraction="0.001")
    told.session(desk, "micro", sessions=3)  # 10 bps
    found = {each.gate: each for each in standing.look(tight, "KnownDrift")}
    assert found["G33"].limit == 5.0 and found["GT-16"].limit == 0.001
    assert not found["G33"].passed


def test_a_tenth_is_one_of_what_was_judged(desk: Desk, study: Study) -> None:
    told.judge(desk, study)
    assert missing(desk, "paper", capital=1e6) == {"GT-10"}
    assert missing(desk, "paper", capital=2e4) == set()
    told.up(desk, "paper", capital=2e4)
    told.session(desk, "paper")
    assert missing(desk, "micro", capital=1e5) == {"GT-10"}
    held = told.up(desk, "micro")
    assert held.certificate is not None and held.certificate.capital_ccy == 2e4  # as before, if nobody says


def test_a_coefficient_beyond_the_model_is_not_cut_down_to_it(desk: Desk, study: Study) -> None:
    told.judge(desk, study, inputs={"impact_root": "1"})
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=2.0, fills=9, root=1.0)
    assert missing(desk, "paper") == set()
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=2.0, fills=9, root=1.2)
    (item,) = lists.checklist(desk, "KnownDrift", "paper").missing
    assert item.id == "GT-19" and item.command == ""  # no run of the gate can be told that


def test_the_gate_says_itself_what_it_was_told(desk: Desk, study: Study) -> None:
    verdict = cost_stress(study, told.GATES, impact_root=0.82)
    record = {"verdicts": [verdict.record]}
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=2.0, fills=9, root=0.8204)
    assert [item.passed for item in lists._measured(desk, "KnownDrift", record)] == [True]
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=2.0, fills=9, root=0.84)
    assert [item.passed for item in lists._measured(desk, "KnownDrift", record)] == [False]


def test_a_gate_that_passed_without_its_number_has_not_asked(
    desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(told.MADE, "walk_forward", [("Sharpe ratio, window 1", 2.4, "above", 1.0)])
    told.judge(desk, study)
    assert missing(desk, "paper") == {"GT-02"}


def test_an_edited_record_of_marks_is_none(desk: Desk, study: Study) -> None:
    told.in_paper(desk, study)
    made = told.session(desk, "paper", mean=-0.052)
    assert "GT-16" in missing(desk, "micro")
    better = replace(made, marks=(*made.marks[:-1], Mark(made.marks[-1].time, 2e5)))
    text = told.canonical(better.as_record()) + "\n"
    (desk.folder("KnownDrift") / "paper.history.json").write_text(text)
    with pytest.raises(QuantbenchError, match="QB-PRO-006"):
        standing.recall(desk, "KnownDrift", "paper")
    assert "PR-02" in missing(desk, "micro")


def test_two_weeks_of_other_days_are_no_session(desk: Desk, study: Study) -> None:
    held = told.in_paper(desk, study)
    assert held.certificate is not None
    desk.clock.sleep(20 * DAY)
    for began in (
        desk.clock.now() - timedelta(23),
        desk.clock.now() - timedelta(10),
    ):  # before it was certified; into the time to come
        made = told.lived([0.001] * 13, "paper", began=began, certificate=held.certificate.hash, told=1)
        standing.keep(desk, replace(made, fills=(told.fill(10.0, time=told.end(made)),)))
        assert missing(desk, "micro") == {"PR-02"}


def test_the_board_says_why_a_record_does_not_count(desk: Desk, study: Study) -> None:
    held = told.in_paper(desk, study).certificate
    assert held is not None
    board = Board(desk, "KnownDrift")
    assert "nothing was recorded in paper yet" in board.card().headline
    began = desk.clock.now() - timedelta(30)
    standing.keep(desk, told.lived([0.001] * 13, "paper", began=began, certificate=held.hash))
    assert "does not count: a replay of days before its certificate" in board.card().headline


def test_a_licence_reads_what_is_new_and_never_comes_back(
    desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.in_paper(desk, study)
    asked = licence(desk, study)
    assert asked() is not None
    for n in range(3):  # of others, of reviews, of histories
        standing.review(desk, "Else", "regimes", who="Ada", why=f"look {n}")
    read_again: list[Any] = []
    real = standing.records_of

    def counted(path: Path, **how: Any) -> Any:
        found = list(real(path, **how))
        read_again.append(len(found))
        return iter(found)

    monkeypatch.setattr(standing, "records_of", counted)
    assert asked() is not None and asked() is not None and read_again == [3]
    whole = desk.journal.read_bytes()
    cut(desk.journal, 2)
    assert asked() is None
    desk.journal.write_bytes(whole)
    assert asked() is None and licence(desk, study)() is not None  # another start looks at all of it


def test_goals_are_shown_and_decide_nothing(desk: Desk, study: Study, tmp_path: Path) -> None:
    goals = {"sharpe_ann": "9", "drawdown_fraction": "0.01", "accuracy_fraction": "0.9"}
    for here, marks in ((desk, [True, True, False]), (with_settings(desk, tmp_path, **goals), [False] * 3)):
        told.judge(desk, study)
        items = [item for item in lists.checklist(here, "KnownDrift", "paper").items if item.id == "GT-20"]
        assert [item.margin > 0.0 for item in items] == marks and all(item.passed for item in items)
        assert all("a goal" in item.limit for item in items)


@pytest.mark.parametrize(
    ("said", "fine"),
    [
        ({("permutation", "seed"): 17}, False),  # tried until one passed
        ({("permutation", "method"): "returns"}, False),
        ({("walk_forward", "embargo"): 0}, False),
        ({("walk_forward", "embargo"): 20}, True),
        ({("leakage", "work"): 1000}, False),
        ({("multiplicity", "draws"): 100}, False),
        ({("multiplicity", "draws"): 2000}, True),
        ({("multiplicity", "most"): "300"}, False),
        ({("cost_stress", "impact_root"): 0.8}, True),
        (
            {("holdout", "lake"): "elsewhere", ("eras", "as_of"): "2020-01-01"},
            True,
        ),  # the data's hash decides
        ({("eras", "runbook"): "0" * 16}, False),  # one of his own
    ],
)
def test_a_gate_that_was_told_to_look_away_has_not_looked(
    said: dict[tuple[str, str], Any], fine: bool, desk: Desk, study: Study
) -> None:
    told.judge(desk, study, told=said)
    items = lists.checklist(desk, "KnownDrift", "paper").missing
    (gate, what), *_ = said
    assert [item.what for item in items] == ([] if fine else ["runbooks, and what they were told"])
    assert fine or items[0].value.startswith(f"{gate}: {what} ")


@pytest.mark.parametrize(
    "left", ["nothing", "the record of the certificate before", "a replay", "an edited file"]
)
def test_who_keeps_no_record_of_real_money_does_not_keep_the_money(
    left: str, desk: Desk, study: Study
) -> None:
    made = told.in_micro(desk, study).certificate
    assert made is not None
    if left != "nothing":
        before = "c" * 64 if left.startswith("the record") else made.hash
        began = desk.clock.now() - timedelta(40 if left == "a replay" else 0)
        standing.keep(desk, told.lived([0.01] * 9, "micro", began=began, certificate=before))
    if left == "an edited file":
        place = desk.folder("KnownDrift") / "micro.history.json"
        place.write_text(place.read_text().replace("100000", "100001", 1))
    closes = told.monitors.next_close("XNYS", made.issued)
    at_close, later = at(desk, closes), at(desk, closes + timedelta(seconds=1))
    assert told.code_of(lambda: standing.look(at_close, "KnownDrift")) == "QB-PRO-006"
    promote.renew(later, "KnownDrift")
    after = standing.act(later, "KnownDrift", standing.look(later, "KnownDrift"))
    assert after.stage == "halted" and after.steps[-1].payload["who"] == "monitors"
