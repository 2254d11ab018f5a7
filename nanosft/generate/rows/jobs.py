"""Which rows are to be made, and what each begins with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from nanosft.generate.records import PlanState, RowState


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a row is tried.

    Attributes:
        answers_per_prompt: Answers to one prompt.
        num_prompts: The row's own prompt and the variants of it.
    """

    answers_per_prompt: int
    num_prompts: int


@dataclass(frozen=True, slots=True)
class Job:
    """One row to be made: its number, what earlier answers left, and the last prompt variant to try."""

    row: int
    state: RowState
    last_variant: int


def iter_jobs(state: PlanState, rows: Sequence[int], retries: RetryPolicy, *, retry_rejects: bool) -> Iterator[Job]:
    """Those rows that are neither in nor given up, and those given up where they are to be tried again.

    Rows with an answer that is held come first: it is paid for, and under a budget others would leave nothing for it.
    """
    held = {row for row, earlier in state.rows.items() if earlier.waiting is not None and row in rows}
    for row in chain(sorted(held), (row for row in rows if row not in held)):
        if state.accepted[row] or (state.given_up[row] and not retry_rejects):
            continue
        earlier = state.rows.get(row, RowState())
        first_variant = earlier.prompt_variant + 1 if state.given_up[row] else 0
        begin = RowState(first_variant) if state.given_up[row] else earlier
        yield Job(row, begin, first_variant + retries.num_prompts - 1)
