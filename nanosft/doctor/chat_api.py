"""The chat API: whether it takes the key, what is left on it, and whether it still offers the model."""

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from nanosft.doctor.finding import Finding, look
from nanosft.errors import ConfigError, CreditError
from nanosft.generate.provider import SOON_DAYS, Catalogue, ModelCard, read_key, speaks_openrouter
from nanosft.settings.doctor import DoctorSettings
from nanosft.settings.judge import is_paid_judge

_KEYS_URL = "https://openrouter.ai/settings/keys"
_CREDITS_URL = "https://openrouter.ai/settings/credits"
_LEAST_USD = 1.0


def check_chat_api(settings: DoctorSettings) -> Iterator[Finding]:
    """Key, what is left on it, models and judge."""
    judge = settings.judge_model if is_paid_judge(settings.judge_model) else None
    if settings.provider != "openrouter" and judge is None:
        yield Finding("chat API", "ok", f"--provider {settings.provider} asks nobody")
        return
    key = read_key(settings.openrouter_api_key)
    if not key and speaks_openrouter(settings.base_url):
        remedy = f"export OPENROUTER_API_KEY=… ({_KEYS_URL}), or generate --provider offline"
        yield Finding("API key", "warning", "OPENROUTER_API_KEY is not set: generate cannot ask for answers", remedy)
        return
    catalogue = Catalogue(settings.base_url, key=key, timeout_s=settings.timeout_s)
    if speaks_openrouter(settings.base_url):
        yield look("API key", f"export OPENROUTER_API_KEY=… ({_KEYS_URL})", lambda: _check_key(catalogue))
    for slug in settings.slugs:
        yield look("model", "--model SLUG, of those that the endpoint lists", partial(_check_model, catalogue, slug))
    if judge is not None:
        remedy = "--judge-model SLUG, of those that the endpoint lists"
        yield look("judge", remedy, partial(_check_model, catalogue, judge, name="judge"))


def _check_key(catalogue: Catalogue) -> Finding | str:
    status = catalogue.read_key()
    if status.left_usd is None:
        return f"accepted; no limit of its own, {status.used_usd:.2f} dollars used"
    found = f"accepted; {status.left_usd:.2f} dollars left"
    if status.left_usd <= 0:
        return Finding(
            "API key", "error", found, f"raise its limit: {_KEYS_URL}, {_CREDITS_URL}", CreditError.exit_code
        )
    if status.left_usd < _LEAST_USD:
        return Finding("API key", "warning", found, f"raise its limit: {_KEYS_URL}, {_CREDITS_URL}")
    return found


def _check_model(catalogue: Catalogue, slug: str, name: str = "model") -> Finding | str:
    option = "--model" if name == "model" else f"--{name}-model"
    offers = catalogue.read_models()
    if slug not in offers:
        near = difflib.get_close_matches(slug, offers, n=3)
        remedy = f"{option} {near[0]}" if near else f"{option} SLUG, of those that the endpoint lists"
        others = f"; there are {', '.join(near)}" if near else f"; there are {len(offers)} others"
        return Finding(name, "error", f"{slug} is not offered{others}", remedy, ConfigError.exit_code)
    card = offers[slug]
    if card.expires_within(SOON_DAYS, now=datetime.now(UTC)):
        return Finding(
            name, "warning", f"{slug} is offered until {card.expires:%Y-%m-%d}", f"{option} SLUG, before then"
        )
    if not card.supports("structured_outputs"):
        return Finding(
            name, "warning", f"{slug} does not bind its answers to a schema", "nanosft models lists those that do"
        )
    return f"{slug} is offered{_tell_card(card)}"


def _tell_card(card: ModelCard) -> str:
    told = [
        f"{card.context_length:,} tokens of context" if card.context_length else "",
        card.prices.per_million() if card.prices else "",
        f"in batches {card.batch_prices.per_million()}" if card.batch_prices else "",
    ]
    return "".join(f"; {text}" for text in told if text)
