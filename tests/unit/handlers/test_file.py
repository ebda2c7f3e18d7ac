"""FileSink: files are whole, named when complete, and stay below their folder."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, Batch, Record, SendResult, make_sink
from bizlog_handlers import _folder, _parts
from bizlog_handlers.file import FileSink

COMPRESSIONS = ["none", "gzip", "zstd"]
NAME = re.compile(r"\d{8}T\d{12}Z-\d+-[0-9a-f]{8}-\d+\.jsonl(\.gz|\.zst)?")


def visible(root):
    """List the files a reader sees, below a folder."""
    return sorted(
        path for path in root.rglob("*") if path.is_file() and path.name[0] != "."
    )


def hidden(root):
    """List the unfinished files below a folder."""
    return sorted(root.rglob(".*.part"))


def lines_of(path):
    """Read one complete file line by line, by the means of its format."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt") as lines:
            return list(lines)
    if path.suffix == ".zst":
        decoder = zstandard.ZstdDecompressor()
        with path.open("rb") as file:
            data = decoder.stream_reader(file, read_across_frames=True).read()
        return data.decode().splitlines(keepends=True)
    with path.open() as lines:
        return list(lines)


def ids(root):
    """Collect the ids of all events that a reader sees; each line has to be whole."""
    found = []
    for path in visible(root):
        for line in lines_of(path):
            assert line.endswith("\n")
            found.append(json.loads(line)["event_id"])
    return found


def ids_of(*batches):
    """Collect the ids of the events in batches."""
    return [record.event_id for batch in batches for record in batch.records]


def deliver_all(sink, *batches, stop=True):
    """Start, deliver and stop on a fresh loop; the last answer."""

    async def live():
        await sink.start()
        for batch in batches:
            answer = await sink.deliver(batch)
        if stop:
            await sink.stop()
        return answer

    return asyncio.run(live())


