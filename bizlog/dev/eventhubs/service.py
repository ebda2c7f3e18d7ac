"""What all connections of one server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bizlog.dev.eventhubs.broker import Broker
    from bizlog.dev.eventhubs.connection import ClientConnection
    from bizlog.dev.eventhubs.faults import FaultPlan
    from bizlog.dev.eventhubs.links import ConsumerLink


@dataclass(slots=True)
class Service:
    """
    The hubs, the faults and the rules, for every connection.

    Attributes:
        loop: The loop that all of it runs on.
        broker: The hubs.
        plan: The faults.
        check_token: Whether a token (audience, token) is good; None takes all.
        token_lifetime: Seconds after which a token expires whatever it says; or None.
        idle_detach: Seconds after which an idle producer is detached; or None.
        idle_timeout: Seconds of silence after which a connection is closed.
        connections: Those that are open.
        readers: The consumers of each partition, by hub, consumer group and partition.
    """

    loop: asyncio.AbstractEventLoop
    broker: Broker
    plan: FaultPlan
    check_token: Callable[[str, str], bool] | None
    token_lifetime: float | None
    idle_detach: float | None
    idle_timeout: float
    connections: set[ClientConnection] = field(default_factory=set["ClientConnection"])
    readers: dict[str, set[ConsumerLink]] = field(
        default_factory=dict[str, "set[ConsumerLink]"]
    )
