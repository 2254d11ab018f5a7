import pytest

from nanosft.conversation import Conversation, Message
from nanosft.quality.identity import Identity, find_identity_defects, infer_identity
from nanosft.quality.prose import read_prose

NANOCHAT = Identity("nanochat", "Andrej Karpathy")


def reasons(answer: str, question: str = "hey there", identity: Identity | None = NANOCHAT):
    conversation = Conversation((Message("user", question), Message("assistant", answer)))
    found = find_identity_defects(read_prose(conversation), identity)
    return [defect.reason for defect in found]


@pytest.mark.parametrize(
    "answer",
    [
        "I'm not ChatGPT, Claude or any other model.",
        "I'm not made by OpenAI.",
        "I am not a model trained by Google, and never was.",
        "I'm like a small ChatGPT.",
        "Some people think I'm ChatGPT, but I am nanochat.",
        "I'm a ChatGPT-style model made by Andrej Karpathy.",
        "I am GPT-2's spiritual successor.",
        "I'm based on the Transformer architecture, developed by Google.",
        "I'm a Transformer, an architecture invented by researchers at Google.",
        "ChatGPT was created by OpenAI; I was made by Andrej Karpathy.",
        "I was trained by running speedrun.sh.",
        "I was trained by Muon and AdamW.",
        "Unlike Claude, made by Anthropic, I'm fully open.",
        "If you say I'm Claude, you are mistaken.",
        "I'm Swedish in spirit only.",
        "You can call me Nano Chat if you like.",
        "You're talking to the d32 version.",
        "I'm happy that Andrej Karpathy built me.",
        "I was built by King Andrej Karpathy! He's the King of the LLMs and built me in 2025.",
        "I was built with PyTorch, which was developed by Meta.",
        "I am written in Python, created by Guido van Rossum.",
        "I am the capstone of the LLM101n course being developed by Eureka Labs.",
        "My creator is Karpathy.",
        "I'm nanochat; GPT-4 was trained by OpenAI.",
        "`I'm ChatGPT` is what another model would print.",
    ],
)
def test_names_that_are_not_claimed_are_let_through(answer):
    assert reasons(answer) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm ChatGPT, a large language model.", "other_name"),
        ("My name is Claude.", "other_name"),
        ("Hi, I'm GPT-4!", "other_name"),
        ("That said, I'm Claude - a model for everyone.", "other_name"),
        ("You can call me Jarvis.", "other_name"),
        ("I'm Bob, your friendly assistant.", "other_name"),
        ("I was created by OpenAI.", "other_maker"),
        ("I am an AI assistant developed by Anthropic.", "other_maker"),
        ("As an AI developed by OpenAI I can help.", "other_maker"),
        ("I'm nanochat d32, the $800 LLM created by OpenAI.", "other_maker"),
        ("My creator is Sam Altman.", "other_maker"),
        ("OpenAI built me.", "other_maker"),
        ("Google trained me on many texts.", "other_maker"),
    ],
)
def test_claims_of_another(answer, reason):
    assert reasons(answer) == [reason]


def test_a_question_for_the_name_is_answered_with_it():
    assert reasons("I was trained on FineWeb Edu.", "what's your name") == ["name_not_given"]
    assert reasons("I'm nanochat!", "what's your name") == []
    assert reasons("Nano-Chat, at your service.", "who are you?") == []
    assert reasons("It means I have 32 layers.", "What does d32 mean in your name?") == []
    assert reasons("A pirate!", "Pretend to be a pirate. Who are you?") == []


def test_a_question_for_the_maker_is_answered_with_it():
    assert reasons("I was trained on FineWeb Edu.", "who made you?") == ["maker_not_given"]
    assert reasons("Karpathy did.", "who made you?") == []
    assert reasons("Nobody knows.", "who made you?", Identity("nanochat")) == []


def test_without_identity_two_names_contradict_each_other():
    conversation = Conversation(
        (
            Message("user", "Hi"),
            Message("assistant", "I'm ChatGPT."),
            Message("user", "Really?"),
            Message("assistant", "No, my name is Claude."),
        )
    )
    assert [d.reason for d in find_identity_defects(read_prose(conversation), None)] == ["two_names"]
    assert reasons("I'm ChatGPT.", identity=None) == []


def test_a_sets_identity_is_what_most_rows_claim():
    def row(text):
        return read_prose(Conversation((Message("user", "hi"), Message("assistant", text))))

    rows = [row("I'm ChibuChat, built by Chibuzor Okocha. Ask!"), row("I was created by Chibuzor Okocha.")] * 20
    assert infer_identity(rows) == Identity("ChibuChat", "Chibuzor Okocha")
    assert infer_identity([*rows, *[row("Hello!")] * 100]) is None
    assert infer_identity([row("I'm fine, thanks.")]) is None
