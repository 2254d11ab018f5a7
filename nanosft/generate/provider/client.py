"""The chat API: one request in, one answer out, whatever happens in between.

Any OpenAI-compatible endpoint; OpenRouter's own fields are sent to OpenRouter. Behind the client stands one function,
`Post` (see `transport`): bytes of a request's body in, status, headers and bytes of the answer out. A test passes its
own.

What is retried, and only here: HTTP 408, 409, 425, 429 and 5xx, the same codes inside HTTP 200, connections that break
and time-outs. The wait before retry k + 1 is `uniform(0, min(60, 0.25 * 2**k))` seconds (full jitter), and never less
than the provider's Retry-After. Every exchange that was or may have been billed and did not end in a usable answer is
told to `on_failure`, so that nothing paid for goes unrecorded.
"""

import asyncio
import email.utils
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

import orjson
import stamina

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate.provider.answers import Answer, error_message, never_received, parse_answer, request_refused
from nanosft.generate.provider.limits import AdaptiveLimit, RateLimit
from nanosft.generate.provider.transport import HttpReply, LostError, NotSentError, Post

_RETRIED_STATUSES: Final = frozenset({408, 409, 425, 429})
_OVERLOAD_STATUSES: Final = frozenset({408, 429})
_CREDIT_STATUSES: Final = frozenset({401, 402, 403})
_RETRIED_KINDS: Final = frozenset({"body_empty", "body_unreadable", "finish_error"})
_WAIT_BASE_S: Final = 0.25
_WAIT_MAX_S: Final = 60.0

