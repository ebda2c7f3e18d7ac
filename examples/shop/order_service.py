"""
The order service: typed events through a client, for code that wants types checked.

Shows: `BusinessTelemetryClient.send` with `OrderEvent` and `OrderItem`, whose fields an
editor completes and a type checker checks; money as Decimal; an order's whole life.
`send` accepts the event and does not wait for its delivery.
"""

import asyncio
import itertools
import time
from decimal import Decimal

from catalogue import Product

import bizlog


class OrderService:
    """
    Places orders and follows them.

    Args:
        telemetry: Where the events go.
    """

    def __init__(self, telemetry: bizlog.BusinessTelemetryClient) -> None:
        self._telemetry = telemetry
        self._numbers = itertools.count(1)

    async def place(self, cart: list[tuple[Product, int]], *, paid: bool) -> str:
        """
        Place an order.

        Args:
            cart: Products and how many of each.
            paid: Whether the payment went through.

        Returns:
            The order's id.
        """
        order_id = f"order-{next(self._numbers)}"
        started = time.perf_counter()
        await asyncio.sleep(0.005)  # payment, stock
        order = bizlog.OrderEvent(
            event_type="order.placed" if paid else "order.failed",
            event_source="order-service",
            order_id=order_id,
            order_status="placed" if paid else "payment_refused",
            order_items=[_item(product, quantity) for product, quantity in cart],
            order_total=sum(
                (product.price * quantity for product, quantity in cart), Decimal(0)
            ),
            processing_duration_ms=round((time.perf_counter() - started) * 1000),
        )
        await self._telemetry.send(order)
        return order_id

    async def ship(self, order_id: str) -> None:
        """Hand an order to the carrier."""
        await self._telemetry.send(
            bizlog.OrderEvent(
                event_type="order.updated",
                event_source="order-service",
                order_id=order_id,
                order_status="shipped",
            )
        )

    async def take_back(self, order_id: str, product: Product, quantity: int) -> None:
        """Take goods back; quantity and total of a return are negative."""
        await self._telemetry.send(
            bizlog.OrderEvent(
                event_type="order.returned",
                event_source="order-service",
                order_id=order_id,
                order_status="returned",
                order_items=[_item(product, -quantity)],
                order_total=-product.price * quantity,
            )
        )


def _item(product: Product, quantity: int) -> bizlog.OrderItem:
    return bizlog.OrderItem(
        product_id=product.product_id,
        product_name=product.name,
        quantity=quantity,
        price=product.price,
    )
