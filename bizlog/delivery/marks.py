"""
How far a process has counted: a mark in the journal folder that outlives the process.

What stands in the queue when a process is killed is on no disk, and nothing behind it
says that there was more. So each number that the queue is offered is stored in a page
of memory that is shared with a file, and `bizlog gaps` names from it what is missing at
the end, too. Its process holds a lock on the file for as long as it lives.

The page is written through the file first, as SQLite does with its own: storing a
number needs no more room on the disk. A mark that cannot be made is done without.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import msgspec

from bizlog import diagnostics
from bizlog.delivery import locks

if TYPE_CHECKING:
    from collections.abc import MutableSequence
    from pathlib import Path

    from bizlog.delivery.locks import FileLock

SUFFIX = ".mark"

# Marks of dead processes that lost something; the oldest go.
MOST_MARKS = 1_000

# Of the file: what it is, the two numbers in the machine's byte order, the producer.
_MAGIC = b"bizlog mark 1\n\0\0"
_CELLS = slice(16, 32)
_PRODUCER = slice(32, 4096)
_SIZE = 4096

OFFERED, JOURNALED = 0, 1


class Mark:
    """
    The numbers of one process.

    Args:
        folder: Where its file is, named after the producer.
        producer_id: Whose numbers they are.

    Attributes:
        cells: The highest number offered to the queue, and the highest journaled.
    """

    def __init__(self, folder: Path, producer_id: str) -> None:
        self.path = folder / f"{producer_id}{SUFFIX}"
        self._producer = producer_id.encode()
        self._lock: FileLock | None = None
        self.cells: MutableSequence[int] | memoryview = [0, 0]

    def open(self) -> None:
        """
        Make the file, or make it anew where it is gone; the numbers stay.

        Raises:
            OSError: It cannot be made.
        """
        if self._lock and self._lock.holds:
            return
        self.leave_to_parent()
        lock = locks.take(self.path)
        if lock is None:
            raise OSError(f"another process has locked {self.path}")
        self._lock = lock
        cells = _share(self.path, self._producer)
        # A number that another thread stores between these two lines is made good by
        # the next one, or by the journal.
        cells[OFFERED], cells[JOURNALED] = self.cells
        self.cells = cells

    def journaled(self, sequence: int) -> None:
        """Note that the journal has a number."""
        for cell in (OFFERED, JOURNALED):
            # No call between load and store: the emit path does the same.
            if sequence > self.cells[cell]:  # noqa: PLR1730  # max() is a call
                self.cells[cell] = sequence

    def close(self) -> None:
        """Let the file go; it stays where the journal never had what was offered."""
        if self._lock:
            self._lock.drop(unlink=self.cells[JOURNALED] >= self.cells[OFFERED])
            self._lock = None

    def leave_to_parent(self) -> None:
        """Close the lock's descriptor and touch nothing else."""
        if self._lock:
            self._lock.close()
            self._lock = None


def _share(path: Path, producer: bytes) -> memoryview:
    """Write the whole file, and give the two numbers in it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(descriptor, (_MAGIC + bytes(16) + producer).ljust(_SIZE, b"\0"))
        page = mmap.mmap(descriptor, _SIZE)
    except ValueError:  # the file is shorter: the disk is full
        raise OSError(f"no room for {path}") from None
    finally:
        os.close(descriptor)
    return memoryview(page)[_CELLS].cast("Q")


class MarkInfo(msgspec.Struct, frozen=True):
    """
    What a dead process left.

    Attributes:
        path: The file.
        producer_id: Whose numbers they are.
        offered: The highest number that the process offered to its queue.
        journaled: The highest one that its journal had.
    """

    path: Path
    producer_id: str
    offered: int
    journaled: int


def read_mark(path: Path) -> MarkInfo | None:
    """Read what a process left; None where it lives, or the file is no mark."""
    try:
        data = b"" if locks.is_held(path) else path.read_bytes()
    except OSError:
        return None
    if len(data) != _SIZE or not data.startswith(_MAGIC):
        return None
    offered, journaled = memoryview(data)[_CELLS].cast("Q")
    producer_id = data[_PRODUCER].rstrip(b"\0").decode(errors="replace")
    return MarkInfo(path, producer_id, offered, journaled)


def sweep(folder: Path) -> None:
    """
    Delete the marks of dead processes that lost nothing; tell of the others.

    Raises:
        OSError: The folder cannot be read, or a mark not deleted.
    """
    paths = [path for path in folder.iterdir() if path.suffix == SUFFIX]
    lossy: list[MarkInfo] = []
    for mark in filter(None, map(read_mark, paths)):
        if mark.journaled >= mark.offered:
            mark.path.unlink(missing_ok=True)
        else:
            lossy.append(mark)
    lossy.sort(key=lambda mark: mark.producer_id)  # which begins with the time
    for mark in lossy[:-MOST_MARKS]:
        mark.path.unlink(missing_ok=True)
    _report(lossy, folder)


def _report(lossy: list[MarkInfo], folder: Path) -> None:
    if lossy:
        most = sum(mark.offered - mark.journaled for mark in lossy)
        diagnostics.report(
            "marks",
            f"{len(lossy)} processes that ended left up to {most} events of their "
            f"queues in no journal: `bizlog gaps EVENTS {folder}` names them; delete "
            f"the *{SUFFIX} files when you have seen it",
        )
