"""From invoice lines to events: one a line, one order a sale, exact sums."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import bizlog
from bizlog.cli.invoices import Line
from bizlog.cli.sales import Replay
from bizlog.testing import MemorySink

CUP = Line(
    invoice="1",
    product_id="A",
    product_name="Cup",
    quantity=2,
    time=datetime(2011, 1, 3, 10, 0, tzinfo=UTC),
    price=Decimal("1.250"),
    customer="77",
    country="France",
)


def line(**changes):
    """Change some of the cup's line."""
    return dataclasses.replace(CUP, **changes)


@pytest.fixture
def play():
    """Replay lines; return the replay and the events, decoded with Decimals."""

    def play(*lines):
        sink = MemorySink()
        with bizlog.BusinessTelemetryClient(source="test", sinks=[sink]) as client:
            replay = Replay(bizlog.get_logger(client=client))
            replay.play(lines)
        events = [
            json.loads(record.data, parse_float=Decimal) for record in sink.records
        ]
        assert replay.events == len(events)
        return replay, events

    return play


def test_a_sale_is_its_lines_and_one_order(play):
    """Each line is put into the cart, the order follows with items and exact total."""
    second = line(product_id="B", price=Decimal("0.001"), quantity=3)
    replay, [first, other, order] = play(CUP, second)
    assert first["event_type"] == other["event_type"] == "product.added_to_cart"
    assert first["product_price"] == Decimal("1.250")
    assert first["custom_properties"] == {
        "invoice": "1",
        "country": "France",
        "line": 1,
        "quantity": 2,
        "line_total": Decimal("2.500"),
    }
    assert other["custom_properties"]["line"] == 2
    assert order["event_type"] == "order.placed"
    assert order["order_total"] == Decimal("2.503")
    assert [item["product_id"] for item in order["order_items"]] == ["A", "B"]
    assert replay.totals == {"France": Decimal("2.503")}


def test_the_context_is_the_invoice(play):
    """Session, correlation, user and time of every event are those of the invoice."""
    _, events = play(CUP)
    for event in events:
        assert event["session_id"] == "1"
        assert event["correlation_id"] == "invoice-1"
        assert event["user_id"] == "77"
        assert event["event_time"] == "2011-01-03T10:00:00.000000Z"


def test_an_unknown_customer_or_name_is_absent(play):
    """What the row does not say is not in the event."""
    _, [event, order] = play(line(customer=None, product_name=None))
    assert "user_id" not in event
    assert "product_name" not in event
    assert "product_name" not in order["order_items"][0]


def test_a_credit_note_is_returned_line_by_line(play):
    """Each line of a credit note is one return with its negative total, no order."""
    back = line(invoice="C9", quantity=-2)
    _, events = play(back, back)
    assert [event["event_type"] for event in events] == ["order.returned"] * 2
    assert [event["custom_properties"]["line"] for event in events] == [1, 2]
    assert events[0]["order_id"] == "C9"
    assert events[0]["order_total"] == Decimal("-2.500")
    assert events[0]["order_status"] == "returned"
    assert events[0]["order_items"][0]["quantity"] == -2


def test_a_stock_correction_is_told_apart(play):
    """A negative quantity outside a credit note is an adjustment; -0 becomes 0."""
    replay, [event] = play(line(quantity=-5, price=Decimal("0.0"), product_name=None))
    assert event["order_status"] == "adjusted"
    assert str(event["order_total"]) == "0.0"
    assert replay.totals == {"France": Decimal(0)}


def test_an_invoice_in_two_runs(play):
    """An interrupted invoice has an order for each run, and its lines count on."""
    _, events = play(CUP, line(invoice="2"), CUP)
    placed = [event["order_id"] for event in events if "order_id" in event]
    assert placed == ["1", "2", "1"]
    added = [e["custom_properties"] for e in events if "product_id" in e]
    assert [(own["invoice"], own["line"]) for own in added] == [
        ("1", 1),
        ("2", 1),
        ("1", 2),
    ]


def test_sums_keep_every_digit(play):
    """Amounts that the default context of Python would round stay exact."""
    price = Decimal("123456789012345.123456789012")
    replay, [event, _] = play(line(price=price, quantity=999_999_999_999))
    exact = Decimal("123456789012221666667776666.876543210988")
    assert event["custom_properties"]["line_total"] == exact
    assert replay.totals["France"] == exact
