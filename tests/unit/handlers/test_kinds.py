"""What is remembered of a type and a version: never another's, and not without end."""

from __future__ import annotations

import msgspec
import pytest

from bizlog_handlers._kinds import Kinds


def kinds():
    """Remember the type and the version themselves, and count how often."""
    made = []

    def make(event_type, version):
        made.append((event_type, version))
        return event_type, version

    return Kinds(make), made


def test_a_kind_is_made_once(make_record):
    """Events of one type and version share what was made for the first of them."""
    found, made = kinds()
    for number in range(10):
        record = make_record(schema_version=2, sequence=number)
        assert found.of(record) == ("order.placed", 2)
    assert len(made) == 1


@pytest.mark.parametrize("version", [0, 1, 12, 999, 1000, 1234, 12345, -1])
@pytest.mark.parametrize("behind", [{}, {"n": 1}])
def test_versions_are_never_mixed_up(make_record, version, behind):
    """Whatever was seen before, each event has its own version."""
    found, _ = kinds()
    for other in (1, 12, 123, 1234, version, version):
        record = make_record(schema_version=other, **behind)
        assert found.of(record)[1] == other


def test_a_version_may_stand_elsewhere(make_record):
    """The place is a guess: an event that has something else there is looked through."""
    found, _ = kinds()
    for before in ({}, {"shop": "1"}, {"shop": "22"}, {}):
        assert found.of(make_record(**before, schema_version=4))[1] == 4


def test_types_are_never_mixed_up(make_record):
    """Two types with the same version at the same place are two kinds."""
    found, _ = kinds()
    for event_type in ("order.placed", "order.shipped", "order.placed"):
        assert found.of(make_record(event_type, schema_version=1)) == (event_type, 1)


def test_a_property_of_the_same_name_is_none_of_ours(make_record):
    """Only the event's own version counts, wherever the other one stands."""
    found, _ = kinds()
    record = make_record(custom_properties={"schema_version": 7}, schema_version=3)
    without = make_record(custom_properties={"schema_version": 7})
    assert [found.of(each)[1] for each in (record, without)] == [3, None]


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"schema_version":"x"}', b"no json"])
def test_an_event_without_a_version_has_none(make_record, data):
    """What is replayed from elsewhere may have no version, or something else."""
    found, _ = kinds()
    record = msgspec.structs.replace(make_record(), data=data)
    assert [found.of(record)[1] for _ in range(2)] == [None, None]


def test_what_is_remembered_is_bounded(make_record):
    """Types without end, as of a service that makes up names, cost no memory."""
    found, _ = kinds()
    for number in range(2_500):
        found.of(make_record(f"custom.{number}", schema_version=1))
    assert len(found._known) <= 1_000
    assert len(found._places) <= 1_000


def test_what_several_events_are(make_record):
    """All of one kind share what belongs to it; of several kinds, nothing is shared."""
    found, _ = kinds()
    one = [make_record(schema_version=1) for _ in range(3)]
    newer = make_record(schema_version=2)
    longer = make_record(schema_version=1, n=1)
    other = make_record("order.failed", schema_version=1)
    bare = make_record()
    assert found.of_all(one) == ("order.placed", 1)
    assert found.of_all([*one, longer]) == ("order.placed", 1)
    assert found.of_all([bare, bare]) == ("order.placed", None)
    for stranger in (newer, other, bare):
        assert found.of_all([*one, stranger]) is None
        assert found.of_all([stranger, *one]) is None
