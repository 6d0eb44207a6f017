"""W1: a million minute bars, averages of 20 and 50, long or flat, fills at the next open, 1 bp. Ours against the peers.

    python benchmarks/engine.py [bars, default 1,000,000]      # `make peers` installs the peers first

Everyone trades the same bars: 100 units when the fast average is above the slow one by more than 1e-9, none when it is below.
The right answer is known: 22,291 fills and a final equity of 979,583.47. Ours, the bare loop and two peers must give it, or the
benchmark fails; for the others the table shows what they do instead:

- raptorbt sizes by capital (10,000 an entry), not by units
- NautilusTrader's bars fill at the close they were decided on
- backtesting.py counts closed trades, twice each

Ours runs with all Guardian checks, the ledger and the costs on. The bare loop is the same trading in 20 lines of numba, the limit
of this machine; ratios to it are what can be compared between machines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from _measure import (
    CASH,
    FEE,
    MINUTE,
    SIZE,
    START,
    Found,
    Run,
    call_costs,
    local,
    minutes,
    peers,
    serve,
    table,
    timed,
    turns,
)  # fmt: skip

KNOWN = (22_291, 979_583.47)


# ---- ours ------------------------------------------------------------------------------------------------------


def strategy() -> Any:
    from quantbench.engine.strategy import Strategy
    from quantbench.engine.window import Window, window

    class Cross(Strategy):
        fast: int = 20
        slow: int = 50
        size: float = SIZE
        short: Window = window("fast")
        long: Window = window("slow")

        def on_bar(self, bar: Any, market: Any) -> None:
            self.short.push(bar.close)
            self.long.push(bar.close)
            if not self.long.full:
                return
            gap = self.short.mean() - self.long.mean()
            if gap > 1e-9:
                if market.position(bar.asset) == 0.0:
                    market.buy(bar.asset, self.size)
            elif gap < -1e-9 and market.position(bar.asset) > 0.0:
                market.sell(bar.asset, self.size)

    return Cross


def tape(count: int) -> Any:
    """The bars as a tape of one asset that trades around the clock."""
    from quantbench.engine.events import BAR, KIND_BAR
    from quantbench.engine.sessions import assets_of
    from quantbench.engine.tape import Tape

    events = np.zeros(count, BAR)
    events["since"] = START + np.arange(count) * MINUTE
    events["known"] = events["since"] + MINUTE
    events["kind"] = KIND_BAR
    for name, values in zip(("open", "high", "low", "close", "volume"), minutes(count), strict=True):
        events[name] = values
    return Tape.from_events(events, assets_of(["AAA"], "equity", "24/7"), interval="1m")


def setup() -> dict[str, Any]:
    """Cash and costs of every run of ours; the limits are the research limits, all checks on."""
    from quantbench.portfolio.costs import Costs

    return {"cash": CASH, "costs": Costs(taker_bps=1e4 * FEE)}


def ours(events: Any, lane: str) -> Callable[[], Found]:
    """Timed is the run; the hook is compiled once for a strategy, in its first run."""
    from quantbench.engine.backtest import Session

    cross = strategy()

    def once() -> Found:
        session = Session(cross, events, lane=lane, **setup())

        def run() -> tuple[int, float]:
            for chunk in events.chunks():
                session.feed(chunk)
            session.finish()
            return int(session.memory.run["n_fills"][0]), float(session.memory.run["equity"][0])

        return timed(run)

    return once


def bare(count: int) -> Run:
    from numba import njit

    open_, _, _, close, _ = minutes(count)
    curve, where, prices, sizes = np.empty(count), np.empty(count, np.int64), np.empty(count), np.empty(count)

    @njit
    def trade(open_: Any, close: Any, curve: Any, where: Any, prices: Any, sizes: Any) -> int:
        cash, held, asked, short, long, fills = CASH, 0.0, 0.0, 0.0, 0.0, 0
        for i in range(len(close)):
            if asked != 0.0:
                cash -= asked * open_[i] + abs(asked) * open_[i] * FEE
                held += asked
                where[fills], prices[fills], sizes[fills] = i, open_[i], asked
                fills, asked = fills + 1, 0.0
            short += close[i] - (close[i - 20] if i >= 20 else 0.0)
            long += close[i] - (close[i - 50] if i >= 50 else 0.0)
            curve[i] = cash + held * close[i]
            if i >= 49:
                gap = short / 20 - long / 50
                if gap > 1e-9 and held == 0.0:
                    asked = SIZE
                elif gap < -1e-9 and held > 0.0:
                    asked = -SIZE
        return fills

    return lambda: (trade(open_, close, curve, where, prices, sizes), curve[-1])


# ---- peers: each builds its data once; what is timed is what its user waits for --------------------------------


def frame(count: int, names: str = "Open High Low Close Volume") -> Any:
    import pandas as pd

    index = pd.date_range("2015-01-01", periods=count, freq="1min")
    return pd.DataFrame(dict(zip(names.split(), minutes(count), strict=True)), index)


def vectorbt(count: int, engine: str) -> Run:
    import pandas as pd
    import vectorbt as vbt

    bars = frame(count)

    def run() -> tuple[int, float]:
        fast, slow = (
            vbt.MA.run(bars["Close"], n, **({"engine": engine} if engine == "rust" else {})).ma
            for n in (20, 50)
        )
        gap = fast.to_numpy().ravel() - slow.to_numpy().ravel()
        above, below = np.zeros(count, bool), np.zeros(count, bool)
        above[1:], below[1:] = gap[:-1] > 1e-9, gap[:-1] < -1e-9
        portfolio = vbt.Portfolio.from_signals(
            bars["Close"], pd.Series(above, bars.index), pd.Series(below, bars.index), price=bars["Open"],
            size=SIZE, fees=FEE, init_cash=CASH, freq="1min", engine=engine,
        )  # fmt: skip
        return int(portfolio.orders.count()), float(portfolio.final_value())

    return run


def vectorbt_callback(count: int) -> Run:
    import vectorbt as vbt
    from numba import njit
    from vectorbt.portfolio.nb import order_nb, order_nothing_nb

    bars = frame(count)

    @njit
    def decide(now: Any, open_: Any, sums: Any) -> Any:
        i = now.i - 1  # decided on the bar before
        if i < 0:
            return order_nothing_nb()
        close = now.close[:, now.col]
        sums[0] += close[i] - (close[i - 20] if i >= 20 else 0.0)
        sums[1] += close[i] - (close[i - 50] if i >= 50 else 0.0)
        gap = sums[0] / 20 - sums[1] / 50 if i >= 49 else 0.0
        if gap > 1e-9 and now.position_now == 0.0:
            return order_nb(size=SIZE, price=open_[now.i], fees=FEE)
        if gap < -1e-9 and now.position_now > 0.0:
            return order_nb(size=-SIZE, price=open_[now.i], fees=FEE)
        return order_nothing_nb()

    def run() -> tuple[int, float]:
        portfolio = vbt.Portfolio.from_order_func(
            bars["Close"], decide, bars["Open"].to_numpy(), np.zeros(2), init_cash=CASH, freq="1min"
        )
        return int(portfolio.orders.count()), float(portfolio.final_value())

    return run


def raptorbt(count: int) -> Run:
    import raptorbt as rb

    bars = minutes(count)
    times = START + np.arange(count) * MINUTE
    settings = rb.BacktestConfig(initial_capital=CASH, fees=FEE, fill_timing="next_bar_open")
    asset = rb.InstrumentConfig(lot_size=1.0, alloted_capital=10_000.0)

    def run() -> tuple[int, float]:
        gap = rb.sma(bars[3], 20) - rb.sma(bars[3], 50)
        result = rb.run_single_backtest(
            times, *bars, gap > 1e-9, gap < -1e-9, 1, 1.0, "A", settings, None, asset
        )
        return 2 * result.metrics.total_trades, CASH * (1 + result.metrics.total_return_pct / 100)

    return run


def backtesting(count: int) -> Run:
    import warnings

    import pandas as pd
    from backtesting import Backtest, Strategy, backtesting

    warnings.filterwarnings("ignore")
    backtesting._tqdm = lambda rows, **_: rows
    bars = frame(count)

    class Cross(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            mean = lambda prices, n: pd.Series(prices).rolling(n).mean().to_numpy()  # noqa: E731
            self.short, self.long = (self.I(mean, self.data.Close, n) for n in (20, 50))

        def next(self) -> None:
            gap = self.short[-1] - self.long[-1]
            if gap > 1e-9 and not self.position:
                self.buy(size=int(SIZE))
            elif gap < -1e-9 and self.position:
                self.position.close()

    def run() -> tuple[int, float]:
        found = Backtest(bars, Cross, cash=CASH, commission=FEE, finalize_trades=False).run()
        return 2 * int(found["# Trades"]), float(found["Equity Final [$]"])

    return run


def nautilus(count: int) -> Run:
    from decimal import Decimal

    import nautilus_trader.backtest.engine as engines
    from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
    from nautilus_trader.indicators import SimpleMovingAverage
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.data import BarType
    from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.persistence.wranglers import BarDataWrangler
    from nautilus_trader.trading.strategy import Strategy

    venue = Venue("SIM")
    asset = Equity(
        InstrumentId(Symbol("AAA"), venue), Symbol("AAA"), USD, 2, Price.from_str("0.01"), Quantity.from_int(1), 0, 0,
        maker_fee=Decimal("0.0001"), taker_fee=Decimal("0.0001"),
    )  # fmt: skip
    kind = BarType.from_str(f"{asset.id}-1-MINUTE-LAST-EXTERNAL")
    bars = BarDataWrangler(kind, asset).process(frame(count, "open high low close volume").tz_localize("UTC"))

    class Cross(Strategy):  # type: ignore[misc]
        def on_start(self) -> None:
            self.short, self.long = SimpleMovingAverage(20), SimpleMovingAverage(50)
            for average in (self.short, self.long):
                self.register_indicator_for_bars(kind, average)
            self.size, self.held, self.fills = asset.make_qty(SIZE), False, 0
            self.subscribe_bars(kind)

        def on_bar(self, _: Any) -> None:
            if not self.long.initialized:
                return
            gap = self.short.value - self.long.value
            if (gap > 1e-9 and not self.held) or (gap < -1e-9 and self.held):
                side = OrderSide.SELL if self.held else OrderSide.BUY
                self.held = not self.held
                self.submit_order(self.order_factory.market(asset.id, side, self.size))

        def on_order_filled(self, _: Any) -> None:
            self.fills += 1

    def run() -> tuple[int, float]:
        engine = engines.BacktestEngine(
            engines.BacktestEngineConfig(
                logging=LoggingConfig(bypass_logging=True),
                risk_engine=RiskEngineConfig(bypass=True),
                run_analysis=False,
            )
        )
        engine.add_venue(venue, OmsType.NETTING, AccountType.MARGIN, [Money(CASH, USD)], base_currency=USD)
        engine.add_instrument(asset)
        engine.add_data(bars)
        cross = Cross(StrategyConfig())
        engine.add_strategy(cross)
        engine.run()
        cash = engine.cache.account_for_venue(venue).balance_total(USD).as_double()
        open_profit = engine.portfolio.unrealized_pnls(venue).get(USD)
        engine.dispose()
        return cross.fills, cash + (open_profit.as_double() if open_profit else 0.0)

    return run


MAKE = {
    "vectorbt, signals (Rust)": lambda count: vectorbt(count, "rust"),
    "vectorbt, signals (numba)": lambda count: vectorbt(count, "numba"),
    "vectorbt, order function (numba)": vectorbt_callback,
    "raptorbt, arrays (Rust)": raptorbt,
    "backtesting.py": backtesting,
    "NautilusTrader": nautilus,
}


# ---- the table -------------------------------------------------------------------------------------------------


def judge(found: Mapping[str, list[Found]], count: int) -> None:
    """Everyone whose rules are ours must have found what we found; on the full tape, what is known."""
    answers = {name: (runs[-1].fills, round(runs[-1].equity, 2)) for name, runs in found.items()}
    right = answers["bare numba loop"]
    if count == 1_000_000 and right != KNOWN:
        raise SystemExit(f"the bare loop found {right}, known is {KNOWN}")
    if wrong := {
        name: found for name, found in answers.items() if name.startswith("ours") and found != right
    }:
        raise SystemExit(f"ours differs from the bare loop: {wrong}, not {right}")
    agree = [name for name in MAKE if answers.get(name) == right]
    print(
        f"\n{right[0]:,} fills, {right[1]:,.2f}: ours in both lanes, the bare loop, {', '.join(agree) or 'no peer'}"
    )
    if len(agree) < 2 and any(name in answers for name in MAKE):
        raise SystemExit("fewer than two peers agree")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bars", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--without", action="append", default=[], help="leave out a peer, such as NautilusTrader"
    )
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer:
        return serve(MAKE[words.peer](words.bars))
    events = tape(words.bars)
    mine = {f"ours, {lane}": ours(events, lane) for lane in ("compiled", "interpreted")}
    names = [name for name in MAKE if name not in words.without]
    where = {name: "nautilus" if name == "NautilusTrader" else "vectorbt" for name in names}
    with peers(__file__, where, words.bars) as others:
        found = turns(local({"bare numba loop": bare(words.bars)}) | mine | others, words.rounds)
    print(f"W1, {words.bars:,} bars, medians of {words.rounds} rounds in turn\n")
    table(found, words.bars, bare="bare numba loop", ours="ours, compiled", unit="bars")
    call_costs()
    judge(found, words.bars)


if __name__ == "__main__":
    main()
