"""
Sends events through bizlog with some threads; prints what became of them, as JSON.

A process of its own, and a light one: beside bizlog it loads its catalogue of events and
a reader of `/proc`; it keeps no event and counts no file. So its peak of memory is what
the interpreter, bizlog and the waiting events take.

Each pass is on the clock from its first emit until `flush` has returned: everything is
written, synchronised and visible under its final name. A warm-up comes before. Numbers
run on from pass to pass, and no two threads send the same one: every event is another.

`bench.py` starts it; by hand: `python scenario.py DIR 1000 1 8 0 '{"overflow": "block"}'`
(folder, events a pass, passes, threads, events of warm-up, settings).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import msgspec
from memory import peak_rss
from workload import CONTEXT, EVENT, make_event

import bizlog

FLUSH_SECONDS = 300.0


@contextmanager
def in_context() -> Generator[None, None, None]:
    """Give the events of this thread their session, user and correlation id."""
    with (
        bizlog.session(CONTEXT["session_id"], user_id=CONTEXT["user_id"]),
        bizlog.correlation(CONTEXT["correlation_id"]),
    ):
        yield


def send(numbers: range) -> None:
    """Emit events as fast as bizlog takes them, in a context of this thread's own."""
    info = bizlog.get_logger().info
    with in_context():
        for number in numbers:
            info(EVENT, **make_event(number))


def send_from(threads: int, numbers: range) -> None:
    """Emit from that many threads, each its share; one thread is the main one."""
    if threads == 1:
        send(numbers)
        return
    senders = [
        threading.Thread(target=send, args=(numbers[first::threads],))
        for first in range(threads)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def time_passes(events: int, passes: int, threads: int, warm_up: int) -> list[float]:
    """Warm up, then time each pass; seconds."""
    if warm_up:
        send_from(threads, range(warm_up))
        bizlog.flush(FLUSH_SECONDS)
    took: list[float] = []
    for number in range(passes):
        first = warm_up + number * events
        start = perf_counter()
        send_from(threads, range(first, first + events))
        bizlog.flush(FLUSH_SECONDS)
        took.append(perf_counter() - start)
    return took


def run(directory: str, counts: list[int], settings: dict[str, Any]) -> dict[str, Any]:
    """Run one scenario; the peak of memory is read before anything is added up."""
    bizlog.configure(source="bench", sinks=[f"file:{directory}"], **settings)
    took = time_passes(*counts)
    bizlog.shutdown(FLUSH_SECONDS)
    peak = peak_rss()
    (account,) = bizlog.ledger().sinks.values()
    return {
        "seconds": took,
        "rss_bytes": peak,
        "offered": account.offered,
        "delivered": account.delivered,
        "dropped": sum(account.dropped.values()),
        "closed": account.closed,
    }


def main() -> None:
    """Run the scenario that the arguments describe."""
    directory, *counts, settings = sys.argv[1:]
    result = run(directory, [*map(int, counts)], msgspec.json.decode(settings))
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
