"""A lane whose sink fails, several batches under way, and what a process leaves."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

from bizlog.delivery import lane as lanes
from bizlog.delivery.flight import ROUTE_RAISED
from bizlog.delivery.journal import DAMAGED, JournalError, LaneState
from bizlog.delivery.receipts import Outcome, Receipts
from bizlog.exceptions import PermanentSinkError, RetryableSinkError
from bizlog.sinks import ACCEPTED, Rejection, Route, SendResult
from bizlog.testing import FaultySink, MemorySink


class Scripted(MemorySink):
    """
    Answers each call as told, then accepts; notes when it was called.

    Args:
        answers: What to answer, or to raise.
        max_in_flight: As in `BaseSink`.
    """

    def __init__(self, *answers, max_in_flight=1):
        super().__init__()
        self.answers = list(answers)
        self.max_in_flight = max_in_flight
        self.tried = []
        self.times = []

    async def deliver(self, batch):
        self.tried.append(batch)
        self.times.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            return answer
        return await super().deliver(batch)

    @property
    def names(self):
        return [batch.name for batch in self.tried]

    @property
    def spans(self):
        return [(batch.first, batch.last) for batch in self.tried]


class Gated(MemorySink):
    """Holds each batch until its gate is opened, by the batch's first position."""

    def __init__(self, max_in_flight=4):
        super().__init__()
        self.max_in_flight = max_in_flight
        self.gates = {}
        self.down = False

    async def deliver(self, batch):
        gate = self.gates.setdefault(batch.first, asyncio.Event())
        await gate.wait()
        if self.down:
            raise RetryableSinkError("down")
        return await super().deliver(batch)


# A batch that failed


def test_a_batch_is_sent_again_under_its_name_after_growing_waits(drive, make_records):
    """The destination can tell that it is the same one; the waits double."""
    sink = Scripted(*[OSError("down")] * 4)

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.lane.flush()

    assert drive(sink, scenario).account == (3, 0, 0, 0, 0)
    assert len(set(sink.names)) == 1
    assert sink.times == [0.0, 0.25, 0.75, 1.75, 3.75]


def test_the_wait_that_a_destination_asks_for_is_kept(drive, make_records):
    """Retry-After: not a moment earlier."""
    sink = Scripted(RetryableSinkError("busy", retry_after=3.0))

    async def scenario(rig):
        rig.add(make_records(1))
        await rig.lane.flush()

    drive(sink, scenario)
    assert sink.times == [0.0, 3.0]


def test_a_part_has_a_name_of_its_own(drive, make_records):
    """A destination that remembers the whole does not take a part for it."""
    sink = Scripted(SendResult(retry=(0, 2)), OSError("down"))

    async def scenario(rig):
        rig.add(make_records(4))
        await rig.lane.flush()

    drive(sink, scenario)
    whole, part, again = sink.names
    assert part == again
    assert part.startswith(f"{whole}.")
    assert [len(batch.records) for batch in sink.tried] == [4, 2, 2]


def test_a_poisoned_event_goes_to_the_dead_letters_alone(drive, make_records, letters):
    """Its neighbours arrive, in order, each once."""
    records = make_records(20)

    class Picky(MemorySink):
        async def deliver(self, batch):
            if records[13] in batch.records:
                raise PermanentSinkError("not that one")
            return await super().deliver(batch)

    sink = Picky()

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    assert drive(sink, scenario).account == (19, 1, 0, 0, 0)
    assert sink.records == [*records[:13], *records[14:]]
    assert [letter["event_id"] for letter in letters()] == [records[13].event_id]


def test_events_are_given_up_at_their_deadline(drive, make_records, letters):
    """Each event has its own; those that came later are still tried."""
    sink, records = Scripted(*[OSError("down")] * 10), make_records(4)

    async def scenario(rig):
        rig.add(records[:2])
        await rig.settle(10.0)
        rig.add(records[2:])
        await rig.lane.flush()

    rig = drive(sink, scenario, lifetime=65.0, flush_interval=20.0)
    assert rig.account == (2, 2, 0, 0, 0)
    assert sink.records == records[2:]
    assert [letter["event_id"] for letter in letters()] == [
        record.event_id for record in records[:2]
    ]
    assert rig.lane.refused.snapshot() == {("deadline",): 2}


