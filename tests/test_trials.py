"""What was tried: relatives are found under any name, each configuration counts once, and windows that were seen too often are named."""

from __future__ import annotations

import dataclasses
import itertools
import linecache
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.settings import Gates
from quantbench.data.looks import Code, Look, append, read
from quantbench.engine.explore import Hold
from quantbench.engine.strategy import Strategy, code_of, param, state
from quantbench.engine.study import Study
from quantbench.engine.sweep import sweep
from quantbench.engine.tape import Tape
from quantbench.engine.window import per_asset, window
from quantbench.gates.trials import LOOKS, akin, judged, lineage, replay, summary, traits, trials
from quantbench.gates.walkforward import walk_forward
from quantbench.strategies.crossover import MovingAverageCross
from quantbench.strategies.drift import KnownDrift
from quantbench.strategies.momentum import CrossSectionalMomentum
from quantbench.strategies.pairs import PairsReversion
from quantbench.strategies.quoter import InventoryQuoter

SHIPPED = [MovingAverageCross, CrossSectionalMomentum, PairsReversion, InventoryQuoter, KnownDrift, Hold]


def made(name: str, states: str, body: str) -> type[Strategy]:
    """A strategy from text, as of a cell."""
    inner = textwrap.indent(textwrap.dedent(body), "        ")
    text = f"class {name}(Strategy):\n{textwrap.indent(textwrap.dedent(states), '    ')}\n    def on_bar(self, bar, market):\n{inner}\n"
    file = f"<cell {name} {len(linecache.cache)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {
        "Strategy": Strategy, "window": window, "param": param, "state": state, "per_asset": per_asset,
    }  # fmt: skip
    exec(compile(text, file, "exec"), space)  # noqa: S102
    return space[name]


CROSS = """
    self.short.push(bar.close)
    self.long.push(bar.close)
    if self.long.full:
        market.target_weight(bar.asset, 0.9 if self.short.mean() > self.long.mean() else 0.0)
"""
LENGTHS = """
    fast: int = 10
    slow: int = 40
    short = window("fast")
    long = window("slow")
"""
CROSSING = made("Cross", LENGTHS, CROSS)
EDITED = {
    "renamed": made("Brilliant", LENGTHS, CROSS),
    "other names and numbers": made(
        "Other",
        "a: int = 7\nb: int = 99\nx = window('a')\ny = window('b')",
        """
        self.x.push(bar.close)
        self.y.push(bar.close)
        if self.y.full:
            market.target_weight(bar.asset, 0.31 if self.x.mean() > self.y.mean() else 0.07)
        """,
    ),
    "reformatted, with remarks": made(
        "Formatted",
        LENGTHS,
        """
        'A remark.'
        self.short.push(
            bar.close,
        )   # the short one
        self.long.push(bar.close)

        if (self.long.full):
            market.target_weight(
                bar.asset,
                (0.9 if (self.short.mean()
                         > self.long.mean()) else 0.0))
        """,
    ),
    "goes short": made(
        "Shorts",
        LENGTHS,
        """
        self.short.push(bar.close)
        self.long.push(bar.close)
        if self.long.full:
            above = self.short.mean() > self.long.mean()
            market.target_weight(bar.asset, 0.9 if above else -0.9)
        """,
    ),
    "with a stop": made(
        "Stops",
        LENGTHS,
        "if bar.close < 0.9 * market.average_price(bar.asset):\n    market.target_weight(bar.asset, 0.0)\n    return"
        + textwrap.dedent(CROSS),
    ),
    "typical price": made("Typical", LENGTHS, CROSS.replace("bar.close", "(bar.high + bar.low) / 2")),
    "padded with a lot that does nothing": made(
        "Padded",
        LENGTHS + "\n    total: float = state(0.0)\n    seen: int = state(0)\n",
        """
        self.total += bar.high - bar.low
        self.seen += 1
        if self.seen % 1000 == 999:
            self.total = self.total / 2 + abs(bar.open)
        while self.total > 1e9:
            self.total -= min(bar.volume, 1e8)
        if market.position(bar.asset) < -1e12 and self.seen < 0:
            market.cancel(self.seen)
        """
        + CROSS.replace("\n    ", "\n        "),
    ),
}
STRANGERS = {
    "breakout": made(
        "Breakout",
        "days: int = 20\nhigh = window('days')\nlow = window('days')",
        """
        if self.high.full:
            if bar.close > self.high.max():
                market.target_weight(bar.asset, 0.9)
            elif bar.close < self.low.min():
                market.target_weight(bar.asset, 0.0)
        self.high.push(bar.high)
        self.low.push(bar.low)
        """,
    ),
    "reversion": made(
        "Reversion",
        "days: int = 20\nentry: float = 2.0\nrecent = window('days')",
        """
        self.recent.push(bar.close)
        if not self.recent.full:
            return
        z = self.recent.zscore()
        if z < -self.entry:
            market.target_weight(bar.asset, 0.9)
        elif z > 0:
            market.target_weight(bar.asset, 0.0)
        """,
    ),
    "strength": made(
        "Strength",
        "days: int = 14\ngains = window('days')\nlosses = window('days')\nlast: float = state(0.0)",
        """
        change = bar.close - self.last
        self.gains.push(max(change, 0.0))
        self.losses.push(max(-change, 0.0))
        self.last = bar.close
        if self.gains.full:
            strength = 100.0 * self.gains.mean() / (self.gains.mean() + self.losses.mean() + 1e-9)
            if strength < 30:
                market.target_weight(bar.asset, 0.9)
            elif strength > 70:
                market.target_weight(bar.asset, 0.0)
        """,
    ),
    "trend": made(
        "Trend",
        "days: int = 120\nrecent = window('days')",
        """
        if self.recent.full:
            market.target_weight(bar.asset, 0.9 if bar.close > self.recent[0] else 0.0)
        self.recent.push(bar.close)
        """,
    ),
}  # fmt: skip


