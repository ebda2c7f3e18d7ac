"""What a class says of the privacy of its fields. Pure; never raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Structure: TypeAlias = (
    msgspec.inspect.StructType
    | msgspec.inspect.DataclassType
    | msgspec.inspect.TypedDictType
    | msgspec.inspect.NamedTupleType
)
_Sequence: TypeAlias = (
    msgspec.inspect.ListType
    | msgspec.inspect.SetType
    | msgspec.inspect.FrozenSetType
    | msgspec.inspect.VarTupleType
)


class Tags(msgspec.Struct, frozen=True):
    """
    The privacy of a class's fields, or of all fields that a value may have inside.

    Attributes:
        fields: Names of the fields.
        policies: Policy by field name, of those that are tagged.
        textless: Names of the fields whose type holds no text.
        open: Names of the fields whose type says not what stands in them.
        inside: Of the fields that hold structures, what these have inside.
    """

    fields: frozenset[str]
    policies: dict[str, str]
    textless: frozenset[str]
    open: frozenset[str] = frozenset()
    inside: dict[str, Tags] = {}


NONE = Tags(frozenset(), {}, frozenset())


def read(cls: type[Any]) -> Tags:
    """
    Read the tags on the fields of a class, and on those of the structures in them.

    Of a class whose types cannot be found (yet) every field is masked: what they may
    hold is not known, and no event of it can be accepted before they are.
    """
    try:
        info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(cls))
        tags = _tags_of(info.fields)
        inside = {
            name: _inside(field.type)
            for field in info.fields
            for name in {field.name, field.encode_name}
        }
    except Exception:  # noqa: BLE001  # names and annotations of the user
        names = frozenset(cast("tuple[str, ...]", cls.__struct_fields__))
        return Tags(names, dict.fromkeys(names, "mask"), frozenset())
    structured = {name: each for name, each in inside.items() if each.fields}
    return msgspec.structs.replace(tags, inside=structured)


def _tags_of(fields: Sequence[msgspec.inspect.Field]) -> Tags:
    # Raw data has the name on the wire, an object the attribute's.
    named = [(name, f.type) for f in fields for name in {f.name, f.encode_name}]
    tagged = {name: _tag(kind) for name, kind in named}
    return Tags(
        fields=frozenset(tagged),
        policies={name: policy for name, policy in tagged.items() if policy},
        textless=frozenset(name for name, kind in named if not _holds_text(kind)),
        open=frozenset(name for name, kind in named if _is_open(kind)),
    )


def _inside(kind: msgspec.inspect.Type) -> Tags:
    """Gather the tags of all structures that a value of this type may hold."""
    found: dict[Any, _Structure] = {}
    todo = list(_structures(kind))
    while todo:
        structure = todo.pop()
        if structure.cls not in found:
            found[structure.cls] = structure
            for field in structure.fields:
                todo += _structures(field.type)
    return _tags_of([field for each in found.values() for field in each.fields])


def _structures(kind: msgspec.inspect.Type) -> Iterator[_Structure]:
    if isinstance(kind, _Structure):
        yield kind
    for part in _parts(kind):
        yield from _structures(part)


def _is_open(kind: msgspec.inspect.Type) -> bool:
    known = isinstance(kind, msgspec.inspect.AnyType | msgspec.inspect.DictType)
    return known or any(map(_is_open, _parts(kind)))


def _parts(kind: msgspec.inspect.Type) -> Sequence[msgspec.inspect.Type]:
    """Name the types that a type is put together from, but for a structure's fields."""
    match kind:
        case msgspec.inspect.Metadata():
            return (kind.type,)
        case msgspec.inspect.UnionType():
            return kind.types
        case msgspec.inspect.TupleType():
            return kind.item_types
        case msgspec.inspect.DictType():
            return (kind.value_type,)
        case _:
            return (kind.item_type,) if isinstance(kind, _Sequence) else ()


def _tag(kind: msgspec.inspect.Type) -> str | None:
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(filter(None, map(_tag, kind.types)), None)
    if not isinstance(kind, msgspec.inspect.Metadata):
        return None
    extra = cast("dict[str, Any] | None", kind.extra)  # pyright: ignore[reportUnknownMemberType]  # a bare dict in msgspec's stub
    return (extra or {}).get("privacy")


def _holds_text(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.Metadata():
            return _holds_text(kind.type)
        case msgspec.inspect.UnionType():
            return any(map(_holds_text, kind.types))
        case _:
            return isinstance(kind, msgspec.inspect.StrType | msgspec.inspect.AnyType)
