"""`qb report`: what it writes, how it ends, and quantstats' numbers beside ours."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from sheets import days, judged, track

from quantbench.core.check import QuantbenchError, close
from quantbench.engine.metrics import METRICS, Track, measure
from quantbench.ops import report as module
from quantbench.ops.cli import main
from quantbench.ops.evidence import canonical
from quantbench.ops.report import beside, classic
from quantbench.reports.page import read

REASONED = {"CAGR", "Calmar", "VaR 95 %", "CVaR 95 %", "Kelly"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("[paths]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def qb(*words):
    return main(
        [
            "report",
            *map(str, words),
            *([] if words[0] in ("diff", "site") else ["--as-of", "2026-11-01T00:00Z"]),
        ]
    )


def put(folder, record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evidence.json").write_text(canonical(record) + "\n", encoding="utf-8")
    return folder / "evidence.json"


def test_a_tearsheet_has_the_evidence_that_lies_beside_it(here, capsys):
    """Fails if evidence is passed over, or if a page says judged without any."""
    assert qb("KnownDrift") == 0
    place = here / "reports" / "KnownDrift" / "tearsheet.html"
    assert str(place.relative_to(here)) in capsys.readouterr().out and not read(place, "tearsheet")["judged"]
    named = put(here / "elsewhere", judged())
    put(place.parent, judged())
    assert (
        qb("KnownDrift") == 0
        and read(place, "tearsheet")["judged"]
        and read(place, "tearsheet")["benchmark"] == "TIDE"
    )
    assert qb("KnownDrift", "--unjudged") == 0 and not read(place, "tearsheet")["judged"]
    assert qb(named, "--json") == 0 and read(place, "tearsheet")["evidence"] == judged()["hash"]
    assert json.loads(capsys.readouterr().out.split("\n", 2)[2])["tearsheet"].endswith("tearsheet.html")


def test_evidence_that_was_edited_or_is_anothers_makes_no_page(here):
    """Fails if a page can be had from a file somebody wrote by hand."""
    place = here / "reports" / "KnownDrift"
    put(place, {**judged(), "passed": True})
    assert qb("KnownDrift") == 3
    put(place, judged())
    assert qb("MovingAverageCross", "--evidence", place / "evidence.json") == 3
    assert not (place / "tearsheet.html").exists()


def test_it_ends_as_it_found(here, capsys):
    assert qb("KnownDrift") == 0
    place = here / "reports" / "KnownDrift" / "tearsheet.html"
    first = place.read_bytes()
    assert qb("KnownDrift") == 0 and place.read_bytes() == first
    (here / "first.html").write_bytes(first)
    assert qb("KnownDrift", "--title", "Tide") == 0
    capsys.readouterr()
    assert qb("diff", "first.html", place, "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "same": False,
        "differences": [{"kind": "input", "name": "strategy", "a": "KnownDrift", "b": "Tide"}],
    }
    assert qb("diff", "first.html", "first.html") == 0
    assert qb("diff", "first.html", "settings.ini") == 3 and qb("diff", "first.html", "none.html") == 3
    assert qb("diff", "first.html") == qb("KnownDrift", "more") == 2 and qb("NoSuch") == 3
    assert qb("site") == 0 and "Tide" in (here / "reports" / "index.html").read_text()


def test_every_number_that_differs_from_quantstats_has_a_reason():
    """Fails if quantstats, or a metric of ours, changes what it means without anybody saying so."""
    rows = {row.name: row for row in beside(track())}
    assert set(rows) == {metric.name for metric in METRICS} and {
        n: r.ours for n, r in rows.items()
    } == measure(track())
    assert {name for name, row in rows.items() if row.reason} == REASONED and not any(
        row.unexplained for row in rows.values()
    )
    months = np.arange("2010-01", "2020-02", dtype="M8[M]").astype("M8[D]") - 1
    slow = Track.of(
        100 * np.exp(np.cumsum(np.random.default_rng(2).normal(0.005, 0.04, len(months)))), months
    )
    assert {row.name for row in beside(slow) if row.reason} <= REASONED


def test_the_reasons_are_true():
    """Fails if what is said of quantstats' numbers is not how they are made."""
    ours = track()
    rows = {row.name: row for row in beside(ours)}
    total, n = float(np.prod(1 + ours.returns)), len(ours.returns)
    assert close(rows["CAGR"].theirs, total ** (252 / n) - 1, rel=1e-9)
    assert close(rows["Calmar"].theirs, rows["CAGR"].theirs / -rows["max drawdown"].ours, rel=1e-9)
    var = float(np.mean(ours.returns) - 1.6448536269514722 * np.std(ours.returns, ddof=1))
    assert close(rows["VaR 95 %"].theirs, var, rel=1e-9)
    normal = float(
        np.mean(ours.returns) - 2.0627128075074257 * np.std(ours.returns, ddof=1)
    )  # density at the quantile / 0.05
    assert close(rows["CVaR 95 %"].theirs, normal, rel=1e-9)
    smaller = Track.of_returns(ours.returns / 10, days(n)[1:], start=days(n)[0])
    assert close({r.name: r.theirs for r in beside(smaller)}["Kelly"], rows["Kelly"].theirs, rel=1e-9)
    assert close(measure(smaller)["Kelly"], 10 * rows["Kelly"].ours, rel=1e-9)


def test_a_negative_rate_is_explained():
    rows = {row.name: row for row in beside(track(rf=-0.02))}
    assert all("negative rf" in rows[name].reason or not rows[name].reason for name in ("Sharpe", "Sortino"))
    assert not any(row.unexplained for row in rows.values())


def test_the_classic_page_is_theirs_with_ours_beside_it_and_asks_nobody():
    page, rows = classic(track(), "<script>alert(1)</script>")
    assert page.count("<svg") >= 5 and "quantbench and of quantstats" in page and len(rows) == 17
    assert "<script>alert(1)" not in page and "default-src 'none'" in page
    assert not re.search(r"<link|<script[^>]+src|<img[^>]+src=[\"']?http", page)
    assert page.index("calendar years") < page.index("<svg")


@pytest.mark.usefixtures("here")
def test_a_difference_without_a_reason_is_a_failed_check(monkeypatch, capsys):
    """Fails if `--classic` ends with 0 although a number differs and nobody knows why."""
    monkeypatch.setattr(module, "_REASONS", {})
    monkeypatch.setattr(module, "classic", lambda made, _title: ("<html>", beside(made)))
    assert qb("KnownDrift", "--classic") == 1 and "no known reason" in capsys.readouterr().out


def test_without_quantstats_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "quantstats", None)
    with pytest.raises(QuantbenchError, match="QB-RPT-005"):
        beside(track())


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        beside(track())[0].ours = 1.0
