"""The made-up shop: repeatable, readable by the real reader, as long as asked."""

from __future__ import annotations

from bizlog.cli.invoices import Line
from bizlog.cli.made_up import LINES_PER_SECOND, MadeUpShop


def sold(shop):
    """Take the lines without their times."""
    return [(x.invoice, x.product_id, x.quantity, x.price, x.country) for x in shop]


def test_the_seed_decides():
    """The same seed makes the same lines, another one others."""
    shops = [MadeUpShop(0.2, seed, lambda _: None) for seed in (1, 1, 2)]
    first, same, other = map(sold, shops)
    assert first == same != other


def test_its_rows_are_all_readable():
    """Every row is a readable line, sales and returns among them, as many as asked."""
    pauses: list[float] = []
    shop = MadeUpShop(1, sleep=pauses.append)
    lines = list(shop)
    assert len(lines) == LINES_PER_SECOND
    assert all(isinstance(line, Line) for line in lines)
    assert {line.is_sale for line in lines} == {True, False}
    assert shop.fraction == 1.0
    assert max(pauses) > 0.5, "it keeps the pace of a shop"
