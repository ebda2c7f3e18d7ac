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
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

import msgspec
import orjson
from uuid_utils import uuid7

from bizlog.coercion import encode_body, encode_json
from bizlog.context import context_values, trace_id_of
from bizlog.exceptions import BizlogError, InvalidEventError
from bizlog.plan import ENVELOPE_KEY, STAMPED, Draft
from bizlog.privacy import DROP
from bizlog.sinks import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from bizlog.events import BaseEvent
    from bizlog.plan import Chain, Outlet, Plan
    from bizlog.privacy import Protection

# With any of these in the dictionary, stamping takes more than the three stamps.
_UNCOMMON = STAMPED | {ENVELOPE_KEY, "event_time"}

# Keys of the dictionary that are no properties.
_OWN_KEYS = frozenset({"event", "event_time", ENVELOPE_KEY})


def add_context(
    _: Outlet, __: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Merge the context under what the call and the bound logger say."""
    inherited = context_values()
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
    if _UNCOMMON.isdisjoint(event_dict):
        name = event_dict.pop("event", "")
        return Draft(name, event_dict, str(uuid7()), _now(), sequence)
    envelope = event_dict.get(ENVELOPE_KEY)
    event_id = str(uuid7()) if envelope is None else _event_id(envelope)
    given_time = event_dict.get("event_time")
    event_time = _now() if given_time is None else _utc(given_time)
    # Nothing may raise from here on: a refused event keeps its name in its dead letter.
    fields = {k: v for k, v in event_dict.items() if k not in _OWN_KEYS}
    set_aside(fields, STAMPED)
    name = event_dict.get("event", "")
    return Draft(name, fields, event_id, event_time, sequence, envelope)


def classify(outlet: Outlet, _: str, draft: Draft) -> Draft:
    """Find the event's type; properties without a field become custom properties."""
    plan = outlet.chain.plan(draft.name, outlet.source, draft.envelope)
    draft.plan = plan
    if not plan.typed.issuperset(draft.fields):
        draft.fields = _with_custom_properties(draft.fields, plan.typed)
    return draft


def protect(_: Outlet, __: str, draft: Draft) -> Draft:
    """Apply the privacy policies, to custom properties as well."""
    assert draft.plan is not None
    apply_protections(draft.plan.protections, draft.fields)
    return draft


def encode(_: Outlet, __: str, draft: Draft) -> Record:
    """
    Validate the properties against the type and write the event as JSON.

    Raises:
        InvalidEventError: A field has the wrong type; with its JSON path.
    """
    plan = draft.plan
    assert plan is not None
    body = encode_body(draft.fields, plan.cls)
    return _record(
        plan, draft.name, draft.event_id, draft.event_time, draft.sequence, body
    )


def encode_directly(outlet: Outlet, event_dict: dict[str, Any]) -> Record | None:
    """
    Do in one step what the processors do in five, for an event that is plain.

    Plain are known names with typed fields of the right types and nothing else; that
    is nearly every event of a service. The record is the same byte for byte (a property
    test holds that).

    Args:
        outlet: The logger that the chain wraps.
        event_dict: structlog's event dictionary; left as it is.

    Returns:
        The record; or None, with nothing done, where the processors must decide.
    """
    name = event_dict["event"]
    plan = outlet.chain.known_plan(name, outlet.source) if type(name) is str else None
    if plan is None:
        return None
    inherited = context_values()
    fields = {**inherited, **event_dict} if inherited else event_dict
    if not plan.direct.issuperset(fields):
        return None
    try:
        event = msgspec.convert(fields, plan.cls)
        for field, protection in plan.protections.items():
            value = getattr(event, field, None)
            if value is not None:
                protected = protection(value)
                if protected is not value:
                    setattr(event, field, None if protected is DROP else protected)
        body = encode_json(event)
    except Exception:  # noqa: BLE001  # the processors say what is wrong with it
        return None
    if b"NaN" in body or b"Infinity" in body:
        return None
    sequence = outlet.chain.next_sequence()
    return _record(plan, name, str(uuid7()), _now(), sequence, body)


def _record(
    plan: Plan, name: str, event_id: str, event_time: str, sequence: int, body: bytes
) -> Record:
    start = (
        f'{{"event_id":"{event_id}{plan.head}{event_time}{plan.tail}{sequence}'
    ).encode()
    # Joining copies into bytes of the exact size; the encoder's own buffer, which is
    # larger, goes at once instead of staying alive in the queue.
    data = start + b"}" if body == b"{}" else b"%b,%b" % (start, body[1:])
    return Record(data, event_id, name, event_time, sequence)


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
    fields: dict[str, Any] = dict(state.fields if isinstance(state, Draft) else state)
    name = draft.name if draft else fields.pop("event", "")
    fields.pop(ENVELOPE_KEY, None)
    apply_protections(_protections_for(outlet.chain, name), fields)
    head = {"event_type": name, "event_source": outlet.source or outlet.chain.source}
    if draft:
        head |= {
            "event_id": draft.event_id,
            "event_time": draft.event_time,
            "producer_id": outlet.chain.producer_id,
            "sequence": draft.sequence,
        }
    return _encode_somehow({**fields, **head})


def _protections_for(chain: Chain, name: Any) -> dict[str, Protection]:
    try:
        cls = chain.registry.resolve(name).cls
    except BizlogError:
        cls = chain.registry.resolve("unknown").cls
    return chain.privacy.protections(cls)


def _encode_somehow(fields: dict[Any, Any]) -> bytes:
    try:
        body = encode_json(fields)
        orjson.loads(body)
    except Exception:  # noqa: BLE001  # a value's own methods
        kept = {str(name): _writable(value) for name, value in fields.items()}
        return encode_json(kept)
    return body


def _writable(value: Any) -> Any:
    try:
        orjson.loads(encode_json(value))
    except Exception:  # noqa: BLE001  # a value's own methods
        return f"<{type(value).__name__}>"
    return value


def apply_protections(
    protections: Mapping[str, Protection], fields: dict[str, Any]
) -> None:
    """Apply policies to the fields and to the custom properties among them."""
    _apply(protections, fields)
    custom = fields.get("custom_properties")
    if custom and not protections.keys().isdisjoint(custom):
        fields["custom_properties"] = custom = dict(custom)
        _apply(protections, custom)


def _apply(protections: Mapping[str, Protection], fields: dict[str, Any]) -> None:
    for name, protection in protections.items():
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
    given = extra.get("custom_properties")
    if isinstance(given, dict):
        del extra["custom_properties"]
        extra = {**cast("dict[Any, Any]", given), **extra}
    typed["custom_properties"] = extra
    return typed


def set_aside(fields: dict[str, Any], names: Iterable[str]) -> None:
    """Move properties whose names are taken into `custom_properties`, in place."""
    aside = {name: fields.pop(name) for name in names if name in fields}
    if not aside:
        return
    given = fields.get("custom_properties")
    if isinstance(given, dict):
        aside = {**cast("dict[str, Any]", given), **aside}
    elif given is not None:
        aside["custom_properties"] = given
    fields["custom_properties"] = aside


def _event_id(event: BaseEvent) -> str:
    if event.event_id is None:
        return str(uuid7())
    try:
        return str(uuid.UUID(str(event.event_id)))
    except ValueError:
        raise InvalidEventError("expected a UUID", "$.event_id") from None


# The text of the last second formatted: most events share theirs with the one before.
_second = (0, "")


def _now() -> str:
    global _second  # noqa: PLW0603  # one tuple, replaced whole: safe from any thread
    now = time.time_ns() // 1_000
    second, micros = divmod(now, 1_000_000)
    known = _second
    if known[0] != second:
        known = _second = (
            second,
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)),
        )
    return f"{known[1]}.{micros:06d}Z"


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
