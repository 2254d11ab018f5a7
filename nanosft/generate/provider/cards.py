"""Model cards: what a catalogue says of each model, and what it makes of a request's tokens. Pure.

Prices are dollars a token, held as decimals: a price is told as text, and sums of it must be exact. What is no price (a
router says -1, a broken list says NaN) is None, so that nothing is computed from it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

BATCH_SUFFIX: Final = ":batch"
SOON_DAYS: Final = 30
"""A model that ends within as many days is not one to begin with."""
_MAX_PRICE: Final = Decimal("0.1")
"""Dollars a token: a hundred times the dearest that is known."""
_MIN_PRICE: Final = Decimal("1e-15")
_PRICE: Final = re.compile(r"[0-9]*\.?[0-9]{1,30}(?:[eE]-?[0-9]{1,2})?")
_SLUG: Final = re.compile(r"[!-~]{1,200}")
_PARAMETER: Final = re.compile(r"[a-z_]{1,60}")
_MAX_TOKENS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars a token.

    Attributes:
        prompt: Of the prompt.
        completion: Of the answer.
        cached: Of prompt tokens that are served from the prompt cache; None: no such price is told, and they cost
            as much as the others.
        reasoning: Of reasoning tokens; None: as those of the answer.
    """

    prompt: Decimal
    completion: Decimal
    cached: Decimal | None = None
    reasoning: Decimal | None = None

    def cost_usd(self, *, prompt: int, cached: int = 0, completion: int, reasoning: int = 0) -> Decimal:
        """What a request costs: `cached` of `prompt` come from the cache, `reasoning` are in `completion`."""
        cached_usd = self.prompt if self.cached is None else self.cached
        reasoning_usd = self.completion if self.reasoning is None else self.reasoning
        return (
            (prompt - cached) * self.prompt
            + cached * cached_usd
            + (completion - reasoning) * self.completion
            + reasoning * reasoning_usd
        )

    def per_million(self) -> str:
        """For people: `0.30 and 2.50 dollars per million tokens`."""
        return f"{show_million(self.prompt)} and {show_million(self.completion)} dollars per million tokens"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model on offer.

    Attributes:
        slug: Its id.
        context_length: Most tokens of prompt and answer together; None: not told.
        max_completion_tokens: Most tokens of an answer; None: not told.
        prices: None: not told, or not to be told beforehand, as those of a router are.
        batch_prices: Those of its batch entry; None: it has none.
        supported_parameters: Names of a request's fields; None: the endpoint tells none of any model.
        expires: When it ends; None: no date is known.
    """

    slug: str
    context_length: int | None = None
    max_completion_tokens: int | None = None
    prices: Prices | None = None
    batch_prices: Prices | None = None
    supported_parameters: frozenset[str] | None = None
    expires: datetime | None = None

    def supports(self, parameter: str) -> bool:
        """Whether a request may have the field; a model whose fields are not told may have any."""
        return self.supported_parameters is None or parameter in self.supported_parameters

    def expires_within(self, days: int, *, now: datetime) -> bool:
        """Whether it has ended or ends in so many days."""
        return self.expires is not None and (self.expires - now).total_seconds() < days * 86_400


def parse_cards(items: Iterable[object]) -> dict[str, ModelCard]:
    """Cards by slug, of the entries of a list of models; those that are none are left out.

    An entry `<slug>:batch` becomes the `batch_prices` of `<slug>`.
    """
    cards: dict[str, ModelCard] = {}
    batch: dict[str, Prices] = {}
    for item in items:
        if not isinstance(item, dict):
            continue
        slug = item.get("id")
        if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
            continue
        card = _parse_card(slug, item)
        if not slug.endswith(BATCH_SUFFIX):
            cards[slug] = card
        elif card.prices is not None:
            batch[slug.removesuffix(BATCH_SUFFIX)] = card.prices
    return {slug: replace(card, batch_prices=batch.get(slug)) for slug, card in cards.items()}


def parse_price(value: object) -> Decimal | None:
    """Dollars a token, of text or a number; None for what is no price or beyond all bounds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if not _PRICE.fullmatch(text):
        return None
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    if price == 0:
        return Decimal(0)
    return price.normalize() if _MIN_PRICE <= price <= _MAX_PRICE else None


def show_million(price: Decimal) -> str:
    """Dollars per million tokens: two places, or as many as the price has."""
    million = price * 1_000_000
    return f"{million:,.2f}" if million == round(million, 2) else f"{million.normalize():,f}"


def _parse_card(slug: str, item: Mapping[str, Any]) -> ModelCard:
    provider = item.get("top_provider")
    provider = provider if isinstance(provider, dict) else {}
    # The provider that is asked first may take less than the model's own limit.
    lengths = [length for value in (item, provider) if (length := _parse_tokens(value.get("context_length")))]
    parameters = item.get("supported_parameters")
    return ModelCard(
        slug=slug,
        context_length=min(lengths, default=None),
        max_completion_tokens=_parse_tokens(provider.get("max_completion_tokens")),
        prices=_parse_prices(item.get("pricing")),
        supported_parameters=frozenset(
            name for name in parameters if isinstance(name, str) and _PARAMETER.fullmatch(name)
        )
        if isinstance(parameters, list)
        else None,
        expires=_parse_time(item.get("expiration_date")),
    )


def _parse_prices(value: object) -> Prices | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = parse_price(value.get("prompt")), parse_price(value.get("completion"))
    if prompt is None or completion is None:
        return None
    return Prices(
        prompt, completion, parse_price(value.get("input_cache_read")), parse_price(value.get("internal_reasoning"))
    )


def _parse_tokens(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 < value <= _MAX_TOKENS else None


def _parse_time(value: object) -> datetime | None:
    """A date or time in ISO's form; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
