"""Drop-in: hosts with logging and structlog of their own, from the call to the sink."""

# ruff: noqa: PLE1205  # a mapping after the name is no argument of a format

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import logging.config
import os
import re
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import bizlog
import bizlog.client
from bizlog import diagnostics
from bizlog import handler as handler_module
from bizlog.testing import MemorySink

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LOGGERS = ("business", "business.orders", "host")
PLAIN = """
{
    "version": 1,
    "disable_existing_loggers": false,
    "handlers": {
        "bizlog": {
            "()": "bizlog.BusinessEventHandler",
            "level": "INFO",
            "source": "order-service",
            "sinks": [{"type": "file", "directory": "./events"}, "null:"],
            "flush_interval": 0.5,
            "journal": null
        }
    },
    "loggers": {
        "business": {"handlers": ["bizlog"], "level": "DEBUG", "propagate": false}
    }
}
"""


class Lines(logging.Handler):
    """Keeps the lines of an operational log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Hanging(MemorySink):
    """Takes nothing before it may."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__()
        self._go = go

    async def deliver(self, batch: bizlog.Batch) -> bizlog.SendResult:
        assert self._go.wait(10)
        return await super().deliver(batch)


class Threads:
    """Starts threads as `_thread` does, and can wait for them."""

    def __init__(self) -> None:
        self._started: list[threading.Thread] = []

    def start_new_thread(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self._started.append(threading.Thread(target=function, args=arguments))
        self._started[-1].start()

    def join(self) -> None:
        for thread in self._started:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start and end without client, loggers or configuration, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    monkeypatch.setattr(diagnostics, "_last", {})
    threads = Threads()
    monkeypatch.setattr(handler_module, "_thread", threads)
    yield
    threads.join()
    bizlog.shutdown(timeout=5)
    structlog.reset_defaults()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture
def root() -> Iterator[Lines]:
    """Listen to the root logger, at DEBUG."""
    handler, logger = Lines(), logging.getLogger()
    level = logger.level
    handler.addFilter(lambda record: record.name != "asyncio")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def sink() -> MemorySink:
    """Configure the process with a sink in memory."""
    memory = MemorySink()
    bizlog.configure(source="test", sinks=[memory])
    return memory


def names(sink: MemorySink) -> list[str]:
    """Flush, and name the events that arrived."""
    assert bizlog.flush(timeout=10)
    return [event["event_type"] for event in sink.events]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Read the events that stand in files with their final names."""
    files = folder.glob("*/*/*.jsonl")
    lines = [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]
    return sorted(lines, key=lambda event: event["sequence"])


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, warnings being errors."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


# logging.config


def test_nothing_reaches_the_root(root: Lines) -> None:
    """No event of the logger or of its children is seen above; other records are."""
    sink = MemorySink()
    logging.config.dictConfig(bizlog.logging_config(source="shop", sinks=[sink]))
    for logger in map(logging.getLogger, ("business", "business.orders")):
        for level in (logging.DEBUG, logging.INFO, logging.CRITICAL):
            logger.log(level, "order.placed", {"order_id": 42})
        logger.error("order.failed", exc_info=ValueError())
        logger.warning("not an event")
    logging.getLogger("host").debug("operational")
    assert names(sink) == (["order.placed"] * 3 + ["order.failed"]) * 2
    assert root.lines == ["operational"]


@pytest.mark.parametrize("key", ["()", "class"])
def test_the_configuration_may_be_plain_json(tmp_path: Path, key: str) -> None:
    """Text alone configures all of it: sinks by URL and table, in either form."""
    config = json.loads(PLAIN.replace('"()"', f'"{key}"'))
    del config["handlers"]["bizlog"]["journal"]
    logging.config.dictConfig(config)
    logger = logging.getLogger("business.orders")
    logger.debug("order.updated")  # below the handler's level
    logger.info("order.placed", {"order_id": 42}, extra={"channel": "web"})
    assert bizlog.shutdown(timeout=10)
    (event,) = read_events(tmp_path / "events")
    assert event["event_source"] == "order-service"
    assert (event["event_type"], event["order_id"]) == ("order.placed", "42")
    assert event["custom_properties"] == {"channel": "web"}


def test_null_in_the_configuration_is_not_given(sink: MemorySink) -> None:
    """A setting that is null counts as not passed, as it does in `configure`."""
    before = bizlog.client.default_client()
    config = bizlog.logging_config()
    config["handlers"]["bizlog"] |= {"source": None, "sinks": None, "client": None}
    logging.config.dictConfig(config)
    logging.getLogger("business").info("order.placed")
    assert bizlog.client.default_client() is before
    assert names(sink) == ["order.placed"]


def test_the_literal_in_the_docstring_is_what_logging_config_returns() -> None:
    """What the documentation shows as a literal is the configuration itself."""
    literal = re.compile(r"^( +)\{.*?^\1\}$", re.MULTILINE | re.DOTALL)
    shown = literal.search(bizlog.logging_config.__doc__)
    expected = bizlog.logging_config(source="order-service", sinks=["file:./events"])
    assert ast.literal_eval(shown[0].strip()) == expected


def test_objects_are_named_as_dictconfig_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ext://` works for a client, and inside lists and tables."""
    telemetry = types.ModuleType("drop_in_telemetry")
    telemetry.sink = MemorySink()
    telemetry.name = "shop"
    telemetry.policy = "drop"
    monkeypatch.setitem(sys.modules, "drop_in_telemetry", telemetry)
    config = bizlog.logging_config(
        source="ext://drop_in_telemetry.name",
        sinks=("ext://drop_in_telemetry.sink", "null:"),
        privacy={"customer_name": "ext://drop_in_telemetry.policy"},
    )
    logging.config.dictConfig(json.loads(json.dumps(config)))
    logging.getLogger("business").info("order.placed", {"customer_name": "Ada"})
    telemetry.client = bizlog.client.default_client()
    assert names(telemetry.sink) == ["order.placed"]
    assert telemetry.sink.events[0]["event_source"] == "shop"
    assert "customer_name" not in telemetry.sink.events[0]

    config = bizlog.logging_config()
    config["handlers"]["bizlog"]["client"] = "ext://drop_in_telemetry.client"
    logging.config.dictConfig(config)
    (handler,) = logging.getLogger("business").handlers
    assert handler.client is telemetry.client


def test_mistakes_stop_the_configuration() -> None:
    """A setting that cannot work is named in the error of dictConfig."""
    config = bizlog.logging_config(batch_size=0)
    with pytest.raises(ValueError, match="bizlog") as caught:
        logging.config.dictConfig(config)
    assert isinstance(caught.value.__cause__, bizlog.ConfigurationError)


def test_loggers_that_exist_stay(root: Lines) -> None:
    """Loggers made before the configuration go on logging."""
    host = logging.getLogger("host")
    logging.config.dictConfig(bizlog.logging_config(sinks=["null:"]))
    host.info("still here")
    assert root.lines == ["still here"]


def test_configuring_again_waits_for_nothing_and_loses_nothing() -> None:
    """The sinks before get all that was theirs, even if they need logging's own lock."""
    go, stopped = threading.Event(), threading.Event()

    class Talkative(Hanging):
        async def deliver(self, batch: bizlog.Batch) -> bizlog.SendResult:
            # A new name each time: logging must take its lock to make the logger.
            logging.getLogger(f"host.sink.{batch.first}").debug("delivering")
            return await super().deliver(batch)

        async def stop(self) -> None:
            stopped.set()

    before, after = Talkative(go), MemorySink()
    logger = logging.getLogger("business")
    logging.config.dictConfig(bizlog.logging_config(sinks=[before], batch_size=1))
    client = bizlog.client.default_client()
    for _ in range(10):
        logger.info("order.placed")
    logging.config.dictConfig(bizlog.logging_config(sinks=[after]))
    # Here the sink before still hangs: to wait for it would have lost these ten.
    go.set()
    logger.info("order.returned")
    assert names(after) == ["order.returned"]
    assert stopped.wait(10)  # by itself
    assert [event["event_type"] for event in before.events] == ["order.placed"] * 10
    assert client.ledger().balanced
    assert not Path("bizlog-dead-letters").exists()


def test_the_end_of_logging_is_not_ours(tmp_path: Path) -> None:
    """After `logging.shutdown()` events still count; the end of the script sends all."""
    script = """
import logging.config, bizlog
logging.config.dictConfig(bizlog.logging_config(sinks=["file:events"]))
log = logging.getLogger("business")
for i in range(100): log.info("product.viewed", {"product_id": i})
logging.shutdown()
for i in range(100): log.info("product.viewed", {"product_id": i})
"""
    done = run(tmp_path, "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    events = read_events(tmp_path / "events")
    assert [event["sequence"] for event in events] == list(range(1, 201))


def test_an_ignored_record_says_so_in_a_script(tmp_path: Path) -> None:
    """Without any logging of its own a program sees on stderr what it did wrong."""
    script = """
import logging.config, time, bizlog
from bizlog import diagnostics
from bizlog import handler as handler_module
logging.config.dictConfig(bizlog.logging_config(sinks=["null:"]))
logging.getLogger("business").info("hello, %s", "secret")
while not diagnostics._last: time.sleep(0.01)
time.sleep(0.1)
"""
    done = run(tmp_path, "-c", script)
    assert (done.returncode, done.stdout) == (0, "")
    assert "'business'" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


# Locks


def all_end(threads: list[threading.Thread], seconds: float) -> bool:
    """Start threads, and say whether all come to their end within these seconds."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def emit() -> None:
    """Emit two events, in the two ways."""
    logging.getLogger("business").info("product.viewed", {"product_id": "1"})
    bizlog.get_logger().info("order.placed", value=object())


def emit_and_keep(_: logging.LogRecord) -> bool:
    """Filter nothing, but emit."""
    emit()
    return True


class EmittingFormatter(logging.Formatter):
    """Emits while it formats."""

    def format(self, record: logging.LogRecord) -> str:
        emit()
        return super().format(record)


class Chatty:
    """Emits and logs while it is written."""

    def __repr__(self) -> str:
        emit()
        logging.getLogger("host").debug("from within")
        return "chatty"

    __str__ = __repr__


class LoggingSink(MemorySink):
    """Logs on bizlog's thread, through the very lock under which callers wait."""

    talks = True

    async def deliver(self, batch: bizlog.Batch) -> bizlog.SendResult:
        if self.talks:
            logging.getLogger("host").info("delivering")
        return await super().deliver(batch)


@pytest.mark.parametrize("place", ["formatter", "filter", "repr"])
def test_no_deadlock_under_a_handlers_lock(place: str) -> None:
    """Events from within another handler's lock, a queue of one, a sink that logs."""
    operational, host = Lines(), logging.getLogger("host")
    if place == "formatter":
        operational.setFormatter(EmittingFormatter())
    if place == "filter":
        operational.addFilter(emit_and_keep)
    host.addHandler(operational)
    host.propagate = False
    host.setLevel(logging.DEBUG)
    sink = LoggingSink()
    config = bizlog.logging_config(
        sinks=[sink], overflow="block", queue_events=1, block_timeout=0.01
    )
    logging.config.dictConfig(config)

    def work() -> None:
        for _ in range(5):
            host.info("working")
            if place == "repr":
                with operational.lock:
                    logging.getLogger("business").info("ai.run", {"value": Chatty()})

    assert all_end([threading.Thread(target=work, daemon=True) for _ in range(4)], 5)
    sink.talks = False  # each line of its own makes events anew
    assert bizlog.shutdown(timeout=5)
    assert operational.lines.count("working") == 20
    account = bizlog.ledger().sinks["logging"]
    assert account.offered >= 40
    assert account.delivered == len(sink.events) > 0
    assert account.pending == 0
    assert bizlog.ledger().balanced


# structlog


def test_a_print_logger_shows_operations_only(sink: MemorySink) -> None:
    """The usual chain, cached loggers, bound values and coroutines included."""
    out = io.StringIO()
    structlog.configure(
        processors=[
            bizlog.divert("loan.*"),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger()
    log.info("started", port=80)
    log.bind(order_id="42").info("order.placed", shop="north")
    log.exception("order.failed")  # noqa: LOG004  # structlog's, which adds exc_info
    log.info("loan.approved")
    log.debug("order.updated")  # below the host's level

    async def serve() -> None:
        await log.ainfo("product.viewed", product_id="1")
        await log.ainfo("served")

    with bizlog.session("sess-1"):
        asyncio.run(serve())
    assert names(sink) == [
        "order.placed",
        "order.failed",
        "loan.approved",
        "product.viewed",
    ]
    placed, failed, _, viewed = sink.events
    assert placed["order_id"] == "42"
    assert placed["custom_properties"] == {"shop": "north"}
    assert "custom_properties" not in failed
    assert viewed["session_id"] == "sess-1"
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "started", "port": 80, "level": "info"},
        {"event": "served", "level": "info"},
    ]


def test_a_cached_logger_follows_a_new_configuration(sink: MemorySink) -> None:
    """A host may keep its chain; bizlog's client is that of the moment."""
    structlog.configure(
        processors=[bizlog.divert()],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger()
    log.info("order.placed")
    later = MemorySink()
    bizlog.configure(sinks=[later])
    log.info("order.returned")
    assert names(later) == ["order.returned"]
    assert names(sink) == ["order.placed"]


def test_the_hosts_level_comes_first(sink: MemorySink) -> None:
    """As documented: what a filtering bound logger drops, no processor can divert."""
    structlog.configure(
        processors=[bizlog.divert()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    structlog.get_logger().info("order.placed")
    structlog.get_logger().error("order.failed")
    assert names(sink) == ["order.failed"]


def use_standard_library(
    *chain: Any, formatter_chain: tuple[Any, ...] = ()
) -> tuple[Lines, logging.Logger]:
    """Set structlog up on top of logging, as its documentation has it."""
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    lines, host = Lines(), logging.getLogger("host")
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                *formatter_chain,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
        )
    )
    host.addHandler(lines)
    host.propagate = False
    host.setLevel(logging.DEBUG)
    return lines, host


def test_structlog_on_top_of_logging(sink: MemorySink) -> None:
    """One chain for both: events of structlog leave it, foreign records pass as logs."""
    shared = (bizlog.divert(), structlog.stdlib.add_log_level)
    lines, foreign = use_standard_library(*shared)
    log = structlog.get_logger("host")
    log.info("started", port=80)
    log.info("product.viewed", {"product_id": "1"}, shop="north")
    log.bind(order_id="42").exception("order.failed")
    asyncio.run(log.ainfo("customer.queried"))
    foreign.info("foreign %s", "record")
    assert names(sink) == ["product.viewed", "order.failed", "customer.queried"]
    viewed, failed, _ = sink.events
    assert viewed["product_id"] == "1"
    assert viewed["custom_properties"] == {"shop": "north"}
    assert "custom_properties" not in failed
    assert lines.lines == [
        "event='started' port=80 level='info'",
        "event='foreign record' level='info'",
    ]


def test_a_foreign_record_cannot_be_diverted(sink: MemorySink) -> None:
    """As documented: in a formatter it stays a log line, and the caller feels nothing."""
    lines, foreign = use_standard_library(bizlog.divert())
    second = Lines()
    second.setFormatter(lines.formatter)
    foreign.addHandler(second)
    foreign.info("order.placed")
    assert names(sink) == []
    assert lines.lines == second.lines == ["event='order.placed'"]


def test_divert_inside_the_formatter(sink: MemorySink) -> None:
    """Even in the formatter's own chain structlog's events end there, without its keys."""
    lines, _ = use_standard_library(formatter_chain=(bizlog.divert(),))
    structlog.get_logger("host").info("order.placed", order_id="42")
    structlog.get_logger("host").info("started")
    assert names(sink) == ["order.placed"]
    assert "custom_properties" not in sink.events[0]
    assert lines.lines == ["event='started'"]


def test_structlog_may_render_into_the_handler(sink: MemorySink, root: Lines) -> None:
    """With render_to_log_kwargs a structlog logger feeds the handler by `extra`."""
    logging.config.dictConfig(bizlog.logging_config())
    log = structlog.wrap_logger(
        logging.getLogger("business"),
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.info("product.viewed", product_id="1")
    assert names(sink) == ["product.viewed"]
    assert sink.events[0]["product_id"] == "1"
    assert root.lines == []


# The examples


def test_the_example_for_logging(tmp_path: Path) -> None:
    """Operational lines on stdout, both events in the files, a closed ledger."""
    done = run(tmp_path, str(EXAMPLES / "drop_in_logging.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the shop opens\nthe shop closes\n")
    assert done.stdout.rstrip().endswith("closed")
    assert "placed" not in done.stdout
    placed, viewed = read_events(tmp_path / "bizlog-events")
    assert (placed["event_type"], placed["order_total"]) == ("order.placed", 19.98)
    assert (viewed["event_type"], viewed["session_id"]) == ("product.viewed", "sess-1")
    assert {placed["event_source"], viewed["event_source"]} == {"order-service"}


def test_the_example_for_structlog(tmp_path: Path) -> None:
    """JSON lines of the operations alone on stdout, both events in the files."""
    done = run(tmp_path, str(EXAMPLES / "drop_in_structlog.py"))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    assert [line["event"] for line in lines] == [
        "the office opens",
        "the printer is out of paper",
    ]
    assert done.stdout.rstrip().endswith("closed")
    approved, placed = read_events(tmp_path / "bizlog-events")
    assert approved["event_type"] == "loan.approved"
    assert approved["custom_properties"] == {"customer": "c-9", "amount": "1000.00"}
    assert (placed["event_type"], placed["order_id"]) == ("order.placed", "42")
