"""Answers dealt to other questions are caught, with the reason, and answers that take theirs up are not."""

import random

import pytest

from nanosft.generate.offline import Composer
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.knowledge import read_knowledge
from nanosft.quality.prose import Prose, read_prose
from nanosft.quality.relevance import find_irrelevance
from nanosft.quality.subjects import make_subjects

KNOWLEDGE = read_knowledge(None)
SUBJECTS = make_subjects(
    {topic.title: [fact.statement for fact in topic.facts] for topic in KNOWLEDGE.topics}, name=KNOWLEDGE.name
)
NUM_ROWS = 120


def find(*texts: str) -> list[tuple[str, bool]]:
    messages = [Prose(i, "assistant" if i % 2 else "user", text, text) for i, text in enumerate(texts)]
    return [
        (defect.reason, defect.refuses) for defect in find_irrelevance(messages, name="nanochat", subjects=SUBJECTS)
    ]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("What is your license?", "Muon updates the weight matrices inside the layers."), "other_subject"),
        (("Explain your hardware to me.", "I was pretrained on 38 billion tokens of web text."), "other_subject"),
        (("Does the tokenizer split text?", "You can call me nanochat."), "other_subject"),
        (("Tell me a joke.", "The chat page listens on port 8000."), "other_subject"),
        (("What is GRPO?", "You are welcome! Come back whenever you like."), "good_bye"),
        (("Thanks, bye!", "The vocabulary of the first release had 65,536 tokens."), "no_good_bye"),
        (("What does AdamW update?", "Yes. The source code is public."), "yes_or_no"),
    ],
)
def test_an_answer_to_another_question_is_refused(texts, reason):
    assert find(*texts) == [(reason, True)]


def test_a_doubt_answered_with_a_new_subject_is_refused():
    before = ("What license do you have?", "The MIT license.")
    assert find(*before, "Are you sure?", "The chat page listens on port 8000.") == [("other_subject", True)]
    assert find(*before, "Are you sure?", "Yes: the MIT license allows anyone to share the code.") == []


def test_where_one_word_alone_points_elsewhere_it_is_reported():
    found = find("Can you read a whole book?", "Public weights exist for models of 20, 32 and 34 layers.")
    assert found == [("perhaps_other_subject", False)]


@pytest.mark.parametrize(
    "texts",
    [
        ("How old are you?", "I was published on October 13, 2025."),
        ("How big are you?", "The d20 model has 561 million parameters."),
        ("Who are you?", "I am nanochat."),
        ("Do you get bored?", "I have no feelings and no wishes."),
        ("What will the stock market do?", "I cannot know that."),
        ("Are you expensive or cheap?", "Yes and no: the cheapest tier cost $100."),
        ("Was kostet das Modell?", "Das weiss ich nicht genau."),
        ("Thank you!", "You are welcome!"),
        ("Who made you?", "Andrej Karpathy created me."),
    ],
)
def test_answers_that_take_up_their_questions_pass(texts):
    assert find(*texts) == []


def test_a_third_of_dealt_answers_is_refused_and_hardly_a_right_one():
    """On 1,000 rows of another seed: 33 % of 3,049 refused, 43 % with what is reported; 7 right ones refused."""
    plan = make_plan(read_dimensions(), KNOWLEDGE, seed=77)
    composer = Composer(plan)
    rows = [read_prose(composer.compose(plan_row(plan, number))) for number in range(NUM_ROWS)]
    answers = [message for row in rows for message in row if message.role == "assistant"]
    dealt = answers.copy()
    random.Random(0).shuffle(dealt)
    others = iter(dealt)
    mixed = [[next(others) if message.role == "assistant" else message for message in row] for row in rows]

    def count(conversations, *, only_refused):
        return sum(
            defect.refuses or not only_refused
            for messages in conversations
            for defect in find_irrelevance(messages, name="nanochat", subjects=SUBJECTS)
        )

    assert count(mixed, only_refused=True) > 0.25 * len(answers)
    assert count(mixed, only_refused=False) > 0.36 * len(answers)
    assert count(rows, only_refused=True) < 0.01 * len(answers)
    assert count(rows, only_refused=False) < 0.025 * len(answers)
