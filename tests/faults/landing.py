"""
Landings: real invoice lines through bizlog into a hub or a topic, and back out.

A child process turns the lines into events, as `bizlog demo --replay` does; the sink in
question sends them to a loopback Event Hubs or to a Kafka broker, which a fault befalls
at every portion of the lines. What the real consumer clients read back is held against
what was emitted, and against the CSV file: `judgement.py` says how. Events may be there
twice only where a batch was stored and its answer never came.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cell import Cell
from places import FailingTopic, Hub, Place, Topic
from scene import Scene
from voyage import Go, Trouble, go_through, live_through

ALL_LINES, MANY_LINES = 200_000, 20_000
QUICK_ALL_LINES, QUICK_MANY_LINES = 3_000, 1_000
PORTIONS, QUICK_PORTIONS = 4, 1
KILLS, QUICK_KILLS = 5, 2
DOWN_SECONDS = 2.0
IN_FLIGHT = 5  # requests to a partition that librdkafka has under way

# More than there are partitions: on one of them the SDK, which sends once more by
# itself, comes to its end.
OFTEN = Hub.partitions + 1

# The codes of Kafka's protocol (https://kafka.apache.org/protocol#protocol_error_codes).
REQUEST_TIMED_OUT = 7
TOPIC_AUTHORIZATION_FAILED, THROTTLING_QUOTA_EXCEEDED = 29, 89


# What may befall


def _calm(_: Any, go: Go) -> None:
    go()


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
        topic.cluster.fail_produce(*[code] * 2)
        go()

    return trouble


def _slow(hub: Hub, go: Go) -> None:
    hub.plant("delay", 0.05)
    go()


def _down(hub: Hub, go: Go) -> None:
    hub.server.stop()
    go()
    time.sleep(DOWN_SECONDS)
    hub.server.start()


def _killed(topic: Topic, go: Go) -> None:
    go()
    time.sleep(0.02)
    topic.broker.kill()
    time.sleep(DOWN_SECONDS)
    topic.broker.start()


def _out_of_reach(topic: FailingTopic, go: Go) -> None:
    topic.cluster.set_down()
    go()
    time.sleep(DOWN_SECONDS)
    topic.cluster.set_up()


BUSY = _meets("reject", "server-busy", times=OFTEN)
REFUSED = _meets("reject", "unauthorized-access", times=OFTEN)
RELEASE, MODIFY, STALL = _meets("release"), _meets("modify"), _meets("stall")
DETACH, CLOSE = _meets("detach", times=2), _meets("close", times=2)
DROP = _meets("drop", times=2)
STORED = _meets("drop_after_store")
TOLD = (BUSY, REFUSED, DETACH, CLOSE, DROP, STORED, _slow)
SILENT = (RELEASE, MODIFY, STALL)

KAFKA_BUSY = _fails(THROTTLING_QUOTA_EXCEEDED)
KAFKA_REFUSED = _fails(TOPIC_AUTHORIZATION_FAILED)
KAFKA_STALL = _fails(REQUEST_TIMED_OUT)
OF_TOPICS = (KAFKA_BUSY, KAFKA_REFUSED, KAFKA_STALL, _out_of_reach)

# The mock takes what is under way behind a request that failed; a broker would see that
# numbers are missing, and refuse it.
ONE_REQUEST = {"options": {"max.in.flight.requests.per.connection": 1}}


# The rows


def land(scene: Scene) -> Cell:
    """200,000 real invoice lines, and nothing goes wrong."""
    lines = QUICK_ALL_LINES if scene.quick else ALL_LINES
    return go_through(scene, _place(scene), [_calm] * PORTIONS, lines=lines)


def told(scene: Scene) -> Cell:
    """20,000 lines, and one fault after the other that the server tells of."""
    if _is_kafka(scene):
        return _land_each(scene, FailingTopic(), OF_TOPICS, sink=ONE_REQUEST)
    return _land_each(scene, Hub(), TOLD, runs=range(1, 2))  # by STORED


def silent(scene: Scene) -> Cell:
    """20,000 lines, and one fault after the other that nobody tells of."""
    troubles = (*SILENT, _late(scene))
    runs = range(1, 2 + _slack(scene) * len(troubles))
    return _land_each(scene, Hub(), troubles, sink=_impatient(scene), runs=runs)


def _land_each(
    scene: Scene, place: Place, troubles: Sequence[Trouble], **more: Any
) -> Cell:
    # What fails without any success in between is tried at ever longer intervals.
    lines = _many(scene)
    return go_through(scene, place, troubles, lines=lines, settle=True, **more)


def packed(scene: Scene) -> Cell:
    """20,000 lines, up to 50 events in a message; answers get lost."""
    return _land(scene, Hub(), STORED, sink={"pack": 50}, least=1, most=1)


def busy(scene: Scene) -> Cell:
    """20,000 lines, throttled again and again."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), KAFKA_BUSY, sink=ONE_REQUEST)
    return _land(scene, Hub(), BUSY)


