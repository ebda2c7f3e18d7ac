"""Mixpanel: `track` with its BufferedConsumer, to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixpanel import BufferedConsumer
from mixpanel import Mixpanel as Client


class Mixpanel:
    """Mixpanel's client under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        self._consumer = BufferedConsumer(events_url=f"{url}/track")
        self._client = Client("token", consumer=self._consumer)

    def emit(self, n: int, **properties: Any) -> None:
        """Track one event; each fiftieth is posted in the caller's thread."""
        self._client.track("user-1", "product.viewed", {"n": n, **properties})

    def flush(self, timeout: float) -> None:
        """Send what is buffered; there is no time-out."""
        self._consumer.flush()


make = Mixpanel
