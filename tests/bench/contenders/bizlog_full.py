"""bizlog as in `bizlog_journal.py`; its journal survives the machine, too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from child import load_factory
from workload import Contender

journaled = load_factory(Path(__file__).with_name("bizlog_journal.py"))


def contender(directory: Path, capacity: int) -> AbstractContextManager[Contender]:
    """Start bizlog with `journal_sync="full"`."""
    return journaled(directory, capacity, "full")  # type: ignore[call-arg]  # its own third
