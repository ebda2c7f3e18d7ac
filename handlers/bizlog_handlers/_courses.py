"""
The way of one batch to one partition: messages loaded by size, sent in order.

While one load is under way the next one is made up. What follows a load that could not
be sent is not sent either, so that no event overtakes one of its key. An event that no
batch can hold is refused alone. Owned by bizlog's loop, which is given a turn while
messages are made up.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from azure.eventhub import EventDataBatch

from bizlog.exceptions import PermanentSinkError, RetryableSinkError
from bizlog.sinks import ACCEPTED, Rejection, SendResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bizlog.sinks import Record
    from bizlog_handlers._envelopes import Envelopes
    from bizlog_handlers._links import Link
    from bizlog_handlers._packing import Parcel

# So many messages are made up at a stretch: 5 ms at the most, where all is shown.
_STRETCH = 64

# Nothing is sent with less time than this: it could only be cut.
_LEAST_SECONDS = 0.05


class Outcome:
    """
    What became of the events of a batch, gathered from all partitions.

    Args:
        events: How many there are.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self._rejected: list[Rejection] = []
        self._retry: list[int] = []
        self._retry_after: float | None = None
        self._reason: str | None = None

    def reject(self, parcel: Parcel, reason: str) -> None:
        """Note that the events of a message are refused for good."""
        self._rejected += [Rejection(index, reason) for index in parcel.indices]

    def give_back(self, parcel: Parcel) -> None:
        """Note that the events of a message are to be sent again."""
        self._retry += parcel.indices

    def blame(self, failure: RetryableSinkError) -> None:
        """Note why: the first reason and the longest pause count."""
        self._reason = self._reason or str(failure)
        if failure.retry_after is not None:
            self._retry_after = max(self._retry_after or 0.0, failure.retry_after)

    def result(self) -> SendResult:
        """
        Sum up.

        Raises:
            RetryableSinkError: Nothing at all was taken: the hub is out of reach.
        """
        if not self._rejected and not self._retry:
            return ACCEPTED
        if len(self._retry) == self._events:
            raise RetryableSinkError(self._reason or "", self._retry_after)
        return SendResult(
            tuple(self._rejected), tuple(self._retry), self._retry_after, self._reason
        )


class Load(msgspec.Struct, frozen=True):
    """
    One batch of the SDK.

    Attributes:
        batch: What is sent.
        parcels: What it holds.
    """

    batch: EventDataBatch
    parcels: Sequence[Parcel]


class Course:
    """
    Sends messages to one partition.

    Args:
        link: The link to it.
        partition: Its name.
        limit: Most bytes of a batch.
        parcels: What to send, in order.
        records: The batch that they come from.
        envelopes: Makes messages of them.
        outcome: Learns what became of them.
        left: Says how many seconds there are left.
    """

    def __init__(
        self,
        *,
        link: Link,
        partition: str,
        limit: int,
        parcels: Iterator[Parcel],
        records: Sequence[Record],
        envelopes: Envelopes,
        outcome: Outcome,
        left: Callable[[], float],
    ) -> None:
        self._link = link
        self._partition = partition
        self._limit = limit
        self._parcels = parcels
        self._records = records
        self._envelopes = envelopes
        self._outcome = outcome
        self._left = left
        self._sending: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Send all, or as much as goes; never raises for what the hub does."""
        async with self._link.turn:
            try:
                while load := await self._next_load():
                    if not await self._is_sent():
                        self._give_back([*load.parcels, *self._parcels])
                        return
                    self._sending = asyncio.create_task(self._send(load))
                await self._is_sent()
            finally:
                if self._sending is not None:
                    self._sending.cancel()

    async def _is_sent(self) -> bool:
        """Wait for the load that is under way; say whether others may follow it."""
        return self._sending is None or await self._sending

    async def _next_load(self) -> Load | None:
        batch = self._new_batch()
        parcels: list[Parcel] = []
        for parcel in self._parcels:
            if self._add(batch, parcel):
                parcels.append(parcel)
                if len(parcels) % _STRETCH == 0:
                    await asyncio.sleep(0)
            elif parcels:
                self._parcels = chain((parcel,), self._parcels)  # for the next load
                break
            else:
                self._outcome.reject(parcel, self._too_large(parcel))
        return Load(batch, parcels) if parcels else None

    def _new_batch(self) -> EventDataBatch:
        # Not the client's create_batch: it would open one more link, to no partition.
        return EventDataBatch(self._limit, partition_id=self._partition)

    def _add(self, batch: EventDataBatch, parcel: Parcel) -> bool:
        try:
            batch.add(self._envelopes.seal(parcel, self._records))
        except ValueError:  # the SDK's word for: no room
            return False
        return True

    def _too_large(self, parcel: Parcel) -> str:
        return (
            f"the event is too large: {len(parcel.body)} bytes, of the {self._limit} "
            "that the hub takes in one message with all that describes it"
        )

    async def _send(self, load: Load) -> bool:
        try:
            await self._send_in_time(load.batch)
        except PermanentSinkError as refusal:
            return await self._send_apart(load.parcels, refusal)
        except RetryableSinkError as failure:
            self._outcome.blame(failure)
            self._give_back(load.parcels)
            return False
        return True

    async def _send_in_time(self, batch: EventDataBatch) -> None:
        left = self._left()
        if left < _LEAST_SECONDS:
            raise RetryableSinkError(
                "the time for this batch is over: see send_timeout"
            )
        await self._link.send(batch, left)

    async def _send_apart(
        self, parcels: Sequence[Parcel], refusal: PermanentSinkError
    ) -> bool:
        """Find what the hub refuses by sending halves, one after the other."""
        if len(parcels) == 1:
            self._outcome.reject(parcels[0], str(refusal))
            return True
        middle = len(parcels) // 2
        first, second = parcels[:middle], parcels[middle:]
        if await self._send(self._loaded(first)):
            return await self._send(self._loaded(second))
        self._give_back(second)
        return False

    def _loaded(self, parcels: Sequence[Parcel]) -> Load:
        batch = self._new_batch()
        for parcel in parcels:
            self._add(batch, parcel)  # they had room together before
        return Load(batch, parcels)

    def _give_back(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self._outcome.give_back(parcel)
