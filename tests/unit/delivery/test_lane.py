"""A lane, in virtual time: when it sends, and what becomes of each event."""

from __future__ import annotations

import asyncio
import errno

import pytest

from bizlog.delivery.policy import UNCLEAR_ATTEMPTS
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import BaseSink, Rejection, Route, SendResult, as_sink
from bizlog.testing import FaultySink, MemorySink

# When it sends


def test_a_full_batch_goes_at_once(drive, make_records):
    """`batch_size` events are sent without waiting; one less waits."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.settle(1.0)
        assert sink.batches == []
        rig.add(make_records(1))
        await rig.settle()
        assert len(sink.records) == 3

    drive(sink, scenario, batch_size=3)


def test_enough_bytes_go_at_once(drive, make_record):
    """The limit in bytes triggers as well."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add([make_record(size=400)])
        await rig.settle(1.0)
        assert sink.batches == []
        rig.add([make_record(size=600)])
        await rig.settle()
        assert len(sink.records) == 2

    drive(sink, scenario, batch_bytes=1_000)


def test_the_oldest_event_waits_flush_interval_at_most(drive, make_records):
    """After 5 s what has gathered goes, and later events did not prolong that."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(1))
        await rig.settle(3.0)
        rig.add(make_records(1))
        await rig.settle(1.9)
        assert sink.batches == []
        await rig.settle(0.2)
        assert [len(batch.records) for batch in sink.batches] == [2]

    drive(sink, scenario, flush_interval=5.0)


def test_an_idle_lane_does_not_call_its_sink(drive):
    """No events: not even `start`; and `stop` is not called on what never started."""
    sink = MemorySink()

    async def scenario(rig):
        await rig.settle(100.0)

    drive(sink, scenario)
    assert sink.calls == []


def test_what_gathered_meanwhile_goes_along_up_to_the_sinks_limit(drive, make_records):
    """`batch_size` is a trigger; the sink's `max_events` is the limit of one call."""
    sink = MemorySink()
    sink.max_events = 10

    async def scenario(rig):
        rig.add(make_records(25))
        await rig.settle()
        assert [len(batch.records) for batch in sink.batches] == [10, 10]
        await rig.settle(5.1)

    drive(sink, scenario, batch_size=10)
    assert [len(batch.records) for batch in sink.batches] == [10, 10, 5]


def test_a_batch_stays_within_the_sinks_bytes(drive, make_record):
    """`max_bytes` bounds a call; a larger single event goes alone."""
    sink = MemorySink()
    sink.max_bytes = 1_000

    async def scenario(rig):
        rig.add([make_record(size=size) for size in (600, 300, 200, 5_000, 100)])
        await rig.lane.flush()

    drive(sink, scenario, batch_bytes=1_000)
    sizes = [[len(record.data) for record in batch.records] for batch in sink.batches]
    assert sizes == [[600, 300], [200], [5_000], [100]]


def test_batches_have_stable_names_that_tile_the_journal(drive, make_records):
    """(journal, first, last) of each batch: no gap, no overlap, one name each."""
    sink = MemorySink()
    sink.max_events = 4

    async def scenario(rig):
        rig.add(make_records(10))
        await rig.lane.flush()

    rig = drive(sink, scenario, batch_size=4)
    spans = [(batch.first, batch.last) for batch in sink.batches]
    assert spans == [(0, 3), (4, 7), (8, 9)]
    journal_id = rig.journal.journal_id
    assert sink.batches[1].name == f"{journal_id}-4-7"


# What becomes of events


