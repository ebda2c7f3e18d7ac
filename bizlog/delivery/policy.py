"""
When a batch is due, and what follows from a sink's answer. Sans-I/O.

No clock, no thread, no loop: time comes in as `now`, in monotonic seconds.
"""

from __future__ import annotations

import msgspec

from bizlog._wording import describe_error
from bizlog.sinks import SendResult


class Batcher:
    """
    Decides when what has gathered for a sink is sent.

    Args:
        batch_size: Events that make a batch due at once.
        batch_bytes: Bytes that make a batch due at once.
        flush_interval: Seconds after which the oldest event makes it due.

    Attributes:
        batch_size: As given.
        events: Events that have gathered.
        bytes: Bytes of them.
    """

    def __init__(
        self, batch_size: int, batch_bytes: int, flush_interval: float
    ) -> None:
        self.batch_size = batch_size
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
        """Seconds until a batch is due: 0.0 at once, None while nothing gathered."""
        if not self.events:
            return None
        if self.events >= self.batch_size or self.bytes >= self._batch_bytes:
            return 0.0
        return max(0.0, self._oldest_at + self._flush_interval - now)


class Refusal(msgspec.Struct, frozen=True):
    """
    One event of a batch that goes to the dead letters.

    Attributes:
        index: Position in the batch.
        reason: Why.
        path: JSON path of the fault, where the sink named it.
        error_type: Name of the fault's kind in the metrics: the class of what was
            raised, or a word of ours.
    """

    index: int
    reason: str
    path: str | None = None
    error_type: str = "rejected"


def refusals(events: int, answer: object) -> list[Refusal]:
    """
    Read a sink's answer for a batch: which events does it not have?

    Nothing is sent twice yet, so what a sink would take later is refused as well.

    Args:
        events: How many events the batch held.
        answer: The sink's answer, or what it raised; None accepts, as in the seed.
            An answer that cannot be read refuses the whole batch.
    """
    if answer is None:
        return []
    if isinstance(answer, SendResult):
        try:
            return _read(events, answer)
        except Exception as error:  # noqa: BLE001  # foreign data in untyped fields
            answer = error
    if not isinstance(answer, BaseException):
        answer = TypeError(f"expected a SendResult, got {type(answer).__name__}")
    reason, kind = reason_of(answer), type(answer).__name__
    return [Refusal(index, reason, error_type=kind) for index in range(events)]


def _read(events: int, answer: SendResult) -> list[Refusal]:
    found = {
        rejection.index: Refusal(
            rejection.index,
            _writable(rejection.reason),
            None if rejection.path is None else _writable(rejection.path),
        )
        for rejection in answer.rejected
    }
    reason = _writable(answer.retry_reason or "the sink could not take it now")
    for index in answer.retry:
        found.setdefault(index, Refusal(index, reason, error_type="retry"))
    return [found[index] for index in sorted(found) if 0 <= index < events]


def reason_of(error: BaseException) -> str:
    """Say what failed; whatever was raised, in text that UTF-8 can write."""
    try:
        return _writable(describe_error(error))
    except Exception:  # noqa: BLE001  # a foreign __str__
        return type(error).__name__


def _writable(text: object) -> str:
    from bizlog._detectors import scrub  # noqa: PLC0415  # only for messages

    # A sink may quote the event that it refuses.
    return scrub(str(text)).encode("utf-8", "replace").decode()
