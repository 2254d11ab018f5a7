"""What a chat API tells of itself without writing anything: its models, and what is left on a key."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate.provider.answers import error_message

_REFUSED_KEY: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})
_MAY_PASS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


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
        timeout_s: Seconds for each answer.
    """

    def __init__(self, base_url: str, *, key: str, timeout_s: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s

    def read_models(self) -> dict[str, datetime | None]:
        """Slugs of the models on offer, each with the time at which it ends, where one is known.

        Raises:
            ConfigError: The endpoint has no such list.
            CreditError: The key is refused.
            ProviderError: The endpoint does not answer.
        """
        items = self._get("/models")
        if not isinstance(items, list):
            raise ConfigError(f"{self._base_url}/models: not a list of models: check --base-url")
        rows = [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
        return {item["id"]: _parse_time(item.get("expiration_date")) for item in rows}

    def read_key(self) -> KeyStatus:
        """What is left on the key (OpenRouter alone). Raises as `read_models`."""
        item = self._get("/key")
        if not isinstance(item, dict):
            raise ConfigError(f"{self._base_url}/key: tells nothing of the key: check --base-url")
        left = item.get("limit_remaining")
        return KeyStatus(float(item.get("usage") or 0.0), None if left is None else float(left))

    def _get(self, path: str) -> Any:
        """The answer's `data`."""
        url = self._base_url + path
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            reply = httpx.get(url, headers=headers, timeout=self._timeout_s)
        except httpx.TimeoutException as exc:
            raise ProviderError(f"{url}: no answer within {self._timeout_s:g} s: try again later") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ProviderError(f"{url}: {exc}: check --base-url and the network, or try again later") from exc
        if reply.status_code == HTTPStatus.OK:
            try:
                return reply.json()["data"]
            except (ValueError, KeyError, TypeError) as exc:
                raise ConfigError(f"{url}: not what OpenAI's API answers: check --base-url") from exc
        said = error_message(_json_of(reply))
        text = f"{url}: HTTP {reply.status_code}: {said.replace(self._key, '***') if self._key else said}"
        if reply.status_code in _REFUSED_KEY:
            raise CreditError(f"{text}: check the key and its credit")
        if reply.status_code in _MAY_PASS or reply.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ProviderError(f"{text}: try again later")
        raise ConfigError(f"{text}: check --base-url")


def _json_of(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return None


def _parse_time(value: object) -> datetime | None:
    """A date or time in ISO's form; None for anything else."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
