"""What two processes of one shard have both put of a batch: it was billed once, and counts once."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from nanosft.generate.records.totals import BATCH_KEY, Tally

ReadProcess = Callable[[str], Iterable[Mapping[str, Any]]]
"""What a process, by its name, has put."""


class Repeats:
    """Tells them as parts are read: those with rows first, then those with rejects.

    A batch asks for a row once, so all that a process has put of the two came of one answer. Two processes may take the
    answer differently, as a near-duplicate or not, and put other records of it: those of one process count, of the one
    that has the row accepted, else of the one that was met first.

    Args:
        read_rows: The metas of its rows; asked where another process has put records of the same batch.
        read_rejects: Its rejects.
    """

    def __init__(self, read_rows: ReadProcess, read_rejects: ReadProcess) -> None:
        self._read_rows = read_rows
        self._read_rejects = read_rejects
        self._first: dict[str, str] = {}  # the process that was met first, by batch
        self._counted: dict[str, dict[int, str]] = {}  # whose records of a row count, by batches that several put

    def add_row(self, tally: Tally, meta: Mapping[str, Any], process: str) -> None:
        """Count an accepted row by its meta, unless another process has put the row of the same answer."""
        if not self._is_anothers(meta, process, with_rejects=False):
            tally.add_row(meta)

    def has(self, record: Mapping[str, Any], process: str) -> bool:
        """Whether a record among the rejects is of an answer of which another process's records count."""
        return self._is_anothers(record, process, with_rejects=True)

    def _is_anothers(self, record: Mapping[str, Any], process: str, *, with_rejects: bool) -> bool:
        batch = record.get(BATCH_KEY)
        if batch is None:
            return False
        first = self._first.setdefault(batch, process)
        if (counted := self._counted.get(batch)) is None:
            if first == process:
                return False
            found = chain(self._read_rows(first), self._read_rejects(first) if with_rejects else ())
            counted = {item["row"]: first for item in found if item.get(BATCH_KEY) == batch}
            self._counted[batch] = counted
        return counted.setdefault(record["row"], process) != process
