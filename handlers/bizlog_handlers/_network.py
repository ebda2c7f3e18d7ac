"""
The way to a server, step by step: its name, its port, its certificate.

Each step connects anew, sends nothing that is secret, takes no longer than it is given
and explains what it meets. What is true of Azure alone is said of Azure's hosts alone.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import threading
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bizlog_handlers._checks import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

AZURE_HOSTS = ".servicebus.windows.net"
_CLOSE_SECONDS = 1.0

# OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_...).
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME = 9, 10, 62


class Place(msgspec.Struct, frozen=True):
    """
    Where a server listens.

    Attributes:
        host: Its name or address.
        port: Its port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_azure(self) -> bool:
        """Whether it is a namespace of Azure, as far as the name shows."""
        return self.host.lower().endswith(AZURE_HOSTS)


async def look_up(place: Place, seconds: float) -> str:
    """
    Ask which addresses a name has.

    Raises:
        CheckFailedError: None, or no answer came.
    """
    try:
        async with asyncio.timeout(seconds):
            found = await on_thread(lambda: _addresses(place))
    except TimeoutError:
        raise CheckFailedError(
            f"no answer about {place.host} within {seconds:g} s",
            ("the name server cannot be reached: look at /etc/resolv.conf",),
        ) from None
    except (OSError, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else None
        raise CheckFailedError(
            f"{place.host} cannot be found: {said or 'no host has such a name'}",
            tuple(_of_names(place)),
        ) from None
    return f"{place.host} is {', '.join(found)} ({_kind_of(place, found)})"


def _addresses(place: Place) -> list[str]:
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _kind_of(place: Place, addresses: list[str]) -> str:
    kinds = [ipaddress.ip_address(address) for address in addresses]
    if all(kind.is_loopback for kind in kinds):
        return "this machine"
    if all(kind.is_private for kind in kinds):
        return "private: a private endpoint" if place.is_azure else "private"
    if place.is_azure:
        return "public: the namespace must allow public access from this network"
    return "public"


def _of_names(place: Place) -> Iterator[str]:
    yield "the name is misspelt, or what it named is gone"
    if place.is_azure:
        name = place.host.removesuffix(AZURE_HOSTS)
        yield f"does the namespace exist? az eventhubs namespace list: {name}"
        yield (
            "with a private endpoint: the private DNS zone "
            "privatelink.servicebus.windows.net must be linked to the virtual network "
            "that this machine resolves names in"
        )
    yield "in a container or pod: does it use the name server of its network?"


async def connect(place: Place, seconds: float) -> str:
    """
    Open a TCP connection, and close it.

    Raises:
        CheckFailedError: It cannot be opened.
    """
    try:
        writer = await _open(place, None, seconds)
    except TimeoutError:
        raise CheckFailedError(
            f"{place} does not answer within {seconds:g} s", tuple(_of_silence(place))
        ) from None
    except OSError as error:
        raise CheckFailedError(
            f"{place} cannot be reached: {_said(error)}", tuple(_of_refusals(place))
        ) from None
    peer = writer.get_extra_info("peername")
    await _close(writer)
    return f"connected to {place} ({peer[0]})"


def _said(error: OSError) -> str:
    # Where a name has several addresses, asyncio puts what each met into one text.
    code = error.errno or next(
        (c for c in _KNOWN if f"[Errno {c}]" in str(error)), None
    )
    return _KNOWN.get(code or 0) or error.strerror or type(error).__name__


_KNOWN = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
}


def _of_silence(place: Place) -> Iterator[str]:
    yield (
        f"a firewall drops the packets: outgoing TCP to port {place.port} must be "
        "allowed (company firewall, network security group, route to a proxy)"
    )
    yield from _of_azure_ports(place)


def _of_refusals(place: Place) -> Iterator[str]:
    if place.is_azure:
        yield "Azure always listens there, so something in between refuses it: firewall"
    else:
        yield f"nothing listens at port {place.port}, or a firewall refuses it"
    yield from _of_azure_ports(place)


