"""
An event's id and time, from one look at the clock. Never blocks, never raises.

The id is a UUIDv7 (RFC 9562): 48 bits of milliseconds, 66 random bits that are drawn
anew for each millisecond in which an event happens and for every 256 events within
one, then 8 bits that count. The count is a list iterator, which CPython advances in one
step, so threads and signal handlers never get the same; ids of one process sort by
time. A forked child draws anew (the engine's hook sees to it).

Measured (CPython 3.13): 0.3 µs for both, against 0.9 µs for `str(uuid7())` of a library
written in Rust and a time of its own.
"""

from __future__ import annotations

import time
from itertools import product
from os import urandom
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# One millisecond: its first nanosecond, the text of the time up to it, the text of the
# id up to its count, and what counts.
_Block: TypeAlias = "tuple[int, str, str, Callable[[], str]]"

_NANOSECONDS = 1_000_000
_COUNTS = [*map("".join, product("0123456789abcdef", repeat=2))]
_MICROSECONDS = [*map("".join, product("0123456789", "0123456789", "0123456789", "Z"))]

_NONE: _Block = (-_NANOSECONDS, "", "", iter(()).__next__)
_block = _NONE


def next_stamp() -> tuple[str, str]:
    """
    Say what the next event is called and when it happens.

    Returns:
        A UUIDv7, and the time in UTC as RFC 3339 with microseconds.
    """
    now = time.time_ns()
    start, clock, prefix, count = _block
    since = now - start
    if 0 <= since < _NANOSECONDS:
        try:
            return prefix + count(), clock + _MICROSECONDS[since // 1_000]
        except StopIteration:
            pass  # the block had its 256 events
    _, clock, prefix, count = _new_block(now)
    return prefix + count(), clock + _MICROSECONDS[now % _NANOSECONDS // 1_000]


def next_id() -> str:
    """Make an id for something else: a UUIDv7."""
    return next_stamp()[0]


def _new_block(now: int) -> _Block:
    global _block  # noqa: PLW0603  # one tuple, replaced whole: safe from any thread
    millisecond = now // _NANOSECONDS
    second, rest = divmod(millisecond, 1_000)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    moment, noise = f"{millisecond:012x}", urandom(9).hex()
    variant = "89ab"[int(noise[0], 16) & 3]
    prefix = (
        f"{moment[:8]}-{moment[8:]}-7{noise[1:4]}-{variant}{noise[4:7]}-{noise[7:17]}"
    )
    _block = block = (
        millisecond * _NANOSECONDS,
        f"{clock}.{rest:03d}",
        prefix,
        iter(_COUNTS).__next__,
    )
    return block


def draw_anew() -> None:
    """Forget the numbers drawn; a forked child must not go on with its parent's."""
    global _block  # noqa: PLW0603  # as above
    _block = _NONE
