"""What `make chaos` tells: a line a part as soon as it is done, and under it each kind; at last the sums."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.faults import KILLS
from tests.chaos.points import Found
from tests.chaos.stages import STAGES, WEIGHTS
from tests.chaos.tasks import Task

_WAYS: Final = ("rows lost", "paid twice", "manifests wrong", WEIGHTS, "another result")
_NAMES: Final = (
    "calls",
    "kills",
    "at places",
    "held",
    "at places",
    "at once",
    "faults",
    "at places",
    *_WAYS,
    "other",
    "s",
)
_PART_CHARS: Final = 36


@dataclass(frozen=True)
class Part:
    """A stage on a store, by simulated processes or the system's, and what was tried of it."""

    name: str
    stage: str
    found: Found
    seconds: float

    @classmethod
    def of(cls, task: Task, found: Found, seconds: float) -> "Part":
        """What a task has found."""
        return cls(f"{task.stage}, {task.backend}{', SIGKILL' * task.is_real}", task.stage, found, seconds)

    def cells(self) -> tuple[str, ...]:
        """See `_NAMES`."""
        found = self.found
        faults = [kind for kind in found.possible | found.tried if kind not in (*KILLS, "twin", "at once")]
        known = sum(found.wrong[way] for way in _WAYS)
        return (
            str(found.num_calls),
            str(_sum(found.tried, KILLS)),
            _of(found, KILLS),
            str(found.tried["twin"]),
            _of(found, ("twin",)),
            str(found.tried["at once"]),
            str(_sum(found.tried, faults)),
            _of(found, faults),
            *(str(found.wrong[way]) for way in _WAYS),
            str(found.wrong.total() - known),
            f"{self.seconds:.0f}",
        )

    def kinds(self) -> str:
        """How often each kind was tried, and at how many places it could have been."""
        found = self.found
        told = [f"{kind} {found.tried[kind]}" + f" ({_of(found, (kind,))})" * (kind in found.possible)
                for kind in found.possible | found.tried]  # fmt: skip
        return ", ".join(told)

    def describe(self) -> dict[str, Any]:
        """All numbers."""
        found = self.found
        counts = {"tried": found.tried, "chosen": found.chosen, "possible": found.possible, "wrong": found.wrong}
        return {
            "part": self.name,
            "calls": found.num_calls,
            "s": round(self.seconds, 1),
            **{name: dict(count) for name, count in counts.items()},
            "problems": found.problems,
        }


def add(parts: Sequence[Part]) -> Part:
    """The sums."""
    total = Found(sum(part.found.num_calls for part in parts))
    for part in parts:
        for name in ("possible", "chosen", "tried", "wrong"):
            getattr(total, name).update(getattr(part.found, name))
    return Part(f"all {len(parts)} parts", "", total, sum(part.seconds for part in parts))


def head() -> str:
    """The names of the columns."""
    return _line("part", _NAMES)


def line(part: Part) -> str:
    """One part's, or the sums."""
    return _line(part.name, part.cells())


def conclude(parts: Sequence[Part]) -> str:
    """How often each way to go wrong was looked for, and found."""
    total = add(parts).found
    tried = {part.stage: Counter[str]() for part in parts}
    for part in parts:
        tried[part.stage].update(part.found.tried)
    counts = {name: count.total() for name, count in tried.items()}
    paid = sum(count for name, count in counts.items() if STAGES[name].find_paid_twice is not None)
    weights = sum(count for name, count in counts.items() if STAGES[name].differs == WEIGHTS)
    looked = (paid, paid, total.tried.total(), weights, total.tried.total() - weights)
    return "; ".join(f"{way} {total.wrong[way]} in {num}" for way, num in zip(_WAYS, looked, strict=True))


def _line(name: str, cells: Sequence[str]) -> str:
    widths = [max(9 if "places" in title else 6, len(title)) for title in _NAMES]
    return f"{name:<{_PART_CHARS}}" + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _of(found: Found, kinds: Sequence[str]) -> str:
    return f"{_sum(found.chosen, kinds)}/{_sum(found.possible, kinds)}"


def _sum(count: Counter[str], kinds: Sequence[str]) -> int:
    return sum(count[kind] for kind in kinds)
