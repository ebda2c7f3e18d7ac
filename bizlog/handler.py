"""
Drop-in: business events out of the logging that a service has already.

`BusinessEventHandler` takes them from the standard library's `logging`, `divert` from
the service's own structlog chain; neither lets them reach an operational log, and what
is no event never becomes one. Emitting here is emitting: no I/O, no waiting, no lock
held over foreign code, and nothing raised but, in development, `InvalidEventError`.
"""

from __future__ import annotations

import _thread
import fnmatch
import logging
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from structlog import DropEvent
from structlog.processors import add_log_level

from bizlog import client as clients
from bizlog import diagnostics, separation
from bizlog.client import BusinessTelemetryClient, default_client, event_state
from bizlog.events import BaseEvent
from bizlog.exceptions import ConfigurationError, InvalidEventError
from bizlog.registry import is_event_name

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Unpack

    from structlog.typing import EventDict, Processor

    from bizlog.client import Options

# What may leave an emit: all else is foreign code's fault and stays here.
_PASSING = (InvalidEventError, KeyboardInterrupt, SystemExit)

# What logging itself writes on a record; `message` and `asctime` come from formatters,
# `taskName` from Python 3.12 on. The rest came by `extra`.
_OF_LOGGING = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
}

# Keys of an event dictionary that speak to structlog's or logging's own machinery.
_OF_STRUCTLOG = frozenset(
    {
        "_record",
        "_from_structlog",
        "positional_args",
        "exc_info",
        "stack_info",
        "stacklevel",
    }
)


