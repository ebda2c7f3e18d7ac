"""
OpenTelemetry's SDK: `Logger.emit(LogRecord(...))`, its batch processor, a file exporter.

The processor has its defaults (512 records a batch, woken when one is full) but for the
queue. The exporter is ours, since the SDK ships none for files: each record becomes one
JSON line with body, event name, attributes, times, severity, trace ids, scope and
resource, by orjson; resource and scope are encoded once, a batch is written in one call.
That is cheaper than the SDK's own `to_json` and than OTLP's protobuf.

Attributes may not be Decimal: the SDK would log a warning for each and take `str` of it
in the end. A user who reads the warning converts beforehand, so this does too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time_ns
from typing import Any, BinaryIO

import orjson
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.resources import Resource
from workload import CONTEXT, EVENT, Contender

HOUR = 3_600_000  # milliseconds


class FileExporter(LogRecordExporter):
    """Writes each log record as one line of JSON."""

    def __init__(self, file: BinaryIO, resource: Resource, scope: str) -> None:
        self._file = file
        self._resource = orjson.Fragment(orjson.dumps(dict(resource.attributes)))
        self._scope = orjson.Fragment(orjson.dumps({"name": scope}))

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Encode and write one batch."""
        self._file.write(b"".join([self._encode(readable) for readable in batch]))
        return LogRecordExportResult.SUCCESS

    def _encode(self, readable: ReadableLogRecord) -> bytes:
        record = readable.log_record
        severity = record.severity_number
        line = {
            "timestamp": record.timestamp,
            "observed_timestamp": record.observed_timestamp,
            "severity_number": severity.value if severity else None,
            "severity_text": record.severity_text,
            "event_name": record.event_name,
            "body": record.body,
            "attributes": record.attributes.copy(),  # type: ignore[union-attr]  # always set
            "dropped_attributes": readable.dropped_attributes,
            "trace_id": f"{record.trace_id:032x}",
            "span_id": f"{record.span_id:016x}",
            "trace_flags": record.trace_flags,
            "scope": self._scope,
            "resource": self._resource,
        }
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Empty the file's buffer."""
        self._file.flush()
        return True

    def shutdown(self) -> None:
        """Empty the file's buffer."""
        self._file.flush()


@contextmanager
def contender(directory: Path, capacity: int) -> Iterator[Contender]:
    """Start a provider whose queue holds all events."""
    resource = Resource.create({"service.name": "bench"})
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    with (directory / "events.jsonl").open("wb") as file:
        processor = BatchLogRecordProcessor(
            FileExporter(file, resource, "bench"), max_queue_size=max(capacity, 512)
        )
        provider.add_log_record_processor(processor)
        logger = provider.get_logger("bench")

        def emit(fields: dict[str, Any]) -> None:
            logger.emit(
                LogRecord(
                    timestamp=time_ns(),
                    severity_number=SeverityNumber.INFO,
                    severity_text="INFO",
                    body=EVENT,
                    event_name=EVENT,
                    attributes={
                        **fields,
                        "product_price": str(fields["product_price"]),
                        **CONTEXT,
                    },
                )
            )

        def finish() -> None:
            provider.force_flush(HOUR)
            provider.shutdown()

        yield Contender(emit, finish)
