"""
PostHog's client: `Posthog.capture`, its queue, its consumer thread, its batches of 100.

Replaced: `requests.Session.post` alone. The client's request function still builds the
body and encodes it with the `json` module; instead of going out, the body is written to
the file, one line a batch, and a 200 comes back at once.

`finish` is the client's `flush`, without its default time limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from posted import FileSession
from posthog import Posthog, request
from workload import CONTEXT, EVENT, Contender


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Start a client whose queue holds all events."""
    user = CONTEXT["user_id"]
    context = {name: CONTEXT[name] for name in ("correlation_id", "session_id")}
    with (directory / "events.jsonl").open("wb") as file:
        session = FileSession(file)
        with patch.object(request, "_get_session", lambda: session):
            client = Posthog("bench", max_queue_size=capacity)

            def emit(fields: dict[str, Any]) -> None:
                client.capture(
                    EVENT, distinct_id=user, properties={**fields, **context}
                )

            def finish() -> None:
                client.flush(timeout_seconds=None)
                file.flush()

            yield Contender(emit, finish)
            client.shutdown()
