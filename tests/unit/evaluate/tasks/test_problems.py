"""Problems: every form of file, which files are one task, and answers by exact match, number or pattern."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanosft.errors import DataError
from nanosft.evaluate.tasks import Problem, Task, is_right, list_task_files, problems, read_tasks


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
            Problem("Q?", "2", "letter", ("1", "2"), ("x", "y")),
        ),
        ({"question": "Q?", "choices": ["x", "y"], "answer": 1}, Problem("Q?", "B", "letter", ("A", "B"), ("x", "y"))),
        (
            {"question": "Q?", "answer": "so #### 3+4=<<3+4=7>>7\n#### 1,007"},
            Problem("Q?", "1007", "gsm8k"),
        ),
        ({"question": "Q?", "answer": "so\n#### 1,007", "match": "number"}, Problem("Q?", "1,007", "number")),
        (
            {
                "task_id": "HumanEval/0",
                "prompt": "def f():",
                "canonical_solution": "  x",
                "test": "t",
                "entry_point": "f",
            },
            Problem("def f():", "f", "program", test="t"),
        ),
        ({"question": "Q?", "answer": "yes"}, Problem("Q?", "yes", "exact")),
        ({"question": "Q?", "answer": "^ye", "match": "pattern"}, Problem("Q?", "^ye", "pattern")),
    ],
)
def test_forms_of_problems(tmp_path: Path, line: dict[str, object], problem: Problem) -> None:
    (tmp_path / "mine.jsonl").write_bytes(orjson.dumps(line))
    assert read_tasks(str(tmp_path)) == [Task("mine", (problem,))]


def test_parquet_as_the_hub_exports_it(tmp_path: Path) -> None:
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    table = pa.Table.from_pylist([{"id": "1", "question": "Q?", "choices": choices, "answerKey": "B"}])
    pq.write_table(table, tmp_path / "arc.parquet")
    assert read_tasks(str(tmp_path)) == [Task("arc", (Problem("Q?", "B", "letter", ("A", "B"), ("x", "y")),))]


@pytest.mark.parametrize(
    ("match", "wanted", "answer", "right"),
    [
        ("exact", "Paris", " Paris\n", True),
        ("exact", "Paris", "Paris.", False),
        ("number", "1,007", "It is #### 1007", True),
        ("number", "7", "3 and 4 make 7.", True),
        ("number", "7", "7 is 3 and 4", False),
        ("number", "7", "seven", False),
        ("gsm8k", "1007", "so 1+6=7\n#### 1,007", True),
        ("gsm8k", "1007", "#### 1 and then #### 1007", False),
        ("gsm8k", "7", "#### 7.", False),  # as nanochat compares: the full stop is part of it
        ("gsm8k", "7", "it is 7", False),
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
        b'{"question": "Q?", "answer": "a{99999999999999999999}", "match": "pattern"}',
        b'{"question": "Q?", "answer": "' + b"(" * 990 + b'", "match": "pattern"}',
        b'{"question": "Q?", "answer": "' + b"a" * 1001 + b'", "match": "pattern"}',
    ],
)
def test_a_line_that_is_no_problem_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b'{"question": "Q?", "answer": "1"}\n' + line)
    with pytest.raises(DataError, match=r"mine\.jsonl:line 2: no problem of a task"):
        read_tasks(str(tmp_path))
    with pytest.raises(DataError, match="no tasks: expected"):
        read_tasks(str(tmp_path / "nowhere"))


def test_a_pattern_that_goes_back_and_forth_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's pattern `(a+)+b` held the evaluation of one answer for longer than anybody waits."""
    monkeypatch.setattr(problems, "_PATTERN_S", 0.05)
    with pytest.raises(DataError, match=r"its pattern '\(a\+\)\+b' takes more than 0\.05 s over an answer of 60 char"):
        is_right(Problem("Q?", "(a+)+b", "pattern"), "a" * 60)
    assert is_right(Problem("Q?", "(a+)+b", "pattern"), "a" * 60 + "b")


def test_files_of_one_split_are_one_task_and_were_written_over(tmp_path: Path) -> None:
    """`ARC-Easy/test-…` and `MMLU/test-…` were both "test-00000-of-00001": the second replaced the first."""
    line = orjson.dumps({"question": "Q?", "answer": "a"}) + b"\n"
    for name in (
        "ARC-Easy/test-00000-of-00002",
        "ARC-Easy/test-00001-of-00002",
        "ARC-Easy/train-00000-of-00001",
        "b/c",
    ):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(line)
    found = {name: [item.key for item in items] for name, items in list_task_files(str(tmp_path)).items()}
    assert found == {
        "ARC-Easy": ["ARC-Easy/test-00000-of-00002.jsonl", "ARC-Easy/test-00001-of-00002.jsonl"],
        "c": ["b/c.jsonl"],
    }
    assert [len(task.problems) for task in read_tasks(str(tmp_path))] == [2, 1]
    (tmp_path / "c.jsonl").write_bytes(line)
    with pytest.raises(DataError, match="a second task named c"):
        read_tasks(str(tmp_path))


def test_a_limit_takes_the_first_of_nanochats_order() -> None:
    """What `datasets` draws for `shuffle(seed=42)`, computed with it: [4, 2, 3, 1, 0] of five."""
    task = Task("t", tuple(Problem(str(n), "", "exact") for n in range(5)))
    assert task.choose(None) == [0, 1, 2, 3, 4]
    assert task.choose(2) == [2, 4]
    assert task.choose(9) == [0, 1, 2, 3, 4]
