"""Numbers with a unit, dates and URLs in running text, in one normal form. Pure.

1.9 billion parameters = 1.9B parameters = 1,900 million parameters      Quantity(1.9e9, "parameter")
$800 = 800 dollars = 800 USD                                             Quantity(800, "$")
240 minutes = 4 hours = four hours                                       Quantity(14400, "s")
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple


class Quantity(NamedTuple):
    """A number with its unit.

    Attributes:
        value: In the unit's base: seconds for times up to weeks, dollars for cents.
        unit: Normal name of the unit; empty for a bare number.
        step: One unit of the last digit that is no trailing zero: 1e8 for "1.9 billion" and for "1,900 million". A
            rounded number is right within half of it.
        is_hedged: Whether "about" or the like stands before it.
        start: Offset in the text.
        end: Offset behind it.
    """

    value: float
    unit: str
    step: float
    is_hedged: bool
    start: int
    end: int


class Date(NamedTuple):
    """A date as far as the text gives it: month and day are 0 where it does not."""

    year: int
    month: int
    day: int
    start: int
    end: int


class Link(NamedTuple):
    """A URL in normal form: no scheme, no `www.`, host in lower case, no slash or punctuation at the end."""

    url: str
    start: int
    end: int


_SCALES: Final = {
    "hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "mn": 1e6, "mil": 1e6,
    "billion": 1e9, "b": 1e9, "bn": 1e9, "trillion": 1e12, "t": 1e12, "tn": 1e12,
}  # fmt: skip
_NUMERALS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip

# Spellings of each unit, and what one of them is in the unit's base.
_UNIT_TABLE: Final[tuple[tuple[str, str, float], ...]] = (
    ("parameter", "parameters parameter params param weights", 1),
    ("token", "tokens token toks", 1),
    ("layer", "layers layer", 1),
    ("head", "heads head", 1),
    ("gpu", "gpus gpu h100s h100 a100s a100 b200s b200 h200s h200", 1),
    ("node", "nodes node", 1),
    ("step", "steps step iterations iteration", 1),
    ("line", "lines line loc", 1),
    ("file", "files file", 1),
    ("character", "characters character chars", 1),
    ("word", "words word", 1),
    ("dimension", "dimensions dimension dims dim channels", 1),
    ("epoch", "epochs epoch", 1),
    ("star", "stars", 1),
    ("user", "users people", 1),
    ("country", "countries", 1),
    ("language", "languages", 1),
    ("shard", "shards", 1),
    ("%", "% percent pct", 1),
    ("$", "$ dollars dollar usd bucks", 1),
    ("$", "cents cent", 0.01),
    ("eur", "\u20ac euros euro eur", 1),
    ("gbp", "\u00a3 pounds gbp", 1),
    ("s", "seconds second secs sec", 1),
    ("s", "minutes minute mins min", 60),
    ("s", "hours hour hrs hr", 3600),
    ("s", "days day", 86400),
    ("s", "weeks week", 604800),
    ("month", "months month", 1),
    ("year", "years year yrs", 1),
    ("B", "tb terabytes terabyte", 1e12),
    ("B", "gb gib gigabytes gigabyte gigs", 1e9),
    ("B", "mb mib megabytes megabyte", 1e6),
    ("B", "kb kib kilobytes kilobyte", 1e3),
    ("B", "bytes byte", 1),
    ("flop", "flops flop flop/s", 1),
    ("flop", "gflops", 1e9),
    ("flop", "tflops", 1e12),
    ("flop", "pflops", 1e15),
    ("watt", "watts watt", 1),
    ("watt", "kilowatts kw", 1e3),
    ("wh", "kwh", 1e3),
    ("m", "kilometers kilometres km", 1e3),
    ("m", "meters metres", 1),
    ("mile", "miles mile", 1),
    ("kg", "kilograms kg", 1),
    ("C", "celsius", 1),
)  # fmt: skip
_UNITS: Final = {spelling: (unit, factor) for unit, spellings, factor in _UNIT_TABLE for spelling in spellings.split()}
# Before these one word may describe: "32 transformer layers", "8 H100 GPUs".
_DESCRIBED: Final = (
    "parameters|tokens|layers|heads|gpus?|nodes?|steps|lines|files|characters|words|dimensions|epochs|shards|languages"
)
_UNIT: Final = "|".join(
    sorted((re.escape(spelling) for spelling in _UNITS if spelling[0].isalpha()), key=len, reverse=True)
)
_SCALE: Final = r"thousand|million|billion|trillion|hundred|bn|mn|tn"
_SMALL_WORDS: Final = (
    "and|or|to|of|for|in|with|by|the|a|an|on|at|is|was|more|per|as|that|than|from|if|but|so|my|your|i|you|it|"
    "times|out|are|were|has|have|had|this|these|other"
)
_NUMERAL: Final = "|".join(sorted(_NUMERALS, key=len, reverse=True))
_QUANTITY: Final = re.compile(
    # The digit stands before the looks behind it: the search then skips to digits.
    rf"(?P<number>\d(?<![\w./#=\[]\d)(?<![A-Za-z]-\d)(?:\d{{0,2}}(?:,\d{{3}})+(?:\.\d+)?|\d*(?:\.\d+)?))"
    rf"(?:[ -]?(?P<scale>{_SCALE})\b|(?P<suffix>[kKMBT])(?![A-Za-z0-9]))?"
    rf"(?:(?P<percent>[ ]?%)|(?:[ -]?(?:x[ ]?)?)(?:(?P<unit>{_UNIT})\b"
    rf"|(?!(?:{_SMALL_WORDS})\b)[A-Za-z][\w-]* (?P<noun>{_DESCRIBED})\b))?"
    rf"(?![\w]|\.\d)",
    re.IGNORECASE,
)
_BEFORE_NUMBER: Final = re.compile(r"(?P<hedge>[~\u2248] ?)?(?P<currency>US\$|[$\u20ac\u00a3])? ?$")
_MAX_BEFORE_CHARS: Final = 6
_MARKS: Final = frozenset("~\u2248$\u20ac\u00a3")
_SPELLED: Final = re.compile(
    rf"\b(?P<number>{_NUMERAL})(?:[ -](?P<ones>{_NUMERAL}))?(?:[ -](?P<scale>{_SCALE}))?[ -](?:(?P<unit>{_UNIT})\b"
    rf"|(?!(?:{_SMALL_WORDS})\b)[a-z][\w-]* (?P<noun>{_DESCRIBED})\b)",
    re.IGNORECASE,
)
_MAX_EXPONENT: Final = 300
"""Of ten, beyond which a number of that many digits is no statement, and a power of it no float."""
_RANGE: Final = re.compile(r"\s?(?:-|\u2013|to|or|and)\s?$", re.IGNORECASE)
_HEDGES: Final = re.compile(
    r"(?:about|around|roughly|approximately|approx\.?|nearly|almost|over|more than|under|less than|up to|some|circa|"
    r"at least|at most|close to|just|only|near|below|above|within) (?:the |a |only |just |about |around )?$",
    re.IGNORECASE,
)
_HEDGE_ENDS: Final = frozenset(
    ("about", "around", "roughly", "approximately", "approx", "approx.", "nearly", "almost", "over", "under", "than",
     "to", "some", "circa", "least", "most", "just", "only", "near", "below", "above", "within", "the", "a")
)  # fmt: skip
"""The last words of `_HEDGES`: most numbers have none of them before them."""
_MONTHS: Final = {
    "january": 1, "jan": 1, "february": 2, "feb": 2, "march": 3, "mar": 3, "april": 4, "apr": 4, "may": 5, "june": 6,
    "jun": 6, "july": 7, "jul": 7, "august": 8, "aug": 8, "september": 9, "sept": 9, "sep": 9, "october": 10, "oct": 10,
    "november": 11, "nov": 11, "december": 12, "dec": 12,
}  # fmt: skip
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YEAR: Final = re.compile(r"(?:19[3-9]|20\d)(?<!\d{4})\d(?![\w%/])")
_ISO_REST: Final = re.compile(r"-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>\d\d))?\b")
_MONTH_BEFORE: Final = re.compile(
    rf"\b(?:(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? )?(?P<month>{_MONTH})\b\.?"
    rf"(?: (?P<day2>\d{{1,2}})(?:st|nd|rd|th)?)?,? (?:of )?$",
    re.IGNORECASE,
)
_NO_YEAR_AFTER: Final = re.compile(rf"[.,-]\d|[ -](?:x |{_UNIT}|{_SCALE}|\w+ (?:{_DESCRIBED}))\b", re.IGNORECASE)
_BEFORE_YEAR: Final = re.compile(
    r"(?:\b(?:in|since|from|by|until|till|during|after|before|late|early|mid|year|of|around|circa|back in|for)[ -]"
    r"|\(|, |\d-|\u2013| to )$",
    re.IGNORECASE,
)
_MAX_DATE_CHARS: Final = 26
# The sign stands before the looks behind it: the search then skips to signs.
_LINK_SIGN: Final = re.compile(r"[.:](?:(?<=\.)(?:com|org|net|io|ai|dev|edu|gov)\b|(?<=:)//|(?<=www\.))", re.IGNORECASE)
"""What every link has: most texts have none."""
_LINK: Final = re.compile(
    r"(?:https?://|www\.)[^\s<>()\[\]{}\"'`|\u2014\u2026]+"
    r"|(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+(?:com|org|net|io|ai|dev|edu|gov)\b(?:/[^\s<>()\[\]{}\"'`|\u2014\u2026]*)?",
    re.IGNORECASE,
)


def find_quantities(text: str) -> Iterator[Quantity]:
    """Quantities in order of kind, then place; bare numbers too, with an empty unit.

    The first number of a range has the unit of the second: "3-4 hours", "$100 to $300".
    """
    pending: Quantity | None = None
    for match in _QUANTITY.finditer(text):
        quantity = _quantity(text, match)
        if pending is not None:
            is_range = not pending.unit and quantity.unit and _RANGE.fullmatch(text[pending.end : quantity.start])
            yield _scale_like(pending, quantity, match) if is_range else pending
        pending = quantity
    if pending is not None:
        yield pending
    if _NUMERALS.keys().isdisjoint(text.casefold().replace("-", " ").split()):
        return
    for match in _SPELLED.finditer(text):
        unit, factor = _UNITS[(match["unit"] or match["noun"]).casefold()]
        factor *= _SCALES[match["scale"].casefold()] if match["scale"] else 1
        value = _NUMERALS[match["number"].casefold()] + _NUMERALS.get((match["ones"] or "").casefold(), 0)
        yield Quantity(value * factor, unit, factor, _is_hedged(text, match.start()), *match.span())


def find_dates(text: str) -> Iterator[Date]:
    """Dates with a year. A number of four digits alone is one where the words before it say so."""
    for match in _YEAR.finditer(text):
        year, start = int(match[0]), match.start()
        before = text[max(0, start - _MAX_DATE_CHARS) : start]
        if iso := _ISO_REST.match(text, match.end()):
            yield Date(year, int(iso["month"]), int(iso["day"] or 0), start, iso.end())
        elif month := _MONTH_BEFORE.search(before):
            day = int(month["day1"] or month["day2"] or 0)
            yield Date(year, _MONTHS[month["month"].casefold()], day, start - len(before) + month.start(), match.end())
        elif _BEFORE_YEAR.search(before) and not _NO_YEAR_AFTER.match(text, match.end()):
            yield Date(year, 0, 0, *match.span())


def find_links(text: str) -> Iterator[Link]:
    """URLs, with or without a scheme; file names such as `speedrun.sh` are none."""
    end = 0
    while sign := _LINK_SIGN.search(text, end):
        begin = max(end, text.rfind(" ", end, sign.start()), text.rfind("\n", end, sign.start()))
        match = _LINK.search(text, begin)
        if match is None:
            end = sign.end()
            continue
        end = match.end()
        written = match[0].rstrip(".,;:!?*_~\u2019\u201d/")
        url = re.sub(r"^(?:https?://)?(?:www\.)?", "", written, flags=re.IGNORECASE)
        host, slash, path = url.partition("/")
        if "." in host or ":" in host:
            yield Link(host.casefold() + slash + path, match.start(), match.start() + len(written))


def _quantity(text: str, match: re.Match[str]) -> Quantity:
    digits = match["number"].replace(",", "")
    scale = match["scale"] or match["suffix"]
    factor = _SCALES[scale.casefold()] if scale else 1.0
    unit = ""
    start = match.start()
    before = None
    if text[max(0, start - 2) : start].rstrip(" ")[-1:] in _MARKS:
        before = _BEFORE_NUMBER.search(text, max(0, start - _MAX_BEFORE_CHARS), start)
    if before and before["currency"]:
        unit = {"$": "$", "\u20ac": "eur", "\u00a3": "gbp"}[before["currency"][-1]]
    elif match["percent"]:
        unit = "%"
    elif spelling := match["unit"] or match["noun"]:
        unit, unit_factor = _UNITS[spelling.casefold()]
        factor *= unit_factor
    whole, _, fraction = digits.partition(".")
    exponent = -len(fraction) if fraction else len(whole) - len(whole.rstrip("0"))
    exponent = max(-_MAX_EXPONENT, min(exponent, _MAX_EXPONENT))
    start = before.start() if before else start
    hedged = bool(before and before["hedge"]) or _is_hedged(text, start)
    return Quantity(float(digits) * factor, unit, factor * 10.0**exponent, hedged, start, match.end())


def _scale_like(first: Quantity, second: Quantity, match: re.Match[str]) -> Quantity:
    """The first number of a range, with the unit and scale of the second."""
    factor = second.value / float(match["number"].replace(",", "")) if second.value else 1.0
    return first._replace(value=first.value * factor, step=first.step * factor, unit=second.unit)


def _is_hedged(text: str, start: int) -> bool:
    before = text[max(0, start - 24) : start]
    words = before.split()
    if not words or words[-1].lstrip("(\"'*_").casefold() not in _HEDGE_ENDS:
        return False
    return _HEDGES.search(before) is not None
