"""`bizlog tail` and `bizlog replay` at a loopback Event Hubs and at a Kafka broker."""

from __future__ import annotations

import _thread
import asyncio
import datetime as dt
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bizlog import sinks
from bizlog.cli import main
from bizlog.sinks import ACCEPTED, BaseSink, Batch, Record, make_sink

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
    yield
    gc.collect()


@pytest.fixture
def hubs():
    """Serve a hub of two partitions."""
    for package in ("azure.eventhub", "proton"):
        pytest.importorskip(
            package, reason="needs azure-eventhub and python-qpid-proton"
        )
    from bizlog.dev.eventhubs import LoopbackEventHubs  # noqa: PLC0415  # an extra

    with LoopbackEventHubs({"events": 2}) as server:
        yield server


@pytest.fixture
def hub(hubs, monkeypatch):
    """Name the hub."""
    monkeypatch.setenv(VARIABLE, hubs.connection_string)
    return f"eventhub://localhost:{hubs.port}/events"


@pytest.fixture
def topic(kafka):
    """Name a topic of two partitions."""
    return f"kafka://{kafka.servers}/{kafka.new_topic(2)}"


@pytest.fixture(params=["hub", "topic"])
def source(request):
    """Name a hub, then a topic."""
    return request.getfixturevalue(request.param)


def an_event(number, event_type="order.placed", session="s"):
    """Make an event; its number gives id, time and sequence."""
    event = {
        "event_id": f"0193a6a0-0000-7000-8000-{number:012d}",
        "event_type": event_type,
        "event_time": f"2026-11-23T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
        "session_id": f"{session}-{number % 5}",
        "producer_id": "producer-1",
        "sequence": number,
    }
    data = json.dumps(event, separators=(",", ":")).encode()
    return Record(data, event["event_id"], event_type, event["event_time"], number)


def foreign(data=b"no event"):
    """Make what another program may have sent."""
    return Record(data, "0", "none", "", 0)


async def deliver(sink, records):
    await sink.start()
    try:
        assert await sink.deliver(Batch("test", 1, len(records), records)) == ACCEPTED
    finally:
        await sink.stop()


def put(url, *records, options=""):
    """Send records as the sink of the URL does."""
    asyncio.run(deliver(make_sink(f"{url}{options}"), records))


def numbers_in(text):
    """Read the numbers of events that were printed, in their order."""
    return [json.loads(line)["sequence"] for line in text.splitlines()]


def by_session(numbers):
    """Sort numbers by session; their order stays."""
    return [[n for n in numbers if n % 5 == session] for session in range(5)]


