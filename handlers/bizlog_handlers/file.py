"""
Events as JSON Lines in files, which have their final names only when complete.

A file is written under a hidden name (`.NAME.part`) and gets its final one when it is
large or old enough, when too many files are open, at `flush()` and at `stop()`. So a
reader that skips hidden files never sees half a line, half a batch or an empty file.
A write that fails is cut off again and its events are offered for a retry. Files of a
process that died are completed by the next `start()` on the same folder.

Readers of zstd have to read across frames, as the `zstd` command does.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from bizlog.exceptions import ConfigurationError, RetryableSinkError
from bizlog.sinks import ACCEPTED, BaseSink, SendResult
from bizlog_handlers._codecs import Compression, codec_for
from bizlog_handlers._folder import Folder, all_in_one, by_type_and_date

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from bizlog.sinks import Batch
    from bizlog_handlers._parts import Part

    Directory: TypeAlias = str | os.PathLike[str]
else:
    Directory = str  # what a sink URL or a table brings

Partition: TypeAlias = Literal["type_date", "flat"]

_T = TypeVar("_T")

_MIB = 1024 * 1024

# Files made durable at the same time; with more the writing waits for the disk.
_MOST_FINISHING = 4


class FileSink(BaseSink):
    """
    Write events as JSON Lines below a folder; the URL is `file:DIRECTORY`.

    `bizlog.flush()` makes everything visible under its final name. A file may exceed
    `rotate_bytes` by one batch. Delivery is at least once: a batch that is sent again
    after a crash or a time-out may stand in two files.

    Args:
        directory: The folder; made with its parents if missing.
        partition: `type_date` makes `event_type=NAME/date=YYYY-MM-DD/` (the date of
            the event in UTC), `flat` puts all files into the folder itself.
        rotate_bytes: Size at which a file is complete, in bytes as stored.
        rotate_seconds: Age at which a file is complete, in seconds.
        compression: `none`, `gzip` or `zstd`; each write is a member or frame.
        max_open_files: Most files open at once; beyond it the one that was written
            least recently is completed.

    Raises:
        ConfigurationError: A limit is not positive.
        MissingExtraError: `zstd` is asked for and `zstandard` is not installed.
    """

    max_events = 5_000
    max_bytes = 2 * _MIB
    url_option = "directory"

    def __init__(
        self,
        directory: Directory,
        *,
        partition: Partition = "type_date",
        rotate_bytes: int = 64 * _MIB,
        rotate_seconds: float = 60.0,
        compression: Compression = "none",
        max_open_files: int = 64,
    ) -> None:
        _check_positive(
            rotate_bytes=rotate_bytes,
            rotate_seconds=rotate_seconds,
            max_open_files=max_open_files,
        )
        self._folder = Folder(
            Path(directory),
            codec=codec_for(compression),
            key=by_type_and_date if partition == "type_date" else all_in_one,
            rotate_bytes=rotate_bytes,
            rotate_seconds=rotate_seconds,
            max_open=max_open_files,
        )
        self._rotate_seconds = rotate_seconds
        self._rotation: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._finishing: dict[asyncio.Task[OSError | None], Part] = {}

    def after_fork(self) -> None:
        """Begin anew in a forked child: the files that are open are the parent's."""
        self._leave_to_parent()
        super().after_fork()

    async def start(self) -> None:
        """
        Make the folder, complete what dead processes left, begin to watch ages.

        May be called again after it failed, after `stop()` and in a forked child.

        Raises:
            RetryableSinkError: The folder cannot be made or written to.
        """
        try:
            await self._in_thread(self._folder.open)
        except OSError as error:
            raise RetryableSinkError(
                f"cannot write to the folder: {self._folder.describe(error)}; "
                "name a folder that this process may create and write to"
            ) from error
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._rotate())

    async def stop(self) -> None:
        """
        Complete all files and stop watching their ages.

        Raises:
            RetryableSinkError: A file could not be completed; the next start will.
        """
        self._enter_loop()
        rotation, self._rotation = self._rotation, None
        if rotation is not None:
            rotation.cancel()
            await asyncio.gather(rotation, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """
        Complete all files: everything becomes durable and visible.

        Raises:
            RetryableSinkError: A file could not be completed and remains hidden.
        """
        self._enter_loop()
        errors = await asyncio.gather(*self._finishing)
        errors.append(await self._in_thread(self._folder.complete_all))
        error = next(filter(None, errors), None)
        if error is not None:
            raise RetryableSinkError(
                f"a file could not be completed: {self._folder.describe(error)}"
            ) from error

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Append one batch: one write for each partition.

        Args:
            batch: The events; their size is not checked again.

        Returns:
            The events of partitions that failed, to be sent again.

        Raises:
            RetryableSinkError: Nothing could be written.
        """
        written, failed = await self._in_thread(self._folder.write, batch.records)
        await self._finish_retired()
        if not failed:
            return ACCEPTED
        if not written:
            reason = self._folder.describe(next(iter(failed.values())))
            raise RetryableSinkError(f"cannot write events: {reason}")
        return SendResult(retry=self._folder.indices(batch.records, failed))

    async def _rotate(self) -> None:
        # A file opened during the sleep is due after it, hence never late.
        delay = self._rotate_seconds
        while True:
            await asyncio.sleep(delay)
            delay = await self._in_thread(self._folder.retire_old)
            await self._finish_retired()

    async def _finish_retired(self) -> None:
        """Complete full and old files beside the writing of the next ones."""
        while self._folder.has_retired:
            if len(self._finishing) >= _MOST_FINISHING:
                await asyncio.wait(self._finishing, return_when=asyncio.FIRST_COMPLETED)
                continue
            part = self._folder.next_retired()
            task = asyncio.create_task(asyncio.to_thread(self._folder.finish, part))
            self._finishing[task] = part
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[OSError | None]) -> None:
        part = self._finishing.pop(task, None)
        if part is not None and task.cancelled():
            self._folder.take_back(part)

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        """
        Run blocking work, one piece at a time.

        A caller that gives up does not end the thread: the lock is held until the
        work is really done, so that no two threads ever share the files.
        """
        self._enter_loop()
        await self._lock.acquire()
        job = asyncio.ensure_future(asyncio.to_thread(work, *args))
        job.add_done_callback(self._release)
        return await asyncio.shield(job)

    def _enter_loop(self) -> None:
        """Begin anew on another loop, which is also how a forked child is noticed."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock, self._rotation = loop, asyncio.Lock(), None
            self._leave_to_parent()

    def _leave_to_parent(self) -> None:
        """Close, in a forked child, its copies of descriptors, hence of their locks."""
        left, self._finishing = self._finishing, {}
        for part in left.values():
            self._folder.take_back(part)
        self._folder.leave_to_parent()

    def _release(self, job: asyncio.Future[_T]) -> None:
        self._lock.release()
        if not job.cancelled():
            job.exception()  # seen, also when the caller has given up


def _check_positive(**limits: float) -> None:
    problems = [
        f"option {name!r} must be greater than 0, got {value}"
        for name, value in limits.items()
        if not value > 0
    ]
    if problems:
        raise ConfigurationError(problems)
