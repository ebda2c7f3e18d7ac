"""The pump, in virtual time: no record stays behind, and the bounds are shared fairly."""

from __future__ import annotations

import asyncio
import errno

import msgspec
import pytest

from bizlog.delivery import pump as module
from bizlog.delivery.dead_letters import DeadLetter
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.delivery.pump import Pump
from bizlog.delivery.queue import FrontQueue
from bizlog.delivery.receipts import Receipts
from bizlog.sinks import Route
from bizlog.testing import FaultySink, MemorySink


class Rig:
    """A queue, a pump and a lane for each sink, on the running loop."""

    def __init__(self, folder, *sinks, **options):
        self.max_events = options.get("max_events", 10_000)
        self.max_bytes = options.get("max_bytes", 1 << 30)
        self.wakes = 0
        self.queue = (options.get("queue_class") or FrontQueue)(
            max_events=self.max_events,
            max_bytes=self.max_bytes,
            overflow="drop_newest",
            block_timeout=0.0,
            wake=self.wake,
            sleep=lambda _: None,
        )
        self.journal = options.get("journal") or MemoryJournal()
        self.keeper = options.get("keeper")
        self.receipts = options.get("receipts")
        self.lanes = [
            Lane(
                name=f"sink-{number}",
                route=Route(sink),
                journal=self.journal,
                batcher=Batcher(options.get("batch_size", 100), 1 << 30, 5.0),
                sink_timeout=options.get("sink_timeout", 60.0),
                dead_letters=folder,
                on_progress=lambda: self.pump.on_progress(),
                clock=asyncio.get_running_loop().time,
            )
            for number, sink in enumerate(sinks)
        ]
        self.pump = Pump(
            queue=self.queue,
            journal=self.journal,
            lanes=self.lanes,
            dead_letters=folder,
            max_events=self.max_events,
            max_bytes=self.max_bytes,
            max_disk=options.get("max_disk", 1 << 62),
            receipts=self.receipts,
            keeper=self.keeper,
        )
        self.tasks = []

    def start(self):
        self.tasks = [asyncio.create_task(lane.run()) for lane in self.lanes]
        self.tasks.append(asyncio.create_task(self.pump.run()))

    def wake(self):
        self.wakes += 1
        asyncio.get_running_loop().call_soon(self.pump.wake)

    def offer(self, records):
        return [self.queue.offer(record) for record in records]

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for lane in self.lanes:
            await lane.stop()


@pytest.fixture
def drive(run, folder):
    """Run a scenario with a started rig, then stop it."""

    def drive_it(scenario, *sinks, **options):
        async def main():
            rig = Rig(folder, *sinks, **options)
            rig.start()
            try:
                await scenario(rig)
            finally:
                await rig.stop()
            return rig

        return run(main())

    return drive_it


def make_letter(name):
    """Make the dead letter of a refused event."""
    return DeadLetter("bad", "$.a", None, 0, "", "", name, msgspec.Raw(b"{}"))


def test_every_record_reaches_every_sink_in_order(drive, make_records):
    """Fan-out: each sink gets all records, in the order they were offered."""
    sinks, records = [MemorySink(), MemorySink()], make_records(250)

    async def scenario(rig):
        rig.offer(records)
        assert await rig.pump.flush()

    drive(scenario, *sinks)
    assert [sink.records for sink in sinks] == [records, records]


def test_a_record_offered_while_the_pump_sleeps_wakes_it(drive, make_records):
    """After any idle time one offer is enough."""
    sink = MemorySink()

    async def scenario(rig):
        for round_number in range(1, 6):
            await asyncio.sleep(100)
            rig.offer(make_records(1))
            await asyncio.sleep(1)
            assert len(sink.records) == round_number

    rig = drive(scenario, sink, batch_size=1)
    assert rig.wakes == 5


def test_a_busy_caller_wakes_the_pump_at_most_a_hundred_times_a_second(
    drive, make_records
):
    """It takes all that waits and gathers for 10 ms: a wake-up does not follow each."""
    sink = MemorySink()

    async def scenario(rig):
        for _ in range(1_000):
            rig.offer(make_records(1))
            await asyncio.sleep(0.001)
        await rig.pump.flush()

    rig = drive(scenario, sink)
    assert len(sink.records) == 1_000
    assert rig.wakes <= 101


