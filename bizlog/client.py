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
import logging
import os
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import msgspec
import structlog

from bizlog import diagnostics, processors, separation
from bizlog._wording import reason_of
from bizlog.coercion import payload_fields
from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder, wall_clock
from bizlog.delivery.engine import Engine
from bizlog.delivery.queue import FrontQueue, Overflow
from bizlog.events import (
    AdminEvent,
    AIEvent,
    BaseEvent,
    CustomerEvent,
    OrderEvent,
    ProductEvent,
)
from bizlog.exceptions import (
    ConfigurationError,
    InvalidEventError,
    PermanentSinkError,
)
from bizlog.ledger import (
    OTHER,
    Counts,
    Figures,
    Ledger,
    SinkFigures,
    SinkLedger,
    Tallies,
    merge,
)
from bizlog.plan import ENVELOPE_KEY, Chain, Draft, Outlet
from bizlog.privacy import Privacy
from bizlog.registry import MAX_NAME
from bizlog.sinks import BaseSink, Route, left_to_parents
from bizlog.values import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from prometheus_client import CollectorRegistry

    from bizlog.delivery.lane import Lane
    from bizlog.delivery.pump import Pump
    from bizlog.delivery.receipts import Level, Receipt, Wait
    from bizlog.registry import Registry
    from bizlog.settings import Settings
    from bizlog.sinks import Record, SeedSink

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
        delivery_deadline: float | None
        max_in_flight: int | None
        shutdown_timeout: float | None
        journal: str | None
        journal_sync: Literal["normal", "full"] | None
        journal_max_bytes: int | None
        journal_max_age: float | None
        handle_sigterm: bool | None
        dead_letters: str | None
        dead_letters_max_bytes: int | None
        development: bool | None
        disabled: bool | None
        strict: bool | None
        privacy: Mapping[str, str] | None
        hash_key: str | bytes | Mapping[str, str | bytes] | None
        detectors: Sequence[Literal["email", "card", "token"]] | None
        allow: Sequence[str] | None
        registry: Registry | None
        metrics_registry: CollectorRegistry | None


DEFAULT_CHAIN: tuple[Any, ...] = (
    processors.add_context,
    processors.stamp,
    processors.classify,
    processors.protect,
    processors.encode,
)

