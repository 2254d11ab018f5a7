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
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

import stamina

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate.provider.answers import Answer, message_of, never_received, parse_answer, request_refused
from nanosft.generate.provider.cards import Prices
from nanosft.generate.provider.limits import AdaptiveLimit, RateLimit
from nanosft.generate.provider.request import ChatRequest, encode_request
from nanosft.generate.provider.transport import (
    CREDIT_STATUSES,
    HttpReply,
    LostError,
    NotSentError,
    Post,
    draw_wait_s,
    find_generation_id,
    match_secret,
    parse_retry_after,
    redact,
)

_RETRIED_STATUSES: Final = frozenset({408, 409, 425, 429})
_OVERLOAD_STATUSES: Final = frozenset({408, 429})
_RETRIED_KINDS: Final = frozenset({"body_empty", "body_unreadable", "finish_error"})
_WAIT_BASE_S: Final = 0.25

# stamina tells every retry to its logger; without a handler that would go to standard error.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to ask.

    Attributes:
        models: Slugs, tried in order: a later one is asked when an earlier one fails for good.
        endpoint: What errors call the provider.
        openrouter: Send OpenRouter's own fields: usage accounting, and routing to providers that obey the schema.
        max_retries: Retries of one request to one model.
        max_wait_s: A provider that asks for a longer wait (Retry-After) is not asked again for the row.
        prices: Of models by slug, used where the provider states no cost; a model without any costs nothing then.
        requests_per_minute: None: no limit of our own.
        tokens_per_minute: None: no limit of our own.
        secret: Never shown: replaced wherever a provider's message repeats it.
    """

    models: tuple[str, ...]
    endpoint: str
    openrouter: bool = False
    max_retries: int = 8
    max_wait_s: float = 600.0
    prices: Mapping[str, Prices] = field(default_factory=dict)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    secret: str = field(default="", repr=False)


class Meter(Protocol):
    """Keeps a budget."""

    async def admit(self) -> None:
        """Reserve what one request may cost, or raise; it counts as in flight until `withdraw`."""

    def spend(self, cost_usd: float | None) -> None:
        """Count what an admitted request cost; None: it may have been billed, and nobody knows how much."""

    def withdraw(self) -> None:
        """Count an admitted request as ended."""


class ChatClient:
    """Asks one chat API.

    Args:
        post: Sends one request.
        options: How to ask.
        limit: Told of successes and overloads; whoever calls `ask` holds one of its places.
        meter: Admits each request before it is sent, resends too, and is told what it cost; None: no limit.
        read_cost: Asks what an answer that was lost has cost, by its id; None where the provider has no such thing.
        random_uniform: Draws the jitter.
    """

    def __init__(
        self,
        post: Post,
        options: ClientOptions,
        *,
        limit: AdaptiveLimit,
        meter: Meter | None = None,
        read_cost: Callable[[str], Awaitable[float | None]] | None = None,
        random_uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.limit = limit
        self._post = post
        self._options = options
        self._random_uniform = random_uniform
        self._meter = meter
        self._read_cost = read_cost
        self._secret = match_secret(options.secret)
        self._num_served = 0
        self._requests = _rate(options.requests_per_minute)
        self._tokens = _rate(options.tokens_per_minute)

    async def ask(
        self, request: ChatRequest, *, on_failure: Callable[[Answer], None], models: Sequence[str] | None = None
    ) -> Answer:
        """One answer, which may have a `problem` of its own; the caller judges and records it.

        Args:
            request: What to ask.
            on_failure: Gets each exchange before it that was, or may have been, billed.
            models: Slugs, tried in order; None: those of the options.

        Raises:
            CreditError: No credit, or the key is refused.
            ConfigError: The endpoint takes no request at all.
            ProviderError: Every model failed, for reasons that may pass.
        """
        failed: Exception | None = None
        models = models or self._options.models
        for model in models:
            try:
                return await self._ask_model(model, request, on_failure)
            except (_RetryableError, _ModelError) as exc:
                failed = exc
        if isinstance(failed, _ModelError):
            if self._num_served == 0:
                raise ConfigError(f"{self._options.endpoint}: {failed}") from failed
            return request_refused(str(failed), model=models[-1])
        raise ProviderError(f"{self._options.endpoint}: {failed}: try again later") from failed

    async def _ask_model(self, model: str, request: ChatRequest, on_failure: Callable[[Answer], None]) -> Answer:
        body = encode_request(request, model, openrouter=self._options.openrouter)
        try:
            return await self._exchange(body, model, request.num_tokens, on_failure)
        except _RetryableError as exc:
            failed: _RetryableError | None = exc
        num_tries = 0

        def wait_s(exc: Exception) -> bool | float:
            if not isinstance(exc, _RetryableError) or exc.retry_after_s > self._options.max_wait_s:
                return False
            draw = self._random_uniform
            return draw_wait_s(num_tries - 1, exc.retry_after_s, base_s=_WAIT_BASE_S, random_uniform=draw)

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
        if self._meter is None:
            return await self._send(body, model, num_tokens, on_failure)
        await self._meter.admit()
        try:
            return await self._send(body, model, num_tokens, on_failure)
        finally:
            self._meter.withdraw()

    async def _send(self, body: bytes, model: str, num_tokens: int, on_failure: Callable[[Answer], None]) -> Answer:
        """Send one request that was admitted; whatever it cost is told to the meter before it ends."""
        generation = self.limit.generation
        try:
            reply = await self._post(body)
        except asyncio.CancelledError:
            self._fail(never_received("given up before the answer came", model=model), on_failure)
            raise
        except LostError as exc:
            if exc.timed_out:
                self.limit.record_overload(generation)
            lost = await self._look_up(never_received(str(exc), model=model), exc.generation_id, on_failure)
            self._fail(lost, on_failure)
            raise _RetryableError(str(exc)) from exc
        except NotSentError as exc:
            raise _RetryableError(str(exc)) from exc
        reply = redact(reply, self._secret)
        if reply.status != HTTPStatus.OK:
            raise self._error(reply.status, reply, generation, message_of(reply.body))
        answer = self._priced(parse_answer(reply.body, model=model), model)
        if self._tokens is not None:
            self._tokens.give_back(num_tokens - answer.usage.prompt_tokens - answer.usage.completion_tokens)
        problem = answer.problem
        if problem is None or not (problem.kind == "error_in_200" or problem.kind in _RETRIED_KINDS):
            self._num_served += 1
            self.limit.record_success()
            self._spend(answer)
            return answer
        answer = await self._look_up(answer, find_generation_id(reply.headers, reply.body), on_failure)
        self._fail(answer, on_failure)
        raise self._error(answer.status or 502, reply, generation, problem.detail)

    async def _look_up(self, answer: Answer, generation_id: str | None, on_failure: Callable[[Answer], None]) -> Answer:
        """The answer with the cost that the provider tells of it by its id, where it states none itself."""
        if answer.usage.cost_usd is not None or generation_id is None or self._read_cost is None:
            return answer
        try:
            cost_usd = await self._read_cost(generation_id)
        except asyncio.CancelledError:
            self._fail(answer, on_failure)
            raise
        return answer if cost_usd is None else answer.with_cost(cost_usd)

    def _fail(self, answer: Answer, on_failure: Callable[[Answer], None]) -> None:
        self._spend(answer)
        on_failure(answer)

    def _spend(self, answer: Answer) -> None:
        if self._meter is not None:
            self._meter.spend(answer.usage.cost_usd)

    def _priced(self, answer: Answer, model: str) -> Answer:
        """The answer with a cost: the provider's own, or that of its tokens; none where nothing readable came."""
        usage = answer.usage
        if (
            usage.cost_usd is not None
            or not answer.raw
            or (answer.problem and answer.problem.kind == "body_unreadable")
        ):
            return answer
        if (prices := self._options.prices.get(model)) is None:
            return answer.with_cost(0.0)
        cost_usd = prices.cost_usd(
            prompt=usage.prompt_tokens,
            cached=min(usage.cached_tokens, usage.prompt_tokens),
            completion=usage.completion_tokens,
            reasoning=min(usage.reasoning_tokens, usage.completion_tokens),
        )
        return answer.with_cost(float(cost_usd))

    def _error(self, status: int, reply: HttpReply, generation: int, message: str) -> Exception:
        text = f"HTTP {status}: {message}"
        if status in CREDIT_STATUSES:
            return CreditError(
                f"{self._options.endpoint}: {text}: check the key and its credit, then run the same command"
            )
        if status in _RETRIED_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if status in _OVERLOAD_STATUSES:
                self.limit.record_overload(generation)
            return _RetryableError(text, parse_retry_after(reply.headers.get("retry-after"), now_s=time.time()))
        return _ModelError(text)


class _RetryableError(Exception):
    """May pass; not before `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _ModelError(Exception):
    """The endpoint does not take the request; another model may."""


def _rate(per_minute: float | None) -> RateLimit | None:
    return None if per_minute is None else RateLimit(per_minute)
