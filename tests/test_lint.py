"""The lint on lines that look ahead, on lines that do not, and on what suppresses it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from quantbench.engine.registry import find
from quantbench.gates.lint import RULES, lint

FOUND = {
    "negative shift": (
        "c.shift(-1)",
        "c.shift(periods=-h)",
        "c.diff(-2)",
        "np.roll(c, -1)",
        "c.pct_change(-1)",
        "c.shift(freq='-1D')",
    ),
    "centred window": ("c.rolling(3, center=True).sum()",),
    "two-sided filter": ("signal.filtfilt(b, a, c)", "np.fft.rfft(c)", "np.convolve(c, k, mode='same')"),
    "filled from later": (
        "c.bfill()",
        "c.interpolate()",
        "pd.merge_asof(a, b, direction='forward')",
        "c.reindex(i, method='nearest')",
    ),
    "last row": ("c.iloc[-1] - c", "c.to_numpy()[-1]", "df.values[-1, 0]", "c.tail(1)"),
    "backwards": ("c[::-1].cumsum()", "c.iloc[::-1]"),
    "whole column": (
        "c - c.mean()",
        "c.rank(pct=True)",
        "np.std(c)",
        "max(c)",
        "df.groupby('asset').transform('mean')",
        "pd.qcut(c, 5)",
        "df.groupby('asset').close.transform('max')",
        "c.quantile(0.5)",
    ),
    "fitted on every row": ("S().fit_transform(x)", "def f(m, x, y):\n    return m.fit(x, y).predict(x)"),
    "shuffled split": ("train_test_split(x, y)", "KFold(5, shuffle=True)", "cross_val_score(m, x, y, cv=5)"),
    "period label": ("c.resample('5min').last()",),
    "file": ("open('x')", "pd.read_csv('x')", "Path('a').read_text()", "np.load('x')"),
    "clock": ("datetime.now()", "pd.Timestamp.now()", "time.time()"),
    "network": ("requests.get('u')", "urllib.request.urlopen('u')", "import httpx"),
    "unseeded random": (
        "np.random.rand(3)",
        "np.random.default_rng()",
        "random.random()",
        "df.sample(frac=1)",
    ),
    "kept state": (
        "X = []\ndef f(c):\n    X.append(1)",
        "def f(c, k=[]): pass",
        "def f():\n    global z",
        "@cache\ndef f(c): return c",
    ),
    "date in the code": ("c.index > '2020-03-01'",),
}
CLEAN = (
    "c.shift(1)",
    "c.rolling(3).mean()",
    "c.expanding().rank()",
    "c.iloc[:k].mean()",
    "df.mean(axis=1)",
    "df.rank(1)",
    "df.groupby('date').transform('mean')",
    "df.groupby(level=0).rank()",
    "max(a, b)",
    "c.resample('W').last()",
    "np.random.default_rng(3)",
    "train_test_split(x, shuffle=False)",
    "KFold(5)",
    "w = c.rolling(5)\nw.max()",
    "past = c.loc[:t]\npast.iloc[-1] - past.mean()",
    "c.ewm(span=3).std()",
    "TimeSeriesSplit(5)",
    "c.iloc[1:]",
    "np.maximum(a, b)",
    "bar.time",
    "df.sample(5, random_state=1)",
    "m.fit(a).predict(b)",
    "c.rolling(5).apply(lambda w: w.iloc[-1] - w.mean())",
    "c.groupby(c.index.date).cumsum()",
    "class S:\n    def on_bar(self, bar, market):\n        return self.closes.mean() - self.closes.values[-1]",
)


def rules(text: str) -> set[str]:
    return {finding.rule for finding in lint(text).findings}


def test_every_rule_has_its_lines():
    assert set(FOUND) == set(RULES)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in FOUND.items() for text in texts])
def test_a_line_that_looks_ahead_is_found(rule, text):
    assert rules(text) == {rule}


@pytest.mark.parametrize("text", CLEAN)
def test_a_line_that_does_not_raises_no_alarm(text):
    assert not rules(text)


def test_only_a_reason_suppresses_and_only_on_its_line():
    line = "a = c.shift(-1){}\nb = c.bfill(){}"
    assert rules(line.format("  # leak-ok: the label", "")) == {"filled from later"}
    assert rules(line.format("  # leak-ok:", "  # leak-ok")) == {"negative shift", "filled from later"}
    assert rules("a = c.shift(-1) + f('# leak-ok: in a text')") == {"negative shift"}
    assert [f.accepted for f in lint(line.format("", "  # leak-ok: gaps of a day")).accepted] == [
        "gaps of a day"
    ]


TABLE: dict[str, Any] = {
    "first": lambda c: c.shift(1),
    "second": lambda c: c.shift(-1),
}


def _closed(level: pd.Series) -> Any:
    def feature(c: pd.Series) -> pd.Series:
        return c - level

    return feature


def test_the_line_is_that_of_the_file_and_names_mean_what_they_mean_there():
    found = lint(TABLE["second"]).findings
    assert [f.code for f in found] == ['"second": lambda c: c.shift(-1),'] and lint(TABLE["first"]).clean
    with open(__file__, encoding="utf-8") as here:  # noqa: PTH123
        assert here.read().splitlines()[found[0].line - 1].strip() == found[0].code
    assert [f.rule for f in lint(_closed(pd.Series([1.0]))).findings] == ["kept state"]


def _reads_the_table(c: pd.Series) -> Any:
    return c - len(TABLE)


def test_what_stands_beside_a_function_is_looked_up():
    assert [f.rule for f in lint(_reads_the_table).findings] == ["kept state"]


SHIPPED = ("MovingAverageCross", "KnownDrift", "CrossSectionalMomentum", "PairsReversion", "InventoryQuoter")


@pytest.mark.parametrize("name", SHIPPED)
def test_strategies_that_ship_are_clean(name):
    assert lint(find(name)).clean, lint(find(name))
