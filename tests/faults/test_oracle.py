"""The oracle in short: twenty seconds of random faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).with_name("matrix.py")


@pytest.mark.timeout(180)
def test_bizlog_survives_random_faults() -> None:
    """Conservation, integrity, liveness, accounting and bounded memory, whatever comes."""
    done = subprocess.run(
        [sys.executable, MATRIX, "--only", "oracle", "--quick", "--patience", "6"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
