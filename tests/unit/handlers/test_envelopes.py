"""Events as messages of the Azure SDK: what they show, and that none shows another's."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from bizlog.sinks import Record

eventhub = pytest.importorskip(
    "azure.eventhub", reason="azure-eventhub is not installed"
)

from_sdk = import_module("bizlog_handlers._envelopes")
Envelopes, copies_bodies = from_sdk.Envelopes, from_sdk.copies_bodies
Parcel = import_module("bizlog_handlers._packing").Parcel


def record_of(number, event_type="order.placed", **fields):
    return Record(json.dumps(fields).encode(), f"id-{number}", event_type, "", number)


def sealed(metadata, records, *, key="k", packed=False, reusing=None):
    envelopes = Envelopes(metadata, packed=packed, reusing=reusing)
    body = b"\n".join(record.data for record in records)
    parcel = Parcel(body, key, tuple(range(len(records))))
    return envelopes.seal(parcel, records)


@pytest.mark.parametrize("reusing", [True, False])
def test_a_message_shows_all_there_is_to_know(reusing):
    """`full`: key, message id, content type, event type, schema version."""
    message = sealed("full", [record_of(1, schema_version=2)], reusing=reusing)

    assert message.body_as_str() == '{"schema_version": 2}'
    assert message.message_id == "id-1"
    assert message.content_type == "application/json"
    assert message.properties == {"event_type": "order.placed", "schema_version": 2}
    assert message.raw_amqp_message.annotations == {"x-opt-partition-key": "k"}


def test_a_message_may_show_its_key_alone():
    """`key`: what describes the event stands in its body."""
    message = sealed("key", [record_of(1)])

    assert message.raw_amqp_message.annotations == {"x-opt-partition-key": "k"}
    assert message.message_id is None
    assert not message.properties


def test_a_message_may_show_nothing():
    """`none`: the body is all there is."""
    message = sealed("none", [record_of(1)])

    assert not message.raw_amqp_message.annotations
    assert not message.properties


def test_without_a_key_none_is_shown():
    """Events without a key, and packs of several, have no annotation."""
    assert sealed("key", [record_of(1)], key=None).raw_amqp_message.annotations == {}


def test_a_long_key_is_cut_for_show():
    """The service takes 128 characters."""
    message = sealed("key", [record_of(1)], key="k" * 500)

    assert message.raw_amqp_message.annotations == {"x-opt-partition-key": "k" * 128}


def test_a_pack_shows_what_its_events_share():
    """The id is the first one's; the content type says that there are lines."""
    message = sealed(
        "full",
        [record_of(1, schema_version=1), record_of(2, schema_version=1)],
        packed=True,
    )

    assert message.message_id == "id-1"
    assert message.content_type == "application/x-ndjson"
    assert message.properties == {"event_type": "order.placed", "schema_version": 1}


def test_a_pack_of_several_types_shows_none():
    """What is not alike is not shown."""
    of_types = [record_of(1), record_of(2, "order.returned")]
    of_versions = [record_of(1, schema_version=1), record_of(2, schema_version=2)]

    assert sealed("full", of_types, packed=True).properties == {}
    assert sealed("full", of_versions, packed=True).properties == {
        "event_type": "order.placed"
    }


@pytest.mark.parametrize("data", [b"{}", b'{"schema_version": "x"}', b"no json"])
def test_an_event_without_a_version_shows_none(data):
    """What is replayed from elsewhere may have none, or something else."""
    record = Record(data, "id-1", "order.placed", "", 1)

    assert sealed("full", [record]).properties == {"event_type": "order.placed"}


@pytest.mark.parametrize("reusing", [True, False])
def test_no_message_shows_what_another_one_holds(reusing):
    """One message serves all events, and each arrives in the batch as its own."""
    envelopes = Envelopes("full", packed=False, reusing=reusing)
    records = [record_of(1, schema_version=1), record_of(2, "order.returned")]
    batch = eventhub.EventDataBatch(10_000)

    for index, key in enumerate(("a", None)):
        parcel = Parcel(records[index].data, key, (index,))
        batch.add(envelopes.seal(parcel, records))

    first, second = [
        eventhub.EventData.from_bytes(bytes(each)) for each in batch._message[5]
    ]
    assert (first.body_as_str(), first.message_id) == ('{"schema_version": 1}', "id-1")
    assert first.partition_key == b"a"
    assert (second.body_as_str(), second.message_id) == ("{}", "id-2")
    assert second.partition_key is None
    assert {*second.properties.values()} == {b"order.returned"}


def test_this_sdk_copies_bodies():
    """Otherwise each event costs 10 µs more, and this test says since when."""
    assert copies_bodies()


class Hoarder(eventhub.EventDataBatch):
    """A batch of an SDK to come, which encodes when it is sent."""

    def add(self, event_data):
        self._internal_events.append(event_data)


class Broken:
    """A batch of an SDK to come, which does otherwise altogether."""

    def __init__(self, *_):
        pass

    def add(self, event_data):
        raise TypeError


@pytest.mark.parametrize("batch", [Hoarder, Broken])
def test_an_sdk_that_copies_later_is_found_out(monkeypatch, batch):
    """Then each event gets a message of its own."""
    monkeypatch.setattr(from_sdk, "EventDataBatch", batch)

    assert not copies_bodies()
