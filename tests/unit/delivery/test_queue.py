"""The front queue: bounds, what gives way, who is woken, and exact counts."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from bizlog.delivery.queue import FrontQueue
from bizlog.testing import ManualClock


class Wakes:
    """Counts wake-ups, and may do something at each."""

    def __init__(self, then=None):
        self.count = 0
        self.then = then

    def __call__(self):
        self.count += 1
        if self.then:
            self.then()


def make_queue(**options):
    """Make a queue that is large unless told, and never really sleeps."""
    given = {
        "max_events": 10_000,
        "max_bytes": 1 << 30,
        "overflow": "drop_newest",
        "block_timeout": 1.0,
        "wake": Wakes(),
        "sleep": lambda _: None,
        **options,
    }
    return FrontQueue(**given)


def numbers(records):
    """Name records by their sequence."""
    return [record.sequence for record in records]


@pytest.fixture
def fast_switching():
    """Let threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_records_come_out_in_the_order_they_went_in(make_records):
    """The queue is first in, first out."""
    queue, records = make_queue(), make_records(5)

    assert all(queue.offer(record) for record in records)

    assert queue.take(3) == records[:3]
    assert queue.take(3) == records[3:]
    assert queue.take(3) == []


def test_waiting_bytes_follow_what_is_inside(make_records):
    """What goes in is added, what is taken is subtracted, down to zero."""
    queue, records = make_queue(), make_records(3, size=100)
    for record in records:
        queue.offer(record)
    assert (len(queue), queue.waiting_bytes) == (3, 300)

    queue.take(2)
    assert (len(queue), queue.waiting_bytes) == (1, 100)

    queue.take(2)
    assert (len(queue), queue.waiting_bytes) == (0, 0)


def test_drop_newest_refuses_what_comes_when_events_are_full(make_records):
    """Beyond the bound in events the offered event is dropped and counted."""
    queue, records = make_queue(max_events=3), make_records(5)

    taken = [queue.offer(record) for record in records]

    assert taken == [True, True, True, False, False]
    assert queue.dropped.snapshot() == {"queue_full": 2}
    assert queue.take(9) == records[:3]


def test_drop_newest_refuses_what_comes_when_bytes_are_full(make_record):
    """Beyond the bound in bytes the offered event is dropped; a smaller one fits."""
    queue = make_queue(max_bytes=250)

    assert queue.offer(make_record(size=100))
    assert queue.offer(make_record(size=100))
    assert not queue.offer(make_record(size=100))
    small = make_record()
    assert len(small.data) > 50  # so it does not fit either
    assert not queue.offer(small)
    queue.take(1)
    assert queue.offer(small)

    assert queue.dropped.snapshot() == {"queue_full": 2}


def test_exactly_full_is_not_too_full(make_records):
    """The bounds are inclusive, in events and in bytes."""
    queue = make_queue(max_events=3, max_bytes=300)

    assert all(queue.offer(record) for record in make_records(3, size=100))
    assert queue.dropped.snapshot() == {}


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_one_oversized_event_passes_alone(make_record, overflow):
    """An event larger than the bound goes while nothing else waits, and only then."""
    queue = make_queue(max_bytes=50, overflow=overflow, block_timeout=0)
    large, next_one = make_record(size=500), make_record(size=100)

    assert queue.offer(large)
    taken = queue.offer(next_one)

    assert taken == (overflow == "drop_oldest")
    assert queue.take(9) == ([next_one] if taken else [large])
    assert queue.dropped.snapshot() == {"queue_full": 1}
    assert queue.waiting_bytes == 0


def test_drop_oldest_gives_up_the_oldest_when_events_are_full(make_records):
    """The offered event goes in, the oldest goes out and is counted."""
    queue = make_queue(max_events=3, overflow="drop_oldest")
    records = make_records(5)

    assert all(queue.offer(record) for record in records)

    assert queue.take(9) == records[2:]
    assert queue.dropped.snapshot() == {"queue_full": 2}


def test_drop_oldest_gives_up_as_many_as_the_bytes_need(make_record):
    """One large event may cost several small ones, each counted."""
    queue = make_queue(max_bytes=400, overflow="drop_oldest")
    for _ in range(4):
        queue.offer(make_record(size=100))

    large = make_record(size=250)
    assert queue.offer(large)

    assert queue.dropped.snapshot() == {"queue_full": 3}
    assert queue.waiting_bytes == 350
    assert queue.take(9)[-1] is large


