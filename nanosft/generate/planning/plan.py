"""The prompt plan: topic, persona, dynamic and first message of each row. Pure, and O(1) by row.

    plan = make_plan(read_dimensions(), read_knowledge(uri), seed=7)
    plan_row(plan, 17)              # row 17 of the plan, whatever the number of rows or shards
    plan_row(plan, 17, 1)           # another prompt of the same cell, for a row rejected too often

Stratified: with T topics, row r has topic `r mod T`, and of another dimension with n values, in a seeded order,

    (r + shift(r // lcm(T, n))) mod n

where the shift of a stretch of lcm(T, n) rows is seeded, but takes g = gcd(T, n) values that differ mod g in each g
stretches. Each aligned block of n rows holds every value once, as lcm(T, n) is a multiple of n: counts of a value
differ by at most 1 at every length. Each aligned block of T * n rows holds every pair with a topic once: within a
stretch the pairs differ (Chinese remainder), and those of another stretch have another difference mod g. Counts of a
pair differ by at most 1 as well. Pairs without a topic are near even where their numbers have no common factor, and
else once the shifts have mixed them, after some stretches. Models and languages have shares: see `deals`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, TypeVar

from nanosft.errors import ConfigError
from nanosft.generate.planning.deals import Deal, make_deal
from nanosft.generate.planning.dimensions import Dimensions, Dynamic, Persona, Style, Topic, bind_topics
from nanosft.generate.planning.draws import choose, draw, permute
from nanosft.generate.planning.lengths import bound_dynamics, pick_length, stretch_dynamics
from nanosft.generate.planning.openings import Opening, Visit, count_variants, write_opening
from nanosft.knowledge import Fact, Knowledge

ItemT = TypeVar("ItemT")
_SHORT: Final = 4
"""Messages of a conversation that has no turn to spare for a greeting alone: the question is joined to it."""
_MESSAGES_PER_FACT: Final = 10
"""Of a long talk."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One row of the plan: everything that decides one conversation.

    Attributes:
        row: Row number from 0.
        prompt_variant: 0 is the row itself; 1, 2, … are other prompts of the same cell.
        topic: What it is about; `.sections` are ids of knowledge topics, `.names_itself` is for the identity gate.
        persona: Who the user is.
        dynamic: How it goes.
        style: How the first message is written.
        opening: The user's first message, and what it asks.
        seed: 63 bits of (run seed, row, prompt variant), for whatever else must be drawn; also the API's `seed`.
        model: Who is to write it; empty: whoever is asked.
        language: Code of the language that it is to be in; empty: English, as the whole plan is.
        facts: What the conversation has to teach, of the topic's sections: dealt in turn, each as often as the others.
        user: Who the user is: the persona's description with an age, a mood and a goal.
        system: The system message before the first one; empty where there is none.
        is_fill: Whether it was added for its one fact, which too few answers stated.
    """

    row: int
    prompt_variant: int
    topic: Topic
    persona: Persona
    dynamic: Dynamic
    style: Style
    opening: Opening
    seed: int
    model: str = ""
    language: str = ""
    facts: tuple[Fact, ...] = ()
    user: str = ""
    system: str = ""
    is_fill: bool = False

    @property
    def names_itself(self) -> bool:
        """Whether the assistant has to say its name: the topic asks for it, or the user only greets."""
        return self.topic.names_itself or not self.opening.asks_at_once

    @property
    def cell(self) -> str:
        """Topic and persona, as `meta.cell` has it."""
        return f"{self.topic.id} x {self.persona.id}"

    @property
    def num_messages(self) -> int:
        """Messages the conversation must have, user's and assistant's."""
        return self.dynamic.num_messages

    @property
    def first_message(self) -> str:
        """The user's first message, verbatim."""
        return self.opening.text


