"""
Field policies: what must not leave the process as it is. Pure; never raises.

Policies stand on the fields (`bizlog.describe(..., privacy="mask")`) and can be set for
any field by name, custom properties included:

    privacy = {"customer_name" = "hash", "query_text" = "truncate:64", "note" = "drop"}

`keep` takes the value as it is, `drop` removes it, `mask` writes `***`, `truncate:N`
keeps the first N characters (256), `hash` writes a keyed HMAC-SHA256: the same input
gives the same pseudonym as long as the key is the same, so data stays joinable and,
without the key, nameless. The key is the setting `hash_key`; without one it is random
for each process, and pseudonyms join within the process only.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MASKED = "***"
TRUNCATE_CHARACTERS = 256
PSEUDONYM_HEX_DIGITS = 32

_POLICY = re.compile(r"keep|drop|mask|hash|hash_email|truncate(:[1-9]\d{0,5})?")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


class _Drop:
    """Marks a value that a policy removes."""


DROP = _Drop()
Protection: TypeAlias = "Callable[[Any], Any]"


def is_policy(text: str) -> bool:
    """Whether the text is a policy that `Privacy` understands."""
    return _POLICY.fullmatch(text) is not None


class Privacy:
    """
    The policies in force.

    Args:
        overrides: Policy by field name, before the tags on the fields.
        hash_key: Key of the HMAC, at least 16 bytes; random where it is None.
    """

    def __init__(
        self, overrides: Mapping[str, str] | None = None, hash_key: bytes | None = None
    ) -> None:
        self._overrides = dict(overrides or {})
        self._key = hash_key or secrets.token_bytes(32)
        self.hashed_emails = 0

    def protections(self, cls: type[Any]) -> dict[str, Protection]:
        """Resolve tags and overrides for the fields of one event class."""
        chosen = {**_tags(cls), **self._overrides}
        return {
            name: self._protection(policy)
            for name, policy in chosen.items()
            if policy != "keep"
        }

    def _protection(self, policy: str) -> Protection:
        kind, _, limit = policy.partition(":")
        if kind == "truncate":
            return _truncation(int(limit or TRUNCATE_CHARACTERS))
        fixed: dict[str, Protection] = {
            "drop": lambda _: DROP,
            "mask": lambda _: MASKED,
            "hash": self.pseudonym,
            "hash_email": self._pseudonym_of_email,
        }
        return fixed[kind]

    def pseudonym(self, value: object) -> str:
        """Write a value as its keyed HMAC-SHA256, 32 hex digits."""
        text = value if isinstance(value, str) else repr(value)
        digest = hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256")
        return digest.hex()[:PSEUDONYM_HEX_DIGITS]

    def _pseudonym_of_email(self, value: Any) -> Any:
        if isinstance(value, str) and "@" in value and _EMAIL.search(value):
            self.hashed_emails += 1
            return self.pseudonym(value)
        return value


def _truncation(limit: int) -> Protection:
    def truncate(value: Any) -> Any:
        return value[:limit] if isinstance(value, str) else value

    return truncate


def _tags(cls: type[Any]) -> dict[str, str]:
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    found = {field.name: _tag(field.type) for field in info.fields}
    return {name: policy for name, policy in found.items() if policy}


def _tag(field_type: msgspec.inspect.Type) -> str | None:
    if isinstance(field_type, msgspec.inspect.UnionType):
        return next(filter(None, map(_tag, field_type.types)), None)
    if not isinstance(field_type, msgspec.inspect.Metadata):
        return None
    extra = cast("dict[str, Any] | None", field_type.extra)  # pyright: ignore[reportUnknownMemberType]  # a bare dict in msgspec's stub
    return (extra or {}).get("privacy")
