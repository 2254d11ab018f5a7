"""What a chat API tells of itself without writing anything: its models, and what is left on a key."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin

import httpx
import orjson

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate.provider.answers import error_message
from nanosft.generate.provider.cards import ModelCard, parse_cards
from nanosft.generate.provider.transport import CREDIT_STATUSES, hide_secret, match_secret

_MAY_PASS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_MAX_BODY_BYTES: Final = 1 << 25
"""Of one page: some thirty times what OpenRouter's whole list has."""
_MAX_PAGES: Final = 20
_MAX_USD: Final = 1e9
logging.getLogger("httpx").setLevel(logging.WARNING)  # its line for each answer repeats the words of the status line


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What OpenRouter says of a key: dollars used, and those left of its limit (None: it has no limit)."""

    used_usd: float
    left_usd: float | None


class Catalogue:
    """Asks one endpoint.

    Args:
        base_url: Without `/models`.
        key: Sent as a bearer token; empty: none is.
        timeout_s: Seconds for each answer, from its request to its last byte.
    """

    def __init__(self, base_url: str, *, key: str, timeout_s: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._key, self._secret = key, match_secret(key)
        self._timeout_s = timeout_s

    def read_models(self) -> dict[str, ModelCard]:
        """The models on offer by slug; a batch entry stands in the card of its model.

        Raises:
            ConfigError: The endpoint has no such list.
            CreditError: The key is refused.
            ProviderError: The endpoint does not answer.
        """
        items: list[object] = []
        for page in self._pages(f"{self._base_url}/models"):
            if not isinstance(page, list):
                raise ConfigError(f"{self._base_url}/models: not a list of models: check --base-url")
            items += page
        return parse_cards(items)

    def read_key(self) -> KeyStatus:
        """What is left on the key (OpenRouter alone). Raises as `read_models`."""
        item = self._get(f"{self._base_url}/key")["data"]
        if not isinstance(item, dict):
            raise ConfigError(f"{self._base_url}/key: tells nothing of the key: check --base-url")
        return KeyStatus(_dollars(item.get("usage")) or 0.0, _dollars(item.get("limit_remaining")))

    def _pages(self, url: str) -> Iterator[object]:
        """The `data` of each page: an endpoint may give its list whole, or name the next page in `links`."""
        for _ in range(_MAX_PAGES):
            body = self._get(url)
            yield body["data"]
            links = body.get("links")
            following = links.get("next") if isinstance(links, dict) else None
            if not isinstance(following, str) or not following:
                return
            url = urljoin(url, following)
            if not url.startswith(f"{self._base_url}/"):  # the key is for this endpoint alone
                return

    def _get(self, url: str) -> dict[str, Any]:
        """The answer's body: an object that has `data`."""
        status, content = self._read(url)
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = None
        if status == HTTPStatus.OK:
            if not isinstance(body, dict) or "data" not in body:
                raise ConfigError(f"{url}: not what OpenAI's API answers: check --base-url")
            return body
        said = error_message(body)
        text = f"{url}: HTTP {status}: {hide_secret(said, self._secret)}"
        if status in CREDIT_STATUSES:
            raise CreditError(f"{text}: check the key and its credit")
        if status in _MAY_PASS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ProviderError(f"{text}: try again later")
        raise ConfigError(f"{text}: check --base-url")

    def _read(self, url: str) -> tuple[int, bytes]:
        """Status and body, neither endless nor awaited for ever."""
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        ends_s = time.monotonic() + self._timeout_s
        content = bytearray()
        try:
            with httpx.stream("GET", url, headers=headers, timeout=self._timeout_s) as reply:
                for piece in reply.iter_bytes():
                    content += piece
                    if len(content) > _MAX_BODY_BYTES:
                        raise ConfigError(f"{url}: has more than {_MAX_BODY_BYTES >> 20} MiB: check --base-url")
                    if time.monotonic() > ends_s:
                        raise httpx.ReadTimeout("slow")
                return reply.status_code, bytes(content)
        except httpx.TimeoutException as exc:
            raise ProviderError(f"{url}: no answer within {self._timeout_s:g} s: try again later") from exc
        except ValueError as exc:  # httpx's, of a proxy that is none
            raise ConfigError(f"the proxy that a variable names (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY): {exc}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            said = hide_secret(str(exc), self._secret)  # it may quote a first line that is none
            raise ProviderError(f"{url}: {said}: check --base-url and the network, or try again later") from None


def _dollars(value: object) -> float | None:
    """A number of dollars, which may be below 0; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= _MAX_USD else None
