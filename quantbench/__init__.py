"""A Jupyter-first workbench for systematic trading research, with a promotion path to paper and live

Modules:

- `quantbench.core.chain`: A file of records in which nothing can be changed, removed or reordered without it showing.
- `quantbench.core.check`: Refusals a person can act on, and a comparison of numbers that does not look away.
- `quantbench.core.clock`: What time it is, when a market is open, and when the next step is due: the only reader of wall time.
- `quantbench.core.config`: One file of settings in which every number has a meaning, a unit and bounds, and no misprint goes unnoticed.
- `quantbench.core.journal`: What happened, in order, on the disk before anyone acts on it.
- `quantbench.core.plot`: One plot theme, light and dark: small pictures with the same bytes on every run, readable without colour.
- `quantbench.core.settings`: Every setting of the workbench, declared once: its type, unit, bounds, meaning, and which way it is tighter.
- `quantbench.core.show`: Results that can be read at a glance, in a notebook and in a terminal.
- `quantbench.core.types`: The nouns of the whole workbench, and the rules that keep a measurement from posing as money.
- `quantbench.core.value`: Exact numbers, times with a zone, and frozen values that check their own fields.
- `quantbench.data.asof`: What was known at a moment: the newest figure of every series, or every figure in the version of that day.
- `quantbench.data.cells`: Text becomes numbers and times by the statement of a specification; what does not is named by line and column.
- `quantbench.data.defects`: What is wrong with stored facts, found in whole columns: one small function for each kind of defect.
- `quantbench.data.feeds`: Seeded feeds whose truth is known: restated figures, trades by those who know and those who do not, an order book.
- `quantbench.data.files`: CSV and Parquet files as a source, in memory that does not grow with them.
- `quantbench.data.filespec`: A statement of what is in a file: columns, formats, zones, and how its facts became known.
- `quantbench.data.ingest`: From a source into the lake: once, whole, and only what is new.
- `quantbench.data.layout`: How rows lie in files, so that a read opens few of them and believes none without proof.
- `quantbench.data.looks`: Which code was tried with which parameters on which part of the data: counted by the lake, not by the researcher.
- `quantbench.data.quality`: What is in the lake, what is missing and what is suspicious: a report to read in a minute.
- `quantbench.data.reference`: What a price, a ticker or an index meant on a date, as one could have known it then.
- `quantbench.data.schema`: The contract of every table: columns, units, keys, and the two times each fact carries.
- `quantbench.data.seal`: The final fifth of history, put where research cannot reach it.
- `quantbench.data.snapshot`: Rows as they were known at a time: immutable, named by a hash of their content, open to pandas, Polars and SQL.
- `quantbench.data.sources`: The contract between the lake and whatever has data: what it offers, in which pieces, and what it cannot do.
- `quantbench.data.staging`: Files that are not there until they are whole.
- `quantbench.data.store`: The lake: tables of facts that only grow, whose every byte is checked before it is believed.
- `quantbench.data.synth`: Seeded markets whose truth is known, for lessons, for tests, and for methods that claim to find something.
- `quantbench.engine.backtest`: A strategy, a tape, an account: one call, and the same session that paper and live will drive.
- `quantbench.engine.compiler`: Each hook in its lane: compiled where that changes nothing, in Python where not, with the line that says why.
- `quantbench.engine.depth`: The order book of a market, and our place in its queues.
- `quantbench.engine.events`: One record of 64 bytes for everything that happens in a market, in one order that is written down.
- `quantbench.engine.explore`: Sliders on a strategy: every move is a whole backtest, drawn before the hand is still, and counted.
- `quantbench.engine.frames`: Bars from pandas, Polars or Arrow: what a time means is stated, or taken the way that cannot tell the future.
- `quantbench.engine.guardian`: Every order of every mode is judged here, and there is no switch.
- `quantbench.engine.kernel`: Compiled code that works on memory it does not own.
- `quantbench.engine.ledger`: Cash, positions and profit: what fills and time do to them.
- `quantbench.engine.loop`: The one step function: what happens, in which order, for a stored tape, a replay and a live feed.
- `quantbench.engine.matching`: What a bar, a trade or a quote does to the orders that were at the venue before it.
- `quantbench.engine.memory`: Everything a run knows, in a handful of flat records.
- `quantbench.engine.metrics`: What a run earned and risked: one definition of each number, with its formula, its unit and its rule for a year.
- `quantbench.engine.orders`: The open orders of a run: their slots, their lists, their states, and how they end.
- `quantbench.engine.registry`: A strategy is found by its name, wherever it was written, and nothing runs before it is asked for.
- `quantbench.engine.requests`: From what a strategy asks to orders on their way to the venue, through Guardian.
- `quantbench.engine.result`: What a run did, in tables made from its logs, with a hash, a card that leads with what matters, and a referee.
- `quantbench.engine.rows`: Rows of the lake become events, window by window, in memory that does not grow with the lake.
- `quantbench.engine.sessions`: What is traded, when its market is open, and where in a session a bar lies.
- `quantbench.engine.strategy`: What a researcher writes: parameters, state, hooks; and the market it sees.
- `quantbench.engine.study`: What is judged: a strategy, the market it meets, its account, and the values a fit may choose from.
- `quantbench.engine.sweep`: One strategy with many parameters: every point the same backtest, in memory that is used again, and the best of them shown beside luck.
- `quantbench.engine.tape`: Everything a strategy will meet, in the order it became known, with a hash that names it.
- `quantbench.engine.translate`: From a hook in plain Python to machine code that gives the same bits, or the line that prevents it.
- `quantbench.engine.window`: The state of a strategy: numbers, rolling windows, averages, arrays, and one of each for every asset.
- `quantbench.execution.account`: What an account holds and has open, in the same memory and judged by the same code as a backtest.
- `quantbench.execution.algos`: How a large order is worked in small ones: when, how many, and never more than was asked for.
- `quantbench.execution.alpaca`: The broker Alpaca behind the adapter's contract: what is proven is answered, what is not stays unknown, and nothing is rounded on the way.
- `quantbench.execution.book`: What became of every order, as a fold over the journal: what a broker says is heard here, doubted, and booked once.
- `quantbench.execution.broker`: What the workbench says to a broker and hears from it, and the one door through which an order leaves.
- `quantbench.execution.conformance`: What every broker adapter must show before it trades: numbered cases against a venue that misbehaves on request.
- `quantbench.execution.faulty`: A venue that keeps exact books, behind a broker that loses, delays, repeats, reorders and falls silent.
- `quantbench.execution.floor`: Everything that trades, in one place and one process: session, order book, Guardian, broker, journal.
- `quantbench.execution.guard`: The one place where an order of any strategy becomes an order that may leave.
- `quantbench.execution.line`: One connection to a venue's stream, kept alive: found out when it is silent, dialled again without a storm, never trusted before it has caught up.
- `quantbench.execution.live`: The loop: events to the strategy, orders to the order book of record, fills back to where a simulated fill would have been.
- `quantbench.execution.oms`: The way of an order: decided, judged, on the disk, sent once, and followed until the broker has proved what became of it.
- `quantbench.execution.paper`: The market simulator of the backtest as a broker: the same fills, but only for orders that came all the way.
- `quantbench.execution.reconcile`: Our books against the broker's, line by line and in both directions: a difference is an event that stops risk from growing, never a trade.
- `quantbench.execution.record`: What a session saw and what it made of it, on the disk, so that it can be asked again.
- `quantbench.execution.remote`: An account that lives at a broker: opened only when everything about it is known, and found again after a crash.
- `quantbench.execution.router`: Which venues get how much of an order, so that all of it together costs least.
- `quantbench.execution.session`: One strategy on one feed, from its first event to its result: paced, recorded, and reconciled at the end.
- `quantbench.execution.shortfall`: What trading really cost: between the price at which it was decided and the money that is gone.
- `quantbench.execution.simulate`: A whole trading day in which everything goes wrong, made of one integer.
- `quantbench.execution.stream`: Market data as it happens: Alpaca's stream as events of the engine, with the time at which they became known.
- `quantbench.gates.costs`: What is left when trading costs three times as much, when there is more capital, and when every price comes a bar late?
- `quantbench.gates.eras`: Is anything left without the best year, the best weather, the best asset?
- `quantbench.gates.fit`: Choose the parameters of a study on a window of its tape, the same way every time, and say whether the choice stands on a hill or on a needle.
- `quantbench.gates.holdout`: The last fifth of history, sealed before the work began, opened once for a strategy and all its relatives.
- `quantbench.gates.leakage`: Did any decision know its future? The future is cut off, and replaced by garbage, at every moment, and nothing before that moment may change.
- `quantbench.gates.leakcheck`: Does a feature know its future? Name the column, the first row, how many bars ahead, and the likely line.
- `quantbench.gates.lint`: What in the text of a function could know the future, before anything is run.
- `quantbench.gates.multiplicity`: Is it good, or is it the best of many?
- `quantbench.gates.permutation`: How often does a market that nobody can know anything about look as good?
- `quantbench.gates.shuffles`: Markets that could have been: the same moves as the real one, in another order.
- `quantbench.gates.splits`: Which rows teach, which rows judge, and which must be dropped between them: one table of boundaries for every scheme.
- `quantbench.gates.trials`: How many strategies were tried before this one, under whatever names, and how often its out-of-sample windows were seen.
- `quantbench.gates.verdict`: What a gate found: each limit beside the number it judges, what that proves, and what it does not.
- `quantbench.gates.walkforward`: Choose the parameters on the past, trade the months that follow, choose again: what somebody would have earned who did not know the future.
- `quantbench.ops.batch`: Many runbooks at a time, on this machine or on a cluster, and none of them twice.
- `quantbench.ops.board`: What a person looks at before signing and while it trades: the conditions with links to what proves them, the monitors with their dates, and a button that halts.
- `quantbench.ops.cells`: A runbook from its first cell to its last in this process, with proof of which cell read which parameter.
- `quantbench.ops.certificate`: What may trade: this code, with these parameters and limits, judged by these verdicts, until that day, signed.
- `quantbench.ops.checklist`: What a step up needs: each condition with its number in the protocol, what was found, how far from the limit, where it is written, and the command that makes what is missing.
- `quantbench.ops.cli`: `qb`: what the workbench does without a notebook.
- `quantbench.ops.data`: `qb data`: bring data into the lake, see what is there, ask what was known.
- `quantbench.ops.doctor`: Is this machine fit to run the workbench, and if not, what is to be done?
- `quantbench.ops.evidence`: What the gates found about one strategy, in one file that shows when it was edited.
- `quantbench.ops.gate`: Every gate on one strategy, from a command line that ends as the verdict says.
- `quantbench.ops.gateway`: The process that may send orders, and what anybody else may ask of it.
- `quantbench.ops.heart`: A process says that it lives, in a way that works while nothing else does.
- `quantbench.ops.history`: What a session leaves for those who decide about the next stage: its worth, and each fill beside the one its backtest has.
- `quantbench.ops.journal`: `qb journal`: does the record of what happened still say what it said?
- `quantbench.ops.leakcheck`: `qb leakcheck`: does the code in this file know its future?
- `quantbench.ops.monitors`: What must stay true after a strategy was promoted, looked at on what was recorded, each with the day on which it is looked at again.
- `quantbench.ops.page`: An executed notebook as one file that a browser shows and nothing in it can act.
- `quantbench.ops.paper`: A session from its start to what can be said about it, and the look at it that comes before the next one.
- `quantbench.ops.papermill`: `papermill --engine quantbench`: the command one has, the proof one lacks.
- `quantbench.ops.parameters`: What a notebook may be told, declared where it is told: name, type, unit, range, choices.
- `quantbench.ops.promote`: From research to paper to real money, one step at a time, each with its evidence, a name, a reason and a signature.
- `quantbench.ops.replay`: Did the session do what its backtest would have done, and if not, what came apart first?
- `quantbench.ops.report`: `qb report`: the tearsheet of a strategy, what two of them do not agree on, and the classic one with its numbers explained.
- `quantbench.ops.runner`: A runbook in a process of its own: isolated, bounded, and never lost.
- `quantbench.ops.sidecar`: The kill switch that works when the process that trades does not.
- `quantbench.ops.specfile`: How files are to be read, written down in a file of its own.
- `quantbench.ops.standing`: Where a strategy stands between research and real money, how it came there, and the ways down, which need nobody's leave.
- `quantbench.ops.terminal`: What every command has in common: how it ends, what it prints, and which moment and lake it means.
- `quantbench.ops.wire`: How a notebook asks the process that trades: a local socket, a key for each thing one may do, one line a message.
- `quantbench.portfolio.costs`: What a trade costs: stated once, used alike by the portfolio that plans it and the engine that fills it.
- `quantbench.reports.attribution`: Where the return came from: a benchmark, factors, kinds of market, and how soon the positions were taken.
- `quantbench.reports.charts`: Small pictures for a page: drawn as text, light and dark, readable without colour, each with the same in numbers.
- `quantbench.reports.compare`: Two tearsheets side by side: what went in, what was judged, what came out, and only where they differ.
- `quantbench.reports.numbers`: Every number of a track with its formula, its interval, and how many independent observations it rests on.
- `quantbench.reports.page`: One file that a browser shows without asking anybody: text, style, script and data in it, and nothing else may run.
- `quantbench.reports.site`: The page that opens the reports: every strategy, what its gates said, and where to read more.
- `quantbench.reports.tearsheet`: One file that tells in a minute whether to believe a run, and why.
- `quantbench.risk.kill`: How trading is stopped, and why nothing that crashes, restarts or retries can start it again.
- `quantbench.risk.limits`: The controls that a backtest cannot have: what to ask of an order when there is a broker, a clock and another strategy.
- `quantbench.risk.rules`: What the law and the owner forbid, with the dates from which it holds.
- `quantbench.strategies.crossover`: Hold an asset while its short average stands above its long one: the smallest complete strategy, on real prices.
- `quantbench.strategies.drift`: A strategy whose edge was put into its market: what a gate must let pass, if it is worth anything.
- `quantbench.strategies.pairs`: Sell the dear one and buy the cheap one of two assets that belong together, and wait: two assets in one compiled hook, and what is left after costs.
- `quantbench.strategies.quoter`: Stand on both sides of a market, earn the spread, and lean against what one already holds: the base of market making, on a real order book."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.clock import WallClock
    from .core.config import load
    from .data.asof import history, latest
    from .data.files import FileSource
    from .data.ingest import ingest
    from .data.seal import Project
    from .data.sources import SampleSource
    from .data.store import Lake
    from .engine.backtest import backtest
    from .engine.strategy import Strategy
    from .engine.tape import Tape
    from .engine.window import state, window
    from .portfolio.costs import Costs

__version__ = "0.1.0"

# A name is imported when it is first used: `import quantbench` itself loads nothing heavy.
_HOME = {
    "Costs": "portfolio.costs",
    "FileSource": "data.files",
    "Lake": "data.store",
    "Project": "data.seal",
    "SampleSource": "data.sources",
    "Strategy": "engine.strategy",
    "Tape": "engine.tape",
    "WallClock": "core.clock",
    "backtest": "engine.backtest",
    "history": "data.asof",
    "ingest": "data.ingest",
    "latest": "data.asof",
    "load": "core.config",
    "state": "engine.window",
    "window": "engine.window",
}

__all__ = [
    "Costs",
    "FileSource",
    "Lake",
    "Project",
    "SampleSource",
    "Strategy",
    "Tape",
    "WallClock",
    "backtest",
    "history",
    "ingest",
    "latest",
    "load",
    "state",
    "window",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"quantbench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'quantbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: Any) -> None:
    "`%load_ext quantbench`: the cell magic `%%leakcheck`, and `%qb` for every command of the terminal."
    from .gates.leakcheck import register
    from .ops.cli import register as register_commands

    register(shell)
    register_commands(shell)
