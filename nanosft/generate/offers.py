"""What the models of a run cost and can do: the endpoint's catalogue, read when the run begins."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate import provider
from nanosft.generate.provider import SOON_DAYS, ModelCard, Prices, Reasoning, find_card, read_key, speaks_openrouter
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.judge import is_paid_judge

_TIMEOUT_S: Final = 20.0
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offers:
    """What a catalogue says.

    Attributes:
        date: The day on which it was read, in UTC; empty: it was not.
        cards: Every model on offer, by slug.
        problem: Why it could not be read; empty: it was, or nobody is asked.
        key_refused: That is because of the key.
    """

    date: str = ""
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    problem: str = ""
    key_refused: bool = False

    def find(self, slug: str) -> ModelCard | None:
        """The card of a model; None where there is none."""
        return find_card(self.cards, slug)

    def to_record(self, slugs: Iterable[str]) -> dict[str, Any] | None:
        """What a manifest keeps of it: the day, and the cards of the run's models; None where it was not read."""
        if not self.date:
            return None
        cards = {slug: self.find(slug) for slug in slugs}
        return {"date": self.date, "models": {slug: card.to_record() for slug, card in cards.items() if card}}


def read_offers(settings: GenerateSettings) -> Offers:
    """Read the catalogue of the endpoint that is asked for rows or scores; `Offers()` where it is for neither."""
    if settings.provider != "openrouter" and not is_paid_judge(settings.judge_model):
        return Offers()
    key, timeout_s = read_key(settings.openrouter_api_key), min(_TIMEOUT_S, settings.read_timeout_s)
    return read_endpoint(settings.base_url, key, timeout_s=timeout_s)


def read_endpoint(base_url: str, key: str, *, timeout_s: float = _TIMEOUT_S) -> Offers:
    """Read the catalogue of an endpoint. A run goes on without one, so nothing is raised."""
    catalogue = provider.Catalogue(base_url, key=key, timeout_s=timeout_s)
    try:
        cards = catalogue.read_models()
    except (ConfigError, CreditError, ProviderError) as exc:
        return Offers(problem=str(exc), key_refused=isinstance(exc, CreditError))
    return Offers(f"{datetime.now(UTC):%Y-%m-%d}", cards)


def model_slugs(settings: GenerateSettings) -> tuple[str, ...]:
    """Every model that may be asked, each once."""
    return tuple(dict.fromkeys((*settings.model_shares, *settings.fallback_models)))


