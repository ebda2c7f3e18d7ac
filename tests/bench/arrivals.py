"""
The count of the events that arrived.

An event counts as delivered when it stands in a complete line of JSON below the output
directory, in a file that carries its final name (`*.jsonl`), with its context. Each
product id counts once: a second copy is a duplicate, not a delivery.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import orjson
from workload import CONTEXT

_PRODUCT_ID = re.compile(rb'"product_id": ?"p-(\d+)"')
_CONTEXT_VALUES = tuple(f'"{value}"'.encode() for value in CONTEXT.values())


class Count(NamedTuple):
    """How many different events arrived, and how many came more than once."""

    delivered: int
    duplicates: int


def count_events(directory: Path) -> Count:
    """Count the events in all files below a directory that have their final name."""
    seen: set[bytes] = set()
    copies = 0
    for path in directory.rglob("*.jsonl"):
        with path.open("rb") as file:
            for line in file:
                ids = _ids_in(line)
                seen.update(ids)
                copies += len(ids)
    return Count(len(seen), copies - len(seen))


def _ids_in(line: bytes) -> list[bytes]:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return []
    ids: list[bytes] = _PRODUCT_ID.findall(line)
    complete = min(line.count(value) for value in _CONTEXT_VALUES)
    return ids[:complete]
