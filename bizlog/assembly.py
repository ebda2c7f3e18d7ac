"""
How the parts of delivery are put together from the settings. No I/O, no thread.

A journal on disk is opened by bizlog's thread, when it starts: after a fork each
process has its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.delivery.pump import Pump
from bizlog.sinks import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.delivery.journal import Journal
    from bizlog.delivery.keeper import Keeper
    from bizlog.delivery.queue import FrontQueue
    from bizlog.delivery.receipts import Receipts
    from bizlog.settings import Settings


def assemble(
    settings: Settings,
    producer_id: str,
    *,
    queue: FrontQueue,
    dead_letters: DeadLetterFolder,
    receipts: Receipts,
    on_progress: Callable[[], None],
    notes: Callable[[], dict[str, bytes]],
) -> Pump:
    """
    Build the pump with its journal and a lane for each sink.

    Args:
        settings: What is wanted.
        producer_id: Who numbers the events.
        queue: Where callers put records.
        dead_letters: Where refused events are kept.
        receipts: Who waits for the fate of which event.
        on_progress: Called after each batch.
        notes: What a journal on disk tells its readers: the ledger and the like.
    """
    # What a client that is shut down gets, in a forked child, no disk need keep.
    keeper = None if queue.closed else _keeper(settings, producer_id, notes)
    journal: Journal = keeper.journal if keeper else MemoryJournal()
    routes = [route for sink in settings.sinks for route in Route(sink).expand()]
    lanes = [
        _lane(name, route, journal, settings, dead_letters, receipts, on_progress)
        for name, route in named(routes).items()
    ]
    receipts.sinks = [lane.name for lane in lanes]
    if keeper:
        keeper.serve(lanes)
        queue.mark = keeper.mark
    return Pump(
        queue=queue,
        journal=journal,
        lanes=lanes,
        dead_letters=dead_letters,
        max_events=settings.queue_events,
        max_bytes=settings.queue_bytes,
        max_disk=settings.journal_max_bytes,
        receipts=receipts,
        keeper=keeper,
    )


def _keeper(
    settings: Settings, producer_id: str, notes: Callable[[], dict[str, bytes]]
) -> Keeper | None:
    if settings.journal is None:
        return None
    # With sqlite3 behind it: 5 ms that the import need not take.
    from bizlog.delivery.keeper import Keeper  # noqa: PLC0415  # as said

    return Keeper(
        settings.journal,
        producer_id,
        sync=settings.journal_sync,
        max_age=settings.journal_max_age,
        max_events=settings.queue_events,
        max_bytes=settings.queue_bytes,
        notes=notes,
    )


def _lane(
    name: str,
    route: Route,
    journal: Journal,
    settings: Settings,
    dead_letters: DeadLetterFolder,
    receipts: Receipts,
    on_progress: Callable[[], None],
) -> Lane:
    interval = route.sink.flush_interval
    if interval is None:
        interval = settings.flush_interval
    # More than may wait would never gather.
    batch_size = min(settings.batch_size, route.sink.max_events, settings.queue_events)
    batch_bytes = min(route.sink.max_bytes, settings.queue_bytes)
    return Lane(
        name=name,
        route=route,
        journal=journal,
        batcher=Batcher(batch_size, batch_bytes, interval),
        sink_timeout=settings.sink_timeout,
        dead_letters=dead_letters,
        on_progress=on_progress,
        clock=time.monotonic,
        lifetime=settings.delivery_deadline,
        max_in_flight=settings.max_in_flight,
        receipts=receipts,
    )


def named(routes: Sequence[Route]) -> dict[str, Route]:
    """Name the lanes: the sink's name, with a number where it stands twice."""
    found: dict[str, Route] = {}
    for route in routes:
        name, number = route.sink.name, 1
        while name in found:
            number += 1
            name = f"{route.sink.name}-{number}"
        found[name] = route
    return found
