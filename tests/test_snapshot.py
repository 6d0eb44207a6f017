"""SQL over a snapshot reaches nothing else, and its hash names content and nothing but content."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import refused
from quantbench.data.schema import schema
from quantbench.data.snapshot import Snapshot, canonical, content_hash

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
ROWS = pa.table(
    {
        "asset": ["NA", "TRUE", "0700", None],
        "value": [1.0, math.pi, -0.0, None],
        "flag": [True, None, False, True],
    }
)
SNAPSHOT = Snapshot("facts", ROWS, NOON, version=3, view="history")
secret = pa.table({"key": ["hunter2"]})

HOSTILE = {
    "read a text file": "select * from read_text('/etc/passwd')",
    "read a csv": "select * from read_csv('/etc/passwd')",
    "read bytes": "select * from read_blob('/etc/passwd')",
    "a path as a table": "select * from '/etc/passwd'",
    "list files": "select * from glob('/etc/*')",
    "sniff a file": "select * from sniff_csv('/etc/passwd')",
    "a query inside": "select * from query('select * from read_text(''/etc/passwd'')')",
    "parquet metadata": "select * from parquet_metadata('/etc/passwd')",
    "secrets": "select * from duckdb_secrets()",
    "write a file": "copy facts to '/tmp/facts.csv'",
    "attach": "attach '/tmp/other.db'",
    "install": "install httpfs",
    "load": "load httpfs",
    "unlock": "set enable_external_access = true",
    "more threads": "set threads = 2",
    "a pragma": "pragma database_list",
    "export": "export database '/tmp/out'",
    "drop": "drop view facts",
    "two statements": "select 1; select * from facts",
    "a variable": "select * from secret",
    "a local variable": "select * from mine",
    "a raw pointer": "select * from arrow_scan(1::pointer, 1::pointer, 1::pointer)",
    "the environment": "select getenv('HOME')",
    "nothing": "",
    "nonsense": "selekt *",
}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_hostile_sql_is_refused(statement):
    mine = secret
    assert mine.num_rows == 1
    with refused("QB-SQL-001", show=False):
        SNAPSHOT.sql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_text('.tmp/diary.txt')",
        "select * from glob('.tmp/*')",
        "with written as (copy (select 1) to '.tmp/out.csv') select 1",
    ],
)
def test_the_folder_for_spilling_is_no_way_out(statement, tmp_path, monkeypatch):
    """DuckDB lets queries read and write its temporary directory, by default `.tmp` where one stands, whatever is closed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "diary.txt").write_text("hunter2")
    with refused("QB-SQL-001", show=False):
        SNAPSHOT.sql(statement)
    assert [p.name for p in (tmp_path / ".tmp").iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("ticker", ["x'; drop table facts; --", "NA", "' or 1=1 --", "\0", "0700"])
def test_a_parameter_is_a_value(ticker):
    found = SNAPSHOT.sql("select asset from facts where asset = $ticker", ticker=ticker)["asset"].to_pylist()
    assert found == [name for name in ROWS["asset"].to_pylist() if name == ticker]


def test_sql_answers_are_the_same_bits_each_time():
    rng = np.random.default_rng(5)
    rows = pa.table({"asset": rng.choice(["a", "b", "c"], 200_000), "value": rng.normal(size=200_000)})
    snapshot = Snapshot("facts", rows, NOON, version=1, view="history")
    query = "select asset, sum(value) as total from facts group by asset order by asset"
    assert len({content_hash(snapshot.sql(query)) for _ in range(5)}) == 1
    assert snapshot.sql("select value from facts")["value"].to_pylist() == rows["value"].to_pylist()
    assert (
        snapshot.sql(
            "select count(*) as n from facts where value > $low and asset in $names",
            low=0.0,
            names=["a", "b"],
        )["n"][0].as_py()
        > 0
    )


def test_views_say_the_same():
    assert SNAPSHOT.pl["asset"].to_list() == ROWS["asset"].to_pylist()
    assert (
        SNAPSHOT.df["asset"].tolist()[:3] == ["NA", "TRUE", "0700"]
        and SNAPSHOT.df["asset"].isna().tolist()[3]
    )
    values = SNAPSHOT.df["value"].to_numpy()
    assert values[:3].tobytes() == np.array([1.0, math.pi, -0.0]).tobytes()


def test_nothing_assigned_reaches_the_rows():
    with pytest.raises(AttributeError):
        SNAPSHOT.rows = ROWS.slice(1)
    before = SNAPSHOT.hash
    frame = SNAPSHOT.df
    frame["value"] = 7.0
    with pytest.raises(ValueError, match="read-only"):
        ROWS["value"].chunk(0).slice(0, 3).to_numpy()[0] = 7.0
    assert content_hash(SNAPSHOT.arrow) == before


CELLS = {
    pa.string(): st.one_of(st.none(), st.text(max_size=4)),
    pa.float64(): st.one_of(st.none(), st.floats(allow_nan=False)),
    pa.int32(): st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    pa.bool_(): st.one_of(st.none(), st.booleans()),
    pa.timestamp("us", tz="UTC"): st.one_of(st.none(), st.integers(0, 2**50)),
}
COLUMNS = st.sampled_from(list(CELLS)).flatmap(
    lambda kind: st.lists(CELLS[kind], max_size=12).map(lambda v: pa.array(v, kind))
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(COLUMNS, st.data())
def test_the_hash_does_not_see_how_values_are_held(values, data):
    table = pa.table({"x": values})
    padded = pa.concat_arrays([pa.nulls(3, values.type), values, values]).slice(
        3, len(values)
    )  # an offset, other bytes behind
    cut = data.draw(st.integers(0, len(values)))
    pieces = pa.chunked_array([values.slice(0, cut), values.slice(cut)], values.type)
    assert (
        content_hash(pa.table({"x": padded})) == content_hash(pa.table({"x": pieces})) == content_hash(table)
    )
    if pa.types.is_string(values.type):
        assert content_hash(pa.table({"x": values.dictionary_encode()})) == content_hash(table)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(COLUMNS, COLUMNS)
def test_the_hash_tells_contents_apart(one, other):
    def content(values):
        return str(values.type), [
            math.copysign(1, v) if v == 0.0 and isinstance(v, float) else v for v in values.to_pylist()
        ]

    same = content(one) == content(other)
    assert (
        content_hash(pa.table({"x": one})) == content_hash(pa.table({"x": other}))
    ) is same or one.to_pylist() == other.to_pylist()


def test_what_lies_behind_nulls_is_not_hashed():
    def held(behind: float) -> pa.Array:
        bits = pa.py_buffer(np.packbits([1, 0, 1], bitorder="little").tobytes())
        return pa.Array.from_buffers(
            pa.float64(), 3, [bits, pa.py_buffer(np.array([1.0, behind, 2.0]).tobytes())]
        )

    assert (
        content_hash(pa.table({"x": held(5.0)}))
        == content_hash(pa.table({"x": held(6.0)}))
        == content_hash(pa.table({"x": [1.0, None, 2.0]}))
    )


def test_text_cannot_pass_for_other_text():
    tables = [["ab", "c"], ["a", "bc"], ["abc", ""], ["a", None], ["a", ""], ["", "a"]]
    assert len({content_hash(pa.table({"x": pa.array(t, pa.string())})) for t in tables}) == len(tables)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("aébZ"),
            st.sampled_from("xy"),
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 1),
        ),
        max_size=30,
    )
)
def test_canonical_is_python_s_sort(cells):
    names = ("asset", "event_id", "event_time", "known_time", "revision")
    kinds = (pa.string(), pa.string(), pa.timestamp("us", tz="UTC"), pa.timestamp("us", tz="UTC"), pa.int32())
    columns = list(zip(*cells, strict=True)) or [()] * 5
    table = pa.table(
        {
            n: pa.array(c, pa.int64() if pa.types.is_timestamp(k) else k).cast(k)
            for n, c, k in zip(names, columns, kinds, strict=True)
        }
    )
    table = table.append_column("kind", pa.repeat("k", len(cells))).append_column(
        "place", pa.array(range(len(cells)), pa.int64())
    )
    ordered = canonical(table, schema("events"))["place"].to_pylist()
    by = [
        (a, t, e, k, r, n) for n, (a, e, t, k, r) in enumerate(cells)
    ]  # events: asset, kind, event_time, event_id
    assert ordered == [row[-1] for row in sorted(by)]
