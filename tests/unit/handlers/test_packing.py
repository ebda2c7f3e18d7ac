"""What one message carries: one event, or several of one key."""

from __future__ import annotations

import pytest

from bizlog.sinks import Record
from bizlog_handlers._packing import one_by_one, packed


def records_of(*bodies):
    return [
        Record(body, str(n), "order.placed", "", n) for n, body in enumerate(bodies)
    ]


def test_each_event_can_have_a_message_of_its_own():
    """Order, keys and positions stay as they are."""
    records = records_of(b"zero", b"one", b"two")

    found = list(one_by_one(records, [("b", 2), (None, 0)]))

    assert [(p.body, p.key, p.indices) for p in found] == [
        (b"two", "b", (2,)),
        (b"zero", None, (0,)),
    ]


def pack(records, groups, *, most=3, max_bytes=1_000):
    found = packed(records, groups, most=most, max_bytes=max_bytes)
    return [(parcel.key, tuple(parcel.indices)) for parcel in found]


def test_packs_hold_the_events_of_one_group_in_order():
    """Groups come as they are given, and a pack has no more than so many events."""
    records = records_of(*[b"x"] * 7)

    assert pack(records, [("a", [0, 2, 4, 6]), (None, [1, 3, 5])]) == [
        ("a", (0, 2, 4)),
        ("a", (6,)),
        (None, (1, 3, 5)),
    ]


def test_nothing_makes_no_pack():
    """Without events there is no message."""
    assert pack([], []) == []


def test_a_pack_is_json_lines():
    """One event a line, without a line end behind the last."""
    records = records_of(b'{"a":1}', b'{"a":2}')

    (parcel,) = packed(records, [("k", [0, 1])], most=9, max_bytes=1_000)

    assert parcel.body == b'{"a":1}\n{"a":2}'


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        (43, [(0, 1, 2, 3)]),
        (42, [(0, 1, 2), (3,)]),
        (21, [(0, 1), (2, 3)]),
        (20, [(0,), (1,), (2,), (3,)]),
        (1, [(0,), (1,), (2,), (3,)]),
    ],
)
def test_packs_end_before_they_are_too_large(max_bytes, expected):
    """Bytes limit a pack, line ends between events included; an event is not cut."""
    records = records_of(*[b"x" * 10] * 4)

    found = pack(records, [("k", [0, 1, 2, 3])], most=9, max_bytes=max_bytes)

    assert [indices for _, indices in found] == expected
