"""The oracle in short: twenty seconds of random faults, and that it would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).with_name("matrix.py")

# It claims to have taken some events that it never sent, and changes others.
CHEAT = """
from contenders.bizlog_journal import make as bizlog
def make(url, folder, **options):
    ours = bizlog(url, folder, **options)
    accept = ours.accept
    def cheat(n, **properties):
        if n % 20 == 3:
            return True
        if n % 20 == 5:
            properties["product_name"] = "forged"
        return accept(n, **properties)
    ours.accept = cheat
    return ours
"""


def consult(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask the oracle."""
    return subprocess.run(
        [sys.executable, MATRIX, "--only", "oracle", "--quick", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(180)
def test_bizlog_survives_random_faults() -> None:
    """Conservation, integrity, liveness, accounting and bounded memory, whatever comes."""
    done = consult("--patience", "6")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(120)
def test_the_oracle_notices_loss_and_forgery(tmp_path: Path) -> None:
    """Events that vanish or arrive changed are told, with the seed that replays it."""
    cheat = tmp_path / "cheat.py"
    cheat.write_text(CHEAT)
    column = f"bizlog-journal={cheat}"
    short = ("--oracle-seconds", "1", "--patience", "0.3", "--seed", "7")
    done = consult("--contender", column, *short)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISS  oracle: conservation" in done.stdout
    assert "MISS  oracle: integrity" in done.stdout
    assert "replay: --seed 7" in done.stdout
