"""Where something happens to a run, how often it did, and what went wrong."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.chaos.faults import HTTP_FAULTS, KILLS, LOCAL_FAULTS, Kind, applies

Backend = Literal["local", "s3"]
BACKENDS: Final[tuple[Backend, ...]] = ("local", "s3")


@dataclass
class Found:
    """What was tried of one stage on one backend, and what went wrong.

    Attributes:
        num_calls: What the undisturbed run asks of its store, and of the services that it pays.
        possible: How many points of each kind there are.
        chosen: How many of them were to be tried.
        tried: How often each kind has happened, successors of killed processes included.
        wrong: How many of each way to go wrong.
        problems: Each, with its point.
    """

    num_calls: int = 0
    possible: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, way: str, where: str, what: object) -> None:
        """Note what went wrong."""
        self.wrong[way] += 1
        self.problems.append(f"{where}: {way}: {what}")


def kinds_of(backend: Backend) -> tuple[Kind, ...]:
    """All that can happen to a process that is alone in its run."""
    return (*KILLS, "twin", *(LOCAL_FAULTS if backend == "local" else HTTP_FAULTS))


def count_points(calls: Sequence[str], kinds: Sequence[Kind]) -> Counter[str]:
    """How many points of each kind a run has."""
    return Counter(kind for kind in kinds for call in calls if applies(kind, call))


def draw_points(calls: Sequence[str], shares: Mapping[Kind, float], draw: random.Random) -> list[tuple[Kind, int]]:
    """Of all that can happen at the calls of a run the share of each kind, and of each share at least one point."""
    points: list[tuple[Kind, int]] = []
    for share in dict.fromkeys(shares.values()):
        alike = [kind for kind in shares if shares[kind] == share]
        every = [(kind, number) for kind in alike for number, call in enumerate(calls) if applies(kind, call)]
        num = min(len(every), max(1, round(share * len(every))))
        points += [every[place] for place in sorted(draw.sample(range(len(every)), num))]
    return points
