"""The grounding gate: what an assistant states is in the knowledge base, or in the user's own words. Pure.

Looked at are URLs, dates, and numbers with a unit or currency, all in normal form (`nanosft.knowledge.quantities`); and
proper names: what the assistant connects itself with is reported; where the gate is strict every unknown name refuses.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nanosft.knowledge import Knowledge
from nanosft.knowledge.quantities import Date, Quantity, find_dates, find_links, find_quantities
from nanosft.quality.identity import Identity
from nanosft.quality.prose import Prose
from nanosft.quality.subjects import Subjects, make_subjects
from nanosft.quality.verdict import Defect, excerpt_of

_HEDGED_TOLERANCE: Final = 0.07
_TOLERANCE: Final = 1e-6
_THOUSAND: Final = 1e3
_LARGE: Final = 1e6
"""From here on a number is a statement without a unit too: "561M"."""
_ALWAYS: Final = frozenset({("%", 100.0), ("%", 0.0), ("s", 86400.0), ("s", 604800.0), ("year", 1.0), ("month", 1.0)})
"""Said in any talk: a hundred per cent, 24 hours, a week, one year."""
_ONES: Final = frozenset({1.0, 60.0, 3600.0})
"""One second, one minute, one hour, and one of anything that is counted."""

_CAPITALIZED: Final = re.compile(
    r"(?<![\w.@/-])(?:[A-Z][a-z]+[A-Z]\w*|[A-Z][A-Za-z]*\d*[A-Za-z\d]+|[a-z]+[A-Z]\w+)(?![\w@/]|\.\w)"
)
_CAPITALIZED_FIRST: Final = re.compile(
    # The letter stands before the look behind it: the search then skips to capitals.
    r"[A-Z](?<![\w.@/-][A-Z])(?:[a-z]+[A-Z]\w*|[A-Za-z]*\d*[A-Za-z\d]+)(?![\w@/]|\.\w)"
)
"""What of `_CAPITALIZED` begins with its capital: nearly always all of it, in a third of the time."""
_CAMEL: Final = re.compile(r"[A-Z](?<=[a-z][A-Z])")
_CAMEL_WORD: Final = re.compile(r"(?<![\w.@/-])[a-z]+[A-Z]")
_MAX_WORD_CHARS: Final = 200
_SENTENCE_START: Final = re.compile(
    r"(?:^|[.!?:\u2026]['\")\u201d\u2019]*\s+|\n\s*(?:[-*+\u2022]|\d+[.)])?\s*|[\"\u201c(*]|[-\u2013\u2014]\s*)$"
)
_IN_IDENTIFIER: Final = re.compile(r"\b[A-Za-z]{1,3}(\d{1,4})\b")
"""The number of a name such as d26, which lets an assistant speak of 26 layers."""
_WORDS: Final = re.compile(r"[^\W_]+")
_SENTENCE_STOP: Final = re.compile(r"[.!?;\n](?=\s)")
_OF_ITSELF: Final = re.compile(
    r"\b(?:I|me|[Mm]y|[Ww]e|[Oo]ur)\b[^.!?;\n]{0,120}?"
    r"\b(?:made|built|created|developed|trained|finetuned|funded|founded|hosted|based|written|owned|published|released|"
    r"launched|designed|named|called|run|runs|use|uses|come|from|by|maker|creator|developer|company|team|model|code|home)\b"
)
"""What an assistant says of where it comes from and what it is made with."""
_MAX_BEFORE_CHARS: Final = 200
_COMMON_NAMES: Final = frozenset(
    """
    ai llm llms gpu gpus cpu cpus tpu ram api apis url html json http https ok okay faq diy pdf usa us uk eu ui id
    ids hi hello hey thanks sorry yes no well sure absolutely great good haha hmm wow oh ah please welcome english
    american large language model readme mac macs cli monday tuesday wednesday thursday friday saturday sunday
    january february march april may june july august september october november december christmas internet web
    earth moon sun europe america asia africa spanish french german italian portuguese dutch swedish chinese
    japanese korean russian hindi arabic turkish polish greek latin british dr mr mrs ms st vs etc eg ie am pm mit
    python ascii unicode god phd nlp ml king queen sir dear mps vram ssd usb wifi ip pc ios android linux windows
    ubuntu macos macbook macbooks apple silicon nvidia amd intel cuda csv sql pdf pr prs gpt flops bpe youtube
    google wikipedia facebook twitter email emoji shakespeare shakespearean czech finnish norwegian danish thai
    vietnamese indonesian filipino tagalog hebrew hungarian romanian ukrainian swahili persian farsi catalan
    bulgarian serbian croatian slovak malay urdu bengali tamil punjabi icelandic irish welsh afrikaans mandarin
    cantonese hola bonjour ciao hallo
    """.split()  # noqa: SIM905 - a list of words reads as words
)


@dataclass(frozen=True)
class Reference:
    """What may be stated: the knowledge base in the normal form in which the gate compares.

    Attributes:
        identity: Who the assistant is; None where nobody says.
        quantities: Values by unit, bare numbers under "".
        dates: (year, month, day), zeros where not given.
        urls: Normal forms.
        words: All words, in lower case, and those that anybody may say; None where there is no knowledge and grounding
            has nothing to compare with.
        subjects: What the words of the knowledge point to; None without knowledge.
    """

    identity: Identity | None
    quantities: dict[str, tuple[float, ...]]
    dates: frozenset[tuple[int, int, int]]
    urls: frozenset[str]
    words: frozenset[str] | None
    subjects: Subjects | None = None


def make_reference(knowledge: Knowledge) -> Reference:
    """What a knowledge base lets an assistant state."""
    text = f"{knowledge.name}\n{knowledge.maker}\n{knowledge.text}"
    words = _COMMON_NAMES.union(_WORDS.findall(text.casefold()))
    statements = {topic.title: [fact.statement for fact in topic.facts] for topic in knowledge.topics}
    subjects = make_subjects(statements, name=knowledge.name)
    return replace(
        _read_claims(text), identity=Identity(knowledge.name, knowledge.maker), words=words, subjects=subjects
    )


def make_identity_reference(identity: Identity) -> Reference:
    """A reference of an identity alone: the grounding gate finds nothing to compare with, and is silent."""
    return Reference(identity, {}, frozenset(), frozenset(), None)


def find_grounding_defects(
    messages: Sequence[Prose], reference: Reference, *, strict: bool = False
) -> Iterator[Defect]:
    """URLs, dates and quantities of the assistant that neither the knowledge nor the user before it has; unknown names.

    Args:
        messages: The conversation's prose.
        reference: What the knowledge base holds.
        strict: Whether unknown proper names refuse, all of them; otherwise those are reported that the assistant
            connects itself with: "I run on Azure".
    """
    if reference.words is None:
        return
    said = _Said()
    for message in messages:
        if message.role != "assistant":
            said.add(message.text)
            continue
        yield from _find_links(message, reference, said)
        yield from _find_dates(message, reference, said)
        yield from _find_quantities(message, reference, said)
        unknown = [
            found
            for found in _unknown_names(message, reference.words, said)
            if strict or _is_of_itself(message.plain, found[0])
        ]
        if unknown:
            at, name = unknown[0]
            detail = f"names that the knowledge does not hold: {', '.join(dict.fromkeys(name for _, name in unknown))}"
            excerpt = excerpt_of(message.text, at, at + len(name))
            yield Defect("grounding", "unknown_name", detail, excerpt, message.index, refuses=strict)


class _Said:
    """What the user has said so far; each message is parsed once, and only if somebody asks."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._waiting_words: list[str] = []
        self._waiting: list[str] = []
        self._parsed = _read_claims("")

    def add(self, text: str) -> None:
        self._waiting_words.append(text)
        self._waiting.append(text)

    def has_word(self, folded: str) -> bool:
        for text in self._waiting_words:
            self._words.update(_WORDS.findall(text.casefold()))
        self._waiting_words.clear()
        return folded in self._words

    @property
    def reference(self) -> Reference:
        if self._waiting:
            new, old = _read_claims("\n".join(self._waiting)), self._parsed
            quantities = {
                unit: old.quantities.get(unit, ()) + new.quantities.get(unit, ())
                for unit in old.quantities.keys() | new.quantities.keys()
            }
            self._parsed = Reference(None, quantities, old.dates | new.dates, old.urls | new.urls, None)
            self._waiting = []
        return self._parsed


