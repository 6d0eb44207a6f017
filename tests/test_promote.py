"""Promotion: a certificate is for exactly one thing, a step needs all of its evidence, and a number takes a strategy down."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.chain import read
from quantbench.core.check import QuantbenchError
from quantbench.core.clock import Calendar, SimClock
from quantbench.core.config import load
from quantbench.core.settings import Gates, Guardian, Monitors, Targets
from quantbench.core.types import Side
from quantbench.engine.guardian import Limits
from quantbench.engine.study import Study
from quantbench.gates.fit import rests_on
from quantbench.gates.holdout import holdout, rehearsal
from quantbench.gates.verdict import Check, Verdict
from quantbench.ops import certificate as certificates
from quantbench.ops import checklist as lists
from quantbench.ops import cli, monitors, promote, standing, terminal
from quantbench.ops.certificate import Certificate
from quantbench.ops.evidence import anchor, canonical, environment, evidence
from quantbench.ops.monitors import Compared, History, Mark
from quantbench.ops.standing import Desk
from quantbench.risk import limits as control
from quantbench.risk.rules import Mode
from quantbench.strategies.drift import KnownDrift

NOW = datetime(2026, 11, 25, 15, tzinfo=UTC)
GATES, GUARDIAN = Gates(), Guardian()
NYSE = Calendar("XNYS")


def code_of(action: Callable[[], Any]) -> str:
    """The code of the refusal; empty if there was none."""
    try:
        action()
    except QuantbenchError as refusal:
        return refusal.code
    return ""


# ---- certificates ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys") / "signing.key"
    certificates.make_key(place)
    return place


INPUTS = {"strategy": "KnownDrift", "data": "0" * 16}
FOUND = evidence(
    INPUTS,
    "a",
    [
        Verdict(
            "eras", (Check("left", 2.0, "above", 1.0),), "It holds.", "All else.", {**INPUTS, "settings": "a"}
        )
    ],
    trials={},
    packages=environment(),
)
LIMITS = Limits.research(100_000.0)
ONE_DAY: dict[str, Any] = {
    "limits": LIMITS, "stage": "paper", "capital": 1e5, "fraction": 1.0, "issued": NOW, "expires": NOW + timedelta(1), "anchors": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def signed(keys: Path) -> Certificate:
    return certificates.issue(
        KnownDrift, FOUND, keys, parameters=KnownDrift().values(), limits=LIMITS, stage="paper", capital=1e5, fraction=1.0,
        issued=NOW, expires=NOW + timedelta(28), anchors={"evidence": "1:200:" + "0" * 64},
    )  # fmt: skip


def asked(keys: Path, **changed: Any) -> dict[str, Any]:
    plain = {
        "strategy": KnownDrift, "parameters": KnownDrift().values(), "limits": LIMITS, "stage": "paper", "now": NOW,
        "public_key": certificates.public_key(keys), "revoked": (), "evidence": FOUND,
    }  # fmt: skip
    return plain | changed


def test_every_byte_of_the_file_is_signed(signed: Certificate, tmp_path: Path) -> None:
    place = tmp_path / "certificate.json"
    certificates.write(signed, place)
    whole = place.read_bytes()
    assert certificates.read(place) == signed
    rng = np.random.default_rng(1)
    for at in range(len(whole)):
        for other in {whole[at] ^ int(rng.integers(1, 256)), whole[at] ^ 0x20, whole[at] ^ 1} - {whole[at]}:
            place.write_bytes(whole[:at] + bytes([other]) + whole[at + 1 :])
            assert code_of(lambda: certificates.read(place)) == "QB-CRT-002", (at, other)
    for cut in (whole[:-1], whole + b"\n", b"", whole[1:], b"[]", b"null", b'{"strategy":"KnownDrift"}\n'):
        place.write_bytes(cut)
        assert code_of(lambda: certificates.read(place)) == "QB-CRT-002"


@given(
    name=st.sampled_from([f.name for f in fields(Certificate) if f.name != "signature"]),
    seed=st.integers(0, 2**32),
)
def test_no_field_can_be_changed_in_memory(name: str, seed: int, keys: Path, signed: Certificate) -> None:
    value = getattr(signed, name)
    other = {
        str: lambda: "scale" if name == "stage" else f"{value}{seed}", dict: lambda: {**value, "x": str(seed)},
        float: lambda: value * 0.5, datetime: lambda: value + timedelta(microseconds=1 + seed % 1000),
    }[type(value)]()  # fmt: skip
    forged = replace(signed, **{name: other})
    assert code_of(lambda: certificates.check(forged, **asked(keys))) in ("QB-CRT-002", "QB-CRT-003")


@given(
    name=st.sampled_from(sorted(KnownDrift().values())),
    value=st.one_of(st.integers(-400, 400), st.floats(allow_nan=False), st.booleans(), st.text()),
)
def test_another_parameter_is_another_strategy(
    name: str, value: Any, keys: Path, signed: Certificate
) -> None:
    mine = KnownDrift().values()
    there = {**mine, name: value}
    same = type(value) is type(mine[name]) and value == mine[name]
    assert code_of(lambda: certificates.check(signed, **asked(keys, parameters=there))) == (
        "" if same else "QB-CRT-004"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {n: p[n] for n in list(p)[1:]},
        lambda p: {**p, "more": 1},
        lambda p: {n: float(v) for n, v in p.items()},
    ],
)
def test_missing_more_or_other_kinds_of_parameters(change: Any, keys: Path, signed: Certificate) -> None:
    assert (
        code_of(lambda: certificates.check(signed, **asked(keys, parameters=change(KnownDrift().values()))))
        == "QB-CRT-004"
    )


@pytest.mark.parametrize("name", [f.name for f in fields(Limits) if f.name != "name"])
def test_every_limit_counts(name: str, keys: Path, signed: Certificate) -> None:
    value = getattr(LIMITS, name)
    other = (
        replace(LIMITS, **{name: value / 2 if value else 1e-3})
        if isinstance(value, float)
        else replace(LIMITS, **{name: max(value - 1, 1)})
    )
    if other == LIMITS:
        other = replace(LIMITS, **{name: value + 1})
    assert code_of(lambda: certificates.check(signed, **asked(keys, limits=other))) == "QB-CRT-004"


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"stage": "micro"}, "QB-CRT-007", "paper"), ({"now": NOW - timedelta(microseconds=1)}, "QB-CRT-005", "2026-11-25"),
        ({"now": NOW + timedelta(28)}, "QB-CRT-005", "2026-12-23"), ({"now": NOW + timedelta(28) - timedelta(microseconds=1)}, "", ""),
        ({"public_key": "ab" * 32}, "QB-CRT-003", "abab"), ({"packages": environment() | {"numpy": "1"}}, "QB-CRT-004", "environment"),
        ({"evidence": {**FOUND, "verdicts": []}}, "QB-CRT-004", "verdicts, eras"), ({"evidence": {**FOUND, "hash": "0" * 64}}, "QB-CRT-004", "evidence"),
    ],
)  # fmt: skip
def test_it_names_what_is_not_as_signed(
    changed: dict[str, Any], code: str, says: str, keys: Path, signed: Certificate
) -> None:
    try:
        certificates.check(signed, **asked(keys, **changed))
        assert code == ""
    except QuantbenchError as refusal:
        assert refusal.code == code and says in str(refusal)


def test_a_revoked_one_is_refused_before_anything_else(keys: Path, signed: Certificate) -> None:
    worst = asked(
        keys, revoked={signed.hash}, stage="scale", now=NOW + timedelta(99), limits=Limits.research(1.0)
    )
    assert code_of(lambda: certificates.check(signed, **worst)) == "QB-CRT-006"


SOURCE = '''"""A module without a notebook."""

from quantbench.engine.strategy import Strategy, param

EDGE = 3


class Small(Strategy):
    "Buys."

    size: int = param(10, low=1, high=100)

    def on_bar(self, bar, market):
        if bar.close > EDGE:
            market.target(bar.asset, self.size)
'''


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A strategy from source text, as a module of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    counter = itertools.count()
    made: list[str] = []

    def load_source(source: str) -> Any:
        folder = tmp_path / f"v{next(counter)}"
        folder.mkdir()
        (folder / "small_strategy.py").write_text(source)
        sys.modules.pop("small_strategy", None)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        made.append("small_strategy")
        return importlib.import_module("small_strategy").Small

    yield load_source
    for name in made:
        sys.modules.pop(name, None)


def test_every_byte_of_the_code_counts(written: Callable[[str], Any], keys: Path) -> None:
    small = written(SOURCE)
    made = certificates.issue(small, FOUND, keys, parameters=small().values(), **ONE_DAY)
    parameters = small().values()
    certificates.check(made, **asked(keys, strategy=written(SOURCE), parameters=parameters))
    changes = {
        ("> EDGE", "< EDGE"), ("EDGE = 3", "EDGE = 4"), ("self.size)", "self.size + 1)"), ("Buys.", "Buys!"), ("high=100", "high=101"), ("import Strategy, param", "import Strategy,  param"),
        ("without a notebook", "without any notebook"),
    }  # fmt: skip
    for old, new in changes:
        assert old in SOURCE
        other = written(SOURCE.replace(old, new))
        terms = asked(keys, strategy=other, parameters=parameters)
        assert code_of(partial(certificates.check, made, **terms)) == "QB-CRT-004", new


def test_the_notebook_counts_and_its_outputs_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = '{"cells":[{"cell_type":"code","source":%s,"outputs":%s}]}'
    (tmp_path / "nbs").mkdir()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "noted.py").write_text(
        '"""x"""\n# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/noted.ipynb.\nclass Noted: ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path / "pkg"))
    noted = importlib.import_module("noted").Noted
    place, seen = tmp_path / "nbs" / "noted.ipynb", []
    for text, shown in (('"a = 1"', "[]"), ('["a = 1"]', '["1"]'), ('"a = 2"', "[]"), ('"a = 1 "', "[]")):
        place.write_text(book % (text, shown))
        seen.append(certificates.notebook_hash(noted))
    place.unlink()
    assert seen[0] == seen[1] and len({*seen, certificates.notebook_hash(noted)}) == 4
    sys.modules.pop("noted")


def test_a_class_of_a_session_is_not_certified(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "notebook_hash", lambda _: "")
    assert (
        code_of(lambda: certificates.issue(KnownDrift, FOUND, keys, parameters={}, **ONE_DAY)) == "QB-CRT-008"
    )


@pytest.mark.parametrize("wrong", [{"capital": 0.0}, {"capital": math.inf}, {"capital": math.nan}, {"fraction": 0.0}, {"fraction": 1.1}, {"fraction": math.nan}, {"stage": "research"}, {"expires": NOW}])  # fmt: skip
def test_what_cannot_be_is_not_signed(wrong: dict[str, Any], keys: Path) -> None:
    terms = ONE_DAY | wrong
    assert (
        code_of(lambda: certificates.issue(KnownDrift, FOUND, keys, parameters={}, **terms)) == "QB-CRT-008"
    )


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o601, 0o610, 0o660, 0o644, 0o777])
def test_a_key_that_others_can_read_is_not_used(mode: int, tmp_path: Path) -> None:
    place = tmp_path / "signing.key"
    certificates.make_key(place)
    assert certificates.usable(place) == ""
    place.chmod(mode)
    assert certificates.usable(place) == f"mode {mode:04o}"


def test_other_keys_are_not_used(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    place = tmp_path / "signing.key"
    assert certificates.usable(place) == "FileNotFoundError"
    other = X25519PrivateKey.generate().private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )
    for content in (b"", b"nothing", other, os.urandom(200)):
        place.write_bytes(content)
        place.chmod(0o600)
        assert certificates.usable(place) == "not an ed25519 key"
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    assert (
        code_of(lambda: certificates.make_key(tmp_path / "repository" / "deep" / "signing.key"))
        == "QB-CRT-001"
    )
    assert code_of(lambda: certificates.public_key(tmp_path / "none.key")) == "QB-CRT-001"


def test_the_key_is_where_the_environment_says(tmp_path: Path) -> None:
    assert certificates.key_path(None, {"QB_SIGNING_KEY": "/a/b.key"}) == Path("/a/b.key")
    assert certificates.key_path(tmp_path / "c.key", {"QB_SIGNING_KEY": "/a/b.key"}) == tmp_path / "c.key"
    assert certificates.key_path(None, {"XDG_CONFIG_HOME": "/x"}) == Path("/x/quantbench/signing.key")


class Ring:
    """A keyring that keeps what it is given, until it is locked."""

    def __init__(self, priority: float = 5.0) -> None:
        self.priority, self.kept, self.locked = priority, dict[tuple[str, str], str](), False

    def get_keyring(self) -> Ring:
        return self

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise RuntimeError("locked")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self.kept[service, name] = value


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    made = Ring()
    monkeypatch.setitem(sys.modules, "keyring", made)
    return made


def test_where_there_is_a_keyring_no_file_has_the_key(ring: Ring, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    public = certificates.make_key(environ=home)
    place = certificates.key_path(None, home)
    assert not place.exists() and certificates.public_key(place) == public
    assert certificates.kept_in(place) == "the keyring" and certificates.usable(place) == ""
    made = certificates.issue(KnownDrift, FOUND, place, parameters=KnownDrift().values(), **ONE_DAY)
    certificates.check(made, **asked(place, evidence=None))
    assert code_of(lambda: certificates.make_key(environ=home)) == "QB-CRT-001"  # never written over
    ring.locked = True
    assert certificates.usable(place) == "RuntimeError"
    ring.locked, ring.kept = False, dict.fromkeys(ring.kept, "something else")
    assert certificates.usable(place) == "not an ed25519 key"


@pytest.mark.parametrize("how", ["a place was named", "the environment names one", "it keeps nothing"])
def test_else_it_is_a_file_of_its_owner(how: str, ring: Ring, tmp_path: Path) -> None:
    place, home = tmp_path / "quantbench" / "signing.key", {"XDG_CONFIG_HOME": str(tmp_path)}
    if how == "it keeps nothing":
        ring.priority = 0.0
        certificates.make_key(environ=home)
    elif how == "a place was named":
        certificates.make_key(place)
    else:
        certificates.make_key(environ={"QB_SIGNING_KEY": str(place)})
    assert not ring.kept and certificates.kept_in(place) == "a file of mode 0600"
    assert place.stat().st_mode & 0o777 == 0o600 and certificates.usable(place) == ""


# ---- monitors, on replayed histories ------------------------------------------------------------------------

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
TERMS: dict[str, Any] = {"gates": GATES, "guardian": GUARDIAN, "monitors": Monitors(), "targets": Targets()}


def lived(returns: Any, stage: str = "micro", began: datetime = START, **more: Any) -> History:
    days = [
        d for d in NYSE.sessions(began.date(), date(2028, 1, 1)).tolist() if NYSE.open_close(d)[1] > began
    ][: len(returns)]
    worth = 100_000.0 * np.cumprod(1.0 + np.asarray(returns))
    marks = [
        Mark(began, 100_000.0),
        *(Mark(NYSE.open_close(d)[1], float(w)) for d, w in zip(days, worth, strict=True)),
    ]
    terms: dict[str, Any] = {"strategy": "KnownDrift", "certificate": "c" * 64, "calendar": "XNYS", **more}
    return History(stage=stage, began=began, marks=tuple(marks), **terms)


def end(history: History) -> datetime:
    return history.marks[-1].time


def fill(cost_bps: float, quantity: float = 100.0, side: Side = Side.BUY, **more: Any) -> Compared:
    price = 50.0 * (1.0 + (1 if side is Side.BUY else -1) * cost_bps / 1e4)
    return Compared(
        **{
            "time": START,
            "symbol": "TIDE",
            "side": side,
            "quantity": quantity,
            "price": price,
            "reference": 50.0,
            **more,
        }
    )


@pytest.mark.parametrize(("costs", "passed"), [((30.0,), True), ((20.0, 40.0), True), ((30.01,), False), ((20.0, 40.03), False), ((-500.0,), True)])  # fmt: skip
@pytest.mark.parametrize("side", list(Side)[:2])
def test_thirty_basis_points_are_the_last_that_pass(
    costs: tuple[float, ...], passed: bool, side: Side
) -> None:
    history = lived([0.0], fills=tuple(fill(c, side=side) for c in costs))
    found = monitors.shortfall(history, 30.0, end(history))
    assert found.passed is passed and found.action == ("none" if passed else "demote")


def test_shortfall_is_by_money_and_needs_every_twin() -> None:
    large = lived([0.0], fills=(fill(10.0, 900.0), fill(110.0, 100.0)))
    assert monitors.shortfall(large, 30.0, end(large)).value == pytest.approx(20.0)
    for hole in (None, 0.0):
        alone = lived([0.0], fills=(fill(1.0), fill(1.0, reference=hole)))
        assert monitors.shortfall(alone, 30.0, end(alone)).action == "demote"
    assert (
        monitors.shortfall(lived([0.0]), 30.0, START).action == "none"
        and not monitors.shortfall(lived([0.0]), 30.0, START).passed
    )


PAPER = lived(np.tile([0.006, -0.003], 10), "paper")


@pytest.mark.parametrize(
    ("part", "action"), [(0.6, "none"), (0.5999, "halt"), (0.61, "none"), (-1.0, "halt"), (1.5, "none")]
)
def test_sixty_percent_of_paper_is_the_last_that_passes(part: float, action: str) -> None:
    base = np.tile([0.006, -0.003], 10)
    live = lived(base - base.mean() * (1.0 - part))
    assert monitors.against_paper(live, PAPER, GATES, end(live)).action == action


def test_live_is_compared_on_every_day_from_the_fifth_on() -> None:
    rng = np.random.default_rng(4)
    returns = rng.normal(0.0, 0.01, 14)
    live = lived(returns)
    there = np.mean(np.tile([0.006, -0.003], 10)) / np.std(np.tile([0.006, -0.003], 10), ddof=1)
    for day in range(1, 15):
        found = monitors.against_paper(live, PAPER, GATES, live.marks[day].time)
        ratio = np.mean(returns[:day]) / np.std(returns[:day], ddof=1) / there if day >= 5 else math.nan
        assert found.action == ("none" if day < 5 or ratio >= 0.6 else "halt")
        if day >= 5:
            assert found.value == pytest.approx(ratio, rel=1e-6)
    assert not found.passed


@pytest.mark.parametrize(
    "paper",
    [
        lived(np.tile([0.003, -0.006], 10), "paper"),
        lived([0.001], "paper"),
        replace(PAPER, marks=()),
        replace(PAPER, marks=PAPER.marks[:5] + PAPER.marks[6:]),
    ],
)
def test_without_a_paper_ratio_above_zero_live_halts(paper: History) -> None:
    live = lived(np.tile([0.006, -0.003], 5))
    assert monitors.against_paper(live, paper, GATES, end(live)).action == "halt"


def test_thirty_days_on_a_replayed_history() -> None:
    returns = np.random.default_rng(8).normal(0.0005, 0.01, 90)
    live = lived(returns)
    closes = [mark.time for mark in live.marks[1:]]
    seen = set()
    for n, now in enumerate(closes):
        found = monitors.rolling_sharpe(live, GATES, now)
        if now < START + timedelta(30):
            assert found.action == "none" and not found.passed and found.due >= START + timedelta(30)
            continue
        part = [returns[k] for k in range(n + 1) if closes[k] > now - timedelta(30)]
        assert found.value == pytest.approx(np.mean(part) / np.std(part, ddof=1) * math.sqrt(252), rel=1e-6)
        assert found.action == ("none" if found.value > 0.5 else "demote")
        seen.add(found.action)
    assert seen == {"none", "demote"}


@pytest.mark.parametrize(("target", "action"), [(0.5, "demote"), (0.5001, "none"), (0.4999, "demote")])
def test_a_ratio_of_one_half_is_not_above_it(target: float, action: str) -> None:
    swing = np.tile([0.01, -0.01], 30)
    closes = [mark.time for mark in lived(swing).marks[1:]]
    count = sum(close > closes[-1] - timedelta(30) for close in closes)
    part = swing[-count:] - swing[-count:].mean()
    live = lived(np.r_[swing[:-count], part + target / math.sqrt(252) * np.std(part, ddof=1)])
    assert monitors.rolling_sharpe(live, GATES, end(live)).action == action


@pytest.mark.parametrize(
    ("loss", "action"), [(0.05, "halt"), (0.0499, "none"), (0.0501, "halt"), (1.5, "halt"), (0.0, "none")]
)
def test_five_percent_in_a_day_halts(loss: float, action: str) -> None:
    live = lived([0.01, -loss])
    assert monitors.daily_loss(live, GUARDIAN, end(live)).action == action
    assert monitors.deepest_day(live, GUARDIAN, end(live)).action == action


def test_the_loss_is_that_of_the_worst_mark_since_the_day_before() -> None:
    rng = np.random.default_rng(2)
    marks, before, worth = [Mark(START, 1e5)], 1e5, 1e5
    first = True
    for day in NYSE.sessions(START.date(), date(2026, 4, 10)).tolist():
        opens, closes = NYSE.open_close(day)
        low = math.inf
        for n in range(1, 14):
            worth *= 1.0 + rng.normal(0.0, 0.012)
            low = min(low, worth)
            now = opens + (closes - opens) * n / 13
            marks.append(Mark(now, worth))
            live = History(
                strategy="S", stage="micro", certificate="c", calendar="XNYS", began=START, marks=tuple(marks)
            )
            found = monitors.daily_loss(live, GUARDIAN, now)
            expected = max(0.0, 1.0 - low / before)
            assert found.value == pytest.approx(expected, abs=1e-8) and found.action == (
                "halt" if expected >= 0.05 else "none"
            )
            first = first and found.action == "none"
        before = worth
    assert not first  # it did happen


def test_every_hole_fails() -> None:
    returns = np.tile([0.006, -0.003], 20)
    live = lived(returns)
    for gone in range(1, len(live.marks)):
        holed = replace(live, marks=live.marks[:gone] + live.marks[gone + 1 :])
        now = end(live)
        inside = live.marks[gone].time > now - timedelta(30)
        assert monitors.rolling_sharpe(holed, GATES, now).action == ("demote" if inside else "none")
        assert monitors.against_paper(holed, PAPER, GATES, now).action == "halt"
        assert monitors.deepest_day(holed, GUARDIAN, now).action == "halt"
    assert monitors.daily_loss(replace(live, marks=()), GUARDIAN, end(live)).action == "halt"
    assert monitors.logged(replace(live, told=1), end(live)).action == "halt"


@pytest.mark.parametrize(
    ("monitor", "days"),
    [
        (lambda then, now: monitors.regime_review(then, GATES, now), 92),
        (lambda then, now: monitors.slippage(PAPER, monitors.Slippage(1.0, 5, 0.6), then, GATES, now), 31),
        (lambda then, now: monitors.cointegration(0.01, then, GATES, Monitors(), now), 60),
    ],
)
def test_what_is_overdue_has_failed(monitor: Any, days: int) -> None:
    last = monitor(START, START + timedelta(days))
    late = monitor(START, START + timedelta(days, seconds=1))
    assert last.passed and last.due == START + timedelta(days) and late.action == "demote"


def pair(seed: int, tied: bool = True, count: int = 500) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.01, count))
    other = walk + rng.normal(0, 0.01, count) if tied else np.cumsum(rng.normal(0, 0.01, count))
    return np.exp(walk), np.exp(other)


def test_pairs_that_came_apart_are_found() -> None:
    tied = [monitors.cointegrated(*pair(seed)) for seed in range(10)]
    loose = [monitors.cointegrated(*pair(seed, tied=False)) for seed in range(10)]
    assert max(tied) < 0.01 and sum(p > 0.05 for p in loose) >= 8
    one, other = pair(1)
    for wrong in (
        (one[:20], other[:20]),
        (one, np.full(500, 2.0)),
        (one, -other),
        (np.r_[one[:-1], np.nan], other),
        ((), ()),
    ):
        assert math.isnan(monitors.cointegrated(*wrong))


def test_slippage_is_judged_by_the_multiple_the_gate_survived() -> None:
    fills = tuple(fill(8.0, modelled_bps=4.0, time=START + timedelta(day)) for day in range(40))
    month = monitors.slipped(
        lived([0.0], fills=fills), START, START + timedelta(31), lambda each: float(len(each))
    )
    assert month == monitors.Slippage(
        pytest.approx(3.0), 31, 31.0
    )  # the fill at the very beginning belongs to the month before
    for ratio, action in ((3.0, "none"), (3.001, "demote"), (math.nan, "demote")):
        found = monitors.slippage(PAPER, monitors.Slippage(ratio, 5, 0.8), START, GATES, START)
        assert found.action == action and "-p impact_root=0.800" in found.note
    assert (
        monitors.slippage(PAPER, monitors.Slippage(math.nan, 0, math.nan), START, GATES, START).action
        == "warn"
    )
    unknown = monitors.slipped(
        lived([0.0], fills=(fill(1.0),)), START - timedelta(1), START, lambda _: math.nan
    )
    assert math.isnan(unknown.ratio)


@pytest.mark.parametrize(("noise", "action"), [(0.001, "warn"), (0.05, "none")])
def test_company_is_told_of(noise: float, action: str) -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(0, 0.01, 60)
    live, other = lived(base), replace(lived(base + rng.normal(0, noise, 60)), strategy="Other")
    assert monitors.correlation(live, [other], GATES, Monitors(), end(live)).action == action
    short = replace(lived(base[:10]), strategy="Other")
    assert monitors.correlation(live, [short], GATES, Monitors(), end(live)).action == "warn"


def test_watch_asks_everything_of_a_stage_and_the_worst_decides() -> None:
    live = lived(np.tile([0.006, -0.003], 20), fills=(fill(31.0, modelled_bps=10.0),), told=1)
    found = monitors.watch(live, end(live), paper=PAPER, **TERMS)
    assert [f.gate for f in found] == [
        "G33",
        "GT-11",
        "GT-12",
        "GT-14",
        "GT-15",
        "GT-16",
        "GT-18",
        "GT-19",
        "GT-20",
    ]
    assert monitors.worst(found).gate in ("G33", "GT-19")  # type: ignore[union-attr]
    assert all(f.due > end(live) for f in found if f.gate not in ("GT-19",))
    assert {f.gate for f in monitors.watch(replace(live, stage="paper"), end(live), **TERMS)} == {
        "GT-09",
        "GT-12",
        "GT-16",
        "GT-20",
    }
    dead = monitors.watch(replace(live, marks=()), end(live), paper=PAPER, **TERMS)
    assert monitors.worst(dead).action == "halt"  # type: ignore[union-attr]


@given(st.lists(st.floats(-0.04, 0.04), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_history_survives_its_record(returns: list[float]) -> None:
    live = lived(returns)
    again = History.from_record(live.as_record())
    assert again == live and again.hash == live.hash


# ---- promotion --------------------------------------------------------------------------------------------

MADE: dict[str, list[tuple[str, float, Any, float]]] = {
    "walk_forward": [("out-of-sample windows", 3.0, "at least", 3.0), ("Sharpe ratio, window 1", 2.4, "above", 1.0), ("Sharpe ratio, window 2", 1.4, "above", 1.0)],
    "permutation": [("shuffled markets as good (p)", 0.001, "at most", 0.05), ("bars that can move", 0.99, "at least", 0.5)],
    "cost_stress": [("return at 3 times the costs", 0.17, "above", 0.0)],
    "multiplicity": [("deflated Sharpe ratio", 0.99, "at least", 0.95)],
    "leakage": [("moments at which a cut changes decisions", 0.0, "at most", 0.0)],
    "eras": [("return without the best year", 3.3, "above", 0.0)],
    "holdout": [("Sharpe ratio, holdout", 1.99, "above", 1.0), ("max drawdown, holdout", 0.08, "below", 0.2), ("part of history that was sealed", 0.2, "at least", 0.2)],
}  # fmt: skip
CHOSEN = {"rise": 17, "shift": 3}


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.of("KnownDrift", None, standing.AS_OF)


@pytest.fixture
def desk(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An empty desk; the holdout is not computed again (one test does)."""
    monkeypatch.setattr(promote, "recomputed", lambda *_: None)
    paths = replace(
        load().paths, lake=tmp_path / "lake", journals=tmp_path / "journals", reports=tmp_path / "reports"
    )
    return Desk(replace(load(), paths=paths), tmp_path / "lake", clock=SimClock(NOW), key=keys)


