"""
From an event's name to its type: classification, versions, the catalogue.

A name belongs to the class that registered it, else to the family of its prefix
(`product.*`), else to the plain base. Strict mode takes only names of the catalogue:
the CDM names plus everything registered. No I/O; the default registry is filled by
`bizlog.events` and by every subclass that names its `event_type`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from bizlog._wording import suggest
from bizlog.exceptions import InvalidEventError, RegistrationError, UnknownEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bizlog.events import BaseEvent

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")

# Names come from callers, so the cache of resolved types must not grow with them.
_CACHE_LIMIT = 2_048


class EventType(msgspec.Struct, frozen=True, eq=False):
    """
    What bizlog knows about one event name.

    Attributes:
        name: The event name (`order.placed`).
        cls: The class that types its fields.
        version: Schema version, written as `schema_version`.
        catalogued: Whether strict mode accepts the name.
    """

    name: str
    cls: type[BaseEvent]
    version: int
    catalogued: bool


_default: Registry | None = None


class Registry:
    """
    A catalogue of event types.

    Args:
        parent: Where names that are unknown here are looked up; by default bizlog's
            own registry, which knows the CDM names.

    Attributes:
        generation: Counts registrations everywhere. What was resolved before the last
            one may be stale: a registry finds names in its parent, too.
    """

    generation: ClassVar[int] = 0

    def __init__(self, parent: Registry | None = None) -> None:
        self._parent = parent or _default
        self._types: dict[str, EventType] = {}
        self._families: dict[str, type[BaseEvent]] = {}
        self._resolved: dict[str, EventType] = {}
        self._resolved_of = Registry.generation

    def add_family(
        self, prefix: str, cls: type[BaseEvent], names: Iterable[str] = ()
    ) -> None:
        """Class all names that start with `prefix.`; `names` join the catalogue."""
        self._families[prefix] = cls
        for name in names:
            full = f"{prefix}.{name}"
            self._types[full] = EventType(full, cls, 1, catalogued=True)

    def register(self, cls: type[BaseEvent], event_type: str, version: int = 1) -> None:
        """
        Put a class of your own into the catalogue.

        Defining the same class again (a notebook cell, a module reload) replaces it,
        and a subclass may refine the class it derives from.

        Raises:
            RegistrationError: The name is malformed or taken by another class.
        """
        if not _NAME.fullmatch(event_type):
            raise RegistrationError(
                f"event_type {event_type!r} of {cls.__qualname__}: expected lower-case "
                "words joined by dots, such as 'loan.approved'"
            )
        taken = self._types.get(event_type)
        if taken and not _may_replace(taken.cls, cls):
            raise RegistrationError(
                f"event_type {event_type!r} is already registered by "
                f"{'.'.join(_identity(taken.cls))}: choose another name for "
                f"{'.'.join(_identity(cls))}, or give it a Registry of its own"
            )
        self._types[event_type] = EventType(event_type, cls, version, catalogued=True)
        Registry.generation += 1

    @property
    def names(self) -> list[str]:
        """The catalogue: every name that strict mode accepts, sorted."""
        inherited = self._parent.names if self._parent else []
        return sorted({*inherited, *self._types})

    def resolve(self, name: str, *, strict: bool = False) -> EventType:
        """
        Find the type of an event name.

        Raises:
            InvalidEventError: The name is no event name.
            UnknownEventError: `strict`, and the name is not in the catalogue.
        """
        if self._resolved_of != Registry.generation:
            self._resolved_of = Registry.generation
            self._resolved.clear()
        # Only text is looked up: what else callers pass may not even be hashable.
        known = self._resolved.get(name) if type(name) is str else None
        found = known or self._resolve(name)
        if strict and not found.catalogued:
            raise UnknownEventError(
                f"the name is not in the catalogue{suggest(name, self.names)}",
                "$.event_type",
            )
        return found

    def _resolve(self, name: str) -> EventType:
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers pass anything
            kind = "an empty text" if name == "" else type(name).__name__
            raise InvalidEventError(
                f"expected the name of an event, got {kind}",
                "$.event_type",
            )
        found = self._lookup(name)
        if len(self._resolved) >= _CACHE_LIMIT:
            self._resolved.clear()
        # Not the caller's object: a subclass of str may do anything when compared.
        self._resolved[str(name)] = found
        return found

    def _lookup(self, name: str) -> EventType:
        registered = self._types.get(name)
        if registered:
            return registered
        family = self._families.get(name.partition(".")[0])
        if family:
            return EventType(name, family, 1, catalogued=False)
        if self._parent:
            return self._parent.resolve(name)
        return EventType(name, self._families[""], 1, catalogued=False)


def _identity(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _may_replace(old: type[Any], new: type[Any]) -> bool:
    return _identity(old) == _identity(new) or issubclass(new, old)


registry = _default = Registry()
"""The default registry: the CDM names, and every class that names its event type."""
