"""Twenty numbers that a popular library gets or got wrong, a naive twin of every metric, and referees where they are right."""

from __future__ import annotations

import inspect
import math
import statistics
import subprocess
import sys
import warnings
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import close, refused
from quantbench.engine import metrics
from quantbench.engine.metrics import (
    METRICS,
    Track,
    against,
    calendar_returns,
    drawdowns,
    frequency,
    growth,
    instants,
    intervals,
    measure,
    monthly,
    odds,
    plausibility,
    reward,
    rolling_sharpe,
    shape,
    simple_returns,
    tails,
    time_in_market,
    turnover,
    underwater,
    years,
)  # fmt: skip

DAYS = pd.bdate_range("2018-01-01", "2023-12-29", tz="UTC")
HOURS = pd.date_range("2020-01-01", periods=24 * 900, freq="h")
RETURNS = 0.0004 + 0.01 * np.random.default_rng(4).standard_t(4, len(DAYS))
START = DAYS[0] - pd.Timedelta(hours=6)


def track(returns=RETURNS, times=DAYS, start=START, **more) -> Track:
    return Track.of_returns(returns, times, start=start, **more)


# ---- the twenty defects, by the number they have in our list -------------------------------------------------------


def test_01_kelly_is_the_closed_form_and_not_scale_invariant():
    bet = np.array([0.02] * 60 + [-0.01] * 40)
    assert close(odds(bet).kelly, 0.6 / 0.01 - 0.4 / 0.02) and close(odds(bet / 10).kelly, 400.0)


def test_02_the_rate_is_an_argument_and_changes_what_it_should():
    assert "stack" not in inspect.getsource(metrics)
    with_rate, without = measure(track(rf=0.5)), measure(track())
    assert {name for name in without if with_rate[name] != without[name]} == {"Sharpe", "Sortino"}


def test_03_a_negative_rate_raises_the_sharpe_ratio():
    below, zero, above = (reward(RETURNS, 252, rf).sharpe for rf in (-0.01, 0.0, 0.01))
    assert below > zero > above
    rate = 0.99 ** (1 / 252) - 1
    assert close(below, (RETURNS - rate).mean() / RETURNS.std(ddof=1) * math.sqrt(252), rel=1e-10)


def test_04_the_best_year_is_a_compounded_year():
    run = track()
    by_year = calendar_returns(run.equity, run.times, "Y")[1]
    compounded = (1 + pd.Series(RETURNS, DAYS)).groupby(DAYS.year).prod() - 1
    assert close(by_year, compounded.to_numpy(), rel=1e-10) and by_year.max() > 3 * RETURNS.max()


def test_05_one_set_of_periods_feeds_all_numbers():
    """A benchmark on other dates is read at the track's own; nothing of the track is cut to match."""
    run, fewer = track(), track(RETURNS[100:900], DAYS[100:900], DAYS[99])
    before = measure(run)
    assert against(run, fewer).periods == 800
    assert measure(run) == before


def test_06_odds_of_trades_are_made_of_trades():
    """Two trades over five days: one wins, one loses, whatever the days did."""
    equity = np.array([100.0, 104.0, 102.0, 101.0, 100.0, 105.0])
    assert odds(np.array([1.0, -1.0])).hit_rate == 0.5 != odds(simple_returns(equity)).hit_rate


def test_07_a_benchmark_never_changes_the_tracks_numbers():
    run = track()
    before = measure(run)
    for seed in range(3):
        against(run, track(np.random.default_rng(seed).normal(0, 0.01, len(DAYS))))
    assert measure(run) == before and close(run.returns, RETURNS, rel=1e-9, floor=1e-14)


def test_08_cvar_is_below_var_and_not_it():
    ends = tails(RETURNS)
    assert ends.expected_shortfall < ends.value_at_risk < 0


def test_09_a_benchmarks_years_are_its_own():
    """A benchmark that trades on weekends too is not cut to the strategy's calendar."""
    every = pd.date_range("2018-01-01", "2023-12-31", tz="UTC")
    bench = track(np.full(len(every), 0.0003), every, every[0] - pd.Timedelta(days=1))
    alone = calendar_returns(bench.equity, bench.times, "Y")[1]
    against(track(), bench)
    assert close(calendar_returns(bench.equity, bench.times, "Y")[1], alone)
    assert close(alone[1], 1.0003**365 - 1, rel=1e-10)


