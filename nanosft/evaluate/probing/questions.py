"""What of a fact can be asked for, and the questions that a fact's own grammar gives. Pure.

A key is what an answer must hold: a link, a number with its unit, a date, or a name. "The d20 model has 561 million
parameters." has the key "561 million parameters" and gives "How many parameters does the d20 model have?".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.knowledge import Fact, Knowledge
from nanosft.knowledge.quantities import Date, Quantity, find_dates, find_links, find_quantities

KeyKind = Literal["url", "quantity", "date", "name"]

_MIN_BEFORE_WORDS: Final = {"url": 2, "quantity": 2, "date": 2, "name": 3}
_FACTORS: Final = (1.5, 2.5, 3.5, 0.4)
_NO_KEYS: Final = frozenset(
    {"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"}
    | {"december", "ai", "the", "english"}
)
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


@dataclass(frozen=True, slots=True)
class Key:
    """What an answer to a question about a fact must hold.

    Attributes:
        kind: What it is.
        text: As it stands in the fact.
        start: Offset in the fact's statement.
        end: Offset behind it.
        quantity: Of a key of kind "quantity".
        date: Of a key of kind "date".
    """

    kind: KeyKind
    text: str
    start: int
    end: int
    quantity: Quantity | None = None
    date: Date | None = None


def find_key(fact: Fact, knowledge: Knowledge) -> Key | None:
    """The key of a fact: its first link, else number with a unit, date, bare number or name; None without any."""
    statement = fact.statement
    for link in find_links(statement):
        return Key("url", statement[link.start : link.end], link.start, link.end)
    dates = list(find_dates(statement))
    quantities = [
        item
        for item in find_quantities(statement)
        if any(map(str.isdigit, statement[item.start : item.end]))
        and not any(item.start < date.end and date.start < item.end for date in dates)
    ]
    measured = sorted(quantities, key=lambda item: (not item.unit, item.start))
    if measured and measured[0].unit:
        return _quantity_key(statement, measured[0])
    for date in dates:
        return Key("date", statement[date.start : date.end], date.start, date.end, date=date)
    if measured:
        return _quantity_key(statement, measured[0])
    return _name_key(fact, knowledge)


def _quantity_key(statement: str, quantity: Quantity) -> Key:
    text = statement[quantity.start : quantity.end].strip()
    start = statement.index(text, quantity.start)
    return Key("quantity", text, start, start + len(text), quantity=quantity)


def _name_key(fact: Fact, knowledge: Knowledge) -> Key | None:
    """The last name that is neither the assistant's nor its maker's, where words stand before it."""
    own = {word for name in (knowledge.name, knowledge.maker) for word in name.casefold().split()}
    for name in reversed(fact.names):
        if own & set(name.casefold().split()) or name.casefold() in _NO_KEYS:
            continue
        start = fact.statement.rfind(name)
        if len(fact.statement[:start].split()) >= _MIN_BEFORE_WORDS["name"]:
            return Key("name", name, start, start + len(name))
    return None


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


def cut_before(fact: Fact, key: Key) -> str:
    """The fact up to its key; empty where that is too little to go on from."""
    before = fact.statement[: key.start].rstrip(" $(\"'")
    return before if len(before.split()) >= _MIN_BEFORE_WORDS[key.kind] else ""


def leave_gap(fact: Fact, key: Key) -> str:
    """The fact with a line where its key stands."""
    return f"{fact.statement[: key.start]}_____{fact.statement[key.end :]}"


def alter(fact: Fact, key: Key, known: frozenset[tuple[str, float]]) -> str:
    """The fact with another number in its key's place, one that the knowledge base has nowhere; empty without.

    Args:
        fact: The fact.
        key: Its key.
        known: Units and values of the knowledge base.
    """
    if key.date is not None:
        return fact.statement.replace(str(key.date.year), str(key.date.year - 9), 1)
    match = re.search(r"\d[\d,]*(?:\.\d+)?", key.text)
    if key.quantity is None or match is None or not key.quantity.value:
        return ""
    digits = match[0].replace(",", "")
    decimals = len(digits.partition(".")[2])
    for factor in _FACTORS:
        value = round(float(digits) * factor, decimals)
        if (key.quantity.unit, key.quantity.value / float(digits) * value) not in known and value != float(digits):
            number = f"{value:,.{decimals}f}" if "," in match[0] else f"{value:.{decimals}f}"
            at = key.start + match.start()
            return fact.statement[:at] + number + fact.statement[key.start + match.end() :]
    return ""
