"""What gates say of a conversation: defects, and the verdict they add up to. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.conversation import Conversation
from nanosft.settings.gates import GateName

_EXCERPT_RADIUS: Final = 40


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing wrong with a conversation.

    Attributes:
        gate: The gate that saw it, or the judge that scored the conversation.
        reason: A short name to count by, unique within the gate: `cut_off`, `other_name`, `ungrounded_url`.
        detail: One sentence for a person, or for the model that is asked again.
        excerpt: The text at fault with some around it, on one line; empty where there is none.
        index: The message's place from 0; None when the whole conversation is meant.
        refuses: False for what is only reported.
    """

    gate: GateName | Literal["judge"]
    reason: str
    detail: str
    excerpt: str = ""
    index: int | None = None
    refuses: bool = True

    @property
    def name(self) -> str:
        """What counts are kept by: `gate/reason`."""
        return f"{self.gate}/{self.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all gates say of one conversation.

    Attributes:
        conversation: The one to keep: as given, or with its text folded to ASCII where the style gate does so.
        defects: In order of gate, then message.
    """

    conversation: Conversation
    defects: tuple[Defect, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether no defect refuses the conversation."""
        return not any(defect.refuses for defect in self.defects)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The distinct `gate/reason` names that refuse it, in order."""
        return tuple(dict.fromkeys(defect.name for defect in self.defects if defect.refuses))

    def explain(self) -> str:
        """What to change, one line a defect that refuses: the text to put into the prompt of another attempt."""
        return "\n".join(_explanations(self.defects))


def excerpt_of(text: str, start: int, end: int) -> str:
    """`text[start:end]` with up to 40 characters around it, on one line, `…` where it is cut."""
    left, right = max(0, start - _EXCERPT_RADIUS), min(len(text), end + _EXCERPT_RADIUS)
    middle = " ".join(text[left:right].split())
    return f"{'…' if left else ''}{middle}{'…' if right < len(text) else ''}"


def _explanations(defects: tuple[Defect, ...]) -> Iterator[str]:
    for defect in defects:
        if defect.refuses:
            at = "" if defect.index is None else f"message {defect.index}: "
            quote = f" ({defect.excerpt})" if defect.excerpt else ""
            yield f"- {at}{defect.detail}{quote}"
