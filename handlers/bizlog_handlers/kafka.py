"""
Events sent to Kafka, or to Azure Event Hubs by its Kafka endpoint.

One event is one message: its JSON as the value, the key that the rule names, and
headers. The producer is idempotent, waits for all replicas and sends nothing behind an
event that failed, so events of one key keep their order, and what librdkafka sends
again by itself is stored once. What bizlog sends again, after a time-out or a crash,
may be stored twice; both have the same `event_id`, in the event and in its header.

librdkafka works on threads of its own; a call of the sink waits for it on one of
bizlog's worker threads, never on bizlog's loop. Its log lines go to the sink's `logger`
alone, never to stderr; what it says of brokers stands in the reason of a failure.
"""

from __future__ import annotations

import asyncio
import logging
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, BaseSink, Rejection, SendResult
from bizlog_handlers._azure import ConnectionString, parse_connection_string
from bizlog_handlers._brokers import (
    EVENT_HUBS_PORT,
    MAX_MESSAGE_BYTES,
    Access,
    Auth,
    Compression,
    Mechanism,
    Options,
    compression_of,
    credential_problems,
    default_credential,
    hosts_of,
    server_problems,
    setting_problems,
    token_source,
    topic_problems,
)
from bizlog_handlers._headers import headers_by
from bizlog_handlers._keys import DEFAULT_KEY, parse_key_rule
from bizlog_handlers._reports import LATER_SECONDS, Courier, Fault, Halt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from urllib.parse import SplitResult

    from confluent_kafka import Consumer, Producer

    from bizlog.sinks import Batch
    from bizlog_handlers._checks import Check

_T = TypeVar("_T")

_VARIABLE = "BIZLOG_EVENTHUB_CONNECTION_STRING"
_NOT_IN_URLS = frozenset(
    {"connection_string", "credential", "logger", "options", "password"}
)