def refused(scene: Scene) -> Cell:
    """20,000 lines; authorisation is lost and comes back."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), KAFKA_REFUSED, sink=ONE_REQUEST)
    return _land(scene, Hub(), REFUSED)


def release(scene: Scene) -> Cell:
    """20,000 lines; deliveries are released, which the SDK never tells."""
    return _land(scene, Hub(), RELEASE, sink=_impatient(scene), most=_slack(scene))


def modify(scene: Scene) -> Cell:
    """20,000 lines; deliveries are modified, which the SDK never tells."""
    return _land(scene, Hub(), MODIFY, sink=_impatient(scene), most=_slack(scene))


def detach(scene: Scene) -> Cell:
    """20,000 lines; links are detached."""
    return _land(scene, Hub(), DETACH)


def close(scene: Scene) -> Cell:
    """20,000 lines; connections are closed."""
    return _land(scene, Hub(), CLOSE)


def drop(scene: Scene) -> Cell:
    """20,000 lines; TCP breaks before anything is stored."""
    return _land(scene, Hub(), DROP)


def stored(scene: Scene) -> Cell:
    """20,000 lines; TCP breaks after a batch was stored: it comes twice."""
    return _land(scene, Hub(), STORED, least=1, most=1)


def late(scene: Scene) -> Cell:
    """20,000 lines; an answer comes after the time for it is over: twice, too."""
    most = 1 + _slack(scene)
    return _land(scene, Hub(), _late(scene), sink=_impatient(scene), least=1, most=most)


def stall(scene: Scene) -> Cell:
    """20,000 lines; answers never come, nothing is stored; Kafka: requests time out."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), KAFKA_STALL, sink=ONE_REQUEST)
    return _land(scene, Hub(), STALL, sink=_impatient(scene), most=_slack(scene))


def delay(scene: Scene) -> Cell:
    """20,000 lines; every answer takes 50 ms."""
    return _land(scene, Hub(), _slow)


def outage(scene: Scene) -> Cell:
    """20,000 lines; the server goes down (Kafka: SIGKILL) and comes back."""
    if not _is_kafka(scene):
        return _land(scene, Hub(), _down, most=Hub.partitions)
    return _land(
        scene,
        Topic(scene.folder),
        _killed,
        sink={"delivery_timeout": 1.0},
        most=IN_FLIGHT * Topic.partitions,
    )


def down(scene: Scene) -> Cell:
    """20,000 lines; the broker is out of reach for a moment, and knows all afterwards."""
    return _land(scene, FailingTopic(), _out_of_reach, sink=ONE_REQUEST)


def sigkill(scene: Scene) -> Cell:
    """20,000 lines; SIGKILL in the middle, five times, with the journal."""
    kills = QUICK_KILLS if scene.quick else KILLS
    return live_through(scene, _place(scene), lines=_many(scene), kills=kills)


def _land(
    scene: Scene,
    place: Place,
    trouble: Trouble,
    *,
    sink: dict[str, Any] | None = None,
    least: int = 0,
    most: int = 0,
) -> Cell:
    """Emit in portions with one trouble each, which has `least` to `most` batches again."""
    portions = QUICK_PORTIONS if scene.quick else PORTIONS
    runs = range(portions * least, portions * most + 1)
    return go_through(
        scene,
        place,
        [trouble] * portions,
        lines=_many(scene),
        sink=sink,
        settle=isinstance(place, FailingTopic),  # nobody tells when an error was met
        runs=runs,
    )


def _late(scene: Scene) -> Trouble:
    return _meets("delay", 2 * _send_seconds(scene), times=1)


def _impatient(scene: Scene) -> dict[str, Any]:
    return {"send_timeout": _send_seconds(scene)}


def _send_seconds(scene: Scene) -> float:
    """In what time the SDK's silence is taken for a failure."""
    return 2.0 if scene.quick else 5.0


def _slack(scene: Scene) -> int:
    """How many batches of a portion a slow machine may leave unanswered in time."""
    return Hub.partitions if scene.quick else 0


def _many(scene: Scene) -> int:
    return QUICK_MANY_LINES if scene.quick else MANY_LINES


def _is_kafka(scene: Scene) -> bool:
    return scene.contender.name == "kafka"


def _place(scene: Scene) -> Place:
    return Topic(scene.folder) if _is_kafka(scene) else Hub()