class RacingQueue(FrontQueue):
    """A queue into which another thread offers at the worst moments."""

    before = after = None
    _flag = False

    @property
    def awake(self):
        return self._flag

    @awake.setter
    def awake(self, value):
        if not value and self.before is not None:
            record, self.before = self.before, None
            self.offer(record)
        self._flag = value
        if not value and self.after is not None:
            record, self.after = self.after, None
            self.offer(record)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_no_wake_up_is_lost_around_the_clearing_of_the_flag(drive, make_record, moment):
    """Offered just before the flag is cleared, or just after: it is delivered."""
    sink, record = MemorySink(), make_record()

    async def scenario(rig):
        await asyncio.sleep(1)
        setattr(rig.queue, moment, record)
        rig.pump.wake()
        await asyncio.sleep(1)
        assert sink.records == [record]

    drive(scenario, sink, batch_size=1, queue_class=RacingQueue)


def test_a_dead_letter_left_before_the_flag_is_cleared_is_written(
    drive, folder, letters
):
    """The same race for refused events, which come without a record."""

    class Racing(RacingQueue):
        pump = None

        def offer(self, record):
            self.pump.rejected.append(record)
            return True

    async def scenario(rig):
        await asyncio.sleep(1)
        rig.queue.pump = rig.pump
        rig.queue.before = make_letter("a")
        rig.pump.wake()
        await asyncio.sleep(1)
        assert [letter["event_id"] for letter in letters()] == ["a"]

    drive(scenario, MemorySink(), queue_class=Racing)


def test_long_runs_are_taken_in_pieces(drive, make_records, monkeypatch):
    """A run has at most RUN_EVENTS records, and the lanes get their turn between."""
    monkeypatch.setattr(module, "RUN_EVENTS", 10)
    sink, runs = MemorySink(), []

    async def scenario(rig):
        append = rig.journal.append
        rig.journal.append = lambda run: (runs.append(len(run)), append(run))
        rig.offer(make_records(45))
        await asyncio.sleep(0.1)

    drive(scenario, sink, batch_size=1)
    assert runs == [10, 10, 10, 10, 5]
    assert len(sink.records) == 45


def test_what_all_sinks_have_is_forgotten(drive, make_records):
    """The memory journal is empty when everything is settled."""

    async def scenario(rig):
        for _ in range(20):
            rig.offer(make_records(50))
            await rig.pump.flush()
            assert rig.journal._runs == []

    drive(scenario, MemorySink(), MemorySink())


# Bounds


def test_a_sink_that_hangs_holds_no_other_one(drive, make_records):
    """Beside a hanging sink the others get their events at their own pace."""
    hanging, live = FaultySink(delay=1e6), MemorySink()

    async def scenario(rig):
        for _ in range(50):
            rig.offer(make_records(100))
            await asyncio.sleep(0.02)
        assert len(live.records) == 5_000

    drive(scenario, hanging, live, sink_timeout=1e6)


def test_only_the_slowest_lane_gives_up_its_oldest(drive, make_records):
    """Beyond the bound the lane that stays behind loses, counted; the live one none."""
    hanging, live = FaultySink(delay=50.0), MemorySink()
    records = make_records(2_000)

    async def scenario(rig):
        for start in range(0, 2_000, 50):
            assert all(rig.offer(records[start : start + 50]))
            await asyncio.sleep(0.02)
        slow, fast = rig.lanes
        lost = slow.dropped.snapshot()["lane_full"]
        assert slow.pending + lost == 2_000
        assert slow.pending <= 300 + 100
        assert fast.dropped.snapshot() == {}
        await rig.pump.flush()
        assert slow.delivered + lost == 2_000

    drive(scenario, hanging, live, max_events=300, batch_size=50)
    assert live.records == records
    assert hanging.records[-300:] == records[-300:]  # the newest are the ones kept


def test_a_slow_lane_is_bounded_in_bytes_as_well(drive, make_records):
    """Large events count by their size."""
    hanging, live = FaultySink(delay=1e6), MemorySink()
    hanging.max_events = 1

    async def scenario(rig):
        for _ in range(50):
            rig.offer(make_records(2, size=1_000))
            await asyncio.sleep(0.02)
        slow, fast = rig.lanes
        assert slow.batcher.bytes <= 12_000  # the bound and one run
        assert slow.pending + slow.dropped.snapshot()["lane_full"] == 100
        assert fast.delivered == 100

    drive(scenario, hanging, live, max_bytes=10_000, sink_timeout=1e9, batch_size=1)


