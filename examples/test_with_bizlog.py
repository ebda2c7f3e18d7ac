"""
A service's test of its business events: `pytest examples/test_with_bizlog.py`.

The fixture comes with bizlog, there is nothing to configure. The events are checked as
in production and captured instead of delivered; an invalid one fails the test.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from unittest.mock import ANY

import bizlog

if TYPE_CHECKING:
    from bizlog.testing import CapturedEvents

# The service: a logger made at import, as everywhere.

log = bizlog.get_logger()


def place_order(order_id: int, total: Decimal, voucher: str | None = None) -> None:
    """Place an order, and say so."""
    with bizlog.session(f"sess-{order_id}"):
        log.info("order.placed", order_id=order_id, order_total=total, voucher=voucher)


# Its tests.


def test_an_order_is_told_once(business_events: CapturedEvents) -> None:
    """A placed order is one event, with its exact total and the session."""
    place_order(42, Decimal("19.98"))

    business_events.assert_emitted(
        "order.placed",
        times=1,
        order_id="42",  # ids are text on the wire
        order_total=Decimal("19.98"),
        session_id="sess-42",
        event_id=ANY,
    )
    business_events.assert_none("order.failed")


def test_a_voucher_goes_along(business_events: CapturedEvents) -> None:
    """What the type has no field for is a custom property, and found by its name."""
    place_order(43, Decimal(100), voucher="CATS10")

    business_events.assert_emitted(
        "order.placed",
        voucher="CATS10",
        order_total=lambda total: total > 50,
    )
