"""Prompts: one fixed prefix, what varies last, and a schema with the exact number of messages."""

from pathlib import Path

import jsonschema
import pytest

from nanosft.errors import ProviderError
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.generate.provider.prompts import (
    estimate_row_tokens,
    make_template,
    parse_draft,
    response_format,
    write_draft_messages,
    write_messages,
)
from nanosft.knowledge import parse_knowledge, read_knowledge

BASE = Path(__file__).parents[4] / "knowledge" / "self_knowledge.md"
PLAN = make_plan(read_dimensions(), read_knowledge(str(BASE)), seed=0)
TEMPLATE = make_template(PLAN)
ROWS = [plan_row(PLAN, number) for number in range(60)]


def test_the_system_message_is_the_same_bytes_for_every_row():
    systems = {write_messages(TEMPLATE, row, model="openai/gpt-5")[0]["content"] for row in ROWS}
    assert len(systems) == 1
    assert PLAN.knowledge.text.strip() in systems.pop()


def test_what_varies_is_a_small_part():
    fixed, varying, answer = estimate_row_tokens(TEMPLATE, ROWS[0])
    assert fixed > 15 * varying
    assert answer > 0


@pytest.mark.parametrize("row", ROWS[:20], ids=lambda row: row.cell)
def test_the_request_tells_all_of_the_row(row):
    text = write_messages(TEMPLATE, row, model="m")[1]["content"]
    assert f"letter for letter: {row.first_message}\n" in text
    assert row.persona.description in text
    assert row.dynamic.description in text
    assert f"exactly {row.num_messages}," in text
    assert all(f"'{section}'" in text for section in row.topic.sections)
    assert ("says its name, nanochat" in text) == (row.topic.names_itself or not row.opening.asks_at_once)
    assert row.facts
    assert all(f"\n- {fact.statement}\n" in text for fact in row.facts)
    assert all(fact.topic in row.topic.sections for fact in row.facts)
    assert all(part in text for part in row.user.split("; "))
    assert row.system in text
    assert bool(row.system) == bool(row.dynamic.system)
    assert ("python_output" in text) == row.dynamic.uses_tool
    assert "{" not in text


@pytest.mark.parametrize(
    ("model", "is_marked"),
    [
        ("anthropic/claude-sonnet-4.5", True),
        ("google/gemini-2.5-flash", True),
        ("openai/gpt-5-mini", False),
        ("deepseek/deepseek-chat", False),
    ],
)
def test_families_that_need_a_cache_breakpoint_get_one(model, is_marked):
    content = write_messages(TEMPLATE, ROWS[0], model=model)[0]["content"]
    if is_marked:
        assert content == [{"type": "text", "text": TEMPLATE.system, "cache_control": {"type": "ephemeral"}}]
    else:
        assert content == TEMPLATE.system


def test_rejections_come_last_and_leave_the_prefix_alone():
    plain = write_messages(TEMPLATE, ROWS[0], model="m")
    refused = write_messages(TEMPLATE, ROWS[0], model="m", rejections=["the answer is cut off"])
    assert refused[0] == plain[0]
    assert refused[1]["content"].startswith(plain[1]["content"])
    assert "- the answer is cut off\n" in refused[1]["content"]


@pytest.mark.parametrize("row", ROWS[:8], ids=lambda row: row.dynamic.id)
def test_the_schema_takes_exactly_the_dynamics_number_of_messages(row):
    schema = response_format(row)["json_schema"]["schema"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(row.num_messages)]
    jsonschema.validate({"messages": messages}, schema)
    for wrong in (messages[:-1], [*messages, messages[0]], [{**messages[0], "extra": 1}, *messages[1:]]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"messages": wrong}, schema)


def test_the_version_changes_with_knowledge_dimensions_and_tone():
    knowledge = parse_knowledge(PLAN.knowledge.text + "- One more fact here.\n", where="k")
    dimensions = PLAN.dimensions.model_copy(update={"max_opening_share": 0.5})
    versions = {
        TEMPLATE.version,
        make_template(make_plan(PLAN.dimensions, knowledge, seed=0)).version,
        make_template(make_plan(dimensions, PLAN.knowledge, seed=0)).version,
        make_template(PLAN, tone="grumpy").version,
    }
    assert len(versions) == 4
    assert make_template(make_plan(PLAN.dimensions, PLAN.knowledge, seed=5)).version == TEMPLATE.version


def test_braces_in_the_knowledge_stay_as_they_are():
    knowledge = parse_knowledge("# Zed\n## A\n- Zed prints {hello} and {0}.\n", where="k")
    template = make_template(make_plan(PLAN.dimensions, knowledge, seed=0))
    assert "Zed prints {hello} and {0}." in template.system
    assert "made by" not in template.system.split("# Rules")[0]


def test_a_draft_prompt_holds_the_source_and_the_wishes():
    system, user = write_draft_messages("Hello readme", where="README.md", name="Zed")
    assert "# <name>" in system["content"]
    assert user["content"].startswith("The assistant's name is Zed.")
    assert user["content"].endswith("Hello readme")


def test_a_draft_in_a_code_fence_is_unwrapped():
    knowledge = parse_draft("```markdown\n# Zed\n## A\n- Zed is a fact.\n```\n", where="k.md")
    assert knowledge.text == "# Zed\n## A\n- Zed is a fact.\n"


def test_a_draft_without_structure_is_an_error():
    with pytest.raises(ProviderError, match="cannot be read"):
        parse_draft("Sorry, no.", where="k.md")


def test_a_plan_of_several_languages_names_that_of_each_row_and_copies_english_alone():
    plan = make_plan(PLAN.dimensions, PLAN.knowledge, seed=0, languages={"en": 1, "de": 1, "tlh": 1})
    template = make_template(plan)
    assert "answers in English" not in template.system
    texts = {}
    for row in (plan_row(plan, number) for number in range(9)):
        texts[row.language] = write_messages(template, row, model="m")[1]["content"]
        assert row.first_message in texts[row.language]
    assert "Language: English\nFirst message, to be copied letter for letter" in texts["en"]
    assert "Language: German\nFirst message, to be said in German" in texts["de"]
    assert "the language with the code tlh" in texts["tlh"]


def test_a_plan_in_english_is_asked_for_as_before_there_were_languages():
    golden = Path(__file__).parents[3] / "golden" / "plan" / "prompt.txt"
    assert "6. Language. The assistant answers in English, in plain ASCII" in golden.read_text(encoding="utf-8")
    assert "Language:" not in write_messages(TEMPLATE, ROWS[0], model="m")[1]["content"]
