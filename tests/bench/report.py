"""
The contenders: medians, paired ratios, targets and their table. No I/O here.

A ratio is taken within each round, between two processes that ran next to each other;
what is shown is the median of these ratios with its quartiles, never a ratio of medians.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

BASELINE = "opentelemetry"
MEMORY, JOURNAL, JOURNAL_FULL = "bizlog", "journal", "journal_full"
BY_HAND = "by_hand"
FLOOR = "floor"


@dataclass(frozen=True)
class Measurement:
    """
    One contender in one round, as `child.py` prints it.

    Attributes:
        events: Events emitted in the first pass.
        seconds: From the first emit until all was in the file.
        cpu_seconds: CPU time of the process meanwhile, user and system, all threads.
        rss_bytes: Peak resident memory up to then.
        delivered: Different events found in the output.
        duplicates: Further copies of them.
        file_bytes: Size of the output.
        p50: Median time in one emit call, microseconds; `p99` and `p999` likewise.
    """

    events: int
    seconds: float
    cpu_seconds: float
    rss_bytes: int
    delivered: int
    duplicates: int
    file_bytes: int
    p50: float
    p99: float
    p999: float

    @property
    def rate(self) -> float:
        """Events a second, end to end."""
        return self.events / self.seconds

    @property
    def cpu(self) -> float:
        """Microseconds of CPU an event."""
        return self.cpu_seconds / self.events * 1e6

    @property
    def lost(self) -> int:
        """Events that were emitted and did not arrive."""
        return self.events - self.delivered


T = TypeVar("T")
Round = Mapping[str, Measurement]
Measure = Callable[[T], float]


class Spread(NamedTuple):
    """A median between its quartiles."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Take the quartiles, interpolated; one value stands for all three."""
        known = list(values)
        if len(known) == 1:
            return cls(known[0], known[0], known[0])
        q1, median, q3 = statistics.quantiles(known, n=4, method="inclusive")
        return cls(median, q1, q3)

    def __format__(self, form: str) -> str:
        """Show as `median [q1–q3]`, each in the form given."""
        return f"{self.median:{form}} [{self.q1:{form}}–{self.q3:{form}}]"


@dataclass(frozen=True)
class Target(Generic[T]):
    """
    A bound on the paired ratio of two contenders, which its median has to keep.

    Attributes:
        label: What is compared, in words.
        measure: What is compared.
        contender: Whose figure is divided.
        base: By whose.
        at_least: What the ratio may not fall below.
        at_most: What it may not exceed.
    """

    label: str
    measure: Measure[T]
    contender: str
    base: str
    at_least: float = 0.0
    at_most: float = math.inf

    def __str__(self) -> str:
        bound = bound_of(self.at_least, self.at_most)
        return f"{self.label}: {self.contender} {bound} x {self.base}"


def bound_of(at_least: float, at_most: float) -> str:
    """Write a bound on one side as people do."""
    return f"<= {at_most:g}" if at_most < math.inf else f">= {at_least:g}"


def _rate(one: Measurement) -> float:
    return one.rate


def _p50(one: Measurement) -> float:
    return one.p50


def _p99(one: Measurement) -> float:
    return one.p99


RATE = "events/s, end to end"

TARGETS = (
    Target(RATE, _rate, "bizlog", BASELINE, at_least=3.0),
    Target(RATE, _rate, "bizlog", BY_HAND, at_least=0.75),
    Target("emit p50", _p50, "bizlog", BASELINE, at_most=0.45),
    Target("emit p99", _p99, "bizlog", BASELINE, at_most=0.5),
    Target(RATE, _rate, JOURNAL, MEMORY, at_least=0.75),
    Target(RATE, _rate, JOURNAL_FULL, MEMORY, at_least=0.7),
    Target("emit p50", _p50, JOURNAL, MEMORY, at_most=1.15),
    Target("emit p99", _p99, JOURNAL, MEMORY, at_most=1.5),
)

IMPORT_TARGET: Target[float] = Target(
    "import", float, "bizlog", "structlog", at_most=1.2
)

# Reported beside the targets; `bench.py` says why it is no target.
REPORTED = (Target(RATE, _rate, "bizlog", FLOOR),)


class Verdict(NamedTuple):
    """What became of one target; `passed` is None where nothing is judged."""

    passed: bool | None
    text: str

    def __str__(self) -> str:
        mark = "note" if self.passed is None else "pass" if self.passed else "MISS"
        return f"{mark}  {self.text}"


