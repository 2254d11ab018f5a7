"""A fact in other words: what it says stays, how it says it is drawn. Pure.

The time goes to the other end of the sentence, words change places with others that mean the same, forms are drawn
together, and a frame is put around it. Numbers, dates, names, URLs and quotations are left as they are.
"""

import random
import re
from collections.abc import Mapping
from typing import Final

from nanosft.generate.offline.first_person import decapitalize
from nanosft.generate.offline.phrases import Phrases
from nanosft.knowledge import Fact, Knowledge
from nanosft.knowledge.keys import Key, find_key
from nanosft.knowledge.text import FUNCTION_WORDS

_TIME: Final = (
    r"(?:[Ii]n|[Oo]n|[Ss]ince|[Aa]t the (?:end|beginning) of) (?:(?:January|February|March|April|May|June|July|August|"
    r"September|October|November|December)(?: \d{1,2},)? )?(?:19|20)\d\d"
)
_TIME_LAST: Final = re.compile(rf"^(?P<rest>(?:(?! (?:is|has|that|which|where|who) )[^,;:\"])+),? (?P<time>{_TIME})\.$")
_TIME_FIRST: Final = re.compile(rf"^(?P<time>{_TIME}),? (?P<rest>(?!came\b)(?:(?!, (?:and|but) )[^;:\"])+)\.$")
_FIXED: Final = re.compile(r"\"[^\"]*\"|https?://\S+|\S*[/_]\S*|\S*\w[.-]\w\S*|\bpython -m \S+")
_FREE_RELATIVES: Final = frozenset({"Who", "What", "Whoever", "Whatever"})
"""With them a sentence does not go on behind "that": "I know that who hosts it decides."."""
_CHEERFUL: Final = ("Sure", "Gladly")
_DENIES: Final = re.compile(r"\b(?:no|not|never|cannot|only)\b|n't\b")
_TIME_SHARE: Final = 0.6
_SYNONYM_SHARE: Final = 0.6
_FRAME_SHARE: Final = 0.45
_CONTRACTION_SHARE: Final = 0.4


class Reteller:
    """Tells the facts of one knowledge base in other words.

    Args:
        knowledge: The knowledge base.
        phrases: Synonyms, contractions and frames.
        keep: Words whose capital is no beginning of a sentence.
    """

    def __init__(self, knowledge: Knowledge, phrases: Phrases, *, keep: frozenset[str]) -> None:
        self._phrases = phrases
        self._keep = keep
        self._plain = FUNCTION_WORDS | set(re.findall(r"\b[a-z]+\b", knowledge.text))
        found = {fact.id: find_key(fact, knowledge) for fact in knowledge.facts}
        self._keys = {fact_id: key for fact_id, key in found.items() if key is not None}
        self._synonyms = _compile(phrases.synonyms)
        self._contractions = _compile({word: (short,) for word, short in phrases.contractions.items()})

    def retell(self, fact: Fact, spoken: str, rng: random.Random, *, framed: bool = True) -> str:
        """The fact in other words, a whole sentence that ends on a stop.

        Args:
            fact: The fact.
            spoken: It in the first person, as `to_first_person` has it.
            rng: Draws the words.
            framed: Whether a frame may stand around it; not where words stand before it already.
        """
        sentence = spoken if spoken.endswith((".", "!", "?")) else f"{spoken}."
        told = self._move_time(sentence, rng)
        told = _replace(told, self._synonyms, rng, _SYNONYM_SHARE)
        if rng.random() < _CONTRACTION_SHARE:
            told = _replace(told, self._contractions, rng, 1.0)
        if (key := self._keys.get(fact.id)) is not None and key.text not in told:
            told = sentence
        return self._frame(told, rng) if framed and rng.random() < _FRAME_SHARE else told

    def find_key(self, fact: Fact) -> Key | None:
        """What of the fact can be asked for."""
        return self._keys.get(fact.id)

    def follow(self, lead: str, sentence: str) -> str:
        """The sentence behind words that lead to it; behind a colon it goes on in small letters where it can."""
        if lead.endswith(":"):
            sentence = self.continue_with(sentence) or sentence
        return f"{lead} {sentence}" if lead else sentence

    def continue_with(self, sentence: str) -> str | None:
        """The sentence as it goes on behind a comma; None where its first word may be a name."""
        first = re.split(r"\W", sentence, maxsplit=1)[0]
        if first != "A" and (first in self._keep or first.isupper() or not first[:1].isupper()):
            return sentence
        if first in _FREE_RELATIVES:
            return None
        return decapitalize(sentence) if first.lower() in self._plain else None

    def _move_time(self, sentence: str, rng: random.Random) -> str:
        if rng.random() >= _TIME_SHARE:
            return sentence
        if match := _TIME_LAST.match(sentence):
            rest, time = self.continue_with(match["rest"]), match["time"]
            return sentence if rest is None else f"{time[:1].upper()}{time[1:]}, {rest}."
        if match := _TIME_FIRST.match(sentence):
            rest, time = match["rest"], match["time"]
            return f"{rest[:1].upper()}{rest[1:]} {time[:1].lower()}{time[1:]}."
        return sentence

    def _frame(self, sentence: str, rng: random.Random) -> str:
        clause = self.continue_with(sentence.rstrip("."))
        frames = [text for text in self._phrases.frames if clause is not None or "{clause}" not in text]
        if _DENIES.search(sentence):
            frames = [text for text in frames if not text.startswith(_CHEERFUL)]
        frame = rng.choice(frames)
        return frame.format(statement=sentence.rstrip("."), clause=clause)


def _compile(words: Mapping[str, tuple[str, ...]]) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    return [(re.compile(rf"(?<![\w.'-]){pattern}(?![\w'-])"), others) for pattern, others in words.items()]


def _replace(text: str, words: list[tuple[re.Pattern[str], tuple[str, ...]]], rng: random.Random, share: float) -> str:
    """Words of the text outside of what is fixed, each replaced with this probability."""
    parts = []
    start = 0
    for match in [*_FIXED.finditer(text), None]:
        part = text[start : match.start() if match else len(text)]
        for pattern, others in words:
            if pattern.search(part) and rng.random() < share:
                part = pattern.sub(rng.choice(others), part, count=1)
        parts += [part, match[0] if match else ""]
        start = match.end() if match else start
    told = "".join(parts)
    return told[:1].upper() + told[1:] if text[:1].isupper() else told
