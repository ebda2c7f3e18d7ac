"""bizlog with the Event Hubs sink, and the file sink as its witness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.bizlog_shop import Shop

from bizlog_handlers.eventhub import EventHubSink


def make(url: str, folder: Path, sink: dict[str, Any], **options: Any) -> Shop:
    """Configure bizlog to send to a hub; `url` is a connection string."""
    return Shop(
        EventHubSink("events", connection_string=url, **sink), folder, **options
    )
