"""
What is in a message: batches taken apart, events annotated and read. No I/O.

A batch is one message whose data sections are messages themselves. Event Hubs marks it
by the message format 0x80013700, which proton does not tell, so a batch is known here
by its structure: every data section looks like a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bizlog.dev.eventhubs import encoding
from bizlog.dev.eventhubs.encoding import (
    APPLICATION_PROPERTIES,
    DATA,
    FOOTER,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    SEQUENCE,
    VALUE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARTITION_KEY = "x-opt-partition-key"
SEQUENCE_NUMBER = "x-opt-sequence-number"
OFFSET = "x-opt-offset"
ENQUEUED_TIME = "x-opt-enqueued-time"

_KEY = encoding.symbol(PARTITION_KEY)
_NUMBER = encoding.symbol(SEQUENCE_NUMBER)
_OFFSET = encoding.symbol(OFFSET)
_TIME = encoding.symbol(ENQUEUED_TIME)
_BODIES = frozenset({DATA, SEQUENCE, VALUE})


def take_apart(message: bytes) -> list[bytes]:
    """
    List the events of a message: one, or those of a batch.

    Raises:
        ValueError: It is no AMQP message.
    """
    found = list(encoding.sections(message))
    parts = [_payload(message, at, end) for code, at, end in found if code == DATA]
    if parts and all(map(_looks_like_a_message, parts)):
        return parts
    return [message] if _BODIES.intersection(code for code, *_ in found) else []


def _payload(message: bytes, at: int, end: int) -> bytes:
    return message[at + (2 if message[at] == 0xA0 else 5) : end]  # noqa: PLR2004  # bin8


def _looks_like_a_message(part: bytes) -> bool:
    return part[:2] == b"\x00\x53" and HEADER <= part[2] <= FOOTER


def partition_key(message: bytes) -> str | None:
    """Read the partition key of an event or of a whole batch."""
    for code, at, _ in encoding.sections(message):
        if code == MESSAGE_ANNOTATIONS:
            key = encoding.decode(message, at)[0].get(PARTITION_KEY)
            return key.decode() if isinstance(key, bytes) else key
        if code > MESSAGE_ANNOTATIONS:
            break
    return None


def with_key(events: Sequence[bytes], key: str) -> list[bytes]:
    """Write the key of a batch into those of its events that do not have it."""
    item = _KEY + encoding.string(key)
    return [e if _KEY in e else _annotated(e, item, 2) for e in events]


def as_delivered(event: bytes, number: int, offset: int, enqueued_ms: int) -> bytes:
    """Add the annotations that Event Hubs adds to an event it hands out."""
    items = (
        _NUMBER
        + encoding.long(number)
        + _OFFSET
        + encoding.string(str(offset))
        + _TIME
        + encoding.timestamp(enqueued_ms)
    )
    return _annotated(event, items, 6)


def _annotated(event: bytes, items: bytes, count: int) -> bytes:
    """Put annotations behind an event's own: of two with one name, the last holds."""
    header, own, own_count, rest = b"", b"", 0, 0
    for code, at, end in encoding.sections(event):
        if code > MESSAGE_ANNOTATIONS:
            break
        if code == HEADER:
            header = event[:end]
        elif code == MESSAGE_ANNOTATIONS:
            own, own_count = encoding.map_items(event, at, end)
        rest = end
    section = encoding.map_section(MESSAGE_ANNOTATIONS, own + items, own_count + count)
    return header + section + event[rest:]


def read(event: bytes) -> dict[str, Any]:
    """
    Read an event.

    Returns:
        `body`, `partition_key`, `message_id` and `application_properties`. A body of
        several data sections is joined; one that is a value and not data is encoded
        as it was sent.
    """
    told: dict[str, Any] = {
        "body": b"",
        "partition_key": None,
        "message_id": None,
        "application_properties": {},
    }
    for code, at, end in encoding.sections(event):
        if code in _BODIES:
            data = _payload(event, at, end) if code == DATA else event[at:end]
            told["body"] += data
        elif code in _READERS:
            name, reader = _READERS[code]
            told[name] = reader(encoding.decode(event, at)[0])
    return told


def _key_of(annotations: dict[Any, Any]) -> Any:
    return annotations.get(PARTITION_KEY)


def _message_id(properties: list[Any]) -> Any:
    return properties[0] if properties else None


def _named(properties: dict[Any, Any]) -> dict[str, Any]:
    return {
        name.decode() if isinstance(name, bytes) else name: value
        for name, value in properties.items()
    }


_READERS: dict[int, tuple[str, Callable[[Any], Any]]] = {
    MESSAGE_ANNOTATIONS: ("partition_key", _key_of),
    PROPERTIES: ("message_id", _message_id),
    APPLICATION_PROPERTIES: ("application_properties", _named),
}
