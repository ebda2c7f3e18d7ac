"""
How far a replay has come, in a file beside it, so that it can go on where it was.

The file names for each source the line up to which everything is settled, and the times
that were asked for (two hours ago is another time when the command is repeated). It is
replaced as a whole, so a reader finds the old state or the new one.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import msgspec

from bizlog.cli.errors import CommandError
from bizlog.cli.selection import Query  # noqa: TC001  # msgspec resolves it

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = 1


class State(msgspec.Struct, frozen=True):
    """
    What the file holds.

    Attributes:
        command: Fingerprint of the command that wrote it.
        query: What was asked for, times resolved.
        lines: Lines settled, by file.
        events: Events settled so far.
        version: Of this format.
    """

    command: str
    query: Query
    lines: dict[str, int]
    events: int = 0
    version: int = _VERSION


def fingerprint(*parts: object) -> str:
    """Name what was asked for by a hash: the same words have the same one."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def load(path: Path, command: str) -> State | None:
    """
    Read the state that an earlier run left, or None without one.

    Raises:
        CommandError: The file belongs to another command, or cannot be read.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError:
        raise CommandError(
            f"{path}: is no state of a replay; name another file with --state, or "
            "start anew with --from-start"
        ) from None
    if state.command != command or state.version != _VERSION:
        raise CommandError(
            f"{path}: belongs to another replay (other sources, sink or filters); "
            "name another file with --state, or start anew with --from-start"
        )
    return state


def save(path: Path, state: State) -> None:
    """
    Replace the file.

    Raises:
        CommandError: It cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CommandError(
            f"{path}: the state of the replay cannot be written: {error.strerror}; "
            "name a file that can be with --state"
        ) from None
