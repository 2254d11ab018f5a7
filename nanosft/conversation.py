"""A conversation: every accepted format parses to one type, with one canonical JSON and one content id.

Pure: nothing here reads or writes. The formats:

    canonical   {"id": …, "messages": [{"role": …, "content": …}], "meta": {…}}
    list        [{"role": …, "content": …}, …]                            nanochat's CustomJSON task
    openai      {"messages": [{"role": …, "content": …}, …]}
    sharegpt    {"conversations": [{"from": "human" | "gpt" | …, "value": …}]}
    alpaca      {"instruction": …, "input": …, "output": …}

`content` is a string, or nanochat's list of parts `{"type": "text" | "python" | "python_output", "text": …}`; where a
user's or system message has nothing but text parts, as OpenAI's clients send them, they are joined. Top-level keys that
a foreign format adds are kept in `meta` under their own names (where its own `meta` has the key too, that one stays), a
foreign `id` as `source_id`. Other keys of a message, such as a name, are dropped.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, cast, get_args

import orjson

from nanosft.errors import DataError
from nanosft.foreign import quote

Role = Literal["system", "user", "assistant"]
PartType = Literal["text", "python", "python_output"]
Format = Literal["auto", "canonical", "list", "openai", "sharegpt", "alpaca"]

_ROLE_NAMES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_PART_TYPES: Final[tuple[PartType, ...]] = get_args(PartType)
_ID_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of an assistant's message: prose, a tool call's code, or what the tool printed."""

    type: PartType
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `content` is text, or parts when the assistant calls its Python tool."""

    role: Role
    content: str | tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text of the message, its parts joined with nothing between."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


@dataclass(frozen=True)
class Conversation:
    """Messages and what is known of them. Equal when messages and meta are equal.

    Attributes:
        messages: In order; see `role_problem` for the order that training accepts.
        meta: JSON values. nanosft's own keys: `row` (plan row), `cell`, `source`, `parents`.
    """

    messages: tuple[Message, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """SHA-256 (hex) of the messages in canonical JSON: sorted keys, no white space, UTF-8 (RFC 8785)."""
        return hashlib.sha256(orjson.dumps(to_dicts(self.messages), option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def num_turns(self) -> int:
        """User and assistant pairs, counted by the assistant's messages."""
        return sum(message.role == "assistant" for message in self.messages)

    def with_meta(self, **changes: Any) -> "Conversation":
        """A copy whose meta has `changes` on top."""
        return Conversation(self.messages, {**self.meta, **changes})


def to_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as JSON values: what stands under `messages` in a line."""
    return [
        {
            "role": message.role,
            "content": message.content
            if isinstance(message.content, str)
            else [{"type": part.type, "text": part.text} for part in message.content],
        }
        for message in messages
    ]


def to_line(conversation: Conversation) -> bytes:
    r"""One canonical JSONL line, `\n` included: id, messages, then meta with sorted keys.

    Raises:
        DataError: The meta has no JSON form, as when it is nested more than 254 deep, which can be read all the same.
    """
    messages = orjson.dumps(to_dicts(conversation.messages))
    try:
        meta = orjson.dumps(dict(conversation.meta), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as exc:
        raise DataError(f"conversation {conversation.id}: its meta cannot be written: {exc}") from exc
    return b'{"id":"%b","messages":%b,"meta":%b}\n' % (conversation.id.encode(), messages, meta)


def to_list_line(conversation: Conversation) -> bytes:
    r"""One line of nanochat's bare list form, `\n` included. It has no place for id and meta."""
    return orjson.dumps(to_dicts(conversation.messages), option=orjson.OPT_APPEND_NEWLINE)


