"""
How Kafka brokers are reached: librdkafka's settings, made from the sink's options.

Nothing here connects, and no message holds a secret. What the sink promises rests on
some settings of librdkafka, so these are refused among the ones passed through; those
that an option of the sink stands for are refused, too, and the option is named.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from bizlog.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Auth: TypeAlias = Literal["none", "connection_string", "entra", "password"]
Compression: TypeAlias = Literal["lz4", "zstd", "gzip", "none"]
Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Options: TypeAlias = Mapping[str, str | int | float | bool]

EVENT_HUBS_PORT = 9093
_EVENT_HUBS = ".servicebus.windows.net"

# https://learn.microsoft.com/azure/event-hubs/azure-event-hubs-apache-kafka-overview
_EVENT_HUBS_USER = "$ConnectionString"

# librdkafka's own default, which brokers' (1,048,588) and Event Hubs' limits exceed.
MAX_MESSAGE_BYTES = 1_000_000

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_TOPIC = re.compile(r"[\w.-]{1,249}", re.ASCII)

_PROMISE = "what the sink promises rests on it"
_REFUSED = {
    "acks": _PROMISE,
    "request.required.acks": _PROMISE,
    "enable.idempotence": _PROMISE,
    "enable.gapless.guarantee": _PROMISE,
    "delivery.report.only.error": _PROMISE,
    "transactional.id": "the sink has no transactions",
    "bootstrap.servers": "use bootstrap_servers",
    "metadata.broker.list": "use bootstrap_servers",
    "message.timeout.ms": "use delivery_timeout",
    "delivery.timeout.ms": "use delivery_timeout",
    "compression.type": "use compression",
    "compression.codec": "use compression",
    "linger.ms": "use linger",
    "queue.buffering.max.ms": "use linger",
    "security.protocol": "use username, connection_string, auth or tls",
    "ssl.ca.location": "use ca_file",
    "enable.ssl.certificate.verification": "certificates are always verified",
    "ssl.endpoint.identification.algorithm": "certificates are always verified",
    "log.queue": "the sink reads librdkafka's log",
    "log.thread.name": "the sink reads librdkafka's log",
    "logger": "use logger",
}
_REFUSED_FAMILIES = {
    "sasl.": "use username, connection_string or auth",
    "enable.sasl.": "use username, connection_string or auth",
    "on_": "the sink has callbacks of its own",
}


class Access(msgspec.Struct, frozen=True):
    """
    Where brokers are, and who the sink is towards them.

    Attributes:
        servers: `HOST:PORT`, with commas between several.
        auth: How the sink proves who it is.
        tls: Whether the connection is encrypted.
        user: User name of SASL.
        mechanism: How user and password travel.
        ca_file: Certificates to trust, in PEM, instead of the system's.
    """

    servers: str
    auth: Auth = "none"
    tls: bool = False
    user: str = ""
    mechanism: Mechanism = "PLAIN"
    ca_file: str | None = None

    @property
    def is_event_hubs(self) -> bool:
        """Whether this is Azure's service, as far as the address shows."""
        return any(host.endswith(_EVENT_HUBS) for host in hosts_of(self.servers))

    @property
    def scope(self) -> str:
        """What a token has to be valid for."""
        return f"https://{next(hosts_of(self.servers))}/.default"

    def settings(self, password: str) -> dict[str, Any]:
        """Write it as settings of librdkafka, without the token's callback."""
        found: dict[str, Any] = {"bootstrap.servers": self.servers}
        protocol = "SSL" if self.tls else "PLAINTEXT"
        if self.auth != "none":
            protocol = f"SASL_{protocol}"
        found["security.protocol"] = protocol
        if self.tls and self.ca_file is not None:
            found["ssl.ca.location"] = self.ca_file
        return {**found, **self._sasl(password)}

    def _sasl(self, password: str) -> dict[str, Any]:
        if self.auth == "none":
            return {}
        if self.auth == "entra":
            return {"sasl.mechanism": "OAUTHBEARER"}
        by_string = self.auth == "connection_string"
        return {
            "sasl.mechanism": "PLAIN" if by_string else self.mechanism,
            "sasl.username": _EVENT_HUBS_USER if by_string else self.user,
            "sasl.password": password,
        }


