"""
Strict twins of the event classes, for events that are nothing but typed fields.

A service's events nearly all look alike: known names, fields of the right types,
nothing else. A twin has just these fields and forbids any other, so that one conversion
in C decides whether an event is of that kind; if it is, encoding the twin gives the
same bytes as the processors would (a property test holds that). Pure; made once for
each class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import msgspec

from bizlog.coercion import (
    IDS,
    cache,
    encode_json,
    fields_of,
    is_finite,
    is_plain,
    payload_fields,
)
from bizlog.events import BaseEvent
from bizlog.privacy import DROP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bizlog.privacy import Protection

_ID_ORDER = tuple(name for name in BaseEvent.__struct_fields__ if name in IDS)


class Form(msgspec.Struct, frozen=True):
    """
    How to write an event that has only the fields of a twin.

    Attributes:
        cls: The twin.
        guards: The policies of its fields, but for those that the twin's types hold.
        decimals: Its fields of type Decimal: NaN is written bare by msgspec.
        floats: Its fields that may be float: NaN is written as null.
        lists: Its fields that are lists of twins, each with their numbers.
        is_flat: Whether it has neither guards nor floats nor lists.
    """

    cls: type[msgspec.Struct]
    guards: tuple[tuple[str, Protection], ...]
    decimals: tuple[str, ...]
    floats: tuple[str, ...]
    lists: tuple[tuple[str, tuple[str, ...]], ...]
    is_flat: bool = False

    def __post_init__(self) -> None:
        flat = not (self.guards or self.floats or self.lists)
        msgspec.structs.force_setattr(self, "is_flat", flat)

    def write(self, fields: Mapping[str, Any]) -> bytes | None:
        """
        Write the fields as a JSON object.

        Returns:
            The object, or None where a number is not finite.

        Raises:
            Exception: Anything, where the fields are not of this form.
        """
        event = msgspec.convert(fields, self.cls)
        for name in self.decimals:
            value = getattr(event, name)
            if value is not None and not value.is_finite():
                return None
        if self.is_flat or self._guard(event):
            return encode_json(event)
        return None

    def _guard(self, event: msgspec.Struct) -> bool:
        """Apply the policies; say whether all other numbers are finite."""
        for name, protection in self.guards:
            value = getattr(event, name)
            if value is not None:
                protected = protection(value)
                if protected is not value:
                    setattr(event, name, None if protected is DROP else protected)
        return _are_finite([event], self.floats) and all(
            _are_finite(getattr(event, name) or (), numbers)
            for name, numbers in self.lists
        )


def _are_finite(items: Iterable[msgspec.Struct], numbers: tuple[str, ...]) -> bool:
    values = (getattr(item, name) for item in items for name in numbers)
    return all(value is None or is_finite(value) for value in values)


def make_form(
    cls: type[BaseEvent], protections: Mapping[str, Protection], *, with_ids: bool
) -> Form | None:
    """
    Make the form of an event class.

    Args:
        cls: The class that types the event.
        protections: Policies by field name.
        with_ids: Whether the events bring their ids (correlation, session, user)
            themselves; else these are spliced in from the context.

    Returns:
        The form, or None where only the processors can write events of this class.
    """
    limits = frozenset(
        (name, limit)
        for name, protection in protections.items()
        if (limit := cast("int | None", getattr(protection, "max_length", None)))
    )
    try:
        blank = _blank_form(cls, limits, with_ids)
    except Exception:  # noqa: BLE001  # a type that msgspec cannot make a twin of
        return None
    if blank is None:
        return None
    guards = ((n, protections[n]) for n in blank.guarded if n in protections)
    return Form(blank.cls, tuple(guards), blank.decimals, blank.floats, blank.lists)


class _Blank(msgspec.Struct, frozen=True):
    """A form without its guards, which differ from client to client."""

    cls: type[msgspec.Struct]
    guarded: tuple[str, ...]
    decimals: tuple[str, ...]
    floats: tuple[str, ...]
    lists: tuple[tuple[str, tuple[str, ...]], ...]


@cache
def _blank_form(
    cls: type[BaseEvent],
    limits: frozenset[tuple[str, int]],
    with_ids: bool,  # noqa: FBT001  # `cache` wants it by position
) -> _Blank | None:
    names = payload_fields(cls) - {"custom_properties"}
    struct = cast("type[msgspec.Struct]", cls)
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    if not _is_ordinary(struct, [f for f in fields.values() if f.name in names]):
        return None
    chosen: list[tuple[str, Any, Any]] = []
    lists: list[tuple[str, tuple[str, ...]]] = []
    plain: dict[str, msgspec.inspect.Type] = {}
    held: set[str] = set()
    for name, kind in ((f.name, f.type) for f in fields_of(cls) if f.name in names):
        field, item = fields[name], _item_of(kind)
        if name in IDS and not with_ids:
            continue
        if is_plain(kind):
            plain[name] = kind
            limit = dict(limits).get(name) if _takes_limit(kind) else None
            held |= {name} if limit else set()
            shown = _text_up_to(limit, kind) if limit else field.type
            chosen.append((name, shown, _default_of(field)))
        elif item is not None and field.default is None:
            twin = _twin_of_item(item)
            lists.append((name, _holding(_kinds(item))))
            chosen.append((name, Optional[list[twin]], None))  # type: ignore[valid-type]  # noqa: UP045  # made at run time
        elif field.default is not None:
            return None  # would have to be written, and only the processors can
    return _Blank(
        cls=_twin(cls.__name__, chosen),
        guarded=tuple(name for name, *_ in chosen if name not in held),
        decimals=_holding(plain, only=msgspec.inspect.DecimalType),
        floats=_holding(plain, only=msgspec.inspect.FloatType),
        lists=tuple(lists),
    )


def _twin(name: str, fields: list[tuple[str, Any, Any]]) -> type[msgspec.Struct]:
    # No reference cycle can go through plain values: nothing for the collector.
    return msgspec.defstruct(
        name,
        fields,
        kw_only=True,
        omit_defaults=True,
        forbid_unknown_fields=True,
        gc=False,
    )


def _twin_of_item(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    fields = msgspec.structs.fields(cls)
    return _twin(cls.__name__, [(f.name, f.type, _default_of(f)) for f in fields])


def _is_ordinary(
    cls: type[msgspec.Struct], fields: list[msgspec.structs.FieldInfo]
) -> bool:
    """Whether a class adds nothing that a twin does not have."""
    ids = tuple(field.name for field in fields[: len(_ID_ORDER)])
    return (
        ids == _ID_ORDER
        and all(field.name == field.encode_name for field in fields)
        and not hasattr(cls, "__post_init__")
        and cls.__struct_config__.tag is None
    )


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    if field.default is None or field.default is msgspec.NODEFAULT:
        return field.default
    # Only null may be absent, and msgspec leaves out a value that *is* the default.
    return msgspec.field(default_factory=lambda: field.default)


def _kinds(cls: type[msgspec.Struct]) -> dict[str, msgspec.inspect.Type]:
    return {field.name: field.type for field in fields_of(cls)}


def _item_of(kind: msgspec.inspect.Type) -> type[msgspec.Struct] | None:
    """Name the class of a field that is a list of structs, all of plain values."""
    match kind:
        case msgspec.inspect.Metadata():
            return _item_of(kind.type)
        case msgspec.inspect.UnionType():
            found = [_item_of(each) for each in kind.types]
            rest = [each for each in kind.types if _item_of(each) is None]
            only_null = all(isinstance(each, msgspec.inspect.NoneType) for each in rest)
            return next(filter(None, found), None) if only_null else None
        case msgspec.inspect.ListType(
            item_type=msgspec.inspect.StructType(cls=cls, fields=fields)
        ):
            flat = all(map(_is_flat, fields))
            ordinary = (
                flat and not hasattr(cls, "__post_init__") and not kind.max_length
            )
            return cls if ordinary else None
        case _:
            return None


def _takes_limit(kind: msgspec.inspect.Type) -> bool:
    """
    Whether a twin itself can hold a text to the length at which its policy cuts it.

    It refuses a longer one, and then the processors cut it: so that policy costs an
    ordinary event nothing.
    """
    match kind:
        case msgspec.inspect.Metadata():
            return _takes_limit(kind.type)
        case msgspec.inspect.UnionType(types=(text, msgspec.inspect.NoneType())):
            return _takes_limit(text)
        case _:
            return kind == msgspec.inspect.StrType()


def _text_up_to(limit: int, kind: msgspec.inspect.Type) -> Any:
    text = Annotated[str, msgspec.Meta(max_length=limit)]
    if isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    return Optional[text] if isinstance(kind, msgspec.inspect.UnionType) else text  # noqa: UP045  # made at run time


def _is_flat(field: msgspec.inspect.Field) -> bool:
    bare = field.type
    while isinstance(bare, msgspec.inspect.Metadata):
        bare = bare.type
    kinds = bare.types if isinstance(bare, msgspec.inspect.UnionType) else (bare,)
    may_be_null = any(isinstance(kind, msgspec.inspect.NoneType) for kind in kinds)
    return (
        is_plain(field.type)
        and field.encode_name == field.name
        # A null that is not the default would be written; the processors leave it out.
        and (not may_be_null or field.default is None)
    )


def _holding(
    kinds: Mapping[str, msgspec.inspect.Type],
    only: type[msgspec.inspect.Type] = msgspec.inspect.Type,
) -> tuple[str, ...]:
    """Name the fields that may be infinite or NaN; `only` one kind of number."""
    return tuple(n for n, kind in kinds.items() if _may_be_endless(kind, only))


def _may_be_endless(
    kind: msgspec.inspect.Type, only: type[msgspec.inspect.Type]
) -> bool:
    match kind:
        case msgspec.inspect.Metadata():
            return _may_be_endless(kind.type, only)
        case msgspec.inspect.UnionType():
            return any(_may_be_endless(each, only) for each in kind.types)
        case _:
            endless = msgspec.inspect.DecimalType | msgspec.inspect.FloatType
            return isinstance(kind, endless) and isinstance(kind, only)
