"""EventHubSink: options that work together, secrets that stay secret, no late imports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog.sinks import make_sink
from bizlog_handlers.eventhub import ENVIRONMENT, EventHubSink

sdk = pytest.importorskip("azure.eventhub", reason="azure-eventhub is not installed")

ROOT = Path(__file__).parents[3]
KEY = "c2VjcmV0LWtleQ=="
HOST = "contoso.servicebus.windows.net"
SECRET = f"Endpoint=sb://{HOST}/;SharedAccessKeyName=send;SharedAccessKey={KEY}"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Keep what this machine sets for Event Hubs out of the tests."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)


class Credential:
    """A credential of the user's."""

    async def get_token(self, *scopes, **_):
        raise AssertionError


def client_of(sink):
    """Build the client that the sink would send with."""
    return asyncio.run(sink._connect())


def from_url(text):
    return EventHubSink.from_url(urlsplit(text, allow_fragments=False))


def test_a_sink_by_connection_string():
    """Host and hub are shown, the key is not."""
    sink = EventHubSink(connection_string=SECRET)

    assert repr(sink) == f"EventHubSink('{HOST}/events')"
    assert (sink.name, sink.flush_interval, sink.max_in_flight) == ("eventhub", 1.0, 1)
    client = client_of(sink)
    assert client._address.hostname == HOST
    assert client.eventhub_name == "events"


@pytest.mark.parametrize(
    ("given", "entity", "hub"),
    [
        (None, None, "events"),
        (None, "orders", "orders"),
        ("orders", "orders", "orders"),
    ],
)
def test_the_hub_is_named_by_the_option_or_the_connection_string(given, entity, hub):
    """EntityPath names it where the option does not; `events` is the default."""
    secret = SECRET + (f";EntityPath={entity}" if entity else "")

    assert client_of(EventHubSink(given, connection_string=secret)).eventhub_name == hub


def test_the_environment_supplies_the_secret(monkeypatch):
    """A URL names the place; who the sink is comes from outside."""
    monkeypatch.setenv(ENVIRONMENT, SECRET)

    for url in (f"eventhub://{HOST}/orders", "eventhub:///orders", "eventhub:orders"):
        sink = from_url(url)
        assert repr(sink) == f"EventHubSink('{HOST}/orders')"
        assert client_of(sink).eventhub_name == "orders"


def test_an_empty_connection_string_takes_none(monkeypatch):
    """So a sink can have an identity though the environment holds a secret."""
    monkeypatch.setenv(ENVIRONMENT, SECRET.replace("contoso", "other"))

    sink = EventHubSink(connection_string="", namespace=HOST)

    assert sink._uses_default_credential()
    asyncio.run(sink.stop())


def test_a_url_carries_the_options():
    """By the names they have, converted to their types."""
    sink = from_url(
        f"eventhub://{HOST}/orders?connection_string_file=/x&pack=50&max_in_flight=2"
        "&pack_across_keys=true&metadata=key&flush_interval=2&transport=websocket"
        "&keep_alive=0&send_timeout=5&partition_key=user_id&name=hub"
    )

    assert (sink._pack, sink._mixed, sink._metadata) == (50, True, "key")
    assert (sink.flush_interval, sink.max_in_flight, sink.name) == (2.0, 2, "hub")
    assert sink._client_options() == {
        "transport_type": sdk.TransportType.AmqpOverWebsocket,
        "retry_total": 0,
        "retry_backoff_factor": 0,
        "auth_timeout": 5.0,
        "keep_alive": None,
        "user_agent": "bizlog",
        "ssl_context": None,
    }


def test_a_table_carries_objects():
    """A credential stands in a table, or in code."""
    credential = Credential()

    sink = EventHubSink.from_options({"namespace": HOST, "credential": credential})

    assert client_of(sink)._credential is credential


def test_an_endpoint_of_ones_own():
    """It goes to the SDK as it is."""
    sink = EventHubSink(
        namespace=HOST,
        credential=Credential(),
        custom_endpoint="sb://10.0.0.4:5671",
    )

    options = sink._client_options()
    assert options["custom_endpoint_address"] == "sb://10.0.0.4:5671"
    assert options["transport_type"] is sdk.TransportType.Amqp


