"""The tearsheet without a browser: what it says, what it refuses, and that it is the same everywhere."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from sheets import days, judged, odd_tracks, renamed, result, study, track

from quantbench.core.check import QuantbenchError
from quantbench.engine.backtest import backtest
from quantbench.engine.metrics import Frequency, Track, intervals, measure
from quantbench.engine.strategy import Strategy
from quantbench.engine.tape import Tape
from quantbench.gates.verdict import Verdict
from quantbench.reports.charts import thinned
from quantbench.reports.compare import diff
from quantbench.reports.page import read, unpacked
from quantbench.reports.tearsheet import readers, tearsheet

MEGABYTE = 1_000_000


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "data", "xlink:href")
        ]


def test_numbers_are_the_engines_to_the_last_bit_whatever_stands_beside_them():
    """Fails if a benchmark, factors or evidence change a number of the strategy (quantstats 480)."""
    ours = track()
    factors = {"value": np.random.default_rng(3).normal(0, 0.01, len(ours.returns))}
    plain, full = (
        read(tearsheet(ours), "tearsheet"),
        read(tearsheet(ours, benchmark=track(seed=2), factors=factors), "tearsheet"),
    )
    assert plain["numbers"] == full["numbers"] == measure(ours) and plain["intervals"] == full["intervals"]
    assert tuple(plain["intervals"]["Sharpe"]) == intervals(ours)["Sharpe"]
    run = [read(tearsheet(result(), given), "tearsheet") for given in (None, judged())]
    assert run[0]["numbers"] == run[1]["numbers"] == result().metrics


def test_the_data_in_the_page_are_the_track():
    """Fails if what the page computes from is rounded or shifted."""
    ours = track()
    data = read(tearsheet(ours, benchmark=track(seed=2)), "tearsheet")
    arrays = {name: unpacked(text, kind) for name, (kind, text) in data["arrays"].items()}
    assert np.array_equal(arrays["equity"], ours.equity) and np.array_equal(arrays["times"] * 1e6, ours.times)
    assert (
        arrays["period"].tolist() == list(range(len(ours.times))) and arrays["benchmark"][0] == ours.equity[0]
    )


def test_what_is_left_out_of_a_long_curve_is_no_fall():
    """Fails if thinning a curve of minutes loses the deepest fall or a period's end."""
    rng = np.random.default_rng(5)
    when = np.arange("2015-01-01", "2016-06-01", 10, dtype="M8[m]")
    worth = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, len(when))))
    ours = Track.of(worth, when, every="day", dated=False)
    page = tearsheet(ours)
    data = read(page, "tearsheet")
    equity, period = unpacked(data["arrays"]["equity"][1]), unpacked(data["arrays"]["period"][1], "i4")
    assert len(equity) < len(when) and np.array_equal(
        equity[period][1:] / equity[period][:-1] - 1, ours.returns
    )
    assert (equity / np.maximum.accumulate(equity) - 1).min() == measure(ours)["max drawdown"]
    assert thinned(worth).size < 1100


@pytest.mark.parametrize("count", [5_040, 11_000, 40_000])
def test_a_page_is_at_most_a_megabyte(count):
    """Fails if the embedded data grow without a bound; beyond it the page must say that it recomputes nothing."""
    when = np.arange(count + 1).astype("M8[D]")
    make = [
        Track.of_returns(np.random.default_rng(s).normal(0.0003, 0.01, count), when[1:], start=when[0])
        for s in (1, 2)
    ]
    page = tearsheet(make[0], benchmark=make[1])
    assert len(page.encode()) <= MEGABYTE
    assert ("period" in read(page, "tearsheet")["arrays"]) is (count < 11_000)


@pytest.mark.parametrize("name", odd_tracks())
def test_numbers_without_meaning_are_a_dash_and_never_a_crash(name):
    page = tearsheet(odd_tracks()[name])
    found = measure(odd_tracks()[name])
    data = read(page, "tearsheet")["numbers"]
    assert all((data[n] is None) == (not math.isfinite(v)) for n, v in found.items())
    assert "nan" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL).lower().replace("finan", "")


def test_factors_are_explained_refused_or_said_to_be_none():
    """Fails if a reader cannot tell that nothing was attributed from there being nothing to find."""
    ours, other = track(), track(seed=2)
    noise = np.random.default_rng(3).normal(0, 0.01, len(ours.returns))
    page = tearsheet(ours, factors={"market": other, "<b>": noise})
    assert "R² " in page and "&lt;b&gt;" in page and "names no factors" not in page
    assert "The study names no factors" in tearsheet(ours)
    assert "Not explained" in tearsheet(ours, factors={"short": noise[1:]})


def test_a_run_that_never_traded_is_shown():
    class Idle(Strategy):
        "Do nothing."

        def on_bar(self, bar, market):
            pass

    page = tearsheet(backtest(Idle(), Tape.synthetic(sessions=300, seed=3)))
    assert "Trades" in page and ">None.<" in page


