"""From the client's emit to its sinks: faults, fan-out, deadlines, and a closed ledger."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import signal
import sys
import threading
import time

import pytest

import bizlog
from bizlog import BusinessTelemetryClient, Route
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import BaseSink
from bizlog.testing import FaultySink, MemorySink
from bizlog_handlers.composite import CompositeSink

SLACK = 0.5


def our_threads():
    """List bizlog's threads that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("bizlog")]


def wait_until(condition, timeout=20.0):
    """Wait in real time until something holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


@pytest.fixture
def folder(tmp_path):
    """The dead-letter folder of the clients."""
    return tmp_path / "dead"


@pytest.fixture
def make_client(folder):
    """Make clients; all are shut down, and no thread may stay."""
    made = []

    def make(*sinks, **options):
        given = {"source": "test", "dead_letters": str(folder), "shutdown_timeout": 5.0}
        client = BusinessTelemetryClient(sinks=list(sinks), **given | options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown_sync()
    wait_until(lambda: not our_threads())


@pytest.fixture
def letters(folder):
    """Read all dead letters of all clients."""
    return lambda: [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def ids(records):
    """Name records by their event id."""
    return [record.event_id for record in records]


def account(client, name):
    """The figures of one sink: delivered, dead-lettered, dropped, pending."""
    sink = client.ledger().sinks[name]
    dropped = sum(sink.dropped.values())
    return sink.delivered, sink.dead_lettered, dropped, sink.pending


# Fan-out


def test_thousands_of_events_from_eight_threads_arrive_once(make_client):
    """No event twice, none missing; sequences 1..N without a gap, at every sink."""
    sinks = [MemorySink(), CompositeSink(MemorySink())]
    client = make_client(*sinks, overflow="block", block_timeout=60.0)
    each = 1_500

    def emit(thread):
        for number in range(each):
            client.send_sync("order.placed", order_id=f"{thread}-{number}")

    threads = [threading.Thread(target=emit, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush_sync(60)

    member = sinks[1].routes()[0].sink
    for sink in (sinks[0], member):
        assert sorted(r.sequence for r in sink.records) == list(range(1, 8 * each + 1))
        assert len({event["order_id"] for event in sink.events}) == 8 * each
    assert client.ledger().closed
    assert client.shutdown_sync()


def test_events_of_one_thread_keep_their_order(make_client):
    """What one caller emits one after the other arrives in that order."""
    sink = MemorySink()
    client = make_client(sink)
    for number in range(2_000):
        client.send_sync("order.placed", order_id=str(number))
    client.flush_sync(20)

    assert [event["order_id"] for event in sink.events] == [
        str(number) for number in range(2_000)
    ]


def test_batches_of_all_sinks_have_names_that_tile_one_journal(make_client):
    """(journal, first, last): unique at a sink, without gap, the journal's for all."""
    one, two = MemorySink(), MemorySink()
    one.max_events = 7
    client = make_client(one, two, batch_size=5)
    for _ in range(100):
        client.send_sync("order.placed")
    client.flush_sync(20)

    for sink in (one, two):
        assert len({batch.name for batch in sink.batches}) == len(sink.batches)
        spans = [(batch.first, batch.last) for batch in sink.batches]
        assert spans[0][0] == 0 and spans[-1][1] == 99
        assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(spans))
    assert one.batches[0].journal_id == two.batches[0].journal_id


def test_a_sink_that_hangs_does_not_hold_the_others(make_client, letters):
    """Beside a hanging sink the live one gets everything while it hangs."""
    live, hanging = MemorySink(), FaultySink(delay=60)
    client = make_client(live, hanging, flush_interval=0.01)
    for _ in range(500):
        client.send_sync("order.placed")
    wait_until(lambda: len(live.records) == 500)

    assert account(client, "memory") == (500, 0, 0, 0)
    assert account(client, "faulty") == (0, 0, 0, 500)
    assert client.ledger().balanced

    client.shutdown_sync(0.1)
    assert account(client, "faulty") == (0, 500, 0, 0)
    assert len({letter["event_id"] for letter in letters()}) == 500
    assert client.ledger().closed


