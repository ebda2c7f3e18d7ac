"""The examples run as they stand: as scripts, into a fresh folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import bizlog
from bizlog import client as client_module

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
FAMILIES = ("product", "order", "customer", "admin", "ai")
SERVICES = {"customer-agent", "admin-agent", "store-front", "order-service"}


def run_script(script: Path, *words: str, cwd: Path = ROOT):
    """Run a script in an interpreter of its own, warnings being errors."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def read_events(folder: Path):
    """Read all events below a folder."""
    return [
        json.loads(line)
        for path in folder.glob("event_type=*/*/*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Open the shop for a short while, as `make demo` does."""
    out = tmp_path_factory.mktemp("shop")
    script = EXAMPLES / "shop" / "run.py"
    done = run_script(script, "--seconds", "1.5", "--out", str(out))
    return done, read_events(out)


def test_the_shop_ends_well(shop):
    """It ends with 0, a closed ledger, and nothing but progress on stderr."""
    done, _ = shop
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  file .* closed$", done.stdout, re.MULTILINE)
    assert all(line.startswith("the shop") for line in done.stderr.splitlines())
    assert "Look at them" in done.stdout


def test_the_shop_shows_the_whole_catalogue(shop):
    """Every known event type of the five families appears, and one of its own."""
    _, events = shop
    seen = {event["event_type"] for event in events}
    known = {
        name
        for name in bizlog.registry.names
        if name.partition(".")[0] in FAMILIES
        and bizlog.registry.resolve(name).cls.__module__ == "bizlog.events"
    }
    assert known <= seen
    assert "restock.suggested" in seen


def test_the_shop_stands_for_four_services(shop):
    """Each service is a source of its own within one producer, without gaps."""
    _, events = shop
    assert {event["event_source"] for event in events} == SERVICES
    assert len({event["producer_id"] for event in events}) == 1
    numbers = sorted(event["sequence"] for event in events)
    assert numbers == list(range(1, len(events) + 1))


def test_the_shop_has_context(shop):
    """Events carry the request's trace id, the visit and the user; staff are hashed."""
    _, events = shop
    by_type = {event["event_type"]: event for event in events}
    for name in ("order.placed", "product.viewed"):
        assert re.fullmatch("[0-9a-f]{32}", by_type[name]["correlation_id"])
        assert by_type[name]["session_id"].startswith("session-")
    assert by_type["customer.queried"]["user_id"].startswith("user-")
    assert by_type["admin.product_created"]["admin_user"] != "ada"


def test_the_table_counts_what_is_in_the_files(shop):
    """The counts of the closing table are those of the files."""
    done, events = shop
    for name, count in Counter(event["event_type"] for event in events).items():
        assert re.search(
            rf"^  {re.escape(name)} +{count:,}$", done.stdout, re.MULTILINE
        )


def test_quickstart(tmp_path):
    """The three lines leave one event in ./bizlog-events and say nothing."""
    done = run_script(EXAMPLES / "quickstart.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [event] = read_events(tmp_path / "bizlog-events")
    assert event["event_type"] == "product.viewed"
    assert event["product_price"] == 9.99


def test_custom_sink(tmp_path):
    """A sink in the seed's form gets every event; the ledger is closed."""
    done = run_script(EXAMPLES / "custom_sink.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 orders, 16.98 in all" in done.stdout
    assert "closed" in done.stdout


def test_every_example_is_run():
    """A new example needs a test that names it."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert [p.name for p in EXAMPLES.glob("*.py") if p.name not in tests] == []
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == {"eventhub", "shop"}  # test_examples.py, here


def test_importing_the_shop_does_nothing(monkeypatch, tmp_path):
    """`run.py` can be imported: nothing is configured, written or started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES / "shop")
    monkeypatch.setattr(client_module, "_default", None)
    path = EXAMPLES / "shop" / "run.py"
    spec = importlib.util.spec_from_file_location("shop_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.main)
    assert client_module._default is None
    assert list(tmp_path.iterdir()) == []