def _read_claims(text: str) -> Reference:
    """The quantities, dates and URLs of a text."""
    values: dict[str, set[float]] = {}
    for quantity in find_quantities(text):
        values.setdefault(quantity.unit, set()).add(quantity.value)
    values.setdefault("", set()).update(float(match[1]) for match in _IN_IDENTIFIER.finditer(text))
    dates = frozenset((date.year, date.month, date.day) for date in find_dates(text))
    links = frozenset(link.url for link in find_links(text))
    return Reference(None, {unit: tuple(sorted(found)) for unit, found in values.items()}, dates, links, None)


def _find_links(message: Prose, reference: Reference, said: _Said) -> Iterator[Defect]:
    if "." not in message.text:
        return
    for link in find_links(message.text):
        if not (has_link(link.url, reference.urls) or has_link(link.url, said.reference.urls)):
            excerpt = excerpt_of(message.text, link.start, link.end)
            yield Defect("grounding", "url", f"the knowledge does not hold the URL {link.url}", excerpt, message.index)


def has_link(url: str, known: Iterable[str]) -> bool:
    """Whether the URL, or a page under it, is known."""
    return any(item == url or item.startswith((url + "/", url + "#", url + "?")) for item in known)


def _find_dates(message: Prose, reference: Reference, said: _Said) -> Iterator[Defect]:
    for date in find_dates(message.plain):
        if not (has_date(date, reference.dates) or has_date(date, said.reference.dates) or _has_year(date, said)):
            written = message.text[date.start : date.end]
            excerpt = excerpt_of(message.text, date.start, date.end)
            yield Defect("grounding", "date", f"the knowledge does not hold the date {written}", excerpt, message.index)