def test_one_event_larger_than_the_bound_is_not_given_up(drive, make_record):
    """A lane always keeps its newest event, however large."""
    slow, live = FaultySink(delay=1.0), MemorySink()

    async def scenario(rig):
        rig.offer([make_record(size=10)])
        await asyncio.sleep(0.1)
        rig.offer([make_record(size=50_000)])
        assert await rig.pump.flush()

    rig = drive(scenario, slow, live, max_bytes=1_000, batch_size=1)
    assert [lane.delivered for lane in rig.lanes] == [2, 2]


@pytest.mark.parametrize("bound", [{"max_events": 100}, {"max_bytes": 20_000}])
def test_a_single_slow_sink_loses_nothing_behind_the_queue(drive, make_records, bound):
    """No other lane needs the room: what does not fit stays in the queue."""
    sink = FaultySink(delay=1.0)
    sink.max_events = 20

    async def scenario(rig):
        left = make_records(1_000, size=200)
        while left:
            if all(rig.offer(left[:1])):
                del left[0]
            else:
                await asyncio.sleep(0.5)
        await rig.pump.flush()

    rig = drive(scenario, sink, batch_size=20, **bound)
    assert rig.lanes[0].dropped.snapshot() == {}
    assert [record.sequence for record in sink.records] == list(range(1, 1_001))


@pytest.mark.parametrize("bound", [{"max_events": 100}, {"max_bytes": 20_000}])
def test_equally_slow_sinks_lose_nothing_behind_the_queue(drive, make_records, bound):
    """No lane is slower than the other: neither gives anything up."""
    sinks = [FaultySink(delay=1.0), FaultySink(delay=1.01)]
    for sink in sinks:
        sink.max_events = 20

    async def scenario(rig):
        left = make_records(1_000, size=200)
        while left:
            if all(rig.offer(left[:1])):
                del left[0]
            else:
                await asyncio.sleep(0.5)
        await rig.pump.flush()

    rig = drive(scenario, *sinks, batch_size=20, **bound)
    assert [lane.dropped.snapshot() for lane in rig.lanes] == [{}, {}]
    assert [len(sink.records) for sink in sinks] == [1_000, 1_000]


def test_room_made_by_a_lane_is_used_at_once(drive, make_records):
    """When a full lane settles a batch the pump goes on without being woken."""
    sink = FaultySink(delay=1.0)
    sink.max_events = 10

    async def scenario(rig):
        rig.offer(make_records(10))
        await asyncio.sleep(0.5)
        rig.offer(make_records(10))
        await asyncio.sleep(0.1)
        rig.offer(make_records(10))
        assert len(rig.queue) == 10
        await asyncio.sleep(2.6)
        assert len(rig.queue) == 0
        assert len(sink.records) == 30

    drive(scenario, sink, max_events=10, batch_size=10)


# Flushing


def test_flush_covers_what_waits_in_the_queue(drive, make_records):
    """Also what the pump has not seen yet."""
    sink = MemorySink()

    async def scenario(rig):
        rig.offer(make_records(30))
        assert await rig.pump.flush()
        assert len(sink.records) == 30

    drive(scenario, sink, batch_size=1_000)


def test_flush_waits_for_room(drive, make_records):
    """When the lanes are full it goes on as they make room."""
    sink = FaultySink(delay=0.1)
    sink.max_events = 10

    async def scenario(rig):
        rig.offer(make_records(10))
        await asyncio.sleep(0.05)
        rig.offer(make_records(10))
        await asyncio.sleep(0.02)
        rig.offer(make_records(10))
        assert await rig.pump.flush()
        assert len(sink.records) == 30

    drive(scenario, sink, max_events=10, batch_size=10)


def test_flush_ends_while_others_go_on_emitting(drive, make_records):
    """It settles what was offered until it was asked, not what comes after."""
    sink = MemorySink()

    async def scenario(rig):
        append = rig.journal.append

        def append_and_offer_more(run):
            append(run)
            rig.offer(make_records(len(run)))

        rig.journal.append = append_and_offer_more
        rig.offer(make_records(10))
        assert await rig.pump.flush()
        assert len(sink.records) >= 10
        rig.journal.append = append

    drive(scenario, sink)


