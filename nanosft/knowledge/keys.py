"""What of a fact can be asked for: its key, which an answer must hold, and the fact without it or with another. Pure.

A key is a link, a number with its unit, a date, or a name. "The d20 model has 561 million parameters." has the key
"561 million parameters".
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from nanosft.knowledge.facts import Fact, Knowledge
from nanosft.knowledge.quantities import Date, Quantity, find_dates, find_links, find_quantities

KeyKind = Literal["url", "quantity", "date", "name"]

_MIN_BEFORE_WORDS: Final = {"url": 2, "quantity": 2, "date": 2, "name": 3}
_FACTORS: Final = (1.5, 2.5, 3.5, 0.4)
_NO_KEYS: Final = frozenset(
    {"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"}
    | {"december", "ai", "the", "english"}
)


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
