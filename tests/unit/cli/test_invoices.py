"""Invoice rows: text becomes exact values; a bad row is named and costs itself."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.cli.errors import CommandError
from bizlog.cli.invoices import COLUMNS, BadRow, InvoiceFile, Line, lines_of

GOOD = ["536365", "85123A", "HEART, WHITE", "6", "2010-12-01 08:26:00", "2.55"]
GOOD += ["17850.0", "United Kingdom"]


def read_row(**changes):
    """Read one row that is good except for the changes."""
    cells = list({**dict(zip(COLUMNS, GOOD, strict=True)), **changes}.values())
    return next(lines_of([(2, cells)], COLUMNS))


def test_a_row_becomes_typed_values():
    """Money is the Decimal of the text, the time is UTC, the id loses its `.0`."""
    assert read_row() == Line(
        invoice="536365",
        product_id="85123A",
        product_name="HEART, WHITE",
        quantity=6,
        time=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        price=Decimal("2.55"),
        customer="17850",
        country="United Kingdom",
    )


def test_what_is_missing_is_none():
    """An empty description or customer is None."""
    line = read_row(Description="", CustomerID="")
    assert line.product_name is None
    assert line.customer is None


def test_an_offset_is_kept():
    """A time that names its offset keeps it."""
    line = read_row(InvoiceDate="2011-06-01 08:00:00+01:00")
    assert line.time.utcoffset() == timedelta(hours=1)


@pytest.mark.parametrize(
    ("invoice", "quantity", "sale", "credit_note"),
    [
        ("1", "1", True, False),
        ("1", "0", True, False),
        ("1", "-1", False, False),
        ("C1", "-1", False, True),
        ("C1", "1", False, True),
    ],
)
def test_sales_and_returns(invoice, quantity, sale, credit_note):
    """A credit note or a negative quantity is no sale."""
    line = read_row(InvoiceNo=invoice, Quantity=quantity)
    assert (line.is_sale, line.is_credit_note) == (sale, credit_note)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("InvoiceNo", ""),
        ("StockCode", ""),
        ("Country", ""),
        ("Quantity", ""),
        ("Quantity", "six"),
        ("Quantity", "6.0"),
        ("Quantity", "1_0"),
        ("Quantity", "9" * 30),
        ("UnitPrice", ""),
        ("UnitPrice", "NaN"),
        ("UnitPrice", "1e9"),
        ("UnitPrice", "2,55"),
        ("UnitPrice", "\u0662.5"),
        ("InvoiceDate", ""),
        ("InvoiceDate", "yesterday"),
        ("InvoiceDate", "2010-13-01 08:26:00"),
        ("Description", "foreign \udce9 bytes"),
    ],
)
def test_a_bad_cell_is_named(column, cell):
    """A cell that cannot be read yields line, field and what was expected."""
    row = read_row(**{column: cell})
    assert isinstance(row, BadRow)
    assert (row.line, row.field) == (2, column)
    assert row.expected
    if cell:
        assert cell not in str(row), "the value itself is not repeated"


@pytest.mark.parametrize("cells", [GOOD[:-1], [*GOOD, "more"], ["x"]])
def test_a_row_of_another_width_is_bad(cells):
    """Too few or too many cells are no invoice line."""
    assert next(lines_of([(7, cells)], COLUMNS)) == BadRow(
        7, "row", f"8 columns, got {len(cells)}"
    )


@given(st.lists(st.text(), min_size=8, max_size=8))
def test_any_text_is_a_line_or_a_bad_row(cells):
    """No text makes the reader raise."""
    row = next(lines_of([(2, cells)], COLUMNS))
    assert isinstance(row, Line | BadRow)


def test_columns_are_found_by_name(write_csv):
    """The order of the columns does not matter, and further ones are left alone."""
    header = "Country,Extra,InvoiceNo,StockCode,Description,Quantity,InvoiceDate,"
    header += "UnitPrice,CustomerID"
    path = write_csv("France,?,1,A,Cup,2,2011-01-01 10:00:00,1.5,", header=header)
    with InvoiceFile(path) as file:
        [line] = file
    assert (line.country, line.quantity, line.price) == ("France", 2, Decimal("1.5"))


def test_gzip_is_recognised_by_its_content(write_csv, tmp_path):
    """A compressed file is read whatever its name, and the fraction reaches 1."""
    plain = write_csv(*[",".join([*GOOD[:2], "Cup", *GOOD[3:]])] * 3)
    packed = tmp_path / "packed.bin"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with InvoiceFile(plain) as one, InvoiceFile(packed) as other:
        assert list(one) == list(other)
        assert one.fraction == other.fraction == 1.0


def test_a_byte_order_mark_is_no_column(write_csv):
    """A file that a spreadsheet saved with a byte order mark has the same columns."""
    path = write_csv()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with InvoiceFile(path) as file:
        assert list(file) == []


def test_foreign_bytes_cost_one_row(write_csv):
    """Bytes that are no UTF-8 make their row bad, not the file."""
    good = ",".join([*GOOD[:2], "Cup", *GOOD[3:]])
    path = write_csv(good, good.replace("Cup", "Caf\u00e9"), good)
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xe9"))
    with InvoiceFile(path) as file:
        rows = list(file)
    assert [type(row) for row in rows] == [Line, BadRow, Line]
    assert rows[1] == BadRow(3, "Description", "UTF-8 text")


def test_a_torn_gzip_file_ends_with_its_damage(write_csv, tmp_path):
    """What can be read of a torn file is read; then the damage is told."""
    good = ",".join([*GOOD[:2], "Cup", *GOOD[3:]])
    plain = write_csv(*[good] * 5_000)
    packed = tmp_path / "torn.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-20])
    with InvoiceFile(packed) as file:
        lines = list(file)
        assert file.damage
        assert str(packed) in file.damage
    assert all(isinstance(line, Line) for line in lines)


def test_a_missing_file_names_the_columns(tmp_path):
    """A file that is not there: the error says so, and which columns are expected."""
    with pytest.raises(CommandError, match=r"No such file.*InvoiceNo, StockCode"):
        InvoiceFile(tmp_path / "none.csv")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x1f\x8b\x00garbage"])
def test_another_kind_of_file_names_the_columns(content, tmp_path):
    """A header without the columns, or no CSV at all, is an error before the start."""
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=r"InvoiceNo, StockCode"):
        InvoiceFile(path)