def test_start_comes_first_and_stop_last(drive, make_records):
    """start, deliver…, flush, stop: each of the frame's calls once."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()
        rig.add(make_records(2))
        await rig.lane.flush()

    rig = drive(sink, scenario)
    assert sink.calls == ["start", "flush", "flush", "stop"]
    assert rig.account == (4, 0, 0, 0, 0)


class RaisingSink(MemorySink):
    """Raises at each call of one method."""

    def __init__(self, method, error, plain=False):
        super().__init__()
        self.method, self.error, self.plain = method, error, plain
        if plain:  # a method that was meant to be async, and raises at once
            setattr(self, method, self.fail)

    def fail(self, *_):
        raise self.error

    def recover(self):
        if self.plain:
            delattr(self, self.method)
        self.method = None

    async def start(self):
        await super().start()
        if self.method == "start":
            raise self.error

    async def deliver(self, batch):
        if self.method == "deliver":
            raise self.error
        return await super().deliver(batch)

    async def flush(self):
        await super().flush()
        if self.method == "flush":
            raise self.error

    async def stop(self):
        await super().stop()
        if self.method == "stop":
            raise self.error


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


ANYTHING = [
    ValueError("x"),
    asyncio.CancelledError(),
    TimeoutError("the sink's own"),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    StopIteration(),
    StopAsyncIteration(),
    BaseExceptionGroup("two", [ValueError("a"), KeyboardInterrupt()]),
    Unprintable(),
    OSError("/data/\udcff"),
    MemoryError(),
]


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_deliver_raises_is_tried_again(
    drive, make_records, letters, error, plain
):
    """The lane lives on, and when the sink is well nothing is lost or doubled."""
    sink, records = RaisingSink("deliver", error, plain), make_records(3)

    async def scenario(rig):
        rig.add(records[:2])
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(5.0)
        rig.add(records[2:])
        assert rig.account == (0, 0, 0, 0, 3)
        assert 2 < rig.lane.failures < UNCLEAR_ATTEMPTS
        sink.recover()
        assert await flush
        assert await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.account == (3, 0, 0, 0, 0)
    assert sink.records == records
    assert letters() == []


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_start_raises_is_tried_again(
    drive, make_records, letters, error, plain
):
    """The events wait for a sink that cannot start; `deliver` is not called."""
    sink, records = RaisingSink("start", error, plain), make_records(3)

    async def scenario(rig):
        rig.add(records[:1])
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(20 * 60.0 / 4)
        assert sink.batches == []
        assert rig.account == (0, 0, 0, 0, 1)
        sink.recover()
        assert await flush
        rig.add(records[1:])
        await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.account == (3, 0, 0, 0, 0)
    assert sink.records == records
    assert letters() == []


def test_a_sink_that_can_never_start_refuses_its_events(drive, make_records, letters):
    """`PermanentSinkError` from `start`: waiting would not help."""
    sink = RaisingSink("start", PermanentSinkError("no such table"))

    async def scenario(rig):
        rig.add(make_records(2))
        assert await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.account == (0, 2, 0, 0, 0)
    assert rig.lane.refused.snapshot() == {("PermanentSinkError",): 2}
    assert {letter["reason"] for letter in letters()} == {
        "PermanentSinkError: no such table"
    }


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_flush_raises_is_told_and_costs_nothing(
    drive, make_records, error, plain
):
    """The events were delivered; `flush` says that the sink could not."""
    sink = RaisingSink("flush", error, plain)

    async def scenario(rig):
        rig.add(make_records(2))
        assert not await rig.lane.flush()

    assert drive(sink, scenario).account == (2, 0, 0, 0, 0)


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_stop_raises_is_survived(drive, make_records, error, plain):
    """Nothing leaves `stop`, and it is called once."""
    sink = RaisingSink("stop", error, plain)

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()
        await rig.lane.stop()
        await rig.lane.stop()

    assert drive(sink, scenario).account == (2, 0, 0, 0, 0)
    assert sink.calls.count("stop") == (not plain)


def test_a_sinks_own_timeout_is_not_taken_for_ours(drive, make_records, letters):
    """The reason tells apart what the sink raised from what we gave up waiting for."""
    sink = RaisingSink("deliver", TimeoutError("the database"))

    async def scenario(rig):
        rig.add(make_records(1))
        await rig.lane.flush()

    drive(sink, scenario, lifetime=1.0)
    (letter,) = letters()
    assert letter["reason"] == "not delivered within 1 s: TimeoutError: the database"


def test_a_hanging_call_ends_at_sink_timeout(drive, make_records, letters):
    """After `sink_timeout` the batch is sent again, after a wait."""
    sink = FaultySink(delay=60.0)

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.settle(2.9)
        assert rig.lane.failures == 0
        await rig.settle(0.2)
        assert rig.lane.failures == 1
        assert rig.account == (0, 0, 0, 0, 2)
        sink._delay = 0.0
        await rig.settle(0.3)
        assert rig.account == (2, 0, 0, 0, 0)

    drive(sink, scenario, sink_timeout=3.0, batch_size=2)


def test_what_hung_until_its_deadline_says_so(drive, make_records, letters):
    """The dead letter names the time-out of ours that the sink ran into."""

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()

    rig = drive(FaultySink(delay=60.0), scenario, sink_timeout=3.0, lifetime=2.0)
    assert rig.account == (0, 2, 0, 0, 0)
    assert {letter["reason"] for letter in letters()} == {
        "not delivered within 2 s: TimeoutError: no answer within 3 s"
    }


def test_a_call_that_ignores_its_cancellation_is_left_behind(drive, make_records):
    """Not even a sink that swallows CancelledError holds its lane up."""
    release = asyncio.Event()

    class Stubborn(MemorySink):
        called = 0

        async def deliver(self, batch):
            self.called += 1
            while self.called == 1 and not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return await super().deliver(batch)

    sink = Stubborn()

    async def scenario(rig):
        rig.add(make_records(1))
        await rig.settle(1.2)
        assert rig.account == (0, 0, 0, 0, 1)
        await rig.lane.flush()
        assert rig.account == (1, 0, 0, 0, 0)
        release.set()
        await rig.settle()

    rig = drive(sink, scenario, sink_timeout=1.0, batch_size=1)
    assert rig.account == (1, 0, 0, 0, 0)
    # What it still did when it was let go had the same name as what replaced it.
    assert len({batch.name for batch in sink.batches}) == 1


def test_an_answer_given_while_being_cancelled_counts(drive, make_records):
    """A sink that finishes its write when it is cancelled has the events."""

    class Finishing(MemorySink):
        async def deliver(self, batch):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return await super().deliver(batch)

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()

    assert drive(Finishing(), scenario).account == (2, 0, 0, 0, 0)


def test_a_sink_that_cancels_its_own_task_does_not_end_the_lane(
    drive, make_records, letters
):
    """The call runs in a task of its own."""

    class SelfCancelling(MemorySink):
        async def deliver(self, batch):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.lane.flush()
        assert not rig.task.done()

    rig = drive(SelfCancelling(), scenario, lifetime=5.0)
    assert rig.account == (0, 3, 0, 0, 0)
    assert {letter["reason"] for letter in letters()} == {
        "not delivered within 5 s: CancelledError"
    }


def test_a_hanging_start_ends_at_sink_timeout(drive, make_records):
    """`start` has the same time-out, and is tried again."""

    class HangingStart(MemorySink):
        async def start(self):
            await super().start()
            if len(self.calls) == 1:
                await asyncio.sleep(60)

    sink = HangingStart()

    async def scenario(rig):
        rig.add(make_records(1))
        await rig.lane.flush()
        assert asyncio.get_running_loop().time() == pytest.approx(1.25, abs=0.01)

    assert drive(sink, scenario, sink_timeout=1.0).account == (1, 0, 0, 0, 0)
    assert sink.calls == ["start", "start", "flush", "stop"]


@pytest.mark.parametrize("answer", [None, SendResult()])
def test_an_empty_answer_accepts(drive, make_records, answer):
    """`deliver` may return None, as `send_batch` does in the seed."""

    class Answering(BaseSink):
        async def deliver(self, batch):
            return answer

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()

    assert drive(Answering(), scenario).account == (2, 0, 0, 0, 0)


def test_an_answer_that_is_none_of_ours_refuses_the_batch(drive, make_records, letters):
    """A sink that goes on returning nonsense keeps its lane, its events are letters."""

    class Nonsense(BaseSink):
        async def deliver(self, batch):
            return {"ok": True}

    async def scenario(rig):
        for _ in range(2):
            rig.add(make_records(1))
            await rig.lane.flush()

    assert drive(Nonsense(), scenario).account == (0, 2, 0, 0, 0)
    assert "expected a SendResult, got dict" in letters()[0]["reason"]
    assert letters()[0]["attempts"] == UNCLEAR_ATTEMPTS


def test_only_the_rejected_events_become_dead_letters(drive, make_records, letters):
    """Siblings of a refused event are delivered, one that must wait comes later."""
    sink, records = FaultySink(reject=(1,), retry=(3,)), make_records(5)

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.account == (4, 1, 0, 0, 0)
    assert [letter["event_id"] for letter in letters()] == [records[1].event_id]
    assert sink.records == [records[i] for i in (0, 2, 4, 3)]
    whole, part = sink.batches
    assert part.name == f"{whole.name}.3-3"


def test_a_dead_letter_names_sink_reason_path_and_times(drive, make_records, letters):
    """What the sink said about the event is kept, with the event itself."""

    class Refusing(BaseSink):
        async def deliver(self, batch):
            return SendResult(rejected=(Rejection(0, "too late", "$.event_time"),))

    records = make_records(1)

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    drive(Refusing(), scenario)
    (letter,) = letters()
    assert letter["record"] == records[0].event
    assert (letter["reason"], letter["path"]) == ("too late", "$.event_time")
    assert (letter["sink"], letter["attempts"]) == ("sink", 1)
    assert letter["first_at"] <= letter["last_at"]


def test_events_that_cannot_be_buried_count_as_dropped(
    drive, make_records, folder, monkeypatch
):
    """An unwritable folder: dropped{dead_letters_failed}, and the lane goes on."""

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder, "write", fail)
    sink = FaultySink(fail_start=1, error=PermanentSinkError("no such table"))

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.lane.flush()
        rig.add(make_records(2))
        await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.account == (2, 0, 3, 0, 0)
    assert rig.lane.dropped.snapshot() == {"dead_letters_failed": 3}


# Routes


def test_a_route_takes_its_events_and_no_others(drive, make_record):
    """Events that belong elsewhere are neither delivered nor offered here."""
    sink = MemorySink()
    names = ["order.placed", "product.viewed", "order.returned"]

    async def scenario(rig):
        rig.add([make_record(name) for name in names])
        await rig.lane.flush()

    rig = drive(Route(sink, "order.*"), scenario)
    assert [r.event_type for r in sink.records] == ["order.placed", "order.returned"]
    assert rig.account == (2, 0, 0, 1, 0)


def test_a_batch_without_matching_events_is_not_sent(drive, make_records):
    """The sink is not even started for what is not its own."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.lane.flush()

    rig = drive(Route(sink, "product.*"), scenario)
    assert sink.calls == []
    assert rig.account == (0, 0, 0, 3, 0)


