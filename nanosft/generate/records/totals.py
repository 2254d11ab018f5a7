"""What is kept of each answer, and the sums of it that manifests state. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.generate.provider import Answer
from nanosft.generate.records.by_model import ModelTally, model_of, state_answers, state_models
from nanosft.generate.records.judgements import HELD, JUDGEMENT, KIND_KEY, JudgeTally
from nanosft.generate.records.money import pico_of, usage_of, usd_of

BATCH_KEY: Final = "batch"
"""What stored rows and rejects call the batch that their answer came with; absent where it was asked for alone."""
PROMPT_VARIANT_KEY: Final = "fresh"
"""What stored rows and rejects call their prompt variant; sets begun by any version go on with it."""
HELD_ATTEMPT_KEY: Final = "held_attempt"
"""What a held answer's record calls its attempt: none is lost by it."""
HELD_COST_KEY: Final = "held_cost_usd"
"""What the reject of an answer that was held calls its cost, which was counted as an accepted one's with its record."""


def row_meta(answer: Answer, *, row: int, cell: str, prompt_variant: int, attempt: int, source: str) -> dict[str, Any]:
    """The meta of an accepted conversation: where in the plan it stands, who wrote it, and what it cost."""
    return {
        "row": row,
        "cell": cell,
        "source": source,
        PROMPT_VARIANT_KEY: prompt_variant,
        "attempt": attempt,
        "model": answer.model,
        **usage_of(answer),
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
        **usage_of(answer),
        "given_up": given_up,
        "raw": answer.raw,
    }


def held_record(answer: Answer, *, row: int, cell: str, prompt_variant: int, attempt: int) -> dict[str, Any]:
    """What is kept of an answer that the gates accept and that waits: whoever goes on with it pays for no other.

    It waits for its score; or, where its process had to end, to be compared with what earlier ones have accepted.
    Its cost stands here, so that the row or the reject that it becomes costs nothing more.
    """
    record = reject_record(
        answer,
        row=row,
        cell=cell,
        prompt_variant=prompt_variant,
        attempt=None,
        reasons=("held",),
        detail="accepted by the gates, and to be compared with other rows or scored",
    )
    return {**record, KIND_KEY: HELD, HELD_ATTEMPT_KEY: attempt}


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
    judge: JudgeTally = field(default_factory=JudgeTally)
    models: defaultdict[str, ModelTally] = field(default_factory=lambda: defaultdict(ModelTally))

    def add_row(self, meta: Mapping[str, Any]) -> None:
        """Count an accepted conversation by its meta."""
        pico = pico_of(meta.get("cost_usd"))
        self.num_accepted += 1
        self.accepted_pico += pico
        for name in meta.get("reported", ()):
            self.reported[name] += 1
        if isinstance(judge := meta.get("judge"), dict):
            self.judge.add_row(judge)
        self.models[model_of(meta)].add_row(meta, pico)
        self._add(meta, pico)

    def add_reject(self, record: Mapping[str, Any]) -> None:
        """Count a rejected answer, or what else stands among the rejects: a judge's answer, one that is held."""
        kind, judge = record.get(KIND_KEY), record.get("judge")
        if kind == JUDGEMENT:
            self.judge.add_unusable(record["judge"])
            return
        if kind == HELD:  # the row or the reject that comes of it costs nothing more
            pico = pico_of(record["cost_usd"])
            self.accepted_pico += pico
            self.models[model_of(record)].add_cost(pico)
            self._add(record, pico)
            return
        if isinstance(judge, dict):
            self.judge.add_reject(judge)
        reason = str(record["reason"])
        self.rejects[reason] += 1
        if record.get("cost_usd") is None:
            self.num_unknown += 1
        pico, held_pico = pico_of(record.get("cost_usd")), pico_of(record.get(HELD_COST_KEY))
        self.accepted_pico -= held_pico
        self.rejects_pico[reason] += pico + held_pico
        self.models[model_of(record)].add_reject(record, pico)
        self._add(record, pico)

    @property
    def cost_usd(self) -> float:
        """All costs that are known, the judge's among them."""
        return usd_of(self.accepted_pico + self.rejects_pico.total() + self.judge.pico)

    @property
    def mean_cost_usd(self) -> float:
        """Mean cost of an answer that cost anything: errors that were not billed say nothing of one that was."""
        written_pico = self.accepted_pico + self.rejects_pico.total()
        return usd_of(written_pico) / self.num_billed if self.num_billed else 0.0

    @property
    def unknown_cost_usd(self) -> float:
        """What answers that never came may have cost: their number times the mean of those that did."""
        return round(self.num_unknown * self.mean_cost_usd + self.judge.unknown_cost_usd, 12)

    def counts(self) -> dict[str, Any]:
        """What a manifest states: answers, rejects by reason, rows by what is only reported, tokens, and US dollars."""
        counts = {
            "answers": state_answers(self.num_accepted, self.rejects, self.num_unknown),
            "rejects": dict(sorted(self.rejects.items())),
            "reported": dict(sorted(self.reported.items())),
            "tokens": {name: self.tokens[name] for name in ("cached", "completion", "prompt", "reasoning")},
            "cost": {
                "total_usd": self.cost_usd,
                "unknown_usd": self.unknown_cost_usd,
                "accepted_usd": usd_of(self.accepted_pico),
                "per_accepted_row_usd": round(self.cost_usd / self.num_accepted, 12) if self.num_accepted else 0.0,
                "rejects_usd": {reason: usd_of(pico) for reason, pico in sorted(self.rejects_pico.items())},
            },
        }
        judged = {"judge": self.judge.counts()} if self.judge else {}
        return {**counts, **state_models(self.models), **judged}

    def _add(self, record: Mapping[str, Any], pico: int) -> None:
        self.num_billed += pico > 0
        tokens = record.get("tokens")
        if isinstance(tokens, dict):
            for name, count in tokens.items():  # a restart reads every row: Counter.update is four times as dear
                self.tokens[name] += count
