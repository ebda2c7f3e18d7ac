"""
What a destination is: sinks, records, batches and their answers. No I/O here.

A sink is an object with the five methods of the seed's `BaseSink`. The engine calls
`deliver(batch)` from one task at a time (from `max_in_flight` tasks where a sink allows
it), on bizlog's own event loop. Sinks that move
encoded bytes override `deliver`; sinks that want dictionaries override `send_batch` or
just `send`, as in the seed, and may return None.

Sinks are named by URL (`file:./events?compression=gzip`), by a table (`{"type": "file",
"directory": "./events"}`) or given as objects. The part before the colon is looked up
among the entry points of the group `bizlog.sinks`, so a package can bring its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import msgspec

from bizlog._wording import describe_error, suggest, validation_reason
from bizlog.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    # At run time where they are used: 16 ms that `import bizlog` need not take.
    from importlib.metadata import EntryPoint
    from typing import Self
    from urllib.parse import SplitResult

ENTRY_POINT_GROUP = "bizlog.sinks"

Event: TypeAlias = dict[str, Any]


class Record(msgspec.Struct, frozen=True, gc=False):
    """
    One accepted event: immutable, encoded once, on the caller's thread.

    Attributes:
        data: The event as UTF-8 JSON on one line, without a line end.
        event_id: UUID of the event, as in `data`.
        event_type: Name of the event, as in `data`: not safe as a path.
        event_time: RFC 3339 in UTC with microseconds, as in `data`.
        sequence: Position among the events of this producer, from 1.
    """

    data: bytes
    event_id: str
    event_type: str
    event_time: str
    sequence: int

    @property
    def event(self) -> Event:
        """Decode the event; a new dictionary at each call."""
        from orjson import loads  # noqa: PLC0415  # where an event is read at all

        return cast("Event", loads(self.data))


class Batch(msgspec.Struct, frozen=True):
    """
    Records that go to one sink in one call, under a name that never changes.

    Attributes:
        journal_id: The journal that the records stand in.
        first: Position of the first record in that journal.
        last: Position of the last record, inclusive.
        records: The records in order; fewer than `last - first + 1` where a route
            left some out.
        part: Names the part, where only some of the sealed records are sent again;
            empty for the whole.
    """

    journal_id: str
    first: int
    last: int
    records: Sequence[Record]
    part: str = ""

    @property
    def name(self) -> str:
        """The stable name: the same records sent again have the same one."""
        return f"{self.journal_id}-{self.first}-{self.last}{self.part}"

    @property
    def size(self) -> int:
        """Bytes of all events together."""
        return sum([len(record.data) for record in self.records])

    @property
    def events(self) -> list[Event]:
        """Decode all events; new dictionaries at each call."""
        return [record.event for record in self.records]


class Rejection(msgspec.Struct, frozen=True):
    """
    One event that a sink refused for good.

    Attributes:
        index: Position in `Batch.records`, from 0.
        reason: Why, without values of the event.
        path: JSON path of the fault where the sink knows it.
    """

    index: int
    reason: str
    path: str | None = None


class SendResult(msgspec.Struct, frozen=True):
    """
    A sink's answer for one batch: everything not named here was accepted.

    Attributes:
        rejected: Events refused for good; they go to the dead letters.
        retry: Indices of events that may be sent again.
        retry_after: Seconds the destination asked to wait before `retry`.
        retry_reason: Why the events of `retry` could not be taken now.
    """

    rejected: tuple[Rejection, ...] = ()
    retry: tuple[int, ...] = ()
    retry_after: float | None = None
    retry_reason: str | None = None


ACCEPTED = SendResult()

# What sinks of a forked child had in the parent: were it deleted, buffers would be
# written and connections closed that are the parent's.
left_to_parents: list[dict[str, Any]] = []


class BaseSink:
    """
    Base of all sinks; its five methods are the seed's.

    Override one of `send` (one event), `send_batch` (a list of events) or `deliver`
    (encoded records). Every method runs on bizlog's event loop: await, do not block
    (`asyncio.to_thread` serves blocking clients). An exception means the batch failed;
    `RetryableSinkError` and `PermanentSinkError` say whether again makes sense.

    Attributes:
        name: Short name in ledger and metrics; by default the class's.
        max_events: Most events that one call may carry.
        max_bytes: Most bytes of events that one call may carry (a larger single
            event is still offered, alone).
        max_in_flight: Batches that may be under way at the same time; with more than
            one, batches may arrive in another order than they were sealed in.
        flush_interval: Seconds an event may wait for company; None takes the setting.
    """

    name: str = ""
    max_events: int = 1_000
    max_bytes: int = 900 * 1024
    max_in_flight: int = 1
    flush_interval: float | None = None

    # The constructor's parameter that takes the URL's part behind the colon.
    url_option: str | None = None

    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    if not TYPE_CHECKING:  # for type checkers a sink takes what its __init__ takes

        def __new__(cls, *args: Any, **options: Any) -> Self:
            """Note what the sink is made with, for `after_fork`."""
            if (args or options) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            sink = super().__new__(cls)
            if args or options:
                sink._made_with = args, options
            return sink

        # Sinks without an __init__ have no options.
        __new__.__signature__ = inspect.Signature(
            [inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)]
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = _default_name(cls)

    async def start(self) -> None:
        """Open what the sink needs; called before the first batch."""

    async def stop(self) -> None:
        """Close it; called once, after the last batch."""

    async def send(self, event: Event) -> None:
        """Send one event."""
        raise NotImplementedError(
            f"{type(self).__name__} must override send, send_batch or deliver"
        )

    async def send_batch(self, events: list[Event]) -> SendResult | None:
        """Send several events; by default one after the other, each on its own."""
        rejected: list[Rejection] = []
        for index, event in enumerate(events):
            try:
                await self.send(event)
            except Exception as error:  # noqa: BLE001  # the sink's own send
                rejected.append(Rejection(index, describe_error(error)))
        return SendResult(rejected=tuple(rejected))

    async def flush(self) -> None:
        """Make durable what was sent; called by `bizlog.flush()` and at the end."""

    def after_fork(self) -> None:
        """
        Begin anew in a forked child, which then calls `start` for itself.

        Called there once, before the child's first event, if the parent had begun to
        use the sink; it must not wait. Sockets, files and tasks belong to the parent:
        they must be neither closed nor flushed, since descriptors are shared. By
        default the sink forgets all it has, which is kept as it is for as long as the
        child lives, and runs `__init__` again with the arguments it was made with.
        """
        of_the_parent = dict(vars(self))
        left_to_parents.append(of_the_parent)
        args, options = self._made_with
        vars(self).clear()
        vars(self)["_made_with"] = args, options
        try:
            self.__init__(*args, **options)  # type: ignore[misc]  # begins anew
        except Exception:
            vars(self).update(of_the_parent)
            raise

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Take one batch; this is what the engine calls.

        Returns:
            What became of each event. A sink in the seed's form returns None from
            `send_batch`, which means that all were accepted.
        """
        return await self.send_batch(batch.events) or ACCEPTED

    def routes(self) -> Sequence[Route]:
        """The sinks this one stands for: itself, unless it is a composite."""
        return (Route(self),)

    @classmethod
    def from_url(cls, url: SplitResult) -> BaseSink:
        """
        Build the sink from `scheme:VALUE?option=value`.

        Raises:
            ConfigurationError: An option is unknown or has the wrong type.
        """
        from urllib.parse import parse_qsl, unquote  # noqa: PLC0415  # see above

        options: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True))
        value = unquote(url.netloc + url.path)
        if value and cls.url_option is None:
            raise ConfigurationError(f"takes nothing behind '{url.scheme}:'")
        if value and cls.url_option:
            options.setdefault(cls.url_option, value)
        return cls.from_options(options)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> BaseSink:
        """
        Build the sink from options by name; text is converted to the option's type.

        Raises:
            ConfigurationError: An option is unknown, missing or has the wrong type.
        """
        return cls(**_convert_options(cls, options))