class BlockingCalls(BaseSink):
    """Makes blocking calls that never return in time, through `to_thread`."""

    max_events = 1
    max_in_flight = 12

    def __init__(self):
        self.release = threading.Event()
        self.blocked = []

    def block(self, events):
        self.blocked.append(events)
        self.release.wait(30)

    async def send_batch(self, events):
        await asyncio.to_thread(self.block, events)


def test_a_sink_whose_threads_hang_does_not_take_those_of_others(make_client, letters):
    """Blocking calls that outlive sink_timeout keep their threads; others get new ones."""

    class ThreadedSink(MemorySink):
        async def deliver(self, batch):
            await asyncio.to_thread(time.sleep, 0)
            return await super().deliver(batch)

    hanging, live = BlockingCalls(), ThreadedSink()
    client = make_client(
        hanging,
        live,
        flush_interval=0.001,
        sink_timeout=0.02,
        batch_size=1,
        max_in_flight=12,
    )
    try:
        for _ in range(12):
            client.send_sync("order.placed")
        wait_until(lambda: len(hanging.blocked) > 8)  # more than threads at the start
        wait_until(lambda: len(live.records) == 12)
        assert account(client, "blockingcalls") == (0, 0, 0, 12)
    finally:
        hanging.release.set()
    assert client.flush_sync(30)
    assert account(client, "blockingcalls") == (12, 0, 0, 0)
    assert letters() == []


def test_only_the_slow_sink_gives_up_events(make_client):
    """lane_full is counted at the lane that stays behind, and nowhere else."""
    live, slow = MemorySink(), FaultySink(delay=60)
    client = make_client(live, slow, queue_events=100, flush_interval=0.001)
    for number in range(1_000):
        client.send_sync("order.placed")
        if number % 50 == 0:
            wait_until(lambda n=number: len(live.records) >= n)
    wait_until(lambda: len(live.records) == 1_000)

    ledger = client.ledger()
    assert ledger.balanced
    assert ledger.sinks["memory"].dropped == {}
    assert ledger.sinks["faulty"].dropped["lane_full"] >= 600
    client.shutdown_sync(0.1)
    assert client.ledger().closed


@pytest.mark.parametrize("bound", [{"queue_events": 50}, {"queue_bytes": 10_000}])
@pytest.mark.parametrize("sinks", [1, 2])
def test_slow_sinks_with_block_lose_nothing(make_client, bound, sinks):
    """`overflow="block"`: the callers wait for sinks that are slow, all alike."""
    slow = [FaultySink(delay=0.002) for _ in range(sinks)]
    for sink in slow:
        sink.max_events = 20
    client = make_client(
        *slow, overflow="block", block_timeout=60.0, batch_size=10, **bound
    )
    for _ in range(1_000):
        assert client.send_sync("order.placed")
    assert client.flush_sync(60)

    for sink in slow:
        assert [r.sequence for r in sink.records] == list(range(1, 1_001))
    assert client.ledger().closed


def test_a_slow_sink_with_drop_newest_counts_what_it_loses(make_client):
    """What does not fit is dropped{queue_full}; the rest arrives."""
    sink = FaultySink(delay=0.05)
    sink.max_events = 10
    client = make_client(sink, queue_events=20, batch_size=10)
    taken = sum(client.send_sync("order.placed") is not None for _ in range(500))
    assert client.flush_sync(60)

    ledger = client.ledger().sinks["faulty"]
    assert ledger.dropped == {"queue_full": 500 - taken}
    assert ledger.delivered == taken < 500
    assert client.ledger().closed


def test_drop_oldest_keeps_the_newest(make_client):
    """The last events of a burst arrive, the lost ones are counted."""
    sink = FaultySink(delay=0.02)
    client = make_client(sink, queue_events=20, overflow="drop_oldest")
    for _ in range(500):
        assert client.send_sync("order.placed")
    assert client.flush_sync(60)

    assert [r.sequence for r in sink.records][-20:] == list(range(481, 501))
    assert client.ledger().closed


# Triggers


def test_flush_interval_sends_without_a_flush(make_client):
    """A single event goes after the interval, on its own."""
    sink = MemorySink()
    client = make_client(sink, flush_interval=0.05)
    client.send_sync("order.placed")

    wait_until(lambda: sink.records)


