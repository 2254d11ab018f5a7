"""What stands between the client and HTTP: one function that sends a request's body. Loads no HTTP library."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSentError(Exception):
    """No connection was made: the request cannot have been billed."""


class LostError(Exception):
    """The request was sent and its answer never came: it may have been billed."""

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


Post = Callable[[bytes], Awaitable[HttpReply]]
"""Send a request's body; raises `NotSentError` or `LostError`. The client's one I/O method."""


def speaks_openrouter(base_url: str) -> bool:
    """Whether the endpoint is OpenRouter itself."""
    host = urlsplit(base_url).hostname or ""
    return host == "openrouter.ai" or host.endswith(".openrouter.ai")
