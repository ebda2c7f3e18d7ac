"""
bizlog's sinks for Event Hubs and Kafka beside loops by hand: what is run, what must hold.

Events of 300 bytes, into servers on this machine that run in processes of their own
(`bizlog dev eventhubs`, and noida-db for Kafka); connecting is not on the clock.

- by_hand: the best loop over azure-eventhub: `create_batch`, `add(EventData(body))`,
  `send_batch`, with bodies that are JSON already. by_hand_full: the same with the
  metadata that bizlog's messages show by default. buffered: the SDK's buffered mode.
- amqp: the whole of bizlog, from `log.info` until the hub has stored it, one event a
  message; amqp_key and amqp_body with less metadata (`metadata="key"`, `"none"`).
- packed: the whole of bizlog with `pack=50`. packed_ready: the sink alone, with bodies
  alone and in batches that are ready, as the engine brings them, since by_hand's bodies
  are; packed_ready_full: the same with all metadata.
- kafka_raw: confluent-kafka's `produce` in a loop, values alone; kafka_keyed: with the
  key and the headers that bizlog sends; kafka_made: this, and each event is made by
  hand in the loop, as `contenders/by_hand.py` does. kafka, kafka_ready: as for packed.
- one, eight: the whole of bizlog to a hub whose answers take 20 ms, 25 events a batch
  and one batch in flight a partition: one partition, and eight of them. bizlog has
  `max_in_flight=2` in both, so that its next batch is made up meanwhile.
- million: memory while a million events pass. paced: from emit to stored, at 500 events
  a second with the sink's own `flush_interval`. Both run once.

What is judged has the same on both sides: the same messages, and events that are made
or ready (docs/decisions/0014). No I/O here. A ratio is taken within a round, as for the
contenders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from report import Spread, Target, Verdict, bound_of, judge, ratios

PACK = 50
DELAY_MS = 20
FEW = 25  # events in a batch: little enough that the way there decides, not the work

# Beyond this a machine is too busy for its ratios: quartiles over the median.
MOST_SPREAD = 0.15
FLOORS = ("by_hand", "by_hand_full", "kafka_keyed", "kafka_made")

MOST_RISE = 10.0  # MB, from the first tenth of the events on

ONCE = ("million", "paced")


@dataclass(frozen=True)
class Course:
    """
    One way to send events.

    Attributes:
        events: Events on the clock.
        server: What they go to.
        partitions: How many the hub or topic has.
        delay_ms: How long its answers are held back, milliseconds.
        pack: Most events in a message.
        peer: Whether it is a loop by hand, or bizlog.
    """

    events: int
    server: Literal["hub", "kafka"] = "hub"
    partitions: int = 4
    delay_ms: int = 0
    pack: int = 1
    peer: bool = False


def courses(events: int) -> dict[str, Course]:
    """Lay out the courses around a number of events; 100,000 gives the targets'."""
    some, many, few = max(1, events // 3), events * 3, max(FEW, events // 40)
    return {
        "by_hand": Course(events, peer=True),
        "amqp": Course(events),
        "by_hand_full": Course(some, peer=True),
        "buffered": Course(some, peer=True),
        "amqp_key": Course(events),
        "amqp_body": Course(events),
        "packed": Course(many, pack=PACK),
        "packed_ready": Course(many, pack=PACK),
        "packed_ready_full": Course(many, pack=PACK),
        "kafka_raw": Course(many, "kafka", peer=True),
        "kafka": Course(many, "kafka"),
        "kafka_made": Course(many, "kafka", peer=True),
        "kafka_keyed": Course(many, "kafka", peer=True),
        "kafka_ready": Course(many, "kafka"),
        "one": Course(few, partitions=1, delay_ms=DELAY_MS),
        "eight": Course(few * 8, partitions=8, delay_ms=DELAY_MS),
        "million": Course(events * 10),
        "paced": Course(max(1, events // 20)),
    }


@dataclass(frozen=True)
class Passage:
    """
    One course in one round.

    Attributes:
        course: What was asked for.
        seconds: From the first emit or message until all is acknowledged.
        cpu_seconds: CPU time of the sending process meanwhile, all threads.
        stored: Messages that the server stored.
        rise_mb: How far memory was from where it stood after the first tenth, at most.
        p50_ms: From emit to stored, median; likewise `p99_ms`.
    """

    course: Course
    seconds: float
    cpu_seconds: float
    stored: int
    rise_mb: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.course.events / self.seconds

    @property
    def cpu(self) -> float:
        """Microseconds of CPU an event, of the sending process."""
        return self.cpu_seconds / self.course.events * 1e6

    @property
    def complete(self) -> bool:
        """Whether as many messages are there as the events need, and none twice."""
        least = -(-self.course.events // self.course.pack)
        most = self.course.events if self.course.pack == 1 else least * 2
        return least <= self.stored <= most


Round = Mapping[str, Passage]


def _rate(one: Passage) -> float:
    return one.rate


RATE = "events/s"

TARGETS: tuple[Target[Passage], ...] = (
    Target(RATE, _rate, "amqp", "by_hand_full", at_least=0.9),
    Target(RATE, _rate, "amqp_body", "by_hand", at_least=0.9),
    Target(RATE, _rate, "packed", "by_hand_full", at_least=8),
    Target(RATE, _rate, "packed_ready", "by_hand", at_least=8),
    Target(RATE, _rate, "kafka", "kafka_made", at_least=0.5),
    Target(RATE, _rate, "kafka_ready", "kafka_keyed", at_least=0.5),
    Target(RATE, _rate, "kafka", "amqp", at_least=4),
    Target(f"{RATE}, {DELAY_MS} ms away", _rate, "eight", "one", at_least=6),
)

# Reported beside them: the whole of bizlog beside loops that do less.
REPORTED: tuple[Target[Passage], ...] = (
    Target(RATE, _rate, "amqp", "by_hand"),
    Target(RATE, _rate, "amqp_key", "by_hand"),
    Target(RATE, _rate, "amqp", "buffered"),
    Target(RATE, _rate, "packed", "by_hand"),
    Target(RATE, _rate, "packed_ready_full", "by_hand"),
    Target(RATE, _rate, "kafka", "kafka_keyed"),
    Target(RATE, _rate, "kafka", "kafka_raw"),
    Target(RATE, _rate, "kafka_ready", "kafka_raw"),
)


def restless(rounds: Sequence[Round]) -> list[str]:
    """Say which floors spread so far that the rounds should be run again."""
    found: list[str] = []
    for name in FLOORS:
        if runs := _runs(rounds, name):
            rate = Spread.of(run.rate for run in runs)
            share = (rate.q3 - rate.q1) / rate.median
            if share > MOST_SPREAD:
                found.append(f"{name} spread by {share:.0%}")
    return found


def judge_hubs(rounds: Sequence[Round], asked: Collection[str]) -> list[Verdict]:
    """Hold rates and memory against their limits, as far as both sides were asked for."""
    verdicts = [judge(rounds, target) for target in _meant(TARGETS, asked)]
    if "million" in asked:
        verdicts.append(_judge_memory(_runs(rounds, "million")))
    return verdicts


def compare_hubs(rounds: Sequence[Round], asked: Collection[str]) -> list[Verdict]:
    """Give what is reported and not judged: further ratios, and the time to stored."""
    found = [
        (one, ratios(rounds, one.contender, one.base, one.measure))
        for one in _meant(REPORTED, asked)
    ]
    verdicts = [
        Verdict(None, f"{one.label}: {one.contender} / {one.base}: {spread:.2f}")
        for one, spread in found
        if spread
    ]
    verdicts += [
        Verdict(
            None,
            f"emit to stored: p50 {one.p50_ms:.0f} ms, p99 {one.p99_ms:.0f} ms",
        )
        for one in _runs(rounds, "paced")
    ]
    return verdicts


def judge_stored(rounds: Sequence[Round], asked: Iterable[str]) -> list[Verdict]:
    """Count what the servers have of bizlog's events; a peer's loss fails nothing."""
    ours = [name for name in asked if not courses(1)[name].peer]
    return [_judge_complete(name, _runs(rounds, name)) for name in ours]


def _meant(
    targets: Iterable[Target[Passage]], asked: Collection[str]
) -> list[Target[Passage]]:
    return [one for one in targets if {one.contender, one.base} <= set(asked)]


def _runs(rounds: Sequence[Round], name: str) -> list[Passage]:
    return [each[name] for each in rounds if name in each]


def _judge_memory(runs: Sequence[Passage]) -> Verdict:
    text = f"memory: million {bound_of(0, MOST_RISE)} MB from its first tenth on: "
    if not runs:
        return Verdict(False, f"{text}not measured")
    worst = max(run.rise_mb or 0.0 for run in runs)
    return Verdict(worst <= MOST_RISE, f"{text}at most {worst:.1f}")


def _judge_complete(name: str, runs: Sequence[Passage]) -> Verdict:
    if not runs:
        return Verdict(False, f"{name} is stored once: not measured")
    right = sum(run.complete for run in runs)
    stored = ", ".join(f"{run.stored:,}" for run in runs if not run.complete)
    wrong = f": {stored} messages of {runs[0].course.events:,} events" if stored else ""
    text = f"{name} is stored once in {right} of {len(runs)} rounds{wrong}"
    return Verdict(right == len(runs), text)


def hubs_table(rounds: Sequence[Round]) -> list[list[str]]:
    """Lay out the courses in their order; the first row is the heading."""
    heading = [
        "to a hub or Kafka",
        "events",
        "events/s [q1–q3]",
        "x by hand [q1–q3]",
        "CPU µs/event [q1–q3]",
        "wall µs/event",
    ]
    return [
        heading,
        *(
            _row(name, rounds, runs)
            for name in courses(1)
            if (runs := _runs(rounds, name))
        ),
    ]


def _row(name: str, rounds: Sequence[Round], runs: Sequence[Passage]) -> list[str]:
    by_hand = ratios(rounds, name, FLOORS[0], _rate)
    return [
        name,
        f"{runs[0].course.events:,}",
        f"{Spread.of(run.rate for run in runs):,.0f}",
        f"{by_hand:.2f}" if by_hand else "-",
        f"{Spread.of(run.cpu for run in runs):.1f}",
        f"{1e6 / Spread.of(run.rate for run in runs).median:.1f}",
    ]
