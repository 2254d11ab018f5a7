"""What a soak finds, a line a stage: what was asked for, what came of it, and what must not have happened."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Stage:
    """One stage of the road, disturbed, beside the same stage undisturbed.

    Attributes:
        name: Of the command.
        unit: What is counted: rows, steps, answers, objects.
        asked: So many were to be made.
        delivered: So many of them are there.
        lost: Were to be made, or had been saved, and are not there.
        duplicate: Are there once too often.
        paid: Answers that were billed; None where nothing is asked of an API.
        bill_usd: What the API billed.
        twice: Answers that were saved, and asked and paid for again.
        unstated: Billed answers that no manifest knows: in flight, or not saved yet, when a process was killed.
        may_be_unstated: The most that those processes could hold.
        stopped: Processes that got SIGTERM.
        killed: Processes that got SIGKILL.
        resumed: Processes started again.
        identical: Whether it equals what the undisturbed stage made.
        problems: All else that went wrong.
        elapsed_s: Of the disturbed stage.
    """

    name: str
    unit: str
    asked: int
    delivered: int
    lost: int = 0
    duplicate: int = 0
    paid: int | None = None
    bill_usd: float | None = None
    twice: int | None = None
    unstated: int | None = None
    may_be_unstated: int = 0
    stopped: int = 0
    killed: int = 0
    resumed: int = 0
    identical: bool = True
    problems: tuple[str, ...] = field(default=())
    elapsed_s: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Each reason for which a soak fails."""
        found = [f"{getattr(self, name)} {self.unit} {name}" for name in ("lost", "duplicate") if getattr(self, name)]
        if self.twice:
            found.append(f"{self.twice} answers paid twice")
        if (self.unstated or 0) > self.may_be_unstated:
            found.append(f"{self.unstated} billed answers in no manifest; kills explain {self.may_be_unstated}")
        if (self.unstated or 0) < 0:
            found.append(f"{-(self.unstated or 0)} answers more in the manifest than were billed")
        if not self.identical:
            found.append("not what the undisturbed stage made")
        return [f"{self.name}: {text}" for text in (*found, *self.problems)]


def compare(stage: Stage, expected: Iterable[Hashable], found: Iterable[Hashable]) -> Stage:
    """A stage with its counts: what it made, item by item, against what the undisturbed one made."""
    wanted, made = Counter(expected), Counter(found)
    lost, extra = wanted - made, made - wanted
    return replace(
        stage,
        asked=wanted.total(),
        delivered=(made - extra).total(),
        lost=stage.lost + lost.total(),
        duplicate=stage.duplicate + sum(count for item, count in extra.items() if item in wanted),
        identical=stage.identical and not lost and not extra,
    )


_HEADS = (
    "stage", "unit", "asked", "delivered", "lost", "paid", "bill", "paid twice", "unstated", "duplicate",
    "stopped", "killed", "resumed", "identical", "s",
)  # fmt: skip


def render(stages: Iterable[Stage]) -> str:
    """The table, as Markdown whose columns stand under each other."""
    lines = [_HEADS, *map(_cells, stages)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADS))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts) + "\n"


def _cells(stage: Stage) -> tuple[str, ...]:
    values = (
        stage.name, stage.unit, stage.asked, stage.delivered, stage.lost, stage.paid,
        None if stage.bill_usd is None else f"${stage.bill_usd:.4f}", stage.twice, stage.unstated, stage.duplicate,
        stage.stopped, stage.killed, stage.resumed, "yes" if stage.identical else "NO", round(stage.elapsed_s),
    )  # fmt: skip
    return tuple("-" if value is None else f"{value:,}" if isinstance(value, int) else value for value in values)
