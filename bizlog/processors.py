"""
The structlog chain: context -> (yours) -> stamp -> classify -> protect -> encode.

Every step is a structlog processor: it takes the wrapped logger, the method's name and
what the step before returned. Up to `stamp` that is structlog's event dictionary, where
processors of your own can stand; from `stamp` on it is a `Draft`; `encode` returns the
immutable `Record`. The wrapped logger is an `Outlet`, which knows the `Chain` in force.

No I/O and no lock. A step raises `InvalidEventError` for an event that breaks its
schema and changes nothing that belongs to the caller.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from bizlog.coercion import (
    SOFT_LIMIT_BYTES,
    encode_body,
    encode_json,
    payload_fields,
)
from bizlog.context import current_state, trace_id_of
from bizlog.exceptions import BizlogError, InvalidEventError
from bizlog.plan import ENVELOPE_KEY, STAMPED, Draft
from bizlog.privacy import DROP, is_id
from bizlog.sinks import Record
from bizlog.stamps import next_stamp
from bizlog.values import NO_SHIELD, Shield, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from bizlog.events import BaseEvent
    from bizlog.plan import Chain, Outlet, Plan
    from bizlog.privacy import Privacy

# With any of these in the dictionary, stamping takes more than the three stamps.
_UNCOMMON = STAMPED | {ENVELOPE_KEY, "event_time"}

# What a refused event is cut to, in turn, until its dead letter fits the soft limit:
# characters of a text, and values.
REJECTED_CUTS = ((64 * 1024, 50_000), (4 * 1024, 10_000), (256, 1_000), (64, 100))

# Keys of the dictionary that are no properties.
_OWN_KEYS = frozenset({"event", "event_time", ENVELOPE_KEY})


def add_context(
    _: Outlet, __: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Merge the context under what the call and the bound logger say."""
    inherited = current_state().values
    if inherited:
        event_dict = {**inherited, **event_dict}
    if "traceparent" in event_dict:
        trace_id = trace_id_of(event_dict.pop("traceparent"))
        if trace_id is not None:
            event_dict.setdefault("correlation_id", trace_id)
    return event_dict


def stamp(outlet: Outlet, _: str, event_dict: dict[str, Any]) -> Draft:
    """Give the event its id, time and sequence; move reserved names aside."""
    sequence = outlet.chain.next_sequence()
    event_id, event_time = next_stamp()
    if _UNCOMMON.isdisjoint(event_dict):
        name = event_dict.pop("event", "")
        return Draft(name, event_dict, event_id, event_time, sequence)
    envelope = event_dict.get(ENVELOPE_KEY)
    if envelope is not None and envelope.event_id is not None:
        event_id = _given_id(envelope.event_id)
    if event_dict.get("event_time") is not None:
        event_time = _utc(event_dict["event_time"])
    # Nothing may raise from here on: a refused event keeps its name in its dead letter.
    fields = {k: v for k, v in event_dict.items() if k not in _OWN_KEYS}
    set_aside(fields, STAMPED)
    name = event_dict.get("event", "")
    return Draft(name, fields, event_id, event_time, sequence, envelope)


def classify(outlet: Outlet, _: str, draft: Draft) -> Draft:
    """Find the event's type; properties without a field become custom properties."""
    plan = outlet.plan(draft.name, draft.envelope)
    draft.plan = plan
    plan.tally.events += 1
    if not plan.kind.typed.issuperset(draft.fields):
        draft.fields = _with_custom_properties(draft.fields, plan.kind.typed)
    return draft


def protect(outlet: Outlet, __: str, draft: Draft) -> Draft:
    """Apply the privacy policies; those for what is nested go along to `encode`."""
    assert draft.plan is not None
    _protect_typed(draft.plan.kind.shield, draft.fields)
    custom = draft.fields.get("custom_properties")
    if custom:
        allowed = _allowed(outlet.chain.privacy, custom)
        draft.fields["custom_properties"] = allowed
    draft.protected = True
    return draft


