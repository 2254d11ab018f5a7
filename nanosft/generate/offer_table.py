"""Models that can do a plan's job, with what it costs on each: the table of `nanosft models` and of a dry run."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from nanosft.generate.estimate import PlanTokens
from nanosft.generate.offers import Offers, find_shortage
from nanosft.generate.provider import SOON_DAYS, ModelCard, show_million

_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Quote:
    """A model with the dollars that a thousand conversations of a plan cost on it; None: no such price is known."""

    card: ModelCard
    sync_usd: float | None
    batch_usd: float | None

    @property
    def is_free(self) -> bool:
        """Whether nothing is paid; such a model answers few requests a day."""
        return self.sync_usd == 0

    def to_record(self) -> dict[str, Any]:
        """For programs."""
        usd = {"batch": self.batch_usd, "sync": self.sync_usd}
        return {"model": self.card.slug, "usd_per_thousand": usd, **self.card.to_record()}


def quote(card: ModelCard, tokens: PlanTokens, *, num_uncached: int) -> Quote:
    """What a plan costs on a model, with the fixed part of its prompt from the cache where that has a price."""
    sync_usd, batch_usd = (
        None
        if prices is None
        else float(tokens.cost_usd(prices, num_uncached=num_uncached)) / tokens.num_rows * _THOUSAND
        for prices in (card.prices, card.batch_prices)
    )
    return Quote(card, sync_usd, batch_usd)


def quote_fitting(offers: Offers, tokens: PlanTokens, *, max_tokens: int, num_uncached: int) -> list[Quote]:
    """Models that can do the job, cheapest first: they obey a schema, have room, a price, and no end within 30 days."""
    now = datetime.now(UTC)
    fitting = [
        card
        for card in offers.cards.values()
        if card.prices is not None
        and card.writes_text
        and card.supports("structured_outputs")
        and not card.expires_within(SOON_DAYS, now=now)
        and not find_shortage(card, max_tokens, tokens.longest_prompt)
    ]
    quotes = [quote(card, tokens, num_uncached=num_uncached) for card in fitting]
    return sorted(quotes, key=lambda item: (_cheapest(item), item.card.slug))


def render_quotes(quotes: Iterable[Quote], *, title: str = "", chosen: Iterable[str] = ()) -> Table:
    """The table: prices a million tokens, dollars a thousand conversations."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("model", overflow="fold")
    for heading in ("context", "prompt", "cached", "answer", "per 1,000", "in batches"):
        table.add_column(heading, justify="right", no_wrap=True)
    marked = set(chosen)
    for item in quotes:
        card, prices = item.card, item.card.prices
        name = escape(card.slug) + (
            "" if card.reasoning is None or not card.reasoning.is_mandatory else " [dim]reasons[/]"
        )
        table.add_row(
            f"[bold]{name}[/]" if card.slug in marked else name,
            _short(card.context_length),
            "?" if prices is None else show_million(prices.prompt),
            "-" if prices is None or prices.cached is None else show_million(prices.cached),
            "?" if prices is None else show_million(prices.completion),
            _dollars(item.sync_usd),
            _dollars(item.batch_usd),
        )
    return table


def _cheapest(item: Quote) -> float:
    return min(usd for usd in (item.sync_usd, item.batch_usd) if usd is not None)


def _dollars(usd: float | None) -> str:
    return "-" if usd is None else f"${usd:,.2f}"


def _short(length: int | None) -> str:
    return "?" if length is None else f"{length:,}" if length < _THOUSAND else f"{length // _THOUSAND:,}k"
