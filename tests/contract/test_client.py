"""One suite over the client: a fake `Post`, and real HTTP on loopback."""

import asyncio
import gzip
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from itertools import repeat
from typing import Any

import orjson
import pytest

from nanosft.errors import ConfigError, CreditError, NanosftError, ProviderError
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    Prices,
    open_post,
    read_generation_cost,
    speaks_openrouter,
)
from nanosft.generate.provider.transport import HttpReply, LostError, NotSentError, parse_retry_after

REQUEST = ChatRequest([{"role": "user", "content": "hi"}], {"type": "json_object"}, 64, 0.5, 7, num_tokens=100)
OK = HttpReply(200, {}, b'{"choices":[{"finish_reason":"stop","message":{"content":"{}"}}],"usage":{"cost":0.5}}')


class Fake:
    """A `Post` that gives one prepared reply after the other, and remembers what it was sent."""

    def __init__(self, *replies: HttpReply | Exception) -> None:
        self.replies = list(replies)
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, body: bytes) -> HttpReply:
        self.bodies.append(orjson.loads(body))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Asked:
    """A client over a fake, with everything that can be told of one `ask`."""

    def __init__(self, *replies: HttpReply | Exception, **options: Any) -> None:
        self.fake = Fake(*replies)
        self.limit = AdaptiveLimit(8)
        self.waits: list[float] = []
        self.failures: list[Answer] = []
        self.client = ChatClient(
            self.fake,
            ClientOptions(**{"models": ("a",), "endpoint": "http://x/v1", "max_retries": 4, **options}),
            limit=self.limit,
            random_uniform=self.draw,
        )

    def draw(self, low: float, high: float) -> float:
        self.waits.append(high)
        return low

    def run(self) -> Answer:
        return asyncio.run(self.client.ask(REQUEST, on_failure=self.failures.append))


def status(code: int, message: str = "no", **headers: str) -> HttpReply:
    return HttpReply(code, headers, orjson.dumps({"error": {"message": message, "code": code}}))


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 529])
def test_a_status_that_may_pass_is_asked_again_and_is_no_failure_that_cost(code):
    asked = Asked(status(code), status(code), OK)
    assert asked.run().usage.cost_usd == 0.5
    assert (len(asked.fake.bodies), asked.failures) == (3, [])


