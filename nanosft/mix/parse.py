"""One line as a row. Pure.

Most lines are plain: messages of text, in the right order, nothing else. They take a short way that makes no
`Conversation`; every other line takes the long one, through `nanosft.conversation`. Both give the same row, or the long
one's error.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from nanosft.conversation import Conversation, Message, Role, parse_conversation, role_problem, to_line, to_list_line
from nanosft.errors import DataError
from nanosft.mix.recipe import Source

_ROLES: Final = ["user", "assistant"]
_LINE: Final = b'{"id":"%b","messages":%b,"meta":%b}\n'
_CANONICAL_KEYS: Final = frozenset({"id", "messages", "meta"})


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
        messages: Role and content of each message where all contents are text, else None.
        conversation: Where the long way made one, else None.
    """

    digest: bytes
    line: bytes
    texts: list[str]
    meta: bytes
    cell: bytes
    num_turns: int
    messages: list[dict[str, str]] | None = None
    conversation: Conversation | None = None

    def to_conversation(self) -> Conversation:
        """The row's conversation."""
        if self.conversation is not None:
            return self.conversation
        assert self.messages is not None
        messages = tuple(Message(cast("Role", item["role"]), item["content"]) for item in self.messages)
        return Conversation(messages, orjson.loads(self.meta))


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
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc
    if source.fields or source.roles:
        value = map_fields(value, source.fields, source.roles)
    elif source.format == "auto" and (row := _parse_plain(value, source.name, as_list=as_list)):
        return row
    conversation = parse_conversation(value, where=where, format=source.format)
    if problem := role_problem(conversation.messages):
        raise DataError(f"{where}: the conversation {problem}")
    conversation = conversation.with_meta(source=source.name)
    return Row(
        digest=bytes.fromhex(conversation.id),
        line=to_list_line(conversation) if as_list else to_line(conversation),
        texts=[message.text for message in conversation.messages],
        meta=orjson.dumps(dict(conversation.meta), option=orjson.OPT_SORT_KEYS),
        cell=_dump_cell(conversation.meta.get("cell")),
        num_turns=conversation.num_turns,
        conversation=conversation,
    )


def map_fields(value: Any, fields: Mapping[str, str], roles: Mapping[str, Role]) -> Any:
    """A foreign row under the names that the accepted formats have.

    Args:
        value: Decoded JSON.
        fields: Our name to the source's, for the row's keys and for its messages' alike.
        roles: The source's role names to ours.
    """
    if isinstance(value, list):
        return [map_fields(item, fields, roles) for item in value]
    if not isinstance(value, dict):
        return value
    ours = {theirs: our for our, theirs in fields.items()}
    mapped = {ours.get(key, key): item for key, item in value.items() if key in ours or key not in fields}
    for key in ("role", "from"):
        if isinstance(mapped.get(key), str):
            mapped[key] = roles.get(mapped[key], mapped[key])
    for key in ("messages", "conversations"):
        if isinstance(mapped.get(key), list):
            mapped[key] = map_fields(mapped[key], fields, roles)
    return mapped


def _parse_plain(value: Any, name: str, *, as_list: bool) -> Row | None:
    """The row of a plain line, or None where the line is not plain."""
    meta: Any = {}
    given = None
    if type(value) is dict and value.keys() <= _CANONICAL_KEYS:
        given, meta, value = value.get("id"), value.get("meta") or {}, value.get("messages")
    if type(value) is not list or type(meta) is not dict or (plain := _plain_messages(value)) is None:
        return None
    texts, messages = plain
    sha256 = hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS))
    if given is not None and given != sha256.hexdigest():
        return None
    meta_json = orjson.dumps({**meta, "source": name}, option=orjson.OPT_SORT_KEYS)
    body = orjson.dumps(messages)
    line = body + b"\n" if as_list else _LINE % (sha256.hexdigest().encode(), body, meta_json)
    num_turns = (len(messages) - (messages[0]["role"] == "system")) // 2
    return Row(sha256.digest(), line, texts, meta_json, _dump_cell(meta.get("cell")), num_turns, messages)


def _plain_messages(value: list[Any]) -> tuple[list[str], list[dict[str, str]]] | None:
    """Texts and messages, where they are in the right order and nothing else; or None.

    Written for speed: no loop of Python's own but the two that fetch.
    """
    try:
        roles = [item["role"] for item in value]
        texts = [item["content"] for item in value]
    except (TypeError, KeyError):
        return None
    num = len(roles)
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if len(turns) < 2 or turns != (_ROLES * (num // 2 + 1))[: len(turns)]:  # noqa: PLR2004
        return None
    if set(map(type, texts)) != {str} or sum(map(len, value)) != 2 * num:
        return None
    if list(map(next, map(iter, value))) != ["role"] * num:
        value = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return texts, value


def _dump_cell(cell: Any) -> bytes:
    return b"" if cell is None else orjson.dumps(cell, option=orjson.OPT_SORT_KEYS)
