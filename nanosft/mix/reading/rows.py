"""What happens to a row on its own: parse, filter, measure, and spill. Runs in worker processes.

A worker gets a batch of lines and returns narrow columns; the rows themselves go to its spill file, already in the form
in which they will be put out, and are not looked at again until they are written. So do the keys of near duplicates.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from nanosft.conversation import Conversation
from nanosft.data import Batch
from nanosft.dedup import digest_texts, drop_borders, hash_batch, join_messages, make_keys, minhash_words
from nanosft.errors import DataError
from nanosft.mix.columns import ROW, TYPES, Columns
from nanosft.mix.disk import Spill
from nanosft.mix.reading.contamination import HeldOut, load_held_out
from nanosft.mix.reading.parse import Row, parse_row
from nanosft.mix.recipe import Filter, Gate, Recipe
from nanosft.mix.tuning import Tuning
from nanosft.settings.gates import GATE_NAMES

if TYPE_CHECKING:
    from nanosft.nanochat.tokenizer import Tokenizer

_NO_CELL: Final = bytes(8)
_SHORT_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that is no conversation: the error (which says where) and the line itself."""

    problem: str
    line: bytes


@dataclass(slots=True)
class RowBatch:
    """What became of a batch.

    Attributes:
        source: The source's place in the recipe.
        uri: The object the batch is of.
        num_lines: Lines that were not blank.
        columns: Those of `columns.ROW`, an item an accepted row: `id_hi`, `id_lo` (first 128 bits of its id),
            `text_hi`, `text_lo` (128 bits of its normalized text, or again of its id where no duplicates are looked
            for), `meta` (64 of its meta), `cell` (64 of its plan cell, 0 without), `tokens`, `supervised`, `size`
            (bytes in the spill file), `clean` (not held out elsewhere).
        process: Whose spill files its rows are in.
        rows_at: Where in that file they begin, in bytes.
        sigs_at: Where their signatures begin, in bytes.
        filtered: Rows that a filter or gate refused, by its name.
        bad: Lines that are no conversations.
    """

    source: int
    uri: str
    num_lines: int
    columns: Columns
    process: int
    rows_at: int
    sigs_at: int
    filtered: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns["size"])


class RowReader:
    """Turns batches of lines into columns and spilled rows.

    Args:
        recipe: The recipe.
        spill: For the rows, and for the keys of near duplicates.
        held_out: The held-out sets' n-grams, or None without decontamination.
        tokenizer_pickle: The recipe's tokenizer, the same for all workers; None where it names none.
    """

    def __init__(self, recipe: Recipe, spill: Spill, held_out: HeldOut | None, tokenizer_pickle: bytes | None) -> None:
        self._recipe = recipe
        self._spill = spill
        self._held_out = held_out
        self._tokenizer = _parse_tokenizer(recipe.tokenizer, tokenizer_pickle)
        self._refusals = [self._make_refusal(source.filter.over(recipe.filter)) for source in recipe.sources]

    def read(self, number: int, batch: Batch) -> RowBatch:
        """Read one batch, the one of this number."""
        source, refuse_row = self._recipe.sources[batch.source], self._refusals[batch.source]
        as_list, compares_texts = self._recipe.output == "list", self._recipe.compares_texts
        kept = _Kept()
        bad: list[BadRow] = []
        filtered: Counter[str] = Counter()
        num_lines = 0
        for where, line in batch.iter_lines():
            num_lines += 1
            try:
                row = parse_row(line, source, where=where, as_list=as_list)
            except DataError as exc:
                bad.append(BadRow(str(exc), line))
                continue
            tokens = self._count_tokens(row)
            if refuse_row is not None and (reason := refuse_row(row, tokens[0])):
                filtered[reason] += 1
                continue
            # Nothing of a row that is not needed may stay: memory used again at once is what makes parsing fast.
            kept.digests.append(row.digest)
            kept.lines.append(row.line)
            kept.metas.append(_hash_short(row.meta) if len(row.meta) <= _SHORT_BYTES else _hash_64(row.meta))
            kept.cells.append(_hash_64(row.cell) if row.cell else _NO_CELL)
            kept.tokens.append(tokens)
            if compares_texts:
                kept.texts.append(join_messages(row.texts))
        columns, sigs_at = self._measure(number, kept)
        return RowBatch(
            source=batch.source,
            uri=batch.uri,
            num_lines=num_lines,
            columns=columns,
            process=self._spill.number,
            rows_at=self._spill.add_rows(kept.lines),
            sigs_at=sigs_at,
            filtered=filtered,
            bad=bad,
        )

    def finish(self) -> None:
        """Complete the spill files."""
        self._spill.finish()

    def _count_tokens(self, row: Row) -> tuple[int, int]:
        if self._tokenizer is None:
            return 0, 0
        ids, mask = self._tokenizer.render(row.to_conversation())
        return len(ids), sum(mask)

    def _measure(self, number: int, kept: "_Kept") -> tuple[Columns, int]:
        """The columns of the rows kept, and where their signatures are."""
        tokens = np.array(kept.tokens, np.uint32).reshape(-1, 2)
        columns: Columns = {
            **_split_words("id", b"".join(kept.digests), 4),
            "meta": np.frombuffer(b"".join(kept.metas), ">u8"),
            "cell": np.frombuffer(b"".join(kept.cells), ">u8"),
            "tokens": tokens[:, 0],
            "supervised": tokens[:, 1],
            "size": np.array([len(line) for line in kept.lines]),
            "clean": np.ones(len(kept.lines)),
        }
        sigs_at = 0
        if self._recipe.compares_texts:
            words = hash_batch(kept.texts)
            if self._held_out is not None:
                columns["clean"] = ~self._held_out.find(drop_borders(words))
            digests = digest_texts(words)
            columns |= {"text_hi": digests[:, 0], "text_lo": digests[:, 1]}
            if self._recipe.deduplicate.near != "off":
                sigs = minhash_words(words)
                keys = make_keys(words, sigs, threshold=self._recipe.deduplicate.threshold)
                sigs_at = self._spill.add_keys(number, keys, sigs)
        else:
            columns |= {"text_hi": columns["id_hi"], "text_lo": columns["id_lo"]}
        return {name: columns[name].astype(TYPES[name]) for name in ROW}, sigs_at

    def _make_refusal(self, wanted: Filter) -> Callable[[Row, int], str | None] | None:
        """What names the first filter or gate that refuses a row; None where all pass."""
        if wanted == Filter():
            return None
        gate = _make_gate(wanted.gates, self._tokenizer) if wanted.gates else None

        def refuse_row(row: Row, num_tokens: int) -> str | None:
            return refuse(row, wanted, num_tokens) or (gate(row.to_conversation()) if gate is not None else None)

        return refuse_row