def test_a_route_does_not_change_an_events_deadline(drive, make_record, letters):
    """Where a route leaves some out, the others keep the times they came at."""
    sink = Scripted(*[OSError("down")] * 10)
    names = ["order.a", "product.a", "order.b", "product.b", "order.c"]

    async def scenario(rig):
        rig.add([make_record(name) for name in names[:3]])
        await rig.settle(10.0)
        rig.add([make_record(name) for name in names[3:]])
        await rig.lane.flush()

    rig = drive(Route(sink, "order.*"), scenario, lifetime=65.0, flush_interval=20.0)
    assert rig.account == (1, 2, 0, 2, 0)
    assert [record.event_type for record in sink.records] == ["order.c"]
    assert len(letters()) == 2


def test_arrivals_cost_bounded_memory(drive, make_record, monkeypatch):
    """Beyond a number of them those of ten seconds count as one, the oldest stays."""
    monkeypatch.setattr(lanes, "MOST_ARRIVALS", 5)

    async def scenario(rig):
        for _ in range(100):
            rig.add([make_record()])
            await rig.settle(1.0)
        assert rig.lane.oldest_at == 0.0
        assert len(rig.lane._arrivals) < 5 + 100 / 10 + 1
        await rig.lane.flush()

    rig = drive(MemorySink(), scenario, flush_interval=500.0, batch_size=1_000)
    assert rig.account == (100, 0, 0, 0, 0)
    assert rig.lane.oldest_at is None


def test_hurry_sends_what_waits_for_its_next_attempt(drive, make_records):
    """The end is near: the back-off is cut short."""
    sink = Scripted(*[OSError("down")] * 5)

    async def scenario(rig):
        rig.add(make_records(1))
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(5.0)
        assert rig.account == (0, 0, 0, 0, 1)
        rig.lane.hurry()
        assert await flush

    drive(sink, scenario)
    assert sink.times[-1] == pytest.approx(5.0, abs=0.01)


# Several batches under way


def test_what_is_settled_never_passes_what_is_not(drive, make_records):
    """Answers may come in any order; the journal keeps all from the oldest one on."""
    sink = Gated(max_in_flight=3)

    async def scenario(rig):
        rig.add(make_records(8))
        await rig.settle(0.1)
        assert sorted(sink.gates) == [0, 2, 4]
        for position, settled in [(2, 0), (4, 0), (6, 0), (0, 8)]:
            sink.gates[position].set()
            await rig.settle(0.1)
            assert rig.lane.settled == settled
            assert sum(rig.account) == 8
        assert rig.account == (8, 0, 0, 0, 0)

    sink.max_events = 2
    rig = drive(sink, scenario, batch_size=2, max_in_flight=8)
    assert [batch.first for batch in sink.batches] == [2, 4, 6, 0]
    assert rig.progress == 4


def test_seals_leave_no_gap(drive, make_records, disk_journal):
    """What was overtaken keeps its bounds, so that names stay after a crash."""
    sink = Gated(max_in_flight=3)
    sink.max_events = 2

    async def scenario(rig):
        rig.add(make_records(8))
        await rig.settle(0.1)
        sink.gates[2].set()
        await rig.settle(0.1)
        assert rig.journal.lanes()["sink"] == LaneState(0, (1, 3, 5, 7))
        for gate in sink.gates.values():
            gate.set()
        await rig.lane.flush()

    rig = drive(sink, scenario, batch_size=2, max_in_flight=3, journal=disk_journal())
    assert rig.journal.lanes()["sink"] == LaneState(8)


def test_a_sink_that_allows_one_batch_gets_one_at_a_time(drive, make_records):
    """`max_in_flight` of the setting never exceeds that of the sink."""
    sink = Gated(max_in_flight=1)
    sink.max_events = 2

    async def scenario(rig):
        rig.add(make_records(4))
        await rig.settle(0.1)
        assert list(sink.gates) == [0]
        sink.gates[0].set()
        await rig.settle(0.1)
        assert list(sink.gates) == [0, 2]
        sink.gates[2].set()
        await rig.lane.flush()

    drive(sink, scenario, batch_size=2, max_in_flight=8)


