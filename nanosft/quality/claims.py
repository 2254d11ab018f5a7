"""Claims about oneself in running text: "I'm X", "my name is X", "I was made by X", "X created me". Pure.

They are found by their grammar, not by the presence of a name: "I'm not ChatGPT" and "if I were Claude" claim nothing.
"""

import re
from collections.abc import Iterator
from typing import Final

_KNOWN_ASSISTANTS: Final = (
    r"ChatGPT|GPT-?\d\w*(?:\.\d)?|GPT|Claude|Gemini|Google Bard|Bard|LLaMA|Llama|Mistral|Mixtral|Qwen|DeepSeek|Copilot|"
    r"Bing(?: Chat)?|Alexa|Siri|Cortana|Grok|Vicuna|Alpaca|PaLM|Gemma|Kimi|ERNIE|HuggingChat|Tulu|OLMo|SmolLM|Falcon|"
    r"Command R|Nova|Replika|Cleverbot|Perplexity|Open ?Assistant|Google Assistant"
)
_WORD: Final = r"[A-Z][\w'\u2019.-]*\w|[A-Z]"
_NAME: Final = rf"(?:{_WORD})(?: (?:{_WORD})){{0,3}}"
_PERSON: Final = rf"(?:{_WORD})(?: (?:{_WORD}|de|van|von|der|of|the|and|&)){{0,5}}"
# The letter stands before the look behind it: the search then skips to that letter.
_I_AM: Final = r"[Ii](?<!\w[Ii])(?:['\u2019]?m| am)"

