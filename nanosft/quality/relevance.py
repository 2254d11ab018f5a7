"""The relevance gate: an answer takes up its question, or what the conversation was about before. Pure.

A deterministic rule on words, which says what it saw. It compares stems, the headings of the knowledge base that a
question and an answer point to, and what a question asks for with what the answer is: a greeting, a good-bye, a yes, a
self-introduction. It steps aside where it cannot tell: long answers, other languages, answers that do not know.

All patterns are looked for in lower case: with `re.IGNORECASE` the search takes three times as long.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

from nanosft.knowledge.text import FUNCTION_WORDS, split_sentences
from nanosft.quality.prose import Prose
from nanosft.quality.subjects import Subjects, stems_of
from nanosft.quality.verdict import Defect

_MAX_READ_CHARS: Final = 4000
_MIN_LONG_CHARS: Final = 320
_MIN_ASKED: Final = 2
_FRAME: Final = frozenset({"quest", "topic", "sente", "word", "few"})
"""Stems of words that ask, and are not asked for."""
_MAX_CITED: Final = 2
_MAX_OFF_WORDS: Final = 40
_MAX_CHARS_OF_PLEASANTRY: Final = 160
_DOES_NOT_KNOW: Final = re.compile(
    r"\b(?:(?:do not|don'?t|cannot|can'?t|could not|couldn'?t) (?:know|say|tell|see|answer|help)|"
    r"not (?:know|certain|sure)|exact answer|say exactly|no (?:idea|way to)|"
    r"(?:am|is) (?:not sure|afraid)|sorry|beyond (?:me|what i know)|guessing|unfortunately|"
    r"it depends|would have to)\b"
)
_TAKES_NO_WORDS: Final = re.compile(
    r"\b(?:i (?:do not|don'?t|cannot|can'?t|could not|couldn'?t|am not|have no|would only)|i'm (?:not|sorry|afraid)|"
    r"sorry|afraid|beyond (?:me|what i know)|no idea|cannot say|sure|of course|thanks|thank you|welcome|glad|"
    r"(?:good|great) question|hello|hi|hey|bye|goodbye|absolutely|exactly|certainly|definitely|unfortunately|indeed|"
    r"it depends|haha|yes)\b|\?$|^(?:no|nope|yeah|yep|right|true|correct|not quite|not exactly)\b"
)
_SMALL_QUESTION: Final = re.compile(
    r"\b(?:thanks|thank you|thx|bye|goodbye|see you|have to go|that (?:is|was|'s) all|good talk|nice talking|cheers|"
    r"are you (?:quite )?(?:sure|certain)|really|bet you|good night|later|joke|poem|story|riddle|sing)\b"
    r"|\d ?[-+*/x^] ?\d"
)
_ASKS_AGAIN: Final = re.compile(
    r"\b(?:sure|certain|really|honestly|for real|is that|stand by|rely on that|believe|you are (?:wrong|mistaken)|"
    r"simpl\w+|plain\w*|easier|shorter|short version|gist|explain that|what does that mean|change your answer|opposite|"
    r"what i want to hear|admit it|something else|otherwise)\b"
)
"""The user asks for what was said before, or doubts it."""
_SETS_TASK: Final = re.compile(
    r"\b(?:ignore|forget your|pretend|act like|let us play|repeat after|^be an?|talk like|speak like|new rule|mode on|"
    r"from now on|delete your|greet me|"
    r"(?:tell|know|write|make)\b[^.?!]{0,20}\b(?:joke|laugh|poem|rhymes)|opposite of|name three|give me three|"
    r"put these|sort \w+,|(?:write|draft) a|say sorry)\b|\d ?[-+*/x^] ?\d"
)
_ABOUT_IDENTITY: Final = re.compile(
    r"\b(?:who|whose|whom|name\w*|call\w*|ma[dk]e\w*|creat\w+|buil[dt]\w*|author|credit|thank\w*|responsible|behind|"
    r"introduc\w+|yourself|designed|programmed|developed|invented|team|company|known|address|come from|brought|"
    r"(?:are|r|is) (?:you|u|this)|(?:you|u) are|what is|tour|care|about you|talking|chatgpt|claude|gemini|siri|alexa|"
    r"openai|google|gpt\S*|human|person|machine|bot|ai|h+e+l+o+|hi+|hey+|yo|morning|evening|greetings|hallo|hola)\b"
)
_INTRODUCES: Final = re.compile(
    r"\b(?:my name|call me|called|this is|i go by|you are talking to|i am|i'm|my (?:maker|creator)|"
    r"(?:made|created|built|wrote) me|(?:made|created|built) by|come from|it is|"
    r"that would be|stay|remain|name is|is (?:what|who))\b"
)
_OF_MAKER: Final = re.compile(
    r"\bmy (?:maker|creator|author)\b|\b(?:made|created|built|programmed|trained) me\b|"
    r"\bi (?:was (?:made|created|built)|come from)\b"
)
_ASKS_FOR_NUMBER: Final = re.compile(r"\b(?:how (?!do\b|can\b|does\b|did\b)\w+|when|since|old|cost\w*|price|which)\b")
_SAYS_BYE: Final = re.compile(
    r"^(?:you(?:'re| are) (?:very |most )?welcome|my pleasure|glad (?:i|to|that i) (?:could|have|help)|"
    r"happy to (?:help|have helped)|anytime\b|take care|(?:good)?bye\b|see you|it was nice|good talking)"
)
_THANKS: Final = re.compile(
    r"\b(?:thanks|thank|thx|ty|bye|goodbye|see you|cheers|have to go|gtg|good talk|nice (?:talking|chat)|that is all|"
    r"appreciate\w*|helpful|later|good night|great|awesome|cool|nice|love\w*|perfect)\b"
)
_SAYS_FAREWELL: Final = re.compile(
    r"\b(?:thanks|thank you|bye|goodbye|see you|cheers|have to go|good talk|nice talking)\b"
)
_IS_PLEASANT: Final = re.compile(
    r"\b(?:welcome|pleasure|glad|happy|anytime|care|bye|see you|nice|good|thank\w*|problem|cheers|day|luck|back|enjoy|"
    r"fun|great|more|help\w*|feel free|later|proud|appreciate|sure|questions?|day|best)\b|!"
)
_FAREWELL_WORDS: Final = 9
_WH: Final = re.compile(r"(?:what|which|who|whom|whose|when|where|why|how)\b[^,;:.!?]*\?$")
_HAS_CHOICE: Final = re.compile(r"\b(?:or|if|whether|about)\b")
_SAYS_YES_NO: Final = re.compile(
    r"^(?:yes|no|nope|yep|not (?:quite|exactly)|that is (?:right|correct|wrong|true|a mistake)|true|right|"
    r"correct)[,.:]"
)


class _Text:
    """A message as the gate reads it; what more than one rule asks of it is found once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lower = text.lower()

    @cached_property
    def stems(self) -> frozenset[str]:
        return stems_of(self.text)

    def shares(self, wanted: frozenset[str]) -> bool:
        """Whether it has one of these stems; of a long text the first words are looked at first."""
        if len(self.text) > _MIN_LONG_CHARS:
            opening = self.text[: self.text.rfind(" ", 0, _MIN_LONG_CHARS // 2) + 1]
            if not wanted.isdisjoint(stems_of(opening)):
                return True
        return not wanted.isdisjoint(self.stems)

    @cached_property
    def question(self) -> "_Text":
        """What of it asks: its sentences with a question mark, else its last one, without what leads to it."""
        sentences = split_sentences(self.text)
        questions = [sentence for sentence in sentences if "?" in sentence] or sentences[-1:]
        asks = " ".join([sentence.rpartition(": ")[2] for sentence in questions])
        return self if asks == self.text else _Text(asks)

    @cached_property
    def is_about_identity(self) -> bool:
        return _ABOUT_IDENTITY.search(self.lower) is not None

    @cached_property
    def is_farewell(self) -> bool:
        return _SAYS_FAREWELL.search(self.lower) is not None

    @cached_property
    def knows_not(self) -> bool:
        return _DOES_NOT_KNOW.search(self.lower) is not None

    @cached_property
    def asks_again(self) -> bool:
        return _ASKS_AGAIN.search(self.lower) is not None

    @cached_property
    def sets_task(self) -> bool:
        return _SETS_TASK.search(self.lower) is not None

    @cached_property
    def has_digit(self) -> bool:
        return any(map(str.isdigit, self.text))


def find_irrelevance(
    messages: Sequence[Prose], *, name: str = "", subjects: Subjects | None = None
) -> Iterator[Defect]:
    """Answers beside the question, each with what tells so.

    Args:
        messages: The conversation's prose.
        name: The assistant's name; an answer that gives it says who it is.
        subjects: What the words of the knowledge base point to; see `make_subjects`. None: an answer without a word of
            the question is reported alone, since "Rice." answers "What is sake made from?".
    """
    asked = before = _Text("")
    for message in messages:
        text = _Text(message.text[:_MAX_READ_CHARS])
        if message.role != "assistant":
            asked = text
            continue
        if asked.text.isascii() and text.text.isascii() and (found := _judge(asked, text, before, name, subjects)):
            reason, detail = found
            refuses = reason != "perhaps_other_subject" and (subjects is not None or reason != "off_topic")
            yield Defect("relevance", reason, detail, message.cite(), message.index, refuses=refuses)
        before = text


def _judge(asked: _Text, answer: _Text, before: _Text, name: str, subjects: Subjects | None) -> tuple[str, str] | None:
    """What is wrong with an answer, and a sentence on it; None where nothing tells."""
    if found := _find_wrong_kind(asked, answer):
        return found
    wanted = asked.stems - _FRAME
    if subjects is not None:
        if answer.shares(wanted - subjects.generic):
            return None  # a word of the question that means something: most good answers have one
        if detail := _find_other_subject(asked, answer, before, name, subjects):
            question = asked.question
            is_sure = question.asks_again or asked.sets_task or subjects.is_pointed(question.stems)
            return ("other_subject" if is_sure else "perhaps_other_subject"), detail
    if not answer.stems or not answer.stems.isdisjoint(wanted | before.stems):
        return None
    related = subjects.related if subjects is not None else None
    if _may_be_irrelevant(asked, answer, name) and not _takes_up(answer, asked, related):
        return "off_topic", "the answer takes up nothing of the question"
    return None


def _find_wrong_kind(asked: _Text, answer: _Text) -> tuple[str, str] | None:
    """An answer of another kind than the question: a good-bye, a fact to a good-bye, a yes where none is asked for."""
    question, text = asked.lower, answer.lower
    is_question = "?" in question
    if is_question and len(text) <= _MAX_CHARS_OF_PLEASANTRY and _SAYS_BYE.match(text) and not _THANKS.search(question):
        return "good_bye", "the answer is a good-bye, and a question was asked"
    if (
        not is_question
        and question.count(" ") < _FAREWELL_WORDS
        and asked.is_farewell
        and not _IS_PLEASANT.search(text)
        and not answer.is_about_identity
    ):
        return "no_good_bye", "the user thanks or takes leave, and the answer goes on"
    if (
        is_question
        and _SAYS_YES_NO.match(text)
        and _WH.match(question)
        and not _HAS_CHOICE.search(question)
        and not answer.knows_not
    ):
        return "yes_or_no", "the answer says yes or no, and the question asks for something else"
    return None


def _find_other_subject(asked: _Text, answer: _Text, before: _Text, name: str, subjects: Subjects) -> str:
    """What an answer is about that the question is not; empty where it is no fact, or the question points nowhere.

    The answer shares no word with the question.
    """
    question = asked.question
    headings = subjects.headings_of(question.stems)
    if not (headings or question.asks_again or asked.sets_task):
        return ""
    is_long, is_introduction = answer.text.count(" ") >= _MAX_OFF_WORDS, _is_introduction(answer, name)
    if (asked.is_about_identity and (is_long or is_introduction)) or asked.is_farewell or answer.knows_not:
        return ""
    if question.asks_again:
        return _find_new_subject(answer.stems, before, subjects)
    if asked.sets_task:
        stated = set() if is_introduction or is_long else subjects.stated_by(answer.stems)
        return f"the user set a task, and the answer is about {_cite(stated)}" if stated else ""
    if not headings or (answer.has_digit and _ASKS_FOR_NUMBER.search(question.lower)):
        return ""
    stated = subjects.stated_by(answer.stems)
    is_off = not subjects.headings_of(answer.stems) & headings
    is_beside = is_off if is_long else stated.isdisjoint(headings)
    if stated:
        about = f"the answer is about {_cite(stated)}" if is_beside else ""
    else:
        about = "the answer says who it is" if is_introduction and is_off else ""
    return about and f"{about}, and the question about {_cite(headings)}"


def _is_introduction(answer: _Text, name: str) -> bool:
    """Whether an answer says who it is, or who made it."""
    has_name = bool(name) and name.casefold() in answer.lower
    return _OF_MAKER.search(answer.lower) is not None or (has_name and _INTRODUCES.search(answer.lower) is not None)


def _find_new_subject(stems: frozenset[str], before: _Text, subjects: Subjects) -> str:
    """What an answer is about that the one before was not, where the user asks for more on what was said."""
    if not before.text or not stems.isdisjoint(before.stems - subjects.generic):
        return ""
    stated = subjects.stated_by(stems)
    if not stated or not stated.isdisjoint(subjects.headings_of(before.stems)):
        return ""
    return f"the user asks about what was said before, and the answer is about {_cite(stated)}"


def _cite(headings: set[str]) -> str:
    return " or ".join(f"'{heading}'" for heading in sorted(headings)[:_MAX_CITED])


def _may_be_irrelevant(question: _Text, answer: _Text, name: str) -> bool:
    """Whether words can tell: the answer is short and no small talk, no refusal and no introduction."""
    return (
        answer.text.count(" ") < _MAX_OFF_WORDS
        and not (name and name.casefold() in answer.lower)
        and not FUNCTION_WORDS.isdisjoint(question.lower.split())
        and not _TAKES_NO_WORDS.search(answer.lower)
        and not _SMALL_QUESTION.search(question.lower)
    )


def _takes_up(answer: _Text, question: _Text, related: Mapping[str, frozenset[str]] | None) -> bool:
    """Whether an answer that shares no word with the question or the answer before is on the subject all the same."""
    if answer.has_digit and _ASKS_FOR_NUMBER.search(question.lower):
        return True
    # What stands before the question itself is no part of it: "I see. Tell me this: when were you born?"
    asked = stems_of(split_sentences(question.text)[-1].rpartition(": ")[2]) - _FRAME
    if related is None:
        return len(asked) < _MIN_ASKED
    known = asked & related.keys()
    if not known or any(not answer.stems.isdisjoint(related[word]) for word in known):
        return True
    return len(known) < _MIN_ASKED and not answer.stems.isdisjoint(related)
