"""The end of a process: real interpreters, every way to leave, no event lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
SETUP = """
import asyncio, atexit, os, signal, socket, sys, threading, time
from pathlib import Path
import bizlog
from bizlog.sinks import BaseSink

def configure(**options):
    bizlog.configure(
        **{"source": "x", "sinks": ["file:events"], "shutdown_timeout": 5.0, **options}
    )

log = bizlog.get_logger()
"""


def run(
    folder: Path, script: str, timeout: float = 30, options: tuple[str, ...] = ()
) -> tuple[int, str, float]:
    """Run a script to its end in a folder; exit code, stderr, seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, *options, "-W", "error", "-c", SETUP + script],
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
    """A first event inside an exit hook is delivered, where no thread can start (3.12)."""
    script = "configure()\natexit.register(lambda: log.info('product.viewed'))"
    assert run(tmp_path, script)[:2] == (0, "")
    assert len(events(tmp_path)) == 1


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


def test_the_exit_hook_starts_no_thread(tmp_path: Path) -> None:
    """Nothing that ends the process relies on a new thread; all is delivered."""
    script = (
        EMIT
        + """
start = threading.Thread.start
def note(thread):
    if ending:
        Path("started").touch()
    start(thread)
threading.Thread.start = note
ending = []
atexit.register(ending.append, True)
"""
    )
    assert run(tmp_path, script)[:2] == (0, "")
    assert len(events(tmp_path)) == 1000
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "loops",
    [
        "asyncio.run(emit())",
        "asyncio.run(emit()); asyncio.run(emit())",
        "asyncio.run(emit(flush=True)); asyncio.run(emit(flush=True))",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(emit()); loop.close()",
        "asyncio.run(emit(shutdown=True))",
    ],
    ids=["one", "two", "two that flush", "closed", "shutdown inside"],
)
def test_event_loops_of_the_host_do_not_matter(tmp_path: Path, loops: str) -> None:
    """One, several, closed ones: bizlog has a loop of its own, and delivers everything."""
    script = f"""
configure()
async def emit(flush=False, shutdown=False):
    for _ in range(100):
        log.info("product.viewed")
        await asyncio.sleep(0)
    if flush:
        assert await bizlog.client.default_client().flush(10)
    if shutdown:
        assert await bizlog.client.default_client().shutdown(10)
{loops}
"""
    assert run(tmp_path, script)[:2] == (0, "")
    assert len(events(tmp_path)) == 100 * loops.count("emit(")


def test_in_pythons_development_mode_nothing_is_said(tmp_path: Path) -> None:
    """No file, socket or loop is left open, and asyncio's debug mode stays the host's."""
    script = EMIT + "bizlog.flush(); log.info('product.viewed')"
    code, said, _ = run(tmp_path, script, options=("-X", "dev"))
    assert (code, said) == (0, "")
    assert len(events(tmp_path)) == 1001


def test_events_after_shutdown_are_counted_and_nothing_else(tmp_path: Path) -> None:
    """Late events, in the script and in exit hooks, neither raise nor revive anything."""
    script = (
        EMIT
        + """
bizlog.shutdown()
threads = threading.active_count()
for _ in range(10): log.info("product.viewed")
assert bizlog.ledger().sinks["file"].dropped == {"closed": 10}
assert threading.active_count() <= threads
atexit.register(lambda: log.info("product.viewed"))
"""
    )
    assert run(tmp_path, script)[:2] == (0, "")
    assert len(events(tmp_path)) == 1000


# Signals


def start(folder: Path, script: str) -> subprocess.Popen[str]:
    """Start a script that prints as it goes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", SETUP + script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    """Read what a script prints until it is this."""
    assert process.stdout is not None
    assert any(said.strip() == line for said in process.stdout)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; exit code and stderr."""
    try:
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said


