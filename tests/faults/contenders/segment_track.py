"""Segment: `Client.track` with its defaults, to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segment.analytics.client import Client


class Segment:
    """Segment's client under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        self._client = Client("key", host=url)

    def emit(self, n: int, **properties: Any) -> None:
        """Track one event."""
        self._client.track("user-1", "product.viewed", {"n": n, **properties})

    def flush(self, timeout: float) -> None:
        """Wait until the queue is empty; it has no time-out of its own."""
        self._client.flush()


make = Segment
