"""
The client: one configuration at work, and the process-wide default one.

    bizlog.configure(source="customer-agent", sinks=["file:./events"])
    bizlog.flush(timeout=5); bizlog.ledger(); bizlog.shutdown(timeout=5)

    async with bizlog.BusinessTelemetryClient(source="admin-agent") as client:
        await client.send(bizlog.OrderEvent(event_type="order.placed", order_id="42"))

Emitting never blocks on I/O and, outside development, never raises.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import structlog

from bizlog import diagnostics, processors
from bizlog._wording import describe_error
from bizlog.coercion import payload_fields
from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder, wall_clock
from bizlog.delivery.engine import Engine
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.delivery.pump import REJECTED_LIMIT, Pump
from bizlog.delivery.queue import FrontQueue, Overflow
from bizlog.events import BaseEvent
from bizlog.exceptions import (
    ConfigurationError,
    InvalidEventError,
    PermanentSinkError,
)
from bizlog.ledger import Counts, Ledger, SinkLedger, merge
from bizlog.plan import ENVELOPE_KEY, Chain
from bizlog.privacy import Privacy
from bizlog.settings import Settings, load_settings
from bizlog.sinks import BaseSink, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from bizlog.registry import Registry
    from bizlog.sinks import Record, SeedSink

DEFAULT_CHAIN: tuple[Any, ...] = (
    processors.add_context,
    processors.stamp,
    processors.classify,
    processors.protect,
    processors.encode,
)


class Options(TypedDict, total=False):
    """The settings as arguments; `bizlog.Settings` describes each one."""

    source: str | None
    environment: str | None
    service_version: str | None
    sinks: Sequence[str | Mapping[str, Any] | BaseSink | SeedSink] | None
    queue_events: int | None
    queue_bytes: int | None
    overflow: Overflow | None
    block_timeout: float | None
    batch_size: int | None
    flush_interval: float | None
    sink_timeout: float | None
    shutdown_timeout: float | None
    dead_letters: str | None
    development: bool | None
    strict: bool | None
    privacy: Mapping[str, str] | None
    hash_key: str | bytes | None
    registry: Registry | None


class Outlet:
    """
    The logger that structlog's chain wraps: one client, seen from one source.

    Attributes:
        chain: What the processors know about the process.
        source: `event_source` of the events, or None for the client's.
    """

    __slots__ = ("chain", "source")

    def __init__(self, chain: Chain, source: str | None) -> None:
        self.chain = chain
        self.source = source


class BusinessTelemetryClient:
    """
    Accepts events and delivers them to its sinks.

    Construct it, use it with `async with` or `with`, or call `shutdown` yourself. All
    methods may be called from any thread and any event loop; those that wait exist as
    coroutines (`flush`, `shutdown`) and blocking (`flush_sync`, `shutdown_sync`).

    Args:
        options: The settings by name (`bizlog.Settings` lists them); what is not given
            comes from the environment, then `bizlog.toml`, then the defaults.

    Raises:
        ConfigurationError: Lists every setting that cannot work.
        MissingExtraError: A sink's packages are not installed.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._set_up(load_settings(options))

    def _set_up(self, settings: Settings) -> None:
        self.settings = settings
        self._offered = 0
        self._rejected = 0
        self._dropped = Counts("processor", "interrupted")
        self.chain = Chain(
            source=settings.source,
            environment=settings.environment,
            service_version=settings.service_version,
            registry=settings.registry,
            privacy=Privacy(settings.privacy, settings.hash_key),
            strict=settings.strict,
        )
        self._default_outlet = Outlet(self.chain, None)
        self._outlets: dict[str, Outlet] = {}
        self._queue = FrontQueue(
            max_events=settings.queue_events,
            max_bytes=settings.queue_bytes,
            overflow=settings.overflow,
            block_timeout=settings.block_timeout,
            wake=self._wake,
        )
        self._dead_letters = DeadLetterFolder(
            settings.dead_letters, self.chain.producer_id
        )
        self._engine = Engine(self._queue, self._make_pump, settings.shutdown_timeout)

    def _wake(self) -> None:
        self._engine.wake()

    def _make_pump(self) -> Pump:
        journal = MemoryJournal()
        routes = [
            route for sink in self.settings.sinks for route in Route(sink).expand()
        ]
        lanes = [
            self._make_lane(name, route, journal)
            for name, route in _named(routes).items()
        ]
        return Pump(
            queue=self._queue,
            journal=journal,
            lanes=lanes,
            dead_letters=self._dead_letters,
            max_events=self.settings.queue_events,
            max_bytes=self.settings.queue_bytes,
        )

    def _make_lane(self, name: str, route: Route, journal: MemoryJournal) -> Lane:
        interval = route.sink.flush_interval
        if interval is None:
            interval = self.settings.flush_interval
        batch_size = min(self.settings.batch_size, route.sink.max_events)
        return Lane(
            name=name,
            route=route,
            journal=journal,
            batcher=Batcher(batch_size, route.sink.max_bytes, interval),
            sink_timeout=self.settings.sink_timeout,
            dead_letters=self._dead_letters,
            on_progress=lambda: self._engine.pump.on_progress(),  # noqa: PLW0108  # a fork makes a new pump
            clock=time.monotonic,
        )

    # Emitting

    def emit(
        self,
        method: str,
        state: Any,
        source: str | None = None,
        chain: Sequence[Callable[..., Any]] = DEFAULT_CHAIN,
    ) -> Record | None:
        """
        Run an event dictionary through a chain and accept the record.

        This is the one way into the queue: loggers, `send` and handlers end here.

        Args:
            method: Name of the logging method, for the processors.
            state: structlog's event dictionary, ours to change; its `event` is the
                event's name.
            source: `event_source`, where it is not the client's.
            chain: The processors; the last one returns the `Record`. The default ones
                take a plain event in one step.

        Returns:
            The record, or None where the event was refused or dropped.

        Raises:
            InvalidEventError: In development only.
        """
        self._offered += 1
        outlet = self._default_outlet
        try:
            if source is not None:
                outlet = self._outlets.get(source) or self._outlet(source)
            if chain is DEFAULT_CHAIN:
                record = processors.encode_directly(outlet, state)
                if record is not None:
                    return record if self._queue.offer(record) else None
            for processor in chain:
                state = processor(outlet, method, state)
            return state if self._queue.offer(state) else None
        except structlog.DropEvent:
            self._dropped.add("processor")
        except InvalidEventError as error:
            self._reject(outlet, state, error)
        except Exception as error:  # noqa: BLE001  # never into the caller
            self._reject(outlet, state, InvalidEventError(describe_error(error)))
        except BaseException:
            self._dropped.add("interrupted")
            raise
        return None

    def _outlet(self, source: str) -> Outlet:
        return self._outlets.setdefault(source, Outlet(self.chain, source))

    def _reject(self, outlet: Outlet, state: Any, error: InvalidEventError) -> None:
        self._rejected += 1
        if self.settings.development:
            raise error
        rejected = self._engine.pump.rejected
        if len(rejected) >= REJECTED_LIMIT:
            return
        now = wall_clock()
        try:
            record = processors.describe_rejected(outlet, state)
        except Exception:  # noqa: BLE001  # values that cannot even be looked at
            record = b"null"
        rejected.append(
            DeadLetter(
                reason=error.reason,
                path=error.path,
                sink=None,
                attempts=0,
                first_at=now,
                last_at=now,
                event_id=getattr(state, "event_id", None),
                record=msgspec.Raw(record),
            )
        )
        if not self._queue.awake:
            self._queue.awake = True
            self._engine.wake()

    def send_sync(self, event: BaseEvent | str, /, **fields: Any) -> str | None:
        """
        Accept one event; does not wait for its delivery.

        Args:
            event: A typed event, or a name, with its properties as `fields`.
            fields: Properties; beside a typed event they come on top.

        Returns:
            The event's id, or None where it was refused or dropped.

        Raises:
            InvalidEventError: In development only.
        """
        record = self.emit("info", event_state(event, fields))
        return record.event_id if record else None

    async def send(self, event: BaseEvent | str, /, **fields: Any) -> str | None:
        """Accept one event, as `send_sync` does; never waits for I/O."""
        return self.send_sync(event, **fields)

    # Waiting

    def flush_sync(self, timeout: float = 5.0) -> bool:
        """
        Wait until everything accepted so far is settled and the sinks are flushed.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether that happened in time.
        """
        return self._engine.flush(timeout)

    async def flush(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109
        """Wait as `flush_sync` does, without blocking the event loop."""
        return await _in_thread(partial(self.flush_sync, timeout))

    def shutdown_sync(self, timeout: float | None = None) -> bool:
        """
        Deliver what waits, then stop the sinks and the thread; idempotent.

        Args:
            timeout: Seconds for all sinks together; None takes `shutdown_timeout`.
                What cannot be delivered by then goes to the dead letters.

        Returns:
            Whether the sinks settled everything in time.
        """
        if timeout is None:
            timeout = self.settings.shutdown_timeout
        return self._engine.shutdown(timeout)

    async def shutdown(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Shut down as `shutdown_sync` does, without blocking the event loop."""
        return await _in_thread(partial(self.shutdown_sync, timeout))

    def ledger(self) -> Ledger:
        """Say where every event is, for each sink."""
        return Ledger({lane.name: self._account(lane) for lane in self._lanes})

    @property
    def _lanes(self) -> Sequence[Lane]:
        return self._engine.pump.lanes

    def _account(self, lane: Lane) -> SinkLedger:
        return SinkLedger(
            offered=self._offered - lane.not_routed,
            delivered=lane.delivered,
            rejected=self._rejected,
            dropped=merge(
                self._dropped.snapshot(),
                self._queue.dropped.snapshot(),
                lane.dropped.snapshot(),
            ),
            dead_lettered=lane.dead_lettered,
            pending=len(self._queue) + lane.pending,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown_sync()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()


def event_state(event: BaseEvent | str, fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a typed event, or a name and properties, into an event dictionary."""
    if not isinstance(event, BaseEvent):
        fields = dict(fields)
        processors.set_aside(fields, ("event",))
        return {**fields, "event": event}
    named = payload_fields(type(event)) | {"event_time"}
    values = {name: getattr(event, name) for name in named}
    return {
        **{name: value for name, value in values.items() if value is not None},
        **fields,
        "event": event.event_type,
        ENVELOPE_KEY: event,
    }


async def _in_thread(call: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(call)


def _named(routes: Sequence[Route]) -> dict[str, Route]:
    """Name the lanes: the sink's name, with a number where it stands twice."""
    named: dict[str, Route] = {}
    for route in routes:
        name, number = route.sink.name, 1
        while name in named:
            number += 1
            name = f"{route.sink.name}-{number}"
        named[name] = route
    return named


# The process-wide client


class _UnavailableSink(BaseSink):
    """Stands in when the settings cannot work, so that no event is lost silently."""

    name = "unconfigured"

    async def start(self) -> None:
        raise PermanentSinkError("bizlog is not configured: its settings cannot work")


_default: BusinessTelemetryClient | None = None


def configure(**options: Unpack[Options]) -> BusinessTelemetryClient:
    """
    Set up the process-wide client.

    A second call delivers what the first configuration still holds to its sinks, then
    the new one takes over; loggers made earlier follow.

    Args:
        options: The settings by name; `bizlog.Settings` describes them.

    Returns:
        The client, which `get_logger`, `flush`, `shutdown` and `ledger` use.

    Raises:
        ConfigurationError: Lists every setting that cannot work; the configuration in
            force stays in force.
        MissingExtraError: A sink's packages are not installed.
    """
    global _default  # noqa: PLW0603  # the process-wide client
    fresh = BusinessTelemetryClient(**options)
    before, deadline = _default, time.monotonic() + fresh.settings.shutdown_timeout
    if before is not None:
        before.flush_sync(fresh.settings.shutdown_timeout)
    _default = fresh
    if before is not None:
        before.shutdown_sync(max(0.0, deadline - time.monotonic()))
    return fresh


def default_client() -> BusinessTelemetryClient:
    """
    Return the process-wide client; the first use configures it from the environment.

    Never raises: where those settings cannot work, the fault is logged once and the
    events go to the dead letters.
    """
    return _default or _configure_implicitly()


def _configure_implicitly() -> BusinessTelemetryClient:
    global _default  # noqa: PLW0603  # the process-wide client
    try:
        fresh = BusinessTelemetryClient()
    except (ConfigurationError, ImportError) as error:
        diagnostics.logger.error("bizlog: not configured: %s", error)
        fresh = BusinessTelemetryClient.__new__(BusinessTelemetryClient)
        fresh._set_up(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its own
            Settings(source="unknown", sinks=(_UnavailableSink(),))
        )
    # Another thread may have been faster; its client stays, this one never started.
    _default = _default or fresh
    return _default


def flush(timeout: float = 5.0) -> bool:
    """
    Wait until everything emitted so far is settled and the sinks are flushed.

    Args:
        timeout: Seconds to wait.

    Returns:
        Whether that happened in time.
    """
    return _default.flush_sync(timeout) if _default else True


def shutdown(timeout: float | None = None) -> bool:
    """
    Deliver what waits and stop; later events are counted as dropped.

    Args:
        timeout: Seconds for all sinks together; None takes `shutdown_timeout` (5 s).
            What cannot be delivered by then goes to the dead letters.

    Returns:
        Whether the sinks settled everything in time.
    """
    return _default.shutdown_sync(timeout) if _default else True


def ledger() -> Ledger:
    """Say where every event is, for each sink; empty before the first use."""
    return _default.ledger() if _default else Ledger({})
