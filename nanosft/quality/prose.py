"""What a message says outside of code: the text that the gates read. Pure."""

import re
from dataclasses import dataclass
from typing import Final

from nanosft.conversation import Conversation, Message, Role

_CODE: Final = re.compile(r"^(```|~~~).*?(?:^\1[^\S\n]*$|\Z)|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)*_]*\s+|\n+")


@dataclass(frozen=True, slots=True)
class Prose:
    """One message as the gates read it.

    Attributes:
        index: The message's place in the conversation, from 0.
        role: Whose it is.
        text: Its text; where it has parts, that of its text parts.
        plain: `text` with all code in it blanked, offsets unchanged.
    """

    index: int
    role: Role
    text: str
    plain: str


def read_prose(conversation: Conversation) -> tuple[Prose, ...]:
    """The prose of each message, in order."""
    found = []
    for index, message in enumerate(conversation.messages):
        text = _prose(message)
        found.append(Prose(index, message.role, text, blank_code(text)))
    return tuple(found)


def blank_code(text: str) -> str:
    """The text with fenced blocks and `inline code` replaced by spaces of the same length; line ends stay."""
    if "`" not in text and "~~~" not in text:
        return text
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def split_sentences(text: str) -> list[str]:
    """Sentences and lines of a text, stripped, in order."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence and not sentence.isspace()]


def _prose(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content if part.type == "text")
