"""
What must hold before events reach a Kafka topic: the steps of `bizlog doctor`.

Names, ports and certificates are looked at here; who the sink is and which topics there
are is asked through librdkafka, with the sink's own settings. What is told holds no
secret.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from bizlog_handlers._brokers import EVENT_HUBS_PORT, Access
from bizlog_handlers._checks import Check, CheckFailedError
from bizlog_handlers._network import Place, connect, look_up, on_thread, shake_hands

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from confluent_kafka import Producer

# Where a server names no port, as librdkafka has it.
_KAFKA_PORT = 9092

_IDENTITIES: dict[str, tuple[str, ...]] = {
    "none": ("does the broker ask who the sink is? username, connection_string, auth",),
    "connection_string": (
        "is the connection string the current one, with the claim Send?",
        "Event Hubs has the Kafka endpoint in its tiers Standard, Premium, Dedicated",
    ),
    "entra": (
        (
            "the identity needs the role 'Azure Event Hubs Data Sender'; a new one "
            "counts after some minutes"
        ),
        "is the clock of this machine right? compare it with date -u",
    ),
    "password": ("are user, password and sasl_mechanism those of the broker?",),
}
_SILENT = (
    "a port that speaks TLS is asked without it, or the other way round: option tls",
    (
        "the broker names addresses (advertised.listeners) that cannot be reached from "
        "here"
    ),
)


class TopicChecks:
    """
    The steps, in their order.

    Args:
        topic: Name of the topic.
        access: Where the brokers are, and who the sink is.
        credential: Gives tokens, with `auth=entra`.
        new_producer: Makes a producer; gets a function that is called with
            librdkafka's own troubles.
        read_password: Reads the password from its file, if it stands in one.
    """

    def __init__(
        self,
        *,
        topic: str,
        access: Access,
        credential: Any,
        new_producer: Callable[[Callable[[Any], None]], Producer],
        read_password: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._access = access
        self._credential = credential
        self._new_producer = new_producer
        self._read_password = read_password
        self._troubles: list[str] = []

    def all(self) -> Sequence[Check]:
        """List them."""
        return (
            Check("configuration", self._configure),
            Check("DNS", self._at_each(look_up)),
            Check("TCP", self._at_each(connect)),
            Check("TLS", self._shake_hands),
            Check("token", self._prove),
            Check("topic", self._ask),
        )

    async def _configure(self, _seconds: float) -> str:
        self._read_password()
        if self._access.is_event_hubs and self._access.auth == "none":
            raise CheckFailedError(
                "Event Hubs wants to know who the sink is, and no option says it",
                (
                    (
                        "set BIZLOG_EVENTHUB_CONNECTION_STRING to a connection string "
                        "of this namespace"
                    ),
                    "or take tokens of azure-identity: ?auth=entra",
                ),
            )
        way = {"none": "without a name", "entra": "with a token of azure-identity"}
        who = way.get(self._access.auth, f"by {self._access.auth}")
        return f"topic {self._topic!r} at {self._access.servers}, {who}"

    def _at_each(
        self, look: Callable[[Place, float], Awaitable[str]]
    ) -> Callable[[float], Awaitable[str]]:
        async def look_at_all(seconds: float) -> str:
            places = places_of(self._access)
            return "; ".join(
                await asyncio.gather(*(look(place, seconds) for place in places))
            )

        return look_at_all

    async def _shake_hands(self, seconds: float) -> str:
        if not self._access.tls:
            return "none: the option tls is not set"
        try:
            context = ssl.create_default_context(cafile=self._access.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise CheckFailedError(
                "option 'ca_file': the file cannot be used: "
                f"{error.strerror or type(error).__name__}"
            ) from None
        return await self._at_each(
            lambda place, limit: shake_hands(place, context, limit)
        )(seconds)

    async def _prove(self, seconds: float) -> str:
        if self._access.auth != "entra":
            return "none: it goes with the connection"
        scope = self._access.scope
        try:
            async with asyncio.timeout(seconds):
                await on_thread(lambda: self._credential.get_token(scope))
        except TimeoutError:
            raise CheckFailedError(f"no token within {seconds:g} s") from None
        except Exception as error:  # noqa: BLE001  # a foreign credential
            first, *tried = str(error).splitlines() or [""]
            raise CheckFailedError(
                f"no token: {type(error).__name__}: {first:.200}",
                tuple(line.strip()[:200] for line in tried[:8] if line.strip()),
            ) from None
        return f"token for {scope}"

    async def _ask(self, seconds: float) -> str:
        return await asyncio.to_thread(self._ask_brokers, seconds)

    def _ask_brokers(self, seconds: float) -> str:
        from confluent_kafka import KafkaException  # noqa: PLC0415  # an extra

        producer = self._new_producer(lambda error: self._troubles.append(error.str()))
        try:
            found: Any = producer.list_topics(self._topic, seconds)
        except KafkaException as error:
            producer.poll(0)  # serves the callback
            raise self._failure(error.args[0]) from None
        known = found.topics[self._topic]
        if known.error is not None:
            raise CheckFailedError(
                f"there is no topic {self._topic!r}: {known.error.str()}",
                ("is the name right? Event Hubs calls it the event hub",),
            )
        brokers, partitions = len(found.brokers), len(known.partitions)
        return f"{self._topic!r}: partitions {partitions}, brokers {brokers}"

    def _failure(self, error: Any) -> CheckFailedError:
        said = "; ".join(dict.fromkeys([error.str(), *self._troubles]))
        is_refused = "SASL" in said or "uthentication" in said
        advice = _IDENTITIES[self._access.auth]
        return CheckFailedError(said, advice if is_refused else (*_SILENT, *advice))


def places_of(access: Access) -> list[Place]:
    """List the servers that the sink begins with."""
    default = EVENT_HUBS_PORT if access.is_event_hubs else _KAFKA_PORT
    return [_place(server.strip(), default) for server in access.servers.split(",")]


def _place(server: str, default: int) -> Place:
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        return Place(server.strip("[]"), default)
    return Place(host.strip("[]"), int(port))
