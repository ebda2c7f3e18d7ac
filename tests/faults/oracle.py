"""
The oracle: bizlog with a journal under random faults, and five things that must hold.

- conservation: what was accepted is at the sink or in the dead letters in the end
- integrity: every event arrives as it was emitted, under one id, and none that was not
- liveness: 5 s after the last fault a fresh event has arrived
- accounting: the ledger's identity holds once all is quiet
- memory: no life of the process grows by more than its queue and 32 MB

An event is accepted when `confirm(level="journal")` has said so. The faults: the sink
hangs, refuses, is slow, busy or throttled, cuts the connection after it has stored; the
process is killed and started again, or forks under load; the disk fails, or the
journal's folder is deleted. Only what was in a deleted folder may be lost, and what
went into it until bizlog must have noticed.

Chance begins at the seed, which each failure prints: `matrix.py --only oracle --seed N`
goes through the same faults in the same order.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acts import content_of
from marks import Marks
from processes import Child
from scene import Contender, Scene
from server import BUSY, CUT, HANG, OK, SLOW, Behaviour, Sink, throttled
from wire import Event

A_LIFE = 20_000  # numbers that one life of the process may use
MOST_LIVES = 400
TOTAL = A_LIFE * MOST_LIVES
POISON = range(0, TOTAL, 1_009)  # these events are refused by the sink
FRESH = TOTAL - 1

MEGABYTE = 1024 * 1024
QUEUE_BYTES = 8 * MEGABYTE
NOTICE_SECONDS = 5.0  # in which bizlog must find that its folder is gone
LIVE_SECONDS = 5.0

OPTIONS: dict[str, Any] = {
    "queue_bytes": QUEUE_BYTES,
    "sink_timeout": 2.0,
    "flush_interval": 0.2,
    "overflow": "block",
    "shutdown_timeout": 5.0,
}

SPELLS: tuple[tuple[Behaviour, float], ...] = (  # and the most seconds they last
    (OK, 2.0),
    (OK, 2.0),
    (SLOW, 1.5),
    (BUSY, 1.0),
    (throttled(1), 0.5),
    (HANG, 1.0),
    (CUT, 0.5),
)


@dataclass
class Verdict:
    """
    What the oracle found.

    Attributes:
        seed: Where chance began.
        faults: Which of the five did not hold, in words; empty where all did.
        figures: How much of everything there was.
        ledger: The last life's account.
    """

    seed: int
    faults: list[str] = field(default_factory=list[str])
    figures: Counter[str] = field(default_factory=Counter[str])
    ledger: Any = None

    def expect(self, holds: bool, fault: str) -> None:
        """Hold bizlog to one property; `fault` says what was seen instead."""
        if not holds:
            self.faults.append(fault)

    def __str__(self) -> str:
        """Say it on a few lines; with the seed and the ledger where something broke."""
        figures = ", ".join(
            f"{number:,} {what}" for what, number in self.figures.items()
        )
        lines = [f"oracle, seed {self.seed}: {figures}"]
        if self.faults:
            lines += [f"  {fault}" for fault in self.faults]
            lines += [f"  ledger: {self.ledger}", f"  replay: --seed {self.seed}"]
        return "\n".join(lines)


def consult(
    contender: Contender, seed: int, seconds: float, patience: float
) -> Verdict:
    """
    Put bizlog through random faults.

    Args:
        contender: bizlog with a journal.
        seed: Where chance begins.
        seconds: How long faults go on; the judgement takes some seconds more.
        patience: What the seconds that are allowed are multiplied by.
    """
    with tempfile.TemporaryDirectory(
        prefix="bizlog-oracle-", ignore_cleanup_errors=True
    ) as folder:
        scene = Scene(contender, Path(folder), False, patience, seed)
        return Trial(scene).hold(seconds)


class Trial:
    """
    One run of the oracle.

    Args:
        scene: Where it takes place.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._chance = random.Random(scene.seed)
        self._sink = Sink(poison=POISON, check=self._check)
        self._verdict = Verdict(scene.seed)
        self._lives = 0
        self._spared_until = 0.0
        self._forgiven: set[int] = set()
        self._unnoticed: list[tuple[float, float]] = []
        self._base = 0
        self._child = self._begin()

    def hold(self, seconds: float) -> Verdict:
        """Let faults happen, then stop them and judge."""
        with self._sink:
            try:
                end = time.monotonic() + seconds
                while time.monotonic() < end and self._lives < MOST_LIVES - 1:
                    self._live_on()
                self._judge()
            finally:
                self._child.kill()
        return self._verdict

    def _begin(self) -> Child:
        """Start the process, or start it again."""
        job: dict[str, Any] = {
            "act": "toil",
            "first": self._lives * A_LIFE,
            "count": A_LIFE,
            "marks": TOTAL,
            "options": OPTIONS,
        }
        self._lives += 1
        child = self._scene.start(self._sink, **job)
        child.wait_for("toiling", 20 * self._scene.patience)
        self._base = child.memory()
        return child

    # Faults

    def _live_on(self) -> None:
        """Let one thing happen."""
        happens: Callable[[], None] = self._chance.choices(
            [
                self._spell,
                self._refuse,
                self._kill,
                self._fork,
                self._fail,
                self._delete,
            ],
            [10, 2, 4, 3, 1, 0.3],
        )[0]
        self._verdict.figures[happens.__name__.strip("_") + "s"] += 1
        happens()
        self._watch()

    def _last(self, most: float) -> None:
        time.sleep(self._chance.uniform(0.1, most))

    def _spell(self) -> None:
        """Let the sink be in some state for a while; then it is well again."""
        behaviour, most = self._chance.choice(SPELLS)
        self._sink.behave(behaviour)
        self._last(most)
        self._sink.behave(OK)
        self._last(0.5)

    def _refuse(self) -> None:
        self._sink.refuse()
        self._last(1.0)
        self._sink.listen()
        self._last(0.5)

    def _kill(self) -> None:
        """Kill the process and start it again, sometimes while the sink hangs."""
        # Not before it has noticed that its folder is gone: that has a rule of its own.
        if time.monotonic() < self._spared_until:
            return
        if self._chance.random() < 0.3:
            self._sink.behave(HANG)
            self._last(0.5)
        self._child.kill()
        self._child = self._begin()
        self._sink.behave(OK)
        self._last(1.0)

    def _fork(self) -> None:
        self._child.tell("fork")

    def _fail(self) -> None:
        """Let the disk fail for a while."""
        self._child.tell("fail")
        self._last(1.0)
        self._child.tell("heal")

    def _delete(self) -> None:
        """Delete the journal's folder; what was in it may be lost with the process."""
        self._sink.wait_for(lambda: not self._missing(self._accepted()), 5.0)
        self._child.tell("fail")  # from now on a commit is good for one event only
        self._child.tell("heal")
        deleted = time.monotonic()
        with suppress(OSError):
            shutil.rmtree(self._scene.folder / "journal")
        self._forgiven |= self._missing(self._accepted())
        noticed = time.monotonic() + NOTICE_SECONDS * self._scene.patience
        self._unnoticed.append((deleted, noticed))
        self._spared_until = noticed + 1.0

    def _watch(self) -> None:
        """Look at the process: it is alive, and it has not grown too much."""
        died = f"the process died by itself: {self._child.said}"
        self._verdict.expect(self._child.alive(), died)
        if not self._child.alive():
            self._child = self._begin()
        grown = self._child.memory() - self._base
        limit = QUEUE_BYTES + 32 * MEGABYTE
        self._verdict.expect(grown <= limit, f"memory grew by {grown // MEGABYTE} MB")

    def _check(self, event: Event) -> str | None:
        """Integrity: the event is what was emitted."""
        expected = content_of(event.n)
        got = {name: event.data.get(name) for name in expected}
        return None if got == expected else f"event {event.n} is {dict(event.data)}"

    # Judgement

    def _judge(self) -> None:
        """Stop the faults; liveness, accounting, then conservation and integrity."""
        self._sink.behave(OK)
        self._sink.listen()
        patience = self._scene.patience
        self._child.tell("fresh")
        arrived = self._sink.wait_for(
            lambda: FRESH in self._sink.stored, LIVE_SECONDS * patience
        )
        self._verdict.expect(arrived, "liveness: a fresh event did not arrive in 5 s")
        self._child.tell("quiet")
        self._child.wait_for("flushed", 90 * patience)
        self._account(self._child.report)
        accepted = self._accepted()
        self._sink.wait_for(lambda: not self._lost(accepted), 15 * patience)
        self._child.release()
        outcome = self._child.finish(30 * patience)
        self._verdict.expect(
            outcome.code == 0, f"exit code {outcome.code}: {outcome.said}"
        )
        self._conserve(accepted)

    def _account(self, report: dict[str, Any]) -> None:
        ledger = self._verdict.ledger = report.get("ledger")
        quiet = ledger is not None and report.get("flushed") is True
        self._verdict.expect(quiet, "accounting: the process did not come to rest")
        if ledger is not None:
            self._verdict.expect(ledger["balanced"], "accounting: the ledger is open")

    def _accepted(self) -> dict[int, float]:
        with Marks(self._scene.folder / "marks", TOTAL) as marks:
            return marks.all_accepted(self._lives * A_LIFE)

    def _emitted(self) -> dict[int, float]:
        with Marks(self._scene.folder / "marks", TOTAL) as marks:
            return marks.all_emitted(self._lives * A_LIFE)

    def _missing(self, accepted: dict[int, float]) -> set[int]:
        missing = accepted.keys() - self._sink.stored.keys()
        return missing - self._scene.letters().keys() if missing else missing

    def _lost(self, accepted: dict[int, float]) -> set[int]:
        missing = self._missing(accepted)
        return {n for n in missing if not self._forgives(n, accepted[n])}

    def _forgives(self, n: int, at: float) -> bool:
        """Whether an event went into a folder that was deleted."""
        unnoticed = any(start <= at <= end for start, end in self._unnoticed)
        return unnoticed or n in self._forgiven

    def _conserve(self, accepted: dict[int, float]) -> None:
        missing = self._lost(accepted)
        emitted = self._emitted()
        foreign = self._sink.stored.keys() - emitted.keys() - {FRESH}
        expect, sink = self._verdict.expect, self._sink
        some = sorted(missing)[:5]
        expect(
            not missing, f"conservation: {len(missing)} accepted events lost: {some}"
        )
        expect(not foreign, f"integrity: {len(foreign)} events nobody emitted")
        expect(not sink.wrong, f"integrity: {len(sink.wrong)} wrong: {sink.wrong[:1]}")
        expect(not sink.renamed, f"integrity: {len(sink.renamed)} with a second id")
        self._verdict.figures.update(
            {
                "emitted": len(emitted),
                "accepted": len(accepted),
                "delivered": sink.delivered,
                "doubled": sink.doubled,
                "dead-lettered": len(self._scene.letters()),
            }
        )
