"""Sentry: its structured logs, defaults, to another host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentry_sdk


class Sentry:
    """Sentry's logger under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        dsn = url.replace("http://", "http://key@") + "/1"
        sentry_sdk.init(dsn=dsn, enable_logs=True)

    def emit(self, n: int, **properties: Any) -> None:
        """Log one line with attributes."""
        sentry_sdk.logger.info("product.viewed", attributes={"n": n, **properties})

    def flush(self, timeout: float) -> None:
        """Send what waits."""
        sentry_sdk.flush(timeout)


make = Sentry
