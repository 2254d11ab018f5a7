"""Conversations in and out of the store.

for conversation in read_conversations("s3://bucket/mix"):
...
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from nanosft.conversation import Conversation, Format, parse_line, role_problem, to_line
from nanosft.data.lines import iter_lines
from nanosft.data.objects import DataObject, list_data_objects
from nanosft.errors import DataError
from nanosft.manifest import ManifestObject
from nanosft.store import Store, Writer


def read_conversations(uri: str, *, format: Format = "auto") -> Iterator[Conversation]:  # noqa: A002 - the field's word
    """Every conversation that a URI of data means, in the order of objects and lines, streamed.

    Args:
        uri: A file, a prefix or a pattern; see `objects`.
        format: The format each line must have; "auto" tells it line by line.

    Raises:
        DataError: Nothing is there, a run is unfinished, a line is no conversation that can be trained on (named
            `uri:line N`), or an object is not what its manifest says, which only its end can tell.
    """
    for item in list_data_objects(uri):
        yield from read_object(item, format=format)


def read_object(item: DataObject, *, format: Format = "auto") -> Iterator[Conversation]:  # noqa: A002
    """Every conversation of one object, streamed; raises as `read_conversations` does."""
    for number, line in iter_lines(item):
        yield parse_trainable(line, where=item.place(number), format=format)


def parse_trainable(line: bytes, *, where: str, format: Format = "auto") -> Conversation:  # noqa: A002
    """`parse_line` of a conversation that can be trained on; raises DataError for any other."""
    conversation = parse_line(line, where=where, format=format)
    if problem := role_problem(conversation.messages):
        raise DataError(f"{where}: the conversation {problem}")
    return conversation


class ShardWriter:
    """Writes conversations as lines of one object, counting as it goes. Leaving on an exception puts nothing.

    Args:
        store: Where to.
        key: The object's key, as the manifest will name it.
        encode: A conversation as a line with its end: `to_line` (canonical) or `to_list_line` (nanochat's).
    """

    def __init__(self, store: Store, key: str, *, encode: Callable[[Conversation], bytes] = to_line) -> None:
        self._key, self._encode = key, encode
        self._context = store.open_write(key)
        self._num_rows = 0
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        self._writer = self._context.__enter__()
        return self

    def write(self, conversation: Conversation) -> None:
        """Append one conversation."""
        self.write_line(self._encode(conversation))

    def write_line(self, line: bytes) -> None:
        r"""Append one line that is encoded already, `\n` included."""
        assert self._writer is not None, "enter the context first"
        self._writer.write(line)
        self._num_rows += 1

    @property
    def num_rows(self) -> int:
        """Lines written so far."""
        return self._num_rows

    @property
    def object(self) -> ManifestObject:
        """What was put; only after a normal exit of the context."""
        assert self._writer is not None, "enter the context first"
        written = self._writer.written
        return ManifestObject(
            key=self._key, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=self._num_rows
        )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._context.__exit__(kind, value, at)
