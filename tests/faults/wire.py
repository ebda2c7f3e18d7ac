"""
Reads what each contender puts on the wire: the events of one request, by their number.

Every event carries a whole number `n` of its own. Where the format has an id for an
event, it is read as well. No I/O here.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import orjson

BIZLOG_PATH = "/events/batch"


class Event(NamedTuple):
    """
    One event of a request.

    Attributes:
        n: Its number.
        id: What its contender calls it; None where the format has no id.
        data: The event itself, as read.
    """

    n: int
    id: str | None
    data: Mapping[str, Any]


def read_events(path: str, encoding: str, body: bytes) -> list[Event]:
    """
    Read the events of one request.

    Args:
        path: The request's path, which says whose format it is.
        encoding: The header Content-Encoding.
        body: The body as sent.

    Raises:
        ValueError: The path or the encoding is nobody's.
    """
    reader = READERS.get(path.partition("?")[0].rstrip("/"))
    if reader is None:
        raise ValueError(f"no contender posts to {path}")
    return list(reader(decode(encoding, body)))


def decode(encoding: str, body: bytes) -> bytes:
    """
    Undo the Content-Encoding.

    Raises:
        ValueError: It is none of identity, gzip, deflate and zstd.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding == "zstd":
        import zstandard  # noqa: PLC0415  # an extra

        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    raise ValueError(f"Content-Encoding {encoding}")


def _read_bizlog(body: bytes) -> Iterator[Event]:
    one_array = body[:1] == b"["
    events = orjson.loads(body) if one_array else map(orjson.loads, body.splitlines())
    for event in events:
        yield Event(event["custom_properties"]["n"], event["event_id"], event)


def _read_batch(body: bytes) -> Iterator[Event]:
    """Segment, Rudder and PostHog: one object with a list `batch`."""
    for event in orjson.loads(body)["batch"]:
        name = event.get("messageId") or event.get("uuid")
        yield Event(event["properties"]["n"], name, event)


def _read_snowplow(body: bytes) -> Iterator[Event]:
    for event in orjson.loads(body)["data"]:
        packed = event["ue_px"]
        text = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        yield Event(orjson.loads(text)["data"]["data"]["n"], event["eid"], event)


def _read_amplitude(body: bytes) -> Iterator[Event]:
    for event in orjson.loads(body)["events"]:
        # What it cannot write it leaves out, all the properties with it.
        if "n" in (event.get("event_properties") or {}):
            n = event["event_properties"]["n"]
            yield Event(n, event.get("insert_id"), event)


def _read_mixpanel(body: bytes) -> Iterator[Event]:
    for event in orjson.loads(parse_qs(body.decode())["data"][0]):
        properties = event["properties"]
        yield Event(properties["n"], properties.get("$insert_id"), event)


def _read_sentry(body: bytes) -> Iterator[Event]:
    """Read an envelope: a line about it, then for each item a line and its bytes."""
    _, _, rest = body.partition(b"\n")
    while rest:
        head, _, rest = rest.partition(b"\n")
        about = orjson.loads(head)
        length = about.get("length", rest.find(b"\n"))
        item, rest = rest[:length], rest[length + 1 :]
        if about["type"] == "log":
            for event in orjson.loads(item)["items"]:
                yield Event(event["attributes"]["n"]["value"], None, event)


def _read_otlp(body: bytes) -> Iterator[Event]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415  # a peer's
        ExportLogsServiceRequest,
    )

    request = ExportLogsServiceRequest.FromString(body)
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                fields = {each.key: each.value for each in record.attributes}
                yield Event(fields["n"].int_value, None, fields)


READERS: dict[str, Callable[[bytes], Iterator[Event]]] = {
    BIZLOG_PATH: _read_bizlog,
    "/v1/batch": _read_batch,
    "/batch": _read_batch,
    "/com.snowplowanalytics.snowplow/tp2": _read_snowplow,
    "/2/httpapi": _read_amplitude,
    "/track": _read_mixpanel,
    "/api/1/envelope": _read_sentry,
    "/v1/logs": _read_otlp,
}
