"""W5b: a million quote ticks, each given to `on_tick`; one in a thousand changes between long and flat with a market order.

Ours against NautilusTrader.

    python benchmarks/ticks.py [ticks, default 1,000,000]      # `make peers` installs the peer first

Everyone gets the same quotes, a tick of 0.01 apart, every 100 ms. The right answer is that of the bare loop, twenty lines of numba: an order decided on a quote fills at the
next one, buys at its ask, sells at its bid, for 1 bp. Ours, in both lanes, must give its fills and its equity, or the benchmark fails. NautilusTrader fills at the quote
that was decided on, so its equity differs; the number of fills must not.

Ours runs with all Guardian checks, the ledger and the costs on. Timed is what follows when the quotes are in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _measure import CASH, FEE, SIZE, START, Found, Run, local, peers, quotes, serve, table, timed, turns

STEP, CHANGE = 100_000_000, 1_000


# ---- ours ------------------------------------------------------------------------------------------------------


def strategy() -> Any:
    from quantbench.engine.strategy import Strategy
    from quantbench.engine.window import state

    class Flip(Strategy):
        size: float = SIZE
        change: int = CHANGE
        seen = state(0)

        def on_tick(self, tick: Any, market: Any) -> None:
            self.seen += 1
            if self.seen % self.change == self.change // 2:
                if self.seen // self.change % 2 == 0:
                    market.buy(tick.asset, self.size)
                else:
                    market.sell(tick.asset, self.size)

    return Flip


def tape(count: int) -> Any:
    from quantbench.engine.events import KIND_QUOTE, made
    from quantbench.engine.sessions import assets_of
    from quantbench.engine.tape import Tape

    bid, ask = quotes(count)
    when, many = START + np.arange(count) * STEP, np.full(count, 1e6)
    body = {"bid": bid, "ask": ask, "bid_size": many, "price": 0.5 * (bid + ask), "size": many}
    events = made(KIND_QUOTE, known=when, since=when, asset=np.zeros(count, np.int32), **body)
    return Tape.from_events(events, assets_of(["AAA"], "equity", "24/7"))


def ours(events: Any, lane: str) -> Callable[[], Found]:
    """Timed is the run; the hook is compiled once for a strategy, in its first run."""
    from quantbench.engine.backtest import Session
    from quantbench.portfolio.costs import Costs

    flip = strategy()

    def once() -> Found:
        session = Session(flip, events, lane=lane, cash=CASH, costs=Costs(taker_bps=1e4 * FEE))

        def run() -> tuple[int, float]:
            for chunk in events.chunks():
                session.feed(chunk)
            session.finish()
            return int(session.memory.run["n_fills"][0]), float(session.memory.run["equity"][0])

        return timed(run)

    return once


def bare(count: int) -> Run:
    from numba import njit

    bid, ask = quotes(count)

    @njit
    def trade(bid: Any, ask: Any) -> tuple[int, float]:
        cash, held, asked, fills = CASH, 0.0, 0.0, 0
        for i in range(len(bid)):
            if asked != 0.0:
                price = ask[i] if asked > 0.0 else bid[i]
                cash -= asked * price + abs(asked) * price * FEE
                held += asked
                asked, fills = 0.0, fills + 1
            if (i + 1) % CHANGE == CHANGE // 2:
                asked = SIZE if (i + 1) // CHANGE % 2 == 0 else -SIZE
        return fills, cash + held * 0.5 * (bid[-1] + ask[-1])

    return lambda: trade(bid, ask)


# ---- the peer --------------------------------------------------------------------------------------------------


def nautilus(count: int) -> Run:
    from decimal import Decimal

    import nautilus_trader.backtest.engine as engines
    import pandas as pd
    from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.persistence.wranglers import QuoteTickDataWrangler
    from nautilus_trader.trading.strategy import Strategy

    venue = Venue("SIM")
    asset = Equity(
        InstrumentId(Symbol("AAA"), venue), Symbol("AAA"), USD, 2, Price.from_str("0.01"), Quantity.from_int(1), 0, 0,
        maker_fee=Decimal("0.0001"), taker_fee=Decimal("0.0001"),
    )  # fmt: skip
    bid, ask = quotes(count)
    index = pd.date_range("2015-01-01", periods=count, freq="100ms", tz="UTC")
    columns = {"bid_price": bid, "ask_price": ask, "bid_size": 1e6, "ask_size": 1e6}
    ticks = QuoteTickDataWrangler(asset).process(pd.DataFrame(columns, index))

    class Flip(Strategy):  # type: ignore[misc]
        def on_start(self) -> None:
            self.size, self.seen, self.fills = asset.make_qty(SIZE), 0, 0
            self.subscribe_quote_ticks(asset.id)

        def on_quote_tick(self, _: Any) -> None:
            self.seen += 1
            if self.seen % CHANGE == CHANGE // 2:
                side = OrderSide.BUY if self.seen // CHANGE % 2 == 0 else OrderSide.SELL
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
        engine.add_data(ticks)
        flip = Flip(StrategyConfig())
        engine.add_strategy(flip)
        engine.run()
        cash = engine.cache.account_for_venue(venue).balance_total(USD).as_double()
        open_profit = engine.portfolio.unrealized_pnls(venue).get(USD)
        engine.dispose()
        return flip.fills, cash + (open_profit.as_double() if open_profit else 0.0)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ticks", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peer:
        return serve(nautilus(words.ticks))
    events = tape(words.ticks)
    mine = {f"ours, {lane}": ours(events, lane) for lane in ("compiled", "interpreted")}
    with peers(__file__, {"NautilusTrader": "nautilus"}, words.ticks) as others:
        found = turns(local({"bare numba loop": bare(words.ticks)}) | mine | others, words.rounds)
    print(f"W5b, {words.ticks:,} quotes to on_tick, medians of {words.rounds} rounds in turn\n")
    table(found, words.ticks, bare="bare numba loop", ours="ours, compiled", unit="ticks")
    answers = {name: (runs[-1].fills, round(runs[-1].equity, 2)) for name, runs in found.items()}
    right = answers["bare numba loop"]
    for name, answer in answers.items():
        if (answer if name.startswith("ours") else answer[:1]) != (
            right if name.startswith("ours") else right[:1]
        ):
            raise SystemExit(f"{name} found {answer}, the bare loop {right}")


if __name__ == "__main__":
    main()
