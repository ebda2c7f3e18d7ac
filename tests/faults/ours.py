"""
The scenarios that only bizlog goes through: sudden death, forks, clocks and disks.

No peer keeps anything beyond its process, so there is nothing to compare.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

import orjson
from acts import CHUNK
from cell import Cell
from marks import Marks
from processes import ROOT, Child, Outcome
from scene import Scene
from server import HANG, OK, Behaviour, Request, Sink, throttled
from wire import Event

MEGABYTE = 1024 * 1024
YEAR = 365 * 86_400.0
JUMPS = (0.0, 3_600.0, -3_600.0, YEAR, -YEAR)
EVENTS_A_LIFE = 20_000


def plain(scene: Scene) -> Cell:
    """SIGTERM without handler or confirm, with a journal: the last 20 ms may be lost."""
    windows: list[float] = []
    for _ in range(1 if scene.quick else 5):
        cell, window = _terminate_plainly(scene)
        windows.append(window)
        if cell.misses:
            break
    window = median(windows)
    cell.notes.append(f"lost the last {window * 1000:.0f} ms")
    cell.expect(
        window <= 0.020 * scene.patience, f"lost {window * 1000:.0f} ms, not 20"
    )
    return cell


def _terminate_plainly(scene: Scene) -> tuple[Cell, float]:
    """Emit 1,000 events in about a second, terminate; how old was the oldest lost one?"""
    seen: dict[int, bytes] = {}

    def keep(event: Event) -> None:
        seen[event.n] = orjson.dumps(event.data)

    (scene.folder / "marks").unlink(missing_ok=True)
    for seen_already in scene.folder.glob("journal/*.mark"):
        seen_already.unlink()
    with Sink(check=keep) as sink:
        outcome = scene.run(
            sink, count=1_000, pause=0.001, marks=1_000, then=("sigterm",)
        )
        with Marks(scene.folder / "marks", 1_000) as marks:
            emitted = marks.all_emitted()
        scene.restart(sink, 1_000, lambda: _all_has_come(sink, 1_001))
        cell = scene.cell(sink, outcome, 1_001)
    lost = emitted.keys() - sink.stored.keys()
    ended = outcome.report["terminated"]
    cell.expect(not sink.doubled, f"{sink.doubled} doubled")
    _judge_gaps(scene, cell, seen, len(emitted))
    return cell, max((ended - emitted[n] for n in lost), default=0.0)


def _all_has_come(sink: Sink, events: int) -> bool:
    """Whether all is there, or nothing has come for two seconds."""
    newest = max(sink.first_at.values(), default=time.monotonic())
    fresh = events - 1 in sink.stored  # what the restarted process emitted itself
    return sink.delivered >= events or (fresh and time.monotonic() - newest > 2.0)


def _judge_gaps(scene: Scene, cell: Cell, seen: dict[int, bytes], emitted: int) -> None:
    """
    Have `bizlog gaps` name what is missing, at the very end too, and one event more.

    The one that is taken out shows that it names something where nothing was lost.
    """
    hole = emitted // 2
    missing = {n for n in range(emitted) if n not in seen} | {hole}
    file = scene.folder / "seen.jsonl"
    file.write_bytes(b"".join(seen[n] + b"\n" for n in sorted(seen) if n != hole))
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "bizlog.cli",
            "gaps",
            "--json",
            file,
            scene.folder / "journal",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    try:
        producers = json.loads(said.stdout)["producers"]
    except ValueError:
        cell.misses.append(f"bizlog gaps: {said.stderr.strip()[-200:]}")
        return
    ranges = [span for each in producers for span in each["missing_ranges"]]
    named = {n for first, last in ranges for n in range(first - 1, last)}
    cell.expect(named == missing, f"gaps named {ranges}, missing are {missing}")


def sigkill(scene: Scene) -> Cell:
    """SIGKILL at random points of 200 lives, each of which takes over from the last."""
    lives = 8 if scene.quick else 200
    total = (lives + 1) * EVENTS_A_LIFE
    chance = scene.random
    with (
        Sink(usual=Behaviour(after=0.002), honour_keys=False) as sink,
        Marks(scene.folder / "marks", total) as marks,
    ):
        for life in range(lives):
            job = {"first": life * EVENTS_A_LIFE, "marks": total}
            with scene.start(sink, act="hammer", count=EVENTS_A_LIFE, **job) as child:
                _let_live(scene, child, marks, job["first"], chance)
        accepted = marks.all_accepted()
        outcome = scene.restart(
            sink, total - 1, lambda: sink.stored.keys() >= accepted.keys()
        )
        cell = Cell(
            emitted=len(accepted),
            delivered=len(accepted.keys() & sink.stored.keys()),
            doubled=sink.doubled,
            notes=[f"{lives} kills"],
        )
    _judge_lives(cell, sink, lives, outcome)
    return cell


def _let_live(
    scene: Scene, child: Child, marks: Marks, first: int, chance: Random
) -> None:
    """Wait for a random moment: while it takes over, or while it delivers."""
    child.wait_for("imported", 20 * scene.patience)
    if chance.random() < 0.7:
        marks.wait_for_accepted(first + CHUNK - 1, 20 * scene.patience)
    time.sleep(chance.uniform(0.0, 0.3))


def _judge_lives(cell: Cell, sink: Sink, lives: int, outcome: Outcome) -> None:
    lost = cell.emitted - cell.delivered
    again = sum(request.again > 0 for request in sink.requests)
    cell.notes.append(f"{again} batches came again")
    cell.expect(cell.emitted > 0, f"nothing was accepted: {outcome.said}")
    cell.expect(not lost, f"{lost} accepted events lost")
    cell.expect(again <= lives, f"{again} batches came again, {lives} kills")
    cell.expect(not sink.renamed, f"{len(sink.renamed)} events got a second id")
    cell.expect(not sink.wrong, f"unreadable: {sink.wrong[:1]}")


def pending(scene: Scene) -> Cell:
    """A restart with 1,000,000 pending: the first delivery is early, memory is flat."""
    count = 30_000 if scene.quick else 1_000_000
    options = {"overflow": "block", "block_timeout": 30.0}
    with Sink(refusing=True) as sink:
        with scene.start(sink, act="pile", count=count, options=options) as child:
            child.wait_for("piled", 240)
            piled = "piled" in child.report
        sink.listen()
        with scene.start(sink, first=count, count=1, then=("wait",)) as child:
            child.wait_for("waiting", 30 * scene.patience)
            before = child.memory()
            sink.wait_for(lambda: sink.delivered > count, 240)
            grown = child.memory("VmHWM") - before
            started = child.started
            child.release()
            outcome = child.finish(30)
        cell = scene.cell(sink, outcome, count + 1)
        times = [at for n, at in sink.first_at.items() if n < count]
    first = min(times, default=started) - started
    drained = max(times, default=started) - started
    share = first / drained if drained else 1.0
    cell.notes += [f"first after {first:.2f} of {drained:.1f}s"]
    cell.notes += [f"+{grown // MEGABYTE} MB"]
    cell.expect(piled, "the events were not accepted")
    cell.expect_all()
    allowed = 1.0 if scene.quick else 0.2  # so few are through before Python is up
    cell.expect(share <= allowed, f"first delivery after {share:.2f} of the drain")
    cell.expect(grown <= 96 * MEGABYTE, f"memory grew by {grown // MEGABYTE} MB")
    return cell


def forks(scene: Scene) -> Cell:
    """40 forks while four threads emit: no child hangs, every event comes once."""
    many = 10 if scene.quick else 40
    with Sink() as sink:
        seconds = 5.0 * scene.patience
        job: dict[str, Any] = {"act": "forks", "forks": many, "seconds": seconds}
        outcome = scene.run(sink, cut=120 * scene.patience, **job)
        report = outcome.report
        cell = scene.cell(sink, outcome, report.get("parent", 0) + 5 * many)
    cell.seconds = None
    hung = report.get("hung")
    cell.notes.append(f"{hung} hung")
    cell.expect(hung == 0, f"{hung} children hung")
    cell.expect_all()
    return cell


def clock(scene: Scene) -> Cell:
    """The wall clock jumps by ±1 hour and ±1 year while a 429 is being waited out."""
    count = 20 * len(JUMPS)
    script = [throttled(1), OK] * len(JUMPS)
    with Sink(script=script) as sink:
        outcome = scene.run_until(
            sink,
            lambda: sink.delivered >= count,
            30 * scene.patience,
            act="clock",
            offsets=JUMPS,
            marks=count,
            timeout=20.0 * scene.patience,
            options={"flush_interval": 0.1},
        )
        cell = scene.cell(sink, outcome, count)
        with Marks(scene.folder / "marks", count) as marks:
            emitted = marks.all_emitted()
        late = max((at - emitted[n] for n, at in sink.first_at.items()), default=0.0)
    cell.seconds = None
    cell.expect_all()
    _judge_order(cell, sink)
    early = _shortest_wait(sink.requests)
    cell.expect(early >= 0.95, f"sent again {early:.2f} s after Retry-After: 1")
    cell.expect(late <= 15 * scene.patience, f"an event came {late:.1f} s late")
    return cell


def _judge_order(cell: Cell, sink: Sink) -> None:
    numbers = list(sink.stored)
    cell.expect(numbers == sorted(numbers), "the order was not kept")
    ids = set(sink.stored.values())
    cell.expect(len(ids) == len(numbers), "ids are not unique")


def _shortest_wait(requests: list[Request]) -> float:
    waits = [after.at - it.at for it, after in pairwise(requests) if it.status == 429]
    return min(waits, default=0.0)


def deleted(scene: Scene) -> Cell:
    """The journal's folder is deleted under load."""
    return _disk(scene, "deleted")


