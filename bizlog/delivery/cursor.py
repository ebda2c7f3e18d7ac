"""
A cursor: one sink's place in one journal. No clock, no loop; owned by bizlog's thread.

    settled ........ next ........ journal.end
            sealed         waiting

A batch is sealed before its first attempt: the journal knows its bounds, so that it is
the same batch under the same name after a crash. What is settled is written along with
the next seal, or by `save` when there is none for a while. A batch that is settled
before an older one keeps its seal until that one is settled, too: seals leave no gap.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING

from bizlog import diagnostics
from bizlog.delivery.journal import JournalError, LaneState
from bizlog.sinks import Batch

if TYPE_CHECKING:
    from bizlog.delivery.journal import Journal
    from bizlog.sinks import Record

ANY_SIZE = 1 << 62


class Cursor:
    """
    Reads a journal for a sink, batch by batch.

    Args:
        journal: What it reads.
        lane: The sink's name in the journal.
        state: Where the sink stood before; None for a sink that starts at the end.

    Attributes:
        journal: As given.
        next: Position of the first record that is not sealed.
        ask_at: When to ask a journal again that gave no answer.
    """

    def __init__(
        self, journal: Journal, lane: str, state: LaneState | None = None
    ) -> None:
        self._is_saved = state is not None
        state = state or LaneState(journal.end)
        self.journal = journal
        self.next = max(state.settled, journal.start)
        self.ask_at = 0.0
        self._lane = lane
        self._sealed_before = deque(last for last in state.seals if last >= self.next)
        self._sealed: dict[int, int] = {}
        self._settled_early: set[int] = set()
        self._given_up: set[int] = set()
        self._flying_events = 0
        self._end: int | None = None
        self.save()  # a sink that the journal does not know would start at its end

    @property
    def settled(self) -> int:
        """Position up to which every record is settled."""
        return next(iter(self._sealed), self.next)

    @property
    def sealed(self) -> int:
        """Batches from the oldest one on that is not settled."""
        return len(self._sealed)

    @property
    def pending(self) -> int:
        """Records that are not settled."""
        return self.waiting + self._flying_events

    @property
    def waiting(self) -> int:
        """Records that are not sealed."""
        return self._stop - self.next

    @property
    def _stop(self) -> int:
        return self.journal.end if self._end is None else self._end

    def seal(self, max_events: int, max_bytes: int) -> Batch | None:
        """
        Seal the next batch, or take up one that was sealed before a restart.

        Args:
            max_events: Most records of a new batch.
            max_bytes: Most bytes of it, as `Journal.read` understands it.
        """
        first = self.next
        if self._sealed_before:
            max_events, max_bytes = self._sealed_before[0] - first + 1, ANY_SIZE
        records = self._read(max_events, max_bytes)
        if not records:
            return None
        if self._sealed_before:
            self._sealed_before.popleft()
        last = first + len(records) - 1
        self.next = last + 1
        self._sealed[first] = last
        self._flying_events += len(records)
        self._write()
        return Batch(self.journal.journal_id, first, last, records)

    def settle(self, batch: Batch) -> None:
        """Note that every record of a batch is settled."""
        self._settled_early.add(batch.first)
        self._flying_events -= batch.last - batch.first + 1
        while (first := self.settled) in self._settled_early:
            self._settled_early.remove(first)
            del self._sealed[first]
            self._given_up.discard(first)
        self._is_saved = False

    def skip_to(self, position: int) -> int:
        """Give up what stands before a position and is not sealed; says how many."""
        given_up = max(0, min(position, self.journal.end) - self.next)
        if given_up:
            self.next += given_up
            while self._sealed_before and self._sealed_before[0] < self.next:
                self._sealed_before.popleft()
            self._is_saved = False
        return given_up

    def skip(self, events: int) -> list[Record]:
        """Give up so many records that are not sealed; returns them."""
        given_up = self._read(events, ANY_SIZE)
        if given_up and self._sealed:
            self._pass_over(self.next + len(given_up) - 1)
        self.next += len(given_up)
        self._is_saved = False
        return given_up

    def _pass_over(self, last: int) -> None:
        """Note what is given up behind a batch that is not settled, runs as one."""
        first = next(reversed(self._sealed))
        if first not in self._given_up:
            first = self.next
            self._given_up.add(first)
            self._settled_early.add(first)
        self._sealed[first] = last

    def end_at(self, position: int) -> list[Record]:
        """
        Give up what stands at a position or behind it and is not sealed, for good.

        Returns:
            The records given up; what stands before them goes on waiting.
        """
        stop, before = self._stop, self.next
        self.next = max(before, min(position, stop))
        given_up = self._read(self.waiting, ANY_SIZE) if self.waiting else []
        self.next, self._end = before, stop - len(given_up)
        return given_up

    def save(self) -> None:
        """Write down what is settled, unless it is written."""
        if not self._is_saved:
            self._write()

    def _read(self, max_events: int, max_bytes: int) -> list[Record]:
        try:
            return self.journal.read(self.next, max_events, max_bytes)
        except JournalError as error:
            _report(error)
            return []

    def _write(self) -> None:
        self._is_saved = True
        try:
            self.journal.seal(self._lane, LaneState(self.settled, self._seals()))
        except JournalError as error:
            # It is sent all the same: after a crash it might go under another name.
            _report(error)

    def _seals(self) -> tuple[int, ...]:
        # What was given up is no batch: a crash may rename the few that stand behind.
        sealed = takewhile(lambda first: first not in self._given_up, self._sealed)
        seals = tuple(self._sealed[first] for first in sealed)
        return seals if self._given_up else (*seals, *self._sealed_before)


def _report(error: JournalError) -> None:
    diagnostics.report("journal", f"a journal of an ended process: {error}")
