"""What came back of a batch, row by row: results matched with requests, and the batch's cost shared out. Pure.

Every request of the batch gets one line, whether an answer to it came or not, and the costs of the lines add up to
what the batch cost, to the picodollar.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nanosft.generate.batches.api import GONE, BatchResult, BatchStatus
from nanosft.generate.batches.record import BatchRecord, RowResult
from nanosft.generate.provider import Answer, Kind, Problem, Usage, parse_answer
from nanosft.generate.records import pico_of, split_cost, usd_of

_PICO: Final = 10**12
_COMPLETION_WEIGHT: Final = 8
"""An answer's token counts as so many of a prompt where no price is known: about what models ask."""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Dollars per million tokens, where the provider states no cost; 0: not known."""

    prompt_usd: float = 0.0
    completion_usd: float = 0.0

    def pico_of(self, usage: Usage) -> int:
        """What an answer costs by its tokens."""
        million_usd = usage.prompt_tokens * self.prompt_usd + usage.completion_tokens * self.completion_usd
        return pico_of(million_usd / 1e6)


def settle(
    record: BatchRecord, status: BatchStatus, found: Iterable[BatchResult], prices: TokenPrices
) -> list[RowResult]:
    """One result for each request, in their order.

    Of results with one id the first counts, and those with an id that the batch has not sent are passed over. A batch's
    cost is shared out by what the answers themselves state, else by their tokens. Where the batch states none, each
    answer costs what it states, or what its tokens cost; what a batch that is gone has cost nobody knows.
    """
    by_id: dict[str, BatchResult] = {}
    for result in found:
        by_id.setdefault(result.custom_id, result)
    none = status.error or (f"the batch ended as {status.state}" if status.state != "completed" else "missing")
    results = [
        by_id.get(custom_id) or BatchResult(custom_id, "", none) for custom_id in map(record.custom_id, record.requests)
    ]
    usages = [parse_answer(item.body.encode(), model=record.model).usage if item.body else None for item in results]
    if status.cost_usd is None:
        costs = [_own_cost(usage, prices) for usage in usages]
        if status.state == GONE:
            known = [custom_id in by_id for custom_id in map(record.custom_id, record.requests)]
            costs = [cost if is_known else None for cost, is_known in zip(costs, known, strict=True)]
    else:
        costs = list(split_cost(round(status.cost_usd * _PICO), _weights(usages, prices)))
    return [
        RowResult(request.row, item.body, item.error, cost)
        for request, item, cost in zip(record.requests, results, costs, strict=True)
    ]


def to_answer(result: RowResult, model: str) -> Answer:
    """The answer as the client would have returned it; a stand-in with a problem where none came."""
    if result.body:
        answer = parse_answer(result.body.encode(), model=model)
    else:
        kind: Kind = "batch_gone" if result.is_gone else "batch_no_answer"
        answer = Answer("", result.error, None, model, problem=Problem(kind, result.error[:300]))
    return answer if result.cost_pico is None else answer.with_cost(usd_of(result.cost_pico))


def _own_cost(usage: Usage | None, prices: TokenPrices) -> int | None:
    if usage is None:
        return 0
    if usage.cost_usd is not None:
        return pico_of(usage.cost_usd)
    return prices.pico_of(usage)


def _weights(usages: list[Usage | None], prices: TokenPrices) -> list[int]:
    """What each request counts when the batch's cost is shared out."""
    stated = [pico_of(usage.cost_usd) if usage is not None else 0 for usage in usages]
    if any(stated):
        return stated
    if any(priced := [prices.pico_of(usage) if usage is not None else 0 for usage in usages]):
        return priced
    tokens = [
        usage.prompt_tokens + _COMPLETION_WEIGHT * usage.completion_tokens if usage is not None else 0
        for usage in usages
    ]
    return tokens if any(tokens) else [int(usage is not None) for usage in usages]
