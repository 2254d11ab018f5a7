"""What stands between the client and HTTP: one function that sends a request's body. Loads no HTTP library."""

import email.utils
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from nanosft.errors import ConfigError

CREDIT_STATUSES: Final = frozenset({401, 402, 403})
"""No credit, or the key is refused: no other request of this key would fare better."""
_WAIT_MAX_S: Final = 60.0
_GENERATION_ID: Final = re.compile(rb'"id"\s*:\s*"(gen-[\w-]{1,100})"')


def draw_wait_s(
    num_tries: int, retry_after_s: float, *, base_s: float, random_uniform: Callable[[float, float], float]
) -> float:
    """Seconds before another try: full jitter up to a minute, and never less than the provider asks for.

    Args:
        num_tries: Tries before the one that has failed: each doubles the most that is drawn.
        retry_after_s: What the provider asks for.
        base_s: The most that is drawn after the first.
        random_uniform: Draws.
    """
    return max(random_uniform(0.0, min(_WAIT_MAX_S, base_s * 2.0**num_tries)), retry_after_s)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSentError(Exception):
    """No connection was made: the request cannot have been billed."""


class LostError(Exception):
    """The request was sent and its answer never came: it may have been billed.

    `generation_id` is what the provider calls the answer, where as much of it came.
    """

    def __init__(self, message: str, *, timed_out: bool, generation_id: str | None = None) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.generation_id = generation_id


Post = Callable[[bytes], Awaitable[HttpReply]]
"""Send a chat request's body; raises `NotSentError` or `LostError`. The client's one I/O method."""
Send = Callable[[str, str, bytes, Mapping[str, str]], Awaitable[HttpReply]]
"""Send anything: method, path under the base URL, body and further headers; raises as `Post`."""


def make_post(send: Send) -> Post:
    """A `Post` of chat requests over a `Send`."""

    async def post(body: bytes) -> HttpReply:
        return await send("POST", "/chat/completions", body, {})

    return post


def find_generation_id(headers: Mapping[str, str], body: bytes) -> str | None:
    """What OpenRouter calls an answer, by its header or by the beginning of its body; None where neither tells."""
    match = _GENERATION_ID.search(body)
    found = headers.get("x-generation-id") or (match[1].decode() if match else "")
    return found if found and found.isascii() and found.isprintable() else None


def speaks_openrouter(base_url: str) -> bool:
    """Whether the endpoint is OpenRouter itself."""
    host = urlsplit(base_url).hostname or ""
    return host == "openrouter.ai" or host.endswith(".openrouter.ai")


def read_key(secret: SecretStr | None) -> str:
    """The key as it is sent; empty where there is none."""
    return secret.get_secret_value().strip() if secret is not None else ""


def require_key(secret: SecretStr | None, base_url: str) -> str:
    """The key of a command that asks models alone.

    Raises:
        ConfigError: There is none, and the endpoint is OpenRouter.
    """
    key = read_key(secret)
    if speaks_openrouter(base_url) and not key:
        raise ConfigError("OPENROUTER_API_KEY is not set: set it to a key of openrouter.ai, or use --base-url")
    return key


def match_secret(secret: str) -> re.Pattern[bytes] | None:
    r"""A secret as a body may hold it: as it is, or any of its characters as `\u0073`, in JSON inside JSON too."""
    if not secret:
        return None
    pieces = (rf"(?:{re.escape(char)}|\\+u(?i:{ord(char):04x}))" for char in secret)
    return re.compile("".join(pieces).encode())


def redact(reply: HttpReply, secret: re.Pattern[bytes] | None) -> HttpReply:
    """The reply without our key, which a provider may repeat: bodies go into messages and into the store."""
    body = secret.sub(b"***", reply.body) if secret is not None else reply.body
    return reply if body == reply.body else replace(reply, body=body)


def hide_secret(text: str, secret: re.Pattern[bytes] | None) -> str:
    """A message without our key: a library quotes an answer's first line where that is none of HTTP."""
    return text if secret is None else secret.sub(b"***", text.encode(errors="replace")).decode()


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
