"""Addresses and filters of links are read, and others refused."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.addresses import (  # after the skip
    Address,
    Position,
    consumer_address,
    path_of,
    position_of,
    producer_address,
)


def test_addresses_of_links():
    """As a path or a whole URL, in any case; anything else is None."""
    url = "amqps://localhost:5671/events"
    assert producer_address(url) == Address("events", None)
    assert producer_address("events/Partitions/3") == Address("events", "3")
    assert producer_address("events/what/3") is None
    whole = f"{url}/ConsumerGroups/$Default/Partitions/3"
    assert consumer_address(whole) == Address("events", "3", "$Default")
    assert consumer_address("events") is None
    assert path_of(None) == ""


@pytest.mark.parametrize(
    ("selector", "position"),
    [
        (None, Position(sequence_number=0)),
        ("amqp.annotation.x-opt-offset > '-1'", Position(sequence_number=0)),
        ("amqp.annotation.x-opt-offset > '64'", Position(sequence_number=2)),
        ("amqp.annotation.x-opt-offset >= '64'", Position(sequence_number=1)),
        ("amqp.annotation.x-opt-offset > '@latest'", Position(sequence_number=9)),
        ("amqp.annotation.x-opt-sequence-number > '4'", Position(sequence_number=5)),
        ("amqp.annotation.x-opt-enqueued-time >= '7'", Position(enqueued_ms=7)),
    ],
)
def test_where_consumers_begin(selector, position):
    """Each filter of the SDK is a position; without one it is the oldest event."""
    assert position_of(selector, 9) == position


def test_other_filters_are_refused():
    """A filter that is not understood is an error and not ignored."""
    with pytest.raises(ValueError, match="not known"):
        position_of("colour = 'red'", 9)