@pytest.mark.parametrize("points", [2, 13, 53, 253, 366])
def test_10_a_doubling_in_a_calendar_year_is_a_hundred_percent(points):
    times = pd.to_datetime(np.linspace(0, 365, points).round().astype(int), unit="D", origin="2023-01-01")
    assert close(growth(np.linspace(100, 200, points), instants(times)).cagr, 1.0, rel=1e-12)


def test_11_a_first_days_loss_is_a_drawdown():
    run = track([-0.1, 0.05, 0.02], DAYS[:3], per_year=252)
    assert close(growth(run.equity, run.times).max_drawdown, -0.1)
    assert drawdowns(run.equity, run.times)[0].peak == START.value


def test_12_a_rolling_ratio_at_full_length_is_the_plain_one():
    full = rolling_sharpe(RETURNS, len(RETURNS), 252, 0.02)
    assert close(full[-1], reward(RETURNS, 252, 0.02).sharpe, rel=1e-9) and np.isnan(full[:-1]).all()
    for window in (2, 20, 63, 250):
        rolled = rolling_sharpe(RETURNS, window, 252, 0.02)
        for place in (window - 1, 700, len(RETURNS) - 1):
            part = RETURNS[place - window + 1 : place + 1] if place >= window - 1 else None
            if part is not None:
                assert close(rolled[place], reward(part, 252, 0.02).sharpe, rel=1e-6)


def test_12_a_window_without_risk_has_no_ratio():
    quiet = np.r_[RETURNS[:200], np.zeros(100), RETURNS[:200]]
    assert np.isnan(rolling_sharpe(quiet, 50, 252)[249:300]).all()


@pytest.mark.parametrize("rf", [-0.05, 0.0, 0.02, 0.5])
def test_13_total_return_knows_no_rate(rf):
    run = track(rf=rf)
    assert close(growth(run.equity, run.times).total, np.prod(1 + RETURNS) - 1, rel=1e-10)


def test_14_no_number_needs_pandas():
    """What pandas renames between releases cannot change a number that NumPy computes."""
    probe = (
        "import sys, numpy as np; from quantbench.engine.metrics import *\n"
        "t = np.arange('2020-01-01', '2021-01-01', dtype='M8[D]'); r = np.sin(np.arange(366)) / 100 + 1e-4\n"
        "run = Track.of(np.cumprod(1 + r), t); measure(run); monthly(run.equity, run.times); intervals(run, samples=10)\n"
        "print('pandas' in sys.modules, 'IPython' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


ZONES = [None, "UTC", "America/New_York", "Asia/Tokyo"]


@pytest.mark.parametrize("ours", ZONES)
@pytest.mark.parametrize("theirs", ZONES)
def test_15_all_combinations_of_time_zones(ours, theirs):
    """Times are instants: a zone says how an instant is written, and no zone is UTC."""

    def told(zone):
        return DAYS.tz_localize(None) if zone is None else DAYS.tz_convert(zone)

    market = np.random.default_rng(1).normal(0, 0.01, len(DAYS))
    run, bench = track(2 * market, told(ours)), track(market, told(theirs))
    assert close(against(run, bench).beta, 2.0, rel=1e-9) and measure(run) == measure(track(2 * market))


def test_15_times_of_every_make():
    made = [
        DAYS,
        pd.Series(DAYS),
        DAYS.to_numpy("M8[s]"),
        [t.to_pydatetime() for t in DAYS],
        DAYS.as_unit("ms"),
    ]
    made += [instants(DAYS), [t.isoformat() for t in DAYS], [datetime(2018, 1, 1, tzinfo=UTC), *DAYS[1:]]]
    assert all(np.array_equal(instants(times), instants(DAYS)) for times in made)


@pytest.mark.parametrize(
    ("times", "per_year"),
    [
        (pd.bdate_range("2020-01-01", periods=300), 252),
        (pd.date_range("2020-01-01", periods=300), 365),
        (
            pd.date_range("2020-01-01", periods=900)[
                pd.date_range("2020-01-01", periods=900).day_of_week != 5
            ],
            313,
        ),
        (DAYS[~((DAYS.month == 10) & (DAYS.day < 8))], 252),  # a week of holidays
        (pd.date_range("2020-01-03", periods=60, freq="W-FRI"), 52),
        (pd.date_range("2015-01-31", periods=60, freq="ME"), 12),
        (pd.date_range("2015-01-31", periods=60, freq="BME"), 12),
        (pd.date_range("2010-03-31", periods=30, freq="QE"), 4),
        (pd.date_range("1990-12-31", periods=30, freq="YE"), 1),
        (pd.date_range("2020-01-01", periods=24 * 30, freq="h"), 365 * 24),
        (pd.date_range("2020-01-01", periods=1440 * 10, freq="min"), 365 * 1440),
    ],
)
def test_16_the_frequency_is_inferred(times, per_year):
    assert frequency(instants(times)).per_year == per_year


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2020-01-01", periods=400, freq="s"),  # minutes of seconds: what is a year?
        pd.to_datetime(np.cumsum(np.random.default_rng(0).exponential(5e13, 400)).astype("i8")),  # ticks
        pd.date_range("2015-01-31", periods=36, freq="ME").append(pd.date_range("2018-01-01", periods=100)),
        pd.DatetimeIndex(["2020-01-01", "2021-01-01"]),
        DAYS[np.random.default_rng(0).random(len(DAYS)) < 0.7],  # days, but 180 a year
        DAYS[DAYS.day_of_week < 4],
        HOURS[HOURS.day_of_week % 3 == 0],
    ],
)
def test_16_an_unclear_frequency_is_refused_and_may_be_stated(times):
    equity = np.linspace(1, 2, len(times))
    with refused("QB-METRIC-002", show=False):
        Track.of(equity, times)
    assert Track.of(equity, times, per_year=12.0).per_year == 12.0


