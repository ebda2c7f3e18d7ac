"""
From a caller's values to the JSON of a typed event: validate, coerce, encode. No I/O.

The quick way is one msgspec conversion and one encoding. Where the conversion refuses,
the values that the wire format accepts in other clothes are coerced (ids given as int
or UUID, enums, numbers of other libraries) and it is tried once more; what is refused
then breaks the schema. Money stays a Decimal and is written as an exact JSON number.
"""

from __future__ import annotations

import enum
import operator
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import msgspec
import orjson

from bizlog._wording import validation_reason
from bizlog.events import BaseEvent
from bizlog.exceptions import InvalidEventError

# Written by the chain in front of the body, from the envelope.
_ENVELOPE = frozenset(BaseEvent.__struct_fields__) - {
    "correlation_id",
    "session_id",
    "user_id",
    "custom_properties",
}

UNKNOWN_TYPE_CHARACTERS = 256

Coercion: TypeAlias = Callable[[Any], Any]
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    # functools.cache, which wants Hashable: mypy takes no class for one.
    def cache(function: F) -> F: ...  # noqa: D103

else:
    from functools import cache


def _encode_unknown(value: object) -> Any:
    # msgspec asks for subclasses of the plain types, too; as such they are written.
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__index__(value)
        case float():
            return float.__float__(value)
        case Mapping():
            return dict(cast("Mapping[Any, Any]", value))
        case list() | tuple():
            return list(cast("list[Any]", value))
        case _:
            number = _as_number(value)
            plain = type(number) is int or type(number) is float
            return number if plain else repr(value)[:UNKNOWN_TYPE_CHARACTERS]


encode_json = msgspec.json.Encoder(
    decimal_format="number", enc_hook=_encode_unknown
).encode


@cache
def payload_fields(cls: type[BaseEvent]) -> frozenset[str]:
    """Name the properties that a class types, without the envelope."""
    return frozenset(cls.__struct_fields__) - _ENVELOPE


def encode_body(fields: dict[str, Any], cls: type[BaseEvent]) -> bytes:
    """
    Write the properties of an event as a JSON object.

    Args:
        fields: The properties by name; left as they are.
        cls: The class that types them.

    Raises:
        InvalidEventError: A field has the wrong type, or a value cannot be written.
    """
    try:
        event = msgspec.convert(fields, cls)
    except msgspec.ValidationError:
        event = _convert_coerced(fields, cls)
    for name in nested_fields(cls):
        if fields.get(name):
            merged = _with_unknown_keys(fields[name], getattr(event, name))
            setattr(event, name, merged)
    try:
        body = encode_json(event)
    except Exception as error:
        raise InvalidEventError(
            f"cannot be written as JSON: {type(error).__name__}"
        ) from error
    if b"NaN" in body or b"Infinity" in body:
        _refuse_non_finite(event, body)
    return body


def _convert_coerced(fields: dict[str, Any], cls: type[BaseEvent]) -> BaseEvent:
    coercions = _coercions(cls)
    coerced = {
        name: coercions[name](value) if name in coercions else value
        for name, value in fields.items()
    }
    try:
        return msgspec.convert(coerced, cls)
    except msgspec.ValidationError as error:
        reason, path = validation_reason(error)
        raise InvalidEventError(reason, path or "$") from None


def _as_id(value: Any) -> Any:
    if isinstance(value, uuid.UUID) or type(value) is int:
        return str(value)
    return _as_text(value)


