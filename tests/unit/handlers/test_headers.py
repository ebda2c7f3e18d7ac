"""Headers of messages: what they say, and that what is remembered stays right."""

from __future__ import annotations

import msgspec
import pytest

from bizlog_handlers._headers import PlainHeaders, cloud_headers, headers_by


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


@pytest.mark.parametrize("version", [0, 1, 12, 999, 1000, 1234, 12345, -1])
@pytest.mark.parametrize("behind", [{}, {"n": 1}])
def test_versions_are_never_mixed_up(make_record, version, behind):
    """Whatever was seen before, each event has its own version."""
    headers = PlainHeaders()
    for other in (1, 12, 123, 1234, version, version):
        record = make_record(schema_version=other, **behind)
        assert dict(headers(record))["schema_version"] == b"%d" % other


def test_a_property_of_the_same_name_is_none_of_ours(make_record):
    """Only the event's own version counts, wherever the other one stands."""
    record = make_record(custom_properties={"schema_version": 7}, schema_version=3)
    assert dict(PlainHeaders()(record))["schema_version"] == b"3"
    without = make_record(custom_properties={"schema_version": 7})
    assert "schema_version" not in dict(PlainHeaders()(without))


def test_what_is_remembered_is_bounded(make_record):
    """Types without end, as of a service that makes up names, cost no memory."""
    headers = PlainHeaders()
    for number in range(2_500):
        headers(make_record(f"custom.{number}", schema_version=1))
    assert len(headers._known) <= 1_000


def test_headers_of_what_is_no_event(make_record):
    """What is replayed from elsewhere has the headers that can be told."""
    record = msgspec.structs.replace(make_record(), data=b"[]")
    assert dict(PlainHeaders()(record)).keys() == {"event_type", "event_id"}
    assert dict(cloud_headers(record))["ce_source"] == b"bizlog"
