"""The journal end to end: what a service emitted outlives its process and its disk."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bizlog
import bizlog.client
from bizlog import BaseSink, Batch, RetryableSinkError, SendResult
from bizlog.cli import main
from bizlog.delivery import keeper, mounts
from bizlog.delivery.inspection import inspect
from bizlog.sinks import ACCEPTED
from bizlog.testing import MemorySink

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start without a process-wide client, in an empty folder, and end it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    yield
    bizlog.shutdown(timeout=0.5)


def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Wait in real time until something holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {bizlog.ledger()}"
        time.sleep(0.005)


def emit(events: int, first: int = 0) -> None:
    """Emit numbered events."""
    log = bizlog.get_logger()
    for number in range(first, first + events):
        log.info("order.placed", order_id=number)


def numbers(sink: MemorySink) -> list[int]:
    """Read the numbers of the events that a sink got."""
    return [int(event["order_id"]) for event in sink.events]


def journals(folder: str = "journal") -> list[Path]:
    """List the journal files."""
    return sorted(Path(folder).glob("*.db"))


def delete(folder: str) -> None:
    """Delete a folder in which bizlog may be making files."""
    until(
        lambda: shutil.rmtree(folder, ignore_errors=True) or not Path(folder).exists()
    )


def letters() -> list[Path]:
    """List the files of dead letters."""
    return list(Path("bizlog-dead-letters").glob("*.jsonl"))


class Down(BaseSink):
    """Stands where the memory sink stands later, and is down."""

    name = "memory"

    async def start(self) -> None:
        raise RetryableSinkError("down")


class Named(BaseSink):
    """Remembers the names of its batches; fails until it is told to work."""

    name = "memory"

    def __init__(self) -> None:
        self.works = False
        self.names: list[str] = []

    async def deliver(self, batch: Batch) -> SendResult:
        self.names.append(batch.name)
        if not self.works:
            raise RetryableSinkError("not yet")
        return ACCEPTED


CHILD = """\
import os, sys, time
import bizlog
from bizlog import BaseSink, RetryableSinkError

class Down(BaseSink):
    name = "memory"
    async def start(self):
        raise RetryableSinkError("down")

bizlog.configure(
    source="t", sinks=[Down()], journal="journal", flush_interval=float(sys.argv[2])
)
log = bizlog.get_logger()
for number in range(int(sys.argv[1])):
    log.info("order.placed", order_id=number)
bizlog.flush(0.3)
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


def run_and_kill(events: int, flush_interval: float = 5.0) -> None:
    """Run a service whose sink is down, and kill it once its journal has all."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'handlers'}"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(events), str(flush_interval)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout == "ready\n", done.stderr
    assert done.returncode == -9


TAIL = """\
import os, signal, sys
import bizlog
from bizlog.delivery.queue import FrontQueue

bizlog.configure(source="t", sinks=["file:events"], journal="journal")
log = bizlog.get_logger()
log.info("order.placed", order_id=1)
bizlog.flush(10)
if sys.argv[1] == "fork" and os.fork():
    os.wait()
    os._exit(0)
if sys.argv[1] == "fork":
    log.info("order.placed", order_id=1)
    bizlog.flush(10)
FrontQueue.take = lambda *_: []  # what comes now stays in the queue
for number in range(2, 1_001):
    log.info("order.placed", order_id=number)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("who", ["parent", "fork"])
def test_what_a_process_loses_at_its_very_end_is_named(
    who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM without a handler takes the queue along; `bizlog gaps` names all of it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'handlers'}"}
    command = [sys.executable, "-c", TAIL, who]
    done = subprocess.run(command, env=environment, timeout=50, check=False)
    assert done.returncode == (-15 if who == "parent" else 0)

    bizlog.configure(source="t", sinks=["file:events"], journal="journal")
    bizlog.get_logger().info("order.placed", order_id=0)
    until(lambda: len(journals()) == 1)  # the dead one's is delivered
    bizlog.shutdown(10)
    capsys.readouterr()

    assert main(["gaps", "events", "journal", "--json"]) == 1
    producers = json.loads(capsys.readouterr().out)["producers"]
    (dead,) = [each for each in producers if each["missing"]]
    assert dead["missing_ranges"] == [[2, 1_000]]
    assert len(list(Path("journal").glob("*.mark"))) == 1


def test_a_killed_process_loses_nothing_that_its_journal_had() -> None:
    """The next process delivers it, once, and the file is gone."""
    run_and_kill(1_500)
    assert len(journals()) == 1
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal")
    until(lambda: bizlog.ledger().sinks["memory"].delivered == 1_500)
    assert numbers(sink) == list(range(1_500))
    until(lambda: len(journals()) <= 1)
    ledger = bizlog.ledger().sinks["memory"]
    assert ledger.offered == 1_500 and ledger.closed
    assert bizlog.shutdown(timeout=10)
    assert journals() == [] and letters() == []


