"""Who writes a row: a chat API, the packaged model behind the same client, or the offline composer."""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Final

import orjson

from nanosft.conversation import to_dicts
from nanosft.errors import ConfigError
from nanosft.generate import provider
from nanosft.generate.offers import Offers, OtherModels, check_costs_known, find_prices, find_reasoning, model_slugs
from nanosft.generate.offline import SOURCE, Composer
from nanosft.generate.planning import LONG_TALK, Plan, PlanRow
from nanosft.generate.provider import (
    LOCAL_MODEL,
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    Meter,
    Prices,
    PromptTemplate,
    Usage,
    make_post,
    narrow_schema,
    read_generation_cost,
    read_key,
    response_format,
    serve_local_model,
    speaks_openrouter,
    write_messages,
)
from nanosft.generate.rows import Ask, RetryPolicy
from nanosft.knowledge import estimate_tokens
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.judge import is_paid_judge

OFFLINE_MODEL: Final = "offline-composer"
_SEED_BITS: Final = (1 << 31) - 1
_NUM_PROMPTS: Final = 2


def writer_shares(settings: GenerateSettings) -> dict[str, int]:
    """Whole shares of the rows by who writes them."""
    if settings.provider == "openrouter":
        return settings.model_shares
    return {LOCAL_MODEL if settings.provider == "local" else OFFLINE_MODEL: 1}


def model_name(settings: GenerateSettings) -> str | dict[str, int]:
    """What manifests call the writer; where there are several, each with its share."""
    shares = writer_shares(settings)
    return shares if len(shares) > 1 else next(iter(shares))


def source_name(settings: GenerateSettings) -> str:
    """What conversations name as their `meta.source`: those that no model wrote say so."""
    return SOURCE if settings.provider == "offline" else "generate"


def make_retries(settings: GenerateSettings) -> RetryPolicy:
    """How often a row is tried. The composer always answers a prompt alike, so that each try is another prompt."""
    if settings.provider == "offline":
        return RetryPolicy(1, _NUM_PROMPTS * settings.max_attempts)
    return RetryPolicy(settings.max_attempts, _NUM_PROMPTS)


def make_limit(settings: GenerateSettings, template: PromptTemplate) -> AdaptiveLimit:
    """Slots for requests in flight: the packaged model answers one at a time.

    Where requests or tokens per minute are limited, no more than half of a row's time allows: a row that waits for its
    turn longer than `row_timeout_s` would never be asked for.
    """
    if settings.provider == "offline" and settings.judge_model is not None:
        return AdaptiveLimit(settings.concurrency)  # as many rows as the judge may have in flight
    if settings.provider != "openrouter":
        return AdaptiveLimit(1)
    per_minute = min(
        settings.requests_per_minute or math.inf,
        (settings.tokens_per_minute or math.inf) / _request_tokens(settings, template),
    )
    return AdaptiveLimit(max(1, int(min(settings.concurrency, per_minute / 60 * settings.row_timeout_s / 2))))


def check_key(settings: GenerateSettings) -> None:
    """Refuse to begin without a key where one is needed.

    Raises:
        ConfigError: OPENROUTER_API_KEY is not set, and the endpoint is OpenRouter; or no HTTP header can hold it.
    """
    key = read_key(settings.openrouter_api_key)
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("OPENROUTER_API_KEY holds a character that no key has: copy it once more, as plain text")
    is_asked = settings.provider == "openrouter" or is_paid_judge(settings.judge_model)
    if is_asked and speaks_openrouter(settings.base_url) and not key:
        raise ConfigError(
            "OPENROUTER_API_KEY is not set: set it to a key of openrouter.ai, or use --provider offline (no model), "
            "--provider local (the packaged model) or --base-url (another endpoint)"
        )


def check_budget(settings: GenerateSettings, offers: Offers) -> None:
    """Refuse a budget that nothing could be held against.

    Raises:
        ConfigError: The endpoint may state no cost, and no price is given or listed.
    """
    if settings.budget_usd is None or settings.provider != "openrouter" or sends_openrouter_fields(settings):
        return
    options = "--prompt-price-usd and --completion-price-usd, or --openrouter-fields if it answers as OpenRouter does"
    slugs, prices = model_slugs(settings), prices_usd(settings, offers)
    check_costs_known(settings.budget_usd, slugs, prices, base_url=settings.base_url, options=options)


def prices_usd(settings: GenerateSettings, offers: Offers) -> dict[str, Prices]:
    """Prices of the models that may be asked, by slug; those whose prices nobody told are left out."""
    if settings.provider != "openrouter":
        return dict.fromkeys(writer_shares(settings), Prices(Decimal(0), Decimal(0)))
    given = settings.prompt_price_usd, settings.completion_price_usd
    found = {slug: find_prices(offers, slug, given) for slug in model_slugs(settings)}
    return {slug: prices for slug, prices in found.items() if prices is not None}


@asynccontextmanager
async def open_provider(
    settings: GenerateSettings,
    plan: Plan,
    template: PromptTemplate,
    limit: AdaptiveLimit,
    budget: Meter | None,
    offers: Offers,
) -> AsyncIterator[Ask]:
    """Who is asked for rows, while the context is open; under the budget, where there is one.

    Raises:
        ConfigError: The provider cannot be used as set up.
    """
    if settings.provider == "offline":
        yield _ask_composer(plan)
        return
    is_local = settings.provider == "local"
    models = () if is_local else model_slugs(settings)
    prices = prices_usd(settings, offers)
    async with open_client(settings, models=models, limit=limit, meter=budget, prices=prices) as client:
        yield _ask_client(client, settings, template, offers)


