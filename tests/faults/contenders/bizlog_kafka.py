"""bizlog with the Kafka sink, and the file sink as its witness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.bizlog_shop import Shop

from bizlog_handlers.kafka import KafkaSink


def make(url: str, folder: Path, sink: dict[str, Any], **options: Any) -> Shop:
    """Configure bizlog to send to a topic; `url` is `SERVERS/TOPIC`."""
    servers, _, topic = url.partition("/")
    return Shop(KafkaSink(servers, topic, **sink), folder, **options)
