"""
The journal folder: whose each file is, and what becomes of those whose owner is dead.

    FOLDER/                     0700, on a disk of this machine
      <journal id>.db           a journal (with -wal and -shm), 0600
      <journal id>.lock         locked by its owner as long as that lives
      quarantine/               files that are corrupt, foreign or newer; never deleted

A process makes a file of its own and, at start or later, adopts those of dead
processes: exactly one gets the lock. What is adopted is drained and deleted.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bizlog import diagnostics
from bizlog.delivery import locks
from bizlog.delivery.durable import DurableJournal
from bizlog.delivery.inspection import JournalInfo, inspect
from bizlog.delivery.journal import JournalError
from bizlog.delivery.mounts import refuse_network
from bizlog.delivery.sqlite import SqliteJournal, UnfitFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bizlog.delivery.locks import FileLock
    from bizlog.delivery.sqlite import Sync

__all__ = ["JournalFolder", "JournalInfo", "inspect"]

SUFFIX = ".db"
QUARANTINE = "quarantine"


class JournalFolder:
    """
    The journals of this process, and of those that died.

    Args:
        path: The folder; made when it is needed.
        sync: `normal` survives the death of the process, `full` that of the machine.
        clock: Monotonic seconds.

    Attributes:
        quarantined: Files that were put aside.

    Raises:
        ConfigurationError: The folder is on a network file system, or the system has
            no file locks.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sync: Sync = "normal",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path).absolute()
        self.sync: Sync = sync
        self.quarantined = 0
        self._clock = clock
        self._places: dict[str, _Place] = {}
        locks.require_locks()
        refuse_network(self.path)

    def create(self) -> DurableJournal:
        """
        Begin a journal of this process; never raises.

        Where the folder cannot be written, it lives in memory until it can.
        """
        place = _Place(self, uuid.uuid4().hex)
        return self._enter(place, None)

    def adopt(self) -> list[DurableJournal]:
        """
        Take over what dead processes left behind; never raises.

        Files with nothing left to deliver are deleted, unfit ones put aside.

        Returns:
            The journals that wait to be drained, the oldest first.
        """
        try:
            paths = [path for path in self.path.iterdir() if path.suffix == SUFFIX]
        except OSError:
            return []
        strange = [path for path in paths if path.stem not in self._places]
        adopted = [found for path in strange if (found := self._adopt(path))]
        return [journal for _, journal in sorted(adopted, key=lambda each: each[0])]

    def _adopt(self, path: Path) -> tuple[float, DurableJournal] | None:
        """Take one file over, and say how old it is; None where there is no need."""
        try:
            lock = locks.take(path.with_suffix(".lock"))
        except JournalError as error:
            _report(f"cannot adopt {path} now: {error}")
            return None
        if lock is None:
            return None
        disk = self._open(path) if os.path.lexists(path) else None
        if disk is None:
            lock.drop(unlink=not os.path.lexists(path))
            return None
        return disk.created_at, self._enter(_Place(self, path.stem, lock), disk)

    def _open(self, path: Path) -> SqliteJournal | None:
        """Open an orphan; None where there is nothing to drain."""
        try:
            disk = SqliteJournal(path, sync=self.sync)
            if not _is_drained(disk):
                return disk
            disk.remove()
        except UnfitFileError as error:
            if error.reason == "empty":
                _unlink(path)
            else:
                self.quarantine(path, error.reason)
        except JournalError as error:
            _report(f"cannot adopt {path} now: {error}")
        return None

    def _enter(self, place: _Place, disk: SqliteJournal | None) -> DurableJournal:
        journal = place.journal = DurableJournal(
            place, disk=disk, journal_id=place.name, clock=self._clock
        )
        self._places[place.name] = place
        journal.note("pid", b"%d" % os.getpid())
        return journal

    def leave_to_parent(self) -> None:
        """
        Let go, in a forked child, of what its parent owns.

        The locks' descriptors are closed, or the parent's files would be locked as
        long as the child lives. The connections are kept open and never used: SQLite
        must not be closed in a child.
        """
        for place in self._places.values():
            place.forsake()
        self._places.clear()

    def prepare(self) -> None:
        """
        Make the folder, if it is not there.

        Raises:
            JournalError: It cannot be made.
        """
        try:
            _make_private(self.path)
        except OSError as error:
            raise JournalError(f"cannot make {self.path}: {error}") from error

    def quarantine(self, path: Path, reason: str) -> None:
        """Put a file aside, with its log, and count it."""
        target = self.path / QUARANTINE / f"{path.stem}.{reason}{SUFFIX}"
        try:
            _make_private(target.parent)
            while os.path.lexists(target):
                target = target.with_stem(f"{target.stem}-{time.time_ns()}")
            for suffix in ("-wal", ""):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(f"{target}{suffix}")
            path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        except OSError as error:
            _report(f"{path} is {reason} and cannot be put aside: {error}")
            return
        self.quarantined += 1
        _report(f"{path} is {reason}; it was moved to {target}")

    def forget(self, place: _Place) -> None:
        """Know no more of a place that was left."""
        self._places.pop(place.name, None)


class _Place:
    """Where one journal of this process lives."""

    journal: DurableJournal

    def __init__(
        self, folder: JournalFolder, name: str, lock: FileLock | None = None
    ) -> None:
        self.name = name
        self._path = folder.path / f"{name}{SUFFIX}"
        self._folder = folder
        self._lock = lock

    def make(self, journal_id: str, start: int) -> SqliteJournal:
        """Make the file anew; what stands in its place is put aside."""
        self._folder.prepare()
        self.hold()
        if os.path.lexists(self._path):
            self._folder.quarantine(self._path, "replaced")
        return SqliteJournal(
            self._path, journal_id=journal_id, start=start, sync=self._folder.sync
        )

    def hold(self) -> None:
        """Lock the place again where somebody deleted the side file."""
        if not (self._lock and self._lock.holds):
            self._folder.prepare()
            self._relock()

    def _relock(self) -> None:
        if self._lock:
            self._lock.close()
        self._lock = locks.take(self._path.with_suffix(".lock"))
        if self._lock is None:
            raise JournalError(f"another process has locked {self._path}")

    def leave(self, *, damaged: bool) -> None:
        """Give the place up; what is damaged is put aside."""
        if damaged:
            self._folder.quarantine(self._path, "damaged")
        if self._lock:
            self._lock.drop(unlink=not os.path.lexists(self._path))
            self._lock = None
        self._folder.forget(self)

    def forsake(self) -> None:
        """Close the lock's descriptor and touch nothing else: it is the parent's."""
        if self._lock:
            self._lock.close()
            self._lock = None
        self.journal.forsake()


def _is_drained(disk: SqliteJournal) -> bool:
    lanes = disk.lanes().values()
    return min((lane.settled for lane in lanes), default=disk.start) >= disk.end


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(0o700)  # whatever the umask is


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _report(message: str) -> None:
    diagnostics.report("journal.folder", message)
