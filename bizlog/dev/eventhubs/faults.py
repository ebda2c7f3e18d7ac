"""
Faults on demand: what the server does to a delivery instead of storing it. No I/O.

They are asked for once a delivery (a batch is one delivery). The first fault that
applies and is not used up decides; a delay is looked for besides, so that a delayed
server can also refuse.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SERVER_BUSY = "com.microsoft:server-busy"
DETACH_FORCED = "amqp:link:detach-forced"
CONNECTION_FORCED = "amqp:connection:forced"
LINK_STOLEN = "amqp:link:stolen"
NOT_FOUND = "amqp:not-found"
DECODE_ERROR = "amqp:decode-error"
SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
UNAUTHORIZED = "amqp:unauthorized-access"

# Conditions that AMQP itself names; all others are Microsoft's.
_OF_AMQP = {
    "connection-forced": CONNECTION_FORCED,
    "decode-error": DECODE_ERROR,
    "detach-forced": DETACH_FORCED,
    "illegal-state": "amqp:illegal-state",
    "internal-error": "amqp:internal-error",
    "invalid-field": "amqp:invalid-field",
    "message-size-exceeded": SIZE_EXCEEDED,
    "not-allowed": "amqp:not-allowed",
    "not-found": NOT_FOUND,
    "not-implemented": "amqp:not-implemented",
    "resource-limit-exceeded": "amqp:resource-limit-exceeded",
    "resource-locked": "amqp:resource-locked",
    "stolen": LINK_STOLEN,
    "unauthorized-access": UNAUTHORIZED,
}


def full_condition(name: str) -> str:
    """Complete a short name: `server-busy` is `com.microsoft:server-busy`."""
    return name if ":" in name else _OF_AMQP.get(name, f"com.microsoft:{name}")


class Action(StrEnum):
    """What is done to a delivery."""

    REJECT = "reject"
    RELEASE = "release"
    MODIFY = "modify"
    DETACH = "detach"
    CLOSE = "close"
    DROP = "drop"
    DROP_AFTER_STORE = "drop after store"
    STALL = "stall"
    DELAY = "delay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One kind of trouble; made by its class methods, planted by `inject`.

    Each takes `times`, how many deliveries it hits (None: all, until `clear_faults`),
    and `partition` and `hub`, which limit it to deliveries of that partition or hub.

    Attributes:
        action: What happens.
        times: How many deliveries are hit; None for all.
        partition: The id of the partition it is limited to, or None.
        hub: The name of the hub it is limited to, or None.
        condition: The AMQP error condition that the client sees, if it sees one.
        description: The text beside it.
        info: The map beside it. The service sends one; azure-eventhub 5.15 never ends a
            send whose rejection comes without (`info=None`).
        seconds: How long an answer is held back.
    """

    action: Action
    times: int | None = 1
    partition: str | None = None
    hub: str | None = None
    condition: str = ""
    description: str = "injected"
    info: dict[str, Any] | None = field(default_factory=lambda: {"injected": "true"})
    seconds: float = 0.0

    @classmethod
    def reject(cls, condition: str, **limits: Any) -> Fault:
        """
        Refuse the delivery: `rejected` with a condition; nothing is stored.

        Args:
            condition: As AMQP or the service names it, in full
                (`amqp:resource-limit-exceeded`) or short (`server-busy`).
            limits: `times`, `partition`, `hub`; and `description`, `info`.
        """
        return cls(action=Action.REJECT, condition=full_condition(condition), **limits)

    @classmethod
    def release(cls, **limits: Any) -> Fault:
        """Answer `released`; nothing is stored."""
        return cls(action=Action.RELEASE, **limits)

    @classmethod
    def modify(cls, **limits: Any) -> Fault:
        """Answer `modified` with delivery-failed; nothing is stored."""
        return cls(action=Action.MODIFY, **limits)

    @classmethod
    def detach(cls, condition: str = "detach-forced", **limits: Any) -> Fault:
        """Detach the link with a condition; nothing is stored."""
        return cls(action=Action.DETACH, condition=full_condition(condition), **limits)

    @classmethod
    def close(cls, condition: str = "connection-forced", **limits: Any) -> Fault:
        """Close the connection with a condition; nothing is stored."""
        return cls(action=Action.CLOSE, condition=full_condition(condition), **limits)

    @classmethod
    def drop(cls, **limits: Any) -> Fault:
        """Break the TCP connection before anything is stored."""
        return cls(action=Action.DROP, **limits)

    @classmethod
    def drop_after_store(cls, **limits: Any) -> Fault:
        """Store the delivery, then break the TCP connection without an answer."""
        return cls(action=Action.DROP_AFTER_STORE, **limits)

    @classmethod
    def stall(cls, **limits: Any) -> Fault:
        """Store nothing and never answer."""
        return cls(action=Action.STALL, **limits)

    @classmethod
    def delay(cls, seconds: float, **limits: Any) -> Fault:
        """
        Hold the answer back, each delivery's for itself; nobody else waits.

        Without `times` all deliveries are delayed. What is stored is stored at once.
        """
        limits.setdefault("times", None)
        return cls(action=Action.DELAY, seconds=seconds, **limits)

    def hits(self, hub: str, partition: str) -> bool:
        """Whether it applies to a delivery to this partition."""
        return self.partition in {None, partition} and self.hub in {None, hub}


class FaultPlan:
    """The faults that are planted; any thread may plant, the server's asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planted: list[tuple[Fault, int | None]] = []

    def plant(self, fault: Fault) -> None:
        """Add a fault behind those that are there."""
        with self._lock:
            self._planted.append((fault, fault.times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._planted.clear()

    def draw(self, hub: str, partition: str) -> tuple[Fault | None, float]:
        """
        Say what happens to one delivery, and count it.

        Returns:
            The fault, or None; and the seconds its answer is held back.
        """
        with self._lock:
            fault = self._take(hub, partition, delays=False)
            delay = self._take(hub, partition, delays=True)
        return fault, delay.seconds if delay else 0.0

    def _take(self, hub: str, partition: str, *, delays: bool) -> Fault | None:
        for index, (fault, left) in enumerate(self._planted):
            is_delay = fault.action is Action.DELAY
            if is_delay is delays and fault.hits(hub, partition):
                self._use(index, fault, left)
                return fault
        return None

    def _use(self, index: int, fault: Fault, left: int | None) -> None:
        if left == 1:
            del self._planted[index]
        elif left is not None:
            self._planted[index] = (fault, left - 1)
