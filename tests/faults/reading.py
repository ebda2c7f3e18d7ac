"""
Reads back what a hub or a topic holds, with the real consumer clients and nothing else.

How much there is to read is what server or broker tell such clients: the number of the
last event of each partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

READ_SECONDS = 240.0
_AT_ONCE = 5_000


class Landed(NamedTuple):
    """
    One event that was read.

    Attributes:
        partition: Where it was.
        key: Of its message.
        body: JSON.
        message_id: What the message says beside the body; None in packs.
    """

    partition: str
    key: str | None
    body: bytes
    message_id: str | None


def read_hub(connection_string: str, hub: str) -> list[Landed]:
    """Read all that a hub holds, by partition, in order."""
    return [*_by_partition(asyncio.run(_receive(connection_string, hub)), _of_hub)]


async def _receive(connection_string: str, hub: str) -> dict[str, list[Any]]:
    from azure.eventhub.aio import EventHubConsumerClient  # noqa: PLC0415  # an extra

    client = EventHubConsumerClient.from_connection_string(
        connection_string, "$Default", eventhub_name=hub
    )
    async with client, asyncio.timeout(READ_SECONDS):
        names = await client.get_partition_ids()
        found = await asyncio.gather(*(_drain(client, name) for name in names))
        return dict(zip(names, found, strict=True))


async def _last_of(client: Any, partition: str) -> int:
    found = await client.get_partition_properties(partition)
    return -1 if found["is_empty"] else found["last_enqueued_sequence_number"]


async def _drain(client: Any, partition: str) -> list[Any]:
    """Receive a partition from its first event to its last."""
    found: list[Any] = []
    last = await _last_of(client, partition)
    done = asyncio.Event()

    async def take(_: Any, events: list[Any]) -> None:
        found.extend(events)
        if found[-1].sequence_number >= last:
            done.set()

    if last < 0:
        return found
    how = {"prefetch": _AT_ONCE, "max_batch_size": _AT_ONCE, "starting_position": "-1"}
    receiving = client.receive_batch(take, partition_id=partition, **how)
    task = asyncio.create_task(receiving)
    await done.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return found


def _of_hub(event: Any) -> tuple[str | None, bytes, str | None]:
    key = event.partition_key
    return key and key.decode(), b"".join(event.body), event.message_id


def read_topic(servers: str, topic: str) -> list[Landed]:
    """Read all that a topic holds, by partition, in order."""
    from confluent_kafka import (  # noqa: PLC0415  # an extra
        OFFSET_BEGINNING,
        Consumer,
        TopicPartition,
    )

    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "reader", "log_level": 0}
    )
    try:
        numbers = [*consumer.list_topics(topic, 20).topics[topic].partitions]
        places = [TopicPartition(topic, each, OFFSET_BEGINNING) for each in numbers]
        consumer.assign(places)
        return [*_by_partition(_consume(consumer, places), _of_topic)]
    finally:
        consumer.close()


def _consume(consumer: Any, places: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {str(each.partition): [] for each in places}
    offsets = [consumer.get_watermark_offsets(each, timeout=20) for each in places]
    left = sum(high - low for low, high in offsets)
    until = time.monotonic() + READ_SECONDS
    while left > 0 and time.monotonic() < until:
        for message in consumer.consume(_AT_ONCE, 1.0):
            if message.error():
                raise OSError(f"cannot be read: {message.error()}")
            found[str(message.partition())].append(message)
            left -= 1
    return found


def _of_topic(message: Any) -> tuple[str | None, bytes, str | None]:
    key, headers = message.key(), dict(message.headers() or ())
    return key and key.decode(), message.value(), headers["event_id"].decode()


def _by_partition(
    found: dict[str, list[Any]],
    read: Callable[[Any], tuple[str | None, bytes, str | None]],
) -> Iterator[Landed]:
    for partition, messages in found.items():
        for message in messages:
            key, body, message_id = read(message)
            events = body.splitlines()
            alone = message_id if len(events) == 1 else None
            for event in events:
                yield Landed(partition, key, event, alone)
