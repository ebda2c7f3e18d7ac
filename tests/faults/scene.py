"""
The stage of one scenario: a folder, a contender, and how children are run in it.

Seconds that a target allows are multiplied by `patience`, for machines that are slow or
busy; numbers of events are never.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cell import Cell
from processes import HERE, Child, Outcome
from server import Sink

CUT_SECONDS = 30.0
SHUTDOWN_SECONDS = 5.0  # bizlog's default
BLOCKED = "emit blocks"


@dataclass(frozen=True)
class Contender:
    """
    One column of the matrix.

    Attributes:
        name: As the table calls it.
        file: Its module below `contenders/`.
        distribution: What to install for it.
        ours: Whether it is bizlog, which is judged.
        journal: Whether it has a journal.
        lands: Whether it is a sink that real invoice lines are sent through.
    """

    name: str
    file: str
    distribution: str
    ours: bool = False
    journal: bool = False
    lands: bool = False

    @property
    def path(self) -> Path:
        """Where its module is; a file of one's own may be named by its path."""
        return HERE / "contenders" / self.file


@dataclass(frozen=True)
class Scene:
    """
    What a scenario gets.

    Attributes:
        contender: Who is put through it.
        folder: An empty folder of its own.
        quick: Whether fewer events and kills will do.
        patience: What the seconds of the targets are multiplied by.
        seed: Where chance begins.
    """

    contender: Contender
    folder: Path
    quick: bool
    patience: float
    seed: int

    @property
    def random(self) -> random.Random:
        """Chance, from the seed."""
        return random.Random(f"{self.seed}-{self.contender.name}")

    @property
    def cut(self) -> float:
        """Seconds after which a process is killed."""
        return CUT_SECONDS * max(1.0, self.patience / 3)

    @property
    def short_deadline(self) -> float:
        """Seconds that bizlog's end may take where no sink answers."""
        return 1.0 if self.quick else SHUTDOWN_SECONDS

    @property
    def deadline(self) -> float:
        """Seconds that it may take elsewhere: the default, on a slow machine more."""
        return SHUTDOWN_SECONDS * max(1.0, self.patience)

    def options(self, **settings: Any) -> dict[str, Any]:
        """Settings that bizlog's columns run with; peers have their defaults."""
        if not self.contender.ours:
            return {}
        ending = {"shutdown_timeout": self.deadline}
        quick = {"flush_interval": 0.5} if self.quick else {}
        return {**ending, **quick, **settings}

    def start(self, sink: Sink, *, act: str = "emit", **job: Any) -> Child:
        """Start a child of this contender."""
        settings = self.options(**job.pop("options", {}))
        full = {
            "contender": str(self.contender.path),
            "url": sink.url,
            "folder": str(self.folder),
            "act": act,
            "first": 0,
            "options": settings,
            **job,
        }
        if self.contender.ours:
            full.setdefault("ledger", True)
        return Child(full, self.folder)

    def run(self, sink: Sink, *, cut: float | None = None, **job: Any) -> Outcome:
        """Run a child to its end."""
        with self.start(sink, **job) as child:
            return child.finish(cut or self.cut)

    def run_until(
        self, sink: Sink, done: Callable[[], bool], seconds: float, **job: Any
    ) -> Outcome:
        """Run a child, and let it end once the sink has what it should have."""
        then = (*job.pop("then", ()), "wait")
        with self.start(sink, then=then, **job) as child:
            deadline = time.monotonic() + seconds
            while child.alive() and time.monotonic() < deadline:
                if sink.wait_for(done, 0.2):
                    break
            child.release()
            return child.finish(self.cut)

    def restart(self, sink: Sink, n: int, done: Callable[[], bool]) -> Outcome:
        """
        Run the service once more, as its supervisor does.

        It emits one event, number `n`, and goes on until the sink has what it should
        have.
        """
        return self.run_until(sink, done, 20 * self.patience, first=n, count=1)

    def letters(self) -> dict[int, str]:
        """Read the dead letters: the reason by the number of the event."""
        found: dict[int, str] = {}
        for file in (self.folder / "dead-letters").glob("*.jsonl"):
            for line in file.read_bytes().splitlines():
                letter = orjson.loads(line)
                found[letter["record"]["custom_properties"]["n"]] = letter["reason"]
        return found

    def cell(self, sink: Sink, outcome: Outcome, emitted: int) -> Cell:
        """Count what a scenario came to."""
        kept = self.letters().keys() - sink.stored.keys()
        cell = Cell(
            emitted=emitted,
            delivered=sink.delivered,
            doubled=sink.doubled,
            kept=len(kept),
            seconds=outcome.seconds,
        )
        self._note(cell, sink, outcome)
        return cell

    def expect_quick_emits(self, cell: Cell, report: dict[str, Any]) -> None:
        """Hold the cell to this: no caller has waited for a sink or a disk."""
        typical, slowest = report.get("p50_us", 0.0), report.get("max_us", 0.0)
        quick = typical < 1_000 * self.patience and slowest < 100_000 * self.patience
        cell.expect(quick, f"emit took {typical:.0f} µs, once {slowest:.0f} µs")

    def _note(self, cell: Cell, sink: Sink, outcome: Outcome) -> None:
        if outcome.cut and "last_emit" not in outcome.report:
            cell.notes.append(BLOCKED)
        if outcome.cut:
            cell.notes.append("killed")
        for name, times in outcome.report.get("raised", {}).items():
            cell.notes.append(f"raises {name} {times}x")
        if isinstance(flushed := outcome.report.get("flushed"), str):
            cell.notes.append(f"flush raises {flushed}")
        crashed = outcome.code > 0 and not outcome.cut
        if crashed:
            cell.notes.append("died")
        if self.contender.ours:
            cell.expect(not crashed, f"the process died: {outcome.said}")
            cell.expect(not outcome.cut, "the process hung")
            cell.expect(not sink.renamed, f"{len(sink.renamed)} events got a second id")
            cell.expect(not sink.wrong, f"unreadable: {sink.wrong[:1]}")
            raised = outcome.report.get("raised")
            cell.expect(not raised, f"emit raised {raised}")
            self._judge_ledger(cell, outcome)

    def _judge_ledger(self, cell: Cell, outcome: Outcome) -> None:
        ledger = outcome.report.get("ledger")
        if ledger is not None:
            cell.expect(ledger["balanced"], f"the ledger is open: {ledger}")
