"""
Brokers that speak Kafka, for tests: one in a process of its own, and one that fails.

Where one cannot run, `UnavailableError` says why. Knows nothing of pytest: the fault
matrix runs without it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any, Self

START_SECONDS = 20.0
PARTITIONS = 4


class UnavailableError(Exception):
    """Something that a test needs is not here; the message says what."""


class Kafka:
    """
    A broker that can be stopped and started again, with what it stored.

    Args:
        folder: Where it keeps its files.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self._program = _program_of_noida()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise UnavailableError("noida-db, the Kafka broker of the tests, does not run")

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(subprocess.Popen.kill)

    def _end(self, end: Any) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process)
            process.wait(START_SECONDS)

    def new_topic(self, partitions: int = PARTITIONS) -> str:
        from confluent_kafka.admin import (  # noqa: PLC0415  # an extra
            AdminClient,
            NewTopic,
        )

        topic = f"events-{uuid.uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        for made in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            made.result(START_SECONDS)
        return topic

    def read(self, topic: str, count: int, seconds: float = 20) -> list[Any]:
        return read_messages(self.servers, topic, count, seconds)


def _program_of_noida() -> Path:
    """Find the program itself: its package's script starts it, and does not stop it."""
    _require("confluent_kafka", "confluent-kafka")
    found = _require("noida_db", "noida-db, the Kafka broker of the tests,")
    program = found.with_name("noida-db")
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return program


def _require(module: str, what: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UnavailableError(f"{what} has no wheel here")
    return Path(spec.origin)


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

    def __init__(self) -> None:
        library = self._library = _library_of_wheel()
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def new_topic(self, partitions: int = PARTITIONS) -> str:
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


def _library_of_wheel() -> ctypes.CDLL:
    root = _require("confluent_kafka", "confluent-kafka").parent
    found = [
        *root.with_name("confluent_kafka.libs").glob("librdkafka*"),
        *root.glob(".dylibs/librdkafka*"),
    ]
    if not found:
        raise UnavailableError("this confluent-kafka brings no librdkafka of its own")
    importlib.import_module("confluent_kafka")  # loads what the library needs
    return ctypes.CDLL(str(found[0]))
