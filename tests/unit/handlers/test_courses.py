"""The way of one batch to one partition: in order, by size, and parted where refused."""

from __future__ import annotations

import asyncio
from importlib import import_module

import pytest

from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, Record, Rejection, SendResult

courses = pytest.importorskip(
    "bizlog_handlers._courses",
    reason="azure-eventhub is not installed",
    exc_type=ImportError,
)
envelopes = import_module("bizlog_handlers._envelopes")
packing = import_module("bizlog_handlers._packing")
sdk = import_module("azure.eventhub")


class Link:
    """A link that stores what is sent, or raises what it is told."""

    def __init__(self, refuse=lambda _bodies: None, pause=0.0):
        self.turn = asyncio.Lock()
        self.batches = []
        self._refuse = refuse
        self._pause = pause

    async def send(self, batch, seconds):
        bodies = [
            sdk.EventData.from_bytes(bytes(each)).body_as_str()
            for each in batch._message[5]
        ]
        assert batch._partition_id == "7"
        await asyncio.sleep(self._pause)
        if (error := self._refuse(bodies)) is not None:
            raise error
        self.batches.append(bodies)

    @property
    def stored(self):
        return [body for bodies in self.batches for body in bodies]


def records_of(*bodies):
    return [
        Record(body.encode(), str(n), "a.b", "", n) for n, body in enumerate(bodies)
    ]


def course(link, records, outcome, *, limit=100_000, left=lambda: 5.0, indices=None):
    entries = [(None, index) for index in indices or range(len(records))]
    return courses.Course(
        link=link,
        partition="7",
        limit=limit,
        parcels=packing.one_by_one(records, entries),
        records=records,
        envelopes=envelopes.Envelopes("none", packed=False),
        outcome=outcome,
        left=left,
    )


def deliver(link, records, **options):
    """Run one course; returns the sink's answer."""
    outcome = courses.Outcome(len(records))
    asyncio.run(course(link, records, outcome, **options).run())
    return outcome.result()


def test_all_that_fits_goes_in_one_batch():
    """Order stays, and everything is accepted."""
    link = Link()

    assert deliver(link, records_of("a", "b", "c")) is ACCEPTED
    assert link.batches == [["a", "b", "c"]]


def test_batches_are_filled_by_bytes():
    """What has no room goes into the next one, in order; no event is left out."""
    link = Link()
    bodies = [f"{number:03}" * 30 for number in range(200)]

    assert deliver(link, records_of(*bodies), limit=2_000) is ACCEPTED
    assert link.stored == bodies
    assert len(link.batches) < 15


def test_an_event_that_no_batch_can_hold_is_refused_alone():
    """With its size and the limit, wherever it stands; its siblings arrive."""
    link = Link()
    large = "x" * 2_000
    records = records_of(large, "a", large, "b", large)

    answer = deliver(link, records, limit=1_000)

    assert link.stored == ["a", "b"]
    assert [each.index for each in answer.rejected] == [0, 2, 4]
    assert "2000 bytes, of the 1000 that the hub takes" in answer.rejected[0].reason
    assert answer.retry == ()


def test_nothing_follows_what_could_not_be_sent():
    """Otherwise an event would overtake one of its key; all of it is given back."""
    link = Link(
        lambda bodies: RetryableSinkError("busy", 4.0) if "b" in bodies[0] else None
    )
    records = records_of(*(letter * 800 for letter in "abcde"))

    answer = deliver(link, records, limit=1_000)

    assert link.stored == ["a" * 800]
    assert sorted(answer.retry) == [1, 2, 3, 4]
    assert (answer.retry_after, answer.retry_reason) == (4.0, "busy")


def test_where_nothing_was_taken_the_batch_failed():
    """So the engine knows that the hub is out of reach."""
    link = Link(lambda _bodies: RetryableSinkError("no route"))

    with pytest.raises(RetryableSinkError, match="no route"):
        deliver(link, records_of("a", "b"))


@pytest.mark.parametrize("kind", [PermanentSinkError, BatchTooLargeError])
def test_what_the_hub_refuses_is_found_by_halves(kind):
    """The bad events go to the dead letters, the others arrive in order."""
    link = Link(lambda bodies: kind("bad") if {"2", "5"} & {*bodies} else None)
    records = records_of(*map(str, range(9)))

    answer = deliver(link, records)

    assert link.stored == [str(n) for n in range(9) if n not in {2, 5}]
    assert answer.rejected == (Rejection(2, "bad"), Rejection(5, "bad"))


