"""The walk-forward: parameters know the past alone, windows are what they say, what fails is recorded and never passes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from quantbench.core.settings import Gates
from quantbench.engine.metrics import DAY
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.engine.tape import Tape
from quantbench.engine.window import per_asset, window
from quantbench.gates import fit as fit_module
from quantbench.gates import walkforward
from quantbench.gates.fit import fit, part, sessions
from quantbench.gates.verdict import Verdict
from quantbench.gates.walkforward import inside, stitched, traded, walk_forward
from quantbench.strategies.drift import KnownDrift


class Slow(Strategy):
    """Long while the close is above its mean of `slow`."""

    slow: int = param(100, low=2)
    idle: int = param(0, low=0)
    closes = per_asset(window("slow"))

    def on_bar(self, bar, market):
        closes = self.closes[bar.asset]
        closes.push(bar.close)
        if closes.full:
            market.target_weight(bar.asset, 0.5 if bar.close > closes.mean() else -0.5)


class Hold(Strategy):
    """Buy once."""

    def on_bar(self, bar, market):
        if market.position(bar.asset) == 0:
            market.target_weight(bar.asset, 0.9)


class Never(Strategy):
    """Do nothing."""

    days: int = param(1, low=1)

    def on_bar(self, bar, market):
        pass


class Raises(Strategy):
    """Runs interpreted and raises from a day on."""

    day: int = param(0)

    def on_bar(self, bar, market):
        if bar.known // 86_400_000_000_000 >= self.day:
            raise OSError("/home/somebody/secret")
        market.target_weight(bar.asset, [0.5, -0.5][bar.known // 86_400_000_000_000 % 2])


class Unstarted(KnownDrift):
    """Cannot begin."""

    def on_start(self, market):
        raise KeyError(f"/home/somebody/secret{market.now}")


@pytest.fixture(scope="module")
def study() -> Study:
    return KnownDrift.study(None, None)


@pytest.fixture(scope="module")
def verdict(study) -> Verdict:
    return walk_forward(study, Gates())


@pytest.fixture(scope="module")
def days(study):
    return sessions(study.tape)


def dates(text: str) -> int:
    return int(np.datetime64(text, "D").astype(int))


def test_windows_follow_each_other_up_to_the_last_session(verdict, days):
    """Kills windows of unequal size, a gap or an overlap between them, a last one that is left out, a training that reaches too far."""
    rows = verdict.figures["windows"]
    assert [row["sessions"] for row in rows] == [420] * 3 and dates(rows[-1]["to"]) == days[-1]
    starts = [np.searchsorted(days, dates(row["from"])) for row in rows]
    ends = [np.searchsorted(days, dates(row["to"])) for row in rows]
    assert starts == [1260, 1680, 2100] and ends == [1679, 2099, 2519]
    taught = [np.searchsorted(days, dates(row["train_to"])) for row in rows]
    assert [start - last for start, last in zip(starts, taught, strict=True)] == [
        7
    ] * 3  # one purged, five under embargo
    assert {row["train_from"] for row in rows} == {"2015-01-02"}
    parts = [(row["fold"], row["part"]) for row in verdict.figures["splits"]]
    assert parts == [(fold, name) for fold in range(3) for name in ("train", "purge", "embargo", "test")]


def test_the_fit_knows_the_training_alone(study, days):
    """Kills a fit on the whole tape, or on training and window: garbage after the training changes nothing of it."""
    edge = int(days[1253])
    spans = (int(days[0]), edge), (int(days[1260]), int(days[1679]))
    poisoned = study.on(study.tape.poison((edge + 1) * DAY, 3))
    ours, theirs = traded(study, *spans), traded(poisoned, *spans)
    assert ours.fitted.record == theirs.fitted.record == fit(part(study, days[0], edge)).record
    assert ours.sharpe != theirs.sharpe


def test_a_window_knows_nothing_after_it(study, verdict, days):
    """Kills a run over the whole tape whose later events reach back, and a stitched curve that shifts by a session."""
    poisoned = walk_forward(study.on(study.tape.poison((int(days[2099]) + 1) * DAY, 3)), Gates())
    assert poisoned.figures["windows"][:2] == verdict.figures["windows"][:2]
    changed = walk_forward(study.on(study.tape.poison((int(days[2098]) + 1) * DAY, 3)), Gates())
    assert changed.figures["windows"][1] != verdict.figures["windows"][1]


def test_a_window_opens_warm_and_in_position():
    """Kills a run that begins with the window: its average would need all of it, and its first day would earn nothing."""
    tape = Tape.synthetic("trends", ["SYN"], seed=4, sessions=400)
    slow, dated = Study(Slow(slow=100), tape), sessions(tape)
    found = traded(slow, (int(dated[0]), int(dated[299])), (int(dated[300]), int(dated[359])))
    whole = slow.run().track
    assert np.allclose(found.track.returns, whole.returns[300:360], rtol=0, atol=1e-12)
    assert found.track.returns[0] != 0 and len(found.track.returns) == 60


def test_the_first_window_of_a_history_is_measured_from_the_capital(study, days):
    track = inside(study.run(), int(days[0]), int(days[99]))
    assert np.allclose(track.returns, study.run().track.returns[:100], atol=1e-12)


def test_every_window_is_judged_alone(study, verdict):
    """Kills a mean over the windows: a limit between the worst and the others fails."""
    worst = sorted(row["out_of_sample"] for row in verdict.figures["windows"])
    strict = dataclasses.replace(Gates(), min_window_sharpe_ann=(worst[0] + worst[1]) / 2)
    judged = walk_forward(study, strict)
    sharpe = [check for check in judged.checks if check.name.startswith("Sharpe")]
    assert [check.passed for check in sharpe].count(False) == 1 and not judged.passed and verdict.passed
    assert all(check.low < check.value < check.high for check in sharpe)


def test_the_drawdown_is_that_of_the_stitched_curve():
    """Kills the worst window's: a fall that begins in one and ends in the next is one fall."""
    tape = Tape.synthetic("trends", ["SYN"], seed=5, sessions=900, drift=-0.4, volatility=0.2)
    judged = walk_forward(Study(Hold(), tape), Gates(), size=100)
    check = next(check for check in judged.checks if check.name.startswith("max drawdown"))
    single = [row["max_drawdown"] for row in judged.figures["windows"]]
    assert check.value > max(single) > 0 and not check.passed
    assert check.low <= check.value <= check.high or check.low < check.high