def test_16_monthly_returns_do_not_become_days():
    months = pd.date_range("2015-01-31", periods=120, freq="ME")
    run = track(np.full(120, 0.002), months, pd.Timestamp("2014-12-31"))
    assert close(measure(run)["CAGR"], 1.002**12 - 1, rel=1e-3)


def test_17_growth_above_a_hundred_percent_and_numbers_that_are_none():
    run = Track.of([1.0, 4.0], ["2023-01-01", "2024-01-01"], per_year=1)
    assert measure(run)["CAGR"] == 3.0
    texts = {metric.name: metric.text(measure(run)[metric.name]) for metric in METRICS}
    assert texts["CAGR"] == "300.00 %" and texts["Sharpe"] == "–"


def test_18_19_the_module_imports_alone():
    probe = "import quantbench.engine.metrics as m, sys; print(len(m.METRICS), {'IPython', 'matplotlib', 'quantstats'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(len(METRICS)), "set()"]


def test_20_nothing_is_taken_from_a_tearsheet_library():
    assert not {"quantstats", "empyrical", "pyfolio"} & set(
        inspect.getsource(metrics).replace(".", " ").split()
    )


# ---- naive twins ---------------------------------------------------------------------------------------------------


def naive(returns: list[float], per_year: float, rf: float) -> dict[str, float]:
    """Every metric of returns with Python's own numbers."""
    rate = (1 + rf) ** (1 / per_year) - 1
    n, mean = len(returns), statistics.fmean(returns)
    spread = statistics.stdev(returns)
    excess = [r - rate for r in returns]
    short = math.sqrt(math.fsum(min(x, 0.0) ** 2 for x in excess) / n)
    ordered = sorted(returns)
    place = 0.05 * (n - 1)
    k = math.floor(place)
    var = ordered[k] + (ordered[min(k + 1, n - 1)] - ordered[k]) * (place - k)
    m2, m3, m4 = (math.fsum((r - mean) ** p for r in returns) / n for p in (2, 3, 4))
    won, lost = [r for r in returns if r > 0], [-r for r in returns if r < 0]
    p = len(won) / (len(won) + len(lost))
    gain, loss = statistics.fmean(won), statistics.fmean(lost)
    equity, high, deepest = 1.0, 1.0, 0.0
    for r in returns:
        equity *= 1 + r
        high = max(high, equity)
        deepest = min(deepest, equity / high - 1)
    return {
        "total return": equity - 1,
        "max drawdown": deepest,
        "volatility": spread * math.sqrt(per_year),
        "Sharpe": statistics.fmean(excess) / spread * math.sqrt(per_year),
        "Sortino": statistics.fmean(excess) / short * math.sqrt(per_year),
        "VaR 95 %": var,
        "CVaR 95 %": statistics.fmean(ordered[: k + 1]),
        "skew": m3 / m2**1.5 * math.sqrt(n * (n - 1)) / (n - 2),
        "kurtosis": (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6),
        "hit rate": p,
        "profit factor": math.fsum(won) / math.fsum(lost),
        "payoff": gain / loss,
        "Kelly": p / loss - (1 - p) / gain,
        "best period": max(returns),
        "worst period": min(returns),
    }


