"""Leaks planted in features, each with the column, the kind and how far it looks; features that are clean; and the magic."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler
from traitlets.config import Config

from quantbench.core.check import refused
from quantbench.gates.leakcheck import Label, check_cell, leakcheck
from quantbench.gates.lint import lint

BARS = 72
RNG = np.random.default_rng(3)
TIMES = pd.date_range("2024-01-01", periods=BARS, freq="h")


def walk() -> Any:
    return 100 * np.exp(RNG.normal(0, 0.02, BARS).cumsum())


ONE = pd.DataFrame(
    {"close": walk(), "volume": RNG.integers(100, 900, BARS), "up": RNG.random(BARS) < 0.5}, index=TIMES
)
WIDE = pd.DataFrame({name: walk() for name in "ABCD"}, index=TIMES)
LONG = WIDE.melt(var_name="asset", value_name="close", ignore_index=False).sort_index(kind="stable")
PAIRS = LONG.set_index("asset", append=True)
REPORTED = ONE.assign(known=TIMES + pd.Timedelta(hours=4))
GAPS = ONE["close"].where(np.arange(BARS) % 4 == 0)
Feature = Callable[[Any], Any]


@dataclass(frozen=True)
class Planted:
    "A leak, and what must be said of it."

    kind: str
    feature: Feature
    frame: Any = "ONE"
    column: str = "close"
    horizon: int | None = None  # None: no number of bars is defined
    first: int = 0
    flag: bool = (
        False  # yes or no: which row is the first to change depends on the garbage; none can before `first`
    )
    asset: str = ""


def beside(leak: Feature, name: str = "leak") -> Feature:
    """A frame with two honest columns and one that leaks."""
    return lambda f: pd.DataFrame(
        {"honest": f["close"].diff(), name: leak(f), "other": f["close"].rolling(5).mean()}
    )


def fourier(c: pd.Series) -> pd.Series:
    kept = np.fft.rfft(c)
    kept[6:] = 0
    return c - np.fft.irfft(kept, len(c))


def listed(f: pd.DataFrame) -> pd.DataFrame:
    """Only assets that end above where they began."""
    return f.loc[:, f.iloc[-1] > f.iloc[0]]


def regression(f: pd.DataFrame) -> Any:
    x, y = f[["volume"]], f["close"]
    return LinearRegression().fit(x, y).predict(x)


def scaled(f: pd.DataFrame) -> Any:
    return pd.DataFrame(StandardScaler().fit_transform(f[["close", "volume"]]), f.index, ["close", "volume"])


def next_volume(f: pd.DataFrame) -> pd.Series:
    return f["volume"].shift(-2) > f["volume"]


def periods(c: pd.Series) -> pd.Series:
    """The last price of six hours, at their beginning."""
    return c.resample("6h").last().reindex(c.index, method="ffill")


KEPT: dict[str, float] = {}


def kept(c: pd.Series) -> pd.Series:
    """The mean of the first table it ever saw."""
    return c - KEPT.setdefault("mean", float(c.mean()))


def other_asset(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(B=f["A"].shift(-1))


def one_asset(f: pd.DataFrame) -> pd.Series:
    """Only asset C, and only there, sees its next price."""
    after = f.groupby("asset")["close"].shift(-1)
    return f["close"].where(f["asset"] != "C", after).rename("price")


C = lambda leak: lambda f: leak(f["close"])  # noqa: E731
PLANTED: dict[str, Planted] = {
    "the next close": Planted("negative shift", C(lambda c: c.shift(-1)), horizon=1),
    "three bars ahead": Planted("negative shift", beside(C(lambda c: c.shift(-3))), column="leak", horizon=3),
    "change to come": Planted("negative shift", C(lambda c: c.diff(-5)), horizon=5),
    "rolled": Planted("negative shift", C(lambda c: pd.Series(np.roll(c, -2), c.index, name="r")), column="r", horizon=2),
    "maximum ahead": Planted("negative shift", C(lambda c: c.rolling(4).max().shift(-4)), horizon=4),
    "volume ahead, as a flag": Planted("negative shift", next_volume, column="volume", horizon=2, flag=True),
    "centred mean": Planted("centred window", C(lambda c: c.rolling(9, center=True).mean()), horizon=4, first=4),
    "centred triangle": Planted("centred window", C(lambda c: c.rolling(5, center=True, min_periods=1).median()), horizon=2),
    "turning points": Planted("centred window", C(lambda c: c == c.rolling(7, center=True).min()), horizon=3, first=3, flag=True),
    "convolved": Planted("two-sided filter", C(lambda c: pd.Series(np.convolve(c, np.ones(5) / 5, "same"), c.index, name="v")), column="v", horizon=2),
    "over frequencies": Planted("two-sided filter", C(fourier)),
    "z-score of everything": Planted("whole-sample statistic", C(lambda c: (c - c.mean()) / c.std())),
    "z-score in one column": Planted("whole-sample statistic", beside(C(lambda c: c / c.std()), "z"), column="z"),
    "quantile of everything": Planted("whole-sample statistic", C(lambda c: c > c.quantile(0.5))),
    "rank among all": Planted("rank", C(lambda c: c.rank(pct=True))),
    "buckets": Planted("rank", C(lambda c: pd.qcut(c, 4, labels=False))),
    "highest of all": Planted("extreme", C(lambda c: c / c.max())),
    "against the last row": Planted("last row", C(lambda c: c.iloc[-1] - c)),
    "back-filled": Planted("fill", C(lambda c: c.where(np.arange(len(c)) % 4 == 0).bfill()), horizon=3, first=1),
    "interpolated": Planted("fill", C(lambda c: c.where(np.arange(len(c)) % 4 == 0).interpolate()), horizon=3, first=1),
    "nearest": Planted("fill", C(lambda c: c[::5].reindex(c.index, method="nearest")), horizon=2, first=3),
    "from the end": Planted("backwards", C(lambda c: c[::-1].cumsum()[::-1])),
    "least to come": Planted("backwards", C(lambda c: c[::-1].cummin()[::-1])),
    "a line through all": Planted("fit", C(lambda c: c - np.polyval(np.polyfit(np.arange(len(c)), c, 1), np.arange(len(c))))),
    "regression": Planted("fit", regression, column="result"),
    "scaler, first column": Planted("fit", scaled, column="close"),
    "scaler, second column": Planted("fit", scaled, column="volume"),
    "six hours": Planted("period label", C(periods), horizon=5),
    "one bar only": Planted("one row", C(lambda c: c.rolling(3).mean().where(c.index != TIMES[47], c.shift(-1))), horizon=1, first=47),
    "only keeps from trading": Planted("suppresses", C(lambda c: (c.rolling(5).mean() < c) & (c.shift(-1) > c)), horizon=1, first=9),
    "survivors": Planted("universe", listed, "WIDE", column="A"),
    "asset from another": Planted("other asset", other_asset, "WIDE", column="B", horizon=1),
    "best of all assets, ever": Planted("other asset", lambda f: f.div(f.max().max()), "WIDE", column="D"),
    "one asset of four": Planted("one asset", one_asset, "LONG", column="price", horizon=1, asset="C"),
    "mean of each asset": Planted("whole-sample statistic", lambda f: f["close"] - f.groupby("asset")["close"].transform("mean"), "LONG", asset="A"),
    "next of each asset": Planted("negative shift", lambda f: f.groupby(level=1)["close"].shift(-2), "PAIRS", horizon=2, asset="A"),
    "before it was known": Planted("availability", lambda f: f["close"].diff(), "REPORTED", horizon=4, first=1),
    "half known": Planted("availability", lambda f: f["close"].shift(3), "REPORTED", horizon=1, first=3),
    "how many rows": Planted("length", C(lambda c: pd.Series(np.arange(len(c)) > len(c) / 2, c.index, name="n")), column="n", first=2),
    "bars left": Planted("length", C(lambda c: pd.Series(np.arange(len(c))[::-1], c.index, name="n")), column="n"),
    "row of the future by number": Planted("hard-coded row", C(lambda c: c - c.iloc[60])),
    "mean kept from the first run": Planted("kept state", C(kept)),
    "unseeded": Planted("random", C(lambda c: c * random.random())),
}  # fmt: skip

CLEAN: dict[str, tuple[Feature, Any]] = {
    "yesterday": (C(lambda c: c.shift(1)), "ONE"),
    "average": (C(lambda c: c.rolling(9).mean()), "ONE"),
    "deviation": (C(lambda c: c.pct_change().rolling(10).std()), "ONE"),
    "exponential": (C(lambda c: c.ewm(span=7).mean()), "ONE"),
    "growing mean": (C(lambda c: (c - c.expanding().mean()) / c.expanding().std()), "ONE"),
    "growing rank": (C(lambda c: c.expanding().rank(pct=True)), "ONE"),
    "forward-filled": (C(lambda c: c.where(np.arange(len(c)) % 4 == 0).ffill()), "ONE"),
    "drawdown": (C(lambda c: c / c.cummax() - 1), "ONE"),
    "by the hour": (C(lambda c: pd.Series(c.index.hour < 12, c.index)), "ONE"),
    "warm-up left out": (C(lambda c: c.pct_change(4).dropna()), "ONE"),
    "as an array": (C(lambda c: np.r_[np.nan, np.diff(c.to_numpy())]), "ONE"),
    "text": (lambda f: f["up"].map({True: "long", False: "short"}), "ONE"),
    "volume to price": (lambda f: (f["volume"] * f["close"]).rolling(6).sum(), "ONE"),
    "last of the window": (C(lambda c: c.rolling(5).apply(lambda w: w.iloc[-1] - w.mean())), "ONE"),
    "six hours, at their end": (C(lambda c: c.resample("6h", label="right", closed="right").last().where(lambda s: s.index <= c.index[-1]).reindex(c.index).ffill()), "ONE"),
    "seeded noise": (C(lambda c: c + np.random.default_rng(1).normal(size=len(c))), "ONE"),
    "rank across assets": (lambda f: f.rank(axis=1, pct=True), "WIDE"),
    "against the others": (lambda f: f.sub(f.mean(axis=1), axis=0), "WIDE"),
    "by asset, long": (lambda f: f.groupby("asset")["close"].pct_change(3), "LONG"),
    "by time, long": (lambda f: f.groupby(level=0)["close"].rank(), "LONG"),
    "by asset, two levels": (lambda f: f.groupby(level=1)["close"].shift(2), "PAIRS"),
    "refitted on the past": (C(lambda c: pd.Series([np.polyfit(np.arange(9), c.iloc[k - 9 : k], 1)[0] if k >= 9 else np.nan for k in range(len(c))], c.index)), "ONE"),
    "once it was known": (lambda f: f["close"].shift(4), "REPORTED"),
    "always": (C(lambda c: c * 0 + 1), "ONE"),
}  # fmt: skip


def checked(feature: Feature, frame: str, **options: Any) -> Any:
    known = "known" if frame == "REPORTED" else None
    return leakcheck(feature, globals()[frame], known=known, **options)


def test_the_table_is_as_large_as_it_should_be():
    assert len(PLANTED) >= 30 and len({leak.kind for leak in PLANTED.values()}) >= 14 and len(CLEAN) >= 20


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found_with_its_column_row_and_horizon(name):
    planted = PLANTED[name]
    found = checked(planted.feature, planted.frame)
    leaks = {leak.column: leak for leak in found.leaks}
    assert not found.clean and planted.column in leaks, found
    assert not {"honest", "other"} & set(leaks), found
    leak = leaks[planted.column]
    assert leak.horizon == planted.horizon, found
    assert leak.first >= str(TIMES[planted.first]) and leak.asset == planted.asset, found
    assert planted.flag or leak.first == str(TIMES[planted.first]), found
    assert leak.cause and leak.column in repr(found) and leak.ahead in found._repr_html_()


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_feature_raises_no_alarm(name):
    found = checked(*CLEAN[name])
    assert found.clean and found.moments == found.of == BARS - 1, found


@pytest.mark.parametrize("name", ["three bars ahead", "back-filled", "centred mean", "six hours"])
def test_rows_in_any_order_are_judged_alike(name):
    planted = PLANTED[name]
    shuffled = ONE.iloc[np.random.default_rng(0).permutation(BARS)]
    (leak,) = leakcheck(lambda f: planted.feature(f.sort_index()).reindex(f.index), shuffled).leaks
    assert (leak.column, leak.horizon, leak.first) == (
        planted.column,
        planted.horizon,
        str(TIMES[planted.first]),
    )


def test_it_names_whose_future_matters_and_the_line():
    def mixed(f: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "price": f["close"].shift(-1),
                "flow": f["volume"].rolling(3, center=True).sum() + f["close"],
            }
        )

    price, flow = leakcheck(mixed, ONE).leaks
    assert (price.inputs, flow.inputs) == (("close",), ("volume",))
    assert '"price": f["close"].shift(-1)' in price.cause and "centred window" in flow.cause


def test_a_label_looks_as_far_as_it_says_and_no_further():
    def two(f: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"target": f["close"].shift(-4), "feature": f["close"].shift(-1)})

    assert [leak.column for leak in leakcheck(two, ONE, labels={"target": Label(4)}).leaks] == ["feature"]
    short = leakcheck(two, ONE, labels={"target": Label(3), "feature": Label(1)})
    assert [(leak.column, leak.horizon) for leak in short.leaks] == [("target", 4)] and "3 allowed" in repr(
        short
    )
    assert leakcheck(Label(4)(two), ONE).clean
    whole = leakcheck(Label(4)(lambda f: f["close"] - f["close"].mean()), ONE)
    assert not whole.clean, "a label is no licence to see everything"
    for horizon in (-1, 2.5):
        with refused("QB-GATE-113", show=False):
            Label(horizon)  # type: ignore[arg-type]


def test_a_sample_says_that_it_is_one():
    found = leakcheck(PLANTED["three bars ahead"].feature, ONE, sample=20)
    assert (found.moments, found.of, found.leaks[0].horizon) == (20, BARS - 1, 3)
    assert any(f"20 of {BARS - 1} moments" in note for note in found.notes)


def test_what_cannot_be_tried_is_not_clean():
    raises = leakcheck(lambda f: f["no such column"], ONE)
    assert not raises.clean and not raises.leaks and "KeyError" in raises.notes[0]

    def needs_all(f: pd.DataFrame) -> pd.Series:
        if not f.equals(ONE):
            raise ValueError("other data")
        return f["close"]

    only = leakcheck(needs_all, ONE)
    assert not only.clean and only.moments == 0 and not only.leaks

    def needs_a_row(f: pd.DataFrame) -> pd.Series:
        if f["close"].iloc[20] != ONE["close"].iloc[20]:
            raise ValueError("another row 20")
        return f["close"]

    later = leakcheck(needs_a_row, ONE)
    assert not later.clean and not later.leaks and later.moments == BARS - 1 - 20
    nothing = leakcheck(lambda f: f[[]], ONE)
    assert not nothing.clean and not nothing.columns


def test_a_warm_up_that_raises_is_tried_with_garbage_alone():
    def warm(f: pd.DataFrame) -> pd.Series:
        if len(f) < 30:
            raise ValueError("too short")
        return f["close"].rolling(30).mean()

    found = leakcheck(warm, ONE)
    assert (
        found.clean and found.moments == BARS - 1 and any("at 29 moments it raised" in n for n in found.notes)
    )


def test_what_is_no_column_or_no_frame_is_refused():
    for feature in (lambda f: f["close"].mean(), lambda f: f["close"].reset_index(drop=True)):
        with refused("QB-GATE-114", show=False):
            leakcheck(feature, ONE)
    for frame in (ONE.to_dict(), ONE.iloc[:1], ONE.set_axis([*TIMES[:-1], pd.NaT])):
        with refused("QB-GATE-113", show=False):
            leakcheck(CLEAN["yesterday"][0], frame)  # type: ignore[arg-type]


def test_a_difference_in_the_last_bits_can_be_allowed_and_that_is_said():
    def last_bit(f: pd.DataFrame) -> pd.Series:
        return f["close"] * (1 + len(f) * 1e-15)

    assert not leakcheck(last_bit, ONE).clean
    found = leakcheck(last_bit, ONE, tolerance=1e-9)
    assert found.clean and any("1e-09" in note for note in found.notes)


def test_the_frame_is_left_alone_and_the_result_is_frozen_and_the_same_twice():
    before = ONE.copy()

    def writes(f: pd.DataFrame) -> pd.DataFrame:
        f["close"] = 0.0
        return f

    first, second = leakcheck(writes, ONE), leakcheck(writes, ONE)
    pd.testing.assert_frame_equal(ONE, before)
    assert first == second and first.clean
    with pytest.raises(FrozenInstanceError):
        first.leaks = ()  # type: ignore[misc]


def test_a_date_in_the_code_is_for_the_lint():
    """No data can tell; the text does, and the result passes it on."""

    def crash(f: pd.DataFrame) -> pd.Series:
        return f["close"].where(f.index < "2024-01-03", 0.0)

    found = leakcheck(crash, ONE)
    assert found.clean and any("date in the code" in note for note in found.notes)
    assert not lint(crash).clean


@pytest.fixture
def shell() -> InteractiveShell:
    made = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    made.run_line_magic("load_ext", "quantbench")
    made.user_ns.update(ONE=ONE.copy(), pd=pd)
    return made


def test_the_magic_checks_a_cell_and_leaves_it_run(shell, capsys):
    cell = (
        "target = ONE['close'].shift(-3)\n"
        "ONE['fast'] = ONE['close'].rolling(3).mean()\n"
        "ONE['slow'] = ONE['close'] - ONE['close'].mean()\n"
        "many = pd.DataFrame({'a': ONE['fast'], 'b': ONE['up'].shift(-2)})\n"
        "print('printed once')"
    )
    found = shell.run_cell_magic("leakcheck", "ONE --label target=3", cell)
    assert capsys.readouterr().out.count("printed once") == 1
    assert {leak.column: leak.horizon for leak in found.leaks} == {"ONE.slow": None, "many.b": 2}
    assert "target" in found.columns and "many.a" in found.columns
    assert "slow" in shell.user_ns["ONE"] and shell.user_ns["target"].equals(ONE["close"].shift(-3))
    assert shell.run_cell("%%leakcheck ONE --sample 9\nx = ONE['close'].diff()").success
    assert f"clean: 1 column, 9 of {BARS - 1} moments" in capsys.readouterr().out


def test_what_stands_beside_the_frame_is_cut_with_it_and_nothing_else_is_touched(shell):
    shell.user_ns.update(close=ONE["close"].copy(), lists=[], days=ONE["close"].resample("D").mean())
    found = shell.run_cell_magic("leakcheck", "ONE", "signal = close - close.iloc[-1]")
    assert [leak.column for leak in found.leaks] == ["signal"] and found.leaks[0].inputs == ("close",)
    cell = "signal = close.diff()\nlists.append(1)\ndays.iloc[0] += 1"
    before = shell.user_ns["days"].iloc[0]
    found = shell.run_cell_magic("leakcheck", "ONE", cell)
    assert found.clean and found.notes[0] == "days was made before, on other rows: it was not cut"
    assert shell.user_ns["lists"] == [1] and shell.user_ns["days"].iloc[0] == before + 1


def test_a_cell_that_makes_nothing_or_a_frame_that_is_none_is_not_clean(shell):
    found = check_cell("x = ONE['close'].mean()", "ONE", {"ONE": ONE})
    assert not found.clean and "nothing was compared" in found.notes[0]
    raised = check_cell("x = ONE['no such column']", "ONE", {"ONE": ONE})
    assert not raised.clean and "KeyError" in raised.notes[0]
    for line in ("", "ONE other", "ONE --sample", "ONE --sample 0", "ONE --label target", "nothing", "'ONE"):
        with refused("QB-GATE-113", show=False):
            shell.run_cell_magic("leakcheck", line, "x = 1")