def judge(
    desk: Desk,
    study: Study,
    *,
    opened: Verdict | None = None,
    without: str = "",
    packages: Any = None,
    thresholds: Gates = GATES,
    inputs: Any = None,
    **changed: Any,
) -> None:
    """Evidence as the gates write it; `changed` are first values by gate."""
    desk.clock.sleep(1.0)
    rests = {**rests_on(study, thresholds, 0), **(inputs or {})}
    figures = {"holdout": {"lineage": certificates.lineage_of(KnownDrift), "window": {"parameters": CHOSEN}}}
    verdicts = [
        Verdict(gate, tuple(Check(n, changed.get(gate, v) if not k else v, s, to) for k, (n, v, s, to) in enumerate(checks)), "It holds.", "All else.", rests, figures.get(gate, {}))
        for gate, checks in MADE.items()
        if gate != without
    ]  # fmt: skip
    verdicts = [opened if opened and each.gate == "holdout" else each for each in verdicts]
    held = {name: rests[name] for name in study.inputs}
    found = evidence(
        held,
        rests["settings"],
        verdicts,
        missing=[without] if without else [],
        trials={},
        packages=packages or environment(),
    )
    place = desk.folder("KnownDrift") / "evidence.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(canonical(found) + "\n")
    anchor(found, desk.settings.paths.journals / "evidence.journal", again=True, clock=desk.clock)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def session(
    desk: Desk, stage: str, *, sessions: int = 13, cost: float = 10.0, mean: float = 0.0015, seed: int = 5
) -> History:
    """A recorded session that began now, and time moves on to its end."""
    held = standing.status(desk, "KnownDrift")
    returns = np.random.default_rng(seed).normal(mean, 0.004, sessions)
    made = lived(
        returns,
        stage,
        began=desk.clock.now(),
        certificate=held.certificate.hash if held.certificate else "none",
        told=1,
    )
    made = replace(made, fills=(fill(cost, time=end(made), modelled_bps=10.0),))
    desk.clock.sleep((end(made) - desk.clock.now()).total_seconds())
    standing.keep(desk, made)
    return made


