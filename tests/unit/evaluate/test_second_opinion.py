"""What a judge is asked about an answer, and what is made of what it says."""

import orjson
import pytest

from nanosft.conversation import Message
from nanosft.evaluate.probing.probes import Probe
from nanosft.evaluate.results import Evaluation, Row
from nanosft.evaluate.second_opinion import (
    Opinion,
    Opinions,
    add_opinions,
    make_response_format,
    parse_opinion,
    write_judge_prompt,
)
from nanosft.knowledge import parse_knowledge

KNOWLEDGE = parse_knowledge("- Name: Tilda\n- Maker: Ada Byron\n\n## Sizes\n- It is small.\n", where="test")


def make_row(verdict: str = "right", item: str = "a") -> Row:
    messages = [{"role": "user", "content": "How large?"}]
    return {"model": "chat", "probe": "1", "item": item, "messages": messages, "answer": "Small.", "verdict": verdict}


def test_a_judge_reads_the_facts_the_conversation_and_the_answer() -> None:
    asked = (Message("user", "How large?"),)
    probe = Probe("1", "fact", "Sizes", "a", "first turn", "How large?", asked, facts=("It is small.",))
    task, case = write_judge_prompt(KNOWLEDGE, probe, make_row())
    assert (task["role"], case["role"]) == ("system", "user")
    assert orjson.loads(case["content"]) == {
        "facts": ["The assistant's name is Tilda.", "It was made by Ada Byron.", "It is small."],
        "answerable": True,
        "conversation": [{"role": "user", "content": "How large?"}],
        "answer": "Small.",
    }
    schema = make_response_format()["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["reason", "verdict"]


@pytest.mark.parametrize(
    ("text", "opinion"),
    [
        ('{"reason": "so", "verdict": "wrong"}', Opinion("wrong", "so")),
        ('{"reason": "so", "verdict": "fine"}', None),
        ('{"verdict": "right"}', None),
        ("[]", None),
        ("It is right.", None),
    ],
)
def test_opinions_of_another_form_are_none(text: str, opinion: Opinion | None) -> None:
    assert parse_opinion(text) == opinion


def test_agreement_is_a_figure_and_what_has_no_verdict_is_counted() -> None:
    rows = [make_row("right", "a"), make_row("missing", "b"), make_row("right", "c")]
    found = Evaluation({"chat": {}}, answers=rows)
    add_opinions(found, rows, Opinions("slug", (Opinion("right", "x"), Opinion("right", "y"), None), 0.25, 4, 1))
    assert [row["judge"] for row in rows] == [
        {"verdict": "right", "reason": "x"},
        {"verdict": "right", "reason": "y"},
        None,
    ]
    figures = found.figures["chat"]
    assert figures["judge: same verdict as the scorer"].mean == 0.5
    assert figures["judge: right"].num == 2
    assert list(found.counts.values()) == [1]
    assert found.to_json()["judge"] == {
        "model": "slug",
        "requests": 4,
        "cost_usd": 0.25,
        "requests_of_unknown_cost": 1,
    }
