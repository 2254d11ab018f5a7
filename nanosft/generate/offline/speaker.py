"""What the assistant of an offline conversation says: who it is, and the fact that answers a question. Pure."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from nanosft.generate.offline.fact_index import FactIndex, ScoredFact
from nanosft.generate.offline.first_person import decapitalize, to_first_person
from nanosft.generate.offline.phrases import Intent, Phrases
from nanosft.generate.offline.quiz import Reply
from nanosft.generate.planning import Level, Topic
from nanosft.knowledge import Fact, Knowledge
from nanosft.knowledge.text import FUNCTION_WORDS

_OTHER = (
    r"^(?!.*\b(?:compare|better|good as|capable|differ\w*|sets you|page like)\b)"
    r".*\b(?:chatgpt|claude|gemini|openai|siri|alexa|google)\b"
)
_MADE = (
    r"\bwho(?:'s| is| has| have)? (?:made|created|built|developed|behind|your (?:creator|maker))"
    r"|company built you|who do you come from|\bwere you (?:made|created|built|developed)\b"
)
_NAME = r"(?:what(?:'s|s| is)|know) your name|what your name is|(?:have a|real) name|call you\b|you are called"
_WHO = (
    r"\bwho (?:are|r) (?:you|u)\b(?! meant)|who you are|who (?:am i|i am) talking|who is this|introduce yourself"
    r"|about yourself|what are you\W*$|kind of thing you|describe yourself|you are\?$|sum yourself"
)
_INTENTS: Final[tuple[tuple[Intent, re.Pattern[str]], ...]] = (
    ("other", re.compile(_OTHER, re.IGNORECASE)),
    ("made", re.compile(_MADE, re.IGNORECASE)),
    ("name", re.compile(_NAME, re.IGNORECASE)),
    ("machine", re.compile(r"\b(?:human|(?:a|the) person)\b", re.IGNORECASE)),
    ("ai", re.compile(r"\b(?:an ai|a bot|computer program)\b", re.IGNORECASE)),
    ("model", re.compile(r"\b(?:which|what) (?:model|assistant)\b", re.IGNORECASE)),
    ("who", re.compile(_WHO, re.IGNORECASE)),
)
_YES_NO = re.compile(r"^(?:do|does|did|are|is|was|were|can|could|has|have|will|would|should|may|must)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:no|not|never|cannot|nothing|none)\b|n't\b")
_SIDE_CLAUSE = re.compile(r"(?:[;:]|, (?:and|which|so that|where|whatever|because|in which|if|but)\b).*$")
_SHORTEST_CLAUSE: Final = 5
_NEAR: Final = 0.5
"""Share of a question's words that stand in its topic's, from which it asks for the topic as a whole."""
_CLOSE: Final = 3
"""Content words that two facts on one thing share."""
_KIND: Final = "an AI assistant"
_NUM_FACTS: Final[Mapping[Level, tuple[int, int]]] = MappingProxyType(
    {"simple": (1, 1), "plain": (1, 2), "technical": (2, 3)}
)
_NUM_KINDS: Final = 2
_LEAD_SHARE: Final = 0.4
_MADE_SHARE: Final = 0.6


def find_intent(text: str) -> Intent | None:
    """Which question about its identity a text asks the assistant, if one."""
    return next((intent for intent, pattern in _INTENTS if pattern.search(text)), None)


def find_proper_words(knowledge: Knowledge) -> frozenset[str]:
    """Words of names, whose capital is no beginning of a sentence."""
    names = {word for fact in knowledge.facts for name in fact.names for word in name.split()}
    return frozenset({*names, knowledge.name}) - frozenset(map(str.capitalize, FUNCTION_WORDS))


class Speaker:
    """The assistant's side of one conversation; it tells no fact twice.

    Args:
        knowledge: What the assistant knows.
        facts: The same, ready to be searched.
        phrases: How it speaks.
        level: How much detail the user wants.
        rng: Chooses among wordings.
        user_name: How to greet the user, or "".
    """

    def __init__(
        self,
        knowledge: Knowledge,
        facts: FactIndex,
        phrases: Phrases,
        *,
        level: Level,
        rng: random.Random,
        user_name: str,
    ) -> None:
        self._facts = facts
        self._phrases = phrases
        self._name, self._maker, self._user_name = knowledge.name, knowledge.maker, user_name
        self._level: Level = level
        self._rng = rng
        self._used: set[str] = set()
        self._said: set[str] = set()
        self._is_named = False
        self._last_told = ""
        self._proper = find_proper_words(knowledge)
        start = f"{knowledge.name} is a"
        self._kinds = [
            (fact.id, fact.statement.removeprefix(f"{knowledge.name} is ").rstrip("."))
            for fact in knowledge.facts
            if fact.statement.startswith((f"{start} ", f"{start}n ")) and not _NEGATION.search(fact.statement)
        ][:_NUM_KINDS]

    def pick(self, pool: Sequence[str]) -> str:
        """A phrase of the pool with its slots filled, one not said yet while there is one."""
        unsaid = [text for text in pool if text not in self._said] or list(pool)
        choice = self._rng.choice(unsaid)
        self._said.add(choice)
        return choice.format(name=self._name, maker=self._maker, user=self._user_name, kind=self._kind(choice))

    def maybe(self, share: float, pool: Sequence[str]) -> str:
        """A phrase of the pool with this probability, else nothing."""
        return self.pick(pool) if self._rng.random() < share else ""

    def greet(self, message: str) -> str:
        """A greeting back: by name if one was given, in the user's language where a word of it is known."""
        if self._user_name:
            return self.pick(self._phrases.named_greetings)
        lower = message.lower()
        known = [reply for word, reply in self._phrases.foreign_greetings.items() if re.search(rf"\b{word}\b", lower)]
        return known[0] if known else self.pick(self._phrases.greetings)

    def identify(self, intent: Intent) -> str:
        """Say who it is, as the question asks for it."""
        if intent == "made" and not self._maker:
            return self.pick(self._phrases.unsure)
        text = self.pick(self._phrases.identity[intent])
        self._is_named = self._is_named or self._name in text
        if intent == "made":
            return join(text, "" if self._is_named and self._rng.random() < _MADE_SHARE else self._name_briefly())
        needs_maker = self._maker and self._maker not in text and intent != "name"
        return join(
            text,
            self.maybe(1.0 if intent == "other" else _MADE_SHARE, self._phrases.identity["made"])
            if needs_maker
            else "",
        )

    def answer(self, question: str, topic: Topic) -> str:
        """Answer a question on a topic by facts not told yet, or as far as it knows."""
        intent = find_intent(question)
        opener = ""
        if intent:
            opener = self.identify(intent)
        elif topic.names_itself and not self._is_named:
            opener = self.identify("name" if "name" in question else "who")
        found = self._find(question, topic)
        fewest, most = _NUM_FACTS[self._level]
        num_facts = self._rng.randint(fewest, most)
        if intent:
            found, num_facts = [item for item in found if item.is_answer], min(num_facts, 1)
        if not found:
            return opener or self.pick(self._phrases.unsure)
        chosen = self._choose(found, num_facts)
        if not opener:
            opener = self._open(question, topic, chosen[0])
        return join(opener, self._tell(chosen))

    def tell(self, fact: Fact, reply: Reply) -> str:
        """Answer a question for this very fact."""
        lead = {
            "tell": self.maybe(_LEAD_SHARE, self._phrases.leads[self._level]),
            "confirm": self.pick(self._phrases.confirm),
            "correct": self.pick(self._phrases.correct),
        }[reply]
        return join(lead, self._tell([ScoredFact(fact, 0.0, is_answer=True)]))

    def tell_section(self, facts: Sequence[Fact]) -> str:
        """Answer a question for what there is to say under a heading, by facts not told yet."""
        fewest, most = _NUM_FACTS[self._level]
        chosen = list(facts[: self._rng.randint(fewest, most)])
        lead = self.maybe(_LEAD_SHARE, self._phrases.leads[self._level])
        return join(lead, self._tell([ScoredFact(fact, 0.0, is_answer=True) for fact in chosen]))

    def untold(self, facts: Iterable[Fact]) -> list[Fact]:
        """Those of the facts that were not told yet."""
        return [fact for fact in facts if fact.id not in self._used]

    def stand_by(self, share: float) -> str:
        """Yes to a doubt, and at times what was told last, once more."""
        return join(self.pick(self._phrases.stand_by), self._last_told if self._rng.random() < share else "")

    def support(self, words: str, sections: Sequence[str], share: float = 1.0) -> str:
        """One more fact on some words, or nothing where there is none."""
        asked = self._facts.words_of(words)
        found = [
            item
            for item in self._facts.find(words, sections, used=self._used)
            if len(asked & self._facts.words_of(item.fact.statement)) > 1
        ]
        return self._tell(found[:1]) if found and self._rng.random() < share else ""

    def simplify(self, topic: Topic) -> str:
        """What was said last: its main clause, else a fact close to it, else the same again."""
        last_told = self._last_told
        if not last_told:
            found = self._find(topic.subject, topic)
            return join(self.pick(self._phrases.simply), self._tell(found[:1])) if found else self.identify("who")
        main_clause = _cut_side_clause(last_told)
        if main_clause == last_told:
            words = self._facts.words_of(last_told)
            found = [item for item in self._find(last_told, topic) if item.is_answer]
            if found and len(words & self._facts.words_of(found[0].fact.statement)) >= _CLOSE:
                main_clause = self._tell(found[:1])
        lead = self._phrases.simply if main_clause != last_told else self._phrases.short_already
        return join(self.pick(lead), main_clause)

    def can_answer(self, question: str, topic: Topic) -> bool:
        """Whether the fact that answers the question best is not told yet."""
        best = next(iter(self._facts.find(question, topic.sections, about=_about(topic))), None)
        return best is not None and best.is_answer and best.fact.id not in self._used and find_intent(question) is None

    def _find(self, question: str, topic: Topic) -> list[ScoredFact]:
        return self._facts.find(question, topic.sections, about=_about(topic), used=self._used)

    def _choose(self, found: Sequence[ScoredFact], num_facts: int) -> list[ScoredFact]:
        """The best fact, and others that answer the question too; of a topic in general, those that come next."""
        others = [item for item in found[1:] if item.is_answer == found[0].is_answer]
        return [found[0], *others[: num_facts - 1]]

    def _open(self, question: str, topic: Topic, best: ScoredFact) -> str:
        """Yes, no, a hedge, a lead or nothing, before the fact."""
        if best.is_answer and _YES_NO.match(question):
            return self._yes_or_no(question, best)
        if best.is_answer:
            return self.maybe(_LEAD_SHARE, self._phrases.leads[self._level])
        words = self._facts.words_of(question)
        near = words & self._facts.words_of(f"{topic.subject} {topic.brief} {' '.join(topic.ask)}")
        if words and (_YES_NO.match(question) or len(near) < _NEAR * len(words)):
            return join(self.pick(self._phrases.unsure), self.pick(self._phrases.instead))
        return self.maybe(_LEAD_SHARE, self._phrases.leads[self._level])

    def _yes_or_no(self, question: str, best: ScoredFact) -> str:
        """Yes or no where a fact about itself decides it: all that is asked stands on one side of a negation."""
        of_itself = to_first_person(best.fact.statement, self._name).startswith("I ")
        if _NEGATION.search(question) or not of_itself:
            return ""
        statement = best.fact.statement
        asked = self._facts.words_of(question)
        negation = _NEGATION.search(statement)
        if negation is None:
            return "Yes." if asked and asked <= self._facts.words_of(statement) else ""
        before = self._facts.words_of(statement[: negation.start()])
        after = self._facts.words_of(statement[negation.end() :])
        if asked & after and not asked & before:
            return "No."
        return "Yes." if asked and asked <= before - after else ""

    def _tell(self, chosen: Sequence[ScoredFact]) -> str:
        sentences: list[str] = []
        for item in chosen:
            self._used.add(item.fact.id)
            sentence = to_first_person(item.fact.statement, self._name)
            sentence += "" if sentence.endswith((".", "!", "?")) else "."
            if sentences and (link := self.pick(self._phrases.links)):
                continued = sentence if link.endswith(":") else decapitalize(sentence, keep=self._proper)
                sentence = f"{link} {continued}"
            sentences.append(sentence)
        self._last_told = sentences[0]
        return " ".join(sentences)

    def _name_briefly(self) -> str:
        self._is_named = True
        return self.pick(self._phrases.name_too)

    def _kind(self, template: str) -> str:
        """What it is, from a fact that says so; that fact is told then."""
        if "{kind}" not in template:
            return ""
        untold = [kind for kind in self._kinds if kind[0] not in self._used] or self._kinds
        if not untold:
            return _KIND
        fact_id, kind = self._rng.choice(untold)
        self._used.add(fact_id)
        return kind


def _cut_side_clause(sentence: str) -> str:
    """The main clause, where what stands after it can go: not a clause in the middle, nor most of the sentence."""
    match = _SIDE_CLAUSE.search(sentence)
    if match is None or "," in match[0][1:] or len(sentence[: match.start()].split()) < _SHORTEST_CLAUSE:
        return sentence
    return sentence[: match.start()] + "."


def _about(topic: Topic) -> str:
    return f"{topic.subject} {' '.join(topic.ask)}"


def join(*parts: str) -> str:
    """The parts that are not empty, a space between."""
    return " ".join(part for part in parts if part)
