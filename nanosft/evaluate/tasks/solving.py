"""A model at tasks: letters by their logits, all else by greedy answers, as nanochat evaluates them."""

from collections.abc import Sequence
from typing import Final

from nanosft.conversation import Message
from nanosft.distributed import ALONE, World
from nanosft.errors import DataError
from nanosft.evaluate.answering import answer_all, next_logits
from nanosft.evaluate.results import Evaluation, Row
from nanosft.evaluate.statistics import bootstrap_mean
from nanosft.evaluate.tasks.chatcore import find_chatcore_task, summarize_chatcore
from nanosft.evaluate.tasks.problems import Problem, Task, is_right
from nanosft.evaluate.tasks.programs import Sandbox, make_program
from nanosft.nanochat import Checkpoint

NOT_RUN: Final = "programs not run for want of --sandbox"


def score_tasks(
    label: str,
    checkpoint: Checkpoint,
    tasks: Sequence[Task],
    found: Evaluation,
    *,
    max_tokens: int,
    max_problems: int | None = None,
    sandbox: Sandbox | None = None,
    world: World = ALONE,
) -> None:
    """Solve the problems of every task, greedily, and add what came out.

    Args:
        label: Of the model.
        checkpoint: The model.
        tasks: Of ChatCORE and of one's own.
        found: Gets rows, figures and counts.
        max_tokens: Of an answer.
        max_problems: Of each task; None: all.
        sandbox: Where programs run; None: problems that ask for one are left out, and counted.
        world: The ranks that share the problems.
    """
    right: dict[str, list[bool]] = {}
    num_left_out = 0
    for task in tasks:
        chosen = task.choose(max_problems)
        places = [place for place in chosen if sandbox or task.problems[place].match != "program"]
        num_left_out += len(chosen) - len(places)
        name = find_chatcore_task(task.name) or task.name
        rows = _solve(label, checkpoint, task, places, max_tokens=max_tokens, sandbox=sandbox, world=world)
        found.answers += [{"model": label, "task": name, **row} for row in rows]
        right[name] = [row["right"] for row in rows]
        accuracy = bootstrap_mean([float(value) for value in right[name]], places)
        if accuracy is not None:
            found.add(label, {f"task {name}": accuracy})
    found.add(label, summarize_chatcore(right, max_problems=max_problems))
    if num_left_out:
        found.counts[NOT_RUN] = num_left_out


def choose_letters(
    checkpoint: Checkpoint, problems: Sequence[Problem], *, label: str = "letters", world: World = ALONE
) -> list[str]:
    """The letter with the highest logit right after the prompt, of each problem's own letters.

    Raises:
        DataError: A letter is more than one token.
    """
    tokenizer = checkpoint.tokenizer
    prompts = [tokenizer.render_prompt([Message("user", problem.prompt)]) for problem in problems]
    wanted = []
    for problem in problems:
        ids = [tokenizer.encode(letter) for letter in problem.letters]
        if any(len(own) != 1 for own in ids):
            raise DataError(f"a letter of {', '.join(problem.letters)} is more than one token: {problem.question!r}")
        wanted.append([own[0] for own in ids])
    logits = next_logits(checkpoint.model, prompts, wanted, label=label, world=world)
    return [problem.letters[own.index(max(own))] for problem, own in zip(problems, logits, strict=True)]


def _solve(
    label: str,
    checkpoint: Checkpoint,
    task: Task,
    places: Sequence[int],
    *,
    max_tokens: int,
    sandbox: Sandbox | None,
    world: World,
) -> list[Row]:
    """Rows of `answers.jsonl`, without model and task."""
    bar = f"{task.name}: {label}"
    by_letter = [place for place in places if task.problems[place].match == "letter"]
    others = [place for place in places if task.problems[place].match != "letter"]
    letters = choose_letters(checkpoint, [task.problems[place] for place in by_letter], label=bar, world=world)
    prompts = [(Message("user", task.problems[place].prompt),) for place in others]
    said = answer_all(checkpoint, prompts, max_tokens=max_tokens, label=bar, as_nanochat=True, world=world)
    answers = dict(zip(by_letter, letters, strict=True)) | {
        place: answer.text for place, answer in zip(others, said, strict=True)
    }
    right = {place: is_right(task.problems[place], answers[place]) for place in places}
    if sandbox is not None:
        programs = {
            place: make_program(task.problems[place], answers[place])
            for place in others
            if task.problems[place].match == "program"
        }
        ran = world.run_on_rank_zero(lambda: sandbox.run_all(list(programs.values())))
        right |= zip(programs, ran, strict=True)
    return [
        {
            "problem": place,
            "question": task.problems[place].question,
            "answer": answers[place],
            "wanted": task.problems[place].answer,
            "right": right[place],
        }
        for place in places
    ]