class TestEvidence:
    def test_the_verdict_comes_first_with_margins_trial_and_anchor(self):
        page = tearsheet(result(), judged())
        said = page.index("✗ Failed walk_forward")
        assert said < page.index('id="equity"') and "47 of this hypothesis" in page and "3:1182:9f2c" in page
        assert "+0.3100" in page and ">unknown" in page and "7.50 times the modelled costs" in page
        assert result().provenance.data_hash[:16] in page and result().provenance.code_hash in page

    def test_trials_and_luck_stand_in_the_verdict_and_in_a_section_of_their_own(self):
        """Fails if a reader must open a notebook to learn that it is the best of many."""
        page = tearsheet(result(), judged())
        block, section = (
            page[page.index('id="verdict"') : page.index('id="gates"')],
            page[page.index('id="tried"') : page.index('id="equity"')],
        )
        for said in ("47 of this hypothesis", "not contaminated; 2 looks", "97.13 % that it is more than luck", "6.25 %", "p 0.021", "9.75 years needed, 11.50 there", "3:1182:9f2c"):  # fmt: skip
            assert said in block, said
        for said in ("0.81", "96.41 %", "18.50", "3.25", "12.50 %", "0.034", "0.410", "2019-01-02", "Versions of the idea: 3", "Sharpe ratios of the trials", "Rank outside"):  # fmt: skip
            assert said in section, said

    @pytest.mark.parametrize(
        "figures",
        [
            {},
            {"sharpe": None, "overfit": [], "trials": {"sharpes": [None, 0.5, 0.5, 0.5]}},
            {"survives": {"further": [1], "deflated": []}},
        ],
    )
    def test_a_multiplicity_gate_that_could_not_tell_is_shown(self, figures):
        record = judged()
        mine = next(v for v in record["verdicts"] if v["gate"] == "multiplicity")
        other = Verdict.of(mine)
        other = Verdict(other.gate, other.checks, "", "", other.inputs, figures)
        record["verdicts"] = [other.record if v is mine else v for v in record["verdicts"]]
        page = tearsheet(result(), record)
        assert "– that it is more than luck" in page and "nothing to choose from" in page

    def test_what_the_gates_were_told_stands_there_with_the_cells_that_read_it(self):
        page = tearsheet(result(), judged())
        made = page[page.index('id="made"') :]
        assert "walk_forward 2, 5; cost_stress 2, 5" in made and "What the gates were told" in made
        assert "What the gates were told" not in tearsheet(result())

    def test_contamination_is_said_first(self):
        record = judged()
        record["trials"] |= {"contaminated": True, "looks": 5}
        page = tearsheet(result(), record)
        assert page.index("contaminated: seen too often to be out of sample; 5 looks") < page.index(
            'id="equity"'
        )

    def test_without_evidence_nothing_was_judged(self):
        page = tearsheet(result())
        assert "Not judged" in page and "passed" not in page[page.index("<main") : page.index("</main")]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda e: e.update(passed=True),
            lambda e: e["verdicts"][0].update(passed=True),
            lambda e: e["verdicts"][0]["checks"][1].update(value=2.0),
            lambda e: e["verdicts"][0]["checks"][0].update(limit=0.5),
            lambda e: e["study"].update(data="0" * 16),
            lambda e: e["study"].update(code="0" * 16),
            lambda e: e["study"].update(strategy="Another"),
            lambda e: e.pop("verdicts"),
            lambda e: e.update(verdicts=None),
        ],
        ids=range(9),
    )  # fmt: skip
    def test_edited_or_foreign_evidence_makes_no_page(self, edit):
        """Fails if somebody can have a page that says passed without verdicts that do, or about another run."""
        record = copy.deepcopy(judged())
        edit(record)
        with pytest.raises(QuantbenchError) as refusal:
            tearsheet(result(), record)
        assert refusal.value.code in ("QB-RPT-004", "QB-GATE-002")

    @pytest.mark.parametrize("field", ["strategy", "code_hash", "data_hash"])
    def test_whole_evidence_of_another_run_makes_no_page(self, field):
        other = dataclasses.replace(
            result(), provenance=dataclasses.replace(result().provenance, **{field: "another"})
        )
        with pytest.raises(QuantbenchError, match="QB-RPT-004"):
            tearsheet(other, judged())

    def test_a_track_has_no_evidence(self):
        with pytest.raises(QuantbenchError, match="QB-RPT-004"):
            tearsheet(result().track, judged())

    def test_a_missing_gate_is_no_pass(self):
        record = judged()
        only = [v for v in record["verdicts"] if v["passed"]]
        page = tearsheet(result(), {**record, "verdicts": only})
        assert "Incomplete" in page and "holdout" in page
        assert "✓ Passed all 2 gates" in tearsheet(
            result(), {**record, "verdicts": only, "missing": [], "passed": True}
        )


def test_each_parameter_is_read_by_somebody_or_the_page_says_so():
    assert readers(result()) == {name: ["on_bar"] for name in ("cycle", "shift", "rise", "weight")}
    assert readers(renamed("no such class")) is None
    made = dataclasses.replace(
        result().provenance, parameters={**result().provenance.parameters, "wieght": 0.5}
    )
    assert "Read by nothing: wieght" in tearsheet(dataclasses.replace(result(), provenance=made))


