"""
Times a live file sink, alone or beside a dead one; prints the seconds, as JSON.

On the clock from the first emit until the ledger says that the file sink has everything;
the dead sink is `bizlog_handlers.http` before a port that refuses. The end of the process
is not on the clock: what to do with the dead sink's events is another question.

`bench.py` starts it; by hand: `python beside.py DIR 1000 dead journal`
(folder, events, `live` or `dead`, `memory` or `journal`).
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import msgspec
from scenario import send

import bizlog


def configure(directory: Path, dead_port: int | None, *, journaled: bool) -> None:
    """Set bizlog up with a file sink, and perhaps a dead one."""
    sinks = [f"file:{directory / 'out'}"]
    if dead_port is not None:
        sinks.append(f"http://127.0.0.1:{dead_port}/events/batch")
    settings: dict[str, Any] = {"journal": str(directory / "journal")}
    bizlog.configure(
        source="bench", sinks=sinks, overflow="block", **(settings if journaled else {})
    )


def time_live(events: int) -> float:
    """Emit from one thread; wait until the file sink has everything; seconds."""
    start = perf_counter()
    send(range(events))
    while bizlog.ledger().sinks["file"].delivered < events:
        sleep(0.001)
    return perf_counter() - start


def main() -> None:
    """Run what the arguments describe."""
    directory, events, sink, journal = sys.argv[1:]
    Path(directory).mkdir(parents=True, exist_ok=True)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens: it refuses
        port = closed.getsockname()[1] if sink == "dead" else None
        configure(Path(directory), port, journaled=journal == "journal")
        seconds = time_live(int(events))
        print(msgspec.json.encode({"seconds": seconds}).decode(), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
