"""The way to a server: each step says what it found, or what may be wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import socket
import ssl
import threading

import pytest

from bizlog_handlers import _network
from bizlog_handlers._checks import CheckFailedError
from bizlog_handlers._network import Place, connect, look_up, shake_hands

AZURE = Place("shop.servicebus.windows.net", 5671)
PATIENCE = 20.0


def failure_of(step):
    """Run a step that fails; returns what it raised."""
    with pytest.raises(CheckFailedError) as raised:
        asyncio.run(step)
    return raised.value


def resolving(monkeypatch, *addresses):
    """Have every name resolve to these addresses."""
    kinds = {True: socket.AF_INET6, False: socket.AF_INET}
    found = [(kinds[":" in a], 1, 6, "", (a, 5671)) for a in addresses]
    monkeypatch.setattr(_network.socket, "getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize(
    ("host", "addresses", "kind"),
    [
        (AZURE.host, ["10.1.0.4"], "private: a private endpoint"),
        (AZURE.host, ["20.38.0.1"], "public: the namespace must allow public access"),
        (AZURE.host, ["10.1.0.4", "20.38.0.1"], "public: the namespace must allow"),
        ("kafka.internal", ["192.168.0.9"], "(private)"),
        ("kafka.example", ["93.184.216.34", "2606:2800:21f::1"], "(public)"),
        ("localhost", ["127.0.0.1", "::1"], "(this machine)"),
    ],
)
def test_a_name_is_told_with_the_kind_of_its_addresses(
    monkeypatch, host, addresses, kind
):
    """Private or public decides about endpoint and firewall."""
    resolving(monkeypatch, *addresses, *addresses)

    told = asyncio.run(look_up(Place(host, 5671), PATIENCE))

    assert told.startswith(f"{host} is {', '.join(addresses)} (")
    assert kind in told


def test_a_name_that_does_not_exist():
    """The namespace may be gone, or the private zone is not linked."""
    gone = failure_of(look_up(Place("no-such-host.invalid", 1), PATIENCE))
    assert "no-such-host.invalid cannot be found: " in str(gone)
    assert "misspelt" in gone.advice[0]

    label = "x" * 64  # no label is so long
    odd = failure_of(look_up(Place(f"{label}.servicebus.windows.net", 1), PATIENCE))
    assert "no host has such a name" in str(odd)
    advice = "\n".join(odd.advice)
    assert f"az eventhubs namespace list: {label}" in advice
    assert "privatelink.servicebus.windows.net" in advice


def test_a_name_server_that_is_silent(monkeypatch):
    """The step ends in its time, and nobody waits for the name server at the end."""
    asked, over = threading.Event(), threading.Event()

    def silent(*_, **__):
        asked.set()
        over.wait(PATIENCE)
        return []

    monkeypatch.setattr(_network.socket, "getaddrinfo", silent)
    try:
        failure = failure_of(look_up(AZURE, 0.1))
        assert asked.is_set()
        assert not over.is_set()
    finally:
        over.set()
    assert str(failure) == f"no answer about {AZURE.host} within 0.1 s"
    assert "name server" in failure.advice[0]


def test_an_open_port():
    """The address that answered is told."""

    async def scene():
        server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return port, await connect(Place("127.0.0.1", port), PATIENCE)

    port, told = asyncio.run(scene())
    assert told == f"connected to 127.0.0.1:{port} (127.0.0.1)"


def test_a_closed_port():
    """Nothing listens there, or a firewall refuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = Place("127.0.0.1", free.getsockname()[1])

        failure = failure_of(connect(place, PATIENCE))

    assert str(failure) == f"{place} cannot be reached: connection refused"
    assert failure.advice == (
        f"nothing listens at port {place.port}, or a firewall refuses it",
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (OSError(f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] a, b"), "refused"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "Cannot assign"),
        (ConnectionResetError(), "ConnectionResetError"),
        (TimeoutError(), "does not answer within 3 s"),
    ],
)
@pytest.mark.parametrize(
    ("port", "advice"), [(5671, "?transport=websocket"), (443, "no HTTP proxy")]
)
def test_azure_that_cannot_be_reached(monkeypatch, error, said, port, advice):
    """Between here and Azure there is a firewall; which port helps depends on ours."""

    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(_network.asyncio, "open_connection", fail)

    failure = failure_of(connect(Place(AZURE.host, port), 3.0))

    assert said in str(failure)
    told = "\n".join(failure.advice)
    assert "firewall" in told
    assert advice in told
    assert "private endpoint" in told


