"""
What children do beyond emitting: forks, hostile values, clocks, disks, sudden death.

Each act has the signature that `child.py` calls. `replace_clocks_and_disks` comes before
bizlog is imported.
"""

from __future__ import annotations

import datetime as dt
import os
import resource
import shutil
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from child import Emitter
from marks import Marks, Report

Job = dict[str, Any]

CHILD_SECONDS = 10.0
FORKS = 40
EVENTS_A_FORK = 5
FORK_BASE = 1_000_000  # numbers of the children's events
CHUNK = 50
TOIL_CHUNK = 20
FORKED_NUMBERS = 2_000  # of a life, for the events of its forked children


# Values


def values(contender: Any, job: Job, report: Report) -> None:
    """Emit one event with each kind of value that JSON does not know, and flush it."""
    emitter = Emitter(contender)
    kinds = (
        Decimal("9.99"),
        uuid.uuid4(),
        dt.date(2026, 11, 25),
        dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC),
        {1, 2},
        float("nan"),
        object(),
    )
    for n, value in enumerate(kinds):
        emitter.emit(n, value=value)
        report.add(**emitter.facts())
        with suppress(Exception):
            contender.flush(10.0)
    time.sleep(job["idle"])


# Forks


def fork(contender: Any, job: Job, report: Report) -> None:
    """Fork at once; the child emits, waits a second, flushes and ends plainly."""
    pid = os.fork()
    if pid == 0:
        emitter = Emitter(contender)
        for n in range(job["count"]):
            emitter.emit(n)
        report.add(**emitter.facts())
        time.sleep(1.0)
        contender.flush(5.0)
        sys.exit()
    hung = not _ended(pid, job["seconds"])
    facts = Report.read(Path("report.json"))  # the child has written since
    report.add(**{**facts, "hung": hung, "last_emit": time.monotonic()})


