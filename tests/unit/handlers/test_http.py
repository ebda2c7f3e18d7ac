"""HttpSink: one POST a batch, every answer understood, nothing secret told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from urllib.parse import urlsplit

import pytest
import zstandard
from aiohttp import web

import bizlog
import bizlog.client
from bizlog.exceptions import (
    BatchTooLargeError,
    ConfigurationError,
    MissingExtraError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, Rejection, SendResult, make_sink
from bizlog_handlers.http import HttpSink

KEY = "k-5a1b9c77d3"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Keep what this machine names as its proxy or key out of the tests."""
    for name in (*PROXIES, *map(str.upper, PROXIES), "BIZLOG_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class Collector:
    """An endpoint that notes what is posted, and answers as it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.bodies = []
        self.peers = []

    async def handle(self, request):
        body = await request.read()  # aiohttp's server undoes gzip by itself
        self.requests.append(request)
        self.bodies.append(body)
        self.peers.append(request.transport.get_extra_info("peername")[1])
        answer = self.answers.pop(0) if self.answers else accepted()
        return await answer(request) if callable(answer) else answer

    @property
    def headers(self):
        return [request.headers for request in self.requests]

    @contextlib.asynccontextmanager
    async def serve(self, host="127.0.0.1", tls=None):
        application = web.Application(client_max_size=1 << 22)
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(
            application, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, 0, ssl_context=tls).start()
            port = runner.addresses[0][1]
            name = f"[{host}]" if ":" in host else host
            yield f"http{'s' if tls else ''}://{name}:{port}/events/batch"
        finally:
            await runner.cleanup()


def accepted():
    """Answer as the collector does when it took everything."""
    return web.json_response({"accepted": 1}, status=202)


def multi(*results, accepted=0, **headers):
    """Answer for each event, as the collector does."""
    body = {"accepted": accepted, "results": list(results)}
    return web.json_response(body, status=207, headers=headers)


def result(index, status, **more):
    """Say what became of one event."""
    return {"index": index, "event_id": "0193", "status": status, **more}


def nested(name, depth, value):
    """Put a value into as many objects."""
    for _ in range(depth):
        value = {name: value}
    return value


async def outcome(call):
    """Wait for an answer, or for the error in its place."""
    try:
        return await call
    except Exception as error:
        return error


def post(collector, *batches, query="", **options):
    """Have batches delivered by one sink, one after the other; the outcomes."""

    async def live():
        async with collector.serve() as url:
            sink = HttpSink(f"{url}{query}", **options)
            await sink.start()
            try:
                return [await outcome(sink.deliver(batch)) for batch in batches]
            finally:
                await sink.stop()

    return asyncio.run(live())


def answered(answer, batch, **options):
    """Deliver one batch to an endpoint with one answer; the outcome."""
    return post(Collector(answer), batch, **options)[0]


@contextlib.asynccontextmanager
async def raw_server(talk):
    """Serve connections by hand: `talk` reads the request and writes anything."""
    talks = []

    async def talk_and_close(reader, writer):
        await talk(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader, writer):
        talks.append(asyncio.create_task(talk_and_close(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        async with asyncio.timeout(20):
            await asyncio.gather(*talks)


def raw_post(talk, *batches):
    """Deliver batches to a server that is written by hand; the outcomes."""

    async def live():
        async with raw_server(talk) as url:
            sink = HttpSink(url)
            await sink.start()
            try:
                return [await outcome(sink.deliver(batch)) for batch in batches]
            finally:
                await sink.stop()

    return asyncio.run(live())


async def keep_silent(reader, writer):
    """Take whatever comes and say nothing, until the other side leaves."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


async def read_request(reader):
    """Read one request with its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
    return head, await reader.readexactly(int(length))


def big(make_record, make_batch, events=500):
    """Make a batch that is large enough to be compressed by a thread."""
    return make_batch(*(make_record(note="x" * 500) for _ in range(events)))


# The request


def test_a_batch_is_one_post_of_json_lines(make_batch):
    """The events travel byte for byte as they were encoded, one a line."""
    batch = make_batch("order.placed", "product.viewed")
    collector = Collector()

    assert post(collector, batch) == [ACCEPTED]

    [request] = collector.requests
    assert (request.method, request.path) == ("POST", "/events/batch")
    assert request.headers["Content-Type"] == "application/x-ndjson"
    assert collector.bodies == [b"".join(r.data + b"\n" for r in batch.records)]


def test_a_batch_may_be_a_json_array(make_batch):
    """With `format=json` the same bytes stand in an array."""
    batch = make_batch("order.placed", "product.viewed")
    collector = Collector()

    post(collector, batch, format="json")

    assert collector.headers[0]["Content-Type"] == "application/json"
    assert json.loads(collector.bodies[0]) == batch.events
    assert batch.records[1].data in collector.bodies[0]


def test_a_batch_carries_its_name(make_batch):
    """Idempotency-Key is the batch's stable name; User-Agent is bizlog's version."""
    batch = make_batch("order.placed")
    collector = Collector()

    post(collector, batch)

    assert collector.headers[0]["Idempotency-Key"] == batch.name
    assert collector.headers[0]["User-Agent"] == f"bizlog/{bizlog.__version__}"


@pytest.mark.parametrize("events", [20, 500])
def test_gzip_is_how_bodies_travel(make_record, make_batch, events):
    """A body of 1 KiB or more is gzip, which the server reads as what was sent."""
    batch = big(make_record, make_batch, events)
    collector = Collector()

    post(collector, batch)

    assert collector.headers[0]["Content-Encoding"] == "gzip"
    assert int(collector.headers[0]["Content-Length"]) < batch.size / 3
    assert collector.bodies[0].splitlines() == [r.data for r in batch.records]


def test_gzip_is_plain_gzip(make_record, make_batch):
    """Any gunzip reads the bytes on the wire."""
    batch = big(make_record, make_batch)
    seen = []

    async def talk(reader, writer):
        seen.append((await read_request(reader))[1])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert raw_post(talk, batch) == [ACCEPTED]
    assert gzip.decompress(seen[0]).splitlines() == [r.data for r in batch.records]


@pytest.mark.parametrize("events", [20, 500])
def test_zstd_is_plain_zstd(make_record, make_batch, events):
    """With `compression=zstd` the body is one zstd frame."""
    batch = big(make_record, make_batch, events)
    seen = []

    async def talk(reader, writer):
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def live():
        async with raw_server(talk) as url:
            sink = HttpSink(url, compression="zstd")
            await sink.start()
            await sink.deliver(batch)
            await sink.stop()

    asyncio.run(live())

    head, body = seen[0]
    assert b"Content-Encoding: zstd\r\n" in head
    lines = zstandard.ZstdDecompressor().decompress(body).splitlines()
    assert lines == [r.data for r in batch.records]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_small_body_is_not_compressed(make_batch, compression):
    """Below 1 KiB a body travels as it is."""
    collector = Collector()

    post(collector, make_batch("order.placed"), compression=compression)

    assert "Content-Encoding" not in collector.headers[0]


def test_compression_can_be_switched_off(make_record, make_batch):
    """With `compression=none` a body of any size travels as it is."""
    batch = big(make_record, make_batch)
    collector = Collector()

    post(collector, batch, compression="none")

    assert "Content-Encoding" not in collector.headers[0]
    assert collector.bodies[0].splitlines() == [r.data for r in batch.records]


@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_the_largest_batch_is_a_body_of_900_kib(make_record, make_batch, form):
    """What stands between 500 events is counted: no body exceeds 900 KiB."""
    sink = HttpSink("https://collector.test/")
    room = sink.max_bytes // sink.max_events - len(make_record(note="").data)
    records = [make_record(note="x" * room) for _ in range(sink.max_events)]
    batch = make_batch(*records)
    collector = Collector()

    post(collector, batch, format=form, compression="none")

    assert sink.max_events == 500
    assert batch.size <= sink.max_bytes
    assert 899 * 1024 < len(collector.bodies[0]) <= 900 * 1024


def test_one_connection_serves_many_batches(make_batch):
    """Connections are kept: five batches come over the same one."""
    collector = Collector()

    post(collector, *(make_batch("order.placed") for _ in range(5)))

    assert len(collector.peers) == 5
    assert len(set(collector.peers)) == 1


def test_errors_keep_the_connection_too(make_batch):
    """The answer of a refusal is read, so the connection serves the next batch."""
    collector = Collector(web.Response(status=503, text="later"))

    post(collector, make_batch("x"), make_batch("x"))

    assert len(collector.peers) == 2
    assert len(set(collector.peers)) == 1


def test_headers_of_the_user_are_sent(make_batch):
    """Each request carries `headers`; a User-Agent of theirs replaces bizlog's."""
    collector = Collector()

    post(
        collector,
        make_batch("order.placed"),
        headers={"X-Tenant": "contoso", "User-Agent": "shop/2"},
    )

    assert collector.headers[0]["X-Tenant"] == "contoso"
    assert collector.headers[0]["User-Agent"] == "shop/2"


def test_the_endpoint_keeps_its_query(make_batch):
    """The whole query of `url` is the endpoint's, whatever its names."""
    collector = Collector()

    post(collector, make_batch("x"), query="?tenant=a%2Bb&compression=zstd")

    assert dict(collector.requests[0].query) == {
        "tenant": "a+b",
        "compression": "zstd",
    }


def test_ipv6_is_loopback_too(make_batch):
    """An address such as http://[::1]:8080/ is posted to."""

    async def live():
        async with Collector().serve("::1") as url:
            sink = HttpSink(url)
            await sink.start()
            answer = await sink.deliver(make_batch("order.placed"))
            await sink.stop()
            return answer

    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert asyncio.run(live()) is ACCEPTED


def test_several_requests_at_a_time(make_batch):
    """As many batches as `max_in_flight` allows are under way together."""
    together = asyncio.Barrier(3)

    async def meet(_):
        await together.wait()
        return accepted()

    async def live():
        async with Collector(meet, meet, meet).serve() as url:
            sink = HttpSink(url, max_in_flight=3)
            await sink.start()
            try:
                async with asyncio.timeout(20):
                    return await asyncio.gather(
                        *(sink.deliver(make_batch("x")) for _ in range(3))
                    )
            finally:
                await sink.stop()

    assert asyncio.run(live()) == [ACCEPTED] * 3


# The key


def test_the_key_is_a_bearer_token(make_batch):
    """`api_key` travels in the Authorization header."""
    collector = Collector()

    post(collector, make_batch("x"), api_key=KEY)

    assert collector.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_the_key_may_come_from_the_environment(make_batch, monkeypatch):
    """BIZLOG_API_KEY is taken, without a line end, when no other key is given."""
    monkeypatch.setenv("BIZLOG_API_KEY", f"{KEY}\n")
    collector = Collector()

    post(collector, make_batch("x"))

    assert collector.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_an_empty_key_sends_none(make_batch, monkeypatch):
    """`api_key=""` keeps the key of the environment from an endpoint."""
    monkeypatch.setenv("BIZLOG_API_KEY", KEY)
    collector = Collector()

    post(collector, make_batch("x"), api_key="")

    assert "Authorization" not in collector.headers[0]


def test_an_authorization_of_the_user_stands_alone(make_batch, monkeypatch):
    """With an Authorization header of theirs the environment's key is not sent."""
    monkeypatch.setenv("BIZLOG_API_KEY", KEY)
    collector = Collector()

    post(collector, make_batch("x"), headers={"authorization": "Basic eDp5"})

    assert collector.headers[0].getall("Authorization") == ["Basic eDp5"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_file_is_read_again_when_the_key_is_refused(make_batch, tmp_path, status):
    """Who replaces a key in its file need not start the process again."""
    file = tmp_path / "key"
    file.write_text("old-key\n")

    async def replace(_):
        file.write_text(f"{KEY}\n")
        return web.Response(status=status)

    collector = Collector(replace)
    first, second = post(
        collector, make_batch("x"), make_batch("x"), api_key_file=str(file)
    )

    assert isinstance(first, RetryableSinkError)
    assert second is ACCEPTED
    keys = [headers["Authorization"] for headers in collector.headers]
    assert keys == ["Bearer old-key", f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "content", [None, b"", b"two words", b"\xff\xfe", b"k\xc3\xa9y"]
)
def test_a_key_file_without_a_key_is_waited_for(tmp_path, content):
    """The sink starts once the file holds a key; until then it says what is wrong."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    sink = HttpSink("https://collector.test/", api_key_file=str(file))

    with pytest.raises(RetryableSinkError, match="api_key_file") as caught:
        asyncio.run(sink.start())

    assert "words" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 400, 503])
def test_a_key_that_the_server_quotes_is_not_told(make_batch, status):
    """Reasons hold neither the key, nor the address's path and query."""
    quoting = web.json_response({"reason": f"unknown key {KEY}"}, status=status)

    error = answered(quoting, make_batch("x"), api_key=KEY, query="?sig=s3cret")

    assert "unknown key [token]" in str(error)
    assert KEY not in repr(error)
    assert "s3cret" not in str(error)


def test_a_sink_shows_where_it_posts_and_no_more():
    """Its repr holds scheme, host and port: a path may be as secret as a key."""
    sink = HttpSink("https://hooks.test:8443/services/T0?sig=s3cret", api_key=KEY)

    assert repr(sink) == "HttpSink('https://hooks.test:8443')"


# Answers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize(
    "body", [b"", b"OK", b"[" * 100_000, b'{"accepted":0,"results":[]}', b"\xff"]
)
def test_success_accepts_everything(make_batch, status, body):
    """2xx other than 207 accepts the batch, whatever stands in the body."""
    response = web.Response(status=status, body=None if status == 204 else body)

    assert answered(response, make_batch("x", "y")) is ACCEPTED


def test_success_needs_no_content_type(make_batch):
    """The type of an answer plays no part."""
    response = multi(result(0, "rejected", reason="no"))
    response.content_type = "text/html"

    assert answered(response, make_batch("x")) == SendResult((Rejection(0, "no"),))


def test_results_are_read_one_by_one(make_batch):
    """207: accepted and duplicate are delivered, rejected and retry are named."""
    response = multi(
        result(0, "accepted"),
        result(1, "rejected", reason="expected decimal", path="$.order_total"),
        result(2, "duplicate"),
        result(3, "retry", reason="partition is full"),
        accepted=1,
        **{"Retry-After": "3"},
    )

    assert answered(response, make_batch(*"abcd")) == SendResult(
        rejected=(Rejection(1, "expected decimal", "$.order_total"),),
        retry=(3,),
        retry_after=3.0,
        retry_reason="partition is full",
    )


def test_results_may_all_be_good(make_batch):
    """207 with nothing but accepted and duplicate accepts the batch."""
    response = multi(result(1, "accepted"), result(0, "duplicate"))

    assert answered(response, make_batch("x", "y")) is ACCEPTED


def test_a_pause_belongs_to_what_is_sent_again(make_batch):
    """Retry-After holds up nothing when all that is left goes to the dead letters."""
    response = multi(result(0, "rejected", reason="no"), **{"Retry-After": "3"})

    assert answered(response, make_batch("x")).retry_after is None


def test_answers_are_asked_for_uncompressed(make_batch):
    """A few bytes never become many: what is compressed all the same is not read."""
    body = gzip.compress(b'{"results":[{"index":0,"status":"accepted"}]}')
    collector = Collector(
        web.Response(status=207, body=body, headers={"Content-Encoding": "gzip"})
    )

    [answer] = post(collector, make_batch("x"))

    assert collector.headers[0]["Accept-Encoding"] == "identity"
    assert isinstance(answer, RetryableSinkError)


def test_results_without_a_reason_get_one(make_batch):
    """An event is never refused or sent again without words."""
    response = multi(result(0, "rejected"), result(1, "retry"))

    assert answered(response, make_batch("x", "y")) == SendResult(
        (Rejection(0, "the server gave no reason"),),
        (1,),
        retry_reason="the server wants it again",
    )


def test_an_unknown_status_is_sent_again(make_batch):
    """What a server of tomorrow says about an event does not lose it."""
    response = multi(result(0, "postponed"), result(1, "accepted"))

    assert answered(response, make_batch("x", "y")).retry == (0,)


def test_to_be_sent_again_outweighs_a_refusal(make_batch):
    """An event that is named twice goes to no dead letter while one wants it."""
    response = multi(result(0, "rejected"), result(0, "retry"))

    answer = answered(response, make_batch("x"))

    assert (answer.rejected, answer.retry) == ((), (0,))


def test_events_may_be_counted_instead_of_named(make_batch):
    """A 207 that names the exceptions and counts the rest is whole."""
    response = multi(result(1, "rejected", reason="no"), accepted=2)

    assert answered(response, make_batch(*"abc")) == SendResult((Rejection(1, "no"),))


def test_events_neither_named_nor_counted_are_sent_again(make_batch):
    """Nobody says what became of them, so they are not taken for delivered."""
    response = multi(result(1, "rejected", reason="no"), accepted=1)

    answer = answered(response, make_batch(*"abc"))

    assert answer.rejected == (Rejection(1, "no"),)
    assert answer.retry == (0, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[" * 100_000,
        b'{"results":7}',
        b'{"x":' + b"[" * 100_000,
        b'{"results":[{"status":"accepted"}]}',
        b'{"results":[{"index":true,"status":"accepted"}]}',
        b'{"results":[{"index":1,"status":"accepted"}]}',
        b'{"results":[{"index":-1,"status":"accepted"}]}',
        b'{"results":[{"index":0,"status":"rejected","reason":7}]}',
        b'{"results":[{"index":0,"status":"\xff"}]}',
        b" " * (1 << 21),
    ],
    ids=lambda body: body[:40],
)
def test_results_that_cannot_be_read_are_sent_again(make_batch, body):
    """207 without DESIGN's batch answer says nothing: the batch is sent again."""
    response = web.Response(status=207, body=body, headers={"Retry-After": "2"})

    error = answered(response, make_batch("x"))

    assert isinstance(error, RetryableSinkError)
    assert "207" in str(error)
    assert error.retry_after == 2.0


@pytest.mark.parametrize("status", [400, 402, 406, 409, 410, 415, 422, 451, 499])
def test_refused_for_good(make_batch, status):
    """400, 422 and other 4xx refuse the batch, with what the server says."""
    response = web.json_response({"message": "no such type"}, status=status)

    error = answered(response, make_batch("x"))

    assert type(error) is PermanentSinkError
    assert str(error).startswith(f"the server answered {status}: no such type")


def test_too_large(make_batch):
    """413 says that a smaller batch may be taken."""
    error = answered(web.Response(status=413), make_batch("x"))

    assert type(error) is BatchTooLargeError
    assert str(error) == "the server answered 413"


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "BIZLOG_API_KEY"),
        (403, "BIZLOG_API_KEY"),
        (404, "url"),
        (405, "url"),
        (407, "HTTPS_PROXY"),
        (408, ""),
        (425, ""),
        (429, ""),
        (500, ""),
        (502, ""),
        (503, ""),
        (599, ""),
    ],
)
def test_what_can_be_mended_is_sent_again(make_batch, status, hint):
    """An operator or time mends these while events wait; the reason says how."""
    response = web.Response(status=status, headers={"Retry-After": "7"})

    error = answered(response, make_batch("x"))

    assert isinstance(error, RetryableSinkError)
    assert str(error).startswith(f"the server answered {status}")
    assert hint in str(error)
    assert error.retry_after == 7.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(make_batch, status):
    """The key goes to no other host: the reason names it, and the setting."""
    to = {"Location": "https://user:pw@elsewhere.test/x?sig=s3cret"}
    collector = Collector(web.Response(status=status, headers=to))

    [error] = post(collector, make_batch("x"), api_key=KEY)

    assert isinstance(error, RetryableSinkError)
    assert str(error) == (
        f"the server answered {status} (a redirect to elsewhere.test, which is not "
        "followed: name the new address as url)"
    )
    assert len(collector.requests) == 1


