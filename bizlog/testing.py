"""
For tests of users and of bizlog itself: sinks in memory, sinks that fail, a clock.

    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(source="test", sinks=[sink]) as client:
        client.send_sync("order.placed", order_id="42")
    assert sink.events[0]["order_id"] == "42"
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bizlog.exceptions import RetryableSinkError
from bizlog.sinks import ACCEPTED, BaseSink, Batch, Event, Rejection, SendResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.sinks import Record


class MemorySink(BaseSink):
    """
    Keeps what it gets.

    Attributes:
        batches: The batches, in order of arrival.
        calls: Names of the methods that were called, in order, without `deliver`.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.calls: list[str] = []

    @property
    def records(self) -> list[Record]:
        """All records, in order of arrival."""
        return [record for batch in self.batches for record in batch.records]

    @property
    def events(self) -> list[Event]:
        """All events, decoded, in order of arrival."""
        return [record.event for record in self.records]

    async def start(self) -> None:
        """Note the call."""
        self.calls.append("start")

    async def stop(self) -> None:
        """Note the call."""
        self.calls.append("stop")

    async def flush(self) -> None:
        """Note the call."""
        self.calls.append("flush")

    async def deliver(self, batch: Batch) -> SendResult:
        """Keep the batch."""
        self.batches.append(batch)
        return ACCEPTED


class FaultySink(MemorySink):
    """
    Fails as told, then keeps what it gets.

    Args:
        fail_calls: How many calls of `deliver` fail before it recovers; None fails for
            ever.
        error: What these calls raise.
        reject: Indices that every batch refuses for good.
        retry: Indices that every batch asks for again.
        delay: Seconds that each `deliver` takes.
        fail_start: How many calls of `start` fail first.
    """

    def __init__(
        self,
        *,
        fail_calls: int | None = 0,
        error: BaseException | None = None,
        reject: Sequence[int] = (),
        retry: Sequence[int] = (),
        delay: float = 0.0,
        fail_start: int = 0,
    ) -> None:
        super().__init__()
        self._failures_left = fail_calls
        self._error = error or RetryableSinkError("the test says no")
        self._reject = reject
        self._retry = retry
        self._delay = delay
        self._start_failures_left = fail_start

    async def start(self) -> None:
        """Fail as often as told."""
        await super().start()
        if self._start_failures_left > 0:
            self._start_failures_left -= 1
            raise self._error

    async def deliver(self, batch: Batch) -> SendResult:
        """Fail as often as told, else keep what is not rejected."""
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._fails():
            raise self._error
        events = len(batch.records)
        rejected = [Rejection(i, "the test rejects it") for i in self._reject]
        refused = {*self._reject, *self._retry}
        kept = [r for i, r in enumerate(batch.records) if i not in refused]
        self.batches.append(
            Batch(batch.journal_id, batch.first, batch.last, tuple(kept))
        )
        return SendResult(
            rejected=tuple(r for r in rejected if r.index < events),
            retry=tuple(i for i in self._retry if i < events),
        )

    def _fails(self) -> bool:
        if self._failures_left is None:
            return True
        if self._failures_left > 0:
            self._failures_left -= 1
            return True
        return False


class ManualClock:
    """
    Monotonic seconds that pass only when told.

    Args:
        now: Where it starts.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass; also fits where a `sleep` is expected."""
        self.now += seconds

    sleep = advance
