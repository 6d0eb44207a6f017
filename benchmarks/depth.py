"""A market maker on an order book: ours against hftbacktest, on the same events, in one interleaved run.

    python benchmarks/depth.py [events, default 5,000,000]      # `make peers` installs hftbacktest first

The stream is synthetic: nine events in ten change a level within ten ticks of the middle, one is a trade at the touch;
they come every 2 ms and reach us 1 ms later. The market maker looks every 100 ms, joins the best bid and the best ask with
one lot, post-only, cancels what is no longer there, and holds 20 lots at most. Orders and answers take 2 ms. Guardian, ledger and
two books (the venue's and the one we know) are on. Both engines print fills, position and equity; with the risk-averse
queue they must agree on every one, and the program ends with 1 if they do not.

The peer's exchange without partial fills is used: orders are of one lot, and the one with partial fills of 2.4.4 stops with an error after
a fill of exactly what was left. Both engines are timed from their data in memory to the last event, after one run that compiles.
Ours runs as any backtest runs: a tape, a strategy, a `Session`. The bare loop, one book and the same quotes in forty lines of numba without
delay, ledger or checks, is the limit of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("QUANTBENCH_PEERS", HERE.parent / ".venv-peers"))
TICK, STEP, FEED, ORDER, HOLD = 0.01, 100_000_000, 1_000_000, 2_000_000, 20
START, CAPITAL = 1_000_000_000, 1_000_000.0
MAKER, TAKER = -0.00005, 0.0007


def stream(n: int, seed: int = 20240607) -> dict[str, np.ndarray[Any, Any]]:
    """Trades and levels: time at the venue, side, kind (0 level, 1 trade), ticks, size."""
    import numba

    @numba.njit
    def generate(n: int, seed: int, when: Any, side: Any, kind: Any, ticks: Any, size: Any) -> int:
        np.random.seed(seed)
        middle, t, k, far = 10_000, 1_000_000_000, 0, 20
        for j in range(far):
            for s in (1, -1):
                when[k], side[k], ticks[k] = t, s, middle - j if s > 0 else middle + 1 + j
                size[k] = 1.0 + np.random.randint(1, 50)
                k += 1
        while k < n - 4:
            t += np.int64(-np.log(1.0 - np.random.random()) * 2e6)
            u = np.random.random()
            s = 1 if np.random.random() < 0.5 else -1
            if u < 0.10:
                when[k], side[k], kind[k], ticks[k] = t, s, 1, middle + 1 if s > 0 else middle
                size[k] = 1.0 + np.random.randint(0, 5)
                k += 1
            elif (
                u < 0.14
            ):  # the middle moves: a level goes, the other side takes its place, a new one far away
                gone = middle + 1 if s > 0 else middle
                middle += s
                for at, of, q in (
                    (gone, -s, 0.0),
                    (gone, s, 1.0 + np.random.randint(1, 50)),
                    (middle + far if s > 0 else middle - far + 1, -s, 1.0 + np.random.randint(1, 50)),
                ):
                    when[k], side[k], ticks[k], size[k] = t, of, at, q
                    k += 1
            else:
                j = np.random.randint(0, 10)
                when[k], side[k], ticks[k] = t, s, middle - j if s > 0 else middle + 1 + j
                size[k] = 1.0 + np.random.randint(1, 50)
                k += 1
        return k

    made = {name: np.zeros(n, np.int64) for name in ("when", "side", "kind", "ticks")} | {"size": np.zeros(n)}
    count = generate(n, seed, *made.values())
    return {name: column[:count] for name, column in made.items()}


# ---- ours ------------------------------------------------------------------------------------------------------


def strategy() -> Any:
    from quantbench.engine.strategy import Strategy, every
    from quantbench.engine.window import state

    class Maker(Strategy):
        """One lot at the best bid and at the best ask, while the position allows."""

        hold: float = float(HOLD)
        timer = every("100ms")
        buy, buy_price = state(0), state(0.0)
        sell, sell_price = state(0), state(0.0)

        def on_timer(self, market: Any) -> None:
            held = market.position(0)
            bid = market.bid(0) if held < self.hold else 0.0
            ask = market.ask(0) if held > -self.hold else 0.0
            stands = self.buy_price if market.is_open(self.buy) else 0.0
            if stands != bid:
                if stands > 0.0:
                    market.cancel(self.buy)
                if bid > 0.0:
                    self.buy, self.buy_price = (
                        market.submit(0, 1.0, "limit", limit=bid, tif="gtc", post_only=True),
                        bid,
                    )
            stands = self.sell_price if market.is_open(self.sell) else 0.0
            if stands != ask:
                if stands > 0.0:
                    market.cancel(self.sell)
                if ask > 0.0:
                    self.sell, self.sell_price = (
                        market.submit(0, -1.0, "limit", limit=ask, tif="gtc", post_only=True),
                        ask,
                    )

    return Maker


def tape(rows: dict[str, Any]) -> Any:
    from quantbench.engine.events import BAR, KIND_LEVEL, KIND_TRADE, LEVEL
    from quantbench.engine.sessions import spec
    from quantbench.engine.tape import Tape

    events = np.zeros(len(rows["when"]), BAR)
    view = events.view(LEVEL)
    view["since"], view["known"], view["side"] = rows["when"], rows["when"] + FEED, rows["side"]
    view["kind"] = np.where(rows["kind"] == 1, KIND_TRADE, KIND_LEVEL)
    view["price"], view["size"] = np.round(rows["ticks"] * TICK, 2), rows["size"]
    return Tape.from_events(events, [spec("AAA", "crypto", lot_size=Decimal(1))])


def ours(rows: dict[str, Any], model: str) -> Any:
    """A function that runs the workload once, as any backtest runs: seconds, and what came of it."""
    from quantbench.engine.backtest import Latency, Session
    from quantbench.engine.compiler import compile_lanes
    from quantbench.engine.events import LEVEL
    from quantbench.portfolio.costs import Costs

    market, maker = tape(rows), strategy()
    last = market.events.view(LEVEL)["price"][-1]
    delay = ORDER / 1e9
    choices = {
        "lane": compile_lanes(maker()),  # once, as the peer's market maker is compiled once
        "cash": CAPITAL,
        "costs": Costs(maker_bps=1e4 * MAKER, taker_bps=1e4 * TAKER),
        "latency": Latency(order_seconds=delay, cancel_seconds=delay, fill_seconds=delay),
        "queue": "risk_averse" if model == "risk" else "power",
        "point_every": timedelta(seconds=1),
    }

    def once() -> tuple[float, float, dict[str, Any]]:
        began, cpu = time.perf_counter(), time.process_time()
        session = Session(maker, market, **choices)
        for chunk in market.chunks():
            session.feed(chunk)
        session.finish()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        logs = session.memory
        fills = logs.used("fills")
        path = fills["side"] * fills["lots"]
        equity = path.sum() * last - (path * fills["price"]).sum()
        return (
            took,
            cpu,
            {
                "fills": len(fills),
                "position": int(path.sum()),
                "equity": round(float(equity), 2),
                "fees": round(float(fills["fee"].sum()), 2),
                "orders": int((logs.used("transitions")["state"] == 1).sum()),
                "times": fills["time"].tolist(),
                "sides": fills["side"].tolist(),
                "lane": session.binding.lanes.lane,
            },
        )

    return once


def bare(rows: dict[str, Any], _model: str) -> Any:
    """The limit of this machine: one book in an array, the same quotes, a queue that only trades shorten; no delay, no ledger, no checks."""
    import numba

    @numba.njit
    def run(when: Any, side: Any, kind: Any, ticks: Any, size: Any) -> tuple[int, int]:
        base = ticks.min() - 8
        width = ticks.max() - base + 8
        book = np.zeros((2, width))
        best, price, queue = np.array([0, width - 1]), np.full(2, -1), np.zeros(2)
        look, held, fills = START + STEP, 0, 0
        for i in range(len(when)):
            while when[i] >= look:
                for s in range(2):
                    wanted = best[s] if (held if s == 0 else -held) < HOLD else -1
                    if price[s] != wanted:
                        price[s] = wanted
                        queue[s] = book[s, wanted] if wanted >= 0 else 0.0
                look += STEP
            s, k = (0 if side[i] > 0 else 1), ticks[i] - base
            if kind[i] == 1:
                o = 1 - s  # the side that is hit
                if price[o] >= 0:
                    if price[o] == k:
                        queue[o] -= size[i]
                    through = k < price[o] if o == 0 else k > price[o]
                    if through or (price[o] == k and queue[o] <= -1.0):
                        held += 1 if o == 0 else -1
                        fills, price[o] = fills + 1, -1
                continue
            book[s, k] = size[i]
            if price[s] == k:
                queue[s] = min(queue[s], size[i])
            step = -1 if s == 0 else 1
            if size[i] > 0.0 and (k - best[s]) * step < 0:
                best[s] = k
            while 0 < best[s] < width - 1 and book[s, best[s]] == 0.0:
                best[s] += step
        return fills, held

    def once() -> tuple[float, float, dict[str, Any]]:
        began, cpu = time.perf_counter(), time.process_time()
        fills, held = run(*(rows[name] for name in ("when", "side", "kind", "ticks", "size")))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        return took, cpu, {"fills": fills, "position": held}

    return once


# ---- the peer --------------------------------------------------------------------------------------------------


def theirs(rows: dict[str, Any], model: str) -> Any:
    import hftbacktest as hb
    import numba

    kinds = {"names": ["ev", "exch_ts", "local_ts", "px", "qty", "order_id", "ival", "fval"]}
    kinds["formats"] = ["u8", "i8", "i8", "f8", "f8", "u8", "i8", "f8"]
    tape = np.zeros(len(rows["when"]), np.dtype(kinds, align=True))
    both = np.uint64((1 << 31) | (1 << 30))
    tape["ev"] = (
        both | np.where(rows["side"] > 0, 1 << 29, 1 << 28).astype("u8") | (rows["kind"] + 1).astype("u8")
    )
    tape["exch_ts"], tape["local_ts"] = rows["when"], rows["when"] + FEED
    tape["px"], tape["qty"] = np.round(rows["ticks"] * TICK, 2), rows["size"]

    @numba.njit
    def maker(market: Any, times: Any, held: Any) -> tuple[int, int]:
        made, changes = 0, 0
        while market.elapse(STEP) == 0:
            market.clear_inactive_orders(0)
            book, position = market.depth(0), market.position(0)
            if changes == 0 or held[changes - 1] != position:
                times[changes], held[changes] = market.current_timestamp, position
                changes += 1
            bid = book.best_bid_tick if position < HOLD else -1
            ask = book.best_ask_tick if position > -HOLD else -1
            have_bid, have_ask = bid < 0, ask < 0
            orders = market.orders(0).values()
            while orders.has_next():
                order = orders.get()
                if order.side == hb.BUY and order.price_tick == bid:
                    have_bid = True
                elif order.side == hb.SELL and order.price_tick == ask:
                    have_ask = True
                elif order.cancellable:
                    market.cancel(0, order.order_id, False)
            if not have_bid:
                made += 1
                market.submit_buy_order(0, made, bid * TICK, 1.0, hb.GTX, hb.LIMIT, False)
            if not have_ask:
                made += 1
                market.submit_sell_order(0, made, ask * TICK, 1.0, hb.GTX, hb.LIMIT, False)
        return made, changes

    steps = int((rows["when"][-1] - START) // STEP + 10)

    def once() -> tuple[float, float, dict[str, Any]]:
        began, cpu = time.perf_counter(), time.process_time()
        asset = hb.BacktestAsset().data([tape]).linear_asset(1.0).constant_order_latency(ORDER, ORDER)
        asset = (
            asset.no_partial_fill_exchange()
            .trading_value_fee_model(MAKER, TAKER)
            .tick_size(TICK)
            .lot_size(1.0)
        )
        asset = asset.risk_adverse_queue_model() if model == "risk" else asset.power_prob_queue_model(2.0)
        market = hb.ROIVectorMarketDepthBacktest([asset.roi_lb(0.0).roi_ub(500.0)])
        times, held = np.zeros(steps, np.int64), np.zeros(steps)
        made, changes = maker(market, times, held)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        state = market.state_values(0)
        found = {
            "fills": int(state.num_trades),
            "position": int(state.position),
            "equity": round(float(state.balance + state.position * tape["px"][-1]), 2),
            "fees": round(float(state.fee), 2),
            "times": times[:changes].tolist(),
            "held": held[:changes].tolist(),
            "orders": int(made),
        }
        market.close()
        return took, cpu, found

    return once


# ---- a process for each engine, that answers when told ---------------------------------------------------------


def worker(engine: str, path: Path, model: str) -> None:
    rows = dict(np.load(path))
    once = {"ours": ours, "hftbacktest": theirs, "bare loop": bare}[engine](rows, model)
    for _ in sys.stdin:
        print(json.dumps(once()), flush=True)


class Engine:
    def __init__(self, name: str, interpreter: str, path: Path, model: str) -> None:
        command = [interpreter, __file__, "--engine", name, "--path", str(path), "--queue", model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self) -> tuple[float, float, dict[str, Any]]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        took, cpu, found = json.loads(self.process.stdout.readline())
        return took, cpu, found

    def close(self) -> None:
        self.process.communicate()


def agree(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between the two; positions are compared at every look of the market maker."""
    wrong = [name for name in ("fills", "position", "equity", "fees", "orders") if mine[name] != other[name]]
    heard = np.array(mine["times"]) + ORDER
    held = np.concatenate([[0], np.cumsum(mine["sides"])])
    at = held[np.searchsorted(heard, np.array(other["times"]), side="right")]
    different = np.flatnonzero(at != np.array(other["held"]))
    if len(different):
        wrong.append(
            f"position at {other['times'][different[0]]}: {at[different[0]]} and {other['held'][different[0]]}"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", type=int, nargs="?", default=5_000_000)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--queue", default="risk", choices=("risk", "power"))
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    if words.engine:
        worker(words.engine, words.path, words.queue)
        return 0
    python = PEERS / "hftbacktest" / "bin" / "python"
    if not python.exists():
        print(f"hftbacktest: not installed in {python.parent.parent}; `make peers` installs it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.npz"
        np.savez(path, **stream(words.events))
        engines = {name: Engine(name, sys.executable, path, words.queue) for name in ("bare loop", "ours")}
        if python.exists():
            engines["hftbacktest"] = Engine("hftbacktest", str(python), path, words.queue)
        cold = {name: engine.ask()[0] for name, engine in engines.items()}
        runs: dict[str, list[tuple[float, float, dict[str, Any]]]] = {name: [] for name in engines}
        for _ in range(words.rounds):
            for name, engine in engines.items():
                runs[name].append(engine.ask())
        for engine in engines.values():
            engine.close()
    found = {name: done[-1][2] for name, done in runs.items()}
    wall, cpu = (
        {name: statistics.median(run[k] for run in done) for name, done in runs.items()} for k in (0, 1)
    )
    for name, took in wall.items():
        told = ", ".join(
            f"{word} {value:,}" for word, value in found[name].items() if isinstance(value, int | float)
        )
        print(
            f"{name}: {words.events / took / 1e6:.1f} M events/s ({took:.3f} s, CPU {cpu[name]:.3f} s, first run {cold[name]:.1f} s); {told}"
        )
    if found["ours"]["lane"] != "compiled":
        print("the market maker was not compiled")
        return 1
    if not python.exists():
        return 0
    faster = {what: times["hftbacktest"] / times["ours"] for what, times in (("time", wall), ("CPU", cpu))}
    print(f"ours is {faster['time']:.2f} times as fast as hftbacktest, by CPU time {faster['CPU']:.2f}")
    wrong = agree(found["ours"], found["hftbacktest"])
    print("they agree on every order, fill and position" if not wrong else f"they differ: {'; '.join(wrong)}")
    return 1 if wrong and words.queue == "risk" else 0


if __name__ == "__main__":
    raise SystemExit(main())
