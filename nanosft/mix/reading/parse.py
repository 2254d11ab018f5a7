"""One line as a row. Pure.

Most lines are plain: messages of text, in the right order, nothing else. They take a short way that makes no
`Conversation`; every other line takes the long one, through `nanosft.conversation`. Both give the same row, or the long
one's error.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import orjson

from nanosft.conversation import Conversation, Message, Role, parse_conversation, role_problem, to_line, to_list_line
from nanosft.errors import DataError
from nanosft.mix.recipe import Source

_ROLES: Final = ["user", "assistant"]
_LINE: Final = b'{"id":"%b","messages":%b,"meta":%b}\n'
_MESSAGE_KEYS: Final = frozenset({"role", "from", "content", "value"})
_NO_META: Final = msgspec.Raw(b"null")


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str


class _PlainLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_PlainMessage]
    id: str | None = None
    meta: msgspec.Raw = _NO_META


_decode: Final = msgspec.json.Decoder(list[_PlainMessage] | _PlainLine).decode
_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class Row:
    """A parsed row.

    Attributes:
        digest: Its id, as 32 bytes.
        line: As it is put out, line end included.
        texts: Of each message.
        meta: JSON of its meta, with `source` set to the source's name.
        cell: Its plan cell as JSON, empty without one.
        num_turns: User and assistant pairs.
        messages: Its messages where it is plain, else None.
        conversation: Where the long way made one, else None.
    """

    digest: bytes
    line: bytes
    texts: list[str]
    meta: bytes
    cell: bytes
    num_turns: int
    messages: list[_PlainMessage] | None = None
    conversation: Conversation | None = None

    def to_conversation(self) -> Conversation:
        """The row's conversation."""
        if self.conversation is not None:
            return self.conversation
        assert self.messages is not None
        return Conversation(tuple(Message(item.role, item.content) for item in self.messages), orjson.loads(self.meta))


def parse_row(line: bytes, source: Source, *, where: str, as_list: bool) -> Row:
    """Parse one line of a source.

    Args:
        line: JSON text.
        source: Whose format, fields and roles hold, and whose name the row gets.
        where: What errors call the line.
        as_list: Put it out in nanochat's bare list form, not as a canonical line.

    Raises:
        DataError: It is no conversation that can be trained on.
    """
    may_be_plain = source.format == "auto" and not source.fields and not source.roles
    if may_be_plain and (row := _parse_plain(line, source.name, as_list=as_list)):
        return row
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc
    if source.fields or source.roles:
        value = map_fields(value, source.fields, source.roles)
    conversation = parse_conversation(value, where=where, format=source.format)
    if problem := role_problem(conversation.messages):
        raise DataError(f"{where}: the conversation {problem}")
    conversation = conversation.with_meta(source=source.name)
    try:
        meta, cell = _dump(dict(conversation.meta)), _dump_cell(conversation.meta)
    except orjson.JSONEncodeError as exc:
        raise DataError(f"{where}: its meta cannot be written: {exc}") from exc
    return Row(
        digest=bytes.fromhex(conversation.id),
        line=to_list_line(conversation) if as_list else to_line(conversation),
        texts=[message.text for message in conversation.messages],
        meta=meta,
        cell=cell,
        num_turns=conversation.num_turns,
        conversation=conversation,
    )


def map_fields(value: Any, fields: Mapping[str, str], roles: Mapping[str, Role]) -> Any:
    """A foreign row under the names that the accepted formats have.

    Args:
        value: Decoded JSON.
        fields: Our name to the source's, of the row's keys and of its messages'.
        roles: The source's role names to ours.
    """
    of_messages = {our: theirs for our, theirs in fields.items() if our in _MESSAGE_KEYS}
    if isinstance(value, list):
        return [_map_message(item, of_messages, roles) for item in value]
    if not isinstance(value, dict):
        return value
    mapped = _rename(value, {our: theirs for our, theirs in fields.items() if our not in _MESSAGE_KEYS})
    for key in ("messages", "conversations"):
        if isinstance(mapped.get(key), list):
            mapped[key] = [_map_message(item, of_messages, roles) for item in mapped[key]]
    return mapped


def _map_message(value: Any, fields: Mapping[str, str], roles: Mapping[str, Role]) -> Any:
    if not isinstance(value, dict):
        return value
    mapped = _rename(value, fields)
    for key in ("role", "from"):
        if isinstance(mapped.get(key), str):
            mapped[key] = roles.get(mapped[key], mapped[key])
    return mapped


def _rename(value: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    ours = {theirs: our for our, theirs in fields.items()}
    return {ours.get(key, key): item for key, item in value.items() if key in ours or key not in fields}


def _parse_plain(line: bytes, name: str, *, as_list: bool) -> Row | None:
    """The row of a plain line, or None where the line is not plain."""
    try:
        value = _decode(line)
        messages, given, raw = (
            (value, None, _NO_META) if isinstance(value, list) else (value.messages, value.id, value.meta)
        )
        meta = None if raw is _NO_META else orjson.loads(memoryview(raw))
    except (ValueError, RecursionError):  # of every kind; the long way says what is wrong
        return None
    roles = [item.role for item in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns[:2] != _ROLES or turns != (_ROLES * (len(turns) // 2 + 1))[: len(turns)]:
        return None
    digest = hashlib.sha256(_encode_sorted(messages)).digest()
    if given is not None and (meta is None or given != digest.hex()):
        return None
    meta_json, cell = _meta_of_source(name), b""
    if meta is not None:
        if type(meta) is not dict:
            return None
        try:
            meta_json, cell = _dump({**meta, "source": name}), _dump_cell(meta)
        except orjson.JSONEncodeError:
            return None
    body = _encode(messages)
    return Row(
        digest=digest,
        line=body + b"\n" if as_list else _LINE % (digest.hex().encode(), body, meta_json),
        texts=[item.content for item in messages],
        meta=meta_json,
        cell=cell,
        num_turns=len(turns) // 2,
        messages=messages,
    )


@lru_cache
def _meta_of_source(name: str) -> bytes:
    return orjson.dumps({"source": name})


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _dump_cell(meta: Mapping[str, Any]) -> bytes:
    return b"" if meta.get("cell") is None else _dump(meta["cell"])
