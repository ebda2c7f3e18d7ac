"""When a batch is due, when it is sent again, and what follows from an answer."""

from __future__ import annotations

import asyncio
import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizlog.delivery.policy import (
    UNCLEAR_ATTEMPTS,
    Backoff,
    Batcher,
    Breaker,
    Delivery,
    Refusal,
    judge,
    part_name,
    reason_of,
)
from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, Rejection, SendResult
from bizlog.testing import ManualClock


class BadText(Exception):
    """Cannot even be printed."""

    def __str__(self):
        raise RuntimeError("no")


def test_nothing_gathered_is_never_due():
    """An empty batcher waits for ever."""
    assert Batcher(1, 1, 0.0).due_in(1e9) is None


def test_due_at_once_when_the_events_are_many():
    """`batch_size` events make a batch, one less does not."""
    batcher = Batcher(3, 10_000, 5.0)
    batcher.add(2, 2, 0.0)
    assert batcher.due_in(0.0) == 5.0

    batcher.add(1, 1, 0.0)
    assert batcher.due_in(0.0) == 0.0


def test_due_at_once_when_the_bytes_are_many():
    """`batch_bytes` bytes make a batch, one less does not."""
    batcher = Batcher(1_000, 100, 5.0)
    batcher.add(1, 99, 0.0)
    assert batcher.due_in(0.0) == 5.0

    batcher.add(1, 1, 0.0)
    assert batcher.due_in(0.0) == 0.0


def test_due_when_the_oldest_has_waited_long_enough():
    """The interval runs from the oldest event; later ones do not prolong it."""
    clock = ManualClock(50.0)
    batcher = Batcher(1_000, 10_000, 5.0)
    batcher.add(1, 1, clock())
    clock.advance(3.0)
    batcher.add(1, 1, clock())

    assert batcher.due_in(clock()) == 2.0
    clock.advance(2.0)
    assert batcher.due_in(clock()) == 0.0
    clock.advance(100.0)
    assert batcher.due_in(clock()) == 0.0


def test_an_interval_of_zero_sends_at_once():
    """`flush_interval=0` waits for no company."""
    batcher = Batcher(1_000, 10_000, 0.0)
    batcher.add(1, 1, 7.0)

    assert batcher.due_in(7.0) == 0.0


def test_what_is_left_waits_anew():
    """After a batch was taken the rest waits from then on."""
    clock = ManualClock()
    batcher = Batcher(3, 10_000, 5.0)
    batcher.add(4, 40, clock())
    clock.advance(1.0)

    batcher.remove(3, 30, clock())

    assert (batcher.events, batcher.bytes) == (1, 10)
    assert batcher.due_in(clock()) == 5.0


def test_taking_all_leaves_nothing_due():
    """Counts go back to zero exactly."""
    batcher = Batcher(3, 10_000, 5.0)
    batcher.add(3, 30, 0.0)
    batcher.remove(3, 30, 1.0)

    assert (batcher.events, batcher.bytes) == (0, 0)
    assert batcher.due_in(100.0) is None


def test_no_size_is_left_when_nothing_is_left():
    """A damaged record has another size than it had: no rest makes a batch due."""
    batcher = Batcher(3, 10, 5.0)
    batcher.add(2, 20, 0.0)
    batcher.remove(2, 5, 0.0)

    assert batcher.bytes == 0


# How long to wait


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (50, 30.0), (10**6, 30.0)],
)
def test_the_wait_doubles_up_to_the_cap(failures, longest):
    """0.5 s times 2 to the n, drawn from zero on, never more than 30 s."""
    drawn = [Backoff(draw=lambda part=part: part).delay(failures) for part in (0, 0.5)]

    assert drawn == [0.0, longest / 2]


