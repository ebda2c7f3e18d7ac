"""
A journal at work: a dead sink beside a live one, a backlog; what is run, what must hold.

- live, dead: a file sink alone, and beside a sink that nobody reaches, with the journal
  in memory and on disk. The dead one may take a tenth of the live one's rate, no more.
- fill: a process emits into its journal while its sink is down, and dies. drain: the next
  one delivers that to a file, at least as fast as it was emitted and in little memory.
  first: it does not read everything before it delivers something.

No I/O here. A ratio is taken within a round, as for the contenders; a limit of memory
and a count must hold in each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from report import Spread, Target, Verdict, judge

# The peak without a journal is 40; four chunks of it, decoded, come on top, and what the
# file sink is writing.
MOST_MEGABYTES = {"drain": 100}


@dataclass(frozen=True)
class Course:
    """
    One way to use bizlog.

    Attributes:
        events: Events in all.
        sinks: `live` has a file sink, `dead` one that nobody reaches beside it; in a
            `backlog` the file sink is down until the process has died.
        journal: Whether it is on disk, or in memory.
    """

    events: int
    sinks: Literal["live", "dead", "backlog"]
    journal: Literal["memory", "journal"] = "journal"


def courses(events: int) -> dict[str, Course]:
    """Lay out the courses around a number of events; 100,000 gives the targets'."""
    return {
        # Some seconds: most of a dead sink's attempts come in the first one.
        "live": Course(events * 5, "live", "memory"),
        "dead": Course(events * 5, "dead", "memory"),
        "live_journal": Course(events * 5, "live"),
        "dead_journal": Course(events * 5, "dead"),
        "backlog": Course(events * 10, "backlog"),
    }


@dataclass(frozen=True)
class Stretch:
    """
    What was timed of a course in one round.

    Attributes:
        events: Events emitted or delivered in it.
        seconds: What that took, wall clock.
        rss_bytes: Peak resident memory of its process.
        arrived: Different events in the files; None where none are due.
        duplicates: Further copies of them.
    """

    events: int
    seconds: float
    rss_bytes: int
    arrived: int | None = None
    duplicates: int = 0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


Round = Mapping[str, Stretch]

# The stretches in their order, and what their files must hold.
STRETCHES = ("live", "dead", "live_journal", "dead_journal", "fill", "first", "drain")
DELIVERED = ("live", "dead", "live_journal", "dead_journal", "drain")


def _rate(one: Stretch) -> float:
    return one.rate


TARGETS: tuple[Target[Stretch], ...] = (
    Target("rate of the live sink", _rate, "dead", "live", at_least=0.9),
    Target(
        "rate of the live sink", _rate, "dead_journal", "live_journal", at_least=0.9
    ),
    Target("events/s", _rate, "drain", "fill", at_least=1.0),
    Target(
        "time to the first delivery",
        lambda one: one.seconds,
        "first",
        "drain",
        at_most=0.2,
    ),
)


def in_rounds(rounds: Sequence[Mapping[str, Round]]) -> list[dict[str, Stretch]]:
    """Put the stretches of a round's courses side by side."""
    return [
        {name: one for course in each.values() for name, one in course.items()}
        for each in rounds
    ]


def judge_durability(rounds: Sequence[Round]) -> list[Verdict]:
    """Hold rates, times and memory against their limits."""
    return [
        *(judge(rounds, target) for target in TARGETS),
        *(_judge_memory(rounds, name, most) for name, most in MOST_MEGABYTES.items()),
    ]


def judge_arrivals(rounds: Sequence[Round]) -> list[Verdict]:
    """Count what was lost or doubled in each stretch that ends in files."""
    return [_judge_complete(name, _runs(rounds, name)) for name in DELIVERED]


def _runs(rounds: Sequence[Round], name: str) -> list[Stretch]:
    return [each[name] for each in rounds if name in each]


def _judge_memory(rounds: Sequence[Round], name: str, most: int) -> Verdict:
    runs = _runs(rounds, name)
    text = f"peak memory: {name} <= {most} MB in each round: "
    if not runs:
        return Verdict(False, f"{text}not measured")
    worst = max(run.rss_bytes for run in runs) / 1e6
    return Verdict(worst <= most, f"{text}at most {worst:.1f}")


def _judge_complete(name: str, runs: Sequence[Stretch]) -> Verdict:
    if not runs:
        return Verdict(False, f"{name} loses nothing: not measured")
    lost = sum(run.events - (run.arrived or 0) for run in runs)
    twice = sum(run.duplicates for run in runs)
    text = f"{name} lost {lost:,} and doubled {twice:,} in {len(runs)} rounds"
    return Verdict(not lost and not twice, text)


def durability_table(rounds: Sequence[Round]) -> list[list[str]]:
    """Lay out the stretches in their order; the first row is the heading."""
    heading = ["stretch", "events", "seconds [q1–q3]", "events/s", "peak MB [q1–q3]"]
    return [
        heading,
        *(_row(name, runs) for name in STRETCHES if (runs := _runs(rounds, name))),
    ]


def _row(name: str, runs: Sequence[Stretch]) -> list[str]:
    rate = Spread.of(run.rate for run in runs).median
    return [
        name,
        f"{runs[0].events:,}",
        f"{Spread.of(run.seconds for run in runs):.2f}",
        f"{rate:,.0f}" if name != "first" else "-",
        f"{Spread.of(run.rss_bytes / 1e6 for run in runs):.1f}",
    ]
