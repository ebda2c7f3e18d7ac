"""
For tests of users and of bizlog itself: captured events, sinks, a clock.

    with capture_events() as events:
        place_order("42")
    events.assert_emitted("order.placed", order_id="42", times=1)

`capture_events` stands in for the process-wide client: events take the whole chain as
in production and are there when the call returns, with no thread and no file. With
pytest it is the fixture `business_events`. A client of your own takes a sink in memory:

    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(source="test", sinks=[sink]) as client:
        client.send_sync("order.placed", order_id="42")
    assert sink.events[0]["order_id"] == "42"
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import msgspec

from bizlog import client as clients
from bizlog._wording import suggest
from bizlog.client import BusinessTelemetryClient
from bizlog.delivery.engine import Engine
from bizlog.delivery.queue import FrontQueue
from bizlog.exceptions import ConfigurationError, RetryableSinkError
from bizlog.plan import STAMPED, Draft
from bizlog.registry import registry as default_registry
from bizlog.settings import load_settings
from bizlog.sinks import ACCEPTED, BaseSink, Batch, Event, Rejection, SendResult

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Unpack

    from bizlog.client import Options
    from bizlog.exceptions import InvalidEventError
    from bizlog.plan import Outlet
    from bizlog.registry import Registry
    from bizlog.settings import Settings
    from bizlog.sinks import Record

# Settings that would do nothing where nothing is delivered.
_OF_DELIVERY = frozenset(
    {
        "sinks",
        "queue_events",
        "queue_bytes",
        "overflow",
        "block_timeout",
        "batch_size",
        "flush_interval",
        "sink_timeout",
        "shutdown_timeout",
        "handle_sigterm",
        "dead_letters",
        "metrics_registry",
    }
)

# The calls of a client in which it matters whether it captures; `flush` has nothing to
# wait for before the first event.
_ENTRANCES = ("emit", "shutdown_sync", "ledger")

# What a failure leaves out of an event: it differs from run to run.
_UNTOLD = STAMPED | {"event_time"}

# How many events of one name a failure tells of.
_TOLD_EVENTS = 5

_ABSENT = object()


class InvalidEvent(NamedTuple):
    """
    An event that broke its schema and was refused.

    Attributes:
        name: The event's name.
        reason: What was expected and what was found, without the value.
        path: JSON path of the fault, or None where it is the whole event.
    """

    name: str
    reason: str
    path: str | None

    def __str__(self) -> str:
        where = f"{self.name} {self.path}" if self.path else self.name
        return f"{where}: {self.reason}"


class CapturedEvents(Sequence[Event]):
    """
    Events as they stand on the wire, in the order in which they were emitted.

    Each item is a dictionary. Numbers with a decimal point are `Decimal`, so that money
    is exact; null and absent are the same.

    Attributes:
        records: The encoded events.
        invalid: Events that were refused. Take out what a test expects.
        registry: The catalogue that failures suggest names from.
    """

    def __init__(self, registry: Registry = default_registry) -> None:
        self.records: list[Record] = []
        self.invalid: list[InvalidEvent] = []
        self.registry = registry

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if isinstance(index, slice):
            return [_decode(record) for record in self.records[index]]
        return _decode(self.records[index])

    def __repr__(self) -> str:
        return f"<{len(self)} captured events: {_counted(self.names)}>"

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [record.event_type for record in self.records]

    def of(self, pattern: str) -> list[Event]:
        """
        Find the events of a name.

        Args:
            pattern: A name, or a pattern such as `"order.*"`.
        """
        return [
            _decode(record)
            for record in self.records.copy()
            if fnmatchcase(record.event_type, pattern)
        ]

    def clear(self) -> None:
        """Forget the events so far; those that were invalid stay in `invalid`."""
        self.records.clear()

    def assert_emitted(
        self,
        name: str,
        /,
        *,
        times: int | None = None,
        **expected: Any | Callable[[Any], object],
    ) -> list[Event]:
        """
        Fail unless an event was emitted.

        Args:
            name: Its name.
            times: How many such events there must be; None means one or more.
            expected: Values of its fields as they stand on the wire (ids are text),
                custom properties included. Numbers are equal by value. A callable gets
                the value and says whether it will do; None means that the field is
                absent; `unittest.mock.ANY` that it is there.

        Returns:
            The events that match.

        Raises:
            AssertionError: Tells what was emitted under this name, and where it
                differs.
        """
        __tracebackhide__ = True
        found = [(_differences(event, expected), event) for event in self.of(name)]
        matching = [event for differences, event in found if not differences]
        if (len(matching) == times) if times is not None else matching:
            return matching
        wanted = _wanted(name, times, expected)
        told = _tell_found(found) if found else self._tell_others(name)
        raise AssertionError("\n".join([f"{wanted}; {len(matching)} match", *told]))

    def assert_none(self, pattern: str = "*") -> None:
        """
        Fail if events were emitted.

        Args:
            pattern: The name or pattern of the events that must not be there.

        Raises:
            AssertionError: Lists them.
        """
        __tracebackhide__ = True
        found = self.of(pattern)
        if found:
            wanted = f"expected no event {pattern!r}; there are {len(found)}"
            told = _tell_found([([], event) for event in found])
            raise AssertionError("\n".join([wanted, *told]))

    def assert_valid(self) -> None:
        """
        Fail if events were invalid.

        Raises:
            AssertionError: Lists them with path and reason.
        """
        __tracebackhide__ = True
        if self.invalid:
            raise AssertionError(self.describe_invalid())

    def describe_invalid(self) -> str:
        """List the invalid events with path and reason, one a line."""
        lines = [f"  {event}" for event in self.invalid]
        return "\n".join([f"invalid business events: {len(lines)}", *lines])

    def _tell_others(self, name: str) -> list[str]:
        known = {*self.registry.names, *self.names} - {name}
        near = "" if name in self.registry.names else suggest(name, known)
        return [
            f"  none was emitted under this name{near}",
            f"  emitted: {_counted(self.names)}",
            *(f"  invalid: {event}" for event in self.invalid if event.name == name),
        ]


def _decode(record: Record) -> Event:
    return cast("Event", json.loads(record.data, parse_float=Decimal))


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names).items()
    return ", ".join(f"{name} ({n})" for name, n in counts) or "nothing"


def _wanted(name: str, times: int | None, expected: Mapping[str, Any]) -> str:
    how_many = "" if times is None else f" {times} times"
    fields = ", ".join(f"{key}={_show(value)}" for key, value in expected.items())
    return f"expected {name!r}{how_many}{' with ' if fields else ''}{fields}"


def _show(expected: object) -> str:
    return getattr(expected, "__name__", None) or repr(expected)


def _differences(event: Event, expected: Mapping[str, Any]) -> list[str]:
    found = {name: _look_up(event, name) for name in expected}
    return [
        f"{name}: expected {_show(value)}, {_got(found[name])}"
        for name, value in expected.items()
        if not _fits(value, found[name])
    ]


def _got(value: object) -> str:
    return "it is absent" if value is _ABSENT else f"got {value!r}"


def _look_up(event: Event, name: str) -> Any:
    if name in event:
        return event[name]
    return event.get("custom_properties", {}).get(name, _ABSENT)


def _fits(expected: Any, value: Any) -> bool:
    if expected is None or value is _ABSENT:
        return expected is None and (value is None or value is _ABSENT)
    if not callable(expected):
        return bool(_on_the_wire(expected) == value)
    try:
        return bool(expected(value))
    except Exception:  # noqa: BLE001  # the user's predicate, and a value of any type
        return False


def _on_the_wire(expected: Any) -> Any:
    """Write a value as the decoded event has it: a float as its digits say."""
    if isinstance(expected, float):
        return Decimal(float.__repr__(expected))
    if isinstance(expected, Mapping):
        items = cast("Mapping[Any, Any]", expected).items()
        return {key: _on_the_wire(value) for key, value in items}
    if isinstance(expected, list | tuple):
        return [_on_the_wire(value) for value in cast("Sequence[Any]", expected)]
    return expected


def _tell_found(found: Sequence[tuple[list[str], Event]]) -> list[str]:
    """Tell of the events, those first that differ least."""
    lines: list[str] = []
    nearest = sorted(found, key=lambda pair: len(pair[0]))
    for differences, event in nearest[:_TOLD_EVENTS]:
        told = {key: value for key, value in event.items() if key not in _UNTOLD}
        lines.append(f"  {event['event_type']} {told}")
        lines += [f"    {difference}" for difference in differences]
    more = len(found) - _TOLD_EVENTS
    return [*lines, f"  and {more} more"] if more > 0 else lines


@contextmanager
def capture_events(
    *, allow_invalid: bool = False, **options: Unpack[Options]
) -> Generator[CapturedEvents]:
    """
    Capture what is emitted through the process-wide client, instead of delivering it.

    The events take the whole chain: context, processors, classification, validation,
    privacy, encoding. They are captured before the call returns, from any thread and
    any event loop; there is no thread of bizlog's, no file and no dead letter. Loggers
    made earlier follow. `flush`, `shutdown` and `ledger` work as always; the ledger has
    one sink, `captured`.

    `configure()` inside the block works, too: its settings hold for the events that
    follow, and these are captured, whatever its sinks. After the block everything is as
    it was before. Not captured are clients that code makes for itself. Blocks may be
    nested, the innermost captures; as they stand in for what the whole process shares,
    blocks in different threads must not overlap.

    Args:
        allow_invalid: Do not fail on invalid events.
        options: Settings as `bizlog.configure` takes them, of those that shape events.
            What is not given is as in the configuration in force, without one as in
            the environment and `bizlog.toml`. `disabled` must be given, so that
            `BIZLOG_DISABLED` in a test's environment does not hide its events.

    Raises:
        AssertionError: At the end, where events were invalid; not in the place of an
            exception that is on its way, which gets a note instead.
        ConfigurationError: Settings that cannot work, or that only concern delivery.
    """
    __tracebackhide__ = True
    captured = CapturedEvents()
    client = _CapturingClient(_settings(options), captured)
    with _in_charge(client, captured):
        try:
            yield captured
        except BaseException as error:
            if captured.invalid and not allow_invalid:
                error.add_note(captured.describe_invalid())
            raise
    if not allow_invalid:
        captured.assert_valid()


def _settings(options: Mapping[str, Any]) -> Settings:
    given = {name: value for name, value in options.items() if value is not None}
    useless = sorted(_OF_DELIVERY & given.keys())
    if useless:
        raise ConfigurationError(
            [f"{name}: captured events are not delivered" for name in useless]
        )
    given = {"disabled": False, "sinks": [_Captured()], **given}
    checked, before = load_settings(given), _default()
    if before is None:
        return checked
    chosen = {name: getattr(checked, name) for name in given}
    return msgspec.structs.replace(before.settings, **chosen)


def _default() -> BusinessTelemetryClient | None:
    return clients._default  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its tool


def _set_default(client: BusinessTelemetryClient | None) -> None:
    clients._default = client  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its tool


@contextmanager
def _in_charge(client: _CapturingClient, captured: CapturedEvents) -> Generator[None]:
    """Make a client the process-wide one, and have its successors capture, too."""
    before = _default()
    with _converting(captured):
        _set_default(client)
        try:
            yield
        finally:
            last = _default()
            if last is not None and last is not before:
                last.shutdown_sync(0)
            _set_default(before)


@contextmanager
def _converting(captured: CapturedEvents) -> Generator[None]:
    """
    Have whatever client is the process-wide one capture, from the first call on.

    There are several ways to set one up (`configure`, a handler of a logging
    configuration), all of which make an ordinary client; no event of it may get away.
    """
    originals = {name: getattr(BusinessTelemetryClient, name) for name in _ENTRANCES}
    lock = threading.RLock()

    def converting(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: BusinessTelemetryClient, *args: Any, **kwargs: Any) -> Any:
            with lock:
                _convert(self, captured)
            return method(self, *args, **kwargs)

        return call

    for name, method in originals.items():
        setattr(BusinessTelemetryClient, name, converting(method))
    try:
        yield
    finally:
        for name, method in originals.items():
            setattr(BusinessTelemetryClient, name, method)


def _convert(client: BusinessTelemetryClient, captured: CapturedEvents) -> None:
    if client is _default() and not isinstance(client, _CapturingClient):
        client.__class__ = _CapturingClient
        cast("_CapturingClient", client).capture(captured)


class _Captured(BaseSink):
    """The captured events' place in the ledger; nothing is ever sent to it."""

    name = "captured"


