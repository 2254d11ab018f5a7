"""Answers of a batch that two processes of one shard have both put: they were billed once, and count once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nanosft.generate.records.totals import BATCH_KEY, HELD_ATTEMPT_KEY, PROMPT_VARIANT_KEY, Tally


class Repeats:
    """Tells them as parts are read, process by process.

    Args:
        read_process: All records that a process, by its name, has put; asked where another has put the same batch's.
    """

    def __init__(self, read_process: Callable[[str], Iterable[Mapping[str, Any]]]) -> None:
        self._read_process = read_process
        self._first: dict[str, str] = {}  # the process that was met first, by batch
        self._put: dict[str, set[tuple[int, ...]]] = {}  # its answers and the others', of batches that several put

    def add_row(self, tally: Tally, meta: Mapping[str, Any], process: str) -> None:
        """Count an accepted row by its meta, unless another process has put the answer too."""
        if not self.has(meta, process):
            tally.add_row(meta)

    def has(self, record: Mapping[str, Any], process: str) -> bool:
        """Whether another process has put this answer too, and was met before; it is noted that this one has."""
        batch = record.get(BATCH_KEY)
        if batch is None or (first := self._first.setdefault(batch, process)) == process:
            return False
        if batch not in self._put:
            found = self._read_process(first)
            self._put[batch] = {_name(item) for item in found if item.get(BATCH_KEY) == batch}
        name = _name(record)
        is_repeat = name in self._put[batch]
        self._put[batch].add(name)
        return is_repeat


def _name(record: Mapping[str, Any]) -> tuple[int, ...]:
    attempt = record.get(HELD_ATTEMPT_KEY, record["attempt"])  # whether it was held or scored at once, it is one answer
    return record["row"], record[PROMPT_VARIANT_KEY], -1 if attempt is None else attempt
