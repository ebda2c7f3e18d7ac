"""Invoice files and event files, small and with every kind of row."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bizlog import sinks
from bizlog.cli.entries import EventLine, Place, read_entry
from bizlog.delivery import locks
from bizlog.delivery.journal import LaneState
from bizlog.delivery.sqlite import SqliteJournal
from bizlog.ledger import Ledger, SinkLedger
from bizlog.sinks import ACCEPTED, BaseSink, Batch, Record, Rejection, SendResult

HEADER = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
)

WriteCsv = Callable[..., Path]


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Write a CSV file with the header of the data set and the rows given."""

    def write(*rows: str, header: str = HEADER, name: str = "shop.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, with no setting from outside."""
    monkeypatch.delenv("BIZLOG_DEAD_LETTERS", raising=False)
    monkeypatch.delenv("BIZLOG_JOURNAL", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def event_line(number: int, event_type: str = "order.placed", **fields: Any) -> bytes:
    """Write an event as bizlog does; the number gives its id, time and sequence."""
    event = {
        "event_id": f"0193a6a0-0000-7000-8000-{number:012d}",
        "event_type": event_type,
        "event_source": "shop",
        "event_time": f"2026-11-23T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
        "producer_id": "producer-1",
        "sequence": number,
        **fields,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def letter_line(event: bytes, *, as_text: bool = False, **fields: Any) -> bytes:
    """Write a dead letter around an event; `as_text` as base64."""
    record = base64.b64encode(event).decode() if as_text else json.loads(event)
    letter = {
        "reason": "HTTP 503",
        "path": None,
        "sink": "http",
        "attempts": 2,
        "first_at": "2026-11-23T10:00:00.000000Z",
        "last_at": "2026-11-23T10:00:09.000000Z",
        "event_id": json.loads(event).get("event_id"),
        "record": record,
        **fields,
    }
    return json.dumps(letter, separators=(",", ":")).encode()


@pytest.fixture
def make_event() -> Callable[..., bytes]:
    """Make an event as one line of JSON."""
    return event_line


@pytest.fixture
def make_letter() -> Callable[..., bytes]:
    """Make a dead letter as one line of JSON."""
    return letter_line


@pytest.fixture
def write_lines(own_folder: Path) -> Callable[..., Path]:
    """Write lines into a file of the current folder."""

    def write(name: str, *lines: bytes) -> Path:
        path = own_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def read_back() -> Callable[[Path], list[bytes]]:
    """Read all events below a folder, as their bytes, in the order of their ids."""

    def read(folder: Path) -> list[bytes]:
        paths = sorted(folder.rglob("*.jsonl"))
        return sorted(line for path in paths for line in path.read_bytes().splitlines())

    return read


def records_of(numbers: Iterable[int]) -> list[Record]:
    """Make records with these numbers."""
    found: list[Record] = []
    for number in numbers:
        entry = read_entry(event_line(number), Place(Path("made"), number))
        assert isinstance(entry, EventLine)
        found.append(entry.record)
    return found


@pytest.fixture
def make_journal(own_folder: Path) -> Iterator[Callable[..., Path]]:
    """
    Leave a journal in the folder `journal`, in runs of 50, as a process would.

    `lanes` says up to where each sink is served; `offered` makes the ledger balance or
    not; `live` keeps the lock that its process would hold.
    """
    held: list[locks.FileLock] = []

    def make(
        name: str = "j1",
        numbers: Iterable[int] = range(1, 121),
        lanes: dict[str, int] | None = None,
        offered: int | None = None,
        pid: int = 4711,
        live: bool = False,
    ) -> Path:
        path = own_folder / "journal" / f"{name}.db"
        path.parent.mkdir(exist_ok=True)
        journal = SqliteJournal(path, journal_id=name)
        records = records_of(numbers)
        for start in range(0, len(records), 50):
            journal.append(records[start : start + 50])
        for lane, settled in (lanes or {}).items():
            journal.seal(lane, LaneState(settled))
        journal.note("pid", b"%d" % pid)
        if offered is not None:
            end = journal.end
            sink = SinkLedger(offered, 0, 0, {}, 0, end)
            journal.note("ledger", msgspec.json.encode(Ledger({"file": sink})))
        journal.close()
        lock = locks.take(path.with_suffix(".lock"))
        assert lock is not None
        held.append(lock) if live else lock.close()
        return path

    yield make
    for lock in held:
        lock.close()


class Outlet(BaseSink):
    """
    What `outlet:` in a URL stands for: keeps what it got and answers as it is told.

    Attributes:
        batches: What came, in order.
        refused: Ids of events that it refuses for good.
        answer: Called with each batch before it is taken; may raise or wait.
        flush_error: What `flush` raises.
    """

    name = "outlet"
    max_events = 100
    url_option = "name"

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.refused: set[str] = set()
        self.answer: Callable[[Batch], Any] = lambda _: None
        self.flush_error: Exception | None = None

    async def deliver(self, batch: Batch) -> SendResult:
        waiting = self.answer(batch)
        if waiting is not None:
            await waiting
        self.batches.append(batch)
        rejected = [
            Rejection(index, "refused here", "$.order_total")
            for index, record in enumerate(batch.records)
            if record.event_id in self.refused
        ]
        return SendResult(rejected=tuple(rejected)) if rejected else ACCEPTED

    async def flush(self) -> None:
        if self.flush_error:
            raise self.flush_error

    @property
    def sequences(self) -> list[int]:
        return [record.sequence for batch in self.batches for record in batch.records]


@pytest.fixture
def outlet(monkeypatch: pytest.MonkeyPatch) -> Outlet:
    """Have the sink URL `outlet:` lead to this sink; others lead where they do."""
    sink = Outlet()
    load = sinks.load_sink_class

    class Found(Outlet):
        @classmethod
        def from_url(cls, _: Any) -> BaseSink:
            return sink

    monkeypatch.setattr(
        sinks, "load_sink_class", lambda name: Found if name == "outlet" else load(name)
    )
    return sink