def test_rejections_count_within_what_was_routed(drive, make_record, letters):
    """A sink's indices are those of the batch it got, not of the journal's run."""
    sink = FaultySink(reject=(1,))
    names = ["a.b", "order.one", "a.b", "order.two", "order.three"]
    records = [make_record(name) for name in names]

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    rig = drive(Route(sink, "order.*"), scenario)
    assert [letter["event_id"] for letter in letters()] == [records[3].event_id]
    assert rig.account == (2, 1, 0, 2, 0)


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_a_predicate_that_raises_sends_its_event_to_the_dead_letters(
    drive, make_record, letters, error
):
    """What no route could decide is kept; the decided ones go their way."""
    sink = MemorySink()

    def when(event):
        if event["event_type"] == "order.bad":
            raise error
        return event["event_type"] != "order.other"

    async def scenario(rig):
        rig.add([make_record(n) for n in ("order.good", "order.bad", "order.other")])
        await rig.lane.flush()

    rig = drive(Route(sink, when=when), scenario)
    assert rig.account == (1, 1, 0, 1, 0)
    assert letters()[0]["reason"] == "the route's predicate raised"


# Sinks in the seed's form


def test_a_sink_in_the_seeds_own_form_works_unchanged(drive, make_records):
    """Five methods, no base class, `send_batch` returning None."""

    class SeedSink:
        def __init__(self):
            self.got = []
            self.calls = []

        async def start(self):
            self.calls.append("start")

        async def stop(self):
            self.calls.append("stop")

        async def send(self, event):
            raise AssertionError

        async def send_batch(self, events):
            self.got += events

        async def flush(self):
            self.calls.append("flush")

    sink, records = SeedSink(), make_records(3)

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    assert drive(as_sink(sink), scenario).account == (3, 0, 0, 0, 0)
    assert sink.got == [record.event for record in records]
    assert sink.calls == ["start", "flush", "stop"]