def test_drop_oldest_survives_a_pump_that_was_faster(make_record):
    """What a caller would give up may be taken meanwhile; nothing is counted then."""
    queue = make_queue(max_events=1, overflow="drop_oldest")
    queue.offer(make_record())
    has_room, asked = queue._has_room, []

    def pump_in_between(size):
        asked.append(size)
        if len(asked) == 2:
            room = has_room(size)
            queue.take(9)
            return room
        return has_room(size)

    queue._has_room = pump_in_between

    assert queue.offer(make_record())
    assert queue.dropped.snapshot() == {}


def test_take_survives_a_caller_that_dropped_the_oldest(make_records):
    """A record may vanish between counting and taking; the rest is taken."""
    queue = make_queue()

    class Vanishing(type(queue._records)):
        def __len__(self):
            return super().__len__() + 1

    queue._records = Vanishing(make_records(2))
    queue._bytes_in = sum(len(record.data) for record in queue._records)

    assert numbers(queue.take(9)) == [1, 2]
    assert queue.waiting_bytes == 0


def test_block_waits_in_small_steps_until_there_is_room(make_record):
    """The caller polls; the event is taken as soon as the pump made room."""
    clock = ManualClock()

    def sleep(seconds):
        clock.advance(seconds)
        if clock.now > 0.5:
            queue.take(1)

    wake = Wakes()
    queue = make_queue(
        max_events=1, overflow="block", wake=wake, clock=clock, sleep=sleep
    )
    queue.offer(make_record())

    assert queue.offer(make_record())
    assert 0.5 < clock.now < 0.6
    assert queue.dropped.snapshot() == {}


def test_block_gives_up_at_its_deadline(make_record):
    """After `block_timeout` seconds the event is dropped and counted."""
    clock = ManualClock(100.0)
    queue = make_queue(
        max_events=1,
        overflow="block",
        block_timeout=1.0,
        clock=clock,
        sleep=clock.sleep,
    )
    queue.offer(make_record())

    assert not queue.offer(make_record())

    assert clock.now == pytest.approx(101.0, abs=0.001)
    assert queue.dropped.snapshot() == {"queue_full": 1}


def test_block_with_no_time_drops_at_once(make_record):
    """A timeout of zero never sleeps."""
    slept = []
    queue = make_queue(
        max_events=1, overflow="block", block_timeout=0.0, sleep=slept.append
    )
    queue.offer(make_record())

    assert not queue.offer(make_record())
    assert slept == []


def test_block_wakes_the_pump_it_waits_for(make_record):
    """A blocked caller keeps waking the pump: it may sleep with the flag set."""
    wake = Wakes(lambda: len(queue) > 1 or queue.take(1))
    queue = make_queue(max_events=1, overflow="block", wake=Wakes())
    queue.offer(make_record())
    queue._wake = wake

    assert queue.offer(make_record())
    assert wake.count >= 1


def test_block_never_waits_on_the_pumps_own_thread(make_record):
    """Only the pump could make the room: on its thread the event is dropped."""
    slept = []
    queue = make_queue(max_events=1, overflow="block", sleep=slept.append)
    queue.pump_thread = threading.get_ident()
    queue.offer(make_record())

    assert not queue.offer(make_record())

    assert slept == []
    assert queue.dropped.snapshot() == {"queue_full": 1}


def test_block_does_not_wait_inside_a_wait(make_record):
    """An emit in a signal handler that interrupts a wait drops instead of nesting."""
    clock, inner = ManualClock(), []

    def sleep(seconds):
        clock.advance(seconds)
        if len(inner) < 3:
            inner.append(queue.offer(make_record()))

    queue = make_queue(max_events=1, overflow="block", clock=clock, sleep=sleep)
    queue.offer(make_record())

    assert not queue.offer(make_record())

    assert inner == [False] * 3
    assert queue.dropped.snapshot() == {"queue_full": 4}
    assert clock.now == pytest.approx(1.0, abs=0.01)