def test_a_full_batch_is_sent_long_before_the_interval(make_client):
    """`batch_size` events do not wait."""
    sink = MemorySink()
    client = make_client(sink, batch_size=10, flush_interval=600.0)
    for _ in range(10):
        client.send_sync("order.placed")

    wait_until(lambda: len(sink.records) == 10)


def test_many_bytes_are_sent_long_before_the_interval(make_client):
    """So do as many bytes as the sink takes in one call."""
    sink = MemorySink()
    sink.max_bytes = 2_000
    client = make_client(sink, batch_size=1_000, flush_interval=600.0)
    for _ in range(12):
        client.send_sync("order.placed", order_id="x" * 200)

    wait_until(lambda: sink.records)
    assert all(batch.size <= 2_000 for batch in sink.batches)


def test_a_sinks_own_flush_interval_comes_first(make_client):
    """The console is instant whatever the setting says."""
    instant, patient = MemorySink(), MemorySink()
    instant.flush_interval = 0.0
    client = make_client(instant, patient, flush_interval=600.0)
    client.send_sync("order.placed")

    wait_until(lambda: instant.records)
    assert patient.records == []


# Faults


class Meltdown(BaseException):
    """Of the kind that `except Exception` does not see."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        asyncio.CancelledError(),
        Meltdown(),
        KeyboardInterrupt(),
        SystemExit(3),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_batch_whose_call_raises_is_sent_again(make_client, letters, error):
    """Whatever it is: no event is lost or doubled, and the order is kept."""
    faulty, live = FaultySink(fail_calls=1, error=error), MemorySink()
    client = make_client(faulty, live)
    first = [client.send_sync("order.placed") for _ in range(3)]
    assert client.flush_sync(10)
    second = [client.send_sync("order.placed") for _ in range(2)]
    assert client.flush_sync(10)

    assert ids(faulty.records) == first + second
    assert ids(live.records) == first + second
    assert account(client, "faulty") == (5, 0, 0, 0)
    assert letters() == []


def test_a_batch_that_is_refused_is_kept_as_dead_letters(make_client, letters):
    """What a sink refuses for good: siblings and later batches are delivered."""
    error = PermanentSinkError("no such table")
    faulty, live = FaultySink(fail_start=1, error=error), MemorySink()
    client = make_client(faulty, live)
    first = [client.send_sync("order.placed") for _ in range(3)]
    assert client.flush_sync(10)
    second = [client.send_sync("order.placed") for _ in range(2)]
    assert client.flush_sync(10)

    assert [letter["event_id"] for letter in letters()] == first
    assert {letter["sink"] for letter in letters()} == {"faulty"}
    assert ids(faulty.records) == second
    assert ids(live.records) == first + second
    assert account(client, "faulty") == (2, 3, 0, 0)
    assert client.ledger().closed


def test_a_call_beyond_sink_timeout_is_made_again(make_client, letters):
    """Its batch waits; when the sink recovers it gets this one and the next."""
    sink = FaultySink(delay=60)
    client = make_client(sink, sink_timeout=0.05, flush_interval=0.001)
    first = client.send_sync("order.placed")
    wait_until(lambda: client._lanes[0].failures)
    assert account(client, "faulty") == (0, 0, 0, 1)
    sink._delay = 0
    second = client.send_sync("order.placed")
    assert client.flush_sync(30)

    assert account(client, "faulty") == (2, 0, 0, 0)
    assert ids(sink.records) == [first, second]
    assert letters() == []


def test_what_ran_into_sink_timeout_says_so(make_client, letters):
    """The dead letter of an event that the end cut off names what held it up."""
    client = make_client(FaultySink(delay=60), sink_timeout=0.05, batch_size=1)
    client.send_sync("order.placed")
    wait_until(lambda: client._lanes[0].failures)
    assert not client.shutdown_sync(0.1)

    (letter,) = letters()
    assert "TimeoutError: no answer within 0.05 s" in letter["reason"]
    assert client.ledger().closed


def test_a_sink_that_cannot_start_is_tried_again(make_client, letters):
    """The events wait for it, in order."""
    sink = FaultySink(fail_start=2)
    client = make_client(sink)
    sent = []
    for _ in range(4):
        sent.append(client.send_sync("order.placed"))
        assert client.flush_sync(30)

    assert sink.calls.count("start") == 3
    assert ids(sink.records) == sent
    assert letters() == []


def test_partial_rejections_cost_only_those_events(make_client, letters):
    """Refused ones become dead letters, those to retry arrive later, once."""
    sink = FaultySink(reject=(1, 3, 99), retry=(4,))
    client = make_client(sink)
    sent = [client.send_sync("order.placed") for _ in range(6)]
    assert client.flush_sync(10)

    assert [letter["event_id"] for letter in letters()] == [sent[i] for i in (1, 3)]
    assert ids(sink.records) == [sent[i] for i in (0, 2, 5, 4)]
    assert client.ledger().closed


def test_a_dead_letter_holds_the_event_as_it_was_sent(make_client, letters):
    """Privacy policies applied, money exact, ready to be replayed."""
    client = make_client(FaultySink(fail_calls=None, error=PermanentSinkError("no")))
    client.send_sync("order.placed", order_id="42", customer_name="Ada Lovelace")
    client.flush_sync(10)

    (letter,) = letters()
    assert letter["record"]["order_id"] == "42"
    assert letter["record"]["event_id"] == letter["event_id"]
    assert "Lovelace" not in json.dumps(letter)


@pytest.mark.parametrize("rejected", [1, 7])
def test_refused_events_are_counted_and_kept_once(make_client, letters, rejected):
    """Invalid events: `rejected` in the ledger, one dead letter each, no sink named."""
    sinks = MemorySink(), MemorySink()
    client = make_client(*sinks)
    for _ in range(rejected):
        assert client.send_sync("product.viewed", product_price=True) is None
    client.send_sync("product.viewed", product_price=1)
    assert client.flush_sync(10)

    assert len(letters()) == rejected
    assert letters()[0]["sink"] is None
    assert letters()[0]["path"] == "$.product_price"
    for name in client.ledger().sinks.values():
        assert (name.rejected, name.delivered) == (rejected, 1)
    assert client.ledger().closed


# Routes


def test_routes_by_name_pattern_and_predicate(make_client):
    """Each member of a composite gets its events and no others."""
    by_name, by_pattern, by_both, rest = (MemorySink() for _ in range(4))
    client = make_client(
        CompositeSink(
            Route(by_name, ["order.placed", "order.failed"]),
            Route(by_pattern, "product.*"),
            Route(by_both, "order.*", lambda event: event.get("order_id") == "7"),
            rest,
        )
    )
    for name, order in (
        ("order.placed", "7"),
        ("order.placed", "8"),
        ("order.returned", "7"),
        ("product.viewed", None),
        ("order.failed", None),
    ):
        client.send_sync(name, **({"order_id": order} if order else {}))
    assert client.flush_sync(10)

    def names(sink):
        return [record.event_type for record in sink.records]

    assert names(by_name) == ["order.placed", "order.placed", "order.failed"]
    assert names(by_pattern) == ["product.viewed"]
    assert names(by_both) == ["order.placed", "order.returned"]
    assert len(rest.records) == 5
    offered = [sink.offered for sink in client.ledger().sinks.values()]
    assert offered == [3, 1, 2, 5]
    assert client.ledger().closed


def test_a_predicate_that_raises_keeps_its_event(make_client, letters):
    """It goes to that sink's dead letters; other routes are not affected."""
    picky, all_of_them = MemorySink(), MemorySink()
    client = make_client(
        CompositeSink(Route(picky, when=lambda event: event["order_id"] == "7")),
        all_of_them,
    )
    client.send_sync("order.placed", order_id="7")
    missing = client.send_sync("order.placed")
    assert client.flush_sync(10)

    assert len(picky.records) == 1
    assert len(all_of_them.records) == 2
    assert [letter["event_id"] for letter in letters()] == [missing]
    assert client.ledger().closed