def test_a_sink_that_overrides_only_send_refuses_event_by_event(
    drive, make_records, letters
):
    """With `send` alone the events whose call raises are refused, the others not."""

    class Sending(BaseSink):
        def __init__(self):
            self.got = []

        async def send(self, event):
            if len(self.got) == 1:
                self.got.append(None)
                raise ValueError("the second")
            self.got.append(event)

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.lane.flush()

    assert drive(Sending(), scenario).account == (2, 1, 0, 0, 0)
    assert letters()[0]["reason"] == "ValueError: the second"


# Flushing


def test_flush_sends_what_is_not_due(drive, make_records):
    """Nothing waits for company when a flush asks; then the sink is flushed."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(1))
        assert await rig.lane.flush()
        assert asyncio.get_running_loop().time() == 0.0

    drive(sink, scenario, flush_interval=100.0)
    assert sink.calls == ["start", "flush", "stop"]


def test_flush_does_not_wait_for_what_comes_later(drive, make_records):
    """A flush covers what the journal held when it was asked."""
    sink = FaultySink(delay=1.0)

    async def scenario(rig):
        rig.add(make_records(1))
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(0.5)
        rig.add(make_records(1))
        assert await flush
        assert len(sink.records) == 1

    drive(sink, scenario, flush_interval=100.0)


def test_many_flushes_at_once_share_the_work(drive, make_records):
    """All return; the sink is flushed once for those that came together."""
    sink = MemorySink()

    async def scenario(rig):
        rig.add(make_records(5))
        assert all(await asyncio.gather(*(rig.lane.flush() for _ in range(10))))

    drive(sink, scenario)
    assert sink.calls == ["start", "flush", "stop"]


def test_a_flush_asked_during_a_flush_is_answered(drive, make_records):
    """A second request while the sink flushes is neither lost nor answered early."""
    order = []

    class SlowFlush(MemorySink):
        async def flush(self):
            order.append("begin")
            await asyncio.sleep(1.0)
            order.append("end")

    async def scenario(rig):
        rig.add(make_records(1))
        first = asyncio.create_task(rig.lane.flush())
        await rig.settle(0.5)
        rig.add(make_records(1))
        second = asyncio.create_task(rig.lane.flush())
        assert await first
        assert rig.lane.delivered == 1
        assert await second
        assert rig.lane.delivered == 2

    drive(SlowFlush(), scenario)
    assert order == ["begin", "end"] * 2


def test_a_flush_given_up_does_not_disturb_the_others(drive, make_records):
    """One waiter is cancelled, the other one is still answered."""
    sink = FaultySink(delay=1.0)

    async def scenario(rig):
        rig.add(make_records(1))
        given_up = asyncio.create_task(rig.lane.flush())
        other = asyncio.create_task(rig.lane.flush())
        await rig.settle(0.5)
        given_up.cancel()
        assert await other

    assert drive(sink, scenario).account == (1, 0, 0, 0, 0)


# Giving up and abandoning


def test_giving_up_takes_the_oldest_that_wait(drive, make_records):
    """What is on its way stays; the oldest behind it go, counted as lane_full."""
    sink = FaultySink(delay=1.0)
    records = make_records(10)

    async def scenario(rig):
        rig.add(records[:2])
        await rig.settle(0.1)
        rig.add(records[2:])
        rig.lane.give_up(5)
        assert rig.account == (0, 0, 5, 0, 5)  # balanced while a call is under way
        assert rig.lane.batcher.events == 3
        await rig.lane.flush()

    rig = drive(sink, scenario, batch_size=2)
    assert sink.records == [*records[:2], *records[7:]]
    assert rig.lane.dropped.snapshot() == {"lane_full": 5}
    assert rig.account == (5, 0, 5, 0, 0)


def test_giving_up_counts_only_what_belongs_to_the_sink(drive, make_record):
    """Events of other routes that pass by are not lost here."""
    names = ["order.a", "product.a", "product.b", "order.b"]

    async def scenario(rig):
        rig.add([make_record(name) for name in names])
        rig.lane.give_up(3)
        await rig.lane.flush()

    rig = drive(Route(MemorySink(), "order.*"), scenario)
    assert rig.account == (1, 0, 1, 2, 0)


def test_giving_up_others_events_is_no_loss(drive, make_record):
    """Where nothing of the sink's own was given up, nothing is counted."""

    async def scenario(rig):
        rig.add([make_record("product.a")])
        rig.lane.give_up(1)

    rig = drive(Route(MemorySink(), "order.*"), scenario)
    assert rig.account == (0, 0, 0, 1, 0)
    assert rig.lane.dropped.snapshot() == {}


