"""Dimensions are checked with errors that name the key, and suit any assistant."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, DataError
from nanosft.generate.planning.dimensions import bind_topics, parse_dimensions, read_dimensions
from nanosft.knowledge import parse_knowledge, read_knowledge

BASE = Path(__file__).parents[4] / "knowledge" / "self_knowledge.md"
SHIPPED = files("nanosft.generate.planning").joinpath("dimensions.toml").read_text()

MINIMAL = """
user_names = ["Ada"]
[other_topics]
category = "other"
brief = "{subject}"
ask = ["what {subject} is"]
questions = ["What is {subject}?"]
[[topics]]
id = "cost"
category = "money"
sections = ["cost"]
brief = "the cost"
subject = "cost"
ask = ["what you cost"]
questions = ["What do you cost?"]
[[personas]]
id = "child"
description = "a child"
level = "simple"
reactions = ["Oh."]
[[dynamics]]
id = "short"
description = "short"
num_messages = 2
moves = ["ask"]
[[styles]]
id = "direct"
description = "bare"
first_messages = ["{question}"]
"""


def test_the_shipped_dimensions_are_rich():
    dimensions = read_dimensions()
    questions = [text for topic in dimensions.topics for text in topic.questions]
    messages = [text for style in dimensions.styles for text in style.first_messages]
    assert len(set(questions)) == len(questions)
    assert all(len(set(style.first_messages)) == len(style.first_messages) for style in dimensions.styles)
    assert len({*questions, *messages}) >= 500
    assert all(text.isascii() for text in (*questions, *messages))
    assert len({topic.category for topic in dimensions.topics}) >= 8


def test_the_shipped_topics_all_stand_on_sections_of_the_shipped_knowledge():
    knowledge = read_knowledge(str(BASE))
    known = {topic.id for topic in knowledge.topics if topic.facts}
    dimensions = read_dimensions()
    assert {section for topic in dimensions.topics for section in topic.sections} <= known
    assert [topic.id for topic in bind_topics(dimensions, knowledge)] == [topic.id for topic in dimensions.topics]


def test_shipped_texts_name_no_assistant():
    texts = tomllib.loads(SHIPPED)
    assert "nanochat" not in str(texts)
    assert "Karpathy" not in str(texts)


def test_a_short_question_and_answer_has_two_messages():
    dynamics = {dynamic.id: dynamic for dynamic in read_dimensions().dynamics}
    assert dynamics["short-qa"].num_messages == 2


def test_a_minimal_file_is_enough():
    assert parse_dimensions(MINIMAL.encode(), where="d.toml").max_opening_share == 0.01


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('level = "simple"', 'level = "hard"', r"personas\[0\] 'child'.level: Input should be 'simple'"),
        ('id = "cost"', 'id = "The Cost"', r"topics\[0\] 'The Cost'.id: String should match"),
        ("What do you cost?", "What does {it} cost?", r"topics\[0\] 'cost'.questions\[0\]: .*no slot \{it\}"),
        ("What do you cost?", "What do { cost?", r"topics\[0\] 'cost'.questions\[0\]: .*brace"),
        ("num_messages = 2", "num_messages = 4", r"dynamics\[0\] 'short': 4 messages are 2 turns, moves has 1"),
        ("num_messages = 2", "num_messages = 3", r"dynamics\[0\] 'short'.num_messages: .*multiple of 2"),
        ('moves = ["ask"]', 'moves = ["thanks"]', r"dynamics\[0\] 'short': the first of moves must be 'ask'"),
        ('["{question}"]', '["{question}", "Hi"]', r"styles\[0\] 'direct': 'Hi': all first messages of a style"),
        ('id = "direct"', 'id = "direct"\ncolor = "red"', r"styles\[0\] 'direct'.color: Extra inputs"),
        ('user_names = ["Ada"]', "user_names = []", r"user_names: Tuple should have at least 1 item"),
        ('user_names = ["Ada"]', "", r"user_names: Field required"),
        ("[[dynamics]]", "format = 9\n[[dynamics]]", r"personas\[0\] 'child'.format: Extra inputs"),
        ('subject = "cost"', "subject = 7", r"topics\[0\] 'cost'.subject: Input should be a valid string"),
    ],
)
def test_errors_name_the_key(before, after, message):
    assert before in MINIMAL
    with pytest.raises(ConfigError, match=rf"^s3://bucket/d\.toml: {message}"):
        parse_dimensions(MINIMAL.replace(before, after).encode(), where="s3://bucket/d.toml")


def test_ids_are_unique():
    topic = MINIMAL[MINIMAL.index("[[topics]]") : MINIMAL.index("[[personas]]")]
    with pytest.raises(ConfigError, match=r"topics: id 'cost' stands twice"):
        parse_dimensions((MINIMAL + topic).encode(), where="d")


@pytest.mark.parametrize("data", [b"= nothing", b"\xff\xfe"])
def test_what_is_no_toml_is_an_error(data):
    with pytest.raises(ConfigError, match=r"^d: not TOML: "):
        parse_dimensions(data, where="d")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError):
        read_dimensions(f"{tmp_path}/none.toml")


def test_sections_without_a_topic_get_one_and_topics_without_a_section_none():
    dimensions = parse_dimensions(MINIMAL.encode(), where="d")
    knowledge = parse_knowledge("# Zed\n## Soil types\n- Zed likes sandy soil.\n## Empty\n", where="k")
    (topic,) = bind_topics(dimensions, knowledge)
    assert (topic.id, topic.sections, topic.questions) == ("soil-types", ("soil-types",), ("What is Soil types?",))


def test_questions_for_a_maker_nobody_knows_are_left_out():
    text = MINIMAL.replace('questions = ["What do you cost?"]', 'questions = ["Who is {maker}?", "What do you cost?"]')
    dimensions = parse_dimensions(text.encode(), where="d")
    (nobody,) = bind_topics(dimensions, parse_knowledge("# Zed\n## Cost\n- Zed is free of charge.\n", where="k"))
    (known,) = bind_topics(dimensions, parse_knowledge("# Z\n- Maker: M\n## Cost\n- It is free here.\n", where="k"))
    assert nobody.questions == ("What do you cost?",)
    assert len(known.questions) == 2


def test_comments_do_not_change_the_content_hash():
    first, second = (parse_dimensions(text.encode(), where="d") for text in (MINIMAL, "# words\n" + MINIMAL))
    other = parse_dimensions(MINIMAL.replace("Oh.", "Ah.").encode(), where="d")
    assert first.sha256 == second.sha256 != other.sha256
