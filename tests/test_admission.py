"""What may start: a certificate for exactly this code, these parameters, now, by this key; and nobody who was stopped and not looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quantbench.core.check import QuantbenchError
from quantbench.core.clock import SimClock
from quantbench.core.config import load
from quantbench.core.journal import read
from quantbench.engine.guardian import Limits
from quantbench.engine.strategy import Strategy, param
from quantbench.engine.study import Study
from quantbench.execution.floor import Floor
from quantbench.ops.certificate import issue, make_key, write
from quantbench.ops.evidence import environment
from quantbench.ops.gateway import admitted
from quantbench.ops.replay import require_seen
from quantbench.ops.standing import UP, Desk, entered, step
from quantbench.strategies.drift import KnownDrift

NOW = datetime(2026, 11, 25, 15, tzinfo=UTC)


class Place:
    """A project with a key, where certificates can be made without a gate."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.key, self.file = (
            SimClock(NOW),
            folder / "keys" / "signing.key",
            folder / "certificate.json",
        )
        make_key(self.key)
        paths = replace(
            load().paths, lake=folder / "lake", journals=folder / "journals", reports=folder / "reports"
        )
        self.settings = replace(load(), paths=paths)
        self.study = Study.of("KnownDrift", None, "2026-11-01")

    def certify(
        self, strategy: type[Strategy] = KnownDrift, key: Path | None = None, **changed: object
    ) -> str:
        interval = self.study.tape.interval
        given = {
            "parameters": self.study.strategy.values(), "limits": Limits.research(100_000.0, interval.length), "stage": "paper",
            "capital": 100_000.0, "fraction": 1.0, "issued": NOW - timedelta(days=1), "expires": NOW + timedelta(days=14), "anchors": {},
        }  # fmt: skip
        verdicts = [{"gate": "walk_forward", "hash": "0" * 64}]
        evidence = {
            "study": {"data": "0" * 16},
            "environment": environment(),
            "hash": "1" * 64,
            "verdicts": verdicts,
        }
        made = issue(strategy, evidence, key or self.key, **{**given, **changed})
        write(made, self.file)
        desk = Desk(self.settings, self.settings.paths.lake, clock=self.clock, key=self.key)
        entered(desk, "KnownDrift", "paper", UP, who="Ann Lee", why="a test", certificate=made)
        return made.hash

    def start(self) -> Study:
        return admitted(
            self.settings, "KnownDrift", clock=self.clock, certificate=str(self.file), key=self.key
        )[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def named_alike() -> type[Strategy]:
    """KnownDrift, but for one character."""

    class KnownDrift(Strategy):
        cycle: int = param(28, low=2, high=366)
        shift: int = param(0, low=-366, high=366)
        rise: int = param(14, low=0, high=366)
        weight: float = param(0.5, low=0.0, high=1.0)

        def on_bar(self, bar, market):
            tomorrow = (bar.known // 86_400_000_000_000 + 2 + self.shift) % self.cycle
            side = 1.0 if tomorrow < self.rise else -1.0
            if side * market.position(bar.asset) <= 0.0:
                market.target_weight(bar.asset, side * self.weight)

    return KnownDrift


def test_with_its_certificate_it_starts_with_the_certificates_parameters(place):
    place.certify(parameters=place.study.strategy.values() | {"shift": 3})
    assert place.start().strategy.shift == 3


def test_without_a_certificate_nothing_starts(place):
    with pytest.raises(QuantbenchError, match="QB-GTW-015"):
        admitted(place.settings, "KnownDrift", clock=place.clock, key=place.key)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"strategy": named_alike()}, "QB-CRT-004"),
        ({"expires": NOW}, "QB-CRT-005"),
        ({"issued": NOW + timedelta(seconds=1)}, "QB-CRT-005"),
        ({"limits": Limits.research(200_000.0, timedelta(days=1))}, "QB-CRT-004"),
    ],
    ids=["a character of code", "expired", "not yet", "other limits"],
)
def test_a_certificate_for_something_else_starts_nothing(place, changed, code):
    place.certify(**changed)
    with pytest.raises(QuantbenchError, match=code):
        place.start()


def test_another_key_starts_nothing(place, tmp_path):
    make_key(tmp_path / "other" / "signing.key")
    place.certify(key=tmp_path / "other" / "signing.key")
    with pytest.raises(QuantbenchError, match="QB-CRT-003"):
        place.start()


def test_a_byte_of_the_certificate_changed_starts_nothing(place):
    place.certify()
    text = place.file.read_text().replace('"capital_fraction":1.0', '"capital_fraction":0.9')
    place.file.write_text(text)
    with pytest.raises(QuantbenchError, match="QB-CRT-002"):
        place.start()


def test_a_revoked_certificate_starts_nothing(place):
    place.certify()
    place.start()
    desk = Desk(place.settings, place.settings.paths.lake, clock=place.clock, key=place.key)
    step(desk, "KnownDrift", "halted", who="Ann Lee", why="a monitor")
    with pytest.raises(QuantbenchError, match="QB-CRT-006"):
        place.start()


def test_after_a_halt_neither_a_start_nor_a_resume_before_somebody_has_looked(tmp_path):
    began: list[str] = []
    clock = SimClock(NOW)
    floor = Floor(
        tmp_path,
        clock=clock,
        begin=lambda *_, **how: began.append(how["strategy"]),
        may_resume=lambda journal: require_seen(read(journal)),
    )
    floor.halt("watchdog", "the loop has been silent")
    for ask in (lambda: floor.start(strategy="KnownDrift"), lambda: floor.resume("Ann Lee", "all is well")):
        with pytest.raises(QuantbenchError, match="QB-RPD-003"):
            ask()
    assert not began
    floor.note(
        "diff.seen",
        {"run": "knowndrift-1", "diff": "0" * 16, "first": "", "who": "Ann Lee", "why": "the feed hung"},
    )
    floor.resume("Ann Lee", "the feed was restarted")
    assert floor.kill_state.causes == ()
    floor.close()