def unjudged(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Keep the figures, drop the judgement."""
    return [verdict._replace(passed=None) for verdict in verdicts]


def ratios(
    rounds: Sequence[Mapping[str, T]], contender: str, base: str, measure: Measure[T]
) -> Spread | None:
    """Compare two contenders within each round; None where they never met."""
    paired = [
        measure(each[contender]) / measure(each[base])
        for each in rounds
        if contender in each and base in each
    ]
    return Spread.of(paired) if paired else None


def judge_speed(rounds: Sequence[Round], asked: Collection[str]) -> list[Verdict]:
    """
    Hold the rounds against the targets.

    A target is judged when both its contenders were asked for: one that could not be
    measured is a miss, not an excuse.
    """
    return [judge(rounds, target) for target in _meant(TARGETS, asked)]


def judge(rounds: Sequence[Mapping[str, T]], target: Target[T]) -> Verdict:
    """Hold the rounds against one target."""
    spread = ratios(rounds, target.contender, target.base, target.measure)
    if spread is None:
        return Verdict(False, f"{target}: not measured")
    kept = target.at_least <= spread.median <= target.at_most
    return Verdict(kept, f"{target}: {spread:.2f}")


def compare(rounds: Sequence[Round], asked: Collection[str]) -> list[Verdict]:
    """Give the ratios that are reported and not judged."""
    found = [
        (one, ratios(rounds, one.contender, one.base, one.measure))
        for one in _meant(REPORTED, asked)
    ]
    return [
        Verdict(None, f"{one.label}: {one.contender} / {one.base}: {spread:.2f}")
        for one, spread in found
        if spread
    ]


def _meant(
    targets: Iterable[Target[Measurement]], asked: Collection[str]
) -> list[Target[Measurement]]:
    return [one for one in targets if {one.contender, one.base} <= set(asked)]


def judge_losses(rounds: Sequence[Round], name: str) -> Verdict:
    """Count what one contender lost and doubled in all rounds; both must be nothing."""
    runs = [each[name] for each in rounds if name in each]
    if not runs:
        return Verdict(False, f"{name} loses nothing: not measured")
    lost = sum(run.lost for run in runs)
    twice = sum(run.duplicates for run in runs)
    text = f"{name} lost {lost:,} and doubled {twice:,} in {len(runs)} rounds"
    return Verdict(not lost and not twice, text)


def table(rounds: Sequence[Round]) -> list[list[str]]:
    """Lay out all contenders, the fastest first; the first row is the heading."""
    names = sorted(
        {name for each in rounds for name in each},
        key=lambda name: _median(rounds, name, lambda one: -one.rate),
    )
    heading = [
        "contender",
        "events/s [q1–q3]",
        "x OpenTelemetry [q1–q3]",
        "x by hand",
        "x floor",
        "emit p50 µs",
        "p99 µs",
        "p99.9 µs",
        "CPU µs/event",
        "RSS MB",
        "bytes/event",
        "lost",
    ]
    return [heading, *(_row(rounds, name) for name in names)]


def _row(rounds: Sequence[Round], name: str) -> list[str]:
    runs = [each[name] for each in rounds if name in each]
    baseline, by_hand, floor = (
        ratios(rounds, name, base, _rate) for base in (BASELINE, BY_HAND, FLOOR)
    )
    medians: list[tuple[Measure[Measurement], str]] = [
        (_p50, ".1f"),
        (_p99, ".1f"),
        (lambda one: one.p999, ".0f"),
        (lambda one: one.cpu, ".1f"),
        (lambda one: one.rss_bytes / 1e6, ".0f"),
        (lambda one: one.file_bytes / one.events, ".0f"),
    ]
    return [
        name,
        f"{Spread.of(run.rate for run in runs):,.0f}",
        f"{baseline:.2f}" if baseline else "-",
        f"{by_hand.median:.2f}" if by_hand else "-",
        f"{floor.median:.3f}" if floor else "-",
        *(f"{_median(rounds, name, measure):{form}}" for measure, form in medians),
        f"{sum(run.lost for run in runs):,}",
    ]


def _median(rounds: Sequence[Round], name: str, measure: Measure[Measurement]) -> float:
    return statistics.median(measure(each[name]) for each in rounds if name in each)
