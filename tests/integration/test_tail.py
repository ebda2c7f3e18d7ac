"""`bizlog tail` and `bizlog replay` at a loopback Event Hubs and at a Kafka broker."""

from __future__ import annotations

import _thread
import datetime as dt
import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from bizlog import sinks
from bizlog.cli import main
from bizlog.cli.selection import Query
from bizlog.cli.streams import open_stream
from bizlog.cli.tail import Tail
from bizlog.sinks import ACCEPTED, BaseSink

VARIABLE = "BIZLOG_EVENTHUB_CONNECTION_STRING"

# The SDK loses sight of connections that end, and leaves their sockets to the garbage
# collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def tidy(tmp_path, monkeypatch):
    """Run in a folder of its own; collect what the SDK left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    # Errors in log records would hold on to it.
    azure = logging.getLogger("azure")
    azure.setLevel(logging.CRITICAL + 1)
    yield
    azure.setLevel(logging.NOTSET)
    gc.collect()


class HubPlace:
    """
    A hub of a loopback server, where messages are stored past its links: it is faster.

    Attributes:
        url: Of the hub.
        server: Its server.
    """

    def __init__(self, server, hub):
        self.server = server
        self.url = f"eventhub://localhost:{server.port}/{hub}"
        self._partitions = server._broker.hub(hub).partitions
        self._loop = server._service.loop

    def put(self, *bodies, key=0):
        """Store messages in the partition of a key; None is one without bytes."""
        from proton import Message  # noqa: PLC0415  # an extra

        messages = [
            Message("text") if body is None else Message(body, inferred=True)
            for body in bodies
        ]
        partition = self._partitions[key % len(self._partitions)]
        self._loop.call_soon_threadsafe(
            partition.append,
            [message.encode() for message in messages],
            int(time.time() * 1000),
        )

    def bodies(self):
        """Read what is stored."""
        return [
            message.body for message in self.server.events(self.url.rsplit("/")[-1])
        ]


class TopicPlace:
    """
    A topic.

    Attributes:
        url: Of the topic.
    """

    def __init__(self, kafka, partitions):
        from confluent_kafka import Producer  # noqa: PLC0415  # an extra

        self.topic = kafka.new_topic(partitions)
        self.url = f"kafka://{kafka.servers}/{self.topic}"
        self._partitions = partitions
        self._producer = Producer({"bootstrap.servers": kafka.servers})

    def put(self, *bodies, key=0):
        """Store messages in the partition of a key; None is one without bytes."""
        for body in bodies:
            self._producer.produce(self.topic, body, partition=key % self._partitions)
        assert self._producer.flush(20) == 0


@pytest.fixture
def hubs(monkeypatch):
    """Serve a hub of two partitions and one of a single partition."""
    for package in ("azure.eventhub", "proton"):
        pytest.importorskip(
            package, reason="needs azure-eventhub and python-qpid-proton"
        )
    from bizlog.dev.eventhubs import LoopbackEventHubs  # noqa: PLC0415  # an extra

    with LoopbackEventHubs({"events": 2, "single": 1}) as server:
        monkeypatch.setenv(VARIABLE, server.connection_string)
        yield server


@pytest.fixture
def hub(hubs):
    """Give a hub of two partitions."""
    return HubPlace(hubs, "events")


@pytest.fixture
def single(hubs):
    """Give a hub of one partition."""
    return HubPlace(hubs, "single")


@pytest.fixture
def topic(kafka):
    """Give a topic of two partitions."""
    return TopicPlace(kafka, 2)


@pytest.fixture(params=["hub", "topic"])
def place(request):
    """Give a hub, then a topic."""
    return request.getfixturevalue(request.param)


def an_event(number, event_type="order.placed"):
    """Make an event; its number gives id, time, session and sequence."""
    event = {
        "event_id": f"0193a6a0-0000-7000-8000-{number:012d}",
        "event_type": event_type,
        "event_time": f"2026-11-23T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
        "session_id": f"s-{number % 5}",
        "producer_id": "producer-1",
        "sequence": number,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def put_all(place, numbers, pack=1):
    """Store events by session, with so many in a message."""
    for session, found in enumerate(by_session(numbers)):
        events = [an_event(number) for number in found]
        packs = [events[at : at + pack] for at in range(0, len(events), pack)]
        place.put(*(b"\n".join(each) for each in packs), key=session)


def numbers_in(text):
    """Read the numbers of events that were printed, in their order."""
    return [json.loads(line)["sequence"] for line in text.splitlines()]


def by_session(numbers):
    """Sort numbers by session; their order stays."""
    return [[n for n in numbers if n % 5 == session] for session in range(5)]


def test_what_is_there_is_printed(place, capsys):
    """Each event once and byte for byte, packed or not, in order; the rest is counted."""
    put_all(place, range(1, 51), pack=4)
    place.put(b"no event", b"\xff\x00", None)
    place.put(an_event(51, "product.viewed"), an_event(52, "order.cancelled"))
    words = ["--from", "earliest", "--idle", "0.3", "--type", "order.*"]
    assert main(["tail", place.url, *words]) == 0
    captured = capsys.readouterr()
    numbers = [*range(1, 51), 52]
    assert by_session(numbers_in(captured.out)) == by_session(numbers)
    assert an_event(7).decode() in captured.out.splitlines()
    assert captured.err.count("note: no event of bizlog's: ") == 1
    assert f"{place.url}/0@" in captured.err
    assert "3 messages left out" in captured.err


def test_from_a_time_up_to_a_limit(place, capsys):
    """What arrived before it is left out, whatever the events' own times are."""
    place.put(an_event(1), key=0)
    place.put(an_event(2), key=1)
    time.sleep(0.05)
    moment = dt.datetime.now(dt.UTC).isoformat()
    time.sleep(0.05)
    place.put(an_event(3), an_event(4), an_event(5))
    assert main(["tail", place.url, "--from", moment, "--limit", "2"]) == 0
    assert numbers_in(capsys.readouterr().out) == [3, 4]


