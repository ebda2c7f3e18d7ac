"""
The floor: encode a dictionary that is ready, append it to a buffered file.

No event id, no time, no validation, no queue: nothing in Python that writes one JSON
line an event can be much faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from workload import CONTEXT, EVENT, Contender

ENVELOPE = {"event_type": EVENT, **CONTEXT}


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Write with orjson alone; nothing is queued, so `capacity` is not needed."""
    with (directory / "events.jsonl").open("wb") as file:

        def emit(fields: dict[str, Any]) -> None:
            fields.update(ENVELOPE)
            file.write(orjson.dumps(fields, str, orjson.OPT_APPEND_NEWLINE))

        yield Contender(emit, file.flush)
