"""Snowplow: a tracker whose emitter posts in the caller's thread, ten events at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snowplow_tracker import Emitter, SelfDescribing, SelfDescribingJson, Tracker

SCHEMA = "iglu:com.example/product_viewed/jsonschema/1-0-0"


class Snowplow:
    """Snowplow's tracker under the verbs of the matrix."""

    def __init__(
        self, url: str, folder: Path, emitter: type[Emitter] = Emitter
    ) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._tracker = Tracker(
            "faults", emitter(host, protocol="http", port=int(port))
        )

    def emit(self, n: int, **properties: Any) -> None:
        """Track one self-describing event."""
        self._tracker.track(
            SelfDescribing(SelfDescribingJson(SCHEMA, {"n": n, **properties}))
        )

    def flush(self, timeout: float) -> None:
        """Send what is buffered and wait for it; there is no time-out."""
        self._tracker.flush(False)


make = Snowplow
