"""
Sends events to a hub or to Kafka through bizlog; prints what it took, as JSON.

On the clock from the first emit until `flush` has returned: the server has acknowledged
all. A warm-up comes before, so that the links stand. The courses with `ready`
call the sink alone, with batches such as the engine brings.

`bench.py` starts it; by hand: `python hub_bizlog.py amqp 1000 CONNECTION_STRING`, or
`python hub_bizlog.py kafka 1000 127.0.0.1:9092` (course, events, server).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from time import perf_counter, sleep
from typing import Any

from hub_clock import Clock
from hub_events import (
    EVENT,
    SOURCE,
    WARM_UP,
    bodies,
    emit,
    emit_to,
    warm_session_of,
)
from hubs import FEW, PACK
from memory import rss

import bizlog
from bizlog.sinks import BaseSink, Batch, Record
from bizlog_handlers._partitions import Partitions
from bizlog_handlers.eventhub import EventHubSink
from bizlog_handlers.kafka import KafkaSink

HUB = "events"
SECONDS = 300.0
BYTES_PER_EVENT = 4096
PER_SECOND = 500

OPTIONS: dict[str, dict[str, Any]] = {
    "amqp_key": {"metadata": "key"},
    "amqp_body": {"metadata": "none"},
    "one": {"max_in_flight": 2},
    "eight": {"max_in_flight": 2},
    "packed": {"pack": PACK},
    "packed_ready": {"pack": PACK, "metadata": "none"},
    "packed_ready_full": {"pack": PACK},
}


def sink_of(name: str, target: str) -> BaseSink:
    """Build the sink of a course."""
    if name.startswith("kafka"):
        return KafkaSink(target, HUB)
    return EventHubSink(HUB, connection_string=target, **OPTIONS.get(name, {}))


def configure(sink: BaseSink, **settings: Any) -> None:
    """Set bizlog up with one sink, and bring its links up."""
    bizlog.configure(source=SOURCE, sinks=[sink], **settings)
    emit_to(map(warm_session_of, range(WARM_UP)))
    bizlog.flush(SECONDS)


def whole(name: str, events: int, target: str) -> dict[str, Any]:
    """Emit from one thread, with room for all that waits."""
    configure(
        sink_of(name, target),
        queue_events=events + WARM_UP,
        queue_bytes=(events + WARM_UP) * BYTES_PER_EVENT,
    )
    with Clock() as clock:
        emit(range(events))
        bizlog.flush(SECONDS)
    return clock.told


def far(name: str, events: int, target: str, partitions: int) -> dict[str, Any]:
    """Emit to each partition in turn; a batch has so few events for each of them."""
    sink = sink_of(name, target)
    sink.max_events = size = FEW * partitions
    configure(sink, batch_size=size, queue_events=events + WARM_UP)
    chosen = sessions_of_each(partitions)
    with Clock() as clock:
        emit_to(chosen[number % partitions] for number in range(events))
        bizlog.flush(SECONDS)
    return clock.told


def sessions_of_each(partitions: int) -> list[str]:
    """Name a session for each of so many partitions."""
    chooser = Partitions([str(number) for number in range(partitions)])
    found: dict[str, str] = {}
    number = 0
    while len(found) < partitions:
        session = f"s-{number}"
        found.setdefault(chooser.of(session), session)
        number += 1
    return list(found.values())


def one(name: str, events: int, target: str) -> dict[str, Any]:
    """Send to a hub of one partition."""
    return far(name, events, target, 1)


def eight(name: str, events: int, target: str) -> dict[str, Any]:
    """Send to a hub of eight."""
    return far(name, events, target, 8)


def ready(name: str, events: int, target: str) -> dict[str, Any]:
    """Call the sink with batches that are ready, one after the other."""
    sink = sink_of(name, target)
    first = list(records(bodies(WARM_UP, warm_session_of)))
    warm_up = Batch("bench", 1, WARM_UP, first)
    batches = list(batches_of(sink, records(bodies(events))))
    return asyncio.run(deliver(sink, warm_up, batches)).told


async def deliver(sink: BaseSink, warm_up: Batch, batches: list[Batch]) -> Clock:
    """Deliver all; each must be taken whole."""
    await sink.start()
    await sink.deliver(warm_up)
    with Clock() as clock:
        for batch in batches:
            result = await sink.deliver(batch)
            if result.rejected or result.retry:
                raise SystemExit(f"not taken: {result}")
    await sink.stop()
    return clock


def records(lines: Iterator[bytes]) -> Iterator[Record]:
    """Make records of JSON."""
    for number, line in enumerate(lines):
        told = json.loads(line)
        yield Record(line, told["event_id"], EVENT, told["event_time"], number + 1)


def batches_of(sink: BaseSink, found: Iterator[Record]) -> Iterator[Batch]:
    """Fill batches as the engine does: up to the sink's number, or its bytes."""
    most = min(sink.max_events, sink.max_bytes // 300)
    while part := list(islice(found, most)):
        yield Batch("bench", part[0].sequence, part[-1].sequence, part)


def million(name: str, events: int, target: str) -> dict[str, Any]:
    """Emit through the default queue, and watch the memory from the first tenth on."""
    configure(sink_of(name, target), overflow="block", block_timeout=60.0)
    step = max(1, events // 100)
    seen: list[int] = []
    with Clock() as clock:
        for first in range(0, events, step):
            emit(range(first, min(first + step, events)))
            seen.append(rss())
        bizlog.flush(SECONDS)
    seen.append(rss())
    base, *later = seen[len(seen) // 10 :]
    rise = max(abs(each - base) for each in later) / 1e6
    return {**clock.told, "rise_mb": rise}


def paced(name: str, events: int, target: str) -> dict[str, Any]:
    """Emit at a steady pace; read back when each event was stored."""
    configure(sink_of(name, target))
    info = bizlog.get_logger().info
    with Clock() as clock:
        start = perf_counter()
        for number in range(events):
            with bizlog.session(f"p-{number % 50}"):
                info(EVENT)
            sleep(max(0.0, start + (number + 1) / PER_SECOND - perf_counter()))
        bizlog.flush(SECONDS)
    took = sorted(asyncio.run(times_to_stored(target, events)))
    return {
        **clock.told,
        "p50_ms": took[len(took) // 2],
        "p99_ms": took[min(len(took) - 1, len(took) * 99 // 100)],
    }


async def times_to_stored(target: str, events: int) -> list[float]:
    """Read all from the beginning; how long each paced event took, milliseconds."""
    from azure.eventhub.aio import EventHubConsumerClient  # noqa: PLC0415  # one course

    found: list[float] = []
    complete = asyncio.Event()

    async def note(_partition: Any, batch: list[Any]) -> None:
        for event in batch:
            told = json.loads(event.body_as_str())
            if told["session_id"].startswith("p-"):
                emitted = datetime.fromisoformat(told["event_time"])
                waited = event.enqueued_time - emitted
                found.append(waited.total_seconds() * 1e3)
        if len(found) >= events:
            complete.set()

    client = EventHubConsumerClient.from_connection_string(
        target, "$Default", eventhub_name=HUB
    )
    async with client:
        reading = asyncio.create_task(
            client.receive_batch(note, starting_position="-1", max_wait_time=1)
        )
        await asyncio.wait_for(complete.wait(), 60)
        reading.cancel()
        await asyncio.wait((reading,))
    return found


COURSES = {
    "packed_ready": ready,
    "packed_ready_full": ready,
    "kafka_ready": ready,
    "one": one,
    "eight": eight,
    "million": million,
    "paced": paced,
}


def main() -> None:
    """Run the course that the arguments name."""
    name, events, target = sys.argv[1:]
    told = COURSES.get(name, whole)(name, int(events), target)
    bizlog.shutdown(SECONDS)
    for account in bizlog.ledger().sinks.values():
        if account.delivered != account.offered:
            raise SystemExit(f"not all was delivered: {account}")
    print(json.dumps({"warm_up": WARM_UP, **told}))


if __name__ == "__main__":
    main()
