"""
What an HTTP answer means for the batch that was posted. No I/O, no clock.

An answer accepts, names single events that are refused or wanted again, or becomes one
of the sink errors. What may be mended from outside while events wait (an address, a
key, a server that is down) is to be sent again; what lies in the events is not.

Reasons name the status and quote what the server says about it: one bounded line,
without the key, without values of the events.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import msgspec
import orjson

from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
    SinkError,
)
from bizlog.sinks import ACCEPTED, Rejection, SendResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bizlog.sinks import Record

_MULTI_STATUS = 207
_TOO_LARGE = 413

# Answers below 500 that say nothing about the events themselves.
_MENDABLE = {
    401: "check the API key: api_key, api_key_file or BIZLOG_API_KEY",
    403: "check the API key: api_key, api_key_file or BIZLOG_API_KEY",
    404: "check the address: url",
    405: "check the address: url",
    407: "check the proxy: HTTPS_PROXY, HTTP_PROXY or NO_PROXY",
    408: "",
    425: "",
    429: "",
}
_HINTS = {415: "check the settings format and compression"}

# Characters of a server's words that are read, and that are kept.
_MAX_READ = 4096
_MAX_EXCERPT = 200
# Where servers say what is wrong; `title` and `detail` are those of RFC 9457.
_REASON_FIELDS = ("reason", "detail", "message", "error_description", "error", "title")
# As in {"error": {"message": ...}}.
_DEEPEST_REASON = 3

# Seconds of a Retry-After: no pause is longer than thirty thousand years.
_LONGEST_PAUSE = 1e12
_SECONDS = re.compile(r"[+-]?\d{1,5000}(?:\.\d{1,5000})?", re.ASCII)
_MAX_DATE = 100

# Fields that name what an event is, not whom it is about.
_NAMES_OF_EVENTS = frozenset(
    {"event_type", "event_source", "environment", "service_version", "schema_version"}
)
# A shorter text stands in too many other words.
_MIN_VALUE = 3


class Answer(msgspec.Struct, frozen=True):
    """
    What a server answered, as far as it was read.

    Attributes:
        status: The HTTP status code.
        body: The body; None when it was cut or is longer than what is read.
        pause: Seconds that Retry-After asked to wait.
        location: Where a redirect points.
    """

    status: int
    body: bytes | None
    pause: float | None = None
    location: str | None = None


class _Result(msgspec.Struct, frozen=True):
    """What became of one event, in DESIGN's batch answer."""

    index: int
    status: str
    reason: str | None = None
    path: str | None = None


class _BatchAnswer(msgspec.Struct, frozen=True):
    results: list[_Result]
    accepted: int = 0


_decode = msgspec.json.Decoder(_BatchAnswer).decode


