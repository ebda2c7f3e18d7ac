"""Scrapes of clients at work: the numbers Prometheus sees sum to the ledger."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import prometheus_client
import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import bizlog
import bizlog.client
from bizlog import BusinessTelemetryClient, ConfigurationError, Route
from bizlog.exceptions import PermanentSinkError
from bizlog.ledger import LABEL_VALUES, OTHER
from bizlog.sinks import BaseSink
from bizlog.testing import FaultySink, MemorySink
from bizlog_handlers.composite import CompositeSink

ROOT = Path(__file__).parents[2]

RECEIVED = "business_telemetry_events_received_total"
SENT = "business_telemetry_events_sent_total"
FAILED = "business_telemetry_events_failed_total"
BUFFER = "business_telemetry_buffer_size"
FLUSHES = "business_telemetry_flush_duration_seconds_count"
LEDGER = "bizlog_ledger_events"
OLDEST = "bizlog_oldest_pending_seconds"


class Scrape:
    """One answer of `/metrics`, read as Prometheus reads it."""

    def __init__(self, registry):
        text = generate_latest(registry).decode()
        families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in families for sample in family.samples]

    def sum(self, name, **labels):
        """Add up what has these labels, like PromQL's `sum(name{...})`."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by(self, label, name):
        """Add up by a label, like PromQL's `sum by (label) (name)`."""
        numbers = defaultdict(float)
        for sample in self.samples:
            if sample.name == name:
                numbers[sample.labels[label]] += sample.value
        return dict(numbers)


class StuckSink(BaseSink):
    """Blocks bizlog's whole loop, as soon as it may, until it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.released = threading.Event()
        self.may_block = lambda: True

    async def deliver(self, batch):
        while not (self.may_block() or self.released.is_set()):  # noqa: ASYNC110  # the test sets it elsewhere
            await asyncio.sleep(0.001)
        self.entered.set()
        self.released.wait(30)
        return await super().deliver(batch)

    async def send_batch(self, events):
        return None


class HeldSink(MemorySink):
    """Holds its batches, and nobody else's, until it is let go."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    async def deliver(self, batch):
        self.entered.set()
        await asyncio.to_thread(self.released.wait, 30)
        return await super().deliver(batch)


@pytest.fixture
def registry():
    """A registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def make_client(registry, tmp_path):
    """Make clients that show their metrics; all are shut down."""
    made = []

    def make(*sinks, **options):
        given = {
            "source": "test",
            "dead_letters": str(tmp_path / "dead"),
            "metrics_registry": registry,
        }
        client = BusinessTelemetryClient(sinks=list(sinks), **given | options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown_sync()


@pytest.fixture
def process_wide(monkeypatch, tmp_path):
    """Start without a process-wide client, in an empty folder, and end it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    yield
    bizlog.shutdown(timeout=5)


def identity_holds(scrape, *sink_types):
    """For sinks that take every event: received = sent + failed + buffer_size."""
    received = scrape.sum(RECEIVED)
    assert received > 0
    for sink_type in sink_types:
        parts = {
            name: scrape.sum(name, sink_type=sink_type)
            for name in (SENT, FAILED, BUFFER)
        }
        assert received == sum(parts.values()), (sink_type, parts)


def agrees_with_the_ledger(scrape, client):
    """Every number of the ledger stands in the scrape, and is the seed's sum."""
    for sink, account in client.ledger().sinks.items():
        for state in ("offered", "delivered", "rejected", "dead_lettered", "pending"):
            assert scrape.sum(LEDGER, sink=sink, state=state) == getattr(account, state)
        dropped = scrape.sum(LEDGER, sink=sink, state="dropped")
        assert dropped == sum(account.dropped.values())
        for reason, events in account.dropped.items():
            assert scrape.sum(LEDGER, sink=sink, reason=reason) == events
    accounts = client.ledger().sinks.values()
    assert scrape.sum(BUFFER) == sum(account.pending for account in accounts)
    assert scrape.sum(SENT) == sum(account.delivered for account in accounts)


# The identity


