"""What must hold before events reach a hub: where it is, who the sink is."""

from __future__ import annotations

import asyncio
import base64
import json
from types import SimpleNamespace

import pytest

from bizlog.exceptions import RetryableSinkError
from bizlog_handlers._azure import ConnectionString, parse_connection_string
from bizlog_handlers._checks import CheckFailedError

hub_checks = pytest.importorskip(
    "bizlog_handlers._hub_checks", reason="needs azure-eventhub", exc_type=ImportError
)

SCOPE = "https://eventhubs.azure.net//.default"
HOST = "shop.servicebus.windows.net"
SHARED = "SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0"
NOW = 1_800_000_000.0
LONG_AGO, FAR_AHEAD = 1_600_000_000, 33_000_000_000  # 3015


def string(host=HOST, rest=SHARED):
    return parse_connection_string(f"Endpoint=sb://{host}/;{rest}", "x")


EMULATOR = f"{SHARED};UseDevelopmentEmulator=true"


@pytest.mark.parametrize(
    ("host", "secret", "endpoint", "websocket", "place"),
    [
        (HOST, None, None, False, (HOST, 5671)),
        (HOST, None, None, True, (HOST, 443)),
        (HOST, string(), None, False, (HOST, 5671)),
        ("shop:1234", string("shop:1234"), None, False, ("shop", 5671)),
        ("shop", string("shop:1234", EMULATOR), None, False, ("shop", 1234)),
        ("shop", string("shop", EMULATOR), None, False, ("shop", 5672)),
        ("shop", string("shop:1234", EMULATOR), None, True, ("shop", 443)),
        (HOST, None, "sb://gate:99", False, ("gate", 99)),
        (HOST, None, "gate", False, ("gate", 5671)),
        (HOST, None, "gate", True, ("gate", 443)),
    ],
)
def test_where_the_sdk_connects_to(host, secret, endpoint, websocket, place):
    """A port in the name counts for an emulator alone, a custom endpoint before all."""
    found = hub_checks.place_of(host, secret, endpoint, websocket=websocket)

    assert (found.host, found.port) == place


def test_an_emulator_is_one_only_by_the_exact_word():
    """`True` is none: the SDK compares so."""
    assert string("shop", EMULATOR).is_emulator
    assert not string("shop", EMULATOR.replace("=true", "=True")).is_emulator


def signed(signature):
    return string(rest=f"SharedAccessSignature=SharedAccessSignature {signature}")


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        (string(), "signed with the key 'send'"),
        (signed("sr=x&sig=y"), "a shared access signature"),
        (
            signed(f"sr=x&sig=y&se={NOW + 1:.0f}&skn=z"),
            "a shared access signature valid until 2027-01-15 08:00:01 UTC",
        ),
        (ConnectionString("odd", HOST), "a shared access signature"),
    ],
)
def test_what_a_connection_string_proves_itself_by(secret, told):
    """The key's name is told, the key is not."""
    assert hub_checks.signature_of(secret, NOW) == told


def test_a_signature_that_has_expired():
    """When it did is told."""
    with pytest.raises(CheckFailedError, match="expired at 2027-01-15 08:00:00 UTC"):
        hub_checks.signature_of(signed(f"sig=y&se={NOW:.0f}"), NOW)


class Credential:
    """A credential whose answer is known."""

    def __init__(self, answer):
        self.answer = answer
        self.scopes = []

    async def get_token(self, *scopes):
        self.scopes.append(scopes)
        if self.answer == "hang":
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(token=self.answer, expires_on=NOW)


def web_token(**claims):
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature-that-is-secret"


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("opaque", "token until"),
        ("a.%%.c", "token until"),
        (web_token(aud="https://eventhubs.azure.net"), "token until 2027-01-15"),
        (web_token(aud="80369ed6-5f11-4dd9-bef3-692475845e77"), "token until"),
        (web_token(oid="0b1e", nbf=LONG_AGO), "token of the identity 0b1e"),
    ],
)
def test_a_token_is_told_without_showing_it(token, told):
    """Whose it is and until when it counts; it is asked for Event Hubs' scope."""
    credential = Credential(token)

    found = asyncio.run(hub_checks.token_of(credential, 5.0))

    assert told in found
    assert token not in found
    assert credential.scopes == [(SCOPE,)]


