"""
Words for messages: the nearest known name, types instead of values. Pure.

Messages travel into logs and dead letters, where the values of events do not belong.
Ours name fields and types; those of others are quoted without what looks like personal
data or a secret, whatever the settings say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

_QUOTED_VALUE = r"(?s)^(Invalid [a-z ]*value) .*$"

# Characters of a foreign message that are read, and that are kept.
_MAX_READ = 16 * 1024
_MAX_MESSAGE = 300


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the nearest known name, as `; did you mean 'x'?`, or say nothing."""
    import difflib  # noqa: PLC0415  # only for messages

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def validation_reason(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """
    Split msgspec's message into what was expected and the JSON path.

    A message that quotes the value it refuses is cut before it; one that comes from a
    check of the user's own is scrubbed and bounded.
    """
    text = str(error)
    # The last one: before it may stand the value, and that may hold anything.
    reason, found, path = text.rpartition(" - at `")
    reason = reason if found else text
    path = path if found else ""
    reason = _one_line(re.sub(_QUOTED_VALUE, r"\1", reason))
    return reason, path.rstrip("`") or None


def describe_error(error: BaseException) -> str:
    """Say what failed in one bounded line: the class and its message; never raises."""
    name = type(error).__name__
    try:
        message = _one_line(str(error))
    except Exception:  # noqa: BLE001  # a foreign __str__
        return name
    return f"{name}: {message}" if message else name


def _one_line(text: str) -> str:
    from bizlog._detectors import scrub  # noqa: PLC0415  # only for messages

    return scrub(" ".join(text[:_MAX_READ].split()))[:_MAX_MESSAGE]


def reason_of(error: BaseException) -> str:
    """Say what failed; whatever was raised, in text that UTF-8 can write."""
    try:
        return writable(describe_error(error))
    except Exception:  # noqa: BLE001  # a foreign __str__
        return type(error).__name__


def writable(text: object) -> str:
    """Quote foreign words, without what looks personal, in text UTF-8 can write."""
    from bizlog._detectors import scrub  # noqa: PLC0415  # only for messages

    # A sink may quote the event that it refuses.
    return scrub(str(text)).encode("utf-8", "replace").decode()
