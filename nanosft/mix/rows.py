"""What happens to a row on its own: parse, filter, measure, and spill. Runs in worker processes.

A worker gets a batch of lines and returns narrow columns; the rows themselves go to a spill file of the batch, already
in the form in which they will be put out, and are not looked at again until they are written.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from nanosft.conversation import Conversation
from nanosft.errors import DataError
from nanosft.mix.contamination import HeldOut, drop_borders, load_held_out
from nanosft.mix.parse import Row, parse_row
from nanosft.mix.recipe import Filter, Gate, Recipe
from nanosft.mix.sources import Batch
from nanosft.mix.text import normalize_batch
from nanosft.quality.minhash import NUM_BINS, Keys, near_keys, signatures
from nanosft.quality.verdict import GATE_NAMES

if TYPE_CHECKING:
    from nanosft.nanochat.tokenizer import Tokenizer

_NO_CELL: Final = bytes(8)
_NO_KEYS: Final = Keys(np.empty(0, np.int64), np.empty(0, np.uint64))
_NO_SIGS: Final = np.empty((0, NUM_BINS), np.uint16)


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
        columns: For each accepted row: `id_hi`, `id_lo` (first 128 bits of its id), `text_hi`, `text_lo` (128 bits of
            its normalized text, or again of its id where no duplicates are looked for), `meta` (64 of its meta),
            `cell` (64 of its plan cell, 0 without), `tokens`, `supervised`, `size` (bytes in the spill file), `clean`
            (not held out elsewhere).
        keys: Keys under which near-duplicates meet; `rows` count from 0 in the batch.
        sigs: (rows, NUM_BINS) uint16, or (0, NUM_BINS) where near-duplicates are not looked for.
        filtered: Rows that a filter or gate refused, by its name.
        bad: Lines that are no conversations.
    """

    source: int
    uri: str
    num_lines: int
    columns: dict[str, npt.NDArray[Any]]
    keys: Keys
    sigs: npt.NDArray[np.uint16]
    filtered: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns["size"])


class RowReader:
    """Turns batches of lines into columns and spilled rows.

    Args:
        recipe: The recipe.
        spill: Directory for the rows.
        held_out: The held-out sets' n-grams, or None without decontamination.
    """

    def __init__(self, recipe: Recipe, spill: Path, held_out: HeldOut | None) -> None:
        self._recipe = recipe
        self._spill = spill
        self._held_out = held_out
        self._filters = [source.filter.over(recipe.filter) for source in recipe.sources]
        self._gates = [_make_gate(wanted.gates) if wanted.gates else None for wanted in self._filters]
        self._tokenizer = _load_tokenizer(recipe.tokenizer) if recipe.tokenizer is not None else None

    def read(self, number: int, batch: Batch) -> RowBatch:
        """Read one batch; its rows go to the spill file of `number`."""
        source, wanted = self._recipe.sources[batch.source], self._filters[batch.source]
        gate = self._gates[batch.source]
        as_list = self._recipe.output == "list"
        kept = _Kept()
        bad: list[BadRow] = []
        filtered: Counter[str] = Counter()
        num_lines = 0
        for line_number, raw in enumerate(batch.data.split(b"\n"), batch.first):
            line = raw.strip(b" \t\r")
            if not line:
                continue
            num_lines += 1
            where = f"{batch.uri}:{batch.unit} {line_number}"
            try:
                row = parse_row(line, source, where=where, as_list=as_list)
            except DataError as exc:
                bad.append(BadRow(str(exc), line))
                continue
            tokens = self._count_tokens(row)
            reason = refuse(row, wanted, tokens[0])
            if reason is None and gate is not None:
                reason = gate(row.to_conversation())
            if reason is not None:
                filtered[reason] += 1
            else:
                kept.add(row, tokens)
        spill_path(self._spill, number).write_bytes(b"".join(kept.lines))
        columns, keys, sigs = self._measure(kept)
        return RowBatch(batch.source, batch.uri, num_lines, columns, keys, sigs, filtered, bad)

    def _count_tokens(self, row: Row) -> tuple[int, int]:
        if self._tokenizer is None:
            return 0, 0
        ids, mask = self._tokenizer.render(row.to_conversation())
        return len(ids), sum(mask)

    def _measure(self, kept: "_Kept") -> tuple[dict[str, npt.NDArray[Any]], Keys, npt.NDArray[np.uint16]]:
        dedup = self._recipe.deduplicate
        if not dedup.exact and dedup.near == "off" and self._held_out is None:
            return self._columns(kept, b"".join(digest[:16] for digest in kept.digests), None), _NO_KEYS, _NO_SIGS
        texts = normalize_batch(kept.texts)
        hashed = b"".join(
            hashlib.blake2b(b"\0" + orjson.dumps(raw) if text is None else text.encode(), digest_size=16).digest()
            for text, raw in zip(texts, kept.texts, strict=True)
        )
        clean = None
        if self._held_out is not None:
            clean = ~self._held_out.find([drop_borders(text or "") for text in texts])
        columns = self._columns(kept, hashed, clean)
        if dedup.near == "off":
            return columns, _NO_KEYS, _NO_SIGS
        compared = np.array([row for row, text in enumerate(texts) if text is not None], np.int64)
        sigs = np.zeros((len(texts), NUM_BINS), np.uint16)
        comparable = [text for text in texts if text is not None]
        sigs[compared] = signatures(comparable)
        keys = near_keys(comparable, sigs[compared], threshold=dedup.threshold)
        return columns, Keys(compared[keys.rows], keys.keys), sigs

    @staticmethod
    def _columns(kept: "_Kept", texts: bytes, clean: npt.NDArray[np.bool_] | None) -> dict[str, npt.NDArray[Any]]:
        return {
            **_split_words("id", b"".join(kept.digests), 4),
            **_split_words("text", texts, 2),
            "meta": np.frombuffer(b"".join(kept.metas), ">u8").astype(np.uint64),
            "cell": np.frombuffer(b"".join(kept.cells), ">u8").astype(np.uint64),
            "tokens": np.array([item[0] for item in kept.tokens], np.int32),
            "supervised": np.array([item[1] for item in kept.tokens], np.int32),
            "size": np.array([len(line) for line in kept.lines], np.int32),
            "clean": np.ones(len(kept.lines), np.bool_) if clean is None else clean,
        }