class BusinessEventHandler(logging.Handler):
    """
    Makes events of log records: `business.info("product.viewed", {"product_id": "1"})`.

    The record's message is the event's name, or a typed event. Mappings among its
    arguments and what `extra` brings are the properties (the arguments win); any other
    argument is `arg_0` and so on, by its position. Level, traceback, module and the
    like are not stored. Names that logging refuses in `extra` (`name`, `module`, ...)
    work in a mapping.

    Not taken are records whose message is no event name (lower-case words joined by
    dots), and those that would feed themselves: of bizlog's own loggers, or made in the
    course of a sink's call, by the sink, its libraries or a finalizer that runs there.
    They are counted in `ignored`, and the first of each kind is reported.

    An event stands in no operational log while its logger's records go nowhere else: no
    other handler beside this one, and `propagate` off, as `logging_config` has it. An
    event that such a handler without a filter gets as well is a crossing: counted in
    the metric `bizlog_separation_crossings_total`, and the first is reported.

    Logging's own switches hold for events, too: a logger's level, its filters and
    `logging.disable`. `flush` and `close` wait for nothing and shut nothing down. Put
    no `QueueHandler` or `MemoryHandler` before it: nothing here waits, and a record
    that comes later has lost the context, and with a queue its arguments.

    Args:
        level: Lowest level that it takes.
        client: The client to emit through; by default the process-wide one, as it is
            configured at the time of each record.
        options: `source` is the `event_source` of this handler's events. Any other
            setting of `bizlog.configure` sets up the process-wide client (and then
            `source` is its source, too). What an earlier one still holds is delivered
            in the background, since logging's configuration must not wait.

    Attributes:
        ignored: Records that were not taken; at the recursion limit also those that
            could not even be looked at.

    Raises:
        ConfigurationError: Settings that cannot work, or settings beside a client.
        MissingExtraError: A sink's packages are not installed.
    """

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        *,
        client: BusinessTelemetryClient | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(level)
        given = _given(options)
        self.source = given.get("source")
        self.client = client
        self.ignored = 0
        self._reported: set[str] = set()
        if given.keys() - {"source"}:
            if client is not None:
                raise ConfigurationError(
                    "client: give the handler a client or settings, not both"
                )
            _take_over(BusinessTelemetryClient(**given))

    def handle(self, record: logging.LogRecord) -> bool:
        """
        Filter and emit a record, without the handler's lock.

        Emitting needs none, and a value of the record may wait for another thread
        that logs here.
        """
        kept = cast("logging.LogRecord | bool", self.filter(record))
        if kept:
            # From Python 3.12 on a filter may return another record.
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """
        Emit a record's event.

        Raises:
            InvalidEventError: In development only; it reaches whoever logs.
        """
        client = None
        try:
            if not _is_event(record.msg):
                self._ignore(record)
                return
            if _feeds_itself(record):
                self._stop(record)
                return
            client = self.client or clients._default  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # no call: see below
            client = client or default_client()
            state = event_state(record.msg, _properties_of(record))
            client.emit("info", state, self.source)
        except _PASSING:
            raise
        except BaseException:  # noqa: BLE001  # never into the caller
            # Perhaps no depth is left for a single call; counting takes none.
            if client is None:
                self.ignored += 1
            else:
                client.unheard += 1
        else:
            self._look_around(record)

    def _ignore(self, record: logging.LogRecord) -> None:
        self.ignored += 1
        if not _is_own(record.name):
            self._report_once(
                "handler.ignored",
                f"a record of logger {record.name!r} ({record.filename}:"
                f"{record.lineno}) is no event: its message is no name such as "
                "'product.viewed'; the handler counts such records in `ignored`",
            )

    def _stop(self, record: logging.LogRecord) -> None:
        self.ignored += 1
        separation.guard.stopped += 1
        self._report_once(
            "handler.stopped",
            f"a record of logger {record.name!r} ({record.filename}:{record.lineno}) "
            "looks like an event, but was made while bizlog called a sink or by bizlog "
            "itself; the handler counts such records in `ignored`",
        )

    def _look_around(self, record: logging.LogRecord) -> None:
        """Count an event that another handler gets as well."""
        try:
            other = self._other_handler(record)
        except Exception:  # noqa: BLE001  # no depth left, or a tree of foreign make
            return
        if other is not None:
            separation.guard.crossings += 1
            self._report_once(
                "handler.crossing",
                f"events of logger {record.name!r} also go to an operational log, "
                f"through a {type(other).__name__}: set `propagate` of that logger to "
                "False and give it no other handler, as bizlog.logging_config() does",
            )

    def _other_handler(self, record: logging.LogRecord) -> logging.Handler | None:
        # Not getLogger, which takes a lock.
        place = logging.root.manager.loggerDict.get(record.name)
        if record.name == logging.root.name:
            place = logging.root
        while isinstance(place, logging.Logger):
            for other in place.handlers:
                if other is not self and _is_given(other, record):
                    return other
            place = place.parent if place.propagate else None
        return None

    def _report_once(self, topic: str, message: str) -> None:
        if topic not in self._reported:
            self._reported.add(topic)
            _report_apart(topic, message)


def logging_config(
    logger: str = "business",
    *,
    level: int | str = "DEBUG",
    client: BusinessTelemetryClient | None = None,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """
    Write a complete configuration for `logging.config.dictConfig`.

    Records of the logger and its children become events and go nowhere else; all other
    loggers stay as they are. As YAML or JSON, or to merge into a configuration of your
    own, the same is

        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "bizlog": {
                    "()": "bizlog.BusinessEventHandler",
                    "source": "order-service",
                    "sinks": ["file:./events"],
                }
            },
            "loggers": {
                "business": {
                    "handlers": ["bizlog"], "level": "DEBUG", "propagate": False
                }
            },
        }

    with `"class"` in the place of `"()"` if you like; objects are named as dictConfig
    has it, `"client": "ext://shop.telemetry.client"`.

    Args:
        logger: Name of the logger that takes business events.
        level: Lowest level that becomes an event.
        client: As `BusinessEventHandler` takes it.
        options: As `BusinessEventHandler` takes them.
    """
    arguments = {"client": client, **options}
    given = {name: value for name, value in arguments.items() if value is not None}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"bizlog": {"()": "bizlog.BusinessEventHandler", **given}},
        "loggers": {
            logger: {"handlers": ["bizlog"], "level": level, "propagate": False}
        },
    }


