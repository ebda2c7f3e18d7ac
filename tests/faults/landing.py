"""
Landings: real invoice lines through bizlog into a hub or a topic, and back out.

A child process turns the lines into events, as `bizlog demo --replay` does; the sink in
question sends them to a loopback Event Hubs or to a Kafka broker, which a fault befalls
at every portion of the lines. What the real consumer clients read back is held against
what was emitted, and against the CSV file: `judgement.py` says how. Events may be there
twice only where a batch was stored and its answer never came.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from brokers import UnavailableError
from cell import Cell
from judgement import Judgement, Name, read_witness
from places import FailingTopic, Hub, Place, Topic
from processes import Child, Outcome
from retail import DATA, NO_DATA, Expected, read_plainly
from scene import Scene
from shopping import names_of_portions

from bizlog.delivery.inspection import inspect

Go: TypeAlias = Callable[[], None]
"""Has the child emit its next portion."""

Trouble: TypeAlias = Callable[[Any, Go], None]
"""What befalls a place while a portion is emitted; calls `Go` at its moment."""

ALL_LINES, MANY_LINES = 200_000, 20_000
QUICK_ALL_LINES, QUICK_MANY_LINES = 3_000, 800
PORTIONS = 4
DOWN_SECONDS = 2.0
END_SECONDS = 300.0
SEND_SECONDS = 2.0  # for a batch, where answers never come
IN_FLIGHT = 5  # requests to a partition that librdkafka has under way

# How many batches come again for each portion.
NEVER, ONCE = range(1), range(1, 2)

# The codes of Kafka's protocol (https://kafka.apache.org/protocol#protocol_error_codes).
REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS = 7, 19
TOPIC_AUTHORIZATION_FAILED, THROTTLING_QUOTA_EXCEEDED = 29, 89


def land(scene: Scene) -> Cell | str:
    """200,000 real invoice lines, and nothing goes wrong."""
    return _land(scene, _place(scene), lines=_all(scene))


def packed(scene: Scene) -> Cell | str:
    """20,000 lines, up to 50 events in a message; answers get lost."""
    sink = {"pack": 50}
    return _land(scene, Hub(), _meets("drop_after_store"), sink=sink, runs=ONCE)


def busy(scene: Scene) -> Cell | str:
    """20,000 lines, throttled again and again."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(THROTTLING_QUOTA_EXCEEDED))
    return _land(scene, Hub(), _meets("reject", "server-busy", times=8))


def refused(scene: Scene) -> Cell | str:
    """20,000 lines; authorisation is lost and comes back."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(TOPIC_AUTHORIZATION_FAILED))
    return _land(scene, Hub(), _meets("reject", "unauthorized-access", times=8))


def release(scene: Scene) -> Cell | str:
    """20,000 lines; deliveries are released, which the SDK never tells."""
    return _land(scene, Hub(), _meets("release"), sink=_IMPATIENT)


def modify(scene: Scene) -> Cell | str:
    """20,000 lines; deliveries are modified, which the SDK never tells."""
    return _land(scene, Hub(), _meets("modify"), sink=_IMPATIENT)


def detach(scene: Scene) -> Cell | str:
    """20,000 lines; links are detached."""
    return _land(scene, Hub(), _meets("detach", times=2))


def close(scene: Scene) -> Cell | str:
    """20,000 lines; connections are closed."""
    return _land(scene, Hub(), _meets("close", times=2))


def drop(scene: Scene) -> Cell | str:
    """20,000 lines; TCP breaks before anything is stored."""
    return _land(scene, Hub(), _meets("drop", times=2))


def stored(scene: Scene) -> Cell | str:
    """20,000 lines; TCP breaks after a batch was stored: it comes twice."""
    return _land(scene, Hub(), _meets("drop_after_store"), runs=ONCE)


def late(scene: Scene) -> Cell | str:
    """20,000 lines; an answer comes after the time for it is over: twice, too."""
    trouble = _meets("delay", 2 * SEND_SECONDS, times=1)
    return _land(scene, Hub(), trouble, sink=_IMPATIENT, runs=ONCE)


def stall(scene: Scene) -> Cell | str:
    """20,000 lines; answers never come, nothing is stored; Kafka: requests time out."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(REQUEST_TIMED_OUT))
    return _land(scene, Hub(), _meets("stall"), sink=_IMPATIENT)


