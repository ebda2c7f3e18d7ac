"""Performatives go out in full, however the bytes are cut."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.padding import Padder, padded  # after the skip


def frame(code, fields, payload=b"", kind=0):
    body = b"\x00\x53" + bytes((code,)) + fields + payload
    return (8 + len(body)).to_bytes(4, "big") + bytes((2, kind, 0, 1)) + body


NULLS = [
    (b"\x45", 0),
    (b"\xc0\x02\x01\x41", 1),
    (b"\xd0\x00\x00\x00\x05\x00\x00\x00\x01\x41", 1),
]


@pytest.mark.parametrize(("fields", "count"), NULLS, ids=["list0", "list8", "list32"])
def test_missing_nulls_are_added(fields, count):
    """A detach has three fields, a payload behind them stays, the size is right."""
    out = padded(frame(0x16, fields, b"payload"))
    assert int.from_bytes(out[:4], "big") == len(out)
    assert out[11] == 0xD0
    assert out[16:20] == (3).to_bytes(4, "big")
    assert out[20:] == b"\x41" * count + b"\x40" * (3 - count) + b"payload"


def test_others_stay_as_they_are():
    """Full performatives, empty frames, SASL and the protocol header are not touched."""
    full = frame(0x18, b"\xc0\x02\x01\x40")
    empty = b"\x00\x00\x00\x08\x02\x00\x00\x00"
    sasl = frame(0x44, b"\xc0\x03\x01\x50\x00", kind=1)
    header = b"AMQP\x00\x01\x00\x00"
    for data in (full, empty, sasl, header):
        assert padded(data) == data


def test_bytes_come_in_any_pieces():
    """Byte by byte the same comes out as at once."""
    data = b"AMQP\x00\x01\x00\x00" + frame(0x17, b"\x45") + frame(0x16, b"\x45")
    by_byte = Padder()
    pieces = b"".join(by_byte.feed(data[n : n + 1]) for n in range(len(data)))
    assert pieces == Padder().feed(data)
    assert len(pieces) > len(data)
