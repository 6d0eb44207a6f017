"""Momentum and pairs on the bundled data: the numbers they gave, the choices pandas makes, in both lanes, and none from the future."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.clock import WallClock
from quantbench.core.types import AssetClass
from quantbench.data.asof import history, vintages
from quantbench.data.ingest import ingest
from quantbench.data.sources import SampleSource
from quantbench.data.store import Lake
from quantbench.engine.backtest import backtest
from quantbench.engine.compiler import Lanes, compile_lanes
from quantbench.engine.result import Result
from quantbench.engine.strategy import Strategy
from quantbench.engine.tape import Tape
from quantbench.strategies.momentum import CrossSectionalMomentum
from quantbench.strategies.pairs import PairsReversion

ROOT = Path(__file__).resolve().parent.parent
SOAK = os.environ.get("QUANTBENCH_SOAK") == "1"
AS_OF = dt.datetime(2017, 9, 1, tzinfo=dt.UTC)
PLACE = "QUANTBENCH_EXAMPLES_LAKE"  # a process that a test starts need not fill a lake again
NAMES = ("momentum", "pairs")


@cache
def lake() -> Lake:
    if PLACE in os.environ:
        return Lake.open(os.environ[PLACE], clock=WallClock())
    made = Lake.create(Path(mkdtemp()) / "lake", clock=WallClock())
    ingest(made, SampleSource(), only=["sp500-bars", "sp500-membership"], quarantine=0.001, tell=None)
    return made


@cache
def bars() -> pd.DataFrame:
    """Every sound bar of the lake, by pandas."""
    rows = history(lake(), "bars", as_of=AS_OF).rows.to_pandas().astype({"asset": str})
    high, low = rows[["open", "close", "low"]].max(axis=1), rows[["open", "close", "high"]].min(axis=1)
    prices = rows[["open", "high", "low", "close"]].notna().all(axis=1)
    return rows[prices & (rows["high"] >= high) & (rows["low"] <= low)]


@cache
def tape(name: str) -> Tape:
    everybody = history(lake(), "bars", as_of=AS_OF, columns=["asset"]).rows["asset"].unique().to_pylist()
    assets = sorted({*everybody} - {"GOOG"}) if name == "momentum" else ["GOOG", "GOOGL"]
    start = None if name == "momentum" else dt.datetime(2014, 4, 3, tzinfo=dt.UTC)
    return Tape.from_lake(
        lake(), as_of=AS_OF, assets=assets, start=start, adjustment="split", specs=AssetClass.EQUITY,
        calendar="XNYS", incomplete="drop",
    ).load()  # fmt: skip


@cache
def listed() -> Any:
    return vintages(lake(), "membership", as_of=AS_OF).rows


class OfTheIndex(CrossSectionalMomentum):
    """Among the members as known on the day; the lake is opened when they are first asked for."""

    @property
    def membership(self) -> Any:  # type: ignore[override]
        return listed()


STRATEGIES: dict[str, type[Strategy]] = {"momentum": OfTheIndex, "pairs": PairsReversion}
CASH = {"momentum": 10_000_000.0, "pairs": 1_000_000.0}


def play(name: str, on: Tape | None = None, lane: str | Lanes = "auto") -> Result:
    return backtest(STRATEGIES[name](), on or tape(name), cash=CASH[name], lane=lane)


@cache
def run(name: str) -> Result:
    return play(name)


# ---- the numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_golden_numbers(name):
    """Exactly: a change here is a change of what the engine does, and must be meant."""
    kept = json.loads((ROOT / "fixtures" / "golden" / f"{name}.json").read_text())
    assert len(kept) >= 30 and "orders_hash" in kept
    assert json.loads(json.dumps(run(name).golden())) == kept


@pytest.mark.parametrize("name", NAMES)
def test_the_referees_agree(name):
    found = run(name).check()
    assert "loop" in found and max(found.values()) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_both_lanes_and_three_runs_give_the_same_bytes(name):
    lanes = run(name).provenance.lanes
    assert lanes == {"on_bar": "compiled"} if name == "pairs" else lanes["on_timer"].startswith("interpreted")
    assert {play(name).hash, play(name, lane="interpreted").hash} == {run(name).hash}


@pytest.mark.parametrize("seed", ["0", "1"] if SOAK else ["1"])
def test_no_order_of_a_set_gets_in(seed):
    code = "import sys; sys.path.insert(0, 'tests'); from test_examples import run, NAMES; print(*[run(n).hash for n in NAMES])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed, PLACE: str(lake().root)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [run(name).hash for name in NAMES]


# ---- the choices, by pandas ------------------------------------------------------------------------------------


def chosen() -> Iterator[tuple[pd.Timestamp, set[str]]]:
    """The last session of each month, and the tenth of the members that rose most in twelve months without the last."""
    rows = bars()[bars()["asset"] != "GOOG"]
    close = rows.pivot(index="known_time", columns="asset", values="close")
    spells = listed().to_pandas().astype({"asset": str}).sort_values("event_time", kind="stable")
    months = close.index.tz_convert("America/New_York").strftime("%Y-%m")
    for day in close.groupby(months).tail(1).index[:-1]:
        past = close.loc[:day]
        if len(past) >= 253:
            member = spells[spells["known_time"] <= day].groupby("asset")["member"].last()
            fits = past.tail(5).notna().any() & member.reindex(past.columns, fill_value=False).astype(bool)
            grown = (past.iloc[-22] / past.iloc[-253])[fits].dropna().sort_values(kind="stable")
            yield day, {*grown.index[-int(0.1 * len(grown)) :]}


def test_momentum_holds_what_pandas_chooses():
    fills = run("momentum").logs.fills
    symbols, lots = np.array(tape("momentum").symbols), fills["lots"] * fills["side"]
    months = list(chosen())
    assert len(months) == 48 and len({*map(len, (names for _, names in months))}) > 5
    for day, names in months:
        upto = fills["time"] < (day + pd.Timedelta(days=5)).value
        held = np.bincount(fills["asset"][upto], lots[upto], len(symbols))
        assert (held >= 0).all() and {*symbols[held > 0]} == names


def test_nothing_unwanted_is_asked_for():
    """Names without a price, not wanted and not held, were once 754 rejections."""
    assert len(run("momentum").rejections) == 0


def sides(close: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """z of two columns of closes, and from it the side to be on after each."""
    spread = np.log(close.iloc[:, 0] / close.iloc[:, 1])
    z = ((spread - spread.rolling(60).mean()) / spread.rolling(60).std()).dropna()
    side, waits, found = 0, False, []
    for value in z:
        waits = waits and abs(value) >= 0.5
        if side and abs(value) > 4.0:
            side, waits = 0, True
        elif side and (abs(value) < 0.5 or np.sign(value) == side):
            side = 0
        elif not side and not waits and 2.0 < abs(value) <= 4.0:
            side = -int(np.sign(value))
        found.append(side)
    return z, pd.Series(found, z.index)


def followed(result: Result, wanted: pd.Series, since: pd.Series) -> None:
    """Both legs trade at the first open after the side has changed, to the side that pandas wants."""
    changed = wanted.index[wanted.diff().fillna(wanted.iloc[0]) != 0]
    opens = since.shift(-1).loc[changed].dropna().astype("int64")
    assert len(opens) > 20
    for asset, sign in ((0, 1), (1, -1)):
        mine = result.logs.fills[result.logs.fills["asset"] == asset]
        assert np.array_equal(mine["time"], opens)
        assert np.array_equal(np.sign(np.cumsum(mine["lots"] * mine["side"])), sign * wanted[opens.index])


def table(on: Tape) -> pd.DataFrame:
    """Closes and opens of the days on which both assets have a bar."""
    frame = pd.DataFrame({name: on.events[name] for name in ("known", "since", "asset", "close")})
    return frame.pivot(index="known", columns="asset", values=["close", "since"]).dropna()


def test_pairs_trades_what_pandas_signals():
    pair = bars()[bars()["asset"].isin(["GOOG", "GOOGL"])].pivot(
        index="known_time", columns="asset", values="close"
    )
    z, wanted = sides(pair[pair.index >= "2014-04-03"])
    assert (z.abs() > 4.0).any() and {*wanted} == {-1, 0, 1}
    known = z.index.astype("datetime64[ns, UTC]").astype("int64")
    followed(run("pairs"), pd.Series(wanted.to_numpy(), known), table(tape("pairs"))["since"][0])


def test_the_rules_of_pairs_one_by_one():
    """Also those that this pair never met: z that jumps over zero, z beyond the stop while nothing is held."""
    rules: Any = PairsReversion().fresh(2)
    path = [
        (1.9, 0),
        (2.1, -1),
        (0.6, -1),
        (-0.6, 0),
        (-2.1, 1),
        (-4.0, 1),
        (-4.1, 0),
        (-3.0, 0),
        (3.0, 0),
        (0.4, 0),
    ]
    path += [(4.1, 0), (2.1, -1), (0.4, 0), (-2.5, 1), (0.0, 0)]
    for z, side in path:
        rules.side = rules.decide(z)
        assert rules.side == side, z


def test_a_day_with_one_leg_is_no_day():
    """Without every fiftieth bar of the second asset: those days have no spread, and what was decided before fills when it can."""
    events = tape("pairs").events
    gone = np.flatnonzero(events["asset"] == 1)[::50]
    holed = Tape.from_events(np.delete(events, gone), tape("pairs").assets, adjustment="split", interval="1d")
    found, both = play("pairs", holed), table(holed)
    z, wanted = sides(both["close"])
    opened = found.logs.fills[found.logs.fills["asset"] == 0]
    held = np.zeros(len(wanted))
    for fill in opened:
        held[wanted.index >= fill["time"]] += fill["lots"] * fill["side"]
    late = np.sign(held) != wanted.shift(1).fillna(0)
    assert len(z) < len(sides(table(tape("pairs"))["close"])[0])
    assert late.sum() <= 2 and found.check("loop")["loop"] < 1e-9


# ---- the future ------------------------------------------------------------------------------------------------


def decisions(result: Result, until: int) -> np.ndarray:
    moves = result.logs.transitions
    return moves[moves["time"] <= until]


@pytest.mark.parametrize("name", NAMES)
def test_the_future_is_not_seen(name):
    """Whatever comes after a decision, or nothing at all, what was decided and done up to then stays."""
    known = np.unique(tape(name).events["known"])
    logs = run(name).logs
    times = np.setdiff1d(logs.transitions["time"], logs.fills["time"])  # fills are of bars known later
    some, lanes = 3 if name == "momentum" else 10, compile_lanes(STRATEGIES[name]())
    chosen = times if SOAK else times[:: len(times) // some]
    assert len(chosen) >= some
    for decided in map(int, chosen):
        after = int(known[min(np.searchsorted(known, decided), len(known) - 1)])
        poisoned, cut = (
            play(name, other, lanes) for other in (tape(name).poison(decided, 7), tape(name).truncate(after))
        )
        assert np.array_equal(decisions(poisoned, decided), decisions(run(name), decided))
        assert np.array_equal(decisions(cut, after), decisions(run(name), after))
