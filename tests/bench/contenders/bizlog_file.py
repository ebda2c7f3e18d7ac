"""
bizlog as its README shows it: three lines, a file sink, everything else by default.

Only the queue is enlarged, so that an emitting thread which never pauses loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from workload import CONTEXT, EVENT, Contender

import bizlog

BYTES_PER_EVENT = 4096


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Start bizlog with room for all events; `shutdown` is on the clock."""
    bizlog.configure(
        source="bench",
        sinks=[f"file:{directory}"],
        queue_events=capacity + 1,
        queue_bytes=(capacity + 1) * BYTES_PER_EVENT,
    )
    info = bizlog.get_logger().info

    def emit(fields: dict[str, Any]) -> None:
        info(EVENT, **fields)

    with (
        bizlog.session(CONTEXT["session_id"], user_id=CONTEXT["user_id"]),
        bizlog.correlation(CONTEXT["correlation_id"]),
    ):
        yield Contender(emit, partial(bizlog.shutdown, timeout=60))
