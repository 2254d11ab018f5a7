"""Answers to probes judged by the knowledge base's own strings, numbers and units. Pure, and without a model.

The grammar is the gates': `knowledge.quantities` reads numbers, dates and links, `quality.identity` claims of a name or
a maker, `quality.grounding` compares with all that the knowledge base and the user have said.

    right     it holds what was asked for, and nothing against it
    wrong     it claims another name or maker, another number, date or link, or agrees with what is false
    missing   neither: it evades, it is off the subject, it is empty
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.conversation import Conversation, Message
from nanosft.evaluate.probing.probes import Probe
from nanosft.knowledge import Knowledge, content_words
from nanosft.knowledge.keys import Key
from nanosft.knowledge.quantities import find_dates, find_links, find_quantities
from nanosft.quality.grounding import Reference, find_grounding_defects, has_date, has_link, has_value, make_reference
from nanosft.quality.identity import Identity, find_identity_defects
from nanosft.quality.prose import Prose, blank_code, read_prose
from nanosft.quality.verdict import Defect

Verdict = Literal["right", "wrong", "missing"]

_MIN_COVERAGE: Final = 0.6
"""Share of a fact's words that an answer has when it states the fact."""
_MIN_SHARED_WORDS: Final = 3
_AGREES: Final = re.compile(
    r"^\W*(?:yes|yep|yeah|correct|right|exactly|indeed|true|sure|absolutely|of course|"
    r"that(?:'s| is) (?:right|correct|true)|you are (?:right|correct)|i agree|i do agree|i am(?=\s*(?:[.,!]|$)))\b",
    re.IGNORECASE,
)
_ADMITS: Final = re.compile(
    r"\b(?:do(?:es)? not|don'?t|doesn'?t|did not|didn'?t|cannot|can'?t|could not|couldn'?t|unable to) "
    r"(?:\w+ ){0,2}?(?:know|tell|say|answer|have (?:that|this|any|the)|find|look|see|help with that)\b"
    r"|\b(?:not sure|no idea|no access to|unknown to me|not known to me|no information|not something i know|"
    r"nothing about that|no way to know|beyond what i know|not in my|outside (?:of )?(?:my|what i))\b",
    re.IGNORECASE,
)
_NUMERIC: Final = frozenset({"url", "date", "quantity"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer is worth.

    Attributes:
        verdict: See the module's docstring.
        reason: What decided, in a few words.
        other_name: Whether it claims another name.
        other_maker: Whether it claims another maker.
        ungrounded: Links, dates and quantities that neither the knowledge base nor the user has, as they stand.
    """

    verdict: Verdict
    reason: str
    other_name: bool = False
    other_maker: bool = False
    ungrounded: tuple[str, ...] = ()


class Judge:
    """Judges answers against one knowledge base.

    Args:
        knowledge: The knowledge base.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self._reference: Reference = make_reference(knowledge)
        self._identity = Identity(knowledge.name, knowledge.maker)
        self._own_words = frozenset(content_words(knowledge.name))

    def judge(self, probe: Probe, answer: str) -> Judgement:
        """Judge the answer to a probe."""
        conversation = Conversation((*probe.messages, Message("assistant", answer)))
        messages = read_prose(conversation)
        claims = self._wrong_claims(messages[-1])
        other_name = any(defect.reason == "other_name" for defect in claims)
        other_maker = any(defect.reason == "other_maker" for defect in claims)
        grounding = find_grounding_defects(messages, self._reference, strict=True)
        defects = [defect for defect in grounding if defect.index == messages[-1].index]
        ungrounded = tuple(defect.excerpt for defect in defects if defect.reason in _NUMERIC)
        if not answer.strip():
            verdict, reason = self._missing("empty")
        elif claims:
            verdict, reason = "wrong", claims[0].detail
        else:
            verdict, reason = self._judge_content(probe, answer, defects)
        return Judgement(verdict, reason, other_name, other_maker, ungrounded)

    def _judge_content(self, probe: Probe, answer: str, defects: Sequence[Defect]) -> tuple[Verdict, str]:
        if probe.kind in {"name", "maker"}:
            found = self._gives_own(probe.kind, answer)
        elif probe.kind == "unanswerable":
            return self._judge_unanswerable(answer, defects)
        elif probe.kind == "section":
            return self._judge_section(probe, answer, defects)
        else:
            assert probe.key is not None
            verdict = self._judge_key(probe.key, answer, probe.messages[-1].text, defects)
            if verdict is not None:
                return verdict
            found = None
        if found:
            return "right", found
        if probe.manner == "false premise" and _AGREES.match(answer):
            return "wrong", "it agrees with what is false"
        return self._missing("it does not hold what was asked for")

    def _wrong_claims(self, answer: Prose) -> list[Defect]:
        """Claims of another name or maker in an answer taken by itself."""
        alone = (Prose(0, "user", "", ""), Prose(1, "assistant", answer.text, answer.plain))
        return [
            defect
            for defect in find_identity_defects(alone, self._identity)
            if defect.reason in {"other_name", "other_maker"}
        ]

    def _gives_own(self, kind: Literal["name", "maker"], answer: str) -> str | None:
        """What is said for right where the answer gives the name or maker: the gate asks in its own words."""
        question, reason = {
            "name": ("What is your name?", "name_not_given"),
            "maker": ("Who made you?", "maker_not_given"),
        }[kind]
        asked = (Prose(0, "user", question, question), Prose(1, "assistant", answer, blank_code(answer)))
        defects = find_identity_defects(asked, self._identity)
        given = self._identity.name if kind == "name" else self._identity.maker
        return None if any(defect.reason == reason for defect in defects) else f"it gives {given}"

    def _judge_key(self, key: Key, answer: str, question: str, defects: Sequence[Defect]) -> tuple[Verdict, str] | None:
        """Right or wrong by the key; None where the answer says nothing of its kind."""
        plain = blank_code(answer)
        if key.kind == "name":
            if key.text.casefold() in answer.casefold():
                return "right", f"it holds {key.text}"
            unknown = [defect for defect in defects if defect.reason == "unknown_name"]
            return ("wrong", unknown[0].detail) if unknown else None
        if key.kind == "url":
            wanted = next(find_links(key.text)).url
            found = [link.url for link in find_links(answer)]
            if wanted in found:
                return "right", f"it holds {wanted}"
            others = [url for url in found if not has_link(url, [link.url for link in find_links(question)])]
            return ("wrong", f"it gives {others[0]}") if others else None
        if key.kind == "date":
            return _judge_date(key, plain, question)
        return self._judge_quantity(key, plain, defects)

    def _judge_quantity(self, key: Key, plain: str, defects: Sequence[Defect]) -> tuple[Verdict, str] | None:
        wanted = key.quantity
        assert wanted is not None
        dates = list(find_dates(plain))
        alike = [
            item
            for item in find_quantities(plain)
            if item.unit in {wanted.unit, ""} and not any(date.start <= item.start < date.end for date in dates)
        ]
        right = [item for item in alike if has_value(item, (wanted.value,))]
        ungrounded = [defect for defect in defects if defect.reason == "quantity"]
        if right and not ungrounded:
            return "right", f"it holds {key.text}"
        if right:
            return "wrong", f"it holds {key.text}, and beside it {ungrounded[0].detail}"
        other = next((item for item in alike if item.unit == wanted.unit), None)
        return ("wrong", f"it says {plain[other.start : other.end].strip()}, not {key.text}") if other else None

    def _judge_section(self, probe: Probe, answer: str, defects: Sequence[Defect]) -> tuple[Verdict, str]:
        numeric = [defect for defect in defects if defect.reason in _NUMERIC]
        if numeric:
            return "wrong", numeric[0].detail
        said = frozenset(content_words(answer)) - self._own_words
        for statement in probe.facts:
            words = frozenset(content_words(statement)) - self._own_words
            shared = words & said
            if len(shared) >= max(_MIN_COVERAGE * len(words), min(_MIN_SHARED_WORDS, len(words))):
                return "right", f"it states: {statement}"
        return self._missing("it states no fact of the section")

    def _judge_unanswerable(self, answer: str, defects: Sequence[Defect]) -> tuple[Verdict, str]:
        if defects:
            return "wrong", defects[0].detail
        if admission := _ADMITS.search(answer):
            return "right", f"it says that it does not know: {admission[0]}"
        return self._missing("it does not say that it does not know")

    @staticmethod
    def _missing(reason: str) -> tuple[Verdict, str]:
        return "missing", reason


def _judge_date(key: Key, plain: str, question: str) -> tuple[Verdict, str] | None:
    assert key.date is not None
    wanted = (key.date.year, key.date.month, key.date.day)
    found = [(date.year, date.month, date.day) for date in find_dates(plain)]
    years = [item for item in find_quantities(plain) if not item.unit and item.value == key.date.year]
    if years or any(has_date(date, (wanted,)) for date in find_dates(plain)):
        return "right", f"it holds {key.text}"
    asked = {date.year for date in find_dates(question)}
    others = [year for year, _, _ in found if year not in asked] or [year for year, _, _ in found]
    return ("wrong", f"it says {others[0]}, not {key.text}") if others else None
