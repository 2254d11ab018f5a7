"""Conversations as others read them: Parquet shards with a `messages` column, or nanochat's lists in JSONL."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from nanosft.conversation import Conversation, to_dicts, to_list_line
from nanosft.data import DataObject, ShardWriter, read_object
from nanosft.manifest import ManifestObject
from nanosft.nanochat.tokenizer import join_system
from nanosft.store import Store

SHARD_ROWS: Final = 50_000
_GROUP_ROWS: Final = 1_000


def split_of(item: DataObject) -> str:
    """The split that an object belongs to: "validation" for the `val-…` objects of a mixture, else "train"."""
    return "validation" if item.key.rpartition("/")[2].startswith("val-") else "train"


def write_parquet(store: Store, items: list[DataObject], *, shard_rows: int = SHARD_ROWS) -> Iterator[ManifestObject]:
    """Put `data/<split>-<number>.parquet`, at most `shard_rows` rows each; yields what was put.

    Where a conversation calls Python, the content of every message is a list of parts; else it is text.

    Raises:
        DataError: As `read_object`.
    """
    has_parts = any(
        not isinstance(message.content, str)
        for item in items
        for conversation in read_object(item)
        for message in conversation.messages
    )
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    content = pa.list_(part) if has_parts else pa.string()
    message = pa.struct([("role", pa.string()), ("content", content)])
    schema = pa.schema([("id", pa.string()), ("messages", pa.list_(message)), ("meta", pa.string())])
    for split in ("train", "validation"):
        own = [item for item in items if split_of(item) == split]
        rows = (_to_row(conversation, has_parts=has_parts) for item in own for conversation in read_object(item))
        number = 0
        row = next(rows, None)
        while row is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "shard.parquet"
                num_rows, row = _write_shard(path, schema, row, rows, shard_rows)
                written = store.write_file(f"data/{split}-{number:05d}.parquet", path)
            yield ManifestObject(
                key=written.key, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=num_rows
            )
            number += 1


def write_lists(store: Store, items: list[DataObject]) -> tuple[list[ManifestObject], int]:
    """Put `<split>.jsonl` as nanochat's CustomJSON task reads it, and count what that has no form for.

    It has text alone, from user and assistant: a leading system message is joined to the first user message, as
    rendering does, and conversations that call Python are left out.

    Raises:
        DataError: As `read_object`.
    """
    objects = []
    num_left_out = 0
    for split in ("train", "validation"):
        own = [item for item in items if split_of(item) == split]
        if not own:
            continue
        with ShardWriter(store, f"{split}.jsonl", encode=to_list_line) as writer:
            for item in own:
                for conversation in read_object(item):
                    if all(isinstance(message.content, str) for message in conversation.messages):
                        writer.write(replace(conversation, messages=tuple(join_system(conversation.messages))))
                    else:
                        num_left_out += 1
        objects.append(writer.object)
    return objects, num_left_out


def _write_shard(
    path: Path, schema: pa.Schema, row: dict[str, Any] | None, rows: Iterator[dict[str, Any]], limit: int
) -> tuple[int, dict[str, Any] | None]:
    """Write at most `limit` rows, the first of them `row`; how many there were, and the row after them."""
    num_rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while row is not None and num_rows < limit:
            group = [row]
            row = None
            while (row := next(rows, None)) is not None and len(group) < min(_GROUP_ROWS, limit - num_rows):
                group.append(row)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            num_rows += len(group)
    return num_rows, row


def _to_row(conversation: Conversation, *, has_parts: bool) -> dict[str, Any]:
    messages = to_dicts(conversation.messages)
    if has_parts:
        for message in messages:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
    meta = orjson.dumps(dict(conversation.meta), option=orjson.OPT_SORT_KEYS).decode()
    return {"id": conversation.id, "messages": messages, "meta": meta}
