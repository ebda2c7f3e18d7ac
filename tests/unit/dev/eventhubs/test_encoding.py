"""Values are read as proton writes them, and cut-off ones are refused."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

import uuid  # after the skip

from proton import (  # after the skip
    UNDESCRIBED,
    Array,
    Data,
    Described,
    byte,
    char,
    decimal64,
    float32,
    int32,
    short,
    symbol,
    timestamp,
    ubyte,
    uint,
    ulong,
    ushort,
)

from bizlog.dev.eventhubs import encoding  # after the skip

A_UUID = uuid.UUID(int=7)
VALUES = [
    (None, None),
    (True, True),
    (False, False),
    (ubyte(7), 7),
    (byte(-7), -7),
    (ushort(700), 700),
    (short(-700), -700),
    (uint(0), 0),
    (uint(7), 7),
    (uint(70_000), 70_000),
    (int32(-70_000), -70_000),
    (ulong(0), 0),
    (ulong(1 << 40), 1 << 40),
    (-5, -5),
    (1 << 40, 1 << 40),
    (1.5, 1.5),
    (float32(1.5), 1.5),
    (char("ü"), "ü"),
    (timestamp(1_700_000_000_000), 1_700_000_000_000),
    (A_UUID, A_UUID),
    (decimal64(1), (1).to_bytes(8, "big")),
    ("text", "text"),
    ("t" * 300, "t" * 300),
    (symbol("name"), "name"),
    (b"data", b"data"),
    (b"d" * 300, b"d" * 300),
    ([], []),
    ([1, "2", [3]], [1, "2", [3]]),
    (["x" * 300], ["x" * 300]),
    ({"a": 1, "b": {"c": None}}, {"a": 1, "b": {"c": None}}),
    (Described(symbol("d"), "value"), "value"),
    (Array(UNDESCRIBED, Data.STRING, "a", "b"), ["a", "b"]),
]


@pytest.mark.parametrize(("written", "read"), VALUES, ids=repr)
def test_values_are_read(written, read):
    """Each type of AMQP is decoded, and skipped to the byte."""
    data = Data()
    data.put_object(written)
    encoded = bytes(data.encode())

    assert encoding.decode(encoded + b"\x40") == (read, len(encoded))
    assert encoding.skip(encoded + b"\x40", 0) == len(encoded)


@pytest.mark.parametrize(
    "data", [b"\xa1\x05abc", b"\x10", b"\x00\x53\x75\xa0\x05abc", b"\x75"]
)
def test_what_is_no_message_is_refused(data):
    """A cut-off value, an unknown constructor, bytes without a section: ValueError."""
    with pytest.raises(ValueError, match="byte"):
        list(encoding.sections(data if data[0] == 0 else b"\x00\x53\x77" + data))


def test_long_descriptors_are_read():
    """A descriptor may be written as eight bytes."""
    message = b"\x00\x80" + (0x77).to_bytes(8, "big") + b"\x40"
    assert list(encoding.sections(message)) == [(0x77, 10, 11)]
