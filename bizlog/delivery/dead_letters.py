"""
The dead-letter folder: what could not be delivered, with the reason.

One JSON object a line; a file (0600) for each producer in a folder (0700):

    {"reason", "path"|null, "sink"|null, "attempts", "first_at", "last_at",
     "event_id"|null, "record"}

`record` is the event as it would have been sent, privacy policies applied. A line is
either whole or not there: a write that fails is taken back. The folder has a limit of
its own, over the files of all processes; what does not fit is an error, as on a full
disk.

A file can be taken away from its writer (`take_file`, for `bizlog dead-letters`): each
write opens the file by its name and makes sure, under a lock, that it still has it.
"""

from __future__ import annotations

import datetime as dt
import errno
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MAX_BYTES = 1 << 30

# Other processes write into the folder, too, and a replay makes room in it: how long
# what was measured is believed. A scan of 1,000 files takes 2 ms.
SCAN_SECONDS = 10.0
_SCAN_FULL_SECONDS = 1.0


class DeadLetter(msgspec.Struct, frozen=True):
    """
    One event that was given up.

    Attributes:
        reason: Why; names fields and types, never values.
        path: JSON path of the fault, or None.
        sink: The sink that refused it, or None when it was never accepted.
        attempts: How often it was sent.
        first_at: RFC 3339 time of the first attempt, or of the refusal.
        last_at: RFC 3339 time of the last attempt.
        event_id: The event's id, or None where it got none.
        record: The event as JSON.
    """

    reason: str
    path: str | None
    sink: str | None
    attempts: int
    first_at: str
    last_at: str
    event_id: str | None
    record: msgspec.Raw


def wall_clock() -> str:
    """Say the time in UTC, RFC 3339 with microseconds."""
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    return f"{now.isoformat(timespec='microseconds')}Z"


class RefusedLetters:
    """
    Dead letters of refused events, on their way from callers to bizlog's thread.

    Bounded in letters and bytes: where the folder is out of reach, memory is not the
    place to keep them. No lock; `append` and `take` may meet in any thread.

    Args:
        max_letters: Most letters that wait.
        max_bytes: Most bytes of their events.

    Attributes:
        lost: Letters that found no room.
    """

    def __init__(self, max_letters: int, max_bytes: int) -> None:
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._letters: deque[DeadLetter] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the events in the letters that wait."""
        return self._bytes_in - self._bytes_out

    def has_room(self) -> bool:
        """Whether one more letter would be kept."""
        return (
            len(self._letters) < self._max_letters
            and self._bytes_in - self._bytes_out < self._max_bytes
        )

    def append(self, letter: DeadLetter) -> None:
        """Keep a letter, or count it as lost."""
        if not self.has_room():
            self.lost += 1
            return
        size = len(memoryview(letter.record))
        self._letters.append(letter)
        self._bytes_in += size

    def take(self) -> list[DeadLetter]:
        """Take out all that wait."""
        taken = [self._letters.popleft() for _ in range(len(self._letters))]
        size = sum(len(memoryview(letter.record)) for letter in taken)
        self._bytes_out += size
        return taken


class _Allowance:
    """
    What a folder may still take: measured now and then, counted in between.

    Args:
        folder: The folder, which may not exist yet.
        max_bytes: Most bytes of all its files.
        clock: Monotonic seconds.
    """

    def __init__(
        self, folder: Path, max_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._used = 0
        self._scan_at = float("-inf")

    def claim(self, size: int) -> None:
        """
        Make sure that so many bytes fit.

        Raises:
            OSError: They do not: ENOSPC, as a full disk says it.
        """
        now = self._clock()
        if now >= self._scan_at:
            self._used = _bytes_in(self._folder)
            self._scan_at = now + SCAN_SECONDS
        if self._used + size > self._max_bytes:
            self._scan_at = min(self._scan_at, now + _SCAN_FULL_SECONDS)
            raise OSError(
                errno.ENOSPC,
                f"the folder has reached its limit of {self._max_bytes:,} bytes; make "
                "room with `bizlog dead-letters replay` or `drop`",
            )

    def use(self, size: int) -> None:
        """Count bytes that were written."""
        self._used += size


def _bytes_in(folder: Path) -> int:
    used = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # replayed at this very moment
                if entry.is_file(follow_symlinks=False):
                    used += entry.stat(follow_symlinks=False).st_size
    return used


class DeadLetterFolder:
    """
    Where dead letters are kept; created with the first one.

    Args:
        folder: The folder.
        producer_id: Names the file, so that no two processes share one.
        max_bytes: Most bytes of all files of the folder.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        producer_id: str,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from pathlib import Path  # noqa: PLC0415  # 4 ms that the import need not take

        self.path = Path(folder) / f"dead-letters-{producer_id}.jsonl"
        self._allowance = _Allowance(self.path.parent, max_bytes, clock)
        # Lanes write from several threads; what one takes back must be its own. Never
        # taken on the emit path.
        self._lock = threading.Lock()

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """
        Append dead letters, all or none.

        Raises:
            OSError: The folder cannot be written, or is full; nothing was kept.
        """
        data = msgspec.json.Encoder().encode_lines(letters)
        with self._lock:
            self._allowance.claim(len(data))
            self._write(data)
            self._allowance.use(len(data))

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = self._open()
        try:
            _append(descriptor, data)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file for appending, locked, so that nobody takes it meanwhile."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            descriptor = os.open(self.path, flags, 0o600)
            try:
                _lock_file(descriptor)
                if self._is_mine(descriptor):
                    return descriptor
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_mine(self, descriptor: int) -> bool:
        """Whether the file still has its name: it may have been taken away."""
        try:
            named = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))


def take_file(path: Path, taken: Path) -> None:
    """
    Give a letter file another name; its writer begins a new one with the next letter.

    When this returns, no write into the file is under way, and none will begin.

    Args:
        path: The file.
        taken: Its new name, in the same folder.

    Raises:
        OSError: It cannot be renamed.
    """
    path.rename(taken)
    descriptor = os.open(taken, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock_file(descriptor)  # whoever held the file before the rename has written
    finally:
        os.close(descriptor)


def _lock_file(descriptor: int) -> None:
    """Wait until nobody else writes; until the descriptor is closed nobody will."""
    with suppress(ImportError, OSError):  # Windows; file systems without locks
        import fcntl  # noqa: PLC0415  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _append(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, before)
        raise
