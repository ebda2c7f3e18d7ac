"""The examples that need extras run as they stand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("proton") is None
    or importlib.util.find_spec("azure") is None,
    reason="the extras loopback and eventhub are not installed",
)
def test_orders_to_an_event_hub_and_back():
    """All orders come back, those of a shopper in order, in fewer messages."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "eventhub" / "orders.py"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "messages in the hub: 6" in done.stdout
    assert "events read back: 30" in done.stdout
    assert "shopper-0, in order: 1, 2, 3, 4, 5" in done.stdout
