"""
Performatives written out in full: the trailing nulls that proton leaves away. No I/O.

AMQP lets a sender trim the fields at the end of a performative that are null, and
proton does. The Python SDK reads them by their index without looking at how many there
are, so each frame that goes to a client gets its nulls back here.
"""

from __future__ import annotations

import struct

from bizlog.dev.eventhubs import encoding

# How many fields the performatives have (AMQP 1.0, part 2.7), by descriptor.
_FIELDS = {
    0x10: 10,  # open
    0x11: 8,  # begin
    0x12: 14,  # attach
    0x13: 11,  # flow
    0x14: 11,  # transfer
    0x15: 6,  # disposition
    0x16: 3,  # detach
    0x17: 1,  # end
    0x18: 1,  # close
}
_AMQP, _HEADER_BYTES = 0, 8
_FRAME = struct.Struct(">IBBH")
_LIST32 = struct.Struct(">BII")
_NULL = b"\x40"
# Where the list of fields begins, behind the frame's header and 00 53 CODE.
_LIST = _HEADER_BYTES + 3


class Padder:
    """One connection's outgoing bytes, which come in pieces of any length."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take what proton wrote and return what the client gets."""
        data = self._rest + data
        at = 0
        out: list[bytes] = []
        while len(data) - at >= _HEADER_BYTES:
            size = _size_at(data, at)
            if len(data) - at < size:
                break
            out.append(padded(data[at : at + size]))
            at += size
        self._rest = data[at:]
        return b"".join(out)


def _size_at(data: bytes, at: int) -> int:
    if data[at : at + 4] == b"AMQP":  # a protocol header, as long as a frame's
        return _HEADER_BYTES
    return int.from_bytes(data[at : at + 4], "big")


def padded(frame: bytes) -> bytes:
    """Complete one frame; those that are empty or of SASL stay as they are."""
    if len(frame) <= _LIST or frame[5] != _AMQP or frame[:4] == b"AMQP":
        return frame
    wanted = _FIELDS.get(frame[_LIST - 1], 0)
    end = encoding.skip(frame, _LIST)
    count, fields = _fields(frame, end)
    if count >= wanted:
        return frame
    fields += _NULL * (wanted - count)
    performative = _LIST32.pack(0xD0, len(fields) + 4, wanted) + fields
    head = frame[_HEADER_BYTES:_LIST]
    size = _HEADER_BYTES + len(head) + len(performative) + len(frame) - end
    _, offset, kind, channel = _FRAME.unpack_from(frame)
    return b"".join(
        (_FRAME.pack(size, offset, kind, channel), head, performative, frame[end:])
    )


def _fields(frame: bytes, end: int) -> tuple[int, bytes]:
    code = frame[_LIST]
    if code == 0x45:  # noqa: PLR2004  # list0
        return 0, b""
    if code == 0xC0:  # noqa: PLR2004  # list8
        return frame[_LIST + 2], frame[_LIST + 3 : end]
    return int.from_bytes(frame[_LIST + 5 : _LIST + 9], "big"), frame[_LIST + 9 : end]