def test_a_scrape_sums_to_the_identity_under_load(make_client, registry):
    """
    No event is missing from the sums, and no scrape raises.

    Four threads emit, with invalid events among the others, into a queue that is too
    short, for two sinks of which one is faulty, while a scraper runs at full speed.
    """
    memory = MemorySink()
    error = PermanentSinkError("no")
    faulty = FaultySink(fail_calls=30, error=error, reject=(1, 4), retry=(2,))
    client = make_client(
        memory, faulty, queue_events=300, batch_size=40, flush_interval=0.01
    )
    emitting = threading.Event()
    faults = []

    def scrape():
        while not emitting.is_set():
            try:
                seen = Scrape(registry)
                assert seen.sum(BUFFER) >= 0
            except BaseException as error:
                faults.append(error)
                return

    def emit(number):
        log = bizlog.get_logger(client=client, source=f"thread-{number}")
        for turn in range(1_000):
            log.info("order.placed", order_id=turn)
            if turn % 10 == 0:
                log.info("order.placed", order_total="not a number")
            if turn % 25 == 0:
                log.info("something.else", note=object())

    scraper = threading.Thread(target=scrape)
    emitters = [threading.Thread(target=emit, args=(n,)) for n in range(4)]
    for thread in (scraper, *emitters):
        thread.start()
    for thread in emitters:
        thread.join()
    emitting.set()
    scraper.join()
    assert client.flush_sync(30)

    assert not faults
    seen = Scrape(registry)
    identity_holds(seen, "memory", "faulty")
    agrees_with_the_ledger(seen, client)
    offered = 4 * (1_000 + 100 + 40)
    assert seen.sum(RECEIVED) == offered
    assert seen.by("source", RECEIVED) == {f"thread-{n}": offered / 4 for n in range(4)}
    assert seen.by("event_type", RECEIVED)["something.else"] == 160
    assert seen.sum(FAILED, sink_type="memory", error_type="invalid") == 400
    assert seen.sum(FAILED, sink_type="faulty", error_type="PermanentSinkError") > 0
    assert seen.sum(FAILED, sink_type="faulty", error_type="rejected") > 0
    assert seen.sum(FAILED, sink_type="faulty", error_type="retry") == 0
    assert seen.sum(BUFFER) == 0


def test_the_identity_holds_after_a_deadline(make_client, registry):
    """What the sink did not take in time failed by `shutdown`, later events `closed`."""
    held, memory = HeldSink(), MemorySink()
    client = make_client(held, memory, batch_size=10)
    for number in range(20):
        client.send_sync("order.placed", order_id=number)
    assert held.entered.wait(30)
    assert not client.shutdown_sync(0.05)
    client.send_sync("order.placed")

    held.released.set()
    seen = Scrape(registry)
    identity_holds(seen, "held", "memory")
    agrees_with_the_ledger(seen, client)
    assert seen.sum(FAILED, sink_type="held", error_type="shutdown") == 20
    assert seen.sum(FAILED, sink_type="memory", error_type="closed") == 1


def test_events_that_wait_are_the_buffer(make_client, registry):
    """The gauge is what the ledger calls pending: in the queue, waiting, on the way."""
    stuck, memory = StuckSink(), MemorySink()
    client = make_client(stuck, memory, queue_events=50, batch_size=1, sink_timeout=60)
    client.send_sync("order.placed")
    assert stuck.entered.wait(30)
    for number in range(70):
        client.send_sync("order.placed", order_id=number)

    seen = Scrape(registry)
    stuck.released.set()
    identity_holds(seen, "stuck", "memory")
    assert seen.sum(BUFFER, sink_type="stuck") == 51
    assert seen.sum(FAILED, sink_type="stuck", error_type="queue_full") == 20
    assert client.flush_sync(30)
    identity_holds(Scrape(registry), "stuck", "memory")
    assert Scrape(registry).sum(BUFFER) == 0


def _drop(_, __, ___):
    raise structlog.DropEvent


def _fault(_, __, ___):
    raise KeyError("no")


def test_what_processors_and_values_do_is_received_and_failed(make_client, registry):
    """Dropped by a processor, refused for its name, emitted without end: all count."""
    client = make_client(MemorySink(), development=False, strict=True)
    log = bizlog.get_logger(client=client)

    class Talkative:
        def __str__(self):
            log.info("order.placed", note=self)
            return "said"

        __repr__ = __str__

    log.info("order.placed", order_id=1)
    log.info("order.placed", note=Talkative())
    log.info("no such event")
    log.info(5)
    log.info("")
    for processor in (_drop, _fault):
        dropping = bizlog.get_logger(client=client, processors=[processor])
        dropping.info("order.placed")
    assert client.flush_sync(30)

    seen = Scrape(registry)
    identity_holds(seen, "memory")
    agrees_with_the_ledger(seen, client)
    assert seen.sum(FAILED, error_type="processor") == 1
    assert seen.sum(FAILED, error_type="invalid") >= 3


