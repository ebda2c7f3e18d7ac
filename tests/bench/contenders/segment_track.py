"""
Segment's client: `Client.track`, its queue, its consumer thread, its batches of 100.

Replaced: `requests.Session.post` alone. The client's request function still builds the
body, encodes it with the `json` module and makes the headers; instead of going out, the
body is written to the file, one line a batch, and a 200 comes back at once.

`finish` is the client's `flush`. Its `shutdown` then waits out an idle poll of up to
half a second; that is off the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from posted import FileSession
from segment.analytics import request
from segment.analytics.client import Client
from workload import CONTEXT, EVENT, Contender


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Start a client whose queue holds all events."""
    user = CONTEXT["user_id"]
    context = {name: CONTEXT[name] for name in ("correlation_id", "session_id")}
    with (directory / "events.jsonl").open("wb") as file:
        session = FileSession(file)
        with patch.object(request, "_session", session):
            client = Client("bench", max_queue_size=capacity)

            def emit(fields: dict[str, Any]) -> None:
                client.track(user, EVENT, properties={**fields, **context})

            def finish() -> None:
                client.flush()
                file.flush()

            yield Contender(emit, finish)
            client.shutdown()
