"""Addresses of links and filters of consumers, as Event Hubs writes them. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# Offsets grow with the events and are not their sequence numbers: who mixes the two up
# shall notice. In the service they are positions in a file.
OFFSET_STEP = 64

CBS = "$cbs"
MANAGEMENT = "$management"

SELECTOR = "apache.org:selector-filter:string"
LATEST = "@latest"

_PRODUCER = re.compile(r"([^/]+)(?:/partitions/([^/]+))?", re.IGNORECASE)
_CONSUMER = re.compile(
    r"([^/]+)/consumergroups/([^/]+)/partitions/([^/]+)", re.IGNORECASE
)
_SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time)"
    r"\s*(>=?)\s*'([^']*)'"
)


@dataclass(frozen=True, slots=True)
class Position:
    """
    Where a consumer begins.

    Attributes:
        sequence_number: The first event it gets, if it is set.
        enqueued_ms: Else the first that was stored then or later.
    """

    sequence_number: int | None = None
    enqueued_ms: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where a link leads.

    Attributes:
        hub: The event hub's name.
        partition: The partition's id; None lets the hub choose.
        group: The consumer group; empty at producers.
    """

    hub: str
    partition: str | None
    group: str = ""


def path_of(address: str | None) -> str:
    """Take the path from an address or from the audience of a token."""
    text = address or ""
    return (urlsplit(text).path if "://" in text else text).strip("/")


def producer_address(address: str | None) -> Address | None:
    """Read the target of a producer: `HUB` or `HUB/Partitions/ID`."""
    found = _PRODUCER.fullmatch(path_of(address))
    return Address(found[1], found[2]) if found else None


def consumer_address(address: str | None) -> Address | None:
    """Read the source of a consumer: `HUB/ConsumerGroups/GROUP/Partitions/ID`."""
    found = _CONSUMER.fullmatch(path_of(address))
    return Address(found[1], found[3], found[2]) if found else None


def position_of(selector: str | None, end: int) -> Position:
    """
    Read where a consumer wants to begin; by default at the oldest event.

    Args:
        selector: The filter, `amqp.annotation.x-opt-offset > '640'` for instance.
        end: The sequence number that the next event will get: where @latest is.

    Raises:
        ValueError: It is no such filter.
    """
    if selector is None:
        return Position(sequence_number=0)
    found = _SELECTOR.fullmatch(selector.strip())
    if found is None:
        raise ValueError(f"this filter is not known: {selector}")
    name, operator, value = found.groups()
    after = 0 if operator == ">=" else 1
    if value == LATEST:
        return Position(sequence_number=end)
    if name == "sequence-number":
        return Position(sequence_number=int(value) + after)
    if name == "offset":
        # -1 is before the first; offsets between two events belong to the earlier.
        return Position(sequence_number=max(0, int(value) // OFFSET_STEP + after))
    return Position(enqueued_ms=int(value) + after)
