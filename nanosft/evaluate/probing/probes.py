"""Probes: questions about who the assistant is and what it knows of itself, made from a knowledge base. Pure.

Each item (the name, the maker, a fact with a key, a section, a question without an answer) is asked in several
wordings, and the wordings in several manners in turn: as the first message, after other turns, with typos, and by a
persona.
Questions that begin with a false statement are a manner of their own.
"""

import hashlib
import random
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nanosft.conversation import Message
from nanosft.errors import ConfigError, clip
from nanosft.evaluate.probing.questions import ask_by_grammar
from nanosft.foreign import parse_toml
from nanosft.knowledge import Fact, Knowledge
from nanosft.knowledge.keys import Key, alter, cut_before, find_key, leave_gap
from nanosft.knowledge.quantities import find_quantities
from nanosft.store import open_object

Kind = Literal["name", "maker", "fact", "section", "unanswerable"]
Manner = Literal["first turn", "after other turns", "typos", "persona", "false premise"]
_MANNERS: Final[tuple[Manner, ...]] = ("first turn", "after other turns", "typos", "persona")
_SHORTEST_TYPO: Final = 4
_OPEN_GAP: Final = "_____."
"""A gap at the end of a fact, behind which nothing tells what belongs there."""
_TOPIC_WORDS: Final = 6
"""Words of a fact from which a section counts as one that can be asked for as a whole."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question, and what a right answer holds.

    Attributes:
        id: 12 hex digits of the SHA-256 of its messages.
        kind: What is asked for.
        topic: Where it counts in the score by topic: a section of the knowledge base, or "unanswerable".
        item: What is asked for, such as a fact's id; intervals resample items.
        manner: How it is asked.
        question: The question in its plain form, as it is looked for in training data.
        messages: What the model reads; the last is the user's.
        key: Of a fact: what an answer must hold.
        facts: Statements that answer it.
    """

    id: str
    kind: Kind
    topic: str
    item: str
    manner: Manner
    question: str
    messages: tuple[Message, ...]
    key: Key | None = None
    facts: tuple[str, ...] = ()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Texts = Annotated[tuple[str, ...], Field(min_length=1)]


class _Asked(_Table):
    questions: Texts
    premises: tuple[str, ...] = ()


class _OfFacts(_Table):
    completions: Texts
    gaps: Texts
    premises: Texts


class _Introduced(_Table):
    introductions: Texts


class _Talk(_Table):
    messages: Annotated[tuple[str, ...], Field(min_length=2)]


class Wordings(_Table):
    """How probes ask; see `wordings.toml`."""

    name: _Asked
    maker: _Asked
    fact: _OfFacts
    section: _Asked
    unanswerable: _Asked
    persona: _Introduced
    talks: Annotated[tuple[_Talk, ...], Field(min_length=1)]


def read_wordings() -> Wordings:
    """The shipped wordings."""
    text = files("nanosft.evaluate.probing").joinpath("wordings.toml").read_text(encoding="utf-8")
    return Wordings.model_validate(tomllib.loads(text))


class _Persona(BaseModel):
    description: str = Field(min_length=1)


class _Personas(BaseModel):
    personas: tuple[_Persona, ...] = Field(min_length=1)


def read_personas(uri: str | None) -> tuple[str, ...]:
    """Who asks: the descriptions of the personas of a dimensions file, or of the shipped one.

    Raises:
        ConfigError: It has no personas.
        DataError: There is no such file.
    """
    if uri is None:
        data = files("nanosft").joinpath("generate/planning/dimensions.toml").read_bytes()
    else:
        store, key = open_object(uri)
        data = store.read(key)
    try:
        found = _Personas.model_validate(parse_toml(data, where=str(uri)))
    except ValidationError as exc:
        problem = clip(str(exc), 120)
        raise ConfigError(f"{uri}: no dimensions with [[personas]] and their descriptions: {problem}") from exc
    return tuple(persona.description for persona in found.personas)


def make_probes(knowledge: Knowledge, wordings: Wordings, personas: Sequence[str], *, seed: int = 0) -> list[Probe]:
    """Every probe that the knowledge base gives, in a fixed order, no two with equal messages.

    Args:
        knowledge: What the assistant is and knows.
        wordings: How to ask.
        personas: Who asks.
        seed: Of typos, and of which persona and which earlier turns go with which question.
    """
    make = _Maker(knowledge, wordings, personas, seed)
    probes = {probe.id: probe for probe in make.all()}
    return list(probes.values())


def choose_probes(probes: Sequence[Probe], num: int, *, seed: int = 0) -> list[Probe]:
    """At most `num` of the probes, in their order: name and maker first, then the items in turn, seeded."""
    by_item: dict[str, list[Probe]] = {}
    for probe in probes:
        by_item.setdefault(probe.item, []).append(probe)
    ranked = []
    for item, own in by_item.items():
        order = sorted(own, key=lambda probe: _digest(f"{seed} {probe.id}"))
        ranked += [(rank, _digest(f"{seed} {item}"), probe) for rank, probe in enumerate(order)]
    ranked.sort(key=lambda entry: (entry[0], entry[1]))
    chosen = {probe.id for _, _, probe in ranked[:num]}
    return [probe for probe in probes if probe.id in chosen]


