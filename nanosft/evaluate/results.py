"""What an evaluation found, as it is kept and read back: `scores.json`, `answers.jsonl`, `documents.jsonl`. Pure.

Everything is in a fixed order and rounded, without clock or place, so that equal evaluations are equal bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError, DataError, clip
from nanosft.evaluate.conduct import FAULT_FIGURES
from nanosft.evaluate.kept import check_rows, check_scores
from nanosft.evaluate.statistics import Interval, bootstrap_mean, bootstrap_ratio
from nanosft.settings.evaluate import REQUIREMENT

FORMAT: Final = 1
SCORES_KEY: Final = "scores.json"
ANSWERS_KEY: Final = "answers.jsonl"
DOCUMENTS_KEY: Final = "documents.jsonl"
CHANGE: Final = "change"
"""The column of paired differences: last model less first."""

Figures = dict[str, Interval]
Row = dict[str, Any]
_Test = Callable[[Row], bool]


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        models: What each model is, by its label: "base" and "chat", or "model" alone. The last is the one evaluated.
        figures: By label, then by name; under `CHANGE` the paired differences.
        counts: Whole numbers: probes asked, left out, and the like.
        answers: One a probe or problem and model, as in `answers.jsonl`.
        documents: One a document, as in `documents.jsonl`.
        judge: The model that gave a second opinion, and what it cost; empty without one.
    """

    models: dict[str, dict[str, Any]]
    figures: dict[str, Figures] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    answers: list[Row] = field(default_factory=list)
    documents: list[Row] = field(default_factory=list)
    judge: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Of the model that was evaluated."""
        return list(self.models)[-1]

    def add(self, label: str, figures: Figures) -> None:
        """Put figures under a label."""
        self.figures.setdefault(label, {}).update(figures)

    def answers_of(self, label: str) -> list[Row]:
        """The answers to probes of one model."""
        return [row for row in self.answers if row["model"] == label and "probe" in row]

    def solutions_of(self, label: str) -> list[Row]:
        """The answers to problems of tasks of one model."""
        return [row for row in self.answers if row["model"] == label and "task" in row]

    def to_json(self) -> dict[str, Any]:
        """The content of `scores.json`."""
        return {
            "format": FORMAT,
            "models": self.models,
            **({"judge": self.judge} if self.judge else {}),
            "counts": self.counts,
            "figures": {
                label: {name: interval.to_json() for name, interval in figures.items()}
                for label, figures in self.figures.items()
            },
        }

    def to_objects(self) -> dict[str, bytes]:
        """The bytes of each object."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return {
            ANSWERS_KEY: _to_lines(self.answers),
            DOCUMENTS_KEY: _to_lines(self.documents),
            SCORES_KEY: orjson.dumps(self.to_json(), option=options),
        }


def parse_evaluation(scores: bytes, answers: bytes, documents: bytes, *, where: str) -> Evaluation:
    """An evaluation from the bytes of its objects.

    Raises:
        DataError: They are no evaluation, or one of a newer format.
    """
    try:
        table = orjson.loads(scores)
        if not isinstance(table, dict) or "format" not in table:
            raise DataError(f"{where}: not an evaluation: {SCORES_KEY} has no 'format'")
        if table["format"] > FORMAT:
            raise DataError(f"{where}: evaluation format {table['format']} is newer than this nanosft reads: update it")
        kept = check_scores(table)
        rows, scored = ([orjson.loads(line) for line in data.splitlines()] for data in (answers, documents))
        check_rows(rows, scored, list(kept.models))
        return Evaluation(kept.models, kept.figures, kept.counts, rows, scored, kept.judge)
    except (ValueError, TypeError) as exc:  # of JSON and of pydantic among them
        raise DataError(f"{where}: not an evaluation: {clip(' '.join(str(exc).split()), 200)}") from exc


def summarize_answers(rows: Sequence[Row]) -> Figures:
    """Figures of one model's answers to probes: right ones in all, by kind, manner and topic; wrong claims."""
    measures = {name: ([float(test(row)) for row in own], own) for name, (own, test) in _measure(rows).items()}
    return _average(measures)


def pair_answers(first: Sequence[Row], last: Sequence[Row]) -> Figures:
    """Differences in answers, conduct included, last less first, over the probes that both have answered."""
    before = {row["probe"]: row for row in first}
    both = [row for row in last if row["probe"] in before]
    measures = {
        name: ([float(test(row)) - float(test(before[row["probe"]])) for row in own], own)
        for name, (own, test) in (_measure(both) | _measure_faults(both)).items()
    }
    return _average(measures)


