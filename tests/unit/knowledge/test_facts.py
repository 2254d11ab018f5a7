"""Any Markdown parses into facts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.errors import DataError
from nanosft.knowledge import Knowledge, parse_knowledge, read_knowledge

BASE = Path(__file__).parents[3] / "knowledge" / "self_knowledge.md"

README = """\
# FooBot: a helper for gardeners

[![ci](https://ci.example.org/badge.svg)](https://ci.example.org)

FooBot answers questions about plants. It was written by Jane Doe in 2024, e.g. at night.

<!-- FooBot is a secret agent. -->

## Features
- Identifies **120 plants** by `description`
  and by smell
- Works offline, see [the docs](https://foobot.example.org/docs "Docs")
  - has a nested item too

```sh
FooBot is installed by this command
```

## Benchmarks
| model | accuracy | size |
|---|---|---|
| small | 71 % | 40 MB |
| large | 83 % | - |

## Empty

## License
MIT
"""


def statements(knowledge: Knowledge, topic: str) -> list[str]:
    return [fact.statement for fact in knowledge.facts if fact.topic == topic]


@pytest.fixture(scope="module")
def readme() -> Knowledge:
    return parse_knowledge(README, where="README.md")


def test_a_readme_is_knowledge(readme):
    assert (readme.name, readme.maker) == ("FooBot", "Jane Doe")
    assert [topic.id for topic in readme.topics][1:] == ["features", "benchmarks", "empty", "license"]
    assert statements(readme, readme.topics[0].id) == [
        "FooBot answers questions about plants.",
        "It was written by Jane Doe in 2024, e.g. at night.",
    ]


def test_bullets_are_facts_without_markup(readme):
    assert statements(readme, "features") == [
        "Identifies 120 plants by description and by smell",
        "Works offline, see the docs",
        "has a nested item too",
    ]


def test_rows_of_tables_are_facts_with_their_headings(readme):
    assert statements(readme, "benchmarks") == ["small: accuracy 71 %, size 40 MB.", "large: accuracy 83 %."]


def test_code_comments_and_images_are_no_facts(readme):
    text = " ".join(fact.statement for fact in readme.facts)
    assert "installed" not in text
    assert "secret" not in text
    assert "badge" not in text


def test_a_word_alone_gets_its_heading(readme):
    assert statements(readme, "license") == ["License: MIT"]


def test_names_of_a_fact(readme):
    assert "Jane Doe" in readme.facts[1].names


def test_a_sentence_may_begin_in_lower_case():
    """nanochat's own name does."""
    knowledge = parse_knowledge("# nanochat\nIt was made in 2025, e.g. at night. nanochat is small.\n", where="x")
    assert statements(knowledge, "nanochat") == ["It was made in 2025, e.g. at night.", "nanochat is small."]


def test_name_maker_and_tone_stand_at_the_top():
    text = "# Some title\n- Name: Zed\n- Maker: Ada L.\n- Tone: dry\n\n## Identity\n- Zed is a bot.\n"
    knowledge = parse_knowledge(text, where="x")
    assert (knowledge.name, knowledge.maker, knowledge.tone) == ("Zed", "Ada L.", "dry")
    assert len(knowledge.facts) == 1


def test_fact_ids_do_not_change_when_other_facts_come_or_go():
    before = parse_knowledge("# Z\n## A\n- Z is one thing.\n- Z is two things.\n", where="x")
    after = parse_knowledge("# Z\n## A\n- Z is new here.\n- Z is two things.\n", where="x")
    assert before.facts[1].id == after.facts[1].id


def test_headings_that_repeat_are_topics_of_their_own():
    knowledge = parse_knowledge("# Z\n## A\n- Z is one thing.\n## A\n- Z is two things.\n", where="x")
    assert [topic.id for topic in knowledge.topics] == ["a", "a-2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no fact in it"),
        ("# Z\n\n```\ncode alone\n```\n", "no fact in it"),
        ("## A\n- Nobody is named here.\n", "does not say the assistant's name"),
        ("# A very long title that is no name\n- A fact it is.\n", "does not say the assistant's name"),
    ],
)
def test_errors_say_what_to_write(text, message):
    with pytest.raises(DataError, match=message) as error:
        parse_knowledge(text, where="s3://bucket/k.md")
    assert str(error.value).startswith("s3://bucket/k.md: ")


def test_a_missing_file_tells_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"nanosft knowledge draft --from README\.md --out") as error:
        read_knowledge(f"{tmp_path}/none.md")
    assert "\n" not in str(error.value)


def test_a_binary_file_is_an_error(tmp_path):
    (tmp_path / "k.md").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(DataError, match="not UTF-8"):
        read_knowledge(f"{tmp_path}/k.md")


@given(st.text(max_size=300))
def test_no_text_makes_the_parser_fail_otherwise(text):
    try:
        knowledge = parse_knowledge(f"# Zed\n\n{text}", where="x")
    except DataError:
        return
    assert knowledge.facts
    assert len({(fact.topic, fact.id) for fact in knowledge.facts}) == len(knowledge.facts)
    assert all("\n" not in fact.statement for fact in knowledge.facts)


def test_the_shipped_knowledge_base_is_rich_and_small():
    knowledge = read_knowledge(str(BASE))
    assert (knowledge.name, knowledge.maker) == ("nanochat", "Andrej Karpathy")
    assert len(knowledge.facts) >= 150
    assert len({fact.id for fact in knowledge.facts}) == len(knowledge.facts)
    assert knowledge.text.isascii()
