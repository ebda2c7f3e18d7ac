"""
The keeper: looks after what one process keeps on disk, its own journal and others'.

Owned by bizlog's thread. Every second it has the journal return to its disk if it lost
it, writes down the ledger for readers such as `bizlog status`, and from time to time
takes over the journals of processes that died.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from bizlog.delivery.folder import JournalFolder
from bizlog.delivery.inheritance import Inheritance
from bizlog.delivery.marks import Mark, sweep

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from bizlog.delivery.lane import Lane
    from bizlog.delivery.sqlite import Sync
    from bizlog.sinks import Record

# How often journals of processes that died are looked for.
ADOPT_SECONDS = 10.0


class Keeper:
    """
    Keeps a journal on disk.

    Args:
        folder: Where journals are.
        producer_id: Who numbers the events.
        sync: What they survive: the death of the process, or that of the machine.
        max_age: Seconds after which events of a dead process are too old.
        max_events: Most records that wait in memory while the disk refuses them.
        max_bytes: Most bytes of them.
        notes: What the journal tells its readers.
        clock: Monotonic seconds.

    Attributes:
        journal: The journal of this process.
        mark: How far this process has counted.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        producer_id: str,
        *,
        sync: Sync,
        max_age: float | None,
        max_events: int,
        max_bytes: int,
        notes: Callable[[], dict[str, bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = JournalFolder(folder, sync=sync, clock=clock)
        self.journal = self._folder.create()
        self.mark = Mark(self._folder.path, producer_id)
        self._open_mark()
        self._max_age = max_age
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._notes = notes
        self._clock = clock
        self._inheritance: Inheritance | None = None
        self._adopt_at = clock()
        self._noted: dict[str, bytes] = {}

    def serve(self, lanes: Sequence[Lane]) -> None:
        """Learn which lanes deliver what dead processes left behind."""
        self._inheritance = Inheritance(self._folder.adopt, lanes, self._max_age)

    @property
    def has_room(self) -> bool:
        """Whether more records may be taken; while the disk refuses, memory bounds."""
        return (
            self.journal.memory_events < self._max_events
            and self.journal.memory_bytes < self._max_bytes
        )

    def remembers(self, position: int) -> bool:
        """Whether this process's record at a position is read without the disk."""
        return position >= self.journal.remembered

    def note_taken(self, run: Sequence[Record]) -> None:
        """Learn that the journal of this process was given some records."""
        if self.journal.durable:
            self.mark.journaled(max([record.sequence for record in run]))

    def tend(self) -> None:
        """Do what is due; called about every second."""
        now = self._clock()
        self.journal.maintain(now)
        self._open_mark()
        self._note()
        if now >= self._adopt_at and self._inheritance is not None:
            self._adopt_at = now + ADOPT_SECONDS
            self._inheritance.look()
            with suppress(OSError):  # the next one will
                sweep(self._folder.path)

    def _open_mark(self) -> None:
        with suppress(OSError):  # the journal tells of a disk that refuses
            self._folder.prepare()
            self.mark.open()

    def _note(self) -> None:
        notes = self._notes()
        for key, value in notes.items():
            if self._noted.get(key) != value:
                self.journal.note(key, value)
        self._noted = notes

    def release(self) -> None:
        """Let the journals taken over forget what is settled."""
        if self._inheritance is not None:
            self._inheritance.release()

    def close(self, settled: int) -> None:
        """
        Let go of everything; what waits is for the next process.

        Args:
            settled: Position up to which every lane has settled this journal.
        """
        self.journal.release(settled)
        self._note()
        if self._inheritance is not None:
            self._inheritance.close()
        self.mark.close()
        self.journal.close(remove=settled >= self.journal.end)

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of what its parent keeps."""
        self._folder.leave_to_parent()
        self.mark.leave_to_parent()
