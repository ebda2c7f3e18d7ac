"""Which dead letters a command is about. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from bizlog.cli.entries import LetterLine

if TYPE_CHECKING:
    import argparse
    from typing import TypeGuard

    from bizlog.cli.entries import Entry

NO_SINK = "none"


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the filters to a command's options."""
    parser.add_argument(
        "--from-sink",
        metavar="NAME",
        help="letters of events that this sink refused; 'none': never accepted",
    )
    parser.add_argument(
        "--reason", metavar="TEXT", help="letters whose reason holds this text"
    )
    parser.add_argument(
        "--type", metavar="NAME", help="letters of events of this name, or 'order.*'"
    )
    parser.add_argument(
        "--event-id",
        action="append",
        metavar="ID",
        help="the letter of this event; may be given several times",
    )


class LetterFilter:
    """
    Decides about letters.

    Args:
        arguments: With the options that `add_filters` adds.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.sink: str | None = arguments.from_sink
        self.reason: str | None = arguments.reason
        self.event_type: str | None = arguments.type
        self.event_ids = tuple[str, ...](arguments.event_id or ())

    @property
    def words(self) -> list[object]:
        """What was asked for."""
        return [self.sink, self.reason, self.event_type, self.event_ids]

    def takes(self, entry: Entry) -> TypeGuard[LetterLine]:
        """Whether an entry is a letter that was asked for."""
        if not isinstance(entry, LetterLine):
            return False
        letter = entry.letter
        return (
            self.sink in {None, letter.sink or NO_SINK}
            and (self.reason or "").lower() in letter.reason.lower()
            and fnmatchcase(entry.event_type or "", self.event_type or "*")
            and (not self.event_ids or letter.event_id in self.event_ids)
        )
