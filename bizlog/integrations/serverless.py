"""
For hosts that freeze or end a process as soon as a call is over, and for web servers.

    @bizlog.flush_after(timeout=2.0)
    def handler(event, context): ...

    app = FlushMiddleware(app)                        # ASGI, after each response
    app = FlushMiddleware(app, each_response=False)   # ASGI, only when the server stops
    application = WSGIFlushMiddleware(application)    # WSGI, after each response

None of them changes a result, an error or a response. What a flush cannot deliver in
its time stays with the client, for the next one. uvicorn ends its process by SIGTERM,
without Python's exit hooks: with `FlushMiddleware` bizlog is shut down before that.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from bizlog import client as clients

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
    from typing import ParamSpec, TypeAlias
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from bizlog.client import BusinessTelemetryClient

    _Message: TypeAlias = MutableMapping[str, Any]
    _Receive: TypeAlias = Callable[[], Awaitable[_Message]]
    _Send: TypeAlias = Callable[[_Message], Awaitable[None]]
    _ASGIApp: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

    _P = ParamSpec("_P")

_R = TypeVar("_R")

FLUSH_SECONDS = 2.0


class _Target:
    """The client that is meant: one of the caller's, or the process-wide one."""

    def __init__(self, client: BusinessTelemetryClient | None, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    def flush(self) -> None:
        if self._client is None:
            clients.flush(self._timeout)
        else:
            self._client.flush_sync(self._timeout)

    async def flush_apart(self) -> None:
        await _apart(self.flush)

    def _shutdown(self) -> None:
        if self._client is None:
            clients.shutdown()
        else:
            self._client.shutdown_sync()

    async def shutdown_apart(self) -> None:
        await _apart(self._shutdown)


async def _apart(call: Callable[[], None]) -> None:
    """Make a call that waits without holding up the event loop."""
    try:
        await asyncio.to_thread(call)
    except RuntimeError:  # no thread can start: neither the call nor its caller fails
        call()


@overload
def flush_after(call: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def flush_after(
    *, timeout: float = ..., client: BusinessTelemetryClient | None = ...
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...


def flush_after(
    call: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float = FLUSH_SECONDS,
    client: BusinessTelemetryClient | None = None,
) -> Callable[..., Any]:
    """
    Have a function deliver its events before it returns or raises.

    A decorator, with or without arguments, for functions and coroutine functions. An
    event loop is not blocked meanwhile.

    Args:
        call: The function.
        timeout: Seconds that it may take longer.
        client: Whose events; by default the process-wide client's.

    Raises:
        TypeError: It is a generator, whose end is not that of the call.
    """
    target = _Target(client, timeout)
    if call is None:
        return functools.partial(_flushing, target)
    return _flushing(target, call)


def _flushing(target: _Target, call: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError("flush_after takes functions and coroutine functions")

    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def flushed_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await call(*args, **kwargs)
            finally:
                await target.flush_apart()

        return flushed_async

    @functools.wraps(call)
    def flushed(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        finally:
            target.flush()

    return flushed


class FlushMiddleware:
    """
    ASGI middleware that delivers after each response, and shuts bizlog down at the end.

    The response has been handed to the server by then. The end is the `shutdown` of
    the lifespan protocol, which is answered here if the application does not know it.

    Args:
        app: The application.
        timeout: Seconds for the flush after a response.
        each_response: Whether there is one; False only shuts down at the end.
        client: Whose events; by default the process-wide client's.
    """

    def __init__(
        self,
        app: _ASGIApp,
        *,
        timeout: float = FLUSH_SECONDS,
        each_response: bool = True,
        client: BusinessTelemetryClient | None = None,
    ) -> None:
        self._app = app
        self._target = _Target(client, timeout)
        self._each_response = each_response

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one connection, or the lifespan of the application."""
        if scope["type"] == "lifespan":
            await _Lifespan(self._target, receive, send).serve(self._app, scope)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if self._each_response:
                await self._target.flush_apart()


class _Lifespan:
    """The lifespan of an application, with bizlog's end before its own."""

    def __init__(self, target: _Target, receive: _Receive, send: _Send) -> None:
        self._target = target
        self._receive = receive
        self._send = send
        self._heard = False

    async def serve(self, app: _ASGIApp, scope: _Message) -> None:
        try:
            await app(scope, self._hear, self._answer)
        except Exception:
            if self._heard:
                raise
        if not self._heard:  # the application does not know this protocol
            await self._serve_alone()

    async def _hear(self) -> _Message:
        self._heard = True
        return await self._receive()

    async def _answer(self, message: _Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            await self._target.shutdown_apart()
        await self._send(message)

    async def _serve_alone(self) -> None:
        for step in ("startup", "shutdown"):
            await self._receive()
            await self._answer({"type": f"lifespan.{step}.complete"})


class WSGIFlushMiddleware:
    """
    WSGI middleware that delivers when a response has been sent.

    That is when the server closes the body. Servers run Python's exit hooks when they
    stop (gunicorn does), so that nothing more is needed at the end.

    Args:
        app: The application.
        timeout: Seconds for each flush.
        client: Whose events; by default the process-wide client's.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        timeout: float = FLUSH_SECONDS,
        client: BusinessTelemetryClient | None = None,
    ) -> None:
        self._app = app
        self._target = _Target(client, timeout)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        try:
            body = self._app(environ, start_response)
        except BaseException:
            self._target.flush()
            raise
        kind = _SizedBody if hasattr(body, "__len__") else _Body
        return kind(body, self._target)


class _Body:
    """A response's body; closing it flushes."""

    def __init__(self, body: Iterable[bytes], target: _Target) -> None:
        self._body = body
        self._target = target

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._target.flush()


class _SizedBody(_Body):
    """A body of so many parts: of a single one, servers know the length."""

    def __len__(self) -> int:
        return len(cast("list[bytes]", self._body))