def test_a_sink_that_is_down_gets_one_probe_at_a_time(drive, make_records):
    """After five failures only the oldest batch goes out; its success frees all."""
    calls = []

    class Down(MemorySink):
        max_in_flight = 4
        max_events = 1
        down = True

        async def deliver(self, batch):
            calls.append((asyncio.get_running_loop().time(), batch.first))
            await asyncio.sleep(0.01)
            if self.down:
                raise RetryableSinkError("down")
            return await super().deliver(batch)

    sink = Down()

    async def scenario(rig):
        rig.add(make_records(6))
        await rig.settle(60.0)
        assert rig.lane.failures >= 5
        probes = [first for at, first in calls if at > 1.0]
        assert probes
        assert set(probes) == {0}
        sink.down = False
        before = len(calls)
        await rig.lane.flush()
        assert len(calls) == before + 6

    assert drive(sink, scenario, batch_size=1, max_in_flight=4).account == (
        6,
        0,
        0,
        0,
        0,
    )


def test_a_batch_that_hangs_behind_holds_the_others_up_in_the_end(drive, make_records):
    """What overtakes is bounded: nothing behind it can be released."""
    sink = Gated(max_in_flight=2)
    sink.max_events = 1
    most = 2 * lanes.OVERTAKING_BATCHES

    async def scenario(rig):
        rig.add(make_records(most + 20))
        for first in range(1, most + 20):
            sink.gates[first] = asyncio.Event()
            sink.gates[first].set()
        await rig.settle(1.0)
        assert len(sink.batches) == most - 1
        assert rig.lane.settled == 0
        sink.gates[0].set()
        await rig.lane.flush()

    rig = drive(sink, scenario, batch_size=1, max_in_flight=2)
    assert rig.account == (most + 20, 0, 0, 0, 0)


def test_a_sink_is_started_once_for_all_batches(drive, make_records):
    """Several batches that find it not started share one `start`."""

    class SlowStart(MemorySink):
        max_in_flight = 4
        max_events = 1

        async def start(self):
            await super().start()
            await asyncio.sleep(1.0)

    sink = SlowStart()

    async def scenario(rig):
        rig.add(make_records(4))
        await rig.lane.flush()

    drive(sink, scenario, batch_size=1, max_in_flight=4)
    assert sink.calls == ["start", "flush", "stop"]


def test_a_batch_that_dies_of_a_fault_of_ours_is_told(
    drive, make_records, monkeypatch, told
):
    """Whatever ends a batch's task is not silent."""

    async def fail(*_):
        raise RuntimeError("a fault of ours")

    async def scenario(rig):
        monkeypatch.setattr(rig.lane, "_settle", fail)
        rig.add(make_records(1))
        await rig.settle(0.1)

    sink = Gated(max_in_flight=2)
    sink.gates[0] = asyncio.Event()
    sink.gates[0].set()
    drive(sink, scenario, batch_size=1, max_in_flight=2)
    assert any("a fault of ours" in message for message in told)


# The end


def test_what_a_journal_keeps_is_left_to_the_next_process(
    drive, make_records, letters, disk_journal
):
    """Nothing is buried; what was under way is sealed, so its name stays."""
    sink = FaultySink(delay=60.0)

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.settle(0.1)
        rig.add(make_records(3))
        await rig.stop()
        rig.lane.abandon([], "late")
        rig.lane.abandon([], "again")

    rig = drive(sink, scenario, batch_size=2, journal=disk_journal())
    assert rig.account == (0, 0, 0, 0, 5)
    assert letters() == []
    assert rig.journal.lanes()["sink"] == LaneState(0, (1,))


@pytest.mark.parametrize("kept", range(9))
def test_only_what_no_journal_keeps_is_buried(
    drive, make_records, letters, disk_journal, kept
):
    """A disk that failed at any position: what stands before it stays, once."""
    records = make_records(9)
    journal = disk_journal()

    async def scenario(rig):
        rig.add(records[:3])
        await rig.settle(0.1)
        rig.add(records[3:8])
        journal.kept = kept
        await rig.stop()
        rig.lane.abandon(records[8:], "late")
        rig.lane.abandon([], "again")

    rig = drive(FaultySink(delay=60.0), scenario, batch_size=3, journal=journal)
    # A batch that is not wholly on the disk goes as a whole.
    stays = 0 if kept < 3 else kept
    assert rig.account == (0, 9 - stays, 0, 0, stays)
    assert [letter["event_id"] for letter in letters()] == [
        record.event_id for record in records[stays:]
    ]
    state = journal.lanes()["sink"]
    assert state.settled == (3 if kept < 3 else 0)


