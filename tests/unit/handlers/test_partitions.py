"""Which partition a key belongs to: as Azure's own producers choose."""

from __future__ import annotations

import random
import string
from collections import Counter

import pytest

from bizlog_handlers._partitions import Partitions, hash_of


@pytest.mark.parametrize("length", range(40))
def test_the_hash_is_that_of_the_sdk(length):
    """For keys in ASCII of any length the hash is the one the SDK computes."""
    resolver = pytest.importorskip(
        "azure.eventhub._buffered_producer._partition_resolver",
        reason="azure-eventhub is not installed",
    )
    draw = random.Random(length)

    for _ in range(50):
        key = "".join(draw.choices(string.printable, k=length))
        expected = resolver.generate_hash_code(key) if key else hash_of("")
        assert hash_of(key) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("7", -15263),
        ("131", 30562),
        ("7149583486996073602", 12977),
        ("FWfAT", -22341),
        ("sOdeEAsyQoEuEFPGerWO", -6503),
        ("!c*_!I@1^c", 15372),
    ],
)
def test_the_hash_is_that_of_other_languages(key, value):
    """Known answers that the SDKs for .NET and Java are tested with."""
    assert hash_of(key) == value


def test_the_remainder_has_no_sign():
    """A negative hash is divided as C# and Java do, not as Python does."""
    partitions = Partitions(["0", "1", "2"])

    assert hash_of("7") == -15263
    assert partitions.of("7") == str(15263 % 3)


def test_a_key_stays_where_it_is():
    """A key belongs to one partition, whatever its characters."""
    partitions = Partitions([str(number) for number in range(7)])

    for key in ("", "s-1", "Zoë", "\ud800", "x" * 10_000):
        assert partitions.of(key) == partitions.of(key)


def test_keys_are_spread():
    """Many keys fill all partitions about evenly."""
    partitions = Partitions([str(number) for number in range(8)])

    found = Counter(partitions.of(f"session-{number}") for number in range(8_000))

    assert len(found) == 8
    assert max(found.values()) < 1.3 * min(found.values())


def test_events_without_a_key_take_turns():
    """Runs of 1,000 events go to one partition after the other."""
    partitions = Partitions(["a", "b"])

    found = [partitions.of(None) for _ in range(2_500)]

    assert found == ["a"] * 1_000 + ["b"] * 1_000 + ["a"] * 500


def test_a_turn_can_be_ended():
    """What comes next goes to another partition, even before a run is full."""
    partitions = Partitions(["a", "b"])

    first = partitions.of(None)
    partitions.next_turn()

    assert [first, partitions.of(None)] == ["a", "b"]
