"""
The public face as type checkers see it: read by mypy and pyright, never executed.

Each `type: ignore` (mypy) and `pyright: ignore` below marks a mistake that must be
found; both checkers report an ignore that nothing needs. The same mistake must be seen
by both, else an editor tells one thing and CI another.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    MutableMapping,
)
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, assert_type
from uuid import UUID
from wsgiref.types import StartResponse, WSGIApplication

import structlog

import bizlog
from bizlog.integrations.serverless import FlushMiddleware, WSGIFlushMiddleware
from bizlog.sinks import Event
from bizlog.testing import MemorySink

# Loggers

log = bizlog.get_logger(source="customer-agent", shop="north")
assert_type(log, bizlog.BusinessLogger)
assert_type(log.bind(product_id="1"), bizlog.BusinessLogger)
assert_type(log.bind(product_id="1").unbind("product_id"), bizlog.BusinessLogger)

log.info("product.viewed")
log.bind(product_id="1").info("product.viewed", product_price=Decimal("9.99"))
log.info("product.viewed", {"product_id": "1"}, anything=object())
log.error("order.failed", order_id=42)
log.exception("order.failed", order_id=UUID(int=0))
log.log(20, "order.placed")
log.info(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def emit_asynchronously() -> None:
    """The asynchronous methods are awaited."""
    await log.ainfo("product.viewed", product_id="1")
    await log.aexception("order.failed")


# Settings

assert_type(
    bizlog.configure(
        source="customer-agent",
        environment="production",
        sinks=["file:./events", {"type": "console"}, MemorySink()],
        queue_events=1_000,
        overflow="block",
        flush_interval=0.5,
        development=True,
        privacy={"customer_name": "drop"},
        hash_key=b"0123456789abcdef",
        registry=bizlog.Registry(),
    ),
    bizlog.BusinessTelemetryClient,
)
bizlog.configure(source=None)
bizlog.configure(overflow="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bizlog.configure(sinks="console:", batch_size="9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bizlog.configure(sourse="misspelt")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bizlog.configure("customer-agent")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

assert_type(bizlog.flush(timeout=5), bool)
assert_type(bizlog.shutdown(), bool)


# Drop-in

handler = bizlog.BusinessEventHandler(
    "INFO", source="shop", sinks=["file:./events"], overflow="block"
)
logging.getLogger("business").addHandler(handler)
assert_type(handler.ignored, int)
assert_type(handler.source, str | None)
bizlog.BusinessEventHandler(logging.INFO, client=bizlog.BusinessTelemetryClient())
bizlog.BusinessEventHandler(sourse="misspelt")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
bizlog.BusinessEventHandler(client="shop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

logging.config.dictConfig(bizlog.logging_config("sales", level="INFO", strict=True))
assert_type(bizlog.logging_config(), dict[str, Any])
bizlog.logging_config(sinks="console:", batch_size="9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

structlog.configure(processors=[bizlog.divert("loan.*"), bizlog.divert(source="shop")])
bizlog.divert(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Events


class LoanApproved(bizlog.BaseEvent, event_type="loan.approved", version=2):
    """A type of the user's own: one field must be given, two may be."""

    amount: Annotated[Decimal, bizlog.describe("Amount approved.", unit="EUR")]
    term: Annotated[int | None, bizlog.describe("Months.")] = None
    officer: Annotated[str, bizlog.describe("Who approved.", privacy="hash")] = ""


class LoanRefined(LoanApproved, event_type="loan.refined"):
    """A type derived from a type: it has the fields of both."""

    rate: Decimal | None = None


loan = LoanApproved(amount=Decimal(1_000), term=12, user_id="u-7")
assert_type(loan, LoanApproved)
assert_type(loan.amount, Decimal)
assert_type(loan.term, int | None)
assert_type(loan.user_id, str | None)
assert_type(LoanRefined(amount=Decimal(1), rate=Decimal("0.03")).rate, Decimal | None)

