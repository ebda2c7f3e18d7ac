"""Forked processes: the child begins anew, and touches nothing of its parent's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bizlog import BaseSink, BusinessTelemetryClient, Route, get_logger
from bizlog import client as clients
from bizlog.testing import MemorySink
from bizlog_handlers.composite import CompositeSink

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SETUP = """
import asyncio, gc, gzip, os, signal, sys, threading, time
import bizlog
from bizlog.sinks import BaseSink

def configure(**options):
    options.setdefault("sinks", ["file:events"])
    bizlog.configure(source="x", **options)

def wait_for(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

log = bizlog.get_logger()
"""


def run(folder: Path, script: str, timeout: float = 50) -> str:
    """Run a script in a folder; it ends well, says nothing on stderr; its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    (folder / "script.py").write_text(SETUP + script)
    done = subprocess.run(
        # Python itself warns of a fork beside threads (3.12): that is the subject here.
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "script.py",
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def events(folder: Path) -> list[dict[str, Any]]:
    """Read the events that have reached a file with its final name."""
    files = (folder / "events").glob("*/*/*.jsonl")
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


def counts(folder: Path) -> Counter[str]:
    """Count the events by who emitted them; each id occurs once."""
    found = events(folder)
    assert len({event["event_id"] for event in found}) == len(found)
    numbers = {(event["producer_id"], event["sequence"]) for event in found}
    assert len(numbers) == len(found)
    return Counter(event["product_id"] for event in found)


@pytest.mark.parametrize("before", [0, 100], ids=["idle", "after events"])
@pytest.mark.parametrize(
    "ending", ["", "bizlog.flush(); os._exit(0)"], ids=["plain", "_exit"]
)
def test_a_child_delivers_its_own_events(
    tmp_path: Path, before: int, ending: str
) -> None:
    """200 events of a child arrive once, and so do the parent's, before and after."""
    script = f"""
configure()
for _ in range({before}): log.info("product.viewed", product_id="before")
child = os.fork()
if not child:
    for _ in range(200): log.info("product.viewed", product_id="child")
    {ending or "sys.exit(0)"}
for _ in range(100): log.info("product.viewed", product_id="after")
assert wait_for(child) == 0
"""
    run(tmp_path, script)
    expected = {"before": before, "child": 200, "after": 100}
    assert counts(tmp_path) == Counter({k: n for k, n in expected.items() if n})
    sequences = [
        event["sequence"]
        for event in events(tmp_path)
        if event["product_id"] == "child"
    ]
    assert sorted(sequences) == list(range(1, 201))
    assert not (tmp_path / "bizlog-dead-letters").exists()


def test_forty_forks_under_load(tmp_path: Path) -> None:
    """Four threads emit meanwhile: no child hangs, each delivers its 200 exactly once."""
    script = """
configure(overflow="block", block_timeout=30)
emitted, stop = [0] * 4, threading.Event()

def emit(number):
    while not stop.is_set():
        for _ in range(50):
            log.info("product.viewed", product_id="parent")
            emitted[number] += 1
        time.sleep(0.002)

def in_child(number):
    signal.alarm(20)
    for _ in range(200):
        log.info("product.viewed", product_id=f"child-{number}")
    flushed = bizlog.flush(15)
    os._exit(0 if flushed and bizlog.ledger().sinks["file"].delivered == 200 else 1)

threads = [threading.Thread(target=emit, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
children = []
for number in range(40):
    child = os.fork()
    if not child:
        in_child(number)
    children.append(child)
    if number % 4 == 3:
        time.sleep(0.02)
codes = [wait_for(child) for child in children]
stop.set()
for thread in threads: thread.join()
assert codes == [0] * 40, codes
assert bizlog.shutdown(30)
print(sum(emitted))
"""
    emitted = int(run(tmp_path, script))
    expected = {f"child-{number}": 200 for number in range(40)}
    assert counts(tmp_path) == Counter({**expected, "parent": emitted})


def test_what_the_parent_has_open_is_left_alone(tmp_path: Path) -> None:
    """Half-written buffers are neither flushed nor closed by a child, however it ends."""
    script = """
class Gzipped(BaseSink):
    def __init__(self, folder, *, level):
        self.folder, self.level, self.file = folder, level, None
        assert level == 5
    async def start(self):
        assert self.file is None
        path = f"{self.folder}/{os.getpid()}.gz"
        self.raw = open(path, "wb", buffering=1 << 20)
        self.file = gzip.GzipFile(fileobj=self.raw, mode="wb", compresslevel=self.level)
    async def send(self, event):
        self.file.write(event["product_id"].encode() + b"\\n")
        self.file.flush()
    async def stop(self):
        self.file.close()
        self.raw.close()

os.mkdir("gz")
configure(sinks=[Gzipped("gz", level=5)])
for _ in range(3): log.info("product.viewed", product_id="parent")
assert bizlog.flush()
child = os.fork()
if not child:
    gc.collect()
    for _ in range(2): log.info("product.viewed", product_id="child")
    assert bizlog.flush()
    gc.collect()
    sys.exit(0)
assert wait_for(child) == 0
log.info("product.viewed", product_id="parent")
assert bizlog.shutdown()
read = {int(name[:-3]): gzip.open(f"gz/{name}").read().split() for name in os.listdir("gz")}
assert read == {os.getpid(): [b"parent"] * 4, child: [b"child"] * 2}, read
"""
    run(tmp_path, script)


def test_a_childs_end_gives_up_no_file_and_no_lock_of_the_parent(
    tmp_path: Path,
) -> None:
    """The parent's open files keep their hidden names until the parent completes them."""
    script = """
configure(flush_interval=0.0)
log.info("product.viewed", product_id="parent")
while not bizlog.ledger().closed: time.sleep(0.01)
from pathlib import Path
def hidden(): return len(list(Path("events").glob("*/*/.*")))
assert hidden() == 1
child = os.fork()
if not child:
    log.info("product.viewed", product_id="child")
    sys.exit(0)
assert wait_for(child) == 0
assert hidden() == 1
log.info("product.viewed", product_id="parent")
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 2, "child": 1}


def test_a_child_holds_no_lock_on_files_of_a_parent_that_died(tmp_path: Path) -> None:
    """What the parent left is completed by the next process, though the child lives."""
    script = """
from pathlib import Path
go_on, end = os.pipe()
parent = os.fork()
if not parent:
    configure(flush_interval=0.0)
    log.info("product.viewed", product_id="parent")
    while not bizlog.ledger().closed: time.sleep(0.01)
    if not os.fork():
        os.close(end)
        os.read(go_on, 1)  # until all others are gone
    os._exit(0)
assert wait_for(parent) == 0
assert len(list(Path("events").glob("*/*/.*"))) == 1
configure()
log.info("product.viewed", product_id="next")
bizlog.flush()
assert not list(Path("events").glob("*/*/.*"))
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 1, "next": 1}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_deliver(tmp_path: Path, method: str) -> None:
    """They run no exit hooks, and deliver all the same, in a process or in a pool."""
    script = f"""
import multiprocessing

def work(name):
    if {method != "fork"}:
        configure()
    for _ in range(200):
        log.info("product.viewed", product_id=name)

if __name__ == "__main__":
    configure()
    log.info("product.viewed", product_id="parent")
    context = multiprocessing.get_context({method!r})
    process = context.Process(target=work, args=("process",))
    process.start()
    process.join()
    assert process.exitcode == 0
    with context.Pool(1) as pool:
        pool.map(work, ["pool"])
        pool.close()
        pool.join()
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 1, "process": 200, "pool": 200}


def test_a_fork_inside_an_emit(tmp_path: Path) -> None:
    """The event is the parent's; the child emits on, and its ledger is closed."""
    script = """
class Forking:
    child = None
    def __str__(self):
        Forking.child = os.fork()
        return "forked"
    __repr__ = __str__

configure()
log.info("product.viewed", product_id="half-way", value=Forking())
if not Forking.child:
    assert bizlog.ledger().sinks["file"].offered == 0
    log.info("product.viewed", product_id="child")
    assert bizlog.shutdown()
    assert bizlog.ledger().sinks["file"].delivered == 1
    assert bizlog.ledger().closed
    sys.exit(0)
assert wait_for(Forking.child) == 0
assert bizlog.shutdown()
assert bizlog.ledger().closed
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"half-way": 1, "child": 1}


def test_what_goes_on_and_what_begins_anew_in_a_child(tmp_path: Path) -> None:
    """Loggers, context, metrics and rejections go on; counters and ids begin anew."""
    script = """
import prometheus_client

def shown(name, **labels):
    return prometheus_client.REGISTRY.get_sample_value(name, labels)

configure()
bound = log.bind(product_id="bound")
bound.info("product.viewed")
log.info("product.viewed", product_price="no price")
assert bizlog.flush()
with bizlog.session("sess-1"):
    child = os.fork()
    if not child:
        before = bizlog.ledger().sinks["file"]
        assert (before.offered, before.delivered, before.rejected) == (0, 0, 0)
        bound.info("product.viewed")
        log.info("product.viewed", product_price="no price")
        assert bizlog.flush()
        after = bizlog.ledger().sinks["file"]
        assert (after.offered, after.delivered, after.rejected) == (2, 1, 1)
        assert shown("business_telemetry_events_sent_total", sink_type="file") == 1
        sys.exit(0)
assert wait_for(child) == 0
assert shown("business_telemetry_events_sent_total", sink_type="file") == 1
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"bound": 2}
    sessions = [event.get("session_id") for event in events(tmp_path)]
    assert sorted(sessions, key=str) == [None, "sess-1"]
    letters = list((tmp_path / "bizlog-dead-letters").glob("*.jsonl"))
    assert [len(path.read_text().splitlines()) for path in letters] == [1, 1]


