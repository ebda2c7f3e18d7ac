"""
What an event is, as headers of its message: bizlog's own, and CloudEvents'. Pure.

Bytes, not text: librdkafka's binding takes twice as long for text. The schema version
is read where it stands, without decoding the event, which is 0.3 µs less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from bizlog.sinks import Record

Headers: TypeAlias = "list[tuple[str, str | bytes | None]]"

_VERSION = b'"schema_version":'

# Three digits and what ends them: the whole version can be told from so much.
_SEEN_BYTES = 4
_MAX_SEEN_VERSION = 999
# Pairs of a type and a version that are kept; a service has tens.
_MAX_KNOWN = 1_000


class _Told(msgspec.Struct):
    schema_version: int | None = None
    event_source: str = ""


_decode = msgspec.json.Decoder(_Told).decode


def headers_by(*, plain: bool, cloudevents: bool) -> Callable[[Record], Headers] | None:
    """
    Choose the headers of all messages.

    Args:
        plain: `event_type`, `schema_version` and `event_id`.
        cloudevents: Those of CloudEvents' binary mode.

    Returns:
        Makes the headers of an event; None where there are none.
    """
    own = PlainHeaders()
    if plain and cloudevents:
        return lambda record: own(record) + cloud_headers(record)
    if cloudevents:
        return cloud_headers
    return own if plain else None


def _told(record: Record) -> _Told:
    try:
        return _decode(record.data)
    except msgspec.MsgspecError:
        return _Told()  # what is replayed from elsewhere may have another form


class PlainHeaders:
    """Type, schema version and id of an event, the first two of them remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Headers] = {}

    def __call__(self, record: Record) -> Headers:
        """Make the headers of one event."""
        event_id = ("event_id", record.event_id.encode())
        data = record.data
        # A property may have the same name. (An event from elsewhere, with such a
        # property and no version of its own, may get another's.)
        if data.count(_VERSION) != 1:
            return [*_type_and_version(record), event_id]
        at = data.find(_VERSION) + len(_VERSION)
        seen = (record.event_type, data[at : at + _SEEN_BYTES])
        known = self._known.get(seen)
        return [*(known or self._learn(seen, record)), event_id]

    def _learn(self, seen: tuple[str, bytes], record: Record) -> Headers:
        headers = _type_and_version(record)
        version = _told(record).schema_version
        if version is not None and 0 <= version <= _MAX_SEEN_VERSION:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[seen] = headers
        return headers


def _type_and_version(record: Record) -> Headers:
    headers: Headers = [("event_type", record.event_type.encode())]
    version = _told(record).schema_version
    if version is not None:
        headers.append(("schema_version", b"%d" % version))
    return headers


def cloud_headers(record: Record) -> Headers:
    """
    Make the headers of CloudEvents' binary mode, of one event.

    See https://github.com/cloudevents/spec, Kafka protocol binding 1.0.2, section 3.2.
    """
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", record.event_id.encode()),
        ("ce_type", record.event_type.encode()),
        ("ce_source", (_told(record).event_source or "bizlog").encode()),
        ("ce_time", record.event_time.encode()),
        ("content-type", b"application/json"),
    ]
