"""Which events a query takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bizlog.cli.entries import Place, read_entry
from bizlog.cli.errors import CommandError
from bizlog.cli.selection import Query, Selection, add_query, query_of


@pytest.fixture
def record(make_event):
    """Make a record."""

    def make(number=1, event_type="order.placed", **fields):
        line = make_event(number, event_type, **fields)
        return read_entry(line, Place(Path("x"), 1)).record

    return make


def parse(*words):
    """Read options as the command line does."""
    parser = argparse.ArgumentParser()
    add_query(parser)
    return query_of(parser.parse_args(words))


def test_without_options_it_takes_everything(record):
    """An empty query asks for all events, as often as they come."""
    query = parse()
    assert query == Query()
    selection = Selection(query)
    assert selection.takes(record())
    assert selection.is_new(record())
    assert selection.is_new(record())


@pytest.mark.parametrize(
    ("types", "taken"),
    [
        (["order.*"], True),
        (["order.placed"], True),
        (["product.*", "*.placed"], True),
        (["order"], False),
        (["ORDER.*"], False),
    ],
)
def test_types_are_names_or_patterns(record, types, taken):
    """Any of several; capitals matter, as in the names themselves."""
    words = [word for name in types for word in ("--type", name)]
    assert Selection(parse(*words)).takes(record()) is taken


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["--from", "2026-11-23"], True),
        (["--from", "2026-11-23T10:00:01Z"], True),
        (["--from", "2026-11-23T10:00:01.5Z"], False),
        (["--to", "2026-11-23T10:00:01Z"], False),
        (["--to", "2026-11-23T10:00:02Z"], True),
        (["--to", "2026-11-23"], False),
        (["--from", "2026-11-23", "--to", "2026-11-24"], True),
    ],
)
def test_time_begins_at_from_and_ends_before_to(record, words, taken):
    """A day is from its date to the next one."""
    assert Selection(parse(*words)).takes(record(1)) is taken


def test_an_event_without_a_readable_time_is_in_no_period(record):
    """Where time matters, what has none is left out; else it is taken."""
    odd = record(event_time="soon")
    assert not Selection(parse("--from", "2020-01-01")).takes(odd)
    assert Selection(parse()).takes(odd)


def test_conditions_and_types_together(record):
    """Everything that is asked for must hold."""
    selection = Selection(parse("--type", "order.*", "--where", "order_total > 5"))
    assert selection.takes(record(order_total=6))
    assert not selection.takes(record(order_total=5))
    assert not selection.takes(record(event_type="product.viewed", order_total=6))


def test_unique_takes_each_id_once(record):
    """The second one with the same id is left out."""
    selection = Selection(parse("--unique"))
    assert [selection.is_new(record(n)) for n in (1, 2, 1)] == [True, True, False]


@pytest.mark.parametrize(
    "words", [["--from", "x"], ["--to", "x"], ["--where", "len(x)"]]
)
def test_faults_are_told_before_anything_is_read(words):
    """A time or condition that cannot be understood is an error at once."""
    with pytest.raises(CommandError, match=words[0]):
        parse(*words)
