"""
The standard library's QueueHandler and QueueListener, python-json-logger, a FileHandler.

As the logging cookbook has it: a queue without bound (SimpleQueue, the quicker kind), the
formatter on the listener's side, fields as `extra`. FileHandler flushes after every
record; that is its own choice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from workload import CONTEXT, EVENT, Contender


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Start a listener; its queue has no bound, so `capacity` is not needed."""
    file = logging.FileHandler(directory / "events.jsonl", encoding="utf-8")
    file.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(queue)
    listener = QueueListener(queue, file)
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    listener.start()

    def emit(fields: dict[str, Any]) -> None:
        logger.info(EVENT, extra={**fields, **CONTEXT})

    yield Contender(emit, listener.stop)
    logger.removeHandler(handler)
    file.close()
