"""
The events of 300 bytes: emitted through bizlog, or written as JSON beforehand.

A session has so many events that packs of one key get full. The bodies are bizlog's own
event with other numbers, so both have the same size.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator

import bizlog

EVENT = "page.viewed"
SOURCE = "bench"
PER_SESSION = 1_000
WARM_UP = 200

_BODY = (
    '{{"event_id":"{}","event_type":"page.viewed","event_source":"bench",'
    '"event_time":"2026-11-25T18:54:51.203819Z","environment":"unknown",'
    '"service_version":"unknown","schema_version":1,'
    '"producer_id":"{}","sequence":{},"session_id":"{}"}}'
)


def session_of(number: int) -> str:
    """Name the session of an event."""
    return f"s-{number // PER_SESSION:03d}"


def emit(numbers: range) -> None:
    """Emit so many events, a session after the other, as fast as bizlog takes them."""
    info = bizlog.get_logger().info
    for first in range(numbers.start, numbers.stop, PER_SESSION):
        with bizlog.session(session_of(first)):
            for _ in range(first, min(first + PER_SESSION, numbers.stop)):
                info(EVENT)


def emit_to(sessions: Iterable[str]) -> None:
    """Emit one event for each of these sessions."""
    info = bizlog.get_logger().info
    for session in sessions:
        with bizlog.session(session):
            info(EVENT)


def warm_session_of(number: int) -> str:
    """Name the session of an event of the warm-up: so many reach each partition."""
    return f"w-{number:03d}"


def bodies(events: int, session: Callable[[int], str] = session_of) -> Iterator[bytes]:
    """Write so many events as JSON, each with an id of its own."""
    producer_id = uuid.uuid4()
    for number in range(events):
        told = uuid.uuid4(), producer_id, number + 1, session(number)
        yield _BODY.format(*told).encode()
