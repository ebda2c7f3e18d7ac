"""
Links to the partitions of an event hub: one client of the Azure SDK for each.

What is known of the SDK decides the form (all of it measured against 5.15):

- A send hangs for ever when the service releases or modifies a message, whatever its
  `timeout` says: each call is bounded here, and the client is given up after one that
  was cut.
- `server-busy` is sent again at once, without the pause the service asks for: the
  pause is reported, so that bizlog's own back-off keeps it.
- A client closes its links one after the other, up to a second each: with a client
  for each partition they close at the same time, and a fault stays with its partition.

Nothing but a `SinkError` leaves `send` and `ask`. Owned by bizlog's loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from azure.eventhub.exceptions import AuthenticationError

from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
    SinkError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from azure.eventhub import EventDataBatch
    from azure.eventhub.aio import EventHubProducerClient

_First = TypeVar("_First")
_Second = TypeVar("_Second")

Connect: TypeAlias = "Callable[[], Awaitable[EventHubProducerClient]]"

# Seconds that the service asks for in the text of `server-busy`.
BUSY_SECONDS = 4.0

# A client that failed so often in a row is given up for a new one.
MOST_FAILURES = 3

# The SDK's close waits a second for its keep-alive to notice.
CLOSE_SECONDS = 2.0

# The SDK's own time-out comes later than ours: after its own it would send once more.
_LATER = 1.0

_MAX_REASON = 200

_SIZE = "message-size-exceeded"
_MISSING = "Status code: 404"  # what $cbs answers
_OF_THE_EVENTS = frozenset(
    {"argument-error", "argument-out-of-range", "decode-error", "invalid-field"}
)
_HINTS = {
    "server-busy": "the hub is throttled: its throughput units are used up",
    "unauthorized-access": (
        "not authorised: is the key right, and has the identity the role 'Azure Event "
        "Hubs Data Sender'?"
    ),
    "not-found": "there is no such event hub in this namespace",
    "resource-limit-exceeded": "a quota of the namespace is used up",
}


class Layout:
    """
    What is asked of a hub before anything is sent.

    Args:
        partitions: Names of its partitions.
        limit: Most bytes of a batch, as the hub's link says.
    """

    def __init__(self, partitions: list[str], limit: int) -> None:
        self.partitions = partitions
        self.limit = limit


class Links:
    """
    Holds a link for each partition that is used.

    Args:
        connect: Makes a client; reads whatever secret it needs anew.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._links: dict[str, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, partition: str) -> Link:
        """Give the link to a partition, which connects with the first batch."""
        link = self._links.get(partition)
        if link is None:
            link = self._links[partition] = Link(self._connect, self._retire)
        return link

    async def ask(self, seconds: float) -> Layout:
        """
        Ask the hub for its partitions and for the size of a batch.

        Raises:
            RetryableSinkError: There is no answer, or it is a fault.
        """
        client: EventHubProducerClient | None = None
        try:
            async with asyncio.timeout(seconds):
                client = await self._connect()
                partitions, batch = await _both(
                    client.get_partition_ids(), client.create_batch()
                )
        except Exception as error:  # noqa: BLE001  # whatever the SDK meets
            raise RetryableSinkError(_said(failure_of(error, seconds))) from None
        finally:
            if client is not None:
                self._retire(client)
        return Layout(list(partitions), batch.max_size_in_bytes)

    async def close(self) -> None:
        """Close all links at the same time."""
        for link in self._links.values():
            link.give_up()
        self._links.clear()
        if self._closing:
            await asyncio.wait(self._closing)

    def _retire(self, client: EventHubProducerClient) -> None:
        task = asyncio.create_task(_close(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _both(
    first: Coroutine[Any, Any, _First], second: Coroutine[Any, Any, _Second]
) -> tuple[_First, _Second]:
    """Await two answers at the same time; where one fails the other is not left."""
    one, other = asyncio.create_task(first), asyncio.create_task(second)
    try:
        return await asyncio.gather(one, other)
    finally:
        one.cancel()
        other.cancel()


async def _close(client: EventHubProducerClient) -> None:
    with suppress(Exception):  # it may be broken in any way
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


class Link:
    """
    Sends batches to one partition, one at a time.

    Args:
        connect: Makes a client.
        retire: Closes one, in its own time.

    Attributes:
        turn: Held by whoever sends; those who wait come in the order they asked.
    """

    def __init__(
        self, connect: Connect, retire: Callable[[EventHubProducerClient], None]
    ) -> None:
        self._connect = connect
        self._retire = retire
        self._client: EventHubProducerClient | None = None
        self._failures = 0
        self.turn = asyncio.Lock()

    async def send(self, batch: EventDataBatch, seconds: float) -> None:
        """
        Send a batch, and wait until the hub has it.

        Args:
            batch: What to send; it names the partition.
            seconds: How long that may take.

        Raises:
            BatchTooLargeError: The hub takes less in one batch.
            PermanentSinkError: The hub refuses what the batch holds.
            RetryableSinkError: Anything else; the batch may have arrived all the same.
        """
        try:
            async with asyncio.timeout(seconds):
                if self._client is None:
                    self._client = await self._connect()
                await self._client.send_batch(batch, timeout=seconds + _LATER)
        except asyncio.CancelledError:
            self.give_up()
            raise
        except Exception as error:  # noqa: BLE001  # whatever the SDK meets
            self._learn(error)
            raise failure_of(error, seconds) from None
        self._failures = 0

    def _learn(self, error: Exception) -> None:
        self._failures += 1
        cut = isinstance(error, TimeoutError)
        refused = condition_of(error) in {"unauthorized-access", "not-found"}
        if cut or refused or self._failures >= MOST_FAILURES:
            self.give_up()

    def give_up(self) -> None:
        """Have the next batch sent by a new client."""
        client, self._client = self._client, None
        self._failures = 0
        if client is not None:
            self._retire(client)


def condition_of(error: Exception) -> str | None:
    """Read the condition of AMQP (`server-busy`) from what the SDK raised."""
    if isinstance(error, AuthenticationError):
        # The SDK's own word for it varies; a hub that is missing is one, too.
        return "not-found" if _MISSING in str(error) else "unauthorized-access"
    found: Any = getattr(error, "error", None)
    return found.removeprefix("link:") if isinstance(found, str) else None


def failure_of(error: Exception, seconds: float) -> SinkError:
    """
    Tell what follows from what the SDK raised.

    Args:
        error: What it raised.
        seconds: How long it had.
    """
    if isinstance(error, SinkError):
        return error
    if isinstance(error, TimeoutError):
        return RetryableSinkError(f"no answer from the hub within {seconds:.1f} s")
    condition = condition_of(error)
    reason = _reason_of(error, condition)
    if condition == _SIZE:
        return BatchTooLargeError(reason)
    if condition in _OF_THE_EVENTS:
        return PermanentSinkError(reason)
    return RetryableSinkError(
        reason, BUSY_SECONDS if condition == "server-busy" else None
    )


def _reason_of(error: Exception, condition: str | None) -> str:
    words = " ".join(str(error).split())[:_MAX_REASON]
    said = f"{condition or type(error).__name__}: {words}"
    hint = _HINTS.get(condition or "")
    return f"{hint} [{said}]" if hint else said


def _said(failure: SinkError) -> str:
    return f"the hub cannot be asked for its partitions: {failure}"
