"""What a plan will take before anything is asked: tokens, and dollars by the prices of a model.

Dollars are told twice: with nothing from the prompt cache, which no run exceeds, and as a provider that caches would
bill them. Then the fixed part of the prompt costs the price of cached tokens in every row but the first `concurrency`
ones, which are asked before anything is cached. Answers that are refused, and reasoning, come on top.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from nanosft.generate.judges import check_judge, estimate_scores_usd
from nanosft.generate.modes import ModePrices
from nanosft.generate.offers import Offers, check_offers, read_offers, warn_of_unread
from nanosft.generate.planning import Plan, plan_row
from nanosft.generate.provider import Prices, PromptTemplate, estimate_row_tokens
from nanosft.generate.writers import check_budget, limit_answer, prices_usd, writer_shares
from nanosft.settings.generate import GenerateSettings

_SAMPLE_ROWS: Final = 200
_STRIDE: Final = 7919
"""A prime."""


@dataclass(frozen=True, slots=True)
class PlanTokens:
    """Estimated tokens of one answer to each row.

    Attributes:
        num_rows: Rows of the plan.
        fixed: Tokens of the prompt that are the same for all rows: of one row.
        varying: The other prompt tokens, of all rows.
        completion: Tokens of the answers, of all rows.
        longest_prompt: Of the longest prompt of the rows that were looked at.
    """

    num_rows: int
    fixed: int
    varying: int
    completion: int
    longest_prompt: int

    def cost_usd(self, prices: Prices, *, num_uncached: int | None = None) -> Decimal:
        """What all rows cost: `num_uncached` of them find nothing in the prompt cache (None: all)."""
        cached = 0 if num_uncached is None else max(0, self.num_rows - num_uncached) * self.fixed
        return prices.cost_usd(
            prompt=self.num_rows * self.fixed + self.varying, cached=cached, completion=self.completion
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and dollars if every answer is accepted; rejected ones come on top.

    Attributes:
        fixed_tokens: Prompt tokens that are the same for all rows and may be cached.
        varying_tokens: The other prompt tokens.
        completion_tokens: Tokens of the answers.
        cost_usd: Without any cache; None where no price is known.
        cached_cost_usd: With the fixed part from the prompt cache.
        batch_cost_usd: The same in batches; None where a model has no batch price.
        prices_date: When the catalogue was read; empty: it was not.
    """

    fixed_tokens: int
    varying_tokens: int
    completion_tokens: int
    cost_usd: float | None
    cached_cost_usd: float | None = None
    batch_cost_usd: float | None = None
    prices_date: str = ""


def count_plan_tokens(settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> PlanTokens:
    """Tokens of the plan, from a sample of rows, one somewhere in each stretch: equal steps meet few of its values."""
    step = max(1, settings.num // _SAMPLE_ROWS)
    rows = [place * step + place * _STRIDE % step for place in range(settings.num // step)]
    sample = [estimate_row_tokens(template, plan_row(plan, row)) for row in rows]
    scale = settings.num / len(sample)
    return PlanTokens(
        num_rows=settings.num,
        fixed=sample[0][0],
        varying=round(scale * sum(varying for _, varying, _ in sample)),
        completion=round(scale * sum(completion for _, _, completion in sample)),
        longest_prompt=max(fixed + varying for fixed, varying, _ in sample),
    )


def share_cost(
    tokens: PlanTokens, shares: Mapping[str, int], prices: Mapping[str, Prices], *, num_uncached: int | None = None
) -> float | None:
    """What the plan costs where models share its rows; None where one of them has no price."""
    if any(slug not in prices for slug in shares):
        return None
    total = sum(shares.values())
    parts = (tokens.cost_usd(prices[slug], num_uncached=num_uncached) * share / total for slug, share in shares.items())
    return float(sum(parts, Decimal(0)))


def estimate_plan(settings: GenerateSettings, tokens: PlanTokens, offers: Offers) -> Estimate:
    """What the plan takes on the models that are to write it."""
    shares = writer_shares(settings)
    cards = {slug: offers.find(slug) for slug in shares}
    prices = prices_usd(settings, offers)
    batch = {slug: card.batch_prices for slug, card in cards.items() if card and card.batch_prices}
    return Estimate(
        fixed_tokens=tokens.num_rows * tokens.fixed,
        varying_tokens=tokens.varying,
        completion_tokens=tokens.completion,
        cost_usd=share_cost(tokens, shares, prices),
        cached_cost_usd=share_cost(tokens, shares, prices, num_uncached=settings.concurrency),
        batch_cost_usd=share_cost(tokens, shares, batch, num_uncached=settings.concurrency),
        prices_date=offers.date,
    )


def estimate_answer_usd(settings: GenerateSettings, template: PromptTemplate, plan: Plan, offers: Offers) -> float:
    """What one answer costs without any cache, on the dearest of the models; 0 where no price is known."""
    tokens = count_plan_tokens(settings, template, plan)
    prices = prices_usd(settings, offers).values()
    return float(max((tokens.cost_usd(item) / tokens.num_rows for item in prices), default=0))


def look_at_models(settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> Offers:
    """What the endpoint says of models; those of the run can do the job by it. Raises as `check_models`."""
    offers = read_offers(settings)
    warn_of_unread(offers)
    check_models(settings, template, plan, offers)
    return offers


def check_models(settings: GenerateSettings, template: PromptTemplate, plan: Plan, offers: Offers) -> None:
    """Refuse writers and a judge that cannot do the job, and a budget that nothing could be held against.

    Raises:
        ConfigError: The catalogue says so of one, or nobody tells what it costs.
    """
    if settings.provider == "openrouter":
        longest = count_plan_tokens(settings, template, plan).longest_prompt
        max_tokens = limit_answer(settings, plan.most_messages)
        check_offers(settings, offers, num_prompt_tokens=longest, max_tokens=max_tokens)
    check_budget(settings, offers)
    check_judge(settings, plan, offers)


def price_modes(settings: GenerateSettings, template: PromptTemplate, plan: Plan, offers: Offers) -> ModePrices:
    """What the plan costs one by one with the prompt cache, and in batches, its scores among it.

    A judge without a batch price is taken to cost in batches what it costs one by one; one that has no price one by one
    is left out of both.
    """
    estimate = estimate_plan(settings, count_plan_tokens(settings, template, plan), offers)
    scores_usd, batch_scores_usd = estimate_scores_usd(settings, plan, offers)
    sync_usd, batch_usd = estimate.cached_cost_usd, estimate.batch_cost_usd
    if scores_usd is None:
        return ModePrices(sync_usd, batch_usd)
    return ModePrices(
        None if sync_usd is None else sync_usd + scores_usd,
        None if batch_usd is None else batch_usd + (scores_usd if batch_scores_usd is None else batch_scores_usd),
    )