def up(desk: Desk, to: str, **more: Any) -> standing.Status:
    return promote.promote(desk, "KnownDrift", to, who="Ada", why="because", **more)


def in_paper(desk: Desk, study: Study) -> standing.Status:
    judge(desk, study)
    return up(desk, "paper")


def in_micro(desk: Desk, study: Study) -> standing.Status:
    in_paper(desk, study)
    session(desk, "paper")
    return up(desk, "micro")


def test_paper_gives_a_certificate_for_what_was_judged(desk: Desk, study: Study, keys: Path) -> None:
    held = in_paper(desk, study)
    made = held.certificate
    assert made is not None and held.stage == "paper"
    assert certificates.read(desk.folder("KnownDrift") / "certificate.json") == made
    assert dict(made.parameters) == {**KnownDrift().values(), **CHOSEN} and made.capital_fraction == 1.0
    assert made.expires == desk.clock.now() + timedelta(GATES.max_paper_days)
    limits = lists.limits_of(desk, study, "paper", made.capital_ccy)
    public, gone = certificates.public_key(keys), standing.revoked(desk.journal)
    traded = {**KnownDrift().values(), **CHOSEN}
    certificates.check(made, KnownDrift, traded, limits, "paper", desk.clock.now(), public, gone)
    assert (
        code_of(
            lambda: certificates.check(
                made, KnownDrift, KnownDrift().values(), limits, "paper", desk.clock.now(), public, gone
            )
        )
        == "QB-CRT-004"
    )


