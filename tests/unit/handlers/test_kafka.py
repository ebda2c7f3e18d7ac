"""The Kafka sink without a broker: what it takes, what it refuses, what it shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog_handlers import kafka
from bizlog_handlers.kafka import KafkaSink

confluent_kafka = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka has no wheel here"
)

STRING = (
    "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=send;"
    "SharedAccessKey=c2VjcmV0;EntityPath=orders"
)
VARIABLE = "BIZLOG_EVENTHUB_CONNECTION_STRING"


@pytest.fixture(autouse=True)
def no_string(monkeypatch):
    """Have no connection string in the environment."""
    monkeypatch.delenv(VARIABLE, raising=False)


class Credential:
    """Gives the same token each time, and notes what for."""

    def __init__(self):
        self.scopes = []

    def get_token(self, *scopes):
        self.scopes += scopes
        return SimpleNamespace(token="t0k3n", expires_on=1_800_000_000)


@pytest.fixture
def made(monkeypatch):
    """Settings of the producers that are made; none is."""
    settings = []

    class Producer:
        def __init__(self, given, logger=None):
            settings.append(given)

    monkeypatch.setattr(confluent_kafka, "Producer", Producer)
    return settings


def settings_of(sink, made):
    """Start a sink, and see what librdkafka is told."""
    asyncio.run(sink.start())
    return made[-1]


def from_url(text):
    """Build the sink from a URL as bizlog does."""
    return KafkaSink.from_url(urlsplit(text, allow_fragments=False))


def test_the_promises_are_librdkafkas_settings(made):
    """Idempotent, acknowledged by all replicas, bounded in time, keys as Java's."""
    found = settings_of(KafkaSink("a:1,b:2", "events", delivery_timeout=3), made)
    expected = {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "PLAINTEXT",
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 3000,
        "compression.type": "lz4",
        "linger.ms": 5.0,
        "partitioner": "murmur2_random",
        "message.max.bytes": 1_000_000,
    }
    assert expected.items() <= found.items()


def test_options_pass_through_by_name(made):
    """A setting of librdkafka that breaks nothing takes the place of the default."""
    sink = KafkaSink("a:1", options={"socket.timeout.ms": 5, "log_level": 7})
    found = settings_of(sink, made)
    assert (found["socket.timeout.ms"], found["log_level"]) == (5, 7)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("acks", "promises"),
        ("enable.idempotence", "promises"),
        ("bootstrap.servers", "use bootstrap_servers"),
        ("message.timeout.ms", "use delivery_timeout"),
        ("compression.type", "use compression"),
        ("linger.ms", "use linger"),
        ("sasl.password", "use username"),
        ("enable.ssl.certificate.verification", "always verified"),
        ("error_cb", "callbacks of its own"),
        ("on_delivery", "callbacks of its own"),
        ("transactional.id", "no transactions"),
    ],
)
def test_settings_that_break_promises_are_refused(name, advice):
    """The message names the setting and what to use instead."""
    with pytest.raises(ConfigurationError, match=advice) as found:
        KafkaSink("a:1", options={name: "x"})
    assert name in str(found.value)


@pytest.mark.parametrize(
    "options", [{"no.such.setting": 1}, {"socket.timeout.ms": "soon"}]
)
def test_settings_that_librdkafka_does_not_know_are_refused_at_once(options):
    """It is librdkafka that checks them, before anything is sent."""
    with pytest.raises(ConfigurationError, match="option 'options'"):
        KafkaSink("a:1", options=options)


def test_a_connection_string_leads_to_the_kafka_endpoint(made):
    """Host, port, hub, TLS, user and password follow from it; it is never shown."""
    sink = KafkaSink(connection_string=STRING)
    assert repr(sink) == "KafkaSink('shop.servicebus.windows.net:9093', 'orders')"
    found = settings_of(sink, made)
    expected = {
        "bootstrap.servers": "shop.servicebus.windows.net:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "$ConnectionString",
        "sasl.password": STRING,
        "compression.type": "none",  # Event Hubs takes gzip alone
    }
    assert expected.items() <= found.items()


