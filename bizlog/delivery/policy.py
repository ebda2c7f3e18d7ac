"""
When a batch is due, and what follows from a sink's answer. Sans-I/O.

No clock, no thread, no loop: time comes in as `now`, in monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bizlog._wording import describe_error

if TYPE_CHECKING:
    from bizlog.sinks import SendResult


class Batcher:
    """
    Decides when what has gathered for a sink is sent.

    Args:
        batch_size: Events that make a batch due at once.
        batch_bytes: Bytes that make a batch due at once.
        flush_interval: Seconds after which the oldest event makes it due.
    """

    def __init__(
        self, batch_size: int, batch_bytes: int, flush_interval: float
    ) -> None:
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._flush_interval = flush_interval
        self._oldest_at = 0.0
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int, now: float) -> None:
        """Note that records have gathered."""
        if not self.events:
            self._oldest_at = now
        self.events += events
        self.bytes += size

    def remove(self, events: int, size: int, now: float) -> None:
        """Note that the oldest records were taken; the rest waits from now on."""
        self.events -= events
        self.bytes -= size
        self._oldest_at = now

    def due_in(self, now: float) -> float | None:
        """Seconds until a batch is due: 0.0 at once, None while nothing has gathered."""
        if not self.events:
            return None
        if self.events >= self._batch_size or self.bytes >= self._batch_bytes:
            return 0.0
        return max(0.0, self._oldest_at + self._flush_interval - now)


class Refusal(msgspec.Struct, frozen=True):
    """
    One event of a batch that goes to the dead letters.

    Attributes:
        index: Position in the batch.
        reason: Why.
        path: JSON path of the fault, where the sink named it.
    """

    index: int
    reason: str
    path: str | None = None


def refusals(events: int, answer: SendResult | BaseException) -> list[Refusal]:
    """
    Read a sink's answer for a batch: which events does it not have?

    Nothing is sent twice yet, so what a sink would take later is refused as well.

    Args:
        events: How many events the batch held.
        answer: The sink's answer, or what it raised.
    """
    if isinstance(answer, BaseException):
        reason = describe_error(answer)
        return [Refusal(index, reason) for index in range(events)]
    found = {
        rejection.index: Refusal(rejection.index, rejection.reason, rejection.path)
        for rejection in answer.rejected
    }
    reason = answer.retry_reason or "the sink could not take it now"
    for index in answer.retry:
        found.setdefault(index, Refusal(index, reason))
    return [found[index] for index in sorted(found) if 0 <= index < events]
