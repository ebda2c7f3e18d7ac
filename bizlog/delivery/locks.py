"""
Who owns a journal's file: a lock on a side file, free when its process is dead.

`flock`, not `lockf`: a lock of the latter kind is lost as soon as anything in the
process opens and closes the file. A forked child inherits the lock and must close the
descriptor. A lock counts only while its file is the one in the folder.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bizlog.delivery.journal import JournalError
from bizlog.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

# Those who only look hold a lock for microseconds.
_TRIES = 3
_PAUSE_SECONDS = 0.001


def require_locks() -> None:
    """
    Make sure that this system has the locks.

    Raises:
        ConfigurationError: It has none.
    """
    if find_spec("fcntl") is None:
        raise ConfigurationError(
            "journal: this system has no flock(2), without which nobody can tell whose "
            "a journal is: leave `journal` unset here"
        )


class FileLock:
    """
    A lock that this process holds.

    Args:
        path: The side file.
        descriptor: Its open descriptor, with the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def holds(self) -> bool:
        """Whether the file is still the one in the folder."""
        return _is_in_place(self.path, self._descriptor)

    def drop(self, *, unlink: bool) -> None:
        """Let the lock go; `unlink` where there is nothing left to own."""
        if unlink and self.holds:
            with suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the descriptor: in a forked child, the lock stays the parent's."""
        # Once: the number may be another file's by then.
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)


def take(path: Path) -> FileLock | None:
    """
    Take the lock, unless another process holds it; None then.

    Raises:
        JournalError: The side file cannot be made.
    """
    for _ in range(_TRIES):
        descriptor = _open(path)
        if _locked(descriptor):
            if _is_in_place(path, descriptor):
                return FileLock(path, descriptor)
        else:
            time.sleep(_PAUSE_SECONDS)
        os.close(descriptor)
    return None


def is_held(path: Path) -> bool:
    """Say whether a process holds the lock; nothing is made, nobody disturbed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _locked(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
        with suppress(OSError):
            os.fchmod(descriptor, 0o600)  # whatever the umask is
    except OSError as error:
        raise JournalError(f"cannot lock the journal: {error}") from error
    return descriptor


def _locked(descriptor: int, *, shared: bool = False) -> bool:
    import fcntl  # noqa: PLC0415  # see require_locks

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_in_place(path: Path, descriptor: int) -> bool:
    try:
        there, ours = os.lstat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
