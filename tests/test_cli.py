"""The command line as a user meets it: how it ends, what it says, what it never says, and what it does not load."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from quantbench.core.clock import Calendar, WallClock
from quantbench.core.journal import Journal
from quantbench.ops.cli import main
from quantbench.ops.doctor import check_clock, check_packages, check_python, satisfies
from quantbench.ops.terminal import plain

PROGRAM = [sys.executable, "-c", "import sys; from quantbench.ops.cli import main; sys.exit(main())"]
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume\n"
DAYS = "2024-07-02,10,10.5,9.9,10.2,10.2,500\n2024-07-03,10.2,10.4,10,10.3125001,10.3,300\n"


def qb(*words: object, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    words = tuple(map(str, words))
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environ}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of one share, a journal, and files of several kinds."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "yahoo").mkdir()
    (folder / "yahoo" / "ACME.csv").write_text(HEADER + DAYS)
    assert (
        main(["data", "import", str(folder / "yahoo"), "--spec", "yahoo", "--lake", str(folder / "lake")])
        == 0
    )
    with Journal.open(folder / "a.journal", clock=WallClock()) as journal:
        journal.extend(("trial.run", {"number": n, "note": "\x1b[31mred\u202e"}) for n in range(20))
    (folder / "text.txt").write_text("no journal\n")
    (folder / "bad.toml").write_text('["*.csv"]\ntabel = "bars"\n')
    (folder / "torn.toml").write_text("[*.csv\n")
    (folder / "blank.toml").write_text("")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "ACME.csv").write_text(HEADER + "2024-07-02,10,9.5,9.9,10.2,10.2,500\n")
    return folder


def test_done_ends_with_0(place: Path) -> None:
    done = qb("data", "list", "--lake", place / "lake")
    assert (done.returncode, done.stderr) == (0, "") and re.search(r"bars +2 +1 +2024-07-02", done.stdout)


def test_a_failed_check_ends_with_1(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.journal"
    copy.write_bytes((place / "a.journal").read_bytes().replace(b'"number":7', b'"number":8'))
    failed = qb("journal", "verify", copy)
    assert failed.returncode == 1 and "QB-JNL-003" in failed.stdout and not failed.stderr


def test_a_wrong_use_ends_with_2(place: Path) -> None:
    wrong = qb("data", "show", "bars", "--lake", place / "lake")
    assert wrong.returncode == 2 and "--as-of" in wrong.stderr and not wrong.stdout


def test_a_refusal_ends_with_3(place: Path) -> None:
    refused = qb("data", "show", "bars", "--as-of", "2024-07-03", "--lake", place / "lake")
    assert (
        refused.returncode == 3
        and refused.stderr.startswith("QB-TIME-001")
        and "Z for UTC" in refused.stderr
        and not refused.stdout
    )


BAD = {
    "no command": (2, ["data", "bring"]),
    "no group": (2, ["date", "list"]),
    "no lake": (3, ["data", "list", "--lake", "{empty}"]),
    "a file as lake": (3, ["data", "list", "--lake", "{text}"]),
    "the lake's parent is not empty": (3, ["data", "import", "sample", "--lake", "{place}"]),
    "a misspelt table": (3, ["data", "show", "barz", "--as-of", "now", "--lake", "{lake}"]),
    "a table that is a path": (3, ["data", "show", "../lake/bars", "--as-of", "now", "--lake", "{lake}"]),
    "no as-of": (2, ["data", "show", "bars", "--lake", "{lake}"]),
    "a naive as-of": (3, ["data", "show", "bars", "--as-of", "2024-07-03T17:00", "--lake", "{lake}"]),
    "an as-of in words": (2, ["data", "show", "bars", "--as-of", "yesterday", "--lake", "{lake}"]),
    "an empty as-of": (2, ["data", "show", "bars", "--as-of", "", "--lake", "{lake}"]),
    "an as-of beyond the calendar": (
        3,
        ["data", "show", "bars", "--as-of", "0001-01-01T00:00+14:00", "--lake", "{lake}"],
    ),
    "a misspelt column": (
        3,
        ["data", "show", "bars", "--as-of", "now", "--columns", "clsoe", "--lake", "{lake}"],
    ),
    "a negative limit": (2, ["data", "show", "bars", "--as-of", "now", "--limit", "-1", "--lake", "{lake}"]),
    "an empty list of assets": (
        2,
        ["data", "show", "bars", "--as-of", "now", "--assets", ",", "--lake", "{lake}"],
    ),
    "an empty list of columns": (
        2,
        ["data", "show", "bars", "--as-of", "now", "--columns", "", "--lake", "{lake}"],
    ),
    "the sample with a specification": (
        2,
        ["data", "import", "sample", "--spec", "yahoo", "--lake", "{new}"],
    ),
    "files without a specification": (2, ["data", "import", "{yahoo}", "--lake", "{new}"]),
    "an unknown specification": (3, ["data", "import", "{yahoo}", "--spec", "bloomberg", "--lake", "{new}"]),
    "a misspelt key": (3, ["data", "import", "{yahoo}", "--spec", "{place}/bad.toml", "--lake", "{new}"]),
    "broken TOML": (3, ["data", "import", "{yahoo}", "--spec", "{place}/torn.toml", "--lake", "{new}"]),
    "empty TOML": (3, ["data", "import", "{yahoo}", "--spec", "{place}/blank.toml", "--lake", "{new}"]),
    "a missing TOML file": (
        3,
        ["data", "import", "{yahoo}", "--spec", "{place}/none.toml", "--lake", "{new}"],
    ),
    "a folder as TOML file": (3, ["data", "import", "{yahoo}", "--spec", "{yahoo}", "--lake", "{new}"]),
    "no such folder": (3, ["data", "import", "{place}/none", "--spec", "yahoo", "--lake", "{new}"]),
    "no such file in the folder": (3, ["data", "import", "{empty}", "--spec", "yahoo", "--lake", "{new}"]),
    "a pattern that leaves the folder": (
        3,
        ["data", "import", "{empty}", "--spec", "yahoo", "--pattern", "../*", "--lake", "{new}"],
    ),
    "a contradictory bar": (3, ["data", "import", "{place}/broken", "--spec", "yahoo", "--lake", "{new}"]),
    "a share above one": (2, ["data", "import", "sample", "--quarantine", "2", "--lake", "{new}"]),
    "a share that is no number": (
        2,
        ["data", "import", "sample", "--only", "vix-bars", "--quarantine", "nan", "--lake", "{new}"],
    ),
    "a calendar without a name": (3, ["data", "check", "--calendar", "", "--lake", "{lake}"]),
    "a check as of a word": (2, ["data", "check", "--as-of", "yesterday", "--lake", "{lake}"]),
    "no such dataset": (3, ["data", "import", "sample", "--only", "gdp", "--lake", "{new}"]),
    "refresh without a lake": (3, ["data", "refresh", "sample", "--lake", "{place}/none"]),
    "no such calendar": (3, ["data", "check", "--calendar", "MARS", "--lake", "{lake}"]),
    "no such journal": (3, ["journal", "verify", "{place}/none"]),
    "a folder as journal": (3, ["journal", "tail", "{place}"]),
    "text as journal": (3, ["journal", "verify", "{text}"]),
    "half an anchor": (3, ["journal", "verify", "{journal}", "--anchor", "1:2"]),
    "no records wanted": (2, ["journal", "tail", "{journal}", "-n", "0"]),
    "a number in words": (2, ["journal", "tail", "{journal}", "-n", "ten"]),
}


def filled(words: list[str], place: Path, new: Path) -> list[str]:
    names = {
        "place": place,
        "new": new,
        "lake": place / "lake",
        "empty": place / "empty",
        "yahoo": place / "yahoo",
    }
    names |= {"text": place / "text.txt", "journal": place / "a.journal"}
    return [word.format(**names) for word in words]


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_not_traced(
    bad: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = BAD[bad]
    assert main(filled(words, place, tmp_path / "new")) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err and not said.out
    assert (
        re.match(r"QB-[A-Z]+-\d{3}: .*\n  where: .*\n  value: .*\n  allowed: .*\n  next: ", said.err)
        if code == 3
        else "Error: " in said.err
    )


HOSTILE = (
    "select * from '/etc/hosts'",
    "select * from read_csv('/etc/hosts')",
    "select * from read_text('/etc/hosts')",
    "copy bars to '/tmp/stolen.csv'",
    "attach '/tmp/other.db'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "select 1; select 2",
    "drop view bars",
    "create table mine as select 1",
    "select * from quotes",
    "select getenv('HOME')",
    "pragma database_list",
    "",
    "selec",
)


@pytest.mark.parametrize("query", HOSTILE)
def test_sql_stays_in_its_snapshot(query: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["data", "sql", query, "--table", "bars", "--as-of", "now", "--lake", str(place / "lake")]) == 3
    )
    said = capsys.readouterr()
    assert said.err.startswith("QB-SQL-001") and not said.out


def test_what_was_meant_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--as-of", "now", "--lake", str(place / "lake")]
    main(["data", "show", "barz", *here])
    assert "did you mean 'bars'?" in capsys.readouterr().err
    main(["data", "sql", "select 1", "--table", "quote", *here])
    assert "did you mean 'quotes'?" in capsys.readouterr().err
    main(["data", "shwo"])
    assert "'show'" in capsys.readouterr().err


def test_show_prints_what_was_known_with_every_digit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "data",
        "show",
        "bars",
        "--columns",
        "event_time,close",
        "--lake",
        str(place / "lake"),
        "--as-of",
    ]
    assert main([*words, "2024-07-03T17:14:59Z"]) == 0
    out = capsys.readouterr().out
    assert "10.2" in out and "10.3125001" not in out  # closed at 13:00 in New York, known at 13:15
    assert main([*words, "now"]) == 0
    assert "10.3125001" in capsys.readouterr().out


def test_json_is_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake, known = ["--lake", str(place / "lake"), "--json"], ["--as-of", "2024-08-01T00:00Z"]

    def answer(*words: str, code: int = 0) -> object:
        assert main(list(words)) == code
        said = capsys.readouterr()
        assert not said.err
        return json.loads(said.out, parse_constant=lambda name: pytest.fail(name))

    (bars,) = answer("data", "list", *lake)
    assert (bars["table"], bars["rows"], bars["versions"], bars["first"]) == (
        "bars",
        2,
        1,
        "2024-07-02T20:00:00+00:00",
    )
    shown = answer("data", "show", "bars", *known, *lake)
    assert [row["close"] for row in shown["data"]] == [10.2, 10.3125001] and shown["rows"] == 2
    assert answer("data", "show", "bars", *known, "--limit", "1", *lake)["rows"] == 2
    assert answer("data", "show", "bars", *known, "--latest", *lake)["rows"] == 1
    odd = "select 'nan'::double as a, 1.50::decimal(9, 2) as b, 'infinity'::double as c, null as d, [1, 2] as e from bars limit 1"
    row = answer("data", "sql", odd, "--table", "bars", *known, *lake)["data"][0]
    assert row == {"a": "nan", "b": "1.50", "c": "inf", "d": None, "e": [1, 2]}
    checked = answer("data", "check", *lake)
    assert checked["ok"] and checked["lake"]["problems"] == [] and checked["quality"]["findings"] is not None
    again = answer("data", "refresh", str(place / "yahoo"), "--spec", "yahoo", *lake)
    assert again["datasets"][0]["read"] == 0
    assert answer("journal", "verify", str(place / "a.journal"), "--json")["records"] == 20
    assert [
        r["payload"]["number"]
        for r in answer("journal", "tail", str(place / "a.journal"), "-n", "2", "--json")
    ] == [18, 19]
    assert answer(
        "data", "import", "sample", "--only", "interest-rates", "--lake", str(place / "other"), "--json"
    )["datasets"]


def test_doctor_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[paths]\nlake = data/lake\n")
    good = qb("doctor", "--json", cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1")
    found = {check["name"]: check for check in json.loads(good.stdout)["checks"]}
    assert found["settings"]["level"] == "ok" and str(tmp_path) in found["settings"]["found"]
    assert found["bytecode"]["level"] == "warn" and found["lake"]["level"] == "warn"
    assert all(check["remedy"] for check in found.values() if check["level"] != "ok")
    (tmp_path / "settings.ini").write_text("[paths]\nlaek = data/lake\n")
    bad = qb("doctor", cwd=tmp_path)
    assert (
        bad.returncode == 1 and re.search(r"fail  settings +QB-CFG-003", bad.stdout) and "disk" in bad.stdout
    )


def test_a_command_that_needs_the_settings_refuses_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[paths]\nlaek = data/lake\n")
    refused = qb("data", "list", cwd=tmp_path)
    assert refused.returncode == 3 and refused.stderr.startswith("QB-CFG-003")


def test_the_lake_of_the_settings(place: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(f"[paths]\nlake = {place / 'lake'}\nreports = out\n")
    assert "bars" in qb("data", "list", cwd=tmp_path).stdout
    checked = qb("data", "check", "--html", cwd=tmp_path)
    page = (tmp_path / "out" / "quality.html").read_text()
    assert checked.returncode == 0 and page.startswith("<!doctype html>") and "<script" not in page


def test_an_import_again_adds_nothing_and_a_longer_file_its_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ACME.csv").write_text(HEADER + DAYS)
    words = ["data", "import", str(tmp_path), "--spec", "yahoo", "--lake", str(tmp_path / "lake")]
    for expected in ("new rows: 2 of 2 read", "new rows: 0 of 0 read"):
        assert main(words) == 0 and expected in capsys.readouterr().out
    (tmp_path / "ACME.csv").write_text(HEADER + DAYS + "2024-07-05,10,10.5,9.9,10.2,10.2,500\n")
    words[1] = "refresh"
    assert main(words) == 0 and "new rows: 1 of 3 read" in capsys.readouterr().out


def test_the_largest_file_of_the_settings_holds(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[lake]\nmax_file_bytes = 1048576\n")
    (tmp_path / "in").mkdir()
    line = "2024-07-02,10,10.5,9.9,10.2,10.2,500\n"
    (tmp_path / "in" / "ACME.csv").write_text(HEADER + line * (2**20 // len(line) + 1))
    refused = qb("data", "import", "in", "--spec", "yahoo", cwd=tmp_path)
    assert refused.returncode == 3 and refused.stderr.startswith("QB-DATA-028")


def commands() -> list[list[str]]:
    """Every command there is."""
    import typer

    from quantbench.ops.cli import qb as root

    def walk(command: object, path: list[str]) -> list[list[str]]:
        inner = getattr(command, "commands", {})
        return [p for name, one in inner.items() for p in walk(one, [*path, name])] if inner else [path]

    return walk(typer.main.get_command(root), [])


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_help_has_an_example_of_its_own(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"Examples:\n( +qb {' '.join(path)}\b.*\n)+", text), text


def test_the_commands_are_those_documented() -> None:
    groups = {
        "data": "import refresh check list show sql",
        "journal": "verify tail",
        "gateway": "start status stop",
    }
    trading = ("paper", "halt", "kill", "resume", "orders", "fills", "positions", "replay-diff")
    expected = {
        ("doctor",),
        ("gate",),
        ("report",),
        ("promote",),
        ("leakcheck",),
        *((name,) for name in trading),
        *((name, one) for name, words in groups.items() for one in words.split()),
    }
    assert {tuple(path) for path in commands()} == expected


HEAVY = (
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "duckdb",
    "numba",
    "matplotlib",
    "deltalake",
    "exchange_calendars",
    "cryptography",
    "rich",
)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["data", "show", "--help"],
        ["data", "show"],
        ["gate", "--help"],
        ["gate"],
        ["report", "--help"],
        ["report"],
    ],
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    probe = f"import sys; from quantbench.ops.cli import main; main({words}); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & {name.split(".")[0] for name in done.stderr.split()}


def test_no_words_is_help_and_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and "Usage: qb" in "".join(capsys.readouterr())


def on_a_terminal(*words: str) -> str:
    """What the command writes when its output is a terminal."""
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen([*PROGRAM, *words], stdout=theirs, stderr=subprocess.PIPE, env=environ)
    os.close(theirs)
    written = bytearray()
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    process.communicate()
    return written.decode()


def test_an_interruption_ends_as_the_shell_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quantbench.ops.doctor.examine", interrupted)
    assert main(["doctor"]) == 130


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantbench.ops.doctor.examine", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_damaged_lake_ends_with_1_and_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ACME.csv").write_text(HEADER + DAYS)
    lake = ["--lake", str(tmp_path / "lake")]
    assert main(["data", "import", str(tmp_path), "--spec", "yahoo", *lake]) == 0
    victim = next((tmp_path / "lake" / "bars").glob("year=*/*"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    capsys.readouterr()
    assert main(["data", "check", *lake]) == 1 and victim.name in capsys.readouterr().out
    assert main(["data", "show", "bars", "--as-of", "now", *lake]) == 3
    assert capsys.readouterr().err.startswith("QB-DATA-003")


def test_a_warning_fails_only_when_strict(tmp_path: Path) -> None:
    days = Calendar("XNYS").sessions(date(2024, 3, 1), date(2024, 5, 31))
    closes = [
        100 + (17 * n % 7) / 10 if n < 57 else 100 for n in range(len(days))
    ]  # the last week stands still
    rows = "".join(
        f"{day},{close},{close},{close},{close},{close},500\n"
        for day, close in zip(days, closes, strict=True)
    )
    (tmp_path / "ACME.csv").write_text(HEADER + rows)
    lake = ["--lake", str(tmp_path / "lake")]
    assert main(["data", "import", str(tmp_path), "--spec", "yahoo", *lake]) == 0
    assert main(["data", "check", *lake]) == 0
    assert main(["data", "check", "--strict", *lake]) == 1  # stale prices


def test_colour_on_a_terminal_only(place: Path) -> None:
    words = ("journal", "verify", str(place / "a.journal"))
    assert "\x1b[" in on_a_terminal(*words) and "\x1b" not in qb(*words, TERM="xterm-256color").stdout


def test_control_characters_in_data_do_not_reach_the_terminal(place: Path) -> None:
    written = qb("journal", "tail", place / "a.journal").stdout
    assert "red" in written and not set(written) & {"\x1b", "\u202e"}


def test_a_stream_that_cannot_show_a_sign(place: Path) -> None:
    words = ("data", "sql", "select 'é' as sign, null as gap from bars", "--table", "bars", "--as-of", "now")
    shown = qb(*words, "--lake", place / "lake", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0 and not shown.stderr and "\\xe9" in shown.stdout


@pytest.mark.parametrize(
    ("limit", "lines"), [("0", 51), ("1", 3), ("2", 5), ("7", 10), ("50", 51), ("60", 51)]
)
def test_a_limit_is_a_limit(limit: str, lines: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "data",
        "sql",
        "select n from range(50) r(n), (select 1 from bars limit 1)",
        "--table",
        "bars",
        "--as-of",
        "now",
    ]
    assert main([*words, "--limit", limit, "--lake", str(place / "lake")]) == 0
    assert (
        len(capsys.readouterr().out.splitlines()) == lines
    )  # the heading; of a part also "…" between and the count


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen([*PROGRAM, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert error == b""


def test_versions_are_numbers() -> None:
    assert (
        satisfies("3.11.0", ">=3.11,<3.15")
        and not satisfies("3.9.1", ">=3.11")
        and satisfies("26", ">=26.0.0")
    )
    assert not satisfies("0.17.4", "==0.17.5") and satisfies("3.12.0rc1", ">=3.12")
    assert check_python("3.15.0", ">=3.11,<3.15").level == "fail"
    assert check_packages(["numpy>=2.4", "x[y]>=1; extra == 'z'"], lambda _: "2.10").level == "ok"


def test_a_clock_behind_what_it_dated_fails() -> None:
    now = WallClock().now()
    assert (
        check_clock(now, {"a": now}).level == "ok"
        and check_clock(now, {"a": now.replace(year=now.year + 1)}).level == "fail"
    )


def test_plain_keeps_what_json_can_hold() -> None:
    kept = {"a": [1, 0.1, True, None, "x"], "b": {"c": 2**70}}
    assert plain(kept) == kept and plain({1: {2}}) == {"1": [2]} and plain(float("-inf")) == "-inf"


FEATURES = """import helper
print("loading")