def test_the_stitched_curve_is_all_windows_in_their_order(study, days):
    spans = [((int(days[0]), int(days[a - 7])), (int(days[a]), int(days[a + 99]))) for a in (1300, 1400)]
    done = [traded(study, *each, fold) for fold, each in enumerate(spans)]
    curve = stitched(done)
    grown = np.prod([w.track.equity[-1] for w in done])
    assert (
        len(curve.returns) == 200
        and (np.diff(curve.ends) > 0).all()
        and abs(curve.equity[-1] - grown) < 1e-12
    )
    assert stitched([*done, dataclasses.replace(done[0], track=None)]) is None


@pytest.mark.parametrize("count", [3, 5])
def test_the_settings_say_how_many_windows(study, count):
    judged = walk_forward(study, dataclasses.replace(Gates(), min_windows_count=count))
    assert len(judged.figures["windows"]) == count and judged.checks[0].limit == count


def test_fewer_windows_than_the_settings_ask_for_do_not_pass(study):
    """Kills a count that is compared with itself."""
    judged = walk_forward(study, Gates(), windows=2)
    assert not judged.passed and [check.passed for check in judged.checks].count(False) == 1


@pytest.mark.parametrize("strategy", [Never(), Hold(), Unstarted()], ids=lambda s: type(s).__name__)
def test_nothing_traded_constant_returns_and_a_start_that_raises_fail(strategy):
    """Never: no fills. Hold on a price that never moves: constant returns. Neither is a pass, nor a crash."""
    flat = Tape.synthetic("trends", ["TIDE"], seed=1, sessions=600, drift=0.0, volatility=1e-6)
    still = np.array(flat.events)
    for name in ("open", "high", "low", "close"):
        still[name] = 100.0
    tape = Tape.from_events(still, flat.assets, adjustment="raw", interval="1d")
    judged = walk_forward(Study(strategy, tape), Gates())
    assert not judged.passed and judged.checks[0].value == 0 and len(judged.checks) == 6
    assert not any(check.passed for check in judged.checks[:4]) and judged.notes
    assert "secret" not in judged.json


