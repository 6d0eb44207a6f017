"""What was known when: against the definition, against each other, and against rows nobody may have seen yet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.data import asof
from quantbench.data.asof import AsOfIndex, history_rows, latest_rows, vintage_rows
from quantbench.data.schema import TEXT, TIME, Column, Schema, schema
from quantbench.data.store import Lake

START = datetime(2024, 3, 10, 6, 30, tzinfo=UTC)  # the hour before New York springs forward
NAIVE = START.replace(tzinfo=None)
ZONES = [
    UTC,
    ZoneInfo("America/New_York"),
    ZoneInfo("Asia/Kathmandu"),
    timezone(-timedelta(hours=9, minutes=30)),
]
Row = dict[str, Any]


# ---- the definition, as slowly as it is said -----------------------------------------------------------------


def order(row: Row, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name].encode() if isinstance(row[name], str) else row[name] for name in names)


def indexed(rows: pa.Table, contract: Schema, *, as_of: datetime) -> pa.Table:
    return AsOfIndex(rows, contract).latest(as_of=as_of)


def in_parts(rows: pa.Table, contract: Schema, *, as_of: datetime) -> pa.Table:
    third = rows.num_rows // 3
    parts = (rows.slice(0, third), rows.slice(0, 0), rows.slice(third))
    return latest_rows(iter(parts), contract, as_of=as_of)


ALL = (latest_rows, indexed, in_parts, history_rows, vintage_rows)


def by_definition(
    rows: pa.Table, contract: Schema, as_of: datetime
) -> dict[Callable[..., pa.Table], list[Row]]:
    """What each query must return: of the known versions all, the last of each fact, the last fact of each series."""
    settled = rows.sort_by([(name, "ascending") for name in rows.column_names]).to_pylist()
    known = [row for row in settled if row["known_time"] <= as_of]
    versions = sorted(known, key=lambda row: order(row, (*contract.key, "known_time", "revision")))
    facts = list({order(row, contract.key): row for row in versions}.values())
    newest = list({order(row, contract.series): row for row in facts}.values())
    return {
        latest_rows: newest,
        indexed: newest,
        in_parts: newest,
        history_rows: facts,
        vintage_rows: versions,
    }


# ---- random facts that collide as often as they can ----------------------------------------------------------


def draw_value(rng: np.random.Generator, column: Column) -> Any:
    if column.nullable and rng.random() < 0.15:
        return None
    if column.choices:
        return str(rng.choice(column.choices))
    if column.type == TEXT:
        return str(rng.choice(["a", "B", "é", "10", "9", "𝄞", "", "NA"]))
    if column.type == TIME:
        return START + timedelta(hours=int(rng.integers(3)))
    if column.type == pa.bool_():
        return bool(rng.integers(2))
    return int(rng.integers(3)) if pa.types.is_integer(column.type) else float(rng.integers(1, 4))


def draw_rows(rng: np.random.Generator, contract: Schema, assets: int, tied: bool = False) -> pa.Table:
    """Up to twenty versions for each asset: restated, late, at equal times; `tied` allows the same version twice."""
    facts: dict[tuple[Any, ...], Row] = {}
    for asset in range(assets):
        for number in range(int(rng.integers(20))):
            row = {column.name: draw_value(rng, column) for column in contract.columns}
            row["asset"] = f"A{asset}"
            row["event_time"] = START + timedelta(minutes=30 * int(rng.integers(5)))
            late = rng.choice([0, 0, 1, 2, 5, 9])
            row["known_time"] = row["event_time"] + timedelta(minutes=30 * int(late))
            row["revision"] = int(rng.integers(3))
            row["source"] = str(rng.integers(1000))  # tells apart what nothing else does
            identity = order(row, (*contract.key, "known_time", "revision"))
            facts[(*identity, number) if tied else identity] = row
    rows = pa.Table.from_pylist(list(facts.values()), schema=contract.arrow)
    return rows.take(pa.array(rng.permutation(rows.num_rows)))


def cut(rng: np.random.Generator, rows: pa.Table) -> pa.Table:
    """The same rows as they may lie in memory: in chunks that differ by column, texts plain or as dictionaries."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        edges = [0, *sorted(rng.integers(0, rows.num_rows + 1, int(rng.integers(3)))), rows.num_rows]
        chunks = [column.slice(a, b - a).combine_chunks() for a, b in pairwise(edges)]
        if field.type == TEXT and rng.random() < 0.5:
            coded = [chunk.dictionary_encode() for chunk in chunks]
            small = max(len(chunk.dictionary) for chunk in coded) < 128
            kind = pa.dictionary(pa.int8() if small else pa.int32(), TEXT)
            chunks = [chunk.cast(kind) for chunk in coded]
            columns.append(pa.chunked_array(chunks, kind))
        else:
            columns.append(pa.chunked_array(chunks, field.type))
    return pa.table(columns, names=rows.column_names)


