"""
A partition of a hub or topic, as a source of events that has an end.

The end is the one that the partition had when it was looked at. Positions count the
lines of messages, so that reading goes on in the middle of a message that holds several
events.
"""

from __future__ import annotations

import datetime as dt
import time
from contextlib import closing
from typing import TYPE_CHECKING

from bizlog.cli.errors import CommandError
from bizlog.cli.streams import LINES_IN_MESSAGE, entries_of
from bizlog.cli.tables import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bizlog.cli.entries import Entry
    from bizlog.cli.streams import Message, Span, Start, Stream

# A partition that has more, by its own word, and gives nothing for so long.
PATIENCE_SECONDS = 30.0

# Events are sent after their time; clocks of producers may be ahead of the broker's.
CLOCKS = dt.timedelta(minutes=10)


class StreamSource:
    """
    One partition.

    Args:
        stream: Of what.
        span: What it held when it was looked at.
        clock: Monotonic seconds.

    Attributes:
        path: Name of the partition.
        size: Messages in it.
        modified: Number of the message that comes behind them.
        damage: After reading: what is not there any more, or None.
        since: Events from this time on are wanted, as events carry it; None wants all.
    """

    def __init__(
        self, stream: Stream, span: Span, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = f"{stream.name}/{span.partition}"
        self.size = span.end - span.first
        self.modified = span.end
        self.damage: str | None = None
        self.since: str | None = None
        self._stream = stream
        self._span = span
        self._clock = clock
        self._next = span.first
        self._stopped = False

    @property
    def read_bytes(self) -> int:
        """How many of its messages were read."""
        return max(0, min(self._next, self._span.end) - self._span.first)

    def stop(self) -> None:
        """Have the reading end before its end; from any thread."""
        self._stopped = True

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """
        Read the entries behind a position.

        Args:
            after: The position; 0 begins with the first.

        Raises:
            CommandError: The stream cannot be read, or gives nothing for a long time.
        """
        self._note_loss(after)
        for message in self._messages(self._start(after)):
            for entry in entries_of(self.path, message):
                if entry.place.line > after:
                    yield entry
        if not self._stopped:
            self._next = self._span.end

    def _note_loss(self, after: int) -> None:
        expected = (after + LINES_IN_MESSAGE - 1) // LINES_IN_MESSAGE
        if after and expected < self._span.first:
            lost = counted(self._span.first - expected, "message")
            self.damage = (
                f"{self.path}: {lost} from {expected:,} on are no longer kept there"
            )

    def _start(self, after: int) -> Start:
        if after:
            return max(self._span.first, after // LINES_IN_MESSAGE)
        if self.since is None:
            return self._span.first
        return dt.datetime.fromisoformat(self.since) - CLOCKS

    def _messages(self, start: Start) -> Iterator[Message]:
        """Give the messages up to the end; none where there is nothing to wait for."""
        partition, end = self._span.partition, self._span.end
        if self.size == 0 or _is_behind(start, self._span):
            return
        with closing(self._stream.read({partition: start})) as reading:
            heard = self._clock()
            for messages in reading:
                if self._stopped:
                    return
                if not messages and self._clock() - heard > PATIENCE_SECONDS:
                    self._check()
                    return
                for message in messages:
                    if message.body is not None and message.number < end:
                        yield message
                    self._next = message.number + (message.body is not None)
                    if self._next >= end:
                        return
                heard = self._clock() if messages else heard

    def _check(self) -> None:
        """Take silence for the end where nothing is left, else for a fault."""
        now = {span.partition: span for span in self._stream.spans()}
        if now[self._span.partition].first < self._span.end:
            why = f": {self._stream.trouble}" if self._stream.trouble else ""
            raise CommandError(
                f"{self.path}: gave nothing for {PATIENCE_SECONDS:g} s{why}"
            )


def _is_behind(start: Start, span: Span) -> bool:
    """Whether all messages are before the start, and none would be given."""
    if isinstance(start, int):
        return start >= span.end
    return span.last_at is not None and start > span.last_at


def sources_of(stream: Stream) -> list[StreamSource]:
    """
    Look at all partitions.

    Raises:
        CommandError: They cannot be looked at.
    """
    return [StreamSource(stream, span) for span in stream.spans()]
