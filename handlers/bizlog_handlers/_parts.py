"""
One file in the making: hidden until it is complete, then it gets its final name.

A part is called `.NAME.part` and belongs to whoever holds its flock. What `append`
took is committed; what it refused is cut off again, so a part that is given its name
ends where a write ended. Names are unique over processes and restarts, and no existing
file is ever overwritten or deleted. Everything here blocks and belongs in a thread.

Where flock does not exist (Windows) parts of dead processes are left as they are.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bizlog_handlers._codecs import codec_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The root, `event_type=…` and `date=…`: parts stand nowhere else.
_LEVELS_BELOW_ROOT = 2

_OURS = re.compile(r"\.(\d{8}T\d{12}Z-\d+-[0-9a-f]{8}-\d+\.jsonl(?:\.gz|\.zst)?)\.part")

_WINDOWS = sys.platform == "win32"
_BINARY: int = getattr(os, "O_BINARY", 0)
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY | _NO_LINK
_REOPEN = os.O_RDWR | _BINARY | _NO_LINK

# What a file system answers that has no hard links (FAT, some network mounts).
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})

_numbers = itertools.count(1)

if sys.platform == "win32":  # pragma: no cover  # CI has no Windows

    def _hold(fd: int) -> None:
        """Do without a lock."""

    def _seize(fd: int) -> bool:  # noqa: ARG001  # as below
        return False

else:
    import fcntl

    def _hold(fd: int) -> None:
        """Say that the file has an owner; waits while another process looks at it."""
        with suppress(OSError):  # no locks on this file system: nobody adopts either
            fcntl.flock(fd, fcntl.LOCK_EX)

    def _seize(fd: int) -> bool:
        """Become the owner unless the file has a living one."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class Part:
    """
    A new file, open for appending.

    Attributes:
        path: The hidden name.
        size: Bytes committed.
        opened: When it was made, in seconds of `time.monotonic()`.
        torn: Whether bytes that were refused could not be cut off: append no more.

    Args:
        directory: An existing folder.
        suffix: End of the final name, such as `.jsonl.gz`.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, directory: Path, suffix: str) -> None:
        name = _unique_name() + suffix
        self.path = directory / f".{name}.part"
        self.size = 0
        self.opened = time.monotonic()
        self.torn = False
        self._final = directory / name
        self._fd = os.open(self.path, _CREATE, 0o666)
        _hold(self._fd)

    def append(self, data: bytes | memoryview) -> None:
        """
        Commit all of the data, or nothing.

        Args:
            data: One piece of the file, in its final form.

        Raises:
            OSError: It could not be written; what was is cut off, or `torn` is set.
        """
        try:
            _write_all(self._fd, data)
        except OSError:
            self._cut()
            raise
        self.size += len(data)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError:
            self.torn = True

    @property
    def deleted(self) -> bool:
        """Whether somebody removed the file: what is appended would be lost."""
        return os.fstat(self._fd).st_nlink == 0

    @property
    def closed(self) -> bool:
        """Whether it was completed or given up."""
        return self._fd < 0

    def complete(self) -> None:
        """
        Make the content durable, give the file its final name and close it.

        An empty file vanishes instead.

        Raises:
            OSError: It keeps its hidden name; `finish` may be tried later.
        """
        try:
            if self.size:
                self._show()
            else:
                self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def _show(self) -> None:
        os.fsync(self._fd)
        if _WINDOWS:  # pragma: no cover - an open file cannot be renamed there
            self.close()
        _publish(self.path, self._final)

    def close(self) -> None:
        """Give up the file and its lock; it keeps the name it has."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # late write errors: nothing is left to undo
                os.close(fd)


def finish(part: Path, size: int | None = None) -> None:
    """
    Complete a part that nobody holds: cut a torn tail, give it its final name.

    A part without one whole piece is left as it is, and so is one with an owner.

    Args:
        part: The hidden file; gone already is fine.
        size: Bytes that were committed; None finds out by reading.

    Raises:
        OSError: It cannot be completed now.
        MissingExtraError: It is a zstd file and `zstandard` is not installed.
    """
    match = _OURS.fullmatch(part.name)
    if match is None or part.is_symlink() or not part.is_file():
        return
    codec = codec_of(match[1])
    with (
        suppress(FileNotFoundError),  # its owner or another process was faster
        os.fdopen(os.open(part, _REOPEN), "r+b", buffering=0) as file,
    ):
        if not _seize(file.fileno()):
            return
        whole = codec.whole(file) if size is None else size
        if whole:
            file.truncate(whole)
            os.fsync(file.fileno())
            _publish(part, part.with_name(match[1]))


def leftovers(root: Path) -> Iterator[Path]:
    """
    Find hidden parts below a sink's folder, without following links.

    Args:
        root: The folder of the sink.

    Yields:
        Parts with names of ours, whether or not somebody holds them.
    """
    yield from _leftovers(os.fspath(root), root, _LEVELS_BELOW_ROOT)


def _leftovers(folder: str, path: Path, levels: int) -> Iterator[Path]:
    for entry in _entries(folder):
        if levels and entry.is_dir(follow_symlinks=False):
            yield from _leftovers(entry.path, path / entry.name, levels - 1)
        elif _OURS.fullmatch(entry.name):
            yield path / entry.name


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # removed meanwhile, or not ours to read
        return []


def _unique_name() -> str:
    now = datetime.now(UTC)
    random = secrets.token_hex(4)
    return f"{now:%Y%m%dT%H%M%S%f}Z-{os.getpid()}-{random}-{next(_numbers)}"


def _write_all(fd: int, data: bytes | memoryview) -> None:
    """Write to the end: a short write is followed by one that names the reason."""
    written = 0
    # Views are released on the way out: the caller goes on to use their memory.
    with memoryview(data) as whole:
        while written < len(whole):
            with whole[written:] as rest:
                taken = os.write(fd, rest)
            if not taken:
                raise OSError(errno.EIO, "the file took no bytes")
            written += taken


def _publish(part: Path, final: Path) -> None:
    """Give a file its final name; unlike `rename`, `link` overwrites nothing."""
    try:
        os.link(part, final)
    except FileExistsError:
        # Ours, if a crash came between link and unlink.
        if not part.samefile(final):
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename(part, final)
        return
    part.unlink()


def _rename(part: Path, final: Path) -> None:
    """Rename where links do not exist; unique names leave the gap to sabotage."""
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(final))
    part.rename(final)
