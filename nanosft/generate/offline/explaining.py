"""A fact for one who did not understand it: what to remember of it, and what its words mean. Pure."""

import random
import re
from typing import Final

from nanosft.generate.offline.phrases import Phrases
from nanosft.generate.offline.retelling import Reteller
from nanosft.knowledge import Fact
from nanosft.knowledge.keys import Key
from nanosft.knowledge.text import content_words, stem_word

_ASKS_WHERE: Final = re.compile(r"\bwhere\b", re.IGNORECASE)
_ASKS_FOR_MONEY: Final = re.compile(r"\b(?:cost|price|expensive|cheap|pay|dollars?)\b", re.IGNORECASE)
_ASKS_FOR_TIME: Final = re.compile(r"\bhow (?:long|fast|old)\b", re.IGNORECASE)
_ASKS_FOR_COUNT: Final = re.compile(r"\bhow many ([a-z]+)", re.IGNORECASE)
_ASKS_FOR_SIZE: Final = re.compile(r"\bhow (?:much|big|large|wide|far|deep|high)\b", re.IGNORECASE)
_SIDE_CLAUSE: Final = re.compile(r"(?:[;:] |, (?:which|so that|where|whatever|because|in which|if|but)\b).*$")
_DIGITS: Final = re.compile(r"\d+")
_SHORTEST_CLAUSE: Final = 5
_NUM_TRIES: Final = 4
_MAX_MEANINGS: Final = 2


class Explainer:
    """Puts what was said into simpler words.

    Args:
        phrases: What words mean, and what stands before an explanation.
        reteller: Puts facts into other words.
    """

    def __init__(self, phrases: Phrases, reteller: Reteller) -> None:
        self._phrases, self._reteller = phrases, reteller
        self._meanings = [
            (re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), meaning) for pattern, meaning in phrases.meanings.items()
        ]

    def explain(self, fact: Fact, spoken: str, question: str, last_told: str, rng: random.Random) -> str:
        """The fact in fewer words or in others, and what its hard words mean.

        Args:
            fact: The fact.
            spoken: It in the first person.
            question: What it was told in answer to.
            last_told: How it was told, which is not said again if it can be said otherwise.
            rng: Draws the words.
        """
        if gist := self.boil_down(fact, question, rng):
            return " ".join([self._reteller.follow(rng.choice(self._phrases.simply), gist), *self._find_meanings(gist)])
        meanings = self._find_meanings(spoken)
        clause = _cut_side_clause(spoken)
        told = clause
        for _ in range(_NUM_TRIES):
            told = self._reteller.retell(fact, clause, rng, framed=False)
            if told != last_told:
                break
        if clause != spoken or meanings:
            lead = rng.choice(self._phrases.simply)
        else:
            lead = rng.choice(self._phrases.short_already if told == last_told else self._phrases.other_words)
        return " ".join([self._reteller.follow(lead, told), *meanings])

    def boil_down(self, fact: Fact, question: str, rng: random.Random) -> str:
        """What to remember of a fact: the number or address in it, where the question asked for one; else empty."""
        key = self._reteller.find_key(fact)
        if key is None or _is_said(key, question) or not _is_asked_for(key, question):
            return ""
        return rng.choice(self._phrases.gist[key.kind]).format(key=key.text)

    def _find_meanings(self, text: str) -> list[str]:
        """What the first hard words of a text mean."""
        found = [(match.start(), meaning) for pattern, meaning in self._meanings if (match := pattern.search(text))]
        return [meaning for _, meaning in sorted(found)[:_MAX_MEANINGS]]


def _cut_side_clause(sentence: str) -> str:
    """The main clause, where what stands after it can go: not a clause in the middle, nor most of the sentence."""
    match = _SIDE_CLAUSE.search(sentence)
    if match is None or "," in match[0][1:] or len(sentence[: match.start()].split()) < _SHORTEST_CLAUSE:
        return sentence
    return sentence[: match.start()] + "."


def _is_said(key: Key, question: str) -> bool:
    """Whether the question names the number itself, so that it asks for something else: "What would $1000 buy?"."""
    numbers = _DIGITS.findall(key.text)
    return bool(numbers) and numbers == _DIGITS.findall(question)


def _is_asked_for(key: Key, question: str) -> bool:
    """Whether the question asks for the very kind of thing that the key is."""
    if key.kind == "url":
        return _ASKS_WHERE.search(question) is not None
    if key.quantity is None or not key.quantity.unit:
        return False
    unit = key.quantity.unit
    if _ASKS_FOR_MONEY.search(question):
        return unit == "$"
    if counted := _ASKS_FOR_COUNT.search(question):
        return stem_word(counted[1].lower()) in content_words(key.text)
    if _ASKS_FOR_TIME.search(question):
        return unit != "$"
    return _ASKS_FOR_SIZE.search(question) is not None
