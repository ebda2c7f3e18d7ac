"""
From partition key to partition, for events sent to the hub itself: pure arithmetic.

The hash is lookup3 of Bob Jenkins (`hashlittle2`, public domain,
https://burtleburtle.net/bob/c/lookup3.c) with both seeds 0; its two halves are XORed,
and the lower 16 bits, read as a signed number, are taken modulo the partitions. That is
what the buffered producer of azure-eventhub for Python computes. Azure's other SDKs,
and `EventHubSink`, drop the sign: another partition for half of the keys, where the
number of partitions is no power of two. What the service does, nobody here has seen.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_START = 0xDEADBEEF
_WORDS = struct.Struct("<3I")
_SIGN, _RANGE = 0x8000, 0x10000


def partition_of(key: str, partitions: int) -> int:
    """
    Choose the partition of a key.

    Args:
        key: The partition key; it is hashed as UTF-8.
        partitions: How many the hub has, at least 1.

    Returns:
        The partition's number, from 0.
    """
    low, high = hashes(key.encode())
    code = (low ^ high) & (_RANGE - 1)
    return (code - _RANGE if code & _SIGN else code) % partitions


def hashes(data: bytes) -> tuple[int, int]:
    """Compute the two 32-bit halves that lookup3 calls `c` and `b`."""
    a = b = c = (_START + len(data)) & _MASK
    if not data:
        return c, b
    padded = data + bytes(-len(data) % _WORDS.size)
    *blocks, last = _WORDS.iter_unpack(padded)
    for x, y, z in blocks:
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    x, y, z = last
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for turn in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _rotated(c, turn)
        c = (c + b) & _MASK
        a, b, c = b, c, a  # the next step does the same to the next word
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int]:
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, turn)) & _MASK
        a, b, c = b, c, a
    # Seven steps turn the names one place too far.
    return b, a


def _rotated(value: int, turn: int) -> int:
    return ((value << turn) | (value >> (32 - turn))) & _MASK