def pair_solutions(first: Sequence[Row], last: Sequence[Row]) -> Figures:
    """Differences in accuracy by task, last less first, over the problems that both have tried."""
    before = {(row["task"], row["problem"], row["question"]): row["right"] for row in first}
    groups: dict[str, list[float]] = {}
    for row in last:
        old = before.get((row["task"], row["problem"], row["question"]))
        if old is not None:
            groups.setdefault(f"task {row['task']}", []).append(float(row["right"]) - float(old))
    intervals = {name: bootstrap_mean(values, range(len(values))) for name, values in groups.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def pair_documents(first: Sequence[Row], last: Sequence[Row], labels: tuple[str, str]) -> Figures:
    """Differences in bits per byte, last less first, over the documents that both have scored.

    Args:
        first: Rows of `documents.jsonl`.
        last: As `first`.
        labels: Whose bits are meant, in each.
    """
    before = {row["id"]: row for row in first}
    figures: Figures = {}
    for source in dict.fromkeys(row["source"] for row in last):
        pairs = [(before[row["id"]], row) for row in last if row["source"] == source and row["id"] in before]
        interval = bootstrap_ratio(
            [new["bits"][labels[1]] - old["bits"][labels[0]] for old, new in pairs],
            [float(new["num_bytes"]) for _, new in pairs],
            [new["id"] for _, new in pairs],
        )
        if interval is not None:
            figures[f"bits per byte: {source}"] = interval
    return figures


def compare_evaluations(found: Mapping[str, Evaluation]) -> dict[str, Figures]:
    """Columns for `eval compare`: the evaluated model of each, A, B, …, and each one's paired differences to A."""
    runs = list(found.values())
    letters = [chr(ord("A") + number) for number in range(len(runs))]
    columns = {letter: run.figures[run.label] for letter, run in zip(letters, runs, strict=True)}
    first = runs[0]
    for letter, run in zip(letters[1:], runs[1:], strict=True):
        columns[f"{CHANGE} {letter} - A"] = {
            **pair_answers(first.answers_of(first.label), run.answers_of(run.label)),
            **pair_solutions(first.solutions_of(first.label), run.solutions_of(run.label)),
            **pair_documents(first.documents, run.documents, (first.label, run.label)),
        }
    return columns


def find_worst(rows: Sequence[Row], num: int) -> list[Row]:
    """Answers to show a person: wrong claims of name or maker first, then wrong ones, then missing; one a question."""

    def rank(row: Row) -> int:
        if row["other_name"] or row["other_maker"]:
            return 0
        return {"wrong": 1, "missing": 2, "right": 3}[row["verdict"]]

    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=rank):
        if rank(row) < 3:  # noqa: PLR2004 - right
            found.setdefault((row["item"], row["answer"]), row)
    return list(found.values())[:num]


def check_requirements(evaluation: Evaluation, texts: Iterable[str]) -> list[str]:
    """Sentences on the requirements that the evaluated model does not meet.

    Raises:
        ConfigError: There is no such figure.
    """
    figures = evaluation.figures.get(evaluation.label, {})
    problems = []
    for text in texts:
        match = REQUIREMENT.fullmatch(text)
        assert match is not None, text
        name, number = match["figure"], float(match["number"])
        if name not in figures:
            raise ConfigError(f"--require {text}: there is no figure {name!r}; there are {', '.join(sorted(figures))}")
        mean = figures[name].mean
        if not {">=": mean >= number, "<=": mean <= number, ">": mean > number, "<": mean < number}[match["sign"]]:
            problems.append(f"{name} is {mean:.4f}, {text} was required")
    return problems


def _measure(rows: Sequence[Row]) -> dict[str, tuple[list[Row], _Test]]:
    """Of each figure: the answers that it is a share of, and which of them count."""
    told = [row for row in rows if row["kind"] != "unanswerable"]
    untold = [row for row in rows if row["kind"] == "unanswerable"]
    found: dict[str, tuple[list[Row], _Test]] = {"identity": (told, _is("right"))}
    found |= {f"identity: {verdict}": (told, _is(verdict)) for verdict in ("wrong", "missing")}
    for column in ("kind", "manner", "topic"):
        for value in dict.fromkeys(row[column] for row in told):
            found[f"{column} {value}"] = ([row for row in told if row[column] == value], _is("right"))
    return found | {
        "says that it does not know": (untold, _is("right")),
        "claims another name": (list(rows), lambda row: bool(row["other_name"])),
        "claims another maker": (list(rows), lambda row: bool(row["other_maker"])),
        "ungrounded numbers and links": (list(rows), lambda row: bool(row["ungrounded"])),
    }


def _measure_faults(rows: Sequence[Row]) -> dict[str, tuple[list[Row], _Test]]:
    return {figure: (list(rows), _has(fault, is_there=is_there)) for figure, (fault, is_there) in FAULT_FIGURES.items()}


def _average(measures: Mapping[str, tuple[Sequence[float], Sequence[Row]]]) -> Figures:
    """Means over answers, intervals over items."""
    intervals = {
        name: bootstrap_mean(values, [row["item"] for row in rows]) for name, (values, rows) in measures.items()
    }
    return {name: interval for name, interval in intervals.items() if interval is not None}


def _is(verdict: str) -> _Test:
    return lambda row: bool(row["verdict"] == verdict)


def _has(fault: str, *, is_there: bool) -> _Test:
    return lambda row: row["faults"][fault] is is_there


def _to_lines(rows: Iterable[Row]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
