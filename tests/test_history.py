"""What a session leaves for promotion: from its journal and recording to the conditions of the next stage."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from mirror import Mirror, venue
from test_promote import desk, end, in_paper, keys, lived, study  # noqa: F401 (fixtures)

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.config import load
from quantbench.engine.study import Study
from quantbench.execution.floor import Floor
from quantbench.execution.session import hourly, starts
from quantbench.ops import checklist as lists
from quantbench.ops import history
from quantbench.ops.history import history_of
from quantbench.ops.paper import _admit, _licensed, paper
from quantbench.ops.standing import keep, look, recall, status, step
from quantbench.ops.wire import Home


def test_after_a_paper_session_the_checklist_for_micro_has_its_values(desk, study, tmp_path):  # noqa: F811
    """Fails if nobody keeps the history, or if it is not what the session lived."""
    held = in_paper(desk, study)
    before = {item.id: item for item in lists.checklist(desk, "KnownDrift", "micro").items}
    assert "QB-PRO-006" in before["PR-02"].value and "GT-08" not in before
    played = paper("KnownDrift", in_process=True, desk=desk, home=Home.make(tmp_path / "home"), last=20.0)
    made = recall(desk, "KnownDrift", "paper")
    assert made.certificate == held.certificate.hash == played.start["certificate"]
    assert made.marks[-1].equity == pytest.approx(float(played.result.logs.curve["equity"][-1]), rel=1e-12)
    assert len(made.fills) == made.told == len(played.lived.fills) > 0
    items = lists.checklist(desk, "KnownDrift", "micro").items
    after = {item.id: item for item in items}
    assert "QB-PRO-006" not in after["PR-02"].value and after["G29"].passed
    assert not after["PR-02"].passed, "a replay of the past is no paper trading, however well it went"
    days = (made.marks[-1].time - made.began).total_seconds() / 86_400
    lasted, ago = (item for item in items if item.id == "GT-08")
    assert float(lasted.value) == pytest.approx(days, rel=1e-3) and lasted.passed
    assert float(ago.value) > 600.0 and not ago.passed, "nor is it of these weeks"
    assert after["GT-09"].value == "0" and after["GT-09"].passed and after["GT-12"].passed
    assert {"GT-16", "GT-20"} <= after.keys() and "unknown" not in after["GT-20"].value
    with pytest.raises(QuantbenchError, match="QB-PRO-006"):  # nothing follows from it today
        look(desk, "KnownDrift")
    found = look(desk, "KnownDrift", made.marks[-1].time)
    assert all(each.action == "none" for each in found), [each.name for each in found]


def test_worse_fills_cost_what_they_cost(tmp_path):
    """Fails if a fill is laid beside another order's, or a difference has the wrong sign."""
    judged = Study.of("KnownDrift", None, "2026-11-01").with_parameters(weight=0.25)
    first = judged.on(judged.tape.truncate(judged.tape.span[0] + timedelta(days=300)))
    patient = replace(load(), guardian=replace(load().guardian, max_check_seconds=1.0))
    begin = starts(
        settings=patient, wall=WallClock(), admit=lambda *given: (first, given[3], "paper"), venue=venue,
        drive=partial(Mirror, slip=2e-4),
    )  # fmt: skip
    floor = Floor(tmp_path, clock=WallClock(), begin=begin)
    run = floor.start(strategy="KnownDrift", certificate="c" * 64)["run"]
    while floor.session is not None:
        floor.step()
    floor.close()
    made = history_of(tmp_path / "runs", run)
    assert len(made.fills) == made.told > 10
    assert [fill.cost_bps for fill in made.fills] == pytest.approx([2.0] * made.told, rel=1e-3)
    with_days = [fill for fill in made.fills if fill.volatility is not None]
    assert with_days and all(0.0 < fill.volatility < 0.1 for fill in with_days)
    orders = judged.on(first.tape).run().logs.fills
    assert [fill.modelled_bps > 0.0 for fill in made.fills] == [True] * len(orders)


def test_the_last_and_the_lowest_of_each_hour_are_kept_however_the_curve_is_cut():
    rng = np.random.default_rng(7)
    points = np.zeros(500, [("time", "i8"), ("equity", "f8")])
    points["time"] = np.cumsum(rng.integers(1, 20, 500)) * 60_000_000_000
    points["equity"] = 100.0 + np.cumsum(rng.normal(size=500))
    kept = hourly(points)
    for hour in np.unique(points["time"] // 3_600_000_000_000):
        there = points[points["time"] // 3_600_000_000_000 == hour]
        ours = kept[kept["time"] // 3_600_000_000_000 == hour]
        assert 1 <= len(ours) <= 2 and ours["equity"].min() == there["equity"].min() and ours[-1] == there[-1]
    assert (np.diff(kept["time"]) > 0).all()


def test_a_revocation_reaches_the_next_order_of_a_simulated_session(desk, study, tmp_path):  # noqa: F811
    """Fails if a certificate is looked at when a session starts, and then believed."""
    in_paper(desk, study)
    home = Home.make(tmp_path / "home")
    begin = starts(
        settings=desk.settings, wall=WallClock(), admit=_admit(desk, desk.settings), licensed=_licensed(desk)
    )
    floor = Floor(home.folder, clock=WallClock(), begin=begin)
    floor.start(strategy="KnownDrift", last=200.0)
    session = floor.session
    while sum(entry.filled > 0 for entry in session.account.oms.orders.values()) < 3:
        floor.step()
    before = set(session.account.oms.orders)
    step(desk, "KnownDrift", "halted", who="Ann Lee", why="seen enough")
    while floor.session is not None:
        floor.step()
    after = [entry for name, entry in session.account.oms.orders.items() if name not in before]
    assert after and all("QB-RISK-129" in entry.history[-1].why for entry in after)
    floor.close()


CALM = np.tile([0.0065, -0.0035], 6)


@pytest.mark.parametrize(
    "last, ago, stage", [(-0.0499, 0, "paper"), (-0.05, 0, "halted"), (-0.05, 90, "paper")]
)
def test_monitors_act_on_what_was_lived_through_as_it_is_kept(
    desk,  # noqa: F811
    study,  # noqa: F811
    tmp_path,
    monkeypatch,
    last,
    ago,
    stage,
):
    """Fails if they wait for a person, or believe that a replay was today."""
    held, trouble = in_paper(desk, study).certificate, []
    began = desk.clock.now() - timedelta(days=ago)
    made = lived(np.r_[CALM, last], "paper", began=began, certificate=held.hash)
    desk.clock.set(max(end(made), desk.clock.now()))
    monkeypatch.setattr(history, "keep_run", lambda *_: (keep(desk, made), made)[1])
    keeper = history.Keeper(desk, tmp_path, trouble=trouble.append)
    keeper.heard({"kind": "session", "run": "knowndrift-1", "state": "done"})
    keeper.close()
    assert not trouble and status(desk, "KnownDrift").stage == stage
