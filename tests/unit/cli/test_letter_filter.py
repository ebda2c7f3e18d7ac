"""Which dead letters a filter takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bizlog.cli.entries import Place, read_entry
from bizlog.cli.letter_filter import LetterFilter, add_filters

PLACE = Place(Path("x"), 1)


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ([], True),
        (["--from-sink", "http"], True),
        (["--from-sink", "file"], False),
        (["--from-sink", "none"], False),
        (["--reason", "503"], True),
        (["--reason", "http 5"], True),
        (["--reason", "504"], False),
        (["--type", "order.*"], True),
        (["--type", "product.*"], False),
        (["--event-id", "0193a6a0-0000-7000-8000-000000000001"], True),
        (["--event-id", "a", "--event-id", "b"], False),
        (["--reason", "503", "--type", "product.*"], False),
    ],
)
def test_all_that_is_asked_for_must_hold(make_event, make_letter, words, taken):
    """Sink, a text in the reason, type pattern, ids: together."""
    parser = argparse.ArgumentParser()
    add_filters(parser)
    letter_filter = LetterFilter(parser.parse_args(words))
    entry = read_entry(make_letter(make_event(1)), PLACE)
    assert letter_filter.takes(entry) is taken


def test_letters_without_a_sink_or_type(make_event, make_letter):
    """'none' takes what was never accepted; a pattern takes no nameless event."""
    parser = argparse.ArgumentParser()
    add_filters(parser)
    entry = read_entry(make_letter(make_event(1, ""), sink=None), PLACE)
    assert LetterFilter(parser.parse_args(["--from-sink", "none"])).takes(entry)
    assert not LetterFilter(parser.parse_args(["--type", "a*"])).takes(entry)


def test_only_letters_are_taken(make_event):
    """An event or a broken line in the folder is never taken, whatever is asked for."""
    parser = argparse.ArgumentParser()
    add_filters(parser)
    letter_filter = LetterFilter(parser.parse_args([]))
    assert not letter_filter.takes(read_entry(make_event(1), PLACE))
    assert not letter_filter.takes(read_entry(b"", PLACE))
