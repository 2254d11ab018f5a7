"""Rows that wait: for a batch that has them written, for one that has them scored, or to be asked for alone."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.generate.batches.policy import BatchPolicy
from nanosft.generate.batches.record import BatchKind, RowRequest
from nanosft.generate.batches.settle import TokenPrices
from nanosft.generate.planning import PlanRow
from nanosft.generate.rows import AskAgain, AwaitsScore, Job

_MAX_RELEASES: Final = 2
"""A row that came back from so many batches without an answer is asked for alone."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one kind.

    Attributes:
        kind: Which.
        model_of: The slug that a row's go to.
        write_fields: The fields of a chat request without its model.
        prices_of: By slug: what tokens cost where the provider states none.
        on_answer: Told of the model that was asked, and of the one that answered.
        account: Of the budget.
    """

    kind: BatchKind
    model_of: Callable[[PlanRow], str]
    write_fields: Callable[[PlanRow, RowRequest], Mapping[str, Any]]
    prices_of: Callable[[str], TokenPrices]
    on_answer: Callable[[str, str], None]
    account: int = 0


@dataclass
class Queue:
    """Rows that wait for a batch.

    Attributes:
        requests: What is asked for.
        jobs: The rows, in the order in which they came.
        num_releases: By row: batches that brought it no answer.
        num_failed_in_a_row: Batches that brought none at all.
        is_refused: The provider takes no batch of the kind.
    """

    requests: Requests
    jobs: list[Job] = field(default_factory=list)
    num_releases: Counter[int] = field(default_factory=Counter)
    num_failed_in_a_row: int = 0
    is_refused: bool = False

    def is_ready(self, policy: BatchPolicy, *, is_any_open: bool) -> bool:
        """Whether a batch is to be sent now.

        Rows that were refused wait for others, as long as batches are open that may bring some; so does a rest of
        answers to be scored. At last a small rest of rows that were asked for before is not worth a batch.
        """
        if not self.jobs or self.is_refused:
            return False
        if len(self.jobs) >= policy.size:
            return True
        is_rest = len(self.jobs) <= policy.rest
        if is_any_open and self.requests.kind == "scores":
            return not is_rest
        were_asked = all(self._was_asked(job) for job in self.jobs)
        return not (were_asked and (is_any_open or is_rest))

    def _was_asked(self, job: Job) -> bool:
        state = job.state
        is_again = state.num_rejected or state.prompt_variant or state.num_tries
        return bool(is_again or job.row in self.num_releases)


@dataclass
class Queues:
    """All rows of a process that wait.

    Attributes:
        to_write: Those that were refused or released, and new ones for the next batch.
        to_score: Those whose answer is held; None: there is no judge that is asked in batches.
        sends: Batches are sent, not only looked after.
        alone: Those that are to be asked for one by one.
    """

    to_write: Queue
    to_score: Queue | None
    sends: bool
    alone: list[Job] = field(default_factory=list)

    @property
    def all(self) -> list[Queue]:
        """Of those that are ready the first is sent: scores, as what was written is of no use without them."""
        return [self.to_write] if self.to_score is None else [self.to_score, self.to_write]

    @property
    def has_scores_sent(self) -> bool:
        """Whether accepted answers go to the judge in batches."""
        return self.sends and self.to_score is not None and not self.to_score.is_refused

    @property
    def rest(self) -> list[Job]:
        """Every row that waits."""
        return [*self.alone, *(job for queue in self.all for job in queue.jobs)]

    @property
    def held(self) -> list[Job]:
        """Of the rows that wait, those with an answer that is to be scored."""
        return [job for job in self.rest if job.state.waiting is not None]

    def of(self, kind: BatchKind) -> Queue:
        """The queue of a batch's rows."""
        if kind == "rows":
            return self.to_write
        assert self.to_score is not None, "a plan that had a judge has one"
        return self.to_score

    def release(self, job: Job, kind: BatchKind) -> None:
        """Take back a row that a batch brought no answer."""
        queue = self.of(kind)
        queue.num_releases[job.row] += 1
        (self.alone if queue.num_releases[job.row] >= _MAX_RELEASES else queue.jobs).append(job)

    def sort(self, job: Job, outcome: AskAgain | AwaitsScore) -> None:
        """Take back a row that is to be asked for, or scored, once more."""
        self.of("rows" if isinstance(outcome, AskAgain) else "scores").jobs.append(job)
