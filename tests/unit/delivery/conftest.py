"""Records, dead letters and a loop whose time costs nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import heapq
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bizlog import diagnostics
from bizlog.delivery.dead_letters import DeadLetterFolder
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Backoff, Batcher
from bizlog.sinks import Record, Route
from bizlog.testing import ManualClock


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Make a record; `size` pads its data to so many bytes."""
    numbers = itertools.count(1)

    def make(event_type: str = "order.placed", size: int = 0) -> Record:
        number = next(numbers)
        event_id = f"0193a6a0-0000-7000-8000-{number:012d}"
        data = b'{"event_id":"%b","event_type":"%b"}' % (
            event_id.encode(),
            event_type.encode(),
        )
        time_text = "2026-11-23T10:15:30.123456Z"
        return Record(data.ljust(size), event_id, event_type, time_text, number)

    return make


@pytest.fixture
def make_records(make_record: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Make several records alike."""
    return lambda events, **options: [make_record(**options) for _ in range(events)]


@pytest.fixture
def folder(tmp_path: Any) -> DeadLetterFolder:
    """A dead-letter folder that does not exist yet."""
    return DeadLetterFolder(tmp_path / "dead", "producer")


@pytest.fixture
def letters(folder: DeadLetterFolder) -> Callable[[], list[dict[str, Any]]]:
    """Read the dead letters written so far."""

    def read() -> list[dict[str, Any]]:
        if not folder.path.exists():
            return []
        return [json.loads(line) for line in folder.path.read_bytes().splitlines()]

    return read


class InlineExecutor(concurrent.futures.ThreadPoolExecutor):
    """Runs blocking calls at once, so that virtual time does not pass them by."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it now."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.set_default_executor(InlineExecutor(1))

    def time(self) -> float:
        """Tell the virtual time."""
        return self.now

    def _run_once(self) -> None:
        # A timer that was cancelled is no moment to jump to, and none to wait after.
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in virtual time; 600 virtual seconds at most."""

    def run_it(main: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(600):
                return await main

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(bounded())

    return run_it


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait in real time until something holds, generously bounded."""

    def wait(condition: Callable[[], object], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.002)

    return wait


class Rig:
    """A lane with its journal, on the running loop."""

    def __init__(self, folder, sink, **options):
        loop = asyncio.get_running_loop()
        self.journal = options.get("journal") or MemoryJournal()
        self.progress = 0
        route = sink if isinstance(sink, Route) else Route(sink)
        self.lane = Lane(
            name="sink",
            route=route,
            journal=self.journal,
            batcher=Batcher(
                options.get("batch_size", 100),
                options.get("batch_bytes", 1 << 20),
                options.get("flush_interval", 5.0),
            ),
            sink_timeout=options.get("sink_timeout", 10.0),
            dead_letters=folder,
            on_progress=self.count_progress,
            clock=loop.time,
            backoff=Backoff(draw=lambda: 0.5),
            lifetime=options.get("lifetime"),
            max_in_flight=options.get("max_in_flight", 1),
            receipts=options.get("receipts"),
        )
        self.task = asyncio.create_task(self.lane.run())

    def count_progress(self):
        self.progress += 1

    def add(self, records):
        self.journal.append(records)
        self.lane.notify(len(records), sum(len(r.data) for r in records))

    async def settle(self, seconds=0.001):
        await asyncio.sleep(seconds)

    async def stop(self):
        self.task.cancel()
        await asyncio.wait((self.task,))
        await self.lane.stop()

    @property
    def account(self):
        lane = self.lane
        return (
            lane.delivered,
            lane.dead_lettered,
            sum(lane.dropped.snapshot().values()),
            lane.not_routed,
            lane.pending,
        )


@pytest.fixture
def drive(run, folder):
    """Run a scenario with a rig, then stop its lane."""

    def drive_it(sink, scenario, **options):
        async def main():
            rig = Rig(folder, sink, **options)
            try:
                await scenario(rig)
            finally:
                await rig.stop()
            return rig

        return run(main())

    return drive_it


class DiskJournal(MemoryJournal):
    """A journal as one on disk looks to a lane: it says what outlives the process."""

    durable = True

    def __init__(self, journal_id=None, start=0):
        super().__init__(journal_id, start)
        self.kept = None
        self.silent = False
        self.error = None
        self.reads = 0
        self.is_closed = self.is_removed = False
        self.appended_at = []

    @property
    def journaled(self):
        return self.end if self.kept is None else self.kept

    def read(self, position, max_events, max_bytes):
        self.reads += 1
        if self.error:
            raise self.error
        return [] if self.silent else super().read(position, max_events, max_bytes)

    def seal(self, lane, state):
        if self.error:
            raise self.error
        super().seal(lane, state)

    def position_at(self, wall_time):
        return sum(at < wall_time for at in self.appended_at)

    def close(self, *, remove=False):
        self.is_closed = True
        self.is_removed = self.is_removed or remove


@pytest.fixture
def clock():
    """A clock that stands still until it is set forward."""
    return ManualClock()


@pytest.fixture
def told(monkeypatch):
    """Collect what diagnostics are told, without their limit."""
    messages = []
    monkeypatch.setattr(
        diagnostics, "report", lambda _, message: messages.append(message)
    )
    return messages


@pytest.fixture
def disk_journal():
    """Make a journal that passes for one on disk."""
    return DiskJournal