class KafkaSink(BaseSink):
    """
    Send events to a Kafka topic; the URL is `kafka://HOST:PORT/TOPIC?option=value`.

    Towards Event Hubs (`kafka://NAMESPACE.servicebus.windows.net:9093/HUB`) the sink
    takes the connection string of the environment, or a token with `auth=entra`.
    Secrets cannot stand in a URL.

    One call is under way at a time: it brings up to 5,000 events, which librdkafka
    sends to all partitions at once. Where gevent is at work, the wait for librdkafka
    still happens on a native thread, so no greenlet is held up.

    Args:
        bootstrap_servers: `HOST:PORT` of brokers, with commas between several; by
            default the connection string's host at port 9093.
        topic: Name of the topic; by default the connection string's EntityPath, else
            `events`.
        connection_string: Of an Event Hubs namespace or hub; by default
            BIZLOG_EVENTHUB_CONNECTION_STRING, if it is for the host in question.
        auth: `entra` takes tokens from azure-identity's DefaultAzureCredential.
        credential: Gives these tokens instead; a synchronous one.
        username: User name for SASL at any Kafka.
        password: Its password.
        password_file: File with the password; read at each start.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
        tls: Whether to encrypt; by default wherever the sink says who it is.
        ca_file: Certificates to trust, in PEM, instead of the system's.
        partition_key: Rule for the key; see `bizlog_handlers._keys`.
        headers: Whether messages have the headers `event_type`, `schema_version` and
            `event_id`; they cost 1.2 µs an event.
        cloudevents: Whether messages are CloudEvents in Kafka's binary mode: headers
            `ce_id`, `ce_type`, `ce_source`, `ce_time`, `ce_specversion` and
            `content-type`.
        compression: By default `lz4`; towards Event Hubs `none`, or `gzip` if asked.
        linger: Seconds that librdkafka may wait for more, while a batch is filled; the
            end of the batch is sent at once.
        delivery_timeout: Seconds after which events that no broker took are given back,
            to be sent again; less than the setting `sink_timeout`, so that those that
            were taken are known.
        max_message_bytes: Largest message; an event beyond it is a dead letter.
        options: Settings of librdkafka by their names.
        logger: Gets librdkafka's log lines; they go nowhere by default.
        name: Name in ledger and metrics.

    Raises:
        ConfigurationError: Says what cannot work.
        MissingExtraError: confluent-kafka, or azure-identity for `auth=entra`, is not
            installed.
    """

    max_events = 5_000
    max_bytes = 4 * 1024 * 1024

    def __init__(  # noqa: PLR0913  # each an option of its own in URL and table
        self,
        bootstrap_servers: str | None = None,
        topic: str | None = None,
        *,
        connection_string: str | None = None,
        auth: Auth | None = None,
        credential: Any = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        sasl_mechanism: Mechanism = "PLAIN",
        tls: bool | None = None,
        ca_file: str | None = None,
        partition_key: str = DEFAULT_KEY,
        headers: bool = True,
        cloudevents: bool = False,
        compression: Compression | None = None,
        linger: float = 0.005,
        delivery_timeout: float = 8.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        options: Options | None = None,
        logger: logging.Logger | None = None,
        name: str | None = None,
    ) -> None:
        found = _string_of(
            connection_string, bootstrap_servers, auth, credential, username
        )
        way, problems = _way_of(auth, found, credential, username)
        problems += _password_problems(username, password, password_file)
        host = next(hosts_of(found.host)) if found else ""
        self._access = Access(
            bootstrap_servers or (f"{host}:{EVENT_HUBS_PORT}" if host else ""),
            auth=way,
            tls=(way != "none") if tls is None else tls,
            user=username or "",
            mechanism=sasl_mechanism,
            ca_file=ca_file,
        )
        self._topic = topic or (found and found.entity) or "events"
        self._password = found.text if found else password or ""
        self._password_file = password_file
        self._linger, self._delivery_timeout = linger, delivery_timeout
        self._max_message_bytes = max_message_bytes
        self._options = dict(options or {})
        self._logger = logger or _silent_logger()
        self.name = name or type(self).name
        problems += self._problems()
        if problems:
            raise ConfigurationError(problems)
        self._compression = compression_of(compression, self._access)
        _load_confluent_kafka()
        if way == "entra":
            credential = credential or default_credential()
        self._credential = credential
        self._check_options()
        self._courier = Courier(
            self._new_producer,
            topic=self._topic,
            key_of=parse_key_rule(partition_key),
            headers_of=headers_by(plain=headers, cloudevents=cloudevents),
            max_message_bytes=max_message_bytes,
            seconds=delivery_timeout,
        )
        self._started = False
        self._turn = asyncio.Lock()
        self._halt = Halt()
        self._working: asyncio.Future[Any] | None = None

    def __repr__(self) -> str:
        return f"KafkaSink({self._access.servers!r}, {self._topic!r})"

    def _problems(self) -> Iterator[str]:
        if not self._access.servers:
            yield "needs the option 'bootstrap_servers', or a connection string"
        else:
            yield from server_problems(self._access.servers)
        yield from topic_problems(self._topic)
        yield from setting_problems(self._options)
        if self._access.auth == "entra" and not self._access.tls:
            yield "option 'tls': a token is never sent without TLS"
        if not 0 <= self._linger <= 1:
            yield f"option 'linger' must be from 0 to 1 seconds, got {self._linger}"
        if not 1 <= self._delivery_timeout <= 300:  # noqa: PLR2004  # told beside it
            yield (
                "option 'delivery_timeout' must be from 1 to 300 seconds, "
                f"got {self._delivery_timeout}"
            )
        if not 1_000 <= self._max_message_bytes <= 1_000_000_000:  # noqa: PLR2004  # librdkafka's
            yield (
                "option 'max_message_bytes' must be from 1,000 to 1,000,000,000, "
                f"got {self._max_message_bytes}"
            )

    @classmethod
    def from_url(cls, url: SplitResult) -> BaseSink:
        """
        Build the sink from `kafka://HOST:PORT,HOST:PORT/TOPIC?option=value`.

        Raises:
            ConfigurationError: An option is unknown, has the wrong type or may hold a
                secret.
        """
        given: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True))
        if secret := _NOT_IN_URLS & given.keys():
            raise ConfigurationError(
                f"option {min(secret)!r}: cannot stand in a URL; set {_VARIABLE} or "
                "password_file, or build the sink in a table or in code"
            )
        if "@" in url.netloc:
            raise ConfigurationError(
                "holds a user or password, which logs would show; set username and "
                "password_file"
            )
        if url.netloc:
            given["bootstrap_servers"] = unquote(url.netloc)
        if topic := unquote(url.path).strip("/"):
            given["topic"] = topic
        return cls.from_options(given)

    async def start(self) -> None:
        """
        Make the producer; brokers are reached in the background.

        Raises:
            RetryableSinkError: A file cannot be read, or librdkafka does not start.
        """
        async with self._turn:
            await self._on_worker(self._open)
        self._started = True

    def _open(self) -> None:
        self._read_password()
        self._courier.open()

    def _read_password(self) -> None:
        if self._password_file is not None:
            self._password = _read_password(self._password_file)

    async def stop(self) -> None:
        """End the call that is under way, and close the connections."""
        self._started = False
        self._halt.asked = True
        async with self._turn:
            await self._on_worker(self._courier.close)

    def checks(self) -> Sequence[Check]:
        """Name what must hold before events can be sent, for `bizlog doctor`."""
        from bizlog_handlers._topic_checks import TopicChecks  # noqa: PLC0415  # seldom

        checks = TopicChecks(
            topic=self._topic,
            access=self._access,
            credential=self._credential,
            new_producer=self._new_producer,
            read_password=self._read_password,
        )
        return checks.all()

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Send one batch, and wait for the reports.

        Args:
            batch: The events.

        Returns:
            Which events are refused for good, and which are to be sent again.

        Raises:
            RetryableSinkError: None of the events was taken.
        """
        async with self._turn:
            if not self._started:
                raise RetryableSinkError("the sink is not started")
            halt = self._halt = Halt()
            try:
                faults = await self._on_worker(self._courier.carry, batch.records, halt)
            except asyncio.CancelledError:
                halt.asked = True
                raise
        return _answer(len(batch.records), faults)

    async def _on_worker(self, work: Callable[..., _T], *args: Any) -> _T:
        # A call that was cancelled goes on for a moment: the next one waits for it.
        while self._working is not None and not self._working.done():
            await asyncio.wait((self._working,))
        working = asyncio.ensure_future(asyncio.to_thread(work, *args))
        working.add_done_callback(_see_error)
        self._working = working
        return await asyncio.shield(working)

    def _new_producer(self, note_trouble: Callable[[Any], None]) -> Producer:
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415  # an extra

        settings = {**self._settings(), **self._access_settings(note_trouble)}
        try:
            return Producer(settings, logger=self._logger)
        except KafkaException as error:
            raise _not_started(error) from None

    def consumer(
        self, note_trouble: Callable[[Any], None], **settings: Any
    ) -> tuple[Consumer, str]:
        """
        Make a consumer for the brokers, as who the sink is; name its topic.

        Args:
            note_trouble: Gets what librdkafka says of brokers.
            settings: Further ones of librdkafka, with `_` for each dot.

        Raises:
            RetryableSinkError: A file cannot be read, or librdkafka does not start.
        """
        from confluent_kafka import Consumer, KafkaException  # noqa: PLC0415  # an extra

        self._read_password()
        given = {name.replace("_", "."): value for name, value in settings.items()}
        own = {"client.id": "bizlog", "log_level": 5}
        try:
            made = Consumer(
                own | self._access_settings(note_trouble) | given, logger=self._logger
            )
        except KafkaException as error:
            raise _not_started(error) from None
        return made, self._topic

    def _access_settings(self, note_trouble: Callable[[Any], None]) -> dict[str, Any]:
        settings = self._access.settings(self._password)
        settings["error_cb"] = note_trouble
        if self._access.auth == "entra":
            settings["oauth_cb"] = self._token_source()
        return settings

    def _token_source(self) -> Callable[[str], tuple[str, float]]:
        token = token_source(self._credential, self._access.scope)
        try:
            token("")  # librdkafka would wait 10 s, and not tell why; it is kept there
        except Exception as error:  # noqa: BLE001  # a foreign credential
            raise RetryableSinkError(f"no token: {_first_line(error)}") from None
        return token

    def _settings(self) -> dict[str, Any]:
        return {
            "client.id": "bizlog",
            # As Java's clients do it: one key has one partition, whoever sends it.
            "partitioner": "murmur2_random",
            # Between client and broker, load balancers end connections that are idle.
            "socket.keepalive.enable": True,
            "message.max.bytes": self._max_message_bytes,
            # Notices and worse: while a producer ends, librdkafka writes what is below
            # to stderr, whatever its logger.
            "log_level": 5,
            **self._options,
            "acks": "all",
            "enable.idempotence": True,
            # Else librdkafka goes on behind what failed, and it is sent again too late.
            "enable.gapless.guarantee": True,
            "delivery.report.only.error": True,
            "compression.type": self._compression,
            "linger.ms": self._linger * 1000,
            "message.timeout.ms": int((self._delivery_timeout + LATER_SECONDS) * 1000),
        }

    def _check_options(self) -> None:
        """Have librdkafka read its settings, connected to nothing."""
        if not self._options:
            return
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415  # an extra

        try:
            Producer(self._settings(), logger=self._logger)
        except (KafkaException, TypeError, ValueError) as error:
            said = error.args[0]
            reason = said.str() if isinstance(error, KafkaException) else str(said)
            raise ConfigurationError(f"option 'options': {reason}") from None


def _string_of(
    given: str | None, servers: str | None, *others: object
) -> ConnectionString | None:
    """Find the connection string; the environment's only where it is meant."""
    if given is not None:
        return parse_connection_string(given, "option 'connection_string'")
    text = os.environ.get(_VARIABLE)
    if not text or any(other is not None for other in others):
        return None
    found = parse_connection_string(text, _VARIABLE)
    hosts = set(hosts_of(servers)) if servers else None
    return found if hosts is None or set(hosts_of(found.host)) == hosts else None