def test_20000_cases_agree_with_the_definition(soak: int) -> None:
    """A case is one series asked at one moment. Catches any error of order, version, tie, null, zone or layout."""
    rng = np.random.default_rng(20240607)
    contracts = [
        schema(name) for name in ("observations", "trades", "events", "bars", "options", "membership")
    ]
    cases = withdrawn = restated = 0
    while cases < 20_000 * soak:
        contract = contracts[int(rng.integers(len(contracts)))]
        rows = draw_rows(rng, contract, int(rng.choice([1, 40, 120])))
        moment = START + timedelta(
            minutes=30 * int(rng.integers(-1, 12)), microseconds=int(rng.integers(-1, 2))
        )
        as_of = moment.astimezone(ZONES[int(rng.integers(len(ZONES)))])
        expected = by_definition(rows, contract, moment)
        for query, answer in expected.items():
            assert query(cut(rng, rows), contract, as_of=as_of).to_pylist() == answer, (
                query,
                contract,
                moment,
            )
        cases += max(len(expected[latest_rows]), 1)
        withdrawn += sum(None in row.values() for row in expected[latest_rows])
        restated += expected[history_rows] != expected[vintage_rows]
    assert withdrawn > cases / 50 and restated > 50  # the cases are as nasty as they are meant to be


def test_the_compiled_loops_equal_the_same_loops_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    cases = [(name, draw_rows(rng, schema(name), 30)) for name in ("observations", "trades", "events") * 5]
    moments = [START + timedelta(minutes=30 * n) for n in range(12)]

    def answers() -> list[pa.Table]:
        return [
            query(rows, schema(name), as_of=m) for name, rows in cases for m in moments[::3] for query in ALL
        ]

    compiled = answers()
    monkeypatch.setattr(asof, "_compiled", lambda kernel: kernel)
    assert answers() == compiled


# ---- versions that cannot be told apart ----------------------------------------------------------------------


def test_ties_are_broken_by_content_never_by_the_order_of_rows() -> None:
    """The store refuses such rows; a table from elsewhere may hold them, and must give one answer all the same."""
    rng = np.random.default_rng(11)
    for _ in range(100):
        contract = schema(str(rng.choice(["observations", "trades", "events"])))
        rows = draw_rows(rng, contract, 5, tied=True)
        as_of = START + timedelta(hours=int(rng.integers(8)))
        for query, answer in by_definition(rows, contract, as_of).items():
            for _ in range(2):
                shuffled = rows.take(pa.array(rng.permutation(rows.num_rows)))
                assert query(shuffled, contract, as_of=as_of).to_pylist() == answer


# ---- what must not matter ------------------------------------------------------------------------------------

OBSERVATIONS = schema("observations")
seeds = st.integers(0, 2**32 - 1)
hours = st.integers(-1, 8)


