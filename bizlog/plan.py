"""
What is known of events beforehand: the chain's settings, and a plan for each name.

A plan holds everything constant about the events of one name from one source: its
class, its policies, the JSON of its envelope. Plans are made once and kept. No I/O.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson
from uuid_utils import uuid7

from bizlog.coercion import nested_fields, payload_fields
from bizlog.exceptions import InvalidEventError

if TYPE_CHECKING:
    from bizlog.events import BaseEvent
    from bizlog.privacy import Privacy, Protection
    from bizlog.registry import EventType, Registry

# Envelope fields that only bizlog writes; a property of that name moves aside.
STAMPED = frozenset(
    {
        "event_id",
        "event_type",
        "event_source",
        "environment",
        "service_version",
        "schema_version",
        "producer_id",
        "sequence",
    }
)

# The key under which a typed event carries its own envelope through the dictionary.
ENVELOPE_KEY = "_bizlog_envelope"

# Heads are cached by event name and source, which callers choose: bounded.
_CACHE_LIMIT = 2_048


class Draft(msgspec.Struct):
    """
    An event on its way through the chain, envelope and properties apart.

    Attributes:
        name: The event name.
        fields: The caller's properties, in a dictionary of our own.
        event_id: UUIDv7, or the one a typed event brought along.
        event_time: RFC 3339 in UTC with microseconds.
        sequence: Position among the events of this producer.
        envelope: What a typed event says of itself, else None.
        plan: How this event type is written; set by `classify`.
    """

    name: str
    fields: dict[str, Any]
    event_id: str
    event_time: str
    sequence: int
    envelope: BaseEvent | None = None
    plan: Plan | None = None


class Plan(msgspec.Struct):
    """
    How events of one name from one source are written: everything constant about them.

    Attributes:
        cls: The class that types the event.
        typed: Names of its fields; other properties are custom properties.
        protections: Policy by field name, overrides included.
        direct: Keys of an event dictionary that needs nothing but typed fields; with
            any other key the event takes the processors one by one.
        head: Constant JSON between event_id and event_time.
        tail: Constant JSON between event_time and sequence.
    """

    cls: type[BaseEvent]
    typed: frozenset[str]
    protections: dict[str, Protection]
    direct: frozenset[str]
    head: str
    tail: str


class Chain:
    """
    What the chain knows about its process: identity, catalogue, policies, counters.

    Args:
        source: `event_source` of events whose logger names no other.
        environment: Deployment, as in `production`.
        service_version: Version of the service.
        registry: The catalogue of event types.
        privacy: The policies in force.
        strict: Whether names outside the catalogue are refused.
    """

    def __init__(
        self,
        *,
        source: str,
        environment: str,
        service_version: str,
        registry: Registry,
        privacy: Privacy,
        strict: bool,
    ) -> None:
        self.source = source
        self.environment = environment
        self.service_version = service_version
        self.registry = registry
        self.privacy = privacy
        self.strict = strict
        self.producer_id = str(uuid7())
        self.next_sequence = itertools.count(1).__next__
        self._plans: dict[tuple[str, str | None], Plan] = {}
        self._plans_of = registry.generation

    def plan(self, name: str, source: str | None, envelope: BaseEvent | None) -> Plan:
        """
        Find or make the plan of an event.

        Raises:
            InvalidEventError: The name is no event name, or strict mode refuses it.
        """
        if envelope is not None:
            return self._make_plan(name, source, envelope)
        found = self.known_plan(name, source) if type(name) is str else None
        if found is None:
            if len(self._plans) >= _CACHE_LIMIT:
                self._plans.clear()
            found = self._make_plan(name, source, None)
            self._plans[str(name), source] = found
        return found

    def known_plan(self, name: str, source: str | None) -> Plan | None:
        """Find the plan of an event, if one was made since the last registration."""
        if self._plans_of != self.registry.generation:
            self._plans_of = self.registry.generation
            self._plans.clear()
        return self._plans.get((name, source))

    def _make_plan(
        self, name: str, source: str | None, envelope: BaseEvent | None
    ) -> Plan:
        event_type = self.registry.resolve(name, strict=self.strict)
        cls = event_type.cls
        if envelope is not None:
            cls = _class_of(envelope, event_type)
        return Plan(
            cls=cls,
            typed=(typed := payload_fields(cls) - {"custom_properties"}),
            protections=self.privacy.protections(cls),
            direct=typed.difference(nested_fields(cls)) | {"event"},
            head=self._head(name, source, envelope),
            tail=self._tail(event_type, envelope),
        )

    def _head(self, name: str, source: str | None, envelope: BaseEvent | None) -> str:
        chosen = (envelope and envelope.event_source) or source or self.source
        return (
            f'","event_type":{_json(name)},"event_source":{_json(chosen)},'
            '"event_time":"'
        )

    def _tail(self, event_type: EventType, envelope: BaseEvent | None) -> str:
        environment = (envelope and envelope.environment) or self.environment
        version = (envelope and envelope.service_version) or self.service_version
        return (
            f'","environment":{_json(environment)},"service_version":{_json(version)},'
            f'"schema_version":{event_type.version},"producer_id":"{self.producer_id}",'
            '"sequence":'
        )


class Outlet(Protocol):
    """What the chain wraps in place of a logger: the chain, and the logger's source."""

    @property
    def chain(self) -> Chain:
        """What the processors know about the process."""
        ...

    @property
    def source(self) -> str | None:
        """`event_source` of the events, or None for the chain's."""
        ...


def _class_of(envelope: BaseEvent, event_type: EventType) -> type[BaseEvent]:
    given = type(envelope)
    if not issubclass(given, event_type.cls):
        raise InvalidEventError(
            f"events of this name are {event_type.cls.__name__}, got {given.__name__}",
            "$.event_type",
        )
    return given


def _json(text: object) -> str:
    return orjson.dumps(str(text)).decode()
