"""
When a batch is due, when it is sent again, and what follows from a sink's answer.

Sans-I/O: no clock, no thread, no loop; time comes in as `now`, in monotonic seconds.

    Batcher   when what has gathered is due
    Backoff   how long to wait after a failure
    Breaker   how many batches a failing sink still gets at the same time
    Delivery  one sealed batch, from the first attempt until every event is settled
"""

from __future__ import annotations

import math
import random
from operator import index as as_index
from typing import TYPE_CHECKING, Literal, TypeAlias
from zlib import crc32

import msgspec

from bizlog._wording import reason_of, writable
from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import SendResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# An exception that says nothing about itself may be an outage or one event that the
# sink stumbles over; about a minute of attempts tells them apart.
UNCLEAR_ATTEMPTS = 8


class Batcher:
    """
    Decides when what has gathered for a sink is sent.

    Args:
        batch_size: Events that make a batch due at once.
        batch_bytes: Bytes that make a batch due at once.
        flush_interval: Seconds after which the oldest event makes it due.

    Attributes:
        batch_size: As given.
        events: Events that have gathered.
        bytes: Bytes of them.
    """

    def __init__(
        self, batch_size: int, batch_bytes: int, flush_interval: float
    ) -> None:
        self.batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._flush_interval = flush_interval
        self._oldest_at = 0.0
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int, now: float) -> None:
        """Note that records have gathered."""
        if not self.events:
            self._oldest_at = now
        self.events += events
        self.bytes += size

    def remove(self, events: int, size: int, now: float) -> None:
        """Note that the oldest records were taken; the rest waits from now on."""
        self.events -= events
        # What a disk gave back damaged has another size than it had.
        self.bytes = self.bytes - size if self.events else 0
        self._oldest_at = now

    def due_in(self, now: float) -> float | None:
        """Seconds until a batch is due: 0.0 at once, None while nothing gathered."""
        if not self.events:
            return None
        if self.events >= self.batch_size or self.bytes >= self._batch_bytes:
            return 0.0
        return max(0.0, self._oldest_at + self._flush_interval - now)


