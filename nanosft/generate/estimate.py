"""What a plan will take and cover, before anything is asked: coverage, prompts, tokens, dollars. Calls nobody."""

from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.markup import escape

from nanosft.generate.planning import Plan, PlanRow, cover, plan_row, render_coverage
from nanosft.generate.provider import PromptTemplate, estimate_row_tokens, write_messages
from nanosft.generate.writers import is_from_memory, model_name, prices_usd
from nanosft.knowledge import estimate_tokens
from nanosft.settings.generate import GenerateSettings

_SAMPLE_ROWS: Final = 200
_NUM_PROMPTS_SHOWN: Final = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and dollars if every answer is accepted; rejected ones come on top.

    Attributes:
        fixed_tokens: Prompt tokens that are the same for all rows and may be cached.
        varying_tokens: The other prompt tokens.
        completion_tokens: Tokens of the answers.
        cost_usd: Without any cache; None where no price is known.
    """

    fixed_tokens: int
    varying_tokens: int
    completion_tokens: int
    cost_usd: float | None


def estimate_row(settings: GenerateSettings, template: PromptTemplate, row: PlanRow) -> Estimate:
    """What one answer to one row takes."""
    return _priced(settings, *estimate_row_tokens(template, row))


def estimate_plan(settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> Estimate:
    """What one answer to each row takes, from a sample of evenly spaced rows."""
    rows = range(0, settings.num, max(1, settings.num // _SAMPLE_ROWS))
    sample = [estimate_row(settings, template, plan_row(plan, row)) for row in rows]
    scale = settings.num / len(sample)
    return _priced(
        settings,
        round(scale * sum(item.fixed_tokens for item in sample)),
        round(scale * sum(item.varying_tokens for item in sample)),
        round(scale * sum(item.completion_tokens for item in sample)),
    )


def print_dry_run(console: Console, settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> Estimate:
    """Print the plan's coverage, its first prompts, and what it will take."""
    estimate = estimate_plan(settings, template, plan)
    console.print(render_coverage(cover(plan, settings.num)))
    console.print(_render_prompts(settings, template, plan))
    total = estimate.fixed_tokens + estimate.varying_tokens
    prices = prices_usd(settings)
    cost = (
        f"${estimate.cost_usd:,.2f} without prompt caching, at ${prices[0]:g} and ${prices[1]:g} per million"
        + (" (from memory: see --prompt-price-usd)" if is_from_memory(settings) else "")
        if estimate.cost_usd is not None and prices is not None
        else f"the price of {settings.model} is not known here: give --prompt-price-usd and --completion-price-usd"
    )
    console.print(
        f"[bold]Estimate[/] for {settings.num:,} rows, rejected answers not counted: {total:,} prompt tokens, of which "
        f"{estimate.fixed_tokens:,} may be cached, and {estimate.completion_tokens:,} tokens of answers; {cost}",
        highlight=False,
    )
    return estimate


def _render_prompts(settings: GenerateSettings, template: PromptTemplate, plan: Plan) -> Group:
    lines = [f"[bold]First prompts[/] (after the fixed part of {estimate_tokens(template.system):,} tokens)"]
    for number in range(min(_NUM_PROMPTS_SHOWN, settings.num)):
        messages = write_messages(template, plan_row(plan, number), model=model_name(settings))
        lines.append(f"[dim]row {number}:[/] {escape(str(messages[-1]['content']))}")
    return Group(*lines)


def _priced(settings: GenerateSettings, fixed: int, varying: int, completion: int) -> Estimate:
    prices = prices_usd(settings)
    cost_usd = None if prices is None else ((fixed + varying) * prices[0] + completion * prices[1]) / 1e6
    return Estimate(fixed, varying, completion, cost_usd)
