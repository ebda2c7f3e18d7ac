"""Amplitude: `track` with its defaults, to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amplitude import Amplitude as Client
from amplitude import BaseEvent


class Amplitude:
    """Amplitude's client under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        self._client = Client("key")
        self._client.configuration.server_url = f"{url}/2/httpapi"

    def emit(self, n: int, **properties: Any) -> None:
        """Track one event."""
        self._client.track(
            BaseEvent(
                "product.viewed",
                user_id="user-1",
                event_properties={"n": n, **properties},
            )
        )

    def flush(self, timeout: float) -> None:
        """Send what waits; wait for the answers that can be waited for."""
        for future in self._client.flush() or []:
            if future is not None:
                future.result(timeout)


make = Amplitude
