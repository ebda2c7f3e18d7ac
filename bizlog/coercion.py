"""
From a caller's values to the JSON of a typed event: validate, coerce, encode. No I/O.

The quick way is one msgspec conversion and one encoding. Where the conversion refuses,
the values that the wire format accepts in other clothes are coerced (ids given as int
or UUID, enums, numbers of other libraries) and it is tried once more; what is refused
then breaks the schema. Money stays a Decimal and is written as an exact JSON number.

What a class does not type down to plain values (`custom_properties`, keys of items that
nobody knows, fields of type Any) goes through `values.plain`, so that the encoder meets
nothing it could not write or would write silently wrong: msgspec itself writes NaN as
null, `Decimal("NaN")` bare, and `{1: ..., "1": ...}` with one key twice.
"""

from __future__ import annotations

import enum
import math
import operator
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import msgspec

from bizlog._wording import validation_reason
from bizlog.events import BaseEvent
from bizlog.exceptions import InvalidEventError
from bizlog.values import NO_SHIELD, Shield, plain

IDS = frozenset({"correlation_id", "session_id", "user_id"})

# Written by the chain in front of the body, from the envelope.
_ENVELOPE = frozenset(BaseEvent.__struct_fields__) - IDS - {"custom_properties"}

# An event that is larger has its long texts cut, to less and less, until it fits.
SOFT_LIMIT_BYTES = 256 * 1024
CUTS = (64 * 1024, 16 * 1024, 4 * 1024, 1024, 256)

# One that is still larger than this is refused: sinks take batches of 900 KiB and more.
HARD_LIMIT_BYTES = 900 * 1024

Coercion: TypeAlias = Callable[[Any], Any]
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    # functools.cache, which wants Hashable: mypy takes no class for one.
    def cache(function: F) -> F: ...  # noqa: D103  # see above

else:
    from functools import cache


encode_json = msgspec.json.Encoder(decimal_format="number").encode


@cache
def payload_fields(cls: type[BaseEvent]) -> frozenset[str]:
    """Name the properties that a class types, without the envelope."""
    return frozenset(cls.__struct_fields__) - _ENVELOPE


def encode_body(
    fields: dict[str, Any], cls: type[BaseEvent], shield: Shield = NO_SHIELD
) -> bytes:
    """
    Write the properties of an event as a JSON object.

    Args:
        fields: The properties by name; left as they are.
        cls: The class that types them.
        shield: Privacy policies for what the class does not type.

    Raises:
        InvalidEventError: A field has the wrong type, a number is not finite, or the
            event is too large.
    """
    custom = fields.get("custom_properties")
    if custom:
        fields = {**fields, "custom_properties": _plain_table(custom, shield)}
    event = convert(fields, cls)
    _refuse_no_numbers(event, "$")
    for name in open_fields(cls):
        value = getattr(event, name)
        if value is not None:
            whole = _with_unknown_keys(fields.get(name), value, shield)
            setattr(event, name, plain(whole))
    body = _encode(event)
    if len(body) <= SOFT_LIMIT_BYTES:
        return body
    return _cut_to_size(event)


def _plain_table(value: Mapping[Any, Any], shield: Shield) -> dict[str, Any]:
    table = plain(value, shield)
    if type(table) is not dict:
        # A dictionary has no methods of its own that could fail.
        raise RecursionError("no depth left to read a dictionary")
    return cast("dict[str, Any]", table)


def convert(fields: Mapping[str, Any], cls: type[BaseEvent]) -> BaseEvent:
    """
    Type the properties, coercing where the wire format accepts more than the class.

    Raises:
        InvalidEventError: A field has the wrong type; with its path.
    """
    try:
        return msgspec.convert(fields, cls)
    except msgspec.ValidationError:
        return _convert_coerced(fields, cls)


def _encode(event: BaseEvent) -> bytes:
    try:
        return encode_json(event)
    except (UnicodeEncodeError, TypeError):  # lone surrogates, subclasses of text
        for name, value in _present(event).items():
            setattr(event, name, plain(value))
        return encode_json(event)


def _refuse_no_numbers(value: Any, path: str) -> None:
    """Refuse a number that JSON does not have, wherever a class types it as one."""
    if isinstance(value, list):
        for index, element in enumerate(cast("list[Any]", value)):
            _refuse_no_numbers(element, f"{path}[{index}]")
    elif isinstance(value, msgspec.Struct):
        kind = type(value)
        for name in number_fields(kind):
            _refuse_no_number(getattr(value, name), f"{path}.{name}")
        for name in struct_fields(kind):
            _refuse_no_numbers(getattr(value, name), f"{path}.{name}")


def _refuse_no_number(value: Any, path: str) -> None:
    kind: type[Any] = type(cast("object", value))
    if kind is int and not -(2**63) <= value < 2**64:
        raise InvalidEventError(
            "expected an integer of 64 bits, got a larger one", path
        )
    if kind in {float, Decimal} and not is_finite(value):
        raise InvalidEventError(
            f"expected a finite number, got {kind.__name__} {value}", path
        )