@pytest.mark.parametrize(
    "url",
    [
        f"eventhub://{HOST}/orders?connection_string={SECRET}",
        f"eventhub://user:{KEY}@{HOST}/orders",
        f"eventhub://{HOST}/orders?credential=x",
    ],
)
def test_a_secret_in_a_url_is_refused(url):
    """Logs show URLs: the message names the variable, and not the secret."""
    with pytest.raises(ConfigurationError, match=ENVIRONMENT) as raised:
        from_url(url)

    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"namespace": None}, "'namespace': needed without a connection string"),
        ({"namespace": "contoso"}, "'namespace': expected the full host name"),
        ({"namespace": "a b.c"}, "'namespace': expected the full host name"),
        ({"eventhub": "a/b"}, "'eventhub': expected letters"),
        ({"eventhub": "a\nb"}, "'eventhub': expected letters"),
        ({"partition_key": "fixed:"}, "'partition_key': expected names"),
        ({"pack": 0}, "'pack' must be from 1 to 10000, got 0"),
        ({"pack": 10_001}, "'pack' must be from 1 to 10000"),
        ({"pack_across_keys": True}, "needs a 'pack' greater than 1"),
        ({"metadata": "some"}, "'metadata': expected full, key or none"),
        ({"transport": "http"}, "'transport': expected amqp or websocket"),
        ({"max_in_flight": 0}, "'max_in_flight' must be at least 1"),
        ({"send_timeout": 0.0}, "'send_timeout' must be greater than 0"),
        ({"keep_alive": -1}, "'keep_alive' must not be below 0"),
        ({"connection_string": SECRET}, "give one of connection_string"),
        ({"connection_string_file": "x"}, "give one of connection_string"),
        ({"credential": None, "connection_string": "nothing"}, "expected a connection"),
        (
            {"credential": None, "connection_string": SECRET, "namespace": "other.net"},
            f"'namespace': is 'other.net', but the connection string is for '{HOST}'",
        ),
        (
            {
                "credential": None,
                "connection_string": f"{SECRET};EntityPath=orders",
                "eventhub": "other",
            },
            "is 'other', but the connection string is for 'orders' (EntityPath)",
        ),
    ],
)
def test_options_that_cannot_work_are_named(options, problem):
    """Each with what was found and what is expected, and without the key."""
    with pytest.raises(ConfigurationError) as raised:
        EventHubSink(**{"namespace": HOST, "credential": Credential()} | options)

    assert problem in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_bad_secret_of_the_environment_is_named_by_its_variable(monkeypatch):
    """So it is known where to mend it."""
    monkeypatch.setenv(ENVIRONMENT, "nothing")

    with pytest.raises(
        ConfigurationError, match=f"{ENVIRONMENT}: expected a connection"
    ):
        EventHubSink()


@pytest.mark.parametrize("namespace", [HOST, HOST.upper(), f"{HOST}:5671"])
def test_the_namespace_may_be_given_twice(namespace):
    """Where both agree; a host has no case, and a port may stand in the string alone."""
    secret = SECRET.replace(HOST, f"{HOST}:5671") if ":" in namespace else SECRET

    EventHubSink(namespace=namespace, connection_string=secret)
    EventHubSink(namespace=HOST, connection_string=SECRET.replace(HOST, f"{HOST}:5671"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read"),
        ("nothing", "expected a connection string"),
        (f"{SECRET};EntityPath=other", "is 'events', but the connection string is for"),
    ],
)
def test_a_secret_file_that_cannot_be_used_may_be_mended(tmp_path, content, fault):
    """The sink starts as soon as it can; until then the events wait."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    sink = EventHubSink("events", connection_string_file=str(path))

    with pytest.raises(RetryableSinkError, match=fault):
        asyncio.run(sink.start())

    path.write_text(SECRET)
    assert client_of(sink).eventhub_name == "events"
    assert repr(sink) == "EventHubSink('?/events')"


def test_a_consumer_is_who_the_sink_is():
    """Same hub, identity and way; the group and other options are the reader's."""

    async def scene():
        sink = EventHubSink(namespace=HOST, credential=(credential := Credential()))
        client = await sink.consumer("mine", load_balancing_interval=1.0)
        assert client._credential is credential
        assert client._config.ssl_context is sink._tls is not None
        assert client._load_balancing_interval == 1.0
        await sink.stop()
        sink = EventHubSink("orders", connection_string=SECRET)
        return client, await sink.consumer("other")

    for client, hub, group in zip(
        asyncio.run(scene()), ("events", "orders"), ("mine", "other"), strict=True
    ):
        assert client._address.hostname == HOST
        assert (client.eventhub_name, client._consumer_group) == (hub, group)


