"""
Any Python value as plain JSON data, within limits. No I/O; never raises.

`plain` returns nothing but None, bool, int of 64 bits, finite float and Decimal, text
that UTF-8 can write, lists, and dictionaries with distinct text keys. It walks breadth
first and without recursion, so what stands at the top survives when a limit cuts off
the depth. What it is given is only read: iterators are named, not consumed.

What has no JSON of its own is written so: bytes as base64, times in ISO 8601 (naive
ones are UTC), durations in ISO 8601, sets as lists, objects of dataclasses, msgspec,
pydantic and attrs as their fields, enums as their value, numpy's scalars and arrays as
numbers and lists; NaN and infinities as their names, larger integers as their digits.
Anything else is described by its `repr`, and what even that refuses by its type.

A value's own methods may do anything: whatever they raise becomes a marker such as
`<Order: unreadable>`; only KeyboardInterrupt and SystemExit pass.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import math
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from bizlog._text import cut, readable
from bizlog.privacy import DROP, is_id

if TYPE_CHECKING:
    from bizlog.privacy import Protection

# Deeper than anything a reader of events would unfold.
MAX_DEPTH = 32
# At 0.3 to 0.5 µs each this keeps a hostile value below about 25 ms.
MAX_NODES = 50_000
MAX_TEXT = 256 * 1024
MAX_KEY = 512
MAX_REPR = 256
# What Python itself writes as decimal digits (sys.int_info.default_max_str_digits).
MAX_INTEGER_BITS = 14_000

# An enum member whose value is an object of a library that turns into a number.
MAX_STAND_INS = 4


class Shield(msgspec.Struct, frozen=True):
    """
    What privacy asks of the walk.

    Attributes:
        protections: Policy by key, at any depth.
        detect: Masks what looks like personal data inside a text; None where it is off.
    """

    protections: Mapping[str, Protection]
    detect: Callable[[str], str] | None = None


NO_SHIELD = Shield({})


def plain(
    value: Any,
    shield: Shield = NO_SHIELD,
    *,
    max_text: int = MAX_TEXT,
    max_nodes: int = MAX_NODES,
) -> Any:
    """
    Turn a value into plain JSON data.

    Args:
        value: Anything; left as it is.
        shield: Privacy policies to apply on the way.
        max_text: Characters that a text keeps; a marker tells how many went.
        max_nodes: Values that the whole may have; containers are cut beyond it.
    """
    return _Walk(shield, max_text, max_nodes).run(value)


class _Opened:
    """
    What a container holds, read once.

    Attributes:
        elements: Its elements, or pairs of key and value; at most `MAX_NODES`.
        total: How many it has in all.
        keyed: Whether it becomes an object.
    """

    __slots__ = ("elements", "keyed", "total")

    def __init__(self, elements: list[Any], total: int, *, keyed: bool) -> None:
        self.elements = elements
        self.total = total
        self.keyed = keyed


class _StandIn:
    """A value that is written in the place of another."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Place:
    """A container on the walk: where its elements go, and what stands around it."""

    __slots__ = ("depth", "parent", "source", "target")

    def __init__(
        self,
        source: object,
        target: list[Any] | dict[str, Any],
        parent: _Place | None,
    ) -> None:
        self.source = source
        self.target = target
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0

    def is_inside(self, source: object) -> bool:
        """Whether the object is this container or one around it."""
        around: _Place | None = self
        while around:
            if around.source is source:
                return True
            around = around.parent
        return False