@dataclass(frozen=True, slots=True)
class Plan:
    """Dimensions bound to a knowledge base, and a seed: all rows, without listing them.

    Attributes:
        dimensions: As they were read.
        topics: Those the knowledge base can answer; they and the others are in seeded order.
        models: Who writes; None: whoever is asked.
        languages: None: English alone.
        talks: Long talks at all their lengths, by the id of their dynamic; empty: each dynamic has its own length.
        fills: The fact that a row is there for, of rows that were added for facts which too few answers stated.
    """

    seed: int
    knowledge: Knowledge
    dimensions: Dimensions
    topics: tuple[Topic, ...]
    personas: tuple[Persona, ...]
    dynamics: tuple[Dynamic, ...]
    styles: tuple[Style, ...]
    models: Deal | None = None
    languages: Deal | None = None
    talks: Mapping[str, tuple[Dynamic, ...]] = field(default_factory=dict)
    fills: Mapping[int, str] = field(default_factory=dict)

    @property
    def most_messages(self) -> int:
        """Of the longest conversation."""
        return max(item.num_messages for dynamic in self.dynamics for item in self._lengths_of(dynamic))

    @property
    def mean_messages(self) -> float:
        """Of all conversations, as each dynamic has as many rows as another."""
        means = [fmean(item.num_messages for item in self._lengths_of(dynamic)) for dynamic in self.dynamics]
        return fmean(means)

    def _lengths_of(self, dynamic: Dynamic) -> tuple[Dynamic, ...]:
        return self.talks.get(dynamic.id, (dynamic,))


def make_plan(
    dimensions: Dimensions,
    knowledge: Knowledge,
    *,
    seed: int,
    models: Mapping[str, int] | None = None,
    languages: Mapping[str, int] | None = None,
    max_messages: int | None = None,
) -> Plan:
    """Bind the dimensions' topics to the knowledge base's sections and order all values by the seed.

    Args:
        dimensions: What varies.
        knowledge: What may be said.
        seed: Of all orders and draws.
        models: Whole shares of the rows by slug; None: no row names a model.
        languages: Whole shares by language code; None: English alone.
        max_messages: Of a conversation, an even number; None: as long as the dynamics are.

    Raises:
        ConfigError: The seed is negative, no dynamic fits `max_messages` or can be as long, or a style has too few
            first messages for `max_opening_share`.
        DataError: The knowledge base answers no topic.
    """
    if seed < 0:
        raise ConfigError(f"--seed {seed}: must be 0 or more")

    def order(items: Sequence[ItemT], label: str) -> tuple[ItemT, ...]:
        return tuple(items[index] for index in permute(len(items), seed, label))

    topics = [
        topic.model_copy(update={"questions": order(topic.questions, topic.id), "ask": order(topic.ask, topic.id)})
        for topic in bind_topics(dimensions, knowledge)
    ]
    styles = [
        style.model_copy(update={"first_messages": order(style.first_messages, style.id)})
        for style in dimensions.styles
    ]
    dynamics = bound_dynamics(dimensions.dynamics, max_messages)
    _check_openings(dimensions, len(topics))
    counts = {"persona": len(dimensions.personas), "dynamic": len(dynamics), "style": len(styles)}
    writers = make_deal("model", models, turn=1, against=counts) if models else None
    return Plan(
        seed=seed,
        knowledge=knowledge,
        dimensions=dimensions,
        topics=order(topics, "topics"),
        personas=order(dimensions.personas, "personas"),
        dynamics=order(dynamics, "dynamics"),
        styles=order(styles, "styles"),
        models=writers,
        languages=make_deal("language", languages, turn=2, against=counts, beside=writers) if languages else None,
        talks=stretch_dynamics(dynamics, max_messages),
    )


