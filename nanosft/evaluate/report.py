"""An evaluation for people: tables that can be read at 100 columns."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from nanosft.evaluate.forgetting import PLAIN
from nanosft.evaluate.results import CHANGE, Evaluation, Figures, Row
from nanosft.evaluate.statistics import Interval

_ANSWER_CHARS = 160
_SECTIONS = ("kind ", "manner ", "topic ")
_MUCH_FORGOTTEN = 0.2
"""Bits per byte of plain text from which a rise is much: the least that the interval allows."""
_ADVICE = (
    "In runs that were made (50 steps, a base of 11.5 million parameters) a quarter of the learning rates "
    "(--init-lr-frac 0.2) forgot 0.64 bits per byte instead of 1.56 and had learned the set nearly as well (0.31 "
    "against 0.26 bits per byte); half of the mixture as text of the base's own domain forgot 0.02 (0.43); a third of "
    "the steps (--max-steps 50 instead of 150) forgot 1.56 instead of 1.96."
)
"""From the sweep on `nanochat_base` in ARCHITECTURE.md."""


def make_score_table(evaluation: Evaluation) -> Table:
    """Every figure, a column a model, and the paired differences where there are two models."""
    labels = [*evaluation.models, *([CHANGE] if CHANGE in evaluation.figures else [])]
    return make_table({label: evaluation.figures.get(label, {}) for label in labels}, title="Evaluation")


def make_table(columns: Mapping[str, Figures], *, title: str) -> Table:
    """Figures by row, labels by column; intervals at 95 %.

    Args:
        columns: Figures by label. Differences have the label `CHANGE`, or one that begins with it, and get signs.
        title: Above the table.
    """
    table = Table(title=f"{title} (95 % intervals)", title_justify="left")
    table.add_column("figure", overflow="fold", ratio=None)
    for label in columns:
        table.add_column(escape(label), justify="right", overflow="fold")
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    section = ""
    for name in _in_order(names):
        now = next((prefix for prefix in _SECTIONS if name.startswith(prefix)), name.partition(":")[0])
        if section and now != section and (now in _SECTIONS or section in _SECTIONS):
            table.add_section()
        section = now
        cells = [_cell(figures.get(name), signed=label.startswith(CHANGE)) for label, figures in columns.items()]
        table.add_row(escape(name), *map(escape, cells))
    return table


def make_worst_table(rows: Sequence[Row]) -> Table:
    """The worst answers, each with its question and what is wrong with it."""
    table = Table(title="Worst answers", title_justify="left", show_lines=True)
    for heading in ("question", "answer", "why"):
        table.add_column(heading, overflow="fold", ratio=1)
    for row in rows:
        texts = (row["messages"][-1]["content"], row["answer"], f"{row['verdict']}: {row['reason']}")
        table.add_row(*(escape(_shorten(text)) for text in texts))
    return table


def describe_counts(evaluation: Evaluation) -> str:
    """One sentence on what was asked and what was left out."""
    counts = ", ".join(f"{number:,} {name}" for name, number in evaluation.counts.items())
    judge = evaluation.judge
    return f"{counts}; judge {judge['model']}: {judge['cost_usd']:.6f} USD" if judge else counts


def advise(evaluation: Evaluation) -> str:
    """What would lessen the forgetting, where there is much of it: by how much in runs that were made; else nothing."""
    change = evaluation.figures.get(CHANGE, {}).get(f"bits per byte: {PLAIN}")
    if change is None or change.low < _MUCH_FORGOTTEN:
        return ""
    return (
        f"Much is forgotten: plain text costs {change.mean:.2f} bits per byte more than before ({change.low:.2f} to "
        f"{change.high:.2f}). {_ADVICE}"
    )


def _in_order(names: Mapping[str, None]) -> list[str]:
    """Figures as they came, those by topic last."""
    return sorted(names, key=lambda name: name.startswith("topic "))


def _cell(interval: Interval | None, *, signed: bool) -> str:
    if interval is None:
        return "-"
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.2f} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"


def _shorten(text: str) -> str:
    """The text on one line, without what would steer the terminal: a model may say anything."""
    text = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))
    return text if len(text) <= _ANSWER_CHARS else text[: _ANSWER_CHARS - 1] + "…"
