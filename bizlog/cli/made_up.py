"""
A pet shop that does not exist: invoice rows for demonstrations, in the real columns.

The same seed gives the same rows, except for the time of day.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bizlog.cli.invoices import COLUMNS, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bizlog.cli.invoices import BadRow, Line, Row

CATALOGUE = (
    ("1", "Contoso Catnip's Friend", "9.99"),
    ("2", "Salty Sailor's Squeaky Squid", "6.99"),
    ("3", "Mermaid's Mice Trio", "12.99"),
    ("4", "Ocean Explorer's Puzzle Ball", "11.99"),
    ("5", "Pirate Parrot's Teaser Wand", "8.99"),
    ("6", "Seafarer's Tug Rope, 2 m", "14.99"),
    ("7", "Seashell Snuggle Bed", "19.99"),
    ("8", "Nautical Knot Ball", "7.995"),
)
COUNTRIES = ("United Kingdom", "Germany", "France", "EIRE", "Norway", "Portugal")
_WEIGHTS = (60, 12, 10, 8, 6, 4)
_CREDIT_NOTES = 0.05  # of all invoices
_UNKNOWN_CUSTOMERS = 0.2

# Enough to see something happen; a busy shop all the same.
LINES_PER_SECOND = 1_000


class MadeUpShop:
    """
    Makes up invoice lines for some seconds; iterate over it once.

    Args:
        seconds: How long.
        seed: Which shop.
        sleep: Pauses between invoices.

    Attributes:
        damage: Always None; files may have some.
    """

    def __init__(
        self,
        seconds: float,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.damage: str | None = None
        self._lines = max(1, round(seconds * LINES_PER_SECOND))
        self._made = 0
        self._random = random.Random(seed)  # noqa: S311  # made-up data, not secrets
        self._sleep = sleep

    @property
    def fraction(self) -> float:
        """How much has been made, from 0 to 1."""
        return self._made / self._lines

    def __iter__(self) -> Iterator[Line | BadRow]:
        return lines_of(self._rows(), COLUMNS)

    def _rows(self) -> Iterator[Row]:
        start = time.monotonic()
        invoice = 100_000
        while self._made < self._lines:
            invoice += 1
            for row in self._invoice(invoice)[: self._lines - self._made]:
                self._made += 1
                yield self._made, row
            ahead = self._made / LINES_PER_SECOND - (time.monotonic() - start)
            self._sleep(max(0.0, ahead))

    def _invoice(self, number: int) -> list[list[str]]:
        chance = self._random
        back = chance.random() < _CREDIT_NOTES
        invoice = f"C{number}" if back else str(number)
        unknown = chance.random() < _UNKNOWN_CUSTOMERS
        customer = "" if unknown else str(chance.randint(12_000, 18_000))
        country = chance.choices(COUNTRIES, _WEIGHTS)[0]
        now = datetime.now(UTC).isoformat(" ", "seconds")
        bought = chance.sample(CATALOGUE, chance.randint(1, 6))
        return [
            [
                invoice,
                code,
                name,
                str(-chance.randint(1, 3) if back else chance.randint(1, 12)),
                now,
                price,
                customer,
                country,
            ]
            for code, name, price in bought
        ]
