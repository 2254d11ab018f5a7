"""What a dry run prints: the plan's coverage, its first prompts, what it takes, and what other models would cost.

Asks no model; the endpoint's price list is read, where it answers.
"""

from typing import Final

from rich.console import Console, Group
from rich.markup import escape

from nanosft.generate.estimate import Estimate, PlanTokens, count_plan_tokens, estimate_plan
from nanosft.generate.offer_table import Quote, quote, quote_fitting, render_quotes
from nanosft.generate.offers import Offers, model_slugs
from nanosft.generate.planning import Plan, cover, plan_row, render_coverage
from nanosft.generate.provider import PromptTemplate, write_messages
from nanosft.generate.writers import limit_answer
from nanosft.knowledge import estimate_tokens
from nanosft.settings.generate import GenerateSettings

_NUM_PROMPTS_SHOWN: Final = 2
_NUM_OTHERS: Final = 5


def print_dry_run(
    console: Console, settings: GenerateSettings, template: PromptTemplate, plan: Plan, offers: Offers
) -> Estimate:
    """Print the plan's coverage, its first prompts, and what it will take."""
    tokens = count_plan_tokens(settings, template, plan)
    estimate = estimate_plan(settings, tokens, offers)
    console.print(render_coverage(cover(plan, settings.num)))
    console.print(_render_prompts(settings, template, plan))
    console.print(
        f"[bold]Estimate[/] for {settings.num:,} rows, rejected answers not counted: "
        f"{estimate.fixed_tokens + estimate.varying_tokens:,} prompt tokens, of which {estimate.fixed_tokens:,} may be "
        f"cached, and {estimate.completion_tokens:,} tokens of answers; {_tell_cost(settings, estimate, offers)}",
        highlight=False,
    )
    if offers.cards:
        console.print(
            render_quotes(
                _quotes(settings, tokens, offers, max_tokens=limit_answer(settings, plan.most_messages)),
                title=f"Dollars a million tokens, and of 1,000 conversations ({offers.date})",
                chosen=model_slugs(settings),
            )
        )
        console.print(tell_assumptions(settings, tokens), highlight=False)
    return estimate


def tell_assumptions(settings: GenerateSettings, tokens: PlanTokens) -> str:
    """What the dollars rest on."""
    return (
        f"A conversation is taken to be {tokens.fixed:,} prompt tokens that are the same in all, "
        f"{tokens.varying // tokens.num_rows:,} of its own and {tokens.completion // tokens.num_rows:,} of the answer "
        "(estimated from their letters), accepted at once and without reasoning. The first part is taken to come from "
        f"the prompt cache, where a model has a price for that, in all rows but the first {settings.concurrency:,}."
    )


def _tell_cost(settings: GenerateSettings, estimate: Estimate, offers: Offers) -> str:
    if settings.provider != "openrouter":
        return "nothing to pay"
    if estimate.cost_usd is None:
        why = f"no price list could be read ({escape(offers.problem)})" if offers.problem else "its price is not listed"
        return f"{why}: give --prompt-price-usd and --completion-price-usd for dollars"
    cached = (
        "" if estimate.cached_cost_usd in (None, estimate.cost_usd) else f", ${estimate.cached_cost_usd:,.2f} with it"
    )
    batch = "" if estimate.batch_cost_usd is None else f", ${estimate.batch_cost_usd:,.2f} in batches"
    listed = f" (prices of {estimate.prices_date})" if estimate.prices_date else ""
    return f"${estimate.cost_usd:,.2f} without prompt caching{cached}{batch}{listed}"


def _quotes(settings: GenerateSettings, tokens: PlanTokens, offers: Offers, *, max_tokens: int) -> list[Quote]:
    """The run's own models and the cheapest others that are paid for."""
    own = [
        quote(card, tokens, num_uncached=settings.concurrency)
        for slug in model_slugs(settings)
        if (card := offers.find(slug))
    ]
    fitting = quote_fitting(offers, tokens, max_tokens=max_tokens, num_uncached=settings.concurrency)
    taken = {item.card.slug for item in own}
    others = [item for item in fitting if item.card.slug not in taken and not item.is_free]
    return own + others[:_NUM_OTHERS]


def _render_prompts(settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> Group:
    lines = [f"[bold]First prompts[/] (after the fixed part of {estimate_tokens(template.system):,} tokens)"]
    for number in range(min(_NUM_PROMPTS_SHOWN, settings.num)):
        row = plan_row(plan, number)
        messages = write_messages(template, row, model=row.model)
        lines.append(f"[dim]row {number}:[/] {escape(str(messages[-1]['content']))}")
    return Group(*lines)