async def eventually(condition):
    """Wait until something is so, at most five seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)


def is_part(fd):
    """Whether a descriptor is one of our hidden files."""
    return Path(f"/proc/self/fd/{fd}").readlink().suffix == ".part"


def count_descriptors():
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class FailingWrites:
    """Stands for os.write: writes to parts named by number fail half way."""

    def __init__(self, monkeypatch, *failing, error=errno.ENOSPC):
        self.failing = set(failing)
        self.error = error
        self.calls = 0
        self.write = os.write
        monkeypatch.setattr(_parts.os, "write", self)

    def __call__(self, fd, data):
        if not is_part(fd):
            return self.write(fd, data)
        self.calls += 1
        if self.calls in self.failing:
            self.write(fd, data[: len(data) // 2])
            raise OSError(self.error, os.strerror(self.error))
        return self.write(fd, data)


def fail(monkeypatch, name, error=errno.EIO):
    """Let a function of os fail until the patch is undone."""

    def failing(*_args, **_kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(_parts.os, name, failing)


# Layout and names


def test_partitions_by_type_and_date(tmp_path, make_batch, make_record):
    """The path says the event type and the day of the event, as Hive readers expect."""
    late = make_record("order.placed", "2026-11-22T23:59:59.999999Z")
    batch = make_batch("order.placed", "ai.failed", "order.placed", late)

    assert deliver_all(FileSink(tmp_path), batch) == ACCEPTED

    folders = Counter(
        path.parent.relative_to(tmp_path).as_posix()
        for path in visible(tmp_path)
        for _ in lines_of(path)
    )
    assert folders == {
        "event_type=order.placed/date=2026-11-23": 2,
        "event_type=order.placed/date=2026-11-22": 1,
        "event_type=ai.failed/date=2026-11-23": 1,
    }


def test_flat_puts_everything_into_the_folder(tmp_path, make_batch):
    """One file takes all types, in order, byte by byte as encoded."""
    batch = make_batch("order.placed", "ai.failed")

    deliver_all(FileSink(tmp_path, partition="flat"), batch)

    (path,) = visible(tmp_path)
    assert path.parent == tmp_path
    assert path.read_bytes() == b"".join(r.data + b"\n" for r in batch.records)


def test_names_are_unique_and_sort_by_time(tmp_path, make_batch):
    """Time, process, chance and a counter: no two files share a name."""
    sink = FileSink(tmp_path, partition="flat", rotate_bytes=1)

    deliver_all(sink, *(make_batch("x") for _ in range(20)))

    names = [path.name for path in visible(tmp_path)]
    assert len(names) == 20
    assert all(NAME.fullmatch(name) for name in names)
    assert all(f"-{os.getpid()}-" in name for name in names)


def test_one_write_for_each_partition_and_batch(tmp_path, make_batch, monkeypatch):
    """The events of a partition are joined, however many they are."""
    writes = FailingWrites(monkeypatch)

    deliver_all(FileSink(tmp_path), make_batch(*["a", "b"] * 500))

    assert writes.calls == 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_format_reads_line_by_line(tmp_path, make_batch, compression):
    """Several writes to one file read as one file, in order."""
    batches = [make_batch("x", "x", "x") for _ in range(3)]
    sink = FileSink(tmp_path, compression=compression)

    deliver_all(sink, *batches)

    (path,) = visible(tmp_path)
    suffix = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}[compression]
    assert path.name.endswith(suffix)
    assert ids(tmp_path) == ids_of(*batches)


def test_zstd_needs_its_extra(tmp_path, monkeypatch):
    """Without the package the sink is refused at once, with the command to run."""
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'bizlog\[zstd\]'"):
        FileSink(tmp_path, compression="zstd")


def test_url_carries_every_option(tmp_path, make_batch):
    """`file:DIR?option=…` makes the same sink as the constructor."""
    sink = make_sink(
        f"file:{tmp_path}/events?compression=gzip&partition=flat"
        "&rotate_bytes=1000&rotate_seconds=5&max_open_files=3"
    )

    deliver_all(sink, make_batch("x"))

    assert [path.suffix for path in visible(tmp_path / "events")] == [".gz"]


def test_limits_have_to_be_positive(tmp_path):
    """All wrong limits are listed at once."""
    with pytest.raises(ConfigurationError) as caught:
        FileSink(tmp_path, rotate_bytes=0, rotate_seconds=-1, max_open_files=0)

    assert len(caught.value.problems) == 3


# A final name only when complete


def test_a_file_is_hidden_until_flush(tmp_path, make_batch):
    """Readers see nothing of a file in the making, and all of it after a flush."""
    sink = FileSink(tmp_path)
    batch = make_batch("x", "y")

    async def live():
        await sink.start()
        await sink.deliver(batch)
        before = visible(tmp_path), len(hidden(tmp_path))
        await sink.flush()
        after = sorted(ids(tmp_path)), hidden(tmp_path)
        await sink.stop()
        return before, after

    before, after = asyncio.run(live())

    assert before == ([], 2)
    assert after == (ids_of(batch), [])


def test_an_empty_file_never_appears(tmp_path, make_batch, monkeypatch):
    """A file whose only write failed vanishes at the end."""
    FailingWrites(monkeypatch, 1)
    sink = FileSink(tmp_path)

    with pytest.raises(RetryableSinkError):
        deliver_all(sink, make_batch("x"))
    assert len(hidden(tmp_path)) == 1
    asyncio.run(sink.stop())

    assert (visible(tmp_path), hidden(tmp_path)) == ([], [])


def test_an_empty_batch_makes_no_file(tmp_path, make_batch):
    """Nothing to write, nothing written."""
    assert deliver_all(FileSink(tmp_path), make_batch()) == ACCEPTED
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_completed(tmp_path, make_batch):
    """A file that reached its size gets its name without flush or stop."""
    batch = make_batch("x", "x")
    size = batch.size + 2
    sink = FileSink(tmp_path, rotate_bytes=2 * size)

    async def live():
        await sink.start()
        await sink.deliver(batch)
        assert visible(tmp_path) == []
        await sink.deliver(batch)
        await eventually(lambda: visible(tmp_path) != [])

    asyncio.run(live())
    assert [path.stat().st_size for path in visible(tmp_path)] == [2 * size]
    assert hidden(tmp_path) == []


def test_a_slow_disk_completes_beside_the_writing(tmp_path, make_batch, monkeypatch):
    """While a full file is made durable the next events are written."""
    go, real = threading.Event(), os.fsync

    def slow(fd):
        go.wait(10)
        real(fd)

    monkeypatch.setattr(_parts.os, "fsync", slow)
    sink = FileSink(tmp_path, rotate_bytes=1)
    batches = [make_batch("x") for _ in range(4)]

    async def live():
        await sink.start()
        for batch in batches:
            await asyncio.wait_for(sink.deliver(batch), 5)
        assert visible(tmp_path) == []
        # A fifth would be one too many: it waits for the disk.
        fifth = asyncio.ensure_future(sink.deliver(make_batch("x")))
        await asyncio.sleep(0.05)
        assert not fifth.done()
        go.set()
        await fifth
        await sink.flush()
        assert len(visible(tmp_path)) == 5
        await sink.stop()

    asyncio.run(live())
    assert hidden(tmp_path) == []


def test_an_old_file_is_completed_though_nothing_comes(tmp_path, make_batch):
    """Age alone completes a file, also one that was opened after idle time."""
    sink = FileSink(tmp_path, rotate_seconds=0.05)

    async def live():
        await sink.start()
        for count in (1, 2):
            await asyncio.sleep(0.08)
            await sink.deliver(make_batch("x"))
            await eventually(lambda: len(visible(tmp_path)) == count)  # noqa: B023  # used at once
        await sink.stop()

    asyncio.run(live())


def test_a_young_file_is_left_open(tmp_path, make_batch):
    """The watch completes what is due, nothing else."""
    sink = FileSink(tmp_path, rotate_seconds=30)
    deliver_all(sink, make_batch("x"), stop=False)

    delay = sink._folder.retire_old()

    assert len(hidden(tmp_path)) == 1
    assert 25 < delay <= 30
    asyncio.run(sink.stop())


def test_the_watch_ends_with_stop(tmp_path, make_batch):
    """No task of ours runs on after stop, and start may come again."""
    sink = FileSink(tmp_path)

    async def live():
        for _ in range(2):
            await sink.start()
            await sink.start()
            assert len(asyncio.all_tasks()) == 2
            await sink.deliver(make_batch("x"))
            await sink.stop()
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(live())
    assert len(ids(tmp_path)) == 2


def test_open_files_are_bounded(tmp_path, make_batch):
    """Hostile types exhaust no descriptors: who waited longest is completed."""
    sink = FileSink(tmp_path, max_open_files=3)
    batch = make_batch(*(f"type{number}" for number in range(50)))

    async def live():
        await sink.start()
        before = count_descriptors()
        await sink.deliver(batch)
        more = count_descriptors() - before
        counts = len(hidden(tmp_path)), len(visible(tmp_path))
        await sink.stop()
        return more, counts

    assert asyncio.run(live()) == (3, (3, 47))
    assert sorted(ids(tmp_path)) == sorted(ids_of(batch))


def test_the_least_recently_written_file_goes_first(tmp_path, make_batch):
    """A busy type keeps its file open."""
    sink = FileSink(tmp_path, max_open_files=2)

    deliver_all(sink, *map(make_batch, ["busy", "a", "busy", "b"]), stop=False)

    assert [path.parent.parent.name for path in visible(tmp_path)] == ["event_type=a"]
    asyncio.run(sink.stop())


def test_no_existing_file_is_overwritten(tmp_path, make_batch):
    """A name that is taken stays taken; our file stays hidden and is reported."""
    sink = FileSink(tmp_path, partition="flat")
    deliver_all(sink, make_batch("x"), stop=False)
    (part,) = hidden(tmp_path)
    final = tmp_path / part.name[1 : -len(".part")]
    final.write_text("theirs")

    with pytest.raises(RetryableSinkError, match="EEXIST"):
        asyncio.run(sink.flush())

    assert final.read_text() == "theirs"
    assert part.exists()


def test_file_systems_without_hard_links(tmp_path, make_batch, monkeypatch):
    """Where link does not exist a file is renamed, and still overwrites nothing."""
    fail(monkeypatch, "link", errno.EPERM)
    one, other = FileSink(tmp_path, partition="flat"), FileSink(tmp_path / "taken")
    batch = make_batch("x")

    deliver_all(one, batch)
    deliver_all(other, batch, stop=False)
    (part,) = hidden(tmp_path / "taken")
    part.with_name(part.name[1 : -len(".part")]).write_text("theirs")

    with pytest.raises(RetryableSinkError, match="EEXIST"):
        asyncio.run(other.stop())
    assert lines_of(visible(tmp_path)[0]) == [batch.records[0].data.decode() + "\n"]


# Writes that fail


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_failed_write_leaves_whole_batches(
    tmp_path, make_batch, monkeypatch, compression
):
    """What a full disk cut is cut off again; the retry stands there once."""
    FailingWrites(monkeypatch, 2, 3)
    sink = FileSink(tmp_path, partition="flat", compression=compression)
    batches = [make_batch("x", "y", "z") for _ in range(3)]

    async def live():
        await sink.start()
        for batch in batches:
            while True:
                try:
                    assert await sink.deliver(batch) == ACCEPTED
                    break
                except RetryableSinkError as error:
                    assert "ENOSPC" in str(error)
                    assert str(tmp_path) in str(error)
        await sink.stop()

    asyncio.run(live())

    assert len(visible(tmp_path)) == 1
    assert ids(tmp_path) == ids_of(*batches)


def test_only_failed_partitions_are_sent_again(tmp_path, make_batch, monkeypatch):
    """What was written is accepted; the rest is named by position."""
    FailingWrites(monkeypatch, 2)
    batch = make_batch("a", "b", "a", "b", "c")

    answer = deliver_all(FileSink(tmp_path), batch)

    assert answer == SendResult(retry=(1, 3))
    written = {batch.records[index].event_id for index in (0, 2, 4)}
    assert set(ids(tmp_path)) == written


def test_short_writes_are_continued(tmp_path, make_batch, monkeypatch):
    """A system that takes a few bytes at a time gets them all."""
    write = os.write
    monkeypatch.setattr(_parts.os, "write", lambda fd, data: write(fd, data[:7]))
    batch = make_batch("x", "x")

    deliver_all(FileSink(tmp_path), batch)

    assert ids(tmp_path) == ids_of(batch)


def test_a_write_that_takes_nothing_is_an_error(tmp_path, make_batch, monkeypatch):
    """Zero bytes without an error do not make us wait for ever."""
    write = os.write
    monkeypatch.setattr(
        _parts.os, "write", lambda fd, data: 0 if is_part(fd) else write(fd, data)
    )

    with pytest.raises(RetryableSinkError, match="EIO"):
        deliver_all(FileSink(tmp_path), make_batch("x"))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_torn_file_is_abandoned(tmp_path, make_batch, monkeypatch, compression):
    """A tail that cannot be cut off now is never shown, and cut off before it is."""
    FailingWrites(monkeypatch, 2)
    sink = FileSink(tmp_path, partition="flat", compression=compression)
    kept, torn = make_batch("x", "y"), make_batch(*"abcdefgh")

    with monkeypatch.context() as patch:
        fail(patch, "ftruncate")
        with pytest.raises(RetryableSinkError, match="ENOSPC"):
            deliver_all(sink, kept, torn)
        assert (len(visible(tmp_path)), len(hidden(tmp_path))) == (0, 1)
    asyncio.run(sink.deliver(torn))
    asyncio.run(sink.stop())

    assert Counter(ids(tmp_path)) == Counter(ids_of(kept, torn))
    assert len(visible(tmp_path)) == 2


@pytest.mark.parametrize("function", ["fsync", "link"])
def test_a_file_that_cannot_be_completed_is_tried_again(
    tmp_path, make_batch, monkeypatch, function
):
    """Flush says so; the events are kept, and the next flush shows them."""
    sink = FileSink(tmp_path)
    batch = make_batch("x")
    deliver_all(sink, batch, stop=False)

    with monkeypatch.context() as patch:
        fail(patch, function)
        for _ in range(2):
            with pytest.raises(RetryableSinkError, match=r"completed: EIO \(OSError"):
                asyncio.run(sink.flush())
        assert sink._folder.retire_old() > 0
        assert visible(tmp_path) == []
    asyncio.run(sink.flush())

    assert ids(tmp_path) == ids_of(batch)
    assert hidden(tmp_path) == []
    assert sink._folder._unfinished == {}


def test_a_batch_is_accepted_though_its_file_cannot_be_completed(
    tmp_path, make_batch, monkeypatch
):
    """It was written: to send it again would double it."""
    sink = FileSink(tmp_path, rotate_bytes=1)
    batches = [make_batch("x"), make_batch("x")]

    with monkeypatch.context() as patch:
        fail(patch, "link", errno.ENOSPC)
        assert deliver_all(sink, *batches, stop=False) == ACCEPTED
    asyncio.run(sink.stop())

    assert sorted(ids(tmp_path)) == ids_of(*batches)


def test_a_deleted_folder_is_made_again(tmp_path, make_batch):
    """Events that come after somebody removed the folder are not written into air."""
    sink = FileSink(tmp_path / "events")
    deliver_all(sink, make_batch("x"), stop=False)
    subprocess.run(["rm", "-r", tmp_path / "events"], check=True)
    batch = make_batch("x")
    descriptors = count_descriptors()

    asyncio.run(sink.deliver(batch))
    assert count_descriptors() == descriptors
    asyncio.run(sink.stop())

    assert ids(tmp_path) == ids_of(batch)


@settings(max_examples=60, deadline=None)
@given(
    compression=st.sampled_from(COMPRESSIONS),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    failing=st.sets(st.integers(1, 12), max_size=6),
    torn=st.booleans(),
    rotate_bytes=st.sampled_from([1, 400, 10_000]),
    error=st.sampled_from([errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO]),
)
def test_no_fault_loses_doubles_or_cuts_an_event(
    tmp_path_factory, compression, sizes, failing, torn, rotate_bytes, error
):
    """Whatever writes fail: after retries each event is readable exactly once."""
    root = tmp_path_factory.mktemp("events")
    types = ["a", "b"]
    batches = [
        Batch("j", at, at, [_tiny(types[n % 2], f"{at}-{n}") for n in range(size)])
        for at, size in enumerate(sizes)
    ]
    sink = FileSink(root, compression=compression, rotate_bytes=rotate_bytes)

    async def live():
        for batch in batches:
            records = batch.records
            while records:
                try:
                    answer = await sink.deliver(Batch("j", 0, 0, records))
                except RetryableSinkError:
                    continue
                records = [records[index] for index in answer.retry]

    with pytest.MonkeyPatch.context() as patch:
        FailingWrites(patch, *failing, error=error)
        if torn:
            fail(patch, "ftruncate")
        asyncio.run(live())
    asyncio.run(sink.stop())

    assert Counter(ids(root)) == Counter(ids_of(*batches))
    assert hidden(root) == [] or torn


def _tiny(event_type, event_id):
    data = json.dumps({"event_id": event_id, "pad": "x" * 50}).encode()
    return Record(data, event_id, event_type, "2026-11-23T10:15:30.000000Z", 1)


LIMITED = """
import asyncio, json, resource, sys
from bizlog.exceptions import RetryableSinkError
from bizlog.sinks import Batch, Record
from bizlog_handlers.file import FileSink

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

