"""The engine: one thread and loop, started once, gone after shutdown, within deadlines."""

from __future__ import annotations

import asyncio
import multiprocessing.util
import os
import sys
import threading
import time
import types

import pytest

from bizlog.delivery import engine as module
from bizlog.delivery import executor
from bizlog.delivery.engine import Engine
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.delivery.pump import Pump
from bizlog.delivery.queue import FrontQueue
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import Route
from bizlog.testing import FaultySink, MemorySink

SLACK = 0.5


class Rig:
    """An engine with a lane for each sink."""

    def __init__(self, folder, *sinks, **options):
        self.queue = FrontQueue(
            max_events=10_000,
            max_bytes=1 << 30,
            overflow=options.get("overflow", "drop_newest"),
            block_timeout=1.0,
            wake=lambda: self.engine.wake(),
        )
        journal = MemoryJournal()
        self.lanes = [
            Lane(
                name=f"sink-{number}",
                route=Route(sink),
                journal=journal,
                batcher=Batcher(
                    options.get("batch_size", 10),
                    1 << 30,
                    options.get("flush_interval", 60.0),
                ),
                sink_timeout=options.get("sink_timeout", 60.0),
                dead_letters=folder,
                on_progress=lambda: self.engine.pump.on_progress(),
                clock=time.monotonic,
            )
            for number, sink in enumerate(sinks)
        ]
        self.offered = 0

        def make_pump():
            return Pump(
                queue=self.queue,
                journal=journal,
                lanes=self.lanes,
                dead_letters=folder,
                max_events=10_000,
                max_bytes=1 << 30,
            )

        self.engine = Engine(
            self.queue, make_pump, options.get("shutdown_timeout", 1.0)
        )

    def offer(self, records):
        self.offered += len(records)
        return [self.queue.offer(record) for record in records]

    @property
    def closed(self):
        """Whether every event offered stands in exactly one place, and none waits."""
        return len(self.queue) == 0 and all(
            lane.pending == 0
            and lane.delivered
            + lane.dead_lettered
            + lane.not_routed
            + sum(lane.dropped.snapshot().values())
            + sum(self.queue.dropped.snapshot().values())
            == self.offered
            for lane in self.lanes
        )


def our_threads():
    """List bizlog's threads that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("bizlog")]


@pytest.fixture
def make_rig(folder, until):
    """Make rigs; all are shut down, and no thread may stay."""
    until(lambda: not our_threads())
    made = []

    def make(*sinks, **options):
        rig = Rig(folder, *sinks, **options)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.engine.shutdown(5.0)
    until(lambda: not our_threads())
    assert not any(rig.engine in module._running for rig in made)


class Blocking(MemorySink):
    """Blocks bizlog's loop until it is released."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.release = threading.Event()

    async def deliver(self, batch):
        self.entered.set()
        self.release.wait(30)
        return await super().deliver(batch)


# The thread


def test_no_thread_before_the_first_event(make_rig):
    """Configuring costs no thread."""
    make_rig(MemorySink())

    assert our_threads() == []


def test_the_first_event_starts_one_thread_and_its_helpers(make_rig, make_records):
    """One pump thread and four for blocking calls, all daemons; later events none."""
    rig = make_rig(MemorySink())

    rig.offer(make_records(1))
    before = our_threads()
    rig.offer(make_records(100))

    assert sorted(thread.name for thread in before) == [
        "bizlog",
        *(f"bizlog-blocking-{n}" for n in range(module.BLOCKING_THREADS)),
    ]
    assert all(thread.daemon for thread in before)
    assert our_threads() == before


