"""Partitions number their events, and retention takes the oldest."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.addresses import Position  # after the skip
from bizlog.dev.eventhubs.broker import Broker  # after the skip

EVENT = b"\x00\x53\x75\xa0\x01x"


def test_events_are_read_by_their_number():
    """Each batch goes on where the last ended; listeners are told."""
    partition = Broker({"h": 1}, 10_000).hub("H").partition("0")
    told = []
    partition.changed.add(lambda: told.append(partition.end))
    partition.append([], 1)
    partition.append([EVENT, EVENT], 10)
    partition.append([EVENT], 20)
    assert told == [2, 3]
    assert [partition.read(n)[:2] for n in range(3)] == [(0, 10), (1, 10), (2, 20)]
    assert partition.read(3) is None
    assert partition.locate(Position(enqueued_ms=11)) == 2
    assert partition.locate(Position(enqueued_ms=21)) == 3
    assert partition.locate(Position(sequence_number=1)) == 1


def test_the_oldest_of_all_partitions_go():
    """The bound is one for all hubs; numbers and counts go on, readers jump ahead."""
    broker = Broker({"h": 2}, 10 * (len(EVENT) + 41))
    first, second = broker.hub("h").partitions
    for moment in range(30):
        (first if moment % 2 else second).append([EVENT], moment)
    assert broker.hub("h").count == 30
    assert (first.begin, first.end) == (second.begin, second.end) == (10, 15)
    assert first.read(0)[0] == 10
    assert [event.sequence_number for event in second.stored()] == [10, 11, 12, 13, 14]


def test_a_batch_over_the_bound_is_kept_alone():
    """What was accepted last is there, however large it is."""
    partition = Broker({"h": 1}, 1).hub("h").partition("0")
    for moment in range(3):
        partition.append([EVENT] * 5, moment)
    assert (partition.begin, partition.end) == (10, 15)


def test_without_a_key_partitions_take_turns():
    """Each gets as many; a key has always the same."""
    hub = Broker({"h": 3}, 1000).hub("h")
    assert sorted(hub.choose(None).id for _ in range(6)) == [
        "0",
        "0",
        "1",
        "1",
        "2",
        "2",
    ]
    assert hub.choose("k") is hub.choose("k")
    assert hub.partition("9") is None
