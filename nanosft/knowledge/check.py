"""What a person should mend in a knowledge base: contradictions, empty topics, repetitions. Pure."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from nanosft.knowledge.facts import Fact, Knowledge
from nanosft.knowledge.quantities import Quantity, find_quantities
from nanosft.knowledge.text import content_words, estimate_tokens, stem_word

_MAX_WORDS: Final = 60
_MAX_COMPARED_CHARS: Final = 1000
"""A longer statement is reported as one to split; what it says by each of its numbers is not compared."""
_SAME_NUMBER: Final = 0.02
"""Numbers this close are one number, rounded: 561 million and 560,988,160."""
_YEARS: Final = range(1900, 2101)
_DIGITS = re.compile(r"\d[\d,.]*\d|\d")
_WORD_AFTER = re.compile(r"\s*([A-Za-z][\w/-]*)")
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|takes?|took|costs?|uses?|used|needs?|needed|reached|scored|holds?|contains?|"
    r"starts?|trains?|trained|supports?|runs?|stands?|stood|comes?|came|earned|founded|solved)\b"
)


@dataclass(frozen=True, slots=True)
class KnowledgeReport:
    """What `nanosft knowledge check` says of a knowledge base.

    Attributes:
        num_tokens: Estimated size of the whole text: each prompt carries it.
        contradictions: Pairs of facts that say one thing of one subject with two numbers.
        empty_topics: Ids of topics without a fact.
        repeated: Statements that stand in more than one topic.
        problems: Anything else to mend.
    """

    where: str
    name: str
    maker: str
    num_topics: int
    num_facts: int
    num_tokens: int
    facts_per_topic: dict[str, int]
    contradictions: tuple[tuple[Fact, Fact], ...]
    empty_topics: tuple[str, ...]
    repeated: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Nothing to mend."""
        return not (self.contradictions or self.empty_topics or self.repeated or self.problems)


def check_knowledge(knowledge: Knowledge) -> KnowledgeReport:
    """Look for what a person should mend."""
    counts = Counter(fact.statement.casefold() for fact in knowledge.facts)
    problems = [
        f"{fact.id} has {num_words} words: split it"
        for fact in knowledge.facts
        if (num_words := len(fact.statement.split())) > _MAX_WORDS or len(fact.statement) > _MAX_COMPARED_CHARS
    ]
    if not knowledge.maker:
        problems.insert(0, "does not say who made the assistant: put '- Maker: …' above the first '## Topic'")
    return KnowledgeReport(
        where=knowledge.where,
        name=knowledge.name,
        maker=knowledge.maker,
        num_topics=len(knowledge.topics),
        num_facts=len(knowledge.facts),
        num_tokens=estimate_tokens(knowledge.text),
        facts_per_topic={topic.id: len(topic.facts) for topic in knowledge.topics},
        contradictions=tuple(find_contradictions(knowledge)),
        empty_topics=tuple(topic.id for topic in knowledge.topics if not topic.facts),
        repeated=tuple(statement for statement, count in counts.items() if count > 1),
        problems=tuple(problems),
    )


def find_contradictions(knowledge: Knowledge) -> Iterator[tuple[Fact, Fact]]:
    """Pairs of facts that say one thing of one subject with two numbers.

    One thing: word for word the same but for one number, or the same subject (all before the verb), verb, words up to
    the number, unit and next name. Numbers within 2 % are one number, rounded; years are not.
    """
    by_claim: dict[tuple[str, ...], list[tuple[Fact, Quantity]]] = {}
    for fact in knowledge.facts:
        for claim, number in _claims(fact) if len(fact.statement) <= _MAX_COMPARED_CHARS else ():
            by_claim.setdefault(claim, []).append((fact, number))
    seen: set[tuple[str, str]] = set()
    for entries in by_claim.values():
        for (left, first), (right, second) in combinations(entries, 2):
            if _differ(first, second) and left.id != right.id and (left.id, right.id) not in seen:
                seen.add((left.id, right.id))
                yield left, right


def _claims(fact: Fact) -> Iterator[tuple[tuple[str, ...], Quantity]]:
    """What a fact says by a number: keys that a contradicting fact has too."""
    statement = fact.statement
    verb = _VERB.search(statement)
    for found in find_quantities(statement):
        start, end = found.start, found.end
        # The word after a number is its unit as well: "120 plants".
        word = None if found.unit else _WORD_AFTER.match(statement, end)
        number = found._replace(unit=word[1].lower()) if word else found
        masked = statement[:start] + _DIGITS.sub("#", statement[start:end]) + statement[end:]
        yield ("same words", masked.casefold()), number
        if verb and start >= verb.end() and (number.unit or _is_year(number)):
            subject, between = (" ".join(content_words(part)) for part in _parts(statement, verb, start))
            of = next((name for name in fact.names if statement.find(name, end) >= 0), "")
            if subject:
                yield ("same subject", subject, stem_word(verb[0]), between, number.unit, of), number


def _parts(statement: str, verb: re.Match[str], start: int) -> tuple[str, str]:
    return statement[: verb.start()], statement[verb.end() : start]


def _differ(first: Quantity, second: Quantity) -> bool:
    if _is_year(first) and _is_year(second):
        return first.value != second.value
    return abs(first.value - second.value) > _SAME_NUMBER * max(first.value, second.value)


def _is_year(number: Quantity) -> bool:
    return not number.unit and number.value in _YEARS