def of(cls: type[Strategy]) -> list[str]:
    return traits(code_of(cls))


# ---- relatives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITED)
def test_the_same_rule_is_found_whatever_was_done_to_it(edit: str) -> None:
    """Kills names, numbers, layout or remarks that count, and padding that hides."""
    assert akin(of(CROSSING), of(EDITED[edit])) and akin(of(EDITED[edit]), of(CROSSING))
    codes = {code.hash: code for code in (code_of(CROSSING), code_of(EDITED[edit]))}
    assert len(codes) == 2 or edit in ("reformatted, with remarks",)
    assert len(lineage(code_of(EDITED[edit]), codes)) == len(codes)


def test_strangers_are_not_taken_for_relatives() -> None:
    """All shipped strategies and the common rules, each against each."""
    for one, other in itertools.combinations([CROSSING, *STRANGERS.values(), *SHIPPED], 2):
        assert not akin(of(one), of(other)), f"{one.__name__}, {other.__name__}"


@pytest.mark.parametrize("cls", SHIPPED)
def test_each_shipped_strategy_is_found_under_another_name(cls: type[Strategy]) -> None:
    code = code_of(cls)
    renamed = dataclasses.replace(code, hash="0" * 16, name="Mine", ancestors=())
    assert {one.name for one in lineage(renamed, {code.hash: code})} == {"Mine", cls.__name__}
    others = {one.hash: one for one in map(code_of, SHIPPED) if one.hash != code.hash}
    assert lineage(renamed, others) == (renamed,)


def test_an_ancestor_or_a_name_in_common_is_enough() -> None:
    base, texts = code_of(CROSSING), [code_of(each).text for each in STRANGERS.values()]
    codes = [
        Code("c1", "One", texts[0], (base.hash,)),
        Code("c2", "Two", texts[1], ("gone",)),
        Code("c3", "Three", texts[2], ("gone", "other")),
        Code("c4", "Three", texts[3]),
        Code("c5", "Alone", ""),
    ]
    family = {one.hash: {member.hash for member in lineage(one, {c.hash: c for c in codes})} for one in codes}
    assert family["c2"] == family["c3"] == family["c4"] == {"c2", "c3", "c4"}
    assert family["c1"] == {"c1"} and family["c5"] == {"c5"}
    known = {c.hash: c for c in [base, *codes]}
    assert {member.hash for member in lineage(base, known)} == {base.hash, "c1"}


def test_relatives_of_relatives_belong_to_it() -> None:
    """A rule that was turned into another by small steps: each step was a try."""
    signs = [[f"{k}" for k in range(n, n + 10)] for n in range(0, 31, 3)]
    assert all(akin(a, b) for a, b in itertools.pairwise(signs)) and not akin(signs[0], signs[-1])
    steps = [EDITED["with a stop"], CROSSING, EDITED["goes short"]]
    codes = {code.hash: code for code in map(code_of, steps)}
    assert len(lineage(code_of(steps[0]), codes)) == 3


def test_no_text_is_no_relation() -> None:
    assert not akin([], []) and not akin(of(CROSSING), []) and not akin([], of(CROSSING))
    assert traits(Code("c", "Lost", "")) == []


# ---- what counts -------------------------------------------------------------------------------------------------


def study_of(folder: Path, cls: type[Strategy] = CROSSING, **parameters: Any) -> Study:
    tape = Tape.synthetic(sessions=240, seed=7).counted(folder / "looks")
    return Study(cls(**parameters), tape, {}, {"fast": (5, 10), "slow": (30, 40)})


