"""Which role a new link gets, by its direction, its address and its token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from bizlog.dev.eventhubs.addresses import (
    CBS,
    MANAGEMENT,
    SELECTOR,
    consumer_address,
    path_of,
    position_of,
    producer_address,
)
from bizlog.dev.eventhubs.epochs import displaced
from bizlog.dev.eventhubs.faults import LINK_STOLEN, NOT_FOUND, UNAUTHORIZED
from bizlog.dev.eventhubs.links import MAX_MESSAGE_BYTES, ConsumerLink, ProducerLink
from bizlog.dev.eventhubs.requests import ManagementLink, ReplyLink, TokenLink

if TYPE_CHECKING:
    from proton import Link

    from bizlog.dev.eventhubs.addresses import Address
    from bizlog.dev.eventhubs.connection import ClientConnection
    from bizlog.dev.eventhubs.links import Role

EPOCH = "com.microsoft:epoch"
INVALID_FIELD = "amqp:invalid-field"

_REQUESTS: dict[str, type[Role]] = {CBS: TokenLink, MANAGEMENT: ManagementLink}


class RefusedError(Exception):
    """A link that is detached at once, with an AMQP condition."""

    def __init__(self, condition: str, text: str) -> None:
        self.condition = condition
        super().__init__(text)


def role_for(link: Link, connection: ClientConnection) -> Role | None:
    """Attach a link, and refuse it if it leads nowhere; None then."""
    link.source.copy(link.remote_source)
    link.target.copy(link.remote_target)
    link.max_message_size = MAX_MESSAGE_BYTES
    link.snd_settle_mode = link.remote_snd_settle_mode
    link.rcv_settle_mode = link.remote_rcv_settle_mode
    link.open()
    try:
        return _role(link, connection)
    except RefusedError as refusal:
        info = {"link": link.name}
        connection.detach(link, refusal.condition, str(refusal), info)
        return None


def _role(link: Link, connection: ClientConnection) -> Role:
    remote = link.remote_source if link.is_sender else link.remote_target
    node = path_of(remote.address)
    request = _REQUESTS.get(node.lower().rpartition("/")[2])
    if request is not None:
        return (ReplyLink if link.is_sender else request)(link, connection)
    if link.is_sender:
        return _consumer(link, connection, node)
    return _producer(link, connection, node)


def _producer(link: Any, connection: ClientConnection, node: str) -> Role:
    address = producer_address(node)
    hub = connection.service.broker.hub(address.hub) if address else None
    if address is None or hub is None:
        raise RefusedError(NOT_FOUND, f"{node} could not be found")
    _need_token(connection, address)
    partition = hub.partition(address.partition) if address.partition else None
    if address.partition and partition is None:
        raise RefusedError(NOT_FOUND, f"{node} could not be found")
    return ProducerLink(link, connection, hub, partition)


def _consumer(link: Any, connection: ClientConnection, node: str) -> Role:
    address = consumer_address(node)
    hub = connection.service.broker.hub(address.hub) if address else None
    partition = hub.partition(address.partition or "") if hub and address else None
    if address is None or hub is None or partition is None:
        raise RefusedError(NOT_FOUND, f"{node} could not be found")
    _need_token(connection, address)
    try:
        position = position_of(_selector(link), partition.end)
    except ValueError as error:
        raise RefusedError(INVALID_FIELD, str(error)) from None
    consumer = ConsumerLink(
        link, connection, hub.name, partition, partition.locate(position), _epoch(link)
    )
    _take_over(consumer, connection, f"{hub.name}/{address.group}/{partition.id}")
    return consumer


def _take_over(consumer: ConsumerLink, connection: ClientConnection, what: str) -> None:
    readers = connection.service.readers.setdefault(what, set())
    losers = displaced(readers, consumer)
    if losers is None:
        raise RefusedError(LINK_STOLEN, f"{what} is read with a higher epoch")
    for loser in losers:
        loser.lose(f"{what} was taken over with epoch {consumer.epoch}")
    consumer.join(readers)


def _need_token(connection: ClientConnection, address: Address) -> None:
    if not connection.grants.cover(address.hub):
        text = f"unauthorized access: no token for {address.hub}"
        raise RefusedError(UNAUTHORIZED, text)


def _selector(link: Any) -> str | None:
    data = link.remote_source.filter
    data.rewind()
    if data.next() is None:
        return None
    filters = cast("dict[str, Any]", data.get_object())
    described = filters.get(SELECTOR)
    return None if described is None else str(described.value)


def _epoch(link: Any) -> int | None:
    properties: dict[str, Any] = link.remote_properties or {}
    epoch = properties.get(EPOCH)
    return None if epoch is None else int(epoch)
