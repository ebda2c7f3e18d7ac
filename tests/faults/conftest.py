"""The modules of this folder are no package; tests that look into one ask for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def beside() -> Iterator[Callable[[str], ModuleType]]:
    """Import a module that lies beside the tests, by its name."""
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    yield importlib.import_module
    sys.path.remove(here)
