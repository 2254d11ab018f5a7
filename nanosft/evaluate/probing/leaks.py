"""Which probes stand in training data: found by content, so that what was trained on does not count as knowledge."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nanosft.data import DataObject, read_object
from nanosft.dedup import normalize_words
from nanosft.evaluate.probing.probes import Probe
from nanosft.progress import Bar

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Asked:
    """What the users of some conversations have said.

    Attributes:
        texts: Whole messages and their sentences, as `normalize_words` has them.
        num_conversations: Read.
    """

    texts: frozenset[str]
    num_conversations: int

    def holds(self, probe: Probe) -> bool:
        """Whether the probe's question, in its plain form or as it is asked, stands there."""
        return any(normalize_words(text) in self.texts for text in (probe.question, probe.messages[-1].text))


def read_asked(objects: Iterable[DataObject]) -> Asked:
    """Everything that users say in the conversations of some objects, those for validation too."""
    texts: set[str] = set()
    num = 0
    with Bar("read training data", None) as bar:
        for item in objects:
            for conversation in read_object(item):
                num += 1
                bar.advance()
                for message in conversation.messages:
                    if message.role == "user":
                        texts.update(map(normalize_words, (message.text, *_SENTENCE.split(message.text))))
    texts.discard("")
    return Asked(frozenset(texts), num)


def drop_leaked(probes: Sequence[Probe], asked: Asked | None) -> tuple[list[Probe], int]:
    """The probes that training data does not hold, and how many it does."""
    if asked is None:
        return list(probes), 0
    kept = [probe for probe in probes if not asked.holds(probe)]
    return kept, len(probes) - len(kept)
