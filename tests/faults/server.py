"""
One loopback HTTP sink for all contenders, which misbehaves as it is told.

It counts events by their number, keeps the id that each was stored under, and honours
Idempotency-Key: a key that was answered before gets the same answer, and nothing is
stored twice. It listens on 127.0.0.1 only, in threads of the process that made it.

    with Sink(script=[BUSY, BUSY]) as sink:      # two 503s, then all is well
        ...                                      # something posts to sink.url
        sink.delivered, sink.doubled
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Literal, NamedTuple, Self

import orjson
from wire import BIZLOG_PATH, Event, read_events


class Behaviour(NamedTuple):
    """
    What the sink does with one request.

    Attributes:
        status: The answer; with anything but 200 nothing is stored.
        after: Seconds before the answer.
        retry_after: The header of that name, in seconds.
        end: `cut` stores and closes the connection without an answer; `hang` neither
            stores nor answers, until the sink behaves differently.
    """

    status: int = 200
    after: float = 0.0
    retry_after: int | None = None
    end: Literal["answer", "cut", "hang"] = "answer"


OK = Behaviour()
SLOW = Behaviour(after=0.050)
BUSY = Behaviour(status=503)
CUT = Behaviour(end="cut")
HANG = Behaviour(end="hang")


def throttled(seconds: int) -> Behaviour:
    """Answer 429 with Retry-After."""
    return Behaviour(status=429, retry_after=seconds)


@dataclass(frozen=True)
class Request:
    """
    One request that was read.

    Attributes:
        at: When, by the monotonic clock.
        status: What was answered; 0 for nothing.
        numbers: The numbers of its events.
        again: How many of them were stored before, and are now stored twice.
    """

    at: float
    status: int
    numbers: Sequence[int]
    again: int


class Decision(NamedTuple):
    """
    What becomes of one request.

    Attributes:
        behaviour: How it is answered.
        body: The answer.
        released: Set once the sink no longer hangs.
    """

    behaviour: Behaviour
    body: bytes
    released: threading.Event


class Sink:
    """
    The sink; use it with `with`.

    Args:
        script: What happens to the first requests, one after the other.
        usual: What happens to all further ones.
        poison: Numbers of events that are refused: every request that holds one gets
            a 400 and is not stored.
        partial: Refuse only the event, with DESIGN's batch answer 207.
        honour_keys: Whether Idempotency-Key is honoured.
        refusing: Begin with the port closed.
        check: Says what is wrong with an event's content, or None.

    Attributes:
        stored: The id that each number was first stored under.
        doubled: How often a number was stored that was there already.
        renamed: Numbers that came under two ids.
        wrong: What `check` found.
        requests: All requests in the order of their answers.
        first_at: When each number was first stored, by the monotonic clock.
    """

    def __init__(
        self,
        script: Iterable[Behaviour] = (),
        usual: Behaviour = OK,
        *,
        poison: Collection[int] = (),
        partial: bool = False,
        honour_keys: bool = True,
        refusing: bool = False,
        check: Callable[[Event], str | None] | None = None,
    ) -> None:
        self._script = deque(script)
        self._usual = usual
        self._poison = frozenset(poison)
        self._partial = partial
        self._honour_keys = honour_keys
        self._check = check
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._answers: dict[str, bytes] = {}
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._hanging = threading.Event()
        self.stored: dict[int, str | None] = {}
        self.doubled = 0
        self.renamed: set[int] = set()
        self.wrong: list[str] = []
        self.requests: list[Request] = []
        self.first_at: dict[int, float] = {}
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]
        if not refusing:
            self.listen()

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def delivered(self) -> int:
        """How many different events are stored."""
        return len(self.stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._socket.close()

    # How it behaves

    def listen(self) -> None:
        """Open the port."""
        if self._server is None:
            self._server = _Server(self, self._socket)
            threading.Thread(target=self._server.run, daemon=True).start()

    def refuse(self) -> None:
        """Close the port and all connections; the number of the port stays ours."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server = None
        self._socket.close()
        self._socket = _bound(self.port)
        self._release()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def behave(self, usual: Behaviour, script: Iterable[Behaviour] = ()) -> None:
        """Behave differently from now on; what hangs is cut off."""
        with self._lock:
            self._usual, self._script = usual, deque(script)
        self._release()

    def _release(self) -> None:
        hanging, self._hanging = self._hanging, threading.Event()
        hanging.set()

    def wait_for(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait until something holds, which is looked at after each request."""
        with self._changed:
            return self._changed.wait_for(done, timeout)

    # What it does with a request

    def handle(self, events: list[Event], key: str | None) -> Decision:
        """Decide about one request, and store its events or not."""
        with self._changed:
            behaviour = self._script.popleft() if self._script else self._usual
            before = self.doubled
            known = self._answers.get(key) if key and self._honour_keys else None
            if behaviour.status == 200 and behaviour.end != "hang" and known is None:
                behaviour, known = self._take(behaviour, events, key)
            status = 0 if behaviour.end != "answer" else behaviour.status
            again = self.doubled - before
            numbers = [event.n for event in events]
            self.requests.append(Request(time.monotonic(), status, numbers, again))
            self._changed.notify_all()
            hanging = self._hanging
        body = known or b'{"code":503,"status":0,"error":"busy","message":"busy"}'
        return Decision(behaviour, body, hanging)

    def _take(
        self, behaviour: Behaviour, events: list[Event], key: str | None
    ) -> tuple[Behaviour, bytes]:
        bad = [index for index, event in enumerate(events) if event.n in self._poison]
        if bad and not self._partial:
            return behaviour._replace(status=400), _refusal(bad)
        self._store([event for event in events if event.n not in self._poison])
        answer = _acceptance(events, bad)
        if key:
            self._answers[key] = answer
        if bad:
            behaviour = behaviour._replace(status=207)
        return behaviour, answer

    def _store(self, events: list[Event]) -> None:
        now = time.monotonic()
        for event in events:
            if event.n not in self.stored:
                self.stored[event.n] = event.id
                self.first_at[event.n] = now
            else:
                self.doubled += 1
                if self.stored[event.n] != event.id:
                    self.renamed.add(event.n)
            if self._check and (fault := self._check(event)):
                self.wrong.append(fault)

    def connected(self, connection: socket.socket) -> None:
        """Remember a connection, so that `refuse` can cut it."""
        with self._lock:
            self._connections.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)


def _bound(port: int) -> socket.socket:
    """Bind a port without listening: whoever connects is refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _refusal(bad: list[int]) -> bytes:
    """Write a 400; Amplitude's client reads from it which events were the bad ones."""
    return orjson.dumps(
        {
            "code": 400,
            "status": 0,
            "error": "invalid event",
            "message": "invalid event",
            "events_with_invalid_fields": {"n": bad},
        }
    )


def _acceptance(events: list[Event], bad: list[int]) -> bytes:
    """Write an answer that every contender takes for a yes, or DESIGN's 207."""
    answer: dict[str, Any] = {
        "accepted": len(events) - len(bad),
        "code": 200,
        "status": 1,
    }
    if bad:
        answer = {"accepted": answer["accepted"]}
        answer["results"] = [
            {
                "index": index,
                "event_id": event.id,
                "status": "rejected" if index in bad else "accepted",
                "path": "$.custom_properties.n" if index in bad else None,
                "reason": "invalid event" if index in bad else None,
            }
            for index, event in enumerate(events)
        ]
    return orjson.dumps(answer)


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, sink: Sink, bound: socket.socket) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.sink = sink
        self.socket = bound
        bound.listen(128)

    def run(self) -> None:
        self.serve_forever(poll_interval=0.02)

    def handle_error(self, *_: object) -> None:
        """Say nothing: connections break on purpose here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.sink.connected(self.connection)

    def finish(self) -> None:
        self.server.sink.disconnected(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer what some peers ask for at their start: nothing to say."""
        self._answer(OK, b"{}")

    def do_POST(self) -> None:
        """Take one request."""
        body = self._body()
        encoding = self.headers.get("Content-Encoding", "")
        try:
            events = read_events(self.path, encoding, body)
        except Exception as error:
            self.server.sink.wrong.append(f"{self.path}: {error!r}")
            self._answer(Behaviour(status=400), b"{}")
            return
        key = self.headers.get("Idempotency-Key")
        self._carry_out(self.server.sink.handle(events, key))

    def _carry_out(self, decision: Decision) -> None:
        behaviour = decision.behaviour
        if behaviour.end == "hang":
            decision.released.wait()
        time.sleep(behaviour.after)
        if behaviour.end == "answer":
            self._answer(behaviour, decision.body)
        else:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, behaviour: Behaviour, answer: bytes) -> None:
        status = behaviour.status
        if self.path == BIZLOG_PATH and status == 200:
            status = 202
        if self.path == "/v1/logs":
            answer = b""  # protobuf: nothing to say
        self.send_response(status)
        if behaviour.retry_after is not None:
            self.send_header("Retry-After", str(behaviour.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(answer)