def test_the_wait_is_drawn_anew():
    """Full jitter: clients that failed together do not come back together."""
    assert len({Backoff().delay(5) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (None, 0.0),
        (0, 0.0),
        (-3.0, 0.0),
        (math.nan, 0.0),
        (-math.inf, 0.0),
        (3, 3.0),
        (29.5, 29.5),
        (31, 30.0),
        (252_000_000_000.0, 30.0),
        (math.inf, 30.0),
    ],
)
def test_what_a_destination_asks_for_is_bounded(asked, wait):
    """Retry-After is waited at the least, up to the cap; nonsense is no wait."""
    backoff = Backoff(draw=lambda: 0.0)

    assert backoff.clamp(asked) == wait
    assert backoff.delay(1, asked) == wait


def test_a_longer_wait_of_ours_is_kept():
    """Whoever asks for less than the back-off gets the back-off."""
    assert Backoff(draw=lambda: 0.5).delay(4, 1.0) == 2.0


def test_the_breaker_opens_with_the_fifth_failure_and_closes_with_a_success():
    """Until then batches go beside others, then one alone."""
    breaker = Breaker()
    for _ in range(4):
        breaker.note(failed=True)
        assert breaker.allows(3)
    breaker.note(failed=True)
    assert breaker.is_open
    assert breaker.allows(0)
    assert not breaker.allows(1)

    breaker.note(failed=False)

    assert breaker.failures == 0
    assert breaker.allows(3)


# What an answer means


@pytest.mark.parametrize("answer", [ACCEPTED, None, SendResult([], [])])
def test_accepted_means_no_refusal(answer):
    """An empty answer, or None as in the seed, accepts every event."""
    verdict = judge(3, answer)

    assert (verdict.kind, verdict.refused, verdict.retry) == ("taken", (), ())


def test_rejected_events_are_named_in_order():
    """Each rejection keeps its reason and path; the order is the batch's."""
    answer = SendResult(rejected=(Rejection(2, "late", "$.a"), Rejection(0, "bad")))

    assert judge(3, answer).refused == (
        Refusal(0, "bad"),
        Refusal(2, "late", "$.a"),
    )


def test_events_to_retry_are_named_with_a_reason():
    """`retry` names them, with the sink's reason or one of ours, and its wait."""
    verdict = judge(2, SendResult(retry=(1,), retry_reason="busy", retry_after=3))
    assert (verdict.kind, verdict.retry) == ("taken", (1,))
    assert (verdict.reason, verdict.retry_after) == ("busy", 3.0)

    reason = judge(2, SendResult(retry=(0,))).reason
    assert reason == "the sink could not take it now"


def test_indices_outside_the_batch_are_ignored():
    """A sink that names events it never got takes nothing from the others."""
    answer = SendResult(
        rejected=(Rejection(-1, "x"), Rejection(2, "x"), Rejection(10**9, "x")),
        retry=(-5, 2, 7),
    )
    verdict = judge(2, answer)

    assert (verdict.kind, verdict.refused, verdict.retry) == ("taken", (), ())