def test_each_configuration_counts_once(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert len(trials(study)) == 4 and len(trials(study).known) == 0  # what a fit may choose
    study.run()
    study.run()
    study.with_parameters(fast=5, slow=30).run()
    study.run(cash=1e6)  # another account
    middle = int(study.tape.events["known"][120])
    study.on(study.tape.truncate(middle)).run()
    study.on(study.tape.uncounted("shuffled, say")).with_parameters(fast=3).run()
    found = trials(study)
    assert len(found) == 4 and found.points == 5 and len(found.known) == 2
    sweep(CROSSING, study.tape, {"fast": (5, 10), "slow": (30, 40, 50)}, shown=False)
    assert len(trials(study)) == 6 and len(trials(study).known) == 6
    other = Study(CROSSING(), Tape.synthetic("trends", ["ELSE"], sessions=240).counted(tmp_path / "looks"))
    other.run()  # the same rule on another market is another try
    assert len(trials(study)) == 7


def test_a_backtest_and_a_sweep_of_one_point_are_one_trial(tmp_path: Path) -> None:
    """A sweep names the parameters that it moves; the others are those of the class."""
    study = dataclasses.replace(study_of(tmp_path), search={})
    study.run()
    sweep(CROSSING, study.tape, {"fast": [10]}, shown=False)
    sweep(CROSSING, study.tape, {"slow": [40]}, shown=False)
    assert len(trials(study)) == 1 and trials(study).points == 3


def test_the_longest_window_tells_the_sharpe_ratio(tmp_path: Path) -> None:
    study = dataclasses.replace(study_of(tmp_path), search={})
    middle = int(study.tape.events["known"][120])
    whole = study.run().metrics["Sharpe"]
    part = study.on(study.tape.truncate(middle)).run().metrics["Sharpe"]
    assert trials(study).known.tolist() == [whole] != [part]


def test_renaming_resets_nothing_and_strangers_start_at_one(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    sweep(CROSSING, study.tape, study.search, shown=False)
    for count, edit in enumerate(("renamed", "with a stop", "padded with a lot that does nothing"), start=1):
        edited = Study(EDITED[edit](), study.tape)
        edited.run()
        assert len(trials(edited)) == 4 + count == len(trials(study))
    stranger = Study(STRANGERS["breakout"](), study.tape)
    stranger.run()
    assert len(trials(stranger)) == 1 and len(trials(study)) == 7


def test_without_a_ledger_nothing_is_counted_and_it_says_so(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    free = study.on(study.tape.uncounted("a test"))
    free.run()
    said = summary(free)
    assert (said["counted"], said["trials"], said["looks"], said["contaminated"]) == (False, 4, 0, False)
    assert "not counted" in trials(free).card().headline


def test_the_summary_is_bounded_and_the_same_when_nothing_new_was_tried(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    sharpes = np.random.default_rng(1).normal(size=3000)
    columns = {"fast": np.arange(1, 3001), "slow": np.full(3000, 4000)}
    code = code_of(CROSSING)
    append(
        tmp_path / "looks",
        [Look("sweep", code, study.tape.market, "d", 0, 1, "a", columns, {"sharpe": sharpes})],
    )
    study.run()
    said = summary(study)
    assert said["trials"] == 3004 and len(said["sharpes"]) == 500
    assert said["sharpes"][0] == round(sharpes.min(), 6) and said["sharpes"] == sorted(said["sharpes"])
    study.run()
    assert summary(study) == said


# ---- out of sample -----------------------------------------------------------------------------------------------


def test_the_third_look_at_a_window_contaminates_it(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    known = study.tape.events["known"]
    spans = [(int(known[120]), int(known[179])), (int(known[180]), int(known[239]))]
    for n, cls in enumerate((CROSSING, CROSSING, EDITED["with a stop"], EDITED["goes short"])):
        now = Study(cls(), study.tape)
        judged(now, "walk_forward", [(*span, {"fast": 5}, 0.3) for span in spans])
        expected = (1, 1, 2, 3)[n]
        assert [window.looks for window in trials(now).windows] == [expected] * 2
        assert trials(now).contaminated is (expected >= LOOKS)
    stranger = Study(STRANGERS["breakout"](), study.tape)
    assert trials(stranger).windows == ()


def test_windows_that_moved_a_little_are_the_same_windows(tmp_path: Path) -> None:
    """Kills a fresh start by one more day of data."""
    study = study_of(tmp_path)
    known = study.tape.events["known"]
    for shift, cls in enumerate((CROSSING, EDITED["goes short"], EDITED["with a stop"])):
        spans = [
            (int(known[100 + 60 * k + 7 * shift]), int(known[159 + 60 * k + 7 * shift])) for k in range(2)
        ]
        judged(Study(cls(), study.tape), "walk_forward", [(*span, {}, 0.1) for span in spans])
    assert [window.looks for window in trials(study).windows][:2] == [3, 3]


def test_windows_that_meet_at_their_edges_are_others(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    known = study.tape.events["known"]
    for start, cls in ((60, CROSSING), (100, EDITED["goes short"]), (140, EDITED["with a stop"])):
        judged(
            Study(cls(), study.tape), "walk_forward", [(int(known[start]), int(known[start + 59]), {}, 0.1)]
        )
    assert trials(study).looks == 1


def test_a_run_within_a_window_is_a_look_and_one_over_all_is_not(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    first, last = (int(study.tape.events["known"][k]) for k in (120, 239))
    judged(study, "walk_forward", [(first, last, {"fast": 5}, 0.3)])
    study.run()
    study.on(study.tape.truncate(first)).run()
    assert trials(study).looks == 1
    window = study.on(study.tape.between(first, last + 1))
    window.with_parameters(fast=5).run()  # what was judged
    assert trials(study).looks == 1
    window.with_parameters(fast=6).run()
    window.with_parameters(fast=7).run()
    assert trials(study).looks == 3 and summary(study)["contaminated"]


def test_the_walk_forward_counts_its_looks_and_names_what_was_seen_too_often(tmp_path: Path) -> None:
    ledger, gates = tmp_path / "looks", Gates()
    study = KnownDrift.study(None, None)
    study = dataclasses.replace(study, search={"shift": (-3, 0, 3)})
    study = study.on(study.tape.counted(ledger))
    first = walk_forward(study, gates)
    found = read(ledger)
    looks = [look for look in found.looks if look.judged]
    assert [look.by for look in looks] == ["walk_forward"] * 3 and all(len(look) == 1 for look in looks)
    rows: Any = first.figures["windows"]
    assert [look.outcomes["sharpe"][0] for look in looks] == [row["out_of_sample"] for row in rows]
    assert [look.parameters["shift"][0] for look in looks] == [row["parameters"]["shift"] for row in rows]
    assert walk_forward(study, gates).json == first.json and not any("no longer" in n for n in first.notes)
    assert trials(study).looks == 1 and len(trials(study)) == 3
    for rise in (13, 15):
        changed = walk_forward(study.with_parameters(rise=rise), gates)
    assert [note for note in changed.notes if "seen 3 times: no longer out of sample" in note]
    assert changed.passed and all(window.contaminated for window in trials(study).windows)


# ---- resemblance -------------------------------------------------------------------------------------------------


def test_a_replay_is_the_backtests_and_is_counted(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    study.with_parameters(fast=20).run()
    found = replay(study, trials(study), by="multiplicity")
    assert len(found.points) == 5 and found.points[0] == study.strategy.values()
    for k, values in enumerate(found.points):
        alone = study.with_parameters(**values).run().track
        assert np.allclose(found.returns[:, k], alone.returns, rtol=0, atol=1e-12)
        assert np.array_equal(found.ends, alone.ends)
    looks = [look for look in read(tmp_path / "looks").looks if look.by == "multiplicity"]
    assert [len(look) for look in looks] == [5] and len(trials(study).known) == 5


def test_a_replay_has_room_for_some_and_says_how_many_it_left_out(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    sweep(CROSSING, study.tape, {"fast": range(1, 21), "slow": (50,)}, shown=False)
    found = replay(study, trials(study), most=10)
    assert len(found.points) == 10 and found.left_out == 14
    fast = [values["fast"] for values in found.points]
    assert {5, 10} <= set(fast) and fast[0] == 10
    again = replay(study, trials(study), most=10)
    assert again.points == found.points and again.returns.tobytes() == found.returns.tobytes()


def test_trials_that_cannot_be_measured_are_left_out_or_refused() -> None:
    tape = Tape.synthetic(sessions=100, seed=7)
    some = replay(study := Study(CROSSING(), tape, {}, {"slow": (30, 40, 500)}), trials(study))
    assert (len(some.points), some.failed) == (2, 1)  # 500 closes never come
    with pytest.raises(QuantbenchError) as caught:
        replay(study := Study(CROSSING(slow=500), tape), trials(study))
    assert caught.value.code == "QB-GATE-040"


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_the_correlation_is_the_one_that_was_drawn(rho: float) -> None:
    from quantbench.gates.trials import Replay

    rng = np.random.default_rng(3)
    drawn = math.sqrt(rho) * rng.normal(size=(8000, 1)) + math.sqrt(1 - rho) * rng.normal(size=(8000, 20))
    found = Replay((), None, drawn, 252.0, 0, 0)
    assert abs(found.correlation - rho) < 0.02
    assert abs(found.independent(20) - (rho + (1 - rho) * 20)) < 0.4
    one = Replay((), None, drawn[:, :1], 252.0, 0, 0)
    assert math.isnan(one.correlation) and one.independent(7) == 7.0