def _way_of(
    auth: Auth | None, found: ConnectionString | None, credential: Any, user: str | None
) -> tuple[Auth, list[str]]:
    """Choose how the sink proves who it is; say what contradicts itself."""
    ways: dict[Auth, bool] = {
        "connection_string": found is not None,
        "entra": credential is not None or auth == "entra",
        "password": user is not None,
    }
    chosen: list[Auth] = [way for way, is_given in ways.items() if is_given]
    way: Auth = chosen[0] if chosen else "none"
    problems: list[str] = []
    if len(chosen) > 1:
        problems.append(f"give one of {' and '.join(chosen)}, not several")
    elif auth not in {None, way}:
        problems.append(f"option 'auth': {auth!r} does not fit the other options")
    if credential is not None:
        problems += credential_problems(credential)
    return way, problems


def _password_problems(
    user: str | None, password: str | None, file: str | None
) -> Iterator[str]:
    if password is not None and file is not None:
        yield "give one of password and password_file"
    if (user is None) != (password is None and file is None):
        yield "username goes with password or password_file"


def _load_confluent_kafka() -> None:
    # Not later: while the interpreter exits, nothing can be imported safely.
    try:
        import_module("confluent_kafka")
    except ImportError:
        raise MissingExtraError("KafkaSink", "kafka") from None