_readers: dict[str, RowReader] = {}


def start_reader(process: int, recipe: Recipe, directory: Path, tuning: Tuning, tokenizer_pickle: bytes | None) -> None:
    """Make this process's reader: the set-up of a worker."""
    wanted = recipe.decontaminate
    held_out = load_held_out(directory, wanted.ngram, wanted.max_overlap) if wanted is not None else None
    spill = Spill(directory, process, tuning.spilled_keys)
    _readers["reader"] = RowReader(recipe, spill, held_out, tokenizer_pickle)


def read_batch(number: int, batch: Batch) -> RowBatch:
    """`RowReader.read` with this process's reader: a worker's task."""
    return _readers["reader"].read(number, batch)


def finish_reading() -> None:
    """`RowReader.finish` with this process's reader, after its last batch."""
    _readers.pop("reader").finish()


def refuse(row: Row, wanted: Filter, num_tokens: int) -> str | None:
    """The name of the first filter that refuses a row, or None."""
    if wanted.min_turns is not None and row.num_turns < wanted.min_turns:
        return "min_turns"
    if wanted.max_turns is not None and row.num_turns > wanted.max_turns:
        return "max_turns"
    num_chars = sum(map(len, row.texts))
    if wanted.min_chars is not None and num_chars < wanted.min_chars:
        return "min_chars"
    if wanted.max_chars is not None and num_chars > wanted.max_chars:
        return "max_chars"
    if wanted.max_tokens is not None and num_tokens > wanted.max_tokens:
        return "max_tokens"
    return None


@dataclass(slots=True)
class _Kept:
    """Columns in the making, an item a row."""

    lines: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    metas: list[bytes] = field(default_factory=list)
    cells: list[bytes] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)


def _make_gate(names: Collection[Gate], tokenizer: "Tokenizer | None") -> Callable[[Conversation], str | None]:
    """What tells the first reason for which some quality gates refuse a conversation."""
    from nanosft.quality.gates import Context, Gates, check  # noqa: PLC0415 - 0.1 s that only gates need

    context = Context(Gates(off=frozenset(GATE_NAMES) - frozenset(names)), tokenizer=tokenizer)
    return lambda conversation: next(iter(check(conversation, context).reasons), None)


def _parse_tokenizer(uri: str | None, pickle: bytes | None) -> "Tokenizer | None":
    if uri is None or pickle is None:
        return None
    from nanosft.nanochat.tokenizer import parse_tokenizer  # noqa: PLC0415 - 0.1 s that only counting tokens needs

    return parse_tokenizer(pickle, where=uri)


def _hash_64(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


_hash_short = lru_cache(maxsize=1024)(_hash_64)
"""`_hash_64` of what most rows of a source have the same."""


def _split_words(name: str, data: bytes, num_words: int) -> Columns:
    words = np.frombuffer(data, ">u8").reshape(-1, num_words)
    return {f"{name}_hi": words[:, 0], f"{name}_lo": words[:, 1]}
