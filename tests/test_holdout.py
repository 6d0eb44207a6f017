"""The holdout gate: sealed for the study, opened once for a family after the record, by a fresh process, and the same again from the sealed bytes."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pytest

from quantbench.core.chain import read
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import WallClock
from quantbench.core.settings import Gates
from quantbench.data.seal import Project
from quantbench.data.store import Lake, scan
from quantbench.data.synth import grid, trends
from quantbench.engine.study import Study
from quantbench.gates import holdout as module
from quantbench.gates.fit import part, sessions
from quantbench.gates.holdout import holdout, rehearsal, sealed
from quantbench.gates.verdict import Verdict
from quantbench.gates.walkforward import inside
from quantbench.strategies.drift import KnownDrift, market

AS_OF = "2026-11-01"
WHOLE = 1200  # sessions of the small market: 960 open, 240 sealed

OWN = """
import os, time
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study, required
from quantbench.engine.tape import Tape
from quantbench.strategies.drift import KnownDrift

EDGE = {edge} * 86_400_000_000_000


def study(cls, lake, as_of):
    tape = Tape.from_lake(required(lake, cls), as_of=as_of, assets="TIDE", calendar="XNYS").load()
    return Study(cls(), tape, {{}}, {{}}, "TIDE")


class Renamed(Strategy):
    "Another name, other names within, other numbers."
    length: int = param(28, low=2, high=366)
    offset: int = param(0, low=-366, high=366)
    up: int = param(13, low=0, high=366)
    part: float = param(0.4, low=0.0, high=1.0)
    study = classmethod(study)

    def on_bar(self, candle, exchange):
        phase = (candle.known // 86_400_000_000_000 + 1 + self.offset) % self.length
        direction = 1.0 if phase < self.up else -1.0
        if direction * exchange.position(candle.asset) <= 0.0:
            exchange.target_weight(candle.asset, direction * self.part)


class Heir(KnownDrift):
    "A child of it."
    weight: float = param(0.3, low=0.0, high=1.0)
    study = classmethod(study)


class Dies(Strategy):
    "Ends its process at the first sealed bar."
    study = classmethod(study)

    def on_bar(self, bar, market):
        if bar.known >= EDGE and not os.path.exists("alive"):
            os._exit(9)
        market.target_weight(bar.asset, [0.5, -0.5][bar.known // 86_400_000_000_000 % 2])


class Falls(Strategy):
    "Raises at a sealed bar."
    study = classmethod(study)

    def on_bar(self, bar, market):
        held = [market.position(asset) for asset in range(1)]
        if bar.known >= EDGE:
            raise OSError("/home/somebody/secret")
        market.target_weight(bar.asset, -0.5 if held[0] > 0 else 0.5)


class Idle(Strategy):
    "Has nothing to fit."
    calm: int = param(1)
    study = classmethod(study)

    def on_bar(self, bar, market):
        pass


class Restless(Strategy):
    "Another result each time."
    study = classmethod(study)

    def on_bar(self, bar, market):
        chance = int.from_bytes(os.urandom(1), "little") / 255
        market.target_weight(bar.asset, max(0.1, min(0.9, chance)))
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = Lake.create(tmp_path_factory.mktemp("made") / "lake", clock=WallClock())
    lake.append("bars", market(sessions=WHOLE).bars, source="synth")
    lake.append("bars", trends(["OTHER"], grid(3000), seed=1).bars, source="synth")
    return lake


@pytest.fixture(scope="module")
def made(tmp_path_factory, lake) -> Project:
    return sealed(
        KnownDrift.study(lake, module.moment(AS_OF)),
        lake,
        tmp_path_factory.mktemp("made") / "project",
        Gates(),
    )


@pytest.fixture
def project(tmp_path, made) -> Project:
    """A copy that a test may open."""
    shutil.copytree(made.root, tmp_path / "project")
    return Project.open(tmp_path / "project", clock=WallClock())


@pytest.fixture
def own(tmp_path, project, monkeypatch):
    """The strategies above, in a package of the user's, in the registry of whoever stands there."""
    edge = int(np.datetime64(project.boundary.replace(tzinfo=None), "D").astype(int))
    (tmp_path / "theirs.py").write_text(dedent(OWN.format(edge=edge)))
    (tmp_path / "pyproject.toml").write_text('[tool.quantbench]\nstrategies = ["theirs"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(module.__file__).parents[2]}")
    monkeypatch.delitem(__import__("sys").modules, "theirs", raising=False)
    return project


def ask(project: Project, name: str = "KnownDrift", **more) -> Verdict:
    study = Study.of(name, project.root, AS_OF)
    return holdout(study, Gates(), project=project, as_of=AS_OF, **more)


def kinds(project: Project) -> list[str]:
    return [record.kind for record in read(project.root / "journal")]


def test_the_boundary_lies_at_the_last_fifth_of_the_studys_own_sessions(lake, made, tmp_path):
    """Kills a boundary of whatever the lake holds, one session too many or too few, and a project of foreign assets."""
    table = made.tables["bars"]
    assert (table["open"], table["sealed"]) == (960, 240) == (WHOLE - math.ceil(0.2 * WHOLE), 240)
    kept = scan(Lake.open(made.root / "lake", clock=WallClock()), "bars")
    assert set(kept["asset"].to_pylist()) == {"TIDE"}
    assert max(kept["known_time"].to_pylist()) < made.boundary
    whole = KnownDrift.study(lake, module.moment(AS_OF))
    late = part(whole, sessions(whole.tape)[600], sessions(whole.tape)[-1])  # a study that begins later
    assert sealed(late, lake, tmp_path / "late", Gates()).tables["bars"]["sealed"] == 120
    assert sessions(whole.tape)[960] == (made.boundary - module.datetime(1970, 1, 1, tzinfo=module.UTC)).days


def test_it_measures_the_sealed_sessions_with_what_was_fitted_on_the_open_ones(lake, project):
    """Kills a fit that saw the seal, a cold start at the boundary, and a measure of the whole history."""
    verdict = ask(project)
    study = KnownDrift.study(lake, module.moment(AS_OF))
    row, days = verdict.figures["window"], sessions(study.tape)
    track = inside(study.with_parameters(**row["parameters"]).run(), int(days[960]), int(days[-1]))
    assert row["sessions"] == len(track.returns) == 240
    assert row["return"] == pytest.approx(float(track.equity[-1] - 1), rel=1e-12)
    open_part = Study.of("KnownDrift", project.root, AS_OF)
    assert row["parameters"] == dict(module.fit(open_part).parameters)
    assert {name: verdict.inputs[name] for name in open_part.inputs} == open_part.inputs
    assert verdict.inputs["holdout"] == study.tape.hash[:16]
    assert [c.limit for c in verdict.checks] == [1.0, 0.2, 20.0, 0.2]


def test_the_record_comes_first_and_the_second_opening_is_refused(project):
    verdict = ask(project)
    assert kinds(project) == ["seal", "holdout_read", "holdout_verdict"]
    last = list(read(project.root / "journal"))[-1]
    assert last.payload["verdict"] == verdict.hash
    for more in ({}, {"seed": 3}, {"who": "somebody else"}):
        with pytest.raises(QuantbenchError, match="QB-SEAL-002"):
            ask(project, **more)
    loose = dataclasses.replace(Gates(), min_windows_count=4)
    with pytest.raises(QuantbenchError, match="QB-SEAL-002"):
        holdout(Study.of("KnownDrift", project.root, AS_OF), loose, project=project, as_of=AS_OF)
    assert kinds(project) == ["seal", "holdout_read", "holdout_verdict"]


def test_it_is_computed_again_from_the_sealed_bytes(project):
    """Kills a stored verdict that is handed out, and a repetition that counts as an opening or asks for another thing."""
    with pytest.raises(QuantbenchError, match="QB-SEAL-007"):
        ask(project, again=True)
    verdict = ask(project)
    assert ask(project, again=True).json == verdict.json and len(project.openings()) == 1
    with pytest.raises(QuantbenchError, match="QB-SEAL-007"):
        ask(project, again=True, seed=1)
    file = project.root / "sealed" / "bars"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(QuantbenchError, match="QB-SEAL-003"):
        ask(project, again=True)


@pytest.mark.parametrize("name", ["Renamed", "Heir"])
def test_renaming_tuning_and_inheriting_reset_nothing(own, name):
    """Kills a lineage that is a name or a hash of the code; a child lives off its base."""
    ask(own)
    with pytest.raises(QuantbenchError, match="QB-SEAL-002"):
        ask(own, name)
    with pytest.raises(QuantbenchError, match="QB-SEAL-007"):
        ask(own, name, again=True)
    assert len(own.openings()) == 1


def test_another_strategy_may_look_and_is_counted(own):
    ask(own)
    other = ask(own, "Falls")
    assert len(own.openings()) == 2 and other.inputs["strategy"] == "Falls"
    assert len({r.payload["lineage"] for r in own.openings()}) == 2


def test_two_at_once_are_one_opening(project):
    """Kills a look before the record: whoever comes second is refused, however close."""

    def one(_):
        try:
            return ask(project).passed
        except QuantbenchError as error:
            return error.code

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, range(2)))
    assert found.count("QB-SEAL-002") == 1 and len(project.openings()) == 1


def test_a_process_that_dies_has_used_up_the_opening(own):
    """Kills a record that comes after the look. What was begun may be finished, unchanged, and then stands."""
    with pytest.raises(QuantbenchError, match="QB-GATE-101"):
        ask(own, "Dies")
    assert kinds(own) == ["seal", "holdout_read"]
    with pytest.raises(QuantbenchError, match="QB-SEAL-002"):
        ask(own, "Dies")
    Path("alive").touch()
    done = ask(own, "Dies", again=True)
    assert kinds(own) == ["seal", "holdout_read", "holdout_again", "holdout_verdict"]
    assert ask(own, "Dies", again=True).hash == done.hash


def test_a_strategy_that_raises_on_sealed_bars_has_failed(own):
    verdict = ask(own, "Falls")
    assert not verdict.passed and verdict.notes[0].startswith("QB-ENG") and "secret" not in verdict.json
    assert kinds(own)[-1] == "holdout_verdict"
    assert [check.passed for check in verdict.checks] == [False, False, True, True]


def test_what_cannot_be_fitted_is_not_opened(own):
    """Kills an opening that is spent on nothing."""
    verdict = ask(own, "Idle")
    assert not verdict.passed and "QB-GATE-030" in verdict.notes[0] and kinds(own) == ["seal"]


def test_another_result_than_the_recorded_one_is_refused(own):
    ask(own, "Restless")
    with pytest.raises(QuantbenchError, match="QB-GATE-102"):
        ask(own, "Restless", again=True)


def test_a_study_of_ones_own_is_not_opened(project):
    """Kills a gate that judges what it was handed: the registry's is judged, and only if it is the same."""
    study = Study.of("KnownDrift", project.root, AS_OF)
    for changed in (
        study.with_parameters(shift=1),
        dataclasses.replace(study, search={}),
        dataclasses.replace(study, choices={"cash": 1e6}),
        study.on(study.tape.poison(study.tape.span[0], 1)),
    ):
        with pytest.raises(QuantbenchError, match="QB-GATE-100"):
            holdout(changed, Gates(), project=project, as_of=AS_OF)
    assert kinds(project) == ["seal"]


def test_where_nothing_is_sealed_nothing_passes(lake, tmp_path):
    for place in (None, lake.root, tmp_path / "nothing", str(lake.root)):
        verdict = holdout(KnownDrift.study(None, None), Gates(), project=place, as_of=AS_OF)
        assert not verdict.passed and verdict.notes == ("nothing is sealed",)
        assert not any(check.passed for check in verdict.checks)


def test_a_small_seal_does_not_pass(lake, tmp_path):
    """Kills a project that sealed a tenth to be judged by a tenth."""
    from quantbench.data.seal import create

    edge = module.datetime(2019, 8, 1, tzinfo=module.UTC)
    little = create(lake, tmp_path / "little", who="tester", clock=WallClock(), assets=["TIDE"], at=edge)
    verdict = ask(little)
    share = next(check for check in verdict.checks if check.name.startswith("part of history"))
    assert 0 < share.value < 0.2 and not share.passed and not verdict.passed


def test_the_verdict_is_plain_and_knows_no_place(project):
    verdict = ask(project)
    assert Verdict.of(json.loads(verdict.json)) == verdict and len(verdict.json) < 50_000
    assert str(project.root) not in verdict.json and "/" not in "".join(verdict.notes)


@pytest.mark.parametrize("fraction", [0.2, 0.35])
def test_the_rehearsal_is_open_where_the_study_is(tmp_path, fraction):
    """Kills an open part that differs from the tape the other gates judge."""
    gates = dataclasses.replace(Gates(), holdout_fraction=fraction)
    project = rehearsal(tmp_path / "tide", gates)
    assert Study.of("KnownDrift", project.root, AS_OF).inputs == KnownDrift.study(None, None).inputs
    table = project.tables["bars"]
    assert table["sealed"] / (table["sealed"] + table["open"]) >= fraction


def test_the_sealed_rows_are_gone_from_the_disk_afterwards(project, tmp_path, monkeypatch):
    """Kills a decrypted lake that is left behind."""
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    monkeypatch.setattr(module.TemporaryDirectory.__module__ + ".tempdir", str(room), raising=True)
    ask(project)
    assert not list(room.iterdir())
    close = market(sessions=WHOLE).bars["close"].to_numpy()[-1]
    needle = pa.array([close]).buffers()[1].to_pybytes()[:8]
    assert not any(needle in p.read_bytes() for p in project.root.rglob("*") if p.is_file())
