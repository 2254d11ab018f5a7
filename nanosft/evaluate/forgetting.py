"""What finetuning cost: bits per byte of base and chat model on plain text and on held-out conversations.

Both models score the same documents, so differences are paired: their intervals resample documents.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nanosft.data import DataObject, read_object
from nanosft.distributed import ALONE, World
from nanosft.errors import DataError
from nanosft.evaluate.answering import score_texts
from nanosft.evaluate.statistics import Interval, bootstrap_ratio
from nanosft.nanochat import Checkpoint, Tokenizer
from nanosft.store import Store, open_object, open_store

_VAL_PREFIX: Final = "val-"
_TEXT_SUFFIXES: Final = (".txt", ".md", ".text", ".rst")
PLAIN: Final = "plain text"


@dataclass(frozen=True, slots=True)
class Document:
    """A text that both models score.

    Attributes:
        source: `PLAIN`, or the conversation's source in the mixture.
        id: Its SHA-256, 16 hex digits.
        ids: Its tokens.
        mask: 1 where a token counts; as long as `ids`.
    """

    source: str
    id: str
    ids: tuple[int, ...]
    mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """What the models say of a document.

    Attributes:
        source: As of the document.
        id: As of the document.
        num_bytes: Of the text that counts.
        bits: By model.
        num_tokens: Tokens whose likeliest were compared; 0 for conversations.
        num_agreed: Of these, those at which the models' likeliest token is the same.
    """

    source: str
    id: str
    num_bytes: int
    bits: Mapping[str, float]
    num_tokens: int = 0
    num_agreed: int = 0

    def to_json(self) -> dict[str, Any]:
        """A line of `documents.jsonl`; bits are rounded to four digits."""
        return {
            "source": self.source,
            "id": self.id,
            "num_bytes": self.num_bytes,
            "bits": {name: round(value, 4) for name, value in self.bits.items()},
            "num_tokens": self.num_tokens,
            "num_agreed": self.num_agreed,
        }


def read_plain_text(uri: str, tokenizer: Tokenizer, *, row_len: int, max_rows: int) -> list[Document]:
    """Rows of plain text, each with `<|bos|>` before it: evenly spread ones where there are more than `max_rows`.

    Args:
        uri: A text file, or a prefix of `.txt`, `.md`, `.rst` files.
        tokenizer: Of the models.
        row_len: Tokens of a row at most.
        max_rows: How many are scored.

    Raises:
        DataError: There is no text.
    """
    rows: list[tuple[int, ...]] = []
    for text in _read_texts(uri):
        ids = tokenizer.encode(text)
        size = row_len - 1
        rows += [(tokenizer.bos_id, *ids[start : start + size]) for start in range(0, len(ids), size)]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise DataError(f"{uri}: no plain text: expected a text file, or a prefix with {', '.join(_TEXT_SUFFIXES)}")
    picked = np.unique(np.linspace(0, len(rows) - 1, min(max_rows, len(rows))).round().astype(int))
    return [_document(PLAIN, rows[place], (0, *[1] * (len(rows[place]) - 1))) for place in picked.tolist()]


def read_held_out(
    data: Iterable[Sequence[DataObject]], tokenizer: Tokenizer, *, row_len: int, max_rows: int
) -> tuple[list[Document], int]:
    """Held-out conversations by source, the first `max_rows` of each by the hash of their content.

    Args:
        data: The objects of each set; those named val-… are meant, or all where there are none of that name.
        tokenizer: Of the models.
        row_len: Tokens of a conversation at most.
        max_rows: Of a source.

    Returns:
        Documents in order of source and hash, and how many conversations are longer than a row and left out.
    """
    found: dict[str, dict[str, Document]] = {}
    num_long = 0
    for objects in data:
        val = [item for item in objects if item.key.rpartition("/")[2].startswith(_VAL_PREFIX)]
        for item in val or objects:
            for conversation in read_object(item):
                ids, mask = tokenizer.render(conversation)
                if len(ids) > row_len or not any(mask):
                    num_long += len(ids) > row_len
                    continue
                source = str(conversation.meta.get("source", item.key.rpartition("/")[2]))
                found.setdefault(source, {})[conversation.id] = _document(source, tuple(ids), tuple(mask))
    documents = [own[key] for _, own in sorted(found.items()) for key in sorted(own)[:max_rows]]
    return documents, num_long


def score_documents(
    models: Mapping[str, Checkpoint], documents: Sequence[Document], *, world: World = ALONE
) -> list[DocumentScore]:
    """Each document by each model; agreement where there are two, on plain text. `world`: who shares the work."""
    if not documents:
        return []
    sizes = np.array(next(iter(models.values())).tokenizer.token_bytes(), np.int64)
    texts = [document.ids for document in documents]
    scored = {
        name: score_texts(checkpoint.model, texts, label=f"bits per byte: {name}", world=world)
        for name, checkpoint in models.items()
    }
    found = []
    for place, document in enumerate(documents):
        targets = np.array(document.ids[1:])
        counts = (np.array(document.mask[1:]) > 0) & (sizes[targets] > 0)
        bits = {name: float(scores[place].losses[counts].sum()) / math.log(2) for name, scores in scored.items()}
        likeliest = [scores[place].likeliest[counts] for scores in scored.values()]
        compared = document.source == PLAIN and len(likeliest) > 1
        found.append(
            DocumentScore(
                document.source,
                document.id,
                int(sizes[targets[counts]].sum()),
                bits,
                int(counts.sum()) if compared else 0,
                int((likeliest[0] == likeliest[-1]).sum()) if compared else 0,
            )
        )
    return found


def summarize_documents(scores: Sequence[DocumentScore]) -> dict[str, dict[str, Interval]]:
    """Bits per byte by source and model; and under "change", last model less first, paired, with their agreement."""
    found: dict[str, dict[str, Interval]] = {}
    for source in dict.fromkeys(item.source for item in scores):
        own = [item for item in scores if item.source == source]
        names = list(own[0].bits)
        ids, num_bytes = [item.id for item in own], [float(item.num_bytes) for item in own]
        figure = f"bits per byte: {source}"
        columns = {name: [item.bits[name] for item in own] for name in names}
        if len(names) > 1:
            columns["change"] = [item.bits[names[-1]] - item.bits[names[0]] for item in own]
        for name, bits in columns.items():
            interval = bootstrap_ratio(bits, num_bytes, ids)
            if interval is not None:
                found.setdefault(name, {})[figure] = interval
        tokens = [float(item.num_tokens) for item in own]
        agreement = bootstrap_ratio([float(item.num_agreed) for item in own], tokens, ids)
        if agreement is not None:
            found.setdefault("change", {})[f"same likeliest token: {source}"] = agreement
    return found


def _document(source: str, ids: tuple[int, ...], mask: tuple[int, ...]) -> Document:
    digest = hashlib.sha256(np.array(ids, np.int64).tobytes()).hexdigest()
    return Document(source, digest[:16], ids, mask)


def _read_texts(uri: str) -> Iterator[str]:
    store, key = open_object(uri)
    if not uri.endswith("/") and store.stat(key) is not None:
        yield _decode(store, key)
        return
    prefix = open_store(uri)
    for info in prefix.list():
        if info.key.endswith(_TEXT_SUFFIXES):
            yield _decode(prefix, info.key)


def _decode(store: Store, key: str) -> str:
    try:
        return store.read(key).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{store.uri_of(key)}: not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