def test_many_first_events_at_once_start_one_thread(make_rig, make_records):
    """The start token is taken once, however many threads emit first."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            sink = MemorySink()
            rig, barrier = make_rig(sink), threading.Barrier(8)
            batches = [make_records(3) for _ in range(8)]

            def offer(records, rig=rig, barrier=barrier):
                barrier.wait()
                rig.offer(records)
                rig.engine.flush(10)

            threads = [threading.Thread(target=offer, args=(b,)) for b in batches]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len([t for t in our_threads() if t.name == "bizlog"]) == 1
            assert len(sink.records) == 24
            assert rig.engine.shutdown(10)
            while our_threads():
                time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)


def test_a_flush_beside_the_first_event_waits_for_its_thread(
    make_rig, make_records, monkeypatch
):
    """Whoever lost the race for the start token still gets a true answer."""
    rig, sink = None, MemorySink()
    inside, go = threading.Event(), threading.Event()
    real = executor.DaemonExecutor

    def slow_executor(threads):
        inside.set()
        go.wait(10)
        return real(threads)

    monkeypatch.setattr(executor, "DaemonExecutor", slow_executor)
    rig = make_rig(sink)
    emitter = threading.Thread(target=rig.offer, args=(make_records(1),))
    emitter.start()
    assert inside.wait(10)
    threading.Timer(0.1, go.set).start()

    assert rig.engine.flush(10)
    assert len(sink.records) == 1
    emitter.join()


def refuse_threads(monkeypatch, failing):
    """Let no thread start whose name begins so, and give the way back."""
    start = threading.Thread.start

    def refuse(self):
        if self.name.startswith(failing):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return lambda: monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("failing", ["bizlog", "bizlog-blocking-2"])
def test_where_no_thread_can_start_who_waits_delivers(
    make_rig, make_records, letters, monkeypatch, failing
):
    """As under uWSGI, or while the interpreter exits (3.12): flush does the work."""
    refuse_threads(monkeypatch, failing)
    sink = MemorySink()
    rig = make_rig(sink)

    assert rig.offer(make_records(3)) == [True] * 3
    assert sink.records == []
    assert rig.engine.flush(5)
    assert rig.offer(make_records(2)) == [True] * 2
    assert rig.engine.flush(5)
    assert len(sink.records) == 5
    rig.offer(make_records(1))
    assert rig.engine.shutdown(5)

    assert len(sink.records) == 6
    assert sink.calls == ["start", "flush", "flush", "flush", "stop"]
    assert letters() == []
    assert rig.closed


def test_without_a_thread_blocking_calls_of_sinks_work(
    make_rig, make_records, monkeypatch
):
    """`asyncio.to_thread` in a sink runs on the thread that waits."""
    refuse_threads(monkeypatch, "bizlog")

    class Writing(MemorySink):
        async def deliver(self, batch):
            await asyncio.to_thread(ran_on.append, threading.get_ident())
            return await super().deliver(batch)

    ran_on, sink = [], Writing()
    rig = make_rig(sink)
    rig.offer(make_records(1))

    assert rig.engine.flush(5)
    assert len(sink.records) == len(ran_on) == 1


def test_without_a_thread_shutdown_keeps_its_deadline(
    make_rig, make_records, letters, monkeypatch
):
    """A sink that hangs costs the deadline, and its events are dead letters."""
    refuse_threads(monkeypatch, "bizlog")
    rig = make_rig(FaultySink(delay=60))
    rig.offer(make_records(3))

    begun = time.monotonic()
    assert not rig.engine.flush(0.1)
    assert not rig.engine.shutdown(0.2)
    assert time.monotonic() - begun < 0.3 + SLACK

    assert len(letters()) == 3
    assert rig.closed


def test_without_a_thread_nothing_is_waited_for_inside_an_event_loop(
    make_rig, make_records, letters, monkeypatch
):
    """A loop of the host's holds the thread: False, and the events are kept."""
    refuse_threads(monkeypatch, "bizlog")
    rig = make_rig(MemorySink())
    rig.offer(make_records(1))

    async def wait():
        return rig.engine.flush(5), rig.engine.shutdown(5)

    assert asyncio.run(wait()) == (False, False)
    assert len(letters()) == 1
    assert rig.closed