SOME = st.lists(st.floats(-0.2, 0.25).filter(lambda r: abs(r) > 1e-6 or r == 0), min_size=5, max_size=200)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SOME, st.floats(-0.02, 0.08))
def test_every_metric_has_a_naive_twin(returns, rf):
    returns = [0.011, -0.013, *returns]
    times = instants(pd.bdate_range("2020-01-01", periods=len(returns)))
    run = Track(
        times,
        np.r_[1.0, np.cumprod(1 + np.array(returns))],
        times,
        np.array(returns),
        metrics.Frequency("day", 252),
        rf,
    )
    run = Track(np.r_[times[0] - 1, times], run.equity, times, run.returns, run.frequency, rf)
    ours, theirs = measure(run), naive(returns, 252, rf)
    for (
        name,
        value,
    ) in theirs.items():  # 1e-9: kurtosis cancels six digits when one return is a thousand times the others
        assert close(ours[name], value, rel=1e-9, floor=1e-10), name
    assert set(ours) - set(theirs) == {"CAGR", "Calmar"}
    assert close(ours["Calmar"], ours["CAGR"] / -ours["max drawdown"]) and close(
        ours["CAGR"], run.equity[-1] ** (1 / years(run.times)) - 1, rel=1e-9
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([90.0, 95.0, 100.0, 110.0, 120.0]), min_size=2, max_size=60))
def test_drawdowns_cover_what_is_under_water(equity):
    path, times = np.array(equity), np.arange(len(equity)) * metrics.DAY + 20_000 * metrics.DAY
    found = drawdowns(path, times, count=100)
    below = underwater(path)
    covered = np.zeros(len(path), bool)
    for fall in found:
        inside = (times > fall.peak) & (times < (fall.recovery or times[-1] + 1))
        assert not (covered & inside).any() and below[inside].min() == fall.depth
        assert below[times == fall.trough] == fall.depth and below[times == fall.peak] == 0
        covered |= inside
    assert np.array_equal(covered, below < 0)
    assert [fall.depth for fall in found] == sorted(fall.depth for fall in found)


# ---- referees ------------------------------------------------------------------------------------------------------


def test_empyrical_agrees_where_it_is_right():
    import empyrical

    ours = measure(track(rf=0.0))
    theirs = {
        "total return": empyrical.cum_returns_final(RETURNS), "max drawdown": empyrical.max_drawdown(RETURNS),
        "volatility": empyrical.annual_volatility(RETURNS), "Sharpe": empyrical.sharpe_ratio(RETURNS),
        "Sortino": empyrical.sortino_ratio(RETURNS), "VaR 95 %": empyrical.value_at_risk(RETURNS),
        "CVaR 95 %": empyrical.conditional_value_at_risk(RETURNS),
    }  # fmt: skip
    for name, value in theirs.items():  # the same formulas; equity and back costs a few digits of each return
        assert close(ours[name], value, rel=1e-9), name
    market = np.random.default_rng(2).normal(0, 0.01, len(DAYS))
    assert close(against(track(), track(market)).beta, empyrical.beta(RETURNS, market), rel=1e-8)