def test_without_secret_and_credential_the_default_identity_is_taken():
    """It is the sink's own: closed by `stop`, and made anew by the next start."""
    pytest.importorskip("azure.identity", reason="azure-identity is not installed")

    async def scene():
        sink = EventHubSink(namespace=HOST)
        first = (await sink._connect())._credential
        await sink.stop()
        second = (await sink._connect())._credential
        await sink.stop()
        return first, second

    first, second = asyncio.run(scene())
    assert first is not second
    assert type(first).__name__ == "DefaultAzureCredential"


def test_a_sink_that_is_not_started_takes_nothing(make_batch):
    """The events wait."""
    sink = EventHubSink(connection_string=SECRET)

    with pytest.raises(RetryableSinkError, match="not started"):
        asyncio.run(sink.deliver(make_batch("order.placed")))
    asyncio.run(sink.stop())


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    """The message says which pip command helps."""
    monkeypatch.setitem(sys.modules, "azure.eventhub.aio", None)

    with pytest.raises(MissingExtraError, match=r"bizlog\[eventhub\]"):
        EventHubSink(connection_string=SECRET)


def test_without_azure_identity_the_extra_is_named(monkeypatch):
    """Only who needs it must have it."""
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)

    EventHubSink(connection_string=SECRET)
    with pytest.raises(MissingExtraError, match=r"bizlog\[eventhub\]"):
        EventHubSink(namespace=HOST)


def test_the_sink_is_found_by_its_name():
    """`eventhub` is an entry point, as a scheme and as a type."""
    sink = make_sink({"type": "eventhub", "connection_string": SECRET})

    assert isinstance(sink, EventHubSink)


def test_a_child_begins_anew():
    """Links and clients are the parent's; who the sink is stays the same."""
    credential = Credential()
    sink = EventHubSink(namespace=HOST, credential=credential, pack=3)
    sink._links = links = object()

    sink.after_fork()

    assert sink._links is None
    assert sink._credential is credential
    assert sink._pack == 3
    assert links is not None


NOTHING_LATE = """
import asyncio, sys, time
from bizlog.sinks import Batch, Record
import bizlog_handlers.eventhub
assert "azure" not in sys.modules, "with the module"
from azure.core.credentials import AccessToken
from bizlog.dev.eventhubs import LoopbackEventHubs

class Credential:
    async def get_token(self, *scopes, **_):
        return AccessToken("a token", int(time.time()) + 3600)

async def scene(hubs):
    sink = bizlog_handlers.eventhub.EventHubSink(
        connection_string="",
        namespace="contoso.servicebus.windows.net",
        credential=Credential(),
        custom_endpoint=hubs.endpoint,
        ca_file=str(hubs.ca_file),
    )
    before = set(sys.modules)
    await sink.start()
    record = Record(b"{}", "1", "a.b", "", 1)
    await sink.deliver(Batch("j", 1, 1, [record]))
    await sink.stop()
    return sorted(set(sys.modules) - before)

with LoopbackEventHubs({"events": 1}, tls=True) as hubs:
    late = asyncio.run(scene(hubs))
assert not late, late
"""


def test_nothing_is_imported_later_than_the_sink_is_built():
    """A fork during an import on bizlog's thread would hang the child."""
    pytest.importorskip(
        "bizlog.dev.eventhubs", reason="needs python-qpid-proton", exc_type=ImportError
    )
    paths = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))

    done = subprocess.run(
        [sys.executable, "-c", NOTHING_LATE],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
