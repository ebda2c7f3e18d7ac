"""Any value becomes plain JSON data, within limits, and stays as it is itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import sys
import threading
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import attrs
import msgspec
import numpy as np
import orjson
import pydantic
import pytest

from bizlog.values import (
    MAX_DEPTH,
    MAX_KEY,
    MAX_NODES,
    MAX_TEXT,
    Shield,
    plain,
)

UUID = uuid.UUID("0193a6a0-0000-7000-8000-000000000001")
PLUS_TWO = dt.timezone(dt.timedelta(hours=2))


class Colour(enum.Enum):
    """An enum of text."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    HIGH = 3


class Text(str):
    """A str of another kind, which lies."""

    __slots__ = ()

    def __str__(self) -> str:
        return "lie"


class Integer(int):
    """An int of another kind."""


class Real(float):
    """A float of another kind, as numpy's float64 is."""


class Lines(list):
    """A list of another kind, which refuses to be read."""

    def __iter__(self) -> Any:
        raise RuntimeError


class Bag(dict):
    """A dictionary of another kind, which refuses to be read."""

    def items(self) -> Any:
        raise RuntimeError


Point = namedtuple("Point", "x y")  # noqa: PYI024  # as old code has them


@dataclasses.dataclass
class Card:
    """A dataclass with another inside."""

    number: int
    inner: Any = None


class Struct(msgspec.Struct):
    """A msgspec struct."""

    name: str
    when: dt.date


@attrs.define
class Attrs:
    """A class of attrs."""

    a: int = 1


class Model(pydantic.BaseModel):
    """A model of pydantic."""

    a: Decimal
    secret: pydantic.SecretStr = pydantic.SecretStr("hush")


class Gone:
    """A dataclass, as far as one can see, that lost an attribute."""

    __dataclass_fields__ = {"gone": None}  # noqa: RUF012  # as dataclasses have it


