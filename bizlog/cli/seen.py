"""
Which numbers were seen, in memory that grows with the gaps and not with the numbers.

Numbers come in any order: a file sink spreads one sequence over many files. They are
kept as bits in blocks of 1,024; blocks that are full are kept as ranges. So a sequence
without gaps costs nothing, whatever its length, and one in pieces a bit a number, at
most 200 bytes for a number that stands alone. No I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1_024

Range: TypeAlias = tuple[int, int]
"""A first and a last number, both inclusive."""


class Ranges:
    """Numbers as ascending ranges that do not touch; each is added once."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number <= self._ends[index]

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._ends, strict=True)

    def add(self, number: int) -> None:
        """Add a number that is not in yet."""
        index = bisect_right(self._starts, number)
        joins_left = index > 0 and self._ends[index - 1] == number - 1
        joins_right = index < len(self._starts) and self._starts[index] == number + 1
        if joins_left and joins_right:
            del self._starts[index]
            del self._ends[index - 1]
        elif joins_left:
            self._ends[index - 1] = number
        elif joins_right:
            self._starts[index] = number
        else:
            self._starts.insert(index, number)
            self._ends.insert(index, number)


class NumbersSeen:
    """
    A set of whole numbers from 0 on.

    Args:
        block: Numbers in a block.

    Attributes:
        count: How many are in it.
    """

    def __init__(self, block: int = BLOCK) -> None:
        self._block = block
        self._whole = (1 << block) - 1
        self._bits: dict[int, int] = {}
        self._full = Ranges()
        self.count = 0

    def add(self, number: int) -> bool:
        """Add a number; say whether it is new."""
        index, place = divmod(number, self._block)
        bits = self._bits.get(index, 0)
        bit = 1 << place
        if bits & bit or (not bits and index in self._full):
            return False
        bits |= bit
        self.count += 1
        if bits == self._whole:
            self._bits.pop(index, None)
            self._full.add(index)
        else:
            self._bits[index] = bits
        return True

    def ranges(self) -> Iterator[Range]:
        """Give all numbers as ascending ranges that do not touch."""
        start = end = None
        for first, last in self._pieces():
            if end is not None and first == end + 1:
                end = last
                continue
            if start is not None and end is not None:
                yield start, end
            start, end = first, last
        if start is not None and end is not None:
            yield start, end

    def _pieces(self) -> Iterator[Range]:
        size = self._block
        whole = [(a * size, b * size + size - 1, None) for a, b in self._full]
        parts = [
            (i * size, i * size + size - 1, bits) for i, bits in self._bits.items()
        ]
        for first, last, bits in sorted([*whole, *parts], key=lambda piece: piece[0]):
            if bits is None:
                yield first, last
            else:
                yield from _runs(first, bits)

    def missing(self, first: int, last: int) -> Iterator[Range]:
        """Give what is not in it between two numbers, both inclusive, as ranges."""
        expected = first
        for start, end in self.ranges():
            if start > last:
                break
            if start > expected:
                yield expected, start - 1
            expected = max(expected, end + 1)
        if expected <= last:
            yield expected, last


def _runs(first: int, bits: int) -> Iterator[Range]:
    """Give the runs of ones among bits, the lowest of which stands for `first`."""
    place = first
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        place += zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        bits >>= ones
        yield place, place + ones - 1
        place += ones
