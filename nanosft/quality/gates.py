"""All gates at once: their switches, what they check against, and the verdict. Pure.

    context = Context(Gates(), reference=make_reference(knowledge), tokenizer=tokenizer, max_tokens=2048)
    verdict = check(conversation, context, num_messages=4, names_itself=True)
    verdict.accepted, verdict.reasons, verdict.explain(), verdict.conversation

Near-duplicates need the other conversations: see `nanosft.dedup.index`; the switch and threshold are here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from nanosft.conversation import Conversation
from nanosft.dedup import DEFAULT_THRESHOLD
from nanosft.quality.completeness import find_completeness_defects
from nanosft.quality.grounding import Reference, find_grounding_defects
from nanosft.quality.identity import find_identity_defects, find_missing_name
from nanosft.quality.prose import Prose, read_prose
from nanosft.quality.relevance import find_irrelevance
from nanosft.quality.repetition import find_repetition_defects
from nanosft.quality.sense import find_echoes, find_fragments, find_short_repeats
from nanosft.quality.structure import Renderer, find_excess, find_structure_defects, find_token_defects
from nanosft.quality.style import BANNED_PHRASES, AsciiPolicy, find_overlong, find_style_defects, fold_conversation
from nanosft.quality.verdict import Defect, Verdict
from nanosft.settings.audit import AuditSettings
from nanosft.settings.gates import ENGLISH_GATES, GATE_NAMES, GateName
from nanosft.settings.generate import GenerateSettings

_SINCE: Final = frozenset({"naming", "relevance", "echo", "fragments", "short_repeats"})
"""Gates that older manifests do not name."""


class Gates(BaseModel):
    """Which gates are on, and their thresholds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    off: frozenset[GateName] = Field(frozenset(), description="Gates that say nothing; all others are on.")
    strict_grounding: bool = Field(default=False, description="Refuse proper names that the knowledge does not hold.")
    ascii_policy: AsciiPolicy = Field("keep", description="Characters beyond ASCII: keep, fold to ASCII, or reject.")
    min_chars: int = Field(1, ge=0, description="Characters that an answer has at least.")
    max_chars: int = Field(20_000, ge=1, description="Characters that a message has at most.")
    banned_phrases: tuple[str, ...] = Field(BANNED_PHRASES, description="Phrases that no answer may hold.")
    near_threshold: float = Field(
        DEFAULT_THRESHOLD, gt=0, le=1, description="Similarity of word pairs from which long texts are near-duplicates."
    )

    def has(self, name: GateName) -> bool:
        """Whether a gate is on."""
        return name not in self.off

    def to_settings(self) -> dict[str, Any]:
        """The gates as manifests state them: a boolean for each, then the thresholds.

        Gates that came later are stated where they are off: a prefix that was begun before them is gone on with.
        """
        stated = {name: self.has(name) for name in GATE_NAMES if name not in _SINCE or not self.has(name)}
        return stated | self.model_dump(mode="json", exclude={"off"})


GATE_SETTINGS: Final = (
    "skip_gates",
    "strict_grounding",
    "ascii",
    "min_chars",
    "max_chars",
    "banned_phrases",
    "near_duplicate_threshold",
)
"""The settings that `make_gates` reads."""


def make_gates(settings: AuditSettings | GenerateSettings) -> Gates:
    """The gates as a command's settings have them."""
    return Gates(
        off=frozenset(name for name in GATE_NAMES if name in settings.skip_gates),
        strict_grounding=settings.strict_grounding,
        ascii_policy=settings.ascii,
        min_chars=settings.min_chars,
        max_chars=settings.max_chars,
        banned_phrases=BANNED_PHRASES + settings.banned_phrases,
        near_threshold=settings.near_duplicate_threshold,
    )


@dataclass(frozen=True, slots=True)
class Context:
    """What conversations are checked against. Made once for a set.

    Attributes:
        gates: Switches and thresholds.
        reference: What the assistant may claim; None without knowledge: identity then looks for contradictions within
            a conversation alone, and grounding has nothing to say.
        full_stops: Whether the set's answers end on a stop, as a chat model's do: an answer without one is then cut
            off. None: each conversation is judged by itself, False where people chat.
        tokenizer: The base model's; None leaves the tokens gate out.
        max_tokens: The model's context; None for no limit.
    """

    gates: Gates = field(default_factory=Gates)
    reference: Reference | None = None
    full_stops: bool | None = None
    tokenizer: Renderer | None = None
    max_tokens: int | None = None