@runtime_checkable
class SeedSink(Protocol):
    """The seed's interface, for sinks that do not inherit from `BaseSink`."""

    async def start(self) -> None:
        """Open what the sink needs."""

    async def stop(self) -> None:
        """Close it."""

    async def send(self, event: Event) -> Any:
        """Send one event."""

    async def send_batch(self, events: list[Event]) -> Any:
        """Send several events."""

    async def flush(self) -> None:
        """Make durable what was sent."""


def _default_name(cls: type) -> str:
    return cls.__name__.removesuffix("Sink").lower() or "sink"


class _SeedSinkAdapter(BaseSink):
    """Runs a sink written to the seed's own signatures, unchanged."""

    def __init__(self, sink: SeedSink) -> None:
        self._sink = sink
        self.name = getattr(sink, "name", "") or _default_name(type(sink))

    def after_fork(self) -> None:
        # How the sink was made is unknown; without a method of this name, its `start`
        # has to open everything anew.
        after_fork = getattr(self._sink, "after_fork", None)
        if callable(after_fork):
            after_fork()

    async def start(self) -> None:
        await self._sink.start()

    async def stop(self) -> None:
        await self._sink.stop()

    async def send_batch(self, events: list[Event]) -> SendResult | None:
        answer = await self._sink.send_batch(events)
        return answer if isinstance(answer, SendResult) else None

    async def flush(self) -> None:
        await self._sink.flush()


