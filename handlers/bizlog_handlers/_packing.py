"""
What one message carries: one event, or several of one key as JSON lines. Pure.

A pack holds events of one group, in order. So it never mixes what the service could
tell apart by key, unless all keys of a partition share a group: the partition keeps the
order then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bizlog.sinks import Record
    from bizlog_handlers._sorting import Entry, Group

# Packs beyond this size save nothing more, and fill the last room of a batch badly.
MAX_PACK_BYTES = 64 * 1024


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """
    What one message carries.

    Attributes:
        body: The event, or events as JSON lines.
        key: Their partition key; None without one, or where several share a pack.
        indices: Positions of the events in the batch.
    """

    body: bytes
    key: str | None
    indices: Sequence[int]


def one_by_one(records: Sequence[Record], entries: Sequence[Entry]) -> Iterator[Parcel]:
    """Put each event into a message of its own."""
    for key, index in entries:
        yield Parcel(records[index].data, key, (index,))


def packed(
    records: Sequence[Record], groups: Iterable[Group], *, most: int, max_bytes: int
) -> Iterator[Parcel]:
    """
    Put up to `most` events of one group into each message.

    Args:
        records: The batch.
        groups: Which of its events, with their keys.
        most: Most events in a message.
        max_bytes: Most bytes of a message with more than one event.
    """
    for key, indices in groups:
        for first in range(0, len(indices), most):
            parcel = _pack(records, key, indices[first : first + most])
            if len(parcel.body) <= max_bytes:
                yield parcel
            else:
                yield from _smaller(records, parcel, max_bytes)


def _pack(records: Sequence[Record], key: str | None, indices: list[int]) -> Parcel:
    lines = [records[index].data for index in indices]
    return Parcel(b"\n".join(lines), key, indices)


def _smaller(
    records: Sequence[Record], parcel: Parcel, max_bytes: int
) -> Iterator[Parcel]:
    """Take a pack that is too large apart; an event alone is never too large here."""
    gathered: list[int] = []
    size = -1  # the first line has no line end before it
    for index in parcel.indices:
        more = len(records[index].data) + 1
        if gathered and size + more > max_bytes:
            yield _pack(records, parcel.key, gathered)
            gathered, size = [], -1
        gathered.append(index)
        size += more
    yield _pack(records, parcel.key, gathered)
