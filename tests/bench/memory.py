"""The peak of this process's memory; loads next to nothing itself."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_rss() -> int:
    """
    Peak resident memory of this process in bytes.

    Linux carries the peak of the process that forked into `ru_maxrss`; `VmHWM` starts
    anew at exec, so it is used where it exists.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def rss() -> int:
    """Resident memory of this process in bytes; its peak where the system tells no more."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_rss()
    return pages * resource.getpagesize()