def test_halves_stop_where_the_hub_goes_away():
    """What is not sent by then is given back."""
    errors = [PermanentSinkError("bad"), None, RetryableSinkError("gone")]
    link = Link(lambda _bodies: errors.pop(0))

    answer = deliver(link, records_of("0", "1", "2", "3"))

    assert link.stored == ["0", "1"]
    assert sorted(answer.retry) == [2, 3]

    errors = [PermanentSinkError("bad"), RetryableSinkError("gone")]
    with pytest.raises(RetryableSinkError, match="gone"):
        deliver(link := Link(lambda _bodies: errors.pop(0)), records_of("0", "1"))
    assert link.stored == []


def test_when_time_is_over_nothing_more_is_sent():
    """A send that could only be cut might arrive all the same."""
    link = Link()
    left = iter([5.0, 0.01])
    records = records_of("a" * 800, "b" * 800, "c" * 800)

    answer = deliver(link, records, limit=1_000, left=lambda: next(left))

    assert link.stored == ["a" * 800]
    assert sorted(answer.retry) == [1, 2]
    assert answer.retry_reason == "the time for this batch is over: see send_timeout"


def test_the_next_batch_is_made_up_while_one_is_under_way():
    """The link is kept busy: there is work to do while it waits for an answer."""
    seen = []

    class Watched(envelopes.Envelopes):
        def seal(self, parcel, records):
            seen.append("seal")
            return super().seal(parcel, records)

    class Slow(Link):
        async def send(self, batch, seconds):
            seen.append("send")
            await super().send(batch, seconds)
            seen.append("sent")

    records = records_of("a" * 800, "b" * 800)
    outcome = courses.Outcome(2)

    async def scene():
        run = course(Slow(pause=0.05), records, outcome, limit=1_000)
        run._envelopes = Watched("none", packed=False)
        await run.run()

    asyncio.run(scene())
    assert outcome.result() is ACCEPTED
    assert seen.index("sent") > [n for n, each in enumerate(seen) if each == "seal"][1]


def test_courses_of_one_partition_take_turns():
    """Batches that are under way at the same time arrive in the order they came."""

    async def scene():
        link = Link(pause=0.01)
        outcome = courses.Outcome(4)
        first, second = records_of("a" * 800, "b" * 800), records_of("c", "d")
        await asyncio.gather(
            course(link, first, outcome, limit=1_000).run(),
            course(link, second, outcome, limit=1_000).run(),
        )
        return link.stored

    assert asyncio.run(scene()) == ["a" * 800, "b" * 800, "c", "d"]


def test_a_course_that_is_cancelled_cancels_what_is_under_way():
    """Nothing is sent behind the engine's back."""

    async def scene():
        link = Link(pause=10)
        outcome = courses.Outcome(1)
        task = asyncio.create_task(course(link, records_of("a"), outcome).run())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        return link, len(asyncio.all_tasks())

    link, tasks = asyncio.run(scene())
    assert (link.stored, link.turn.locked(), tasks) == ([], False, 1)


def test_the_loop_has_its_turn_while_messages_are_made_up():
    """Other sinks share it: 5,000 events must not hold it up in one piece."""
    turns = 0

    async def scene():
        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        records = records_of(*["x"] * 5_000)
        outcome = courses.Outcome(5_000)
        await course(Link(), records, outcome, limit=1_000_000).run()
        counting.cancel()

    asyncio.run(scene())
    assert turns > 50


def test_answers_are_gathered_from_all_partitions():
    """The first reason and the longest pause count."""
    outcome = courses.Outcome(5)
    outcome.blame(RetryableSinkError("first"))
    outcome.blame(RetryableSinkError("second", 4.0))
    outcome.blame(RetryableSinkError("third", 1.0))
    outcome.give_back(packing.Parcel(b"", None, (1, 3)))
    outcome.reject(packing.Parcel(b"", None, (0,)), "bad")

    assert outcome.result() == SendResult((Rejection(0, "bad"),), (1, 3), 4.0, "first")
