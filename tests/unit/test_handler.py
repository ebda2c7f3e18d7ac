"""The handler and the processor that take business events out of a host's logging."""

# ruff: noqa: PLE1205  # a mapping after the name is no argument of a format

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import queue
import sys
import threading
import traceback
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import structlog

import bizlog
import bizlog.client
from bizlog import diagnostics, separation
from bizlog import handler as handler_module
from bizlog.testing import MemorySink


class LeaseSigned(bizlog.BaseEvent, event_type="lease.signed", version=2):
    """An event of a user."""

    amount: Decimal


class Sly(str):
    """A text that raises when it is used as one."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


class Torn(UserDict):
    """A mapping that cannot be read."""

    def __iter__(self):
        raise BaseExceptionGroup("torn", [GeneratorExit()])


class Reports(logging.Handler):
    """Keeps what bizlog says about itself, and on which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.getMessage(), threading.get_ident()))


class Threads:
    """Starts threads as `_thread` does, and can wait for them."""

    def __init__(self) -> None:
        self.started: list[threading.Thread] = []

    def start_new_thread(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.started.append(threading.Thread(target=function, args=arguments))
        self.started[-1].start()

    def join(self) -> None:
        for thread in self.started:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Threads]:
    """Start without a process-wide client, in an empty folder; end it and its threads."""
    threads = Threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    monkeypatch.setattr(diagnostics, "_last", {})
    monkeypatch.setattr(handler_module, "_thread", threads)
    yield threads
    threads.join()
    bizlog.shutdown(timeout=5)


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> separation.Guard:
    """Start with counters at 0."""
    guard = separation.Guard()
    monkeypatch.setattr(separation, "guard", guard)
    return guard


@pytest.fixture
def reports() -> Iterator[Reports]:
    """Listen to bizlog's own logger."""
    handler = Reports()
    diagnostics.logger.addHandler(handler)
    yield handler
    diagnostics.logger.removeHandler(handler)


@pytest.fixture
def sink() -> MemorySink:
    """Configure the process with a sink in memory."""
    memory = MemorySink()
    bizlog.configure(source="test", sinks=[memory], hash_key="k" * 32)
    return memory


def sent(sink: MemorySink) -> list[dict[str, Any]]:
    """Flush, and read the events exactly as they stand on the wire."""
    assert bizlog.flush(timeout=10)
    return [json.loads(r.data, parse_float=Decimal) for r in sink.records]


def make_logger(
    handler: logging.Handler, name: str = "business", level: int = logging.DEBUG
) -> logging.Logger:
    """Make a logger that logging does not know, with one handler."""
    logger = logging.Logger(name, level)  # noqa: LOG001  # one of this test only
    logger.addHandler(handler)
    return logger


@pytest.fixture
def handler(sink: MemorySink) -> bizlog.BusinessEventHandler:
    """Make the handler of a configured process."""
    return bizlog.BusinessEventHandler()


@pytest.fixture
def log(handler: bizlog.BusinessEventHandler) -> logging.Logger:
    """Make a logger with the handler."""
    return make_logger(handler)


@pytest.fixture
def untraced() -> Iterator[None]:
    """Do without coverage, whose tracer needs a depth of its own in each frame."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


# What becomes an event


@pytest.mark.parametrize(
    "properties",
    [
        {"product_id": "1"},
        OrderedDict(product_id="1"),
        UserDict(product_id="1"),
        MappingProxyType({"product_id": "1"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_mapping_after_the_name_is_the_properties(
    log: logging.Logger, sink: MemorySink, properties: Mapping[str, Any]
) -> None:
    """Every kind of mapping works, and the caller's own object stays as it was."""
    before = dict(properties)
    log.info("product.viewed", properties)
    (event,) = sent(sink)
    assert event["event_type"] == "product.viewed"
    assert event["product_id"] == "1"
    assert "custom_properties" not in event
    assert dict(properties) == before


def test_extra_and_arguments_merge(log: logging.Logger, sink: MemorySink) -> None:
    """`extra` and all mappings add up; the later says more: extra, then the arguments."""
    log.info(
        "product.viewed",
        {"product_id": "1", "shop": "north"},
        {"shop": "south"},
        extra={"product_name": "Catnip", "product_id": "2", "shop": "west"},
    )
    (event,) = sent(sink)
    assert event["product_id"] == "1"
    assert event["product_name"] == "Catnip"
    assert event["custom_properties"] == {"shop": "south"}


