"""What the words of a knowledge base point to: its headings, and the facts under them. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final

from nanosft.knowledge.text import content_words

_MIN_SHARED: Final = 2
_STEM_CHARS: Final = 5
_MAX_COMMON_SHARE: Final = 0.15
_MIN_COMMON: Final = 8
_MAX_HEADINGS_SHARE: Final = 0.12
_MIN_HEADINGS: Final = 2
_STATED_SHARE: Final = 0.5
"""Share of a fact's stems that an answer holds which states it."""
_IRREGULAR: Final = {
    "took": "tak", "taken": "tak", "made": "mak", "built": "build", "written": "writ", "wrot": "writ", "knew": "know",
    "known": "know", "taught": "teach", "said": "say", "ran": "run", "cam": "com", "began": "begin", "spok": "speak",
}  # fmt: skip
"""Stems of past forms."""
_GENERIC_WORDS: Final = """
work want say know tell give look come go see show start stop need help take make good well name people person
thing time day kind part way ask answer question talk speak anything something everything other today new use
long large big small short first last next find read write call learn exist like year week true false right
wrong many much able mean think feel own done keep open try end real money bad lot back some happen share
interest learned data different human chat model assistant friend please may might
"""
"""What facts and questions on anything share."""


@dataclass(frozen=True)
class Subjects:
    """Which words of a knowledge base point to what it is about.

    Attributes:
        related: For each stem the stems of the facts that hold it.
        headings: For each stem the headings that it points to; stems that stand under many point nowhere.
        facts: The stems of each fact, and its heading.
        facts_with: For each stem the places in `facts` that hold it.
        generic: Stems that facts and questions on anything share, the assistant's name among them.
        strong: Stems that point to a heading by themselves: its own words, and those of several facts under it.
    """

    related: Mapping[str, frozenset[str]]
    headings: Mapping[str, frozenset[str]]
    facts: tuple[tuple[frozenset[str], str], ...]
    facts_with: Mapping[str, tuple[int, ...]]
    generic: frozenset[str]
    strong: frozenset[str]

    def headings_of(self, stems: Collection[str]) -> set[str]:
        """The headings that some stems point to."""
        return {heading for stem in stems for heading in self.headings.get(stem, ())}

    def is_pointed(self, stems: Collection[str]) -> bool:
        """Whether stems point somewhere for sure: a heading's own, one of several facts under one, or two others."""
        found = [stem for stem in stems if stem in self.headings]
        return len(found) >= _MIN_SHARED or any(stem in self.strong for stem in found)

    def stated_by(self, stems: Collection[str]) -> set[str]:
        """The headings of the facts that an answer of these stems states."""
        counts = Counter(chain.from_iterable([self.facts_with[stem] for stem in stems if stem in self.facts_with]))
        return {
            self.facts[place][1]
            for place, count in counts.items()
            if count >= _MIN_SHARED and count >= _STATED_SHARE * len(self.facts[place][0])
        }


def make_subjects(statements: Mapping[str, Sequence[str]], *, name: str = "") -> Subjects:
    """What the words of statements point to.

    Args:
        statements: The statements under each heading.
        name: The assistant's, which points to nothing.
    """
    own = stems_of(name)
    generic = own | stems_of(_GENERIC_WORDS)
    facts = [
        (frozenset(stems_of(statement) - own), heading) for heading, under in statements.items() for statement in under
    ]
    headings: dict[str, set[str]] = defaultdict(set)
    facts_with: dict[str, list[int]] = defaultdict(list)
    for place, (stems, heading) in enumerate(facts):
        for stem in stems:
            facts_with[stem].append(place)
        for stem in stems | stems_of(heading):
            headings[stem].add(heading)
    limit = max(_MIN_HEADINGS, _MAX_HEADINGS_SHARE * len(statements))
    rare = {stem: frozenset(found) for stem, found in headings.items() if len(found) <= limit and stem not in generic}
    strong = {stem for stem, places in facts_with.items() if len(places) > len(headings[stem])}
    for heading in statements:
        strong |= stems_of(heading) - generic
        # A heading's own words point to it, however many facts hold them.
        rare.update({stem: rare.get(stem, frozenset()) | {heading} for stem in stems_of(heading) - generic})
    return Subjects(
        relate_words(statements),
        rare,
        tuple(facts),
        {stem: tuple(places) for stem, places in facts_with.items()},
        frozenset(generic),
        frozenset(strong),
    )


def relate_words(statements: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """For each stem, the stems of all statements that hold it, and of their heading; common stems relate nothing.

    Args:
        statements: The statements under each heading.
    """
    stems = [stems_of(f"{heading} {statement}") for heading, under in statements.items() for statement in under]
    counts = Counter(word for words in stems for word in words)
    limit = max(_MIN_COMMON, _MAX_COMMON_SHARE * len(stems))
    related: dict[str, set[str]] = {}
    for words in stems:
        rare = {word for word in words if counts[word] <= limit}
        for word in rare:
            related.setdefault(word, set()).update(rare)
    return {word: frozenset(found) for word, found in related.items()}


@lru_cache(maxsize=1024)
def stems_of(text: str) -> frozenset[str]:
    """The content words of a text, as stems of five letters; past forms are one with the present."""
    return frozenset(map(_shorten, content_words(text)))


@lru_cache(maxsize=1 << 16)
def _shorten(stem: str) -> str:
    return _IRREGULAR.get(stem, stem).removeprefix("pre")[:_STEM_CHARS]
