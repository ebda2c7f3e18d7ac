"""
The links that carry events: a producer's and a consumer's.

Each holds proton's link and does what Event Hubs does with it.
"""

from __future__ import annotations

import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from proton import Condition, Delivery, Link

from bizlog.dev.eventhubs import messages
from bizlog.dev.eventhubs.addresses import OFFSET_STEP
from bizlog.dev.eventhubs.faults import (
    DECODE_ERROR,
    DETACH_FORCED,
    LINK_STOLEN,
    SIZE_EXCEEDED,
    Action,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from proton import Receiver, Sender

    from bizlog.dev.eventhubs.broker import Hub, Partition
    from bizlog.dev.eventhubs.connection import ClientConnection
    from bizlog.dev.eventhubs.faults import Fault

# The service's limit for a message, a whole batch (standard tier).
MAX_MESSAGE_BYTES = 1024 * 1024
# How many batches a producer may have under way.
CREDIT = 300
# What proton may hold for one session before more events are handed out.
OUTGOING_BYTES = 1024 * 1024


class Role:
    """
    What a link is for.

    Attributes:
        link: proton's link.
        hub: The name of the hub it uses, for which a token is needed; or empty.
        ended: Whether the link is gone.
        hungry: Whether it hands out events.
    """

    hungry: ClassVar[bool] = False

    def __init__(self, link: Link, connection: ClientConnection, hub: str = "") -> None:
        self.link = link
        self.hub = hub
        self.ended = False
        self._connection = connection

    def start(self) -> None:
        """Begin, with the link attached."""

    def end(self) -> None:
        """Let go of everything: the link is gone."""
        self.ended = True

    def receive(self, delivery: Delivery, message: bytes) -> None:
        """Take a message that has arrived."""
        raise NotImplementedError

    def feed(self) -> bool:
        """Hand out what there is; whether there is more than fits."""
        return False


class ProducerLink(Role):
    """
    A client's way to send: stores what comes, unless a fault is planted.

    Args:
        link: proton's link.
        connection: The connection it is on.
        hub: Where to.
        partition: Which partition; None chooses one for each message.
    """

    def __init__(
        self,
        link: Receiver,
        connection: ClientConnection,
        hub: Hub,
        partition: Partition | None,
    ) -> None:
        super().__init__(link, connection, hub.name)
        self._hub = hub
        self._partition = partition
        self._faults: dict[Action, Callable[[Fault, Delivery], None]] = {
            Action.DETACH: self._detach,
            Action.CLOSE: self._close,
            Action.DROP: self._drop,
            Action.STALL: self._stall,
        }

    def start(self) -> None:
        """Grant credit, and watch for idleness."""
        self.link.flow(CREDIT)
        self._watch()

    def _watch(self) -> None:
        seconds = self._connection.service.idle_detach
        if seconds is not None:
            moment = self._connection.service.loop.time() + seconds
            self._connection.at(f"idle {self.link.name}", moment, self._idle)

    def _idle(self) -> None:
        if self.ended:
            return
        seconds = self._connection.service.idle_detach
        text = f"IdleTimerExpired: Idle timeout: {seconds} s"
        self._connection.detach(
            self.link, DETACH_FORCED, text, {"link": self.link.name}
        )

    def receive(self, delivery: Delivery, message: bytes) -> None:
        """Store the events of a message, or do what the planted fault says."""
        self._watch()
        if len(message) > MAX_MESSAGE_BYTES:
            text = f"{len(message)} bytes; a message has at most {MAX_MESSAGE_BYTES}"
            info = {"size": len(message), "limit": MAX_MESSAGE_BYTES}
            self._refuse(delivery, SIZE_EXCEEDED, text, info)
            return
        try:
            events, key = _open(message)
        except (ValueError, IndexError, struct.error) as error:
            self._refuse(delivery, DECODE_ERROR, str(error), {"size": len(message)})
            return
        partition = self._partition or self._hub.choose(key)
        fault, delay = self._connection.service.plan.draw(self._hub.name, partition.id)
        if fault is None or fault.action is Action.DROP_AFTER_STORE:
            partition.append(events, int(time.time() * 1000))
        if fault is None:
            self._later(delay, partial(self._settle, delivery, Delivery.ACCEPTED))
        elif fault.action is Action.DROP_AFTER_STORE:
            self._connection.abort()
        else:
            act = self._faults.get(fault.action, self._answer)
            self._later(delay, partial(act, fault, delivery))

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        if delay > 0:
            self._connection.service.loop.call_later(delay, call)
        else:
            call()

    def _settle(self, delivery: Delivery, state: Any) -> None:
        if self.ended:
            return  # the link went while the answer was held back
        delivery.update(state)
        delivery.settle()
        if self.link.credit < CREDIT // 2:
            self.link.flow(CREDIT - self.link.credit)
        self._connection.wake()

    def _refuse(self, delivery: Delivery, name: str, text: str, info: Any) -> None:
        delivery.local.condition = Condition(name, text, info)
        self._settle(delivery, Delivery.REJECTED)

    def _answer(self, fault: Fault, delivery: Delivery) -> None:
        states = {
            Action.REJECT: Delivery.REJECTED,
            Action.RELEASE: Delivery.RELEASED,
            Action.MODIFY: Delivery.MODIFIED,
        }
        if fault.action is Action.REJECT:
            delivery.local.condition = _condition(fault)
        elif fault.action is Action.MODIFY:
            delivery.local.failed = True
        self._settle(delivery, states[fault.action])

    def _detach(self, fault: Fault, _: Delivery) -> None:
        if not self.ended:
            told = (fault.condition, fault.description, fault.info)
            self._connection.detach(self.link, *told)

    def _drop(self, _: Fault, __: Delivery) -> None:
        self._connection.abort()

    def _stall(self, _: Fault, __: Delivery) -> None:
        """Leave the client without an answer."""

    def _close(self, fault: Fault, _: Delivery) -> None:
        self._connection.close(fault.condition, fault.description, fault.info)


def _condition(fault: Fault) -> Condition:
    info: Any = fault.info
    return Condition(fault.condition, fault.description, info)


def _open(message: bytes) -> tuple[list[bytes], str | None]:
    """Take a message apart: its events and its partition key."""
    events, key = messages.take_apart(message), messages.partition_key(message)
    if key is not None:
        events = messages.with_key(events, key)
    return events, key


class ConsumerLink(Role):
    """
    A client's way to receive: hands out a partition's events as credit allows.

    Args:
        link: proton's link.
        connection: The connection it is on.
        hub: The hub's name.
        partition: Whose events.
        number: The sequence number of the first.
        epoch: The owner level; None shares the partition with others.
    """

    hungry: ClassVar[bool] = True

    def __init__(
        self,
        link: Sender,
        connection: ClientConnection,
        hub: str,
        partition: Partition,
        number: int,
        epoch: int | None,
    ) -> None:
        super().__init__(link, connection, hub)
        self.epoch = epoch
        self._partition = partition
        self._next = number
        self._readers: set[ConsumerLink] = set()

    def join(self, readers: set[ConsumerLink]) -> None:
        """Be one of those that read the partition, until the link ends."""
        self._readers = readers
        readers.add(self)

    def lose(self, text: str) -> None:
        """Give the partition up to another consumer."""
        self._connection.detach(self.link, LINK_STOLEN, text, {"hub": self.hub})

    def start(self) -> None:
        """Listen for new events."""
        self._partition.changed.add(self._wake)
        self._wake()

    def end(self) -> None:
        """Listen no more."""
        super().end()
        self._partition.changed.discard(self._wake)
        self._readers.discard(self)

    def _wake(self) -> None:
        self._connection.wake()

    def feed(self) -> bool:
        """Hand out events until there are none, or no credit, or no room."""
        session = self.link.session
        while self.link.credit > 0:
            found = self._partition.read(self._next)
            if found is None:
                break
            if session.outgoing_bytes > OUTGOING_BYTES:
                return True
            self._send(*found)
        if self.link.drain_mode:
            self.link.drained()
        return False

    def _send(self, number: int, enqueued_ms: int, event: bytes) -> None:
        offset = number * OFFSET_STEP
        delivery = self.link.delivery(str(number))
        self.link.send(messages.as_delivered(event, number, offset, enqueued_ms))
        self.link.advance()
        delivery.settle()
        self._next = number + 1
