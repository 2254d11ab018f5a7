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
from nanosft.generate.provider import AdaptiveLimit, Answer, Usage
from nanosft.generate.records import RowState, Tally
from nanosft.generate.rows import AnswerChecker, Job, Judge, RetryPolicy, RowMaker
from nanosft.knowledge import read_knowledge
from nanosft.quality.gates import Context, Gates
from nanosft.quality.scores import list_criteria, parse_score
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
    author: Author,
    *,
    index: NearDuplicateIndex | None = None,
    row_timeout_s: float = 60,
    judge: Judge | None = None,
    state: RowState | None = None,
    rejects: list[dict[str, Any]] | None = None,
) -> tuple[Conversation | None, list[dict[str, Any]]]:
    """Row 0 of the shipped plan, and its rejects."""
    plan = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
    maker = RowMaker(
        plan_row=partial(plan_row, plan),
        ask=author,
        retries=RetryPolicy(answers_per_prompt=2, num_prompts=2),
        checker=AnswerChecker(Context(Gates()), index),
        judge=judge,
        row_timeout_s=row_timeout_s,
        source="generate",
    )
    rejects = [] if rejects is None else rejects
    return asyncio.run(maker.make(Job(0, state or RowState(), 1), open_slot, rejects.append)), rejects


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


CRITERIA = list_criteria(has_course=True)


def make_judge(*says: int | str | Exception, min_score: int | None = 3, share: float = 1.0) -> Judge:
    """A judge that gives these numbers for `faithful` in turn, says these texts, or fails so."""
    waiting = list(says)

    async def ask(
        row: PlanRow, conversation: Conversation, number: int, on_failure: Callable[[Answer], None]
    ) -> Answer:
        del row, conversation, number, on_failure
        said = waiting.pop(0)
        if isinstance(said, Exception):
            raise said
        score = {"reason": f"it is {said}", **dict.fromkeys(CRITERIA, 5), "faithful": said}
        text = said if isinstance(said, str) else orjson.dumps(score).decode()
        return Answer(text, text, "stop", "judge", Usage(cost_usd=0.25))

    limit = AdaptiveLimit(1)
    return Judge(ask, lambda text: parse_score(text, CRITERIA), limit, min_score, share=share, seed=0, timeout_s=60)


def cost_of(conversation: Conversation | None, rejects: list[dict[str, Any]]) -> Tally:
    tally = Tally()
    if conversation is not None:
        tally.add_row(conversation.meta)
    for record in rejects:
        tally.add_reject(record)
    return tally


def test_a_low_score_is_a_rejection_with_the_judges_reason_and_its_near_duplicate_may_follow():
    author = Author(clean)
    conversation, rejects = make_row(author, judge=make_judge(2, 4), index=NearDuplicateIndex())
    assert conversation is not None
    assert conversation.meta["judge"]["scores"]["faithful"] == 4
    assert author.asked[1][2] == ("a judge gave it faithful 2 of 5: it is 2",)
    (record,) = rejects
    assert (record["reason"], record["cost_usd"], record["judge"]["cost_usd"]) == ("judge/low_score", 0.5, 0.25)
    counts = cost_of(conversation, rejects).counts()
    assert counts["cost"]["total_usd"] == 2 * 0.5 + 2 * 0.25
    assert counts["cost"]["rejects_usd"] == {"judge/low_score": 0.5}
    judge = counts["judge"]
    assert (judge["rows"], judge["cost_usd"]) == ({"scored": 1, "unscored": 0, "refused": 1}, 0.5)
    assert judge["scores"]["faithful"] == {"mean": 4.0, "counts": {"1": 0, "2": 0, "3": 0, "4": 1, "5": 0}}
    assert judge["scores"]["lowest"]["mean"] == 4.0


def test_a_judge_that_says_nothing_usable_three_times_costs_no_row_and_each_time_is_paid_and_kept():
    conversation, rejects = make_row(Author(clean), judge=make_judge("fine", "good", "{}"))
    assert conversation is not None
    assert "cannot be read" in conversation.meta["judge"]["unscored"]
    assert [(record["kind"], record["reason"], record["raw"]) for record in rejects] == [
        ("judgement", "judge/unreadable", text) for text in ("fine", "good", "{}")
    ]
    counts = cost_of(conversation, rejects).counts()
    assert counts["rejects"] == {}  # no answer of the writer was refused
    assert counts["cost"]["total_usd"] == 0.5 + 3 * 0.25
    assert counts["judge"]["rows"] == {"scored": 0, "unscored": 1, "refused": 0}
    assert counts["judge"]["unusable"] == 3


def test_an_answer_whose_judge_does_not_answer_is_held_and_the_next_run_has_the_same_one_scored():
    author, rejects, index = Author(clean), list[dict[str, Any]](), NearDuplicateIndex()
    state = RowState()
    with pytest.raises(ProviderError, match="away"):
        make_row(author, judge=make_judge(ProviderError("away")), state=state, rejects=rejects, index=index)
    (held,) = rejects
    assert (held["kind"], held["cost_usd"], held["given_up"]) == ("held", 0.5, False)
    conversation, rejects = make_row(author, judge=make_judge(5), state=state, rejects=rejects, index=index)
    assert conversation is not None
    assert len(author.asked) == 1  # the writer is not asked, and not paid, again
    assert conversation.meta["cost_usd"] == 0.0
    assert conversation.messages[0].text == orjson.loads(held["raw"])["messages"][0]["content"]
    assert cost_of(conversation, rejects).cost_usd == 0.5 + 0.25


def test_rows_that_are_not_drawn_are_not_scored():
    conversation, _ = make_row(Author(clean), judge=make_judge(share=0.0))
    assert conversation is not None
    assert "judge" not in conversation.meta
