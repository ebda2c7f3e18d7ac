"""
Medians, paired ratios, targets and tables. No I/O here.

A ratio is taken within each round, between two processes that ran next to each other;
what is shown is the median of these ratios with its quartiles, never a ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BASELINE = "opentelemetry"
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


Round = Mapping[str, Measurement]
Measure = Callable[[Measurement], float]


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

    def show(self, form: str) -> str:
        """Show as `median [q1–q3]`."""
        return f"{self.median:{form}} [{self.q1:{form}}–{self.q3:{form}}]"


@dataclass(frozen=True)
class Target:
    """
    What a run must show: `contender` at least `at_least` times `base`.

    Attributes:
        label: What is compared, in words.
        measure: What is compared; more is better.
    """

    label: str
    measure: Measure
    contender: str
    base: str
    at_least: float

    def __str__(self) -> str:
        return f"{self.label}: {self.contender} >= {self.at_least:g} x {self.base}"


TARGETS = (
    Target(
        "events/s, end to end", lambda one: one.rate, "bizlog", BASELINE, at_least=2.0
    ),
)


class Verdict(NamedTuple):
    """What became of one target."""

    passed: bool
    text: str


def ratios(
    rounds: Sequence[Round], contender: str, base: str, measure: Measure
) -> Spread | None:
    """Compare two contenders within each round; None where they never met."""
    paired = [
        measure(each[contender]) / measure(each[base])
        for each in rounds
        if contender in each and base in each
    ]
    return Spread.of(paired) if paired else None


def judge(
    rounds: Sequence[Round], asked: Sequence[str], targets: Sequence[Target] = TARGETS
) -> list[Verdict]:
    """
    Hold the rounds against the targets and count what bizlog lost.

    A target is judged when both its contenders were asked for: one that could not be
    measured is a miss, not an excuse.
    """
    verdicts = [
        _judge_target(rounds, target)
        for target in targets
        if target.contender in asked and target.base in asked
    ]
    if "bizlog" in asked:
        verdicts.append(_judge_losses(rounds, "bizlog"))
    return verdicts


def _judge_target(rounds: Sequence[Round], target: Target) -> Verdict:
    spread = ratios(rounds, target.contender, target.base, target.measure)
    if spread is None:
        return Verdict(False, f"{target}: not measured")
    return Verdict(spread.median >= target.at_least, f"{target}: {spread.show('.2f')}")


def _judge_losses(rounds: Sequence[Round], name: str) -> Verdict:
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
    baseline = ratios(rounds, name, BASELINE, lambda one: one.rate)
    floor = ratios(rounds, name, FLOOR, lambda one: one.rate)
    medians: list[tuple[Measure, str]] = [
        (lambda one: one.p50, ".1f"),
        (lambda one: one.p99, ".1f"),
        (lambda one: one.p999, ".0f"),
        (lambda one: one.cpu, ".1f"),
        (lambda one: one.rss_bytes / 1e6, ".0f"),
        (lambda one: one.file_bytes / one.events, ".0f"),
    ]
    return [
        name,
        Spread.of(run.rate for run in runs).show(",.0f"),
        baseline.show(".2f") if baseline else "-",
        f"{floor.median:.3f}" if floor else "-",
        *(f"{_median(rounds, name, measure):{form}}" for measure, form in medians),
        f"{sum(run.lost for run in runs):,}",
    ]


def _median(rounds: Sequence[Round], name: str, measure: Measure) -> float:
    return statistics.median(measure(each[name]) for each in rounds if name in each)


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns for a terminal: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write the same table for the README."""
    heading, *body = rows
    rule = ["---", *["---:"] * (len(heading) - 1)]
    lines = [heading, rule, *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