def test_a_fold_that_raises_is_a_recorded_result(study, days):
    """Kills a crash, a window that is left out, and a message with a path of the machine."""
    judged = walk_forward(Study(Raises(day=int(days[2200])), study.tape), Gates())
    errors = [row["error"] for row in judged.figures["windows"]]
    assert errors[:2] == ["", ""] and errors[2].startswith("QB-ENG") and "secret" not in judged.json
    assert not judged.passed and judged.checks[0].value == 2 and "curve" not in judged.figures
    assert not next(check for check in judged.checks if check.name.startswith("max drawdown")).passed
    early = walk_forward(Study(Raises(day=int(days[10])), study.tape), Gates())
    assert all(row["error"] for row in early.figures["windows"]) and not early.passed


@pytest.mark.parametrize("count", [1, 2, 39, 119])
def test_a_history_that_is_too_short_fails_with_a_note(study, days, count):
    judged = walk_forward(part(study, days[0], days[count - 1]), Gates())
    assert not judged.passed and len(judged.checks) == 1 and "too short" in judged.notes[0]


def test_a_tie_goes_to_the_first_of_the_grid_on_any_number_of_threads():
    tape = Tape.synthetic("trends", ["SYN"], seed=4, sessions=300)
    tied = Study(Slow(), tape, search={"idle": (9, 3, 7), "slow": (40, 20)})
    assert fit(tied, workers=1).record == fit(tied, workers=2).record
    assert fit(tied).parameters["idle"] == 3  # a grid ascends


def test_what_the_search_does_not_name_stays(study):
    """Kills a fit of the class in place of the strategy."""
    shifted = dataclasses.replace(study, strategy=KnownDrift(cycle=27), search={"rise": (11, 14)})
    own = {p["rise"]: p["sharpe"] for p in fit(shifted).points}
    alone = study.with_parameters(cycle=27, rise=11).run().metrics["Sharpe"]
    assert abs(own[11] - alone) < 1e-9


def test_rolling_is_said_and_trains_on_so_many_sessions(study, days):
    judged = walk_forward(study, Gates(), scheme="rolling", train=500)
    rows = judged.figures["windows"]
    spans = [np.searchsorted(days, [dates(row["train_from"]), dates(row["train_to"])]) for row in rows]
    assert [int(b - a) for a, b in spans] == [493] * 3 and "rolling" in judged.notes[-1]


def test_a_verdict_is_plain_small_and_the_same_in_every_process(verdict):
    """Kills an order of a set, an identity or a time in the record."""
    assert Verdict.of(json.loads(verdict.json)).hash == verdict.hash and len(verdict.json) < 50_000
    code = (
        "from quantbench.core.settings import Gates\nfrom quantbench.gates.walkforward import walk_forward\n"
        "from quantbench.strategies.drift import KnownDrift\nprint(walk_forward(KnownDrift.study(None, None), Gates()).hash)"
    )
    for seed in ("1", "2"):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed})  # fmt: skip
        assert ran.stdout.strip() == verdict.hash, ran.stderr


def test_a_window_is_run_with_what_was_fitted_for_it(study, days):
    """Kills a run with the strategy's own parameters."""
    spans = (int(days[0]), int(days[1253])), (int(days[1260]), int(days[1679]))
    found = traded(study, *spans)
    assert found.fitted.parameters != {"shift": 0, "rise": 14}
    track = inside(study.with_parameters(**found.fitted.parameters).run(), *spans[1])
    assert np.allclose(found.track.returns, track.returns, rtol=0, atol=1e-12)


def test_an_error_that_is_no_refusal_is_recorded_by_its_kind(study, monkeypatch):
    """Kills a gate that stops at what the engine did not expect, and one that repeats a message with a path in it."""

    def broken(_):
        raise ValueError("/home/somebody/secret")

    monkeypatch.setattr(walkforward, "fit", broken)
    judged = walk_forward(study, Gates())
    assert [row["error"] for row in judged.figures["windows"]] == ["ValueError"] * 3 and not judged.passed
    assert "secret" not in judged.json


def test_of_equal_candidates_the_one_that_trades_least_is_taken():
    assert fit_module._best(np.array([np.nan, 1.0, 1.0, 1.0]), np.array([0.0, 3.0, 2.0, 2.0])) == 2
