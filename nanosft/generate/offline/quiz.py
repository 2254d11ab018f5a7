"""Questions for one fact, asked in several ways, each of which the fact answers. Pure.

What is missing in it, how it goes on, whether it is true, whether something near it is true, and what there is to say
of its section. A set that asks for a fact in one way teaches a sentence; in several, what the sentence says.
"""

import random
import re
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.generate.offline.first_person import decapitalize, to_second_person
from nanosft.generate.offline.phrases import Phrases
from nanosft.knowledge import Fact, Knowledge
from nanosft.knowledge.keys import alter, cut_before, find_key, leave_gap
from nanosft.knowledge.quantities import find_quantities

Reply = Literal["tell", "confirm", "correct"]
"""How the fact answers: by itself, after a yes, or after a no."""
_GAP: Final = "_____"
_GAPS: Final = ("___", "____", "......", "(...)", "[?]")
_WAYS: Final = ("true", "true", "false", "false", "rest", "rest", "gap", "gap")
_WAYS_WITHOUT_KEY: Final = ("true", "rest")
_START_SHARE: Final = 0.6
_MIN_START_WORDS: Final = 3
_SPOKEN_SHARE: Final = 0.5
_IS_LED_IN: Final = re.compile(r"(?:so|and|by the way|sorry|before|one thing|remind me|now|i forgot)\b", re.IGNORECASE)
"""Beginnings of questions before which no "So:" stands."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks to learn a fact, and how the fact answers it."""

    text: str
    reply: Reply


class Quiz:
    """Asks for the facts of one knowledge base.

    Args:
        knowledge: The knowledge base.
        phrases: How a user asks.
        keep: Words whose capital is no beginning of a sentence.
    """

    def __init__(self, knowledge: Knowledge, phrases: Phrases, *, keep: frozenset[str]) -> None:
        self._knowledge, self._phrases, self._keep = knowledge, phrases, keep
        self._known = frozenset((item.unit, item.value) for item in find_quantities(knowledge.text))
        self._keys = {fact.id: find_key(fact, knowledge) for fact in knowledge.facts}
        self._titles = {topic.id: _small(topic.title) for topic in knowledge.topics}
        self._starts = {fact.id: self._find_start(fact) for fact in knowledge.facts}

    def ask(self, fact: Fact, rng: random.Random) -> Question:
        """One question that the fact answers, in a way drawn among those that it allows."""
        key, start = self._keys[fact.id], self._starts[fact.id]
        ways = _WAYS if key is not None and start else _WAYS_WITHOUT_KEY if start else _WAYS[:1]
        way = rng.choice(ways)
        if way == "gap" and key is not None:
            gap = leave_gap(fact, key).replace(_GAP, rng.choice(_GAPS))
            return Question(rng.choice(self._phrases.ask_gap).replace("{gap}", gap), "tell")
        if way == "false" and key is not None and (altered := alter(fact, key, self._known)):
            return self._ask_whether(altered, "correct", rng)
        if way == "true":
            return self._ask_whether(fact.statement, "confirm", rng)
        return Question(rng.choice(self._phrases.ask_rest).replace("{before}", start), "tell")

    def ask_whether(self, fact: Fact, rng: random.Random, *, is_right: bool) -> Question | None:
        """The user says the fact, or one like it that is false; None where it has nothing to be wrong in."""
        if is_right:
            return self._ask_whether(fact.statement, "confirm", rng)
        key = self._keys[fact.id]
        altered = alter(fact, key, self._known) if key is not None else ""
        return self._ask_whether(altered, "correct", rng) if altered else None

    def ask_for_section(self, topic_id: str, rng: random.Random) -> Question:
        """A question for what there is to say under a heading."""
        template = rng.choice(self._phrases.ask_section)
        title = self._titles[topic_id]
        subject = f"your {title}" if title.islower() else title
        text = template.format(name=self._knowledge.name, subject=subject, title=title)
        starts_with_name = text.startswith(self._knowledge.name)
        return Question(text if starts_with_name else text[:1].upper() + text[1:], "tell")

    def _find_start(self, fact: Fact) -> str:
        """The fact up to its key, or most of its words without one; empty where another fact begins like that."""
        key, words = self._keys[fact.id], fact.statement.split()
        if key is None:
            num = round(_START_SHARE * len(words))
            start = " ".join(words[:num]) if num >= _MIN_START_WORDS else ""
        else:
            start = cut_before(fact, key)
        others = (other.statement for other in self._knowledge.facts if other.id != fact.id)
        return "" if any(other.startswith(start) for other in others) else start

    def _ask_whether(self, statement: str, reply: Reply, rng: random.Random) -> Question:
        if rng.random() < _SPOKEN_SHARE:
            statement = to_second_person(statement, self._knowledge.name)
        clause = decapitalize(statement.rstrip("."), keep=self._keep)
        template = rng.choice(self._phrases.ask_whether)
        return Question(template.replace("{statement}", statement).replace("{clause}", clause), reply)


def introduce(template: str, saying: str, question: str) -> str:
    """A question with a sentence on who asks: a wish is nothing one should know, and what is led in is not so twice."""
    if _IS_LED_IN.match(question):
        template = template.replace("So: {text}", "{text}")
    if saying.startswith("Please "):
        template = template.replace("You should know: {says}", "{says}")
    return template.replace("{says}", saying).replace("{text}", question)


def _small(title: str) -> str:
    """A heading inside a sentence."""
    return title.lower() if title[1:].islower() else title