def test_a_hostile_name_adds_no_element_and_no_attribute():
    harmless, hostile = (
        Elements(tearsheet(renamed(text), title=text))
        for text in ("name", "\"'><img src=x onerror=alert(1)></script><a href=javascript:alert(1)>")
    )
    assert hostile.tags == harmless.tags and hostile.attributes == harmless.attributes
    assert not {n for n in hostile.attributes if n.startswith("on")} and "style" not in hostile.attributes
    assert all(link.startswith("#") or link == "data:," for link in hostile.links)


def test_it_asks_nobody_for_anything():
    page = tearsheet(result(), judged())
    assert not re.findall(
        r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", page.replace("http://www.w3.org/2000/svg", "")
    )
    assert "default-src 'none'" in page and "unsafe-" not in page


def test_ids_are_unique():
    found = re.findall(r' id="([^"]+)"', tearsheet(result(), judged(), benchmark="TIDE"))
    assert len(found) == len(set(found))


CODE = """
import sys; sys.path.insert(0, 'tests')
import hashlib
from sheets import judged, result, track
from quantbench.reports.tearsheet import tearsheet
pages = tearsheet(result(), judged(), benchmark='TIDE') + tearsheet(track(5040), benchmark=track(5040, seed=2))
print(hashlib.sha256(pages.encode()).hexdigest())
"""


def test_equal_arguments_give_equal_bytes_in_any_process(root):
    """Fails if a set's order, the number of threads, the locale or the zone of the machine is in the page."""
    found = set()
    for seed, threads, zone in (("0", "1", "UTC"), ("1", "2", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": threads, "TZ": zone}
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_a_difference_is_named_and_nothing_else():
    """Fails if a changed input, verdict, number or day is not among the rows, or if something equal is."""
    base = tearsheet(result(), judged())
    assert diff(base, tearsheet(result(), judged())).same
    assert {(r.kind, r.name) for r in diff(base, tearsheet(result())).rows} >= {
        ("verdict", "judged"),
        ("verdict", "walk_forward"),
    }
    assert {r.kind for r in diff(base, tearsheet(result())).rows} <= {"verdict", "input"}
    other = tearsheet(study().with_parameters(shift=3).run())
    found = diff(tearsheet(result()), other)
    assert [r.name for r in found.rows if r.kind == "input"] == ["parameter shift"]
    assert "Sharpe" in {r.name for r in found.rows if r.kind == "number"} and found.rows[-1].kind == "equity"
    worth = result().track.equity
    changed = Track.of(np.r_[worth[:-1], worth[-1] + 1], result().track.times, dated=False)
    last = diff(tearsheet(Track.of(worth, result().track.times, dated=False)), tearsheet(changed)).rows[-1]
    assert last.kind == "equity" and last.b == last.a + 1


def test_a_monthly_track_is_not_a_daily_one():
    """Fails if 24 months are taken for 24 days (quantstats RP8)."""
    when = np.arange("2020-01", "2022-02", dtype="M8[M]").astype("M8[D]") - 1
    data = read(tearsheet(Track.of(1.01 ** np.arange(len(when)), when)), "tearsheet")
    assert data["per_year"] == 12 and data["numbers"]["CAGR"] == pytest.approx(1.01**12 - 1, rel=2e-3)
    assert len(days(10)) == 11


def test_a_few_minutes_are_not_a_year():
    """Fails if a run of minutes leads with a growth a year, or if a ratio is made of no clear period."""
    when = np.datetime64("2024-08-09T00:00", "ms") + np.cumsum(
        np.random.default_rng(1).integers(1, 900, 400)
    ).astype("m8[ms]")
    worth = 100_000 * np.exp(np.cumsum(np.random.default_rng(2).normal(-1e-6, 1e-5, 400)))
    unclear = dataclasses.replace(Track.of(worth, when, per_year=1), frequency=Frequency("unclear", math.nan))
    page = tearsheet(unclear)
    data, tiles = read(page, "tearsheet"), page[page.index('class="tiles"') : page.index('id="checked"')]
    assert (
        data["numbers"]["Sharpe"] is None
        and data["intervals"]["Sharpe"] == [None, None]
        and data["per_year"] is None
    )
    low, high = data["intervals"]["total return"]
    assert low < data["numbers"]["total return"] < high and high - low < 0.01
    assert "CAGR" not in tiles and "less than 30 days" in page and "2024-08-09 00:0" in page


def test_what_a_gate_kept_is_drawn():
    """Fails if the curve, table or counts of a verdict are left out of the page."""
    page = tearsheet(result(), judged())
    kept = page[page.index('class="gate"') : page.index('id="equity"')]
    assert (
        'id="seen-walkforward-curve"' in kept and kept.count('class="line') == 2 and "data-keys" not in kept
    )
    assert ">windows<" in kept and "break_even: 7.500" in kept and "as run" in kept