def test_nested_composites_become_one_lane_for_each_sink(make_client):
    """Conditions join on the way down; a slow member holds up no other."""
    inner, outer, slow = MemorySink(), MemorySink(), FaultySink(delay=60)
    nested = CompositeSink(Route(inner, when=lambda e: e["order_id"] == "1"), slow)
    client = make_client(
        CompositeSink(Route(nested, "order.*"), outer), flush_interval=0.001
    )
    client.send_sync("order.placed", order_id="1")
    client.send_sync("order.placed", order_id="2")
    client.send_sync("product.viewed")
    wait_until(lambda: len(outer.records) == 3 and len(inner.records) == 1)

    assert len(client.ledger().sinks) == 3
    client.shutdown_sync(0.1)
    assert account(client, "faulty")[:2] == (0, 2)
    assert client.ledger().closed


def test_sinks_of_one_class_have_names_of_their_own(make_client):
    """The ledger tells two sinks of a kind apart."""
    client = make_client(MemorySink(), MemorySink(), MemorySink())

    assert list(client.ledger().sinks) == ["memory", "memory-2", "memory-3"]


# Sinks in the seed's form


class SeedForm:
    """The seed's five methods and nothing else."""

    def __init__(self):
        self.events = []
        self.calls = []

    async def start(self):
        self.calls.append("start")

    async def stop(self):
        self.calls.append("stop")

    async def send(self, event):
        self.events.append(event)

    async def send_batch(self, events):
        for event in events:
            await self.send(event)

    async def flush(self):
        self.calls.append("flush")


