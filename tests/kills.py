"""Kills: a small parent, that has never used the lake itself, forks children and kills them."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child, that may be killed; the exit status as `waitpid` gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(moment: float, work: Callable[[], None]) -> bool:
    """Run in a forked child and kill it after that many seconds, counted from when it begins; was it in time?"""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, b"b")
        work()
        os.write(writer, b"e")
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    in_time = not select.select([reader], [], [], moment)[0]  # a kill after the work has ended proves nothing
    os.kill(child, signal.SIGKILL)
    os.close(reader)
    os.waitpid(child, 0)
    return in_time
