"""
bizlog alone, with more events, more threads and less room: what is run, what must hold.

- short, long: the cost of an event may not grow with the number of events.
- crowd: eight threads at once; their total rate beside one thread's.
- long and crowd also hold the peak of resident memory; 1 MB is 10^6 bytes.
- burst, flood: full speed from one thread, from a cold start, with the default queue and
  policy: nothing is dropped.
- overrun: eight threads and a tiny queue: much is dropped, and all of it is counted.

No I/O here. A ratio is taken within a round, as for the contenders; a limit of memory
and a count must hold in each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from report import Spread, Target, Verdict, judge

WARM_UP = 5_000
THREADS = 8
TINY_QUEUE = 128  # events; a batch is due at 100

MOST_MEGABYTES = {"long": 50, "crowd": 64}
DROPS = "overrun"


@dataclass(frozen=True)
class Scenario:
    """
    One way to load bizlog.

    Attributes:
        events: Events a pass, from all threads together.
        passes: How often; each is timed.
        threads: Threads that emit at the same time.
        warm_up: Events sent beforehand, off the clock.
        settings: What is not left at bizlog's defaults, beside the sink.
    """

    events: int
    passes: int = 1
    threads: int = 1
    warm_up: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def offered(self) -> int:
        """Events in all passes and the warm-up."""
        return self.events * self.passes + self.warm_up


def scenarios(events: int) -> dict[str, Scenario]:
    """Lay out the scenarios around a number of events; 100,000 gives the targets'."""
    few, many = max(1, events // 10), events * 10
    block = {"overflow": "block"}
    tiny = {"overflow": "drop_newest", "queue_events": TINY_QUEUE}
    return {
        "short": Scenario(few, passes=10, warm_up=WARM_UP, settings=block),
        "long": Scenario(many, warm_up=WARM_UP, settings=block),
        "crowd": Scenario(many, threads=THREADS, warm_up=WARM_UP, settings=block),
        "burst": Scenario(events),
        "flood": Scenario(many),
        DROPS: Scenario(events, threads=THREADS, settings=tiny),
    }


@dataclass(frozen=True)
class Outcome:
    """
    One scenario in one round: the child's own figures, and what its files hold.

    Attributes:
        scenario: What was asked for.
        seconds: Wall clock of each pass.
        rss_bytes: Peak resident memory.
        offered: By the ledger, as are `delivered` and `dropped`.
        closed: Whether the ledger's identity held with nothing pending.
        arrived: Different events in the files.
        duplicates: Further copies of them.
    """

    scenario: Scenario
    seconds: Sequence[float]
    rss_bytes: int
    offered: int
    delivered: int
    dropped: int
    closed: bool
    arrived: int
    duplicates: int

    @property
    def cost(self) -> float:
        """Microseconds an event, wall clock, end to end; the median of the passes."""
        return Spread.of(self.seconds).median / self.scenario.events * 1e6

    @property
    def rate(self) -> float:
        """Events a second."""
        return 1e6 / self.cost

    @property
    def megabytes(self) -> float:
        """Peak resident memory in 10^6 bytes."""
        return self.rss_bytes / 1e6

    @property
    def counted(self) -> bool:
        """Whether the ledger is closed and says what was sent and what the files hold."""
        return (
            self.closed
            and self.offered == self.scenario.offered
            and self.delivered == self.arrived
            and self.delivered + self.dropped == self.offered
            and not self.duplicates
        )


Round = Mapping[str, Outcome]

TARGETS: tuple[Target[Outcome], ...] = (
    Target("cost an event", lambda one: one.cost, "long", "short", at_most=1.15),
    Target(
        f"rate of {THREADS} threads",
        lambda one: one.rate,
        "crowd",
        "long",
        at_least=0.8,
    ),
)


def judge_scaling(rounds: Sequence[Round]) -> list[Verdict]:
    """Hold cost, rate and memory against their limits."""
    return [
        *(judge(rounds, target) for target in TARGETS),
        *(_judge_memory(rounds, name, most) for name, most in MOST_MEGABYTES.items()),
    ]


def judge_counts(rounds: Sequence[Round]) -> list[Verdict]:
    """Count what was lost, doubled or missed by the ledger, in each scenario."""
    return [
        _judge_drops(_runs(rounds, name))
        if name == DROPS
        else _judge_complete(name, _runs(rounds, name))
        for name in scenarios(1)
    ]


def _runs(rounds: Sequence[Round], name: str) -> list[Outcome]:
    return [each[name] for each in rounds if name in each]


def _judge_memory(rounds: Sequence[Round], name: str, most: int) -> Verdict:
    runs = _runs(rounds, name)
    text = f"peak memory: {name} <= {most} MB in each round: "
    if not runs:
        return Verdict(False, f"{text}not measured")
    worst = max(run.megabytes for run in runs)
    return Verdict(worst <= most, f"{text}at most {worst:.1f}")


def _judge_complete(name: str, runs: Sequence[Outcome]) -> Verdict:
    if not runs:
        return Verdict(False, f"{name} loses nothing: not measured")
    lost = sum(run.scenario.offered - run.arrived for run in runs)
    text = f"{name} lost {lost:,}, {_tally(runs)}"
    return Verdict(not lost and all(run.counted for run in runs), text)


def _judge_drops(runs: Sequence[Outcome]) -> Verdict:
    if not runs:
        return Verdict(False, f"{DROPS} counts what it drops: not measured")
    exact = all(run.counted for run in runs)
    tried = all(run.dropped for run in runs)  # nothing dropped shows nothing
    return Verdict(exact and tried, f"{DROPS} counts what it drops: {_tally(runs)}")


def _tally(runs: Sequence[Outcome]) -> str:
    dropped = sum(run.dropped for run in runs)
    twice = sum(run.duplicates for run in runs)
    exact = sum(run.counted for run in runs)
    return (
        f"dropped {dropped:,} and doubled {twice:,}; "
        f"the ledger was exact in {exact} of {len(runs)} rounds"
    )


def scaling_table(rounds: Sequence[Round]) -> list[list[str]]:
    """Lay out the scenarios in their order; the first row is the heading."""
    heading = [
        "scenario",
        "events",
        "threads",
        "queue",
        "µs/event, wall [q1–q3]",
        "events/s",
        "peak MB [q1–q3]",
        "dropped",
        "doubled",
    ]
    return [
        heading,
        *(_row(name, runs) for name in scenarios(1) if (runs := _runs(rounds, name))),
    ]


def _row(name: str, runs: Sequence[Outcome]) -> list[str]:
    scenario = runs[0].scenario
    cost = Spread.of(run.cost for run in runs)
    return [
        name,
        f"{scenario.passes} x {scenario.events:,}"
        if scenario.passes > 1
        else f"{scenario.events:,}",
        f"{scenario.threads}",
        ", ".join(str(value) for value in scenario.settings.values()) or "default",
        f"{cost:.2f}",
        f"{1e6 / cost.median:,.0f}",
        f"{Spread.of(run.megabytes for run in runs):.1f}",
        f"{sum(run.dropped for run in runs):,}",
        f"{sum(run.duplicates for run in runs):,}",
    ]
