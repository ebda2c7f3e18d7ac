"""
Where real invoice lines land: a hub, a topic of a broker, or one of a failing broker.

Each starts its server when it is entered. What it holds is read back with the real
consumer clients. Packages are imported then, since most rows of the matrix do without.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from brokers import Kafka, MockKafka
from reading import Landed, read_hub, read_topic

HUB = "events"
PARTITIONS = 4
# The mock keeps 5 MiB a partition.
MOCK_PARTITIONS = 16
MEET_SECONDS = 60.0


class Place(ABC):
    """
    Where a sink sends.

    Attributes:
        partitions: How many it has.
    """

    partitions = PARTITIONS

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self, stack: ExitStack) -> None:
        """Start the server, and have the stack stop it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What the contender's `make` takes."""

    @abstractmethod
    def read(self) -> list[Landed]:
        """Read all that it holds, by partition, in order."""


class Hub(Place):
    """A hub of the loopback Event Hubs, in this process."""

    def _start(self, stack: ExitStack) -> None:
        self._module = import_module("bizlog.dev.eventhubs")
        server = self._module.LoopbackEventHubs({HUB: self.partitions})
        self.server: Any = stack.enter_context(server)

    @property
    def url(self) -> str:
        return str(self.server.connection_string)

    def read(self) -> list[Landed]:
        return read_hub(self.url, HUB)

    def plant(self, kind: str, *arguments: Any, **limits: Any) -> None:
        """Plant a fault of `bizlog.dev.eventhubs.Fault`, by the name of its maker."""
        self.server.inject(getattr(self._module.Fault, kind)(*arguments, **limits))

    def all_met(self) -> bool:
        """Wait until every fault that was planted has befallen a delivery."""
        until = time.monotonic() + MEET_SECONDS
        # Nobody but the server knows: no client sees what has not happened yet.
        while self.server._plan._planted and time.monotonic() < until:
            time.sleep(0.01)
        return not self.server._plan._planted


class Topic(Place):
    """
    A topic of a broker in a process of its own.

    Args:
        folder: Where the broker keeps its files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder / "broker"

    def _start(self, stack: ExitStack) -> None:
        self._folder.mkdir()
        self.broker = stack.enter_context(Kafka(self._folder))
        self._topic = self.broker.new_topic(self.partitions)

    @property
    def url(self) -> str:
        return f"{self.broker.servers}/{self._topic}"

    def read(self) -> list[Landed]:
        return read_topic(self.broker.servers, self._topic)


class FailingTopic(Place):
    """A topic of librdkafka's mock cluster, in this process; it fails as told."""

    partitions = MOCK_PARTITIONS

    def _start(self, stack: ExitStack) -> None:
        self.cluster = stack.enter_context(MockKafka())
        self._topic = self.cluster.new_topic(self.partitions)

    @property
    def url(self) -> str:
        return f"{self.cluster.servers}/{self._topic}"

    def read(self) -> list[Landed]:
        return read_topic(self.cluster.servers, self._topic)