def eio(scene: Scene) -> Cell:
    """Every write to the journal's files fails for a while (EIO)."""
    return _disk(scene, "eio")


def full(scene: Scene) -> Cell:
    """The disk is full for a while."""
    return _disk(scene, "full")


def _disk(scene: Scene, fault: str) -> Cell:
    """
    Let the disk fail under load; see that it is used again within 5 s.

    Then the sink hangs, ten events are confirmed by the journal, and the process is
    killed: they are delivered after the restart.
    """
    most = 200_000
    seconds, timeout = 0.5 if scene.quick else 2.0, 20.0 * scene.patience
    job = {"fault": fault, "seconds": seconds, "timeout": timeout}
    with Sink() as sink:
        with scene.start(sink, act="disk", marks=most, **job) as child:
            child.wait_for("before", 2 * timeout + 10)
            delivered = sink.delivered
            sink.behave(HANG)
            child.tell("hangs")
            child.wait_for("written", timeout)
            report = child.report
        with Marks(scene.folder / "marks", most) as marks:
            written = marks.all_accepted().keys()
        sink.behave(OK)
        outcome = scene.restart(sink, most - 1, lambda: sink.stored.keys() >= written)
        cell = scene.cell(sink, outcome, report.get("before", 0))
        back = len(written & sink.stored.keys())
    cell.delivered, cell.seconds = delivered, None
    _judge_disk(scene, cell, report, fault)
    cell.expect(len(written) == 10, f"{len(written)} of 10 were journaled afterwards")
    cell.expect(back == len(written), f"{len(written) - back} lost after the recovery")
    return cell


def _judge_disk(scene: Scene, cell: Cell, report: dict[str, Any], fault: str) -> None:
    ledger = report.get("ledger")
    cell.expect(isinstance(ledger, dict), "the process did not get through the fault")
    if not isinstance(ledger, dict):
        return
    dropped = sum(ledger["dropped"].values())
    if dropped:
        cell.notes.append(f"{dropped} dropped and counted")
    took = report["recovered"]
    cell.notes.append(f"back after {took:.1f}s")
    cell.expect(took <= 5.0 * scene.patience, f"journals again after {took:.1f} s")
    cell.expect(fault != "full" or report["refused"] > 0, "the disk was never full")
    cell.expect(ledger["balanced"], f"the ledger is open: {ledger}")
    lost = cell.emitted - cell.delivered - ledger["dead_lettered"]
    cell.expect(lost == dropped, f"{lost} lost, {dropped} counted")
    cell.expect(not report.get("raised"), f"emit raised {report.get('raised')}")
    scene.expect_quick_emits(cell, report)
