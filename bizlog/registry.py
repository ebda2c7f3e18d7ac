"""
From an event's name to its type: classification, versions, the catalogue.

A name belongs to the class that registered it, else to the family of its prefix
(`product.*`), else to the plain base. Strict mode takes only names of the catalogue:
the CDM names plus everything registered. No I/O; the default registry is filled by
`bizlog.events` and by every subclass that names its `event_type`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast
from weakref import WeakSet

import msgspec

from bizlog._text import readable
from bizlog._wording import suggest
from bizlog.exceptions import InvalidEventError, RegistrationError, UnknownEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bizlog.events import BaseEvent

_NAME = r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+"

# Names come from callers, so the cache of resolved types must not grow with them.
_CACHE_LIMIT = 2_048

# Names become folders, partition keys and labels.
MAX_NAME = 200


def is_event_name(text: str) -> bool:
    """Say whether a text is what names an event: lower-case words joined by dots."""
    return len(text) <= MAX_NAME and re.fullmatch(_NAME, text) is not None


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


class Watcher(Protocol):
    """What keeps something it made of the catalogue."""

    def registry_changed(self) -> None:
        """Forget it."""
        ...


_watchers: WeakSet[Watcher] = WeakSet()
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
        _tell_watchers()

    def register(self, cls: type[BaseEvent], event_type: str, version: int = 1) -> None:
        """
        Put a class of your own into the catalogue.

        Defining the same class again (a notebook cell, a module reload) replaces it,
        and a subclass may refine the class it derives from.

        Raises:
            RegistrationError: The name is malformed or taken by another class.
        """
        _check_registration(cls, event_type, version)
        taken = self._types.get(event_type)
        if taken and not _may_replace(taken.cls, cls):
            raise RegistrationError(
                f"event_type {event_type!r} is already registered by "
                f"{'.'.join(_identity(taken.cls))}: choose another name for "
                f"{'.'.join(_identity(cls))}, or give it a Registry of its own"
            )
        self._types[event_type] = EventType(event_type, cls, version, catalogued=True)
        _tell_watchers()

    def watch(self, watcher: Watcher) -> None:
        """Tell an object of registrations, anywhere, for as long as it lives."""
        _watchers.add(watcher)

    @property
    def names(self) -> list[str]:
        """The catalogue: every name that strict mode accepts, sorted."""
        inherited = self._parent.names if self._parent else []
        return sorted({*inherited, *self._types})

    @property
    def classes(self) -> set[type[BaseEvent]]:
        """Every class of the catalogue and of the families."""
        inherited = self._parent.classes if self._parent else set[type[Any]]()
        own = {known.cls for known in self._types.values()}
        return {*inherited, *self._families.values(), *own}

    def knows(self, name: str) -> bool:
        """Say whether a name is in the catalogue or of a known family (`order.*`)."""
        prefix, _, rest = name.partition(".")
        return (
            name in self._types
            or (bool(prefix and rest) and prefix in self._families)
            or (self._parent is not None and self._parent.knows(name))
        )

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
        if not issubclass(cast("type", type(name)), str):
            raise InvalidEventError(
                f"expected the name of an event, got {type(name).__name__}",
                "$.event_type",
            )
        # Not the caller's object: a subclass of str may do anything when asked.
        name = str.__str__(name)
        if not name:
            raise InvalidEventError(
                "expected the name of an event, got an empty text", "$.event_type"
            )
        if len(name) > MAX_NAME or name != readable(name):
            raise InvalidEventError(
                f"expected a name of at most {MAX_NAME} characters that UTF-8 can "
                f"write, got a text of {len(name)}",
                "$.event_type",
            )
        found = self._lookup(name)
        if len(self._resolved) >= _CACHE_LIMIT:
            self._resolved.clear()
        self._resolved[name] = found
        return found

    def _lookup(self, name: str) -> EventType:
        registered = self.find_type(name)
        if registered:
            return registered
        family = self.find_family(name.partition(".")[0]) or self.find_family("")
        assert family is not None  # bizlog.events makes that of the plain base
        return EventType(name, family, 1, catalogued=False)

    def find_type(self, name: str) -> EventType | None:
        """Find what is registered under exactly this name, here or above."""
        found = self._types.get(name)
        return found or (self._parent.find_type(name) if self._parent else None)

    def find_family(self, prefix: str) -> type[BaseEvent] | None:
        """Find the class of a prefix, here or above."""
        found = self._families.get(prefix)
        return found or (self._parent.find_family(prefix) if self._parent else None)


def _tell_watchers() -> None:
    Registry.generation += 1
    for watcher in list(_watchers):
        watcher.registry_changed()


def _check_registration(cls: type[Any], event_type: object, version: object) -> None:
    text = event_type if isinstance(event_type, str) else ""
    if not re.fullmatch(_NAME, text) or len(text) > MAX_NAME:
        raise RegistrationError(
            f"event_type {event_type!r:.250} ({type(event_type).__name__}) of "
            f"{cls.__qualname__}: expected lower-case words joined by dots, such as "
            f"'loan.approved', at most {MAX_NAME} characters"
        )
    if type(version) is not int or version < 1:
        raise RegistrationError(
            f"version of {cls.__qualname__}: expected a whole number from 1, got "
            f"{version!r:.100} ({type(version).__name__})"
        )


def _identity(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _may_replace(old: type[Any], new: type[Any]) -> bool:
    # Defined again, perhaps after a subclass had refined it (a notebook's cells).
    again = any(
        _identity(base) == _identity(new) and base is not new for base in old.__mro__
    )
    return again or issubclass(new, old)


registry = _default = Registry()
"""The default registry: the CDM names, and every class that names its event type."""