@pytest.mark.parametrize("gate", list(MADE))
def test_each_gate_is_needed(gate: str, desk: Desk, study: Study) -> None:
    bad = {"at most": 9.0, "below": 9.0}.get(MADE[gate][0][2], -9.0)
    for terms in ({"without": gate}, {gate: bad}, {gate: math.nan}):
        judge(desk, study, **terms)
        before = everything(desk.settings.paths.reports.parent)
        listed = lists.checklist(desk, "KnownDrift", "paper")
        (item,) = (item for item in listed.missing if item.what.startswith(gate))
        found = math.isfinite(terms.get(gate, math.nan))  # what was found would be found again
        assert item.command == ("" if found else f"qb gate {gate} -s KnownDrift")
        assert code_of(lambda: up(desk, "paper")) == "QB-PRO-002"
        assert everything(desk.settings.paths.reports.parent) == before


def test_every_failed_check_of_a_gate_is_listed(
    desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = [(n, 0.1 if n == "bars that can move" else v, s, to) for n, v, s, to in MADE["permutation"]]
    monkeypatch.setitem(MADE, "permutation", worse)
    judge(desk, study)
    assert [item.what for item in lists.checklist(desk, "KnownDrift", "paper").missing] == [
        "permutation: bars that can move"
    ]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"inputs": {"code": "0" * 16}}, "code, data"), ({"inputs": {"data": "0" * 16}}, "code, data"), ({"inputs": {"parameters": "0" * 16}}, "code, data"),
        ({"inputs": {"account": "0" * 16}}, "code, data"), ({"thresholds": Gates(min_windows_count=4)}, "thresholds"), ({"packages": {"python": "3"}}, "packages"),
    ],
)  # fmt: skip
def test_evidence_of_something_else_is_no_evidence(
    terms: dict[str, Any], said: str, desk: Desk, study: Study
) -> None:
    judge(desk, study, **terms)
    (item,) = lists.checklist(desk, "KnownDrift", "paper").missing
    assert item.what.startswith(said) and item.command == "qb gate all -s KnownDrift"


