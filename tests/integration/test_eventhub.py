"""Through all of bizlog into a loopback Event Hubs: nothing lost, keys in order."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

import bizlog
from bizlog import BusinessTelemetryClient, diagnostics, get_logger
from bizlog_handlers._partitions import Partitions
from bizlog_handlers.eventhub import ENVIRONMENT, EventHubSink

_links = pytest.importorskip(
    "bizlog_handlers._links", reason="needs azure-eventhub", exc_type=ImportError
)
eventhubs = pytest.importorskip(
    "bizlog.dev.eventhubs", reason="needs python-qpid-proton", exc_type=ImportError
)
AccessToken = import_module("azure.core.credentials").AccessToken
Fault, LoopbackEventHubs = eventhubs.Fault, eventhubs.LoopbackEventHubs

ROOT = Path(__file__).parents[2]

# The SDK loses sight of connections that the server cuts, and leaves their sockets to
# the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

# A send that is never answered is cut after this; connections take half a second.
SEND_TIMEOUT = 3.0


def wait_until(condition, timeout=30.0):
    """Wait in real time until something holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Keep what this machine sets for Event Hubs out of the tests."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def make_hubs():
    """Start servers; all are stopped."""
    made = []

    def make(partitions=2, **options):
        made.append(LoopbackEventHubs({"events": partitions}, **options).start())
        return made[-1]

    yield make
    for hubs in made:
        hubs.stop()


