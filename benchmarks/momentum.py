"""W2: 500 assets, 2,520 days, momentum of twelve months without the last: each month the best tenth, decided in a Python `on_timer`.

    python benchmarks/momentum.py [assets, default 500]      # `make peers` installs the peers first

Everyone trades the same bars by the same rules: at the last close of a month each of the best tenth is to be 98 % / 50 of the
equity at that close, in parts of shares; fills at the next open, 1 bp. Two per cent stay in cash, so that no order ever lacks it and
the order in which orders fill cannot matter: ours, the bare loop and vectorbt must give the same fills and, to a ten-millionth, the
same final equity, or the benchmark fails. (Ours holds multiples of 2^-18 of a share. In whole shares fills would differ: ours rounds
the position, vectorbt the trade.) vectorbt is told the sizes of the months beforehand, as its users do; it values at the close of the
decision (`val_price`) and fills at the open.

Ours runs with all Guardian checks, the ledger and the costs on. The bare loop is the same trading in 30 lines of numba, the limit
of this machine; ratios to it are what can be compared between machines. The lines below the table say where our time goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from _measure import (
    CASH,
    DAY,
    FEE,
    Found,
    Run,
    business_days,
    days,
    local,
    month_ends,
    peers,
    serve,
    table,
    timed,
    turns,
)  # fmt: skip

COUNT = 2520
BACK, GAP, PART, WEIGHT = 252, 21, 0.1, 0.98


# ---- ours ------------------------------------------------------------------------------------------------------


def strategies() -> Mapping[str, Any]:
    """The whole, and the same with less and less of it."""
    from quantbench.engine.strategy import Strategy, monthly
    from quantbench.strategies.momentum import CrossSectionalMomentum

    class Momentum(CrossSectionalMomentum):
        timer = monthly(day="last", calendar="24/7")

    class Remembers(Momentum):
        def on_timer(self, market: Any) -> None:
            market.history("close")

    class Nothing(Strategy):
        pass

    return {
        "ours": Momentum(closes=BACK + 1, gap=GAP, part=PART, weight=WEIGHT),
        "without orders": Remembers(closes=BACK + 1),
        "events alone": Nothing(),
    }


def tape(assets: int) -> Any:
    """The bars as a tape of days around the clock."""
    from quantbench.engine.events import BAR, KIND_BAR
    from quantbench.engine.sessions import spec
    from quantbench.engine.tape import Tape

    opens, closes = days(assets, COUNT)
    events = np.zeros(opens.size, BAR)
    since = business_days(COUNT).astype("datetime64[ns]").astype(np.int64)
    events["since"] = np.repeat(since, assets)
    events["known"] = events["since"] + DAY
    events["asset"] = np.tile(np.arange(assets), COUNT)
    events["kind"], events["volume"] = KIND_BAR, 1e6
    events["open"], events["close"] = opens.ravel(), closes.ravel()
    events["high"] = np.maximum(events["open"], events["close"])
    events["low"] = np.minimum(events["open"], events["close"])
    # a part of a share is a power of two, so that counting them is exact
    parted = [spec(f"A{i:03d}", calendar="24/7", lot_size=Decimal(2) ** -18) for i in range(assets)]
    return Tape.from_events(events, parted, interval="1d")


def ours(strategy: Any, events: Any) -> Callable[[], Found]:
    """Timed is the run, not the making of its memory."""
    from quantbench.engine.backtest import Session
    from quantbench.portfolio.costs import Costs

    def once() -> Found:
        session = Session(strategy, events, cash=CASH, costs=Costs(taker_bps=1e4 * FEE))

        def run() -> tuple[int, float]:
            for chunk in events.chunks():
                session.feed(chunk)
            session.finish()
            if session.memory.run["n_fills"][0] and session.memory.run["stopped"][0].any():
                raise SystemExit("Guardian stopped an order")
            return int(session.memory.run["n_fills"][0]), float(session.memory.run["equity"][0])

        return timed(run)

    return once


# ---- the bare loop ---------------------------------------------------------------------------------------------


def bare(assets: int) -> Run:
    from numba import njit

    opens, closes = days(assets, COUNT)
    last = np.zeros(COUNT, np.bool_)
    last[month_ends(business_days(COUNT))] = True
    curve, best = np.empty(COUNT), int(PART * assets)

    @njit
    def trade(opens: Any, closes: Any, last: Any, best: int, curve: Any) -> int:
        count, width = closes.shape
        held, asked, cash, fills, pending = np.zeros(width), np.zeros(width), CASH, 0, False
        for t in range(count):
            if pending:
                for j in range(width):
                    if asked[j] != 0.0:
                        cash -= asked[j] * opens[t, j] + abs(asked[j]) * opens[t, j] * FEE
                        held[j] += asked[j]
                        fills += 1
                pending = False
            worth = cash
            for j in range(width):
                worth += held[j] * closes[t, j]
            curve[t] = worth
            if last[t] and t >= BACK:
                order = np.argsort(closes[t - GAP] / closes[t - BACK])
                asked[:] = 0.0
                for k in range(best):
                    j = order[width - 1 - k]
                    asked[j] = WEIGHT / best * worth / closes[t, j]
                for j in range(width):
                    asked[j] -= held[j]
                pending = True
        return fills

    return lambda: (trade(opens, closes, last, best, curve), curve[-1])


# ---- peers -----------------------------------------------------------------------------------------------------


def vectorbt(assets: int, engine: str) -> Run:
    import pandas as pd
    import vectorbt as vbt

    dates = business_days(COUNT)
    opens, closes = (pd.DataFrame(prices, pd.DatetimeIndex(dates)) for prices in days(assets, COUNT))
    before, close, best = closes.shift(1).bfill(), closes.to_numpy(), int(PART * assets)

    def run() -> tuple[int, float]:
        sizes = np.full(close.shape, np.nan)
        for t in month_ends(dates):
            if t >= BACK and t + 1 < COUNT:
                sizes[t + 1] = 0.0
                sizes[t + 1, np.argsort(close[t - GAP] / close[t - BACK])[-best:]] = WEIGHT / best
        portfolio = vbt.Portfolio.from_orders(
            closes, pd.DataFrame(sizes, closes.index), size_type="targetpercent", price=opens, val_price=before,
            fees=FEE, init_cash=CASH, cash_sharing=True, group_by=True, call_seq="auto",
            freq="1D", engine=engine,
        )  # fmt: skip
        return int(portfolio.orders.count()), float(portfolio.value().iloc[-1])

    return run


MAKE: dict[str, Callable[[int], Run]] = {
    "vectorbt, orders (Rust)": lambda assets: vectorbt(assets, "rust"),
    "vectorbt, orders (numba)": lambda assets: vectorbt(assets, "numba"),
}


# ---- the table -------------------------------------------------------------------------------------------------


def judge(found: Mapping[str, list[Found]]) -> None:
    """Everyone must have found what the bare loop found."""
    right = found["bare numba loop"][-1]
    for name, runs in found.items():
        if runs[-1].fills != right.fills or abs(runs[-1].equity / right.equity - 1) > 1e-7:
            raise SystemExit(f"{name}: {runs[-1]}, not {right}")
    print(f"\n{right.fills:,} fills, {right.equity:,.2f}: {', '.join(found)}")


def parts(found: Mapping[str, list[Found]], count: int) -> None:
    """What each part adds: the least CPU time of its rounds, which a neighbour lengthens least."""
    took = [min(run.cpu for run in runs) for runs in found.values()]
    less = [*took[1:], 0.0]
    print("\nwhere our time goes (CPU, least of the rounds)")
    names = ("decisions, orders and fills", "history and the timer", "events and the curve")
    for name, each, rest in zip(names, took, less, strict=True):
        print(f"{name:34}{1e3 * (each - rest):10.2f} ms{1e9 * (each - rest) / count:10.2f} ns a bar")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", type=int, nargs="?", default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without", action="append", default=[], help="leave out a peer")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer:
        return serve(MAKE[words.peer](words.assets))
    events, count = tape(words.assets), words.assets * COUNT
    variants = {name: ours(strategy, events) for name, strategy in strategies().items()}
    where = {name: "vectorbt" for name in MAKE if name not in words.without}
    with peers(__file__, where, words.assets) as others:
        tasks = local({"bare numba loop": bare(words.assets)}) | {"ours": variants["ours"]} | others
        found = turns(tasks, words.rounds)
    print(f"W2, {words.assets} assets, {COUNT:,} days, medians of {words.rounds} rounds in turn\n")
    table(found, count, bare="bare numba loop", ours="ours", unit="bars")
    parts(turns(variants, words.rounds), count)
    judge(found)


if __name__ == "__main__":
    main()
