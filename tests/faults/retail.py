"""
What real invoice lines must come to, by a plain loop that shares no code with bizlog.

The lines are those of the file beside the project, or of BIZLOG_TEST_DATA: a CSV file
with the columns of "Online Retail" (https://doi.org/10.24432/C5BW33).
"""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from dataclasses import dataclass, field
from decimal import Context, Decimal
from itertools import islice
from pathlib import Path

from brokers import UnavailableError

DATA = Path(
    os.environ.get("BIZLOG_TEST_DATA")
    or Path(__file__).resolve().parents[3]
    / "shared/data/online-retail-2010-12_2011-08.csv.gz"
)

EXACT = Context(prec=80)


@dataclass
class Expected:
    """
    What must come out.

    Attributes:
        lines: Type and amount of each line's event, by invoice and number in it.
        totals: Sales less returns, by country.
        sales: How many orders were placed.
    """

    lines: dict[tuple[str, int], tuple[str, Decimal]] = field(
        default_factory=dict[tuple[str, int], tuple[str, Decimal]]
    )
    totals: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    sales: int = 0

    @property
    def events(self) -> int:
        """One for each line, and one for each sale."""
        return len(self.lines) + self.sales


def data_file() -> Path:
    """
    Find the file.

    Raises:
        UnavailableError: It is not there.
    """
    if not DATA.is_file():
        raise UnavailableError("the real invoice lines are not beside the project")
    return DATA


def read_plainly(path: Path, most: int) -> Expected:
    """Read the first lines of a file."""
    expected = Expected()
    numbers: Counter[str] = Counter()
    before = None
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as text:
        for row in islice(csv.DictReader(text), most):
            invoice, country = row["InvoiceNo"], row["Country"]
            numbers[invoice] += 1
            quantity = Decimal(row["Quantity"])
            total = EXACT.multiply(quantity, Decimal(row["UnitPrice"]))
            sold = quantity >= 0 and invoice[0] != "C"
            kind = "product.added_to_cart" if sold else "order.returned"
            expected.lines[invoice, numbers[invoice]] = (kind, total)
            so_far = expected.totals.get(country, Decimal(0))
            expected.totals[country] = EXACT.add(so_far, total)
            sale = (invoice, row["CustomerID"], country) if sold else None
            expected.sales += sale is not None and sale != before
            before = sale
    return expected
