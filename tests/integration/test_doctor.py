"""`bizlog doctor` against servers: each step fails in turn, and says why."""

from __future__ import annotations

import base64
import gc
import json
import socket
import time
from types import SimpleNamespace

import pytest

from bizlog.cli import doctor, main
from bizlog_handlers.eventhub import ENVIRONMENT, EventHubSink

pytest.importorskip("azure.eventhub", reason="azure-eventhub is not installed")
eventhubs = pytest.importorskip(
    "bizlog.dev.eventhubs", reason="needs python-qpid-proton", exc_type=ImportError
)
Fault, LoopbackEventHubs = eventhubs.Fault, eventhubs.LoopbackEventHubs

# The SDK leaves sockets behind when a connection breaks; `tidy` has them found here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

STEPS = ["configuration", "DNS", "TCP", "TLS", "token", "hub", "event"]
KEY = "bG9vcGJhY2s="


@pytest.fixture(autouse=True)
def tidy():
    """Collect what the SDK left behind before another test is blamed for it."""
    yield
    gc.collect()


@pytest.fixture
def examine(capfd, monkeypatch):
    """Run the command with a connection string; returns its code and its steps."""

    def run(string, url, *arguments):
        monkeypatch.setenv(ENVIRONMENT, string)
        code = main(["doctor", url, "--json", "--timeout", "20", *arguments])
        shown = capfd.readouterr()
        for secret in (KEY, "SharedAccessKey="):
            assert secret not in shown.out + shown.err
        assert shown.err == ""
        found = json.loads(shown.out)["steps"]
        return code, {step["step"]: step for step in found}

    return run


@pytest.fixture
def make_hubs():
    """Start servers; all are stopped."""
    made = []

    def make(**options):
        made.append(LoopbackEventHubs({"events": 4}, **options).start())
        return made[-1]

    yield make
    for hubs in made:
        hubs.stop()


def url_of(hubs, hub="events", query=""):
    return f"eventhub://localhost:{hubs.port}/{hub}{query}"


def assert_fails_at(steps, name, reason, advice):
    """Only this step failed; those before are well, those behind are not done."""
    position = STEPS.index(name)
    states = [steps[step]["state"] for step in STEPS]
    behind = len(STEPS) - position - 1
    assert states == ["ok"] * position + ["failed"] + ["not done"] * behind
    assert reason in steps[name]["told"]
    assert advice in "\n".join(steps[name]["advice"])


def test_all_is_well(make_hubs, examine):
    """The event is there, with the id that was told; the time of each step is."""
    hubs = make_hubs()

    code, steps = examine(hubs.connection_string, url_of(hubs))

    assert code == 0
    assert list(steps) == STEPS
    assert {step["state"] for step in steps.values()} == {"ok"}
    assert steps["hub"]["told"].startswith("'events' has 4 partitions")
    assert steps["token"]["seconds"] > 0
    [message] = hubs.events("events")
    assert json.loads(message.body)["event_type"] == "bizlog.doctor"
    assert message.message_id in steps["event"]["told"]


def test_all_is_well_with_tls(make_hubs, examine):
    """The certificate is verified; with `--no-send` nothing is stored."""
    hubs = make_hubs(tls=True)
    query = f"?custom_endpoint={hubs.endpoint}&ca_file={hubs.ca_file}"

    code, steps = examine(
        hubs.connection_string, url_of(hubs, query=query), "--no-send"
    )

    assert code == 0
    assert "certificate for localhost" in steps["TLS"]["told"]
    assert steps["event"]["state"] == "left out"
    assert hubs.events("events") == []


def test_an_identity(make_hubs, examine, monkeypatch):
    """A credential gives a token, and the hub is asked with it."""
    put = []
    hubs = make_hubs(tls=True, check_token=lambda *token: put.append(token) or True)
    body = base64.urlsafe_b64encode(b'{"oid":"0b1e"}').decode().rstrip("=")
    token = f"head.{body}.{KEY}"

    class Credential:
        async def get_token(self, *scopes, **options):
            return SimpleNamespace(token=token, expires_on=time.time() + 3600)

    sink = EventHubSink(
        "events",
        namespace="localhost:1",
        credential=Credential(),
        custom_endpoint=hubs.endpoint,
        ca_file=str(hubs.ca_file),
    )
    monkeypatch.setattr(doctor, "make_sink", lambda _: sink)

    code, steps = examine("", url_of(hubs), "--no-send")

    assert code == 0
    assert "with a credential" in steps["configuration"]["told"]
    assert steps["token"]["told"].startswith("token of the identity 0b1e until")
    assert {given for _, given in put} == {token}