def _as_text(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    return str.__str__(value) if isinstance(value, str) else value


def _as_integer(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    try:
        return operator.index(value)
    except Exception:  # noqa: BLE001  # the value's own __index__
        return value


def _as_number(value: Any) -> Any:
    # Numbers of other libraries (numpy) are subclasses of float, or turn into one.
    if isinstance(value, Decimal | bool | str):
        return value
    if isinstance(value, float):
        return float(value)
    integer = _as_integer(value)
    return integer if type(integer) is int or not _is_real(value) else float(value)


def _is_real(value: Any) -> bool:
    return hasattr(cast("object", type(value)), "__float__")


@cache
def _coercions(cls: type[BaseEvent]) -> dict[str, Coercion]:
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    found = {field.name: _coercion(field.name, field.type) for field in info.fields}
    return {name: coercion for name, coercion in found.items() if coercion}


def _coercion(name: str, kind: msgspec.inspect.Type) -> Coercion | None:  # noqa: PLR0911  # one for each kind of type
    match kind:
        case msgspec.inspect.Metadata():
            return _coercion(name, kind.type)
        case msgspec.inspect.UnionType():
            found = (_coercion(name, member) for member in kind.types)
            return next(filter(None, found), None)
        case msgspec.inspect.StrType():
            return _as_id if name.endswith("_id") else _as_text
        case msgspec.inspect.IntType():
            return _as_integer
        case msgspec.inspect.DecimalType() | msgspec.inspect.FloatType():
            return _as_number
        case msgspec.inspect.ListType():
            return _coercion_of_list(_coercion(name, kind.item_type))
        case msgspec.inspect.StructType():
            return _coercion_of_struct(kind.cls)
        case _:
            return None


def _coercion_of_list(item: Coercion | None) -> Coercion | None:
    if item is None:
        return None

    def coerce(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [item(element) for element in cast("list[Any]", value)]

    return coerce


def _coercion_of_struct(cls: type[Any]) -> Coercion:
    def coerce(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # Looked up here and not before: a struct may hold structs of its own kind.
        coercions = _coercions(cls)
        return {
            name: coercions[name](element) if name in coercions else element
            for name, element in cast("Mapping[Any, Any]", value).items()
        }

    return coerce


@cache
def nested_fields(cls: type[BaseEvent]) -> tuple[str, ...]:
    """Name the fields that hold structs, whose unknown keys must survive."""
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(field.name for field in info.fields if _holds_struct(field.type))


def _holds_struct(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.Metadata():
            return _holds_struct(kind.type)
        case msgspec.inspect.UnionType():
            return any(map(_holds_struct, kind.types))
        case msgspec.inspect.ListType():
            return _holds_struct(kind.item_type)
        case _:
            return isinstance(kind, msgspec.inspect.StructType)


def _with_unknown_keys(raw: Any, typed: Any) -> Any:
    """Give a converted struct the keys back that its class does not know."""
    if isinstance(typed, list):
        pairs = zip(raw, cast("list[Any]", typed), strict=True)
        return [_with_unknown_keys(*pair) for pair in pairs]
    if not isinstance(typed, msgspec.Struct) or not isinstance(raw, Mapping):
        return typed
    known = typed.__struct_fields__
    raw = cast("Mapping[str, Any]", raw)
    unknown = {name: value for name, value in raw.items() if name not in known}
    if not unknown:
        return typed
    kept = {name: getattr(typed, name) for name in known}
    return {
        **{name: value for name, value in kept.items() if value is not None},
        **unknown,
    }


def _refuse_non_finite(event: BaseEvent, body: bytes) -> None:
    # msgspec writes Decimal("NaN") and Decimal("Infinity") bare, which is no JSON.
    # The words may also stand inside a text, so a strict parser decides.
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        path = _path_of_non_finite(event, "$") or "$"
        raise InvalidEventError("expected a finite number", path) from None


def _path_of_non_finite(value: Any, path: str) -> str | None:
    if isinstance(value, Decimal):
        return None if value.is_finite() else path
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        inner = [(f"{path}.{k}", v) for k, v in cast("dict[Any, Any]", value).items()]
    elif isinstance(value, list | tuple):
        inner = [(f"{path}[{i}]", v) for i, v in enumerate(cast("list[Any]", value))]
    else:
        return None
    found = (_path_of_non_finite(element, where) for where, element in inner)
    return next(filter(None, found), None)