_AMQPS, _HTTPS = 5671, 443


def _of_azure_ports(place: Place) -> Iterator[str]:
    if place.is_azure and place.port == _AMQPS:
        yield "where only HTTPS may leave: ?transport=websocket goes through port 443"
    if place.is_azure and place.port == _HTTPS:
        yield (
            "the sink takes no HTTP proxy: the namespace must be reached directly, or "
            "by custom_endpoint"
        )
    if place.is_azure:
        yield (
            "with a private endpoint: is this machine in its virtual network, or one "
            "peered with it, and is the endpoint's connection approved?"
        )


async def shake_hands(place: Place, context: ssl.SSLContext, seconds: float) -> str:
    """
    Open a TLS connection, verify the certificate, and close it.

    Raises:
        CheckFailedError: There is no TLS, or the certificate is not to be trusted.
    """
    try:
        writer = await _open(place, context, seconds)
    except TimeoutError:
        raise CheckFailedError(
            f"{place} does not answer to TLS within {seconds:g} s",
            ("is this the port of TLS?", "a proxy that inspects TLS may hold it up"),
        ) from None
    except ssl.SSLCertVerificationError as error:
        shown = await _shown_by(place, seconds)
        raise CheckFailedError(
            f"the certificate of {place} is not trusted: {error.verify_message}{shown}",
            tuple(_of_certificates(error.verify_code)),
        ) from None
    except OSError as error:  # ssl.SSLError is one
        why = error.reason if isinstance(error, ssl.SSLError) else _said(error)
        raise CheckFailedError(
            f"{place} does not speak TLS: {why}",
            ("is this the port of TLS?", "a proxy may have cut the connection"),
        ) from None
    told = _tell(writer)
    await _close(writer)
    return told


def _of_certificates(code: int) -> Iterator[str]:
    if code == _WRONG_NAME:
        yield "it was made for another name: is the host right, and custom_endpoint?"
        return
    if code in {_EXPIRED, _NOT_YET_VALID}:
        yield "is the clock of this machine right?"
        yield "if it is: the certificate must be renewed"
        return
    yield (
        "a proxy of your company opens TLS and shows a certificate of its own: have "
        "the host excepted, or name the company's certificates (PEM) in ca_file"
    )
    yield "a server with a certificate of its own: name that certificate in ca_file"
    yield "old certificates here: pip install --upgrade certifi"


def _tell(writer: asyncio.StreamWriter) -> str:
    shown: dict[str, Any] = writer.get_extra_info("peercert")
    version = writer.get_extra_info("ssl_object").version()
    issuer = _names(shown.get("issuer", ()))
    by = issuer.get("organizationName") or issuer.get("commonName") or "?"
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    return (
        f"{version}, certificate for {', '.join(names[:3]) or '?'} by {by}, "
        f"valid until {shown['notAfter']}"
    )


def _names(parts: Any) -> dict[str, str]:
    return {name: value for part in parts for name, value in part}


async def _shown_by(place: Place, seconds: float) -> str:
    """Tell who issued a certificate that is not trusted: nothing is sent there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, ImportError, ValueError):  # it is only to be told
        writer = await _open(place, context, seconds)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await _close(writer)
        read = import_module("cryptography.x509").load_der_x509_certificate
        return f" (it was issued by {read(shown).issuer.rfc4514_string():.200})"
    return ""


async def _open(
    place: Place, context: ssl.SSLContext | None, seconds: float
) -> asyncio.StreamWriter:
    async with asyncio.timeout(seconds):
        _, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    return writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()


async def on_thread(work: Callable[[], _T]) -> _T:
    """
    Do what blocks on a thread that nobody waits for.

    The loop's own threads are waited for at its end, and a name server may be silent
    for much longer than it was given.
    """
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()  # it cannot be cancelled, only be left alone

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001  # handed over
            done.set_exception(error)

    threading.Thread(target=run, name="bizlog-doctor", daemon=True).start()
    return await asyncio.wrap_future(done)
