"""
From invoice lines to business events, through the logger a service would use.

Each line is one event: `product.added_to_cart` when something was sold, and
`order.returned` when it is a credit note's or its quantity is negative. Each run of
consecutive lines of one sale (same invoice, customer and country) ends with one
`order.placed`. The readable lines are numbered within their invoice, so that invoice
and line together name one event. Sums are exact.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import bizlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bizlog.cli.invoices import Line
    from bizlog.logger import BusinessLogger

# More digits than any sum of lines can have; a rounding would raise, not pass.
EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])
_ZERO = Decimal(0)


class _Sale(NamedTuple):
    invoice: str
    customer: str | None
    country: str
    is_sale: bool


def _sale_of(line: Line) -> _Sale:
    return _Sale(line.invoice, line.customer, line.country, line.is_sale)


class Replay:
    """
    Emits the events of invoice lines.

    Attributes:
        events: Events emitted.
        totals: Sales less returns by country, in the shop's currency.
    """

    def __init__(self, log: BusinessLogger) -> None:
        self.events = 0
        self.totals: dict[str, Decimal] = {}
        self._log = log
        self._lines_of_invoice: dict[str, int] = {}

    def play(self, lines: Iterable[Line]) -> None:
        """Emit all events of the lines, which are in the order they were written."""
        for sale, run in groupby(lines, _sale_of):
            with (
                bizlog.session(sale.invoice),
                bizlog.correlation(f"invoice-{sale.invoice}"),
                bizlog.user(sale.customer),
            ):
                log = self._log.bind(invoice=sale.invoice, country=sale.country)
                if sale.is_sale:
                    self._sell(log, sale, run)
                else:
                    self._take_back(log, sale, run)

    def _sell(self, log: BusinessLogger, sale: _Sale, run: Iterable[Line]) -> None:
        items: list[dict[str, Any]] = []
        order_total = _ZERO
        time = None
        for line in run:
            total = self._book(line)
            order_total = EXACT.add(order_total, total)
            items.append(_item(line))
            time = line.time
            log.bind(product_id=line.product_id, product_price=line.price).info(
                "product.added_to_cart",
                product_name=line.product_name,
                quantity=line.quantity,
                line=self._number(line),
                line_total=total,
                event_time=time,
            )
            self.events += 1
        log.info(
            "order.placed",
            order_id=sale.invoice,
            order_status="placed",
            order_items=items,
            order_total=order_total,
            event_time=time,
        )
        self.events += 1

    def _take_back(self, log: BusinessLogger, sale: _Sale, run: Iterable[Line]) -> None:
        for line in run:
            # Without a credit note the goods did not come from a customer: the shop
            # corrected its stock.
            log.bind(order_id=sale.invoice).info(
                "order.returned",
                order_status="returned" if line.is_credit_note else "adjusted",
                order_items=[_item(line)],
                order_total=self._book(line),
                line=self._number(line),
                event_time=line.time,
            )
            self.events += 1

    def _book(self, line: Line) -> Decimal:
        """Return the line's exact total and add it to its country's."""
        # fma with 0 also turns the -0.0 of an item without a price into 0.0.
        total = EXACT.fma(Decimal(line.quantity), line.price, _ZERO)
        so_far = self.totals.get(line.country, _ZERO)
        self.totals[line.country] = EXACT.add(so_far, total)
        return total

    def _number(self, line: Line) -> int:
        number = self._lines_of_invoice.get(line.invoice, 0) + 1
        self._lines_of_invoice[line.invoice] = number
        return number


def _item(line: Line) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "product_name": line.product_name,
        "quantity": line.quantity,
        "price": line.price,
    }
