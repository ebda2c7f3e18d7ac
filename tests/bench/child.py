"""
Measures one contender, in a process of its own, and prints the result as JSON.

First pass, for the rate: from the first emit until `finish` has returned, with nothing
but the emits in the loop. Wall clock, CPU time of all threads of the process (user and
system), and the highest resident memory up to that moment. Then the output is counted,
before the contender is closed: what only appears later was not delivered in time.

Second pass, for the latency: a new pipeline in another directory, a clock read before
and after each call. Garbage collection is left as Python has it.

`bench.py` starts it; by hand: `python child.py contenders/floor.py 1000 1000 DIR`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time
from typing import Any, cast

from arrivals import count_events
from memory import peak_rss
from workload import Contender, make_event

Factory = Callable[[Path, int], AbstractContextManager[Contender]]


def load_factory(path: Path) -> Factory:
    """Load the function `contender` from the file that defines it."""
    spec = importlib.util.spec_from_file_location(f"contender_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Factory", module.contender)


def measure_rate(factory: Factory, directory: Path, events: int) -> dict[str, Any]:
    """Send all events as fast as the contender takes them."""
    with factory(directory, events) as (emit, finish):
        cpu, start = process_time(), perf_counter()
        for number in range(events):
            emit(make_event(number))
        finish()
        seconds, cpu_seconds = perf_counter() - start, process_time() - cpu
        peak = peak_rss()
        count = count_events(directory)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rss_bytes": peak,
        "delivered": count.delivered,
        "duplicates": count.duplicates,
        "file_bytes": sum(file.stat().st_size for file in directory.rglob("*.jsonl")),
    }


def measure_latency(factory: Factory, directory: Path, events: int) -> dict[str, Any]:
    """Read the clock around each call; microseconds."""
    took = array("q", bytes(8 * events))
    with factory(directory, events) as (emit, finish):
        for number in range(events):
            fields = make_event(number)
            start = perf_counter_ns()
            emit(fields)
            took[number] = perf_counter_ns() - start
        finish()
    ordered = sorted(took)
    return {f"p{p}": quantile(ordered, p / 100) / 1_000 for p in (50, 99, 99.9)}


def quantile(ordered: Sequence[int], share: float) -> int:
    """The value that at least this share of all does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main() -> None:
    """Measure the contender that the arguments name."""
    file, events, latency_events, directory = sys.argv[1:]
    rate_directory, latency_directory = (
        Path(directory, name) for name in ("rate", "latency")
    )
    rate_directory.mkdir(parents=True)
    latency_directory.mkdir()
    factory = load_factory(Path(file))
    result = measure_rate(factory, rate_directory, int(events))
    result |= measure_latency(factory, latency_directory, int(latency_events))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
