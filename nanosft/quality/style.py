"""The style gate: ASCII policy, length bounds, banned phrases. Pure."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from nanosft.conversation import Conversation, Message, Part
from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect, excerpt_of

AsciiPolicy = Literal["keep", "fold", "reject"]

BANNED_PHRASES: Final = (
    "as an ai language model",
    "as a large language model, i",
    "as an ai model, i",
    "as an ai assistant, i cannot",
    "as an artificial intelligence language model",
    "i'm sorry, but i cannot assist with",
    "i'm sorry, but i can't assist with",
    "i cannot fulfill that request",
    "i cannot fulfill your request",
    "my knowledge cutoff",
    "as of my last update",
    "as of my last knowledge update",
    "here is the conversation",
    "here's the conversation",
    "sure, here is a conversation",
)
"""What chat models say of themselves or of the task, and no assistant with a voice of its own does."""

_FOLDS: Final = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'", "\u02bc": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": " - ", "\u2015": " - ", "\u2212": "-",
        "\u2026": "...", "\u2022": "-", "\u00b7": "-", "\u25cf": "-", "\u2192": "->", "\u2190": "<-", "\u21d2": "=>",
        "\u00d7": "x", "\u00f7": "/", "\u2248": "~", "\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u00b1": "+/-",
        "\u00df": "ss", "\u1e9e": "SS", "\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE",
        "\u00f8": "o", "\u00d8": "O", "\u0142": "l", "\u0141": "L", "\u0111": "d", "\u0110": "D", "\u0131": "i",
        "\u00a9": "(c)", "\u00ae": "(R)", "\u2122": "(TM)", "\u20ac": "EUR ", "\u00a3": "GBP ", "\u00b0": " degrees ",
    }
)  # fmt: skip
_DASH_SPACES: Final = re.compile(r"(?<=\S) +- +(?=\S)")
_DROPPED_CATEGORIES: Final = frozenset({"So", "Sk", "Cf", "Mn", "Me", "Cs", "Co"})
_MAX_LONG_MESSAGES: Final = 10
"""Messages of the greatest length that make a conversation of the greatest length."""
_QUOTES: Final = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})


def fold_conversation(conversation: Conversation) -> Conversation:
    """The conversation with every text folded to ASCII as far as `fold_text` can."""
    if all(message.text.isascii() for message in conversation.messages):
        return conversation
    return Conversation(tuple(_fold_message(message) for message in conversation.messages), conversation.meta)


def fold_text(text: str) -> str:
    """Text in ASCII where that loses no letter.

    Quotes, dashes and the like become their ASCII forms, accents go, emoji and invisible characters are dropped.
    Letters of other scripts stay, for the gate to see.
    """
    if text.isascii():
        return text
    plain = _DASH_SPACES.sub(" - ", text.translate(_FOLDS))
    decomposed = unicodedata.normalize("NFKD", plain)
    folded = "".join(c for c in decomposed if c.isascii() or unicodedata.category(c) not in _DROPPED_CATEGORIES)
    return re.sub(r"(?<=\S)  +(?=\S)", " ", folded).strip(" ") if folded != plain else folded


def find_style_defects(
    messages: Sequence[Prose],
    *,
    ascii_policy: AsciiPolicy,
    min_chars: int,
    banned_phrases: tuple[str, ...],
) -> Iterator[Defect]:
    """Characters that the policy refuses, answers too short, banned phrases.

    Args:
        messages: The conversation's prose, folded before where the policy is to fold.
        ascii_policy: "reject" refuses any character beyond ASCII; "fold" what folding left; "keep" none.
        min_chars: Characters that an answer has at least.
        banned_phrases: Phrases that no answer may hold; case does not matter.
    """
    for message in messages:
        if ascii_policy != "keep" and not message.text.isascii():
            yield _non_ascii(message)
        if message.role == "assistant":
            size = len(message.text)
            if 0 < size < min_chars:
                detail = f"the answer has {size} characters, less than {min_chars}"
                yield Defect("style", "too_short", detail, message.text, message.index)
            folded = message.text.translate(_QUOTES).lower()
            for phrase in banned_phrases:
                if (at := folded.find(phrase.lower())) >= 0 and not folded[max(0, at - 1) : at].isalnum():
                    excerpt = excerpt_of(message.text, at, at + len(phrase))
                    detail = f"the answer uses a banned phrase: {phrase!r}"
                    yield Defect("style", "banned_phrase", detail, excerpt, message.index)
                    break


def find_overlong(messages: Sequence[Prose], max_chars: int) -> Iterator[Defect]:
    """Messages of more than `max_chars` characters, and a conversation of more than ten times as many."""
    sizes = [len(message.text) for message in messages]
    for message, size in zip(messages, sizes, strict=True):
        if size > max_chars:
            detail = f"the message has {size} characters, more than {max_chars}"
            yield Defect("style", "too_long", detail, index=message.index)
    if (total := sum(sizes)) > _MAX_LONG_MESSAGES * max_chars:
        detail = f"the conversation has {total} characters, more than {_MAX_LONG_MESSAGES * max_chars}"
        yield Defect("style", "too_long", detail)


def _non_ascii(message: Prose) -> Defect:
    at = next(place for place, char in enumerate(message.text) if not char.isascii())
    char = message.text[at]
    name = unicodedata.name(char, f"U+{ord(char):04X}")
    return Defect(
        "style", "non_ascii", f"a character is not ASCII: {name}", excerpt_of(message.text, at, at + 1), message.index
    )


def _fold_message(message: Message) -> Message:
    if isinstance(message.content, str):
        return Message(message.role, fold_text(message.content))
    return Message(message.role, tuple(Part(part.type, fold_text(part.text)) for part in message.content))
