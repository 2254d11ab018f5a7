"""How a model carries itself, whatever it says: ends, loops, leaks, and whether chance changes what it claims. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from nanosft.conversation import Conversation, Message
from nanosft.evaluate.statistics import Interval, bootstrap_mean
from nanosft.quality.prose import read_prose
from nanosft.quality.repetition import find_repetition_defects

_SPELLED: Final = re.compile(r"<\|[a-z_]+\|>")
FAULT_FIGURES: Final = {
    "ended": ("not_ended", False),
    "empty": ("empty", True),
    "loops": ("loop", True),
    "special tokens": ("special_token", True),
}
"""What is told of faults: the share of answers whose fault is as said."""
_LOOPS: Final = frozenset({"loop", "repeated_sentence"})


class Said(Protocol):
    """An answer, as far as its conduct goes."""

    @property
    def text(self) -> str:
        """What was said."""

    @property
    def ended(self) -> bool:
        """Whether the turn was ended within the limit."""

    @property
    def leaks(self) -> tuple[str, ...]:
        """Special tokens inside it."""


def find_faults(messages: Sequence[Message], answer: Said) -> dict[str, bool]:
    """What is wrong with the form of an answer: `empty`, `loop`, `special_token`, `not_ended`."""
    prose = read_prose(Conversation((messages[-1], Message("assistant", answer.text))))
    return {
        "not_ended": not answer.ended,
        "empty": not answer.text.strip(),
        "loop": any(defect.reason in _LOOPS for defect in find_repetition_defects(prose)),
        "special_token": bool(answer.leaks) or _SPELLED.search(answer.text) is not None,
    }


def summarize_faults(faults: Sequence[Mapping[str, bool]], items: Sequence[str]) -> dict[str, Interval]:
    """Shares of answers: that ended, and that have each fault."""
    found = {}
    for figure, (fault, counts) in FAULT_FIGURES.items():
        interval = bootstrap_mean([float(item[fault] is counts) for item in faults], items)
        if interval is not None:
            found[figure] = interval
    return found


def measure_stability(verdicts: Sequence[Sequence[str]], items: Sequence[str]) -> dict[str, Interval]:
    """Over samples of one prompt: the share of prompts judged the same in all, and that of right answers.

    Args:
        verdicts: Of each prompt, the verdicts of its samples.
        items: What each prompt asks for.
    """
    same = bootstrap_mean([float(len(set(own)) == 1) for own in verdicts], items)
    right = bootstrap_mean([sum(verdict == "right" for verdict in own) / len(own) for own in verdicts], items)
    return {name: value for name, value in (("stable", same), ("identity sampled", right)) if value is not None}