def test_the_environments_string_is_for_its_host_alone(made, monkeypatch):
    """It is not sent to another Kafka, nor in the place of what was given."""
    monkeypatch.setenv(VARIABLE, STRING)
    own = from_url("kafka://shop.servicebus.windows.net:9093/clicks")
    assert settings_of(own, made)["sasl.password"] == STRING
    assert repr(own) == "KafkaSink('shop.servicebus.windows.net:9093', 'clicks')"
    assert "sasl.password" not in settings_of(KafkaSink("other:9092"), made)
    given = KafkaSink("shop.servicebus.windows.net:9093", credential=Credential())
    assert "sasl.password" not in settings_of(given, made)
    assert repr(KafkaSink()) == repr(KafkaSink(connection_string=STRING))


def test_tokens_are_for_the_namespace(made):
    """A credential is asked for the namespace's scope, whenever librdkafka asks."""
    credential = Credential()
    sink = KafkaSink("shop.servicebus.windows.net:9093", "t", credential=credential)
    found = settings_of(sink, made)
    assert found["security.protocol"] == "SASL_SSL"
    assert found["sasl.mechanism"] == "OAUTHBEARER"
    assert found["oauth_cb"]("") == ("t0k3n", 1_800_000_000.0)
    assert set(credential.scopes) == {"https://shop.servicebus.windows.net/.default"}


def test_a_token_that_is_not_given_is_asked_for_again(made):
    """The start fails for now and tells why, in one line."""

    class Broken:
        def get_token(self, scope):
            raise OSError("no identity here\nand much more")

    sink = KafkaSink("a:1", credential=Broken())
    with pytest.raises(RetryableSinkError) as found:
        asyncio.run(sink.start())
    assert str(found.value) == "no token: OSError: no identity here"
    assert not made


def test_entra_takes_the_default_credential(made, monkeypatch):
    """Without a credential of the user's azure-identity's default one is built."""
    credential = Credential()
    monkeypatch.setattr(
        "bizlog_handlers._brokers.import_module",
        lambda name: SimpleNamespace(DefaultAzureCredential=lambda: credential),
    )
    sink = KafkaSink("shop.servicebus.windows.net:9093", auth="entra")
    assert settings_of(sink, made)["oauth_cb"]("")[0] == "t0k3n"


def test_missing_packages_are_named(monkeypatch):
    """Each missing one with the command that installs it."""

    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr("bizlog_handlers._brokers.import_module", fail)
    with pytest.raises(MissingExtraError, match=r"bizlog\[entra\]"):
        KafkaSink("a.servicebus.windows.net:9093", auth="entra")
    monkeypatch.setattr(kafka, "import_module", fail)
    with pytest.raises(MissingExtraError, match=r"bizlog\[kafka\]"):
        KafkaSink("a:1")


def test_user_and_password_for_any_kafka(made, tmp_path):
    """The password comes from a file that is read at each start; TLS unless refused."""
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    sink = KafkaSink(
        "a:1",
        username="me",
        password_file=str(file),
        sasl_mechanism="SCRAM-SHA-512",
        ca_file="ca.pem",
    )
    found = settings_of(sink, made)
    expected = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "s3cret",
        "ssl.ca.location": "ca.pem",
    }
    assert expected.items() <= found.items()
    plain = KafkaSink("a:1", username="me", password="x", tls=False)
    assert settings_of(plain, made)["security.protocol"] == "SASL_PLAINTEXT"


