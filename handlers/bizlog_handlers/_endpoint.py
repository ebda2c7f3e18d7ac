"""
Where an HTTP sink posts to, and what it may tell about that.

Checked once, when the sink is built: an address that works, no secret in it, and no
plain HTTP beyond this machine unless it is asked for by name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote_plus, urlsplit
from urllib.request import getproxies, proxy_bypass

from bizlog.exceptions import RetryableSinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# What the sink says itself about each request.
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "idempotency-key",
        "transfer-encoding",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_KEY = re.compile(r"[\x21-\x7e]*")


def url_problems(text: str, *, allow_insecure: bool) -> Iterator[str]:
    """Say, in a sentence each, why an address cannot be posted to."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        yield "option 'url': is malformed"
        return
    if url.scheme not in {"http", "https"} or not url.hostname:
        yield "option 'url': expected an address such as https://HOST/events/batch"
        return
    if "@" in url.netloc:
        yield (
            "option 'url': holds a user or password, which logs would show; give the "
            "key as BIZLOG_API_KEY, api_key or api_key_file"
        )
    if url.fragment:
        yield "option 'url': has a fragment ('#'), which no server would see"
    if url.scheme == "http" and not allow_insecure and not is_loopback(url):
        yield (
            "option 'url': http:// sends events and key readable for everyone on the "
            "way; use https://, or ask for it with allow_insecure=true"
        )


def header_problems(headers: Mapping[str, str]) -> Iterator[str]:
    """Say why headers cannot be sent; never shows their values."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            yield f"option 'headers': {name!r:.100} is no header with a value in ASCII"
        elif name.lower() in _OWN_HEADERS:
            yield f"option 'headers': {name} is set by the sink itself"


def is_key(text: str) -> bool:
    """Whether a text can travel in the Authorization header."""
    return _KEY.fullmatch(text) is not None


def is_loopback(url: SplitResult) -> bool:
    """Whether an address never leaves this machine."""
    host = (url.hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(text: str) -> str:
    """Name an address without path and query, which may be secret."""
    url = urlsplit(text)
    return f"{url.scheme}://{url.netloc}"


def split_options(
    query: str, known: Collection[str]
) -> tuple[str, list[tuple[str, str]]]:
    """
    Part a sink URL's query into the endpoint's own and the sink's options.

    Args:
        query: As it stands in the sink URL.
        known: Names of the sink's options.

    Returns:
        The endpoint's query, untouched, and the options by name.
    """
    rest: list[str] = []
    options: list[tuple[str, str]] = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote_plus(name) in known:
            options.append((unquote_plus(name), unquote_plus(value)))
        else:
            rest.append(part)
    return "&".join(rest), options


def proxy_for(text: str) -> str | None:
    """
    Look up the proxy of an address: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    This machine is never reached by way of a proxy.

    Raises:
        RetryableSinkError: The proxy does not speak HTTP.
    """
    url = urlsplit(text)
    proxy = getproxies().get(url.scheme)
    if not proxy or is_loopback(url) or proxy_bypass(url.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.lower().startswith(("http://", "https://")):
        raise RetryableSinkError(
            f"{url.scheme.upper()}_PROXY does not name an HTTP proxy: mend it, or list "
            "the host in NO_PROXY"
        )
    return proxy