def test_the_jitter_is_full_and_doubles_up_to_a_minute():
    asked = Asked(*[status(500)] * 12, OK, max_retries=12)
    asked.run()
    assert asked.waits == [0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_no_wait_is_shorter_than_retry_after_in_seconds_or_as_a_date():
    for value in ("0.2", formatdate(time.time() + 1.5, usegmt=True)):
        asked = Asked(HttpReply(429, {"retry-after": value}, b"{}"), OK)
        started_s = time.monotonic()
        asked.run()
        assert time.monotonic() - started_s >= 0.2


def test_a_retry_after_beyond_the_rows_time_is_not_waited_for():
    late = HttpReply(429, {"retry-after": "3600"}, b"{}")
    with pytest.raises(ProviderError, match="HTTP 429"):
        Asked(late, max_wait_s=60).run()
    assert Asked(late, OK, models=("a", "b"), max_wait_s=60).run().usage.cost_usd == 0.5


def test_retry_after_is_read_in_both_forms_and_nonsense_is_none():
    assert parse_retry_after("12", now_s=0) == 12
    assert parse_retry_after(formatdate(1000, usegmt=True), now_s=940) == 60
    assert parse_retry_after(formatdate(1000, usegmt=True), now_s=2000) == 0
    assert parse_retry_after("soon", now_s=0) == parse_retry_after(None, now_s=0) == 0


@pytest.mark.parametrize("code", [401, 402, 403])
def test_no_credit_and_a_bad_key_end_the_run_at_once(code):
    asked = Asked(status(code, "Key sk-secret is bad"), secret="sk-secret")
    with pytest.raises(CreditError, match=f"HTTP {code}") as raised:
        asked.run()
    assert "sk-secret" not in str(raised.value)
    assert len(asked.fake.bodies) == 1


def test_a_key_that_an_answer_repeats_is_not_kept():
    body = b'{"error":{"message":"bad sk-secret","code":500},"echo":"sk-secret"}'
    asked = Asked(HttpReply(200, {}, body), OK, secret="sk-secret")
    asked.run()
    assert "sk-secret" not in repr(asked.failures)
    assert "***" in asked.failures[0].raw


@pytest.mark.parametrize("echo", ["\\u0073k-secret", "sk\\u002Dsecret", "\\\\u0073\\\\u006b-secret", "sk-\\u0073ecret"])
def test_a_key_that_an_answer_repeats_in_json_escapes_is_not_kept(echo):
    content = orjson.loads(f'"{echo}"')
    assert "sk-secret" in (content, orjson.loads(f'"{content}"'))
    body = b'{"choices":[{"finish_reason":"stop","message":{"content":"%b"}}]}' % echo.encode()
    answer = Asked(HttpReply(200, {}, body), secret="sk-secret").run()
    assert answer.text == "***"


def test_the_same_codes_inside_200_are_told_and_treated_alike():
    inside = [HttpReply(200, {}, orjson.dumps({"error": {"message": "m", "code": code}})) for code in (429, 502)]
    asked = Asked(*inside, OK)
    asked.run()
    assert [failure.problem.kind for failure in asked.failures if failure.problem] == ["error_in_200"] * 2
    assert asked.limit.generation == 1
    with pytest.raises(CreditError):
        Asked(HttpReply(200, {}, b'{"error":{"message":"m","code":402}}')).run()


def test_an_empty_or_unreadable_body_and_an_error_finish_are_asked_again_and_recorded():
    bodies = [b"", b"<html>", b'{"choices":[{"finish_reason":"error","message":{"content":"x"}}],"usage":{"cost":0.1}}']
    asked = Asked(*(HttpReply(200, {}, body) for body in bodies), OK)
    asked.run()
    assert [(f.problem.kind, f.usage.cost_usd) for f in asked.failures if f.problem] == [
        ("body_empty", None), ("body_unreadable", None), ("finish_error", 0.1),
    ]  # fmt: skip


def test_an_answer_with_a_problem_of_its_own_is_returned_and_not_asked_again():
    cut = b'{"choices":[{"finish_reason":"length","message":{"content":"{"}}],"usage":{"cost":0.1}}'
    answer = Asked(HttpReply(200, {}, cut)).run()
    assert answer.problem is not None
    assert answer.problem.kind == "finish_length"


def test_an_answer_that_never_came_is_recorded_with_an_unknown_cost():
    asked = Asked(LostError("broke", timed_out=False), LostError("slow", timed_out=True), OK)
    asked.run()
    assert [(f.problem.kind, f.usage.cost_usd) for f in asked.failures if f.problem] == [("never_received", None)] * 2
    assert asked.limit.generation == 1  # of the time-out alone


def test_a_request_that_was_never_sent_costs_nothing():
    asked = Asked(NotSentError("refused"), OK)
    asked.run()
    assert asked.failures == []


def test_a_request_cut_off_by_its_caller_is_recorded_as_never_received():
    asked = Asked()

    async def never(_: bytes) -> HttpReply:
        await asyncio.sleep(60)
        return OK

    client = ChatClient(never, ClientOptions(("a",), "x"), limit=asked.limit)

    async def scenario() -> None:
        async with asyncio.timeout(0.05):
            await client.ask(REQUEST, on_failure=asked.failures.append)

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert [failure.problem.kind for failure in asked.failures if failure.problem] == ["never_received"]


def test_when_retries_are_used_up_the_next_model_is_asked_in_order():
    asked = Asked(*[status(500)] * 5, status(404), OK, models=("a", "b", "c"))
    asked.run()
    assert [body["model"] for body in asked.fake.bodies] == ["a"] * 5 + ["b", "c"]


def test_a_provider_that_stays_down_is_an_error_that_may_pass():
    with pytest.raises(ProviderError, match="HTTP 500: no"):
        Asked(*[status(500)] * 5).run()


def test_a_request_nobody_takes_is_a_setting_at_first_and_a_refused_row_later():
    with pytest.raises(ConfigError, match="no such model"):
        Asked(status(404, "no such model")).run()
    asked = Asked(OK, status(400, "too long"))
    asked.run()
    problem = asked.run().problem
    assert problem is not None
    assert (problem.kind, problem.detail) == ("request_refused", "HTTP 400: too long")


def test_openrouters_own_fields_go_to_openrouter_alone():
    plain, router = Asked(OK), Asked(OK, openrouter=True)
    plain.run()
    router.run()
    assert set(plain.fake.bodies[0]) == {"model", "messages", "response_format", "max_tokens", "temperature", "seed"}
    assert router.fake.bodies[0]["usage"] == {"include": True}
    assert router.fake.bodies[0]["provider"] == {"require_parameters": True}
    assert speaks_openrouter("https://openrouter.ai/api/v1")
    assert not speaks_openrouter("https://openrouter.ai.example.com/v1")


def test_without_a_stated_cost_the_price_per_token_counts():
    reply = HttpReply(
        200,
        {},
        b'{"choices":[{"finish_reason":"stop","message":{"content":"x"}}],'
        b'"usage":{"prompt_tokens":1000,"completion_tokens":100}}',
    )
    answer = Asked(reply, prices={"a": Prices.of_million(0.3, 2.5)}).run()
    assert answer.usage.cost_usd == pytest.approx(0.00055)


def test_requests_a_minute_are_kept():
    asked = Asked(*[OK] * 14, requests_per_minute=600)

    async def scenario() -> float:
        started_s = time.monotonic()
        for _ in range(14):  # ten a second; one second's worth may go at once
            await asked.client.ask(REQUEST, on_failure=asked.failures.append)
        return time.monotonic() - started_s

    assert asyncio.run(scenario()) >= 0.35


def test_tokens_that_an_answer_did_not_use_are_given_back():
    used = b'{"choices":[{"finish_reason":"stop","message":{"content":"x"}}],"usage":{"prompt_tokens":%d}}'

    async def scenario(num_tokens: int) -> float:
        asked = Asked(*[HttpReply(200, {}, used % num_tokens)] * 14, tokens_per_minute=60_000)
        started_s = time.monotonic()
        for _ in range(14):
            await asked.client.ask(REQUEST, on_failure=asked.failures.append)
        return time.monotonic() - started_s

    slow_s, fast_s = asyncio.run(scenario(100)), asyncio.run(scenario(1))
    assert slow_s >= 0.35
    assert fast_s < slow_s


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler):
    tasks: set[asyncio.Task[Any]] = set()

    async def handler(reader, writer):
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        await asyncio.gather(*tasks)


