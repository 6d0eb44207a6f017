"""Processes for the tests of the gateway: a real gateway and a real sidecar, with a venue that lives in the test.

python tests/desks.py gateway FOLDER VENUE SILENCE SIDECAR
python tests/desks.py sidecar FOLDER VENUE SILENCE
python tests/desks.py paper FOLDER

Files in FOLDER tell the gateway what to suffer: BLOCK hangs its loop, FULL fills its disk, BURST has its session send orders as fast as it can.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from quantbench.core.clock import WallClock
from quantbench.core.journal import Disk, Journal
from quantbench.core.types import Asset, AssetClass, Venue
from quantbench.core.value import Currency
from quantbench.execution.broker import Seal
from quantbench.execution.floor import Account, Floor
from quantbench.execution.oms import Oms
from quantbench.ops import sidecar as beside
from quantbench.ops.gateway import Gateway, opened
from quantbench.ops.wire import Home
from venues.plain import Lenient, Plain

SPY = Asset(
    id="SPY",
    asset_class=AssetClass.ETF,
    venue=Venue("ARCX", "24/7"),
    currency=Currency("USD"),
    tick_size=Decimal("0.01"),
    lot_size=Decimal(1),
)


class Filling(Disk):
    """A disk that is full while a file says so."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def write(self, file: int, data: memoryview) -> int:
        if self.flag.exists():
            raise OSError(errno.ENOSPC, "no space left")
        return super().write(file, data)


class Session:
    """What a strategy does to a gateway: it sends, or it hangs."""

    name, done = "busy", False

    def __init__(self, floor: Floor, folder: Path) -> None:
        self.floor, self.folder, self.heard = floor, folder, ()

    def step(self) -> bool:
        while (self.folder / "BLOCK").exists():
            time.sleep(0.005)
        if (self.folder / "BURST").exists():
            self.floor.place("burst", symbol="SPY", side="buy", quantity="1")
            self.listen()
            return True
        return False

    def status(self) -> dict:
        return {"run": self.name}

    def listen(self) -> None:
        self.heard += self.floor.account.oms.pump()

    def changes(self) -> tuple:
        heard, self.heard = self.heard, ()
        return heard

    def abandon(self, _why: str) -> None:
        pass

    def arrival(self, _symbol: str) -> None:
        return None

    def stop(self) -> dict:
        self.floor.account.oms.cancel_all(why="the session ends")
        return {"run": self.name}


def gateway(folder: str, venue: str, silence: str, sidecar: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    home, clock, seal = Home.make(Path(folder)), WallClock(), Seal()
    floor = opened(home, lambda: Floor(home.folder, clock=clock))
    disk = Filling(home.folder / "FULL")
    floor.journal._hold.disk = disk
    journal = Journal.open(home.folder / "account.journal", clock=clock, disk=disk)
    broker = Plain(seal, clock, venue)
    oms = Oms(journal, Lenient(floor.kill_state, seal), broker, clock, run="desk", assets=(SPY,))
    floor.enter(Account("desk", (SPY,), journal, oms._guardian, oms, broker, clock))
    floor.kill_state.ready()
    floor.session = Session(floor, home.folder)

    def start() -> int:
        words = [sys.executable, __file__, "sidecar", folder, venue, silence]
        return subprocess.Popen(words, start_new_session=True).pid

    starts = start if sidecar == "yes" else None
    Gateway(home, floor, clock=clock, silence=float(silence), sidecar=starts, patience=2.0).run()


def sidecar(folder: str, venue: str, silence: str) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1})
    clock = WallClock()
    beside.run(Home.make(Path(folder)), Plain(Seal(), clock, venue), clock=clock, silence=float(silence))


def paper(folder: str) -> None:
    from mirror import mirrored

    from quantbench.core.config import load
    from quantbench.core.journal import read
    from quantbench.ops.replay import require_seen

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    home, clock = Home.make(Path(folder)), WallClock()
    begin = mirrored(load(), clock)
    look = lambda journal: require_seen(read(journal))  # noqa: E731
    floor = opened(home, lambda: Floor(home.folder, clock=clock, begin=begin, may_resume=look))
    Gateway(home, floor, clock=clock, silence=60.0).run()


if __name__ == "__main__":
    {"gateway": gateway, "sidecar": sidecar, "paper": paper}[sys.argv[1]](*sys.argv[2:])