def test_a_thread_is_asked_for_again(make_rig, make_records, monkeypatch, until):
    """A host that had no thread left for a moment is not written off."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    allow = refuse_threads(monkeypatch, "bizlog")
    sink = MemorySink()
    rig = make_rig(sink, batch_size=1)
    rig.offer(make_records(1))
    assert our_threads() == []

    allow()
    time.sleep(0.02)
    rig.offer(make_records(1))

    until(lambda: len(sink.records) == 2)


def test_a_host_without_threads_is_not_asked_at_each_event(
    make_rig, make_records, monkeypatch
):
    """Trying to start a thread is dear: once a second is enough."""
    tries = []

    def refuse(self):
        tries.append(self.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    rig = make_rig(MemorySink())
    begun = time.monotonic()
    rig.offer(make_records(1000))

    assert len(tries) <= 1 + (time.monotonic() - begun) / module.RETRY_SECONDS
    assert rig.engine.flush(5)


# Flushing


def test_flush_before_any_event_is_true_and_starts_nothing(make_rig):
    """There is nothing to wait for."""
    rig = make_rig(MemorySink())

    assert rig.engine.flush(0)
    assert our_threads() == []


def test_flush_delivers_what_is_not_due(make_rig, make_records):
    """All that was offered is settled and the sinks are flushed."""
    sink = MemorySink()
    rig = make_rig(sink)
    rig.offer(make_records(3))

    assert rig.engine.flush(10)

    assert len(sink.records) == 3
    assert sink.calls == ["start", "flush"]
    assert rig.closed


def test_flush_is_false_when_time_runs_out(make_rig, make_records):
    """A hanging sink: False, about on time, and a later flush may still succeed."""
    sink = FaultySink(delay=0.5)
    rig = make_rig(sink)
    rig.offer(make_records(1))

    begun = time.monotonic()
    assert not rig.engine.flush(0.1)
    assert time.monotonic() - begun < 0.1 + SLACK

    assert rig.engine.flush(10)
    assert len(sink.records) == 1


def test_flush_with_no_time_does_not_hang(make_rig, make_records):
    """Zero and negative timeouts ask without waiting."""
    rig = make_rig(FaultySink(delay=60))
    rig.offer(make_records(1))

    assert not rig.engine.flush(0)
    assert not rig.engine.flush(-1)
    rig.engine.shutdown(0)


def test_flush_from_many_threads(make_rig, make_records):
    """Eight threads that emit and flush at the same time all get a true answer."""
    sink, answers = MemorySink(), []
    rig = make_rig(sink, MemorySink())
    batches = [[make_records(5) for _ in range(10)] for _ in range(8)]

    def work(mine):
        for records in mine:
            for record in records:
                rig.queue.offer(record)
            answers.append(rig.engine.flush(20))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [True] * 80
    assert len(sink.records) == 400
    rig.offered = 400
    assert rig.closed


def test_flush_from_within_a_sink_does_not_deadlock(make_rig, make_records):
    """It cannot be waited for on bizlog's own thread: False, and all goes on."""
    answers = []

    class Flushing(MemorySink):
        async def deliver(self, batch):
            answers.append(rig.engine.flush(10))
            return await super().deliver(batch)

    sink = Flushing()
    rig = make_rig(sink)
    rig.offer(make_records(2))

    assert rig.engine.flush(10)
    assert answers == [False]
    assert len(sink.records) == 2


def test_flush_from_within_a_sinks_thread_only_costs_its_timeout(
    make_rig, make_records
):
    """From a helper thread of a sink it waits for the sink itself, until its time-out."""
    answers = []

    class Flushing(MemorySink):
        async def deliver(self, batch):
            answers.append(await asyncio.to_thread(rig.engine.flush, 0.1))
            return await super().deliver(batch)

    rig = make_rig(Flushing())
    rig.offer(make_records(2))

    assert rig.engine.flush(10)
    assert answers == [False]


