"""The end of a process: real interpreters, every way to leave, no event lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETUP = """
import asyncio, atexit, os, socket, sys, time
import bizlog
from bizlog.sinks import BaseSink

def configure(**options):
    bizlog.configure(
        **{"source": "x", "sinks": ["file:events"], "shutdown_timeout": 5.0, **options}
    )

log = bizlog.get_logger()
"""


def run(folder: Path, script: str, timeout: float = 30) -> tuple[int, str, float]:
    """Run a script to its end in a folder; exit code, stderr, seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETUP + script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - begun


def events(folder: Path) -> list[dict[str, Any]]:
    """Read the events that have reached a file with its final name."""
    files = (folder / "events").glob("*/*/*.jsonl")
    lines = [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]
    return sorted(lines, key=lambda event: event["sequence"])


def letters(folder: Path) -> list[dict[str, Any]]:
    """Read the dead letters."""
    files = (folder / "bizlog-dead-letters").glob("*.jsonl")
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


EMIT = "configure()\nfor i in range(1000): log.info('product.viewed', product_id=i)\n"


@pytest.mark.parametrize(
    ("ending", "code", "stderr"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('deliberate')", 1, "deliberate"),
        ("bizlog.shutdown()", 0, ""),
    ],
    ids=["plain", "sys.exit", "unhandled", "shutdown"],
)
def test_the_end_of_a_script_delivers_everything(
    tmp_path: Path, ending: str, code: int, stderr: str
) -> None:
    """1,000 events and the end of the script: all are there, the exit code is its own."""
    returned, said, _ = run(tmp_path, EMIT + ending)
    assert returned == code
    assert stderr in said
    assert said == "" or stderr
    assert [event["sequence"] for event in events(tmp_path)] == list(range(1, 1001))


def test_exit_hooks_of_the_application_may_emit(tmp_path: Path) -> None:
    """An event of an atexit handler is delivered, though it comes last."""
    script = EMIT + "atexit.register(lambda: log.info('product.viewed'))"
    assert run(tmp_path, script)[:2] == (0, "")
    assert len(events(tmp_path)) == 1001


def test_the_first_event_may_come_at_exit(tmp_path: Path) -> None:
    """A first event inside an exit hook is delivered or kept as a dead letter."""
    script = "configure()\natexit.register(lambda: log.info('product.viewed'))"
    code, _, _ = run(tmp_path, script)
    assert code == 0
    assert len(events(tmp_path)) + len(letters(tmp_path)) == 1


def test_sinks_may_use_threads_and_names_at_exit(tmp_path: Path) -> None:
    """asyncio.to_thread and getaddrinfo work while the interpreter exits."""
    script = """
class Slow(BaseSink):
    async def deliver(self, batch):
        await asyncio.sleep(0.2)
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        await asyncio.to_thread(self.write, batch)
        return await super().deliver(batch)
    def write(self, batch):
        with open("got", "a") as file:
            file.write("x" * len(batch.records))
    async def send(self, event):
        pass
configure(sinks=[Slow()])
for i in range(300): log.info("product.viewed")
"""
    assert run(tmp_path, script)[:2] == (0, "")
    assert (tmp_path / "got").read_text() == "x" * 300


@pytest.mark.parametrize(
    "hang", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["awaits", "blocks"]
)
def test_a_sink_that_hangs_keeps_no_process(tmp_path: Path, hang: str) -> None:
    """The process ends within its deadline; the events are in the dead letters."""
    script = f"""
class Hung(BaseSink):
    async def deliver(self, batch):
        {hang}
configure(sinks=[Hung()], shutdown_timeout=1.0)
for i in range(10): log.info("product.viewed", product_id=i)
"""
    code, _, seconds = run(tmp_path, script)
    assert code == 0
    assert seconds < 10
    kept = [letter["record"]["product_id"] for letter in letters(tmp_path)]
    assert kept == [str(i) for i in range(10)]


def test_a_forked_child_does_not_deliver_its_parents_events(tmp_path: Path) -> None:
    """A child that ends without an event of its own leaves the parent's alone."""
    script = EMIT + "pid = os.fork()\nif pid: os.waitpid(pid, 0)"
    code, _, _ = run(tmp_path, script)
    assert code == 0
    assert len(events(tmp_path)) == 1000
    assert letters(tmp_path) == []
