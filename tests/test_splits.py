"""Splits: whatever the scheme, nothing that trains has seen the test, nothing is dropped without a reason, and scikit-learn takes the splitters."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.gates.splits import PARTS, SCHEMES, Splits, Splitter

hypothesis_settings.register_profile("splits", max_examples=400, derandomize=True, deadline=None)
numbers = st.integers(0, 12)


@st.composite
def divided(draw) -> tuple[Splitter, Splits]:
    """Rows at uneven times, labels of any length, any scheme that leaves something to train on."""
    scheme, folds = draw(st.sampled_from(SCHEMES)), draw(st.integers(2, 6))
    splitter = Splitter(
        scheme, folds=folds, size=draw(numbers), train=draw(st.integers(20, 40)), tested=draw(st.integers(1, folds - 1)),
        fraction=draw(st.floats(0.05, 0.6)), embargo=draw(numbers),
    )  # fmt: skip
    steps = draw(st.lists(st.integers(0, 6), min_size=40, max_size=80))
    times = np.cumsum(steps)
    labels = draw(st.lists(st.integers(0, 15), min_size=len(steps), max_size=len(steps)))
    try:
        return splitter, splitter.on(times, times + np.array(labels))
    except QuantbenchError as error:
        assert error.code == "QB-GATE-020"
        reject()


@hypothesis_settings(hypothesis_settings.get_profile("splits"))
@given(divided())
def test_what_trains_has_not_seen_the_test_and_nothing_else_is_dropped(case):
    """The rule of the contract, row against row: kills a purge taken from the wrong side, or at one end only, or by row numbers."""
    splitter, splits = case
    for fold in range(len(splits)):
        of = {part: splits.rows(fold, part).tolist() for part in PARTS}
        assert of["train"] and of["test"]
        assert len(set().union(*of.values())) == sum(map(len, of.values()))  # no row in two parts
        spans = [(splits.times[a], splits.ends[a:b].max()) for a, b in splits.ranges(fold, "test")]

        def distance(row, spans=spans):
            gaps = [max(low - splits.ends[row], splits.times[row] - high) for low, high in spans]
            return int(min(gaps))

        assert all(distance(row) > splitter.embargo for row in of["train"])
        assert all(0 < distance(row) <= splitter.embargo for row in of["embargo"])
        assert all(distance(row) <= 0 for row in of["purge"])
        if splitter.scheme in ("kfold", "combinatorial"):  # every row has a part
            assert sum(map(len, of.values())) == len(splits.times)
        else:
            assert max(of["train"] + of["purge"] + of["embargo"]) < min(of["test"])
    assert splits.overlaps == 0


@hypothesis_settings(hypothesis_settings.get_profile("splits"))
@given(divided())
def test_each_scheme_tests_what_it_says(case):
    """Kills a last window that is cut short, a window left out, blocks that are tested unequally often."""
    splitter, splits = case
    n, tests = len(splits.times), [splits.rows(k, "test") for k in range(len(splits))]
    assert len(splits) == splitter.get_n_splits()
    if splitter.scheme in ("expanding", "rolling"):
        joined, size = np.concatenate(tests), splitter.size or n // (splitter.folds + 1)
        assert {len(test) for test in tests} == {size}
        assert joined.tolist() == list(range(n - size * splitter.folds, n))
        for k, test in enumerate(tests):
            below = [p for part in PARTS[:3] for p in splits.rows(k, part).tolist()]
            reach = splitter.train if splitter.scheme == "rolling" else n
            assert sorted(below) == list(range(max(0, test[0] - reach), test[0]))
    elif splitter.scheme == "holdout":
        assert tests[0][-1] == n - 1 and 0 <= len(tests[0]) - n * splitter.fraction < 1
    else:
        often = 1 if splitter.scheme == "kfold" else comb(splitter.folds - 1, splitter.tested - 1)
        assert (np.bincount(np.concatenate(tests), minlength=n) == often).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gap_before_a_tested_block_is_the_same_in_every_scheme(scheme):
    """A purge of five was a gap of five on one path of another library and none on the other."""
    splits = Splitter(scheme, folds=4, train=30, size=10, horizon=5, embargo=3).on(120)
    gaps = set()
    for fold, (train, _) in enumerate(splits):
        for start, _ in splits.ranges(fold, "test"):
            lost = [row for part in ("purge", "embargo") for row in splits.rows(fold, part)]
            before = [row for row in lost if start - 8 <= row < start]
            if len(train[train < start]) and len(before) == 8:
                gaps.add(int(start - train[train < start].max()))
    assert gaps == {9}


def test_the_counter_of_overlaps_sees_what_is_planted():
    """Kills a counter that is always zero."""
    sound = Splitter("expanding", folds=2, size=10, horizon=4, embargo=2).on(60)
    table = sound.table.copy()
    table["stop"][(table["fold"] == 1) & (table["part"] == "train")] += 3
    planted = Splits(sound.scheme, sound.times, sound.ends, sound.embargo, table)
    assert (sound.overlaps, planted.overlaps) == (0, 3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scikit_learn_takes_the_splitter(scheme):
    from sklearn.base import clone
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score, cross_validate

    rng = np.random.default_rng(3)
    features = rng.standard_normal((90, 2))
    target = features @ [1.0, -2.0] + 0.1 * rng.standard_normal(90)
    splitter = Splitter(scheme, folds=4, train=30, horizon=2, embargo=1)
    assert check_cv(splitter) is splitter and repr(splitter).startswith(f"Splitter(scheme='{scheme}'")
    pairs = list(splitter.split(features, target))
    assert len(pairs) == splitter.get_n_splits(features, target) == len(list(splitter.split(target)))
    for train, test in pairs:
        assert train.dtype.kind == test.dtype.kind == "i" and not set(train) & set(test)
        assert min(*train, *test) >= 0 and max(*train, *test) < 90
    scores = cross_val_score(LinearRegression(), features, target, cv=splitter)
    assert len(scores) == len(pairs) and (scores > 0.9).all()
    assert len(cross_validate(Ridge(), features.tolist(), target.tolist(), cv=splitter)["test_score"]) == len(
        pairs
    )
    search = clone(GridSearchCV(Ridge(), {"alpha": [0.01, 100.0]}, cv=splitter)).fit(features, target)
    assert search.best_params_ == {"alpha": 0.01} and search.n_splits_ == len(pairs)
