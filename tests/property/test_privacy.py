"""Policies and detectors hold for any value: they never raise and never let slip."""

from __future__ import annotations

import re
import string
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bizlog._detectors import DETECTORS, mask, scrub
from bizlog.client import CDM_TYPES
from bizlog.events import BaseEvent, OrderEvent
from bizlog.privacy import DROP, Privacy, is_policy

KEY = b"0123456789abcdef"
PRIVACY = Privacy({}, KEY, named=CDM_TYPES)

POLICIES = st.sampled_from(["drop", "mask", "hash", "hash_email", "truncate:3"])


class Hostile:
    """Raises what it is told to whenever it is looked at."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def _raise(self, *_: object) -> Any:
        raise self._error

    __repr__ = __str__ = __hash__ = __eq__ = __len__ = __iter__ = __getitem__ = _raise
    __index__ = __float__ = __bool__ = __format__ = _raise


class Worse(BaseException):
    """Not even an Exception."""


HOSTILE = st.sampled_from([ValueError("x"), Worse(), RecursionError(), MemoryError()])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.complex_numbers(),
    st.fractions(),
    st.text(),
    st.binary(),
    st.uuids(),
    st.datetimes(),
    st.timedeltas(),
    st.sampled_from(["\ud800", "jane@example.com", object(), iter(()), int, len]),
    HOSTILE.map(Hostile),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(), st.none(), st.tuples(st.text()))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.tuples(inner, inner),
    ),
)

# Texts of the stuff that findings are made of.
PIECES = st.sampled_from(
    [
        "jane@example.com",
        "o'neil@bücher.example",
        "%40",
        "@",
        ".com",
        "4111 1111 1111 1111",
        "4111111111111111",
        "42",
        "-",
        " ",
        ";",
        '"',
        "'",
        "=",
        ":",
        "[token]",
        "[email]",
        "://",
        "password",
        "pwd=",
        "Bearer ",
        "eyJhbGciOiJI.eyJzdWIiOiIx.abc",
        "sk-" + "a1" * 12,
        "sig=" + "a1" * 12,
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(POLICIES, VALUES)
def test_no_value_makes_a_policy_raise(policy: str, value: Any) -> None:
    """Whatever it is and does, the policy has an answer."""
    Privacy({"note": policy}, KEY).protections(BaseEvent)["note"](value)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(POLICIES, VALUES)
def test_what_a_policy_lets_through_is_text_it_made_or_holds_none(
    policy: str, value: Any
) -> None:
    """Containers and objects come out as text, never as themselves."""
    result = Privacy({"note": policy}, KEY).protections(BaseEvent)["note"](value)

    if result is not DROP:
        assert not isinstance(result, list | dict | tuple | bytes | Hostile)


@given(st.text(), st.text())
def test_pseudonyms_join_what_is_equal_and_nothing_else(one: str, other: str) -> None:
    """Equal texts have equal pseudonyms, different texts different ones."""
    pseudonyms = PRIVACY.pseudonym(one), Privacy({}, KEY).pseudonym(other)
    assert (pseudonyms[0] == pseudonyms[1]) == (one == other)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VALUES)
def test_any_value_has_one_pseudonym(value: Any) -> None:
    """The same each time, in 32 hex digits; one for each key."""
    found = PRIVACY.pseudonym(value)

    assert re.fullmatch("[0-9a-f]{32}", found)
    assert found == PRIVACY.pseudonym(value)
    assert list(PRIVACY.pseudonyms(value).values()) == [found]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["product_name", "x"]), VALUES), VALUES)
def test_no_value_makes_a_policy_inside_a_structure_raise(
    item: dict[str, Any], other: Any
) -> None:
    """Items of the wrong type are left to validation; the field's name holds."""
    found = Privacy({"product_name": "mask"}, KEY).protections(OrderEvent)
    masked = found["order_items"]([item, other])

    if isinstance(masked, list):
        expected = None if item.get("product_name") is None else "***"
        assert masked[0].get("product_name") == expected


@given(TEXTS)
def test_what_was_masked_stays_as_it_is(text: str) -> None:
    """A second look finds nothing: what is masked once is not masked anew."""
    once = scrub(text)
    assert scrub(once) == once


@given(st.sampled_from(sorted(DETECTORS)), TEXTS)
def test_each_detector_for_itself_needs_one_look(kind: str, text: str) -> None:
    """Whichever of them are switched on."""
    once, found = mask(text, [DETECTORS[kind]])
    assert mask(once, [DETECTORS[kind]]) == (once, 0)
    assert (found == 0) == (once == text)


@given(st.text(alphabet=st.characters(exclude_characters="@%\uff20=:_.-0123456789")))
def test_a_text_without_any_sign_of_a_finding_is_unchanged(text: str) -> None:
    """Plain words of any script."""
    harmless = text.replace("ear", "").replace("A", "")
    assert scrub(harmless) is harmless


@given(
    st.text(alphabet=string.ascii_letters + ".+_", min_size=1, max_size=20),
    st.text(alphabet=' ,;<>()[]"\n', min_size=1),
    st.text(alphabet=' ,;<>()[]"\n', min_size=1),
)
def test_an_address_is_found_between_any_separators(
    local: str, before: str, after: str
) -> None:
    """Only the address goes; what stands around it stays."""
    text = f"{before}{local}@shop.example{after}"
    assert DETECTORS["email"](text) == (f"{before}[email]{after}", 1)


def with_check_digit(digits: str) -> str:
    """Complete a card number."""
    doubled = [int(d) * 2 for d in digits[::-1][::2]]
    single = [int(d) for d in digits[::-1][1::2]]
    total = sum(d - 9 if d > 9 else d for d in doubled) + sum(single)
    return f"{digits}{-total % 10}"


@given(
    st.from_regex(r"[2-6][0-9]{11,17}", fullmatch=True).map(with_check_digit),
    st.lists(st.booleans(), min_size=19, max_size=19),
    st.sampled_from(" -\u00a0"),
)
def test_a_card_number_is_found_in_any_groups(
    number: str, cuts: list[bool], separator: str
) -> None:
    """Spaces and hyphens may stand between any two of its digits."""
    grouped = "".join(
        f"{separator}{digit}" if place and cut else digit
        for place, (digit, cut) in enumerate(zip(number, cuts, strict=False))
    )
    assert DETECTORS["card"](f"paid by {grouped}.") == ("paid by [card].", 1)


@given(st.text(max_size=20))
def test_what_is_called_a_policy_can_be_resolved(text: str) -> None:
    """No other text is taken for one, and none makes resolving raise."""
    assert is_policy(text) == bool(
        re.fullmatch(r"keep|drop|mask|hash|hash_email|truncate(:[1-9]\d{0,5})?", text)
    )
    assert isinstance(Privacy({"note": text}, KEY).protections(BaseEvent), dict)