def write_certificate(folder, *, name="localhost", days=10):
    """Make a self-signed certificate; returns a server's context and its file."""
    x509 = pytest.importorskip("cryptography.x509", reason="makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  # as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # as above

    secret = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "made for this test"),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Contoso"),
    ]
    end = dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name(names))
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - dt.timedelta(days=20))
        .not_valid_after(end)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    key = secret.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(made.public_bytes(encoding) + key)
    (folder / "ca.pem").write_bytes(made.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context, folder / "ca.pem"


async def greet(server_context, trusted, seconds=PATIENCE):
    """Shake hands with a server on this machine; returns what was told."""

    async def serve(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    async with server:
        place = Place("localhost", server.sockets[0].getsockname()[1])
        context = ssl.create_default_context(cafile=trusted)
        return await shake_hands(place, context, seconds)


def test_a_certificate_that_is_trusted(tmp_path):
    """Its names, who issued it and until when it counts are told."""
    context, file = write_certificate(tmp_path)

    told = asyncio.run(greet(context, file))

    assert "TLSv1" in told
    assert "certificate for localhost by Contoso, valid until " in told


def test_a_certificate_of_somebody_else(tmp_path):
    """Who issued it is told: mostly a company's proxy."""
    context, _ = write_certificate(tmp_path)

    failure = failure_of(greet(context, None))

    assert "is not trusted: self" in str(failure)
    assert "issued by O=Contoso,CN=made for this test" in str(failure)
    assert "proxy of your company" in failure.advice[0]
    assert "ca_file" in failure.advice[1]


def test_a_certificate_for_another_name(tmp_path):
    """The host or the endpoint is wrong."""
    context, file = write_certificate(tmp_path, name="other.example")

    failure = failure_of(greet(context, file))

    assert "made for another name" in failure.advice[0]


@pytest.mark.parametrize("days", [-1, 30])
def test_a_certificate_out_of_its_time(tmp_path, days):
    """It may be the clock."""
    context, file = write_certificate(tmp_path, days=days)

    failure = failure_of(greet(context, file))

    assert "clock" in failure.advice[0]
    assert "renewed" in failure.advice[1]


def test_without_cryptography_the_issuer_is_not_told(tmp_path, monkeypatch):
    """What is wrong is told all the same."""
    context, _ = write_certificate(tmp_path)

    def missing(_):
        raise ImportError

    monkeypatch.setattr(_network, "import_module", missing)

    failure = failure_of(greet(context, None))

    assert "is not trusted" in str(failure)
    assert "issued by" not in str(failure)


def test_a_port_that_does_not_speak_tls():
    """Whatever it says instead."""

    async def scene():
        async def serve(reader, writer):
            await reader.read(1)
            writer.write(b"AMQP\x00\x01\x00\x00" * 4)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
            await shake_hands(place, ssl.create_default_context(), PATIENCE)

    failure = failure_of(scene())
    assert "does not speak TLS: " in str(failure)
    assert "is this the port of TLS?" in failure.advice


def test_a_port_that_is_silent():
    """The step ends in its time."""

    async def scene():
        over = asyncio.Event()

        async def serve(_, writer):
            await over.wait()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
            try:
                await shake_hands(place, ssl.create_default_context(), 0.2)
            finally:
                over.set()
                await asyncio.sleep(0)

    assert "does not answer to TLS within 0.2 s" in str(failure_of(scene()))
