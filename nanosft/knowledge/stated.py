"""Which facts an answer states, in whatever words. Pure.

A fact is stated where its key (a number, date, name or URL) stands, and most of its other words do, as stems. It is a
count of words: an answer that denies a fact in the fact's own words is counted as well.
"""

from collections import Counter
from collections.abc import Iterable
from math import ceil
from typing import Final

from nanosft.knowledge.facts import Fact, Knowledge
from nanosft.knowledge.keys import Key, find_key
from nanosft.knowledge.quantities import find_dates, find_links, find_quantities
from nanosft.knowledge.text import content_words, stem_word

_SCALES: Final = frozenset(map(stem_word, ("hundred", "thousand", "million", "billion", "trillion")))
_SHARE: Final = 0.6
"""Share of a fact's words that an answer has to hold."""
_SHARE_WITH_KEY: Final = 0.4
"""Where it holds the fact's key."""


class StatedFacts:
    """Finds the facts of one knowledge base in answers.

    Args:
        knowledge: The knowledge base.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self._facts = knowledge.facts
        own = frozenset(content_words(knowledge.name))
        keys = {fact.id: find_key(fact, knowledge) for fact in knowledge.facts}
        # The numbers, years and links of the key, in the form in which answers are compared; a name is a word already.
        self._marks = {
            fact_id: frozenset() if key is None or key.kind == "name" else _marks(key.text)
            for fact_id, key in keys.items()
        }
        self._words = {
            fact.id: frozenset(content_words(fact.statement)) - own - _words_of(keys[fact.id])
            for fact in knowledge.facts
        }
        counts = Counter(word for words in self._words.values() for word in words)
        # Each fact is looked for where its rarest words are: 160 facts are not compared with each answer.
        self._by_word: dict[str, list[Fact]] = {}
        for fact in knowledge.facts:
            rarest = sorted(self._words[fact.id], key=lambda word: (counts[word], word))
            needed = len(rarest) - ceil(_SHARE_WITH_KEY * len(rarest)) + 1
            for word in rarest[:needed]:
                self._by_word.setdefault(word, []).append(fact)

    def find(self, answer: str) -> list[Fact]:
        """The facts that the answer states, in the order of the knowledge base."""
        words = frozenset(content_words(answer))
        candidates = {fact.id for word in words for fact in self._by_word.get(word, ())}
        if not candidates:
            return []
        marks = _marks(answer)
        return [fact for fact in self._facts if fact.id in candidates and self._is_stated(fact, words, marks)]

    def count(self, answers: Iterable[str]) -> dict[str, int]:
        """For the id of each fact, the answers that state it."""
        counts = Counter(fact.id for answer in answers for fact in self.find(answer))
        return {fact.id: counts[fact.id] for fact in self._facts}

    def _is_stated(self, fact: Fact, words: frozenset[str], marks: frozenset[tuple[str, object]]) -> bool:
        own, key = self._words[fact.id], self._marks[fact.id]
        if not key <= marks:
            return False
        return len(own & words) >= (_SHARE_WITH_KEY if key else _SHARE) * len(own)


def _words_of(key: Key | None) -> frozenset[str]:
    """The words of a key that may be written otherwise: 561 million, 561M."""
    if key is None or key.kind == "name":
        return frozenset()
    words = content_words(key.text)
    return frozenset(word for word in words if word in _SCALES or not word.isalpha() or key.kind == "url")


def _marks(text: str) -> frozenset[tuple[str, object]]:
    """The numbers, years and links of a text in normal form."""
    numbers = {("number", round(item.value, 6)) for item in find_quantities(text)}
    dates = {("year", date.year) for date in find_dates(text)}
    links = {("link", link.url) for link in find_links(text)}
    return frozenset(numbers | dates | links)
