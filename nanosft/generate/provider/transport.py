"""What stands between the client and HTTP: one function that sends a request's body. Loads no HTTP library."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from nanosft.errors import ConfigError


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