@given(seeds, hours)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_future_cannot_be_felt(seed: int, hour: int) -> None:
    """L1 and L2: what becomes known later may be garbage, doubled or missing. Catches any read past `as_of`."""
    rng = np.random.default_rng(seed)
    as_of = START + timedelta(hours=hour)
    rows = draw_rows(rng, OBSERVATIONS, 6)
    later = pc.greater(rows["known_time"], pa.scalar(as_of, TIME))
    past, future = rows.filter(pc.invert(later)), rows.filter(later)
    garbage = draw_rows(rng, OBSERVATIONS, 9)
    delayed = pc.add(garbage["known_time"], pa.scalar(timedelta(days=400), pa.duration("us")))
    garbage = garbage.set_column(
        garbage.column_names.index("known_time"), OBSERVATIONS.arrow.field("known_time"), delayed
    )
    for query in ALL:
        expected = query(rows, OBSERVATIONS, as_of=as_of)
        assert query(past, OBSERVATIONS, as_of=as_of) == expected
        for other in (pa.concat_tables([garbage, past]), pa.concat_tables([past, future, future])):
            shuffled = other.take(pa.array(rng.permutation(other.num_rows)))
            assert query(shuffled, OBSERVATIONS, as_of=as_of) == expected


@given(seeds, hours, st.integers(1, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_knowledge_only_grows(seed: int, hour: int, more: int) -> None:
    """No fact disappears, the newest never becomes older. Catches the query that takes what was said last."""
    rows = draw_rows(np.random.default_rng(seed), OBSERVATIONS, 6)
    before, after = START + timedelta(hours=hour), START + timedelta(hours=hour + more)

    def facts(as_of: datetime) -> set[tuple[Any, ...]]:
        return {order(r, OBSERVATIONS.key) for r in history_rows(rows, OBSERVATIONS, as_of=as_of).to_pylist()}

    def newest(as_of: datetime) -> dict[tuple[Any, ...], datetime]:
        found = latest_rows(rows, OBSERVATIONS, as_of=as_of).to_pylist()
        return {order(r, OBSERVATIONS.series): r["event_time"] for r in found}

    assert facts(before) <= facts(after)
    assert all(newest(after)[series] >= event for series, event in newest(before).items())


@given(seeds, hours, st.integers(1, 400))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_delays_never_make_a_fact_known_earlier(seed: int, hour: int, most: int) -> None:
    """L3: with known_time pushed back at random, what was known at a moment can only shrink."""
    rng = np.random.default_rng(seed)
    rows = draw_rows(rng, OBSERVATIONS, 6)
    delay = pa.array(rng.integers(0, most, rows.num_rows) * 60_000_000, pa.duration("us"))
    place = rows.column_names.index("known_time")
    delayed = rows.set_column(
        place, OBSERVATIONS.arrow.field("known_time"), pc.add(rows["known_time"], delay)
    )
    as_of = START + timedelta(hours=hour)
    facts = [
        {order(r, OBSERVATIONS.key) for r in history_rows(table, OBSERVATIONS, as_of=as_of).to_pylist()}
        for table in (delayed, rows)
    ]
    assert facts[0] <= facts[1]


def test_a_restated_old_period_hides_nothing() -> None:
    """L4, trap T-2: the newest quarter stays the newest on the day an old one is restated."""
    quarters = [START + timedelta(days=90 * n) for n in range(4)]
    said = [(q, q + timedelta(days=30)) for q in quarters] + [(quarters[0], quarters[3] + timedelta(days=31))]
    base = {"asset": "US", "field": "gdp", "unit": "percent", "revision": 0, "source": "test"}
    facts = [base | {"event_time": e, "known_time": k, "value": float(n)} for n, (e, k) in enumerate(said)]
    rows = pa.Table.from_pylist(facts, schema=OBSERVATIONS.arrow)
    as_of = quarters[3] + timedelta(days=31)
    for query in (latest_rows, indexed):
        assert query(rows, OBSERVATIONS, as_of=as_of)["value"].to_pylist() == [3.0]
    assert history_rows(rows, OBSERVATIONS, as_of=as_of)["value"].to_pylist() == [4.0, 1.0, 2.0, 3.0]


# ---- series that are many, and dictionaries that lie oddly ---------------------------------------------------


def test_series_of_which_most_combinations_do_not_occur() -> None:
    """Four columns of a thousand values each are 10^12 combinations; the codes must neither overflow nor mix."""
    rng = np.random.default_rng(3)
    drawn = {}
    for n in range(6000):
        row = {"asset": f"A{rng.integers(1000)}", "right": "call", "strike": float(rng.integers(1, 1000))}
        row |= {
            "expiry": START + timedelta(days=int(rng.integers(1000))),
            "event_time": START,
            "source": "test",
        }
        row |= {
            "known_time": START + timedelta(hours=int(rng.integers(3))),
            "revision": 0,
            "bid": float(n + 1),
        }
        drawn[order(row, (*schema("options").key, "known_time"))] = row
    rows = pa.Table.from_pylist(list(drawn.values()), schema=schema("options").arrow)
    as_of = START + timedelta(hours=1)
    for query, answer in by_definition(rows, schema("options"), as_of).items():
        assert query(rows, schema("options"), as_of=as_of).to_pylist() == answer


def test_a_dictionary_may_hold_a_text_twice_and_texts_nobody_uses() -> None:
    words = pa.array(["zeta", "US", "unused", "US", "alpha"])
    assets = pa.DictionaryArray.from_arrays(pa.array([1, 3, 4, 0], pa.int16()), words)
    base = {"field": "gdp", "unit": "percent", "revision": 0, "source": "test", "asset": "x"}
    facts = [
        base | {"event_time": START, "known_time": START + timedelta(hours=n), "value": float(n)}
        for n in range(4)
    ]
    rows = pa.Table.from_pylist(facts, schema=OBSERVATIONS.arrow).set_column(0, "asset", assets)
    for query in (latest_rows, history_rows, indexed):
        found = query(rows, OBSERVATIONS, as_of=START + timedelta(hours=9))
        assert found["asset"].to_pylist() == ["US", "alpha", "zeta"]
        assert found["value"].to_pylist() == [1.0, 2.0, 3.0]


# ---- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ALL)
@pytest.mark.parametrize("as_of", [NAIVE, "2024-07-03", None, START.date(), 1.7e9])
def test_a_moment_without_a_zone_is_refused(query: Callable[..., pa.Table], as_of: Any) -> None:
    for rows in (draw_rows(np.random.default_rng(1), OBSERVATIONS, 3), OBSERVATIONS.arrow.empty_table()):
        with pytest.raises(QuantbenchError, match="QB-TIME-001"):
            query(rows, OBSERVATIONS, as_of=as_of)


@pytest.mark.parametrize("query", ALL)
def test_as_of_has_no_default_and_a_name(query: Callable[..., pa.Table]) -> None:
    rows = draw_rows(np.random.default_rng(1), OBSERVATIONS, 3)
    with pytest.raises(TypeError, match="as_of"):
        query(rows, OBSERVATIONS)
    with pytest.raises(TypeError):
        query(rows, OBSERVATIONS, START)


def spoilt(name: str, kind: pa.DataType | None) -> pa.Table:
    rows = draw_rows(np.random.default_rng(1), OBSERVATIONS, 3)
    place = rows.column_names.index(name)
    if kind is not None:
        return rows.set_column(place, name, rows[name].cast(kind))
    empty = pa.array([None, *rows[name].to_pylist()[1:]], rows.schema.field(name).type)
    return rows.set_column(place, name, empty)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (spoilt("known_time", None), "QB-DATA-020"),
        (spoilt("event_time", None), "QB-DATA-005"),
        (spoilt("asset", None), "QB-DATA-005"),
        (spoilt("known_time", pa.timestamp("us")), "QB-DATA-018"),
        (spoilt("event_time", pa.timestamp("ns", tz="UTC")), "QB-DATA-029"),
        (spoilt("known_time", pa.timestamp("us", tz="America/New_York")), "QB-DATA-029"),
        (spoilt("known_time", pa.int64()), "QB-DATA-029"),
        (OBSERVATIONS.arrow.empty_table().drop_columns("revision"), "QB-DATA-029"),
    ],
)
@pytest.mark.parametrize("query", ALL)
def test_rows_that_cannot_be_decided_on_are_refused(
    query: Callable[..., pa.Table], rows: pa.Table, code: str
) -> None:
    with pytest.raises(QuantbenchError, match=code):
        query(rows, OBSERVATIONS, as_of=START)