def test_a_child_of_a_closed_client_stays_closed(tmp_path: Path) -> None:
    """After shutdown there is no second life; the events are counted as dropped."""
    script = """
configure()
log.info("product.viewed", product_id="parent")
bizlog.shutdown()
child = os.fork()
log.info("product.viewed", product_id="late")
assert bizlog.shutdown()
assert bizlog.ledger().sinks["file"].dropped == {"closed": 1}
if child:
    assert wait_for(child) == 0
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 1}


def test_a_child_of_a_closed_client_writes_no_file(tmp_path: Path) -> None:
    """What was shut down needs no journal there, and no mark beside it."""
    script = """
import shutil
configure(journal="journal")
log.info("product.viewed", product_id="parent")
bizlog.shutdown()
shutil.rmtree("journal")
child = os.fork()
if child:
    assert wait_for(child) == 0
assert not os.path.exists("journal")
"""
    run(tmp_path, script)


def test_a_child_of_a_child_and_several_clients(tmp_path: Path) -> None:
    """Every client begins anew in every generation; one that is gone hinders nobody."""
    script = """
def make(name):
    return bizlog.BusinessTelemetryClient(source="x", sinks=[f"file:events/{name}"])

def emit(generation):
    for name, client in clients.items():
        client.send_sync("product.viewed", product_id=f"{generation}-{name}")

