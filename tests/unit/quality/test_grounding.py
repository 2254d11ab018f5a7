import pytest

from nanosft.conversation import Conversation, Message
from nanosft.knowledge import parse_knowledge
from nanosft.quality.grounding import find_grounding_defects, make_identity_reference, make_reference
from nanosft.quality.identity import Identity
from nanosft.quality.prose import read_prose

REFERENCE = make_reference(
    parse_knowledge(
        """# nanochat
- Name: nanochat
- Maker: Andrej Karpathy

## Facts
- The d32 model has 1,879,048,192 parameters and was trained on 38 billion tokens for about $800 in 33 hours.
- The d26 model costs about $300.
- nanochat was published on October 13, 2025 at https://github.com/karpathy/nanochat under the MIT license.
- It scores 0.2219 on CORE.
- The code has 8,304 lines.
""",
        where="facts.md",
    )
)


def find(answer: str, question: str = "hi", *, strict: bool = False):
    conversation = Conversation((Message("user", question), Message("assistant", answer)))
    return list(find_grounding_defects(read_prose(conversation), REFERENCE, strict=strict))


@pytest.mark.parametrize(
    "answer",
    [
        "I have 1.9 billion parameters.",
        "I have 1.9B parameters, that is 1,900 million.",
        "I have about 2 billion parameters.",
        "Thirty-eight billion tokens for 800 dollars!",
        "It took over 32 hours.",
        "I have 26 layers as d26.",
        "Published in 2025, in October 2025, on 2025-10-13.",
        "See github.com/karpathy/nanochat or https://github.com/karpathy.",
        "That is 22% on CORE, and I'm 100% open, 24 hours a day.",
        "Give me one minute.",
        "My code has 8K lines.",
    ],
)
def test_what_the_knowledge_holds_is_let_through(answer):
    assert [defect for defect in find(answer) if defect.refuses] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I have 2.3 billion parameters.", "quantity"),
        ("I cost exactly $900.", "quantity"),
        ("I was trained for 38 hours.", "quantity"),
        ("I was trained on 83 billion tokens.", "quantity"),
        ("I know 175B of them.", "quantity"),
        ("I was made in 2023.", "date"),
        ("I was made in November 2025.", "date"),
        ("See https://github.com/nanochat/nanochat.", "url"),
        ("See https://github.com/karpathy/nanochat/discussions/8.", "url"),
    ],
)
def test_what_it_does_not_hold_is_refused(answer, reason):
    found = find(answer)
    assert [defect.reason for defect in found if defect.refuses] == [reason]


def test_the_users_own_words_may_be_repeated():
    assert find("You have 512 dollars, since 1999?", "I got 512 dollars in 1999") == []
    assert [d.reason for d in find("You have 512 dollars.", "hi")] == ["quantity"]


def test_the_user_may_not_say_it_afterwards():
    conversation = Conversation(
        (
            Message("user", "hi"),
            Message("assistant", "You have 512 dollars."),
            Message("user", "Yes, 512 dollars"),
            Message("assistant", "So 512 dollars it is."),
        )
    )
    found = list(find_grounding_defects(read_prose(conversation), REFERENCE))
    assert [defect.index for defect in found] == [1]


def test_unknown_names_are_reported_and_refused_when_strict():
    answer = "I run on Azure with Andrej Karpathy, on Monday, in English."
    (reported,) = find(answer)
    assert (reported.reason, reported.refuses) == ("unknown_name", False)
    assert reported.detail.endswith("hold: Azure")
    assert find(answer, strict=True)[0].refuses
    assert find(answer, "Do you like Azure?", strict=True) == []
    assert find("I am closed on Sundays.", strict=True) == []


def test_a_name_is_reported_where_the_assistant_connects_itself_with_it():
    """It fired on 82 to 99 % of published rows, and said nothing."""
    assert [defect.detail[-4:] for defect in find("I was trained by people at Acme.")] == ["Acme"]
    assert find("A good book on this is by Knuth. My advice: read Dijkstra.") == []
    assert find("I was made by King Andrej Karpathy, and I run on Macbooks.") == []
    assert len(find("A good book on this is by Knuth.", strict=True)) == 1


def test_code_is_not_read_for_numbers():
    assert find("Set `--budget 77 dollars` and run.") == []


def test_an_identity_alone_grounds_nothing_and_refuses_nothing():
    reference = make_identity_reference(Identity("nanochat"))
    prose = read_prose(Conversation((Message("user", "hi"), Message("assistant", "I cost $12 in 1931."))))
    assert list(find_grounding_defects(prose, reference, strict=True)) == []


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("It uses nanoZeta and Zeta.", "nanoZeta, Zeta"),
        ("It uses Zeta, and OpenZeta.", "Zeta, OpenZeta"),
        ("It uses " + "z" * 300 + "Zeta.", "z" * 300 + "Zeta"),
        ("It uses path/nanoZeta.", None),
    ],
)
def test_names_are_found_whether_a_small_letter_or_a_capital_begins_them(answer, names):
    found = [defect.detail for defect in find(answer, strict=True)]
    assert found == ([] if names is None else [f"names that the knowledge does not hold: {names}"])
