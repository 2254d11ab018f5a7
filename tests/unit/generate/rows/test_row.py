"""One row: asked again with the reasons, then by another prompt, then given up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow, make_plan, plan_row, read_dimensions
from nanosft.generate.provider import AdaptiveLimit, Answer, Usage
from nanosft.generate.records import RowState, Tally
from nanosft.generate.rows import AnswerChecker, AskAgain, AwaitsScore, Job, Judge, RetryPolicy, RowMaker
from nanosft.generate.rows.checker import Rejection
from nanosft.generate.rows.lines import held_line
from nanosft.generate.rows.row import ShuttingDown
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


def open_maker(judge: Judge | None, index: NearDuplicateIndex | None = None) -> RowMaker:
    plan = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)
    checker = AnswerChecker(Context(Gates()), index)
    return RowMaker(partial(plan_row, plan), Author(clean), RetryPolicy(2, 2), checker, judge, 60, "generate")


def says(text: str, cost_usd: float = 0.25) -> Answer:
    return Answer(text, text, "stop", "judge", Usage(cost_usd=cost_usd))


def score(faithful: int) -> Answer:
    return says(orjson.dumps({"reason": "so", **dict.fromkeys(CRITERIA, 5), "faithful": faithful}).decode())


def test_an_answer_that_waits_for_a_batchs_score_is_put_down_once_and_is_no_near_duplicate_of_itself():
    rejects, index, job = list[dict[str, Any]](), NearDuplicateIndex(), Job(0, RowState(), 1)
    maker = open_maker(make_judge(), index)

    async def scenario() -> Conversation | AskAgain | AwaitsScore | None:
        row = maker.next_prompt(job)
        answer = Answer(clean(row), clean(row), "stop", "m", Usage(cost_usd=0.5))
        assert isinstance(await maker.hold(job, row, answer, rejects.append, batch="1/0-0"), AwaitsScore)
        assert isinstance(await maker.settle(job, row, says("fine"), rejects.append, batch="1/0-1"), AwaitsScore)
        return await maker.settle(job, row, score(4), rejects.append, batch="1/0-2")

    conversation = asyncio.run(scenario())
    assert isinstance(conversation, Conversation)
    assert (conversation.meta["batch"], conversation.meta["cost_usd"]) == ("1/0-2", 0.0)
    assert [(line["kind"], line["batch"]) for line in rejects] == [("held", "1/0-0"), ("judgement", "1/0-1")]
    assert cost_of(conversation, rejects).cost_usd == 0.5 + 2 * 0.25
    assert (job.state.num_tries, rejects[1]["tried_attempt"]) == (1, 0)


def test_what_nearly_repeats_a_row_that_was_accepted_meanwhile_is_refused_and_its_score_is_paid_and_kept():
    rejects, index = list[dict[str, Any]](), NearDuplicateIndex()
    maker = open_maker(make_judge(), index)

    async def scenario() -> object:
        row = maker.plan_row(0, 0)
        answer = Answer(clean(row), clean(row), "stop", "m", Usage(cost_usd=0.5))
        state = RowState(held=held_line(row, 0, answer, batch="1/0-0"))
        await maker.checker.check(row, answer)  # another row's, and a process that has not seen the held one
        return await maker.settle(Job(0, state, 1), row, score(5), rejects.append, batch="1/0-1")

    assert isinstance(asyncio.run(scenario()), AskAgain)
    assert [line["reason"] for line in rejects] == ["judge/of_rejected", "near_duplicate/shard"]
    assert cost_of(None, rejects).cost_usd == 0.25


def test_an_answer_that_is_held_is_scored_though_fewer_attempts_are_allowed_now():
    """Its row went on to another prompt, and the answer was paid for in vain."""
    author, rejects = Author(clean), list[dict[str, Any]]()
    maker = open_maker(make_judge())
    row = maker.plan_row(0, 0)
    held = held_line(row, 2, Answer(clean(row), clean(row), "stop", "m", Usage(cost_usd=0.5)), batch=None)
    state = RowState(num_rejected=2, details=["a", "b"], held=held)
    conversation, rejects = make_row(author, judge=make_judge(5), state=state, rejects=rejects)
    assert conversation is not None
    assert author.asked == []


def test_an_answer_that_is_held_and_then_refused_by_the_judge_cost_what_is_told_of_rejects():
    """It stood under what was accepted, and the rejects' cost was too low by it."""
    rejects, job = list[dict[str, Any]](), Job(0, RowState(), 1)
    maker = open_maker(make_judge())

    async def scenario() -> None:
        row = maker.next_prompt(job)
        answer = Answer(clean(row), clean(row), "stop", "m", Usage(cost_usd=0.5))
        await maker.hold(job, row, answer, rejects.append, batch="1/0-0")
        assert isinstance(await maker.settle(job, row, score(2), rejects.append, batch="1/0-1"), AskAgain)

    asyncio.run(scenario())
    for lines in (rejects, rejects[::-1]):
        cost = cost_of(None, lines).counts()["cost"]
        assert (cost["accepted_usd"], cost["rejects_usd"]) == (0.0, {"judge/low_score": 0.5})
        assert cost["total_usd"] == 0.5 + 0.25


def test_an_answer_does_not_wait_for_the_index_where_the_process_ends_and_the_next_one_compares_it():
    """SIGTERM right after a restart waited until what earlier runs had accepted was read and signed."""
    rejects, state, filled = list[dict[str, Any]](), RowState(), Future[None]()
    maker = replace(open_maker(None), checker=AnswerChecker(Context(Gates()), NearDuplicateIndex(), filled=filled))

    async def stop_while_it_waits() -> None:
        task = asyncio.create_task(maker.make(Job(0, state, 1), open_slot, rejects.append))
        assert (await asyncio.wait({task}, timeout=0.05))[1] == {task}
        maker.checker.stop_waiting()
        with pytest.raises(ShuttingDown):
            await task

    asyncio.run(asyncio.wait_for(stop_while_it_waits(), 60))
    assert [(line["kind"], line["cost_usd"]) for line in rejects] == [("held", 0.5)]
    author, index = Author(clean), NearDuplicateIndex()
    conversation, rejects = make_row(author, state=state, index=index)
    assert conversation is not None
    assert (author.asked, rejects, conversation.meta["cost_usd"]) == ([], [], 0.0)
    assert index.query(normalize_text(conversation)) is not None


def test_what_the_gates_refuse_is_refused_although_the_index_is_not_filled():
    filled = Future[None]()
    maker = replace(open_maker(None), checker=AnswerChecker(Context(Gates()), NearDuplicateIndex(), filled=filled))
    maker.checker.stop_waiting()
    verdict = asyncio.run(maker.checker.check(maker.plan_row(0, 0), says("prose")))
    assert isinstance(verdict, Rejection)