class Number:
    """A number of another library."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


class Whole(Number):
    """An integer of another library."""

    def __index__(self) -> int:
        return int(self.value)


class Other:
    """A value of no kind."""

    def __repr__(self) -> str:
        return "other" * 100


def generator() -> Any:
    """Yield what nobody may take."""
    yield 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        pytest.param(10**5000, "<int of 16610 bits>", id="huge"),
        (1.5, 1.5),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (Decimal("9.90"), Decimal("9.90")),
        (Decimal("NaN"), "NaN"),
        (Decimal("sNaN"), "sNaN"),
        (Decimal("-Infinity"), "-Infinity"),
        ("x\x00y", "x\x00y"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        (b"\xff\x00", "/wA="),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (UUID, str(UUID)),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006Z"),  # noqa: DTZ001  # that is the point
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00Z"),
        (dt.datetime(2026, 1, 2, tzinfo=PLUS_TWO), "2026-01-02T00:00:00+02:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(seconds=1, microseconds=500_000), "PT1.5S"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Text("x"), "x"),
        (Integer(5), 5),
        (Integer(2**70), str(2**70)),
        (Real(1.5), 1.5),
        (Real(math.nan), "NaN"),
        (Lines([1, 2]), [1, 2]),
        (Bag(a=1), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict({"a": 1}), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), {"x": 1, "y": 2}),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (deque([1]), [1]),
        (Card(1, Card(2)), {"number": 1, "inner": {"number": 2, "inner": None}}),
        (Struct("x", dt.date(2026, 1, 2)), {"name": "x", "when": "2026-01-02"}),
        (Attrs(), {"a": 1}),
        (
            Model(a=Decimal("1.50")),
            {"a": Decimal("1.50"), "secret": "SecretStr('**********')"},
        ),
        (Gone(), {"gone": "<Gone: unreadable>"}),
        (range(2), "range(0, 2)"),
        (Number(2.5), 2.5),
        (Number(math.inf), "Infinity"),
        (Whole(3), 3),
        (generator(), "<generator>"),
        (iter([1]), "<list_iterator>"),
        (object(), "<object>"),
        (Other(), ("other" * 100)[:256]),
        (ValueError("x"), "ValueError('x')"),
    ],
)
def test_every_kind_of_value_has_its_json(given: Any, expected: Any) -> None:
    """What a value becomes is the same at the top, in a list and under a key."""
    assert plain(given) == expected
    assert plain([given]) == [expected]
    assert plain({"k": given}) == {"k": expected}
    assert type(plain(given)) is type(expected)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        (UUID, str(UUID)),
        (Colour.RED, "red"),
        (Level.HIGH, "3"),
        (Text("x"), "x"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ((1, 2), "<tuple>"),
        (b"a", "YQ=="),
        ("\ud800", "\ufffd"),
        pytest.param(10**5000, "<int of 16610 bits>", id="huge"),
    ],
)
def test_keys_are_text(key: Any, expected: str) -> None:
    """A key is written as JSON would write the value, without quotes."""
    assert plain({key: 0}) == {expected: 0}


def test_colliding_keys_are_numbered() -> None:
    """No value is lost to another one with the same key on the wire."""
    given = {1: "a", "1": "b", "1#2": "c", UUID: "d", str(UUID): "e"}
    found = plain(given)
    assert found["1"] == "a"
    assert sorted(found.values()) == ["a", "b", "c", "d", "e"]


def test_long_keys_that_collide_do_not_cost_their_square() -> None:
    """Keys that are equal once they are cut stay apart, and are found at once."""
    keys = {("k" * MAX_KEY) + str(number): number for number in range(3_000)}
    assert sorted(plain(keys).values()) == list(range(3_000))


def test_a_cycle_is_named() -> None:
    """A container inside itself ends there, and its siblings stay."""
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    loop["list"] = [loop]
    assert plain(loop) == {"a": 1, "self": "<cycle>", "list": ["<cycle>"]}


def test_a_container_twice_is_no_cycle() -> None:
    """The same list at two places is written at both."""
    shared = [1]
    assert plain({"a": shared, "b": [shared]}) == {"a": [1], "b": [[1]]}


def test_depth_has_an_end() -> None:
    """A hundred thousand levels become as many as the limit, without recursion."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    found = plain(deep)
    levels = 0
    while isinstance(found, list):
        levels, found = levels + 1, found[0]
    assert levels == MAX_DEPTH
    assert found == "<list: too deep>"
    while deep:  # or its end would recurse
        deep = deep.pop()


def test_nodes_have_an_end() -> None:
    """A wide value is cut, what is cut is counted, and the top comes first."""
    wide = {"list": list(range(MAX_NODES + 10)), "after": 1}
    found = plain(wide, max_nodes=100)
    assert found["after"] == 1
    assert found["list"][-1] == f"…(truncated {MAX_NODES + 10 - 97})"
    assert len(found["list"]) == 98


def test_a_wide_dictionary_is_cut() -> None:
    """What a dictionary loses is counted under a key of its own."""
    found = plain(dict.fromkeys(range(200)), max_nodes=51)
    assert found["…"] == "…(truncated 150)"
    assert len(found) == 51


def test_shared_lists_do_not_grow_without_end() -> None:
    """A small object that would unfold to billions of values stays small."""
    laughs: list[Any] = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    assert len(json.dumps(plain(laughs))) < 60 * MAX_NODES


def test_long_text_is_cut_with_a_marker() -> None:
    """The marker says how many characters went."""
    assert plain("x" * (MAX_TEXT + 5)) == "x" * MAX_TEXT + "…(truncated 5)"
    assert plain("abcdef", max_text=4) == "abcd…(truncated 2)"


def test_a_dictionary_that_changes_meanwhile_is_read_once() -> None:
    """Another thread that adds and removes keys breaks nothing."""
    changing: dict[Any, int] = dict.fromkeys(range(500), 1)
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            changing[f"k{number % 700}"] = number
            changing.pop(f"k{(number * 7) % 700}", None)
            number += 1

    thread = threading.Thread(target=change)
    before, _ = sys.getswitchinterval(), sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(50):
            assert isinstance(plain({"d": changing})["d"], dict)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)