def find_prices(offers: Offers, slug: str, given_usd: tuple[float | None, float | None]) -> Prices | None:
    """Prices of a model; None where nobody told.

    Args:
        offers: What `read_offers` returned.
        slug: The model.
        given_usd: Dollars per million tokens of prompt and answer that a person gave; they win over the catalogue's.
    """
    card = offers.find(slug)
    told = card.prices if card is not None else None
    prompt, completion = given_usd
    if prompt is None and completion is None:
        return told
    given = Prices.of_million(prompt or 0.0, completion or 0.0)
    if told is not None and prompt is None:
        return Prices(told.prompt, given.completion, told.cached)
    if told is not None and completion is None:
        return Prices(given.prompt, told.completion, reasoning=told.reasoning)
    return given


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model has to be able to do, and what it is called in messages.

    Attributes:
        option: The option that names the model.
        max_tokens: Its longest answer, in tokens.
        num_prompt_tokens: The longest prompt, estimated.
        remedy: What else may be changed where prompt and answer are too long for it.
    """

    option: str
    max_tokens: int
    num_prompt_tokens: int
    remedy: str


def warn_of_unread(offers: Offers) -> None:
    """Say that nothing is known of any model, where the catalogue could not be read."""
    if offers.problem:
        _log.warning("the catalogue was not read, so no price, context length or end date is known: %s", offers.problem)


def check_offers(settings: GenerateSettings, offers: Offers, *, num_prompt_tokens: int, max_tokens: int) -> None:
    """Refuse writers that cannot do the job by what the catalogue says of them, and warn of what may go wrong.

    Args:
        settings: What the run is told.
        offers: What `read_offers` returned.
        num_prompt_tokens: Estimated tokens of the longest prompt.
        max_tokens: Of the longest answer.

    Raises:
        ConfigError: A model's context or answer is too short for the plan, or it cannot bind answers to a schema.
    """
    for slug in model_slugs(settings):
        option = "--fallback-models" if slug in settings.fallback_models else "--model"
        remedy = "a shorter knowledge base, a lower --max-tokens or fewer --max-messages"
        demand = Demand(option, max_tokens, num_prompt_tokens, remedy)
        check_model(offers, slug, demand, base_url=settings.base_url)


def check_model(offers: Offers, slug: str, demand: Demand, *, base_url: str) -> None:
    """Refuse a model that cannot do a job by what the catalogue says of it, and warn of what may go wrong.

    Raises:
        ConfigError: Its context or answer is too short, or it cannot bind answers to a schema.
    """
    if not offers.cards:
        return
    card = offers.find(slug)
    if card is None:
        _log.warning("%s is not in the catalogue of %s: it may be gone, or misspelled", slug, base_url)
        return
    for warning in _warnings_of(card, demand.option):
        _log.warning("%s %s", slug, warning)
    if problem := find_shortage(card, demand.max_tokens, demand.num_prompt_tokens):
        raise ConfigError(f"{demand.option} {slug}: {problem}: choose another model, {demand.remedy}")
    if not can_bind(card) and speaks_openrouter(base_url):
        raise ConfigError(
            f"{demand.option} {slug}: does not bind its answers to a schema (it lacks structured_outputs): choose one "
            "that does: nanosft models lists them"
        )


def check_costs_known(
    budget_usd: float | None, slugs: Iterable[str], prices: Container[str], *, base_url: str, options: str
) -> None:
    """Refuse a budget that an endpoint's models could not be held against.

    Args:
        budget_usd: None: there is none.
        slugs: The models that may be asked.
        prices: Those whose price is given or listed.
        base_url: Of an endpoint that may state no cost.
        options: Those that would tell.

    Raises:
        ConfigError: Nobody has told what a model costs.
    """
    if budget_usd is not None and not all(slug in prices for slug in slugs):
        raise ConfigError(f"--budget-usd: {base_url} may state no cost: give {options}")


def find_reasoning(settings: GenerateSettings, offers: Offers, slug: str) -> dict[str, Any] | None:
    """OpenRouter's `reasoning` field for a model; None: it is left out, as it is for one that cannot reason.

    Where the catalogue was not read, only an effort that is wished for is sent: a request that asks for what a model
    has not is refused.
    """
    card = offers.find(slug)
    if card is not None:
        return None if card.reasoning is None else card.reasoning.field(settings.reasoning)
    return None if settings.reasoning == "off" else Reasoning().field(settings.reasoning)


class OtherModels:
    """Warns, once a name, of answers that came from another model than the one that was asked."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        self._known: set[tuple[str, str]] = set()

    def __call__(self, asked: str, answered: str) -> None:
        """Look at one answer."""
        if asked == answered or (asked, answered) in self._known:
            return
        self._known.add((asked, answered))
        card = self._offers.find(asked) or ModelCard(asked)
        if not card.answers_as(answered):
            _log.warning("%s was asked, and %s answered: rows name who did (meta.model)", asked, answered)


def find_shortage(card: ModelCard, max_tokens: int, num_prompt_tokens: int) -> str:
    """Why prompt and answer do not fit into a model; empty where they do."""
    if card.max_completion_tokens is not None and max_tokens > card.max_completion_tokens:
        return f"writes at most {card.max_completion_tokens:,} tokens an answer, and {max_tokens:,} may be asked for"
    if card.context_length is not None and num_prompt_tokens + max_tokens > card.context_length:
        return (
            f"has a context of {card.context_length:,} tokens, and a prompt has about {num_prompt_tokens:,} beside the "
            f"{max_tokens:,} of an answer"
        )
    return ""


def can_bind(card: ModelCard) -> bool:
    """Whether a model takes a schema for its answers, in the one way or the other."""
    return card.supports("structured_outputs") or card.supports("response_format")


def _warnings_of(card: ModelCard, option: str) -> Iterator[str]:
    if card.expires_within(SOON_DAYS, now=datetime.now(UTC)):
        yield f"is offered until {card.expires:%Y-%m-%d}: choose another {option} for what is to go on longer"
    if can_bind(card) and not card.supports("structured_outputs"):
        yield "takes response_format, but is not said to obey a schema (structured_outputs): answers may be refused"
