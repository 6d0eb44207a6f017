"""A shuffled market has the moves of the real one: none lost, none new, each asset at the times at which it was there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from quantbench.core.check import QuantbenchError
from quantbench.engine.events import BAR, KIND_BAR, KIND_DELIST, KIND_DIVIDEND, KIND_SPLIT, check, merged
from quantbench.engine.sessions import assets_of
from quantbench.engine.tape import Tape
from quantbench.gates.shuffles import METHODS, Shuffle

DAY = 86_400_000_000_000
START = 18_000 * DAY
HOUR = DAY // 24


def bars(asset: int, first: int, last: int, seed: int, step: int = DAY, grid: float = 100.0) -> Any:
    """Of one asset, from one step to another."""
    rng = np.random.default_rng(seed)
    count = last - first
    body, gap = rng.normal(0, 0.01, count), rng.normal(0, 0.004, count)
    close = 80 * np.exp(np.cumsum(body + gap))
    opened = close / np.exp(body)
    events = np.zeros(count, BAR)
    events["known"] = START + np.arange(first + 1, last + 1) * step
    events["since"] = events["known"] - step + 1
    events["asset"], events["kind"], events["flags"] = asset, KIND_BAR, 3 if step == DAY else 0
    events["open"], events["close"] = opened, close
    events["high"] = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.003, count)))
    events["low"] = np.minimum(opened, close) / np.exp(np.abs(rng.normal(0, 0.003, count)))
    for name in ("open", "high", "low", "close"):
        events[name] = np.rint(events[name] * grid) / grid if grid else events[name]
    events["volume"] = rng.integers(1_000, 9_000, count)
    return events


def action(kind: int, asset: int, step: int, **body: float) -> Any:
    event = np.zeros(1, BAR)
    event["known"] = event["since"] = START + step * DAY + 1
    event["kind"], event["asset"] = kind, asset
    for name, value in body.items():
        event[name] = value
    return event


def tape(*parts: Any, interval: str = "1d") -> Tape:
    events = merged(list(parts))
    count = int(events["asset"].max()) + 1
    return Tape.from_events(
        events, assets_of(["AAA", "BBB", "CCC", "DDD"][:count], "equity", "24/7"), interval=interval
    )


def of_asset(events: Any, asset: int) -> Any:
    return events[(events["asset"] == asset) & (events["kind"] == KIND_BAR)]


def moves(events: Any) -> Any:
    """Close to close, with the shape of the bar and its volume; a row for each bar but the first."""
    before, now = events["close"][:-1], events[1:]
    columns = [
        now["close"] / before,
        now["open"] / before,
        now["high"] / now["open"],
        now["low"] / now["open"],
    ]
    return np.stack([*columns, now["volume"]], axis=1)


def ranked(rows: Any) -> Any:
    return rows[np.lexsort(rows.T[::-1].round(9))]


THREE = tape(bars(0, 0, 300, 1), bars(1, 0, 300, 2), bars(2, 40, 260, 3))


@pytest.mark.parametrize("method", METHODS)
def test_another_market_is_a_market(method: str) -> None:
    """Times, assets and flags stay; what the contract of events asks of prices and order holds."""
    shuffle = Shuffle(THREE, method, block=5.0 * (method == "blocks"))
    for number in range(20):
        events = shuffle.tape(number).events
        check(events, [False] * 3, where=method)
        for name in ("known", "since", "asset", "kind", "flags"):
            assert (events[name] == THREE.events[name]).all()
        cents = np.stack([events[name] for name in ("open", "high", "low", "close")]) * 100
        assert np.abs(cents - np.rint(cents)).max() < 1e-6 and cents.min() >= 1


def test_returns_move_whole_bars() -> None:
    """Off the grid nothing is rounded, so each asset has exactly the bars it had, gap and volume included; first and last price stay."""
    free = tape(*(bars(k, 40 * (k == 2), 300, k, grid=0.0) for k in range(3)))
    shuffle = Shuffle(free, "returns")
    assert (shuffle.grids == 0).all()
    for number in range(5):
        events = shuffle.tape(number).events
        for asset in range(3):
            was, now = of_asset(free.events, asset), of_asset(events, asset)
            assert now[0] == was[0] and np.isclose(now["close"][-1], was["close"][-1], rtol=1e-12)
            assert np.allclose(ranked(moves(now)), ranked(moves(was)), rtol=1e-9)


def test_bars_move_gaps_and_bars_apart() -> None:
    free = tape(bars(0, 0, 400, 1, grid=0.0))
    was, now = moves(free.events), moves(Shuffle(free, "bars").tape(1).events)
    assert np.allclose(np.sort(now[:, 1]), np.sort(was[:, 1]))  # gaps
    body = lambda rows: np.c_[rows[:, 0] / rows[:, 1], rows[:, 2:]]  # noqa: E731
    assert np.allclose(ranked(body(now)), ranked(body(was)))
    assert not np.allclose(np.sort(now[:, 0]), np.sort(was[:, 0]))  # which gap goes before which bar is new


def test_assets_move_together() -> None:
    """What happened at one time happens at one time: the rows of both are the same pairs."""
    free = tape(bars(0, 0, 300, 1, grid=0.0), bars(1, 0, 300, 2, grid=0.0))
    pairs = lambda events: np.c_[moves(of_asset(events, 0))[:, 0], moves(of_asset(events, 1))[:, 0]]  # noqa: E731
    for method in ("returns", "blocks"):
        now = pairs(Shuffle(free, method, block=7.0).tape(3).events)
        known = {tuple(row) for row in pairs(free.events).round(9)}
        assert {tuple(row) for row in now.round(9)} <= known


def test_closing_times_of_one_day_are_one_row() -> None:
    """An exchange that closes earlier in the day moves with the one that closes later."""
    early = bars(1, 0, 300, 2)
    early["known"] -= 8 * HOUR
    early["since"] -= 8 * HOUR
    shuffle = Shuffle(tape(bars(0, 0, 300, 1), early), "returns")
    assert len(shuffle.rows) - 1 == 300 and shuffle.movable > 0.99


def test_an_asset_has_bars_only_where_it_had_some() -> None:
    """Rows without the third asset move among themselves; the row in which it begins stays."""
    shuffle = Shuffle(THREE, "returns")
    fixed = 3 + 2 * 1  # first bars of the first row and, with the two others, of the row in which CCC begins
    assert np.isclose(shuffle.movable, 1 - fixed / (300 + 300 + 220))
    found = of_asset(shuffle.tape(1).events, 2)
    assert ranked(moves(found)).shape == ranked(moves(of_asset(THREE.events, 2))).shape


def test_dates_exchange_assets_at_each_time() -> None:
    free = tape(*(bars(k, 0, 200, k, grid=0.0) for k in range(4)))
    now = Shuffle(free, "dates").tape(1).events
    at = lambda events, column: np.stack([moves(of_asset(events, k))[:, column] for k in range(4)], axis=1)  # noqa: E731
    for column in (0, 1, 2, 3):
        assert np.allclose(np.sort(at(now, column), axis=1), np.sort(at(free.events, column), axis=1))
    usual = [np.median(of_asset(free.events, k)["volume"]) for k in range(4)]
    assert np.allclose(np.sort(at(now, 4) / usual, axis=1), np.sort(at(free.events, 4) / usual, axis=1))
    moved = (at(now, 0) != at(free.events, 0)).mean()
    assert 0.6 < moved < 0.9  # each keeps its own one time in four


def test_volume_missing_stays_missing() -> None:
    silent = bars(1, 0, 100, 2)
    silent["volume"] = np.nan
    both = tape(bars(0, 0, 100, 1), silent)
    for method in METHODS:
        assert Shuffle(both, method, block=3.0 * (method == "blocks")).tape(1).has_volume == (True, False)


@pytest.mark.parametrize("method", ["returns", "bars", "blocks"])
def test_actions_stay_and_owners_earn_the_same(method: str) -> None:
    """A split three to one, a dividend of one in fifty, a payout of nine tenths: at their places, in proportion."""
    one = bars(0, 0, 120, 1, grid=0.0)
    for name in ("open", "high", "low", "close"):
        one[name][50:] /= 3
    one["volume"][50:] *= 3
    paid = one["close"][79] / 50
    whole = tape(
        one, action(KIND_SPLIT, 0, 50, open=3.0), action(KIND_DIVIDEND, 0, 80, high=paid),
        action(KIND_DELIST, 0, 121, high=0.9 * one["close"][-1], close=0.9 * one["close"][-1]),
    )  # fmt: skip
    events = Shuffle(whole, method, block=5.0 * (method == "blocks")).tape(2).events
    mine = of_asset(events, 0)
    split, dividend, payout = (
        events[events["kind"] == kind][0] for kind in (KIND_SPLIT, KIND_DIVIDEND, KIND_DELIST)
    )
    assert split["open"] == 3.0
    assert np.isclose(dividend["high"], mine["close"][79] / 50)
    assert np.isclose(payout["close"], 0.9 * mine["close"][-1]) and payout["high"] == payout["close"]

    def owned(found: Any, income: float) -> Any:
        units, lost = np.ones(119), np.zeros(119)
        units[49], lost[79] = 3.0, income
        return found["close"][1:] * units / (found["close"][:-1] - lost)

    real = owned(one, paid)
    assert np.abs(real - 1).max() < 0.06
    if method == "returns":
        assert np.allclose(np.sort(owned(mine, dividend["high"])), np.sort(real))
        assert np.allclose(np.sort(np.r_[mine["volume"][1:50], mine["volume"][50:] / 3]), np.sort(np.r_[one["volume"][1:50], one["volume"][50:] / 3]))  # fmt: skip


def test_sessions_keep_their_nights() -> None:
    """Of shorter bars, the gap over night stands at the start of a session again."""
    hours = bars(0, 0, 700, 4, step=HOUR, grid=0.0)
    hours["flags"][::7] = 1
    hours["open"][7::7] *= 1.5
    hours["high"] = np.maximum(hours["high"], hours["open"])
    market = tape(hours, interval="1h")
    events = Shuffle(market, "bars").tape(1).events
    gaps = moves(events)[:, 1]
    assert gaps[6::7].min() > 1.3 and np.delete(gaps, np.arange(6, 699, 7)).max() < 1.3


def test_seed_and_number_name_a_market() -> None:
    """Memory that was drawn into before, another instance, another order: the same bytes; another seed, number or method: others."""
    shuffle = Shuffle(THREE, "bars", seed=5)
    memory = shuffle.events()
    for number in (9, 3, 7):
        shuffle.draw(number, memory)
    again = Shuffle(THREE, "bars", seed=5).tape(7)
    assert memory.tobytes() == again.events.tobytes()
    others = [
        Shuffle(THREE, "bars", seed=6).tape(7),
        Shuffle(THREE, "bars", seed=5).tape(8),
        Shuffle(THREE, "returns", seed=5).tape(7),
    ]
    assert len({again.hash, *(other.hash for other in others)}) == 4
    assert (
        THREE.hash == tape(bars(0, 0, 300, 1), bars(1, 0, 300, 2), bars(2, 40, 260, 3)).hash
    )  # the model is untouched


def test_blocks_are_as_long_as_asked() -> None:
    """Steps of one between neighbours: all but one in ten. The mean block of an unstated length follows the data."""
    free = tape(bars(0, 0, 3000, 1, grid=0.0))
    shuffle = Shuffle(free, "blocks", block=10.0)
    was, now = (moves(events)[:, 0] for events in (free.events, shuffle.tape(1).events))
    places = np.abs(now[:, None] - was).argmin(axis=1)
    assert 0.08 < np.mean(np.diff(places) != 1) < 0.12
    smooth = bars(0, 0, 1500, 1, grid=0.0)
    trend = np.exp(0.05 * np.sin(np.arange(1500) / 40))
    for name in ("open", "high", "low", "close"):
        smooth[name] *= trend
    assert Shuffle(tape(smooth), "blocks").block > 1.5 * Shuffle(free, "blocks").block


@pytest.mark.parametrize("method,block", [("bar", 0.0), ("blocks", 0.5), ("blocks", np.nan), ("blocks", 1e9)])
def test_what_makes_no_sense_is_refused(method: str, block: float) -> None:
    with pytest.raises(QuantbenchError, match="QB-GATE-115"):
        Shuffle(THREE, method, block=block)


def test_prices_at_zero_are_refused() -> None:
    lost = bars(0, 0, 10, 1)
    lost["low"][5] = -1.0
    asset = assets_of(["AAA"], "equity", "24/7")[0]
    oil = dataclasses.replace(asset, negative_prices=True)
    with pytest.raises(QuantbenchError, match="QB-GATE-105"):
        Shuffle(Tape.from_events(lost, [oil], interval="1d"), "bars")


def test_a_price_never_falls_below_one_tick() -> None:
    """All losses first, and a price of cents comes to nothing: the lowest price there is stays one."""
    cheap = bars(0, 0, 400, 5, grid=0.0)
    moved = np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.3, 400)))
    for name in ("open", "high", "low", "close"):
        cheap[name] = np.maximum(np.rint(moved * 5), 1.0) / 100
    lowest = [Shuffle(tape(cheap), "bars").tape(k).events["low"].min() for k in range(10)]
    assert min(lowest) == 0.01