@pytest.mark.parametrize("location", ["", "/elsewhere", "http://[", "http://"])
def test_redirects_to_nowhere(make_batch, location):
    """A redirect without a host that can be read is still named as one."""
    response = web.Response(status=302, headers={"Location": location})

    error = answered(response, make_batch("x"))

    assert "(a redirect, which is not followed" in str(error)


@pytest.mark.parametrize(
    ("said", "pause"),
    [("soon", None), ("-3", 0.0), ("9" * 400, 1e12), ("Fri, 31 Dec 9999", None)],
)
def test_retry_after_of_any_kind(make_batch, said, pause):
    """Garbage is no wish; what is endless stays a number, for the lane to clamp."""
    response = web.Response(status=503, headers={"Retry-After": said})

    assert answered(response, make_batch("x")).retry_after == pause


# What a server says


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"reason": "no"}, ": no"),
        ({"title": "Bad", "detail": "no"}, ": no"),
        ({"error": {"message": "no"}}, ": no"),
        (nested("error", 3, "no"), ": no"),
        (nested("error", 900, "no"), ""),
        ({"detail": [{"input": "Ada"}]}, ""),
        ({"reason": " \n "}, ""),
        ({"reason": 7}, ""),
        ("no", ""),
        (
            {"reason": "one\r\ntwo\tthree \x1b[31m\u202e\u2028four"},
            ": one two three [31m four",
        ),
        ({"reason": "word " * 2000}, ": " + "word " * 40 + ".."),
        ({"reason": "x" * 5000}, ": .."),
    ],
)
def test_a_server_is_quoted_in_one_line(make_batch, body, said):
    """Reasons quote its JSON, bounded, on one line, without control characters."""
    error = answered(web.json_response(body, status=400), make_batch("x"))

    assert str(error) == f"the server answered 400{said}"


