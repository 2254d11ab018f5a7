"""Rows as the data browser has them: near-duplicates in clusters, tokens with their loss mask, packed rows."""

import base64
import codecs
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import orjson

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.errors import DataError
from nanosft.nanochat.tokenizer import Tokenizer
from nanosft.packing import fit_turns, pack_epoch
from nanosft.report.rows import conversation_of

_CHUNK_BYTES: Final = 1 << 20
_BATCH: Final = 256
_LAST_OF_BMP: Final = "\uffff"


def mark_clusters(rows: Sequence[dict[str, Any]]) -> int:
    """Number the clusters of near-duplicates: each row of one gets its `cluster`. Returns how many there are."""
    index = NearDuplicateIndex()
    firsts: list[int] = []  # the row of each text in the index
    members: dict[int, list[int]] = {}
    told = [(place, found) for place, row in enumerate(rows) if (found := conversation_of(row)) is not None]
    for start in range(0, len(told), _BATCH):
        batch = told[start : start + _BATCH]
        for (place, _), near in zip(
            batch, index.find_or_add_all([normalize_text(item) for _, item in batch]), strict=True
        ):
            if near is None:
                firsts.append(place)
            else:
                members.setdefault(firsts[near], [firsts[near]]).append(place)
    for number, places in enumerate(members.values(), 1):
        for place in places:
            rows[place]["cluster"] = number
    return len(members)


def add_tokens(
    rows: Sequence[dict[str, Any]], tokenizer: Tokenizer, max_tokens: int, *, capacity: int | None = None
) -> int:
    """Give rows their `tokens`, as long as there is room for more. Returns how many rows got them.

    Args:
        rows: Rows of the page.
        tokenizer: Of the base.
        max_tokens: Room for tokens of all rows together.
        capacity: Tokens of a packed row, the last target among them; None: nobody says.
    """
    num_rows = 0
    for row in rows:
        conversation = conversation_of(row)
        if conversation is None:
            continue
        try:
            row["tokens"] = render_tokens(conversation, tokenizer, capacity)
        except DataError:  # its roles are out of order: it cannot be trained on, but shown
            continue
        num_rows += 1
        max_tokens -= len(row["tokens"]["sizes"])
        if max_tokens <= 0:
            break
    return num_rows


def render_tokens(conversation: Conversation, tokenizer: Tokenizer, capacity: int | None = None) -> dict[str, Any]:
    """A conversation as it is trained on: its text, the size of each token in it, and where the loss mask turns.

    Sizes count UTF-16 units, as JavaScript does; a token that ends within a character has the size 0. The mask is the
    lengths of its runs in tokens, the first one unsupervised. `kept` is how many tokens a packed row takes of one
    that is longer than it.
    """
    ids, mask = tokenizer.render(conversation)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(tokenizer.encoding.decode_single_token_bytes(token)) for token in ids]
    sizes = [len(piece) + (0 if piece.isascii() else sum(char > _LAST_OF_BMP for char in piece)) for piece in pieces]
    tokens: dict[str, Any] = {"text": "".join(pieces), "sizes": sizes, "mask": list(_run_lengths(mask))}
    if capacity is not None and len(ids) > capacity:
        tokens["kept"] = fit_turns(ids, capacity, tokenizer.assistant_end_id)
    return tokens


def mark_packed(rows: Sequence[dict[str, Any]], *, capacity: int, seed: int, window: int, keep_turns: bool) -> int:
    """Tell which conversations share a row of the first epoch, as `train` packs them: each gets its `packed`.

    One of which a row takes nothing gets none. Returns the number of packed rows.

    Args:
        rows: All that is trained on, with tokens, in the order of the data.
        capacity: Tokens of a packed row, the last target among them.
        seed: Of the run.
        window: Conversations packed together.
        keep_turns: Of overlong ones, the turns that fit are kept (`--overlong turns`).
    """
    kept = [row["tokens"].get("kept" if keep_turns else "none", len(row["tokens"]["sizes"])) for row in rows]
    lengths = np.array(kept, np.int64)
    fitting = np.flatnonzero((lengths > 0) & (lengths <= capacity))
    packed = pack_epoch(lengths[fitting], capacity, seed=seed, epoch=0, window=window)
    for number in range(len(packed)):
        for place, item in enumerate(packed.row(number).tolist()):
            rows[fitting[item]]["packed"] = [number, place]
    return len(packed)


def compress_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows in chunks of about 1 MiB of JSON, so that a browser shows the first ones before it has read the last."""
    chunks: list[str] = []
    lines: list[bytes] = []
    size = 0
    for row in rows:
        lines.append(orjson.dumps(row))
        size += len(lines[-1])
        if size >= _CHUNK_BYTES:
            chunks.append(_compress(lines))
            lines, size = [], 0
    if lines:
        chunks.append(_compress(lines))
    return chunks


def _compress(lines: Sequence[bytes]) -> str:
    return base64.b64encode(zlib.compress(b"[" + b",".join(lines) + b"]", 9)).decode()


def _run_lengths(mask: Sequence[int]) -> Iterator[int]:
    value, length = 0, 0
    for item in mask:
        if item != value:
            yield length
            value, length = item, 0
        length += 1
    yield length