class Backoff:
    """
    Says how long to wait after failures: exponential, with full jitter.

    Args:
        base: Seconds that the first wait has at most.
        cap: Seconds that any wait has at most, one that the destination asked for
            included.
        draw: Draws from [0, 1).
    """

    def __init__(
        self,
        base: float = 0.5,
        cap: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """
        Draw the wait after so many failures in a row, in seconds.

        Args:
            failures: At least 1.
            retry_after: Seconds the destination asked for: waited at the least, up to
                the cap.
        """
        # 2^30 half seconds are beyond any cap; 2^2000 would be beyond any float.
        wait = self._draw() * min(self._cap, self._base * 2.0 ** min(failures - 1, 30))
        return max(wait, self.clamp(retry_after))

    def clamp(self, retry_after: float | None) -> float:
        """Bound what a destination asked for, in seconds; 0 where that is no wait."""
        if retry_after is None or not retry_after > 0:  # NaN is not, either
            return 0.0
        return min(retry_after, self._cap)


class Breaker:
    """
    Spares a sink that fails: after some failures in a row it gets one batch at a time.

    Args:
        threshold: Failures in a row that open it.

    Attributes:
        failures: Failures in a row.
    """

    def __init__(self, threshold: int = 5) -> None:
        self._threshold = threshold
        self.failures = 0

    @property
    def is_open(self) -> bool:
        """Whether only a probe may go out."""
        return self.failures >= self._threshold

    def allows(self, in_flight: int) -> bool:
        """Whether one more batch may go out beside those in flight."""
        return not (self.is_open and in_flight)

    def note(self, *, failed: bool) -> None:
        """Learn how an attempt ended."""
        self.failures = self.failures + 1 if failed else 0


class Refusal(msgspec.Struct, frozen=True):
    """
    One event of a batch that goes to the dead letters.

    Attributes:
        index: Position in the batch.
        reason: Why.
        path: JSON path of the fault, where the sink named it.
        error_type: Name of the fault's kind in the metrics: the class of what was
            raised, or a word of ours.
        attempts: How often it was sent.
    """

    index: int
    reason: str
    path: str | None = None
    error_type: str = "rejected"
    attempts: int = 1


_Kind: TypeAlias = Literal["taken", "later", "unclear", "poison", "too_large"]


class Verdict(msgspec.Struct, frozen=True):
    """
    What a sink's answer means for what was sent.

    Attributes:
        kind: `taken`: it took all but those named here. `later`: nothing, it may be
            sent again. `unclear`: nothing, and nobody knows why. `poison`: nothing,
            because of its content. `too_large`: nothing, because of its size.
        refused: Refused for good, by index in what was sent.
        retry: To be sent again, by index in what was sent.
        reason: Why, in words without values.
        error_type: Kind of the fault for the metrics.
        retry_after: Seconds the destination asked to wait.
    """

    kind: _Kind
    refused: tuple[Refusal, ...] = ()
    retry: tuple[int, ...] = ()
    reason: str = ""
    error_type: str = "rejected"
    retry_after: float | None = None


_TAKEN = Verdict("taken")
_NEVER_SENT = Verdict("later", reason="it was never sent")


def judge(events: int, answer: object) -> Verdict:
    """
    Read a sink's answer for a batch.

    Args:
        events: How many events were sent.
        answer: The sink's answer, or what it raised; None accepts, as in the seed.
            An answer that cannot be read means that nothing was taken.
    """
    if answer is None:
        return _TAKEN
    if isinstance(answer, SendResult):
        try:
            return _read(events, answer)
        except Exception as error:  # noqa: BLE001  # foreign data in untyped fields
            answer = error
    if not isinstance(answer, BaseException):
        answer = TypeError(f"expected a SendResult, got {type(answer).__name__}")
    return Verdict(
        _kind_of(answer),
        reason=reason_of(answer),
        error_type=type(answer).__name__,
        retry_after=_retry_after(answer),
    )


def _kind_of(error: BaseException) -> _Kind:
    if isinstance(error, BatchTooLargeError):
        return "too_large"
    if isinstance(error, PermanentSinkError):
        return "poison"
    # A cancellation and SystemExit say nothing about the events, either.
    if isinstance(error, (RetryableSinkError, OSError)) or not isinstance(
        error, Exception
    ):
        return "later"
    return "unclear"


def _retry_after(error: BaseException) -> float | None:
    try:
        return _seconds(getattr(error, "retry_after", None))
    except Exception:  # noqa: BLE001  # a foreign attribute
        return None


def _seconds(asked: object) -> float | None:
    if not isinstance(asked, (int, float)):
        return None
    try:
        return float(asked)
    except OverflowError:
        return math.inf if asked > 0 else None


def _read(events: int, answer: SendResult) -> Verdict:
    if answer.rejected == () == answer.retry:
        return _TAKEN
    refused = {
        index: Refusal(
            index,
            writable(rejection.reason),
            None if rejection.path is None else writable(rejection.path),
        )
        for rejection in answer.rejected
        if 0 <= (index := as_index(rejection.index)) < events
    }
    retry = {index for each in answer.retry if 0 <= (index := as_index(each)) < events}
    return Verdict(
        "taken",
        refused=tuple(refused[index] for index in sorted(refused)),
        retry=tuple(sorted(retry - refused.keys())),
        reason=writable(answer.retry_reason or "the sink could not take it now"),
        error_type="retry",
        retry_after=_seconds(answer.retry_after),
    )


class Part(msgspec.Struct, frozen=True):
    """
    Events of a batch that are sent in one call.

    Attributes:
        indices: Their positions in the batch, ascending.
        blame: Why one of these must be what the sink refused, if all that was refused
            together with them proves good.
        sized: Whether they were parted because together they are too large.
    """

    indices: Sequence[int]
    blame: Verdict | None = None
    sized: bool = False


class Delivery:
    """
    One sealed batch on its way: what is sent next, and what became of each event.

    An event that a sink refuses with the whole batch is found by halving: of two
    halves the first is sent; if it goes well the fault lies in the second, which is
    halved without being sent. So one bad event among n is found in ⌈log₂ n⌉ sends
    after the first, and the order of the others is kept. Where the sink did not say
    that it refuses, no event is taken for bad before it was sent alone.

    Args:
        events: How many events the batch holds.
        backoff: Says how long to wait after a failure.
        arrivals: When events arrived: pairs of an index and a time, ascending; the
            events before that index arrived then or earlier.
        lifetime: Seconds after its arrival at which an event is given up.

    Attributes:
        due_at: When the next part may be sent.
        refused: Events refused for good.
        dropped: Events given up by policy, by their index.
        delivered: How many events the sink took.
    """

    def __init__(
        self,
        events: int,
        *,
        backoff: Backoff,
        arrivals: Sequence[tuple[int, float]] = (),
        lifetime: float | None = None,
    ) -> None:
        self._events = events
        self._todo: list[Part] = [Part(range(events))] if events else []
        self._attempts = [0] * events
        self._backoff = backoff
        self._arrivals = arrivals
        self._lifetime = lifetime
        self._failures = 0
        self._unclear = 0
        self._expired = 0
        self._asked_until = 0.0
        self._last = _NEVER_SENT
        self.due_at = 0.0
        self.refused: list[Refusal] = []
        self.dropped: list[int] = []
        self.delivered = 0

    @property
    def done(self) -> bool:
        """Whether every event is settled."""
        return not self._todo

    @property
    def whole(self) -> bool:
        """Whether the next part is the batch as it was sealed."""
        return len(self._todo[-1].indices) == self._events

    def next(self) -> Sequence[int]:
        """Say which events are sent next; only while it is not done."""
        return self._todo[-1].indices

    def answered(self, answer: object, now: float) -> Verdict:
        """
        Learn what the sink said to the part that was sent.

        Args:
            answer: Its answer, or what it raised; or a verdict where it said nothing.
            now: The time.

        Returns:
            What the answer means.
        """
        part = self._todo.pop()
        judged = (
            answer if isinstance(answer, Verdict) else judge(len(part.indices), answer)
        )
        if judged is not _TAKEN:
            self._count_attempt(part)
        self._unclear = self._unclear + 1 if judged.kind == "unclear" else 0
        if judged.kind == "taken":
            self._took(part, judged, now)
        elif judged.kind == "too_large":
            self._outsized(part, judged)
        elif judged.kind == "poison" or self._unclear >= UNCLEAR_ATTEMPTS:
            self._poisoned(part, judged)
            return msgspec.structs.replace(judged, kind="poison")
        else:
            self._later(part, judged, now)
        return judged

    def _count_attempt(self, part: Part) -> None:
        # Only where something failed: nobody asks how often what was taken was sent.
        for index in part.indices:
            self._attempts[index] += 1

    def _took(self, part: Part, verdict: Verdict, now: float) -> None:
        for refusal in verdict.refused:
            index = part.indices[refusal.index]
            self.refused.append(
                msgspec.structs.replace(
                    refusal, index=index, attempts=self._attempts[index]
                )
            )
        gone = len(verdict.refused) + len(verdict.retry)
        self.delivered += len(part.indices) - gone
        if len(verdict.retry) < len(part.indices):
            self._failures = 0
        if not gone:
            self._convict()
            return
        self._acquit()
        if verdict.retry:
            again = [part.indices[index] for index in verdict.retry]
            self._later(msgspec.structs.replace(part, indices=again), verdict, now)

    def _later(self, part: Part, verdict: Verdict, now: float) -> None:
        self._last = verdict
        self._failures += 1
        self._asked_until = now + self._backoff.clamp(verdict.retry_after)
        wait = self._backoff.delay(self._failures, verdict.retry_after)
        self.due_at = now + wait
        self._todo.append(part)

    def _poisoned(self, part: Part, verdict: Verdict) -> None:
        self._failures = 0
        self._acquit()
        if len(part.indices) == 1:
            self._refuse(part, verdict)
            self._join()
        else:
            self._halve(part, verdict)

    def _halve(self, part: Part, verdict: Verdict) -> None:
        """Part what holds a bad event; the first half is sent next."""
        first, second = _halves(part)
        self._todo += [msgspec.structs.replace(second, blame=verdict), first]

    def _convict(self) -> None:
        """Part what must hold a bad event, now that its other half proved good."""
        if not self._todo or (verdict := self._todo[-1].blame) is None:
            return
        part = msgspec.structs.replace(self._todo.pop(), blame=None)
        if len(part.indices) > 1:
            self._halve(part, verdict)
        elif verdict.kind == "poison":
            self._refuse(part, verdict)
            self._join()
        else:
            self._todo.append(part)  # it is sent alone, like any other

    def _acquit(self) -> None:
        """Suspect the other half no more: the fault was in this one."""
        if self._todo and self._todo[-1].blame:
            self._todo[-1] = msgspec.structs.replace(self._todo[-1], blame=None)

    def _join(self) -> None:
        """Send in one what was parted only to find a bad event."""
        while len(self._todo) > 1 and _joinable(*self._todo[-2:]):
            later, sooner = self._todo[-2:]
            self._todo[-2:] = [Part([*sooner.indices, *later.indices])]

    def _outsized(self, part: Part, verdict: Verdict) -> None:
        self._acquit()
        if len(part.indices) == 1:
            self._refuse(part, verdict)
            return
        halves = [msgspec.structs.replace(half, sized=True) for half in _halves(part)]
        self._todo += reversed(halves)

    def _refuse(self, part: Part, verdict: Verdict) -> None:
        self.refused += [
            Refusal(
                index,
                verdict.reason,
                error_type=verdict.error_type,
                attempts=self._attempts[index],
            )
            for index in part.indices
        ]

    def follow(self, other: Delivery) -> None:
        """Wait as long as another one: its sink is the same, and failed."""
        self._failures = other._failures  # its own kind
        self._asked_until = other._asked_until
        self.due_at = other.due_at

    def hurry(self, now: float) -> None:
        """Wait no longer after failures, except for what the destination asked."""
        self._failures = 0
        self.due_at = max(min(self.due_at, now), self._asked_until)

    def refuse_rest(self, reason: str, error_type: str) -> None:
        """Refuse whatever is not settled."""
        verdict = Verdict("poison", reason=reason, error_type=error_type)
        while self._todo:
            self._refuse(self._todo.pop(), verdict)

    def drop_rest(self) -> None:
        """Drop whatever is not settled: its room is needed."""
        while self._todo:
            self.dropped += self._todo.pop().indices

    def give_up(self, reason: str, error_type: str) -> None:
        """Refuse whatever is not settled; what failed last is part of the reason."""
        if self._last is not _NEVER_SENT:
            reason = f"{reason}: {self._last.reason}"
        self.refuse_rest(reason, error_type)

    def expire(self, now: float) -> None:
        """Refuse the events that have outlived their deadline."""
        first = self._first_alive(now)
        if first <= self._expired:
            return
        self._expired = first
        verdict = msgspec.structs.replace(
            self._last,
            reason=f"not delivered within {self._lifetime:g} s: {self._last.reason}",
            error_type="deadline",
        )
        parts = self._todo.copy()
        self._todo.clear()
        for part in parts:
            alive = [index for index in part.indices if index >= first]
            dead = [index for index in part.indices if index < first]
            self._refuse(msgspec.structs.replace(part, indices=dead), verdict)
            if alive:
                # The bad event may have been among the dead: no half proves the other.
                self._todo.append(
                    msgspec.structs.replace(part, indices=alive, blame=None)
                )

    def _first_alive(self, now: float) -> int:
        if self._lifetime is None:
            return 0
        first = 0
        for end, arrived_at in self._arrivals:
            if now - arrived_at < self._lifetime:
                break
            first = end
        return first


def _halves(part: Part) -> tuple[Part, Part]:
    middle = (len(part.indices) + 1) // 2
    first, second = part.indices[:middle], part.indices[middle:]
    return (
        msgspec.structs.replace(part, indices=first, blame=None),
        msgspec.structs.replace(part, indices=second, blame=None),
    )


def _joinable(later: Part, sooner: Part) -> bool:
    return not (later.blame or sooner.blame or later.sized or sooner.sized)


def part_name(indices: Sequence[int]) -> str:
    """Name some events of a batch: the same ones have the same name."""
    if len(indices) == indices[-1] - indices[0] + 1:
        return f".{indices[0]}-{indices[-1]}"
    digest = crc32(b"".join(index.to_bytes(4, "big") for index in indices))
    return f".{indices[0]}-{indices[-1]}.{len(indices)}.{digest:08x}"
