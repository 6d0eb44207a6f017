"""What is asked of real money, on replayed histories, to the end: the number, the step down in the journal, the next order refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import guards
import numpy as np
import pytest
import test_promote as told
from scipy.stats import ttest_ind

from quantbench.core.clock import Calendar, SimClock
from quantbench.core.settings import Gates, Monitors
from quantbench.engine.study import Study
from quantbench.gates.eras import STATES
from quantbench.ops import certificate as certificates
from quantbench.ops import checklist as lists
from quantbench.ops import monitors, promote, standing
from quantbench.ops.monitors import History, InState
from quantbench.ops.standing import Desk
from quantbench.strategies.drift import KnownDrift

keys, study, desk = told.keys, told.study, told.desk
GATES, LIMITS, START = Gates(), Monitors(), told.START
NYSE = Calendar("XNYS")


def recorded(desk: Desk, returns: Any, stage: str = "micro", **more: Any) -> History:
    """These returns under the certificate that stands; time moves on to their end."""
    held = standing.status(desk, "KnownDrift").certificate
    assert held is not None
    terms = {"fills": (told.fill(10.0, modelled_bps=10.0),), "told": 1} | more
    made = told.lived(returns, stage, began=desk.clock.now(), certificate=held.hash, **terms)
    made = replace(made, fills=tuple(replace(each, time=told.end(made)) for each in made.fills))
    desk.clock.sleep((told.end(made) - desk.clock.now()).total_seconds())
    standing.keep(desk, made)
    return made


def decided(desk: Desk) -> standing.Status:
    promote.renew(desk, "KnownDrift")
    return standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift"))


GOOD = np.tile([0.0065, -0.0035], 13)  # paper has a Sharpe ratio like that


# ---- each monitor, to the end --------------------------------------------------------------------------------


def unrelated(p: float) -> Callable[[Desk, pytest.MonkeyPatch], None]:
    def pair(desk: Desk, patch: pytest.MonkeyPatch) -> None:
        real = standing.study_of
        patch.setattr(standing, "study_of", lambda *_: SimpleNamespace(tape=SimpleNamespace(assets=(1, 2))))
        patch.setattr(standing, "_signs", lambda *_: list(real(desk, "KnownDrift").inputs))
        standing.review(desk, "KnownDrift", "cointegration", who="monitors", why="it was due", p=p)

    return pair


def reviewed(what: str, **found: Any) -> Callable[[Desk, pytest.MonkeyPatch], None]:
    return lambda desk, _: standing.review(
        desk, "KnownDrift", what, who="monitors", why="it was due", **found
    )


def nothing(*_: Any) -> None:
    """The history alone decides."""


plain = reviewed("slippage", ratio=1.0, fills=1, root=None)
RICH = np.tile([0.0195, -0.0045], 13)
CASES: dict[str, tuple[Any, dict[str, Any], Callable[..., None], str, str]] = {
    "all is well": (GOOD, {}, nothing, "micro", ""),
    "shortfall at 30 bps": (GOOD, {"fills": (told.fill(30.0, modelled_bps=10.0),)}, nothing, "micro", ""),
    "shortfall above": (GOOD, {"fills": (told.fill(30.1, modelled_bps=10.0),)}, nothing, "paper", "G33"),
    "a fill that is not logged": (GOOD, {"told": 2}, nothing, "halted", "GT-12"),
    "five percent in a day": (np.r_[RICH, -0.05], {}, nothing, "halted", "GT-16"),
    "less than that": (np.r_[RICH, -0.0499], {}, nothing, "micro", ""),
    "under 60 % of paper": (GOOD - 0.0011, {}, nothing, "halted", "GT-11"),
    "thin thirty days": (np.r_[np.tile(GOOD, 3) + 0.002, np.tile([0.005, -0.005], 13)], {}, nothing, "paper", "GT-15"),
    "a pair": (GOOD, {}, unrelated(0.05), "micro", ""),
    "a pair that came apart": (GOOD, {}, unrelated(0.0501), "paper", "GT-17"),
    "three times the model": (GOOD, {}, reviewed("slippage", ratio=3.0, fills=9, root=0.7), "micro", ""),
    "more than that": (GOOD, {}, reviewed("slippage", ratio=3.01, fills=9, root=0.7), "paper", "GT-19"),
    "as the gates saw": (GOOD, {}, reviewed("states", p=0.01, rows=[]), "micro", ""),
    "not as they saw": (GOOD, {}, reviewed("states", p=0.0099, rows=[]), "paper", "GT-18"),
    "a state they did not see": (GOOD, {}, reviewed("states", p=None, rows=[]), "paper", "GT-18"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_what_is_found_is_done(
    case: str, desk: Desk, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returns, more, before, stage, gate = CASES[case]
    told.judge(desk, study)
    told.up(desk, "paper")
    recorded(desk, GOOD[:13], "paper")
    made = told.up(desk, "micro").certificate
    assert made is not None
    limits = lists.limits_of(desk, study, "micro", made.capital_ccy * made.capital_fraction)
    terms = (desk, "KnownDrift", KnownDrift(**told.CHOSEN), limits, certificates.public_key(desk.key))
    (tmp_path / "account").mkdir()
    account = guards.Desk(tmp_path / "account")
    account.guardian.stage_of = standing.Licence(*terms)
    assert account.ask(strategy="KnownDrift").accepted
    recorded(desk, returns, **more)
    plain(desk, monkeypatch)
    before(desk, monkeypatch)
    after = standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift"))
    assert after.stage == stage
    account.wait(60.0)
    ruling = account.ask(strategy="KnownDrift")
    assert ruling.accepted is (stage == "micro")
    assert ruling.code == (None if stage == "micro" else "QB-RISK-129")
    if stage == "micro":
        return
    *_, gone, down = desk.records()
    assert (gone.kind, gone.payload["certificate"]) == ("revocation", made.hash)
    assert (down.kind, down.payload["to"], down.payload["who"]) == ("promotion", stage, "monitors")
    assert str(down.payload["why"]).startswith(f"{gate}: ") and down.payload["evidence"]


# ---- regimes -----------------------------------------------------------------------------------------------------


def test_each_state_is_compared_as_an_independent_library_does() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        live, seen = rng.normal(0.0, 0.01, 60), rng.normal(0.0005, 0.008, 400)
        here, there = rng.integers(1, 5, 60), rng.integers(1, 5, 400)
        found = monitors.by_state(live, here, seen, there, STATES)
        assert [each.state for each in found] == [STATES[n] for n in sorted({*here.tolist()})]
        chances = []
        for each in found:
            number = STATES.index(each.state)
            mine, theirs = live[here == number], seen[there == number]
            assert (each.live, each.seen) == (len(mine), len(theirs))
            assert each.live_bps == pytest.approx(1e4 * sum(mine) / len(mine))
            if len(mine) >= 5:
                chances.append(ttest_ind(mine, theirs, equal_var=False, alternative="less").pvalue)
                assert each.chance == pytest.approx(chances[-1], rel=1e-9)
        assert monitors.least_chance(found) == pytest.approx(min(1.0, min(chances) * len(chances)))


def test_one_loss_in_a_hundred_worlds_without_a_change_is_all_that_is_refused() -> None:
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(600):
        states, seen = rng.integers(1, 5, 1000), rng.normal(0.0005, 0.01, 1000)
        live = monitors.by_state(rng.normal(0.0005, 0.01, 62), rng.integers(1, 5, 62), seen, states, STATES)
        refused += not monitors.least_chance(live) >= LIMITS.min_regime_fraction
    assert refused <= 15  # 6 are expected, and 15 or fewer with a chance of 99.9 %


@pytest.mark.parametrize(
    ("live", "here", "seen", "there"),
    [
        ([0.01] * 6, [0] * 6, [0.01] * 9, [0] * 9),  # the market is not known
        ([0.01] * 6, [2] * 6, [0.01] * 9, [1] * 9),  # the gates never saw that
        ([0.01] * 4, [1] * 4, [0.01] * 9, [1] * 9),  # too few sessions
        ([], [], [0.01] * 9, [1] * 9),
    ],
)
def test_what_cannot_be_compared_has_no_chance(live: Any, here: Any, seen: Any, there: Any) -> None:
    assert math.isnan(monitors.least_chance(monitors.by_state(live, here, seen, there, STATES)))


def test_returns_that_never_move_are_as_likely_as_they_are_good() -> None:
    for value, chance in ((0.01, 1.0), (0.02, 1.0), (0.009, 0.0)):
        found = monitors.by_state([value] * 6, [1] * 6, [0.01] * 9, [1] * 9, STATES)
        assert found == (InState("calm, rising", 6, value * 1e4, 9, 100.0, chance),)


def weather(closes: np.ndarray, day: int) -> int:
    """The state at the end of this day, from the definition."""
    moves = closes[1:] / closes[:-1] - 1.0
    if day < 83:
        return 0
    deviations = [np.std(moves[k - 20 : k + 1]) for k in range(20, day + 1)]
    price = closes[1 : day + 2][-120:]
    return int(1 + 2 * (deviations[-1] > np.median(deviations)) + (price[-1] < np.mean(price) * (1 - 1e-12)))


@pytest.fixture
def spring(desk: Desk) -> Desk:
    """The same desk in a year of which the market of KnownDrift has bars."""
    return replace(desk, clock=SimClock(datetime(2024, 3, 1, 15, tzinfo=UTC)))


def test_states_are_those_known_when_each_session_opened(spring: Desk, study: Study) -> None:
    told.in_micro(spring, study)
    returns = np.random.default_rng(3).normal(0.001, 0.006, 60)
    live = recorded(spring, returns)
    found = promote.in_states(spring, "KnownDrift", live, spring.clock.now())
    bars = np.asarray(study.tape.load().events)
    bars = bars[bars["kind"] == 0] if 0 in bars["kind"] else bars
    known, closes = bars["known"], np.r_[bars["open"][0], bars["close"]]
    days = [
        d
        for d in NYSE.sessions(live.began.date(), date(2024, 12, 31)).tolist()
        if NYSE.open_close(d)[1] > live.began
    ][:60]
    mine: dict[int, list[float]] = {}
    for day, value in zip(days, returns, strict=True):
        opens = int(NYSE.open_close(day)[0].timestamp() * 1e9)
        last = max(k for k in range(len(known)) if known[k] <= opens)
        mine.setdefault(weather(closes, last), []).append(float(value))
    assert {each.state: each.live for each in found} == {STATES[n]: len(v) for n, v in mine.items()}
    for each in found:
        assert each.live_bps == pytest.approx(1e4 * np.mean(mine[STATES.index(each.state)]), rel=1e-6)
    assert sum(each.seen for each in found) > 500 and len(found) >= 2


def test_a_market_without_news_of_the_time_since_is_not_known(desk: Desk, study: Study) -> None:
    told.in_micro(desk, study)  # in 2026; the bars end in 2025
    live = recorded(desk, GOOD)
    found = promote.in_states(desk, "KnownDrift", live, desk.clock.now())
    assert [each.state for each in found] == ["not known yet"]
    assert math.isnan(monitors.least_chance(found))


@pytest.mark.parametrize(("lost", "stage"), [(0.0, "micro"), (0.008, "paper")])
def test_a_quarter_is_reviewed_and_what_follows_is_done(
    lost: float, stage: str, spring: Desk, study: Study
) -> None:
    told.in_micro(spring, study)
    began = spring.clock.now()
    days = [
        d for d in NYSE.sessions(began.date(), date(2024, 12, 31)).tolist() if NYSE.open_close(d)[1] > began
    ][:64]
    opens = [int(NYSE.open_close(d)[0].timestamp() * 1e9) for d in days]
    _, times, states = market(study)
    rough = states[np.searchsorted(times, opens, side="right") - 1] >= 3
    quiet = np.random.default_rng(4).normal(0.006, 0.004, 64)
    assert rough.sum() >= 5
    recorded(spring, np.where(rough, quiet - lost, quiet))
    standing.review(spring, "KnownDrift", "regimes", who="Ada", why="read")
    assert "states" not in standing.reviews(spring, "KnownDrift")
    after = decided(spring)
    record = standing.reviews(spring, "KnownDrift")["states"].payload
    assert record["who"] == "monitors" and {row["state"] for row in record["rows"]} <= {*STATES}
    assert after.stage == stage
    if stage == "paper":
        assert str(after.steps[-1].payload["why"]).startswith("GT-18: live as the gates saw it")
    else:
        next_date = next(f.due for f in standing.look(spring, "KnownDrift") if f.name.startswith("live as"))
        assert next_date == standing.reviews(spring, "KnownDrift")["states"].time + timedelta(92)


def market(study: Study) -> tuple[Any, Any, Any]:
    from quantbench.gates.eras import market_of, states

    times, moves = market_of(study)
    return moves, times, states(moves)


def test_the_comparison_is_asked_for_from_the_first_quarter_on() -> None:
    live = told.lived(np.tile(GOOD, 4))
    quarter = START + timedelta(92)
    for now, asked, names in (
        (quarter, None, []), (quarter + timedelta(seconds=1), None, ["demote"]), (quarter, START, ["none"]), (START + timedelta(9), START, ["none"]),
    ):  # fmt: skip
        reviewed = monitors.Reviewed(
            regimes=now, slippage=now, slipped=monitors.Slippage(1.0, 1, math.nan), states=asked, chance=0.5
        )
        found = monitors.watch(live, now, paper=told.PAPER, reviewed=reviewed, **told.TERMS)
        assert [each.action for each in found if each.name.startswith("live as")] == names


# ---- sizes --------------------------------------------------------------------------------------------------------


def in_scale(desk: Desk, study: Study, cost: float = 10.0) -> standing.Status:
    told.in_micro(desk, study)
    recorded(desk, GOOD, fills=(told.fill(cost, modelled_bps=10.0),))
    standing.review(
        desk, "KnownDrift", "slippage", who="monitors", why="it was due", ratio=1.0, fills=1, root=None
    )
    return told.up(desk, "scale")


@pytest.mark.parametrize(("cost", "stage"), [(20.0, "scale"), (20.1, "micro")])
def test_a_size_that_costs_more_than_the_one_before_is_taken_back(
    cost: float, stage: str, desk: Desk, study: Study
) -> None:
    in_scale(desk, study)
    recorded(desk, GOOD[:12], "scale", fills=(told.fill(cost, modelled_bps=20.0),))
    found = {each.name: each for each in standing.look(desk, "KnownDrift")}
    assert found["shortfall beyond that of the size before"].value == pytest.approx(cost - 10.0)
    after = standing.act(desk, "KnownDrift", tuple(found.values()))
    assert after.stage == stage and (after.certificate is None) is (stage == "micro")


def test_the_size_before_is_the_one_before_and_not_the_one_of_now(desk: Desk, study: Study) -> None:
    held = in_scale(desk, study, cost=7.0)
    kept = [standing.smaller(desk, held)]
    for cost in (8.0, 9.0):
        recorded(desk, GOOD, "scale", fills=(told.fill(cost, modelled_bps=10.0),))
        told.judge(desk, study)
        standing.review(
            desk, "KnownDrift", "slippage", who="monitors", why="due", ratio=1.0, fills=1, root=None
        )
        held = told.up(desk, "scale", fraction=0.25 if cost == 8.0 else 0.5)  # the first renews what it has
        kept.append(standing.smaller(desk, held))
    assert [monitors.mean_cost(one) for one in kept if one] == pytest.approx([7.0, 7.0, 9.0])


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_without_the_record_of_the_size_before_there_is_no_larger_one(
    change: str, desk: Desk, study: Study
) -> None:
    in_scale(desk, study)
    recorded(desk, GOOD, "scale")
    (place,) = (desk.folder("KnownDrift") / "histories").iterdir()
    place.write_text(
        place.read_text().replace("100000", "100001", 1)
    ) if change == "edited" else place.unlink()
    told.judge(desk, study)
    assert "GT-14" in {item.id for item in lists.checklist(desk, "KnownDrift", "scale").missing}
    assert standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift")).stage == "micro"


@pytest.mark.parametrize(("part", "action"), [(0.6, "none"), (0.5999, "warn"), (1.2, "none")])
def test_a_thinner_sharpe_ratio_warns_and_stands_in_the_way(part: float, action: str) -> None:
    base = np.tile([0.006, -0.003], 10)
    before, live = told.lived(base), told.lived(base - base.mean() * (1.0 - part), "scale")
    assert monitors.size_sharpe(live, before, GATES, told.end(live)).action == action
    assert (
        monitors.size_sharpe(replace(live, marks=live.marks[:4]), before, GATES, live.marks[3].time).action
        == "none"
    )
    assert monitors.size_sharpe(live, replace(before, marks=()), GATES, told.end(live)).action == "warn"


def test_the_way_down_is_open_while_nothing_was_filled(desk: Desk, study: Study) -> None:
    in_scale(desk, study)
    recorded(desk, GOOD, "scale", fills=(), told=0)
    found = {each.name: each.action for each in standing.look(desk, "KnownDrift")}
    assert found["shortfall beyond that of the size before"] == "none"
