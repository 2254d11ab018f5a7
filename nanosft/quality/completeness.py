"""The completeness gate: answers cut off, markup left open, stray JSON, left-overs of templates. Pure.

An answer without a full stop at its end is not cut off because of that: people chat so, and lists, verse and addresses
end so. It is when its last words cannot end a sentence, or when all else around it is written in whole sentences.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Final

from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect, excerpt_of

_CLOSING: Final = frozenset(
    ".!?\u2026)]}>\"'\u201d\u2019\u00bb`*_~|/\\=\u3002\uff01\uff1f\uff09\u300d\u0964\u061f\u06d4"
    "\u037e\u055c\u055e\u0589\u0965\u104b\u1362\u1367\u17d4"  # Greek, Armenian, Indian, Burmese, Ethiopic, Khmer
)
_SENTENCE_STOP: Final = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u037e](?=[\"')\u201d\u2019]*(?:\s|$))")
_URL_END: Final = re.compile(
    r"(?:https?://\S+|www\.\S+|\b[\w-]+\.(?:com|org|net|io|ai|dev|edu|gov)(?:/\S*)?|[^\s@]+@[^\s@]+\.\w+)$"
)
_MAX_URL_CHARS: Final = 2000
"""What browsers take; the pattern's time grows with the square of it."""
_LIST_LINE: Final = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)]|[a-zA-Z][.)])\s+\S|^\s*\||^\s{0,3}#{1,6}\s|^\s*>")
_BARE_MARKER: Final = re.compile(r"(?:^|\n)[^\S\n]*(?:[-*+\u2022]|\d{1,3}[.)]|#{1,6}|\|)[^\S\n]*$")
_HANGING: Final = re.compile(
    r"\b(?:the|a|an|and|or|because|although|whereas|if|than|into|onto|my|your|our|their|its|"
    r"every|such as|as well as|due to|instead of|I'm|you're|they're|we're|it's|there's|I've|you've|we've|which|whose)$"
)
_HANGING_WHEN_LONG: Final = re.compile(
    r"\b(?:of|to|for|with|from|by|at|as|is|are|was|were|but|in|on|can|will|would|could|should|"
    r"has|have|had|when|where|while|be|been|very|also|some|any|each|his|between|about)$",
    re.IGNORECASE,
)
_LONE: Final = re.compile(
    r"(?:(?:and|or|but|of|in|on|at|to|for|with|from|by|as|is|are|was|if|than) )?"
    r"(?:the|a|an|my|your|our|their|its|because|although|whereas|every|of|with|from|such as|and|or)",
    re.IGNORECASE,
)
"""A whole answer of words that go before others."""
_OPEN_URL: Final = re.compile(r"(?:\b(?:at|see|visit|from|here|on|to|is)|[:(]) ?(?:https?(?::/{0,2})?|www)[.!]?$")
_MIN_CHARS: Final = 60
_MIN_TAIL_WORDS: Final = 4
_MIN_OTHERS: Final = 3
_MIN_CLOSED_SHARE: Final = 0.8
_MIN_SET_SHARE: Final = 0.99
_MIN_DOUBT_SHARE: Final = 0.8
_MAX_MARKER_CHARS: Final = 12
_MAX_END_CHARS: Final = 24
_INFORMAL: Final = re.compile(
    r"\b(?:[lL]ol|LOL|[hH]aha\w*|[hH]eh\w*|[oO]mg|OMG|ur|u|gonna|wanna|idk|tbh|kinda|dunno|thats|dont|didnt|whats|im)\b"
    r"|(?<![\w.])i(?:'m|m|'ve|'ll|'d)?(?=\s)|[!?]{2}|[.?!] [a-z]+ [a-z]+ "
)
"""Marks of people who chat: they leave sentences without a stop, and nothing was cut off."""
_ANNOUNCES: Final = (":", "\uff1a")
"""What stands before a list, a quotation or code, and never at an end."""
_DANGLING: Final = re.compile(r"(?:,|;|\u2014|\u2013|\s-|\(|\[|\s&|\s/)\s*$")

