"""Rounds of events against a producer that fails as told."""

from __future__ import annotations

import pytest

from bizlog_handlers._reports import Courier, Halt

confluent_kafka = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka has no wheel here"
)
KafkaError = confluent_kafka.KafkaError
KafkaException = confluent_kafka.KafkaException


class Producer:
    """
    Takes so many messages at a time, and reports when it is flushed.

    Args:
        room: Messages that it holds at most.
        failing: Error codes of messages, by value; a code stays.
        silent: Whether it never reports.
        fatal: How many flushes raise a fatal error first.
    """

    def __init__(self, room=100, failing=None, *, silent=False, fatal=0):
        self.room = room
        self.failing = failing or {}
        self.silent = silent
        self.fatal = fatal
        self.held, self.taken, self.purges = [], [], 0

    def __len__(self):
        return len(self.held)

    def produce(self, topic, value, key, partition, note, none, stamp, headers):
        if len(self.held) >= self.room:
            raise BufferError
        self.held.append((value, note))

    def poll(self, seconds):
        return self.flush(seconds)

    def flush(self, seconds):
        if self.fatal:
            self.fatal -= 1
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", True))
        if not self.silent:
            held, self.held = self.held, []
            for value, note in held:
                self._report(value, note)
        return len(self.held)

    def _report(self, value, note):
        if (code := self.failing.get(value)) is None:
            self.taken.append(value)
            note(None, None)
        else:
            note(KafkaError(code), Message(value))

    def purge(self):
        self.purges += 1


class Message:
    def __init__(self, value):
        self._value = value

    def value(self):
        return self._value


@pytest.fixture
def make_courier():
    """Make a courier of some producers, one after the other."""

    def make(*producers, seconds=8.0):
        left = list(producers)
        return Courier(
            lambda note_trouble: left.pop(0),
            topic="events",
            key_of=lambda record: None,
            headers_of=None,
            max_message_bytes=1_000_000,
            seconds=seconds,
        )

    return make


def test_reports_are_matched_by_content(make_courier, make_batch):
    """A failure names the event that it belongs to, also among events alike."""
    records = make_batch("a", "b", "c").records
    records = [*records, records[1]]
    producer = Producer(failing={records[1].data: KafkaError.REQUEST_TIMED_OUT})
    faults = make_courier(producer).carry(records, Halt())
    assert sorted(faults) == [1, 3]
    assert not any(fault.final for fault in faults.values())


def test_one_bad_event_is_found_among_its_siblings(make_courier, make_batch):
    """A code that comes with content is final for an event that was sent alone."""
    records = make_batch(*"abcdefgh").records
    producer = Producer(failing={records[5].data: KafkaError.INVALID_RECORD})
    faults = make_courier(producer).carry(records, Halt())
    assert [(index, fault.final) for index, fault in faults.items()] == [(5, True)]
    assert len(producer.taken) == 7


def test_a_full_queue_is_waited_for(make_courier, make_batch):
    """Messages that find no room come again until they do."""
    records = make_batch(*"abcdefgh").records
    producer = Producer(room=3)
    assert make_courier(producer).carry(records, Halt()) == {}
    assert producer.taken == [record.data for record in records]


def test_a_queue_that_stays_full_gives_events_back(make_courier, make_batch):
    """Past the time, or when asked to halt, the rest is to be sent again."""
    records = make_batch("a", "b").records
    halt = Halt()
    halt.asked = True
    faults = make_courier(Producer(room=0)).carry(records, halt)
    assert {fault.reason for fault in faults.values()} == {
        "librdkafka's queue was full all the time"
    }


def test_events_without_a_report_are_given_back(make_courier, make_batch):
    """They are purged, and the producer that owes reports is replaced."""
    records = make_batch("a", "b").records
    silent, next_one = Producer(silent=True), Producer()
    courier = make_courier(silent, next_one, seconds=-1.0)
    faults = courier.carry(records, Halt())
    assert [fault.final for fault in faults.values()] == [False, False]
    assert silent.purges
    courier.carry(records, Halt())
    assert len(next_one.taken) == 2


@pytest.mark.parametrize("room", [0, 100])
def test_a_fatal_error_makes_a_new_producer(make_courier, make_batch, room):
    """It is raised where reports are served, which loses none of them."""
    records = make_batch("a").records
    broken, next_one = Producer(fatal=1), Producer()
    broken.room = 1
    courier = make_courier(broken, next_one)
    if room == 0:
        records = [*records, *make_batch("b").records]  # met while waiting for room
    assert courier.carry(records, Halt()) == {}
    assert len(broken.taken) == len(records)
    assert courier.carry(records, Halt()) == {}
    assert len(next_one.taken) == len(records)


def test_closing_twice_is_closing(make_courier):
    """A courier that has no producer has nothing to close."""
    producer = Producer()
    courier = make_courier(producer)
    courier.open()
    courier.close()
    courier.close()
    assert producer.purges == 1