class _Walk:
    """One value's way to plain data: what is left of the budget, what is to do."""

    def __init__(self, shield: Shield, max_text: int, max_nodes: int) -> None:
        self._protections = shield.protections
        self._detect = shield.detect
        self._max_text = max_text
        self._nodes = max_nodes
        self._todo: deque[tuple[_Place, _Opened]] = deque()

    def run(self, value: Any) -> Any:
        """Walk the value to its end."""
        result = self._write(value, None, self._detect)
        while self._todo:
            place, opened = self._todo.popleft()
            if isinstance(place.target, list):
                self._fill_list(place, place.target, opened)
            else:
                self._fill_dict(place, place.target, opened)
        return result

    def _fill_list(self, place: _Place, target: list[Any], opened: _Opened) -> None:
        for element in opened.elements:
            if self._nodes <= 0:
                break
            target.append(self._write(element, place, self._detect))
        if len(target) < opened.total:
            target.append(f"…(truncated {opened.total - len(target)})")

    def _fill_dict(
        self, place: _Place, target: dict[str, Any], opened: _Opened
    ) -> None:
        left = opened.total
        for given, element in opened.elements:
            if self._nodes <= 0:
                break
            left -= 1
            key = given if type(given) is str else quietly(_key, given)
            protection = self._protections.get(key)
            value = element if protection is None else protection(element)
            if value is not DROP:
                detect = None if self._detect is None or is_id(key) else self._detect
                name = _distinct(self._key(key), target)
                target[name] = self._write(value, place, detect)
        if left:
            target["…"] = f"…(truncated {left})"

    def _key(self, key: str) -> str:
        key = readable(cut(key, MAX_KEY))
        return self._detect(key) if self._detect else key

    def _write(
        self, value: Any, inside: _Place | None, detect: Callable[[str], str] | None
    ) -> Any:
        """Write a leaf at once, or put a container on the list of things to do."""
        self._nodes -= 1
        source = value
        for _ in range(MAX_STAND_INS):
            if type(value) is str:
                text = readable(cut(value, self._max_text))
                return text if detect is None else detect(text)
            found = quietly(_look_at, value)
            if isinstance(found, _Opened):
                return self._enter(source, found, inside)
            if not isinstance(found, _StandIn | str):
                return found if detect is None else _search_number(found, detect)
            value = found if isinstance(found, str) else found.value
        return f"<{_name(source)}>"

    def _enter(self, source: object, opened: _Opened, inside: _Place | None) -> Any:
        if inside and inside.is_inside(source):
            return "<cycle>"
        if inside and inside.depth + 1 >= MAX_DEPTH:
            return f"<{_name(source)}: too deep>"
        target: list[Any] | dict[str, Any] = {} if opened.keyed else []
        self._todo.append((_Place(source, target, inside), opened))
        return target


def _search_number(value: Any, detect: Callable[[str], str]) -> Any:
    """Search a number as the text it would be: it may have the digits of a card."""
    if value is None or not 10**12 <= abs(value) < 10**19:
        return value
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    masked = detect(text)
    return value if masked == text else masked


