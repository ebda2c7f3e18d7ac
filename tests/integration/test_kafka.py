"""Events through the whole of bizlog into brokers that speak Kafka, and back out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from bizlog import BusinessTelemetryClient
from bizlog.exceptions import RetryableSinkError
from bizlog.sinks import Batch, Record
from bizlog_handlers.kafka import KafkaSink

pytest.importorskip("confluent_kafka", reason="confluent-kafka has no wheel here")

ROOT = Path(__file__).parents[2]

REQUEST_TIMED_OUT, MSG_SIZE_TOO_LARGE = 7, 10
TOPIC_AUTHORIZATION_FAILED, THROTTLING_QUOTA_EXCEEDED = 29, 89
INVALID_RECORD, UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_EPOCH = 87, 59, 47


@pytest.fixture
def make_client(tmp_path):
    """Make clients; all are shut down."""
    made = []

    def make(sink, **options):
        given = {
            "source": "test",
            "dead_letters": str(tmp_path / "dead"),
            "flush_interval": 0.05,
            "shutdown_timeout": 5.0,
        }
        client = BusinessTelemetryClient(sinks=[sink], **given | options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown_sync()


@pytest.fixture
def letters(tmp_path):
    """Read all dead letters."""
    return lambda: [
        json.loads(line)
        for path in sorted((tmp_path / "dead").glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def a_batch(count, size=100, first=0):
    """Make records as the engine would, each of about so many bytes."""
    records = []
    for number in range(first, first + count):
        event = {
            "event_id": f"id-{number}",
            "event_type": "order.placed",
            "session_id": f"s-{number % 7}",
            "pad": "x" * size,
        }
        data = json.dumps(event, separators=(",", ":")).encode()
        record = Record(data, f"id-{number}", "order.placed", "2026-11-23", number)
        records.append(record)
    return Batch("journal", 1, max(count, 1), records)


def ids_of(messages):
    """Name messages by the event id in their value."""
    return [json.loads(message.value())["event_id"] for message in messages]


async def deliver(sink, *batches):
    """Start a sink, deliver batches one after the other, and stop it."""
    await sink.start()
    try:
        return [await sink.deliver(batch) for batch in batches]
    finally:
        await sink.stop()


# A real broker


def test_events_of_one_key_arrive_once_and_in_order(kafka, make_client):
    """5,000 events of 50 sessions: each id once, one partition a session, in order."""
    topic = kafka.new_topic()
    client = make_client(KafkaSink(kafka.servers, topic))
    for number in range(5_000):
        client.send_sync(
            "order.placed", session_id=f"s-{number % 50}", order_id=f"{number}"
        )
    assert client.flush_sync(20)
    messages = kafka.read(topic, 5_000)
    assert len(set(ids_of(messages))) == len(messages) == 5_000
    orders, partitions = defaultdict(list), defaultdict(set)
    for message in messages:
        orders[message.key()].append(int(json.loads(message.value())["order_id"]))
        partitions[message.key()].add(message.partition())
    assert len(orders) == 50
    assert all(order == sorted(order) for order in orders.values())
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1
    assert client.ledger().closed


def test_headers_say_what_an_event_is(kafka, make_client):
    """Type, version and id stand in the headers; CloudEvents' stand beside them."""
    topic = kafka.new_topic(1)
    client = make_client(KafkaSink(kafka.servers, topic, cloudevents=True))
    client.send_sync("order.placed", session_id="s-1", order_id="1")
    assert client.flush_sync(20)
    (message,) = kafka.read(topic, 1)
    event = json.loads(message.value())
    assert message.key() == b"s-1"
    assert dict(message.headers()) == {
        "event_type": b"order.placed",
        "event_id": event["event_id"].encode(),
        "schema_version": b"%d" % event["schema_version"],
        "ce_specversion": b"1.0",
        "ce_id": event["event_id"].encode(),
        "ce_type": b"order.placed",
        "ce_source": b"test",
        "ce_time": event["event_time"].encode(),
        "content-type": b"application/json",
    }


