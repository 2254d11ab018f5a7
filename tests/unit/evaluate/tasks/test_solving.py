"""A model at tasks: letters as nanochat chooses them, greedy answers with its calculator, and what ChatCORE is."""

from pathlib import Path

import orjson
import pytest
import torch

from nanosft.conversation import Message
from nanosft.evaluate.answering import answer_all, next_logits
from nanosft.evaluate.results import Evaluation, pair_solutions
from nanosft.evaluate.tasks import Problem, Task, choose_letters, read_tasks, score_tasks
from nanosft.evaluate.tasks.chatcore import BASELINES, NAME, NUM_PROBLEMS, find_chatcore_task, summarize_chatcore
from nanosft.nanochat import Checkpoint, load_checkpoint

GOLDEN = Path(__file__).parents[3] / "golden" / "nanochat" / "g5"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return load_checkpoint(str(GOLDEN))


def test_letters_are_chosen_as_nanochat_chose_them(shared: Path, tmp_path: Path) -> None:
    """Prompt ids and choices equal, logits to 1e-4, on the twelve problems of the golden file."""
    torch.set_num_threads(1)
    golden = [orjson.loads(line) for line in (shared / "golden/chatcore/categorical.jsonl").read_bytes().splitlines()]
    (tmp_path / "golden.jsonl").write_bytes((shared / "golden/chatcore/categorical.jsonl").read_bytes())
    (task,) = read_tasks(str(tmp_path))
    problems = task.problems
    checkpoint = load_checkpoint(str(shared / "nanochat_base"))
    prompts = [checkpoint.tokenizer.render_prompt([Message("user", problem.prompt)]) for problem in problems]
    assert prompts == [row["prompt_ids"] for row in golden]
    logits = next_logits(checkpoint.model, prompts, [row["letter_ids"] for row in golden])
    for found, row in zip(logits, golden, strict=True):
        assert found == pytest.approx(row["letter_logits"], abs=1e-4)
    assert choose_letters(checkpoint, problems) == [row["predicted"] for row in golden]
    evaluation = Evaluation({"model": {}})
    score_tasks("model", checkpoint, [task], evaluation, max_tokens=4)
    accuracy = sum(row["predicted"] == row["answer"] for row in golden) / len(golden)
    assert evaluation.figures["model"]["task golden"].mean == pytest.approx(accuracy)


def test_own_answers_and_programs_without_a_sandbox_are_counted(checkpoint: Checkpoint) -> None:
    problems = (
        Problem("Q?", "A", "letter", ("A", "B"), ("x", "y")),
        Problem("Q?", "never said", "exact"),
        Problem("def f():", "f", "program", test="def check(f): pass"),
    )
    found = Evaluation({"model": {}})
    score_tasks("model", checkpoint, [Task("mine", problems), Task("HumanEval", problems[2:])], found, max_tokens=4)
    assert [(row["task"], row["problem"], row["wanted"]) for row in found.answers] == [
        ("mine", 0, "A"),
        ("mine", 1, "never said"),
    ]
    assert found.counts == {"programs not run for want of --sandbox": 2}
    assert list(found.figures["model"]) == ["task mine"]
    limited = Evaluation({"model": {}})
    score_tasks("model", checkpoint, [Task("arc easy", problems[:2])], limited, max_tokens=4, max_problems=1)
    assert [row["problem"] for row in limited.answers] == [1]
    name = "1 of 5 tasks, centred: ARC-Easy, at most 1 each"
    assert list(limited.figures["model"]) == ["task ARC-Easy", name]


def test_a_long_problem_passes_the_context_as_nanochat_lets_it(checkpoint: Checkpoint) -> None:
    context_len = checkpoint.context_len
    prompt = (Message("user", "word " * (2 * context_len)),)
    (answer,) = answer_all(checkpoint, [prompt], max_tokens=3, as_nanochat=True)
    ids = checkpoint.tokenizer.render_prompt(prompt)
    assert len(ids) > context_len
    expected: list[int] = []
    with torch.inference_mode():
        for _ in range(answer.num_tokens):
            expected.append(int(checkpoint.model(torch.tensor([ids + expected]))[0, -1].argmax()))
    assert answer.text == checkpoint.tokenizer.decode(expected)


def test_chatcore_is_the_mean_of_five_centred_accuracies() -> None:
    """0.5 of four-way letters is 1/3 above chance; of the others it is 0.5."""
    half = {task: [True, False] * (NUM_PROBLEMS[task] // 2) + [False] * (NUM_PROBLEMS[task] % 2) for task in BASELINES}
    ((name, score),) = summarize_chatcore(half).items()
    assert name == NAME
    assert score.mean == pytest.approx((3 * (0.5 - 0.25) / 0.75 + 2 * 0.5) / 5, abs=1e-3)
    assert score.low < score.mean < score.high
    assert score.high - score.low < 0.05
    few = {task: [True] for task in BASELINES}
    assert list(summarize_chatcore(few)) == [f"{NAME}, not the Hub's whole splits"]
    assert list(summarize_chatcore(few, max_problems=1)) == [f"{NAME}, at most 1 each"]
    del half["HumanEval"]
    (name,) = summarize_chatcore(half)
    assert name == "4 of 5 tasks, centred: ARC-Easy, ARC-Challenge, MMLU, GSM8K"
    assert summarize_chatcore({"mine": [True]}) == {}


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ARC-Easy", "ARC-Easy"),
        ("arc_challenge", "ARC-Challenge"),
        ("gsm8k", "GSM8K"),
        ("my-mmlu", None),
        ("mmlu2", None),
    ],
)
def test_names_of_chatcores_tasks(name: str, task: str | None) -> None:
    assert find_chatcore_task(name) == task


def test_solutions_are_paired_by_problem() -> None:
    def make(right: list[bool]) -> list[dict[str, object]]:
        return [{"task": "t", "problem": n, "question": "Q?", "right": value} for n, value in enumerate(right)]

    (change,) = pair_solutions(make([True, False, False]), make([True, True, True])).values()
    assert change.mean == pytest.approx(2 / 3)
    assert change.num == 3
