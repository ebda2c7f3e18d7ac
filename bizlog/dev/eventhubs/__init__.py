"""
An Event Hubs of one's own: real AMQP on 127.0.0.1, with faults on demand.

README.md beside this file says how to use it and what it is not.
"""

from __future__ import annotations

import importlib.util

from bizlog.exceptions import MissingExtraError

if importlib.util.find_spec("proton") is None:
    raise MissingExtraError("the loopback Event Hubs", "loopback")

from bizlog.dev.eventhubs.broker import StoredEvent
from bizlog.dev.eventhubs.faults import Fault
from bizlog.dev.eventhubs.server import LoopbackEventHubs

__all__ = ["Fault", "LoopbackEventHubs", "StoredEvent"]