def parse_line(line: bytes | str, *, where: str, format: Format = "auto") -> Conversation:  # noqa: A002 - the field's word
    """Parse one JSONL line.

    Args:
        line: JSON text, with or without a line end.
        where: What errors call it: the URI and line number, `s3://…:line 17`.
        format: The format the line must have; "auto" tells it by its keys.

    Raises:
        DataError: The line is not JSON, or no conversation of the format.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc
    return parse_conversation(value, where=where, format=format)


def parse_conversation(value: object, *, where: str, format: Format = "auto") -> Conversation:  # noqa: A002
    """Parse decoded JSON of any accepted format; shapes are checked here, the order of roles by `role_problem`.

    Raises:
        DataError: `value` has not the format, or a canonical line's id is not that of its messages.
    """
    found = _detect(value, where) if format == "auto" else format
    if found == "list":
        return Conversation(_messages(value, where))
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object in {found} format, found {_kind(value)}")
    if found == "alpaca":
        return _from_alpaca(value, where)
    if found == "sharegpt":
        return _from_sharegpt(value, where)
    return _from_messages(value, where, canonical=found == "canonical")


def role_problem(messages: Sequence[Message]) -> str | None:
    """What is wrong with the order of roles, or None.

    Right is: at most one system message, first; then user and assistant in turn, at least one of each;
    parts only in the assistant's messages.
    """
    start = 1 if messages and messages[0].role == "system" else 0
    turns = messages[start:]
    if len(turns) < 2:  # noqa: PLR2004 - a pair
        return "has no user message with an assistant's answer"
    for index, message in enumerate(turns):
        expected = "user" if index % 2 == 0 else "assistant"
        if message.role != expected:
            return f"message {index + start} is from {message.role!r} where {expected!r} is due"
        if message.role != "assistant" and not isinstance(message.content, str):
            return f"message {index + start} from {message.role!r} has parts; only the assistant's may"
    if start and not isinstance(messages[0].content, str):
        return "the system message has parts; only the assistant's may"
    return None


def _detect(value: object, where: str) -> Format:
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        if "messages" in value:
            is_canonical = isinstance(value.get("meta"), dict) and _is_content_id(value.get("id"))
            return "canonical" if is_canonical else "openai"
        if "conversations" in value:
            return "sharegpt"
        if "instruction" in value and "output" in value:
            return "alpaca"
        keys = ", ".join(quote(key) for key in sorted(value)[:8]) or "none"
        raise DataError(
            f"{where}: no known conversation format: its keys are {keys}; expected 'messages', 'conversations', "
            "'instruction' with 'output', or a JSON list"
        )
    raise DataError(f"{where}: expected a JSON object or list, found {_kind(value)}")


def _is_content_id(value: object) -> bool:
    return isinstance(value, str) and len(value) == _ID_LENGTH and all(c in "0123456789abcdef" for c in value)


def _from_messages(value: dict[str, Any], where: str, *, canonical: bool) -> Conversation:
    messages = _messages(value.get("messages"), where)
    if not canonical:
        return Conversation(messages, _foreign_meta(value, {"messages"}))
    if extras := value.keys() - {"id", "messages", "meta"}:
        raise DataError(f"{where}: unknown key {quote(min(extras))} beside id, messages and meta")
    meta = value.get("meta", {})
    if not isinstance(meta, dict):
        raise DataError(f"{where}: 'meta' must be an object, found {_kind(meta)}")
    conversation = Conversation(messages, meta)
    if value.get("id") != conversation.id:
        raise DataError(f"{where}: id {quote(value.get('id'))} is not the hash of its messages ({conversation.id})")
    return conversation


def _from_sharegpt(value: dict[str, Any], where: str) -> Conversation:
    messages = _messages(value.get("conversations"), where)
    if system := _text(value, "system", where):
        messages = (Message("system", system), *messages)
    return Conversation(messages, _foreign_meta(value, {"conversations", "system"}))


def _from_alpaca(value: dict[str, Any], where: str) -> Conversation:
    texts = {key: _text(value, key, where) for key in ("instruction", "input", "output", "system")}
    question = "\n\n".join(text for text in (texts["instruction"], texts["input"]) if text)
    messages = [Message("user", question), Message("assistant", texts["output"])]
    if texts["system"]:
        messages.insert(0, Message("system", texts["system"]))
    return Conversation(tuple(messages), _foreign_meta(value, texts.keys()))


def _text(value: dict[str, Any], key: str, where: str) -> str:
    """The text under a key; empty where the key is missing or null."""
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(f"{where}: {key!r} must be text, found {_kind(text)}")
    return text


def _foreign_meta(value: dict[str, Any], used: Collection[str]) -> dict[str, Any]:
    """What a foreign line says beside its messages."""
    meta = {key: item for key, item in value.items() if key not in used and key != "id"}
    own = meta.get("meta")
    if own is None or isinstance(own, dict):
        meta.pop("meta", None)
        meta |= own or {}
    if value.get("id") is not None:
        meta["source_id"] = value["id"]
    return meta


def _messages(value: object, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where}: messages must be a list, found {_kind(value)}")
    found = []
    for index, item in enumerate(value):
        # Nearly all messages are plain; to name each one's place for an error that does not come would double the time.
        try:
            if len(item) == 2:  # noqa: PLR2004 - role and content alone
                content = item["content"]
                if type(content) is str:
                    found.append(Message(_ROLE_NAMES[item["role"]], content))
                    continue
        except (KeyError, TypeError):
            pass
        found.append(_message(item, f"{where}: message {index}"))
    return tuple(found)


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be an object, found {_kind(value)}")
    role_key, content_key = ("from", "value") if "from" in value else ("role", "content")
    name = value.get(role_key)
    role = _ROLE_NAMES.get(name) if isinstance(name, str) else None
    if role is None:
        raise DataError(f"{where} has {role_key} {quote(name)}; known are {', '.join(_ROLE_NAMES)}")
    if content_key not in value:
        raise DataError(f"{where} has no {content_key!r}")
    content = value[content_key]
    if isinstance(content, str):
        return Message(role, content)
    if isinstance(content, list) and content:
        parts = tuple(_part(item, f"{where}, part {index}") for index, item in enumerate(content))
        if role != "assistant" and all(part.type == "text" for part in parts):
            return Message(role, "".join(part.text for part in parts))
        return Message(role, parts)
    raise DataError(f"{where}: {content_key} must be text or a list of parts, found {_kind(content)}")


def _part(value: object, where: str) -> Part:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise DataError(f"{where} must be an object with a 'type' and a 'text'")
    if value.get("type") not in _PART_TYPES:
        raise DataError(f"{where} has type {quote(value.get('type'))}; known are {', '.join(sorted(_PART_TYPES))}")
    return Part(cast("PartType", value["type"]), value["text"])


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
