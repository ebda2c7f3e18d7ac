"""What values become on their way into a typed event."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, UserDict
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

import bizlog
from bizlog.coercion import encode_body
from bizlog.exceptions import InvalidEventError
from bizlog.testing import MemorySink


class Colour(enum.Enum):
    """An enum of text."""

    RED = "red"


class Text(str):
    """A str of another kind."""

    __slots__ = ()


class Number:
    """A number of another library, as numpy has them."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


class Whole(Number):
    """An integer of another library."""

    def __index__(self) -> int:
        return int(self.value)


class Node(msgspec.Struct):
    """A struct that holds structs of its own kind."""

    item_id: str
    children: list[Node] = []


class Tree(bizlog.BaseEvent, event_type="tree.grown"):
    """An event with nested structs."""

    root: Node


def written(cls: type[bizlog.BaseEvent], **fields: Any) -> dict[str, Any]:
    """Encode properties, and read them back exactly."""
    found: dict[str, Any] = json.loads(encode_body(fields, cls), parse_float=Decimal)
    found.pop("event_type", None)
    return found


@pytest.mark.parametrize(
    ("cls", "field", "given", "expected"),
    [
        (bizlog.OrderEvent, "order_status", Colour.RED, "red"),
        (bizlog.OrderEvent, "order_status", Text("x"), "x"),
        (bizlog.OrderEvent, "order_id", Text("x"), "x"),
        (bizlog.OrderEvent, "order_total", Number(1.5), Decimal("1.5")),
        (bizlog.OrderEvent, "order_total", Whole(7), 7),
        (bizlog.OrderEvent, "processing_duration_ms", Whole(7), 7),
        (bizlog.OrderEvent, "customer_name", "NaN and Infinity", "NaN and Infinity"),
        (bizlog.OrderEvent, "order_items", (), []),
        (bizlog.OrderEvent, "order_items", [bizlog.OrderItem(quantity=1)], None),
    ],
)
def test_values_in_other_clothes_are_accepted(
    cls: type[bizlog.BaseEvent], field: str, given: Any, expected: Any
) -> None:
    """Enums, text and numbers of other kinds become what the field takes."""
    if expected is None:
        expected = [{"quantity": 1}]
    assert written(cls, **{field: given}) == {field: expected}


@pytest.mark.parametrize(
    "given",
    [
        MappingProxyType({"a": 1}),
        UserDict({"a": 1}),
        OrderedDict({"a": 1}),
    ],
)
def test_mappings_of_any_kind_are_objects(given: Any) -> None:
    """A mapping among the custom properties is written as an object."""
    properties = {"custom_properties": {"x": given}}
    assert written(bizlog.BaseEvent, **properties) == {
        "custom_properties": {"x": {"a": 1}}
    }


class Real(float):
    """A float of another kind, as numpy's float64 is."""


class Integer(int):
    """An int of another kind."""


class Items(list):
    """A list of another kind."""


class Other:
    """A value of no kind."""

    def __repr__(self) -> str:
        return "other" * 100


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Text("x"), "x"),
        (Real(1.5), Decimal("1.5")),
        (Integer(5), 5),
        (Items([1]), [1]),
        (Whole(3), 3),
        (Number(2.5), Decimal("2.5")),
        (Colour.RED, "red"),
        (Other(), ("other" * 100)[:256]),
    ],
)
def test_custom_properties_of_other_kinds_are_written_plainly(
    given: Any, expected: Any
) -> None:
    """Subclasses are written as what they are; the unknown by its repr, cut."""
    found = written(bizlog.BaseEvent, custom_properties={"x": given})
    assert found == {"custom_properties": {"x": expected}}


def test_nested_structs_coerce_and_keep_unknown_keys() -> None:
    """Ids are coerced and unknown keys kept at every depth of the first level."""
    root = {"item_id": 1, "children": [{"item_id": 2}], "note": "n"}
    assert written(Tree, root=root) == {
        "root": {"item_id": "1", "children": [{"item_id": "2", "children": []}]}
        | {"note": "n"}
    }


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"order_items": [{"price": Decimal("NaN")}]}, "$.order_items[0].price"),
        ({"order_total": Decimal("Infinity")}, "$.order_total"),
        ({"order_total": float("nan")}, "$.order_total"),
        ({"processing_duration_ms": 2**64}, "$.processing_duration_ms"),
        ({"order_items": [7]}, "$.order_items[0]"),
        ({"order_items": 7}, "$.order_items"),
    ],
)
def test_what_cannot_be_a_number_names_its_path(
    fields: dict[str, Any], path: str
) -> None:
    """A number that is none is refused wherever it stands, with its path."""
    with pytest.raises(InvalidEventError) as caught:
        encode_body(fields, bizlog.OrderEvent)
    assert caught.value.path == path


def test_an_interrupt_passes_and_is_counted() -> None:
    """KeyboardInterrupt goes through to the caller, and the ledger still closes."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(source="t", sinks=[sink]) as client:
        log = bizlog.get_logger(client=client, processors=[interrupted])
        with pytest.raises(KeyboardInterrupt):
            log.info("order.placed")
    assert client.ledger().sinks["memory"].dropped == {"interrupted": 1}
    assert client.ledger().closed