def test_flush_says_when_a_sink_could_not(drive, make_records):
    """One sink's failing flush makes the answer False; the other's is still called."""

    class NoFlush(MemorySink):
        async def flush(self):
            raise OSError

    other = MemorySink()

    async def scenario(rig):
        rig.offer(make_records(1))
        assert not await rig.pump.flush()

    drive(scenario, NoFlush(), other)
    assert "flush" in other.calls


# Dead letters of refused events


def test_refused_events_are_buried(drive, letters):
    """What the chain refused is written on the pump's side, in order."""

    async def scenario(rig):
        rig.pump.rejected.append(make_letter("a"))
        rig.pump.rejected.append(make_letter("b"))
        rig.pump.wake()
        await asyncio.sleep(0.1)
        rig.pump.rejected.append(make_letter("c"))
        await rig.pump.flush()

    drive(scenario, MemorySink())
    assert [letter["event_id"] for letter in letters()] == ["a", "b", "c"]
    assert letters()[0]["attempts"] == 0


def test_refused_events_that_cannot_be_buried_raise_nothing(
    drive, folder, monkeypatch, make_records
):
    """An unwritable folder is told; events still flow, and flush is still true."""

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder, "write", fail)
    sink = MemorySink()

    async def scenario(rig):
        rig.pump.rejected.append(make_letter("a"))
        rig.offer(make_records(1))
        assert await rig.pump.flush()
        assert len(sink.records) == 1
        await rig.stop()
        rig.pump.rejected.append(make_letter("b"))
        rig.pump.abandon("late")

    drive(scenario, sink)


# The end


def test_abandoning_buries_queue_lanes_and_refused_events(drive, make_records, letters):
    """Everything that is left is kept, per sink, whatever stage it was in."""
    sinks = [FaultySink(delay=1e6), FaultySink(delay=1e6)]

    async def scenario(rig):
        rig.offer(make_records(5))
        await asyncio.sleep(10)
        await rig.stop()
        rig.offer(make_records(3))
        rig.pump.rejected.append(make_letter("refused"))
        rig.pump.abandon("the deadline has passed")
        assert len(rig.queue) == 0

    rig = drive(scenario, *sinks, sink_timeout=1e9, batch_size=2)
    assert [lane.dead_lettered for lane in rig.lanes] == [8, 8]
    assert [lane.pending for lane in rig.lanes] == [0, 0]
    found = letters()
    assert len(found) == 17
    assert len({(letter["sink"], letter["event_id"]) for letter in found}) == 17


def test_abandoning_where_nothing_is_left_writes_nothing(drive, folder):
    """A clean end leaves no dead-letter folder."""

    async def scenario(rig):
        await rig.stop()
        rig.pump.abandon("late")

    drive(scenario, MemorySink())
    assert not folder.path.parent.exists()


def test_a_cancellation_that_meets_a_wake_up_is_not_lost(drive, make_records):
    """A record offered in the moment of the shutdown does not keep the pump going."""

    async def scenario(rig):
        rig.offer(make_records(1))
        await asyncio.sleep(0.005)  # it gathers
        rig.pump.wake()
        rig.tasks[-1].cancel()
        await asyncio.sleep(0.1)
        assert rig.tasks[-1].done()

    drive(scenario, MemorySink())


def test_a_dead_lane_does_not_fill_the_memory(drive, make_records):
    """What its first batch holds up is no reason to keep what others have."""
    live, dead = MemorySink(), FaultySink(delay=3_600)
    dead.max_events = 10

    async def scenario(rig):
        for _ in range(200):
            rig.offer(make_records(50))
            await asyncio.sleep(0.1)
            assert await rig.lanes[0].flush()
        assert rig.journal.end - rig.journal.start <= 2 * rig.max_events
        assert rig.lanes[0].delivered == 10_000

    drive(scenario, live, dead, max_events=500)


# With a journal on disk