def has_date(date: Date, known: Iterable[tuple[int, int, int]]) -> bool:
    """Whether a known date agrees in all that this one gives: "2025" agrees with October 13, 2025."""
    wanted = (date.year, date.month, date.day)
    return any(all(not part or part == found for part, found in zip(wanted, item, strict=True)) for item in known)


def _has_year(date: Date, said: _Said) -> bool:
    """Whether the user named the year as a bare number."""
    return not date.month and float(date.year) in said.reference.quantities.get("", ())


def _find_quantities(message: Prose, reference: Reference, said: _Said) -> Iterator[Defect]:
    for quantity in find_quantities(message.plain):
        if (quantity.unit or quantity.value >= _LARGE) and not _is_grounded(quantity, reference, said):
            written = message.text[quantity.start : quantity.end].strip(" ~")
            excerpt = excerpt_of(message.text, quantity.start, quantity.end)
            yield Defect("grounding", "quantity", f"the knowledge does not hold {written!r}", excerpt, message.index)


def _is_grounded(quantity: Quantity, reference: Reference, said: _Said) -> bool:
    if (quantity.unit, quantity.value) in _ALWAYS or quantity.value in _ONES:
        return True
    if not quantity.unit:
        return any(
            has_value(quantity, found) for known in (reference, said.reference) for found in known.quantities.values()
        )
    if has_value(quantity, reference.quantities.get(quantity.unit, ())) or has_value(
        quantity, reference.quantities.get("", ())
    ):
        return True
    if quantity.unit == "%" and has_value(
        quantity._replace(value=quantity.value / 100, step=quantity.step / 100), reference.quantities.get("", ())
    ):
        return True
    return any(has_value(quantity, values) for values in said.reference.quantities.values())


def has_value(quantity: Quantity, known: Iterable[float]) -> bool:
    """Whether a known value rounds to the quantity as written, or is near it where it is hedged."""
    hedge = _HEDGED_TOLERANCE * quantity.value if quantity.is_hedged else 0.0
    # Rounding needs digits to round to: "1.9 billion" is one of 1,879,048,192, "8K" of 8,304, but "$3" none of $2.6.
    is_round = quantity.value >= (10 if quantity.step < _THOUSAND else 2) * quantity.step
    rounding = quantity.step / 2 if is_round else 0.0
    tolerance = max(hedge, rounding, _TOLERANCE * quantity.value)
    return any(abs(value - quantity.value) <= tolerance for value in known)


def _is_of_itself(text: str, at: int) -> bool:
    """Whether the sentence up to the name tells of the assistant's own making."""
    start = max(0, at - _MAX_BEFORE_CHARS)
    before = text[start:at]
    last = max((match.end() for match in _SENTENCE_STOP.finditer(before)), default=0)
    return _OF_ITSELF.search(before, last) is not None


def _unknown_names(message: Prose, known: frozenset[str], said: _Said) -> Iterator[tuple[int, str]]:
    text = message.plain
    for match in (_CAPITALIZED if _has_camel_word(text) else _CAPITALIZED_FIRST).finditer(text):
        word = match[0]
        folded = word.casefold()
        if folded in known or folded.removesuffix("s") in known:
            continue
        is_camel = any(map(str.isupper, word[1:]))
        if not is_camel and _SENTENCE_START.search(text, max(0, match.start() - 8), match.start()):
            continue
        if not said.has_word(folded):
            yield match.start(), word


def _has_camel_word(text: str) -> bool:
    """Whether a name in it may begin with a small letter: nanoGPT."""
    for match in _CAMEL.finditer(text):
        first = max(0, match.start() - _MAX_WORD_CHARS)
        space = text.rfind(" ", first, match.start())
        if (space < 0 < first) or _CAMEL_WORD.search(text, space + 1, match.end()):
            return True
    return False