class _CapturingClient(BusinessTelemetryClient):
    """A client whose events go straight to the test: no pump runs, no thread starts."""

    def __init__(self, settings: Settings, captured: CapturedEvents) -> None:
        self._set_up(
            msgspec.structs.replace(
                settings, sinks=(_Captured(),), handle_sigterm=False
            )
        )
        self.capture(captured)

    def capture(self, captured: CapturedEvents) -> None:
        """Take the place of queue and engine."""
        self._captured = captured
        captured.registry = self.settings.registry
        self.settings = msgspec.structs.replace(self.settings, sinks=(_Captured(),))
        self._queue = _KeepingQueue(self._keep, self._discard_letters)
        self._engine = Engine(self._queue, self._make_pump, 0)

    def begin_anew(self) -> None:
        """Go on capturing in a forked child, whose copy of the events it is."""
        closed = self._queue.closed
        super().begin_anew()
        self.capture(self._captured)
        self._queue.closed = closed

    def _keep(self, record: Record) -> None:
        self._captured.records.append(record)
        self._lanes[0].delivered += 1

    def _discard_letters(self) -> None:
        self._engine.pump.rejected.take()

    def _reject(self, outlet: Outlet, state: Any, error: InvalidEventError) -> None:
        invalid = InvalidEvent(_name_of(state), error.reason, error.path)
        self._captured.invalid.append(invalid)
        super()._reject(outlet, state, error)


