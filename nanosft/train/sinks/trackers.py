"""TensorBoard, Weights & Biases and trackio."""

from collections.abc import Mapping
from typing import Any


class TensorBoard:
    """Event files.

    Args:
        writer: torch's SummaryWriter.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush them."""
        self._writer.close()


class TrackedRun:
    """A run of Weights & Biases or of trackio, whose interface is the same.

    Args:
        run: What their `init` returned.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """All of a step at once."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Upload the rest."""
        self._run.finish()
