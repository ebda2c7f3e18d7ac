"""
Orders to an event hub and back: `python examples/eventhub/orders.py`.

Without Azure: the hub is a loopback one in this very process. With Azure only the
connection string would be another. It needs `pip install 'bizlog[eventhub,loopback]'`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

from azure.eventhub.aio import EventHubConsumerClient

import bizlog
from bizlog.dev.eventhubs import LoopbackEventHubs
from bizlog_handlers.eventhub import EventHubSink

if TYPE_CHECKING:
    from azure.eventhub import EventData
    from azure.eventhub.aio import PartitionContext

SHOPPERS, ORDERS = 6, 5


def place_orders(connection_string: str) -> bizlog.Ledger:
    """Run a service: each shopper is a session, whose events keep their order."""
    sink = EventHubSink("orders", connection_string=connection_string, pack=10)
    with bizlog.BusinessTelemetryClient(source="shop", sinks=[sink]) as client:
        log = bizlog.get_logger(client=client)
        for number in range(1, ORDERS + 1):
            for shopper in range(SHOPPERS):
                with bizlog.session(f"shopper-{shopper}"):
                    log.info(
                        "order.placed",
                        order_id=str(number),
                        order_total=Decimal("9.99") * number,
                    )
        client.flush_sync(30)
        return client.ledger()


async def read_back(connection_string: str, count: int) -> list[dict[str, str]]:
    """Read as Eventstream would: each line of a message is an event."""
    events: list[dict[str, str]] = []
    enough = asyncio.Event()

    async def take(_: PartitionContext, messages: list[EventData]) -> None:
        for message in messages:
            events.extend(map(json.loads, message.body_as_str().splitlines()))
        if len(events) >= count:
            enough.set()

    consumer = EventHubConsumerClient.from_connection_string(
        connection_string, "$Default", eventhub_name="orders"
    )
    async with consumer:
        reading = asyncio.create_task(
            consumer.receive_batch(take, starting_position="-1")
        )
        await asyncio.wait_for(enough.wait(), 30)
        reading.cancel()
    return events


def main() -> None:
    """Send, read back, and compare."""
    with LoopbackEventHubs({"orders": 4}) as hubs:
        ledger = place_orders(hubs.connection_string)
        print(ledger)
        print(f"messages in the hub: {hubs.count('orders')}")
        events = asyncio.run(read_back(hubs.connection_string, SHOPPERS * ORDERS))
    print(f"events read back: {len(events)}")
    print("orders of each:", dict(Counter(event["session_id"] for event in events)))
    one = [event["order_id"] for event in events if event["session_id"] == "shopper-0"]
    print(f"shopper-0, in order: {', '.join(one)}")


if __name__ == "__main__":
    main()
