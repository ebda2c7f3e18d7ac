"""The events of some sources that a query asks for, and a count of all the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bizlog.cli.entries import BadLine, BadLines, EventLine, LetterLine
from bizlog.cli.selection import Query, Selection
from bizlog.cli.tables import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bizlog.cli.entries import Entry, Place
    from bizlog.cli.sources import Sources
    from bizlog.sinks import Record


class Reader:
    """
    Reads the sources, passes on what was asked for and counts the rest.

    Args:
        sources: Where the events are.
        query: What was asked for.
        lines: Lines that are settled already, by file.

    Attributes:
        skipped: Events left out, by reason.
        never_accepted: Dead letters of events that break their schema.
        bad_lines: Lines that could not be read.
    """

    def __init__(
        self, sources: Sources, query: Query, lines: dict[str, int] | None = None
    ) -> None:
        self.sources = sources
        self.skipped: Counter[str] = Counter()
        self.never_accepted = 0
        self.bad_lines = BadLines()
        self._query = query
        self._selection = Selection(query)
        self._lines = lines or {}
        sources.begin_with(query.start)

    def __iter__(self) -> Iterator[tuple[Record, Place]]:
        """Give the events asked for, each with its place."""
        for source in self.sources.files:
            settled = self._lines.get(str(source.path), 0)
            # To know which ids come again, those that are settled are read, too.
            for entry in source.entries(0 if self._query.unique else settled):
                event = self._event(entry)
                if event is None or not self._is_wanted(event.record):
                    continue
                if event.place.line > settled:
                    yield event.record, event.place

    def _event(self, entry: Entry) -> EventLine | None:
        match entry:
            case EventLine():
                return entry
            case LetterLine(event=event) if entry.can_be_replayed:
                return event
            case LetterLine():
                self.never_accepted += 1
            case BadLine():
                self.bad_lines.add(entry)
        return None

    def _is_wanted(self, record: Record) -> bool:
        if not self._selection.takes(record):
            self.skipped["not asked for"] += 1
            return False
        if not self._selection.is_new(record):
            self.skipped["same event_id"] += 1
            return False
        return True

    def notes(self) -> list[str]:
        """Say what was left out on purpose."""
        return [f"left out, {reason}: {n:,}" for reason, n in self.skipped.items()]

    def complaints(self) -> list[str]:
        """Say what is wrong with the sources, as far as they were read."""
        found = [*self.sources.damages, *self.bad_lines.told()]
        if self.never_accepted:
            left = counted(self.never_accepted, "dead letter")
            found.append(
                f"{left} left out: the events were never accepted, since they break "
                "their schema, and cannot be replayed as they are; see them with  "
                "bizlog dead-letters show"
            )
        return found
