"""
What is known of events beforehand: the chain's settings, and a plan for each name.

A plan holds everything constant about the events of one name from one source: its
class, its policies, the JSON of its envelope. Plans are made once and kept. No I/O.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from bizlog.coercion import IDS, convert, encode_json, payload_fields
from bizlog.events import BaseEvent
from bizlog.exceptions import InvalidEventError
from bizlog.forms import Form, make_form
from bizlog.stamps import next_id
from bizlog.values import Shield

if TYPE_CHECKING:
    from bizlog.context import State
    from bizlog.ledger import Tallies, Tally
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

# What an event is called when not even its name could be read.
UNREADABLE = "bizlog.unreadable"

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
        protected: Whether the policies were applied; twice would hash a hash.
    """

    name: str
    fields: dict[str, Any]
    event_id: str
    event_time: str
    sequence: int
    envelope: BaseEvent | None = None
    plan: Plan | None = None
    protected: bool = False


class IdRules:
    """
    How ids of the context are written: what all plans with the same policies share.

    Args:
        protections: Policies of correlation, session and user id.
    """

    def __init__(self, protections: dict[str, Protection]) -> None:
        self._protections = protections

    def splice(self, state: State) -> str:
        """
        Write the context as part of an event's JSON.

        Returns:
            `,"correlation_id":...` and so on; empty where the context holds more than
            plain ids, or a policy changes one: then the processors write each event.
        """
        found = state.spliced[self] = self._write(state.values)
        return found

    def _write(self, values: dict[str, Any]) -> str:
        if not IDS.issuperset(values):
            return ""
        try:
            event = convert(values, BaseEvent)
            for name in values:
                value = getattr(event, name)
                if self._protections.get(name, _same)(value) is not value:
                    return ""
            return f",{encode_json(event)[1:-1].decode()}"
        except Exception:  # noqa: BLE001  # the processors say what is wrong with it
            return ""


def _same(value: Any) -> Any:
    return value


class Kind(msgspec.Struct, frozen=True, eq=False):
    """
    What all events of one class have in common, under the policies in force.

    Attributes:
        cls: The class that types the event.
        typed: Names of its fields; other properties are custom properties.
        shield: Policies by field name, overrides included, and detectors.
        form: Writes events of plain typed fields whose ids come from the context.
        form_with_ids: Writes those that bring their ids themselves.
        id_rules: How the ids of the context are written.
    """

    cls: type[BaseEvent]
    typed: frozenset[str]
    shield: Shield
    form: Form | None
    form_with_ids: Form | None
    id_rules: IdRules


