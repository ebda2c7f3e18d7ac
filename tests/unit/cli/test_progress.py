"""The progress line: live on a terminal, plain elsewhere."""

from __future__ import annotations

import io

from bizlog.cli.progress import LIVE_SECONDS, PLAIN_SECONDS, Progress
from bizlog.testing import ManualClock


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_few_seconds():
    """Without a terminal one whole line appears at each interval, no control codes."""
    stream, clock = io.StringIO(), ManualClock()
    with Progress("lines", stream, clock) as progress:
        progress.update(10, lambda: 0.1)
        clock.advance(PLAIN_SECONDS)
        progress.update(1_000, lambda: 0.25)
        progress.update(1_001, lambda: 0.25)
    assert stream.getvalue() == "lines:  25%  1,000 events  200/s  15 s left\n"


def test_a_terminal_is_redrawn_and_left_clean():
    """On a terminal the line replaces itself and is gone at the end."""
    stream, clock = Terminal(), ManualClock()
    with Progress("lines", stream, clock) as progress:
        clock.advance(LIVE_SECONDS)
        progress.update(5, lambda: 0.5)
    assert stream.getvalue() == "\rlines:  50%  5 events  50/s  0 s left\x1b[K\r\x1b[K"


def test_nothing_done_yet_is_no_division_by_zero():
    """Before the first byte there is no estimate."""
    stream, clock = io.StringIO(), ManualClock()
    progress = Progress("lines", stream, clock)
    clock.advance(PLAIN_SECONDS)
    progress.update(0, lambda: 0.0)
    assert stream.getvalue().endswith("starting\n")