class HeldExecutor(concurrent.futures.ThreadPoolExecutor):
    """Does not run what it is given until told."""

    def __init__(self):
        super().__init__(1)
        self.held = []

    def submit(self, fn, /, *args, **kwargs):
        """Keep it."""
        self.held.append(lambda: fn(*args, **kwargs))
        return concurrent.futures.Future()

    def run(self):
        """Run what was kept."""
        for call in self.held:
            call()


@pytest.mark.parametrize("thread_first", [False, True], ids=["late", "first"])
def test_letters_that_are_being_written_at_the_end_are_written_once(
    drive, make_records, letters, thread_first
):
    """The thread that writes them may be faster or slower than the shutdown."""
    executor = HeldExecutor()

    async def scenario(rig):
        asyncio.get_running_loop().set_default_executor(executor)
        rig.add(make_records(3))
        await rig.settle(0.1)
        assert len(executor.held) == 1
        if thread_first:
            executor.run()
        await rig.stop()
        rig.lane.abandon([], "late")
        executor.run()

    rig = drive(FaultySink(reject=(1,)), scenario, batch_size=3)
    assert rig.account == (2, 1, 0, 0, 0)
    assert len(letters()) == 1
    assert letters()[0]["reason"] == "the test rejects it"


def test_a_lane_abandoned_while_letters_are_written_counts_once(drive, make_records):
    """Another thread ended the lane; it comes back and finds that all is done."""
    sink = FaultySink(reject=(0,))

    async def scenario(rig):
        lane = rig.lane

        async def abandon_meanwhile(call):
            call()
            lane.abandon([], "late")

        asyncio_to_thread, asyncio.to_thread = asyncio.to_thread, abandon_meanwhile
        try:
            rig.add(make_records(2))
            await rig.settle(0.1)
        finally:
            asyncio.to_thread = asyncio_to_thread
        assert rig.task.done()
        assert rig.task.exception() is None

    assert drive(sink, scenario, batch_size=2).account == (1, 1, 0, 0, 0)


def test_an_abandoned_lane_sends_nothing_more(drive, make_records, disk_journal):
    """Neither the batch that waits for its next attempt nor the next one."""
    sink = Scripted(OSError("down"))

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.settle(0.1)
        rig.add(make_records(2))
        rig.lane.abandon([], "late")
        rig.lane.hurry()
        await rig.settle(10.0)
        assert rig.task.done()
        assert rig.task.exception() is None

    drive(sink, scenario, batch_size=2, journal=disk_journal())
    assert len(sink.tried) == 1


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_lane_may_be_cancelled_at_any_moment(
    drive, make_record, letters, folder, in_flight
):
    """Each event is settled exactly once, wherever the shutdown meets the lane."""
    total = 0

    class Busy(MemorySink):
        max_in_flight = in_flight
        max_events = 2
        calls_of_deliver = 0

        async def deliver(self, batch):
            self.calls_of_deliver += 1
            await asyncio.sleep(0)
            if self.calls_of_deliver % 3 == 1:
                raise RetryableSinkError("down")
            await super().deliver(batch)
            return (
                SendResult((Rejection(0, "bad"),)) if len(batch.records) > 1 else None
            )

    for steps in range(120):
        sink = Busy()
        records = [make_record(name) for name in ["order.a", "product.a"] * 3]

        async def scenario(rig, steps=steps, records=records):
            rig.add(records)
            flush = asyncio.create_task(rig.lane.flush())
            for _ in range(steps):
                await asyncio.sleep(0)
            rig.task.cancel()
            await asyncio.wait((rig.task,))
            rig.lane.abandon([], "late")
            flush.cancel()

        rig = drive(
            Route(sink, ["order.*", "product.*"]),
            scenario,
            batch_size=2,
            max_in_flight=in_flight,
        )
        delivered, buried, dropped, left_out, pending = rig.account
        assert (delivered + buried, dropped, left_out, pending) == (6, 0, 0, 0)
        total += buried
        assert len(letters()) == total
        seen = {record.event_id for record in sink.records}
        seen |= {letter["event_id"] for letter in letters()}
        assert seen >= {record.event_id for record in records}