def encode(_: Outlet, __: str, draft: Draft) -> Record:
    """
    Validate the properties against the type and write the event as JSON.

    Raises:
        InvalidEventError: A field has the wrong type; with its JSON path.
    """
    plan = draft.plan
    assert plan is not None
    body = encode_body(draft.fields, plan.kind.cls, plan.kind.shield)
    return _record(plan, draft.event_id, draft.event_time, draft.sequence, "", body)


def encode_directly(outlet: Outlet, event_dict: dict[str, Any]) -> Record | None:
    """
    Do in one step what the processors do in five, for an event that is plain.

    Plain are known names with typed fields of the right types and nothing else, in a
    context of nothing but ids; that is nearly every event of a service. The record is
    the same byte for byte (a property test holds that).

    Args:
        outlet: The logger that the chain wraps.
        event_dict: structlog's event dictionary; the same again when None is returned.

    Returns:
        The record; or None, with nothing done, where the processors must decide.
    """
    name = event_dict.pop("event", "")
    plan, ids, body = None, "", None
    try:
        plan = outlet.plans[name]
        state = current_state()
        if not state.values:
            form = plan.form_with_ids
        else:
            ids = state.spliced.get(plan.id_rules) or plan.id_rules.splice(state)
            form = plan.form if ids else None
        body = form.write(event_dict) if form else None
    except Exception:  # noqa: BLE001, S110  # the processors say what is wrong with it
        pass
    if plan is None or body is None or len(body) > SOFT_LIMIT_BYTES:
        event_dict["event"] = name
        return None
    event_id, event_time = next_stamp()
    sequence = outlet.chain.next_sequence()
    record = _record(plan, event_id, event_time, sequence, ids, body)
    plan.tally.events += 1
    return record


def _record(
    plan: Plan, event_id: str, event_time: str, sequence: int, ids: str, body: bytes
) -> Record:
    end = "}" if body == b"{}" else ","
    start = (
        f'{{"event_id":"{event_id}{plan.head}{event_time}{plan.tail}{sequence}{ids}{end}'
    ).encode()
    # Adding copies into bytes of the exact size; the encoder's own buffer, which is
    # larger, goes at once instead of staying alive in the queue.
    data = start + body[1:] if end == "," else start
    return Record(data, event_id, plan.name, event_time, sequence)


def encode_envelope(outlet: Outlet, state: Any, fault: str) -> Record:
    """
    Write an event without its properties, where there is no memory or depth for them.

    Args:
        outlet: The logger that the chain wraps.
        state: What the last step of the chain returned.
        fault: What stood in the way; a class name.
    """
    name = name_of(state)
    known = outlet.plans.get(name) if type(name) is str else None
    event_id, event_time = next_stamp()
    sequence = outlet.chain.next_sequence()
    body = b'{"custom_properties":{"bizlog_error":"%b"}}' % fault.encode()
    plan = known or outlet.chain.unreadable
    return _record(plan, event_id, event_time, sequence, "", body)


def name_of(state: Any) -> Any:
    """Find an event's name in what a step of the chain returned: maybe anything."""
    if isinstance(state, Draft):
        return state.name
    # Only a dictionary of ours: another class's `get` may do anything.
    return cast("Any", state).get("event") if type(state) is dict else None


def describe_rejected(outlet: Outlet, state: Any) -> bytes:
    """
    Write what is known of an event that cannot be accepted, for its dead letter.

    Args:
        outlet: The logger that the chain wraps.
        state: What the last step of the chain returned: a dictionary or a `Draft`.

    Returns:
        A JSON object, protected as an accepted event would be. A value that cannot be
        written is replaced by its type.
    """
    draft = state if isinstance(state, Draft) else None
    # A processor may have returned anything.
    given = state.fields if isinstance(state, Draft) else state
    table = _as_dict(given)
    fields = {"returned": cast("object", given)} if table is None else table
    name = draft.name if draft else fields.pop("event", "")
    fields.pop(ENVELOPE_KEY, None)
    head = {"event_type": name, "event_source": outlet.source or outlet.chain.source}
    if draft:
        head |= {
            "event_id": draft.event_id,
            "event_time": draft.event_time,
            "producer_id": outlet.chain.producer_id,
            "sequence": draft.sequence,
        }
    shield = _shield_for(outlet.chain, name)
    if draft and draft.protected:
        # The policies of the top were applied: what is inside gets them here.
        inside = Shield(shield.protections)
        fields = {
            name: plain(value, inside if is_id(name) else shield)
            for name, value in fields.items()
        }
        shield = NO_SHIELD
    else:
        fields = _only_allowed(outlet.chain, name, fields)
    return _within_limit({**plain(fields, shield), **plain(head)})


