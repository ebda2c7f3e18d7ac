"""The modules of this folder are no package, and tests/faults has some of the names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def forget_modules() -> Iterator[None]:
    """Leave none of them behind for the tests of another folder."""
    yield
    here = str(Path(__file__).parent)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(here) and not name.startswith("tests."):
            del sys.modules[name]
    sys.modules.pop("contenders", None)