def test_block_ends_when_the_queue_is_closed(make_record):
    """A shutdown frees the blocked callers; their events count as closed."""

    def sleep(_):
        queue.closed = True

    queue = make_queue(max_events=1, overflow="block", sleep=sleep)
    queue.offer(make_record())

    assert not queue.offer(make_record())
    assert queue.dropped.snapshot() == {"closed": 1}


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_a_closed_queue_takes_nothing(make_record, overflow):
    """After shutdown every event counts as dropped{closed}; what waits stays."""
    queue = make_queue(overflow=overflow)
    first = make_record()
    queue.offer(first)
    queue.closed = True

    assert not queue.offer(make_record())
    assert not queue.offer(make_record())

    assert queue.dropped.snapshot() == {"closed": 2}
    assert queue.take(9) == [first]


class ClosesDuringAppend(type(make_queue()._records)):
    """A deque in the middle of whose append another thread shuts down."""

    queue = None
    pump_takes = False

    def append(self, record):
        super().append(record)
        self.queue.closed = True
        if self.pump_takes:
            self.queue.take(9)


@pytest.mark.parametrize("pump_takes", [False, True])
def test_an_event_never_strands_in_a_queue_that_closes_meanwhile(
    make_record, pump_takes
):
    """Offered while shutdown begins: either the pump has it, or it is dropped."""
    queue = make_queue()
    queue._records = ClosesDuringAppend()
    queue._records.queue, queue._records.pump_takes = queue, pump_takes

    assert queue.offer(make_record()) is pump_takes

    assert len(queue) == 0
    assert queue.waiting_bytes == 0
    assert queue.dropped.snapshot() == ({} if pump_takes else {"closed": 1})


def test_the_pump_is_woken_once_until_it_looked(make_records):
    """Below a quarter of the queue, one wake-up serves all events until the next."""
    wake = Wakes()
    queue = make_queue(wake=wake)
    for record in make_records(100):
        queue.offer(record)
    assert wake.count == 1

    queue.take(100)
    queue.awake = False
    for record in make_records(100):
        queue.offer(record)
    assert wake.count == 2


def test_the_record_is_inside_before_the_pump_is_woken(make_record):
    """A pump that runs the moment it is woken finds the event."""
    seen = []
    queue = make_queue(wake=lambda: seen.append(len(queue)))

    queue.offer(make_record())

    assert seen == [1]


def test_a_pump_that_gathers_is_hurried_once_above_a_quarter(make_records):
    """A filling queue wakes the gathering pump once more, not once an event."""
    wake = Wakes()
    queue = make_queue(max_events=400, wake=wake)

    for record in make_records(300):
        queue.offer(record)
    assert wake.count == 2

    queue.hurried = False
    for record in make_records(50):
        queue.offer(record)
    assert wake.count == 3


def test_a_dropped_event_wakes_nobody(make_records):
    """A full queue whose pump knows costs no wake-up for each refused event."""
    wake = Wakes()
    queue = make_queue(max_events=4, wake=wake)
    for record in make_records(4):
        queue.offer(record)
    before = wake.count

    for record in make_records(1_000):
        queue.offer(record)

    assert wake.count == before


def test_a_busy_caller_gives_way_the_longer_the_fuller_it_is(make_records):
    """Above a quarter 50 µs every 1,024 events; 1 ms, then 5 ms every 512 above half."""
    slept = []
    queue = make_queue(max_events=8_000, sleep=slept.append)

    for record in make_records(2_001):
        queue.offer(record)
    assert slept == []  # up to a quarter nobody sleeps

    for record in make_records(1_999):
        queue.offer(record)
    assert slept == [0.000_05]

    for record in make_records(512 * 2):
        queue.offer(record)
    assert slept == [0.000_05, 0.001, 0.001]

    for record in make_records(512 * 3):
        queue.offer(record)
    assert slept == [0.000_05, 0.001, 0.001, 0.001, 0.001, 0.005]


def test_a_caller_that_is_refused_yields_as_well(make_records):
    """Who floods a full queue leaves the pump the time to empty it."""
    slept = []
    queue = make_queue(max_events=4, sleep=slept.append)

    for record in make_records(4 + 512 * 3):
        queue.offer(record)

    assert slept == [0.005] * 3


def test_the_highest_number_that_was_offered_is_marked(make_record):
    """Taken or dropped, and whatever order threads come in: numbers only grow."""
    queue = make_queue(max_events=2)
    queue.mark = SimpleNamespace(cells=[0, 0])
    first, second, third, fourth = (make_record() for _ in range(4))

    queue.offer(second)
    queue.offer(first)
    assert queue.mark.cells == [second.sequence, 0]
    queue.offer(third)
    assert not queue.offer(fourth)
    assert queue.mark.cells == [fourth.sequence, 0]