# Journals of processes that died


def test_what_was_sealed_is_sent_again_under_its_names(
    drive, make_records, disk_journal
):
    """Old seals keep their bounds, whatever the limits are now."""
    journal = disk_journal("old")
    journal.append(make_records(10))
    sink = Scripted()
    sink.max_events = 2

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(1, (3, 6)))
        assert rig.lane.adopted == 9
        assert rig.lane.settled_in(journal) == 1
        await rig.settle(1.0)
        assert rig.lane.settled_in(journal) == 10

    rig = drive(sink, scenario)
    assert sink.names == ["old-1-3", "old-4-6", "old-7-8", "old-9-9"]
    assert rig.account == (9, 0, 0, 0, 0)
    assert journal.lanes()["sink"] == LaneState(10)


def test_old_and_new_events_take_turns(drive, make_records, disk_journal):
    """Neither a backlog nor a busy process starves the other."""
    journal = disk_journal("old")
    journal.append(make_records(6))
    sink = Scripted()
    sink.max_events = 2

    async def scenario(rig):
        rig.add(make_records(6))
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(1.0)

    rig = drive(sink, scenario, batch_size=2)
    assert rig.account == (12, 0, 0, 0, 0)
    turns = [batch.journal_id == "old" for batch in sink.tried]
    assert turns in ([True, False] * 3, [False, True] * 3)


def test_a_sink_that_a_journal_does_not_know_takes_nothing_from_it(
    drive, make_records, disk_journal
):
    """It starts at the end: those events were never meant for it."""
    journal = disk_journal("old")
    journal.append(make_records(3))
    sink = Scripted()

    async def scenario(rig):
        rig.lane.adopt(journal, None)
        assert rig.lane.settled_in(journal) == 3
        await rig.settle(10.0)

    assert drive(sink, scenario).account == (0, 0, 0, 0, 0)
    assert sink.tried == []


def test_what_is_too_old_is_counted_and_not_sent(drive, make_records, disk_journal):
    """`journal_max_age`: dropped{journal_expired}."""
    journal = disk_journal("old")
    journal.append(make_records(5))
    gone = disk_journal("gone")
    gone.append(make_records(2))

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(0, (1, 3)), fresh=3)
        rig.lane.adopt(gone, LaneState(0), fresh=2)
        await rig.settle(1.0)

    rig = drive(MemorySink(), scenario)
    assert rig.account == (2, 0, 5, 0, 0)
    assert rig.lane.adopted == 7
    assert rig.lane.dropped.snapshot() == {"journal_expired": 5}
    assert gone.lanes()["sink"] == LaneState(2)


@pytest.mark.parametrize("error", [None, JournalError("EIO")], ids=["silent", "raises"])
def test_a_journal_without_an_answer_is_asked_again(
    drive, make_records, disk_journal, error
):
    """Once a second; the events of this process go on meanwhile."""
    journal = disk_journal("old")
    journal.append(make_records(3))
    journal.silent, journal.error = error is None, error
    sink = Scripted()

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(5.5)
        assert journal.reads == 6
        assert rig.account == (0, 0, 0, 0, 3)
        rig.add(make_records(2))
        assert await rig.lane.flush()
        assert rig.account == (2, 0, 0, 0, 3)
        journal.silent, journal.error = False, None
        await rig.settle(1.0)

    assert drive(sink, scenario).account == (5, 0, 0, 0, 0)


@pytest.mark.parametrize("error", [None, JournalError("EIO")], ids=["silent", "raises"])
def test_a_journal_of_ours_without_an_answer_is_asked_again(
    drive, make_records, disk_journal, error
):
    """Once a second, and a flush waits for it; an old journal goes on meanwhile."""
    journal, old = disk_journal(), disk_journal("old")
    old.append(make_records(1))

    async def scenario(rig):
        rig.add(make_records(3))
        journal.silent, journal.error = error is None, error
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(5.5)
        assert journal.reads == 6
        assert rig.lane.give_up(2) == 0
        rig.lane.adopt(old, LaneState(0))
        await rig.settle(0.1)
        assert rig.account == (1, 0, 0, 0, 3)
        journal.silent, journal.error = False, None
        assert await flush

    assert drive(MemorySink(), scenario, journal=journal).account == (4, 0, 0, 0, 0)


