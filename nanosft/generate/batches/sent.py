"""A batch that is with the provider, as the process that looks after it sees it."""

from dataclasses import dataclass
from typing import Final

from nanosft.generate.batches.api import BatchStatus
from nanosft.generate.batches.record import BatchRecord, RowRequest

REFUSED: Final = "refused"
"""The state of a batch that the provider did not take."""
_MAX_COST_POLLS: Final = 10
"""A batch that has ended and states no cost yet is looked at so often again."""


@dataclass
class SentBatch:
    """A batch, from its record to its results.

    Attributes:
        record: As it stands in the store.
        own: The requests whose rows this process takes, and that are in no part yet.
        is_whole: No other request of it is wanting: it is done once these are in parts.
        has_results: They are in the store.
        status: What the provider said last; None: it was not sent, or nobody knows.
        held_usd: What the budget holds for it.
        num_cost_polls: Looks at it since it has ended without a cost.
        sent_s: When it was sent, in seconds since 1970, or recorded where an earlier process has sent it.
        endpoint: The base URL that it was sent to; empty: not told.
        num_due: Its rows that a judge is to score once they are written.
    """

    record: BatchRecord
    own: list[RowRequest]
    is_whole: bool
    has_results: bool = False
    status: BatchStatus | None = None
    held_usd: float = 0.0
    num_cost_polls: int = 0
    sent_s: float = 0.0
    endpoint: str = ""
    num_due: int = 0

    def __post_init__(self) -> None:
        self.sent_s = self.sent_s or self.record.created_s

    @property
    def needs_submit(self) -> bool:
        """Whether it must be sent, or sent again since nobody knows whether it was."""
        return bool(self.own) and not self.has_results and self.status is None

    @property
    def needs_poll(self) -> bool:
        """Whether the provider may say something new."""
        is_wanted = bool(self.own) and not self.has_results
        return is_wanted and self.status is not None and self.status.state != REFUSED

    @property
    def is_ready(self) -> bool:
        """Whether its results can be taken."""
        if self.has_results or not self.own:
            return True
        if self.status is None or not self.status.is_ended:
            return False
        return not self.status.awaits_cost or self.num_cost_polls >= _MAX_COST_POLLS

    def note(self, status: BatchStatus) -> None:
        """Keep what the provider says now."""
        self.status = status
        self.num_cost_polls += status.is_ended and status.awaits_cost
