"""Reads all sources once: rows into the spill files, records into the ledger, bad lines aside, and what was counted."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from nanosft.errors import DataError
from nanosft.manifest import Parent
from nanosft.mix.ledger import Ledger
from nanosft.mix.near import KeyFiles
from nanosft.mix.recipe import Recipe
from nanosft.mix.rows import BadRow, RowBatch, read_batch
from nanosft.mix.sources import Batch, Inputs, read_batches
from nanosft.mix.workers import Workers
from nanosft.progress import Bar
from nanosft.store import Store


@dataclass(slots=True)
class Count:
    """What was counted of one source.

    Attributes:
        num_lines: Lines that are not blank.
        num_bad: Of these, no conversations.
        filtered: Refused rows by filter or gate.
        first_problem: The first bad line's error.
    """

    num_lines: int = 0
    num_bad: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""


class Intake:
    """Reads the sources of a recipe.

    Args:
        recipe: The recipe.
        inputs: Each source's objects.
        directory: The run's own, for bad lines on their way to the output.
        on_bad_row: "error" ends at the first bad line, "skip" counts it and keeps it aside.
        max_bad_share: The share of a source's lines that may be bad.
    """

    def __init__(
        self,
        recipe: Recipe,
        inputs: Sequence[Inputs],
        directory: Path,
        *,
        on_bad_row: Literal["error", "skip"],
        max_bad_share: float,
    ) -> None:
        self._recipe = recipe
        self._inputs = inputs
        self._directory = directory
        self._on_bad_row = on_bad_row
        self._max_bad_share = max_bad_share
        self._hashed: dict[str, str] = {}
        self._num_lines: Counter[str] = Counter()
        self.num_batches = 0
        self.counts = [Count() for _ in recipe.sources]

    def read(self, workers: Workers, ledger: Ledger, keys: KeyFiles | None) -> None:
        """Read everything.

        Raises:
            DataError: A line is bad and may not be skipped, too many are, or a source is empty or not what its
                manifest says.
        """
        with Bar("mix: read rows", None) as bar:
            for number, batch in enumerate(workers.map(read_batch, self._tasks())):
                self._take_counts(batch)
                base = ledger.add(number, batch)
                if keys is not None:
                    keys.add(base, batch.keys.rows, batch.keys.keys, batch.sigs)
                bar.advance(len(batch), source=self._recipe.sources[batch.source].name)
                self.num_batches = number + 1
        ledger.finish_adding()
        self._check()

    @property
    def parents(self) -> tuple[Parent, ...]:
        """What was read: manifests, and the objects that none names, by URI."""
        found = {parent.uri: parent for inputs in self._inputs for parent in inputs.manifests}
        found |= {uri: Parent(uri=uri, sha256=sha256) for uri, sha256 in self._hashed.items()}
        return tuple(found[uri] for uri in sorted(found))

    def put_refused(self, out: Store) -> None:
        """Put the lines that were skipped: one object a source, each line with its error."""
        for index, source in enumerate(self._recipe.sources):
            if self.counts[index].num_bad:
                out.write_file(f"refused/{source.name}.jsonl", self._refused_path(index))

    def _tasks(self) -> Iterator[tuple[int, Batch]]:
        number = 0
        for source, inputs in enumerate(self._inputs):
            for item in inputs.objects:
                digest = hashlib.sha256() if item.uri in inputs.bare else None
                for batch in read_batches(item, source=source, digest=digest):
                    yield number, batch
                    number += 1
                if digest is not None:
                    self._hashed[item.uri] = digest.hexdigest()

    def _take_counts(self, batch: RowBatch) -> None:
        count = self.counts[batch.source]
        count.num_lines += batch.num_lines
        count.filtered += batch.filtered
        self._num_lines[batch.uri] += batch.num_lines
        if not batch.bad:
            return
        if self._on_bad_row == "error":
            raise DataError(
                f"{batch.bad[0].problem}; mend the line, or go on without such lines with --on-bad-row skip"
            )
        count.num_bad += len(batch.bad)
        count.first_problem = count.first_problem or batch.bad[0].problem
        with self._refused_path(batch.source).open("ab") as file:
            file.writelines(map(_dump, batch.bad))

    def _check(self) -> None:
        for source, inputs, count in zip(self._recipe.sources, self._inputs, self.counts, strict=True):
            for item in inputs.objects:
                if item.num_rows is not None and self._num_lines[item.uri] != item.num_rows:
                    found = self._num_lines[item.uri]
                    raise DataError(f"{item.uri}: has {found} rows, its manifest says {item.num_rows}: make it again")
            if not count.num_lines:
                raise DataError(f"source {source.name!r} is empty: {', '.join(source.uri)} holds no rows")
            if count.num_bad > self._max_bad_share * count.num_lines:
                raise DataError(
                    f"source {source.name!r}: {count.num_bad} of {count.num_lines} lines are bad, more than "
                    f"--max-bad-share {self._max_bad_share:g} allows; the first: {count.first_problem}"
                )

    def _refused_path(self, source: int) -> Path:
        return self._directory / f"refused-{source}.jsonl"


def _dump(row: BadRow) -> bytes:
    record = {"error": row.problem, "line": row.line.decode(errors="replace")}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