# ---- from the lake -------------------------------------------------------------------------------------------


def test_the_reads_agree_with_the_definition_however_the_lake_was_written(tmp_path: Path) -> None:
    """Several appends in any order, read through windows, assets and columns. Catches a file wrongly left unopened."""
    rng = np.random.default_rng(5)
    for name in ("observations", "trades", "options"):
        contract = schema(name)
        rows = draw_rows(rng, contract, 12)
        years = pa.array(rng.integers(0, 3, rows.num_rows) * 366 * 86_400_000_000, pa.duration("us"))
        for column in ("event_time", "known_time"):
            place = rows.column_names.index(column)
            rows = rows.set_column(place, contract.arrow.field(column), pc.add(rows[column], years))
        lake = Lake.create(tmp_path / name, clock=SimClock(START))
        for low in range(0, rows.num_rows, 40):
            lake.append(name, rows.slice(low, 40), source="test")
        for _ in range(12):
            as_of = START + timedelta(days=366 * int(rng.integers(3)), minutes=30 * int(rng.integers(-1, 12)))
            start, end = (START + timedelta(days=366 * n, hours=1) for n in (0, 2))
            local, expected = as_of.astimezone(ZONES[1]), by_definition(rows, contract, as_of)
            assert asof.latest(lake, name, as_of=local).rows.to_pylist() == expected[latest_rows]
            assert AsOfIndex.open(lake, name).latest(as_of=local).to_pylist() == expected[latest_rows]
            assert asof.vintages(lake, name, as_of=local).rows.to_pylist() == expected[vintage_rows]
            within = [row for row in expected[history_rows] if start <= row["event_time"] < end]
            assert asof.history(lake, name, as_of=local, start=start, end=end).rows.to_pylist() == within
            some = [row for row in expected[history_rows] if row["asset"] in ("A1", "A7")]
            assert asof.history(lake, name, as_of=local, assets=["A7", "A1"]).rows.to_pylist() == some