def test_a_seal_that_cannot_be_written_stops_nothing(
    drive, make_records, disk_journal, told
):
    """After a crash it might go under another name; now it goes."""
    journal = disk_journal()

    def fail(*_):
        raise JournalError("EIO")

    journal.seal = fail

    async def scenario(rig):
        rig.add(make_records(3))
        assert await rig.lane.flush()

    assert drive(MemorySink(), scenario, journal=journal).account == (3, 0, 0, 0, 0)
    assert any("EIO" in message for message in told)


def test_what_a_disk_gave_back_damaged_is_counted_and_left_out(
    drive, make_records, disk_journal
):
    """Its neighbours arrive; the name of their batch does not change."""
    journal, first, last = disk_journal("old"), make_records(2), make_records(2)
    journal.append([*first, DAMAGED, *last])
    sink = Scripted()

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(1.0)

    rig = drive(Route(sink, "order.*"), scenario)
    assert rig.account == (4, 0, 1, 0, 0)
    assert rig.lane.dropped.snapshot() == {"journal_damaged": 1}
    assert sink.records == [*first, *last]
    assert sink.names == ["old-0-4"]


def test_damage_in_what_is_given_up_is_no_loss_of_the_lane(
    drive, make_records, disk_journal
):
    """It was lost before: dropped{journal_damaged}, not lane_full."""

    async def scenario(rig):
        rig.add([*make_records(1), DAMAGED])
        assert rig.lane.give_up(2) == 2

    rig = drive(MemorySink(), scenario, journal=disk_journal())
    assert rig.account == (0, 0, 2, 0, 0)
    assert rig.lane.dropped.snapshot() == {"lane_full": 1, "journal_damaged": 1}


def test_the_batch_that_waits_for_its_next_attempt_gives_way_first(drive, make_records):
    """It is the oldest; nothing that a dead sink holds on to may fill the memory."""
    receipts = Receipts(["sink"])
    sink, records = FaultySink(fail_calls=None), make_records(30)
    sink.max_events = 10
    waits = [receipts.expect(record.event_id) for record in records]

    async def scenario(rig):
        rig.add(records)
        flush = asyncio.create_task(rig.lane.flush())
        await rig.settle(0.1)
        assert rig.lane.give_up(5) == 5
        await rig.settle(0.01)
        assert rig.account == (0, 0, 15, 0, 15)
        assert rig.lane.dropped.snapshot() == {"lane_full": 15}
        assert [wait.settled for wait in waits] == [True] * 15 + [False] * 15
        flush.cancel()

    drive(sink, scenario, receipts=receipts, batch_size=10)


def test_the_batch_that_the_sink_has_does_not_give_way(drive, make_records):
    """It may be delivered this very moment."""
    sink = FaultySink(delay=1.0)
    sink.max_events = 10

    async def scenario(rig):
        rig.add(make_records(30))
        await rig.settle(0.1)
        assert rig.lane.give_up(5) == 5
        await rig.settle(1.0)
        assert rig.account == (10, 0, 5, 0, 15)

    drive(sink, scenario, batch_size=10)


def test_the_next_batch_waits_as_long_as_the_one_that_gave_way(drive, make_records):
    """A dead sink is not asked more often because its events are given up."""
    sink = Scripted(*[RetryableSinkError("no")] * 100)
    sink.max_events = 1

    async def scenario(rig):
        rig.add(make_records(500))
        for _ in range(400):
            await rig.settle(0.1)
            rig.lane.give_up(1)

    drive(sink, scenario, batch_size=1)
    assert len(sink.names) < 10  # 0.25, 0.5, 1, 2, 4, 8, 15 s, and 15 s again


def test_a_flush_does_not_wait_for_what_others_left(drive, make_records, disk_journal):
    """A backlog of a process that died is not what the caller emitted."""
    journal = disk_journal("old")
    journal.append(make_records(20))
    sink = FaultySink(delay=1.0)
    sink.max_events = 1

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(0.1)
        rig.add(make_records(1))
        assert await rig.lane.flush()
        assert rig.lane.pending > 10

    drive(sink, scenario)


