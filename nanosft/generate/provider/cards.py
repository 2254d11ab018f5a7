"""Model cards: what a catalogue says of each model, and what it makes of a request's tokens. Pure.

Prices are dollars a token, held as decimals: a price is told as text, and sums of it must be exact. What is no price (a
router says -1, a broken list says NaN) is None, so that nothing is computed from it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self

BATCH_SUFFIX: Final = ":batch"
SOON_DAYS: Final = 30
"""A model that ends within as many days is not one to begin with."""
EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh")
"""Of reasoning, the least first."""
_MILLION: Final = Decimal(1_000_000)
_MAX_PRICE: Final = Decimal("0.1")
"""Dollars a token: a hundred times the dearest that is known."""
_MIN_PRICE: Final = Decimal("1e-15")
_PRICE: Final = re.compile(r"[0-9]*\.?[0-9]{1,30}(?:[eE]-?[0-9]{1,2})?")
_SLUG: Final = re.compile(r"[!-~]{1,200}")
_VARIANT: Final = re.compile(r":[a-z]+\Z")
"""Of a slug: `:free`, `:nitro` and their like say how a model is served."""
_DATED: Final = re.compile(r"-[0-9]{4}(?:-?[0-9]{2}){0,2}(?::[a-z]+)?|:[a-z]+")
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

    @classmethod
    def of_million(cls, prompt_usd: float, completion_usd: float) -> Self:
        """Prices given in dollars per million tokens."""
        return cls(Decimal(str(prompt_usd)) / _MILLION, Decimal(str(completion_usd)) / _MILLION)

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
class Reasoning:
    """How a model that reasons can be told how much.

    Attributes:
        is_mandatory: It cannot be switched off.
        efforts: Those that it takes, of `EFFORTS`, the least first.
    """

    is_mandatory: bool = False
    efforts: tuple[str, ...] = EFFORTS

    def field(self, effort: str) -> dict[str, Any]:
        """OpenRouter's `reasoning` of a request: `off`, or an effort; the least that the model has and is no less.

        Source: https://openrouter.ai/docs/use-cases/reasoning-tokens; a model whose reasoning is mandatory refuses
        a request that switches it off.
        """
        if effort == "off" and not self.is_mandatory:
            return {"enabled": False}
        wanted = 0 if effort == "off" else EFFORTS.index(effort)
        enough = [name for name in self.efforts if EFFORTS.index(name) >= wanted]
        return {"effort": enough[0] if enough else self.efforts[-1], "exclude": True}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model on offer.

    Attributes:
        slug: Its id.
        canonical: The name under which it answers, where that is another; empty: not told.
        context_length: Most tokens of prompt and answer together; None: not told.
        max_completion_tokens: Most tokens of an answer; None: not told.
        prices: None: not told, or not to be told beforehand, as those of a router are.
        batch_prices: Those of its batch entry; None: it has none.
        supported_parameters: Names of a request's fields; None: the endpoint tells none of any model.
        expires: When it ends; None: no date is known.
        reasoning: None: it does not reason, or is not known to.
        writes_text: False: it makes pictures or sounds alone.
    """

    slug: str
    canonical: str = ""
    context_length: int | None = None
    max_completion_tokens: int | None = None
    prices: Prices | None = None
    batch_prices: Prices | None = None
    supported_parameters: frozenset[str] | None = None
    expires: datetime | None = None
    reasoning: Reasoning | None = None
    writes_text: bool = True

    def supports(self, parameter: str) -> bool:
        """Whether a request may have the field; a model whose fields are not told may have any."""
        return self.supported_parameters is None or parameter in self.supported_parameters

    def expires_within(self, days: int, *, now: datetime) -> bool:
        """Whether it has ended or ends in so many days."""
        return self.expires is not None and (self.expires - now).total_seconds() < days * 86_400

    def answers_as(self, name: str) -> bool:
        """Whether an answer that names this model came from it: dated names of one model are taken for it."""
        plain = _VARIANT.sub("", self.slug)
        known = (self.slug, self.canonical, plain, plain.rpartition("/")[2])
        return any(name == one or (name.startswith(one) and _DATED.fullmatch(name, len(one))) for one in known if one)

    def to_record(self) -> dict[str, Any]:
        """The card as JSON values, for a manifest: prices as text, which alone is exact."""
        return {
            "batch_prices": _prices_record(self.batch_prices),
            "context_length": self.context_length,
            "expires": None if self.expires is None else f"{self.expires:%Y-%m-%d}",
            "max_completion_tokens": self.max_completion_tokens,
            "prices": _prices_record(self.prices),
            "supported_parameters": None if self.supported_parameters is None else sorted(self.supported_parameters),
        }


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


def find_card(cards: Mapping[str, ModelCard], slug: str) -> ModelCard | None:
    """The card of a slug; that of its model for a variant (`:nitro`) that has none of its own. None: not on offer."""
    found = cards.get(slug)
    if found is None and not slug.endswith(BATCH_SUFFIX):
        found = cards.get(_VARIANT.sub("", slug))
    return found


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
    million = price * _MILLION
    return f"{million:,.2f}" if million == round(million, 2) else f"{million.normalize():,f}"


def _parse_card(slug: str, item: Mapping[str, Any]) -> ModelCard:
    provider = item.get("top_provider")
    provider = provider if isinstance(provider, dict) else {}
    # The provider that is asked first may take less than the model's own limit.
    lengths = [length for value in (item, provider) if (length := _parse_tokens(value.get("context_length")))]
    parameters = item.get("supported_parameters")
    canonical = item.get("canonical_slug")
    return ModelCard(
        slug=slug,
        canonical=canonical if isinstance(canonical, str) and _SLUG.fullmatch(canonical) else "",
        context_length=min(lengths, default=None),
        max_completion_tokens=_parse_tokens(provider.get("max_completion_tokens")),
        prices=_parse_prices(item.get("pricing")),
        supported_parameters=frozenset(
            name for name in parameters if isinstance(name, str) and _PARAMETER.fullmatch(name)
        )
        if isinstance(parameters, list)
        else None,
        expires=_parse_time(item.get("expiration_date")),
        reasoning=_parse_reasoning(item.get("reasoning"))
        if isinstance(parameters, list) and "reasoning" in parameters
        else None,
        writes_text=_writes_text(item.get("architecture")),
    )


def _writes_text(value: object) -> bool:
    kinds = value.get("output_modalities") if isinstance(value, dict) else None
    return not isinstance(kinds, list) or "text" in kinds


def _parse_prices(value: object) -> Prices | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = parse_price(value.get("prompt")), parse_price(value.get("completion"))
    if prompt is None or completion is None:
        return None
    return Prices(
        prompt, completion, parse_price(value.get("input_cache_read")), parse_price(value.get("internal_reasoning"))
    )


def _parse_reasoning(value: object) -> Reasoning:
    if not isinstance(value, dict):
        return Reasoning()
    efforts = value.get("supported_efforts")
    told = tuple(name for name in EFFORTS if name in efforts) if isinstance(efforts, list) else ()
    return Reasoning(is_mandatory=value.get("mandatory") is True, efforts=told or EFFORTS)


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


def _prices_record(prices: Prices | None) -> dict[str, str | None] | None:
    if prices is None:
        return None
    values = {
        "cached": prices.cached,
        "completion": prices.completion,
        "prompt": prices.prompt,
        "reasoning": prices.reasoning,
    }
    return {name: None if value is None else f"{value:f}" for name, value in values.items()}
