"""
What a child process leaves behind however it ends: marks in a shared file, and a report.

The marks are a mapped file, one cell for each event: they are there after SIGKILL,
and setting one costs a fraction of a microsecond. Times are the monotonic clock's,
which all processes of a machine share.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

EMITTED, ACCEPTED = 1, 2


class Marks:
    """
    When each event was emitted and accepted, by its number.

    Args:
        path: The shared file; made where it is not there.
        events: How many numbers there are.
    """

    def __init__(self, path: Path, events: int) -> None:
        self._events = events
        size = 16 * events
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        self._map = mmap.mmap(descriptor, size)
        os.close(descriptor)
        self._cells = memoryview(self._map).cast("d")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cells.release()
        self._map.close()

    def emitted(self, n: int) -> None:
        """Mark that the event was emitted, now."""
        self._cells[2 * n] = time.monotonic()

    def accepted(self, numbers: Iterable[int]) -> None:
        """Mark that the events were accepted, now."""
        now = time.monotonic()
        for n in numbers:
            self._cells[2 * n + 1] = now

    def wait_for_accepted(self, n: int, timeout: float) -> bool:
        """Wait until another process has marked the event."""
        deadline = time.monotonic() + timeout
        while not self._cells[2 * n + 1] and time.monotonic() < deadline:
            time.sleep(0.002)
        return bool(self._cells[2 * n + 1])

    def all_emitted(self, below: int | None = None) -> dict[int, float]:
        """When each emitted event was emitted; only numbers below a limit."""
        return self._read(0, below)

    def all_accepted(self, below: int | None = None) -> dict[int, float]:
        """When each accepted event was accepted; only numbers below a limit."""
        return self._read(1, below)

    def _read(self, offset: int, below: int | None) -> dict[int, float]:
        times = self._cells[offset : 2 * (below or self._events) : 2].tolist()
        return {n: at for n, at in enumerate(times) if at}


class Report:
    """
    What a child has to say, in a file that is always whole.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Any] = {}

    def add(self, **facts: Any) -> None:
        """Write more facts."""
        self._facts |= facts
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._facts, default=str))
        fresh.replace(self._path)

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """Read what a child has written; nothing where it never came to it."""
        try:
            facts: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        return facts