def delay(scene: Scene) -> Cell | str:
    """20,000 lines; every answer takes 50 ms."""

    def trouble(hub: Hub, go: Go) -> None:
        hub.plant("delay", 0.05)
        go()

    return _land(scene, Hub(), trouble)


def outage(scene: Scene) -> Cell | str:
    """20,000 lines; the server goes down (Kafka: SIGKILL) and comes back."""
    if _is_kafka(scene):
        sink = {"delivery_timeout": 1.0}
        return _land(
            scene,
            Topic(scene.folder),
            _killed,
            sink=sink,
            runs=range(IN_FLIGHT * Topic.partitions + 1),
        )
    return _land(scene, Hub(), _down, runs=range(Hub.partitions + 1))


def down(scene: Scene) -> Cell | str:
    """20,000 lines; the broker is out of reach for a moment, and knows all afterwards."""
    return _land(scene, FailingTopic(), _out_of_reach)


# In what time the SDK's silence is taken for a failure.
_IMPATIENT = {"send_timeout": SEND_SECONDS}


def _meets(kind: str, *arguments: Any, **limits: Any) -> Trouble:
    """Plant a fault of the loopback server, and wait until it has befallen somebody."""

    def trouble(hub: Hub, go: Go) -> None:
        hub.plant(kind, *arguments, **limits)
        go()
        if not hub.all_met():
            raise AssertionError(f"{kind} befell nobody")

    return trouble


def _fails(code: int) -> Trouble:
    """Have the next requests fail, one after the other."""

    def trouble(topic: FailingTopic, go: Go) -> None:
        topic.cluster.fail_produce(*[code] * 4)
        go()

    return trouble


def _down(hub: Hub, go: Go) -> None:
    hub.server.stop()
    go()
    time.sleep(DOWN_SECONDS)
    hub.server.start()


def _killed(topic: Topic, go: Go) -> None:
    go()
    time.sleep(0.05)
    topic.broker.kill()
    time.sleep(DOWN_SECONDS)
    topic.broker.start()


def _out_of_reach(topic: FailingTopic, go: Go) -> None:
    topic.cluster.set_down()
    go()
    time.sleep(DOWN_SECONDS)
    topic.cluster.set_up()


def _calm(_: Any, go: Go) -> None:
    go()


def _is_kafka(scene: Scene) -> bool:
    return scene.contender.name == "kafka"


def _place(scene: Scene) -> Place:
    return Topic(scene.folder) if _is_kafka(scene) else Hub()


def _all(scene: Scene) -> int:
    return QUICK_ALL_LINES if scene.quick else ALL_LINES


def _many(scene: Scene) -> int:
    return QUICK_MANY_LINES if scene.quick else MANY_LINES


def _land(
    scene: Scene,
    place: Place,
    trouble: Trouble = _calm,
    *,
    lines: int | None = None,
    sink: dict[str, Any] | None = None,
    runs: range = NEVER,
) -> Cell | str:
    """
    Emit lines into a place, portion by portion, and read it.

    Args:
        scene: The stage.
        place: Where they go.
        trouble: What befalls it at each portion.
        lines: How many.
        sink: Options of the sink.
        runs: How many batches come again, for each portion.
    """
    if not DATA.is_file():
        return NO_DATA
    portions = 1 if scene.quick else PORTIONS
    job = {
        **_job(scene, lines or _many(scene), sink),
        "act": "shopping:emit",
        "portions": portions,
    }
    try:
        with place:
            with Child(job | {"url": place.url}, scene.folder) as child:
                for number in range(portions):
                    trouble(place, lambda: child.tell("go"))
                    child.wait_for(f"portion {number}", END_SECONDS)
                    _tell(scene, f"emitted {number + 1} of {portions} portions")
                outcome = child.finish(END_SECONDS)
            _tell(scene, f"reading back {outcome.report.get('emitted', 0):,} events")
            judgement = _judgement(scene, place, read_plainly(DATA, job["lines"]))
    except UnavailableError as error:
        return str(error)
    cell = Cell(outcome.report.get("emitted", 0))
    _judge(scene, cell, judgement, outcome)
    cell.expect(
        cell.emitted == judgement.expected.events,
        f"emitted {cell.emitted} events, not {judgement.expected.events}",
    )
    names = len(judgement.again)
    cell.expect(not names, f"{names} lines or orders under several ids")
    least, most = portions * runs.start, portions * (runs.stop - 1)
    _judge_runs(cell, judgement, range(least, most + 1))
    return cell


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
        "data": str(DATA),
        "lines": lines,
        "timeout": END_SECONDS,
    }


