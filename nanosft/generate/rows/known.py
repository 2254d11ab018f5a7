"""Conversations that earlier runs accepted, put into the index of near-duplicates while the first rows are asked for.

Signing them is most of what a restart would take: 47 µs a row in batches, and 850 one by one.
"""

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from nanosft.conversation import parse_conversation
from nanosft.dedup import NearDuplicateIndex, join_messages
from nanosft.errors import DataError

ReadRecords = Callable[[str], Iterable[tuple[str, dict[str, Any]]]]
"""The records of a part by its key, each with its URI and line number."""


@asynccontextmanager
async def filling(
    index: NearDuplicateIndex | None, read_records: ReadRecords, keys: Sequence[str], rows: range
) -> AsyncIterator[Future[None] | None]:
    """Add the conversations of parts to an index, in a thread of its own; it is stopped where the context ends.

    Args:
        index: Left alone by everybody else until the future is done; None: nothing is to be filled.
        read_records: Reads a part.
        keys: The parts.
        rows: Rows of the shard: others are not compared with.
    """
    if index is None:
        yield None
        return
    stop = threading.Event()

    def fill() -> None:
        for key in keys:
            if stop.is_set():
                return
            found = read_records(key)
            if texts := [_join(record, where) for where, record in found if record["meta"]["row"] in rows]:
                index.add_all(texts)

    with ThreadPoolExecutor(1, thread_name_prefix="near-duplicates") as pool:
        try:
            yield pool.submit(fill)
        finally:
            stop.set()


def _join(record: Mapping[str, Any], where: str) -> str:
    """A record's messages as one text."""
    try:
        contents = [message["content"] for message in record["messages"]]
        return join_messages([text if isinstance(text, str) else _join_parts(text) for text in contents])
    except (KeyError, TypeError) as exc:
        parse_conversation(dict(record), where=where, format="canonical")
        raise DataError(f"{where}: not a conversation") from exc


def _join_parts(parts: Sequence[Mapping[str, str]]) -> str:
    return "".join(part["text"] for part in parts)