def test_events_that_no_batch_was_made_of_are_not_forgotten() -> None:
    """A process that died before its first batch left events that are delivered."""
    run_and_kill(7, flush_interval=60.0)
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal")
    until(lambda: bizlog.ledger().sinks["memory"].delivered == 7)
    assert numbers(sink) == list(range(7))


def test_new_events_do_not_wait_for_old_ones() -> None:
    """What is emitted now goes out beside what a dead process left behind."""
    run_and_kill(3_000)
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal", batch_size=1)
    emit(1, first=100_000)
    assert bizlog.flush(timeout=20)
    assert 100_000 in numbers(sink)
    until(lambda: bizlog.ledger().sinks["memory"].delivered == 3_001)
    assert sorted(numbers(sink)) == [*range(3_000), 100_000]


def test_what_a_shutdown_cannot_deliver_stays_in_the_journal() -> None:
    """It is pending, not dead: no letter is written, and the next client delivers."""
    bizlog.configure(source="t", sinks=[Down()], journal="journal")
    emit(250)
    assert not bizlog.shutdown(timeout=0.2)
    ledger = bizlog.ledger().sinks["memory"]
    assert (ledger.pending, ledger.dead_lettered) == (250, 0)
    assert ledger.balanced and letters() == []
    sink = MemorySink()
    client = bizlog.BusinessTelemetryClient(source="t", sinks=[sink], journal="journal")
    until(lambda: client.ledger().sinks["memory"].delivered == 250)
    client.shutdown_sync(timeout=10)
    assert numbers(sink) == list(range(250))
    assert journals() == []


def test_a_batch_keeps_its_name_over_a_restart() -> None:
    """What was sealed before the process ended is sent again under the same name."""
    before = Named()
    bizlog.configure(
        source="t", sinks=[before], journal="journal", batch_size=10, flush_interval=0
    )
    emit(1)
    until(lambda: before.names)
    emit(30, first=1)
    assert not bizlog.shutdown(timeout=0.3)
    after = Named()
    after.works = True
    client = bizlog.BusinessTelemetryClient(
        source="t", sinks=[after], journal="journal"
    )
    until(lambda: client.ledger().sinks["memory"].delivered == 31)
    client.shutdown_sync(timeout=10)
    assert after.names[0] == before.names[0]
    assert len(set(before.names)) == 1


