"""
The AMQP 1.0 type system as far as an event needs it: bytes in, values out. No I/O.

proton decodes whole messages, at some 30 us each; a batch of a thousand events only
has to be cut in pieces here, and what was sent is kept as it was sent.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Descriptors of a message's sections (AMQP 1.0, part 3.2).
HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES = 0x70, 0x71, 0x72, 0x73
APPLICATION_PROPERTIES, DATA, SEQUENCE, VALUE, FOOTER = 0x74, 0x75, 0x76, 0x77, 0x78

# How wide a value is, by the upper half of its constructor: fixed, or with a length.
_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SHORT, _LONG = frozenset({0xA, 0xC, 0xE}), frozenset({0xB, 0xD, 0xF})
_U32 = struct.Struct(">I")

_NUMBERS: dict[int, str] = {
    0x50: ">B",
    0x51: ">b",
    0x52: ">B",
    0x53: ">B",
    0x54: ">b",
    0x55: ">b",
    0x60: ">H",
    0x61: ">h",
    0x70: ">I",
    0x71: ">i",
    0x72: ">f",
    0x80: ">Q",
    0x81: ">q",
    0x82: ">d",
    0x83: ">q",  # a timestamp: milliseconds since 1970
}
_CONSTANTS: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_EMPTY_LIST = 0x45
_BOOLEAN = 0x56


def sections(message: bytes) -> Iterator[tuple[int, int, int]]:
    """
    Walk over a message's sections.

    Yields:
        The section's descriptor, where its value begins and where it ends.

    Raises:
        ValueError: The bytes are no AMQP message.
    """
    at = 0
    while at < len(message):
        code, begin = _descriptor(message, at)
        at = skip(message, begin)
        yield code, begin, at


def _descriptor(message: bytes, at: int) -> tuple[int, int]:
    if message[at : at + 2] == b"\x00\x53":
        return message[at + 2], at + 3
    if message[at : at + 2] == b"\x00\x80":
        return int.from_bytes(message[at + 2 : at + 10], "big"), at + 10
    raise ValueError(f"no section begins at byte {at}")


def skip(data: bytes, at: int) -> int:
    """Find where the value that begins at `at` ends."""
    code = data[at]
    if code == 0:
        return skip(data, skip(data, at + 1))
    kind = code >> 4
    if kind in _FIXED:
        end = at + 1 + _FIXED[kind]
    elif kind in _SHORT:
        end = at + 2 + data[at + 1]
    elif kind in _LONG:
        end = at + 5 + _U32.unpack_from(data, at + 1)[0]
    else:
        raise ValueError(f"byte {at}: 0x{code:02x} begins no value")
    if end > len(data):
        raise ValueError(f"the value at byte {at} is cut off")
    return end


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """
    Read one value.

    Binary values become bytes; strings and symbols str; timestamps milliseconds.

    Returns:
        The value, and where the next one begins.
    """
    code, end = data[at], skip(data, at)
    if code == 0:
        return decode(data, skip(data, at + 1))[0], end
    if code in _CONSTANTS:
        return _CONSTANTS[code], end
    if code in _NUMBERS:
        return struct.unpack_from(_NUMBERS[code], data, at + 1)[0], end
    return _READERS[code](data, at + 1, end), end


def _boolean(data: bytes, at: int, _end: int) -> bool:
    return data[at] != 0


def _character(data: bytes, at: int, _end: int) -> str:
    return chr(_U32.unpack_from(data, at)[0])


def _uuid(data: bytes, at: int, end: int) -> uuid.UUID:
    return uuid.UUID(bytes=data[at:end])


def _decimal(data: bytes, at: int, end: int) -> bytes:
    return data[at:end]  # nobody here calculates with it


def _bytes(width: int) -> Callable[[bytes, int, int], bytes]:
    return lambda data, at, end: data[at + width : end]


def _text(width: int) -> Callable[[bytes, int, int], str]:
    return lambda data, at, end: data[at + width : end].decode("utf-8", "replace")


def _items(width: int) -> Callable[[bytes, int, int], list[Any]]:
    def read(data: bytes, at: int, end: int) -> list[Any]:
        at += 2 * width  # the size and the count
        found: list[Any] = []
        while at < end:
            value, at = decode(data, at)
            found.append(value)
        return found

    return read


def _map(width: int) -> Callable[[bytes, int, int], dict[Any, Any]]:
    items = _items(width)

    def read(data: bytes, at: int, end: int) -> dict[Any, Any]:
        flat = items(data, at, end)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    return read


def _array(width: int) -> Callable[[bytes, int, int], list[Any]]:
    def read(data: bytes, at: int, end: int) -> list[Any]:
        constructor = at + 2 * width
        code, place = data[constructor : constructor + 1], constructor + 1
        found: list[Any] = []
        while place < end:
            value, taken = decode(code + data[place:end])
            found.append(value)
            place += taken - 1
        return found

    return read


_READERS: dict[int, Callable[[bytes, int, int], Any]] = {
    _EMPTY_LIST: lambda _data, _at, _end: [],
    _BOOLEAN: _boolean,
    0x73: _character,
    0x74: _decimal,
    0x84: _decimal,
    0x94: _decimal,
    0x98: _uuid,
    0xA0: _bytes(1),
    0xB0: _bytes(4),
    0xA1: _text(1),
    0xB1: _text(4),
    0xA3: _text(1),
    0xB3: _text(4),
    0xC0: _items(1),
    0xD0: _items(4),
    0xC1: _map(1),
    0xD1: _map(4),
    0xE0: _array(1),
    0xF0: _array(4),
}


def symbol(text: str) -> bytes:
    """Write a symbol of at most 255 bytes."""
    return _short(0xA3, text.encode("ascii"))


def string(text: str) -> bytes:
    """Write a string."""
    data = text.encode()
    if len(data) < 1 << 8:
        return _short(0xA1, data)
    return b"\xb1" + _U32.pack(len(data)) + data


def _short(code: int, data: bytes) -> bytes:
    return bytes((code, len(data))) + data


def long(value: int) -> bytes:
    """Write a signed number of 64 bits."""
    return b"\x81" + struct.pack(">q", value)


def timestamp(milliseconds: int) -> bytes:
    """Write a moment, in milliseconds since 1970."""
    return b"\x83" + struct.pack(">q", milliseconds)


def map_section(code: int, items: bytes, count: int) -> bytes:
    """Write a section that is a map of already written keys and values."""
    size = _U32.pack(len(items) + 4) + _U32.pack(count)
    return bytes((0x00, 0x53, code, 0xD1)) + size + items


def map_items(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """
    Take a map apart without decoding it.

    Returns:
        Its keys and values as they are written, and how many those are together.
    """
    if data[at] == 0xC1:  # noqa: PLR2004  # map8; the other is map32
        return data[at + 3 : end], data[at + 2]
    return data[at + 9 : end], _U32.unpack_from(data, at + 5)[0]
