"""How long a kill takes with a thousand open orders: from the word to the moment at which the venue has none.

    python benchmarks/kill.py [rounds]

A gateway and a sidecar as processes of their own, a venue in this one behind a socket. By the socket the gateway cancels (its own "all", a thousand client ids, the list); by the kill file with the gateway stopped (SIGSTOP) the sidecar does.
A send after the record of the kill would be printed, and the figure is of no use then.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from test_gateway import Desk, until

ORDERS = 1_000


def once(*, stopped: bool) -> tuple[float, float, int]:
    "Seconds until nothing is open, seconds until the caller has his answer, sends after the kill."
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        try:
            process = desk.up()
            desk.beside()
            desk.place(ORDERS)
            assert len(desk.venue.open) == ORDERS
            sent = len(desk.venue.sends())
            if stopped:
                os.kill(process.pid, signal.SIGSTOP)
            begun = time.perf_counter()
            if stopped:
                (desk.home.folder / "KILL").touch()
                until(lambda: not desk.venue.open, "orders are left")
                answered = time.perf_counter()
            else:
                with desk.client() as client:
                    assert client.kill("Ann Lee", "benchmark")["quiet"]
                answered = time.perf_counter()
            cancels = [when for when, call, _ in desk.venue.calls if call in ("cancel", "cancel_all")]
            first = cancels[0] - (time.monotonic() - time.perf_counter()) - begun
            return first, answered - begun, len(desk.venue.sends()) - sent
        finally:
            desk.close()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for name, stopped in (
        ("by the socket, the gateway cancels", False),
        ("by the kill file, gateway stopped", True),
    ):
        found = [once(stopped=stopped) for _ in range(rounds)]
        first, whole = (sorted(column) for column in list(zip(*found, strict=True))[:2])
        after = sum(sends for *_, sends in found)
        print(
            f"{name}: {ORDERS} open, first cancel after {1e3 * statistics.median(first):.0f} ms, all gone after "
            f"{statistics.median(whole):.3f} s (worst of {rounds}: {whole[-1]:.3f} s), {after} sends after the record"
        )


if __name__ == "__main__":
    main()
