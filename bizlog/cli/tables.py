"""Text in columns, safe to print. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align columns: numbers to the right, the rest to the left, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(_cell(text, width) for text, width in cells).rstrip()


def _cell(text: str, width: int) -> str:
    is_number = text.replace(",", "").isdigit()
    return text.rjust(width) if is_number else text.ljust(width)


def printable(text: str) -> str:
    """Replace what could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 letter`, `2,000 letters`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