async def post_once(base_url: str, *, connect_timeout_s: float = 5, read_timeout_s: float = 5) -> HttpReply:
    async with open_post(
        base_url,
        key="k1",
        num_connections=2,
        connect_timeout_s=connect_timeout_s,
        read_timeout_s=read_timeout_s,
    ) as post:
        return await post(b'{"a":1}')


async def read_request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(7)


def test_over_http_the_key_goes_into_the_header_and_compressed_answers_are_read():
    seen = []

    async def handler(reader, writer):
        seen.append(await read_request(reader))
        body = gzip.compress(b'{"b":2}')
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nRetry-After: 3\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async def scenario() -> HttpReply:
        async with serving(handler) as url:
            return await post_once(url)

    reply = asyncio.run(scenario())
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (200, b'{"b":2}', "3")
    assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1")
    assert b"authorization: bearer k1" in seen[0].lower()
    assert seen[0].endswith(b'{"a":1}')


@pytest.mark.parametrize(
    ("sent", "timed_out"),
    [
        (b"", False),  # closed without a byte
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", False),  # closed in the body
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n ", True),  # stalls in the body
        (None, True),  # never says a word
        (b"HTTP/9.9 what\r\n\r\n", False),
        (b"\x00\x01\x02\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", False),
    ],
)
def test_over_http_an_answer_that_breaks_off_or_stalls_is_lost_and_not_unsent(sent, timed_out):
    async def handler(reader, writer):
        await read_request(reader)
        if sent is not None:
            writer.write(sent)
            await writer.drain()
        if timed_out:
            await reader.read()  # until the client hangs up
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        async with serving(handler) as url:
            with pytest.raises(LostError) as raised:
                await post_once(url, read_timeout_s=0.3)
            assert raised.value.timed_out == timed_out

    asyncio.run(scenario())