def divert(
    *patterns: str,
    client: BusinessTelemetryClient | None = None,
    source: str | None = None,
) -> Processor:
    """
    Make a structlog processor that takes business events out of a service's own chain.

        structlog.configure(processors=[bizlog.divert("loan.*"), ..., JSONRenderer()])

    Business events are typed events, names of the catalogue, names of a known family
    (`order.*`) and what a pattern matches. They are emitted through bizlog and end here
    with `structlog.DropEvent`; everything else passes unchanged. In development an
    invalid one raises `InvalidEventError` at the call. What a sink logs in the course
    of its call would feed itself, if it is a business event: it ends here, too, and is
    not emitted.

    It stands first, where properties are still as the caller gave them (after
    `merge_contextvars`, if events shall carry what that brings). A level written by a
    processor before it is left out, as are traceback and stack.

    A filtering bound logger drops a call before any processor sees it: with
    `make_filtering_bound_logger("WARNING")` there is no `info` to divert. And a
    formatter cannot drop a record: in the `foreign_pre_chain` of a `ProcessorFormatter`
    all records pass (business events among them are counted in the metric
    `bizlog_separation_crossings_total`); give loggers of the standard library a
    `BusinessEventHandler`.

    Args:
        patterns: Further names, as in `fnmatch`: `loan.*`. A pattern alone decides;
            the name need not look like an event's.
        client: The client to emit through; by default the process-wide one, as it is
            configured at the time of each call.
        source: `event_source` of these events, where it is not the client's.

    Raises:
        ConfigurationError: A pattern is no text.
    """
    return _Diverter(patterns, client, source)


class _Diverter:
    def __init__(
        self,
        patterns: tuple[str, ...],
        client: BusinessTelemetryClient | None,
        source: str | None,
    ) -> None:
        either = "|".join(map(_expression, patterns))
        self._matches = re.compile(either).match if patterns else _never
        self._client = client
        self._source = source

    def __call__(self, _: Any, method_name: str, event_dict: EventDict) -> EventDict:
        """Emit a business event and drop it; pass everything else on."""
        client = None
        try:
            if not self._takes(event_dict.get("event")):
                return event_dict
            if event_dict.get("_from_structlog") is False:
                _pass_foreign()
                return event_dict
            if separation.inside():
                separation.guard.stopped += 1
            else:
                client = self._client or clients._default  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # no call, as above
                client = client or default_client()
                state = _state_of(method_name, event_dict)
                client.emit(method_name, state, self._source)
        except _PASSING:
            raise
        except BaseException:  # noqa: BLE001  # never into the caller
            if client is None:
                return event_dict
            client.unheard += 1
        raise DropEvent

    def _takes(self, event: object) -> bool:
        kind = type(event)
        if not issubclass(kind, str):
            return issubclass(kind, BaseEvent)
        # Not the caller's object: a subclass of str may do anything when compared.
        name = str.__str__(cast("str", event))
        return bool(self._matches(name)) or (is_event_name(name) and self._knows(name))

    def _knows(self, name: str) -> bool:
        return (self._client or default_client()).settings.registry.knows(name)


def _expression(pattern: object) -> str:
    if not isinstance(pattern, str):
        raise ConfigurationError(
            "divert: expected patterns such as 'loan.*'; among structlog's processors "
            "it is called: processors=[bizlog.divert(), ...]"
        )
    return fnmatch.translate(pattern)


def _never(_: str) -> None:
    return None


def _state_of(method_name: str, event_dict: EventDict) -> dict[str, Any]:
    fields = {k: v for k, v in event_dict.items() if k not in _OF_STRUCTLOG}
    written = add_log_level(None, method_name, {})["level"]
    if type(fields.get("level")) is str and fields["level"] == written:
        del fields["level"]
    event = fields.pop("event")
    return event_state(event, _merged(fields, event_dict.get("positional_args")))


def _pass_foreign() -> None:
    if separation.inside():
        return  # what a sink's libraries log is operational, whatever it looks like
    separation.guard.crossings += 1
    _report_apart(
        "divert.foreign",
        "a business event of a logger of the standard library passed divert() in a "
        "ProcessorFormatter, where a record cannot be dropped: give that logger a "
        "bizlog.BusinessEventHandler",
    )


