"""Numbers seen: a set, in memory that grows with its gaps."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from bizlog.cli.seen import NumbersSeen, Ranges

NUMBERS = st.lists(st.integers(0, 60) | st.integers(0, 10**20), max_size=80)
BLOCKS = st.sampled_from([1, 2, 3, 8, 1_024])


def as_ranges(numbers):
    """Turn a set into ranges, the plain way."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(NUMBERS, BLOCKS)
def test_it_is_a_set(numbers, block):
    """What is new, how many there are and which: as a set says it."""
    seen, model = NumbersSeen(block), set()
    for number in numbers:
        assert seen.add(number) is (number not in model)
        model.add(number)
        assert seen.count == len(model)
    assert list(seen.ranges()) == as_ranges(model)


@given(
    st.lists(st.integers(0, 40), max_size=40),
    BLOCKS,
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_what_is_missing_is_the_difference(numbers, block, first, last):
    """Between any two numbers: exactly those that were not added, as ranges."""
    seen = NumbersSeen(block)
    for number in numbers:
        seen.add(number)
    expected = as_ranges(set(range(first, last + 1)) - set(numbers))
    assert list(seen.missing(first, last)) == expected


@given(st.lists(st.integers(0, 30), unique=True))
def test_ranges_join_where_they_touch(numbers):
    """In any order of adding there are never two ranges side by side."""
    ranges = Ranges()
    for index, number in enumerate(numbers):
        assert number not in ranges
        ranges.add(number)
        assert list(ranges) == as_ranges(numbers[: index + 1])
        assert all((n in ranges) == (n in numbers[: index + 1]) for n in range(31))


def test_a_sequence_without_gaps_costs_nothing():
    """200,000 numbers, near to their order: some kilobytes, whatever their number."""
    numbers = list(range(1, 200_001))
    shuffler = random.Random(1)
    for start in range(0, len(numbers), 5_000):
        part = numbers[start : start + 5_000]
        shuffler.shuffle(part)
        numbers[start : start + 5_000] = part
    seen = NumbersSeen()
    tracemalloc.start()
    for number in numbers:
        seen.add(number)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(seen.ranges()) == [(1, 200_000)]
    assert held < 20_000