def test_what_is_there_is_printed_as_it_is_stored(source, capsys):
    """From the earliest on: every event once, byte for byte, a session in its order."""
    records = [an_event(number) for number in range(1, 101)]
    put(source, *records)
    assert main(["tail", source, "--from", "earliest", "--limit", "100"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert sorted(lines) == sorted(record.data.decode() for record in records)
    assert by_session(numbers_in(captured.out)) == by_session(range(1, 101))
    assert captured.err == ""


def test_filters_and_messages_of_others(source, capsys):
    """Only the types asked for; what is no event is named once, counted, and harmless."""
    put(
        source,
        an_event(1),
        foreign(),
        an_event(2, "product.viewed"),
        foreign(b"\xff\x00"),
        an_event(3, "order.cancelled"),
        options="?partition_key=fixed:one",
    )
    words = ["tail", source, "--from", "earliest", "--idle", "0.5", "--type", "order.*"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert numbers_in(captured.out) == [1, 3]
    assert captured.err.count("no event of bizlog's: ") == 1
    assert f"{source}/" in captured.err
    assert "2 messages left out" in captured.err


def test_packed_events_come_one_by_one(hub, capsys):
    """Several events in one message are printed each on its line, up to the limit."""
    records = [an_event(number, session="same") for number in range(5, 105, 5)]
    put(hub, *records, options="?pack=8")
    assert main(["tail", hub, "--from", "earliest", "--limit", "11"]) == 0
    assert numbers_in(capsys.readouterr().out) == [*range(5, 60, 5)]


def test_from_a_time(source, capsys):
    """What arrived before it is left out, whatever the events' own times are."""
    put(source, an_event(1))
    time.sleep(0.05)
    moment = dt.datetime.now(dt.UTC).isoformat()
    time.sleep(0.05)
    put(source, an_event(2), an_event(3, session="other"))
    assert main(["tail", source, "--from", moment, "--limit", "2"]) == 0
    assert sorted(numbers_in(capsys.readouterr().out)) == [2, 3]


class Feeder(threading.Thread):
    """Sends numbered events, one by one, until it is told to end."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.sent = 0
        self.over = threading.Event()
        self._sink = make_sink(url)

    def run(self):
        asyncio.run(self.feed())

    async def feed(self):
        await self._sink.start()
        try:
            while not self.over.is_set():
                record = an_event(self.sent + 1)
                await self._sink.deliver(Batch("test", 1, 1, [record]))
                self.sent += 1
                await asyncio.sleep(0.05)
        finally:
            await self._sink.stop()


@pytest.fixture
def feed():
    """Start feeders; all are ended."""
    made = []

    def start(url):
        made.append(Feeder(url))
        made[-1].start()
        return made[-1]

    yield start
    for feeder in made:
        feeder.over.set()
        feeder.join(20)


def test_events_appear_as_they_arrive_until_ctrl_c(source, feed):
    """From the latest on, in a process of its own; Ctrl-C ends it with 130."""
    put(source, *(an_event(number) for number in range(1, 4)))
    tail = subprocess.Popen(
        [sys.executable, "-m", "bizlog.cli", "tail", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        feeder = feed(source)
        lines = [tail.stdout.readline() for _ in range(10)]
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=30)
    finally:
        tail.kill()
        tail.wait()
    feeder.over.set()
    feeder.join(20)
    found = numbers_in("".join(lines) + out)
    assert tail.returncode == 130
    assert err == ""
    # What came between its look at the hub and its last look: all of it, once.
    assert sorted(found) == [*range(min(found), max(found) + 1)]


def test_broken_connections_lose_and_double_nothing(hubs, hub, feed, capsys):
    """The reader connects anew and goes on behind what it has printed."""
    feeder = feed(hub)

    def cut():
        for _ in range(3):
            time.sleep(1.0)
            hubs.drop_connections()

    cutter = threading.Thread(target=cut)
    cutter.start()
    assert main(["tail", hub, "--from", "earliest", "--limit", "60"]) == 0
    cutter.join()
    feeder.over.set()
    found = numbers_in(capsys.readouterr().out)
    assert len(set(found)) == 60
    stored = [json.loads(message.body)["sequence"] for message in hubs.events("events")]
    for session in range(5):
        here = [n for n in stored if n % 5 == session]
        mine = [n for n in found if n % 5 == session]
        assert mine == here[: len(mine)]


def test_from_a_hub_to_a_topic_and_back(hubs, hub, topic, capsys):
    """Sources and sinks of a replay may be both; ids and bytes stay, and none is lost."""
    records = [an_event(number) for number in range(1, 301)]
    put(hub, *records, options="?pack=7")
    assert main(["replay", hub, "--sink", topic]) == 0
    assert main(["gaps", topic]) == 0
    assert "300 events of 1 producer: 0 missing, 0 doubled" in capsys.readouterr().out

    words = ["--from", "2026-11-23T10:04:00Z", "--sink", hub]
    assert main(["replay", topic, *words]) == 0
    again = sorted(message.body for message in hubs.events("events"))[-61:]
    assert [line for line in again if b"\n" not in line] == sorted(
        record.data for record in records[239:]
    )
    assert main(["gaps", hub, "--group", "mine"]) == 1
    assert "300 events of 1 producer: 0 missing, 61 doubled" in capsys.readouterr().out


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


def test_an_interrupted_replay_goes_on_in_the_middle(source, outlet, capsys):
    """Ctrl-C, then the same command: every event once, a session in its order."""
    options = "?pack=7" if source.startswith("eventhub") else ""
    put(source, *(an_event(n) for n in range(1, 1_201)), options=options)
    outlet.press_at = 430
    assert main(["replay", source, "--sink", "outlet:"]) == 130
    first = len(outlet.records)
    assert 430 <= first < 1_200
    put(source, an_event(1_201), an_event(1_202))

    assert main(["replay", source, "--sink", "outlet:"]) == 0
    assert f"going on after {first:,} events" in capsys.readouterr().err
    numbers = [record.sequence for record in outlet.records]
    assert by_session(numbers) == by_session(range(1, 1_203))
    assert not list(Path().glob(".bizlog-replay-*"))


def test_a_source_that_is_not_there(hub, topic, capsys):
    """One line that names the source, and code 2."""
    for url in (f"{hub}-none", f"{topic}-none"):
        for words in (["tail", url], ["replay", url, "--dry-run"], ["gaps", url]):
            assert main(words) == 2
            assert f"{url}: cannot be read: " in capsys.readouterr().err
