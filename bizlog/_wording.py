"""Words for messages: the nearest known name, types instead of values. Pure."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

_QUOTED_VALUE = re.compile(r"^(Invalid [a-z ]*value) .*$", re.DOTALL)


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the nearest known name, as `; did you mean 'x'?`, or say nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def validation_reason(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """
    Split msgspec's message into what was expected and the JSON path.

    A message that quotes the value it refuses is cut before it: errors travel into
    logs and dead letters, where the values of an event do not belong.
    """
    reason, _, path = str(error).partition(" - at `")
    reason = _QUOTED_VALUE.sub(r"\1", reason)
    return reason, path.rstrip("`") or None


def describe_error(error: BaseException) -> str:
    """Say what failed in one bounded line: the class and its message."""
    message = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
