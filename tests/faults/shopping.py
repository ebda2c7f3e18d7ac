"""
What the child processes of a landing do: emit real invoice lines, portion by portion.

No portion ends within a sale, so that another process can go on behind any of them.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from marks import Report

from bizlog.cli.invoices import InvoiceFile, Line

Job = dict[str, Any]

PORTION = 100  # lines between two checkpoints, about


def emit(contender: Any, job: Job, report: Report) -> None:
    """
    Emit the lines in so many portions, each when standard input says so; flush.

    With `settle` each portion is flushed.
    """
    lines = _lines_of(job)
    replay = contender.replay()
    report.add(emitting=time.monotonic())
    for number, portion in enumerate(cut(lines, job["portions"])):
        sys.stdin.readline()
        replay.play(portion)
        if job["settle"]:
            contender.flush(job["timeout"])
        report.add(**{f"portion {number}": True})
    _finish(contender, job, report, replay.events)


def checkpoints(contender: Any, job: Job, report: Report) -> None:
    """Emit the lines from portion `first` on; each is confirmed by the journal."""
    portions = [*cut(_lines_of(job), job["lines"] // PORTION)]
    replay = contender.replay()
    _resume(replay, portions[: job["first"]])
    report.add(accepted=job["first"])
    for number, portion in enumerate(portions[job["first"] :], job["first"] + 1):
        replay.play(portion)
        if not contender.confirm(number):
            report.add(unconfirmed=number)
            return
        report.add(accepted=number)
    _finish(contender, job, report, replay.events)
    sys.stdin.read()  # until what the dead left is delivered, too
    report.add(accounts=contender.ledger())


def _lines_of(job: Job) -> list[Line]:
    return _read(Path(job["data"]), job["lines"])


def _read(path: Path, most: int) -> list[Line]:
    with InvoiceFile(path) as file:
        readable = (line for line in file if isinstance(line, Line))
        return [*islice(readable, most)]


def names_of_portions(path: Path, lines: int) -> list[set[tuple[Any, ...]]]:
    """Name the lines of each portion that has a checkpoint, as judgements do."""
    numbers: Counter[str] = Counter()
    names: list[set[tuple[Any, ...]]] = []
    for portion in cut(_read(path, lines), lines // PORTION):
        names.append(set())
        for line in portion:
            numbers[line.invoice] += 1
            names[-1].add(("line", line.invoice, numbers[line.invoice]))
    return names


def cut(lines: Iterable[Line], portions: int) -> Iterator[list[Line]]:
    """Cut lines into so many portions, never within a sale."""
    sales = [[*sale] for _, sale in groupby(lines, _sale_of)]
    for number in range(portions):
        start, end = (len(sales) * n // portions for n in (number, number + 1))
        yield [line for sale in sales[start:end] for line in sale]


def _sale_of(line: Line) -> tuple[Any, ...]:
    return line.invoice, line.customer, line.country, line.is_sale


def _resume(replay: Any, portions: Iterable[Iterable[Line]]) -> None:
    """Have the lines of an invoice numbered on, where another process has begun it."""
    numbers = Counter(line.invoice for portion in portions for line in portion)
    replay._lines_of_invoice.update(numbers)


def _finish(contender: Any, job: Job, report: Report, events: int) -> None:
    report.add(emitted=events, last_emit=time.monotonic())
    flushed = contender.flush(job["timeout"])
    report.add(flushed=flushed, ended=time.monotonic(), accounts=contender.ledger())
