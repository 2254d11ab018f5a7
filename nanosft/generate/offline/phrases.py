"""The wordings of offline conversations: `phrases.toml`, read and checked once."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from nanosft.generate.planning import Level, slots_of
from nanosft.knowledge.keys import KeyKind

_FILE: Final = "phrases.toml"
_SLOTS: Final = frozenset({"name", "maker", "user", "kind"})
_SLOTS_OF: Final = {
    "gist": frozenset({"key"}),
    "frames": frozenset({"clause", "statement"}),
    "ask_gap": frozenset({"gap"}),
    "ask_rest": frozenset({"before"}),
    "ask_whether": frozenset({"clause", "statement"}),
    "ask_section": frozenset({"name", "subject", "title"}),
    "introductions": frozenset({"says", "text"}),
    "ask_sum": frozenset({"sum"}),
    "before_sum": frozenset({"sum"}),
    "after_sum": frozenset({"value"}),
}
"""Pools with slots of their own."""

Intent = Literal["other", "made", "name", "machine", "ai", "model", "who"]
"""What a user asks of the assistant's identity: whether it is another one, who made it, its name, …"""


def _check_phrase(text: str, info: ValidationInfo) -> str:
    slots = _SLOTS_OF.get(info.field_name or "", _SLOTS)
    if unknown := slots_of(text) - slots:
        raise ValueError(f"{text!r}: no slot {{{min(unknown)}}}; there are {', '.join(sorted(slots))}")
    return text


Pool = Annotated[tuple[Annotated[str, AfterValidator(_check_phrase)], ...], Field(min_length=1)]
"""Phrases of which one is drawn."""


class Task(BaseModel):
    """An ordinary task, and answers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: Pool
    answer: Pool


class Unknown(BaseModel):
    """Questions that nobody could answer, and why not.

    Attributes:
        ask: The questions.
        why: The reasons, one of which is given.
        looks_up: Whether one who can look things up could answer: a fact on that may be the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: Pool
    why: Pool
    looks_up: bool = False


class Phrases(BaseModel):
    """All wordings, by where they stand in a conversation; the file says what each pool is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask_who: Pool
    ask_name: Pool
    ask_made: Pool
    ask_gap: Pool
    ask_rest: Pool
    ask_whether: Pool
    ask_section: Pool
    introductions: Pool
    ask_doubt: Pool
    ask_simpler: Pool
    ask_wrong: Pool
    ask_insist: Pool
    hold: Pool
    ask_inject: Pool
    refuse_inject: Pool
    ask_sum: Pool
    before_sum: Pool
    after_sum: Pool
    thanks: Pool
    follow_ups: Pool
    greetings: Pool
    named_greetings: Pool
    well: Pool
    invitations: Pool
    name_too: Pool
    links: Pool
    closers: Pool
    unsure: Pool
    instead: Pool
    reason_unknown: Pool
    do_not_know: Pool
    confirm: Pool
    correct: Pool
    stand_by: Pool
    stand_by_it: Pool
    stand_by_not_knowing: Pool
    plain_identity: Pool
    simply: Pool
    short_already: Pool
    other_words: Pool
    frames: Pool
    welcome: Pool
    last_words: Pool
    identity: dict[Intent, Pool]
    leads: dict[Level, Pool]
    gist: dict[KeyKind, Pool]
    tasks: tuple[Task, ...] = Field(min_length=1)
    roles: tuple[Task, ...] = Field(min_length=1)
    unknown: tuple[Unknown, ...] = Field(min_length=1)
    foreign_greetings: dict[str, str]
    synonyms: dict[str, tuple[str, ...]]
    contractions: dict[str, str]
    concepts: tuple[tuple[str, ...], ...]
    asks: dict[str, str]
    meanings: dict[str, str]

    @model_validator(mode="after")
    def _check_is_whole(self) -> Self:
        for name, found, wanted in (
            ("identity", set(self.identity), set(get_args(Intent))),
            ("leads", set(self.leads), set(get_args(Level))),
        ):
            if missing := wanted - found:
                raise ValueError(f"{name}: {min(missing)!r} has no phrases")
        return self


@cache
def load_phrases() -> Phrases:
    """The wordings that nanosft ships."""
    return parse_phrases(files("nanosft.generate.offline").joinpath(_FILE).read_text("utf-8"))


def parse_phrases(text: str) -> Phrases:
    """Parse and check TOML of wordings.

    Raises:
        ValueError: It is no TOML, a pool is missing or empty, or a phrase has a slot that is never filled.
    """
    return Phrases.model_validate(tomllib.loads(text))
