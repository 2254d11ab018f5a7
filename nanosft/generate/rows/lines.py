"""What is put down of a row's answers: each line names the row's place in the plan, and the batch that it came with."""

from collections.abc import Mapping
from typing import Any

from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import (
    ASKED_KEY,
    BATCH_KEY,
    HELD_COST_KEY,
    digest_answer,
    held_record,
    judgement_record,
    reject_record,
    row_meta,
)
from nanosft.generate.rows.checker import Rejection


def meta_of(row: PlanRow, attempt: int, answer: Answer, *, source: str, batch: str | None) -> dict[str, Any]:
    """The meta of an accepted conversation."""
    meta = row_meta(answer, **_place_of(row), attempt=attempt, source=source)
    if row.language:
        meta["language"] = row.language
    return _named(meta, row, batch)


def reject_line(
    row: PlanRow,
    attempt: int | None,
    answer: Answer,
    rejection: Rejection,
    *,
    given_up: bool = False,
    batch: str | None = None,
    held: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A rejected answer; `attempt` is None where the row lost none by it, and `held` the record that held it."""
    record = reject_record(
        answer,
        **_place_of(row),
        attempt=attempt,
        reasons=rejection.reasons,
        detail=rejection.detail,
        given_up=given_up,
    )
    if rejection.judge is not None:
        record["judge"] = rejection.judge
    if held is not None:
        record[HELD_COST_KEY] = held["cost_usd"]
    return _named(record, row, batch)


def failure_line(row: PlanRow, answer: Answer, *, batch: str | None = None) -> dict[str, Any]:
    """A request that no answer came to, though it may have been paid for: the row loses no attempt by it."""
    assert answer.problem is not None, "a stand-in for an answer has a problem"
    return reject_line(row, None, answer, Rejection((answer.problem.kind,), answer.problem.detail), batch=batch)


def held_line(row: PlanRow, attempt: int, answer: Answer, *, batch: str | None) -> dict[str, Any]:
    """An accepted answer that waits for its score."""
    return _named(held_record(answer, **_place_of(row), attempt=attempt), row, batch)


def judgement_line(
    row: PlanRow, judged: Answer, *, tried: tuple[int, Answer] | None = None, batch: str | None = None
) -> dict[str, Any]:
    """An answer of the judge that is no score; `tried`: attempt and answer, None where the judge lost no try by it."""
    try_of = None if tried is None else (tried[0], digest_answer(tried[1].raw))
    return _of_batch(judgement_record(judged, **_place_of(row), tried=try_of), batch)


def useless_line(row: PlanRow, judged: Answer, rejection: Rejection, *, batch: str) -> dict[str, Any]:
    """A score of an answer that was rejected before it was weighed."""
    why = ("of_rejected", rejection.detail)
    return _of_batch(judgement_record(judged, **_place_of(row), why=why), batch)


def held_answer(record: Mapping[str, Any]) -> Answer:
    """The answer that a record holds; it was counted with the record, and costs nothing more."""
    return Answer(record["raw"], record["raw"], record["finish_reason"], record["model"], Usage(cost_usd=0.0))


def _place_of(row: PlanRow) -> dict[str, Any]:
    """Where in the plan an answer stands, as every record of one says."""
    return {"row": row.row, "cell": row.cell, "prompt_variant": row.prompt_variant}


def _named(record: dict[str, Any], row: PlanRow, batch: str | None) -> dict[str, Any]:
    """A record that names the batch that its answer came with, and the model asked where another name answered."""
    if row.model not in ("", record["model"]):
        record[ASKED_KEY] = row.model
    return _of_batch(record, batch)


def _of_batch(record: dict[str, Any], batch: str | None) -> dict[str, Any]:
    return record if batch is None else {**record, BATCH_KEY: batch}
