"""What a plan is made of: topics, personas, dynamics and styles of first messages, from TOML. Pure but for two readers.

The shipped `dimensions.toml` suits any assistant: its texts have slots for name and maker, and its topics are bound to
headings of the knowledge base. `--dimensions URI` puts another file in its place.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from string import Formatter
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from nanosft.errors import ConfigError, DataError
from nanosft.foreign import parse_toml
from nanosft.knowledge import Knowledge
from nanosft.store import open_object

FORMAT: Final = 1
DEFAULT_NAME: Final = "dimensions.toml"
_SLOTS: Final = frozenset({"name", "maker", "user", "subject", "ask", "question"})
_TOPIC_SLOTS: Final = frozenset({"subject", "ask", "question"})

Level = Literal["simple", "plain", "technical"]
Move = Literal[
    "ask", "more", "related", "who", "doubt", "simpler", "wrong", "unknown", "thanks", "false", "true", "insist",
    "inject", "role", "task", "sum",
]  # fmt: skip
Rewrite = Literal["lowercase", "loose-end", "typo"]


def _check_template(text: str) -> str:
    try:
        slots = slots_of(text)
    except ValueError as exc:
        raise ValueError(f"{text!r}: {exc}; write {{{{ for a brace") from exc
    if unknown := slots - _SLOTS:
        raise ValueError(f"{text!r}: no slot {{{min(unknown)}}}; there are {', '.join(sorted(_SLOTS))}")
    return text


def slots_of(text: str) -> set[str]:
    """The slots of a template: `{"name"}` of `Hi {name}!`."""
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


Text = Annotated[str, Field(min_length=1)]
Template = Annotated[str, Field(min_length=1), AfterValidator(_check_template)]
Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later: left out of the hash where they are empty, so that older files keep theirs."""

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in self._later or value}


class Topic(_Table):
    """What a conversation is about.

    Attributes:
        sections: Ids of the knowledge topics it stands on.
        names_itself: Whether an answer on it must name the assistant.
        brief: The topic in a few words, for the prompt.
        subject: A noun phrase: `your training cost`.
        ask: Clauses that follow `tell me`: `what your training cost`.
        questions: Whole questions, as a user asks them.
    """

    id: Id
    category: Text
    sections: tuple[Text, ...] = Field(min_length=1)
    names_itself: bool = False
    brief: Template
    subject: Template
    ask: tuple[Template, ...] = Field(min_length=1)
    questions: tuple[Template, ...] = Field(min_length=1)


class OtherTopics(_Table):
    """Templates of the topics made for sections of the knowledge base that no topic names; subject is the heading."""

    category: Text
    brief: Template
    ask: tuple[Template, ...] = Field(min_length=1)
    questions: tuple[Template, ...] = Field(min_length=1)


class Persona(_Table):
    """Who the user is.

    Attributes:
        description: For the prompt.
        ages: How old this user may be; one is drawn for each row, as of the next two.
        moods: How it may feel.
        goals: What it may want.
        says: How it introduces itself, in conversations composed offline.
        level: How much detail the answers should have.
        reactions: What this user says before the next question, in conversations composed offline.
    """

    _later = frozenset({"ages", "moods", "goals", "says"})

    id: Id
    description: Text
    ages: tuple[Text, ...] = ()
    moods: tuple[Text, ...] = ()
    goals: tuple[Text, ...] = ()
    says: tuple[Text, ...] = ()
    level: Level
    reactions: tuple[Text, ...] = Field(min_length=1)


class Dynamic(_Table):
    """How a conversation goes.

    Attributes:
        num_messages: Messages of both sides, an even number: it begins with the user and ends with the assistant.
        moves: What the user does in each turn.
        system: System messages, of which one stands before the first message; none where empty.
    """

    _later = frozenset({"system"})

    id: Id
    description: Text
    num_messages: int = Field(ge=2, le=400, multiple_of=2)
    moves: tuple[Move, ...]
    system: tuple[Template, ...] = ()

    @property
    def uses_tool(self) -> bool:
        """Whether something is computed: the assistant's answers may have parts then."""
        return "sum" in self.moves

    @model_validator(mode="after")
    def _check_moves(self) -> Self:
        if len(self.moves) * 2 != self.num_messages:
            raise ValueError(
                f"{self.num_messages} messages are {self.num_messages // 2} turns, moves has {len(self.moves)}"
            )
        if self.moves[0] != "ask":
            raise ValueError("the first of moves must be 'ask'")
        return self


class Style(_Table):
    """How first messages are written.

    Attributes:
        first_messages: Templates; all hold a slot of the topic, or none does.
        rewrites: Done to each of them, seeded.
        verbatim: Never rewritten when all are used up, but used again as they are.
    """

    id: Id
    description: Text
    first_messages: tuple[Template, ...] = Field(min_length=1)
    rewrites: tuple[Rewrite, ...] = ()
    verbatim: bool = False

    @property
    def is_about_topic(self) -> bool:
        """Whether its first messages hold the topic's question or subject already."""
        return bool(slots_of(self.first_messages[0]) & _TOPIC_SLOTS)

    @model_validator(mode="after")
    def _check_slots(self) -> Self:
        for text in self.first_messages:
            if bool(slots_of(text) & _TOPIC_SLOTS) != self.is_about_topic:
                raise ValueError(
                    f"{text!r}: all first messages of a style hold {{question}}, {{ask}} or {{subject}}, or none"
                )
        return self


