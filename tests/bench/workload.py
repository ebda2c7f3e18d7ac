"""
The events that every contender sends, and what a contender is.

An event is one `product.viewed` with seven fields and three of context. The fields come
from a small catalogue built beforehand; only `product_id` differs from event to event,
so building an event costs every contender the same: one dictionary, one f-string.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

EVENT = "product.viewed"
CONTEXT = {"correlation_id": "c-1", "session_id": "sess-1", "user_id": "u-7"}

_PRODUCTS = ("Catnip's Friend", "Scratching Tower", "Café Göttin", "Salmon Crunch")
_CATEGORIES = ("toys", "furniture", "kitchen", "food")
_QUERIES = ("something for my cat", "scratching post, tall", "gift under 20 €", "food")
CATALOGUE: tuple[dict[str, Any], ...] = tuple(
    {
        "product_name": f"Contoso {_PRODUCTS[n % 4]} {n}",
        "product_category": _CATEGORIES[n % 4],
        "product_price": Decimal(n * 50 + 99) / 100,
        "search_query": _QUERIES[n // 4 % 4],
        "search_results_count": n % 17,
        "ai_assisted": n % 3 == 0,
    }
    for n in range(64)
)


def make_event(number: int) -> dict[str, Any]:
    """Build the seven fields of one event; the caller owns the dictionary."""
    return {"product_id": f"p-{number}", **CATALOGUE[number % 64]}


class Contender(NamedTuple):
    """
    One pipeline, ready to take events.

    Attributes:
        emit: Takes the seven fields of one event.
        finish: Returns when every event is in its file; this is on the clock.
    """

    emit: Callable[[dict[str, Any]], object]
    finish: Callable[[], object]