def _is_own(logger_name: object) -> bool:
    return f"{logger_name}.".startswith("bizlog.")


def _feeds_itself(record: logging.LogRecord) -> bool:
    """Say whether a record was made by bizlog or in the course of a sink's call."""
    if separation.inside() or _is_own(record.name):
        return True
    # Through a queue it comes without its context; the name of the thread came along.
    elsewhere = record.thread != threading.get_ident()
    return elsewhere and str(record.threadName).startswith("bizlog")


def _is_given(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """
    Say whether an operational handler gets a record for sure.

    Not one with filters, which may hold it back, nor one that hands on what it gets
    and may have led here, as `MemoryHandler` and `QueueHandler` do. And what pytest
    captures during a test, of loggers that do not propagate as well, is no log.
    """
    return not (
        record.levelno < handler.level
        or handler.filters
        or isinstance(handler, BusinessEventHandler | logging.NullHandler)
        or hasattr(handler, "target")
        or hasattr(handler, "queue")
        or type(handler).__module__ == "_pytest.logging"
    )


def _is_event(message: object) -> bool:
    kind = type(message)
    if issubclass(kind, str):
        return is_event_name(str.__str__(cast("str", message)))
    return issubclass(kind, BaseEvent)


def _properties_of(record: logging.LogRecord) -> dict[str, Any]:
    extra = {k: v for k, v in vars(record).items() if k not in _OF_LOGGING}
    return _merged(extra, record.args)


def _merged(fields: dict[str, Any], arguments: object) -> dict[str, Any]:
    """Add positional arguments to properties; a single mapping may come bare."""
    if arguments is None:
        return fields
    bare = not isinstance(arguments, tuple)
    given = cast("tuple[object, ...]", (arguments,) if bare else arguments)
    for position, argument in enumerate(given):
        properties = _as_properties(argument)
        fields |= {f"arg_{position}": argument} if properties is None else properties
    return fields


def _as_properties(argument: object) -> dict[str, Any] | None:
    """Copy a mapping; None where it is none or cannot be read."""
    try:
        if issubclass(type(argument), Mapping):
            return dict(cast("Mapping[str, Any]", argument))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # a mapping's own methods
        return None
    return None


def _report_apart(topic: str, message: str) -> None:
    """
    Report on a thread of its own.

    Logging takes locks, which the caller may hold, and so does `threading.Thread`,
    which a signal handler may have interrupted.
    """
    with suppress(RuntimeError):  # the interpreter exits, or has no thread to give
        _thread.start_new_thread(diagnostics.report, (topic, message))


def _given(options: Options) -> Options:
    """Copy the options that say something, resolved."""
    given = {k: _resolved(v) for k, v in options.items() if v is not None}
    return cast("Options", given)


def _resolved(value: object) -> object:
    """Copy dictConfig's lists and tables, which resolve `ext://` by item alone."""
    if isinstance(value, dict):
        table = cast("MutableMapping[object, object]", value)
        return {key: _resolved(table[key]) for key in table}
    if isinstance(value, list | tuple):
        items = cast("list[object]", value)
        return [_resolved(items[index]) for index in range(len(items))]
    return value


def _take_over(fresh: BusinessTelemetryClient) -> None:
    """
    Make a client the process-wide one, and retire the one before in the background.

    `configure` waits for what that one still holds. Here that could not come to an
    end: dictConfig holds logging's lock, which bizlog's thread needs when a sink logs.
    """
    before = clients._default  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # it configures
    clients._default = fresh  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # it configures
    if before is not None:
        with suppress(RuntimeError):  # the interpreter exits: its hook shuts it down
            threading.Thread(target=_retire, args=(before,), daemon=True).start()


def _retire(client: BusinessTelemetryClient) -> None:
    deadline = time.monotonic() + client.settings.shutdown_timeout
    client.flush_sync(client.settings.shutdown_timeout)
    client.shutdown_sync(max(0.0, deadline - time.monotonic()))