class StandInKeeper:
    """Looks after nothing, and notes when it was asked to."""

    def __init__(self):
        self.has_room = True
        self.error = None
        self.tended = 0
        self.closed = 0

    def tend(self):
        self.tended += 1
        if self.error:
            raise self.error

    def note_taken(self, run):
        pass

    def release(self):
        pass

    def remembers(self, position):
        return False

    def close(self, settled):
        self.closed += 1


def test_a_journal_is_looked_after_once_a_second(drive, disk_journal):
    """Whether or not anything is emitted."""
    keeper = StandInKeeper()

    async def scenario(_):
        await asyncio.sleep(9.5)
        assert keeper.tended == 10

    drive(scenario, MemorySink(), journal=disk_journal(), keeper=keeper)


def test_a_fault_in_looking_after_a_journal_stops_nothing(
    drive, make_records, disk_journal, told
):
    """It is told, events flow, and the next second tries again."""
    keeper, sink = StandInKeeper(), MemorySink()
    keeper.error = RuntimeError("a fault of ours")

    async def scenario(rig):
        await asyncio.sleep(2.5)
        rig.offer(make_records(3))
        assert await rig.pump.flush()
        assert keeper.tended == 3

    drive(scenario, sink, journal=disk_journal(), keeper=keeper)
    assert len(sink.records) == 3
    assert "a fault of ours" in told[0]


def test_a_journal_on_disk_is_not_bounded_by_memory(drive, make_records, disk_journal):
    """A dead sink fills the disk's bound, not that of the queue."""
    dead, records = FaultySink(fail_calls=None), make_records(2_000)

    async def scenario(rig):
        for start in range(0, 2_000, 50):
            rig.offer(records[start : start + 50])
            await asyncio.sleep(0.1)
        assert rig.lanes[0].pending == 2_000
        assert rig.queue.dropped.snapshot() == {}

    drive(
        scenario, dead, journal=disk_journal(), keeper=StandInKeeper(), max_events=100
    )


def test_while_the_disk_refuses_memory_bounds(drive, make_records, disk_journal):
    """Records stay in the queue; the room that comes back is used within a second."""
    keeper, sink = StandInKeeper(), MemorySink()
    keeper.has_room = False

    async def scenario(rig):
        rig.offer(make_records(10))
        await asyncio.sleep(5.5)
        assert len(rig.queue) == 10
        keeper.has_room = True
        await asyncio.sleep(1.1)
        assert len(rig.queue) == 0

    drive(scenario, sink, journal=disk_journal(), keeper=keeper)


def test_a_slow_lane_is_bounded_by_the_disk(drive, make_records, disk_journal):
    """Beyond `max_disk` ahead of the fastest lane it gives up its oldest."""
    live, dead = MemorySink(), FaultySink(fail_calls=None)

    async def scenario(rig):
        for _ in range(50):
            rig.offer(make_records(10, size=100))
            await rig.pump.lanes[0].flush()
            await asyncio.sleep(0.1)
        slow = rig.lanes[1]
        assert slow.batcher.bytes <= 10_000 + 1_000
        lost = slow.dropped.snapshot()["lane_full"]
        assert lost + slow.pending == 500
        assert rig.lanes[0].delivered + rig.lanes[0].pending == 500

    drive(
        scenario,
        live,
        dead,
        journal=disk_journal(),
        keeper=StandInKeeper(),
        max_disk=10_000,
    )


def test_a_disk_that_gives_no_answer_is_not_asked_without_end(
    drive, make_records, disk_journal
):
    """What cannot be read cannot be given up now; the pump goes on."""
    live, dead, journal = MemorySink(), FaultySink(fail_calls=None), disk_journal()
    dead.max_events = 100

    async def scenario(rig):
        rig.offer(make_records(1_000, size=100))
        await asyncio.sleep(0.1)
        assert await rig.lanes[0].flush()
        journal.silent = True
        rig.offer(make_records(1, size=100))
        await asyncio.sleep(1.0)
        assert journal.reads < 30
        assert rig.lanes[1].dropped.snapshot() == {}
        journal.silent = False
        rig.offer(make_records(1, size=100))
        await asyncio.sleep(0.1)
        assert rig.lanes[1].dropped.snapshot()["lane_full"] > 500

    drive(
        scenario,
        live,
        dead,
        journal=journal,
        keeper=StandInKeeper(),
        max_disk=10_000,
    )