@pytest.mark.parametrize("content", [None, b" ", b"\xff"])
def test_a_password_that_cannot_be_read_is_tried_again(tmp_path, content):
    """A secret may be mounted late: the start fails for now, and names the option."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    sink = KafkaSink("a:1", username="me", password_file=str(file))
    with pytest.raises(RetryableSinkError, match="password_file"):
        asyncio.run(sink.start())


def test_certificates_that_are_not_there_are_tried_again():
    """The reason that librdkafka gives is told."""
    sink = KafkaSink("a:1", tls=True, ca_file="/no/such.pem")
    with pytest.raises(RetryableSinkError, match=r"does not start: .*ssl"):
        asyncio.run(sink.start())


def test_a_consumer_is_who_the_sink_is(tmp_path, monkeypatch):
    """Same brokers and identity; the password is read anew, and faults are told."""
    given = []
    file = tmp_path / "password"
    file.write_text("s3cret\n")

    class Consumer:
        def __init__(self, settings, logger=None):
            given.append(settings)

    sink = KafkaSink("a:1", "orders", username="me", password_file=str(file))
    with monkeypatch.context() as patch:
        patch.setattr(confluent_kafka, "Consumer", Consumer)
        made, topic = sink.consumer(print, group_id="mine")
    assert (type(made), topic) == (Consumer, "orders")
    expected = {
        "bootstrap.servers": "a:1",
        "sasl.username": "me",
        "sasl.password": "s3cret",
        "group.id": "mine",
        "error_cb": print,
    }
    assert expected.items() <= given[0].items()
    assert "acks" not in given[0]
    broken = KafkaSink("a:1", tls=True, ca_file="/no/such.pem")
    with pytest.raises(RetryableSinkError, match=r"does not start: .*ssl"):
        broken.consumer(print, group_id="mine")


async def _async_token(*scopes):
    return None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap_servers": None}, "needs the option 'bootstrap_servers'"),
        ({"bootstrap_servers": "user:secret@a:1"}, "expected HOST:PORT"),
        ({"topic": "a b"}, "option 'topic'"),
        ({"topic": ".."}, "option 'topic'"),
        ({"linger": 2}, "option 'linger'"),
        ({"delivery_timeout": 0}, "option 'delivery_timeout'"),
        ({"max_message_bytes": 1}, "option 'max_message_bytes'"),
        ({"partition_key": "a b"}, "option 'partition_key'"),
        ({"connection_string": STRING, "username": "u", "password": "p"}, "one of"),
        ({"auth": "password"}, "option 'auth'"),
        ({"username": "u"}, "username goes with"),
        ({"password": "secret"}, "username goes with"),
        ({"username": "u", "password": "secret", "password_file": "f"}, "give one"),
        ({"credential": Credential(), "tls": False}, "never sent without TLS"),
        (
            {"credential": SimpleNamespace(get_token=_async_token)},
            "expected a synchronous credential",
        ),
        (
            {"bootstrap_servers": "a.servicebus.windows.net:1", "compression": "lz4"},
            "Event Hubs takes 'gzip'",
        ),
        ({"connection_string": "Endpoint=secret"}, "connection string"),
    ],
)
def test_what_cannot_work_is_refused(options, said):
    """Each fault with its option, and without the secret."""
    with pytest.raises(ConfigurationError, match=said) as found:
        KafkaSink(**{"bootstrap_servers": "a:1", **options})
    assert "secret" not in str(found.value)


def test_a_url_names_brokers_topic_and_options(made):
    """What stands in the query is converted to each option's type."""
    sink = from_url(
        "kafka://a:1,b:2/clicks?compression=gzip&cloudevents=true&linger=0.1&name=k"
    )
    assert repr(sink) == "KafkaSink('a:1,b:2', 'clicks')"
    assert sink.name == "k"
    found = settings_of(sink, made)
    assert (found["compression.type"], found["linger.ms"]) == ("gzip", 100.0)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://user:secret@a:1/t",
        "kafka://a:1/t?password=secret",
        "kafka://a:1/t?connection_string=secret",
    ],
)
def test_secrets_have_no_place_in_a_url(url):
    """The URL is refused, without the secret in the message."""
    with pytest.raises(ConfigurationError) as found:
        from_url(url)
    assert "secret@" not in str(found.value)
    assert "=secret" not in str(found.value)


def test_importing_bizlog_loads_no_librdkafka():
    """It is loaded when a sink is built, not before."""
    code = "import sys, bizlog, bizlog_handlers.kafka; print('confluent_kafka' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
