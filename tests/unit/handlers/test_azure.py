"""Who a sink is towards Azure: read strictly, shown never."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from bizlog.exceptions import ConfigurationError, RetryableSinkError
from bizlog_handlers._azure import (
    AsyncCredential,
    default_credential,
    parse_connection_string,
    read_secret,
    tls_context,
)

KEY = "c2VjcmV0LWtleQ=="
ENDPOINT = "Endpoint=sb://contoso.servicebus.windows.net/"
SHARED = f"SharedAccessKeyName=send;SharedAccessKey={KEY}"


@pytest.mark.parametrize(
    ("text", "host", "entity"),
    [
        (f"{ENDPOINT};{SHARED}", "contoso.servicebus.windows.net", None),
        (f" {ENDPOINT};{SHARED};EntityPath=orders;\n", None, "orders"),
        (f"endpoint=sb://localhost:5672;{SHARED}", "localhost:5672", None),
        (
            f"{ENDPOINT};SharedAccessSignature=SharedAccessSignature sr=x&sig=y",
            None,
            None,
        ),
    ],
)
def test_a_connection_string_names_host_and_entity(text, host, entity):
    """Names of parts are read in any case, values keep theirs and their '='."""
    found = parse_connection_string(text, "option 'x'")

    assert found.host == (host or "contoso.servicebus.windows.net")
    assert found.entity == entity
    assert found.text == text.strip()


def test_a_connection_string_does_not_show_its_key():
    """Its repr names the host, and nothing that is secret."""
    shown = repr(parse_connection_string(f"{ENDPOINT};{SHARED}", "x"))

    assert "contoso" in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no parts at all", "parts 'Name=value'"),
        (f"{ENDPOINT};;{SHARED}", "parts 'Name=value'"),
        (f"{ENDPOINT};{SHARED};endpoint=sb://x/", "each named once"),
        (f"{ENDPOINT};SharedAccessKeyName=", "parts 'Name=value'"),
        (SHARED, "has no Endpoint"),
        (f"Endpoint=contoso;{SHARED}", "has no Endpoint"),
        (ENDPOINT, "needs SharedAccessKeyName and SharedAccessKey"),
        (f"{ENDPOINT};SharedAccessKey={KEY}", "needs SharedAccessKeyName"),
    ],
)
def test_a_malformed_connection_string_is_refused(text, fault):
    """The message says where it comes from and what is wrong, without the secret."""
    with pytest.raises(ConfigurationError) as raised:
        parse_connection_string(text, "option 'connection_string'")

    assert str(raised.value).startswith("option 'connection_string': ")
    assert fault in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_secret_is_read_from_its_file(tmp_path):
    """Blanks and line ends around it do not count."""
    path = tmp_path / "secret"
    path.write_text("\n a secret \n")

    assert asyncio.run(read_secret(str(path), "x_file")) == "a secret"


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "No such file"), (b"\xff", "UnicodeDecodeError"), (b" \n", "is empty")],
)
def test_a_secret_that_cannot_be_read_may_come_later(tmp_path, content, fault):
    """Operators mend files: the events wait."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RetryableSinkError, match=f"option 'x_file'.*{fault}"):
        asyncio.run(read_secret(str(path), "x_file"))


@pytest.mark.parametrize(
    ("content", "fault"), [(None, "No such file"), (b"no certificate", "certificate")]
)
def test_certificates_that_cannot_be_read_may_come_later(tmp_path, content, fault):
    """Operators mend files: the events wait."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RetryableSinkError, match=f"option 'ca_file'.*{fault}"):
        asyncio.run(tls_context(str(path)))


def test_connections_are_always_verified():
    """By certifi's certificates, unless others are named."""
    pytest.importorskip("certifi", reason="certifi is not installed")

    context = asyncio.run(tls_context(None))

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] > 50


def test_the_default_credential_is_that_of_azure_identity():
    """It is asynchronous, and nothing is imported with its first token."""
    pytest.importorskip("azure.identity", reason="azure-identity is not installed")

    async def close():
        credential = default_credential()
        assert isinstance(credential, AsyncCredential)
        await credential.close()

    asyncio.run(close())


def test_what_azure_identity_imports_late_need_not_exist(monkeypatch):
    """Its versions differ in what they need."""
    pytest.importorskip("azure.identity", reason="azure-identity is not installed")
    monkeypatch.setattr("bizlog_handlers._azure._WITH_A_TOKEN", ("no_such_module",))

    async def close():
        await default_credential().close()

    asyncio.run(close())
