"""Who writes a row: a chat API, the packaged model behind the same client, or the offline composer."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import orjson

from nanosft.errors import ConfigError
from nanosft.generate.answers import Answer, Usage
from nanosft.generate.client import ChatClient, ChatRequest, ClientOptions
from nanosft.generate.client_http import open_post, speaks_openrouter
from nanosft.generate.client_local import MODEL_NAME, narrow, serve_local_model
from nanosft.generate.limits import AdaptiveLimit
from nanosft.generate.offline import SOURCE, compose
from nanosft.generate.plan import Plan, PlanRow
from nanosft.generate.prompts import Prompter, response_format, write_messages
from nanosft.generate.rows import Ask, Attempts
from nanosft.knowledge import estimate_tokens
from nanosft.settings.generate import GenerateSettings

OFFLINE_MODEL: Final = "offline-composer"
_SEED_BITS: Final = (1 << 31) - 1
_NUM_PROMPTS: Final = 2
_PRICES_USD: Final = {"google/gemini-2.5-flash": (0.30, 2.50)}
"""Dollars per million tokens of prompt and answer, for estimates before anything is asked. Of 2025-11."""


def model_name(settings: GenerateSettings) -> str:
    """What manifests call the writer."""
    return {"openrouter": settings.model, "local": MODEL_NAME, "offline": OFFLINE_MODEL}[settings.provider]


def source_name(settings: GenerateSettings) -> str:
    """What conversations name as their `meta.source`: those that no model wrote say so."""
    return SOURCE if settings.provider == "offline" else "generate"


def make_attempts(settings: GenerateSettings) -> Attempts:
    """How often a row is tried. The composer always answers a prompt alike, so each of its attempts is a fresh one."""
    if settings.provider == "offline":
        return Attempts(1, _NUM_PROMPTS * settings.max_attempts)
    return Attempts(settings.max_attempts, _NUM_PROMPTS)


def make_limit(settings: GenerateSettings) -> AdaptiveLimit:
    """Places for rows in flight: the packaged model answers one at a time."""
    return AdaptiveLimit(settings.concurrency if settings.provider == "openrouter" else 1)


def check_key(settings: GenerateSettings) -> None:
    """Refuse to begin without a key where one is needed.

    Raises:
        ConfigError: OPENROUTER_API_KEY is not set, and the endpoint is OpenRouter.
    """
    if settings.provider == "openrouter" and speaks_openrouter(settings.base_url) and not _key(settings):
        raise ConfigError(
            "OPENROUTER_API_KEY is not set: set it to a key of openrouter.ai, or use --provider offline (no model), "
            "--provider local (the packaged model) or --base-url (another endpoint)"
        )


def prices_usd(settings: GenerateSettings) -> tuple[float, float] | None:
    """Dollars per million tokens of prompt and answer; None where nobody told."""
    if settings.provider != "openrouter":
        return 0.0, 0.0
    known = _PRICES_USD.get(settings.model)
    prompt, completion = settings.prompt_price_usd, settings.completion_price_usd
    if prompt is None and completion is None:
        return known
    return prompt or 0.0, completion or 0.0


@asynccontextmanager
async def open_provider(
    settings: GenerateSettings, plan: Plan, prompter: Prompter, limit: AdaptiveLimit
) -> AsyncIterator[Ask]:
    """Who is asked for rows, while the context is open.

    Raises:
        ConfigError: The provider cannot be used as set up.
    """
    if settings.provider == "offline":
        yield _ask_composer(plan)
        return
    async with AsyncExitStack() as stack:
        is_local = settings.provider == "local"
        base_url = stack.enter_context(serve_local_model()) if is_local else settings.base_url
        key = "" if is_local else _key(settings)
        post = await stack.enter_async_context(
            open_post(
                base_url,
                key=key,
                num_connections=limit.ceiling,
                connect_timeout_s=settings.connect_timeout_s,
                read_timeout_s=settings.read_timeout_s,
            )
        )
        openrouter = settings.openrouter_fields
        options = ClientOptions(
            models=(MODEL_NAME,) if is_local else (settings.model, *settings.fallback_models),
            endpoint=base_url,
            openrouter=speaks_openrouter(base_url) if openrouter is None else openrouter,
            max_retries=settings.max_retries,
            prompt_price_usd=settings.prompt_price_usd or 0.0,
            completion_price_usd=settings.completion_price_usd or 0.0,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            secret=key,
        )
        yield _ask_client(ChatClient(post, options, limit=limit), settings, prompter)


def request_seed(row: PlanRow, attempt: int) -> int:
    """The API's `seed`: 31 bits of the row's own, another one for each attempt."""
    return (row.seed + attempt) & _SEED_BITS


def _ask_client(client: ChatClient, settings: GenerateSettings, prompter: Prompter) -> Ask:
    model = model_name(settings)
    num_fixed_tokens = estimate_tokens(prompter.system) + settings.max_tokens

    async def ask(row: PlanRow, attempt: int, refusals: Sequence[str], on_failure: Callable[[Answer], None]) -> Answer:
        schema = response_format(row)
        request = ChatRequest(
            messages=write_messages(prompter, row, model=model, refusals=refusals),
            response_format=narrow(schema, row.first_message, row.num_messages)
            if settings.provider == "local"
            else schema,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            seed=request_seed(row, attempt),
            num_tokens=num_fixed_tokens,
        )
        return await client.ask(request, on_failure=on_failure)

    return ask


def _ask_composer(plan: Plan) -> Ask:
    async def ask(row: PlanRow, attempt: int, refusals: Sequence[str], on_failure: Callable[[Answer], None]) -> Answer:
        del attempt, refusals, on_failure  # the composer has one answer to a prompt, and never fails
        messages = [{"role": message.role, "content": message.text} for message in compose(plan, row).messages]
        text = orjson.dumps({"messages": messages}).decode()
        return Answer(text, text, "stop", OFFLINE_MODEL, Usage(cost_usd=0.0))

    return ask


def _key(settings: GenerateSettings) -> str:
    return settings.openrouter_api_key.get_secret_value().strip() if settings.openrouter_api_key else ""
