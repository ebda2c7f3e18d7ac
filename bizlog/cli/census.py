"""
Events by producer and number: which were seen, which came again, which are not there.

Memory grows with the gaps, not with the events. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bizlog.cli.entries import BadLine, BadLines, LetterLine
from bizlog.cli.seen import NumbersSeen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bizlog.cli.entries import Entry, EventLine, Place
    from bizlog.cli.seen import Range

EXAMPLES = 5


class Producer:
    """
    What was read of one producer's events.

    Args:
        producer_id: Its id.

    Attributes:
        producer_id: As given.
        last: The highest number seen, or known to have been given.
        doubled: How often a number came again.
        doubled_at: Where, for the first few: number and place.
        out_of_order: How often a number stood behind a later one in its file.
        out_of_order_at: Where, for the first few.
        buried: Numbers that are in the dead letters only.
    """

    def __init__(self, producer_id: str) -> None:
        self.producer_id = producer_id
        self.seen = NumbersSeen()
        self.last = 0
        self.doubled = 0
        self.doubled_at: list[tuple[int, Place]] = []
        self.out_of_order = 0
        self.out_of_order_at: list[tuple[int, Place]] = []
        self.buried = NumbersSeen()
        self._before = 0
        self._file: object = None

    def add(self, sequence: int, place: Place) -> None:
        """Note an event."""
        if not self.seen.add(sequence):
            self.doubled += 1
            _keep(self.doubled_at, sequence, place)
        if self._file is not place.path:
            self._file, self._before = place.path, 0
        if sequence < self._before:
            self.out_of_order += 1
            _keep(self.out_of_order_at, sequence, place)
        else:
            self._before = sequence
        self.last = max(self.last, sequence)

    def bury(self, sequence: int) -> None:
        """Note a dead letter."""
        self.buried.add(sequence)
        self.last = max(self.last, sequence)

    def reach(self, sequence: int) -> None:
        """Note that a number was given, whether its event is seen or not."""
        self.last = max(self.last, sequence)

    def missing(self, *, partial: bool) -> Iterator[Range]:
        """Give the numbers that stand nowhere, as ranges."""
        first = self._first() if partial else 1
        for start, end in self.seen.missing(first, self.last):
            yield from self.buried.missing(start, end)

    def _first(self) -> int:
        starts = (next(i.ranges(), None) for i in (self.seen, self.buried))
        return min((found[0] for found in starts if found), default=self.last + 1)


def _keep(examples: list[tuple[int, Place]], sequence: int, place: Place) -> None:
    if len(examples) < EXAMPLES:
        examples.append((sequence, place))


class ProducerReport(msgspec.Struct, frozen=True):
    """
    What is said of one producer.

    Attributes:
        producer_id: Its id.
        events: Different events in the files.
        first: The lowest number of them, or None where all are dead letters.
        last: The highest number, dead letters and marks included.
        missing: How many numbers stand nowhere.
        missing_ranges: Which, as pairs of a first and a last number.
        buried: How many stand in the dead letters only.
        doubled: How often a number came again.
        doubled_at: The first few of them, `number at file:line`.
        out_of_order: How often a number stood behind a later one in its file.
        out_of_order_at: The first few of them.
    """

    producer_id: str
    events: int
    first: int | None
    last: int
    missing: int
    missing_ranges: list[Range]
    buried: int
    doubled: int
    doubled_at: list[str]
    out_of_order: int
    out_of_order_at: list[str]


def report_of(producer: Producer, *, partial: bool) -> ProducerReport:
    """Sum up what was read of a producer."""
    missing = list(producer.missing(partial=partial))
    found = next(producer.seen.ranges(), None)
    return ProducerReport(
        producer_id=producer.producer_id,
        events=producer.seen.count,
        first=found and found[0],
        last=producer.last,
        missing=sum(end - start + 1 for start, end in missing),
        missing_ranges=missing,
        buried=_only_in(producer.buried, producer.seen),
        doubled=producer.doubled,
        doubled_at=_places(producer.doubled_at),
        out_of_order=producer.out_of_order,
        out_of_order_at=_places(producer.out_of_order_at),
    )


def _only_in(numbers: NumbersSeen, others: NumbersSeen) -> int:
    alone = (others.missing(start, end) for start, end in numbers.ranges())
    return sum(end - start + 1 for ranges in alone for start, end in ranges)


def _places(examples: list[tuple[int, Place]]) -> list[str]:
    return [f"{number:,} at {place}" for number, place in examples]


class Census:
    """
    Reads entries and sorts them by producer.

    Attributes:
        producers: What was read, by producer id.
        unnumbered: Events without producer or number; other programs wrote them.
        bad_lines: Lines that could not be read.
    """

    def __init__(self) -> None:
        self.producers: dict[str, Producer] = {}
        self.unnumbered = 0
        self.bad_lines = BadLines()

    def add(self, entry: Entry) -> None:
        """Note what stands in a line."""
        if isinstance(entry, BadLine):
            self.bad_lines.add(entry)
        elif isinstance(entry, LetterLine):
            if entry.event is not None:
                self._add(entry.event, buried=True)
        else:
            self._add(entry, buried=False)

    def _add(self, event: EventLine, *, buried: bool) -> None:
        sequence = event.record.sequence
        if event.producer_id is None or sequence < 1:
            self.unnumbered += 0 if buried else 1
            return
        producer = self._producer(event.producer_id)
        if buried:
            producer.bury(sequence)
        else:
            producer.add(sequence, event.place)

    def reach(self, producer_id: str, sequence: int) -> None:
        """Note how far a producer had counted; so what is missing behind it is."""
        self._producer(producer_id).reach(sequence)

    def _producer(self, producer_id: str) -> Producer:
        producer = self.producers.get(producer_id)
        if producer is None:
            producer = self.producers[producer_id] = Producer(producer_id)
        return producer
