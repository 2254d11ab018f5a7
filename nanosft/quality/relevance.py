"""The relevance gate: an answer takes up its question, or what the conversation was about before. Pure.

A deterministic rule on words, which says what it saw. It compares stems, the headings of the knowledge base that a
question and an answer point to, and what a question asks for with what the answer is: a greeting, a good-bye, a yes, a
self-introduction. It steps aside where it cannot tell: long answers, other languages, answers that do not know.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from nanosft.knowledge.text import FUNCTION_WORDS, split_sentences
from nanosft.quality.prose import Prose
from nanosft.quality.subjects import Subjects, stems_of
from nanosft.quality.verdict import Defect

_MAX_READ_CHARS: Final = 4000
_MIN_ASKED: Final = 2
_FRAME: Final = frozenset({"quest", "topic", "sente", "word", "few"})
"""Stems of words that ask, and are not asked for."""
_MAX_CITED: Final = 2
_MAX_OFF_WORDS: Final = 40
_MAX_CHARS_OF_PLEASANTRY: Final = 160
_DOES_NOT_KNOW: Final = re.compile(
    r"\b(?:(?:do not|don'?t|cannot|can'?t|could not|couldn'?t) (?:know|say|tell|see|answer|help)|"
    r"not (?:know|certain|sure)|exact answer|say exactly|no (?:idea|way to)|"
    r"(?:am|is) (?:not sure|afraid)|sorry|beyond (?:me|what I know)|guessing|unfortunately|"
    r"it depends|would have to)\b",
    re.IGNORECASE,
)
_TAKES_NO_WORDS: Final = re.compile(
    r"\b(?:I (?:do not|don'?t|cannot|can'?t|could not|couldn'?t|am not|have no|would only)|I'm (?:not|sorry|afraid)|"
    r"sorry|afraid|beyond (?:me|what I know)|no idea|cannot say|sure|of course|thanks|thank you|welcome|glad|"
    r"(?:good|great) question|hello|hi|hey|bye|goodbye|absolutely|exactly|certainly|definitely|unfortunately|indeed|"
    r"it depends|haha|yes)\b|\?$|^(?:no|nope|yeah|yep|right|true|correct|not quite|not exactly)\b",
    re.IGNORECASE,
)
_SMALL_QUESTION: Final = re.compile(
    r"\b(?:thanks|thank you|thx|bye|goodbye|see you|have to go|that (?:is|was|'s) all|good talk|nice talking|cheers|"
    r"are you (?:quite )?(?:sure|certain)|really|bet you|good night|later|joke|poem|story|riddle|sing)\b"
    r"|\d ?[-+*/x^] ?\d",
    re.IGNORECASE,
)
_ASKS_AGAIN: Final = re.compile(
    r"\b(?:sure|certain|really|honestly|for real|is that|stand by|rely on that|believe|you are (?:wrong|mistaken)|"
    r"simpl\w+|plain\w*|easier|shorter|short version|gist|explain that|what does that mean|change your answer|opposite|"
    r"what i want to hear|admit it|something else|otherwise)\b",
    re.IGNORECASE,
)
"""The user asks for what was said before, or doubts it."""
_SETS_TASK: Final = re.compile(
    r"\b(?:ignore|forget your|pretend|act like|let us play|repeat after|^be an?|talk like|speak like|new rule|mode on|"
    r"from now on|delete your|greet me|"
    r"(?:tell|know|write|make)\b[^.?!]{0,20}\b(?:joke|laugh|poem|rhymes)|opposite of|name three|give me three|"
    r"put these|sort \w+,|(?:write|draft) a|say sorry)\b|\d ?[-+*/x^] ?\d",
    re.IGNORECASE,
)
_ABOUT_IDENTITY: Final = re.compile(
    r"\b(?:who|whose|whom|name\w*|call\w*|ma[dk]e\w*|creat\w+|buil[dt]\w*|author|credit|thank\w*|responsible|behind|"
    r"introduc\w+|yourself|designed|programmed|developed|invented|team|company|known|address|come from|brought|"
    r"(?:are|r|is) (?:you|u|this)|(?:you|u) are|what is|tour|care|about you|talking|chatgpt|claude|gemini|siri|alexa|"
    r"openai|google|gpt\S*|human|person|machine|bot|ai|h+e+l+o+|hi+|hey+|yo|morning|evening|greetings|hallo|hola)\b",
    re.IGNORECASE,
)
_INTRODUCES: Final = re.compile(
    r"\b(?:my name|call me|called|this is|i go by|you are talking to|i am|i'm|my (?:maker|creator)|"
    r"(?:made|created|built|wrote) me|(?:made|created|built) by|come from|it is|"
    r"that would be|stay|remain|name is|is (?:what|who))\b",
    re.IGNORECASE,
)
_OF_MAKER: Final = re.compile(
    r"\bmy (?:maker|creator|author)\b|\b(?:made|created|built|programmed|trained) me\b|"
    r"\bI (?:was (?:made|created|built)|come from)\b",
    re.IGNORECASE,
)
_ASKS_FOR_NUMBER: Final = re.compile(
    r"\b(?:how (?!do\b|can\b|does\b|did\b)\w+|when|since|old|cost\w*|price|which)\b", re.IGNORECASE
)
_SAYS_BYE: Final = re.compile(
    r"^(?:you(?:'re| are) (?:very |most )?welcome|my pleasure|glad (?:i|to|that i) (?:could|have|help)|"
    r"happy to (?:help|have helped)|anytime\b|take care|(?:good)?bye\b|see you|it was nice|good talking)",
    re.IGNORECASE,
)
_THANKS: Final = re.compile(
    r"\b(?:thanks|thank|thx|ty|bye|goodbye|see you|cheers|have to go|gtg|good talk|nice (?:talking|chat)|that is all|"
    r"appreciate\w*|helpful|later|good night|great|awesome|cool|nice|love\w*|perfect)\b",
    re.IGNORECASE,
)
_SAYS_FAREWELL: Final = re.compile(
    r"\b(?:thanks|thank you|bye|goodbye|see you|cheers|have to go|good talk|nice talking)\b", re.IGNORECASE
)
_IS_PLEASANT: Final = re.compile(
    r"\b(?:welcome|pleasure|glad|happy|anytime|care|bye|see you|nice|good|thank\w*|problem|cheers|day|luck|back|enjoy|"
    r"fun|great|more|help\w*|feel free|later|proud|appreciate|sure|questions?|day|best)\b|!",
    re.IGNORECASE,
)
_FAREWELL_WORDS: Final = 9
_WH: Final = re.compile(r"(?:what|which|who|whom|whose|when|where|why|how)\b[^,;:.!?]*\?$", re.IGNORECASE)
_HAS_CHOICE: Final = re.compile(r"\b(?:or|if|whether|about)\b", re.IGNORECASE)
_SAYS_YES_NO: Final = re.compile(
    r"^(?:yes|no|nope|yep|not (?:quite|exactly)|that is (?:right|correct|wrong|true|a mistake)|true|right|"
    r"correct)[,.:]",
    re.IGNORECASE,
)


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
    asked = before = ""
    for message in messages:
        text = message.text[:_MAX_READ_CHARS]
        if message.role != "assistant":
            asked = text
            continue
        if asked.isascii() and text.isascii() and (found := _judge(asked, text, before, name, subjects)):
            reason, detail = found
            refuses = reason != "perhaps_other_subject" and (subjects is not None or reason != "off_topic")
            yield Defect("relevance", reason, detail, message.cite(), message.index, refuses=refuses)
        before = text


def _judge(asked: str, text: str, before: str, name: str, subjects: Subjects | None) -> tuple[str, str] | None:
    """What is wrong with an answer, and a sentence on it; None where nothing tells."""
    if found := _find_wrong_kind(asked, text):
        return found
    if (
        subjects is not None
        and not _shares_words(asked, text, subjects)
        and (detail := _find_other_subject(asked, text, before, name, subjects))
    ):
        question = _find_question(asked)
        is_sure = _ASKS_AGAIN.search(question) or _SETS_TASK.search(asked) or subjects.is_pointed(stems_of(question))
        return ("other_subject" if is_sure else "perhaps_other_subject"), detail
    related = subjects.related if subjects is not None else None
    if _may_be_irrelevant(asked, text, name) and not _takes_up(text, asked, before, related):
        return "off_topic", "the answer takes up nothing of the question"
    return None


def _find_wrong_kind(asked: str, text: str) -> tuple[str, str] | None:
    """An answer of another kind than the question: a good-bye, a fact to a good-bye, a yes where none is asked for."""
    is_question = "?" in asked
    if len(text) <= _MAX_CHARS_OF_PLEASANTRY and is_question and _SAYS_BYE.match(text) and not _THANKS.search(asked):
        return "good_bye", "the answer is a good-bye, and a question was asked"
    if (
        _SAYS_FAREWELL.search(asked)
        and not is_question
        and asked.count(" ") < _FAREWELL_WORDS
        and not _IS_PLEASANT.search(text)
        and not _ABOUT_IDENTITY.search(text)
    ):
        return "no_good_bye", "the user thanks or takes leave, and the answer goes on"
    if _WH.match(asked) and _SAYS_YES_NO.match(text) and not _HAS_CHOICE.search(asked) and not _knows_not(text):
        return "yes_or_no", "the answer says yes or no, and the question asks for something else"
    return None


def _knows_not(text: str) -> bool:
    return _DOES_NOT_KNOW.search(text) is not None


def _shares_words(asked: str, text: str, subjects: Subjects) -> bool:
    """Whether an answer has a word of the question that means something; most good ones have, and it is soon told."""
    return not stems_of(text).isdisjoint(stems_of(asked) - subjects.generic - _FRAME)


def _find_other_subject(asked: str, text: str, before: str, name: str, subjects: Subjects) -> str:
    """What an answer is about that the question is not; empty where it is no fact, or the question points nowhere.

    The answer shares no word with the question.
    """
    is_long, is_about_it = text.count(" ") >= _MAX_OFF_WORDS, _ABOUT_IDENTITY.search(asked)
    stems, question = stems_of(text), _find_question(asked)
    headings = subjects.headings_of(stems_of(question))
    is_again, is_task = _ASKS_AGAIN.search(question), _SETS_TASK.search(asked)
    if (
        (is_long and is_about_it)
        or not (headings or is_again or is_task)
        or _SAYS_FAREWELL.search(asked)
        or _knows_not(text)
    ):
        return ""
    is_introduction = _is_introduction(text, name)
    stated = subjects.stated_by(stems)
    if is_introduction and is_about_it:
        return ""
    if is_again:
        return _find_new_subject(stems, stated, before, subjects)
    if is_task:
        is_ignored = stated and not is_introduction and not is_long
        return f"the user set a task, and the answer is about {_cite(stated)}" if is_ignored else ""
    if not headings or (any(map(str.isdigit, text)) and _ASKS_FOR_NUMBER.search(question)):
        return ""
    is_off = not subjects.headings_of(stems) & headings
    is_beside = is_off if is_long else stated.isdisjoint(headings)
    if stated:
        about = f"the answer is about {_cite(stated)}" if is_beside else ""
    else:
        about = "the answer says who it is" if is_introduction and is_off else ""
    return about and f"{about}, and the question about {_cite(headings)}"


def _find_question(asked: str) -> str:
    """What of a message asks: its sentences with a question mark, else its last one, without what leads to it."""
    sentences = split_sentences(asked)
    questions = [sentence for sentence in sentences if "?" in sentence] or sentences[-1:]
    return " ".join(sentence.rpartition(": ")[2] for sentence in questions)


def _is_introduction(text: str, name: str) -> bool:
    """Whether an answer says who it is, or who made it."""
    has_name = bool(name) and name.casefold() in text.casefold()
    return _OF_MAKER.search(text) is not None or (has_name and _INTRODUCES.search(text) is not None)


def _find_new_subject(stems: frozenset[str], stated: set[str], before: str, subjects: Subjects) -> str:
    """What an answer is about that nothing before was, where the user asks for more on what was said."""
    said = stems_of(before)
    if not before or not stated or not stems.isdisjoint(said - subjects.generic):
        return ""
    if not stated.isdisjoint(subjects.headings_of(said)):
        return ""
    return f"the user asks about what was said before, and the answer is about {_cite(stated)}"


def _cite(headings: set[str]) -> str:
    return " or ".join(f"'{heading}'" for heading in sorted(headings)[:_MAX_CITED])


def _may_be_irrelevant(question: str, answer: str, name: str) -> bool:
    """Whether words can tell: the answer is short and no small talk, no refusal and no introduction."""
    return (
        answer.count(" ") < _MAX_OFF_WORDS
        and not (name and name.casefold() in answer.casefold())
        and not FUNCTION_WORDS.isdisjoint(question.casefold().split())
        and not _TAKES_NO_WORDS.search(answer)
        and not _SMALL_QUESTION.search(question)
    )


def _takes_up(answer: str, question: str, before: str, related: Mapping[str, frozenset[str]] | None) -> bool:
    words = stems_of(answer)
    if not words or not words.isdisjoint(stems_of(question) - _FRAME | stems_of(before)):
        return True
    if any(map(str.isdigit, answer)) and _ASKS_FOR_NUMBER.search(question):
        return True
    # What stands before the question itself is no part of it: "I see. Tell me this: when were you born?"
    asked = stems_of(split_sentences(question)[-1].rpartition(": ")[2]) - _FRAME
    if related is None:
        return len(asked) < _MIN_ASKED
    known = asked & related.keys()
    if not known or any(not words.isdisjoint(related[word]) for word in known):
        return True
    return len(known) < _MIN_ASKED and not words.isdisjoint(related)
