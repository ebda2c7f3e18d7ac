"""Text in columns that is safe to print."""

from __future__ import annotations

from bizlog.cli.tables import aligned, counted, printable


def test_columns_are_aligned():
    """Numbers stand to the right, text to the left, no spaces at the end."""
    rows = [("letters", "sink"), ("1,200", "file"), ("7", "h")]
    assert list(aligned(rows)) == ["letters  sink", "  1,200  file", "      7  h"]


def test_nothing_steers_the_terminal():
    """Escape sequences and line ends of foreign texts are made visible."""
    assert printable("a\x1b[2Jb\nc") == "a\ufffd[2Jb\ufffdc"
    assert printable("Müller") == "Müller"


def test_one_is_no_plural():
    """One letter, two thousand letters."""
    assert [counted(n, "letter") for n in (0, 1, 2_000)] == [
        "0 letters",
        "1 letter",
        "2,000 letters",
    ]
