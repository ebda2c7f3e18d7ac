"""
A destination of your own: five async methods, handed over as an object.

A sink inherits from nothing. bizlog gives it lists of events as dictionaries, batched,
from one task at a time on bizlog's own event loop. Returning None means that all were
taken; an exception means that none was, and the batch is sent again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import bizlog


class TurnoverSink:
    """Adds up what customers ordered."""

    def __init__(self) -> None:
        self.orders = 0
        self.turnover = Decimal(0)

    async def start(self) -> None:
        """Open connections here; called before the first batch."""

    async def stop(self) -> None:
        """Close them; called after the last batch."""

    async def send(self, event: dict[str, Any]) -> None:
        """Take one event."""
        await self.send_batch([event])

    async def send_batch(self, events: list[dict[str, Any]]) -> None:
        """Take several events; this is what bizlog calls."""
        placed = [event for event in events if event["event_type"] == "order.placed"]
        self.orders += len(placed)
        # Decoded JSON has floats; their shortest text is the number on the wire.
        self.turnover += sum(Decimal(str(event["order_total"])) for event in placed)

    async def flush(self) -> None:
        """Make durable what was sent; called by `bizlog.flush()` and at the end."""


def main() -> None:
    """Send three events to the sink and show what it made of them."""
    sink = TurnoverSink()
    with bizlog.BusinessTelemetryClient(source="my-shop", sinks=[sink]) as client:
        log = bizlog.get_logger(client=client)
        log.info("product.viewed", product_id="1")
        log.info("order.placed", order_id="41", order_total=Decimal("9.99"))
        log.info("order.placed", order_id="42", order_total=Decimal("6.99"))
    print(f"{sink.orders} orders, {sink.turnover} in all")
    print(client.ledger())


if __name__ == "__main__":
    main()
