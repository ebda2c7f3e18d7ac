"""
One client's connection: asyncio's bytes on one side, proton's engine on the other.

proton speaks AMQP and has no sockets; what it wants said is padded (see `padding`).
All of this runs on the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from proton import (
    Collector,
    Condition,
    Connection,
    Event,
    Transport,
    TransportException,
)

from bizlog.dev.eventhubs import routing
from bizlog.dev.eventhubs.faults import CONNECTION_FORCED, UNAUTHORIZED
from bizlog.dev.eventhubs.padding import Padder
from bizlog.dev.eventhubs.tokens import Grants

if TYPE_CHECKING:
    from collections.abc import Callable

    from proton import Link

    from bizlog.dev.eventhubs.links import Role
    from bizlog.dev.eventhubs.service import Service

MAX_FRAME_BYTES = 64 * 1024
# proton takes no more of a session than this into memory; a batch is up to 1 MiB.
INCOMING_BYTES = 64 * 1024 * 1024
CONTAINER = "bizlog-loopback"


class ClientConnection(asyncio.Protocol):
    """
    A connection and the links on it.

    Args:
        service: What all connections share.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.grants = Grants(service.loop.time, service.token_lifetime)
        self._roles: dict[Link, Role] = {}
        self._wire: asyncio.Transport | None = None
        self._padder = Padder()
        self._writable = True
        self._flushing: asyncio.Handle | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._engine = Transport(Transport.SERVER)
        self._amqp = Connection()
        self._collector = Collector()
        self._handlers: dict[Any, Callable[[Any], None]] = {
            Event.CONNECTION_REMOTE_OPEN: self._on_open,
            Event.CONNECTION_REMOTE_CLOSE: self._on_close,
            Event.SESSION_REMOTE_OPEN: self._on_session,
            Event.SESSION_REMOTE_CLOSE: lambda event: event.session.close(),
            Event.LINK_REMOTE_OPEN: self._on_link,
            Event.LINK_REMOTE_CLOSE: self._on_link_end,
            Event.LINK_REMOTE_DETACH: self._on_link_end,
            Event.DELIVERY: self._on_delivery,
        }
        self._prepare()

    def _prepare(self) -> None:
        self._amqp.collect(self._collector)
        self._amqp.container = CONTAINER
        self._engine.sasl().allowed_mechs("ANONYMOUS")
        self._engine.max_frame_size = MAX_FRAME_BYTES
        self._engine.idle_timeout = self.service.idle_timeout
        self._engine.bind(self._amqp)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self.service.connections.add(self)
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Let proton read, do what it tells, and answer."""
        with contextlib.suppress(TransportException):  # proton then closes by itself
            self._push(data)
        self._dispatch()
        self.flush()

    def _push(self, data: bytes) -> None:
        while data and (room := self._engine.capacity()) > 0:
            self._engine.push(data[:room])
            data = data[room:]
            self._dispatch()

    def pause_writing(self) -> None:
        """Stop handing out events: the client reads slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on handing out events."""
        self._writable = True
        self.wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """Forget the client."""
        self._wire = None
        for timer in self._timers.values():
            timer.cancel()
        for link in list(self._roles):
            self._end(link)
        self.service.connections.discard(self)

    # proton's side

    def _dispatch(self) -> None:
        while (event := self._collector.peek()) is not None:
            handle = self._handlers.get(event.type)
            if handle is not None:
                handle(event)
            self._collector.pop()

    def _on_open(self, _: Any) -> None:
        self._amqp.open()

    def _on_close(self, _: Any) -> None:
        self._amqp.close()

    def _on_session(self, event: Any) -> None:
        event.session.incoming_capacity = INCOMING_BYTES
        event.session.open()

    def _on_link(self, event: Any) -> None:
        role = routing.role_for(event.link, self)
        if role is not None:
            self._roles[event.link] = role
            role.start()

    def _on_link_end(self, event: Any) -> None:
        self._end(event.link)
        event.link.close()

    def _end(self, link: Link) -> None:
        role = self._roles.pop(link, None)
        if role is not None:
            role.end()

    def _on_delivery(self, event: Any) -> None:
        delivery = event.delivery
        role = self._roles.get(event.link)
        if not delivery.readable or delivery.partial or event.link.is_sender:
            return
        message = event.link.recv(delivery.pending) or b""
        event.link.advance()
        if role is None or delivery.aborted:
            delivery.settle()
        else:
            role.receive(delivery, message)

    # for links

    def roles(self) -> list[Role]:
        """List the links that are attached."""
        return list(self._roles.values())

    def detach(self, link: Link, condition: str, text: str, info: Any = None) -> None:
        """Detach a link with an error."""
        self._end(link)
        link.condition = Condition(condition, text, info)
        link.close()
        self.wake()

    def close(self, condition: str, text: str, info: Any = None) -> None:
        """Close the connection with an error."""
        self._amqp.condition = Condition(condition, text, info)
        self._amqp.close()
        self.wake()  # and not at once: this may be proton's event that is handled

    def abort(self) -> None:
        """Break the TCP connection."""
        if self._wire is not None:
            self._wire.abort()

    def say_goodbye(self) -> None:
        """Close as the server goes down: the client is told, then the socket ends."""
        info = {"server": CONTAINER}
        self.close(CONNECTION_FORCED, "the server is stopping", info)
        self.flush()
        if self._wire is not None:
            self._wire.close()

    def at(self, name: str, moment: float, call: Callable[[], None]) -> None:
        """Call later; a call of the same name that waits is replaced."""
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self.service.loop.call_at(moment, call)

    def expire_tokens(self) -> None:
        """Detach the links whose token has expired, and look again at the next."""
        for role in self.roles():
            if not self.grants.cover(role.hub):
                text = f"the token for {role.hub} has expired"
                self.detach(role.link, UNAUTHORIZED, text, {"hub": role.hub})
        moment = self.grants.next_expiry()
        if moment is not None:
            self.at("tokens", moment, self.expire_tokens)

    def wake(self) -> None:
        """Flush soon, once for all who ask."""
        if self._flushing is None:
            self._flushing = self.service.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand out events and write whatever proton wants said."""
        self._flushing = None
        consumers = [role for role in self._roles.values() if role.hungry]
        more = self._writable and self._feed(consumers)
        self._write()
        self._dispatch()
        if more:
            self.wake()

    def _feed(self, consumers: list[Role]) -> bool:
        return sum(consumer.feed() for consumer in consumers) > 0

    def _write(self) -> None:
        if self._wire is None:
            return
        while (pending := self._engine.pending()) > 0:
            self._wire.write(self._padder.feed(self._engine.peek(pending) or b""))
            self._engine.pop(pending)
        if pending < 0:
            self._wire.close()

    def _tick(self) -> None:
        """Keep the idle time-out: say something, or end who says nothing."""
        now = self.service.loop.time()
        deadline = self._engine.tick(now)
        self._write()
        self.at("tick", max(deadline, now + 0.01) if deadline else now + 1, self._tick)
