"""
The server: a thread with an asyncio loop that listens on 127.0.0.1.

It lives in the process that starts it and keeps everything in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bizlog.dev.eventhubs.broker import Broker
from bizlog.dev.eventhubs.certificate import CERTIFICATE, tls_context
from bizlog.dev.eventhubs.connection import ClientConnection
from bizlog.dev.eventhubs.faults import FaultPlan
from bizlog.dev.eventhubs.service import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from bizlog.dev.eventhubs.broker import Hub, StoredEvent
    from bizlog.dev.eventhubs.faults import Fault

HOST = "127.0.0.1"
KEY_NAME, KEY = "RootManageSharedAccessKey", "bG9vcGJhY2s="
IDLE_TIMEOUT_SECONDS = 240.0
RETAIN_BYTES = 512 * 1024 * 1024
GOODBYE_SECONDS = 1.0
_LOOK_SECONDS = 0.002


class LoopbackEventHubs:
    """
    An Event Hubs namespace on this machine, for tests and for developing.

        with LoopbackEventHubs({"events": 4}) as hubs:
            producer = EventHubProducerClient.from_connection_string(
                hubs.connection_string, eventhub_name="events"
            )

    Args:
        hubs: How many partitions each hub has, by name.
        port: Where it listens; 0 takes a free port, which a new start takes again.
        tls: Whether it speaks TLS, with a self-made certificate: see `ca_file`.
        retain_bytes: How many bytes of events all hubs hold; the oldest go first.
        check_token: Called with the audience and the token of each put-token, on the
            server's thread; False refuses it (401). None takes every token.
        token_lifetime: Seconds after which tokens expire whatever they say, and links
            that live on them are detached; None leaves it to the tokens.
        idle_detach: Seconds without a message after which a producer's link is detached
            (600 in the service); None never does.
        idle_timeout: Seconds of silence after which a connection is closed.
    """

    def __init__(
        self,
        hubs: Mapping[str, int],
        *,
        port: int = 0,
        tls: bool = False,
        retain_bytes: int = RETAIN_BYTES,
        check_token: Callable[[str, str], bool] | None = None,
        token_lifetime: float | None = None,
        idle_detach: float | None = None,
        idle_timeout: float = IDLE_TIMEOUT_SECONDS,
    ) -> None:
        self.port = port
        self.tls = tls
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._broker = Broker(hubs, retain_bytes)
        self._plan = FaultPlan()
        self._check_token = check_token
        self._token_lifetime = token_lifetime
        self._idle_detach = idle_detach
        self._idle_timeout = idle_timeout
        self._service: Service | None = None
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """
        Listen; what was stored before a stop is still there.

        Raises:
            OSError: The port is taken.
            MissingExtraError: TLS is wanted and cryptography is not installed.
        """
        context = self._make_context() if self.tls else None
        self._listening.clear()
        self._thread = threading.Thread(
            target=self._run, args=(context,), name="bizlog-loopback", daemon=True
        )
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._thread.join()
            self._thread = None
            self._remove_folder()
            raise failure
        return self

    def stop(self) -> None:
        """Close all connections, telling the clients, and stop listening."""
        if self._thread is None or self._service is None or self._stopping is None:
            return
        self._service.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._service = self._stopping = None
        self._remove_folder()

    def _make_context(self) -> ssl.SSLContext:
        self._folder = tempfile.TemporaryDirectory(prefix="bizlog-loopback-")
        try:
            return tls_context(Path(self._folder.name))
        except BaseException:
            self._remove_folder()
            raise

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _run(self, context: ssl.SSLContext | None) -> None:
        try:
            asyncio.run(self._serve(context))
        except BaseException as error:  # noqa: BLE001  # raised again by start
            self._failure = error
        finally:
            self._listening.set()

    async def _serve(self, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        service = self._make_service(loop)
        server = await loop.create_server(
            lambda: ClientConnection(service), HOST, self.port, ssl=context
        )
        self.port = server.sockets[0].getsockname()[1]
        self._service, self._stopping = service, asyncio.Event()
        self._listening.set()
        await self._stopping.wait()
        server.close()
        await _end_all(service)

    def _make_service(self, loop: asyncio.AbstractEventLoop) -> Service:
        return Service(
            loop=loop,
            broker=self._broker,
            plan=self._plan,
            check_token=self._check_token,
            token_lifetime=self._token_lifetime,
            idle_detach=self._idle_detach,
            idle_timeout=self._idle_timeout,
        )

    def drop_connections(self) -> None:
        """Break all TCP connections, as a network does; the server goes on."""
        if self._service is not None:
            service = self._service
            service.loop.call_soon_threadsafe(_abort_all, service)

    @property
    def endpoint(self) -> str:
        """Where it is, for `custom_endpoint_address`: `sb://localhost:PORT`."""
        return f"sb://localhost:{self.port}"

    @property
    def connection_string(self) -> str:
        """
        What clients connect with.

        With TLS the SDK takes the port from `custom_endpoint_address` alone: give it
        `endpoint`, and `ca_file` as `connection_verify`.
        """
        plain = "" if self.tls else ";UseDevelopmentEmulator=true"
        return (
            f"Endpoint={self.endpoint};SharedAccessKeyName={KEY_NAME};"
            f"SharedAccessKey={KEY}{plain}"
        )

    @property
    def ca_file(self) -> Path:
        """
        The self-signed certificate (PEM), made by cryptography, while the server runs.

        Raises:
            RuntimeError: The server speaks no TLS, or does not run.
        """
        if self._folder is None:
            raise RuntimeError("only a server that runs with tls=True has a ca_file")
        return Path(self._folder.name) / CERTIFICATE

    def inject(self, fault: Fault) -> None:
        """Plant a fault behind those that are planted; it counts from now on."""
        self._plan.plant(fault)

    def clear_faults(self) -> None:
        """Take all faults back, used up or not."""
        self._plan.clear()

    def events(self, hub: str) -> list[StoredEvent]:
        """
        Read what a hub holds, by partition and oldest first.

        Raises:
            KeyError: There is no such hub.
        """
        return [e for each in self._hub(hub).partitions for e in each.stored()]

    def count(self, hub: str) -> int:
        """
        Count the events that a hub ever stored, those that had to go too.

        Raises:
            KeyError: There is no such hub.
        """
        return self._hub(hub).count

    def _hub(self, name: str) -> Hub:
        hub = self._broker.hub(name)
        if hub is None:
            raise KeyError(name)
        return hub


def _abort_all(service: Service) -> None:
    for connection in tuple(service.connections):
        connection.abort()


async def _end_all(service: Service) -> None:
    """Say goodbye, and wait a moment for what is still to be written."""
    for connection in tuple(service.connections):
        connection.say_goodbye()
    deadline = service.loop.time() + GOODBYE_SECONDS
    while service.connections and service.loop.time() < deadline:  # noqa: ASYNC110  # ends soon
        await asyncio.sleep(_LOOK_SECONDS)
    _abort_all(service)
    await asyncio.sleep(_LOOK_SECONDS)
