"""
Starts the child processes of a scenario, ends them, and reads what they left.

Each child runs in the scenario's own folder, without the settings of bizlog or its
peers that the environment may hold. One that does not end in time is cut.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marks import Report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOREIGN = ("BIZLOG_", "OTEL_", "POSTHOG_", "SENTRY_", "AMPLITUDE_")


@dataclass(frozen=True)
class Outcome:
    """
    How a child ended.

    Attributes:
        report: What it wrote.
        seconds: From its last emit, or where it got stuck, to its end.
        code: Its exit code; negative for the signal that ended it.
        cut: Whether it had to be killed because it took too long.
        said: The last line of its standard error.
    """

    report: dict[str, Any]
    seconds: float
    code: int
    cut: bool
    said: str


class Child:
    """
    A child at work; use it with `with`, which kills what is left.

    Args:
        job: What it is to do; `child.py` describes it.
        folder: Where it runs.
    """

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self._report = folder / "report.json"
        self._report.unlink(missing_ok=True)
        self._errors = folder / "stderr.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "child.py", json.dumps(job)],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def report(self) -> dict[str, Any]:
        """What it has written so far."""
        return Report.read(self._report)

    def wait_for(self, fact: str, timeout: float) -> bool:
        """Wait until it reports a fact, or has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            if fact in self.report:
                return True
            time.sleep(0.005)
        return fact in self.report

    def wait_for_figure(self, fact: str, least: int, timeout: float) -> None:
        """Wait until a figure that it reports has grown so far, or it has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.alive():
            if self.report.get(fact, 0) >= least:
                return
            time.sleep(0.005)

    def memory(self, figure: str = "VmRSS") -> int:
        """Read a figure of its memory in bytes; 0 where the system has none."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        lines = [line for line in text.splitlines() if line.startswith(f"{figure}:")]
        return int(lines[0].split()[1]) * 1024 if lines else 0

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def release(self) -> None:
        """Close its standard input: who waits for that goes on."""
        assert self._process.stdin
        self._process.stdin.close()

    @property
    def said(self) -> str:
        """The last line of its standard error."""
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def alive(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()

    def finish(self, cut: float) -> Outcome:
        """
        Wait for its end.

        Args:
            cut: Seconds from now until it is killed.
        """
        try:
            self._process.wait(cut)
            was_cut = False
        except subprocess.TimeoutExpired:
            was_cut = True
        ended = time.monotonic()
        self.kill()
        report = self.report
        since = report.get("last_emit", report.get("emitting", self.started))
        return Outcome(
            report=report,
            seconds=ended - since,
            code=self._process.returncode,
            cut=was_cut,
            said=self.said,
        )


def _environment() -> dict[str, str]:
    kept = {name: v for name, v in os.environ.items() if not name.startswith(FOREIGN)}
    paths = [str(ROOT), str(ROOT / "handlers"), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
