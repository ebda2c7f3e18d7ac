"""
Receipts: what became of one event, for callers who wait for it.

Bizlog's thread tells (`append`, `journal`, `settle`), any thread may expect and wait.
A dictionary says who is waited for, so that nobody pays where nobody waits.
"""

from __future__ import annotations

import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.events import BaseEvent
    from bizlog.sinks import Record

Level: TypeAlias = Literal["journal", "sinks"]
State: TypeAlias = Literal[
    "pending", "delivered", "dead_lettered", "dropped", "not_routed"
]


class Outcome(msgspec.Struct, frozen=True):
    """
    What became of an event at one sink.

    Attributes:
        state: Where it is; `not_routed` where a route left it out.
        reason: Why it was not delivered.
    """

    state: State
    reason: str | None = None


PENDING = Outcome("pending")
QUEUE_FULL = "the queue was full"
CLOSED = "bizlog is shut down"


class Receipt(msgspec.Struct, frozen=True):
    """
    What is known of an event that a caller waited for.

    Attributes:
        event_id: The event's id; None where it was refused before it got one.
        confirmed: Whether what was asked for was reached in time.
        journaled: Whether a journal on disk holds it or held it.
        sinks: What became of it, by sink.
        reason: Why it was not accepted; None for an accepted event.
    """

    event_id: str | None
    confirmed: bool
    journaled: bool = False
    sinks: dict[str, Outcome] = {}
    reason: str | None = None


class Wait:
    """
    One event that is waited for.

    Args:
        event_id: The event.
        sinks: Names of all sinks.
    """

    def __init__(self, event_id: str, sinks: Sequence[str]) -> None:
        self.event_id = event_id
        self.journaled = False
        self.outcomes = dict.fromkeys(sinks, PENDING)
        self._asked: list[tuple[Level, int | None, Future[bool]]] = []

    def ask(self, level: Level, quorum: int | None) -> Future[bool]:
        """Get told once it is known whether a level is reached."""
        future: Future[bool] = Future()
        self._asked.append((level, quorum, future))
        self.answer()
        return future

    def answer(self) -> None:
        """Tell those who asked, as far as the answer is known."""
        for level, quorum, future in tuple(self._asked):
            reached = self.reached(level, quorum)
            if reached is not None:
                # The caller has given up, or the other thread was faster.
                with suppress(InvalidStateError):
                    future.set_result(reached)

    @property
    def settled(self) -> bool:
        """Whether its fate is known at every sink."""
        return PENDING not in self.outcomes.values()

    def reached(self, level: Level, quorum: int | None) -> bool | None:
        """
        Say whether a level is reached; None while that is open.

        Args:
            level: What is asked for.
            quorum: How many sinks must have it; None for all that it is routed to.
        """
        if level == "journal":
            # What a sink settled before it was written needs no journal any more.
            return True if self.journaled else False if self.settled else None
        states = [outcome.state for outcome in self.outcomes.values()]
        delivered, pending = states.count("delivered"), states.count("pending")
        wanted = len(states) - states.count("not_routed") if quorum is None else quorum
        if delivered >= wanted and (quorum is not None or not pending):
            return True
        return False if delivered + pending < wanted else None

    def receipt(self, level: Level, quorum: int | None) -> Receipt:
        """Write down what is known now."""
        return Receipt(
            self.event_id,
            confirmed=bool(self.reached(level, quorum)),
            journaled=self.journaled,
            sinks=dict(self.outcomes),
        )


class Receipts:
    """
    All events that are waited for.

    Args:
        sinks: Names of all sinks.

    Attributes:
        expected: The waits that are not settled, by event id.
        hurried: Somebody waits now: what gathers need not wait for company.
    """

    def __init__(self, sinks: Sequence[str] = ()) -> None:
        self.sinks = sinks
        self.expected: dict[str, Wait] = {}
        self._appended: list[Wait] = []
        self._dropped: deque[str] = deque()
        self.hurried = False

    def expect(self, event_id: str) -> Wait:
        """Wait for an event that is about to be offered."""
        wait = self.expected[event_id] = Wait(event_id, self.sinks)
        return wait

    def forget(self, event_id: str) -> None:
        """Wait no more: it was not accepted."""
        self.expected.pop(event_id, None)

    def append(self, records: Sequence[Record]) -> None:
        """Learn that records were appended to the journal, on disk or not."""
        if self.expected:
            waits = [self.expected.get(record.event_id) for record in records]
            self._appended += [wait for wait in waits if wait is not None]

    def journal(self) -> None:
        """Learn that all that was appended outlives the process from now on."""
        appended, self._appended = self._appended, []
        for wait in appended:
            wait.journaled = True
            wait.answer()

    def settle(
        self, event_id: str, sink: str, state: State, reason: str | None = None
    ) -> None:
        """Learn what became of an event at a sink; the first word counts."""
        wait = self.expected.get(event_id)
        if wait is None or wait.outcomes.get(sink) is not PENDING:
            return
        wait.outcomes[sink] = Outcome(state, reason)
        if wait.settled:
            self.forget(event_id)
        wait.answer()

    def lose(self, event_id: str, reason: str) -> None:
        """Learn that an event was dropped before any sink saw it."""
        for sink in self.sinks:
            self.settle(event_id, sink, "dropped", reason)

    def not_taken(self, event_id: str, *, closed: bool) -> None:
        """Learn that the queue did not take an event, full or closed."""
        self.lose(event_id, CLOSED if closed else QUEUE_FULL)

    def note_dropped(self, record: Record) -> None:
        """Keep in mind what the queue dropped; on the emit path, so no more."""
        if record.event_id in self.expected:
            self._dropped.append(record.event_id)

    def tell_dropped(self) -> None:
        """Tell those who wait what the queue dropped; on bizlog's thread."""
        while self._dropped:
            self.lose(self._dropped.popleft(), QUEUE_FULL)


class Sent:
    """
    Which event objects were sent, for as long as their senders keep them.

    A copy is another event.
    """

    def __init__(self) -> None:
        self._waits: dict[int, tuple[weakref.ref[BaseEvent], Wait]] = {}

    def add(self, event: BaseEvent, wait: Wait) -> None:
        """Note that an event was sent."""
        key = id(event)
        # The entry goes with the object, whose id may then be another's.
        reference = weakref.ref(event, lambda _: self._waits.pop(key, None))
        self._waits[key] = (reference, wait)

    def get(self, event: object) -> Wait | None:
        """Find what is known of an event that was sent; None for any other object."""
        found = self._waits.get(id(event))
        return found[1] if found and found[0]() is event else None
