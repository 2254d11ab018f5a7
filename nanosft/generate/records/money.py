"""Money in whole picodollars, so that sums do not depend on their order, and what an answer says it used. Pure."""

from typing import Any, Final

from nanosft.generate.provider import MAX_COST_USD, Answer

_PICO: Final = 1e12


def pico_of(cost_usd: float | None) -> int:
    """US dollars in whole picodollars; 0 for a cost that nobody stated, or that no answer has."""
    return round(cost_usd * _PICO) if cost_usd and cost_usd <= MAX_COST_USD else 0


def usd_of(pico: int) -> float:
    """Picodollars in US dollars."""
    return pico / _PICO


def usage_of(answer: Answer) -> dict[str, Any]:
    """`cost_usd`, None where the provider stated none, and `tokens` of an answer, as lines keep them."""
    usage = answer.usage
    tokens = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
    return {"cost_usd": usage.cost_usd, "tokens": tokens}
