"""
Progress on one line: events, rate and time left.

On a terminal the line is redrawn in place; elsewhere (a log file, CI) a plain line
appears every few seconds. Writes to standard error, so that output can be piped.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

LIVE_SECONDS = 0.1
PLAIN_SECONDS = 5.0


class Progress:
    """
    Shows how far a long run has come.

    Args:
        label: What is going on.
        stream: Where to write; by default standard error.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        label: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._clock = clock
        self._interval = LIVE_SECONDS if self._live else PLAIN_SECONDS
        self._start = clock()
        self._next = self._start + self._interval

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def update(self, events: int, fraction: Callable[[], float]) -> None:
        """
        Show the state, if it is time to; cheap enough for every event.

        Args:
            events: Events so far.
            fraction: Says how much is done, from 0 to 1; called when it is shown.
        """
        if self._clock() >= self._next:
            self._next = self._clock() + self._interval
            self._show(self._line(events, fraction()))

    def _line(self, events: int, done: float) -> str:
        seconds = self.seconds
        rate = events / seconds if seconds else 0.0
        left = f"{seconds / done - seconds:,.0f} s left" if done > 0 else "starting"
        return f"{self._label}: {done:4.0%}  {events:,} events  {rate:,.0f}/s  {left}"

    def _show(self, line: str) -> None:
        # \r and "erase to the end of the line" redraw in place (ECMA-48).
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