@lru_cache(maxsize=8)
def _without_english(gates: Gates) -> Gates:
    """The gates for conversations in other languages."""
    return gates.model_copy(update={"off": gates.off | ENGLISH_GATES, "ascii_policy": "keep", "banned_phrases": ()})


def check(
    conversation: Conversation,
    context: Context,
    *,
    num_messages: int | None = None,
    names_itself: bool = False,
    language: str = "en",
) -> Verdict:
    """Put one conversation through every gate that is on.

    Args:
        conversation: The conversation; the verdict's is folded to ASCII where the policy says so.
        context: What to check against.
        num_messages: User and assistant messages that the dynamic asks for, if one is known.
        names_itself: Whether the topic asks that the assistant names itself.
        language: What the conversation is to be in: `ENGLISH_GATES` step aside for any but `en`.
    """
    gates = _gates_for(context.gates, language)
    context = replace(context, gates=gates)
    if gates.has("structure") and (excess := find_excess(conversation)):
        return Verdict(conversation, (excess,))
    conversation = fold(conversation, context.gates, language=language)
    messages = read_prose(conversation)
    defects = list(
        _find_text_defects(messages, context, names_itself=names_itself, is_planned=num_messages is not None)
    )
    structure = list(find_structure_defects(conversation, num_messages=num_messages)) if gates.has("structure") else []
    tokens: list[Defect] = []
    if gates.has("tokens") and context.tokenizer is not None and not structure:
        tokens.extend(find_token_defects(conversation, context.tokenizer, max_tokens=context.max_tokens))
    return Verdict(conversation, (*structure, *defects, *tokens))


def fold(conversation: Conversation, gates: Gates, *, language: str = "en") -> Conversation:
    """The conversation as a verdict has it: folded to ASCII where the policy says so."""
    gates = _gates_for(gates, language)
    return fold_conversation(conversation) if gates.has("style") and gates.ascii_policy == "fold" else conversation


def _gates_for(gates: Gates, language: str) -> Gates:
    return gates if language.partition("-")[0] == "en" else _without_english(gates)


def _find_text_defects(
    messages: tuple[Prose, ...], context: Context, *, names_itself: bool, is_planned: bool
) -> Iterator[Defect]:
    gates, reference = context.gates, context.reference
    if gates.has("style") and (overlong := list(find_overlong(messages, gates.max_chars))):
        # What is refused for its length is not read for anything else.
        yield from overlong
        return
    if gates.has("completeness"):
        yield from find_completeness_defects(messages, full_stops=context.full_stops)
    identity = reference.identity if reference is not None else None
    if gates.has("identity"):
        yield from find_identity_defects(messages, identity)
    if gates.has("naming") and names_itself:
        yield from find_missing_name(messages, identity)
    if gates.has("grounding") and reference is not None:
        yield from find_grounding_defects(messages, reference, strict=gates.strict_grounding)
    yield from _find_nonsense(messages, context, is_planned=is_planned)
    if gates.has("style"):
        yield from find_style_defects(
            messages,
            ascii_policy=gates.ascii_policy,
            min_chars=gates.min_chars,
            banned_phrases=gates.banned_phrases,
        )
    if gates.has("repetition"):
        yield from find_repetition_defects(messages)
    # People who chat say "yeah" again and again.
    if gates.has("short_repeats") and (is_planned or context.full_stops is not False):
        yield from find_short_repeats(messages)


def _find_nonsense(messages: tuple[Prose, ...], context: Context, *, is_planned: bool) -> Iterator[Defect]:
    gates, reference = context.gates, context.reference
    subjects = reference.subjects if reference is not None else None
    # People who chat leave questions open; a set in whole sentences was written to answer.
    if gates.has("relevance") and (is_planned or context.full_stops):
        name = reference.identity.name if reference is not None and reference.identity is not None else ""
        yield from find_irrelevance(messages, name=name, subjects=subjects)
    if gates.has("echo"):
        yield from find_echoes(messages)
    if gates.has("fragments"):
        yield from find_fragments(messages, full_stops=context.full_stops, is_planned=is_planned)
