"""Business telemetry for Python services: three lines in, nothing lost."""

from typing import TYPE_CHECKING, Any

from bizlog.client import BusinessTelemetryClient, configure, flush, ledger, shutdown
from bizlog.context import bind_context, correlation, current_context, session, user
from bizlog.events import (
    AdminEvent,
    AIEvent,
    BaseEvent,
    CustomerEvent,
    OrderEvent,
    OrderItem,
    ProductEvent,
    describe,
)
from bizlog.exceptions import (
    BatchTooLargeError,
    BizlogError,
    ConfigurationError,
    InvalidEventError,
    MissingExtraError,
    PermanentSinkError,
    RegistrationError,
    RetryableSinkError,
    SinkError,
    UnknownEventError,
)
from bizlog.ledger import Ledger, SinkLedger
from bizlog.logger import BusinessLogger, get_logger
from bizlog.registry import Registry, registry
from bizlog.sinks import BaseSink, Batch, Record, Rejection, Route, SendResult

if TYPE_CHECKING:
    from bizlog.delivery.receipts import Outcome, Receipt
    from bizlog.handler import BusinessEventHandler, divert, logging_config
    from bizlog.integrations.serverless import flush_after
    from bizlog.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AIEvent",
    "AdminEvent",
    "BaseEvent",
    "BaseSink",
    "Batch",
    "BatchTooLargeError",
    "BizlogError",
    "BusinessEventHandler",
    "BusinessLogger",
    "BusinessTelemetryClient",
    "ConfigurationError",
    "CustomerEvent",
    "InvalidEventError",
    "Ledger",
    "MissingExtraError",
    "OrderEvent",
    "OrderItem",
    "Outcome",
    "PermanentSinkError",
    "ProductEvent",
    "Receipt",
    "Record",
    "RegistrationError",
    "Registry",
    "Rejection",
    "RetryableSinkError",
    "Route",
    "SendResult",
    "Settings",
    "SinkError",
    "SinkLedger",
    "UnknownEventError",
    "bind_context",
    "configure",
    "correlation",
    "current_context",
    "describe",
    "divert",
    "flush",
    "flush_after",
    "get_logger",
    "ledger",
    "logging_config",
    "registry",
    "session",
    "shutdown",
    "user",
]


# What is loaded at first use, since not every process needs it: `import bizlog` stays
# within 1.2 x the time of `import structlog`.
_LATE = {
    "BusinessEventHandler": "handler",
    "Outcome": "delivery.receipts",
    "Receipt": "delivery.receipts",
    "Settings": "settings",
    "divert": "handler",
    "flush_after": "integrations.serverless",
    "logging_config": "handler",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # as said

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
