"""Journals of real processes: killed, forked, racing for what the dead left, full disks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bizlog.delivery.folder import JournalFolder, inspect

PRELUDE = """
import os, sys, time
from bizlog.delivery.folder import JournalFolder
from bizlog.delivery.journal import LaneState
from bizlog.sinks import Record

def records(begin, end):
    event = '{"event_id":"%d","event_type":"a.b","sequence":%d,"note":"%s"}'
    return [
        Record((event % (n, n, "x" * 200)).encode(), str(n), "a.b", "", n)
        for n in range(begin, end)
    ]

folder = JournalFolder(sys.argv[1])
"""

APPEND_FOR_EVER = """
journal = folder.create()
journal.seal("file", LaneState(0))
while True:
    journal.append(records(journal.end, journal.end + 20))
    os.write(1, b"%d\\n" % journal.end)  # accepted
"""

SIX_JOURNALS = """
for _ in range(6):
    folder.create().append(records(0, 5))
os.kill(os.getpid(), 9)
"""

ADOPT = """
print("ready", flush=True)
sys.stdin.readline()
print(*[journal.journal_id for journal in folder.adopt()], flush=True)
sys.stdin.readline()
"""

FORK_AND_DIE = """
journal = folder.create()
journal.seal("file", LaneState(0))
journal.append(records(0, 10))
child = os.fork()
if child == 0:
    folder.leave_to_parent()
    own = folder.create()
    own.append(records(0, 5))
    print(os.getpid(), own.journal_id, flush=True)
    time.sleep(60)
os.kill(os.getpid(), 9)
"""

CHILD_ENDS = """
journal = folder.create()
journal.seal("file", LaneState(0))
journal.append(records(0, 10))
child = os.fork()
if child == 0:
    folder.leave_to_parent()
    journal.append(records(0, 10))
    journal.close(remove=True)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
journal.append(records(10, 20))
print(journal.durable, len(folder.adopt()), flush=True)
os.kill(os.getpid(), 9)
"""

FULL_DISK = """
import resource
now = [0.0]
folder = JournalFolder(sys.argv[1], clock=lambda: now[0])
journal = folder.create()
journal.seal("file", LaneState(0))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, most))
while journal.durable:
    journal.append(records(journal.end, journal.end + 500))
journal.append(records(journal.end, journal.end + 500))
now[0] = 1.5
journal.maintain(now[0])
full = [journal.durable, journal.fallbacks, journal.memory_events > 0]
found = 0
while found < journal.end:
    piece = journal.read(found, 1000, 1 << 20)
    assert [r.sequence for r in piece] == list(range(found, found + len(piece)))
    found += len(piece)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
now[0] = 3.0
journal.maintain(now[0])
print(full, journal.durable, journal.memory_events, journal.lost, journal.end)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that has a journal folder."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def run(code: str, folder: Path, complaint: str = "") -> str:
    """Let a process live and die; what it wrote, and on stderr only its complaint."""
    with start(code, folder) as process:
        output, errors = process.communicate(timeout=50)
    assert errors.startswith(complaint)
    assert errors.count("\n") == bool(complaint)
    return output


def sequences(folder: Path) -> list[int]:
    """Adopt all that is there; the numbers of the events, in order of the journals."""
    found: list[int] = []
    for journal in JournalFolder(folder).adopt():
        position = journal.start
        while piece := journal.read(position, 1_000, 1 << 20):
            for record in piece:
                assert json.loads(record.data)["sequence"] == record.sequence
            found += [record.sequence for record in piece]
            position += len(piece)
        assert position == journal.end
        journal.close()
    return found


def test_what_was_accepted_survives_sigkill(tmp_path: Path) -> None:
    """Ten kills at random moments: nothing accepted is lost, and no half run is there."""
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    for kill in range(10):
        folder = tmp_path / str(kill)
        with start(APPEND_FOR_EVER, folder) as process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
            accepted = [20, *map(int, process.stdout.read().split())]

        found = sequences(folder)

        assert found == list(range(len(found))), f"seed {seed}"
        assert accepted[-1] <= len(found) <= accepted[-1] + 20, f"seed {seed}"
        assert len(found) % 20 == 0


def test_exactly_one_adopts(tmp_path: Path) -> None:
    """Processes that race for what the dead left share it: each journal goes to one."""
    run(SIX_JOURNALS, tmp_path)
    orphans = {info.journal_id for info in inspect(tmp_path)}
    racers = [start(ADOPT, tmp_path) for _ in range(3)]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        adopted = [each for racer in racers for each in racer.stdout.readline().split()]
        states = {info.state for info in inspect(tmp_path)}
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()

    assert len(orphans) == 6
    assert sorted(adopted) == sorted(orphans)
    assert states == {"live"}


def test_a_child_does_not_keep_its_parents_journal(tmp_path: Path) -> None:
    """The parent dies, its child lives: the parent's journal is free, the child's is not."""
    with start(FORK_AND_DIE, tmp_path) as process:
        child, own = process.stdout.readline().split()
        try:
            assert process.wait(30) == -signal.SIGKILL
            states = {info.journal_id: info.state for info in inspect(tmp_path)}
            assert states.pop(own) == "live"
            assert list(states.values()) == ["orphan"]
            assert sequences(tmp_path) == list(range(10))
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_child_that_ends_leaves_its_parents_journal(tmp_path: Path) -> None:
    """What a child does with its parent's journal, its end included, changes nothing."""
    assert run(CHILD_ENDS, tmp_path) == "True 0\n"
    assert sequences(tmp_path) == list(range(20))


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit of file sizes")
def test_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    """Real writes that fail: all is in memory, and on disk when there is room again."""
    output = run(FULL_DISK, tmp_path, "bizlog: the journal cannot be written")
    full, durable, in_memory, lost, end = output.rsplit(" ", 4)

    assert full == "[False, 1, True]"
    assert (durable, in_memory, lost) == ("True", "0", "0")
    assert sequences(tmp_path) == list(range(int(end)))
