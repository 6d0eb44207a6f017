"""The journal under kills, torn tails, flipped bits, forgers, full disks, second writers and forks."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from quantbench.core.chain import FIRST, PREFIX, compose, first_line
from quantbench.core.check import QuantbenchError, refused
from quantbench.core.journal import Disk, Head, Journal, read, tail, verify

SOAK = 20 if os.environ.get("QUANTBENCH_SOAK") else 1
SEED = 20240607
START = datetime(2024, 6, 7, 13, 30, tzinfo=UTC)


class Ticking:
    """A clock that moves one millisecond each time it is read."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


class Stuck:
    def __init__(self, time: datetime) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time


class Quick(Disk):
    """Nothing here dies with the machine, so tests about other things skip the sync."""

    def sync(self, file: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


class Crash(BaseException):
    """The process is gone: not an Exception, so nothing may catch it and go on."""


def open_(path, *, clock=None, disk=None, **options):
    return Journal.open(path, clock=clock or Ticking(), disk=disk or Quick(), **options)


def write(path, groups) -> Head:
    with open_(path, identity="ab" * 16) as journal:
        for group in groups:
            journal.extend([("note", {"n": n}) for n in group])
        return journal.head


def numbers(path) -> list[int]:
    return [record.payload["n"] for record in read(path)]


GROUPS = [[0], [1, 2], [3], [4, 5, 6], [7]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.journal"


# ---- round trip and model -----------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS | TEXT, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=12
)
PAYLOADS = st.dictionaries(TEXT, VALUES, max_size=5)


@settings(derandomize=True, max_examples=100 * SOAK, deadline=None)
@given(st.lists(st.lists(PAYLOADS, min_size=1, max_size=3), max_size=4))
def test_what_was_written_is_what_is_read(tmp_path_factory, groups):
    path = tmp_path_factory.mktemp("round") / "a.journal"
    with open_(path) as journal:
        written = [
            record for group in groups for record in journal.extend([("k", payload) for payload in group])
        ]
    assert list(read(path)) == written
    assert [record.payload for record in written] == [payload for group in groups for payload in group]
    assert tail(path, 2) == written[-2:]
    for record in written:  # and each record is a place to go on from
        assert list(read(path, after=record.head)) == written[record.seq :]


class AgainstAList(RuleBasedStateMachine):
    """append, extend, reopen, crash and torn tails, against a list of what was acknowledged."""

    @initialize()
    def start(self):
        self.folder = Path(self.make())
        self.path, self.clock, self.model, self.torn = self.folder / "a.journal", Ticking(), [], 0
        self.journal = open_(self.path, clock=self.clock)

    @rule(payload=PAYLOADS)
    def append(self, payload):
        self.model.append(self.journal.append("one", payload))

    @rule(payloads=st.lists(PAYLOADS, max_size=4))
    def extend(self, payloads):
        self.model += self.journal.extend([("many", payload) for payload in payloads])

    @rule(known=st.booleans())
    def reopen(self, known):
        head = self.journal.head
        self.journal.close()
        self.journal = open_(self.path, clock=self.clock, known=head if known else None)
        assert self.journal.head == head and self.journal.dropped == 0

    @rule(
        payloads=st.lists(PAYLOADS, min_size=1, max_size=3),
        share=st.floats(0, 1, exclude_max=True),
        zeros=st.integers(0, 600),
    )
    def crash_in_an_append(self, payloads, share, zeros):
        head = self.journal.head
        _, data = compose([("lost", payload) for payload in payloads], head, self.clock.now(), 0)
        torn = data[: int(share * len(data))] + bytes(zeros)
        self.journal.close()
        with self.path.open("ab") as file:
            file.write(torn)
        self.journal = open_(self.path, clock=self.clock)
        assert self.journal.head == head and self.journal.dropped == len(torn)

    @rule(back=st.integers(1, 10**7))
    def clock_back(self, back):
        self.clock.time -= timedelta(microseconds=back)

    @invariant()
    def same(self):
        assert list(read(self.path)) == self.model
        assert [r.seq for r in self.model] == list(range(1, len(self.model) + 1))
        assert all(a.time <= b.time for a, b in pairwise(self.model))

    def teardown(self):
        self.journal.close()


def test_against_a_list(tmp_path_factory):
    AgainstAList.make = staticmethod(lambda: tmp_path_factory.mktemp("model"))
    quiet = settings(
        derandomize=True,
        max_examples=30 * SOAK,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(AgainstAList, settings=quiet)


# ---- kills --------------------------------------------------------------------------------------------------


def _write_until_killed(path: Path, pipe: int, first: int) -> None:
    with Journal.open(path, clock=Ticking()) as journal:
        for n in range(first, first + 10**6, 3):
            journal.append("one", {"n": n})
            os.write(pipe, b"%d\n" % n)
            journal.extend([("two", {"n": n + 1}), ("two", {"n": n + 2})])
            os.write(pipe, b"%d\n" % (n + 2))


def test_kill_at_random_moments(path):
    """After each of 200 kills: what was acknowledged is there, groups are whole, the lock is free."""
    draw = random.Random(SEED)
    for _ in range(200 * SOAK):
        before = len(list(read(path))) if path.exists() else 0
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                _write_until_killed(path, writing, before)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as acknowledged:
            wanted = draw.randrange(8)
            seen = list(islice(acknowledged, wanted))
            for _ in range(draw.randrange(3000)):  # a moment somewhere in the next append
                pass
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen += acknowledged.readlines()
        promised = int(seen[-1]) + 1 if seen and seen[-1].endswith(b"\n") else before
        with Journal.open(path, clock=Ticking()) as journal:
            found = numbers(path)
            assert found == list(range(len(found))) and promised <= len(found) <= promised + 2
            assert len(found) % 3 != 2, "half a group"
            missing = -len(found) % 3
            if missing:  # so that the next child starts at a whole triple
                journal.extend([("two", {"n": len(found) + i}) for i in range(missing)])


class Scripted(Disk):
    """Dies before, in the middle of, or after the n-th call; remembers what a power cut would have left."""

    def __init__(self, at: int, how: str, path: Path) -> None:
        self.at, self.how, self.path, self.calls, self.durable = at, how, path, 0, b""

    def _step(self, act):
        self.calls += 1
        if self.calls == self.at and self.how == "before":
            raise Crash
        result = act()
        if self.calls == self.at and self.how == "after":
            raise Crash
        return result

    def write(self, file, data):
        if self.calls + 1 == self.at and self.how == "middle":
            os.write(file, data[: len(data) // 2])
            raise Crash
        return self._step(lambda: super(Scripted, self).write(file, data))

    def sync(self, file):  # noqa: ARG002
        def act():
            self.durable = self.path.read_bytes()

        return self._step(act)

    def truncate(self, file, size):
        return self._step(lambda: super(Scripted, self).truncate(file, size))

    def sync_directory(self, directory):  # noqa: ARG002
        return self._step(lambda: None)


def _run(path: Path, disk: Disk, acknowledged: list[int]) -> None:
    with open_(path, disk=disk, identity="cd" * 16) as journal:
        for group in GROUPS:
            journal.extend([("note", {"n": n}) for n in group])
            acknowledged += group
    with open_(path, disk=disk) as journal:
        journal.append("note", {"n": 8})
        acknowledged.append(8)


def _legal(found: list[int], acknowledged: list[int]) -> bool:
    flat = [n for group in [*GROUPS, [8]] for n in group]
    ends = {sum(map(len, [*GROUPS, [8]][:k])) for k in range(len(GROUPS) + 2)}
    return found == flat[: len(found)] and len(found) >= len(acknowledged) and len(found) in ends


@pytest.mark.parametrize("how", ["before", "middle", "after"])
def test_kill_at_each_boundary(tmp_path, how):
    """Every write, sync and truncate there is; what the page cache keeps, and every cut a power failure may leave."""
    count = Scripted(0, how, tmp_path / "count.journal")
    _run(count.path, count, [])
    assert count.calls >= 2 * (len(GROUPS) + 3)
    for at in range(1, count.calls + 1):
        path = tmp_path / f"{at}.journal"
        disk, acknowledged = Scripted(at, how, path), []
        try:
            _run(path, disk, acknowledged)
            assert how == "middle"  # the call was not a write
            continue
        except Crash:
            pass
        left = path.read_bytes()
        assert left.startswith(disk.durable[: len(left)])
        ends = [*range(len(disk.durable), len(left), 1 if SOAK > 1 else 31), len(left)]
        for remains in [
            left,
            *(left[:end] for end in ends),
            *(left[:end] + bytes(len(left) - end) for end in ends),
        ]:
            path.write_bytes(remains)
            with open_(path) as journal:
                assert _legal(numbers(path), acknowledged), (at, len(remains))
                journal.append("note", {"n": 99})
            assert verify(path).unfinished == 0


def test_an_interrupted_truncation_is_finished(path):
    head = write(path, GROUPS)
    with path.open("ab") as file:
        file.write(b"00000")
    for how in ("before", "after"):
        with pytest.raises(Crash):
            open_(path, disk=Scripted(1, how, path))
    with open_(path) as journal:
        assert journal.head == head


# ---- torn and tampered --------------------------------------------------------------------------------------


def test_torn_at_every_byte_of_the_last_records(path):
    head = write(path, GROUPS)
    content, ends = path.read_bytes(), [FIRST, *(r.offset for r in read(path) if r.seq in (1, 3, 4, 7, 8))]
    assert ends[-1] == head.offset == len(content)
    for cut in range(ends[-3], len(content)):
        path.write_bytes(content[:cut])
        whole = max(end for end in ends if end <= cut)
        assert verify(path).unfinished == cut - whole
        assert [r.offset for r in read(path)][-1] == whole
        with open_(path) as journal:
            assert journal.dropped == cut - whole and journal.head.offset == whole
        assert path.read_bytes() == content[:whole]


def test_torn_at_every_byte_of_the_first_line(path):
    write(path, [])
    content = path.read_bytes()
    for cut in range(len(content)):
        for remains in (content[:cut], content[:cut] + bytes(len(content) - cut)):
            path.write_bytes(remains)
            assert list(read(path)) == [] and tail(path) == []
            with refused("QB-JNL-001", show=False):
                verify(path)
            with refused("QB-JNL-001", show=False):
                open_(path, create=False)
            with open_(path) as journal:
                assert journal.dropped == len(remains)
                journal.append("note", {"n": 0})
            assert numbers(path) == [0]


def test_a_foreign_file_is_never_overwritten(path):
    for content in (
        b"quant",
        b"hello\n",
        b"x" * 500,
        bytes(1000),
        b"quantbench-journal 1 no",
        first_line("ef" * 16)[:-9] + b"00000000\n",
    ):
        path.write_bytes(content)
        if b"quantbench-journal 1 no".startswith(content) and content != b"quantbench-journal 1 no":
            continue
        with refused("QB-JNL-001", show=False):
            open_(path).close()
        assert path.read_bytes() == content


def test_every_bit_flip_is_found(path):
    """Each bit of a small journal: refused, by verify and by read, and left as it is by open."""
    write(path, GROUPS)
    content, flips = path.read_bytes(), 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(QuantbenchError) as found:
            verify(path)
        assert found.value.code in ("QB-JNL-001", "QB-JNL-002", "QB-JNL-003", "QB-JNL-004"), (
            bit,
            found.value,
        )
        flips += 1
        if bit % 7 == 0:
            with pytest.raises(QuantbenchError):
                open_(path)
            with pytest.raises(QuantbenchError):
                list(read(path))
            assert path.read_bytes() == flipped
    assert flips > 8_000


def test_damage_names_the_record(path):
    write(path, GROUPS)
    lines = path.read_bytes().splitlines(keepends=True)
    for seq in range(1, len(lines)):
        spoiled = lines[seq].replace(b'"n":', b'"m":')
        path.write_bytes(b"".join([*lines[:seq], spoiled, *lines[seq + 1 :]]))
        with pytest.raises(
            QuantbenchError, match=rf"QB-JNL-003.*\n.*record {seq}, byte {len(b''.join(lines[:seq]))}"
        ):
            verify(path)


def _lines(bodies: list[bytes], previous: bytes) -> list[bytes]:
    out = []
    for body in bodies:
        digest = sha256(previous + body).hexdigest().encode()
        out.append(b"%08x %08x %s %s\n" % (len(body), crc32(body), digest, body))
        previous = digest
    return out


def _forge(kind: str, lines: list[bytes], draw: random.Random) -> list[bytes]:
    first, rest = lines[0], lines[1:]
    i = draw.randrange(len(rest))
    if kind == "delete":
        del rest[i]
    elif kind == "swap":
        j = draw.choice([k for k in range(len(rest)) if k != i])
        rest[i], rest[j] = rest[j], rest[i]
    elif kind == "repeat":
        rest.insert(draw.randrange(len(rest) + 1), rest[i])
    elif kind == "edit":
        body = rest[i][PREFIX:-1].replace(b'{"n":', b'{"n":1')
        rest[i] = b"%08x %08x " % (len(body), crc32(body)) + rest[i][18:PREFIX] + body + b"\n"
    elif kind == "cut":
        rest = rest[:i]
    else:
        bodies = [line[PREFIX:-1] for line in rest]
        if kind == "edit and rehash":
            bodies[i] = bodies[i].replace(b'{"n":', b'{"n":1')
        else:  # rewrite: another first line, everything after it recomputed
            first = first_line(f"{draw.getrandbits(128):032x}")
        rest = _lines(bodies, sha256(first).hexdigest().encode())
    return [first, *rest]


KINDS = ["delete", "swap", "repeat", "edit", "cut", "edit and rehash", "rewrite"]


def test_ten_thousand_forgeries_against_an_anchor(path):
    anchor, draw = write(path, GROUPS), random.Random(SEED)
    original = path.read_bytes()
    lines, silent_without = original.splitlines(keepends=True), dict.fromkeys(KINDS, 0)
    for trial in range(10_000):
        kind = KINDS[trial % len(KINDS)]
        forged = b"".join(_forge(kind, lines, draw))
        assert forged != original
        path.write_bytes(forged)
        with pytest.raises(QuantbenchError) as found:
            verify(path, anchor=anchor)
        assert found.value.code in {"QB-JNL-003", "QB-JNL-004", "QB-JNL-005", "QB-JNL-006"}
        if trial % 5 == 0:
            try:
                silent_without[kind] += verify(path).unfinished == 0
            except QuantbenchError as error:
                assert error.code == "QB-JNL-004"
            if kind in ("cut", "edit and rehash", "rewrite"):  # what moves or changes the known record
                with pytest.raises(QuantbenchError):
                    open_(path, known=anchor).close()
            assert path.read_bytes() == forged
    silent = {kind for kind, count in silent_without.items() if count}
    assert silent == {
        "delete",
        "cut",
        "edit and rehash",
        "rewrite",
    }  # delete: only of the last; the chain alone cannot


def test_a_chained_record_that_is_no_record(path):
    """Someone who computes hashes correctly but writes nonsense gets a coded refusal, not a traceback."""
    nonsense = [
        b"",
        b"[1",
        b"[1,0]",
        b"[1,0,",
        b"[1,x,1]",
        b"[2,0,0]",
        b'[1,0,"x",0,"k",{}]',
        b"[1,-1]",
        b'[1,0,"2024-01-01",0,"k",{}]',
    ]
    nonsense += [
        b'[1,0,"2024-01-01T00:00:00.000000Z",0,"k",[]]',
        b'[1,0,"2024-01-01T00:00:00.000000Z",0,7,{}]',
        b"[1,0," + b"[" * 10**5,
    ]
    nonsense += [
        b'[1,0,"2024-01-01T00:00:00.000000Z",0,"k",{"n":1e999}]',
        b"\xff\xfe",
        b"[1,%s,0]" % (b"9" * 5000),
    ]
    first = first_line("ef" * 16)
    for body in nonsense:
        path.write_bytes(b"".join([first, *_lines([body], sha256(first).hexdigest().encode())]))
        try:
            records = list(read(path))
            assert records == [] or body == nonsense[-3], body
        except QuantbenchError as error:
            assert error.code in ("QB-JNL-003", "QB-JNL-004"), body


def test_a_hole_of_zeros_before_data_is_refused(path):
    head = write(path, GROUPS)
    content = bytearray(path.read_bytes())
    content[head.offset - 300 : head.offset - 100] = bytes(200)
    path.write_bytes(content)
    with refused("QB-JNL-003", show=False):
        open_(path)
    assert path.read_bytes() == content


def test_a_hole_inside_a_last_line_is_refused(path):
    head = write(path, GROUPS)
    with path.open("ab") as file:
        file.write(b"0000003c 86" + bytes(20) + b"x")
    with refused("QB-JNL-003", show=False):
        open_(path, known=head)


def test_other_format_versions_are_named(path):
    path.write_bytes(b"quantbench-journal 2 " + b"0" * 60)
    with refused("QB-JNL-002", show=False):
        verify(path)


def test_anchors_at_every_moment(path):
    write(path, GROUPS)
    records, report = list(read(path)), verify(path)
    start = Head(0, sha256(path.read_bytes()[:FIRST]).hexdigest(), FIRST)
    for head in [start, *(record.head for record in records)]:
        assert verify(path, anchor=head).head == report.head
        assert Head.parse(str(head)) == head
        for wrong in (
            Head(head.seq, head.hash[::-1], head.offset),
            Head(head.seq, head.hash, head.offset + 1),
        ):
            with pytest.raises(QuantbenchError, match=r"QB-JNL-00[56]"):
                verify(path, anchor=wrong)
            with pytest.raises(QuantbenchError, match=r"QB-JNL-00[56]"):
                list(read(path, after=wrong))
    for text in ("", "1:2", "1:2:xyz", f"-1:2:{'0' * 64}", f"1:2:{'0' * 63}"):
        with refused("QB-JNL-014", show=False):
            Head.parse(text)


def test_known_reads_only_what_follows(path):
    """Damage before a head this process has verified is not looked at; damage after it is."""
    write(path, GROUPS)
    records, content = list(read(path)), path.read_bytes()
    spoiled = content.replace(b'{"n":1}', b'{"n":9}')
    path.write_bytes(spoiled)
    with open_(path, known=records[4].head) as journal:
        assert journal.head == records[-1].head
    path.write_bytes(content.replace(b'{"n":7}', b'{"n":9}'))
    with refused("QB-JNL-003", show=False):
        open_(path, known=records[4].head)
    path.unlink()
    with refused("QB-JNL-013", show=False):
        open_(path, known=records[4].head)
    assert not path.exists()


# ---- disks that fail ----------------------------------------------------------------------------------------


class Failing(Quick):
    def __init__(self, operation: str, error: int, at: int = 3) -> None:
        self.operation, self.error, self.left = operation, error, at

    def _fail(self, operation):
        if operation == self.operation:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.error, os.strerror(self.error))

    def write(self, file, data):
        self._fail("write")
        return super().write(file, data)

    def sync(self, file):  # noqa: ARG002
        self._fail("sync")


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_one_error_stops_the_journal(path, operation, error):
    """The disk would work again at once. Nothing is sent to it."""
    journal, acknowledged = open_(path, disk=Failing(operation, error)), []
    with refused("QB-JNL-009", show=False):
        for n in range(5):
            acknowledged.append(journal.append("note", {"n": n}))
    head, size = journal.head, path.stat().st_size
    for _ in range(3):
        with refused("QB-JNL-008", show=False):
            journal.append("note", {"n": 9})
    assert journal.head == head == acknowledged[-1].head and path.stat().st_size == size
    journal.close()
    with open_(path) as journal:
        assert numbers(path)[: len(acknowledged)] == list(range(len(acknowledged)))
        assert len(numbers(path)) == len(acknowledged) + (
            operation == "sync"
        )  # written, not acknowledged: decided now


def test_reopening_rewrites_and_syncs_what_was_never_synced(path):
    journal = open_(path, disk=Failing("sync", errno.EIO))
    with refused("QB-JNL-009", show=False):
        for n in range(5):
            journal.append("note", {"n": n})
    journal.close()
    calls = []

    class Recording(Disk):
        def write(self, file, data):
            calls.append(bytes(data))
            return super().write(file, data)

        def sync(self, file):  # noqa: ARG002
            calls.append("sync")

    with open_(path, disk=Recording()) as journal:
        assert calls == [path.read_bytes().splitlines(keepends=True)[-1], "sync"]
        assert verify(path).head == journal.head


def test_a_device_without_space(path):
    class Full(Quick):
        def write(self, file, data):  # noqa: ARG002
            with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
                return full.write(data)

    with open_(path):
        pass
    journal = open_(path)
    journal._hold.disk = Full()
    with refused("QB-JNL-009", show=False):
        journal.append("note", {})
    with refused("QB-JNL-008", show=False):
        journal.append("note", {})
    journal.close()
    with refused("QB-JNL-013", show=False):
        open_("/dev/full")


def test_a_file_size_limit(path):
    """The kernel cuts a write short at the limit: the last line is torn, what was acknowledged is whole."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        journal, n = open_(path), 0
        try:
            while True:
                journal.append("note", {"n": n})
                n += 1
        except QuantbenchError as error:
            os._exit(n if error.code == "QB-JNL-009" else 255)
        finally:
            os._exit(254)
    acknowledged = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 5 < acknowledged < 200 and path.stat().st_size == 2000
    with open_(path) as journal:
        assert numbers(path) == list(range(acknowledged)) and journal.dropped > 0


def test_short_writes_are_completed(path):
    class Short(Quick):
        def write(self, file, data):
            return super().write(file, data[:7])

    class Nothing(Quick):
        def write(self, file, data):  # noqa: ARG002
            return 0

    with open_(path, disk=Short()) as journal:
        journal.extend([("note", {"n": n}) for n in range(5)])
    assert numbers(path) == [0, 1, 2, 3, 4]
    with refused("QB-JNL-009", show=False):
        open_(path, disk=Nothing())


def test_an_interrupt_in_the_middle_stops_the_journal(path):
    class Interrupted(Quick):
        def sync(self, file):  # noqa: ARG002
            if armed:
                raise KeyboardInterrupt

    armed = []
    with open_(path, disk=Interrupted()) as journal:
        journal.append("note", {"n": 0})
        armed.append(1)
        with pytest.raises(KeyboardInterrupt):
            journal.append("note", {"n": 1})
        armed.clear()
        with refused("QB-JNL-008", show=False):
            journal.append("note", {"n": 2})
    assert numbers(path) == [0, 1]


def _delete(path):
    path.unlink()


def _rename(path):
    path.rename(path.with_name("elsewhere"))


def _replace(path):
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def _truncate(path):
    os.truncate(path, path.stat().st_size - 10)


def _lengthen(path):
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("meddle", [_delete, _rename, _replace, _truncate, _lengthen])
def test_a_file_changed_under_the_writer(path, meddle):
    with open_(path) as journal:
        journal.append("note", {"n": 0})
        head = journal.head
        meddle(path)
        with refused("QB-JNL-010", show=False):
            journal.append("note", {"n": 1})
        with refused("QB-JNL-008", show=False):
            journal.append("note", {"n": 1})
        assert journal.head == head


def test_a_reader_that_meets_a_recovery_reads_again(path, monkeypatch):
    """The bytes of a torn tail, then others in their place: the reader's first look fails, its second is sound."""
    write(path, GROUPS)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{"n":7}', b'{"n":9}'))
    looks = []
    import quantbench.core.chain as chain

    genuine = chain.birth

    def birth(stream, name):
        if looks:
            path.write_bytes(content)
        looks.append(1)
        return genuine(stream, name)

    monkeypatch.setattr(chain, "birth", birth)
    assert numbers(path) == list(range(8)) and len(looks) == 2


# ---- writers ------------------------------------------------------------------------------------------------


@contextmanager
def holder(path):
    """Another process that holds the journal until told to let go."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def hold():
        with open_(path):
            theirs.send("held")
            theirs.recv()

    process = context.Process(target=hold)
    process.start()
    assert ours.recv() == "held"
    try:
        yield process, ours
    finally:
        if process.is_alive():
            ours.send("go")
        process.join()


def test_the_second_writer_is_told_the_first_ones_number(path):
    with holder(path) as (process, _):
        for wait in (0.0, 0.01, float("nan"), -1.0):
            with pytest.raises(QuantbenchError, match=f"QB-JNL-007(.|\n)*process {process.pid}\n"):
                open_(path, wait=wait)
        assert list(read(path)) == [] and verify(path).head.seq == 0
    with open_(path):
        pass
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.journal"]


def test_within_one_process_too(path):
    with open_(path), pytest.raises(QuantbenchError, match=f"held by process {os.getpid()}"):
        open_(path)
    open_(path).append("note", {})  # dropped without close: the lock goes with the object
    open_(path).close()


def test_a_killed_owner_blocks_nobody(path):
    with holder(path) as (process, _):
        process.kill()
        process.join()
        assert (path.parent / "a.journal.writer").exists()
        open_(path).close()


def test_waiting_for_the_other_writer(path):
    with holder(path) as (_, pipe):
        pipe.send("go")
        with open_(path, wait=30.0) as journal:
            journal.append("note", {"n": 0})


def _take_turns(path, count):
    known = None
    for n in range(count):
        with open_(path, wait=60.0, known=known) as journal:
            journal.append("turn", {"n": n, "pid": os.getpid()})
            known = journal.head


def test_four_processes_take_turns(path):
    open_(path).close()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_take_turns, args=(path, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    seen = 0
    while any(process.is_alive() for process in processes):  # a reader all the while
        now = len(list(read(path)))
        assert now >= seen
        seen = now
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    records = list(read(path))
    assert len(records) == 100
    for process in processes:
        assert [r.payload["n"] for r in records if r.payload["pid"] == process.pid] == list(range(25))


def test_a_forked_child_is_refused_and_does_not_keep_the_lock(path):
    journal = open_(path)
    journal.append("note", {"n": 0})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        try:
            journal.append("note", {"n": 1})
        except QuantbenchError as error:
            journal.close()  # must not take the parent's lock or its marker along
            os.read(reading, 1)
            os._exit(11 if error.code == "QB-JNL-011" else 12)
        finally:
            os._exit(13)
    os.close(reading)
    with refused("QB-JNL-007", show=False):
        open_(path)
    journal.append("note", {"n": 2})
    journal.close()
    open_(path).close()  # while the child still lives
    os.write(writing, b"x")
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    assert numbers(path) == [0, 2]


def test_an_append_inside_an_append_is_refused(path):
    """As a signal handler may try. The outer one is not disturbed."""

    class Nested(Ticking):
        def now(self):
            with refused("QB-JNL-008", show=False):
                journal.append("inner", {})
            return super().now()

    with open_(path, clock=Nested()) as journal:
        journal.append("outer", {"n": 0})
        journal.append("outer", {"n": 1})
    assert numbers(path) == [0, 1]


def test_threads_take_turns(path):
    with open_(path) as journal, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: journal.extend([("note", {"n": n}), ("note", {"n": n})]), range(50)))
    found = numbers(path)
    assert found[::2] == found[1::2] and sorted(found[::2]) == list(range(50))


def test_a_child_does_not_keep_the_lock_of_a_killed_parent(path):
    said, say = os.pipe()
    hear, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        journal = open_(path)
        os.close(tell)
        if os.fork() == 0:
            os.write(say, b"x")
            os.read(hear, 1)  # lives until the test is over
            os._exit(journal.head.seq)
        signal.pause()
    os.close(hear)
    assert os.read(said, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    open_(path).close()
    for end in (said, say, tell):
        os.close(end)


def test_closed_means_closed(path):
    journal = open_(path)
    journal.close()
    journal.close()
    with refused("QB-JNL-008", show=False):
        journal.append("note", {})


# ---- values and time ----------------------------------------------------------------------------------------


class Colour(str, Enum):  # noqa: UP042 (StrEnum would hide the case)
    RED = "red"


class Text(str):
    def __str__(self):
        return "other"


def test_values_are_exact_or_refused(path):
    with open_(path) as journal:
        record = journal.append(
            "values",
            {
                "d": Decimal("1.10"),
                "e": Decimal("1E+3"),
                "t": (1, 2),
                "c": Colour.RED,
                "x": Text("x"),
                "z": -0.0,
            },
        )
        assert dict(record.payload) == {"d": "1.10", "e": "1E+3", "t": [1, 2], "c": "red", "x": "x", "z": 0.0}
        assert json.dumps(record.payload["z"]) == "-0.0" and list(read(path)) == [record]
        deep, cyclic = [], {}
        for _ in range(60):
            deep = [deep]
        cyclic["self"] = [cyclic, cyclic]
        bad = [
            float("nan"),
            float("inf"),
            Decimal("NaN"),
            2**63,
            {1: 2},
            {None: 1},
            b"x",
            {1, 2},
            START,
            object(),
            "\ud800",
            deep,
            cyclic,
        ]
        for value in bad:
            with refused("QB-JNL-012", show=False):
                journal.append("values", {"v": value})
        with refused("QB-JNL-012", show=False):
            journal.append("values", {"v": "x" * (16 * 2**20)})
        for kind in ("", "two words", 'a"b', "é", "a\nb", 7, None):
            with refused("QB-JNL-012", show=False):
                journal.append(kind, {})
        for payload in ([], "x", None, 1):
            with refused("QB-JNL-012", show=False):
                journal.append("values", payload)
        with refused("QB-JNL-012", show=False):  # one bad item: nothing of the group
            journal.extend([("good", {}), ("bad", {"v": float("nan")})])
        journal.append("values", {})  # and none of this stopped the journal
    assert [r.kind for r in read(path)] == ["values", "values"]


def test_time_never_runs_backward(path):
    clock = Stuck(START)
    with open_(path, clock=clock) as journal:
        journal.append("note", {})
        clock.time = START - timedelta(hours=1)
        assert journal.append("note", {}).behind == 3_600_000_000
        clock.time = (START + timedelta(seconds=5)).astimezone(timezone(timedelta(hours=-4)))
        ahead = journal.append("note", {})
        assert ahead.time == START + timedelta(seconds=5) and ahead.behind == 0
    for known in (None, ahead.head):  # also across a reopening
        with open_(path, clock=Stuck(START), known=known) as journal:
            record = journal.append("note", {})
            assert record.time == ahead.time and record.behind == 5_000_000
    with open_(path, clock=Stuck(START.replace(tzinfo=None))) as journal:
        with refused("QB-TIME-001", show=False):
            journal.append("note", {})
        journal._clock = Stuck(START)
        journal.append("note", {})
    records = list(read(path))
    assert [r.time - timedelta(microseconds=r.behind) for r in records][1] == START - timedelta(hours=1)
    assert all(a.time <= b.time for a, b in pairwise(records))


def test_same_inputs_same_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths[:2]:
        write(path, GROUPS)
    open_(paths[2]).close()
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert verify(paths[2]).identity != verify(paths[0]).identity
    with refused("QB-JNL-001", show=False):
        open_(paths[0], identity="00" * 16)
    with refused("QB-JNL-001", show=False):
        open_(tmp_path / "d", identity="short")


def test_missing_folders_and_files_are_refused(tmp_path):
    for call in (verify, tail, lambda path: list(read(path)), open_):
        with refused("QB-JNL-013", show=False):
            call(tmp_path / "no" / "such.journal")
        with refused("QB-JNL-013", show=False):
            call(tmp_path)
    with refused("QB-JNL-013", show=False):
        open_(tmp_path / "new.journal", create=False)
    assert list(tmp_path.iterdir()) == []
