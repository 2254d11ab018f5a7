"""The prompt plan: which topic, persona, dynamic and first message each row has. Pure, O(1) by row.

INTERFACE (bodies follow within the hour; the stage codes to these):

    knowledge = parse_knowledge(text, where=uri)                    # nanosft.knowledge
    dimensions = parse_dimensions(toml_text_or_None, where=uri)     # nanosft.generate.dimensions; default_dimensions()
    plan = make_plan(dimensions, knowledge, seed=seed)              # binds topics to the knowledge's sections
    row = plan_row(plan, 17)                                        # PlanRow; plan_row(plan, 17, fresh=1): fresh prompt, same cell
    prompter = make_prompter(plan, tone=settings.tone)              # nanosft.generate.prompts
    messages = write_messages(prompter, row, model=slug, refusals=["…reason…"])
    schema = response_format(row)                                   # {"type": "json_schema", …}
    conversation = compose(plan, row)                               # nanosft.generate.offline -> Conversation
"""

from dataclasses import dataclass

from nanosft.generate.dimensions import Dimensions, Dynamic, Persona, Style, Topic
from nanosft.knowledge import Knowledge


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One row of the plan: everything that decides one conversation.

    Attributes:
        row: Row number from 0.
        fresh: 0 is the row itself; 1, 2, … are fresh prompts of the same cell, for a row refused too often.
        topic: What it is about; `.id`, `.sections` (knowledge sections it stands on), `.names_itself` (identity gate).
        persona: Who the user is.
        dynamic: How it goes; `.num_messages`.
        style: How the first message is written.
        first_message: The user's first message, verbatim.
        question: The topic's question that leads this conversation (asked at once, or after a greeting).
        user_name: The user's first name, where the opening gives one.
        seed: 63 bits of (run seed, row, fresh), for whatever else must be drawn; also the API's `seed`.
    """

    row: int
    fresh: int
    topic: Topic
    persona: Persona
    dynamic: Dynamic
    style: Style
    first_message: str
    question: str
    user_name: str | None
    seed: int

    @property
    def cell(self) -> str:
        """Topic × persona, as `meta.cell` has it: `identity.name × curious beginner`."""
        raise NotImplementedError

    @property
    def num_messages(self) -> int:
        """Messages the conversation must have, user's and assistant's."""
        return self.dynamic.num_messages


@dataclass(frozen=True, slots=True)
class Plan:
    """Dimensions bound to a knowledge base, and a seed: all rows, without listing them."""

    seed: int
    knowledge: Knowledge
    dimensions: Dimensions

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of dimensions, knowledge and seed: equal fingerprints are equal plans."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the first `num_rows` rows of a plan cover."""

    num_rows: int
    marginals: dict[str, dict[str, int]]  # dimension -> value id -> rows
    pairs: dict[str, tuple[int, int]]  # "topic × persona" -> (fewest, most) rows over all pairs
    num_distinct_openings: int
    most_common_opening: tuple[str, int]
    first_messages: tuple[str, ...]  # of the first rows


def make_plan(dimensions: Dimensions, knowledge: Knowledge, *, seed: int) -> Plan:
    """Bind the dimensions' topics to the knowledge's sections.

    Raises:
        ConfigError: No topic is left, or the knowledge names no assistant.
    """
    raise NotImplementedError


def plan_row(plan: Plan, row: int, fresh: int = 0) -> PlanRow:
    """Row `row` of the plan, in O(1): depends on (seed, row, fresh) and the dimensions alone."""
    raise NotImplementedError


def cover(plan: Plan, num_rows: int) -> Coverage:
    """Count what the plan's first rows cover (O(num_rows))."""
    raise NotImplementedError