def quietly(call: Callable[[Any], Any], value: Any) -> Any:
    """
    Look at a value with code that may run its own methods.

    Whatever it raises becomes a marker. KeyboardInterrupt and SystemExit pass: they are
    meant for the process.
    """
    try:
        return call(value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  # a value's own methods
        return f"<{_name(value)}: unreadable>"


def _name(value: object) -> str:
    """Name a value's class; a metaclass, which may do anything, is not asked."""
    return cast("str", type.__dict__["__name__"].__get__(type(value)))


def _look_at(value: Any) -> Any:
    """Write a leaf, open a container, or name what stands for an object."""
    kind: type[Any] = type(cast("object", value))
    write = _BY_TYPE.get(kind)
    if write is None:
        write = next((w for base, w in _BY_BASE if issubclass(kind, base)), _object)
    return write(value)


# Leaves


def _same(value: Any) -> Any:
    return value


def _integer(value: int) -> Any:
    value = int.__index__(value)
    if -(2**63) <= value < 2**64:
        return value
    bits = value.bit_length()
    return str(value) if bits <= MAX_INTEGER_BITS else f"<int of {bits} bits>"


def _real(value: float) -> Any:
    value = float.__float__(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> Any:
    value = Decimal(value)
    return value if value.is_finite() else str(value)


def _moment(value: dt.datetime) -> str:
    if value.utcoffset() is None:
        return f"{value.replace(tzinfo=None).isoformat()}Z"
    return value.isoformat().replace("+00:00", "Z")


def _duration(value: dt.timedelta) -> str:
    exact = dt.timedelta(value.days, value.seconds, value.microseconds)
    return cast("str", msgspec.to_builtins(exact))


def _binary(value: bytes | bytearray | memoryview) -> str:
    return base64.b64encode(bytes(value[:MAX_TEXT])).decode()


# Containers and objects


def _entries(value: dict[Any, Any]) -> _Opened:
    base = cast("Any", dict)
    items = _settled(lambda: list(islice(base.items(value), MAX_NODES)))
    return _Opened(items, max(len(items), base.__len__(value)), keyed=True)


def _sequence(base: type[Any]) -> Callable[[Any], _Opened]:
    def read(value: Any) -> _Opened:
        elements = _settled(lambda: list(islice(base.__iter__(value), MAX_NODES)))
        return _Opened(elements, max(len(elements), base.__len__(value)), keyed=False)

    return read


def _tuple(value: tuple[Any, ...]) -> _Opened:
    names: Any = getattr(cast("object", type(value)), "_fields", None)
    if names is None:
        return _sequence(tuple)(value)
    pairs: list[Any] = list(zip(names, _sequence(tuple)(value).elements, strict=True))
    return _Opened(pairs, len(pairs), keyed=True)


def _set(base: type[Any]) -> Callable[[Any], _Opened]:
    read = _sequence(base)

    def read_in_order(value: Any) -> _Opened:
        opened = read(value)
        kinds = set(map(type, opened.elements))
        if kinds <= {int} or kinds <= {str}:
            opened.elements.sort()
        return opened

    return read_in_order


def _mapping(value: Mapping[Any, Any]) -> _Opened:
    items = [(key, value[key]) for key in islice(iter(value), MAX_NODES)]
    return _Opened(items, max(len(items), len(value)), keyed=True)


def _settled(read: Callable[[], list[Any]]) -> list[Any]:
    """Read a container that another thread may be changing."""
    for _ in range(3):
        try:
            return read()
        except RuntimeError:
            continue
    return read()


def _enum(value: enum.Enum) -> _StandIn:
    return _StandIn(value.value)


def _object(value: Any) -> Any:
    kind: type[Any] = type(cast("object", value))
    names = _field_names(kind)
    if names is None:
        return _StandIn(_number_or_text(value, kind))
    pairs = [(name, quietly(attrgetter(name), value)) for name in names]
    return _Opened(pairs, len(pairs), keyed=True)


def _field_names(kind: type[Any]) -> Iterable[str] | None:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    for mark in ("__dataclass_fields__", "__pydantic_fields__"):
        fields: Any = getattr(kind, mark, None)
        if isinstance(fields, dict):
            return list(cast("dict[str, Any]", fields))
    attributes: Any = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else [each.name for each in attributes]


def _number_or_text(value: Any, kind: type[Any]) -> Any:
    if kind.__module__ == "numpy" and getattr(value, "size", 1) <= MAX_NODES:
        return value.tolist()
    if hasattr(kind, "__index__"):
        return int(value.__index__())
    if hasattr(kind, "__float__"):
        return float(value.__float__())
    if cast("Any", kind).__repr__ is object.__repr__ or hasattr(kind, "__next__"):
        return f"<{_name(value)}>"  # its repr tells nothing but the address
    return str(repr(value))[:MAX_REPR]


_Look: TypeAlias = Callable[[Any], Any]

_BY_TYPE: dict[type[Any], _Look] = {
    type(None): _same,
    bool: _same,
    int: _integer,
    float: _real,
    Decimal: _decimal,
    dict: _entries,
    list: _sequence(list),
    tuple: _sequence(tuple),
}

# In this order: an enum may be text, a datetime is a date. A subclass is written as the
# plain type that it extends, whatever it overrides.
_BY_BASE: tuple[tuple[type[Any], _Look], ...] = (
    (enum.Enum, _enum),
    (str, str.__str__),
    (int, _integer),
    (float, _real),
    (Decimal, _decimal),
    (uuid.UUID, lambda value: str(uuid.UUID(int=value.int))),
    (dt.datetime, _moment),
    (dt.date, dt.date.isoformat),
    (dt.time, dt.time.isoformat),
    (dt.timedelta, _duration),
    (bytes, _binary),
    (bytearray, _binary),
    (memoryview, _binary),
    (dict, _entries),
    (list, _sequence(list)),
    (tuple, _tuple),
    (deque, _sequence(deque)),
    (set, _set(set)),
    (frozenset, _set(frozenset)),
    (Mapping, _mapping),
)


# Keys


def _key(key: Any) -> str:
    """Write a key as JSON would write the value."""
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    found = _look_at(key)
    while isinstance(found, _StandIn):
        found = _look_at(found.value)
    return f"<{_name(key)}>" if isinstance(found, _Opened) else str(found)


def _distinct(key: str, taken: Mapping[str, Any]) -> str:
    """Number a key that stands there already: `{1: a, "1": b}` keeps both."""
    if key not in taken:
        return key
    number = len(taken) + 1
    while f"{key}#{number}" in taken:
        number += 1
    return f"{key}#{number}"
