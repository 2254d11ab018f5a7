"""The identity gate: who the assistant says it is, and who made it. Pure.

A claim is found by its grammar ("I'm X", "my name is X", "I was made by X", "X created me"), not by the presence of a
name: an assistant may well speak of ChatGPT, and say that it is not it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect, excerpt_of

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
_JOINS: Final = frozenset({"and", "&", "of", "the"})
_TITLES: Final = frozenset(
    {"king", "queen", "dr", "mr", "ms", "mrs", "prof", "professor", "sir", "lord"}
    | {"the", "a", "an", "of", "and", "at", "&", "de", "van", "von"}
)

_ASKS_NAME: Final = re.compile(
    r"\b(?:what(?:'?s| is|\u2019s) (?:your|ur|yr) name|whats (?:your|ur) name|do you have a name|"
    r"what (?:should|can|do|may) (?:i|we) call you|(?:tell me|give me) your name|"
    r"who (?:are|r) (?:you|u)(?=\s*(?:$|[?!.,]|exactly|again|really|then|anyway)))",
    re.IGNORECASE,
)
_ASKS_MAKER: Final = re.compile(
    r"\bwho (?:(?:has |have )?(?:made|created|built|developed|trained|designed|programmed|invented|coded) (?:you|u)\b|"
    r"(?:is|was|are) (?:your|ur) (?:creator|maker|developer|author|builder|inventor)s?\b)|"
    r"\bwho'?s your (?:creator|maker|developer)",
    re.IGNORECASE,
)
_NON_WORD: Final = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the assistant is.

    Attributes:
        name: Its name.
        maker: Who made it; empty where nobody is known, and then no maker is wrong.
        also: Other names that it may go by, and other makers that it may name.
    """

    name: str
    maker: str = ""
    also: tuple[str, ...] = ()


def find_identity_defects(
    messages: Sequence[Prose], identity: Identity | None, *, names_itself: bool = False
) -> Iterator[Defect]:
    """Claims of another name or maker, and questions for them that are not answered.

    Args:
        messages: The conversation's prose.
        identity: Who the assistant is. None: only two different claims within the conversation are a defect.
        names_itself: Whether the topic asks that the assistant names itself somewhere.
    """
    answers = [message for message in messages if message.role == "assistant"]
    if identity is None:
        yield from _find_inconsistency(answers)
        return
    question = ""
    named = False
    for message in messages:
        if message.role != "assistant":
            question = message.plain
            continue
        yield from _find_wrong_claims(message, identity)
        names = _mentions(message.text, identity.name, *identity.also)
        named = named or names
        if not names and _ASKS_NAME.search(question) and not _quotes_other(question):
            detail = f"asked for its name, the assistant does not say that it is {identity.name}"
            yield Defect("identity", "name_not_given", detail, " ".join(message.text[:100].split()), message.index)
        if identity.maker and _ASKS_MAKER.search(question) and not _names_maker(message.text, identity):
            detail = f"asked who made it, the assistant does not name {identity.maker}"
            yield Defect("identity", "maker_not_given", detail, " ".join(message.text[:100].split()), message.index)
    if names_itself and not named:
        yield Defect("identity", "unnamed", f"the assistant never says that it is {identity.name}")


def infer_identity(conversations: Iterable[Sequence[Prose]], *, min_share: float = 0.3) -> Identity | None:
    """The identity that a set's assistants claim, if one name is claimed in at least `min_share` of conversations.

    Claims of a name in lower case ("I'm nanochat") count here as well, when words of a name's place are no adjective.
    """
    names: Counter[str] = Counter()
    makers: Counter[str] = Counter()
    num_rows = 0
    for messages in conversations:
        num_rows += 1
        answers = [message for message in messages if message.role == "assistant"]
        names.update({name for message in answers for name in _inferred_names(message.plain)})
        makers.update({_trim(claim) for message in answers for claim, _ in _maker_claims(message.plain)})
    if not names:
        return None
    name, count = names.most_common(1)[0]
    if count < min_share * num_rows:
        return None
    maker = makers.most_common(1)[0][0] if makers else ""
    return Identity(name, maker)


