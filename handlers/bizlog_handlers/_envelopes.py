"""
Events as messages of the Azure SDK, cheaply, through its public classes.

What an event costs here is what the SDK's `EventDataBatch.add` costs, and that grows
with each section of the message. Measured with 320 bytes, in µs an event, building the
message included (3.13, one core; a new `EventData(body)` for each: 22):

    body alone                             9
    and the partition key                 22
    and message id, event type, version   80

`add` encodes a message at once and keeps nothing of its body, so one message serves
all: its body is a buffer whose content is exchanged. A release of the SDK that does
otherwise is found out when the sink is built; then each event gets a message of its
own, for 12 µs more.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from azure.eventhub import EventData, EventDataBatch

from bizlog_handlers._kinds import Kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.sinks import Record
    from bizlog_handlers._packing import Parcel

Metadata: TypeAlias = Literal["full", "key", "none"]

# A key that is longer than the service takes is cut for show; its partition is that of
# the whole key (https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas).
_MAX_KEY = 128

_KEY_ANNOTATION = "x-opt-partition-key"

Properties: TypeAlias = "dict[str | bytes, Any]"


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
        self._kinds = Kinds(_properties)
        self._body = bytearray()
        self._message = self._new_message(self._body)

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
            message = self._new_message(parcel.body)
        if self._metadata == "none":
            return message
        _show_key(message, parcel.key)
        if self._metadata == "full":
            self._describe(message, [records[index] for index in parcel.indices])
        return message

    def _new_message(self, body: bytes | bytearray) -> EventData:
        message = _message(body)
        if self._metadata == "full":
            message.content_type = self._content_type
        return message

    def _describe(self, message: EventData, records: Sequence[Record]) -> None:
        raw = message.raw_amqp_message
        assert raw.properties is not None
        raw.properties.message_id = records[0].event_id
        raw.application_properties = self._shared_by(records)

    def _shared_by(self, records: Sequence[Record]) -> Properties:
        """Describe the events of a message, as far as they are alike."""
        shared = self._kinds.of_all(records)
        if shared is not None:
            return dict(shared)  # the SDK may add to it, for tracing
        event_type = records[0].event_type
        if all(record.event_type == event_type for record in records):
            return _properties(event_type, None)
        return {}


def _properties(event_type: str, version: int | None) -> Properties:
    properties: Properties = {"event_type": event_type}
    if version is not None:
        properties["schema_version"] = version
    return properties


def _message(body: bytes | bytearray) -> EventData:
    # A bytearray is taken as it is, which the SDK's annotation does not say.
    taken: Any = body
    message = EventData(taken)
    raw = message.raw_amqp_message
    # Nothing, where there is nothing: what is empty is looked through with each event.
    nothing: Any = None
    raw.header = nothing
    raw.properties = nothing
    raw.annotations = None
    raw.application_properties = None
    return message


def _show_key(message: EventData, key: str | None) -> None:
    shown: dict[str | bytes, Any] = {}
    if key is not None:
        shown[_KEY_ANNOTATION] = key[:_MAX_KEY]
    message.raw_amqp_message.annotations = shown


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
