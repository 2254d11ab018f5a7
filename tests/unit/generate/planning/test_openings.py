"""First messages: none twice while another is unused, then rewritten."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosft.generate.planning import Topic
from nanosft.generate.planning.dimensions import Style
from nanosft.generate.planning.openings import Visit, write_opening
from nanosft.knowledge import parse_knowledge

KNOWLEDGE = parse_knowledge("# Zed\n- Maker: Ada Lovelace\n## A\n- Zed is a fact.\n", where="k")
NAMES = ("Kim", "Lee", "Mo")
TOPIC = Topic(
    id="t", category="c", sections=("a",), brief="b", subject="the cost", ask=("what it costs", "the price"),
    questions=("What is it?", "How much?", "Who made {name}?"),
)  # fmt: skip


def write(style: Style, visit: int, *, must_ask: bool = False, prompt_variant: int = 0, topic: Topic = TOPIC) -> str:
    at = Visit(start=5, visit=visit, topic_visit=visit, prompt_variant=prompt_variant, seed=visit * 7919 + 13)
    return write_opening(topic, style, at, knowledge=KNOWLEDGE, user_names=NAMES, must_ask=must_ask).text


def style_of(*messages: str, **options: object) -> Style:
    return Style.model_validate({"id": "s", "description": "d", "first_messages": messages, **options})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_all_combinations_are_used_before_one_comes_again(num_templates, num_questions, num_asks, begin):
    slots = ["{question}", "{ask}"]
    style = style_of(*(f"{index}: {slots[index % 2]}" for index in range(num_templates)))
    topic = TOPIC.model_copy(
        update={
            "questions": tuple(f"Q{i}" for i in range(num_questions)),
            "ask": tuple(f"a{i}" for i in range(num_asks)),
        }
    )
    num_asking = num_templates // 2
    total = (num_templates - num_asking) * num_questions + num_asking * num_asks
    first = begin - begin % total
    texts = [write(style, first + visit, topic=topic) for visit in range(total)]
    assert len(set(texts)) == total


def test_greetings_are_all_used_before_one_comes_again():
    style = style_of(*(f"Hi {index}" for index in range(9)))
    assert len({write(style, visit) for visit in range(9)}) == 9


def test_used_up_messages_are_signed_with_names():
    style = style_of("{question}")
    texts = Counter(write(style, visit) for visit in range(3 * (1 + 3 * 6)))
    assert max(texts.values()) == 1
    assert any("Kim" in text for text in texts)


def test_verbatim_messages_are_never_rewritten():
    style = style_of("Who are you?", "who are you", verbatim=True)
    assert {write(style, visit) for visit in range(50)} == {"Who are you?", "who are you"}


def test_a_greeting_is_joined_to_the_question_where_there_is_no_turn_to_spare():
    assert write(style_of("Hello"), 0, must_ask=True) == "Hello. What is it?"
    assert write(style_of("Hello", "Hi!"), 1, must_ask=True) == "Hi! How much?"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("hey, {question}", "hey, what is it?"),
        ("Hi. {question}", "Hi. What is it?"),
        ("Tell me {ask}.", "Tell me what it costs."),
        ("{subject}?", "The cost?"),
        ("Hi {name}, from {maker}: {question}", "Hi Zed, from Ada Lovelace: What is it?"),
    ],
)
def test_slots_are_filled_as_their_place_demands(template, text):
    at = Visit(start=0, visit=0, topic_visit=0, prompt_variant=0, seed=1)
    opening = write_opening(TOPIC, style_of(template), at, knowledge=KNOWLEDGE, user_names=NAMES, must_ask=False)
    assert opening.text == text


@pytest.mark.parametrize("subject", ["{maker}", "Eureka Labs"])
def test_a_name_that_is_the_subject_keeps_its_capital(subject):
    topic = TOPIC.model_copy(update={"subject": subject})
    name = subject.format(maker=KNOWLEDGE.maker)
    assert write(style_of("A word on {subject}."), 0, topic=topic) == f"A word on {name}."


def test_what_the_assistant_is_to_continue_keeps_its_dots():
    style = style_of("{question}", rewrites=["loose-end"])
    topic = TOPIC.model_copy(update={"questions": ("Go on: Zed is a ...",)})
    assert write(style, 0, topic=topic) == "Go on: Zed is a ..."


def test_the_name_the_user_gives_is_told():
    at = Visit(start=0, visit=0, topic_visit=0, prompt_variant=0, seed=1)
    opening = write_opening(
        TOPIC, style_of("I'm {user}. {question}"), at, knowledge=KNOWLEDGE, user_names=NAMES, must_ask=False
    )
    assert opening.user_name in NAMES
    assert opening.user_name in opening.text


def test_typos_leave_the_name_and_change_the_rest():
    style = style_of("{question}", rewrites=["typo"])
    topic = TOPIC.model_copy(update={"questions": ("What should everybody know about {name}?",)})
    texts = {write(style, visit, topic=topic) for visit in range(40)}
    plain = "What should everybody know about Zed?"
    assert all("Zed" in text for text in texts)
    assert plain not in texts
    assert len(texts) > 10


def test_casual_messages_are_in_lower_case():
    style = style_of("Hey {question}", rewrites=["lowercase", "loose-end"])
    assert all(write(style, visit).islower() for visit in range(30))
