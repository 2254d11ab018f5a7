"""The completeness gate: answers cut off, markup left open, stray JSON, left-overs of templates. Pure.

An answer without a full stop at its end is not cut off because of that: people chat so, and lists, verse and addresses
end so. It is when its last words cannot end a sentence, or when all else around it is written in whole sentences.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect, excerpt_of

_TERMINAL: Final = frozenset(
    ".!?\u2026:;)]}>\"'\u201d\u2019\u00bb`*_~|/\\=\u3002\uff01\uff1f\uff09\u300d\u0964\u061f\u06d4"
)
_SENTENCE_STOP: Final = re.compile(r"[.!?\u2026\u3002\uff01\uff1f](?=[\"')\u201d\u2019]*(?:\s|$))")
_URL_END: Final = re.compile(
    r"(?:https?://\S+|www\.\S+|\b[\w-]+\.(?:com|org|net|io|ai|dev|edu|gov)(?:/\S*)?|\S+@\S+\.\w+)$"
)
_LIST_LINE: Final = re.compile(r"^\s*(?:[-*+\u2022]|\d{1,3}[.)]|[a-zA-Z][.)])\s+\S|^\s*\||^\s{0,3}#{1,6}\s|^\s*>")
_BARE_MARKER: Final = re.compile(r"(?:^|\n)[^\S\n]*(?:[-*+\u2022]|\d{1,3}[.)]|#{1,6}|\|)[^\S\n]*$")
_HANGING: Final = re.compile(
    r"\b(?:the|a|an|and|or|because|although|whereas|if|than|into|onto|my|your|our|their|its|"
    r"every|such as|as well as|due to|instead of|I'm|you're|they're|we're|it's|there's|I've|you've|we've|which|whose)$"
)
_HANGING_WHEN_LONG: Final = re.compile(
    r"\b(?:of|to|for|with|from|by|at|as|is|are|was|were|but|in|on|that|this|these|can|will|would|could|should|"
    r"has|have|had|who|when|where|while|so|be|been|not|very|also|some|any|each|his|her|between|about)$",
    re.IGNORECASE,
)
_MIN_LONG_CHARS: Final = 80
_MIN_PROSE_CHARS: Final = 120
_MAX_TAIL_WORDS: Final = 3
_MIN_CLOSED_SHARE: Final = 0.8
_DANGLING: Final = re.compile(r"(?:,|;|\u2014|\u2013|\s-|\(|\[|\s&|\s/)\s*$")

_FENCE: Final = re.compile(r"^[^\S\n]*(?:```|~~~)", re.MULTILINE)
_FENCED: Final = re.compile(r"^[^\S\n]*(```|~~~).*?(?:^[^\S\n]*\1[^\S\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_OPEN_LINK: Final = re.compile(r"\[[^\[\]\n]{1,100}\]\((?:https?:|www\.|/|\.)?[^()\s]*$")
_OPEN_BOLD: Final = re.compile(r"(?:^|[\s(\"'])\*\*(?=[^\s*])[^*\n]*$")
_FACE: Final = re.compile(r"[:;=]-?[(\[/|]$")
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


def find_completeness_defects(messages: Sequence[Prose]) -> Iterator[Defect]:
    """Answers that stop in mid-sentence or mid-markup, and text that is no answer at all."""
    answers = [message for message in messages if message.role == "assistant"]
    num_closed = sum(_is_closed(message.text) for message in answers)
    num_others = len(answers) - 1
    question = ""
    for message in messages:
        if message.role == "assistant":
            # Who writes whole sentences elsewhere is cut off where one has no end; who chats without stops is not.
            closed = num_closed - _is_closed(message.text)
            is_writer = closed >= _MIN_CLOSED_SHARE * num_others if num_others else _is_written(message.text)
            yield from _find_open_ends(message, is_writer=is_writer)
            yield from _find_stray_text(message, question)
        elif match := _TEMPLATE.search(message.plain):
            yield _template(message, match)
        question = message.text


def _find_open_ends(message: Prose, *, is_writer: bool) -> Iterator[Defect]:
    text = message.text.rstrip()
    if not text:
        return
    if len(_FENCE.findall(text)) % 2:
        yield _defect(message, "open_code", "the answer ends inside a code block", text)
        return
    rest = _FENCED.sub("", text).rstrip() if "```" in text or "~~~" in text else text
    if not rest:
        return
    if rest == text and _BARE_MARKER.search(rest):
        yield _defect(message, "open_list", "the answer ends on a list marker without an item", text)
        return
    paragraph = rest[rest.rfind("\n\n") + 1 :]
    prose = _INLINE_CODE.sub("x", paragraph)
    if prose.count("`") % 2:
        yield _defect(message, "open_markup", "the answer ends inside `code`", text)
    elif prose.count("**") % 2 and _OPEN_BOLD.search(prose):
        yield _defect(message, "open_markup", "the answer ends inside **bold** text", text)
    elif _OPEN_LINK.search(prose):
        yield _defect(message, "open_markup", "the answer ends inside a [link]", text)
    elif is_writer and rest == text and (detail := _cut_off(rest)):
        yield _defect(message, "cut_off", detail, text)


def _cut_off(text: str) -> str | None:
    """Why the end of the text is no end, or None. The text is not empty and ends on no white space."""
    last_line = text[text.rfind("\n") + 1 :]
    if text[-1] in _TERMINAL or _URL_END.search(last_line) or _FACE.search(text):
        return None
    if _DANGLING.search(text):
        return f"the answer ends on {text[-1]!r}"
    if not (text[-1].isalnum() and text[-1].isascii()):
        return None
    if match := _HANGING.search(text):
        return f"the answer ends on {match[0]!r}, in mid-sentence"
    if len(text) >= _MIN_LONG_CHARS and (match := _HANGING_WHEN_LONG.search(text)) and _SENTENCE_STOP.search(text):
        return f"the answer ends on {match[0]!r}, in mid-sentence"
    is_prose = len(text) >= _MIN_PROSE_CHARS and "\n" not in text[-_MIN_PROSE_CHARS:]
    if is_prose and not _LIST_LINE.search(last_line):
        stops = [match.end() for match in _SENTENCE_STOP.finditer(text)]
        tail = text[stops[-1] :] if stops else ""
        if len(stops) > 1 and len(tail.split()) > _MAX_TAIL_WORDS:
            return "the answer's last sentence has no end, while all others have"
    return None


def _find_stray_text(message: Prose, question: str) -> Iterator[Defect]:
    asked = bool(_ASKS_FOR_SCRIPT.search(question))
    if not asked and (match := _STRAY_JSON.search(message.plain)):
        excerpt = excerpt_of(message.text, *match.span())
        yield Defect(
            "completeness", "stray_json", "the answer holds JSON that is no part of it", excerpt, message.index
        )
    if not asked and (match := _TEMPLATE.search(message.plain)):
        yield _template(message, match)
    if not asked and (match := _SPEAKER.search(message.plain)):
        excerpt = excerpt_of(message.text, *match.span())
        yield Defect("completeness", "speaker_label", "the answer speaks for more than one", excerpt, message.index)


def _template(message: Prose, match: re.Match[str]) -> Defect:
    detail = f"a place of a template was not filled in: {match[0].strip()}"
    return Defect("completeness", "template", detail, excerpt_of(message.text, *match.span()), message.index)


def _defect(message: Prose, reason: str, detail: str, text: str) -> Defect:
    return Defect("completeness", reason, detail, excerpt_of(text, max(0, len(text) - 40), len(text)), message.index)


def _is_written(text: str) -> bool:
    """Whether a single answer is prose in whole sentences, as far as it can tell by itself."""
    return bool(_SENTENCE_STOP.search(text)) or (len(text) >= _MIN_LONG_CHARS and text[:1].isupper())


def _is_closed(text: str) -> bool:
    stripped = text.rstrip()
    return bool(stripped) and stripped[-1] in _TERMINAL