def test_flush_inside_a_running_loop(make_rig, make_records):
    """The host's own asyncio loop is another one: it may wait, blocking, for ours."""
    sink = MemorySink()
    rig = make_rig(sink)

    async def main():
        rig.offer(make_records(2))
        return rig.engine.flush(10)

    assert asyncio.run(main())
    assert len(sink.records) == 2


def test_a_sink_may_emit(make_rig, make_records):
    """Events emitted inside `deliver` are taken like any other."""
    more = make_records(1)

    class Emitting(MemorySink):
        async def deliver(self, batch):
            if not self.batches:
                rig.offer(more)
            return await super().deliver(batch)

    sink = Emitting()
    rig = make_rig(sink)
    rig.offer(make_records(1))

    assert rig.engine.flush(10)
    assert rig.engine.flush(10)
    assert len(sink.records) == 2


# Faults


def test_what_a_sinks_own_task_raises_does_not_end_the_thread(make_rig, make_records):
    """SystemExit in a task that a sink started ends a loop; ours goes on."""

    class Spawning(MemorySink):
        async def deliver(self, batch):
            async def leave():
                raise SystemExit(1)

            self.task = asyncio.create_task(leave())
            await asyncio.sleep(0.01)
            self.task.exception()
            return await super().deliver(batch)

    sink, other = Spawning(), MemorySink()
    rig = make_rig(sink, other)
    for _ in range(3):
        rig.offer(make_records(1))
        assert rig.engine.flush(10)

    assert len(sink.records) == len(other.records) == 3


def test_what_asyncio_has_to_say_stays_in_our_log(make_rig, make_records, caplog):
    """A sink's forgotten task is told on bizlog's logger, not on the host's."""

    class Forgetful(MemorySink):
        async def deliver(self, batch):
            async def fail():
                raise ValueError("forgotten")

            asyncio.create_task(fail())
            await asyncio.sleep(0.01)
            return await super().deliver(batch)

    rig = make_rig(Forgetful())
    rig.offer(make_records(1))
    assert rig.engine.flush(10)
    assert rig.engine.shutdown(10)

    assert {record.name for record in caplog.records} <= {"bizlog"}


def test_the_hosts_debug_mode_is_not_ours(make_rig, make_records, caplog, monkeypatch):
    """With PYTHONASYNCIODEBUG a slow sink would be told of on asyncio's own logger."""
    monkeypatch.setattr(asyncio.coroutines, "_is_debug_mode", lambda: True)

    class Blocking(MemorySink):
        async def deliver(self, batch):
            time.sleep(0.15)
            return await super().deliver(batch)

    rig = make_rig(Blocking())
    rig.offer(make_records(1))
    assert rig.engine.flush(10)
    assert rig.engine.shutdown(10)

    assert [record.name for record in caplog.records] == []


# Shutdown


def test_shutdown_delivers_stops_and_leaves_no_thread(make_rig, make_records, until):
    """All is delivered, the sink is flushed and stopped, every thread ends."""
    sink = MemorySink()
    rig = make_rig(sink)
    rig.offer(make_records(25))

    assert rig.engine.shutdown(10)

    assert len(sink.records) == 25
    assert sink.calls == ["start", "flush", "stop"]
    until(lambda: not our_threads())
    assert rig.closed


def test_shutdown_without_any_event_is_true(make_rig):
    """Nothing was started, nothing is stopped."""
    sink = MemorySink()

    assert make_rig(sink).engine.shutdown(0)
    assert sink.calls == []


def test_shutdown_twice_is_once(make_rig, make_records):
    """The second call waits for the first and stops nothing again."""
    sink = MemorySink()
    rig = make_rig(sink)
    rig.offer(make_records(1))

    assert rig.engine.shutdown(10)
    assert rig.engine.shutdown(10)
    assert rig.engine.flush(10)
    assert sink.calls.count("stop") == 1


