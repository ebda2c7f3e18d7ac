"""Pseudonyms: the same value, the same text, whatever type it comes in."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import uuid
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from bizlog.events import OrderEvent
from bizlog.privacy import Privacy
from bizlog.pseudonyms import HashKeys

KEY = b"0123456789abcdef"
EMAIL = "jane.doe@example.com"


class Color(enum.Enum):
    TEXT = "jane.doe@example.com"
    NUMBER = 7


class Text(str):
    """A text with methods of its own."""

    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no")


class Whole(int):
    """A subclass of int that lies about itself."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __index__ = __repr__


class Real(float):
    """A subclass of float that lies about itself."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __float__ = __repr__


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__
    __eq__ = __repr__
    __hash__ = __repr__


class Plain:
    """Has a repr with an address."""


class Named:
    """Says of itself what it is."""

    def __str__(self):
        return "user 7"


@dataclasses.dataclass
class Owner:
    name: str
    since: int


def test_a_pseudonym_is_32_hex_digits_of_the_key():
    """The same text has the same one wherever the key is the same."""
    one = Privacy({}, KEY).pseudonym(EMAIL)

    assert one == Privacy({}, KEY).pseudonym(EMAIL)
    assert one != Privacy({}, KEY + b"x").pseudonym(EMAIL)
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")


def test_without_a_key_there_is_one_for_the_process():
    """Random: what another client wrote cannot be joined, let alone guessed."""
    assert Privacy().pseudonym(EMAIL) != Privacy().pseudonym(EMAIL)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"),
        (10**30, str(10**30)),
        (True, "true"),
        pytest.param(Whole(42), "42", id="int"),
        pytest.param(Real(1.5), "1.5", id="float"),
        ([Whole(42), Real(1.5)], "[42,1.5]"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (Text("jane"), "jane"),
        (Color.TEXT, "jane.doe@example.com"),
        (Color.NUMBER, "7"),
        ({"b": 1, "a": [Text("x")]}, '{"a":["x"],"b":1}'),
        (MappingProxyType({"b": 1, "a": 2}), '{"a":2,"b":1}'),
        ({"b", "a"}, '["a","b"]'),
        (Owner("n", 3), '{"name":"n","since":3}'),
        (Named(), "user 7"),
        (Plain(), "<Plain>"),
        ([Plain(), Plain], '["<Plain>","<class \'' + f"{__name__}.Plain'>\"]"),
        (iter([1]), "<list_iterator>"),
        (Hostile(), "<Hostile>"),
        ({"a": Hostile()}, "<dict>"),
    ],
)
def test_a_value_has_the_pseudonym_of_its_text(value, text):
    """So an id joins whether it came as a number, an enum or as text."""
    privacy = Privacy({}, KEY)
    assert privacy.pseudonym(value) == privacy.pseudonym(text)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_process_passes(error):
    """An interrupt in the middle of a value's own method ends what it should end."""

    class Interrupted:
        def __str__(self):
            raise error

    with pytest.raises(error):
        Privacy({}, KEY).pseudonym(Interrupted())


def test_what_goes_round_in_circles_has_a_pseudonym():
    """Nothing that a caller passes makes it raise."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    privacy = Privacy({}, KEY)
    assert privacy.pseudonym(circle) == privacy.pseudonym(deep)
    assert privacy.pseudonym("\ud800") != privacy.pseudonym("\ud801")
    assert privacy.pseudonym(10**5000)
    assert privacy.pseudonym(float("nan"))


def test_pseudonyms_are_the_same_in_every_process():
    """No hash seed, no address and no order of a set gets into them."""
    code = (
        "from bizlog.privacy import Privacy\n"
        "class Plain: pass\n"
        "value = [{'b', 'a', 'c'}, {'y': Plain(), 'x': 1.5}, Plain]\n"
        f"print(Privacy({{}}, {KEY!r}).pseudonym(value))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_a_key_with_an_id_signs_its_pseudonyms():
    """Readers see which key made one; the digits are those of the key alone."""
    digits = Privacy({}, KEY).pseudonym(EMAIL)
    rotated = Privacy({}, HashKeys({"2025": b"old-old-old-old-", "2026": KEY}))

    assert rotated.pseudonym(EMAIL) == f"2026.{digits}"
    assert rotated.protections(OrderEvent)["user_id"](EMAIL) == f"2026.{digits}"


def test_pseudonyms_under_all_keys_find_what_older_ones_wrote():
    """For joins across a rotation, and for requests for erasure."""
    old = Privacy({}, HashKeys({"2025": KEY})).pseudonym(EMAIL)
    rotated = Privacy({}, HashKeys({"2025": KEY, "2026": KEY[::-1]}))

    found = rotated.pseudonyms(EMAIL)
    assert list(found) == ["2025", "2026"]
    assert found["2025"] == old
    assert found["2026"] == rotated.pseudonym(EMAIL)
    assert Privacy({}, KEY).pseudonyms(EMAIL) == {"": old.removeprefix("2025.")}