class _Maker:
    """Makes probes; see `make_probes`."""

    def __init__(self, knowledge: Knowledge, wordings: Wordings, personas: Sequence[str], seed: int) -> None:
        self._knowledge, self._wordings, self._personas, self._seed = knowledge, wordings, personas, seed
        self._num_made = 0
        facts = knowledge.facts
        self._is_shared = {fact.id: _begins_another(fact, find_key(fact, knowledge), facts) for fact in facts}

    def all(self) -> Iterator[Probe]:
        yield from self._own("name", self._wordings.name)
        if self._knowledge.maker:
            yield from self._own("maker", self._wordings.maker)
        known = frozenset((item.unit, item.value) for item in find_quantities(self._knowledge.text))
        for topic in self._knowledge.topics:
            for fact in topic.facts:
                yield from self._of_fact(fact, known)
            yield from self._of_section(topic.id, topic.title, topic.facts)
        for question in self._fill(self._wordings.unanswerable.questions):
            yield from self._ask(question, "unanswerable", "unanswerable", question)

    def _own(self, kind: Literal["name", "maker"], asked: _Asked) -> Iterator[Probe]:
        """The name or the maker: each wording in every manner, and an item of its own."""
        for question in self._fill(asked.questions):
            for manner in _MANNERS:
                yield from self._ask(question, kind, kind, f"{kind}: {question}", manner=manner)
        for question in self._fill(asked.premises):
            yield from self._ask(question, kind, kind, f"{kind}: {question}", manner="false premise")

    def _of_fact(self, fact: Fact, known: frozenset[tuple[str, float]]) -> Iterator[Probe]:
        key = find_key(fact, self._knowledge)
        if key is None:
            return
        wordings = self._wordings.fact
        questions = list(ask_by_grammar(fact, key))
        before, gap = cut_before(fact, key), leave_gap(fact, key)
        if not self._is_shared[fact.id]:
            questions += [text.replace("{before}", before) for text in wordings.completions if before]
        if not self._is_shared[fact.id] or not gap.endswith(_OPEN_GAP):
            questions += [text.replace("{gap}", gap) for text in wordings.gaps]
        for question in questions:
            yield from self._ask(question, "fact", fact.topic, fact.id, key=key, facts=(fact.statement,))
        altered = alter(fact, key, known)
        for text in wordings.premises if altered else ():
            question = text.replace("{altered}", altered)
            yield from self._ask(
                question, "fact", fact.topic, fact.id, manner="false premise", key=key, facts=(fact.statement,)
            )

    def _of_section(self, topic: str, title: str, facts: Sequence[Fact]) -> Iterator[Probe]:
        statements = tuple(fact.statement for fact in facts if len(fact.statement.split()) >= _TOPIC_WORDS)
        subject = title.lower() if title.isalpha() and title[1:].islower() else title
        for text in self._fill(self._wordings.section.questions) if statements else ():
            question = text.replace("{subject}", subject)
            yield from self._ask(question, "section", topic, f"section {topic}", facts=statements)

    def _fill(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts with name and maker in their slots, without those that need a maker where none is known."""
        for text in texts:
            if self._knowledge.maker or "{maker}" not in text:
                yield text.replace("{name}", self._knowledge.name).replace("{maker}", self._knowledge.maker)

    def _ask(
        self,
        question: str,
        kind: Kind,
        topic: str,
        item: str,
        *,
        manner: Manner | None = None,
        key: Key | None = None,
        facts: tuple[str, ...] = (),
    ) -> Iterator[Probe]:
        """One probe, in the manner that is due where none is given."""
        manner = manner or _MANNERS[self._num_made % len(_MANNERS)]
        self._num_made += 1
        rng = random.Random(_digest(f"{self._seed} {manner} {question}"))  # noqa: S311 - not for secrets
        text = question
        earlier: tuple[str, ...] = ()
        if manner == "typos":
            text = _mistype(question, rng, keep=(key.text if key else "", self._knowledge.name))
        elif manner == "persona":
            introduction = rng.choice(self._wordings.persona.introductions)
            text = introduction.replace("{question}", question).replace("{description}", rng.choice(self._personas))
        elif manner == "after other turns":
            earlier = rng.choice(self._wordings.talks).messages
        said = tuple(
            Message("assistant" if place % 2 else "user", earlier_text) for place, earlier_text in enumerate(earlier)
        )
        messages = (*said, Message("user", text))
        digest = hashlib.sha256("\n".join(f"{message.role}: {message.text}" for message in messages).encode())
        yield Probe(digest.hexdigest()[:12], kind, topic, item, manner, question, messages, key, facts)


def _begins_another(fact: Fact, key: Key | None, facts: Sequence[Fact]) -> bool:
    """Whether another fact begins as this one does up to its key: then its beginning has more than one right end."""
    if key is None:
        return False
    before = fact.statement[: key.start]
    return any(other.statement.startswith(before) for other in facts if other.id != fact.id)


def _mistype(text: str, rng: random.Random, *, keep: tuple[str, ...]) -> str:
    """The text without its capitals' weight: lower case, and two neighbouring letters of one word swapped."""
    spots = [
        match
        for match in re.finditer(rf"[a-zA-Z]{{{_SHORTEST_TYPO},}}", text)
        if match[0].islower() and not any(match[0] in kept for kept in keep)
    ]
    if spots:
        word = rng.choice(spots)
        at = word.start() + rng.randrange(1, len(word[0]) - 1)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:1].lower() + text[1:].rstrip("?. ")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