def test_abandoning_buries_what_flies_what_waits_and_what_is_queued(
    drive, make_records, letters
):
    """All three kinds of leftovers become dead letters, once each."""
    sink, records = FaultySink(delay=60.0), make_records(6)

    async def scenario(rig):
        rig.add(records[:2])
        await rig.settle(0.1)
        rig.add(records[2:4])
        await rig.stop()
        rig.lane.abandon(records[4:], "the deadline has passed")
        rig.lane.abandon([], "again")

    rig = drive(sink, scenario, batch_size=2)
    assert rig.account == (0, 6, 0, 0, 0)
    assert [letter["event_id"] for letter in letters()] == [
        record.event_id for record in records
    ]
    assert {letter["reason"] for letter in letters()} == {"the deadline has passed"}


def test_abandoning_keeps_to_the_route(drive, make_record, letters):
    """Only the sink's own events, and those its predicate cannot decide, are kept."""

    def when(event):
        return event["event_type"] != "order.bad" or 1 / 0

    records = [make_record(n) for n in ("product.a", "order.a", "order.bad")]

    async def scenario(rig):
        rig.add(records)
        await rig.stop()
        rig.lane.abandon([], "late")

    rig = drive(Route(MemorySink(), "order.*", when), scenario)
    assert rig.account == (0, 2, 0, 1, 0)
    assert len(letters()) == 2


