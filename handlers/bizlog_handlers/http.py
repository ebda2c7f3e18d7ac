"""
Events posted over HTTP, in batches: to a bizlog collector or any endpoint of its kind.

A batch is one POST of JSON lines or of a JSON array, made of the encoded events as they
are. It carries the batch's stable name as its Idempotency-Key, so a server that keeps
these can tell a batch that is sent again, after a cut or a crash, from a new one.

TLS is always verified, redirects are not followed, and cookies and ~/.netrc play no
part. Neither the API key nor the address's path and query are ever shown.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bizlog.exceptions import (
    ConfigurationError,
    MissingExtraError,
    RetryableSinkError,
)
from bizlog.sinks import BaseSink
from bizlog_handlers._answers import Answer, parse_retry_after, result_of
from bizlog_handlers._codecs import Compression, codec_for
from bizlog_handlers._endpoint import (
    header_problems,
    is_key,
    origin,
    proxy_for,
    split_options,
    url_problems,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from urllib.parse import SplitResult

    import aiohttp

    from bizlog.sinks import Batch, Record, SendResult

Format: TypeAlias = Literal["ndjson", "json"]
Headers: TypeAlias = Mapping[str, str]

_KIB = 1024

_CONTENT_TYPES = {"ndjson": "application/x-ndjson", "json": "application/json"}

# A body that fits into one packet anyway travels as it is.
_MIN_COMPRESSED = _KIB
# From this size on a thread compresses: 64 KiB take 0.5 ms as gzip, 900 KiB 6.7 ms.
_MIN_THREADED = 64 * _KIB

# Read of an answer: 500 results need 75 KiB and more where reasons are long.
_MAX_ANSWER = _KIB * _KIB

# Shorter than servers keep idle connections (uvicorn: 5 s), so that no batch meets one
# that is just being closed.
_KEEP_ALIVE_SECONDS = 4.0


class HttpSink(BaseSink):
    """
    Post events to an HTTP endpoint; the URL is `https://HOST/PATH?option=value`.

    In a sink URL the options below are taken out of the query, and the rest of it stays
    the endpoint's. Given as `HttpSink(url)`, or as `url` in a table, the whole query is
    the endpoint's. `api_key` and `headers` may hold secrets and cannot stand in a URL.

    An answer of 2xx accepts, and 207 names what became of each event. 400 and 422
    refuse the batch, 413 its size. Redirects, 401, 403, 404, 405, 408, 425, 429, 5xx
    and whatever cuts a connection leave it to be sent again, after Retry-After if the
    server names one.

    The proxy is that of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, never for this machine.

    Args:
        url: Where to post; http:// to this machine only.
        api_key: Sent as `Authorization: Bearer KEY`. None takes BIZLOG_API_KEY, an
            empty text sends none.
        api_key_file: A file that holds the key instead; read when the sink starts and
            again after a 401 or 403.
        format: `ndjson` posts JSON lines, `json` an array.
        compression: `gzip`, `zstd` or `none`; bodies below 1 KiB are not compressed.
        headers: Sent with each request.
        allow_insecure: Allow http:// to other machines.
        ca_file: Certificates (PEM) to trust instead of the system's.
        connect_timeout: Seconds to connect, TLS included.
        max_in_flight: Most requests at the same time.
        name: Short name in ledger and metrics; `http` by default.

    Raises:
        ConfigurationError: The address, a header or a limit cannot work.
        MissingExtraError: aiohttp, or zstandard where asked for, is not installed.
    """

    max_events = 500
    # Together with what stands between the events: 900 KiB.
    max_bytes = 900 * _KIB - (max_events + 1)
    url_option = "url"

    def __init__(  # each an option of its own in URL and table
        self,
        url: str,
        *,
        api_key: str | None = None,
        api_key_file: str | None = None,
        format: Format = "ndjson",  # noqa: A002 - the option's name in the URL
        compression: Compression = "gzip",
        headers: Headers | None = None,
        allow_insecure: bool = False,
        ca_file: str | None = None,
        connect_timeout: float = 5.0,
        max_in_flight: int = 1,
        name: str | None = None,
    ) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._key_file = api_key_file
        if api_key is None and not api_key_file and not self._is_authorized():
            api_key = os.environ.get("BIZLOG_API_KEY")
        self._key = (api_key or "").strip()
        self._format: Format = format
        self._compression: Compression = compression
        self._ca_file = ca_file
        self._connect_timeout = connect_timeout
        self.max_in_flight = max_in_flight
        self.name = name or type(self).name
        if problems := list(self._problems(allow_insecure=allow_insecure)):
            raise ConfigurationError(problems)
        codec_for(compression)  # here, where a missing extra stops the start
        _load_aiohttp()
        # Here and not in `start`: it imports. A child that is forked while bizlog's
        # thread imports a module waits for that module without end.
        self._user_agent = _user_agent()
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    def __repr__(self) -> str:
        return f"HttpSink({origin(self._url)!r})"

    def _is_authorized(self) -> bool:
        return any(name.lower() == "authorization" for name in self._headers)

    def _problems(self, *, allow_insecure: bool) -> Iterator[str]:
        yield from url_problems(self._url, allow_insecure=allow_insecure)
        yield from header_problems(self._headers)
        keys = [bool(self._key), bool(self._key_file), self._is_authorized()]
        if sum(keys) > 1:
            yield "give one of api_key, api_key_file and an Authorization header"
        if not is_key(self._key):
            yield "the API key holds spaces or characters beyond ASCII"
        if self._format not in _CONTENT_TYPES:
            yield f"option 'format': expected 'ndjson' or 'json', got {self._format!r}"
        if not self._connect_timeout > 0:
            yield (
                "option 'connect_timeout' must be greater than 0, "
                f"got {self._connect_timeout}"
            )
        if self.max_in_flight < 1:
            yield f"option 'max_in_flight' must be at least 1, got {self.max_in_flight}"

    @classmethod
    def from_url(cls, url: SplitResult) -> BaseSink:
        """
        Build the sink from a URL: options of the sink are taken out of its query.

        Raises:
            ConfigurationError: An option has the wrong type or may hold a secret, or
                the address cannot work.
        """
        query, found = split_options(url.query, _URL_OPTIONS | _NOT_IN_URLS)
        options: dict[str, Any] = dict(found)
        if secret := _NOT_IN_URLS & options.keys():
            raise ConfigurationError(
                f"option {min(secret)!r}: may hold a secret, which does not belong in "
                "a URL; set BIZLOG_API_KEY, or api_key_file"
            )
        return cls.from_options({**options, "url": url._replace(query=query).geturl()})

    async def start(self) -> None:
        """
        Read key and certificates and open the pool; connects to nothing yet.

        May be called again after it failed and after `stop()`.

        Raises:
            RetryableSinkError: A file cannot be read, or the proxy is no HTTP proxy.
        """
        if self._session is None:
            context = await asyncio.to_thread(self._prepare)
            self._session = self._new_session(context)

    def _prepare(self) -> ssl.SSLContext:
        self._read_key()
        self._proxy = proxy_for(self._url)
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise _unreadable("ca_file", error) from None

    def _read_key(self) -> None:
        if self._key_file is None:
            return
        try:
            key = Path(self._key_file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise _unreadable("api_key_file", error) from None
        if not key or not is_key(key):
            raise RetryableSinkError(
                "option 'api_key_file': the file holds no key: one word in ASCII"
            )
        self._key = key

    def _new_session(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415  # see _load_aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self.max_in_flight,
                ssl=context,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
            ),
            # The engine limits the whole call.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            headers={"User-Agent": self._user_agent, **self._headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            # Answers are read up to a limit, which compression would lift.
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Post one batch.

        Args:
            batch: The events; their number and size are not checked again.

        Returns:
            What the server says became of each event.

        Raises:
            BatchTooLargeError: The server may take a smaller batch.
            PermanentSinkError: The server refuses the batch for good.
            RetryableSinkError: There is no answer, or it asks to send again.
        """
        key = self._key
        body, encoding = await self._encoded(batch.records)
        headers = {
            "Accept-Encoding": "identity",
            "Content-Type": _CONTENT_TYPES[self._format],
            "Idempotency-Key": batch.name,
        }
        if encoding != "none":
            headers["Content-Encoding"] = encoding
        if key:
            headers["Authorization"] = f"Bearer {key}"
        answer = await self._post(body, headers)
        if answer.status in _UNAUTHORIZED:
            await asyncio.to_thread(self._read_key)
        return result_of(answer, batch.records, key)

    async def _encoded(
        self, records: Sequence[Record]
    ) -> tuple[bytes | memoryview, Compression]:
        body = _joined(records, self._format)
        if self._compression == "none" or len(body) < _MIN_COMPRESSED:
            return body, "none"
        # A codec of its own for each body: threads may not share one.
        encode = codec_for(self._compression).encode
        if len(body) < _MIN_THREADED:
            return encode(body), self._compression
        return await asyncio.to_thread(encode, body), self._compression

    async def _post(self, body: bytes | memoryview, headers: dict[str, str]) -> Answer:
        if self._session is None:
            raise RetryableSinkError("the sink is not started")
        import aiohttp  # noqa: PLC0415  # see _load_aiohttp

        try:
            async with self._session.post(
                self._url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                return await _read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RetryableSinkError(
                f"no answer from {origin(self._url)}: {_fault(error)}"
            ) from None


_URL_OPTIONS = frozenset(
    {
        "allow_insecure",
        "api_key_file",
        "ca_file",
        "compression",
        "connect_timeout",
        "format",
        "max_in_flight",
        "name",
    }
)
_NOT_IN_URLS = frozenset({"api_key", "headers"})
_UNAUTHORIZED = frozenset({401, 403})


def _load_aiohttp() -> None:
    # Not later: while the interpreter exits, nothing can be imported safely.
    try:
        import_module("aiohttp")
    except ImportError:
        raise MissingExtraError("HttpSink", "http") from None


def _user_agent() -> str:
    try:
        return f"bizlog/{version('bizlog')}"
    except PackageNotFoundError:  # frozen into a program without its metadata
        return "bizlog"


def _unreadable(option: str, error: Exception) -> RetryableSinkError:
    return RetryableSinkError(
        f"option {option!r}: the file cannot be used: {_fault(error)}"
    )


def _joined(records: Sequence[Record], format: Format) -> bytes:  # noqa: A002  # as there
    events = [record.data for record in records]
    if format == "json":
        return b"[%b]" % b",".join(events)
    return b"\n".join([*events, b""])


async def _read(response: aiohttp.ClientResponse) -> Answer:
    headers = response.headers
    pause = parse_retry_after(headers.get("Retry-After", ""), time.time())
    body = await _bounded(response.content)
    return Answer(response.status, body, pause, headers.get("Location"))


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """Read a body; None once it is too long, or when it is cut."""
    import aiohttp  # noqa: PLC0415  # see _load_aiohttp

    parts: list[bytes] = []
    left = _MAX_ANSWER
    try:
        async for part in content.iter_any():
            parts.append(part)
            left -= len(part)
            if left < 0:
                return None
    except aiohttp.ClientError:
        return None  # the status has come, and stands
    return b"".join(parts)


def _fault(error: Exception) -> str:
    """Name a fault without addresses, which may hold what is secret."""
    kind = type(error).__name__
    certificate = getattr(error, "certificate_error", None)
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return f"{kind}: {certificate.verify_message} (is ca_file set?)"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{kind}: {error.strerror}"
    return kind
