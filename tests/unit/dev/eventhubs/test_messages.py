"""Batches are taken apart, and events get their annotations, without being decoded."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from proton import Message, symbol  # after the skip

from bizlog.dev.eventhubs import messages  # after the skip


def encoded(body, **more):
    return Message(body=body, inferred=True, **more).encode()


def data_section(data):
    return b"\x00\x53\x75\xb0" + len(data).to_bytes(4, "big") + data


def test_a_batch_is_its_events():
    """Data sections that are messages are events; a plain event is itself."""
    first, second = encoded(b"1"), encoded(b"2")
    assert messages.take_apart(data_section(first) + data_section(second)) == [
        first,
        second,
    ]
    assert messages.take_apart(first) == [first]
    assert messages.take_apart(b"") == []


def test_a_key_of_the_batch_reaches_its_events():
    """Events without the key get it; those that have it stay as they are."""
    bare = encoded(b"1")
    keyed = encoded(b"2", annotations={symbol(messages.PARTITION_KEY): "k"})
    long_key = "k" * 300
    assert messages.with_key([keyed], "other") == [keyed]
    assert messages.partition_key(messages.with_key([bare], long_key)[0]) == long_key
    assert messages.partition_key(keyed) == "k"
    assert messages.partition_key(bare) is None


def test_delivered_events_have_the_services_annotations():
    """Number, offset and time are added behind the event's own annotations, and win."""
    own = {symbol("mine"): "1", symbol(messages.SEQUENCE_NUMBER): 99}
    event = encoded(b"x", annotations=own, durable=True, id="7")
    got = Message()
    got.decode(messages.as_delivered(event, 5, 320, 1_700_000_000_000))
    assert got.annotations["mine"] == "1"
    assert got.annotations[messages.SEQUENCE_NUMBER] == 5
    assert got.annotations[messages.OFFSET] == "320"
    assert got.annotations[messages.ENQUEUED_TIME] == 1_700_000_000_000
    assert (got.body, got.id, got.durable) == (b"x", "7", True)


def test_bodies_that_are_values_are_kept_encoded():
    """An event whose body is no data section is told as it was sent."""
    event = Message(body="text").encode()
    assert messages.read(event)["body"] == b"\xa1\x04text"