def test_edited_or_unanchored_evidence_is_no_evidence(desk: Desk, study: Study) -> None:
    judge(desk, study, permutation=0.2)
    place = desk.folder("KnownDrift") / "evidence.json"
    place.write_text(place.read_text().replace('"value":0.2', '"value":0.1'))
    assert [item.what for item in lists.checklist(desk, "KnownDrift", "paper").missing] == [
        "what the gates wrote"
    ]
    judge(desk, study)
    (desk.settings.paths.journals / "evidence.journal").unlink()
    assert [item.what for item in lists.checklist(desk, "KnownDrift", "paper").missing] == [
        "what the gates wrote"
    ]


def test_evidence_ages(desk: Desk, study: Study) -> None:
    judge(desk, study)
    quarter = GATES.regime_review_days * 86_400.0
    desk.clock.sleep(quarter)
    assert lists.checklist(desk, "KnownDrift", "paper").ready
    desk.clock.sleep(1.0)
    (item,) = lists.checklist(desk, "KnownDrift", "paper").missing
    assert item.id == "GT-18" and item.command.endswith("--again")


def test_without_a_key_nobody_signs(desk: Desk, study: Study, tmp_path: Path) -> None:
    judge(desk, study)
    (item,) = lists.checklist(replace(desk, key=tmp_path / "none"), "KnownDrift", "paper").missing
    assert item.command == "qb promote key"


