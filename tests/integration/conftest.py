"""A Kafka broker in a process of its own, for the tests that want one."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Kafka:
    """
    A broker that can be stopped and started again, with what it stored.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "start", "--only", "kafka", "--kafka-port", str(self.port)],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 20
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        pytest.skip("noida-db, the Kafka broker of the tests, does not run here")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def new_topic(self, partitions: int = 4) -> str:
        from confluent_kafka.admin import AdminClient, NewTopic

        topic = f"events-{uuid.uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": self.servers})
        for made in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            made.result(20)
        return topic

    def read(self, topic: str, count: int, seconds: float = 20) -> list[Any]:
        return read_messages(self.servers, topic, count, seconds)


def read_messages(
    servers: str, topic: str, count: int, seconds: float = 20
) -> list[Any]:
    """Read what a topic holds, by partition; waits until there are so many."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": servers, "group.id": "nobody"})
    try:
        known = consumer.list_topics(topic, 20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in known])
        found: list[Any] = []
        until = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < until:
            found += consumer.consume(10_000, 0.2)
        found += consumer.consume(10_000, 0.2)  # what there should not be
        assert not any(message.error() for message in found)
        return sorted(found, key=lambda m: (m.partition(), m.offset()))
    finally:
        consumer.close()


@pytest.fixture
def read_kafka() -> Callable[..., list[Any]]:
    """Read messages of any broker."""
    return read_messages


@pytest.fixture
def new_kafka(tmp_path: Path) -> Iterator[Callable[[], Kafka]]:
    """Make brokers, which stop with the test."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka has no wheel here")
    spec = importlib.util.find_spec("noida_db")
    if spec is None:
        pytest.skip("noida-db, the Kafka broker of the tests, has no wheel here")
    made: list[Kafka] = []

    def make() -> Kafka:
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        broker = Kafka(Path(sys.executable).with_name("noida-db"), folder)
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def kafka(new_kafka: Callable[[], Kafka]) -> Kafka:
    """Give a broker that is empty."""
    return new_kafka()
