"""Points in time as people write them, as the text that events carry. Pure."""

from __future__ import annotations

import datetime as dt
import re

from bizlog.cli.errors import CommandError

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhdw])(?:\s+ago)?")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

# As bizlog writes it: 27 characters, whose order is that of time.
_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def parse_moment(option: str, text: str, now: dt.datetime) -> str:
    """
    Read a date, a time or how long ago.

    Args:
        option: The option it was given for, for the message.
        text: RFC 3339, UTC where it names no offset; or `90s`, `2h`, `3d` ago.
        now: The present.

    Returns:
        The time in UTC, RFC 3339 with microseconds.

    Raises:
        CommandError: It is none of these.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            seconds = float(ago[1]) * _SECONDS[ago[2]]
            return write_moment(now - dt.timedelta(seconds=seconds))
        return write_moment(dt.datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option} {text!r}: expected a date (2026-11-23), a time "
            "(2026-11-23T10:15:00Z) or how long ago (90s, 30m, 2h, 3d, 1w)"
        ) from None


def write_moment(moment: dt.datetime) -> str:
    """Write a time as events carry it; without an offset it is UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def comparable(event_time: str) -> str | None:
    """Write an event's time so that texts compare as times; None where it is none."""
    if _OURS.fullmatch(event_time):
        return event_time
    try:
        return write_moment(dt.datetime.fromisoformat(event_time))
    except (ValueError, OverflowError):
        return None