clients = {"a": make("a"), "b": make("b")}
gone = make("gone")
gone.send_sync("product.viewed", product_id="gone")
gone.shutdown_sync()
del gone
emit(0)
child = os.fork()
if not child:
    emit(1)
    child = os.fork()
    if not child:
        emit(2)
        sys.exit(0)
assert wait_for(child) == 0
"""
    run(tmp_path, script)
    files = (tmp_path / "events").glob("*/*/*/*.jsonl")
    found = [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]
    expected = [f"{generation}-{name}" for generation in range(3) for name in "ab"]
    assert sorted(event["product_id"] for event in found) == [*expected, "gone"]


def test_a_child_without_threads_delivers_when_it_flushes_and_ends(
    tmp_path: Path,
) -> None:
    """As under uWSGI, where no thread may start: who waits delivers, nothing is lost."""
    script = """
configure()
log.info("product.viewed", product_id="parent")
child = os.fork()
if not child:
    def refuse(thread): raise RuntimeError("can't start new thread")
    threading.Thread.start = refuse
    for _ in range(100): log.info("product.viewed", product_id="flushed")
    assert bizlog.flush()
    assert bizlog.ledger().sinks["file"].delivered == 100
    for _ in range(100): log.info("product.viewed", product_id="ended")
    sys.exit(0)
assert wait_for(child) == 0
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 1, "flushed": 100, "ended": 100}


def test_sigterm_reaches_a_child_for_itself(tmp_path: Path) -> None:
    """With `handle_sigterm` a child that is terminated delivers its own, and only that."""
    script = """
configure(handle_sigterm=True)
log.info("product.viewed", product_id="parent")
assert bizlog.flush()
child = os.fork()
if not child:
    for _ in range(100): log.info("product.viewed", product_id="child")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)
assert wait_for(child) == -signal.SIGTERM
log.info("product.viewed", product_id="parent")
"""
    run(tmp_path, script)
    assert counts(tmp_path) == {"parent": 2, "child": 100}


