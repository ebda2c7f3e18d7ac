"""
The server: a thread with an asyncio loop that listens on 127.0.0.1.

It lives in the process that starts it and keeps everything in memory.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from bizlog.dev.eventhubs.broker import Broker, StoredEvent
from bizlog.dev.eventhubs.connection import ClientConnection
from bizlog.dev.eventhubs.faults import FaultPlan
from bizlog.dev.eventhubs.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from bizlog.dev.eventhubs.faults import Fault

HOST = "127.0.0.1"
KEY_NAME, KEY = "RootManageSharedAccessKey", "bG9vcGJhY2s="
IDLE_TIMEOUT_SECONDS = 240.0
RETAIN_BYTES = 512 * 1024 * 1024
_MIB = 1024 * 1024


class LoopbackEventHubs:
    """
    An Event Hubs namespace on this machine, for tests and for developing.

        with LoopbackEventHubs({"events": 4}) as hubs:
            producer = EventHubProducerClient.from_connection_string(
                hubs.connection_string, eventhub_name="events"
            )

    Args:
        hubs: How many partitions each hub has, by name.
        port: Where it listens; 0 takes a free port, and keeps it if it is started again.
        tls: Whether it speaks TLS, with a certificate of its own: see `ca_file`.
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
        retain_bytes: int = RETAIN_BYTES,
        check_token: Callable[[str, str], bool] | None = None,
        token_lifetime: float | None = None,
        idle_detach: float | None = None,
        idle_timeout: float = IDLE_TIMEOUT_SECONDS,
    ) -> None:
        self.port = port
        self._broker = Broker(hubs, retain_bytes)
        self._plan = FaultPlan()
        self._check_token = check_token
        self._token_lifetime = token_lifetime
        self._idle_detach = idle_detach
        self._idle_timeout = idle_timeout
        self._service: Service | None = None
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._failure: OSError | None = None
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> LoopbackEventHubs:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> LoopbackEventHubs:
        """
        Listen; what was stored before a stop is still there.

        Raises:
            OSError: The port is taken.
        """
        self._listening.clear()
        self._thread = threading.Thread(
            target=self._run, name="bizlog-loopback-eventhubs", daemon=True
        )
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._thread.join()
            raise failure
        return self

    def stop(self) -> None:
        """Close all connections, telling the clients, and stop listening."""
        if self._thread is None or self._service is None or self._stopping is None:
            return
        self._service.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._service = self._stopping = None

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        service = Service(
            loop=loop,
            broker=self._broker,
            plan=self._plan,
            check_token=self._check_token,
            token_lifetime=self._token_lifetime,
            idle_detach=self._idle_detach,
            idle_timeout=self._idle_timeout,
        )
        try:
            server = await loop.create_server(
                lambda: ClientConnection(service), HOST, self.port
            )
        except OSError as error:
            self._failure = error
            self._listening.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._service, self._stopping = service, asyncio.Event()
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for connection in tuple(service.connections):
            connection.say_goodbye()
        await asyncio.sleep(0)

    @property
    def endpoint(self) -> str:
        """Where it is, for `custom_endpoint_address`: `sb://localhost:PORT`."""
        return f"sb://localhost:{self.port}"

    @property
    def connection_string(self) -> str:
        """What clients connect with."""
        return (
            f"Endpoint={self.endpoint};SharedAccessKeyName={KEY_NAME};"
            f"SharedAccessKey={KEY};UseDevelopmentEmulator=true"
        )

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
        found = self._broker.hub(hub)
        if found is None:
            raise KeyError(hub)
        return [event for each in found.partitions for event in each.stored()]