def test_over_http_a_chunk_without_a_size_that_comes_later_does_not_wait_for_ever():
    """aiohttp closes the connection and tells nobody who reads."""

    async def handler(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)  # the client reads by now
        writer.write(b"zz\r\n")
        writer.close()

    async def scenario() -> None:
        async with serving(handler) as url, asyncio.timeout(10):
            with pytest.raises(LostError, match=r"no answer within 0\.3 s"):
                await post_once(url, read_timeout_s=0.3)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("encoding", "pieces"),
    [(b"", repeat(bytes(1 << 20), 100)), (b"Content-Encoding: gzip\r\n", [gzip.compress(bytes(1 << 26))])],
    ids=["endless", "bomb"],
)
def test_over_http_an_answer_that_is_longer_than_any_is_given_up(encoding, pieces):
    async def handler(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + encoding + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            for piece in pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()

    async def scenario() -> None:
        async with serving(handler) as url:
            with pytest.raises(LostError, match="more than 32 MiB"):
                await post_once(url)

    asyncio.run(scenario())


def test_over_http_a_server_that_is_not_there_was_never_sent_anything():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(
            NotSentError, match=rf"^cannot connect to 127\.0\.0\.1:{closed.getsockname()[1]}: Connection"
        ):
            asyncio.run(post_once(url))  # "… ssl:default [Connect call failed …]" said aiohttp of plain HTTP


@pytest.mark.parametrize("url", ["openrouter.ai/api/v1", "ftp://x/v1", "http://", ""])
def test_a_base_url_that_is_none_is_named(url):
    with pytest.raises(ConfigError, match="--base-url"):
        asyncio.run(post_once(url))


def test_every_error_of_the_client_is_one_line():
    for asked in (Asked(status(402, "a\nb")), Asked(*[status(500, "a\nb")] * 5), Asked(status(400, "a\nb"))):
        with pytest.raises(NanosftError) as raised:
            asked.run()
        assert "\n" not in str(raised.value)


def test_what_a_lost_answer_cost_is_asked_for_by_its_id_where_one_came():
    asked = Asked(LostError("broke", timed_out=False, generation_id="gen-7"), LostError("broke", timed_out=False), OK)
    told: list[str] = []

    async def read_cost(generation_id: str) -> float:
        told.append(generation_id)
        return 0.25

    asked.client = ChatClient(
        asked.fake,
        ClientOptions(models=("a",), endpoint="http://x/v1"),
        limit=asked.limit,
        read_cost=read_cost,
        random_uniform=asked.draw,
    )
    assert asked.run().usage.cost_usd == 0.5
    assert told == ["gen-7"]
    assert [failure.usage.cost_usd for failure in asked.failures] == [0.25, None]


def test_a_generations_cost_is_looked_for_until_the_provider_has_it():
    replies = [status(404), HttpReply(200, {}, b'{"data":{"total_cost":0.0031}}')]
    paths: list[str] = []

    async def send(method: str, path: str, _body: bytes, _headers: object) -> HttpReply:
        paths.append(f"{method} {path}")
        return replies.pop(0)

    assert asyncio.run(read_generation_cost(send, "gen-7")) == 0.0031
    assert paths == ["GET /generation?id=gen-7"] * 2


@pytest.mark.parametrize("head", [b"x-generation-id: gen-9", b"x-other: 1"])
def test_over_http_an_answer_that_breaks_off_tells_its_id(head):
    async def handler(reader, writer):
        await read_request(reader)
        body = b'{"id":"gen-9","choices":['
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\ncontent-length: 400\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scenario() -> str | None:
        async with serving(handler) as url:
            with pytest.raises(LostError) as raised:
                await post_once(url)
            return raised.value.generation_id

    assert asyncio.run(scenario()) == "gen-9"
