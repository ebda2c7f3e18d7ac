"""Batches to deliver, made the way the engine makes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from bizlog.sinks import Batch, Record

MakeRecord = Callable[..., Record]
MakeBatch = Callable[..., Batch]


@pytest.fixture
def make_record() -> MakeRecord:
    """Make a record of a type; further fields go into the event."""
    numbers = itertools.count(1)

    def make(
        event_type: str = "order.placed",
        event_time: str = "2026-11-23T10:15:30.123456Z",
        **fields: Any,
    ) -> Record:
        number = next(numbers)
        event_id = f"0193a6a0-0000-7000-8000-{number:012d}"
        event = {
            "event_id": event_id,
            "event_type": event_type,
            "event_source": "customer-agent",
            "event_time": event_time,
            **fields,
        }
        return Record(orjson.dumps(event), event_id, event_type, event_time, number)

    return make


@pytest.fixture
def make_batch(make_record: MakeRecord) -> MakeBatch:
    """Make a batch with one record for each event type, or of given records."""
    positions = itertools.count(1, 1000)

    def make(*members: str | Record) -> Batch:
        records = [make_record(m) if isinstance(m, str) else m for m in members]
        first = next(positions)
        return Batch("journal", first, first + len(records) - 1, records)

    return make
