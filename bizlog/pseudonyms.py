"""
Pseudonyms: any value as a keyed HMAC-SHA256. Pure; never raises.

The same value gives the same pseudonym wherever the key is the same: text as it is, a
number as its digits, a UUID as it is written, anything else as canonical JSON. A key
can be replaced by a newer one; with the older ones kept, what they wrote is still
found.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

HEX_DIGITS = 32

# An enum's value may be a member of another enum.
_MAX_ENUMS = 4


def is_key_id(text: str) -> bool:
    """Whether a text can be the id of a key."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text) is not None


class HashKeys:
    """
    The keys of the pseudonyms by id; the last one is in force. Never shown.

    Args:
        keys: Key by id, at least one. An id is written before the pseudonyms of its
            key (`2026.5f1c...`); the empty one, of a key without a name, is not.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self._current = next(reversed(self._keys))

    def __repr__(self) -> str:
        return f"<{len(self._keys)} hash keys>"

    def pseudonym(self, text: str) -> str:
        """Write a text as its HMAC-SHA256 under the key in force."""
        return self._write(self._current, text)

    def pseudonyms(self, text: str) -> dict[str, str]:
        """Write a text as its HMAC-SHA256 under each key."""
        return {key_id: self._write(key_id, text) for key_id in self._keys}

    def _write(self, key_id: str, text: str) -> str:
        import hmac  # noqa: PLC0415  # 2 ms that `import bizlog` need not take

        data = text.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._keys[key_id], data, "sha256").hex()
        prefix = f"{key_id}." if key_id else ""
        return prefix + digest[:HEX_DIGITS]


def text_of(value: Any) -> str | None:
    """Find the text that a value is: text, a subclass of it, the value of an enum."""
    value = unwrapped(value)
    return str.__str__(value) if issubclass(type(value), str) else None


def unwrapped(value: Any) -> Any:
    """Take a member of an enum for its value."""
    for _ in range(_MAX_ENUMS):
        if issubclass(type(value), enum.Enum):
            value = quietly(lambda member: member.value, value)
    return value


def marker(value: object) -> str:
    """Name a value by its type: `<list>`."""
    # A metaclass may do anything; type's own descriptor does not ask it.
    return f"<{type.__dict__['__name__'].__get__(type(value))}>"


def quietly(call: Callable[[Any], Any], value: Any) -> Any:
    """
    Look at a value with code that may run its own methods, which may do anything.

    Whatever they raise gives the marker. KeyboardInterrupt and SystemExit pass: they
    are meant for the process.
    """
    try:
        return call(value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # a value's own methods
        return marker(value)


def canonical(value: Any) -> str:
    """Write a value as text that is the same in every process."""
    text = text_of(value)
    return cast("str", quietly(_json, unwrapped(value))) if text is None else text


def _json(value: Any) -> str:
    text = _encode(value).decode()
    return text[1:-1] if text.startswith('"') else text


def _stand_in(value: Any) -> Any:
    """Find what is written for a value that has no JSON of its own."""
    kind = cast("type[Any]", type(value))
    text = text_of(value)
    if text is not None:
        return text
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, Mapping):
        return dict(value)
    if hasattr(kind, "__next__"):
        return marker(value)  # only looking would use it up
    return _own_words(value)


def _own_words(value: Any) -> str:
    text = str(value)
    # An address is another one in the next process.
    return marker(value) if " at 0x" in text else str.__str__(text)


_encode = msgspec.json.Encoder(enc_hook=_stand_in, order="deterministic").encode