def test_shutdown_from_many_threads_is_once(make_rig, make_records):
    """All callers return when it is over."""
    sink, answers = FaultySink(delay=0.1), []
    rig = make_rig(sink)
    rig.offer(make_records(1))

    threads = [
        threading.Thread(target=lambda: answers.append(rig.engine.shutdown(10)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [True] * 5
    assert sink.calls == ["start", "flush", "stop"]


def test_events_after_shutdown_count_as_closed(make_rig, make_records):
    """They are refused, counted, and start no thread again."""
    rig = make_rig(MemorySink())
    rig.offer(make_records(1))
    rig.engine.shutdown(10)

    assert rig.offer(make_records(2)) == [False, False]
    assert rig.queue.dropped.snapshot() == {"closed": 2}
    assert rig.closed


def test_no_event_is_lost_between_emitting_and_shutting_down(make_rig, make_record):
    """Four threads emit while a fifth shuts down: each event is in one place."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    record = make_record()
    try:
        for _ in range(15):
            rig, stop, counts = make_rig(MemorySink()), threading.Event(), []

            def emit(rig=rig, stop=stop, counts=counts):
                offered = 0
                while not stop.is_set():
                    rig.queue.offer(record)
                    offered += 1
                counts.append(offered)

            threads = [threading.Thread(target=emit) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.01)
            rig.engine.shutdown(5)
            time.sleep(0.005)
            stop.set()
            for thread in threads:
                thread.join()
            rig.offered = sum(counts)
            assert rig.closed
    finally:
        sys.setswitchinterval(interval)


def test_calls_after_shutdown_raise_nothing(make_rig, make_records):
    """Threads that are late, with a loop that is closed, are not disturbed."""
    rig = make_rig(MemorySink())
    rig.offer(make_records(1))
    rig.engine.shutdown(10)

    rig.engine.wake()
    rig.engine.begin_flush()
    rig.engine._hurry()
    assert not rig.engine._submit(rig.engine.pump.flush, time.monotonic() + 1.0)


def test_shutdown_at_the_first_event_ends_the_thread(make_rig, make_records):
    """A thread that is just starting is waited for, not left behind."""
    for _ in range(20):
        rig = make_rig(MemorySink())
        rig.offer(make_records(2))
        rig.engine.shutdown(0)
        assert rig.closed  # and make_rig sees every thread end


def test_a_thread_that_comes_too_late_ends_at_once(
    make_rig, make_records, monkeypatch, letters, until
):
    """Shutdown did not wait for it, and took its events; it has nothing to stay for."""
    inside, go = threading.Event(), threading.Event()
    real = executor.DaemonExecutor

    def slow_executor(threads):
        inside.set()
        go.wait(10)
        return real(threads)

    monkeypatch.setattr(executor, "DaemonExecutor", slow_executor)
    rig = make_rig(MemorySink())
    emitter = threading.Thread(target=rig.offer, args=(make_records(1),))
    emitter.start()
    assert inside.wait(10)

    assert not rig.engine.shutdown(0)
    assert len(letters()) == 1
    go.set()
    emitter.join()

    until(lambda: not our_threads())
    assert rig.closed


def test_a_fault_of_our_own_is_told_and_reaches_no_caller(
    make_rig, make_records, monkeypatch
):
    """Were bizlog's thread to die, flush and shutdown still return."""
    rig = make_rig(MemorySink())
    rig.offer(make_records(1))
    assert rig.engine.flush(10)
    told = []
    monkeypatch.setattr(module.diagnostics, "report", lambda *words: told.append(words))

    def fail(_):
        raise RuntimeError("ours")

    monkeypatch.setattr(rig.engine.pump, "abandon", fail)

    assert rig.engine.shutdown(10)
    assert rig.engine.flush(10)
    assert "ours" in told[0][1]


def test_a_part_that_dies_is_told(make_rig, make_records, monkeypatch):
    """A lane that a fault of ours ends is named in the log; its events are kept."""
    sink = MemorySink()
    rig = make_rig(sink)
    told = []
    monkeypatch.setattr(module.diagnostics, "report", lambda *words: told.append(words))

    def fail(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(rig.lanes[0].live.journal, "read", fail)
    rig.offer(make_records(3))
    assert not rig.engine.flush(0.2)
    monkeypatch.undo()
    assert rig.engine.shutdown(0.1) is False

    assert "ours" in told[0][1]
    assert rig.lanes[0].dead_lettered == 3
    assert rig.closed


def test_shutdown_keeps_its_deadline_with_a_hanging_sink(
    make_rig, make_records, letters
):
    """Deadline + 0.5 s at most; what flies and what waits become dead letters."""
    live = MemorySink()
    rig = make_rig(FaultySink(delay=60), live)
    rig.offer(make_records(25))

    begun = time.monotonic()
    assert not rig.engine.shutdown(0.3)
    assert time.monotonic() - begun < 0.3 + SLACK

    assert len(live.records) == 25
    assert len({letter["event_id"] for letter in letters()}) == 25
    assert rig.closed


def test_shutdown_keeps_its_deadline_with_a_sink_that_blocks_the_loop(
    make_rig, make_records, letters
):
    """The caller's thread buries what bizlog's thread cannot; both agree afterwards."""
    sink, other = Blocking(), MemorySink()
    rig = make_rig(sink, other)
    rig.offer(make_records(500))
    assert sink.entered.wait(10)

    begun = time.monotonic()
    assert not rig.engine.shutdown(0.3)
    assert time.monotonic() - begun < 0.3 + SLACK
    sinks = [letter["sink"] for letter in letters()]
    assert sinks.count("sink-0") == 500
    assert rig.closed

    sink.release.set()
    rig.engine._thread.join(10)
    assert not rig.engine._thread.is_alive()  # it ends, and does not spin
    assert rig.closed
    assert len(letters()) == len(sinks)


def test_shutdown_keeps_its_deadline_with_a_sink_that_ignores_cancellation(
    make_rig, make_records, letters
):
    """A task that swallows CancelledError is left behind, its events are kept."""

    class Stubborn(MemorySink):
        stubborn = True

        async def deliver(self, batch):
            while self.stubborn:
                try:
                    await asyncio.sleep(0.5)
                except asyncio.CancelledError:
                    continue

    sink = Stubborn()
    rig = make_rig(sink)
    rig.offer(make_records(3))
    time.sleep(0.05)

    begun = time.monotonic()
    assert not rig.engine.shutdown(0.2)
    assert time.monotonic() - begun < 0.2 + SLACK
    assert len(letters()) == 3
    assert rig.closed


def test_shutdown_keeps_its_deadline_with_a_stop_that_hangs(make_rig, make_records):
    """All was delivered; a hanging `stop` costs the grace, nothing else."""

    class HangingStop(MemorySink):
        async def stop(self):
            await super().stop()
            await asyncio.sleep(60)

    sink, other = HangingStop(), MemorySink()
    rig = make_rig(sink, other)
    rig.offer(make_records(3))

    begun = time.monotonic()
    assert rig.engine.shutdown(5)
    assert time.monotonic() - begun < SLACK
    assert "stop" in other.calls
    assert rig.closed


def test_shutdown_with_a_refusing_sink_buries_in_time(make_rig, make_records, letters):
    """A sink that refuses at once does not use the deadline up."""
    rig = make_rig(FaultySink(fail_calls=None, error=PermanentSinkError("no")))
    rig.offer(make_records(50))

    begun = time.monotonic()
    assert rig.engine.shutdown(10)
    assert time.monotonic() - begun < 2.0
    assert len(letters()) == 50
    assert rig.closed


def test_shutdown_with_a_failing_sink_buries_at_the_deadline(
    make_rig, make_records, letters
):
    """It might still come back: its events wait until then, and are kept."""
    rig = make_rig(FaultySink(fail_calls=None))
    rig.offer(make_records(50))

    begun = time.monotonic()
    assert rig.engine.shutdown(0.5) is False
    assert time.monotonic() - begun < 5.0
    assert len(letters()) == 50
    assert {letter["reason"].partition(": ")[2] for letter in letters()} == {
        "RetryableSinkError: the test says no"
    }
    assert rig.closed


def test_shutdown_from_within_a_sink_loses_nothing(
    make_rig, make_records, letters, until
):
    """On bizlog's own thread it cannot wait: what is left becomes dead letters."""
    answers = []

    class Stopping(MemorySink):
        async def deliver(self, batch):
            answers.append(rig.engine.shutdown(10))
            await asyncio.sleep(0)
            return await super().deliver(batch)

    rig = make_rig(Stopping())
    rig.offer(make_records(25))

    until(lambda: rig.engine._closed.is_set())
    assert answers == [False]
    assert rig.closed
    assert rig.lanes[0].delivered + len(letters()) == 25


def test_a_flush_that_waits_ends_with_the_shutdown(make_rig, make_records):
    """Another thread's long flush does not outlive the engine."""
    rig, answers = make_rig(FaultySink(delay=60)), []
    rig.offer(make_records(1))
    flusher = threading.Thread(target=lambda: answers.append(rig.engine.flush(60)))
    flusher.start()
    time.sleep(0.1)

    rig.engine.shutdown(0.1)
    flusher.join(5)

    assert answers == [False]


def test_tasks_that_a_sink_left_behind_are_cancelled(make_rig, make_records):
    """Nothing of a sink runs on after shutdown, and asyncio has nothing to warn of."""
    ends = []

    class Leaving(MemorySink):
        async def start(self):
            self.task = asyncio.create_task(self.watch())

        async def watch(self):
            try:
                await asyncio.sleep(1e6)
            finally:
                ends.append("cancelled")

    rig = make_rig(Leaving())
    rig.offer(make_records(1))

    assert rig.engine.shutdown(10)
    assert ends == ["cancelled"]


def test_two_engines_side_by_side(make_rig, make_records, letters):
    """One hangs, the other delivers; each has its own thread and ledger."""
    hanging, live = FaultySink(delay=60), MemorySink()
    one, two = make_rig(hanging), make_rig(live)
    one.offer(make_records(5))
    two.offer(make_records(7))

    assert two.engine.flush(10)
    assert len(live.records) == 7
    assert not one.engine.shutdown(0.1)
    assert two.offer(make_records(1)) == [True]
    assert two.engine.shutdown(10)

    assert len(live.records) == 8
    assert len(letters()) == 5
    assert one.closed and two.closed


# The exit hook


class InOrder(list):
    """A set of engines that is looped over in the order the test wants."""

    def discard(self, engine):
        self.remove(engine)

    def add(self, engine):
        assert engine in self


@pytest.fixture
def only_ours(monkeypatch):
    """Keep the exit hook away from engines of other tests."""
    engines = InOrder()

    def run():
        real = module._running
        with monkeypatch.context() as patch:
            patch.setattr(module, "_running", engines)
            module._shut_down_all()
        real.difference_update({e for e in real if e._closed.is_set()})

    return engines, run


@pytest.mark.parametrize("hanging_first", [True, False])
def test_at_exit_all_engines_share_one_deadline(
    make_rig, make_records, only_ours, letters, hanging_first
):
    """One that hangs uses up its own time only: the other's events are delivered."""
    hanging, live = FaultySink(delay=60), MemorySink()
    one, two = make_rig(hanging, shutdown_timeout=0.5), make_rig(live)
    one.offer(make_records(5))
    two.offer(make_records(7))
    engines, run = only_ours
    engines += [one.engine, two.engine] if hanging_first else [two.engine, one.engine]
    assert one.engine._ready.wait(10) and two.engine._ready.wait(10)

    begun = time.monotonic()
    run()

    assert time.monotonic() - begun < 1.0 + 2 * SLACK
    assert len(live.records) == 7
    assert len(letters()) == 5


def test_at_exit_nothing_is_done_in_another_process(make_rig, make_records, only_ours):
    """A fork child has the parent's engines, and leaves them alone."""
    sink = MemorySink()
    rig = make_rig(sink)
    rig.offer(make_records(1))
    engines, run = only_ours
    engines.append(rig.engine)
    rig.engine._pid = os.getpid() + 1
    try:
        run()
        assert not rig.queue.closed
    finally:
        rig.engine._pid = os.getpid()
    assert rig.engine.shutdown(10)
    assert len(sink.records) == 1


def test_at_exit_without_engines_nothing_happens(only_ours):
    """A process that never emitted ends as if bizlog were not there."""
    _, run = only_ours

    run()


def test_at_exit_after_shutdown_nothing_happens(make_rig, make_records):
    """An engine that was shut down is forgotten by the exit hook."""
    rig = make_rig(MemorySink())
    rig.offer(make_records(1))
    rig.engine.shutdown(10)

    assert rig.engine not in module._running


def test_at_exit_no_thread_is_started(make_rig, make_records, only_ours, monkeypatch):
    """What came too late for a thread is delivered by the exit hook itself."""
    allow = refuse_threads(monkeypatch, "bizlog")
    sink = MemorySink()
    rig = make_rig(sink)
    rig.offer(make_records(3))
    allow()
    monkeypatch.setattr(rig.engine, "_retry_at", 0.0)
    engines, run = only_ours
    engines.append(rig.engine)

    run()

    assert our_threads() == []
    assert len(sink.records) == 3
    assert module._exits == []


def test_at_exit_a_second_ctrl_c_hurries(make_rig, make_records, only_ours, letters):
    """Each engine still buries what it has; nothing is raised."""
    one, two = [make_rig(FaultySink(delay=60), shutdown_timeout=60.0) for _ in "12"]
    engines, run = only_ours
    for rig in (one, two):
        rig.offer(make_records(5))
        assert rig.engine._ready.wait(10)
        engines.append(rig.engine)
    until_raised = one.engine._closed.wait

    def interrupted(timeout):
        one.engine._closed.wait = until_raised
        raise KeyboardInterrupt

    one.engine._closed.wait = interrupted
    begun = time.monotonic()
    run()

    assert time.monotonic() - begun < 5.0
    assert len(letters()) == 10
    assert one.closed and two.closed


# In other processes


def test_a_child_of_multiprocessing_ends_like_others(monkeypatch):
    """It runs no exit hooks, so bizlog's is registered where it will be heard; once."""
    registered = []
    monkeypatch.setattr(module, "_finalized_in", [])
    process = types.SimpleNamespace(parent_process=lambda: None)
    monkeypatch.setitem(sys.modules, "multiprocessing.process", process)
    monkeypatch.setattr(
        multiprocessing.util,
        "Finalize",
        lambda _, call, exitpriority: registered.append((call, exitpriority)),
    )

    module._exit_with_multiprocessing()
    assert registered == []
    process.parent_process = lambda: "somebody"
    module._exit_with_multiprocessing()
    module._exit_with_multiprocessing()
    assert registered == [(module._shut_down_all, module._EXIT_PRIORITY)]


def test_what_is_the_parents_is_kept_and_its_journal_forsaken_once(make_rig):
    """As the fork hook has it: nothing is closed but what the pump closes."""
    calls = []
    rig = make_rig(MemorySink())
    rig.engine.pump.leave_to_parent = lambda: calls.append("forsake")

    rig.engine.leave_to_parent([])
    rig.engine.leave_to_parent(["a queue"])

    assert calls == ["forsake"]
    assert "a queue" in rig.engine._left


def test_a_wake_after_the_end_starts_nothing(make_rig):
    """Whoever looks at a client that was never used and is shut down makes no thread."""
    rig = make_rig()
    rig.engine.shutdown(1.0)
    rig.engine.wake()
    assert our_threads() == []