def _only_allowed(chain: Chain, name: Any, fields: dict[Any, Any]) -> dict[Any, Any]:
    privacy = chain.privacy
    if privacy.allowed is None:
        return fields
    typed = payload_fields(_class_for(chain, name))
    kept = {
        key: value
        for key, value in fields.items()
        if type(key) is str and (key in typed or privacy.allows(key))
    }
    custom = _as_dict(kept.get("custom_properties"))
    if custom is not None:
        kept["custom_properties"] = _allowed(privacy, custom)
    return kept


def _within_limit(fields: dict[str, Any]) -> bytes:
    body = b""
    for max_text, max_nodes in REJECTED_CUTS:
        body = encode_json(plain(fields, max_text=max_text, max_nodes=max_nodes))
        if len(body) <= SOFT_LIMIT_BYTES:
            break
    return body


def _allowed(privacy: Privacy, custom: dict[Any, Any]) -> dict[Any, Any]:
    if privacy.allowed is None:
        return custom
    kept = {k: v for k, v in custom.items() if type(k) is str and privacy.allows(k)}
    gone = len(custom) - len(kept)  # apart: no call between load and store
    privacy.removed += gone
    return kept


def _class_for(chain: Chain, name: Any) -> type[BaseEvent]:
    try:
        return chain.registry.resolve(name).cls
    except BizlogError:
        return chain.registry.resolve("unknown").cls


def _shield_for(chain: Chain, name: Any) -> Shield:
    protections = chain.privacy.protections(_class_for(chain, name))
    return Shield(protections, chain.privacy.detect)


def _protect_typed(shield: Shield, fields: dict[str, Any]) -> None:
    for name, protection in shield.protections.items():
        value = fields.get(name)
        if value is None:
            continue
        protected = protection(value)
        if protected is DROP:
            del fields[name]
        elif protected is not value:
            fields[name] = protected


def _with_custom_properties(
    fields: dict[str, Any], known: frozenset[str]
) -> dict[str, Any]:
    typed = {name: value for name, value in fields.items() if name in known}
    extra = {name: value for name, value in fields.items() if name not in known}
    given = _as_dict(extra.get("custom_properties"))
    if given is not None:
        del extra["custom_properties"]
        extra = {**given, **extra}
    typed["custom_properties"] = extra
    return typed


def _as_dict(value: Any) -> dict[Any, Any] | None:
    """Copy a mapping, whatever its class does; None where it is none."""
    if issubclass(type(value), dict):
        return dict(cast("Any", dict).items(value))
    if issubclass(type(value), Mapping):
        return dict(value)
    return None


def set_aside(fields: dict[str, Any], names: Iterable[str]) -> None:
    """Move properties whose names are taken into `custom_properties`, in place."""
    aside = {name: fields.pop(name) for name in names if name in fields}
    if not aside:
        return
    given = fields.get("custom_properties")
    kept = _as_dict(given)
    if kept is not None:
        aside = {**kept, **aside}
    elif given is not None:
        aside["custom_properties"] = given
    fields["custom_properties"] = aside


def _given_id(event_id: object) -> str:
    try:
        return str(uuid.UUID(str(event_id)))
    except ValueError:
        raise InvalidEventError("expected a UUID", "$.event_id") from None


def _utc(value: object) -> str:
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise InvalidEventError(
                "expected an ISO 8601 timestamp", "$.event_time"
            ) from None
    if not isinstance(value, dt.datetime):
        raise InvalidEventError(
            f"expected a datetime or ISO 8601 text, got {type(value).__name__}",
            "$.event_time",
        )
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return f"{value.isoformat(timespec='microseconds')}Z"
