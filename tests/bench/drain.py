"""
Fills a journal while its sink is down, or drains it into files; prints what it took.

`fill` is on the clock from the first emit until the last event is in the journal; the
process then dies as if it were killed. `drain` is on the clock from `configure` until the
file sink has everything and has made it durable; `first` is when it had its first batch.

`bench.py` starts it; by hand: `python drain.py DIR 1000 fill`, then `... 1000 drain`
(folder, events, what to do).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import msgspec
from memory import peak_rss
from scenario import in_context, send
from workload import EVENT, make_event

import bizlog
from bizlog import BaseSink, RetryableSinkError


class FileSink(BaseSink):
    """Stands where the file sink stood, and is down."""

    async def start(self) -> None:
        """Refuse."""
        raise RetryableSinkError("down")


def fill(directory: Path, events: int) -> dict[str, Any]:
    """Emit everything into the journal."""
    client = bizlog.configure(
        source="bench",
        sinks=[FileSink()],
        overflow="block",
        block_timeout=60.0,
        journal=str(directory / "journal"),
    )
    start = perf_counter()
    send(range(events - 1))
    with in_context():
        last = client.confirm(
            EVENT, level="journal", timeout=60.0, **make_event(events)
        )
        receipt = asyncio.run(last)
    if not receipt.journaled:
        raise SystemExit(f"not in the journal after a minute: {receipt}")
    return {"seconds": perf_counter() - start, "rss_bytes": peak_rss()}


def drain(directory: Path, events: int) -> dict[str, Any]:
    """Deliver what the dead process left behind."""
    start = perf_counter()
    bizlog.configure(
        source="bench",
        sinks=[f"file:{directory / 'out'}"],
        journal=str(directory / "journal"),
    )
    first: float | None = None
    while (delivered := bizlog.ledger().sinks["file"].delivered) < events:
        if delivered and first is None:
            first = perf_counter() - start
        sleep(0.001)
    bizlog.shutdown(60)
    seconds = perf_counter() - start
    return {"seconds": seconds, "first": first or seconds, "rss_bytes": peak_rss()}


def main() -> None:
    """Run what the arguments describe."""
    directory, events, what = sys.argv[1:]
    Path(directory).mkdir(parents=True, exist_ok=True)
    result = (fill if what == "fill" else drain)(Path(directory), int(events))
    print(msgspec.json.encode(result).decode(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
