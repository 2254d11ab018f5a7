"""Which fact answers a question: shared words, weighted by how rare they are. Pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from nanosft.knowledge import Fact, Knowledge, content_words
from nanosft.knowledge.text import stem_word

_RARE_SHARE: Final = 0.1
"""A word in no more of the facts tells by itself that a fact answers a question; of others it takes two."""
_RARE_COUNT: Final = 2
_OWN: Final = 1.5
"""What a fact about the assistant itself counts to a question that says "you"."""
_ON_SUBJECT: Final = 6.0
"""Weight from which a fact that shares only the topic's own words goes before the section's first one."""
_YOU: Final = re.compile(r"\b(?:you|u)\b", re.IGNORECASE)
_LONG_FACT: Final = 60
"""Words with which a fact counts half: a short fact is more to the point."""
_LATER: Final = 0.05
"""What each place further down costs: a section begins with what matters most."""


@dataclass(frozen=True, slots=True)
class ScoredFact:
    """A fact, and how well it fits the question; `is_answer` if they share more than the topic."""

    fact: Fact
    score: float
    is_answer: bool


class FactIndex:
    """The facts of a knowledge base, ready to be searched.

    Args:
        knowledge: The knowledge base.
        concepts: Words that ask for one thing; sharing a concept counts as sharing a word.
    """

    def __init__(self, knowledge: Knowledge, concepts: Sequence[Sequence[str]] = ()) -> None:
        self._ignored = frozenset(content_words(knowledge.name))
        self._concepts: dict[str, set[str]] = {}
        for words in concepts:
            for word in words:
                self._concepts.setdefault(stem_word(word), set()).add(f"~{words[0]}")
        self._words = {fact.id: self.words_of(fact.statement) for fact in knowledge.facts}
        self._facts = {topic.id: topic.facts for topic in knowledge.topics}
        self._own = frozenset(fact.id for fact in knowledge.facts if fact.statement.startswith(f"{knowledge.name} "))
        counts = Counter(word for words in self._words.values() for word in words)
        limit = max(_RARE_COUNT, _RARE_SHARE * len(self._words))
        self._rare = frozenset(word for word, count in counts.items() if count <= limit)

    @property
    def sections(self) -> tuple[str, ...]:
        """Ids of all knowledge topics, in order."""
        return tuple(self._facts)

    def find(
        self, question: str, sections: Iterable[str], *, about: str = "", used: Collection[str] = ()
    ) -> list[ScoredFact]:
        """The facts of some sections that are not used yet, best first.

        Args:
            question: What the user wants to know.
            sections: Ids of the knowledge topics to look in.
            about: Words of the topic, which choose where the question's own words do not.
            used: Ids of facts that were told already.
        """
        asked = self.words_of(question)
        is_own = _YOU.search(question) is not None
        near_words = self.words_of(about) - asked
        facts = [fact for section in sections for fact in self._facts.get(section, ())]
        counts = Counter(word for fact in facts for word in self._words[fact.id])
        found = []
        for place, fact in enumerate(facts):
            if fact.id in used:
                continue
            words = self._words[fact.id]
            shared = words & asked
            is_answer = len(shared) > 1 or not self._rare.isdisjoint(shared)
            direct, near = (
                sum(log((1 + len(facts)) / counts[word]) ** 2 for word in words & some) for some in (asked, near_words)
            )
            direct *= _OWN if is_own and fact.id in self._own else 1.0
            score = direct if is_answer else near if near >= _ON_SUBJECT else 0.0
            found.append(ScoredFact(fact, score / (1 + len(words) / _LONG_FACT) - place * _LATER, is_answer))
        return sorted(found, key=lambda item: (not item.is_answer, -item.score))

    def words_of(self, text: str) -> frozenset[str]:
        """The text's content words and their concepts, without the assistant's name."""
        words = frozenset(content_words(text)) - self._ignored
        return words.union(*(self._concepts[word] for word in words if word in self._concepts))