def test_an_event_is_refused_once():
    """Doubles, and an event both rejected and to retry, count once, as rejected."""
    answer = SendResult(
        rejected=(Rejection(1, "first"), Rejection(1, "last")), retry=(1, 1, 0, 0)
    )

    verdict = judge(2, answer)

    assert verdict.refused == (Refusal(1, "last"),)
    assert verdict.retry == (0,)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ValueError("no"), "unclear", "ValueError: no"),
        (BadText(), "unclear", "BadText"),
        (MemoryError(), "unclear", "MemoryError"),
        (ExceptionGroup("two", [OSError()]), "unclear", "ExceptionGroup: "),
        (RetryableSinkError("later"), "later", "RetryableSinkError: later"),
        (OSError("\udcff"), "later", "OSError: ?"),
        (TimeoutError("late"), "later", "TimeoutError: late"),
        (ConnectionResetError(), "later", "ConnectionResetError"),
        (asyncio.CancelledError(), "later", "CancelledError"),
        (KeyboardInterrupt(), "later", "KeyboardInterrupt"),
        (GeneratorExit(), "later", "GeneratorExit"),
        (SystemExit(3), "later", "SystemExit: 3"),
        (PermanentSinkError("never"), "poison", "PermanentSinkError: never"),
        (BatchTooLargeError("2 MB"), "too_large", "BatchTooLargeError: 2 MB"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_says_whether_again_makes_sense(error, kind, reason):
    """Whatever was raised is of one kind, with a reason that is text."""
    verdict = judge(3, error)

    assert (verdict.kind, verdict.refused, verdict.retry) == (kind, (), ())
    assert verdict.reason.startswith(reason)
    assert verdict.error_type == type(error).__name__
    assert verdict.reason == reason_of(error)
    assert verdict.reason.encode()


@pytest.mark.parametrize(
    "answer",
    [
        True,
        0,
        "ok",
        [],
        object(),
        SendResult(rejected=None),
        SendResult(rejected=("x",)),
        SendResult(rejected=(Rejection(None, "x"),)),
        SendResult(rejected=(Rejection(0.5, "x"),)),
        SendResult(retry=5),
        SendResult(retry=None),
        SendResult(retry=("1", 0)),
        SendResult(retry=(1.0,)),
    ],
)
def test_an_answer_that_cannot_be_read_is_unclear(answer):
    """A sink that answers nonsense did not say that it has the events."""
    verdict = judge(2, answer)

    assert verdict.kind == "unclear"
    assert "Error: " in verdict.reason


def test_reasons_and_paths_become_text_that_can_be_written():
    """Lone surrogates and foreign types in an answer never break a dead letter."""
    answer = SendResult(
        rejected=(Rejection(0, "\ud800", "$.\udfff"), Rejection(1, 5)),
        retry=(2,),
        retry_reason="\udcff",
    )

    verdict = judge(3, answer)

    found = [(r.reason, r.path) for r in verdict.refused]
    assert found == [("?", "$.?"), ("5", None)]
    assert verdict.reason == "?"


class Asking(RetryableSinkError):
    """Asks for a wait that cannot even be read."""

    @property
    def retry_after(self):
        raise RuntimeError("no")

    @retry_after.setter
    def retry_after(self, _):
        pass


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(3, 3.0), (10**400, math.inf), (-(10**400), None), ("3", None), (None, None)],
    ids=["3", "huge", "hugely negative", "text", "nothing"],
)
def test_a_wait_that_is_asked_for_is_read_with_care(asked, seconds):
    """Neither text nor a number beyond floats hurts the lane."""
    assert judge(1, RetryableSinkError("no", asked)).retry_after == seconds
    assert judge(1, SendResult(retry=(0,), retry_after=asked)).retry_after == seconds
    assert judge(1, Asking("no")).retry_after is None


def test_a_part_has_one_name():
    """The same events have the same name; others have another one."""
    names = {
        part_name(indices)
        for events in range(1, 5)
        for indices in combinations(range(7), events)
    }

    assert len(names) == 7 + 21 + 35 + 35
    assert part_name([2, 3, 4]) == part_name(range(2, 5)) == ".2-4"
    assert part_name([5]) == ".5-5"


# A batch on its way


def delivery_of(events, **options):
    """Make a delivery whose waits are half of the longest."""
    return Delivery(events, backoff=Backoff(draw=lambda: 0.5), **options)


class Destination:
    """
    A sink for one batch, by index.

    Args:
        poison: What it refuses, and everything sent along.
        limit: Most events it takes at once.
        error: What it says to poison.
    """

    def __init__(self, poison=(), limit=10**9, error=None):
        self.poison = set(poison)
        self.limit = limit
        self.error = error or PermanentSinkError("a bad event")
        self.sent = []
        self.got = []

    def answer(self, indices):
        indices = list(indices)
        self.sent.append(indices)
        if len(indices) > self.limit:
            return BatchTooLargeError("too many")
        if self.poison.intersection(indices):
            return self.error
        self.got += indices
        return ACCEPTED

    def serve(self, delivery):
        now = 0.0
        while not delivery.done:
            now = max(now, delivery.due_at)
            delivery.answered(self.answer(delivery.next()), now)
        return now


