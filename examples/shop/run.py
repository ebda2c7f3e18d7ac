"""
Open the shop for some seconds: four services, their customers and a closing table.

    python examples/shop/run.py --seconds 5 --out demo-events

Shows: `configure` once at the start, `ledger` at any time, `shutdown` at the end. The
services know nothing of where their events go.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from pathlib import Path

import admin_agent
import customer_agent
import store_front
from catalogue import PRODUCTS
from order_service import OrderService
from store_front import Request, serve

import bizlog
from bizlog.cli.progress import Progress
from bizlog.cli.report import all_delivered, closing_table, files_of

VISITORS_AT_ONCE = 4
QUESTIONS = (
    "a toy for my friend the cat",
    "a puzzle for a clever dog",
    "something with a squid",
    "anything for a goldfish",  # nothing is found: the failures' turn
)


async def visit(orders: OrderService, number: int) -> None:
    """Let one customer ask, look around, buy and sometimes bring goods back."""
    session_id, user_id = f"session-{number}", f"user-{number % 50}"
    advised = await customer_agent.talk(
        session_id, user_id, QUESTIONS[number % len(QUESTIONS)]
    )
    product = advised or PRODUCTS[number % len(PRODUCTS)]
    request = Request(session_id, user_id)
    await serve(request, store_front.show_list())
    await serve(request, store_front.search(product.category.split()[0]))
    await serve(request, store_front.show(product, ai_assisted=advised is not None))
    await serve(request, store_front.add_to_cart(product, 2))
    await serve(request, buy(orders, number))


async def buy(orders: OrderService, number: int) -> None:
    """Order; the store front's context goes along, as its headers would."""
    product = PRODUCTS[number % len(PRODUCTS)]
    paid = number % 5 != 0
    order_id = await orders.place([(product, 2)], paid=paid)
    if paid:
        await orders.ship(order_id)
    if paid and number % 3 == 0:
        await orders.take_back(order_id, product, 1)


async def customers(orders: OrderService, numbers: itertools.count[int]) -> None:
    """Let one customer after the other in."""
    while True:
        await visit(orders, next(numbers))


async def staff() -> None:
    """Look after one product after the other; every third time something fails."""
    for number in itertools.count():
        product = PRODUCTS[number % len(PRODUCTS)]
        await admin_agent.care_for(product, "ada", stock=-1 if number % 3 == 2 else 10)


async def watch(client: bizlog.BusinessTelemetryClient, seconds: float) -> None:
    """Show how the events flow, until closing time."""
    with Progress("the shop is open") as progress:
        while progress.seconds < seconds:
            events = max(sink.offered for sink in client.ledger().sinks.values())
            progress.update(events, lambda: progress.seconds / seconds)
            await asyncio.sleep(min(0.1, max(0.0, seconds - progress.seconds)))


async def open_shop(client: bizlog.BusinessTelemetryClient, seconds: float) -> None:
    """Run everybody together, then close."""
    orders, numbers = OrderService(client), itertools.count(1)
    async with asyncio.TaskGroup() as group:
        busy = [staff(), *(customers(orders, numbers) for _ in range(VISITORS_AT_ONCE))]
        work = [group.create_task(activity) for activity in busy]
        await watch(client, seconds)
        for task in work:
            task.cancel()


def main(argv: list[str] | None = None) -> int:
    """Run the shop; the exit code says whether every event arrived."""
    parser = argparse.ArgumentParser(description="A small pet shop that emits events.")
    parser.add_argument("--seconds", type=float, default=5.0, help="default 5")
    parser.add_argument("--out", type=Path, default=Path("demo-events"), metavar="DIR")
    arguments = parser.parse_args(argv)
    before, started = files_of(arguments.out), time.monotonic()

    client = bizlog.configure(
        source="contoso-shop",
        environment="demo",
        service_version="1.4.2",
        sinks=[{"type": "file", "directory": str(arguments.out)}],
        dead_letters=str(arguments.out / "dead-letters"),
    )
    code = 0
    try:
        asyncio.run(open_shop(client, arguments.seconds))
    except KeyboardInterrupt:
        code = 130
    bizlog.shutdown(timeout=10)

    print(
        closing_table(
            folder=arguments.out,
            before=before,
            ledger=client.ledger(),
            seconds=time.monotonic() - started,
        )
    )
    return code or (0 if all_delivered(client.ledger()) else 1)


if __name__ == "__main__":
    sys.exit(main())
