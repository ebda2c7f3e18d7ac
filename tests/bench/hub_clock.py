"""Wall clock and CPU time of a stretch, all threads of this process together."""

from __future__ import annotations

from time import perf_counter, process_time
from typing import Self


class Clock:
    """Times a `with` block; seconds."""

    def __enter__(self) -> Self:
        self._cpu, self._start = process_time(), perf_counter()
        return self

    def __exit__(self, *_error: object) -> None:
        self.seconds = perf_counter() - self._start
        self.cpu_seconds = process_time() - self._cpu

    @property
    def told(self) -> dict[str, float]:
        """What was measured, by name."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
