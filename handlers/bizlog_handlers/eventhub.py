"""
Events sent to Azure Event Hubs over AMQP, with the Azure SDK: the real-time path.

Each event is a message whose body is its JSON; with `pack` several events of one key
share a message, as JSON lines. The partition of an event is chosen here, by the hash
that Azure's producers use, so that one batch of the SDK holds events of many keys, and
those of one key stay in order: within a batch of bizlog's, from one to the next, and
when something has to be sent again.

Delivery is at least once: a batch whose answer was lost is sent again, with the same
event ids. The waiting in between is bizlog's, never the SDK's. No message and no repr
shows the connection string.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl, unquote

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog.sinks import BaseSink
from bizlog_handlers._azure import (
    AsyncCredential,
    ConnectionString,
    default_credential,
    import_what_connecting_needs,
    is_same_host,
    namespace_problems,
    parse_connection_string,
    read_secret,
    tls_context,
)
from bizlog_handlers._keys import DEFAULT_KEY, parse_key_rule
from bizlog_handlers._packing import MAX_PACK_BYTES, one_by_one, packed
from bizlog_handlers._partitions import Partitions
from bizlog_handlers._sorting import by_key, by_partition

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence
    from urllib.parse import SplitResult

    from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient

    from bizlog.sinks import Batch, Record, SendResult
    from bizlog_handlers._checks import Check
    from bizlog_handlers._links import Layout, Links
    from bizlog_handlers._packing import Parcel

Transport: TypeAlias = Literal["amqp", "websocket"]
Metadata: TypeAlias = Literal["full", "key", "none"]

ENVIRONMENT = "BIZLOG_EVENTHUB_CONNECTION_STRING"

_MIB = 1024 * 1024

_HUB = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?")

# One message holds no more than the hub's 1 MiB anyway.
_MOST_PACKED = 10_000


class EventHubSink(BaseSink):
    """
    Send events to an event hub; the URL is `eventhub://NAMESPACE/HUB?option=value`.

    NAMESPACE is the full host name, `NAME.servicebus.windows.net`. Who the sink is
    comes from one of, in this order: `connection_string`, `connection_string_file`,
    `credential`, BIZLOG_EVENTHUB_CONNECTION_STRING, and last azure-identity's
    `DefaultAzureCredential` (managed identity and its like). `connection_string` and
    `credential` cannot stand in a URL. Connection strings with
    `UseDevelopmentEmulator=true` work.

    A sink in a forked child begins anew with the arguments it was made with; a
    credential object is one of them, and must stand being used there.

    Args:
        eventhub: Name of the hub; by default the EntityPath of the connection string,
            else `events`.
        connection_string: None takes the environment's; an empty text takes none.
        connection_string_file: A file that holds it instead; read with each new
            connection, so that it may be exchanged.
        namespace: Host of the namespace; the connection string, if any, must agree.
        credential: Any asynchronous credential of azure-core's kind
            (`async get_token(*scopes)`); it is not closed.
        custom_endpoint: Host and port to connect to in place of the namespace's, such
            as a private gateway: `sb://HOST:PORT`.
        ca_file: Certificates (PEM) to trust instead of those of certifi.
        partition_key: Which fields name the key: `field,field` (the first that is set;
            `custom_properties.NAME` for what has no field of its own), `fixed:TEXT`
            or `none`. Events without a key go to the partitions in turn.
        pack: Most events in a message. 1 puts each into a message of its own.
        pack_across_keys: Fill a message with events of several keys of its partition.
            Their order stays; the message then shows no partition key.
        metadata: What messages show beside their body: `full` (partition key, message
            id = event id, content type, event type, schema version), `key` or `none`.
            In packs the id is the first event's; type and version are shown where all
            are of one type. Costs 75 µs a message (`key`: 14 µs).
        flush_interval: Seconds an event may wait for company.
        max_in_flight: Batches of bizlog's under way at the same time. With more than 1
            the order of a key may break when a batch has to be sent again.
        send_timeout: Seconds for a batch of bizlog's; what is not acknowledged by then
            is sent again. Keep it below the setting `sink_timeout`.
        transport: `amqp` (port 5671) or `websocket` (port 443).
        keep_alive: Seconds between signs of life on idle connections; 0 for none.
        name: Short name in ledger and metrics; `eventhub` by default.

    Raises:
        ConfigurationError: An option cannot work, or two do not agree.
        MissingExtraError: The Azure SDK is not installed.
    """

    # One batch feeds all partitions: the SDK's batches have at most 1 MiB each.
    max_events = 20_000
    max_bytes = 4 * _MIB

    def __init__(  # noqa: PLR0913  # each an option of its own in URL and table
        self,
        eventhub: str | None = None,
        *,
        connection_string: str | None = None,
        connection_string_file: str | None = None,
        namespace: str | None = None,
        credential: AsyncCredential | None = None,
        custom_endpoint: str | None = None,
        ca_file: str | None = None,
        partition_key: str = DEFAULT_KEY,
        pack: int = 1,
        pack_across_keys: bool = False,
        metadata: Metadata = "full",
        flush_interval: float = 1.0,
        max_in_flight: int = 1,
        send_timeout: float = 8.0,
        transport: Transport = "amqp",
        keep_alive: int = 30,
        name: str | None = None,
    ) -> None:
        self._namespace = namespace
        self._secret = _secret_of(
            connection_string, connection_string_file, credential=credential
        )
        entity = self._secret.entity if self._secret else None
        self._hub = eventhub or entity or "events"
        self._secret_file = connection_string_file
        self._credential = credential
        self._custom_endpoint = custom_endpoint
        self._ca_file = ca_file
        self._rule = parse_key_rule(partition_key)
        self._pack = pack
        self._mixed = pack_across_keys
        self._metadata: Metadata = metadata
        self._send_timeout = send_timeout
        self._transport: Transport = transport
        self._keep_alive = keep_alive
        self.flush_interval = flush_interval
        self.max_in_flight = max_in_flight
        self.name = name or type(self).name
        if problems := list(self._problems()):
            raise ConfigurationError(problems)
        _load_sdk()
        self._prepare()

    def __repr__(self) -> str:
        host = self._namespace or (self._secret.host if self._secret else "?")
        return f"EventHubSink({f'{host}/{self._hub}'!r})"

    def _problems(self) -> Iterator[str]:
        yield from self._identity_problems()
        if not _HUB.fullmatch(self._hub):
            yield (
                "option 'eventhub': expected letters, digits, '.', '-' and '_', "
                f"got {self._hub!r:.100}"
            )
        if self._metadata not in get_args(Metadata):
            yield (
                f"option 'metadata': expected full, key or none, got {self._metadata!r}"
            )
        if self._transport not in get_args(Transport):
            yield (
                "option 'transport': expected amqp or websocket, "
                f"got {self._transport!r}"
            )
        yield from self._number_problems()

    def _identity_problems(self) -> Iterator[str]:
        given = (self._secret, self._secret_file, self._credential)
        if sum(each is not None for each in given) > 1:
            yield "give one of connection_string, connection_string_file and credential"
        if self._namespace is not None:
            yield from namespace_problems(self._namespace)
        elif not self._secret and not self._secret_file:
            yield (
                "option 'namespace': needed without a connection string, such as "
                f"NAME.servicebus.windows.net; or set {ENVIRONMENT}"
            )
        if self._secret:
            yield from self._disagreements(self._secret)

    def _disagreements(self, secret: ConnectionString) -> Iterator[str]:
        if secret.entity is not None and secret.entity != self._hub:
            yield (
                f"option 'eventhub': is {self._hub!r}, but the connection string is "
                f"for {secret.entity!r} (EntityPath)"
            )
        namespace = self._namespace
        if namespace is not None and not is_same_host(namespace, secret.host):
            yield (
                f"option 'namespace': is {namespace!r}, but the connection "
                f"string is for {secret.host!r}"
            )

    def _number_problems(self) -> Iterator[str]:
        if not 1 <= self._pack <= _MOST_PACKED:
            yield f"option 'pack' must be from 1 to {_MOST_PACKED}, got {self._pack}"
        if self._mixed and self._pack == 1:
            yield "option 'pack_across_keys': needs a 'pack' greater than 1"
        if self.max_in_flight < 1:
            yield f"option 'max_in_flight' must be at least 1, got {self.max_in_flight}"
        if not self._send_timeout > 0:
            yield (
                "option 'send_timeout' must be greater than 0, "
                f"got {self._send_timeout}"
            )
        if self._keep_alive < 0:
            yield f"option 'keep_alive' must not be below 0, got {self._keep_alive}"

    def _prepare(self) -> None:
        """Build what imports: here and not on bizlog's thread, see `_load_sdk`."""
        from bizlog_handlers._envelopes import Envelopes  # noqa: PLC0415  # the SDK

        self._envelopes = Envelopes(self._metadata, packed=self._pack > 1)
        self._own_credential: Any = None
        if self._uses_default_credential():
            self._own_credential = _identity()
        self._tls: ssl.SSLContext | None = None
        self._links: Links | None = None
        self._layout: Layout | None = None
        self._partitions: Partitions | None = None

    def _uses_default_credential(self) -> bool:
        given = (self._secret, self._secret_file, self._credential)
        return all(each is None for each in given)

    @classmethod
    def from_url(cls, url: SplitResult) -> BaseSink:
        """
        Build the sink from `eventhub://NAMESPACE/HUB?option=value`.

        Both parts may be left out where the connection string names them.

        Raises:
            ConfigurationError: An option is unknown or has the wrong type, or holds a
                secret.
        """
        options: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True))
        if "@" in url.netloc or _NOT_IN_URLS & options.keys():
            raise ConfigurationError(
                "holds a secret, which does not belong in a URL: set "
                f"{ENVIRONMENT}, or connection_string_file"
            )
        if url.netloc:
            options.setdefault("namespace", url.netloc)
        if hub := unquote(url.path.strip("/")):
            options.setdefault("eventhub", hub)
        return cls.from_options(options)

    async def start(self) -> None:
        """
        Ask the hub for its partitions and for the size of a batch.

        May be called again after it failed and after `stop()`.

        Raises:
            RetryableSinkError: A file cannot be read, there is no answer, or it is a
                fault: an identity that is not authorised, a hub that does not exist.
        """
        from bizlog_handlers._links import Links  # noqa: PLC0415  # loaded by _load_sdk

        await self._trust()
        links = Links(self._connect)
        try:
            layout = await links.ask(self._send_timeout)
        except BaseException:
            await links.close()
            raise
        self._layout = layout
        self._partitions = Partitions(layout.partitions)
        self._links = links

    async def _connect(self) -> EventHubProducerClient:
        from azure.eventhub.aio import EventHubProducerClient  # noqa: PLC0415  # as above

        client: EventHubProducerClient = await self._client(EventHubProducerClient)
        return client

    async def consumer(self, group: str, **options: Any) -> EventHubConsumerClient:
        """
        Make a client that reads the hub, as who the sink is; `stop` it afterwards, too.

        Args:
            group: The consumer group.
            options: Further ones of the SDK's client.
        """
        from azure.eventhub.aio import EventHubConsumerClient  # noqa: PLC0415  # as above

        await self._trust()
        options["consumer_group"] = group
        client: EventHubConsumerClient
        client = await self._client(EventHubConsumerClient, **options)
        return client

    async def _client(self, kind: Any, **more: Any) -> Any:
        secret = await self._current_secret()
        options = self._client_options() | more
        if secret is not None:
            return kind.from_connection_string(
                secret.text, eventhub_name=self._hub, **options
            )
        return kind(
            fully_qualified_namespace=self._namespace or "",
            eventhub_name=self._hub,
            credential=await self._credential_object(),
            **options,
        )

    async def _trust(self) -> ssl.SSLContext:
        self._tls = await tls_context(self._ca_file)
        return self._tls

    async def _current_secret(self) -> ConnectionString | None:
        path = self._secret_file
        if path is None:
            return self._secret
        text = await read_secret(path, "connection_string_file")
        try:
            secret = parse_connection_string(text, "option 'connection_string_file'")
        except ConfigurationError as error:
            raise RetryableSinkError(str(error)) from None
        if problems := list(self._disagreements(secret)):
            raise RetryableSinkError("; ".join(problems))
        return secret

    async def _credential_object(self) -> Any:
        if self._credential is not None:
            return self._credential
        if self._own_credential is None:  # it was closed by `stop`
            self._own_credential = _identity()
        return self._own_credential

    def _client_options(self) -> dict[str, Any]:
        from azure.eventhub import TransportType  # noqa: PLC0415  # as above

        websocket = self._transport == "websocket"
        options: dict[str, Any] = {
            "transport_type": (
                TransportType.AmqpOverWebsocket if websocket else TransportType.Amqp
            ),
            # The back-off is bizlog's.
            "retry_total": 0,
            "retry_backoff_factor": 0,
            "auth_timeout": self._send_timeout,
            "keep_alive": self._keep_alive or None,
            "user_agent": "bizlog",
            "ssl_context": self._tls,
        }
        if self._custom_endpoint:
            options["custom_endpoint_address"] = self._custom_endpoint
        return options

    async def stop(self) -> None:
        """Close all connections, and the credential if it is the sink's own."""
        links, self._links = self._links, None
        if links is not None:
            await links.close()
        credential, self._own_credential = self._own_credential, None
        if credential is not None:
            await credential.close()

    def checks(self) -> Sequence[Check]:
        """Name what must hold before events can be sent, for `bizlog doctor`."""
        from bizlog_handlers._hub_checks import HubChecks  # noqa: PLC0415  # the SDK

        checks = HubChecks(
            hub=self._hub,
            namespace=self._namespace,
            custom_endpoint=self._custom_endpoint,
            websocket=self._transport == "websocket",
            secret=self._current_secret,
            credential=self._credential_object,
            trust=self._trust,
            connect=self._connect,
        )
        return checks.all()

    def advice(self, reason: str) -> Sequence[str]:
        """Say what to do about a reason that `start` or `deliver` gave."""
        from bizlog_handlers._hub_checks import advice_for  # noqa: PLC0415  # the SDK

        return advice_for(reason)

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Send one batch, to all partitions that its events belong to at the same time.

        Args:
            batch: The events; their number and size are not checked again.

        Returns:
            What became of each event. Those that no message can hold are refused; those
            of partitions that did not answer are to be sent again.

        Raises:
            RetryableSinkError: No event was taken.
        """
        if self._links is None or self._layout is None or self._partitions is None:
            raise RetryableSinkError("the sink is not started")
        from bizlog_handlers._courses import Course, Outcome  # noqa: PLC0415  # as above

        outcome = Outcome(len(batch.records))
        until = time.monotonic() + self._send_timeout
        async with asyncio.TaskGroup() as group:
            for partition, parcels in self._parcels(batch.records):
                course = Course(
                    link=self._links.of(partition),
                    partition=partition,
                    limit=self._layout.limit,
                    parcels=parcels,
                    records=batch.records,
                    envelopes=self._envelopes,
                    outcome=outcome,
                    left=lambda: until - time.monotonic(),
                )
                group.create_task(course.run())
        return outcome.result()

    def _parcels(
        self, records: Sequence[Record]
    ) -> Iterator[tuple[str, Iterator[Parcel]]]:
        """Give each partition what belongs to it, in order."""
        assert self._partitions is not None
        assert self._layout is not None
        self._partitions.next_turn()
        rule, partition_of = self._rule, self._partitions.of
        if self._pack == 1:
            for name, entries in by_partition(records, rule, partition_of).items():
                yield name, one_by_one(records, entries)
            return
        # Half of what a batch holds leaves room for what describes a message.
        most_bytes = min(MAX_PACK_BYTES, self._layout.limit // 2)
        sorted_out = by_key(records, rule, partition_of, mixed=self._mixed)
        for name, groups in sorted_out.items():
            yield (
                name,
                packed(records, groups, most=self._pack, max_bytes=most_bytes),
            )


_NOT_IN_URLS = frozenset({"connection_string", "credential"})


def _secret_of(
    text: str | None, file: str | None, *, credential: AsyncCredential | None
) -> ConnectionString | None:
    option = "option 'connection_string'"
    if text is None and not file and credential is None:
        text, option = os.environ.get(ENVIRONMENT), ENVIRONMENT
    return parse_connection_string(text, option) if text else None


def _identity() -> Any:
    try:
        return default_credential()
    except ImportError:
        raise MissingExtraError("EventHubSink", "eventhub") from None


def _load_sdk() -> None:
    # All of it, and here: a child that is forked while bizlog's thread imports a module
    # waits for that module without end, and at exit nothing can be imported safely.
    try:
        for name in ("aiohttp", "azure.eventhub.aio"):
            import_module(name)
    except ImportError:
        raise MissingExtraError("EventHubSink", "eventhub") from None
    for name in ("_envelopes", "_links", "_courses"):
        import_module(f"bizlog_handlers.{name}")
    import_what_connecting_needs()
