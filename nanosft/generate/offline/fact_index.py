"""Which fact answers a question: shared words, weighted by how rare they are. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import log
from typing import Final

from nanosft.knowledge import Fact, Knowledge, content_words

_ANSWERS: Final = 1.0
"""Weight of shared words from which a fact answers the question: about one word that is not in every fact."""
_ON_SUBJECT: Final = 6.0
"""Weight from which a fact that shares only the topic's own words goes before the section's first one."""
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
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self._ignored = frozenset(content_words(knowledge.name))
        self._words = {fact.id: frozenset(content_words(fact.statement)) - self._ignored for fact in knowledge.facts}
        self._facts = {topic.id: topic.facts for topic in knowledge.topics}
        counts = Counter(word for words in self._words.values() for word in words)
        self._rarity = {word: log(1 + len(self._words) / count) for word, count in counts.items()}

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
        near_words = self.words_of(about) - asked
        facts = [fact for section in sections for fact in self._facts.get(section, ())]
        counts = Counter(word for fact in facts for word in self._words[fact.id])
        found = []
        for place, fact in enumerate(facts):
            if fact.id in used:
                continue
            words = self._words[fact.id]
            is_answer = sum(self._rarity[word] for word in words & asked) >= _ANSWERS
            direct, near = (
                sum(log((1 + len(facts)) / counts[word]) ** 2 for word in words & some) for some in (asked, near_words)
            )
            score = direct if is_answer else near if near >= _ON_SUBJECT else 0.0
            found.append(ScoredFact(fact, score / (1 + len(words) / _LONG_FACT) - place * _LATER, is_answer))
        return sorted(found, key=lambda item: (not item.is_answer, -item.score))

    def words_of(self, text: str) -> frozenset[str]:
        """The text's content words, without the assistant's name."""
        return frozenset(content_words(text)) - self._ignored
