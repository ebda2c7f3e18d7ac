"""
Where events are read from: files and folders of JSON Lines, and journals.

A folder is searched at any depth for `*.jsonl`, `*.jsonl.gz`, `*.jsonl.zst` and the
`*.db` of journals; hidden files are left out, since they are not complete yet, and what
a journal folder has in quarantine. Files are read in the order of their names, which
begin with the time for those of the file sink. What a file holds is seen by its
content, so events and dead letters may be mixed. Hubs and topics are read one partition
after the other, up to where each ended when it was looked at.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bizlog.cli.entries import Place, read_entry
from bizlog.cli.errors import CommandError
from bizlog.cli.lines import SQLITE_MAGIC, LineFile, first_bytes
from bizlog.cli.stream_source import sources_of
from bizlog.cli.streams import is_stream, open_stream
from bizlog.cli.tables import counted
from bizlog.delivery.marks import SUFFIX as MARK_ENDING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from bizlog.cli.entries import Entry

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
JOURNAL_ENDING = ".db"
QUARANTINE = "quarantine"
_UNFINISHED = tuple(f"{ending}.part" for ending in ENDINGS)


class Source(Protocol):
    """
    One file with events, or one partition.

    Attributes:
        path: The file; name of the partition.
        size: Its bytes, when it was found; of a partition its messages.
        modified: When it was changed last, in nanoseconds.
        damage: After reading: why it ended early, or None.
    """

    size: int
    modified: int
    damage: str | None

    @property
    def path(self) -> Path | str:
        """Where it is."""
        ...

    @property
    def read_bytes(self) -> int:
        """How much of it was read, in bytes as stored; of a partition in messages."""
        ...

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Read the entries behind a line; 0 begins with the first."""
        ...


class LineSource:
    """
    One file of JSON Lines.

    Args:
        path: The file.

    Attributes:
        path: As given.
        size: Its bytes, when it was found.
        modified: When it was changed last, in nanoseconds.
        damage: After reading: why it ended early, or None.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        self._read = 0
        found = path.stat()
        self.size, self.modified = found.st_size, found.st_mtime_ns

    @property
    def read_bytes(self) -> int:
        """How much of it was read, in bytes as stored."""
        return min(self._read, self.size)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """
        Read the entries behind a line.

        Args:
            after: The line; 0 begins with the first.
        """
        with LineFile(self.path, self.size) as file:
            for line in file:
                self._read = file.position
                if file.number > after and line:
                    yield read_entry(line, Place(self.path, file.number))
            self.damage = file.damage
        self._read = self.size


class Sources:
    """
    All files and partitions that some words stand for; to be used in `with`.

    Args:
        words: Files, folders, and URLs of hubs and topics.
        group: Consumer group for the hubs; None takes the default one.

    Attributes:
        files: The files, in the order they are read, and then the partitions.
        empty: Folders in which nothing was found, such as a journal's when all is done.
        marks: What processes left to say how far they had counted; they hold no event.
        unfinished: Files that are still being written, or were left by a process that
            died; they are not read.

    Raises:
        CommandError: A path is not there, or nothing was found that can be read; a hub
            or topic gives no answer.
    """

    def __init__(self, words: Sequence[Path | str], group: str | None = None) -> None:
        self.unfinished: list[Path] = []
        self.marks: list[Path] = []
        self.empty: list[Path] = []
        urls = list(dict.fromkeys(str(word) for word in words if is_stream(str(word))))
        if group is not None and not urls:
            raise CommandError("--group is for Event Hubs, and none is named")
        roots = [Path(word) for word in words if not is_stream(str(word))]
        found = {path for root in roots for path in self._search(root)}
        files = [_source(path) for path in sorted(found, key=_by_name)]
        self._streams = [open_stream(url, group) for url in urls]
        self._partitions = [
            partition for stream in self._streams for partition in sources_of(stream)
        ]
        self.files: list[Source] = [*files, *self._partitions]
        self._check_found()

    def begin_with(self, moment: str | None) -> None:
        """Tell partitions, which know when events came, from which time they matter."""
        for partition in self._partitions:
            partition.since = moment

    def stop(self) -> None:
        """Have partitions end before their end; from any thread."""
        for partition in self._partitions:
            partition.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The work is done: who does not wait for connections to close has it, too.
        with suppress(KeyboardInterrupt):
            for stream in self._streams:
                stream.close()

    def _search(self, root: Path) -> list[Path]:
        names = list(_walk(root)) if root.is_dir() else [root]
        marks = [path for path in names if path.name.endswith(MARK_ENDING)]
        self.marks += marks
        if not root.is_dir():
            return [] if marks else [root]
        unfinished = [path for path in names if path.name.endswith(_UNFINISHED)]
        self.unfinished += unfinished
        found = [
            path
            for path in names
            if path.name.endswith((*ENDINGS, JOURNAL_ENDING))
            and not path.name.startswith(".")
        ]
        if not (found or unfinished or marks):
            self.empty.append(root)
        return found

    def _check_found(self) -> None:
        if self.empty and not (self.files or self.unfinished or self.marks):
            raise CommandError(
                f"{self.empty[0]}: holds no events: expected files named "
                f"*{', *'.join(ENDINGS)}, or *{JOURNAL_ENDING} of journals"
            )

    @property
    def fraction(self) -> float:
        """How much is read, from 0 to 1."""
        whole = sum(file.size for file in self.files)
        return sum(file.read_bytes for file in self.files) / whole if whole else 1.0

    @property
    def damages(self) -> list[str]:
        """What was found damaged so far."""
        return [file.damage for file in self.files if file.damage]

    def notes(self) -> list[str]:
        """Say what is left out, for standard error."""
        notes = [f"{root} holds no events" for root in self.empty]
        if self.unfinished:
            notes.append(
                f"{counted(len(self.unfinished), 'unfinished file')} left out, such as "
                f"{self.unfinished[0]}: their writer completes them at its next flush, "
                "or the next start of a file sink on that folder does"
            )
        return notes


def _source(path: Path) -> Source:
    magic = first_bytes(path)
    try:
        return _journal(path) if magic == SQLITE_MAGIC else LineSource(path)
    except OSError as error:  # gone since the look at it
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None


def _journal(path: Path) -> Source:
    from bizlog.cli.journal_source import JournalSource  # noqa: PLC0415  # loads sqlite3

    return JournalSource(path)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, onerror=_cannot_search):
        folders[:] = sorted(name for name in folders if name != QUARANTINE)
        yield from (Path(folder, name) for name in names)


def _cannot_search(error: OSError) -> None:
    raise CommandError(f"{error.filename}: cannot be read: {error.strerror}")


def _by_name(path: Path) -> tuple[str, str]:
    return path.name, str(path)
