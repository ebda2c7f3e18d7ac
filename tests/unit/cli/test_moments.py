"""Points in time as people write them."""

from __future__ import annotations

import datetime as dt

import pytest

from bizlog.cli.errors import CommandError
from bizlog.cli.moments import comparable, parse_moment

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
        ("2026-11-20T10:15:30Z", "2026-11-20T10:15:30.000000Z"),
        ("2026-11-20T10:15:30.5", "2026-11-20T10:15:30.500000Z"),
        ("2026-11-20T10:15:30+02:00", "2026-11-20T08:15:30.000000Z"),
        ("90s", "2026-11-23T11:58:30.000000Z"),
        ("30m", "2026-11-23T11:30:00.000000Z"),
        ("2h ago", "2026-11-23T10:00:00.000000Z"),
        ("1.5h", "2026-11-23T10:30:00.000000Z"),
        (" 3d ", "2026-11-20T12:00:00.000000Z"),
        ("1w", "2026-11-16T12:00:00.000000Z"),
    ],
)
def test_dates_times_and_how_long_ago(text, expected):
    """All become the text that events carry; without an offset it is UTC."""
    assert parse_moment("--from", text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-13-01",
        "3y",
        "-2h",
        "999999999w",
        "0001-01-01T00:00+23:00",
    ],
)
def test_anything_else_is_an_error_that_shows_the_forms(text):
    """The message names the option, what it got and what it takes."""
    with pytest.raises(CommandError, match=r"--from .*expected a date .*2h"):
        parse_moment("--from", text, NOW)


@pytest.mark.parametrize(
    ("event_time", "expected"),
    [
        ("2026-11-20T10:15:30.123456Z", "2026-11-20T10:15:30.123456Z"),
        ("2026-11-20T10:15:30Z", "2026-11-20T10:15:30.000000Z"),
        ("2026-11-20T10:15:30.5+02:00", "2026-11-20T08:15:30.500000Z"),
        ("soon", None),
        ("9999-12-31T23:59:59-23:00", None),
    ],
)
def test_times_of_other_programs_compare_with_ours(event_time, expected):
    """Whatever offset and precision: text that sorts as time does; or none."""
    assert comparable(event_time) == expected
