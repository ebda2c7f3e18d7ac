"""
The accounting identity: every event offered stands in exactly one place, per sink.

    offered = delivered + rejected + dropped{reason} + dead_lettered + pending

Counters only; no lock. Each counter is changed by `+=` of a plain number and never
with a call between reading and writing it, which CPython does not interrupt
(measured with 8 threads at a switch interval of 1 µs: nothing lost).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, cast

import msgspec

from bizlog._text import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

# Most different values of a label in the metrics; all further ones are one series.
LABEL_VALUES = 200
OTHER = "other"
LABEL_LENGTH = 200  # characters, as many as an event name may have

# Bounds of the histogram: from a local file to a sink that ran into its time-out, for
# which there is room above the default of 10 s.
DURATION_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0),
)


class SinkLedger(msgspec.Struct, frozen=True):
    """
    Where the events meant for one sink are. All figures are numbers of events.

    Attributes:
        offered: Calls that reached the chain and were meant for this sink, and what
            was taken over from the journals of processes that died.
        delivered: Accepted by the sink.
        rejected: Refused before acceptance because they break their schema; each has
            a dead letter.
        dropped: Given up by policy, by reason.
        dead_lettered: Accepted, then refused by the sink; kept as dead letters.
        pending: Waiting in memory or in a journal.
    """

    offered: int
    delivered: int
    rejected: int
    dropped: dict[str, int]
    dead_lettered: int
    pending: int

    @property
    def settled(self) -> int:
        """Events whose fate is known, and those that are known to wait."""
        return (
            self.delivered
            + self.rejected
            + sum(self.dropped.values())
            + self.dead_lettered
            + self.pending
        )

    @property
    def balanced(self) -> bool:
        """Whether the identity holds; at any quiet moment it does."""
        return self.offered == self.settled

    @property
    def closed(self) -> bool:
        """Whether the identity holds and nothing is pending."""
        return self.balanced and self.pending == 0


class Ledger(msgspec.Struct, frozen=True):
    """
    The ledger of a client.

    Attributes:
        sinks: One `SinkLedger` for each sink, by its name.
        crossings: Business events of this process that went into an operational log as
            well. Must stay 0; see `bizlog.BusinessEventHandler`.
    """

    sinks: dict[str, SinkLedger]
    crossings: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the identity holds for every sink."""
        return all(sink.balanced for sink in self.sinks.values())

    @property
    def closed(self) -> bool:
        """Whether the identity holds for every sink and nothing is pending."""
        return all(sink.closed for sink in self.sinks.values())

    def __str__(self) -> str:
        """Draw the ledger as a table, one sink a line."""
        heads = ("sink", *SinkLedger.__struct_fields__, "")
        rows = [heads, *(_row(name, sink) for name, sink in self.sinks.items())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def _row(name: str, sink: SinkLedger) -> tuple[str, ...]:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sink.dropped.items())
    state = "closed" if sink.closed else "balanced" if sink.balanced else "OPEN"
    return (
        name,
        f"{sink.offered:,}",
        f"{sink.delivered:,}",
        f"{sink.rejected:,}",
        reasons or "0",
        f"{sink.dead_lettered:,}",
        f"{sink.pending:,}",
        state,
    )


class Counts:
    """
    Counters of dropped events by reason; any thread may add.

    A reason is known from the start, so that adding never changes the dictionary's
    shape under a reader.
    """

    def __init__(self, *reasons: str) -> None:
        self._by_reason = dict.fromkeys(reasons, 0)

    def add(self, reason: str, events: int = 1) -> None:
        """Count events given up for one of the reasons."""
        self._by_reason[reason] += events

    def snapshot(self) -> dict[str, int]:
        """Return the reasons that occurred, with their numbers."""
        return {reason: n for reason, n in self._by_reason.items() if n}


class Tally:
    """
    Events received under one source and one name.

    Attributes:
        events: How many; the emit path does `tally.events += 1`.
    """

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events = 0


