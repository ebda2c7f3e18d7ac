r"""
How a run of records stands in a row of a journal's file, and back. No I/O.

`data` is NDJSON without the last line end, so that any tool can rescue it. `checks`
holds the length of each record, a CRC-32 for each 4 KiB of `data` and one of all that,
as little-endian 32-bit numbers. So a record that is given back is the one that was
appended, a damaged one is `DAMAGED` (with its neighbours in the same 4 KiB), and the
others of the run are kept, each at its position.

One CRC a record would name the damaged ones alone; it costs 0.24 microseconds an event
of 300 bytes, the blocks cost 0.07.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from bizlog.delivery.journal import DAMAGED
from bizlog.sinks import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

# The size of a page or sector: what a disk damages at a time.
CHECK_BYTES = 4_096


class _Head(msgspec.Struct, gc=False):
    """What a record says beside its bytes."""

    event_id: str = ""
    event_type: str = ""
    event_time: str = ""
    sequence: int = 0


_decoder = msgspec.json.Decoder(_Head)


class Chunk:
    """
    Consecutive records, decoded.

    Args:
        start: Position of the first one.
        records: The records.
    """

    def __init__(self, start: int, records: list[Record]) -> None:
        self.start = start
        self.end = start + len(records)
        self._records = records
        self._sizes = [0, *accumulate([len(record.data) for record in records])]

    def cut(
        self, position: int, max_events: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Give the records from a position on within both limits, and their size."""
        index = position - self.start
        before = self._sizes[index]
        stop = bisect_right(self._sizes, before + max_bytes, lo=index + 1) - 1
        stop = min(stop, index + max_events)
        return self._records[index:stop], self._sizes[stop] - before

    def __getitem__(self, position: int) -> Record:
        return self._records[position - self.start]


def pack(run: Sequence[Record]) -> tuple[bytes, bytes]:
    """Pack a run into `checks` and `data`."""
    lines = [record.data for record in run]
    data = b"\n".join(lines)
    numbers = [*map(len, lines), *_block_checks(data)]
    packed = struct.pack(f"<{len(numbers)}I", *numbers)
    return packed + struct.pack("<I", crc32(packed)), data


def unpack(count: int, checks: bytes, data: bytes) -> list[Record]:
    """Give the records of a run; `DAMAGED` for each that is not as it was."""
    lines = _intact_lines(count, checks, data)
    try:
        # All at once, which takes three quarters of the time.
        heads = _decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        heads = []
    if len(heads) != count or b"" in lines:
        return [_record(line) for line in lines]
    return [
        Record(line, head.event_id, head.event_type, head.event_time, head.sequence)
        for line, head in zip(lines, heads, strict=True)
    ]


def _record(line: bytes) -> Record:
    try:
        head = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return DAMAGED
    return Record(line, head.event_id, head.event_type, head.event_time, head.sequence)


def _intact_lines(count: int, checks: bytes, data: bytes) -> list[bytes]:
    """Cut a run into its records; nothing stands for one that is not as it was."""
    sizes, expected = _sizes_and_blocks(count, checks)
    ends = _ends(sizes)
    if len(ends) != count or ends[-1] != len(data):
        return [b""] * count
    lines = [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    found = _block_checks(data)
    if found != expected:
        for index, end in enumerate(ends):
            blocks = _blocks(end - sizes[index], end)
            if found[blocks] != expected[blocks]:
                lines[index] = b""
    return lines


def _sizes_and_blocks(count: int, checks: bytes) -> tuple[list[int], list[int]]:
    """Give the lengths and the blocks' checks; none if they are damaged themselves."""
    packed, own = checks[:-4], checks[-4:]
    if struct.pack("<I", crc32(packed)) != own:
        return [], []
    numbers = struct.unpack(f"<{len(packed) // 4}I", packed)
    return list(numbers[:count]), list(numbers[count:])


def _block_checks(data: bytes) -> list[int]:
    view = memoryview(data)
    blocks = range(0, len(data), CHECK_BYTES)
    return [crc32(view[begin : begin + CHECK_BYTES]) for begin in blocks]


def _ends(sizes: list[int]) -> list[int]:
    return [end + index for index, end in enumerate(accumulate(sizes))]


def _blocks(begin: int, end: int) -> slice:
    return slice(begin // CHECK_BYTES, max(begin, end - 1) // CHECK_BYTES + 1)
