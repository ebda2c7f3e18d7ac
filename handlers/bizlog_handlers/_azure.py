"""
Who a sink is towards Azure: connection strings, secret files, credentials.

Nothing here shows a secret: not in a message, not in a repr. A connection string is
read for what can be checked at once (which host, which entity) and otherwise handed on
as it is. A credential that is built here is closed by who asked for it; one that the
user gives stays the user's.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import msgspec

from bizlog.exceptions import ConfigurationError, RetryableSinkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?")


@runtime_checkable
class AsyncCredential(Protocol):
    """What azure-core calls an AsyncTokenCredential."""

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        """Return a token that is valid for some scopes."""
        ...


class ConnectionString(msgspec.Struct, frozen=True):
    """
    A connection string of Azure, with what of it may be shown.

    Attributes:
        text: The whole string: secret.
        host: Host of the endpoint, with its port if it names one.
        entity: The entity (`EntityPath`) that it is for; None for a whole namespace.
        key_name: Name of its key; None with a signature.
        is_emulator: Whether it is for a development emulator, which has no TLS.
    """

    text: str
    host: str
    entity: str | None = None
    key_name: str | None = None
    is_emulator: bool = False

    def __repr__(self) -> str:
        return f"ConnectionString(host={self.host!r}, entity={self.entity!r})"


def parse_connection_string(text: str, option: str) -> ConnectionString:
    """
    Read a connection string (`Endpoint=sb://...;SharedAccessKeyName=...;...`).

    Args:
        text: As the portal shows it; blanks around it do not count.
        option: Where it comes from, for messages.

    Raises:
        ConfigurationError: It is malformed, or has neither key nor signature.
    """
    parts = _parts(text, option)
    host = urlsplit(parts.get("endpoint", "")).netloc
    if not host:
        raise ConfigurationError(
            f"{option}: the connection string has no Endpoint=sb://HOST/"
        )
    has_key = "sharedaccesskey" in parts and "sharedaccesskeyname" in parts
    if not has_key and "sharedaccesssignature" not in parts:
        raise ConfigurationError(
            f"{option}: the connection string needs SharedAccessKeyName and "
            "SharedAccessKey, or SharedAccessSignature"
        )
    return ConnectionString(
        text.strip(),
        host,
        parts.get("entitypath"),
        parts.get("sharedaccesskeyname"),
        parts.get("usedevelopmentemulator") == "true",
    )


def _parts(text: str, option: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.strip().rstrip(";").split(";")]
    parts = {name.strip().lower(): value for name, _, value in pairs}
    if len(parts) != len(pairs) or not all(name and value for name, _, value in pairs):
        raise ConfigurationError(
            f"{option}: expected a connection string, parts 'Name=value' with ';' "
            "between them, each named once"
        )
    return parts


def namespace_problems(namespace: str) -> Iterator[str]:
    """Say why a namespace cannot be found by this name."""
    if not _HOST.fullmatch(namespace) or not re.search(r"[.:]", namespace):
        yield (
            "option 'namespace': expected the full host name, such as "
            f"NAME.servicebus.windows.net, got {namespace!r:.100}"
        )


def is_same_host(namespace: str, host: str) -> bool:
    """Whether a namespace is the host of a connection string, which may have a port."""
    return namespace.lower() in {host.lower(), (urlsplit(f"//{host}").hostname or "")}


async def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """
    Build what all connections are verified with.

    The SDKs build it anew for each connection, which takes 40 ms of the loop's time.

    Args:
        ca_file: Certificates (PEM) to trust; None takes certifi's, as the SDKs do.

    Raises:
        RetryableSinkError: The file cannot be used.
    """
    cafile = ca_file or import_module("certifi").where()
    try:
        return await asyncio.to_thread(ssl.create_default_context, cafile=cafile)
    except OSError as error:  # ssl.SSLError is one
        raise RetryableSinkError(
            "option 'ca_file': the file cannot be used: "
            f"{error.strerror or type(error).__name__}"
        ) from None


async def read_secret(path: str, option: str) -> str:
    """
    Read a secret from a file, such as a mounted one that is exchanged from outside.

    Raises:
        RetryableSinkError: It cannot be read, or is empty.
    """
    try:
        text = await asyncio.to_thread(Path(path).read_text, "utf-8")
    except (OSError, ValueError) as error:
        fault = error.strerror if isinstance(error, OSError) else None
        raise RetryableSinkError(
            f"option {option!r}: the file cannot be read: "
            f"{fault or type(error).__name__}"
        ) from None
    if not text.strip():
        raise RetryableSinkError(f"option {option!r}: the file is empty")
    return text.strip()


def default_credential() -> Any:
    """
    Build azure-identity's `DefaultAzureCredential`.

    It tries the environment, workload and managed identities and developer tools, and
    must be closed in the end. Building it imports much: not on bizlog's thread.

    Raises:
        ImportError: azure-identity is not installed.
    """
    identity = import_module("azure.identity.aio")
    _import_those_there(_WITH_A_TOKEN)
    return identity.DefaultAzureCredential()


def import_what_connecting_needs() -> None:
    """
    Import what Azure's packages import with the first connection.

    Not on bizlog's thread: a child that is forked while that imports a module waits for
    the module without end.
    """
    _import_those_there(_WITH_A_CONNECTION)
    with suppress(ImportError):  # its search for its own file imports
        import_module("certifi").where()


_WITH_A_CONNECTION = ("encodings.idna",)
_WITH_A_TOKEN = (
    "aiohttp",
    "azure.core.rest._aiohttp",
    "msal_extensions",
    "encodings.utf_16_le",
)


def _import_those_there(names: Iterable[str]) -> None:
    for name in names:
        with suppress(ImportError):  # versions differ in what they need
            import_module(name)
