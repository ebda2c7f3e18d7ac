"""A Kafka broker in a process of its own, for the tests that want one."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import socket
import subprocess
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
        from confluent_kafka.admin import (  # noqa: PLC0415  # an extra
            AdminClient,
            NewTopic,
        )

        topic = f"events-{uuid.uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        for made in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            made.result(20)
        return topic

    def read(self, topic: str, count: int, seconds: float = 20) -> list[Any]:
        return read_messages(self.servers, topic, count, seconds)


def read_messages(
    servers: str, topic: str, count: int, seconds: float = 20
) -> list[Any]:
    """Read what a topic holds, by partition; waits until there are so many."""
    from confluent_kafka import (  # noqa: PLC0415  # an extra
        OFFSET_BEGINNING,
        Consumer,
        TopicPartition,
    )

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


class MockKafka:
    """
    librdkafka's mock cluster, of the library that the wheel brings: it fails as told.

    Attributes:
        servers: Where it listens.
    """

    PRODUCE = 0  # the number of the request in Kafka's protocol

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, given, back in (
            ("conf_new", [], pointer),
            ("conf_set", [pointer, text, text, text, ctypes.c_size_t], ctypes.c_int),
            ("new", [ctypes.c_int, pointer, text, ctypes.c_size_t], pointer),
            ("destroy", [pointer], None),
            ("mock_cluster_new", [pointer, ctypes.c_int], pointer),
            ("mock_cluster_destroy", [pointer], None),
            ("mock_cluster_bootstraps", [pointer], text),
            ("mock_topic_create", [pointer, text, ctypes.c_int, ctypes.c_int], int),
            (
                "mock_push_request_errors_array",
                [pointer, ctypes.c_int16, ctypes.c_size_t, pointer],
                None,
            ),
            ("mock_broker_set_down", [pointer, ctypes.c_int32], ctypes.c_int),
            ("mock_broker_set_up", [pointer, ctypes.c_int32], ctypes.c_int),
        ):
            function = getattr(library, f"rd_kafka_{name}")
            function.argtypes = given
            function.restype = ctypes.c_int if back is int else back
        conf = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(conf, b"log_level", b"0", None, 0)
        self._handle = library.rd_kafka_new(0, conf, None, 0)
        self._cluster = library.rd_kafka_mock_cluster_new(self._handle, 1)
        found = library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.servers: str = found.decode()

    def new_topic(self, partitions: int = 4) -> str:
        topic = f"events-{uuid.uuid4().hex[:8]}"
        create = self._library.rd_kafka_mock_topic_create
        assert create(self._cluster, topic.encode(), partitions, 1) == 0
        return topic

    def fail_produce(self, *codes: int) -> None:
        """Have the next requests that bring messages fail, each with one of these."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, self.PRODUCE, len(codes), array
        )

    def set_down(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def set_up(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def stop(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    """Give a cluster of one broker that fails as told."""
    package = pytest.importorskip("confluent_kafka", reason="has no wheel here")
    root = Path(package.__file__).parent
    found = [
        *root.with_name("confluent_kafka.libs").glob("librdkafka*"),
        *root.glob(".dylibs/librdkafka*"),
    ]
    if not found:
        pytest.skip("this confluent-kafka brings no librdkafka of its own")
    cluster = MockKafka(ctypes.CDLL(str(found[0])))
    yield cluster
    cluster.stop()


@pytest.fixture
def read_kafka() -> Callable[..., list[Any]]:
    """Read messages of any broker."""
    return read_messages


def start_kafka(folder: Path) -> Kafka:
    """Start a broker, or skip the test with the reason."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka has no wheel here")
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        pytest.skip("noida-db, the Kafka broker of the tests, has no wheel here")
    # The program itself: the script of its package starts it, and does not stop it.
    program = Path(spec.origin).with_name("noida-db")
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    broker = Kafka(program, folder)
    broker.start()
    return broker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Give the broker that tests share; each takes a topic of its own."""
    broker = start_kafka(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """Give a broker that the test may stop."""
    broker = start_kafka(tmp_path)
    yield broker
    broker.stop()
