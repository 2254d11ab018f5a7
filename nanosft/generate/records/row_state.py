"""What earlier answers to a row left: it goes on from there, in this process or in the next. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nanosft.generate.records.judgements import HELD, KIND_KEY, TRIED_ANSWER_KEY, TRIED_KEY
from nanosft.generate.records.totals import HELD_ATTEMPT_KEY, PROMPT_VARIANT_KEY


@dataclass
class RowState:
    """What earlier answers to one row left.

    Attributes:
        prompt_variant: Its latest prompt.
        num_rejected: Answers to that prompt that were rejected.
        details: Why they were, latest last.
        held: The record of an accepted answer that waits for its score, of all that were held the latest.
        tries: Of each answer of the judge that could not be read: prompt, attempt and digest of what it was about; an
            empty digest, which earlier versions leave, is any answer's.
    """

    prompt_variant: int = 0
    num_rejected: int = 0
    details: list[str] = field(default_factory=list)
    held: Mapping[str, Any] | None = None
    tries: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def num_tries(self) -> int:
        """Answers of the judge that could not be read about the answer that waits; 0 where none does."""
        return 0 if self.waiting is None else self.count_tries(self.waiting["raw"])

    def count_tries(self, text: str) -> int:
        """Answers of the judge that could not be read about this answer to the latest prompt."""
        place, digest = (self.prompt_variant, self.num_rejected), digest_answer(text)
        return self.tries.count((*place, digest)) + self.tries.count((*place, ""))

    @property
    def waiting(self) -> Mapping[str, Any] | None:
        """The record of an answer that is to be scored before another is asked for; None where there is none."""
        is_due = self.held is not None and _place_of(self.held) == (self.prompt_variant, self.num_rejected)
        return self.held if is_due else None

    def begin_variant(self, prompt_variant: int) -> None:
        """Go on with another prompt, whose answers are not told why those before were rejected."""
        self.prompt_variant, self.num_rejected, self.details = prompt_variant, 0, []

    def add_rejection(self, detail: str) -> None:
        """Count one more rejected answer to the latest prompt."""
        self.num_rejected += 1
        self.details.append(detail)

    def add_try(self, text: str) -> None:
        """Count one more answer of the judge that could not be read about this answer to the latest prompt."""
        self.tries.append((self.prompt_variant, self.num_rejected, digest_answer(text)))

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Take up what stands of the row among the rejects, in the order in which it came."""
        prompt_variant = record[PROMPT_VARIANT_KEY]
        if prompt_variant > self.prompt_variant:
            self.begin_variant(prompt_variant)
        if record.get(KIND_KEY) == HELD:
            self.held = record if self.held is None else max(self.held, record, key=_place_of)
        elif TRIED_KEY in record:
            self.tries.append((prompt_variant, record[TRIED_KEY], record.get(TRIED_ANSWER_KEY, "")))
        elif prompt_variant == self.prompt_variant and record["attempt"] is not None:
            self.add_rejection(record["detail"])


def digest_answer(text: str) -> str:
    """16 hex digits of what was written."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _place_of(held: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and attempt of an answer that is held."""
    return held[PROMPT_VARIANT_KEY], held[HELD_ATTEMPT_KEY]
