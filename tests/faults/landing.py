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
from typing import Any

from cell import Cell
from places import FailingTopic, Hub, Place, Topic
from scene import Scene
from voyage import ONCE, Go, Trouble, go_through, live_through

ALL_LINES, MANY_LINES = 200_000, 20_000
QUICK_ALL_LINES, QUICK_MANY_LINES = 3_000, 800
KILLS, QUICK_KILLS = 5, 2
DOWN_SECONDS = 2.0
SEND_SECONDS = 2.0  # for a batch, where answers never come
IN_FLIGHT = 5  # requests to a partition that librdkafka has under way

# The codes of Kafka's protocol (https://kafka.apache.org/protocol#protocol_error_codes).
REQUEST_TIMED_OUT = 7
TOPIC_AUTHORIZATION_FAILED, THROTTLING_QUOTA_EXCEEDED = 29, 89


def land(scene: Scene) -> Cell:
    """200,000 real invoice lines, and nothing goes wrong."""
    lines = QUICK_ALL_LINES if scene.quick else ALL_LINES
    return go_through(scene, _place(scene), _calm, lines=lines)


def packed(scene: Scene) -> Cell:
    """20,000 lines, up to 50 events in a message; answers get lost."""
    sink = {"pack": 50}
    return _land(scene, Hub(), _meets("drop_after_store"), sink=sink, runs=ONCE)


def busy(scene: Scene) -> Cell:
    """20,000 lines, throttled again and again."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(THROTTLING_QUOTA_EXCEEDED))
    return _land(scene, Hub(), _meets("reject", "server-busy", times=8))


def refused(scene: Scene) -> Cell:
    """20,000 lines; authorisation is lost and comes back."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(TOPIC_AUTHORIZATION_FAILED))
    return _land(scene, Hub(), _meets("reject", "unauthorized-access", times=8))


def release(scene: Scene) -> Cell:
    """20,000 lines; deliveries are released, which the SDK never tells."""
    return _land(scene, Hub(), _meets("release"), sink=_IMPATIENT)


def modify(scene: Scene) -> Cell:
    """20,000 lines; deliveries are modified, which the SDK never tells."""
    return _land(scene, Hub(), _meets("modify"), sink=_IMPATIENT)


def detach(scene: Scene) -> Cell:
    """20,000 lines; links are detached."""
    return _land(scene, Hub(), _meets("detach", times=2))


def close(scene: Scene) -> Cell:
    """20,000 lines; connections are closed."""
    return _land(scene, Hub(), _meets("close", times=2))


def drop(scene: Scene) -> Cell:
    """20,000 lines; TCP breaks before anything is stored."""
    return _land(scene, Hub(), _meets("drop", times=2))


def stored(scene: Scene) -> Cell:
    """20,000 lines; TCP breaks after a batch was stored: it comes twice."""
    return _land(scene, Hub(), _meets("drop_after_store"), runs=ONCE)


def late(scene: Scene) -> Cell:
    """20,000 lines; an answer comes after the time for it is over: twice, too."""
    trouble = _meets("delay", 2 * SEND_SECONDS, times=1)
    return _land(scene, Hub(), trouble, sink=_IMPATIENT, runs=ONCE)


def stall(scene: Scene) -> Cell:
    """20,000 lines; answers never come, nothing is stored; Kafka: requests time out."""
    if _is_kafka(scene):
        return _land(scene, FailingTopic(), _fails(REQUEST_TIMED_OUT))
    return _land(scene, Hub(), _meets("stall"), sink=_IMPATIENT)


def delay(scene: Scene) -> Cell:
    """20,000 lines; every answer takes 50 ms."""

    def trouble(hub: Hub, go: Go) -> None:
        hub.plant("delay", 0.05)
        go()

    return _land(scene, Hub(), trouble)


def outage(scene: Scene) -> Cell:
    """20,000 lines; the server goes down (Kafka: SIGKILL) and comes back."""
    if _is_kafka(scene):
        sink = {"delivery_timeout": 1.0}
        runs = range(IN_FLIGHT * Topic.partitions + 1)
        return _land(scene, Topic(scene.folder), _killed, sink=sink, runs=runs)
    return _land(scene, Hub(), _down, runs=range(Hub.partitions + 1))


def down(scene: Scene) -> Cell:
    """20,000 lines; the broker is out of reach for a moment, and knows all afterwards."""
    return _land(scene, FailingTopic(), _out_of_reach)


def sigkill(scene: Scene) -> Cell:
    """20,000 lines; SIGKILL in the middle, five times, with the journal."""
    kills = QUICK_KILLS if scene.quick else KILLS
    return live_through(scene, _place(scene), lines=_many(scene), kills=kills)


def _land(scene: Scene, place: Place, trouble: Trouble, **more: Any) -> Cell:
    return go_through(scene, place, trouble, lines=_many(scene), **more)


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


def _many(scene: Scene) -> int:
    return QUICK_MANY_LINES if scene.quick else MANY_LINES