# stamina tells every retry to its logger; without a handler that would go to standard error.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked; `num_tokens` is an estimate of prompt and answer, for the tokens-per-minute limit."""

    messages: Sequence[Mapping[str, Any]]
    response_format: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to ask.

    Attributes:
        models: Slugs, tried in order: a later one is asked when an earlier one fails for good.
        endpoint: What errors call the provider.
        openrouter: Send OpenRouter's own fields: usage accounting, and routing to providers that obey the schema.
        max_retries: Retries of one request to one model.
        max_wait_s: A provider that asks for a longer wait (Retry-After) is not asked again for the row.
        prompt_price_usd: Dollars per million prompt tokens, used where the provider states no cost.
        completion_price_usd: The same for tokens of the answer.
        requests_per_minute: None: no limit of our own.
        tokens_per_minute: None: no limit of our own.
        secret: Never shown: replaced wherever a provider's message repeats it.
    """

    models: tuple[str, ...]
    endpoint: str
    openrouter: bool = False
    max_retries: int = 8
    max_wait_s: float = 600.0
    prompt_price_usd: float = 0.0
    completion_price_usd: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    secret: str = field(default="", repr=False)


class ChatClient:
    """Asks one chat API.

    Args:
        post: Sends one request.
        options: How to ask.
        limit: Told of successes and overloads; whoever calls `ask` holds one of its places.
        random_uniform: Draws the jitter.
    """

    def __init__(
        self,
        post: Post,
        options: ClientOptions,
        *,
        limit: AdaptiveLimit,
        random_uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.limit = limit
        self._post = post
        self._options = options
        self._random_uniform = random_uniform
        self._secret = _match_secret(options.secret)
        self._num_served = 0
        self._requests = _rate(options.requests_per_minute)
        self._tokens = _rate(options.tokens_per_minute)

    async def ask(self, request: ChatRequest, *, on_failure: Callable[[Answer], None]) -> Answer:
        """One answer, which may have a `problem` of its own; the caller judges and records it.

        Args:
            request: What to ask.
            on_failure: Gets each exchange before it that was, or may have been, billed.

        Raises:
            CreditError: No credit, or the key is refused.
            ConfigError: The endpoint takes no request at all.
            ProviderError: Every model failed, for reasons that may pass.
        """
        failed: Exception | None = None
        for model in self._options.models:
            try:
                return await self._ask_model(model, request, on_failure)
            except (_RetryableError, _ModelError) as exc:
                failed = exc
        if isinstance(failed, _ModelError):
            if self._num_served == 0:
                raise ConfigError(f"{self._options.endpoint}: {failed}") from failed
            return request_refused(str(failed), model=self._options.models[-1])
        raise ProviderError(f"{self._options.endpoint}: {failed}: try again later") from failed

    async def _ask_model(self, model: str, request: ChatRequest, on_failure: Callable[[Answer], None]) -> Answer:
        body = _encode(request, model, openrouter=self._options.openrouter)
        try:
            return await self._exchange(body, model, request.num_tokens, on_failure)
        except _RetryableError as exc:
            failed: _RetryableError | None = exc
        num_tries = 0

        def wait_s(exc: Exception) -> bool | float:
            if not isinstance(exc, _RetryableError) or exc.retry_after_s > self._options.max_wait_s:
                return False
            jitter_s = self._random_uniform(0.0, min(_WAIT_MAX_S, _WAIT_BASE_S * 2.0 ** (num_tries - 1)))
            return max(jitter_s, exc.retry_after_s)

        async for attempt in stamina.retry_context(
            on=wait_s, attempts=self._options.max_retries + 1, timeout=None, wait_jitter=0
        ):
            with attempt:
                num_tries += 1
                if failed is not None:  # the first try, made above: one that succeeds need not pay for the machinery
                    first, failed = failed, None
                    raise first
                return await self._exchange(body, model, request.num_tokens, on_failure)
        raise AssertionError("stamina returns or raises")

    async def _exchange(self, body: bytes, model: str, num_tokens: int, on_failure: Callable[[Answer], None]) -> Answer:
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            await self._tokens.acquire(num_tokens)
        generation = self.limit.generation
        try:
            reply = await self._post(body)
        except asyncio.CancelledError:
            on_failure(never_received("given up before the answer came", model=model))
            raise
        except LostError as exc:
            if exc.timed_out:
                self.limit.record_overload(generation)
            on_failure(never_received(str(exc), model=model))
            raise _RetryableError(str(exc)) from exc
        except NotSentError as exc:
            raise _RetryableError(str(exc)) from exc
        reply = self._redact(reply)
        if reply.status == HTTPStatus.OK:
            return self._judge(reply, model, num_tokens, generation, on_failure)
        raise self._error(reply.status, reply, generation, _message_of(reply.body))

    def _judge(
        self, reply: HttpReply, model: str, num_tokens: int, generation: int, on_failure: Callable[[Answer], None]
    ) -> Answer:
        answer = self._priced(parse_answer(reply.body, model=model))
        if self._tokens is not None:
            self._tokens.give_back(num_tokens - answer.usage.prompt_tokens - answer.usage.completion_tokens)
        problem = answer.problem
        if problem is not None and (problem.kind == "error_in_200" or problem.kind in _RETRIED_KINDS):
            on_failure(answer)
            raise self._error(answer.status or 502, reply, generation, problem.detail)
        self._num_served += 1
        self.limit.record_success()
        return answer

    def _priced(self, answer: Answer) -> Answer:
        """The answer with a cost: the provider's own, or that of its tokens; none where nothing readable came."""
        usage, options = answer.usage, self._options
        if (
            usage.cost_usd is not None
            or not answer.raw
            or (answer.problem and answer.problem.kind == "body_unreadable")
        ):
            return answer
        million_usd = (
            usage.prompt_tokens * options.prompt_price_usd + usage.completion_tokens * options.completion_price_usd
        )
        return answer.with_cost(million_usd / 1e6)

    def _error(self, status: int, reply: HttpReply, generation: int, message: str) -> Exception:
        text = f"HTTP {status}: {message}"
        if status in _CREDIT_STATUSES:
            return CreditError(
                f"{self._options.endpoint}: {text}: check the key and its credit, then run the same command"
            )
        if status in _RETRIED_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if status in _OVERLOAD_STATUSES:
                self.limit.record_overload(generation)
            return _RetryableError(text, parse_retry_after(reply.headers.get("retry-after"), now_s=time.time()))
        return _ModelError(text)

    def _redact(self, reply: HttpReply) -> HttpReply:
        """The reply without our key, which a provider may repeat: bodies go into messages and into rejects."""
        body = self._secret.sub(b"***", reply.body) if self._secret is not None else reply.body
        return reply if body == reply.body else replace(reply, body=body)


class _RetryableError(Exception):
    """May pass; not before `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _ModelError(Exception):
    """The endpoint does not take the request; another model may."""


def _match_secret(secret: str) -> re.Pattern[bytes] | None:
    r"""A secret as a body may hold it: as it is, or any of its characters as `\u0073`, in JSON inside JSON too."""
    if not secret:
        return None
    pieces = (rf"(?:{re.escape(char)}|\\+u(?i:{ord(char):04x}))" for char in secret)
    return re.compile("".join(pieces).encode())


def parse_retry_after(value: str | None, *, now_s: float) -> float:
    """Seconds to wait: of a number of seconds, or of an HTTP date; 0 where there is none.

    Source: RFC 9110, section 10.2.3.
    """
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return 0.0


def _message_of(body: bytes) -> str:
    try:
        message = error_message(orjson.loads(body))
    except orjson.JSONDecodeError:
        message = error_message(body.decode("utf-8", "replace"))
    return message or "no message"


def _encode(request: ChatRequest, model: str, *, openrouter: bool) -> bytes:
    body: dict[str, Any] = {"model": model, "messages": request.messages}
    optional = {
        "response_format": request.response_format,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    body.update((key, value) for key, value in optional.items() if value is not None)
    if openrouter:
        body["usage"] = {"include": True}
        if request.response_format is not None:
            body["provider"] = {"require_parameters": True}
    return orjson.dumps(body)


def _rate(per_minute: float | None) -> RateLimit | None:
    return None if per_minute is None else RateLimit(per_minute)
