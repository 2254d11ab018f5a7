"""Gates take time in proportion to what they read. What grew with the square of it took minutes, and is cut by the
time-out, which is a hundred times what these need.
"""

import pytest

from nanosft.conversation import Conversation, Message, Part
from nanosft.knowledge import read_knowledge
from nanosft.quality.gates import Context, Gates, check
from nanosft.quality.grounding import Reference, make_reference
from nanosft.quality.identity import infer_identity
from nanosft.quality.prose import read_prose

pytestmark = pytest.mark.timeout(60)
SIZE = 30_000
# What each pattern begins with, again and again, and never ends.
UNITS = (
    *"A1-#([{\n`@\u00e9\U0001f600\u200b",
    *("a@", "a@.", "a-", "](", "[a](", "{{a", '"a":', "\\n", "1,", "1,000 ", "1e5", "$1 ", "1 GB ", "2020-01-01 "),
    *("```\n", "~~~", "**", "<|a", "www.", "http://a", "User: ", "- ", "1) ", "?!", "x y z "),
    *("I'm Aa ", "Aa created me ", "I was made by ", "my maker is Aa of ", "you're talking to Aa ", "as an AI "),
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference(read_knowledge(None))


@pytest.mark.parametrize("unit", UNITS)
def test_time_does_not_grow_with_the_square_of_a_message(unit, reference):
    """A URL's pattern on 300,000 letters, a clause's beginning far back: minutes, with the event loop blocked."""
    answer = (unit * SIZE)[:SIZE]
    conversation = Conversation((Message("user", "hi"), Message("assistant", answer)))
    verdict = check(conversation, Context(Gates(off=frozenset({"style"})), reference), names_itself=True)
    assert "naming/unnamed" in verdict.reasons
    assert infer_identity([read_prose(conversation)]) is None or unit in {"Aa created me ", "you're talking to Aa "}


def test_time_does_not_grow_with_the_square_of_the_messages(reference):
    """Each answer was compared with all others, and every earlier question read again for each name."""
    pair = (Message("user", "and the Quux?"), Message("assistant", "It is the Frobnicator of the"))
    context = Context(Gates(off=frozenset({"structure", "style"}), strict_grounding=True), reference)
    verdict = check(Conversation(pair * 10_000), context)
    assert sum(defect.name == "grounding/unknown_name" for defect in verdict.defects) == 10_000


@pytest.mark.parametrize(
    "messages",
    [
        (Message("user", "hi"), Message("assistant", "ho")) * 501,
        (Message("user", "hi"), Message("assistant", (Part("text", "a"),) * 1001)),
    ],
    ids=["messages", "parts"],
)
def test_more_pieces_than_anybody_talks_are_refused_unread(messages, reference):
    assert check(Conversation(messages), Context(Gates(), reference)).reasons == ("structure/too_many",)


def test_what_is_too_long_is_not_read_for_anything_else(reference):
    long = Message("assistant", "I'm ChatGPT. " * 2000)
    verdict = check(Conversation((Message("user", "hi"), long)), Context(Gates(), reference))
    assert verdict.reasons == ("style/too_long",)
    many = (Message("user", "hi"), Message("assistant", "I'm ChatGPT. " * 1500)) * 11
    assert check(Conversation(many), Context(Gates(), reference)).reasons == ("style/too_long",)
