"""OpenTelemetry: a log record an event, batch processor, OTLP over HTTP, defaults."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor


class OpenTelemetry:
    """OpenTelemetry's logger under the verbs of the matrix."""

    def __init__(self, url: str, folder: Path) -> None:
        self._provider = LoggerProvider()
        exporter = OTLPLogExporter(endpoint=f"{url}/v1/logs")
        self._provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        self._logger = self._provider.get_logger("faults")

    def emit(self, n: int, **properties: Any) -> None:
        """Emit one log record with an event name."""
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                event_name="product.viewed",
                attributes={"n": n, **properties},
            )
        )

    def flush(self, timeout: float) -> None:
        """Export what waits; the SDK ignores the time-out."""
        self._provider.force_flush(int(timeout * 1_000))


make = OpenTelemetry
