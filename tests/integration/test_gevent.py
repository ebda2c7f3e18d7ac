"""Beside gevent: the pump is a native thread, and no greenlet waits for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gevent", reason="gevent has no wheel here")

ROOT = Path(__file__).parents[2]
PATCH = "from gevent import monkey; monkey.patch_all()\n"
IMPORT = "import bizlog\n"
SETUP = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
import gevent
from bizlog.sinks import BaseSink

class Seen(BaseSink):
    flush_interval = 0.0
    def __init__(self):
        self.times = []
    async def send_batch(self, events):
        await asyncio.to_thread(self.times.extend, [time.monotonic()] * len(events))
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    async def stop(self):
        Path(f"seen-{os.getpid()}").write_text(str(len(self.times)))

seen = Seen()
log = bizlog.get_logger()

def configure(**options):
    bizlog.configure(**{"source": "x", "sinks": ["file:events", seen], **options})
"""

both_orders = pytest.mark.parametrize(
    "before", [PATCH + IMPORT, IMPORT + PATCH], ids=["patched first", "patched later"]
)


def run(folder: Path, script: str, code: int = 0) -> None:
    """Run a script in a folder; it says nothing on stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    done = subprocess.run(
        # What gevent warns of is its own.
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


def lines(folder: Path) -> int:
    """Count the events that have reached a file with its final name."""
    files = (folder / "events").glob("*/*/*.jsonl")
    return sum(len(file.read_text().splitlines()) for file in files)


def seen(folder: Path) -> list[int]:
    """Read how many events each process has seen in its other sink."""
    return sorted(int(file.read_text()) for file in folder.glob("seen-*"))


@both_orders
def test_a_busy_greenlet_holds_up_no_event(tmp_path: Path, before: str) -> None:
    """Delivery goes on beside a greenlet that never yields; the end delivers the rest."""
    script = """
configure()
def busy():
    log.info("product.viewed", product_id="busy")
    deadline = time.monotonic() + 20
    while not seen.times and time.monotonic() < deadline:
        sum(range(1000))
    assert seen.times
gevent.spawn(busy).get()
for number in range(300):
    log.info("product.viewed", product_id=number)
"""
    run(tmp_path, before + SETUP + script)
    assert lines(tmp_path) == 301
    assert seen(tmp_path) == [301]


@both_orders
def test_greenlets_flush_and_others_run_meanwhile(tmp_path: Path, before: str) -> None:
    """Whoever waits for bizlog waits alone; shutdown works from a greenlet, too."""
    script = """
class Slow(BaseSink):
    async def send_batch(self, events):
        await asyncio.sleep(0.2)

configure(sinks=["file:events", seen, Slow()])
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
def work(number):
    for _ in range(100):
        log.info("product.viewed", product_id=number)
    return bizlog.flush(20)

ticking = gevent.spawn(tick)
workers = [gevent.spawn(work, number) for number in range(4)]
gevent.joinall(workers, raise_error=True)
assert [worker.value for worker in workers] == [True] * 4
assert len(ticks) >= 5
log.info("product.viewed", product_id="last")
assert gevent.spawn(bizlog.shutdown, 20).get()
ticking.kill()
assert bizlog.ledger().closed
assert bizlog.ledger().sinks["slow"].delivered == 401
"""
    run(tmp_path, before + SETUP + script)
    assert lines(tmp_path) == 401
    assert seen(tmp_path) == [401]


def test_no_thread_stays_behind(tmp_path: Path) -> None:
    """The native threads of a client end with it."""
    script = """
def threads():
    return len(os.listdir("/proc/self/task"))
if sys.platform != "linux":
    sys.exit()
before = threads()
for _ in range(10):
    client = bizlog.BusinessTelemetryClient(source="x", sinks=["file:events"])
    client.send_sync("order.placed")
    assert client.shutdown_sync()
deadline = time.monotonic() + 20
while threads() > before + 4 and time.monotonic() < deadline:
    gevent.sleep(0.05)
assert threads() <= before + 4, (before, threads())
"""
    run(tmp_path, PATCH + IMPORT + SETUP + script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_and_a_signal_beside_gevent(tmp_path: Path) -> None:
    """A child begins anew there as well, and SIGTERM reaches the hub in time."""
    script = """
configure(handle_sigterm=True)
for _ in range(100): log.info("product.viewed", product_id="parent")
child = os.fork()
if not child:
    for _ in range(50): log.info("product.viewed", product_id="child")
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
for _ in range(100): log.info("product.viewed", product_id="parent")
gevent.spawn_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(30)
"""
    run(tmp_path, PATCH + IMPORT + SETUP + script, -signal.SIGTERM)
    assert lines(tmp_path) == 250
    assert seen(tmp_path) == [50, 200]


def test_a_sink_that_hangs_keeps_no_process(tmp_path: Path) -> None:
    """The deadline of the end holds beside gevent; the events are dead letters."""
    script = """
class Hung(BaseSink):
    async def send_batch(self, events):
        await asyncio.sleep(600)

configure(sinks=[Hung()], shutdown_timeout=0.5)
log.info("product.viewed", product_id="kept")
assert not bizlog.flush(0.1)
begun = time.monotonic()
assert not bizlog.shutdown()
assert time.monotonic() - begun < 10
assert bizlog.ledger().sinks["hung"].dead_lettered == 1
"""
    silent = "import logging; logging.getLogger('bizlog').disabled = True\n"
    run(tmp_path, PATCH + IMPORT + silent + SETUP + script)
