"""Which events a command is about: by type, time, condition, and each id once. Pure."""

from __future__ import annotations

import datetime as dt
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from bizlog.cli.moments import comparable, parse_moment
from bizlog.cli.where import Where

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from bizlog.sinks import Record


class Query(msgspec.Struct, frozen=True):
    """
    What was asked for, as it can be kept in a file.

    Attributes:
        start: Events from this time on, as events carry it, or None.
        end: Events before this time, or None.
        types: Names or patterns, any of which must match; none matches every name.
        where: A condition, or None.
        unique: Whether an event id is taken only once.
    """

    start: str | None = None
    end: str | None = None
    types: tuple[str, ...] = ()
    where: str | None = None
    unique: bool = False


def add_query(parser: argparse.ArgumentParser) -> None:
    """Add the options of a query to a command's."""
    parser.add_argument(
        "--from",
        dest="start",
        metavar="T",
        help="events of this time and later: a date, a time, or 2h, 3d (ago)",
    )
    parser.add_argument(
        "--to", dest="end", metavar="T", help="events before this time, likewise"
    )
    parser.add_argument(
        "--type",
        dest="types",
        action="append",
        default=[],
        metavar="NAME",
        help="events of this name or pattern ('order.*'); may be given several times",
    )
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="events for which this holds: 'order_total >= 100 and country == \"DE\"'",
    )
    parser.add_argument(
        "--unique",
        action="store_true",
        help="take each event_id once; remembers all ids (100 MB a million)",
    )


def query_of(arguments: argparse.Namespace) -> Query:
    """
    Read the options of a query.

    Raises:
        CommandError: A time or the condition cannot be understood.
    """
    now = dt.datetime.now(dt.UTC)
    if arguments.where is not None:
        Where(arguments.where)
    return Query(
        start=arguments.start and parse_moment("--from", arguments.start, now),
        end=arguments.end and parse_moment("--to", arguments.end, now),
        types=tuple(arguments.types),
        where=arguments.where,
        unique=arguments.unique,
    )


class Selection:
    """
    Applies a query to records, one after the other.

    Args:
        query: What was asked for.
    """

    def __init__(self, query: Query) -> None:
        self._seen: set[str] | None = set() if query.unique else None
        conditions: list[tuple[object, Callable[[Record], bool]]] = [
            (query.types, lambda record: _has_type(record, query.types)),
            (query.start or query.end, lambda record: _in_time(record, query)),
        ]
        self._conditions = [holds for asked, holds in conditions if asked]
        if query.where is not None:
            where = Where(query.where)
            self._conditions.append(lambda record: where(record.data))

    def takes(self, record: Record) -> bool:
        """Whether the record is one of those asked for."""
        return all(holds(record) for holds in self._conditions)

    def is_new(self, record: Record) -> bool:
        """Whether the record's id comes for the first time, where that matters."""
        if self._seen is None:
            return True
        if record.event_id in self._seen:
            return False
        self._seen.add(record.event_id)
        return True


def _has_type(record: Record, types: tuple[str, ...]) -> bool:
    return any(fnmatchcase(record.event_type, pattern) for pattern in types)


def _in_time(record: Record, query: Query) -> bool:
    time = comparable(record.event_time)
    if time is None:
        return False
    return (query.start or "") <= time and (query.end is None or time < query.end)
