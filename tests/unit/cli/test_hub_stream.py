"""The SDK's consumer as a stream: a double stands for the SDK, and fails as told."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from types import SimpleNamespace

import pytest

from bizlog.cli import hub_stream
from bizlog.cli.errors import CommandError
from bizlog.cli.hub_stream import HubStream
from bizlog.cli.streams import Message, Span
from bizlog.exceptions import RetryableSinkError

NOW = dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC)


def event(number, body=b"x"):
    return SimpleNamespace(sequence_number=number, body=body)


class Context:
    """What the SDK hands to its callbacks."""

    def __init__(self, partition):
        self.partition_id = partition
        self.checkpoints = []

    async def update_checkpoint(self, event):
        self.checkpoints.append(event.sequence_number)


class Client:
    """
    Stands for the SDK's client.

    Attributes:
        asked: What `receive_batch` was called with.
        act: What it does; by default it waits for its end.
        closed: Whether it was closed.
    """

    def __init__(self):
        self.asked = {}
        self.closed = False
        self.act = None
        self.properties = {}

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.closed = True

    async def close(self):
        self.closed = True

    async def get_partition_ids(self):
        return list(self.properties)

    async def get_partition_properties(self, partition):
        found = self.properties[partition]
        if isinstance(found, Exception):
            raise found
        return {"id": partition, "last_enqueued_time_utc": NOW, **found}

    async def receive_batch(self, on_event, **options):
        self.asked = options | {"on_event": on_event}
        if self.act is not None:
            await self.act()
        await asyncio.sleep(3_600)


class Sink:
    def __init__(self, client):
        self.client = client
        self.stopped = 0
        self.groups = []

    async def consumer(self, group, **_):
        if isinstance(self.client, Exception):
            raise self.client
        self.groups.append(group)
        return self.client

    async def stop(self):
        self.stopped += 1


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def stream(client, monkeypatch):
    """Make a stream over the double."""
    sink = Sink(client)
    monkeypatch.setattr(hub_stream, "make_sink", lambda _: sink)
    made = HubStream("eventhub://host.x/hub?transport=websocket", "mine")
    made.sink = sink
    yield made
    made.close()


def until(reading, holds):
    """Read until something holds; give what came."""
    found = []
    deadline = time.monotonic() + 20
    for messages in reading:
        found += messages
        if holds(found):
            return found
        assert time.monotonic() < deadline, "did not happen in time"
    raise AssertionError


def test_partitions_say_what_they_hold(stream, client):
    """An empty one holds nothing, whatever numbers it had; the rest is the service's."""
    client.properties = {
        "0": {
            "beginning_sequence_number": 3,
            "last_enqueued_sequence_number": 9,
            "is_empty": False,
        },
        "1": {
            "beginning_sequence_number": -1,
            "last_enqueued_sequence_number": -1,
            "is_empty": True,
        },
    }
    assert stream.name == "eventhub://host.x/hub"
    assert stream.spans() == [Span("0", 3, 10, NOW), Span("1", 0, 0, NOW)]
    assert (client.closed, stream.sink.stopped, stream.sink.groups) == (
        True,
        1,
        ["mine"],
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RetryableSinkError("the file is empty"), "the file is empty"),
        (ValueError("one\n two"), "ValueError: one two"),
        (ValueError(), "ValueError"),
        (TimeoutError(), "no answer within 30 s"),
    ],
)
def test_no_answer_is_an_error_in_one_line(stream, client, error, reason):
    """It names the hub; connections and credential are closed."""
    client.properties = {"0": error}
    with pytest.raises(CommandError, match=rf"host\.x/hub: cannot be read: {reason}$"):
        stream.spans()
    assert (client.closed, stream.sink.stopped) == (True, 1)


def test_messages_come_once_and_in_order(stream, client):
    """What is given again after a break is left out; the SDK is told how far it is."""
    context = Context("0")

    async def act():
        await client.asked["on_event"](context, [event(4), event(5)])
        await client.asked["on_event"](context, [])
        await client.asked["on_event"](context, [event(4), event(5), event(6)])
        await client.asked["on_event"](context, [event(5), event(6)])
        await client.asked["on_event"](context, [event(None), event(7)])

    client.act = act
    reading = stream.read({"0": 4})
    found = until(reading, lambda found: len(found) >= 4)
    assert found == [Message("0", number, b"x") for number in (4, 5, 6, 7)]
    assert context.checkpoints == [5, 6, 7]
    reading.close()
    stream.close()
    assert (client.closed, stream.sink.stopped) == (True, 1)


