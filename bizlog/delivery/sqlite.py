"""
A journal in one SQLite file: what was appended survives the death of the process.

    meta(key, value)                        journal_id, created_at, start
    runs(first, last, at, checks, data)     one row a run, as `rows` packs it
    lanes(name, state)                      the last seal of each lane, as JSON
    notes(key, value)                       what others may know: ledger, pid, host

One writing connection a file, opened after a fork, used by one thread at a time. An
append is one INSERT in a transaction of its own: after an error nothing of the run is
there. Deletions wait until some thousand records are consumed, or for `tidy`; a row
that the disk has damaged is counted and never deleted. Every error of SQLite or of the
system is raised as `JournalError`.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from bizlog.delivery.journal import DAMAGED, JournalError, LaneState
from bizlog.delivery.rows import Chunk, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from bizlog.sinks import Record

_Row: TypeAlias = tuple[int, int, float, bytes, bytes]
Sync: TypeAlias = Literal["normal", "full"]

APPLICATION_ID = 0x62697A6C  # "bizl"
FORMAT_VERSION = 1

# Measured in the pump: 4 KiB pages reach 0.65 of the memory journal, these 0.8.
PAGE_BYTES = 65_536
CHECKPOINT_PAGES = 250
# What the write-ahead log shrinks to when it starts anew.
WAL_BYTES = 2 * CHECKPOINT_PAGES * PAGE_BYTES
# A million took 1.2 s at a time; whoever calls has others to serve.
DELETE_EVENTS = 100_000
# Free pages and a log of this size are kept for the next runs.
SPARE_PAGES = 64
SPARE_WAL_BYTES = 1 << 20
# While others are in use, free pages are given back from so many on, a few at a time:
# each costs the move of another. When none is in use, so many at a time (0.15 s).
MANY_PAGES = 1_024
# A reader or its recovery holds a lock for moments.
BUSY_SECONDS = 0.2
# One DELETE for so many consumed records, or at the next `tidy`.
RELEASE_EVENTS = 20_000
# What is decoded at a time, and how many places are kept (lanes far apart).
CHUNK_EVENTS = 5_000
CHUNK_BYTES = 2 << 20
CHUNKS = 4

_SCHEMA = f"""
pragma page_size = {PAGE_BYTES};
pragma auto_vacuum = incremental;
pragma journal_mode = wal;
begin immediate;
create table meta (key text primary key, value) without rowid;
create table runs (
    first integer primary key, last integer not null, at real not null,
    checks blob not null, data blob not null
);
create table lanes (name text primary key, state blob not null) without rowid;
create table notes (key text primary key, value blob not null) without rowid;
pragma application_id = {APPLICATION_ID};
pragma user_version = {FORMAT_VERSION};
commit;
"""

# Connections of a parent, in its forked child: closing them would touch its files.
_forsaken: list[sqlite3.Connection] = []

_TABLES = {"meta", "runs", "lanes", "notes"}

_CORRUPT = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


class UnfitFileError(JournalError):
    """
    A file that is no journal of ours.

    Args:
        reason: `corrupt`, `foreign` (another program's), `newer` (of a later version of
            bizlog) or `empty` (its maker died too early).
    """

    def __init__(self, reason: Literal["corrupt", "foreign", "newer", "empty"]) -> None:
        self.reason = reason
        super().__init__(f"the journal's file is {reason}")


class SqliteJournal:
    """
    A journal in one file; makes the file, or opens it where it exists.

    Args:
        path: The file; its folder exists. Made with mode 0600.
        journal_id: Name of a new journal; a new one by default.
        start: Position of the first record of a new journal.
        sync: `normal` survives the death of the process, `full` that of the machine.
        connect: Opens a connection, like `sqlite3.connect`.
        wall_clock: Seconds since 1970.

    Attributes:
        created_at: When the file was made, in seconds since 1970.

    Raises:
        UnfitFileError: The file is corrupt, foreign or of a newer version.
        JournalError: The file cannot be made or opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        journal_id: str | None = None,
        start: int = 0,
        sync: Sync = "normal",
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path).absolute()
        self._wall_clock = wall_clock
        self._chunks: list[Chunk] = []
        self._damaged: set[int] = set()
        with _errors():
            is_new = _create(self.path)
            self._connection = _connect(self.path, sync, connect)
        try:
            if is_new:
                self._make(journal_id or uuid.uuid4().hex, start)
            self._load()
        except BaseException:
            self._connection.close()
            if is_new:
                self._unlink()
            raise
        self._identity = self._identities()

    def _make(self, journal_id: str, start: int) -> None:
        meta = {"journal_id": journal_id, "created_at": self._wall_clock()}
        with _errors():
            self._connection.executescript(_SCHEMA)
            self._connection.executemany(
                "insert into meta values (?, ?)", [*meta.items(), ("start", start)]
            )

    def _load(self) -> None:
        with _errors():
            check_format(self._connection)
            meta = dict(self._connection.execute("select key, value from meta"))
            lanes = dict(self._connection.execute("select name, state from lanes"))
            row = self._one("select last from runs order by first desc limit 1")
        try:
            self.journal_id: str = meta["journal_id"]
            self.created_at: float = meta["created_at"]
            self.start: int = meta["start"]
        except KeyError:
            raise UnfitFileError("corrupt") from None
        self.end: int = self.start if row is None else max(self.start, row + 1)
        self._released = self.start
        self._lanes = {
            name: decode_state(state, self.start) for name, state in lanes.items()
        }

    @property
    def corrupt(self) -> int:
        """Records that were found damaged so far."""
        return len(self._damaged)

    @property
    def moved(self) -> bool:
        """Whether the file was deleted or replaced: what is written is not kept."""
        # Without an identity it was deleted while it was made.
        return self._identity[0] is None or self._identities() != self._identity

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in (self.path, _beside(self.path, "-wal"))]

    def append(self, run: Sequence[Record]) -> None:
        """
        Add records at the end, all or none.

        Raises:
            JournalError: Nothing of the run was kept.
        """
        if not run:
            return
        end = self.end + len(run)
        row = (self.end, end - 1, self._wall_clock(), *pack(run))
        with _errors():
            self._connection.execute("insert into runs values (?, ?, ?, ?, ?)", row)
        self.end = end

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """
        Read records from a position on, within both limits.

        Raises:
            JournalError: The disk gives no answer.
        """
        found: list[Record] = []
        while position < self.end and max_events > 0:
            chunk = self._chunk(position)
            piece, size = chunk.cut(position, max_events, max_bytes)
            if not piece:
                return found or [chunk[position]]
            found += piece
            position += len(piece)
            max_events -= len(piece)
            max_bytes -= size
            if position < chunk.end:
                break
        return found

    def _chunk(self, position: int) -> Chunk:
        for chunk in self._chunks:
            if chunk.start <= position < chunk.end:
                self._chunks.remove(chunk)
                break
        else:
            chunk = self._read_chunk(position)
        self._chunks.append(chunk)
        del self._chunks[:-CHUNKS]
        return chunk

    def _read_chunk(self, position: int) -> Chunk:
        # A row that cannot be read hides the one before it: that one is read alone.
        records = self._read_rows(position, -1) or self._read_rows(position, 1)
        return records or Chunk(position, self._missing(position))

    def _read_rows(self, position: int, limit: int) -> Chunk | None:
        start, size = position, 0
        records: list[Record] = []
        with suppress(UnfitFileError), closing(self._rows(position, limit)) as rows:
            for first, last, _, checks, data in rows:
                if not records:
                    start = min(first, position)
                if first > start + len(records):
                    break  # a gap: the next chunk begins with it
                records += self._records(first, last, checks, data)
                size += len(data)
                if size >= CHUNK_BYTES or len(records) >= CHUNK_EVENTS:
                    break
        return Chunk(start, records) if records else None

    def _rows(self, position: int, limit: int) -> Generator[_Row, None, None]:
        with _errors():
            yield from self._connection.execute(
                "select * from runs where last >= ? and first"
                " >= coalesce((select max(first) from runs where first <= ?), 0)"
                " order by first limit ?",
                (position, position, limit),
            )

    def _missing(self, position: int) -> list[Record]:
        """Stand in for a run that is gone or cannot be read: up to the next one."""
        stop = min(self._following(position), position + CHUNK_EVENTS)
        self._damaged.update(range(position, stop))
        return [DAMAGED] * (stop - position)

    def _following(self, position: int) -> int:
        """Say where the next run begins, or the end."""
        found: int | None = None
        with suppress(UnfitFileError), _errors():
            found = self._one("select min(first) from runs where first > ?", position)
        return self.end if found is None else found

    def _records(
        self, first: int, last: int, checks: bytes, data: bytes
    ) -> list[Record]:
        records = unpack(last - first + 1, checks, data)
        if DAMAGED in records:
            self._damaged.update(
                first + index
                for index, record in enumerate(records)
                if record is DAMAGED
            )
        return records

    def position_at(self, wall_time: float) -> int:
        """
        Position of the first record that was appended at a time or later.

        Args:
            wall_time: Seconds since 1970.

        Raises:
            JournalError: The disk gives no answer.
        """
        with _errors():
            first = self._one("select min(first) from runs where at >= ?", wall_time)
        return self.end if first is None else first

    def release(self, position: int) -> None:
        """
        Forget what stands before a position; now and then it is deleted.

        Raises:
            JournalError: It could not be deleted now; the next call tries again.
        """
        self._released = max(self._released, position)
        if self._released - self.start >= RELEASE_EVENTS:
            self._delete()

    def _delete(self) -> None:
        with _errors():
            start = self._run_start(min(self._released, self.start + DELETE_EVENTS))
            if start == self.start:  # a long run, or a gap
                start = self._run_start(self._released)
            if start > self.start:
                with self._transaction():
                    self._delete_runs(start)
                self.start = start

    def _run_start(self, position: int) -> int:
        if position >= self.end:
            return self.end
        start: int | None = self._one(
            "select max(first) from runs where first <= ?", position
        )
        return self.start if start is None else start

    def _delete_runs(self, stop: int) -> None:
        kept = sorted({self._run_start(each) for each in self._damaged if each < stop})
        self._connection.executemany(
            "delete from runs where first > ? and first < ?",
            list(pairwise([-1, *kept, stop])),
        )
        self._connection.execute(
            "update meta set value = ? where key = 'start'", (stop,)
        )

    def tidy(self) -> None:
        """
        Delete what was released and give space back to the disk, a part at a time.

        Raises:
            JournalError: The disk did not allow it; the next call tries again.
        """
        self._delete()
        with _errors():
            free: int = self._one("pragma freelist_count")
            if self.start == self.end:
                self._vacuum(min(free - SPARE_PAGES, MANY_PAGES))
                self._shrink_wal()
            elif free > MANY_PAGES:
                self._vacuum(SPARE_PAGES)

    def _vacuum(self, pages: int) -> None:
        # As a script: execute() would stop after the first page.
        if pages > 0:
            self._connection.executescript(f"pragma incremental_vacuum({pages})")

    def _shrink_wal(self) -> None:
        if _beside(self.path, "-wal").stat().st_size > SPARE_WAL_BYTES:
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def skip_to(self, position: int) -> None:
        """Go on from a later position: what is left out has been released."""
        self.end = max(self.end, position)

    def copy(self, other: SqliteJournal, position: int, stop: int) -> int:
        """
        Take over the runs of another journal between two positions, as they are.

        Returns:
            How many records could not be read there.

        Raises:
            JournalError: This journal could not be written.
        """
        copied: int = 0
        for row in other.rows(position, stop):
            with _errors():
                self._connection.execute("insert into runs values (?, ?, ?, ?, ?)", row)
            copied += min(row[1] + 1, stop) - max(row[0], position)
        self.skip_to(stop)
        return stop - position - copied

    def rows(self, position: int, stop: int) -> Iterator[_Row]:
        """Give the rows between two positions that can be read."""
        while position < stop:
            try:
                with closing(self._rows(position, 1)) as rows:
                    row = next(rows, None)
            except UnfitFileError:
                position = self._following(position)
                continue
            except JournalError:
                return
            if row is None or row[0] >= stop:
                return
            yield row
            position = row[1] + 1

    def seal(self, lane: str, state: LaneState) -> None:
        """
        Keep where a lane stands.

        Raises:
            JournalError: It was not kept.
        """
        row = (lane, msgspec.json.encode(state))
        with _errors():
            self._connection.execute("insert or replace into lanes values (?, ?)", row)
        self._lanes[lane] = state

    def lanes(self) -> dict[str, LaneState]:
        """Say where each lane stood when it was last sealed, by name."""
        return dict(self._lanes)

    def note(self, key: str, value: bytes) -> None:
        """
        Leave JSON for those who look at the file: the ledger, the process.

        Raises:
            JournalError: It was not kept.
        """
        with _errors():
            self._connection.execute(
                "insert or replace into notes values (?, ?)", (key, value)
            )

    def notes(self) -> dict[str, bytes]:
        """
        Give what was noted, by key.

        Raises:
            JournalError: The disk gives no answer.
        """
        with _errors():
            return dict(self._connection.execute("select key, value from notes"))

    def close(self) -> None:
        """Close the file; it stays, with all that it holds."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def forsake(self) -> None:
        """Leave the file, in a forked child, to its parent: open, and never used."""
        _forsaken.append(self._connection)

    def remove(self) -> None:
        """
        Close and delete the file: all lanes are done with it.

        Raises:
            JournalError: It could not be deleted.
        """
        with suppress(sqlite3.Error):
            # Closing writes the log into the file: no need to wait for the disk with
            # what is deleted then (15 to 60 ms).
            self._connection.execute("pragma synchronous = off")
        self.close()
        with _errors():
            self._unlink()

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            _beside(self.path, suffix).unlink(missing_ok=True)

    def _one(self, sql: str, *values: Any) -> Any:
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        self._connection.execute("begin immediate")
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            # SQLite itself ends it where the disk does not allow even that.
            with suppress(sqlite3.Error):
                self._connection.rollback()
            raise


@contextmanager
def _errors() -> Generator[None, None, None]:
    """Let no error of SQLite or of the system through but as a JournalError."""
    try:
        yield
    except JournalError:
        raise
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _CORRUPT:
            raise UnfitFileError("corrupt") from error
        raise JournalError(f"{type(error).__name__}: {error}") from error


def check_format(connection: sqlite3.Connection) -> None:
    """
    See whether a file is a journal that this version understands.

    Raises:
        UnfitFileError: It is not.
    """
    ((application_id,),) = connection.execute("pragma application_id")
    ((version,),) = connection.execute("pragma user_version")
    tables = {name for (name,) in connection.execute("select name from sqlite_schema")}
    if application_id != APPLICATION_ID:
        raise UnfitFileError("foreign" if tables or application_id else "empty")
    if version > FORMAT_VERSION:
        raise UnfitFileError("newer")
    if not tables >= _TABLES:
        raise UnfitFileError("corrupt")


def decode_state(state: bytes, start: int) -> LaneState:
    """Read a lane's state; one that is damaged begins anew: twice beats never."""
    try:
        return msgspec.json.decode(state, type=LaneState)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return LaneState(start)


def _create(path: Path) -> bool:
    """Make an empty file that nobody else may read; False if there is one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        if path.is_symlink():
            raise
        return False
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask is
    finally:
        os.close(descriptor)
    return True


def _connect(
    path: Path, sync: Sync, connect: Callable[..., sqlite3.Connection]
) -> sqlite3.Connection:
    # bizlog's thread uses it; at the end, when that is stuck, the caller's.
    connection = connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )
    try:
        connection.execute(f"pragma synchronous = {sync}")
        # Some builds overwrite what is deleted with zeros (Debian's): 0.6 microseconds
        # an event of 540 bytes, and every byte written three times.
        connection.execute("pragma secure_delete = fast")
        connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"pragma journal_size_limit = {WAL_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
