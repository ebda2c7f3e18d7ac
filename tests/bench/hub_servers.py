"""
Runs a course: the server in one process, whoever sends in another; counts what is stored.

A hub counts its messages and tells at its end; Kafka's are counted by the positions that
its partitions have reached. Either server is new for each course, and binds 127.0.0.1.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hubs import Course, Passage
from processes import HERE, ChildError, clean_environment, run_python

HUB = "events"
RETAIN_MIB = 64
SECONDS = 30.0
# Makes the topic, or counts what is in it: a process of its own, as confluent-kafka's
# threads have no place in this one.
MAKE_TOPIC = (
    "import sys; from confluent_kafka.admin import AdminClient, NewTopic; "
    "admin = AdminClient({'bootstrap.servers': sys.argv[1]}); "
    "[made.result(20) for made in "
    "admin.create_topics([NewTopic(sys.argv[2], int(sys.argv[3]), 1)]).values()]"
)
COUNT_STORED = (
    "import sys; from confluent_kafka import Consumer, TopicPartition; "
    "consumer = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': 'nobody'}); "
    "print(sum(consumer.get_watermark_offsets(TopicPartition(sys.argv[2], number), 20)[1]"
    " for number in range(int(sys.argv[3])))); consumer.close()"
)


def measure_passage(name: str, course: Course) -> Passage:
    """
    Run one course once.

    Raises:
        ChildError: A process of it raised, or a package is missing.
    """
    measure = _through_kafka if course.server == "kafka" else _through_hub
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        stored, answer = measure(name, course, directory)
    return Passage(course, stored=stored - answer.pop("warm_up"), **answer)


def _send(name: str, course: Course, target: str, directory: str) -> dict[str, Any]:
    script = HERE / ("hub_peers.py" if course.peer else "hub_bizlog.py")
    command = [script, name, course.events, target]
    answer: dict[str, Any] = json.loads(
        run_python(*map(str, command), directory=directory)
    )
    return answer


def _through_hub(
    name: str, course: Course, directory: str
) -> tuple[int, dict[str, Any]]:
    with hub(course, directory) as (process, target):
        answer = _send(name, course, target, directory)
        process.terminate()
        out, _ = process.communicate(timeout=SECONDS)
    return json.loads(out)["stored"][HUB], answer


@contextmanager
def hub(
    course: Course, directory: str
) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """Serve a hub as `bizlog dev eventhubs` does; yields its connection string, too."""
    command = [sys.executable, "-m", "bizlog.cli", "dev", "eventhubs", "--json"]
    command += ["--hub", f"{HUB}:{course.partitions}", "--port", "0"]
    command += ["--retain-mib", str(RETAIN_MIB)]
    if course.delay_ms:
        command += ["--delay-ms", str(course.delay_ms)]
    with subprocess.Popen(
        command,
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                _, said = process.communicate()
                raise ChildError((said.strip().splitlines() or ["no server"])[-1])
            yield process, json.loads(line)["connection_string"]
        finally:
            process.kill()


def _through_kafka(
    name: str, course: Course, directory: str
) -> tuple[int, dict[str, Any]]:
    with broker(directory) as target:
        topic = target, HUB, str(course.partitions)
        run_python("-c", MAKE_TOPIC, *topic, directory=directory)
        answer = _send(name, course, target, directory)
        stored = run_python("-c", COUNT_STORED, *topic, directory=directory)
    return int(stored), answer


@contextmanager
def broker(directory: str) -> Generator[str, None, None]:
    """Run noida-db's Kafka in a folder; yields where it listens."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise ChildError("No module named 'noida_db'")
    # The program itself: the script of its package starts it, and does not stop it.
    program = Path(spec.origin).with_name("noida-db")
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [program, "start", "--only", "kafka", "--kafka-port", str(port)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ChildError("noida-db does not listen")