def test_every_compression_is_read_back(kafka):
    """What is written with each compression comes back as it was."""
    topic = kafka.new_topic()

    async def main():
        calls = []
        for number, compression in enumerate(("lz4", "zstd", "gzip", "none")):
            sink = KafkaSink(
                kafka.servers, topic, compression=compression, headers=False
            )
            calls.append(deliver(sink, a_batch(50, first=50 * number)))
        await asyncio.gather(*calls)

    asyncio.run(main())
    messages = kafka.read(topic, 200)
    assert sorted(ids_of(messages)) == sorted(f"id-{n}" for n in range(200))
    assert all(message.headers() is None for message in messages)


def test_an_event_that_is_too_large_is_a_dead_letter(kafka, make_client, letters):
    """It is named with its size and the limit; its siblings arrive."""
    topic = kafka.new_topic()
    client = make_client(KafkaSink(kafka.servers, topic, max_message_bytes=10_000))
    for number in range(20):
        client.send_sync("order.placed", note="x" * (20_000 if number == 7 else 10))
    assert client.flush_sync(20)
    (letter,) = letters()
    assert "MSG_SIZE_TOO_LARGE" in letter["reason"]
    assert "the limit is 10000" in letter["reason"]
    assert len(set(ids_of(kafka.read(topic, 19)))) == 19
    assert client.ledger().closed


def test_a_queue_of_ten_messages_holds_nobody_up(kafka):
    """A queue of librdkafka's that is full is waited for, and never shows."""
    topic = kafka.new_topic()
    sink = KafkaSink(kafka.servers, topic, options={"queue.buffering.max.messages": 10})
    (answer,) = asyncio.run(deliver(sink, a_batch(300)))
    assert not answer.rejected
    assert not answer.retry
    assert len(set(ids_of(kafka.read(topic, 300)))) == 300


def test_a_broker_that_is_down_for_a_while_loses_nothing(own_kafka, make_client):
    """Events of that while arrive once it is back; no id is missing."""
    topic = own_kafka.new_topic()
    sink = KafkaSink(
        own_kafka.servers,
        topic,
        delivery_timeout=1.0,
        options={"reconnect.backoff.max.ms": 200},
    )
    client = make_client(sink)
    client.send_sync("order.placed", order_id="before")
    assert client.flush_sync(20)
    own_kafka.stop()
    for number in range(100):
        client.send_sync("order.placed", order_id=f"{number}")
    assert not client.flush_sync(1.5)
    own_kafka.start()
    assert client.flush_sync(40)
    orders = {json.loads(m.value())["order_id"] for m in own_kafka.read(topic, 101)}
    assert orders == {"before", *map(str, range(100))}
    assert client.ledger().closed


def test_calls_that_overlap_keep_their_order(kafka):
    """Of several calls at the same time each gets its turn, first come first served."""
    topic = kafka.new_topic(1)

    async def main():
        sink = KafkaSink(kafka.servers, topic)
        await sink.start()
        batches = [a_batch(50, first=50 * number) for number in range(6)]
        answers = await asyncio.gather(*map(sink.deliver, batches))
        await sink.stop()
        return answers

    assert not any(answer.retry for answer in asyncio.run(main()))
    assert ids_of(kafka.read(topic, 300)) == [f"id-{n}" for n in range(300)]


