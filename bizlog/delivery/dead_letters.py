"""
The dead-letter folder: what could not be delivered, with the reason.

One JSON object a line; a file (0600) for each producer in a folder (0700):

    {"reason", "path"|null, "sink"|null, "attempts", "first_at", "last_at",
     "event_id"|null, "record"}

`record` is the event as it would have been sent, privacy policies applied. A line is
either whole or not there: a write that fails is taken back.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class DeadLetterFolder:
    """
    Where dead letters are kept; created with the first one.

    Args:
        folder: The folder.
        producer_id: Names the file, so that no two processes share one.
    """

    def __init__(self, folder: str | os.PathLike[str], producer_id: str) -> None:
        from pathlib import Path  # noqa: PLC0415  # 4 ms that the import need not take

        self.path = Path(folder) / f"dead-letters-{producer_id}.jsonl"
        # Lanes write from several threads; what one takes back must be its own. Never
        # taken on the emit path.
        self._lock = threading.Lock()

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """
        Append dead letters, all or none.

        Raises:
            OSError: The folder cannot be written; nothing was kept.
        """
        data = msgspec.json.Encoder().encode_lines(letters)
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            _append(descriptor, data)
        finally:
            os.close(descriptor)


def _append(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, before)
        raise
