"""
The same event as bizlog's, written by hand: plain Python, orjson, a buffered file.

What an author without a library writes: a new dictionary with an id, a time, the context
from three context variables, the constants of the process, a sequence number and the
seven fields; orjson writes id and time itself, which is the fastest way. It validates, classifies and protects nothing, and it has no queue: the
caller waits for the disk.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from workload import CONTEXT, EVENT, Contender

correlation_id: ContextVar[str] = ContextVar("correlation_id")
session_id: ContextVar[str] = ContextVar("session_id")
user_id: ContextVar[str] = ContextVar("user_id")


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Write in the caller's thread; nothing is queued."""
    correlation_id.set(CONTEXT["correlation_id"])
    session_id.set(CONTEXT["session_id"])
    user_id.set(CONTEXT["user_id"])
    producer_id, sequence = str(uuid.uuid4()), count(1)
    with (directory / "events.jsonl").open("wb") as file:

        def emit(fields: dict[str, Any]) -> None:
            event = {
                "event_id": uuid.uuid4(),
                "event_type": EVENT,
                "event_source": "bench",
                "event_time": datetime.now(UTC),
                "correlation_id": correlation_id.get(),
                "session_id": session_id.get(),
                "user_id": user_id.get(),
                "environment": "unknown",
                "service_version": "unknown",
                "schema_version": 1,
                "producer_id": producer_id,
                "sequence": next(sequence),
                **fields,
            }
            file.write(orjson.dumps(event, str, orjson.OPT_APPEND_NEWLINE))

        yield Contender(emit, file.flush)
