"""
Events as messages of the Azure SDK, cheaply, through its public classes.

What an event costs here is what the SDK's `EventDataBatch.add` costs, and that grows
with each section of the message. Measured with 320 bytes, in µs an event, building the
message included (3.13, one core; a new `EventData(body)` for each: 22):

    body alone                            10
    and the partition key                 22
    and message id, event type, version   82

`add` encodes a message at once and keeps nothing of its body, so one message serves
all: its body is a buffer whose content is exchanged. A release of the SDK that does
otherwise is found out when the sink is built; then each event gets a message of its
own, for 12 µs more.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from azure.eventhub import EventData, EventDataBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.sinks import Record
    from bizlog_handlers._packing import Parcel

Metadata: TypeAlias = Literal["full", "key", "none"]

# A key that is longer than the service takes is cut for show; its partition is that of
# the whole key (https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas).
_MAX_KEY = 128

_KEY_ANNOTATION = "x-opt-partition-key"


class _Versioned(msgspec.Struct):
    schema_version: int | None = None


_decode_version = msgspec.json.Decoder(_Versioned).decode


class Envelopes:
    """
    Puts parcels into messages.

    Args:
        metadata: `full`: partition key, message id, content type, event type and schema
            version. `key`: the partition key alone. `none`: nothing but the body.
        packed: Whether parcels hold JSON lines.
        reusing: Whether one message serves all.
    """

    def __init__(
        self, metadata: Metadata, *, packed: bool, reusing: bool | None = None
    ) -> None:
        self._metadata = metadata
        self._content_type = "application/x-ndjson" if packed else "application/json"
        self._reusing = copies_bodies() if reusing is None else reusing
        self._body = bytearray()
        self._message = _message(self._body)

    def seal(self, parcel: Parcel, records: Sequence[Record]) -> EventData:
        """
        Put a parcel into a message, which holds until the next one is asked for.

        Args:
            parcel: What to send.
            records: The batch that its indices mean.
        """
        message = self._message
        if self._reusing:
            self._body[:] = parcel.body
        else:
            message = _message(parcel.body)
        if self._metadata == "none":
            return message
        _show_key(message, parcel.key)
        if self._metadata == "full":
            self._describe(message, [records[index] for index in parcel.indices])
        return message

    def _describe(self, message: EventData, records: Sequence[Record]) -> None:
        message.message_id = records[0].event_id
        message.content_type = self._content_type
        message.properties = _properties_of(records)


def _message(body: bytes | bytearray) -> EventData:
    # A bytearray is taken as it is, which the SDK's annotation does not say.
    taken: Any = body
    message = EventData(taken)
    raw = message.raw_amqp_message
    # No header: an empty one is looked through again with each event.
    no_header: Any = None
    raw.header = no_header
    raw.annotations = None
    raw.application_properties = None
    return message


def _show_key(message: EventData, key: str | None) -> None:
    shown: dict[str | bytes, Any] = {}
    if key is not None:
        shown[_KEY_ANNOTATION] = key[:_MAX_KEY]
    message.raw_amqp_message.annotations = shown


def _properties_of(records: Sequence[Record]) -> dict[str | bytes, Any]:
    """Describe the events of a message, as far as they are alike."""
    properties: dict[str | bytes, Any] = {}
    first = records[0]
    if any(record.event_type != first.event_type for record in records):
        return properties
    properties["event_type"] = first.event_type
    version = version_of(first)
    if version is not None and all(version_of(each) == version for each in records[1:]):
        properties["schema_version"] = version
    return properties


def version_of(record: Record) -> int | None:
    """Read the schema version out of an event; None where it has none."""
    try:
        return _decode_version(record.data).schema_version
    except msgspec.MsgspecError:
        return None


def copies_bodies() -> bool:
    """Say whether a batch copies what a message holds as soon as it is added."""
    first, second = b"bizlog: first", b"bizlog: second"
    body = bytearray(first)
    message = _message(body)
    batch = EventDataBatch(1024)
    try:
        batch.add(message)
        body[:] = second
        return first in pickle.dumps(batch)
    except Exception:  # noqa: BLE001  # an SDK that is not as expected copies nothing
        return False
