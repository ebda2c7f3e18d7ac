"""Words for messages: the nearest name, types instead of values, one bounded line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from bizlog._wording import describe_error, suggest, validation_reason

NAMES = ["order.placed", "order.returned", "product.viewed"]


class Inner(msgspec.Struct):
    amount: int | None = None


class Outer(msgspec.Struct):
    status: Literal["new", "paid"] | None = None
    items: list[Inner] | None = None
    code: Annotated[str, msgspec.Meta(max_length=3)] | None = None
    anything: Any = None


def refused(**fields):
    """Have msgspec refuse these fields, and read its message."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(fields, Outer)
    return validation_reason(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("order.plcaed", "order.placed"),
        ("order.place", "order.placed"),
        ("orders.returned", "order.returned"),
        ("produkt.viewed", "product.viewed"),
    ],
)
def test_the_nearest_known_name_is_suggested(name, nearest):
    """The words follow on a sentence that said what is wrong."""
    assert suggest(name, NAMES) == f"; did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("name", "known"), [("zzz", NAMES), ("invoice.sent", NAMES), ("", NAMES), ("a", [])]
)
def test_nothing_is_suggested_where_nothing_is_near(name, known):
    """A far-fetched guess would mislead."""
    assert suggest(name, known) == ""


def test_known_names_may_come_from_anywhere():
    """Keys of a dictionary and generators serve as well as lists."""
    assert "'file'" in suggest("fiel", {"file": 1, "null": 2})
    assert "'file'" in suggest("fiel", (name for name in ("file", "null")))


def test_a_refusal_is_split_into_reason_and_path():
    """What was expected and found, and where, each for itself."""
    assert refused(items=[{"amount": 1}, {"amount": "two"}]) == (
        "Expected `int | null`, got `str`",
        "$.items[1].amount",
    )


def test_a_refusal_of_the_whole_has_no_path():
    """At the top there is nothing to name."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert("five", int)

    assert validation_reason(caught.value) == ("Expected `int`, got `str`", None)


def test_a_bound_is_told():
    """What the value should have kept to is no secret."""
    reason, path = refused(code="secret")

    assert (reason, path) == ("Expected `str` of length <= 3", "$.code")


@pytest.mark.parametrize("value", ["secret", "se\ncret", "it's", "a 'secret' b"])
def test_a_quoted_value_is_cut(value):
    """Where msgspec repeats the value it refuses, we do not."""
    reason, path = refused(status=value)

    assert reason.startswith("Invalid enum value")
    assert value not in reason
    assert path == "$.status"


def test_an_error_is_its_class_and_its_message():
    """The system's own words are kept: they say what to do."""
    assert describe_error(OSError(28, "No space left on device")) == (
        "OSError: [Errno 28] No space left on device"
    )


@pytest.mark.parametrize("error", [ValueError(), ValueError(""), ValueError(" \n ")])
def test_an_error_without_a_message_is_its_class(error):
    """No colon dangles behind a class that says nothing more."""
    assert describe_error(error) == "ValueError"


def test_a_message_becomes_one_line():
    """Line ends and runs of blanks would break the line it is put in."""
    assert describe_error(ValueError("one\n  two\r\n\tthree")) == (
        "ValueError: one two three"
    )


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_message_is_bounded(size):
    """A destination's page of text does not become ours, but its start does."""
    text = describe_error(ValueError("the start " + "word " * size))

    assert text.startswith("ValueError: the start word")
    assert len(text) <= 400


def test_an_interrupt_can_be_described():
    """What ends a process is described like any other error."""
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_an_error_that_cannot_be_read_is_its_class():
    """Describing a fault is never a second one."""

    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    assert describe_error(Odd()) == "Odd"


def test_what_is_personal_in_foreign_words_is_taken_out():
    """A destination that echoes the event does not bring it into our logs."""
    text = describe_error(ValueError("409: jane@example.com exists"))

    assert "jane@example.com" not in text
    assert "409" in text
