"""
The events that every contender sends, and the count of those that arrived.

An event is one `product.viewed` with seven fields and three of context. The fields come
from a small catalogue built beforehand; only `product_id` differs from event to event,
so building an event costs every contender the same: one dictionary, one f-string.

An event counts as delivered when it stands in a complete line of JSON below the output
directory, in a file that carries its final name (`*.jsonl`), with its context. Each
product id counts once: a second copy is a duplicate, not a delivery.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson

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

_PRODUCT_ID = re.compile(rb'"product_id": ?"p-(\d+)"')
_CONTEXT_VALUES = tuple(f'"{value}"'.encode() for value in CONTEXT.values())


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


class Count(NamedTuple):
    """How many different events arrived, and how many came more than once."""

    delivered: int
    duplicates: int


def count_events(directory: Path) -> Count:
    """Count the events in all files below a directory that have their final name."""
    seen: set[bytes] = set()
    copies = 0
    for path in directory.rglob("*.jsonl"):
        with path.open("rb") as file:
            for line in file:
                ids = _ids_in(line)
                seen.update(ids)
                copies += len(ids)
    return Count(len(seen), copies - len(seen))


def _ids_in(line: bytes) -> list[bytes]:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return []
    ids: list[bytes] = _PRODUCT_ID.findall(line)
    complete = min(line.count(value) for value in _CONTEXT_VALUES)
    return ids[:complete]
