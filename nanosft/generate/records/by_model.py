"""Sums of answers by the model that was to write them. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.generate.records.judgements import JudgeTally
from nanosft.generate.records.money import usd_of

ASKED_KEY: Final = "asked"
"""What rows and rejects call the model that the plan gave them, where another name answered."""


@dataclass
class ModelTally:
    """What came of one model's rows, whoever answered in its place."""

    num_accepted: int = 0
    num_unknown: int = 0
    pico: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    judge: JudgeTally = field(default_factory=JudgeTally)

    def add_row(self, meta: Mapping[str, Any], pico: int) -> None:
        """Count an accepted conversation by its meta, and what it cost in picodollars."""
        self.num_accepted += 1
        self._add(meta, pico)
        if isinstance(judge := meta.get("judge"), dict):
            self.judge.add_row(judge)

    def add_reject(self, record: Mapping[str, Any], pico: int) -> None:
        """Count a rejected answer, or one that never came, and what it cost."""
        self.rejects[str(record["reason"])] += 1
        self.num_unknown += record.get("cost_usd") is None
        if isinstance(judge := record.get("judge"), dict):
            self.judge.add_reject(judge)
        self._add(record, pico)

    def add_cost(self, pico: int) -> None:
        """Count what an answer that is held cost; who gave it counts with the row or the reject that comes of it."""
        self.pico += pico

    def _add(self, record: Mapping[str, Any], pico: int) -> None:
        self.pico += pico
        self.answered_by[str(record.get("model"))] += 1

    def counts(self) -> dict[str, Any]:
        """What a manifest states of the model; the cost is that of its answers, without a judge's."""
        counts = {
            "answers": state_answers(self.num_accepted, self.rejects, self.num_unknown),
            "answered_by": dict(sorted(self.answered_by.items())),
            "cost_usd": usd_of(self.pico),
            "rejects": dict(sorted(self.rejects.items())),
        }
        return {**counts, "scores": self.judge.counts()["scores"]} if self.judge else counts


def state_answers(num_accepted: int, rejects: Counter[str], num_unknown: int) -> dict[str, int]:
    """The `answers` of a manifest: those that never came stand among the rejects, and are no refusals."""
    return {"accepted": num_accepted, "refused": rejects.total() - num_unknown, "unknown": num_unknown}


def model_of(record: Mapping[str, Any]) -> str:
    """The model whose row a record is of."""
    return str(record.get(ASKED_KEY) or record.get("model"))


def state_models(models: Mapping[str, ModelTally]) -> dict[str, Any]:
    """The `models` of a manifest; nothing where one model gave all answers, as the sums are then its own."""
    if len(models) == 1 and all(set(tally.answered_by) <= {name} for name, tally in models.items()):
        return {}
    return {"models": {name: tally.counts() for name, tally in sorted(models.items())}} if models else {}