def test_bodies_of_every_kind(stream, client):
    """Pieces are joined; what is no bytes, or cannot be had, is nothing."""

    class Without:
        sequence_number = 4

        @property
        def body(self):
            raise ValueError("Event content empty.")

    async def act():
        events = [
            event(1, iter([b"a", b"b"])),
            event(2, b"c"),
            event(3, 5),
            Without(),
            event(5, "text"),
        ]
        await client.asked["on_event"](Context("0"), events)

    client.act = act
    found = until(stream.read({"0": 0}), bool)
    assert [message.body for message in found] == [b"ab", b"c", b"", b"", b""]


@pytest.mark.parametrize(
    ("start", "position"),
    [(0, "-1"), (7, 6), (NOW, NOW - dt.timedelta(milliseconds=1))],
)
def test_where_it_begins(stream, client, start, position):
    """Behind the message before, since one that is not there yet would be refused."""
    reading = stream.read({"0": start})
    until(reading, lambda _: bool(client.asked))
    assert client.asked["starting_position"] == {"0": position}
    assert client.asked["partition_id"] == "0"


def test_all_partitions_are_read_at_once(stream, client):
    """With one receiver for all; it is open when each has said something."""

    async def act():
        await client.asked["on_event"](Context("0"), [])
        await client.asked["on_event"](Context("1"), [event(1)])

    reading = stream.read({"0": 0, "1": 0})
    assert not stream.opened
    client.act = act
    assert until(reading, bool) == [Message("1", 1, b"x")]
    assert client.asked["partition_id"] is None
    assert stream.opened


def test_trouble_is_known_until_something_comes(stream, client):
    """What the SDK says of an error; it goes on by itself."""
    go_on = threading.Event()

    async def act():
        await client.asked["on_error"](Context("0"), OSError("cut"))
        await asyncio.to_thread(go_on.wait, 20)
        await client.asked["on_event"](Context("0"), [])

    client.act = act
    assert (stream.trouble, stream.opened) == (None, False)
    reading = stream.read({"0": 0})
    until(reading, lambda _: stream.trouble == "OSError: cut" and stream.opened)
    go_on.set()
    until(reading, lambda _: stream.trouble is None)


def test_a_partition_that_says_nothing_cannot_be_opened(stream, monkeypatch):
    """The SDK tries without a word; here it is told."""
    monkeypatch.setattr(hub_stream, "DEAD_SECONDS", 0.1)
    reading = stream.read({"0": 0})
    until(reading, lambda _: stream.trouble is not None)
    assert "partition 0 cannot be opened" in stream.trouble
    assert "consumer group mine" in stream.trouble


def test_an_sdk_that_gives_up_is_an_error(stream, client):
    """The reader gets it after what came before."""

    async def act():
        await client.asked["on_event"](Context("0"), [event(1)])
        raise OSError("no more")

    client.act = act
    reading = stream.read({"0": 0})
    with pytest.raises(
        CommandError, match=r"^eventhub://host\.x/hub: OSError: no more"
    ):
        until(reading, lambda found: len(found) > 1)


def test_no_client_is_an_error(stream):
    """Such as a secret file that is gone meanwhile."""
    stream.sink.client = RetryableSinkError("cannot be read")
    with pytest.raises(CommandError, match="cannot be read"):
        next(stream.read({"0": 0}))


def test_a_slow_reader_holds_the_sdk_up(stream, client):
    """Memory is bounded: so many batches wait, and the end needs no reader."""
    given = []

    async def act():
        for number in range(100):
            await client.asked["on_event"](Context("0"), [event(number)])
            given.append(number)

    client.act = act
    reading = stream.read({"0": 0})
    next(reading)
    deadline = time.monotonic() + 20
    while len(given) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(given) <= 10
    reading.close()
    stream.close()
    assert client.closed


def test_links_are_closed_but_the_rest_of_the_sdk_is_not_awaited(stream, client):
    """It would rest a second where there is nothing left to wait for."""
    rested = []

    async def act():
        context = Context("0")
        await client.asked["on_partition_initialize"](context)
        await client.asked["on_event"](context, [event(1)])
        try:
            await asyncio.sleep(3_600)
        finally:
            await client.asked["on_partition_close"](context, None)
            await asyncio.sleep(3_600)
            rested.append(1)

    client.act = act
    reading = stream.read({"0": 0})
    until(reading, bool)
    reading.close()
    stream.close()
    assert client.closed
    assert not rested
