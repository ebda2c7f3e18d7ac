"""bizlog as in `bizlog_file.py`, with a journal on disk that survives the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from workload import CONTEXT, EVENT, Contender

import bizlog

BYTES_PER_EVENT = 4096
SYNC = "normal"


@contextmanager
def contender(directory: Path, capacity: int, sync: Any = SYNC) -> Iterator[Contender]:
    """Start bizlog with a journal and room for all events; `shutdown` is on the clock."""
    bizlog.configure(
        source="bench",
        sinks=[f"file:{directory}"],
        queue_events=capacity + 1,
        queue_bytes=(capacity + 1) * BYTES_PER_EVENT,
        journal=str(directory.with_name(f"{directory.name}-journal")),
        journal_sync=sync,
    )
    info = bizlog.get_logger().info

    def emit(fields: dict[str, Any]) -> None:
        info(EVENT, **fields)

    with (
        bizlog.session(CONTEXT["session_id"], user_id=CONTEXT["user_id"]),
        bizlog.correlation(CONTEXT["correlation_id"]),
    ):
        yield Contender(emit, partial(bizlog.shutdown, timeout=60))
