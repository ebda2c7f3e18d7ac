"""
Invoice lines of a shop, as "Online Retail" of the UCI repository has them.

Text becomes typed values here and nowhere else: money is a Decimal of the text in the
file, never a float; a time without an offset is UTC (the shop is in London). A row that
cannot be read is handed on as a `BadRow` and stops nothing. What is said about it names
line, field and what was expected, never the value.

Source of the columns: https://doi.org/10.24432/C5BW33
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias, cast

from bizlog.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)

# Bounds far beyond any shop, which keep sums exact within the context of `sales`.
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,12})?")

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line of an invoice.

    Attributes:
        invoice: Its number; a credit note's starts with C.
        product_id: The stock code.
        product_name: The description, if there is one.
        quantity: Items, negative when they came back.
        time: When, with its offset.
        price: Price of one item, in the shop's currency.
        customer: Internal id of the customer, if known.
        country: Where the customer lives.
    """

    invoice: str
    product_id: str
    product_name: str | None
    quantity: int
    time: datetime
    price: Decimal
    customer: str | None
    country: str

    @property
    def is_sale(self) -> bool:
        """Whether something was sold, and not taken back or written off."""
        return self.quantity >= 0 and not self.is_credit_note

    @property
    def is_credit_note(self) -> bool:
        """Whether the invoice is a credit note."""
        return self.invoice.startswith("C")


class BadRow(NamedTuple):
    """
    A row that is no invoice line.

    Attributes:
        line: Where it ends in the file; the header is line 1.
        field: The column at fault, or `row`.
        expected: What should stand there.
    """

    line: int
    field: str
    expected: str

    def __str__(self) -> str:
        return f"line {self.line:,}: {self.field}: expected {self.expected}"


Row: TypeAlias = tuple[int, "list[str] | BadRow"]


class _CellError(Exception):
    """A cell that cannot be read."""


def lines_of(rows: Iterable[Row], header: Sequence[str]) -> Iterator[Line | BadRow]:
    """
    Turn rows of text into invoice lines.

    Args:
        rows: Line number and cells of each row.
        header: The columns' names; columns beyond `COLUMNS` are left alone.
    """
    places = [header.index(column) for column in COLUMNS]
    for number, cells in rows:
        if isinstance(cells, BadRow):
            yield cells
        elif len(cells) != len(header):
            expected = f"{len(header)} columns, got {len(cells)}"
            yield BadRow(number, "row", expected)
        else:
            try:
                yield _line([cells[place] for place in places])
            except _CellError as error:
                yield BadRow(number, *cast("tuple[str, str]", error.args))


def _line(cells: list[str]) -> Line:
    invoice, code, name, quantity, time, price, customer, country = cells
    if not "".join(cells).isascii():
        _check_encoding(cells)
    return Line(
        _text("InvoiceNo", invoice),
        _text("StockCode", code),
        name or None,
        int(_number("Quantity", quantity, _INTEGER, "a whole number such as -6")),
        _time(time),
        Decimal(_number("UnitPrice", price, _DECIMAL, "a number such as 2.55")),
        customer.removesuffix(".0") or None,
        _text("Country", country),
    )


def _check_encoding(cells: list[str]) -> None:
    for column, cell in zip(COLUMNS, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError:  # the surrogates that stand for foreign bytes
            raise _CellError(column, "UTF-8 text") from None


def _text(column: str, cell: str) -> str:
    if not cell:
        raise _CellError(column, "text, got nothing")
    return cell


def _number(column: str, cell: str, form: re.Pattern[str], expected: str) -> str:
    if not form.fullmatch(cell):
        raise _CellError(column, expected)
    return cell


def _time(cell: str) -> datetime:
    try:
        time = datetime.fromisoformat(cell)
    except ValueError:
        expected = "a date and time such as 2010-12-01 08:26:00"
        raise _CellError("InvoiceDate", expected) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class InvoiceFile:
    """
    A CSV file with invoice lines, plain or compressed with gzip; iterate over it once.

    Args:
        path: The file.

    Attributes:
        damage: Why reading ended early, or None.

    Raises:
        CommandError: The file cannot be read, or its header lacks columns.
    """

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self._path = path
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}: {_wanted()}") from None
        try:
            self._size = path.stat().st_size
            self._text = _decoded(self._raw)
            self._rows = csv.reader(self._text)
            self._header = self._read_header()
        except BaseException:
            self._raw.close()
            raise

    def _read_header(self) -> list[str]:
        nothing: list[str] = []
        try:
            header = next(self._rows, nothing)
        except (csv.Error, OSError, EOFError, zlib.error) as error:
            raise CommandError(
                f"{self._path}: cannot be read: {error}: {_wanted()}"
            ) from None
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise CommandError(
                f"{self._path}: the header lacks {', '.join(missing)}: {_wanted()}"
            )
        return header

    @property
    def fraction(self) -> float:
        """How much of the file has been read, in bytes as stored, from 0 to 1."""
        return self._raw.tell() / self._size if self._size else 1.0

    def __iter__(self) -> Iterator[Line | BadRow]:
        return lines_of(self._numbered_rows(), self._header)

    def _numbered_rows(self) -> Iterator[Row]:
        while True:
            try:
                cells = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                number = self._rows.line_num
                yield number, BadRow(number, "row", f"CSV, got: {error}")
            except (OSError, EOFError, zlib.error) as error:
                self.damage = f"{self._path}: cannot be read to its end: {error}"
                return
            else:
                if cells:  # an empty line is no row
                    yield self._rows.line_num, cells

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._text.close()
        self._raw.close()


def _decoded(raw: IO[bytes]) -> io.TextIOWrapper:
    compressed = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    plain = gzip.GzipFile(fileobj=raw) if compressed else raw
    # Foreign bytes become surrogates, so that one bad row is all they cost.
    return io.TextIOWrapper(
        cast("IO[bytes]", plain),
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
    )


def _wanted() -> str:
    return f"expected a CSV file with the columns {', '.join(COLUMNS)}"
