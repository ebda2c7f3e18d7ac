"""Business events and operational logs, with everything at DEBUG and sinks that talk."""

# ruff: noqa: PLE1205  # a mapping after the name is no argument of a format

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
import structlog
from opentelemetry import context as telemetry

import bizlog
import bizlog.client
from bizlog import diagnostics, separation
from bizlog import handler as handler_module
from bizlog.exceptions import PermanentSinkError
from bizlog.testing import MemorySink

LIBRARIES = ("azure.eventhub", "aiohttp.client", "urllib3.connectionpool", "asyncio")
EVENTS = 20


class Lines(logging.Handler):
    """Keeps the records it gets, and the text of each."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []
        self.text = []

    def emit(self, record):
        self.records.append(record)
        self.text.append(self.format(record))


def talk():
    """Log as the libraries below a sink do: prose, and names that look like events."""
    for name in LIBRARIES:
        log = logging.getLogger(name)
        log.debug("send of %s failed, retrying", "a batch")
        log.warning("connection.closed", {"host": "hub"})
        log.error("order.placed")


class TalkingSink(MemorySink):
    """Logs in each of its calls, on bizlog's loop and on its threads."""

    max_events = 1  # as many sends as events
    refuses = False

    async def start(self):
        talk()

    async def deliver(self, batch):
        talk()
        await asyncio.create_task(asyncio.sleep(0))
        await asyncio.to_thread(talk)
        await asyncio.get_running_loop().run_in_executor(None, talk)
        if self.refuses:
            raise PermanentSinkError("the hub is gone")
        return await super().deliver(batch)

    async def flush(self):
        talk()

    async def stop(self):
        talk()


class RefusingSink(TalkingSink):
    refuses = True


