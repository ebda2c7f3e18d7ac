"""
Context that every event carries: correlation, session, user and what you bind.

    with bizlog.session("sess-1", user_id="u-7"):
        ...                              # also: async with, or as a decorator

One context variable holds one immutable state, so tasks and `asyncio.to_thread` inherit
it, threads start without it (`contextvars.copy_context().run` carries it over), and
leaving a scope restores exactly what was there before. A `with` inside the body of a
generator stays set while the generator is suspended (so does every context variable of
Python's); as a decorator on a generator function it holds only while the generator
runs. No I/O; nothing here raises on bad ids or headers.

Source of the header: W3C Trace Context, https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import functools
import inspect
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from bizlog.stamps import next_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

F = TypeVar("F", bound="Callable[..., Any]")

_TRACEPARENT = (
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class State(msgspec.Struct, frozen=True, eq=False):
    """
    What is bound at one moment.

    Attributes:
        bound: What scopes and `bind_context` say.
        trace_id: Of the `traceparent`, if there was one.
        values: What an event gets: `bound`, plus the trace id where no correlation is
            set. Never changed.
        spliced: The same as JSON, kept by the chain for the next event, by its rules.
        entered: The scopes around, outermost first, each with the state before it.
    """

    bound: dict[str, Any]
    trace_id: str | None
    values: dict[str, Any]
    spliced: dict[object, str] = msgspec.field(default_factory=dict[object, str])
    entered: tuple[tuple[object, State], ...] = ()


_EMPTY = State({}, None, {})
_state: ContextVar[State] = ContextVar("bizlog_context", default=_EMPTY)

current_state = _state.get
"""Return the state itself, for the chain."""


def current_context() -> dict[str, Any]:
    """Show what events emitted here would carry; a copy."""
    return dict(_state.get().values)


def trace_id_of(traceparent: object) -> str | None:
    """
    Read the trace id out of a W3C `traceparent` header.

    Returns:
        32 hex digits, or None where the header is missing or malformed.
    """
    if not isinstance(traceparent, str):
        return None
    match = re.fullmatch(_TRACEPARENT, traceparent.strip())
    # Version 00 has exactly four parts; later versions may append some.
    if match is None or (traceparent.lstrip().startswith("00") and match[2]):
        return None
    return match[1]


def _extend(values: dict[str, Any], scope: object = None) -> State:
    before = _state.get()
    fresh = {name: value for name, value in values.items() if value is not None}
    trace_id = trace_id_of(fresh.pop("traceparent", None)) or before.trace_id
    bound = {**before.bound, **fresh}
    inherited = {"correlation_id": trace_id} if trace_id else {}
    entered = (*before.entered, (scope, before)) if scope else before.entered
    return State(bound, trace_id, {**inherited, **bound}, entered=entered)


class Scope:
    """
    Context for a stretch of code: `with`, `async with`, or a decorator.

    As a decorator it takes functions, coroutine functions, generator functions and
    asynchronous generator functions; each call gets a scope of its own.
    """

    def __init__(self, make_values: Callable[[], dict[str, Any]]) -> None:
        self._make_values = make_values

    def __enter__(self) -> dict[str, Any]:
        _state.set(_extend(self._make_values(), self))
        return current_context()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Found in the context itself: several tasks may be inside the same scope, and a
        # generator may be closed in a context that never entered it.
        for scope, before in reversed(_state.get().entered):
            if scope is self:
                _state.set(before)
                return

    async def __aenter__(self) -> dict[str, Any]:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:  # noqa: D102  # the class's docstring has it
        if inspect.isasyncgenfunction(function):
            wrapper: Any = self._wrap_async_generator(function)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._wrap_generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapper = self._wrap_coroutine(function)
        else:
            wrapper = self._wrap_function(function)
        return cast("F", functools.wraps(function)(wrapper))

    def _again(self) -> Scope:
        return Scope(self._make_values)

    def _wrap_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return wrapper

    def _wrap_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return wrapper

    def _wrap_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            inside = _Suspended(_extend(self._make_values()))
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, generator)
            while True:
                try:
                    with inside.resumed():
                        value = step()
                except StopIteration as stop:
                    return stop.value
                try:
                    sent = yield value
                except GeneratorExit:
                    with inside.resumed():
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown in: pass it on
                    step = functools.partial(generator.throw, error)
                else:
                    step = functools.partial(generator.send, sent)

        return wrapper

    def _wrap_async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            inside = _Suspended(_extend(self._make_values()))
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = generator.__anext__
            while True:
                try:
                    with inside.resumed():
                        value = await step()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    with inside.resumed():
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown in: pass it on
                    step = functools.partial(generator.athrow, error)
                else:
                    step = functools.partial(generator.asend, sent)

        return wrapper


class _Suspended:
    """The context of a generator, put aside while it is suspended."""

    def __init__(self, state: State) -> None:
        self._inner = state

    @contextmanager
    def resumed(self) -> Generator[None]:
        outer = _state.get()
        _state.set(self._inner)
        try:
            yield
        finally:
            self._inner = _state.get()
            _state.set(outer)


def session(
    session_id: object = None, *, user_id: object = None, **properties: Any
) -> Scope:
    """
    Put events into a session.

    Args:
        session_id: Your id of the visit; a new UUID where you have none.
        user_id: Internal id of the user, if known.
        properties: More context: `correlation_id`, `traceparent`, or properties of
            your own that each event inside shall carry.
    """
    return Scope(
        lambda: {
            "session_id": next_id() if session_id is None else session_id,
            "user_id": user_id,
            **properties,
        }
    )


def correlation(
    correlation_id: object = None, *, traceparent: str | None = None, **properties: Any
) -> Scope:
    """
    Join events of one request across services.

    Args:
        correlation_id: Your id; where it is None, the trace id of `traceparent`, and
            without that a new UUID.
        traceparent: W3C header of the incoming request; a malformed one is ignored.
        properties: More context, as in `session`.
    """

    def values() -> dict[str, Any]:
        found = trace_id_of(traceparent) if correlation_id is None else correlation_id
        return {
            "correlation_id": next_id() if found is None else found,
            "traceparent": traceparent,
            **properties,
        }

    return Scope(values)


def user(user_id: object, **properties: Any) -> Scope:
    """
    Attribute events to a user.

    Args:
        user_id: Internal id of the user, never an e-mail address or a name (what looks
            like an e-mail address is hashed).
        properties: More context, as in `session`.
    """
    return Scope(lambda: {"user_id": user_id, **properties})


class _Binding:
    """What `bind_context` changed; used with `with`, the change ends there."""

    def __init__(self, before: State) -> None:
        self._before = before

    def __enter__(self) -> dict[str, Any]:
        return current_context()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _state.set(self._before)


def bind_context(**values: Any) -> _Binding:
    """
    Add to the context at once, until the enclosing scope or task ends.

    Args:
        values: `correlation_id`, `session_id`, `user_id`, `traceparent`, or properties
            of your own. None leaves a value as it is.

    Returns:
        An object for `with`, if the values shall go earlier.
    """
    before = _state.get()
    _state.set(_extend(values))
    return _Binding(before)