def test_the_pumps_thread_never_yields(make_records):
    """A sink that emits does not pause the loop it runs on."""
    slept = []
    queue = make_queue(max_events=1_000, sleep=slept.append)
    queue.pump_thread = threading.get_ident()

    for record in make_records(2_000):
        queue.offer(record)

    assert slept == []


# One caller and the pump, step by step: every interleaving of
#   caller: append; look at the flag; if it is clear: set it, wake
#   pump:   take; clear the flag; look again; if something is there: set it, once more
def _caller(state):
    state["waiting"] += 1
    yield
    awake = state["awake"]
    yield
    if not awake:
        state["awake"] = True
        yield
        state["woken"] = True
        yield


def _pump(state, recheck):
    while True:
        state["waiting"] = 0
        yield
        state["awake"] = False
        yield
        if not (recheck and state["waiting"]):
            return  # it sleeps until it is woken
        state["awake"] = True
        yield


def _lost_wakes(callers, recheck):
    """Run every schedule; return those that leave a record without a wake-up."""
    lost, schedules = [], [()]
    while schedules:
        schedule = schedules.pop()
        state = {"waiting": 0, "awake": True, "woken": False}
        actors = [_pump(state, recheck), *(_caller(state) for _ in range(callers))]
        alive = set(range(len(actors)))
        for actor in schedule:
            if next(actors[actor], "end") == "end":
                alive.discard(actor)
        if alive:
            schedules += [(*schedule, actor) for actor in alive]
        elif state["waiting"] and not state["woken"]:
            lost.append(schedule)
    return lost


def test_no_interleaving_loses_a_wake_up():
    """Clear, then look again: no schedule leaves a record that nobody was woken for."""
    assert _lost_wakes(callers=1, recheck=True) == []
    assert _lost_wakes(callers=2, recheck=True) == []


def test_the_model_finds_the_lost_wake_up_without_the_second_look():
    """The model is sharp: without the recheck it finds schedules that lose one."""
    assert _lost_wakes(callers=1, recheck=False)


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_eight_threads_are_counted_exactly(make_record, fast_switching, overflow):
    """With the pump taking meanwhile: taken + dropped == offered, to the last event."""
    queue = make_queue(
        max_events=64,
        overflow=overflow,
        block_timeout=0.002,
        sleep=time.sleep,
        wake=lambda: None,
    )
    record, each = make_record(), 3_000
    start, done, taken = threading.Barrier(9), threading.Event(), []

    def offer():
        start.wait()
        for _ in range(each):
            queue.offer(record)

    def pump():
        start.wait()
        while not done.is_set():
            taken.extend(queue.take(50))
            time.sleep(0)

    threads = [threading.Thread(target=offer) for _ in range(8)]
    pump_thread = threading.Thread(target=pump)
    for thread in [*threads, pump_thread]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    pump_thread.join()
    taken += queue.take(1_000)

    dropped = sum(queue.dropped.snapshot().values())
    assert len(taken) + dropped == 8 * each
    assert queue.waiting_bytes == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_a_signal_handler_may_emit_inside_an_emit(make_record, overflow):
    """No lock to hang on: handler and interrupted code are both counted exactly."""
    queue = make_queue(
        max_events=32, overflow=overflow, block_timeout=0.001, sleep=time.sleep
    )
    record, offered, taken = make_record(), [0], []

    def handler(*_):
        for _ in range(3):
            offered[0] += 1
            queue.offer(record)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for _ in range(200):
                offered[0] += 1
                queue.offer(record)
            taken.extend(queue.take(30))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    taken += queue.take(1_000)

    dropped = sum(queue.dropped.snapshot().values())
    assert len(taken) + dropped == offered[0]
    assert queue.waiting_bytes == 0


def test_a_nudge_wakes_the_pump_until_the_queue_is_closed():
    """Behind the end nobody is left to look, and no thread may be started for it."""
    queue = make_queue()
    queue.nudge()
    queue.nudge()
    assert queue._wake.count == 1

    queue = make_queue()
    queue.closed = True
    queue.nudge()
    assert queue._wake.count == 0
