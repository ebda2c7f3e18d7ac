"""The rule that names the partition key of an event."""

from __future__ import annotations

import json

import pytest

from bizlog.exceptions import ConfigurationError
from bizlog.sinks import Record
from bizlog_handlers._keys import DEFAULT_KEY, parse_key_rule


def record(**fields):
    data = json.dumps({"event_type": "order.placed", **fields}).encode()
    return Record(data, "id-1", "order.placed", "2026-11-23T10:15:30.123456Z", 1)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"session_id": "s-1", "user_id": "u-1", "correlation_id": "c-1"}, "s-1"),
        ({"user_id": "u-1", "correlation_id": "c-1"}, "u-1"),
        ({"correlation_id": "c-1"}, "c-1"),
        ({"session_id": None, "user_id": "u-1"}, "u-1"),
        ({"session_id": "", "user_id": "u-1"}, "u-1"),
        ({"session_id": "Zoë"}, "Zoë"),
        ({"order_id": "1"}, None),
    ],
)
def test_the_first_field_that_is_set_is_the_key(fields, key):
    """The default rule takes the session, else the user, else the correlation id."""
    assert parse_key_rule(DEFAULT_KEY)(record(**fields)) == key


def test_names_are_tried_in_the_order_given():
    """The order of the rule decides, not the order of the fields in the event."""
    rule = parse_key_rule(" user_id , session_id ")

    assert rule(record(session_id="s-1", user_id="u-1")) == "u-1"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (0, "0"),
        (42, "42"),
        (True, "true"),
        (["a", 1], '["a",1]'),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_what_is_no_text_is_written_as_json(value, key):
    """A number, even 0, is a key; equal values have equal keys."""
    assert parse_key_rule("shop")(record(shop=value)) == key


def test_a_custom_property_can_be_the_key():
    """Properties without a field of their own are named by their path."""
    rule = parse_key_rule("custom_properties.tenant-id,custom_properties.a.b,user_id")

    assert rule(record(user_id="u", custom_properties={"tenant-id": "t"})) == "t"
    assert rule(record(user_id="u", custom_properties={"a.b": "ab"})) == "ab"
    assert rule(record(user_id="u", custom_properties={"other": 1})) == "u"


@pytest.mark.parametrize(
    "fields", [{}, {"custom_properties": None}, {"custom_properties": 7}]
)
def test_an_event_of_another_form_has_no_key(fields):
    """A rule never raises, whatever was replayed from elsewhere."""
    assert parse_key_rule("custom_properties.tenant")(record(**fields)) is None


def test_what_lies_behind_a_missing_property_is_tried_all_the_same():
    """An event without custom properties is asked for the names that follow."""
    rule = parse_key_rule("custom_properties.tenant,user_id")

    assert rule(record(user_id="u-1")) == "u-1"


def test_damaged_data_have_no_key():
    """A rule never raises, not even where the event is no JSON."""
    damaged = Record(b'{"session_id":', "id-1", "a.b", "", 1)

    assert parse_key_rule(DEFAULT_KEY)(damaged) is None


def test_a_name_may_be_given_twice():
    """A name that is repeated is tried once."""
    assert parse_key_rule("user_id,user_id")(record(user_id="u-1")) == "u-1"


def test_a_fixed_key_is_that_of_every_event():
    """`fixed:TEXT` puts all events into one order; TEXT may hold commas."""
    rule = parse_key_rule("fixed:shop 1, south")

    assert rule(record(session_id="s-1")) == "shop 1, south"


def test_none_means_no_key():
    """`none` leaves it to the destination where an event goes."""
    assert parse_key_rule("none")(record(session_id="s-1")) is None


@pytest.mark.parametrize(
    "text", ["", " ", ",", "user_id,", "fixed:", "user id", "order.id", "a;b"]
)
def test_what_is_no_rule_is_refused(text):
    """The message names the option and says what is allowed."""
    with pytest.raises(ConfigurationError, match="'partition_key': expected names"):
        parse_key_rule(text)