# A name is claimed for certain: "my name is X", "call me X". The first capital decides; names in lower case are
# recognized when they are the expected one.
_STRONG_CLAIM: Final = re.compile(
    rf"\b(?:[Mm]y name(?: is|'s|\u2019s)|{_I_AM} (?:called|named|known as)|"
    rf"(?:[Yy]ou can|[Jj]ust|[Pp]lease|[Pp]eople|[Tt]hey|[Ff]riends) call me|"
    rf"[Yy]ou'?re (?:talking|chatting|speaking) (?:to|with)) "
    rf"(?:the )?(?P<name>{_NAME})"
)
_STRONG_SIGNS: Final = (
    "y name",
    "call me",
    "called ",
    "named ",
    "known as ",
    "king to ",
    "king with ",
    "tting to ",
    "tting with ",
)
_WEAK_CLAIM: Final = re.compile(
    rf"{_I_AM}(?: just| actually| really)? (?P<name>{_KNOWN_ASSISTANTS}|{_NAME})(?P<after>.{{0,60}})", re.DOTALL
)
_APPOSITION: Final = re.compile(
    r"(?:,| [-\u2013\u2014]|\u2014)\s*(?:an? |your |the )(?:[\w-]+ ){0,4}?"
    r"(?:assistant|[Mm]odel|AI|LLM|chat ?bot|bot|helper)\b"
)
_NOT_A_CLAIM_AFTER: Final = re.compile(
    r"-\w|['\u2019]s\b|\s+(?:like|style|clone|alternative|user|fan|compatible|inspired)\b"
)
_HEDGE: Final = re.compile(
    r"\b(?:think|thinks|thought|say|says|said|saying|if|that|whether|pretend|pretending|call|claim|claims|mistaken|"
    r"confus\w+|wish|believe|unless|imagine|suppose|not|never|joke|joking|assume|guess|tell|told|like)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_KNOWN: Final = re.compile(rf"(?:{_KNOWN_ASSISTANTS})(?![\w])")

# "I'm nanochat, a …": to learn a set's name, in lower case too.
_INFERRED: Final = re.compile(
    rf"{_I_AM} (?P<name>[A-Za-z][\w-]{{2,30}})(?=(?:,| [-\u2013\u2014]|\u2014)\s*"
    r"(?:an? |your |the |created |built |made |developed |independently ))"
)

_MADE: Final = r"(?:created|built|made|developed|trained|designed|programmed|engineered|written|coded|invented|crafted)"
_MADE_BY: Final = re.compile(
    rf"I(?<!\wI)(?: (?:was|am|have been|got)|['\u2019]m|['\u2019]ve been)(?: \w+ly| first| just| also| proudly)? "
    rf"(?:{_MADE}(?:,? and |, | & ))?{_MADE}(?: [^.;:!?,()]{{0,30}}?)? by "
    rf"(?:the |an? )?(?:[a-z]\w+ )?(?P<maker>{_PERSON})"
)
_MADE_APPOSITION: Final = re.compile(
    rf"[IiAa](?<!\w[IiAa])(?:(?<=[Ii])(?:['\u2019]?m| am)|(?<=[Aa])s (?:an AI|a (?:large )?language model)) "
    rf"(?P<gap>(?:[^.;:!?\n]{{1,110}}? )??){_MADE} by (?:the )?(?P<maker>{_PERSON})"
)
_MY_MAKER: Final = re.compile(
    rf"\b[Mm]y (?:creator|maker|developer|builder|inventor|author)(?:'s name)? (?:is|was) (?:the )?(?P<maker>{_PERSON})"
)
_MADE_ME: Final = re.compile(rf"(?P<maker>{_PERSON}) (?:has |originally )?{_MADE} me\b")
_MADE_ME_ENDS: Final = ("ed me", "ade me", "uilt me", "ritten me")
_OTHER_SUBJECT: Final = re.compile(
    r"\b(?:on|using|with|like|than|from|unlike|via|including|runs|uses|and|for|between|of|in)\b"
)
_NO_MAKER: Final = frozenset(  # a list of words reads as words:
    "He She They It You We I Who That This What Which One People Someone Everyone Somebody Humans Researchers "  # noqa: SIM905
    "Engineers "
    "Yes No Well So And But Or Because Since When While As If The My Your Our Their A An In To After Before Then "
    "Python PyTorch English Synthetic Reinforcement Supervised AI Deep Machine Large Open OpenSource MIT Hand "
    "Muon AdamW SFT RL GPU GPUs".split()
)
_MAX_CLAUSE_CHARS: Final = 400
_JOINS: Final = frozenset({"and", "&", "of", "the"})


def find_name_claims(text: str) -> Iterator[tuple[str, int]]:
    """Names that the speaker claims, with their offsets."""
    if any(sign in text for sign in _STRONG_SIGNS):
        for match in _STRONG_CLAIM.finditer(text):
            if not _HEDGE.search(_clause_before(text, match.start())):
                yield match["name"], match.start("name")
    for match in _WEAK_CLAIM.finditer(text):
        name, after = match["name"], match["after"]
        is_known = _KNOWN.match(name) is not None
        if not is_known and not (_APPOSITION.match(after) and " " not in name):
            continue
        if not _NOT_A_CLAIM_AFTER.match(after) and not _HEDGE.search(_clause_before(text, match.start())):
            yield name, match.start("name")


def find_maker_claims(text: str) -> Iterator[tuple[str, int]]:
    """Who the speaker says it was made by, with their offsets."""
    if " by " in text:
        yield from _makers(text, _MADE_BY)
        for match in _MADE_APPOSITION.finditer(text):
            if not _OTHER_SUBJECT.search(match["gap"]) and not _HEDGE.search(match["gap"]):
                yield from _maker(text, match)
    if "aker" in text or "reator" in text or "eveloper" in text or "uthor" in text:
        yield from _makers(text, _MY_MAKER)
    if any(end in text for end in _MADE_ME_ENDS):
        yield from _makers(text, _MADE_ME)


def _makers(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    for match in pattern.finditer(text):
        yield from _maker(text, match)


def _maker(text: str, match: re.Match[str]) -> Iterator[tuple[str, int]]:
    maker = match["maker"]
    first = re.split(r"['\u2019]", maker.split()[0].strip(",."))[0]
    if (
        first not in _NO_MAKER
        and maker.split()[-1] not in _JOINS
        and not _HEDGE.search(_clause_before(text, match.start()))
    ):
        yield maker, match.start("maker")


def find_likely_names(text: str) -> Iterator[str]:
    """Names as `find_name_claims` has them, and words in lower case that stand in a name's place."""
    for match in _STRONG_CLAIM.finditer(text):
        yield match["name"].split()[0].rstrip(".,")
    for match in _INFERRED.finditer(text):
        yield match["name"]


def _clause_before(text: str, at: int) -> str:
    """The part of the sentence since its last comma that stands before `at`, at most 400 characters."""
    first = max(0, at - _MAX_CLAUSE_CHARS)
    found = max(text.rfind(stop, first, at) for stop in (". ", "! ", "? ", "\n", "; ", ": ", ", ", " but "))
    start = max(first, found + 1)
    return text[start:at]
