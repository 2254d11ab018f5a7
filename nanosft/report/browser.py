"""Rows as the data browser has them: near-duplicates in clusters, tokens with their loss mask, all compressed."""

import base64
import codecs
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.errors import DataError
from nanosft.nanochat.tokenizer import Tokenizer
from nanosft.report.blocks import Browser
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


def add_tokens(rows: Sequence[dict[str, Any]], tokenizer: Tokenizer, max_tokens: int) -> int:
    """Give rows their `tokens`, as long as there is room for more. Returns how many rows got them."""
    num_rows = 0
    for row in rows:
        conversation = conversation_of(row)
        if conversation is None:
            continue
        try:
            row["tokens"] = render_tokens(conversation, tokenizer)
        except DataError:  # its roles are out of order: it cannot be trained on, but shown
            continue
        num_rows += 1
        max_tokens -= len(row["tokens"]["sizes"])
        if max_tokens <= 0:
            break
    return num_rows


def render_tokens(conversation: Conversation, tokenizer: Tokenizer) -> dict[str, Any]:
    """A conversation as it is trained on: its text, the size of each token in it, and where the loss mask turns.

    Sizes count UTF-16 units, as JavaScript does; a token that ends within a character has the size 0. The mask is the
    lengths of its runs in tokens, the first one unsupervised.
    """
    ids, mask = tokenizer.render(conversation)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(tokenizer.encoding.decode_single_token_bytes(token)) for token in ids]
    sizes = [len(piece) + (0 if piece.isascii() else sum(char > _LAST_OF_BMP for char in piece)) for piece in pieces]
    return {"text": "".join(pieces), "sizes": sizes, "mask": list(_run_lengths(mask))}


def pack_rows(rows: Sequence[dict[str, Any]], note: str) -> Browser:
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
    return Browser(chunks, len(rows), note)


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
