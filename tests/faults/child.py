"""
One contender in a process of its own, doing what the job on the command line says.

A job is a JSON object: `contender` (file), `url`, `folder`, `options` (settings for
bizlog), `act` (a function of this module, of `acts.py`, or `MODULE:FUNCTION`), and what
the act needs.
Numbers of events begin at `first`. What the parent wants to know goes into
`report.json` and `marks` below the folder's parent, which is the current folder.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from marks import Marks, Report

Job = dict[str, Any]


def load(file: str) -> ModuleType:
    """Load the module of a contender from its file."""
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"contender_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Emitter:
    """
    Emits numbered events through a contender, and times each call.

    Args:
        contender: Has `emit(n)`.
        marks: Where each emitted event is marked; None for nowhere.
    """

    def __init__(self, contender: Any, marks: Marks | None = None) -> None:
        self._contender = contender
        self._marks = marks
        self._took = array("q")
        self._raised: Counter[str] = Counter()
        self._emitted = 0

    def emit(self, n: int, **properties: Any) -> None:
        """Emit one event; what it raises is counted."""
        start = time.perf_counter_ns()
        try:
            self._contender.emit(n, **properties)
        except Exception as error:
            self._raised[type(error).__name__] += 1
        self._took.append(time.perf_counter_ns() - start)
        self._emitted += 1
        if self._marks:
            self._marks.emitted(n)

    def facts(self) -> dict[str, Any]:
        """How many events were emitted, what was raised, and how long a call took."""
        ordered = sorted(self._took) or [0]
        last = len(ordered) - 1
        return {
            "last_emit": time.monotonic(),
            "emitted": self._emitted,
            "raised": dict(self._raised),
            "p50_us": ordered[last // 2] / 1_000,
            "p99_us": ordered[last * 99 // 100] / 1_000,
            "max_us": ordered[last] / 1_000,
        }


def emit(contender: Any, job: Job, report: Report) -> None:
    """Emit `count` events, `pause` seconds apart, then go through the steps of `then`."""
    marks = Marks(Path("marks"), job["marks"]) if job.get("marks") else None
    emitter = Emitter(contender, marks)
    report.add(emitting=time.monotonic())
    pause = job.get("pause", 0)
    for n in range(job["first"], job["first"] + job["count"]):
        emitter.emit(n)
        if pause:
            time.sleep(pause)
    report.add(**emitter.facts())
    for step in job.get("then", ()):
        STEPS[step](contender, job, report)


def _flush(contender: Any, job: Job, report: Report) -> None:
    start = time.monotonic()
    try:
        done = contender.flush(job.get("timeout", 30.0))
    except Exception as error:
        done = type(error).__name__
    report.add(flushed=done, flush_seconds=time.monotonic() - start)


def _confirm(contender: Any, job: Job, report: Report) -> None:
    """Emit one event more and wait until it is in the journal."""
    report.add(confirmed=contender.confirm(job["first"] + job["count"]))


def _terminate(contender: Any, job: Job, report: Report) -> None:
    report.add(terminated=time.monotonic())
    os.kill(os.getpid(), signal.SIGTERM)
    while True:  # whoever handles the signal ends the process
        time.sleep(0.05)


def _idle(contender: Any, job: Job, report: Report) -> None:
    time.sleep(job["idle"])


def _wait(contender: Any, job: Job, report: Report) -> None:
    """Wait until the parent closes our standard input."""
    report.add(waiting=time.monotonic())
    sys.stdin.read()


STEPS: dict[str, Callable[[Any, Job, Report], None]] = {
    "flush": _flush,
    "confirm": _confirm,
    "sigterm": _terminate,
    "idle": _idle,
    "wait": _wait,
}


def act_of(name: str) -> Callable[[Any, Job, Report], None]:
    """Find an act; some want clocks that jump and disks that fail."""
    if name == "emit":
        return emit
    module, _, name = name.rpartition(":")
    acts = importlib.import_module(module or "acts")  # more than most children need
    if name in {"clock", "disk"}:
        acts.replace_clocks_and_disks()
    found: Callable[[Any, Job, Report], None] = getattr(acts, name)
    return found


def main() -> None:
    """Do the job."""
    job: Job = json.loads(sys.argv[1])
    report = Report(Path("report.json"))
    made: list[Any] = []
    if "ledger" in job:
        # Registered before bizlog is imported, so it runs after bizlog's own hook.
        atexit.register(_last_ledger, report, made, os.getpid())
    act = act_of(job["act"])
    folder = Path(job["folder"])
    module = load(job["contender"])
    report.add(imported=time.monotonic())
    contender = module.make(job["url"], folder, **job.get("options", {}))
    made.append(contender)
    act(contender, job, report)


def _last_ledger(report: Report, made: list[Any], pid: int) -> None:
    if made and os.getpid() == pid:  # not in forked children
        report.add(ledger=made[0].ledger())


if __name__ == "__main__":
    main()
