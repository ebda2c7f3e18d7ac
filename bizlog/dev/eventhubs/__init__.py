"""An Event Hubs of one's own: real AMQP on 127.0.0.1, with faults on demand."""

from __future__ import annotations

from bizlog.dev.eventhubs.broker import StoredEvent
from bizlog.dev.eventhubs.faults import Fault
from bizlog.dev.eventhubs.server import LoopbackEventHubs

__all__ = ["Fault", "LoopbackEventHubs", "StoredEvent"]
