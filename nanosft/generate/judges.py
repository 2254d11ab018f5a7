"""Who scores a row: a second model behind the chat API, or the packaged one behind the same client."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from nanosft.conversation import Conversation
from nanosft.generate.offers import Demand, Offers, OtherModels, check_costs_known, check_model, find_prices
from nanosft.generate.planning import TOKENS_PER_MESSAGE, Plan, PlanRow
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    Prices,
    unfence,
    write_fixed_part,
)
from nanosft.generate.rows import AskJudge, Judge, JudgeBatches, KindMeter, WriteCase
from nanosft.generate.writers import open_client, request_seed, sends_openrouter_fields
from nanosft.knowledge import estimate_tokens
from nanosft.quality.scores import (
    JUDGE_TEMPERATURES,
    LOCAL_REASON_CHARS,
    MAX_TOKENS,
    hash_task,
    list_criteria,
    make_score_format,
    parse_score,
    write_case,
    write_task,
)
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.judge import LOCAL_JUDGE, is_paid_judge

_CRITERIA: Final = list_criteria(has_course=True)
JUDGE_SETTINGS: Final = ("judge_model", "judge_share", "min_score")
"""The settings of a judge that decide what comes out."""
TOKENS_PER_SCORE: Final = 80
"""Of a judge's answer: an estimate."""


def check_judge(settings: GenerateSettings, plan: Plan, offers: Offers) -> None:
    """Refuse a judge that cannot do the job, or that a budget could not be held against.

    Raises:
        ConfigError: The catalogue says so of it; or the endpoint may state no cost, and no price is given or listed.
    """
    if settings.judge_model is None or not is_paid_judge(settings.judge_model):
        return
    fixed, _, _ = estimate_judge_tokens(settings, plan)
    demand = judge_demand(fixed + plan.most_messages * TOKENS_PER_MESSAGE)
    check_model(offers, settings.judge_model, demand, base_url=settings.base_url)
    if sends_openrouter_fields(settings):
        return
    options = (
        "--judge-prompt-price-usd and --judge-completion-price-usd, or --openrouter-fields if it answers as "
        "OpenRouter does"
    )
    prices = _judge_prices(settings, offers)
    check_costs_known(settings.budget_usd, (settings.judge_model,), prices, base_url=settings.base_url, options=options)


def judge_demand(num_prompt_tokens: int) -> Demand:
    """What a judge has to be able to do, whichever command asks it."""
    return Demand("--judge-model", MAX_TOKENS, num_prompt_tokens, "or a shorter knowledge base")


def plan_settings(settings: GenerateSettings, plan: Plan) -> dict[str, Any]:
    """What a plan's manifests state of its judge; nothing without one, so that sets without one go on."""
    if settings.judge_model is None:
        return {}
    content = settings.content()
    stated = {name: content[name] for name in JUDGE_SETTINGS}
    return {**stated, "judge_task": hash_task(write_task(plan.knowledge, _CRITERIA))}


def estimate_judge_tokens(settings: GenerateSettings, plan: Plan) -> tuple[int, int, int]:
    """Estimated (fixed prompt, varying prompt, answer) tokens of scoring one conversation; zeros without a judge."""
    if settings.judge_model is None:
        return 0, 0, 0
    varying = round(plan.mean_messages * TOKENS_PER_MESSAGE)
    return estimate_tokens(write_task(plan.knowledge, _CRITERIA)), varying, TOKENS_PER_SCORE


def estimate_judge_usd(settings: GenerateSettings, plan: Plan, offers: Offers) -> float:
    """What one score costs, asked for alone and without any cache, by estimate; 0 where no price is known."""
    fixed, varying, answer = estimate_judge_tokens(settings, plan)
    prices = _judge_prices(settings, offers).values()
    return float(sum(item.cost_usd(prompt=fixed + varying, completion=answer) for item in prices))


def estimate_scores_usd(settings: GenerateSettings, plan: Plan, offers: Offers) -> tuple[float | None, float | None]:
    """Dollars of scoring the plan one by one, by the prices given or listed, and in batches, by those listed alone.

    Either is None where it has no price.

    The fixed part of the prompt is taken to come from the prompt cache as far as that has a price, in all requests but
    the first `concurrency` ones.
    """
    fixed, varying, answer = estimate_judge_tokens(settings, plan)
    num = _num_scores(settings)
    cached = max(0, num - settings.concurrency) * fixed
    alone = _judge_prices(settings, offers).get(settings.judge_model or "")
    card = offers.find(settings.judge_model) if settings.judge_model is not None else None
    sync_usd, batch_usd = (
        None
        if prices is None
        else float(prices.cost_usd(prompt=num * (fixed + varying), cached=cached, completion=num * answer))
        for prices in (alone, None if card is None else card.batch_prices)
    )
    return sync_usd, batch_usd


