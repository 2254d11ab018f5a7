"""Probes: what of a fact is asked for, how, and which stand in training data."""

from collections import Counter
from pathlib import Path

import pytest

from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import list_data_objects
from nanosft.errors import ConfigError
from nanosft.evaluate.probing.leaks import drop_leaked, read_asked
from nanosft.evaluate.probing.probes import Probe, choose_probes, make_probes, read_personas, read_wordings
from nanosft.evaluate.probing.questions import ask_by_grammar
from nanosft.knowledge import Knowledge, parse_knowledge
from nanosft.knowledge.keys import alter, cut_before, find_key, leave_gap

TEXT = """\
# Tilda
- Name: Tilda
- Maker: Ada Byron

## Sizes
- The small model has 561 million parameters.
- The first record was 3.04 hours, set in spring.
- The small model scored 31.5 percent on MMLU, where guessing gives 25 percent.
- Renting the machine cost about $24 an hour.
- Tilda has no voice at all.

## History
- Tilda was published on October 13, 2025.
- The source code is public at https://example.org/tilda for everyone.
- Ada Byron studied at Stanford University for years.
"""


def make_knowledge(text: str = TEXT) -> Knowledge:
    return parse_knowledge(text, where="knowledge.md")


def probes_of(knowledge: Knowledge, *, seed: int = 0) -> list[Probe]:
    return make_probes(knowledge, read_wordings(), ["a teacher"], seed=seed)


@pytest.mark.parametrize(
    ("fact", "key", "question"),
    [
        ("The small model has 561 million parameters.", "561 million parameters", "How many parameters does the small"),
        ("The first record was 3.04 hours, set in spring.", "3.04 hours", "What was the first record, in hours?"),
        (
            "The model scored 31.5 percent on MMLU, a test.",
            "31.5 percent",
            "How much, in percent, did the model score on",
        ),
        ("The machine cost about $24.", "$24", "How much did the machine cost?"),
        ("Tilda was published on October 13, 2025.", "October 13, 2025", "When was Tilda published?"),
        ("The code lies at https://example.org/tilda now.", "https://example.org/tilda", ""),
        ("Ada Byron studied at Stanford University for years.", "Stanford University", ""),
        ("In spring the record was 3 hours.", "3 hours", ""),  # the subject is not at the beginning
        ("The layers use ReLU and are 4 times as wide.", "4", ""),
    ],
)
def test_a_fact_has_one_key_and_its_grammar_gives_a_question(fact: str, key: str, question: str) -> None:
    knowledge = make_knowledge(f"- Name: Tilda\n- Maker: Ada Byron\n\n## Facts\n- {fact}\n")
    (only,) = knowledge.facts
    found = find_key(only, knowledge)
    assert found is not None
    assert found.text == key
    assert leave_gap(only, found) == fact.replace(key, "_____")
    questions = list(ask_by_grammar(only, found))
    assert [text for text in questions if text.startswith(question)] == questions
    assert bool(questions) == bool(question)


def test_what_has_nothing_to_ask_for_has_no_key() -> None:
    knowledge = make_knowledge()
    keyless = [fact.statement for fact in knowledge.facts if find_key(fact, knowledge) is None]
    assert keyless == ["Tilda has no voice at all."]


def test_a_false_premise_holds_no_number_of_the_knowledge() -> None:
    knowledge = make_knowledge()
    known = frozenset({("parameter", 561e6), ("parameter", 842e6)})  # 1.5 times as many is known too
    fact = knowledge.facts[0]
    key = find_key(fact, knowledge)
    assert key is not None
    assert alter(fact, key, known) == "The small model has 1402 million parameters."
    assert cut_before(fact, key) == "The small model has"


def test_probes_are_in_every_manner_and_hold_nothing_of_their_answer() -> None:
    probes = probes_of(make_knowledge())
    manners = Counter(probe.manner for probe in probes)
    assert set(manners) == {"first turn", "after other turns", "typos", "persona", "false premise"}
    assert min(manners.values()) >= 12
    for probe in probes:
        assert probe.messages[-1].role == "user"
        assert (len(probe.messages) > 1) == (probe.manner == "after other turns")
        if probe.key is not None:
            assert probe.key.text not in probe.messages[-1].text
        if probe.kind == "name":
            assert "Tilda" not in "".join(message.text for message in probe.messages)
        if probe.kind == "maker":
            assert "Byron" not in "".join(message.text for message in probe.messages)


def test_equal_seeds_give_equal_probes_and_others_do_not() -> None:
    knowledge = make_knowledge()
    assert probes_of(knowledge) == probes_of(knowledge)
    assert probes_of(knowledge) != probes_of(knowledge, seed=1)


def test_without_a_maker_nobody_is_asked_for_one() -> None:
    probes = probes_of(make_knowledge("- Name: Tilda\n\n## Facts\n- The model has 5 layers.\n"))
    assert {probe.kind for probe in probes} == {"name", "fact", "unanswerable"}
    assert not any("{" in message.text or "  " in message.text for probe in probes for message in probe.messages)


def test_a_choice_of_probes_takes_every_item_before_any_twice() -> None:
    probes = probes_of(make_knowledge())
    items = {probe.item for probe in probes}
    assert {probe.item for probe in choose_probes(probes, len(items))} == items
    assert choose_probes(probes, 10_000) == probes


def test_probes_that_training_data_holds_are_left_out(tmp_path: Path) -> None:
    probes = probes_of(make_knowledge())
    told = Conversation(
        (Message("user", "Hello! PLEASE state your name"), Message("assistant", "I am Tilda. Whose work are you?"))
    )
    (tmp_path / "rows.jsonl").write_bytes(to_line(told))
    asked = read_asked(list_data_objects(str(tmp_path / "rows.jsonl")))
    kept, num_leaked = drop_leaked(probes, asked)
    assert {probe.question for probe in probes} - {probe.question for probe in kept} == {"Please state your name."}
    assert num_leaked == 4  # in each manner: what the assistant says does not count
    assert drop_leaked(probes, None) == (probes, 0)


def test_personas_come_from_dimensions(tmp_path: Path) -> None:
    assert len(read_personas(None)) >= 10
    (tmp_path / "own.toml").write_text('[[personas]]\nid = "x"\ndescription = "a sailor"\n')
    assert read_personas(str(tmp_path / "own.toml")) == ("a sailor",)
    (tmp_path / "none.toml").write_text("format = 1\n")
    with pytest.raises(ConfigError, match="no dimensions with"):
        read_personas(str(tmp_path / "none.toml"))
