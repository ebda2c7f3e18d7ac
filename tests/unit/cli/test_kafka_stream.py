"""librdkafka's consumer as a stream: a double stands for it, and fails as told."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest

from bizlog.cli import kafka_stream
from bizlog.cli.errors import CommandError
from bizlog.cli.kafka_stream import KafkaStream
from bizlog.cli.streams import Message, Span

confluent = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka has no wheel here"
)
KafkaError, KafkaException = confluent.KafkaError, confluent.KafkaException

NOW = dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC)


class Got:
    """One thing that `consume` gave."""

    def __init__(self, partition=0, offset=0, value=b"x", error=None):
        self.partition = lambda: partition
        self.offset = lambda: offset
        self.value = lambda: value
        self.error = lambda: error


class Consumer:
    """
    Stands for librdkafka's.

    Attributes:
        batches: What `consume` gives; an exception is raised.
        assigned: What it was assigned.
        settings: What it was made with.
    """

    def __init__(self):
        self.batches = []
        self.assigned = []
        self.settings = {}
        self.closed = 0
        self.error = None
        self.note = None

    def list_topics(self, topic, _):
        if isinstance(self.error, KafkaException):
            raise self.error
        partitions = {1: None, 0: None}
        found = SimpleNamespace(error=self.error, partitions=partitions)
        return SimpleNamespace(topics={topic: found})

    def get_watermark_offsets(self, place, _):
        return (0, 0) if place.partition else (3, 9)

    def poll(self, _):
        self.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "connection refused"))

    def offsets_for_times(self, places, _):
        return [
            SimpleNamespace(
                partition=place.partition,
                offset=place.offset // 10**9,
                error=self.error,
            )
            for place in places
        ]

    def assign(self, places):
        self.assigned = [(place.partition, place.offset) for place in places]

    def consume(self, _, timeout):
        batch = self.batches.pop(0) if self.batches else []
        if isinstance(batch, Exception):
            raise batch
        return batch

    def close(self):
        self.closed += 1


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def stream(consumer, monkeypatch):
    """Make a stream over the double."""

    class Sink:
        def consumer(self, note, **settings):
            consumer.note, consumer.settings = note, settings
            return consumer, "topic"

    monkeypatch.setattr(kafka_stream, "make_sink", lambda _: Sink())
    return KafkaStream("kafka://host:1/topic?headers=false", "$Default")


def test_partitions_say_what_they_hold(stream, consumer):
    """In their order; the consumer is closed, and commits nothing."""
    assert stream.name == "kafka://host:1/topic"
    assert stream.spans() == [Span("0", 3, 9), Span("1", 0, 0)]
    assert consumer.closed == 1
    assert consumer.settings["enable_auto_commit"] is False


@pytest.mark.parametrize("kind", [KafkaException, lambda error: error])
def test_no_answer_is_an_error_in_one_line(stream, consumer, kind):
    """It names the topic, and says what is known of the brokers."""
    consumer.error = kind(KafkaError(KafkaError._TRANSPORT, "no metadata"))
    with pytest.raises(
        CommandError, match=r"^kafka://host:1/topic: cannot be read: no "
    ):
        stream.spans()
    assert consumer.closed == 1
    consumer.error = KafkaException(KafkaError(KafkaError._TRANSPORT, "no metadata"))
    with pytest.raises(CommandError, match=r"no metadata \(connection refused\)$"):
        stream.spans()


def test_messages_and_ends_as_they_come(stream, consumer):
    """A message without value is empty; the end of a partition is no message."""
    end = KafkaError(KafkaError._PARTITION_EOF)
    consumer.batches = [
        [Got(0, 3), Got(1, 0, None)],
        [],
        [Got(0, 4, error=end)],
    ]
    reading = stream.read({"0": 3, "1": NOW})
    assert next(reading) == [Message("0", 3, b"x"), Message("1", 0, b"")]
    assert next(reading) == []
    assert next(reading) == [Message("0", 4, None)]
    reading.close()
    assert consumer.closed == 1
    assert consumer.assigned == [(0, 3), (1, int(NOW.timestamp() * 1000) // 10**9)]


def test_it_is_open_when_each_partition_has_answered(stream, consumer):
    """With a message or with its end."""
    end = KafkaError(KafkaError._PARTITION_EOF)
    consumer.batches = [[], [Got(0)], [Got(1, error=end)]]
    reading = stream.read({"0": 0, "1": 0})
    opened = [next(reading) is not None and stream.opened for _ in range(3)]
    assert opened == [False, False, True]


def test_trouble_is_known_until_something_comes(stream, consumer):
    """Of brokers, and of a partition that may come again."""
    again = KafkaError(KafkaError._TRANSPORT, "moved", retriable=True)
    consumer.batches = [[Got(error=again)], [], [Got()]]
    reading = stream.read({"0": 0})
    assert next(reading) == []
    assert (stream.trouble, stream.opened) == ("moved", True)
    consumer.poll(0)
    next(reading)
    assert stream.trouble == "connection refused"
    next(reading)
    assert stream.trouble is None


def test_a_time_that_cannot_be_found_is_an_error(stream, consumer):
    """The broker's word for it is told."""
    consumer.error = KafkaError(KafkaError._TIMED_OUT, "no answer")
    with pytest.raises(CommandError, match="cannot be read: no answer"):
        next(stream.read({"0": NOW}))


@pytest.mark.parametrize("raised", [True, False])
def test_a_fault_that_stays_is_an_error(stream, consumer, raised):
    """Such as a topic that was deleted; the consumer is closed."""
    error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic")
    consumer.batches = [KafkaException(error) if raised else [Got(error=error)]]
    with pytest.raises(CommandError, match="cannot be read: no such topic"):
        next(stream.read({"0": 0}))
    assert consumer.closed == 1
    stream.close()