def clean(bars):
    return bars["close"].pct_change(helper.LENGTH)


def ahead(bars):
    return bars["close"].shift(-2)


class Rule:
    def on_bar(self, bar, market):
        market.buy(1)


def later(bars):
    return bars["close"] * 2
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of features that imports one beside it, a notebook that checks a cell, and one that breaks before it."""
    folder = tmp_path_factory.mktemp("features")
    (folder / "helper.py").write_text("LENGTH = 5\n")
    (folder / "features.py").write_text(FEATURES)
    (folder / "clean.py").write_text("def f(bars):\n    return bars['close'].pct_change(5)\n")
    begin = "from quantbench.ops.leakcheck import rows\nbars = rows(None)"
    cells = {
        "red": [begin, "%%leakcheck bars --sample 40\nx = bars['close'].shift(-1)"],
        "green": [begin, "%%leakcheck bars --sample 40\nx = bars['close'].shift(1)", "assert len(x) == 300"],
        "allowed": [begin, "%%leakcheck bars --sample 40 --label x=1\nx = bars['close'].shift(-1)"],
        "broken": ["1 / 0", "%%leakcheck bars\nx = 1"],
    }
    for name, texts in cells.items():
        code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        book = {
            "nbformat": 4,
            "nbformat_minor": 4,
            "metadata": {},
            "cells": [code | {"source": s} for s in texts],
        }
        (folder / f"{name}.ipynb").write_text(json.dumps(book))
    stamps = [f"2024-01-{day:02d}" for day in range(2, 30)]
    lines = [f"{day},{100 + n},2024-02-{n + 1:02d}" for n, day in enumerate(stamps)]
    (folder / "bars.csv").write_text("\n".join(["time,close,published", *lines]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["features.py:clean"], 0, "clean: 1 column, 299 of 299 moments"),
        (["features.py:ahead"], 1, "uses 2 bars of the future"),
        (["features.py:ahead", "--label", "close=2"], 0, "clean"),
        (["features.py:ahead", "--label", "close=1"], 1, "2 bars of the future, 1 allowed"),
        (["features.py:ahead", "--sample", "9"], 1, "9 of 299 moments"),
        (["features.py:Rule"], 0, "nothing found"),
        (["features.py"], 1, "negative shift"),
        (["clean.py"], 0, "nothing found"),
        (["features.py:later", "--frame", "bars.csv"], 0, "clean"),
        (["features.py:later", "--frame", "bars.csv", "--known", "published"], 1, "knows its future"),
        (["red.ipynb"], 1, "uses 1 bar of the future"),
        (["green.ipynb"], 0, "clean: 1 column, 40 of 299 moments"),
        (["allowed.ipynb"], 0, "clean"),
        (["features.py:claen"], 2, "clean"),
        (["features.py:clean", "--label", "close"], 2, "NAME=BARS"),
        (["broken.ipynb"], 3, "broken.ipynb, cell 1\n  value:   ZeroDivisionError"),
        (["none.py"], 3, "QB-CLI-001"),
        (["none.ipynb"], 3, "QB-NB-010"),
        (["features.py:clean", "--frame", "none.csv"], 3, "QB-CLI-001"),
    ],
)  # fmt: skip
def test_leakcheck_ends_as_it_found_it(features: Path, words: list[str], code: int, said: str) -> None:
    """Fails if a leak ends with 0, a clean feature with 1, or what could not be tried with either."""
    done = qb("leakcheck", *words, cwd=features)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in (done.stdout if code < 2 else done.stderr) and "Traceback" not in done.stderr


def test_leakcheck_for_programs_prints_json_alone(features: Path) -> None:
    done = qb("leakcheck", "features.py:ahead", "--json", cwd=features)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and not told["clean"] and "loading" in done.stderr
    assert [one["where"] for one in told["found"]] == ["ahead"]
