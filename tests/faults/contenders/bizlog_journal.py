"""bizlog with the HTTP sink and a journal: what waits is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.bizlog_memory import Bizlog


def make(url: str, folder: Path, **options: Any) -> Bizlog:
    """Configure bizlog with a journal below the folder."""
    return Bizlog(url, folder, journal=str(folder / "journal"), **options)