def hosts_of(servers: str) -> Iterator[str]:
    """Name the hosts of a list of servers, in lower case and without their ports."""
    for server in servers.split(","):
        yield re.sub(r":\d+$", "", server.strip()).lower()


def server_problems(servers: str) -> Iterator[str]:
    """Say why no brokers can be found at these addresses."""
    for server in servers.split(","):
        if _SERVER.fullmatch(server.strip()) is None:
            yield (
                "option 'bootstrap_servers': expected HOST:PORT, with commas between "
                "several, and neither user nor password"
            )
            return


def topic_problems(topic: str) -> Iterator[str]:
    """Say why a topic cannot have this name."""
    if _TOPIC.fullmatch(topic) is None or topic in {".", ".."}:
        yield (
            "option 'topic': expected up to 249 of letters, digits, '.', '_' and '-', "
            f"got {topic!r:.100}"
        )


def setting_problems(settings: Options) -> Iterator[str]:
    """Say which settings of librdkafka would break what the sink promises."""
    for name in settings:
        why = _REFUSED.get(name)
        families = (
            w for family, w in _REFUSED_FAMILIES.items() if name.startswith(family)
        )
        why = why or next(families, None)
        if name.endswith("_cb"):
            why = "the sink has callbacks of its own"
        if why:
            yield f"option 'options': {name!r:.100} cannot be set: {why}"


def compression_of(chosen: Compression | None, access: Access) -> Compression:
    """
    Choose the compression: lz4, but none towards Event Hubs, which takes gzip alone.

    Raises:
        ConfigurationError: What is asked for is not taken there.
    """
    if not access.is_event_hubs:
        return chosen or "lz4"
    if chosen in {"lz4", "zstd"}:
        raise ConfigurationError(
            f"option 'compression': Event Hubs takes 'gzip' or 'none', not {chosen!r}"
        )
    return chosen or "none"


def default_credential() -> Any:
    """
    Build azure-identity's `DefaultAzureCredential`, the synchronous one.

    Raises:
        MissingExtraError: azure-identity is not installed.
    """
    try:
        identity = import_module("azure.identity")
    except ImportError:
        raise MissingExtraError("KafkaSink(auth='entra')", "entra") from None
    for name in _IMPORTED_WITH_A_TOKEN:
        with suppress(ImportError):  # versions differ in what they need
            import_module(name)
    return identity.DefaultAzureCredential()


# Not on another thread: a child that is forked while that imports a module waits for
# the module without end.
_IMPORTED_WITH_A_TOKEN = (
    "azure.core.rest._requests_basic",
    "encodings.idna",
    "encodings.utf_16_le",
    "msal_extensions",
    "netrc",
)


def credential_problems(credential: Any) -> Iterator[str]:
    """Say why an object cannot give tokens to threads of librdkafka."""
    get_token = getattr(credential, "get_token", None)
    if not callable(get_token) or inspect.iscoroutinefunction(get_token):
        yield (
            "option 'credential': expected a synchronous credential such as "
            f"azure.identity.DefaultAzureCredential, got {type(credential).__name__}"
        )


def token_source(credential: Any, scope: str) -> Callable[[str], tuple[str, float]]:
    """
    Make the callback by which librdkafka asks for a token.

    It asks anew after 80 % of a token's life, on a thread of its own.

    Args:
        credential: A synchronous credential of azure-identity or of its form.
        scope: What the token has to be valid for.
    """

    def token(_config: str) -> tuple[str, float]:
        found = credential.get_token(scope)
        return found.token, float(found.expires_on)

    return token
