"""What holds for all tests: no deadline by the clock, and no module left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of ours.
settings.register_profile(
    "bizlog", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bizlog")

# Measured are the processes of the tests, by a variable that is there before bizlog is
# imported, and not those that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)

# Folders whose modules are no package; they have some names in common.
LOOSE = tuple(f"{Path(__file__).parent / name}{os.sep}" for name in ("bench", "faults"))


@pytest.fixture(scope="module", autouse=True)
def forget_loose_modules() -> Iterator[None]:
    """Leave none of these modules behind for the tests of the other folder."""
    yield
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(LOOSE) and not name.startswith("tests."):
            del sys.modules[name]
    sys.modules.pop("contenders", None)
