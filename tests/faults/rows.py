"""
The scenarios that bizlog and its peers go through alike.

Every contender runs with its defaults; what a scenario sets for bizlog beyond those is
said in it. None of the peers keeps anything beyond its process, so only bizlog is
started again where a scenario says so. Judged is bizlog alone, against the table of
the issue; what a peer does is shown.
"""

from __future__ import annotations

import time
from itertools import pairwise

from cell import Cell
from scene import BLOCKED, Scene
from server import BUSY, CUT, HANG, OK, SLOW, Request, Sink, throttled

VALUES = 7  # as many as `acts.values` emits
POISON = 7
FLUSH_SECONDS = 16.0  # of patience with peers that retry slowly


def ends(scene: Scene) -> Cell:
    """1,000 events, then the script just ends, without a flush."""
    with Sink() as sink:
        outcome = scene.run(sink, count=1_000)
        time.sleep(0.2)  # a request may just be read
        cell = scene.cell(sink, outcome, 1_000)
    if scene.contender.ours:
        cell.expect_all()
        cell.expect(cell.delivered == 1_000, f"{cell.delivered} of 1000 arrived")
        cell.expect_seconds(1.0 * scene.patience)
    return cell


def sigterm(scene: Scene) -> Cell:
    """SIGTERM without a handler right after 1,000 events; journal: after a confirm."""
    ours = scene.contender.journal
    count = 999 if ours else 1_000
    then = ("confirm", "sigterm") if ours else ("sigterm",)
    with Sink() as sink:
        outcome = scene.run(sink, count=count, then=then)
        time.sleep(0.2)
        if ours:
            scene.restart(sink, 1_000, lambda: sink.delivered >= 1_001)
        cell = scene.cell(sink, outcome, 1_001 if ours else 1_000)
    if ours:
        cell.expect_all()
    return cell


def handled(scene: Scene) -> Cell:
    """SIGTERM right after 1,000 events, with `handle_sigterm=True`."""
    options = {"handle_sigterm": True}
    with Sink() as sink:
        outcome = scene.run(sink, count=1_000, then=("sigterm",), options=options)
        time.sleep(0.2)
        cell = scene.cell(sink, outcome, 1_000)
    cell.expect_all()
    cell.expect(outcome.code in {-15, 143}, f"exit code {outcome.code}, not SIGTERM's")
    cell.expect_seconds(scene.deadline + 0.5 * scene.patience)
    return cell


def fork(scene: Scene) -> Cell:
    """The client is made, then the process forks: 200 events in the child."""
    with Sink() as sink:
        outcome = scene.run(sink, act="fork", count=200, seconds=10.0 * scene.patience)
        time.sleep(0.2)
        cell = scene.cell(sink, outcome, 200)
    if outcome.report.get("hung"):
        cell.notes.append("child hangs")
    if scene.contender.ours:
        cell.expect_all()
        cell.expect(not outcome.report.get("hung"), "the child hung")
    return cell


def refuse(scene: Scene) -> Cell:
    """The port is closed: 200 events, then the script ends."""
    return _unreachable(scene, Sink(refusing=True))


def hang(scene: Scene) -> Cell:
    """The sink accepts connections and never answers: 200 events, then the end."""
    return _unreachable(scene, Sink(usual=HANG))


def _unreachable(scene: Scene, sink: Sink) -> Cell:
    with sink:
        options = {"shutdown_timeout": scene.short_deadline}
        outcome = scene.run(sink, count=200, options=options)
        cell = scene.cell(sink, outcome, 200)
        if scene.contender.journal:
            sink.behave(OK)
            sink.listen()
            kept = scene.letters().keys()
            scene.restart(sink, 200, lambda: sink.stored.keys() >= {*range(201)} - kept)
            cell = scene.cell(sink, outcome, 201)
            cell.notes.append("after a restart")
    if scene.contender.ours:
        cell.expect_all()
        cell.expect_seconds((scene.short_deadline + 0.5) * scene.patience)
        cell.expect(BLOCKED not in cell.notes, BLOCKED)
        scene.expect_quick_emits(cell, outcome.report)
    return cell


def busy(scene: Scene) -> Cell:
    """Two 503s, then all is well: 50 events, a flush, up to 16 s of patience."""
    with Sink(script=[BUSY, BUSY]) as sink:
        return _fifty(scene, sink)


