"""
The web shop's request handlers: context once for each request, plain events inside.

Shows: `correlation(traceparent=...)`, `session()` and `user()` in one place, as a
middleware would have them; handlers that only say what happened; `product.*` events.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catalogue import PRODUCTS, Product, find

import bizlog

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = bizlog.get_logger(source="store-front")


def new_traceparent() -> str:
    """Make the header a browser or a gateway sends (W3C Trace Context)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True)
class Request:
    """
    What a request says about who makes it.

    Attributes:
        session_id: The visit.
        user_id: Internal id of the customer, None before the login.
        traceparent: Header that joins the request with its calls to other services.
    """

    session_id: str
    user_id: str | None = None
    traceparent: str = field(default_factory=new_traceparent)


async def serve(request: Request, response: Awaitable[None]) -> None:
    """Do what a middleware does: put the request into the context, once."""
    with (
        bizlog.correlation(traceparent=request.traceparent),
        bizlog.session(request.session_id),
        bizlog.user(request.user_id),
    ):
        await response


async def show_list() -> None:
    """Answer `GET /products`."""
    await asyncio.sleep(0.002)  # the database
    log.info("product.listed", product_count=len(PRODUCTS))


async def search(words: str) -> None:
    """Answer `GET /search`."""
    await asyncio.sleep(0.002)
    found = find(words)
    log.info("product.searched", search_query=words, search_results_count=len(found))


async def show(product: Product, *, ai_assisted: bool = False) -> None:
    """Answer `GET /products/{product_id}`."""
    await asyncio.sleep(0.002)
    _log_of(product).info("product.viewed", ai_assisted=ai_assisted)


async def add_to_cart(product: Product, quantity: int) -> None:
    """Answer `POST /cart`."""
    await asyncio.sleep(0.002)
    _log_of(product).info("product.added_to_cart", quantity=quantity)


def _log_of(product: Product) -> bizlog.BusinessLogger:
    return log.bind(
        product_id=product.product_id,
        product_name=product.name,
        product_category=product.category,
        product_price=product.price,
    )