async def main():
    sink = FileSink(sys.argv[1], partition="flat")
    await sink.start()
    refused = accepted = 0
    for number in range(100):
        data = json.dumps({"event_id": number, "pad": "x" * 300}).encode()
        record = Record(data, str(number), "x", "2026-11-23", number)
        try:
            await sink.deliver(Batch("j", number, number, [record] * 3))
            accepted += 3
        except RetryableSinkError as error:
            assert "EFBIG" in str(error), error
            refused += 3
            await sink.flush()
    await sink.stop()
    print(accepted, refused)

asyncio.run(main())
"""


def run_python(program, *arguments):
    """Run a program in its own process with the same import path."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_real_file_size_limit(tmp_path):
    """The kernel's own short write and EFBIG leave whole batches."""
    done = run_python(LIMITED, tmp_path)

    assert done.returncode == 0, done.stderr
    accepted, refused = map(int, done.stdout.split())
    assert refused > 0
    counts = Counter(ids(tmp_path))
    assert counts.total() == accepted
    assert set(counts.values()) == {3}


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_real_full_disk(small_disk, make_batch, make_record, compression):
    """A full disk refuses batches wholly; when there is room again they fit."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    sink = FileSink(small_disk, compression=compression)
    noise = random.Random(7)
    accepted = []

    async def fill():
        await sink.start()
        while True:
            pads = [noise.randbytes(2_000).hex() for _ in range(10)]
            batch = make_batch(*(make_record("x", pad=pad) for pad in pads))
            try:
                await sink.deliver(batch)
            except RetryableSinkError as error:
                assert "ENOSPC" in str(error)
                return batch
            accepted.extend(ids_of(batch))

    async def live():
        refused = await fill()
        ballast.unlink()
        await sink.deliver(refused)
        await sink.stop()
        return refused

    refused = asyncio.run(live())

    assert len(accepted) > 0
    assert ids(small_disk) == accepted + ids_of(refused)


# Paths


@pytest.mark.parametrize(
    "event_type",
    ["../../evil", "/etc/evil", "..", "", "a/b\0c", "CON", "x" * 300, "\u202eevil"],
)
def test_no_event_leads_out_of_the_folder(tmp_path, make_batch, event_type):
    """Types and times are data: they never choose another folder."""
    root = tmp_path / "deep" / "events"
    record = Record(b'{"event_id":"1"}', "1", event_type, "../../../x", 1)

    deliver_all(FileSink(root), make_batch(record))

    (path,) = visible(tmp_path)
    assert path.resolve().is_relative_to(root.resolve())
    assert len(path.relative_to(root).parts) == 3


def test_a_planted_link_is_not_followed(tmp_path, make_batch):
    """A link in place of a partition refuses its events, not those of the others."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (root / "event_type=order.placed").symlink_to(outside)

    answer = deliver_all(FileSink(root), make_batch("order.placed", "ai.failed"))

    assert answer.retry == (0,)
    assert list(outside.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    """The error names path, errno and the cure, and start may be tried again."""
    obstacle = tmp_path / "obstacle"
    obstacle.write_text("")
    sink = FileSink(obstacle / "events")

    async def live():
        with pytest.raises(RetryableSinkError) as caught:
            await sink.start()
        obstacle.unlink()
        await sink.start()
        await sink.stop()
        return str(caught.value)

    message = asyncio.run(live())

    assert "ENOTDIR (NotADirectoryError: Not a directory)" in message
    assert str(obstacle / "events") in message
    assert "may create and write" in message


def test_a_folder_that_takes_no_files_is_noticed_at_the_start(tmp_path, monkeypatch):
    """Rights are checked before the first event comes."""
    monkeypatch.setattr(_folder.os, "access", lambda *_: False)

    with pytest.raises(RetryableSinkError, match="EACCES"):
        asyncio.run(FileSink(tmp_path).start())


# What dead processes left

DYING = """
import asyncio, json, os, signal, sys
from bizlog.sinks import Batch, Record
from bizlog_handlers.file import FileSink

async def main():
    sink = FileSink(sys.argv[1], compression=sys.argv[2])
    await sink.start()
    for number in range(4):
        event_type = f"type{number % 2}"
        data = json.dumps({"event_id": number, "pad": "x" * 5000}).encode()
        record = Record(data, str(number), event_type, "2026-11-23T", number)
        await sink.deliver(Batch("j", number, number, [record] * 3))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("torn", ["whole", "half a line", "half a batch", "garbage"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_files_of_a_killed_process_are_completed(tmp_path, compression, torn):
    """The next start shows all whole writes of a dead process and cuts a torn tail."""
    done = run_python(DYING, tmp_path, compression)
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = hidden(tmp_path)
    assert (len(parts), visible(tmp_path)) == (2, [])
    for part in parts:
        content = part.read_bytes()
        tails = {
            "whole": b"",
            "half a line": content[:40],
            "half a batch": content[: len(content) // 3],
            "garbage": b"\0\xff" * 100_000,
        }
        with part.open("ab") as file:
            file.write(tails[torn])

    async def live():
        sink = FileSink(tmp_path)
        await sink.start()
        await sink.stop()

    asyncio.run(live())

    counts = Counter(ids(tmp_path))
    assert counts.keys() == {0, 1, 2, 3}
    assert hidden(tmp_path) == []
    if torn != "half a batch" or compression != "none":
        # Plain lines of a batch that was cut are whole lines all the same.
        assert set(counts.values()) == {3}


def test_a_file_with_an_owner_is_left_alone(tmp_path, make_batch):
    """Another sink on the same folder does not touch what is being written."""
    sink, other = FileSink(tmp_path), FileSink(tmp_path)
    batches = [make_batch("x"), make_batch("x")]

    async def live():
        await sink.start()
        await sink.deliver(batches[0])
        await other.start()
        assert visible(tmp_path) == []
        await sink.deliver(batches[1])
        await sink.stop()
        await other.stop()

    asyncio.run(live())
    assert ids(tmp_path) == ids_of(*batches)


def test_foreign_files_are_left_alone(tmp_path, caplog):
    """Only regular files of ours, where we put them, are touched; none is deleted."""
    name = ".20261123T101530123456Z-1-0123abcd-1.jsonl.part"
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / name).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "target").write_bytes(b"{}\ntorn")
    (tmp_path / "b" / name).symlink_to(tmp_path / "target")
    (tmp_path / ".theirs.part").write_bytes(b"{}\n")
    leave_behind(tmp_path / "too" / "deep" / "down")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / name).write_bytes(b"no line end")
    before = sorted(tmp_path.rglob("*"))

    asyncio.run(FileSink(tmp_path).start())

    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "target").read_bytes() == b"{}\ntorn"
    assert (tmp_path / "c" / name).read_bytes() == b"no line end"
    assert caplog.records == []


def leave_behind(folder, content=b"{}\n", suffix=".jsonl", number=1):
    """Make a hidden part as a dead process leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".20261123T101530123456Z-1-0123abcd-{number}{suffix}.part"
    part.write_bytes(content)
    return part


def test_a_crash_between_two_names_is_finished(tmp_path):
    """A file that has both names keeps its final one."""
    part = leave_behind(tmp_path)
    final = tmp_path / part.name[1 : -len(".part")]
    os.link(part, final)

    _parts.finish(part)

    assert [path.name for path in tmp_path.iterdir()] == [final.name]


def test_a_part_that_is_gone_is_no_error(tmp_path, monkeypatch):
    """Another process may complete it at the same moment."""
    part = leave_behind(tmp_path)
    fail(monkeypatch, "link", errno.ENOENT)

    _parts.finish(part)
    _parts.finish(tmp_path / part.name.replace("-1.", "-2."))

    assert part.exists()


def test_what_cannot_be_adopted_does_not_stop_the_start(tmp_path, monkeypatch, caplog):
    """A start works though a part is zstd without its package, or cannot be read."""
    leave_behind(tmp_path / "a", suffix=".jsonl.zst")
    leave_behind(tmp_path / "b")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    fail(monkeypatch, "link")

    asyncio.run(FileSink(tmp_path).start())

    assert len(hidden(tmp_path)) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_adoption_takes_bounded_time(tmp_path, monkeypatch, caplog):
    """A folder full of leftovers delays the start by seconds at most."""
    leave_behind(tmp_path)
    monkeypatch.setattr(_folder, "_ADOPTION_SECONDS", -1.0)

    asyncio.run(FileSink(tmp_path).start())

    assert len(hidden(tmp_path)) == 1
    assert "left for later" in caplog.text


def test_folders_that_cannot_be_listed_are_skipped(tmp_path, monkeypatch):
    """A folder that vanishes during the search ends nothing."""
    fail(monkeypatch, "scandir", errno.ENOENT)

    assert list(_parts.leftovers(tmp_path)) == []


def test_file_systems_without_locks(tmp_path, make_batch, monkeypatch):
    """Without locks files are written all the same, and nobody adopts."""

    def flock(_fd, _operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    part = leave_behind(tmp_path)
    batch = make_batch("x")

    deliver_all(FileSink(tmp_path), batch)

    assert ids(tmp_path) == ids_of(batch)
    assert hidden(tmp_path) == [part]


# Threads, loops and processes


def test_a_caller_that_gives_up_disturbs_no_later_batch(
    tmp_path, make_batch, monkeypatch
):
    """After a time-out the next batch waits until the thread is really done."""
    sink = FileSink(tmp_path, partition="flat")
    slow, quick = make_batch("slow"), make_batch("quick")
    go, running = threading.Event(), threading.Event()
    write = os.write

    def blocked(fd, data):
        if is_part(fd) and b"slow" in bytes(data):
            running.set()
            assert go.wait(10)
        return write(fd, data)

    monkeypatch.setattr(_parts.os, "write", blocked)

    async def live():
        await sink.start()
        late = asyncio.create_task(sink.deliver(slow))
        await asyncio.to_thread(running.wait, 10)
        late.cancel()
        next_one = asyncio.create_task(sink.deliver(quick))
        await asyncio.sleep(0.05)
        assert not next_one.done()
        go.set()
        await next_one
        await sink.stop()

    asyncio.run(live())

    assert ids(tmp_path) == ids_of(slow, quick)


def test_a_failure_nobody_waits_for_makes_no_noise(tmp_path, make_batch, monkeypatch):
    """A thread that fails after its caller gave up leaves no unread exception."""
    sink = FileSink(tmp_path)
    noise = []
    go, running = threading.Event(), threading.Event()

    def refuse(_fd, _data):
        running.set()
        assert go.wait(10)
        raise MemoryError

    async def live():
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: noise.append(context)
        )
        late = asyncio.create_task(sink.deliver(make_batch("x")))
        await asyncio.to_thread(running.wait, 10)
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        monkeypatch.undo()
        go.set()
        await sink.stop()

    monkeypatch.setattr(_parts, "_write_all", refuse)
    asyncio.run(live())

    assert noise == []


def test_a_forked_child_leaves_the_files_to_its_parent(tmp_path, make_batch):
    """Parent and child write files of their own; each event is there once."""
    sink = FileSink(tmp_path)
    before, parents, childs = (make_batch("x") for _ in range(3))
    deliver_all(sink, before, stop=False)

    child = os.fork()
    if not child:
        try:
            deliver_all(sink, childs)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert ids(tmp_path) == ids_of(childs)
    asyncio.run(sink.deliver(parents))
    asyncio.run(sink.stop())

    assert sorted(ids(tmp_path)) == ids_of(before, parents, childs)
    assert len(visible(tmp_path)) == 2


def test_works_on_one_loop_after_another(tmp_path, make_batch):
    """Each `asyncio.run` may drive the same sink."""
    sink = FileSink(tmp_path)
    batches = [make_batch("x") for _ in range(3)]

    async def contend(batch):
        await sink.start()
        await asyncio.gather(sink.flush(), sink.deliver(batch), sink.flush())
        await sink.stop()

    for batch in batches:
        asyncio.run(contend(batch))

    assert sorted(ids(tmp_path)) == ids_of(*batches)


def test_paths_may_be_path_objects(tmp_path):
    """`Path` and text name the same folder."""
    for directory in (tmp_path / "a", str(tmp_path / "a")):
        asyncio.run(FileSink(directory).start())

    assert Path(tmp_path / "a").is_dir()


def test_inherited_files_are_closed_not_completed(tmp_path, make_batch, monkeypatch):
    """What a child inherits is its parent's: the child only gives up its copies."""
    sink = FileSink(tmp_path)
    deliver_all(sink, make_batch("x"), stop=False)
    descriptors = count_descriptors()
    monkeypatch.setattr(_folder.os, "getpid", lambda: -1)

    asyncio.run(sink.stop())

    assert count_descriptors() == descriptors - 1
    assert (len(hidden(tmp_path)), visible(tmp_path)) == (1, [])


def test_a_loop_that_ends_early_is_survived(tmp_path, make_batch, monkeypatch):
    """A loop that cancels the work itself leaves a sink that works on the next."""
    sink = FileSink(tmp_path)
    batch = make_batch("x")
    write_all = _parts._write_all
    running = threading.Event()

    def slow(fd, data):
        running.set()
        time.sleep(0.05)
        write_all(fd, data)

    async def leave():
        late = asyncio.create_task(sink.deliver(batch))
        await asyncio.to_thread(running.wait, 10)
        assert not late.done()

    monkeypatch.setattr(_parts, "_write_all", slow)
    asyncio.run(leave())
    asyncio.run(sink.stop())

    assert ids(tmp_path) == ids_of(batch)