class Dimensions(_Table):
    """All that a plan varies.

    Attributes:
        max_opening_share: The largest share of the rows that one first message may open.
    """

    format: Literal[1] = FORMAT
    max_opening_share: float = Field(default=0.01, gt=0.0, le=1.0)
    user_names: tuple[Text, ...] = Field(min_length=1)
    other_topics: OtherTopics
    topics: tuple[Topic, ...]
    personas: tuple[Persona, ...] = Field(min_length=1)
    dynamics: tuple[Dynamic, ...] = Field(min_length=1)
    styles: tuple[Style, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        for kind in ("topics", "personas", "dynamics", "styles"):
            counts = Counter(item.id for item in getattr(self, kind))
            if repeated := [item_id for item_id, count in counts.items() if count > 1]:
                raise ValueError(f"{kind}: id {repeated[0]!r} stands twice")
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the content: comments and order of keys in the file do not count."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def read_dimensions(uri: str | None = None) -> Dimensions:
    """The dimensions at a URI, or the shipped ones.

    Raises:
        DataError: There is no such object.
        ConfigError: It is no valid dimensions file.
        StoreError: The store fails.
    """
    if uri is None:
        return parse_dimensions(
            files("nanosft.generate.planning").joinpath(DEFAULT_NAME).read_bytes(), where=DEFAULT_NAME
        )
    store, key = open_object(uri)
    return parse_dimensions(store.read(key), where=uri)


def parse_dimensions(data: bytes, *, where: str) -> Dimensions:
    """Parse and check a dimensions file.

    Args:
        data: TOML.
        where: Its URI, for errors.

    Raises:
        ConfigError: It is no TOML, or a key is missing, unknown or wrong; the message names the key.
    """
    table = parse_toml(data, where=where)
    try:
        return Dimensions.model_validate(table)
    except ValidationError as exc:
        problem = exc.errors()[0]
        key = _key(problem["loc"], table)
        message = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {key}: {message}" if key else f"{where}: {message}") from exc


def bind_topics(dimensions: Dimensions, knowledge: Knowledge) -> tuple[Topic, ...]:
    """The topics that a knowledge base can answer, their `sections` cut to those that have facts.

    A topic without any such section is left out; a section with facts that no topic names gets a topic of its own.

    Raises:
        DataError: None is left.
    """
    known = {topic.id: topic for topic in knowledge.topics if topic.facts}
    bound: list[Topic] = []
    for topic in dimensions.topics:
        sections = tuple(section for section in topic.sections if section in known)
        questions, ask = _answerable(topic.questions, knowledge), _answerable(topic.ask, knowledge)
        if sections and questions and ask and _answerable((topic.subject,), knowledge):
            bound.append(topic.model_copy(update={"sections": sections, "questions": questions, "ask": ask}))
    taken = {topic.id for topic in bound}
    named = {section for topic in bound for section in topic.sections}
    for section in (section for section in known.values() if section.id not in named):
        topic_id = section.id if section.id not in taken else f"about-{section.id}"
        subject = knowledge.name if section.title.startswith(knowledge.name) else _as_noun(section.title)
        bound.append(_other_topic(dimensions.other_topics, topic_id, section.id, subject))
    if not bound:
        raise DataError(f"{knowledge.where}: no topic of the dimensions has a section with facts in it")
    return tuple(bound)


def _as_noun(title: str) -> str:
    """A heading as it stands in a sentence: one plain word is no name and gets a small letter."""
    return title.lower() if title.isalpha() and title[1:].islower() else title


def _other_topic(templates: OtherTopics, topic_id: str, section: str, subject: str) -> Topic:
    subject = subject.replace("{", "").replace("}", "")

    def fill(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(text.replace("{subject}", subject) for text in texts)

    return Topic(
        id=topic_id,
        category=templates.category,
        sections=(section,),
        brief=fill((templates.brief,))[0],
        subject=subject,
        ask=fill(templates.ask),
        questions=fill(templates.questions),
    )


def _answerable(texts: tuple[str, ...], knowledge: Knowledge) -> tuple[str, ...]:
    """The texts without those that speak of a maker nobody knows."""
    return tuple(text for text in texts if knowledge.maker or "maker" not in slots_of(text))


def _key(loc: tuple[int | str, ...], table: object) -> str:
    """The path of a wrong key as people write it: `topics[3] 'cost'.questions`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
            table = table[part] if isinstance(table, list) and part < len(table) else None
            if isinstance(table, dict) and isinstance(table.get("id"), str):
                path += f" {table['id']!r}"
        else:
            path += f".{part}" if path else str(part)
            table = table.get(part) if isinstance(table, dict) else None
    return path