LoanApproved()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
LoanApproved(amount="1000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LoanApproved(amount=Decimal(1), ammount=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
LoanApproved(Decimal(1))  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
print(loan.amuont)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
bizlog.describe("Amount.", privacy="hide")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

order = bizlog.OrderEvent(
    event_type="order.placed",
    event_time=datetime.now(UTC),
    order_id="42",
    order_items=[bizlog.OrderItem(product_id="1", quantity=2, price=Decimal("9.99"))],
    custom_properties={"channel": "web"},
)
assert_type(order.order_items, list[bizlog.OrderItem] | None)
assert_type(order.order_total, Decimal | None)
bizlog.OrderEvent(order_total="19.98")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bizlog.AIEvent(tokens=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class BadVersion(bizlog.BaseEvent, event_type="bad.version", version="2"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
    """A version is a number."""


class UnknownKeyword(bizlog.BaseEvent, event_typ="misspelt"):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportGeneralTypeIssues]
    """A class keyword that bizlog does not know."""


log.info(loan)
log.info(order, channel="web")


# Context

with bizlog.session("sess-1", user_id="u-7") as context:
    assert_type(context, dict[str, Any])
with bizlog.correlation(traceparent="00-…"), bizlog.user(7), bizlog.bind_context(a=1):
    assert_type(bizlog.current_context(), dict[str, Any])


@bizlog.session()
def view(product_id: int, *, times: int = 1) -> str:
    """A function keeps its signature under the decorator."""
    return str(product_id * times)


@bizlog.correlation()
async def order_product(product_id: int) -> bool:
    """A coroutine function stays one."""
    async with bizlog.session() as inside:
        assert_type(inside, dict[str, Any])
    return product_id > 0


@bizlog.user("u-7")
def stream(parts: list[str]) -> Iterator[str]:
    """A generator function stays one."""
    yield from parts


@bizlog.user("u-7")
async def stream_asynchronously(parts: list[str]) -> AsyncIterator[str]:
    """An asynchronous generator function stays one."""
    for part in parts:
        yield part


assert_type(view(1, times=2), str)
assert_type(next(iter(stream(["a"]))), str)
view("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
view(1, count=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def call_decorated() -> None:
    """What a decorated coroutine function returns is known."""
    assert_type(await order_product(1), bool)
    async for part in stream_asynchronously(["a"]):
        assert_type(part, str)


# Clients and the ledger


async def use_a_client() -> None:
    """The client's methods, asynchronous and blocking."""
    async with bizlog.BusinessTelemetryClient(
        source="admin-agent", sinks=["null:"]
    ) as client:
        assert_type(client, bizlog.BusinessTelemetryClient)
        assert_type(await client.send(order), str | None)
        assert_type(await client.send("order.placed", order_id="42"), str | None)
        await client.send({"order_id": "42"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(await client.flush(timeout=1), bool)
        assert_type(client.ledger(), bizlog.Ledger)
    with bizlog.BusinessTelemetryClient(source="admin-agent") as blocking:
        assert_type(blocking.send_sync(loan), str | None)
        assert_type(blocking.flush_sync(1.0), bool)
    bizlog.BusinessTelemetryClient(sinks=[42])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


assert_type(bizlog.ledger().balanced, bool)
assert_type(bizlog.ledger().sinks["file"], bizlog.SinkLedger)
assert_type(bizlog.ledger().sinks["file"].delivered, int)
assert_type(bizlog.ledger().sinks["file"].dropped, dict[str, int])
bizlog.ledger().sinks["file"].delivered = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# Sinks


class SeedFormSink(bizlog.BaseSink):
    """Overrides what the seed's interface has, and answers nothing."""

    async def send(self, event: dict[str, Any]) -> None:
        """Take one event."""

    async def send_batch(self, events: list[dict[str, Any]]) -> None:
        """Take several events."""


class BatchSink(bizlog.BaseSink):
    """Takes encoded records and says what it refused."""

    max_events = 500

    async def deliver(self, batch: bizlog.Batch) -> bizlog.SendResult:
        """Refuse the empty ones."""
        assert_type(batch.records[0].data, bytes)
        refused = [i for i, record in enumerate(batch.records) if not record.data]
        return bizlog.SendResult(
            rejected=tuple(bizlog.Rejection(index, "empty") for index in refused)
        )


class WrongSink(bizlog.BaseSink):
    """Answers with what no sink may answer."""

    async def deliver(self, batch: bizlog.Batch) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Count the records."""
        return len(batch.records)


class Duck:
    """Has the five methods and no base: the seed's interface by its shape."""

    async def start(self) -> None:
        """Open nothing."""

    async def stop(self) -> None:
        """Close nothing."""

    async def send(self, event: Event) -> None:
        """Take one event."""

    async def send_batch(self, events: list[Event]) -> None:
        """Take several events."""

    async def flush(self) -> None:
        """Make nothing durable."""


bizlog.configure(sinks=[SeedFormSink(), BatchSink(), Duck()])
bizlog.Route(Duck(), event_type=["order.*", "ai.*"])
bizlog.Route("file:./orders", when=lambda event: event["order_total"] > 0)
bizlog.Route(Duck)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Hosts


@bizlog.flush_after
def handle(event: str, *, context: int = 0) -> str:
    """Its signature is kept."""
    return event * context


@bizlog.flush_after(timeout=1.5, client=None)
async def handle_asynchronously(event: str) -> int:
    """That of a coroutine function, too."""
    return len(event)


async def call_handlers() -> None:
    """What they return is what they returned."""
    assert_type(handle("x", context=2), str)
    assert_type(await handle_asynchronously("x"), int)
    handle(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """An application; what wraps it is one, too."""
    await FlushMiddleware(asgi, timeout=1.0, each_response=False)(scope, receive, send)


def wsgi(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """An application of the older kind."""
    start_response("200 OK", [])
    return []


wrapped: WSGIApplication = WSGIFlushMiddleware(wsgi, timeout=1.0)
