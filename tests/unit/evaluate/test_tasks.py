"""Tasks: letters as nanochat chooses them, and answers by exact match, number or pattern."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nanosft.conversation import Message
from nanosft.errors import DataError
from nanosft.evaluate.answering import next_logits
from nanosft.evaluate.results import Evaluation
from nanosft.evaluate.tasks import Problem, choose_letters, is_right, read_tasks, score_tasks
from nanosft.nanochat import load_checkpoint


def test_letters_are_chosen_as_nanochat_chose_them(shared: Path, tmp_path: Path) -> None:
    """Prompt ids and choices equal, logits to 1e-4, on the twelve problems of the golden file."""
    torch.set_num_threads(1)
    golden = [orjson.loads(line) for line in (shared / "golden/chatcore/categorical.jsonl").read_bytes().splitlines()]
    (tmp_path / "golden.jsonl").write_bytes((shared / "golden/chatcore/categorical.jsonl").read_bytes())
    problems = read_tasks(str(tmp_path))["golden"]
    checkpoint = load_checkpoint(str(shared / "nanochat_base"))
    prompts = [checkpoint.tokenizer.render_prompt([Message("user", problem.prompt)]) for problem in problems]
    assert prompts == [row["prompt_ids"] for row in golden]
    logits = next_logits(checkpoint.model, prompts, [row["letter_ids"] for row in golden])
    for found, row in zip(logits, golden, strict=True):
        assert found == pytest.approx(row["letter_logits"], abs=1e-4)
    assert choose_letters(checkpoint, problems) == [row["predicted"] for row in golden]
    evaluation = Evaluation({"model": {}})
    score_tasks("model", checkpoint, {"golden": problems}, evaluation, max_tokens=4)
    accuracy = sum(row["predicted"] == row["answer"] for row in golden) / len(golden)
    assert evaluation.figures["model"]["task golden"].mean == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
            Problem("Q?", "2", "letter", ("1", "2"), ("x", "y")),
        ),
        ({"question": "Q?", "choices": ["x", "y"], "answer": 1}, Problem("Q?", "B", "letter", ("A", "B"), ("x", "y"))),
        ({"question": "Q?", "answer": "so 3+4=7\n#### 1,007"}, Problem("Q?", "1,007", "number")),
        ({"question": "Q?", "answer": "yes"}, Problem("Q?", "yes", "exact")),
        ({"question": "Q?", "answer": "^ye", "match": "pattern"}, Problem("Q?", "^ye", "pattern")),
    ],
)
def test_forms_of_problems(tmp_path: Path, line: dict[str, object], problem: Problem) -> None:
    (tmp_path / "mine.jsonl").write_bytes(orjson.dumps(line))
    assert read_tasks(str(tmp_path)) == {"mine": [problem]}


def test_parquet_as_the_hub_exports_it(tmp_path: Path) -> None:
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    table = pa.Table.from_pylist([{"id": "1", "question": "Q?", "choices": choices, "answerKey": "B"}])
    pq.write_table(table, tmp_path / "arc.parquet")
    assert read_tasks(str(tmp_path)) == {"arc": [Problem("Q?", "B", "letter", ("A", "B"), ("x", "y"))]}


@pytest.mark.parametrize(
    ("match", "wanted", "answer", "right"),
    [
        ("exact", "Paris", " Paris\n", True),
        ("exact", "Paris", "Paris.", False),
        ("number", "1,007", "It is #### 1007", True),
        ("number", "7", "3 and 4 make 7.", True),
        ("number", "7", "7 is 3 and 4", False),
        ("number", "7", "seven", False),
        ("pattern", "^[Yy]es", "yes, it is", True),
        ("pattern", "^[Yy]es", "oh yes", False),
    ],
)
def test_answers_by_exact_match_number_or_pattern(match, wanted: str, answer: str, *, right: bool) -> None:
    assert is_right(Problem("Q?", wanted, match), answer) is right


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"nonsense",
        b"[1]",
        b'{"question": "Q?", "choices": ["x"], "answer": "B"}',
        b'{"question": "Q?", "answer": "(", "match": "pattern"}',
        b'{"question": "Q?", "answer": "1", "match": "magic"}',
    ],
)
def test_a_line_that_is_no_problem_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b'{"question": "Q?", "answer": "1"}\n' + line)
    with pytest.raises(DataError, match=r"mine\.jsonl:line 2: no problem of a task"):
        read_tasks(str(tmp_path))
    with pytest.raises(DataError, match="no tasks: expected"):
        read_tasks(str(tmp_path / "nowhere"))
