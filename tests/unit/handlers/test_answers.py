"""Retry-After, as servers write it: seconds, a date, or anything else."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog_handlers._answers import parse_retry_after

NOW = datetime(2026, 11, 23, 10, 15, 30, tzinfo=UTC).timestamp()
MOMENTS = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 12, 30))  # noqa: DTZ001  # UTC is set below


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("+3", 3.0),
        ("-3", 0.0),
        ("9" * 400, 1e12),
        ("9" * 5000, 1e12),
        ("Mon, 23 Nov 2026 10:16:00 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:16:00 +0100", 30.0),
        ("Monday, 23-Nov-26 10:16:00 GMT", 30.0),
        ("Mon Nov 23 10:16:00 2026", 30.0),
        ("Mon, 23 Nov 2026 10:15:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251606871869.0),
        ("", None),
        ("soon", None),
        ("12 s", None),
        ("1e3", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("\u0663", None),
        ("9" * 6000, None),
        ("Mon, 99 Nov 2026 10:16:00 GMT", None),
        ("Mon, 23 Nov 99999 10:16:00 GMT", None),
        ("Mon, 23 Nov 2026 10:16:00 +999999999", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_seconds_dates_and_garbage(text, seconds):
    """RFC 9110's two forms are read, old dates included; garbage is None."""
    assert parse_retry_after(text, NOW) == seconds


def test_a_date_without_a_zone_is_utc(monkeypatch):
    """Where this machine stands plays no part."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for zone in ("", " -0000", " GMT"):
            text = f"Mon, 23 Nov 2026 10:16:00{zone}"
            assert parse_retry_after(text, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    text=st.text() | st.text("0123456789+-:, .GMTNovMon\x00\u00b2"),
    now=st.floats(0, 1e12),
)
def test_any_text_is_read_without_an_error(text, now):
    """Whatever a server writes: None, or a finite number of seconds that can pass."""
    seconds = parse_retry_after(text, now)

    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 1e12)


@given(seconds=st.integers(0, 10**12))
def test_seconds_are_kept(seconds):
    """A number of seconds means itself."""
    assert parse_retry_after(str(seconds), NOW) == seconds


@given(moment=MOMENTS)
def test_dates_are_kept(moment):
    """A date means the seconds until then, of any year; the past is now."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)

    seconds = parse_retry_after(format_datetime(moment, usegmt=True), NOW)

    assert seconds == max(0.0, moment.timestamp() - NOW)
