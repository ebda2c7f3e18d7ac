"""Calls into a sink: bounded in time, and whatever it raises is an answer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bizlog import separation
from bizlog.delivery.calls import CANCEL_SECONDS, Calls, StartError
from bizlog.sinks import ACCEPTED, Batch
from bizlog.testing import FaultySink, MemorySink


@pytest.fixture
def batch(make_records):
    """Make a batch of two."""
    return Batch("journal", 0, 1, make_records(2))


def calls_of(sink, timeout=10.0):
    """Call a sink by the time of the running loop."""
    return Calls(sink, "sink", timeout, asyncio.get_running_loop().time)


def test_a_sink_is_started_before_its_first_batch(run, batch):
    """Once, though two batches come at the same time."""

    class Counting(MemorySink):
        starts = 0

        async def start(self):
            await asyncio.sleep(1.0)
            self.starts += 1

    sink = Counting()

    async def scenario():
        calls = calls_of(sink)
        assert not calls.started
        answers = await asyncio.gather(calls.deliver(batch), calls.deliver(batch))
        assert answers == [ACCEPTED, ACCEPTED]
        assert calls.started
        assert sum(calls.durations.snapshot()) == 2

    run(scenario())
    assert sink.starts == 1


def test_a_start_that_fails_is_an_answer_of_its_own(run, batch):
    """It is tried again with the next call, and is no call of `deliver`."""

    async def scenario():
        calls = calls_of(FaultySink(fail_start=1, error=OSError("no")))
        answer = await calls.deliver(batch)
        assert isinstance(answer, StartError)
        assert str(answer.failure) == "no"
        assert sum(calls.durations.snapshot()) == 0
        assert await calls.deliver(batch) == ACCEPTED

    run(scenario())


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
def test_what_a_sink_raises_is_the_answer(run, batch, error):
    """Nothing of it ends the loop or the caller."""

    async def scenario():
        sink = FaultySink(fail_calls=1, error=error)
        assert await calls_of(sink).deliver(batch) is error

    run(scenario())


def test_a_call_ends_at_its_time_out(run, batch):
    """Even one that does not end when it is cancelled."""

    class Stubborn(MemorySink):
        async def deliver(self, batch):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3_600)
            await asyncio.sleep(3_600)

    async def scenario():
        loop = asyncio.get_running_loop()
        answer = await calls_of(Stubborn(), timeout=2.0).deliver(batch)
        assert isinstance(answer, TimeoutError)
        assert loop.time() <= 2.0 + CANCEL_SECONDS + 0.01

    run(scenario())


def test_a_sink_that_was_never_started_is_neither_flushed_nor_stopped(run):
    """There is nothing to flush, and that is fine."""

    class Untouchable(MemorySink):
        async def flush(self):
            raise AssertionError

        async def stop(self):
            raise AssertionError

    async def scenario():
        calls = calls_of(Untouchable())
        assert await calls.flush()
        await calls.stop()

    run(scenario())


def test_a_flush_that_fails_is_told(run, batch, told):
    """To the log, and to who asked."""

    class Stuck(MemorySink):
        async def flush(self):
            raise OSError("disk full")

    async def scenario():
        calls = calls_of(Stuck())
        await calls.deliver(batch)
        assert not await calls.flush()
        await calls.stop()
        await calls.stop()

    run(scenario())
    assert told == ["sink 'sink' failed in flush: OSError: disk full"]


def test_a_call_runs_inside_the_wall(run, batch):
    """What a sink logs is operational; outside its calls nothing is marked."""
    seen = []

    class Looking(MemorySink):
        async def deliver(self, batch):
            seen.append(separation.inside())
            return await super().deliver(batch)

    async def scenario():
        await calls_of(Looking()).deliver(batch)
        seen.append(separation.inside())

    run(scenario())
    assert seen == [True, False]