def test_pages_are_not_quoted(make_batch):
    """What is not JSON is not for people: only the status is told."""
    page = web.Response(status=502, text="<html>nginx</html>")

    assert str(answered(page, make_batch("x"))) == "the server answered 502"


def test_values_of_events_are_not_quoted(make_record, make_batch):
    """A server that quotes the events it refuses does not bring them into logs."""
    record = make_record(
        customer_name="Ada Lovelace",
        first_name="Ada",
        order="order",
        total=99.5,
        quantity=2,
        items=[{"product_id": "cat-17"}],
        gift=True,
        note=None,
    )
    words = "order_id of order 'cat-17' for Ada Lovelace: 99.5 is not 2 in order.placed"
    hidden = (
        "order_id of [value] '[value]' for [value]: [value] is not 2 in [value].placed"
    )

    for response in (
        web.json_response({"reason": words}, status=400),
        multi(result(0, "rejected", reason=words)),
        multi(result(0, "retry", reason=words)),
    ):
        said = repr(answered(response, make_batch(record)))
        assert hidden in said.replace('\\"', '"')


# Faults on the way


def test_cut_after_the_server_stored(make_batch):
    """Without an answer the batch is sent again, under the same name."""
    stored = []

    async def cut_once(reader, writer):
        head, _ = await read_request(reader)
        stored.append(head)
        if len(stored) > 1:
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    batch = make_batch("order.placed")
    first, second = raw_post(cut_once, batch, batch)

    assert isinstance(first, RetryableSinkError)
    assert "ServerDisconnected" in str(first)
    assert second is ACCEPTED
    name = f"Idempotency-Key: {batch.name}\r\n".encode()
    assert all(name in head for head in stored)
    assert len(stored) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"202 Accepted", SendResult),
        (b"400 Bad Request", PermanentSinkError),
        (b"413 Too Large", BatchTooLargeError),
        (b"207 Multi-Status", RetryableSinkError),
        (b"503 Unavailable", RetryableSinkError),
    ],
)
def test_cut_within_the_answer(make_batch, status, kind):
    """What the status says stands, even when the body breaks off."""

    async def talk(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 " + status + b'\r\nContent-Length: 99\r\n\r\n{"acc')

    [answer] = raw_post(talk, make_batch("x"))

    assert type(answer) is kind


def test_answers_may_come_in_chunks(make_batch):
    """A chunked answer, in pieces of any size, is read as a whole."""

    async def talk(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 207 Multi\r\nTransfer-Encoding: chunked\r\n\r\n")
        body = b'{"results":[{"index":0,"status":"rejected","reason":"no"}]}'
        for at in range(0, len(body), 7):
            piece = body[at : at + 7]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    assert raw_post(talk, make_batch("x")) == [SendResult((Rejection(0, "no"),))]


@pytest.mark.parametrize("status", [b"202 Accepted", b"503 Unavailable"])
def test_garbage_without_end_is_not_read(make_batch, status):
    """Of 64 MB at most a few are taken; then the connection is closed."""
    sent = []
    closed = asyncio.Event()

    async def talk(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 64000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"x" * 1_000_000)
                await writer.drain()
                sent.append(1)
        closed.set()

    async def live():
        async with raw_server(talk) as url:
            sink = HttpSink(url)
            await sink.start()
            answer = await outcome(sink.deliver(make_batch("x")))
            async with asyncio.timeout(20):
                await closed.wait()
            await sink.stop()
            return answer

    answer = asyncio.run(live())

    assert answer is ACCEPTED or str(answer) == "the server answered 503"
    assert len(sent) < 32


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 999999 Huh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "zeroes", "ssh", "status", "header"],
)
def test_what_is_no_http_is_sent_again(make_batch, answer):
    """A port that speaks something else is a fault on the way, nothing more."""

    async def talk(reader, writer):
        await read_request(reader)
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    [error] = raw_post(talk, make_batch("x"))

    assert isinstance(error, RetryableSinkError)
    assert str(error).startswith("no answer from http://127.0.0.1:")


