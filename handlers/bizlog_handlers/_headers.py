"""
What an event is, as headers of its message: bizlog's own, and CloudEvents'. Pure.

Bytes, not text: librdkafka's binding takes twice as long for text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from bizlog_handlers._kinds import Kinds

if TYPE_CHECKING:
    from collections.abc import Callable

    from bizlog.sinks import Record

Headers: TypeAlias = "list[tuple[str, str | bytes | None]]"


class _Told(msgspec.Struct):
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
    own = Kinds(_type_and_version).of

    def plain_headers(record: Record) -> Headers:
        return [*own(record), ("event_id", record.event_id.encode())]

    if plain and cloudevents:
        return lambda record: plain_headers(record) + cloud_headers(record)
    if cloudevents:
        return cloud_headers
    return plain_headers if plain else None


def _told(record: Record) -> _Told:
    try:
        return _decode(record.data)
    except msgspec.MsgspecError:
        return _Told()  # what is replayed from elsewhere may have another form


def _type_and_version(event_type: str, version: int | None) -> Headers:
    headers: Headers = [("event_type", event_type.encode())]
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