def test_callers_at_their_recursion_limit_are_counted(make_client, registry):
    """Where no depth is left to look up a name, the event counts as `other`."""
    client = make_client(MemorySink(), overflow="block")
    log = bizlog.get_logger(client=client)
    log.info("order.placed", order_id=0)

    def descend(depth, **fields):
        if depth:
            descend(depth - 1, **fields)
        else:
            log.info("order.placed", **fields)

    limit = sys.getrecursionlimit()
    for fields in ({"order_id": "1"}, {"note": {"a": [object()]}}):
        for depth in range(limit - 150, limit):
            try:
                descend(depth, **fields)
            except RecursionError:
                break  # of the test's own calls
    assert client.flush_sync(30)

    seen = Scrape(registry)
    assert seen.by("event_type", RECEIVED).get(OTHER, 0) > 0
    identity_holds(seen, "memory")
    agrees_with_the_ledger(seen, client)


def test_each_lane_of_a_composite_has_its_ledger(make_client, registry):
    """A route takes its own events; offered is what was meant for the sink."""
    orders = MemorySink()
    client = make_client(CompositeSink(Route(orders, "order.*"), MemorySink()))
    for _ in range(3):
        client.send_sync("order.placed")
        client.send_sync("product.viewed")
    assert client.flush_sync(30)

    seen = Scrape(registry)
    agrees_with_the_ledger(seen, client)
    assert seen.sum(LEDGER, sink="memory", state="offered") == 3
    assert seen.sum(LEDGER, sink="memory-2", state="offered") == 6
    assert seen.sum(SENT, sink_type="memory") == 9


# Flushes and ages


def test_the_histogram_counts_the_batches_handed_over(make_client, registry):
    """One observation for each call of the sink's `deliver`, also for those that fail."""
    memory, faulty = MemorySink(), FaultySink(fail_calls=2)
    client = make_client(memory, faulty, batch_size=7)
    for number in range(100):
        client.send_sync("order.placed", order_id=number)
        if number % 30 == 0:
            assert client.flush_sync(30)
    assert client.flush_sync(30)

    seen = Scrape(registry)
    assert seen.sum(FLUSHES, sink_type="memory") == len(memory.batches) > 3
    assert seen.sum(FLUSHES, sink_type="faulty") == len(faulty.batches) + 2
    bucket = FLUSHES.replace("_count", "_bucket")
    assert seen.sum(bucket, sink_type="memory", le="+Inf") == len(memory.batches)


def test_the_oldest_event_ages_until_it_is_settled(make_client, registry):
    """A sink that holds its batch has an age that grows; one that keeps up has none."""
    held, memory = HeldSink(), MemorySink()
    client = make_client(held, memory, batch_size=1)
    assert Scrape(registry).by("sink", OLDEST) == {"held": 0, "memory": 0}
    began = time.monotonic()
    client.send_sync("order.placed")
    assert held.entered.wait(30)
    first = Scrape(registry).sum(OLDEST, sink="held")
    client.send_sync("order.placed")
    while client.ledger().sinks["memory"].pending:
        time.sleep(0.001)
    second = Scrape(registry)

    assert 0 < first < second.sum(OLDEST, sink="held") <= time.monotonic() - began
    assert second.sum(OLDEST, sink="memory") == 0
    held.released.set()
    assert client.flush_sync(30)
    assert Scrape(registry).by("sink", OLDEST) == {"held": 0, "memory": 0}


def test_an_event_that_nobody_has_looked_at_ages(make_client, registry):
    """While bizlog's thread is stuck, what waits in front of it has an age, too."""
    stuck, memory = StuckSink(), MemorySink()
    client = make_client(stuck, memory, batch_size=1, sink_timeout=60)
    # Not before the other sink has its event and the pump has gone to rest.
    stuck.may_block = lambda: len(memory.records) == 1 and not client._queue.awake
    client.send_sync("order.placed")
    assert stuck.entered.wait(30)
    assert Scrape(registry).sum(OLDEST, sink="memory") == 0
    began = time.monotonic()
    client.send_sync("order.placed")
    first = Scrape(registry).sum(OLDEST, sink="memory")
    second = Scrape(registry).sum(OLDEST, sink="memory")
    stuck.released.set()

    assert 0 < first < second <= time.monotonic() - began
    assert client.flush_sync(30)
    assert Scrape(registry).sum(OLDEST) == 0