def settled_by(delivery, destination, events):
    """Check that each event ended once, then say which ones were refused."""
    refused = [refusal.index for refusal in delivery.refused]
    assert delivery.delivered == len(destination.got)
    assert sorted(destination.got + refused) == list(range(events))
    return sorted(refused)


def test_nothing_to_send_is_done():
    """A batch of which a route left nothing needs no attempt."""
    assert delivery_of(0).done


def test_a_batch_that_is_taken_is_done():
    """One send, and nothing is refused."""
    delivery, destination = delivery_of(3), Destination()
    assert delivery.whole
    destination.serve(delivery)

    assert destination.sent == [[0, 1, 2]]
    assert settled_by(delivery, destination, 3) == []


def test_a_failed_batch_is_sent_again_as_it_was():
    """The waits grow, and the batch stays whole."""
    delivery, now, waits = delivery_of(3), 100.0, []
    for _ in range(4):
        assert delivery.answered(RetryableSinkError("no"), now).kind == "later"
        assert delivery.whole
        waits.append(delivery.due_at - now)
        now = delivery.due_at
    delivery.answered(None, now)

    assert waits == [0.25, 0.5, 1.0, 2.0]
    assert delivery.done
    assert delivery.delivered == 3


def test_the_wait_that_a_destination_asks_for_is_kept():
    """Retry-After wins over a shorter back-off."""
    delivery = delivery_of(1)
    delivery.answered(RetryableSinkError("no", retry_after=3), 10.0)

    assert delivery.due_at == 13.0


def test_hurry_cuts_our_waits_short_and_not_those_asked_for():
    """At the end the back-off is skipped; what a destination asked for is not."""
    delivery = delivery_of(1)
    for _ in range(6):
        delivery.answered(OSError("no"), 10.0)
    assert delivery.due_at == 18.0
    delivery.hurry(11.0)
    assert delivery.due_at == 11.0
    delivery.answered(RetryableSinkError("no", retry_after=3), 11.0)
    delivery.hurry(12.0)
    assert delivery.due_at == 14.0
    delivery.answered(OSError("no"), 14.0)

    assert delivery.due_at == 14.25  # the back-off began anew


def test_only_what_failed_is_sent_again():
    """Of a partial failure nothing goes twice but what the sink asked for."""
    delivery = delivery_of(5)
    delivery.answered(SendResult((Rejection(0, "bad"),), retry=(1, 3)), 0.0)
    assert list(delivery.next()) == [1, 3]
    assert not delivery.whole
    assert delivery.due_at == 0.25
    delivery.answered(SendResult(retry=(1,)), 1.0)
    assert list(delivery.next()) == [3]
    delivery.answered(SendResult((Rejection(0, "no"),)), 2.0)

    assert delivery.done
    assert delivery.delivered == 3
    assert [(r.index, r.reason, r.attempts) for r in delivery.refused] == [
        (0, "bad", 1),
        (3, "no", 3),
    ]


@pytest.mark.parametrize("events", [*range(1, 71)])
def test_a_poisoned_event_is_found_in_few_sends(events):
    """At most ⌈log₂ n⌉ + 1 sends find it, one more takes the rest, in order."""
    for position in range(events):
        delivery, destination = delivery_of(events), Destination([position])
        found_after = None
        while not delivery.done:
            delivery.answered(destination.answer(delivery.next()), 0.0)
            if delivery.refused and found_after is None:
                found_after = len(destination.sent)

        assert found_after <= math.ceil(math.log2(events)) + 1
        assert len(destination.sent) <= found_after + 1
        assert settled_by(delivery, destination, events) == [position]
        assert destination.got == sorted(destination.got)


@pytest.mark.parametrize("poisons", [2, 3])
def test_several_poisoned_events_are_found(poisons):
    """Each one alone is refused, the others arrive in order, at any positions."""
    events = 11
    for positions in combinations(range(events), poisons):
        delivery, destination = delivery_of(events), Destination(positions)
        destination.serve(delivery)

        assert settled_by(delivery, destination, events) == list(positions)
        assert destination.got == sorted(destination.got)
        assert len(destination.sent) <= poisons * (4 + 1) + 1