@asynccontextmanager
async def open_client(
    settings: GenerateSettings,
    *,
    models: tuple[str, ...],
    limit: AdaptiveLimit,
    meter: Meter | None,
    prices: Mapping[str, Prices],
) -> AsyncIterator[ChatClient]:
    """A client of the endpoint, or of the packaged model, while the context is open.

    Args:
        settings: Where the endpoint is, and its limits.
        models: Slugs, tried in order; empty: the packaged model.
        limit: Slots for requests in flight.
        meter: Keeps the budget; None: there is none.
        prices: Of the models, used where the endpoint states no cost.

    Raises:
        ConfigError: The packaged model cannot be used.
    """
    async with AsyncExitStack() as stack:
        is_local = not models
        base_url = stack.enter_context(serve_local_model()) if is_local else settings.base_url
        key = "" if is_local else read_key(settings.openrouter_api_key)
        send = await stack.enter_async_context(
            provider.open_http(
                base_url,
                key=key,
                num_connections=limit.ceiling,
                connect_timeout_s=settings.connect_timeout_s,
                read_timeout_s=settings.read_timeout_s,
            )
        )
        options = ClientOptions(
            models=models or (LOCAL_MODEL,),
            endpoint=base_url,
            openrouter=not is_local and sends_openrouter_fields(settings),
            max_retries=settings.max_retries,
            max_wait_s=settings.row_timeout_s,
            prices=prices,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            secret=key,
        )
        read_cost = partial(read_generation_cost, send) if options.openrouter else None
        yield ChatClient(make_post(send), options, limit=limit, meter=meter, read_cost=read_cost)


def request_seed(row: PlanRow, attempt: int) -> int:
    """The API's `seed`: 31 bits of the row's own, another one for each attempt."""
    return (row.seed + attempt) & _SEED_BITS


def limit_answer(settings: GenerateSettings, num_messages: int) -> int:
    """The longest answer of a conversation, in tokens: what is set is for one of 20 messages or fewer."""
    return max(settings.max_tokens, math.ceil(settings.max_tokens * num_messages / LONG_TALK))


def write_request(
    settings: GenerateSettings,
    template: PromptTemplate,
    offers: Offers,
    row: PlanRow,
    attempt: int,
    rejections: Sequence[str],
) -> ChatRequest:
    """What a chat model is asked for a row."""
    schema = response_format(row)
    return ChatRequest(
        messages=write_messages(template, row, model=row.model, rejections=rejections),
        response_format=narrow_schema(schema, row.first_message, row.num_messages)
        if settings.provider == "local"
        else schema,
        max_tokens=limit_answer(settings, row.num_messages),
        temperature=settings.temperature,
        seed=request_seed(row, attempt),
        num_tokens=_request_tokens(settings, template, row.num_messages),
        reasoning=_find_reasoning(settings, offers, row.model),
    )


def _ask_client(client: ChatClient, settings: GenerateSettings, template: PromptTemplate, offers: Offers) -> Ask:
    warn_of_others = OtherModels(offers)

    async def ask(
        row: PlanRow, attempt: int, rejections: Sequence[str], on_failure: Callable[[Answer], None]
    ) -> Answer:
        request = write_request(settings, template, offers, row, attempt, rejections)
        models = (row.model, *settings.fallback_models) if settings.provider == "openrouter" else None
        answer = await client.ask(request, on_failure=on_failure, models=models)
        warn_of_others(row.model, answer.model)
        return answer

    return ask


def _find_reasoning(settings: GenerateSettings, offers: Offers, model: str) -> dict[str, dict[str, Any]]:
    """How much each model that may be asked for a row reasons, by slug."""
    if settings.provider != "openrouter" or not sends_openrouter_fields(settings):
        return {}
    found = {slug: find_reasoning(settings, offers, slug) for slug in (model, *settings.fallback_models)}
    return {slug: reasoning for slug, reasoning in found.items() if reasoning is not None}


def _ask_composer(plan: Plan) -> Ask:
    composer = Composer(plan)

    async def ask(
        row: PlanRow, attempt: int, rejections: Sequence[str], on_failure: Callable[[Answer], None]
    ) -> Answer:
        del attempt, rejections, on_failure  # the composer has one answer to a prompt, and never fails
        text = orjson.dumps({"messages": to_dicts(composer.compose(row).messages)}).decode()
        return Answer(text, text, "stop", OFFLINE_MODEL, Usage(cost_usd=0.0))

    return ask


def sends_openrouter_fields(settings: GenerateSettings) -> bool:
    """Whether the endpoint is spoken to as OpenRouter is: it states costs, and has its form of batches."""
    fields = settings.openrouter_fields
    return speaks_openrouter(settings.base_url) if fields is None else fields


@lru_cache(maxsize=2)
def _count_tokens(text: str) -> int:
    return estimate_tokens(text)


def _request_tokens(settings: GenerateSettings, template: PromptTemplate, num_messages: int = LONG_TALK) -> int:
    """Tokens that one request may take at most: the prompt's fixed part, which is nearly all of it, and the answer."""
    return _count_tokens(template.system) + limit_answer(settings, num_messages)