def test_nobody_listens(make_batch):
    """A refused connection is to be tried again, and the reason says so."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def live():
            sink = HttpSink(f"http://127.0.0.1:{port}/secret-path")
            await sink.start()
            error = await outcome(sink.deliver(make_batch("x")))
            await sink.stop()
            return error

        error = asyncio.run(live())

    assert isinstance(error, RetryableSinkError)
    assert f"no answer from http://127.0.0.1:{port}: Client" in str(error)
    assert "secret-path" not in str(error)


def test_connecting_takes_no_longer_than_allowed(make_batch):
    """A connection that does not come about is given up after `connect_timeout`."""

    async def live():
        async with raw_server(keep_silent) as url:
            sink = HttpSink(url.replace("http:", "https:"), connect_timeout=0.05)
            await sink.start()
            error = await outcome(sink.deliver(make_batch("x")))
            await sink.stop()
            return error

    error = asyncio.run(live())

    assert isinstance(error, RetryableSinkError)
    assert "Timeout" in str(error)


@pytest.mark.parametrize("events", [1, 500])
def test_a_call_can_be_called_off(make_record, make_batch, events):
    """A server that is too slow is left at once, and the next call is served."""
    waiting = asyncio.Event()
    left = asyncio.Event()

    async def hang(_):
        waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()

    async def live():
        async with Collector(hang).serve() as url:
            sink = HttpSink(url)
            await sink.start()
            call = asyncio.create_task(
                sink.deliver(big(make_record, make_batch, events))
            )
            async with asyncio.timeout(20):
                await waiting.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await left.wait()
                answer = await sink.deliver(make_batch("x"))
            await sink.stop()
            return answer

    assert asyncio.run(live()) is ACCEPTED


def test_an_early_refusal_is_heard(make_record, make_batch):
    """A server may answer before it has read the body."""

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await keep_silent(reader, writer)

    async def live():
        async with raw_server(talk) as url:
            sink = HttpSink(url, compression="none")
            await sink.start()
            error = await outcome(sink.deliver(big(make_record, make_batch)))
            await sink.stop()
            return error

    assert type(asyncio.run(live())) is BatchTooLargeError


# Start and stop


def test_a_sink_may_start_again(make_batch):
    """After a stop it starts with a new pool, on a new loop as well."""
    sink = HttpSink("http://127.0.0.1:1/")

    async def live():
        await sink.start()
        await sink.start()
        error = await outcome(sink.deliver(make_batch("x")))
        await sink.stop()
        await sink.stop()
        return error

    for _ in range(2):
        assert "no answer" in str(asyncio.run(live()))


def test_a_sink_that_is_not_started_sends_nothing(make_batch):
    """Before `start` and after `stop` a batch waits."""
    sink = HttpSink("https://collector.test/")

    with pytest.raises(RetryableSinkError, match="not started"):
        asyncio.run(sink.deliver(make_batch("x")))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Make a certificate for this machine that nobody has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        "-keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def post_tls(certificate, batch, **options):
    """Deliver one batch to an endpoint with TLS; the outcome."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def live():
        async with Collector().serve(tls=tls) as url:
            sink = HttpSink(url, **options)
            await sink.start()
            answer = await outcome(sink.deliver(batch))
            await sink.stop()
            return answer

    return asyncio.run(live())


