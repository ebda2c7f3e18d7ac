"""
What must hold before events reach an event hub: the steps of `bizlog doctor`.

Each goes the sink's own way: its connection string as it stands in its file now, its
credential, its certificates, its client of the SDK. What is told holds no secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from bizlog.exceptions import RetryableSinkError
from bizlog_handlers._checks import Check, CheckFailedError
from bizlog_handlers._links import Links
from bizlog_handlers._network import Place, connect, look_up, shake_hands

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from bizlog_handlers._azure import ConnectionString
    from bizlog_handlers._links import Connect, Layout

# What the SDK asks a credential for.
SCOPE = "https://eventhubs.azure.net//.default"
_AUDIENCE = "https://eventhubs.azure.net"

_AMQPS, _AMQP, _HTTPS = 5671, 5672, 443

_SKEW_SECONDS = 60.0
_MOST_LINES = 8
_MOST_CHARACTERS = 200

_ROLE = "Azure Event Hubs Data Sender"
_NO_ACCESS = (
    (
        f"an identity needs the role '{_ROLE}' for the hub or its namespace; a new "
        "role counts after some minutes: az role assignment list --assignee ID --all"
    ),
    (
        "a connection string: is it the current one, with the claim Send, and does the "
        "namespace allow keys at all (disableLocalAuth)?"
    ),
    (
        "a token or signature is refused where this machine's clock is wrong: compare "
        "it with date -u"
    ),
    (
        "the namespace's firewall refuses in the same words: is this network allowed "
        "(publicNetworkAccess, IP rules, private endpoint)?"
    ),
)
_NO_HUB = (
    (
        "is the name of the hub right? az eventhubs eventhub list --namespace-name "
        "NAME --resource-group GROUP"
    ),
    "is it another namespace that has this hub?",
)
_ADVICE = {
    "unauthorized-access": _NO_ACCESS,
    "not-found": _NO_HUB,
    "server-busy": (
        (
            "the throughput units of the namespace are used up: raise them, let them "
            "inflate, or pack events (docs/azure.md)"
        ),
    ),
    "resource-limit-exceeded": (
        "a quota of the namespace is used up: connections, or its size",
    ),
    "not-allowed": ("is the hub enabled? az eventhubs eventhub show: status",),
    "no answer": (
        (
            "the hub is slow or overloaded (look at its throttled requests), or the "
            "way to it is: try ?send_timeout=20 and --timeout 30"
        ),
        "what was sent may have arrived all the same",
    ),
}
_SILENT = (
    (
        "the port is open, but AMQP gets no answer: a proxy in between that knows "
        "HTTPS alone? ?transport=websocket goes through port 443"
    ),
    "a slow way: try --timeout 30",
)


def advice_for(reason: str) -> tuple[str, ...]:
    """Say what to do about a reason that the sink gave: it holds AMQP's condition."""
    return next((told for word, told in _ADVICE.items() if word in reason), ())


def plain(reason: str) -> str:
    """Take the service's own words from a reason: the sink's hint is advice here."""
    found = re.search(r"\[(.+)\]$", reason)
    return found[1] if found else reason


class HubChecks:
    """
    The steps, in their order.

    Args:
        hub: Name of the hub.
        namespace: Its namespace; None leaves that to the connection string.
        custom_endpoint: Where to connect to instead.
        websocket: Whether AMQP goes through a web socket.
        secret: Gives the connection string, if there is one.
        credential: Gives the credential, where there is none.
        trust: Gives what certificates are verified with.
        connect: Makes a client.
    """

    def __init__(
        self,
        *,
        hub: str,
        namespace: str | None,
        custom_endpoint: str | None,
        websocket: bool,
        secret: Callable[[], Awaitable[ConnectionString | None]],
        credential: Callable[[], Awaitable[Any]],
        trust: Callable[[], Awaitable[ssl.SSLContext]],
        connect: Connect,
    ) -> None:
        self._hub = hub
        self._namespace = namespace
        self._custom_endpoint = custom_endpoint
        self._websocket = websocket
        self._find_secret = secret
        self._find_credential = credential
        self._trust = trust
        self._connect = connect
        self._secret: ConnectionString | None = None
        self._place = Place("", 0)
        self._context: ssl.SSLContext | None = None
        self._layout: Layout | None = None

    def all(self) -> Sequence[Check]:
        """List them."""
        return (
            Check("configuration", self._configure),
            Check("DNS", lambda seconds: look_up(self._place, seconds)),
            Check("TCP", lambda seconds: connect(self._place, seconds)),
            Check("TLS", self._shake_hands),
            Check("token", self._prove),
            Check("hub", self._ask),
        )

    async def _configure(self, seconds: float) -> str:
        async with asyncio.timeout(seconds):
            self._secret = await self._find_secret()
            self._context = await self._trust()
        host = self._namespace or (self._secret.host if self._secret else "")
        self._place = place_of(
            host, self._secret, self._custom_endpoint, websocket=self._websocket
        )
        return f"hub {self._hub!r} of {host}, {self._identity()}"

    def _identity(self) -> str:
        if self._secret is None:
            return "with a credential of azure-identity"
        if self._secret.key_name is None:
            return "with a shared access signature"
        return f"with the key {self._secret.key_name!r}"

    async def _shake_hands(self, seconds: float) -> str:
        if self._secret is not None and self._secret.is_emulator:
            return "none: UseDevelopmentEmulator=true"
        assert self._context is not None
        return await shake_hands(self._place, self._context, seconds)

    async def _prove(self, seconds: float) -> str:
        until = time.monotonic() + seconds
        if self._secret is None:
            told = await token_of(await self._find_credential(), seconds)
        else:
            told = signature_of(self._secret, time.time())
        left = max(0.0, until - time.monotonic())
        try:
            self._layout = await self._ask_hub(left)
        except RetryableSinkError as error:
            reason = plain(str(error))
            if "unauthorized-access" in reason:
                raise CheckFailedError(f"{reason} ({told})", _NO_ACCESS) from None
            if "no answer" in reason:
                raise CheckFailedError(reason, _SILENT) from None
            return f"{told}; not refused"  # what else it was is the hub's affair
        return f"{told}; accepted"

    async def _ask(self, seconds: float) -> str:
        layout = self._layout
        try:
            layout = layout or await self._ask_hub(seconds)
        except RetryableSinkError as error:
            reason = plain(str(error))
            raise CheckFailedError(reason, advice_for(reason)) from None
        count = len(layout.partitions)
        return (
            f"{self._hub!r} has {count} partition{'s' * (count != 1)} and takes "
            f"{layout.limit:,} bytes at once"
        )

    async def _ask_hub(self, seconds: float) -> Layout:
        links = Links(self._connect)
        try:
            return await links.ask(seconds)
        finally:
            await links.close()


