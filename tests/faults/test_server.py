"""The loopback sink: it counts right, and misbehaves exactly as it is told."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import json
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

PATH = "/events/batch"


@pytest.fixture
def server(beside: Callable[[str], ModuleType]) -> ModuleType:
    """The module under test."""
    return beside("server")


def post(
    sink: Any, body: bytes, path: str = PATH, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Post once; status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def lines(*numbers: int) -> bytes:
    """Write events as bizlog posts them."""
    events = [{"event_id": f"id-{n}", "custom_properties": {"n": n}} for n in numbers]
    return b"\n".join(json.dumps(event).encode() for event in events)


def test_events_are_counted_by_number(server):
    """An event that comes twice is delivered once and doubled once."""
    with server.Sink() as sink:
        assert post(sink, lines(1, 2)) == (
            202,
            {"accepted": 2, "code": 200, "status": 1},
        )
        post(sink, lines(2, 3))
        assert sink.stored == {1: "id-1", 2: "id-2", 3: "id-3"}
        assert (sink.delivered, sink.doubled, sink.renamed) == (3, 1, set())


def test_a_second_id_is_noticed(server):
    """A number that comes under another id than before was made anew by somebody."""
    with server.Sink() as sink:
        post(sink, lines(1))
        post(sink, lines(1).replace(b"id-1", b"id-9"))
        assert sink.renamed == {1}


def test_an_idempotency_key_is_honoured(server):
    """A key that was answered gets its answer again, and nothing is stored twice."""
    with server.Sink() as sink:
        first = post(sink, lines(1, 2), Idempotency_Key="k")
        assert post(sink, lines(1, 2), Idempotency_Key="k") == first
        assert (sink.delivered, sink.doubled) == (2, 0)


def test_a_key_may_be_ignored(server):
    """A sink that honours no keys stores what comes again."""
    with server.Sink(honour_keys=False) as sink:
        post(sink, lines(1), Idempotency_Key="k")
        post(sink, lines(1), Idempotency_Key="k")
        assert sink.doubled == 1


def test_the_script_comes_first(server):
    """503, then 429 with its header, then what is usual; refused events are not stored."""
    with server.Sink(script=[server.BUSY, server.throttled(3)]) as sink:
        statuses = [post(sink, lines(1))[0] for _ in range(3)]
        assert statuses == [503, 429, 202]
        assert [request.status for request in sink.requests] == [503, 429, 200]
        assert sink.doubled == 0


def test_a_cut_connection_has_stored(server):
    """The answer is lost, the events are not; the same key then gets an answer."""
    with server.Sink(script=[server.CUT]) as sink:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            post(sink, lines(1), Idempotency_Key="k")
        assert sink.delivered == 1
        assert post(sink, lines(1), Idempotency_Key="k")[0] == 202
        assert sink.doubled == 0


def test_a_closed_port_refuses_and_opens_again(server):
    """While it refuses nobody connects; the port stays the same."""
    with server.Sink(refusing=True) as sink:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                post(sink, lines(1))
            sink.listen()
            assert post(sink, lines(1))[0] == 202
            sink.refuse()


def test_a_hanging_sink_lets_go_when_it_changes(server):
    """Nothing is stored and nothing answered, until the sink behaves again."""
    with server.Sink(usual=server.HANG) as sink:
        raised: list[BaseException] = []

        def hang() -> None:
            try:
                post(sink, lines(1))
            except (http.client.HTTPException, ConnectionError) as error:
                raised.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        assert sink.wait_for(lambda: bool(sink.requests), 20)
        assert thread.is_alive()
        sink.behave(server.OK)
        thread.join(20)
        assert raised
        assert not sink.stored


def test_a_slow_sink_takes_its_time(server):
    """The answer comes no sooner than it is told."""
    with server.Sink(usual=server.Behaviour(after=0.2)) as sink:
        start = time.monotonic()
        post(sink, lines(1))
        assert time.monotonic() - start >= 0.2


def test_a_poisoned_batch_is_refused_whole(server):
    """One bad event: 400, and its neighbours are not stored either."""
    with server.Sink(poison={2}) as sink:
        assert post(sink, lines(1, 2))[0] == 400
        assert post(sink, lines(1))[0] == 202
        assert sink.delivered == 1


def test_a_partial_refusal_names_the_event(server):
    """One bad event: 207 says which one, its neighbours are stored."""
    with server.Sink(poison={2}, partial=True) as sink:
        status, answer = post(sink, lines(1, 2))
        assert status == 207
        assert answer["accepted"] == 1
        assert [each["status"] for each in answer["results"]] == [
            "accepted",
            "rejected",
        ]
        assert sink.stored == {1: "id-1"}


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/v1/batch", {"batch": [{"messageId": "a", "properties": {"n": 7}}]}),
        ("/batch/", {"batch": [{"uuid": "a", "properties": {"n": 7}}]}),
        (
            "/2/httpapi",
            {"events": [{"insert_id": "a", "event_properties": {"n": 7}}, {"x": 1}]},
        ),
    ],
)
def test_the_peers_formats_are_read(server, path, event):
    """An event of a peer is found by its number, with the id it has there."""
    with server.Sink() as sink:
        body = gzip.compress(json.dumps(event).encode())
        assert post(sink, body, path, Content_Encoding="gzip")[0] == 200
        assert sink.stored == {7: "a"}


def test_an_unreadable_request_is_noticed(server):
    """What no contender sends is refused, and the run hears of it."""
    with server.Sink() as sink:
        assert post(sink, b"{", "/v1/batch")[0] == 400
        assert post(sink, b"{}", "/elsewhere")[0] == 400
        assert len(sink.wrong) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("zstandard") is None, reason="needs the extra zstd"
)
def test_zstd_is_read(server):
    """A body compressed with Zstandard counts like any other."""
    import zstandard  # noqa: PLC0415  # an extra, for this test only

    with server.Sink() as sink:
        body = zstandard.ZstdCompressor().compress(lines(1))
        assert post(sink, body, Content_Encoding="zstd")[0] == 202
        assert sink.delivered == 1
