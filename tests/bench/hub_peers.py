"""
Sends events to a hub or to Kafka with loops by hand; prints what it took, as JSON.

The bodies are ready before the clock starts (but for kafka_made), and some events have
been sent, so that the connections stand. On the clock until the server has acknowledged
all.

`bench.py` starts it; by hand: `python hub_peers.py by_hand 1000 CONNECTION_STRING`, or
`python hub_peers.py kafka_raw 1000 127.0.0.1:9092` (course, events, server).
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
from hub_clock import Clock
from hub_events import EVENT, SOURCE, bodies, session_of

HUB = "events"
TOPIC = "events"
WARM_UP = 8  # twice around the partitions

session_id: ContextVar[str] = ContextVar("session_id")

Headers: TypeAlias = list[tuple[str, bytes]]
Message: TypeAlias = tuple[bytes, str | None, Headers | None]
"""A value, its key and its headers."""


async def by_hand(target: str, ready: Sequence[bytes], dress: Any = None) -> Clock:
    """Fill batches and send them, one after the other."""
    from azure.eventhub import EventData  # noqa: PLC0415  # only what a course uses
    from azure.eventhub.aio import EventHubProducerClient  # noqa: PLC0415  # the same

    client = EventHubProducerClient.from_connection_string(target, eventhub_name=HUB)
    async with client:
        for _ in range(WARM_UP):
            await client.send_batch([EventData(ready[0])])
        with Clock() as clock:
            batch = await client.create_batch()
            for number, body in enumerate(ready):
                event = EventData(body)
                if dress is not None:
                    dress(event, number)
                try:
                    batch.add(event)
                except ValueError:  # full
                    await client.send_batch(batch)
                    batch = await client.create_batch()
                    batch.add(event)
            await client.send_batch(batch)
    return clock


async def by_hand_full(target: str, ready: Sequence[bytes]) -> Clock:
    """Do the same, and show what bizlog's messages show."""

    def dress(event: Any, number: int) -> None:
        event.message_id = f"01a2140e-877b-7807-9346-{number:012d}"
        event.content_type = "application/json"
        event.properties = {"event_type": "page.viewed", "schema_version": 1}
        annotations = event.raw_amqp_message.annotations
        annotations["x-opt-partition-key"] = session_of(number)

    return await by_hand(target, ready, dress)


async def buffered(target: str, ready: Sequence[bytes]) -> Clock:
    """Leave the batches to the SDK's buffered mode."""
    from azure.eventhub import EventData  # noqa: PLC0415  # only what a course uses
    from azure.eventhub.aio import EventHubProducerClient  # noqa: PLC0415  # the same

    failed: list[Any] = []

    async def succeed(_events: Any, _partition: Any) -> None:
        pass

    async def fail(events: Any, _partition: Any, error: Any) -> None:
        failed.append((len(events), error))

    client = EventHubProducerClient.from_connection_string(
        target,
        eventhub_name=HUB,
        buffered_mode=True,
        on_success=succeed,
        on_error=fail,
    )
    async with client:
        for _ in range(WARM_UP):
            await client.send_event(EventData(ready[0]))
        await client.flush()
        with Clock() as clock:
            for body in ready:
                await client.send_event(EventData(body))
            await client.flush()
    if failed:
        raise SystemExit(f"the buffered mode lost events: {failed[0]}")
    return clock


async def kafka_raw(target: str, ready: Sequence[bytes]) -> Clock:
    """Produce values alone."""
    return produce(target, ready[0], [(body, None, None) for body in ready])


async def kafka_keyed(target: str, ready: Sequence[bytes]) -> Clock:
    """Produce with the key and the headers that bizlog sends."""
    described = [
        (body, session_of(at), headers(b"01a2140e-877b-7807-9346-%012d" % at))
        for at, body in enumerate(ready)
    ]
    return produce(target, ready[0], described)


async def kafka_made(target: str, ready: Sequence[bytes]) -> Clock:
    """Make each event by hand, then produce it with key and headers."""
    return produce(target, ready[0], made(len(ready)))


def made(events: int) -> Iterator[Message]:
    """
    Make so many events with what bizlog's have, in the fastest plain way.

    A dictionary with an id, a time, the constants of the process and the context, which
    orjson writes; nothing is checked, protected, queued or counted.
    """
    producer_id = str(uuid.uuid4())
    for number in range(events):
        session_id.set(session_of(number))
        event_id, session = uuid.uuid4(), session_id.get()
        event = {
            "event_id": event_id,
            "event_type": EVENT,
            "event_source": SOURCE,
            "event_time": datetime.now(UTC),
            "environment": "unknown",
            "service_version": "unknown",
            "schema_version": 1,
            "producer_id": producer_id,
            "sequence": number + 1,
            "session_id": session,
        }
        yield orjson.dumps(event), session, headers(str(event_id).encode())


def headers(event_id: bytes) -> Headers:
    """Write what bizlog's headers tell."""
    return [
        ("event_type", b"page.viewed"),
        ("schema_version", b"1"),
        ("event_id", event_id),
    ]


def produce(target: str, first: bytes, messages: Iterable[Message]) -> Clock:
    """Produce in a loop; where the queue is full, wait for reports."""
    from confluent_kafka import Producer  # noqa: PLC0415  # only what a course uses

    producer = Producer(
        {"bootstrap.servers": target, "enable.idempotence": True, "acks": "all"}
    )
    for _ in range(WARM_UP):
        producer.produce(TOPIC, first)
    producer.flush(30)
    with Clock() as clock:
        for body, key, extra in messages:
            while True:
                try:
                    producer.produce(TOPIC, body, key, headers=extra)
                except BufferError:
                    producer.poll(0.05)
                else:
                    break
        left = producer.flush(60)
    if left:
        raise SystemExit(f"{left} messages were not acknowledged")
    return clock


COURSES: dict[str, Callable[..., Any]] = {
    "by_hand": by_hand,
    "by_hand_full": by_hand_full,
    "buffered": buffered,
    "kafka_raw": kafka_raw,
    "kafka_keyed": kafka_keyed,
    "kafka_made": kafka_made,
}


def main() -> None:
    """Run the course that the arguments name."""
    name, events, target = sys.argv[1:]
    ready = list(bodies(int(events)))
    clock: Clock = asyncio.run(COURSES[name](target, ready))
    print(json.dumps({"warm_up": WARM_UP, **clock.told}))


if __name__ == "__main__":
    main()
