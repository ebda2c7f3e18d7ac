"""
The open files below one folder: which partition is written where, and until when.

Blocking, for one thread at a time; without a loop and without a task. An event that
`write` did not name as failed is in a file: if that file cannot be completed it stays
hidden, and completing it is tried again by every later call and by the next `open`.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import time
from collections import OrderedDict, defaultdict, deque
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeAlias

from bizlog.exceptions import MissingExtraError
from bizlog_handlers._parts import Part, finish, leftovers
from bizlog_handlers._paths import make_directory, partition_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bizlog.sinks import Record
    from bizlog_handlers._codecs import Codec

Key: TypeAlias = tuple[str, str]

_FLAT: Key = ("", "")

# Far more than a search needs: 30,000 partitions with a file each took 0.3 s.
_ADOPTION_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Folder:
    """
    The open files of one sink.

    Args:
        root: The sink's folder.
        codec: How lines are stored.
        key: Names the partition of a record.
        rotate_bytes: Size at which a file is complete, in bytes as stored.
        rotate_seconds: Age at which a file is complete, in seconds.
        max_open: Most files open at once.
    """

    def __init__(
        self,
        root: Path,
        *,
        codec: Codec,
        key: Callable[[Record], Key],
        rotate_bytes: int,
        rotate_seconds: float,
        max_open: int,
    ) -> None:
        self._root = root
        self._codec = codec
        self._key = key
        self._rotate_bytes = rotate_bytes
        self._rotate_seconds = rotate_seconds
        self._max_open = max_open
        self._pid = os.getpid()
        self._open: OrderedDict[Key, Part] = OrderedDict()
        self._unfinished: dict[Path, int] = {}
        self._retired: deque[Part] = deque()
        self._lines = io.BytesIO()

    def open(self) -> None:
        """Make the folder and adopt what dead processes left in it."""
        make_directory(self._root)
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._adopt()

    def leave_to_parent(self) -> None:
        """Forget, in a forked child, the files that its parent still writes."""
        if self._pid != os.getpid():
            for part in self._open.values():
                part.close()
            for part in self._retired:
                part.close()
            self._open.clear()
            self._retired.clear()
            self._unfinished.clear()
            self._pid = os.getpid()

    def _adopt(self) -> None:
        deadline = time.monotonic() + _ADOPTION_SECONDS
        for path in leftovers(self._root):
            if time.monotonic() > deadline:
                _log.warning("more unfinished files in %s: left for later", self._root)
                return
            try:
                finish(path)
            except (OSError, MissingExtraError) as error:
                _log.warning("cannot complete a file left behind: %s", error)

    def write(self, records: Sequence[Record]) -> tuple[int, dict[Key, OSError]]:
        """Append events by partition; say how many worked, and which failed."""
        groups = self._group(records)
        failed: dict[Key, OSError] = {}
        for partition, events in groups.items():
            try:
                self._append(partition, events)
            except OSError as error:
                failed[partition] = error
        return len(groups) - len(failed), failed

    def _group(self, records: Sequence[Record]) -> dict[Key, list[bytes]]:
        # Events of one kind come in rows: a look at the last one's partition spares
        # most of them the search for theirs.
        groups: defaultdict[Key, list[bytes]] = defaultdict(list)
        kind, day, group = None, "", list[bytes]()
        for record in records:
            if record.event_type is not kind or not record.event_time.startswith(day):
                kind, day = record.event_type, record.event_time[:10]
                group = groups[self._key(record)]
            group.append(record.data)
        return groups

    def indices(
        self, records: Sequence[Record], partitions: dict[Key, OSError]
    ) -> tuple[int, ...]:
        """Name the events of some partitions by their position."""
        return tuple(
            index
            for index, record in enumerate(records)
            if self._key(record) in partitions
        )

    def _append(self, key: Key, events: list[bytes]) -> None:
        part = self._part(key)
        try:
            with self._joined(events) as lines:
                part.append(self._codec.encode(lines))
        except OSError:
            if part.torn:
                self._abandon(key)
            raise
        if part.size >= self._rotate_bytes:
            self._retire(key)

    def _joined(self, events: list[bytes]) -> memoryview:
        # Always in the same buffer: a batch is 2 MiB, which each of the threads that
        # take turns here would keep (measured: 57 MB resident, 47 MB so).
        self._lines.seek(0)
        self._lines.writelines(chain.from_iterable(zip(events, repeat(b"\n"))))
        self._lines.truncate()
        return self._lines.getbuffer()

    def _part(self, key: Key) -> Part:
        part = self._open.get(key)
        if part is not None and part.deleted:
            _log.error("a file was deleted while it was written: %s", part.path)
            self._open.pop(key).close()
            part = None
        if part is None:
            part = self._new_part(key)
        self._open.move_to_end(key)
        return part

    def _new_part(self, key: Key) -> Part:
        while len(self._open) >= self._max_open:
            # At once: the number of open files is a promise.
            self.finish(self._open.pop(next(iter(self._open))))
        directory = make_directory(self._root, *_segments(key))
        part = self._open[key] = Part(directory, self._codec.suffix)
        return part

    def _retire(self, key: Key) -> None:
        """Append no more to a file; whoever is free completes it."""
        self._retired.append(self._open.pop(key))

    @property
    def has_retired(self) -> bool:
        """Whether files that are full or old wait to be completed."""
        return bool(self._retired)

    def next_retired(self) -> Part:
        """Hand one of them over to `finish`."""
        return self._retired.popleft()

    def take_back(self, part: Part) -> None:
        """Keep a file whose completion was called off."""
        self._retired.append(part)

    def finish(self, part: Part) -> OSError | None:
        """
        Complete one file; what was acknowledged is kept even if that fails.

        May run beside all else: a disk takes from 30 ms to seconds to make a full file
        durable, and meanwhile the next events are written.
        """
        if part.closed:
            return None  # it had begun when it was called off
        try:
            part.complete()
        except OSError as error:
            _log.warning("cannot complete a file yet: %s", self.describe(error))
            self._unfinished[part.path] = part.size
            return error
        return None

    def _abandon(self, key: Key) -> None:
        part = self._open.pop(key)
        part.close()
        self._unfinished[part.path] = part.size

    def complete_all(self) -> OSError | None:
        """Complete every file; the last error, if one remains hidden."""
        error = self._complete_unfinished()
        for key in list(self._open):
            self._retire(key)
        while self._retired:
            error = self.finish(self.next_retired()) or error
        return error

    def retire_old(self) -> float:
        """Retire files that are due; the seconds until the next one will be."""
        self._complete_unfinished()
        now = time.monotonic()
        for key, part in list(self._open.items()):
            if part.opened + self._rotate_seconds <= now:
                self._retire(key)
        oldest = min((part.opened for part in self._open.values()), default=now)
        return max(0.0, oldest + self._rotate_seconds - time.monotonic())

    def _complete_unfinished(self) -> OSError | None:
        failure: OSError | None = None
        for path, size in list(self._unfinished.items()):
            try:
                finish(path, size)
            except OSError as error:
                failure = error
            else:
                del self._unfinished[path]
        return failure

    def describe(self, error: OSError) -> str:
        """Say what the operating system refused, and where."""
        code = errno.errorcode.get(error.errno or 0, "unknown error")
        return f"{code} ({type(error).__name__}: {error.strerror}) in {self._root}"


def by_type_and_date(record: Record) -> Key:
    """Partition by event type and by the UTC day of the event."""
    return record.event_type, record.event_time[:10]


def all_in_one(_: Record) -> Key:
    """Put all events into one partition."""
    return _FLAT


def _segments(key: Key) -> tuple[str, ...]:
    if key is _FLAT:
        return ()
    event_type, date = key
    return partition_segment("event_type", event_type), partition_segment("date", date)
