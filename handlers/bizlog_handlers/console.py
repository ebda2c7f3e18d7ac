r"""
Events on the terminal: one line each, readable for people, JSON for programs.

No control character of an event ever reaches the terminal (fault test S02): line
breaks, escape sequences, U+2028, U+2029 and characters that turn the direction of
writing are shown as `\uXXXX`. A line of JSON stays valid and means the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
from codecs import lookup
from typing import TYPE_CHECKING, Literal, TextIO, TypeAlias

import orjson

from bizlog.exceptions import PermanentSinkError, RetryableSinkError, SinkError
from bizlog.sinks import ACCEPTED, BaseSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bizlog.sinks import Batch, Event, Record, SendResult

Stream: TypeAlias = Literal["stdout", "stderr"]
Color: TypeAlias = Literal["auto", "always", "never"]
Format: TypeAlias = Literal["auto", "text", "json"]

# C0, DEL and C1; marks, embeddings and isolates of direction; line and paragraph
# separators; surrogates, which no stream can encode; tags, which nobody can see.
_HARMFUL = (
    "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_UNSAFE = re.compile(f"[{_HARMFUL}]")
_UNSAFE_OR_FOREIGN = re.compile(r"[^\x20-\x7e]")

# Shown without quotes: cannot be taken for the end of a value or for another key.
_PLAIN = re.compile(r"[^\s\"'=\\{}\[\],]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_FIRST = ("event_time", "event_type", "event_source")
_IDS = ("user_id", "session_id", "correlation_id", "event_id")
_ELSEWHERE = frozenset(
    {
        *_FIRST,
        *_IDS,
        "environment",
        "service_version",
        "schema_version",
        "producer_id",
        "sequence",
    }
)

# The reader or the descriptor is gone, and neither comes back.
_GONE = frozenset({errno.EPIPE, errno.EBADF})

# Columns: most names of the catalogue fit, longer ones push the rest to the right.
_TYPE_WIDTH = 22

_DIM = "2"
_OTHER_FAMILY = "1"
_FAMILIES = {
    "product": "36",
    "order": "32",
    "customer": "33",
    "admin": "35",
    "ai": "34",
}


class ConsoleSink(BaseSink):
    """
    Print events as they come; the URL is `console:` or `console:stderr`.

    A line for people shows time (UTC), type, source, the business fields and the ids
    (of a UUID its end); what only machines need (`environment`, `service_version`,
    `schema_version`, `producer_id`, `sequence`) is in the JSON alone.

    Args:
        stream: Where to print; looked up at each write, so redirection works.
        color: `auto` colours a terminal unless NO_COLOR is set (https://no-color.org)
            or TERM is `dumb`.
        format: `auto` is text on a terminal and JSON, one event a line, elsewhere.
    """

    flush_interval = 0.0
    url_option = "stream"

    def __init__(
        self,
        stream: Stream = "stdout",
        *,
        color: Color = "auto",
        format: Format = "auto",  # noqa: A002 - the option's name in the URL
    ) -> None:
        self._stream = stream
        self._color = color
        self._format = format

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Print one batch and flush the stream.

        Args:
            batch: The events, one line each.

        Returns:
            That all events were accepted.

        Raises:
            PermanentSinkError: Nobody reads the stream any more, or it is closed.
            RetryableSinkError: It cannot take the lines now.
        """
        await asyncio.to_thread(self._print, batch.records)
        return ACCEPTED

    def _print(self, records: Sequence[Record]) -> None:
        stream: TextIO | None = getattr(sys, self._stream)
        if stream is None or stream.closed:
            raise PermanentSinkError(f"{self._stream} is closed")
        text = "".join(self._lines(records, stream))
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            raise self._refusal(error) from error
        except ValueError as error:  # closed or detached by another thread
            raise PermanentSinkError(f"{self._stream} is closed") from error

    def _refusal(self, error: OSError) -> SinkError:
        code = errno.errorcode.get(error.errno or 0, "unknown error")
        reason = f"cannot print to {self._stream}: {code} ({error.strerror})"
        kind = PermanentSinkError if error.errno in _GONE else RetryableSinkError
        return kind(reason)

    def _lines(self, records: Sequence[Record], stream: TextIO) -> Iterator[str]:
        terminal = stream.isatty()
        unsafe = _UNSAFE if _is_unicode(stream) else _UNSAFE_OR_FOREIGN
        if self._format == "json" or (self._format == "auto" and not terminal):
            return (_json_line(record.data, unsafe) for record in records)
        color = self._is_coloured(terminal=terminal)
        return (_text_line(record.event, unsafe, color=color) for record in records)

    def _is_coloured(self, *, terminal: bool) -> bool:
        if self._color != "auto":
            return self._color == "always"
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return terminal and wanted


def _is_unicode(stream: TextIO) -> bool:
    try:
        return lookup(stream.encoding or "utf-8").name.startswith("utf")
    except (AttributeError, LookupError):  # a stand-in for a stream: plain characters
        return False


def _json_line(data: bytes, unsafe: re.Pattern[str]) -> str:
    # JSON itself forbids raw C0, so plain ASCII can only hold DEL.
    text = data.decode()
    if text.isascii() and "\x7f" not in text:
        return f"{text}\n"
    return f"{_escaped(text, unsafe)}\n"


def _text_line(event: Event, unsafe: re.Pattern[str], *, color: bool) -> str:
    event_time, event_type, source = (_shown(event.get(name, "-")) for name in _FIRST)
    rest = [key for key in event if key not in _ELSEWHERE]
    fields = " ".join(f"{_shown(key)}={_shown(event[key])}" for key in rest)
    ids = " ".join(f"{key}={_shortened(event[key])}" for key in _IDS if key in event)
    family = _FAMILIES.get(event_type.partition(".")[0], _OTHER_FAMILY)
    parts = (
        (_DIM, _clock(event_time)),
        (family, f"{event_type:<{_TYPE_WIDTH}}"),
        ("", source),
        ("", fields),
        (_DIM, ids),
    )
    shown = ((code, _escaped(text, unsafe)) for code, text in parts if text)
    return " ".join(_painted(*part, color=color) for part in shown) + "\n"


def _painted(code: str, text: str, *, color: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if color and code else text


def _clock(event_time: str) -> str:
    """Take the time of day, to the millisecond, from RFC 3339 in UTC."""
    return event_time[11:23] if event_time.endswith("Z") else event_time


def _shown(value: object) -> str:
    """Write a value as JSON, a simple text without its quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return orjson.dumps(value).decode()


def _shortened(value: object) -> str:
    # The front of a UUIDv7 is the time, alike in all events of a moment.
    if isinstance(value, str) and _UUID.fullmatch(value):
        return f"..{value[-8:]}"
    return _shown(value)


def _escaped(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(_as_units, text)


def _as_units(match: re.Match[str]) -> str:
    """Write one character as JSON does: one or two UTF-16 units."""
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