HUNG = """
class Hung(BaseSink):
    async def send_batch(self, events):
        await asyncio.sleep(600)
configure(sinks=[Hung()], shutdown_timeout=600, sink_timeout=600)
for i in range(10): log.info("product.viewed", product_id=i)
"""


@posix
@pytest.mark.parametrize("where", ["in the script", "in the exit hook"])
def test_ctrl_c_in_the_exit_hook_ends_the_waiting(tmp_path: Path, where: str) -> None:
    """Whoever presses it (again) is in a hurry: dead letters, and out."""
    wait = where == "in the script"
    script = f"""
from bizlog.delivery.threads import Flag
until_raised = Flag.wait
def wait(flag, timeout):
    if timeout > 500:
        print("waiting")
    return until_raised(flag, timeout)
Flag.wait = wait
print("ready")
if {wait}:
    time.sleep(600)
"""
    process = start(tmp_path, HUNG + script)
    if wait:
        wait_for_line(process, "ready")
        process.send_signal(signal.SIGINT)
    wait_for_line(process, "waiting")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, said = end_of(process)

    assert time.monotonic() - begun < 10
    assert code == (-signal.SIGINT if wait else 0)
    assert said.count("KeyboardInterrupt") == (1 if wait else 0)
    assert "10 dead-lettered" in said
    assert len(letters(tmp_path)) == 10


@posix
def test_ctrl_c_once_delivers_everything(tmp_path: Path) -> None:
    """The script ends as it always does, and the exit hook has its time."""
    process = start(tmp_path, EMIT + "print('ready')\ntime.sleep(600)")
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGINT)
    code, said = end_of(process)

    assert code == -signal.SIGINT
    assert said.count("KeyboardInterrupt") == 1
    assert "bizlog" not in said
    assert len(events(tmp_path)) == 1000


@posix
@pytest.mark.parametrize("emitted", [0, 1000])
def test_sigterm_with_handle_sigterm_delivers_everything(
    tmp_path: Path, emitted: int
) -> None:
    """Right after the last emit; the exit code is the signal's, nothing is said."""
    script = f"""
configure(handle_sigterm=True)
for i in range({emitted}): log.info("product.viewed", product_id=i)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""
    assert run(tmp_path, script)[:2] == (-signal.SIGTERM, "")
    assert len(events(tmp_path)) == emitted


@posix
def test_sigterm_is_left_alone_unasked(tmp_path: Path) -> None:
    """Without `handle_sigterm` the host's handler, or none, stays what it is."""
    script = """
before = signal.getsignal(signal.SIGTERM)
configure()
log.info("product.viewed")
bizlog.flush()
assert signal.getsignal(signal.SIGTERM) is before
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""
    assert run(tmp_path, script)[:2] == (-signal.SIGTERM, "")


@posix
def test_a_sigterm_handler_of_the_host_is_called_afterwards(tmp_path: Path) -> None:
    """What it emits is delivered as well, when it ends the process in its own way."""
    script = """
def leave(number, frame):
    assert bizlog.ledger().sinks["file"].delivered == 1000
    log.info("product.viewed", product_id="last")
    sys.exit(7)
signal.signal(signal.SIGTERM, leave)
configure(handle_sigterm=True)
for i in range(1000): log.info("product.viewed", product_id=i)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""
    assert run(tmp_path, script)[:2] == (7, "")
    assert len(events(tmp_path)) == 1001


@posix
def test_sigterm_in_the_middle_of_a_shutdown_waits_for_it(tmp_path: Path) -> None:
    """The end is not begun twice; the signal takes its course afterwards."""
    script = """
class Slow(BaseSink):
    async def send(self, event):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.3)
    async def stop(self):
        open("stopped", "w").close()
configure(sinks=[Slow()], handle_sigterm=True)
log.info("product.viewed")
bizlog.shutdown()
print("not reached")
"""
    assert run(tmp_path, script)[:2] == (-signal.SIGTERM, "")
    assert (tmp_path / "stopped").exists()


