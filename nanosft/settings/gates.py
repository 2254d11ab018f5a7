"""The quality gates by name: what `--skip-gates` takes, what a recipe's filters ask for, what defects are counted by.

`nanosft.quality` holds the gates themselves. The names stand here because settings are below it. Pure.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator

GateName = Literal[
    "structure",
    "completeness",
    "identity",
    "naming",
    "grounding",
    "relevance",
    "echo",
    "fragments",
    "style",
    "repetition",
    "short_repeats",
    "tokens",
    "near_duplicate",
]
"""The gates, in the order in which defects are told:

structure checks roles, empty messages, the number of messages and the last role; completeness refuses answers cut off,
open markup, stray JSON and unfilled templates; identity refuses claims of another name or maker, and unanswered
questions for them; naming refuses a conversation that has to name the assistant and never does; grounding refuses
URLs, dates and quantities that the knowledge does not hold; relevance refuses answers beside the question, where a
knowledge base says what belongs to it, and reports them elsewhere; echo refuses the question given back; fragments
refuses answers that are no sentence; style has the ASCII policy, the length bounds and the banned phrases; repetition
refuses answers and sentences said again, and loops; short_repeats a short answer given three times; tokens checks that
the tokenizer renders a conversation within the context, where one is given; near_duplicate refuses near-duplicates of
conversations accepted before.
"""
GATE_NAMES: Final[tuple[GateName, ...]] = get_args(GateName)
ENGLISH_GATES: Final[frozenset[GateName]] = frozenset({"identity", "grounding", "relevance", "fragments"})
"""Gates that are patterns of English: they step aside for conversations that are to be in another language. Of style
the bounds of length stay, and its phrases and the ASCII policy step aside."""
WIDER_GATES: Final = frozenset({"grounding", "near_duplicate"})
"""Gates that need more than a row by itself: a knowledge base, or the other rows."""


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in GATE_NAMES:
            raise ValueError(f"{name!r} is no gate; there are {', '.join(GATE_NAMES)}")
    return names


SkippedGates = Annotated[tuple[str, ...], AfterValidator(_check_names)]
SKIPPED_GATES_HELP: Final = (
    f"Quality gates to leave out, of {', '.join(GATE_NAMES)}; may be repeated. For other languages than "
    f"English these step aside: {', '.join(name for name in GATE_NAMES if name in ENGLISH_GATES)}."
)