def test_a_refusal_counts_how_often_its_event_was_sent():
    """Not how often some of its batch were sent."""
    for positions in combinations(range(8), 2):
        delivery, destination = delivery_of(8), Destination(positions)
        destination.serve(delivery)
        for refusal in delivery.refused:
            sent = sum(refusal.index in indices for indices in destination.sent)
            assert refusal.attempts == sent


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_batch_that_is_too_large_is_split(limit):
    """The parts arrive in order, and are not joined again."""
    delivery, destination = delivery_of(11), Destination(limit=limit)
    destination.serve(delivery)

    assert settled_by(delivery, destination, 11) == []
    assert destination.got == sorted(destination.got)
    assert len(destination.sent) <= 2 * 11 - 1


def test_a_single_event_that_is_too_large_is_refused():
    """There is nothing left to split."""
    delivery, destination = delivery_of(2), Destination(limit=0)
    destination.serve(delivery)

    assert settled_by(delivery, destination, 2) == [0, 1]
    assert {refusal.error_type for refusal in delivery.refused} == {
        "BatchTooLargeError"
    }


def test_a_poisoned_event_in_a_batch_that_is_too_large():
    """Split and halved at once: only the bad event is refused."""
    for position in range(13):
        delivery, destination = delivery_of(13), Destination([position], limit=4)
        destination.serve(delivery)
        assert settled_by(delivery, destination, 13) == [position]


def test_an_error_that_says_nothing_is_taken_for_poison_in_the_end():
    """Eight attempts with waits between, then the event is looked for."""
    destination = Destination([2], error=ValueError("why?"))
    delivery = delivery_of(4)
    for _ in range(UNCLEAR_ATTEMPTS - 1):
        before = delivery.due_at
        verdict = delivery.answered(destination.answer(delivery.next()), before)
        assert verdict.kind == "unclear"
        assert delivery.due_at > before
        assert delivery.whole
    verdict = delivery.answered(destination.answer(delivery.next()), delivery.due_at)
    assert verdict.kind == "poison"
    assert not delivery.whole
    destination.serve(delivery)

    assert settled_by(delivery, destination, 4) == [2]
    assert destination.got == [0, 1, 3]


def test_other_errors_between_unclear_ones_begin_the_count_anew():
    """Only eight in a row mean poison."""
    delivery = delivery_of(2)
    for _ in range(3):
        for _ in range(UNCLEAR_ATTEMPTS - 1):
            delivery.answered(ValueError("why?"), 0.0)
        delivery.answered(OSError("down"), 0.0)

    assert delivery.whole
    assert delivery.refused == []


@pytest.mark.parametrize("events", [1, 2, 3, 8, 13])
def test_an_outage_that_says_nothing_costs_no_event(events):
    """Where the sink never said that it refuses, no event is guilty unsent."""
    delivery, destination = delivery_of(events), Destination()
    for _ in range(UNCLEAR_ATTEMPTS - (events == 1)):
        delivery.answered(ValueError("the database is away"), 0.0)
    destination.serve(delivery)

    assert settled_by(delivery, destination, events) == []
    assert destination.got == sorted(destination.got)


# How long an event lives


def test_each_event_is_given_up_when_its_own_time_is_over():
    """One that arrived later lives longer, to the moment."""
    delivery = delivery_of(3, arrivals=[(1, 0.0), (3, 5.0)], lifetime=10.0)
    delivery.answered(OSError("down"), 9.0)
    delivery.expire(9.999)
    assert delivery.whole
    delivery.expire(10.0)
    assert list(delivery.next()) == [1, 2]
    delivery.expire(14.999)
    assert list(delivery.next()) == [1, 2]
    delivery.expire(15.0)

    assert delivery.done
    assert [(r.index, r.attempts, r.error_type) for r in delivery.refused] == [
        (0, 1, "deadline"),
        (1, 1, "deadline"),
        (2, 1, "deadline"),
    ]
    assert delivery.refused[0].reason == "not delivered within 10 s: OSError: down"