Condition: TypeAlias = Callable[[Record], bool]


class Route:
    """
    A sink together with the events that belong to it.

    Args:
        sink: Where matching events go: a sink, a sink URL or a table.
        event_type: A name or pattern (`"order.*"`) or several, any of which must
            match; None matches every name.
        when: A predicate over the decoded event, called on bizlog's thread. An event
            for which it raises goes to the dead letters of this sink.
    """

    def __init__(
        self,
        sink: BaseSink | SeedSink | str | Mapping[str, Any],
        event_type: str | Sequence[str] | None = None,
        when: Callable[[Event], bool] | None = None,
    ) -> None:
        _check_route(event_type, when)
        self.sink = make_sink(sink)
        self.conditions: tuple[Condition, ...] = ()
        if event_type is not None:
            self.conditions += (_matching_type(event_type),)
        if when is not None:
            self.conditions += (_matching_event(when),)

    def matches(self, record: Record) -> bool:
        """Whether the record belongs to this sink."""
        return all(condition(record) for condition in self.conditions)

    def expand(self) -> list[Route]:
        """Resolve composites into one route for each sink that really sends."""
        routes: list[Route] = []
        for inner in self.sink.routes():
            if inner.sink is self.sink:
                routes.append(self)
                continue
            joined = Route(inner.sink)
            joined.conditions = self.conditions + inner.conditions
            routes.extend(joined.expand())
        return routes


def _check_route(event_type: object, when: object) -> None:
    patterns = [event_type] if isinstance(event_type, str) else event_type
    if patterns is not None and not (
        isinstance(patterns, Sequence)
        and all(isinstance(each, str) for each in cast("Sequence[object]", patterns))
    ):
        kind = type(event_type).__name__
        raise ConfigurationError(
            "event_type of a route: expected a name or pattern such as 'order.*', or a "
            f"list of them, got {kind}"
        )
    if when is not None and not callable(when):
        raise ConfigurationError(
            "when of a route: expected a function that takes the event as a "
            f"dictionary, got {type(when).__name__}"
        )


def _matching_type(event_type: str | Sequence[str]) -> Condition:
    patterns = [event_type] if isinstance(event_type, str) else list(event_type)

    def condition(record: Record) -> bool:
        return any(fnmatchcase(record.event_type, pattern) for pattern in patterns)

    return condition


def _matching_event(when: Callable[[Event], bool]) -> Condition:
    return lambda record: bool(when(record.event))


