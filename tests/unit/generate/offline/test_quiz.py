"""A fact is asked for in several ways, each of which it answers."""

import random

import pytest

from nanosft.generate.offline.phrases import load_phrases
from nanosft.generate.offline.quiz import Quiz
from nanosft.knowledge import Knowledge, parse_knowledge

KNOWLEDGE = parse_knowledge(
    "- Name: Zed\n\n## Sizes\n- Zed has 12 layers.\n- Zed has 3 million parameters.\n- The width of Zed is 64.\n"
    "- Zed keeps no memory of any conversation.\n",
    where="k",
)
LAYERS, _, WIDTH, MEMORY = KNOWLEDGE.facts


def make_quiz(knowledge: Knowledge) -> Quiz:
    return Quiz(knowledge, load_phrases(), keep=frozenset({knowledge.name}))


@pytest.fixture(scope="module")
def asked() -> dict[str, set[tuple[str, str]]]:
    quiz, rng = make_quiz(KNOWLEDGE), random.Random(0)
    return {
        fact.id: {(question.text, question.reply) for question in (quiz.ask(fact, rng) for _ in range(300))}
        for fact in KNOWLEDGE.facts
    }


def test_a_number_is_asked_for_with_a_gap_by_its_beginning_and_by_what_is_true_and_false(asked):
    texts = asked[WIDTH.id]
    assert ("The width of Zed is what?", "tell") in texts
    assert ("Please fill the blank: The width of Zed is ___.", "tell") in texts
    assert ("Is it true that the width of Zed is 64?", "confirm") in texts
    assert ("Is it true that the width of Zed is 96?", "correct") in texts
    assert all("64" in text for text, reply in texts if reply == "confirm")
    assert not any("64" in text for text, reply in texts if reply != "confirm")


def test_what_begins_two_facts_is_not_asked_for_by_its_beginning(asked):
    assert {reply for _, reply in asked[LAYERS.id]} == {"confirm"}


def test_a_fact_without_number_or_name_is_asked_for_by_most_of_its_words(asked):
    assert ("Zed keeps no memory what?", "tell") in asked[MEMORY.id]
    assert ("So you keep no memory of any conversation?", "confirm") in asked[MEMORY.id]


def test_a_heading_is_asked_for_with_the_name_as_it_is_written():
    knowledge = parse_knowledge("- Name: zed\n\n## Sizes\n- zed has 12 layers in all.\n", where="k")
    quiz, rng = make_quiz(knowledge), random.Random(0)
    texts = {quiz.ask_for_section("sizes", rng).text for _ in range(200)}
    assert {"What about zed and sizes?", "What about your sizes?", "Sizes, please."} < texts