_FENCE: Final = re.compile(r"^[^\S\n]*(?:```|~~~)", re.MULTILINE)
_FENCED: Final = re.compile(r"^[^\S\n]*(```|~~~).*?(?:^[^\S\n]*\1[^\S\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_OPEN_LINK: Final = re.compile(r"\[[^\[\]\n]{1,100}\]\((?:https?:|www\.|/|\.)?[^()\s]*$")
_OPEN_BOLD: Final = re.compile(r"(?:^|[\s(\"'])\*\*(?=[^\s*])[^*\n]*$")
_GREEK: Final = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
_OPEN_QUOTE: Final = re.compile(r"(?:^|[\s(])['\u2018]")
_FACE: Final = re.compile(r"(?:[:;=]-?[(\[/|]|[(\[]-?:|\bD:)$")
_INLINE_CODE: Final = re.compile(r"``.*?``|`[^`\n]*`")

_STRAY_JSON: Final = re.compile(
    r"^\s*[\[{]\s*[\[{]?\s*\"\w+\"\s*[:,]"
    r"|\"(?:role|content|messages|conversation|from|value)\"\s*:\s*[\"\[{]"
    r"|(?<![\w}])\"\s*[}\]]\s*[,}\]]*\s*$"
    r"|(?<![\\\w:])\\n(?:\\n|[A-Z-])"
)
_TEMPLATE: Final = re.compile(
    r"(?<![\w$\\{])\{\{?\s*[A-Za-z]\w*(?:[ ._]\w+){0,3}\s*\}?\}"
    r"|\[(?:INSERT|ENTER|ADD|FILL|PLACEHOLDER|TODO|TBD|REDACTED|X{2,})\b[^\]\n]{0,60}\]"
    r"|\[(?:[Yy]our|[Uu]ser'?s?|[Ii]nsert|[Cc]ompany|[Aa]ssistant'?s?|[Mm]odel) ?(?:[A-Za-z ]{0,20})[Nn]ame(?: here)?\]"
    r"|\[(?:[Nn]ame|NAME|[Dd]ate|DATE|[Uu]rl|URL|[Ll]ink|LINK|[Cc]ity|[Ll]ocation|[Tt]opic)\](?!\()"
    r"|<(?:INSERT|YOUR|PLACEHOLDER|NAME)[ _A-Z]*>|<(?:your|insert)[ _-][a-z _-]{1,30}>"
    r"|<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>(?!\w)|<(?:start|end)_of_turn>"
    r"|\blorem ipsum\b|\bTODO:"
)
_SPEAKER: Final = re.compile(
    r"(?:^|\n)[^\S\n]*(?:\*\*)?(?:User|Human|Assistant|Bot|AI)(?:\*\*)?:(?:\*\*)?\s", re.IGNORECASE
)
_ASKS_FOR_SCRIPT: Final = re.compile(
    r"\b(?:dialog(?:ue)?|conversation|script|role.?play|skit|example|story|scene|transcript|json|template|format|placeholder)",
    re.IGNORECASE,
)


def find_completeness_defects(messages: Sequence[Prose], *, full_stops: bool | None = None) -> Iterator[Defect]:
    """Answers that stop in mid-sentence or mid-markup, and text that is no answer at all.

    Args:
        messages: The conversation's prose.
        full_stops: Whether answers of this set end on a stop, as those of a chat model do; see `infer_full_stops`.
            None: each conversation is judged by its other answers.
    """
    answers = _Answers(messages)
    question = ""
    for message in messages:
        if message.role == "assistant":
            found = _find_open_markup(message) or _find_stub(message, full_stops)
            if defect := found or _find_cut(message, answers, full_stops):
                yield defect
            yield from _find_stray_text(message, question)
        elif match := _template_match(message.plain):
            yield _template(message, match)
        question = message.text


def infer_full_stops(conversations: Iterable[Sequence[Prose]]) -> bool | None:
    """Whether a set's answers of four words and more end on a stop: True from 99 % on, False below 80 %."""
    texts = [m.text for messages in conversations for m in messages if m.role == "assistant"]
    closed = [_is_closed(text) for text in texts if text.count(" ") >= _MIN_TAIL_WORDS - 1]
    share = sum(closed) / len(closed) if closed else 0.0
    return True if share >= _MIN_SET_SHARE else None if share >= _MIN_DOUBT_SHARE else False


class _Answers:
    """What a conversation's answers have in common; each is looked at once, however many are judged by it."""

    def __init__(self, messages: Sequence[Prose]) -> None:
        self._texts = [message.text for message in messages if message.role == "assistant"]
        self.num_others = len(self._texts) - 1

    @cached_property
    def _num_closed(self) -> int:
        return sum(map(_is_closed, self._texts))

    @cached_property
    def are_informal(self) -> bool:
        """Whether people chat here, who leave sentences without a stop."""
        return any(_INFORMAL.search(text) for text in self._texts)

    def share_closed(self, text: str) -> float:
        """The share of the other answers that end on a stop; of a single answer, whether it is written so."""
        if not self.num_others:
            return float(_is_written(text))
        return (self._num_closed - _is_closed(text)) / self.num_others


def _find_open_markup(message: Prose) -> Defect | None:
    text = message.text.rstrip()
    if not text:
        return None
    rest = text
    if "```" in text or "~~~" in text:
        if len(_FENCE.findall(text)) % 2:
            return _defect(message, "open_code", "the answer ends inside a code block", text)
        rest = _FENCED.sub("", text).rstrip()
    paragraph = rest[rest.rfind("\n\n") + 1 :]
    if "`" in paragraph:
        paragraph = _INLINE_CODE.sub("x", paragraph)
        if "`" in paragraph:
            return _defect(message, "open_markup", "the answer ends inside `code`", text)
    if paragraph.count("**") % 2 and _OPEN_BOLD.search(paragraph) and not _INFORMAL.search(text):
        return _defect(message, "open_markup", "the answer ends inside **bold** text", text)
    if "](" in paragraph and _OPEN_LINK.search(paragraph):
        return _defect(message, "open_markup", "the answer ends inside a [link]", text)
    return None


def _find_stub(message: Prose, full_stops: bool | None) -> Defect | None:  # noqa: FBT001 - three values
    """A text that is no end, whatever the others are like: a URL's beginning, or nothing but "The"."""
    text = message.text.rstrip()
    if _OPEN_URL.search(text[-_MAX_END_CHARS:]):
        return _defect(message, "cut_off", "the answer ends inside a URL", text)
    if full_stops is not False and 1 < len(text) <= _MAX_END_CHARS and _LONE.fullmatch(text):
        return _defect(message, "cut_off", f"the answer is {text!r}, and goes no further", text)
    return None


def _find_cut(message: Prose, answers: _Answers, full_stops: bool | None) -> Defect | None:  # noqa: FBT001 - three values
    """The end of a text that is no end."""
    text = message.text.rstrip()
    if not text or (_is_closed(text) and not _BARE_MARKER.search(text[-_MAX_MARKER_CHARS:])):
        return None
    if message.plain[len(text) - 1].isspace() or _URL_END.search(_last_word(text)) or _FACE.search(text[-3:]):
        return None
    if text.endswith(_ANNOUNCES):
        return _defect(message, "cut_off", "the answer ends on a colon: what it announces is missing", text)
    share = answers.share_closed(text)
    if share < _MIN_CLOSED_SHARE and not full_stops:
        return None
    is_lenient = full_stops is False
    reason, detail = "cut_off", ""
    if "\n" in text and _BARE_MARKER.search(text):
        reason, detail = "open_list", "the answer ends on a list marker without an item"
    elif (_DANGLING.search(text) or text[-1] in "'\u2019") and not is_lenient:
        detail = f"the answer ends on {text[-1]!r}"
    elif (match := _HANGING.search(text)) or (
        not is_lenient and len(text) >= _MIN_CHARS and (match := _HANGING_WHEN_LONG.search(text))
    ):
        detail = f"the answer ends on {match[0]!r}, in mid-sentence"
    elif _lacks_end(text) and (full_stops or (full_stops is None and share == 1 and answers.num_others >= _MIN_OTHERS)):
        detail = "the answer's last sentence has no end, while all others have"
    if not detail or (not full_stops and answers.are_informal):
        return None
    return _defect(message, reason, detail, text)


def _last_word(text: str) -> str:
    """What stands behind the last white space, as far back as a URL may reach."""
    words = text[-_MAX_URL_CHARS:].split()
    return words[-1] if words else ""


def _lacks_end(text: str) -> bool:
    """Whether the last line of a text without a stop is no title, list item, signature or line of verse."""
    if not text[-1].isalnum() or not text[-1].isascii():
        return False
    *before, last_line = text.rsplit("\n", 2)
    if last_line.count(" ") < _MIN_TAIL_WORDS - 1 or _LIST_LINE.search(last_line):
        return False
    line_before = before[-1].rstrip() if before else ""
    is_verse = bool(line_before) and not _is_closed(line_before) and not line_before.endswith(_ANNOUNCES)
    return not is_verse


def _find_stray_text(message: Prose, question: str) -> Iterator[Defect]:
    found = []
    plain = message.plain
    if ('"' in plain or "\\n" in plain) and (match := _STRAY_JSON.search(plain)):
        excerpt = excerpt_of(message.text, *match.span())
        detail = "the answer holds JSON that is no part of it"
        found.append(Defect("completeness", "stray_json", detail, excerpt, message.index))
    if match := _template_match(plain):
        found.append(_template(message, match))
    if ":" in plain and (match := _SPEAKER.search(plain)):
        excerpt = excerpt_of(message.text, *match.span())
        found.append(
            Defect("completeness", "speaker_label", "the answer speaks for more than one", excerpt, message.index)
        )
    if found and not _ASKS_FOR_SCRIPT.search(question):
        yield from found


def _template_match(plain: str) -> re.Match[str] | None:
    if "{" in plain or "[" in plain or "<" in plain or "TODO" in plain or "orem ipsum" in plain:
        return _TEMPLATE.search(plain)
    return None


def _template(message: Prose, match: re.Match[str]) -> Defect:
    detail = f"a place of a template was not filled in: {match[0].strip()}"
    return Defect("completeness", "template", detail, excerpt_of(message.text, *match.span()), message.index)


def _defect(message: Prose, reason: str, detail: str, text: str) -> Defect:
    return Defect("completeness", reason, detail, excerpt_of(text, max(0, len(text) - 40), len(text)), message.index)


def _is_written(text: str) -> bool:
    """Whether a single answer is prose in whole sentences, as far as it can tell by itself."""
    return bool(_SENTENCE_STOP.search(text)) or (len(text) >= _MIN_CHARS and text[:1].isupper())


def _is_closed(text: str) -> bool:
    stripped = text.rstrip()
    if not stripped or stripped[-1] not in _CLOSING:
        # The Greek question mark, as most people and Unicode's normal form write it.
        return stripped[-1:] == ";" and bool(_GREEK.match(stripped, len(stripped) - 2))
    # An apostrophe at the end closes a quotation that was opened, or it is half of "you're".
    return stripped[-1] not in "'\u2019" or not stripped[-2:-1].isalpha() or bool(_OPEN_QUOTE.search(stripped))