class SendOnly(BaseSink):
    """Overrides `send`, as the seed's example does."""

    def __init__(self):
        self.events = []

    async def send(self, event):
        self.events.append(event)


@pytest.mark.parametrize("kind", [SeedForm, SendOnly])
def test_sinks_in_the_seeds_form_get_dictionaries(make_client, kind):
    """Written to the seed's signatures a sink works unchanged."""
    sink = kind()
    client = make_client(sink)
    sent = [client.send_sync("order.placed", order_id=str(n)) for n in range(3)]
    assert client.flush_sync(10)
    assert client.shutdown_sync()

    assert [event["event_id"] for event in sink.events] == sent
    assert client.ledger().closed
    if kind is SeedForm:
        assert sink.calls == ["start", "flush", "flush", "stop"]


# Flush and shutdown


def test_flush_and_shutdown_inside_the_hosts_loop_do_not_block_it(make_client):
    """The async forms wait without stopping the host's event loop."""
    sink, ticks = FaultySink(delay=0.2), []
    client = make_client(sink)

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.create_task(tick())
        await client.send("order.placed")
        flushed = await client.flush(10)
        shut = await client.shutdown(10)
        ticking.cancel()
        return flushed, shut

    assert asyncio.run(main()) == (True, True)
    assert len(ticks) > 5
    assert len(sink.records) == 1


def test_flush_from_several_loops_at_once(make_client):
    """Each thread with a loop of its own may flush the one client."""
    sink, answers = MemorySink(), []
    client = make_client(sink)

    async def work():
        for _ in range(20):
            await client.send("order.placed")
            answers.append(await client.flush(20))

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [True] * 80
    assert len(sink.records) == 80