def test_abandoning_into_an_unwritable_folder_counts(
    drive, make_records, folder, monkeypatch
):
    """Nothing is raised; the events are dropped{dead_letters_failed}."""

    def fail(_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder, "write", fail)

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.stop()
        rig.lane.abandon(make_records(2), "late")

    rig = drive(MemorySink(), scenario)
    assert rig.account == (0, 0, 5, 0, 0)


def test_a_lane_abandoned_during_a_call_ends_and_counts_nothing_twice(
    drive, make_records
):
    """Another thread took the events while the call was under way: the lane is over."""
    sink = FaultySink(delay=1.0)

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.settle(0.1)
        rig.add(make_records(500))  # enough to be due at once, again and again
        rig.lane.abandon([], "late")
        await rig.settle(5.0)
        assert rig.task.done()

    rig = drive(sink, scenario, batch_size=2)
    assert rig.account == (0, 503, 0, 0, 0)


def test_progress_is_told_after_each_batch(drive, make_records):
    """The pump learns of each settled batch, to make use of the room."""
    sink = MemorySink()
    sink.max_events = 2

    async def scenario(rig):
        rig.add(make_records(6))
        await rig.lane.flush()

    rig = drive(sink, scenario)
    assert rig.progress == 3
    assert rig.lane.settled == rig.journal.end


@pytest.mark.parametrize("wait", [1.0, None], ids=["gathering", "idle"])
def test_a_cancellation_that_meets_a_change_is_not_lost(drive, make_records, wait):
    """A record that arrives in the moment of the shutdown does not keep a lane going."""

    async def scenario(rig):
        if wait:
            rig.add(make_records(1))
        await rig.settle(0.1)
        rig.add(make_records(1))
        rig.task.cancel()
        await rig.settle(0.1)
        assert rig.task.done()

    drive(MemorySink(), scenario)
