"""
Which partition an event belongs to: the rule that names its key. Pure, never raises.

Events of one key keep their order, because a destination with partitions keeps the
order of each. A rule is a text, so that it fits into a URL:

    session_id,user_id,correlation_id   the first of these fields that is set
    custom_properties.tenant            a property without a field of its own
    fixed:TEXT                          always TEXT: one partition, one order for all
    none                                no key: the events are spread

A key costs one decoding of the named fields alone (0.4 µs for an event of 300 bytes).
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bizlog.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bizlog.sinks import Record

DEFAULT_KEY = "session_id,user_id,correlation_id"

_FIXED = "fixed:"
_NESTED = "custom_properties"
_NAME = re.compile(rf"\w+|{_NESTED}\.[^,]+")

_ALLOWED = (
    "expected names of event fields in the order they are tried, such as "
    f"'{DEFAULT_KEY}' or '{_NESTED}.tenant', or 'fixed:TEXT', or 'none'"
)


class KeyRule(Protocol):
    """Names the partition key of an event."""

    def __call__(self, record: Record) -> str | None:
        """Return the key; None where the event has none."""
        ...


def parse_key_rule(text: str) -> KeyRule:
    """
    Read a rule.

    A value that is no text is written as JSON; an empty one counts as not set.

    Args:
        text: As described above; blanks around names do not count.

    Raises:
        ConfigurationError: The text is no rule; says what is allowed.
    """
    text = text.strip()
    if text == "none":
        return _no_key
    if text.startswith(_FIXED) and text != _FIXED:
        return _Fixed(text.removeprefix(_FIXED))
    names = [name.strip() for name in text.split(",")]
    if not all(map(_NAME.fullmatch, names)):
        raise ConfigurationError(f"option 'partition_key': {_ALLOWED}; got {text!r}")
    return _first_of(list(dict.fromkeys(names)))


def _no_key(record: Record) -> None:  # noqa: ARG001  # the signature of a rule
    return None


class _Fixed:
    """The same key for every event."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, record: Record) -> str:  # noqa: ARG002  # as above
        return self._key


def _first_of(names: Sequence[str]) -> KeyRule:
    """Make a rule that takes the first of some fields that is set."""
    decode = msgspec.json.Decoder(_layout_of(names)).decode
    first, *others = [_reader_of(index, name) for index, name in enumerate(names)]

    # The path of every event: a closure is 0.1 µs less than an object that is called.
    def key_of(record: Record) -> str | None:
        try:
            fields = decode(record.data)
        except msgspec.MsgspecError:
            return None  # what is replayed from elsewhere may have another form
        value = first(fields)
        if value and type(value) is str:
            return value
        values = (value, *(read(fields) for read in others))
        return next((_as_text(each) for each in values if _is_set(each)), None)

    return key_of


def _is_set(value: Any) -> bool:
    return value is not None and value != ""  # 0 is set


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _layout_of(names: Sequence[str]) -> type[msgspec.Struct]:
    """Make a class that knows these fields alone: all others are skipped unread."""
    own: dict[str, str] = {}
    nested: dict[str, str] = {}
    for index, name in enumerate(names):
        family, _, inner = name.partition(".")
        if inner:
            nested[f"f{index}"] = inner
        else:
            own[f"f{index}"] = family
    if not nested:
        return _struct(own)
    return _struct(own, nested=_struct(nested))


def _struct(
    fields: dict[str, str], nested: type[msgspec.Struct] | None = None
) -> type[msgspec.Struct]:
    # Fields are named by number: a key of JSON need not be a name of Python.
    kinds: list[tuple[str, Any, Any]] = [(field, Any, None) for field in fields]
    if nested is not None:
        kinds.append((_NESTED, nested, nested()))
    return msgspec.defstruct("KeyFields", kinds, rename=fields, frozen=True, gc=False)


def _reader_of(index: int, name: str) -> Callable[[Any], Any]:
    nested = "." in name
    return attrgetter(f"{_NESTED}.f{index}" if nested else f"f{index}")
