"""What must hold before events reach a topic: where it is, who the sink is."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest

from bizlog_handlers._brokers import Access
from bizlog_handlers._checks import CheckFailedError
from bizlog_handlers._topic_checks import TopicChecks, places_of

kafka = pytest.importorskip("confluent_kafka", reason="has no wheel here")

HUB = "shop.servicebus.windows.net"


def checks_of(access, *, credential=None, producer=None, read_password=lambda: None):
    """Make the steps of a topic `orders`."""
    made = TopicChecks(
        topic="orders",
        access=access,
        credential=credential,
        new_producer=lambda note: producer(note),
        read_password=read_password,
    )
    return {check.name: check.run for check in made.all()}


def told_by(checks, name, seconds=5.0):
    """Run a step; returns what it told."""
    return asyncio.run(checks[name](seconds))


def failure_of(checks, name, seconds=5.0):
    """Run a step that fails; returns what it raised."""
    with pytest.raises(CheckFailedError) as raised:
        told_by(checks, name, seconds)
    return raised.value


def test_all_servers_are_looked_at():
    """A port that is not named is librdkafka's, or that of Event Hubs."""
    listed = places_of(Access("a:1, b , [::1]:2,[::2]"))
    assert [(p.host, p.port) for p in listed] == [
        ("a", 1),
        ("b", 9092),
        ("::1", 2),
        ("::2", 9092),
    ]
    assert [p.port for p in places_of(Access(HUB))] == [9093]


@pytest.mark.parametrize(
    ("auth", "who"),
    [
        ("none", "without a name"),
        ("entra", "with a token of azure-identity"),
        ("password", "by password"),
    ],
)
def test_the_configuration_says_who_the_sink_is(auth, who):
    """The password is read from its file by then."""
    read = []
    checks = checks_of(
        Access("a:1", auth=auth), read_password=lambda: read.append(True)
    )

    assert told_by(checks, "configuration") == f"topic 'orders' at a:1, {who}"
    assert read == [True]


def test_event_hubs_without_an_identity_is_told_at_once():
    """It takes nobody without one."""
    failure = failure_of(checks_of(Access(HUB)), "configuration")

    assert "who the sink is" in str(failure)
    assert "auth=entra" in failure.advice[1]


def test_certificates_that_cannot_be_read(tmp_path):
    """The option is named."""
    access = Access("a:1", tls=True, ca_file=str(tmp_path / "missing.pem"))

    assert "option 'ca_file'" in str(failure_of(checks_of(access), "TLS"))
    assert "not set" in told_by(checks_of(Access("a:1")), "TLS")


def test_certificates_are_looked_at_with_the_systems_own():
    """Where no file is named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"

        failure = failure_of(checks_of(Access(place, tls=True)), "TLS")

    assert f"{place} does not speak TLS: connection refused" in str(failure)


def test_a_credential_that_is_silent():
    """The step ends in its time, whatever the credential does."""
    over = threading.Event()
    silent = SimpleNamespace(get_token=lambda _: over.wait(20))
    access = Access(f"{HUB}:9093", auth="entra", tls=True)
    try:
        failure = failure_of(checks_of(access, credential=silent), "token", 0.1)
        assert not over.is_set()
    finally:
        over.set()
    assert str(failure) == "no token within 0.1 s"


def giving(answer):
    """Make a credential that gives a token or fails."""

    def get_token(scope):
        if answer is not None:
            raise answer
        return SimpleNamespace(token="secret", expires_on=0.0)

    return SimpleNamespace(get_token=get_token)


def test_tokens_are_asked_for():
    """Where the sink needs one; what a credential tried is told."""
    access = Access(f"{HUB}:9093", auth="entra", tls=True)

    told = told_by(checks_of(access, credential=giving(None)), "token")
    assert told == f"token for https://{HUB}/.default"
    bad = checks_of(access, credential=giving(ValueError("none worked\n\n a: no")))
    failure = failure_of(bad, "token")
    assert str(failure) == "no token: ValueError: none worked"
    assert failure.advice == ("a: no",)
    assert "goes with" in told_by(checks_of(Access("a:1")), "token")


class Producer:
    """A producer that lists topics as it is told."""

    def __init__(self, note, answer, trouble=None):
        self.note, self.answer, self.trouble = note, answer, trouble

    def list_topics(self, topic, seconds):
        if isinstance(self.answer, Exception):
            raise self.answer
        topics = {topic: SimpleNamespace(error=self.answer, partitions=[0, 1])}
        return SimpleNamespace(topics=topics, brokers=[1])

    def poll(self, _):
        if self.trouble:
            self.note(SimpleNamespace(str=lambda: self.trouble))


def error(code):
    return kafka.KafkaError(code)


def test_a_topic_is_told_with_its_partitions():
    """And how many brokers there are."""
    checks = checks_of(Access("a:1"), producer=lambda note: Producer(note, None))

    assert told_by(checks, "topic") == "'orders': partitions 2, brokers 1"


def test_a_topic_that_is_missing():
    """Its name is told."""
    gone = error(kafka.KafkaError.UNKNOWN_TOPIC_OR_PART)
    checks = checks_of(Access("a:1"), producer=lambda note: Producer(note, gone))

    assert "there is no topic 'orders'" in str(failure_of(checks, "topic"))


@pytest.mark.parametrize(
    ("auth", "trouble", "advice"),
    [
        ("none", None, "option tls"),
        ("password", "SASL authentication error: bad", "sasl_mechanism"),
        ("entra", "Authentication failed", "Azure Event Hubs Data Sender"),
        ("connection_string", "SASL: no", "Standard, Premium, Dedicated"),
    ],
)
def test_brokers_that_give_no_answer(auth, trouble, advice):
    """What librdkafka met meanwhile is told; refused identities have their advice."""
    late = kafka.KafkaException(error(kafka.KafkaError._TRANSPORT))
    checks = checks_of(
        Access("a:1", auth=auth),
        producer=lambda note: Producer(note, late, trouble),
    )

    failure = failure_of(checks, "topic")

    assert (trouble or "") in str(failure)
    assert advice in "\n".join(failure.advice)
    assert ("option tls" in "\n".join(failure.advice)) is (trouble is None)
