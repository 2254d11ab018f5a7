"""Raw HTTP replies for the client of a chat API: status lines, lengths, chunks, headers, bombs, ends that come early.

A server on loopback answers each request with the bytes that are given, and closes the connection.
"""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final

from nanosft.errors import ProviderError
from nanosft.generate.provider import parse_answer
from nanosft.generate.provider.http import open_http
from nanosft.generate.provider.transport import HttpReply, LostError, NotSentError

_ANSWER: Final = b'{"choices":[{"message":{"content":"{}"},"finish_reason":"stop"}],"usage":{"cost":0.1},"model":"m"}'
_MAX_BODY_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 5.0
_BOMB: Final = gzip.compress(bytes(8 * _MAX_BODY_BYTES))

EXAMPLES: Final[dict[str, bytes]] = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Generation-Id: gen-1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER),
    "http chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"20\r\n%s\r\n%x;name=value\r\n%s\r\n0\r\nX-Trailer: a\r\n\r\n" % (_ANSWER[:32], len(_ANSWER) - 32, _ANSWER[32:]),
    "http error": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n"
    b'{"error":{"message":"slow down","code":429}}',
    "http bomb": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(_BOMB), _BOMB),
    "http endless": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n%s\r\n" % (b"[" * 0x8000),
}
"""A reply of each kind. Of the endless one the last 32 KiB are sent again until the client hangs up."""


@contextmanager
def replying() -> Iterator[dict[str, Callable[[bytes], object]]]:
    """A reader of raw replies for each of the examples; the client and its server live as long as the context."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nanosft-fuzz-http")
    thread.start()
    exchange = _Exchange()

    def make_reader(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> None:
            asked = exchange.ask(data, is_endless=name == "http endless")
            reply = asyncio.run_coroutine_threadsafe(asyncio.wait_for(asked, 3 * _TIMEOUT_S), loop).result()
            assert len(reply.body) <= _MAX_BODY_BYTES, "the body has no bound"
            parse_answer(reply.body, model="m")

        return read

    asyncio.run_coroutine_threadsafe(exchange.open(), loop).result()
    try:
        yield {name: make_reader(name) for name in EXAMPLES}
    finally:
        asyncio.run_coroutine_threadsafe(exchange.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Exchange:
    """A client and the server that it asks, one reply at a time."""

    def __init__(self) -> None:
        self._reply = b""
        self._is_endless = False
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        await self._stack.enter_async_context(server)
        self._send = await self._stack.enter_async_context(
            open_http(
                f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                key="",
                num_connections=1,
                connect_timeout_s=_TIMEOUT_S,
                read_timeout_s=_TIMEOUT_S,
                max_body_bytes=_MAX_BODY_BYTES,
            )
        )

    async def close(self) -> None:
        await self._stack.aclose()

    async def ask(self, data: bytes, *, is_endless: bool) -> HttpReply:
        self._reply, self._is_endless = data, is_endless
        try:
            return await self._send("POST", "/chat/completions", b"{}", {"connection": "close"})
        except (LostError, NotSentError) as exc:
            raise ProviderError(str(exc)) from exc

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._reply)
            for _ in range(64 * self._is_endless):  # of 32 KiB each: twice what the client takes
                writer.write(self._reply[-0x8006:])
                await writer.drain()
            await writer.drain()
        writer.close()
