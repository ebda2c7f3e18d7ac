"""An emit may happen anywhere: inside another one, in a signal, under a lock, in gc."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import bizlog
from bizlog.client import BusinessTelemetryClient
from bizlog.testing import FaultySink, MemorySink

pytestmark = pytest.mark.timeout(20, func_only=True)
ALARM_SECONDS = 5


@pytest.fixture
def client(tmp_path) -> Iterator[BusinessTelemetryClient]:
    """A client with a sink in memory, whose ledger closes at the end."""
    with BusinessTelemetryClient(
        source="test", sinks=[MemorySink()], dead_letters=tmp_path / "dead"
    ) as made:
        yield made
    assert made.ledger().closed


def within_the_alarm(work, *, threads=1):
    """Run work on threads; fail where one does not end before the alarm."""
    running = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(ALARM_SECONDS)
    assert not any(thread.is_alive() for thread in running), "deadlock"


def test_an_emit_inside_del_during_garbage_collection(client):
    """Objects that emit when they are collected, in the middle of other emits."""
    log = bizlog.get_logger(client=client)
    died = []

    class Mourned:
        def __init__(self):
            self.me = self  # only the collector can free it

        def __del__(self):
            died.append(1)
            log.info("order.failed", anything={1, 2})

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for number in range(2_000):
            Mourned()
            log.info("product.viewed", product_id=str(number), tags=[{number}])
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(died) == 2_000
    assert client.flush_sync()
    ledger = client.ledger().sinks["memory"]
    assert ledger.offered == 4_000
    assert ledger.delivered + sum(ledger.dropped.values()) == 4_000
    assert set(ledger.dropped) <= {"reentrant"}


def test_a_signal_handler_in_the_middle_of_an_emit(client):
    """A handler that emits at any instruction neither hangs nor miscounts."""
    log = bizlog.get_logger(client=client)
    fired = []

    def handler(*_: Any) -> None:
        fired.append(1)
        log.info("order.updated", order_id="7", odd={1})

    before = signal.signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
    try:
        for number in range(30_000):
            log.info("product.viewed", product_id="1")
            if number % 10 == 0:
                log.info("product.viewed", tags={1, 2})
            if number % 2_000 == 0:
                client.flush_sync()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert fired
    assert client.flush_sync()
    ledger = client.ledger().sinks["memory"]
    assert ledger.offered == 33_000 + len(fired)
    assert ledger.balanced
    # On a loaded machine a handler may be interrupted by the next one, more than once.
    assert set(ledger.dropped) <= {"queue_full", "reentrant"}


def test_a_repr_that_emits_itself_ends(client):
    """A value that emits itself emits twice; the third is counted as re-entrant."""
    log = bizlog.get_logger(client=client)

    class Chatty:
        def __repr__(self):
            log.info("order.updated", me=self)
            return "chatty"

    log.info("order.placed", order_id="1", me=Chatty())
    log.info("order.placed", order_id="2")
    assert client.flush_sync()
    ledger = client.ledger().sinks["memory"]
    assert (ledger.offered, ledger.delivered) == (4, 3)
    assert ledger.dropped == {"reentrant": 1}


def test_a_processor_that_emits_ends(client):
    """The same for processors, which would else call each other without end."""
    events = []

    def echo(_logger, _method, event_dict):
        events.append(event_dict["event"])
        log.info("order.updated")
        return event_dict

    log = bizlog.get_logger(client=client, processors=[echo])
    log.info("order.placed")
    assert client.flush_sync()
    ledger = client.ledger().sinks["memory"]
    assert events == ["order.placed", "order.updated"]
    assert (ledger.delivered, ledger.dropped) == (2, {"reentrant": 1})


def test_an_emit_under_loggings_own_lock(tmp_path):
    """
    A handler that emits while it holds its lock, and hears bizlog's own lines as well.

    bizlog's thread then waits for a lock that a caller holds, who may be waiting for
    room in bizlog's queue; the wait has an end.
    """
    client = BusinessTelemetryClient(
        source="test",
        sinks=[FaultySink(fail_calls=None)],
        dead_letters=tmp_path / "dead",
        queue_events=4,
        overflow="block",
        block_timeout=0.2,
        batch_size=1,
    )
    log = bizlog.get_logger(client=client)

    class Emitting(logging.Handler):
        def emit(self, record):
            if record.name != "bizlog":
                log.info("order.updated", order_id="1")

    handler = Emitting()
    operational, own = logging.getLogger("shop.operations"), logging.getLogger("bizlog")
    operational.addHandler(handler)
    own.addHandler(handler)
    bizlog.diagnostics._last.clear()

    def work():
        for number in range(5):
            operational.warning("line %s", number)
            log.info("order.placed", order_id="2")

    try:
        within_the_alarm(work, threads=4)
        within_the_alarm(partial(client.shutdown_sync, 0.5))
    finally:
        operational.removeHandler(handler)
        own.removeHandler(handler)
    ledger = client.ledger().sinks["faulty"]
    assert ledger.offered == 40
    assert client.ledger().closed


def test_a_depth_of_one_thread_is_not_that_of_another(client):
    """Emits of other threads in the meantime are none inside an emit."""
    log = bizlog.get_logger(client=client)
    inside, go = threading.Barrier(9), threading.Event()

    class Slow:
        def __repr__(self):
            inside.wait(ALARM_SECONDS)
            go.wait(ALARM_SECONDS)
            return "slow"

    def work():
        log.info("order.placed", slow=Slow())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    inside.wait(ALARM_SECONDS)
    log.info("order.placed")
    go.set()
    for thread in threads:
        thread.join(ALARM_SECONDS)
    assert client.flush_sync()
    assert client.ledger().sinks["memory"].delivered == 9
    assert client._depths == {}


def test_a_trace_function_may_emit(client):
    """A tracer or profiler that emits at each call is one more way in."""
    log = bizlog.get_logger(client=client)
    left = [50]

    def tracer(frame, _event, _argument):
        if left[0] and "bizlog" in frame.f_code.co_filename:
            left[0] -= 1
            log.info("order.updated")

    sys.setprofile(tracer)
    try:
        log.info("order.placed", odd={1})
    finally:
        sys.setprofile(None)
    assert client.flush_sync()
    assert client.ledger().balanced
