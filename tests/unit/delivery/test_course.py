"""The course of a delivery: in virtual time, whatever the sinks do, it ends in time."""

from __future__ import annotations

import asyncio
from itertools import combinations

import pytest

from bizlog.delivery.course import Course
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.delivery.pump import Pump
from bizlog.delivery.queue import FrontQueue
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import Route
from bizlog.testing import FaultySink, MemorySink

OVERTIME = 0.05


class Stubborn(MemorySink):
    """Does not end when it is cancelled."""

    async def deliver(self, batch):
        for _ in range(1000):
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                continue


class HangingAtTheEnd(MemorySink):
    """Delivers, but neither flushes nor stops."""

    async def flush(self):
        await asyncio.sleep(600)

    async def stop(self):
        await asyncio.sleep(600)


class HangingStart(MemorySink):
    """Never gets ready."""

    async def start(self):
        await asyncio.sleep(600)


KINDS = {
    "live": MemorySink,
    "hung": lambda: FaultySink(delay=600),
    "refusing": lambda: FaultySink(fail_calls=None, error=PermanentSinkError("no")),
    "slow": lambda: FaultySink(delay=0.3),
    "stubborn": Stubborn,
    "never ready": HangingStart,
    "never ending": HangingAtTheEnd,
}
MIXES = [mix for size in (1, 2, 3, 7) for mix in combinations(KINDS, size)]


class Rig:
    """A course with a lane for each sink, on the loop that runs."""

    def __init__(self, folder, *sinks, sink_timeout=600.0):
        clock = asyncio.get_running_loop().time
        self.queue = FrontQueue(
            max_events=10_000,
            max_bytes=1 << 30,
            overflow="drop_newest",
            block_timeout=1.0,
            wake=lambda: self.pump.wake(),
        )
        journal = MemoryJournal()
        self.lanes = [
            Lane(
                name=f"sink-{number}",
                route=Route(sink),
                journal=journal,
                batcher=Batcher(10, 1 << 30, 60.0),
                sink_timeout=sink_timeout,
                dead_letters=folder,
                on_progress=lambda: self.pump.on_progress(),
                clock=clock,
            )
            for number, sink in enumerate(sinks)
        ]
        self.pump = Pump(
            queue=self.queue,
            journal=journal,
            lanes=self.lanes,
            dead_letters=folder,
            max_events=10_000,
            max_bytes=1 << 30,
        )
        self.buried = []
        self.course = Course(self.pump, self.bury)

    def offer(self, records):
        for record in records:
            self.queue.offer(record)

    def bury(self):
        self.buried.append(True)
        self.pump.abandon("too late")

    async def run_until(self, *steps):
        """Run to the end, with steps by the second; how long the last one took."""
        loop = asyncio.get_running_loop()
        for after, step, *args in steps:
            loop.call_later(after, step, *args)
        begun = loop.time() + steps[-1][0]
        await self.course.run()
        return loop.time() - begun


@pytest.mark.parametrize("timeout", [0.0, 0.01, 0.1, 1.0, 5.0])
def test_any_mix_of_sinks_ends_in_time(run, folder, make_records, timeout):
    """Deadline + 50 ms at most, and every event is delivered or a dead letter."""

    async def end(mix):
        rig = Rig(folder, *(KINDS[kind]() for kind in mix))
        rig.offer(make_records(40))
        seconds = await rig.run_until(
            (0.04, rig.offer, make_records(5)), (0.05, rig.course.close, timeout)
        )
        assert rig.buried == [True]
        assert all(lane.delivered + lane.dead_lettered == 45 for lane in rig.lanes)
        return seconds, rig.course.flushed

    for mix in MIXES:
        seconds, flushed = run(end(mix))
        assert seconds <= timeout + OVERTIME + 1e-6, mix
        hopeless = {"hung", "stubborn", "never ready", "never ending"} & set(mix)
        assert not (flushed and hopeless), mix


@pytest.mark.parametrize("kind", ["live", "refusing", "slow"])
def test_it_ends_as_soon_as_all_is_settled(run, folder, make_records, kind):
    """The deadline is for sinks that need it; the others are not waited for."""

    async def end():
        rig = Rig(folder, KINDS[kind]())
        rig.offer(make_records(10))
        seconds = await rig.run_until((0.0, rig.course.close, 60.0))
        assert rig.course.flushed
        return seconds

    assert run(end()) < 1.0


def test_sinks_get_a_moment_to_stop_in(run, folder, make_records):
    """Of the deadline something is kept, so that `stop` may take a tenth of a second."""

    class Stopping(FaultySink):
        stopped = False

        async def stop(self):
            await asyncio.sleep(0.1)
            self.stopped = True

    async def end(sink):
        rig = Rig(folder, sink, FaultySink(delay=600))
        rig.offer(make_records(10))
        return await rig.run_until((0.05, rig.course.close, 5.0))

    sink = Stopping()
    run(end(sink))
    assert sink.stopped


def test_hurry_ends_the_waiting_at_once(run, folder, make_records):
    """Nobody waits any longer: what is left is buried now, not at the deadline."""

    async def end():
        rig = Rig(folder, FaultySink(delay=600))
        rig.offer(make_records(10))
        seconds = await rig.run_until(
            (0.05, rig.course.close, 300.0), (1.0, rig.course.hurry)
        )
        assert rig.lanes[0].dead_lettered == 10
        return seconds

    assert run(end()) <= OVERTIME + 1e-6


def test_hurry_may_come_first(run, folder, make_records):
    """It closes what nobody has closed yet."""

    async def end():
        rig = Rig(folder, MemorySink())
        rig.offer(make_records(1))
        await rig.run_until((0.0, rig.course.hurry))
        assert rig.lanes[0].delivered + rig.lanes[0].dead_lettered == 1

    run(end())