def as_sink(sink: object) -> BaseSink:
    """
    Take a sink as it is, or adapt one that has the seed's five methods.

    Raises:
        ConfigurationError: The object is no sink.
    """
    if isinstance(sink, BaseSink):
        return sink
    if isinstance(sink, SeedSink) and not isinstance(sink, type):
        return _SeedSinkAdapter(sink)
    raise ConfigurationError(
        f"expected a sink, a sink URL or a table, got {type(sink).__name__}: a sink "
        "has the async methods start, stop, send, send_batch and flush"
    )


def make_sink(spec: object) -> BaseSink:
    """
    Build a sink from a URL, a table with a `type`, or an object.

    Raises:
        ConfigurationError: What is wrong, without secrets that the URL may hold.
        MissingExtraError: The sink's packages are not installed.
    """
    if isinstance(spec, str):
        return _sink_from_url(spec)
    if isinstance(spec, Mapping):
        return _sink_from_table(cast("Mapping[str, Any]", spec))
    return as_sink(spec)


def _sink_from_url(text: str) -> BaseSink:
    from urllib.parse import urlsplit  # noqa: PLC0415  # see above

    try:
        # A '#' belongs to the folder or name: no sink has fragments.
        url = urlsplit(text, allow_fragments=False)
    except ValueError as error:
        raise ConfigurationError(f"a sink URL that is malformed: {error}") from None
    if not url.scheme:
        raise ConfigurationError(
            f"expected a sink URL such as 'file:./events', got {text!r}: "
            f"known schemes are {_known_schemes()}"
        )
    return _named(f"{url.scheme}:", lambda: load_sink_class(url.scheme).from_url(url))


def _sink_from_table(table: Mapping[str, Any]) -> BaseSink:
    options = dict(table)
    scheme = options.pop("type", None)
    if not isinstance(scheme, str):
        raise ConfigurationError(
            "a sink table needs 'type', the name of the sink: "
            f"known names are {_known_schemes()}"
        )
    return _named(
        f"type {scheme!r}", lambda: load_sink_class(scheme).from_options(options)
    )


def _named(what: str, build: Callable[[], BaseSink]) -> BaseSink:
    try:
        return build()
    except ConfigurationError as error:
        raise ConfigurationError(f"sink {what} {error}") from None


def _installed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # see above

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _known_schemes() -> str:
    return ", ".join(sorted(_installed())) or "none (is bizlog installed?)"


def load_sink_class(scheme: str) -> type[BaseSink]:
    """
    Find the sink class that a URL scheme names, among the entry points.

    Raises:
        ConfigurationError: No installed package brings such a sink.
        MissingExtraError: The sink is known, its packages are not installed.
    """
    point = _installed().get(scheme)
    if point is None:
        hint = suggest(scheme, _installed())
        raise ConfigurationError(f"is unknown{hint}; known are {_known_schemes()}")
    try:
        return cast("type[BaseSink]", point.load())
    except MissingExtraError:
        raise
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"cannot be loaded from {point.value}: {describe_error(error)}"
        ) from error


def _convert_options(cls: type[BaseSink], options: Mapping[Any, Any]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    hints = get_type_hints(cls.__init__)
    problems: list[str] = []
    converted: dict[str, Any] = {}
    for name, value in options.items():
        if name in named or (open_ended and isinstance(name, str)):
            kind = hints.get(name, Any) if name in named else Any
            _convert_option(name, value, kind, converted, problems)
            continue
        known = ", ".join(named) or "none"
        hint = suggest(name, named) if isinstance(name, str) else ""
        problems.append(f"has no option {name!r:.100}{hint}; options: {known}")
    missing = [
        name
        for name, parameter in named.items()
        if parameter.default is parameter.empty and name not in options
    ]
    problems += [f"needs the option {name!r}" for name in missing]
    if problems:
        raise ConfigurationError("; ".join(problems))
    return converted


def _convert_option(
    name: str, value: Any, kind: Any, converted: dict[str, Any], problems: list[str]
) -> None:
    try:
        converted[name] = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        reason = validation_reason(error)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices:
            listed = ", ".join(map(repr, choices))
            reason = f"expected one of {listed}, got another {type(value).__name__}"
        problems.append(f"option {name!r}: {reason}")