def plan_row(plan: Plan, row: int, prompt_variant: int = 0) -> PlanRow:
    """Row `row` of the plan: a function of (seed, row, variant), the dimensions and the knowledge base alone."""
    num_topics, num_styles = len(plan.topics), len(plan.styles)
    fact = _find_fill(plan, row)
    topic_index = row % num_topics if fact is None else _choose_topic(plan, row, fact)
    style_index = choose(plan.seed, num_topics, row, "style", num_styles)
    topic, style = plan.topics[topic_index], plan.styles[style_index]
    dynamics = plan.dynamics if fact is None else _with_room(plan.dynamics)
    dynamic = dynamics[choose(plan.seed, num_topics, row, "dynamic", len(dynamics))]
    if fact is None:
        dynamic = pick_length(plan.talks, dynamic, visit=row // len(dynamics), seed=plan.seed)
    seed = draw(plan.seed, "row", row, prompt_variant) >> 1
    visit = Visit(
        start=style_index + draw(plan.seed, "start", topic_index) % 1000 * len(topic.questions),
        visit=row // (num_topics * num_styles) if style.is_about_topic else row // num_styles,
        topic_visit=row // num_topics,
        prompt_variant=prompt_variant,
        seed=seed,
    )
    opening = write_opening(
        topic,
        style,
        visit,
        knowledge=plan.knowledge,
        user_names=plan.dimensions.user_names,
        must_ask=dynamic.num_messages <= _SHORT,
    )
    persona = plan.personas[choose(plan.seed, num_topics, row, "persona", len(plan.personas))]
    model, language = (
        "" if deal is None else deal.pick(row, num_topics=num_topics, seed=plan.seed)
        for deal in (plan.models, plan.languages)
    )
    turn = row // num_topics + prompt_variant
    facts = (fact,) if fact is not None else _deal_facts(plan, topic, turn, dynamic)
    return PlanRow(
        row,
        prompt_variant,
        topic,
        persona,
        dynamic,
        style,
        opening,
        seed,
        model,
        language,
        facts,
        _describe(persona, seed),
        _choose_system(dynamic, plan.knowledge, seed),
        fact is not None,
    )


def _find_fill(plan: Plan, row: int) -> Fact | None:
    """The fact that a row was added for."""
    if row not in plan.fills:
        return None
    return next((fact for fact in plan.knowledge.facts if fact.id == plan.fills[row]), None)


def _choose_topic(plan: Plan, row: int, fact: Fact) -> int:
    """A topic that the fact is of; the dealt one where none is."""
    own = [index for index, topic in enumerate(plan.topics) if fact.topic in topic.sections]
    return own[row % len(own)] if own else row % len(plan.topics)


def _with_room(dynamics: tuple[Dynamic, ...]) -> tuple[Dynamic, ...]:
    """Those in which the user asks on, so that one fact more has its place."""
    return tuple(item for item in dynamics if not {"more", "related"}.isdisjoint(item.moves)) or dynamics


def _deal_facts(plan: Plan, topic: Topic, turn: int, dynamic: Dynamic) -> tuple[Fact, ...]:
    """Facts of the topic's sections in turn: one for a short conversation, two for a longer one, more for a talk."""
    own = [fact for fact in plan.knowledge.facts if fact.topic in topic.sections]
    wanted = 1 if dynamic.num_messages < _SHORT else 2
    if dynamic.id in plan.talks:
        wanted = max(wanted, dynamic.num_messages // _MESSAGES_PER_FACT)
    num = min(len(own), wanted)
    return tuple(own[(turn + place * (len(own) // num)) % len(own)] for place in range(num))


def _describe(persona: Persona, seed: int) -> str:
    """Who the user is in this row."""
    parts = [persona.description]
    for form, values in (("{} years old", persona.ages), ("mood: {}", persona.moods), ("wants to {}", persona.goals)):
        if values:
            parts.append(form.format(values[draw(seed, form) % len(values)]))
    return "; ".join(parts)


def _choose_system(dynamic: Dynamic, knowledge: Knowledge, seed: int) -> str:
    if not dynamic.system:
        return ""
    template = dynamic.system[draw(seed, "system") % len(dynamic.system)]
    maker = knowledge.maker or "its maker"
    return template.format(name=knowledge.name, maker=maker, user="", subject="", ask="", question="")


def _check_openings(dimensions: Dimensions, num_topics: int) -> None:
    for style in dimensions.styles:
        num_variants = count_variants(style, len(dimensions.user_names)) * (num_topics if style.is_about_topic else 1)
        share = 1 / (len(dimensions.styles) * num_variants)
        if share > dimensions.max_opening_share:
            raise ConfigError(
                f"dimensions: style {style.id!r} can make {num_variants} first messages, so that one would open "
                f"{share:.2%} of the rows; max_opening_share is {dimensions.max_opening_share:.2%}: "
                "add first messages, user_names or styles, or raise it"
            )
