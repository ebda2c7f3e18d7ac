"""Headers of messages: what they say of which event."""

from __future__ import annotations

import msgspec

from bizlog_handlers._headers import cloud_headers, headers_by


def test_headers_are_as_asked_for(make_record):
    """Bizlog's own, CloudEvents', both or none."""
    record = make_record(schema_version=2)
    own = {
        "event_type": b"order.placed",
        "schema_version": b"2",
        "event_id": record.event_id.encode(),
    }
    assert headers_by(plain=False, cloudevents=False) is None
    assert dict(headers_by(plain=True, cloudevents=False)(record)) == own
    cloud = dict(headers_by(plain=False, cloudevents=True)(record))
    assert cloud["ce_source"] == b"customer-agent"
    both = dict(headers_by(plain=True, cloudevents=True)(record))
    assert both == own | cloud


def test_a_header_says_no_version_that_the_event_does_not(make_record):
    """An event without a version has no header for it; the next one's is its own."""
    headers = headers_by(plain=True, cloudevents=False)
    assert headers is not None
    versions = [
        dict(headers(each)).get("schema_version")
        for each in (make_record(), make_record(schema_version=3), make_record())
    ]
    assert versions == [None, b"3", None]


def test_headers_of_what_is_no_event(make_record):
    """What is replayed from elsewhere has the headers that can be told."""
    record = msgspec.structs.replace(make_record(), data=b"[]")
    headers = headers_by(plain=True, cloudevents=False)
    assert headers is not None
    assert dict(headers(record)).keys() == {"event_type", "event_id"}
    assert dict(cloud_headers(record))["ce_source"] == b"bizlog"
