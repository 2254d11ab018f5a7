import asyncio
import threading
from typing import Any

import orjson
import pytest

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex
from nanosft.errors import DataError
from nanosft.generate.planning import Plan, make_plan, plan_row, read_dimensions
from nanosft.generate.provider import Answer
from nanosft.generate.records import Tally
from nanosft.generate.rows.checker import BATCH, AnswerChecker, Rejection
from nanosft.generate.rows.known import filling
from nanosft.knowledge import parse_knowledge, read_knowledge
from nanosft.quality.gates import Context, Gates
from nanosft.quality.grounding import make_reference
from tests.stub_provider import KNOWLEDGE, write_conversation


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)


def answer_to(plan: Plan, number: int) -> Answer:
    text = orjson.dumps(
        {"messages": write_conversation(plan_row(plan, number), "nanochat", "Andrej Karpathy")}
    ).decode()
    return Answer(text, text, "stop", "m")


def test_many_answers_at_once_get_the_verdicts_that_each_gets_alone(plan):
    numbers = [*range(3 * BATCH), 5, 7]  # the last two nearly repeat earlier ones

    async def scenario() -> list[Conversation | Rejection]:
        checker = AnswerChecker(Context(Gates()), NearDuplicateIndex())
        return await asyncio.gather(
            *(checker.check(plan_row(plan, number), answer_to(plan, number)) for number in numbers)
        )

    verdicts = asyncio.run(scenario())
    assert all(isinstance(verdict, Conversation) for verdict in verdicts[:-2])
    assert [verdict.reasons for verdict in verdicts if isinstance(verdict, Rejection)] == [
        ("near_duplicate/shard",)
    ] * 2


def test_other_work_goes_on_between_batches(plan):
    """The event loop turns after each batch, so that a place that is free is used before all answers are checked."""

    async def scenario() -> int:
        checker = AnswerChecker(Context(Gates()), NearDuplicateIndex())
        tasks = [asyncio.create_task(checker.check(plan_row(plan, n), answer_to(plan, n))) for n in range(4 * BATCH)]
        turns = 0
        while not all(task.done() for task in tasks):
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(scenario()) >= 4


def test_an_answer_whose_row_is_cut_off_is_checked_all_the_same(plan):
    """It is paid for: a process that ends at once must not lose it."""

    async def scenario() -> Conversation | Rejection:
        checker = AnswerChecker(Context(Gates()), NearDuplicateIndex())
        task = asyncio.create_task(checker.check(plan_row(plan, 0), answer_to(plan, 0)))
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert isinstance(asyncio.run(scenario()), Conversation)


def test_a_defect_of_a_gate_reaches_whoever_waits_for_the_verdict(plan):
    async def scenario() -> None:
        checker = AnswerChecker(Context(Gates()), None)
        await checker.check(plan_row(plan, 0), None)  # type: ignore[arg-type]

    with pytest.raises(AttributeError):
        asyncio.run(scenario())


def test_texts_added_together_meet_the_same_near_duplicates_as_one_by_one():
    texts = [f"user says {word} and more words | assistant answers {word} again and again" for word in "abcabdd"]
    texts += [" ".join(f"{word}{number % 40}" for number in range(60)) for word in ("x", "y", "x")]
    together, alone = NearDuplicateIndex(), NearDuplicateIndex()
    assert together.find_or_add_all(texts) == [alone.find_or_add(text) for text in texts]
    assert together.find_or_add_all([]) == []
    assert len(together) == len(alone) < len(texts)


def test_names_that_are_only_reported_stand_in_the_rows_meta(plan):
    """A name that the knowledge does not hold costs no answer; it must be found again by whoever reads the set."""
    reference = make_reference(parse_knowledge("# Zed\n- Maker: Ada\n\n## A\n- Zed is a helper.\n", where="k"))
    gates = Gates(off=frozenset({"identity"}))
    verdict = asyncio.run(AnswerChecker(Context(gates, reference), None).check(plan_row(plan, 0), answer_to(plan, 0)))
    assert isinstance(verdict, Conversation)
    assert "Karpathy" in verdict.meta["reported"]["grounding/unknown_name"]
    tally = Tally()
    tally.add_row({"cost_usd": 0.0, **verdict.meta})
    assert tally.counts()["reported"] == {"grounding/unknown_name": 1}


def test_answers_wait_until_the_index_holds_what_earlier_runs_accepted(plan):
    """Read row by row before the first request, 124,789 rows took 70 s of CPU."""
    record = {"messages": orjson.loads(answer_to(plan, 3).text)["messages"], "meta": {"row": 0}}

    async def scenario() -> list[Any]:
        go = threading.Event()

        def read(_key: str) -> list[tuple[str, dict[str, Any]]]:
            go.wait(10)
            return [("x:line 1", record)]

        index = NearDuplicateIndex()
        async with filling(index, read, ["rows/a"], range(1)) as filled:
            checker = AnswerChecker(Context(Gates()), index, filled=filled)
            asked = asyncio.create_task(checker.check(plan_row(plan, 3), answer_to(plan, 3)))
            await asyncio.sleep(0.05)
            is_early = asked.done()
            go.set()
            return [is_early, await asked]

    is_early, verdict = asyncio.run(scenario())
    assert not is_early
    assert isinstance(verdict, Rejection)
    assert verdict.reasons == ("near_duplicate/shard",)


@pytest.mark.parametrize("kind", [DataError, BaseException])
def test_a_part_that_cannot_be_read_ends_the_run_where_answers_are_judged(plan, kind):
    """A simulated kill, which is no `Exception`, left answers waiting for ever."""

    def read(key: str) -> list[tuple[str, dict[str, Any]]]:
        raise kind(f"{key}: not JSON")

    async def scenario() -> None:
        index = NearDuplicateIndex()
        async with filling(index, read, ["rows/a"], range(1)) as filled:
            with pytest.raises(kind, match="rows/a: not JSON"):
                await AnswerChecker(Context(Gates()), index, filled=filled).check(plan_row(plan, 3), answer_to(plan, 3))

    asyncio.run(scenario())
