"""`nanosft inspect`: what a set of conversations is like, in figures and samples."""

import hashlib
import heapq
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanosft.conversation import Conversation
from nanosft.data import list_data_objects, read_object
from nanosft.dedup import NearDuplicateIndex, normalize_text, normalize_words
from nanosft.nanochat.tokenizer import Tokenizer, load_tokenizer
from nanosft.progress import make_result_console
from nanosft.settings.audit import InspectSettings

_BINS_CHARS: Final = (0, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
_BAR_WIDTH: Final = 30
_SAMPLE_CHARS: Final = 300
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
        _count(found, conversation, tokenizer)
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


def guess_language(text: str) -> str:
    """The language of a text by its script, and in Latin script by frequent words; "other" where none shows."""
    scripts = Counter(unicodedata.name(letter, "?").partition(" ")[0] for letter in text[:400] if letter.isalpha())
    if not scripts:
        return "none"
    script, _ = scripts.most_common(1)[0]
    if {"HIRAGANA", "KATAKANA"} & scripts.keys():
        return "Japanese"
    if script != "LATIN":
        return {"CJK": "Chinese", "HANGUL": "Korean"}.get(script, script.capitalize())
    words = Counter(normalize_words(text[:2000]).split())
    scores = {name: sum(words[word] for word in listed.split()) for name, listed in _STOP_WORDS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else "other"


def run_inspect(settings: InspectSettings) -> None:
    """Print what a data set is like.

    Raises:
        DataError: Nothing is there, or a line is no conversation.
    """
    objects = list_data_objects(settings.uri)
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    rows = (row for item in objects for row in read_object(item, format=settings.format))
    found = inspect_conversations(rows, num_samples=settings.samples, seed=settings.seed, tokenizer=tokenizer)
    if settings.json_output:
        print(json.dumps(to_json(found, num_openings=settings.openings), ensure_ascii=False))  # noqa: T201 - the result
        return
    show(make_result_console(), found, uri=settings.uri, num_objects=len(objects), num_openings=settings.openings)


def to_json(found: Inspection, *, num_openings: int) -> dict[str, Any]:
    """The figures as JSON values."""
    return {
        "rows": found.num_rows,
        "characters": found.num_chars,
        "tokens": found.num_tokens,
        "supervised_tokens": found.num_supervised,
        "with_system_message": found.num_with_system,
        "lengths": {str(low): found.lengths[low] for low in _BINS_CHARS},
        "turns": {str(num): count for num, count in sorted(found.turns.items())},
        "languages": dict(found.languages.most_common()),
        "sources": dict(found.sources.most_common()),
        "distinct_openings": len(found.openings),
        "openings": dict(found.openings.most_common(num_openings)),
        "exact_duplicates": found.num_exact,
        "near_duplicates": found.num_near,
        "samples": [[{"role": m.role, "content": m.text} for m in item.messages] for item in found.samples],
    }


def show(console: Console, found: Inspection, *, uri: str, num_objects: int, num_openings: int) -> None:
    """Print the figures as tables."""
    rows = max(found.num_rows, 1)
    console.print(f"[bold]{found.num_rows:,}[/] conversations in {num_objects:,} objects at ", end="")
    console.print(uri, markup=False, highlight=False)
    console.print(f"{found.num_chars:,} characters, {found.num_chars / rows:,.0f} a conversation", highlight=False)
    if found.num_tokens:
        console.print(
            f"{found.num_tokens:,} tokens, {found.num_supervised / found.num_tokens:.1%} supervised", highlight=False
        )
    console.print(
        f"duplicates: {found.num_exact:,} exact ({found.num_exact / rows:.1%}), {found.num_near:,} near "
        f"({found.num_near / rows:.1%}); distinct openings: {len(found.openings) / rows:.1%} of the rows",
        highlight=False,
    )
    for title, counts in (
        ("characters", {f"{low:,}+": found.lengths[low] for low in _BINS_CHARS}),
        ("turns", {str(num): found.turns[num] for num in sorted(found.turns)[:20]}),
        ("language (guessed)", dict(found.languages.most_common(12))),
        ("source", dict(found.sources.most_common(20))),
    ):
        if counts:
            console.print(_make_histogram(title, counts, rows))
    if num_openings:
        console.print(_make_histogram("opening", dict(found.openings.most_common(num_openings)), rows))
    for conversation in found.samples:
        console.rule(conversation.id[:12])
        for message in conversation.messages:
            text = message.text if len(message.text) <= _SAMPLE_CHARS else message.text[:_SAMPLE_CHARS] + "…"
            console.print(f"{message.role}: {_printable(text)}", markup=False, highlight=False)


def _count(found: Inspection, conversation: Conversation, tokenizer: Tokenizer | None) -> None:
    texts = [message.text for message in conversation.messages]
    num_chars = sum(map(len, texts))
    found.num_rows += 1
    found.num_chars += num_chars
    found.num_with_system += conversation.messages[0].role == "system"
    found.lengths[max(low for low in _BINS_CHARS if low <= num_chars)] += 1
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


def _printable(text: str) -> str:
    """The text with its control characters shown, as none may steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def _make_histogram(title: str, counts: dict[str, int], total: int) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(title, overflow="ellipsis", max_width=60, no_wrap=True)
    table.add_column("rows", justify="right", overflow="fold")
    table.add_column("share", justify="right", overflow="fold")
    table.add_column("", no_wrap=True, overflow="crop")
    most = max(counts.values(), default=1) or 1
    for name, count in counts.items():
        table.add_row(
            Text(_printable(name)), f"{count:,}", f"{count / total:.1%}", "█" * round(_BAR_WIDTH * count / most)
        )
    return table
