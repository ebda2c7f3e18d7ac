"""
The two nodes that answer requests: `$cbs` takes tokens, `$management` describes hubs.

A request comes on one link and is answered on its twin, the link of the same session
that receives from the same node: the SDK names no reply-to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from proton import UNDESCRIBED, Array, Data, Delivery, Message, timestamp

from bizlog.dev.eventhubs.addresses import OFFSET_STEP, path_of
from bizlog.dev.eventhubs.links import CREDIT, Role

if TYPE_CHECKING:
    from bizlog.dev.eventhubs.broker import Broker, Partition

HUB_TYPE, PARTITION_TYPE = "com.microsoft:eventhub", "com.microsoft:partition"
OK, ACCEPTED, BAD_REQUEST, UNAUTHORIZED, NOT_FOUND = 200, 202, 400, 401, 404
# When a partition without events says it got the last one: the year 1.
NEVER_MS = -62_135_596_800_000
# The hubs were made when the server started; which moment that is nobody asks.
CREATED_MS = 1_600_000_000_000

STRING: Any = cast("Any", Data).STRING

Answer = tuple[int, str, Any]


class ReplyLink(Role):
    """The link that answers leave by."""


class RequestLink(Role):
    """A link that requests come by."""

    def start(self) -> None:
        """Grant credit."""
        self.link.flow(CREDIT)

    def receive(self, delivery: Delivery, message: bytes) -> None:
        """Answer a request."""
        request = Message()
        request.decode(message)
        delivery.update(Delivery.ACCEPTED)
        delivery.settle()
        self.link.flow(1)
        self._reply(request, self.answer(_asked(request), cast("Any", request).body))

    def answer(self, asked: dict[str, Any], body: Any) -> Answer:
        """Find the status code, the text and the body of the answer."""
        raise NotImplementedError

    def _reply(self, request: Message, answer: Answer) -> None:
        code, text, body = answer
        told = {"status-code": code, "status-description": text}
        reply = Message(body=body, correlation_id=request.id, properties=told)
        for role in self._connection.roles():
            link = role.link
            same = link.session == self.link.session
            if same and isinstance(role, ReplyLink) and _node(link) == _node(self.link):
                link.delivery(str(id(reply)))
                link.send(reply.encode())
                link.advance()
                return


def _node(link: Any) -> str:
    remote = link.remote_source if link.is_sender else link.remote_target
    return path_of(remote.address).lower()


def _asked(request: Message) -> dict[str, Any]:
    properties: dict[Any, Any] = request.properties or {}
    return {_text(name): _text(value) for name, value in properties.items()}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


class TokenLink(RequestLink):
    """`$cbs`: a token is checked, and from then on allows to use its audience."""

    def answer(self, asked: dict[str, Any], body: Any) -> Answer:
        """Take a token."""
        if asked.get("operation") != "put-token":
            return BAD_REQUEST, f"unknown operation: {asked.get('operation')}", ""
        audience, token = str(asked.get("name", "")), str(_text(body))
        service = self._connection.service
        hub = path_of(audience).split("/")[0]
        if hub and service.broker.hub(hub) is None:
            return NOT_FOUND, f"the event hub {hub} does not exist", ""
        if service.check_token is not None and not service.check_token(audience, token):
            return UNAUTHORIZED, "the token is refused", ""
        self._connection.grants.put(audience, token)
        self._connection.expire_tokens()
        return ACCEPTED, "Accepted", ""


class ManagementLink(RequestLink):
    """`$management`: READ of a hub or of a partition."""

    def answer(self, asked: dict[str, Any], body: Any) -> Answer:  # noqa: ARG002  # READ has none
        """Describe what is asked for."""
        if asked.get("operation") != "READ":
            return BAD_REQUEST, f"unknown operation: {asked.get('operation')}", {}
        name, kind = str(asked.get("name", "")), asked.get("type")
        if kind == HUB_TYPE:
            told = _describe_hub(self._connection.service.broker, name)
        else:
            partition = str(asked.get("partition", ""))
            told = _describe(self._connection.service.broker, name, partition)
        if told is None:
            return NOT_FOUND, f"the messaging entity {name} could not be found", {}
        return OK, "OK", told


def _describe_hub(broker: Broker, name: str) -> dict[str, Any] | None:
    hub = broker.hub(name)
    if hub is None:
        return None
    identities = [partition.id for partition in hub.partitions]
    return {
        "name": hub.name,
        "type": HUB_TYPE,
        "created_at": timestamp(CREATED_MS),
        "partition_count": len(identities),
        "partition_ids": _strings(identities),
    }


def _strings(values: list[str]) -> Any:
    undescribed: Any = UNDESCRIBED
    return Array(undescribed, STRING, *values)


def _describe(broker: Broker, name: str, identity: str) -> dict[str, Any] | None:
    hub = broker.hub(name)
    partition = hub.partition(identity) if hub is not None else None
    if hub is None or partition is None:
        return None
    return {"name": hub.name, "type": PARTITION_TYPE, **_state_of(partition)}


def _state_of(partition: Partition) -> dict[str, Any]:
    last, moment = partition.end - 1, partition.last_enqueued_ms
    return {
        "partition": partition.id,
        "begin_sequence_number": partition.begin,
        "last_enqueued_sequence_number": last,
        "last_enqueued_offset": str(last * OFFSET_STEP) if last >= 0 else "-1",
        "last_enqueued_time_utc": timestamp(NEVER_MS if moment is None else moment),
        "is_partition_empty": partition.begin == partition.end,
    }
