"""The repetition gate: what a conversation says twice. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from nanosft.dedup import normalize_each
from nanosft.knowledge.text import split_sentences
from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect

_MIN_WORDS: Final = {"assistant": 7, "user": 8, "system": 8}
_MIN_SENTENCE_WORDS: Final = 6
_MAX_SENTENCE_COUNT: Final = 2
_MIN_LOOP_LETTERS: Final = 4
"""Below it the words are laughter: ha ha ha."""
_MIN_REPEATED_PAIRS: Final = 5
"""Three words three times in a row repeat five of their pairs at least."""
_LOOP: Final = re.compile(r"(?<!\S)((?:\S+ ){3,12}?)\1{2,}")


def find_repetition_defects(messages: Sequence[Prose]) -> Iterator[Defect]:
    """Answers given twice, sentences said again and again, and loops.

    Short messages ("yes", "thank you") may be repeated.
    """
    seen: dict[tuple[str, str], int] = {}
    counts: Counter[str] = Counter()
    for message in messages:
        sentences = split_sentences(message.plain)
        keys = normalize_each(sentences)
        words = " ".join(filter(None, keys))
        num_words = words.count(" ") + 1
        if num_words >= _MIN_WORDS[message.role]:
            first = seen.setdefault((message.role, words), message.index)
            if first != message.index:
                reason = "repeated_answer" if message.role == "assistant" else "repeated_question"
                detail = f"the message says what message {first} said"
                yield Defect("repetition", reason, detail, message.cite(), message.index)
        if message.role == "assistant":
            yield from _within(message, words, zip(keys, sentences, strict=True), counts)


def _within(message: Prose, words: str, sentences: Iterable[tuple[str, str]], counts: Counter[str]) -> Iterator[Defect]:
    """Defects of one answer, its sentences given in normal form and as they stand.

    `counts` has the conversation's sentences up to it, and is added to.
    """
    if loop := _find_loop(words):
        yield Defect("repetition", "loop", "the answer repeats the same words in a row", loop, message.index)
    own: Counter[str] = Counter()
    for key, sentence in sentences:
        if key.count(" ") + 1 >= _MIN_SENTENCE_WORDS:
            own[key] += 1
            counts[key] += 1
            if own[key] == 2:  # noqa: PLR2004 - the second time
                yield Defect(
                    "repetition", "repeated_sentence", "the answer says a sentence twice", sentence[:100], message.index
                )
            elif counts[key] == _MAX_SENTENCE_COUNT + 1:
                detail = "a sentence is said for the third time in the conversation"
                yield Defect("repetition", "repeated_sentence", detail, sentence[:100], message.index)


def _find_loop(words: str) -> str | None:
    """The phrase of 3 to 12 words that stands 3 times in a row, or None; laughter is none."""
    tokens = words.split()
    pairs = list(pairwise(tokens))
    if len(pairs) - len(set(pairs)) < _MIN_REPEATED_PAIRS:
        return None
    match = _LOOP.search(words + " ")
    if match is None or len(max(match[1].split(), key=len)) < _MIN_LOOP_LETTERS:
        return None
    return match[1].strip()
