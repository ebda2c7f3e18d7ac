"""
The way of invoice lines: out of a child process, into a place, and back to be judged.

The child emits portion by portion, so that trouble meets each of them; or its process is
killed again and again, and the next one goes on behind the last checkpoint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from cell import Cell
from judgement import Judgement, Name, read_witness
from places import Place
from processes import Child, Outcome
from retail import data_file, read_plainly
from scene import Scene
from shopping import names_of_portions

from bizlog.delivery.inspection import inspect

Go: TypeAlias = Callable[[], None]
"""Has the child emit its next portion."""

Trouble: TypeAlias = Callable[[Any, Go], None]
"""What befalls a place while a portion is emitted; calls `Go` at its moment."""

END_SECONDS = 300.0

NEVER = range(1)
"""That no batch comes again."""


def go_through(
    scene: Scene,
    place: Place,
    troubles: Sequence[Trouble],
    *,
    lines: int,
    sink: dict[str, Any] | None = None,
    settle: bool = False,
    runs: range = NEVER,
) -> Cell:
    """
    Emit lines into a place, portion by portion, and judge what is there.

    Args:
        scene: The stage.
        place: Where they go.
        troubles: What befalls it, portion by portion.
        lines: How many there are in all portions together.
        sink: Options of the sink.
        settle: Whether one trouble is over before the next one comes.
        runs: How many batches come again.

    Raises:
        UnavailableError: There are no lines here, or no server.
    """
    job = _job(scene, lines, sink) | {"act": "shopping:emit", "settle": settle}
    with place:
        outcome = _emit(scene, place, troubles, job)
        _tell(scene, f"reading back {outcome.report.get('emitted', 0):,} events")
        judgement = _judgement(scene, place, lines)
    cell = Cell(outcome.report.get("emitted", 0))
    _judge(scene, cell, judgement, outcome)
    due = judgement.expected.events
    cell.expect(cell.emitted == due, f"emitted {cell.emitted} events, not {due}")
    names = len(judgement.again)
    cell.expect(not names, f"{names} lines or orders under several ids")
    _judge_runs(cell, judgement, runs)
    report = outcome.report
    cell.seconds = report.get("ended", 0.0) - report.get("emitting", 0.0)
    return cell


def _emit(
    scene: Scene, place: Place, troubles: Sequence[Trouble], job: dict[str, Any]
) -> Outcome:
    portions = len(troubles)
    job |= {"url": place.url, "portions": portions}
    with Child(job, scene.folder) as child:
        child.wait_for("emitting", END_SECONDS)
        with suppress(BrokenPipeError):  # it died: its outcome says so
            for number, trouble in enumerate(troubles):
                trouble(place, lambda: child.tell("go"))
                child.wait_for(f"portion {number}", END_SECONDS)
                _tell(scene, f"emitted {number + 1} of {portions} portions")
        return child.finish(END_SECONDS)


def live_through(scene: Scene, place: Place, *, lines: int, kills: int) -> Cell:
    """
    Emit lines with a journal, in one process after the other; each is killed but the last.

    Args:
        scene: The stage.
        place: Where they go.
        lines: How many.
        kills: How many processes are killed.

    Raises:
        UnavailableError: There are no lines here, or no server.
    """
    names = names_of_portions(data_file(), lines)
    job = _job(scene, lines, None) | {"act": "shopping:checkpoints"}
    job["options"]["journal"] = str(scene.folder / "journal")
    with place:
        job["url"] = place.url
        behind = _kill(scene, job, len(names), kills)
        outcome = _finish(scene, job | {"first": behind[-1]})
        judgement = _judgement(scene, place, lines, resumed=True)
    cell = Cell(judgement.expected.events + len(names), notes=[f"{kills} kills"])
    _judge(scene, cell, judgement, outcome)
    cell.delivered = len(judgement.named)
    _judge_lives(cell, judgement, names, behind)
    _judge_runs(cell, judgement, range(kills * place.partitions + 1))
    return cell


def _kill(scene: Scene, job: dict[str, Any], portions: int, kills: int) -> list[int]:
    """Say behind which portion each process was killed, at a random moment."""
    behind: list[int] = [0]
    chance = scene.random
    for life in range(1, kills + 1):
        target = portions * life // (kills + 1)
        with Child(job | {"first": behind[-1]}, scene.folder) as child:
            child.wait_for_figure("accepted", target, END_SECONDS)
            time.sleep(chance.uniform(0.0, 0.05))
            child.kill()
            behind.append(child.report.get("accepted", 0))
        _tell(scene, f"killed behind portion {behind[-1]} of {portions}")
    return behind[1:]


def _finish(scene: Scene, job: dict[str, Any]) -> Outcome:
    """Let a process emit the rest, and deliver what those before it left."""
    with Child(job, scene.folder) as child:
        child.wait_for("flushed", END_SECONDS)
        until = time.monotonic() + END_SECONDS
        while _is_pending(scene) and child.alive() and time.monotonic() < until:
            time.sleep(0.05)
        child.release()
        return child.finish(END_SECONDS)


def _is_pending(scene: Scene) -> bool:
    return any(sum(j.pending.values()) for j in inspect(scene.folder / "journal"))


def _tell(scene: Scene, what: str) -> None:
    """Say how far a long landing has come."""
    if not scene.quick:
        now = time.strftime("%X")
        print(f"  {now} {scene.contender.name}: {what}", file=sys.stderr, flush=True)


def _job(scene: Scene, lines: int, sink: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "contender": str(scene.contender.path),
        "folder": str(scene.folder),
        "options": {"sink": sink or {}, "shutdown_timeout": scene.deadline},
        "data": str(data_file()),
        "lines": lines,
        "timeout": END_SECONDS,
    }


# Judgement


def _judgement(
    scene: Scene, place: Place, lines: int, *, resumed: bool = False
) -> Judgement:
    expected = read_plainly(data_file(), lines)
    witness = read_witness(scene.folder / "witness")
    return Judgement(place.read(), witness, expected, resumed)


def _judge(scene: Scene, cell: Cell, judgement: Judgement, outcome: Outcome) -> None:
    """Hold the cell to all that is so whatever happened on the way."""
    cell.delivered, cell.doubled = len(judgement.first), judgement.doubled
    cell.misses += judgement.faults()
    judgement.judge_gaps(cell, scene.folder)
    ended = f"the process ended with {outcome.code}: {outcome.said}"
    cell.expect(outcome.code == 0, ended)
    cell.expect(not outcome.cut, "the process hung")
    cell.expect(outcome.report.get("flushed") is True, "not all was settled in time")
    for name, account in outcome.report.get("accounts", {}).items():
        closed = account["balanced"] and account["offered"] == account["delivered"]
        cell.expect(closed, f"the ledger of {name}: {account}")


def _judge_runs(cell: Cell, judgement: Judgement, due: range) -> None:
    """Hold the cell to this: what a fault left unanswered comes again, nothing else."""
    runs = judgement.runs()
    if runs:
        cell.notes.append(f"{runs} batches again")
    said = f"{runs} batches came again, not {due.start} to {due.stop - 1}"
    cell.expect(runs in due, said)


def _judge_lives(
    cell: Cell, judgement: Judgement, names: list[set[Name]], behind: list[int]
) -> None:
    """Hold the cell to this: what was confirmed is there, and only the rest anew."""
    confirmed = {("checkpoint", number) for number in range(1, len(names) + 1)}
    missing = confirmed - judgement.named.keys()
    cell.expect(not missing, f"{len(missing)} confirmed checkpoints lost")
    excused = set[Name]().union(*(names[number] for number in behind))
    again = {name for name in judgement.again if name[0] == "line"}
    wrong = again - excused
    cell.expect(not wrong, f"{len(wrong)} confirmed lines under several ids")
    cell.expect(0 < behind[0] <= behind[-1] < len(names), f"killed behind {behind}")
    cell.notes.append(f"{len(again)} lines emitted anew")
