"""What is kept of a judge's answers, and the sums of it that manifests state. Pure.

    meta.judge of a row, and `judge` of a reject    {"model", "scores": {…}, "reason", "cost_usd", "tokens"}
    meta.judge of a row that got no score           {"model", "unscored": why}
    a record among the rejects                      an answer of the judge that was paid for and is no use
    a record among the rejects                      an answer that was accepted and waits for its score, to be held

Money is counted in whole picodollars, as `totals` does.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.generate.provider import Answer
from nanosft.generate.records.money import pico_of, usage_of, usd_of
from nanosft.quality.scores import Score, ScoreTally

KIND_KEY: Final = "kind"
JUDGEMENT: Final = "judgement"
"""The kind of a record that is a judge's answer alone: no answer of the writer was rejected by it."""
HELD: Final = "held"
"""The kind of a record that keeps an accepted answer until it is scored: by a judge's batch, or by a later run."""
TRIED_KEY: Final = "tried_attempt"
"""What a judge's answer that counts as a try calls the attempt that it is about."""
TRIED_ANSWER_KEY: Final = "tried_answer"
"""What it calls the digest of the answer that it is about: two processes may have got two for one attempt."""
UNREADABLE: Final = ("unreadable", "the judge's answer cannot be read")
"""Name and words."""


def judge_meta(score: Score | None, answer: Answer) -> dict[str, Any]:
    """What stands under `judge`: the score and what it cost, or why there is none."""
    if score is None:
        detail = answer.problem.detail if answer.problem is not None else UNREADABLE[1]
        return {"model": answer.model, "unscored": detail}
    return {"model": answer.model, "scores": dict(score.values), "reason": score.reason, **usage_of(answer)}


def judgement_record(
    answer: Answer,
    *,
    row: int,
    cell: str,
    prompt_variant: int,
    tried: tuple[int, str] | None = None,
    why: tuple[str, str] = UNREADABLE,
) -> dict[str, Any]:
    """What is kept of a judge's answer that is no score; the conversation that it is of is asked about again.

    `tried` is the attempt that it is about and the digest of what was written then; None where the judge lost no try by
    it. `why` it is none is told where the answer itself has no problem.
    """
    problem = answer.problem
    kind, detail = why if problem is None else (problem.kind, problem.detail)
    try_of = {} if tried is None else {TRIED_KEY: tried[0], TRIED_ANSWER_KEY: tried[1]}
    return {
        KIND_KEY: JUDGEMENT,
        "row": row,
        "cell": cell,
        "fresh": prompt_variant,
        "attempt": None,
        "reason": f"judge/{kind}",
        "detail": detail,
        "given_up": False,
        "judge": {"model": answer.model, **usage_of(answer)},
        "raw": answer.raw,
        **try_of,
    }


@dataclass
class JudgeTally:
    """Counts and costs of judgements, a function of the lines alone and not of their order."""

    num_scored: int = 0
    num_unscored: int = 0
    num_refused: int = 0
    num_unusable: int = 0
    num_unknown: int = 0
    num_billed: int = 0
    pico: int = 0
    scores: ScoreTally = field(default_factory=ScoreTally)
    tokens: Counter[str] = field(default_factory=Counter)

    def add_row(self, judge: Mapping[str, Any]) -> None:
        """Count the judgement of a row that is kept."""
        if "unscored" in judge:
            self.num_unscored += 1
            return
        self.num_scored += 1
        self.scores.add(judge["scores"])
        self._add(judge)

    def add_reject(self, judge: Mapping[str, Any]) -> None:
        """Count the judgement of an answer that it refused."""
        self.num_refused += 1
        self._add(judge)

    def add_unusable(self, judge: Mapping[str, Any]) -> None:
        """Count an answer of the judge that is no score."""
        self.num_unusable += 1
        self.num_unknown += judge["cost_usd"] is None
        self._add(judge)

    @property
    def cost_usd(self) -> float:
        """All costs that are known."""
        return usd_of(self.pico)

    @property
    def mean_cost_usd(self) -> float:
        """Mean cost of an answer that cost anything."""
        return self.cost_usd / self.num_billed if self.num_billed else 0.0

    @property
    def unknown_cost_usd(self) -> float:
        """What answers that never came may have cost: their number times the mean of those that did."""
        return round(self.num_unknown * self.mean_cost_usd, 12)

    def counts(self) -> dict[str, Any]:
        """What a manifest states: rows by what became of them, means and counts by score of those kept, and dollars."""
        return {
            "rows": {"scored": self.num_scored, "unscored": self.num_unscored, "refused": self.num_refused},
            "unusable": self.num_unusable,
            "scores": self.scores.summarize(),
            "tokens": {name: self.tokens[name] for name in ("cached", "completion", "prompt", "reasoning")},
            "cost_usd": self.cost_usd,
            "unknown_usd": self.unknown_cost_usd,
        }

    def _add(self, judge: Mapping[str, Any]) -> None:
        pico = pico_of(judge["cost_usd"])
        self.pico += pico
        self.num_billed += pico > 0
        self.tokens.update(judge["tokens"])

    def __bool__(self) -> bool:
        return any((self.num_scored, self.num_unscored, self.num_refused, self.num_unusable))


def judge_pico(judge: object) -> int:
    """The known cost of a judgement, of what stands under `judge`; 0 where nothing does."""
    return pico_of(judge.get("cost_usd")) if judge is not None and isinstance(judge, Mapping) else 0
