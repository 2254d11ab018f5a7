"""Reads all sources once: rows go to the spill files, records to whoever reads, bad lines aside; lines are counted."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from nanosft.data import Batch, DataObject, Inputs, Origin, read_batches
from nanosft.dedup import join_messages
from nanosft.errors import DataError
from nanosft.manifest import Parent
from nanosft.mix.disk import save_places
from nanosft.mix.reading.contamination import build_held_out
from nanosft.mix.reading.parse import parse_row
from nanosft.mix.reading.rows import BadRow, RowBatch, finish_reading, read_batch
from nanosft.mix.recipe import Recipe, Source
from nanosft.store import Store

if TYPE_CHECKING:
    from nanosft.parallel import Workers  # worker processes import this module, and need no pool


@dataclass(slots=True)
class LineCounts:
    """What was counted of one source.

    Attributes:
        num_lines: Lines that are not blank.
        num_bad: Those of them that are no conversations.
        filtered: Refused rows by filter or gate.
        first_problem: The first bad line's error.
    """

    num_lines: int = 0
    num_bad: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""


class SourceReader:
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
        self._all_inputs = list(inputs)
        self._bare: dict[str, Parent] = {}
        self._num_lines: Counter[tuple[int, str]] = Counter()
        self.counts = [LineCounts() for _ in recipe.sources]
        self.num_bytes = sum(item.size_bytes for found in inputs for item in found.objects)
        self.num_bytes_read = 0  # as they lie in the store; of a compressed object some are counted at its end alone

    def read(self, workers: "Workers") -> Iterator[RowBatch]:
        """Read everything: the batches in reading order, whichever process had them.

        Raises:
            DataError: A line is bad and may not be skipped, too many are, or a source is empty or not what its
                manifest says.
        """
        places, num_rows = [], 0
        for batch in workers.map(read_batch, self._tasks(workers.num_ahead)):
            self._take_counts(batch)
            places.append((batch.process, num_rows, batch.rows_at, batch.sigs_at))
            num_rows += len(batch)
            yield batch
        workers.each(finish_reading)
        save_places(self._directory, places)
        self._check()

    def read_held_out(self, inputs: Inputs) -> None:
        """Read the held-out sets, and leave their n-grams for the readers of rows.

        Raises:
            DataError: They hold nothing, or a line is no conversation.
        """
        wanted = self._recipe.decontaminate
        assert wanted is not None, "the recipe names none"
        self._all_inputs.append(inputs)
        texts = (text for item in inputs.objects for text in self._iter_texts(item))
        held_out = build_held_out(texts, ngram=wanted.ngram, max_overlap=wanted.max_overlap)
        if not len(held_out.sizes):
            raise DataError(f"decontaminate.uri: {', '.join(wanted.uri)} holds no conversations")
        held_out.save(self._directory)

    def _iter_texts(self, item: DataObject) -> Iterator[str]:
        source = Source(name="held-out", uri=(item.uri,))
        for batch in self._read_batches(item, 0):
            for where, line in batch.iter_lines():
                yield join_messages(parse_row(line, source, where=where, as_list=True).texts)

    def _read_batches(self, item: DataObject, source: int) -> Iterator[Batch]:
        """An object's batches; its hash is kept where no manifest names it."""
        is_bare = any(item.uri in inputs.bare for inputs in self._all_inputs)
        digest = hashlib.sha256() if is_bare else None
        yield from read_batches(item, source=source, digest=digest)
        if digest is not None:
            self._bare[item.uri] = Origin.of_objects(item.uri, [item], digest.hexdigest).to_parent()

    @property
    def parents(self) -> tuple[Parent, ...]:
        """What was read: manifests, and the objects that none names, by URI."""
        found = {parent.uri: parent for inputs in self._all_inputs for parent in inputs.manifests}
        found |= self._bare
        return tuple(found[uri] for uri in sorted(found))

    def put_refused(self, out: Store) -> set[str]:
        """Put the lines that were skipped, one object a source, each line with its error; their keys."""
        keys = {}
        for index, source in enumerate(self._recipe.sources):
            if self.counts[index].num_bad:
                keys[f"refused/{source.name}.jsonl"] = self._refused_path(index)
        for key, path in keys.items():
            out.write_file(key, path)
        return set(keys)

    def _tasks(self, num_ahead: int) -> Iterator[tuple[int, Batch]]:
        number = 0
        for source, inputs in enumerate(self._inputs):
            for item in inputs.objects:
                before = self.num_bytes_read
                for batch in self._read_batches(item, source):
                    seen = self.num_bytes_read - before + sum(map(len, batch.pieces or ()))
                    self.num_bytes_read = before + min(seen, item.size_bytes)
                    # A batch's file is free again when as many have been drawn after it as can be under way.
                    path = self._directory / f"lines-{number % (num_ahead + 1)}"
                    yield number, batch.put(path) if num_ahead else batch
                    number += 1
                self.num_bytes_read = before + item.size_bytes

    def _take_counts(self, batch: RowBatch) -> None:
        count = self.counts[batch.source]
        count.num_lines += batch.num_lines
        count.filtered += batch.filtered
        self._num_lines[batch.source, batch.uri] += batch.num_lines
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
        for index, (source, inputs, count) in enumerate(
            zip(self._recipe.sources, self._inputs, self.counts, strict=True)
        ):
            for item in inputs.objects:
                found = self._num_lines[index, item.uri]
                if item.num_rows is not None and found != item.num_rows:
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
    record = {"error": row.problem, "line": row.line.decode(errors="backslashreplace")}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
