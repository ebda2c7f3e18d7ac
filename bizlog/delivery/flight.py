"""
A flight: one batch under way to a sink, and what becomes of its events.

Without a loop; only `Burial.write` does I/O, and may be called from several threads.
"""

from __future__ import annotations

import threading
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from bizlog.delivery.dead_letters import DeadLetter, wall_clock
from bizlog.delivery.policy import Refusal, part_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.delivery.cursor import Cursor
    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.delivery.policy import Delivery
    from bizlog.sinks import Batch, Record, Route

ROUTE_RAISED = "the route's predicate raised"

_data_of = attrgetter("data")


class Burial:
    """
    The dead letters of one batch.

    They are written once, although the shutdown may meet the thread that writes them.

    Args:
        folder: Where they go.
        letters: The letters.

    Attributes:
        letters: As given.
        error: Why they could not be written; None where they were.
    """

    def __init__(self, folder: DeadLetterFolder, letters: list[DeadLetter]) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._is_over = False
        self.letters = letters
        self.error: OSError | None = None

    def write(self) -> None:
        """Write them, unless that was done."""
        with self._lock:
            if self._is_over or not self.letters:
                return
            self._is_over = True
            try:
                self._folder.write(self.letters)
            except OSError as error:
                self.error = error


class Flight:
    """
    A batch that is under way.

    Args:
        cursor: Where it was read.
        whole: The batch as it was sealed.
        routed: What of it belongs to the sink.
        delivery: How far that is.

    Attributes:
        first_at: When it was taken up, RFC 3339.
        is_calling: Whether the sink has it right now.
        burial: Its dead letters, once everything is settled.
    """

    def __init__(
        self, cursor: Cursor, whole: Batch, routed: Routed, delivery: Delivery
    ) -> None:
        self.cursor = cursor
        self.whole = whole
        self.batch = routed.batch
        self.astray = routed.astray
        self.damaged = routed.damaged
        self.delivery = delivery
        self.burial: Burial | None = None
        self.is_calling = False
        self.first_at = wall_clock()

    @property
    def refused(self) -> list[Refusal]:
        """What becomes a dead letter: the sink's refusals, then the route's."""
        return [*self.delivery.refused, *_all_astray(self.astray)]

    @property
    def not_routed(self) -> int:
        """Events that the route leaves to other sinks."""
        routed = len(self.batch.records) + len(self.astray)
        return len(self.whole.records) - routed - self.damaged

    def part(self) -> Batch:
        """What the next attempt sends: the batch as it was sealed, or some of it."""
        if self.delivery.whole:
            return self.batch
        indices = self.delivery.next()
        records = self.batch.records
        return msgspec.structs.replace(
            self.batch,
            records=[records[index] for index in indices],
            part=part_name(indices),
        )

    def letters(self, sink: str) -> list[DeadLetter]:
        """Write the dead letters of what was refused."""
        return [
            *letters(self.batch.records, self.delivery.refused, sink, self.first_at),
            *letters(self.astray, _all_astray(self.astray), sink, self.first_at),
        ]


class Routed(msgspec.Struct, frozen=True):
    """
    What a route makes of a batch.

    Attributes:
        batch: What belongs to the sink.
        astray: What the route could not decide.
        damaged: How many records a disk did not give back as they were.
    """

    batch: Batch
    astray: list[Record]
    damaged: int


def routed(route: Route, whole: Batch) -> Routed:
    """Part what belongs to a sink from what its route could not decide."""
    sound = whole
    if not all(map(_data_of, whole.records)):
        records = [record for record in whole.records if record.data]
        sound = msgspec.structs.replace(whole, records=records)
    damaged = len(whole.records) - len(sound.records)
    if not route.conditions:
        return Routed(sound, [], damaged)
    chosen: list[Record] = []
    astray: list[Record] = []
    for record in sound.records:
        try:
            if route.matches(record):
                chosen.append(record)
        except BaseException:  # noqa: BLE001  # a user's predicate
            astray.append(record)
    return Routed(msgspec.structs.replace(sound, records=chosen), astray, damaged)


def letters(
    records: Sequence[Record], refused: Sequence[Refusal], sink: str, first_at: str
) -> list[DeadLetter]:
    """Write the dead letters of refused events, by their index in the records."""
    last_at = wall_clock()
    return [
        DeadLetter(
            reason=refusal.reason,
            path=refusal.path,
            sink=sink,
            attempts=refusal.attempts,
            first_at=first_at,
            last_at=last_at,
            event_id=record.event_id,
            record=msgspec.Raw(record.data),
        )
        for refusal in refused
        for record in (records[refusal.index],)
    ]


def arrivals_within(
    batch: Batch, whole: Batch, arrivals: list[tuple[int, float]]
) -> list[tuple[int, float]]:
    """Turn indices in all records into those in what a route has chosen of them."""
    if len(batch.records) == len(whole.records):
        return arrivals
    found: list[tuple[int, float]] = []
    index, position = 0, 0
    for end, arrived_at in arrivals:
        for record in whole.records[position:end]:
            if index < len(batch.records) and record is batch.records[index]:
                index += 1
        position = end
        found.append((index, arrived_at))
    return found


def all_refused(
    records: Sequence[Record], reason: str, error_type: str, attempts: int = 1
) -> list[Refusal]:
    """Refuse every record for the same reason."""
    return [
        Refusal(index, reason, error_type=error_type, attempts=attempts)
        for index in range(len(records))
    ]


def _all_astray(astray: Sequence[Record]) -> list[Refusal]:
    return all_refused(astray, ROUTE_RAISED, "route")
