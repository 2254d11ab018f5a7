"""What the objects of a finished evaluation must be to be read: somebody else may have put them. Pure."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from nanosft.evaluate.conduct import FAULT_FIGURES
from nanosft.evaluate.statistics import Interval


class _Form(BaseModel):
    model_config = ConfigDict(extra="ignore")


class KeptScores(_Form):
    """`scores.json`."""

    models: dict[str, dict[str, Any]] = Field(min_length=1)
    figures: dict[str, dict[str, Interval]]
    counts: dict[str, int]
    judge: dict[str, Any] = Field(default_factory=dict)


class _Row(_Form):
    model: str


class _ProbeRow(_Row):
    probe: str
    kind: str
    topic: str
    item: str
    manner: str
    answer: str
    verdict: Literal["right", "wrong", "missing"]
    other_name: object
    other_maker: object
    ungrounded: list[Any]
    faults: dict[str, bool]


class _TaskRow(_Row):
    task: str
    problem: int | str
    question: str
    right: bool


class _Document(_Form):
    id: str
    source: str
    num_bytes: int = Field(ge=0)
    bits: dict[str, float]


_SCORES: Final = TypeAdapter(KeptScores)
_DOCUMENTS: Final = TypeAdapter(list[_Document])


def check_scores(table: Any) -> KeptScores:
    """The scores; a ValueError names what is wrong with them."""
    scores = _SCORES.validate_python(table)
    if (label := list(scores.models)[-1]) not in scores.figures:
        raise ValueError(f"no figures of {label!r}")
    return scores


def check_rows(answers: Sequence[Any], documents: Sequence[Any], models: Sequence[str]) -> None:
    """Raise a ValueError that names what is wrong with the rows of answers or documents, if anything is."""
    for row in answers:
        form = _ProbeRow if "probe" in row else _TaskRow if "task" in row else _Row
        found = form.model_validate(row)
        faults = {fault for fault, _ in FAULT_FIGURES.values()}
        if isinstance(found, _ProbeRow) and not faults <= found.faults.keys():
            raise ValueError(f"an answer lacks faults: {sorted(faults - found.faults.keys())}")
    for document in _DOCUMENTS.validate_python(documents):
        if not document.bits.keys() >= set(models):
            raise ValueError(f"bits of {document.id!r} lack a model")