@pytest.mark.parametrize(
    "arguments", [(7,), (7, None), ({"product_id": "1"}, 7, [1]), ({},), ((),)]
)
def test_positional_arguments_are_those_of_our_logger(
    log: logging.Logger, sink: MemorySink, arguments: tuple[Any, ...]
) -> None:
    """What is no mapping becomes `arg_N`, just as `get_logger().info` has it."""
    log.info("product.viewed", *arguments)
    bizlog.get_logger().info("product.viewed", *arguments)
    ours, theirs = sent(sink)
    for name in ("event_id", "event_time", "sequence"):
        del ours[name], theirs[name]
    assert ours == theirs


def test_a_typed_event_may_be_the_message(
    log: logging.Logger, sink: MemorySink
) -> None:
    """The message can be the event itself; `extra` comes on top."""
    log.info(LeaseSigned(amount=Decimal("10.50")), extra={"branch": "north"})
    (event,) = sent(sink)
    assert event["event_type"] == "lease.signed"
    assert event["schema_version"] == 2
    assert event["amount"] == Decimal("10.50")
    assert event["custom_properties"] == {"branch": "north"}


def test_what_logging_writes_on_a_record_is_no_property(
    log: logging.Logger, handler: logging.Handler, sink: MemorySink
) -> None:
    """Not the level, the place, the traceback, nor what a formatter before us left."""

    class Before(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            logging.Formatter("%(asctime)s %(message)s").format(record)
            return True

    handler.addFilter(Before())
    try:
        int("deliberate")
    except ValueError:
        log.exception("order.failed", stack_info=True)
    (event,) = sent(sink)
    assert event["event_type"] == "order.failed"
    assert "custom_properties" not in event
    assert b"deliberate" not in sink.records[0].data


def test_names_of_the_record_work_in_a_mapping(
    log: logging.Logger, sink: MemorySink
) -> None:
    """`name`, `module` and `args`, which logging refuses in extra, are properties."""
    log.info("product.viewed", {"name": "a", "module": "b", "args": 1, "event": "c"})
    (event,) = sent(sink)
    assert event["event_type"] == "product.viewed"
    assert event["custom_properties"] == {
        "name": "a",
        "module": "b",
        "args": 1,
        "event": "c",
    }


def test_what_a_filter_adds_is_a_property(
    log: logging.Logger, handler: logging.Handler, sink: MemorySink
) -> None:
    """A filter that puts context on the record puts it on the event."""

    class Tenant(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.tenant = "t-1"
            return True

    handler.addFilter(Tenant())
    log.info("product.viewed")
    assert sent(sink)[0]["custom_properties"] == {"tenant": "t-1"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters only say yes or no")
def test_a_filter_may_replace_the_record(
    log: logging.Logger, handler: logging.Handler, sink: MemorySink
) -> None:
    """The record that a filter returns is the one that counts."""

    class Other(logging.Filter):
        def filter(self, record: logging.LogRecord) -> Any:
            return logging.makeLogRecord({"name": "x", "msg": "order.placed"})

    handler.addFilter(Other())
    log.info("product.viewed")
    assert [event["event_type"] for event in sent(sink)] == ["order.placed"]


def test_levels_and_filters_hold(sink: MemorySink) -> None:
    """What the handler's level or filter refuses is neither event nor ignored."""
    handler = bizlog.BusinessEventHandler("ERROR")
    handler.addFilter(lambda record: record.msg != "order.failed")
    log = make_logger(handler)
    log.info("order.placed")
    log.error("order.failed")
    log.error("admin.failed")
    assert [event["event_type"] for event in sent(sink)] == ["admin.failed"]
    assert handler.ignored == 0


def test_the_context_goes_along(log: logging.Logger, sink: MemorySink) -> None:
    """Events of the handler carry session and user, like all others."""
    with bizlog.session("sess-1", user_id="u-7"):
        log.info("product.viewed")
    (event,) = sent(sink)
    assert (event["session_id"], event["user_id"]) == ("sess-1", "u-7")


@pytest.mark.parametrize("capacity", [1, 100])
def test_a_memory_handler_hands_everything_over(
    handler: logging.Handler, sink: MemorySink, capacity: int
) -> None:
    """Records that a MemoryHandler held back arrive with all their properties."""
    buffer = logging.handlers.MemoryHandler(capacity, target=handler)
    make_logger(buffer).info("product.viewed", {"product_id": "1"}, extra={"a": 1})
    buffer.close()
    (event,) = sent(sink)
    assert event["product_id"] == "1"
    assert event["custom_properties"] == {"a": 1}


def test_a_queue_keeps_extra_only(handler: logging.Handler, sink: MemorySink) -> None:
    """A QueueHandler throws arguments away, as documented; the event is still sent."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log = make_logger(logging.handlers.QueueHandler(waiting))
    log.info("product.viewed", {"product_id": "1"}, extra={"product_name": "Catnip"})
    handler.handle(waiting.get())
    (event,) = sent(sink)
    assert event["product_name"] == "Catnip"
    assert "product_id" not in event


# What does not


@pytest.mark.parametrize(
    "message",
    [
        "user logged in",
        "order.placed: 42",
        "order.placed %s",
        "Order.placed",
        "started",
        "",
        ".placed",
        "order.",
        "a." * 100 + "b",
        "order.placed\n",
        None,
        42,
        {"event": "order.placed"},
        ValueError("order.placed"),
    ],
    ids=lambda message: str(message)[:20],
)
def test_operational_records_are_no_events(
    log: logging.Logger,
    handler: bizlog.BusinessEventHandler,
    sink: MemorySink,
    message: object,
) -> None:
    """A message that is no event name is counted as ignored, never offered."""
    log.info(message)
    assert sent(sink) == []
    assert handler.ignored == 1
    assert bizlog.ledger().sinks["memory"].offered == 0


@pytest.mark.parametrize("name", ["bizlog", "bizlog.delivery"])
def test_records_of_bizlog_are_no_events(
    handler: bizlog.BusinessEventHandler, sink: MemorySink, name: str
) -> None:
    """Not even where they look like one; other names that begin alike are others."""
    make_logger(handler, name).warning("order.placed")
    make_logger(handler, name).warning("the queue is full")
    make_logger(handler, "bizlogistics").warning("order.failed")
    assert [event["event_type"] for event in sent(sink)] == ["order.failed"]
    assert (handler.ignored, separation.guard.stopped) == (2, 1)


def test_the_first_ignored_record_is_reported(
    log: logging.Logger,
    handler: bizlog.BusinessEventHandler,
    reports: Reports,
    threads: Threads,
) -> None:
    """Once, with its place and without its text, and never on the caller's thread."""
    with reports.lock:  # what a report on this thread would take again
        log.warning("password is %s", "hunter2")
        log.warning("and so on")
        assert not reports.said
    threads.join()
    assert len(threads.started) == 1
    ((text, thread),) = reports.said
    assert "'business'" in text
    assert "test_handler.py:" in text
    assert "password" not in text
    assert thread != threading.get_ident()
    assert handler.ignored == 2


def test_the_report_is_no_event_of_its_own(
    handler: bizlog.BusinessEventHandler,
    reports: Reports,
    threads: Threads,
    sink: MemorySink,
) -> None:
    """On bizlog's own logger the handler ignores our lines, and there is no echo."""
    diagnostics.logger.addHandler(handler)
    try:
        make_logger(handler).info("no event")
        threads.join()
    finally:
        diagnostics.logger.removeHandler(handler)
    assert sent(sink) == []
    assert len(reports.said) == 1


# Separation


def test_records_of_a_sinks_call_are_no_events(
    log: logging.Logger,
    handler: bizlog.BusinessEventHandler,
    sink: MemorySink,
    reports: Reports,
    threads: Threads,
    wall: separation.Guard,
) -> None:
    """They would feed themselves; they are counted, and the first is reported."""
    with separation.suppressed():
        log.info("connection.opened", {"host": "hub"})
        log.info("connection.closed")
        log.info("retrying in 3 seconds")
    log.info("order.placed")
    assert [event["event_type"] for event in sent(sink)] == ["order.placed"]
    assert (handler.ignored, wall.stopped, wall.crossings) == (3, 2, 0)
    threads.join()
    assert len(reports.said) == 2
    (stopped,) = [text for text, _ in reports.said if "looks like an event" in text]
    assert "made while bizlog called a sink" in stopped
    assert "hub" not in stopped


def test_threads_of_a_sinks_call_make_no_events(
    log: logging.Logger, sink: MemorySink, wall: separation.Guard
) -> None:
    """A blocking client logs in asyncio.to_thread, in the same context."""

    async def deliver() -> None:
        with separation.suppressed():
            await asyncio.to_thread(log.info, "connection.opened")

    asyncio.run(deliver())
    assert sent(sink) == []
    assert wall.stopped == 1


@pytest.mark.parametrize(
    ("name", "events"), [("bizlog-blocking-0", 0), ("bizlog", 0), ("worker", 1)]
)
def test_a_queue_takes_no_context_but_the_threads_name(
    handler: bizlog.BusinessEventHandler,
    sink: MemorySink,
    wall: separation.Guard,
    name: str,
    events: int,
) -> None:
    """What bizlog's threads logged is refused although another thread hands it over."""
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    log = make_logger(logging.handlers.QueueHandler(waiting))
    thread = threading.Thread(target=log.info, args=("order.placed",), name=name)
    thread.start()
    thread.join(5)
    handler.handle(waiting.get(timeout=5))
    assert len(sent(sink)) == events
    assert wall.stopped == 1 - events


def test_a_handler_of_our_lines_makes_no_events(
    log: logging.Logger, sink: MemorySink, wall: separation.Guard
) -> None:
    """Who turns our lines into records elsewhere does not make events of them."""

    class Relay(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.warning("bizlog.warned", {"text": record.getMessage()})

    relay = Relay()
    diagnostics.logger.addHandler(relay)
    try:
        diagnostics.report("queue", "the queue is full")
    finally:
        diagnostics.logger.removeHandler(relay)
    assert sent(sink) == []
    assert wall.stopped == 1


@pytest.fixture
def tree(handler: bizlog.BusinessEventHandler) -> Iterator[logging.Logger]:
    """Make a logger in logging's own tree, with a parent."""
    parent, child = logging.getLogger("shop"), logging.getLogger("shop.business")
    child.setLevel(logging.DEBUG)
    child.addHandler(handler)
    yield child
    for logger in (parent, child):
        logger.handlers.clear()


@pytest.mark.parametrize("place", ["shop", "shop.business"])
def test_an_event_that_is_logged_as_well_is_a_crossing(
    tree: logging.Logger,
    sink: MemorySink,
    reports: Reports,
    threads: Threads,
    wall: separation.Guard,
    place: str,
) -> None:
    """It is an event all the same; each one is counted, and the first is reported."""
    logging.getLogger(place).addHandler(Reports())
    tree.info("order.placed", {"order_id": "42"})
    tree.info("order.placed", {"order_id": "43"})
    tree.info("no event")
    assert len(sent(sink)) == 2
    assert (wall.crossings, wall.stopped) == (2, 0)
    threads.join()
    (crossing,) = [text for text, _ in reports.said if "operational log" in text]
    assert "'shop.business'" in crossing
    assert "a Reports" in crossing
    assert "42" not in crossing


def test_the_root_logger_may_carry_both_handlers(
    handler: bizlog.BusinessEventHandler, sink: MemorySink, wall: separation.Guard
) -> None:
    """Events of any logger then cross, and are counted; those of our logger do not."""
    stream, root = Reports(), logging.getLogger()
    root.addHandler(handler)
    root.addHandler(stream)
    try:
        root.warning("order.placed")
        logging.getLogger("shop.tills").warning("order.placed")
        bizlog.get_logger().warning("order.failed")
    finally:
        root.removeHandler(handler)
        root.removeHandler(stream)
    assert len(sent(sink)) == 3
    assert [text for text, _ in stream.said] == ["order.placed", "order.placed"]
    assert wall.crossings == 2


def for_errors() -> logging.Handler:
    handler = Reports()
    handler.setLevel(logging.ERROR)
    return handler


def with_filter() -> logging.Handler:
    handler = Reports()
    handler.addFilter(lambda record: record.name != "shop.business")
    return handler


@pytest.mark.parametrize(
    "other",
    [
        lambda: logging.NullHandler(),
        lambda: for_errors(),
        lambda: with_filter(),
        lambda: logging.handlers.MemoryHandler(1, target=logging.NullHandler()),
        lambda: logging.handlers.QueueHandler(queue.SimpleQueue()),
        lambda: bizlog.BusinessEventHandler(),
    ],
    ids=["null", "level", "filter", "memory", "queue", "ours"],
)
def test_what_may_hold_an_event_back_is_no_crossing(
    tree: logging.Logger, wall: separation.Guard, other: Any
) -> None:
    """
    The counter must stay 0, so that only what certainly went elsewhere counts.

    What pytest captures itself is on the way here, too, and is no log either.
    """
    handler = other()
    logging.getLogger("shop").addHandler(handler)
    tree.info("order.placed")
    assert wall.crossings == 0
    handler.close()


def test_a_tree_of_foreign_make_is_no_trouble(
    tree: logging.Logger,
    sink: MemorySink,
    wall: separation.Guard,
    handler: bizlog.BusinessEventHandler,
) -> None:
    """A handler that cannot be asked changes nothing for the event."""

    class Odd(logging.Handler):
        @property
        def target(self) -> None:
            raise ValueError("not now")

        def emit(self, record: logging.LogRecord) -> None:
            pass

    logging.getLogger("shop").addHandler(Odd())
    tree.info("order.placed")
    assert len(sent(sink)) == 1
    assert (wall.crossings, handler.ignored) == (0, 0)


# Clients and settings


def test_the_process_wide_client_of_the_moment_is_used() -> None:
    """A handler made before `configure` follows it, as loggers do."""
    log = make_logger(bizlog.BusinessEventHandler())
    first, second = MemorySink(), MemorySink()
    for sink in (first, second):
        bizlog.configure(source="test", sinks=[sink])
        log.info("product.viewed")
        bizlog.flush()
    assert (len(first.events), len(second.events)) == (1, 1)


def test_a_source_alone_configures_nothing(sink: MemorySink) -> None:
    """`source` names this handler's events and leaves the configuration as it is."""
    before = bizlog.client.default_client()
    handler = bizlog.BusinessEventHandler(source="front", sinks=None)
    make_logger(handler).info("product.viewed")
    bizlog.get_logger().info("product.viewed")
    assert bizlog.client.default_client() is before
    assert [event["event_source"] for event in sent(sink)] == ["front", "test"]


def test_settings_configure_the_process() -> None:
    """Settings at the handler are settings of the process, the source included."""
    sink = MemorySink()
    handler = bizlog.BusinessEventHandler(
        source="shop", environment="production", sinks=[sink]
    )
    make_logger(handler).info("product.viewed")
    bizlog.get_logger().info("product.viewed")
    seen = [(e["event_source"], e["environment"]) for e in sent(sink)]
    assert seen == [("shop", "production")] * 2


def test_a_client_of_its_own(sink: MemorySink) -> None:
    """Events go to the handler's client, and not to the process-wide one."""
    own = MemorySink()
    with bizlog.BusinessTelemetryClient(source="own", sinks=[own]) as client:
        make_logger(bizlog.BusinessEventHandler(client=client)).info("product.viewed")
    assert [event["event_source"] for event in own.events] == ["own"]
    assert sent(sink) == []


def test_a_client_and_settings_exclude_each_other(sink: MemorySink) -> None:
    """Both together are refused, and nothing was configured."""
    client = bizlog.client.default_client()
    with pytest.raises(bizlog.ConfigurationError, match="not both"):
        bizlog.BusinessEventHandler(client=client, sinks=["null:"])
    assert bizlog.client.default_client() is client


def test_settings_that_cannot_work_are_refused(sink: MemorySink) -> None:
    """Mistakes raise where the handler is made; the configuration in force stays."""
    before = bizlog.client.default_client()
    with pytest.raises(bizlog.ConfigurationError, match="sourse"):
        bizlog.BusinessEventHandler(sourse="x")
    assert bizlog.client.default_client() is before


# Never in the way


def test_flush_and_close_wait_for_nothing(sink: MemorySink) -> None:
    """With a sink that hangs they return; the client lives on and takes events."""
    go = threading.Event()

    class Hanging(MemorySink):
        async def deliver(self, batch: bizlog.Batch) -> bizlog.SendResult:
            assert go.wait(10)
            return await super().deliver(batch)

    hanging = Hanging()
    handler = bizlog.BusinessEventHandler(sinks=[hanging], batch_size=1)
    log = make_logger(handler)
    log.info("order.placed")
    handler.flush()
    handler.close()
    assert not hanging.events
    log.info("order.returned")
    go.set()
    assert len(sent(hanging)) == 2


def test_foreign_code_may_wait_for_another_thread_that_logs(
    log: logging.Logger, sink: MemorySink
) -> None:
    """No lock is held while a value is read: another thread logs meanwhile."""
    logged = threading.Event()

    class Waits:
        def __repr__(self) -> str:
            other.start()
            return f"waited: {logged.wait(5)}"

        __str__ = __repr__

    def log_and_say_so() -> None:
        log.info("order.placed")
        logged.set()

    other = threading.Thread(target=log_and_say_so, daemon=True)
    log.info("product.viewed", {"value": Waits()})
    first, second = sent(sink)
    assert first["event_type"] == "order.placed"
    assert second["custom_properties"] == {"value": "waited: True"}


def test_logging_inside_a_repr(log: logging.Logger, sink: MemorySink) -> None:
    """A value that logs when it is written is written, and its own event is sent."""

    class Chatty:
        def __repr__(self) -> str:
            log.info("order.placed")
            log.info("operational")
            return "chatty"

        __str__ = __repr__

    log.info("product.viewed", {"value": Chatty()})
    events = {event["event_type"]: event for event in sent(sink)}
    assert events["product.viewed"]["custom_properties"] == {"value": "chatty"}
    assert "order.placed" in events


def test_hostile_arguments_are_properties(
    log: logging.Logger, handler: bizlog.BusinessEventHandler, sink: MemorySink
) -> None:
    """A mapping that cannot be read is one argument; its neighbours survive."""
    log.info("product.viewed", Torn(a=1), {"product_id": "1"})
    log.info("product.viewed", Torn(a=1))
    log.info(Sly("order.placed"))
    first, second, third = sent(sink)
    assert "arg_0" in first["custom_properties"]
    assert first["product_id"] == "1"
    assert "arg_0" in second["custom_properties"]
    assert third["event_type"] == "order.placed"
    assert handler.ignored == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_end_passes(
    log: logging.Logger, sink: MemorySink, error: type[BaseException]
) -> None:
    """KeyboardInterrupt and SystemExit inside an emit are the process's business."""

    class Ends(UserDict):
        def __iter__(self):
            raise error

    with pytest.raises(error):
        log.info("product.viewed", Ends(a=1))


def test_invalid_events_stay_out_of_the_caller(
    log: logging.Logger, sink: MemorySink, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside development nothing is raised or printed; the ledger has it."""
    log.info("product.viewed", {"product_price": "much"})
    assert sent(sink) == []
    assert bizlog.ledger().sinks["memory"].rejected == 1
    assert capsys.readouterr() == ("", "")


def test_invalid_events_raise_in_development(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In development the error comes out of the logging call itself, with its path."""
    log = make_logger(
        bizlog.BusinessEventHandler(sinks=[MemorySink()], development=True)
    )
    with pytest.raises(bizlog.InvalidEventError) as caught:
        log.info("product.viewed", {"product_price": "much"})
    assert caught.value.path == "$.product_price"
    assert capsys.readouterr() == ("", "")


def test_the_recursion_limit(
    log: logging.Logger,
    handler: bizlog.BusinessEventHandler,
    sink: MemorySink,
    untraced: None,
) -> None:
    """Wherever the stack ends, no RecursionError is ours, and every event counts."""
    ours = returned = 0

    def dive(depth: int) -> None:
        nonlocal returned
        if depth:
            dive(depth - 1)
        else:
            log.info("product.viewed", {"product_id": "1"})
            returned += 1

    limit = sys.getrecursionlimit()
    for depth in range(limit - 130, limit):
        try:
            dive(depth)
        except RecursionError as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours += any(frame.filename == handler_module.__file__ for frame in frames)
    sent(sink)
    account = bizlog.ledger().sinks["memory"]
    assert ours == 0
    assert 0 < account.offered + handler.ignored == returned
    assert bizlog.ledger().balanced


# The processor


def through(processor: Any, event_dict: dict[str, Any], method: str = "info") -> bool:
    """Say whether the processor takes an event; else it must pass it unchanged."""
    before = dict(event_dict)
    try:
        assert processor(None, method, event_dict) is event_dict
    except structlog.DropEvent:
        return True
    finally:
        assert event_dict == before
    return False


@pytest.mark.parametrize(
    "name",
    ["order.placed", "product.never_seen", "ai.tool.called", "lease.signed"],
)
def test_known_names_are_diverted(sink: MemorySink, name: str) -> None:
    """The catalogue, the families, and what users registered leave the chain."""
    assert through(bizlog.divert(), {"event": name, "amount": 1})
    assert [event["event_type"] for event in sent(sink)] == [name]


@pytest.mark.parametrize(
    "event",
    [
        "user logged in",
        "order.placed for 42",
        "order",
        "order.",
        "Order.placed",
        "cache.missed",
        "",
        None,
        42,
        b"order.placed",
    ],
)
def test_everything_else_passes(sink: MemorySink, event: object) -> None:
    """What is no business event goes on as the same object, and is no event."""
    assert not through(bizlog.divert("loan.*"), {"event": event, "a": 1})
    assert not through(bizlog.divert(), {"no": "event"})
    assert sent(sink) == []


def test_patterns_add_names(sink: MemorySink) -> None:
    """A pattern takes what it matches, from the first letter to the last."""
    processor = bizlog.divert("loan.*", "*_sold", "Ticket Sold")
    assert through(processor, {"event": "loan.paid.back"})
    assert through(processor, {"event": "ticket_sold"})
    assert through(processor, {"event": "Ticket Sold"})
    assert not through(processor, {"event": "a loan.paid"})
    assert not through(processor, {"event": "Loan.paid"})
    assert not through(processor, {"event": "ticket_sold_out"})
    names = [event["event_type"] for event in sent(sink)]
    assert names == ["loan.paid.back", "ticket_sold", "Ticket Sold"]


def test_a_typed_event_is_diverted(sink: MemorySink) -> None:
    """A typed event is a business event whatever its name."""
    assert through(bizlog.divert(), {"event": LeaseSigned(amount=Decimal(1))})
    assert sent(sink)[0]["amount"] == 1


def test_the_catalogue_is_the_clients() -> None:
    """A client with a registry of its own diverts the names that it knows."""
    own = bizlog.Registry()
    own.add_family("cache", bizlog.BaseEvent)
    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(
        source="own", sinks=[sink], registry=own
    ) as client:
        assert through(bizlog.divert(client=client), {"event": "cache.missed"})
        assert through(bizlog.divert(client=client), {"event": "order.placed"})
    assert len(sink.events) == 2
    assert not through(bizlog.divert(), {"event": "cache.missed"})


def test_the_source_of_diverted_events(sink: MemorySink) -> None:
    """`source` names these events alone."""
    assert through(bizlog.divert(source="front"), {"event": "order.placed"})
    assert sent(sink)[0]["event_source"] == "front"


@pytest.mark.parametrize(
    ("method", "level"),
    [("info", "info"), ("exception", "error"), ("warn", "warning")],
)
def test_what_other_processors_wrote_is_left_out(
    sink: MemorySink, method: str, level: str
) -> None:
    """Level, traceback, stack and the formatter's own keys are no properties."""
    event_dict = {
        "event": "order.failed",
        "order_id": "42",
        "level": level,
        "_record": object(),
        "_from_structlog": True,
        "exc_info": True,
        "stack_info": True,
        "stacklevel": 2,
    }
    assert through(bizlog.divert(), event_dict, method)
    (event,) = sent(sink)
    assert event["order_id"] == "42"
    assert "custom_properties" not in event


@pytest.mark.parametrize("level", ["gold", 3, None])
def test_a_level_of_the_business_is_a_property(sink: MemorySink, level: object) -> None:
    """Only what `add_log_level` writes is left out."""
    event_dict = {"event": "customer.queried", "level": level}
    assert through(bizlog.divert(), event_dict)
    assert sent(sink)[0]["custom_properties"] == {"level": level}


def test_positional_arguments_of_the_standard_librarys_way(sink: MemorySink) -> None:
    """What structlog.stdlib keeps of positional arguments becomes properties."""
    arguments = ({"product_id": "1"}, 7)
    event_dict = {"event": "product.viewed", "positional_args": arguments}
    assert through(bizlog.divert(), event_dict)
    (event,) = sent(sink)
    assert event["product_id"] == "1"
    assert event["custom_properties"] == {"arg_1": 7}


def test_a_record_in_a_formatter_passes(
    sink: MemorySink, reports: Reports, threads: Threads
) -> None:
    """A formatter cannot drop a foreign record: it passes, is no event, is reported."""
    event_dict = {"event": "order.placed", "_from_structlog": False, "_record": 1}
    assert not through(bizlog.divert(), event_dict)
    assert sent(sink) == []
    threads.join()
    assert "BusinessEventHandler" in reports.said[0][0]
    assert separation.guard.crossings == 1


def test_business_events_of_a_sinks_call_end(
    sink: MemorySink, wall: separation.Guard
) -> None:
    """No event, which would feed itself, and no line: both sides of the wall stay clean."""
    with separation.suppressed():
        assert through(bizlog.divert(), {"event": "order.placed"})
        assert not through(bizlog.divert(), {"event": "retrying"})
    assert sent(sink) == []
    assert (wall.stopped, wall.crossings) == (1, 0)


def test_foreign_records_of_a_sinks_call_are_operational(
    wall: separation.Guard, reports: Reports, threads: Threads
) -> None:
    """In a formatter they pass as ever; whatever they look like, nothing crossed."""
    event_dict = {"event": "order.placed", "_from_structlog": False, "_record": 1}
    with separation.suppressed():
        assert not through(bizlog.divert(), event_dict)
    threads.join()
    assert (wall.stopped, wall.crossings, reports.said) == (0, 0, [])


def test_refused_events_do_not_fall_back_into_the_log(sink: MemorySink) -> None:
    """An invalid business event is still none of the operational log's."""
    event_dict = {"event": "product.viewed", "product_price": "much"}
    assert through(bizlog.divert(), event_dict)
    assert sent(sink) == []
    assert bizlog.ledger().sinks["memory"].rejected == 1


def test_invalid_diverted_events_raise_in_development() -> None:
    """In development the error rises to the call."""
    bizlog.configure(sinks=["null:"], development=True)
    with pytest.raises(bizlog.InvalidEventError):
        bizlog.divert()(None, "info", {"event": "order.placed", "order_total": "x"})


def test_hostile_dictionaries_are_never_the_callers_trouble(sink: MemorySink) -> None:
    """Texts and mappings that raise are sent, or counted; nothing is raised."""
    assert through(bizlog.divert(), {"event": "order.placed", "level": Sly("info")})
    with pytest.raises(structlog.DropEvent):
        bizlog.divert()(None, "info", {"event": Sly("order.placed"), "order_id": 1})

    class Unreadable(dict):
        def items(self):
            raise BaseExceptionGroup("unreadable", [GeneratorExit()])

        def get(self, key, default=None):
            return super().get(key, default)

    with pytest.raises(structlog.DropEvent):
        bizlog.divert()(None, "info", Unreadable(event="order.placed"))
    assert len(sent(sink)) == 2
    account = bizlog.ledger().sinks["memory"]
    assert (account.offered, sum(account.dropped.values())) == (3, 1)
    assert bizlog.ledger().balanced


def test_a_dictionary_that_cannot_be_asked_passes(sink: MemorySink) -> None:
    """Where not even the name can be read, the chain goes on as it was."""

    class Closed(dict):
        def get(self, key, default=None):
            raise RuntimeError

    closed = Closed(event="order.placed")
    assert bizlog.divert()(None, "info", closed) is closed
    assert sent(sink) == []


def test_divert_is_called_in_the_list_of_processors() -> None:
    """`processors=[bizlog.divert]` says at the first call what is missing."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), [bizlog.divert], wrapper_class=structlog.BoundLogger
    )
    with pytest.raises(bizlog.ConfigurationError, match=r"bizlog\.divert\(\)"):
        log.info("order.placed")


# Settings for dictConfig


def test_logging_config_says_what_it_was_given() -> None:
    """Only what was given stands in it, so that it can be written as JSON."""
    config = bizlog.logging_config("sales", level="INFO", source="shop", sinks=None)
    assert json.loads(json.dumps(config)) == {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"bizlog": {"()": "bizlog.BusinessEventHandler", "source": "shop"}},
        "loggers": {
            "sales": {"handlers": ["bizlog"], "level": "INFO", "propagate": False}
        },
    }