@posix
def test_sigterm_keeps_the_deadline(tmp_path: Path) -> None:
    """A sink that hangs costs `shutdown_timeout`; its events are dead letters."""
    script = HUNG.replace("shutdown_timeout=600", "shutdown_timeout=0.5")
    script = (
        script.replace("sinks=", "handle_sigterm=True, sinks=")
        + """
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""
    )
    code, said, seconds = run(tmp_path, script)
    assert code == -signal.SIGTERM
    assert "'hung' 0 delivered, 10 dead-lettered" in said
    assert seconds < 10
    assert len(letters(tmp_path)) == 10


def test_handle_sigterm_outside_the_main_thread_is_said(tmp_path: Path) -> None:
    """Python lets no other thread set it up: one line says so, all else works."""
    script = """
thread = threading.Thread(target=configure, kwargs={"handle_sigterm": True})
thread.start()
thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
log.info("product.viewed")
"""
    code, said, _ = run(tmp_path, script)
    assert code == 0
    assert said.count("\n") == 1
    assert "handle_sigterm" in said and "main thread" in said
    assert len(events(tmp_path)) == 1


# Deadlines


@pytest.mark.parametrize("deadline", [0.0, 0.5])
def test_any_mix_of_sinks_ends_in_time_and_says_where_everything_went(
    tmp_path: Path, deadline: float
) -> None:
    """Hung, refusing, slow and live sinks, and one that blocks the loop: + 0.5 s."""
    script = f"""
import logging
said = []
class Kept(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("bizlog").addHandler(Kept())

class Live(BaseSink):
    async def send_batch(self, events): pass
class Hung(BaseSink):
    async def send_batch(self, events): await asyncio.sleep(600)
class Refusing(BaseSink):
    async def send_batch(self, events): raise bizlog.PermanentSinkError("no")
class Slow(BaseSink):
    max_events = 10
    async def send_batch(self, events): await asyncio.sleep(0.4)
class Stubborn(BaseSink):
    async def send_batch(self, events):
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
class Blocking(BaseSink):
    async def send_batch(self, events):
        if block:
            time.sleep(600)

def measure():
    client = bizlog.BusinessTelemetryClient(
        source="x", sink_timeout=600,
        sinks=[Live(), Hung(), Refusing(), Slow(), Stubborn(), Blocking()],
    )
    for i in range(200):
        client.send_sync("product.viewed", product_id=i)
    while not block and client.ledger().sinks["live"].delivered < 200:
        time.sleep(0.01)
    begun = time.monotonic()
    assert not client.shutdown_sync({deadline})
    seconds = time.monotonic() - begun
    ledger = client.ledger()
    assert ledger.closed, ledger
    line, = [each for each in said if "shutdown" in each and "delivered" in each]
    for name, sink in ledger.sinks.items():
        assert f"{{name!r}} {{sink.delivered}} delivered" in line, line
    assert ledger.sinks["hung"].dead_lettered == 200, ledger
    assert ledger.sinks["refusing"].dead_lettered == 200, ledger
    assert block or ledger.sinks["live"].delivered == 200, ledger
    said.clear()
    return seconds

for block in (False, True):
    # Once is enough: others may keep the machine busy.
    print(any(measure() < {deadline} + 0.5 for _ in range(3)))
os._exit(0)
"""
    process = start(tmp_path, script)
    out, said = process.communicate(timeout=50)
    assert (process.returncode, said) == (0, "")
    assert out.split() == ["True", "True"]


def test_a_forked_child_does_not_deliver_its_parents_events(tmp_path: Path) -> None:
    """A child that ends without an event of its own leaves the parent's alone."""
    script = EMIT + "pid = os.fork()\nif pid: os.waitpid(pid, 0)"
    code, _, _ = run(tmp_path, script)
    assert code == 0
    assert len(events(tmp_path)) == 1000
    assert letters(tmp_path) == []