def raising(error: type[BaseException], *methods: str) -> Any:
    """Make an object whose methods raise."""

    def fail(*_: Any) -> Any:
        raise error

    return type("Hostile", (), dict.fromkeys(methods, fail))()


@pytest.mark.parametrize("error", [ValueError, GeneratorExit, BaseException])
@pytest.mark.parametrize(
    "methods",
    [
        ("__repr__", "__str__"),
        ("__index__",),
        ("__float__",),
        ("__repr__", "__hash__", "__eq__", "__len__", "__iter__", "__getattribute__"),
    ],
)
def test_an_object_that_raises_is_named(
    error: type[BaseException], methods: tuple[str, ...]
) -> None:
    """Whatever a value's methods raise becomes a marker with its type."""
    assert plain([raising(error, *methods), 1]) == ["<Hostile: unreadable>", 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes(error: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit are not for us."""
    with pytest.raises(error):
        plain([raising(error, "__repr__")])


def test_a_class_attribute_that_raises_is_survived() -> None:
    """An object whose `__class__` raises is looked at by its type."""

    class Liar:
        @property
        def __class__(self) -> Any:
            raise RuntimeError

        def __repr__(self) -> str:
            return "liar"

    assert plain(Liar()) == "liar"


def test_iterators_are_not_consumed() -> None:
    """What the caller iterates over is still there afterwards."""
    numbers = iter([1, 2, 3])
    plain({"numbers": numbers})
    assert list(numbers) == [1, 2, 3]


def test_numpy_becomes_numbers_and_lists() -> None:
    """Scalars, arrays and times of numpy are written as Python's."""
    given = {
        "f": np.float32(1.5),
        "i": np.int64(7),
        "b": np.bool_(True),
        "nan": np.float64("nan"),
        "a": np.array([[1, 2], [3, 4]]),
        "t": np.datetime64("2026-01-02"),
    }
    assert plain(given) == {
        "f": 1.5,
        "i": 7,
        "b": True,
        "nan": "NaN",
        "a": [[1, 2], [3, 4]],
        "t": "2026-01-02",
    }


# Privacy on the way


def shield(**protections: Any) -> Shield:
    """Make a shield that masks a word, too."""
    return Shield(protections, lambda text: text.replace("secret", "[x]"))


def test_policies_hold_at_every_depth() -> None:
    """A protected key is protected wherever it stands."""
    given = {"name": "Jane", "a": [{"name": "Joe", "b": {"name": ["Jim"]}}]}
    found = plain(given, shield(name=lambda _: "***"))
    assert found == {"name": "***", "a": [{"name": "***", "b": {"name": "***"}}]}


def test_dropped_keys_are_gone() -> None:
    """A policy that drops leaves no key and no marker."""
    from bizlog.privacy import DROP  # noqa: PLC0415  # for this test only

    assert plain({"name": "Jane", "x": 1}, shield(name=lambda _: DROP)) == {"x": 1}


def test_detectors_see_texts_and_keys_but_no_ids() -> None:
    """Texts and keys at every depth, texts that objects become included; no ids."""
    given = {
        "a": "my secret",
        "secret": ["secret"],
        "session_id": "secret",
        "list": [{"order_id": "secret", "note": Text("secret")}],
    }
    assert plain(given, shield()) == {
        "a": "my [x]",
        "[x]": ["[x]"],
        "session_id": "secret",
        "list": [{"order_id": "secret", "note": "[x]"}],
    }


def test_the_result_is_json_for_everybody() -> None:
    """A strict parser reads what msgspec writes of it."""
    given = {"a": [1, 2.5, Decimal("1.10"), None, True, "\ud800", {1: {2}}]}
    written = msgspec.json.Encoder(decimal_format="number").encode(plain(given))
    assert orjson.loads(written)["a"][2] == 1.1