class Labels:
    """
    The values of one label: the first ones are kept, all further ones share `other`.

    Callers and sinks choose them, so that their number and length are bounded. No
    lock: a place is a token in a list, and taking one out is atomic.

    Args:
        limit: Most different values.
    """

    def __init__(self, limit: int = LABEL_VALUES) -> None:
        self._kept: dict[str, tuple[str]] = {OTHER: (OTHER,)}
        self._places = [True] * limit

    def admit(self, value: object) -> str:
        """Return the value as text that UTF-8 can write, or `other`."""
        text = _label_text(value)
        kept = self._kept.get(text)
        return self._keep(text) if kept is None else kept[0]

    def _keep(self, text: str) -> str:
        try:
            self._places.pop()
        except IndexError:
            return OTHER
        entry = (text,)
        kept = self._kept.setdefault(text, entry)
        if kept is not entry:
            self._places.append(True)  # another thread was faster with the same value
        return kept[0]


def _label_text(value: object) -> str:
    kind: type = type(value)
    text = str.__str__(cast("str", value)) if issubclass(kind, str) else kind.__name__
    return readable(text[:LABEL_LENGTH])


class Tallies:
    """
    Events received, or refused, by labels that others choose; any thread may add.

    Args:
        labels: Names of the labels.
        limit: Most different values of each; all further ones share `other`.
    """

    def __init__(
        self,
        labels: Sequence[str] = ("source", "event_type"),
        limit: int = LABEL_VALUES,
    ) -> None:
        self._labels = [Labels(limit) for _ in labels]
        self._tallies: dict[tuple[str, ...], Tally] = {}

    def of(self, *values: str) -> Tally:
        """Find or make the tally of these values, one for each label."""
        pairs = zip(self._labels, values, strict=True)
        key = tuple([labels.admit(value) for labels, value in pairs])
        return self._tallies.get(key) or self._tallies.setdefault(key, Tally())

    def snapshot(self) -> dict[tuple[str, ...], int]:
        """Return what was counted, by the values of the labels."""
        # The copy is one step of the interpreter; a loop could meet a new tally.
        tallies = self._tallies.copy()
        return {key: tally.events for key, tally in tallies.items() if tally.events}


class Durations:
    """
    How long calls took, as a histogram; one thread adds, any may read.

    Attributes:
        seconds: All calls together.
    """

    def __init__(self) -> None:
        self._calls = [0] * (len(DURATION_SECONDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count a call."""
        self._calls[bisect_left(DURATION_SECONDS, seconds)] += 1
        self.seconds += seconds

    def snapshot(self) -> tuple[int, ...]:
        """Return the calls up to each of `DURATION_SECONDS`, and the longer ones."""
        return tuple(self._calls)


class SinkFigures(msgspec.Struct, frozen=True):
    """
    What the metrics tell of one sink.

    Attributes:
        sink: Its name in the ledger.
        sink_type: The name of its kind.
        ledger: Where its events are.
        dead_lettered: Of these the dead-lettered ones, by type of the error.
        calls: Batches handed over, by how long that took (`Durations.snapshot`).
        seconds: How long that took for all of them.
        oldest_pending: Age of the oldest event that is pending, in seconds.
    """

    sink: str
    sink_type: str
    ledger: SinkLedger
    dead_lettered: dict[tuple[str, ...], int]
    calls: tuple[int, ...]
    seconds: float
    oldest_pending: float


class Figures(msgspec.Struct, frozen=True):
    """
    What the metrics tell of one client.

    Attributes:
        received: Events offered, by source and event type.
        sinks: One entry for each sink.
    """

    received: dict[tuple[str, ...], int]
    sinks: list[SinkFigures]


def merge(*parts: dict[str, int]) -> dict[str, int]:
    """Add counts by reason."""
    total: dict[str, int] = {}
    for part in parts:
        for reason, events in part.items():
            total[reason] = total.get(reason, 0) + events
    return total