def test_what_was_taken_over_is_left_to_the_next_process(
    drive, make_records, letters, disk_journal
):
    """The end of this process buries nothing of another's journal."""
    journal = disk_journal("old")
    journal.append(make_records(5))

    async def scenario(rig):
        rig.lane.adopt(journal, LaneState(0, (1,)))
        await rig.settle(0.1)
        await rig.stop()
        rig.lane.abandon([], "late")

    rig = drive(FaultySink(delay=60.0), scenario)
    assert rig.account == (0, 0, 0, 0, 5)
    assert letters() == []
    assert journal.lanes()["sink"] == LaneState(0, (1,))


def test_the_deadline_of_old_events_begins_when_they_are_taken_over(
    drive, make_records, disk_journal
):
    """A process that was down for a day does not bury what waited for it."""
    journal = disk_journal("old")
    journal.append(make_records(2))

    async def scenario(rig):
        await rig.settle(100.0)
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(9.0)
        assert rig.account == (0, 0, 0, 0, 2)
        await rig.settle(10.0)

    sink = Scripted(*[OSError("down")] * 99)
    assert drive(sink, scenario, lifetime=10.0).account == (0, 2, 0, 0, 0)


# Receipts


def outcomes_of(receipts, records, scenario, drive, sink, **options):
    """Run a scenario, then say what those who wait for the records were told."""
    receipts.sinks = ["sink"]
    waits = [receipts.expect(record.event_id) for record in records]
    drive(sink, scenario, receipts=receipts, **options)
    return [wait.outcomes["sink"] for wait in waits]


def test_who_waits_is_told_what_became_of_each_event(drive, make_record):
    """Delivered, refused with its reason, left out by the route, undecided."""

    def when(event):
        return event["event_type"] != "order.bad" or 1 / 0

    receipts = Receipts()
    records = [make_record(n) for n in ("order.a", "order.b", "product.a", "order.bad")]

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    sink = Route(FaultySink(reject=(1,)), "order.*", when)
    assert outcomes_of(receipts, records, scenario, drive, sink) == [
        Outcome("delivered"),
        Outcome("dead_lettered", "the test rejects it"),
        Outcome("not_routed"),
        Outcome("dead_lettered", ROUTE_RAISED),
    ]
    assert receipts.expected == {}


def test_who_waits_is_told_of_what_is_given_up(drive, make_record):
    """Given up, or none of this sink's: either way the wait is over."""
    receipts, records = Receipts(), [make_record(n) for n in ("order.a", "product.a")]

    async def scenario(rig):
        rig.add(records)
        rig.lane.give_up(2)

    sink = Route(MemorySink(), "order.*")
    assert outcomes_of(receipts, records, scenario, drive, sink) == [
        Outcome("dropped", lanes.GIVEN_UP),
        Outcome("not_routed"),
    ]
    assert receipts.expected == {}


def test_who_waits_is_told_that_the_process_ends(drive, make_records):
    """What flew, what waited and what was queued: all of it is in the dead letters."""
    receipts, records = Receipts(), make_records(3)

    async def scenario(rig):
        rig.add(records[:1])
        await rig.settle(0.1)
        rig.add(records[1:2])
        await rig.stop()
        rig.lane.abandon(records[2:], "late")

    sink = FaultySink(delay=60.0)
    found = outcomes_of(receipts, records, scenario, drive, sink, batch_size=1)
    assert found == [Outcome("dead_lettered", "late")] * 3
    assert receipts.expected == {}


def test_who_waits_is_told_of_letters_that_could_not_be_written(
    drive, make_records, folder, monkeypatch
):
    """Neither delivered nor kept: the event is lost, and says so."""

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write", fail)
    receipts, records = Receipts(), make_records(2)

    async def scenario(rig):
        rig.add(records)
        await rig.lane.flush()

    found = outcomes_of(receipts, records, scenario, drive, FaultySink(reject=(0,)))
    assert found == [Outcome("dropped", "the test rejects it"), Outcome("delivered")]


