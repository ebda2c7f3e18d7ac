"""From a command to a sink: waits for it, ends when asked, accounts for every record."""

from __future__ import annotations

import asyncio

import pytest

from bizlog.cli import conveyor as module
from bizlog.cli.conveyor import Conveyor
from bizlog.cli.entries import Place, read_entry
from bizlog.cli.interrupt import Interruption
from bizlog.delivery.dead_letters import DeadLetterFolder
from bizlog.exceptions import ConfigurationError
from bizlog.testing import ManualClock


@pytest.fixture
def records(make_event, tmp_path):
    """Make records from one number to another."""

    def make(first, last):
        place = Place(tmp_path, 1)
        lines = (make_event(number) for number in range(first, last + 1))
        return [read_entry(line, place).record for line in lines]

    return make


@pytest.fixture
def interruption():
    """Count how often the command is interrupted."""
    return Interruption()


@pytest.fixture
def make(outlet, tmp_path, interruption):
    """Make a conveyor to the outlet."""

    def make_it(sink="outlet:", **options):
        letters = DeadLetterFolder(tmp_path / "dead", "p")
        options = {"journal_id": "replay", "interruption": interruption, **options}
        return Conveyor(sink, dead_letters=letters, **options)

    return make_it


def carry(conveyor, *runs):
    """Feed runs of records and finish."""

    async def main():
        async with conveyor:
            for run in runs:
                await conveyor.feed(run)
            return await conveyor.finish()

    return asyncio.run(main())


def test_everything_arrives_in_order(make, records, outlet):
    """All records reach the sink, and the ledger is closed."""
    conveyor = make()
    assert carry(conveyor, records(1, 250), records(251, 260))
    assert outlet.sequences == list(range(1, 261))
    assert conveyor.settled == 260
    assert conveyor.ledger.closed
    assert conveyor.ledger.sinks["outlet"].delivered == 260


def test_batches_are_the_same_each_time(make, records, outlet):
    """However the records come: the batches have the same names and records."""
    carry(make(), *[records(n, n + 9) for n in range(1, 251, 10)])
    first = [(batch.name, len(batch.records)) for batch in outlet.batches]
    outlet.batches.clear()
    carry(make(), records(1, 7), records(8, 250))
    assert [(batch.name, len(batch.records)) for batch in outlet.batches] == first
    assert first[0] == ("replay-0-99", 100)


def test_a_slow_sink_holds_the_feed(make, records, outlet):
    """Not more than some batches wait in memory, however much there is to send."""
    conveyor = make()
    most = 0

    async def watch():
        nonlocal most
        most = max(most, conveyor.ledger.sinks["outlet"].pending)
        await asyncio.sleep(0.001)

    outlet.answer = lambda _: watch()
    assert carry(conveyor, *[records(n, n + 49) for n in range(1, 2_001, 50)])
    assert len(outlet.sequences) == 2_000
    assert most <= 350


def test_large_events_hold_the_feed_by_their_bytes(make, records, outlet):
    """The bound is also one of bytes."""
    outlet.max_bytes = 1_000
    conveyor = make()
    most = 0

    async def watch():
        nonlocal most
        most = max(most, conveyor.ledger.sinks["outlet"].pending)

    outlet.answer = lambda _: watch()
    assert carry(conveyor, *[[record] for record in records(1, 60)])
    assert most < 20


def test_what_a_sink_refuses_is_in_the_dead_letters(make, records, outlet, tmp_path):
    """Refused events are counted and kept, the others are delivered."""
    some = records(1, 10)
    outlet.refused = {some[3].event_id}
    conveyor = make()
    assert carry(conveyor, some)
    [sink] = conveyor.ledger.sinks.values()
    assert (sink.delivered, sink.dead_lettered, sink.pending) == (9, 1, 0)
    [path] = (tmp_path / "dead").iterdir()
    assert some[3].event_id.encode() in path.read_bytes()