class Threads:
    """Starts threads as `_thread` does, and can wait for them."""

    def __init__(self):
        self._started = []

    def start_new_thread(self, function, arguments):
        self._started.append(threading.Thread(target=function, args=arguments))
        self._started[-1].start()

    def join(self):
        for thread in self._started:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def threads(monkeypatch):
    """Keep the threads on which the handler reports."""
    kept = Threads()
    monkeypatch.setattr(handler_module, "_thread", kept)
    yield kept
    kept.join()


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch, tmp_path, threads):
    """Start without client, lines told and things counted, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    monkeypatch.setattr(diagnostics, "_last", {})
    monkeypatch.setattr(separation, "guard", separation.Guard())
    yield
    bizlog.shutdown(timeout=5)
    structlog.reset_defaults()


@pytest.fixture
def listen():
    """Attach handlers for the time of the test; the root logger listens at DEBUG."""
    root, attached = logging.getLogger(), []
    level = root.level
    root.setLevel(logging.DEBUG)

    def attach(handler, logger=root):
        logger.addHandler(handler)
        attached.append((logger, handler))
        return handler

    yield attach
    root.setLevel(level)
    for logger, handler in attached:
        logger.removeHandler(handler)


@pytest.mark.parametrize("sink_type", [TalkingSink, RefusingSink])
def test_one_event_in_is_one_event_out(listen, threads, sink_type):
    """
    A root logger at DEBUG with our handler, and a sink that logs with each send.

    None of its lines becomes an event, none of our lines or events becomes a line.
    """
    sink, operational, ours = sink_type(), Lines(), Lines()
    bizlog.configure(source="test", sinks=[sink])
    handler = listen(bizlog.BusinessEventHandler())
    listen(operational)
    listen(ours, diagnostics.logger)
    log = bizlog.get_logger()
    for number in range(EVENTS):
        log.info("order.failed", order_id=f"secret-{number}")
    bizlog.flush(timeout=20)
    assert bizlog.shutdown(timeout=10) or sink.refuses

    account = bizlog.ledger().sinks[sink.name]
    assert (account.offered, account.pending) == (EVENTS, 0)
    assert account.dead_lettered == (EVENTS if sink.refuses else 0)
    assert [event["event_type"] for event in sink.events] == (
        [] if sink.refuses else ["order.failed"] * EVENTS
    )
    told = {record.name for record in operational.records}
    assert set(LIBRARIES) <= told
    assert not any(name.startswith("bizlog") for name in told)
    assert not any("secret" in text for text in operational.text)
    # Each send talks three times, with two lines of each library that look like events.
    assert separation.guard.stopped >= EVENTS * 3 * 2 * len(LIBRARIES)
    assert handler.ignored > separation.guard.stopped
    assert separation.guard.crossings == 0
    assert bizlog.ledger().crossings == 0
    assert not any("secret" in text for text in ours.text)
    # A line a topic, since all of this took less than a minute.
    threads.join()
    assert len(ours.records) == len(diagnostics._last)


def test_an_operational_handler_beside_ours_shows_up_in_the_ledger(listen):
    """Who logs events through the root logger has them in both places, and sees it."""
    sink, operational = MemorySink(), Lines()
    bizlog.configure(source="test", sinks=[sink])
    listen(bizlog.BusinessEventHandler())
    listen(operational)
    logging.getLogger("shop.tills").info("order.placed")
    assert bizlog.flush(timeout=5)
    assert [event["event_type"] for event in sink.events] == ["order.placed"]
    assert "order.placed" in operational.text
    assert bizlog.ledger().crossings == 1


class StructlogSink(MemorySink):
    """Logs through the structlog that the host has configured."""

    max_events = 1

    async def deliver(self, batch):
        log = structlog.get_logger("azure.core")
        log.info("sending", events=len(batch.records))
        log.info("order.placed", order_id="again")
        return await super().deliver(batch)


def test_structlog_configured_by_the_host(listen):
    """A global configuration that diverts: the sink's lines pass, its events end."""
    sink, operational = StructlogSink(), Lines()
    listen(operational)
    structlog.configure(
        processors=[
            bizlog.divert(),
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    bizlog.configure(source="test", sinks=[sink])
    structlog.get_logger("shop").info("order.placed", order_id="1")
    structlog.get_logger("shop").info("open")
    bizlog.get_logger().info("order.failed", order_id="2")
    assert bizlog.flush(timeout=5)
    assert [event["order_id"] for event in sink.events] == ["1", "2"]
    lines = {x for x in operational.text if x.startswith("event=")}
    assert lines == {"event='open'", "event='sending' events=1"}
    assert (separation.guard.stopped, separation.guard.crossings) == (2, 0)


class InstrumentedClient:
    """A client library as OpenTelemetry's instrumentations leave it."""

    def __init__(self):
        self.spans = []

    def request(self, what):
        """Record a span, unless the context asks for none."""
        keys = (
            telemetry._SUPPRESS_INSTRUMENTATION_KEY,
            telemetry._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        )
        if not all(telemetry.get_value(key) for key in keys):
            self.spans.append(what)


class InstrumentedSink(MemorySink):
    """Sends by an instrumented client in each of its calls, in each possible way."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.calls = set()

    def request(self, what):
        self.calls.add(what)
        self.client.request(what)

    async def start(self):
        self.request("start")

    async def deliver(self, batch):
        self.request("deliver")
        await asyncio.create_task(self.in_a_task())
        await asyncio.to_thread(self.request, "to_thread")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.request, "executor")
        return await super().deliver(batch)

    async def in_a_task(self):
        self.request("task")

    async def flush(self):
        self.request("flush")

    async def stop(self):
        self.request("stop")


def test_no_span_of_a_sinks_call():
    """OpenTelemetry sees what the application sends, and nothing of what bizlog sends."""
    client = InstrumentedClient()
    sink = InstrumentedSink(client)
    bizlog.configure(source="test", sinks=[sink])
    client.request("before")
    bizlog.get_logger().info("order.placed")
    assert bizlog.flush(timeout=5)
    assert bizlog.shutdown(timeout=5)
    client.request("after")
    ways = {"start", "deliver", "task", "to_thread", "executor", "flush", "stop"}
    assert sink.calls == ways
    assert client.spans == ["before", "after"]
