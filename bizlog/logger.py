"""
The logger: structlog's bound logger with bizlog's chain, and nothing global.

`get_logger` wraps our own outlet with our own processors and wrapper class, so that
structlog's global configuration and a host's level filter neither change nor matter.
Every level method emits the same event; the level is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
from structlog import BoundLoggerBase

from bizlog import client as clients
from bizlog.client import (
    DEFAULT_CHAIN,
    BusinessTelemetryClient,
    default_client,
    event_state,
)
from bizlog.values import quietly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from structlog.typing import Processor

    from bizlog.events import BaseEvent


class Origin:
    """
    Where a logger's events start: its client and its source.

    Attributes:
        client: The client, or None for the process-wide one at the time of the call.
        source: `event_source`, or None for the client's.
    """

    __slots__ = ("client", "source")

    def __init__(
        self, client: BusinessTelemetryClient | None, source: str | None
    ) -> None:
        self.client = client
        self.source = source


class BusinessLogger(BoundLoggerBase):
    """
    Emits business events: `log.bind(product_id="1").info("product.viewed", ...)`.

    `bind`, `unbind`, `try_unbind` and `new` are structlog's. The event is a name with
    properties, or a typed event. A mapping after the name adds properties, too. Names
    that only bizlog writes (`event_id=...`) move into `custom_properties`.
    """

    _logger: Origin
    _context: dict[str, Any]
    _processors: Sequence[Processor]

    def bind(self, /, **new_values: Any) -> Self:
        """Return a logger whose events carry these properties, too."""
        values = {**self._context, **new_values}
        return self.__class__(self._logger, self._processors, values)

    def new(self, /, **new_values: Any) -> Self:
        """Return a logger whose events carry these properties instead."""
        return self.__class__(self._logger, self._processors, new_values)

    def info(self, event: str | BaseEvent = "", /, *args: Any, **fields: Any) -> None:
        """
        Emit an event.

        Args:
            event: Its name, or a typed event.
            args: Mappings of further properties.
            fields: Its properties.

        Raises:
            InvalidEventError: In development only.
        """
        origin = self._logger
        client = origin.client or clients._default  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # no call: see below
        try:
            client = client or default_client()
            state = {**self._context, **fields} if self._context else fields
            if type(event) is str and not args and "event" not in state:
                state["event"] = event
            else:
                state = _uncommon_state(event, args, state)
            client.emit("info", state, origin.source, self._processors)
        except (RecursionError, MemoryError):
            # No depth left for a single call; counting takes none.
            if client is not None:
                client.unheard += 1

    debug = info
    warning = warn = info
    error = info
    critical = fatal = info
    exception = info
    msg = info

    def log(
        self,
        level: object,  # noqa: ARG002  # structlog's signature
        event: str | BaseEvent,
        /,
        *args: Any,
        **fields: Any,
    ) -> None:
        """Emit an event; the level is not stored."""
        self.info(event, *args, **fields)

    async def ainfo(self, event: str | BaseEvent, /, *args: Any, **fields: Any) -> None:
        """Emit an event; like `info`, it never waits for I/O."""
        self.info(event, *args, **fields)

    adebug = ainfo
    awarning = ainfo
    aerror = ainfo
    acritical = afatal = ainfo
    aexception = ainfo

    async def alog(
        self,
        level: object,  # noqa: ARG002  # structlog's signature
        event: str | BaseEvent,
        /,
        *args: Any,
        **fields: Any,
    ) -> None:
        """Emit an event; the level is not stored."""
        self.info(event, *args, **fields)


def _uncommon_state(
    event: str | BaseEvent, args: tuple[Any, ...], fields: dict[str, Any]
) -> dict[str, Any]:
    for position, argument in enumerate(args):
        is_mapping = issubclass(type(argument), Mapping)
        merged = quietly(partial(_merge, fields), argument) if is_mapping else None
        if type(merged) is dict:
            fields = cast("dict[str, Any]", merged)
        else:  # no mapping, or one that cannot be read
            fields = {**fields, f"arg_{position}": argument}
    return event_state(event, fields)


def _merge(fields: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, **more}


def get_logger(
    *,
    processors: Sequence[Processor] = (),
    source: str | None = None,
    client: BusinessTelemetryClient | None = None,
    **initial_values: Any,
) -> BusinessLogger:
    """
    Make a logger for business events.

    Args:
        processors: structlog processors of your own. They run after the context was
            merged and before the event gets its id and is classified, see the event
            dictionary (`event` is the name), may change it, and drop the event with
            `structlog.DropEvent`.
        source: `event_source` of this logger's events, where one process stands for
            several services.
        client: The client to emit through; by default the process-wide one, as it is
            configured at the time of each call.
        initial_values: Properties that each event carries, as with `bind`.
    """
    first, *rest = DEFAULT_CHAIN
    logger = structlog.wrap_logger(
        Origin(client, source),
        processors=(first, *processors, *rest) if processors else DEFAULT_CHAIN,
        wrapper_class=BusinessLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return cast("BusinessLogger", logger.bind(**initial_values))
