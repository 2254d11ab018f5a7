"""One request to a batch service, sent again while its failure may pass. Both adapters speak through it."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from nanosft.errors import CreditError, ProviderError
from nanosft.generate.provider import (
    CREDIT_STATUSES,
    HttpReply,
    LostError,
    NotSentError,
    Send,
    draw_wait_s,
    error_message,
    match_secret,
    message_of,
    parse_retry_after,
    redact,
)

GONE_STATUSES: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_RETRIED_STATUSES: Final = frozenset({408, 425, 429})
_WAIT_BASE_S: Final = 0.5


class PassingError(Exception):
    """A request failed for a reason that may pass, not before `retry_after_s`; it may have been carried out."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class BatchHttp:
    """Sends requests to one endpoint.

    Attributes:
        send: Sends one.
        endpoint: What errors call the provider.
        max_retries: Of one request.
        secret: Never shown.
        random_uniform: Draws the jitter.
    """

    send: Send
    endpoint: str
    max_retries: int
    secret: str = ""
    random_uniform: Callable[[float, float], float] = random.uniform

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpReply:
        """Any answer but those that may pass: for requests that may be carried out twice.

        Raises:
            CreditError: No credit, or the key is refused.
            ProviderError: It failed again and again.
        """
        num_tries = 0
        while True:
            try:
                return await self.request_once(method, path, body, headers)
            except PassingError as exc:
                await self.wait(num_tries, exc)
                num_tries += 1

    async def request_once(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> HttpReply:
        """As `request`, but raises PassingError where that would send it again."""
        try:
            reply = redact(await self.send(method, path, body, headers or {}), match_secret(self.secret))
        except (LostError, NotSentError) as exc:
            raise PassingError(str(exc)) from exc
        if reply.status in CREDIT_STATUSES:
            raise CreditError(
                f"{self.endpoint}: {_say(reply)}: check the key and its credit, then run the same command"
            )
        if reply.status in _RETRIED_STATUSES or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            retry_after_s = parse_retry_after(reply.headers.get("retry-after"), now_s=time.time())
            raise PassingError(_say(reply), retry_after_s)
        return reply

    async def wait(self, num_tries: int, exc: PassingError) -> None:
        """Wait before another try, as `draw_wait_s` has it.

        Raises:
            ProviderError: It was tried often enough.
        """
        if num_tries >= self.max_retries:
            raise ProviderError(f"{self.endpoint}: {exc}: run the same command again later") from exc
        draw = self.random_uniform
        await asyncio.sleep(draw_wait_s(num_tries, exc.retry_after_s, base_s=_WAIT_BASE_S, random_uniform=draw))

    def refusal(self, path: str, reply: HttpReply) -> str:
        """What a request that is refused for good is told with."""
        return f"{self.endpoint}{path}: HTTP {reply.status}: {error_message(json_of(reply))}"


def _say(reply: HttpReply) -> str:
    return f"HTTP {reply.status}: {message_of(reply.body)}"


def json_of(reply: HttpReply) -> Any:
    """The body's value; None where it is no JSON."""
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None


def object_of(reply: HttpReply) -> dict[str, Any]:
    """The body's object; empty where it is none. Some services wrap it in `data`."""
    value = json_of(reply)
    inner = value.get("data") if isinstance(value, dict) and "id" not in value else None
    found = inner if isinstance(inner, dict) else value
    return found if isinstance(found, dict) else {}


def text_of(value: object, most: int = 300) -> str:
    """Foreign text on one line, within a bound; empty for anything else."""
    return " ".join(value.split())[:most] if isinstance(value, str) else ""


def count_of(value: object) -> int:
    """A count; 0 for anything else."""
    return value if isinstance(value, int) and 0 < value < 10**9 else 0
