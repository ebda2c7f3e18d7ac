"""Disks and settings that do not work: clear words, and no event uncounted."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import bizlog
from bizlog.exceptions import PermanentSinkError
from bizlog.testing import FaultySink, MemorySink
from bizlog_handlers.composite import CompositeSink
from bizlog_handlers.file import FileSink


def letters(folder: Path) -> list[dict[str, Any]]:
    """Read the dead letters."""
    return lines(folder.glob("*.jsonl"))


def lines(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def client(
    tmp_path: Path, *sinks: Any, **options: Any
) -> bizlog.BusinessTelemetryClient:
    """Make a client whose dead letters go below tmp_path."""
    dead = str(options.pop("dead_letters", tmp_path / "dead"))
    return bizlog.BusinessTelemetryClient(
        source="t", sinks=sinks, dead_letters=dead, **options
    )


def test_an_unwritable_folder_loses_nothing(tmp_path: Path) -> None:
    """A folder that cannot be made: in the end each event is a dead letter that says so."""
    (tmp_path / "file").write_text("")
    sink = f"file:{tmp_path}/file/events"
    with client(tmp_path, sink, shutdown_timeout=0.5) as telemetry:
        for number in range(250):
            telemetry.send_sync("order.placed", order_id=number)
    ledger = telemetry.ledger().sinks["file"]
    assert ledger.dead_lettered == 250
    assert ledger.closed
    kept = letters(tmp_path / "dead")
    assert len({letter["event_id"] for letter in kept}) == 250
    assert "NotADirectoryError" in kept[0]["reason"] or "ENOTDIR" in kept[0]["reason"]
    assert kept[0]["sink"] == "file"


def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that finds no space: no torn line in the files, the rest comes later."""
    events = tmp_path / "events"
    real, room = os.write, [2_000]

    def write(descriptor: int, data: bytes) -> int:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if not name.startswith(str(events)):
            return real(descriptor, data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, bytes(data)[: room[0]])
        room[0] -= written
        return written

    with client(tmp_path, FileSink(str(events)), batch_size=1) as telemetry:
        telemetry.send_sync("order.placed", order_id="first")
        assert telemetry.flush_sync(10)
        monkeypatch.setattr(os, "write", write)
        for number in range(50):
            telemetry.send_sync("order.placed", order_id=number, note="x" * 200)
        assert not telemetry.flush_sync(0.5)
        before = telemetry.ledger().sinks["file"]
        assert before.pending > 0
        assert len(lines(events.glob("*/*/*.jsonl"))) == before.delivered
        monkeypatch.setattr(os, "write", real)
        assert telemetry.flush_sync(40)
    ledger = telemetry.ledger().sinks["file"]
    assert ledger.closed
    assert ledger.delivered == 51
    found = lines(events.glob("*/*/*.jsonl"))
    assert len(found) == len({line["event_id"] for line in found}) == 51
    assert letters(tmp_path / "dead") == []


def test_dead_letters_that_cannot_be_kept_are_counted(tmp_path: Path) -> None:
    """With sink and dead letters out of reach the events are counted as dropped."""
    (tmp_path / "file").write_text("")
    sink = FaultySink(fail_calls=None, error=PermanentSinkError("no"))
    with client(tmp_path, sink, dead_letters=tmp_path / "file" / "dead") as telemetry:
        for _ in range(7):
            telemetry.send_sync("order.placed")
        telemetry.send_sync("order.placed", order_total=True)
    ledger = telemetry.ledger().sinks["faulty"]
    assert ledger.dropped == {"dead_letters_failed": 7}
    assert ledger.rejected == 1
    assert ledger.closed


def test_a_sink_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    """Start raises once: its batch waits, nothing becomes a dead letter."""
    sink = FaultySink(fail_start=1, error=RuntimeError("not yet"))
    with client(tmp_path, sink) as telemetry:
        telemetry.send_sync("order.placed", order_id="a")
        telemetry.flush_sync(10)
        telemetry.send_sync("order.placed", order_id="b")
        telemetry.flush_sync(10)
    assert letters(tmp_path / "dead") == []
    assert [event["order_id"] for event in sink.events] == ["a", "b"]
    assert telemetry.ledger().closed


def test_composite_members_have_their_own_lanes(tmp_path: Path) -> None:
    """A dead member holds up no other; routes decide, and the ledger counts each."""
    everything, orders, large = MemorySink(), MemorySink(), MemorySink()
    composite = CompositeSink(
        everything,
        FaultySink(fail_calls=None, error=PermanentSinkError("no")),
        bizlog.Route(orders, "order.*"),
        bizlog.Route(large, when=lambda event: event.get("order_total", 0) > 100),
    )
    with client(tmp_path, composite) as telemetry:
        telemetry.send_sync("order.placed", order_total=500)
        telemetry.send_sync("order.placed", order_total=5)
        telemetry.send_sync("product.viewed")
    counts = [len(sink.records) for sink in (everything, orders, large)]
    assert counts == [3, 2, 1]
    ledger = telemetry.ledger()
    assert ledger.closed
    assert [sink.offered for sink in ledger.sinks.values()] == [3, 3, 2, 1]
    assert ledger.sinks["faulty"].dead_lettered == 3


def test_an_unknown_sink_url_names_the_known_ones() -> None:
    """An unknown scheme is refused, with the nearest and all known names."""
    with pytest.raises(bizlog.ConfigurationError) as caught:
        bizlog.configure(sinks=["flie:./events"])
    text = str(caught.value)
    assert "sinks[0]" in text
    assert "did you mean 'file'" in text
    assert "console, eventhub, file, http, https, kafka, null" in text
