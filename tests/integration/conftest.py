"""Kafka brokers for the tests that want one; `tests/faults/brokers.py` has them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load_brokers() -> ModuleType:
    path = Path(__file__).parents[1] / "faults" / "brokers.py"
    spec = importlib.util.spec_from_file_location("brokers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


brokers = _load_brokers()


@pytest.fixture
def mock_kafka() -> Iterator[Any]:
    """Give a cluster of one broker that fails as told."""
    yield from _given(brokers.MockKafka)


@pytest.fixture
def read_kafka() -> Callable[..., list[Any]]:
    """Read messages of any broker."""
    found: Callable[..., list[Any]] = brokers.read_messages
    return found


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give the broker that tests share; each takes a topic of its own."""
    yield from _given(brokers.Kafka, tmp_path_factory.mktemp("kafka"))


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Any]:
    """Give a broker that the test may stop."""
    yield from _given(brokers.Kafka, tmp_path)


def _given(kind: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Run a broker, or skip the test with the reason."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(kind(*arguments))
        except brokers.UnavailableError as error:
            pytest.skip(str(error))
        yield broker