def test_a_living_sibling_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs finds the journal of one that died meanwhile."""
    monkeypatch.setattr(keeper, "ADOPT_SECONDS", 0.2)
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal", flush_interval=0)
    emit(1, first=10_000)
    assert bizlog.flush(timeout=10)
    run_and_kill(40)
    until(lambda: bizlog.ledger().sinks["memory"].delivered == 41)
    assert sorted(numbers(sink)) == [*range(40), 10_000]


def test_events_for_a_sink_that_is_not_configured_stay() -> None:
    """They are neither given to another sink nor deleted."""
    run_and_kill(20)

    class Other(MemorySink):
        name = "other"

    other = Other()
    bizlog.configure(source="t", sinks=[other], journal="journal", flush_interval=0)
    emit(1)
    assert bizlog.flush(timeout=10)
    assert bizlog.shutdown(timeout=10)
    assert numbers(other) == [0]
    assert len(journals()) == 1
    sink = MemorySink()
    client = bizlog.BusinessTelemetryClient(source="t", sinks=[sink], journal="journal")
    until(lambda: client.ledger().sinks["memory"].delivered == 20)
    client.shutdown_sync(timeout=10)


def test_old_events_can_be_given_up() -> None:
    """With `journal_max_age`, what is older is counted dropped{journal_expired}."""
    run_and_kill(20)
    time.sleep(0.1)
    bizlog.configure(
        source="t", sinks=[MemorySink()], journal="journal", journal_max_age=0.05
    )
    until(lambda: bizlog.ledger().sinks["memory"].offered == 20)
    ledger = bizlog.ledger().sinks["memory"]
    assert ledger.dropped == {"journal_expired": 20} and ledger.closed
    assert bizlog.shutdown(timeout=10)
    assert journals() == []


def test_a_deleted_folder_hurts_nobody() -> None:
    """Events go on; within seconds the journal stands in a new folder, with all."""
    down = Down()
    bizlog.configure(source="t", sinks=[down], journal="journal")
    emit(100)
    until(journals)
    delete("journal")
    emit(100, first=100)
    until(lambda: journals() and bizlog.ledger().sinks["memory"].pending == 200)
    time.sleep(0.5)
    assert not bizlog.shutdown(timeout=0.2)
    assert bizlog.ledger().balanced
    sink = MemorySink()
    client = bizlog.BusinessTelemetryClient(source="t", sinks=[sink], journal="journal")
    until(lambda: client.ledger().sinks["memory"].delivered == 200)
    client.shutdown_sync(timeout=10)
    assert sorted(numbers(sink)) == list(range(200))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_no_hindrance() -> None:
    """Events are kept in memory and delivered."""
    Path("journal").mkdir(mode=0o500)
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal")
    emit(10)
    assert bizlog.flush(timeout=10)
    assert numbers(sink) == list(range(10))


def test_a_file_in_the_folders_place_is_no_hindrance() -> None:
    """Where no folder can be made, events are kept in memory and delivered."""
    Path("journal").write_text("a file")
    sink = MemorySink()
    bizlog.configure(source="t", sinks=[sink], journal="journal")
    emit(10)
    assert bizlog.flush(timeout=10)
    assert numbers(sink) == list(range(10))
    assert bizlog.ledger().closed


def test_what_no_disk_takes_becomes_dead_letters_at_the_end() -> None:
    """Without the disk and without the sink, nothing is lost silently."""
    Path("journal").write_text("a file")
    bizlog.configure(source="t", sinks=[Down()], journal="journal")
    emit(10)
    assert not bizlog.shutdown(timeout=0.3)
    ledger = bizlog.ledger().sinks["memory"]
    assert ledger.dead_lettered == 10 and ledger.closed
    (file,) = letters()
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert [int(each["record"]["order_id"]) for each in written] == list(range(10))


def test_a_full_journal_holds_the_callers_back() -> None:
    """At `journal_max_bytes` with all lanes behind, the queue's overflow applies."""
    bizlog.configure(
        source="t",
        sinks=[Down()],
        journal="journal",
        journal_max_bytes=50_000,
        queue_events=100,
    )
    for burst in range(30):
        emit(50, first=burst * 50)
        time.sleep(0.02)
    ledger = bizlog.ledger().sinks["memory"]
    assert ledger.dropped["queue_full"] > 0
    assert ledger.balanced
    bizlog.shutdown(timeout=0.1)
    assert bizlog.ledger().balanced


def test_the_receipt_of_the_journal() -> None:
    """`confirm(level="journal")` returns when the event is on disk, sink or no sink."""
    client = bizlog.configure(source="t", sinks=[Down()], journal="journal")
    receipt = asyncio.run(
        client.confirm("order.placed", order_id="1", level="journal", timeout=20)
    )
    assert receipt.confirmed and receipt.journaled
    assert receipt.sinks["memory"].state == "pending"


def test_the_ledger_stands_in_the_journal() -> None:
    """Readers of a living process's folder find its ledger there."""
    bizlog.configure(source="t", sinks=[Down()], journal="journal")
    emit(5)

    def noted() -> Any:
        found = [info.notes.get("ledger") for info in inspect("journal")]
        return json.loads(found[0]) if found and found[0] else None

    def pending() -> int:
        ledger = noted()
        return ledger["sinks"]["memory"]["pending"] if ledger else 0

    until(journals)
    until(lambda: pending() == 5)


def test_two_clients_share_a_folder() -> None:
    """Each has a file of its own."""
    one, two = MemorySink(), MemorySink()
    first = bizlog.BusinessTelemetryClient(source="a", sinks=[one], journal="journal")
    second = bizlog.BusinessTelemetryClient(source="b", sinks=[two], journal="journal")
    first.send_sync("order.placed", order_id=1)
    second.send_sync("order.placed", order_id=2)
    until(lambda: len(journals()) == 2)
    assert first.shutdown_sync(timeout=10) and second.shutdown_sync(timeout=10)
    assert (numbers(one), numbers(two)) == ([1], [2])
    assert journals() == []


def test_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's log does not work there; the error says what to do."""
    monkeypatch.setattr(mounts, "file_system", lambda _: "nfs4")
    with pytest.raises(bizlog.ConfigurationError, match="nfs4"):
        bizlog.configure(source="t", sinks=[MemorySink()], journal="journal")


def test_dead_letters_have_a_limit() -> None:
    """Beyond `dead_letters_max_bytes` they are dropped{dead_letters_failed}."""
    bizlog.configure(source="t", sinks=[Down()], dead_letters_max_bytes=1_000)
    emit(20)
    assert not bizlog.shutdown(timeout=0.2)
    ledger = bizlog.ledger().sinks["memory"]
    assert ledger.dropped == {"dead_letters_failed": 20} and ledger.closed
    assert letters() == []
