"""
Look into a journal folder without disturbing those who write there.

Read only, one short transaction a file, nothing made or locked: `bizlog status` and
`bizlog journal ls` are run beside living processes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bizlog.delivery import locks
from bizlog.delivery.sqlite import UnfitFileError, check_format, decode_state

if TYPE_CHECKING:
    import os

BUSY_SECONDS = 0.2


class JournalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """
    What can be seen of one journal's file.

    Attributes:
        journal_id: The journal's name; that of the file where it cannot be read.
        path: The file.
        state: `live` (its process runs), `orphan` (it waits for somebody to adopt it)
            or `quarantined` (it was put aside).
        size: Bytes that it takes on the disk, its log included.
        problem: Why it cannot be read; None where it can.
        pid: Process that owns it, or owned it last.
        created_at: When it was made, in seconds since 1970.
        start: Position of the first record that is still there.
        end: Position behind the last record.
        pending: Records that are not settled, by lane.
        oldest_at: When the oldest of these was journaled, in seconds since 1970.
        notes: JSON that its process left, by key: `ledger` and others.
    """

    journal_id: str
    path: Path
    state: Literal["live", "orphan", "quarantined"]
    size: int
    problem: str | None = None
    pid: int | None = None
    created_at: float | None = None
    start: int = 0
    end: int = 0
    pending: dict[str, int] = {}
    oldest_at: float | None = None
    notes: dict[str, bytes] = {}


def inspect(path: str | os.PathLike[str]) -> list[JournalInfo]:
    """
    Look at every journal of a folder.

    Args:
        path: The journal folder.

    Returns:
        What is there, by name; those in quarantine last.

    Raises:
        OSError: The folder cannot be read.
    """
    folder = Path(path).absolute()
    found = [_look(file) for file in sorted(folder.iterdir()) if file.suffix == ".db"]
    aside = folder / "quarantine"
    kept = sorted(aside.glob("*.db")) if aside.is_dir() else []
    return [*filter(None, found), *map(_quarantined, kept)]


def _quarantined(path: Path) -> JournalInfo:
    _, _, reason = path.stem.rpartition(".")
    return JournalInfo(
        journal_id=path.stem,
        path=path,
        state="quarantined",
        size=_size(path),
        problem=reason.partition("-")[0],
    )


def _look(path: Path) -> JournalInfo | None:
    """Look at one file; None if it was deleted meanwhile."""
    is_live = locks.is_held(path.with_suffix(".lock"))
    common: dict[str, Any] = {
        "path": path,
        "state": "live" if is_live else "orphan",
        "size": _size(path),
    }
    try:
        with closing(_connect(path, is_live=is_live)) as connection:
            return JournalInfo(**common, **_contents(connection))
    except UnfitFileError as error:
        problem = str(error)
    except (sqlite3.Error, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    if not path.exists():
        return None
    return JournalInfo(**common, journal_id=path.stem, problem=problem)


def _connect(path: Path, *, is_live: bool) -> sqlite3.Connection:
    # A file that was closed well has no log, and a reader would make one.
    has_log = path.with_name(f"{path.name}-wal").exists()
    mode = "mode=ro" if is_live or has_log else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.as_uri()}?{mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
    )


def _contents(connection: sqlite3.Connection) -> dict[str, Any]:
    connection.execute("begin")  # one state of the file for all that follows
    check_format(connection)
    meta = dict(connection.execute("select key, value from meta"))
    notes = dict(connection.execute("select key, value from notes"))
    start: int = meta["start"]
    last = _first(connection, "select last from runs order by first desc limit 1")
    end: int = start if last is None else max(start, last + 1)
    lanes = {
        name: min(decode_state(state, start).settled, end)
        for name, state in connection.execute("select name, state from lanes")
    }
    settled = min(lanes.values(), default=start)
    return {
        "journal_id": meta["journal_id"],
        "created_at": meta["created_at"],
        "pid": int(notes["pid"]) if "pid" in notes else None,
        "start": start,
        "end": end,
        "pending": {name: end - at for name, at in lanes.items()},
        "oldest_at": _oldest_at(connection, settled) if settled < end else None,
        "notes": notes,
    }


def _oldest_at(connection: sqlite3.Connection, position: int) -> float | None:
    found: float | None = _first(
        connection,
        "select at from runs where first >= coalesce("
        "(select max(first) from runs where first <= ?), 0) order by first limit 1",
        position,
    )
    return found


def _first(connection: sqlite3.Connection, sql: str, *values: int) -> Any:
    row = connection.execute(sql, values).fetchone()
    return row[0] if row else None


def _size(path: Path) -> int:
    total = 0
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        total += file.lstat().st_size if file.exists() else 0
    return total
