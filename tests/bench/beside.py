"""
Times a live file sink, alone or beside a dead one; prints what it took, as JSON.

On the clock from the first emit until the ledger says that the file sink has everything;
the dead sink is `bizlog_handlers.http` before a port that refuses. What is too little
for a batch waits 20 ms and not five seconds, or one would time that wait. A warm-up comes
before: what a sink loads for its first attempt is no matter of rates. The end of the process
is not on the clock: it gives the files their final names, so that they can be counted,
and what to do with the dead sink's events is another question.

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
from memory import peak_rss
from scaling import WARM_UP
from scenario import send

import bizlog
from bizlog_handlers.http import HttpSink

END_SECONDS = 1.0


def configure(directory: Path, dead_port: int | None, *, journaled: bool) -> None:
    """Set bizlog up with a file sink, and perhaps a dead one."""
    sinks: list[Any] = [f"file:{directory / 'out'}"]
    if dead_port is not None:
        sinks.append(HttpSink(f"http://127.0.0.1:{dead_port}/events/batch"))
    bizlog.configure(
        source="bench",
        sinks=sinks,
        overflow="block",
        flush_interval=0.02,
        journal=str(directory / "journal") if journaled else None,
    )


def time_live(events: int) -> float:
    """Warm up, then emit until the file sink has everything; seconds."""
    deliver(range(WARM_UP))
    start = perf_counter()
    deliver(range(WARM_UP, WARM_UP + events))
    return perf_counter() - start


def deliver(numbers: range) -> None:
    """Emit from one thread; wait until the file sink has it."""
    send(numbers)
    while bizlog.ledger().sinks["file"].delivered < numbers.stop:
        sleep(0.001)


def main() -> None:
    """Run what the arguments describe."""
    directory, events, sink, journal = sys.argv[1:]
    Path(directory).mkdir(parents=True, exist_ok=True)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens: it refuses
        port = closed.getsockname()[1] if sink == "dead" else None
        configure(Path(directory), port, journaled=journal == "journal")
        seconds = time_live(int(events))
        result = {"seconds": seconds, "rss_bytes": peak_rss()}
        bizlog.shutdown(END_SECONDS)
        print(msgspec.json.encode(result).decode(), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