def test_what_waits_at_the_end_is_left_on_the_disk(
    drive, make_records, disk_journal, letters
):
    """The queue as well: nothing becomes a dead letter, and all is pending."""
    keeper = StandInKeeper()

    async def scenario(rig):
        rig.offer(make_records(5))
        await asyncio.sleep(0.1)
        await rig.stop()
        rig.offer(make_records(3))
        rig.pump.abandon("late")
        rig.offer(make_records(2))  # later than late: the journal is closed
        rig.pump.abandon("again")
        assert rig.lanes[0].pending == 8
        assert rig.lanes[0].dead_lettered == 2

    drive(scenario, FaultySink(delay=60), journal=disk_journal(), keeper=keeper)
    assert keeper.closed == 1
    assert len(letters()) == 2


def test_who_waits_for_the_journal_is_told(drive, make_records, disk_journal):
    """As soon as it is on disk; not while the disk refuses."""
    receipts, records, journal = Receipts(["sink-0"]), make_records(2), disk_journal()
    waits = [receipts.expect(record.event_id) for record in records]

    async def scenario(rig):
        rig.offer(records[:1])
        await asyncio.sleep(0.1)
        journal.durable = False
        rig.offer(records[1:])
        await asyncio.sleep(0.1)
        assert [wait.journaled for wait in waits] == [True, False]

    drive(
        scenario,
        FaultySink(delay=60),
        journal=journal,
        keeper=StandInKeeper(),
        receipts=receipts,
    )


def test_a_pump_that_was_abandoned_takes_nothing_more(drive, make_records):
    """Another thread ended it while this one was stuck; it comes back, and ends."""

    async def scenario(rig):
        await asyncio.sleep(0.1)
        rig.pump.abandon("stuck")
        rig.offer(make_records(2))
        await asyncio.sleep(5.0)
        assert rig.tasks[-1].done()
        assert len(rig.queue) == 2

    drive(scenario, MemorySink())


class Memory:
    """Stands where a keeper stands; remembers what came from a position on."""

    has_room = True

    def __init__(self, start):
        self.start = start

    def remembers(self, position):
        return position >= self.start

    def tend(self):
        """Nothing to look after."""

    def note_taken(self, run):
        """Nothing to note."""

    def release(self):
        """Nothing to free."""

    def close(self, settled):
        """Nothing to close."""


class Hanging(MemorySink):
    """Accepts and never answers."""

    async def deliver(self, batch):
        await asyncio.sleep(3_600)


def test_a_lane_that_follows_is_waited_for_but_not_long(drive, make_records):
    """The pump leaves a run to lanes close behind for 20 ms, then keeps the next one."""
    kept = []

    async def scenario(rig):
        rig.offer(make_records(3 * module.RUN_EVENTS))
        for _ in range(3):
            await asyncio.sleep(module.FOLLOW_SECONDS * 0.9)
            kept.append(rig.journal.end // module.RUN_EVENTS)
            await asyncio.sleep(module.FOLLOW_SECONDS * 0.1 + 1e-6)

    drive(scenario, Hanging(), keeper=Memory(0), max_events=20_000)
    assert kept == [1, 2, 3]


def test_a_lane_that_fell_behind_is_not_waited_for(drive, make_records):
    """Who has to read the disk anyway holds up nothing: all is kept at once."""

    async def scenario(rig):
        rig.offer(make_records(3 * module.RUN_EVENTS))
        await asyncio.sleep(module.FOLLOW_SECONDS / 2)
        assert rig.journal.end == 3 * module.RUN_EVENTS

    drive(scenario, Hanging(), keeper=Memory(1 << 62), max_events=20_000)


def test_lanes_that_follow_are_never_far_behind(drive, make_records):
    """While a sink takes what it gets, no more than two runs wait for it; a flush too."""
    sink, behind = MemorySink(), []

    async def scenario(rig):
        append = rig.journal.append

        def appending(run):
            append(run)
            behind.append(rig.lanes[0].pending)

        rig.journal.append = appending
        rig.offer(make_records(3 * module.RUN_EVENTS))
        assert await rig.pump.flush()

    drive(scenario, sink, keeper=Memory(0), max_events=20_000)
    assert len(sink.events) == 3 * module.RUN_EVENTS
    assert max(behind) <= 2 * module.RUN_EVENTS