def parse_retry_after(text: str, now: float) -> float | None:
    """
    Read a Retry-After header (RFC 9110 section 10.2.3); never raises.

    Args:
        text: Seconds or an HTTP date.
        now: The time now, in seconds since 1970.

    Returns:
        Seconds from now, at least 0.0 and always finite; None for anything else.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(max(0.0, float(text)), _LONGEST_PAUSE)
    try:
        moment = parsedate_to_datetime(text[:_MAX_DATE])
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        pause = moment.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
    return min(max(0.0, pause), _LONGEST_PAUSE)


def result_of(answer: Answer, records: Sequence[Record], secret: str) -> SendResult:
    """
    Say what became of a batch.

    Args:
        answer: What the server answered.
        records: The events that were posted.
        secret: The API key, which servers may quote; empty without one.

    Raises:
        BatchTooLargeError: A smaller batch may be taken (413).
        PermanentSinkError: The batch is refused for good.
        RetryableSinkError: It may be sent again, or nobody can say what became of it.
    """
    if not 200 <= answer.status < 300:  # noqa: PLR2004  # the class of success
        raise _refusal(answer, _Quotation(records, secret))
    if answer.status != _MULTI_STATUS:
        return ACCEPTED
    results = _results(answer, len(records))
    if results is None:
        raise RetryableSinkError(
            "the server answered 207 without results that can be read", answer.pause
        )
    return _sorted_out(results, answer.pause, records, secret)


def _results(answer: Answer, events: int) -> list[_Result] | None:
    """Read results by event; those that are only counted are accepted."""
    if answer.body is None:
        return None
    try:
        read = _decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if any(not 0 <= result.index < events for result in read.results):
        return None
    unnamed = set(range(events)).difference(result.index for result in read.results)
    if len(unnamed) <= read.accepted:
        return read.results
    reason = "the server did not say what became of it"
    return [*read.results, *(_Result(at, "retry", reason) for at in sorted(unnamed))]


def _sorted_out(
    results: list[_Result],
    pause: float | None,
    records: Sequence[Record],
    secret: str,
) -> SendResult:
    rejected: dict[int, Rejection] = {}
    retry: dict[int, str] = {}
    for result in results:
        index = result.index
        quote = _Quotation(records[index : index + 1], secret)
        if result.status == "rejected":
            reason = quote(result.reason) or "the server gave no reason"
            path = _shortened(_one_line(result.path)) or None
            rejected[index] = Rejection(index, reason, path)
        elif result.status not in {"accepted", "duplicate"}:
            retry[index] = quote(result.reason) or "the server wants it again"
    if not rejected and not retry:
        return ACCEPTED
    return SendResult(
        tuple(rejected[index] for index in sorted(rejected.keys() - retry.keys())),
        tuple(sorted(retry)),
        pause if retry else None,
        next(iter(retry.values()), None),
    )


def _refusal(answer: Answer, quote: _Quotation) -> SinkError:
    status = answer.status
    reason = f"the server answered {status}"
    if said := quote(_said(answer.body)):
        reason = f"{reason}: {said}"
    if hint := _MENDABLE.get(status) or _HINTS.get(status) or _elsewhere(answer):
        reason = f"{reason} ({hint})"
    if status == _TOO_LARGE:
        return BatchTooLargeError(reason)
    if 400 <= status < 500 and status not in _MENDABLE:  # noqa: PLR2004  # its class
        return PermanentSinkError(reason)
    return RetryableSinkError(reason, answer.pause)


def _elsewhere(answer: Answer) -> str:
    """Name where a redirect points, as far as that can be no secret."""
    if not 300 <= answer.status < 400:  # noqa: PLR2004  # the class of redirects
        return ""
    try:
        host = urlsplit(answer.location or "").hostname
    except ValueError:
        host = None
    to = f" to {host[:_MAX_EXCERPT]}" if host else ""
    return f"a redirect{to}, which is not followed: name the new address as url"


def _said(body: bytes | None) -> str | None:
    """Find the server's words in a JSON object; other bodies are not for people."""
    try:
        answer = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
    return next(_texts(answer, _DEEPEST_REASON), None)


def _texts(answer: Any, depth: int) -> Iterator[str]:
    if not depth or not isinstance(answer, dict):
        return
    fields = cast("dict[str, Any]", answer)
    for name in _REASON_FIELDS:
        said = fields.get(name)
        if isinstance(said, str) and said.strip():
            yield said
        yield from _texts(said, depth - 1)


class _Quotation:
    """
    Quotes a server without what it may have quoted itself.

    Args:
        records: The events whose values are left out.
        secret: The API key; empty without one.
    """

    def __init__(self, records: Sequence[Record], secret: str) -> None:
        self._records = records
        self._secret = secret

    def __call__(self, text: str | None) -> str:
        """Make one line of bounded length; empty when there is nothing to say."""
        line = _one_line(text)
        if self._secret:
            line = line.replace(self._secret, "[token]")
        return _shortened(self._without_values(line) if line else line)

    def _without_values(self, line: str) -> str:
        events = (record.event for record in self._records)
        values = {value for event in events for value in _values(event)}
        found = (value for value in values if value in line)
        for value in sorted(found, key=len, reverse=True):
            # Whole words: the value `order` leaves the field `order_id` readable.
            line = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "[value]", line)
        return line


def _one_line(text: str | None) -> str:
    """Leave out what is not for the eye: line ends, controls, turns of direction."""
    line = " ".join((text or "")[:_MAX_READ].split())
    return "".join(filter(str.isprintable, line))


def _shortened(line: str) -> str:
    if len(line) <= _MAX_EXCERPT:
        return line
    # Not within a word: half a token is not known for what it is.
    return f"{line[:_MAX_EXCERPT].rpartition(' ')[0]} ..".lstrip()


def _values(value: Any, name: str = "") -> Iterator[str]:
    """Go through the texts and numbers of an event that may not be told."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _values(inner, key)
    elif isinstance(value, list):
        for inner in cast("Iterable[Any]", value):
            yield from _values(inner, name)
    elif name not in _NAMES_OF_EVENTS and not isinstance(value, bool | None):
        text = " ".join(str(value).split())
        if len(text) >= _MIN_VALUE:
            yield text
