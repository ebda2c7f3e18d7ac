"""What a run was made on: processor, system, Python, versions of the peers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe_machine(distributions: Iterable[str]) -> dict[str, str]:
    """Name the processor, the system, Python and the versions of the peers."""
    return {
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {installed(name)}" for name in distributions),
    }


def cpu_model() -> str:
    """Read the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def installed(name: str) -> str:
    """Name the version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