def test_a_read_says_what_it_is(tmp_path: Path) -> None:
    """Columns asked for and those that decide; the schema's types; as_of in UTC; the version; an empty table too."""
    lake = Lake.create(tmp_path / "lake", clock=SimClock(START))
    for read in (asof.latest, asof.history, asof.vintages):
        nothing = read(lake, "observations", as_of=START, columns=["value"])
        assert len(nothing) == 0 and nothing.version == 0
    lake.append("observations", draw_rows(np.random.default_rng(1), OBSERVATIONS, 3), source="test")
    for read in (asof.latest, asof.history, asof.vintages):
        found = read(
            lake, "observations", as_of=(START + timedelta(days=1)).astimezone(ZONES[2]), columns=["value"]
        )
        wanted = ["asset", "field", "value", "event_time", "known_time", "revision"]
        assert found.rows.schema == pa.schema([OBSERVATIONS.arrow.field(n) for n in wanted])
        assert (found.version, found.as_of, found.as_of.tzinfo) == (1, START + timedelta(days=1), UTC)
        assert len(read(lake, "observations", as_of=datetime.max.replace(tzinfo=UTC))) >= len(found) > 0
        with pytest.raises(QuantbenchError, match="QB-TIME-001"):
            read(lake, "observations", as_of=NAIVE)
        with pytest.raises(QuantbenchError, match="QB-DATA-029"):
            read(lake, "observations", as_of=START, columns=["valu"])
        with pytest.raises(TypeError, match="as_of"):
            read(lake, "observations")


# ---- the compiled loops on the disk --------------------------------------------------------------------------