@pytest.fixture
def make_client(tmp_path):
    """Make clients that send to a server; all are shut down."""
    made = []

    def make(hubs, **options):
        given = {"connection_string": hubs.connection_string} | options
        sink = EventHubSink(flush_interval=0.05, **given)
        made.append(
            BusinessTelemetryClient(
                source="test", sinks=[sink], dead_letters=str(tmp_path / "dead")
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.shutdown_sync()
    gc.collect()  # see pytestmark: here, and not in another test


def emit(client, key, *numbers, **fields):
    """Emit numbered events of one session."""
    log = get_logger(client=client)
    with bizlog.session(key):
        for number in numbers:
            log.info("order.placed", order_id=str(number), **fields)


def stored(hubs):
    """Say what a hub holds: per session, the numbers in the order of their partition."""
    found = defaultdict(list)
    for message in hubs.events("events"):
        for line in message.body.splitlines():
            event = json.loads(line)
            found[event["session_id"]].append(int(event["order_id"]))
    return dict(found)


def settled(client):
    """Say how the only sink's events ended."""
    return client.ledger().sinks["eventhub"]


def key_of(partition, partitions):
    """Find a key that belongs to a partition."""
    chooser = Partitions([str(number) for number in range(partitions)])
    return next(
        f"s-{number}"
        for number in range(10_000)
        if chooser.of(f"s-{number}") == partition
    )


def test_events_arrive_with_what_describes_them(make_hubs, make_client):
    """Each event is a message with its key, id, type and version; keys keep order."""
    hubs = make_hubs(partitions=4)
    client = make_client(hubs)
    keys = [f"s-{number}" for number in range(20)]

    for start in range(0, 300, 100):
        for key in keys:
            emit(client, key, *range(start, start + 5))

    assert client.flush_sync(30)
    numbers = [number for start in (0, 100, 200) for number in range(start, start + 5)]
    assert stored(hubs) == dict.fromkeys(keys, numbers)
    for message in hubs.events("events"):
        event = json.loads(message.body)
        assert message.message_id == event["event_id"]
        assert message.partition_key == event["session_id"]
        assert message.application_properties == {
            "event_type": "order.placed",
            "schema_version": 1,
        }
    partitions = {(m.partition_key, m.partition) for m in hubs.events("events")}
    chooser = Partitions(["0", "1", "2", "3"])
    assert partitions == {(key, chooser.of(key)) for key in keys}


def test_packed_events_share_messages(make_hubs, make_client):
    """With `pack` a message holds up to so many events of one key, as JSON lines."""
    hubs = make_hubs()
    client = make_client(hubs, pack=4)
    log = get_logger(client=client)

    for number in range(10):
        for key in ("a", "b"):
            emit(client, key, number)
    with bizlog.session("c"):
        log.info("order.placed", order_id="0")
        log.info("order.returned", order_id="1")

    assert client.flush_sync(30)
    assert stored(hubs) == {"a": [*range(10)], "b": [*range(10)], "c": [0, 1]}
    found = hubs.events("events")
    assert len(found) < 22
    for message in found:
        events = [json.loads(line) for line in message.body.splitlines()]
        assert len(events) <= 4
        assert {event["session_id"] for event in events} == {message.partition_key}
        assert message.message_id == events[0]["event_id"]
    of_several = [m.application_properties for m in found if m.partition_key == "c"]
    assert of_several in (
        [None],
        [{}],
        [
            {"event_type": "order.placed", "schema_version": 1},
            {"event_type": "order.returned", "schema_version": 1},
        ],
    )


FAULTS = [
    Fault.reject("server-busy"),
    Fault.reject("server-busy", times=3),
    Fault.reject("message-size-exceeded", times=2),
    Fault.reject("internal-error", info=None),
    Fault.release(),
    Fault.modify(),
    Fault.stall(),
    Fault.detach("detach-forced"),
    Fault.detach("server-busy"),
    Fault.close(),
    Fault.drop(times=3),
    Fault.drop_after_store(),
]


def test_whatever_the_hub_does_everything_arrives(make_hubs, make_client, monkeypatch):
    """
    Each partition has a fault of its own: a batch is sent again until it is stored.

    Nothing is lost, no key loses its order, and what comes twice has the same id.
    """
    monkeypatch.setattr(_links, "BUSY_SECONDS", 0.2)
    hubs = make_hubs(partitions=len(FAULTS))
    client = make_client(hubs, send_timeout=SEND_TIMEOUT)
    keys = [key_of(str(number), len(FAULTS)) for number in range(len(FAULTS))]
    for number, fault in enumerate(FAULTS):
        hubs.inject(dataclasses.replace(fault, partition=str(number)))

    for key in keys:
        emit(client, key, 0, 1, 2)
    assert client.flush_sync(50)
    for key in keys:
        emit(client, key, 3)
    assert client.flush_sync(50)

    found = stored(hubs)
    for key, fault in zip(keys, FAULTS, strict=True):
        # In the order of their first arrival; what follows again was sent again.
        assert [*dict.fromkeys(found[key])] == [0, 1, 2, 3], fault
    assert found[keys[-1]] == [0, 1, 2, 0, 1, 2, 3]
    ids = {message.message_id for message in hubs.events("events")}
    assert len(ids) == settled(client).delivered == 4 * len(FAULTS)
    assert settled(client).dead_lettered == 0


def test_a_hub_that_is_busy_for_long_gets_everything_in_the_end(
    make_hubs, make_client, monkeypatch
):
    """Events wait while the hub is throttled, and no longer; other partitions go on."""
    monkeypatch.setattr(_links, "BUSY_SECONDS", 0.1)
    hubs = make_hubs()
    client = make_client(hubs)
    busy, free = key_of("0", 2), key_of("1", 2)
    hubs.inject(Fault.reject("server-busy", partition="0", times=None))

    emit(client, busy, 0, 1)
    emit(client, free, 0, 1)
    wait_until(lambda: stored(hubs) == {free: [0, 1]})
    wait_until(lambda: settled(client).pending == 4)
    hubs.clear_faults()

    assert client.flush_sync(30)
    assert stored(hubs) == {busy: [0, 1], free: [0, 1]}


def test_a_hub_that_is_down_at_first_gets_what_waits(make_hubs, make_client):
    """A sink that cannot start is started again; nothing that waits is lost."""
    hubs = make_hubs()
    hubs.stop()
    client = make_client(hubs, send_timeout=SEND_TIMEOUT)

    emit(client, "s", 0, 1)
    assert not client.flush_sync(0.5)
    hubs.start()

    assert client.flush_sync(40)
    assert stored(hubs) == {"s": [0, 1]}


def test_a_hub_that_goes_down_and_comes_back_gets_the_rest(make_hubs, make_client):
    """What is emitted while the hub is away arrives once it is there again."""
    hubs = make_hubs()
    client = make_client(hubs, send_timeout=SEND_TIMEOUT)
    emit(client, "s", 0)
    assert client.flush_sync(30)

    hubs.stop()
    emit(client, "s", 1)
    assert not client.flush_sync(0.5)
    hubs.start()

    assert client.flush_sync(40)
    assert stored(hubs) == {"s": [0, 1]}


IDLE = {
    "token expired": {"token_lifetime": 0.5},
    "idle link detached": {"idle_detach": 0.5},
    "idle connection closed": {"idle_timeout": 1.0},
}


def test_a_link_that_was_idle_for_long_is_made_anew(make_hubs, make_client):
    """Tokens expire and the service detaches idle links: the next event arrives."""
    hubs = {name: make_hubs(**options) for name, options in IDLE.items()}
    clients = {name: make_client(hubs[name], keep_alive=0) for name in IDLE}

    for number in range(2):
        for client in clients.values():
            emit(client, "s", number)
        for client in clients.values():
            assert client.flush_sync(30)
        time.sleep(1.5 * (not number))  # the subject: the server's clock cannot be set

    assert {name: stored(hubs[name]) for name in IDLE} == {
        name: {"s": [0, 1]} for name in IDLE
    }


def test_a_key_that_is_refused_is_mended_by_operators(
    make_hubs, make_client, tmp_path, caplog, monkeypatch
):
    """Without authorisation events wait; the file of the secret is read again."""
    hubs = make_hubs(check_token=lambda _audience, token: "skn=good" in token)
    text = hubs.connection_string
    name = text.partition("SharedAccessKeyName=")[2].partition(";")[0]
    secret = tmp_path / "secret"
    secret.write_text(text.replace(name, "bad"))
    monkeypatch.setattr(diagnostics, "_last", {})
    client = make_client(
        hubs, connection_string=None, connection_string_file=str(secret)
    )

    emit(client, "s", 0)
    wait_until(lambda: "Azure Event Hubs Data Sender" in caplog.text)
    secret.write_text(text.replace(name, "good"))

    assert client.flush_sync(40)
    assert stored(hubs) == {"s": [0]}


class Credential:
    """What azure-identity would be: hands out tokens, and counts."""

    def __init__(self):
        self.scopes = []
        self.closed = False

    async def get_token(self, *scopes, **_):
        self.scopes.append(scopes)
        return AccessToken("a token", int(time.time()) + 3600)

    async def close(self):
        self.closed = True


def test_an_identity_is_enough_over_tls(make_hubs, make_client):
    """A credential object, certificates of one's own, and a private endpoint."""
    asked = []
    hubs = make_hubs(tls=True, check_token=lambda *given: asked.append(given) or True)
    credential = Credential()
    client = make_client(
        hubs,
        connection_string=None,
        namespace="contoso.servicebus.windows.net",
        credential=credential,
        custom_endpoint=hubs.endpoint,
        ca_file=str(hubs.ca_file),
    )

    emit(client, "s", 0, 1)

    assert client.flush_sync(30)
    assert client.shutdown_sync()
    assert stored(hubs) == {"s": [0, 1]}
    assert set(credential.scopes) == {("https://eventhubs.azure.net//.default",)}
    assert {token for _, token in asked} == {"a token"}
    assert not credential.closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_sends_for_itself(make_hubs, tmp_path):
    """Parent and child each have connections of their own."""
    hubs = make_hubs()
    (tmp_path / "script.py").write_text(FORKING)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "handlers"))),
        ENVIRONMENT: hubs.connection_string,
    }

    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert stored(hubs) == {"parent": [0, 2], "child": [1]}


FORKING = """
import os, sys
import bizlog
from bizlog_handlers.eventhub import EventHubSink

def emit(key, number):
    with bizlog.session(key):
        bizlog.get_logger().info("order.placed", order_id=str(number))
    assert bizlog.flush(timeout=30)

bizlog.configure(source="test", sinks=[EventHubSink(flush_interval=0.05)])
emit("parent", 0)
child = os.fork()
if not child:
    emit("child", 1)
    bizlog.shutdown()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
emit("parent", 2)
bizlog.shutdown()
"""