def test_captured_events_go_on_being_captured_in_a_child(tmp_path: Path) -> None:
    """Under `capture_events` a child captures for itself, and delivers nothing."""
    script = """
from bizlog.testing import capture_events
with capture_events() as captured:
    log.info("product.viewed", product_id="parent")
    child = os.fork()
    if not child:
        log.info("product.viewed", product_id="child")
        assert [event["product_id"] for event in captured] == ["parent", "child"]
        assert len(threading.enumerate()) == 1
        os._exit(0)
    assert wait_for(child) == 0
    assert len(captured) == 1
"""
    run(tmp_path, script)
    assert not (tmp_path / "bizlog-events").exists()


# What the hook does, in this process: its other half goes on as the parent's would


class Taken(MemorySink):
    """Notes what it was, and may fail to begin anew."""

    failing = False

    def after_fork(self) -> None:
        if self.failing:
            raise ValueError("values of an event")
        super().after_fork()


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., BusinessTelemetryClient]]:
    """Make clients; they and what they left to the parent are shut down."""
    made = []

    def make(*sinks: BaseSink, **options: Any) -> BusinessTelemetryClient:
        given = {"source": "x", "dead_letters": str(tmp_path), "flush_interval": 0.0}
        client = BusinessTelemetryClient(sinks=list(sinks), **given | options)
        made.extend([client, client._engine])
        return client

    yield make
    for each in made:
        getattr(each, "shutdown_sync", getattr(each, "shutdown", None))(10)


def test_a_client_that_begins_anew_has_nothing_of_before(make_client) -> None:
    """Another id, numbers from 1, an empty ledger, sinks as new; loggers follow."""
    sink = Taken()
    client = make_client(CompositeSink(Route(sink, "order.*")))
    logger = get_logger(client=client)
    logger.info("order.placed")
    assert client.flush_sync(10)
    before, parents = client.chain.producer_id, client._engine

    client.begin_anew()

    assert sink.batches == []
    assert client._engine is not parents
    assert client.ledger().sinks["taken"].offered == 0
    assert client.figures().received == {}
    logger.info("order.placed")
    logger.info("order.updated")
    assert client.flush_sync(10)
    assert [event["sequence"] for event in sink.events] == [1, 2]
    assert {event["producer_id"] for event in sink.events} == {client.chain.producer_id}
    assert client.chain.producer_id != before
    assert client.ledger().closed
    assert sum(client.figures().received.values()) == 2


def test_sinks_that_were_never_used_are_left_as_they_are(make_client) -> None:
    """Where no event came before the fork, there is nothing to begin anew."""
    sink = Taken()
    sink.marked = True
    client = make_client(sink)

    client.begin_anew()

    assert sink.marked


def test_a_sink_that_cannot_begin_anew_is_told_of(make_client, monkeypatch) -> None:
    """By its name and the kind of the error; the child works on with it."""
    told = []
    monkeypatch.setattr(
        clients.diagnostics, "report", lambda *words: told.append(words)
    )
    sink = Taken()
    client = make_client(sink)
    client.send_sync("order.placed")
    assert client.flush_sync(10)
    sink.failing = True

    client.begin_anew()
    client.send_sync("order.placed")

    assert client.flush_sync(10)
    assert "'taken' failed in after_fork: ValueError" in told[0][1]


def test_events_on_their_way_are_the_parents(make_client) -> None:
    """Two calls that a value forked in: neither is counted, and calls may nest again."""
    sink = Taken()
    client = make_client(sink)

    class Forking:
        def __str__(self) -> str:
            if not client._depths.get("forked"):
                client.send_sync("order.updated", value=Inner())
            return "text"

        __repr__ = __str__

    class Inner:
        def __str__(self) -> str:
            client.begin_anew()
            client._depths["forked"] = 1
            return "text"

        __repr__ = __str__

    client.send_sync("order.placed", value=Forking())
    client._depths.pop("forked")

    assert client.ledger().sinks["taken"].offered == 0
    assert client._depths == {}
    client.send_sync("order.placed")
    assert client.flush_sync(10)
    assert client.ledger().sinks["taken"].delivered == 1
    assert client.ledger().closed


IMPORTS = """
import sys
import bizlog

client = bizlog.configure(sinks=["file:./events"], journal="./journal")
before = set(sys.modules)
log = bizlog.get_logger()
log.info("order.placed", order_id=1)
log.info("order.placed", order_total="no number")
assert bizlog.flush(20)
print(sorted(name for name in set(sys.modules) - before))
"""


def test_bizlogs_thread_imports_nothing(tmp_path):
    """A child that is forked meanwhile would wait for the module without end."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