def _ended(pid: int, seconds: float) -> bool:
    """Wait for a forked child; kill it when it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False


def forks(contender: Any, job: Job, report: Report) -> None:
    """Fork again and again while four threads emit; each child emits and flushes."""
    stop = threading.Event()
    emitters = [Emitter(contender) for _ in range(4)]
    counts = [0] * len(emitters)

    def load(index: int) -> None:
        while not stop.is_set():
            emitters[index].emit(index * 100_000 + counts[index])
            counts[index] += 1
            time.sleep(0.001)

    threads = [threading.Thread(target=load, args=(i,)) for i in range(len(emitters))]
    for thread in threads:
        thread.start()
    hung = sum(
        _fork_one(contender, k, job["seconds"], stop) for k in range(job["forks"])
    )
    stop.set()
    for thread in threads:
        thread.join()
    report.add(**emitters[0].facts(), hung=hung, parent=sum(counts))
    contender.flush(job["seconds"])


def _fork_one(contender: Any, k: int, seconds: float, stop: threading.Event) -> bool:
    pid = os.fork()
    if pid == 0:
        for n in range(EVENTS_A_FORK):
            contender.emit(FORK_BASE + k * EVENTS_A_FORK + n)
        os._exit(0 if contender.flush(seconds) else 1)
    return not _ended(pid, 2 * seconds)


# Sudden death


def hammer(contender: Any, job: Job, report: Report) -> None:
    """
    Emit without end in chunks and mark what was accepted; somebody will kill us.

    A chunk is accepted when its last event's commit to the journal has returned: the
    journal keeps the order. Stops by itself after `count` events.
    """
    with Marks(Path("marks"), job["marks"]) as marks:
        for start in range(job["first"], job["first"] + job["count"], CHUNK):
            taken = _emit_chunk(contender, marks, range(start, start + CHUNK))
            marks.accepted(taken)
    report.add(finished=True)
    sys.stdin.read()


def _emit_chunk(contender: Any, marks: Marks, numbers: range) -> list[int]:
    """Emit some events and confirm the last one; which ones are in the journal?"""
    taken: list[int] = []
    for n in numbers[:-1]:
        marks.emitted(n)
        if contender.accept(n, **content_of(n)):
            taken.append(n)
    last = numbers[-1]
    marks.emitted(last)
    return [*taken, last] if contender.confirm(last, **content_of(last)) else []


def content_of(n: int) -> dict[str, str]:
    """What the event of a number holds beside it."""
    return {"product_id": f"p-{n}", "product_name": sha256(b"%d" % n).hexdigest()}


def pile(contender: Any, job: Job, report: Report) -> None:
    """Emit very many events, confirm the last one, and wait to be killed."""
    for n in range(job["count"] - 1):
        contender.accept(n)
    report.add(piled=contender.confirm(job["count"] - 1, timeout=240.0))
    sys.stdin.read()


def toil(contender: Any, job: Job, report: Report) -> None:
    """
    Emit about a thousand events a second, and do what standard input says.

    `fork` forks a child that emits twenty events and dies without a flush; `fail` lets
    the disk fail until `heal`; `fresh` emits the last number there is; `quiet` stops
    emitting, flushes and reports the ledger. The numbers of the children come from the
    upper end of our own.
    """
    with Marks(Path("marks"), job["marks"]) as marks:
        toiler = Toiler(contender, marks, job)
        toiler.start()
        report.add(toiling=True)
        for line in sys.stdin:
            toiler.obey(line.strip(), report)


class Toiler(threading.Thread):
    """Emits in a thread of its own, while the main one forks and breaks disks."""

    def __init__(self, contender: Any, marks: Marks, job: Job) -> None:
        super().__init__(daemon=True)
        self._contender = contender
        self._marks = marks
        self._job = job
        self._stop_it = threading.Event()
        self._disk_failed = False
        self._heal: Callable[[], None] = lambda: None
        self._end = job["first"] + job["count"]
        self._own_end = self._end - FORKED_NUMBERS

    def run(self) -> None:
        """Emit chunk after chunk."""
        first = self._job["first"]
        for start in range(first, self._own_end, TOIL_CHUNK):
            if self._stop_it.wait(0.02):
                return
            numbers = range(start, start + TOIL_CHUNK)
            taken = _emit_chunk(self._contender, self._marks, numbers)
            # While disks fail, what came before the last one may be in memory only.
            self._marks.accepted(taken[-1:] if self._disk_failed else taken)

    def obey(self, command: str, report: Report) -> None:
        """Do what the parent says."""
        if command == "fork":
            self._fork()
        elif command == "fail":
            self._disk_failed = True
            self._heal = limit_files(Path())
        elif command == "heal":
            self._heal()
        elif command == "fresh":
            n = self._job["marks"] - 1
            self._contender.emit(n, **content_of(n))
        elif command == "quiet":
            self._stop_it.set()
            self.join(30.0)
            done = self._contender.flush(60.0)
            report.add(flushed=done, ledger=self._contender.ledger())

    def _fork(self) -> None:
        if self._end <= self._own_end:
            return  # no numbers are left
        self._end -= TOIL_CHUNK
        pid = os.fork()
        if pid == 0:
            numbers = range(self._end, self._end + TOIL_CHUNK)
            self._marks.accepted(_emit_chunk(self._contender, self._marks, numbers))
            os._exit(0)
        if not _ended(pid, 2 * CHILD_SECONDS):
            raise TimeoutError("a forked child hung")


# Clocks


class _Shift:
    seconds = 0.0


def replace_clocks_and_disks() -> None:
    """Put clocks that can jump and disks that can be full in the place of the real ones."""
    _replace_clocks()
    _replace_disk()


def _replace_clocks() -> None:
    plain, plain_ns, moment = time.time, time.time_ns, dt.datetime

    class Shifted(moment):  # type: ignore[valid-type,misc]  # a class by variable
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment.now(tz) + dt.timedelta(seconds=_Shift.seconds)

    time.time = lambda: plain() + _Shift.seconds
    time.time_ns = lambda: plain_ns() + int(_Shift.seconds * 1e9)
    dt.datetime = Shifted  # type: ignore[misc]  # the fault


def clock(contender: Any, job: Job, report: Report) -> None:
    """Emit twenty events after each jump of the wall clock; it ends where it began."""
    with Marks(Path("marks"), job["marks"]) as marks:
        emitter = Emitter(contender, marks)
        for jump, offset in enumerate(job["offsets"]):
            _Shift.seconds = offset
            for n in range(20):
                emitter.emit(20 * jump + n)
            time.sleep(0.5)
    _Shift.seconds = 0.0
    report.add(**emitter.facts())
    report.add(flushed=contender.flush(job["timeout"]))
    sys.stdin.read()


# Disks


def disk(contender: Any, job: Job, report: Report) -> None:
    """
    Emit a thousand events a second while the disk fails and comes back; then flush.

    Says how long it took until an event was in a journal again. After that some events
    more, which are in the journal only, until somebody kills us.
    """
    fail = DISKS[job["fault"]]
    folder = Path(job["folder"]) / "journal"
    with Marks(Path("marks"), job["marks"]) as marks:
        emitter = Emitter(contender, marks)
        n = _load(emitter, 0, 1.0)
        heal = fail(folder)
        n = _load(emitter, n, job["seconds"])
        heal()
        healed = time.monotonic()
        while not contender.confirm(n, timeout=0.5):
            n += 1
            if time.monotonic() > healed + job["timeout"]:
                break
        report.add(recovered=time.monotonic() - healed)
        n = _load(emitter, n + 1, 0.2)
        report.add(**emitter.facts(), refused=_Disk.refused)
        done = contender.flush(job["timeout"])
        report.add(flushed=done, before=n, ledger=contender.ledger())
        sys.stdin.readline()  # the sink has stopped taking events
        for number in range(n, n + 10):
            if contender.confirm(number):
                marks.accepted([number])
        report.add(written=True)
        sys.stdin.read()


def _load(emitter: Emitter, n: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        emitter.emit(n)
        n += 1
        time.sleep(0.001)
    return n


def delete_folder(folder: Path) -> Callable[[], None]:
    """Delete the journal's folder with all that is in it."""
    shutil.rmtree(folder)
    return lambda: None


def limit_files(folder: Path) -> Callable[[], None]:
    """Have the system refuse all writes beyond a small size of file: SQLite sees EIO."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class _Disk:
    full = False
    refused = 0


class _Connection(sqlite3.Connection):
    """Writes as long as there is room; a full disk is SQLITE_FULL, as SQLite has it."""

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        _check_room(sql)
        return super().execute(sql, *rest)

    def executemany(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        _check_room(sql)
        return super().executemany(sql, *rest)

    def executescript(self, sql: str) -> sqlite3.Cursor:
        _check_room(sql)
        return super().executescript(sql)


def _check_room(sql: str) -> None:
    writes = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "COMMIT")
    if _Disk.full and sql.lstrip().upper().startswith(writes):
        _Disk.refused += 1
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        error.sqlite_errorname = "SQLITE_FULL"
        raise error


def _replace_disk() -> None:
    plain = sqlite3.connect
    sqlite3.connect = lambda *arguments, **options: plain(
        *arguments, **{"factory": _Connection, **options}
    )


def fill_disk(folder: Path) -> Callable[[], None]:
    """Let SQLite find no room."""
    _Disk.full = True
    return _free_disk


def _free_disk() -> None:
    _Disk.full = False


DISKS: dict[str, Callable[[Path], Callable[[], None]]] = {
    "deleted": delete_folder,
    "eio": limit_files,
    "full": fill_disk,
}
