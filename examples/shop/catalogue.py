"""What the shop sells; plain data, nothing of bizlog."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Product:
    """
    A product.

    Attributes:
        product_id: Its id.
        name: Its name as shown.
        category: Where it is found in the shop.
        price: Price of one, in USD.
    """

    product_id: str
    name: str
    category: str
    price: Decimal


PRODUCTS = (
    Product("1", "Contoso Catnip's Friend", "cat toys", Decimal("9.99")),
    Product("2", "Salty Sailor's Squeaky Squid", "dog toys", Decimal("6.99")),
    Product("3", "Mermaid's Mice Trio", "cat toys", Decimal("12.99")),
    Product("4", "Ocean Explorer's Puzzle Ball", "dog toys", Decimal("11.99")),
    Product("5", "Pirate Parrot's Teaser Wand", "cat toys", Decimal("8.99")),
)


def find(words: str) -> list[Product]:
    """Find products by words of their names and categories."""
    wanted = set(words.lower().split())
    return [
        p for p in PRODUCTS if wanted & set(f"{p.name} {p.category}".lower().split())
    ]
