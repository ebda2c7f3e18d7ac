"""
Runs a measurement in a fresh process, and reads what it found.

Each one gets a directory of its own, which is gone afterwards, and none of the settings
of bizlog or its peers that the environment may hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from arrivals import count_events
from durability import Course, Stretch
from report import Measurement
from scaling import WARM_UP, Outcome, Scenario

HERE = Path(__file__).resolve().parent
CHILD_TIMEOUT = 900  # seconds; the slowest peer needs 30 for 100,000 events
LATENCY_EVENTS = 20_000  # 20 of them above p99.9
# Without typing_extensions, as where nothing but bizlog is installed: the peers bring it,
# and msgspec then loads it (2 ms).
TIMED_IMPORT = (
    "import sys, time; sys.modules['typing_extensions'] = None; start = time.perf_counter(); import {}; "
    "print(time.perf_counter() - start)"
)


class ChildError(Exception):
    """Something could not be measured; says why in one line."""


def measure_contender(file: Path, events: int) -> Measurement:
    """
    Measure one contender.

    Raises:
        ChildError: It could not be imported, raised, or took too long.
    """
    latency_events = min(events, LATENCY_EVENTS)
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        command = [HERE / "child.py", file, events, latency_events, f"{directory}/out"]
        answer = json.loads(run_python(*map(str, command), directory=directory))
    answer["p999"] = answer.pop("p99.9")
    return Measurement(events=events, **answer)


def measure_scenario(scenario: Scenario) -> Outcome:
    """
    Run one scenario, then count what is in its files.

    Raises:
        ChildError: It raised, or took too long.
    """
    counts = scenario.events, scenario.passes, scenario.threads, scenario.warm_up
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        out = Path(directory, "out")
        command = [HERE / "scenario.py", out, *counts, json.dumps(scenario.settings)]
        answer = json.loads(run_python(*map(str, command), directory=directory))
        count = count_events(out)
    return Outcome(
        scenario, arrived=count.delivered, duplicates=count.duplicates, **answer
    )


def measure_course(course: Course) -> dict[str, Stretch]:
    """
    Run one course; what was timed of it, by name.

    Raises:
        ChildError: A process of it raised, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        measure = _measure_backlog if course.sinks == "backlog" else _measure_beside
        return measure(course, directory)


def _measure_beside(course: Course, directory: str) -> dict[str, Stretch]:
    arguments = [course.events, course.sinks, course.journal]
    answer = _run_child("beside.py", directory, *arguments)
    name = course.sinks if course.journal == "memory" else f"{course.sinks}_journal"
    return {name: _delivered(course, directory, warm_up=WARM_UP, **answer)}


def _measure_backlog(course: Course, directory: str) -> dict[str, Stretch]:
    filled = _run_child("drain.py", directory, course.events, "fill")
    drained = _run_child("drain.py", directory, course.events, "drain")
    first = {"seconds": drained.pop("first"), "rss_bytes": drained["rss_bytes"]}
    return {
        "fill": Stretch(course.events, **filled),
        "first": Stretch(course.events, **first),
        "drain": _delivered(course, directory, **drained),
    }


def _run_child(script: str, directory: str, *arguments: object) -> dict[str, Any]:
    command = [HERE / script, Path(directory, "run"), *arguments]
    answer: dict[str, Any] = json.loads(
        run_python(*map(str, command), directory=directory)
    )
    return answer


def _delivered(
    course: Course, directory: str, *, warm_up: int = 0, **answer: Any
) -> Stretch:
    count = count_events(Path(directory, "run", "out"))
    return Stretch(
        course.events,
        arrived=count.delivered - warm_up,
        duplicates=count.duplicates,
        **answer,
    )


def time_import(module: str) -> float:
    """
    Time an import in an interpreter that has started, in milliseconds.

    Raises:
        ChildError: It is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        text = run_python("-c", TIMED_IMPORT.format(module), directory=directory)
    return float(text) * 1_000


def run_python(*arguments: str, directory: str) -> str:
    """
    Run this Python in a directory of its own, without settings of bizlog or OTel.

    Raises:
        ChildError: It failed; the last line of its traceback.
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"gave up after {CHILD_TIMEOUT} s") from None
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or ["failed silently"])[-1])
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Take this process's environment without settings of bizlog or its peers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BIZLOG_", "OTEL_", "LOGURU_", "POSTHOG_"))
        and name != "PYTHONDONTWRITEBYTECODE"  # imports are timed with byte code
    }
