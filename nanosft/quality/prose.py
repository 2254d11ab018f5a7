"""What a message says outside of code: the text that the gates read. Pure."""

import re
from dataclasses import dataclass
from typing import Final

from nanosft.conversation import Conversation, Message, Role

_CODE: Final = re.compile(r"^(```|~~~).*?(?:^\1[^\S\n]*$|\Z)|`[^`\n]+`", re.DOTALL | re.MULTILINE)


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

    def cite(self) -> str:
        """Its beginning on one line, for a verdict."""
        return " ".join(self.text[:100].split())


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


def _prose(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content if part.type == "text")
