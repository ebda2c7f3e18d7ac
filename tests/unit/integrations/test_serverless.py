"""Hosts that freeze or end a process: events are delivered before the call is over."""

from __future__ import annotations

import asyncio
import inspect
import io
import threading
from wsgiref.handlers import SimpleHandler
from wsgiref.validate import validator

import pytest

import bizlog
from bizlog import client as clients
from bizlog.integrations import serverless as module
from bizlog.integrations.serverless import (
    FlushMiddleware,
    WSGIFlushMiddleware,
    flush_after,
)
from bizlog.testing import FaultySink, MemorySink


@pytest.fixture
def sink():
    """A sink that keeps what it gets."""
    return MemorySink()


@pytest.fixture
def client(sink, tmp_path):
    """A client whose batches are due much later."""
    made = bizlog.BusinessTelemetryClient(
        source="test",
        sinks=[sink],
        flush_interval=600,
        batch_size=1000,
        dead_letters=str(tmp_path),
    )
    yield made
    made.shutdown_sync(5)


@pytest.fixture
def default(client, monkeypatch):
    """The client as the process-wide one."""
    monkeypatch.setattr(clients, "_default", client)
    return client


# flush_after


def test_a_function_delivers_before_it_returns(client, sink):
    """Its result is its own."""

    @flush_after(timeout=10, client=client)
    def handle(name, *, number):
        client.send_sync(name, number=number)
        return name, number

    assert handle("order.placed", number=1) == ("order.placed", 1)
    assert len(sink.records) == 1


def test_a_function_delivers_before_it_raises(client, sink):
    """Its error is its own."""

    @flush_after(timeout=10, client=client)
    def handle():
        client.send_sync("order.failed")
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        handle()
    assert len(sink.records) == 1


def test_a_coroutine_function_delivers_without_blocking_its_loop(client, sink):
    """It stays a coroutine function, and others run while it waits."""

    @flush_after(timeout=10, client=client)
    async def handle(fail):
        await client.send("order.placed")
        if fail:
            raise ValueError("its own")
        return "result"

    async def both():
        with pytest.raises(ValueError, match="its own"):
            await handle(fail=True)
        return await handle(fail=False)

    assert inspect.iscoroutinefunction(handle)
    assert asyncio.run(both()) == "result"
    assert len(sink.records) == 2


def test_without_arguments_it_means_the_process_wide_client(default, sink):
    """`@bizlog.flush_after` is enough."""

    @bizlog.flush_after
    def handle():
        """Its docstring."""
        default.send_sync("order.placed")

    handle()
    assert handle.__doc__ == "Its docstring."
    assert len(sink.records) == 1


def test_without_any_client_nothing_is_set_up(monkeypatch):
    """A function that emits nothing makes no client."""
    monkeypatch.setattr(clients, "_default", None)

    assert flush_after(lambda: 7)() == 7
    assert clients._default is None


def test_a_sink_that_hangs_costs_the_timeout_and_no_event(tmp_path):
    """What is not delivered in time waits for the next call."""
    sink = FaultySink(delay=0.4)
    client = bizlog.BusinessTelemetryClient(
        source="test", sinks=[sink], dead_letters=str(tmp_path)
    )

    @flush_after(timeout=0.05, client=client)
    def handle():
        client.send_sync("order.placed")

    handle()
    assert sink.records == []
    assert client.flush_sync(10)
    assert len(sink.records) == 1
    client.shutdown_sync(5)