def test_a_sink_that_cannot_flush_is_told(make, records, outlet):
    """Delivered but not known to be durable: `finish` says no."""
    outlet.flush_error = OSError("disk")
    conveyor = make()
    assert not carry(conveyor, records(1, 3))
    assert conveyor.ledger.sinks["outlet"].delivered == 3


def test_an_interruption_ends_the_wait(
    make, records, outlet, interruption, monkeypatch
):
    """A sink that never answers holds nobody for ever; what is open stays pending."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    conveyor = make()

    def never(_):
        interruption.presses += 1
        return asyncio.sleep(3_600)

    outlet.answer = never
    assert not carry(conveyor, records(1, 400))
    [sink] = conveyor.ledger.sinks.values()
    assert (sink.offered, sink.delivered, sink.pending) == (400, 0, 400)
    assert sink.balanced
    assert conveyor.settled == 0


def test_a_pause_ends_when_the_command_is_interrupted(make, interruption):
    """Neither a short pause nor an interrupted one of an hour takes long."""

    async def main():
        async with make() as conveyor:
            await conveyor.pause(0.01)
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, setattr, interruption, "presses", 1)
            await conveyor.pause(3_600)
            await conveyor.pause(-1)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_smaller_batches_can_be_asked_for(make, records, outlet):
    """For a slow rate: a batch is sent when so many events are there."""
    conveyor = make(batch_size=2)

    async def main():
        came = asyncio.Event()
        outlet.answer = lambda _: came.set()
        async with conveyor:
            await conveyor.feed(records(1, 2))
            await came.wait()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_lane_that_dies_ends_the_command(make, records, monkeypatch):
    """A fault of our own is an error, not a wait without end."""
    conveyor = make()

    async def die():
        raise RuntimeError("dead")

    monkeypatch.setattr(conveyor._lane, "run", die)
    with pytest.raises(RuntimeError, match="dead"):
        carry(conveyor, records(1, 10))


def test_a_url_that_names_no_sink_is_an_error(make):
    """Before anything is read: the message names the known ones."""
    with pytest.raises(ConfigurationError, match="known are"):
        make("nosuch:x")


def test_a_sink_that_takes_nothing_for_long_ends_the_wait(make, records, outlet):
    """Nobody may be there to press Ctrl-C: after minutes without progress it is over."""
    clock = ManualClock()
    conveyor = make(clock=clock)

    def hang(_):
        clock.advance(module.STALL_SECONDS + 1)
        return asyncio.sleep(3_600)

    outlet.answer = hang
    assert not carry(conveyor, records(1, 400))
    assert conveyor.stalled
    assert conveyor.over
    assert conveyor.ledger.sinks["outlet"].pending == 400


def test_a_pause_is_no_stall(make, records):
    """A slow rate is not the sink's fault: time counts only while something waits."""
    clock = ManualClock()
    conveyor = make(clock=clock)

    async def main():
        async with conveyor:
            await conveyor.feed(records(1, 3))
            assert await conveyor.finish()
            clock.advance(module.STALL_SECONDS + 1)
            await conveyor.feed(records(4, 6))
            return await conveyor.finish()

    assert asyncio.run(main())
    assert not conveyor.stalled


def test_positions_may_begin_anywhere(make, records, outlet):
    """The names of the batches go on from there."""
    conveyor = make(start=1_000)
    assert carry(conveyor, records(1, 10))
    assert [batch.name for batch in outlet.batches] == ["replay-1000-1009"]
    assert conveyor.settled == 1_010


def test_a_second_interruption_ends_at_once(make, records, outlet, interruption):
    """Even while a sink hangs: KeyboardInterrupt, and no event counts as refused."""
    conveyor = make()

    def hang(_):
        interruption.presses = 2
        return asyncio.sleep(3_600)

    outlet.answer = hang
    with pytest.raises(KeyboardInterrupt):
        carry(conveyor, records(1, 400))
    [sink] = conveyor.ledger.sinks.values()
    assert (sink.pending, sink.dead_lettered) == (400, 0)