def test_a_certificate_can_be_trusted_by_file(make_batch, certificate):
    """`ca_file` names the certificates to trust."""
    file = str(certificate / "cert.pem")

    assert post_tls(certificate, make_batch("x"), ca_file=file) is ACCEPTED


def test_a_certificate_that_nobody_signed_is_refused(make_batch, certificate):
    """TLS is verified without exception; the reason names the setting."""
    error = post_tls(certificate, make_batch("x"))

    assert isinstance(error, RetryableSinkError)
    assert "self-signed certificate" in str(error)
    assert "ca_file" in str(error)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_is_waited_for(tmp_path, content):
    """The sink does not start until `ca_file` can be used."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    sink = HttpSink("https://collector.test/", ca_file=str(file))

    with pytest.raises(RetryableSinkError, match="'ca_file'"):
        asyncio.run(sink.start())


# Proxies


def proxied(monkeypatch, url, batch, **environment):
    """Deliver to an address that is nowhere, with proxies set; what arrived."""
    collector = Collector()

    async def live():
        async with collector.serve() as proxy:
            port = urlsplit(proxy).port
            for name, value in environment.items():
                monkeypatch.setenv(name, value.format(port=port))
            sink = HttpSink(url, allow_insecure=True, connect_timeout=5)
            await sink.start()
            answer = await outcome(sink.deliver(batch))
            await sink.stop()
            return answer

    return asyncio.run(live()), collector.requests


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{port}", "127.0.0.1:{port}"])
def test_the_proxy_of_the_environment_is_used(monkeypatch, make_batch, proxy):
    """HTTP_PROXY carries http://, with or without its scheme."""
    answer, [request] = proxied(
        monkeypatch, "http://collector.invalid/x", make_batch("x"), http_proxy=proxy
    )

    assert answer is ACCEPTED
    assert request.headers["Host"] == "collector.invalid"