FORK = """
import os, sys, bizlog
from bizlog_handlers.kafka import KafkaSink
bizlog.configure(source="x", sinks=[KafkaSink({servers!r}, {topic!r})])
log = bizlog.get_logger()
log.info("order.placed", order_id="before")
assert bizlog.flush(20)
children = []
for emits in (True, False):
    child = os.fork()
    if not child:
        if emits:
            log.info("order.placed", order_id="child")
        sys.exit(0)
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
log.info("order.placed", order_id="after")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_sends_for_itself_and_ends(kafka, tmp_path):
    """A child that emits and one that does not end well, as does their parent."""
    topic = kafka.new_topic(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",  # 3.12 warns of a fork beside threads
            "-c",
            FORK.format(servers=kafka.servers, topic=topic),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    orders = [json.loads(m.value())["order_id"] for m in kafka.read(topic, 3)]
    assert orders == ["before", "child", "after"]


# Faults, by librdkafka's mock


def test_what_may_pass_is_sent_again_by_librdkafka(mock_kafka, read_kafka):
    """A request that timed out at the broker costs nothing and stores nothing twice."""
    topic = mock_kafka.new_topic()
    mock_kafka.fail_produce(REQUEST_TIMED_OUT)
    sink = KafkaSink(mock_kafka.servers, topic)
    (answer,) = asyncio.run(deliver(sink, a_batch(50)))
    assert not answer.rejected + answer.retry
    assert sorted(ids_of(read_kafka(mock_kafka.servers, topic, 50))) == sorted(
        f"id-{n}" for n in range(50)
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (TOPIC_AUTHORIZATION_FAILED, "TOPIC_AUTHORIZATION_FAILED"),
        (THROTTLING_QUOTA_EXCEEDED, "THROTTLING_QUOTA_EXCEEDED"),
    ],
)
def test_what_an_operator_can_mend_is_sent_again(mock_kafka, code, said):
    """Where nothing was taken the whole batch may come again, with the reason."""
    mock_kafka.fail_produce(code)

    async def main():
        sink = KafkaSink(mock_kafka.servers, mock_kafka.new_topic(1))
        await sink.start()
        with pytest.raises(RetryableSinkError, match=said):
            await sink.deliver(a_batch(5))
        answer = await sink.deliver(a_batch(5))
        await sink.stop()
        return answer

    assert not asyncio.run(main()).retry


@pytest.mark.parametrize("code", [MSG_SIZE_TOO_LARGE, INVALID_RECORD])
def test_what_a_broker_refuses_together_is_halved(mock_kafka, read_kafka, code):
    """Five refusals along the halves leave one event of 16 to blame; others arrive."""
    topic = mock_kafka.new_topic(1)
    mock_kafka.fail_produce(*[code] * 5)
    sink = KafkaSink(mock_kafka.servers, topic)
    (answer,) = asyncio.run(deliver(sink, a_batch(16)))
    assert [each.index for each in answer.rejected] == [0]
    assert not answer.retry
    found = ids_of(read_kafka(mock_kafka.servers, topic, 15))
    assert sorted(found) == sorted(f"id-{n}" for n in range(1, 16))


@pytest.mark.parametrize(
    "code", [THROTTLING_QUOTA_EXCEEDED, TOPIC_AUTHORIZATION_FAILED]
)
def test_nothing_overtakes_what_is_sent_again(
    mock_kafka, read_kafka, make_client, code
):
    """A request fails and others wait behind it: the events of a key stay in order."""
    topic = mock_kafka.new_topic(1)
    small = {
        "batch.num.messages": 10,
        # The mock takes what is under way behind a failed request; a broker does not.
        "max.in.flight.requests.per.connection": 1,
    }
    client = make_client(KafkaSink(mock_kafka.servers, topic, options=small))
    mock_kafka.fail_produce(code)
    for number in range(200):
        client.send_sync("order.placed", session_id="s", order_id=f"{number}")
    assert client.flush_sync(30)
    messages = read_kafka(mock_kafka.servers, topic, 200)
    orders = [int(json.loads(message.value())["order_id"]) for message in messages]
    assert orders == [*range(200)]


def test_a_producer_that_cannot_go_on_is_made_anew(mock_kafka, read_kafka):
    """After a fatal error of idempotence the next call works, with a new producer."""
    topic = mock_kafka.new_topic(1)

    async def main():
        sink = KafkaSink(mock_kafka.servers, topic)
        await sink.start()
        assert (await sink.deliver(a_batch(1))) is not None
        mock_kafka.fail_produce(TOPIC_AUTHORIZATION_FAILED)
        with pytest.raises(RetryableSinkError):
            await sink.deliver(a_batch(5, first=1))
        answer = await sink.deliver(a_batch(5, first=1))
        await sink.stop()
        return answer

    assert not asyncio.run(main()).retry
    found = ids_of(read_kafka(mock_kafka.servers, topic, 6))
    assert set(found) == {f"id-{n}" for n in range(6)}


def test_a_broker_that_goes_down_and_up_within_a_call(mock_kafka, read_kafka):
    """The call waits, and all events arrive."""
    topic = mock_kafka.new_topic()

    async def main():
        sink = KafkaSink(
            mock_kafka.servers, topic, options={"reconnect.backoff.max.ms": 100}
        )
        await sink.start()
        await sink.deliver(a_batch(10))
        mock_kafka.set_down()
        call = asyncio.create_task(sink.deliver(a_batch(50, first=10)))
        await asyncio.sleep(0.3)
        assert not call.done()
        mock_kafka.set_up()
        answer = await call
        await sink.stop()
        return answer

    assert not asyncio.run(main()).retry
    assert len(set(ids_of(read_kafka(mock_kafka.servers, topic, 60)))) == 60


def test_events_that_no_broker_takes_come_back_in_time(mock_kafka, caplog, capfd):
    """After `delivery_timeout` they are to be sent again; the reason names the broker, and no log does."""
    mock_kafka.set_down()
    began = time.monotonic()
    sink = KafkaSink(mock_kafka.servers, "events", delivery_timeout=1.0)
    with pytest.raises(RetryableSinkError, match="no broker took it") as found:
        asyncio.run(deliver(sink, a_batch(5)))
    assert "127.0.0.1" in str(found.value)
    assert time.monotonic() - began < 10
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_call_that_is_cancelled_leaves_nothing_behind(mock_kafka, read_kafka):
    """What it had given to librdkafka is purged; the next call is not mixed with it."""
    topic = mock_kafka.new_topic(1)

    async def main():
        sink = KafkaSink(mock_kafka.servers, topic)
        await sink.start()
        await sink.deliver(a_batch(1))
        mock_kafka.set_down()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.deliver(a_batch(5, first=100)), 0.3)
        # It purges within a moment; a broker that came back before would be sent them.
        await asyncio.wait((sink._working,))
        mock_kafka.set_up()
        answer = await sink.deliver(a_batch(5, first=1))
        await sink.stop()
        return answer

    assert not asyncio.run(main()).retry
    found = ids_of(read_kafka(mock_kafka.servers, topic, 6))
    assert found == [f"id-{n}" for n in range(6)]


def threads():
    """Name all threads of this process, librdkafka's among them."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="only Linux tells of native threads"
)
def test_no_thread_of_librdkafka_stays(kafka):
    """What a sink's start began has ended soon after its stop."""
    asyncio.run(deliver(KafkaSink(kafka.servers, kafka.new_topic()), a_batch(1)))

    async def main():
        before = threads()
        sink = KafkaSink(kafka.servers, kafka.new_topic())
        await sink.start()
        await sink.deliver(a_batch(1))
        grown = threads() - before
        assert len(grown) > 1
        await sink.stop()
        until = time.monotonic() + 20
        pool = {str(thread.native_id) for thread in threading.enumerate()}
        while threads() - before - pool and time.monotonic() < until:  # noqa: ASYNC110  # nobody tells of their end
            await asyncio.sleep(0.01)
        assert not threads() - before - pool

    asyncio.run(main())


def test_stop_does_not_wait_for_brokers(mock_kafka):
    """A call under way ends at once, as one to be sent again, and no thread stays."""
    before = threading.active_count()

    async def main():
        sink = KafkaSink(mock_kafka.servers, mock_kafka.new_topic())
        await sink.start()
        mock_kafka.set_down()
        call = asyncio.create_task(sink.deliver(a_batch(5)))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await sink.stop()
        assert time.monotonic() - began < 5
        with pytest.raises(RetryableSinkError):
            await call
        with pytest.raises(RetryableSinkError, match="not started"):
            await sink.deliver(a_batch(1))

    asyncio.run(main())
    assert threading.active_count() == before
