"""What a person should mend is found, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.knowledge import check_knowledge, estimate_tokens, find_contradictions, parse_knowledge, read_knowledge

BASE = Path(__file__).parents[3] / "knowledge" / "self_knowledge.md"


def contradictions(*facts: str) -> int:
    bullets = "".join(f"- {fact}\n" for fact in facts)
    return len(list(find_contradictions(parse_knowledge(f"# Zed\n## A\n{bullets}", where="x"))))


def test_the_shipped_knowledge_base_needs_no_mending():
    report = check_knowledge(read_knowledge(str(BASE)))
    assert report.is_clean
    assert report.num_tokens < 6000


@pytest.mark.parametrize(
    "facts",
    [
        ("The d20 model has 561 million parameters.", "The d20 model has 700 million parameters."),
        ("Training the model took 4 hours.", "Training the model took about 9 hours in the end."),
        ("Zed costs $100 to train.", "Zed costs $800 to train."),
        ("In January it had 8,304 lines.", "In January it had 9,400 lines of code."),
        ("Zed was founded in 2019.", "Zed was founded in 2021."),
        ("Rows: 10 in all.", "Rows: 12 in all."),
        ("Zed has 120 plants.", "Zed has 130 plants in pots."),
        ("Training the model took four hours.", "Training the model took 300 minutes."),
    ],
)
def test_one_subject_with_two_numbers_is_a_contradiction(facts):
    assert contradictions(*facts) == 1


@pytest.mark.parametrize(
    "facts",
    [
        ("The d20 model has 561 million parameters.", "The d20 model has 560,988,160 parameters."),
        ("The d20 model has 20 layers.", "The d32 model has 32 layers."),
        ("The d20 model has 20 layers.", "The d20 model has 10 heads."),
        ("The model scored 31 percent on MMLU.", "The model scored 38 percent on ARC."),
        ("Zed trained for 3 hours on 8 GPUs.", "Zed trained for 3 hours on one machine."),
        ("Training the model took four hours.", "Training the model took 240 minutes."),
        ("It needs version 1.6.1 of mypy.", "It needs version 1.5.1 of mypy."),
        ("The model took 4 hours and 51 minutes.", "The model took 4 hours and a bit."),
    ],
)
def test_other_subjects_units_and_rounding_are_none(facts):
    assert contradictions(*facts) == 0


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_two_numbers_contradict_unless_one_is_the_other_rounded(first, second):
    found = contradictions(f"Zed has {first} parameters.", f"Zed has {second:,} parameters.")
    assert found == int(abs(first - second) > 0.02 * max(first, second))


def test_topics_without_a_fact_and_repeated_facts_are_reported():
    text = "# Zed\n## A\n- Zed is one thing.\n## B\n## C\n- zed is one thing.\n"
    report = check_knowledge(parse_knowledge(text, where="x"))
    assert report.empty_topics == ("b",)
    assert report.repeated == ("zed is one thing.",)
    assert not report.is_clean
    assert any("who made" in problem for problem in report.problems)


def test_overlong_facts_are_reported():
    report = check_knowledge(parse_knowledge(f"# Zed\n- Maker: M\n## A\n- Zed {'is ' * 80}long.\n", where="x"))
    assert any("split it" in problem for problem in report.problems)


def test_tokens_are_estimated_within_a_quarter_of_four_letters_a_token():
    text = "Reinforcement learning raised the score of the model, and the training took about four hours in all. " * 20
    assert estimate_tokens(text) == pytest.approx(len(text) / 4.9, rel=0.25)
    assert estimate_tokens("") == 0


def test_a_fact_of_a_thousand_numbers_is_reported_and_compared_with_none():
    for numbers in ("1,000 " * 20_000, "1,000" * 20_000):
        report = check_knowledge(parse_knowledge(f"# Zed\n- Maker: M\n## A\n- Zed has {numbers}.\n", where="x"))
        assert any("split it" in problem for problem in report.problems)
        assert report.contradictions == ()