# Their privacy tags hold for properties of the same name on any event.
CDM_TYPES = (ProductEvent, OrderEvent, CustomerEvent, AdminEvent, AIEvent)


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
        from bizlog.settings import load_settings  # noqa: PLC0415  # where it is needed

        self._set_up(load_settings(options))
        if self.settings.metrics_registry is not None:
            _show_metrics(self)

    def _set_up(self, settings: Settings) -> None:
        self.settings = settings
        self._disabled = settings.disabled
        self._count_from_zero()
        self.chain = Chain(
            source=settings.source,
            environment=settings.environment,
            service_version=settings.service_version,
            registry=settings.registry,
            privacy=Privacy(
                settings.privacy,
                settings.hash_key,
                named=CDM_TYPES,
                detectors=settings.detectors,
                allow=settings.allow,
            ),
            strict=settings.strict,
            tallies=self.tallies,
        )
        self._outlet = self.chain.outlet(None)
        self._set_up_delivery(settings)
        _clients.add(self)
        if settings.journal is not None and _has_journals(settings.journal):
            self._engine.wake()  # a process that died may have left events behind

    def _count_from_zero(self) -> None:
        self._offered = 0
        self._rejected = 0
        self._dropped = Counts("processor", "reentrant", "interrupted")
        self._exhausted = 0
        self.unheard = 0
        self._depths: dict[int, int] = {}
        self.tallies = Tallies()

    def _set_up_delivery(self, settings: Settings, *, closed: bool = False) -> None:
        self._queue = FrontQueue(
            max_events=settings.queue_events,
            max_bytes=settings.queue_bytes,
            overflow=settings.overflow,
            block_timeout=settings.block_timeout,
            wake=self._wake,
        )
        self._queue.closed = closed
        self._dead_letters = DeadLetterFolder(
            settings.dead_letters,
            self.chain.producer_id,
            settings.dead_letters_max_bytes,
        )
        from bizlog.delivery.receipts import Receipts, Sent  # noqa: PLC0415  # as below

        self._receipts = Receipts()
        self._queue.on_drop = self._receipts.note_dropped
        self._sent = Sent()
        self._engine = Engine(self._queue, self._make_pump, settings.shutdown_timeout)
        if settings.handle_sigterm and not settings.disabled:
            self._engine.heed_sigterm()

    def begin_anew(self) -> None:
        """
        Start from nothing in a forked child: the events so far are the parent's.

        Loggers, context and metrics go on working; the ledger counts from zero, and
        the events carry a `producer_id` and numbers of their own. What the parent has
        open stays as it is. Called by the fork hook.
        """
        engine, closed = self._engine, self._queue.closed
        under_way = self._depths.get(threading.get_ident(), 0)
        engine.leave_to_parent([self._queue, self._dead_letters, left_to_parents])
        if engine.was_started:
            _take_sinks_over(self.settings.sinks)
        self._count_from_zero()
        # Calls that forked half-way take themselves out again when they return.
        self._offered = under_way
        self.chain.begin_anew(self.tallies)
        self._set_up_delivery(self.settings, closed=closed)

    def _wake(self) -> None:
        self._engine.wake()

    def _make_pump(self) -> Pump:
        # 4 ms that `import bizlog` need not take.
        from bizlog.assembly import assemble  # noqa: PLC0415  # as said

        return assemble(
            self.settings,
            self.chain.producer_id,
            queue=self._queue,
            dead_letters=self._dead_letters,
            receipts=self._receipts,
            on_progress=lambda: self._engine.pump.on_progress(),  # noqa: PLW0108  # a fork makes a new pump
            notes=self._notes,
        )

    def _notes(self) -> dict[str, bytes]:
        """Tell the readers of the journal who writes it, and its ledger."""
        who = {"pid": os.getpid(), "producer_id": self.chain.producer_id}
        return {
            "ledger": msgspec.json.encode(self.ledger()),
            "process": msgspec.json.encode(who),
        }

    # Emitting

    def emit(
        self,
        method: str,
        state: Any,
        source: str | None = None,
        chain: Sequence[Callable[..., Any]] = DEFAULT_CHAIN,
        offer: Callable[[Record], bool] | None = None,
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
            offer: Takes the record; by default the queue does.

        Returns:
            The record, or None where the event was refused or dropped.

        Raises:
            InvalidEventError: In development only.
        """
        if self._disabled:
            return None
        self._offered += 1
        outlet, record, stepwise = self._outlet, None, False
        if offer is None:
            offer = self._queue.offer
        try:
            if source is not None:
                outlet = self.chain.outlet(source)
            if chain is DEFAULT_CHAIN:
                record = processors.encode_directly(outlet, state)
            if record is None:
                stepwise = True
                record = self._run(chain, outlet, method, state)
            return record if record and offer(record) else None
        except (KeyboardInterrupt, SystemExit):
            if record is None and not stepwise:
                self._drop("interrupted", outlet, state)
            raise
        except (RecursionError, MemoryError) as error:
            try:
                record = self._emit_envelope(outlet, state, error, record)
                return record if offer(record) else None
            except (RecursionError, MemoryError):
                self._exhausted += 1
                return None

    def _run(
        self,
        chain: Sequence[Callable[..., Any]],
        outlet: Outlet,
        method: str,
        state: Any,
    ) -> Record | None:
        """Take an event through a chain, step by step."""
        # Values and processors are foreign code, which may emit in its turn: once, and
        # a second time inside that, but not without end.
        caller, depths = threading.get_ident(), self._depths
        depth = depths.get(caller, 0)
        if depth > 1:
            self._drop("reentrant", outlet, state)
            return None
        depths[caller] = depth + 1
        step: Callable[..., Any] | None = None
        try:
            for step in chain:
                state = step(outlet, method, state)
        except structlog.DropEvent:
            self._drop("processor", outlet, state)
        except InvalidEventError as error:
            self._reject(outlet, state, error)
        except (RecursionError, MemoryError) as error:
            return self._emit_envelope(outlet, state, error, None)
        except (KeyboardInterrupt, SystemExit):
            self._drop("interrupted", outlet, state)
            raise
        except BaseException as error:  # noqa: BLE001  # never into the caller
            # Its class only: a message may hold the values of the event.
            name = quietly(attrgetter("__name__"), step)
            reason = f"{type(error).__name__} in the processor {name}"
            self._reject(outlet, state, InvalidEventError(reason))
        else:
            return self._unless_forked(cast("Record", state), depths)
        finally:
            # No call: there may be no depth left for one.
            if depth:
                depths[caller] = depth
            else:
                del depths[caller]
        return None

    def _unless_forked(self, record: Record, depths: object) -> Record | None:
        """Take out, in a forked child, an event that one of its values forked in."""
        if depths is self._depths:
            return record
        self._offered -= 1  # it is the parent's
        return None

    def _emit_envelope(
        self, outlet: Outlet, state: Any, error: BaseException, record: Record | None
    ) -> Record:
        """Make the event that needs neither memory nor depth: that there was one."""
        if record is None:
            self._tally(outlet, state)
        return processors.encode_envelope(outlet, state, type(error).__name__)

    def _drop(self, reason: str, outlet: Outlet, state: Any) -> None:
        self._dropped.add(reason)
        self._tally(outlet, state)

    def _tally(self, outlet: Outlet, state: Any) -> None:
        """Count an event that did not get as far as its plan, which would count it."""
        if isinstance(state, Draft) and state.plan is not None:
            return
        name = processors.name_of(state)
        known = name[:MAX_NAME] if type(name) is str else OTHER
        self.tallies.of(outlet.source or self.chain.source, known).events += 1

    def _reject(self, outlet: Outlet, state: Any, error: InvalidEventError) -> None:
        self._rejected += 1
        self._tally(outlet, state)
        if self.settings.development:
            raise error
        rejected = self._engine.pump.rejected
        if not rejected.has_room():
            rejected.lost += 1
            return
        try:
            rejected.append(self._letter_for(outlet, state, error))
            self._queue.nudge()
        except (RecursionError, MemoryError):
            rejected.lost += 1

    def _letter_for(
        self, outlet: Outlet, state: Any, error: InvalidEventError
    ) -> DeadLetter:
        now = wall_clock()
        try:
            record = processors.describe_rejected(outlet, state)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # noqa: BLE001  # what a processor returned
            record = b"null"
        return DeadLetter(
            reason=error.reason,
            path=error.path,
            sink=None,
            attempts=0,
            first_at=now,
            last_at=now,
            event_id=getattr(state, "event_id", None),
            record=msgspec.Raw(record),
        )

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
        typed = issubclass(type(event), BaseEvent)
        offer = self._watch(cast("BaseEvent", event)) if typed else None
        record = self.emit("info", event_state(event, fields), offer=offer)
        return record.event_id if record else None

    def _watch(
        self, event: BaseEvent | None, tell: Callable[[Wait], None] | None = None
    ) -> Callable[[Record], bool]:
        """Wait for an event from the moment it is offered; `confirm` may ask later."""

        def offer(record: Record) -> bool:
            wait = self._receipts.expect(record.event_id)
            if event is not None:
                self._sent.add(event, wait)
            if tell is not None:
                tell(wait)
            taken = self._queue.offer(record)
            if not taken:
                closed = self._queue.closed
                self._receipts.not_taken(record.event_id, closed=closed)
            return taken

        return offer

    async def confirm(  # noqa: D417  # `fields` are documented by `send_sync`
        self,
        event: BaseEvent | str,
        /,
        *,
        level: Level = "sinks",
        quorum: int | None = None,
        timeout: float = 5.0,  # noqa: ASYNC109  # as `flush`
        **fields: Any,
    ) -> Receipt:
        """
        Send an event unless it was sent already, and wait for its fate.

        Args:
            event: A typed event, perhaps one that was sent before; or a name, with
                its properties as `fields`.
            level: `journal` waits until a journal on disk holds it, `sinks` until the
                sinks have it.
            quorum: How many sinks must have it; None for all it is routed to.
            timeout: Seconds to wait.

        Returns:
            What became of it, at each sink; `confirmed` says whether the level was
            reached in time.

        Raises:
            ConfigurationError: `level="journal"` without a journal, or a quorum of
                more sinks than there are.
            InvalidEventError: In development only.
        """
        from bizlog.delivery.receipts import Receipt  # noqa: PLC0415  # see _make_pump

        self._check_confirm(level, quorum)
        wait = self._sent.get(event)
        if wait is None:
            waits: list[Wait] = []
            is_typed = issubclass(type(event), BaseEvent)
            typed = cast("BaseEvent", event) if is_typed else None
            offer = self._watch(typed, waits.append)
            self.emit("info", event_state(event, fields), offer=offer)
            if not waits:
                return Receipt(None, confirmed=False, reason="it was refused")
            wait = waits[0]
        self._receipts.hurried = True
        self._queue.nudge()
        answer = asyncio.wrap_future(wait.ask(level, quorum))
        with suppress(TimeoutError):
            await asyncio.wait_for(answer, timeout)
        return wait.receipt(level, quorum)

    def _check_confirm(self, level: Level, quorum: int | None) -> None:
        if level == "journal" and self.settings.journal is None:
            raise ConfigurationError(
                "level='journal' needs a journal: set journal='FOLDER'"
            )
        if quorum is not None and not 0 < quorum <= len(self._lanes):
            raise ConfigurationError(
                f"quorum: expected 1 to {len(self._lanes)} (the sinks), got {quorum}"
            )

    def pseudonyms(self, value: object) -> dict[str, str]:
        """
        Write a value as the policy `hash` writes it, under each of the hash keys.

        For joins across a rotation of the keys, and to find what a person's request
        for erasure is about. What no policy hashes has no pseudonym in the events.

        Args:
            value: What was hashed, such as a user's name.

        Returns:
            The pseudonyms by the id of their key; the id of a key that has none is "".
        """
        return self.chain.privacy.pseudonyms(value)

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

    async def flush(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109  # as its blocking twin
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

    async def shutdown(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as its blocking twin
        """Shut down as `shutdown_sync` does, without blocking the event loop."""
        return await _in_thread(partial(self.shutdown_sync, timeout))

    def ledger(self) -> Ledger:
        """Say where every event is, for each sink."""
        return Ledger(
            {lane.name: self._account(lane) for lane in self._lanes},
            crossings=separation.guard.crossings,
        )

    @property
    def _lanes(self) -> Sequence[Lane]:
        return self._engine.pump.lanes

    def _account(self, lane: Lane) -> SinkLedger:
        exhausted = self._exhausted + self.unheard
        return SinkLedger(
            offered=self._offered + self.unheard + lane.adopted - lane.not_routed,
            delivered=lane.delivered,
            rejected=self._rejected,
            dropped=merge(
                self._dropped.snapshot(),
                {"exhausted": exhausted} if exhausted else {},
                self._queue.dropped.snapshot(),
                lane.dropped.snapshot(),
            ),
            dead_lettered=lane.dead_lettered,
            pending=len(self._queue) + lane.pending,
        )

    def figures(self) -> Figures:
        """Read the counters, for the metrics; from any thread, without waiting."""
        received = self.tallies.snapshot()
        if unnamed := self._unnamed(sum(received.values())):
            key = self.chain.source, OTHER
            received[key] = received.get(key, 0) + unnamed
        return Figures(received, [self._figures_of(lane) for lane in self._lanes])

    def _unnamed(self, named: int) -> int:
        """Say how many events found no memory or depth to be counted by name."""
        missing = self._offered + self.unheard - named
        # Not those that other threads emit right now: they get their names.
        return min(max(0, missing), self._exhausted + self.unheard)

    def _figures_of(self, lane: Lane) -> SinkFigures:
        return SinkFigures(
            sink=lane.name,
            sink_type=lane.sink_type,
            ledger=self._account(lane),
            dead_lettered=lane.refused.snapshot(),
            calls=lane.durations.snapshot(),
            seconds=lane.durations.seconds,
            oldest_pending=self._oldest_pending(lane),
        )

    def _oldest_pending(self, lane: Lane) -> float:
        since = lane.oldest_at
        if since is None and len(self._queue):
            # It came after the pump's last look at the queue.
            since = max(self._queue.woken_at, lane.notified_at)
        return 0.0 if since is None else max(0.0, time.monotonic() - since)

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


def _has_journals(folder: str) -> bool:
    """Say whether a journal folder holds anything, perhaps of a process that died."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".db") for entry in entries)
    except OSError:
        return False


def event_state(event: BaseEvent | str, fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a typed event, or a name and properties, into an event dictionary."""
    if not issubclass(type(event), BaseEvent):
        fields = dict(fields)
        processors.set_aside(fields, ("event",))
        return {**fields, "event": event}
    event = cast("BaseEvent", event)
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


def _take_sinks_over(sinks: Sequence[BaseSink]) -> None:
    for route in [route for sink in sinks for route in Route(sink).expand()]:
        try:
            route.sink.after_fork()
        except Exception as error:  # noqa: BLE001  # a sink is foreign code
            diagnostics.report(
                f"{route.sink.name}.after_fork",
                f"sink {route.sink.name!r} failed in after_fork: {reason_of(error)}",
            )


# Every client that lives, for the fork hook.
_clients: weakref.WeakSet[BusinessTelemetryClient] = weakref.WeakSet()


def _begin_anew_in_child() -> None:
    for client in list(_clients):
        client.begin_anew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew_in_child)


def _show_metrics(client: BusinessTelemetryClient) -> None:
    if client.settings.disabled:
        return
    try:
        from bizlog import metrics  # noqa: PLC0415  # it imports prometheus_client

        metrics.enrol(client, client.settings.metrics_registry)
    except Exception as error:  # noqa: BLE001  # events matter more
        diagnostics.report("metrics", f"there are no metrics: {reason_of(error)}")


# The process-wide client


class _UnavailableSink(BaseSink):
    """Stands in when the settings cannot work, so that no event is lost silently."""

    name = "unconfigured"

    async def start(self) -> None:
        raise PermanentSinkError("bizlog is not configured: its settings cannot work")


_default: BusinessTelemetryClient | None = None
"""The process-wide client; None until the first use."""


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
    if fresh.settings.metrics_registry is None:
        _show_metrics(fresh)
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
        from bizlog.settings import Settings  # noqa: PLC0415  # where it is needed

        diagnostics.report("configure", f"not configured: {error}", logging.ERROR)
        fresh = BusinessTelemetryClient.__new__(BusinessTelemetryClient)
        fresh._set_up(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its own
            Settings(source="unknown", sinks=(_UnavailableSink(),))
        )
    # Another thread may have been faster; its client stays, this one never started.
    _default = _default or fresh
    if _default is fresh:
        _show_metrics(fresh)
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
