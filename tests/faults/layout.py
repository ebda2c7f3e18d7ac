"""The matrix on a terminal: a row for each scenario, a column for each contender."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from cell import Cell

Cells = Mapping[tuple[str, str], Cell | str]
"""What was found, by row and contender; text says why nothing was."""

WIDTH = 14  # characters of a column; longer words are broken


def render(rows: Mapping[str, str], names: Sequence[str], cells: Cells) -> str:
    """
    Draw the table, then what the rows mean.

    Args:
        rows: What each row is about, by its name.
        names: The contenders in order.
        cells: What was found.
    """
    table = [["", *names]]
    table += [[row, *(_text(cells.get((row, name))) for name in names)] for row in rows]
    widths = [min(WIDTH, max(map(len, column))) for column in zip(*table, strict=True)]
    lines = [line for texts in table for line in _wrap(texts, widths)]
    legend = [f"  {row:<10} {about}" for row, about in rows.items()]
    return "\n".join([*lines, "", "delivered/emitted of:", *legend])


def misses(cells: Cells) -> list[str]:
    """Say which targets were missed, a line each."""
    return [
        f"MISS  {row}, {name}: {miss}"
        for (row, name), cell in cells.items()
        for miss in (cell.misses if isinstance(cell, Cell) else ())
    ]


def _text(cell: Cell | str | None) -> str:
    return "-" if cell is None else str(cell)


def _wrap(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Break the cells of one row at their blanks, and align them."""
    broken = [_break(text, width) for text, width in zip(texts, widths, strict=True)]
    height = max(map(len, broken))
    padded = [part + [""] * (height - len(part)) for part in broken]
    return [
        "  ".join(
            part.ljust(width) for part, width in zip(parts, widths, strict=True)
        ).rstrip()
        for parts in zip(*padded, strict=True)
    ]


def _break(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
