"""The report on a terminal and in the README: tables, notes, verdicts. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from report import Verdict

Rows = Sequence[Sequence[str]]


class Section(NamedTuple):
    """
    One part of a run.

    Attributes:
        rows: Its table, heading first; may be empty.
        notes: What else there is to know, a line each.
        verdicts: What became of its targets.
    """

    rows: Rows
    notes: Sequence[str]
    verdicts: Sequence[Verdict]

    @property
    def lines(self) -> list[str]:
        """All that stands below the table."""
        return [*self.notes, *map(str, self.verdicts)]


def render_text(head: Sequence[str], sections: Sequence[Section]) -> str:
    """Write the report for a terminal."""
    blocks = ["\n".join(head)]
    for section in sections:
        blocks += [as_text(section.rows), "\n".join(section.lines)]
    return "\n\n".join(block for block in blocks if block)


def render_markdown(head: Sequence[str], sections: Sequence[Section]) -> str:
    """Write the report for the README: tables and lists, the machine at the end."""
    blocks: list[str] = []
    for section in sections:
        blocks += [as_markdown(section.rows), _bullets(section.lines)]
    return "\n\n".join(block for block in [*blocks, _bullets(head)] if block)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def as_text(rows: Rows) -> str:
    """Align the columns for a terminal: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_markdown(rows: Rows) -> str:
    """Write the same table for the README."""
    if not rows:
        return ""
    heading, *body = rows
    rule = ["---", *["---:"] * (len(heading) - 1)]
    lines = [heading, rule, *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