class _KeepingQueue(FrontQueue):
    """
    A queue in which nothing waits.

    Args:
        keep: Takes each record, on the caller's thread.
        bury: Takes care of the dead letters of refused events.
    """

    def __init__(
        self, keep: Callable[[Record], None], bury: Callable[[], None]
    ) -> None:
        super().__init__(
            max_events=1,
            max_bytes=1,
            overflow="drop_newest",
            block_timeout=0,
            wake=bury,
        )
        self._keep = keep
        self._bury = bury

    def offer(self, record: Record) -> bool:
        """Hand the record over, unless the client was shut down."""
        if self.closed:
            self.dropped.add("closed")
            return False
        self._keep(record)
        return True

    def nudge(self) -> None:
        """Bury at once."""
        self._bury()


def _name_of(state: Any) -> str:
    name = state.name if isinstance(state, Draft) else state.get("event")
    return name if isinstance(name, str) else type(name).__name__


class MemorySink(BaseSink):
    """
    Keeps what it gets.

    Attributes:
        batches: The batches, in order of arrival.
        calls: Names of the methods that were called, in order, without `deliver`.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.calls: list[str] = []

    @property
    def records(self) -> list[Record]:
        """All records, in order of arrival."""
        return [record for batch in self.batches for record in batch.records]

    @property
    def events(self) -> list[Event]:
        """All events, decoded, in order of arrival."""
        return [record.event for record in self.records]

    async def start(self) -> None:
        """Note the call."""
        self.calls.append("start")

    async def stop(self) -> None:
        """Note the call."""
        self.calls.append("stop")

    async def flush(self) -> None:
        """Note the call."""
        self.calls.append("flush")

    async def deliver(self, batch: Batch) -> SendResult:
        """Keep the batch."""
        self.batches.append(batch)
        return ACCEPTED


class FaultySink(MemorySink):
    """
    Fails as told, then keeps what it gets.

    Args:
        fail_calls: How many calls of `deliver` fail before it recovers; None fails for
            ever.
        error: What these calls raise.
        reject: Indices that every batch refuses for good.
        retry: Indices that every batch asks for again.
        delay: Seconds that each `deliver` takes.
        fail_start: How many calls of `start` fail first.
    """

    def __init__(
        self,
        *,
        fail_calls: int | None = 0,
        error: BaseException | None = None,
        reject: Sequence[int] = (),
        retry: Sequence[int] = (),
        delay: float = 0.0,
        fail_start: int = 0,
    ) -> None:
        super().__init__()
        self._failures_left = fail_calls
        self._error = error or RetryableSinkError("the test says no")
        self._reject = reject
        self._retry = retry
        self._delay = delay
        self._start_failures_left = fail_start

    async def start(self) -> None:
        """Fail as often as told."""
        await super().start()
        if self._start_failures_left > 0:
            self._start_failures_left -= 1
            raise self._error

    async def deliver(self, batch: Batch) -> SendResult:
        """Fail as often as told, else keep what is not rejected."""
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._fails():
            raise self._error
        events = len(batch.records)
        rejected = [Rejection(i, "the test rejects it") for i in self._reject]
        refused = {*self._reject, *self._retry}
        kept = [r for i, r in enumerate(batch.records) if i not in refused]
        self.batches.append(msgspec.structs.replace(batch, records=tuple(kept)))
        return SendResult(
            rejected=tuple(r for r in rejected if r.index < events),
            retry=tuple(i for i in self._retry if i < events),
        )

    def _fails(self) -> bool:
        if self._failures_left is None:
            return True
        if self._failures_left > 0:
            self._failures_left -= 1
            return True
        return False


class ManualClock:
    """
    Monotonic seconds that pass only when told.

    Args:
        now: Where it starts.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass; also fits where a `sleep` is expected."""
        self.now += seconds

    sleep = advance
