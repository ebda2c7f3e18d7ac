"""
What can be read of a hub or topic: messages by partition, each with its number.

`eventhub://NAMESPACE/HUB` and `kafka://HOST:PORT/TOPIC` are the URLs of the sinks, with
their options: those of the connection count here, too. Nothing is committed and nobody
else is disturbed by the reading. What the packages of the two services do stands in
`hub_stream` and `kafka_stream`; here is what both have in common, without I/O.
"""

from __future__ import annotations

import datetime as dt
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast

from bizlog.cli.entries import BadLine, Place, read_entry
from bizlog.cli.errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Iterator, Mapping

    from bizlog.cli.entries import Entry

Start: TypeAlias = int | dt.datetime
"""Where to begin: at the message of a number, or with what arrived from a time on."""

# How often a reader that gets nothing looks about itself.
TICK_SECONDS = 0.2

DEFAULT_GROUP = "$Default"

# A position is the number of a message and a line in it; the last line has the position
# of the whole message. A line that is an event has more than 60 bytes, and no message
# holds so many of them.
LINES_IN_MESSAGE = 1 << 20

_KINDS = {
    "eventhub": ("hub_stream", "HubStream"),
    "kafka": ("kafka_stream", "KafkaStream"),
}


class Span(NamedTuple):
    """
    What a partition holds.

    Attributes:
        partition: Its id.
        first: Number of the oldest message.
        end: Number that the next message will get.
        last_at: When the last message arrived, where the service says so.
    """

    partition: str
    first: int
    end: int
    last_at: dt.datetime | None = None


class Message(NamedTuple):
    """
    One message.

    Attributes:
        partition: Where it stands.
        number: Its number there: the sequence number of Event Hubs, Kafka's offset.
        body: Its bytes; None says that there is nothing more before this number.
    """

    partition: str
    number: int
    body: bytes | None


class Stream(Protocol):
    """
    A hub or topic.

    Attributes:
        name: Its URL, without options.
    """

    name: str

    @property
    def trouble(self) -> str | None:
        """Why nothing may come now, as far as is known, or None."""
        ...

    @property
    def opened(self) -> bool:
        """Whether all partitions that are read have answered, or one is in trouble."""
        ...

    def spans(self) -> list[Span]:
        """
        Ask what each partition holds.

        Raises:
            CommandError: There is no answer, or it is a fault.
        """
        ...

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
        ...

    def close(self) -> None:
        """Wait until all connections are closed."""
        ...


class MessagePlace(Place):
    """Where an event of a message stands; `line` is its position in the partition."""

    __slots__ = ()

    @property
    def number(self) -> int:
        """Number of the message."""
        return (self.line - 1) // LINES_IN_MESSAGE

    def __str__(self) -> str:
        line = self.line % LINES_IN_MESSAGE
        return f"{self.path}@{self.number}{f' line {line}' if line else ''}"


def is_stream(word: str) -> bool:
    """Whether a word of a command line is the URL of a hub or topic."""
    return word.partition(":")[0] in _KINDS and ":" in word


def open_stream(url: str, group: str | None = None) -> Stream:
    """
    Make the stream of a URL; it connects when it is used.

    Args:
        url: Such as `eventhub://NAMESPACE/HUB`.
        group: Consumer group of Event Hubs; None takes the default one.

    Raises:
        CommandError: The URL is of no stream, or has no groups.
        ConfigurationError: An option cannot work.
        MissingExtraError: The service's packages are not installed.
    """
    if not is_stream(url):
        raise CommandError(
            f"{url}: expected eventhub://NAMESPACE/HUB or kafka://HOST:PORT/TOPIC"
        )
    if group is not None and url.startswith("kafka:"):
        raise CommandError("--group is for Event Hubs: Kafka is read without a group")
    module, kind = _KINDS[url.partition(":")[0]]
    make = cast(
        "Callable[[str, str], Stream]",
        getattr(import_module(f"bizlog.cli.{module}"), kind),
    )
    return make(url, group or DEFAULT_GROUP)


def name_of(url: str) -> str:
    """Take the options off a URL."""
    return url.partition("?")[0].rstrip("/")


def add_group(parser: argparse.ArgumentParser) -> None:
    """Add the option for the consumer group to a command's."""
    parser.add_argument(
        "--group",
        metavar="NAME",
        help=f"consumer group of the event hub (default: {DEFAULT_GROUP})",
    )


def entries_of(path: str, message: Message) -> Iterator[Entry]:
    """
    Say what a message holds: events, one a line, dead letters, or nothing of these.

    Args:
        path: Name of the partition.
        message: The message. One without any event is one bad line.
    """
    first = message.number * LINES_IN_MESSAGE
    whole = MessagePlace(path, first + LINES_IN_MESSAGE)
    lines = (message.body or b"").rstrip().splitlines()
    entries = [
        read_entry(line, MessagePlace(path, first + at) if at < len(lines) else whole)
        for at, line in enumerate(lines, 1)
        if line.strip()
    ]
    bad = [entry for entry in entries if isinstance(entry, BadLine)]
    if len(bad) < len(entries):
        yield from entries
    else:
        reason = bad[0].reason if bad else "the message is empty"
        yield BadLine(whole, reason)


def as_text(error: Any) -> str:
    """Write what a service's package raised on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said:.300}" if said else type(error).__name__