def _judgement(
    scene: Scene, place: Place, expected: Expected, *, resumed: bool = False
) -> Judgement:
    witness = read_witness(scene.folder / "witness")
    return Judgement(place.read(), witness, expected, resumed)


def _judge(scene: Scene, cell: Cell, judgement: Judgement, outcome: Outcome) -> None:
    """Hold the cell to all that is so whatever happened on the way."""
    cell.delivered, cell.doubled = len(judgement.first), judgement.doubled
    cell.misses += judgement.faults()
    judgement.judge_gaps(cell, scene.folder)
    report = outcome.report
    cell.expect(outcome.code == 0, f"the process ended with {outcome.code}")
    cell.expect(not outcome.cut, "the process hung")
    cell.expect(report.get("flushed") is True, f"not flushed: {outcome.said}")
    for name, account in report.get("accounts", {}).items():
        closed = account["balanced"] and account["offered"] == account["delivered"]
        cell.expect(closed, f"the ledger of {name}: {account}")
    if "emitting" in report and "ended" in report:
        cell.seconds = report["ended"] - report["emitting"]


def _judge_runs(cell: Cell, judgement: Judgement, due: range) -> None:
    """Hold the cell to this: what a fault left unanswered comes again, nothing else."""
    runs = judgement.runs()
    if runs:
        cell.notes.append(f"{runs} batches again")
    allowed = f"{due.start} to {due.stop - 1}"
    cell.expect(runs in due, f"{runs} batches came again, not {allowed}")


def sigkill(scene: Scene) -> Cell | str:
    """20,000 lines; SIGKILL in the middle, five times, with the journal."""
    if not DATA.is_file():
        return NO_DATA
    try:
        with _place(scene) as place:
            return _live(scene, place, kills=2 if scene.quick else 5)
    except UnavailableError as error:
        return str(error)


def _live(scene: Scene, place: Place, kills: int) -> Cell:
    """Have one process after the other go on behind the last checkpoint."""
    lines = _many(scene)
    names = names_of_portions(DATA, lines)
    job = _job(scene, lines, None) | {"act": "shopping:checkpoints", "url": place.url}
    job["options"]["journal"] = str(scene.folder / "journal")
    behind: list[int] = []
    chance = scene.random
    for life in range(kills):
        target = len(names) * (life + 1) // (kills + 1)
        with Child(job | {"first": (behind or [0])[-1]}, scene.folder) as child:
            child.wait_for_figure("accepted", target, END_SECONDS)
            time.sleep(chance.uniform(0.0, 0.05))
            child.kill()
            behind.append(child.report.get("accepted", 0))
            _tell(scene, f"killed behind portion {behind[-1]} of {len(names)}")
    with Child(job | {"first": behind[-1]}, scene.folder) as child:
        child.wait_for("flushed", END_SECONDS)
        _wait_until_drained(scene)
        child.release()
        outcome = child.finish(END_SECONDS)
    expected = read_plainly(DATA, lines)
    judgement = _judgement(scene, place, expected, resumed=True)
    cell = Cell(expected.events + len(names))
    _judge(scene, cell, judgement, outcome)
    cell.delivered, cell.seconds = len(judgement.named), None
    cell.notes.append(f"{kills} kills")
    _judge_lives(cell, judgement, names, behind)
    _judge_runs(cell, judgement, range(kills * place.partitions + 1))
    return cell


def _wait_until_drained(scene: Scene) -> None:
    """Wait until nothing of the dead is pending, in any journal."""
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until:
        found = inspect(scene.folder / "journal")
        if not any(sum(each.pending.values()) for each in found):
            return
        time.sleep(0.05)


def _judge_lives(
    cell: Cell,
    judgement: Judgement,
    names: list[set[Name]],
    behind: list[int],
) -> None:
    """Hold the cell to this: what was confirmed is there, and only the rest twice."""
    confirmed = {("checkpoint", number) for number in range(1, len(names) + 1)}
    missing = confirmed - judgement.named.keys()
    cell.expect(not missing, f"{len(missing)} confirmed checkpoints lost")
    excused = set[Name]().union(*(names[number] for number in behind))
    again = {name for name in judgement.again if name[0] == "line"} - excused
    cell.expect(not again, f"{len(again)} confirmed lines under several ids")
    cell.notes.append(f"{len(judgement.again)} emitted anew")
    cell.expect(0 < behind[0] < behind[-1] < len(names), f"killed behind {behind}")