def _find_wrong_claims(message: Prose, identity: Identity) -> Iterator[Defect]:
    for name, at in _name_claims(message.plain, identity):
        if not _is_expected(name, identity):
            detail = f"the assistant calls itself {name}; it is {identity.name}"
            yield Defect("identity", "other_name", detail, excerpt_of(message.text, at, at + len(name)), message.index)
    if identity.maker:
        for maker, at in _maker_claims(message.plain):
            if not _is_maker(maker, identity):
                detail = f"the assistant says it was made by {maker}; its maker is {identity.maker}"
                excerpt = excerpt_of(message.text, at, at + len(maker))
                yield Defect("identity", "other_maker", detail, excerpt, message.index)


def _find_inconsistency(answers: Sequence[Prose]) -> Iterator[Defect]:
    """Two names claimed in one conversation: of models that are known, or in words that leave no doubt."""
    first = ""
    for message in answers:
        for name, at in _name_claims(message.plain, None):
            if not first:
                first = name
            elif not _same(first, name):
                detail = f"the assistant calls itself {first} and {name}"
                excerpt = excerpt_of(message.text, at, at + len(name))
                yield Defect("identity", "two_names", detail, excerpt, message.index)
                return


def _name_claims(text: str, identity: Identity | None) -> Iterator[tuple[str, int]]:
    """Names that the speaker claims, with their offsets."""
    if any(sign in text for sign in _STRONG_SIGNS):
        for match in _STRONG_CLAIM.finditer(text):
            if not _HEDGE.search(_clause_before(text, match.start())):
                yield match["name"], match.start("name")
    for match in _WEAK_CLAIM.finditer(text):
        name, after = match["name"], match["after"]
        is_known = _KNOWN.match(name) is not None
        if identity is not None and _is_expected(name, identity):
            continue
        if not is_known and not (_APPOSITION.match(after) and " " not in name):
            continue
        if not _NOT_A_CLAIM_AFTER.match(after) and not _HEDGE.search(_clause_before(text, match.start())):
            yield name, match.start("name")


def _maker_claims(text: str) -> Iterator[tuple[str, int]]:
    if " by " in text:
        yield from _makers(text, _MADE_BY)
        for match in _MADE_APPOSITION.finditer(text):
            if not _OTHER_SUBJECT.search(match["gap"]):
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


def _inferred_names(text: str) -> Iterator[str]:
    for match in _STRONG_CLAIM.finditer(text):
        yield match["name"].split()[0].rstrip(".,")
    for match in _INFERRED.finditer(text):
        yield match["name"]


def _clause_before(text: str, at: int) -> str:
    """The part of the sentence since its last comma that stands before `at`."""
    start = max(text.rfind(stop, 0, at) for stop in (". ", "! ", "? ", "\n", "; ", ": ", ", ", " but ")) + 1
    return text[start:at]


def _is_expected(name: str, identity: Identity) -> bool:
    return any(_same(name, expected) for expected in (identity.name, *identity.also, identity.maker) if expected)


def _same(first: str, second: str) -> bool:
    """Whether one name begins with the other, letter case and punctuation apart."""
    left, right = _NON_WORD.sub("", first).casefold(), _NON_WORD.sub("", second).casefold()
    return bool(left and right) and (left.startswith(right) or right.startswith(left))


def _is_maker(claim: str, identity: Identity) -> bool:
    words = _name_words(claim)
    return any(
        words & _name_words(expected) for expected in (identity.maker, *identity.also, identity.name) if expected
    )


def _names_maker(text: str, identity: Identity) -> bool:
    return any(word in text.casefold() for maker in (identity.maker, *identity.also) for word in _name_words(maker))


def _name_words(name: str) -> set[str]:
    words = {word.strip(".,'\u2019").removesuffix("'s").removesuffix("\u2019s") for word in name.casefold().split()}
    return words - _TITLES - {""}


def _trim(maker: str) -> str:
    words = maker.split()
    while words and words[-1].casefold() in _TITLES:
        words.pop()
    return " ".join(words).rstrip(".,")


def _mentions(text: str, *names: str) -> bool:
    folded = text.casefold()
    if any(name.casefold() in folded for name in names):
        return True
    squeezed = _NON_WORD.sub("", folded)  # "nano chat", "Nano-Chat"
    return any(_NON_WORD.sub("", name.casefold()) in squeezed for name in names)


def _quotes_other(question: str) -> bool:
    """Whether the question for a name may be about somebody else: it holds a quotation or a role to play."""
    return '"' in question or bool(
        re.search(r"\b(?:pretend|role ?play|imagine|act as|character)\b", question, re.IGNORECASE)
    )