class Plan(msgspec.Struct, frozen=True, eq=False):
    """
    How events of one name from one source are written: everything constant about them.

    Attributes:
        name: The event name.
        kind: What the name's class says.
        head: Constant JSON between event_id and event_time.
        tail: Constant JSON between event_time and sequence.
        tally: Counts the events received under this name.
        form: The kind's, near at hand; likewise the next two.
    """

    name: str
    kind: Kind
    head: str
    tail: str
    tally: Tally
    form: Form | None
    form_with_ids: Form | None
    id_rules: IdRules


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
        tallies: Count the events received.
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
        tallies: Tallies,
    ) -> None:
        self.source = source
        self.environment = environment
        self.service_version = service_version
        self.registry = registry
        self.privacy = privacy
        self.strict = strict
        self.tallies = tallies
        self.producer_id = next_id()
        self.next_sequence = itertools.count(1).__next__
        self._id_rules: dict[tuple[Protection | None, ...], IdRules] = {}
        self._kinds: dict[type[BaseEvent], Kind] = {}
        self._outlets: dict[str | None, Outlet] = {}
        self.unreadable = self.make_plan(UNREADABLE, None, None)
        for cls in registry.classes:
            self._make_kind(cls)  # now, not while the first event waits for it
        registry.watch(self)

    def begin_anew(self, tallies: Tallies) -> None:
        """
        Take an identity of its own, in a forked child: events count from 1 again.

        Args:
            tallies: Count the events received from now on.
        """
        self.producer_id = next_id()
        self.next_sequence = itertools.count(1).__next__
        self.tallies = tallies
        self.unreadable = self.make_plan(UNREADABLE, None, None)
        for outlet in self._outlets.values():
            outlet.plans.clear()  # the id is written into them

    def outlet(self, source: str | None) -> Outlet:
        """Find or make the outlet of a source."""
        found = self._outlets.get(source)
        return found or self._outlets.setdefault(source, Outlet(self, source))

    def registry_changed(self) -> None:
        """Forget what was made of the catalogue as it was."""
        self._kinds.clear()
        for outlet in list(self._outlets.values()):
            outlet.plans.clear()

    def make_plan(
        self, name: str, source: str | None, envelope: BaseEvent | None
    ) -> Plan:
        """
        Make the plan of an event.

        Raises:
            InvalidEventError: The name is no event name, or strict mode refuses it.
        """
        event_type = self.registry.resolve(
            name, strict=self.strict and name != UNREADABLE
        )
        cls = event_type.cls
        if envelope is not None:
            cls = _class_of(envelope, event_type)
        kind = self._kinds.get(cls) or self._make_kind(cls)
        return Plan(
            name=event_type.name,
            kind=kind,
            head=self._head(event_type.name, source, envelope),
            tail=self._tail(event_type, envelope),
            tally=self.tallies.of(source or self.source, event_type.name),
            form=kind.form,
            form_with_ids=kind.form_with_ids,
            id_rules=kind.id_rules,
        )

    def _make_kind(self, cls: type[BaseEvent]) -> Kind:
        protections = self.privacy.protections(cls)
        made = Kind(
            cls=cls,
            typed=payload_fields(cls) - {"custom_properties"},
            shield=Shield(protections, self.privacy.detect),
            form=make_form(cls, protections, with_ids=False),
            form_with_ids=make_form(cls, protections, with_ids=True),
            id_rules=self._rules_for_ids(protections),
        )
        return self._kinds.setdefault(cls, made)

    def _rules_for_ids(self, protections: dict[str, Protection]) -> IdRules:
        chosen = {name: protections[name] for name in IDS if name in protections}
        key = tuple(protections.get(name) for name in sorted(IDS))
        return self._id_rules.setdefault(key, IdRules(chosen))

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


class Outlet:
    """
    The logger that structlog's chain wraps: one client, seen from one source.

    Attributes:
        chain: What the processors know about the process.
        source: `event_source` of the events, or None for the chain's.
        plans: The plans made so far, by event name.
    """

    __slots__ = ("chain", "plans", "source")

    def __init__(self, chain: Chain, source: str | None) -> None:
        self.chain = chain
        self.source = source
        self.plans: dict[str, Plan] = {}

    def plan(self, name: str, envelope: BaseEvent | None) -> Plan:
        """
        Find or make the plan of an event; a typed one has a plan of its own.

        Raises:
            InvalidEventError: The name is no event name, or strict mode refuses it.
        """
        if envelope is not None:
            return self.chain.make_plan(name, self.source, envelope)
        found = self.plans.get(name) if type(name) is str else None
        if found is None:
            generation = self.chain.registry.generation
            found = self.chain.make_plan(name, self.source, None)
            if len(self.plans) >= _CACHE_LIMIT:
                self.plans.clear()
            # Not what a registration has made stale meanwhile.
            if generation == self.chain.registry.generation:
                self.plans[found.name] = found
        return found


def _class_of(envelope: BaseEvent, event_type: EventType) -> type[BaseEvent]:
    given = type(envelope)
    if not issubclass(given, event_type.cls):
        raise InvalidEventError(
            f"events of this name are {event_type.cls.__name__}, got {given.__name__}",
            "$.event_type",
        )
    return given


def _json(text: object) -> str:
    return encode_json(str(text)).decode()
