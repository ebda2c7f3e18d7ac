"""
Events given to librdkafka, and its reports read; on one worker thread at a time.

A report for each event that Python sees costs 1.5 µs of its time, more than producing
the event does. So only reports of failures are seen, which name their event by its
content; an event counts as taken once librdkafka holds no event without a report, and
none of the reports seen was its own. That is exact as long as rounds do not overlap.

An event whose fate is not known within the time limit is purged, and reported as one
to send again. It carries the same event id then; a broker may have stored it already.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import KafkaError, Message, Producer

    from bizlog.sinks import Record
    from bizlog_handlers._headers import Headers

KeyOf: TypeAlias = "Callable[[Record], str | None]"
HeadersOf: TypeAlias = "Callable[[Record], Headers] | None"

# How soon a round sees that it was cancelled.
_SLICE_SECONDS = 0.1
# What purged events get to be reported in.
_PURGE_SECONDS = 0.5

# The time limit is kept here, for all events at once: librdkafka's own would give up
# the older ones first, and those behind them could arrive before they are sent again.
LATER_SECONDS = 3.0

_PURGED = frozenset({-151, -152})

# Errors that a message's content or size causes; a broker says them of all messages
# that came together (https://kafka.apache.org/protocol#protocol_error_codes).
TOO_LARGE = 10
_OF_CONTENT = frozenset({TOO_LARGE, 4, 32, 43, 87})

_FATAL = -150

# Refused by who we are: librdkafka goes on refusing by itself until it next asks for
# metadata, in five minutes. A new producer asks at once.
_STALE = frozenset({29, 31})


class Fault(msgspec.Struct, frozen=True):
    """
    Why one event was not taken.

    Attributes:
        reason: What librdkafka or the broker said.
        final: Whether sending it again cannot help.
    """

    reason: str
    final: bool = False


class Halt:
    """Tells a round to end, from another thread."""

    def __init__(self) -> None:
        self.asked = False


class Courier:
    """
    Brings events to one topic, a round at a time.

    Args:
        new_producer: Makes a producer, at first and after one that cannot go on; gets
            a function that is called with librdkafka's own troubles.
        topic: Where events go.
        key_of: Names an event's key.
        headers_of: Makes an event's headers; None for none at all.
        max_message_bytes: What librdkafka takes as one message.
        seconds: After which an event is given back, to be sent again.
    """

    def __init__(
        self,
        new_producer: Callable[[Callable[[Any], None]], Producer],
        *,
        topic: str,
        key_of: KeyOf,
        headers_of: HeadersOf,
        max_message_bytes: int,
        seconds: float,
    ) -> None:
        from confluent_kafka import KafkaException  # noqa: PLC0415  # an extra

        self._refusal = KafkaException
        self._new_producer = new_producer
        self._topic = topic
        self._key_of = key_of
        self._headers_of = headers_of
        self._max_message_bytes = max_message_bytes
        self._seconds = seconds
        self._producer: Producer | None = None
        self._trouble = ""
        self._is_broken = False
        self._until = 0.0
        self._halt = Halt()

    def open(self) -> Producer:
        """Make the producer, unless there is one; does not wait for brokers."""
        if self._producer is None:
            producer = self._new_producer(self._note_trouble)
            _hold(producer)
            self._producer = producer
        return self._producer

    def close(self) -> None:
        """Part with the producer; what it still holds is lost to it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            self._flush(producer, _PURGE_SECONDS)
            _release(producer)

    def carry(self, records: Sequence[Record], halt: Halt) -> dict[int, Fault]:
        """
        Send events, and wait until the fate of each is known.

        What a broker refuses together is halved until the ones to blame are found.

        Args:
            records: The events.
            halt: Ends the wait, when it is asked for.

        Returns:
            What went wrong, by index; all others were taken.
        """
        self._halt, self._until = halt, time.monotonic() + self._seconds
        faults: dict[int, Fault] = {}
        todo: list[Sequence[int]] = [range(len(records))]
        while todo:
            part = todo.pop()
            self._part_with_broken()
            found = self._send(records, part)
            suspects = [i for i, fault in found.items() if fault.final]
            refused_here = len(part) == 1 or self._is_over()
            if not refused_here and (together := self._together(records, suspects)):
                for index in together:
                    del found[index]
                middle = (len(together) + 1) // 2
                todo += [
                    half for half in (together[middle:], together[:middle]) if half
                ]
            faults |= found
        self._part_with_broken()
        return faults

    def _part_with_broken(self) -> None:
        """Close a producer that cannot go on; another is made when it is needed."""
        if self._is_broken:
            self.close()
            self._is_broken = False

    def _together(self, records: Sequence[Record], suspects: list[int]) -> list[int]:
        """Leave out what librdkafka refused by itself: that is certain."""
        limit = self._max_message_bytes
        return [i for i in suspects if len(records[i].data) <= limit]

    def _is_over(self) -> bool:
        return self._halt.asked or time.monotonic() > self._until

    def _send(self, records: Sequence[Record], part: Sequence[int]) -> dict[int, Fault]:
        reports: list[tuple[KafkaError, bytes]] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                reports.append((error, message.value() or b""))

        faults, produced = self._produce(records, part, note)
        if not self._settle():
            self._is_broken = True
            lost = Fault("no report of librdkafka came in time")
            faults |= dict.fromkeys(produced, lost)
        return self._read(records, produced, reports, faults)

    def _produce(
        self, records: Sequence[Record], part: Sequence[int], note: Any
    ) -> tuple[dict[int, Fault], list[int]]:
        # The path of every event: 2.2 µs with headers and key, measured on one core.
        produce, topic = self.open().produce, self._topic
        key_of, headers_of = self._key_of, self._headers_of
        faults: dict[int, Fault] = {}
        for index in part:
            record = records[index]
            key, headers = key_of(record), headers_of and headers_of(record)
            while True:
                try:
                    produce(topic, record.data, key, -1, note, None, 0, headers)
                except BufferError:
                    if self._wait_for_room():
                        continue
                    faults[index] = Fault("librdkafka's queue was full all the time")
                except self._refusal as error:
                    faults[index] = self._judge(error.args[0], record)
                break
        return faults, [index for index in part if index not in faults]

    def _wait_for_room(self) -> bool:
        if self._is_over():
            return False
        try:
            self.open().poll(_SLICE_SECONDS)
        except self._refusal as error:  # fatal
            self._note_trouble(error.args[0])
        return True

    def _settle(self) -> bool:
        """Wait for all reports; past the time, purge what has none yet."""
        producer = self.open()
        while self._flush(producer, _SLICE_SECONDS):
            if self._is_over():
                producer.purge()
                self._is_broken = True  # it may miss numbers that a broker waits for
                return not self._flush(producer, _PURGE_SECONDS)
        return True

    def _flush(self, producer: Producer, seconds: float) -> int:
        """Serve reports; say how many are missing."""
        try:
            return producer.flush(seconds)
        except self._refusal as error:  # fatal, or raised by a callback
            self._note_trouble(error.args[0])
            return len(producer)

    def _read(
        self,
        records: Sequence[Record],
        produced: Sequence[int],
        reports: Sequence[tuple[KafkaError, bytes]],
        faults: dict[int, Fault],
    ) -> dict[int, Fault]:
        if not reports:
            return faults
        by_content: dict[bytes, list[int]] = {}
        for index in produced:
            by_content.setdefault(records[index].data, []).append(index)
        for error, content in reports:
            index = by_content[content].pop()
            faults[index] = self._judge(error, records[index])
        return faults

    def _judge(self, error: KafkaError, record: Record) -> Fault:
        code = error.code()
        if error.fatal() or code == _FATAL or code in _STALE:
            self._is_broken = True
        if code == TOO_LARGE:
            return Fault(self._tell_size(len(record.data)), final=True)
        reason = f"{error.name()}: {error.str()}"
        if code in _PURGED:
            reason = "no broker took it in time"
        if code < 0 and self._trouble:
            reason = f"{reason} ({self._trouble})"
        return Fault(reason, final=code in _OF_CONTENT)

    def _tell_size(self, size: int) -> str:
        limit = self._max_message_bytes
        if size <= limit:
            return f"MSG_SIZE_TOO_LARGE: {size} bytes, more than the broker takes"
        return f"MSG_SIZE_TOO_LARGE: {size} bytes, the limit is {limit}"

    def _note_trouble(self, error: Any) -> None:
        self._trouble = error.str()
        if error.fatal():
            self._is_broken = True


def _hold(producer: Producer) -> None:
    """
    Keep a producer from being deleted when its last name goes.

    Deleting one joins its threads, and waits without end where these do not exist: in a
    forked child, when it exits.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(producer))


def _release(producer: Producer) -> None:
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(producer))
