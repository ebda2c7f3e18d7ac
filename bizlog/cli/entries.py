"""
What one line of a file holds: an event, a dead letter, or neither.

The bytes of an event stay as they are; only its envelope is read. What is said of a
line that is neither names fields and types, never values. No I/O.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path  # noqa: TC003  # msgspec resolves the annotations
from typing import NamedTuple, TypeAlias

import msgspec

from bizlog._wording import validation_reason
from bizlog.cli.tables import counted
from bizlog.delivery.dead_letters import DeadLetter
from bizlog.sinks import Record


class Place(NamedTuple):
    """
    Where an entry stands.

    Attributes:
        path: The file; for what was sent, name of the partition.
        line: The line, from 1; in a journal the position, plus 1.
    """

    path: Path | str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class EventLine(NamedTuple):
    """
    An event.

    Attributes:
        place: Where it stands.
        record: The event, byte for byte.
        producer_id: Who made it, or None where it does not say.
    """

    place: Place
    record: Record
    producer_id: str | None


class LetterLine(NamedTuple):
    """
    A dead letter.

    Attributes:
        place: Where it stands.
        letter: The letter.
        event_type: Name of the event that was given up, or None where it has none.
        event: That event, or None where it is no whole one.
    """

    place: Place
    letter: DeadLetter
    event_type: str | None
    event: EventLine | None

    @property
    def can_be_replayed(self) -> bool:
        """Whether the event was accepted once: its letter names the sink."""
        return self.letter.sink is not None and self.event is not None


class BadLine(NamedTuple):
    """
    A line that is neither.

    Attributes:
        place: Where it stands.
        reason: What was expected.
    """

    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


Entry: TypeAlias = EventLine | LetterLine | BadLine

BAD_LINES_SHOWN = 5


class BadLines:
    """
    Counts lines that could not be read and keeps the first of them.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: list[BadLine] = []

    def add(self, line: BadLine) -> None:
        """Note one."""
        self.count += 1
        if len(self._first) < BAD_LINES_SHOWN:
            self._first.append(line)

    def told(self) -> list[str]:
        """Say which, with file and line; nothing where all was well."""
        if not self.count:
            return []
        found = [f"{counted(self.count, 'line')} could not be read:"]
        found += [f"  {line}" for line in self._first]
        more = self.count - len(self._first)
        return [*found, f"  and {more:,} more"] if more else found


class _Envelope(msgspec.Struct):
    """What is read of a line; whatever else it holds is passed over."""

    event_id: str | None = None
    event_type: str | None = None
    event_time: str | None = None
    producer_id: str | None = None
    sequence: int | None = None
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelopes = msgspec.json.Decoder(_Envelope)
_letters = msgspec.json.Decoder(DeadLetter)
_texts = msgspec.json.Decoder(str)


def read_entry(line: bytes, place: Place) -> Entry:
    """Say what a line holds; never raises, whatever stands in it."""
    try:
        envelope = _envelopes.decode(line)
        if envelope.event_type is None and envelope.record is not msgspec.UNSET:
            return _letter(line, place)
    except msgspec.ValidationError as error:
        reason, path = validation_reason(error)
        return BadLine(place, f"{path}: {reason}" if path else reason)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return BadLine(place, "no whole JSON object; the line is cut or damaged")
    missing = [
        n for n in ("event_id", "event_type", "event_time") if not getattr(envelope, n)
    ]
    if missing:
        return BadLine(place, f"no event: it has no {', '.join(missing)}")
    return _event(line, envelope, place)


def _event(line: bytes, envelope: _Envelope, place: Place) -> EventLine:
    record = Record(
        line,
        envelope.event_id or "",
        envelope.event_type or "",
        envelope.event_time or "",
        envelope.sequence or 0,
    )
    return EventLine(place, record, envelope.producer_id)


def _letter(line: bytes, place: Place) -> LetterLine:
    letter = _letters.decode(line)
    content = _content(letter)
    event = read_entry(content, place)
    if isinstance(event, EventLine):
        return LetterLine(place, letter, event.record.event_type, event)
    return LetterLine(place, letter, _type_in(content), None)


def _type_in(content: bytes) -> str | None:
    try:
        return _envelopes.decode(content).event_type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _content(letter: DeadLetter) -> bytes:
    """Take the event out of a letter: JSON as it stands, or text that is base64."""
    data = bytes(letter.record)
    if not data.startswith(b'"'):
        return data
    try:
        return base64.b64decode(_texts.decode(data), validate=True)
    except (binascii.Error, ValueError):
        return b""
