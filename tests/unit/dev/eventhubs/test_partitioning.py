"""The partition of a key is the one that Azure's own client computes."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.partitioning import hashes, partition_of  # after the skip


def test_published_values():
    """lookup3 of known texts, from the test driver in its source."""
    assert hashes(b"") == (0xDEADBEEF, 0xDEADBEEF)
    assert hashes(b"Four score and seven years ago") == (0x17770551, 0xCE7226E6)


def test_the_sdk_agrees():
    """azure-eventhub's resolver chooses the same partition for keys of every length."""
    resolver = pytest.importorskip(
        "azure.eventhub._buffered_producer._partition_resolver",
        reason="azure-eventhub is missing",
    )
    for count in (1, 2, 4, 7, 32):
        sdk = resolver.PartitionResolver(list(range(count)))
        for length in range(64):
            key = "k/" * length + str(length)
            assert partition_of(key, count) == sdk.get_partition_id_by_partition_key(
                key
            )


def test_keys_are_hashed_as_utf_8():
    """A key outside ASCII has a partition, too, and an empty one the first."""
    assert 0 <= partition_of("Zürich-東京", 4) < 4
    assert partition_of("", 4) == 0
