"""Receipts: who waits for which event, and what they are told."""

from __future__ import annotations

import copy
import gc
import threading
from concurrent.futures import CancelledError

import pytest

from bizlog.delivery.receipts import (
    PENDING,
    QUEUE_FULL,
    Outcome,
    Receipt,
    Receipts,
    Sent,
    Wait,
)
from bizlog.events import OrderEvent
from bizlog.sinks import Record


def record(event_id):
    """Make a record of an event."""
    return Record(b"{}", event_id, "t", "", 1)


@pytest.fixture
def receipts():
    """Receipts for three sinks."""
    return Receipts(["a", "b", "c"])


def test_nobody_waits_at_first(receipts):
    """What nobody waits for costs nothing and is not kept."""
    receipts.settle("e", "a", "delivered")
    receipts.append([record("e")])
    receipts.journal()

    assert receipts.expected == {}


def test_all_sinks_have_it(receipts):
    """Without a quorum every sink counts."""
    wait = receipts.expect("e")
    future = wait.ask("sinks", None)
    for sink in "ab":
        receipts.settle("e", sink, "delivered")
        assert not future.done()
    receipts.settle("e", "c", "delivered")

    assert future.result(0) is True
    assert receipts.expected == {}
    assert wait.receipt("sinks", None) == Receipt(
        "e", confirmed=True, sinks=dict.fromkeys("abc", Outcome("delivered"))
    )


@pytest.mark.parametrize(
    ("states", "quorum", "reached"),
    [
        (["delivered", None, None], 1, True),
        (["delivered", None, None], 2, None),
        (["delivered", "dead_lettered", None], 2, None),
        (["delivered", "dead_lettered", "dropped"], 2, False),
        (["delivered", "delivered", "dropped"], 2, True),
        (["dropped", "dropped", None], 2, False),
        (["delivered", "not_routed", None], None, None),
        (["delivered", "not_routed", "not_routed"], None, True),
        (["delivered", "not_routed", "dead_lettered"], None, False),
        (["dead_lettered", None, None], None, False),
        (["not_routed", "not_routed", "not_routed"], None, True),
        (["not_routed", "not_routed", "not_routed"], 1, False),
    ],
)
def test_a_quorum_is_reached_or_out_of_reach(receipts, states, quorum, reached):
    """The answer comes with the first word that decides it."""
    wait = receipts.expect("e")
    for sink, state in zip("abc", states, strict=True):
        if state:
            receipts.settle("e", sink, state)

    assert wait.reached("sinks", quorum) is reached
    assert wait.ask("sinks", quorum).done() is (reached is not None)
    assert wait.receipt("sinks", quorum).confirmed is (reached is True)


def test_a_journal_has_it(receipts):
    """The level `journal` needs no sink."""
    wait = receipts.expect("e")
    future = wait.ask("journal", None)
    receipts.append([record("other"), record("e")])
    assert not future.done()  # the disk does not take it now
    receipts.journal()

    assert future.result(0) is True
    receipt = wait.receipt("journal", None)
    assert receipt.journaled
    assert receipt.confirmed
    assert set(receipt.sinks.values()) == {PENDING}


def test_a_journal_never_got_it(receipts):
    """What every sink settled is not written any more: the wait is over."""
    wait = receipts.expect("e")
    future = wait.ask("journal", None)
    receipts.lose("e", "the queue did not take it")

    assert future.result(0) is False
    receipt = wait.receipt("journal", None)
    assert receipt.sinks["a"] == Outcome("dropped", "the queue did not take it")


def test_what_the_queue_dropped_is_told_later(receipts):
    """The emit path only notes it; bizlog's thread tells."""
    wait = receipts.expect("e")
    future = wait.ask("sinks", None)
    receipts.note_dropped(record("e"))
    receipts.note_dropped(record("other"))
    assert not future.done()
    receipts.tell_dropped()

    assert future.result(0) is False
    assert set(wait.outcomes.values()) == {Outcome("dropped", QUEUE_FULL)}


def test_the_first_word_counts(receipts):
    """A delivered event is not dead-lettered afterwards."""
    wait = receipts.expect("e")
    receipts.settle("e", "a", "delivered")
    receipts.settle("e", "a", "dead_lettered", "no")
    receipts.settle("e", "unknown", "delivered")

    assert wait.outcomes["a"] == Outcome("delivered")
    assert set(wait.outcomes) == {"a", "b", "c"}


def test_several_may_ask_for_different_things(receipts):
    """Each is told when its own answer is known, late askers at once."""
    wait = receipts.expect("e")
    journal, one, every = (
        wait.ask("journal", None),
        wait.ask("sinks", 1),
        wait.ask("sinks", None),
    )
    receipts.settle("e", "a", "delivered")
    assert [f.done() for f in (journal, one, every)] == [False, True, False]
    receipts.settle("e", "b", "dropped")
    assert every.result(0) is False
    assert wait.ask("sinks", 1).result(0) is True


def test_who_gave_up_does_not_disturb(receipts):
    """A caller whose time ran out is told nothing; the others are."""
    wait = receipts.expect("e")
    given_up, patient = wait.ask("sinks", 1), wait.ask("sinks", 1)
    given_up.cancel()
    receipts.settle("e", "a", "delivered")

    assert patient.result(0) is True
    with pytest.raises(CancelledError):
        given_up.result(0)


def test_what_was_not_accepted_is_forgotten(receipts):
    """Nothing stays behind of it."""
    receipts.expect("e")
    receipts.forget("e")
    receipts.forget("e")

    assert receipts.expected == {}


def test_an_answer_that_comes_while_it_is_asked_for_is_heard():
    """Whoever is faster, the asker or bizlog's thread: the future is answered."""
    for _ in range(200):
        receipts = Receipts(["a"])
        wait = receipts.expect("e")
        thread = threading.Thread(
            target=receipts.settle, args=("e", "a", "delivered"), daemon=True
        )
        thread.start()
        assert wait.ask("sinks", None).result(20) is True
        thread.join(20)


# Which objects were sent


def placed():
    """Make a typed event."""
    return OrderEvent(event_type="order.placed", order_id="1")


def test_an_event_that_was_sent_is_found():
    """That very object; an equal one is another event."""
    sent, event = Sent(), placed()
    wait = Wait("e", ["a"])
    sent.add(event, wait)

    assert sent.get(event) is wait
    assert sent.get(copy.copy(event)) is None
    assert sent.get("order.placed") is None


def test_an_event_sent_twice_is_known_by_its_last_sending():
    """The older one is not what a caller asks about."""
    sent, event = Sent(), placed()
    sent.add(event, Wait("first", ["a"]))
    last = Wait("last", ["a"])
    sent.add(event, last)
    gc.collect()

    assert sent.get(event) is last


def test_what_its_sender_let_go_is_forgotten():
    """No event is kept alive, and no entry stays."""
    sent = Sent()
    for _ in range(100):
        sent.add(placed(), Wait("e", ["a"]))
    gc.collect()

    assert sent._waits == {}
