"""
The front queue: where the caller's thread hands a record over and goes on.

Bounded in events and bytes. `offer` is O(1) and never raises; no lock, condition or
queue.Queue stands behind it, because those hang under signals and after a fork. What a
caller feels at most is the pause of the `block` policy, or 50 µs every 1,024 events
while more than a quarter of the queue is full, 1 ms every 512 while more than half is,
5 ms while more than three quarters are.
Without that hand-over of the GIL a caller that saturates a core starves the pump, most
of all one that is refused anyway (docs/decisions/0011 has the figures). One call in 512
keeps the pauses out of the 99th percentile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from bizlog.ledger import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from bizlog.sinks import Record

Overflow: TypeAlias = Literal["drop_newest", "drop_oldest", "block"]

_POLL_SECONDS = 0.000_2
_YIELD_EVENTS = 1_024
_YIELD_SECONDS = 0.000_05
_LONG_YIELD_EVENTS = 512
_LONG_YIELD_SECONDS = 0.001  # time for the pump to get a whole run done
_LAST_YIELD_SECONDS = 0.005  # the machine is busy with other things as well


class Mark(Protocol):
    """
    Where the queue stores how far the process has counted.

    Attributes:
        cells: The first is the highest number that was offered.
    """

    cells: MutableSequence[int] | memoryview


class FrontQueue:
    """
    A bounded hand-over from any thread to the pump.

    Args:
        max_events: Most events that may wait.
        max_bytes: Most bytes of encoded events that may wait.
        overflow: What gives way when it is full: the event offered, the oldest one
            waiting, or the caller's time.
        block_timeout: Seconds that `block` waits before the event is dropped.
        wake: Called when the pump must look; never more than once until it did.
        sleep: Pauses the calling thread.
        clock: Monotonic seconds.

    Attributes:
        on_drop: Called with each record that waited and gave way; on the emit path.
        mark: Where the numbers that were offered are stored; None without a journal.
    """

    def __init__(
        self,
        *,
        max_events: int,
        max_bytes: int,
        overflow: Overflow,
        block_timeout: float,
        wake: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._crowded = max_events // 4
        self._half = max_events // 2
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._wake = wake
        self._sleep = sleep
        self._clock = clock
        self._records: deque[Record] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self._since_yield = 0
        self.awake = False
        self.woken_at = 0.0
        self.hurried = False
        self.closed = False
        self.pump_thread: int | None = None
        self._blocked: set[int] = set()
        self.dropped = Counts("queue_full", "closed")
        self.on_drop: Callable[[Record], None] | None = None
        self.mark: Mark | None = None

    def __len__(self) -> int:
        return len(self._records)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the events that wait."""
        return self._bytes_in - self._bytes_out

    def offer(self, record: Record) -> bool:
        """
        Take a record, or count it as dropped.

        Returns:
            Whether the record was taken.
        """
        size = len(record.data)
        mark = self.mark
        if mark is not None and record.sequence > mark.cells[0]:
            mark.cells[0] = record.sequence
        waiting = len(self._records)
        if (
            waiting >= self._max_events
            or self._bytes_in - self._bytes_out + size > self._max_bytes
            or self.closed
        ) and not self._make_room(size):
            return False
        self._records.append(record)
        self._bytes_in += size
        if self.closed and self._withdraw(record, size):
            return False
        if not self.awake or waiting > self._crowded:
            try:
                self._call_the_pump()
            except RecursionError:
                # The caller stands at its recursion limit; the record is taken all the
                # same, and the next event calls the pump.
                self.awake = False
        return True

    def nudge(self) -> None:
        """Have the pump look, though no record was offered."""
        if not self.awake and not self.closed:  # else: shutdown looks, or has looked
            self.awake = True
            self._wake()

    def _call_the_pump(self) -> None:
        if self.awake:
            self._hurry()
        else:
            self.awake = True
            self.woken_at = self._clock()
            self._wake()

    def _withdraw(self, record: Record, size: int) -> bool:
        # Closed between the check and the append: the pump may be gone already.
        try:
            self._records.remove(record)
        except (ValueError, IndexError):
            return False  # it was still there, and took the record
        self._bytes_out += size
        self.dropped.add("closed")
        return True

    def _hurry(self) -> None:
        if not self.hurried:
            self.hurried = True
            self._wake()
        self._give_way()

    def _give_way(self) -> None:
        self._since_yield += 1
        if self._since_yield < _LONG_YIELD_EVENTS or self._on_pump_thread():
            return
        waiting = len(self._records)
        if waiting <= self._half and self._since_yield < _YIELD_EVENTS:
            return
        self._since_yield = 0
        if waiting > self._half + self._crowded:
            self._sleep(_LAST_YIELD_SECONDS)
        else:
            self._sleep(_LONG_YIELD_SECONDS if waiting > self._half else _YIELD_SECONDS)

    def _on_pump_thread(self) -> bool:
        return threading.get_ident() == self.pump_thread

    def _has_room(self, size: int) -> bool:
        if not self._records:
            return True  # a single event larger than the bound still goes, alone
        return (
            len(self._records) < self._max_events
            and self.waiting_bytes + size <= self._max_bytes
        )

    def _make_room(self, size: int) -> bool:
        if self.closed:
            self.dropped.add("closed")
            return False
        if self._has_room(size):
            return True
        if self._overflow == "drop_oldest":
            self._drop_oldest(size)
            return True
        if self._overflow == "block" and self._wait_for_room(size):
            return True
        self.dropped.add("closed" if self.closed else "queue_full")
        self._give_way()
        return False

    def _drop_oldest(self, size: int) -> None:
        while not self._has_room(size):
            try:
                oldest = self._records.popleft()
            except IndexError:
                return
            gone = len(oldest.data)
            self._bytes_out += gone
            self.dropped.add("queue_full")
            if self.on_drop is not None:
                self.on_drop(oldest)

    def _wait_for_room(self, size: int) -> bool:
        caller = threading.get_ident()
        if caller == self.pump_thread:
            return False  # only this thread could make the room it would wait for
        if caller in self._blocked:
            return False  # a signal handler inside the wait: one wait is enough
        self._blocked.add(caller)
        try:
            return self._poll(size, self._clock() + self._block_timeout)
        finally:
            self._blocked.discard(caller)

    def _poll(self, size: int, deadline: float) -> bool:
        while not self._has_room(size):
            if self.closed or self._clock() >= deadline:
                return False
            self.hurried = True
            self._wake()
            self._sleep(_POLL_SECONDS)
        return True

    def take(self, max_events: int, max_bytes: int = 1 << 62) -> list[Record]:
        """
        Take the oldest records out; for the pump.

        Args:
            max_events: Most records to take.
            max_bytes: Bytes of events to take, about: as many records as have them at
                the size that records have on average now; one in any case.
        """
        waiting = len(self._records)
        if waiting and self.waiting_bytes > max_bytes:
            waiting = max(1, max_bytes * waiting // self.waiting_bytes)
        popleft = self._records.popleft
        taken: list[Record] = []
        with suppress(IndexError):  # a caller dropped the oldest meanwhile
            for _ in range(min(max_events, waiting)):
                taken.append(popleft())  # noqa: PERF401  # what was taken is kept
        size = sum([len(record.data) for record in taken])
        self._bytes_out += size
        return taken
