"""Which fact answers a question: shared words, weighted by how rare they are. Pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from nanosft.knowledge import Fact, Knowledge, content_words
from nanosft.knowledge.quantities import find_quantities
from nanosft.knowledge.text import FUNCTION_WORDS, stem_word

_RARE_SHARE: Final = 0.1
"""A word in no more of the facts tells by itself that a fact answers a question; of others it takes two."""
_RARE_COUNT: Final = 2
_OWN: Final = 1.5
"""What a fact about the assistant itself counts to a question that says "you"."""
_ON_SUBJECT: Final = 6.0
"""Weight from which a fact that shares only the topic's own words goes before the section's first one."""
_YOU: Final = re.compile(r"\b(?:you|u)\b", re.IGNORECASE)
_LONG_FACT: Final = 150
"""Words with which a fact counts half: a short fact is more to the point."""
_LATER: Final = 0.15
"""What each place further down costs: a section begins with what matters most."""
_LATER_IN_GENERAL: Final = 0.5
"""The same for facts that share nothing but the topic with the question."""
_SUBJECT: Final = 5.0
"""What a fact counts that is about the very thing a question names: "which script", "the script x.sh"."""
_NUMBER: Final = 2.5
"""What a fact with a number counts to a question for one, and once more where it is a number of the very thing."""
_STEM_CHARS: Final = 7
_ASKS_FOR_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|big|large|long|far|fast|wide|old|expensive|small|smart|good|well|deep|high|heavy|tall)\b"
    r"|\bcost\b|\bprice\b|\bscore\b",
    re.IGNORECASE,
)
_COUNTED: Final = re.compile(r"\bhow (?:many|much) ([a-z]+)", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"\b(?:which|what)(?: (?:is|are|was|were))?(?: (?:the|your|a))? ([a-z]+)"
    r"|\b(?:how|why|when|where) (?:is|are|was|were|do|does|did) (?:the|your) ([a-z]+)",
    re.IGNORECASE,
)
_NUMBER_OF: Final = re.compile(r"\d[\d,.]*(?: (?:million|billion|thousand))? (?:[a-z-]+ )??([a-z]+)")
_WEAK: Final = frozenset({"use", "using", "els"})
"""Stems of words that ask for nothing."""
_FIRST: Final = re.compile(r"^(?:(?:the|a|an|one) )?([a-z]+) ", re.IGNORECASE)


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
        asks: Patterns of questions, each with the words of a fact that answers them.
    """

    def __init__(
        self, knowledge: Knowledge, concepts: Sequence[Sequence[str]] = (), asks: Mapping[str, str] | None = None
    ) -> None:
        self._ignored = _WEAK.union(map(_shorten, content_words(knowledge.name)))
        self._concepts: dict[str, set[str]] = {}
        for words in concepts:
            for word in words:
                self._concepts.setdefault(_shorten(stem_word(word)), set()).add(f"~{words[0]}")
        self._asks = [(re.compile(pattern, re.IGNORECASE), words) for pattern, words in (asks or {}).items()]
        self._words = {fact.id: self.words_of(fact.statement) for fact in knowledge.facts}
        self._num_asked = _NumberAsked(knowledge)
        self._facts = {topic.id: topic.facts for topic in knowledge.topics}
        self._own = frozenset(fact.id for fact in knowledge.facts if fact.statement.startswith(f"{knowledge.name} "))
        counts = Counter(word for words in self._words.values() for word in words)
        limit = max(_RARE_COUNT, _RARE_SHARE * len(self._words))
        self._rare = frozenset(word for word, count in counts.items() if count <= limit)

    def in_section(self, section: str) -> tuple[Fact, ...]:
        """The facts of a knowledge topic, in order."""
        return self._facts[section]

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
        asked = self.words_of(" ".join([question, *(words for ask, words in self._asks if ask.search(question))]))
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
            direct *= self._num_asked.weigh(question, fact)
            score = direct + _SUBJECT * is_subject(question, fact.statement) if is_answer else 0.0
            if not is_answer and near >= _ON_SUBJECT:
                score = near
            later = _LATER if is_answer else _LATER_IN_GENERAL
            found.append(ScoredFact(fact, score / (1 + len(words) / _LONG_FACT) - place * later, is_answer))
        return sorted(found, key=lambda item: (not item.is_answer, -item.score))

    def words_of(self, text: str) -> frozenset[str]:
        """The text's content words and their concepts, without the assistant's name."""
        words = frozenset(map(_shorten, content_words(text))) - self._ignored
        return words.union(*(self._concepts[word] for word in words if word in self._concepts))


class _NumberAsked:
    """What facts hold of the numbers that questions ask for."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._has_number = frozenset(
            fact.id for fact in knowledge.facts if any(item.unit for item in find_quantities(fact.statement))
        )
        self._counted = {
            fact.id: frozenset(stem_word(match[1]) for match in _NUMBER_OF.finditer(fact.statement))
            for fact in knowledge.facts
        }

    def weigh(self, question: str, fact: Fact) -> float:
        """How much more a fact counts that holds a number, to a question for one."""
        if not _ASKS_FOR_NUMBER.search(question):
            return 1.0
        counted = _COUNTED.search(question)
        is_counted = counted is not None and stem_word(counted[1].lower()) in self._counted[fact.id]
        return (_NUMBER if fact.id in self._has_number else 1.0) * (_NUMBER if is_counted else 1.0)


def is_subject(question: str, statement: str) -> bool:
    """Whether a fact is about the very thing that a question names: "which script", "The script x.sh"."""
    named, first = _NAMED.search(question), _FIRST.match(statement)
    if named is None or first is None:
        return False
    thing = (named[1] or named[2]).lower()
    return thing == first[1].lower() and thing not in FUNCTION_WORDS


def _shorten(stem: str) -> str:
    """A stem cut, so that "conscious" and "consciousness" are one."""
    return stem[:_STEM_CHARS]
