"""A batch service, as the rest of generate knows it: three calls, whichever form the provider's API has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

GONE: Final = "gone"
"""The state of a batch that the provider does not know, or no longer."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is sent.

    Attributes:
        key: Idempotency key: two drafts with one key are one batch.
        model: The slug.
        created_s: When it was recorded, in seconds since 1970: no batch of it is older.
        requests: Custom id, and the fields of a chat request without its model.
    """

    key: str
    model: str
    created_s: float
    requests: Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """Where a batch stands.

    Attributes:
        id: The provider's name of it.
        state: The provider's word.
        is_ended: It will change no more, but for a cost that is not stated yet.
        num_total: Requests in it; 0 until the provider has counted.
        num_completed: Those answered.
        num_failed: Those failed.
        cost_usd: Of the whole batch; None: not stated.
        awaits_cost: It has ended, and the provider will state its cost.
        error: Why it failed, in the provider's words; empty where it did not.
        objects: Where its results are, in the adapter's own terms.
    """

    id: str
    state: str
    is_ended: bool
    num_total: int = 0
    num_completed: int = 0
    num_failed: int = 0
    cost_usd: float | None = None
    awaits_cost: bool = False
    error: str = ""
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One result as it came: `body` is a chat completion as text, empty where `error` says why there is none."""

    custom_id: str
    body: str
    error: str = ""


class RefusedBatchError(Exception):
    """The provider did not take a batch, and never will: nothing of it is billed."""


class GoneError(Exception):
    """The provider does not have the results of a batch, or not all of them: `found` are those that came."""

    def __init__(self, message: str, found: Sequence[BatchResult] = ()) -> None:
        super().__init__(message)
        self.found = list(found)


class BatchApi(Protocol):
    """A batch service. Each call retries what may pass, and raises what the chat client raises."""

    async def submit(self, draft: Draft, *, is_again: bool) -> BatchStatus:
        """Send a batch; where an earlier try may have arrived (`is_again`), the one that did is found.

        Raises:
            RefusedBatchError: The provider does not take it.
            CreditError: No credit, or the key is refused.
            ProviderError: No answer came: the batch may have arrived.
        """

    async def poll(self, batch_id: str) -> BatchStatus:
        """Where a batch stands; of one that the provider does not know (HTTP 404 and 410) the state is `GONE`."""

    async def read_results(self, status: BatchStatus) -> list[BatchResult]:
        """All results of an ended batch, as they come: ids may be missing or doubled. Empty where it has none.

        Raises:
            GoneError: The provider does not have them (HTTP 404 and 410).
        """
