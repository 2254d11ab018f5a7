"""`nanosft models`: which models can write a plan's conversations, and what a thousand of them cost on each."""

from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from nanosft.errors import ConfigError, CreditError, ProviderError
from nanosft.generate.dry_run import tell_assumptions
from nanosft.generate.estimate import PlanTokens, count_plan_tokens
from nanosft.generate.offer_table import Quote, quote, quote_fitting, render_quotes
from nanosft.generate.offers import Offers, read_offers
from nanosft.generate.plan_record import make_run_plan
from nanosft.generate.planning import read_dimensions
from nanosft.generate.provider import make_template
from nanosft.knowledge import read_knowledge
from nanosft.progress import console, make_result_console, write_json
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.offers import ModelsSettings


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed: the models that were named, then the others that can do the job, cheapest first."""

    named: list[Quote]
    others: list[Quote]
    num_left_out: int
    num_free: int


def run_models(settings: ModelsSettings) -> Listing:
    """Print the models of the endpoint that can do the job.

    Raises:
        ConfigError: The endpoint lists no model with a price, or the knowledge base or the dimensions cannot be used.
        CreditError: The key is refused.
        ProviderError: It does not answer.
    """
    asked = settings.plan_settings()
    knowledge = read_knowledge(asked.knowledge)
    plan = make_run_plan(asked, read_dimensions(asked.dimensions), knowledge)
    tokens = count_plan_tokens(asked, make_template(plan, tone=asked.tone), plan)
    offers = read_offers(asked)
    if offers.problem:
        kind = CreditError if offers.key_refused else ProviderError
        raise kind(f"no list of models: {offers.problem}")
    if not any(card.prices for card in offers.cards.values()):
        raise ConfigError(
            f"{settings.base_url}/models: lists no prices: --base-url of one that does, such as OpenRouter"
        )
    listing = choose(settings, asked, offers, tokens)
    if settings.json_output:
        write_json(_record(listing, tokens, offers))
        return listing
    _print(listing, settings, asked, offers, tokens)
    return listing


def choose(settings: ModelsSettings, asked: GenerateSettings, offers: Offers, tokens: PlanTokens) -> Listing:
    """What is listed of all that is on offer. Pure."""
    word = settings.word.lower()
    named = [
        quote(card, tokens, num_uncached=asked.concurrency)
        for slug in asked.model_shares
        if (card := offers.find(slug)) is not None and word in card.slug.lower()
    ]
    taken = {item.card.slug for item in named}
    fitting = [
        item
        for item in quote_fitting(offers, tokens, max_tokens=asked.max_tokens, num_uncached=asked.concurrency)
        if word in item.card.slug.lower() and item.card.slug not in taken
    ]
    paid = [item for item in fitting if settings.free or not item.is_free]
    return Listing(named, paid[: settings.limit], max(0, len(paid) - settings.limit), len(fitting) - len(paid))


def _print(
    listing: Listing, settings: ModelsSettings, asked: GenerateSettings, offers: Offers, tokens: PlanTokens
) -> None:
    out = make_result_console()
    quotes = [*listing.named, *listing.others]
    if quotes:
        title = f"Dollars a million tokens, and of 1,000 conversations ({offers.date})"
        out.print(render_quotes(quotes, title=title, chosen=asked.model_shares))
    else:
        out.print(
            f"No model of {len(offers.cards):,} that can do the job has {escape(repr(settings.word))} in its name."
        )
    rest = [
        f"{listing.num_left_out:,} dearer ones: --limit" if listing.num_left_out else "",
        f"{listing.num_free:,} that cost nothing and answer few requests a day: --free" if listing.num_free else "",
    ]
    if told := "; ".join(filter(None, rest)):
        out.print(f"Not listed: {told}.", highlight=False)
    out.print(tell_assumptions(asked, tokens), highlight=False)
    for slug in asked.model_shares:
        if offers.find(slug) is None:
            console.print(f"{escape(slug)} is not on offer", style="yellow", highlight=False)


def _record(listing: Listing, tokens: PlanTokens, offers: Offers) -> dict[str, Any]:
    return {
        "date": offers.date,
        "tokens_per_row": {
            "fixed": tokens.fixed,
            "varying": tokens.varying // tokens.num_rows,
            "completion": tokens.completion // tokens.num_rows,
        },
        "named": [item.to_record() for item in listing.named],
        "others": [item.to_record() for item in listing.others],
        "num_left_out": listing.num_left_out,
        "num_free": listing.num_free,
    }