def test_flush_ends_while_eight_threads_go_on_emitting(make_client):
    """It settles what was offered before it, not what comes after."""
    client, stop = make_client(MemorySink(), overflow="block"), threading.Event()

    def emit():
        while not stop.is_set():
            client.send_sync("order.placed")

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert client.flush_sync(30)
        assert client.flush_sync(30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert client.shutdown_sync(30)
    assert client.ledger().closed


def test_a_sink_that_emits_and_flushes_does_not_deadlock(make_client):
    """Inside a sink `flush` is False at once and `block` does not wait."""
    answers = []

    class Chatty(MemorySink):
        async def deliver(self, batch):
            if not answers:
                answers.append(client.flush_sync(30))
                for _ in range(30):
                    client.send_sync("admin.failed")
            return await super().deliver(batch)

    sink = Chatty()
    client = make_client(sink, queue_events=10, overflow="block", block_timeout=30.0)
    client.send_sync("order.placed")
    begun = time.monotonic()
    assert client.flush_sync(20)
    assert client.flush_sync(20)

    assert time.monotonic() - begun < 10
    assert answers == [False]
    assert len(sink.records) == 11
    assert client.ledger().sinks["chatty"].dropped == {"queue_full": 20}
    assert client.ledger().closed


class LoopBlocker(MemorySink):
    """Blocks bizlog's loop as a sink must not."""

    async def deliver(self, batch):
        time.sleep(1.5)
        return await super().deliver(batch)


@pytest.mark.parametrize(
    "make_sink",
    [lambda: FaultySink(delay=60), LoopBlocker, lambda: FaultySink(fail_calls=None)],
    ids=["hanging", "blocking", "refusing"],
)
def test_shutdown_keeps_its_deadline(make_client, letters, make_sink):
    """Deadline + 0.5 s at most, and every event is kept as a dead letter."""
    client = make_client(make_sink(), batch_size=10, flush_interval=0.001)
    sent = {client.send_sync("order.placed") for _ in range(250)}
    time.sleep(0.05)

    begun = time.monotonic()
    client.shutdown_sync(0.5)
    assert time.monotonic() - begun < 0.5 + SLACK

    assert client.ledger().closed
    assert {letter["event_id"] for letter in letters()} == sent
    wait_until(lambda: not our_threads())
    assert client.ledger().closed  # also after the sink came back


def test_shutdown_leaves_no_thread(make_client):
    """Not the pump's, not the blocking calls'."""
    client = make_client(MemorySink())
    client.send_sync("order.placed")
    assert our_threads()

    assert client.shutdown_sync()
    wait_until(lambda: not our_threads())


def test_events_after_shutdown_are_counted(make_client):
    """They are dropped{closed}: no exception, no thread, no silence."""
    client = make_client(MemorySink())
    client.send_sync("order.placed")
    client.shutdown_sync()

    assert client.send_sync("order.placed") is None
    assert client.ledger().sinks["memory"].dropped == {"closed": 1}
    assert client.ledger().closed


def test_two_clients_side_by_side(make_client, letters):
    """A hanging client's events are its own; the other one is not touched."""
    hanging, live = FaultySink(delay=60), MemorySink()
    one, two = make_client(hanging), make_client(live)
    sent = {one.send_sync("order.placed") for _ in range(3)}
    for _ in range(5):
        two.send_sync("order.placed")

    assert two.flush_sync(10)
    assert not one.shutdown_sync(0.1)
    assert two.shutdown_sync(10)

    assert len(live.records) == 5
    assert [record.sequence for record in live.records] == [1, 2, 3, 4, 5]
    assert {letter["event_id"] for letter in letters()} == sent
    assert one.ledger().closed and two.ledger().closed


def test_configuring_anew_delivers_what_the_old_one_holds(folder):
    """A second `configure` drains the old lanes, then swaps."""
    old, new = MemorySink(), MemorySink()
    options = {"source": "t", "dead_letters": str(folder), "flush_interval": 600.0}
    try:
        bizlog.configure(sinks=[old], **options)
        log = bizlog.get_logger()
        log.info("order.placed", order_id="1")
        bizlog.configure(sinks=[new], **options)
        log.info("order.placed", order_id="2")
        assert bizlog.flush(10)
    finally:
        bizlog.shutdown(10)

    assert [event["order_id"] for event in old.events] == ["1"]
    assert [event["order_id"] for event in new.events] == ["2"]


# Any thread, any moment


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_a_signal_handler_emits_inside_an_emit(make_client, overflow):
    """No deadlock, and every event of handler and main code in one place."""
    sink, offered = MemorySink(), collections.Counter()
    client = make_client(
        sink, queue_events=64, overflow=overflow, block_timeout=0.01, batch_size=10
    )

    def handler(*_):
        offered["handler"] += 1
        client.send_sync("admin.failed")

    handler()
    assert client.flush_sync(20)  # the first event takes longer than a signal's pause
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            offered["main"] += 1
            client.send_sync("order.placed")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.flush_sync(20)

    ledger = client.ledger().sinks["memory"]
    assert offered["handler"] > 10
    assert ledger.offered == offered.total()
    assert ledger.delivered == len(sink.records)
    assert client.ledger().closed


def test_shutdown_while_eight_threads_emit(make_client):
    """Each event was delivered or counted as closed or full, whatever the moment."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            sink, stop = MemorySink(), threading.Event()
            client = make_client(sink)

            def emit(client=client, stop=stop):
                while not stop.is_set():
                    client.send_sync("order.placed")

            threads = [threading.Thread(target=emit) for _ in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(0.05)
            client.shutdown_sync(10)
            time.sleep(0.01)
            stop.set()
            for thread in threads:
                thread.join()
            ledger = client.ledger()
            assert ledger.closed, str(ledger)
            assert len(sink.records) == ledger.sinks["memory"].delivered
    finally:
        sys.setswitchinterval(interval)
