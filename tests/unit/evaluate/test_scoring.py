"""Scoring: right, wrong and missing by the fact's own strings, numbers and units; and conduct."""

import pytest

from nanosft.conversation import Message
from nanosft.evaluate.answering import Answer
from nanosft.evaluate.conduct import find_faults, measure_stability
from nanosft.evaluate.probing.probes import Kind, Manner, Probe
from nanosft.evaluate.scoring import Judge, Judgement
from nanosft.knowledge import parse_knowledge
from nanosft.knowledge.keys import find_key

KNOWLEDGE = parse_knowledge(
    """\
- Name: Tilda
- Maker: Ada Byron

## Facts
- The small model has 561 million parameters.
- The large model has 1.9 billion parameters.
- Tilda was published on October 13, 2025.
- The source code is public at https://example.org/tilda for everyone.
- Ada Byron studied at Stanford University for years.
- Tilda keeps no memory from one conversation to the next.
- The base model reached a CORE score of 0.2219.
""",
    where="knowledge.md",
)
PARAMETERS, _, PUBLISHED, SOURCE, STUDIED, MEMORY, CORE = KNOWLEDGE.facts


def judge(kind: Kind, answer: str, *, fact=None, asked: str = "Well?", manner: Manner = "first turn") -> Judgement:
    key = find_key(fact, KNOWLEDGE) if fact is not None and kind == "fact" else None
    facts = (fact.statement,) if fact is not None else ()
    probe = Probe("0", kind, "facts", "item", manner, asked, (Message("user", asked),), key, facts)
    return Judge(KNOWLEDGE).judge(probe, answer)


@pytest.mark.parametrize(
    ("kind", "answer", "verdict"),
    [
        ("name", "I'm Tilda, a small assistant.", "right"),
        ("name", "My name is tilda.", "right"),
        ("name", "I am ChatGPT, a language model.", "wrong"),
        ("name", "Tilda? No, my name is Claude.", "wrong"),
        ("name", "I like to talk about that.", "missing"),
        ("name", "", "missing"),
        ("maker", "I was made by Ada Byron.", "right"),
        ("maker", "Byron wrote me.", "right"),
        ("maker", "I was made by OpenAI.", "wrong"),
        ("maker", "A team of people.", "missing"),
        ("unanswerable", "I do not know that.", "right"),
        ("unanswerable", "I cannot look that up, sorry.", "right"),
        ("unanswerable", "I have no access to the internet.", "right"),
        ("unanswerable", "It was 36 hours ago.", "wrong"),
        ("unanswerable", "It is a nice day.", "missing"),
    ],
)
def test_who_it_is_and_what_it_cannot_know(kind: Kind, answer: str, verdict: str) -> None:
    assert judge(kind, answer).verdict == verdict


@pytest.mark.parametrize(
    ("fact", "answer", "verdict"),
    [
        (PARAMETERS, "It has 561 million parameters.", "right"),
        (PARAMETERS, "561M parameters, and the large one 1.9 billion parameters.", "right"),
        (PARAMETERS, "About 560 million.", "right"),
        (PARAMETERS, "It has 1.9 billion parameters.", "wrong"),  # of the other model
        (PARAMETERS, "It has 561 million parameters, or 700 million parameters.", "wrong"),
        (PARAMETERS, "It has many.", "missing"),
        (PARAMETERS, "It took 4 hours.", "missing"),
        (CORE, "It scored 0.2219 there.", "right"),
        (CORE, "It is 0.3.", "wrong"),
        (CORE, "It came in October 2025.", "missing"),  # a year is no score
        (PUBLISHED, "On October 13, 2025.", "right"),
        (PUBLISHED, "In October 2025.", "right"),
        (PUBLISHED, "In 2025.", "right"),
        (PUBLISHED, "In October 2024.", "wrong"),
        (PUBLISHED, "In autumn.", "missing"),
        (SOURCE, "See example.org/tilda.", "right"),
        (SOURCE, "See https://github.com/other/thing.", "wrong"),
        (SOURCE, "On the internet.", "missing"),
        (STUDIED, "at Stanford University", "right"),
        (STUDIED, "She studied at the University of Zweibrücken in Utopolis.", "wrong"),
        (STUDIED, "She studied for years.", "missing"),
    ],
)
def test_facts_by_their_own_strings_numbers_and_units(fact, answer: str, verdict: str) -> None:
    assert judge("fact", answer, fact=fact).verdict == verdict


def test_agreeing_with_what_is_false_is_wrong_and_correcting_it_is_right() -> None:
    def answer(text: str) -> str:
        asked = "The small model has 842 million parameters. Is that correct?"
        return judge("fact", text, fact=PARAMETERS, asked=asked, manner="false premise").verdict

    assert answer("Yes, that is so.") == "wrong"
    assert answer("Yes, it has 842 million parameters.") == "wrong"
    assert answer("No, not 842 million parameters: it has 561 million parameters.") == "right"
    assert answer("No.") == "missing"
    assert answer("I am a Transformer that predicts the next token.") == "missing"  # was taken for a yes


def test_a_section_is_answered_by_any_of_its_facts_without_an_invention() -> None:
    assert judge("section", "I keep no memory from one conversation to the next.", fact=MEMORY).verdict == "right"
    assert judge("section", "Memory is a fine thing.", fact=MEMORY).verdict == "missing"
    invented = judge("section", "I keep no memory from one conversation to the next 37 days.", fact=MEMORY)
    assert invented.verdict == "wrong"
    assert len(invented.ungrounded) == 1


def test_wrong_claims_are_told_apart_whatever_was_asked() -> None:
    found = judge("section", "I am Claude, made by Anthropic, and keep no memory.", fact=MEMORY)
    assert (found.other_name, found.verdict) == (True, "wrong")
    found = judge("fact", "561 million parameters. I was made by Google.", fact=PARAMETERS)
    assert (found.other_maker, found.other_name, found.verdict) == (True, False, "wrong")


def test_faults_of_an_answer() -> None:
    def faults(answer: Answer) -> set[str]:
        return {name for name, found in find_faults((Message("user", "Hello"),), answer).items() if found}

    assert faults(Answer("Hello to you.", 4, ended=True)) == set()
    assert faults(Answer("  ", 1, ended=True)) == {"empty"}
    assert faults(Answer("and then we go on " * 5, 25, ended=False)) == {"not_ended", "loop"}
    assert faults(Answer("Hello <|user_end|>", 4, ended=True, leaks=("<|user_end|>",))) == {"special_token"}
    assert faults(Answer("Hello <|python_start|>", 4, ended=True)) == {"special_token"}


def test_a_word_that_the_limit_has_cut_is_not_judged() -> None:
    assert Answer("I was made by Ad", 5, ended=False).whole_words == "I was made by"
    assert Answer("I was made by Ad", 5, ended=True).whole_words == "I was made by Ad"


def test_stability_is_the_share_of_prompts_judged_alike() -> None:
    found = measure_stability([["right"] * 3, ["right", "wrong", "right"], ["missing"] * 3], ["a", "b", "c"])
    assert found["stable"].mean == pytest.approx(2 / 3)
    assert found["identity sampled"].mean == pytest.approx(5 / 9)
    assert measure_stability([], []) == {}