# Caps


def test_hostile_names_and_sources_have_201_series_each(make_client, registry):
    """1,000 names and sources of any text: 201 values a label, and the sum is whole."""
    client = make_client(MemorySink(), queue_events=10_000)
    ends = ('"', "\\", "\n", "\x00", "\ud800", "{}", "ü", "x" * 500)
    for number in range(1_000):
        end = ends[number % len(ends)]
        source = f"source-{number}{end}"
        bizlog.get_logger(client=client, source=source).info(f"name.{number}{end}")
    assert client.flush_sync(30)

    seen = Scrape(registry)
    for label in ("source", "event_type"):
        numbers = seen.by(label, RECEIVED)
        assert LABEL_VALUES <= len(numbers) <= LABEL_VALUES + 1
        assert numbers[OTHER] >= 1_000 - LABEL_VALUES
    assert seen.sum(RECEIVED) == 1_000
    identity_holds(seen, "memory")


def test_a_sink_with_1000_kinds_of_errors_has_201_series(make_client, registry):
    """Whatever classes a sink raises, they are counted, and the further ones together."""

    class Inventive(BaseSink):
        raised = 0

        async def deliver(self, batch):
            self.raised += 1
            raise type(f'Error{self.raised}"\n', (PermanentSinkError,), {})("no")

    sink = Inventive()
    sink.max_events = 1
    client = make_client(sink)
    for number in range(1_000):
        client.send_sync("order.placed", order_id=number)
    assert client.flush_sync(50)

    seen = Scrape(registry)
    numbers = seen.by("error_type", FAILED)
    assert sink.raised == sum(numbers.values()) == 1_000
    assert len(numbers) <= LABEL_VALUES + 1
    assert numbers['Error1"\n'] == 1
    assert numbers[OTHER] >= 1_000 - LABEL_VALUES
    identity_holds(seen, "inventive")


# Which registry


def test_the_process_wide_client_is_in_the_global_registry(process_wide):
    """`configure()` alone is enough for a service that serves `generate_latest()`."""
    client = bizlog.configure(source="global-one", sinks=[MemorySink()])
    bizlog.get_logger().info("order.placed")
    assert bizlog.flush(30)

    seen = Scrape(prometheus_client.REGISTRY)
    assert client.settings.metrics_registry is None
    assert seen.sum(RECEIVED, source="global-one") == 1


def test_an_implicit_configuration_is_shown_as_well(process_wide, monkeypatch):
    """The first event configures bizlog, and the metrics with it."""
    monkeypatch.setenv("BIZLOG_SOURCE", "implicit-one")
    monkeypatch.setenv("BIZLOG_SINKS", "null:")
    bizlog.get_logger().info("order.placed")
    assert bizlog.flush(30)

    assert Scrape(prometheus_client.REGISTRY).sum(RECEIVED, source="implicit-one") == 1


def test_a_registry_can_be_named(process_wide, registry):
    """`metrics_registry=` shows the process-wide client there and not globally."""
    bizlog.configure(source="named", sinks=[MemorySink()], metrics_registry=registry)
    bizlog.get_logger().info("order.placed")
    assert bizlog.flush(30)

    assert Scrape(registry).sum(RECEIVED, source="named") == 1
    assert Scrape(prometheus_client.REGISTRY).sum(RECEIVED, source="named") == 0


def test_configuring_again_and_again_shows_the_newest(process_wide, registry):
    """No "Duplicated timeseries"; the new client is seen, those that are gone are not."""
    for number in range(4):
        bizlog.configure(
            source=f"turn-{number}", sinks=[MemorySink()], metrics_registry=registry
        )
        bizlog.get_logger().info("order.placed")
        assert bizlog.flush(30)
        assert Scrape(registry).sum(RECEIVED, source=f"turn-{number}") == 1
    gc.collect()

    assert Scrape(registry).by("source", RECEIVED) == {"turn-3": 1}


