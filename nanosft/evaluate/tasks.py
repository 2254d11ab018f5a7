"""Tasks on files that the user gives: multiple choice by letters' logits, and questions by their answers.

A file is JSONL or Parquet, one problem a line or row, of one form:

    {"question": …, "choices": [...], "answer": "B", "letters": ["A", "B", …]}     letters may be left out
    {"question": …, "answer": …, "match": "exact" | "number" | "pattern"}          match may be left out: exact

The Hub's own forms of ARC (`choices` with `text` and `label`, `answerKey`), MMLU (`answer` as a place) and GSM8K (the
number behind `#### `) are read as they are. Letters are asked for and chosen as nanochat's ChatCORE does: the prompt is
one user turn, the answer the problem's letter with the highest logit at the next token.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import orjson

from nanosft.conversation import Message
from nanosft.data import DATA_SUFFIXES, DataObject, iter_lines
from nanosft.errors import DataError
from nanosft.evaluate.answering import answer_all, next_logits
from nanosft.evaluate.results import Evaluation, Row
from nanosft.evaluate.statistics import bootstrap_mean
from nanosft.nanochat import Checkpoint
from nanosft.store import open_store

Match = Literal["letter", "exact", "number", "pattern"]
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_HASHES: Final = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task.

    Attributes:
        question: As the file has it.
        answer: The letter, the text, the number as text, or the pattern.
        match: How an answer is held against it.
        letters: Of multiple choice, one a choice.
        choices: Of multiple choice.
    """

    question: str
    answer: str
    match: Match
    letters: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The user's message."""
        if self.match != "letter":
            return self.question
        lines = [f"- {choice}={letter}" for letter, choice in zip(self.letters, self.choices, strict=True)]
        asked = "\n".join([f"Multiple Choice question: {self.question}", *lines])
        return f"{asked}\n\nRespond only with the letter of the correct answer."


def read_tasks(uri: str) -> dict[str, list[Problem]]:
    """The tasks under a prefix, one a file, by the file's name.

    Raises:
        DataError: There is none, or a line is no problem.
    """
    store = open_store(uri)
    found = {
        info.key.rpartition("/")[2].partition(".")[0]: list(_read(DataObject(store, info.key, info.size_bytes)))
        for info in store.list()
        if info.key.endswith(DATA_SUFFIXES)
    }
    if not found:
        raise DataError(f"{store.uri}: no tasks: expected {', '.join(DATA_SUFFIXES)} files, one problem a line")
    return found


def score_tasks(
    label: str, checkpoint: Checkpoint, tasks: dict[str, list[Problem]], found: Evaluation, *, max_tokens: int
) -> None:
    """Solve every problem of every task, greedily, and add what came out."""
    for name, problems in tasks.items():
        answers: dict[int, str] = {}
        by_letter = [place for place, problem in enumerate(problems) if problem.match == "letter"]
        others = [place for place, problem in enumerate(problems) if problem.match != "letter"]
        choices = choose_letters(checkpoint, [problems[place] for place in by_letter])
        answers |= dict(zip(by_letter, choices, strict=True))
        prompts = [(Message("user", problems[place].prompt),) for place in others]
        said = answer_all(checkpoint, prompts, max_tokens=max_tokens, label=f"{name}: {label}")
        answers |= {place: answer.text for place, answer in zip(others, said, strict=True)}
        rows: list[Row] = [
            {
                "model": label,
                "task": name,
                "problem": place,
                "question": problem.question,
                "answer": answers[place],
                "wanted": problem.answer,
                "right": is_right(problem, answers[place]),
            }
            for place, problem in enumerate(problems)
        ]
        found.answers += rows
        accuracy = bootstrap_mean([float(row["right"]) for row in rows], range(len(rows)))
        if accuracy is not None:
            found.add(label, {f"task {name}": accuracy})


def choose_letters(checkpoint: Checkpoint, problems: Sequence[Problem]) -> list[str]:
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
    logits = next_logits(checkpoint.model, prompts, wanted)
    return [problem.letters[own.index(max(own))] for problem, own in zip(problems, logits, strict=True)]


def is_right(problem: Problem, answer: str) -> bool:
    """Whether an answer is the wanted one."""
    if problem.match == "pattern":
        return re.search(problem.answer, answer) is not None
    if problem.match != "number":
        return answer.strip() == problem.answer.strip()
    marked = _HASHES.search(answer)
    numbers = [marked[1]] if marked else _NUMBER.findall(answer)[-1:]
    return [_plain(number) for number in numbers] == [_plain(problem.answer)]


def _plain(number: str) -> str:
    return number.replace(",", "").rstrip(".")


def _read(item: DataObject) -> Iterator[Problem]:
    for number, line in iter_lines(item):
        where = f"{item.uri}:line {number}"
        try:
            value = orjson.loads(line)
            yield _parse(value)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError, re.error) as exc:
            raise DataError(
                f"{where}: no problem of a task: {exc!r}; it needs question, answer, and choices or match"
            ) from exc


def _parse(value: dict[str, Any]) -> Problem:
    question = str(value["question"])
    if "choices" in value:
        return _parse_choices(value, question)
    answer = str(value["answer"])
    marked = _HASHES.search(answer)
    match = value.get("match", "number" if marked else "exact")
    if match not in get_args(Match)[1:]:
        raise ValueError(f"match {match!r} is none of {', '.join(get_args(Match)[1:])}")
    if match == "pattern":
        re.compile(answer)
    return Problem(question, marked[1] if marked and match == "number" else answer, match)


def _parse_choices(value: dict[str, Any], question: str) -> Problem:
    choices = value["choices"]
    letters = value.get("letters")
    if isinstance(choices, dict):
        choices, letters = choices["text"], choices["label"]
    letters = tuple(letters or _ALPHABET[: len(choices)])
    answer = value["answerKey"] if "answerKey" in value else value["answer"]
    answer = letters[answer] if isinstance(answer, int) else str(answer)
    if len(letters) != len(choices) or answer not in letters:
        raise ValueError(f"{len(choices)} choices, letters {', '.join(letters)}, answer {answer!r}")
    return Problem(question, answer, "letter", letters, tuple(map(str, choices)))