def tell_judge(settings: GenerateSettings, plan: Plan, offers: Offers) -> str:
    """What scoring the plan takes, before anything is asked: tokens, and dollars where a price is known."""
    fixed, varying, answer = estimate_judge_tokens(settings, plan)
    num = _num_scores(settings)
    cost_usd = num * estimate_judge_usd(settings, plan, offers)
    _, batch_usd = estimate_scores_usd(settings, plan, offers)
    in_batches = (
        "" if batch_usd is None or settings.provider != "openrouter" else f", ${batch_usd:,.2f} with it in batches"
    )
    listed = f" of {offers.date}" if offers.date and settings.judge_prompt_price_usd is None else ""
    told = "; ".join(f"{item.per_million()}{listed}" for item in _judge_prices(settings, offers).values())
    cost = f"about ${cost_usd:,.2f} without prompt caching{in_batches} ({told})" if told else "no price of it is known"
    return (
        f"{settings.judge_model} scores {num:,} of them: {num * (fixed + varying):,} prompt tokens, of which "
        f"{num * fixed:,} may be cached, and {num * answer:,} tokens of answers; "
        + (cost if is_paid_judge(settings.judge_model) else "nothing to pay")
    )


def _num_scores(settings: GenerateSettings) -> int:
    return round(settings.num * settings.judge_share)


def _judge_prices(settings: GenerateSettings, offers: Offers) -> dict[str, Prices]:
    """Prices of the judge by its slug; empty where nobody told any, or where there is nothing to pay."""
    if settings.judge_model is None or not is_paid_judge(settings.judge_model):
        return {}
    given = settings.judge_prompt_price_usd, settings.judge_completion_price_usd
    found = find_prices(offers, settings.judge_model, given)
    return {} if found is None else {settings.judge_model: found}


@asynccontextmanager
async def open_judge(
    settings: GenerateSettings, plan: Plan, meter: KindMeter | None, offers: Offers
) -> AsyncIterator[Judge | None]:
    """Who scores rows, while the context is open; None where no judge is set.

    Raises:
        ConfigError: The judge cannot be used as set up.
    """
    if settings.judge_model is None:
        yield None
        return
    is_local = settings.judge_model == LOCAL_JUDGE
    limit = AdaptiveLimit(1 if is_local else settings.concurrency)
    prices = _judge_prices(settings, offers)
    models = () if is_local else (settings.judge_model,)
    write = _write_cases(settings.judge_model, plan)
    account = 0 if meter is None else meter.account
    batches = None if is_local else JudgeBatches(settings.judge_model, write, account)
    async with open_client(settings, models=models, limit=limit, meter=meter, prices=prices) as client:
        yield Judge(
            ask=_ask_client(client, write, OtherModels(offers), settings.judge_model),
            parse=lambda text: parse_score(unfence(text), _CRITERIA),
            limit=limit,
            min_score=settings.min_score,
            share=settings.judge_share,
            seed=settings.seed,
            timeout_s=settings.row_timeout_s,
            batches=batches,
        )


def _write_cases(model: str, plan: Plan) -> WriteCase:
    task = write_task(plan.knowledge, _CRITERIA)
    max_reason_chars = LOCAL_REASON_CHARS if model == LOCAL_JUDGE else None
    score_format = make_score_format(_CRITERIA, max_reason_chars=max_reason_chars)
    fixed_part = write_fixed_part(task, model=model)
    num_tokens = estimate_tokens(task) + MAX_TOKENS

    def write(row: PlanRow, conversation: Conversation, number: int) -> ChatRequest:
        case = write_case(conversation, persona=row.persona.description, course=row.dynamic.description)
        return ChatRequest(
            messages=[fixed_part, {"role": "user", "content": case}],
            response_format=score_format,
            max_tokens=MAX_TOKENS,
            temperature=JUDGE_TEMPERATURES[number > 0],
            seed=request_seed(row, number),
            num_tokens=num_tokens,
        )

    return write


def _ask_client(client: ChatClient, write: WriteCase, warn_of_others: OtherModels, model: str) -> AskJudge:
    async def ask(
        row: PlanRow, conversation: Conversation, number: int, on_failure: Callable[[Answer], None]
    ) -> Answer:
        answer = await client.ask(write(row, conversation, number), on_failure=on_failure)
        if model != LOCAL_JUDGE:
            warn_of_others(model, answer.model)
        return answer

    return ask
