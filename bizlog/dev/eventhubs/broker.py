"""
What the hubs hold: partitions of events, numbered, within a bound of bytes. No I/O.

The server's thread appends and any thread may read: one lock guards all. Events lie in
batches as they arrived, so that storing costs little for each; when the bound is
passed the oldest batches go, whichever partition they are in, as retention does it in
the service. Counts and sequence numbers go on as if they were still there.
"""

from __future__ import annotations

import datetime as dt
import threading
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bizlog.dev.eventhubs import messages
from bizlog.dev.eventhubs.addresses import OFFSET_STEP
from bizlog.dev.eventhubs.partitioning import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bizlog.dev.eventhubs.addresses import Position

# What Python needs for one more bytes object in a list.
_OVERHEAD = 41


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """
    One event as it is stored.

    Attributes:
        partition: The partition's id, "0" and so on.
        offset: Where it lies, as consumers are told it.
        sequence_number: Its number in the partition, from 0 without a gap.
        enqueued_time: When it was stored (UTC).
        body: Its data, as it was sent.
        partition_key: The key it was sent with, or None.
        message_id: The `message_id` it was sent with, or None.
        application_properties: Its `properties`, by name.
    """

    partition: str
    offset: str
    sequence_number: int
    enqueued_time: dt.datetime
    body: bytes
    partition_key: str | None
    message_id: Any
    application_properties: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Batch:
    first: int
    enqueued_ms: int
    events: Sequence[bytes]


class Partition:
    """
    The events of one partition, oldest first.

    Args:
        number: Which of the hub's, from 0.
        bound: Where the bytes of all partitions are counted.
    """

    def __init__(self, number: int, bound: _Bound) -> None:
        self.id = str(number)
        self.changed: set[Callable[[], None]] = set()
        self._bound = bound
        self._batches: list[_Batch] = []
        self._gone = 0  # batches at the front of the list that retention has emptied
        self._end = 0
        self._last_ms: int | None = None

    @property
    def begin(self) -> int:
        """The oldest sequence number that is still held, or the next one."""
        held = self._gone < len(self._batches)
        return self._batches[self._gone].first if held else self._end

    @property
    def end(self) -> int:
        """The sequence number that the next event will get."""
        return self._end

    @property
    def last_enqueued_ms(self) -> int | None:
        """When the last event was stored; None before the first."""
        return self._last_ms

    def append(self, events: Sequence[bytes], now_ms: int) -> None:
        """Store events, number them, and tell who listens."""
        if not events:
            return
        with self._bound.lock:
            self._batches.append(_Batch(self._end, now_ms, events))
            self._end += len(events)
            self._last_ms = now_ms
            self._bound.add(self, sum(map(len, events)) + _OVERHEAD * len(events))
        for tell in tuple(self.changed):
            tell()

    def forget_oldest(self) -> None:
        """Let the oldest batch go; the lock is held."""
        oldest = self._batches[self._gone]
        self._batches[self._gone] = _Batch(oldest.first, oldest.enqueued_ms, ())
        self._gone += 1
        if self._gone > len(self._batches) // 2:
            del self._batches[: self._gone]
            self._gone = 0

    def read(self, number: int) -> tuple[int, int, bytes] | None:
        """
        Read the event of a sequence number, or the oldest if that is gone.

        Returns:
            Its sequence number, when it was stored and its bytes; None at the end.
        """
        with self._bound.lock:
            number = max(number, self.begin)
            if number >= self._end:
                return None
            batch = self._batches[self._index(number)]
            return number, batch.enqueued_ms, batch.events[number - batch.first]

    def _index(self, number: int) -> int:
        found = bisect_right(self._batches, number, self._gone, key=_first)
        return found - 1

    def locate(self, position: Position) -> int:
        """Find the sequence number that a consumer begins with."""
        if position.sequence_number is not None:
            return position.sequence_number
        with self._bound.lock:
            for batch in self._batches[self._gone :]:
                if batch.enqueued_ms >= position.enqueued_ms:
                    return batch.first
            return self._end

    def stored(self) -> Iterator[StoredEvent]:
        """Read all events that are held."""
        with self._bound.lock:
            batches = self._batches[self._gone :]
        for batch in batches:
            moment = dt.datetime.fromtimestamp(batch.enqueued_ms / 1000, tz=dt.UTC)
            for number, event in enumerate(batch.events, batch.first):
                yield StoredEvent(
                    partition=self.id,
                    offset=str(number * OFFSET_STEP),
                    sequence_number=number,
                    enqueued_time=moment,
                    **messages.read(event),
                )


def _first(batch: _Batch) -> int:
    return batch.first


class _Bound:
    """The bytes that all partitions hold together."""

    def __init__(self, limit: int) -> None:
        self.lock = threading.Lock()
        self._limit = limit
        self._held = 0
        self._order: deque[tuple[Partition, int]] = deque()

    def add(self, partition: Partition, size: int) -> None:
        """Count a batch and let the oldest go, but never the one just added."""
        self._order.append((partition, size))
        self._held += size
        while self._held > self._limit and len(self._order) > 1:
            oldest, freed = self._order.popleft()
            self._held -= freed
            oldest.forget_oldest()


class Hub:
    """One event hub: a name and its partitions."""

    def __init__(self, name: str, partitions: int, bound: _Bound) -> None:
        self.name = name
        self.partitions = tuple(Partition(n, bound) for n in range(partitions))
        self._turn = 0

    @property
    def count(self) -> int:
        """How many events were ever stored, those that are gone too."""
        return sum(partition.end for partition in self.partitions)

    def partition(self, identity: str) -> Partition | None:
        """Find a partition by its id."""
        found = (each for each in self.partitions if each.id == identity)
        return next(found, None)

    def choose(self, key: str | None) -> Partition:
        """Choose the partition of a key; without one they take turns."""
        if key is not None:
            return self.partitions[partition_of(key, len(self.partitions))]
        self._turn = (self._turn + 1) % len(self.partitions)
        return self.partitions[self._turn]


class Broker:
    """
    All hubs of a namespace.

    Args:
        hubs: How many partitions each has, by name.
        retain_bytes: How much all of them may hold.
    """

    def __init__(self, hubs: Mapping[str, int], retain_bytes: int) -> None:
        bound = _Bound(retain_bytes)
        self._hubs = {n.lower(): Hub(n, count, bound) for n, count in hubs.items()}

    def hub(self, name: str) -> Hub | None:
        """Find a hub; the case of its name does not matter."""
        return self._hubs.get(name.lower())
