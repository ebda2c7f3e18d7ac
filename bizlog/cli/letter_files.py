"""
The files of a dead-letter folder: read by anybody, rewritten by one command at a time.

A file that is rewritten is taken from its writer first, by giving it another name; the
writer begins a new one. What is kept is written to a new file, which replaces the old
one as a whole when it is durable. So at any moment, and after a crash at any moment,
every letter stands in a file; at worst one that was delivered stands there still.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from bizlog.cli.entries import Place, read_entry
from bizlog.cli.errors import CommandError
from bizlog.cli.lines import LineFile
from bizlog.delivery.dead_letters import take_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path
    from typing import Self

    from bizlog.cli.entries import Entry

_FILES = "dead-letters-*.jsonl"
_TAKEN = "-taken-"
_LOCK = ".bizlog-dead-letters.lock"


class LetterFolder:
    """
    A folder of dead letters.

    Args:
        path: The folder.

    Raises:
        CommandError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            os.scandir(path).close()
        except FileNotFoundError:
            raise CommandError(
                f"{path}: there is no such folder, so either nothing was given up or "
                "the service keeps its dead letters elsewhere; name that folder"
            ) from None
        except OSError as error:
            raise CommandError(f"{path}: cannot be read: {error.strerror}") from None

    def files(self) -> list[Path]:
        """List the files, by name."""
        return sorted(self.path.glob(_FILES))

    @contextmanager
    def held(self) -> Generator[None]:
        """
        Keep other commands from rewriting the files; services go on writing.

        Raises:
            CommandError: Another command does so now, or the folder is read-only.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CommandError(f"{self.path}: {error.strerror}") from None
        try:
            if not _seize(descriptor):
                raise CommandError(
                    f"{self.path}: another replay or drop is at work there; wait for it"
                )
            for left in self.path.glob(f".{_FILES}.part"):
                left.unlink()  # of a command that died: the old file is still there
            yield
        finally:
            os.close(descriptor)


def _seize(descriptor: int) -> bool:
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where nothing is locked
    except ImportError:  # pragma: no cover  # Windows has no file locks of this kind
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_letters(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """Give each line of a file with what it holds; an event counts as no letter."""
    with LineFile(path) as file:
        for line in file:
            yield line, read_entry(line, Place(path, file.number))
        if file.damage:
            raise CommandError(file.damage)


class Rewriting:
    """
    One file of the folder that is written anew; inside `with`.

    What was not kept is gone once the block ends without an exception. With one, the
    file stays as it was, under its new name.

    Args:
        path: The file; from now on a file without a writer.

    Attributes:
        path: Its name now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = 0
        self._new = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if _TAKEN not in self.path.name:
            name = f"{self.path.stem}{_TAKEN}{uuid.uuid4().hex[:8]}.jsonl"
            taken = self.path.with_name(name)
            take_file(self.path, taken)
            self.path = taken
        self._new = self.path.with_name(f".{self.path.name}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        self._file = os.fdopen(os.open(self._new, flags, 0o600), "wb")
        return self

    def keep(self, line: bytes) -> None:
        """Write a line into the new file."""
        assert self._file is not None
        self._file.write(line + b"\n")
        self._kept += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        with self._file as file:
            if kind is None:
                file.flush()
                os.fsync(file.fileno())
        if kind is not None:
            self._new.unlink()
        elif self._kept:
            self._new.replace(self.path)
        else:
            self._new.unlink()
            self.path.unlink()
        _sync(self.path.parent)


def _sync(folder: Path) -> None:
    """Make names durable, where a folder can be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
