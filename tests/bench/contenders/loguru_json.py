"""
loguru with `enqueue=True, serialize=True`: its own thread, pickled queue and JSON form.

Context by `contextualize`, fields as keyword arguments, as its documentation shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger
from workload import CONTEXT, EVENT, Contender


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Add one file sink; a full pipe makes the caller wait, so nothing is lost."""
    logger.remove()
    sink = logger.add(directory / "events.jsonl", enqueue=True, serialize=True)

    def emit(fields: dict[str, Any]) -> None:
        logger.info(EVENT, **fields)

    with logger.contextualize(**CONTEXT):
        yield Contender(emit, lambda: logger.remove(sink))