ALLOWED = {
    ("research", "paper"), ("paper", "paper"), ("paper", "micro"), ("micro", "micro"), ("micro", "scale"), ("scale", "scale"),
    ("paper", "research"), ("micro", "paper"), ("scale", "micro"), ("halted", "research"), ("halted", "retired"),
    *((stage, to) for stage in ("research", "paper", "micro", "scale") for to in ("halted", "retired")),
}  # fmt: skip


def test_no_stage_is_skipped() -> None:
    pairs = {
        (a, b) for a in standing.STATES for b in standing.STATES if b in (*standing.UP[a], *standing.DOWN[a])
    }
    assert pairs == ALLOWED


@pytest.mark.parametrize("to", standing.STATES)
def test_only_paper_follows_research(to: str, desk: Desk, study: Study) -> None:
    judge(desk, study)
    assert code_of(lambda: up(desk, to)) == ("" if to == "paper" else "QB-PRO-001")


@pytest.mark.parametrize("words", [{"who": ""}, {"why": " "}, {"why": "a\nb"}, {"who": "x" * 2000}])
def test_somebody_says_why(words: dict[str, str], desk: Desk, study: Study) -> None:
    judge(desk, study)
    said = {"who": "Ada", "why": "because", **words}
    assert code_of(lambda: promote.promote(desk, "KnownDrift", "paper", **said)) == "QB-PRO-004"
    assert code_of(lambda: standing.step(desk, "KnownDrift", "halted", **said)) == "QB-PRO-004"
    assert not desk.journal.exists()


