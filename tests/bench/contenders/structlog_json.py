"""
Plain structlog, as its page on performance advises: cached logger, orjson, bytes.

Context variables, level, UTC timestamp, JSON; written in the caller's own thread, by
BytesLogger, which flushes after every event. No queue, no batches, no delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import structlog
from structlog.contextvars import bound_contextvars
from workload import CONTEXT, EVENT, Contender


def encode(event: dict[str, Any], default: Any = None) -> bytes:
    """Encode with orjson; Decimal becomes a string."""
    return orjson.dumps(event, default=str)


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Write in the caller's thread; nothing is queued."""
    with (directory / "events.jsonl").open("wb") as file:
        structlog.configure(
            cache_logger_on_first_use=True,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=encode),
            ],
            logger_factory=structlog.BytesLoggerFactory(file=file),
        )
        info = structlog.get_logger().bind().info

        def emit(fields: dict[str, Any]) -> None:
            info(EVENT, **fields)

        with bound_contextvars(**CONTEXT):
            yield Contender(emit, file.flush)