PROBE = """
from datetime import UTC, datetime
from quantbench.data import asof
from quantbench.data.schema import schema
import pyarrow as pa
moment = datetime(2024, 7, 3, tzinfo=UTC)
row = {"asset": "US", "field": "gdp", "value": 1.0, "unit": "percent", "event_time": moment, "known_time": moment}
rows = pa.Table.from_pylist([row | {"revision": 0, "source": "probe"}], schema=schema("observations").arrow)
assert asof.latest_rows(rows, schema("observations"), as_of=moment).num_rows == 1
stats = getattr(asof._compiled(asof._scan), "stats", None)
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_compiled_loops_are_kept_where_one_may_write(root: Path, tmp_path: Path) -> None:
    """Beside the package; else in the user's cache; else nowhere, and the query still answers."""
    package, home = tmp_path / "site" / "quantbench", tmp_path / "home"
    shutil.copytree(root / "quantbench", package, ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG"))}
    environment |= {"PYTHONPATH": str(package.parent), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}

    def probe() -> list[str]:
        command = [sys.executable, "-c", PROBE]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    beside = package / "data" / "__pycache__"
    assert probe() == ["0", "1"] and list(beside.glob("asof._scan*.nbi"))
    assert probe() == ["1", "0"]
    shutil.rmtree(beside)
    beside.write_text("a file where the folder should be: nobody can write into it, not even root")
    assert probe() == ["0", "1"] and list(home.rglob("asof._scan*.nbi"))
    assert probe() == ["1", "0"]
    shutil.rmtree(home)
    home.write_text("nor here")
    assert probe() == probe() == ["0", "1"]


# ---- found in review -----------------------------------------------------------------------------------------


def test_a_lake_with_versions_that_cannot_be_told_apart_can_be_read(tmp_path: Path) -> None:
    """Two batches may hold the same version, as overlapping downloads do: once, every read of the table failed."""
    rng = np.random.default_rng(12)
    for name in ("observations", "trades", "events"):
        contract = schema(name)
        rows = draw_rows(rng, contract, 5, tied=True)
        lake = Lake.create(tmp_path / name, clock=SimClock(START))
        for row in range(rows.num_rows):
            lake.append(name, rows.slice(row, 1), source="test", batch=str(row))
        lake.append(name, rows.slice(0, 1), source="test", batch="again")
        as_of = START + timedelta(days=1)
        expected = by_definition(pa.concat_tables([rows, rows.slice(0, 1)]), contract, as_of)
        assert asof.latest(lake, name, as_of=as_of).rows.to_pylist() == expected[latest_rows]
        assert AsOfIndex.open(lake, name).latest(as_of=as_of).to_pylist() == expected[latest_rows]
        assert asof.history(lake, name, as_of=as_of).rows.to_pylist() == expected[history_rows]
        assert asof.vintages(lake, name, as_of=as_of).rows.to_pylist() == expected[vintage_rows]


def test_columns_may_be_any_iterable(tmp_path: Path) -> None:
    """A generator was once used up by the check of the names, and then no column was wanted."""
    lake = Lake.create(tmp_path / "lake", clock=SimClock(START))
    lake.append("observations", draw_rows(np.random.default_rng(1), OBSERVATIONS, 3), source="test")
    for read in (asof.latest, asof.history, asof.vintages):
        found = read(lake, "observations", as_of=START, columns=iter(["value", "unit"]))
        assert {"value", "unit"} <= set(found.rows.column_names)


def test_which_of_two_tied_versions_is_chosen_does_not_depend_on_the_columns_asked_for(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(13)
    once = draw_rows(rng, OBSERVATIONS, 6)
    other = {
        "value": rng.random(once.num_rows),
        "unit": [f"u{n}" for n in rng.integers(9, size=once.num_rows)],
    }
    again = once
    for name, values in other.items():
        again = again.set_column(
            again.column_names.index(name), OBSERVATIONS.arrow.field(name), pa.array(values)
        )
    rows = pa.concat_tables([once, again])
    lake = Lake.create(tmp_path / "lake", clock=SimClock(START))
    for part in (once, again):
        lake.append("observations", part, source="test")
    as_of = START + timedelta(days=1)
    for read in (asof.latest, asof.history, asof.vintages):
        whole = read(lake, "observations", as_of=as_of).rows
        for name in ("value", "unit", "source"):
            part = read(lake, "observations", as_of=as_of, columns=[name]).rows
            assert part == whole.select(part.column_names)
    part = AsOfIndex.open(lake, "observations", columns=["value"]).latest(as_of=as_of)
    assert (
        part["value"] == asof.latest(lake, "observations", as_of=as_of).rows["value"]
        and "unit" not in part.column_names
    )
    with pytest.raises(QuantbenchError, match="QB-DATA-030"):
        history_rows(rows.drop_columns(["source"]), OBSERVATIONS, as_of=as_of)
