"""
A Kafka topic, read by assignment of all partitions: no group, nothing committed.

librdkafka connects anew by itself, on threads of its own; what it says of brokers is
the stream's trouble until something comes again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from bizlog.cli.errors import CommandError
from bizlog.cli.streams import TICK_SECONDS, Message, Span, name_of
from bizlog.sinks import make_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from confluent_kafka import Consumer, TopicPartition

    from bizlog.cli.streams import Start

ASK_SECONDS = 10.0

_BATCH_MESSAGES = 3_000

_SETTINGS: dict[str, Any] = {
    "group_id": "bizlog",  # librdkafka wants one; it is never joined
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "enable_partition_eof": True,
}


class _Topic(Protocol):
    """What is used of the sink for Kafka, beside what every sink has."""

    def consumer(
        self, note_trouble: Callable[[Any], None], **settings: Any
    ) -> tuple[Consumer, str]: ...


class KafkaStream:
    """
    One topic.

    Args:
        url: Of its sink.
        group: Not used: Kafka is read without one.

    Attributes:
        name: Its URL, without options.
        trouble: Why nothing may come now, as far as is known, or None.

    Raises:
        ConfigurationError: An option cannot work.
        MissingExtraError: confluent-kafka is not installed.
    """

    def __init__(self, url: str, group: str) -> None:  # noqa: ARG002  # as other streams
        self.name = name_of(url)
        self.trouble: str | None = None
        self._sink = cast("_Topic", make_sink(url))
        self._unheard: set[str] = set()

    @property
    def opened(self) -> bool:
        """Whether all partitions that are read have answered, or one is in trouble."""
        return not self._unheard or self.trouble is not None

    def _note(self, trouble: Any) -> None:
        self.trouble = trouble.str()

    def spans(self) -> list[Span]:
        """
        Ask what each partition holds.

        Raises:
            CommandError: There is no answer, or it is a fault.
        """
        consumer, topic = self._sink.consumer(self._note, **_SETTINGS)
        try:
            return self._ask(consumer, topic)
        finally:
            consumer.close()

    def _ask(self, consumer: Consumer, topic: str) -> list[Span]:
        from confluent_kafka import (  # noqa: PLC0415  # an extra
            KafkaException,
            TopicPartition,
        )

        try:
            found = consumer.list_topics(topic, ASK_SECONDS).topics[topic]
            if found.error is not None:
                raise self._failure(found.error)
            spans: list[Span] = []
            for partition in sorted(found.partitions):
                place = TopicPartition(topic, partition)
                low, high = consumer.get_watermark_offsets(place, ASK_SECONDS)
                spans.append(Span(str(partition), max(0, low), high))
        except KafkaException as error:
            consumer.poll(0)  # has the trouble told
            raise self._failure(error.args[0]) from None
        return spans

    def _failure(self, error: Any) -> CommandError:
        reason = error.str()
        if self.trouble and self.trouble not in reason:
            reason = f"{reason} ({self.trouble})"
        return CommandError(f"{self.name}: cannot be read: {reason}")

    def read(self, starts: Mapping[str, Start]) -> Generator[list[Message]]:
        """
        Read partitions without end, each in its order; close it to end.

        Args:
            starts: Where to begin, by partition; the others are left out.

        Yields:
            What came; an empty list after each tick without anything.

        Raises:
            CommandError: It cannot go on.
        """
        from confluent_kafka import KafkaException  # noqa: PLC0415  # an extra

        consumer, topic = self._sink.consumer(self._note, **_SETTINGS)
        try:
            self._unheard = set(starts)
            consumer.assign(_places(consumer, topic, starts))
            while True:
                got = consumer.consume(_BATCH_MESSAGES, TICK_SECONDS)
                yield [each for each in map(self._message, got) if each is not None]
        except KafkaException as error:
            raise self._failure(error.args[0]) from None
        finally:
            consumer.close()

    def _message(self, got: Any) -> Message | None:
        from confluent_kafka import KafkaError, KafkaException  # noqa: PLC0415  # an extra

        error, partition = got.error(), str(got.partition())
        at_end = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001  # its public name
        if error is not None and not at_end:
            if not error.retriable():
                raise KafkaException(error)
            self._note(error)
            return None
        self.trouble = None
        self._unheard.discard(partition)
        body = None if at_end else got.value() or b""
        return Message(partition, got.offset(), body)

    def close(self) -> None:
        """Do nothing: each reader closes its own connections."""


def _places(
    consumer: Consumer, topic: str, starts: Mapping[str, Start]
) -> list[TopicPartition]:
    from confluent_kafka import (  # noqa: PLC0415  # an extra
        KafkaException,
        TopicPartition,
    )

    numbered = [
        TopicPartition(topic, int(partition), start)
        for partition, start in starts.items()
        if isinstance(start, int)
    ]
    timed = [
        TopicPartition(topic, int(partition), int(start.timestamp() * 1000))
        for partition, start in starts.items()
        if not isinstance(start, int)
    ]
    # A time behind the last message gives the end.
    found = consumer.offsets_for_times(timed, ASK_SECONDS) if timed else []
    for place in found:
        if place.error is not None:
            raise KafkaException(place.error)
    return [*numbered, *found]