def test_a_client_of_its_own_registers_only_when_told(tmp_path):
    """`BusinessTelemetryClient(...)` leaves the global registry alone."""
    with BusinessTelemetryClient(
        source="own", sinks=["null:"], dead_letters=str(tmp_path)
    ) as client:
        client.send_sync("order.placed")

    assert Scrape(prometheus_client.REGISTRY).sum(RECEIVED, source="own") == 0


def test_clients_in_one_registry_add_up(make_client, registry):
    """Two clients, one scrape; one that is gone is shown no more."""
    stays = make_client(MemorySink(), source="stays")
    for _ in range(2):
        stays.send_sync("order.placed")
    with BusinessTelemetryClient(
        source="goes", sinks=[MemorySink()], metrics_registry=registry
    ) as goes:
        goes.send_sync("order.placed")
        assert stays.flush_sync(30) and goes.flush_sync(30)
        assert Scrape(registry).sum(SENT, sink_type="memory") == 3
    del goes
    gc.collect()

    seen = Scrape(registry)
    assert seen.by("source", RECEIVED) == {"stays": 2}
    assert seen.sum(SENT, sink_type="memory") == 2


def test_after_shutdown_the_numbers_stay(make_client, registry):
    """A last scrape tells how it ended, and a later event is a counted loss."""
    client = make_client(MemorySink())
    client.send_sync("order.placed")
    client.shutdown_sync()
    client.send_sync("order.placed")

    seen = Scrape(registry)
    assert seen.sum(SENT) == 1
    assert seen.sum(FAILED, error_type="closed") == 1
    identity_holds(seen, "memory")


@pytest.mark.parametrize("wrong", ["default", 5, object(), prometheus_client])
def test_a_registry_is_a_collector_registry(wrong):
    """Anything else is refused with what was expected."""
    with pytest.raises(ConfigurationError, match=r"prometheus_client\.CollectorReg"):
        BusinessTelemetryClient(source="x", sinks=["null:"], metrics_registry=wrong)


# In processes of their own


def run(folder, script):
    """Run a script in a fresh interpreter and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


LOADED = "print('prometheus_client' in sys.modules);"


@pytest.mark.parametrize(
    "first_use",
    [
        "bizlog.configure(source='x', sinks=['null:'])",
        "bizlog.get_logger().info('order.placed')",
    ],
)
def test_prometheus_client_comes_with_the_first_configuration(tmp_path, first_use):
    """`import bizlog` does not load it; the first configuration does."""
    script = f"import sys, bizlog; log = bizlog.get_logger(); {LOADED} {first_use};"

    assert run(tmp_path, script + LOADED) == ["False", "True"]


@pytest.mark.parametrize(
    "use",
    [
        "bizlog.configure(source='x', disabled=True); log.info('order.placed')",
        "bizlog.BusinessTelemetryClient(source='x', sinks=['null:']).send_sync('a.b')",
    ],
)
def test_prometheus_client_does_not_come_where_nothing_is_shown(tmp_path, use):
    """Switched off, or a client without a registry: it is not imported at all."""
    script = f"import sys, bizlog; log = bizlog.get_logger(); {use};"

    assert run(tmp_path, script + LOADED) == ["False"]


def test_without_prometheus_client_events_flow_all_the_same(tmp_path):
    """A broken installation costs the metrics and one line, no event, no exception."""
    script = (
        "import sys; sys.modules['prometheus_client'] = None; import bizlog;"
        "bizlog.configure(source='x', sinks=['null:']);"
        "bizlog.get_logger().info('order.placed'); bizlog.flush();"
        "print(bizlog.ledger().sinks['null'].delivered)"
    )

    assert run(tmp_path, script) == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_can_be_scraped(tmp_path):
    """The collector has nothing that a fork could leave locked."""
    script = """
import os, sys, warnings, bizlog
from prometheus_client import generate_latest
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside bizlog's thread
bizlog.configure(source="x", sinks=["null:"])
bizlog.get_logger().info("order.placed")
bizlog.flush()
child = os.fork()
if not child:
    print(b"bizlog_ledger_events" in generate_latest(), flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], b"bizlog_ledger_events" in generate_latest())
"""

    assert run(tmp_path, script) == ["True", "0", "True"]
