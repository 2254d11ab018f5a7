"""Style examples: which are chosen, how prompts show them, and what is wrong with a bad file."""

from pathlib import Path

import orjson
import pytest

from nanosft.errors import ConfigError, DataError
from nanosft.generate.examples import read_examples
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.generate.provider import estimate_row_tokens, make_template, write_messages
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from tests.stub_provider import KNOWLEDGE

PLAN = make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)


def write(path: Path, *rows: object) -> str:
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return str(path)


def talk(number: int, answer: str = "Aye, that be so.") -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": answer}]


def test_the_same_few_are_chosen_by_the_seed_in_whatever_order_and_however_often_they_stand(tmp_path):
    rows = [talk(number) for number in range(30)]
    first = read_examples(write(tmp_path / "a.jsonl", *rows), num=3, seed=1)
    again = read_examples(write(tmp_path / "b.jsonl", *reversed(rows), *rows), num=3, seed=1)
    other = read_examples(write(tmp_path / "c.jsonl", *rows), num=3, seed=2)
    assert len(first.conversations) == 3
    assert first.conversations == again.conversations
    assert first.conversations != other.conversations
    assert first.sha256 == first.parents[0].sha256 != again.sha256


def test_prompts_show_them_in_the_fixed_part_and_are_otherwise_as_without(tmp_path):
    system = {"role": "system", "content": "You are a pirate."}
    examples = read_examples(write(tmp_path / "a.jsonl", [system, *talk(7)]), num=3, seed=0)
    template = make_template(PLAN, examples=examples.conversations)
    plain = make_template(PLAN)
    shown = orjson.dumps({"messages": talk(7)}).decode()
    assert shown in template.system
    assert "You are a pirate" not in template.system
    assert template.version != plain.version
    before, _, after = template.system.partition("\n# Examples of the voice\n")
    assert plain.system.startswith(before)
    assert plain.system.endswith(after.partition(f"{shown}\n")[2])
    row = plan_row(PLAN, 3)
    assert write_messages(template, row, model="m")[1] == write_messages(plain, row, model="m")[1]
    assert estimate_row_tokens(template, row)[0] > estimate_row_tokens(plain, row)[0] + 30


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no conversation"),
        (b"not json\n", r"a\.jsonl:line 1: not JSON"),
        (b'{"text": "x"}\n', r"a\.jsonl:line 1"),
        (b'[{"role":"user","content":"Hi"}]\n', "has no user message with an assistant's answer"),
    ],
)
def test_a_file_of_anything_else_is_named_with_its_line(tmp_path, content, problem):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_examples(str(path), num=3, seed=0)


def test_examples_that_would_fill_every_prompt_are_refused(tmp_path):
    uri = write(tmp_path / "a.jsonl", talk(1, "Aye, that be so. " * 4000))
    with pytest.raises(ConfigError, match="which every prompt would carry"):
        read_examples(uri, num=1, seed=0)


def test_the_composer_reads_no_examples():
    with pytest.raises(ValueError, match="reads none"):
        GenerateSettings(out="x", provider="offline", examples="y")