def test_a_proxy_may_want_a_password_and_never_tells_it(monkeypatch, make_batch):
    """Credentials of the proxy go to the proxy alone, and into no reason."""
    answer, [request] = proxied(
        monkeypatch,
        "http://collector.invalid/x",
        make_batch("x"),
        http_proxy="http://me:s3cret@127.0.0.1:{port}",
    )

    assert answer is ACCEPTED
    assert request.headers["Proxy-Authorization"] == "Basic bWU6czNjcmV0"

    answer, _ = proxied(
        monkeypatch,
        "http://collector.invalid/x",
        make_batch("x"),
        http_proxy="http://me:s3cret@127.0.0.1:1",
    )

    assert isinstance(answer, RetryableSinkError)
    assert "s3cret" not in str(answer)


def test_no_proxy_is_kept(monkeypatch, make_batch):
    """A host in NO_PROXY is reached directly."""
    answer, requests = proxied(
        monkeypatch,
        "http://collector.invalid/x",
        make_batch("x"),
        http_proxy="http://127.0.0.1:{port}",
        no_proxy="collector.invalid",
    )

    assert isinstance(answer, RetryableSinkError)
    assert not requests


def test_this_machine_needs_no_proxy(monkeypatch, make_batch):
    """Loopback is never reached by way of a proxy, NO_PROXY or not."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    collector = Collector()

    assert post(collector, make_batch("x")) == [ACCEPTED]


def test_a_proxy_that_speaks_no_http_is_named(monkeypatch):
    """SOCKS cannot be used: the sink does not start, and says which setting it is."""
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    sink = HttpSink("https://collector.test/")

    with pytest.raises(RetryableSinkError, match="HTTPS_PROXY"):
        asyncio.run(sink.start())


def test_netrc_plays_no_part(monkeypatch, tmp_path, make_batch):
    """No password of ~/.netrc is sent along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    collector = Collector()

    post(collector, make_batch("x"))

    assert "Authorization" not in collector.headers[0]