TRIED = "none worked\n\n  EnvironmentCredential: no variables\n  Cli: not logged in"


@pytest.mark.parametrize(
    ("answer", "reason", "advice"),
    [
        ("hang", "no token within 0.05 s", "managed identity"),
        (ValueError(TRIED), "no token: ValueError: none worked", "Cli: not logged in"),
        (ValueError(), "no token: ValueError: (no text)", "az login"),
        (
            web_token(aud="https://management.azure.com/"),
            "the token is for https://management.azure.com/",
            "scope",
        ),
        (web_token(nbf=FAR_AHEAD), "the token counts from", "NTP"),
    ],
)
def test_a_credential_that_gives_no_good_token(answer, reason, advice):
    """All that it tried is told, and how identities are given to a service."""
    with pytest.raises(CheckFailedError) as raised:
        asyncio.run(hub_checks.token_of(Credential(answer), 0.05))

    assert reason in str(raised.value)
    assert advice in "\n".join(raised.value.advice)


def test_reasons_have_their_advice():
    """The condition in the sink's reason leads to it; the sink's hint is left out."""
    reason = "the hub is throttled: its units [server-busy: 50002 in [1] TUs]"

    assert hub_checks.plain(reason) == "server-busy: 50002 in [1] TUs"
    assert hub_checks.plain("no answer") == "no answer"
    assert "throughput units" in hub_checks.advice_for(reason)[0]
    assert hub_checks.advice_for("something new") == ()


def checks_of(ask, secret=None, credential=None):
    """Make the steps, with a hub that answers as told."""

    async def find_secret():
        return secret

    async def find_credential():
        return credential

    made = hub_checks.HubChecks(
        hub="orders",
        namespace=HOST,
        custom_endpoint=None,
        websocket=False,
        secret=find_secret,
        credential=find_credential,
        trust=lambda: asyncio.sleep(0),
        connect=None,
    )
    made._ask_hub = ask
    return {check.name: check.run for check in made.all()}


def run_all(checks, *names):
    """Run steps, one after the other; returns what they told."""

    async def scene():
        return [await checks[name](5.0) for name in names]

    return asyncio.run(scene())


def answering(*answers):
    """Make the hub answer in this order."""
    left = list(answers)

    async def ask(_):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


LAYOUT = SimpleNamespace(partitions=["0"], limit=1024)


@pytest.mark.parametrize(
    ("secret", "who"),
    [
        (None, "with a credential of azure-identity"),
        (string(), "with the key 'send'"),
        (signed("sig=y"), "with a shared access signature"),
    ],
)
def test_the_configuration_says_who_the_sink_is(secret, who):
    """Hub, namespace and kind of identity; no secret."""
    checks = checks_of(answering(), secret)

    assert run_all(checks, "configuration") == [f"hub 'orders' of {HOST}, {who}"]


def test_a_hub_is_asked_once():
    """What the token was proved with answers for the hub, too."""
    checks = checks_of(answering(LAYOUT), credential=Credential("opaque"))

    token, hub = run_all(checks, "token", "hub")

    assert token.startswith("token until")
    assert token.endswith("; accepted")
    assert hub == "'orders' has 1 partition and takes 1,024 bytes at once"


def test_a_hub_that_is_missing_is_no_fault_of_the_token():
    """The token was not refused; the hub is asked again, and it is the hub's step."""
    missing = RetryableSinkError("hint [not-found: 404]")
    checks = checks_of(answering(missing, missing), string())

    assert run_all(checks, "configuration", "token")[1:] == [
        "signed with the key 'send'; not refused"
    ]
    with pytest.raises(CheckFailedError, match=r"^not-found: 404$") as raised:
        run_all(checks, "hub")
    assert "az eventhubs eventhub list" in raised.value.advice[0]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("hint [unauthorized-access: 401]", "Azure Event Hubs Data Sender"),
        ("no answer from the hub within 5 s", "?transport=websocket"),
    ],
)
def test_a_token_that_is_refused_or_not_answered(reason, advice):
    """Role, key, clock and firewall; or a proxy that knows no AMQP."""
    checks = checks_of(answering(RetryableSinkError(reason)), string())

    run_all(checks, "configuration")
    with pytest.raises(CheckFailedError) as raised:
        run_all(checks, "token")
    assert advice in "\n".join(raised.value.advice)
