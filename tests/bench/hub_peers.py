"""
Sends events to a hub or to Kafka with loops by hand; prints what it took, as JSON.

The bodies are ready before the clock starts, and some events have been sent, so that the
connections stand. On the clock until the server has acknowledged all.

`bench.py` starts it; by hand: `python hub_peers.py by_hand 1000 CONNECTION_STRING`, or
`python hub_peers.py kafka_raw 1000 127.0.0.1:9092` (course, events, server).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hub_clock import Clock
from hub_events import bodies, session_of

HUB = "events"
TOPIC = "events"
WARM_UP = 8  # twice around the partitions


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
    return produce(target, ready, lambda _number: {})


async def kafka_keyed(target: str, ready: Sequence[bytes]) -> Clock:
    """Produce with the key and the headers that bizlog sends."""

    def extras(number: int) -> dict[str, Any]:
        return {
            "key": session_of(number),
            "headers": [
                ("event_type", b"page.viewed"),
                ("schema_version", b"1"),
                ("event_id", b"01a2140e-877b-7807-9346-%012d" % number),
            ],
        }

    return produce(target, ready, extras)


def produce(
    target: str, ready: Sequence[bytes], extras: Callable[[int], dict[str, Any]]
) -> Clock:
    """Produce in a loop; where the queue is full, wait for reports."""
    from confluent_kafka import Producer  # noqa: PLC0415  # only what a course uses

    producer = Producer(
        {"bootstrap.servers": target, "enable.idempotence": True, "acks": "all"}
    )
    for _ in range(WARM_UP):
        producer.produce(TOPIC, ready[0])
    producer.flush(30)
    described = [extras(number) for number in range(len(ready))]
    with Clock() as clock:
        for body, extra in zip(ready, described, strict=True):
            while True:
                try:
                    producer.produce(TOPIC, body, **extra)
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
}


def main() -> None:
    """Run the course that the arguments name."""
    name, events, target = sys.argv[1:]
    ready = list(bodies(int(events)))
    clock: Clock = asyncio.run(COURSES[name](target, ready))
    print(json.dumps({"warm_up": WARM_UP, **clock.told}))


if __name__ == "__main__":
    main()