def test_a_decision_made_meanwhile_wins(desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(desk, study)
    monkeypatch.setattr(
        promote, "recomputed", lambda *_: standing.step(desk, "KnownDrift", "halted", who="Bob", why="stop")
    )
    assert code_of(lambda: up(desk, "paper")) == "QB-PRO-005"
    assert standing.status(desk, "KnownDrift").stage == "halted"


def test_the_journal_counts_and_the_file_is_a_copy(
    desk: Desk, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(desk, study)

    def full(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "write", full)
        with pytest.raises(OSError, match="full"):
            up(desk, "paper")
    place = desk.folder("KnownDrift") / "certificate.json"
    assert not place.exists() and standing.status(desk, "KnownDrift").stage == "paper"
    assert certificates.read(place) if standing.restored(desk, "KnownDrift") else None


@pytest.mark.parametrize(
    ("terms", "number"),
    [
        ({"sessions": 9}, "GT-08"), ({"sessions": 22}, "GT-08"), ({"cost": 30.1}, "GT-09"), ({"mean": -0.052}, "GT-16"),
    ],
)  # fmt: skip
def test_paper_must_last_and_cost_what_was_planned(
    terms: dict[str, Any], number: str, desk: Desk, study: Study
) -> None:
    in_paper(desk, study)
    session(desk, "paper", **terms)
    listed = lists.checklist(desk, "KnownDrift", "micro")
    assert {item.id for item in listed.missing} == {number}
    assert code_of(lambda: up(desk, "micro")) == "QB-PRO-002"


def test_days_of_paper_at_the_boundary(desk: Desk, study: Study) -> None:
    in_paper(desk, study)
    made = session(desk, "paper", sessions=13)
    for days, passed in ((14, True), (28, True), (13.999, False), (28.001, False)):
        last = Mark(made.began + timedelta(days), 1e5)
        standing.keep(desk, replace(made, marks=(made.marks[0], last), fills=()))
        items = [i for i in lists.checklist(desk, "KnownDrift", "micro").items if i.id == "GT-08"]
        assert all(i.passed for i in items) is passed


def test_the_record_of_a_session_must_be_the_one_that_was_kept(desk: Desk, study: Study) -> None:
    held = in_paper(desk, study)
    made = session(desk, "paper")
    place = desk.folder("KnownDrift") / "paper.history.json"
    text = place.read_text()
    for changed in (text.replace("100000", "100001", 1), text[:-1], "{}", ""):
        place.write_text(changed)
        assert code_of(lambda: standing.recall(desk, "KnownDrift", "paper")) == "QB-PRO-006"
        assert "PR-02" in {item.id for item in lists.checklist(desk, "KnownDrift", "micro").missing}
    standing.keep(desk, replace(made, certificate="d" * 64))  # of another version
    assert "G29" in {item.id for item in lists.checklist(desk, "KnownDrift", "micro").missing}
    standing.keep(desk, made)
    assert lists.checklist(desk, "KnownDrift", "micro").ready and held.certificate is not None


def test_the_way_up_doubles_at_most(desk: Desk, study: Study) -> None:
    first = in_micro(desk, study)
    assert first.certificate is not None and first.certificate.capital_fraction == 0.1
    guardian = desk.settings.guardian
    sums = {"max_order_ccy": 1_000.0, "max_position_ccy": 5_000.0}  # a tenth, as the capital
    assert first.certificate.limits == Limits.of(guardian, 10_000.0).tightened(**sums).hash
    parts = []
    for _ in range(4):
        session(desk, standing.status(desk, "KnownDrift").stage, sessions=25, seed=15, mean=0.0012)
        standing.review(
            desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=1.2, fills=5, root=None
        )
        judge(desk, study)  # a quarter has passed meanwhile
        standing.review(desk, "KnownDrift", "regimes", who="Ada", why="quarterly")
        assert code_of(lambda: up(desk, "scale", fraction=0.9 if parts != [0.25, 0.5] else 1.1)) in (
            "QB-PRO-002",
            "QB-CRT-008",
        )
        held = up(desk, "scale")
        assert held.certificate is not None
        parts.append(held.certificate.capital_fraction)
        capital = 100_000.0 * held.certificate.capital_fraction
        assert held.certificate.limits == Limits.of(guardian, capital).tightened(max_order_ccy=10_000.0).hash
        if len(parts) == 3:
            break
    assert parts == [0.25, 0.5, 1.0]
    assert len(standing.revoked(desk.journal)) == 4  # each replaced the one before


@pytest.mark.parametrize(
    ("terms", "stage"), [({"cost": 31.0}, "paper"), ({"mean": -0.06}, "halted"), ({"cost": 30.0}, "micro")]
)
def test_monitors_take_it_down_and_revoke(
    terms: dict[str, Any], stage: str, desk: Desk, study: Study, keys: Path
) -> None:
    held = in_micro(desk, study)
    assert held.certificate is not None
    session(desk, "micro", sessions=3, **terms)
    after = standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift"))
    assert after.stage == stage
    gone = standing.revoked(desk.journal)
    code = code_of(
        lambda: certificates.valid(
            held.certificate, "micro", desk.clock.now(), certificates.public_key(keys), gone
        )
    )
    assert code == ("" if stage == "micro" else "QB-CRT-006")
    assert (desk.folder("KnownDrift") / "certificate.json").exists() is (stage == "micro")
    if stage != "micro":
        last = after.steps[-1].payload
        assert last["automatic"] is True and last["who"] == "monitors" and last["evidence"]


REVOKE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from quantbench.core.clock import SimClock
from quantbench.core.journal import Journal
with Journal.open(sys.argv[1], clock=SimClock(datetime(2026, 11, 26, tzinfo=UTC))) as journal:
    journal.append(*{"revoke": ("revocation", {"strategy": "KnownDrift", "certificate": sys.argv[3], "who": "a", "why": "b"}), "other": ("review", {"strategy": "Else", "what": "regimes"})}[sys.argv[2]])
"""


def test_guardian_is_told_by_the_next_order(desk: Desk, study: Study, keys: Path) -> None:
    held = in_paper(desk, study)
    made = held.certificate
    assert made is not None
    traded = KnownDrift(**CHOSEN)
    limits = lists.limits_of(desk, study, "paper", made.capital_ccy)
    public = certificates.public_key(keys)
    licence = standing.Licence(desk, "KnownDrift", traded, limits, public)
    stage = licence()
    assert stage is not None
    found = control.staged(stage, Mode.PAPER, "KnownDrift", desk.clock.now(), 10.0, 100.0)
    assert (
        found.ok
        and control.evidenced(stage, Mode.PAPER).ok
        and not control.staged(stage, Mode.LIVE, "KnownDrift", desk.clock.now(), 10.0, 100.0).ok
    )
    for word, stands in (("other", True), ("revoke", False)):
        command = [sys.executable, "-c", REVOKE, str(desk.journal), word, made.hash]
        subprocess.run(command, check=True)
        assert (licence() is not None) is stands
    with pytest.raises(QuantbenchError):
        standing.Licence(desk, "KnownDrift", traded, limits, public)


@pytest.mark.parametrize("change", ["expiry", "journal", "renewal"])
def test_a_licence_ends(change: str, desk: Desk, study: Study, keys: Path) -> None:
    made = in_paper(desk, study).certificate
    assert made is not None
    limits = lists.limits_of(desk, study, "paper", made.capital_ccy)
    terms = (desk, "KnownDrift", KnownDrift(**CHOSEN), limits, certificates.public_key(keys))
    licence = standing.Licence(*terms)
    assert licence() is not None
    if change == "expiry":
        desk.clock.sleep(28 * 86_400.0)
    elif change == "journal":
        desk.journal.unlink()
    else:
        up(desk, "paper")  # another certificate took its place
        assert standing.Licence(*terms)() is not None
    assert licence() is None
    wrong = (desk, "KnownDrift", KnownDrift(), limits, certificates.public_key(keys))
    assert code_of(lambda: standing.Licence(*wrong)) in ("QB-CRT-004", "QB-CRT-005", "QB-CRT-006")


def test_a_session_without_a_record_is_not_watched_away(desk: Desk, study: Study) -> None:
    in_micro(desk, study)
    assert code_of(lambda: standing.look(desk, "KnownDrift")) == "QB-PRO-006"
    held = standing.status(desk, "KnownDrift")
    assert held.certificate is not None and held.since is not None
    empty = History(
        strategy="KnownDrift",
        stage="micro",
        certificate=held.certificate.hash,
        calendar="XNYS",
        began=held.since,
        marks=(),
    )
    standing.keep(desk, empty)
    assert standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift")).stage == "halted"


def test_an_earlier_session_says_nothing_of_this_one(desk: Desk, study: Study) -> None:
    in_micro(desk, study)
    session(desk, "micro", sessions=3, cost=31.0)
    assert standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift")).stage == "paper"
    assert standing.look(desk, "KnownDrift") == ()  # without a certificate nothing can trade
    up(desk, "paper")
    assert code_of(lambda: standing.look(desk, "KnownDrift")) == "QB-PRO-006"
    session(desk, "paper")
    up(desk, "micro")
    assert (
        code_of(lambda: standing.look(desk, "KnownDrift")) == "QB-PRO-006"
    )  # the dear fills were another certificate's
    session(desk, "micro", sessions=3)
    assert standing.act(desk, "KnownDrift", standing.look(desk, "KnownDrift")).stage == "micro"


def test_what_was_measured_is_fed_back(desk: Desk, study: Study) -> None:
    judge(desk, study)
    standing.review(desk, "KnownDrift", "slippage", who="Ada", why="monthly", ratio=2.0, fills=9, root=0.82)
    (item,) = lists.checklist(desk, "KnownDrift", "paper").missing
    assert item.id == "GT-19" and item.command == "qb gate cost_stress -s KnownDrift -p impact_root=0.820"
    judge(desk, study, inputs={"impact_root": "0.82"})
    assert lists.checklist(desk, "KnownDrift", "paper").ready


def test_slippage_is_reviewed_once_a_month(desk: Desk, study: Study) -> None:
    in_micro(desk, study)
    made = session(desk, "micro", sessions=3)
    more = tuple(
        replace(made.fills[0], volatility=0.02, of_volume=0.001 * n, time=made.began + timedelta(n))
        for n in range(1, 61)
    )
    promote.renew(desk, "KnownDrift")
    count = lambda: sum(r.kind == "review" for r in desk.records())  # noqa: E731
    first = standing.reviews(desk, "KnownDrift")["slippage"]
    assert (
        count() == 1 and first.payload["fills"] == 1 and first.payload["root"] is None
    )  # one fill shows no coefficient
    standing.keep(desk, replace(made, fills=(*made.fills, *more), told=61))
    desk.clock.sleep(30 * 86_400.0 - 1.0)
    promote.renew(desk, "KnownDrift")
    assert count() == 1
    desk.clock.sleep(1.0)
    promote.renew(desk, "KnownDrift")
    second = standing.reviews(desk, "KnownDrift")["slippage"]
    assert count() == 2 and second.payload["fills"] == sum(
        first.time < f.time <= desk.clock.now() for f in more
    )
    assert second.payload["root"] is not None


def test_a_pair_is_tested_on_closes_of_its_own_time() -> None:
    one, other = pair(1)
    rows = np.zeros(1000, dtype=[("kind", "i8"), ("asset", "i8"), ("known", "i8"), ("close", "f8")])
    rows["kind"], rows["asset"], rows["known"] = (
        1,
        np.tile([0, 1], 500),
        np.repeat(np.arange(500), 2) * 86_400 * 10**9,
    )
    rows["close"] = np.stack([one, other], axis=1).ravel()
    tape = SimpleNamespace(
        events=np.delete(rows, 7)
    )  # one close of one asset is missing: that day is left out
    tape.load = lambda: tape
    fake: Any = SimpleNamespace(tape=tape)
    last = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(499)
    kept = np.arange(500) != 3
    assert promote._unrelated(fake, last) == monitors.cointegrated(one[kept], other[kept]) < 0.05
    assert math.isnan(promote._unrelated(fake, last + timedelta(seconds=1)))


def test_a_new_name_does_not_help(desk: Desk, study: Study) -> None:
    in_paper(desk, study)
    standing.step(desk, "KnownDrift", "halted", who="Ada", why="stop")

    class Fresh(KnownDrift):
        "The same, under a new name."

    fresh = Study(Fresh(), study.tape, {}, study.search, "TIDE")
    record = {"verdicts": [{"gate": "holdout", "figures": {"lineage": certificates.lineage_of(KnownDrift)}}]}
    items = list(lists._family(desk, fresh, record))
    assert [item.passed for item in items] == [True, False] and "KnownDrift is halted" in items[1].value
    standing.step(desk, "KnownDrift", "research", who="Ada", why="understood")
    assert all(item.passed for item in lists._family(desk, fresh, record))


def test_the_holdout_is_computed_again_and_must_agree(tmp_path: Path, study: Study, keys: Path) -> None:
    paths = replace(
        load().paths, lake=tmp_path / "lake", journals=tmp_path / "journals", reports=tmp_path / "reports"
    )
    here = Desk(replace(load(), paths=paths), tmp_path / "lake", clock=SimClock(NOW), key=keys)
    judge(here, study)  # its holdout verdict was made up
    assert code_of(lambda: up(here, "paper")) == "QB-PRO-003"
    assert not here.journal.exists()


def test_a_sealed_project_is_opened_once_and_computed_again(tmp_path: Path, keys: Path) -> None:
    project = rehearsal(tmp_path / "tide", GATES)
    paths = replace(
        load().paths, lake=project.root, journals=tmp_path / "journals", reports=tmp_path / "reports"
    )
    here = Desk(replace(load(), paths=paths), project.root, clock=SimClock(NOW), key=keys)
    study = standing.study_of(here, "KnownDrift")
    opened = holdout(study, GATES, project=project, as_of=here.as_of)
    judge(here, study, opened=opened)
    made = up(here, "paper").certificate
    kinds = [record.kind for record in read(project.root / "journal")]
    assert kinds.count("holdout_read") == kinds.count("holdout_again") == 1
    assert (
        made is not None
        and made.lineage == opened.figures["lineage"]
        and set(made.anchors) == {"evidence", "holdout"}
    )
    assert {**study.strategy.values(), **opened.figures["window"]["parameters"]} == dict(made.parameters)  # type: ignore[call-overload, index, dict-item]
    file = project.root / "sealed" / "bars"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert code_of(lambda: up(here, "paper")) == "QB-SEAL-003"
    assert standing.status(here, "KnownDrift").certificate == made


# ---- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path, keys: Path) -> Path:
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QB_SIGNING_KEY", str(keys))
    return tmp_path


def qb(*words: str) -> int:
    return terminal.run(cli.qb, ["promote", *words])


def test_the_command_ends_as_the_checklist_says(
    place: Path, desk: Desk, study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "WallClock", lambda: desk.clock)
    assert qb("KnownDrift", "--to", "paper", "--dry-run") == 1
    assert "qb gate all -s KnownDrift" in capsys.readouterr().out
    assert qb("KnownDrift", "--to", "paper", "--who", "Ada", "--why", "x") == 1 and not desk.journal.exists()
    judge(desk, study)
    before = everything(place)
    assert qb("KnownDrift", "--to", "paper", "--dry-run") == 0 and everything(place) == before
    assert qb("KnownDrift", "--to", "paper") == 2 and everything(place) == before  # nobody signed
    assert (
        qb("KnownDrift", "--to", "micro", "--who", "Ada", "--why", "x") == 2 and everything(place) == before
    )
    assert qb("KnownDrift", "--to", "paper", "--who", "Ada", "--why", "x") == 0
    capsys.readouterr()
    assert qb("status", "KnownDrift", "--json") == 0 and '"stage": "paper"' in capsys.readouterr().out
    session(desk, "paper", cost=31.0)
    assert qb("watch", "KnownDrift") == 1 and "mean shortfall" in capsys.readouterr().out
    assert standing.status(desk, "KnownDrift").stage == "research"
    assert qb("KnownDrift", "--to", "halted", "--who", "Ada", "--why", "enough") == 0
    assert standing.status(desk, "KnownDrift").stage == "halted"


@pytest.mark.parametrize(
    "words",
    [
        ("KnownDrif", "--to", "paper"),
        ("KnownDrift",),
        ("KnownDrift", "--to", "live"),
        ("status",),
        ("KnownDrift", "--to", "paper", "--fraction", "2"),
    ],
)
def test_wrong_use_ends_with_2(words: tuple[str, ...], place: Path) -> None:
    assert qb(*words) == 2
    assert not (place / "journals").exists()