@pytest.fixture
def feed():
    """Have numbered events arrive, one after the other, until the test ends."""
    over, threads = threading.Event(), []

    def put(place):
        for number in itertools.count(1):
            place.put(an_event(number), key=number % 5)
            if over.wait(0.02):
                return

    def start(place):
        threads.append(threading.Thread(target=put, args=(place,)))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def test_events_appear_as_they_arrive_until_ctrl_c(place, feed):
    """From the latest on, in a process of its own; Ctrl-C ends it with 130."""
    feed(place)
    tail = subprocess.Popen(
        [sys.executable, "-m", "bizlog.cli", "tail", place.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        lines = [tail.stdout.readline() for _ in range(10)]
        tail.send_signal(signal.SIGINT)
        # Not communicate(): it leaves out what readline() has read ahead.
        lines += tail.stdout.readlines()
        err = tail.stderr.read()
        tail.wait(30)
    finally:
        tail.kill()
        tail.wait()
    found = numbers_in("".join(lines))
    assert (tail.returncode, err) == (130, "")
    # Of each session all there was between two looks, and nothing twice.
    for numbers in filter(None, by_session(found)):
        assert numbers == [*range(min(numbers), max(numbers) + 1, 5)]


def test_broken_connections_lose_and_double_nothing(hub, feed):
    """The reader connects anew, and goes on behind what it has."""
    feed(hub)
    stream = open_stream(hub.url)
    starts = {span.partition: span.first for span in stream.spans()}
    found, cuts = [], [5, 20, 40]
    with closing(Tail(stream, starts, Query()).batches(lambda: False)) as batches:
        for records in batches:
            found += [record.sequence for record in records]
            if cuts and len(found) >= cuts[0]:
                cuts.pop(0)
                hub.server.drop_connections()
            if not cuts and min(map(len, by_session(found))) > 10:
                break
    stream.close()
    for session, numbers in enumerate(by_session(found)):
        assert numbers == [*range(session or 5, max(numbers) + 1, 5)]


def test_from_a_hub_to_a_topic_and_back(hub, single, topic, capsys):
    """Sources and sinks of a replay may be both; bytes stay, and none is lost."""
    put_all(single, range(1, 301), pack=7)
    assert main(["replay", single.url, "--sink", topic.url]) == 0
    assert main(["gaps", topic.url]) == 0
    assert "300 events of 1 producer: 0 missing, 0 doubled" in capsys.readouterr().out

    words = ["--from", "2026-11-23T10:04:00Z", "--sink", hub.url]
    assert main(["replay", topic.url, *words]) == 0
    assert sorted(hub.bodies()) == [an_event(number) for number in range(240, 301)]


class Outlet(BaseSink):
    """Keeps what it gets; presses Ctrl-C with the batch that holds the n-th event."""

    max_events = 20

    def __init__(self):
        self.records = []
        self.press_at = None

    async def deliver(self, batch):
        self.records += batch.records
        if self.press_at is not None and len(self.records) >= self.press_at:
            self.press_at = None
            _thread.interrupt_main()
        return ACCEPTED


@pytest.fixture
def outlet(monkeypatch):
    """Have `outlet:` lead to this sink."""
    sink = Outlet()
    load = sinks.load_sink_class

    class Found(Outlet):
        @classmethod
        def from_url(cls, _):
            return sink

    monkeypatch.setattr(
        sinks, "load_sink_class", lambda name: Found if name == "outlet" else load(name)
    )
    return sink


@pytest.mark.parametrize("name", ["single", "topic"])
def test_an_interrupted_replay_goes_on_in_the_middle(name, outlet, capsys, request):
    """Ctrl-C within a message, then the same command: each event once, and in order."""
    place = request.getfixturevalue(name)
    put_all(place, range(1, 1_201), pack=70)
    outlet.press_at = 430
    assert main(["replay", place.url, "--sink", "outlet:"]) == 130
    first = len(outlet.records)
    assert 430 <= first < 1_200
    put_all(place, range(1_201, 1_204))

    assert main(["replay", place.url, "--sink", "outlet:"]) == 0
    assert f"going on after {first:,} events" in capsys.readouterr().err
    numbers = [record.sequence for record in outlet.records]
    assert by_session(numbers) == by_session(range(1, 1_204))
    assert not list(Path().glob(".bizlog-replay-*"))


def test_a_source_that_is_not_there(hub, topic, capsys):
    """One line that names the source, and code 2."""
    for url in (f"{hub.url}-none", f"{topic.url}-none"):
        for words in (["tail", url], ["replay", url, "--dry-run"]):
            assert main(words) == 2
            assert f"{url}: cannot be read: " in capsys.readouterr().err