def test_quantstats_agrees_where_it_is_right():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantstats.stats as qs

        series = pd.Series(RETURNS, DAYS.tz_localize(None))
        theirs = {
            "Sharpe": qs.sharpe(series), "Sortino": qs.sortino(series), "volatility": qs.volatility(series),
            "hit rate": qs.win_rate(series), "profit factor": qs.profit_factor(series), "payoff": qs.payoff_ratio(series),
            "skew": qs.skew(series), "kurtosis": qs.kurtosis(series), "max drawdown": qs.max_drawdown(series),
        }  # fmt: skip
    ours = measure(track())
    for name, value in theirs.items():
        assert close(ours[name], float(value), rel=1e-9), name


# ---- the rest ------------------------------------------------------------------------------------------------------


def test_bounds_cover_the_truth_as_often_as_they_say():
    """200 tracks of known Sharpe ratio: the 90 % bounds hold it 84 to 96 % of the time (binomial, 3 deviations of 2.1 %, less the bias of short blocks)."""
    truth, n = 1.0, 500
    times = instants(pd.bdate_range("2020-01-01", periods=n + 1))
    held = 0
    for seed in range(200):
        drawn = np.random.default_rng(seed).normal(truth / math.sqrt(252) * 0.01, 0.01, n)
        run = Track.of(np.r_[1.0, np.cumprod(1 + drawn)], times)
        low, high = intervals(run, seed=seed, samples=200, level=0.9)["Sharpe"]
        held += low <= truth <= high
    assert 0.83 <= held / 200 <= 0.96


def test_few_trades_and_none_have_bounds_without_a_warning():
    """One gain in three hundred days is missing in a third of the histories; a constant gain has no ratio in any."""
    days = pd.bdate_range("2020-01-01", periods=300)
    once = Track.of(np.r_[np.ones(150), np.full(150, 1.05)], days)
    low, high = intervals(once)["Sharpe"]
    assert low == 0.0 < measure(once)["Sharpe"] < high
    constant = Track.of(1.001 ** np.arange(300), days)  # equal but for rounding, which is no risk
    steady = intervals(constant)
    assert all(math.isnan(bound) for bound in (measure(constant)["Sharpe"], *steady["Sharpe"])) and close(
        *steady["CAGR"], rel=1e-9
    )
    assert all(math.isnan(b) for b in intervals(Track.of([1.0, 2.0], days[:2], per_year=252.0))["CAGR"])


def test_a_comparison_has_a_naive_twin():
    market = np.random.default_rng(2).normal(0.0003, 0.01, len(DAYS))
    found, rate, n = against(track(rf=0.02), track(market)), 1.02 ** (1 / 252) - 1, len(DAYS)
    ours, theirs = RETURNS.tolist(), market.tolist()
    beta = statistics.covariance(ours, theirs) / statistics.variance(theirs)
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    expected = {
        "beta": beta,
        "alpha": (statistics.fmean(ours) - rate - beta * (statistics.fmean(theirs) - rate)) * 252,
        "correlation": statistics.correlation(ours, theirs),
        "tracking_error": statistics.stdev(apart) * math.sqrt(252),
        "information_ratio": statistics.fmean(apart) / statistics.stdev(apart) * math.sqrt(252),
        "excess_return": np.prod(1 + RETURNS) - np.prod(1 + market),
    }
    assert found.periods == n and all(
        close(getattr(found, name), value, rel=1e-8) for name, value in expected.items()
    )


def test_blocks_keep_what_days_have_to_do_with_each_other():
    """Gains that follow gains: single days drawn at random make the bounds too narrow."""
    noise = np.random.default_rng(3).normal(0, 0.01, 1500)
    trend = np.convolve(noise, np.full(15, 1 / 3), "same") + 0.0003
    run = track(trend, pd.bdate_range("2018-01-01", periods=1500, tz="UTC"))
    narrow, wide = (np.diff(intervals(run, block=b)["Sharpe"])[0] for b in (1, 40))
    assert wide > 1.8 * narrow


def test_mean_block_length_is_what_was_asked():
    index = metrics._resampled(5000, 20, 25.0, np.random.default_rng(0))
    jumps = (np.diff(index, axis=1) % 5000 != 1).mean()
    assert close(1 / jumps, 25.0, rel=0.05) and index.min() >= 0 and index.max() < 5000


