"""
An event hub, read with the Azure SDK's consumer on a thread of its own.

The SDK connects anew by itself. What is known of it (5.15) decides the form:

- After a broken connection it gives once more what it had fetched: numbers that were
  given already are left out here.
- Where a link cannot be opened it tries on without a word, and without the calls that
  it makes otherwise while nothing comes: their absence is the sign.
- It takes a second to close a link; that goes on while something else is read.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from bizlog.cli.errors import CommandError
from bizlog.cli.streams import TICK_SECONDS, Message, Span, as_text, name_of
from bizlog.exceptions import BizlogError
from bizlog.sinks import make_sink

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from azure.eventhub import EventData
    from azure.eventhub.aio import EventHubConsumerClient, PartitionContext

    from bizlog.cli.streams import Start

    _Queue: TypeAlias = queue.SimpleQueue[list[Message] | Exception]

# For an answer about all partitions, each of which takes a connection.
ASK_SECONDS = 30.0

# A link that is open says something each second, events or nothing.
ALIVE_SECONDS = 1.0
DEAD_SECONDS = 15.0

# The SDK rests 0.05 s between two batches: large ones make it fast.
_BATCH_EVENTS = 3_000
_BATCHES_AHEAD = 8
_CLOSE_SECONDS = 2.0
_LOOK_SECONDS = 0.05


# What the SDK warns of is told as trouble; without a handler Python prints it.
logging.getLogger("azure").addHandler(logging.NullHandler())


class _Hub(Protocol):
    """What is used of the sink for event hubs, beside what every sink has."""

    async def consumer(self, group: str, **options: Any) -> EventHubConsumerClient: ...
    async def stop(self) -> None: ...


class HubStream:
    """
    One event hub.

    Args:
        url: Of its sink.
        group: The consumer group.

    Attributes:
        name: Its URL, without options.

    Raises:
        ConfigurationError: An option cannot work.
        MissingExtraError: The Azure SDK is not installed.
    """

    def __init__(self, url: str, group: str) -> None:
        self.name = name_of(url)
        self._sink = cast("_Hub", make_sink(url))
        self._group = group
        self._pump: _Pump | None = None
        self._pumps: list[_Pump] = []

    @property
    def trouble(self) -> str | None:
        """Why nothing may come now, as far as is known, or None."""
        return self._pump.trouble if self._pump else None

    @property
    def opened(self) -> bool:
        """Whether all partitions that are read have answered, or one is in trouble."""
        return self._pump is not None and self._pump.opened

    def spans(self) -> list[Span]:
        """
        Ask what each partition holds.

        Raises:
            CommandError: There is no answer, or it is a fault.
        """
        try:
            return asyncio.run(self._ask())
        except TimeoutError:
            reason = f"no answer within {ASK_SECONDS:g} s"
        except BizlogError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # whatever the SDK meets
            reason = as_text(error)
        raise CommandError(f"{self.name}: cannot be read: {reason}") from None

    async def _ask(self) -> list[Span]:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                async with await self._sink.consumer(self._group) as client:
                    ids = await client.get_partition_ids()
                    asked = map(client.get_partition_properties, ids)
                    return [_span_of(found) for found in await asyncio.gather(*asked)]
        finally:
            await self._sink.stop()

    def read(self, starts: Mapping[str, Start]) -> Generator[list[Message]]:
        """
        Read partitions without end, each in its order; close it to end.

        Args:
            starts: Where to begin, by partition; the others are left out.

        Yields:
            What came; an empty list after each tick without anything.

        Raises:
            CommandError: It cannot go on.
        """
        self._pump = pump = _Pump(self._sink, self._group, starts)
        self._pumps.append(pump)
        pump.start()
        try:
            while True:
                try:
                    yield pump.take(TICK_SECONDS)
                except Exception as error:  # noqa: BLE001  # whatever the SDK meets
                    raise CommandError(f"{self.name}: {as_text(error)}") from None
        finally:
            pump.end()

    def close(self) -> None:
        """Wait until all connections are closed."""
        while self._pumps:
            self._pumps.pop().join()


def _span_of(found: Mapping[str, Any]) -> Span:
    end = found["last_enqueued_sequence_number"] + 1
    first = end if found["is_empty"] else found["beginning_sequence_number"]
    return Span(found["id"], max(0, first), end, found["last_enqueued_time_utc"])


class _Pump(threading.Thread):
    """The SDK's loop: puts what it receives where another thread takes it."""

    def __init__(self, sink: _Hub, group: str, starts: Mapping[str, Start]) -> None:
        super().__init__(name="bizlog-hub", daemon=True)
        self.trouble: str | None = None
        self._sink = sink
        self._group = group
        self._starts = starts
        self._got: _Queue = queue.SimpleQueue()
        self._over = threading.Event()
        self._last = dict.fromkeys(starts, -1)
        self._alive = dict.fromkeys(starts, time.monotonic())
        self._unheard = set(starts)
        self._links = 0

    @property
    def opened(self) -> bool:
        """Whether all partitions have answered, or one is in trouble."""
        return not self._unheard or self.trouble is not None

    def take(self, seconds: float) -> list[Message]:
        """Take what came; waits so long for something."""
        try:
            got = self._got.get(timeout=seconds)
        except queue.Empty:
            return []
        if isinstance(got, Exception):
            raise got
        return got

    def end(self) -> None:
        """Have it end, in its own time."""
        self._over.set()

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:  # noqa: BLE001  # whatever the SDK meets
            self._got.put(error)

    async def _run(self) -> None:
        client = await self._sink.consumer(self._group, load_balancing_interval=1.0)
        receiving = asyncio.create_task(self._receive(client))
        try:
            while not (self._over.is_set() or receiving.done()):
                self._watch()
                await asyncio.wait((receiving,), timeout=_LOOK_SECONDS)
        finally:
            await self._leave(receiving)
            await client.close()
            await self._sink.stop()
        if not self._over.is_set():
            receiving.result()

    async def _receive(self, client: EventHubConsumerClient) -> None:
        only = next(iter(self._starts)) if len(self._starts) == 1 else None
        await client.receive_batch(
            self._on_batch,
            partition_id=only,
            starting_position={p: _position_of(s) for p, s in self._starts.items()},
            max_batch_size=_BATCH_EVENTS,
            prefetch=_BATCH_EVENTS,
            max_wait_time=ALIVE_SECONDS,
            on_error=self._on_error,
            on_partition_initialize=self._on_open,
            on_partition_close=self._on_close,
        )

    async def _on_batch(
        self, context: PartitionContext, events: list[EventData]
    ) -> None:
        partition = context.partition_id
        self._alive[partition] = time.monotonic()
        self._unheard.discard(partition)
        self.trouble = None
        last = self._last.get(partition, -1)
        found = [each for each in _messages(partition, events) if each.number > last]
        if not found:
            return
        self._last[partition] = found[-1].number
        while self._got.qsize() >= _BATCHES_AHEAD and not self._over.is_set():
            await asyncio.sleep(_LOOK_SECONDS / 5)
            self._alive[partition] = time.monotonic()
        self._got.put(found)
        await context.update_checkpoint(events[-1])  # in memory: where it goes on

    async def _on_error(self, _context: Any, error: Exception) -> None:
        self.trouble = as_text(error)

    async def _on_open(self, _context: PartitionContext) -> None:
        self._links += 1

    async def _on_close(self, _context: PartitionContext, _reason: Any) -> None:
        self._links -= 1

    def _watch(self) -> None:
        silent = time.monotonic() - DEAD_SECONDS
        dead = [partition for partition, at in self._alive.items() if at < silent]
        if dead and self.trouble is None:
            self.trouble = (
                f"partition {dead[0]} cannot be opened: is the hub there, and its "
                f"consumer group {self._group}?"
            )

    async def _leave(self, receiving: asyncio.Task[None]) -> None:
        receiving.cancel()
        until = time.monotonic() + _CLOSE_SECONDS
        while self._links and time.monotonic() < until:
            await asyncio.wait((receiving,), timeout=_LOOK_SECONDS)
        receiving.cancel()  # it would rest for a second
        await asyncio.wait((receiving,))


def _position_of(start: Start) -> str | int | dt.datetime:
    if isinstance(start, int):
        # The message behind another one: the service refuses one that is not there.
        return start - 1 if start > 0 else "-1"
    return start - dt.timedelta(milliseconds=1)  # the service takes what is later


def _messages(partition: str, events: list[EventData]) -> Iterator[Message]:
    for event in events:
        if event.sequence_number is not None:
            yield Message(partition, event.sequence_number, _body_of(event))


def _body_of(event: EventData) -> bytes:
    """Take the bytes; a body of another kind is none of bizlog's."""
    with suppress(TypeError, ValueError):
        body: Any = event.body
        return body if isinstance(body, bytes) else b"".join(body)
    return b""
