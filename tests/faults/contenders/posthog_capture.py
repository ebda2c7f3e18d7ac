"""PostHog: `capture` with its defaults, to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posthog import Posthog as Client


class Posthog:
    """PostHog's client under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        self._client = Client("phc_key", host=url)

    def emit(self, n: int, **properties: Any) -> None:
        """Capture one event."""
        self._client.capture(
            "product.viewed", distinct_id="user-1", properties={"n": n, **properties}
        )

    def flush(self, timeout: float) -> None:
        """Wait until the queue is empty."""
        self._client.flush()


make = Posthog