def test_equity_at_or_below_zero():
    run = Track.of([100.0, 40.0, -5.0, 20.0, 30.0], DAYS[:5], per_year=252)
    ours = measure(run)
    assert ours["CAGR"] >= -1 and close(ours["total return"], -0.7) and close(ours["max drawdown"], -1.05)
    assert all(
        math.isnan(ours[name])
        for name in ("Sharpe", "Sortino", "VaR 95 %", "CVaR 95 %", "hit rate", "Kelly", "skew")
    )
    assert all(math.isnan(bound) for pair in intervals(run, block=2).values() for bound in pair)
    assert measure(Track.of([1.0, 0.0], ["2023-01-01", "2024-01-01"], per_year=1))["CAGR"] == -1.0


@pytest.mark.parametrize(
    "equity", [[0.0, 1.0], [-1.0, 1.0], [1.0, math.nan], [1.0, math.inf], [1.0], [1.0, 2.0, 3.0]]
)
def test_equity_without_meaning_is_refused(equity):
    with refused("QB-METRIC-003", show=False):
        Track.of(equity, DAYS[:2], per_year=252)


@pytest.mark.parametrize("rf", [-1.0, math.nan, math.inf, 2000.0])
def test_a_rate_without_meaning_is_refused(rf):
    with refused("QB-METRIC-004", show=False):
        track(rf=rf)


@pytest.mark.parametrize(
    "times",
    [
        pd.RangeIndex(3),
        [1.0, 2.0, 3.0],
        DAYS[[1, 0, 2]],
        DAYS[[0, 0, 1]],
        pd.DatetimeIndex([DAYS[0], pd.NaT, DAYS[2]]),
        DAYS[:1],
    ],
)
def test_times_without_order_are_refused(times):
    with refused("QB-METRIC-001", show=False):
        instants(times)


def test_days_of_a_finer_curve():
    """Ratios of days, drawdown of every minute."""
    minutes = pd.date_range("2020-01-01", periods=60 * 24 * 5, freq="15min")
    equity = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.001, len(minutes))))
    run = Track.of(equity, minutes, every="day")
    closes = (
        pd.Series(equity).groupby((minutes - pd.Timedelta(1)).date).last().to_numpy()
    )  # midnight ends the day
    assert close(run.returns, np.diff(closes) / closes[:-1], rel=1e-9) and closes[0] == equity[0]
    assert growth(run.equity, run.times).max_drawdown == underwater(equity).min() and run.per_year == 365


def test_months_compound_to_the_whole():
    run = track()
    _, grid = monthly(run.equity, run.times)
    assert close(np.nanprod(1 + grid), run.equity[-1], rel=1e-10) and grid.shape == (6, 12)


def test_activity_and_plausibility():
    assert time_in_market(np.array([1.0, 0.0, 1.0]), np.array([0, 1, 4])) == 0.25
    assert close(turnover(300.0, np.array([50.0, 150.0]), instants(["2022-01-01", "2024-01-01"])), 1.5)
    assert plausibility(2.99) == "" and plausibility(12.84).startswith("Sharpe 12.8 above 3")
    assert shape(np.zeros(10)) != shape(RETURNS)


def test_midnight_ends_the_day_before_unless_a_curve_is_made_of_dates():
    """Bars of a market that never closes are known at midnight: the last day of December is December's."""
    days = pd.date_range("2020-12-01", "2021-02-01", tz="UTC")
    equity = np.linspace(100, 162, len(days))
    ended, dated = Track.of(equity, days, dated=False), Track.of(equity, days)
    assert calendar_returns(ended.equity, ended.calendar, "M")[0].astype(str).tolist() == [
        "2020-12",
        "2021-01",
    ]
    assert calendar_returns(dated.equity, dated.calendar, "M")[0].astype(str).tolist() == [
        "2020-12",
        "2021-01",
        "2021-02",
    ]
    weekdays = pd.bdate_range("2020-01-01", periods=300) + pd.Timedelta(
        days=1
    )  # Friday's bar is known on Saturday
    assert Track.of(np.linspace(1, 2, 300), weekdays, dated=False).per_year == 252
