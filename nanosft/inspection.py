"""Figures of a set of conversations: lengths, turns, languages, openings, duplicates, and samples by a seed."""

import hashlib
import heapq
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from rich.text import Text

from nanosft.conversation import Conversation
from nanosft.dedup import NearDuplicateIndex, normalize_text, normalize_words
from nanosft.foreign import printable
from nanosft.nanochat.tokenizer import Tokenizer

BINS_CHARS: Final = (0, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
_MAX_COMPARED: Final = 200_000
"""Rows that near-duplicates are looked for among: about 120 MB."""
_MAX_OPENINGS: Final = 200_000
_OPENING_CHARS: Final = 120
_STOP_WORDS: Final = {
    "English": "the and you is that what are how for with",
    "German": "und der die das ich nicht ist sie wie auf",
    "French": "les des est vous que une dans pour pas quel",
    "Spanish": "que los las una por con para como qué es",
    "Portuguese": "não uma você que com para como são está dos",
    "Italian": "che sono una per non come cosa della il di",
    "Dutch": "het een van ik niet wat je dat zijn voor",
    "Swedish": "och att det är jag inte som vad för på",
    "Turkish": "bir ve ne bu için çok mi değil ben sen",
    "Indonesian": "yang dan apa saya tidak itu dengan untuk adalah kamu",
}
_LANGUAGES: Final = {
    word: [name for name, listed in _STOP_WORDS.items() if word in listed.split()]
    for word in " ".join(_STOP_WORDS.values()).split()
}


@dataclass
class Inspection:
    """Figures of a set, taken row by row.

    Attributes:
        num_rows: Conversations.
        num_chars: In all messages.
        num_tokens: As rendered; 0 without a tokenizer.
        num_supervised: Tokens that are trained on; 0 without a tokenizer.
        lengths: Conversations by the lower bound of their bin of characters.
        turns: Conversations by their number of turns.
        languages: Conversations by the language guessed from script and frequent words.
        sources: Conversations by `meta.source`.
        openings: First user messages without case and punctuation.
        num_exact: Rows whose normalized text came before.
        num_near: Rows that nearly equal an earlier one, among the first 200,000.
        samples: Conversations drawn by the seed.
    """

    num_rows: int = 0
    num_chars: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    num_with_system: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    openings: Counter[str] = field(default_factory=Counter)
    num_exact: int = 0
    num_near: int = 0
    samples: list[Conversation] = field(default_factory=list)


def inspect_conversations(
    conversations: Iterable[Conversation], *, num_samples: int = 0, seed: int = 0, tokenizer: Tokenizer | None = None
) -> Inspection:
    """Take the figures of conversations, each looked at once. Memory: 8 bytes a row and the first 200,000 compared."""
    found = Inspection()
    seen: set[int] = set()
    index = NearDuplicateIndex()
    drawn: list[tuple[int, int, Conversation]] = []
    for conversation in conversations:
        count_row(found, conversation, tokenizer)
        text = normalize_text(conversation)
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        if key in seen:
            found.num_exact += 1
        elif len(index) < _MAX_COMPARED:
            found.num_near += index.find_or_add(text) is not None
        seen.add(key)
        draw = int.from_bytes(hashlib.sha256(f"{seed}/{conversation.id}".encode()).digest()[:8], "big")
        item = (-draw, -found.num_rows, conversation)
        if len(drawn) < num_samples:
            heapq.heappush(drawn, item)
        elif drawn:
            heapq.heappushpop(drawn, item)
    found.samples = [conversation for _, _, conversation in sorted(drawn, key=lambda item: item[:2], reverse=True)]
    return found


def render_message(role: str, text: str, *, style: str = "") -> Text:
    """One message as a person reads it, whatever its text holds."""
    return Text.assemble((f"{role}: ", f"bold {style}"), (printable(text), style))


def guess_language(text: str) -> str:
    """The language of a text by its script, and in Latin script by frequent words; "other" where none shows."""
    scripts = Counter(_find_script(letter) for letter in text[:400] if letter.isalpha())
    if not scripts:
        return "none"
    script, _ = scripts.most_common(1)[0]
    if {"HIRAGANA", "KATAKANA"} & scripts.keys():
        return "Japanese"
    if script != "LATIN":
        return {"CJK": "Chinese", "HANGUL": "Korean"}.get(script, script.capitalize())
    scores = dict.fromkeys(_STOP_WORDS, 0)
    for word in normalize_words(text[:2000]).split():
        for name in _LANGUAGES.get(word, ()):
            scores[name] += 1
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else "other"


@lru_cache(maxsize=4096)
def _find_script(letter: str) -> str:
    """The first word of a letter's name, which is its script's."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def count_row(found: Inspection, conversation: Conversation, tokenizer: Tokenizer | None = None) -> None:
    """Count one conversation; duplicates and samples are not looked at."""
    texts = [message.text for message in conversation.messages]
    num_chars = sum(map(len, texts))
    found.num_rows += 1
    found.num_chars += num_chars
    found.num_with_system += conversation.messages[0].role == "system"
    found.lengths[max(low for low in BINS_CHARS if low <= num_chars)] += 1
    found.turns[conversation.num_turns] += 1
    found.languages[guess_language(" ".join(texts))] += 1
    if isinstance(source := conversation.meta.get("source"), str):
        found.sources[source] += 1
    opening = next(message.text for message in conversation.messages if message.role == "user")
    words = (normalize_words(opening) or opening)[:_OPENING_CHARS]
    if words in found.openings or len(found.openings) < _MAX_OPENINGS:
        found.openings[words] += 1
    if tokenizer is not None:
        ids, mask = tokenizer.render(conversation)
        found.num_tokens += len(ids)
        found.num_supervised += sum(mask)
