"""A certificate for `localhost`, made anew for each server that speaks TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

from bizlog.exceptions import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = 30
CERTIFICATE, PRIVATE_KEY = "certificate.pem", "key.pem"


def tls_context(folder: Path) -> ssl.SSLContext:
    """
    Make a self-signed certificate in a folder, and a context that serves it.

    Raises:
        MissingExtraError: cryptography is not installed.
    """
    certificate, key = folder / CERTIFICATE, folder / PRIVATE_KEY
    _write(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _write(certificate: Path, key: Path) -> None:
    try:
        from cryptography import x509  # noqa: PLC0415  # only where TLS is wanted
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  # as above
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # as above
    except ImportError:
        raise MissingExtraError("a loopback server with TLS", "loopback") from None
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(tz=dt.UTC)
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
