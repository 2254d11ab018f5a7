"""What the assistant of an offline conversation says: who it is, and the fact that answers a question. Pure."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nanosft.generate.offline.explaining import Explainer
from nanosft.generate.offline.fact_index import FactIndex, ScoredFact
from nanosft.generate.offline.first_person import to_first_person
from nanosft.generate.offline.fit import NEGATION, decide, judge_fit
from nanosft.generate.offline.intents import asks_for_abilities, find_intent
from nanosft.generate.offline.phrases import Intent, Phrases
from nanosft.generate.offline.quiz import Reply
from nanosft.generate.offline.retelling import Reteller
from nanosft.generate.planning import Level, Topic
from nanosft.knowledge import Fact, Knowledge

_NUM_TRIES: Final = 4
_NUM_ABILITIES: Final = 3
_ALSO = re.compile(r"(?<!and)(?<!but)(?<!,) also(?= \w)")
_SAME: Final = 0.6
"""Share of the words of a second fact from which it says the first one over again."""
_KIND: Final = "an AI assistant"
_NUM_FACTS: Final[Mapping[Level, tuple[int, int]]] = {"simple": (1, 1), "plain": (1, 2), "technical": (2, 3)}
_NUM_KINDS: Final = 2
_LEAD_SHARE: Final = 0.2
_MADE_SHARE: Final = 0.6


class Speaker:
    """The assistant's side of one conversation; it tells no fact twice.

    Args:
        knowledge: What the assistant knows.
        facts: The same, ready to be searched.
        phrases: How it speaks.
        reteller: Puts facts into other words.
        level: How much detail the user wants.
        rng: Chooses among wordings.
        user_name: How to greet the user, or "".
    """

    def __init__(
        self,
        knowledge: Knowledge,
        facts: FactIndex,
        phrases: Phrases,
        reteller: Reteller,
        *,
        level: Level,
        rng: random.Random,
        user_name: str,
    ) -> None:
        self._facts = facts
        self._phrases = phrases
        self._reteller = reteller
        self._explainer = Explainer(phrases, reteller)
        self._name, self._maker, self._user_name = knowledge.name, knowledge.maker, user_name
        self._level: Level = level
        self._rng = rng
        self._used: set[str] = set()
        self._said: set[str] = set()
        self._is_named = self._is_told = False
        self._last_told = ""
        self._last_fact: Fact | None = None
        self._last_question = ""
        start = f"{knowledge.name} is a"
        self._kinds = [
            (fact.id, fact.statement.removeprefix(f"{knowledge.name} is ").rstrip("."))
            for fact in knowledge.facts
            if fact.statement.startswith((f"{start} ", f"{start}n ")) and not NEGATION.search(fact.statement)
        ][:_NUM_KINDS]

    def pick(self, pool: Sequence[str]) -> str:
        """A phrase of the pool with its slots filled, one not said yet while there is one."""
        unsaid = [text for text in pool if text not in self._said] or list(pool)
        choice = self._rng.choice(unsaid)
        self._said.add(choice)
        return choice.format(name=self._name, maker=self._maker, user=self._user_name, kind=self._kind(choice))

    def has_said(self, phrase: str) -> bool:
        """Whether `pick` has given this phrase."""
        return phrase in self._said

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
        self._last_told, self._last_fact = self._restate(intent), None
        self._is_named = self._is_named or self._name in text
        if intent == "made":
            return join(text, "" if self._is_named and self._rng.random() < _MADE_SHARE else self._name_briefly())
        needs_maker = self._maker and self._maker not in text and intent != "name"
        share = (1.0 if intent == "other" else _MADE_SHARE) if needs_maker else 0.0
        return join(text, self.maybe(share, self._phrases.identity["made"]))

    @property
    def has_answered(self) -> bool:
        """Whether what was said last is a fact, or who it is."""
        return bool(self._last_told)

    def forget_last(self) -> None:
        """What is said next is no fact: a doubt is not met with an older one."""
        self._last_told, self._last_fact, self._last_question = "", None, ""

    def answer(self, question: str, topic: Topic) -> str:
        """Answer a question on a topic by facts not told yet, or as far as it knows."""
        self.forget_last()
        self._last_question = question
        intent = find_intent(question)
        opener = ""
        if intent:
            opener = self.identify(intent)
        elif topic.names_itself and not self._is_named:
            opener = self.identify("name" if "name" in question else "who")
        if asks_for_abilities(question) and (abilities := self._find_abilities(topic)):
            return self._reteller.follow(opener, self._tell(abilities, framed=not opener))
        found = self._find(question, topic)
        fewest, most = _NUM_FACTS[self._level]
        num_facts = self._rng.randint(fewest, most)
        if intent:
            found, num_facts = [item for item in found if item.is_answer and intent != "made"], min(num_facts, 1)
        said = self._facts.words_of(opener)
        found = [item for item in found if not self._is_in(item, said)]
        if not found:
            return opener or self.pick(self._phrases.unsure)
        chosen = self._choose(found, num_facts)
        if not opener:
            opener = self._open(question, topic, chosen[0])
        return self._reteller.follow(opener, self._tell(chosen, framed=not opener))

    def tell(self, fact: Fact, reply: Reply) -> str:
        """Answer a question for this very fact."""
        lead = {
            "tell": self.maybe(_LEAD_SHARE, self._phrases.leads[self._level]),
            "confirm": self.pick(self._phrases.confirm),
            "correct": self.pick(self._phrases.correct),
        }[reply]
        return self._reteller.follow(lead, self._tell([ScoredFact(fact, 0.0, is_answer=True)], framed=not lead))

    def tell_section(self, facts: Sequence[Fact]) -> str:
        """Answer a question for what there is to say under a heading, by facts not told yet."""
        fewest, most = _NUM_FACTS[self._level]
        chosen = list(facts[: self._rng.randint(fewest, most)])
        lead = self.maybe(_LEAD_SHARE, self._phrases.leads[self._level])
        told = self._tell([ScoredFact(fact, 0.0, is_answer=True) for fact in chosen], framed=not lead)
        return self._reteller.follow(lead, told)

    def untold(self, facts: Iterable[Fact]) -> list[Fact]:
        """Those of the facts that were not told yet."""
        return [fact for fact in facts if fact.id not in self._used]

    def stand_by(self, share: float) -> str:
        """Yes to a doubt, and at times what was told last, in other words."""
        if not self._last_told:
            return self.pick(self._phrases.stand_by_not_knowing)
        if self._rng.random() >= share:
            return self.pick(self._phrases.stand_by)
        return self._reteller.follow(self.pick(self._phrases.stand_by_it), self._tell_again())

    def hold(self) -> str:
        """What was said last, in other words, to one who will not have it; without it, who it is."""
        told = self._tell_again() if self._last_told else self._restate("who")
        return self._reteller.follow(self.pick(self._phrases.hold), told)

    def _tell_again(self) -> str:
        """What was told last, without what stood around it."""
        fact = self._last_fact
        if fact is None:
            return self._last_told
        spoken, told = to_first_person(fact.statement, self._name), ""
        for _ in range(_NUM_TRIES):
            told = self._reteller.retell(fact, spoken, self._rng, framed=False)
            if told != self._last_told:
                break
        return told

    def support(self, words: str, sections: Sequence[str], share: float = 1.0) -> str:
        """One more fact on some words, or nothing where there is none."""
        asked = self._facts.words_of(words)
        found = [
            item
            for item in self._facts.find(words, sections, used=self._used)
            if len(asked & self._facts.words_of(item.fact.statement)) > 1
        ]
        return self._tell(found[:1]) if found and self._rng.random() < share else ""

    def simplify(self) -> str:
        """What was said last, explained: in fewer words or others, with what its hard words mean."""
        fact = self._last_fact
        if fact is None:
            return self._reteller.follow(self.pick(self._phrases.simply), self.pick(self._phrases.plain_identity))
        spoken = to_first_person(fact.statement, self._name)
        return self._explainer.explain(fact, spoken, self._last_question, self._last_told, self._rng)

    def can_answer(self, question: str, topic: Topic) -> bool:
        """Whether the fact that answers the question best is not told yet."""
        best = next(iter(self._facts.find(question, topic.sections, about=_about(topic))), None)
        return best is not None and best.is_answer and best.fact.id not in self._used and find_intent(question) is None

    def _find(self, question: str, topic: Topic) -> list[ScoredFact]:
        return self._facts.find(question, topic.sections, about=_about(topic), used=self._used)

    def _choose(self, found: Sequence[ScoredFact], num_facts: int) -> list[ScoredFact]:
        """The best fact, and others that answer the question too; of a topic in general, those that come next."""
        chosen = [found[0]]
        said = self._facts.words_of(found[0].fact.statement)
        for item in found[1:]:
            if len(chosen) == num_facts:
                break
            if item.is_answer == found[0].is_answer and not self._is_in(item, said):
                chosen.append(item)
                said |= self._facts.words_of(item.fact.statement)
        return chosen

    def _is_in(self, item: ScoredFact, said: frozenset[str]) -> bool:
        """Whether most words of a fact were said just now."""
        words = self._facts.words_of(item.fact.statement)
        return len(words & said) >= _SAME * len(words)

    def _find_abilities(self, topic: Topic) -> list[ScoredFact]:
        """What it can do, of the topic first."""
        sections = [*topic.sections, *(section for section in self._facts.sections if section not in topic.sections)]
        can = f"{self._name} can "
        facts = [fact for section in sections for fact in self._facts.in_section(section)]
        return [
            ScoredFact(fact, 0.0, is_answer=True)
            for fact in facts
            if fact.statement.startswith(can) and fact.id not in self._used
        ][:_NUM_ABILITIES]

    def _open(self, question: str, topic: Topic, best: ScoredFact) -> str:
        """Yes, no, a hedge, a lead or nothing, before the fact."""
        match judge_fit(question, topic, best, self._facts, self._name):
            case "no reason":
                return self.pick(self._phrases.reason_unknown)
            case "beside":
                return join(self.pick(self._phrases.unsure), self.pick(self._phrases.instead))
            case "yes or no":
                return decide(question, best.fact.statement, self._facts, self._name)
            case "fits":
                return self.maybe(_LEAD_SHARE, self._phrases.leads[self._level])

    def _tell(self, chosen: Sequence[ScoredFact], *, framed: bool = False) -> str:
        """The facts in other words, a frame around the first where nothing stands before it."""
        sentences: list[str] = []
        for item in chosen:
            self._used.add(item.fact.id)
            spoken = to_first_person(item.fact.statement, self._name)
            if not sentences and not self._is_told:
                spoken = _ALSO.sub("", spoken, count=1)
            sentence = self._reteller.retell(item.fact, spoken, self._rng, framed=framed and not sentences)
            if not sentences:
                self._last_told, self._last_fact = sentence, item.fact
            elif link := self.pick(self._phrases.links):
                continued = self._reteller.continue_with(sentence)
                sentence = sentence if continued is None else f"{link} {continued}"
            sentences.append(sentence)
            self._is_told = True
        return " ".join(sentences)

    def _restate(self, intent: Intent) -> str:
        """Who it is, in the words that a doubt about it is met with."""
        return f"I was made by {self._maker}." if intent == "made" else f"I am {self._name}."

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


def _about(topic: Topic) -> str:
    return f"{topic.subject} {' '.join(topic.ask)}"


def join(*parts: str) -> str:
    """The parts that are not empty, a space between."""
    return " ".join(part for part in parts if part)