_readers: dict[str, RowReader] = {}


def start_reader(recipe: Recipe, directory: Path) -> None:
    """Make this process's reader: the set-up of a worker."""
    wanted = recipe.decontaminate
    held_out = load_held_out(directory, wanted.ngram, wanted.max_overlap) if wanted is not None else None
    _readers["reader"] = RowReader(recipe, directory, held_out)


def read_batch(number: int, batch: Batch) -> RowBatch:
    """`RowReader.read` with this process's reader: a worker's task."""
    return _readers["reader"].read(number, batch)


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


def spill_path(spill: Path, number: int) -> Path:
    """Where the rows of batch `number` are."""
    return spill / f"rows-{number:08d}"


class _Kept:
    """Columns in the making."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.digests: list[bytes] = []
        self.texts: list[list[str]] = []
        self.metas: list[bytes] = []
        self.cells: list[bytes] = []
        self.tokens: list[tuple[int, int]] = []

    def add(self, row: Row, tokens: tuple[int, int]) -> None:
        self.lines.append(row.line)
        self.digests.append(row.digest)
        self.texts.append(row.texts)
        self.metas.append(_hash_64(row.meta))
        self.cells.append(_hash_64(row.cell) if row.cell else _NO_CELL)
        self.tokens.append(tokens)


def _make_gate(names: Collection[Gate]) -> Callable[[Conversation], str | None]:
    """What tells the first reason for which some quality gates refuse a conversation."""
    from nanosft.quality.gates import Context, Gates, check  # noqa: PLC0415 - 0.1 s that only gates need

    context = Context(Gates(**{name: name in names for name in GATE_NAMES}))
    return lambda conversation: next(iter(check(conversation, context).reasons), None)


def _load_tokenizer(uri: str) -> "Tokenizer":
    from nanosft.nanochat.tokenizer import load_tokenizer  # noqa: PLC0415 - 0.1 s that only counting tokens needs

    return load_tokenizer(uri)


def _hash_64(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _split_words(name: str, data: bytes, num_words: int) -> dict[str, npt.NDArray[np.uint64]]:
    words = np.frombuffer(data, ">u8").reshape(-1, num_words).astype(np.uint64)
    return {f"{name}_hi": words[:, 0], f"{name}_lo": words[:, 1]}
