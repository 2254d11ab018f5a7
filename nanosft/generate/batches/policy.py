"""What a run is told of batches."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches are made and waited for.

    Attributes:
        size: Most requests of one; 0: none is sent, only those that are with the provider are looked after.
        rest: So few rows that were refused before are not worth a batch.
        poll_s: Seconds between two looks.
        wait: Wait for batches; or leave, to be started again.
        endpoint: The base URL that they are sent to.
    """

    size: int
    rest: int
    poll_s: float
    wait: bool
    endpoint: str