def test_cookies_play_no_part(make_batch):
    """What one answer sets, the next request does not bring back."""
    first = accepted()
    first.set_cookie("session", "1")
    collector = Collector(first)

    post(collector, make_batch("x"), make_batch("x"))

    assert "Cookie" not in collector.headers[1]


# Settings


def refusal(url="https://collector.test/", **options):
    """Have a sink refused; the problems."""
    with pytest.raises(ConfigurationError) as caught:
        HttpSink(url, **options)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://collector.test/",
        "http://10.0.0.1/",
        "http://localhost.test/",
        "http://127.0.0.1.test/",
        "http://0.0.0.0/",
        "http://[fe80::1]/",
        "HTTP://collector.test/",
    ],
)
def test_plain_http_stays_on_this_machine(url):
    """http:// to another machine is refused unless it is asked for by name."""
    assert "allow_insecure=true" in refusal(url)
    assert HttpSink(url, allow_insecure=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.9.9.9:8080/x",
        "http://localhost:1/",
        "http://LOCALHOST./",
        "http://[::1]:1/",
        "https://collector.test",
    ],
)
def test_loopback_and_tls_need_no_asking(url):
    """127/8, ::1 and localhost are this machine."""
    assert HttpSink(url).name == "http"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "collector.test/x",
        "ftp://collector.test/",
        "https:///events",
        "https:",
        "https://[::1",
        "https://collector.test:port/",
        "https://collector.test:99999/",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    """An address has http or https, a host and a port that is a number."""
    assert "option 'url'" in refusal(url)


@pytest.mark.parametrize("user", ["s3cret@", "me:s3cret@", "@"])
def test_an_address_holds_no_password(user):
    """Logs show addresses, so a user or password is refused in them."""
    assert "BIZLOG_API_KEY" in refusal(f"https://{user}collector.test/")


