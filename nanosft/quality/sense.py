"""Gates that refuse nonsense: echo, fragments and short answers repeated. Pure.

Each is a gate of its own. They look at words alone, English ones where that matters, and step aside where a message is
in another language. What they fired on was read in two published identity sets (8,583 answers), 1,000 offline rows
(2,668), chitchat and chatterbot (76,943 answers of people and in 28 languages): echo was right 21 times of 22;
fragments and short_repeats fired on none of the written sets, and step aside where people chat, who say "yeah" three
times (right 0 of 25).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from nanosft.dedup import normalize_words
from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect

_MAX_READ_CHARS: Final = 4000
"""What of a message is compared with another one; nonsense shows in less."""

# ---------------------------------------------------------------- echo

_MIN_ECHO_WORDS: Final = 4
_MAX_ADDED_WORDS: Final = 2
_ASKS_FOR_ECHO: Final = re.compile(
    r"\b(?:repeat|say|echo|copy|spell|translate|correct|rewrite|rephrase|paraphrase|write|quote|complete|continue|"
    r"finish|proofread|fix|convert|sort|format|output|print|return)\b|\.\.\.|\u2026|__|\bwhat\?",
    re.IGNORECASE,
)


def find_echoes(messages: Sequence[Prose]) -> Iterator[Defect]:
    """Answers that give a question back with two words more or less at most at its ends, or a statement word for word.

    Four words at least, since people return a greeting; and not where a text is to be repeated or gone on with.
    """
    question = ""
    for message in messages:
        if message.role != "assistant":
            question = message.text
            continue
        if abs(message.text.count(" ") - question.count(" ")) > _MAX_ADDED_WORDS or len(question) > _MAX_READ_CHARS:
            continue
        asked, answered = normalize_words(question), normalize_words(message.text[:_MAX_READ_CHARS])
        short, long = sorted((asked, answered), key=len)
        is_long = short.count(" ") + 1 >= _MIN_ECHO_WORDS
        is_same = answered == asked or ("?" in question and f" {short} " in f" {long} ")
        if is_long and is_same and not _ASKS_FOR_ECHO.search(question):
            yield Defect("echo", "question", "the answer gives the question back", message.cite(), message.index)


# ---------------------------------------------------------------- fragments

_MAX_FRAGMENT_WORDS: Final = 7
_TOKEN: Final = re.compile(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)?")
_VERBS: Final = frozenset(
    """
    am is are was were be been being have has had do does did can could will would shall should may might must
    cannot go goes went gone come came get got gets give gave gives given make made take took taken say said see saw
    seen know knew known think thought tell told ask find found feel felt leave left put keep kept let begin began
    begun show shown hear heard run ran write wrote written read hold held bring brought sit sat stand stood lose
    lost pay paid meet met set learn learnt lead led understand understood speak spoke spoken spend spent grow grew
    grown win won teach taught buy bought send sent build built fall fell cut sell sold break broke choose chose
    chosen mean meant become became want need like love hate hope try call use work look seem help start play move
    live believe happen talk turn provide create train stop watch follow change add open walk offer remember
    consider appear serve wait die expect stay reach remain suggest raise pass require report decide return explain
    agree enjoy guess wish prefer thank welcome depend count check pick ensure refer cost
    """.split()  # noqa: SIM905 - a list of words reads as words
)
_SMALL_TALK: Final = frozenset(
    """
    hi hello hey hiya howdy yo greetings welcome thanks thank you bye goodbye cheers ok okay yes yeah yep yup no
    nope nah sure absolutely certainly definitely indeed exactly right correct true false of course not at all never
    always maybe perhaps possibly probably good great nice cool fine wow oh ah haha lol well please sorry me too
    same here there again morning evening night afternoon day anytime pleasure my none nothing really so very much a
    bit both neither either hola bonjour salut hallo ciao namaste mate friend everyone deal problem worries luck
    congratulations likewise agreed what how why when where who which interesting awesome wonderful amazing perfect
    excellent ready later see soon and
    """.split()  # noqa: SIM905 - a list of words reads as words
)
_OPENS_TALK: Final = re.compile(
    r"(?:hi|hello|hey|yes|no|sure|thanks|welcome|anytime|bye|goodbye|ok|okay|my pleasure|of course|no problem|"
    r"all the best|happy|glad|good|take care|until|nice)\b|[^.!,]{0,40}\b(?:at your service|there|here)\b",
    re.IGNORECASE,
)
_PRONOUNS: Final = frozenset({"i", "you", "he", "she", "it", "we", "they", "me", "him", "us", "them"})
_DETERMINERS: Final = frozenset(
    {"a", "an", "the", "my", "your", "our", "his", "her", "its", "their", "this", "that", "these", "those", "some"}
    | {"any", "no"}
)
_ASKS_FOR_NAME: Final = re.compile(
    r"\b(?:what|which|who|whom|whose|when|where|how (?:many|much|old|long|far|big|large|tall|fast|often|do you spell)|"
    r"name|in (?:a|one|two|three|a few) words?|one[- ]word|briefly|short|complete|fill|missing|blank|or|list|answer|"
    r"translate|capital|opposite|synonym|antonym|classif\w+|true or false|yes or no|calculate|solve|convert|finish)\b"
    r"|[\d_]|\.\.\.|\u2026",
    re.IGNORECASE,
)


def find_fragments(messages: Sequence[Prose], *, full_stops: bool | None, is_planned: bool) -> Iterator[Defect]:
    """Answers of at most seven words without a verb that are neither small talk nor what was asked for.

    Args:
        messages: The conversation's prose.
        full_stops: Whether the set's answers end on a stop; where they do not, people chat, and say what they like.
        is_planned: The row is of a plan, whose course asks for whole sentences: a noun alone answers no question then.
            Elsewhere it is reported where the question asks for a name or a number.
    """
    if not (full_stops or is_planned):
        return
    question = ""
    for message in messages:
        if message.role != "assistant":
            question = message.text[:_MAX_READ_CHARS]
            continue
        text = message.text.strip()
        if (
            not text
            or len(text) > _MAX_READ_CHARS
            or not text.isascii()
            or "\n" in text
            or text != message.plain.strip()
        ):
            continue
        if _is_fragment(text):
            refuses = is_planned or not _ASKS_FOR_NAME.search(question)
            detail = "the answer is no sentence: it has no verb"
            yield Defect("fragments", "no_verb", detail, message.cite(), message.index, refuses=refuses)


def _is_fragment(text: str) -> bool:
    if text.count(" ") >= _MAX_FRAGMENT_WORDS:
        return False
    words = [word.lower() for word in _TOKEN.findall(text)]
    if not words or _OPENS_TALK.match(text) or _SMALL_TALK.issuperset(words):
        return False
    if not _PRONOUNS.isdisjoint(words):
        return False  # "Install it with pip.", "I owe it to Ada.": what stands beside a pronoun is a verb, known or not
    before = ""
    for word in words:
        if word in _VERBS or "'" in word or "\u2019" in word:
            return False
        if before not in _DETERMINERS and word.endswith(("ed", "ing", "es", "s", "en", "ize", "ify")):
            return False
        before = word
    return True


# ---------------------------------------------------------------- short answers repeated

_MAX_SHORT_WORDS: Final = 6
_MIN_SHORT_CHARS: Final = 2
_MAX_SHORT_COUNT: Final = 2


def find_short_repeats(messages: Sequence[Prose]) -> Iterator[Defect]:
    """A short answer given for the third time in a conversation; longer ones are `repetition`'s.

    A single letter or number may come again: it answers a question of choice.
    """
    counts: Counter[str] = Counter()
    for message in messages:
        if message.role != "assistant" or message.text.count(" ") >= _MAX_SHORT_WORDS:
            continue
        words = normalize_words(message.text[:_MAX_READ_CHARS])
        if len(words) >= _MIN_SHORT_CHARS and not words.isdigit():
            counts[words] += 1
            if counts[words] == _MAX_SHORT_COUNT + 1:
                detail = "the same short answer is given for the third time"
                yield Defect("short_repeats", "third_time", detail, message.cite(), message.index)