def test_a_configuration_that_disagrees(make_hubs, examine):
    """The connection string is for another hub than the URL."""
    hubs = make_hubs()
    string = f"{hubs.connection_string};EntityPath=orders"

    code, steps = examine(string, url_of(hubs))

    assert code == 1
    assert "is for 'orders' (EntityPath)" in steps["configuration"]["told"]
    assert steps["all others"]["state"] == "not done"


def test_a_secret_file_that_is_missing(make_hubs, examine, tmp_path):
    """It belongs to the configuration, though it is read with each connection."""
    hubs = make_hubs()
    query = f"?connection_string_file={tmp_path / 'missing'}"

    code, steps = examine("", url_of(hubs, query=query))

    assert code == 1
    assert_fails_at(steps, "configuration", "the file cannot be read", "")


def test_a_name_that_does_not_exist(examine):
    """Nothing is connected to."""
    string = f"Endpoint=sb://gone.invalid;SharedAccessKeyName=k;SharedAccessKey={KEY}"

    code, steps = examine(string, "eventhub://gone.invalid/events")

    assert code == 1
    assert_fails_at(steps, "DNS", "gone.invalid cannot be found", "misspelt")


def test_a_closed_port(make_hubs, examine):
    """Nobody listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        string = (
            f"Endpoint=sb://localhost:{port};SharedAccessKeyName=k;"
            f"SharedAccessKey={KEY};UseDevelopmentEmulator=true"
        )

        code, steps = examine(string, f"eventhub://localhost:{port}/events")

    assert code == 1
    assert_fails_at(steps, "TCP", "connection refused", "nothing listens")


def test_an_untrusted_certificate(make_hubs, examine):
    """As from a proxy that opens TLS: who issued it is told."""
    hubs = make_hubs(tls=True)
    query = f"?custom_endpoint={hubs.endpoint}"

    code, steps = examine(hubs.connection_string, url_of(hubs, query=query))

    assert code == 1
    assert_fails_at(steps, "TLS", "issued by CN=localhost", "proxy of your company")


def test_a_refused_token(make_hubs, examine):
    """The role, the key and the clock are named."""
    hubs = make_hubs(check_token=lambda *_: False)

    code, steps = examine(hubs.connection_string, url_of(hubs))

    assert code == 1
    assert_fails_at(steps, "token", "401", "role 'Azure Event Hubs Data Sender'")
    assert "clock" in "\n".join(steps["token"]["advice"])


def test_a_missing_hub(make_hubs, examine):
    """The token is not to blame; how to list the hubs is told."""
    hubs = make_hubs()

    code, steps = examine(hubs.connection_string, url_of(hubs, "nohub"))

    assert code == 1
    assert_fails_at(steps, "hub", "not-found", "az eventhubs eventhub list")


def test_a_hub_that_rejects(make_hubs, examine):
    """What it said is told, with what to do about it."""
    hubs = make_hubs()
    hubs.inject(Fault.reject("server-busy", times=None))

    code, steps = examine(hubs.connection_string, url_of(hubs))

    assert code == 1
    assert_fails_at(steps, "event", "server-busy", "throughput units")


def test_a_hub_that_does_not_acknowledge(make_hubs, examine):
    """The event's step ends in the sink's time."""
    hubs = make_hubs()
    hubs.inject(Fault.stall(times=None))

    code, steps = examine(
        hubs.connection_string, url_of(hubs, query="?send_timeout=1.5")
    )

    assert code == 1
    assert_fails_at(steps, "event", "no answer", "throttled requests")


def test_a_topic(kafka, capsys):
    """A Kafka broker has its steps, too: the event is in the topic."""
    topic = kafka.new_topic()

    assert main(["doctor", f"kafka://{kafka.servers}/{topic}"]) == 0
    out = capsys.readouterr().out
    for step in ("configuration", "DNS", "TCP", "TLS", "token", "topic", "event"):
        assert f"ok      {step}" in out
    [message] = kafka.read(topic, 1)
    assert json.loads(message.value())["event_type"] == "bizlog.doctor"


def test_a_broker_that_is_down(capsys):
    """Nothing behind the port that is closed is done."""
    pytest.importorskip("confluent_kafka", reason="has no wheel here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"

        assert main(["doctor", f"kafka://{place}/events"]) == 1

    out = capsys.readouterr().out
    assert "FAILED  TCP" in out
    assert f"{place} cannot be reached" in out
    assert "-       topic" in out