def place_of(
    host: str,
    secret: ConnectionString | None,
    custom_endpoint: str | None,
    *,
    websocket: bool,
) -> Place:
    """
    Say where the SDK connects to.

    Args:
        host: Of the namespace; a port in it counts for an emulator alone.
        secret: The connection string, if there is one.
        custom_endpoint: Where to connect to instead.
        websocket: Whether AMQP goes through a web socket.
    """
    default = _HTTPS if websocket else _AMQPS
    if custom_endpoint:
        named = custom_endpoint if "//" in custom_endpoint else f"//{custom_endpoint}"
        parts = urlsplit(named)
        return Place(parts.hostname or "", parts.port or default)
    parts = urlsplit(f"//{host}")
    if secret is not None and secret.is_emulator and not websocket:
        parts = urlsplit(f"//{secret.host}")
        return Place(parts.hostname or "", parts.port or _AMQP)
    return Place(parts.hostname or "", default)


def signature_of(secret: ConnectionString, now: float) -> str:
    """
    Say by what a connection string proves itself.

    Args:
        secret: The connection string.
        now: Seconds since 1970.

    Raises:
        CheckFailedError: Its signature has expired.
    """
    if secret.key_name is not None:
        return f"signed with the key {secret.key_name!r}"
    found = re.search(r"sharedaccesssignature=([^;]*)", secret.text, re.IGNORECASE)
    fields = parse_qs(found[1].partition(" ")[2]) if found else {}
    expiry = fields.get("se", [""])[0]
    if not expiry.isdigit():
        return "a shared access signature"
    if int(expiry) <= now:
        raise CheckFailedError(
            f"the shared access signature expired at {_moment(int(expiry))}",
            ("make a new one, or use a key or an identity", "is the clock right?"),
        )
    return f"a shared access signature valid until {_moment(int(expiry))}"


def _moment(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


async def token_of(credential: Any, seconds: float) -> str:
    """
    Get a token, and say whose it is.

    Args:
        credential: An asynchronous credential of azure-core's kind.
        seconds: How long it may take.

    Raises:
        CheckFailedError: There is none, or it is for something else.
    """
    try:
        async with asyncio.timeout(seconds):
            token = await credential.get_token(SCOPE)
    except TimeoutError:
        raise CheckFailedError(
            f"no token within {seconds:g} s", _OF_IDENTITIES
        ) from None
    except Exception as error:  # noqa: BLE001  # a foreign credential
        first, *tried = [line.strip()[:_MOST_CHARACTERS] for line in _lines(error)]
        raise CheckFailedError(
            f"no token: {type(error).__name__}: {first}",
            (*tried[:_MOST_LINES], *_OF_IDENTITIES),
        ) from None
    return _tell(_claims_of(token.token), token.expires_on, time.time())


_OF_IDENTITIES = (
    (
        "on Azure: is a managed identity assigned to this service? One assigned by the "
        "user is chosen with AZURE_CLIENT_ID"
    ),
    "elsewhere: az login, or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
)


def _lines(error: Exception) -> list[str]:
    return [line for line in str(error).splitlines() if line.strip()] or ["(no text)"]


class _Claims(msgspec.Struct):
    """What a token says of itself (https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference)."""

    aud: str | None = None
    oid: str | None = None
    nbf: float | None = None


def _claims_of(token: str) -> _Claims:
    """Read a JSON Web Token, without verifying it: that is the service's part."""
    body = ([*token.split("."), ""])[1]
    try:
        return msgspec.json.decode(
            base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=_Claims
        )
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return _Claims()


def _tell(claims: _Claims, expires_on: float, now: float) -> str:
    if claims.aud and "//" in claims.aud and not claims.aud.startswith(_AUDIENCE):
        raise CheckFailedError(
            f"the token is for {claims.aud:.100}, not for {_AUDIENCE}",
            ("the credential must ask for the scope that it is given",),
        )
    if claims.nbf is not None and claims.nbf > now + _SKEW_SECONDS:
        raise CheckFailedError(
            f"the token counts from {_moment(claims.nbf)} on, and here it is "
            f"{_moment(now)}",
            ("the clock of this machine is slow: set it (NTP)",),
        )
    whose = f" of the identity {claims.oid:.50}" if claims.oid else ""
    return f"token{whose} until {_moment(expires_on)}"
