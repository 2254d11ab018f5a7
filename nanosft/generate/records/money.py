"""Money in whole picodollars, so that sums do not depend on their order, and what an answer says it used. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from nanosft.generate.provider import MAX_COST_USD, Answer

_PICO: Final = 1e12


def pico_of(cost_usd: float | None) -> int:
    """US dollars in whole picodollars; 0 for a cost that nobody stated, or that no answer has."""
    return round(cost_usd * _PICO) if cost_usd and cost_usd <= MAX_COST_USD else 0


def usd_of(pico: int) -> float:
    """Picodollars in US dollars."""
    return pico / _PICO


def split_cost(total: int, weights: Sequence[int]) -> list[int]:
    """Picodollars shared out by weights, by the largest remainders: the shares add up to the total, exactly.

    Equal shares where all weights are 0; the first of equal remainders gets the odd one.
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda place: -(total * weights[place] % whole))
    for place in remainders[: total - sum(shares)]:
        shares[place] += 1
    return shares


def usage_of(answer: Answer) -> dict[str, Any]:
    """`cost_usd`, None where the provider stated none, and `tokens` of an answer, as lines keep them."""
    usage = answer.usage
    tokens = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
    if usage.reasoning_tokens:  # of the completion's
        tokens["reasoning"] = usage.reasoning_tokens
    return {"cost_usd": usage.cost_usd, "tokens": tokens}