def test_what_is_left_in_a_journal_stays_open(drive, make_records, disk_journal):
    """Nobody knows yet what becomes of it."""
    receipts, records = Receipts(), make_records(1)

    async def scenario(rig):
        rig.add(records)
        await rig.stop()
        rig.lane.abandon([], "late")

    journal = disk_journal()
    found = outcomes_of(
        receipts, records, scenario, drive, MemorySink(), journal=journal
    )
    assert found == [Outcome("pending")]


def test_an_answer_that_accepts_is_enough(drive, make_records):
    """Who asks nobody is told nothing, and nothing is kept for them."""
    receipts = Receipts(["sink"])

    async def scenario(rig):
        rig.add(make_records(2))
        await rig.lane.flush()

    rig = drive(Scripted(ACCEPTED), scenario, receipts=receipts)
    assert rig.account == (2, 0, 0, 0, 0)
    assert receipts.expected == {}


# What others need of a lane


def test_a_route_that_leaves_all_out_does_not_keep_the_loop(drive, make_records):
    """However much passes by, other lanes get their turns meanwhile."""
    turns = []

    async def scenario(rig):
        async def other():
            while rig.lane.pending:
                turns.append(rig.lane.pending)
                await asyncio.sleep(0)

        rig.add(make_records(2_000))
        await other()

    sink = MemorySink()
    sink.max_events = 100
    rig = drive(Route(sink, "product.*"), scenario, batch_size=100)
    assert rig.account == (0, 0, 0, 2_000, 0)
    assert len(set(turns)) > 10


def test_a_journal_that_was_silent_is_not_left_waiting(
    drive, make_records, disk_journal
):
    """Once it answers, what was due is still due."""
    journal, sink = disk_journal(), MemorySink()

    async def scenario(rig):
        rig.add(make_records(1))
        journal.silent = True
        await rig.settle(5.5)
        assert journal.reads == 1
        journal.silent = False
        await rig.settle(1.0)
        assert len(sink.records) == 1

    drive(sink, scenario, journal=journal, flush_interval=5.0)


def test_letters_of_old_events_are_counted_at_the_end(
    drive, make_records, letters, disk_journal
):
    """What is in a dead letter is not left to the next process as well."""
    executor, journal = HeldExecutor(), disk_journal("old")
    journal.append(make_records(2))

    async def scenario(rig):
        asyncio.get_running_loop().set_default_executor(executor)
        rig.lane.adopt(journal, LaneState(0))
        await rig.settle(0.1)
        assert len(executor.held) == 1
        await rig.stop()
        rig.lane.abandon([], "late")

    rig = drive(FaultySink(reject=(1,)), scenario)
    assert rig.account == (1, 1, 0, 0, 0)
    assert len(letters()) == 1
    assert journal.lanes()["sink"] == LaneState(2)


def test_the_end_waits_for_all_calls_to_end(drive, make_records):
    """`stop` comes after each `deliver`, several under way or not."""
    order = []

    class Slow(MemorySink):
        max_in_flight = 3
        max_events = 1

        async def deliver(self, batch):
            try:
                await asyncio.sleep(60.0)
            finally:
                await asyncio.sleep(0.01)
                order.append("deliver")

        async def stop(self):
            order.append("stop")

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.settle(0.1)
        await rig.stop()
        rig.lane.abandon([], "late")

    drive(Slow(), scenario, batch_size=1, max_in_flight=3)
    assert order == ["deliver"] * 3 + ["stop"]


def test_several_batches_abandoned_while_the_sink_is_down_end(
    drive, make_records, told
):
    """Another thread took them away: those that wait for their turn just end."""
    sink = Gated(max_in_flight=3)
    sink.max_events = 1
    sink.down = True

    async def scenario(rig):
        rig.add(make_records(3))
        await rig.settle(0.1)
        for gate in sink.gates.values():
            gate.set()
        await rig.settle(20.0)
        assert rig.lane.failures > 5
        rig.lane.abandon([], "late")
        rig.lane.hurry()
        await rig.settle(60.0)
        assert rig.lane._tasks == set()

    rig = drive(sink, scenario, batch_size=1, max_in_flight=3)
    assert rig.account == (0, 3, 0, 0, 0)
    assert not any("died" in message for message in told)
