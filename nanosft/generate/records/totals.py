"""What is kept of each answer, and the sums of it that manifests state. Pure.

Money is counted in whole picodollars, so that sums do not depend on their order.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.generate.provider import MAX_COST_USD, Answer

_PICO: Final = 1e12
PROMPT_VARIANT_KEY: Final = "fresh"
"""What stored rows and rejects call their prompt variant; sets begun by any version go on with it."""


def row_meta(answer: Answer, *, row: int, cell: str, prompt_variant: int, attempt: int, source: str) -> dict[str, Any]:
    """The meta of an accepted conversation: where in the plan it stands, who wrote it, and what it cost."""
    return {
        "row": row,
        "cell": cell,
        "source": source,
        PROMPT_VARIANT_KEY: prompt_variant,
        "attempt": attempt,
        "model": answer.model,
        "cost_usd": answer.usage.cost_usd,
        "tokens": _tokens(answer),
    }


def reject_record(
    answer: Answer,
    *,
    row: int,
    cell: str,
    prompt_variant: int,
    attempt: int | None,
    reasons: tuple[str, ...],
    detail: str,
    given_up: bool = False,
) -> dict[str, Any]:
    """What is kept of an answer that was rejected.

    `attempt` is None where the client itself asked again, so that the row lost no attempt by it; `cost_usd` is None
    where the provider stated no cost; `given_up` is set on the last reject of a row.
    """
    return {
        "row": row,
        "cell": cell,
        PROMPT_VARIANT_KEY: prompt_variant,
        "attempt": attempt,
        "reason": reasons[0],
        "reasons": reasons,
        "detail": detail,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "cost_usd": answer.usage.cost_usd,
        "tokens": _tokens(answer),
        "given_up": given_up,
        "raw": answer.raw,
    }


@dataclass
class Tally:
    """Counts and costs of rows and rejects, a function of the lines alone and not of their order."""

    num_accepted: int = 0
    num_unknown: int = 0
    num_billed: int = 0
    accepted_pico: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    rejects_pico: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add_row(self, meta: Mapping[str, Any]) -> None:
        """Count an accepted conversation by its meta."""
        self.num_accepted += 1
        self.accepted_pico += pico_of(meta.get("cost_usd"))
        self.reported.update(dict.fromkeys(meta.get("reported", ()), 1))
        self._add(meta)

    def add_reject(self, record: Mapping[str, Any]) -> None:
        """Count a rejected answer."""
        reason = str(record["reason"])
        self.rejects[reason] += 1
        if record.get("cost_usd") is None:
            self.num_unknown += 1
        self.rejects_pico[reason] += pico_of(record.get("cost_usd"))
        self._add(record)

    @property
    def cost_usd(self) -> float:
        """All costs that are known."""
        return (self.accepted_pico + self.rejects_pico.total()) / _PICO

    @property
    def mean_cost_usd(self) -> float:
        """Mean cost of an answer that cost anything: errors that were not billed say nothing of one that was."""
        return self.cost_usd / self.num_billed if self.num_billed else 0.0

    @property
    def unknown_cost_usd(self) -> float:
        """What answers that never came may have cost: their number times the mean of those that did."""
        return round(self.num_unknown * self.mean_cost_usd, 12)

    def counts(self) -> dict[str, Any]:
        """What a manifest states: answers, rejects by reason, rows by what is only reported, tokens, and US dollars."""
        accepted_usd = self.accepted_pico / _PICO
        return {
            "answers": {
                "accepted": self.num_accepted,
                "refused": self.rejects.total() - self.num_unknown,
                "unknown": self.num_unknown,
            },
            "rejects": dict(sorted(self.rejects.items())),
            "reported": dict(sorted(self.reported.items())),
            "tokens": {name: self.tokens[name] for name in ("cached", "completion", "prompt")},
            "cost": {
                "total_usd": self.cost_usd,
                "unknown_usd": self.unknown_cost_usd,
                "accepted_usd": accepted_usd,
                "per_accepted_row_usd": round(self.cost_usd / self.num_accepted, 12) if self.num_accepted else 0.0,
                "rejects_usd": {reason: pico / _PICO for reason, pico in sorted(self.rejects_pico.items())},
            },
        }

    def _add(self, record: Mapping[str, Any]) -> None:
        self.num_billed += pico_of(record.get("cost_usd")) > 0
        tokens = record.get("tokens")
        if isinstance(tokens, dict):
            self.tokens.update(tokens)


def pico_of(cost_usd: float | None) -> int:
    """US dollars in whole picodollars; 0 for a cost that nobody stated, or that no answer has."""
    return round(cost_usd * _PICO) if cost_usd and cost_usd <= MAX_COST_USD else 0


def usd_of(pico: int) -> float:
    """Picodollars in US dollars."""
    return pico / _PICO


def _tokens(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    return {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