def test_an_address_has_no_fragment():
    """What stands behind a '#' no server would see."""
    assert "fragment" in refusal("https://collector.test/a#b")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"api_key": "two s3cret words"}, "the API key holds spaces"),
        ({"api_key": "s3cret\r\nX-Y: z"}, "the API key holds spaces"),
        ({"api_key": "s3cretä"}, "the API key holds spaces"),
        ({"api_key": "s3cret", "api_key_file": "f"}, "give one of"),
        ({"api_key": "s3cret", "headers": {"Authorization": "x"}}, "give one of"),
        ({"headers": {"X Y": "s3cret"}}, "'X Y' is no header"),
        ({"headers": {"X-Y": "s3cret\r\nZ: 1"}}, "'X-Y' is no header"),
        ({"headers": {"content-TYPE": "s3cret"}}, "content-TYPE is set by the sink"),
        ({"format": "xml"}, "option 'format'"),
        ({"connect_timeout": 0}, "'connect_timeout' must be greater than 0, got 0"),
        ({"connect_timeout": float("nan")}, "got nan"),
        ({"max_in_flight": 0}, "'max_in_flight' must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, problem):
    """Each fault is named by its setting, and no secret is shown."""
    assert problem in refusal(**options)


def test_all_faults_are_listed_at_once():
    """Whoever mends settings sees everything that is wrong."""
    assert refusal("ftp://x/", max_in_flight=0).startswith("2 settings cannot work")


def test_a_sink_may_have_a_name():
    """`name` stands in ledger and metrics instead of `http`."""
    assert HttpSink("https://collector.test/", name="audit").name == "audit"


@pytest.mark.parametrize(
    ("module", "extra", "options"),
    [("aiohttp", "http", {}), ("zstandard", "zstd", {"compression": "zstd"})],
)
def test_a_missing_package_names_its_extra(monkeypatch, module, extra, options):
    """The sink says at once which extra has to be installed."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError) as caught:
        HttpSink("https://collector.test/", **options)

    assert caught.value.extra == extra


def test_the_module_loads_without_aiohttp():
    """What reads settings pays nothing for a sink it does not build."""
    code = "import sys, bizlog_handlers.http; sys.exit('aiohttp' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}

    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_an_unknown_version_is_not_told(monkeypatch, make_batch):
    """Frozen into a program without metadata, bizlog is just bizlog."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("bizlog_handlers.http.version", missing)
    collector = Collector()

    post(collector, make_batch("x"))

    assert collector.headers[0]["User-Agent"] == "bizlog"


# Sink URLs


def of_url(text):
    """Build a sink the way a sink URL is built."""
    return HttpSink.from_url(urlsplit(text, allow_fragments=False))


def post_url(collector, batch, query):
    """Deliver one batch by the sink of a sink URL; the outcome."""

    async def live():
        async with collector.serve() as url:
            sink = of_url(f"{url}{query}")
            await sink.start()
            answer = await outcome(sink.deliver(batch))
            await sink.stop()
            return answer

    return asyncio.run(live())


def test_a_sink_url_parts_its_query(make_batch, make_record):
    """Options of the sink are taken out; the rest stays the endpoint's, untouched."""
    collector = Collector()
    query = "?tenant=a%2Bb&compression=none&x&format=json&max_in_flight=2&tenant="

    answer = post_url(collector, big(make_record, make_batch, 10), query)

    assert answer is ACCEPTED
    [request] = collector.requests
    assert request.raw_path == "/events/batch?tenant=a%2Bb&x&tenant="
    assert request.headers["Content-Type"] == "application/json"
    assert "Content-Encoding" not in request.headers


def test_options_of_a_sink_url_have_types():
    """Text becomes numbers and truth values."""
    sink = of_url(
        "http://collector.test/?allow_insecure=true&connect_timeout=2.5"
        "&max_in_flight=4&name=audit"
    )

    assert (sink.name, sink.max_in_flight) == ("audit", 4)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("compression=br", "expected one of 'none', 'gzip', 'zstd'"),
        ("max_in_flight=many", "option 'max_in_flight'"),
        ("api_key=s3cret", "option 'api_key': may hold a secret"),
        ("api%5Fkey=s3cret", "option 'api_key': may hold a secret"),
        ("headers=s3cret", "option 'headers': may hold a secret"),
    ],
)
def test_a_sink_url_that_cannot_work_is_refused(query, problem):
    """The fault is named by its option; a secret is refused and not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        of_url(f"https://collector.test/?{query}")

    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_table_has_every_option(monkeypatch):
    """In bizlog.toml key and headers have their place, and `url` its whole query."""
    monkeypatch.setattr("bizlog.sinks.load_sink_class", lambda _: HttpSink)

    sink = make_sink(
        {
            "type": "http",
            "url": "https://collector.test/?name=x",
            "api_key": KEY,
            "headers": {"X-Tenant": "contoso"},
        }
    )

    assert sink.name == "http"


# The public face


@pytest.fixture
def fresh_process(monkeypatch, tmp_path):
    """Start without a process-wide client, in an empty folder, and end it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    yield
    bizlog.shutdown(timeout=5)


def test_from_a_call_to_the_collector(fresh_process):
    """What a service logs arrives at an endpoint, and the ledger says so."""
    collector = Collector()

    async def live():
        async with collector.serve() as url:
            sink = of_url(f"{url}?format=json")
            bizlog.configure(source="shop", sinks=[sink])
            log = bizlog.get_logger()
            for number in range(20):
                log.info("order.placed", order_id=str(number))
            assert await asyncio.to_thread(bizlog.flush, timeout=20)
            await asyncio.to_thread(bizlog.shutdown, timeout=5)

    asyncio.run(live())

    events = [event for body in collector.bodies for event in json.loads(body)]
    assert [event["order_id"] for event in events] == [str(n) for n in range(20)]
    assert bizlog.ledger().sinks["http"].delivered == 20


IMPORTS = """
import asyncio
import concurrent.futures.thread  # bizlog's own executor has it
import sys
from bizlog.exceptions import RetryableSinkError
from bizlog.sinks import Batch, Record
from bizlog_handlers.http import HttpSink

sink = HttpSink("http://127.0.0.1:9/events")
before = set(sys.modules)

async def main():
    await sink.start()
    record = Record(b"{}" * 40_000, "id", "order.placed", "", 1)
    try:
        await sink.deliver(Batch("journal", 0, 0, [record]))
    except RetryableSinkError:
        pass
    await sink.stop()

asyncio.run(main())
print(sorted(name for name in set(sys.modules) - before))
"""


def test_nothing_is_imported_after_the_sink_is_made() -> None:
    """A child forked while bizlog's thread imports something would wait without end."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
