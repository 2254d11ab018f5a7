"""The questions that a fact's own grammar gives. Pure.

"The d20 model has 561 million parameters." gives "How many parameters does the d20 model have?".
"""

import re
from collections.abc import Iterator
from typing import Final

from nanosft.knowledge import Fact
from nanosft.knowledge.keys import Key

_SUBJECT: Final = (
    r"^(?!(?:In|Since|At|On|After|Before|From|By|For|With) )(?P<subject>(?:(?!,|;|:| that | which ).){3,60}?)"
)
_ABOUT: Final = r"(?:about |roughly |only |nearly |over )?"
_VERBS: Final = {
    "took": "take", "takes": "take", "cost": "cost", "costs": "cost", "needed": "need", "needs": "need", "used": "use",
    "uses": "use", "reached": "reach", "reaches": "reach", "solved": "solve", "scored": "score", "holds": "hold",
    "held": "hold", "contains": "contain", "contained": "contain", "supports": "support", "trained": "train",
    "founded": "found", "made": "make", "published": "publish", "released": "release", "started": "start",
}  # fmt: skip
_HAS: Final = re.compile(rf"{_SUBJECT} (?P<verb>has|have|had) {_ABOUT}$")
_IS: Final = re.compile(rf"{_SUBJECT} (?P<verb>is|are|was|were) {_ABOUT}$")
_DID: Final = re.compile(
    rf"{_SUBJECT} (?P<verb>{'|'.join(_VERBS)}) (?P<object>[^,;:]{{0,60}}?)(?:about |in |for |on )*$"
)
_PASSIVE: Final = re.compile(rf"{_SUBJECT} (?P<verb>was|were) (?P<participle>\w+(?:ed|en|wn|ld|de)) (?:in|on) $")
_NUMBER: Final = re.compile(r"^[~\u2248$\u20ac\u00a3]?[\d.,]+\s*(?:thousand|million|billion|trillion|[kKMBT]\b)?\s*")
_ENDS: Final = re.compile(r"[.,;]|$| and ")
_ON: Final = re.compile(r" (?:on|of|for) (?:(?! and )[^,.;\d]){2,40}(?=[,.;]| and |$)")
_PRESENT: Final = frozenset({"has", "takes", "costs", "needs", "uses", "reaches", "holds", "contains", "supports"})


def ask_by_grammar(fact: Fact, key: Key) -> Iterator[str]:
    """Whole questions for the key, where the fact's sentence is of a kind that is understood."""
    before, after = fact.statement[: key.start], fact.statement[key.end :]
    if key.kind == "date" and (match := _PASSIVE.match(before)):
        yield f"When {match['verb']} {_lower(match['subject'])} {match['participle']}?"
    elif key.kind == "date" and (match := _DID.match(before)):
        thing = match["object"].strip()
        if " and " in f" {thing} ":
            return
        yield f"When did {_lower(match['subject'])} {_VERBS[match['verb']]}{' ' if thing else ''}{thing}?"
    elif key.kind == "quantity" and not after.startswith((" to ", "-")):
        yield from _ask_for_quantity(key, before, after)


def _ask_for_quantity(key: Key, before: str, after: str) -> Iterator[str]:
    assert key.quantity is not None
    noun = _noun(key)
    if match := _HAS.match(before):
        auxiliary = {"has": "does", "have": "do", "had": "did"}[match["verb"]]
        if noun:
            yield f"How many {noun} {auxiliary} {_lower(match['subject'])} have?"
    elif (match := _IS.match(before)) and _ENDS.match(after):
        yield f"What {match['verb']} {_lower(match['subject'])}{f', in {noun}' if noun else ''}?"
    elif (match := _DID.match(before)) and not match["object"].strip():
        on = _ON.match(after)
        if on is None and not _ENDS.match(after):
            return
        auxiliary = "does" if match["verb"] in _PRESENT else "did"
        what = {"$": "How much", "s": "How long", "%": "How much, in percent,"}.get(key.quantity.unit)
        what = what or (f"How many {noun}" if noun else "")
        if what:
            yield f"{what} {auxiliary} {_lower(match['subject'])} {_VERBS[match['verb']]}{on[0] if on else ''}?"


def _noun(key: Key) -> str:
    """The unit as the fact spells it, with what describes it: `attention heads`."""
    words = re.sub(
        r"^[~\u2248$\u20ac\u00a3]?[\d.,]+\s*(?:thousand|million|billion|trillion|[kKMBT]\b)?\s*", "", key.text
    )
    return words if re.fullmatch(r"[A-Za-z][\w -]*", words) else ""


def _lower(subject: str) -> str:
    """A subject inside a sentence: a capital that only began one goes."""
    first, space, rest = subject.partition(" ")
    return (first.lower() if first in {"The", "A", "An", "Its", "This", "Training"} else first) + space + rest
