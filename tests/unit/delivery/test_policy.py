"""When a batch is due, and what a sink's answer means for each event."""

from __future__ import annotations

import asyncio

import pytest

from bizlog.delivery.policy import Batcher, Refusal, reason_of, refusals
from bizlog.exceptions import PermanentSinkError, RetryableSinkError
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


@pytest.mark.parametrize("answer", [ACCEPTED, None])
def test_accepted_means_no_refusal(answer):
    """An empty answer, or None as in the seed, accepts every event."""
    assert refusals(3, answer) == []


def test_rejected_events_are_named_in_order():
    """Each rejection keeps its reason and path; the order is the batch's."""
    answer = SendResult(rejected=(Rejection(2, "late", "$.a"), Rejection(0, "bad")))

    assert refusals(3, answer) == [Refusal(0, "bad"), Refusal(2, "late", "$.a")]


def test_events_to_retry_are_refused_until_back_off_comes():
    """`retry` counts as refused, with the sink's reason or one of ours."""
    assert refusals(2, SendResult(retry=(1,), retry_reason="busy")) == [
        Refusal(1, "busy", error_type="retry")
    ]
    (refusal,) = refusals(2, SendResult(retry=(0,)))
    assert refusal.reason == "the sink could not take it now"


def test_indices_outside_the_batch_are_ignored():
    """A sink that names events it never got takes nothing from the others."""
    answer = SendResult(
        rejected=(Rejection(-1, "x"), Rejection(2, "x"), Rejection(10**9, "x")),
        retry=(-5, 2, 7),
    )

    assert refusals(2, answer) == []


def test_an_event_is_refused_once():
    """Doubles, and an event both rejected and to retry, count once, as rejected."""
    answer = SendResult(
        rejected=(Rejection(1, "first"), Rejection(1, "last")), retry=(1, 1, 0, 0)
    )

    found = refusals(2, answer)

    assert [refusal.index for refusal in found] == [0, 1]
    assert found[1].reason == "last"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no"), "ValueError: no"),
        (RetryableSinkError("later"), "RetryableSinkError: later"),
        (PermanentSinkError("never"), "PermanentSinkError: never"),
        (asyncio.CancelledError(), "CancelledError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (BadText(), "BadText"),
        (OSError("\udcff"), "OSError: ?"),
    ],
)
def test_an_exception_refuses_every_event(error, reason):
    """Whatever was raised: the whole batch is refused, with a reason that is text."""
    kind = type(error).__name__

    assert refusals(3, error) == [Refusal(i, reason, error_type=kind) for i in range(3)]
    assert reason_of(error).encode()


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
        SendResult(retry=5),
        SendResult(retry=("1", 0)),
    ],
)
def test_an_answer_that_cannot_be_read_refuses_every_event(answer):
    """A sink that answers nonsense did not say that it has the events."""
    found = refusals(2, answer)

    assert [refusal.index for refusal in found] == [0, 1]
    assert "Error: " in found[0].reason


def test_reasons_and_paths_become_text_that_can_be_written():
    """Lone surrogates and foreign types in an answer never break a dead letter."""
    answer = SendResult(
        rejected=(Rejection(0, "\ud800", "$.\udfff"), Rejection(1, 5)),
        retry=(2,),
        retry_reason="\udcff",
    )

    found = refusals(3, answer)

    assert [(r.reason, r.path) for r in found] == [
        ("?", "$.?"),
        ("5", None),
        ("?", None),
    ]


def test_no_events_no_refusals():
    """A batch without events has nothing to refuse."""
    assert refusals(0, ValueError("no")) == []