def _not_started(error: Any) -> RetryableSinkError:
    return RetryableSinkError(f"librdkafka does not start: {error.args[0].str()}")


def _silent_logger() -> logging.Logger:
    """Make a logger that is outside of the host's tree, and says nothing."""
    logger = logging.Logger("bizlog.kafka")  # noqa: LOG001  # apart from the host's
    logger.addHandler(logging.NullHandler())
    return logger


def _read_password(path: str) -> str:
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        fault = error.strerror if isinstance(error, OSError) else None
        raise RetryableSinkError(
            "option 'password_file': the file cannot be read: "
            f"{fault or type(error).__name__}"
        ) from None
    if not text:
        raise RetryableSinkError("option 'password_file': the file is empty")
    return text


def _first_line(error: Exception) -> str:
    """Name a credential's error; what follows in it lists all ways it tried."""
    said = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {said:.200}"


def _see_error(working: asyncio.Future[Any]) -> None:
    # Nobody may be left to ask for it, which asyncio would complain about.
    if not working.cancelled():
        working.exception()


def _answer(events: int, faults: dict[int, Fault]) -> SendResult:
    if not faults:
        return ACCEPTED
    final = tuple(
        Rejection(i, fault.reason) for i, fault in sorted(faults.items()) if fault.final
    )
    again = tuple(i for i, fault in sorted(faults.items()) if not fault.final)
    reason = faults[again[0]].reason if again else None
    if reason is not None and len(again) == events:
        raise RetryableSinkError(reason)
    return SendResult(rejected=final, retry=again, retry_reason=reason)
