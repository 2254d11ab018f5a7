"""Problems of tasks, as files have them, and whether an answer is right. Pure but for reading.

A file is JSONL or Parquet, one problem a line or row, of one form:

    {"question": …, "choices": [...], "answer": "B", "letters": ["A", "B", …]}     letters may be left out
    {"question": …, "answer": …, "match": "exact" | "number" | "pattern"}          match may be left out: exact

The Hub's own forms are read as they are: ARC (`choices` with `text` and `label`, `answerKey`), MMLU (`answer` as a
place), GSM8K (the number behind `#### `), HumanEval (`prompt`, `test`, `entry_point`).

A file is a task of its own, by its name. Files that are named as the Hub names a split, `test-00000-of-00001.parquet`,
are parts of one task, by their directory's name; of several splits `test` alone is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson

from nanosft.data import DATA_SUFFIXES, DataObject, iter_lines
from nanosft.errors import DataError
from nanosft.foreign import quote
from nanosft.signals import limiting_cpu
from nanosft.store import open_store

Match = Literal["letter", "exact", "number", "pattern", "gsm8k", "program"]
_OWN: Final = ("exact", "number", "pattern")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_HASHES: Final = re.compile(r"#### (-?[0-9.,]+)")
_SPLIT: Final = re.compile(r"(?P<split>[a-z]+)-\d+-of-\d+")
_MAX_PATTERN_CHARS: Final = 1000
_PATTERN_S: Final = 2.0
_ORDER_SEED: Final = 42
"""Of nanochat's order of problems, which the Hub's library draws with NumPy."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task.

    Attributes:
        question: As the file has it.
        answer: The letter, the text, the number as text, or the pattern; of a program, the function's name.
        match: How an answer is held against it.
        letters: Of multiple choice, one a choice.
        choices: Of multiple choice.
        test: Of a program: the code that checks it.
    """

    question: str
    answer: str
    match: Match
    letters: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    test: str = ""

    @property
    def prompt(self) -> str:
        """The user's message."""
        if self.match != "letter":
            return self.question
        lines = [f"- {choice}={letter}" for letter, choice in zip(self.letters, self.choices, strict=True)]
        asked = "\n".join([f"Multiple Choice question: {self.question}", *lines])
        return f"{asked}\n\nRespond only with the letter of the correct answer."


@dataclass(frozen=True, slots=True)
class Task:
    """Problems that are scored together.

    Attributes:
        name: Of the file or its directory.
        problems: In the order of the file.
    """

    name: str
    problems: tuple[Problem, ...]

    def choose(self, max_problems: int | None) -> list[int]:
        """Places of the problems to solve, in the file's order: the first ones of nanochat's order, or all."""
        order = np.random.default_rng(_ORDER_SEED).permutation(len(self.problems))
        return sorted(order[:max_problems].tolist())


def list_task_files(uri: str) -> dict[str, list[DataObject]]:
    """The objects of each task under a prefix, sub-prefixes included, by the task's name.

    Raises:
        DataError: There is none, or two tasks have one name.
    """
    store = open_store(uri)
    groups: dict[tuple[str, str], dict[str, list[DataObject]]] = {}
    for info in sorted(store.list(), key=lambda info: info.key):
        if info.key.endswith(DATA_SUFFIXES):
            above, _, name = f"{store.uri}/{info.key}".rpartition("/")
            stem = name.partition(".")[0]
            split = _SPLIT.fullmatch(stem)
            place = (above, above.rpartition("/")[2] if split else stem)
            splits = groups.setdefault(place, {})
            splits.setdefault(split["split"] if split else "", []).append(DataObject.bare(store, info))
    found: dict[str, list[DataObject]] = {}
    for (above, name), splits in groups.items():
        if name in found:
            raise DataError(f"{above}: a second task named {name}: give it another name")
        found[name] = splits.get("test") or [item for items in splits.values() for item in items]
    if not found:
        raise DataError(f"{store.uri}: no tasks: expected {', '.join(DATA_SUFFIXES)} files, one problem a line")
    return found


def read_tasks(uri: str) -> list[Task]:
    """The tasks under a prefix.

    Raises:
        DataError: There is none, or a line is no problem.
    """
    return [
        Task(name, tuple(problem for item in items for problem in _read(item)))
        for name, items in list_task_files(uri).items()
    ]


def is_right(problem: Problem, answer: str) -> bool:
    """Whether an answer in text is the wanted one; a program's worth is not seen in its text.

    Raises:
        DataError: The pattern takes too long over the answer.
    """
    if problem.match == "pattern":
        return _is_found(problem, answer)
    if problem.match == "gsm8k":
        said = _HASHES.search(answer)
        return said is not None and said[1].replace(",", "") == problem.answer
    if problem.match == "number":
        marked = _HASHES.search(answer)
        numbers = [marked[1]] if marked else _NUMBER.findall(answer)[-1:]
        return [_plain(number) for number in numbers] == [_plain(problem.answer)]
    return answer.strip() == problem.answer.strip()


def _is_found(problem: Problem, answer: str) -> bool:
    try:
        with limiting_cpu(_PATTERN_S):
            return re.search(problem.answer, answer) is not None
    except TimeoutError as exc:
        raise DataError(
            f"question {quote(problem.question)}: its pattern {quote(problem.answer)} takes more than {_PATTERN_S:g} s "
            f"over an answer of {len(answer):,} characters: write it without a repeat inside a repeat"
        ) from exc


def _plain(number: str) -> str:
    return number.replace(",", "").rstrip(".")


def _read(item: DataObject) -> Iterator[Problem]:
    for number, line in iter_lines(item):
        try:
            yield _parse(orjson.loads(line))
        except (
            orjson.JSONDecodeError,
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            OverflowError,
            RecursionError,
            re.error,
        ) as exc:
            raise DataError(
                f"{item.place(number)}: no problem of a task: {exc!r}; it needs question, answer, and choices or match"
            ) from exc


def _parse(value: dict[str, Any]) -> Problem:
    if "entry_point" in value:
        return Problem(str(value["prompt"]), str(value["entry_point"]), "program", test=str(value["test"]))
    question = str(value["question"])
    if "choices" in value:
        return _parse_choices(value, question)
    answer = str(value["answer"])
    marked = _HASHES.search(answer.rpartition(">>")[2])  # behind the last sum of a solution
    if "match" not in value and marked:
        return Problem(question, marked[1].replace(",", ""), "gsm8k")
    match = value.get("match", "exact")
    if match not in _OWN:
        raise ValueError(f"match {match!r} is none of {', '.join(_OWN)}")
    if match == "pattern":
        if len(answer) > _MAX_PATTERN_CHARS:
            raise ValueError(f"a pattern of {len(answer):,} characters; {_MAX_PATTERN_CHARS:,} are allowed")
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
