"""
The wall between business events and operational logs: a mark, and two counters.

While bizlog calls a sink, or tells a line of its own, the context is marked. Tasks and
`asyncio.to_thread` copy contexts, so whatever is logged in the course of the call can
be told from what the application logs: it is operational, and never becomes an event.
A thread that a sink starts by itself has a context of its own and is not seen.

Where the application has imported OpenTelemetry, the same context asks its
instrumentation to record nothing, with the keys that its own `suppress_instrumentation`
and `suppress_http_instrumentation` set. It is never imported from here. No I/O, no
lock, and nothing here raises.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Token

_OPENTELEMETRY = "opentelemetry.context"

# Private, as OpenTelemetry has no public ones yet; its instrumentations read these.
_KEYS = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
_PLAIN_KEY = "suppress_instrumentation"  # what its older instrumentations read

_inside: ContextVar[bool] = ContextVar("bizlog_inside_a_sink", default=False)


class Guard:
    """
    What the wall counted in this process; any thread may add.

    Attributes:
        stopped: Log records that look like events and were refused, because bizlog's
            own loggers made them or a sink's call did. A sink that talks makes these,
            and nothing went wrong.
        crossings: Business events seen on their way into an operational log as well.
            Must stay 0: each one says that the application's logging is set up so.
    """

    __slots__ = ("crossings", "stopped")

    def __init__(self) -> None:
        self.stopped = 0
        self.crossings = 0


guard = Guard()
"""The process-wide counters."""


class Entry:
    """What `enter` did, for `leave` to undo."""

    __slots__ = ("mark", "resume_tracing")

    def __init__(
        self, mark: Token[bool], resume_tracing: Callable[[], object] | None
    ) -> None:
        self.mark = mark
        self.resume_tracing = resume_tracing


inside = _inside.get
"""Say whether this code runs in the course of a sink's call, or of a line of ours."""


def enter() -> Entry:
    """
    Mark the current context and suspend OpenTelemetry in it: a sink is at work.

    Returns:
        What `leave` takes, in the same task or thread.
    """
    return Entry(_inside.set(True), _suspend_tracing())


def mark() -> Entry:
    """Mark the current context only, as `enter` does."""
    return Entry(_inside.set(True), None)


def leave(entry: Entry) -> None:
    """Undo `enter`; in another context, or a second time, it does nothing."""
    try:
        _inside.reset(entry.mark)
    except (ValueError, RuntimeError):
        # A coroutine left to itself is closed wherever it dies; OpenTelemetry would
        # log an error about that.
        return
    if entry.resume_tracing is not None:
        with suppress(Exception):
            entry.resume_tracing()


@contextmanager
def suppressed() -> Generator[None]:
    """Enter for the time of a `with` block."""
    entry = enter()
    try:
        yield
    finally:
        leave(entry)


def _suspend_tracing() -> Callable[[], object] | None:
    telemetry: Any = sys.modules.get(_OPENTELEMETRY)
    if telemetry is None:
        return None
    try:
        context = telemetry.get_current()
        for key in (_PLAIN_KEY, *[getattr(telemetry, name) for name in _KEYS]):
            context = telemetry.set_value(key, value=True, context=context)
        return partial(telemetry.detach, telemetry.attach(context))
    except Exception:  # noqa: BLE001  # half imported, or of a version without the keys
        return None