def test_an_event_without_a_deadline_lives_for_ever():
    """`lifetime=None` never gives up."""
    delivery = delivery_of(1, arrivals=[(1, 0.0)])
    delivery.expire(1e12)

    assert not delivery.done


def test_what_was_never_sent_says_so():
    """An event whose time is over before its first attempt."""
    delivery = delivery_of(1, arrivals=[(1, 0.0)], lifetime=1.0)
    delivery.expire(1.0)

    (refusal,) = delivery.refused
    assert refusal.attempts == 0
    assert refusal.reason == "not delivered within 1 s: it was never sent"


def test_a_half_that_lost_events_to_their_deadline_proves_nothing():
    """The bad event may have been among them: the other half is not convicted."""
    delivery = delivery_of(4, arrivals=[(1, 0.0), (4, 100.0)], lifetime=10.0)
    delivery.answered(PermanentSinkError("a bad one"), 0.0)
    delivery.expire(10.0)
    destination = Destination()
    destination.serve(delivery)

    assert [refusal.index for refusal in delivery.refused] == [0]
    assert destination.got == [1, 2, 3]


def test_refusing_the_rest_leaves_nothing():
    """What is not settled is refused, with the attempts it had."""
    delivery = delivery_of(4)
    delivery.answered(SendResult((Rejection(3, "bad"),), retry=(0, 1)), 0.0)
    delivery.refuse_rest("the end", "shutdown")

    assert delivery.done
    assert delivery.delivered == 1
    assert [(r.index, r.reason, r.attempts) for r in delivery.refused] == [
        (3, "bad", 1),
        (0, "the end", 1),
        (1, "the end", 1),
    ]


def test_giving_up_tells_what_failed_last():
    """The end of the process is not the reason why an event was not delivered."""
    delivery, unsent = delivery_of(1), delivery_of(1)
    delivery.answered(OSError("down"), 0.0)
    delivery.give_up("the end", "shutdown")
    unsent.give_up("the end", "shutdown")

    assert delivery.refused[0].reason == "the end: OSError: down"
    assert unsent.refused[0].reason == "the end"


class Moody(Destination):
    """Answers as its destination would, unless its mood says otherwise."""

    def __init__(self, data, **options):
        super().__init__(**options)
        self.data = data
        self.moods_left = 12
        self.torn = False

    def answer(self, indices):
        if self.moods_left:
            self.moods_left -= 1
            mood = self.data.draw(st.sampled_from(["well", "down", "odd", "torn"]))
            if mood == "down":
                return RetryableSinkError("down", retry_after=1.0)
            if mood == "odd":
                return ValueError("why?")
            if mood == "torn":
                return self.tear(list(indices))
        return super().answer(indices)

    def tear(self, indices):
        """Take some, ask for others again, refuse the poisoned ones among them."""
        self.torn = True
        taken, retry, rejected = [], [], []
        for position, index in enumerate(indices):
            if index in self.poison:
                rejected.append(Rejection(position, "bad"))
            elif self.data.draw(st.booleans()):
                taken.append(index)
            else:
                retry.append(position)
        self.sent.append(indices)
        self.got += taken
        return SendResult(tuple(rejected), tuple(retry))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_event_ends_once_whatever_a_sink_answers(data):
    """Healthy events are delivered, poisoned ones refused, all of them once."""
    events = data.draw(st.integers(1, 40))
    poison = data.draw(st.sets(st.integers(0, events - 1), max_size=4))
    limit = data.draw(st.sampled_from([1, 3, 10, 10**9]))
    sink = Moody(data, poison=poison, limit=limit)
    delivery = delivery_of(events)
    sink.serve(delivery)

    assert settled_by(delivery, sink, events) == sorted(poison)
    if not sink.torn:
        assert sink.got == sorted(sink.got)
