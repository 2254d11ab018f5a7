"""One row: asked again with the reasons, then by another prompt, then given up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow, make_plan, plan_row, read_dimensions
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.records import RowState
from nanosft.generate.rows import AnswerChecker, Job, RetryPolicy, RowMaker
from nanosft.knowledge import read_knowledge
from nanosft.quality.gates import Context, Gates
from tests.stub_provider import KNOWLEDGE, write_conversation


class Author:
    """A fake provider: answers by what it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[PlanRow, int], str]) -> None:
        self.asked: list[tuple[int, int, tuple[str, ...]]] = []
        self._answer = answer

    async def __call__(
        self, row: PlanRow, attempt: int, rejections: Sequence[str], on_failure: Callable[[Answer], None]
    ) -> Answer:
        del on_failure
        self.asked.append((row.prompt_variant, attempt, tuple(rejections)))
        text = self._answer(row, attempt)
        return Answer(text, text, "stop", "m", Usage(cost_usd=0.5))


@asynccontextmanager
async def open_slot() -> AsyncIterator[None]:
    yield


def make_row(
    author: Author, *, index: NearDuplicateIndex | None = None, row_timeout_s: float = 60
) -> tuple[Conversation | None, list[dict[str, Any]]]:
    """Row 0 of the shipped plan, and its rejects."""
    plan = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
    maker = RowMaker(
        plan_row=partial(plan_row, plan),
        ask=author,
        retries=RetryPolicy(answers_per_prompt=2, num_prompts=2),
        checker=AnswerChecker(Context(Gates()), index),
        row_timeout_s=row_timeout_s,
        source="generate",
    )
    rejects: list[dict[str, Any]] = []
    return asyncio.run(maker.make(Job(0, RowState(), 1), open_slot, rejects.append)), rejects


def clean(row: PlanRow, _attempt: int = 0) -> str:
    return orjson.dumps({"messages": write_conversation(row, "nanochat", "Andrej Karpathy")}).decode()


def test_a_rejected_answer_is_asked_for_again_with_the_gates_reasons():
    author = Author(lambda row, attempt: clean(row) if attempt else '{"messages": []}')
    conversation, rejects = make_row(author)
    assert conversation is not None
    assert [asked[:2] for asked in author.asked] == [(0, 0), (0, 1)]
    (reason,) = author.asked[1][2]
    assert "no user message" in reason
    assert [(record["reason"], record["cost_usd"], record["given_up"]) for record in rejects] == [
        ("roles_wrong", 0.5, False)
    ]


def test_another_prompt_starts_without_the_reasons_of_the_one_before():
    author = Author(lambda row, attempt: clean(row) if row.prompt_variant and attempt else "prose")
    make_row(author)
    assert [(variant, attempt, len(reasons)) for variant, attempt, reasons in author.asked] == [
        (0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1),
    ]  # fmt: skip


def test_a_near_duplicate_of_an_accepted_row_is_refused_in_the_shard():
    index = NearDuplicateIndex()
    assert make_row(Author(clean), index=index)[1] == []
    conversation, rejects = make_row(Author(clean), index=index)
    assert conversation is not None
    assert conversation.meta["fresh"] == 1  # the other prompt's answer is another one
    assert [record["reason"] for record in rejects] == ["near_duplicate/shard"] * 2


def test_a_row_is_given_up_after_its_last_prompt_and_its_last_reject_says_so():
    conversation, rejects = make_row(Author(lambda _row, _attempt: "prose"))
    assert conversation is None
    assert [record["given_up"] for record in rejects] == [False, False, False, True]
    assert [(record["fresh"], record["attempt"]) for record in rejects] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_row_that_takes_too_long_got_no_answer():
    class Sleeper(Author):
        async def __call__(
            self, row: PlanRow, attempt: int, rejections: Sequence[str], on_failure: Callable[[Answer], None]
        ) -> Answer:
            await asyncio.sleep(60)
            return await super().__call__(row, attempt, rejections, on_failure)

    with pytest.raises(ProviderError, match=r"row 0 took longer than 0\.01 s"):
        make_row(Sleeper(clean), row_timeout_s=0.01)
