"""HTTP to a chat API: the one place with a connection.

`httpx` over aiohttp's transport: at 256 requests in flight httpx's own costs 22 ms of CPU a row, this one 0.2 ms.
"""

import asyncio
import os
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import httpx
from aiohttp import ClientConnectorError, ClientError, ConnectionTimeoutError
from aiohttp.http_exceptions import BadHttpMessage
from httpx_aiohttp import AiohttpTransport

from nanosft.errors import ConfigError
from nanosft.generate.provider.transport import (
    HttpReply,
    LostError,
    NotSentError,
    Post,
    Send,
    find_generation_id,
    hide_secret,
    make_post,
    match_secret,
)

_KEEPALIVE_S: Final = 20.0
MAX_BODY_BYTES: Final = 1 << 25
"""Of an answer, decompressed: a hundred times the longest conversation."""
_MAX_REASON_CHARS: Final = 200


@asynccontextmanager
async def open_http(
    base_url: str,
    *,
    key: str,
    num_connections: int,
    connect_timeout_s: float,
    read_timeout_s: float,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> AsyncIterator[Send]:
    """A `Send` over HTTP. `HTTP_PROXY` and its like are honoured.

    Args:
        base_url: Without `/chat/completions`.
        key: Sent as a bearer token; empty: none is.
        num_connections: Most open connections.
        connect_timeout_s: Until the connection stands.
        read_timeout_s: Between two pieces of the answer; of one that is not streamed, nearly all of it.
        max_body_bytes: A longer answer counts as lost.

    Raises:
        ConfigError: The URL is none, or that of the proxy is not.
    """
    url = _checked_url(base_url)
    headers = {"content-type": "application/json", "accept-encoding": "gzip, deflate", "x-title": "nanosft"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    timeout = httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=None)
    options = {"timeout": timeout.as_dict()}
    secret = match_secret(key)
    limits = httpx.Limits(max_connections=num_connections, keepalive_expiry=_KEEPALIVE_S)
    # The transport itself: httpx's client above it would add cookies, redirects and 0.1 ms a request.
    try:
        transport = AiohttpTransport(limits=limits, proxy=_proxy_of(httpx.URL(url)))
    except (httpx.InvalidURL, ValueError) as exc:
        raise ConfigError(f"the proxy that a variable names (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY): {exc}") from exc

    async def send(method: str, path: str, body: bytes, more: Mapping[str, str]) -> HttpReply:
        request = httpx.Request(method, url + path, headers={**headers, **more}, content=body, extensions=options)
        reply: httpx.Response | None = None
        content = bytearray()
        try:
            reply = await transport.handle_async_request(request)
            try:
                await _read(reply, content, max_body_bytes, read_timeout_s)
            finally:
                await reply.aclose()
        except (httpx.HTTPError, OSError, ClientError, BadHttpMessage, ValueError, LostError) as exc:
            failed = _lost_or_not_sent(exc, secret, connect_timeout_s, read_timeout_s)
            if isinstance(failed, LostError) and reply is not None:
                failed.generation_id = find_generation_id(reply.headers, bytes(content))
            raise failed from exc if hide_secret(str(exc), secret) == str(exc) else None
        return HttpReply(reply.status_code, reply.headers, bytes(content))

    async with transport:
        yield send


@asynccontextmanager
async def open_post(
    base_url: str, *, key: str, num_connections: int, connect_timeout_s: float, read_timeout_s: float
) -> AsyncIterator[Post]:
    """A `Post` over HTTP: `open_http` that asks for chat completions alone."""
    async with open_http(
        base_url,
        key=key,
        num_connections=num_connections,
        connect_timeout_s=connect_timeout_s,
        read_timeout_s=read_timeout_s,
    ) as send:
        yield make_post(send)


async def _read(reply: httpx.Response, content: bytearray, max_body_bytes: int, timeout_s: float) -> None:
    """Append the body, decompressed; raises LostError where it is longer than any answer, or stops coming.

    The transport's own limit is not enough: where a later chunk's size is none, it hangs up and tells nobody.
    """
    pieces = reply.aiter_bytes()
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                piece = await anext(pieces, None)
        except TimeoutError as exc:
            raise LostError(_say_silent(timeout_s), timed_out=True) from exc
        if piece is None:
            return
        content += piece
        if len(content) > max_body_bytes:
            raise LostError(f"the answer has more than {max_body_bytes >> 20} MiB", timed_out=False)


def _proxy_of(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for the URL."""
    if urllib.request.proxy_bypass(url.host):
        return None
    proxy = urllib.request.getproxies().get(url.scheme)
    return httpx.Proxy(proxy) if proxy else None


def _lost_or_not_sent(
    exc: Exception, secret: re.Pattern[bytes] | None, connect_timeout_s: float, read_timeout_s: float
) -> Exception:
    if isinstance(exc, LostError):
        return exc
    if not isinstance(exc, httpx.HTTPError):  # what the transport does not map
        reason = " ".join(hide_secret(str(exc), secret).split())[:_MAX_REASON_CHARS] or type(exc).__name__
        return LostError(f"the connection broke ({reason})", timed_out=False)
    # The transport maps a connection that broke after sending to ConnectTimeout: only the cause tells them apart.
    if isinstance(exc.__cause__, ClientConnectorError):
        failed = exc.__cause__
        return NotSentError(f"cannot connect to {failed.host}:{failed.port}: {_reason(failed.os_error)}")
    if isinstance(exc.__cause__, ConnectionTimeoutError):
        return NotSentError(f"no connection within {connect_timeout_s:g} s")
    if isinstance(exc, httpx.ReadTimeout | httpx.WriteTimeout):
        return LostError(_say_silent(read_timeout_s), timed_out=True)
    return LostError(f"the connection broke ({hide_secret(str(exc), secret) or type(exc).__name__})", timed_out=False)


def _say_silent(read_timeout_s: float) -> str:
    return f"no answer within {read_timeout_s:g} s"


def _reason(exc: OSError) -> str:
    """What the system says; asyncio puts a sentence of its own in its place, a resolver has numbers of its own."""
    return os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or str(exc)


def _checked_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"--base-url {base_url!r} is no http:// or https:// URL")
    return base_url.rstrip("/")