def is_finite(number: float | Decimal) -> bool:
    """Whether a number is neither infinite nor NaN."""
    if isinstance(number, Decimal):
        return number.is_finite()
    return math.isfinite(number)


def _cut_to_size(event: BaseEvent) -> bytes:
    whole, body = _present(event), b""
    for limit in CUTS:
        body = encode_json(plain(whole, max_text=limit))
        if len(body) <= SOFT_LIMIT_BYTES:
            return body
    if len(body) > HARD_LIMIT_BYTES:
        raise InvalidEventError(
            f"expected an event of at most {HARD_LIMIT_BYTES:,} bytes, got "
            f"{len(body):,} with its long texts cut",
            "$",
        )
    return body


def _present(event: BaseEvent) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in event.__struct_fields__}
    return {
        name: value
        for name, value in values.items()
        if value is not None and name not in _ENVELOPE
    }


def _convert_coerced(fields: Mapping[str, Any], cls: type[BaseEvent]) -> BaseEvent:
    coercions = _coercions(cls)
    coerced = {
        name: _coerce(coercions[name], value) if name in coercions else value
        for name, value in fields.items()
    }
    try:
        return msgspec.convert(coerced, cls)
    except msgspec.ValidationError as error:
        reason, path = validation_reason(error)
        raise InvalidEventError(reason, path or "$") from None


def _coerce(coercion: Coercion, value: Any) -> Any:
    try:
        return coercion(value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # the value's own methods: refused as it is
        return value


def _as_id(value: Any) -> Any:
    if isinstance(value, uuid.UUID) or type(value) is int:
        return str(value)
    return _as_text(value)


def _as_text(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    return str.__str__(value) if isinstance(value, str) else value


def _as_member(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


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
    found = {field.name: _coercion(field.name, field.type) for field in fields_of(cls)}
    return {name: coercion for name, coercion in found.items() if coercion}


def _coercion(name: str, kind: msgspec.inspect.Type) -> Coercion | None:  # noqa: PLR0911  # one for each kind of type
    match kind:
        case msgspec.inspect.Metadata():
            return _coercion(name, kind.type)
        case msgspec.inspect.UnionType():
            found = (_coercion(name, member) for member in kind.types)
            return next(filter(None, found), None)
        case msgspec.inspect.EnumType():
            return _as_member
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


# What a class leaves open


@cache
def open_fields(cls: type[BaseEvent]) -> tuple[str, ...]:
    """Name the fields whose type does not come down to plain values."""
    names = payload_fields(cls) - {"custom_properties"}
    return tuple(
        field.name
        for field in fields_of(cls)
        if field.name in names and not is_plain(field.type)
    )


@cache
def number_fields(cls: type[Any]) -> tuple[str, ...]:
    """Name the fields that may hold a number, which must be one that JSON has."""
    return tuple(field.name for field in fields_of(cls) if _may_be_number(field.type))


@cache
def fields_of(cls: type[Any]) -> tuple[msgspec.inspect.Field, ...]:
    """Inspect the fields of a struct class."""
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    return info.fields


_PLAIN = (
    msgspec.inspect.BoolType
    | msgspec.inspect.DecimalType
    | msgspec.inspect.FloatType
    | msgspec.inspect.IntType
    | msgspec.inspect.LiteralType
    | msgspec.inspect.NoneType
    | msgspec.inspect.StrType
)


def is_plain(kind: msgspec.inspect.Type) -> bool:
    """Whether a value of this type is a number, a text, a truth value or null."""
    match kind:
        case msgspec.inspect.Metadata():
            return is_plain(kind.type)
        case msgspec.inspect.UnionType():
            return all(map(is_plain, kind.types))
        case _:
            return isinstance(kind, _PLAIN)


@cache
def struct_fields(cls: type[Any]) -> tuple[str, ...]:
    """Name the fields that hold structs, or lists of them."""
    return tuple(field.name for field in fields_of(cls) if _holds_struct(field.type))


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


_NUMBER = (
    msgspec.inspect.DecimalType | msgspec.inspect.FloatType | msgspec.inspect.IntType
)


def _may_be_number(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.Metadata():
            return _may_be_number(kind.type)
        case msgspec.inspect.UnionType():
            return any(map(_may_be_number, kind.types))
        case _:
            return isinstance(kind, _NUMBER)


def _with_unknown_keys(raw: Any, typed: Any, shield: Shield) -> Any:
    """Give a converted struct the keys back that its class does not know."""
    if isinstance(typed, list) and isinstance(raw, list | tuple):
        pairs = zip(cast("list[Any]", raw), cast("list[Any]", typed), strict=True)
        return [_with_unknown_keys(*pair, shield) for pair in pairs]
    if not isinstance(typed, msgspec.Struct):
        return cast("object", typed)
    known = typed.__struct_fields__
    kept = {name: getattr(typed, name) for name in known}
    kept = {name: value for name, value in kept.items() if value is not None}
    if not isinstance(raw, Mapping):
        return kept
    unknown = {k: v for k, v in cast("Any", raw).items() if k not in known}
    return {**kept, **_plain_table(unknown, shield)} if unknown else kept
