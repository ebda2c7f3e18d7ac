"""The language of `--where`: what it understands, what it refuses, and where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.cli.errors import CommandError
from bizlog.cli.where import MAX_CHARACTERS, Where

EVENT = (
    b'{"event_type":"order.placed","order_total":19.98,"big":0.1000000000000000000001,'
    b'"quantity":3,"customer_country":"DE","gift":true,"absent":null,'
    b'"custom_properties":{"voucher":"CATS10","class":"a","deep":{"er":[1,{"x":2}]}},'
    b'"order_items":[{"product_id":"1","price":9.99},{"product_id":"2","price":5}]}'
)


@pytest.mark.parametrize(
    "text",
    [
        "order_total >= 19.98",
        "order_total == 19.98 and quantity == 3",
        "order_total > 100 or quantity < 4",
        "not order_total > 100",
        "not (order_total > 100 or quantity > 3)",
        'customer_country == "DE"',
        "customer_country in ['AT', 'DE']",
        "customer_country in ('AT', 'DE')",
        "customer_country not in ['AT', 'CH']",
        '"10" in custom_properties.voucher',
        "'voucher' in custom_properties",
        "custom_properties.voucher != null",
        "custom_properties.deep.er[1].x == 2",
        'custom_properties["class"] == "a"',
        "order_items[0].price == 9.99",
        "order_items[1].price == 5.0",
        "order_items[7].price == null",
        "order_items.price == None",
        "absent == null",
        "nothing == null and nothing.at.all == null",
        "gift",
        "gift == true",
        "gift != 1",
        "quantity != true",
        "quantity == 3.0",
        "1 < quantity <= 3",
        "quantity > -4 and quantity > -0.5",
        "customer_country >= 'DA'",
        "big > 0.1",
        "-0.1000000000000000000000000000000000001 < -0.1",
        "big != 0.1",
        "big == 0.1000000000000000000001",
        "not customer_country > 5",
        "not nothing < 5",
        "not gift < 5",
        "not 5 in customer_country",
        "null in [1, null]",
        "  quantity == 3\n and gift  ",
    ],
)
def test_these_hold(text):
    """Comparisons, nesting and logic read as in Python, over exact JSON values."""
    assert Where(text)(EVENT)


@pytest.mark.parametrize(
    "text",
    [
        "order_total > 19.98",
        "1 < quantity < 3",
        "nothing",
        "customer_country < 5",
        "customer_country > nothing",
        "gift == 1",
        "1 in [true]",
        "5 in quantity",
        "3 in custom_properties",
        "customer_country in ['AT']",
    ],
)
def test_these_do_not_hold(text):
    """What is absent or of another kind is no match, and no error."""
    assert not Where(text)(EVENT)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("len(a) > 3", 1, "calls"),
        ("a > 3 and open('x')", 11, "calls"),
        ("a + 1 > 3", 1, "arithmetic"),
        ("a is null", 1, "=="),
        ("a = 3", 3, "write =="),
        ("a == 'x", 6, "cannot be read"),
        ("a ==== 3", 5, "cannot be read"),
        ("'é' in (lambda: 0)", 9, "expected a field"),
        ("-True == a", 2, "number"),
        ("é > 1 and (x for x in y)", 11, "expected a field"),
        ("a == b'x'", 6, "expected a field"),
        ("a == 1j", 6, "expected a field"),
        ("a == f'{b}'", 6, "expected a field"),
        ("-a > 3", 1, "expected a field"),
        ("-'x' == a", 2, "number"),
        ("-true == a", 1, "expected"),
        ("a in [b]", 7, "expected a field"),
        ("(a if b else c) == 1", 2, "expected a field"),
        ("a[1:2] == 1", 1, "expected a field"),
        ("a[b] == 1", 1, "expected a field"),
        ("'x'.y == 1", 1, "only a field"),
        ("f(x).y == 1", 1, "only a field"),
        ("(a := 3)", 2, "expected a field"),
        ("a @ b", 1, "arithmetic"),
        ("__import__('os').system('x')", 1, "calls"),
    ],
)
def test_what_is_not_understood_is_told_with_its_position(text, position, message):
    """The message names the fault and the character, and shows both in the text."""
    with pytest.raises(CommandError) as caught:
        Where(text)
    lines = str(caught.value).splitlines()
    assert message in lines[0]
    assert f"(at character {position})" in lines[0]
    assert lines[1] == f"  {text}"
    assert lines[2].index("^") == position + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a == 1 " * MAX_CHARACTERS, "longer"),
        ("(" * 1_500 + "a" + ")" * 1_500, ""),
        ("not " * 1_000 + "a", ""),
        ("a\0", ""),
    ],
)
def test_text_without_sense_is_an_error_of_ours(text, message):
    """Empty, endless, too deep: one plain message, never another exception."""
    with pytest.raises(CommandError, match=f"--where: .*{message}"):
        Where(text)


@given(st.text(max_size=60) | st.text("ab.[]()'\"=<>! andornti10-,", max_size=40))
def test_any_text_is_a_condition_or_an_error(text):
    """No text makes the parser raise anything but its own error, or evaluates."""
    try:
        where = Where(text)
    except CommandError:
        return
    assert where(EVENT) in {True, False}


@given(
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.decimals(allow_nan=False, allow_infinity=False, places=5),
    st.decimals(allow_nan=False, allow_infinity=False, places=5),
)
def test_numbers_compare_exactly(op, left, right):
    """Every comparison of two decimals has the answer that decimals give."""
    data = b'{"n":%b}' % format(left, "f").encode()
    expected = eval(f"left {op} right", {}, {"left": left, "right": right})
    assert Where(f"n {op} {right:f}")(data) is expected


def test_an_event_too_deep_to_read_does_not_match():
    """A million brackets are no match, and no traceback."""
    assert not Where("a == 1")(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_values_need_no_escapes_of_their_own():
    """A text with quotes and other scripts is compared as it is."""
    value = 'Müller\'s "Katze" \u732b'
    data = json.dumps({"name": value}).encode()
    assert Where(f"name == {value!r}")(data)
