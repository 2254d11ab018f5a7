"""Nonsense that was accepted once is refused, each kind by a gate of its own, and what people say is not."""

import pytest

from nanosft.conversation import Conversation, Message
from nanosft.knowledge import read_knowledge
from nanosft.quality.gates import Context, Gates, check
from nanosft.quality.grounding import make_reference
from nanosft.quality.verdict import Verdict
from nanosft.settings.gates import GateName

CONTEXT = Context(Gates(), make_reference(read_knowledge(None)), full_stops=True)


def verdict(*texts: str, context: Context = CONTEXT, planned: bool = True, names_itself: bool = False) -> Verdict:
    messages = tuple(Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts))
    return check(
        Conversation(messages), context, num_messages=len(texts) if planned else None, names_itself=names_itself
    )


@pytest.mark.parametrize(
    ("gate", "texts", "reason"),
    [
        ("short_repeats", ("hey there", "Hiya!") * 4, "third_time"),
        ("fragments", ("What is your license?", "Sinopic: 2.2.1.2."), "no_verb"),
        ("fragments", ("Can you say that in plain words?", "The gist is this: The depth."), ""),
        ("fragments", ("What sets your size?", "The depth."), "no_verb"),
        ("echo", ("How many layers does the d20 model have?",) * 2, "question"),
        (
            "echo",
            ("So how many layers does the d20 model have?", "How many layers does the d20 model have!"),
            "question",
        ),
        ("echo", ("tell me about the training data", "Tell me about the training data!"), "question"),
        ("relevance", ("What license do you have?", "The gardener waters the tulips early."), "off_topic"),
        ("relevance", ("How many tokens fit into your vocabulary?", "Midtraining was removed later."), "off_topic"),
        ("completeness", ("What sets your size?", "The"), "cut_off"),
        ("completeness", ("Where is your source code?", "My source code is on GitHub at https."), "cut_off"),
    ],
)
def test_nonsense_seen_from_outside(gate: GateName, texts: tuple[str, ...], reason: str):
    found = verdict(*texts)
    if reason:
        assert f"{gate}/{reason}" in found.reasons
    assert not found.accepted
    off = Context(Gates(off=frozenset({gate})), CONTEXT.reference, full_stops=True)
    assert gate not in {defect.gate for defect in verdict(*texts, context=off).defects}


@pytest.mark.parametrize(
    "texts",
    [
        ("Hi!", "Hello there! nanochat at your service."),
        ("Thank you, bye!", "My pleasure. Until next time."),
        ("How are you?", "How are you?"),
        ("Please repeat: the cat sat on the mat", "The cat sat on the mat."),
        ("Who will win the next election?", "That is beyond me."),
        ("What is the capital of France?", "It is Paris."),
        ("Are you sure about your license?", "Yes, really."),
        ("Does your training take long?", "My pretraining took about 4 hours."),
        ("How do I install it?", "Install it with pip."),
        ("Who is behind you?", "I owe my existence to Andrej Karpathy."),
        ("Andrej Karpathy is a computer ...?", "Andrej Karpathy is a computer scientist."),
        ("I learned much about code and layers. When were you born?", "I was published on October 13, 2025."),
        ("Who uses you?", "I am meant for students, researchers and tinkerers."),
        ("A or B?", "A", "And here, A or B?", "A", "Once more, A or B?", "A"),
    ],
)
def test_what_people_say_is_let_pass(texts: tuple[str, ...]):
    gates = {"relevance", "echo", "short_repeats"}
    assert [name for name in verdict(*texts).reasons if name.partition("/")[0] in gates] == []
    assert verdict(*texts, planned=False).reasons == ()


def test_a_name_answers_where_no_plan_asks_for_sentences():
    asked = ("Which city is the capital of Italy?", "The city of Rome.")
    assert verdict(*asked).reasons == ("fragments/no_verb",)
    (reported,) = verdict(*asked, planned=False).defects
    assert (reported.name, reported.refuses) == ("fragments/no_verb", False)
    assert verdict(*asked, planned=False, context=Context(Gates(), full_stops=False)).defects == ()


def test_off_topic_answers_are_reported_where_no_knowledge_says_what_belongs_together():
    found = verdict("My mouse is not responding today.", "Try another port.", context=Context(), planned=True)
    assert [(defect.name, defect.refuses) for defect in found.defects] == [("relevance/off_topic", False)]


def test_other_languages_are_let_pass():
    assert verdict("Was ist deine Lizenz?", "Der Gärtner gießt Tulpen.").accepted


def test_a_row_that_has_to_name_the_assistant():
    asked = ("Hello!", "Hi there! I am glad to talk to you.")
    assert verdict(*asked, names_itself=True).reasons == ("naming/unnamed",)
    assert verdict("Hello!", "Hi, I am nanochat!", names_itself=True).accepted
    off = Context(Gates(off=frozenset({"naming"})), CONTEXT.reference)
    assert verdict(*asked, names_itself=True, context=off).accepted
