"""
What one message carries: one event, or several of one key as JSON lines. Pure.

Packed events are grouped by key, in the order in which each key appears first; within
a key the order stays. So a pack never mixes what the service could tell apart by key,
unless all keys of a partition may share one: the partition keeps the order then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bizlog.sinks import Record

Entry: TypeAlias = tuple[str | None, int]
"""A key and the position of its event in the batch."""

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
    indices: tuple[int, ...]


def one_by_one(records: Sequence[Record], entries: Sequence[Entry]) -> Iterator[Parcel]:
    """Put each event into a message of its own."""
    for key, index in entries:
        yield Parcel(records[index].data, key, (index,))


def packed(
    records: Sequence[Record],
    entries: Sequence[Entry],
    *,
    most: int,
    max_bytes: int,
    mixed: bool,
) -> Iterator[Parcel]:
    """
    Put up to `most` events of one key into each message.

    Args:
        records: The batch.
        entries: Which of its events, with their keys.
        most: Most events in a message.
        max_bytes: Most bytes of a message with more than one event.
        mixed: Whether events of several keys may share a message.
    """
    for key, indices in _by_key(entries, mixed=mixed).items():
        gathered: list[int] = []
        size = 0
        for index in indices:
            more = len(records[index].data) + 1
            if gathered and (len(gathered) == most or size + more > max_bytes):
                yield _pack(records, key, gathered)
                gathered, size = [], 0
            gathered.append(index)
            size += more
        yield _pack(records, key, gathered)


def _by_key(entries: Sequence[Entry], *, mixed: bool) -> dict[str | None, list[int]]:
    if mixed:
        return {None: [index for _, index in entries]} if entries else {}
    found: dict[str | None, list[int]] = {}
    for key, index in entries:
        found.setdefault(key, []).append(index)
    return found


def _pack(records: Sequence[Record], key: str | None, indices: list[int]) -> Parcel:
    lines = [records[index].data for index in indices]
    return Parcel(b"\n".join(lines), key, tuple(indices))
