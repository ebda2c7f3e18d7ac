"""The pytest plugin in a user's project, run by a pytest of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]

# A service with a logger made at import, and a bound one kept from it.
SERVICE = """
import bizlog

log = bizlog.get_logger()
bound = log.bind(order_id="42")


def place_order(total=None):
    bound.info("order.placed", order_total=total)
"""

TESTS = """
import asyncio
import threading

import pytest

import bizlog
import service
from bizlog.testing import capture_events


def test_logger_of_import(business_events):
    service.place_order()
    business_events.assert_emitted("order.placed", order_id="42", times=1)


def test_nothing_is_left_over(business_events):
    assert not business_events


@pytest.mark.parametrize("number", range(6))
def test_parametrised(business_events, number):
    service.log.info("order.updated", order_id=number)
    business_events.assert_emitted("order.updated", order_id=str(number), times=1)
    assert len(business_events) == 1


def test_threads(business_events):
    threads = [threading.Thread(target=service.place_order) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    business_events.assert_emitted("order.placed", times=8)


def test_asyncio(business_events):
    async def emit():
        await service.log.ainfo("order.placed")

    asyncio.run(emit())
    business_events.assert_emitted("order.placed", times=1)


def test_configuring_service(business_events):
    bizlog.configure(source="shop", sinks=["file:./events"])
    service.place_order()
    business_events.assert_emitted("order.placed", event_source="shop")
    assert bizlog.flush()
    bizlog.shutdown()


def test_no_client_is_left():
    assert bizlog.client._default is None


class TestInClass:
    @pytest.fixture
    def placed(self, business_events):
        service.place_order()
        return business_events

    def test_fixture_of_fixture(self, placed):
        placed.assert_emitted("order.placed")
"""

HUBS = """
from azure.eventhub import EventData, EventHubProducerClient


def test_first(bizlog_eventhubs):
    producer = EventHubProducerClient.from_connection_string(
        bizlog_eventhubs.connection_string, eventhub_name="events"
    )
    with producer:
        producer.send_batch([EventData("1")], timeout=5)
    assert [event.body for event in bizlog_eventhubs.events("events")] == [b"1"]


def test_second(bizlog_eventhubs):
    assert bizlog_eventhubs.events("events") == []
"""

FAULTS = """
import pytest

import service


def test_invalid(business_events):
    service.place_order("much")


def test_invalid_and_failing(business_events):
    service.place_order("much")
    assert 1 == 2, "of its own"


def test_invalid_and_forgiven(business_events):
    service.place_order("much")
    assert business_events.invalid.pop().path == "$.order_total"


@pytest.mark.usefixtures("business_events")
def test_invalid_unseen():
    service.place_order("much")


def test_invalid_on_demand(request):
    request.getfixturevalue("business_events")
    service.place_order("much")


@pytest.fixture
def closing(business_events):
    yield
    service.place_order("much")


def test_invalid_in_teardown(closing):
    pass


def test_valid(business_events):
    service.place_order()
    service.log.info("order.placed", order_total=1)


def test_skipped(business_events):
    service.place_order("much")
    pytest.skip("not today")


def test_missing(business_events):
    service.place_order()
    business_events.assert_emitted("order.plaecd", order_id="42")
"""


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest over files in a folder of a user; outcome and text by test."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "BIZLOG_", "COV"))
    }

    def run(*arguments, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        report = tmp_path / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-W", "error", f"--junitxml={report}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=50,
        )
        assert report.exists(), done.stdout + done.stderr
        outcomes = dict(read_outcomes(report))
        report.unlink()
        return done, outcomes

    return run


def read_outcomes(report):
    """Read how each test ended, with what pytest says about it."""
    for case in ET.parse(report).iter("testcase"):
        children = [child for child in case if child.tag != "properties"]
        said = "\n".join((child.text or "") for child in children)
        yield case.get("name"), ([child.tag for child in children], said)


def test_a_users_tests_pass(run_pytest, tmp_path):
    """Loggers of import, threads, loops, parameters and `configure` all work, without a file."""
    done, outcomes = run_pytest(service=SERVICE, test_service=TESTS)

    assert done.returncode == 0, done.stdout
    assert len(outcomes) == 13
    assert {path.name for path in tmp_path.iterdir()} == {
        "service.py",
        "test_service.py",
    }


@pytest.mark.skipif(
    importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed"
)
def test_a_users_tests_pass_in_parallel(run_pytest):
    """With pytest-xdist each worker captures its own tests' events."""
    done, outcomes = run_pytest("-n", "2", service=SERVICE, test_service=TESTS)

    assert done.returncode == 0, done.stdout
    assert "2 workers" in done.stdout
    assert len(outcomes) == 13


def test_invalid_events_fail_tests(run_pytest):
    """A test with an invalid event fails, itself and once; its own failure stays on top."""
    done, outcomes = run_pytest(service=SERVICE, test_service=FAULTS)

    assert done.returncode == 1, done.stdout
    assert {name: tags for name, (tags, _) in outcomes.items()} == {
        "test_invalid": ["failure"],
        "test_invalid_and_failing": ["failure"],
        "test_invalid_and_forgiven": [],
        "test_invalid_unseen": ["failure"],
        "test_invalid_on_demand": ["failure"],
        "test_invalid_in_teardown": ["error"],
        "test_valid": [],
        "test_skipped": ["skipped"],
        "test_missing": ["failure"],
    }
    for name in ("test_invalid", "test_invalid_unseen", "test_invalid_in_teardown"):
        assert "order.placed $.order_total: " in outcomes[name][1]
    _, said = outcomes["test_invalid_and_failing"]
    assert "of its own" in said
    assert "order.placed $.order_total: " in said
    assert "did you mean 'order.placed'" in outcomes["test_missing"][1]


def test_failures_show_no_code_of_ours(run_pytest):
    """A failure shows the user's line and our message, not how we compare."""
    _, outcomes = run_pytest(service=SERVICE, test_service=FAULTS)

    assert "assert_emitted(" in outcomes["test_missing"][1]
    assert "raise AssertionError" not in outcomes["test_missing"][1]
    for name in ("test_invalid", "test_invalid_in_teardown"):
        first, second = outcomes[name][1].strip().splitlines()
        assert first.endswith("invalid business events: 1")
        assert second.strip().startswith("order.placed $.order_total: ")


def test_the_example_passes(run_pytest):
    """What examples/ shows works as it stands."""
    example = ROOT / "examples" / "test_with_bizlog.py"

    done, outcomes = run_pytest(test_with_bizlog=example.read_text(encoding="utf-8"))

    assert done.returncode == 0, done.stdout
    assert len(outcomes) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("proton") is None
    or importlib.util.find_spec("azure") is None,
    reason="the extras loopback and eventhub are not installed",
)
def test_each_test_has_event_hubs_of_its_own(run_pytest):
    """The fixture serves a hub to the real client, new for each test."""
    done, outcomes = run_pytest(test_hubs=HUBS)

    assert done.returncode == 0, done.stdout
    assert len(outcomes) == 2


def test_who_does_not_use_it_pays_little():
    """Loading the plugin loads no test tool, no handler and nothing optional."""
    code = (
        "import sys, bizlog.pytest_plugin; "
        "print({'bizlog.testing', 'bizlog_handlers', 'prometheus_client', 'proton'}"
        ".intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