def throttle(scene: Scene) -> Cell:
    """One 429 with Retry-After: 3: the header is kept, and all arrive."""
    seconds = 1 if scene.quick else 3
    with Sink(script=[throttled(seconds)]) as sink:
        cell = _fifty(scene, sink)
        waited = _pause_after_429(sink.requests)
    cell.notes.append("never again" if waited is None else f"again after {waited:.1f}s")
    if scene.contender.ours:
        kept = waited is not None and waited >= seconds - 0.05
        cell.expect(kept, f"Retry-After: {seconds} was not kept")
    return cell


def _pause_after_429(requests: list[Request]) -> float | None:
    for first, second in pairwise(requests):
        if first.status == 429:
            return second.at - first.at
    return None


def _fifty(scene: Scene, sink: Sink, wanted: int = 50) -> Cell:
    outcome = scene.run_until(
        sink,
        lambda: sink.delivered >= wanted,
        FLUSH_SECONDS,
        count=50,
        then=("flush",),
        timeout=FLUSH_SECONDS,
    )
    cell = scene.cell(sink, outcome, 50)
    if scene.contender.ours:
        cell.expect_all()
    return cell


def poison(scene: Scene) -> Cell:
    """One event of 50 is bad: every request that holds it gets a 400."""
    with Sink(poison={POISON}) as sink:
        cell = _fifty(scene, sink, wanted=49)
        if scene.contender.ours:
            _only_the_bad_one(scene, cell)
            sends = sum(request.status == 400 for request in sink.requests)
            cell.notes.append(f"{sends} refused requests")
            cell.expect(sends <= 7, f"{sends} refused requests, not log2(50) + 1")
    return cell


def partial(scene: Scene) -> Cell:
    """One event of 50 is bad, and the sink says which one (207)."""
    with Sink(poison={POISON}, partial=True) as sink:
        cell = _fifty(scene, sink, wanted=49)
    _only_the_bad_one(scene, cell)
    return cell


def _only_the_bad_one(scene: Scene, cell: Cell) -> None:
    letters = scene.letters()
    cell.expect(letters.keys() == {POISON}, f"dead letters of {sorted(letters)}")
    cell.expect(cell.delivered == 49, f"{cell.delivered} of 49 arrived")


def cut(scene: Scene) -> Cell:
    """The sink stores the first batch, then cuts the connection: the answer is lost."""
    with Sink(script=[CUT]) as sink:
        return _fifty(scene, sink)


def burst(scene: Scene) -> Cell:
    """5,200 events at full speed into a fast sink, then a flush."""
    return _flood(scene, Sink(), 5_200)


def flood(scene: Scene) -> Cell:
    """30,000 at full speed, the sink takes 50 ms a request; journal: overflow=block."""
    return _flood(scene, Sink(usual=SLOW), 6_000 if scene.quick else 30_000)


def _flood(scene: Scene, sink: Sink, count: int) -> Cell:
    journal = scene.contender.journal
    options = {"overflow": "block", "block_timeout": 30.0} if journal else {}
    with sink:
        outcome = scene.run_until(
            sink,
            lambda: sink.delivered >= count,
            5.0,
            count=count,
            then=("flush",),
            timeout=60.0,
            options=options,
        )
        cell = scene.cell(sink, outcome, count)
    if dropped := sum(outcome.report.get("ledger", {}).get("dropped", {}).values()):
        cell.notes.append(f"{dropped:,} dropped and counted")
    if scene.contender.ours:
        lost = count - cell.delivered - cell.kept
        cell.expect(lost == dropped, f"{lost} lost, {dropped} counted")
        cell.expect(not cell.doubled, f"{cell.doubled} doubled")
        cell.expect(not (journal and lost), f"{lost} lost with a journal")
    return cell


def values(scene: Scene) -> Cell:
    """Decimal, UUID, date, datetime, set, NaN and object() as a property, one each."""
    with Sink() as sink:
        outcome = scene.run(sink, act="values", idle=1.0)
        time.sleep(0.2)
        cell = scene.cell(sink, outcome, VALUES)
    cell.seconds = None
    if scene.contender.ours:
        cell.expect_all()
    return cell
