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

The tags of the CDM types hold for properties of the same name everywhere: a
`customer_name` is masked on a `shipment.created`, too. What no policy names can be
searched for e-mail addresses, card numbers and tokens (`detectors`), or be left out
unless it stands on a list (`allow`).
"""

from __future__ import annotations

import numbers
import re
import uuid
from collections.abc import Mapping
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from bizlog import _tags
from bizlog.pseudonyms import HashKeys, canonical, marker, quietly, text_of, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bizlog._detectors import Detector

MASKED = "***"
TRUNCATE_CHARACTERS = 256

# Compiled at first use, as all patterns here: an import compiles none.
_POLICY = r"keep|drop|mask|hash|hash_email|truncate(:[1-9]\d{0,5})?"
_EMAIL_LIKE = r"[^\s@]@[^\s@]+\.[^\s@]"

# Policies by name are applied there when its values become plain data.
_WALKED = frozenset({"custom_properties"})

# Deeper than anything a class for events would hold.
MAX_DEPTH = 32


class _Drop:
    """Marks a value that a policy removes."""


DROP = _Drop()
Protection: TypeAlias = "Callable[[Any], Any]"


def _detectors_of(kinds: Iterable[str]) -> list[Detector]:
    chosen = frozenset(kinds)
    if not chosen:
        return []
    from bizlog._detectors import DETECTORS  # noqa: PLC0415  # only where one is on

    return [DETECTORS[kind] for kind in DETECTORS if kind in chosen]


def _random_key() -> bytes:
    import secrets  # noqa: PLC0415  # 2 ms that `import bizlog` need not take

    return secrets.token_bytes(32)


def is_policy(text: str) -> bool:
    """Whether the text is a policy that `Privacy` understands."""
    return re.fullmatch(_POLICY, text) is not None


def is_id(name: str) -> bool:
    """Whether a property of this name is an id, which no detector may touch."""
    return name == "id" or name.endswith("_id")


class Privacy:
    """
    The policies in force.

    Args:
        overrides: Policy by field name, before the tags on the fields.
        hash_key: Key of the pseudonyms, at least 16 bytes, or several of them by id;
            random where it is None.
        named: Classes whose tags hold for properties of the same name everywhere.
        detectors: Kinds of findings to mask where no policy applies: `email`, `card`,
            `token`.
        allow: Names of the custom properties that may pass; None lets all pass.

    Attributes:
        detect: Masks findings in a text; None where no detector is on.
        allowed: Names of the custom properties that may pass; None where all may.
        hashed_emails: How many ids looked like e-mail addresses and were hashed.
        detected: How many findings were masked.
        removed: How many custom properties were not on the list.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        hash_key: bytes | HashKeys | None = None,
        *,
        named: Iterable[type[Any]] = (),
        detectors: Iterable[str] = (),
        allow: Iterable[str] | None = None,
    ) -> None:
        self._overrides = dict(overrides or {})
        if not isinstance(hash_key, HashKeys):
            hash_key = HashKeys({"": hash_key or _random_key()})
        self._keys = hash_key
        self._named = {
            name: policy
            for cls in named
            for name, policy in _tags.read(cls).policies.items()
        }
        self._detectors = _detectors_of(detectors)
        self._made: dict[str, Protection] = {}
        self.detect = self._detect if self._detectors else None
        self.allowed = None if allow is None else frozenset(allow)
        self.hashed_emails = 0
        self.detected = 0
        self.removed = 0

    def allows(self, name: str) -> bool:
        """Whether a custom property of this name may pass."""
        return self.allowed is None or name in self.allowed

    def protections(self, cls: type[Any]) -> dict[str, Protection]:
        """
        Resolve the policies for the events of one class, by field name.

        Tags that hold everywhere come first; the class's own, then the settings,
        override them. Where a field's type holds no text, a value is removed instead
        of being replaced by one, so that the event keeps to its schema.
        """
        tags = _tags.read(cls)
        chosen = {**self._named, **tags.policies, **self._overrides}
        found = self._resolve(chosen, tags.textless)
        for name in (tags.open | tags.inside.keys()) - chosen.keys() - _WALKED:
            inner = tags.inside.get(name, _tags.NONE)
            is_open = name in tags.open or bool(inner.open)
            within = self._within(inner, whole=is_open)
            # Where anything may stand, no one can say which key is no field.
            known = None if is_open or self.allowed is None else inner.fields
            if within or known:
                found[name] = _Inside(within, partial(self._permits, known))
        return found

    def _permits(self, known: frozenset[str] | None, key: Any) -> bool:
        """Whether a key inside a field may pass: it is known, or on the list."""
        passes = known is None or key in known or self.allows(key)
        self.removed += not passes
        return passes

    def _within(self, inner: _tags.Tags, *, whole: bool) -> dict[str, Protection]:
        """Resolve the policies for what a field holds; `whole` takes any name."""
        chosen = {**self._named, **inner.policies, **self._overrides}
        if not whole:
            chosen = {name: chosen[name] for name in chosen.keys() & inner.fields}
        return self._resolve(chosen, inner.textless)

    def _resolve(
        self, policies: Mapping[str, str], textless: frozenset[str]
    ) -> dict[str, Protection]:
        found = {
            name: self._protection(policy)
            for name, policy in policies.items()
            if policy != "keep"
        }
        return {
            name: _same_or_drop(protection) if name in textless else protection
            for name, protection in found.items()
        }

    def _protection(self, policy: str) -> Protection:
        # One object for each policy: what is alike is known by it.
        made = self._made.get(policy)
        return made or self._made.setdefault(policy, self._make(policy))

    def _make(self, policy: str) -> Protection:
        if not is_policy(policy):
            return _mask  # a tag with a slip of the pen
        kind, _, limit = policy.partition(":")
        if kind == "truncate":
            return _Truncation(int(limit or TRUNCATE_CHARACTERS))
        fixed: dict[str, Protection] = {
            "drop": lambda _: DROP,
            "mask": _mask,
            "hash": self._hash,
            "hash_email": self._hash_email,
        }
        return fixed[kind]

    def pseudonym(self, value: object) -> str:
        """
        Write a value as its keyed HMAC-SHA256, 32 hex digits after the key's id.

        What is no text is written as one that is the same in every process; what cannot
        be read has the pseudonym of its type's name.
        """
        return self._keys.pseudonym(canonical(value))

    def pseudonyms(self, value: object) -> dict[str, str]:
        """Write a value as its pseudonym under each key, by the key's id."""
        return self._keys.pseudonyms(canonical(value))

    def _hash(self, value: Any) -> Any:
        return None if value is None else self.pseudonym(value)

    def _hash_email(self, value: Any) -> Any:
        text = value if type(value) is str else text_of(value)
        if text is None:
            return _number_or_marker(value)
        if "@" in text and re.search(_EMAIL_LIKE, text):
            self.hashed_emails += 1
            return self.pseudonym(text)
        return text

    def _detect(self, text: str) -> str:
        from bizlog._detectors import mask  # noqa: PLC0415  # only where one is on

        masked, found = mask(text, self._detectors)
        self.detected += found
        return masked