def test_where_no_thread_can_start_nothing_fails(client, sink, monkeypatch):
    """The result is the function's own, and the events wait for the next flush."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    @flush_after(timeout=10, client=client)
    async def handle():
        await client.send("order.placed")
        return "result"

    async def main():
        with monkeypatch.context() as patch:  # asyncio ends with a thread of its own
            patch.setattr(threading.Thread, "start", refuse)
            return await handle()

    assert asyncio.run(main()) == "result"
    assert client.flush_sync(10)
    assert len(sink.records) == 1


def test_generators_are_refused():
    """Their call is over before they have done anything."""

    def generate():
        yield 1

    async def generate_async():
        yield 1

    for function in (generate, generate_async):
        with pytest.raises(TypeError, match="coroutine functions"):
            flush_after(function)


# ASGI


def speak(app, scope, *messages):
    """Run an ASGI application to its end; what it sent."""
    waiting, sent = list(messages), []

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(app(scope, receive, send))
    return sent


LIFESPAN = (
    {"type": "lifespan"},
    {"type": "lifespan.startup"},
    {"type": "lifespan.shutdown"},
)
ANSWERS = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def emitting_app(client, fail=False):
    """Make an application that emits one event, then answers or fails."""

    async def app(scope, receive, send):
        assert scope["type"] != "lifespan"
        await client.send("order.placed")
        await send({"type": "http.response.start"})
        if fail:
            raise ValueError("its own")

    return app


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_asgi_delivers_after_each_connection(client, sink, kind):
    """The response has been sent by then."""
    app = FlushMiddleware(emitting_app(client), timeout=10, client=client)

    assert speak(app, {"type": kind}) == ["http.response.start"]
    assert len(sink.records) == 1


def test_asgi_delivers_after_an_error(client, sink):
    """The error goes on to the server."""
    app = FlushMiddleware(emitting_app(client, fail=True), timeout=10, client=client)

    with pytest.raises(ValueError, match="its own"):
        speak(app, {"type": "http"})
    assert len(sink.records) == 1


def test_asgi_need_not_deliver_after_each_response(client, sink):
    """With `each_response=False` the end of the server is enough."""
    app = FlushMiddleware(emitting_app(client), each_response=False, client=client)

    speak(app, {"type": "http"})
    assert sink.records == []
    assert speak(app, *LIFESPAN) == ANSWERS
    assert len(sink.records) == 1
    assert sink.calls[-1] == "stop"


def test_asgi_shuts_bizlog_down_at_the_end_of_the_applications_lifespan(client, sink):
    """Events of its last steps are delivered; then the server hears of the end."""

    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert sink.calls == []
        assert (await receive())["type"] == "lifespan.shutdown"
        await client.send("order.placed")
        await send({"type": "lifespan.shutdown.complete"})

    assert speak(FlushMiddleware(app, client=client), *LIFESPAN) == ANSWERS
    assert len(sink.records) == 1
    assert sink.calls[-1] == "stop"


def test_asgi_means_the_process_wide_client(default, sink):
    """Where no other is named."""
    app = FlushMiddleware(emitting_app(default), timeout=10)

    speak(app, {"type": "http"})
    assert len(sink.records) == 1
    assert speak(app, *LIFESPAN) == ANSWERS
    assert sink.calls[-1] == "stop"


@pytest.mark.parametrize("way", ["raises", "returns"])
def test_asgi_answers_for_applications_that_know_no_lifespan(client, sink, way):
    """They raise or return before they have heard of anything; the end comes all the same."""

    async def app(scope, receive, send):
        if way == "raises":
            raise KeyError("path")

    client.send_sync("order.placed")
    assert speak(FlushMiddleware(app, client=client), *LIFESPAN) == ANSWERS
    assert len(sink.records) == 1


def test_asgi_hides_no_failure_of_a_lifespan(client):
    """An application that fails while it starts fails as it would without us."""

    async def app(scope, receive, send):
        await receive()
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        speak(FlushMiddleware(app, client=client), *LIFESPAN)


# WSGI


def serve(app):
    """Serve one request; the bytes that the server sent."""
    output = io.BytesIO()
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
    }
    SimpleHandler(io.BytesIO(), output, io.StringIO(), environ).run(app)
    return output.getvalue()


def test_wsgi_delivers_when_the_body_is_closed(client, sink):
    """The whole response has been sent by then, and the body was closed itself."""
    closed = []

    class Body:
        def __iter__(self):
            client.send_sync("order.placed")
            yield b"one"
            assert sink.records == []
            client.send_sync("order.updated")
            yield b"two"

        def close(self):
            closed.append(len(sink.records))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    answer = serve(WSGIFlushMiddleware(app, timeout=10, client=client))
    assert answer.endswith(b"onetwo")
    assert closed == [0]
    assert len(sink.records) == 2


def test_wsgi_keeps_the_length_of_a_body_of_one_part(default, sink):
    """The server derives Content-Length from it, as it does without us."""

    def app(environ, start_response):
        default.send_sync("order.placed")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"body"]

    answer = serve(WSGIFlushMiddleware(app, timeout=10))
    assert b"Content-Length: 4" in answer
    assert len(sink.records) == 1


def test_wsgi_delivers_when_the_application_raises(client, sink):
    """The error goes on to the server."""

    def app(environ, start_response):
        client.send_sync("order.failed")
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        WSGIFlushMiddleware(app, timeout=10, client=client)({}, lambda *_: None)
    assert len(sink.records) == 1


def test_wsgi_keeps_to_the_protocol(client):
    """The standard library's validator has nothing to say."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"body"])

    wrapped = validator(WSGIFlushMiddleware(validator(app), client=client))
    assert serve(wrapped).endswith(b"body")


def test_the_default_timeout_is_two_seconds():
    """Long enough for one batch, short enough for a function that is paid by time."""
    assert module.FLUSH_SECONDS == 2.0