# Policies


def _mask(value: Any) -> Any:
    return None if value is None else MASKED


class _Truncation:
    """
    Keeps the first characters of a text.

    Args:
        max_length: How many.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def __call__(self, value: Any) -> Any:
        text = value if type(value) is str else text_of(value)
        return _number_or_marker(value) if text is None else text[: self.max_length]


class _Inside:
    """
    Applies policies by name at any depth of a value; what is too deep is named.

    Args:
        protections: Policy by the name of a field or key.
        permits: Whether a key may pass.
    """

    def __init__(
        self, protections: Mapping[str, Protection], permits: Callable[[Any], bool]
    ) -> None:
        self._protections = protections
        self._permits = permits

    def __call__(self, value: Any) -> Any:
        return quietly(lambda it: self._walk(it, MAX_DEPTH), value)

    def _walk(self, value: Any, depth: int) -> Any:
        kind = cast("type[Any]", type(value))
        if depth == 0:
            return marker(value)
        if issubclass(kind, msgspec.Struct):
            return self._struct(value, depth)
        pairs = _pairs_of(value)
        if pairs is not None:
            return self._table(pairs, depth)
        if issubclass(kind, list | tuple | set | frozenset):
            names: Any = getattr(cast("Any", kind), "_fields", repeat(""))
            named = zip(names, value, strict=False)
            return [_none_if_dropped(self._element(*pair, depth)) for pair in named]
        return value

    def _struct(self, value: msgspec.Struct, depth: int) -> msgspec.Struct:
        changed: dict[str, Any] = {}
        for name in value.__struct_fields__:
            before = getattr(value, name)
            after = self._element(name, before, depth)
            if after is not before:
                changed[name] = _none_if_dropped(after)
        return msgspec.structs.replace(value, **changed)

    def _table(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        kept = (
            (key, self._element(key, value, depth))
            for key, value in pairs
            if self._permits(key)
        )
        return {key: value for key, value in kept if value is not DROP}

    def _element(self, name: Any, value: Any, depth: int) -> Any:
        protection = self._protections.get(name)
        return self._walk(value, depth - 1) if protection is None else protection(value)


def _pairs_of(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Find the keys or fields that a value has, with what they hold."""
    kind = cast("type[Any]", type(value))
    if issubclass(kind, Mapping):
        reader = cast("Any", dict if issubclass(kind, dict) else kind)
        return cast("Iterable[tuple[Any, Any]]", reader.items(value))
    names: Any = getattr(kind, "__dataclass_fields__", None)
    return None if names is None else [(name, getattr(value, name)) for name in names]


def _none_if_dropped(value: Any) -> Any:
    return None if value is DROP else value


def _same_or_drop(protection: Protection) -> Protection:
    def protect(value: Any) -> Any:
        return value if protection(value) is value else DROP

    return protect


def _number_or_marker(value: Any) -> Any:
    """Let pass what cannot hold a text; name anything else by its type."""
    value = unwrapped(value)
    harmless = (type(None), numbers.Number, uuid.UUID)
    passes = quietly(lambda it: issubclass(type(it), harmless), value)
    return value if passes is True else marker(value)
